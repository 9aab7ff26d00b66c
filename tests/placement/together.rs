//! Many guests at once: a placement is found if there is one, and guests that have a place keep it.

use crate::machine::*;
use crate::properties::{Wish, machines, wishes, written};
use proptest::prelude::*;
use rtkvm_tune::facts::definitions::DefinedCell;
use rtkvm_tune::facts::{Definition, Facts};
use rtkvm_tune::formats::{Connection, CpuSet, Size};
use rtkvm_tune::placement::{GuestPlace, Placement, place};
use rtkvm_tune::profile::{Guest, Profile};

/// What a node has for guests: isolated cores, those of them with two threads or more, pages.
#[derive(Clone, Copy)]
struct Node {
    id: u32,
    cores: usize,
    both: usize,
    pages: u64,
}

/// What a guest needs of each of so many nodes.
fn need(guest: &Guest, page: Size, cells: usize) -> Option<(usize, bool, u64)> {
    let threads = guest.threads_per_core.value as usize;
    let (cores, pages) = (guest.vcpus.value as usize / threads, guest.memory.value.0 / page.0);
    let divides = cores.is_multiple_of(cells) && pages.is_multiple_of(cells as u64);
    divides.then(|| (cores / cells, threads == 2, pages / cells as u64))
}

/// Takes from the nodes with these places in the list what a guest needs; `None` if they do not have it.
fn take(nodes: &[Node], at: &[usize], (cores, both, pages): (usize, bool, u64)) -> Option<Vec<Node>> {
    let mut nodes = nodes.to_vec();
    for at in at {
        let node = &mut nodes[*at];
        // Guests with both threads come first here, so that the others take what is left.
        node.both = if both { node.both.checked_sub(cores)? } else { node.both };
        node.cores = node.cores.checked_sub(cores)?;
        node.pages = node.pages.checked_sub(pages)?;
    }
    Some(nodes)
}

/// Every choice of nodes, by their bits.
fn choices(count: usize) -> Vec<Vec<usize>> {
    let bits = |mask: usize| (0..count).filter(|at| mask >> at & 1 == 1).collect();
    (1..1usize << count).map(bits).collect()
}

/// The nodes that the documentation lets a guest be on: those it names; one; or as few as hold it.
fn options(guest: &Guest, page: Size, empty: &[Node]) -> Vec<Vec<usize>> {
    if let Some(named) = &guest.numa_nodes {
        let at = named.value.iter().map(|id| empty.iter().position(|node| node.id == *id));
        return at.collect::<Option<Vec<_>>>().into_iter().collect();
    }
    let holds = |choice: &Vec<usize>| {
        need(guest, page, choice.len()).is_some_and(|need| take(empty, choice, need).is_some())
    };
    let all = choices(empty.len());
    let fewest = all.iter().filter(|choice| holds(choice)).map(Vec::len).min();
    all.into_iter().filter(|choice| Some(choice.len()) == fewest).collect()
}

/// Whether every guest can be put somewhere, by trying everything.
fn fits(guests: &[&Guest], page: Size, empty: &[Node], free: &[Node]) -> bool {
    let Some((guest, rest)) = guests.split_first() else { return true };
    options(guest, page, empty).iter().any(|choice| {
        let taken = need(guest, page, choice.len()).and_then(|need| take(free, choice, need));
        taken.is_some_and(|left| fits(rest, page, empty, &left))
    })
}

/// What the nodes with isolated CPUs have beside these guests: a core of which they have a thread is theirs.
fn nodes(host: &Placement, facts: &Facts, others: &[Definition]) -> Vec<Node> {
    let with_cpus = host.nodes.iter().filter(|node| !node.isolated.is_empty());
    // What may run anywhere is pinned nowhere.
    let pins: Vec<&CpuSet> =
        others.iter().flat_map(|o| &o.pins).filter(|p| **p != facts.cpus.online).collect();
    let pinned = |cpu: u32| pins.iter().any(|pin| pin.contains(cpu));
    with_cpus
        .map(|node| {
            let isolated = facts.cpus.cores.iter().filter(|core| core.cpus.is_subset(&node.isolated));
            let free = isolated.filter(|core| !core.cpus.iter().any(pinned));
            let both = free.clone().filter(|core| core.cpus.len() > 1).count();
            let bound = |cell: &&DefinedCell| !facts.numa.shown || cell.nodes.contains(node.id);
            let cells = others.iter().flat_map(|other| &other.cells).filter(bound);
            let taken: u64 = cells.map(|cell| cell.memory.0 / host.page.0).sum();
            Node { id: node.id, cores: free.count(), both, pages: node.pages.count.saturating_sub(taken) }
        })
        .collect()
}

/// Guests that are not of the profile: the CPU of each vCPU, as a number among the machine's, or none where it may
/// run on all; its pages; its node.
type Other = (Vec<Option<u8>>, u64, u8);

fn others() -> impl Strategy<Value = Vec<Other>> {
    let pins = prop::collection::vec(prop::option::weighted(0.9, any::<u8>()), 0..=3);
    let other = (pins, 0..=4u64, any::<u8>());
    prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(other, 1..=2)]
}

/// What libvirt holds of them.
fn definitions(others: &[Other], host: &Placement, facts: &Facts) -> Vec<Definition> {
    let online: Vec<u32> = facts.cpus.online.iter().collect();
    let other = |(at, (pins, pages, node)): (usize, &Other)| {
        let pin = |number: &Option<u8>| match number {
            Some(number) => [online[usize::from(*number) % online.len()]].into_iter().collect(),
            None => facts.cpus.online.clone(),
        };
        let node = facts.numa.nodes[usize::from(*node) % facts.numa.nodes.len()].id;
        Definition {
            name: format!("other-{at}"),
            uuid: None,
            libvirt: Connection::default(),
            pins: pins.iter().map(pin).collect(),
            cells: vec![DefinedCell {
                memory: Size(pages * host.page.0),
                nodes: [node].into_iter().collect(),
            }],
            page: Some(host.page),
        }
    };
    others.iter().enumerate().map(other).collect()
}

/// The placement of a machine without guests; `None` where the machine itself cannot be divided so, or has not the
/// threads or nodes that a guest names.
pub(crate) fn empty(profile: &Profile, facts: &Facts) -> Option<Placement> {
    let most = facts.cpus.threads_per_core();
    let known = |guest: &Guest| {
        let named = guest.numa_nodes.as_ref().map(|nodes| nodes.value.as_slice()).unwrap_or_default();
        guest.threads_per_core.value as usize <= most && named.iter().all(|id| facts.numa.get(*id).is_some())
    };
    let host = place(&Profile { guests: Vec::new(), ..profile.clone() }, facts).ok()?.0;
    profile.guests.iter().all(known).then_some(host)
}

/// What libvirt holds of a guest once its placement was applied.
pub(crate) fn defined(place: &GuestPlace, page: Size) -> Definition {
    let one = |cpu: &u32| [*cpu].into_iter().collect::<CpuSet>();
    let cell = |cell: &rtkvm_tune::placement::CellPlace| DefinedCell {
        memory: Size(cell.pages * page.0),
        nodes: [cell.node].into_iter().collect(),
    };
    Definition {
        name: place.name.clone(),
        uuid: None,
        libvirt: Connection::default(),
        pins: place.cpus.iter().map(one).collect(),
        cells: place.cells.iter().map(cell).collect(),
        page: Some(page),
    }
}

/// Where a guest is, as far as it can move.
fn spot(place: &GuestPlace) -> (String, Vec<u32>, Vec<u32>) {
    (place.name.clone(), place.cpus.clone(), place.cells.iter().map(|cell| cell.node).collect())
}

/// Machines with guests that may be larger than a node, most of which name none.
pub(crate) fn crowded() -> impl Strategy<Value = (Facts, Wish)> {
    let node = prop::option::weighted(0.1, any::<u8>());
    let vcpus = prop_oneof![6 => 1..=3u32, 1 => 4..=10u32];
    let guest = (vcpus, 1..=8u64, node, prop::bool::weighted(0.1));
    (machines(), wishes(0), prop::collection::vec(guest, 1..=5))
        .prop_map(|(facts, wish, guests)| (facts, Wish { cpus: wish.cpus % 10, guests, ..wish }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_brute_force_finds_is_found((mut facts, wish) in crowded(), others in others()) {
        let parsed = written(&wish, &facts);
        let profile = &parsed.profile;
        let Some(host) = empty(profile, &facts) else { return Ok(()) };
        let others = definitions(&others, &host, &facts);
        let (nodes, left) = (nodes(&host, &facts, &[]), nodes(&host, &facts, &others));
        facts.definitions.guests = others;
        let mut guests: Vec<&Guest> = profile.guests.iter().collect();
        guests.sort_by_key(|guest| std::cmp::Reverse(guest.threads_per_core.value));
        let result = place(profile, &facts);
        prop_assert_eq!(result.is_ok(), fits(&guests, host.page, &nodes, &left), "{:?}", result);
    }

    #[test]
    fn the_order_of_the_profile_places_nobody((facts, wish) in crowded(), seed: u64) {
        let profile = written(&wish, &facts).profile;
        let Ok((first, _)) = place(&profile, &facts) else { return Ok(()) };
        let mut guests = profile.guests.clone();
        // Any other order.
        guests.sort_by_key(|guest| seed.rotate_left(guest.name.value.len() as u32 * 7) ^ hash(&guest.name.value, seed));
        let (second, _) = place(&Profile { guests, ..profile.clone() }, &facts).expect("the same guests fit");
        let sorted = |placement: &Placement| {
            let mut spots: Vec<_> = placement.guests.iter().map(spot).collect();
            spots.sort();
            spots
        };
        prop_assert_eq!(sorted(&first), sorted(&second));
    }

    #[test]
    fn whoever_has_a_place_keeps_it(
        (facts, wish) in crowded(),
        first in prop::collection::vec(any::<bool>(), 5),
        then in prop::collection::vec(any::<bool>(), 5),
        turn in any::<bool>(),
    ) {
        let profile = written(&wish, &facts).profile;
        let some = |chosen: &[bool]| {
            let guests = profile.guests.iter().zip(chosen).filter(|(_, chosen)| **chosen);
            Profile { guests: guests.map(|(guest, _)| guest.clone()).collect(), ..profile.clone() }
        };
        let Ok((before, _)) = place(&some(&first), &facts) else { return Ok(()) };
        let mut applied = facts.clone();
        applied.definitions.guests = before.guests.iter().map(|place| defined(place, before.page)).collect();
        let mut changed = some(&then);
        if turn {
            changed.guests.reverse();
        }
        let result = place(&changed, &applied);
        let added = changed.guests.iter().any(|guest| before.guests.iter().all(|g| g.name != guest.name.value));
        prop_assert!(result.is_ok() || added, "{result:?}");
        let Ok((after, _)) = result else { return Ok(()) };
        for place in &after.guests {
            if let Some(was) = before.guests.iter().find(|was| was.name == place.name) {
                prop_assert_eq!(spot(was), spot(place));
            }
        }
        // Guests that the profile does not have any more are still defined, and what they have is theirs.
        for was in before.guests.iter().filter(|was| after.guests.iter().all(|g| g.name != was.name)) {
            for place in &after.guests {
                prop_assert!(place.cores.is_disjoint(&was.cores), "{} and {}", place.name, was.name);
            }
        }
        for node in &after.nodes {
            prop_assert!(node.pages.guests + node.pages.others_guests <= node.pages.count);
        }
    }
}

/// Something that depends on all of a name.
fn hash(name: &str, seed: u64) -> u64 {
    name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Random guests say little if they never crowd: each outcome has to be common.
#[test]
fn the_random_guests_are_worth_it() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut placed, mut refused, mut spread) = (0, 0, 0);
    for _ in 0..400 {
        let (facts, wish) = crowded().new_tree(&mut runner).expect("a value").current();
        let profile = written(&wish, &facts).profile;
        if empty(&profile, &facts).is_none() || profile.guests.len() < 2 {
            continue;
        }
        match place(&profile, &facts) {
            Ok((placement, _)) => {
                placed += 1;
                spread += usize::from(placement.guests.iter().any(|guest| guest.cells.len() > 1));
            }
            Err(_) => refused += 1,
        }
    }
    assert!(placed > 40 && refused > 20 && spread > 0, "{placed} {refused} {spread}");
}

/// Guests that fill a machine in one way alone, and one more that does not fit: an answer in time either way.
#[test]
fn a_puzzle_is_solved_or_given_up_in_time() {
    let caches: Vec<(u32, u32, Vec<String>)> = (0..8)
        .map(|node| (node, node, (0..14).map(|core| (node * 14 + core).to_string()).collect()))
        .collect();
    let text: Vec<(u32, u32, Vec<&str>)> =
        caches.iter().map(|(n, p, c)| (*n, *p, c.iter().map(String::as_str).collect())).collect();
    let caches: Vec<(u32, u32, &[&str])> = text.iter().map(|(n, p, c)| (*n, *p, c.as_slice())).collect();
    let memory: Vec<(u32, u64)> = (0..8).map(|node| (node, 64 << 10)).collect();
    let facts = machine(&memory, &caches, "");
    let profile = |sizes: &[u32]| {
        let host =
            "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = '6GiB'\n".to_owned();
        let guest = |(at, vcpus): (usize, &u32)| {
            format!("[[guest]]\nname = 'g{at}'\nvcpus = {vcpus}\nmemory = '{}GiB'\n", vcpus % 5 + 2)
        };
        parsed(&(host + &sizes.iter().enumerate().map(guest).collect::<String>())).profile
    };
    // 12 CPUs of each of 8 nodes: in three ways 5 + 7, 2 + 10, 3 + 4 + 5.
    let mut sizes = [vec![5, 7], vec![2, 10], vec![3, 4, 5], vec![7, 5], vec![10, 2], vec![4, 5, 3]].concat();
    sizes.extend([5, 7, 3, 9]);
    let started = std::time::Instant::now();
    assert!(place(&profile(&sizes), &facts).is_ok());
    sizes.extend([2]);
    let errors = place(&profile(&sizes), &facts).unwrap_err();
    assert!(errors.iter().any(|error| error.message.contains("needs")), "{errors:?}");
    // Generous: it is a tenth of a second, and machines that test are busy.
    assert!(started.elapsed() < std::time::Duration::from_secs(30), "{:?}", started.elapsed());
}
