//! Every external program there is, with its arguments. None goes through a shell. A guest's XML goes to `virsh`
//! on standard input; its name, where it is undefined, is one checked argument.

use super::libvirt::PATIENCE;
use crate::formats::grub::{GRUB_CFG, GRUB2_CFG};
use crate::formats::{Connection, CpuSet, HostPath, ImageCopy, Policy};
use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A program that `apply` may run on the live machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// `update-grub` (Debian, Ubuntu): makes /boot/grub/grub.cfg anew from /etc/default/grub and grub.d. It would write
    /// over the one in use, which a power cut then leaves cut off: it writes to a file beside it that takes its name.
    UpdateGrub,
    /// `grub2-mkconfig` (SUSE): makes /boot/grub2/grub.cfg anew from /etc/default/grub, beside the one in use, too.
    Mkconfig,
    /// `grub-reboot`: GRUB boots the entry of a trial once, by `next_entry` of its environment block.
    BootOnce,
    /// `grub-editenv unset`: the next boot is an ordinary one.
    ForgetOnce,
    /// `virsh version`: answers only if libvirt's daemon and its QEMU driver do.
    AskLibvirt {
        /// Which libvirt.
        connection: Connection,
    },
    /// `systemctl daemon-reload`: systemd reads its unit files again.
    DaemonReload,
    /// `systemctl stop tuned.service`: TuneD takes back what it set, and ends.
    StopTuned,
    /// `systemctl try-restart irqbalance.service`: starts it again with its new environment, if it runs.
    RestartIrqbalance,
    /// `systemctl stop irqbalance.service`: it ends, and leaves interrupts where they are.
    StopIrqbalance,
    /// `systemctl start dev-hugepages1G.mount`: mounts the huge pages of 1 GiB, unless they are.
    MountHugepages,
    /// `udevadm control --reload`: udev reads its rules again.
    ReloadRules,
    /// `chrt`: gives a thread another scheduling policy. It goes by the system call, for which there is no file.
    Schedule {
        /// The thread.
        thread: u32,
        /// The policy.
        policy: Policy,
    },
    /// `taskset`: gives a thread other CPUs, by the system call as well.
    Place {
        /// The thread.
        thread: u32,
        /// Its CPUs.
        cpus: CpuSet,
    },
    /// `ethtool -L`: gives a network interface another number of channels. For this there is no file either.
    SetChannels {
        /// The interface: see [`crate::formats::channels::interface`].
        interface: String,
        /// How many.
        count: u64,
    },
    /// `systemctl restart`: the process that keeps the bound on the time in which every CPU wakes starts anew.
    KeepWakeUpBound,
    /// `systemctl stop` with a pattern: it ends, and the bound with it. A pattern that no unit matches is no error
    /// (systemctl(1)): where the process does not run and its file is gone, systemd knows no such unit.
    DropWakeUpBound,
    /// `systemctl restart`: in a moment the interrupts of devices that came up are moved.
    StartIrqTimer,
    /// `xorriso`: the image of a guest's seed out of its texts.
    MakeSeed {
        /// The directory of the texts.
        from: HostPath,
        /// The image.
        image: HostPath,
    },
    /// `rm`: the image of a seed that is no more.
    RemoveSeed {
        /// The image.
        image: HostPath,
    },
    /// `virsh define --validate`: the document, checked against libvirt's schema, becomes the definition.
    Define {
        /// In which libvirt.
        connection: Connection,
        /// The domain XML.
        xml: String,
    },
    /// `virsh autostart`: whether libvirt starts a guest with the host.
    Autostart {
        /// In which libvirt.
        connection: Connection,
        /// The guest's name, an argument of its own.
        name: GuestName,
        /// Whether it does.
        on: bool,
    },
    /// `qemu-img create`: makes an image of an empty file, with all its room reserved. The file is its standard input:
    /// no name can lead it elsewhere.
    CreateImage {
        /// What it becomes.
        copy: ImageCopy,
    },
    /// `qemu-img convert`: copies an image into one that was made, in the same way.
    CopyImage {
        /// From where to what.
        copy: ImageCopy,
    },
    /// `virsh undefine`: the definition goes; a guest that runs goes on running, and is gone once it stops. Its
    /// NVRAM stays.
    Undefine {
        /// In which libvirt.
        connection: Connection,
        /// The guest's name, an argument of its own.
        name: GuestName,
    },
}

/// A guest's name that cannot be taken for an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestName(String);

impl GuestName {
    /// `None` for a name that this program gives no guest: letters, digits, `.`, `_`, `-` and `+` only, a letter
    /// or digit first.
    pub fn new(name: &str) -> Option<GuestName> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
        let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        (starts && name.chars().all(plain)).then(|| GuestName(name.into()))
    }
}

/// Where the programs are looked for.
const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program that only asks, for as many seconds at most. As of every program, nothing of the caller's environment may change
/// what it does.
pub(super) fn asking(seconds: &str, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.arg(seconds).args(words).env_clear().env("PATH", PATH.join(":")).env("LC_ALL", "C");
    command.stdin(Stdio::null());
    command
}

/// Why a program did not do its work.
#[derive(Debug)]
pub struct ProgramError {
    what: String,
    output: String,
}

impl ProgramError {
    pub(super) fn new(what: String) -> ProgramError {
        ProgramError { what, output: String::new() }
    }
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.output.trim().lines().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Program {
    /// The command line, for people.
    pub fn command(&self) -> Cow<'static, str> {
        let virsh = |connection: &Connection, what| {
            Cow::Owned(format!("virsh --connect {} {what}", connection.uri()))
        };
        let fixed = match self {
            Program::UpdateGrub => "update-grub",
            Program::Mkconfig => "grub2-mkconfig -o /boot/grub2/grub.cfg",
            Program::BootOnce => "grub-reboot rtkvm-tune-trial",
            Program::ForgetOnce => "grub-editenv /boot/grub/grubenv unset next_entry",
            Program::AskLibvirt { connection } => {
                return Cow::Owned(format!("timeout {PATIENCE} {}", virsh(connection, "version")));
            }
            Program::DaemonReload => "systemctl daemon-reload",
            Program::StopTuned => "systemctl stop tuned.service",
            Program::RestartIrqbalance => "systemctl try-restart irqbalance.service",
            Program::StopIrqbalance => "systemctl stop irqbalance.service",
            Program::MountHugepages => "systemctl start dev-hugepages1G.mount",
            Program::ReloadRules => "udevadm control --reload",
            Program::Schedule { .. } => "chrt",
            Program::Place { .. } => "taskset --cpu-list --pid",
            Program::SetChannels { .. } => "ethtool -L",
            Program::KeepWakeUpBound => "systemctl restart rtkvm-tune-cpu-dma-latency.service",
            Program::DropWakeUpBound => "systemctl stop rtkvm-tune-cpu-dma-latency*",
            Program::StartIrqTimer => "systemctl --no-block restart rtkvm-tune-irq.timer",
            Program::MakeSeed { .. } => "xorriso -as mkisofs -quiet -V cidata -joliet -rational-rock",
            Program::RemoveSeed { .. } => "rm --force --",
            Program::Define { connection, .. } => return virsh(connection, "define --validate /dev/stdin"),
            Program::Autostart { connection, on, .. } => {
                return virsh(
                    connection,
                    if *on { "autostart --domain" } else { "autostart --disable --domain" },
                );
            }
            Program::CreateImage { .. } => "qemu-img create -q -o preallocation=falloc",
            Program::CopyImage { .. } => "qemu-img convert -q -n --target-is-zero",
            Program::Undefine { connection, .. } => {
                return virsh(connection, "undefine --keep-nvram --domain");
            }
        };
        Cow::Borrowed(fixed)
    }

    /// What it makes anew as a whole.
    pub fn generates(&self) -> Option<&'static str> {
        match self {
            Program::UpdateGrub => Some(GRUB_CFG),
            Program::Mkconfig => Some(GRUB2_CFG),
            _ => None,
        }
    }

    /// The package that has it, of Debian or of the system that has it alone.
    pub fn package(&self) -> &'static str {
        match self {
            Program::UpdateGrub | Program::BootOnce => "grub2-common",
            Program::ForgetOnce => "grub-common",
            Program::Mkconfig => "grub2",
            Program::DaemonReload
            | Program::StopTuned
            | Program::RestartIrqbalance
            | Program::StopIrqbalance
            | Program::MountHugepages
            | Program::KeepWakeUpBound
            | Program::DropWakeUpBound
            | Program::StartIrqTimer => "systemd",
            Program::ReloadRules => "udev",
            Program::Schedule { .. } | Program::Place { .. } => "util-linux",
            Program::SetChannels { .. } => "ethtool",
            Program::MakeSeed { .. } => "xorriso",
            Program::RemoveSeed { .. } => "coreutils",
            Program::CreateImage { .. } | Program::CopyImage { .. } => "qemu-utils",
            Program::AskLibvirt { .. }
            | Program::Autostart { .. }
            | Program::Define { .. }
            | Program::Undefine { .. } => "libvirt-clients",
        }
    }

    /// Where it may be.
    fn places(&self) -> impl Iterator<Item = HostPath> {
        let command = self.command();
        let name = command.split(' ').next().unwrap_or_default().to_owned();
        PATH.into_iter().map(move |dir| HostPath::new(format!("{dir}/{name}")))
    }

    /// Whether it is installed on a machine.
    pub fn is_there(&self, root: &super::Root) -> bool {
        root.has_any(self.places())
    }

    /// Runs it and waits. Only the writer of the live machine calls this.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<(), ProgramError> {
        self.run_on(arguments, Stdio::piped())
    }

    /// The same with a file, or else a pipe, as its standard input.
    pub(super) fn run_on(&self, arguments: &[&str], input: Stdio) -> Result<(), ProgramError> {
        let command = self.command();
        // A URI has no space in it.
        let mut words = command.split(' ');
        let name = words.next().expect("a command has a name");
        let fail = |what: String, output: String| ProgramError { what, output };
        let own = match self {
            Program::Undefine { name, .. } | Program::Autostart { name, .. } => vec![name.0.clone()],
            Program::Schedule { thread, policy } => schedule(*thread, *policy).into(),
            Program::Place { thread, cpus } => vec![cpus.to_string(), thread.to_string()],
            Program::SetChannels { interface, count } => {
                [interface.as_str(), "combined", &count.to_string()].map(String::from).into()
            }
            Program::MakeSeed { from, .. } => vec![from.to_string()],
            Program::CreateImage { copy } => {
                ["-f", copy.format.name(), INPUT, &copy.bytes.to_string()].map(String::from).into()
            }
            Program::CopyImage { copy } => {
                let formats = ["-f", copy.base_format.name(), "-O", copy.format.name()];
                formats.into_iter().chain([copy.base.as_str(), INPUT]).map(String::from).collect()
            }
            Program::RemoveSeed { image } => vec![image.to_string()],
            _ => Vec::new(),
        };
        let mut child = Command::new(name)
            .args(words)
            .args(arguments)
            .args(own)
            // Not reached by the terminal's ^C: what it has begun it ends.
            .process_group(0)
            // A fixed environment: nothing of the caller's may change what root's tools do.
            .env_clear()
            .env("PATH", PATH.join(":"))
            .env("LC_ALL", "C")
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                fail(format!("`{name}` could not be started: {error}; is it installed?"), String::new())
            })?;
        let input = child.stdin.take();
        if let (Some(mut input), Program::Define { xml, .. }) = (input, self) {
            // The program says itself why it did not read its input.
            let _ = input.write_all(xml.as_bytes());
        }
        let output =
            child.wait_with_output().map_err(|error| fail(format!("`{name}`: {error}"), String::new()))?;
        if output.status.success() {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        Err(fail(
            format!("`{}` failed ({})", self.command(), output.status),
            String::from_utf8_lossy(&text).into(),
        ))
    }
}

/// The standard input as a file that can be opened anew.
const INPUT: &str = "/proc/self/fd/0";

/// The arguments of `chrt`.
fn schedule(thread: u32, policy: Policy) -> [String; 4] {
    let (option, priority) = match policy {
        Policy::Other => ("--other", 0),
        Policy::Fifo(priority) => ("--fifo", priority),
        Policy::Rr(priority) => ("--rr", priority),
    };
    [option.into(), "--pid".into(), priority.to_string(), thread.to_string()]
}
