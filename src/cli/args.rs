//! The verbs and their options.

use crate::formats::Connection;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Turns a Linux server into a real-time KVM host, and renders its real-time guests.
#[derive(Parser)]
#[command(name = "rtkvm-tune", version, max_term_width = 100, after_help = EXIT_STATUS)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const EXIT_STATUS: &str = "Exit status: 0 in line, done or planned; 1 differs (verify; apply --dry-run \
    --exit-code; apply, when something is still not in line after it; lint, when it found something); \
    2 error; 3 nothing missing but a reboot (verify); 4 libvirt did not answer: everything but the guests is \
    done (apply, revert).";

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Make the machine as the profile says, or show with --dry-run what that would change
    Apply(ApplyArgs),
    /// Make the kernel arguments of a trial boot the default, if everything is in line on it
    Confirm(ConfirmArgs),
    /// Take back what apply did: everything as it was before its first touch
    Revert(RevertArgs),
    /// Finish or take back a run that was interrupted, by a power cut for instance
    Recover(RecoverArgs),
    /// Compare the machine with the profile: wanted, next boot, running
    Verify(VerifyArgs),
    /// Say what earlier runs left, and whether a reboot is needed
    Status(StatusArgs),
    /// Print the libvirt XML of the guests
    Render(RenderArgs),
    /// Check the libvirt XML of any guests against this machine's partition
    Lint(LintArgs),
    /// Say what a setting is, why it is wanted, where it is documented, how it is checked
    Explain(ExplainArgs),
    /// Write what is read of the machine as one text file
    Capture(CaptureArgs),
    /// Show the machine as it is understood; with a profile, as it would be divided
    Inspect(InspectArgs),
}

#[derive(clap::Args)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    pub(super) plan: PlanArgs,
    /// Show the plan and its diff, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// With --dry-run: exit with 1 if something would change
    #[arg(long, requires = "dry_run")]
    pub(super) exit_code: bool,
    /// Only what a reboot forgets: kernel attributes; the boot unit's form
    #[arg(long, conflicts_with = "trial")]
    pub(super) runtime: bool,
    /// Do at once what would disturb guests that run, too
    #[arg(long)]
    pub(super) live: bool,
    /// Take over from others that set the same: TuneD is stopped and masked, rt-conf's boot arguments go
    #[arg(long, conflicts_with_all = ["runtime", "trial"])]
    pub(super) take_over: bool,
    /// Give the kernel its new arguments at the next boot only; `confirm` makes them the default
    #[arg(long, conflicts_with = "connect")]
    pub(super) trial: bool,
    /// Leave what was done when a step fails, instead of taking it back
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) keep_going: bool,
    #[command(flatten)]
    pub(super) wait: WaitArg,
}

#[derive(clap::Args)]
pub(super) struct ConfirmArgs {
    /// Wait for it, and keep the reason if it cannot be confirmed; the form of the unit of the trial boot
    #[arg(long)]
    pub(super) automatic: bool,
    /// With --automatic: until when everything must be in line, and libvirt answer
    #[arg(long, value_name = "SECONDS", default_value_t = 180, requires = "automatic")]
    pub(super) within: u64,
    #[command(flatten)]
    pub(super) root: RootArg,
    #[command(flatten)]
    pub(super) wait: WaitArg,
}

#[derive(clap::Args)]
pub(super) struct RevertArgs {
    /// Show what would change and its diff, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Take back also what somebody else has changed since
    #[arg(long)]
    pub(super) force: bool,
    /// Do at once what would disturb guests that run, too
    #[arg(long)]
    pub(super) live: bool,
    #[command(flatten)]
    pub(super) root: RootArg,
    #[command(flatten)]
    pub(super) format: FormatArg,
    #[command(flatten)]
    pub(super) wait: WaitArg,
}

#[derive(clap::Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    pub(super) root: RootArg,
    #[command(flatten)]
    pub(super) format: FormatArg,
    #[command(flatten)]
    pub(super) wait: WaitArg,
}

#[derive(clap::Args)]
pub(super) struct WaitArg {
    /// Wait so long for another run to end, instead of failing at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    pub(super) wait: u64,
}

#[derive(clap::Args)]
pub(super) struct VerifyArgs {
    /// The profile, a TOML file
    pub(super) profile: PathBuf,
    #[command(flatten)]
    pub(super) root: RootArg,
    #[command(flatten)]
    pub(super) connect: ConnectArg,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: AuditFormat,
    /// Write it to this file, which is replaced whole, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Exit with 1 also when something cannot be told
    #[arg(long)]
    pub(super) strict: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub(super) enum AuditFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// For test systems: JUnit XML
    Junit,
    /// For node_exporter's textfile collector
    Prometheus,
}

#[derive(clap::Args)]
pub(super) struct StatusArgs {
    /// The profile, a TOML file; without it the one that was applied
    pub(super) profile: Option<PathBuf>,
    /// Print nothing; exit with 0 if a reboot brings what was set, with 1 if none is needed
    #[arg(long)]
    pub(super) needs_reboot: bool,
    #[command(flatten)]
    pub(super) root: RootArg,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

#[derive(clap::Args)]
pub(super) struct PlanArgs {
    /// The profile, a TOML file
    pub(super) profile: PathBuf,
    #[command(flatten)]
    pub(super) root: RootArg,
    #[command(flatten)]
    pub(super) connect: ConnectArg,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

#[derive(clap::Args)]
pub(super) struct RenderArgs {
    /// The profile, a TOML file
    pub(super) profile: PathBuf,
    #[command(flatten)]
    pub(super) root: RootArg,
    /// Only this guest
    #[arg(long, value_name = "NAME")]
    pub(super) guest: Option<String>,
    /// Write each guest to NAME.xml in this directory instead
    #[arg(long, value_name = "DIR")]
    pub(super) output_dir: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(super) struct LintArgs {
    /// Domain XML files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Check against the partition that this profile plans, instead of the one that runs
    #[arg(long, value_name = "PROFILE")]
    pub(super) profile: Option<PathBuf>,
    #[command(flatten)]
    pub(super) root: RootArg,
    #[command(flatten)]
    pub(super) format: FormatArg,
}

#[derive(clap::Args)]
pub(super) struct ExplainArgs {
    /// The setting, or an area, a line for each of its settings; without it all of them
    pub(super) knob: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct CaptureArgs {
    /// A profile: what planning it reads is recorded too, the definitions of its guests among it; without it,
    /// the profile that was applied
    pub(super) profile: Option<PathBuf>,
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

#[derive(Clone, Copy, Default, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(clap::Args)]
pub(super) struct ConnectArg {
    /// The libvirt of the guests, instead of the profile's `libvirt-uri`
    #[arg(long, value_name = "URI", value_parser = Connection::parse, conflicts_with = "root")]
    pub(super) connect: Option<Connection>,
}

#[derive(clap::Args)]
pub(super) struct RootArg {
    /// Work on a directory tree, a capture or a `virsh capabilities` document instead of this machine
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) root: Option<PathBuf>,
}
