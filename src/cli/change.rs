//! What the verbs that change a machine have in common: the lock, the writer, what was interrupted, the report.

use super::args::WaitArg;
use super::load::{self, interruption};
use crate::engine::{self, End, Report, Work};
use crate::host::{self, LockError, Machine, Root, Signals, Writer};
use crate::journal::Applied;
use crate::plan::restore::Past;
use crate::plan::text::printable;
use crate::plan::{Options, Plan, Scope};
use crate::profile::Parsed;
use sha2::{Digest, Sha256};

/// Runs `work` under the lock of the machine, which no other run can have meanwhile.
///
/// # Errors
/// This user cannot change this machine, another run is at work on it, or what `work` ended in.
pub(super) fn under_lock<T>(
    machine: &Machine,
    verb: &str,
    wait: &WaitArg,
    work: impl FnOnce(&Root, &Writer, &Signals) -> Result<T, String>,
) -> Result<T, String> {
    if matches!(machine, Machine::Live) && !host::is_root() {
        let dry = ["apply", "revert"].contains(&verb);
        let hint = if dry { "; --dry-run shows the plan without" } else { "" };
        return Err(format!("{verb} changes this machine and needs root{hint}"));
    }
    let root = machine.root()?;
    let writer = Writer::lock(&root, wait.wait).map_err(|error| match error {
        LockError::Held if wait.wait > 0 => {
            format!("another rtkvm-tune is still at work on {machine} after {} s", wait.wait)
        }
        LockError::Held => format!(
            "another rtkvm-tune is at work on {machine}: wait until it is done, or let --wait SECONDS do so"
        ),
        LockError::Failed(errno) => format!("cannot take the lock of {machine}: {}", errno.desc()),
    })?;
    let signals = Signals::hold().map_err(|errno| format!("cannot hold signals back: {}", errno.desc()))?;
    work(&root, &writer, &signals)
}

/// Refuses to work on a machine on which a run was interrupted.
pub(super) fn refuse_interrupted(root: &Root) -> Result<(), String> {
    match engine::interrupted(root) {
        Ok(None) => Ok(()),
        Ok(Some(journal)) => Err(interruption(&journal)),
        Err(error) => Err(error.to_string()),
    }
}

/// What earlier runs left, for a run that goes by it.
///
/// # Errors
/// A file of the state cannot be used: why, and the remedy.
pub(super) fn past(root: &Root) -> Result<Past, String> {
    Ok(Past { state: engine::load(root)?, notes: Vec::new(), live: root.is_live() })
}

/// How many plans are made of a machine that does not keep still.
const PLANS: u32 = 5;

/// A profile that is being applied to a machine.
pub(super) struct Applying<'a> {
    /// What the run is called.
    pub(super) verb: &'static str,
    pub(super) options: Options,
    pub(super) machine: &'a Machine,
    /// The profile's name.
    pub(super) name: String,
    pub(super) parsed: &'a Parsed,
    pub(super) keep_going: bool,
}

/// What came of it.
pub(super) struct Carried {
    pub(super) plan: Plan,
    pub(super) reports: Vec<Report>,
    pub(super) end: End,
    /// Why the guests were left as they are: libvirt did not answer.
    pub(super) unanswered: Option<String>,
}

/// The exit status where libvirt did not answer, and everything but the guests is done.
pub(super) const UNANSWERED: u8 = 4;

impl Applying<'_> {
    /// Plans, checks, plans again, and carries the plan out.
    ///
    /// # Errors
    /// What stands in the way, found before anything was written.
    pub(super) fn carry_out(
        &self,
        root: &Root,
        writer: &Writer,
        signals: &Signals,
    ) -> Result<Carried, String> {
        refuse_interrupted(root)?;
        let past = past(root)?;
        let mut plan = self.settled(root, &past)?;
        let unanswered = engine::without_unanswered(&mut plan.steps, &mut plan.finished, root, writer);
        let applied = self.applied();
        let work = Work {
            run: engine::begin(self.verb, Some(&applied), plan.facts.kernel.boot_id.clone()),
            steps: &plan.steps,
            items: &plan.items,
            finished: &plan.finished,
            applied: match self.options.scope {
                Scope::Everything | Scope::Trial(_) => Some(applied),
                Scope::Runtime => past.state.applied.clone(),
            },
            trial: plan.trial.as_ref(),
            held: &plan.held,
            keep_going: self.keep_going,
        };
        let done = engine::carry_out_all(work, past.state, root, writer, signals);
        let (reports, end) = done.map_err(nothing_written)?;
        Ok(Carried { plan, reports, end, unanswered })
    }

    /// A plan that comes out the same twice. The lock keeps this program out, and nobody else: interrupts move and threads
    /// end while it is made.
    fn settled(&self, root: &Root, past: &Past) -> Result<Plan, String> {
        let mut plan = load::make_plan(self.machine, self.parsed, self.options, past)?;
        let mut plans = 1;
        loop {
            engine::check(&plan, root).map_err(nothing_written)?;
            if plan.steps.is_empty() {
                return Ok(plan);
            }
            let (again, _) = load::plan_again(self.machine, self.parsed, self.options, past)?;
            if again.does_the_same(&plan) {
                return Ok(plan);
            }
            plans += 1;
            if plans > PLANS || again.placement != plan.placement {
                let what = plan.other_path(&again).map_or(String::new(), |path| format!(" at {path}"));
                let what =
                    format!("{} changed{what} while the apply was planned: run it again", self.machine);
                return Err(nothing_written(vec![what]));
            }
            plan = again;
        }
    }

    fn applied(&self) -> Applied {
        let text = self.parsed.source.text.clone();
        let hash = Sha256::digest(text.as_bytes());
        let sha256 = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Applied { name: self.name.clone(), sha256, text }
    }
}

/// Obstacles as one message.
pub(super) fn nothing_written(found: Vec<String>) -> String {
    format!("nothing was written:\n  {}", found.join("\n  "))
}

/// One line for each step.
pub(super) fn lines(reports: &[Report]) -> String {
    let lines: String = reports.iter().map(|report| format!("{report}\n")).collect();
    printable(&lines)
}

/// What became of a run that was not carried out, for people: its report, and the error. `None` if it was.
pub(super) fn not_done(end: &End) -> Option<(String, String)> {
    let (why, reports, notes, error) = match end {
        End::Done => return None,
        End::RolledBack { why, reports, notes } => {
            let but = match reports.iter().any(Report::is_refusal) {
                true => ", but for what is named as not set",
                false => "",
            };
            (why, reports, notes, format!("{why}\nWhat was done before it is taken back{but}."))
        }
        End::Stuck { why, reports, notes } => {
            let failed: String = reports
                .iter()
                .filter(|report| report.is_failure())
                .map(|r| format!("\n  {}: {}", r.step, r.why()))
                .collect();
            let notes_too: String = notes.iter().map(|note| format!("\n  {note}")).collect();
            let error = format!(
                "{why}\nWhat was done before it could not be taken back:{failed}{notes_too}\nMend the cause, then run \
                 `rtkvm-tune recover`."
            );
            (why, reports, notes, error)
        }
    };
    let notes: String = notes.iter().map(|note| format!("  {note}\n")).collect();
    Some((printable(&format!("\nTaken back, because {why}\n{}{notes}", lines(reports))), error))
}

/// What became of a run, for programs.
pub(super) fn end_json(end: &End) -> serde_json::Value {
    match end {
        End::Done => serde_json::json!({"outcome": "done"}),
        End::RolledBack { why, reports, notes } => {
            serde_json::json!({"outcome": "rolled-back", "why": why, "reports": reports, "notes": notes})
        }
        End::Stuck { why, reports, notes } => {
            serde_json::json!({"outcome": "stuck", "why": why, "reports": reports, "notes": notes})
        }
    }
}
