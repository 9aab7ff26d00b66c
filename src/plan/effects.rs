//! What the kernel does, beside what it was told: where interrupts are served, and which CPUs its load balancing sees.
//!
//! Source: Documentation/core-api/irq/irq-affinity.rst, Documentation/scheduler/sched-domains.rst.

use super::{Item, State};
use crate::facts::Facts;
use crate::facts::irqs::interrupt;
use crate::formats::{CpuSet, HostPath};
use crate::host::{Read, ReadError};
use crate::placement::Placement;
use std::collections::HashMap;

/// A directory for each CPU, with one for each scheduling domain it is in (debugfs, since Linux 5.13).
const DOMAINS: &str = "/sys/kernel/debug/sched/domains";

/// Interrupts that are set as they should be and are served by isolated CPUs until they next come: the kernel moves one
/// while it handles it.
pub(super) fn pending(facts: &Facts, placement: &Placement, items: &mut [Item]) {
    let on_isolated = facts.irqs.irqs.iter().filter_map(|irq| {
        let on = irq.effective.as_ref()?.intersection(&placement.isolated);
        (!on.is_empty()).then_some((irq.number, on))
    });
    let on_isolated: HashMap<u32, CpuSet> = on_isolated.collect();
    for item in items.iter_mut().filter(|item| item.observed.state == State::InLine) {
        if let Some(on) = item.path.as_ref().and_then(interrupt).and_then(|number| on_isolated.get(&number)) {
            let are = if on.len() == 1 { "CPU" } else { "CPUs" };
            item.observed.state = State::Pending(format!(
                "until it next comes it is served by isolated {are} {on} (effective_affinity_list)"
            ));
        }
    }
}

/// Isolated CPUs between which the kernel balances load all the same.
pub(super) fn balanced(host: &dyn Read, facts: &Facts) -> Option<String> {
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
