//! `revert`: everything as it was before the first apply, or what that would change.

use super::args::{Format, RevertArgs};
use super::style::Style;
use super::{Outcome, change, load};
use crate::engine::{self, End, Report, Work};
use crate::facts::Boot;
use crate::formats::HostPath;
use crate::host::{Machine, Read, Root, Signals, Snapshot, Writer, print, wants_color};
use crate::journal::State;
use crate::plan::diff::patch;
use crate::plan::restore::{How, Past, Programs, Restored};
use crate::plan::text;
use crate::plan::{Running, Step};
use serde_json::json;

pub(super) fn run(args: &RevertArgs) -> Outcome {
    let machine = load::machine(&args.root);
    if args.dry_run {
        return dry_run(args, &machine);
    }
    change::under_lock(&machine, "revert", &args.wait, |root, writer, signals| {
        work(args, &machine, root, writer, signals)
    })
}

/// What a revert would do.
struct Reverting {
    restored: Restored,
    steps: Vec<Step>,
    boot_id: Option<String>,
}

fn plan(args: &RevertArgs, machine: &Machine, state: &State) -> Result<Reverting, String> {
    let snapshot: Snapshot = machine.snapshot()?;
    let boot_id = snapshot.file(&HostPath::new("/proc/sys/kernel/random/boot_id")).ok();
    let boot_id = boot_id.map(|file| file.text().trim().to_owned());
    let live = matches!(machine, Machine::Live);
    let running = match load::facts(machine, &snapshot) {
        Ok(facts) if !args.live => Running::of(&facts),
        Err(error) if live && !args.live => return Err(error),
        // A tree may have lost what the facts are read from; no guest runs in it then.
        _ => None,
    };
    let spared = running.as_ref().map(|guests| (guests, "revert --live"));
    let how = How { force: args.force, live, disks: false, boot_id: boot_id.as_deref(), spared };
    let mut restored = Restored::plan(&snapshot, state.baseline.iter(), how);
    restored.take_out_elsewhere(&Boot::read(&snapshot), state);
    let steps = restored.steps(&Programs::default());
    Ok(Reverting { restored, steps, boot_id })
}

fn work(args: &RevertArgs, machine: &Machine, root: &Root, writer: &Writer, signals: &Signals) -> Outcome {
    change::refuse_interrupted(root)?;
    let state = engine::load(root)?;
    let mut reverting = plan(args, machine, &state)?;
    let Restored { notes, waiting, .. } = &reverting.restored;
    let mut kept: Vec<String> = [&notes[..], waiting].concat();
    let finished = &mut reverting.restored.finished;
    let unanswered = engine::without_unanswered(&mut reverting.steps, finished, root, writer);
    kept.extend(unanswered.iter().map(|why| {
        format!(
            "the guests, for libvirt does not answer; mend it and revert again: {}",
            why.replace('\n', " ")
        )
    }));
    let boot_id = reverting.boot_id.clone();
    let run = engine::begin("revert", state.applied.as_ref(), boot_id);
    let work = Work {
        run,
        steps: &reverting.steps,
        items: &reverting.restored.items,
        finished: &reverting.restored.finished,
        applied: None,
        trial: None,
        held: &[],
        keep_going: false,
    };
    let done = engine::carry_out_all(work, state, root, writer, signals);
    let (reports, end) = done.map_err(change::nothing_written)?;
    let status = report(args, machine, &reports, &end, (&kept, &reverting.restored.told))?;
    Ok(if unanswered.is_some() { change::UNANSWERED } else { status })
}

/// Only ever holds what reads.
fn dry_run(args: &RevertArgs, machine: &Machine) -> Outcome {
    let Past { state, notes, .. } = load::past(machine)?;
    let mut reverting = plan(args, machine, &state)?;
    let Restored { notes: of_plan, told, .. } = &mut reverting.restored;
    of_plan.append(told);
    of_plan.extend(notes);
    print(&match args.format.format {
        Format::Text => {
            let patch = patch(&reverting.steps);
            let gap = if patch.is_empty() { "" } else { "\n" };
            let Restored { items, notes, .. } = &reverting.restored;
            let text = text::revert(&machine.to_string(), items, notes);
            Style::new(wants_color()).plan(&format!("{text}{gap}{patch}"))
        }
        Format::Json => load::pretty(&json!({
            "schema": 1,
            "machine": machine.to_string(),
            "items": reverting.restored.items,
            "steps": reverting.steps,
            "notes": reverting.restored.notes,
            "patch": patch(&reverting.steps),
        })),
    })?;
    Ok(0)
}

/// `kept` is what should have gone, and `told` what to know besides.
fn report(
    args: &RevertArgs,
    machine: &Machine,
    reports: &[Report],
    end: &End,
    (kept, told): (&[String], &[String]),
) -> Outcome {
    let not_done = change::not_done(end);
    print(&match args.format.format {
        Format::Text => {
            let taken = not_done.as_ref().map_or("", |(text, _)| text);
            let summary = match (&not_done, reports.is_empty(), kept.is_empty()) {
                (Some(_), ..) => "Not reverted.",
                (None, true, true) => "Nothing to revert.",
                (None, false, true) if reports.iter().any(Report::is_refusal) => {
                    "Reverted, but for what is named as not set: revert again after the next boot. What the kernel was started \
                     with runs until then."
                }
                (None, false, true) => {
                    "Reverted: as before the first apply. What the kernel was started with runs until the next boot."
                }
                (None, _, false) => "Reverted, but for what is named above.",
            };
            let kept: String = kept.iter().map(|note| format!("left     {note}\n")).collect();
            let told: String = told.iter().map(|note| format!("note     {note}\n")).collect();
            text::printable(&format!("{}{taken}{kept}{told}{summary}\n", change::lines(reports)))
        }
        Format::Json => load::pretty(&json!({
            "schema": 1,
            "machine": machine.to_string(),
            "reports": reports,
            "notes": kept.iter().chain(told).collect::<Vec<_>>(),
            "end": change::end_json(end),
        })),
    })?;
    match not_done {
        Some((_, error)) => Err(error),
        None => Ok(u8::from(!kept.is_empty() || reports.iter().any(Report::is_refusal))),
    }
}
