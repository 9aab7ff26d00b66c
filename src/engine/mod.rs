//! Layer 8: carrying a plan out. Every effect goes through the one [`Writer`] that apply was given.

use crate::facts::boot::GRUB_CFG;
use crate::facts::{PROGRAM, grubenv, trial};
use crate::formats::HostPath;
use crate::formats::trial::line;
use crate::guest;
use crate::host::{Program, Read, Root, Writer};
use crate::knobs::{self, Reach};
use crate::plan::{Item, Plan, Step, unknown_loader};
use crate::resources::{State, Value};
use nix::errno::Errno;
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
    /// It is not to be set from outside the kernel, or went away meanwhile: why. Not an error.
    Impossible(String),
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
            Outcome::LeftToYou => write!(f, "to do    {step} in that system"),
            Outcome::Failed(why) => write!(f, "FAILED   {step}: {why}"),
            Outcome::Skipped => write!(f, "skipped  {step}: because of the failure before"),
        }
    }
}

/// What an apply left undone although nothing failed: settings of the plan after it that are still missing or
/// different, but for those that the reports explain already: arguments that wait for update-grub in a tree, and
/// interrupts once one of them was refused.
pub fn left_open(reports: &[Report], item: &Item) -> bool {
    let any = |of: fn(&Outcome) -> bool| reports.iter().any(|report| of(&report.outcome));
    let explained = match item.reach {
        Reach::Reboot => any(|outcome| matches!(outcome, Outcome::LeftToYou)),
        Reach::Live => {
            any(|outcome| matches!(outcome, Outcome::Impossible(_))) && item.knob == knobs::IRQ_AFFINITY
        }
        Reach::GuestRestart => false,
    };
    let open = matches!(
        item.observed.state,
        State::Missing | State::Differs(_) | State::Obsolete | State::Waiting(_) | State::Rejected(_)
    );
    open && !explained
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
        (left, "left to you"),
    ];
    let text = match (done, others) {
        (0, [(0, _), (0, _), (0, _)]) => "Nothing to do".into(),
        (0, [(0, _), (0, _), _]) => "Nothing to do but what is left to you".into(),
        (done, others) => {
            let others = others.iter().filter(|(count, _)| *count > 0);
            let others: String = others.map(|(count, what)| format!(", {count} {what}")).collect();
            format!("Applied: {done} {}{others}", if done == 1 { "step" } else { "steps" })
        }
    };
    // What was taken out of the boot configuration runs until then.
    let runs = |item: &Item| item.observed.state == State::Obsolete && item.observed.running.is_some();
    let reboot = if before.items.iter().any(runs) { before.reboot() } else { after.reboot() };
    format!("{text}. {reboot}")
}

/// What makes an apply impossible before anything is written.
///
/// # Errors
/// Each obstacle with its remedy.
pub fn check(plan: &Plan, root: &Root) -> Result<(), Vec<String>> {
    let mut found = plan.obstacles.clone();
    let by_hand = plan.items.iter().any(|item| matches!(item.observed.state, State::ByHand(_)));
    if by_hand && !plan.manual_boot_loader {
        found.push(format!("the boot loader is not known here: {}", unknown_loader()));
    }
    for step in &plan.steps {
        let Step::Domain { name, before: Some(before), after, .. } = step else { continue };
        let differences = guest::differences(before, after).unwrap_or_default();
        if differences.iter().any(|difference| difference.path == "/domain/uuid") {
            found.push(format!(
                "libvirt has another guest of the name {name}, with another UUID: rename or undefine one of the two"
            ));
        }
    }
    if plan.steps.iter().any(|step| matches!(step, Step::Domain { .. })) {
        // A template decides what the guest may reach, and root defines it.
        found.extend(plan.facts.untrusted_templates.iter().cloned());
    }
    if root.is_live() {
        let unit = plan.items.iter().any(|item| item.knob == knobs::BOOT_UNIT_KNOB);
        if unit && !plan.facts.installed {
            found.push(format!(
                "{PROGRAM} is not there, which the boot unit starts: install the package first"
            ));
        }
        let defines = plan.steps.iter().any(|step| matches!(step, Step::Domain { .. }));
        if defines && root.head(&HostPath::new("/usr/bin/virsh"), 0).is_err() {
            found.push(
                "/usr/bin/virsh is not there, which defines the guests: install libvirt-clients".into(),
            );
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Carries the steps out, in order. After a failure no further file, program or guest is touched; attributes
/// are independent of each other and all tried, and an interrupt that stays where it is stops nothing.
pub fn apply(plan: &Plan, root: &Root, writer: &Writer) -> Vec<Report> {
    let mut reports: Vec<Report> = Vec::new();
    let mut failed = false;
    for (at, step) in plan.steps.iter().enumerate() {
        let independent = matches!(step, Step::Attribute { .. });
        let outcome = match failed && !independent {
            true => Outcome::Skipped,
            false => carry_out(step, plan, root, writer),
        };
        if matches!(outcome, Outcome::Failed(_)) {
            failed |= !is_interrupt(step);
            if let Some(previous) = at.checked_sub(1).and_then(|at| plan.steps.get(at)) {
                take_back(step, previous, writer, &mut reports);
            }
        }
        reports.push(Report { step: describe(step), outcome });
    }
    reports
}

fn is_interrupt(step: &Step) -> bool {
    matches!(step, Step::Attribute { path, .. } if path.as_str().starts_with("/proc/irq/"))
}

/// A drop-in that update-grub could not work with must not wait for the next kernel update to take effect.
fn take_back(failed: &Step, previous: &Step, writer: &Writer, reports: &mut Vec<Report>) {
    if !matches!(failed, Step::Run { program: Program::UpdateGrub }) {
        return;
    }
    if let Step::File { path, before, mode, .. } = previous {
        let result = write_file(writer, path, before.as_deref(), *mode);
        let outcome = result.map_or_else(|errno| Outcome::Failed(errno.desc().into()), |()| Outcome::Done);
        reports.push(Report { step: format!("put {path} back, since update-grub failed"), outcome });
    }
}

fn describe(step: &Step) -> String {
    match step {
        Step::Attribute { path, after, .. } => format!("set {path} to {after}"),
        Step::File { path, after: Some(_), .. } => format!("write {path}"),
        Step::File { path, after: None, .. } => format!("remove {path}"),
        Step::Link { path, after, .. } => format!("link {path} -> {after}"),
        Step::Run { program } => format!("run `{}`", program.command()),
        Step::Domain { name, path, .. } => format!("define guest {name}, {path}"),
    }
}

fn carry_out(step: &Step, plan: &Plan, root: &Root, writer: &Writer) -> Outcome {
    let done = |result: Result<(), Errno>| match result {
        Ok(()) => Outcome::Done,
        Err(errno) => Outcome::Failed(errno.desc().into()),
    };
    match step {
        Step::Attribute { path, after, .. } => attribute(path, after, root, writer),
        Step::File { path, after, mode, .. } => done(write_file(writer, path, after.as_deref(), *mode)),
        Step::Link { path, after, .. } => done(writer.link(path, after)),
        Step::Run { program: Program::BootOnce } if root.is_live() => boot_once(plan, root, writer),
        Step::Run { program } => run(program, writer),
        Step::Domain { path, after, .. } => match root.is_live() {
            true => run(&Program::Define { xml: after.clone() }, writer),
            // libvirt reads the definitions there when it starts, and keeps them private.
            false => done(writer.file(path, after, 0o600)),
        },
    }
}

fn write_file(writer: &Writer, path: &HostPath, content: Option<&str>, mode: u32) -> Result<(), Errno> {
    match content {
        Some(content) => writer.file(path, content, mode),
        None => writer.remove(path),
    }
}

fn run(program: &Program, writer: &Writer) -> Outcome {
    match writer.run(program) {
        None => Outcome::LeftToYou,
        Some(Ok(())) => Outcome::Done,
        Some(Err(error)) => Outcome::Failed(error.to_string()),
    }
}

/// Has GRUB boot the trial's entry once, if it is in grub.cfg as it was planned, and reads back that it will.
fn boot_once(plan: &Plan, root: &Root, writer: &Writer) -> Outcome {
    let wanted = plan.trial.as_ref().map(line).unwrap_or_default();
    if !trial::entry(root).is_some_and(|args| args.contains_run(&wanted)) {
        return Outcome::Failed(format!("{GRUB_CFG} has no entry {} with the new arguments", trial::ENTRY));
    }
    match (run(&Program::BootOnce, writer), grubenv::environment(root)) {
        (Outcome::Done, Err(why)) => Outcome::Failed(why),
        (Outcome::Done, Ok(block)) if block.get("next_entry") != Some(trial::ENTRY) => {
            Outcome::Failed(format!("{} has it not", grubenv::GRUBENV))
        }
        (outcome, _) => outcome,
    }
}

/// Writes and reads back: a write that succeeded is not a setting that took.
fn attribute(path: &HostPath, want: &Value, root: &Root, writer: &Writer) -> Outcome {
    match writer.attribute(path, &want.for_kernel()) {
        Ok(()) => {}
        Err(Errno::ENOENT) => return Outcome::Impossible("it went away meanwhile".into()),
        Err(Errno::EXDEV) => {
            return Outcome::Impossible("it is the running kernel's, mounted in this tree".into());
        }
        // Before 6.12 an interrupt that the kernel keeps to itself says so only here.
        Err(errno @ (Errno::EIO | Errno::EPERM)) if path.as_str().starts_with("/proc/irq/") => {
            return Outcome::Impossible(format!("the kernel keeps this interrupt to itself ({errno})"));
        }
        Err(Errno::ENOSPC) if path.as_str().starts_with("/proc/irq/") => {
            return Outcome::Failed(
                "no interrupt vector is left on these CPUs: use more housekeeping CPUs".into(),
            );
        }
        Err(errno) => return Outcome::Failed(errno.desc().into()),
    }
    let file = match root.file(path) {
        Ok(file) => file,
        Err(error) => return Outcome::Failed(format!("cannot be read back: {error}")),
    };
    match (want.parse_like(&file.text()), want) {
        (Some(got), want) if got == *want => Outcome::Done,
        (Some(Value::Count(got)), Value::Count(wanted)) => Outcome::Short { wanted: *wanted, got },
        _ => Outcome::Failed(format!("reads back as `{}`", file.text().trim())),
    }
}
