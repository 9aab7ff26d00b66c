//! Which cores and pages each guest gets.

use super::{NodePlace, Placement};
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
            Err(refusal) => found.push(refusal),
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

fn place_guest(
    guest: &Guest,
    facts: &Facts,
    placement: &Placement,
    placed: &BTreeMap<usize, GuestPlace>,
) -> Result<GuestPlace, Diagnostic> {
    let threads = guest.threads_per_core.value as usize;
    if threads > facts.cpus.threads_per_core() {
        let message = format!("guest {} wants {threads} threads per core", guest.name.value);
        let label = format!("cores of this machine have {}", facts.cpus.threads_per_core());
        return Err(Diagnostic::error(guest.threads_per_core.span.clone(), message).label(label));
    }
    let nodes: Vec<&NodePlace> = match &guest.numa_node {
        None => placement.nodes.iter().filter(|node| !node.isolated.is_empty()).collect(),
        Some(wanted) => match placement.node(wanted.value) {
            None => return Err(super::memory::no_node(wanted.value, wanted.span.clone(), facts)),
            Some(node) if node.isolated.is_empty() => {
                let message = format!(
                    "guest {} is to run on node {}, which has no isolated CPU",
                    guest.name.value, node.id
                );
                return Err(Diagnostic::error(wanted.span.clone(), message));
            }
            Some(node) => vec![node],
        },
    };
    let request = Request {
        name: &guest.name.value,
        cores: (guest.vcpus.value as usize).div_ceil(threads),
        threads,
        pages: guest.memory.value.0 / placement.page.0,
    };
    let choices = nodes.iter().map(|node| request.on_node(node, facts, placement, placed));
    let (choices, refusals): (Vec<_>, Vec<_>) = choices.partition(Result::is_ok);
    let best = choices.into_iter().flatten().min_by_key(|c| (c.shared, c.left_over, c.node));
    let Some(choice) = best else {
        let reasons: Vec<String> = refusals.into_iter().filter_map(Result::err).collect();
        let span = guest.numa_node.as_ref().map_or(&guest.name.span, |node| &node.span);
        return Err(Diagnostic::error(span.clone(), reasons.join("; ")));
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
struct Request<'a> {
    name: &'a str,
    cores: usize,
    threads: usize,
    pages: u64,
}

impl Request<'_> {
    /// The best cores on `node`, or why there are none, in numbers.
    fn on_node<'f>(
        &self,
        node: &NodePlace,
        facts: &'f Facts,
        placement: &Placement,
        placed: &BTreeMap<usize, GuestPlace>,
    ) -> Result<Choice<'f>, String> {
        let here: Vec<&GuestPlace> = placed.values().filter(|guest| guest.node == node.id).collect();
        let usable = |core: &&Core| core.cpus.is_subset(&node.isolated) && core.cpus.len() >= self.threads;
        let all: Vec<&Core> = facts.cpus.cores.iter().filter(usable).collect();
        let taken = |core: &&&Core| here.iter().all(|guest| guest.cores.is_disjoint(&core.cpus));
        let free: Vec<&Core> = all.iter().filter(taken).copied().collect();
        // On a machine without SMT a core is what everybody calls a CPU.
        let noun = if facts.cpus.threads_per_core() > 1 { "cores" } else { "CPUs" };
        let has = |what: &dyn Fn(&GuestPlace) -> String| {
            let list: Vec<_> =
                here.iter().map(|guest| format!("{} has {}", guest.name, what(guest))).collect();
            if list.is_empty() { String::new() } else { format!(": {}", list.join(", ")) }
        };
        let (name, id) = (self.name, node.id);
        if all.len() < self.cores {
            return Err(format!(
                "guest {name} needs {} {noun} on node {id}, which has {} isolated",
                self.cores,
                all.len()
            ));
        }
        if free.len() < self.cores {
            let who = has(&|guest| guest.cores.to_string());
            return Err(format!(
                "guest {name} needs {} {noun} on node {id}, {} are left{who}",
                self.cores,
                free.len()
            ));
        }
        let (page, count) = (placement.page, node.pages.count);
        let left = count.saturating_sub(node.pages.guests);
        if count < self.pages {
            return Err(format!(
                "guest {name} needs {} pages of {page} on node {id}, which has {count}",
                self.pages
            ));
        }
        if left < self.pages {
            let who = has(&|guest| guest.pages.to_string());
            return Err(format!(
                "guest {name} needs {} pages of {page} on node {id}, {left} are left{who}",
                self.pages
            ));
        }
        Ok(self.choose(id, &free))
    }

    /// Cores that share the most; of equal ones those that leave the least behind; of these the lowest.
    fn choose<'f>(&self, node: u32, free: &[&'f Core]) -> Choice<'f> {
        let by_cache = groups(free, |core| core.llc.first());
        let by_package = groups(free, |core| core.package);
        for (shared, groups) in [(Shared::Cache, &by_cache), (Shared::Package, &by_package)] {
            let fitting = groups.iter().filter(|group| group.len() >= self.cores);
            if let Some(group) = fitting.min_by_key(|group| group.len()) {
                let left_over = group.len() - self.cores;
                return Choice { node, shared, left_over, cores: group[..self.cores].to_vec() };
            }
        }
        // From the fewest caches that will do.
        let mut groups = by_cache;
        groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
        let mut cores: Vec<&Core> = groups.into_iter().flatten().take(self.cores).collect();
        cores.sort_by_key(|core| core.cpus.first());
        Choice { node, shared: Shared::Node, left_over: free.len() - self.cores, cores }
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
