//! `cargo xtask bench`: what a dry run costs, next to a program that only reads the same files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, line, need, output, root, run as run_command, step};

mod tree;

use tree::Tree;

/// What the project aims for.
const BINARY_MIB: f64 = 6.0;
const HELP_MS: f64 = 5.0;
/// The machines that show growth; the last is the largest one that is supported.
const SIZES: [u32; 3] = [256, 512, 1024];

/// Prints what was measured. Nothing here fails for being slow.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["--keep", folder] => return keep(Path::new(folder)),
        _ => bail!("`{}` is not an option of `cargo xtask bench`: it takes --keep DIR alone", args.join(" ")),
    }
    need(&["strace"])?;
    step("release build", || {
        let packages = ["--package", "rtkvm-tune", "--package", "xtask"];
        let programs = ["--bin", "rtkvm-tune", "--bin", "floor", "--bin", "measure"];
        run_command(cargo().args(["build", "--quiet", "--locked", "--release"]).args(packages).args(programs))
    })?;
    let programs = Programs { folder: root().join("target/release") };
    let mut costs =
        vec![programs.compare("reference", &root().join("tests/captures/reference.capture"), None)?];
    for cpus in SIZES {
        let tree = step(&format!("machine of {cpus} CPUs"), || Tree::grow(cpus))?;
        costs.push(programs.compare(&format!("{cpus} CPUs"), &tree.folder, Some(&tree.folder))?);
    }
    print(&costs);
    let size = fs::metadata(programs.path("rtkvm-tune"))?.len() as f64 / f64::from(1 << 20);
    println!("\nrelease binary     {size:6.2} MiB   aim: at most {BINARY_MIB} MiB");
    let help = programs.measure(21, &["rtkvm-tune", "--help"])?;
    println!("--help, CPU time   {:6.2} ms    aim: at most {HELP_MS} ms", millis(help.cpu));
    Ok(())
}

/// Makes the largest machine and leaves it, for a profiler.
fn keep(folder: &Path) -> Result<()> {
    let mut tree = Tree::grow(SIZES[SIZES.len() - 1])?;
    fs::rename(&tree.folder, folder).with_context(|| format!("cannot move it to {}", folder.display()))?;
    tree.kept = true;
    Ok(())
}

struct Programs {
    folder: PathBuf,
}

/// One program's run: medians of several.
struct Cost {
    wall: Duration,
    cpu: Duration,
    /// Peak resident memory in KiB.
    memory: u64,
    /// System calls; 0 where they were not counted.
    calls: u64,
}

/// A dry run, and where it reads a folder the floor of it.
struct Comparison {
    name: String,
    dry_run: Cost,
    floor: Option<Cost>,
    files: usize,
    most_opened: usize,
}

impl Programs {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn compare(&self, name: &str, machine: &Path, folder: Option<&Path>) -> Result<Comparison> {
        eprintln!("==> measuring {name}");
        let machine = machine.to_str().context("the folder's name is not UTF-8")?;
        let profile = root().join("profiles/kvm-realtime.toml");
        let profile = profile.to_str().context("the folder's name is not UTF-8")?;
        let dry_run = ["rtkvm-tune", "apply", "--dry-run", "--root", machine, profile];
        let cost = self.cost(&dry_run)?;
        let Some(folder) = folder else {
            return Ok(Comparison {
                name: name.into(),
                dry_run: cost,
                floor: None,
                files: 1,
                most_opened: 1,
            });
        };
        let opened = self.opened(&dry_run, folder)?;
        let list = folder.with_extension("files");
        fs::write(&list, opened.keys().map(|path| format!("{path}\n")).collect::<String>())?;
        let floor = self.cost(&["floor", &list.to_string_lossy()]);
        fs::remove_file(&list)?;
        let most_opened = opened.values().copied().max().unwrap_or(0);
        Ok(Comparison {
            name: name.into(),
            dry_run: cost,
            floor: Some(floor?),
            files: opened.len(),
            most_opened,
        })
    }

    fn cost(&self, words: &[&str]) -> Result<Cost> {
        // The first run warms the page cache; it is not the median of nine.
        let mut cost = self.measure(9, words)?;
        let counts = self.strace(&["-c"], words)?;
        let total =
            counts.lines().rfind(|line| line.ends_with(" total")).context("strace counted nothing")?;
        cost.calls =
            total.split_whitespace().nth(3).context("no count")?.parse().context("strace's total")?;
        Ok(cost)
    }

    fn measure(&self, runs: u32, words: &[&str]) -> Result<Cost> {
        let mut command = Command::new(self.path("measure"));
        command.arg(runs.to_string()).arg(self.path(words[0])).args(&words[1..]);
        let text = output(&mut command)?;
        let (mut wall, mut cpu, mut memory) = (Vec::new(), Vec::new(), 0);
        for run in text.lines() {
            let numbers = run.split(' ').map(str::parse).collect::<Result<Vec<i64>, _>>()?;
            let [status, wall_us, cpu_us, peak] = numbers[..] else { bail!("measure printed `{run}`") };
            if status != 0 {
                bail!("`{}` ended with status {status}", line(&command));
            }
            wall.push(Duration::from_micros(wall_us.unsigned_abs()));
            cpu.push(Duration::from_micros(cpu_us.unsigned_abs()));
            memory = peak.unsigned_abs();
        }
        Ok(Cost { wall: median(wall), cpu: median(cpu), memory, calls: 0 })
    }

    /// What strace writes about a run.
    fn strace(&self, options: &[&str], words: &[&str]) -> Result<String> {
        let log = std::env::temp_dir().join(format!("rtkvm-tune-bench-{}.strace", std::process::id()));
        let mut command = Command::new("strace");
        command.arg("-f").args(options).arg("-o").arg(&log).arg(self.path(words[0])).args(&words[1..]);
        let result = output(&mut command).and_then(|_| Ok(fs::read(&log)?));
        // It is not there when strace could not start.
        let _ = fs::remove_file(&log);
        Ok(String::from_utf8_lossy(&result?).into_owned())
    }

    /// How often each regular file under `folder` was opened.
    fn opened(&self, words: &[&str], folder: &Path) -> Result<BTreeMap<String, usize>> {
        let log = self.strace(&["-y", "-e", "trace=open,openat,openat2"], words)?;
        let mut opened: BTreeMap<String, usize> = BTreeMap::new();
        for path in log.lines().filter_map(opened_path) {
            if Path::new(path).starts_with(folder) && Path::new(path).is_file() {
                *opened.entry(path.to_owned()).or_default() += 1;
            }
        }
        match opened.is_empty() {
            false => Ok(opened),
            true => bail!("strace saw no file of {} opened", folder.display()),
        }
    }
}

/// The path after the result of a successful call, as in `openat2(3</tmp>, "a", ...) = 4</tmp/a>`.
fn opened_path(line: &str) -> Option<&str> {
    let (_, result) = line.rsplit_once(" = ")?;
    let (number, path) = result.split_once('<')?;
    number.parse::<u32>().ok()?;
    path.strip_suffix('>')
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn print(costs: &[Comparison]) {
    println!("\n`apply --dry-run`, a new process each time, page cache warm; medians of 9 runs.");
    println!("Ratios are to a program that opens and reads the same files once and does nothing else.\n");
    println!(
        "{:10} {:>7} {:>6} {:>10} {:>6} {:>9} {:>10} {:>6} {:>8} {:>6} {:>10} {:>6}",
        "machine",
        "files",
        "opens",
        "wall ms",
        "ratio",
        "us/file",
        "CPU ms",
        "ratio",
        "calls",
        "ratio",
        "memory KiB",
        "ratio"
    );
    for cost in costs {
        let floor = cost.floor.as_ref();
        let ratio = |of: &dyn Fn(&Cost) -> f64| match floor {
            Some(floor) => format!("{:.2}", of(&cost.dry_run) / of(floor)),
            None => "-".to_owned(),
        };
        let run = &cost.dry_run;
        println!(
            "{:10} {:>7} {:>6} {:>10.2} {:>6} {:>9.2} {:>10.2} {:>6} {:>8} {:>6} {:>10} {:>6}",
            cost.name,
            cost.files,
            cost.most_opened,
            millis(run.wall),
            ratio(&|cost| cost.wall.as_secs_f64()),
            run.wall.as_secs_f64() * 1e6 / cost.files as f64,
            millis(run.cpu),
            ratio(&|cost| cost.cpu.as_secs_f64()),
            run.calls,
            ratio(&|cost| cost.calls as f64),
            run.memory,
            ratio(&|cost| cost.memory as f64),
        );
    }
    println!("\nopens: how often the file that is opened most is opened; aim: 1. us/file: aim: no growth.");
}

#[cfg(test)]
mod tests {
    use super::opened_path;

    #[test]
    fn opened_files_are_read_from_strace() {
        let line = r#"openat2(3</tmp/x>, "proc", {flags=O_RDONLY|O_CLOEXEC}, 24) = 4</tmp/x/proc>"#;
        assert_eq!(opened_path(line), Some("/tmp/x/proc"));
        assert_eq!(opened_path(r#"openat(AT_FDCWD</>, "x", O_RDONLY) = -1 ENOENT (No such file)"#), None);
    }
}
