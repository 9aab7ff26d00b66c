//! What the running kernel logged about its arguments. Source: init/main.c, kernel/params.c, kernel/sched/isolation.c,
//! kernel/time/tick-sched.c, kernel/rcu/tree_nocb.h and mm/hugetlb.c of Linux 5.10 to 6.18.

use crate::formats::CpuSet;
use crate::formats::kernel_args::same_name;
use crate::host::{Read, ReadError};
use serde::Serialize;

/// The lines of the kernel's log that are about arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KernelLog {
    /// In the order of the boot.
    pub lines: Vec<String>,
    /// Why it cannot be read, where it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// How these lines begin.
const ABOUT_ARGUMENTS: [&str; 11] = [
    UNKNOWN,
    OLD_UNKNOWN,
    INVALID,
    MALFORMED,
    HOUSEKEEPING,
    ISOLCPUS,
    "NO_HZ:",
    OFFLOADED,
    NOT_OFFLOADED,
    HUGETLB,
    "hugepagesz:",
];

const UNKNOWN: &str = "Unknown kernel command line parameters ";
const OLD_UNKNOWN: &str = "Unknown command line parameters:";
const INVALID: &str = "Booting kernel:";
const MALFORMED: &str = "Malformed early option ";
const HOUSEKEEPING: &str = "Housekeeping:";
const ISOLCPUS: &str = "isolcpus:";
const HUGETLB: &str = "HugeTLB:";
/// Indented by a tab, which is a space here.
const OFFLOADED: &str = "rcu:  Offload RCU callbacks from CPUs: ";
const NOT_OFFLOADED: &str = "rcu:  Note: kernel parameter 'rcu_nocbs='";

/// What a line about huge pages has when the parameter was not taken.
const REFUSED_PAGES: [&str; 4] = ["nvalid", "ignoring", "unsupported", "not supported"];

impl KernelLog {
    /// Reads it.
    pub fn read(host: &dyn Read) -> KernelLog {
        let wanted = |line: &str| ABOUT_ARGUMENTS.iter().any(|start| line.starts_with(start));
        match host.kernel_log(wanted) {
            Ok(file) => {
                KernelLog { lines: file.text().lines().map(str::to_owned).collect(), unreadable: None }
            }
            Err(ReadError::Absent | ReadError::Untold) => KernelLog::default(),
            Err(error) => KernelLog { lines: Vec::new(), unreadable: Some(error.to_string()) },
        }
    }

    /// The line by which the kernel says that it did not take a parameter, whatever its value.
    pub fn against(&self, name: &str) -> Option<&str> {
        let line = self.lines.iter().find(|line| is_against(line, name));
        line.map(String::as_str)
    }

    /// What the scheduler's isolation said, which does not always name the parameter it means.
    pub fn about_isolation(&self) -> Option<&str> {
        let line =
            self.lines.iter().find(|line| [HOUSEKEEPING, ISOLCPUS].iter().any(|s| line.starts_with(s)));
        line.map(String::as_str)
    }

    /// The CPUs whose RCU callbacks are offloaded, with the line that says so; `None` if none does.
    pub fn offloaded(&self) -> Option<(CpuSet, &str)> {
        self.lines.iter().find_map(|line| {
            let list = line.strip_prefix(OFFLOADED)?.trim_end_matches('.');
            let cpus = match list {
                "(none)" => CpuSet::new(),
                list => CpuSet::parse_kernel_list(list).ok()?,
            };
            Some((cpus, line.as_str()))
        })
    }
}

fn is_against(line: &str, name: &str) -> bool {
    let is = |word: &str| same_name(word.split('=').next().unwrap_or_default(), name);
    let starts = |start: &str| line.starts_with(start);
    if let Some(words) = line.strip_prefix(UNKNOWN) {
        // `"one two=2", will be passed to user space.`
        let end = words.rfind('"').unwrap_or(words.len());
        return words[..end].split_whitespace().any(|word| is(word.trim_start_matches('"')));
    }
    if let Some(words) = line.strip_prefix(OLD_UNKNOWN) {
        return words.split_whitespace().any(is);
    }
    match same_name(name, "hugepages")
        || same_name(name, "hugepagesz")
        || same_name(name, "default_hugepagesz")
    {
        _ if starts(INVALID) => line.contains(&format!("`{name}'")),
        _ if starts(MALFORMED) => line.contains(&format!("'{name}'")),
        true => {
            (starts(HUGETLB) || starts("hugepagesz:")) && REFUSED_PAGES.iter().any(|word| line.contains(word))
        }
        false if starts(ISOLCPUS) => same_name(name, "isolcpus"),
        false if starts(NOT_OFFLOADED) => same_name(name, "rcu_nocbs"),
        false => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> KernelLog {
        KernelLog { lines: lines.iter().map(|line| (*line).to_owned()).collect(), unreadable: None }
    }

    #[test]
    fn lines_speak_of_their_parameter() {
        let unknown = "Unknown kernel command line parameters \"splash kthread_cpus=0-1,8-9\", will be passed to user space.";
        let pages = "HugeTLB: Invalid hugepages parameter 7:25";
        let flag = "isolcpus: Skipped unknown flag managed_irq";
        let value = "Booting kernel: `x' invalid for parameter `skew_tick'";
        let log = log(&[
            "HugeTLB: registered 1.00 GiB page size, pre-allocated 0 pages",
            unknown,
            pages,
            flag,
            value,
        ]);
        for (name, line) in [
            ("kthread_cpus", Some(unknown)),
            ("kthread-cpus", Some(unknown)),
            ("splash", Some(unknown)),
            ("cpus", None),
            ("user", None),
            ("hugepages", Some(pages)),
            ("isolcpus", Some(flag)),
            ("nohz_full", None),
            ("skew_tick", Some(value)),
            ("rcu_nocbs", None),
        ] {
            assert_eq!(log.against(name), line, "{name}");
        }
    }

    #[test]
    fn offloaded_cpus_are_read() {
        let line = "rcu:  Offload RCU callbacks from CPUs: 2-7,10-15.";
        let cpus = CpuSet::parse_kernel_list("2-7,10-15").unwrap();
        assert_eq!(log(&[line]).offloaded(), Some((cpus, line)));
        let line = "rcu:  Offload RCU callbacks from CPUs: (none).";
        assert_eq!(log(&[line]).offloaded(), Some((CpuSet::new(), line)));
        assert_eq!(log(&["HugeTLB: x"]).offloaded(), None);
    }
}
