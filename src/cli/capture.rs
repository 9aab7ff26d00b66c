//! `capture`: what the tool reads of a machine, as one reviewable text file.

use super::args::CaptureArgs;
use super::{Outcome, load};
use crate::host::{print, write_output};

pub(super) fn run(args: &CaptureArgs) -> Outcome {
    let machine = load::machine(&args.root);
    let snapshot = machine.snapshot()?;
    load::facts(&machine, &snapshot)?;
    let text = snapshot.to_capture();
    match &args.output {
        Some(path) => write_output(path, &text)?,
        None => print(&text)?,
    }
    Ok(0)
}
