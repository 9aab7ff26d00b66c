//! What was read of a machine, each thing once.

use super::{File, Metadata, Node, Read, ReadError};
use crate::formats::{HostPath, Image};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// One thing that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file, or the head of one.
    File(Rc<File>),
    /// The names in a directory.
    List(Rc<Vec<String>>),
    /// The target of a symbolic link.
    Link(Rc<str>),
    /// It could not be read.
    Error(ReadError),
}

/// A machine as far as it was read. Over a [`Root`](super::Root) each path is read at most once, so that one
/// plan sees one state: what was read is kept, but for what only one place asks for ([`Read::once`]). It can be written
/// as a capture, and a capture is a snapshot with nothing behind it.
#[derive(Default)]
pub struct Snapshot {
    entries: RefCell<HashMap<HostPath, Entry>>,
    /// Files of which no more than this was asked for.
    extracts: RefCell<HashMap<HostPath, Rc<File>>>,
    behind: Option<Box<dyn Read>>,
    /// Whether what is asked for once is kept as well.
    keeps_all: bool,
    /// What was not kept, in debug builds, where nothing of it may be asked for again.
    passed_on: RefCell<HashSet<HostPath>>,
    // What to say of a path that was not recorded; `None`: it does not exist.
    otherwise: Option<ReadError>,
}

impl Snapshot {
    /// A snapshot that reads from `machine` what it is asked for.
    pub fn of(machine: Box<dyn Read>) -> Snapshot {
        Snapshot { behind: Some(machine), ..Snapshot::default() }
    }

    /// With everything that it will be asked for, to be written as a capture.
    pub fn keeping_all(self) -> Snapshot {
        Snapshot { keeps_all: true, ..self }
    }

    /// A machine that has exactly `entries`.
    pub fn recorded(entries: impl IntoIterator<Item = (HostPath, Entry)>) -> Snapshot {
        Snapshot { entries: RefCell::new(entries.into_iter().collect()), ..Snapshot::default() }
    }

    /// A machine that has `entries`, and of which nothing else is known.
    pub(super) fn partial(entries: impl IntoIterator<Item = (HostPath, Entry)>) -> Snapshot {
        Snapshot { otherwise: Some(ReadError::Untold), ..Snapshot::recorded(entries) }
    }

    /// Everything that was read and exists, sorted by path.
    pub fn entries(&self) -> Vec<(HostPath, Entry)> {
        let (entries, extracts) = (self.entries.borrow(), self.extracts.borrow());
        let exists = |entry: &Entry| !matches!(entry, Entry::Error(ReadError::Absent | ReadError::Untold));
        let shown = |path: &HostPath, entry: &Entry| match extracts.get(path) {
            Some(extract) => Entry::File(extract.clone()),
            None => entry.clone(),
        };
        let mut all: Vec<_> =
            entries.iter().filter(|(_, e)| exists(e)).map(|(p, e)| (p.clone(), shown(p, e))).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// The processes of a machine with nothing behind it.
    fn recorded_processes(&self, wanted: fn(&str) -> bool) -> Vec<(u32, String)> {
        let pids = self.list(&HostPath::new(super::PROCESSES)).unwrap_or_default();
        let name = |pid: u32| {
            let file = self.file(&super::comm(pid)).ok()?;
            Some((pid, file.text().trim_end().to_owned())).filter(|(_, name)| wanted(name))
        };
        pids.iter().filter_map(|pid| name(pid.parse().ok()?)).collect()
    }

    /// What a recorded machine has processes by: no other leaves a trace.
    fn keep_pids(&self, found: impl Iterator<Item = u32>) {
        let path = HostPath::new(super::PROCESSES);
        let mut entries = self.entries.borrow_mut();
        let known = match entries.get(&path) {
            Some(Entry::List(names)) => names.to_vec(),
            _ => Vec::new(),
        };
        let known = known.iter().filter_map(|name| name.parse().ok());
        let all: BTreeSet<u32> = known.chain(found).collect();
        if !all.is_empty() {
            let names = all.iter().map(u32::to_string).collect();
            entries.insert(path, Entry::List(Rc::new(names)));
        }
    }

    fn get(&self, path: &HostPath, read: impl FnOnce(&dyn Read) -> Result<Entry, ReadError>) -> Entry {
        if let Some(entry) = self.entries.borrow().get(path) {
            return entry.clone();
        }
        debug_assert!(!self.passed_on.borrow().contains(path), "{path} is asked for once more");
        let otherwise = self.otherwise.unwrap_or(ReadError::Absent);
        let result = self.behind.as_deref().map_or(Err(otherwise), read);
        let entry = result.unwrap_or_else(Entry::Error);
        self.entries.borrow_mut().insert(path.clone(), entry.clone());
        entry
    }
}

impl Read for Snapshot {
    fn file(&self, path: &HostPath) -> Result<Rc<File>, ReadError> {
        // There are few of them, and many files.
        if !self.extracts.borrow().is_empty() {
            self.extracts.borrow_mut().remove(path);
        }
        match self.get(path, |machine| machine.file(path).map(Entry::File)) {
            Entry::File(file) => Ok(file),
            Entry::Error(error) => Err(error),
            _ => Err(ReadError::Unsuitable),
        }
    }

    fn once(&self, path: &HostPath) -> Result<String, ReadError> {
        match &self.behind {
            Some(machine) if !self.keeps_all => {
                debug_assert!(self.passed_on.borrow_mut().insert(path.clone()), "{path} is asked for twice");
                debug_assert!(!self.entries.borrow().contains_key(path), "{path} was asked for before");
                machine.once(path)
            }
            _ => self.file(path).map(|file| file.text().into_owned()),
        }
    }

    fn extract(&self, path: &HostPath, keep: fn(&str) -> String) -> Result<Rc<File>, ReadError> {
        let read_whole =
            |path| self.entries.borrow().contains_key(path) && !self.extracts.borrow().contains_key(path);
        let known = read_whole(path);
        let file = self.file(path)?;
        let extract = Rc::new(File { bytes: keep(&file.text()).into_bytes(), mode: file.mode });
        if !known {
            self.extracts.borrow_mut().insert(path.clone(), extract.clone());
        }
        Ok(extract)
    }

    fn head(&self, path: &HostPath, limit: usize) -> Result<Rc<File>, ReadError> {
        match self.get(path, |machine| machine.head(path, limit).map(Entry::File)) {
            Entry::File(file) => Ok(file),
            Entry::Error(error) => Err(error),
            _ => Err(ReadError::Unsuitable),
        }
    }

    fn list(&self, path: &HostPath) -> Result<Rc<Vec<String>>, ReadError> {
        match self.get(path, |machine| machine.list(path).map(Entry::List)) {
            Entry::List(names) => Ok(names),
            Entry::Error(error) => Err(error),
            _ => Err(ReadError::Unsuitable),
        }
    }

    fn node(&self, path: &HostPath) -> Result<Node, ReadError> {
        if let Some(machine) = &self.behind {
            return machine.node(path);
        }
        // A recording does not say whose a file is: root's.
        let entries = self.entries.borrow();
        match entries.get(path) {
            None => Err(self.otherwise.unwrap_or(ReadError::Absent)),
            Some(Entry::File(file)) => Ok(Node::File {
                text: file.text().into_owned(),
                metadata: Metadata { mode: file.mode, uid: 0, gid: 0, label: None },
            }),
            Some(Entry::Link(target)) => Ok(Node::Link { target: target.to_string() }),
            Some(Entry::List(_)) => Err(ReadError::Unsuitable),
            Some(Entry::Error(error)) => Err(*error),
        }
    }

    fn link(&self, path: &HostPath) -> Result<Rc<str>, ReadError> {
        match self.get(path, |machine| machine.link(path).map(Entry::Link)) {
            Entry::Link(target) => Ok(target),
            Entry::Error(error) => Err(error),
            _ => Err(ReadError::Unsuitable),
        }
    }

    /// Found ones are kept as the files and the directory that tell of them.
    fn processes(&self, wanted: fn(&str) -> bool) -> Vec<(u32, String)> {
        let Some(machine) = &self.behind else { return self.recorded_processes(wanted) };
        let found = machine.processes(wanted);
        let mut entries = self.entries.borrow_mut();
        for (pid, name) in &found {
            let file = File { bytes: format!("{name}\n").into_bytes(), mode: 0o644 };
            entries.insert(super::comm(*pid), Entry::File(Rc::new(file)));
        }
        drop(entries);
        self.keep_pids(found.iter().map(|(pid, _)| *pid));
        found
    }

    /// Kept as the directory that tells of them; their lines in `stat`, of which the times would be others each time,
    /// are not.
    fn free_threads(&self) -> Vec<u32> {
        let Some(machine) = &self.behind else {
            let pids = self.list(&HostPath::new(super::PROCESSES)).unwrap_or_default();
            let pids = pids.iter().filter_map(|pid| pid.parse().ok());
            return pids.filter(|pid| self.file(&super::status(*pid)).is_ok()).collect();
        };
        let found = machine.free_threads();
        self.keep_pids(found.iter().copied());
        found
    }

    fn lines(&self, path: &HostPath, wanted: fn(&str) -> bool) -> Result<Rc<File>, ReadError> {
        match self.get(path, |machine| machine.lines(path, wanted).map(Entry::File)) {
            Entry::File(file) => Ok(file),
            Entry::Error(error) => Err(error),
            _ => Err(ReadError::Unsuitable),
        }
    }

    /// Kept as a file that says what it is.
    fn image(&self, path: &HostPath) -> Result<Image, ReadError> {
        let read = |image: Image| {
            Entry::File(Rc::new(File { bytes: format!("{image}\n").into_bytes(), mode: 0o600 }))
        };
        match self.get(path, |machine| machine.image(path).map(read)) {
            Entry::File(file) => Image::parse(&file.text()).ok_or(ReadError::Unsuitable),
            Entry::Error(error) => Err(error),
            _ => Err(ReadError::Unsuitable),
        }
    }

    /// Kept as a file that has the value.
    fn register(&self, cpu: u32, number: u64) -> Result<u64, ReadError> {
        let path = super::registers(cpu).join(format!("{number:#x}"));
        let read =
            |value: u64| Entry::File(Rc::new(File { bytes: format!("{value}\n").into_bytes(), mode: 0o400 }));
        match self.get(&path, |machine| machine.register(cpu, number).map(read)) {
            Entry::File(file) => file.text().trim().parse().map_err(|_| ReadError::Unsuitable),
            Entry::Error(error) => Err(error),
            _ => Err(ReadError::Unsuitable),
        }
    }

    /// Kept in the same way.
    fn wake_up_bound(&self) -> Result<i32, ReadError> {
        let path = HostPath::new(super::WAKE_UP_BOUND);
        let read =
            |bound: i32| Entry::File(Rc::new(File { bytes: format!("{bound}\n").into_bytes(), mode: 0o600 }));
        match self.get(&path, |machine| machine.wake_up_bound().map(read)) {
            Entry::File(file) => file.text().trim().parse().map_err(|_| ReadError::Unsuitable),
            Entry::Error(error) => Err(error),
            _ => Err(ReadError::Unsuitable),
        }
    }

    fn kernel_log(&self, wanted: fn(&str) -> bool) -> Result<Rc<File>, ReadError> {
        let path = HostPath::new(super::KERNEL_LOG);
        match self.get(&path, |machine| machine.kernel_log(wanted).map(Entry::File)) {
            Entry::File(file) => Ok(file),
            Entry::Error(error) => Err(error),
            _ => Err(ReadError::Unsuitable),
        }
    }
}
