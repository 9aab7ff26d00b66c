//! Measures a program for `cargo xtask bench`. It is a program of its own because a child's peak memory
//! counts from that of the process it was started by, and this one is small.
//!
//! `measure RUNS PROGRAM ARGUMENT...` prints a line for each run: exit status, wall time and CPU time in
//! microseconds, and the peak memory of all runs so far in KiB.

use std::io::Error;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

fn main() -> Result<(), Error> {
    let usage = || Error::other("usage: measure RUNS PROGRAM ARGUMENT...");
    let mut args = std::env::args_os().skip(1);
    let runs = args.next().and_then(|runs| runs.to_str()?.parse::<u32>().ok()).ok_or_else(usage)?;
    let mut command = Command::new(args.next().ok_or_else(usage)?);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    let mut before = 0;
    for _ in 0..runs {
        let start = Instant::now();
        let status = command.status()?;
        let wall = start.elapsed().as_micros();
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let micros =
            [usage.user_time(), usage.system_time()].map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
        let cpu = micros[0] + micros[1];
        println!("{} {wall} {} {}", status.code().unwrap_or(-1), cpu - before, usage.max_rss());
        before = cpu;
    }
    Ok(())
}
