//! Interrupts.

use super::boot::argument;
use super::{Context, Disruption, Knob, Reach, Setting, Values};
use crate::facts::irqs::{DEFAULT_AFFINITY, directory};
use crate::facts::{Irq, Movable};
use crate::formats::{CpuSet, HostPath};
use crate::resources::{Attribute, Resource, Value};

pub(super) const KNOBS: &[Knob] = &[BOOT_AFFINITY, DEFAULT, AFFINITY];

const BOOT_AFFINITY: Knob = Knob {
    id: "irq.boot-affinity",
    summary: "Start with the housekeeping CPUs as the default place of interrupts",
    why: "Interrupts that drivers set up while booting go where the default says. Kernel-managed queues and \
        drivers with a mind of their own are not covered.",
    source: "Linux admin-guide/kernel-parameters.txt (irqaffinity)",
    since: "Linux 4.10 or before",
    check: "/proc/cmdline, and /proc/irq/default_smp_affinity after a boot",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| argument(ctx, "irqaffinity", &ctx.placement.housekeeping.to_string(), None),
};

const DEFAULT: Knob = Knob {
    id: "irq.default-affinity",
    summary: "Send interrupts that are set up from now on to the housekeeping CPUs",
    why: "A network card that comes up later asks for new interrupts; without this they may land on isolated \
        CPUs.",
    source: "Linux core-api/irq/irq-affinity.rst",
    since: "Linux 2.6.25 or before",
    check: "/proc/irq/default_smp_affinity, compared as a mask",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let want = Value::Mask(ctx.placement.housekeeping.clone());
        let setting = attribute("new interrupts", HostPath::new(DEFAULT_AFFINITY), want, None);
        Ok(vec![Setting { at_boot: Some(BOOT_AFFINITY.id), ..setting }])
    },
};

/// The knob of the interrupts in use.
pub const IRQ_AFFINITY: &str = AFFINITY.id;

const AFFINITY: Knob = Knob {
    id: "irq.affinity",
    summary: "Move interrupts from the isolated to the housekeeping CPUs",
    why: "Each device interrupt on an isolated CPU takes it from the guest. One that already stays on \
        housekeeping CPUs is left alone; one that may use both keeps its housekeeping part; the others go to \
        the housekeeping CPUs of their device's node. Kernel-managed queues, platform timers and per-CPU \
        interrupts cannot be moved from outside the kernel and are reported.",
    source: "Linux core-api/irq/irq-affinity.rst; commit eb29369fa543 for the read-only attribute",
    since: "Linux 2.6 or before; read-only where it cannot be set since 6.12, before that the write fails",
    check: "/proc/irq/N/smp_affinity_list is within the housekeeping CPUs",
    reach: Reach::Live,
    disruption: Disruption::IrqMove,
    values: Values::ON,
    settings: |ctx| Ok(ctx.facts.irqs.irqs.iter().map(|irq| irq_setting(ctx, irq)).collect()),
};

fn irq_setting(ctx: &Context, irq: &Irq) -> Setting {
    let fixed = (irq.movable != Movable::Yes).then(|| irq.movable.reason().to_owned());
    let path = directory(irq.number).join("smp_affinity_list");
    let setting = attribute(&format!("IRQ {}", irq.number), path, Value::List(target(ctx, irq)), fixed);
    Setting { detail: irq.actions.clone(), ..setting }
}

/// Where an interrupt should go: the housekeeping part of where it may go now, else near its device.
fn target(ctx: &Context, irq: &Irq) -> CpuSet {
    let housekeeping = &ctx.placement.housekeeping;
    let kept = irq.affinity.intersection(housekeeping);
    let near = irq.node.and_then(|node| ctx.placement.node(node)).map(|node| &node.housekeeping);
    match (kept.is_empty(), near) {
        (false, _) => kept,
        (true, Some(near)) if !near.is_empty() => near.clone(),
        (true, _) => housekeeping.clone(),
    }
}

fn attribute(label: &str, path: HostPath, want: Value, fixed: Option<String>) -> Setting {
    Setting::new(label, Resource::Attribute(Attribute { path, want, fixed, until_boot: false }))
}
