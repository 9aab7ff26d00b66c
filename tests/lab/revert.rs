//! Back to the first day.

use anyhow::{Result, ensure};

use super::state::{changed, read};
use super::{Host, PROFILE};

pub(super) fn leaves_everything_as_on_the_first_day() -> Result<()> {
    // The same host on its first day: both were saved.
    let before = {
        let first_day = Host::boot("reference")?;
        first_day.put_program()?;
        read(&first_day)?
    };
    let mut host = Host::boot_applied()?;
    host.verify(PROFILE)?.expect(0)?;
    host.sh("rtkvm-tune revert")?;
    host.reboot()?;

    let mut changed = changed(&before, &read(&host)?);
    // On the first day as on this one they are where irqbalance has put them by now.
    changed.retain(|path| !path.starts_with("/proc/irq/") || path.contains("default_smp_affinity"));
    // The kernel numbers its threads anew.
    changed.retain(|path| !path.starts_with("/proc/") || !path.ends_with("/stat"));
    // It says what ran, and that nothing of ours is left.
    changed.remove("/var/lib/rtkvm-tune/state.json");
    let state: serde_json::Value = serde_json::from_str(&host.read("/var/lib/rtkvm-tune/state.json")?)?;
    ensure!(state["baseline"].as_array().is_some_and(Vec::is_empty), "not put back: {}", state["baseline"]);
    ensure!(state["applied"].is_null(), "a profile is still applied: {}", state["applied"]);
    ensure!(changed.is_empty(), "not as on the first day: {changed:#?}");
    let line = host.read("/proc/cmdline")?;
    ensure!(!line.contains("isolcpus"), "the kernel still has our arguments: {line}");
    host.read("/proc/pressure/cpu")?;
    let guests = host.sh("virsh --connect qemu:///system list --all --name")?;
    ensure!(guests.trim().is_empty(), "a guest of ours is left: {guests}");
    Ok(())
}
