//! CPUs and what they share. Source: Documentation/admin-guide/cputopology.rst and
//! Documentation/ABI/stable/sysfs-devices-system-cpu.

use super::{Numa, cpu_list, numbered, once};
use crate::formats::{CpuSet, HostPath};
use crate::host::Read;
use serde::Serialize;
use std::collections::HashMap;

/// The CPUs of a machine.
#[derive(Debug, Clone, Serialize)]
pub struct Cpus {
    /// CPUs that could ever be there.
    pub possible: CpuSet,
    /// CPUs that are there, online or not.
    pub present: CpuSet,
    /// CPUs that run.
    pub online: CpuSet,
    /// CPUs that are there and do not run.
    pub offline: CpuSet,
    /// The CPU the machine boots on: 0, or the lowest online one. Firmware and legacy interrupts come to it.
    pub boot: u32,
    /// CPUs that the running kernel keeps out of scheduling domains; `None` if it does not tell.
    pub isolated: Option<CpuSet>,
    /// CPUs that the running kernel keeps without a tick; `None` if it cannot (`CONFIG_NO_HZ_FULL`).
    pub nohz_full: Option<CpuSet>,
    /// The online cores, ordered by their first CPU.
    pub cores: Vec<Core>,
}

/// One physical core: the online CPUs (threads) that share it.
#[derive(Debug, Clone, Serialize)]
pub struct Core {
    /// Its threads.
    pub cpus: CpuSet,
    /// The kernel's `core_id`, unique in its package at best.
    pub id: Option<u32>,
    /// The physical package (socket).
    pub package: Option<u32>,
    /// The die in the package.
    pub die: Option<u32>,
    /// The memory node; `None` if no node lists it.
    pub node: Option<u32>,
    /// The CPUs of the same node that share its last-level cache; where the kernel shows no cache, its package
    /// and die.
    pub llc: CpuSet,
}

impl Cpus {
    /// Reads the CPUs. `numa` says which node each is on.
    ///
    /// # Errors
    /// The kernel's list of online CPUs cannot be read.
    pub fn read(host: &dyn Read, numa: &Numa) -> Result<Cpus, String> {
        let dir = HostPath::new("/sys/devices/system/cpu");
        let list = |name: &str| cpu_list(host, &dir.join(name));
        let online = list("online").filter(|cpus| !cpus.is_empty());
        let online =
            online.ok_or_else(|| format!("no online CPUs: {dir}/online is missing or not a CPU list"))?;
        let present = list("present").unwrap_or_else(|| online.clone()).union(&online);
        let possible = list("possible").unwrap_or_else(|| present.clone()).union(&present);
        let first = online.first().expect("not empty");
        Ok(Cpus {
            cores: read_cores(host, &dir, &online, numa),
            boot: if online.contains(0) { 0 } else { first },
            offline: present.difference(&online),
            isolated: list("isolated"),
            nohz_full: list("nohz_full"),
            possible,
            present,
            online,
        })
    }

    /// The core of a CPU; `None` if it is not online.
    pub fn core_of(&self, cpu: u32) -> Option<&Core> {
        self.cores.iter().find(|core| core.cpus.contains(cpu))
    }

    /// The most threads that a core has.
    pub fn threads_per_core(&self) -> usize {
        self.cores.iter().map(|core| core.cpus.len()).max().unwrap_or(1)
    }
}

/// What cores have in common that share a last-level cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Group {
    /// The node, and the cache.
    Cache(Option<u32>, u32),
    /// Without a cache the node, the package and the die.
    Die(Option<u32>, Option<u32>, Option<u32>),
}

/// What a CPU shares is read from the first of those that share it: the kernel shows the same to each.
fn read_cores(host: &dyn Read, dir: &HostPath, online: &CpuSet, numa: &Numa) -> Vec<Core> {
    let mut cores: Vec<Core> = Vec::new();
    let mut seen = CpuSet::new();
    // The last-level cache of a CPU, by the first of those that share it.
    let mut caches: HashMap<u32, u32> = HashMap::new();
    let mut groups: HashMap<Group, CpuSet> = HashMap::new();
    let mut keys: Vec<Group> = Vec::new();
    for cpu in online.iter() {
        if seen.contains(cpu) {
            continue;
        }
        let topology = dir.join(format_args!("cpu{cpu}/topology"));
        let shared = |name: &str| {
            once(host, &topology.join(name), |cpus| CpuSet::parse_kernel_list(cpus).ok())
                .map(|cpus| cpus.intersection(online))
                .filter(|s| s.contains(cpu))
        };
        let number = |name: &str| once(host, &topology.join(name), |number| number.parse().ok());
        let alone = || CpuSet::from_iter([cpu]);
        // thread_siblings_list is the name before 5.3.
        let cpus = shared("core_cpus_list").or_else(|| shared("thread_siblings_list")).unwrap_or_else(alone);
        let cpus = cpus.difference(&seen);
        seen = seen.union(&cpus);
        if !caches.contains_key(&cpu) {
            let shared = last_level_cache(host, dir, cpu).unwrap_or_default();
            for other in shared.iter() {
                caches.entry(other).or_insert(cpu);
            }
        }
        let core = Core {
            id: number("core_id"),
            package: number("physical_package_id"),
            die: number("die_id"),
            node: numa.node_of(cpu).map(|node| node.id),
            // Below, when every core is known.
            llc: CpuSet::new(),
            cpus,
        };
        let key = match caches.get(&cpu) {
            Some(cache) => Group::Cache(core.node, *cache),
            None => Group::Die(core.node, core.package, core.die),
        };
        let group = groups.entry(key).or_default();
        core.cpus.iter().for_each(|cpu| group.insert(cpu));
        keys.push(key);
        cores.push(core);
    }
    for (core, key) in cores.iter_mut().zip(keys) {
        core.llc = groups[&key].clone();
    }
    cores
}

/// The CPUs that share the highest cache of `cpu`: the kernel numbers the `indexN` directories upwards.
fn last_level_cache(host: &dyn Read, dir: &HostPath, cpu: u32) -> Option<CpuSet> {
    let cache = dir.join(format_args!("cpu{cpu}/cache"));
    let last = *numbered(host, &cache, "index").ok()?.last()?;
    cpu_list(host, &cache.join(format_args!("index{last}/shared_cpu_list"))).filter(|cpus| cpus.contains(cpu))
}
