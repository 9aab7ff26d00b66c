//! `cargo xtask lab noise`: what interrupts the isolated CPUs, counted and traced in a host that is not tuned, in one
//! tuned by TuneD, and in ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rtkvm_tune::formats::CpuSet;

pub(super) mod sample;
mod table;
mod trace;

use super::{Host, image};
use crate::shell::{root, run as run_command, step};
use sample::Sample;

/// How profiles/kvm-realtime.toml divides the guide's machine, and TuneD here as well.
const HOUSEKEEPING: &str = "0-1,8-9";
const ISOLATED: &str = "2-7,10-15";
/// Where the busy loops run: one on each node.
const BUSY: &str = "5,12";
const COUNT: &str = include_str!("count.sh");

/// What runs on the isolated CPUs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Idle,
    Fifo,
    Other,
}

impl Load {
    const ALL: [Load; 3] = [Load::Idle, Load::Fifo, Load::Other];

    /// For the script, and in the names of files.
    fn key(self) -> &'static str {
        match self {
            Load::Idle => "idle",
            Load::Fifo => "fifo",
            Load::Other => "other",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Load::Idle => "idle",
            Load::Fifo => "SCHED_FIFO loop",
            Load::Other => "SCHED_OTHER loop",
        }
    }
}

/// How a host is set up.
struct State {
    base: Base,
    /// Further kernel arguments.
    arguments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Untuned,
    Tuned,
    Ours,
}

impl State {
    /// `untuned`, `tuned`, `ours`, and further kernel arguments after `+`.
    fn parse(text: &str) -> Result<State> {
        let mut words = text.split('+');
        let base = match words.next() {
            Some("untuned") => Base::Untuned,
            Some("tuned") => Base::Tuned,
            Some("ours") => Base::Ours,
            _ => bail!("`{text}` is no state: there are untuned, tuned and ours, as in `ours+psi=0`"),
        };
        let arguments: Vec<String> = words.map(str::to_owned).collect();
        // They go into a shell's variable.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.,:=/".contains(&byte);
        if let Some(bad) = arguments.iter().find(|word| word.is_empty() || !word.bytes().all(plain)) {
            bail!("`{bad}` is no kernel argument that can be tried: write NAME or NAME=VALUE without quotes");
        }
        Ok(State { base, arguments })
    }

    fn label(&self) -> String {
        let base = match self.base {
            Base::Untuned => "untuned",
            Base::Tuned => "TuneD",
            Base::Ours => "ours",
        };
        self.arguments.iter().fold(base.to_owned(), |label, word| format!("{label} + {word}"))
    }

    /// Boots a host in this state.
    fn boot(&self) -> Result<Host> {
        let mut host = match self.base {
            Base::Untuned | Base::Tuned => Host::boot("reference")?,
            Base::Ours => Host::boot_applied()?,
        };
        if self.base == Base::Tuned {
            let variables = "/etc/tuned/realtime-virtual-host-variables.conf";
            host.sh(&format!("sed -i 's/^isolated_cores=.*/isolated_cores={ISOLATED}/' {variables}"))?;
            host.sh("systemctl enable --now tuned && tuned-adm profile realtime-virtual-host")?;
        }
        if !self.arguments.is_empty() {
            let line = format!("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {}\"\n", self.arguments.join(" "));
            host.write("/etc/default/grub.d/lab-noise.cfg", line.as_bytes())?;
        }
        if self.base == Base::Tuned || !self.arguments.is_empty() {
            host.sh("update-grub")?;
            host.reboot()?;
        }
        let line = host.read("/proc/cmdline")?;
        let missing = self.arguments.iter().find(|word| !line.split(' ').any(|there| there == *word));
        ensure!(
            missing.is_none(),
            "the kernel was not given `{}`: {line}",
            missing.map_or("", String::as_str)
        );
        let isolated = host.read("/sys/devices/system/cpu/isolated")?;
        let expected = if self.base == Base::Untuned { "" } else { ISOLATED };
        ensure!(isolated == expected, "isolated CPUs of {}: `{isolated}`, not `{expected}`", self.label());
        Ok(host)
    }
}

/// One state, measured.
struct Measured {
    label: String,
    /// Kernel and programs.
    versions: String,
    command_line: String,
    samples: Vec<(Load, Sample)>,
}

struct Options {
    seconds: u64,
    script: Option<PathBuf>,
    states: Vec<State>,
}

fn options(args: &[&str]) -> Result<Options> {
    let mut options = Options { seconds: 60, script: None, states: Vec::new() };
    let mut args = args.iter();
    while let Some(word) = args.next() {
        match *word {
            "--seconds" => {
                let value = args.next().context("--seconds needs a number")?;
                let seconds = value.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
                options.seconds =
                    seconds.with_context(|| format!("`{value}` is not a number of 1 to 3600 seconds"))?;
            }
            "--try" => options.script = Some(args.next().context("--try needs a file")?.into()),
            option if option.starts_with('-') => bail!("`{option}` is no option of `cargo xtask lab noise`"),
            state => options.states.push(State::parse(state)?),
        }
    }
    if options.states.is_empty() {
        options.states = ["untuned", "tuned", "ours"].into_iter().map(State::parse).collect::<Result<_>>()?;
    }
    Ok(options)
}

/// Measures the states one after another and prints the result as Markdown.
pub(super) fn run(args: &[&str]) -> Result<()> {
    let options = options(args)?;
    let script = options.script.as_ref().map(fs::read_to_string).transpose().context("--try")?;
    step("image", image::get)?;
    let spin = step("busy loop", spin)?;
    let mut measured = Vec::new();
    let mut failed = Vec::new();
    for state in &options.states {
        match measure(state, options.seconds, script.as_deref(), &spin) {
            Ok(result) => measured.push(result),
            Err(error) => {
                eprintln!("    {}: {error:#}", state.label());
                failed.push(state.label());
            }
        }
    }
    print!("{}", table::report(&measured, &CpuSet::parse_list(ISOLATED)?, &CpuSet::parse_list(BUSY)?));
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("not measured: {}", failed.join(", ")),
    }
}

/// Boots one state and measures it under every load.
fn measure(state: &State, seconds: u64, script: Option<&str>, spin: &Path) -> Result<Measured> {
    let label = state.label();
    let host = step(&format!("{label}: boot"), || state.boot())?;
    host.put(spin, "/root/spin")?;
    host.write("/root/count.sh", COUNT.as_bytes())?;
    host.sh("chmod 755 /root/spin")?;
    if let Some(script) = script {
        host.write("/root/try.sh", script.as_bytes())?;
        host.sh("sh -e /root/try.sh")?;
    }
    let versions = host.sh(
        "echo \"Linux $(uname -r)\"; dpkg-query --show --showformat '${Package} ${Version}\\n' tuned irqbalance",
    )?;
    let mut samples = Vec::new();
    for load in Load::ALL {
        let sample = step(&format!("{label}: {}", load.title()), || count(&host, &label, load, seconds))?;
        samples.push((load, sample));
    }
    let versions = versions.trim().replace('\n', ", ");
    Ok(Measured { label, versions, command_line: host.read("/proc/cmdline")?, samples })
}

/// Builds the busy loop without any shared library: the host has another libc than this computer.
fn spin() -> Result<PathBuf> {
    let program = image::work().join("spin");
    fs::create_dir_all(image::work())?;
    let mut compile = Command::new("rustc");
    compile.current_dir(root()).args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o"]);
    run_command(compile.arg(&program).arg(root().join("packaging/xtask/src/bin/spin.rs")))?;
    Ok(program)
}

/// Counts for one load. What the host printed is kept in target/lab/noise.
fn count(host: &Host, label: &str, load: Load, seconds: u64) -> Result<Sample> {
    let isolated = CpuSet::parse_list(ISOLATED)?;
    let filter = |key: &str| -> String {
        let tests: Vec<String> = isolated.iter().map(|cpu| format!("{key}=={cpu}")).collect();
        tests.join("||")
    };
    let mask = isolated.to_mask();
    let settings = format!(
        "seconds={seconds}\npolicy={}\nbusy='{}'\nhousekeeping={HOUSEKEEPING}\nisolated_mask={mask}\n\
         on_target='{}'\non_cpu='{}'\non_sender='{}'\non_mask='target_mask&0x{mask}'\n",
        load.key(),
        BUSY.replace(',', " "),
        filter("target_cpu"),
        filter("cpu"),
        filter("CPU"),
    );
    host.write("/root/count.env", settings.as_bytes())?;
    let limit = Duration::from_secs(seconds + 300);
    let text = host.sh_within(limit, "cat /root/count.env /root/count.sh >/root/count && sh /root/count")?;
    let folder = image::work().join("noise");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{}-{}.txt", label.replace([' ', '/'], ""), load.key())), &text)?;
    sample::parse(&text, &isolated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_their_arguments() {
        let labels = |args: &[&str]| -> Vec<String> {
            options(args).unwrap().states.iter().map(State::label).collect()
        };
        assert_eq!(labels(&["--seconds", "5"]), ["untuned", "TuneD", "ours"]);
        assert_eq!(labels(&["ours", "ours+psi=0+quiet"]), ["ours", "ours + psi=0 + quiet"]);
        let error = |args: &[&str]| format!("{:#}", options(args).err().unwrap());
        assert_eq!(
            error(&["mine"]),
            "`mine` is no state: there are untuned, tuned and ours, as in `ours+psi=0`"
        );
        assert!(error(&["ours+a b"]).starts_with("`a b` is no kernel argument"));
        assert!(error(&["ours+$(x)"]).starts_with("`$(x)` is no kernel argument"));
        assert!(error(&["--seconds", "0"]).starts_with("`0` is not a number"));
        assert!(error(&["--fast"]).starts_with("`--fast` is no option"));
    }
}
