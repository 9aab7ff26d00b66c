//! Layer 10: the command line. One file per verb; data on standard output, everything else on standard error.

mod apply;
mod args;
mod capture;
mod change;
mod confirm;
mod explain;
mod inspect;
mod lint;
mod load;
mod recover;
mod render;
mod revert;
mod status;
mod style;
mod verify;

use args::{Args, Verb};
use clap::{CommandFactory, Parser};

/// What a command ends in: its exit status, or a message with status 2.
type Outcome = Result<u8, String>;

/// The definition of the command line, for the manual pages.
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the command line of this process and returns its exit status: 0 in line or done, 1 differs, 2 error,
/// 3 nothing missing but a reboot.
pub fn run() -> u8 {
    let outcome = match Args::parse().verb {
        Verb::Apply(args) => apply::run(&args),
        Verb::Confirm(args) => confirm::run(&args),
        Verb::Revert(args) => revert::run(&args),
        Verb::Recover(args) => recover::run(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Status(args) => status::run(&args),
        Verb::Render(args) => render::run(&args),
        Verb::Lint(args) => lint::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Capture(args) => capture::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
    };
    outcome.unwrap_or_else(|message| {
        let prefix = if message.starts_with("error") { "" } else { "error: " };
        crate::host::print_error(&format!("{prefix}{}\n", message.trim_end()));
        2
    })
}
