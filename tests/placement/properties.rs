//! What holds on every machine with every profile.

use crate::machine::*;
use proptest::prelude::*;
use rtkvm_tune::facts::{Core, Facts};
use rtkvm_tune::formats::{CpuSet, Size};
use rtkvm_tune::placement::{GuestPlace, NodePlace, Placement, Shared, place};
use rtkvm_tune::profile::{Diagnostic, Housekeeping, Level, Parsed, Profile, render};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How CPUs are numbered: thread after thread, as most servers do, or without any order.
#[derive(Debug, Clone)]
enum Numbering {
    ThreadsTogether,
    ThreadsLast,
    Shuffled(Vec<u32>),
}

/// The most CPUs that `machines` makes, before gaps.
const MOST: usize = 4 * 3 * 4 * 2;

/// Up to 4 nodes of up to 3 caches of up to 4 cores; sparse ids, offline CPUs, memory alone, pages in use.
pub(crate) fn machines() -> impl Strategy<Value = Facts> {
    let numbering = prop_oneof![
        Just(Numbering::ThreadsTogether),
        Just(Numbering::ThreadsLast),
        Just((0..MOST as u32 * 2).collect::<Vec<_>>()).prop_shuffle().prop_map(Numbering::Shuffled),
    ];
    let caches = prop_oneof![9 => prop::collection::vec(2..=4usize, 1..=3), 1 => prop::collection::vec(1..=4usize, 0..=3)];
    let mib = prop_oneof![9 => 12_000..=40_000u64, 1 => 0..=6_000u64];
    let node = (1..=2u32, caches, mib, prop::bool::weighted(0.05));
    (
        prop::collection::vec(node, 1..=4),
        prop_oneof![Just(1usize), Just(2), Just(4)],
        numbering,
        prop::collection::vec(prop::bool::weighted(0.05), MOST),
        any::<bool>(),
        prop_oneof![4 => Just(0u32), 1 => 1..=2u32],
        prop_oneof![2 => Just(0usize), 1 => any::<usize>()],
    )
        .prop_filter_map("no CPU", |(nodes, threads, numbering, down, split, first, boot)| {
            let mut facts = build(&nodes, threads, &numbering, &down, split, first)?;
            let online: Vec<u32> = facts.cpus.online.iter().collect();
            facts.cpus.boot = online[boot % online.len()];
            Some(facts)
        })
}

fn build(
    nodes: &[(u32, Vec<usize>, u64, bool)],
    threads: usize,
    numbering: &Numbering,
    down: &[bool],
    split_packages: bool,
    first: u32,
) -> Option<Facts> {
    // Of a 4-thread core at most half the caches, so that MOST holds.
    let mut id = 0;
    let mut memory = Vec::new();
    let mut slots = Vec::new();
    for (at, (gap, caches, mib, others)) in nodes.iter().enumerate() {
        memory.push((id, Size(mib << 20), *others));
        for (cache, cores) in caches.iter().enumerate() {
            let cores = if threads == 4 { cores.div_ceil(2) } else { *cores };
            let package = if split_packages { at * 10 + cache } else { at };
            for core in 0..cores {
                slots.extend((0..threads).map(|thread| (thread, (id, cache, core), package as u32)));
            }
        }
        id += gap;
    }
    if matches!(numbering, Numbering::ThreadsLast) {
        slots.sort();
    }
    let number = |at: usize| match numbering {
        Numbering::Shuffled(numbers) => numbers[at] + first,
        _ => at as u32 + first,
    };
    let mut cores: BTreeMap<_, Core> = BTreeMap::new();
    let mut offline = CpuSet::new();
    for (at, (_, key, package)) in slots.into_iter().enumerate() {
        if down[at] {
            offline.insert(number(at));
            continue;
        }
        let core = cores.entry(key).or_insert_with(|| Core {
            cpus: CpuSet::new(),
            id: None,
            package: Some(package),
            die: None,
            node: Some(key.0),
            llc: CpuSet::new(),
        });
        core.cpus.insert(number(at));
    }
    let mut caches: BTreeMap<_, CpuSet> = BTreeMap::new();
    for ((node, cache, _), core) in &cores {
        let llc = caches.entry((*node, *cache)).or_default();
        *llc = llc.union(&core.cpus);
    }
    cores.iter_mut().for_each(|((node, cache, _), core)| core.llc = caches[&(*node, *cache)].clone());
    if cores.is_empty() {
        return None;
    }
    let sizes: Vec<_> = memory.iter().map(|(id, size, _)| (*id, *size)).collect();
    let mut facts = assemble(cores.into_values().collect(), &sizes, offline);
    for (node, (_, _, others)) in facts.numa.nodes.iter_mut().zip(&memory) {
        if *others {
            (node.pools[0].pages, node.pools[1].pages, node.pools[1].free) = (2000, 2, Some(0));
        }
    }
    Some(facts)
}

/// The choices of a profile; what they mean depends on the machine.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) cpus: u8,
    pub(crate) per_node: u32,
    pub(crate) mask: Vec<bool>,
    pub(crate) kept: u64,
    pub(crate) count: u8,
    pub(crate) page: bool,
    /// vCPUs, by pairs with both threads; pages; node; both threads of each core.
    pub(crate) guests: Vec<(u32, u64, Option<u8>, bool)>,
}

pub(crate) fn wishes(most_guests: usize) -> impl Strategy<Value = Wish> {
    let guest = (1..=4u32, 1..=6u64, prop::option::of(any::<u8>()), prop::bool::weighted(0.2));
    (
        0..20u8,
        1..=2u32,
        prop::collection::vec(prop::bool::weighted(0.3), MOST),
        prop_oneof![1 => 0..=520u64, 9 => 512..=3_000u64],
        0..20u8,
        any::<bool>(),
        prop::collection::vec(guest, 0..=most_guests),
    )
        .prop_map(|(cpus, per_node, mask, kept, count, page, guests)| Wish {
            cpus,
            per_node,
            mask,
            kept,
            count,
            page,
            guests,
        })
}

/// The profile, written down.
pub(crate) fn written(wish: &Wish, facts: &Facts) -> Parsed {
    let cores = &facts.cpus.cores;
    let boot = facts.cpus.boot;
    let masked = |core: &Core, at: usize| wish.mask[at % MOST] || core.cpus.contains(boot);
    let chosen = cores.iter().enumerate().filter(|(at, core)| masked(core, *at));
    let chosen = chosen.fold(CpuSet::new(), |all, (_, core)| all.union(&core.cpus));
    let rest = facts.cpus.online.difference(&chosen);
    // Any CPUs at all, most of which split cores, are offline or not there.
    let wild: CpuSet = wish.mask.iter().enumerate().filter(|(_, m)| **m).map(|(at, _)| at as u32).collect();
    let kept: CpuSet = (0..u32::from(wish.per_node == 1)).map(|_| boot).collect();
    let wild_online = wild.intersection(&facts.cpus.online).union(&kept);
    let list = |key: &str, cpus: &CpuSet| match cpus.is_empty() {
        true => String::new(),
        false => format!("{key} = \"{cpus}\"\n"),
    };
    let per_node = format!("housekeeping-cpus-per-node = {}\n", wish.per_node);
    let mut text = String::from("[host]\n");
    text += &match wish.cpus {
        0..=9 => per_node,
        10..=12 => list("housekeeping-cpus", &chosen),
        // Online, often with the boot CPU, and with SMT a core or two split.
        13 if !wild_online.is_empty() => list("housekeeping-cpus", &wild_online),
        13 => per_node,
        // Some CPUs in neither list.
        14 => list("housekeeping-cpus", &chosen) + &list("isolated-cpus", &rest.difference(&wild)),
        15..=16 => list("housekeeping-cpus", &chosen) + &list("isolated-cpus", &rest),
        17 => per_node + &list("isolated-cpus", &rest),
        18 => per_node + &list("isolated-cpus", &wild),
        _ if wild.is_empty() => per_node,
        _ => list("housekeeping-cpus", &wild),
    };
    let (page, size) = if wish.page { ("1GiB", 1024) } else { ("2MiB", 2) };
    writeln!(
        text,
        "housekeeping-memory-per-node = \"{}MiB\"\n[host.hugepages]\nsize = \"{page}\"",
        wish.kept + 1
    )
    .unwrap();
    match wish.count {
        0 => text += "count = 7\n",
        1 => text += "count = { \"0\" = 8, \"1\" = 3 }\n",
        2 => text += "count = { \"1\" = 5000 }\n",
        _ => {}
    }
    let nodes = &facts.numa.nodes;
    for (at, (vcpus, pages, node, both)) in wish.guests.iter().enumerate() {
        let vcpus = if *both { vcpus * 2 } else { *vcpus };
        let threads = 1 + u8::from(*both);
        writeln!(
            text,
            "[[guest]]\nname = \"g{at}\"\nos = \"other\"\nvcpus = {vcpus}\nmemory = \"{}MiB\"\nthreads-per-core = {threads}",
            pages * size
        )
        .unwrap();
        if let Some(node) = node {
            // Now and then a node that is not there.
            let id = nodes.get(*node as usize % (nodes.len() * 9 + 1) / 9).map_or(1000, |node| node.id);
            writeln!(text, "numa-node = {id}").unwrap();
        }
    }
    parsed(&text)
}

/// One node's cores that a guest could have with nobody else there, by cache.
fn usable(placement: &Placement, facts: &Facts, node: u32, threads: usize) -> Vec<CpuSet> {
    let isolated = &placement.node(node).expect("a node").isolated;
    let fits = |core: &&Core| core.cpus.is_subset(isolated) && core.cpus.len() >= threads;
    facts.cpus.cores.iter().filter(fits).map(|core| core.llc.clone()).collect()
}

fn nodes_of(place: &GuestPlace) -> Vec<u32> {
    place.cells.iter().map(|cell| cell.node).collect()
}

fn core_of(facts: &Facts, cpu: u32) -> &Core {
    facts.cpus.core_of(cpu).expect("an online CPU")
}

fn check_cpus(profile: &Profile, facts: &Facts, placement: &Placement) -> Result<(), TestCaseError> {
    let (housekeeping, isolated) = (&placement.housekeeping, &placement.isolated);
    prop_assert!(housekeeping.is_disjoint(isolated));
    prop_assert_eq!(&housekeeping.union(isolated), &facts.cpus.online);
    prop_assert!(!isolated.is_empty());
    prop_assert!(housekeeping.contains(facts.cpus.boot));
    for core in &facts.cpus.cores {
        prop_assert!(core.cpus.is_subset(housekeeping) || core.cpus.is_subset(isolated), "{core:?}");
    }
    if let Some(listed) = &profile.host.isolated_cpus {
        prop_assert_eq!(&listed.value, isolated);
    }
    match &profile.host.housekeeping {
        Housekeeping::Cpus(listed) => prop_assert_eq!(&listed.value, housekeeping),
        Housekeeping::PerNode(count) => {
            let count = count.value as usize;
            for node in placement
                .nodes
                .iter()
                .filter(|node| facts.numa.get(node.id).is_some_and(|n| !n.cpus.is_empty()))
            {
                prop_assert!(node.housekeeping.len() >= count);
                let spare = node.housekeeping.len() - count;
                let listed = profile.host.isolated_cpus.is_some();
                prop_assert!(listed || spare < facts.cpus.threads_per_core(), "more than rounding up");
            }
        }
    }
    Ok(())
}

fn check_pages(profile: &Profile, facts: &Facts, placement: &Placement) -> Result<(), TestCaseError> {
    prop_assert_eq!(placement.nodes.len(), facts.numa.nodes.len());
    for (place, node) in placement.nodes.iter().zip(&facts.numa.nodes) {
        let pages = &place.pages;
        let taken = u128::from(pages.count) * u128::from(placement.page.0);
        let others: u64 =
            node.pools.iter().filter(|p| p.page != placement.page).map(|p| p.page.0 * p.pages).sum();
        prop_assert_eq!(place.id, node.id);
        prop_assert_eq!(pages.others, Size(others));
        prop_assert!(taken + u128::from(others.min(node.memory.0)) <= u128::from(node.memory.0));
        let automatic = profile.host.hugepages.count.is_none();
        prop_assert_eq!(pages.kept.is_some(), automatic);
        if let (Some(kept), true) = (pages.kept, pages.count > 0) {
            let rest = node.memory.0 - others - kept.0 - taken as u64;
            prop_assert!(rest < placement.page.0, "a page more would fit");
            prop_assert_eq!(pages.left.0, rest + kept.0);
        } else if automatic {
            prop_assert!(node.cpus.is_empty() || node.memory.0 == 0, "no pages on {}", node.id);
        }
        if pages.count > 0 && !node.cpus.is_empty() {
            prop_assert!(pages.left >= Size(512 << 20), "{} left", pages.left);
        }
        prop_assert!(pages.guests <= pages.count);
        let cells =
            placement.guests.iter().flat_map(|guest| &guest.cells).filter(|cell| cell.node == node.id);
        prop_assert_eq!(cells.map(|cell| cell.pages).sum::<u64>(), pages.guests);
        let pool = node.pool(placement.page).expect("a pool");
        prop_assert!(pool.pages - pool.free.unwrap() <= pages.count);
    }
    Ok(())
}

fn check_guests(profile: &Profile, facts: &Facts, placement: &Placement) -> Result<(), TestCaseError> {
    prop_assert_eq!(placement.guests.len(), profile.guests.len());
    let mut taken = CpuSet::new();
    for (guest, place) in profile.guests.iter().zip(&placement.guests) {
        prop_assert_eq!(&guest.name.value, &place.name);
        prop_assert_eq!(guest.memory.value.0, place.pages * placement.page.0);
        prop_assert!(guest.numa_nodes.as_ref().is_none_or(|nodes| nodes.value == nodes_of(place)));
        // Several nodes only where one alone is too small, each with an equal part.
        prop_assert_eq!(place.node, place.cells[0].node);
        let parts = place.cells.len() as u32;
        if parts > 1 && guest.numa_nodes.is_none() {
            let threads = guest.threads_per_core.value as usize;
            let fits = |node: &NodePlace| {
                usable(placement, facts, node.id, threads).len() * threads >= guest.vcpus.value as usize
                    && node.pages.count >= place.pages
            };
            prop_assert!(!placement.nodes.iter().any(fits), "{place:?}");
        }
        for (cell, cpus) in place.cells.iter().zip(place.cpus.chunks(place.cpus.len() / parts as usize)) {
            let node = placement.node(cell.node).expect("a node");
            prop_assert!(cpus.iter().all(|cpu| node.isolated.contains(*cpu)));
            prop_assert_eq!((cell.vcpus as usize, cell.pages), (cpus.len(), place.pages / u64::from(parts)));
        }
        let housekeeping = |node: &u32| placement.node(*node).expect("a node").housekeeping.clone();
        let local =
            nodes_of(place).iter().map(housekeeping).fold(CpuSet::new(), |all, cpus| all.union(&cpus));
        // As many as asked, each once, on cores of its own.
        let cpus: CpuSet = place.cpus.iter().copied().collect();
        prop_assert_eq!(place.cpus.len(), guest.vcpus.value as usize);
        prop_assert_eq!(cpus.len(), place.cpus.len());
        let cores = place.cpus.iter().fold(CpuSet::new(), |all, cpu| all.union(&core_of(facts, *cpu).cpus));
        prop_assert_eq!(&cores, &place.cores);
        prop_assert!(cores.is_disjoint(&taken), "{} is given twice", cores.intersection(&taken));
        taken = taken.union(&cores);
        // Threads of one core are neighbours, and each core has as many as asked.
        let threads = guest.threads_per_core.value as usize;
        for chunk in place.cpus.chunks(threads) {
            let core = &core_of(facts, chunk[0]).cpus;
            prop_assert!(chunk.iter().all(|cpu| core.contains(*cpu)));
            prop_assert_eq!(place.cpus.iter().filter(|cpu| core.contains(**cpu)).count(), threads);
        }
        prop_assert!(!place.emulator.is_empty());
        prop_assert!(place.io.is_subset(&place.emulator));
        prop_assert!(place.emulator.is_subset(&placement.housekeeping));
        prop_assert_eq!(place.emulator.is_subset(&local), !local.is_empty());
        prop_assert!(place.io.is_subset(&placement.housekeeping) && !place.io.is_empty());
        let same = |key: &dyn Fn(&Core) -> Option<u32>| {
            place.cpus.iter().all(|cpu| key(core_of(facts, *cpu)) == key(core_of(facts, place.cpus[0])))
        };
        let (cache, package) = (same(&|core| core.llc.first()), same(&|core| core.package));
        let shared = match (cache, package) {
            _ if parts > 1 => Shared::Nothing,
            (true, _) => Shared::Cache,
            (false, true) => Shared::Package,
            (false, false) => Shared::Node,
        };
        prop_assert_eq!(place.shared, shared);
    }
    Ok(())
}

/// Errors say something with a number in it, and can be shown.
fn check_refusal(errors: &[Diagnostic], parsed: &Parsed) -> Result<(), TestCaseError> {
    let errors: Vec<_> = errors.iter().filter(|error| error.level == Level::Error).collect();
    prop_assert!(!errors.is_empty());
    for error in errors {
        let words = format!("{} {}", error.message, error.label);
        prop_assert!(words.contains(|c: char| c.is_ascii_digit()), "{words}");
        prop_assert!(error.span.as_ref().is_some_and(|span| span.end <= parsed.source.text.len()));
        prop_assert!(!render(std::slice::from_ref(error), &parsed.source, false).contains("  on node"));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_is_divided_is_whole_and_what_is_not_is_explained(
        (facts, parsed) in (machines(), wishes(4)).prop_map(|(facts, wish)| {
            let parsed = written(&wish, &facts);
            (facts, parsed)
        })
    ) {
        let profile = &parsed.profile;
        let result = place(profile, &facts);
        prop_assert_eq!(format!("{result:?}"), format!("{:?}", place(profile, &facts)));
        match result {
            Err(errors) => check_refusal(&errors, &parsed)?,
            Ok((placement, warnings)) => {
                prop_assert!(warnings.iter().all(|warning| warning.level == Level::Warning));
                check_cpus(profile, &facts, &placement)?;
                check_pages(profile, &facts, &placement)?;
                check_guests(profile, &facts, &placement)?;
            }
        }
    }

    #[test]
    fn one_guest_is_placed_if_it_fits_and_in_one_cache_if_that_fits(
        (facts, parsed) in (machines(), wishes(1)).prop_map(|(facts, wish)| {
            let parsed = written(&wish, &facts);
            (facts, parsed)
        })
    ) {
        let profile = &parsed.profile;
        let empty = Profile { guests: Vec::new(), ..profile.clone() };
        let (Ok((host, _)), [guest]) = (place(&empty, &facts), profile.guests.as_slice()) else {
            return Ok(());
        };
        let threads = guest.threads_per_core.value as usize;
        let cores = guest.vcpus.value as usize / threads;
        let fitting: Vec<_> = host
            .nodes
            .iter()
            .filter(|node| guest.numa_nodes.as_ref().is_none_or(|wanted| wanted.value == [node.id]))
            .filter(|node| node.pages.count * host.page.0 >= guest.memory.value.0)
            .map(|node| usable(&host, &facts, node.id, threads))
            .filter(|usable| usable.len() >= cores)
            .collect();
        let result = place(profile, &facts);
        let single = result.as_ref().is_ok_and(|(placement, _)| placement.guests[0].cells.len() == 1);
        prop_assert_eq!(single, !fitting.is_empty(), "{:?}", result);
        let in_one = |caches: &Vec<CpuSet>| {
            caches.iter().any(|cache| caches.iter().filter(|other| *other == cache).count() >= cores)
        };
        if let Ok((placement, _)) = result {
            prop_assert_eq!(placement.guests[0].shared == Shared::Cache, fitting.iter().any(in_one));
        }
    }
}

/// The properties above say nothing about machines that nothing fits on, so most must be divided.
#[test]
fn the_random_machines_are_worth_it() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut divided = [0; 5];
    let mut refused = 0;
    for _ in 0..500 {
        let (facts, wish) = (machines(), wishes(4)).new_tree(&mut runner).expect("a value").current();
        match place(&written(&wish, &facts).profile, &facts) {
            Ok((placement, _)) => divided[placement.guests.len()] += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(divided.iter().all(|count| *count > 5) && refused > 50, "{divided:?} {refused}");
}
