//! What known machines get.

use crate::machine::*;
use rtkvm_tune::facts::Facts;
use rtkvm_tune::formats::Size;
use rtkvm_tune::placement::{Placement, place};
use rtkvm_tune::profile::render;
use std::fmt::Write;

/// The placement in lines, and after it the warnings.
fn divided(profile: &str, facts: &Facts) -> String {
    let parsed = parsed(profile);
    let shown = |found: &[_]| render(found, &parsed.source, false);
    match place(&parsed.profile, facts) {
        Ok((placement, warnings)) => lines(&placement) + &shown(&warnings),
        Err(errors) => panic!("{}", shown(&errors)),
    }
}

fn lines(placement: &Placement) -> String {
    let mut text = format!("housekeeping {}, isolated {}\n", placement.housekeeping, placement.isolated);
    for node in &placement.nodes {
        writeln!(
            text,
            "node {}: {} + {}, {} pages of {}, {} used",
            node.id, node.housekeeping, node.isolated, node.pages.count, placement.page, node.pages.guests
        )
        .unwrap();
    }
    for guest in &placement.guests {
        writeln!(
            text,
            "{} on node {}: CPUs {:?} of cores {}, emulator {}, {} pages, {}",
            guest.name,
            guest.node,
            guest.cpus,
            guest.cores,
            guest.emulator,
            guest.pages,
            guest.shared.name()
        )
        .unwrap();
    }
    text
}

/// The host of the reference profile with other guests: name, vCPUs, memory in GiB, further keys.
fn with_guests(guests: &[(&str, u32, u32, &str)]) -> String {
    let mut text =
        "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = \"6GiB\"\n".to_owned();
    for (name, vcpus, gib, more) in guests {
        write!(text, "[[guest]]\nname = \"{name}\"\nvcpus = {vcpus}\nmemory = \"{gib}GiB\"\n{more}\n")
            .unwrap();
    }
    text
}

#[test]
fn the_guide_gets_26_pages_of_its_32_gib() {
    assert_eq!(
        divided(REFERENCE, &capabilities("guide")),
        "housekeeping 0-1,8-9, isolated 2-7,10-15
node 0: 0-1 + 2-7, 26 pages of 1GiB, 0 used
node 1: 8-9 + 10-15, 26 pages of 1GiB, 16 used
rt0 on node 1: CPUs [12, 13, 14, 15] of cores 12-15, emulator 8-9, 16 pages, one last-level cache
"
    );
}

#[test]
fn a_real_kernel_of_the_reference_machine_gets_25() {
    let expected = "housekeeping 0-1,8-9, isolated 2-7,10-15
node 0: 0-1 + 2-7, 25 pages of 1GiB, 0 used
node 1: 8-9 + 10-15, 25 pages of 1GiB, 16 used
rt0 on node 1: CPUs [12, 13, 14, 15] of cores 12-15, emulator 8-9, 16 pages, one last-level cache
";
    assert_eq!(divided(REFERENCE, &recorded("reference")), expected);
    // Neither the pages that are there already nor isolation of the running kernel change the plan.
    assert_eq!(divided(REFERENCE, &recorded("reference-tuned")), expected);
}

#[test]
fn interleaved_cpus_stay_on_their_nodes() {
    assert_eq!(
        divided(REFERENCE, &recorded("interleaved")),
        "housekeeping 0-1,4-5, isolated 2-3,6-15
node 0: 0-1 + 2-3,8-11, 25 pages of 1GiB, 0 used
node 1: 4-5 + 6-7,12-15, 25 pages of 1GiB, 16 used
rt0 on node 1: CPUs [12, 13, 14, 15] of cores 12-15, emulator 4-5, 16 pages, one last-level cache
"
    );
}

#[test]
fn with_smt_cores_stay_whole() {
    // One thread per core: the siblings 13 and 14 stay idle. Two: neighbours in the order of the vCPUs.
    let profile = with_guests(&[
        ("idle", 2, 4, "numa-node = 1"),
        ("both", 4, 4, "threads-per-core = 2\nnuma-node = 0"),
    ]);
    assert_eq!(
        divided(&profile, &smt()),
        "housekeeping 0,4,8,12, isolated 1-3,5-7,9-11,13-15
node 0: 0,8 + 1-3,9-11, 26 pages of 1GiB, 4 used
node 1: 4,12 + 5-7,13-15, 26 pages of 1GiB, 4 used
idle on node 1: CPUs [5, 6] of cores 5-6,13-14, emulator 4,12, 4 pages, one last-level cache
both on node 0: CPUs [1, 9, 2, 10] of cores 1-2,9-10, emulator 0,8, 4 pages, one last-level cache
"
    );
}

#[test]
fn an_odd_number_of_housekeeping_cpus_is_rounded_to_cores() {
    let profile = with_guests(&[]).replace("node = 2", "node = 3");
    assert_eq!(
        divided(&profile, &smt()),
        "housekeeping 0-1,4-5,8-9,12-13, isolated 2-3,6-7,10-11,14-15
node 0: 0-1,8-9 + 2-3,10-11, 26 pages of 1GiB, 0 used
node 1: 4-5,12-13 + 6-7,14-15, 26 pages of 1GiB, 0 used
warning: node 0 keeps 4 housekeeping CPUs, 0-1,8-9, instead of 3: cores are never split
 --> p.toml:2:30
  |
2 | housekeeping-cpus-per-node = 3
  |                              ^

warning: node 1 keeps 4 housekeeping CPUs, 4-5,12-13, instead of 3: cores are never split
 --> p.toml:2:30
  |
2 | housekeeping-cpus-per-node = 3
  |                              ^
"
    );
}

#[test]
fn nodes_inside_a_socket_are_nodes() {
    let core: [&[&str]; 4] =
        [&["0", "1", "2", "3"], &["4", "5", "6", "7"], &["8", "9", "10", "11"], &["12", "13", "14", "15"]];
    let caches = [(0, 0, core[0]), (1, 0, core[1]), (2, 1, core[2]), (3, 1, core[3])];
    let facts = machine(&[(0, 16 << 10), (1, 16 << 10), (2, 16 << 10), (3, 16 << 10)], &caches, "");
    let profile = with_guests(&[("a", 2, 8, ""), ("b", 2, 8, "numa-node = 0"), ("c", 2, 8, "")]);
    assert_eq!(
        divided(&profile, &facts),
        "housekeeping 0-1,4-5,8-9,12-13, isolated 2-3,6-7,10-11,14-15
node 0: 0-1 + 2-3, 10 pages of 1GiB, 8 used
node 1: 4-5 + 6-7, 10 pages of 1GiB, 8 used
node 2: 8-9 + 10-11, 10 pages of 1GiB, 8 used
node 3: 12-13 + 14-15, 10 pages of 1GiB, 0 used
a on node 1: CPUs [6, 7] of cores 6-7, emulator 4-5, 8 pages, one last-level cache
b on node 0: CPUs [2, 3] of cores 2-3, emulator 0-1, 8 pages, one last-level cache
c on node 2: CPUs [10, 11] of cores 10-11, emulator 8-9, 8 pages, one last-level cache
"
    );
}

#[test]
fn a_node_of_memory_alone_gets_pages_only_by_name() {
    let cores: &[&str] = &["0", "1", "2", "3"];
    let facts = machine(&[(0, 32 << 10), (2, 16 << 10)], &[(0, 0, cores)], "");
    let profile = with_guests(&[]);
    let none = "housekeeping 0-1, isolated 2-3
node 0: 0-1 + 2-3, 26 pages of 1GiB, 0 used
node 2:  + , 0 pages of 1GiB, 0 used
";
    assert_eq!(divided(&profile, &facts), none);
    assert_eq!(divided(&format!("{profile}[host.hugepages]\ncount = 26"), &facts), none);
    // Named, all of it may be pages: nothing runs there.
    assert_eq!(
        divided(&format!("{profile}[host.hugepages]\ncount = {{ \"2\" = 16 }}"), &facts),
        "housekeeping 0-1, isolated 2-3
node 0: 0-1 + 2-3, 0 pages of 1GiB, 0 used
node 2:  + , 16 pages of 1GiB, 0 used
"
    );
}

#[test]
fn offline_cpus_belong_to_nobody() {
    let caches: [(u32, u32, &[&str]); 2] = [(0, 0, &["0", "1", "2", "3"]), (1, 1, &["4", "5", "6", "7"])];
    let facts = machine(&[(0, 32 << 10), (1, 32 << 10)], &caches, "0,6");
    assert_eq!(facts.cpus.boot, 1);
    assert_eq!(
        divided(&with_guests(&[]), &facts),
        "housekeeping 1-2,4-5, isolated 3,7
node 0: 1-2 + 3, 26 pages of 1GiB, 0 used
node 1: 4-5 + 7, 26 pages of 1GiB, 0 used
"
    );
    // A core whose sibling is offline is whole.
    let facts = machine(&[(0, 32 << 10)], &[(0, 0, &["0,4", "1,5", "2,6", "3,7"])], "4-5");
    let text = divided(&with_guests(&[]), &facts);
    assert!(text.starts_with("housekeeping 0-1, isolated 2-3,6-7\n"), "{text}");
}

#[test]
fn the_boot_cpu_is_kept_wherever_it_is() {
    let mut facts = smt();
    facts.cpus.boot = 14;
    let text = divided(&with_guests(&[]), &facts);
    assert!(text.starts_with("housekeeping 0,6,8,14, isolated 1-5,7,9-13,15\n"), "{text}");
}

/// What `procfs` needs of /proc/meminfo.
const MEMINFO: &str = "/proc/meminfo [0444]|
  | MemTotal:       65941036 kB
  | MemFree:               0 kB
  | Buffers:               0 kB
  | Cached:                0 kB
  | SwapCached:            0 kB
  | Active:                0 kB
  | Inactive:              0 kB
  | SwapTotal:             0 kB
  | SwapFree:              0 kB
  | Dirty:                 0 kB
  | Writeback:             0 kB
  | Mapped:                0 kB
  | Slab:                  0 kB
  | Committed_AS:          0 kB
  | VmallocTotal:          0 kB
  | VmallocUsed:           0 kB
  | VmallocChunk:          0 kB
";

#[test]
fn a_kernel_without_nodes_has_one() {
    let text = capture("reference");
    let lines: Vec<&str> = text.lines().collect();
    let mut flat = String::new();
    let mut inside = false;
    for line in lines {
        // A block belongs to the path above it.
        inside = if line.starts_with("  ") { inside } else { line.starts_with("/sys/devices/system/node") };
        if !inside {
            flat += &format!("{line}\n");
        }
    }
    flat += MEMINFO;
    flat += "/sys/kernel/mm/hugepages/: hugepages-1048576kB\n";
    flat += "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages [0644]: 0\n";
    let facts = from_capture(&flat);
    assert!(!facts.numa.shown);
    assert_eq!(
        divided(&REFERENCE.replace("numa-node = 1", "numa-node = 0"), &facts),
        "housekeeping 0-1, isolated 2-15
node 0: 0-1 + 2-15, 56 pages of 1GiB, 16 used
rt0 on node 0: CPUs [4, 5, 6, 7] of cores 4-7, emulator 0-1, 16 pages, one last-level cache
"
    );
}

#[test]
fn an_explicit_count_is_taken_with_a_warning() {
    let profile = with_guests(&[]) + "[host.hugepages]\ncount = { \"0\" = 26, \"1\" = 25 }\n";
    assert_eq!(
        divided(&profile, &reference()),
        "housekeeping 0-1,8-9, isolated 2-7,10-15
node 0: 0-1 + 2-7, 26 pages of 1GiB, 0 used
node 1: 8-9 + 10-15, 25 pages of 1GiB, 0 used
warning: node 0 has 31.43 GiB; `count` asks for 26 pages of 1GiB: 5.43 GiB are left of the 6.00 GiB to be kept
 --> p.toml:5:17
  |
5 | count = { \"0\" = 26, \"1\" = 25 }
  |                 ^^
"
    );
}

#[test]
fn guests_that_name_their_node_come_first() {
    let profile = with_guests(&[("any", 4, 8, ""), ("named", 4, 8, "numa-node = 0")]);
    let text = divided(&profile, &recorded("reference"));
    let expected =
        "any on node 1: CPUs [12, 13, 14, 15] of cores 12-15, emulator 8-9, 8 pages, one last-level cache
named on node 0: CPUs [4, 5, 6, 7] of cores 4-7, emulator 0-1, 8 pages, one last-level cache
";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_guest_shares_the_closest_thing_it_can() {
    // One node, two packages, the first with caches of 1, 3, 3 cores, the second with one of 8.
    let caches: [(u32, u32, &[&str]); 4] = [
        (0, 0, &["0", "1", "2"]),
        (0, 0, &["3", "4", "5"]),
        (0, 0, &["6", "7", "8"]),
        (0, 1, &["9", "10", "11", "12", "13", "14", "15", "16"]),
    ];
    let facts = machine(&[(0, 64 << 10)], &caches, "");
    let share = |vcpus| {
        let text = divided(&with_guests(&[("g", vcpus, 1, "")]), &facts);
        text.lines().last().expect("a guest").replace(" of cores", ";").replace(", emulator 0-1, 1 pages", "")
    };
    assert_eq!(share(3), "g on node 0: CPUs [3, 4, 5]; 3-5, one last-level cache");
    assert_eq!(share(8), "g on node 0: CPUs [9, 10, 11, 12, 13, 14, 15, 16]; 9-16, one last-level cache");
    assert_eq!(
        share(10),
        "g on node 0: CPUs [3, 4, 9, 10, 11, 12, 13, 14, 15, 16]; 3-4,9-16, several sockets of one node"
    );
    // Two whole caches rather than what is left of a third.
    let caches = &caches[..3];
    let facts = machine(&[(0, 64 << 10)], caches, "");
    let text = divided(&with_guests(&[("g", 6, 1, "")]), &facts);
    assert!(
        text.contains("CPUs [3, 4, 5, 6, 7, 8] of cores 3-8, emulator 0-1, 1 pages, one socket"),
        "{text}"
    );
}

#[test]
fn a_node_without_housekeeping_cpus_lends_from_others_with_a_warning() {
    let profile = REFERENCE.replace("housekeeping-cpus-per-node = 2", "housekeeping-cpus = \"0-1\"");
    let text = divided(&profile, &recorded("reference"));
    assert!(text.contains("of cores 8-11, emulator 0-1, 16 pages"), "{text}");
    let warning = "warning: node 1 has no housekeeping CPU for the emulator threads of guest rt0\n";
    assert!(text.contains(warning), "{text}");
}

#[test]
fn what_emulators_need_of_a_node_is_warned_of() {
    let said = |cpus: u32, kept: &str, guests: &[u32]| {
        let guest = |(at, vcpus): (usize, &u32)| {
            format!("[[guest]]\nname = 'g{at}'\nvcpus = {vcpus}\nmemory = '2GiB'\nnuma-node = 0\n")
        };
        let guests: String = guests.iter().enumerate().map(guest).collect();
        let host =
            format!("[host]\nhousekeeping-cpus-per-node = {cpus}\nhousekeeping-memory-per-node = '{kept}'\n");
        let (_, warnings) = place(&parsed(&(host + &guests)).profile, &reference()).expect("they fit");
        let told = warnings
            .into_iter()
            .map(|warning| format!("{}: {}", warning.message, warning.help.unwrap_or_default()));
        told.collect::<Vec<_>>()
    };
    assert_eq!(said(1, "6GiB", &[6]), [""; 0]);
    assert_eq!(
        said(1, "6GiB", &[4, 3]),
        [
            "node 0 has 1 housekeeping CPU for the emulator and I/O threads of 7 vCPUs: 2 would be one for every 6 vCPUs"
        ]
    );
    assert_eq!(said(2, "1GiB", &[2, 2]), [""; 0]);
    assert_eq!(
        said(2, "1GiB", &[2, 2, 2]),
        [
            "node 0 keeps 1.43 GiB, and the QEMU processes of its 3 guests may lock 1.50 GiB beside their memory: keep \
          more memory for the system, or fewer guests on the node"
        ]
    );
}

#[test]
fn requests_are_served_where_the_emulator_is() {
    let facts = recorded("sub-numa");
    let host = "[host]\nhousekeeping-cpus = \"0,8\"\nhousekeeping-memory-per-node = \"6GiB\"\n";
    let guest = "[[guest]]\nname = \"g\"\nvcpus = 4\nmemory = \"4GiB\"\nnuma-nodes = [1, 2]\n";
    let (placement, _) = place(&parsed(&format!("{host}{guest}")).profile, &facts).expect("it fits");
    // Node 1 has no housekeeping CPU.
    let [of_emulator, of_io] =
        [&placement.guests[0].emulator, &placement.guests[0].io].map(ToString::to_string);
    assert_eq!((&*of_emulator, &*of_io), ("8", "8"));
}

#[test]
fn pages_of_other_sizes_are_not_given_twice() {
    let mut facts = recorded("reference");
    facts.numa.nodes[0].pools[0].pages = 5 << 9;
    assert_eq!(facts.numa.nodes[0].pools[0].page, Size(2 << 20));
    let text = divided(&with_guests(&[]), &facts);
    assert!(text.contains("node 0: 0-1 + 2-7, 20 pages of 1GiB, 0 used\n"), "{text}");
}

#[test]
fn recorded_machines_are_divided_by_what_they_have() {
    let guest = |keys| with_guests(&[("g", 2, 4, keys)]);
    let both = guest("threads-per-core = 2");
    for (name, profile, expected) in [
        (
            "smt",
            guest(""),
            "housekeeping 0-1,8-9, isolated 2-7,10-15
node 0: 0-1 + 2-7, 25 pages of 1GiB, 4 used
node 1: 8-9 + 10-15, 25 pages of 1GiB, 0 used
g on node 0: CPUs [2, 4] of cores 2-5, emulator 0-1, 4 pages, one last-level cache
",
        ),
        (
            "smt",
            both,
            "housekeeping 0-1,8-9, isolated 2-7,10-15
node 0: 0-1 + 2-7, 25 pages of 1GiB, 4 used
node 1: 8-9 + 10-15, 25 pages of 1GiB, 0 used
g on node 0: CPUs [2, 3] of cores 2-3, emulator 0-1, 4 pages, one last-level cache
",
        ),
        (
            "sub-numa",
            guest("numa-node = 3"),
            "housekeeping 0-1,4-5,8-9,12-13, isolated 2-3,6-7,10-11,14-15
node 0: 0-1 + 2-3, 9 pages of 1GiB, 0 used
node 1: 4-5 + 6-7, 9 pages of 1GiB, 0 used
node 2: 8-9 + 10-11, 9 pages of 1GiB, 0 used
node 3: 12-13 + 14-15, 9 pages of 1GiB, 4 used
g on node 3: CPUs [14, 15] of cores 14-15, emulator 12-13, 4 pages, one last-level cache
",
        ),
        (
            "memory-only",
            guest("numa-node = 1"),
            "housekeeping 0-1,8-9, isolated 2-7,10-15
node 0: 0-1 + 2-7, 25 pages of 1GiB, 0 used
node 1: 8-9 + 10-15, 25 pages of 1GiB, 4 used
node 2:  + , 0 pages of 1GiB, 0 used
g on node 1: CPUs [10, 11] of cores 10-11, emulator 8-9, 4 pages, one last-level cache
",
        ),
        (
            // 0, 3, 10 and 11 are offline.
            "offline",
            guest(""),
            "housekeeping 1-2,8-9, isolated 4-7,12-15
node 0: 1-2 + 4-7, 25 pages of 1GiB, 4 used
node 1: 8-9 + 12-15, 25 pages of 1GiB, 0 used
g on node 0: CPUs [4, 5] of cores 4-5, emulator 1-2, 4 pages, one last-level cache
",
        ),
        (
            "no-numa",
            guest(""),
            "housekeeping 0-1, isolated 2-15
node 0: 0-1 + 2-15, 56 pages of 1GiB, 4 used
g on node 0: CPUs [2, 3] of cores 2-3, emulator 0-1, 4 pages, one last-level cache
",
        ),
    ] {
        assert_eq!(divided(&profile, &recorded(name)), expected, "{name}");
    }
}
