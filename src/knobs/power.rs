//! Sleep states and frequencies.

use super::boot::argument;
use super::services::{WRITTEN, file};
use super::values::word;
use super::{Context, Disruption, Knob, Reach, Setting, Values, attribute, unfit};
use crate::facts::power::{Policy, Uncore, energy_bias, idle_disable, policy, resume_latency};
use crate::formats::HostPath;
use crate::profile::{Diagnostic, KnobValue};
use crate::resources::{Resource, State, Value, WAKE_UP_UNIT, untold};

pub(super) const KNOBS: &[Knob] = &[
    RESUME_LATENCY,
    CPU_DMA_LATENCY,
    GOVERNOR,
    PREFERENCE,
    ENERGY_BIAS,
    CSTATES,
    IDLE_STATES,
    PSTATE,
    MIN_FREQUENCY,
    MAX_FREQUENCY,
    BOOST,
    UNCORE,
];

const RESUME_LATENCY: Knob = Knob {
    id: "power.resume-latency",
    summary: "Keep the isolated CPUs out of sleep states that they leave slowly",
    why: "An idle CPU sleeps the deeper the longer the kernel expects it to stay idle, and from the deepest state it \
        needs 100 us and more to wake for an interrupt. \"n/a\" lets no latency pass: the CPU polls while idle. It \
        uses more power and heats its neighbours; a few microseconds instead allow the lightest state. The other CPUs \
        sleep as before.",
    source: "Linux ABI/testing/sysfs-devices-power (pm_qos_resume_latency_us); admin-guide/pm/cpuidle.rst",
    since: "Linux 3.18 or before; n/a 4.16",
    check: "/sys/devices/system/cpu/cpuN/power/pm_qos_resume_latency_us of each isolated CPU",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::words(&[word("n/a", "no latency at all: no sleep state")]).or_number(1..=10_000, "us"),
    settings: |ctx| {
        let wanted = match ctx.value.number() {
            0 => ctx.value.word().to_owned(),
            latency => latency.to_string(),
        };
        if let Some(error) = ctx.facts.power.no_resume_latency {
            let what = "/sys/devices/system/cpu/cpuN/power/pm_qos_resume_latency_us";
            return Ok(vec![unfit("latency", wanted, format!("{what} {error}"))]);
        }
        Ok(each_cpu(ctx, |cpu| (resume_latency(cpu).to_string(), Value::Choice(wanted.clone()))))
    },
};

const CPU_DMA_LATENCY: Knob = Knob {
    id: "power.cpu-dma-latency",
    summary: "Bound the time in which every CPU wakes, the housekeeping ones too",
    why: "What a guest waits for may be done by a housekeeping CPU, its emulator's or an interrupt's, which sleeps deeply as \
        well. The bound is in force while a process keeps /dev/cpu_dma_latency open: a unit of ours, which sleeps. 0 \
        lets CPUs poll while idle: all of the machine's at full power. Of several bounds the lowest counts, so that one of \
        another program's, TuneD's or cyclictest's, may hide a missing one. power.resume-latency has the isolated CPUs \
        alone.",
    source: "Linux admin-guide/pm/cpuidle.rst (Power Management Quality of Service for CPUs); power/pm_qos_interface.rst",
    since: "Linux 2.6.25 or before",
    check: "the unit and its link have the planned content; /dev/cpu_dma_latency, which tells the bound in force",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in_number(0..=10_000, "us"),
    settings: |ctx| {
        let link = Resource::Link {
            path: HostPath::new(
                "/etc/systemd/system/multi-user.target.wants/rtkvm-tune-cpu-dma-latency.service",
            ),
            target: "../rtkvm-tune-cpu-dma-latency.service".into(),
        };
        let most = ctx.value.number();
        let (found, state) = match ctx.facts.power.wake_up_bound {
            Ok(bound) if i64::from(bound) <= most => (Some(bound), State::InLine),
            Ok(bound) => (Some(bound), State::Differs(None)),
            Err(error) => (None, untold(&HostPath::new("/dev/cpu_dma_latency"), error)),
        };
        let found = found.map(|bound| format!("{bound} us"));
        let wanted = format!("{most} us");
        let bound = Resource::Check { found, wanted, state, kept_by: Some(WAKE_UP_UNIT) };
        Ok(vec![
            Setting::new("unit", file(WAKE_UP_UNIT, wake_up_unit(most))),
            Setting::new("enabled", link),
            Setting::new("bound in force", bound),
        ])
    },
};

/// The kernel takes four bytes for a binary number, and any other count for hexadecimal digits
/// (power/pm_qos_interface.rst). The shell has the number as an argument.
fn wake_up_unit(bound: i64) -> String {
    format!(
        "{WRITTEN}\
         [Unit]\n\
         Description=Bound on the time in which every CPU wakes\n\
         ConditionPathExists=/dev/cpu_dma_latency\n\
         \n\
         [Service]\n\
         # It is started once the bound is in force.\n\
         Type=forking\n\
         ExecStart=/bin/sh -c 'exec 3>/dev/cpu_dma_latency && echo \"$$0\" >&3 && {{ sleep infinity & }}' {bound:#010x}\n\
         Restart=always\n\
         RestartSec=1\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

const GOVERNOR: Knob = Knob {
    id: "power.governor",
    summary: "Run the isolated CPUs at their highest frequency",
    why: "A governor that follows the load raises the frequency only after the load is there, and the change itself stops \
        some CPUs for microseconds. CPUs that change together with an isolated one follow it; it costs power.",
    source: "Linux admin-guide/pm/cpufreq.rst",
    since: "Linux 2.6.9",
    check: "/sys/devices/system/cpu/cpufreq/policyN/scaling_governor is performance",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let has = |policy: &Policy| policy.governors.iter().any(|governor| governor == "performance");
        let performance = || Value::Choice("performance".into());
        each_policy(ctx, "the governor performance", has, |policy| {
            Some(("scaling_governor", performance(), policy))
        })
    },
};

const PREFERENCE: Knob = Knob {
    id: "power.energy-preference",
    summary: "Have the processor prefer speed to energy on the isolated CPUs",
    why: "Processors that choose their frequency themselves are told by this how soon to raise it. It costs power.",
    source: "Linux admin-guide/pm/intel_pstate.rst, amd-pstate.rst (energy_performance_preference)",
    since: "Linux 4.17; AMD 6.3",
    check: "/sys/devices/system/cpu/cpufreq/policyN/energy_performance_preference is performance",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let name = "energy_performance_preference";
        let performance = || Value::Choice("performance".into());
        each_policy(
            ctx,
            "such a preference",
            |policy| policy.preference,
            |policy| Some((name, performance(), policy)),
        )
    },
};

const ENERGY_BIAS: Knob = Knob {
    id: "power.energy-bias",
    summary: "Hint at speed, not energy, on the isolated CPUs (Intel)",
    why: "Intel processors before hardware-managed frequencies weigh the two by this hint, for frequencies as for sleep \
        states and the parts outside the cores. It costs power.",
    source: "Linux admin-guide/pm/intel_epb.rst",
    since: "Linux 5.2",
    check: "/sys/devices/system/cpu/cpuN/power/energy_perf_bias of each isolated CPU is 0",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        if !ctx.facts.power.energy_bias {
            let why =
                "the processor has no such hint: no /sys/devices/system/cpu/cpuN/power/energy_perf_bias";
            return Ok(vec![unfit("hint", "0", why)]);
        }
        Ok(each_cpu(ctx, |cpu| (energy_bias(cpu).to_string(), Value::Number(0))))
    },
};

const CSTATES: Knob = Knob {
    id: "power.cstates",
    summary: "Limit the sleep states of all CPUs, from the boot on",
    why: "For machines on which the bound on the isolated CPUs does not suffice. Polling gives the shortest wake-up there \
        is, but heats the whole socket, takes the others' higher frequencies and slows a sibling thread; the kernel's \
        documentation advises against it.",
    source: "Linux admin-guide/pm/cpuidle.rst, intel_idle.rst; admin-guide/kernel-parameters.txt (idle)",
    since: "always",
    check: "/proc/cmdline, and /sys/devices/system/cpu/cpuidle/current_driver: none, or acpi_idle",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::opt_in(&[
        word("poll", "never sleep: idle=poll"),
        word(
            "c1",
            "the lightest state alone: processor.max_cstate=1 intel_idle.max_cstate=0, which means acpi_idle",
        ),
    ]),
    settings: |ctx| match ctx.value.word() {
        _ if ctx.facts.processor.vendor.is_none() => {
            Ok(vec![unfit("idle", ctx.value.word(), "only x86 processors have it")])
        }
        "poll" => argument(ctx, "idle", "poll", None),
        _ => {
            let mut settings = argument(ctx, "processor.max_cstate", "1", None)?;
            if ctx.facts.processor.is_intel() {
                settings.extend(argument(ctx, "intel_idle.max_cstate", "0", None)?);
            }
            Ok(settings)
        }
    },
};

const IDLE_STATES: Knob = Knob {
    id: "power.idle-states",
    summary: "Leave out the isolated CPUs' sleep states that take longer to leave than this",
    why: "The same as a bound on the latency, for kernels or drivers that do not follow one. The states of the first CPU \
        are taken for those of all.",
    source: "Linux admin-guide/pm/cpuidle.rst (disable)",
    since: "Linux 3.2",
    check: "/sys/devices/system/cpu/cpuN/cpuidle/stateM/disable of each isolated CPU is 1",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in_number(0..=10_000, "us"),
    settings: |ctx| {
        let most = ctx.value.number();
        let states = &ctx.facts.power.idle_states;
        if states.is_empty() {
            let why = "the kernel manages no sleep states: no /sys/devices/system/cpu/cpuN/cpuidle";
            return Ok(vec![unfit("states", format!("at most {most} us"), why)]);
        }
        let slow: Vec<_> =
            states.iter().filter(|state| state.latency > most).map(|state| state.number).collect();
        let of_cpu = |cpu| {
            slow.iter().map(move |state| {
                let path = idle_disable(cpu, *state).to_string();
                attribute(&format!("state{state} {cpu}"), path, Value::Number(1))
            })
        };
        Ok(ctx.placement.isolated.iter().flat_map(of_cpu).collect())
    },
};

const PSTATE: Knob = Knob {
    id: "power.pstate",
    summary: "Choose the driver of the processor's frequencies",
    why: "The vendors' own drivers let the processor choose by itself, and not everybody wants that: TuneD's real-time \
        profiles turn it off, others keep it active. With the governor performance the difference is small.",
    source: "Linux admin-guide/pm/intel_pstate.rst, amd-pstate.rst; admin-guide/kernel-parameters.txt",
    since: "Intel Linux 3.9, passive 4.10; AMD 5.17, active 6.3",
    check: "/sys/devices/system/cpu/intel_pstate/status or amd_pstate/status",
    reach: Reach::Reboot,
    disruption: Disruption::Reboot,
    values: Values::opt_in(&[
        word("disable", "the general driver acpi-cpufreq"),
        word("passive", "the vendor's driver, governed by the kernel"),
        word("active", "the vendor's driver and the processor's own choice"),
    ]),
    settings: |ctx| match &ctx.facts.processor {
        processor if processor.is_intel() => argument(ctx, "intel_pstate", ctx.value.word(), None),
        processor if processor.is_amd() => argument(ctx, "amd_pstate", ctx.value.word(), None),
        _ => Ok(vec![unfit("pstate", ctx.value.word(), "only Intel's and AMD's processors have it")]),
    },
};

const MIN_FREQUENCY: Knob = Knob {
    id: "power.min-frequency",
    summary: "Do not let the isolated CPUs' frequency fall",
    why: "For drivers that go below the highest frequency in spite of the governor. It costs power.",
    source: "Linux admin-guide/pm/cpufreq.rst (scaling_min_freq)",
    since: "Linux 2.6.9",
    check: "/sys/devices/system/cpu/cpufreq/policyN/scaling_min_freq is its cpuinfo_max_freq, or power.max-frequency",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in(&[word("max", "the highest frequency the CPU has")]),
    settings: |ctx| {
        let has = |policy: &Policy| policy.highest.is_some();
        // The kernel keeps the lowest below what power.max-frequency allows.
        let line = ctx.profile.knobs.iter().find(|line| line.id.value == MAX_FREQUENCY.id);
        let most = match line.map(|line| &line.value.value) {
            Some(KnobValue::Number(most)) => most.saturating_mul(1000),
            _ => i64::MAX,
        };
        each_policy(ctx, "a highest frequency", has, |policy| {
            Some(("scaling_min_freq", Value::Number(policy.highest?.min(most)), policy))
        })
    },
};

const MAX_FREQUENCY: Knob = Knob {
    id: "power.max-frequency",
    summary: "Do not let the isolated CPUs' frequency rise above this",
    why: "A frequency that all CPUs can have at once, whatever their neighbours do, makes every run take the same time; \
        and a longer one. CPUs that change together with an isolated one follow it.",
    source: "Linux admin-guide/pm/cpufreq.rst (scaling_max_freq)",
    since: "Linux 2.6.9",
    check: "/sys/devices/system/cpu/cpufreq/policyN/scaling_max_freq, in kHz",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in_number(100..=10_000, "MHz"),
    settings: |ctx| {
        let wanted = ctx.value.number() * 1000;
        let has = |policy: &Policy| {
            policy.highest.is_some_and(|highest| wanted <= highest)
                && policy.lowest.is_none_or(|lowest| wanted >= lowest)
        };
        each_policy(ctx, "that frequency", has, |policy| {
            Some(("scaling_max_freq", Value::Number(wanted), policy))
        })
    },
};

const BOOST: Knob = Knob {
    id: "power.boost",
    summary: "Turn frequencies above the nominal one off",
    why: "How high a CPU may go depends on what its neighbours do and how warm it is: without it every run takes the same \
        time, and a longer one.",
    source: "Linux admin-guide/pm/cpufreq.rst (boost), intel_pstate.rst (no_turbo)",
    since: "Linux 3.7",
    check: "/sys/devices/system/cpu/cpufreq/boost is 0, or intel_pstate/no_turbo 1",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in(&[word("off", "the nominal frequency at most")]),
    settings: |ctx| {
        Ok(vec![match &ctx.facts.power.boost {
            Some((path, off)) => attribute("boost", path.to_string(), Value::Number(*off)),
            None => unfit("boost", "off", "the kernel has neither cpufreq/boost nor intel_pstate/no_turbo"),
        }])
    },
};

const UNCORE: Knob = Knob {
    id: "power.uncore",
    summary: "Do not let caches and memory controllers slow down (Intel)",
    why: "The parts outside the cores have a frequency of their own, which falls when little is going on; the first \
        accesses to memory after that take longer. It costs power all the time.",
    source: "Linux admin-guide/pm/intel_uncore_frequency_scaling.rst",
    since: "Linux 5.6, with the module intel_uncore_frequency",
    check: "min_freq_khz in /sys/devices/system/cpu/intel_uncore_frequency is initial_max_freq_khz",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::opt_in(&[word("max", "their highest frequency")]),
    settings: |ctx| {
        let uncore = &ctx.facts.power.uncore;
        let setting = |part: &Uncore| {
            attribute(&format!("part {}", part.name), part.lowest.to_string(), Value::Number(part.highest))
        };
        match uncore.is_empty() {
            true => Ok(vec![unfit(
                "uncore",
                "max",
                "the kernel has no /sys/devices/system/cpu/intel_uncore_frequency",
            )]),
            false => Ok(uncore.iter().map(setting).collect()),
        }
    },
};

/// A setting for each isolated CPU.
fn each_cpu(ctx: &Context, of: impl Fn(u32) -> (String, Value)) -> Vec<Setting> {
    let setting = |cpu| {
        let (path, value) = of(cpu);
        attribute(&format!("CPU {cpu}"), path, value)
    };
    ctx.placement.isolated.iter().map(setting).collect()
}

/// A setting for each frequency policy with an isolated CPU.
fn each_policy<'f>(
    ctx: &Context<'f>,
    what: &str,
    has: impl Fn(&Policy) -> bool,
    of: impl Fn(&'f Policy) -> Option<(&'static str, Value, &'f Policy)>,
) -> Result<Vec<Setting>, Vec<Diagnostic>> {
    let policies = ctx.facts.power.policies.iter();
    let isolated = &ctx.placement.isolated;
    let with: Vec<_> = policies.filter(|policy| !policy.cpus.intersection(isolated).is_empty()).collect();
    if with.is_empty() {
        let why = "the kernel does not manage the isolated CPUs' frequency: no /sys/devices/system/cpu/cpufreq/policyN";
        return Ok(vec![unfit("frequency", "performance", why)]);
    }
    let setting = |found: &'f Policy| {
        let number = found.number;
        match of(found).filter(|_| has(found)) {
            Some((name, value, _)) => {
                attribute(&format!("policy {number}"), policy(number, name).to_string(), value)
            }
            None => unfit(&format!("policy {number}"), "performance", format!("it has not {what}")),
        }
    };
    Ok(with.into_iter().map(setting).collect())
}
