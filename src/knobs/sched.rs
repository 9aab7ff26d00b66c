//! The scheduler, its timers and unbound kernel work.

use super::{Context, Disruption, Knob, Reach, Setting, attribute, sysctl};
use crate::facts::kernel::{WORKQUEUE_MASK, WORKQUEUES};
use crate::resources::Value;

pub(super) const KNOBS: &[Knob] = &[RT_THROTTLING, TIMER_MIGRATION, NUMA_BALANCING, UNBOUND_WORK];

const RT_THROTTLING: Knob = Knob {
    id: "sched.rt-throttling",
    summary: "Let a real-time vCPU run without a break",
    why: "By default the kernel takes the CPU from SCHED_FIFO threads for 50 ms of each second once they used \
        950 ms, and a vCPU that polls does. The price: a runaway real-time thread keeps its CPU for ever. Since \
        6.12 the kernel keeps 50 ms of a second for other threads by a server of its own, whatever this says.",
    source: "Linux scheduler/sched-rt-group.rst",
    since: "Linux 2.6.25",
    check: "/proc/sys/kernel/sched_rt_runtime_us is -1",
    reach: Reach::Live,
    disruption: Disruption::None,
    settings: |_| sysctl("kernel.sched_rt_runtime_us", -1),
};

const TIMER_MIGRATION: Knob = Knob {
    id: "sched.timer-migration",
    summary: "Keep timers on the CPU that armed them",
    why: "Looking for a busier CPU for a timer costs time when it is armed, and wakes that one. The partition does not \
        change while the machine runs, so no timer of a housekeeping CPU is left on an isolated one.",
    source: "TuneD realtime profile; Linux kernel/time/timer.c (sysctl_timer_migration)",
    since: "Linux 2.6.31",
    check: "/proc/sys/kernel/timer_migration is 0",
    reach: Reach::Live,
    disruption: Disruption::None,
    settings: |_| sysctl("kernel.timer_migration", 0),
};

const NUMA_BALANCING: Knob = Knob {
    id: "sched.numa-balancing",
    summary: "Leave memory and threads on the node where they were put",
    why: "Automatic balancing takes mappings away to see who uses them, and each access then costs a page fault. \
        Everything that matters here is bound to its node already. Real-time kernels do not have it.",
    source: "Linux admin-guide/sysctl/kernel.rst (numa_balancing)",
    since: "Linux 3.8, with CONFIG_NUMA_BALANCING",
    check: "/proc/sys/kernel/numa_balancing is 0",
    reach: Reach::Live,
    disruption: Disruption::None,
    settings: |_| sysctl("kernel.numa_balancing", 0),
};

const UNBOUND_WORK: Knob = Knob {
    id: "sched.workqueues",
    summary: "Keep unbound kernel work on the housekeeping CPUs",
    why: "Deferred work of drivers, file systems and writeback runs on any CPU of its workqueue's mask. Isolation \
        at boot sets the mask of all; a workqueue with a mask of its own keeps that.",
    source: "Linux core-api/workqueue.rst (Affinity Scopes, /sys/devices/virtual/workqueue)",
    since: "Linux 4.1",
    check: "cpumask of /sys/devices/virtual/workqueue and of each workqueue there, compared as masks",
    reach: Reach::Live,
    disruption: Disruption::None,
    settings: |ctx| {
        let queues = ctx.facts.kernel.workqueues.iter();
        let own = queues.map(|name| (format!("workqueue {name}"), format!("{WORKQUEUES}/{name}/cpumask")));
        let all = std::iter::once(("all workqueues together".to_owned(), WORKQUEUE_MASK.to_owned()));
        Ok(all.chain(own).map(|(label, path)| mask(ctx, &label, path)).collect())
    },
};

fn mask(ctx: &Context, label: &str, path: String) -> Setting {
    attribute(label, path, Value::Mask(ctx.placement.housekeeping.clone()))
}
