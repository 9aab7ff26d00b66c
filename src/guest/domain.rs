//! Everything a guest template may use.

use serde::Serialize;

use crate::formats::{CpuSet, Size};

/// The namespace of the guests' version 5 UUIDs. Never changes: a new one would make every guest a stranger to
/// the libvirt that already knows it.
const NAMESPACE: u128 = 0x641e_e33a_da11_444a_b976_0426_882a_670f;

/// What the placement decided for one guest, in plain values that were checked before.
#[derive(Debug, Clone, Copy)]
pub struct DomainInput<'a> {
    /// The guest's name; its UUID and MAC addresses follow from it.
    pub name: &'a str,
    /// The host CPU of each vCPU, in the order of the vCPUs.
    pub vcpu_cpus: &'a [u32],
    /// Threads of one guest core, 1 or 2; consecutive vCPUs are then siblings. A number that does not divide
    /// the vCPUs counts as 1.
    pub threads_per_core: u32,
    /// The vCPUs with the FIFO policy.
    pub fifo_vcpus: &'a CpuSet,
    /// Their priority, 1 to 99.
    pub fifo_priority: u32,
    /// The housekeeping CPUs of the emulator and its I/O threads.
    pub emulator_cpus: &'a CpuSet,
    /// The guest's memory, whole pages.
    pub memory: Size,
    /// The size of its pages.
    pub page: Size,
    /// The host NUMA node its memory is bound to; `None` on a machine without NUMA.
    pub node: Option<u32>,
    /// The disks, in the order of their names in the guest.
    pub disks: &'a [DiskInput],
    /// The network cards, in order.
    pub networks: &'a [NetworkInput],
}

/// A disk of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInput {
    /// The path on the host.
    pub source: String,
    /// Whether the source is a block device, not a file.
    pub block: bool,
    /// How its content is stored.
    pub format: DiskFormat,
}

/// How a disk's content is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// As it is.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

/// A network card of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInput {
    /// The host bridge it is on.
    pub bridge: String,
    /// Its MAC address; `None` derives one from the guest's name and the card's position.
    pub mac: Option<String>,
}

/// One vCPU and its host CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// The vCPU, from 0.
    pub vcpu: u32,
    /// The host CPU it runs on, alone.
    pub cpu: u32,
}

/// A page size as `<page>` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Page {
    /// The number of units.
    pub size: u64,
    /// `GiB`, `MiB` or `KiB`.
    pub unit: &'static str,
}

/// The CPU topology the guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Sockets: 1.
    pub sockets: u32,
    /// Dies of a socket: 1.
    pub dies: u32,
    /// Cores of a die.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
}

/// A disk as the template sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The path on the host.
    pub source: String,
    /// Whether the source is a block device, not a file.
    pub block: bool,
    /// How its content is stored: `raw` or `qcow2`.
    pub format: DiskFormat,
    /// Its name in the guest: `vda`, `vdb`...
    pub target: String,
}

/// A network card as the template sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    /// The host bridge it is on.
    pub bridge: String,
    /// Its MAC address.
    pub mac: String,
}

/// A placed guest: the variables of a template, under these names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// The guest's name.
    pub name: String,
    /// Its UUID, always the same for the same name.
    pub uuid: String,
    /// The vCPUs with their host CPUs.
    pub vcpus: Vec<Pin>,
    /// The vCPUs with the FIFO policy; an empty set prints as an empty, so false, text.
    pub fifo_vcpus: CpuSet,
    /// Their priority, 1 to 99.
    pub fifo_priority: u32,
    /// The housekeeping CPUs of the emulator and its I/O threads.
    pub emulator_cpus: CpuSet,
    /// The memory in KiB.
    pub memory_kib: u64,
    /// The page size in KiB.
    pub page_kib: u64,
    /// The page size as `<page>` takes it.
    pub page: Page,
    /// The host NUMA node of the memory; none on a machine without NUMA. Node 0 is false in a template: ask
    /// `node is not none`.
    pub node: Option<u32>,
    /// The CPU topology the guest sees.
    pub topology: Topology,
    /// The disks.
    pub disks: Vec<Disk>,
    /// The network cards.
    pub networks: Vec<Network>,
    /// The architecture: `x86_64`.
    pub arch: &'static str,
}

impl Domain {
    /// The template's view of a placed guest. Pure and total: the same input gives the same domain.
    pub fn new(input: &DomainInput<'_>) -> Domain {
        let count = input.vcpu_cpus.len() as u32;
        let threads = match input.threads_per_core {
            0 => 1,
            threads if count.is_multiple_of(threads) => threads,
            _ => 1,
        };
        let disk = |(i, disk): (usize, &DiskInput)| Disk {
            source: disk.source.clone(),
            block: disk.block,
            format: disk.format,
            target: target(i),
        };
        let network = |(i, network): (usize, &NetworkInput)| Network {
            bridge: network.bridge.clone(),
            mac: network.mac.clone().unwrap_or_else(|| mac(input.name, i)),
        };
        Domain {
            name: input.name.to_owned(),
            uuid: uuid_text(uuid(input.name)),
            vcpus: (0..).zip(input.vcpu_cpus).map(|(vcpu, &cpu)| Pin { vcpu, cpu }).collect(),
            fifo_vcpus: input.fifo_vcpus.clone(),
            fifo_priority: input.fifo_priority,
            emulator_cpus: input.emulator_cpus.clone(),
            memory_kib: input.memory.kib(),
            page_kib: input.page.kib(),
            page: page(input.page.kib()),
            node: input.node,
            topology: Topology { sockets: 1, dies: 1, cores: count / threads, threads },
            disks: input.disks.iter().enumerate().map(disk).collect(),
            networks: input.networks.iter().enumerate().map(network).collect(),
            arch: "x86_64",
        }
    }
}

/// The page size in the largest unit that divides it.
fn page(kib: u64) -> Page {
    match kib {
        kib if kib != 0 && kib.is_multiple_of(1 << 20) => Page { size: kib >> 20, unit: "GiB" },
        kib if kib != 0 && kib.is_multiple_of(1 << 10) => Page { size: kib >> 10, unit: "MiB" },
        kib => Page { size: kib, unit: "KiB" },
    }
}

/// `vda` to `vdz`, then `vdaa`, as the kernel counts.
fn target(index: usize) -> String {
    let mut letters = String::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        letters.insert(0, char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    format!("vd{letters}")
}

/// The version 5 UUID of a name in our namespace: RFC 9562, section 5.5.
fn uuid(name: &str) -> u128 {
    let mut hash = sha1_smol::Sha1::from(NAMESPACE.to_be_bytes());
    hash.update(name.as_bytes());
    let digest = hash.digest().bytes();
    let id = digest[..16].iter().fold(0, |id, byte| id << 8 | u128::from(*byte));
    // The version and the variant take the place of six bits.
    id & !(0xf << 76 | 0x3 << 62) | 5 << 76 | 0x2 << 62
}

/// A UUID in its usual form, with groups of 8, 4, 4, 4 and 12 digits.
fn uuid_text(id: u128) -> String {
    let digits = format!("{id:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// A MAC address in QEMU's range, from the guest's name and the card's position.
fn mac(name: &str, index: usize) -> String {
    let [a, b, c, ..] = uuid(&format!("{name}\0network {index}")).to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

#[cfg(test)]
pub(super) fn reference() -> Domain {
    let cpus = |text| CpuSet::parse_list(text).unwrap();
    Domain::new(&DomainInput {
        name: "rt-guest",
        vcpu_cpus: &[12, 13, 14, 15],
        threads_per_core: 1,
        fifo_vcpus: &cpus("0-3"),
        fifo_priority: 1,
        emulator_cpus: &cpus("8-9"),
        memory: Size(16 << 30),
        page: Size::GIB,
        node: Some(1),
        disks: &[DiskInput { source: "/dev/vg0/rt-guest".into(), block: true, format: DiskFormat::Raw }],
        networks: &[NetworkInput { bridge: "br0".into(), mac: None }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn disks_are_named_as_the_kernel_names_them() {
        let names: Vec<String> = [0, 1, 25, 26, 27, 701, 702].into_iter().map(target).collect();
        assert_eq!(names, ["vda", "vdb", "vdz", "vdaa", "vdab", "vdzz", "vdaaa"]);
    }

    #[test]
    fn pages_have_the_largest_unit() {
        assert_eq!(page(1 << 20), Page { size: 1, unit: "GiB" });
        assert_eq!(page(2048), Page { size: 2, unit: "MiB" });
        assert_eq!(page(64), Page { size: 64, unit: "KiB" });
    }

    #[test]
    fn identities_never_change() {
        // Written down: a change would orphan every guest that is already defined.
        assert_eq!(mac("rt0", 0), "52:54:00:fc:c2:04");
        assert_eq!(mac("rt0", 1), "52:54:00:58:b9:06");
        assert_eq!(uuid_text(uuid("rt0")), "10d1330f-bad2-53bd-9aa5-3558a26ba857");
    }

    proptest! {
        #[test]
        fn topologies_hold_every_vcpu(count in 1u32..300, threads in 0u32..4) {
            let cpus: Vec<u32> = (0..count).collect();
            let none = CpuSet::new();
            let domain = Domain::new(&DomainInput {
                name: "g", vcpu_cpus: &cpus, threads_per_core: threads, fifo_vcpus: &none, fifo_priority: 1,
                emulator_cpus: &none, memory: Size::GIB, page: Size::GIB, node: None, disks: &[], networks: &[],
            });
            let t = domain.topology;
            prop_assert_eq!(t.sockets * t.dies * t.cores * t.threads, count);
        }

        #[test]
        fn names_give_unicast_local_macs(name in "[a-z0-9-]{1,20}", index in 0usize..30) {
            let mac = mac(&name, index);
            prop_assert!(mac.starts_with("52:54:00:") && mac.len() == 17);
            prop_assert_ne!(mac, super::mac(&name, index + 1));
        }
    }
}
