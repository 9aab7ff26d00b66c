//! Memory nodes. Source: Documentation/ABI/stable/sysfs-devices-node, admin-guide/mm/hugetlbpage.rst.

use super::{cpu_list, line, number, text};
use crate::formats::{CpuSet, HostPath, Size};
use crate::host::Read;
use serde::Serialize;

/// The memory nodes of a machine.
#[derive(Debug, Clone, Serialize)]
pub struct Numa {
    /// Whether the kernel shows nodes. Without them there is one [`Node`], number 0, with everything.
    pub shown: bool,
    /// The online nodes by ascending id; ids may be sparse, a node may have no CPUs or no memory.
    pub nodes: Vec<Node>,
}

/// One memory node.
#[derive(Debug, Clone, Serialize)]
pub struct Node {
    /// The kernel's number.
    pub id: u32,
    /// Its online CPUs; none for memory alone.
    pub cpus: CpuSet,
    /// Its memory, in bytes: `MemTotal`, without what firmware and the kernel's own tables took, with huge pages.
    pub memory: Size,
    /// Distance to each node, by node id; 10 is local.
    pub distances: Vec<(u32, u32)>,
    /// Its huge page pools, smallest page first.
    pub pools: Vec<Pool>,
}

/// The huge pages of one size on one node.
#[derive(Debug, Clone, Serialize)]
pub struct Pool {
    /// The page size in bytes.
    pub page: Size,
    /// Pages there are now (`nr_hugepages`).
    pub pages: u64,
    /// Those not in use; `None` if it is not shown.
    pub free: Option<u64>,
    /// The attribute that says, and sets, how many there are.
    pub path: HostPath,
}

impl Numa {
    /// Reads the nodes.
    pub fn read(host: &dyn Read) -> Numa {
        let dir = HostPath::new("/sys/devices/system/node");
        let ids = cpu_list(host, &dir.join("online"));
        let ids: Vec<u32> = ids.iter().flat_map(CpuSet::iter).collect();
        let nodes: Vec<_> = ids.iter().map(|id| read_node(host, &dir, *id, &ids)).collect();
        match nodes.is_empty() {
            false => Numa { shown: true, nodes },
            true => Numa { shown: false, nodes: vec![everything(host)] },
        }
    }

    /// The node with this id.
    pub fn get(&self, id: u32) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The node of a CPU.
    pub fn node_of(&self, cpu: u32) -> Option<&Node> {
        self.nodes.iter().find(|node| node.cpus.contains(cpu))
    }

    /// The nodes that have CPUs.
    pub fn with_cpus(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.cpus.is_empty())
    }
}

impl Node {
    /// Its pool of pages of this size.
    pub fn pool(&self, page: Size) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.page == page)
    }
}

/// The one node of a kernel that shows none.
fn everything(host: &dyn Read) -> Node {
    Node {
        id: 0,
        cpus: cpu_list(host, &HostPath::new("/sys/devices/system/cpu/online")).unwrap_or_default(),
        memory: total(host, &HostPath::new("/proc/meminfo")),
        distances: vec![(0, 10)],
        pools: read_pools(host, &HostPath::new("/sys/kernel/mm/hugepages")),
    }
}

fn read_node(host: &dyn Read, dir: &HostPath, id: u32, ids: &[u32]) -> Node {
    let node = dir.join(format_args!("node{id}"));
    let distances = line(host, &node.join("distance")).unwrap_or_default();
    Node {
        id,
        cpus: cpu_list(host, &node.join("cpulist")).unwrap_or_default(),
        memory: total(host, &node.join("meminfo")),
        // One figure per online node, in the order of their ids.
        distances: ids
            .iter()
            .copied()
            .zip(distances.split_whitespace().filter_map(|d| d.parse().ok()))
            .collect(),
        pools: read_pools(host, &node.join("hugepages")),
    }
}

/// `MemTotal` of a meminfo file, a node's or that of all; 0 if it does not tell.
fn total(host: &dyn Read, path: &HostPath) -> Size {
    let text = text(host, path).unwrap_or_default();
    let total = text.lines().find_map(|line| line.split_once("MemTotal:"));
    let total = total.and_then(|(_, value)| value.trim().strip_suffix("kB")?.trim().parse().ok());
    Size::from_kib(total.unwrap_or(0))
}

fn read_pools(host: &dyn Read, dir: &HostPath) -> Vec<Pool> {
    let names = host.list(dir).unwrap_or_default();
    let pool = |name: &String| {
        let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let path = dir.join(name).join("nr_hugepages");
        Some(Pool {
            page: Size::from_kib(kib),
            pages: number(host, &path)?,
            free: number(host, &dir.join(name).join("free_hugepages")),
            path,
        })
    };
    let mut pools: Vec<Pool> = names.iter().filter_map(pool).collect();
    pools.sort_by_key(|pool| pool.page);
    pools
}
