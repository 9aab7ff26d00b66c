//! What goes back to how it was before our first touch: a baseline's entries as items and steps.

use super::{Item, Running, Step, boot, channels};
use crate::facts::Boot;
use crate::facts::boot::{DEFAULT_GRUB, DROP_IN, GRUB_D, Line};
use crate::facts::owners::IRQBALANCE_UNIT;
use crate::facts::trial::{RECORD, SCRIPT};

use crate::formats::boot_line::{Known, rewrite};
use crate::formats::{Connection, HostPath};
use crate::host::{GuestName, Metadata, Node, Program, Read};
use crate::journal::{Change, Entry, Standing, State};
use crate::knobs::{self, Disruption, Reach};
use crate::resources::{Observed, State as Stands, Value, follow_ups};

/// What earlier runs left for a plan to know.
#[derive(Debug, Default)]
pub struct Past {
    /// What was there before our first touch, and more.
    pub state: State,
    /// What to know besides: a run that was interrupted, or that this user may not look.
    pub notes: Vec<String>,
    /// Whether the kernel answers: in a tree no page is in use.
    pub live: bool,
}

/// How to put entries back.
#[derive(Clone, Copy, Default)]
pub struct How<'a> {
    /// Also what somebody else changed since.
    pub force: bool,
    /// Whether the kernel answers.
    pub live: bool,
    /// Whether disks go too: only those that the very run made which is taken back.
    pub disks: bool,
    /// This boot.
    pub boot_id: Option<&'a str>,
    /// The guests that are left in peace, and the command that would not.
    pub spared: Option<(&'a Running, &'static str)>,
}

/// What puts entries back.
#[derive(Debug, Default)]
pub struct Restored {
    /// A row for each.
    pub items: Vec<Item>,
    /// What stays as it is, and why.
    pub notes: Vec<String>,
    /// What to know besides: disks, which stay in any case, and what is not started again.
    pub told: Vec<String>,
    /// What would disturb guests that run, each with the reason; an item of each says it too.
    pub waiting: Vec<String>,
    /// The entries that are done with once the steps are carried out.
    pub finished: Vec<HostPath>,
    /// What cannot be read.
    pub unread: Vec<HostPath>,
    pub(super) attributes: Vec<Step>,
    pub(super) files: Vec<Step>,
    pub(super) domains: Vec<Step>,
    /// Disks, which a guest has until it is undefined, and starts of guests that must be defined for it.
    pub(super) after_domains: Vec<Step>,
    pub(super) boot: Vec<Step>,
    directories: Vec<HostPath>,
}

impl Restored {
    /// Compares the entries with the machine.
    pub fn plan<'e>(host: &dyn Read, entries: impl Iterator<Item = &'e Entry>, how: How) -> Restored {
        let mut restored = Restored::default();
        let entries: Vec<&Entry> = entries.collect();
        for entry in &entries {
            restored.add(host, entry, how);
        }
        if how.disks {
            restored.keep_disks(&entries);
        }
        channels::first(&mut restored.attributes);
        // The inner ones first.
        restored.directories.sort_unstable_by(|a, b| b.cmp(a));
        restored.directories.dedup();
        restored
    }

    /// Everything in the order in which it is done, with the programs that read what changed.
    pub fn steps(&self, programs: &Programs) -> Vec<Step> {
        let run = |program, wanted: bool| wanted.then_some(Step::Run { program });
        let again = programs
            .again
            .iter()
            .filter(|(path, _)| !self.files.iter().any(|step| step.path() == Some(path)));
        let again = again.map(|(path, there)| (path, *there));
        let follow_ups = follow_ups(again.chain(super::changed(&self.files)));
        let mut paths = self.boot.iter().filter_map(Step::path);
        let generate = |asked: bool| !programs.keep_generated && asked;
        let update_grub = generate(programs.update_grub || paths.clone().any(is_of_debian));
        let mkconfig = generate(programs.mkconfig || paths.any(|path| path.as_str() == DEFAULT_GRUB));
        let mut steps = [self.attributes.clone(), self.files.clone()].concat();
        steps.extend(follow_ups.into_iter().map(|program| Step::Run { program }));
        steps.extend_from_slice(&self.domains);
        steps.extend_from_slice(&self.after_domains);
        let of_trial = |step: &Step| step.path().is_some_and(|path| path.as_str() == SCRIPT);
        steps.extend(run(Program::ForgetOnce, programs.forget_once || self.boot.iter().any(of_trial)));
        steps.extend_from_slice(&self.boot);
        steps.extend(run(Program::UpdateGrub, update_grub));
        steps.extend(run(Program::Mkconfig, mkconfig));
        steps.extend(self.directories());
        steps
    }

    /// The directories that were made for what is put back.
    pub(super) fn directories(&self) -> impl Iterator<Item = Step> {
        self.directories.iter().map(|path| Step::Directory { path: path.clone() })
    }

    /// A guest that stays defined, for nobody knows of it or somebody else changed it, keeps its disks.
    fn keep_disks(&mut self, entries: &[&Entry]) {
        for entry in entries {
            let Change::Domain { name, .. } = &entry.change else { continue };
            if self.finished.contains(&entry.path) {
                continue;
            }
            let of = |entry: &&&Entry| matches!(&entry.change, Change::Disk { guest, .. } if guest == name);
            for disk in entries.iter().filter(of) {
                self.after_domains.retain(|step| step.path() != Some(&disk.path));
                self.items.retain(|item| item.path.as_ref() != Some(&disk.path));
                self.finished.retain(|path| *path != disk.path);
                self.notes.push(format!("{} stays with guest {name}", disk.path));
            }
        }
    }

    fn add(&mut self, host: &dyn Read, entry: &Entry, how: How) {
        let path = &entry.path;
        let standing = match entry.standing(host) {
            _ if entry.is_of_another_boot(how.boot_id) => Standing::Gone,
            Ok(standing) => standing,
            Err(error) => {
                self.unread.push(path.clone());
                return self.notes.push(format!("{path} cannot be read: {error}; it is left as it is"));
            }
        };
        match standing {
            Standing::Gone => self.finished.push(path.clone()),
            Standing::Before => self.finish(entry),
            // What confirming a trial came to is kept in its record.
            Standing::Foreign(_) if path.as_str() == RECORD => self.put_back(host, entry, how),
            Standing::Foreign(_) if !how.live && entry.is_torn(host) => self.put_back(host, entry, how),
            // Whatever is asked for: what a guest has written is its own, and another may have it by now.
            Standing::Foreign(_) | Standing::Ours
                if matches!(entry.change, Change::Disk { .. })
                    && !(how.disks && matches!(standing, Standing::Ours)) =>
            {
                self.told.push(format!(
                    "the disk {path} stays; if nothing needs it, `rm {}` removes it",
                    quoted(path.as_str())
                ));
                self.finish(entry);
            }
            Standing::Foreign(now) if !how.force => self.notes.push(format!(
                "{path} was changed by somebody else since: {now}; it is left as it is, `revert --force` takes it back"
            )),
            Standing::Foreign(_) | Standing::Ours => self.put_back(host, entry, how),
        }
    }

    fn put_back(&mut self, host: &dyn Read, entry: &Entry, how: How) {
        let path = entry.path.clone();
        let text = |path: &HostPath| host.file(path).ok().map(|file| file.text().into_owned());
        if let (Some(reason), Change::Attribute { before, .. }) = (spared(entry, how), &entry.change) {
            self.waiting.push(format!("{path}: {reason}"));
            let mut item = item(entry, text(&path), before.trim().to_owned());
            item.observed.state = Stands::Waiting(reason);
            return self.items.push(item);
        }
        let (running, wanted) = match &entry.change {
            Change::Attribute { before, ours } => {
                let now = text(&path).unwrap_or_default();
                let was = ours.parse_like(before);
                let is = ours.parse_like(&now);
                let floor = how.live.then(|| pages_in_use(host, &path)).flatten();
                let (after, exact) = match (was, floor, &is) {
                    (Some(Value::Count(was)), Some(used), Some(Value::Count(is))) if used.min(*is) > was => {
                        let used = used.min(*is);
                        self.notes.push(format!(
                            "{path}: {used} pages are in use or reserved, and only those above are taken back; revert \
                             again when the guests are stopped"
                        ));
                        if used == *is {
                            return;
                        }
                        (Value::Count(used), None)
                    }
                    (was, ..) => {
                        self.finish(entry);
                        let raw = || Value::Text(before.trim_end_matches('\n').to_owned());
                        (was.unwrap_or_else(raw), Some(before.clone()))
                    }
                };
                let shown = (is.map(|value| value.to_string()), after.to_string());
                self.attributes.push(Step::Attribute { path, before: now, after, exact });
                shown
            }
            Change::File { before, .. } => {
                let now = host.node(&path).ok();
                let running = now.as_ref().map(shown);
                let after = match self.after(entry, now.as_ref(), before.as_ref()) {
                    Ok(after) => after,
                    Err(why) => return self.notes.push(format!("{path} keeps what is ours on it: {why}")),
                };
                self.finish(entry);
                if path.as_str() == IRQBALANCE_UNIT {
                    self.told.push(
                        "irqbalance may start again, and is not started now: `systemctl start irqbalance` does it"
                            .into(),
                    );
                }
                let step = file_step(path, now.as_ref(), after.as_ref());
                let start = after.is_some() && Connection::of_autostart(&entry.path).is_some();
                match (is_of_debian(&entry.path), entry.arguments.is_empty()) {
                    (true, _) | (_, false) => self.boot.push(step),
                    (false, true) if start => self.after_domains.push(step),
                    (false, true) => self.files.push(step),
                }
                (running, after.as_ref().map(shown).unwrap_or_default())
            }
            Change::Disk { guest, .. } => {
                self.finish(entry);
                self.after_domains.push(Step::Disk { guest: guest.clone(), path, copy: None });
                (Some("as it was made".into()), String::new())
            }
            Change::Domain { name, before, .. } => {
                self.finish(entry);
                let (after, metadata) = match before {
                    Some(Node::File { text, metadata }) => (Some(text.clone()), Some(metadata.clone())),
                    _ => (None, None),
                };
                let wanted = after.as_ref().map(|_| "as before".to_owned()).unwrap_or_default();
                let now = text(&path);
                let running = now.as_ref().map(|_| "defined".to_owned());
                self.domains.push(Step::Domain { name: name.clone(), path, before: now, after, metadata });
                (running, wanted)
            }
        };
        self.items.push(item(entry, running, wanted));
    }

    /// What a file becomes: as it was, or, where only words on its line are ours and others changed it since, as it is
    /// without them.
    fn after(
        &self,
        entry: &Entry,
        now: Option<&Node>,
        before: Option<&Node>,
    ) -> Result<Option<Node>, String> {
        match now {
            Some(Node::File { text, metadata }) if !entry.arguments.is_empty() => {
                let was = match before {
                    Some(Node::File { metadata, .. }) => metadata,
                    _ => metadata,
                };
                let after = boot::without(entry, text)?;
                Ok(after.map(|text| Node::File { text, metadata: was.clone() }))
            }
            _ => Ok(before.cloned()),
        }
    }

    /// Takes ours out of the lines that others made of lines with ours: the entries of new kernels.
    pub fn take_out_elsewhere(&mut self, boot: &Boot, state: &State) {
        let ours = state.arguments();
        let unknown = |line: &&Line| state.entry(&line.path).is_none_or(|entry| entry.arguments.is_empty());
        for line in boot.lines.iter().filter(unknown) {
            let Some(before) = &line.text else { continue };
            match rewrite(line.form, before, Known { ours: &ours, first: None }, &[]) {
                Ok(made) if made.text == *before => {}
                Ok(made) => {
                    let (path, before, mode) = (line.path.clone(), Some(before.clone()), line.mode);
                    self.finished.push(path.clone());
                    self.boot.push(Step::File { path, before, after: Some(made.text), mode, metadata: None });
                }
                Err(why) => self.notes.push(format!("{} may have arguments of ours: {why}", line.path)),
            }
        }
    }

    /// Nothing is left to do for it but the directories that were made for it.
    fn finish(&mut self, entry: &Entry) {
        self.finished.push(entry.path.clone());
        self.directories.extend(entry.directories.iter().cloned());
    }
}

/// Programs that are run whatever changes.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// Those that make files take effect, which are or are not there: a kill may have come between a file that was put
    /// back and its program.
    pub again: Vec<(HostPath, bool)>,
    /// `update-grub`.
    pub update_grub: bool,
    /// `grub2-mkconfig`.
    pub mkconfig: bool,
    /// The end of what `grub-reboot` asked for.
    pub forget_once: bool,
    /// No `update-grub`: what it generates is as it was before what is taken back.
    pub keep_generated: bool,
}

impl Programs {
    /// Those for the files of a run that is taken back, but for what is left as somebody else changed it.
    pub fn after<'e>(host: &dyn Read, entries: impl Iterator<Item = &'e Entry>, how: How) -> Programs {
        let left = |entry: &Entry| matches!(entry.standing(host), Ok(Standing::Foreign(_))) && !how.force;
        let file = |entry: &Entry| match &entry.change {
            Change::File { before, .. } if !left(entry) => Some((entry.path.clone(), before.is_some())),
            _ => None,
        };
        Programs { again: entries.filter_map(file).collect(), ..Programs::default() }
    }
}

/// A reading of `nr_hugepages` beside which the kernel says how many are free: those it must not go below. The
/// reserved ones are known for all nodes together, so they count on each.
fn pages_in_use(host: &dyn Read, path: &HostPath) -> Option<u64> {
    let (dir, name) = path.split();
    let dir = dir.filter(|_| name == "nr_hugepages")?;
    let number = |path: HostPath| host.file(&path).ok()?.text().trim().parse::<u64>().ok();
    let (there, free) = (number(path.clone())?, number(dir.join("free_hugepages"))?);
    let all = HostPath::new("/sys/kernel/mm/hugepages").join(dir.split().1);
    let reserved = number(all.join("resv_hugepages")).unwrap_or(0);
    Some(there.saturating_sub(free).saturating_add(reserved).min(there))
}

/// The step that puts a file or link back.
fn file_step(path: HostPath, now: Option<&Node>, after: Option<&Node>) -> Step {
    let (text, target) = match now {
        Some(Node::File { text, .. }) => (Some(text.clone()), None),
        Some(Node::Link { target }) => (None, Some(target.clone())),
        None => (None, None),
    };
    match after {
        Some(Node::File { text: after, metadata }) => Step::File {
            path,
            before: text,
            after: Some(after.clone()),
            mode: metadata.mode,
            metadata: Some(metadata.clone()),
        },
        Some(Node::Link { target: after }) => Step::Link { path, before: target, after: Some(after.clone()) },
        None if target.is_some() => Step::Link { path, before: target, after: None },
        None => {
            let mode = match now {
                Some(Node::File { metadata, .. }) => metadata.mode,
                _ => 0,
            };
            Step::File { path, before: text, after: None, mode, metadata: None }
        }
    }
}

fn shown(node: &Node) -> String {
    match node {
        Node::File { metadata: Metadata { mode, .. }, .. } => format!("a file, mode {mode:04o}"),
        Node::Link { target } => format!("-> {target}"),
    }
}

/// Whether update-grub of Debian reads it. Its /etc/default/grub is never touched.
fn is_of_debian(path: &HostPath) -> bool {
    let in_dir = |dir: &str| path.is_below(&HostPath::new(dir));
    in_dir(GRUB_D) || in_dir("/etc/grub.d")
}

/// Why an entry is not put back while guests run.
fn spared(entry: &Entry, how: How) -> Option<String> {
    let (running, command) = how.spared?;
    let knob = knobs::all().find(|knob| knob.id == entry.knob)?;
    running.waits(knob.disruption, Some(&entry.path), command)
}

fn item(entry: &Entry, running: Option<String>, wanted: String) -> Item {
    let reach = match &entry.change {
        Change::Domain { .. } | Change::Disk { .. } => Reach::GuestRestart,
        Change::File { .. } if entry.path.as_str() == DROP_IN || !entry.arguments.is_empty() => Reach::Reboot,
        Change::Attribute { .. } | Change::File { .. } => Reach::Live,
    };
    let knob = knobs::all().find(|knob| knob.id == entry.knob);
    Item {
        knob: knob.map_or("baseline", |knob| knob.id),
        label: entry.label.clone(),
        detail: String::new(),
        path: Some(entry.path.clone()),
        reach,
        disruption: knob.map_or(Disruption::None, |knob| knob.disruption),
        is_argument: false,
        observed: Observed { running, next_boot: None, state: Stands::Obsolete },
        wanted,
    }
}

/// A path as one word of a shell.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    if path.chars().all(plain) { path.into() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// The name that a guest is undefined by.
pub fn guest_name(name: &str) -> GuestName {
    GuestName::new(name).expect("profile and state file let no other name through")
}
