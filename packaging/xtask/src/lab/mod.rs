//! `cargo xtask lab`: a real Debian host on the topology of a machine that is not there, emulated by QEMU. Times mean
//! nothing in it; states and counts do.

use std::fs;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

mod host;
mod image;
mod latency;
mod memory;
mod noise;
mod saved;
mod speed;
mod ssh;
mod suite;
/// The tests are a part of this program: it always compiles them, and `cargo test` never runs them.
#[path = "../../../../tests/lab/mod.rs"]
mod tests;
mod virtual_machine;

pub(crate) use host::Host;
pub(crate) use suite::{Job, Work};

use crate::captures::{self, Memory};
use crate::shell::{need, seconds, step};
use virtual_machine::{Boot, VirtualMachine};

const USAGE: &str = "\
usage: cargo xtask lab VERB

  build             make the image of the hosts, if its recipe changed (as root)
  test [--jobs N] [--all] [FILTER]
                    run the tests of tests/lab whose names contain FILTER, N at once: 2 without it, which is the most.
                    Without FILTER those that `cargo xtask test` runs as well, and the others with --all.
                    LAB_CUTS and LAB_SEED in the environment say how often the power goes away during an apply, and
                    choose the moments: the seed of a run that failed gives the same ones again. Two tests of machines
                    with many CPUs, `topologies::dies` and `topologies::large`, run by their whole name only
  capture [OPTION] [MACHINE...]
                    record tests/captures anew, on a kernel and a shell only; all machines without a MACHINE
      --list        name the machines and say what they are
      --program FILE
                    a static program to record with, instead of a fresh build
  noise [--seconds N] [--try FILE] [STATE...]
                    count and trace what interrupts the isolated CPUs, side by side in each STATE: untuned,
                    tuned, ours; tuned+ARGUMENT or ours+ARGUMENT with one more kernel argument. 60 seconds for
                    each load without --seconds. --try runs a shell script in the host before it is measured
  speed [WAY]       what an audit and a second apply cost next to TuneD's: `instructions` in a machine that counts them,
                    `host` in the time of an emulated host, or both
  latency [--seconds N] [--phases N] [--knobs] [--jobs N] [STATE...]
                    how late an isolated CPU is in each STATE: untuned, tuned, ours. Time is a count of instructions
                    there: ours is measured twice, and a figure that differs is a failure.
                    One virtual second for each program without --seconds, two boots at once without --jobs.
                    --phases boots each state so often, each time to begin a little later, since chance has the maximum.
                    --knobs leaves out one knob of ours after another, and says what each changes
  start [MACHINE]   start a host that stays, right after its first boot; `reference` without a MACHINE
  ssh [COMMAND]     a shell or one command in that host
  put FILE PATH     copy a file into it
  reboot            reboot it and wait for it
  stop              shut it down in order
  kill              end it at once
";

/// Does what one verb of the lab says.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(("capture", rest)) = args.split_first().map(|(verb, rest)| (verb.as_str(), rest)) {
        return captures::run(rest);
    }
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["build"] => {
            let image = step("image", image::get)?;
            println!("{}", image.disk.display());
            Ok(())
        }
        ["test", rest @ ..] => suite::command(rest),
        ["noise", rest @ ..] => noise::run(rest),
        ["speed", args @ ..] => speed::run(args),
        ["latency", rest @ ..] => latency::run(rest),
        ["start"] => start("reference"),
        ["start", topology] => start(topology),
        ["ssh", command @ ..] => shell(&command.join(" ")),
        ["put", file, path] => put(Path::new(file), path),
        ["reboot"] => {
            let time = started()?.reboot()?;
            eprintln!("rebooted in {}", seconds(time));
            Ok(())
        }
        ["stop"] => started()?.power_off(),
        ["kill"] => {
            started()?.kill();
            Ok(())
        }
        ["help"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("`{}` is no verb of the lab\n\n{USAGE}", words.join(" ")),
    }
}

/// Runs the tests whose names contain `filter`, if there are any, as many at once as there may be.
pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    let filter = filter.unwrap_or_default();
    if suite::has(filter) { suite::run(filter, false, memory::MACHINES) } else { Ok(()) }
}

/// The folder of the host that `start` leaves running.
fn folder() -> PathBuf {
    image::work().join("started")
}

fn start(topology: &str) -> Result<()> {
    let image = step("image", image::get)?;
    if let Ok(machine) = VirtualMachine::running(&folder(), &image.key) {
        bail!("a host runs already, since {}: `cargo xtask lab kill` ends it", seconds(machine.age()));
    }
    let saved = step("first boot", || Host::booted(topology))?;
    fs::create_dir_all(image::work())?;
    let disk = image::work().join("started.qcow2");
    image::overlay(&saved.disk(), "qcow2", &disk)?;
    let boot = Boot {
        topology,
        disk: &disk,
        format: "qcow2",
        key: &image.key,
        extra: &[],
        attached: false,
        memory: Memory::Restored(saved.folder()),
    };
    let mut machine = VirtualMachine::start(&folder(), &boot)?;
    match machine.wait_for_ssh() {
        Ok(time) => {
            eprintln!("up after {}; serial log: {}", seconds(time), folder().join("serial.log").display())
        }
        Err(error) => {
            machine.kill();
            return Err(error);
        }
    }
    Ok(())
}

fn started() -> Result<VirtualMachine> {
    need(&["ssh"])?;
    VirtualMachine::running(&folder(), &image::get()?.key)
}

fn shell(command: &str) -> Result<()> {
    let mut ssh = started()?.terminal();
    let words = if command.is_empty() { None } else { Some(command) };
    let status = ssh.args(words).status().context("cannot start `ssh`")?;
    match status.success() {
        true => Ok(()),
        false => bail!("the command ended with {status}"),
    }
}

fn put(file: &Path, path: &str) -> Result<()> {
    let mut content = Vec::new();
    match file == Path::new("-") {
        true => stdin().read_to_end(&mut content).map(drop)?,
        false => content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
    }
    let command = format!("cat >'{path}'");
    started()?.ssh(&command, &content, Duration::from_secs(600))?.success().map(drop)
}
