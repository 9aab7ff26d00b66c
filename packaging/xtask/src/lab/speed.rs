//! `cargo xtask lab speed`: what an audit and an apply that finds everything in line cost, next to TuneD's on the same host.

use anyhow::{Context, Result, ensure};

use super::{Host, image};
use crate::shell::step;

const SCRIPT: &str = include_str!("speed.py");
/// How often each command runs; the middle one is shown.
const RUNS: usize = 5;
const PROFILE: &str = "profiles/kvm-realtime.toml";

/// One command of a side: what it is shown as, whose daemon works for it, what is run, and how it may end.
struct Task {
    title: &'static str,
    unit: &'static str,
    command: &'static str,
    statuses: &'static [i32],
}

const OURS: [Task; 2] = [
    Task {
        title: "rtkvm-tune verify",
        unit: "-",
        command: "rtkvm-tune verify /root/profiles/profiles/kvm-realtime.toml",
        // Nothing but a boot is missing.
        statuses: &[0, 3],
    },
    Task {
        title: "rtkvm-tune apply, all in line",
        unit: "-",
        command: "rtkvm-tune apply /root/profiles/profiles/kvm-realtime.toml",
        statuses: &[0],
    },
];
const THEIRS: [Task; 2] = [
    // It finds differences on a host that it has tuned itself.
    Task { title: "tuned-adm verify", unit: "tuned", command: "tuned-adm verify", statuses: &[0, 1] },
    Task {
        title: "tuned-adm profile, the active one",
        unit: "tuned",
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

/// Measures both on one host and prints the table.
pub(super) fn run() -> Result<()> {
    step("image", image::get)?;
    // Ours is measured where it has just set everything, as TuneD is.
    let host = step("boot", || Host::boot("reference"))?;
    host.put_program()?;
    host.write("/root/speed.py", SCRIPT.as_bytes())?;
    host.sh("systemctl stop irqbalance")?;
    step("apply", || host.apply(PROFILE)?.expect(0))?;
    let ours = OURS.iter().map(|task| measure(&host, task)).collect::<Result<Vec<_>>>()?;
    step("revert", || host.sh("rtkvm-tune revert"))?;
    step("tuned-adm profile", || {
        let variables = "/etc/tuned/realtime-virtual-host-variables.conf";
        host.sh(&format!("sed -i 's/^isolated_cores=.*/isolated_cores=2-7,10-15/' {variables}"))?;
        host.sh("systemctl start tuned && tuned-adm profile realtime-virtual-host")
    })?;
    let theirs = THEIRS.iter().map(|task| measure(&host, task)).collect::<Result<Vec<_>>>()?;

    println!("| the middle of {RUNS} runs | s | s of a processor | MiB at most |\n|---|---|---|---|");
    for (task, cost) in OURS.iter().zip(&ours).chain(THEIRS.iter().zip(&theirs)) {
        println!("| `{}` | {:.2} | {:.3} | {:.1} |", task.title, cost.wall, cost.cpu, cost.memory);
    }
    for (what, ours, theirs) in [("audit", ours[0], theirs[0]), ("second apply", ours[1], theirs[1])] {
        println!("\nTuneD's {what} takes {:.0} times the processor time", theirs.cpu / ours.cpu);
    }
    Ok(())
}

fn measure(host: &Host, task: &Task) -> Result<Cost> {
    let text = step(task.title, || {
        host.sh(&format!("python3 /root/speed.py {} {RUNS} {}", task.unit, task.command))
    })?;
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
