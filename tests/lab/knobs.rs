//! The knobs that are on by default, by what the kernel itself says after a boot with them.

use anyhow::{Result, ensure};
use rtkvm_tune::formats::CpuSet;

use super::{Host, ISOLATED, PROFILE};

pub(super) fn take_effect_after_a_boot(host: &Host) -> Result<()> {
    // Each is another value on an untuned host.
    for (path, wanted) in [
        ("/proc/sys/kernel/soft_watchdog", "0"),
        ("/proc/sys/kernel/nmi_watchdog", "0"),
        ("/proc/sys/kernel/hung_task_timeout_secs", "600"),
        ("/proc/sys/kernel/sched_rt_runtime_us", "-1"),
        ("/proc/sys/kernel/timer_migration", "0"),
        ("/proc/sys/vm/compaction_proactiveness", "0"),
        ("/proc/sys/vm/stat_interval", "10"),
        ("/sys/kernel/rcu_normal", "1"),
    ] {
        let found = host.read(path)?;
        ensure!(found == wanted, "{path}: {found}, not {wanted}");
    }
    // What moves memory together does not even look: on an untuned host each does twice a second.
    let switches =
        || host.sh("grep -h ctxt_switches $(grep -lx 'Name:.kcompactd[0-9]*' /proc/[0-9]*/status)");
    let before = switches()?;
    host.sh("sleep 3")?;
    let after = switches()?;
    ensure!(before.lines().count() == 4 && before == after, "kcompactd was awake: {before}; then {after}");
    let line = host.read("/proc/cmdline")?;
    for word in ["nohz=on", "skew_tick=1", "nosoftlockup", "nmi_watchdog=0"] {
        ensure!(line.split(' ').any(|have| have == word), "{word} is not in `{line}`");
    }
    let isolated = CpuSet::parse_kernel_list(ISOLATED)?;
    for cpu in 0..16 {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us");
        let wanted = if isolated.contains(cpu) { "n/a" } else { "0" };
        let found = host.read(&path)?;
        ensure!(found == wanted, "{path}: {found}, not {wanted}");
    }
    // One switch, which every CPU shows; a machine without it has no such directory.
    let switches =
        host.sh("cat /sys/devices/system/machinecheck/machinecheck*/ignore_ce 2>/dev/null || true")?;
    ensure!(switches.lines().all(|value| value == "1"), "ignore_ce: {switches}");
    let spinning = host.sh(
        "cat /sys/module/kvm_intel/parameters/ple_gap /sys/module/kvm_amd/parameters/pause_filter_count 2>/dev/null || true",
    )?;
    ensure!(spinning.lines().all(|value| value == "0"), "a guest that spins is left: {spinning}");
    host.say(&format!("{} switches of corrected errors, spinning: {spinning:?}", switches.lines().count()));
    host.verify(PROFILE)?.expect(0)?;
    Ok(())
}
