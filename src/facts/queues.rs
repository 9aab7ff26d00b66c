//! Queues of network interfaces, and which CPUs they are steered to. Source: Linux networking/scaling.rst.

use super::{number, numbered, text};
use crate::formats::{CpuSet, HostPath, channels};
use crate::host::Read;

/// A queue with a mask of CPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its interface and name: `eth0/rx-1`.
    pub name: String,
    /// Where the mask is.
    pub path: HostPath,
    /// The CPUs; none where it is not steered.
    pub cpus: CpuSet,
}

/// How many channels a network interface of a device has: pairs of queues with an interrupt each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channels {
    /// The interface.
    pub interface: String,
    /// Where the number is read.
    pub path: HostPath,
    /// How many there are.
    pub count: u64,
    /// The memory node of its device; `None` if the firmware does not tell.
    pub node: Option<u32>,
}

/// Where interfaces are.
const NET: &str = "/sys/class/net";

/// The channels of each interface of a device: bridges, and the ends of guests' cables, have none to be set.
pub fn channels(host: &dyn Read) -> Vec<Channels> {
    let interfaces = HostPath::new(NET);
    let of_interface = |interface: &String| {
        let device = interfaces.join(interface).join("device");
        host.link(&device).ok()?;
        let path = channels::path(interface);
        let (count, node) = (number(host, &path)?, number(host, &device.join("numa_node")));
        Some(Channels { interface: interface.clone(), path, count, node })
    };
    host.list(&interfaces).unwrap_or_default().iter().filter_map(of_interface).collect()
}

/// The directions, each with its mask.
const KINDS: [(&str, &str); 2] = [("rx-", "rps_cpus"), ("tx-", "xps_cpus")];

/// The queues that have a mask: an interface with one queue shows none for sending.
pub fn read(host: &dyn Read) -> Vec<Queue> {
    let interfaces = HostPath::new(NET);
    let names = host.list(&interfaces).unwrap_or_default();
    let of_interface = |interface: &String| {
        let dir = interfaces.join(interface).join("queues");
        let of_kind = |(prefix, mask): (&str, &str)| -> Vec<Queue> {
            let numbers = numbered(host, &dir, prefix).unwrap_or_default();
            let queue = |number: u32| {
                let queue = format!("{prefix}{number}");
                let path = dir.join(&queue).join(mask);
                let cpus = CpuSet::parse_mask(&text(host, &path)?).ok()?;
                Some(Queue { name: format!("{interface}/{queue}"), path, cpus })
            };
            numbers.into_iter().filter_map(queue).collect()
        };
        KINDS.into_iter().flat_map(of_kind).collect::<Vec<_>>()
    };
    names.iter().flat_map(of_interface).collect()
}
