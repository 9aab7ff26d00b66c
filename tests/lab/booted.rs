//! On a host that booted with our arguments, through its own GRUB.

use anyhow::{Result, ensure};
use rtkvm_tune::formats::CpuSet;

use super::live::writes_nothing;
use super::state::interrupts;
use super::{HOUSEKEEPING, Host, ISOLATED, PAGES, PROFILE};

pub(super) fn the_machine_is_as_planned(host: &Host) -> Result<()> {
    is(host, "/sys/devices/system/cpu/isolated", ISOLATED)?;
    is(host, "/sys/devices/system/cpu/nohz_full", ISOLATED)?;
    for node in 0..2 {
        let pages = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-1048576kB/nr_hugepages");
        is(host, &pages, PAGES)?;
    }
    let mask = CpuSet::parse_mask(&host.read("/proc/irq/default_smp_affinity")?)?;
    ensure!(mask.to_string() == HOUSEKEEPING, "default_smp_affinity is {mask}");
    let pressure = host.sh("ls /proc/pressure 2>&1 || true")?;
    ensure!(pressure.contains("No such file"), "pressure stalls are accounted for: {pressure}");
    let workqueues = CpuSet::parse_mask(&host.read("/sys/devices/virtual/workqueue/cpumask")?)?;
    ensure!(workqueues.to_string() == HOUSEKEEPING, "workqueues run on {workqueues}");

    let isolated = CpuSet::parse_kernel_list(ISOLATED)?;
    let mut lagging = 0;
    for irq in interrupts(host)?.iter().filter(|irq| !irq.is_fixed()) {
        let on = CpuSet::parse_kernel_list(&irq.affinity)?.intersection(&isolated);
        ensure!(on.is_empty(), "IRQ {} ({}) may go to {on}", irq.number, irq.actions);
        let effective = CpuSet::parse_kernel_list(&irq.effective)?;
        // It follows when the interrupt next fires.
        lagging += usize::from(!effective.intersection(&isolated).is_empty());
    }
    host.say(&format!("{lagging} interrupts have not fired since they were moved"));

    threads_are_scheduled(host, &isolated)?;
    let unit = host.sh("systemctl show rtkvm-tune.service --property=ActiveState,ExecMainStatus")?;
    ensure!(
        unit.contains("ActiveState=active") && unit.contains("ExecMainStatus=0"),
        "the boot unit: {unit}"
    );
    let mounts = host.sh("findmnt --noheadings --types hugetlbfs --output TARGET,OPTIONS")?;
    ensure!(
        mounts.lines().any(|line| line.starts_with("/dev/hugepages ") && line.contains("pagesize=1024M")),
        "hugetlbfs: {mounts}"
    );
    let guests = host.sh("virsh --connect qemu:///system list --all --name")?;
    ensure!(guests.trim() == "rt0", "guests: {guests}");
    host.verify(PROFILE)?.expect(0)?;
    writes_nothing(host)
}

/// By what `ps` says: the kernel's threads of the isolated CPUs, and of no other, run before the vCPUs.
fn threads_are_scheduled(host: &Host, isolated: &CpuSet) -> Result<()> {
    let mut counted = 0;
    for line in host.sh("ps -e --no-headers -o class,rtprio,comm")?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [class, priority, name] = words[..] else { continue };
        let Some((kind, cpu)) = name.split_once('/') else { continue };
        let (ours, usual) = match kind {
            "ksoftirqd" => ("FF 2", "TS -"),
            "ktimers" => ("FF 2", "FF 1"),
            "rcuc" => ("FF 4", "FF 1"),
            _ => continue,
        };
        let wanted = if isolated.contains(cpu.parse()?) { ours } else { usual };
        ensure!(format!("{class} {priority}") == wanted, "{name}: {class} {priority}, not {wanted}");
        counted += usize::from(wanted == ours);
    }
    host.say(&format!("{counted} threads of the kernel run before the vCPUs"));
    ensure!(counted >= 2 * isolated.len(), "only {counted} threads of the kernel were found");
    Ok(())
}

fn is(host: &Host, path: &str, wanted: &str) -> Result<()> {
    let found = host.read(path)?;
    ensure!(found == wanted, "{path}: {found}, not {wanted}");
    Ok(())
}

pub(super) fn a_kernel_update_and_a_foreign_drop_in_leave_our_arguments() -> Result<()> {
    let mut host = Host::boot_applied()?;
    // As cloud images have it; its name sorts before ours.
    host.write(
        "/etc/default/grub.d/50-cloudimg-settings.cfg",
        b"GRUB_CMDLINE_LINUX_DEFAULT=\"quiet foreign=1\"\nGRUB_TIMEOUT=0\n",
    )?;
    let before = host.sh("uname -r")?;
    // Its scripts make an initramfs and run update-grub, as on every Debian host.
    host.sh("dpkg --install /var/cache/lab/kernel.deb")?;
    let menu = host.read("/boot/grub/grub.cfg")?;
    let lines: Vec<&str> = menu.lines().filter(|line| line.trim_start().starts_with("linux\t")).collect();
    for kernel in lines.iter().map(|line| line.split_whitespace().nth(1).unwrap_or_default()) {
        ensure!(kernel.starts_with("/boot/vmlinuz-"), "grub.cfg boots {kernel}");
    }
    for line in &lines {
        for word in [&format!("nohz_full={ISOLATED}"), "hugepagesz=1G", "foreign=1"] {
            ensure!(line.split_whitespace().any(|have| have == word), "{word} is not in `{line}`");
        }
    }
    let updated = lines.iter().any(|line| !line.contains(&format!("/vmlinuz-{} ", before.trim())));
    ensure!(updated, "no entry has the new kernel: {lines:#?}");
    host.verify(PROFILE)?.expect(0)?;

    host.reboot()?;
    let after = host.sh("uname -r")?;
    ensure!(after != before, "it still runs {after}");
    let line = host.read("/proc/cmdline")?;
    ensure!(line.split(' ').any(|word| word == "foreign=1"), "the foreign argument is not there: {line}");
    is(&host, "/sys/devices/system/cpu/isolated", ISOLATED)?;
    is(&host, "/sys/devices/system/cpu/nohz_full", ISOLATED)?;
    host.verify(PROFILE)?.expect(0)?;
    Ok(())
}

pub(super) fn outlives_a_panic_and_a_power_cut() -> Result<()> {
    let mut host = Host::boot_applied()?;
    host.sh("sysctl --quiet kernel.panic=1")?;
    host.panic()?;
    host.verify(PROFILE)?.expect(0)?;
    // While the services stop.
    host.start_reboot();
    host.power_cut()?;
    host.verify(PROFILE)?.expect(0)?;
    Ok(())
}
