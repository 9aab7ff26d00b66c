//! Layer 7: what was there before our first touch, what we set, and what a run in progress is about to change. Data,
//! its text in the files of the state directory, and comparisons. Pure.

mod entry;

pub use entry::{Change, Entry, Standing};

use crate::formats::HostPath;
use crate::formats::kernel_args::KernelArg;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of both files that this program writes; another one when it could not be read by an older program.
const VERSION: u32 = 1;

/// The most runs that are remembered.
const MOST_RUNS: usize = 100;

/// The file `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The version of the file.
    version: u32,
    /// The id of the last run that was carried out: its journal is done with.
    pub run: Option<String>,
    /// Everything of ours on the machine, with what was there before, in the order of the first touch.
    pub baseline: Vec<Entry>,
    /// The profile that was applied last.
    pub applied: Option<Applied>,
    /// When update-grub last gave the boot entries our arguments.
    pub kernel_arguments: Option<Stamp>,
    /// When a file that takes effect at the next boot was last changed; `None` where no run since this is kept did.
    #[serde(default)]
    pub files: Option<Stamp>,
    /// The last runs that had something to do, the newest last.
    pub history: Vec<Record>,
}

impl Default for State {
    fn default() -> State {
        State {
            version: VERSION,
            run: None,
            baseline: Vec::new(),
            applied: None,
            kernel_arguments: None,
            files: None,
            history: Vec::new(),
        }
    }
}

/// A profile that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Its name, as the operator gave it.
    pub name: String,
    /// The SHA-256 of its text, in hexadecimal.
    pub sha256: String,
    /// Its text.
    pub text: String,
}

/// A moment, and the boot it was in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// UTC, to the second, for people.
    pub time: String,
    /// `/proc/sys/kernel/random/boot_id`; `None` where the kernel that ran was another machine's.
    pub boot_id: Option<String>,
}

/// What a run is: the head of its journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// A name that no other run has.
    pub id: String,
    /// When it began, and in which boot.
    #[serde(flatten)]
    pub began: Stamp,
    /// `apply`, `apply --runtime` or `revert`.
    pub verb: String,
    /// The profile's name, where there is one.
    pub profile: Option<String>,
    /// The SHA-256 of its text.
    pub sha256: Option<String>,
}

/// A run, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The run.
    #[serde(flatten)]
    pub run: Run,
    /// What became of it.
    pub outcome: Ending,
    /// Steps it had.
    pub steps: usize,
    /// Steps that failed or were skipped.
    pub failed: usize,
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Carried out, as far as it could be.
    Done,
    /// Taken back.
    RolledBack,
}

/// The file `journal.json`: there while a run is in progress, and after one that was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    version: u32,
    /// The run.
    pub run: Run,
    /// Everything it is about to change.
    pub entries: Vec<Entry>,
    /// Whether it runs `update-grub`.
    pub update_grub: bool,
    /// Whether it runs `grub2-mkconfig`.
    #[serde(default)]
    pub mkconfig: bool,
    /// Whether it runs `grub-reboot`.
    pub boot_once: bool,
    /// The SHA-256 of the boot loader's generated configuration when it began: while that is there, nothing of the run
    /// is in it. `None` where there was none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generated: Option<String>,
}

impl Journal {
    /// The journal of a run that runs no program.
    pub fn new(run: Run, entries: Vec<Entry>) -> Journal {
        let (update_grub, mkconfig, boot_once) = (false, false, false);
        Journal { version: VERSION, run, entries, update_grub, mkconfig, boot_once, generated: None }
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with `file`, and the remedy.
    pub fn parse(text: &str, file: &str) -> Result<Journal, String> {
        let journal: Journal = read(text, file)?;
        journal.entries.iter().try_for_each(|entry| entry.check(file))?;
        Ok(journal)
    }

    /// The file's text.
    pub fn text(&self) -> String {
        written(self)
    }
}

impl State {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with `file`, and the remedy.
    pub fn parse(text: &str, file: &str) -> Result<State, String> {
        let state: State = read(text, file)?;
        state.baseline.iter().try_for_each(|entry| entry.check(file))?;
        Ok(state)
    }

    /// The file's text.
    pub fn text(&self) -> String {
        written(self)
    }

    /// The entry of a path.
    pub fn entry(&self, path: &HostPath) -> Option<&Entry> {
        self.baseline.iter().find(|entry| entry.path == *path)
    }

    /// The kernel arguments that we put on lines of others, each once.
    pub fn arguments(&self) -> Vec<KernelArg> {
        let mut all: Vec<KernelArg> = Vec::new();
        for argument in self.baseline.iter().flat_map(|entry| &entry.arguments) {
            if !all.contains(argument) {
                all.push(argument.clone());
            }
        }
        all
    }

    /// Takes in what a run changed: the first `before` of each path stays, and `finished` paths are no longer ours.
    /// What is `undone` is as the runs before left it.
    pub fn absorb(&mut self, journal: &Journal, finished: &[HostPath], undone: &[&HostPath]) {
        let boot_id = &journal.run.began.boot_id;
        self.baseline.retain(|entry| !entry.is_of_another_boot(boot_id.as_deref()));
        let made: Vec<HostPath> = self.baseline.iter().flat_map(|entry| entry.directories.clone()).collect();
        for new in &journal.entries {
            match self.baseline.iter_mut().find(|old| old.path == new.path) {
                Some(_) if undone.contains(&&new.path) => {}
                Some(old) => old.take_ours(new),
                None => {
                    let mut new = new.clone();
                    // A directory of ours is ours as long as anything of ours is in it.
                    let below = |dir: &&HostPath| new.path.is_below(dir) && !new.directories.contains(dir);
                    let shared: Vec<_> = made.iter().filter(below).cloned().collect();
                    new.directories.extend(shared);
                    new.directories.sort();
                    new.directories.dedup();
                    self.baseline.push(new);
                }
            }
        }
        let done = |path: &HostPath| finished.contains(path) && !undone.contains(&path);
        self.baseline.retain(|entry| !done(&entry.path) && !entry.is_nothing());
    }

    /// Takes in entries of a run that was taken back and that the machine still has.
    pub fn keep<'e>(&mut self, entries: impl Iterator<Item = &'e Entry>) {
        for entry in entries {
            match self.baseline.iter_mut().find(|old| old.path == entry.path) {
                Some(old) => old.take_ours(entry),
                None => self.baseline.push(entry.clone()),
            }
        }
    }

    /// Remembers a run, once.
    pub fn remember(&mut self, record: Record) {
        self.history.retain(|other| other.run.id != record.run.id);
        self.history.push(record);
        let over = self.history.len().saturating_sub(MOST_RUNS);
        self.history.drain(..over);
    }
}

/// Only the version: the rest may be what a later program writes.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn read<T: DeserializeOwned>(text: &str, file: &str) -> Result<T, String> {
    let damaged = |error: serde_json::Error| {
        format!(
            "{file} is damaged ({error}): put a good copy of it there. Without one, move it away; what was on the \
             machine before the first apply is then not known any more"
        )
    };
    match serde_json::from_str::<Version>(text).map_err(damaged)?.version {
        VERSION => serde_json::from_str(text).map_err(damaged),
        other => Err(format!(
            "{file} has version {other}, and only version {VERSION} is known here: use the rtkvm-tune that wrote it"
        )),
    }
}

fn written<T: Serialize>(document: &T) -> String {
    let text = serde_json::to_string_pretty(document);
    text.expect("strings, numbers and lists of them are JSON") + "\n"
}
