//! Paths on the machine that is worked on, as opposed to paths of the process that works.

use std::fmt::{self, Write};

/// An absolute path below the root that a [`crate::host`] works in.
///
/// Not a `std::path::Path`, and not convertible to one: with `--root` the same path names a file in a tree or
/// in a capture, and only the host layer can resolve it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPath(String);

impl HostPath {
    /// A path from its absolute text.
    ///
    /// # Panics
    /// If the text is not absolute, ends in `/`, or has an empty, `.` or `..` component or a NUL. Paths come
    /// from this program's own constants and from names that were checked; anything else is a defect.
    pub fn new(text: impl Into<String>) -> HostPath {
        let text = text.into();
        assert!(text.strip_prefix('/').is_some_and(is_plain), "{text:?} is not a plain absolute path");
        HostPath(text)
    }

    /// The path of `name` in this directory; `name` may have several components.
    ///
    /// # Panics
    /// As [`HostPath::new`].
    pub fn join(&self, name: impl fmt::Display) -> HostPath {
        // One allocation for most: a machine has tens of thousands of paths.
        let mut text = String::with_capacity(self.0.len() + 32);
        text.push_str(&self.0);
        write!(text, "/{name}").expect("a String takes all");
        assert!(is_plain(&text[self.0.len() + 1..]), "{text:?} is not a plain absolute path");
        HostPath(text)
    }

    /// The absolute text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without its leading slash, for resolving against a directory.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// Whether it is in this directory, or in one of that.
    pub fn is_below(&self, dir: &HostPath) -> bool {
        self.0.strip_prefix(&dir.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The directory and the last component; the directory is `None` for a path directly below the root.
    pub fn split(&self) -> (Option<HostPath>, &str) {
        let (dir, name) = self.0.rsplit_once('/').expect("absolute");
        ((!dir.is_empty()).then(|| HostPath(dir.to_owned())), name)
    }
}

/// Whether no component is empty, `.` or `..`, and none has a NUL.
fn is_plain(relative: &str) -> bool {
    let parts = relative.as_bytes().split(|byte| *byte == b'/');
    parts.into_iter().all(|part| !matches!(part, b"" | b"." | b"..") && !part.contains(&0))
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// From a file of ours that somebody may have edited: what [`HostPath::new`] would not take is an error.
impl<'de> serde::Deserialize<'de> for HostPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<HostPath, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix('/').is_some_and(is_plain) {
            true => Ok(HostPath(text)),
            false => Err(serde::de::Error::custom(format!("{text:?} is not a plain absolute path"))),
        }
    }
}

impl serde::Serialize for HostPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_and_splits() {
        let path = HostPath::new("/proc/irq").join(format_args!("{}/smp_affinity", 7));
        assert_eq!(path.as_str(), "/proc/irq/7/smp_affinity");
        assert_eq!(path.relative(), "proc/irq/7/smp_affinity");
        assert_eq!(path.split(), (Some(HostPath::new("/proc/irq/7")), "smp_affinity"));
    }

    #[test]
    fn refuses_what_could_escape() {
        for bad in ["", "/", "etc", "/etc/", "/etc//x", "/etc/../x", "/./x", "/a\0b"] {
            assert!(std::panic::catch_unwind(|| HostPath::new(bad)).is_err(), "{bad:?}");
            let joined = || HostPath::new("/a").join(bad);
            assert!(bad == "etc" || std::panic::catch_unwind(joined).is_err(), "{bad:?}");
        }
    }
}
