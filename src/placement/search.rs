//! Places guests together: the first placement in order of preference, if there is one at all.
//!
//! What a node can still give is counted in whole cores and pages, and which core a guest gets of a node changes
//! neither number: guests that need both threads of a core come before the others, which take any. So a placement
//! exists if and only if the guests can be given nodes by these numbers, and where that failed once it need not be
//! tried again.

use super::Placement;
use super::guests::Shared;
use super::requests::{Request, usable};
use crate::facts::{Core, Facts};
use std::collections::HashSet;

/// What is free.
#[derive(Clone)]
pub(super) struct State<'f> {
    pub(super) nodes: Vec<FreeNode<'f>>,
}

/// What is free on a node.
#[derive(Clone)]
pub(super) struct FreeNode<'f> {
    pub(super) id: u32,
    /// Isolated cores, by their first CPU.
    pub(super) cores: Vec<&'f Core>,
    pub(super) pages: u64,
}

/// Where a guest was placed.
#[derive(Clone)]
pub(super) struct Found<'f> {
    pub(super) guest: String,
    pub(super) cells: Vec<FoundCell<'f>>,
}

impl Found<'_> {
    /// The host's nodes of its cells, in their order.
    pub(super) fn nodes(&self) -> Vec<u32> {
        self.cells.iter().map(|cell| cell.node).collect()
    }

    /// The line of a profile that puts it there.
    pub(super) fn key(&self) -> String {
        let nodes: Vec<String> = self.nodes().iter().map(u32::to_string).collect();
        match nodes.as_slice() {
            [one] => format!("`numa-node = {one}`"),
            many => format!("`numa-nodes = [{}]`", many.join(", ")),
        }
    }
}

/// Its part on one node.
#[derive(Clone)]
pub(super) struct FoundCell<'f> {
    pub(super) node: u32,
    pub(super) cores: Vec<&'f Core>,
    /// The CPU of each vCPU.
    pub(super) cpus: Vec<u32>,
    pub(super) pages: u64,
}

/// What decides whether guests still fit: the free cores of each node, those with several threads, and the pages.
type Numbers = Vec<(usize, usize, u64)>;

/// Why there is no placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stuck {
    /// There is none.
    None,
    /// None was found in the steps that a plan may take.
    GaveUp,
}

/// The most guests that a search places, counted again whenever one is placed anew: a second or two.
pub(super) const MOST_STEPS: usize = 20_000;

/// The most of a search that only looks for what would help.
pub(super) const FEW_STEPS: usize = 500;

impl<'f> State<'f> {
    /// A machine without guests.
    pub(super) fn new(facts: &'f Facts, placement: &Placement) -> State<'f> {
        let free = |node: &super::NodePlace| FreeNode {
            id: node.id,
            cores: usable(facts, node, 1).collect(),
            pages: node.pages.count,
        };
        State { nodes: placement.nodes.iter().map(free).collect() }
    }

    /// The node with this id.
    pub(super) fn node(&self, id: u32) -> Option<&FreeNode<'f>> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// What is left beside a guest.
    pub(super) fn beside(&self, found: &Found) -> State<'f> {
        let mut state = self.clone();
        for cell in &found.cells {
            for node in state.nodes.iter_mut().filter(|node| node.id == cell.node) {
                node.cores.retain(|core| cell.cores.iter().all(|c| c.cpus.is_disjoint(&core.cpus)));
                node.pages = node.pages.saturating_sub(cell.pages);
            }
        }
        state
    }

    /// The best place for a guest on each of its options, the best first.
    pub(super) fn places(&self, request: &Request) -> Vec<Found<'f>> {
        let mut places: Vec<_> =
            request.options.iter().filter_map(|option| self.place_on(request, option)).collect();
        // A stable sort: the first options come first of equal ones.
        places.sort_by_key(|(key, _)| *key);
        places.into_iter().map(|(_, found)| found).collect()
    }

    /// How a guest fits on nodes together: near its device, then in what shares the most, then leaving the least.
    fn place_on(&self, request: &Request, nodes: &[u32]) -> Option<((bool, Shared, usize), Found<'f>)> {
        let (cores, pages) = (request.cores / nodes.len(), request.pages / nodes.len() as u64);
        let vcpus = request.guest.vcpus.value as usize / nodes.len();
        let mut shared = Shared::Cache;
        let mut left = 0;
        let mut cells = Vec::new();
        for id in nodes {
            let node = self.node(*id)?;
            let usable: Vec<&Core> =
                node.cores.iter().copied().filter(|core| core.cpus.len() >= request.threads).collect();
            if usable.len() < cores || node.pages < pages {
                return None;
            }
            let choice = choose(&usable, cores);
            (shared, left) = (shared.max(choice.shared), left + choice.left);
            let threads = choice.cores.iter().flat_map(|core| core.cpus.iter().take(request.threads));
            let cpus = threads.take(vcpus).collect();
            cells.push(FoundCell { node: *id, cpus, cores: choice.cores, pages });
        }
        let far = request.local.is_some_and(|local| !nodes.contains(&local));
        Some(((far, shared, left), Found { guest: request.guest.name.value.clone(), cells }))
    }

    fn numbers(&self) -> Numbers {
        let of = |node: &FreeNode| {
            let both = node.cores.iter().filter(|core| core.cpus.len() > 1).count();
            (node.cores.len(), both, node.pages)
        };
        self.nodes.iter().map(of).collect()
    }
}

/// Places guests, those near their devices if they can all be.
///
/// # Errors
/// There is no placement, or none was found in so many steps.
pub(super) fn search<'f>(
    requests: &[&Request],
    state: &State<'f>,
    steps: usize,
) -> Result<Vec<Found<'f>>, Stuck> {
    let nearest: Vec<Request> = requests.iter().map(|request| near(request)).collect();
    if requests.iter().any(|request| request.local.is_some())
        && let Ok(found) = in_order(&nearest.iter().collect::<Vec<_>>(), state, steps)
    {
        return Ok(found);
    }
    in_order(requests, state, steps)
}

/// The same guest on the options with the node of its device alone, if there are such.
fn near<'p>(request: &Request<'p>) -> Request<'p> {
    let local = |option: &&Vec<u32>| request.local.is_some_and(|local| option.contains(&local));
    let options: Vec<Vec<u32>> = request.options.iter().filter(local).cloned().collect();
    if options.is_empty() { request.clone() } else { request.on(options) }
}

/// Places guests in an order that is theirs, not the profile's: those with the fewest choices first, then the
/// largest.
fn in_order<'f>(requests: &[&Request], state: &State<'f>, steps: usize) -> Result<Vec<Found<'f>>, Stuck> {
    let mut order: Vec<&Request> = requests.to_vec();
    order.sort_by_key(|request| {
        let size = (std::cmp::Reverse(request.cores), std::cmp::Reverse(request.pages));
        (std::cmp::Reverse(request.threads), request.options.len(), size, request.guest.name.value.clone())
    });
    let mut search = Search { order, failed: HashSet::new(), steps };
    let mut found = Vec::new();
    search.rest(0, state, &mut found)?;
    Ok(found)
}

struct Search<'r, 'p> {
    order: Vec<&'r Request<'p>>,
    /// Numbers from which the guests from the first number on do not fit.
    failed: HashSet<(usize, Numbers)>,
    /// How many guests it may still place.
    steps: usize,
}

impl Search<'_, '_> {
    /// Places the guests from `at` on.
    fn rest<'f>(&mut self, at: usize, state: &State<'f>, found: &mut Vec<Found<'f>>) -> Result<(), Stuck> {
        let Some(request) = self.order.get(at).copied() else { return Ok(()) };
        let key = (at, state.numbers());
        if self.failed.contains(&key) || self.lacks(at, state) {
            return Err(Stuck::None);
        }
        for place in state.places(request) {
            self.steps = self.steps.checked_sub(1).ok_or(Stuck::GaveUp)?;
            found.push(place.clone());
            match self.rest(at + 1, &state.beside(&place), found) {
                Err(Stuck::None) => found.pop(),
                done => return done,
            };
        }
        self.failed.insert(key);
        Err(Stuck::None)
    }

    /// Whether the guests from `at` on need more than all nodes that they could be on have.
    fn lacks(&self, at: usize, state: &State) -> bool {
        let rest = &self.order[at..];
        let reachable =
            |node: &&FreeNode| rest.iter().any(|r| r.options.iter().flatten().any(|id| *id == node.id));
        let free = state.nodes.iter().filter(reachable);
        let (cores, pages) = free.fold((0, 0), |(c, p), node| (c + node.cores.len(), p + node.pages));
        rest.iter().map(|r| r.cores).sum::<usize>() > cores
            || rest.iter().map(|r| r.pages).sum::<u64>() > pages
    }
}

/// Cores for one cell, and how well they fit.
struct Choice<'f> {
    shared: Shared,
    left: usize,
    cores: Vec<&'f Core>,
}

/// Cores that share the most; of equal ones those that leave the least behind; of these the lowest, from the fewest
/// caches. `free` has enough.
fn choose<'f>(free: &[&'f Core], count: usize) -> Choice<'f> {
    let by_cache = |cores: &[&'f Core]| groups(cores, |core| core.llc.first());
    let levels = [
        (Shared::Cache, by_cache(free)),
        (Shared::Package, groups(free, |core| core.package)),
        (Shared::Node, vec![free.to_vec()]),
    ];
    let fitting = levels.into_iter().find_map(|(shared, groups)| {
        let groups = groups.into_iter().filter(|group| group.len() >= count);
        Some((shared, groups.min_by_key(Vec::len)?))
    });
    let (shared, group) = fitting.expect("enough are free");
    let mut caches = by_cache(&group);
    caches.sort_by_key(|cache| std::cmp::Reverse(cache.len()));
    let mut cores: Vec<&Core> = caches.into_iter().flatten().take(count).collect();
    cores.sort_by_key(|core| core.cpus.first());
    Choice { shared, left: group.len() - count, cores }
}

/// The cores by what they share, each group and the groups in ascending order.
fn groups<'f, K: PartialEq>(cores: &[&'f Core], key: impl Fn(&Core) -> K) -> Vec<Vec<&'f Core>> {
    let mut groups: Vec<(K, Vec<&Core>)> = Vec::new();
    for core in cores {
        match groups.iter_mut().find(|(k, _)| *k == key(core)) {
            Some((_, group)) => group.push(core),
            None => groups.push((key(core), vec![core])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
