//! Layer 2: what the machine is, read once through [`crate::host::Read`] and parsed. A missing piece is a fact
//! (no `node/` directory, no caches, sparse ids), not an error.

pub mod boot;
pub mod cpus;
pub mod definitions;
pub mod devices;
pub mod further;
pub mod grubenv;
pub mod hardware;
pub mod irqs;
pub mod kernel;
pub mod kernel_log;
pub mod manager;
pub mod modules;
pub mod numa;
pub mod owners;
pub mod power;
pub mod processes;
pub mod processor;
pub mod queues;
pub mod trial;

pub use boot::{Boot, Loader};
pub use cpus::{Core, Cpus};
pub use definitions::{Definition, Definitions};
pub use devices::Devices;
pub use further::{Asked, Further};
pub use hardware::Hardware;
pub use irqs::{Irq, Irqs, Movable};
pub use kernel::{Architecture, Kernel};
pub use kernel_log::KernelLog;
pub use manager::Manager;
pub use modules::Modules;
pub use numa::{Node, Numa, Pool};
pub use owners::{Banned, Owners, Tuned};
pub use power::Power;
pub use processes::{FreeThread, KernelThread, RunningGuest, Service, ThreadKind};
pub use processor::Processor;
pub use queues::{Interface, Queue, interrupts};

use crate::formats::{CpuSet, HostPath};
use crate::host::{Read, ReadError};

/// One machine as it was found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Facts {
    /// CPUs and how they share cores, caches and packages.
    pub cpus: Cpus,
    /// Memory nodes, with their CPUs and huge page pools.
    pub numa: Numa,
    /// Interrupts.
    pub irqs: Irqs,
    /// The running kernel and the operating system.
    pub kernel: Kernel,
    /// What no program can set.
    #[serde(skip)]
    pub hardware: Hardware,
    /// The processor.
    #[serde(skip)]
    pub processor: Processor,
    /// Modules with parameters that matter.
    #[serde(skip)]
    pub modules: Modules,
    /// How the processor saves power.
    #[serde(skip)]
    pub power: Power,
    /// How the machine boots.
    pub boot: Boot,
    /// The guests that run.
    pub guests: Vec<RunningGuest>,
    /// The guests that libvirt defines.
    pub definitions: Definitions,
    /// The devices that guests can be given.
    pub devices: Devices,
    /// Programs that run and set what this one sets.
    pub services: Vec<Service>,
    /// Threads of the kernel that work for single CPUs.
    #[serde(skip)]
    pub threads: Vec<KernelThread>,
    /// Queues of network interfaces.
    #[serde(skip)]
    pub queues: Vec<Queue>,
    /// Where systemd lets processes run.
    #[serde(skip)]
    pub manager: Manager,
    /// Others that keep settings on this machine.
    pub owners: Owners,
    /// What there is of a trial boot.
    #[serde(skip)]
    pub trial: trial::Found,
    /// Templates that the operator put in `/etc/rtkvm-tune/templates`: name and text.
    #[serde(skip)]
    pub templates: Vec<(String, String)>,
    /// Templates there that cannot be read, or that others than root can change: the path and why.
    #[serde(skip)]
    pub untrusted_templates: Vec<String>,
    /// Whether `/usr/bin/rtkvm-tune`, which the boot unit starts, is there as far as is known.
    pub installed: bool,
    /// Whether irqbalance is installed as a systemd unit.
    pub irqbalance: bool,
    /// Where what sets up network interfaces would start a hook of ours.
    #[serde(skip)]
    pub interface_hooks: Vec<HostPath>,
}

/// Where an operator's own templates are.
pub const TEMPLATES: &str = "/etc/rtkvm-tune/templates";

/// The program that the boot unit starts.
pub const PROGRAM: &str = "/usr/bin/rtkvm-tune";

/// Where distributions have irqbalance's unit.
const IRQBALANCE: [&str; 2] =
    ["/usr/lib/systemd/system/irqbalance.service", "/lib/systemd/system/irqbalance.service"];

impl Facts {
    /// Reads the machine.
    ///
    /// # Errors
    /// The one thing nothing can be planned without: which CPUs are online, with where it was looked for.
    pub fn read(host: &dyn Read) -> Result<Facts, String> {
        let numa = Numa::read(host);
        let cpus = Cpus::read(host, &numa)?;
        let (templates, untrusted_templates) = read_templates(host);
        let program = HostPath::new(PROGRAM);
        let processes::Found { guests, services, threads } = processes::read(host);
        let (kernel, trial) = (Kernel::read(host), trial::Found::read(host));
        let boot = Boot::read(host).once(trial.next(&kernel));
        Ok(Facts {
            hardware: Hardware::read(host, kernel.release.as_deref(), cpus.boot),
            power: Power::read(host, &cpus),
            processor: Processor::read(host, &cpus),
            modules: Modules::read(host),
            cpus,
            numa,
            irqs: Irqs::read(host),
            kernel,
            boot,
            guests,
            definitions: Definitions::read(host),
            devices: Devices::read(host),
            owners: Owners::read(host, &services),
            services,
            threads,
            queues: queues::read(host),
            manager: Manager::read(host),
            trial,
            templates,
            untrusted_templates,
            irqbalance: IRQBALANCE.iter().any(|path| host.head(&HostPath::new(*path), 0).is_ok()),
            interface_hooks: interface_hooks(host),
            installed: host.head(&program, 0) != Err(ReadError::Absent),
        })
    }
}

/// The directories of ifupdown and of NetworkManager that are there.
fn interface_hooks(host: &dyn Read) -> Vec<HostPath> {
    let dirs = ["/etc/network/if-up.d", "/etc/NetworkManager/dispatcher.d"].map(HostPath::new);
    dirs.into_iter().filter(|dir| host.list(dir).is_ok()).map(|dir| dir.join(HOOK)).collect()
}

/// The name of such a hook: run-parts(8) takes no dot in it.
const HOOK: &str = "90-rtkvm-tune";

/// The operator's templates, and what is wrong with them.
fn read_templates(host: &dyn Read) -> (Vec<(String, String)>, Vec<String>) {
    let (mut templates, mut wrong) = (Vec::new(), Vec::new());
    let dir = HostPath::new(TEMPLATES);
    let names = match host.list(&dir) {
        Ok(names) => names,
        Err(ReadError::Absent | ReadError::Untold) => return (templates, wrong),
        Err(error) => return (templates, vec![format!("{dir} cannot be read: {error}")]),
    };
    for name in names.iter().filter(|name| name.ends_with(".xml")) {
        let path = dir.join(name);
        match host.file(&path) {
            Err(error) => wrong.push(format!("{path} cannot be read: {error}")),
            Ok(file) => {
                if file.mode & 0o022 != 0 {
                    let mode = file.mode;
                    wrong.push(format!(
                        "{path}: its mode is {mode:04o}, so that others can change it: take it away with `chmod go-w`"
                    ));
                }
                templates.push((name.clone(), file.text().into_owned()));
            }
        }
    }
    (templates, wrong)
}

/// The text of a file, `None` if it cannot be read.
fn text(host: &dyn Read, path: &HostPath) -> Option<String> {
    host.file(path).ok().map(|file| file.text().into_owned())
}

/// The trimmed text of a file that should hold one value; `None` if absent or empty.
fn line(host: &dyn Read, path: &HostPath) -> Option<String> {
    host.file(path).ok().map(|file| file.text().trim().to_owned()).filter(|text| !text.is_empty())
}

/// A whole number. The kernel writes -1 where it does not know, which is no value.
fn number<T: std::str::FromStr>(host: &dyn Read, path: &HostPath) -> Option<T> {
    host.file(path).ok()?.text().trim().parse().ok()
}

/// A CPU list; `None` if the file is absent or holds something else.
fn cpu_list(host: &dyn Read, path: &HostPath) -> Option<CpuSet> {
    CpuSet::parse_kernel_list(&host.file(path).ok()?.text()).ok()
}

/// The value in a file that nothing else asks for, as `parse` reads its trimmed text; `None` if it has none.
fn once<T>(host: &dyn Read, path: &HostPath, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    host.once(path).ok().and_then(|text| parse(text.trim()))
}

/// The numbers N of the entries `PREFIXn` of a directory, ascending.
fn numbered(host: &dyn Read, dir: &HostPath, prefix: &str) -> Result<Vec<u32>, ReadError> {
    // The kernel writes neither `+1` nor `01`.
    let plain = |text: &&str| *text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c));
    let number = |name: &String| name.strip_prefix(prefix).filter(plain)?.parse::<u32>().ok();
    let mut numbers: Vec<u32> = host.list(dir)?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
