//! Interrupts.

use super::boot::argument;
use super::services::{PROFILE, WRITTEN, file};
use super::{Chosen, Context, Disruption, Knob, Reach, Setting, Values, unfit};
use crate::facts::PROGRAM;
use crate::facts::irqs::{DEFAULT_AFFINITY, affinity};
use crate::facts::{Interface, Irq, Movable};
use crate::formats::{Channels, CpuSet, HostPath};
use crate::placement::NodePlace;
use crate::resources::{
    Attribute, IRQ_RULES, IRQ_SERVICE, IRQ_TIMER, OwnedFile, Resource, State, Value, untold,
};
use std::collections::HashMap;

pub(super) const KNOBS: &[Knob] = &[BOOT_AFFINITY, DEFAULT, AFFINITY, NEW_DEVICES, CHANNELS];

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
        the housekeeping CPUs of their device's node, of which the kernel takes the one with the most vectors left. An \
        x86 CPU has about 200 vectors: where the node's are taken all housekeeping CPUs may have it, and where those \
        are, the plan says so before the kernel does. Kernel-managed queues, platform timers and per-CPU \
        interrupts cannot be moved from outside the kernel and are reported.",
    source: "Linux core-api/irq/irq-affinity.rst; commit eb29369fa543 for the read-only attribute",
    since: "Linux 2.6 or before; read-only where it cannot be set since 6.12, before that the write fails",
    check: "/proc/irq/N/smp_affinity_list is within the housekeeping CPUs",
    reach: Reach::Live,
    disruption: Disruption::IrqMove,
    values: Values::ON,
    settings: |ctx| {
        let mut vectors = Vectors::new(ctx);
        Ok(ctx.facts.irqs.irqs.iter().map(|irq| irq_setting(ctx, &mut vectors, irq)).collect())
    },
};

/// Vectors that one x86 CPU has for interrupts of devices: 256 without the processor's own and those the kernel keeps
/// (arch/x86/include/asm/irq_vectors.h; `Global available` in /sys/kernel/debug/irq/domains/VECTOR is about that many
/// for each CPU).
const VECTORS: usize = 200;

/// Which vectors of the housekeeping CPUs are taken, as far as it can be known: x86 gives each interrupt one on one CPU.
struct Vectors<'a> {
    ctx: &'a Context<'a>,
    /// All housekeeping CPUs as a list, which each interrupt without a vector is told with.
    list: String,
    /// Which of the placement's nodes has each housekeeping CPU.
    nodes: HashMap<u32, usize>,
    /// How many interrupts stay within each node's housekeeping CPUs, in the order of the placement's nodes.
    near: Vec<usize>,
    /// How many stay within all of them.
    all: usize,
}

impl<'a> Vectors<'a> {
    /// With the interrupts that stay where they are.
    fn new(ctx: &'a Context<'a>) -> Vectors<'a> {
        let of_node = |(at, node): (usize, &'a NodePlace)| node.housekeeping.iter().map(move |cpu| (cpu, at));
        let nodes = ctx.placement.nodes.iter().enumerate().flat_map(of_node).collect();
        let list = ctx.placement.housekeeping.to_string();
        let near = vec![0; ctx.placement.nodes.len()];
        let mut vectors = Vectors { ctx, list, nodes, near, all: 0 };
        for irq in ctx.facts.irqs.irqs.iter().filter(|irq| !moves(ctx, irq)) {
            // Where it goes now lags behind for one that was moved.
            let effective = irq.effective.as_ref().filter(|_| irq.movable != Movable::Yes);
            let on = effective.unwrap_or(&irq.affinity);
            if !on.is_empty() && on.is_subset(&ctx.placement.housekeeping) {
                vectors.take(on);
            }
        }
        vectors
    }

    /// The housekeeping CPUs of the node that has the first of these, and the node's place among the others.
    fn node(&self, cpus: &CpuSet) -> Option<(usize, &'a CpuSet)> {
        let at = *self.nodes.get(&cpus.first()?)?;
        Some((at, &self.ctx.placement.nodes[at].housekeeping))
    }

    fn take(&mut self, cpus: &CpuSet) {
        self.all += 1;
        if let Some((at, _)) = self.node(cpus).filter(|(_, near)| cpus.is_subset(near)) {
            self.near[at] += 1;
        }
    }

    /// Whether none is left for one more interrupt on these CPUs.
    fn is_full(&self, cpus: &CpuSet) -> bool {
        let near = self.node(cpus).filter(|(_, near)| *near == cpus).map(|(at, _)| self.near[at]);
        // Only x86 has so few, and it alone has flags.
        self.ctx.facts.hardware.flags.is_some() && near.unwrap_or(self.all) >= VECTORS * cpus.len()
    }
}

/// Whether an interrupt is one to move.
fn moves(ctx: &Context, irq: &Irq) -> bool {
    irq.movable == Movable::Yes && !irq.affinity.is_subset(&ctx.placement.housekeeping)
}

fn irq_setting(ctx: &Context, vectors: &mut Vectors, irq: &Irq) -> Setting {
    let label = format!("IRQ {}", irq.number);
    let fixed = (irq.movable != Movable::Yes).then(|| irq.movable.reason().to_owned());
    let housekeeping = &ctx.placement.housekeeping;
    let mut want = target(ctx, irq);
    let mut full = false;
    if moves(ctx, irq) {
        if vectors.is_full(&want) {
            want = housekeeping.clone();
        }
        full = vectors.is_full(housekeeping);
        vectors.take(&want);
    }
    let setting = match full {
        true => {
            let state = State::ByHand(format!(
                "CPUs {} have about {VECTORS} interrupt vectors each, and all are taken: use more housekeeping CPUs, or \
                 fewer channels (knob irq.channels)",
                vectors.list
            ));
            let found = Some(irq.affinity.to_string());
            let wanted = if want == *housekeeping { vectors.list.clone() } else { want.to_string() };
            Setting::new(label, Resource::Check { found, wanted, state, kept_by: None })
        }
        false => attribute(&label, affinity(irq.number), Value::List(want), fixed),
    };
    Setting { detail: irq.actions.clone(), ..setting }
}

/// Where an interrupt should go: the housekeeping part of where it may go now, else near its device. All of these CPUs:
/// of them the kernel takes the one with the most vectors left, and an interrupt that may use one CPU only has nowhere
/// to go when that is full or taken offline.
fn target(ctx: &Context, irq: &Irq) -> CpuSet {
    let housekeeping = &ctx.placement.housekeeping;
    match irq.affinity.intersection(housekeeping) {
        kept if !kept.is_empty() => kept,
        _ => near(ctx, irq.node).clone(),
    }
}

/// The CPUs that handle the interrupts of a device on this node.
fn near<'c>(ctx: &Context<'c>, node: Option<u32>) -> &'c CpuSet {
    let near = node.and_then(|node| ctx.placement.node(node)).map(|node| &node.housekeeping);
    near.filter(|near| !near.is_empty()).unwrap_or(&ctx.placement.housekeeping)
}

fn attribute(label: &str, path: HostPath, want: Value, fixed: Option<String>) -> Setting {
    Setting::new(label, Resource::Attribute(Attribute { path, want, fixed, until_boot: false }))
}

const NEW_DEVICES: Knob = Knob {
    id: "irq.new-devices",
    summary: "Move the interrupts of devices that come up later as well",
    why: "A driver that is loaded, or a network interface that is set up, asks for interrupts, and many drivers spread \
        them over all CPUs whatever the default says. udev tells of the device, and the hooks of ifupdown and \
        NetworkManager, where they are installed, of the interface; each starts a timer anew, and 2 s after the last the \
        boot unit's `apply --runtime` runs once more. Nothing stays in memory. Interrupts of a device that a guest gets \
        (VFIO) come into being later, when the guest's driver asks for them: those go where the default says.",
    source: "udev(7); systemd.timer(5); interfaces(5) (if-up.d); NetworkManager-dispatcher(8)",
    since: "bind events of udev Linux 4.14",
    check: "the rules, the units and the hooks have the planned content",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let files = [
            ("unit", IRQ_SERVICE, service()),
            ("timer", IRQ_TIMER, timer()),
            ("udev rules", IRQ_RULES, rules()),
        ];
        let files = files.into_iter().map(|(label, path, text)| Setting::new(label, file(path, text)));
        let hooks = ctx.facts.interface_hooks.iter().map(|path| {
            let hook = OwnedFile { path: path.clone(), content: hook(), mode: 0o755 };
            Setting::new(format!("hook {path}"), Resource::File(hook))
        });
        Ok(files.chain(hooks).collect())
    },
};

/// What starts it; to start it again puts it off.
const START: &str = "/usr/bin/systemctl --no-block restart rtkvm-tune-irq.timer";

fn rules() -> String {
    format!(
        "{WRITTEN}\
         ACTION==\"bind\", SUBSYSTEM==\"pci\", RUN+=\"{START}\"\n\
         ACTION==\"add|move\", SUBSYSTEM==\"net\", DEVPATH!=\"/devices/virtual/*\", RUN+=\"{START}\"\n"
    )
}

fn hook() -> String {
    format!("#!/bin/sh\n{WRITTEN}exec {START}\n")
}

fn timer() -> String {
    format!(
        "{WRITTEN}\
         [Unit]\n\
         Description=A moment after the last device came up\n\
         # It is started again by each device.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Timer]\n\
         OnActiveSec=2s\n\
         AccuracySec=100ms\n"
    )
}

fn service() -> String {
    format!(
        "{WRITTEN}\
         [Unit]\n\
         Description=Interrupts of new devices go to the housekeeping CPUs\n\
         After=rtkvm-tune.service\n\
         ConditionPathExists={PROFILE}\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={PROGRAM} apply --runtime --keep-going --wait 60 {PROFILE}\n\
         # What waits for guests is no failure here.\n\
         SuccessExitStatus=1\n"
    )
}

const CHANNELS: Knob = Knob {
    id: "irq.channels",
    summary: "Give network interfaces no more channels than CPUs handle their interrupts",
    why: "Many drivers ask for a channel, a pair of queues with its interrupt, for each CPU of the machine. All of them \
        end on the housekeeping CPUs, where more channels than CPUs gain nothing and take interrupt vectors, of which an x86 \
        CPU has about 200. \"on\" leaves as many as the device's node has housekeeping CPUs, and an interface that has fewer \
        keeps them; a number is how many each has, as far as its driver can. The interface loses its link for a moment, so that \
        it waits while guests run; its new interrupts are moved by the same apply. Counted are combined channels; drivers that \
        have some for receiving and others for sending are left alone.",
    source: "ethtool(8) (--set-channels); Linux networking/ethtool-netlink.rst (CHANNELS_GET)",
    since: "Linux 3.0 (ethtool -L); drivers each in their own time",
    check: "`ethtool -l INTERFACE`, of interfaces with a device",
    reach: Reach::Live,
    disruption: Disruption::LinkLoss,
    values: Values::OPT_IN.or_number(1..=256, "channels"),
    settings: |ctx| {
        let none =
            || unfit("channels", "no more than CPUs", "no network interface with a device can be seen");
        let settings: Vec<Setting> =
            ctx.further.interfaces.iter().map(|interface| channels(ctx, interface)).collect();
        Ok(if settings.is_empty() { vec![none()] } else { settings })
    },
};

/// The knob of channels, for which each interface is asked.
pub const CHANNELS_KNOB: &str = CHANNELS.id;

fn channels(ctx: &Context, interface: &Interface) -> Setting {
    let (name, path) = (&interface.name, &interface.path);
    let (asked, at_most) = match ctx.value {
        Chosen::Number(number) => (number.unsigned_abs(), false),
        Chosen::Word(_) => (near(ctx, interface.node).len() as u64, true),
    };
    let found = match interface.channels {
        Ok(Channels { most: 0, .. }) => {
            return unfit(name, asked.to_string(), "its driver has no combined channels to set");
        }
        Ok(Channels { combined: 0, .. }) => {
            return unfit(name, asked.to_string(), "it has channels for receiving and others for sending");
        }
        Ok(found) => found,
        Err(error) => {
            let (wanted, state) = (asked.to_string(), untold(path, error));
            return Setting::new(name, Resource::Check { found: None, wanted, state, kept_by: None });
        }
    };
    let most = if at_most { found.combined } else { found.most };
    let setting = attribute(name, path.clone(), Value::Channels(asked.min(most)), None);
    Setting { note: Some(LINK_DOWN), ..setting }
}

const LINK_DOWN: &str = "a network interface that gets other channels loses its link for a moment, and guests \
    that run on it their network";
