//! The scheduler, its timers and unbound kernel work.

use super::boot::{argument, flag};
use super::values::word;
use super::{Context, Disruption, Knob, Reach, Setting, Values, attribute, sysctl, unfit};
use crate::facts::kernel::{PRESSURE, WORKQUEUE_MASK, WORKQUEUES, fair_server};
use crate::facts::{KernelThread, ThreadKind};
use crate::formats::{CpuSet, HostPath, Policy};
use crate::profile::Diagnostic;
use crate::resources::{Attribute, Ignored, Resource, Value};

pub(super) const KNOBS: &[Knob] = &[
    RT_THROTTLING,
    TIMER_MIGRATION,
    NUMA_BALANCING,
    UNBOUND_WORK,
    KERNEL_THREADS,
    THREADED_INTERRUPTS,
    FAIR_SERVER,
    PREEMPTION,
    UNBOUND_WORK_BOOT,
    RPS,
    STEERING,
    FREE_THREADS,
    PSI,
];

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
    values: Values::ON,
    settings: |_| sysctl("kernel.sched_rt_runtime_us", -1),
};

const TIMER_MIGRATION: Knob = Knob {
    id: "sched.timer-migration",
    summary: "Keep timers on the CPU that armed them",
    why: "A timer that a vCPU waits for, its emulated local APIC's too where the processor has no preemption timer, would fire \
        on a housekeeping CPU, late behind what that does. The partition does not change while the machine runs, so no \
        timer of a housekeeping CPU is left on an isolated one. The price, with nohz_full and kernels before 6.9: a timer \
        that the kernel armed for itself on an isolated CPU fires there too, once, instead of on a housekeeping one. \
        Keep the knob where that weighs more.",
    source: "TuneD realtime profile; Linux kernel/time/timer.c (get_target_base), arch/x86/kvm/lapic.c (start_sw_tscdeadline)",
    since: "Linux 2.6.31",
    check: "/proc/sys/kernel/timer_migration is 0",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
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
    values: Values::ON,
    settings: |_| sysctl("kernel.numa_balancing", 0),
};

const UNBOUND_WORK: Knob = Knob {
    id: "sched.workqueues",
    summary: "Keep unbound kernel work on the housekeeping CPUs",
    why: "Deferred work of drivers, file systems and writeback runs on any CPU of its workqueue's mask. Isolation \
        at boot sets the mask of all; a workqueue with a mask of its own keeps that. Since 6.8 the kernel takes the CPUs \
        of isolated cpuset partitions out of the mask that was asked for: what was asked for is compared then.",
    source: "Linux core-api/workqueue.rst (Affinity Scopes, /sys/devices/virtual/workqueue)",
    since: "Linux 4.1",
    check: "cpumask of /sys/devices/virtual/workqueue and of each workqueue there, compared as masks; cpumask_requested \
        where the kernel has it",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let queues = ctx.facts.kernel.workqueues.iter();
        let own = queues.map(|name| (format!("workqueue {name}"), format!("{WORKQUEUES}/{name}/cpumask")));
        let own = own.map(|(label, path)| mask(ctx, &label, path));
        Ok(std::iter::once(all_unbound_work(ctx)).chain(own).collect())
    },
};

/// The mask of all: what was asked for is what counts, of which a cpuset partition may have taken a part.
fn all_unbound_work(ctx: &Context) -> Setting {
    let label = "all workqueues together";
    let housekeeping = &ctx.placement.housekeeping;
    match &ctx.facts.kernel.unbound_work {
        Some((asked, has)) if asked == housekeeping && has != asked && has.is_subset(asked) => {
            let taken = asked.difference(has);
            let detail = format!("asked for {asked}; a cpuset partition has {taken}");
            Setting { detail, ..attribute(label, WORKQUEUE_MASK, Value::Mask(has.clone())) }
        }
        _ => mask(ctx, label, WORKQUEUE_MASK.into()),
    }
}

fn mask(ctx: &Context, label: &str, path: String) -> Setting {
    attribute(label, path, Value::Mask(ctx.placement.housekeeping.clone()))
}

const KERNEL_THREADS: Knob = Knob {
    id: "sched.kernel-threads",
    summary: "Schedule the kernel's own threads of the isolated CPUs before the vCPUs",
    why: "Softirqs, timers and RCU callbacks of a CPU are threads on a PREEMPT_RT kernel, with SCHED_OTHER or a low \
        priority. A vCPU with SCHED_FIFO that never sleeps keeps them from running: timers come late, and memory that \
        waits for RCU is never freed. ksoftirqd and ktimers get FIFO 2, rcuc and rcub FIFO 4, or as much more as the \
        guests' fifo-priority asks for. They run for microseconds, and only if there is something to do.",
    source: "Linux admin-guide/kernel-per-CPU-kthreads.rst; TuneD, profile realtime-virtual-host; chrt(1)",
    since: "PREEMPT_RT; ktimers Linux 6.1",
    check: "policy and priority of each thread in /proc/PID/stat",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let highest = highest_priority(ctx)?;
        let threads = ctx.facts.threads.iter().filter(|thread| {
            // `rcub` is one for up to 16 CPUs, and boosts for any of them.
            thread.kind == ThreadKind::RcuBoost || ctx.placement.isolated.contains(thread.number)
        });
        let without = (ctx.facts.kernel.preempt_rt != Some(true))
            .then(|| "softirqs and RCU are threads with priorities on a PREEMPT_RT kernel only".to_owned());
        Ok(threads.map(|thread| scheduled(thread, highest, without.clone())).collect())
    },
};

fn scheduled(thread: &KernelThread, highest: u8, fixed: Option<String>) -> Setting {
    let (usual, above) = match thread.kind {
        ThreadKind::Softirqs | ThreadKind::Timers => (2, 1),
        ThreadKind::Rcu | ThreadKind::RcuBoost => (4, 3),
    };
    let want = Value::Policy(Policy::Fifo((highest + above).clamp(usual, MOST_PRIORITY)));
    let attribute = Attribute { path: thread.stat.clone(), want, fixed, until_boot: false };
    Setting::new(format!("{} {}", thread.kind.name(), thread.number), Resource::Attribute(attribute))
}

/// The highest priority of SCHED_FIFO (sched(7)).
const MOST_PRIORITY: u8 = 99;

/// The highest priority of a vCPU; 0 without guests.
fn highest_priority(ctx: &Context) -> Result<u8, Vec<Diagnostic>> {
    let priorities = ctx.profile.guests.iter().map(|guest| &guest.fifo_priority);
    let Some(highest) = priorities.max_by_key(|priority| priority.value) else { return Ok(0) };
    if highest.value < MOST_PRIORITY || ctx.facts.threads.is_empty() {
        return Ok(highest.value);
    }
    let message = "fifo-priority 99 leaves none for the kernel's own threads of these CPUs";
    let help = "use 98 or less: ksoftirqd, ktimers and rcuc must run before a vCPU that never sleeps";
    Err(vec![Diagnostic::error(highest.span.clone(), message).help(help)])
}

const THREADED_INTERRUPTS: Knob = Knob {
    id: "sched.threadirqs",
    summary: "Handle interrupts in threads, which the scheduler can put off",
    why: "A vCPU of a higher priority is then not held up by an interrupt handler that came to its CPU. Each interrupt \
        costs a switch to its thread more. Kernels with PREEMPT_RT always do it.",
    source: "Linux admin-guide/kernel-parameters.txt (threadirqs)",
    since: "Linux 2.6.39",
    check: "/proc/cmdline, and threads named irq/N-...",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::OPT_IN,
    settings: |ctx| match ctx.facts.kernel.preempt_rt {
        Some(true) => Ok(vec![unfit("threadirqs", "threadirqs", "a kernel with PREEMPT_RT always does it")]),
        _ => flag(ctx, "threadirqs"),
    },
};

const FAIR_SERVER: Knob = Knob {
    id: "sched.fair-server",
    summary: "Leave no time of the isolated CPUs to ordinary threads",
    why: "Since 6.12 the kernel gives ordinary threads 50 ms of each second on a CPU that a real-time thread occupies, by \
        a deadline server of its own, whatever sched.rt-throttling says. It acts only where such a thread waits, and on \
        an isolated CPU none should: then this changes nothing. One that does wait, a kernel worker bound to that CPU, \
        takes the CPU from the vCPU; without the server it never runs, which may hang what waits for it. Off by default: \
        a gap is better than a hang.",
    source: "Linux scheduler/sched-deadline.rst; commit 5f6bd380c7bd (Remove default bandwidth control)",
    since: "Linux 6.12; read and set in debugfs, which lockdown closes",
    check: "/sys/kernel/debug/sched/fair_server/cpuN/runtime of each isolated CPU is 0",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in(&[word("off", "an ordinary thread waits until the CPU is free")]),
    settings: |ctx| {
        if let Some(why) = &ctx.facts.kernel.no_fair_server {
            return Ok(vec![unfit("fair server", "0", why.clone())]);
        }
        let setting = |cpu| attribute(&format!("CPU {cpu}"), fair_server(cpu).to_string(), Value::Number(0));
        Ok(ctx.placement.isolated.iter().map(setting).collect())
    },
};

const PREEMPTION: Knob = Knob {
    id: "sched.preemption",
    summary: "Let the kernel be interrupted wherever it can",
    why: "A kernel that can choose (PREEMPT_DYNAMIC) then switches to a real-time thread sooner. It is no substitute for \
        PREEMPT_RT, which always does more.",
    source: "Linux admin-guide/kernel-parameters.txt (preempt)",
    since: "Linux 5.12, with CONFIG_PREEMPT_DYNAMIC",
    check: "/proc/cmdline, and /sys/kernel/debug/sched/preempt",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::opt_in(&[word("full", "preempt=full")]),
    settings: |ctx| match ctx.facts.kernel.preempt_rt {
        Some(true) => Ok(vec![unfit("preempt", "full", "a kernel with PREEMPT_RT always does it")]),
        _ => argument(ctx, "preempt", "full", None),
    },
};

const UNBOUND_WORK_BOOT: Knob = Knob {
    id: "sched.workqueues-boot",
    summary: "Start with unbound kernel work on the housekeeping CPUs",
    why: "Isolation at boot does the same; this is for kernels that run with neither isolcpus nor nohz_full.",
    source: "Linux admin-guide/kernel-parameters.txt (workqueue.unbound_cpus)",
    since: "Linux 6.6",
    check: "/sys/devices/virtual/workqueue/cpumask, compared as a mask",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::OPT_IN,
    settings: |ctx| argument(ctx, "workqueue.unbound_cpus", &ctx.placement.housekeeping.to_string(), None),
};

const RPS: Knob = Knob {
    id: "sched.receive-steering",
    summary: "Spread received packets of new network interfaces over the housekeeping CPUs",
    why: "Receive steering is off by default, and a packet is handled where its interrupt came; with this any housekeeping \
        CPU may handle it, which an interrupt to that CPU costs.",
    source: "Linux admin-guide/sysctl/net.rst (rps_default_mask)",
    since: "Linux 6.3",
    check: "/proc/sys/net/core/rps_default_mask, compared as a mask",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::OPT_IN,
    settings: |ctx| {
        Ok(vec![mask(ctx, "net.core.rps_default_mask", "/proc/sys/net/core/rps_default_mask".into())])
    },
};

const STEERING: Knob = Knob {
    id: "sched.queue-steering",
    summary: "Take the isolated CPUs out of the masks that steer network queues",
    why: "A mask of receive steering (RPS) makes its CPUs handle packets that others got; a mask of transmit steering \
        (XPS), which many drivers set for each CPU, says who sends by which queue. Masks without an isolated CPU, and \
        those that are off, stay as they are. How many queues a card has is irq.channels' to set.",
    source: "Linux networking/scaling.rst (rps_cpus, xps_cpus)",
    since: "rps_cpus Linux 2.6.35, xps_cpus 2.6.38",
    check: "rps_cpus and xps_cpus in /sys/class/net/INTERFACE/queues, compared as masks",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::OPT_IN,
    settings: |ctx| {
        let settings = ctx.facts.queues.iter().map(|queue| {
            let kept = queue.cpus.intersection(&ctx.placement.housekeeping);
            attribute(&format!("queue {}", queue.name), queue.path.to_string(), Value::Mask(kept))
        });
        let settings: Vec<Setting> = settings.collect();
        let none = || unfit("queues", "no isolated CPU", "no queue of a network interface can be steered");
        Ok(if settings.is_empty() { vec![none()] } else { settings })
    },
};

const FREE_THREADS: Knob = Knob {
    id: "sched.kernel-thread-affinity",
    summary: "Keep the kernel's own threads that can be moved on the housekeeping CPUs",
    why: "isolcpus and nohz_full do it from the boot on; this is for the time before that boot, and for kernels that run \
        without them. Threads that the kernel binds to their CPUs, those that work for a guest and those of interrupts \
        stay. A thread that is started later has the kernel's choice again, which an audit shows; the boot unit sets it \
        at each boot, and each apply again.",
    source: "Linux admin-guide/kernel-per-CPU-kthreads.rst; taskset(1)",
    since: "always",
    check: "Cpus_allowed_list in /proc/PID/status of each kernel thread without PF_NO_SETAFFINITY",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::OPT_IN,
    settings: |ctx| {
        let threads = ctx.further.free_threads.iter().filter_map(|thread| {
            let cpus = kept(ctx, &thread.cpus)?;
            Some(placed(&thread.name, thread.status.clone(), cpus))
        });
        let threads: Vec<Setting> = threads.collect();
        let none =
            || unfit("threads", "housekeeping CPUs", "no thread of the kernel can be seen that can be moved");
        Ok(if threads.is_empty() { vec![none()] } else { threads })
    },
};

const PSI: Knob = Knob {
    id: "sched.psi",
    summary: "Do not account for pressure stalls (PSI)",
    why: "Each switch of tasks is accounted for, which makes every wake-up longer. A timer and work make the averages, before \
        Linux 6.9 on the CPU that armed the timer: on an isolated one an interrupt and some threads each 2 s while tasks \
        sleep and wake on it, and once more under a vCPU that has stopped sleeping. RHEL's kernels have it off unless they \
        are told. The price: /proc/pressure is gone, and what goes by it. systemd-oomd does not start without, so where that \
        is enabled nothing is changed.",
    source: "Linux accounting/psi.rst; admin-guide/kernel-parameters.txt (psi); systemd-oomd.service(8)",
    since: "Linux 4.20, with CONFIG_PSI",
    check: "/proc/cmdline, and /proc/pressure/cpu cannot be read",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::ON,
    settings: |ctx| {
        let left_alone = |reason: String| Ok(vec![unfit("psi", "0", reason)]);
        if ctx.facts.owners.oomd {
            return left_alone(NEEDED.into());
        }
        let kernel = &ctx.facts.kernel;
        let given = kernel.command_line.as_ref().is_some_and(|line| line.values("psi").contains(&Some("0")));
        let ignored = match (kernel.pressure, kernel.log.against("psi")) {
            (true, _) => {
                Some(Ignored::Rejected(format!("the kernel did not accept it: {PRESSURE} can be read")))
            }
            (false, _) if kernel.release.is_none() => None,
            (false, _) if !given => {
                return left_alone(format!(
                    "pressure stalls are not accounted for: {PRESSURE} cannot be read"
                ));
            }
            (false, Some(line)) => {
                Some(Ignored::Unsupported(format!("the kernel was built without it and logged `{line}`")))
            }
            (false, None) => None,
        };
        let settings = argument(ctx, "psi", "0", ignored)?;
        Ok(settings.into_iter().map(|setting| Setting { note: Some(NO_PRESSURE), ..setting }).collect())
    },
};

const NEEDED: &str =
    "systemd-oomd needs pressure stalls: `systemctl disable --now systemd-oomd` first to go without";

const NO_PRESSURE: &str = "/proc/pressure is gone after the boot, and the pressure files of cgroups tell nothing: keep them for a \
    monitor that reads them by \"sched.psi\" = \"keep\"";

/// The knob of threads that can be moved, for which all are looked at.
pub const FREE_THREADS_KNOB: &str = FREE_THREADS.id;

/// Where a thread should go: the housekeeping part of where it may go now, or all of them. `None` for one that something
/// put on one isolated CPU: it works for that.
fn kept(ctx: &Context, now: &CpuSet) -> Option<CpuSet> {
    let housekeeping = &ctx.placement.housekeeping;
    match now.intersection(housekeeping) {
        kept if !kept.is_empty() => Some(kept),
        _ if now.len() == 1 => None,
        _ => Some(housekeeping.clone()),
    }
}

fn placed(name: &str, path: HostPath, cpus: CpuSet) -> Setting {
    let attribute = Attribute { path, want: Value::Affinity(cpus), fixed: None, until_boot: false };
    Setting::new(format!("thread {}", name.replace(' ', "_")), Resource::Attribute(attribute))
}
