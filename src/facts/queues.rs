//! Queues of network interfaces, and which CPUs they are steered to. Source: Linux networking/scaling.rst.

use super::{number, numbered, text};
use crate::formats::{Channels, CpuSet, HostPath, channels};
use crate::host::{Read, ReadError};

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

/// A network interface of a device, and its channels: queues with an interrupt each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What stands for asking for its channels.
    pub path: HostPath,
    /// What it has.
    pub channels: Result<Channels, ReadError>,
    /// The memory node of its device; `None` if the firmware does not tell.
    pub node: Option<u32>,
}

/// Where interfaces are.
const NET: &str = "/sys/class/net";

/// Each interface of a device: bridges, and the ends of guests' cables, have no channels to be set. On a running machine
/// each is asked by a program of its own.
pub fn interfaces(host: &dyn Read) -> Vec<Interface> {
    let interfaces = HostPath::new(NET);
    let of_interface = |name: &String| {
        let device = device(name);
        host.link(&device).ok()?;
        let path = channels::path(name);
        channels::interface(&path)?;
        let channels = match host.file(&path) {
            Ok(file) => Channels::parse(&file.text()).ok_or(ReadError::Unsuitable),
            // Its driver knows of none.
            Err(ReadError::Absent) => Ok(Channels { combined: 0, most: 0 }),
            Err(error) => Err(error),
        };
        Some(Interface { name: name.clone(), path, channels, node: number(host, &device.join("numa_node")) })
    };
    host.list(&interfaces).unwrap_or_default().iter().filter_map(of_interface).collect()
}

/// The interrupts of an interface's device: other ones once it has other channels.
/// Source: Linux ABI/testing/sysfs-bus-pci (msi_irqs).
pub fn interrupts(host: &dyn Read, interface: &str) -> Vec<u32> {
    numbered(host, &device(interface).join("msi_irqs"), "").unwrap_or_default()
}

fn device(interface: &str) -> HostPath {
    HostPath::new(NET).join(interface).join("device")
}

/// The directions, each with its mask.
const KINDS: [(&str, &str); 2] = [("rx-", "rps_cpus"), ("tx-", "xps_cpus")];

/// The queues that have a mask: an interface with one queue shows none for sending.
pub fn read(host: &dyn Read) -> Vec<Queue> {
    let names = host.list(&HostPath::new(NET)).unwrap_or_default();
    let of_interface = |interface: &String| {
        let dir = channels::queues(interface);
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
