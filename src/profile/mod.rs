//! Layer 2: the profile, from TOML to types. No machine is looked at, and nothing is read but the bytes given.
//!
//! Everything wrong with a profile is reported at once, each with the place it is written at. The keys are
//! defined once, in [`keys::KEYS`].

mod checks;
mod devices;
pub mod diagnostic;
mod guest;
mod host;
pub mod keys;
mod reader;
mod spanned;
mod syntax;

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::formats::{Connection, CpuSet, DeviceName, Size};
pub use diagnostic::{Diagnostic, Level, Source, render};
pub use reader::Choice;
use reader::{Read, Reader, Section};
pub use spanned::Spanned;
use syntax::Lines;

/// The largest profile accepted, in bytes.
pub const MAX_PROFILE: usize = 1 << 20;

/// A profile without errors.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What it says.
    pub profile: Profile,
    /// What its spans refer to.
    pub source: Source,
    /// What it probably does not mean, in source order.
    pub warnings: Vec<Diagnostic>,
}

/// Everything wrong with a profile.
#[derive(Debug, Clone)]
pub struct Failed {
    /// At least one error, and the warnings, in source order.
    pub diagnostics: Vec<Diagnostic>,
    /// What their spans refer to.
    pub source: Source,
}

/// A real-time host and its guests, as their operator wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// How the machine is divided.
    pub host: Host,
    /// The guests, in the order of the profile; their names are unique.
    pub guests: Vec<Guest>,
    /// The names of the guests that must not be defined.
    pub absent: Vec<Spanned<String>>,
    /// Values of single knobs, in the order of the profile. Ids and values are not checked here.
    pub knobs: Vec<KnobOverride>,
}

/// How the machine is divided: `[host]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The header of the section.
    pub span: Range<usize>,
    /// The CPUs left to the system.
    pub housekeeping: Housekeeping,
    /// The CPUs for guests, not empty and disjoint from the housekeeping CPUs if both are listed; `None`: every
    /// other online CPU.
    pub isolated_cpus: Option<Spanned<CpuSet>>,
    /// Memory per node that is not made into huge pages; `None` only with a page count.
    pub housekeeping_memory_per_node: Option<Spanned<Size>>,
    /// The libvirt of the guests.
    pub libvirt: Connection,
    /// Who writes the kernel arguments.
    pub boot_loader: Spanned<BootLoader>,
    /// Extra kernel arguments: safe characters, none that follows from other keys.
    pub kernel_arguments: Vec<Spanned<String>>,
    /// The pages that guest memory is made of.
    pub hugepages: HugePages,
}

/// The CPUs left to the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Housekeeping {
    /// So many CPUs of each node, 1 to 512.
    PerNode(Spanned<u32>),
    /// These CPUs; not empty.
    Cpus(Spanned<CpuSet>),
}

/// The pages that guest memory is made of: `[host.hugepages]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugePages {
    /// The header of the section, or that of `[host]` without one.
    pub span: Range<usize>,
    /// A power of two from 64KiB to 16GiB; whether the machine has it is decided later.
    pub size: Spanned<Size>,
    /// `None`: all memory but [`Host::housekeeping_memory_per_node`].
    pub count: Option<PageCount>,
}

/// How many huge pages a node gets; at most 2^24.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageCount {
    /// So many on every node, at least 1.
    PerNode(Spanned<u64>),
    /// By node id; a node that is not named gets none.
    Nodes {
        /// The pages of each node.
        pages: BTreeMap<u32, Spanned<u64>>,
        /// The whole table.
        span: Range<usize>,
    },
}

/// One real-time guest: `[[guest]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The header of the section.
    pub span: Range<usize>,
    /// Safe in paths and XML, unique.
    pub name: Spanned<String>,
    /// 1 to 512; at least 2 for Linux; a multiple of `threads_per_core`.
    pub vcpus: Spanned<u32>,
    /// A multiple of [`HugePages::size`], above 0.
    pub memory: Spanned<Size>,
    /// The nodes of the host, 0 to 1023, ascending and not empty; several of them divide the vCPUs and the memory in
    /// equal parts, whole cores and whole pages each. `None`: placement chooses.
    pub numa_nodes: Option<Spanned<Vec<u32>>>,
    /// What runs in it.
    pub os: Spanned<Os>,
    /// 1: the SMT sibling of each vCPU's core stays idle; 2: the guest has both.
    pub threads_per_core: Spanned<u32>,
    /// The SCHED_FIFO priority, 1 to 99.
    pub fifo_priority: Spanned<u8>,
    /// The guest's vCPUs that get SCHED_FIFO: not empty, each below `vcpus`.
    pub rt_vcpus: Spanned<CpuSet>,
    /// The file name of a template in `/etc/rtkvm-tune/templates`; `None`: the built-in one.
    pub template: Option<Spanned<String>>,
    /// The machine that QEMU imitates; `None`: that of its system and architecture.
    pub machine: Option<Spanned<MachineType>>,
    /// CPU features beside the defaults or in their place; each name once.
    pub cpu_features: Vec<CpuFeature>,
    /// Whether the guest may turn off the host's polling before a halt.
    pub poll_control: Spanned<bool>,
    /// Whether it has a random number generator.
    pub rng: Spanned<bool>,
    /// What its watchdog does.
    pub watchdog: Spanned<Watchdog>,
    /// Whether libvirt starts it; `None`: as it is there.
    pub autostart: Option<Spanned<bool>>,
    /// Its disks; no source is used twice in a profile.
    pub disks: Vec<Disk>,
    /// What tunes it inside.
    pub cloud_init: Option<CloudInit>,
    /// Its network interfaces; no MAC address, socket or device is used twice in a profile.
    pub networks: Vec<Network>,
    /// Its PCI devices; none is used twice in a profile.
    pub hostdevs: Vec<Spanned<DeviceName>>,
}

impl Guest {
    /// The devices of the host that it gets, virtual functions of its networks first, in their order.
    pub fn devices(&self) -> impl Iterator<Item = &Spanned<DeviceName>> {
        let functions = self.networks.iter().filter_map(|network| match &network.attachment {
            Attachment::VirtualFunction(name) => Some(name),
            _ => None,
        });
        functions.chain(&self.hostdevs)
    }
}

/// One entry of `cpu-features`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuFeature {
    /// The entry.
    pub span: Range<usize>,
    /// libvirt's name of it.
    pub name: String,
    /// What is made of it.
    pub policy: FeaturePolicy,
}

/// One disk: `[[guest.disk]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The header of the section.
    pub span: Range<usize>,
    /// A plain absolute path. It may hold characters that XML escapes.
    pub source: Spanned<String>,
    /// The image format.
    pub format: Spanned<DiskFormat>,
    /// How the guest sees it; `None`: as its system knows best.
    pub bus: Option<Spanned<DiskBus>>,
    /// What it is made of, if it is not there; never of a block device.
    pub base: Option<BaseImage>,
}

/// The image that a disk is a copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// A plain absolute path, another than the disk's.
    pub image: Spanned<String>,
    /// Its format; `None`: as it says itself.
    pub format: Option<Spanned<DiskFormat>>,
    /// The size of the disk, whole sectors; `None`: that of the disk in the image.
    pub size: Option<Spanned<Size>>,
}

impl Disk {
    /// Whether the source is a block device, by its place in `/dev`; else it is a file.
    pub fn is_block_device(&self) -> bool {
        self.source.starts_with("/dev/")
    }
}

/// How a guest is tuned inside: `[guest.cloud-init]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudInit {
    /// What the image has.
    pub distribution: Spanned<Distribution>,
    /// Which kernel it gets.
    pub kernel: Spanned<Kernel>,
    /// Who sets what isolates.
    pub tuning: Spanned<Tuning>,
    /// Public keys, each one line.
    pub ssh_keys: Vec<Spanned<String>>,
    /// Further kernel arguments.
    pub kernel_arguments: Vec<Spanned<String>>,
    /// A plain absolute path.
    pub user_data: Option<Spanned<String>>,
    /// Letters, digits and a few more.
    pub instance_id: Spanned<String>,
}

/// One network interface: `[[guest.network]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The header of the section.
    pub span: Range<usize>,
    /// What it is connected to.
    pub attachment: Attachment,
    /// Its MAC address, in small letters; `None`: one made from the guest's name.
    pub mac: Option<Spanned<String>>,
    /// The card on a bridge or macvtap; `None`: what the system knows best.
    pub model: Option<Spanned<NicModel>>,
}

/// What a network interface of a guest is connected to. Names of interfaces are valid ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// A bridge of the host.
    Bridge(Spanned<String>),
    /// An interface of the host.
    Macvtap(Spanned<String>),
    /// An SR-IOV function.
    VirtualFunction(Spanned<DeviceName>),
    /// A network of libvirt that hands out SR-IOV functions.
    Pool(Spanned<String>),
    /// A switch in user space.
    VhostUser {
        /// The absolute path of its socket.
        socket: Spanned<String>,
        /// Which end QEMU is.
        mode: SocketMode,
    },
}

/// The override of one knob in `[knobs]`, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnobOverride {
    /// The knob's id; its span has the quotes.
    pub id: Spanned<String>,
    /// The value.
    pub value: Spanned<KnobValue>,
}

/// The value of a [`KnobOverride`], as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnobValue {
    /// A string.
    Text(String),
    /// A whole number.
    Number(i64),
}

/// For messages: long strings are cut.
impl std::fmt::Display for KnobValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KnobValue::Text(text) => f.write_str(&checks::shown(text)),
            KnobValue::Number(number) => write!(f, "`{number}`"),
        }
    }
}

/// An enum with the strings that a profile writes for it.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl Choice for $name {
            const NAMES: &'static [&'static str] = &[$($text),*];
            const VALUES: &'static [$name] = &[$($name::$variant),*];
        }

        impl $name {
            /// The string that a profile writes for it.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

choice! {
    /// Who writes the kernel arguments.
    BootLoader {
        /// This program, for the boot loader that it finds.
        Auto = "auto",
        /// The operator: the arguments are printed only.
        Manual = "manual",
    }
}

choice! {
    /// Whether a guest is to be defined.
    GuestState {
        /// It is.
        Present = "present",
        /// It must not be.
        Absent = "absent",
    }
}

choice! {
    /// What a guest's image has.
    Distribution {
        /// Debian.
        Debian = "debian",
        /// Ubuntu.
        Ubuntu = "ubuntu",
        /// RHEL and its likes.
        Rhel = "rhel",
        /// SUSE Linux Enterprise and openSUSE.
        Suse = "suse",
    }
}

choice! {
    /// The kernel of a guest.
    Kernel {
        /// The distribution's real-time kernel.
        RealTime = "real-time",
        /// That of the image.
        Keep = "keep",
    }
}

choice! {
    /// Who tunes a guest inside.
    Tuning {
        /// Files of our own.
        Plain = "plain",
        /// TuneD.
        Tuned = "tuned",
    }
}

choice! {
    /// What runs in a guest.
    Os {
        /// Linux, which needs a vCPU for its own housekeeping.
        Linux = "linux",
        /// Any other real-time system.
        Other = "other",
        /// Windows.
        Windows = "windows",
    }
}

choice! {
    /// The machine that QEMU imitates.
    MachineType {
        /// With PCI Express.
        Q35 = "q35",
        /// The older one, with PCI.
        Pc = "pc",
    }
}

choice! {
    /// What libvirt makes of a CPU feature (formatdomain, CPU model and topology).
    FeaturePolicy {
        /// The guest has it, and does not start where the host cannot give it.
        Require = "require",
        /// The guest has it if the host has.
        Optional = "optional",
        /// The guest does not have it.
        Disable = "disable",
        /// The guest is told that it has it.
        Force = "force",
        /// The guest does not start where the host has it.
        Forbid = "forbid",
    }
}

choice! {
    /// What happens when a guest does not feed its watchdog.
    Watchdog {
        /// It has none.
        None = "none",
        /// It is reset.
        Reset = "reset",
        /// It is turned off.
        Poweroff = "poweroff",
        /// It gets an interrupt that it cannot mask.
        InjectNmi = "inject-nmi",
    }
}

choice! {
    /// How a guest sees a disk.
    DiskBus {
        /// As a virtio device.
        Virtio = "virtio",
        /// As a SATA disk.
        Sata = "sata",
    }
}

choice! {
    /// The network card that a guest sees.
    NicModel {
        /// The virtio device.
        Virtio = "virtio",
        /// Intel's 82540EM, for PCI.
        E1000 = "e1000",
        /// Intel's 82574L, for PCI Express.
        E1000e = "e1000e",
    }
}

choice! {
    /// Which end of a vhost-user socket QEMU is.
    SocketMode {
        /// The switch connects to QEMU.
        Server = "server",
        /// QEMU connects to the switch.
        Client = "client",
    }
}

choice! {
    /// The format of a disk image.
    DiskFormat {
        /// The bytes of the disk.
        Raw = "raw",
        /// QEMU's format.
        Qcow2 = "qcow2",
    }
}

/// Reads a profile. `name` is shown in diagnostics; nothing is opened.
///
/// # Errors
/// Everything wrong with it, in source order: text that is not UTF-8 or TOML, unknown and missing keys, wrong
/// types, values out of range, values that contradict each other.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Parsed, Failed> {
    let text = decode(name, bytes)?;
    let source = Source { name: name.into(), text: text.into() };
    let lines = Lines::new(text);
    let recovered = syntax::recover(text, &lines);
    let (document, _) = DeTable::parse_recoverable(&recovered.text);
    let mut reader = Reader::new(text, lines, recovered.errors, recovered.broken);
    let profile = read(&mut reader, document.get_ref());
    let diagnostics = reader.finish();
    match profile {
        Ok(profile) if diagnostics.iter().all(|d| d.level == Level::Warning) => {
            Ok(Parsed { profile, source, warnings: diagnostics })
        }
        _ => Err(Failed { diagnostics, source }),
    }
}

/// The text of a profile, or the error with as much of the text as can be shown.
fn decode<'b>(name: &str, bytes: &'b [u8]) -> Result<&'b str, Failed> {
    let failed = |error: Diagnostic, text: String| Failed {
        diagnostics: vec![error],
        source: Source { name: name.into(), text },
    };
    let whole = |message: String| Err(failed(Diagnostic::whole(message), String::new()));
    if bytes.len() > MAX_PROFILE {
        return whole(format!("profile is {} bytes; the limit is 1 MiB", bytes.len()));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return whole("profile is UTF-16: save it as UTF-8".into());
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return whole(format!("profile is not a text: byte {at} is NUL"));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let message = format!("profile is not UTF-8: byte {at} is {:#04x}", bytes[at]);
        // Up to there the replaced text is the text itself, and the first bad byte is one U+FFFD of 3 bytes.
        let text = String::from_utf8_lossy(bytes).into_owned();
        failed(Diagnostic::error(at..at + 3, message).label("save the profile as UTF-8"), text)
    })
}

fn read<'a>(reader: &mut Reader<'_>, document: &'a DeTable<'a>) -> Read<Profile> {
    let top = reader.section("", document, 0..0);
    let (host, page_size) = host::read(reader, &top);
    let guests = guest::read_all(reader, &top, page_size);
    let knobs = knobs(reader, &top);
    let (guests, absent) = guests?;
    Ok(Profile { host: host?, guests, absent, knobs: knobs? })
}

fn knobs(reader: &mut Reader<'_>, top: &Section<'_>) -> Read<Vec<KnobOverride>> {
    let Some((table, _)) = reader.table(top, "knobs")? else { return Ok(Vec::new()) };
    let mut knobs = Vec::new();
    for (key, value) in table.iter() {
        let id = Spanned::new(key.get_ref().to_string(), key.span());
        let read = match value.get_ref() {
            DeValue::String(text) => Some(KnobValue::Text(text.to_string())),
            DeValue::Integer(number) => reader::whole(number).map(KnobValue::Number),
            _ => None,
        };
        knobs.push(match (read, value.get_ref()) {
            (Some(read), _) => Ok(KnobOverride { id, value: Spanned::new(read, value.span()) }),
            (None, other) => {
                let message = format!("the override of {} has the wrong type", checks::shown(&id));
                let error = Diagnostic::error(value.span(), message);
                let error = error
                    .label(format!("expected a string or a whole number, found {}", reader::found(other)));
                Err(reader.error(match other {
                    DeValue::Table(_) => {
                        error.help("quote the whole id, as in \"cpu.mitigations\" = \"keep\"")
                    }
                    _ => error,
                }))
            }
        });
    }
    let mut knobs = knobs.into_iter().collect::<Read<Vec<_>>>()?;
    knobs.sort_by_key(|knob| knob.id.span.start);
    Ok(knobs)
}
