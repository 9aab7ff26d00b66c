//! Who else is at work on the machine: QEMU with guests, and programs that set what this one sets.

use crate::formats::HostPath;
use crate::host::Read;
use serde::Serialize;

/// A guest that runs: a QEMU process, started by libvirt or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunningGuest {
    /// The name that QEMU was given; `unnamed` without one.
    pub name: String,
    /// Its process.
    pub pid: u32,
}

/// A program that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name, as the kernel has it: at most 15 bytes.
    pub name: String,
    /// Its process.
    pub pid: u32,
}

/// Programs that set what this one sets, or work against it.
const SERVICES: [&str; 6] = ["irqbalance", "tuned", "numad", "ksmtuned", "power-profiles-", "auto-cpufreq"];

/// Enough of a QEMU command line for its name, which libvirt puts first, and for `-machine none`.
const COMMAND_LINE_HEAD: usize = 512;

/// The guests and the services that run, by process.
pub fn read(host: &dyn Read) -> (Vec<RunningGuest>, Vec<Service>) {
    let (qemu, services): (Vec<_>, Vec<_>) = host
        .processes(|name| is_qemu(name) || SERVICES.contains(&name))
        .into_iter()
        .partition(|(_, name)| is_qemu(name));
    let guests = qemu.into_iter().filter_map(|(pid, _)| guest(host, pid)).collect();
    (guests, services.into_iter().map(|(pid, name)| Service { name, pid }).collect())
}

/// The emulators of Debian and RHEL, and the name that libvirt's `set_process_name` gives them.
fn is_qemu(name: &str) -> bool {
    name.starts_with("qemu-system-") || name.starts_with("qemu:") || ["qemu-kvm", "kvm"].contains(&name)
}

/// `None` for a QEMU that libvirt only asks what it can do, and one that went away meanwhile.
fn guest(host: &dyn Read, pid: u32) -> Option<RunningGuest> {
    let path = HostPath::new(format!("/proc/{pid}/cmdline"));
    let head = host.head(&path, COMMAND_LINE_HEAD).ok()?;
    let text = head.text();
    let words: Vec<&str> = text.split('\0').collect();
    let option = |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
    let probes = ["-machine", "-M"]
        .iter()
        .filter_map(|name| option(name))
        .any(|machine| machine.split(',').next() == Some("none"));
    let name = option("-name").and_then(|value| {
        let mut parts = value.split(',');
        parts.clone().find_map(|part| part.strip_prefix("guest=")).or_else(|| parts.next())
    });
    (!probes).then(|| RunningGuest { name: name.unwrap_or("unnamed").to_owned(), pid })
}
