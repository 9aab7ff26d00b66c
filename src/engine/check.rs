//! What makes a run impossible, found before anything is written.

use crate::facts::PROGRAM;
use crate::formats::{Connection, HostPath, ImageFormat, Size, channels};
use crate::host::{Program, Root, STATE, STATE_DIR, Writer};
use crate::knobs;
use crate::plan::restore::guest_name;
use crate::plan::{Plan, Step, unwritten_loader};
use crate::resources::{State, Value};
use nix::errno::Errno;
use std::collections::BTreeMap;

/// What makes an apply impossible before anything is written.
///
/// # Errors
/// Each obstacle with its remedy.
pub fn check(plan: &Plan, root: &Root) -> Result<(), Vec<String>> {
    let mut found = plan.obstacles.clone();
    let by_hand = plan
        .items
        .iter()
        .any(|item| item.reach == knobs::Reach::Reboot && matches!(item.observed.state, State::ByHand(_)));
    if by_hand && !plan.manual_boot_loader {
        found.extend(unwritten_loader(plan.facts.boot.loader));
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
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// The program of a step on the live machine.
pub(super) fn program(step: &Step) -> Option<Program> {
    match step {
        Step::Run { program } => Some(program.clone()),
        Step::Attribute { path, after: Value::Policy(policy), .. } => {
            Some(Program::Schedule { thread: thread(path)?, policy: *policy })
        }
        Step::Attribute { path, after: Value::Affinity(cpus), .. } => {
            Some(Program::Place { thread: thread(path)?, cpus: cpus.clone() })
        }
        Step::Attribute { path, after: Value::Channels(count), .. } => {
            let interface = channels::interface(path)?.to_owned();
            Some(Program::SetChannels { interface, count: *count })
        }
        Step::Disk { copy: Some(copy), .. } => Some(Program::CopyImage { copy: copy.clone() }),
        Step::Link { path, after, .. } => {
            let (connection, name) = Connection::of_autostart(path)?;
            Some(Program::Autostart { connection, name: guest_name(name), on: after.is_some() })
        }
        Step::Domain { name, path, after, .. } => {
            let (connection, _) = Connection::of_definition(path)?;
            Some(match after {
                Some(xml) => Program::Define { connection, xml: xml.clone() },
                None => Program::Undefine { connection, name: guest_name(name) },
            })
        }
        _ => None,
    }
}

/// The thread whose `/proc/PID/stat` or `status` this is.
fn thread(path: &HostPath) -> Option<u32> {
    path.as_str().strip_prefix("/proc/")?.split_once('/')?.0.parse().ok()
}

/// The libvirt that a step is done by.
fn connection(step: &Step) -> Option<Connection> {
    let of = match step {
        Step::Domain { path, .. } => Connection::of_definition(path),
        Step::Link { path, .. } => Connection::of_autostart(path),
        _ => None,
    };
    of.map(|(connection, _)| connection)
}

/// Takes the guests out of the steps where their libvirt does not answer, so that the rest can be done; why. A libvirt
/// that is not installed is an obstacle, and no reason to go on.
pub fn without_unanswered(
    steps: &mut Vec<Step>,
    finished: &mut Vec<HostPath>,
    root: &Root,
    writer: &Writer,
) -> Option<String> {
    let mut asked: Vec<(Connection, Option<String>)> = Vec::new();
    for step in steps.iter() {
        let Some(connection) = connection(step) else { continue };
        let is_there = program(step).is_some_and(|program| program.is_there(root));
        if asked.iter().any(|(known, _)| *known == connection) || !is_there {
            continue;
        }
        let answer = writer.run(&Program::AskLibvirt { connection: connection.clone() });
        asked.push((connection, answer.and_then(Result::err).map(|error| error.to_string())));
    }
    let unanswered = |step: &Step| {
        let of = connection(step);
        asked.iter().any(|(connection, error)| error.is_some() && of.as_ref() == Some(connection))
    };
    let any = asked.iter().any(|(_, error)| error.is_some());
    // A guest that stays defined keeps its disk.
    let removed = |step: &Step| matches!(step, Step::Disk { copy: None, .. });
    let left = |step: &Step| unanswered(step) || any && removed(step);
    // What is left as it is stays in the state.
    finished.retain(|path| !steps.iter().any(|step| step.path() == Some(path) && left(step)));
    steps.retain(|step| !left(step));
    let errors: Vec<String> = asked.into_iter().filter_map(|(_, error)| error).collect();
    (!errors.is_empty()).then(|| errors.join("\n"))
}

/// What update-grub writes besides, in bytes: a new grub.cfg beside the old one.
const GENERATED: u64 = 256 << 10;
/// What the file systems take for each file besides its content, in bytes.
const EACH: u64 = 8 << 10;

/// Whether the steps can be carried out as far as can be known: programs, leave to write, and room. `kept` is how
/// many bytes the journal has.
pub(super) fn preflight(steps: &[Step], root: &Root, kept: usize) -> Result<(), Vec<String>> {
    let mut found = Vec::new();
    let programs = steps.iter().filter_map(program).filter(|_| root.is_live());
    for program in programs {
        if !program.is_there(root) {
            let command = program.command();
            let name = command.split(' ').next().unwrap_or(&command);
            found.push(format!("`{name}` is not there: install the package {}", program.package()));
        }
    }
    found.dedup();
    let state = HostPath::new(STATE_DIR).join(STATE);
    // Journal and state, each beside its predecessor.
    let mut wanted: Vec<(HostPath, u64)> = vec![(state, 4 * kept as u64)];
    for step in steps {
        match step {
            Step::Attribute { after, .. } if root.is_live() && after.is_by_a_program() => {}
            Step::Attribute { path, .. } => {
                if let Err(errno) = root.writable(path) {
                    found.push(cannot(path, errno));
                }
            }
            Step::Link { path, .. } if Connection::is_asked(path) => {}
            Step::Disk { path, copy: Some(copy), .. } if root.is_live() => {
                // The tables of qcow2 have less than 2 bytes in 10,000.
                let tables = if copy.format == ImageFormat::Qcow2 { copy.bytes / 5000 } else { 0 };
                wanted.push((path.clone(), copy.bytes.saturating_add(tables)));
            }
            Step::File { path, after, .. } | Step::Link { path, after, .. } => {
                wanted.push((path.clone(), after.as_ref().map_or(0, String::len) as u64));
            }
            Step::Domain { path, after, .. } if !root.is_live() && !Connection::is_asked(path) => {
                wanted.push((path.clone(), after.as_ref().map_or(0, String::len) as u64));
            }
            Step::Run { program } if root.is_live() && program.generates().is_some() => {
                wanted.extend(program.generates().map(|path| (HostPath::new(path), GENERATED)));
            }
            Step::Disk { .. } | Step::Domain { .. } | Step::Run { .. } | Step::Directory { .. } => {}
        }
    }
    let mut needed: BTreeMap<u64, u64> = BTreeMap::new();
    for (path, bytes) in &wanted {
        match root.room(path) {
            Err(errno) => found.push(cannot(path, errno)),
            Ok(room) => {
                let sum = needed.entry(room.device).or_default();
                *sum = sum.saturating_add(*bytes).saturating_add(EACH);
                if room.bytes < *sum || !room.files {
                    let (free, need) = (amount(room.bytes), amount(*sum));
                    let none = if room.files { "" } else { ", and no further file can be made" };
                    found.push(format!("no room for {path}: {free} are free, {need} are needed{none}"));
                }
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Bytes for people: KiB where a file is meant, GiB where a disk is.
fn amount(bytes: u64) -> String {
    if bytes >= 1 << 30 { Size(bytes).gib() } else { format!("{} KiB", bytes.div_ceil(1024)) }
}

fn cannot(path: &HostPath, errno: Errno) -> String {
    format!("{path} cannot be written: {}", errno.desc())
}
