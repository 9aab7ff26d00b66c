//! A guest with our seed: cloud-init applies it at the first boot, and the second one has its own isolated CPUs.
//!
//! The guest is a host of the lab, so that nothing is emulated inside an emulation: it sees of its host a drive.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rtkvm_tune::facts::Architecture;
use rtkvm_tune::formats::{CpuSet, HostPath};
use rtkvm_tune::guest::cloud_init::Inside;
use rtkvm_tune::host::Program;
use rtkvm_tune::profile::{Distribution, Kernel, Tuning};

use super::super::image::work;
use super::Host;
use crate::shell::run;

/// Until when cloud-init has done its work and reboots.
const SET_UP: Duration = Duration::from_secs(900);
/// What may log in.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4y9bYxkYqz0000000000000000000000000000 me";
/// The operator's own.
const OWN: &str = "#cloud-config\nwrite_files:\n- path: /root/own\n  content: mine\n";

pub(super) fn a_guest_tunes_itself_by_its_seed() -> Result<()> {
    // 4 CPUs.
    let mut guest = Host::boot("pair")?;
    ensure!(guest.run("cloud-init status")?.stdout.contains("disabled"), "cloud-init runs without a seed");
    ensure!(guest.read("/sys/devices/system/cpu/isolated")?.is_empty(), "CPUs are isolated before");
    guest.sh("rm /etc/cloud/cloud-init.disabled")?;
    guest.attach(&image(&work().join("inside-seed"))?);
    guest.reboot_twice(SET_UP)?;

    guest.sh("cloud-init status --wait")?;
    ensure!(guest.read("/sys/devices/system/cpu/isolated")? == "1-3", "the guest isolates other CPUs");
    let line = guest.read("/proc/cmdline")?;
    for argument in [
        "isolcpus=managed_irq,domain,1-3",
        "nohz_full=1-3",
        "rcu_nocbs=1-3",
        "irqaffinity=0",
        "psi=0",
        "panic=30",
    ] {
        ensure!(line.split(' ').any(|word| word == argument), "{argument} is not on the line: {line}");
    }
    guest.sh("test ! -e /proc/pressure")?;
    for (path, wanted) in [
        ("/proc/sys/kernel/sched_rt_runtime_us", "-1"),
        ("/proc/sys/vm/stat_interval", "10"),
        ("/proc/sys/vm/compaction_proactiveness", "0"),
        ("/root/own", "mine"),
    ] {
        let found = guest.read(path)?;
        ensure!(found == wanted, "{path} is {found}, not {wanted}");
    }
    // A kernel with PREEMPT_RT has no transparent huge pages to switch off.
    let keys = guest.read("/home/debian/.ssh/authorized_keys")?;
    ensure!(keys.contains(KEY), "the key may not log in: {keys}");
    // Once: the next boot is an ordinary one.
    let boot = guest.read("/proc/sys/kernel/random/boot_id")?;
    guest.reboot()?;
    ensure!(guest.read("/proc/sys/kernel/random/boot_id")? != boot, "it did not reboot");
    guest.sh("cloud-init status --wait")?;
    ensure!(guest.read("/sys/devices/system/cpu/isolated")? == "1-3", "the guest isolates no CPUs any more");
    guest.say("isolates 1-3 since its second boot");
    Ok(())
}

/// The image of the seed, by the command that an apply uses.
fn image(dir: &std::path::Path) -> Result<std::path::PathBuf> {
    let rt = CpuSet::parse_list("0-3").map_err(anyhow::Error::msg)?;
    let (keys, arguments) = ([KEY.to_owned()], ["panic=30".to_owned()]);
    let seed = Inside {
        architecture: Architecture::X86,
        name: "rt0",
        instance: "lab",
        distribution: Distribution::Debian,
        kernel: Kernel::Keep,
        tuning: Tuning::Plain,
        vcpus: 4,
        rt_vcpus: &rt,
        ssh_keys: &keys,
        kernel_arguments: &arguments,
        own: Some(OWN),
    };
    let (texts, image) = (dir.join("texts"), dir.join("seed.iso"));
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(&texts)?;
    std::fs::write(texts.join("meta-data"), seed.meta_data())?;
    std::fs::write(texts.join("user-data"), seed.user_data())?;
    let path = |path: &std::path::Path| path.to_str().map(HostPath::new).context("a path of UTF-8");
    let program = Program::MakeSeed { from: path(&texts)?, image: path(&image)? };
    let command = program.command();
    let mut words = command.split(' ');
    let mut xorriso = Command::new(words.next().context("a command")?);
    run(xorriso.args(words).arg("-o").arg(&image).arg(&texts))?;
    Ok(image)
}
