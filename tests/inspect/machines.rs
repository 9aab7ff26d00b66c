//! Machines too large or too odd to record, as captures.

use std::fmt::Write;

const CPU: &str = "/sys/devices/system/cpu";
const NODE: &str = "/sys/devices/system/node";

/// Name and capture of each.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    vec![
        ("threads", grid(2, 8, 2, 4)),
        ("cpus-288", grid(2, 72, 2, 72)),
        ("cpus-1024", grid(2, 256, 2, 8)),
        ("an-llc-each", grid(4, 16, 1, 1)),
        ("many-nodes", grid(64, 4, 4, 2)),
        ("offline", OFFLINE.into()),
        ("no-nodes", NO_NODES.into()),
        ("escapes", format!("{OFFLINE}/etc/os-release [0644]: PRETTY_NAME=\"a\\x1b[2J b\"\n")),
    ]
}

/// `nodes` sockets, each a node of so many cores with so many threads, a last-level cache for every `shared`
/// cores; threads are numbered as on x86: first those of all cores, then their siblings.
fn grid(nodes: u32, cores: u32, threads: u32, shared: u32) -> String {
    let all = nodes * cores;
    let mut text = String::from("rtkvm-tune capture 1\n");
    let mut put = |path: String, value: String| {
        writeln!(text, "{path} [0444]: {value}").expect("a String takes all");
    };
    // The CPUs of `count` cores from `first`.
    let list = |first: u32, count: u32| {
        let range = |thread| format!("{}-{}", first + thread * all, first + count - 1 + thread * all);
        (0..threads).map(range).collect::<Vec<_>>().join(",")
    };
    for name in ["possible", "present", "online"] {
        put(format!("{CPU}/{name}"), format!("0-{}", all * threads - 1));
    }
    put(format!("{NODE}/online"), format!("0-{}", nodes - 1));
    for node in 0..nodes {
        let distances = (0..nodes).map(|other| if other == node { "10" } else { "21" });
        put(format!("{NODE}/node{node}/cpulist"), list(node * cores, cores));
        put(format!("{NODE}/node{node}/distance"), distances.collect::<Vec<_>>().join(" "));
        put(format!("{NODE}/node{node}/meminfo"), format!("Node {node} MemTotal: 67108864 kB"));
        let pool = format!("{NODE}/node{node}/hugepages/hugepages-1048576kB");
        put(format!("{pool}/nr_hugepages"), "0".into());
    }
    for core in 0..all {
        for cpu in (0..threads).map(|thread| core + thread * all) {
            let topology = format!("{CPU}/cpu{cpu}/topology");
            put(format!("{topology}/core_cpus_list"), list(core, 1));
            put(format!("{topology}/physical_package_id"), (core / cores).to_string());
            let cache = format!("{CPU}/cpu{cpu}/cache/index3/shared_cpu_list");
            put(cache, list(core / shared * shared, shared));
        }
    }
    for node in 0..nodes {
        writeln!(text, "{NODE}/node{node}/hugepages/: hugepages-1048576kB").expect("a String takes all");
    }
    for cpu in 0..all * threads {
        writeln!(text, "{CPU}/cpu{cpu}/cache/: index3").expect("a String takes all");
    }
    text
}

/// CPUs 0 and 3 do not run, and the kernel shows neither caches nor packages.
const OFFLINE: &str = "rtkvm-tune capture 1
/sys/devices/system/cpu/possible [0444]: 0-7
/sys/devices/system/cpu/present [0444]: 0-7
/sys/devices/system/cpu/online [0444]: 1-2,4-7
/sys/devices/system/cpu/isolated [0444]: 6-7
/sys/devices/system/node/online [0444]: 0
/sys/devices/system/node/node0/cpulist [0444]: 1-2,4-6
";

/// A kernel without CONFIG_NUMA.
const NO_NODES: &str = "rtkvm-tune capture 1
/sys/devices/system/cpu/online [0444]: 0-3
/proc/meminfo [0444]|
  | MemTotal:        7864320 kB
  | MemFree:         1000000 kB
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
