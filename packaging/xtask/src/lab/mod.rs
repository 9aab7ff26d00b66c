//! `cargo xtask lab`: a real Debian host on the topology of a machine that is not there, emulated by QEMU. Times mean
//! nothing in it; states and counts do.

use std::fs;
use std::io::{Read, stdin};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

mod host;
mod image;
mod memory;
mod noise;
mod ssh;
/// The tests are a part of this program: it always compiles them, and `cargo test` never runs them.
#[path = "../../../../tests/lab/mod.rs"]
mod tests;
mod virtual_machine;

pub(crate) use host::Host;

use crate::shell::{need, seconds, step};
use virtual_machine::{Boot, VirtualMachine};

const USAGE: &str = "\
usage: cargo xtask lab VERB

  build             make the image of the hosts, if its recipe changed (as root)
  test [FILTER]     run the tests of tests/lab whose names contain FILTER
  noise [--seconds N] [--try FILE] [STATE...]
                    count and trace what interrupts the isolated CPUs, side by side in each STATE: untuned,
                    tuned, ours; tuned+ARGUMENT or ours+ARGUMENT with one more kernel argument. 60 seconds for
                    each load without --seconds. --try runs a shell script in the host before it is measured
  start [MACHINE]   boot a host that stays; a MACHINE of `cargo xtask captures --list`, `reference` without it
  ssh [COMMAND]     a shell or one command in that host
  put FILE PATH     copy a file into it
  reboot            reboot it and wait for it
  stop              shut it down in order
  kill              end it at once
";

/// One test: its name and what it does.
pub(crate) type Test = (&'static str, fn() -> Result<()>);

/// Does what one verb of the lab says.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["build"] => {
            let image = step("image", image::get)?;
            println!("{}", image.disk.display());
            Ok(())
        }
        ["test"] => test(""),
        ["test", filter] => test(filter),
        ["noise", rest @ ..] => noise::run(rest),
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

/// The folder of the host that `start` leaves running.
fn folder() -> PathBuf {
    image::work().join("started")
}

fn start(topology: &str) -> Result<()> {
    let image = step("image", image::get)?;
    if let Ok(machine) = VirtualMachine::running(&folder(), &image.key) {
        bail!("a host runs already, since {}: `cargo xtask lab kill` ends it", seconds(machine.age()));
    }
    fs::create_dir_all(image::work())?;
    let disk = image::work().join("started.qcow2");
    image::overlay(&image.disk, "raw", &disk)?;
    let boot = Boot { topology, disk: &disk, format: "qcow2", key: &image.key, extra: &[], attached: false };
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

/// Runs the tests one after another: two hosts would not make two processors faster.
fn test(filter: &str) -> Result<()> {
    let chosen: Vec<&Test> = tests::TESTS.iter().filter(|(name, _)| name.contains(filter)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = tests::TESTS.iter().map(|(name, _)| *name).collect();
        bail!("no test is called `{filter}`: there are {}", names.join(", "));
    }
    let start = Instant::now();
    step("image", image::get)?;
    let mut failed = Vec::new();
    for (name, work) in &chosen {
        let result = step(name, || match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result,
            // The panic has printed its message.
            Err(_) => Err(anyhow!("it panicked")),
        });
        if let Err(error) = result {
            eprintln!("    {error:#}");
            failed.push(*name);
        }
    }
    eprintln!("{} of {} passed in {}", chosen.len() - failed.len(), chosen.len(), seconds(start.elapsed()));
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("failed: {}", failed.join(", ")),
    }
}
