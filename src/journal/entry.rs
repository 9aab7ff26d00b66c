//! One thing that we change or changed: what was there before, and what we set.

use crate::formats::boot_line::Form;
use crate::formats::image::UNUSED;
use crate::formats::kernel_args::KernelArg;
use crate::formats::{Connection, HostPath, Image};
use crate::guest;
use crate::host::{Node, Read, ReadError};
use crate::resources::Value;
use serde::{Deserialize, Serialize};

/// One thing that we change or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The knob that asked for it.
    pub knob: String,
    /// What it is, for people.
    pub label: String,
    /// Where it is.
    pub path: HostPath,
    /// Before and after.
    #[serde(flatten)]
    pub change: Change,
    /// The kernel arguments that are ours on the line of somebody else's file; none where the whole file is ours.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub arguments: Vec<KernelArg>,
    /// The boot in which `before` was seen, for values of the running kernel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boot_id: Option<String>,
    /// Directories above it that were not there.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub directories: Vec<HostPath>,
}

/// Before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Change {
    /// A value in sysfs or procfs.
    Attribute {
        /// The kernel's text.
        before: String,
        /// What we set.
        ours: Value,
    },
    /// A file or a symbolic link; `None`: it does not exist.
    File {
        /// What was there.
        before: Option<Node>,
        /// What we put there.
        ours: Option<Node>,
    },
    /// A disk that was not there.
    Disk {
        /// The guest that it is of.
        guest: String,
        /// Whether we made it; else we have removed it again.
        ours: bool,
    },
    /// A guest's definition; `None`: it is not defined.
    Domain {
        /// The guest.
        name: String,
        /// The file that libvirt had.
        before: Option<Node>,
        /// What we defined.
        ours: Option<String>,
    },
}

/// How an entry stands to the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As it was before.
    Before,
    /// As we set it.
    Ours,
    /// Neither: somebody else changed it; what is there, for people.
    Foreign(String),
    /// The kernel does not have it any more.
    Gone,
}

impl Entry {
    /// Whether it speaks of something that has another meaning by now: the kernel numbers interrupts and threads anew
    /// at each boot.
    pub fn is_of_another_boot(&self, boot_id: Option<&str>) -> bool {
        let numbered = ["/proc/irq/", "/proc/"].iter().any(|dir| {
            let rest = self.path.as_str().strip_prefix(dir);
            rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        });
        numbered && self.boot_id.as_deref() != boot_id
    }

    /// Whether it is a number of huge pages.
    fn is_of_pages(&self) -> bool {
        self.path.split().1 == "nr_hugepages"
    }

    /// Whether a tree's file has the start of what we wrote to it over what was there: a write that was short, on a disk
    /// that was full. The kernel takes a value whole.
    pub fn is_torn(&self, host: &dyn Read) -> bool {
        let (Change::Attribute { before, ours }, Ok(file)) = (&self.change, host.file(&self.path)) else {
            return false;
        };
        torn(before.as_bytes(), ours.written(before).as_bytes(), &file.bytes)
    }

    /// Compares it with the machine.
    ///
    /// # Errors
    /// What is there now cannot be read.
    pub fn standing(&self, host: &dyn Read) -> Result<Standing, ReadError> {
        match &self.change {
            Change::Attribute { before, ours } => match host.file(&self.path) {
                Ok(file) => Ok(attribute(self.is_of_pages(), (before, ours), &file.text())),
                Err(ReadError::Absent) => Ok(Standing::Gone),
                Err(error) => Err(error),
            },
            Change::File { before, ours } => match there(host, &self.path) {
                Err(ReadError::Unsuitable) => Ok(Standing::Foreign("neither a text file nor a link".into())),
                now => {
                    let now = now?;
                    let whole = file(before.as_ref(), ours.as_ref(), now.as_ref());
                    Ok(match whole {
                        Standing::Foreign(_) if !self.arguments.is_empty() => {
                            self.on_its_line(now.as_ref(), whole)
                        }
                        whole => whole,
                    })
                }
            },
            Change::Disk { .. } => match host.image(&self.path) {
                Ok(Image { changed: UNUSED, .. }) => Ok(Standing::Ours),
                Ok(_) | Err(ReadError::Unsuitable) => Ok(Standing::Foreign("it is in use".into())),
                Err(ReadError::Absent) => Ok(Standing::Before),
                Err(error) => Err(error),
            },
            Change::Domain { before, ours, .. } => match there(host, &self.path) {
                Err(ReadError::Unsuitable) => Ok(Standing::Foreign("no definition".into())),
                now => Ok(domain(before.as_ref(), ours.as_deref(), now?.as_ref())),
            },
        }
    }

    /// As above for a line of which only some words are ours, where the file is neither as before nor as we wrote it.
    fn on_its_line(&self, now: Option<&Node>, otherwise: Standing) -> Standing {
        let text = match now {
            None => return Standing::Gone,
            Some(Node::File { text, .. }) => text,
            Some(Node::Link { .. }) => return otherwise,
        };
        let Ok(line) = Form::of(&self.path).line(text) else { return otherwise };
        let mut without = line.clone();
        without.take_out(&self.arguments);
        if without == line { Standing::Gone } else { Standing::Ours }
    }

    /// Whether there was nothing and there is nothing: what we put there we have taken away.
    pub(super) fn is_nothing(&self) -> bool {
        let nothing = match &self.change {
            Change::Attribute { .. } => false,
            Change::File { before, ours } => before.is_none() && ours.is_none(),
            Change::Disk { ours, .. } => !ours,
            Change::Domain { before, ours, .. } => before.is_none() && ours.is_none(),
        };
        nothing && self.directories.is_empty()
    }

    /// Takes over what a later run set; `before` stays.
    pub(super) fn take_ours(&mut self, later: &Entry) {
        (self.knob, self.label) = (later.knob.clone(), later.label.clone());
        self.arguments = later.arguments.clone();
        match (&mut self.change, &later.change) {
            (Change::Attribute { ours, .. }, Change::Attribute { ours: new, .. }) => *ours = new.clone(),
            (Change::File { ours, .. }, Change::File { ours: new, .. }) => *ours = new.clone(),
            (Change::Disk { ours, .. }, Change::Disk { ours: new, .. }) => *ours = *new,
            (Change::Domain { ours, .. }, Change::Domain { ours: new, .. }) => *ours = new.clone(),
            // Another kind of thing in its place: what was first is still what was first.
            _ => {}
        }
    }

    /// Refuses what this program would not have written.
    pub(super) fn check(&self, file: &str) -> Result<(), String> {
        let name = match &self.change {
            Change::Domain { name, .. } => name,
            Change::Disk { guest, .. } if crate::host::GuestName::new(guest).is_none() => {
                return Err(format!("{file} is damaged: it has a disk of guest {guest:?}"));
            }
            _ => return Ok(()),
        };
        let right = crate::host::GuestName::new(name).is_some()
            && Connection::of_definition(&self.path).is_some_and(|(_, defined)| defined == name);
        match right {
            true => Ok(()),
            false => Err(format!("{file} is damaged: it has a guest {name:?} at {}", self.path)),
        }
    }
}

/// What is at a path; `None` if nothing is.
fn there(host: &dyn Read, path: &HostPath) -> Result<Option<Node>, ReadError> {
    match host.node(path) {
        Ok(node) => Ok(Some(node)),
        Err(ReadError::Absent) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `now` is the start of `ours` and from there on `before`.
fn torn(before: &[u8], ours: &[u8], now: &[u8]) -> bool {
    let same = ours.iter().zip(now).take_while(|(ours, now)| ours == now).count();
    (1..=same).any(|taken| now[taken..] == before[taken.min(before.len())..])
}

/// `pages` are granted in part: any number between what was and what was asked for is ours.
fn attribute(pages: bool, (before, ours): (&str, &Value), now: &str) -> Standing {
    // Its number went to another thread.
    if ours.is_of_a_thread() && !now.is_empty() && !ours.is_same_thread(before, now) {
        return Standing::Gone;
    }
    // In a tree a line is written over the old one, which is cut off behind it only then: a kill between the two.
    if !matches!(ours, Value::Affinity(_))
        && let Some((line, rest)) = now.split_once('\n').filter(|(_, rest)| !rest.is_empty())
        && now != before
    {
        return match attribute(pages, (before, ours), line) {
            Standing::Foreign(_) => Standing::Foreign(format!("{line} {}", rest.trim())),
            _ => Standing::Ours,
        };
    }
    let (was, is) = (ours.parse_like(before), ours.parse_like(now));
    match (&was, ours, &is) {
        _ if now == before => Standing::Before,
        (Some(was), _, Some(is)) if was == is => Standing::Before,
        (_, ours, Some(is)) if ours == is => Standing::Ours,
        (Some(Value::Count(was)), Value::Count(ours), Some(Value::Count(is)))
            if pages && (was.min(ours)..=was.max(ours)).contains(&is) =>
        {
            Standing::Ours
        }
        _ => Standing::Foreign(now.trim().to_owned()),
    }
}

fn file(before: Option<&Node>, ours: Option<&Node>, now: Option<&Node>) -> Standing {
    match now {
        now if now == before => Standing::Before,
        now if same(now, ours) => Standing::Ours,
        now if same(now, before) => Standing::Before,
        None => Standing::Foreign("nothing".into()),
        Some(Node::File { .. }) => Standing::Foreign("other content".into()),
        Some(Node::Link { target }) => Standing::Foreign(format!("-> {target}")),
    }
}

/// Whether the same is there, whosever it is.
fn same(one: Option<&Node>, other: Option<&Node>) -> bool {
    match (one, other) {
        (Some(Node::File { text, .. }), Some(Node::File { text: other, .. })) => text == other,
        (one, other) => one == other,
    }
}

/// By meaning: libvirt rewrites what it is given.
fn domain(before: Option<&Node>, ours: Option<&str>, now: Option<&Node>) -> Standing {
    let text = |node: Option<&Node>| match node {
        Some(Node::File { text, .. }) => Some(text.clone()),
        _ => None,
    };
    let (was, is) = (text(before), text(now));
    let means = |wanted: Option<&str>| match (is.as_deref(), wanted) {
        (Some(is), Some(wanted)) => guest::differences(is, wanted).is_ok_and(|found| found.is_empty()),
        (is, wanted) => is == wanted,
    };
    match &is {
        _ if now == before || (is.is_some() && is == was) => Standing::Before,
        _ if means(ours) => Standing::Ours,
        _ if means(was.as_deref()) => Standing::Before,
        None => Standing::Foreign("not defined".into()),
        Some(_) => Standing::Foreign("another definition".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::CpuSet;

    #[test]
    fn half_a_value_is_known() {
        let torn = |now: &str| torn(b"0-15\n", b"0-1,8-9\n", now.as_bytes());
        assert!(torn("0-1,\n") && torn("0-1,8") && torn("0-1,8-9"));
        for other in ["", "1-15\n", "0-1\n", "0-1,9-9", "0-16\n"] {
            assert!(!torn(other), "{other:?}");
        }
    }

    #[test]
    fn attributes_are_compared_as_values() {
        let list = Value::List(CpuSet::parse_list("0-1").unwrap());
        let foreign = |text: &str| Standing::Foreign(text.into());
        for (now, standing) in [
            ("0-15\n", Standing::Before),
            ("0-7,8-15\n", Standing::Before),
            ("0-1\n", Standing::Ours),
            ("0,1", Standing::Ours),
            ("0-1\n\n", Standing::Ours),
            ("0-15\n-9\n", Standing::Ours),
            ("4\n", foreign("4")),
            ("4\n5\n", foreign("4 5")),
            ("?\n", foreign("?")),
        ] {
            assert_eq!(attribute(false, ("0-15\n", &list), now), standing, "{now:?}");
        }
        for (now, standing) in [
            ("4\n", Standing::Before),
            ("25\n", Standing::Ours),
            ("20\n", Standing::Ours),
            ("3\n", foreign("3")),
        ] {
            assert_eq!(attribute(true, ("4\n", &Value::Count(25)), now), standing, "{now:?}");
        }
        // Of anything else a value between the two is somebody's own.
        assert_eq!(attribute(false, ("4\n", &Value::Count(25)), "20\n"), foreign("20"));
        let channels = attribute(true, ("combined 8 of 8\n", &Value::Channels(2)), "combined 4 of 8\n");
        assert_eq!(channels, foreign("combined 4 of 8"));
    }
}
