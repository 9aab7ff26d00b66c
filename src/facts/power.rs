//! How the processor saves power: what there is to be set. Source: Linux admin-guide/pm.

use super::{Cpus, line, number, numbered};
use crate::formats::{CpuSet, HostPath};
use crate::host::{Read, ReadError};

/// What the kernel lets be set of it.
#[derive(Debug, Clone)]
pub struct Power {
    /// Why CPUs take no bound on the time they need to wake; `None`: they do. The first online one is asked.
    pub no_resume_latency: Option<ReadError>,
    /// The bound on the time in which every CPU wakes, in us.
    pub wake_up_bound: Result<i32, ReadError>,
    /// Whether CPUs have a hint on energy and speed (Intel); the first online one is asked.
    pub energy_bias: bool,
    /// CPUs that change their frequency together.
    pub policies: Vec<Policy>,
    /// The sleep states of a CPU; the first online one is asked.
    pub idle_states: Vec<IdleState>,
    /// Where frequencies above the nominal one are turned off, and the value that does.
    pub boost: Option<(HostPath, i64)>,
    /// The parts outside the cores.
    pub uncore: Vec<Uncore>,
}

/// CPUs that change their frequency together.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its number.
    pub number: u32,
    /// Its CPUs, offline ones included.
    pub cpus: CpuSet,
    /// The governors there are.
    pub governors: Vec<String>,
    /// Whether it has a preference between energy and speed.
    pub preference: bool,
    /// The highest frequency, in kHz.
    pub highest: Option<i64>,
    /// The lowest frequency, in kHz.
    pub lowest: Option<i64>,
}

/// Caches and memory controllers of one die.
#[derive(Debug, Clone)]
pub struct Uncore {
    /// The kernel's name for it.
    pub name: String,
    /// Where its lowest frequency is, in kHz.
    pub lowest: HostPath,
    /// The highest it can have, in kHz.
    pub highest: i64,
}

/// One sleep state.
#[derive(Debug, Clone)]
pub struct IdleState {
    /// Its number.
    pub number: u32,
    /// How long a CPU needs to wake from it, in us.
    pub latency: i64,
}

const CPU: &str = "/sys/devices/system/cpu";

/// The longest time that a CPU may take to wake (Linux ABI/testing/sysfs-devices-power).
pub fn resume_latency(cpu: u32) -> HostPath {
    HostPath::new(format!("{CPU}/cpu{cpu}/power/pm_qos_resume_latency_us"))
}

/// The hint on energy and speed, 0 for speed to 15 (Linux admin-guide/pm/intel_epb.rst).
pub fn energy_bias(cpu: u32) -> HostPath {
    HostPath::new(format!("{CPU}/cpu{cpu}/power/energy_perf_bias"))
}

/// A file of a frequency policy (Linux admin-guide/pm/cpufreq.rst).
pub fn policy(number: u32, name: &str) -> HostPath {
    HostPath::new(format!("{CPU}/cpufreq/policy{number}/{name}"))
}

/// Whether a CPU leaves a sleep state out (Linux admin-guide/pm/cpuidle.rst).
pub fn idle_disable(cpu: u32, state: u32) -> HostPath {
    HostPath::new(format!("{CPU}/cpu{cpu}/cpuidle/state{state}/disable"))
}

impl Power {
    /// Reads what there is.
    pub fn read(host: &dyn Read, cpus: &Cpus) -> Power {
        let first = cpus.online.first().unwrap_or(0);
        Power {
            no_resume_latency: host.file(&resume_latency(first)).err(),
            wake_up_bound: host.wake_up_bound(),
            energy_bias: host.file(&energy_bias(first)).is_ok(),
            policies: policies(host),
            idle_states: idle_states(host, first),
            boost: boost(host),
            uncore: uncore(host),
        }
    }
}

fn policies(host: &dyn Read) -> Vec<Policy> {
    let numbers = numbered(host, &HostPath::new(format!("{CPU}/cpufreq")), "policy").unwrap_or_default();
    let read = |number: u32| {
        let words = line(host, &policy(number, "scaling_available_governors")).unwrap_or_default();
        Policy {
            number,
            // It is separated by spaces here.
            cpus: line(host, &policy(number, "related_cpus"))
                .and_then(|cpus| {
                    let list = cpus.split_whitespace().collect::<Vec<_>>().join(",");
                    CpuSet::parse_kernel_list(&list).ok()
                })
                .unwrap_or_default(),
            governors: words.split_whitespace().map(str::to_owned).collect(),
            preference: host.file(&policy(number, "energy_performance_preference")).is_ok(),
            highest: self::number(host, &policy(number, "cpuinfo_max_freq")),
            lowest: self::number(host, &policy(number, "cpuinfo_min_freq")),
        }
    };
    numbers.into_iter().map(read).collect()
}

fn idle_states(host: &dyn Read, cpu: u32) -> Vec<IdleState> {
    let dir = HostPath::new(format!("{CPU}/cpu{cpu}/cpuidle"));
    let numbers = numbered(host, &dir, "state").unwrap_or_default();
    let state = |state: u32| {
        let latency = number(host, &dir.join(format_args!("state{state}/latency")))?;
        Some(IdleState { number: state, latency })
    };
    numbers.into_iter().filter_map(state).collect()
}

fn boost(host: &dyn Read) -> Option<(HostPath, i64)> {
    let switches = [(format!("{CPU}/intel_pstate/no_turbo"), 1), (format!("{CPU}/cpufreq/boost"), 0)];
    let paths = switches.into_iter().map(|(path, off)| (HostPath::new(path), off));
    let mut there = paths.filter(|(path, _)| host.file(path).is_ok());
    there.next()
}

fn uncore(host: &dyn Read) -> Vec<Uncore> {
    let dir = HostPath::new(format!("{CPU}/intel_uncore_frequency"));
    let names = host.list(&dir).unwrap_or_default();
    let of = |name: &String| {
        let highest = number(host, &dir.join(name).join("initial_max_freq_khz"))?;
        Some(Uncore { name: name.clone(), lowest: dir.join(name).join("min_freq_khz"), highest })
    };
    names.iter().filter_map(of).collect()
}
