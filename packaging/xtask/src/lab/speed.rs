//! `cargo xtask lab speed`: what an audit and an apply that finds everything in line cost, next to TuneD's on the same machine:
//! in instructions, and in the time of an emulated Debian host.

use anyhow::{Context, Result, bail, ensure};

use super::latency;
use super::{Host, image};
use crate::shell::step;

const SCRIPT: &str = include_str!("speed.py");
/// How often each command runs; the middle one is shown.
const RUNS: usize = 5;
const PROFILE: &str = "profiles/kvm-realtime.toml";
/// The process that works for `tuned-adm`.
const DAEMON: &str = "/run/tuned/tuned.pid";

/// One command of a side: what it is shown as, whose daemon works for it, what is run, and how it may end.
struct Task {
    title: &'static str,
    daemon: &'static str,
    command: &'static str,
    statuses: &'static [i32],
}

const TASKS: [Task; 4] = [
    Task {
        title: "rtkvm-tune verify",
        daemon: "-",
        command: "rtkvm-tune verify /root/profiles/profiles/kvm-realtime.toml",
        // Nothing but a boot is missing.
        statuses: &[0, 3],
    },
    Task {
        title: "rtkvm-tune apply",
        daemon: "-",
        command: "rtkvm-tune apply /root/profiles/profiles/kvm-realtime.toml",
        statuses: &[0],
    },
    // It finds differences on a host that it has tuned itself.
    Task { title: "tuned-adm verify", daemon: DAEMON, command: "tuned-adm verify", statuses: &[0, 1] },
    Task {
        title: "tuned-adm profile",
        daemon: DAEMON,
        command: "tuned-adm profile realtime-virtual-host",
        statuses: &[0],
    },
];

/// What a run took: seconds, seconds of a processor, MiB at most.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
    memory: f64,
}

/// Measures in both ways, or in the one that is named, and prints the tables.
pub(super) fn run(args: &[&str]) -> Result<()> {
    let (instructions, host) = match args {
        [] => (true, true),
        ["instructions"] => (true, false),
        ["host"] => (false, true),
        [other, ..] => bail!("`{other}` is no way to measure: there are instructions and host"),
    };
    if instructions {
        let costs = in_instructions()?;
        println!("In the machine that counts instructions, 2 CPUs:\n");
        println!("| the middle of {RUNS} runs | million instructions | MiB at most |\n|---|---|---|");
        for (task, cost) in TASKS.iter().zip(&costs) {
            let millions = cost.cpu * latency::INSTRUCTIONS / 1e6;
            println!("| `{}` | {millions:.1} | {:.1} |", task.title, cost.memory);
        }
        ratios(&costs, "instructions");
    }
    if host {
        let costs = on_a_host()?;
        println!("\nOn an emulated Debian host, 16 CPUs:\n");
        println!("| the middle of {RUNS} runs | s | s of a processor | MiB at most |\n|---|---|---|---|");
        for (task, cost) in TASKS.iter().zip(&costs) {
            println!("| `{}` | {:.2} | {:.3} | {:.1} |", task.title, cost.wall, cost.cpu, cost.memory);
        }
        ratios(&costs, "processor time");
    }
    Ok(())
}

fn ratios(costs: &[Cost], of: &str) {
    for (what, ours, theirs) in [("audit", costs[0], costs[2]), ("second apply", costs[1], costs[3])] {
        println!("\nTuneD's {what} takes {:.1} times the {of}", theirs.cpu / ours.cpu);
    }
}

/// An instruction takes the same time there whatever it is. Elsewhere under emulation, code that runs once costs most, since
/// it is translated first, and a short program has little else.
fn in_instructions() -> Result<Vec<Cost>> {
    let text = latency::speed(RUNS)?;
    let parts = super::noise::sample::parts(&text);
    let part = |name: &str| parts.get(name).copied().with_context(|| format!("no `{name}` was printed"));
    for name in ["apply", "adm"] {
        let said = part(name)?;
        let done = said.lines().filter(|line| line.starts_with("status ")).all(|line| line == "status 0");
        ensure!(done, "setting the machine up failed: {said}");
    }
    let cost = |task: &Task, statuses| {
        let text = part(task.title)?;
        let runs = text.strip_suffix("status 0\n").with_context(|| format!("{}: {text}", task.title))?;
        middle(runs, &Task { statuses, ..*task })
    };
    // The profile leaves the kernel's arguments to the operator: the audit misses them.
    let [verify, others @ ..] = &TASKS;
    let others = others.iter().map(|task| cost(task, task.statuses));
    [cost(verify, &[1])].into_iter().chain(others).collect()
}

fn on_a_host() -> Result<Vec<Cost>> {
    step("image", image::get)?;
    // Ours is measured where it has just set everything, as TuneD is.
    let host = step("boot", || Host::boot("reference"))?;
    host.put_program()?;
    host.write("/root/speed.py", SCRIPT.as_bytes())?;
    host.sh("systemctl stop irqbalance")?;
    step("apply", || host.apply(PROFILE)?.expect(0))?;
    let mut costs = TASKS[..2].iter().map(|task| measure(&host, task)).collect::<Result<Vec<_>>>()?;
    step("revert", || host.sh("rtkvm-tune revert"))?;
    step("tuned-adm profile", || {
        let variables = "/etc/tuned/realtime-virtual-host-variables.conf";
        host.sh(&format!("sed -i 's/^isolated_cores=.*/isolated_cores=2-7,10-15/' {variables}"))?;
        host.sh("systemctl start tuned && tuned-adm profile realtime-virtual-host")
    })?;
    for task in &TASKS[2..] {
        costs.push(measure(&host, task)?);
    }
    Ok(costs)
}

fn measure(host: &Host, task: &Task) -> Result<Cost> {
    let text = step(task.title, || {
        host.sh(&format!("python3 /root/speed.py {} {RUNS} {}", task.daemon, task.command))
    })?;
    middle(&text, task)
}

/// The middle one of the script's runs.
fn middle(text: &str, task: &Task) -> Result<Cost> {
    let mut costs = text.lines().map(|line| cost(line, task)).collect::<Result<Vec<Cost>>>()?;
    ensure!(costs.len() == RUNS, "{} of {RUNS} runs: {text}", costs.len());
    costs.sort_by(|one, other| one.cpu.total_cmp(&other.cpu));
    Ok(costs[RUNS / 2])
}

/// A line of the script.
fn cost(line: &str, task: &Task) -> Result<Cost> {
    let mut words = line.split(' ');
    let status: i32 = words.next().context("no status")?.parse()?;
    ensure!(task.statuses.contains(&status), "`{}` ended with {status}", task.command);
    let mut number = || -> Result<f64> { Ok(words.next().context("too few numbers")?.parse()?) };
    Ok(Cost { wall: number()?, cpu: number()?, memory: number()? / 1024.0 })
}
