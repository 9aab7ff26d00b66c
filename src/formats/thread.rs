//! How a thread is scheduled, as `/proc/PID/stat` says it, and on which CPUs, as `/proc/PID/status` does.
//! Source: proc_pid_stat(5), proc_pid_status(5), sched(7).

use super::CpuSet;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The policy of a thread with its priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// `SCHED_OTHER`.
    Other,
    /// `SCHED_FIFO` with a priority of 1 to 99.
    Fifo(u8),
    /// `SCHED_RR` with a priority of 1 to 99.
    Rr(u8),
}

impl Policy {
    /// The kernel's number of the policy, and the priority.
    fn numbers(self) -> (u32, u8) {
        match self {
            Policy::Other => (0, 0),
            Policy::Fifo(priority) => (1, priority),
            Policy::Rr(priority) => (2, priority),
        }
    }

    fn from_numbers(policy: &str, priority: &str) -> Option<Policy> {
        let priority = || priority.parse().ok().filter(|priority| (1..=99).contains(priority));
        match policy {
            "0" => Some(Policy::Other),
            "1" => priority().map(Policy::Fifo),
            "2" => priority().map(Policy::Rr),
            _ => None,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Other => f.write_str("OTHER"),
            Policy::Fifo(priority) => write!(f, "FIFO {priority}"),
            Policy::Rr(priority) => write!(f, "RR {priority}"),
        }
    }
}

/// `PF_KTHREAD` of include/linux/sched.h: a thread of the kernel's own, which no process can have.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// `PF_NO_SETAFFINITY`: its CPUs cannot be changed from outside the kernel.
const BOUND: u64 = 0x0400_0000;

/// Where fields are behind the name, the state being the first.
const FLAGS: usize = 6;
const START: usize = 19;
const PRIORITY: usize = 37;
const POLICY: usize = 38;

/// One line of `/proc/PID/stat` of a thread of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelThread<'a> {
    /// Its name, `ksoftirqd/2`.
    pub name: &'a str,
    /// When it was started, in clock ticks since the boot: with the name it tells it from a later one.
    pub start: &'a str,
    /// How it is scheduled; `None` for a policy that is not known here.
    pub policy: Option<Policy>,
    /// Whether the kernel keeps it on its CPUs.
    pub bound: bool,
}

/// Reads a line; `None` for what is no thread of the kernel.
pub fn kernel_thread(text: &str) -> Option<KernelThread<'_>> {
    let (head, rest) = split(text)?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let flags: u64 = fields.get(FLAGS)?.parse().ok()?;
    (flags & KERNEL_THREAD != 0).then_some(())?;
    Some(KernelThread {
        name: head.split_once('(')?.1,
        start: fields.get(START)?,
        bound: flags & BOUND != 0,
        policy: Policy::from_numbers(fields.get(POLICY)?, fields.get(PRIORITY)?),
    })
}

/// The line with another policy; as it is where it is none.
pub fn with_policy(text: &str, policy: Policy) -> String {
    let Some((head, rest)) = split(text) else { return text.to_owned() };
    let (number, priority) = policy.numbers();
    let mut fields: Vec<String> = rest.trim_end().split(' ').map(str::to_owned).collect();
    // A space is in front of the first.
    for (at, value) in [(PRIORITY, priority.to_string()), (POLICY, number.to_string())] {
        if let Some(field) = fields.get_mut(at + 1) {
            *field = value;
        }
    }
    format!("{head}){}\n", fields.join(" "))
}

/// The lines of `/proc/PID/status` that matter here, of a thread of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number.
    pub pid: &'a str,
    /// The CPUs that it may use.
    pub cpus: CpuSet,
}

/// The parent of all threads of the kernel but itself, `kthreadd`.
const KTHREADD: &str = "2";

/// The key of the CPUs; in front of the list there is a mask with a shorter one.
const CPUS: &str = "Cpus_allowed_list";

/// Reads `/proc/PID/status`; `None` for what is no thread of the kernel.
pub fn status(text: &str) -> Option<Status<'_>> {
    let value = |key: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value.trim())
    };
    let (pid, parent) = (value("Pid")?, value("PPid")?);
    [pid, parent].contains(&KTHREADD).then_some(())?;
    Some(Status { name: value("Name")?, pid, cpus: CpuSet::parse_kernel_list(value(CPUS)?).ok()? })
}

/// Of `/proc/PID/status` what [`status`] reads.
pub fn status_lines(text: &str) -> String {
    let wanted = |line: &&str| {
        let key = line.split_once(':').map(|(key, _)| key);
        key.is_some_and(|key| ["Name", "Pid", "PPid", CPUS].contains(&key))
    };
    text.lines().filter(wanted).map(|line| format!("{line}\n")).collect()
}

/// The text with other CPUs.
pub fn with_cpus(text: &str, cpus: &CpuSet) -> String {
    let line = |line: &str| match line.split_once(':') {
        Some((CPUS, _)) => format!("{CPUS}:\t{cpus}\n"),
        Some(("Cpus_allowed", _)) => format!("Cpus_allowed:\t{}\n", cpus.to_mask()),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Up to the name, which may hold anything, and what is behind it.
fn split(text: &str) -> Option<(&str, &str)> {
    // A tree may have the end of a longer line behind the first.
    text.lines().next()?.rsplit_once(')')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: &str = "24 (ksoftirqd/2) S 2 0 0 0 -1 69238848 0 0 0 0 0 7 0 0 20 0 1 0 5 0 0 \
        18446744073709551615 0 0 0 0 0 0 0 2147483647 0 0 0 0 17 2 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn kernel_threads_alone_are_read() {
        let thread = kernel_thread(LINE).unwrap();
        assert_eq!((thread.name, thread.start, thread.policy), ("ksoftirqd/2", "5", Some(Policy::Other)));
        assert!(thread.bound && !kernel_thread(&LINE.replace("69238848", "2129984")).unwrap().bound);
        let process = LINE.replace("69238848", "4194560");
        assert_eq!(kernel_thread(&process), None);
        let deadline = LINE.replace("17 2 0 0", "17 2 0 6");
        assert_eq!(kernel_thread(&deadline).unwrap().policy, None);
        let confusing = LINE.replace("ksoftirqd/2", "a) S 1 (b");
        assert_eq!(kernel_thread(&confusing).unwrap().name, "a) S 1 (b");
    }

    #[test]
    fn only_the_policy_changes() {
        let fifo = with_policy(LINE, Policy::Fifo(2));
        assert_eq!(fifo, LINE.replace("17 2 0 0", "17 2 2 1"));
        assert_eq!(with_policy(&fifo, Policy::Other), LINE);
        assert_eq!(with_policy("nothing", Policy::Other), "nothing");
    }

    const STATUS: &str = "Name:\trcu_preempt\nUmask:\t0000\nPid:\t17\nPPid:\t2\nCpus_allowed:\tffff\n\
        Cpus_allowed_list:\t0-15\nMems_allowed_list:\t0-1\n";

    #[test]
    fn only_the_cpus_change() {
        let found = status(STATUS).unwrap();
        assert_eq!((found.name, found.pid, found.cpus.to_string()), ("rcu_preempt", "17", "0-15".into()));
        let two = CpuSet::parse_kernel_list("0,8").unwrap();
        let after = with_cpus(STATUS, &two);
        assert_eq!(after, STATUS.replace("\tffff\n", "\t101\n").replace("\t0-15\n", "\t0,8\n"));
        assert_eq!(status(&status_lines(&after)), status(&after));
        assert_eq!(status(&STATUS.replace("PPid:\t2", "PPid:\t22")), None);
        assert!(status(&STATUS.replace("Pid:\t17\nPPid:\t2", "Pid:\t2\nPPid:\t0")).is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(policy in prop_oneof![
            Just(Policy::Other), (1..=99_u8).prop_map(Policy::Fifo), (1..=99_u8).prop_map(Policy::Rr)
        ]) {
            let text = with_policy(LINE, policy);
            prop_assert_eq!(kernel_thread(&text).unwrap().policy, Some(policy));
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            kernel_thread(&text);
            with_policy(&text, Policy::Fifo(1));
            status(&text);
            with_cpus(&text, &CpuSet::new());
        }
    }
}
