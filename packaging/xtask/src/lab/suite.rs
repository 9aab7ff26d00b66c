//! The tests of tests/lab, two at once: one emulated host keeps one processor busy.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::{Host, host, image, memory, tests};
use crate::shell::{seconds, step};

/// A test on a host that is shared: its name and what it does.
type Part = (&'static str, fn(&Host) -> Result<()>);

/// What runs by itself, in a thread with the name that goes with it, which is also where its host has its files.
pub(crate) enum Work {
    /// One test, which boots what it needs.
    Alone(fn() -> Result<()>),
    /// Tests that can follow each other on the host that this boots. After one that failed the next has a new one.
    Shared(fn() -> Result<Host>, &'static [Part]),
}

/// A name and what to do.
pub(crate) type Job = (&'static str, Work);

/// What became of a test.
struct Outcome {
    name: &'static str,
    time: Duration,
    passed: bool,
}

/// The names of the tests of a job that contain `filter`.
fn chosen((name, work): &Job, filter: &str) -> Vec<&'static str> {
    let names: Vec<&str> = match work {
        Work::Alone(_) => vec![*name],
        Work::Shared(_, parts) => parts.iter().map(|(name, _)| *name).collect(),
    };
    names.into_iter().filter(|name| name.contains(filter)).collect()
}

/// What has to run for `filter`, a part of the tests' names, or the whole name of a long one. Without it, and unless
/// `all` is asked for, those with the most to say.
fn queue(filter: &str, all: bool) -> Vec<&'static Job> {
    let more = if filter.is_empty() && !all { &[] } else { tests::MORE };
    let usual = tests::TESTS.iter().chain(more).filter(|job| !chosen(job, filter).is_empty());
    usual.chain(tests::LONG.iter().filter(|job| job.0 == filter)).collect()
}

/// `cargo xtask lab test` with these arguments.
///
/// # Errors
/// As `run`, or an argument is wrong.
pub(super) fn command(mut args: &[&str]) -> Result<()> {
    let mut jobs = memory::MACHINES;
    let mut all = false;
    loop {
        args = match args {
            [] => return run("", all, jobs),
            ["--jobs", number, rest @ ..] => {
                jobs = number.parse().context("--jobs needs a number")?;
                rest
            }
            ["--all", rest @ ..] => {
                all = true;
                rest
            }
            [filter] if !filter.starts_with('-') => return run(filter, all, jobs),
            [other, ..] => {
                bail!("`{other}` is no option: there are --jobs N, --all and one FILTER at the end")
            }
        }
    }
}

/// Whether there is a test for `filter`.
pub(super) fn has(filter: &str) -> bool {
    !queue(filter, false).is_empty()
}

/// Runs the tests whose names contain `filter`, `jobs` at once, and prints how long each took.
///
/// # Errors
/// A test failed, none has such a name, or more would run at once than this computer's memory is shared out among.
pub(super) fn run(filter: &str, all: bool, jobs: usize) -> Result<()> {
    let queue = queue(filter, all);
    if queue.is_empty() {
        let every = tests::TESTS.iter().chain(tests::MORE).chain(tests::LONG);
        let names: Vec<&str> = every.flat_map(|job| chosen(job, "")).collect();
        bail!("no test is called `{filter}`: there are {}", names.join(", "));
    }
    if !(1..=memory::MACHINES).contains(&jobs) {
        bail!("--jobs {jobs}: from 1 to {}", memory::MACHINES);
    }
    let start = Instant::now();
    // The image is the work of one processor, mostly.
    thread::scope(|scope| {
        let package = scope.spawn(|| step("package", host::package));
        step("image", image::get)?;
        package.join().map_err(|_| anyhow!("the package's thread panicked"))?
    })?;
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    // A thread for each job: QEMU ends with it.
    let work = || {
        while let Some(job) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = thread::scope(|scope| {
                let thread = thread::Builder::new().name(job.0.to_owned());
                let running = thread.spawn_scoped(scope, || one(job, filter)).context("no thread")?;
                running.join().map_err(|_| anyhow!("the test's thread panicked"))
            });
            outcomes.lock().expect("no test runs under this lock").push(outcome);
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let outcomes = outcomes.into_inner().expect("no test ran under this lock");
    let outcomes: Vec<Outcome> =
        outcomes.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    for outcome in &outcomes {
        let verdict = if outcome.passed { "ok" } else { "FAILED" };
        eprintln!("{:>8}  {verdict:6}  {}", seconds(outcome.time), outcome.name);
    }
    let failed: Vec<&str> =
        outcomes.iter().filter(|outcome| !outcome.passed).map(|outcome| outcome.name).collect();
    eprintln!(
        "{} of {} passed in {}",
        outcomes.len() - failed.len(),
        outcomes.len(),
        seconds(start.elapsed())
    );
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("failed: {}", failed.join(", ")),
    }
}

/// Runs the chosen tests of a job. The first on a host that is shared has the time of its boot.
fn one((name, work): &Job, filter: &str) -> Vec<Outcome> {
    let (boot, parts) = match work {
        Work::Alone(test) => return vec![timed(name, test)],
        Work::Shared(boot, parts) => (boot, parts),
    };
    let mut shared: Option<Host> = None;
    let mut outcomes = Vec::new();
    for (name, test) in parts.iter().filter(|(name, _)| name.contains(filter)) {
        let outcome = timed(name, || {
            let host = match shared.take() {
                Some(host) => host,
                None => boot()?,
            };
            test(&host)?;
            shared = Some(host);
            Ok(())
        });
        outcomes.push(outcome);
    }
    outcomes
}

fn timed(name: &'static str, test: impl FnOnce() -> Result<()>) -> Outcome {
    let start = Instant::now();
    let result = step(name, || match catch_unwind(AssertUnwindSafe(test)) {
        Ok(result) => result,
        // The panic has printed its message.
        Err(_) => Err(anyhow!("it panicked")),
    });
    if let Err(error) = &result {
        eprintln!("    {name}: {error:#}");
    }
    Outcome { name, time: start.elapsed(), passed: result.is_ok() }
}
