//! What libvirt's definitions have of the machine: other guests keep what they have, and a guest of the profile
//! that libvirt has already keeps its place as long as that is one. This is what makes placements stable: they are
//! remembered where they are in force.

use super::requests::{Request, usable};
use super::search::{Found, FoundCell, State};
use super::{Placement, counted};
use crate::facts::definitions::DefinedCell;
use crate::facts::{Core, Definition, Facts};
use crate::formats::{Connection, CpuSet, Size};
use crate::profile::{Diagnostic, Profile};
use serde::Serialize;

/// A guest that libvirt defines and the profile does not have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OtherGuest {
    /// Its name.
    pub name: String,
    /// The isolated CPUs that it is pinned to, with those that share their cores.
    pub cores: CpuSet,
    /// Its pages of [`Placement::page`] by node.
    pub pages: Vec<(u32, u64)>,
}

impl OtherGuest {
    /// Its pages of one node.
    pub fn pages_on(&self, node: u32) -> u64 {
        self.pages.iter().filter(|(id, _)| *id == node).map(|(_, pages)| pages).sum()
    }
}

/// What guests outside of the profile have.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    pub(super) guests: Vec<OtherGuest>,
}

impl Taken {
    /// Reads the definitions. Those whose pages no node answers for are warned of.
    pub(super) fn new(
        profile: &Profile,
        facts: &Facts,
        placement: &Placement,
        found: &mut Vec<Diagnostic>,
    ) -> Taken {
        // What is undefined has nothing any more, unless it runs on.
        let goes = |name: &str| {
            let runs = facts.guests.iter().any(|guest| guest.name == name);
            !runs && profile.absent.iter().any(|absent| absent.value == name)
        };
        // A guest of another libvirt is another one, whatever its name.
        let is_ours = |definition: &&Definition| {
            let name = &definition.name;
            let planned = profile.guests.iter().any(|guest| guest.name.value == *name);
            facts.definitions.is_of(&profile.host.libvirt, definition) && (planned || goes(name))
        };
        let others = facts.definitions.guests.iter().filter(|definition| !is_ours(definition));
        let mut guests = Vec::new();
        for definition in others {
            // A vCPU that may run on every CPU is pinned to none: the kernel keeps it off the isolated ones.
            let pins = definition.pins.iter().filter(|pin| !facts.cpus.online.is_subset(pin));
            let pinned =
                pins.fold(CpuSet::new(), |all, pin| all.union(pin)).intersection(&placement.isolated);
            let touched = facts.cpus.cores.iter().filter(|core| !core.cpus.is_disjoint(&pinned));
            let cores = touched.fold(CpuSet::new(), |all, core| all.union(&core.cpus));
            let (pages, unbound) = pages(definition, placement.page, facts);
            if unbound > 0 {
                let pages = counted(unbound, "page");
                let message = format!(
                    "guest {}, which is not of this profile, has {pages} of {} and is bound to no node",
                    definition.name, placement.page
                );
                let help =
                    "they may be missing where guests of the profile need them: bind it with <numatune>";
                let span = profile.host.hugepages.span.clone();
                found.push(Diagnostic::warning(span, message).help(help));
            }
            if !cores.is_empty() || !pages.is_empty() {
                guests.push(OtherGuest { name: definition.name.clone(), cores, pages });
            }
        }
        Taken { guests }
    }
}

/// The pages of a size that a definition takes, by node, and those of which no node is known. Cells that are bound
/// to several nodes count in equal parts.
fn pages(definition: &Definition, page: Size, facts: &Facts) -> (Vec<(u32, u64)>, u64) {
    let mut pages: Vec<(u32, u64)> = Vec::new();
    let mut unbound = 0;
    if definition.page != Some(page) {
        return (pages, 0);
    }
    // Without binding the kernel takes them where the threads run, if that is one node.
    let run_on: Vec<u32> =
        facts.numa.nodes.iter().filter(|n| !n.cpus.is_disjoint(&definition.cpus())).map(|n| n.id).collect();
    for cell in &definition.cells {
        let needed = cell.memory.0.div_ceil(page.0);
        let nodes: Vec<u32> = match (cell.nodes.is_empty(), facts.numa.shown, run_on.as_slice()) {
            (_, false, _) => facts.numa.nodes.iter().map(|node| node.id).collect(),
            (false, ..) => cell.nodes.iter().collect(),
            (true, _, [one]) => vec![*one],
            (true, ..) => Vec::new(),
        };
        match nodes.as_slice() {
            [] => unbound += needed,
            nodes => pages.extend(nodes.iter().map(|node| (*node, needed.div_ceil(nodes.len() as u64)))),
        }
    }
    (pages, unbound)
}

impl<'f> State<'f> {
    /// What guests outside of the profile leave.
    pub(super) fn without(&self, taken: &Taken) -> State<'f> {
        let mut state = self.clone();
        for node in &mut state.nodes {
            node.cores.retain(|core| taken.guests.iter().all(|other| other.cores.is_disjoint(&core.cpus)));
            let pages: u64 = taken.guests.iter().map(|other| other.pages_on(node.id)).sum();
            node.pages = node.pages.saturating_sub(pages);
        }
        state
    }
}

/// The guests that keep the place they have, and what is free beside them. Where definitions contradict each other
/// the first by name keeps its place.
pub(super) fn keep<'f>(
    libvirt: &Connection,
    requests: &[&Request],
    facts: &'f Facts,
    placement: &Placement,
    mut state: State<'f>,
) -> (State<'f>, Vec<Found<'f>>) {
    let mut order: Vec<&&Request> = requests.iter().collect();
    order.sort_by_key(|request| &request.guest.name.value);
    let mut kept = Vec::new();
    for request in order {
        let definition = facts.definitions.get(libvirt, &request.guest.name.value);
        let place = definition.and_then(|definition| place_of(request, definition, facts, placement));
        if let Some(place) = place.filter(|place| is_free(place, &state)) {
            state = state.beside(&place);
            kept.push(place);
        }
    }
    (state, kept)
}

fn is_free(place: &Found, state: &State) -> bool {
    place.cells.iter().all(|cell| {
        state.node(cell.node).is_some_and(|node| {
            let free = |core: &Core| node.cores.iter().any(|free| free.cpus == core.cpus);
            node.pages >= cell.pages && cell.cores.iter().all(|core| free(core))
        })
    })
}

/// The place that a definition gives a guest, if it is one that the guest could be given: each vCPU pinned to a CPU
/// of its own, in whole isolated cores of nodes that the profile lets it be on.
fn place_of<'f>(
    request: &Request,
    definition: &Definition,
    facts: &'f Facts,
    placement: &Placement,
) -> Option<Found<'f>> {
    let one = |pin: &CpuSet| pin.first().filter(|_| pin.len() == 1);
    let cpus: Vec<u32> = definition.pins.iter().map(one).collect::<Option<_>>()?;
    let cells = definition.cells.len();
    if cpus.len() != request.guest.vcpus.value as usize || cells == 0 || !request.divides(cells) {
        return None;
    }
    let node_of = |cell: &DefinedCell| match facts.numa.shown {
        true => one(&cell.nodes),
        false => facts.numa.nodes.first().map(|node| node.id),
    };
    let nodes: Vec<u32> = definition.cells.iter().map(node_of).collect::<Option<_>>()?;
    if !request.options.contains(&nodes) {
        return None;
    }
    let parts = cpus.chunks(cpus.len() / cells).zip(&nodes).map(|(cpus, node)| {
        let all: Vec<&Core> = usable(facts, placement.node(*node)?, request.threads).collect();
        let cores = cpus.chunks(request.threads).map(|threads| {
            let holds = |core: &&Core| threads.iter().all(|cpu| core.cpus.contains(*cpu));
            all.iter().copied().find(holds)
        });
        let cores: Vec<&Core> = cores.collect::<Option<_>>()?;
        let apart = |at: usize| cores[..at].iter().all(|core| core.cpus != cores[at].cpus);
        let distinct: CpuSet = cpus.iter().copied().collect();
        let pages = request.pages / cells as u64;
        let whole = (0..cores.len()).all(apart) && distinct.len() == cpus.len();
        whole.then(|| FoundCell { node: *node, cores, cpus: cpus.to_vec(), pages })
    });
    let cells = parts.collect::<Option<Vec<_>>>()?;
    Some(Found { guest: request.guest.name.value.clone(), cells })
}
