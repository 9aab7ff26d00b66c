//! The knobs that are off by default, all together: what the kernel says of each after a boot.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use rtkvm_tune::formats::CpuSet;
use rtkvm_tune::knobs;

use super::{HOUSEKEEPING, Host, installed};

const PROFILE: &str = "/root/opt-in.toml";
/// What an emulated host has not got (frequencies, sleep states, energy, threads of cores) and what its kernel, 6.1 with
/// PREEMPT_RT, does by itself or does not know.
const NOT_HERE: [&str; 10] = [
    "cpu.smt",
    "sched.threadirqs",
    "sched.fair-server",
    "sched.preemption",
    "sched.receive-steering",
    "power.idle-states",
    "power.min-frequency",
    "power.max-frequency",
    "power.boost",
    "power.uncore",
];
/// What Debian's kernel says that it does not know, although it was given it.
const REJECTED: &str = "cpu.kthreads";

/// Every knob without a default, with a value that it can have.
fn profile() -> String {
    let off = knobs::all().filter(|knob| knob.values.default.is_none());
    let lines: String =
        off.filter_map(|knob| Some(format!("\"{}\" = {}\n", knob.id, knob.values.example()?))).collect();
    format!(
        "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = \"6GiB\"\n[host.hugepages]\ncount = 2\n\
         [knobs]\n\"services.irqbalance\" = \"mask\"\n{lines}"
    )
}

/// A network card with a channel for each of eight CPUs.
const CARD: &str = "52:54:00:00:00:77";
const QUEUES: u32 = 8;
/// It is nobody's way to the host.
const UNMANAGED: &str = "[Match]\nMACAddress=52:54:00:00:00:77\n[Link]\nUnmanaged=yes\n";

pub(super) fn all_take_effect_after_a_boot() -> Result<()> {
    let mut host = installed()?;
    host.write(PROFILE, profile().as_bytes())?;
    host.write("/etc/systemd/network/card.network", UNMANAGED.as_bytes())?;
    host.attach_card(QUEUES, CARD);
    host.sh("systemctl stop irqbalance")?;
    let applied = host.tune_with("apply", PROFILE, "")?;
    host.say(&applied.expect(0)?);
    host.reboot()?;
    let audit = host.tune_with("verify", PROFILE, "--format json")?.json(1)?;
    let items = audit["plan"]["items"].as_array().context("no items")?;
    let mut cannot = Vec::new();
    for knob in knobs::all().filter(|knob| knob.values.default.is_none()) {
        let of_knob = items.iter().filter(|item| item["knob"] == knob.id);
        let mut states: BTreeSet<&str> = of_knob.filter_map(|item| item["state"].as_str()).collect();
        host.say(&format!("{}: {states:?}", knob.id));
        // Some of what it is about, if not all, is here.
        if states.len() > 1 {
            states.remove("not-applicable");
        }
        match states.iter().collect::<Vec<_>>()[..] {
            [&"in-line"] => {}
            [&"not-applicable"] => cannot.push(knob.id),
            [&"rejected"] if knob.id == REJECTED => {}
            _ => bail!("{} is {states:?}", knob.id),
        }
    }
    ensure!(cannot == NOT_HERE, "they cannot be set here: {cannot:?}");
    let others = items.iter().filter(|item| item["state"] == "rejected" || item["state"] == "differs");
    ensure!(others.count() == 1, "more than {REJECTED} is not in line");

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
    the_bound_on_all_cpus_is_kept(&host)?;
    let housekeeping = u32::try_from(housekeeping.len())?;
    ensure!(channels(&host)? == housekeeping, "the card has {} channels", channels(&host)?);
    // Ended by somebody, the unit is unknown to systemd once its file is gone.
    host.sh("systemctl stop rtkvm-tune-cpu-dma-latency.service")?;
    let reverted = host.run("rtkvm-tune revert")?;
    // The kernel was started with nowatchdog.
    let refused = "not set  set /proc/sys/kernel/soft_watchdog to 1";
    ensure!(reverted.code() == 1 && reverted.stdout.contains(refused), "{}", reverted.stdout);
    ensure!(bound(&host)? == "2000000000", "reverted: {}", bound(&host)?);
    ensure!(channels(&host)? == QUEUES, "reverted, the card has {} channels", channels(&host)?);
    host.reboot()?;
    let nothing = host.sh("rtkvm-tune revert")?;
    ensure!(nothing == "Nothing to revert.\n", "after another boot: {nothing}");
    ensure!(
        host.read("/var/lib/rtkvm-tune/state.json")?.contains("\"baseline\": []"),
        "something is left of it"
    );
    Ok(())
}

/// How many channels the card has, in the words of ethtool itself.
fn channels(host: &Host) -> Result<u32> {
    let card = format!("$(basename $(dirname $(grep -l {CARD} /sys/class/net/*/address)))");
    let text = host.sh(&format!("ethtool -l {card}"))?;
    let now = text.lines().filter_map(|line| line.strip_prefix("Combined:")).next_back();
    Ok(now.context("no combined channels")?.trim().parse()?)
}

/// The bound in force, in us.
fn bound(host: &Host) -> Result<String> {
    Ok(host.sh("od -An -td4 -N4 /dev/cpu_dma_latency")?.trim().to_owned())
}

/// What the kernel says of the bound on all CPUs, while the unit runs and when somebody ended it.
fn the_bound_on_all_cpus_is_kept(host: &Host) -> Result<()> {
    let bound = || bound(host);
    ensure!(bound()? == "0", "after the boot: {}", bound()?);
    host.sh("systemctl stop rtkvm-tune-cpu-dma-latency.service")?;
    ensure!(bound()? == "2000000000", "without the unit: {}", bound()?);
    let state = || -> Result<String> {
        let audit = host.tune_with("verify", PROFILE, "--format json")?.json(1)?;
        let items = audit["plan"]["items"].as_array().context("no items")?;
        let of_bound = |item: &&serde_json::Value| item["label"] == "bound in force";
        let item = items.iter().find(of_bound).context("no bound")?;
        Ok(item["state"].as_str().context("no state")?.to_owned())
    };
    ensure!(state()? == "differs", "the unit was ended, and that is {}", state()?);
    // What the kernel rejected stays so.
    host.tune_with("apply", PROFILE, "")?.expect(1)?;
    ensure!(bound()? == "0" && state()? == "in-line", "mended: {}", bound()?);
    Ok(())
}
