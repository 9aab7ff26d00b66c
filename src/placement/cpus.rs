//! Housekeeping and isolated CPUs.

use super::counted;
use crate::facts::{Core, Facts, Node};
use crate::formats::CpuSet;
use crate::profile::{Diagnostic, Host, Housekeeping, Spanned};
use std::ops::Range;

/// The housekeeping and the isolated CPUs. Unless errors were found they are disjoint, together the online set,
/// in whole cores, the boot CPU in the first.
pub(super) fn divide(host: &Host, facts: &Facts, found: &mut Vec<Diagnostic>) -> (CpuSet, CpuSet) {
    let online = &facts.cpus.online;
    let mut listed = |cpus: &Spanned<CpuSet>| {
        found.extend(missing(cpus, facts));
        cpus.intersection(online)
    };
    let isolated = host.isolated_cpus.as_ref().map(&mut listed);
    let housekeeping = match (&host.housekeeping, &isolated) {
        (Housekeeping::Cpus(cpus), _) => listed(cpus),
        (Housekeeping::PerNode(_), Some(isolated)) => online.difference(isolated),
        (Housekeeping::PerNode(count), None) => per_node(count, facts, found),
    };
    let isolated = isolated.unwrap_or_else(|| online.difference(&housekeeping));
    contradictions(host, facts, &housekeeping, &isolated, found);
    (housekeeping, isolated)
}

/// Whole cores of each node until there are `count` CPUs, the boot CPU's core first. CPUs on no node are
/// housekeeping: nothing could be placed beside them.
fn per_node(count: &Spanned<u32>, facts: &Facts, found: &mut Vec<Diagnostic>) -> CpuSet {
    let wanted = count.value as usize;
    let online = facts.cpus.online.clone();
    let mut housekeeping = facts.numa.nodes.iter().fold(online, |rest, node| rest.difference(&node.cpus));
    for node in facts.numa.with_cpus() {
        let mut cores: Vec<&Core> =
            facts.cpus.cores.iter().filter(|core| !core.cpus.is_disjoint(&node.cpus)).collect();
        cores.sort_by_key(|core| (!core.cpus.contains(facts.cpus.boot), core.cpus.first()));
        let mut taken = CpuSet::new();
        for core in cores {
            if taken.len() < wanted {
                taken = taken.union(&core.cpus);
            }
        }
        if taken.len() < wanted {
            let has = counted(taken.len() as u64, "online CPU");
            let message = format!("node {} has {has}, {wanted} are to be housekeeping CPUs", node.id);
            found.push(Diagnostic::error(count.span.clone(), message).label("more than the node has"));
        } else if taken.len() > wanted {
            let message = format!(
                "node {} keeps {} housekeeping CPUs, {taken}, instead of {wanted}: cores are never split",
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
    let error = |set: &CpuSet, one: &str, many: &str| {
        let label = format!("online CPUs are {}", cpus.online);
        (!set.is_empty()).then(|| Diagnostic::error(listed.span.clone(), what(set, one, many)).label(label))
    };
    let absent = error(
        &listed.difference(&cpus.present),
        "does not exist on this machine",
        "do not exist on this machine",
    );
    let set = listed.intersection(&cpus.offline);
    let offline = error(&set, "is offline", "are offline");
    let offline = offline.map(|error| error.help(format!("leave out, or bring online: chcpu -e {set}")));
    absent.into_iter().chain(offline).collect()
}

/// `CPU 3 is ...` or `CPUs 3-4 are ...`.
fn what(cpus: &CpuSet, one: &str, many: &str) -> String {
    match cpus.len() {
        1 => format!("CPU {cpus} {one}"),
        _ => format!("CPUs {cpus} {many}"),
    }
}

fn contradictions(
    host: &Host,
    facts: &Facts,
    housekeeping: &CpuSet,
    isolated: &CpuSet,
    found: &mut Vec<Diagnostic>,
) {
    let cpus = &facts.cpus;
    let span = match &host.housekeeping {
        Housekeeping::PerNode(count) => &count.span,
        Housekeeping::Cpus(listed) => &listed.span,
    };
    let isolated_span = host.isolated_cpus.as_ref().map_or(span, |listed| &listed.span);
    for (empty, kind, other, span) in [
        (isolated, "isolated", "housekeeping", span),
        (housekeeping, "housekeeping", "isolated", isolated_span),
    ] {
        if empty.is_empty() {
            // After another error it is what follows from that.
            if !super::has_errors(found) {
                let message = format!("no CPU is left to be {kind}");
                let label = format!("all {} online CPUs, {}, are {other}", cpus.online.len(), cpus.online);
                found.push(Diagnostic::error(span.clone(), message).label(label));
            }
            return;
        }
    }
    if isolated.contains(cpus.boot) {
        let message = format!("CPU {} is the boot CPU and would be isolated", cpus.boot);
        let help =
            "firmware, legacy interrupts and timekeeping stay on the boot CPU: make it a housekeeping CPU";
        found.push(Diagnostic::error(isolated_span.clone(), message).help(help));
    }
    let span = if matches!(host.housekeeping, Housekeeping::Cpus(_)) { span } else { isolated_span };
    found.extend(split_cores(facts, housekeeping, isolated, span));
    let neither = cpus.online.difference(housekeeping).difference(isolated);
    if !neither.is_empty() {
        let rest = "online, and neither housekeeping nor isolated";
        let message = what(&neither, &format!("is {rest}"), &format!("are {rest}"));
        let help = "add to one of the two lists; without `isolated-cpus` every other online CPU is isolated";
        found.push(Diagnostic::error(isolated_span.clone(), message).help(help));
    }
    if let (Housekeeping::PerNode(count), Some(isolated)) = (&host.housekeeping, &host.isolated_cpus) {
        found.extend(too_few(count, isolated, facts, housekeeping));
    }
}

/// Cores with threads in both sets.
fn split_cores(
    facts: &Facts,
    housekeeping: &CpuSet,
    isolated: &CpuSet,
    span: &Range<usize>,
) -> Option<Diagnostic> {
    let is_split = |core: &&Core| !core.cpus.is_disjoint(housekeeping) && !core.cpus.is_disjoint(isolated);
    let split = facts.cpus.cores.iter().filter(is_split);
    let split = split.fold(CpuSet::new(), |all, core| all.union(&core.cpus));
    if split.is_empty() {
        return None;
    }
    let message = format!(
        "CPUs {split} share cores: {} would be housekeeping, {} isolated",
        split.intersection(housekeeping),
        split.intersection(isolated)
    );
    let help = "what runs on one thread of a core slows the others: keep its threads together";
    Some(Diagnostic::error(span.clone(), message).label("splits cores").help(help))
}

/// Nodes on which the isolated CPUs leave fewer than `count`.
fn too_few(
    count: &Spanned<u32>,
    isolated: &Spanned<CpuSet>,
    facts: &Facts,
    housekeeping: &CpuSet,
) -> Vec<Diagnostic> {
    let left = |node: &Node| node.cpus.intersection(housekeeping).len();
    let short = facts.numa.with_cpus().filter(|node| left(node) < count.value as usize);
    short
        .map(|node| {
            let left = counted(left(node) as u64, "housekeeping CPU");
            let message = format!(
                "node {} would have {left}, `housekeeping-cpus-per-node` asks for {}",
                node.id, count.value
            );
            Diagnostic::error(isolated.span.clone(), message).label("isolates too many")
        })
        .collect()
}
