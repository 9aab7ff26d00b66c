//! What is told of the machine as a whole.

use super::layout::{Item, Page};
use super::map::isolated;
use crate::cli::style::Style;
use crate::facts::{Core, Facts, Irq, Loader, Movable};
use crate::formats::CpuSet;
use crate::placement::Placement;
use std::collections::BTreeSet;

/// The kernel, the operating system and the boot loader.
pub(super) fn kernel(page: &mut Page, facts: &Facts, style: Style) {
    let kernel = &facts.kernel;
    let unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    page.row("kernel", &unknown(&kernel.release));
    let real_time = yes_no(kernel.preempt_rt);
    let mark = |text: &str| match kernel.preempt_rt {
        Some(true) => style.added(text),
        _ => style.changed(text),
    };
    page.value("PREEMPT_RT", Item::styled(real_time, mark));
    page.row("system", &unknown(&kernel.os));
    page.row("boot loader", &boot_loader(facts));
    page.row("1 GiB pages", yes_no(kernel.gigabyte_pages));
}

fn yes_no(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
}

fn boot_loader(facts: &Facts) -> String {
    let boot = &facts.boot;
    match boot.loader {
        Loader::GrubDebian => format!("GRUB as on Debian; next boot as in {}", boot.next_from),
        Loader::Unknown => "unknown".into(),
        loader if boot.next.is_empty() => loader.name().into(),
        loader => format!("{}; next boot as in {}", loader.name(), boot.next_from),
    }
}

/// How many CPUs there are, what they share, and which are isolated, now and as planned.
pub(super) fn cpus(page: &mut Page, facts: &Facts, placement: Option<&Placement>, style: Style) {
    let cpus = &facts.cpus;
    page.row(
        "CPUs",
        &format!("{} online of {} present: {}", cpus.online.len(), cpus.present.len(), cpus.online),
    );
    if !cpus.offline.is_empty() {
        page.value("offline", Item::styled(&cpus.offline.to_string(), |text| style.removed(text)));
    }
    page.row("topology", &topology(facts));
    if !facts.numa.shown {
        page.row("", "the kernel shows no memory nodes: everything is on node 0");
    }
    page.row("isolated now", &list(cpus.isolated.as_ref(), "not shown"));
    page.row("nohz_full now", &list(cpus.nohz_full.as_ref(), "not shown"));
    if let Some(placement) = placement {
        let (housekeeping, isolated) = (&placement.housekeeping, &placement.isolated);
        page.row("planned", &format!("housekeeping {housekeeping}; isolated {isolated}"));
    }
}

fn list(cpus: Option<&CpuSet>, unknown: &str) -> String {
    match cpus {
        None => unknown.into(),
        Some(cpus) if cpus.is_empty() => "none".into(),
        Some(cpus) => cpus.to_string(),
    }
}

fn topology(facts: &Facts) -> String {
    let cores = &facts.cpus.cores;
    let threads = cores.iter().map(|core| core.cpus.len());
    let threads = match (threads.clone().min().unwrap_or(1), threads.max().unwrap_or(1)) {
        (least, most) if least == most => counted(most, "thread"),
        (least, most) => format!("{least} to {most} threads"),
    };
    let sockets: BTreeSet<_> = cores.iter().filter_map(|core| core.package).collect();
    let dies: BTreeSet<_> = cores.iter().filter_map(|core: &Core| Some((core.package?, core.die?))).collect();
    let caches: BTreeSet<_> = cores.iter().map(|core| (core.node, core.llc.first())).collect();
    let mut parts = vec![counted(facts.numa.nodes.len(), "node")];
    if !sockets.is_empty() {
        parts.push(counted(sockets.len(), "socket"));
    }
    if dies.len() > sockets.len() {
        parts.push(counted(dies.len(), "die"));
    }
    parts.push(counted(caches.len(), "LLC"));
    parts.push(format!("{} of {threads}", counted(cores.len(), "core")));
    parts.join(", ")
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// How many interrupts there are, which cannot be moved, and which may disturb isolated CPUs.
pub(super) fn interrupts(page: &mut Page, facts: &Facts, placement: Option<&Placement>, style: Style) {
    page.gap();
    let irqs = &facts.irqs.irqs;
    let label = |name: &str| Item::styled(name, |text| style.bold(text));
    if irqs.is_empty() && facts.irqs.default_affinity.is_none() {
        return page.headed(label("interrupts"), "unknown");
    }
    let movable = irqs.iter().filter(|irq| irq.movable == Movable::Yes).count();
    page.headed(label("interrupts"), &format!("{} in use, {movable} can be moved", irqs.len()));
    for (at, (count, reason)) in immovable(irqs).into_iter().enumerate() {
        page.row(if at == 0 { "  not movable" } else { "" }, &format!("{count}: {reason}"));
    }
    page.row("  default", &list(facts.irqs.default_affinity.as_ref(), "not shown"));
    let Some(isolated) = isolated(facts, placement).filter(|isolated| !isolated.is_empty()) else { return };
    let may = irqs.iter().filter(|irq| !irq.affinity.is_disjoint(isolated));
    let may_move = may.clone().filter(|irq| irq.movable == Movable::Yes).count();
    let now = |irq: &&Irq| !irq.effective.as_ref().unwrap_or(&irq.affinity).is_disjoint(isolated);
    let now = irqs.iter().filter(now).count();
    let whose = if placement.is_some() { "CPUs to be isolated" } else { "isolated CPUs" };
    let may = may.count();
    page.row(
        "  isolated",
        &format!("{may} may run on {whose}, {may_move} of them can be moved; {now} go there now"),
    );
}

/// How many interrupts cannot be moved, by reason, most first.
fn immovable(irqs: &[Irq]) -> Vec<(usize, &'static str)> {
    let kinds = [Movable::ReadOnly, Movable::Managed, Movable::Platform];
    let count = |kind: Movable| (irqs.iter().filter(|irq| irq.movable == kind).count(), kind.reason());
    let mut counts: Vec<_> = kinds.map(count).into_iter().filter(|(count, _)| *count > 0).collect();
    counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    counts
}
