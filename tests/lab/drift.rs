//! Changes by somebody else, found and mended.

use anyhow::{Context, Result, ensure};

use super::state::{interrupts, open};
use super::{Host, PAGES, PROFILE};

pub(super) fn is_found_and_mended(host: &Host) -> Result<()> {
    host.verify(PROFILE)?.expect(0)?;

    let serial = interrupts(host)?.into_iter().find(|irq| irq.actions == "ttyS0");
    let serial = serial.context("the serial line has no interrupt")?.number;
    // It would move the interrupt back, at any moment.
    host.sh("systemctl stop irqbalance")?;
    let pages = "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages";
    host.sh(&format!("echo 5 >/proc/irq/{serial}/smp_affinity_list"))?;
    host.sh(&format!("echo 20 >{pages}"))?;
    host.sh("sed -i 's/ nohz_full=[^ ]*//' /boot/grub/grub.cfg")?;
    host.sh("sysctl --quiet kernel.timer_migration=1")?;
    let found = open(&host.tune("verify", PROFILE, "--format json")?.json(1)?)?;
    let mut expected = vec![
        format!("irq.affinity IRQ {serial} differs"),
        // It runs, and will not be there after the next boot.
        "cpu.nohz-full nohz_full differs".to_owned(),
        "memory.hugepages node 1, 1GiB pages differs".to_owned(),
        "sched.timer-migration kernel.timer_migration differs".to_owned(),
    ];
    expected.sort_unstable();
    let mut sorted = found.clone();
    sorted.sort_unstable();
    ensure!(sorted == expected, "verify found {found:#?}");

    host.apply(PROFILE)?.expect(0)?;
    host.verify(PROFILE)?.expect(0)?;
    ensure!(host.read("/proc/sys/kernel/timer_migration")? == "0", "the sysctl was not mended");
    ensure!(host.read(pages)? == PAGES, "the pages did not come back");
    ensure!(host.sh("cat /boot/grub/grub.cfg")?.contains(" nohz_full=2-7,10-15"), "grub.cfg was not mended");

    // irqbalance looks at the interrupts every ten seconds, and must leave the isolated CPUs alone.
    host.sh("systemctl restart irqbalance && sleep 25")?;
    host.verify(PROFILE)?.expect(0)?;
    Ok(())
}
