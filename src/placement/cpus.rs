//! Housekeeping and isolated CPUs.

use crate::facts::{Core, Facts};
use crate::formats::CpuSet;
use crate::profile::{Diagnostic, Host, Housekeeping, Spanned};
use std::ops::Range;

/// The housekeeping and the isolated CPUs: disjoint, together the online set, in whole cores, the boot CPU in
/// the first. `None` after an error.
pub(super) fn divide(host: &Host, facts: &Facts, found: &mut Vec<Diagnostic>) -> Option<(CpuSet, CpuSet)> {
    let online = &facts.cpus.online;
    let before = found.len();
    let mut check = |listed: &Spanned<CpuSet>| {
        found.extend(missing(listed, facts));
        found.extend(split_cores(listed, facts));
        listed.value.intersection(online)
    };
    let isolated = host.isolated_cpus.as_ref().map(&mut check);
    let (housekeeping, span) = match (&host.housekeeping, &isolated) {
        (Housekeeping::Cpus(listed), _) => (check(listed), listed.span.clone()),
        (Housekeeping::PerNode(count), Some(isolated)) => (online.difference(isolated), count.span.clone()),
        (Housekeeping::PerNode(count), None) => (per_node(count, facts, found), count.span.clone()),
    };
    if found.len() > before && super::has_errors(&found[before..]) {
        return None;
    }
    let isolated_span = host.isolated_cpus.as_ref().map_or(span.clone(), |listed| listed.span.clone());
    let isolated = isolated.unwrap_or_else(|| online.difference(&housekeeping));
    found.extend(contradictions(host, facts, (&housekeeping, span), (&isolated, isolated_span)));
    Some((housekeeping, isolated))
}

/// Whole cores of each node until there are `count` CPUs, the boot CPU's core first. CPUs on no node are
/// housekeeping: nothing could be placed beside them.
fn per_node(count: &Spanned<u32>, facts: &Facts, found: &mut Vec<Diagnostic>) -> CpuSet {
    let wanted = count.value as usize;
    let nowhere = facts.cpus.cores.iter().filter(|core| core.node.is_none());
    let mut housekeeping = nowhere.fold(CpuSet::new(), |all, core| all.union(&core.cpus));
    for node in facts.numa.with_cpus() {
        let mut cores: Vec<&Core> =
            facts.cpus.cores.iter().filter(|core| core.node == Some(node.id)).collect();
        cores.sort_by_key(|core| (!core.cpus.contains(facts.cpus.boot), core.cpus.first()));
        let mut taken = CpuSet::new();
        for core in cores {
            if taken.len() < wanted {
                taken = taken.union(&core.cpus);
            }
        }
        if taken.len() < wanted {
            let message =
                format!("node {} has {} CPUs, {wanted} are to be housekeeping CPUs", node.id, taken.len());
            found.push(Diagnostic::error(count.span.clone(), message).label("more than the node has"));
        } else if taken.len() > wanted {
            let message = format!(
                "node {} keeps {} housekeeping CPUs, {taken}: cores are never split",
                node.id,
                taken.len()
            );
            found.push(Diagnostic::warning(count.span.clone(), message));
        }
        housekeeping = housekeeping.union(&taken);
    }
    housekeeping
}

/// CPUs that are listed and not there, or not online.
fn missing(listed: &Spanned<CpuSet>, facts: &Facts) -> Vec<Diagnostic> {
    let cpus = &facts.cpus;
    let absent = listed.value.difference(&cpus.present);
    let offline = listed.value.intersection(&cpus.offline);
    let noun = |set: &CpuSet, one: &str, many: &str| match set.len() {
        1 => format!("CPU {set} {one}"),
        _ => format!("CPUs {set} {many}"),
    };
    let mut found = Vec::new();
    if !absent.is_empty() {
        let message = format!("{} on this machine", noun(&absent, "does not exist", "do not exist"));
        let label = format!("online CPUs are {}", cpus.online);
        found.push(Diagnostic::error(listed.span.clone(), message).label(label));
    }
    if !offline.is_empty() {
        let path = format!("/sys/devices/system/cpu/cpu{}/online", offline.first().expect("not empty"));
        let message = noun(&offline, "is offline", "are offline");
        let help = format!("leave it out, or bring it online first: write 1 to {path}");
        found.push(
            Diagnostic::error(listed.span.clone(), message)
                .label(format!("online CPUs are {}", cpus.online))
                .help(help),
        );
    }
    found
}

fn split_cores(listed: &Spanned<CpuSet>, facts: &Facts) -> Vec<Diagnostic> {
    let is_split =
        |core: &&Core| !core.cpus.is_disjoint(&listed.value) && !core.cpus.is_subset(&listed.value);
    let split = facts.cpus.cores.iter().filter(is_split);
    split
        .map(|core| {
            let (inside, outside) =
                (core.cpus.intersection(&listed.value), core.cpus.difference(&listed.value));
            let message = format!("CPUs {} are one core, and only {inside} is listed", core.cpus);
            Diagnostic::error(listed.span.clone(), message).label("splits a core").help(format!(
                "list {outside} too, or leave {inside} out: what runs on one thread slows the other"
            ))
        })
        .collect()
}

fn contradictions(
    host: &Host,
    facts: &Facts,
    (housekeeping, span): (&CpuSet, Range<usize>),
    (isolated, isolated_span): (&CpuSet, Range<usize>),
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let cpus = &facts.cpus;
    let neither = cpus.online.difference(housekeeping).difference(isolated);
    if housekeeping.is_empty() || isolated.is_empty() {
        let (kind, span) =
            if isolated.is_empty() { ("isolated", span) } else { ("housekeeping", isolated_span) };
        let label = format!("online CPUs are {}", cpus.online);
        return vec![Diagnostic::error(span, format!("no CPU is left to be {kind}")).label(label)];
    }
    if !housekeeping.contains(cpus.boot) {
        let message = format!("CPU {} is the boot CPU and would be isolated", cpus.boot);
        let help =
            "firmware, legacy interrupts and timekeeping stay on the boot CPU: make it a housekeeping CPU";
        let span = if isolated.contains(cpus.boot) { isolated_span.clone() } else { span.clone() };
        found.push(Diagnostic::error(span, message).help(help));
    }
    if !neither.is_empty() {
        let message = format!("CPUs {neither} are online, and neither housekeeping nor isolated");
        found
            .push(Diagnostic::error(isolated_span.clone(), message).help("add them to one of the two lists"));
    }
    if let (Housekeeping::PerNode(count), Some(_)) = (&host.housekeeping, &host.isolated_cpus) {
        for node in facts.numa.with_cpus() {
            let left = node.cpus.intersection(housekeeping);
            if left.len() < count.value as usize {
                let message = format!(
                    "node {} would have {} housekeeping CPUs, {} are asked",
                    node.id,
                    left.len(),
                    count.value
                );
                found.push(Diagnostic::error(isolated_span.clone(), message).label("isolates too many"));
            }
        }
    }
    found
}
