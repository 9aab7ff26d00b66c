//! `cargo xtask lab capture`: records the test machines with QEMU's emulation and a real PREEMPT_RT kernel.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::deb;
use crate::shell::{cache, need, root, seconds, step};

pub(crate) mod debian;
pub(crate) mod initramfs;
mod machines;
pub(crate) mod qemu;

use machines::{HOSTS, MACHINES};
pub(crate) use machines::{Machine, Memory};

/// Records the named machines, or all of them.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut names = Vec::new();
    let mut program = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => {
                MACHINES.iter().for_each(|machine| println!("{:18} {}", machine.name, machine.about));
                return Ok(());
            }
            "--program" => {
                program = Some(PathBuf::from(args.next().context("--program needs a FILE")?));
            }
            name => names.push(name),
        }
    }
    let machines = select(&names)?;
    need(&["qemu-system-x86_64", "cpio", "grub-mkconfig", "setpriv", "apt-get", "dpkg"])?;
    let program = match program {
        Some(file) => file,
        None => step("static rtkvm-tune", || deb::program("dev"))?,
    };
    let kernel = step("Debian kernel and files", || debian::fetch(&cache()?))?;
    let work = root().join("target/captures");
    let base = step("initramfs", || initramfs::build(&work, &kernel, &program))?;
    let mut failed = Vec::new();
    for machine in machines {
        let folder = work.join(machine.name);
        if let Err(error) = step(machine.name, || record(machine, &kernel, &base, &folder)) {
            eprintln!("    {error:#}");
            failed.push(machine.name);
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        names => bail!("not recorded: {}", names.join(", ")),
    }
}

fn select(names: &[&str]) -> Result<Vec<&'static Machine>> {
    if names.is_empty() {
        return Ok(MACHINES.iter().collect());
    }
    let find = |name: &&str| match MACHINES.iter().find(|machine| machine.name == *name) {
        Some(machine) => Ok(machine),
        None => {
            let known: Vec<&str> = MACHINES.iter().map(|machine| machine.name).collect();
            bail!("`{name}` is not a machine: choose from {}", known.join(", "))
        }
    };
    names.iter().map(find).collect()
}

/// The machine of this name: one that is recorded, or one for the lab only.
pub(crate) fn machine(name: &str) -> Result<&'static Machine> {
    match HOSTS.iter().find(|machine| machine.name == name) {
        Some(machine) => Ok(machine),
        None => Ok(select(&[name])?[0]),
    }
}

fn record(machine: &Machine, kernel: &debian::Kernel, base: &Path, work: &Path) -> Result<()> {
    fs::create_dir_all(work)?;
    fs::copy(&kernel.image, work.join("vmlinuz"))?;
    initramfs::complete(base, machine, &work.join("initramfs.gz"))?;
    let arguments = machine.qemu_arguments(&kernel.version);
    let boot = match qemu::boot(work, &arguments, machine.deadline()) {
        Ok(boot) => boot,
        Err(error) => {
            eprintln!("    first boot failed, trying once more: {error:#}");
            qemu::boot(work, &arguments, machine.deadline())?
        }
    };
    let recording = boot.recording()?;
    let file = root().join("tests/captures").join(format!("{}.capture", machine.name));
    fs::create_dir_all(root().join("tests/captures"))?;
    fs::write(&file, machine.header(kernel, &arguments) + recording.capture)
        .with_context(|| format!("cannot write {}", file.display()))?;
    for note in &recording.notes {
        eprintln!("    {note}");
    }
    let bytes = recording.capture.len();
    eprintln!("    recorded after {}: {bytes} bytes", seconds(boot.time));
    Ok(())
}
