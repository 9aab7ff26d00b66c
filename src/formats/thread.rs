//! How a thread is scheduled, as `/proc/PID/stat` says it. Source: proc_pid_stat(5), sched(7).

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
        }
    }
}
