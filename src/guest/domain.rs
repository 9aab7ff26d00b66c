//! Everything a guest template may use.

use serde::Serialize;

use crate::facts::{Architecture, Numa};
use crate::formats::{CpuSet, PciAddress, Size};
use crate::placement::{CellPlace, GuestPlace};
use crate::profile::{self, Attachment, DiskBus, FeaturePolicy, Guest, MachineType, NicModel, Os};

/// The namespace of the guests' version 5 UUIDs. Never changes: a new one would make every guest a stranger to
/// the libvirt that already knows it.
const NAMESPACE: u128 = 0x641e_e33a_da11_444a_b976_0426_882a_670f;

/// The machine that a guest is rendered for.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// The size of the guests' pages.
    pub page: Size,
    /// Its nodes.
    pub numa: &'a Numa,
    /// Its processor.
    pub architecture: Architecture,
    /// Whether that is one of AMD's.
    pub amd: bool,
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
    /// Sockets: 1, or one for each cell.
    pub sockets: u32,
    /// Dies of a socket: 1.
    pub dies: u32,
    /// Cores of a die.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
}

/// A NUMA cell of a guest on several nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Its number, from 0.
    pub id: usize,
    /// The host's node.
    pub node: u32,
    /// Its vCPUs.
    pub vcpus: CpuSet,
    /// Its memory in KiB.
    pub memory_kib: u64,
    /// Its distance to each cell.
    pub distances: Vec<Distance>,
}

/// How far a cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Distance {
    /// The cell.
    pub id: usize,
    /// The distance; 10 is local.
    pub value: u32,
}

/// A CPU feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// libvirt's name of it.
    pub name: String,
    /// `require`, `optional`, `disable`, `force` or `forbid`.
    pub policy: &'static str,
}

/// A disk as the template sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// The path on the host.
    pub source: String,
    /// Whether the source is a block device, not a file.
    pub block: bool,
    /// How its content is stored: `raw` or `qcow2`.
    pub format: &'static str,
    /// Its name in the guest: `vda`, `vdb`..., on SATA `sda`...
    pub target: String,
    /// `virtio` or `sata`.
    pub bus: &'static str,
}

/// A network card as the template sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Its MAC address.
    pub mac: String,
    /// What it is connected to; `kind` tells which.
    #[serde(flatten)]
    pub connection: Connection,
}

/// What a network card is connected to: libvirt's type of interface as `kind`, and the rest beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Connection {
    /// A bridge of the host.
    Bridge {
        /// Its name.
        source: String,
        /// The card that the guest sees.
        model: &'static str,
    },
    /// An interface of the host.
    Direct {
        /// Its name.
        source: String,
        /// The card that the guest sees.
        model: &'static str,
    },
    /// An SR-IOV function.
    Hostdev {
        /// Where it is.
        address: Address,
    },
    /// A network of libvirt.
    Network {
        /// Its name.
        source: String,
    },
    /// A switch in user space.
    VhostUser {
        /// The path of its socket.
        source: String,
        /// Which end QEMU is: `server` or `client`.
        mode: &'static str,
    },
}

/// A PCI address as `<address>` takes it, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Address {
    /// `0x0000`.
    pub domain: String,
    /// `0x81`.
    pub bus: String,
    /// `0x10`.
    pub slot: String,
    /// `0x1`.
    pub function: String,
}

impl From<PciAddress> for Address {
    fn from(address: PciAddress) -> Address {
        Address {
            domain: format!("0x{:04x}", address.domain),
            bus: format!("0x{:02x}", address.bus),
            slot: format!("0x{:02x}", address.slot),
            function: format!("0x{:x}", address.function),
        }
    }
}

/// A placed guest: the variables of a template, under these names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// The guest's name.
    pub name: String,
    /// Its UUID, always the same for the same name.
    pub uuid: String,
    /// What runs in it: `linux`, `other` or `windows`.
    pub os: &'static str,
    /// The architecture: `x86_64` or `aarch64`.
    pub arch: &'static str,
    /// The machine: `q35`, `pc` or `virt`.
    pub machine: &'static str,
    /// The vCPUs with their host CPUs.
    pub vcpus: Vec<Pin>,
    /// The vCPUs with the FIFO policy; an empty set prints as an empty, so false, text.
    pub fifo_vcpus: CpuSet,
    /// Their priority, 1 to 99.
    pub fifo_priority: u32,
    /// The housekeeping CPUs of the emulator threads.
    pub emulator_cpus: CpuSet,
    /// The housekeeping CPUs of the I/O threads.
    pub io_cpus: CpuSet,
    /// The memory in KiB.
    pub memory_kib: u64,
    /// The page size in KiB.
    pub page_kib: u64,
    /// The page size as `<page>` takes it.
    pub page: Page,
    /// Whether another process shares the memory: the switch of a vhost-user interface.
    pub shared_memory: bool,
    /// The host's nodes that the memory is bound to; empty, so false, on a machine without NUMA.
    pub nodes: CpuSet,
    /// The guest's cells; none for a guest on one node.
    pub cells: Vec<Cell>,
    /// The numbers of its cells; empty, so false, without them.
    pub cell_ids: CpuSet,
    /// The CPU topology the guest sees.
    pub topology: Topology,
    /// The CPU features that are asked for by name.
    pub features: Vec<Feature>,
    /// Whether the guest may turn off the host's polling before a halt.
    pub poll_control: bool,
    /// Whether it has a random number generator.
    pub rng: bool,
    /// What its watchdog does: `reset`, `poweroff` or `inject-nmi`; `none` without one.
    pub watchdog: &'static str,
    /// The disks.
    pub disks: Vec<Disk>,
    /// The network cards.
    pub networks: Vec<Network>,
    /// The PCI devices of the host that it gets as they are.
    pub hostdevs: Vec<Address>,
}

impl Domain {
    /// The template's view of a placed guest. Pure and total: the same input gives the same domain.
    pub fn new(guest: &Guest, place: &GuestPlace, host: &Host) -> Domain {
        let name = &guest.name.value;
        let conservative = guest.os.value == Os::Other;
        let mut devices = place.devices.iter().copied().map(Address::from);
        let networks = guest.networks.iter().enumerate().filter_map(|(at, card)| {
            let mac = card.mac.as_ref().map_or_else(|| mac(name, at), |mac| mac.value.clone());
            Some(Network { mac, connection: connection(card, conservative, &mut devices)? })
        });
        let networks: Vec<Network> = networks.collect();
        let shared_memory =
            networks.iter().any(|card| matches!(card.connection, Connection::VhostUser { .. }));
        let cells = if place.cells.len() > 1 { cells(place, host) } else { Vec::new() };
        Domain {
            name: name.clone(),
            uuid: uuid_text(uuid(name)),
            os: guest.os.value.name(),
            arch: host.architecture.name(),
            machine: machine(guest, host.architecture),
            vcpus: (0..).zip(&place.cpus).map(|(vcpu, &cpu)| Pin { vcpu, cpu }).collect(),
            fifo_vcpus: guest.rt_vcpus.value.clone(),
            fifo_priority: guest.fifo_priority.value.into(),
            emulator_cpus: place.emulator.clone(),
            io_cpus: place.io.clone(),
            memory_kib: place.memory.kib(),
            page_kib: host.page.kib(),
            page: page(host.page.kib()),
            shared_memory,
            nodes: place.cells.iter().map(|cell| cell.node).filter(|_| host.numa.shown).collect(),
            cell_ids: (0..cells.len() as u32).collect(),
            topology: topology(guest, place),
            cells,
            features: features(guest, host),
            poll_control: guest.poll_control.value,
            rng: guest.rng.value,
            watchdog: guest.watchdog.value.name(),
            disks: disks(guest, conservative),
            networks,
            hostdevs: devices.collect(),
        }
    }
}

/// aarch64 has one machine for guests.
fn machine(guest: &Guest, architecture: Architecture) -> &'static str {
    match (architecture, &guest.machine, guest.os.value) {
        (Architecture::Aarch64, ..) => "virt",
        (_, Some(machine), _) => machine.value.name(),
        (_, None, Os::Other) => MachineType::Pc.name(),
        (_, None, Os::Linux | Os::Windows) => MachineType::Q35.name(),
    }
}

/// A socket for each cell, whole cores in it.
fn topology(guest: &Guest, place: &GuestPlace) -> Topology {
    let (sockets, threads) = (place.cells.len() as u32, guest.threads_per_core.value);
    Topology { sockets, dies: 1, cores: place.cpus.len() as u32 / (sockets * threads), threads }
}

/// The cells, with the distances that the host's nodes have; where it tells none, those of every kernel: 10 and 20.
fn cells(place: &GuestPlace, host: &Host) -> Vec<Cell> {
    let distance = |from: u32, to: u32| {
        let told = host.numa.get(from).and_then(|node| node.distances.iter().find(|(id, _)| *id == to));
        told.map_or(if from == to { 10 } else { 20 }, |(_, distance)| *distance)
    };
    let mut first = 0;
    let cell = |(id, cell): (usize, &CellPlace)| {
        let vcpus = (first..first + cell.vcpus).collect();
        first += cell.vcpus;
        let others = place.cells.iter().enumerate();
        Cell {
            id,
            node: cell.node,
            vcpus,
            memory_kib: cell.pages * host.page.kib(),
            distances: others.map(|(id, to)| Distance { id, value: distance(cell.node, to.node) }).collect(),
        }
    };
    place.cells.iter().enumerate().map(cell).collect()
}

/// The defaults in their order, then what the profile adds.
fn features(guest: &Guest, host: &Host) -> Vec<Feature> {
    let defaults: &[&str] = match host.architecture {
        // Without it a guest on AMD sees no threads. QEMU leaves it out of `-cpu host` unless it is asked for by name
        // (target/i386/cpu.c, no_autoenable_flags).
        Architecture::X86 if host.amd && guest.threads_per_core.value > 1 => {
            &["tsc-deadline", "invtsc", "topoext"]
        }
        Architecture::X86 => &["tsc-deadline", "invtsc"],
        Architecture::Aarch64 => &[],
    };
    let feature =
        |name: &str, policy: FeaturePolicy| Feature { name: name.to_owned(), policy: policy.name() };
    let chosen = |name: &str| guest.cpu_features.iter().find(|feature| feature.name == name);
    let default =
        |name: &&str| feature(name, chosen(name).map_or(FeaturePolicy::Require, |feature| feature.policy));
    let added = guest.cpu_features.iter().filter(|feature| !defaults.contains(&feature.name.as_str()));
    defaults.iter().map(default).chain(added.map(|added| feature(&added.name, added.policy))).collect()
}

/// The disks; each bus counts its own.
fn disks(guest: &Guest, conservative: bool) -> Vec<Disk> {
    let usual = if conservative { DiskBus::Sata } else { DiskBus::Virtio };
    let (mut virtio, mut sata) = (0.., 0..);
    let disk = |disk: &profile::Disk| {
        let bus = disk.bus.as_ref().map_or(usual, |bus| bus.value);
        let (prefix, count) = match bus {
            DiskBus::Virtio => ("vd", virtio.next()),
            DiskBus::Sata => ("sd", sata.next()),
        };
        Disk {
            source: disk.source.value.clone(),
            block: disk.is_block_device(),
            format: disk.format.value.name(),
            target: format!("{prefix}{}", letters(count.unwrap_or_default())),
            bus: bus.name(),
        }
    };
    guest.disks.iter().map(disk).collect()
}

/// What a card is connected to; a virtual function takes the next of the placed devices, and there is one.
fn connection(
    card: &profile::Network,
    conservative: bool,
    devices: &mut impl Iterator<Item = Address>,
) -> Option<Connection> {
    let usual = if conservative { NicModel::E1000 } else { NicModel::Virtio };
    let model = card.model.as_ref().map_or(usual, |model| model.value).name();
    Some(match &card.attachment {
        Attachment::Bridge(name) => Connection::Bridge { source: name.value.clone(), model },
        Attachment::Macvtap(name) => Connection::Direct { source: name.value.clone(), model },
        Attachment::VirtualFunction(_) => Connection::Hostdev { address: devices.next()? },
        Attachment::Pool(name) => Connection::Network { source: name.value.clone() },
        Attachment::VhostUser { socket, mode } => {
            Connection::VhostUser { source: socket.value.clone(), mode: mode.name() }
        }
    })
}

/// The page size in the largest unit that divides it.
fn page(kib: u64) -> Page {
    match kib {
        kib if kib != 0 && kib.is_multiple_of(1 << 20) => Page { size: kib >> 20, unit: "GiB" },
        kib if kib != 0 && kib.is_multiple_of(1 << 10) => Page { size: kib >> 10, unit: "MiB" },
        kib => Page { size: kib, unit: "KiB" },
    }
}

/// `a` to `z`, then `aa`, as the kernel counts disks.
fn letters(index: usize) -> String {
    let mut letters = String::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        letters.insert(0, char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    letters
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

/// The guest of a profile of one guest that has these keys, and a place for it.
#[cfg(test)]
pub(super) fn placed(keys: &str, cells: &[(u32, &[u32])], change: impl Fn(&mut Numa)) -> Domain {
    use crate::facts::Node;
    use crate::placement::Shared;
    let text = format!(
        "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = '6GiB'\n[[guest]]\n{keys}"
    );
    let parsed = profile::parse("p.toml", text.as_bytes())
        .unwrap_or_else(|failed| panic!("{}", profile::render(&failed.diagnostics, &failed.source, false)));
    let guest = &parsed.profile.guests[0];
    let list = |text: &str| CpuSet::parse_list(text).unwrap();
    let node = |id: u32| Node {
        id,
        cpus: list(if id == 0 { "0-7" } else { "8-15" }),
        memory: Size(32 << 30),
        distances: vec![(0, if id == 0 { 10 } else { 21 }), (1, if id == 1 { 10 } else { 21 })],
        pools: Vec::new(),
    };
    let mut numa = Numa { shown: true, nodes: vec![node(0), node(1)] };
    change(&mut numa);
    let pages = guest.memory.value.0 >> 30;
    let cpus: Vec<u32> = cells.iter().flat_map(|(_, cpus)| cpus.iter().copied()).collect();
    let place = GuestPlace {
        name: guest.name.value.clone(),
        node: cells[0].0,
        cells: cells
            .iter()
            .map(|(node, cpus)| CellPlace {
                node: *node,
                vcpus: cpus.len() as u32,
                pages: pages / cells.len() as u64,
            })
            .collect(),
        cores: cpus.iter().copied().collect(),
        cpus,
        shared: Shared::Cache,
        emulator: if cells.len() > 1 { list("0-1,8-9") } else { list("8-9") },
        io: if cells.len() > 1 { list("0-1") } else { list("8-9") },
        memory: guest.memory.value,
        pages,
        devices: guest.devices().filter_map(|name| PciAddress::parse(&name.value.to_string()).ok()).collect(),
    };
    let host = Host { page: Size::GIB, numa: &numa, architecture: Architecture::X86, amd: true };
    Domain::new(guest, &place, &host)
}

#[cfg(test)]
pub(super) fn reference() -> Domain {
    let keys = "name = 'rt-guest'\nvcpus = 4\nmemory = '16GiB'\n[[guest.disk]]\nsource = '/dev/vg0/rt-guest'\n\
        [[guest.network]]\nbridge = 'br0'\n";
    placed(keys, &[(1, &[12, 13, 14, 15])], |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn disks_are_named_as_the_kernel_names_them() {
        let names: Vec<String> = [0, 1, 25, 26, 27, 701, 702].into_iter().map(letters).collect();
        assert_eq!(names, ["a", "b", "z", "aa", "ab", "zz", "aaa"]);
        let keys = "name = 'g'\nvcpus = 2\nmemory = '1GiB'\n[[guest.disk]]\nsource = '/a'\n[[guest.disk]]\n\
            source = '/b'\nbus = 'sata'\n[[guest.disk]]\nsource = '/c'\n";
        let targets = |keys: &str| {
            let domain = placed(keys, &[(0, &[2, 3])], |_| {});
            domain.disks.into_iter().map(|disk| (disk.target, disk.bus)).collect::<Vec<_>>()
        };
        let named = |list: &[(&str, &'static str)]| {
            list.iter().map(|(target, bus)| (target.to_string(), *bus)).collect::<Vec<_>>()
        };
        assert_eq!(targets(keys), named(&[("vda", "virtio"), ("sda", "sata"), ("vdb", "virtio")]));
        let other = keys.replace("name = 'g'", "name = 'g'\nos = 'other'");
        assert_eq!(targets(&other), named(&[("sda", "sata"), ("sdb", "sata"), ("sdc", "sata")]));
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

    #[test]
    fn features_are_the_defaults_and_the_profiles() {
        let keys = "name = 'g'\nvcpus = 2\nmemory = '1GiB'\ncpu-features = ['vmx=disable', 'invtsc=optional', 'x2apic']\n";
        let domain = placed(keys, &[(0, &[2, 3])], |_| {});
        let features: Vec<_> = domain.features.iter().map(|f| (f.name.as_str(), f.policy)).collect();
        let wanted =
            [("tsc-deadline", "require"), ("invtsc", "optional"), ("vmx", "disable"), ("x2apic", "require")];
        assert_eq!(features, wanted);
    }

    #[test]
    fn two_threads_of_an_amd_core_are_seen_as_such() {
        let names = |keys: &str| -> Vec<String> {
            let keys = format!("name = 'g'\nvcpus = 2\nmemory = '1GiB'\n{keys}");
            placed(&keys, &[(0, &[2, 3])], |_| {}).features.iter().map(|f| f.name.clone()).collect()
        };
        assert_eq!(names("threads-per-core = 2\n"), ["tsc-deadline", "invtsc", "topoext"]);
        assert_eq!(names(""), ["tsc-deadline", "invtsc"]);
    }

    #[test]
    fn devices_go_to_their_networks_first() {
        let keys = "name = 'g'\nvcpus = 2\nmemory = '1GiB'\n[[guest.network]]\nbridge = 'br0'\n[[guest.network]]\n\
            virtual-function = '81:10.1'\nmac = '52:54:00:AA:00:01'\n[[guest.hostdev]]\ndevice = '82:00.0'\n";
        let domain = placed(keys, &[(0, &[2, 3])], |_| {});
        let Connection::Hostdev { address } = &domain.networks[1].connection else { panic!("{domain:?}") };
        assert_eq!((&*address.bus, &*address.slot, &*address.function), ("0x81", "0x10", "0x1"));
        assert_eq!((&*domain.networks[1].mac, &*domain.hostdevs[0].bus), ("52:54:00:aa:00:01", "0x82"));
    }

    proptest! {
        #[test]
        fn topologies_hold_every_vcpu(cores in 1u32..8, threads in 1u32..=2, cells in 1usize..=2) {
            let count = cores * threads * cells as u32;
            let keys = format!(
                "name = 'g'\nos = 'other'\nvcpus = {count}\nthreads-per-core = {threads}\nmemory = '{cells}GiB'\n"
            );
            let cpus: Vec<u32> = (0..cores * threads).collect();
            let parts: Vec<(u32, &[u32])> = (0..cells as u32).map(|node| (node, cpus.as_slice())).collect();
            let domain = placed(&keys, &parts, |_| {});
            let t = domain.topology;
            prop_assert_eq!(t.sockets * t.dies * t.cores * t.threads, count);
            prop_assert_eq!(t.sockets as usize, cells);
            let all = domain.cells.iter().fold(CpuSet::new(), |all, cell| all.union(&cell.vcpus));
            prop_assert_eq!(all.len(), if cells > 1 { count as usize } else { 0 });
        }

        #[test]
        fn names_give_unicast_local_macs(name in "[a-z0-9-]{1,20}", index in 0usize..30) {
            let mac = mac(&name, index);
            prop_assert!(mac.starts_with("52:54:00:") && mac.len() == 17);
            prop_assert_ne!(mac, super::mac(&name, index + 1));
        }
    }
}
