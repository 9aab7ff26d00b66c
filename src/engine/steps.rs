//! Carrying one step out, and reading back what it did.

use super::check::program;
use super::report::Outcome;
use crate::facts::boot::GRUB_CFG;
use crate::facts::interrupts;
use crate::facts::irqs::{affinity, is_interrupt};
use crate::facts::{grubenv, trial};
use crate::formats::thread::{kernel_thread, status};
use crate::formats::trial::{Trial, line};
use crate::formats::{Connection, HostPath, Size, channels};
use crate::host::{File, Program, Read, ReadError, Removal, Root, Writer};
use crate::plan::Step;
use crate::resources::Value;
use nix::errno::Errno;
use std::rc::Rc;

/// The step, for people.
pub(super) fn describe(step: &Step) -> String {
    match step {
        Step::Attribute { path, before, after: Value::Policy(policy), .. } => {
            let name = kernel_thread(before).map(|thread| thread.name).unwrap_or_default();
            format!("schedule {name} as {policy}, {path}")
        }
        Step::Attribute { path, before, after: Value::Affinity(cpus), .. } => {
            let name = status(before).map(|thread| thread.name.to_owned()).unwrap_or_default();
            format!("keep {name} on CPUs {cpus}, {path}")
        }
        Step::Attribute { path, after: after @ Value::Channels(_), .. } => {
            format!("give {} {after} channels, {path}", channels::interface(path).unwrap_or("an interface"))
        }
        Step::Attribute { path, after, .. } => format!("set {path} to {after}"),
        Step::Disk { path, copy: Some(copy), .. } => {
            let (format, size) = (copy.format.name(), Size(copy.bytes).gib());
            format!("make disk {path}, {format} of {size}, a copy of {}", copy.base)
        }
        Step::Disk { path, copy: None, .. } => format!("remove disk {path}, which no guest has used"),
        Step::Link { path, after, .. } if Connection::of_autostart(path).is_some() => {
            let (connection, name) = Connection::of_autostart(path).expect("it is one");
            let whether = if after.is_some() { "on" } else { "off" };
            format!("turn autostart of guest {name} {whether} in {}", connection.uri())
        }
        Step::File { path, after: Some(_), .. } => format!("write {path}"),
        Step::File { path, after: None, .. } | Step::Link { path, after: None, .. } => {
            format!("remove {path}")
        }
        Step::Link { path, after: Some(after), .. } => format!("link {path} -> {after}"),
        Step::Directory { path } => format!("remove directory {path} if it is empty"),
        Step::Run { program } => format!("run `{}`", program.command()),
        Step::Domain { name, path, after, .. } => {
            let what = if after.is_some() { "define" } else { "undefine" };
            match Connection::of_definition(path).filter(|(connection, _)| !connection.is_system()) {
                Some((connection, _)) => format!("{what} guest {name} in {}", connection.uri()),
                None => format!("{what} guest {name}, {path}"),
            }
        }
    }
}

/// What other channels of network interfaces made anew in this run: nothing planned for it before holds.
#[derive(Default)]
pub(super) struct Anew {
    interrupts: Vec<HostPath>,
    queues: Vec<HostPath>,
}

impl Anew {
    /// Whether an interface has other channels by now.
    pub(super) fn is_any(&self) -> bool {
        !self.queues.is_empty()
    }

    fn has(&self, step: &Step) -> bool {
        let is = |path: &HostPath| {
            self.interrupts.contains(path) || self.queues.iter().any(|dir| path.is_below(dir))
        };
        step.path().is_some_and(is)
    }

    /// Gives an interface other channels. A driver may have none to be set, or make another number of what it was asked
    /// for: then it gets what it had.
    fn channels(
        &mut self,
        step: &Step,
        path: &HostPath,
        before: &str,
        want: &Value,
        root: &Root,
        writer: &Writer,
    ) -> Outcome {
        let interface = channels::interface(path).unwrap_or_default();
        let irqs: Vec<HostPath> = interrupts(root, interface).into_iter().map(affinity).collect();
        let set = |step| program(step).map_or(Outcome::LeftToYou, |program| run(&program, writer));
        let outcome = set(step);
        let now = root.file(path);
        let is = |text: &str| now.as_ref().is_ok_and(|file| file.text() == text);
        // What cannot be read may be another number as well.
        if !is(before) {
            self.interrupts.extend(irqs);
            self.queues.push(channels::queues(interface));
        }
        let outcome = if outcome == Outcome::Done { as_read(&now, want) } else { outcome };
        let Outcome::Failed(why) = outcome else { return outcome };
        let was = want.parse_like(before).filter(|_| now.is_ok() && !is(before));
        Outcome::Impossible(match was {
            None => why,
            Some(was) => {
                let told = format!("{why}; it is given {was} again");
                let back =
                    Step::Attribute { path: path.clone(), before: String::new(), after: was, exact: None };
                match set(&back) {
                    Outcome::Failed(why) => format!("{told}, which failed: {why}"),
                    _ => told,
                }
            }
        })
    }
}

/// `trial` is what the entry must have that GRUB is to boot once.
pub(super) fn carry_out(
    step: &Step,
    trial: Option<&Trial>,
    root: &Root,
    writer: &Writer,
    anew: &mut Anew,
) -> Outcome {
    if anew.has(step) {
        return Outcome::Gone("it was made anew with the channels of its interface".into());
    }
    let done = |result: Result<(), Errno>| match result {
        Ok(()) => Outcome::Done,
        Err(errno) => Outcome::Failed(errno.desc().into()),
    };
    match step {
        Step::Attribute { path, before, after, .. } if root.is_live() && after.is_of_a_thread() => {
            match root.file(path) {
                Err(_) => Outcome::Gone("it went away meanwhile".into()),
                Ok(now) if !after.is_same_thread(before, &now.text()) => {
                    Outcome::Gone("another thread has its number by now".into())
                }
                Ok(_) => {
                    let outcome =
                        match program(step).map_or(Outcome::LeftToYou, |program| run(&program, writer)) {
                            Outcome::Done => read_back(path, after, root),
                            other => other,
                        };
                    match outcome {
                        // The kernel may bind a thread, or end it, at any time.
                        Outcome::Failed(why) if matches!(after, Value::Affinity(_)) => {
                            Outcome::Impossible(why)
                        }
                        other => other,
                    }
                }
            }
        }
        Step::Attribute { path, before, after: after @ Value::Channels(_), .. } if root.is_live() => {
            anew.channels(step, path, before, after, root, writer)
        }
        Step::Attribute { path, before, after, exact } => {
            let text = match exact {
                // In a tree an attribute is a file, and its text is all there is to put back.
                Some(text) if !root.is_live() => text.clone(),
                // More is in the file than was planned with.
                _ if after.is_of_a_thread() => {
                    root.file(path).map_or_else(|_| after.written(before), |file| after.written(&file.text()))
                }
                _ => after.written(before),
            };
            match attribute(path, (before, after), &text, root, writer) {
                // What the kernel was started with may keep it from its old value (`nowatchdog`), and must not keep the
                // arguments from going.
                Outcome::Failed(why) if exact.is_some() && root.is_live() => Outcome::Impossible(format!(
                    "{why}; a boot without this program's settings has it as before"
                )),
                outcome => outcome,
            }
        }
        Step::File { path, after: Some(after), mode, metadata, .. } => {
            done(writer.file(path, after, *mode, metadata.as_ref()))
        }
        Step::Link { path, after, .. } if Connection::of_autostart(path).is_some() && root.is_live() => {
            autostart(step, path, after.is_some(), root, writer)
        }
        Step::Link { path, .. } if Connection::is_asked(path) => Outcome::LeftToYou,
        Step::Disk { .. } if !root.is_live() => Outcome::LeftToYou,
        Step::Disk { path, copy: Some(copy), .. } => {
            writer.disk(path, copy).map_or_else(Outcome::Failed, |()| Outcome::Done)
        }
        Step::Disk { path, copy: None, .. } => match writer.remove_disk(path) {
            Ok(Removal::Done) => Outcome::Done,
            Ok(Removal::Used) => Outcome::Impossible("it has been written to meanwhile, and stays".into()),
            Ok(Removal::Locked) => Outcome::Impossible("a guest runs with it".into()),
            Err(errno) => Outcome::Failed(errno.desc().into()),
        },
        Step::Link { path, after: Some(target), .. } => done(writer.link(path, target)),
        Step::File { path, after: None, .. } | Step::Link { path, after: None, .. } => {
            done(writer.remove(path))
        }
        // One that is in use by something else stays.
        Step::Directory { path } => done(writer.remove_directory(path).map(drop)),
        Step::Run { program: Program::BootOnce } if root.is_live() => boot_once(trial, root, writer),
        Step::Run { program } => run(program, writer),
        Step::Domain { .. } if root.is_live() => {
            program(step).map_or(Outcome::LeftToYou, |program| run(&program, writer))
        }
        Step::Domain { path, .. } if Connection::is_asked(path) => Outcome::LeftToYou,
        // libvirt reads the definitions there when it starts, and keeps them private.
        Step::Domain { path, after: Some(xml), metadata, .. } => {
            done(writer.file(path, xml, 0o600, metadata.as_ref()))
        }
        Step::Domain { path, after: None, .. } => done(writer.remove(path)),
    }
}

/// Has libvirt start a guest or not, and reads back what it says.
fn autostart(step: &Step, path: &HostPath, on: bool, root: &Root, writer: &Writer) -> Outcome {
    match program(step).map_or(Outcome::LeftToYou, |program| run(&program, writer)) {
        Outcome::Done if Read::link(root, path).is_ok() != on => {
            Outcome::Failed(format!("libvirt still has it {}", if on { "off" } else { "on" }))
        }
        outcome => outcome,
    }
}

fn run(program: &Program, writer: &Writer) -> Outcome {
    match writer.run(program) {
        None => Outcome::LeftToYou,
        Some(Err(error)) => Outcome::Failed(error.to_string()),
        // A power cut must not find an empty grub.cfg: GRUB's tools do not wait for the disk.
        Some(Ok(())) => match program.generates().map(|path| (path, writer.sync(&HostPath::new(path)))) {
            None | Some((_, Ok(()) | Err(Errno::ENOENT))) => Outcome::Done,
            Some((path, Err(errno))) => {
                Outcome::Failed(format!("{path} cannot be written to disk: {}", errno.desc()))
            }
        },
    }
}

/// Has GRUB boot the trial's entry once, if it is in grub.cfg as it was planned, and reads back that it will.
fn boot_once(wanted: Option<&Trial>, root: &Root, writer: &Writer) -> Outcome {
    let wanted = wanted.map(line).unwrap_or_default();
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
fn attribute(
    path: &HostPath,
    (before, want): (&str, &Value),
    text: &str,
    root: &Root,
    writer: &Writer,
) -> Outcome {
    let as_before = || root.file(path).is_ok_and(|file| file.text() == before);
    match writer.attribute(path, text) {
        Ok(()) => {}
        Err(Errno::ENOENT) => return Outcome::Gone("it went away meanwhile".into()),
        Err(Errno::EXDEV) => {
            return Outcome::Impossible("it is the running kernel's, mounted in this tree".into());
        }
        // Before 6.12 an interrupt that the kernel keeps to itself says so only here.
        Err(errno @ (Errno::EIO | Errno::EPERM)) if is_interrupt(path) && as_before() => {
            return Outcome::Impossible(format!("the kernel keeps this interrupt to itself ({errno})"));
        }
        Err(Errno::ENOSPC) if is_interrupt(path) => {
            return Outcome::Failed(
                "no interrupt vector is left on these CPUs: use more housekeeping CPUs, or fewer channels (knob irq.channels)"
                    .into(),
            );
        }
        Err(Errno::EINVAL) if is_interrupt(path) => {
            return Outcome::Failed(
                "none of these CPUs is online by now, or its chip takes none of them".into(),
            );
        }
        Err(errno) => return Outcome::Failed(errno.desc().into()),
    }
    read_back(path, want, root)
}

fn read_back(path: &HostPath, want: &Value, root: &Root) -> Outcome {
    as_read(&root.file(path), want)
}

/// What became of a value, by what was read back.
fn as_read(found: &Result<Rc<File>, ReadError>, want: &Value) -> Outcome {
    let file = match found {
        Ok(file) => file,
        Err(error) => return Outcome::Failed(format!("cannot be read back: {error}")),
    };
    match (want.parse_like(&file.text()), want) {
        (Some(got), want) if got == *want => Outcome::Done,
        (Some(Value::Count(got)), Value::Count(wanted)) => Outcome::Short { wanted: *wanted, got },
        _ => Outcome::Failed(format!("reads back as `{}`", file.text().trim())),
    }
}
