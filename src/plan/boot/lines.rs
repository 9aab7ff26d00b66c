//! Arguments on the lines of others: boot loader entries, /etc/kernel/cmdline, /etc/default/grub, GRUB's environment
//! block. Each word of ours is known by the state; all other words stay.

use super::{Held, Step, Wanted};
use crate::facts::Facts;
use crate::facts::boot::{DEFAULT_GRUB, Line};
use crate::formats::HostPath;
use crate::formats::boot_line::{Form, Known, rewrite};
use crate::formats::kernel_args::KernelArg;
use crate::host::{Node, Program};
use crate::journal::{self, Change, Entry};

/// What becomes of them.
#[derive(Default)]
pub(super) struct Lines {
    edits: Vec<Edit>,
    /// Whether grub2-mkconfig reads one of them.
    generated: bool,
    /// What cannot be written: why.
    wrong: Vec<String>,
    finished: Vec<HostPath>,
}

/// One file.
struct Edit {
    path: HostPath,
    before: Option<String>,
    after: Option<String>,
    mode: u32,
    ours: Vec<KernelArg>,
}

impl Lines {
    pub(super) fn plan(facts: &Facts, wanted: &[Wanted], state: &journal::State) -> Lines {
        let mut lines = Lines::default();
        for line in facts.boot.lines.iter().filter(|line| line.adds) {
            lines.generated |= line.path.as_str() == DEFAULT_GRUB;
            if let Err(why) = lines.add(line, wanted, state) {
                lines.wrong.push(format!("{} cannot be given kernel arguments: {why}", line.path));
            }
        }
        // The kernel of an entry may have been removed since, and the entry with it.
        let here = |entry: &&Entry| facts.boot.lines.iter().any(|line| line.path == entry.path);
        let gone = state.baseline.iter().filter(|entry| !entry.arguments.is_empty() && !here(entry));
        lines.finished.extend(gone.map(|entry| entry.path.clone()));
        lines
    }

    fn add(&mut self, line: &Line, wanted: &[Wanted], state: &journal::State) -> Result<(), String> {
        let entry = state.entry(&line.path).filter(|entry| !entry.arguments.is_empty());
        // A new kernel has them from /etc/kernel/cmdline or from the one before it.
        let all = state.arguments();
        let ours = entry.map_or(&all[..], |entry| &entry.arguments);
        let first = entry.and_then(first);
        let made = rewrite(line.form, line.now(), Known { ours, first }, wanted)?;
        let path = line.path.clone();
        let after = match (made.ours.is_empty(), entry) {
            (false, _) => Some(made.text),
            (true, Some(entry)) => {
                self.finished.push(path.clone());
                without(entry, line.now())?
            }
            (true, None) => line.text.as_ref().map(|_| made.text),
        };
        let edit = Edit { path, before: line.text.clone(), after, mode: line.mode, ours: made.ours };
        self.edits.push(edit);
        Ok(())
    }

    fn changed(&self) -> impl Iterator<Item = &Edit> {
        self.edits.iter().filter(|edit| edit.before != edit.after)
    }

    pub(super) fn steps(&self) -> Vec<Step> {
        let step = |edit: &Edit| {
            let Edit { path, before, after, mode, .. } = edit;
            let (path, before, after) = (path.clone(), before.clone(), after.clone());
            Step::File { path, before, after, mode: *mode, metadata: None }
        };
        self.changed().map(step).collect()
    }

    /// The program that reads them.
    pub(super) fn generator(&self) -> Option<Program> {
        self.generated.then_some(Program::Mkconfig)
    }

    pub(super) fn held(&self) -> Vec<Held> {
        let held = |edit: &Edit| Held { path: edit.path.clone(), arguments: edit.ours.clone() };
        self.changed().filter(|edit| !edit.ours.is_empty()).map(held).collect()
    }

    pub(super) fn finished(&self) -> &[HostPath] {
        &self.finished
    }

    /// What is in the way of writing, where there is something to write.
    pub(super) fn obstacles(&self, facts: &Facts) -> Vec<String> {
        let writes = self.changed().next().is_some() || facts.boot.lines.is_empty();
        let machine = facts.boot.wrong.iter().filter(|_| writes);
        self.wrong.iter().chain(machine).cloned().collect()
    }
}

/// The text of a file before our first touch.
fn first(entry: &Entry) -> Option<&str> {
    match &entry.change {
        Change::File { before: Some(Node::File { text, .. }), .. } => Some(text),
        _ => None,
    }
}

/// The text of a file once ours is taken out of it: as it was where nobody else changed it since; `None` where it was
/// not there.
///
/// # Errors
/// Why its line cannot be read or written.
pub(in crate::plan) fn without(entry: &Entry, now: &str) -> Result<Option<String>, String> {
    let Change::File { before, ours } = &entry.change else { return Ok(Some(now.to_owned())) };
    match (before, ours) {
        (before, Some(Node::File { text, .. })) if text == now => Ok(match before {
            Some(Node::File { text, .. }) => Some(text.clone()),
            _ => None,
        }),
        _ => {
            let known = Known { ours: &entry.arguments, first: first(entry) };
            rewrite(Form::of(&entry.path), now, known, &[]).map(|made| Some(made.text))
        }
    }
}
