//! CPU isolation at boot.

use super::boot::{argument, flag};
use super::values::{risky, word};
use super::{Disruption, Knob, Reach, Setting, Values, attribute, ignored, unfit};
use crate::facts::modules;
use crate::facts::processor;
use crate::profile::Diagnostic;
use crate::resources::{Ignored, Value};

pub(super) const KNOBS: &[Knob] = &[
    ISOLCPUS,
    NOHZ_FULL,
    RCU_NOCBS,
    RCU_NORMAL,
    SKEW_TICK,
    MITIGATIONS,
    NOHZ,
    RCU_NORMAL_BOOT,
    RCU_PATIENCE,
    RCU_NOCB_POLL,
    RCU_PRIORITY,
    TSC,
    SMT,
    AUDIT,
    CORRECTED_ERRORS,
    MACHINE_CHECK,
    KTHREADS,
];

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
    settings: |_| {
        let setting = attribute("rcu_normal", "/sys/kernel/rcu_normal", Value::Number(1));
        Ok(vec![Setting { at_boot: Some(RCU_NORMAL_BOOT.id), ..setting }])
    },
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

const NOHZ: Knob = Knob {
    id: "cpu.nohz",
    summary: "Let CPUs go without a tick at all",
    why: "nohz_full builds on it, and it is the default; this keeps it so where something else turned it off.",
    source: "Linux timers/no_hz.rst; admin-guide/kernel-parameters.txt (nohz)",
    since: "Linux 2.6.21",
    check: "/proc/cmdline",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| argument(ctx, "nohz", "on", None),
};

const RCU_NORMAL_BOOT: Knob = Knob {
    id: "cpu.rcu-normal-boot",
    summary: "Wait for RCU without interrupting the other CPUs, as soon as the boot is over",
    why: "The kernel hurries while it boots, by interrupts to every CPU, and stops when init starts; the boot unit that \
        sets the same comes seconds later. Kernels with PREEMPT_RT do it by themselves.",
    source: "Linux admin-guide/kernel-parameters.txt (rcupdate.rcu_normal_after_boot)",
    since: "Linux 4.4",
    check: "/sys/kernel/rcu_normal is 1",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| {
        let name = "rcupdate.rcu_normal_after_boot";
        match ctx.facts.kernel.preempt_rt {
            Some(true) => Ok(vec![unfit(name, "1", "a kernel with PREEMPT_RT does it by itself")]),
            _ => argument(ctx, name, "1", None),
        }
    },
};

const RCU_PATIENCE: Knob = Knob {
    id: "cpu.rcu-patience",
    summary: "Let RCU wait a second before it disturbs a CPU without a tick",
    why: "A CPU that was in the kernel for a moment is otherwise asked at once by an interrupt, and gets its tick back. \
        Memory that waits for RCU is freed as much later.",
    source: "Linux admin-guide/kernel-parameters.txt (rcutree.nohz_full_patience_delay)",
    since: "Linux 6.11",
    check: "/sys/module/rcutree/parameters/nohz_full_patience_delay",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::number(1000, 1..=5000, "ms"),
    settings: |ctx| {
        let (module, name) = ("rcutree", "nohz_full_patience_delay");
        let wanted = ctx.value.number().to_string();
        match ctx.facts.modules.parameter(module, name) {
            Ok(_) => argument(ctx, &format!("{module}.{name}"), &wanted, None),
            Err(error) => Ok(vec![unfit(name, wanted, format!("{} {error}", modules::path(module, name)))]),
        }
    },
};

const RCU_NOCB_POLL: Knob = Knob {
    id: "cpu.rcu-nocb-poll",
    summary: "Have the threads for RCU callbacks look for work, not be woken",
    why: "An isolated CPU need not wake the thread that handles its callbacks. The threads poll on the housekeeping CPUs \
        instead, all the time.",
    source: "Linux admin-guide/kernel-parameters.txt (rcu_nocb_poll)",
    since: "Linux 3.8, with CONFIG_RCU_NOCB_CPU",
    check: "/proc/cmdline",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::OPT_IN,
    settings: |ctx| flag(ctx, "rcu_nocb_poll"),
};

const RCU_PRIORITY: Knob = Knob {
    id: "cpu.rcu-priority",
    summary: "Give the threads of RCU a real-time priority from the boot on",
    why: "The same as what sched.kernel-threads sets for the isolated CPUs, for the threads of all CPUs and before the \
        boot unit runs. It must be above the vCPUs' priority.",
    source: "Linux admin-guide/kernel-parameters.txt (rcutree.kthread_prio)",
    since: "Linux 3.19, with PREEMPT_RT or CONFIG_RCU_BOOST",
    check: "/proc/cmdline, and the priority of rcuc/N in /proc/PID/stat",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::opt_in_number(1..=99, ""),
    settings: |ctx| {
        let wanted = ctx.value.number();
        let highest = ctx.profile.guests.iter().map(|guest| guest.fifo_priority.value).max().unwrap_or(0);
        if wanted <= i64::from(highest) {
            let line = ctx.profile.knobs.iter().find(|line| line.id.value == RCU_PRIORITY.id);
            let message = format!("`{}` is not above the guests' fifo-priority {highest}", RCU_PRIORITY.id);
            let error = line.map_or_else(
                || Diagnostic::whole(message.clone()),
                |line| Diagnostic::error(line.value.span.clone(), message.clone()),
            );
            return Err(vec![
                error.help("RCU would never run beside a vCPU that does not sleep: use a higher one"),
            ]);
        }
        argument(ctx, "rcutree.kthread_prio", &wanted.to_string(), None)
    },
};

const TSC: Knob = Knob {
    id: "cpu.tsc",
    summary: "Trust the processor's clock, and do not check it on every CPU",
    why: "A timer compares it twice a second with a slower clock, each time on another CPU, isolated ones included. Only \
        where the processor's counter runs at one rate in all states (constant_tsc, nonstop_tsc) and the kernel uses it \
        already: were it wrong, time would go wrong silently.",
    source: "Linux admin-guide/kernel-parameters.txt (tsc); kernel/time/clocksource.c",
    since: "Linux 2.6.35; nowatchdog 5.3",
    check: "/proc/cmdline, and /sys/devices/system/clocksource/clocksource0/current_clocksource is tsc",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::words(&[
        word("reliable", "not checked while booting either"),
        word("nowatchdog", "checked while booting, not later"),
    ]),
    settings: |ctx| {
        let processor = &ctx.facts.processor;
        let missing = ["constant_tsc", "nonstop_tsc"].into_iter().find(|flag| !processor.has(flag));
        let why = match (missing, processor.clock.as_deref()) {
            (Some(flag), _) => format!("the processor has no {flag}"),
            (None, Some("tsc")) => return argument(ctx, "tsc", ctx.value.word(), None),
            (None, Some(clock)) => format!("the kernel's clock is {clock}, not the processor's"),
            (None, None) => "which clock the kernel uses is not known".into(),
        };
        Ok(vec![unfit("tsc", ctx.value.word(), why)])
    },
};

const SMT: Knob = Knob {
    id: "cpu.smt",
    summary: "Use one thread of each core",
    why: "A sibling shares caches and pipelines with the thread that must be on time. Without this a sibling of a vCPU's \
        CPU stays idle, which is as good while nothing runs there; the firmware's own switch is better than either. The \
        machine has half the CPUs after the boot: plan again then.",
    source: "Linux admin-guide/kernel-parameters.txt (nosmt); ABI/testing/sysfs-devices-system-cpu (smt/control)",
    since: "Linux 4.19",
    check: "/sys/devices/system/cpu/smt/control is off or forceoff",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::opt_in(&[
        word("off", "can be turned on again while the machine runs: nosmt"),
        word("force", "for good: nosmt=force"),
    ]),
    settings: |ctx| {
        let state = ctx.facts.processor.smt.as_deref();
        match (state, ctx.value.word()) {
            (Some("notsupported" | "notimplemented"), word) => {
                let state = state.unwrap_or_default();
                Ok(vec![unfit(
                    "nosmt",
                    word,
                    format!("the machine has no SMT: {} says {state}", processor::SMT),
                )])
            }
            (_, "force") => {
                let refused =
                    (state == Some("on")).then(|| Ignored::Rejected(format!("{} says on", processor::SMT)));
                argument(ctx, "nosmt", "force", refused)
            }
            _ => flag(ctx, "nosmt"),
        }
    },
};

const AUDIT: Knob = Knob {
    id: "cpu.audit",
    summary: "Turn the kernel's audit off",
    why: "With rules loaded each system call is looked at, and every task takes the slow way into the kernel.",
    source: "Linux admin-guide/kernel-parameters.txt (audit); auditctl(8)",
    since: "Linux 2.6.6",
    check: "/proc/cmdline, and `auditctl -s` says enabled 0",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::opt_in(&[risky(
        "off",
        "audit=0",
        "nothing is audited any more, refusals by SELinux are not logged either, and rules on compliance may forbid it",
    )]),
    settings: |ctx| argument(ctx, "audit", "0", None),
};

const CORRECTED_ERRORS: Knob = Knob {
    id: "cpu.corrected-errors",
    summary: "Do not look for memory and processor errors that were corrected",
    why: "A timer on every CPU asks for them each five minutes or oftener, and each one found interrupts a CPU. Errors \
        that were not corrected are handled as before; but a memory module that is about to fail is noticed later.",
    source: "Linux arch/x86/include/uapi and admin-guide/kernel-parameters.txt (mce=ignore_ce)",
    since: "Linux 2.6.32",
    check: "/sys/devices/system/machinecheck/machinecheckN/ignore_ce is 1; one switch for all CPUs",
    reach: Reach::Live,
    disruption: Disruption::BriefStall,
    values: Values::ON,
    settings: |ctx| {
        Ok(vec![match &ctx.facts.processor.ignore_corrected {
            Some(Ok(path)) => Setting {
                note: Some(NO_CORRECTED),
                ..attribute("ignore_ce", path.to_string(), Value::Number(1))
            },
            Some(Err(error)) => unfit(
                "ignore_ce",
                "1",
                format!("/sys/devices/system/machinecheck/machinecheckN/ignore_ce {error}"),
            ),
            None => unfit("ignore_ce", "1", "not known here"),
        }])
    },
};

const NO_CORRECTED: &str = "corrected memory errors are no longer logged: watch the memory by the management controller, or \
    keep the kernel's log of them by \"cpu.corrected-errors\" = \"keep\"";

const MACHINE_CHECK: Knob = Knob {
    id: "cpu.machine-check",
    summary: "Choose what the kernel does with the processor's error reports, from the boot on",
    why: "The same as cpu.corrected-errors before the boot unit runs, or no handling of machine checks at all.",
    source: "Linux arch/x86/boot options (mce=); admin-guide/kernel-parameters.txt",
    since: "Linux 2.6.32",
    check: "/proc/cmdline",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::opt_in(&[
        risky(
            "ignore_ce",
            "corrected errors are not looked for",
            "a memory module that is about to fail is noticed later",
        ),
        risky(
            "off",
            "none of them is handled",
            "memory that is broken is used on without a word, and an error that can be contained resets the machine",
        ),
    ]),
    settings: |ctx| match ctx.facts.processor.vendor {
        None => Ok(vec![unfit("mce", ctx.value.word(), "only x86 processors have it")]),
        Some(_) => argument(ctx, "mce", ctx.value.word(), None),
    },
};

const KTHREADS: Knob = Knob {
    id: "cpu.kthreads",
    summary: "Start kernel threads on the housekeeping CPUs, where a patched kernel can",
    why: "Kernels of some distributions for real-time and telecommunications take `kthread_cpus=`. Others do not know it \
        and say so in their log, which an audit shows as rejected; there isolcpus and nohz_full do it already.",
    source: "StarlingX and Yocto kernel patches (kthread_cpus); not in Linux",
    since: "patched kernels only",
    check: "/proc/cmdline, and the kernel's log on unknown parameters",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::OPT_IN,
    settings: |ctx| argument(ctx, "kthread_cpus", &ctx.placement.housekeeping.to_string(), None),
};
