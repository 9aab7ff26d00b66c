//! Sleep states and frequencies.

use super::values::word;
use super::{Disruption, Knob, Reach, Values, attribute, unfit};
use crate::facts::power::resume_latency;
use crate::resources::Value;

pub(super) const KNOBS: &[Knob] = &[RESUME_LATENCY];

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
        let setting = |cpu| {
            attribute(&format!("CPU {cpu}"), resume_latency(cpu).to_string(), Value::Choice(wanted.clone()))
        };
        Ok(ctx.placement.isolated.iter().map(setting).collect())
    },
};
