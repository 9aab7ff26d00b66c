//! A host of the lab as the tests use it. Every command has a deadline, and every failure names what was run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::image::{self, overlay, work};
use super::saved::Saved;
use super::ssh::Done;
use super::virtual_machine::{BOOT, Boot, VirtualMachine, signature};
use crate::captures::Memory;
use crate::deb;
use crate::shell::{root, seconds};

/// Until when a command must be done.
const COMMAND: Duration = Duration::from_secs(600);
/// Until when a host that was told to reboot must have gone down.
const DOWN: Duration = Duration::from_secs(300);
/// The services that failed, and what they said on this boot.
const FAILED: &str = "systemctl --failed --no-legend --plain | while read -r unit state; do \
    echo \"$unit $state\"; journalctl --boot --unit \"$unit\" --output cat --lines 40; done";
/// Where profiles go that a test applies.
const PROFILES: &str = "/root/profiles";

/// A running host that ends with this value.
pub(crate) struct Host {
    machine: VirtualMachine,
    disk: PathBuf,
    topology: String,
    /// Arguments of QEMU for what was attached since its first boot.
    extra: Vec<String>,
    /// Where the memory is to be from the next boot on, if the host is to be saved then.
    memory: Option<PathBuf>,
}

/// The package of this tree: the first that wants it makes it, and the others wait for it.
static PACKAGE: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The package of this tree, made once.
pub(super) fn package() -> Result<PathBuf> {
    let mut package = PACKAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let built = match package.take() {
        Some(built) => built,
        None => deb::build("lab")?,
    };
    *package = Some(built.clone());
    Ok(built)
}

impl Host {
    /// A fresh Debian host with this topology, that booted through its own GRUB and has just come up. It boots once for
    /// each image, and is saved.
    pub(crate) fn boot(topology: &str) -> Result<Host> {
        Host::restore(topology, &Host::booted(topology)?)
    }

    /// What `boot` starts from.
    pub(super) fn booted(topology: &str) -> Result<Saved> {
        let image = image::get()?;
        let name = format!("{topology}-{}", signature(topology)?);
        Saved::get(&image.booted.join(name), |to| {
            let memory = Memory::Saved(to.folder());
            let host = Host::start(topology, &image.disk, "raw", memory)?;
            host.settle()?;
            host.say(&format!("booted in {}", host.cost(host.machine.age())));
            host.save(to)
        })
    }

    /// The guide's machine after `put_program`, `apply profiles/kvm-realtime.toml` and a reboot. It comes this far once
    /// for each program, and is saved.
    pub(crate) fn boot_applied() -> Result<Host> {
        let states = work().join("states");
        let saved = Saved::get(&states.join(applied()?), |to| {
            clear(&states, to.folder())?;
            let mut host = Host::boot("reference")?;
            host.put_program()?;
            // It would move interrupts until the kernel isolates CPUs; it is there again after the boot.
            host.sh("systemctl stop irqbalance")?;
            host.apply("profiles/kvm-realtime.toml")?.expect(0)?;
            host.memory = Some(to.folder().to_owned());
            host.reboot()?;
            host.save(to)
        })?;
        Host::restore("reference", &saved)
    }

    /// Lets a saved host run on.
    fn restore(topology: &str, saved: &Saved) -> Result<Host> {
        let host = Host::start(topology, &saved.disk(), "qcow2", Memory::Restored(saved.folder()))?;
        host.say(&format!("restored in {}", seconds(host.machine.age())));
        Ok(host)
    }

    fn start(topology: &str, base: &Path, format: &str, memory: Memory) -> Result<Host> {
        fs::create_dir_all(work())?;
        let disk = folder().with_extension("qcow2");
        let machine = once_more("start", || {
            overlay(base, format, &disk)?;
            start(topology, &disk, &[], memory)
        })?;
        Ok(Host { machine, disk, topology: topology.to_owned(), extra: Vec::new(), memory: None })
    }

    /// Saves the host as it runs. Its memory is where `to` is.
    fn save(mut self, to: &Saved) -> Result<()> {
        self.machine.save(to.folder())?;
        fs::copy(&self.disk, to.disk())?;
        Ok(())
    }

    /// Waits until systemd has started everything and udev has loaded every driver; of the services that failed it
    /// gives the names and what they said.
    fn settle(&self) -> Result<()> {
        let state = self.run("systemctl is-system-running --wait; udevadm settle")?.stdout;
        if state.trim() != "running" {
            let failed = self.run(FAILED)?.stdout;
            bail!("the host is {}:\n{failed}", state.trim());
        }
        Ok(())
    }

    /// A time, and the processor time that QEMU took in it: the one that says something on a busy computer.
    fn cost(&self, time: Duration) -> String {
        format!("{} ({:.1} s of a processor)", seconds(time), self.machine.processor_time())
    }

    /// Reboots in order, through GRUB, and waits until every service is up.
    pub(crate) fn reboot(&mut self) -> Result<()> {
        let start = Instant::now();
        self.start_reboot();
        self.machine.wait_for_reset(DOWN)?;
        self.boot_again(&format!("down in {}", seconds(start.elapsed())))
    }

    /// Lets the kernel panic and waits until the host has booted again by itself, which needs `panic=` or
    /// `kernel.panic`, and until every service is up.
    pub(crate) fn panic(&mut self) -> Result<()> {
        self.machine.order("echo c >/proc/sysrq-trigger");
        self.wait_for_console("Kernel panic", Duration::from_secs(120))?;
        self.wait_for_reset(Duration::from_secs(120))?;
        self.boot_again("panicked")
    }

    /// Takes the power away, gives it back, and waits until every service is up.
    pub(crate) fn power_cut(&mut self) -> Result<()> {
        self.machine.kill();
        self.boot_again("power cut")
    }

    /// Starts a command line, takes the power away once QEMU has taken this much processor time since, in seconds,
    /// and gives it back: a clock that goes no further on a busy computer.
    pub(crate) fn power_cut_in(&mut self, command: &str, after: f64) -> Result<()> {
        let start = self.processor_time();
        self.machine.order(&format!("setsid sh -c '{command}' >/dev/null 2>&1 </dev/null &"));
        let limit = Instant::now() + COMMAND;
        while self.processor_time() - start < after && Instant::now() < limit {
            thread::sleep(Duration::from_millis(10));
        }
        self.power_cut()
    }

    /// The processor time that QEMU took since it was started, in seconds.
    pub(crate) fn processor_time(&self) -> f64 {
        self.machine.processor_time()
    }

    /// Reboots in order, and waits only until this text is on the console of the next boot.
    pub(crate) fn reboot_until(&mut self, text: &str) -> Result<()> {
        self.start_reboot();
        self.machine.wait_for_reset(DOWN)?;
        self.start_again()?;
        self.machine.wait_for_console(text, BOOT)
    }

    /// Reboots in order, and waits until that boot has ended in a reboot of its own and every service of the next one is
    /// up.
    pub(crate) fn reboot_twice(&mut self, limit: Duration) -> Result<()> {
        self.start_reboot();
        self.machine.wait_for_reset(DOWN)?;
        self.start_again()?;
        self.machine.wait_for_reset(limit)?;
        self.boot_again("rebooted by itself")
    }

    /// Gives it an image as a drive that it can only read, from its next boot on.
    pub(crate) fn attach(&mut self, image: &Path) {
        let file = image.display().to_string().replace(',', ",,");
        let name = format!("more{}", self.extra.len());
        let drive = format!("if=none,id={name},file={file},format=raw,readonly=on");
        let device = format!("virtio-blk-pci,bus=pcie.0,drive={name}");
        self.extra.extend(["-drive", &drive, "-device", &device].map(String::from));
    }

    /// Gives it a network card with this many queues and this address, from its next boot on. Its cable ends in an interface of
    /// this computer that is down: as root, and with /dev/net/tun.
    pub(crate) fn attach_card(&mut self, queues: u32, address: &str) {
        let name = format!("more{}", self.extra.len());
        let cable = format!("tap,id={name},queues={queues},script=no,downscript=no");
        let vectors = 2 * queues + 2;
        let device =
            format!("virtio-net-pci,bus=pcie.0,netdev={name},mq=on,vectors={vectors},mac={address},romfile=");
        self.extra.extend(["-netdev", &cable, "-device", &device].map(String::from));
    }

    /// Starts the next boot and waits for nothing.
    fn start_again(&mut self) -> Result<()> {
        let key = image::get()?.key;
        let boot = from_disk(&self.topology, &self.disk, &key, &self.extra, Memory::Own);
        self.machine = VirtualMachine::start(&folder(), &boot)?;
        Ok(())
    }

    /// Whether it lets us in now.
    pub(crate) fn answers(&self) -> Result<bool> {
        self.machine.answers()
    }

    /// Asks for a reboot in order and waits for nothing.
    pub(crate) fn start_reboot(&self) {
        self.machine.order("systemctl reboot");
    }

    /// Waits until the host resets itself.
    pub(crate) fn wait_for_reset(&mut self, limit: Duration) -> Result<()> {
        self.machine.wait_for_reset(limit)
    }

    /// Waits until this text appears on the serial console of this boot.
    pub(crate) fn wait_for_console(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.machine.wait_for_console(text, limit)
    }

    /// Boots from the host's disk as it is.
    fn boot_again(&mut self, why: &str) -> Result<()> {
        let memory = self.memory.as_deref().map_or(Memory::Own, Memory::Saved);
        self.machine = start(&self.topology, &self.disk, &self.extra, memory)?;
        self.settle()?;
        self.say(&format!("{why}, up again in {}", self.cost(self.machine.age())));
        Ok(())
    }

    /// Installs the package of this tree.
    pub(crate) fn put_program(&self) -> Result<()> {
        self.put(&package()?, "/root/rtkvm-tune.deb")?;
        self.sh("dpkg --install /root/rtkvm-tune.deb").map(drop)
    }

    /// A line about this test.
    pub(crate) fn say(&self, text: &str) {
        say(text);
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
        self.say(&format!("{verb} {options}: status {} in {}", done.code(), seconds(start.elapsed())));
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
        // One that was saved has ended, and tells no more.
        if let peak @ 1.. = self.machine.peak() {
            self.say(&format!("QEMU had at most {peak} MiB"));
        }
        // What a test fails of may be a bug of the kernel.
        for line in self.machine.bugs() {
            self.say(&line);
        }
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
        say(&format!("{what} failed, trying ONCE MORE: {error:#}"));
        work()
    })
}

/// The name of the state after an apply: another package, profile or first boot, another state. All tests of a run have the
/// same one.
fn applied() -> Result<String> {
    static NAME: Mutex<Option<String>> = Mutex::new(None);
    let mut name = NAME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = &*name {
        return Ok(name.clone());
    }
    // The package itself has the time of its making in it.
    let mut state = sha1_smol::Sha1::from(fs::read(deb::program("lab")?)?);
    let units = fs::read_dir(root().join("packaging/systemd"))?;
    let mut files: Vec<PathBuf> = units.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    files.extend(["packaging/prerm.sh", "profiles/kvm-realtime.toml"].map(|file| root().join(file)));
    for file in files {
        state.update(&fs::read(file)?);
    }
    // Its disk and memory are those of this boot with something on top.
    state.update(&fs::read(Host::booted("reference")?.state())?);
    Ok(name.insert(state.digest().to_string()).clone())
}

/// Removes the states of other programs, which nobody wants again.
fn clear(states: &Path, but: &Path) -> Result<()> {
    for state in fs::read_dir(states)?.flatten().map(|entry| entry.path()) {
        if state != but && state.is_dir() {
            fs::remove_dir_all(state)?;
        }
    }
    Ok(())
}

/// Boots from this disk as it is. A boot that panics or gives up resets itself and boots once more, as on any machine.
fn start(topology: &str, disk: &Path, extra: &[String], memory: Memory) -> Result<VirtualMachine> {
    let key = image::get()?.key;
    let boot = from_disk(topology, disk, &key, extra, memory);
    let mut machine = VirtualMachine::start(&folder(), &boot)?;
    let mut reached = machine.wait_for_ssh();
    if reached.is_err() && machine.has_reset()? {
        say("it reset itself while booting");
        machine = VirtualMachine::start(&folder(), &boot)?;
        reached = machine.wait_for_ssh();
    }
    reached.map(|_| machine)
}

fn from_disk<'a>(
    topology: &'a str,
    disk: &'a Path,
    key: &'a Path,
    extra: &'a [String],
    memory: Memory<'a>,
) -> Boot<'a> {
    Boot { topology, disk, format: "qcow2", key, extra, attached: true, memory }
}

/// The test that runs in this thread.
fn test_name() -> String {
    thread::current().name().unwrap_or("main").to_owned()
}

/// Where this thread's host has its files.
fn folder() -> PathBuf {
    work().join(test_name().replace("::", "-"))
}

/// One line, with the name of the test: two run at once.
fn say(text: &str) {
    eprintln!("      {}: {text}", test_name());
}
