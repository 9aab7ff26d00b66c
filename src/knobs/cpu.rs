//! CPU isolation at boot.

use super::boot::argument;
use super::values::{risky, word};
use super::{Disruption, Knob, Reach, Values, attribute, ignored};
use crate::resources::{Ignored, Value};

pub(super) const KNOBS: &[Knob] = &[ISOLCPUS, NOHZ_FULL, RCU_NOCBS, RCU_NORMAL, SKEW_TICK, MITIGATIONS];

const ISOLCPUS: Knob = Knob {
    id: "cpu.isolcpus",
    summary: "Keep the scheduler's load balancing and managed interrupts off the isolated CPUs",
    why: "Nothing is ever moved onto an isolated CPU by itself, so that a vCPU pinned there runs alone. The \
        flags are explicit: `domain` isolates the scheduler, `managed_irq` keeps kernel-managed interrupts \
        away where it can, and `managed_irq` alone would isolate nothing. Tasks must be placed there by hand; \
        libvirt does that.",
    source: "Linux admin-guide/kernel-parameters.txt (isolcpus); libvirt, KVM Real Time Guest Config",
    since: "flags Linux 4.15, managed_irq 5.6",
    check: "/sys/devices/system/cpu/isolated holds exactly the isolated CPUs",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| {
        let isolated = &ctx.placement.isolated;
        let ignored =
            ignored(ctx, "/sys/devices/system/cpu/isolated", ctx.facts.cpus.isolated.as_ref(), isolated);
        argument(ctx, "isolcpus", &format!("managed_irq,domain,{isolated}"), ignored)
    },
};

const NOHZ_FULL: Knob = Knob {
    id: "cpu.nohz-full",
    summary: "Stop the scheduler's tick on isolated CPUs that run one task",
    why: "A tick interrupts the guest 100 to 1,000 times a second. Without it timers, RCU and unbound kernel \
        threads move to the housekeeping CPUs as well. Entering and leaving the kernel costs a little more.",
    source: "Linux timers/no_hz.rst; admin-guide/kernel-parameters.txt (nohz_full)",
    since: "Linux 3.10, with CONFIG_NO_HZ_FULL",
    check: "/sys/devices/system/cpu/nohz_full holds exactly the isolated CPUs",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| {
        let isolated = &ctx.placement.isolated;
        let ignored =
            ignored(ctx, "/sys/devices/system/cpu/nohz_full", ctx.facts.cpus.nohz_full.as_ref(), isolated);
        argument(ctx, "nohz_full", &isolated.to_string(), ignored)
    },
};

const RCU_NOCBS: Knob = Knob {
    id: "cpu.rcu-nocbs",
    summary: "Run RCU callbacks of the isolated CPUs in threads on the housekeeping CPUs",
    why: "Freed kernel objects are otherwise handled in softirqs on the CPU that freed them, the isolated one. \
        nohz_full implies it; it is written out so that it holds on kernels without CONFIG_NO_HZ_FULL.",
    source: "Linux admin-guide/kernel-parameters.txt (rcu_nocbs)",
    since: "Linux 3.8, with CONFIG_RCU_NOCB_CPU",
    check: "/proc/cmdline, and in the kernel's log `Offload RCU callbacks from CPUs`; there is no attribute for it",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| {
        let isolated = &ctx.placement.isolated;
        // As nohz_full implies it, there may be more of them.
        let offloaded = ctx.facts.kernel.log.offloaded();
        let fewer = offloaded.filter(|(cpus, _)| !isolated.difference(cpus).is_empty());
        let ignored = fewer.map(|(_, line)| {
            Ignored::Rejected(format!("the kernel did not accept it and logged `{}`", line.trim()))
        });
        argument(ctx, "rcu_nocbs", &isolated.to_string(), ignored)
    },
};

const RCU_NORMAL: Knob = Knob {
    id: "cpu.rcu-normal",
    summary: "Wait for RCU without interrupting the other CPUs",
    why: "An expedited grace period asks every CPU at once by an interrupt, isolated ones included. With this the \
        kernel uses ordinary ones instead; what waits for them takes some milliseconds longer. Kernels with PREEMPT_RT \
        do it by themselves after the boot.",
    source: "Linux admin-guide/kernel-parameters.txt (rcupdate.rcu_normal)",
    since: "Linux 4.4",
    check: "/sys/kernel/rcu_normal is 1",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |_| Ok(vec![attribute("rcu_normal", "/sys/kernel/rcu_normal", Value::Number(1))]),
};

const SKEW_TICK: Knob = Knob {
    id: "cpu.skew-tick",
    summary: "Let the CPUs tick one after the other",
    why: "All ticks at the same moment contend for the same locks. Spread out they do not; the machine sleeps a little less \
        well.",
    source: "Linux admin-guide/kernel-parameters.txt (skew_tick)",
    since: "Linux 2.6.39",
    check: "/proc/cmdline; the kernel has no attribute for it",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| argument(ctx, "skew_tick", "1", None),
};

const MITIGATIONS: Knob = Knob {
    id: "cpu.mitigations",
    summary: "Choose the protection against leaks between programs through the processor",
    why: "Each entry into the kernel, and each guest that is left or entered, takes longer with it: flushes and barriers. \
        That is mostly throughput; the worst case gains little. Only where every guest and every program is yours \
        does it make sense to go without.",
    source: "Linux admin-guide/hw-vuln/index.rst; admin-guide/kernel-parameters.txt (mitigations)",
    since: "Linux 5.2",
    check: "/proc/cmdline, and what /sys/devices/system/cpu/vulnerabilities says of each",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::opt_in(&[
        risky(
            "off",
            "none of them",
            "programs and guests can read the memory of others through Spectre, Meltdown, MDS and the like",
        ),
        word("auto", "all that the processor needs"),
        word("auto,nosmt", "the same, and no second thread of a core where that is needed"),
    ]),
    settings: |ctx| argument(ctx, "mitigations", ctx.value.word(), None),
};
