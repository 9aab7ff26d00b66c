//! Machines and profiles to divide.

use rtkvm_tune::facts::{
    Boot, Core, Cpus, Facts, Irqs, Kernel, KernelLog, Loader, Manager, Node, Numa, Owners, Pool, Power,
};
use rtkvm_tune::formats::{CpuSet, HostPath, Size};
use rtkvm_tune::host::{ReadError, Snapshot};
use rtkvm_tune::profile::{self, Parsed};
use std::fs;

/// The profile that is shipped.
pub(crate) const REFERENCE: &str = include_str!("../../profiles/kvm-realtime.toml");

pub(crate) fn cpus(list: &str) -> CpuSet {
    CpuSet::parse_kernel_list(list).expect("a CPU list")
}

/// The text of a recorded machine in `tests/captures`.
pub(crate) fn capture(name: &str) -> String {
    let path = format!("{}/tests/captures/{name}.capture", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn from_capture(text: &str) -> Facts {
    Facts::read(&Snapshot::from_capture(text).expect("a capture")).expect("a machine")
}

pub(crate) fn recorded(name: &str) -> Facts {
    from_capture(&capture(name))
}

/// The reference machine, with memory that does not change when it is recorded again.
pub(crate) fn reference() -> Facts {
    let mut facts = recorded("reference");
    facts.numa.nodes[0].memory = Size::from_kib(32_961_224);
    facts.numa.nodes[1].memory = Size::from_kib(32_976_732);
    facts
}

pub(crate) fn capabilities(name: &str) -> Facts {
    let path = format!("{}/tests/capabilities/{name}.xml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    Facts::read(&Snapshot::from_capabilities(&text).expect("capabilities")).expect("a machine")
}

/// Pools of 2 MiB and 1 GiB pages, all empty.
pub(crate) fn pools() -> Vec<Pool> {
    let pool = |kib: u64| Pool {
        page: Size::from_kib(kib),
        pages: 0,
        free: Some(0),
        path: HostPath::new(format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages")),
    };
    vec![pool(2048), pool(1 << 20)]
}

/// A machine of these cores and nodes; the CPUs of a node are those of its cores.
pub(crate) fn assemble(mut cores: Vec<Core>, nodes: &[(u32, Size)], offline: CpuSet) -> Facts {
    cores.sort_by_key(|core| core.cpus.first());
    let all = |cores: &mut dyn Iterator<Item = &Core>| cores.fold(CpuSet::new(), |all, c| all.union(&c.cpus));
    let online = all(&mut cores.iter());
    let present = online.union(&offline);
    let node = |(id, memory): &(u32, Size)| Node {
        id: *id,
        cpus: all(&mut cores.iter().filter(|core| core.node == Some(*id))),
        memory: *memory,
        distances: Vec::new(),
        pools: pools(),
    };
    Facts {
        guests: Vec::new(),
        definitions: Default::default(),
        devices: Default::default(),
        services: Vec::new(),
        threads: Vec::new(),
        queues: Vec::new(),
        manager: Manager {
            first: Err(ReadError::Absent),
            cpusets: Err(ReadError::Absent),
            units: Vec::new(),
        },
        hardware: Default::default(),
        interface_hooks: Vec::new(),
        owners: Owners::default(),
        power: Power {
            no_resume_latency: None,
            wake_up_bound: Err(ReadError::Absent),
            energy_bias: false,
            policies: Vec::new(),
            idle_states: Vec::new(),
            boost: None,
            uncore: Vec::new(),
        },
        processor: Default::default(),
        modules: Default::default(),
        numa: Numa { shown: true, nodes: nodes.iter().map(node).collect() },
        cpus: Cpus {
            possible: present.clone(),
            boot: if online.contains(0) { 0 } else { online.first().expect("a CPU") },
            isolated: None,
            nohz_full: None,
            present,
            online,
            offline,
            cores,
        },
        irqs: Irqs { default_affinity: None, irqs: Vec::new() },
        kernel: Kernel {
            log: KernelLog::default(),
            boot_id: None,
            release: None,
            preempt_rt: None,
            command_line: None,
            architecture: Default::default(),
            gigabyte_pages: Some(true),
            no_fair_server: None,
            unbound_work: None,
            pressure: false,
            workqueues: Vec::new(),
            os: None,
            os_family: Vec::new(),
        },
        boot: Boot::new(Loader::Unknown),
        trial: Default::default(),
        templates: Vec::new(),
        untrusted_templates: Vec::new(),
        installed: true,
        irqbalance: false,
    }
}

/// A machine from lists: nodes with memory in MiB, each cache with the node, the package and the cores in it.
pub(crate) fn machine(nodes: &[(u32, u64)], caches: &[(u32, u32, &[&str])], offline: &str) -> Facts {
    let offline = cpus(offline);
    let mut cores = Vec::new();
    for (node, package, threads) in caches {
        let threads: Vec<CpuSet> = threads.iter().map(|list| cpus(list).difference(&offline)).collect();
        let llc = threads.iter().fold(CpuSet::new(), |all, core| all.union(core));
        cores.extend(threads.into_iter().filter(|core| !core.is_empty()).map(|cpus| Core {
            cpus,
            id: None,
            package: Some(*package),
            die: None,
            node: Some(*node),
            llc: llc.clone(),
        }));
    }
    let nodes: Vec<_> = nodes.iter().map(|(id, mib)| (*id, Size(mib << 20))).collect();
    assemble(cores, &nodes, offline)
}

/// Two nodes of four cores with two threads each, numbered as most servers do: 0 and 8 are one core.
pub(crate) fn smt() -> Facts {
    let first: &[&str] = &["0,8", "1,9", "2,10", "3,11"];
    let second: &[&str] = &["4,12", "5,13", "6,14", "7,15"];
    machine(&[(0, 32 << 10), (1, 32 << 10)], &[(0, 0, first), (1, 1, second)], "")
}

pub(crate) fn parsed(text: &str) -> Parsed {
    let render = |failed: profile::Failed| profile::render(&failed.diagnostics, &failed.source, false);
    profile::parse("p.toml", text.as_bytes())
        .map_err(render)
        .unwrap_or_else(|error| panic!("{text}\n{error}"))
}
