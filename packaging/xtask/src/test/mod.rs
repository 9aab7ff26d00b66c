//! `cargo xtask test`: everything a change must pass, on a fresh Debian machine too.

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, output, run as run_command, step};

mod licences;
mod packages;

/// Runs every step in turn; the first that fails ends it. The one argument filters the tests by name.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(option) = args.iter().find(|arg| arg.starts_with('-')) {
        bail!("`{option}` is not an option of `cargo xtask test`: give it a part of the tests' names");
    }
    if args.len() > 1 {
        bail!("one FILTER at most, not {}", args.len());
    }
    step("Debian packages", packages::install)?;
    step("format", || {
        component("fmt", "rustfmt")?;
        run_command(cargo().args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")
    })?;
    step("lints", || {
        component("clippy", "clippy")?;
        let lints = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
        run_command(cargo().args(lints))
    })?;
    step("licences", licences::check)?;
    step("tests", || run_command(cargo().args(["test", "--locked", "--workspace"]).args(args)))
}

/// Stops when a component of the Rust toolchain is missing.
fn component(subcommand: &str, component: &str) -> Result<()> {
    let asked = output(cargo().args([subcommand, "--version"]));
    asked.map(drop).with_context(|| format!("{component} is missing: run `rustup component add {component}`"))
}
