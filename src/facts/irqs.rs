//! Interrupts and who may move them. Source: Documentation/core-api/irq/irq-affinity.rst,
//! Documentation/ABI/testing/sysfs-kernel-irq.

use super::{numbered, once, text};
use crate::formats::{CpuSet, HostPath};
use crate::host::Read;
use serde::Serialize;

/// The interrupts of a machine.
#[derive(Debug, Clone, Serialize)]
pub struct Irqs {
    /// Where interrupts go that are set up from now on; `None` if it is not shown.
    pub default_affinity: Option<CpuSet>,
    /// Interrupts in use, by number.
    pub irqs: Vec<Irq>,
}

/// One interrupt that has a handler.
#[derive(Debug, Clone, Serialize)]
pub struct Irq {
    /// The kernel's number, which may be another after a reboot.
    pub number: u32,
    /// The names of its handlers, as the drivers chose them: `virtio0-req.0`, `eth0-rx-1`.
    pub actions: String,
    /// The CPUs it was asked to go to.
    pub affinity: CpuSet,
    /// The CPUs it goes to; may lag behind until it next fires. `None` if the kernel does not show it.
    pub effective: Option<CpuSet>,
    /// The memory node of its device.
    pub node: Option<u32>,
    /// Whether its affinity can be set.
    pub movable: Movable,
}

/// Whether an interrupt's affinity can be set from outside the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Movable {
    /// As far as can be known without trying. Before Linux 6.12 some refuse only when it is tried.
    Yes,
    /// The kernel shows it read-only: a per-CPU interrupt, or one that the kernel manages.
    ReadOnly,
    /// A queue whose vectors the kernel spreads itself (managed); `isolcpus=managed_irq` steers it.
    Managed,
    /// A timer or cascade line of the platform.
    Platform,
}

impl Irq {
    /// Whether it is of a device that a guest has (VFIO), by the names that vfio-pci and vfio-platform give it:
    /// `vfio-msix[0](0000:3b:02.1)`, `vfio-intx(...)`.
    pub fn is_of_a_guest(&self) -> bool {
        self.actions.split(',').any(|name| name.starts_with("vfio-"))
    }
}

impl Movable {
    /// Why it cannot be moved, for people.
    pub fn reason(self) -> &'static str {
        match self {
            Movable::Yes => "can be moved",
            Movable::ReadOnly => "the kernel shows its affinity read-only",
            Movable::Managed => "kernel-managed queue, steered by isolcpus=managed_irq",
            Movable::Platform => "platform timer or cascade",
        }
    }
}

/// Whether it is the place of one interrupt. That of new ones is beside them, and the kernel keeps none of it.
pub fn is_interrupt(path: &HostPath) -> bool {
    interrupt(path).is_some()
}

/// The directory of one interrupt's attributes.
pub fn directory(number: u32) -> HostPath {
    HostPath::new(format!("/proc/irq/{number}"))
}

/// The name of the attribute that says where an interrupt may go.
const AFFINITY: &str = "smp_affinity_list";

/// The attribute that says where one interrupt may go.
pub fn affinity(number: u32) -> HostPath {
    directory(number).join(AFFINITY)
}

/// The interrupt whose [`affinity`] it is.
pub fn interrupt(path: &HostPath) -> Option<u32> {
    path.as_str().strip_prefix("/proc/irq/")?.strip_suffix(AFFINITY)?.strip_suffix('/')?.parse().ok()
}

/// The attribute with the mask for interrupts to come.
pub const DEFAULT_AFFINITY: &str = "/proc/irq/default_smp_affinity";

impl Irqs {
    /// Reads the interrupts.
    pub fn read(host: &dyn Read) -> Irqs {
        let default = text(host, &HostPath::new(DEFAULT_AFFINITY));
        let numbers = numbered(host, &HostPath::new("/proc/irq"), "").unwrap_or_default();
        Irqs {
            default_affinity: default.and_then(|mask| CpuSet::parse_mask(&mask).ok()),
            irqs: numbers.into_iter().filter_map(|number| read_irq(host, number)).collect(),
        }
    }
}

/// `None` for a number that no driver uses, and for one that went away meanwhile.
fn read_irq(host: &dyn Read, number: u32) -> Option<Irq> {
    let dir = directory(number);
    let actions = HostPath::new(format!("/sys/kernel/irq/{number}/actions"));
    let actions = once(host, &actions, |names| (!names.is_empty()).then(|| names.to_owned()))?;
    let file = host.file(&dir.join(AFFINITY)).ok()?;
    let list = |text: &str| CpuSet::parse_kernel_list(text).ok();
    let read_only = file.mode & 0o222 == 0;
    Some(Irq {
        affinity: list(&file.text())?,
        effective: once(host, &dir.join("effective_affinity_list"), list),
        node: once(host, &dir.join("node"), |number| number.parse().ok()),
        movable: classify(number, &actions, read_only),
        actions,
        number,
    })
}

fn classify(number: u32, actions: &str, read_only: bool) -> Movable {
    let all = |test: fn(&str) -> bool| actions.split(',').all(test);
    match number {
        _ if read_only => Movable::ReadOnly,
        0 if all(|name| name == "timer") => Movable::Platform,
        2 if all(|name| name == "cascade") => Movable::Platform,
        _ if all(is_managed_queue) => Movable::Managed,
        _ => Movable::Yes,
    }
}

/// Drivers that let the kernel spread their queues (`PCI_IRQ_AFFINITY`), by the names they give the vectors.
/// Before 6.12 nothing else tells them apart without trying.
fn is_managed_queue(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // nvme0q1: an I/O queue; nvme0q0 is the admin queue, which is not managed.
    let nvme = name.strip_prefix("nvme").and_then(|rest| rest.split_once('q'));
    // virtio0-req.0: virtio-blk; virtio0-request: virtio-scsi.
    let virtio = name.strip_prefix("virtio").and_then(|rest| rest.split_once("-req"));
    nvme.is_some_and(|(device, queue)| digits(device) && digits(queue) && queue != "0")
        || virtio.is_some_and(|(device, queue)| {
            digits(device) && (queue.strip_prefix('.').is_some_and(digits) || queue == "uest")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_queues_are_known_by_name() {
        for (number, name, read_only, expected) in [
            (0, "timer", false, Movable::Platform),
            (2, "cascade", false, Movable::Platform),
            (4, "ttyS0", false, Movable::Yes),
            (24, "virtio0-config", false, Movable::Yes),
            (25, "virtio0-req.12", false, Movable::Managed),
            (26, "virtio1-input.0", false, Movable::Yes),
            (27, "virtio2-request", false, Movable::Managed),
            (28, "nvme0q0", false, Movable::Yes),
            (29, "nvme0q1", false, Movable::Managed),
            (30, "nvme0q1,eth0", false, Movable::Yes),
            (31, "eth0", true, Movable::ReadOnly),
        ] {
            assert_eq!(classify(number, name, read_only), expected, "{number} {name}");
        }
    }
}
