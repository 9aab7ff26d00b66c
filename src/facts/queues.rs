//! Queues of network interfaces, and which CPUs they are steered to. Source: Linux networking/scaling.rst.

use super::{numbered, text};
use crate::formats::{CpuSet, HostPath};
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

/// The directions, each with its mask.
const KINDS: [(&str, &str); 2] = [("rx-", "rps_cpus"), ("tx-", "xps_cpus")];

/// The queues that have a mask: an interface with one queue shows none for sending.
pub fn read(host: &dyn Read) -> Vec<Queue> {
    let interfaces = HostPath::new("/sys/class/net");
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
