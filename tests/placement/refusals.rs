//! What is refused, in the exact words. All of it is in `refusals.txt`, to be read as an operator would.

use crate::machine::*;
use rtkvm_tune::facts::definitions::DefinedCell;
use rtkvm_tune::facts::{Definition, Facts};
use rtkvm_tune::formats::{Connection, Size};
use rtkvm_tune::placement::place;
use rtkvm_tune::profile::render;
use std::fmt::Write;

fn refused(profile: &str, facts: &Facts) -> String {
    let parsed = parsed(profile);
    match place(&parsed.profile, facts) {
        Ok((placement, _)) => panic!("accepted: {profile}\n{placement:?}"),
        Err(errors) => render(&errors, &parsed.source, false),
    }
}

/// A host that keeps 6 GiB, with these lines about its CPUs.
fn host(cpus: &str) -> String {
    format!("[host]\nhousekeeping-memory-per-node = \"6GiB\"\n{cpus}\n")
}

fn count(count: &str) -> String {
    host("housekeeping-cpus-per-node = 2") + &format!("[host.hugepages]\ncount = {count}\n")
}

fn kept(kept: &str) -> String {
    host("housekeeping-cpus-per-node = 2").replace("6GiB", kept)
}

fn guests(guests: &[(&str, u32, u32, &str)]) -> String {
    let mut text = host("housekeeping-cpus-per-node = 2");
    for (name, vcpus, gib, more) in guests {
        write!(text, "[[guest]]\nname = \"{name}\"\nvcpus = {vcpus}\nmemory = \"{gib}GiB\"\n{more}\n")
            .unwrap();
    }
    text
}

/// The isolated CPUs of node 1 in caches of 1, 1, 2 and 2.
fn many_caches() -> Facts {
    let caches: [(u32, u32, &[&str]); 5] = [
        (0, 0, &["0", "1", "2", "3", "4", "5", "6", "7"]),
        (1, 1, &["8", "10"]),
        (1, 1, &["9", "11"]),
        (1, 1, &["12", "13"]),
        (1, 1, &["14", "15"]),
    ];
    machine(&[(0, 32 << 10), (1, 32 << 10)], &caches, "")
}

/// A machine whose libvirt has these guests: name, CPUs, one for each vCPU, GiB in pages of 1 GiB, node.
fn defined(mut facts: Facts, guests: &[(&str, &str, u64, u32)]) -> Facts {
    for (name, list, gib, node) in guests {
        facts.definitions.guests.push(Definition {
            name: name.to_string(),
            uuid: None,
            libvirt: Connection::default(),
            pins: cpus(list).iter().map(|cpu| [cpu].into_iter().collect()).collect(),
            cells: vec![DefinedCell { memory: Size(gib << 30), nodes: [*node].into_iter().collect() }],
            page: Some(Size::GIB),
        });
    }
    facts
}

/// With these CPUs for each vCPU of one more guest, which takes no pages.
fn pinned(facts: Facts, lists: &[&str]) -> Facts {
    let mut facts = defined(facts, &[("db", "", 0, 0)]);
    facts.definitions.guests[0].pins = lists.iter().map(|list| cpus(list)).collect();
    facts
}

/// A machine that shows its PCI devices, which are none.
fn with_devices(mut facts: Facts) -> Facts {
    facts.devices.pci = Some(Vec::new());
    facts
}

pub(crate) fn cases() -> Vec<(&'static str, String, Facts)> {
    let mut used = reference();
    used.numa.nodes[1].pools[1].pages = 30;
    used.numa.nodes[1].pools[1].free = Some(3);
    let mut other_sizes = reference();
    other_sizes.numa.nodes[0].pools[0].pages = 13 << 10;
    let mut no_pool = reference();
    no_pool.numa.nodes.iter_mut().for_each(|node| node.pools.truncate(1));
    let small_pages = from_capture(&capture("reference").replace(" pdpe1gb", ""));
    let caches: [(u32, u32, &[&str]); 2] = [(0, 0, &["0", "1", "2", "3"]), (1, 1, &["4", "5", "6", "7"])];
    let offline = machine(&[(0, 32 << 10), (1, 32 << 10)], &caches, "3,6-7");
    let caches: [(u32, u32, &[&str]); 2] =
        [(0, 0, &["0,10", "1,11"]), (1, 1, &["2,12", "3,13", "4,14", "5,15", "6,16", "7", "8"])];
    let single = machine(&[(0, 32 << 10), (1, 32 << 10)], &caches, "");
    let mut nowhere = reference();
    for core in nowhere.cpus.cores.iter_mut().filter(|core| core.cpus.first() >= Some(2)) {
        core.node = None;
    }
    nowhere.numa.nodes[0].cpus = cpus("0-1");
    nowhere.numa.nodes[1].cpus = cpus("");
    let four = |name: &'static str, node: &'static str| (name, 4, 8, node);
    vec![
        ("CPU that does not exist", host("housekeeping-cpus = \"0-1,99\""), reference()),
        (
            "CPUs that do not exist",
            host("housekeeping-cpus = \"0-1\"\nisolated-cpus = \"2-19\""),
            reference(),
        ),
        ("offline CPU", host("housekeeping-cpus = \"0-1,3\""), offline.clone()),
        ("offline CPUs", host("housekeeping-cpus = \"0-1,4\"\nisolated-cpus = \"2-3,5-7\""), offline.clone()),
        ("nothing isolated", host("housekeeping-cpus = \"0-15\""), reference()),
        ("nothing isolated, by number", host("housekeeping-cpus-per-node = 8"), reference()),
        (
            "nothing for housekeeping",
            host("housekeeping-cpus-per-node = 1\nisolated-cpus = \"0-15\""),
            reference(),
        ),
        ("boot CPU isolated", host("housekeeping-cpus = \"1,8\""), reference()),
        (
            "boot CPU isolated, by name",
            host("housekeeping-cpus-per-node = 1\nisolated-cpus = \"0-3\""),
            reference(),
        ),
        (
            "CPU in neither list",
            host("housekeeping-cpus = \"0,8\"\nisolated-cpus = \"2-7,9-15\""),
            reference(),
        ),
        (
            "boot CPU in neither list",
            host("housekeeping-cpus = \"2,8\"\nisolated-cpus = \"4-7,9-15\""),
            reference(),
        ),
        ("cores split between roles", host("housekeeping-cpus = \"0-1,4-5\""), smt()),
        (
            "a core split between two lists",
            host("housekeeping-cpus = \"0,8,1,4,12\"\nisolated-cpus = \"2-3,5-7,9-11,13-15\""),
            smt(),
        ),
        (
            "a core split by isolation",
            host("housekeeping-cpus-per-node = 1\nisolated-cpus = \"1-3,5-7,10-11,13-15\""),
            smt(),
        ),
        (
            "isolation leaves too few",
            host("housekeeping-cpus-per-node = 2\nisolated-cpus = \"1-7,10-15\""),
            reference(),
        ),
        ("more housekeeping CPUs than a node has", host("housekeeping-cpus-per-node = 9"), reference()),
        ("more memory kept than a node has", kept("40GiB"), reference()),
        ("memory kept leaves no page", kept("31GiB"), reference()),
        ("memory kept is too little", kept("100MiB") + "[host.hugepages]\nsize = \"2MiB\"\n", reference()),
        ("pages of other sizes leave none", kept("6GiB"), other_sizes.clone()),
        ("more pages than a node has", count("32"), reference()),
        ("more pages than pages of other sizes leave", count("{ \"0\" = 26 }"), other_sizes),
        (
            "more pages than memory could ever have",
            count("16777216").replace("\ncount", "\nsize = \"16GiB\"\ncount"),
            reference(),
        ),
        ("pages leave too little", count("{ \"0\" = 25, \"1\" = 31 }"), reference()),
        ("pages of a node that does not exist", count("{ \"0\" = 25, \"2\" = 25 }"), reference()),
        ("guest with more CPUs than its node", guests(&[("rt0", 8, 16, "numa-node = 1")]), reference()),
        ("guest with more CPUs than any node", guests(&[("rt0", 7, 16, "")]), reference()),
        ("guest with more cores than its node", guests(&[("rt0", 4, 16, "numa-node = 1")]), smt()),
        (
            "guest with more cores of two threads than its node",
            guests(&[("rt0", 8, 16, "numa-node = 1\nthreads-per-core = 2")]),
            smt(),
        ),
        ("guest with more memory than its node", guests(&[("rt0", 4, 26, "numa-node = 1")]), reference()),
        ("guest with more of everything", guests(&[("rt0", 8, 26, "numa-node = 1")]), reference()),
        (
            "guest on a node without isolated CPUs",
            host("housekeeping-cpus = \"0-1,8-15\"")
                + "[[guest]]\nname = \"rt0\"\nvcpus = 2\nmemory = \"1GiB\"\nnuma-node = 1\n",
            reference(),
        ),
        ("guest on a node that does not exist", guests(&[("rt0", 4, 16, "numa-node = 2")]), reference()),
        (
            "isolated CPUs on no node",
            host("housekeeping-cpus = \"0-1\"") + "[[guest]]\nname = \"rt0\"\nvcpus = 2\nmemory = \"1GiB\"\n",
            nowhere,
        ),
        (
            "CPUs taken by other guests",
            guests(&[
                ("rt0", 2, 2, "numa-node = 1"),
                ("rt1", 2, 2, "numa-node = 1"),
                ("rt3", 4, 2, "numa-node = 1"),
            ]),
            many_caches(),
        ),
        (
            "a node is full",
            guests(&[("a", 6, 1, "numa-node = 0"), ("b", 1, 1, "numa-node = 0\nos = \"other\"")]),
            reference(),
        ),
        ("no node has enough left", guests(&[four("a", ""), four("b", ""), four("c", "")]), reference()),
        (
            "nodes that have enough together, and not each",
            guests(&[("a", 2, 8, "numa-node = 0"), ("b", 10, 20, "numa-nodes = [0, 1]")]),
            reference(),
        ),
        (
            "a smaller one would be put on fewer nodes",
            guests(&[four("a", "numa-node = 0"), four("b", "numa-node = 1"), ("c", 8, 4, "")]),
            reference(),
        ),
        ("guest larger than the machine", guests(&[("rt0", 16, 16, "")]), reference()),
        (
            "both threads of cores that another guest has",
            guests(&[("a", 2, 8, "numa-node = 1"), ("b", 4, 8, "numa-node = 1\nthreads-per-core = 2")]),
            smt(),
        ),
        (
            "what libvirt has for other guests",
            guests(&[four("a", ""), four("b", "numa-node = 1")]),
            defined(reference(), &[("db", "2-4", 12, 0), ("web", "10-11", 20, 1)]),
        ),
        (
            "another guest whose vCPUs are pinned to every CPU, one to each",
            guests(&[four("a", "")]),
            defined(reference(), &[("db", "0-15", 12, 0)]),
        ),
        (
            "another guest whose vCPUs are pinned to every CPU, a node to each",
            guests(&[four("a", "")]),
            pinned(reference(), &["0-7", "8-15"]),
        ),
        (
            "places that libvirt has are kept",
            guests(&[("rt0", 2, 2, ""), ("rt1", 6, 2, "")]),
            defined(reference(), &[("rt0", "2-3", 2, 0), ("web", "10-11", 2, 1)]),
        ),
        (
            "in the way is a guest that other cores of its node would do for",
            guests(&[
                ("a", 6, 1, "threads-per-core = 2"),
                ("b", 1, 1, "os = \"other\""),
                ("c", 1, 1, "os = \"other\""),
                ("d", 2, 1, ""),
            ]),
            defined(single, &[("c", "1", 1, 0), ("d", "4-5", 1, 1)]),
        ),
        (
            "a device that is not there",
            guests(&[(
                "a",
                2,
                2,
                "[[guest.hostdev]]\ndevice = '81:00.0'\n[[guest.network]]\nvirtual-function = 'ens1f0/3'",
            )]),
            with_devices(reference()),
        ),
        (
            "pages taken by other guests",
            guests(&[("a", 2, 16, "numa-node = 1"), ("b", 2, 10, "numa-node = 1")]),
            reference(),
        ),
        ("1 GiB pages on a processor without them", guests(&[]), small_pages),
        ("no pool of this size", guests(&[]) + "[host.hugepages]\nsize = \"16MiB\"\n", reference()),
        ("no pool of 1 GiB pages", guests(&[]), no_pool),
        ("more pages in use than wanted", guests(&[]), used.clone()),
        ("more pages in use than counted", count("{ \"0\" = 26 }"), used),
        ("two threads per core without SMT", guests(&[("rt0", 4, 16, "threads-per-core = 2")]), reference()),
        (
            "everything at once",
            "[host]\nhousekeeping-cpus = \"1,99\"\nhousekeeping-memory-per-node = \"6GiB\"
[host.hugepages]\ncount = { \"0\" = 40, \"7\" = 1 }
[[guest]]\nname = \"a\"\nvcpus = 2\nmemory = \"1GiB\"\nnuma-node = 9
[[guest]]\nname = \"b\"\nvcpus = 2\nmemory = \"1GiB\"\nthreads-per-core = 2\n"
                .into(),
            reference(),
        ),
        (
            "several guests at once",
            guests(&[
                ("a", 20, 1, "numa-node = 0"),
                ("b", 2, 60, "numa-node = 1"),
                ("c", 4, 1, "numa-node = 3"),
            ]),
            reference(),
        ),
    ]
}

#[test]
fn every_refusal_has_these_words() {
    let mut text = String::new();
    for (title, profile, facts) in cases() {
        writeln!(text, "## {title}\n{}", refused(&profile, &facts)).unwrap();
    }
    let path = format!("{}/tests/placement/refusals.txt", env!("CARGO_MANIFEST_DIR"));
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if text != expected {
        let written = format!("{}/refusals.txt", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&written, &text).expect("written");
        let diff = similar::TextDiff::from_lines(&expected, &text);
        panic!("other words, now in {written}:\n{}", diff.unified_diff());
    }
}

#[test]
fn the_sentence_of_the_reference() {
    let (_, profile, facts) =
        cases().into_iter().find(|case| case.0 == "CPUs taken by other guests").expect("it");
    let sentence = "error: guest rt3 needs 4 CPUs on node 1, 2 are left: rt0 has 12-13, rt1 has 14-15\n";
    let text = refused(&profile, &facts);
    assert!(text.starts_with(sentence), "{text}");
}

#[test]
fn a_size_is_never_rounded_up_to_fit() {
    let mut facts = reference();
    facts.numa.nodes[1].memory = Size((31 << 30) - 1);
    assert!(refused(&guests(&[("rt0", 4, 25, "numa-node = 1")]), &facts).contains("which gets 24"));
}
