//! What became of each step, and of a run, for people and programs.

use crate::host::Program;
use crate::knobs::{self, Reach};
use crate::plan::{Item, Plan, Step};
use crate::resources::{State, Value};
use serde::Serialize;
use std::fmt;

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "detail")]
pub enum Outcome {
    /// Done, and read back.
    Done,
    /// The kernel has another number than was asked.
    Short {
        /// Asked for.
        wanted: u64,
        /// In force now.
        got: u64,
    },
    /// It is not to be set from outside the kernel: why. Not an error.
    Impossible(String),
    /// There is nothing to set any more: why. Not an error.
    Gone(String),
    /// A program that is not run in a tree.
    LeftToYou,
    /// It failed: why.
    Failed(String),
    /// Not tried, because something before it failed.
    Skipped,
}

/// One step and what became of it.
#[derive(Serialize)]
pub struct Report {
    /// The step, for people.
    pub step: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Report {
    /// Whether the machine is not as it was asked to be, because of this step.
    pub fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_) | Outcome::Skipped)
    }

    /// Whether the machine did not take it, and the rest went on.
    pub fn is_refusal(&self) -> bool {
        matches!(self.outcome, Outcome::Impossible(_))
    }

    /// Whether there was nothing to set any more.
    fn is_gone(&self) -> bool {
        matches!(self.outcome, Outcome::Gone(_))
    }

    /// Why it failed; nothing if it did not.
    pub fn why(&self) -> &str {
        if let Outcome::Failed(why) = &self.outcome { why } else { "" }
    }
}

/// One line for people, more where a program failed.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = &self.step;
        match &self.outcome {
            Outcome::Done => write!(f, "done     {step}"),
            Outcome::Short { wanted, got } if got > wanted => {
                write!(f, "short    {step}: {got} are there still; the others are in use")
            }
            Outcome::Short { wanted, got } => write!(
                f,
                "short    {step}: the kernel granted {got} of {wanted}; free memory is too fragmented for more until \
                 the next boot"
            ),
            Outcome::Impossible(why) => write!(f, "not set  {step}: {why}"),
            Outcome::Gone(why) => write!(f, "gone     {step}: {why}"),
            Outcome::LeftToYou => write!(f, "to do    {step} in that system"),
            Outcome::Failed(why) => write!(f, "FAILED   {step}: {why}"),
            Outcome::Skipped => write!(f, "skipped  {step}: because of the failure before"),
        }
    }
}

/// What an apply left undone although nothing failed: settings of the plan after it that are still missing or
/// different, but for those that the reports explain already: arguments that wait for update-grub in a tree, and
/// interrupts once one of them was refused or had gone.
pub fn left_open(reports: &[Report], item: &Item) -> bool {
    let any = |of: fn(&Outcome) -> bool| reports.iter().any(|report| of(&report.outcome));
    let explained = match item.reach {
        Reach::Reboot => any(|outcome| matches!(outcome, Outcome::LeftToYou)),
        Reach::Live => {
            reports.iter().any(|report| (report.is_refusal() || report.is_gone()) && is_about(report, item))
        }
        Reach::GuestRestart | Reach::Check => false,
    };
    let open = matches!(
        item.observed.state,
        State::Missing
            | State::Differs(_)
            | State::Obsolete
            | State::Waiting(_)
            | State::Rejected(_)
            | State::Foreign(_)
    );
    open && !explained
}

/// Whether a step set the interrupt that an item is about.
fn is_about(report: &Report, item: &Item) -> bool {
    let number = item.label.strip_prefix("IRQ ").filter(|_| item.knob == knobs::IRQ_AFFINITY);
    number.is_some_and(|number| report.step.starts_with(&format!("set /proc/irq/{number}/")))
}

/// Interrupts that were set and read back, and are elsewhere already: who does that, where it is known.
pub fn moved_back(reports: &[Report], after: &Plan) -> Option<String> {
    let done =
        |item: &Item| reports.iter().any(|report| report.outcome == Outcome::Done && is_about(report, item));
    let differs = |item: &&Item| matches!(item.observed.state, State::Differs(_));
    let moved = after.items.iter().filter(differs).filter(|item| done(item));
    let labels: Vec<_> = moved.map(|item| item.label.as_str()).collect();
    let who = match after.facts.services.iter().find(|service| service.name == "irqbalance") {
        Some(service) => format!("irqbalance (PID {}) moves interrupts", service.pid),
        None => "another program moves interrupts".into(),
    };
    (!labels.is_empty()).then(|| format!("Moved since they were set: {}; {who}\n\n", labels.join(", ")))
}

/// Whether what this run did changed what it was planned for: TuneD, which was stopped, took back what it had set, or a
/// network interface with other channels has other interrupts and queues.
pub fn needs_another(plan: &Plan, reports: &[Report]) -> bool {
    let changes = |step: &Step| {
        *step == Step::Run { program: Program::StopTuned }
            || matches!(step, Step::Attribute { after: Value::Channels(_), .. })
    };
    plan.steps.iter().zip(reports).any(|(step, report)| changes(step) && report.outcome == Outcome::Done)
}

/// The last line of an apply; `before` and `after` are the plans around it.
pub fn summary(reports: &[Report], before: &Plan, after: &Plan) -> String {
    let count = |of: fn(&Outcome) -> bool| reports.iter().filter(|report| of(&report.outcome)).count();
    let failed = reports.iter().filter(|report| report.is_failure()).count();
    if failed > 0 {
        return format!("Not applied: {failed} of {} steps failed or were skipped.", reports.len());
    }
    let done = count(|outcome| *outcome == Outcome::Done);
    let left = count(|outcome| matches!(outcome, Outcome::LeftToYou)) + after.counts().by_hand;
    let others = [
        (count(|outcome| matches!(outcome, Outcome::Short { .. })), "short"),
        (count(|outcome| matches!(outcome, Outcome::Impossible(_))), "not set"),
        (reports.iter().filter(|report| report.is_gone()).count(), "gone"),
        (left, "left to you"),
    ];
    let text = match (done, others) {
        (0, [(0, _), (0, _), (0, _), (0, _)]) => "Nothing to do".into(),
        (0, [(0, _), (0, _), (0, _), _]) => "Nothing to do but what is left to you".into(),
        (done, others) => {
            let others = others.iter().filter(|(count, _)| *count > 0);
            let others: String = others.map(|(count, what)| format!(", {count} {what}")).collect();
            format!("Applied: {done} {}{others}", if done == 1 { "step" } else { "steps" })
        }
    };
    // What was taken out of the boot configuration runs until then.
    let runs = |item: &Item| {
        item.observed.state == State::Obsolete
            && item.reach == Reach::Reboot
            && item.observed.running.is_some()
    };
    let reboot = if before.items.iter().any(runs) { before.reboot() } else { after.reboot() };
    format!("{text}. {reboot}")
}
