//! `confirm`: what was tried in a trial boot becomes the default, if everything is in line on it.

use super::args::ConfirmArgs;
use super::change::{self, Applying};
use super::{Outcome, load};
use crate::facts::boot::DROP_IN;
use crate::facts::trial::{RECORD, Standing};
use crate::facts::{Facts, grubenv};
use crate::formats::kernel_args::KernelArg;
use crate::formats::trial::Trial;
use crate::formats::{HostPath, grub, time};
use crate::host::{self, Machine, Program, Read, Root, Signals, Writer, print, print_error};
use crate::knobs::{IRQ_AFFINITY, PROFILE};
use crate::plan::restore::Past;
use crate::plan::text::printable;
use crate::plan::{self, Plan, Scope, Step};
use crate::profile::{self, Parsed};
use crate::resources::State;

/// Seconds between two audits.
const PAUSE: u64 = 5;
/// The most findings that are told and kept.
const MOST: usize = 12;

pub(super) fn run(args: &ConfirmArgs) -> Outcome {
    let machine = load::machine(&args.root);
    change::under_lock(&machine, "confirm", &args.wait, |root, writer, signals| {
        confirm(args, &machine, root, writer, signals)
    })
}

fn confirm(
    args: &ConfirmArgs,
    machine: &Machine,
    root: &Root,
    writer: &Writer,
    signals: &Signals,
) -> Outcome {
    change::refuse_interrupted(root)?;
    let mut trial = match running(machine)? {
        (trial, Standing::Running) => trial,
        (trial, standing) => {
            let of = time::utc(trial.asked);
            let why = match standing {
                Standing::Failed(why) => why,
                _ => "it has not been booted: reboot, or end it by `rtkvm-tune apply` without --trial".into(),
            };
            if args.automatic {
                give_up(&trial, &why, root, writer)?;
            }
            return Err(format!("the trial of {of} cannot be confirmed: {why}"));
        }
    };
    if args.automatic && trial.booted.is_none() {
        trial.booted = Some(boot_id(root));
        keep(&trial, writer)?;
    }
    let until = host::now() + if args.automatic { args.within } else { 0 };
    let found = loop {
        let found = findings(machine, &trial, root, writer).unwrap_or_else(|why| vec![why]);
        if found.is_empty() || host::now() >= until {
            break found;
        }
        if let Some(signal) = signals.came() {
            return Err(format!("stopped by {signal}: the trial is not confirmed"));
        }
        host::pause(PAUSE);
    };
    if found.is_empty() {
        let made = make_default(machine, &trial, (root, writer, signals));
        if let (Err(why), true) = (&made, args.automatic) {
            // What could not be taken back whole is `recover`'s to end, which compares.
            change::refuse_interrupted(root)?;
            give_up(&trial, why, root, writer)?;
        }
        return made;
    }
    let more = found.len().saturating_sub(MOST);
    let mut told = found[..found.len() - more].join("; ");
    if more > 0 {
        told += &format!("; and {more} more");
    }
    if args.automatic {
        give_up(&trial, &told, root, writer)?;
    }
    let of = time::utc(trial.asked);
    print_error(&printable(&format!(
        "the trial of {of} is not confirmed, and the next boot has the default entry's line again:\n  {}\n",
        told.replace("; ", "\n  ")
    )));
    Ok(1)
}

/// The trial of this boot.
fn running(machine: &Machine) -> Result<(Trial, Standing), String> {
    let facts = load::facts(machine, &machine.snapshot()?)?;
    if let Some(Err(why)) = &facts.trial.record {
        return Err(format!("{RECORD}: {why}"));
    }
    let found = facts.trial.standing(&facts.kernel).map(|(trial, standing)| (trial.clone(), standing));
    found.ok_or_else(|| format!("there is no trial to confirm on {machine}"))
}

fn boot_id(root: &Root) -> String {
    let file = root.file(&HostPath::new("/proc/sys/kernel/random/boot_id"));
    file.map(|file| file.text().trim().to_owned()).unwrap_or_default()
}

fn kept_profile(root: &Root) -> Result<Parsed, String> {
    let file = root.file(&HostPath::new(PROFILE)).map_err(|error| format!("{PROFILE}: {error}"))?;
    profile::parse(PROFILE, &file.bytes).map_err(|failed| load::shown(&failed.diagnostics, &failed.source))
}

/// Replaces the record.
fn keep(trial: &Trial, writer: &Writer) -> Result<(), String> {
    let written = writer.file(&HostPath::new(RECORD), &trial.to_string(), 0o600, None);
    written.map_err(|errno| format!("cannot write {RECORD}: {}", errno.desc()))
}

/// Keeps the reason, and sees to it that the entry is not booted once more.
fn give_up(trial: &Trial, why: &str, root: &Root, writer: &Writer) -> Result<(), String> {
    let mut trial = trial.clone();
    trial.failed = Some(why.trim().replace('\n', "; "));
    keep(&trial, writer)?;
    let set = grubenv::environment(root).is_ok_and(|block| block.get("next_entry").is_some());
    match writer.run(&Program::ForgetOnce) {
        Some(Err(error)) if set => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// What is not in line, as if the arguments of this boot were the default already.
fn findings(machine: &Machine, trial: &Trial, root: &Root, writer: &Writer) -> Result<Vec<String>, String> {
    let parsed = &kept_profile(root)?;
    let snapshot = machine.snapshot()?;
    let mut facts: Facts = load::facts_for(machine, &snapshot, parsed)?;
    let kernel = plan::default_kernel(&snapshot);
    facts.boot.next = facts.kernel.command_line.iter().cloned().collect();
    let made = plan::make(&snapshot, facts, parsed, Scope::Everything, &Past::default());
    let (plan, _) = made.map_err(|diagnostics| load::shown(&diagnostics, &parsed.source))?;
    let mut found = open(&plan);
    if planned(&plan).is_some_and(|arguments| arguments != trial.arguments()) {
        found.push(format!("{PROFILE} does not ask for the arguments that were tried: apply it"));
    }
    match kernel {
        Ok(kernel) if kernel == trial.kernel => {}
        Ok(kernel) => found.push(format!(
            "the default entry boots {kernel} by now, and {} was tried: try it with `apply --trial`",
            trial.kernel
        )),
        Err(why) => found.push(why),
    }
    let asks = !plan.guests.is_empty() || root.head(&HostPath::new("/usr/bin/virsh"), 0).is_ok();
    let ask = Program::AskLibvirt { connection: parsed.profile.host.libvirt.clone() };
    if let Some(Err(error)) = asks.then(|| writer.run(&ask)).flatten() {
        found.push(format!("libvirt does not answer: {error}").replace('\n', " "));
    }
    Ok(found)
}

/// The settings that are not in line. An interrupt that stays where it is stops nothing, as in an apply; nor does what
/// cannot be told, which waiting does not change.
fn open(plan: &Plan) -> Vec<String> {
    let open = plan.items.iter().filter(|item| {
        !matches!(item.observed.state, State::InLine | State::NotApplicable(_) | State::Unverifiable(_))
            && item.knob != IRQ_AFFINITY
            && !item.is_check()
    });
    let told = open.map(|item| {
        let is = item.observed.running.as_deref().unwrap_or("-");
        let why = match &item.observed.state {
            State::Differs(Some(why))
            | State::ByHand(why)
            | State::Rejected(why)
            | State::Waiting(why)
            | State::Foreign(why) => {
                format!(" ({why})")
            }
            _ => String::new(),
        };
        format!("{}, {}: {is}, wanted {}{why}", item.knob, item.label, item.wanted)
    });
    told.collect()
}

/// The arguments that a plan would put into the drop-in, if it would change it.
fn planned(plan: &Plan) -> Option<Vec<KernelArg>> {
    plan.steps.iter().find_map(|step| match step {
        Step::File { path, after, .. } if path.as_str() == DROP_IN => {
            Some(after.as_deref().and_then(grub::drop_in_args).unwrap_or_default())
        }
        _ => None,
    })
}

/// As an apply without --trial, which ends the trial too.
fn make_default(
    machine: &Machine,
    trial: &Trial,
    (root, writer, signals): (&Root, &Writer, &Signals),
) -> Outcome {
    let parsed = &kept_profile(root)?;
    let applying = Applying {
        verb: "confirm",
        options: Scope::Everything.into(),
        machine,
        name: PROFILE.into(),
        parsed,
        keep_going: false,
    };
    let done = applying.carry_out(root, writer, signals)?;
    let lines = change::lines(&done.reports);
    match change::not_done(&done.end) {
        Some((taken, error)) => {
            print(&format!("{lines}{taken}Not confirmed: what failed is above.\n"))?;
            Err(error)
        }
        None => {
            let of = time::utc(trial.asked);
            print(&format!("{lines}Confirmed: the arguments of the trial of {of} are the default.\n"))?;
            Ok(0)
        }
    }
}
