//! How many huge pages each node gets.

use crate::facts::{Facts, Node};
use crate::formats::Size;
use crate::profile::{Diagnostic, Host, PageCount, Spanned};
use serde::Serialize;

/// The huge pages of one node, and the arithmetic behind their number. All sizes in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Pages {
    /// What the kernel says the node has (`MemTotal`).
    pub memory: Size,
    /// What the profile keeps for the system; `None` if the count is explicit.
    pub kept: Option<Size>,
    /// Taken by pools of other page sizes.
    pub others: Size,
    /// Pages there will be.
    pub count: u64,
    /// What is left for everything else.
    pub left: Size,
    /// Pages that guests of the profile use.
    pub guests: u64,
}

/// The least that an explicit page count may leave on a node with CPUs, in bytes. A host that kept 76 MiB was
/// seen not to come back.
const LEAST_LEFT: Size = Size(512 << 20);

/// The pages of every node, in the order of the facts; complete only without errors.
pub(super) fn divide(host: &Host, facts: &Facts, found: &mut Vec<Diagnostic>) -> Vec<Pages> {
    let page = &host.hugepages.size;
    if let Some(PageCount::Nodes { pages, .. }) = &host.hugepages.count {
        for (id, count) in pages.iter().filter(|(id, _)| facts.numa.get(**id).is_none()) {
            found.push(no_node(*id, count.span.clone(), facts));
        }
    }
    if page.value == Size::GIB && facts.kernel.gigabyte_pages == Some(false) {
        let message = "this processor has no 1 GiB pages: /proc/cpuinfo shows no `pdpe1gb` flag";
        found.push(
            Diagnostic::error(page.span.clone(), message)
                .help("use `size = \"2MiB\"`; in a virtual machine, pass the flag through"),
        );
        return Vec::new();
    }
    facts.numa.nodes.iter().map(|node| divide_node(host, page, node, found)).collect()
}

pub(super) fn no_node(id: u32, span: std::ops::Range<usize>, facts: &Facts) -> Diagnostic {
    let ids: Vec<_> = facts.numa.nodes.iter().map(|node| node.id.to_string()).collect();
    Diagnostic::error(span, format!("there is no node {id} on this machine"))
        .label(format!("nodes are {}", ids.join(", ")))
}

fn divide_node(host: &Host, page: &Spanned<Size>, node: &Node, found: &mut Vec<Diagnostic>) -> Pages {
    let id = node.id;
    let others = node.pools.iter().filter(|pool| pool.page != page.value);
    let others = Size(others.map(|pool| pool.page.0.saturating_mul(pool.pages)).fold(0, u64::saturating_add));
    let kept = host.housekeeping_memory_per_node.as_ref();
    let explicit = match &host.hugepages.count {
        Some(PageCount::PerNode(count)) if !node.cpus.is_empty() => Some(count.clone()),
        Some(PageCount::Nodes { pages, span }) => {
            Some(pages.get(&id).cloned().unwrap_or_else(|| Spanned::new(0, span.clone())))
        }
        // A node without CPUs (CXL, HBM) is no place for guest memory unless it is named.
        Some(PageCount::PerNode(_)) => Some(Spanned::new(0, page.span.clone())),
        None if node.cpus.is_empty() || node.memory.0 == 0 => Some(Spanned::new(0, page.span.clone())),
        None => None,
    };
    let available = node.memory.0.saturating_sub(others.0);
    let count = match (&explicit, kept) {
        (Some(count), _) => count.value,
        (None, Some(kept)) if kept.value >= node.memory => {
            let message = format!("node {id} has {}, {} are to be kept", node.memory.gib(), kept.value.gib());
            found.push(Diagnostic::error(kept.span.clone(), message).label("more than the node has"));
            0
        }
        (None, kept) => available.saturating_sub(kept.map_or(0, |kept| kept.value.0)) / page.value.0,
    };
    let taken = count.checked_mul(page.value.0).filter(|bytes| *bytes <= available);
    let left = Size(taken.map_or(0, |bytes| available - bytes));
    let numbers = format!("node {id} has {}, {count} pages of {} are wanted", node.memory.gib(), page.value);
    if let Some(count) = explicit.as_ref().filter(|count| count.value > 0) {
        let error = |message| Diagnostic::error(count.span.clone(), message);
        if taken.is_none() {
            found.push(error(numbers).label("more than the node has"));
        } else if !node.cpus.is_empty() && left < LEAST_LEFT {
            let message = format!("{numbers}: {} would be left for the system", left.gib());
            found.push(error(message).label("at least 512MiB must be left"));
        } else if let Some(kept) = kept.filter(|kept| left < kept.value && !node.cpus.is_empty()) {
            let message =
                format!("{numbers}: {} are left of the {} to be kept", left.gib(), kept.value.gib());
            found.push(Diagnostic::warning(count.span.clone(), message));
        }
    }
    let pool = node.pool(page.value);
    if count > 0 && pool.is_none() {
        let sizes: Vec<_> = node.pools.iter().map(|pool| pool.page.to_string()).collect();
        let has = if sizes.is_empty() { "none".into() } else { sizes.join(", ") };
        let message = format!("the kernel has no pool of {} pages on node {id}", page.value);
        found.push(Diagnostic::error(page.span.clone(), message).label(format!("pools there: {has}")));
    }
    if let Some((pool, free)) = pool.and_then(|pool| Some((pool, pool.free?))) {
        let used = pool.pages.saturating_sub(free);
        if used > count {
            let message =
                format!("{used} pages of {} are in use on node {id}, {count} would remain", page.value);
            let span = explicit.map_or(page.span.clone(), |count| count.span);
            found.push(
                Diagnostic::error(span, message).help("stop the guests that use them, or keep more pages"),
            );
        }
    }
    Pages {
        memory: node.memory,
        kept: kept.filter(|_| host.hugepages.count.is_none()).map(|kept| kept.value),
        others,
        count,
        left,
        guests: 0,
    }
}
