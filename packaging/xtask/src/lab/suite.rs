//! The tests of tests/lab, two at once: one emulated host keeps one processor busy.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::{Test, image, memory, tests};
use crate::shell::{seconds, step};

/// What became of a test.
struct Outcome {
    name: &'static str,
    time: Duration,
    passed: bool,
}

/// Runs the tests whose names contain `filter`, `jobs` at once, and prints how long each took.
///
/// # Errors
/// A test failed, none has such a name, or more would run at once than this computer's memory is shared out among.
pub(super) fn run(filter: &str, jobs: usize) -> Result<()> {
    let chosen: Vec<&Test> = tests::TESTS.iter().filter(|(name, _)| name.contains(filter)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = tests::TESTS.iter().map(|(name, _)| *name).collect();
        bail!("no test is called `{filter}`: there are {}", names.join(", "));
    }
    if !(1..=memory::MACHINES).contains(&jobs) {
        bail!("--jobs {jobs}: from 1 to {}", memory::MACHINES);
    }
    let start = Instant::now();
    step("image", image::get)?;
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    // A thread for each test, with its name, which is also where its host has its files. QEMU ends with it.
    let work = || {
        while let Some((name, test)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = thread::scope(|scope| {
                let thread = thread::Builder::new().name((*name).to_owned());
                let running = thread.spawn_scoped(scope, || one(name, *test)).context("no thread")?;
                running.join().map_err(|_| anyhow!("the test's thread panicked"))
            });
            outcomes.lock().expect("no test runs under this lock").push(outcome);
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let outcomes: Vec<Outcome> =
        outcomes.into_inner().expect("no test ran under this lock").into_iter().collect::<Result<_>>()?;
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

fn one(name: &'static str, test: fn() -> Result<()>) -> Outcome {
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
