//! Trial boots through the real GRUB, good ones and bad ones.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Host;

/// It boots in a fraction of the time of the guide's, and a trial has nothing to do with the topology.
const TOPOLOGY: &str = "pair";
const PROFILE: &str = "/root/profiles/trial.toml";
const DROP_IN: &str = "/etc/default/grub.d/99-rtkvm-tune.cfg";
const UNIT: &str = "rtkvm-tune-trial.service";
/// What no trial leaves behind.
const OURS: &str = "/etc/grub.d/99_rtkvm-tune-trial /etc/systemd/system/rtkvm-tune-trial.service \
    /var/lib/rtkvm-tune/trial.json";

/// A host whose next boot is the trial of these further kernel arguments.
fn armed(arguments: &str) -> Result<Host> {
    let host = Host::boot(TOPOLOGY)?;
    host.put_program()?;
    // Pages that the kernel has without being asked at boot, too: the old line must not be short of any.
    let profile = format!(
        "[host]\nhousekeeping-cpus-per-node = 1\nhousekeeping-memory-per-node = \"2GiB\"\n\
         kernel-arguments = [{arguments}]\n\n[host.hugepages]\nsize = \"2MiB\"\ncount = 64\n"
    );
    host.write(PROFILE, profile.as_bytes())?;
    // Until the kernel isolates CPUs irqbalance moves interrupts there again, at any moment.
    host.sh("systemctl stop irqbalance")?;
    let default = default_entry(&host)?;
    host.tune_with("apply", PROFILE, "--trial")?.expect(0)?;
    ensure!(default_entry(&host)? == default, "the default entry is another");
    let block = host.read("/boot/grub/grubenv")?;
    ensure!(block.contains("\nnext_entry=rtkvm-tune-trial\n"), "{block}");
    Ok(host)
}

/// The kernel's line of the first entry.
fn default_entry(host: &Host) -> Result<String> {
    let text = host.sh("grep -m 1 '^[[:space:]]linux' /boot/grub/grub.cfg")?;
    ensure!(text.contains("root="), "no entry: {text}");
    Ok(text)
}

fn line(host: &Host) -> Result<String> {
    host.read("/proc/cmdline")
}

fn is_default(host: &Host) -> Result<()> {
    let line = line(host)?;
    ensure!(!line.contains("isolcpus") && !line.contains("rtkvm_tune"), "not the old line: {line}");
    host.sh(&format!("test ! -e {DROP_IN}"))?;
    let block = host.read("/boot/grub/grubenv")?;
    ensure!(!block.contains("next_entry=rtkvm"), "{block}");
    Ok(())
}

/// The old line runs, and the next verify says why.
fn fell_back(host: &Host, why: &str) -> Result<()> {
    is_default(host)?;
    let text = host.tune_with("verify", PROFILE, "")?.expect(1)?;
    ensure!(text.contains("the trial of 20") && text.contains(why), "verify does not say `{why}`: {text}");
    Ok(())
}

const NOT_UP: &str =
    "failed: its boot did not come up so far that it could be confirmed: it panicked, hung, or was";

pub(super) fn confirms_itself() -> Result<()> {
    let mut host = armed("\"loglevel=5\"")?;
    host.reboot()?;
    let trial = line(&host)?;
    ensure!(trial.contains(" loglevel=5 ") && trial.contains(" panic=30 rtkvm_tune.trial="), "{trial}");
    // systemd was done when the unit was.
    host.sh(&format!("for file in {OURS}; do test ! -e $file || exit 1; done; test -e {DROP_IN}"))?;
    let log = host.sh(&format!("journalctl --boot --unit {UNIT} --output cat"))?;
    ensure!(log.contains("Confirmed: the arguments of the trial of 20"), "{log}");
    host.tune_with("verify", PROFILE, "")?.expect(0)?;
    host.reboot()?;
    let line = line(&host)?;
    ensure!(line.contains(" loglevel=5") && line.contains(" isolcpus="), "{line}");
    ensure!(!line.contains("rtkvm_tune.trial") && !line.contains("panic="), "{line}");
    host.tune_with("verify", PROFILE, "")?.expect(0)?;
    Ok(())
}

/// The kernel finds neither the initramfs's init nor a root file system of its own.
pub(super) fn falls_back_from_a_panic() -> Result<()> {
    let mut host = armed("\"rdinit=/nonexistent\", \"panic=5\"")?;
    host.reboot()?;
    fell_back(&host, NOT_UP)
}

/// A program that waits for input for ever, in init's place; somebody takes the power away.
pub(super) fn falls_back_from_a_hang() -> Result<()> {
    let mut host = armed("\"init=/usr/bin/cat\", \"loglevel=7\"")?;
    host.reboot_until("rtkvm_tune.trial=")?;
    sleep(Duration::from_secs(30));
    ensure!(!host.answers()?, "it has come up");
    host.power_cut()?;
    fell_back(&host, NOT_UP)
}

/// libvirt does not start on the trial's boot; and then GRUB's flag is set once more.
pub(super) fn leaves_the_default_after_a_failed_audit() -> Result<()> {
    let mut host = armed("\"loglevel=5\"")?;
    let sockets = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket";
    host.sh(&format!("systemctl mask {sockets} libvirtd.service"))?;
    let short =
        "[Service]\nExecStart=\nExecStart=/usr/bin/rtkvm-tune confirm --automatic --wait 300 --within 10\n";
    host.write(&format!("/etc/systemd/system/{UNIT}.d/short.conf"), short.as_bytes())?;
    host.sh("systemctl daemon-reload")?;
    has_failed_unit(host.reboot())?;
    host.sh(&format!("test ! -e {DROP_IN}"))?;
    let text = host.tune_with("verify", PROFILE, "")?.expect(1)?;
    ensure!(text.contains("this boot is the trial of 20"), "{text}");
    ensure!(text.contains("It could not be confirmed: libvirt does not answer"), "{text}");
    host.tune_with("confirm", "", "")?.expect(1)?;

    // As where GRUB cannot clear it.
    host.sh("grub-reboot rtkvm-tune-trial")?;
    has_failed_unit(host.reboot())?;
    let twice = "its entry was booted a second time without having been confirmed";
    let text = host.tune_with("verify", PROFILE, "")?.expect(1)?;
    ensure!(text.contains(twice), "{text}");
    host.reboot()?;
    fell_back(&host, twice)
}

/// The host is up but for the unit of the trial.
fn has_failed_unit(rebooted: Result<()>) -> Result<()> {
    let told = rebooted.err().context("every service is up")?.to_string();
    ensure!(told.contains(UNIT), "{told}");
    Ok(())
}
