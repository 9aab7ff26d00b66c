//! Which cores and pages each guest gets.

use super::refusals::Attempt;
use super::requests::Request;
use super::search::{Found, MOST_STEPS, State, search};
use super::taken::{self, Taken};
use super::{NodePlace, Placement, budget, memory};
use crate::facts::{Core, Facts};
use crate::formats::{CpuSet, PciAddress, Size};
use crate::profile::{Diagnostic, Guest, Profile};
use serde::Serialize;

/// Where one guest runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GuestPlace {
    /// Its name.
    pub name: String,
    /// The node that its CPUs and memory are on; of several the first.
    pub node: u32,
    /// Its part on each node, by node: one, or several with equal parts of vCPUs and memory.
    pub cells: Vec<CellPlace>,
    /// The CPU of each vCPU, in order, cell by cell; threads of one core are neighbours.
    pub cpus: Vec<u32>,
    /// All CPUs of its cores: with one thread per core their siblings stay idle.
    pub cores: CpuSet,
    /// What all its cores share.
    pub shared: Shared,
    /// The housekeeping CPUs of its emulator threads: those of its nodes.
    pub emulator: CpuSet,
    /// The housekeeping CPUs of its I/O threads: those of the node that its device is on, or of its first.
    pub io: CpuSet,
    /// Its memory in bytes.
    pub memory: Size,
    /// Its memory in pages of [`Placement::page`].
    pub pages: u64,
    /// The devices of the host that it gets, virtual functions of its networks first.
    pub devices: Vec<PciAddress>,
}

impl GuestPlace {
    /// `node 1` or `nodes 0, 1`.
    pub fn nodes(&self) -> String {
        let ids: Vec<String> = self.cells.iter().map(|cell| cell.node.to_string()).collect();
        format!("node{} {}", if ids.len() == 1 { "" } else { "s" }, ids.join(", "))
    }
}

/// The part of a guest on one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellPlace {
    /// The node.
    pub node: u32,
    /// How many of the vCPUs.
    pub vcpus: u32,
    /// How many of the pages.
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
    /// Nothing: they are on several nodes.
    Nothing,
}

impl Shared {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Shared::Cache => "one last-level cache",
            Shared::Package => "one socket",
            Shared::Node => "several sockets of one node",
            Shared::Nothing => "several nodes",
        }
    }
}

/// Places every guest: first those that libvirt has already, where they are, then the others around them.
pub(super) fn place(
    profile: &Profile,
    facts: &Facts,
    placement: &mut Placement,
    found: &mut Vec<Diagnostic>,
) {
    let before = found.len();
    let requests: Vec<Request> =
        profile.guests.iter().filter_map(|guest| Request::new(guest, facts, placement, found)).collect();
    let machine = State::new(facts, placement);
    // What no node can ever give is told beside what the others lack.
    let (possible, impossible): (Vec<_>, Vec<_>) =
        requests.iter().partition(|request| request.nowhere(placement).is_none());
    found.extend(impossible.iter().filter_map(|request| request.nowhere(placement)));
    let taken = Taken::new(profile, facts, placement, found);
    let (state, kept) =
        taken::keep(&profile.host.libvirt, &possible, facts, placement, machine.without(&taken));
    let open: Vec<&Request> = possible
        .iter()
        .copied()
        .filter(|request| kept.iter().all(|found: &Found| found.guest != request.guest.name.value))
        .collect();
    match search(&open, &state, MOST_STEPS) {
        Ok(placed) => {
            if found.len() > before && super::has_errors(&found[before..]) {
                return;
            }
            for request in &requests {
                let name = &request.guest.name.value;
                let place = placed.iter().chain(&kept).find(|place| place.guest == *name);
                let place = finished(request, place.expect("all are placed"), facts, placement);
                found.extend(budget::warnings_of(request, &place, facts, placement));
                placement.guests.push(place);
            }
            placement.others = taken.guests;
            for node in &mut placement.nodes {
                node.pages.guests = pages_on(&placement.guests, node.id);
                node.pages.others_guests = placement.others.iter().map(|other| other.pages_on(node.id)).sum();
            }
            found.extend(budget::warnings(profile, placement));
        }
        Err(stuck) => {
            let attempt = Attempt {
                facts,
                placement,
                open: &open,
                kept: &kept,
                all: &possible,
                machine: &machine,
                state: &state,
                taken: &taken,
            };
            found.extend(attempt.explain(stuck));
        }
    }
}

/// The pages of one node that guests have.
fn pages_on(guests: &[GuestPlace], node: u32) -> u64 {
    guests.iter().flat_map(|guest| &guest.cells).filter(|cell| cell.node == node).map(|cell| cell.pages).sum()
}

/// Why a guest can run on no division of this machine.
pub(super) fn impossible(guest: &Guest, facts: &Facts) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let threads = &guest.threads_per_core;
    let most = facts.cpus.threads_per_core();
    if threads.value as usize > most {
        let message = format!("guest {} wants {} threads per core", guest.name.value, threads.value);
        let label = format!("cores here have {} online", super::counted(most as u64, "thread"));
        found.push(
            Diagnostic::error(threads.span.clone(), message)
                .label(label)
                .help("leave it out, or turn SMT on"),
        );
    }
    if let Some(nodes) = &guest.numa_nodes {
        let unknown = nodes.value.iter().filter(|id| facts.numa.get(**id).is_none());
        found.extend(unknown.map(|id| memory::no_node(*id, nodes.span.clone(), facts)));
    }
    for device in guest.devices() {
        if let Err(why) = facts.devices.address(device) {
            let message = format!("guest {} cannot have {}", guest.name.value, device.value);
            found.push(Diagnostic::error(device.span.clone(), message).label(why));
        }
    }
    found
}

/// A place with everything that follows from its cores.
fn finished(request: &Request, found: &Found, facts: &Facts, placement: &Placement) -> GuestPlace {
    let guest = request.guest;
    let nodes: Vec<u32> = found.cells.iter().map(|cell| cell.node).collect();
    let housekeeping = |node: u32| placement.node(node).map(|node| node.housekeeping.clone());
    let or_all = |local: CpuSet| if local.is_empty() { placement.housekeeping.clone() } else { local };
    let local = nodes.iter().filter_map(|node| housekeeping(*node));
    let io = request.local.filter(|node| nodes.contains(node)).unwrap_or(nodes[0]);
    let emulator = or_all(local.fold(CpuSet::new(), |all, cpus| all.union(&cpus)));
    let cores: Vec<&Core> = found.cells.iter().flat_map(|cell| &cell.cores).copied().collect();
    let cells = found.cells.len() as u32;
    GuestPlace {
        name: guest.name.value.clone(),
        node: nodes[0],
        cells: nodes
            .iter()
            .map(|node| CellPlace {
                node: *node,
                vcpus: guest.vcpus.value / cells,
                pages: request.pages / u64::from(cells),
            })
            .collect(),
        cpus: found.cells.iter().flat_map(|cell| cell.cpus.iter().copied()).collect(),
        shared: shared(&cores, cells),
        cores: cores.iter().fold(CpuSet::new(), |all, core| all.union(&core.cpus)),
        // Never beyond those of the emulator: its node may have none.
        io: housekeeping(io).filter(|cpus| !cpus.is_empty()).unwrap_or_else(|| emulator.clone()),
        emulator,
        memory: guest.memory.value,
        pages: request.pages,
        devices: guest.devices().filter_map(|device| facts.devices.address(device).ok()).collect(),
    }
}

fn shared(cores: &[&Core], cells: u32) -> Shared {
    let same = |key: &dyn Fn(&Core) -> Option<u32>| cores.windows(2).all(|pair| key(pair[0]) == key(pair[1]));
    match () {
        () if cells > 1 => Shared::Nothing,
        () if same(&|core| core.llc.first()) => Shared::Cache,
        () if same(&|core| core.package) => Shared::Package,
        () => Shared::Node,
    }
}

/// Nodes that run guests.
pub(super) fn with_isolated(placement: &Placement) -> impl Iterator<Item = &NodePlace> {
    placement.nodes.iter().filter(|node| !node.isolated.is_empty())
}
