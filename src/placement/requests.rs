//! What each guest asks for, and the nodes it could be on.

use super::guests::{impossible, with_isolated};
use super::{NodePlace, Placement};
use crate::facts::{Core, Facts};
use crate::profile::{Attachment, Diagnostic, Guest};

/// What a guest asks for.
#[derive(Clone)]
pub(super) struct Request<'p> {
    pub(super) guest: &'p Guest,
    /// Threads of each core that it uses.
    pub(super) threads: usize,
    /// Whole cores.
    pub(super) cores: usize,
    /// Pages.
    pub(super) pages: u64,
    /// The node of its device, where there is one.
    pub(super) local: Option<u32>,
    /// The nodes it could be on, together in equal parts: its options in order of preference.
    pub(super) options: Vec<Vec<u32>>,
}

/// More ways than these to choose the nodes of a guest that needs several are not looked at.
const MOST_OPTIONS: usize = 1000;

impl<'p> Request<'p> {
    /// `None`, with the reasons in `found`, for a guest that this machine cannot run however it is divided.
    pub(super) fn new(
        guest: &'p Guest,
        facts: &Facts,
        placement: &Placement,
        found: &mut Vec<Diagnostic>,
    ) -> Option<Request<'p>> {
        let refusals = impossible(guest, facts);
        if !refusals.is_empty() {
            found.extend(refusals);
            return None;
        }
        let threads = guest.threads_per_core.value as usize;
        let mut request = Request {
            guest,
            threads,
            cores: (guest.vcpus.value as usize).div_ceil(threads),
            pages: guest.memory.value.0 / placement.page.0,
            local: local(guest, facts),
            options: Vec::new(),
        };
        request.options = request.all_options(facts, placement);
        Some(request)
    }

    /// The same guest on other nodes.
    pub(super) fn on(&self, options: Vec<Vec<u32>>) -> Request<'p> {
        Request { options, ..self.clone() }
    }

    /// The nodes that the profile names; else each node alone; else, for a guest that none of them could hold if it
    /// had nothing else to do, as few as hold it.
    pub(super) fn all_options(&self, facts: &Facts, placement: &Placement) -> Vec<Vec<u32>> {
        if let Some(nodes) = &self.guest.numa_nodes {
            return vec![nodes.value.clone()];
        }
        let nodes: Vec<&NodePlace> = with_isolated(placement).collect();
        let alone: Vec<Vec<u32>> = nodes.iter().map(|node| vec![node.id]).collect();
        let holds =
            |option: &Vec<u32>| option.iter().all(|id| self.holds(*id, option.len(), facts, placement));
        if alone.iter().any(holds) {
            return alone;
        }
        let several = (2..=nodes.len()).filter(|count| self.divides(*count)).map(|count| {
            let holds = |id: &u32| self.holds(*id, count, facts, placement);
            let nodes: Vec<u32> = nodes.iter().map(|node| node.id).filter(holds).collect();
            self.spread(count, facts, &nodes)
        });
        several.into_iter().find(|options| !options.is_empty()).unwrap_or(alone)
    }

    /// Every choice of so many nodes, those near each other first.
    pub(super) fn spread(&self, count: usize, facts: &Facts, nodes: &[u32]) -> Vec<Vec<u32>> {
        let mut options = Vec::new();
        combinations(nodes, count, &mut Vec::new(), &mut options);
        options.sort_by_key(|option| distance(option, facts));
        options
    }

    /// Whether it divides into so many equal cells of whole cores and pages.
    pub(super) fn divides(&self, cells: usize) -> bool {
        self.cores.is_multiple_of(cells) && self.pages.is_multiple_of(cells as u64)
    }

    /// Whether a node with nothing else to do holds one of so many cells.
    fn holds(&self, id: u32, cells: usize, facts: &Facts, placement: &Placement) -> bool {
        placement.node(id).is_some_and(|node| {
            usable(facts, node, self.threads).count() >= self.cores / cells
                && node.pages.count >= self.pages / cells as u64
        })
    }

    /// The refusal of a guest whose nodes run no guests at all.
    pub(super) fn nowhere(&self, placement: &Placement) -> Option<Diagnostic> {
        let runs = |id: &u32| with_isolated(placement).any(|node| node.id == *id);
        if self.options.iter().any(|option| option.iter().all(runs)) {
            return None;
        }
        let nodes = self.guest.numa_nodes.as_ref();
        let span = nodes.map_or(&self.guest.name.span, |nodes| &nodes.span);
        let whom = format!("guest {} needs isolated CPUs", self.guest.name.value);
        let without = nodes.and_then(|nodes| nodes.value.iter().find(|id| !runs(id)));
        let message = match without {
            Some(id) => format!("{whom}, node {id} has none"),
            None => format!("{whom}, no node has any of {}", placement.isolated),
        };
        let with: Vec<String> = with_isolated(placement).map(|node| node.id.to_string()).collect();
        let label = match with.as_slice() {
            [] => String::new(),
            [one] => format!("only node {one} has"),
            many => format!("nodes {} have", many.join(", ")),
        };
        Some(Diagnostic::error(span.clone(), message).label(label))
    }
}

/// The isolated cores of a node that have the threads.
pub(super) fn usable<'f>(
    facts: &'f Facts,
    node: &NodePlace,
    threads: usize,
) -> impl Iterator<Item = &'f Core> {
    let fits = move |core: &&Core| core.cpus.is_subset(&node.isolated) && core.cpus.len() >= threads;
    facts.cpus.cores.iter().filter(fits)
}

/// The node of the first device that is on one: what is passed through, then the interfaces it is connected to.
fn local(guest: &Guest, facts: &Facts) -> Option<u32> {
    let devices = guest.devices().filter_map(|device| facts.devices.address(device).ok());
    let below = guest.networks.iter().filter_map(|network| match &network.attachment {
        Attachment::Macvtap(name) => facts.devices.of_interface(name),
        _ => None,
    });
    devices.chain(below).find_map(|address| facts.devices.node(address))
}

/// Every choice of `count` of `nodes`, in their order.
fn combinations(nodes: &[u32], count: usize, chosen: &mut Vec<u32>, found: &mut Vec<Vec<u32>>) {
    if found.len() >= MOST_OPTIONS {
        return;
    }
    if count == 0 {
        return found.push(chosen.clone());
    }
    for (at, node) in nodes.iter().enumerate() {
        if nodes.len() - at < count {
            return;
        }
        chosen.push(*node);
        combinations(&nodes[at + 1..], count - 1, chosen, found);
        chosen.pop();
    }
}

/// How far nodes are from each other, all together.
fn distance(nodes: &[u32], facts: &Facts) -> u64 {
    let between = |from: u32, to: u32| {
        let distances = facts.numa.get(from).map(|node| node.distances.as_slice()).unwrap_or_default();
        distances.iter().find(|(id, _)| *id == to).map_or(0, |(_, distance)| u64::from(*distance))
    };
    nodes.iter().map(|from| nodes.iter().map(|to| between(*from, *to)).sum::<u64>()).sum()
}
