//! Taking a run back: by itself after a failure, or later, after a kill.

use super::report::{Outcome, Report};
use super::steps::{Anew, carry_out, describe};
use super::{End, load};
use crate::facts::boot::{GRUB_CFG, GRUB2_CFG};
use crate::formats::HostPath;
use crate::guest::cloud_init::{guest_of, image};
use crate::host::{JOURNAL, Program, Read, Root, STATE, STATE_DIR, StoreError, Writer};
use crate::journal::{Change, Ending, Entry, Journal, Record, State};
use crate::plan::Step;
use crate::plan::restore::{How, Programs, Restored};
use crate::resources::IRQ_TIMER;
use sha2::{Digest, Sha256};

/// What `recover` did.
pub enum Recovered {
    /// No run was interrupted.
    Nothing,
    /// The run was carried out already: its journal is removed.
    Finished(Journal),
    /// The run was taken back, as far as the reports say so.
    RolledBack {
        /// The run.
        journal: Journal,
        /// What was done.
        reports: Vec<Report>,
        /// What stays as it is.
        notes: Vec<String>,
        /// Whether all of it was done, so that the journal is gone.
        whole: bool,
    },
}

/// The run that was interrupted, if one was.
///
/// # Errors
/// The journal is there and cannot be used, or this user may not look.
pub fn interrupted(root: &Root) -> Result<Option<Journal>, StoreError> {
    let Some(text) = root.stored(JOURNAL)? else { return Ok(None) };
    Journal::parse(&text, &format!("{STATE_DIR}/{JOURNAL}")).map(Some).map_err(StoreError::Unusable)
}

/// Finishes or takes back the run that was interrupted.
///
/// # Errors
/// Journal or state cannot be used or written: why, and the remedy.
pub fn recover(root: &Root, writer: &Writer) -> Result<Recovered, String> {
    let journal = interrupted(root).map_err(|error| error.to_string())?;
    let state = load(root)?;
    let Some(journal) = journal else {
        // One that was killed while it wrote its journal leaves half of that.
        writer.unstore(JOURNAL)?;
        return Ok(Recovered::Nothing);
    };
    if state.run.as_ref() == Some(&journal.run.id) {
        writer.unstore(JOURNAL)?;
        return Ok(Recovered::Finished(journal));
    }
    let boot_id = boot_id(root);
    let how = How { live: root.is_live(), disks: true, boot_id: boot_id.as_deref(), ..How::default() };
    let entries: Vec<&Entry> = journal.entries.iter().collect();
    // Whether they read what changed is not known.
    let programs = Programs {
        update_grub: journal.update_grub,
        mkconfig: journal.mkconfig,
        forget_once: journal.boot_once,
        keep_generated: is_as_before(&journal, root),
        ..Programs::after(root, entries.iter().copied(), how)
    };
    let mut back = put_back(&entries, how, &programs, root, writer);
    let whole = settle(&mut back, &journal, state, writer);
    Ok(Recovered::RolledBack { journal, reports: back.reports, notes: back.notes, whole })
}

/// Takes the steps back that were begun. What they wrote is known to be ours.
pub(super) fn after_failure(
    why: String,
    begun: &[Step],
    journal: &Journal,
    state: State,
    root: &Root,
    writer: &Writer,
) -> End {
    let touched = |entry: &&Entry| begun.iter().any(|step| step.path() == Some(&entry.path));
    let entries: Vec<&Entry> = journal.entries.iter().filter(touched).collect();
    let ran = |program| begun.contains(&Step::Run { program });
    let boot_id = journal.run.began.boot_id.as_deref();
    let how = How { force: true, live: root.is_live(), disks: true, boot_id, spared: None };
    let programs = Programs {
        update_grub: ran(Program::UpdateGrub),
        mkconfig: ran(Program::Mkconfig),
        forget_once: ran(Program::BootOnce),
        keep_generated: is_as_before(journal, root),
        ..Programs::after(root, entries.iter().copied(), how)
    };
    let mut back = put_back(&entries, how, &programs, root, writer);
    let whole = settle(&mut back, journal, state, writer);
    let PutBack { reports, notes, .. } = back;
    match whole {
        true => End::RolledBack { why, reports, notes },
        false => End::Stuck { why, reports, notes },
    }
}

/// What came of putting entries back.
struct PutBack {
    reports: Vec<Report>,
    /// What stays as it is.
    notes: Vec<String>,
    /// The values that the machine did not take back, and what could not be read.
    kept: Vec<HostPath>,
}

/// Puts entries back, each on its own: one that fails keeps no other from being tried.
fn put_back(entries: &[&Entry], how: How, programs: &Programs, root: &Root, writer: &Writer) -> PutBack {
    let mut notes = Vec::new();
    for entry in entries.iter().filter(|entry| !matches!(entry.change, Change::Attribute { .. })) {
        if let Err(errno) = writer.remove_temporary(&entry.path) {
            notes.push(format!("what was half written beside {} stays: {}", entry.path, errno.desc()));
        }
        let image = guest_of(&entry.path).map(image);
        if let Some((image, Err(errno))) = image.map(|image| (image.clone(), writer.remove_temporary(&image)))
        {
            notes.push(format!("what was half made beside {image} stays: {}", errno.desc()));
        }
    }
    // No tree has it: no program is run there.
    for path in GENERATED {
        if let Err(errno) = writer.remove_generated(&HostPath::new(path)) {
            notes.push(format!("what was half generated beside {path} stays: {}", errno.desc()));
        }
    }
    let restored = Restored::plan(root, entries.iter().copied(), how);
    let steps = restored.steps(programs);
    let mut defined = false;
    let mut anew = Anew::default();
    let carried = steps.iter().map(|step| {
        let outcome = match step {
            // A guest that could not be undefined keeps its disks.
            Step::Disk { copy: None, .. } if defined => {
                Outcome::Impossible("a guest could not be undefined".into())
            }
            _ => carry_out(step, None, root, writer, &mut anew),
        };
        defined |= matches!((step, &outcome), (Step::Domain { .. }, Outcome::Failed(_)));
        Report { step: describe(step), outcome }
    });
    // Directories that went or stayed are not worth a line.
    let told = |report: &(Report, &Step)| {
        !matches!(report.1, Step::Directory { .. }) || matches!(report.0.outcome, Outcome::Failed(_))
    };
    let carried: Vec<_> = carried.zip(&steps).collect();
    let refused = carried.iter().filter_map(|(report, step)| match step {
        Step::Attribute { path, .. } if report.is_refusal() => Some(path.clone()),
        _ => None,
    });
    // What cannot be read now is not lost either.
    let kept = refused.chain(restored.unread).collect();
    let reports = carried.into_iter().filter(told).map(|(report, _)| report).collect();
    notes.extend(restored.notes.into_iter().chain(restored.told));
    // Of a profile that stays in force the timer is there, and moves the interrupts that came with them.
    if anew.is_any() && root.file(&HostPath::new(IRQ_TIMER)).is_ok() {
        let started = writer.run(&Program::StartIrqTimer).and_then(Result::err);
        notes.extend(
            started.map(|error| format!("new interrupts stay where they are until the next apply: {error}")),
        );
    }
    PutBack { reports, notes, kept }
}

/// Ends a run that was taken back: the journal goes, unless something failed. A value that the machine did not take back
/// stays ours, with what was there before.
fn settle(back: &mut PutBack, journal: &Journal, mut state: State, writer: &Writer) -> bool {
    let PutBack { reports, notes, kept } = back;
    if reports.iter().any(Report::is_failure) {
        return false;
    }
    state.keep(journal.entries.iter().filter(|entry| kept.contains(&entry.path)));
    let (steps, failed) = (reports.len(), kept.len());
    state.remember(Record { run: journal.run.clone(), outcome: Ending::RolledBack, steps, failed });
    // What was is back; that the history lacks a run is no reason to call the machine half done. But nothing else has what
    // was there before.
    if let Err(why) = writer.store(STATE, &state.text()) {
        notes.push(why);
        if !kept.is_empty() {
            return false;
        }
    }
    match writer.unstore(JOURNAL) {
        Ok(()) => true,
        Err(error) => {
            notes.push(error);
            false
        }
    }
}

/// What the boot loaders' programs generate, each on its systems.
const GENERATED: [&str; 2] = [GRUB_CFG, GRUB2_CFG];

/// The SHA-256 of what they generate, in hexadecimal; `None` where there is none.
pub(super) fn generated(root: &Root) -> Option<String> {
    let files = GENERATED.iter().filter_map(|path| root.file(&HostPath::new(*path)).ok());
    let bytes: Vec<_> = files.map(|file| file.bytes.clone()).collect();
    let digest = || Sha256::digest(bytes.concat());
    (!bytes.is_empty()).then(|| digest().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether the run has not reached what update-grub generates: to generate it anew would change nothing, and where it was
/// update-grub that failed would fail again.
fn is_as_before(journal: &Journal, root: &Root) -> bool {
    journal.generated.is_some() && journal.generated == generated(root)
}

/// This boot, in the kernel's words.
fn boot_id(root: &Root) -> Option<String> {
    let path = HostPath::new("/proc/sys/kernel/random/boot_id");
    root.file(&path).ok().map(|file| file.text().trim().to_owned())
}
