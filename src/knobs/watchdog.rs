//! The kernel's own watchdogs, which take a busy vCPU for a fault.

use super::boot::{argument, flag};
use super::{Disruption, Knob, Reach, Values, attribute, sysctl};
use crate::resources::Value;

pub(super) const KNOBS: &[Knob] = &[SOFT, NMI, HUNG_TASK, SOFT_BOOT, NMI_BOOT, ALL_BOOT, CPUS];

const SOFT: Knob = Knob {
    id: "watchdog.soft",
    summary: "Do not take a vCPU that never sleeps for a lockup",
    why: "The detector runs a timer on every CPU and reports one whose thread of its own did not run for 20 s, which \
        is what a busy real-time vCPU looks like. Real lockups are not reported either.",
    source: "Linux admin-guide/lockup-watchdogs.rst",
    since: "Linux 4.3, with CONFIG_SOFTLOCKUP_DETECTOR",
    check: "/proc/sys/kernel/soft_watchdog is 0",
    reach: Reach::Live,
    disruption: Disruption::BriefStall,
    values: Values::ON,
    settings: |_| sysctl("kernel.soft_watchdog", 0),
};

const NMI: Knob = Knob {
    id: "watchdog.nmi",
    summary: "Send no watchdog interrupts that nothing can hold back",
    why: "The hard lockup detector interrupts each CPU every few seconds through the performance counters, also where \
        interrupts are off. Without it a CPU that hangs in the kernel is not reported.",
    source: "Linux admin-guide/lockup-watchdogs.rst, admin-guide/sysctl/kernel.rst (nmi_watchdog)",
    since: "Linux 2.6.37, with CONFIG_HARDLOCKUP_DETECTOR",
    check: "/proc/sys/kernel/nmi_watchdog is 0",
    reach: Reach::Live,
    disruption: Disruption::BriefStall,
    values: Values::ON,
    settings: |_| sysctl("kernel.nmi_watchdog", 0),
};

const HUNG_TASK: Knob = Knob {
    id: "watchdog.hung-task",
    summary: "Wait 10 minutes before a task that cannot run is reported",
    why: "An ordinary thread that is bound to an isolated CPU waits there for as long as the vCPU runs. That is no \
        fault of the thread.",
    source: "Linux admin-guide/sysctl/kernel.rst (hung_task_timeout_secs)",
    since: "Linux 2.6.30, with CONFIG_DETECT_HUNG_TASK",
    check: "/proc/sys/kernel/hung_task_timeout_secs is 600",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |_| sysctl("kernel.hung_task_timeout_secs", 600),
};

const SOFT_BOOT: Knob = Knob {
    id: "watchdog.soft-boot",
    summary: "Start without the detector of soft lockups",
    why: "The same as watchdog.soft, before the boot unit runs: its timers are not started on the isolated CPUs at all.",
    source: "Linux admin-guide/kernel-parameters.txt (nosoftlockup)",
    since: "Linux 2.6.24, with CONFIG_SOFTLOCKUP_DETECTOR",
    check: "/proc/cmdline, and /proc/sys/kernel/soft_watchdog is 0",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| flag(ctx, "nosoftlockup"),
};

const NMI_BOOT: Knob = Knob {
    id: "watchdog.nmi-boot",
    summary: "Start without watchdog interrupts that nothing can hold back",
    why: "The same as watchdog.nmi, before the boot unit runs. A performance counter is free for other uses.",
    source: "Linux admin-guide/kernel-parameters.txt (nmi_watchdog)",
    since: "Linux 2.6.37, with CONFIG_HARDLOCKUP_DETECTOR",
    check: "/proc/cmdline, and /proc/sys/kernel/nmi_watchdog is 0",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| argument(ctx, "nmi_watchdog", "0", None),
};

const ALL_BOOT: Knob = Knob {
    id: "watchdog.boot",
    summary: "Start without either detector of lockups, so that none can be turned on by mistake",
    why: "The two others of this area turn each off by itself, which suffices. No lockup is reported.",
    source: "Linux admin-guide/kernel-parameters.txt (nowatchdog)",
    since: "Linux 2.6.37",
    check: "/proc/cmdline, and /proc/sys/kernel/watchdog is 0",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::OPT_IN,
    settings: |ctx| flag(ctx, "nowatchdog"),
};

const CPUS: Knob = Knob {
    id: "watchdog.cpus",
    summary: "Let the watchdogs look at the housekeeping CPUs alone",
    why: "For those who turn the detectors of lockups on again: lockups of the housekeeping CPUs are then reported, and \
        the isolated ones are spared. The kernel leaves CPUs without a tick out by itself, unless something set this.",
    source: "Linux admin-guide/lockup-watchdogs.rst, admin-guide/sysctl/kernel.rst (watchdog_cpumask)",
    since: "Linux 4.3, with CONFIG_LOCKUP_DETECTOR",
    check: "/proc/sys/kernel/watchdog_cpumask, compared as a set",
    reach: Reach::Live,
    disruption: Disruption::BriefStall,
    values: Values::OPT_IN,
    settings: |ctx| {
        let housekeeping = Value::List(ctx.placement.housekeeping.clone());
        Ok(vec![attribute("kernel.watchdog_cpumask", "/proc/sys/kernel/watchdog_cpumask", housekeeping)])
    },
};
