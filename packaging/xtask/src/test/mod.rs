//! `cargo xtask test`: everything a change must pass, on a fresh Debian machine too.

use std::env;

use anyhow::{Context, Result, bail};

use crate::lab;
use crate::shell::{cargo, output, run as run_command, step};

mod licences;
mod packages;

/// What to test.
#[derive(Debug, PartialEq, Eq)]
struct Choice<'a> {
    /// Without the emulated hosts of tests/lab.
    quick: bool,
    /// A part of the tests' names.
    filter: Option<&'a str>,
}

impl<'a> Choice<'a> {
    fn parse(args: &'a [String]) -> Result<Choice<'a>> {
        let mut choice = Choice { quick: false, filter: None };
        for arg in args {
            match arg.as_str() {
                "--quick" => choice.quick = true,
                option if option.starts_with('-') => bail!(
                    "`{option}` is not an option of `cargo xtask test`: there are --quick and a part of the tests' names"
                ),
                filter => match choice.filter.replace(filter) {
                    None => {}
                    Some(first) => bail!("one FILTER at most: `{first}` or `{filter}`"),
                },
            }
        }
        Ok(choice)
    }
}

/// Runs every step in turn; the first that fails ends it.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let choice = Choice::parse(args)?;
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
    step("tests", || {
        // Random tests draw the same inputs each time here, so that what fails is of the change: `cargo test` draws new ones.
        let seed = env::var("PROPTEST_RNG_SEED").unwrap_or_else(|_| "1".to_owned());
        let tests = ["test", "--locked", "--workspace"];
        run_command(cargo().env("PROPTEST_RNG_SEED", seed).args(tests).args(choice.filter))
    })?;
    if choice.quick {
        return Ok(());
    }
    step("emulated hosts", || lab::test(choice.filter))
}

/// Stops when a component of the Rust toolchain is missing.
fn component(subcommand: &str, component: &str) -> Result<()> {
    let asked = output(cargo().args([subcommand, "--version"]));
    asked.map(drop).with_context(|| format!("{component} is missing: run `rustup component add {component}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_is_left_out_on_request_only() {
        let parse = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
            Choice::parse(&args).map(|choice| (choice.quick, choice.filter.map(str::to_owned)))
        };
        assert_eq!(parse(&[]).unwrap(), (false, None));
        assert_eq!(parse(&["--quick"]).unwrap(), (true, None));
        assert_eq!(parse(&["pages", "--quick"]).unwrap(), (true, Some("pages".to_owned())));
        for wrong in [&["--slow"][..], &["a", "b"], &["--quick", "a", "b"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
