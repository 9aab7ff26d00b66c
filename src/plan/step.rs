//! One thing that a run does.

use crate::formats::{HostPath, ImageCopy};
use crate::host::{Metadata, Program};
use crate::resources::Value;
use serde::Serialize;

/// One thing that apply does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Step {
    /// Write a kernel attribute and read it back.
    Attribute {
        /// The file.
        path: HostPath,
        /// Its text before.
        before: String,
        /// The value.
        #[serde(serialize_with = "for_kernel")]
        after: Value,
        /// The kernel's text with that value, where it is known because it was there before.
        #[serde(skip)]
        exact: Option<String>,
    },
    /// Replace, make or remove a whole file.
    File {
        /// The file.
        path: HostPath,
        /// Its text before; `None` if it does not exist.
        before: Option<String>,
        /// Its text after; `None` to remove it.
        after: Option<String>,
        /// Its permission bits, unless it is there and only its owner can change it.
        mode: u32,
        /// Whose it was, where it is put back.
        #[serde(skip)]
        metadata: Option<Metadata>,
    },
    /// Make, replace or remove a symbolic link.
    Link {
        /// Where.
        path: HostPath,
        /// Its target before.
        before: Option<String>,
        /// Its target after; `None` to remove it.
        after: Option<String>,
    },
    /// Make the disk of a guest, or remove it: only one that nothing has written to.
    Disk {
        /// Its name.
        guest: String,
        /// Where the disk is.
        path: HostPath,
        /// What makes it; `None` to remove it.
        copy: Option<ImageCopy>,
    },
    /// Remove a directory that was made for something that is no longer there; if it is empty.
    Directory {
        /// Which.
        path: HostPath,
    },
    /// Run a program; on a tree this is left to the operator.
    Run {
        /// Which.
        #[serde(serialize_with = "command")]
        program: Program,
    },
    /// Define a guest, or undefine it.
    Domain {
        /// Its name.
        name: String,
        /// Where libvirt keeps it.
        path: HostPath,
        /// The definition before.
        before: Option<String>,
        /// The rendered document, or the definition that is put back; `None` to undefine it.
        after: Option<String>,
        /// Whose the file was, where it is put back in a tree.
        #[serde(skip)]
        metadata: Option<Metadata>,
    },
}

impl Step {
    /// What it changes; `None` for a program, and for a directory, which follows what is in it.
    pub fn path(&self) -> Option<&HostPath> {
        match self {
            Step::Attribute { path, .. }
            | Step::File { path, .. }
            | Step::Link { path, .. }
            | Step::Disk { path, .. }
            | Step::Domain { path, .. } => Some(path),
            Step::Run { .. } | Step::Directory { .. } => None,
        }
    }

    /// Whether it does the same as a step of another plan. A thread's times, which go on, make no difference.
    pub(super) fn is_like(&self, other: &Step) -> bool {
        match (self, other) {
            (
                Step::Attribute { path, before, after, exact },
                Step::Attribute { path: to, before: now, after: want, exact: put_back },
            ) => (path, after, exact) == (to, want, put_back) && after.is_unchanged(before, now),
            _ => self == other,
        }
    }
}

fn for_kernel<S: serde::Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.for_kernel())
}

fn command<S: serde::Serializer>(program: &Program, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&program.command())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Policy;

    #[test]
    fn the_times_of_a_thread_make_no_other_step() {
        const LINE: &str = "24 (ksoftirqd/2) S 2 0 0 0 -1 69238848 0 0 0 0 0 7 0 0 20 0 1 0 5 0 0 \
            18446744073709551615 0 0 0 0 0 0 0 2147483647 0 0 0 0 17 2 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        let step = |before: &str, priority| Step::Attribute {
            path: HostPath::new("/proc/24/stat"),
            before: before.to_owned(),
            after: Value::Policy(Policy::Fifo(priority)),
            exact: None,
        };
        assert!(step(LINE, 2).is_like(&step(&LINE.replace(" S 2 0 0 0 ", " R 2 0 0 0 "), 2)));
        assert!(step(LINE, 2).is_like(&step(&LINE.replace(" 7 0 0 20 ", " 8 0 0 20 "), 2)));
        assert!(!step(LINE, 2).is_like(&step(LINE, 4)));
        // Another thread that has its number now, and somebody else's priority.
        assert!(!step(LINE, 2).is_like(&step(&LINE.replace(" 0 5 0 0 ", " 0 6 0 0 "), 2)));
        assert!(!step(LINE, 2).is_like(&step(&LINE.replace(" 17 2 0 0 ", " 17 2 2 1 "), 2)));
    }
}
