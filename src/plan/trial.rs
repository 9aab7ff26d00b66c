//! A trial boot: the new kernel arguments in an entry of our own that GRUB boots once, while the default entry stays
//! as it is, and the end of a trial.

use super::boot::Boot;
use super::{Item, Plan, Step};
use crate::facts::boot::{DROP_IN, GRUB_CFG};
use crate::facts::grubenv::{self, GRUBENV};
use crate::facts::trial::{ENTRY, RECORD, SCRIPT, Standing, TRIAL_UNIT};
use crate::facts::{Facts, PROGRAM};
use crate::formats::grub_menu::{self, Node};
use crate::formats::trial::{self, MARKER, PANIC, Trial};
use crate::formats::{HostPath, time};
use crate::host::{Program, Read};
use crate::knobs::{self, PROFILE};
use crate::resources::State;

/// What becomes of a trial.
#[derive(Default)]
pub(super) struct Course {
    /// The trial that begins.
    pub(super) trial: Option<Trial>,
    /// Files of systemd's.
    pub(super) files: Vec<Step>,
    /// The boot configuration, instead of the drop-in where a trial begins.
    pub(super) boot: Vec<Step>,
    /// What stands in the way.
    pub(super) obstacles: Vec<String>,
    /// What to know about it.
    pub(super) notes: Vec<String>,
}

/// The title of the entry, for whoever sees the menu.
const TITLE: &str = "rtkvm-tune: trial of new kernel arguments, booted once";

/// A trial of what the items ask for. `asked` is the time, in seconds since the epoch.
pub(super) fn begin(
    host: &dyn Read,
    facts: &Facts,
    boot: Option<&Boot>,
    items: &[Item],
    asked: u64,
) -> Course {
    let mut course = Course::default();
    let mut refuse = |why: String| course.obstacles.push(format!("no trial is possible: {why}"));
    let Some((boot, drop_in)) = boot.and_then(|boot| Some((boot, boot.drop_in()?))) else {
        let loader = facts.boot.loader.name();
        refuse(format!("arguments are tried with GRUB as Debian and Ubuntu set it up, and this is {loader}"));
        return course;
    };
    let waits = |item: &&Item| item.is_argument && item.observed.state == State::RebootPending;
    if items.iter().any(|item| waits(&item)) && facts.boot.later.is_none() {
        let which: Vec<_> = items.iter().filter(waits).map(|item| item.label.as_str()).collect();
        refuse(format!(
            "the default entry has {} already, and has not been booted with it: there is no line to fall back to. Boot \
             it, or take it out first",
            which.join(", ")
        ));
    }
    let open = |item: &Item| {
        item.is_argument
            && matches!(
                item.observed.state,
                State::Missing | State::Differs(_) | State::Foreign(_) | State::Obsolete
            )
    };
    if !items.iter().any(open) {
        return course;
    }
    if drop_in.is_foreign() {
        refuse(format!("{DROP_IN} is not as this program writes it: remove it and run `update-grub`"));
    }
    if !items.iter().any(|item| item.knob == knobs::BOOT_UNIT_KNOB) {
        refuse(format!(
            "it is confirmed by the profile that {} keeps; take that out of [knobs]",
            knobs::BOOT_UNIT_KNOB
        ));
    }
    match grubenv::environment(host) {
        Err(why) => refuse(format!("GRUB could not clear its one-shot flag: {why}")),
        Ok(block) => {
            if let Some(other) = block.get("next_entry").filter(|entry| *entry != ENTRY) {
                refuse(format!(
                    "the next boot is `{}` already, by grub-reboot: boot it, or run `grub-editenv {GRUBENV} unset \
                     next_entry`",
                    other.escape_debug()
                ));
            }
        }
    }
    if let Some(why) = grubenv::not_writable(host) {
        refuse(format!("GRUB could not clear its one-shot flag: {why}"));
    }
    let text = host.file(&HostPath::new(GRUB_CFG)).map(|file| file.text().into_owned()).unwrap_or_default();
    if !grub_menu::boots_once(&text) {
        refuse(format!("{GRUB_CFG} does not boot and clear `next_entry`: run `update-grub`"));
    }
    let menu = grub_menu::menu(&text);
    let entry = default_entry(host, &text, &menu).and_then(|node| {
        let replaced = drop_in.replaced();
        let trial = begun(facts, boot, &replaced, node, asked)?;
        Ok((entry(&replaced, node, &trial)?, node.files()?, trial))
    });
    match entry {
        Err(why) => {
            refuse(format!("the default entry of {GRUB_CFG} cannot be tried with other arguments: {why}"))
        }
        Ok((entry, files, trial)) => match trial::script(&entry, &files) {
            Err(why) => refuse(why),
            Ok(script) => course.enter(host, script, trial),
        },
    }
    course
}

impl Course {
    fn enter(&mut self, host: &dyn Read, script: String, trial: Trial) {
        if trial.arguments().iter().any(|argument| argument.name() == PANIC && argument.value() == Some("0"))
        {
            self.notes.push("panic=0 keeps a kernel that panics from falling back by itself".into());
        }
        self.notes.push(format!(
            "trial: the next boot only has the new kernel arguments, by an entry of its own; the default entry stays as \
             it is. {PROGRAM} confirms them there if everything is in line and libvirt answers; else the boot after \
             that has the line of today. A kernel that hangs needs a hardware watchdog or a person to be reset"
        ));
        self.files.extend(write(host, TRIAL_UNIT, unit(), 0o644));
        self.boot.extend(write(host, RECORD, trial.to_string(), 0o600));
        self.boot.extend(write(host, SCRIPT, script, 0o755));
        self.boot.extend([Program::UpdateGrub, Program::BootOnce].map(|program| Step::Run { program }));
        self.trial = Some(trial);
    }
}

/// The record of a trial of this entry.
fn begun(facts: &Facts, boot: &Boot, replaced: &str, node: &Node, asked: u64) -> Result<Trial, String> {
    let (kernel, _) = node.linux().ok_or("it does not boot Linux")?;
    let entry = node.again(TITLE, ENTRY, replaced, "x")?;
    let this_boot = facts.kernel.boot_id.as_deref().unwrap_or_default();
    Ok(Trial::new(asked, this_boot, &kernel, boot.arguments(), &entry))
}

/// The text of the entry in grub.cfg.
fn entry(replaced: &str, node: &Node, trial: &Trial) -> Result<String, String> {
    let line: Vec<_> = trial::line(trial).iter().map(ToString::to_string).collect();
    let text = node.again(TITLE, ENTRY, replaced, &line.join(" "))?;
    match grub_menu::menu(&text).first().and_then(Node::linux) {
        Some((_, args)) if args.contains_run(&trial::line(trial)) => Ok(text),
        _ => Err("it has `--` in its arguments, so that the new ones would go to init".into()),
    }
}

/// The entry that GRUB boots when it is told nothing else.
fn default_entry<'m, 't>(host: &dyn Read, text: &str, menu: &'m [Node<'t>]) -> Result<&'m Node<'t>, String> {
    let block = grubenv::environment(host).unwrap_or_default();
    // grub-reboot and GRUB itself put the second in the first's place, where old versions left one.
    let saved = block.get("prev_saved_entry").or(block.get("saved_entry"));
    let node = grub_menu::chosen(menu, &grub_menu::default(text, saved)?)?;
    let (_, args) =
        node.linux().ok_or_else(|| format!("`{}` does not boot Linux", node.title.escape_debug()))?;
    let recovery = ["single", "recovery"].iter().any(|name| args.values(name).contains(&None));
    if recovery { Err("it is a recovery entry".into()) } else { Ok(node) }
}

/// The kernel that the default entry boots, as GRUB names it.
///
/// # Errors
/// Why it is not known.
pub fn default_kernel(host: &dyn Read) -> Result<String, String> {
    let text = host.file(&HostPath::new(GRUB_CFG)).map_err(|error| format!("{GRUB_CFG}: {error}"))?;
    let text = text.text();
    let node = default_entry(host, &text, &grub_menu::menu(&text)).map(Node::linux);
    node.map(|linux| linux.map_or_else(String::new, |(kernel, _)| kernel))
        .map_err(|why| format!("the default entry of {GRUB_CFG}: {why}"))
}

/// The end of whatever trial there is: nothing of it is left, once update-grub has run.
pub(super) fn end(host: &dyn Read, facts: &Facts) -> Course {
    let mut course = Course::default();
    course.files.extend(remove(host, TRIAL_UNIT));
    if facts.trial.once {
        course.boot.push(Step::Run { program: Program::ForgetOnce });
    }
    course.boot.extend([SCRIPT, RECORD].iter().filter_map(|path| remove(host, path)));
    course
}

/// Writes a file unless it is so already.
fn write(host: &dyn Read, path: &str, after: String, mode: u32) -> Option<Step> {
    let path = HostPath::new(path);
    let before = host.file(&path).ok().map(|file| file.text().into_owned());
    let same = before.as_ref() == Some(&after);
    (!same).then_some(Step::File { path, before, after: Some(after), mode, metadata: None })
}

/// Removes a file of ours if it is there.
fn remove(host: &dyn Read, path: &str) -> Option<Step> {
    let path = HostPath::new(path);
    let file = host.file(&path).ok()?;
    let before = Some(file.text().into_owned());
    Some(Step::File { path, before, after: None, mode: file.mode, metadata: None })
}

fn unit() -> String {
    format!(
        "# Written by rtkvm-tune; it goes when the trial boot is confirmed or ended.\n\
         [Unit]\n\
         Description=Confirm the trial boot of new kernel arguments\n\
         After=multi-user.target rtkvm-tune.service libvirtd.service virtqemud.service\n\
         ConditionKernelCommandLine={MARKER}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         # The interrupts of the last devices may just be moved.\n\
         ExecStart={PROGRAM} confirm --automatic --wait 300\n"
    )
}

impl Plan {
    /// What became of a trial that was not confirmed, as a line for the operator; empty without one.
    pub fn failed_trial(&self) -> String {
        match self.facts.trial.standing(&self.facts.kernel) {
            Some((_, Standing::Failed(_))) => {
                told(&self.facts).map(|told| format!("note     {told}\n")).unwrap_or_default()
            }
            _ => String::new(),
        }
    }
}

/// How a trial stands, for the operator.
pub(super) fn told(facts: &Facts) -> Option<String> {
    if let Some(Err(why)) = &facts.trial.record {
        return Some(format!("there is a trial whose record, {RECORD}, cannot be used: {why}"));
    }
    let (trial, standing) = facts.trial.standing(&facts.kernel)?;
    let of = time::utc(trial.asked);
    Some(match standing {
        Standing::Armed => format!(
            "the next boot is the trial of {of}, once; the boots after it have the default entry's line, unless it is \
             confirmed"
        ),
        Standing::Disarmed(why) => format!("the trial of {of} will not be booted: {why}"),
        Standing::Running => {
            let failed = trial.failed.as_ref();
            let failed = failed.map(|why| format!(" It could not be confirmed: {why}.")).unwrap_or_default();
            format!(
                "this boot is the trial of {of}, not confirmed; the next boot has the default entry's line again.\
                 {failed} `rtkvm-tune confirm` makes these arguments the default, of {PROFILE}"
            )
        }
        Standing::Failed(why) => format!("the trial of {of} failed: {why}"),
    })
}
