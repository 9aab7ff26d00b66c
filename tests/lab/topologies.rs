//! Hosts of other shapes than the guide's: each boots, we see what libvirt sees, and a profile divides it.

use anyhow::{Context, Result, ensure};
use rtkvm_tune::formats::CpuSet;

use super::Host;
use super::live::inspect_agrees_with_libvirt;

const PROFILE: &str = "/root/profiles/two-for-each-node.toml";

/// CPUs with an odd half of the numbers on each node.
pub(super) fn interleaved() -> Result<()> {
    divided("interleaved", "0-1,4-5")
}

/// A core of two threads is the smallest part there is.
pub(super) fn smt() -> Result<()> {
    divided("smt", "0-1,8-9")
}

/// A node without CPUs keeps none.
pub(super) fn memory_only() -> Result<()> {
    divided("memory-only", "0-1,8-9")
}

/// 64 CPUs.
pub(super) fn dies() -> Result<()> {
    divided("dies", "0-1,32-33")
}

/// 255 CPUs, the most that are emulated.
pub(super) fn large() -> Result<()> {
    divided("large", "0-1,64-65,128-129,192-193")
}

/// Boots the machine and plans a profile on it: these CPUs are for housekeeping.
fn divided(topology: &str, housekeeping: &str) -> Result<()> {
    let host = Host::boot(topology)?;
    host.put_program()?;
    inspect_agrees_with_libvirt(&host)?;
    host.write(
        PROFILE,
        b"[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = \"6GiB\"\n",
    )?;
    let plan = host.tune_with("apply", PROFILE, "--dry-run --format json")?.json(0)?;
    let found = plan["plan"]["placement"]["housekeeping"].as_str().context("no housekeeping CPUs")?;
    ensure!(
        CpuSet::parse_list(found)? == CpuSet::parse_list(housekeeping)?,
        "the CPUs for housekeeping are {found}, not {housekeeping}"
    );
    Ok(())
}
