//! Why guests cannot be placed together: a counter-example with its numbers, and what would make it fit.

use super::requests::Request;
use super::search::{FEW_STEPS, Found, MOST_STEPS, State, Stuck, search};
use super::taken::Taken;
use super::{Placement, counted};
use crate::facts::Facts;
use crate::formats::{CpuSet, Size};
use crate::profile::{Diagnostic, Os};

/// What was tried.
pub(super) struct Attempt<'a, 'f, 'p> {
    pub(super) facts: &'f Facts,
    pub(super) placement: &'a Placement,
    /// The guests to be placed.
    pub(super) open: &'a [&'a Request<'p>],
    /// Those that keep their place.
    pub(super) kept: &'a [Found<'f>],
    /// What those that keep theirs may be asked for again.
    pub(super) all: &'a [&'a Request<'p>],
    /// The machine without any guest.
    pub(super) machine: &'a State<'f>,
    /// What is free beside those that keep their place and the guests of others.
    pub(super) state: &'a State<'f>,
    pub(super) taken: &'a Taken,
}

impl Attempt<'_, '_, '_> {
    /// The refusals, each with what would help.
    pub(super) fn explain(&self, stuck: Stuck) -> Vec<Diagnostic> {
        if stuck == Stuck::GaveUp {
            let first = self.open.first().map_or(0..0, |request| request.guest.name.span.clone());
            let guests = counted(self.open.len() as u64, "guest");
            let message =
                format!("no placement of {guests} was found in {MOST_STEPS} steps; there may be one");
            let help = "name the nodes of some guests with `numa-node`: that leaves less to try";
            return vec![Diagnostic::error(first, message).help(help)];
        }
        // As an operator would place them: in the order of the profile, those that name their nodes first.
        let mut order = self.open.to_vec();
        order.sort_by_key(|request| request.guest.numa_nodes.is_none());
        let mut state = self.state.clone();
        let (mut placed, mut requests): (Vec<Found>, Vec<&Request>) = (self.kept.to_vec(), Vec::new());
        let mut refused = Vec::new();
        for request in order {
            match state.places(request).into_iter().next() {
                Some(place) => {
                    state = state.beside(&place);
                    placed.push(place);
                    requests.push(request);
                }
                None => refused.push((request, self.refusal(request, &state, &placed))),
            }
        }
        let helped = refused.into_iter().map(|(request, error)| match self.remedies(request, &requests) {
            remedies if remedies.is_empty() => error,
            remedies => error.help(format!("it fits {}", remedies.join("; or "))),
        });
        helped.collect()
    }

    /// What a guest lacks on each of its options.
    fn refusal(&self, request: &Request, state: &State, placed: &[Found]) -> Diagnostic {
        let lacks: Vec<String> = request
            .options
            .iter()
            .map(|option| {
                let parts =
                    option.iter().flat_map(|id| self.lacks(request, *id, option.len(), state, placed));
                parts.collect::<Vec<_>>().join("; and ")
            })
            .collect();
        let more = match lacks.len().saturating_sub(MOST_SHOWN) {
            0 => String::new(),
            more => format!("; or as little on {more} other choices of nodes"),
        };
        let shown = lacks.iter().take(MOST_SHOWN).map(String::as_str).collect::<Vec<_>>().join("; or ");
        let nodes = request.guest.numa_nodes.as_ref();
        let span = nodes.map_or(&request.guest.name.span, |nodes| &nodes.span);
        let message = format!("guest {} needs {shown}{more}", request.guest.name.value);
        Diagnostic::error(span.clone(), message)
    }

    /// What a node lacks of one of so many cells.
    fn lacks(
        &self,
        request: &Request,
        id: u32,
        cells: usize,
        state: &State,
        placed: &[Found],
    ) -> Vec<String> {
        let (needed, pages) = (request.cores / cells, request.pages / cells as u64);
        let usable = |state: &State| {
            let cores = state.node(id).map(|node| node.cores.as_slice()).unwrap_or_default();
            cores.iter().filter(|core| core.cpus.len() >= request.threads).count()
        };
        let (all, free) = (usable(self.machine), usable(state));
        let there = |state: &State| state.node(id).map_or(0, |node| node.pages);
        let (count, unused) = (there(self.machine), there(state));
        let who = |has: &dyn Fn(&Found) -> Option<String>, of_others: &dyn Fn(usize) -> Option<String>| {
            let ours = placed.iter().filter_map(|found| Some(format!("{} has {}", found.guest, has(found)?)));
            let others = self.taken.guests.iter().enumerate().filter_map(|(at, other)| {
                Some(format!("{} (not of this profile) has {}", other.name, of_others(at)?))
            });
            ours.chain(others).collect::<Vec<_>>().join(", ")
        };
        // On a machine without SMT a core is what everybody calls a CPU.
        let noun = if self.facts.cpus.threads_per_core() > 1 { "whole core" } else { "CPU" };
        let cores = counted(needed as u64, noun);
        let cores =
            if request.threads > 1 { format!("{cores} of {} threads", request.threads) } else { cores };
        let mut short = Vec::new();
        if all < needed {
            short.push(format!("{cores} on node {id}, which has {all} isolated"));
        } else if free < needed {
            let node = self.placement.node(id);
            let of = |cores: CpuSet| (!cores.is_empty()).then(|| cores.to_string());
            let on_node = |found: &Found| {
                let cells = found.cells.iter().filter(|cell| cell.node == id);
                let cores = cells.flat_map(|cell| &cell.cores);
                of(cores.fold(CpuSet::new(), |all, core| all.union(&core.cpus)))
            };
            let others = |at: usize| of(self.taken.guests[at].cores.intersection(&node?.isolated));
            short.push(format!("{cores} on node {id}, {}: {}", left(free as u64), who(&on_node, &others)));
        }
        let wanted = format!("{} of {}", counted(pages, "page"), self.placement.page);
        if count < pages {
            let memory = self.placement.node(id).map_or(Size(0), |node| node.pages.memory);
            short.push(format!("{wanted} on node {id}, which gets {count} of its {}", memory.gib()));
        } else if unused < pages {
            let some = |pages: u64| (pages > 0).then(|| pages.to_string());
            let on_node = |found: &Found| {
                some(found.cells.iter().filter(|cell| cell.node == id).map(|cell| cell.pages).sum())
            };
            let others = |at: usize| some(self.taken.guests[at].pages_on(id));
            short.push(format!("{wanted} on node {id}, {}: {}", left(unused), who(&on_node, &others)));
        }
        short
    }

    /// What would make a guest fit beside `others`, each tried.
    fn remedies(&self, request: &Request, others: &[&Request]) -> Vec<String> {
        let mut remedies: Vec<String> = self.movable(request, others).into_iter().collect();
        let nodes: Vec<u32> = super::guests::with_isolated(self.placement).map(|node| node.id).collect();
        if request.guest.numa_nodes.is_some() {
            let anywhere = request.on(nodes.iter().map(|node| vec![*node]).collect());
            if let Some(found) = self.placed(&anywhere, others, self.state) {
                remedies.push(format!("on node {}", found.cells[0].node));
            }
        }
        let cells = request.options.first().map_or(1, Vec::len);
        for count in (cells + 1).max(2)..=nodes.len() {
            let spread = request.on(request.spread(count, self.facts, &nodes));
            if let Some(found) =
                request.divides(count).then(|| self.placed(&spread, others, self.state)).flatten()
            {
                remedies.push(format!("on several nodes, by {}", found.key()));
                break;
            }
        }
        remedies.extend(self.smaller(request, others));
        remedies
    }

    /// How much smaller it would have to be on the nodes that it could be on now: in vCPUs or in memory, or else in both.
    fn smaller(&self, request: &Request, others: &[&Request]) -> Vec<String> {
        let cells = request.options.first().map_or(1, Vec::len);
        let least = if request.guest.os.value == Os::Linux { 2 } else { 1 };
        let (all_cores, all_pages) = ((request.cores / cells) as u64, request.pages / cells as u64);
        let sized = |cores: u64, pages: u64| Request {
            cores: cores as usize * cells,
            pages: pages * cells as u64,
            ..request.clone()
        };
        let vcpus = |cores: u64| cores as usize * cells * request.threads;
        let fits = |cores, pages| self.placed(&sized(cores, pages), others, self.state).is_some();
        let fewest = |cores: &u64| vcpus(*cores) >= least;
        let cores = most(all_cores, |cores| fits(cores, all_pages)).filter(fewest);
        let pages = most(all_pages, |pages| fits(all_cores, pages));
        let mut sizes: Vec<(u64, u64)> = Vec::new();
        sizes.extend(cores.map(|cores| (cores, all_pages)));
        sizes.extend(pages.map(|pages| (all_cores, pages)));
        if sizes.is_empty()
            && let Some(cores) = most(all_cores, |cores| fits(cores, 1)).filter(fewest)
        {
            sizes.extend(most(all_pages, |pages| fits(cores, pages)).map(|pages| (cores, pages)));
        }
        let told = |(cores, pages): (u64, u64)| {
            let request = sized(cores, pages);
            let mut words = Vec::new();
            if cores != all_cores {
                words.push(format!("{} vCPUs", vcpus(cores)));
            }
            if pages != all_pages {
                words.push(format!("{} of memory", Size(request.pages * self.placement.page.0)));
            }
            // One that fewer nodes can hold is put on fewer, unless it names them.
            if request.all_options(self.facts, self.placement) != request.options {
                let found = self.placed(&request, others, self.state);
                words.extend(found.map(|found| found.key()));
            }
            format!("with {}", words.join(" and "))
        };
        sizes.into_iter().map(told).collect()
    }

    /// Whether it fits if one guest that keeps its place, or all of them, moved; and which and where to.
    fn movable(&self, request: &Request, others: &[&Request]) -> Option<String> {
        let one = self.kept.iter().map(|kept| vec![kept]);
        let all = (self.kept.len() > 1).then(|| self.kept.iter().collect());
        one.chain(all).find_map(|released: Vec<&Found>| {
            let asked = |name: &String| self.all.iter().find(|request| request.guest.name.value == *name);
            let anywhere: Vec<Request> =
                released.iter().filter_map(|kept| asked(&kept.guest)).map(|&r| r.clone()).collect();
            let found = self.moved(&anywhere, others, request)?;
            // A guest can be told to go to other nodes. One that got other cores of its own keeps those that it has.
            let moves = released.iter().filter_map(|kept| {
                let now = found.iter().find(|found| found.guest == kept.guest)?;
                (now.nodes() != kept.nodes()).then_some(now)
            });
            let moves: Vec<&Found> = moves.collect();
            if moves.is_empty() {
                return None;
            }
            let told: Vec<Request> =
                moves.iter().filter_map(|now| Some(asked(&now.guest)?.on(vec![now.nodes()]))).collect();
            self.moved(&told, others, request)?;
            let words = moves.iter().map(|now| format!("{} moves by {}", now.guest, now.key()));
            Some(format!("if {}", words.collect::<Vec<_>>().join(" and ")))
        })
    }

    /// A placement in which these of the guests that keep their place are placed anew, and the rest of them stay.
    fn moved(&self, moving: &[Request], others: &[&Request], request: &Request) -> Option<Vec<Found<'_>>> {
        let mut state = self.machine.without(self.taken);
        let stays = |kept: &&Found| moving.iter().all(|moving| moving.guest.name.value != kept.guest);
        for kept in self.kept.iter().filter(stays) {
            state = state.beside(kept);
        }
        let asked: Vec<&Request> = moving.iter().chain(others.iter().copied()).chain([request]).collect();
        search(&asked, &state, FEW_STEPS).ok()
    }

    /// Where a guest is if it fits beside others.
    fn placed<'f>(&self, request: &Request, others: &[&Request], state: &State<'f>) -> Option<Found<'f>> {
        let asked: Vec<&Request> = others.iter().copied().chain([request]).collect();
        let found = search(&asked, state, FEW_STEPS).ok()?;
        found.into_iter().find(|found| found.guest == request.guest.name.value)
    }
}

/// More choices of nodes than these are counted, not told.
const MOST_SHOWN: usize = 4;

/// The largest number below `all`, and above 0, that `fits`; smaller ones then fit as well.
fn most(all: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut good, mut bad) = (0, all);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match fits(middle) {
            true => good = middle,
            false => bad = middle,
        }
    }
    (good > 0).then_some(good)
}

fn left(count: u64) -> String {
    match count {
        0 => "none is left".into(),
        1 => "1 is left".into(),
        _ => format!("{count} are left"),
    }
}
