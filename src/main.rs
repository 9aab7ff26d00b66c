//! The command.

fn main() -> std::process::ExitCode {
    rtkvm_tune::cli::run().into()
}
