//! `cargo xtask lab latency`: how late an isolated processor is, in a machine in which time is a count of instructions. The
//! same tree gives the same figures on any computer, so that states, and single knobs, can be compared.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

mod machine;
mod report;

use super::noise::sample::parts;
use crate::shell::{output, step};
use machine::Machine;
use report::Measured;

/// How the machine is divided in ours; TuneD is told the same.
const PROFILE: &str = "\
[host]
housekeeping-cpus = \"0\"
boot-loader = \"manual\"
[host.hugepages]
size = \"2MiB\"
count = 8
";
/// How many periods of the i8254, of 838 ns each, the processors' turns and all deadlines of the clock are apart at most.
const TURN: u32 = 24;
/// Boots at once, unless told otherwise; the figures do not depend on it.
const JOBS: usize = 2;

/// How much later it begins in each further boot of the same, in microseconds: no part of a turn, of the load's timers or of a
/// tick.
const SHIFT: u64 = 1037;

/// Knobs whose files are there for another boot, or for devices that come later.
const FOR_LATER: [&str; 2] = ["services.boot-unit", "irq.new-devices"];

/// How the machine is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Untuned,
    Tuned,
    Ours,
}

impl Base {
    fn parse(text: &str) -> Result<Base> {
        Ok(match text {
            "untuned" => Base::Untuned,
            "tuned" => Base::Tuned,
            "ours" => Base::Ours,
            _ => bail!("`{text}` is no state: there are untuned, tuned and ours"),
        })
    }

    /// For the machine's first process, and in the names of folders.
    fn key(self) -> &'static str {
        match self {
            Base::Untuned => "untuned",
            Base::Tuned => "tuned",
            Base::Ours => "ours",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Base::Tuned => "TuneD",
            other => other.key(),
        }
    }
}

struct Options {
    seconds: u64,
    phases: u64,
    knobs: bool,
    jobs: usize,
    states: Vec<Base>,
}

fn options(args: &[&str]) -> Result<Options> {
    let mut options = Options { seconds: 1, phases: 1, knobs: false, jobs: JOBS, states: Vec::new() };
    let mut args = args.iter();
    while let Some(word) = args.next() {
        let mut number = |from: u64, to: u64| -> Result<u64> {
            let value = args.next().with_context(|| format!("{word} needs a number"))?;
            let number = value.parse().ok().filter(|number| (from..=to).contains(number));
            number.with_context(|| format!("`{value}` is not a number from {from} to {to}"))
        };
        match *word {
            "--seconds" => options.seconds = number(1, 600)?,
            "--phases" => options.phases = number(1, 64)?,
            "--jobs" => options.jobs = usize::try_from(number(1, 64)?)?,
            "--knobs" => options.knobs = true,
            option if option.starts_with('-') => {
                bail!("`{option}` is no option of `cargo xtask lab latency`")
            }
            state => options.states.push(Base::parse(state)?),
        }
    }
    if options.states.is_empty() {
        options.states = vec![Base::Untuned, Base::Tuned, Base::Ours];
    }
    if options.knobs && !options.states.contains(&Base::Ours) {
        options.states.push(Base::Ours);
    }
    Ok(options)
}

/// One boot that is measured.
struct Task {
    /// Its folder.
    name: String,
    /// What the tables call it.
    label: String,
    base: Base,
    /// The knobs that are kept as the machine has them.
    kept: Vec<String>,
    arguments: Vec<String>,
    /// How much later the measurement begins than in the first boot of this kind, in steps of [`SHIFT`].
    phase: u64,
}

/// Instructions in a second of virtual time.
pub(super) const INSTRUCTIONS: f64 = 125e6;

/// What the machine prints of the cost of each command of `cargo xtask lab speed`.
pub(super) fn speed(runs: usize) -> Result<String> {
    let machine = Machine::prepare()?;
    step("both, on one machine", || {
        machine.boot("speed", &format!("phase=speed\nruns={runs}\n"), PROFILE, &[])
    })
}

/// Measures the states, one of them twice, and prints the result as Markdown.
pub(super) fn run(args: &[&str]) -> Result<()> {
    let options = options(args)?;
    let machine = Machine::prepare()?;
    let probe = step("what the machine is, and what TuneD wants of its kernel", || probe(&machine))?;
    let tasks = tasks(&machine, &probe, &options)?;
    let results = measure(&machine, &tasks, &options);
    let mut measured = Vec::new();
    let mut failed = Vec::new();
    for (task, result) in tasks.iter().zip(results) {
        match result {
            Ok(result) => measured.push((task, result)),
            Err(error) => {
                eprintln!("    {}: {error:#}", task.label);
                failed.push(task.label.as_str());
            }
        }
    }
    let find = |name: &str| measured.iter().find(|(task, _)| task.name == name).map(|(_, result)| result);
    let mut states: Vec<(&str, Vec<&Measured>)> = Vec::new();
    for (task, result) in measured.iter().filter(|(task, _)| task.kept.is_empty() && task.name != AGAIN) {
        match states.iter_mut().find(|(label, _)| *label == task.label) {
            Some((_, phases)) => phases.push(result),
            None => states.push((task.label.as_str(), vec![result])),
        }
    }
    println!("{}, {} virtual seconds for each program.\n", machine.versions, options.seconds);
    if options.phases > 1 {
        println!("{}", report::maxima(&states));
    }
    let whole: Vec<Measured> = states.iter().map(|(_, phases)| report::together(phases)).collect();
    let whole: Vec<(&str, &Measured)> =
        states.iter().zip(&whole).map(|((label, _), all)| (*label, all)).collect();
    print!("{}", report::states(&whole));
    if let Some(whole) = find(Base::Ours.key()) {
        let without: Vec<(&str, &Measured)> = measured
            .iter()
            .filter(|(task, _)| !task.kept.is_empty())
            .map(|(task, result)| (task.label.as_str(), result))
            .collect();
        if !without.is_empty() {
            print!("\n{}", report::knobs(whole, &without));
        }
        if let Some(again) = find(AGAIN) {
            let differences = report::differences(whole, again);
            ensure!(
                differences.is_empty(),
                "ours was measured twice and differs: {}",
                differences.join("; ")
            );
            println!("\nOurs was measured twice: every figure is identical.");
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("not measured: {}", failed.join(", ")),
    }
}

/// The folder of the repetition.
const AGAIN: &str = "again";

/// What the boot before all others tells.
struct Probe {
    /// The machine as `rtkvm-tune capture` records it.
    capture: PathBuf,
    /// What TuneD adds to the kernel's line.
    tuned: Vec<String>,
}

fn probe(machine: &Machine) -> Result<Probe> {
    let text = machine.boot("probe", "phase=probe\n", PROFILE, &[])?;
    let parts = parts(&text);
    let part = |name: &str| parts.get(name).copied().with_context(|| format!("no `{name}` was printed"));
    let capture = machine.folder("probe").join("machine.capture");
    fs::write(&capture, part("capture")?)?;
    let line = part("bootcmdline")?.lines().find_map(|line| line.strip_prefix("TUNED_BOOT_CMDLINE="));
    let line = line.context("TuneD wrote no kernel arguments: see target/lab/latency/probe/record")?;
    let tuned: Vec<String> = line.trim_matches('"').split_whitespace().map(str::to_owned).collect();
    ensure!(!tuned.is_empty(), "TuneD wants no kernel arguments: see target/lab/latency/probe/record");
    Ok(Probe { capture, tuned })
}

fn tasks(machine: &Machine, probe: &Probe, options: &Options) -> Result<Vec<Task>> {
    let task = |name: &str, label: &str, base: Base, kept: &[String]| -> Result<Task> {
        let arguments = match base {
            Base::Untuned => Vec::new(),
            Base::Tuned => probe.tuned.clone(),
            Base::Ours => arguments(&plan(machine, probe, kept)?),
        };
        let (name, label, kept) = (name.to_owned(), label.to_owned(), kept.to_vec());
        Ok(Task { name, label, base, kept, arguments, phase: 0 })
    };
    let mut tasks = Vec::new();
    for base in &options.states {
        tasks.push(task(base.key(), base.title(), *base, &[])?);
        for phase in 1..options.phases {
            let name = format!("{}-{phase}", base.key());
            tasks.push(Task { phase, ..task(&name, base.title(), *base, &[])? });
        }
    }
    if options.states.contains(&Base::Ours) {
        tasks.push(task(AGAIN, "ours, again", Base::Ours, &[])?);
    }
    if options.knobs {
        for kept in groups(&plan(machine, probe, &[])?) {
            let name = format!("without-{}", kept.join("-"));
            tasks.push(task(&name, &kept.join(", "), Base::Ours, &kept)?);
        }
    }
    Ok(tasks)
}

/// The profile of ours but for the knobs that are kept.
fn profile(kept: &[String]) -> String {
    let lines: String = kept.iter().map(|knob| format!("\"{knob}\" = \"keep\"\n")).collect();
    format!("{PROFILE}[knobs]\n{lines}")
}

/// What ours would change on the machine as it is: the items of the plan.
fn plan(machine: &Machine, probe: &Probe, kept: &[String]) -> Result<Vec<Value>> {
    let file = probe.capture.with_extension("toml");
    fs::write(&file, profile(kept))?;
    let mut apply = Command::new(&machine.program);
    apply.args(["apply", "--dry-run", "--format", "json", "--root"]).arg(&probe.capture).arg(&file);
    let plan: Value = serde_json::from_str(&output(&mut apply)?)?;
    let items = plan["plan"]["items"].as_array().context("the plan has no items")?;
    Ok(items.clone())
}

/// What the operator would write on the kernel's line.
fn arguments(items: &[Value]) -> Vec<String> {
    let by_hand = |item: &&Value| item["reach"] == "reboot" && item["state"] == "by-hand";
    let words = items.iter().filter(by_hand).filter_map(|item| item["wanted"].as_str());
    words.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// The knobs that change something on this machine. Two that set the same, one at boot and one at once, are left out
/// together: each alone would be made good by the other.
fn groups(items: &[Value]) -> Vec<Vec<String>> {
    let acts = |item: &&Value| {
        item["reach"] != "check"
            && ["by-hand", "differs", "missing"].iter().any(|state| item["state"] == *state)
    };
    let mut seen = BTreeSet::new();
    let knobs: Vec<&str> = items
        .iter()
        .filter(acts)
        .filter_map(|item| item["knob"].as_str())
        .filter(|knob| !FOR_LATER.contains(knob) && seen.insert(*knob))
        .collect();
    let stem = |knob: &str| knob.strip_suffix("-boot").unwrap_or(knob).to_owned();
    let mut stems: Vec<String> = Vec::new();
    for knob in &knobs {
        if !stems.contains(&stem(knob)) {
            stems.push(stem(knob));
        }
    }
    let group =
        |name: &String| knobs.iter().filter(|knob| stem(knob) == *name).map(|k| (*k).to_owned()).collect();
    stems.iter().map(group).collect()
}

/// Boots every task, some at once, in the order of the tasks.
fn measure(machine: &Machine, tasks: &[Task], options: &Options) -> Vec<Result<Measured>> {
    let next = Mutex::new(tasks.iter().enumerate());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some((at, task)) = next.lock().ok().and_then(|mut next| next.next()) {
                    let result = step(&task.label, || one(machine, task, options.seconds));
                    if let Ok(mut done) = done.lock() {
                        done.push((at, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

fn one(machine: &Machine, task: &Task, seconds: u64) -> Result<Measured> {
    let (base, shift) = (task.base.key(), 500_000 + SHIFT * task.phase);
    let state = format!("phase=measure\nbase={base}\nseconds={seconds}\nturn={TURN}\nshift=0.{shift:06}\n");
    let text = machine.boot(&task.name, &state, &profile(&task.kept), &task.arguments)?;
    let measured = report::parse(&text)?;
    let line: Vec<&str> = measured.command_line.split_whitespace().collect();
    let missing = task.arguments.iter().find(|word| !line.contains(&word.as_str()));
    ensure!(missing.is_none(), "the kernel was not given `{}`", missing.map_or("", String::as_str));
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_and_what_is_none() {
        let options = |args: &[&str]| options(args);
        let all = options(&["--seconds", "5", "--jobs", "1"]).unwrap();
        assert_eq!((all.seconds, all.knobs, all.jobs, all.states.len()), (5, false, 1, 3));
        assert_eq!(options(&["--knobs", "tuned"]).unwrap().states, [Base::Tuned, Base::Ours]);
        let error = |args: &[&str]| format!("{:#}", options(args).err().unwrap());
        assert_eq!(error(&["mine"]), "`mine` is no state: there are untuned, tuned and ours");
        assert_eq!(error(&["--seconds", "0"]), "`0` is not a number from 1 to 600");
        assert_eq!(error(&["--fast"]), "`--fast` is no option of `cargo xtask lab latency`");
    }

    #[test]
    fn arguments_and_knobs_come_out_of_the_plan() {
        let item = |knob: &str, reach: &str, state: &str, wanted: &str| json!({"knob": knob, "reach": reach, "state": state, "wanted": wanted});
        let items = [
            item("cpu.nohz", "reboot", "by-hand", "nohz=on"),
            item("memory.hugepages-boot", "reboot", "by-hand", "hugepagesz=2M hugepages=8"),
            item("cpu.tsc", "reboot", "not-applicable", "tsc=reliable"),
            item("memory.hugepages", "live", "differs", "8"),
            item("irq.affinity", "live", "differs", "0"),
            item("irq.affinity", "live", "differs", "0"),
            item("memory.ksm", "live", "in-line", "0"),
            item("check.kvm", "check", "by-hand", "/dev/kvm"),
            item("services.boot-unit", "live", "missing", ""),
        ];
        assert_eq!(arguments(&items), ["nohz=on", "hugepagesz=2M", "hugepages=8"]);
        let expected =
            [vec!["cpu.nohz"], vec!["memory.hugepages-boot", "memory.hugepages"], vec!["irq.affinity"]];
        assert_eq!(groups(&items), expected);
        assert!(profile(&["cpu.nohz".to_owned()]).ends_with("[knobs]\n\"cpu.nohz\" = \"keep\"\n"));
    }
}
