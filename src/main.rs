//! The command.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)]

fn main() -> std::process::ExitCode {
    rtkvm_tune::cli::run().into()
}
