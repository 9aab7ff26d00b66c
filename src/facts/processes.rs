//! Who else is at work on the machine: QEMU with guests, and programs that set what this one sets.

use crate::formats::thread::{kernel_thread, status, status_lines};
use crate::formats::{CpuSet, HostPath};
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

/// A thread of the kernel's own that works for one CPU, or for some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelThread {
    /// What it is.
    pub kind: ThreadKind,
    /// The CPU, or of `rcub` the number of the group of CPUs.
    pub number: u32,
    /// Where the kernel says how it is scheduled.
    pub stat: HostPath,
}

/// A thread of the kernel's own whose CPUs can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeThread {
    /// Its name, which others may have too.
    pub name: String,
    /// Where the kernel says which CPUs it may use.
    pub status: HostPath,
    /// Those CPUs.
    pub cpus: CpuSet,
}

/// What such a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadKind {
    /// `ksoftirqd/N`: softirqs of the CPU.
    Softirqs,
    /// `ktimers/N`: its timers, on PREEMPT_RT kernels since 6.1.
    Timers,
    /// `rcuc/N`: its RCU callbacks, and its part in grace periods.
    Rcu,
    /// `rcub/N`: boosts readers that hold a grace period up.
    RcuBoost,
}

impl ThreadKind {
    /// Its name in front of the number.
    pub fn name(self) -> &'static str {
        match self {
            ThreadKind::Softirqs => "ksoftirqd",
            ThreadKind::Timers => "ktimers",
            ThreadKind::Rcu => "rcuc",
            ThreadKind::RcuBoost => "rcub",
        }
    }

    /// Kind and number of a thread with this name.
    fn parse(name: &str) -> Option<(ThreadKind, u32)> {
        let (name, number) = name.split_once('/')?;
        let all = [ThreadKind::Softirqs, ThreadKind::Timers, ThreadKind::Rcu, ThreadKind::RcuBoost];
        Some((all.into_iter().find(|kind| kind.name() == name)?, number.parse().ok()?))
    }
}

/// What runs on a machine, as far as it matters here.
#[derive(Debug, Default)]
pub struct Found {
    /// The guests.
    pub guests: Vec<RunningGuest>,
    /// Programs that set what this one sets.
    pub services: Vec<Service>,
    /// Threads of the kernel.
    pub threads: Vec<KernelThread>,
}

/// Programs that set what this one sets, or work against it.
const SERVICES: [&str; 9] = [
    "irqbalance",
    "tuned",
    "numad",
    "ksmtuned",
    "power-profiles-",
    "auto-cpufreq",
    "thermald",
    "kubelet",
    "stalld",
];

/// Enough of a QEMU command line for its name, which libvirt puts first, and for `-machine none`.
const COMMAND_LINE_HEAD: usize = 512;

/// What runs, by process.
pub fn read(host: &dyn Read) -> Found {
    let mut found = Found::default();
    let wanted = |name: &str| is_qemu(name) || SERVICES.contains(&name) || ThreadKind::parse(name).is_some();
    for (pid, name) in host.processes(wanted) {
        match ThreadKind::parse(&name) {
            _ if is_qemu(&name) => found.guests.extend(guest(host, pid)),
            Some((kind, number)) => found.threads.extend(thread(host, pid, kind, number)),
            None => found.services.push(Service { name, pid }),
        }
    }
    found
}

/// `None` for a process that took such a name: the kernel marks its own threads.
fn thread(host: &dyn Read, pid: u32, kind: ThreadKind, number: u32) -> Option<KernelThread> {
    let stat = HostPath::new(format!("/proc/{pid}/stat"));
    kernel_thread(&host.file(&stat).ok()?.text())?;
    Some(KernelThread { kind, number, stat })
}

/// Threads that work for a guest go where it goes, and an interrupt's thread follows the interrupt.
const OF_OTHERS: [&str; 3] = ["vhost-", "kvm-", "irq/"];

/// The threads of the kernel's own that are not bound to their CPUs: two files of each thread on the machine.
pub fn free_threads(host: &dyn Read) -> Vec<FreeThread> {
    let read = |pid: u32| {
        let path = HostPath::new(format!("/proc/{pid}/status"));
        let file = host.extract(&path, status_lines).ok()?;
        let text = file.text();
        let thread = status(&text)?;
        let of_others = OF_OTHERS.iter().any(|prefix| thread.name.starts_with(prefix));
        let name = thread.name.to_owned();
        (!of_others).then_some(FreeThread { name, status: path, cpus: thread.cpus })
    };
    host.free_threads().into_iter().filter_map(read).collect()
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
