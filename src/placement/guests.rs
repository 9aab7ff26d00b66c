//! Which cores and pages each guest gets.

use super::{NodePlace, Placement, counted, memory};
use crate::facts::{Core, Facts};
use crate::formats::{CpuSet, Size};
use crate::profile::{Diagnostic, Guest, Profile};
use serde::Serialize;
use std::collections::BTreeMap;

/// Where one guest runs.
#[derive(Debug, Clone, Serialize)]
pub struct GuestPlace {
    /// Its name.
    pub name: String,
    /// The node that its CPUs and memory are on.
    pub node: u32,
    /// The CPU of each vCPU, in order; threads of one core are neighbours.
    pub cpus: Vec<u32>,
    /// All CPUs of its cores: with one thread per core their siblings stay idle.
    pub cores: CpuSet,
    /// What all its cores share.
    pub shared: Shared,
    /// The housekeeping CPUs of its emulator and I/O threads.
    pub emulator: CpuSet,
    /// Its memory in bytes.
    pub memory: Size,
    /// Its memory in pages of [`Placement::page`].
    pub pages: u64,
}

/// The closest thing that all cores of a guest share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shared {
    /// One last-level cache.
    Cache,
    /// One physical package.
    Package,
    /// The memory node alone.
    Node,
}

impl Shared {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Shared::Cache => "one last-level cache",
            Shared::Package => "one socket",
            Shared::Node => "several sockets of one node",
        }
    }
}

/// Cores for one guest on one node, and how well they fit: closer sharing, then fewer cores left over.
struct Choice<'f> {
    node: u32,
    shared: Shared,
    left_over: usize,
    cores: Vec<&'f Core>,
}

/// Places every guest, those that name their node first.
pub(super) fn place(
    profile: &Profile,
    facts: &Facts,
    placement: &mut Placement,
    found: &mut Vec<Diagnostic>,
) {
    let mut order: Vec<usize> = (0..profile.guests.len()).collect();
    order.sort_by_key(|at| profile.guests[*at].numa_node.is_none());
    let mut placed: BTreeMap<usize, GuestPlace> = BTreeMap::new();
    for at in order {
        let guest = &profile.guests[at];
        match place_guest(guest, facts, placement, &placed) {
            Err(refusals) => found.extend(refusals),
            Ok(place) => {
                if placement.node(place.node).is_some_and(|node| node.housekeeping.is_empty()) {
                    let message = format!(
                        "node {} has no housekeeping CPU for the emulator threads of guest {}",
                        place.node, guest.name.value
                    );
                    let help = "they share the housekeeping CPUs of other nodes; give this node one to keep them near";
                    found.push(Diagnostic::warning(guest.name.span.clone(), message).help(help));
                }
                let node = placement.nodes.iter_mut().find(|node| node.id == place.node);
                node.expect("placed on a node").pages.guests += place.pages;
                placed.insert(at, place);
            }
        }
    }
    placement.guests = placed.into_values().collect();
}

/// Why a guest can run on no division of this machine.
pub(super) fn impossible(guest: &Guest, facts: &Facts) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let threads = &guest.threads_per_core;
    let most = facts.cpus.threads_per_core();
    if threads.value as usize > most {
        let message = format!("guest {} wants {} threads per core", guest.name.value, threads.value);
        let label = format!("cores here have {} online", counted(most as u64, "thread"));
        found.push(
            Diagnostic::error(threads.span.clone(), message)
                .label(label)
                .help("leave it out, or turn SMT on"),
        );
    }
    let unknown = guest.numa_node.iter().filter(|node| facts.numa.get(node.value).is_none());
    found.extend(unknown.map(|node| memory::no_node(node.value, node.span.clone(), facts)));
    found
}

fn place_guest(
    guest: &Guest,
    facts: &Facts,
    placement: &Placement,
    placed: &BTreeMap<usize, GuestPlace>,
) -> Result<GuestPlace, Vec<Diagnostic>> {
    let refusals = impossible(guest, facts);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let threads = guest.threads_per_core.value as usize;
    let wanted = guest.numa_node.as_ref().map(|node| node.value);
    let nodes = placement.nodes.iter().filter(|node| !node.isolated.is_empty());
    let with_isolated: Vec<_> = nodes.clone().map(|node| node.id.to_string()).collect();
    let nodes: Vec<&NodePlace> = nodes.filter(|node| wanted.is_none_or(|id| node.id == id)).collect();
    let span = guest.numa_node.as_ref().map_or(&guest.name.span, |node| &node.span);
    if nodes.is_empty() {
        let whom = format!("guest {} needs isolated CPUs", guest.name.value);
        let message = match wanted {
            Some(id) => format!("{whom}, node {id} has none"),
            None => format!("{whom}, no node has any of {}", placement.isolated),
        };
        let label = match with_isolated.as_slice() {
            [] => String::new(),
            [one] => format!("only node {one} has"),
            many => format!("nodes {} have", many.join(", ")),
        };
        return Err(vec![Diagnostic::error(span.clone(), message).label(label)]);
    }
    let request = Request {
        cores: (guest.vcpus.value as usize).div_ceil(threads),
        threads,
        pages: guest.memory.value.0 / placement.page.0,
    };
    let choices = nodes.iter().map(|node| request.on_node(node, facts, placement.page, placed));
    let (choices, refusals): (Vec<_>, Vec<_>) = choices.partition(Result::is_ok);
    let best = choices.into_iter().flatten().min_by_key(|c| (c.shared, c.left_over, c.node));
    let Some(choice) = best else {
        let reasons: Vec<String> = refusals.into_iter().filter_map(Result::err).collect();
        let message = format!("guest {} needs {}", guest.name.value, reasons.join("; or "));
        let error = Diagnostic::error(span.clone(), message);
        let moved = !placed.is_empty() && wanted.is_none();
        return Err(vec![match moved {
            true => error.help("naming the node of each guest with `numa-node` may fit them all"),
            false => error,
        }]);
    };
    let local = placement.node(choice.node).map(|node| node.housekeeping.clone()).unwrap_or_default();
    let vcpus = choice.cores.iter().flat_map(|core| core.cpus.iter().take(threads));
    Ok(GuestPlace {
        name: guest.name.value.clone(),
        node: choice.node,
        cpus: vcpus.take(guest.vcpus.value as usize).collect(),
        cores: choice.cores.iter().fold(CpuSet::new(), |all, core| all.union(&core.cpus)),
        shared: choice.shared,
        emulator: if local.is_empty() { placement.housekeeping.clone() } else { local },
        memory: guest.memory.value,
        pages: request.pages,
    })
}

/// What a guest needs of a node.
struct Request {
    cores: usize,
    threads: usize,
    pages: u64,
}

impl Request {
    /// The best cores on `node`, or why there are none, in numbers.
    fn on_node<'f>(
        &self,
        node: &NodePlace,
        facts: &'f Facts,
        page: Size,
        placed: &BTreeMap<usize, GuestPlace>,
    ) -> Result<Choice<'f>, String> {
        let here: Vec<&GuestPlace> = placed.values().filter(|guest| guest.node == node.id).collect();
        let usable = |core: &&Core| core.cpus.is_subset(&node.isolated) && core.cpus.len() >= self.threads;
        let all: Vec<&Core> = facts.cpus.cores.iter().filter(usable).collect();
        let untaken = |core: &&&Core| here.iter().all(|guest| guest.cores.is_disjoint(&core.cpus));
        let free: Vec<&Core> = all.iter().filter(untaken).copied().collect();
        let who = |has: &dyn Fn(&GuestPlace) -> String| {
            let list: Vec<_> =
                here.iter().map(|guest| format!("{} has {}", guest.name, has(guest))).collect();
            list.join(", ")
        };
        // On a machine without SMT a core is what everybody calls a CPU.
        let noun = if facts.cpus.threads_per_core() > 1 { "whole core" } else { "CPU" };
        let cores = counted(self.cores as u64, noun);
        let cores = if self.threads > 1 { format!("{cores} of {} threads", self.threads) } else { cores };
        let mut short = Vec::new();
        let id = node.id;
        if all.len() < self.cores {
            short.push(format!("{cores} on node {id}, which has {} isolated", all.len()));
        } else if free.len() < self.cores {
            let who = who(&|guest| guest.cores.to_string());
            short.push(format!("{cores} on node {id}, {}: {who}", left(free.len() as u64)));
        }
        let pages = format!("{} of {page}", counted(self.pages, "page"));
        let unused = node.pages.count.saturating_sub(node.pages.guests);
        if node.pages.count < self.pages {
            short.push(format!(
                "{pages} on node {id}, which gets {} of its {}",
                node.pages.count,
                node.pages.memory.gib()
            ));
        } else if unused < self.pages {
            let who = who(&|guest| guest.pages.to_string());
            short.push(format!("{pages} on node {id}, {}: {who}", left(unused)));
        }
        if short.is_empty() { Ok(self.choose(node.id, &free)) } else { Err(short.join("; and ")) }
    }

    /// Cores that share the most; of equal ones those that leave the least behind; of these the lowest, from
    /// the fewest caches. `free` has enough.
    fn choose<'f>(&self, node: u32, free: &[&'f Core]) -> Choice<'f> {
        let by_cache = |cores: &[&'f Core]| groups(cores, |core| core.llc.first());
        let levels = [
            (Shared::Cache, by_cache(free)),
            (Shared::Package, groups(free, |core| core.package)),
            (Shared::Node, vec![free.to_vec()]),
        ];
        let fitting = levels.into_iter().find_map(|(shared, groups)| {
            let groups = groups.into_iter().filter(|group| group.len() >= self.cores);
            Some((shared, groups.min_by_key(Vec::len)?))
        });
        let (shared, group) = fitting.expect("enough are free");
        let mut caches = by_cache(&group);
        caches.sort_by_key(|cache| std::cmp::Reverse(cache.len()));
        let mut cores: Vec<&Core> = caches.into_iter().flatten().take(self.cores).collect();
        cores.sort_by_key(|core| core.cpus.first());
        Choice { node, shared, left_over: group.len() - self.cores, cores }
    }
}

fn left(count: u64) -> String {
    match count {
        0 => "none is left".into(),
        1 => "1 is left".into(),
        _ => format!("{count} are left"),
    }
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
