//! From the command line's file names to a plan.

use super::args::{ConnectArg, PlanArgs, RootArg};
use crate::engine;
use crate::facts::Facts;
use crate::host::{Loaded, Machine, Snapshot, StoreError, load, print_error, wants_error_color};
use crate::journal::{Journal, Run};
use crate::placement::{self, Placement};
use crate::plan::diff::patch;
use crate::plan::restore::Past;
use crate::plan::{self, Options, Plan};
use crate::profile::{self, Diagnostic, MAX_PROFILE, Parsed, Source};
use std::path::Path;

/// A profile that was read, and who else could have written it.
pub(super) struct ReadProfile {
    pub(super) parsed: Parsed,
    pub(super) untrusted: Option<String>,
}

/// Reads a profile.
///
/// # Errors
/// The diagnostics, ready to print.
pub(super) fn read_profile(path: &Path) -> Result<ReadProfile, String> {
    let Loaded { bytes, untrusted } = load(path, MAX_PROFILE)?;
    match profile::parse(&path.display().to_string(), &bytes) {
        Ok(parsed) => Ok(ReadProfile { parsed, untrusted }),
        Err(failed) => Err(shown(&failed.diagnostics, &failed.source)),
    }
}

/// Diagnostics, ready to print.
pub(super) fn shown(diagnostics: &[Diagnostic], source: &Source) -> String {
    profile::render(diagnostics, source, wants_error_color())
}

/// What the machine is, for a profile.
pub(super) fn facts_for(machine: &Machine, snapshot: &Snapshot, parsed: &Parsed) -> Result<Facts, String> {
    Ok(with_guests(facts(machine, snapshot)?, snapshot, parsed))
}

/// What the machine is, whatever the profile.
pub(super) fn facts(machine: &Machine, snapshot: &Snapshot) -> Result<Facts, String> {
    Facts::read(snapshot).map_err(|error| format!("{machine}: {error}"))
}

/// With the guests of the profile's libvirt.
pub(super) fn with_guests(mut facts: Facts, snapshot: &Snapshot, parsed: &Parsed) -> Facts {
    facts.definitions.ask(snapshot, &parsed.profile.host.libvirt);
    facts
}

/// Divides or plans: `make` on the facts of a machine.
///
/// # Errors
/// Diagnostics or a message about the machine, ready to print.
fn on_machine<T>(
    machine: &Machine,
    parsed: &Parsed,
    make: impl FnOnce(&Snapshot, Facts) -> Result<T, Vec<Diagnostic>>,
) -> Result<T, String> {
    let snapshot = machine.snapshot()?;
    let made = make(&snapshot, facts_for(machine, &snapshot, parsed)?);
    // This happens once or twice in a process, whose end takes down tens of thousands of files in less time.
    std::mem::forget(snapshot);
    made.map_err(|diagnostics| shown(&diagnostics, &parsed.source))
}

/// Prints the warnings that came beside something made.
fn warn<T>((made, warnings): (T, Vec<Diagnostic>), parsed: &Parsed) -> T {
    if !warnings.is_empty() {
        print_error(&format!("{}\n", shown(&warnings, &parsed.source).trim_end()));
    }
    made
}

/// The plan of a profile for a machine.
pub(super) fn make_plan(
    machine: &Machine,
    parsed: &Parsed,
    options: impl Into<Options>,
    past: &Past,
) -> Result<Plan, String> {
    Ok(warn(plan_again(machine, parsed, options, past)?, parsed))
}

/// The plan after an apply, whose warnings are printed already.
pub(super) fn plan_again(
    machine: &Machine,
    parsed: &Parsed,
    options: impl Into<Options>,
    past: &Past,
) -> Result<(Plan, Vec<Diagnostic>), String> {
    on_machine(machine, parsed, |host, facts| plan::make(host, facts, parsed, options, past))
}

/// What earlier runs left, for verbs that only look: what cannot be read is a note.
pub(super) fn past(machine: &Machine) -> Result<Past, String> {
    // What a recorded machine was before is not recorded.
    let (Machine::Live | Machine::Tree(_)) = machine else { return Ok(Past::default()) };
    let root = machine.root()?;
    let mut past = Past { live: root.is_live(), ..Past::default() };
    match engine::interrupted(&root) {
        Ok(None) => {}
        Ok(Some(journal)) => past.notes.push(interruption(&journal)),
        Err(StoreError::Hidden) => {
            past.notes
                .push(format!("{}: what earlier runs set and left is not known here", StoreError::Hidden));
            return Ok(past);
        }
        Err(StoreError::Unusable(why)) => past.notes.push(why),
    }
    match engine::load(&root) {
        Ok(state) => past.state = state,
        Err(why) => past.notes.push(why),
    }
    Ok(past)
}

/// A run that was interrupted, and the remedy.
pub(super) fn interruption(journal: &Journal) -> String {
    let Run { verb, began, .. } = &journal.run;
    format!("the {verb} of {} was interrupted: run `rtkvm-tune recover`", began.time)
}

/// A machine, divided by a profile.
pub(super) fn divide(machine: &Machine, parsed: &Parsed) -> Result<(Facts, Placement), String> {
    let made = on_machine(machine, parsed, |_, facts| {
        let (placement, warnings) = placement::place(&parsed.profile, &facts)?;
        Ok(((facts, placement), [parsed.warnings.clone(), warnings].concat()))
    })?;
    Ok(warn(made, parsed))
}

/// The machine that `--root` names.
pub(super) fn machine(root: &RootArg) -> Machine {
    Machine::named(root.root.as_deref())
}

impl ConnectArg {
    /// The profile, with the libvirt that was asked for.
    ///
    /// # Errors
    /// As [`read_profile`].
    pub(super) fn read_profile(&self, path: &Path) -> Result<ReadProfile, String> {
        let mut profile = read_profile(path)?;
        if let Some(connection) = &self.connect {
            profile.parsed.profile.host.libvirt = connection.clone();
        }
        Ok(profile)
    }
}

impl PlanArgs {
    /// Profile, machine and plan, for the verbs that only look.
    pub(super) fn plan(&self, options: impl Into<Options>) -> Result<(Machine, Plan), String> {
        let profile = self.connect.read_profile(&self.profile)?;
        let machine = machine(&self.root);
        let plan = make_plan(&machine, &profile.parsed, options, &past(&machine)?)?;
        Ok((machine, plan))
    }

    /// The profile's name in messages.
    pub(super) fn name(&self) -> String {
        self.profile.display().to_string()
    }
}

/// A plan as a JSON document, schema 1.
pub(super) fn json(plan: &Plan, profile: &str, machine: &Machine) -> serde_json::Value {
    serde_json::json!({
        "schema": 1,
        "profile": profile,
        "machine": machine.to_string(),
        "plan": plan,
        "counts": plan.counts(),
        "needs_reboot": plan.needs_reboot(),
        "status": plan.status(),
        "patch": patch(&plan.steps),
    })
}

/// JSON text, indented.
pub(super) fn pretty(document: &serde_json::Value) -> String {
    format!("{document:#}\n")
}
