//! The verbs and their options.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Turns a Linux server into a real-time KVM host, and renders its real-time guests.
#[derive(Parser)]
#[command(name = "rtkvm-tune", version, max_term_width = 100, infer_long_args = false)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Write what would be read of the machine as one text file
    Capture(CaptureArgs),
    /// Show the machine as it is understood; with a profile, as it would be divided
    Inspect(InspectArgs),
}

#[derive(clap::Args)]
pub(super) struct CaptureArgs {
    /// The file to write; standard output without it
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) root: RootArg,
}

#[derive(clap::Args)]
pub(super) struct InspectArgs {
    /// The profile to divide the machine by; without it, as the running kernel divides it
    pub(super) profile: Option<PathBuf>,
    #[command(flatten)]
    pub(super) root: RootArg,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

#[derive(clap::Args)]
pub(super) struct FormatArg {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(clap::Args)]
pub(super) struct RootArg {
    /// Work on a directory tree, a capture or a `virsh capabilities` document instead of this machine
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) root: Option<PathBuf>,
}
