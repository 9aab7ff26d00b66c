//! The keys of a profile: the one definition that the reader, the checks and the reference are made from.

use super::{
    BootLoader, Choice, DiskBus, DiskFormat, Distribution, GuestState, Kernel, MachineType, NicModel, Os,
    SocketMode, Tuning, Watchdog,
};

/// One key of a profile.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The section it is in, dotted: `host.hugepages`; empty for the top of the profile.
    pub section: &'static str,
    /// The key itself.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Whether it has to be there, and what holds when it is not.
    pub presence: Presence,
    /// What it means, in one or two sentences.
    pub doc: &'static str,
}

/// What the value of a [`Key`] may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One section, `[name]`.
    Table,
    /// Any number of sections, `[[name]]`.
    Tables,
    /// A whole number in this range, both ends included.
    Integer(u64, u64),
    /// Several such numbers.
    IntegerList(u64, u64),
    /// `true` or `false`.
    Bool,
    /// A string with rules of its own.
    Text,
    /// Several such strings.
    TextList,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// An amount of memory: `"6GiB"`.
    Size,
    /// A CPU list: `"2-7,10-15"`.
    CpuList,
    /// Pages per node: a whole number, or a table of them by node id.
    PageCount,
}

impl Kind {
    /// The type of TOML value, with its article, for "expected ...".
    pub fn expected(self) -> &'static str {
        match self {
            Kind::Table => "a table",
            Kind::Tables => "an array of tables",
            Kind::Integer(..) => "a whole number",
            Kind::IntegerList(..) => "an array of whole numbers",
            Kind::Bool => "true or false",
            Kind::Text | Kind::Choice(_) => "a string",
            Kind::TextList => "an array of strings",
            Kind::Size => "a size in a string, as in \"6GiB\"",
            Kind::CpuList => "a CPU list in a string, as in \"2-7,10-15\"",
            Kind::PageCount => "a whole number or a table by node id",
        }
    }
}

/// Whether a [`Key`] has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The section is wrong without it.
    Required,
    /// This value is used without it.
    Default(&'static str),
    /// Without it, what this sentence says.
    Optional(&'static str),
}

/// The most CPUs one guest may have, and the most a node may keep for housekeeping.
pub const MAX_VCPUS: u64 = 512;
/// The highest NUMA node id: `MAX_NUMNODES` is at most 1024.
pub const MAX_NODE: u64 = 1023;
/// The most pages asked of one node: 32 TiB in pages of 2 MiB.
pub const MAX_PAGES: u64 = 1 << 24;

const REQUIRED: Presence = Presence::Required;
const NONE: Presence = Presence::Optional("none");
const ONE_NETWORK: Presence = Presence::Optional("one of the five kinds of network is required");

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    presence: Presence,
    doc: &'static str,
) -> Key {
    Key { section, name, kind, presence, doc }
}

/// Every key, section by section, in the order of the reference.
pub const KEYS: &[Key] = &[
    key("", "host", Kind::Table, REQUIRED, "How the machine is divided."),
    key("", "guest", Kind::Tables, NONE, "One real-time guest; write the section once per guest."),
    key(
        "",
        "knobs",
        Kind::Table,
        NONE,
        "Values of knobs by quoted id. Each knob lists its own; \"keep\" leaves what the machine has without this \
         program, for the name of an area of knobs as well.",
    ),
    key(
        "host",
        "housekeeping-cpus-per-node",
        Kind::Integer(1, MAX_VCPUS),
        Presence::Optional("`housekeeping-cpus` is required"),
        "How many CPUs of each NUMA node are left to the system, interrupts and emulator threads.",
    ),
    key(
        "host",
        "housekeeping-cpus",
        Kind::CpuList,
        Presence::Optional("`housekeeping-cpus-per-node` is required"),
        "The CPUs left to the system, interrupts and emulator threads; instead of a number per node.",
    ),
    key(
        "host",
        "isolated-cpus",
        Kind::CpuList,
        Presence::Optional("every other online CPU"),
        "The CPUs that run vCPUs of guests and nothing else.",
    ),
    key(
        "host",
        "housekeeping-memory-per-node",
        Kind::Size,
        Presence::Optional("required, unless `count` in [host.hugepages] says how many pages to take"),
        "Memory of each NUMA node that is not made into huge pages.",
    ),
    key(
        "host",
        "boot-loader",
        Kind::Choice(BootLoader::NAMES),
        Presence::Default("auto"),
        "\"auto\" writes the kernel arguments for the boot loader it finds; \"manual\" only prints them.",
    ),
    key(
        "host",
        "libvirt-uri",
        Kind::Text,
        Presence::Default("qemu:///system"),
        "The libvirt of this machine that the guests are defined in, a URI of its QEMU driver. Another than the \
         system's is asked for its definitions, and cannot be had with a directory tree.",
    ),
    key(
        "host",
        "kernel-arguments",
        Kind::TextList,
        NONE,
        "Extra kernel arguments. Those that follow from other keys are refused here.",
    ),
    key(
        "host",
        "hugepages",
        Kind::Table,
        Presence::Optional("as if it were there, with the defaults of its keys"),
        "The pages that guest memory is made of.",
    ),
    key(
        "host.hugepages",
        "size",
        Kind::Size,
        Presence::Default("1GiB"),
        "The size of a page: a power of two that the processor has, 2MiB or 1GiB on x86_64.",
    ),
    key(
        "host.hugepages",
        "count",
        Kind::PageCount,
        Presence::Optional("all memory but `housekeeping-memory-per-node`"),
        "Pages per NUMA node: a number for every node, or a table { \"0\" = 26, \"1\" = 25 } by node id; \
         nodes that the table leaves out get none.",
    ),
    key(
        "guest",
        "name",
        Kind::Text,
        REQUIRED,
        "The name of the domain, unique: 1 to 64 letters, digits, `_`, `.`, `+`, `-`; first a letter or digit.",
    ),
    key(
        "guest",
        "state",
        Kind::Choice(GuestState::NAMES),
        Presence::Default("present"),
        "\"present\" defines it; \"absent\" undefines it if this program defined it, and needs no key but `name`. A \
         guest that is just left out of the profile stays defined.",
    ),
    key(
        "guest",
        "vcpus",
        Kind::Integer(1, MAX_VCPUS),
        REQUIRED,
        "How many vCPUs; each is pinned to an isolated CPU of its own. At least 2 when `os` is \"linux\".",
    ),
    key("guest", "memory", Kind::Size, REQUIRED, "The memory of the guest, a multiple of the page size."),
    key(
        "guest",
        "numa-node",
        Kind::Integer(0, MAX_NODE),
        Presence::Optional("placement chooses"),
        "The node of the host that the CPUs and the memory come from.",
    ),
    key(
        "guest",
        "numa-nodes",
        Kind::IntegerList(0, MAX_NODE),
        Presence::Optional("one node, unless no node alone is large enough for the guest"),
        "Instead of `numa-node`: several nodes of the host. The guest gets a NUMA cell and a socket on each, with equal \
         parts of its vCPUs and of its memory.",
    ),
    key(
        "guest",
        "os",
        Kind::Choice(Os::NAMES),
        Presence::Default("linux"),
        "\"linux\" needs a vCPU for its own housekeeping. \"other\", any other real-time system, may run on a single one and \
         gets the devices that such systems know: the `pc` machine with HPET, SATA disks, e1000 network cards. \"windows\" \
         gets Hyper-V's interfaces instead of KVM's, and its clock in local time; the disks and cards stay virtio.",
    ),
    key(
        "guest",
        "threads-per-core",
        Kind::Integer(1, 2),
        Presence::Default("1"),
        "1 leaves the SMT sibling of each vCPU's core idle, 2 gives both threads to the guest.",
    ),
    key(
        "guest",
        "fifo-priority",
        Kind::Integer(1, 99),
        Presence::Default("1"),
        "The SCHED_FIFO priority of the real-time vCPUs.",
    ),
    key(
        "guest",
        "rt-vcpus",
        Kind::CpuList,
        Presence::Default("all"),
        "The vCPUs that get SCHED_FIFO, as a list of the guest's own numbers, or \"all\".",
    ),
    key(
        "guest",
        "template",
        Kind::Text,
        Presence::Optional("the template that comes with the program"),
        "The name of a template in /etc/rtkvm-tune/templates, ending in `.xml`.",
    ),
    key(
        "guest",
        "machine",
        Kind::Choice(MachineType::NAMES),
        Presence::Optional("\"q35\"; \"pc\" when `os` is \"other\"; on aarch64 always virt"),
        "The machine that QEMU imitates. What is rendered on aarch64 was tried against libvirt's schema only, so far.",
    ),
    key(
        "guest",
        "cpu-features",
        Kind::TextList,
        Presence::Optional(
            "tsc-deadline and invtsc required on x86_64, and topoext for two threads of an AMD core",
        ),
        "CPU features, each as \"NAME\" or \"NAME=POLICY\" with libvirt's policies: require, optional, disable, force, \
         forbid. Added to the defaults, or in place of the default of the same name.",
    ),
    key(
        "guest",
        "poll-control",
        Kind::Bool,
        Presence::Default("false"),
        "Lets a Linux guest turn off the host's polling before a halt, to poll by itself (haltpoll).",
    ),
    key(
        "guest",
        "rng",
        Kind::Bool,
        Presence::Default("false"),
        "A virtio random number generator. Its requests are work for the host.",
    ),
    key(
        "guest",
        "watchdog",
        Kind::Choice(Watchdog::NAMES),
        Presence::Default("none"),
        "What happens when the guest does not feed its watchdog (i6300esb); \"none\" is no watchdog.",
    ),
    key(
        "guest",
        "autostart",
        Kind::Bool,
        Presence::Optional("as it is in libvirt"),
        "Whether libvirt starts the guest when the host has booted.",
    ),
    key("guest", "disk", Kind::Tables, NONE, "One disk; write the section once per disk."),
    key(
        "guest",
        "cloud-init",
        Kind::Table,
        NONE,
        "A seed for cloud-init in the guest's image (NoCloud), which tunes the guest inside at its first boot and \
         reboots it once. It is a disk `vdzz` that can only be read; take the section out to detach it.",
    ),
    key("guest", "network", Kind::Tables, NONE, "One network interface; write the section once each."),
    key("guest", "hostdev", Kind::Tables, NONE, "One PCI device of the host that the guest gets as it is."),
    key(
        "guest.disk",
        "source",
        Kind::Text,
        REQUIRED,
        "The absolute path: a block device when it is in /dev, else an image file.",
    ),
    key(
        "guest.disk",
        "format",
        Kind::Choice(DiskFormat::NAMES),
        Presence::Default("raw"),
        "The image format.",
    ),
    key(
        "guest.disk",
        "base-image",
        Kind::Text,
        Presence::Optional("the disk is there already"),
        "The absolute path of an image that the disk is made of as a full copy, if there is no file at `source` yet. A file \
         that is there is never written over, and no command removes it.",
    ),
    key(
        "guest.disk",
        "base-format",
        Kind::Choice(DiskFormat::NAMES),
        Presence::Optional("what the image itself says"),
        "The format of `base-image`.",
    ),
    key(
        "guest.disk",
        "disk-size",
        Kind::Size,
        Presence::Optional("that of the disk in `base-image`"),
        "The size of the disk that is made, at least that of the disk in `base-image`. All of it is reserved at once.",
    ),
    key(
        "guest.disk",
        "bus",
        Kind::Choice(DiskBus::NAMES),
        Presence::Optional("\"virtio\"; \"sata\" when `os` is \"other\""),
        "How the guest sees the disk. Only virtio disks have the I/O thread, which is pinned to housekeeping CPUs.",
    ),
    key(
        "guest.cloud-init",
        "distribution",
        Kind::Choice(Distribution::NAMES),
        REQUIRED,
        "What the image has: it decides the package of the real-time kernel and how kernel arguments are given. Only \
         \"debian\" uses `update-grub` as this program does on the host; \"ubuntu\" needs a machine attached to Ubuntu Pro.",
    ),
    key(
        "guest.cloud-init",
        "kernel",
        Kind::Choice(Kernel::NAMES),
        Presence::Default("real-time"),
        "\"real-time\" installs the distribution's real-time kernel, \"keep\" leaves the one of the image. Ubuntu has it for \
         machines that are attached to Pro; on SUSE the kernel that sorts last is booted, so choose it there with \
         grub2-set-default.",
    ),
    key(
        "guest.cloud-init",
        "tuning",
        Kind::Choice(Tuning::NAMES),
        Presence::Default("plain"),
        "\"plain\" writes kernel arguments itself, \"tuned\" installs TuneD and its profile realtime-virtual-guest.",
    ),
    key(
        "guest.cloud-init",
        "ssh-keys",
        Kind::TextList,
        NONE,
        "Public keys that may log in as the image's first user, each one line as in `authorized_keys`.",
    ),
    key(
        "guest.cloud-init",
        "guest-arguments",
        Kind::TextList,
        NONE,
        "Further kernel arguments of the guest, as \"console=ttyS0\".",
    ),
    key(
        "guest.cloud-init",
        "user-data",
        Kind::Text,
        NONE,
        "The absolute path of a file with your own user-data, a `#cloud-config` or a script. Its single values win over \
         those of this program, and its lists come first.",
    ),
    key(
        "guest.cloud-init",
        "instance-id",
        Kind::Text,
        Presence::Default("rtkvm-tune"),
        "Another value has cloud-init set the guest up anew at its next start. What else changes in the profile does not.",
    ),
    key("guest.network", "bridge", Kind::Text, ONE_NETWORK, "The bridge of the host to connect to."),
    key(
        "guest.network",
        "macvtap",
        Kind::Text,
        ONE_NETWORK,
        "The interface of the host to connect to without a bridge (macvtap).",
    ),
    key(
        "guest.network",
        "virtual-function",
        Kind::Text,
        ONE_NETWORK,
        "The SR-IOV function that the guest gets: its PCI address, or its number and the interface it belongs to, as in \
         \"ens1f0/3\". The guest is placed on its NUMA node.",
    ),
    key(
        "guest.network",
        "vf-pool",
        Kind::Text,
        ONE_NETWORK,
        "The network of libvirt that hands out SR-IOV functions.",
    ),
    key(
        "guest.network",
        "vhost-user",
        Kind::Text,
        ONE_NETWORK,
        "The socket of a switch in user space, as Open vSwitch with DPDK; the guest's memory is shared with it.",
    ),
    key(
        "guest.network",
        "socket-mode",
        Kind::Choice(SocketMode::NAMES),
        Presence::Optional("\"server\""),
        "Which end QEMU is of the `vhost-user` socket: \"server\" for a port of type dpdkvhostuserclient.",
    ),
    key(
        "guest.network",
        "mac",
        Kind::Text,
        Presence::Optional("made from the guest's name and the position of the interface"),
        "The MAC address.",
    ),
    key(
        "guest.network",
        "model",
        Kind::Choice(NicModel::NAMES),
        Presence::Optional("\"virtio\"; \"e1000\" when `os` is \"other\""),
        "The network card that the guest sees on a `bridge` or `macvtap`.",
    ),
    key(
        "guest.hostdev",
        "device",
        Kind::Text,
        REQUIRED,
        "Its PCI address, as in \"0000:81:00.0\"; or the interface it belongs to with the number of a virtual function, as in \
         \"ens1f0/3\"; or its interface, which the kernel shows only while no guest has the device. The guest is placed on \
         its NUMA node.",
    ),
];

/// The keys of one section, in the order of [`KEYS`].
pub fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// A section as a profile writes it: `[host]`, `[[guest.disk]]`; "the profile" for its top.
pub fn header(section: &str) -> String {
    let (parent, name) = section.rsplit_once('.').unwrap_or(("", section));
    match KEYS.iter().find(|key| key.section == parent && key.name == name).map(|key| key.kind) {
        Some(Kind::Tables) => format!("[[{section}]]"),
        Some(_) => format!("[{section}]"),
        None => "the profile".into(),
    }
}
