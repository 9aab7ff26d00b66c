//! The lab must never take the memory of the computer it runs on.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How many machines may run at once.
pub(crate) const MACHINES: usize = 2;
/// The most that one machine may have, in MiB: 14 GiB for all.
const MOST: u64 = 7 * 1024;
/// What became of a machine that had more.
pub(crate) const EXCESS: &str = "it was killed, because it took more than 7 GiB of this computer's memory";

/// Makes it the first process that the kernel ends when memory runs out.
pub(crate) fn sacrifice(pid: Pid) -> Result<()> {
    fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").context("oom_score_adj of QEMU")
}

/// A size of /proc/PID/status in MiB; 0 when there is none.
pub(crate) fn of(pid: Pid, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Looks at a machine's memory for as long as this value lives, and kills it when it has too much.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    killed: Arc<AtomicBool>,
}

impl Watch {
    /// Watches a child of this process, whose PID is its own until this process has waited for it.
    pub(crate) fn start(pid: Pid) -> Watch {
        let watch = Watch { over: Arc::default(), killed: Arc::default() };
        let (over, killed) = (Arc::clone(&watch.over), Arc::clone(&watch.killed));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if of(pid, "VmRSS") > MOST {
                    killed.store(true, Ordering::Relaxed);
                    let _ = kill(pid, Signal::SIGKILL);
                    return;
                }
                thread::sleep(Duration::from_millis(250));
            }
        });
        watch
    }

    /// Whether it had to be killed.
    pub(crate) fn killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
