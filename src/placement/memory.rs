//! How many huge pages each node gets.

use crate::facts::{Facts, Node};
use crate::formats::Size;
use crate::profile::{Diagnostic, Host, PageCount, Spanned};
use serde::Serialize;

/// The huge pages of one node, and the arithmetic behind their number. All sizes in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// Pages that other guests use which libvirt defines.
    pub others_guests: u64,
}

/// The least that pages may leave on a node with CPUs, in bytes. A host that kept 76 MiB was
/// seen not to come back.
const LEAST_LEFT: Size = Size(512 << 20);

/// The pages of every node, in the order of the facts; right only without errors.
pub(super) fn divide(host: &Host, facts: &Facts, found: &mut Vec<Diagnostic>) -> Vec<Pages> {
    let page = &host.hugepages.size;
    if let Some(PageCount::Nodes { pages, .. }) = &host.hugepages.count {
        for (id, count) in pages.iter().filter(|(id, _)| facts.numa.get(**id).is_none()) {
            found.push(no_node(*id, count.span.clone(), facts));
        }
    }
    let nodes = &facts.numa.nodes;
    let pages: Vec<Pages> = nodes.iter().map(|node| divide_node(host, page, node, found)).collect();
    let wanted = nodes.iter().zip(&pages).filter(|(_, pages)| pages.count > 0);
    let without: Vec<&Node> = wanted.map(|(node, _)| node).filter(|n| n.pool(page.value).is_none()).collect();
    if page.value == Size::GIB && facts.kernel.gigabyte_pages == Some(false) {
        let message = "this processor has no 1 GiB pages: /proc/cpuinfo shows no `pdpe1gb` flag";
        found.push(
            Diagnostic::error(page.span.clone(), message)
                .help("use `size = \"2MiB\"`; in a virtual machine, pass the flag through"),
        );
    } else if let Some(first) = without.first() {
        let message = format!("the kernel has no {} pages on {}", page.value, ids(without.iter().copied()));
        let sizes: Vec<_> = first.pools.iter().map(|pool| pool.page.to_string()).collect();
        let has = if sizes.is_empty() {
            "no huge pages at all".into()
        } else {
            format!("pages of {}", sizes.join(", "))
        };
        found.push(
            Diagnostic::error(page.span.clone(), message).label(format!("node {} has {has}", first.id)),
        );
    }
    pages
}

/// `node 0` or `nodes 0, 2`.
fn ids<'n>(nodes: impl IntoIterator<Item = &'n Node>) -> String {
    let ids: Vec<_> = nodes.into_iter().map(|node| node.id.to_string()).collect();
    format!("node{} {}", if ids.len() == 1 { "" } else { "s" }, ids.join(", "))
}

pub(super) fn no_node(id: u32, span: std::ops::Range<usize>, facts: &Facts) -> Diagnostic {
    Diagnostic::error(span, format!("node {id} does not exist on this machine")).label(format!(
        "there {} {}",
        if facts.numa.nodes.len() == 1 { "is" } else { "are" },
        ids(&facts.numa.nodes)
    ))
}

fn divide_node(host: &Host, page: &Spanned<Size>, node: &Node, found: &mut Vec<Diagnostic>) -> Pages {
    let id = node.id;
    let others = node.pools.iter().filter(|pool| pool.page != page.value);
    let others = Size(others.map(|pool| pool.page.0.saturating_mul(pool.pages)).fold(0, u64::saturating_add));
    let kept = host.housekeeping_memory_per_node.as_ref();
    let kept_bytes = kept.map_or(0, |kept| kept.value.0);
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
    let has = match others.0 {
        0 => format!("node {id} has {}", node.memory.gib()),
        _ => format!("node {id} has {}, {} of it in pages of other sizes", node.memory.gib(), others.gib()),
    };
    let count = match &explicit {
        Some(count) => count.value,
        None => available.saturating_sub(kept_bytes) / page.value.0,
    };
    let taken = count.checked_mul(page.value.0).filter(|bytes| *bytes <= available);
    let left = Size(taken.map_or(0, |bytes| available - bytes));
    let span = match (&explicit, kept) {
        (Some(count), _) => &count.span,
        (None, Some(kept)) => &kept.span,
        (None, None) => &page.span,
    };
    let asked = match &explicit {
        Some(_) => format!("`count` asks for {} of {}", super::counted(count, "page"), page.value),
        None => format!("{} are to be kept", Size(kept_bytes).gib()),
    };
    let numbers = format!("{has}; {asked}");
    let error = |message: String, label: String| Diagnostic::error(span.clone(), message).label(label);
    if explicit.is_none() && count == 0 {
        let help = "keep less, or write a `count` that names the nodes with pages in [host.hugepages]";
        found.push(error(numbers, format!("leaves no page of {}", page.value)).help(help));
    } else if taken.is_none() {
        found.push(error(numbers, "more than the node has".into()));
    } else if count > 0 && !node.cpus.is_empty() {
        if left < LEAST_LEFT {
            let message = format!("{numbers}: {} would be left for the system", left.gib());
            found.push(error(message, format!("at least {LEAST_LEFT} must be left")));
        } else if left.0 < kept_bytes {
            let message =
                format!("{numbers}: {} are left of the {} to be kept", left.gib(), Size(kept_bytes).gib());
            found.push(Diagnostic::warning(span.clone(), message));
        }
    }
    if let Some((pool, free)) = node.pool(page.value).and_then(|pool| Some((pool, pool.free?))) {
        let used = pool.pages.saturating_sub(free);
        if used > count {
            let message =
                format!("node {id} has {used} pages of {} in use, {count} would remain", page.value);
            let help = "stop the guests that use them, or ask for more pages";
            found.push(Diagnostic::error(span.clone(), message).help(help));
        }
    }
    Pages {
        memory: node.memory,
        kept: kept.filter(|_| host.hugepages.count.is_none()).map(|kept| kept.value),
        others,
        count,
        left,
        guests: 0,
        others_guests: 0,
    }
}
