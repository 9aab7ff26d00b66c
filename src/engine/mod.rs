//! Layer 9: carrying steps out, all or none. Every effect goes through the one [`Writer`] that the verb was given.
//!
//! The journal, with everything that a run is about to change, is on disk before its first step. A run is carried out
//! once `state.json` has its id; until then it is taken back, by itself or by `recover`. Taking back compares, so that
//! it needs no record of how far a run came, and can itself be interrupted and begun anew.

mod check;
mod entries;
mod report;
mod rollback;
mod steps;

pub use check::{check, without_unanswered};
pub use report::{Outcome, Report, left_open, moved_back, needs_another, summary};
pub use rollback::{Recovered, interrupted, recover};

use crate::facts::irqs::is_interrupt;
use crate::formats::HostPath;
use crate::formats::time::utc;
use crate::formats::trial::Trial;
use crate::host::{JOURNAL, Program, Root, STATE, STATE_DIR, Signals, Writer};
use crate::journal::{Applied, Ending, Journal, Record, Run, Stamp, State};
use crate::plan::{Held, Item, Step};
use steps::{Anew, carry_out, describe};

/// What a run is to do.
pub struct Work<'a> {
    /// What it is.
    pub run: Run,
    /// The steps, in order.
    pub steps: &'a [Step],
    /// What they are for.
    pub items: &'a [Item],
    /// What is no longer ours after them.
    pub finished: &'a [HostPath],
    /// The profile that is in force after them.
    pub applied: Option<Applied>,
    /// The trial that they begin.
    pub trial: Option<&'a Trial>,
    /// What is ours after them in files of others.
    pub held: &'a [Held],
    /// Whether what was done stays when a step fails.
    pub keep_going: bool,
}

/// What became of a run.
pub enum End {
    /// It was carried out; or, with `keep_going`, as much of it as could be.
    Done,
    /// It was taken back: why, what that did, and what to know besides.
    RolledBack {
        /// Why.
        why: String,
        /// What was done for it.
        reports: Vec<Report>,
        /// What stays as it is.
        notes: Vec<String>,
    },
    /// It could not be taken back whole either; the journal stays.
    Stuck {
        /// Why it was to be taken back.
        why: String,
        /// What was tried.
        reports: Vec<Report>,
        /// What else went wrong.
        notes: Vec<String>,
    },
}

/// Where the files are that take effect at the next boot.
const READ_AT_BOOT: [&str; 2] = ["/etc/systemd/", "/etc/modprobe.d/"];

/// Carries a run out. What became of each step comes beside its end.
///
/// # Errors
/// What stands in the way, found before anything was written.
pub fn carry_out_all(
    work: Work,
    mut state: State,
    root: &Root,
    writer: &Writer,
    signals: &Signals,
) -> Result<(Vec<Report>, End), Vec<String>> {
    let changes = |step: &Step| root.is_live() || !matches!(step, Step::Run { .. });
    if !work.steps.iter().any(changes) {
        // What there is are programs, and none is run in a tree.
        let reports = work.steps.iter().map(|step| report(step, Outcome::LeftToYou)).collect();
        forget(work.finished, state, writer).map_err(|why| vec![why])?;
        return Ok((reports, End::Done));
    }
    let runs = |program| work.steps.contains(&Step::Run { program });
    let entries = entries::capture(&work, root)?;
    let mut journal = Journal::new(work.run.clone(), entries);
    journal.update_grub = runs(Program::UpdateGrub);
    journal.mkconfig = runs(Program::Mkconfig);
    journal.boot_once = runs(Program::BootOnce);
    journal.generated = rollback::generated(root);
    let text = journal.text();
    check::preflight(work.steps, root, text.len())?;
    if let Err(error) = writer.store(JOURNAL, &text) {
        // It may be there all the same, and not yet on disk.
        return Err([Some(error), writer.unstore(JOURNAL).err()].into_iter().flatten().collect());
    }
    let Tried { mut reports, begun, stopped } = all_steps(&work, root, writer, signals);
    if let Some(why) = stopped {
        let tried = work.steps[..begun].iter().zip(&reports);
        let begun: Vec<Step> = tried
            .filter(|(_, report)| !matches!(report.outcome, Outcome::Gone(_)))
            .map(|(step, _)| step.clone())
            .collect();
        let end = rollback::after_failure(why, &begun, &journal, state, root, writer);
        return Ok((reports, end));
    }
    let before = state.clone();
    let failed = reports.iter().filter(|report| report.is_failure()).count();
    let did = |step: &Step| {
        let step = describe(step);
        let took =
            |outcome: &Outcome| matches!(outcome, Outcome::Done | Outcome::Short { .. } | Outcome::Gone(_));
        reports.iter().any(|report| report.step == step && took(&report.outcome))
    };
    let undone: Vec<&HostPath> = work.steps.iter().filter(|step| !did(step)).filter_map(Step::path).collect();
    state.absorb(&journal, work.finished, &undone);
    state.run = Some(work.run.id.clone());
    state.applied = work.applied;
    let generated = work.steps.iter().any(|step| match step {
        Step::Run { program } => program.generates().is_some() && did(step),
        step => step.path().is_some_and(|path| is_held(path, work.held)) && did(step),
    });
    if generated {
        state.kernel_arguments = Some(work.run.began.clone());
    }
    let at_boot = |path: &HostPath| READ_AT_BOOT.iter().any(|dir| path.as_str().starts_with(dir));
    if work.steps.iter().any(|step| step.path().is_some_and(at_boot) && did(step)) {
        state.files = Some(work.run.began.clone());
    }
    state.remember(Record { run: work.run, outcome: Ending::Done, steps: reports.len(), failed });
    if let Err(why) = writer.store(STATE, &state.text()) {
        // Where it has taken its name after all, the run is carried out.
        let there = load(root).ok().and_then(|state| state.run);
        if there != state.run {
            let end = rollback::after_failure(why, work.steps, &journal, before, root, writer);
            return Ok((reports, end));
        }
    }
    // The run is carried out all the same, and `recover` sees it in the state.
    if let Err(error) = writer.unstore(JOURNAL) {
        let step = "remove the journal (`rtkvm-tune recover` does it)".to_owned();
        reports.push(Report { step, outcome: Outcome::Failed(error) });
    }
    Ok((reports, End::Done))
}

/// What is as it was before by itself, after a boot, is no longer ours.
fn forget(finished: &[HostPath], mut state: State, writer: &Writer) -> Result<(), String> {
    let ours = state.baseline.len();
    state.baseline.retain(|entry| !finished.contains(&entry.path));
    if state.baseline.len() == ours { Ok(()) } else { writer.store(STATE, &state.text()) }
}

/// The state of earlier runs.
///
/// # Errors
/// It is there and cannot be used: why, and the remedy.
pub fn load(root: &Root) -> Result<State, String> {
    let text = root.stored(STATE).map_err(|error| error.to_string())?;
    text.map_or(Ok(State::default()), |text| State::parse(&text, &format!("{STATE_DIR}/{STATE}")))
}

/// Every step in order, and why the rest was not begun: the first that failed, or a signal. With `keep_going` no
/// further file, program or guest is touched after a failure; attributes are independent of each other and all
/// tried, and an interrupt that stays where it is stops nothing.
fn all_steps(work: &Work, root: &Root, writer: &Writer, signals: &Signals) -> Tried {
    let mut reports: Vec<Report> = Vec::new();
    let (mut failed, mut stopped, mut begun) = (false, None, 0);
    let mut anew = Anew::default();
    for (at, step) in work.steps.iter().enumerate() {
        if let Some(signal) = signals.came().filter(|_| stopped.is_none()) {
            stopped = Some(format!("stopped by {signal}"));
        }
        let independent = matches!(step, Step::Attribute { .. }) && stopped.is_none();
        let outcome = match failed && !independent || stopped.is_some() {
            true => Outcome::Skipped,
            false => {
                begun = at + 1;
                carry_out(step, work.trial, root, writer, &mut anew)
            }
        };
        if let Outcome::Failed(why) = &outcome {
            if !work.keep_going {
                stopped = Some(format!("{}: {why}", describe(step)));
            }
            failed |= !matches!(step, Step::Attribute { path, .. } if is_interrupt(path));
            let previous = at.checked_sub(1).and_then(|at| work.steps.get(at));
            if let Some(previous) = previous.filter(|_| work.keep_going) {
                take_back(step, previous, root, writer, &mut reports);
            }
        }
        reports.push(report(step, outcome));
    }
    Tried { reports, begun, stopped }
}

/// What came of the steps of a run.
struct Tried {
    reports: Vec<Report>,
    /// How many were begun, skipped ones between them included.
    begun: usize,
    /// Why the rest was not.
    stopped: Option<String>,
}

fn report(step: &Step, outcome: Outcome) -> Report {
    Report { step: describe(step), outcome }
}

/// Whether it is a file of somebody else's with arguments of ours.
fn is_held(path: &HostPath, held: &[Held]) -> bool {
    held.iter().any(|held| held.path == *path)
}

/// A drop-in that update-grub could not work with must not wait for the next kernel update to take effect.
fn take_back(failed: &Step, previous: &Step, root: &Root, writer: &Writer, reports: &mut Vec<Report>) {
    let Step::Run { program } = failed else { return };
    if program.generates().is_none() {
        return;
    }
    if let Step::File { path, before, after, mode, .. } = previous {
        let (before, after) = (after.clone(), before.clone());
        let back = Step::File { path: path.clone(), before, after, mode: *mode, metadata: None };
        let command = program.command();
        let command = command.split(' ').next().unwrap_or_default();
        let step = format!("put {path} back, since {command} failed");
        reports.push(Report { step, outcome: carry_out(&back, None, root, writer, &mut Anew::default()) });
    }
}

/// A run that begins now.
pub fn begin(verb: &str, applied: Option<&Applied>, boot_id: Option<String>) -> Run {
    let (time, id) = crate::host::time_and_id();
    Run {
        id,
        began: Stamp { time: utc(time), boot_id },
        verb: verb.into(),
        profile: applied.map(|applied| applied.name.clone()),
        sha256: applied.map(|applied| applied.sha256.clone()),
    }
}
