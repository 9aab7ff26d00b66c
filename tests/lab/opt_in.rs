//! The knobs that are off by default, all together: what the kernel says of each after a boot.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use rtkvm_tune::formats::CpuSet;
use rtkvm_tune::knobs;

use super::{HOUSEKEEPING, installed};

const PROFILE: &str = "/root/opt-in.toml";
/// What an emulated host has not got: frequencies, idle states, energy, Intel's modules; and what is another way to what
/// a knob beside it does.
const NOT_HERE: [&str; 0] = [];

/// Every knob without a default, with a value that it can have.
fn profile() -> String {
    let off = knobs::all().filter(|knob| knob.values.default.is_none());
    let lines: String =
        off.filter_map(|knob| Some(format!("\"{}\" = {}\n", knob.id, knob.values.example()?))).collect();
    format!(
        "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = \"6GiB\"\n[host.hugepages]\ncount = 2\n\
         [knobs]\n{lines}"
    )
}

pub(super) fn all_take_effect_after_a_boot() -> Result<()> {
    let mut host = installed()?;
    host.write(PROFILE, profile().as_bytes())?;
    host.sh("systemctl stop irqbalance")?;
    let applied = host.tune_with("apply", PROFILE, "")?;
    host.say(&applied.expect(0)?);
    host.reboot()?;
    let audit = host.tune_with("verify", PROFILE, "--format json")?.json(0)?;
    let off: BTreeSet<&str> =
        knobs::all().filter(|knob| knob.values.default.is_none()).map(|knob| knob.id).collect();
    let mut states: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for item in audit["plan"]["items"].as_array().context("no items")? {
        let knob = off.get(item["knob"].as_str().context("no knob")?);
        let state = format!("{}{}", item["state"], item["reason"]).replace("null", "");
        knob.map(|knob| states.entry(*knob).or_default().insert(state));
    }
    for (knob, states) in &states {
        host.say(&format!("{knob}: {states:?}"));
    }
    let cannot: Vec<&str> =
        states.iter().filter(|(_, states)| !states.contains("\"in-line\"")).map(|(knob, _)| *knob).collect();
    ensure!(cannot == NOT_HERE, "without effect: {cannot:?}");

    // The same without the program's own reading.
    let housekeeping = CpuSet::parse_kernel_list(HOUSEKEEPING)?;
    for (path, key) in [("/proc/1/status", "Cpus_allowed_list:"), ("/proc/2/status", "Cpus_allowed_list:")] {
        let line = host.sh(&format!("grep {key} {path}"))?;
        let cpus = CpuSet::parse_kernel_list(line.trim_start_matches(key).trim())?;
        ensure!(cpus.is_subset(&housekeeping), "{path}: {line}");
    }
    for unit in ["init.scope", "system.slice", "user.slice"] {
        let cpus = host.read(&format!("/sys/fs/cgroup/{unit}/cpuset.cpus.effective"))?;
        ensure!(CpuSet::parse_kernel_list(&cpus)?.is_subset(&housekeeping), "{unit} may use {cpus}");
    }
    ensure!(
        host.sh("systemctl is-enabled irqbalance || true")?.trim() == "masked",
        "irqbalance is not masked"
    );
    Ok(())
}
