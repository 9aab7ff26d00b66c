//! What makes a run impossible, found before anything is written.

use crate::facts::PROGRAM;
use crate::formats::HostPath;
use crate::guest;
use crate::host::{Program, Root, STATE, STATE_DIR};
use crate::knobs;
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
    for step in &plan.steps {
        let Step::Domain { name, before: Some(before), after: Some(after), .. } = step else { continue };
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
        Step::Domain { after: Some(xml), .. } => Some(Program::Define { xml: xml.clone() }),
        Step::Domain { name, after: None, .. } => {
            Some(Program::Undefine { name: crate::plan::restore::guest_name(name) })
        }
        _ => None,
    }
}

/// The thread whose `/proc/PID/stat` this is.
fn thread(path: &HostPath) -> Option<u32> {
    path.as_str().strip_prefix("/proc/")?.strip_suffix("/stat")?.parse().ok()
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
        if !root.has_any(program.places()) {
            let command = program.command();
            let name = command.split(' ').next().unwrap_or(command);
            found.push(format!("`{name}` is not there: install the package {}", program.package()));
        }
    }
    found.dedup();
    let state = HostPath::new(STATE_DIR).join(STATE);
    // Journal and state, each beside its predecessor.
    let mut wanted: Vec<(HostPath, u64)> = vec![(state, 4 * kept as u64)];
    for step in steps {
        match step {
            Step::Attribute { after: Value::Policy(_), .. } if root.is_live() => {}
            Step::Attribute { path, .. } => {
                if let Err(errno) = root.writable(path) {
                    found.push(cannot(path, errno));
                }
            }
            Step::File { path, after, .. } | Step::Link { path, after, .. } => {
                wanted.push((path.clone(), after.as_ref().map_or(0, String::len) as u64));
            }
            Step::Domain { path, after, .. } if !root.is_live() => {
                wanted.push((path.clone(), after.as_ref().map_or(0, String::len) as u64));
            }
            Step::Run { program } if root.is_live() && program.generates().is_some() => {
                wanted.extend(program.generates().map(|path| (HostPath::new(path), GENERATED)));
            }
            Step::Domain { .. } | Step::Run { .. } | Step::Directory { .. } => {}
        }
    }
    let mut needed: BTreeMap<u64, u64> = BTreeMap::new();
    for (path, bytes) in &wanted {
        match root.room(path) {
            Err(errno) => found.push(cannot(path, errno)),
            Ok(room) => {
                let sum = needed.entry(room.device).or_default();
                *sum += bytes + EACH;
                if room.bytes < *sum || !room.files {
                    let (free, need) = (room.bytes >> 10, sum.div_ceil(1024));
                    let none = if room.files { "" } else { ", and no further file can be made" };
                    found.push(format!(
                        "no room for {path}: {free} KiB are free, {need} KiB are needed{none}"
                    ));
                }
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn cannot(path: &HostPath, errno: Errno) -> String {
    format!("{path} cannot be written: {}", errno.desc())
}
