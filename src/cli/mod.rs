//! Layer 7: the command line. One file per verb; data on standard output, everything else on standard error.

mod args;
mod capture;
mod inspect;
mod style;

use args::{Args, Verb};
use clap::Parser;

/// What a command ends in: its exit status, or a message with status 2.
type Outcome = Result<u8, String>;

/// Runs the command line of this process and returns its exit status: 0 in line or done, 1 differs, 2 error,
/// 3 nothing missing but a reboot.
pub fn run() -> u8 {
    let args = Args::parse();
    let outcome = match args.verb {
        Verb::Capture(args) => capture::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
    };
    outcome.unwrap_or_else(|message| {
        crate::host::print_error(&format!("error: {}\n", message.trim_end().trim_start_matches("error: ")));
        2
    })
}
