//! What the kernel does, beside what it was told: where interrupts are served, and which CPUs its load balancing sees.
//!
//! Source: Documentation/core-api/irq/irq-affinity.rst, Documentation/scheduler/sched-domains.rst.

use super::{Item, Observed, State};
use crate::facts::Facts;
use crate::facts::irqs::directory;
use crate::formats::{CpuSet, HostPath};
use crate::host::{Read, ReadError};
use crate::placement::Placement;

/// A directory for each CPU, with one for each scheduling domain it is in (debugfs, since Linux 5.13).
const DOMAINS: &str = "/sys/kernel/debug/sched/domains";

/// What is to be known of the kernel's own doings.
pub(super) fn notes(host: &dyn Read, facts: &Facts, placement: &Placement, items: &[Item]) -> Vec<String> {
    pending(facts, placement, items).into_iter().chain(balanced(host, facts)).collect()
}

/// Interrupts that are set as they should be and are served elsewhere until they next come.
fn pending(facts: &Facts, placement: &Placement, items: &[Item]) -> Option<String> {
    let set = |path: &HostPath| {
        let in_line = |item: &&Item| matches!(item.observed, Observed { state: State::InLine, .. });
        items.iter().filter(in_line).any(|item| item.path.as_ref() == Some(path))
    };
    let waits = facts.irqs.irqs.iter().filter(|irq| {
        let isolated = irq.effective.as_ref().is_some_and(|cpus| !cpus.is_disjoint(&placement.isolated));
        isolated && set(&directory(irq.number).join("smp_affinity_list"))
    });
    let waits: Vec<String> = waits.map(|irq| irq.number.to_string()).collect();
    (!waits.is_empty()).then(|| {
        format!(
            "IRQ {} is set to housekeeping CPUs and stays on an isolated one until it next comes (effective_affinity_list)",
            waits.join(",")
        )
    })
}

/// Isolated CPUs between which the kernel balances load all the same.
fn balanced(host: &dyn Read, facts: &Facts) -> Option<String> {
    let isolated = facts.cpus.isolated.as_ref().filter(|cpus| !cpus.is_empty())?;
    let dir = HostPath::new(DOMAINS);
    match host.list(&dir) {
        Ok(_) => {}
        Err(ReadError::Absent | ReadError::Untold) => return None,
        Err(error) => {
            let why = error.forbidden().map_or(String::new(), |why| format!("; {why}"));
            return Some(format!(
                "whether isolated CPUs are in scheduling domains cannot be told: {dir}: {error}{why}"
            ));
        }
    }
    let online = isolated.intersection(&facts.cpus.online);
    let in_one =
        |cpu: &u32| host.list(&dir.join(format_args!("cpu{cpu}"))).is_ok_and(|names| !names.is_empty());
    let found: CpuSet = online.iter().filter(in_one).collect();
    (!found.is_empty()).then(|| {
        format!("CPUs {found} are isolated and yet in scheduling domains ({dir}/cpuN): the kernel balances load on them")
    })
}
