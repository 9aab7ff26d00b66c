//! A host of the lab as the tests use it. Every command has a deadline, and every failure names what was run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::image::{self, overlay, work};
use super::ssh::Done;
use super::virtual_machine::{Boot, VirtualMachine};
use crate::deb;
use crate::shell::{root, seconds};

/// Until when a command must be done.
const COMMAND: Duration = Duration::from_secs(240);
/// Where profiles go that a test applies.
const PROFILES: &str = "/root/profiles";

/// A running host that ends with this value.
pub(crate) struct Host {
    machine: VirtualMachine,
    disk: PathBuf,
}

impl Host {
    /// Boots a fresh Debian host with this topology, through its own GRUB.
    pub(crate) fn boot(topology: &str) -> Result<Host> {
        let image = image::get()?;
        Host::from_disk(topology, &image.disk, "raw")
    }

    /// Boots the guide's machine as it is after `put_program` and `apply profiles/kvm-realtime.toml`, shut down in
    /// order. The first test that wants it makes it.
    pub(crate) fn boot_applied() -> Result<Host> {
        let states = work().join("states");
        // Another program, profile or image, another state. The package itself has the time of its making in it.
        let mut state = sha1_smol::Sha1::from(fs::read(deb::program("lab")?)?);
        state.update(&fs::read(root().join("profiles/kvm-realtime.toml"))?);
        state.update(image::get()?.disk.to_string_lossy().as_bytes());
        let disk = states.join(format!("{}.qcow2", state.digest()));
        if !disk.is_file() {
            let _ = fs::remove_dir_all(&states);
            fs::create_dir_all(&states)?;
            let mut host = Host::boot("reference")?;
            host.put_program()?;
            host.apply("profiles/kvm-realtime.toml")?.expect(0)?;
            host.machine.power_off()?;
            fs::copy(&host.disk, disk.with_extension("new"))?;
            fs::rename(disk.with_extension("new"), &disk)?;
        }
        Host::from_disk("reference", &disk, "qcow2")
    }

    fn from_disk(topology: &str, base: &Path, format: &str) -> Result<Host> {
        let key = image::get()?.key;
        fs::create_dir_all(work())?;
        let disk = work().join("test.qcow2");
        let start = || -> Result<VirtualMachine> {
            overlay(base, format, &disk)?;
            let boot = Boot { topology, disk: &disk, format: "qcow2", key: &key, extra: &[], attached: true };
            let mut machine = VirtualMachine::start(&work().join("test"), &boot)?;
            machine.wait_for_ssh()?;
            Ok(machine)
        };
        let machine = once_more("boot", start)?;
        let host = Host { machine, disk };
        host.settle()?;
        eprintln!("      booted in {}", seconds(host.machine.age()));
        Ok(host)
    }

    /// Waits until systemd has started everything, and names the services that failed.
    fn settle(&self) -> Result<()> {
        let state = self.run("systemctl is-system-running --wait")?.stdout;
        if state.trim() != "running" {
            let failed = self.run("systemctl --failed --no-legend --plain")?.stdout;
            bail!("the host is {}:\n{failed}", state.trim());
        }
        Ok(())
    }

    /// Reboots through GRUB and waits until every service is up.
    pub(crate) fn reboot(&mut self) -> Result<()> {
        let start = Instant::now();
        self.machine.reboot()?;
        self.settle()?;
        eprintln!("      rebooted in {}", seconds(start.elapsed()));
        Ok(())
    }

    /// Builds the package of this tree and installs it.
    pub(crate) fn put_program(&self) -> Result<()> {
        let package = deb::build("lab")?;
        self.put(&package, "/root/rtkvm-tune.deb")?;
        self.sh("dpkg --install /root/rtkvm-tune.deb").map(drop)
    }

    /// Copies a file into the host, readable for all and writable for root.
    pub(crate) fn put(&self, file: &Path, to: &str) -> Result<()> {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        self.write(to, &content)
    }

    /// Writes a file in the host, with its folders.
    pub(crate) fn write(&self, to: &str, content: &[u8]) -> Result<()> {
        let command = format!("umask 022; mkdir -p \"$(dirname {to})\" && cat >{to}");
        self.machine.ssh(&command, content, COMMAND)?.success().map(drop)
    }

    /// Runs a command line, whatever its exit status.
    pub(crate) fn run(&self, command: &str) -> Result<Done> {
        self.machine.ssh(command, b"", COMMAND)
    }

    /// The output of a command line that must succeed, and may take long.
    pub(crate) fn sh_within(&self, limit: Duration, command: &str) -> Result<String> {
        self.machine.ssh(command, b"", limit)?.success()
    }

    /// The output of a command line that must succeed.
    pub(crate) fn sh(&self, command: &str) -> Result<String> {
        self.run(command)?.success()
    }

    /// A file's text without white space at its ends.
    pub(crate) fn read(&self, path: &str) -> Result<String> {
        Ok(self.sh(&format!("cat {path}"))?.trim().to_owned())
    }

    /// `rtkvm-tune VERB PROFILE OPTIONS` with a profile of this repository.
    pub(crate) fn tune(&self, verb: &str, profile: &str, options: &str) -> Result<Tuned> {
        let there = format!("{PROFILES}/{profile}");
        self.put(&root().join(profile), &there)?;
        self.tune_with(verb, &there, options)
    }

    /// The same with a profile that is in the host.
    pub(crate) fn tune_with(&self, verb: &str, profile: &str, options: &str) -> Result<Tuned> {
        let start = Instant::now();
        let done = self.run(&format!("rtkvm-tune {verb} {profile} {options}"))?;
        eprintln!("      {verb} {options}: status {} in {}", done.code(), seconds(start.elapsed()));
        Ok(Tuned(done))
    }

    /// `rtkvm-tune apply PROFILE`.
    pub(crate) fn apply(&self, profile: &str) -> Result<Tuned> {
        self.tune("apply", profile, "")
    }

    /// `rtkvm-tune verify PROFILE`.
    pub(crate) fn verify(&self, profile: &str) -> Result<Tuned> {
        self.tune("verify", profile, "")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        eprintln!("      QEMU had at most {} MiB", self.machine.peak());
        self.machine.kill();
        let _ = fs::remove_file(&self.disk);
    }
}

/// What the program did.
pub(crate) struct Tuned(Done);

impl Tuned {
    /// The standard output, if the exit status is this one.
    pub(crate) fn expect(self, status: i32) -> Result<String> {
        match self.0.code() == status {
            true => Ok(self.0.stdout),
            false => bail!(
                "`{}` ended with {}, not {status}:\n{}{}",
                self.0.command,
                self.0.code(),
                self.0.stdout,
                self.0.stderr
            ),
        }
    }

    /// The standard output as JSON, if the exit status is this one.
    pub(crate) fn json(self, status: i32) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.expect(status)?)?)
    }
}

/// An emulated boot may hang by chance: it gets a second chance, and that is said.
fn once_more<T>(what: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    work().or_else(|error| {
        eprintln!("      {what} failed, trying ONCE MORE: {error:#}");
        work()
    })
}
