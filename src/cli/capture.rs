//! `capture`: what the tool reads of a machine, as one reviewable text file.

use super::Outcome;
use super::args::CaptureArgs;
use crate::facts::Facts;
use crate::host::{Machine, print, write_output};

pub(super) fn run(args: &CaptureArgs) -> Outcome {
    let snapshot = Machine::named(args.root.root.as_deref()).snapshot()?;
    Facts::read(&snapshot)?;
    let text = snapshot.to_capture();
    match &args.output {
        Some(path) => write_output(path, &text)?,
        None => print(&text)?,
    }
    Ok(0)
}
