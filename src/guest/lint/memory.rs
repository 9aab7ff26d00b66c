//! The guest's memory.

use super::subject::{Cell, Subject, all, attribute, tag, text, whole};
use super::{Found, Rule};
use crate::formats::{CpuSet, Size};

pub(super) const RULES: &[Rule] = &[
    UNBOUND,
    MODE,
    ABSENT_NODE,
    REMOTE,
    CELL_UNBOUND,
    CELL_UNKNOWN,
    NO_PAGES,
    DEFAULT_PAGE,
    PAGE_NODESET,
    PAGE_SIZE,
    PARTIAL_PAGE,
    TOO_FEW_PAGES,
    ALLOCATION,
    NOT_LOCKED,
    LOCKED_SMALL,
    HARD_LIMIT,
    MERGED,
    CURRENT,
];

const BACKING: &str = "libvirt formatdomain (Memory Backing)";
const TUNING: &str = "libvirt formatdomain (NUMA Node Tuning)";

/// Whether the host has more than one place for memory.
fn has_nodes(guest: &Subject) -> bool {
    guest.host.facts.numa.nodes.iter().filter(|node| node.memory.0 > 0).count() > 1
}

const UNBOUND: Rule = Rule {
    id: "memory.unbound",
    what: "Memory that is bound to no NUMA node",
    why: "It comes from whichever node has pages; on another node than the vCPUs each access that misses the caches \
        crosses the machine. Pins alone bind no memory, nor does a nodeset in <page>.",
    source: TUNING,
    fatal: false,
    check: |guest| {
        if !has_nodes(guest) || guest.one("numatune/memory").is_some() {
            return Vec::new();
        }
        if guest.cells.iter().all(|cell| guest.binding(cell).is_some()) {
            return Vec::new();
        }
        let nodes = guest.nodes_of(&guest.cpus_of(&(0..guest.vcpus).collect()));
        let node = nodes.first().map_or_else(|| "N".to_owned(), |_| nodes.to_string());
        let help = format!("add <numatune><memory mode='strict' nodeset='{node}'/></numatune>");
        vec![Found::new(guest.place("numatune"), "the memory is bound to no node", help)]
    },
};

const MODE: Rule = Rule {
    id: "memory.mode",
    what: "Memory that may come from another node",
    why: "preferred takes other nodes when the one is short of pages, interleave takes all in turn, and restrictive leaves \
        the binding to the cgroup: the guest starts, and is slow.",
    source: TUNING,
    fatal: false,
    check: |guest| {
        let elements = all(guest.root, "numatune/memory").chain(all(guest.root, "numatune/memnode"));
        let lax = elements.filter(|element| element.attribute("mode").is_some_and(|mode| mode != "strict"));
        let found = lax.map(|element| {
            let message = format!(
                "mode {} does not hold the memory on its node",
                element.attribute("mode").unwrap_or("")
            );
            Found::new(attribute(element, "mode"), message, "write mode='strict'")
        });
        found.collect()
    },
};

const ABSENT_NODE: Rule = Rule {
    id: "memory.absent-node",
    what: "Memory bound to a node that does not exist or has no memory",
    why: "libvirt takes the definition; the guest then fails to start: NUMA node 2 is unavailable.",
    source: "seen with libvirt 9.0",
    fatal: true,
    check: |guest| {
        let numa = &guest.host.facts.numa;
        let there: CpuSet = numa.nodes.iter().filter(|node| node.memory.0 > 0).map(|node| node.id).collect();
        let elements = all(guest.root, "numatune/memory").chain(all(guest.root, "numatune/memnode"));
        let gone = elements.filter_map(|element| {
            let gone = crate::guest::reading::cpu_list(element.attribute("nodeset")?)?.difference(&there);
            (!gone.is_empty()).then(|| {
                let message = format!("node {gone} has no memory on this machine");
                let help = format!("nodes with memory are {there}");
                Found::new(attribute(element, "nodeset"), message, help)
            })
        });
        gone.collect()
    },
};

const REMOTE: Rule = Rule {
    id: "memory.remote",
    what: "Memory on another node than the CPUs",
    why: "Each access that misses the caches crosses the machine, and takes half as long again or more.",
    source: "Linux admin-guide/mm/numa_memory_policy.rst; libvirt, KVM Real Time Guest Config",
    fatal: false,
    check: |guest| {
        let mut found: Vec<Found> = Vec::new();
        for cell in &guest.cells {
            let Some((element, _, Some(bound))) = guest.binding(cell) else { continue };
            let nodes = guest.nodes_of(&guest.cpus_of(&cell.vcpus));
            let remote = bound.difference(&nodes);
            // A common binding of several cells is told by another rule.
            let common = cell.written && element.tag_name().name() == "memory" && guest.cells.len() > 1;
            if nodes.is_empty() || remote.is_empty() || common {
                continue;
            }
            let of = if cell.written { format!(" of cell {}", cell.id) } else { String::new() };
            let message = format!("the memory{of} may be on node {remote}, the vCPUs are on node {nodes}");
            let help = format!("write nodeset='{nodes}', or pin the vCPUs to CPUs of node {bound}");
            found.push(Found::new(attribute(element, "nodeset"), message, help));
        }
        found
    },
};

const CELL_UNBOUND: Rule = Rule {
    id: "memory.cell-unbound",
    what: "Several cells that are bound together",
    why: "<memory nodeset='0-1'> lets each cell take its memory from either node: the guest sees nodes where there are \
        none.",
    source: "seen with libvirt 9.0: both cells get host-nodes 0-1",
    fatal: false,
    check: |guest| {
        let written = guest.cells.iter().filter(|cell| cell.written);
        if !has_nodes(guest) || written.clone().count() < 2 {
            return Vec::new();
        }
        let common = |cell: &&Cell| match guest.binding(cell) {
            Some((element, _, nodes)) => {
                element.tag_name().name() == "memory" && nodes.is_some_and(|nodes| nodes.len() > 1)
            }
            None => false,
        };
        let found = written.filter(common).map(|cell| {
            let message = format!("cell {} has no host node of its own", cell.id);
            let help = format!("add <memnode cellid='{}' mode='strict' nodeset='N'/> to <numatune>", cell.id);
            Found::new(tag(cell.element), message, help)
        });
        found.collect()
    },
};

const CELL_UNKNOWN: Rule = Rule {
    id: "memory.cell-unknown",
    what: "A binding of a cell that the guest does not have",
    why: "libvirt refuses the definition.",
    source: "seen with libvirt 9.0: Argument 'cellid' in memnode element must correspond to existing guest's NUMA cell",
    fatal: true,
    check: |guest| {
        let known = |id: Option<&str>| {
            let id = id.and_then(|id| id.parse::<u32>().ok());
            guest.cells.iter().any(|cell| cell.written && Some(cell.id) == id)
        };
        let wrong = all(guest.root, "numatune/memnode").filter(|memnode| !known(memnode.attribute("cellid")));
        let help = "cells are the <cell> elements of <cpu><numa>, by their id";
        wrong.map(|memnode| Found::new(attribute(memnode, "cellid"), "there is no such cell", help)).collect()
    },
};

const NO_PAGES: Rule = Rule {
    id: "memory.no-hugepages",
    what: "Memory without huge pages",
    why: "Each page of 4 KiB has to be found in tables of two machines; the kernel merges, moves and compacts such pages \
        meanwhile.",
    source: BACKING,
    fatal: false,
    check: |guest| match guest.one("memoryBacking/hugepages") {
        Some(_) => Vec::new(),
        None => {
            let help = "add <hugepages><page size='1' unit='GiB'/></hugepages> to <memoryBacking>";
            vec![Found::new(guest.place("memoryBacking"), "the memory is not in huge pages", help)]
        }
    },
};

const DEFAULT_PAGE: Rule = Rule {
    id: "memory.default-page",
    what: "Huge pages of whatever size",
    why: "Without <page> it is the default size of the host's kernel, mostly 2 MiB, whatever was reserved for guests.",
    source: "seen with libvirt 9.0",
    fatal: false,
    check: |guest| match guest.one("memoryBacking/hugepages") {
        Some(pages) if all(pages, "page").next().is_none() => {
            let help = "name the size: <page size='1' unit='GiB'/>";
            vec![Found::new(whole(pages), "the size of the pages is left to the host", help)]
        }
        _ => Vec::new(),
    },
};

const PAGE_NODESET: Rule = Rule {
    id: "memory.page-nodeset",
    what: "Pages of a cell that the guest does not have",
    why: "The nodeset of <page> names cells of the guest, not nodes of the host. libvirt refuses the definition: \
        hugepages: node 1 not found. The guide of libvirt itself has it wrong.",
    source: "seen with libvirt 9.0; libvirt, KVM Real Time Guest Config",
    fatal: true,
    check: |guest| {
        let cells: CpuSet = guest
            .cells
            .iter()
            .map(|cell| cell.id)
            .filter(|id| *id <= crate::formats::cpuset::MAX_CPU)
            .collect();
        let wrong = guest.pages.iter().filter_map(|page| {
            let beyond = page.cells.as_ref()?.difference(&cells);
            (!beyond.is_empty()).then(|| {
                let message = format!("the guest has no cell {beyond}");
                let help = "take the nodeset out; the host node is in <numatune>";
                Found::new(attribute(page.element, "nodeset"), message, help)
            })
        });
        let general: Vec<_> = guest.pages.iter().filter(|page| page.cells.is_none()).collect();
        let two = general.get(1).map(|page| {
            let message = "a second size of pages for all cells";
            Found::new(
                tag(page.element),
                message,
                "libvirt takes one: keep one of them, or name the cells of each",
            )
        });
        wrong.chain(two).collect()
    },
};

const PAGE_SIZE: Rule = Rule {
    id: "memory.page-size",
    what: "A size of pages that the host does not have",
    why: "The guest does not start: Unable to find any usable hugetlbfs mount.",
    source: "seen with libvirt 9.0; Linux admin-guide/mm/hugetlbpage.rst",
    fatal: true,
    check: |guest| {
        let pools = guest.host.facts.numa.nodes.iter().flat_map(|node| &node.pools);
        let mut sizes: Vec<Size> = pools.map(|pool| pool.page).collect();
        sizes.sort();
        sizes.dedup();
        if sizes.is_empty() {
            return Vec::new();
        }
        let wrong = guest.pages.iter().filter(|page| !sizes.contains(&page.size) && page.size.0 > 4096);
        let found = wrong.map(|page| {
            let names: Vec<String> = sizes.iter().map(Size::to_string).collect();
            let message = format!("this machine has no pages of {}", page.size);
            let help = format!("sizes here are {}; `G` and `GiB` are 2^30, `GB` is 10^9", names.join(", "));
            Found::new(tag(page.element), message, help)
        });
        found.collect()
    },
};

const PARTIAL_PAGE: Rule = Rule {
    id: "memory.partial-page",
    what: "Memory that is no whole number of pages",
    why: "With <numatune> the guest does not start: cannot bind memory to host NUMA nodes. Without it the last page is \
        taken whole and used in part. It counts for each cell by itself.",
    source: "seen with libvirt 9.0 and QEMU 7.2",
    fatal: true,
    check: |guest| {
        let partial = guest.cells.iter().filter_map(|cell| {
            let page = guest.page_of(cell.id)?.size;
            (cell.memory.0 % page.0 != 0).then(|| {
                let message = format!("{} is no whole number of pages of {page}", cell.memory);
                let up = Size(cell.memory.0.div_ceil(page.0).saturating_mul(page.0));
                let at = if cell.written { attribute(cell.element, "memory") } else { whole(cell.element) };
                Found::new(at, message, format!("make it {up}"))
            })
        });
        partial.collect()
    },
};

const TOO_FEW_PAGES: Rule = Rule {
    id: "memory.too-few-pages",
    what: "More pages than the node has",
    why: "The guest does not start: unable to map backing store for guest RAM: Cannot allocate memory.",
    source: "seen with libvirt 9.0; Linux admin-guide/mm/hugetlbpage.rst",
    fatal: true,
    check: |guest| {
        let mut wanted: Vec<(u32, Size, u64, &Cell)> = Vec::new();
        for cell in &guest.cells {
            let (Some(page), Some((_, _, Some(nodes)))) = (guest.page_of(cell.id), guest.binding(cell))
            else {
                continue;
            };
            let (Some(node), 1) = (nodes.first(), nodes.len()) else { continue };
            let count = cell.memory.0.div_ceil(page.size.0);
            match wanted.iter_mut().find(|(of, size, ..)| (*of, *size) == (node, page.size)) {
                Some(known) => known.2 = known.2.saturating_add(count),
                None => wanted.push((node, page.size, count, cell)),
            }
        }
        let found = wanted.into_iter().filter_map(|(node, page, count, cell)| {
            let there = pages(guest, node, page).filter(|there| *there < count)?;
            let message = format!("node {node} has {there} pages of {page}, the guest needs {count}");
            let at = if cell.written { tag(cell.element) } else { whole(cell.element) };
            Some(Found::new(at, message, "reserve them: host.hugepages of a profile, or `rtkvm-tune apply`"))
        });
        found.collect()
    },
};

/// How many pages a node has, or will have.
fn pages(guest: &Subject, node: u32, page: Size) -> Option<u64> {
    match guest.host.placement {
        Some(placement) if placement.page == page => Some(placement.node(node)?.pages.count),
        _ => Some(guest.host.facts.numa.get(node)?.pool(page)?.pages),
    }
}

const ALLOCATION: Rule = Rule {
    id: "memory.allocation",
    what: "Huge pages from elsewhere or later",
    why: "libvirt refuses huge pages together with allocation on demand or an anonymous source.",
    source: "seen with libvirt 9.0: hugepages are not allowed with memory allocation ondemand",
    fatal: true,
    check: |guest| {
        if guest.one("memoryBacking/hugepages").is_none() {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (path, name, value) in
            [("memoryBacking/allocation", "mode", "ondemand"), ("memoryBacking/source", "type", "anonymous")]
        {
            let element = guest.one(path).filter(|element| element.attribute(name) == Some(value));
            if let Some(element) = element {
                let message = format!("`{value}` does not go with huge pages");
                found.push(Found::new(
                    tag(element),
                    message,
                    "take it out: huge pages are taken at the start",
                ));
            }
        }
        found
    },
};

const NOT_LOCKED: Rule = Rule {
    id: "memory.not-locked",
    what: "Memory that is not locked",
    why: "QEMU's own memory can be swapped out, and what touches it then waits for a disk.",
    source: BACKING,
    fatal: false,
    check: |guest| match guest.one("memoryBacking/locked") {
        Some(_) => Vec::new(),
        None => {
            let help = "add <locked/> to <memoryBacking>";
            vec![Found::new(guest.place("memoryBacking"), "the memory is not locked", help)]
        }
    },
};

const LOCKED_SMALL: Rule = Rule {
    id: "memory.locked-small",
    what: "Locked memory without huge pages",
    why: "The guest's whole memory is taken from the host at once, in small pages which the host's own programs need, \
        and never comes back: on a host that reserves its memory in huge pages it ends in the OOM killer.",
    source: BACKING,
    fatal: false,
    check: |guest| match (guest.one("memoryBacking/locked"), guest.one("memoryBacking/hugepages")) {
        (Some(locked), None) => {
            let help = "put the memory into huge pages";
            vec![Found::new(whole(locked), "small pages are locked", help)]
        }
        _ => Vec::new(),
    },
};

const HARD_LIMIT: Rule = Rule {
    id: "memory.hard-limit",
    what: "Locked memory with a hard limit",
    why: "The limit counts QEMU's own memory, which nobody can foretell, and not the huge pages: too low, the guest is \
        killed or fails to start. libvirt's manual asks for it beside <locked/> and advises against it elsewhere; without \
        it libvirt lifts the limit of locked memory.",
    source: "libvirt formatdomain (Memory Tuning, Memory Backing); KVM Real Time Guest Config",
    fatal: false,
    check: |guest| match (guest.one("memtune/hard_limit"), guest.one("memoryBacking/locked")) {
        (Some(limit), Some(_)) => {
            let message = format!("a hard limit of {} beside <locked/>", text(limit));
            vec![Found::new(whole(limit), message, "take <hard_limit> out")]
        }
        _ => Vec::new(),
    },
};

const MERGED: Rule = Rule {
    id: "memory.merged",
    what: "Memory that may be merged with others'",
    why: "Where the host runs KSM, pages of this guest are shared, and the guest waits for a copy when it writes.",
    source: BACKING,
    fatal: false,
    check: |guest| match guest.one("memoryBacking/nosharepages") {
        Some(_) => Vec::new(),
        None => {
            let help = "add <nosharepages/> to <memoryBacking>";
            vec![Found::new(guest.place("memoryBacking"), "the memory may be merged", help)]
        }
    },
};

const CURRENT: Rule = Rule {
    id: "memory.current",
    what: "Less memory in use than there is",
    why: "Only a balloon could give the rest back, and a real-time guest has none; huge pages stay taken.",
    source: "libvirt formatdomain (Memory Allocation)",
    fatal: false,
    check: |guest| {
        let amount = |element: super::subject::Element| {
            crate::guest::reading::bytes(text(element), element.attribute("unit"))
        };
        match (guest.one("currentMemory"), guest.one("memory")) {
            (Some(current), Some(memory)) if amount(current) < amount(memory) => {
                let message = "currentMemory is less than memory";
                vec![Found::new(whole(current), message, "make them equal, or take currentMemory out")]
            }
            _ => Vec::new(),
        }
    },
};
