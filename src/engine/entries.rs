//! What a run is about to change, as it is now: the entries of its journal.

use super::Work;
use crate::facts::boot::DROP_IN;
use crate::formats::{Connection, HostPath};
use crate::host::{Metadata, Node, Read, ReadError, Root};
use crate::journal::{Change, Entry};
use crate::knobs::EXTRA_ARGUMENTS;
use crate::plan::Step;

/// The entries of all steps.
///
/// # Errors
/// What is not as it was when the steps were planned, and what could not be put back.
pub(super) fn capture(work: &Work, root: &Root) -> Result<Vec<Entry>, Vec<String>> {
    let mut entries = Vec::new();
    let mut found = Vec::new();
    for step in work.steps {
        match capture_one(step, work, root) {
            Ok(entry) => entries.extend(entry),
            Err(why) => found.push(why),
        }
    }
    if found.is_empty() { Ok(entries) } else { Err(found) }
}

fn capture_one(step: &Step, work: &Work, root: &Root) -> Result<Option<Entry>, String> {
    let (path, change) = match step {
        Step::Attribute { path, before, after, .. } => {
            let now = root.file(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
            if !after.is_unchanged(before, &now.text()) {
                return Err(changed(path));
            }
            (path, Change::Attribute { before: now.text().into_owned(), ours: after.clone() })
        }
        Step::File { path, before, after, mode, metadata } => {
            let old = there(path, root)?;
            unchanged(path, old.as_ref(), before.as_deref())?;
            let planned = || Metadata { mode: *mode, ..Metadata::default() };
            let ours = after.as_ref().map(|text| Node::File {
                text: text.clone(),
                metadata: metadata.clone().unwrap_or_else(planned),
            });
            (path, Change::File { before: old, ours })
        }
        Step::Link { path, after, .. } => {
            let ours = after.as_ref().map(|target| Node::Link { target: target.clone() });
            (path, Change::File { before: there(path, root)?, ours })
        }
        Step::Domain { name, path, before, after, .. } => {
            let old = there(path, root)?;
            unchanged(path, old.as_ref(), before.as_deref())?;
            (path, Change::Domain { name: name.clone(), before: old, ours: after.clone() })
        }
        Step::Directory { .. } | Step::Run { .. } => return Ok(None),
    };
    let item = work.items.iter().find(|item| item.path.as_ref() == Some(path));
    let (knob, label) = match item {
        Some(item) => (item.knob, item.label.clone()),
        None if path.as_str() == DROP_IN => (EXTRA_ARGUMENTS, "drop-in".into()),
        None if work.held.iter().any(|held| held.path == *path) => (EXTRA_ARGUMENTS, path.to_string()),
        None => ("baseline", path.to_string()),
    };
    let held = work.held.iter().find(|held| held.path == *path);
    let arguments = held.map(|held| held.arguments.clone()).unwrap_or_default();
    let runtime = matches!(change, Change::Attribute { .. });
    let boot_id = work.run.began.boot_id.clone().filter(|_| runtime);
    // What a libvirt is asked for is in no directory.
    let directories = if Connection::is_asked(path) { Vec::new() } else { missing_directories(path, root) };
    Ok(Some(Entry { knob: knob.into(), label, path: path.clone(), change, arguments, boot_id, directories }))
}

fn changed(path: &HostPath) -> String {
    format!("{path} was changed while the run was planned: run it again")
}

/// What is at the path, to be put back one day.
fn there(path: &HostPath, root: &Root) -> Result<Option<Node>, String> {
    match root.node(path) {
        Ok(node) => Ok(Some(node)),
        Err(ReadError::Absent) => Ok(None),
        Err(ReadError::Unsuitable) => Err(format!(
            "{path} is neither a text file nor a symbolic link, so that it could not be put back: move it away"
        )),
        Err(error) => Err(format!("{path} cannot be read: {error}")),
    }
}

/// A link was read through when the step was planned.
fn unchanged(path: &HostPath, now: Option<&Node>, planned: Option<&str>) -> Result<(), String> {
    match (now, planned) {
        (None, None) | (Some(Node::Link { .. }), _) => Ok(()),
        (Some(Node::File { text, .. }), Some(planned)) if text == planned => Ok(()),
        _ => Err(changed(path)),
    }
}

/// The directories above a path that are not there, from the top.
fn missing_directories(path: &HostPath, root: &Root) -> Vec<HostPath> {
    let above = std::iter::successors(path.split().0, |dir| dir.split().0);
    let missing = above.take_while(|dir| matches!(root.list(dir), Err(ReadError::Absent)));
    let mut missing: Vec<_> = missing.collect();
    missing.reverse();
    missing
}
