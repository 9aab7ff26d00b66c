//! A snapshot as one text file that a person can review before sending it.
//!
//! ```text
//! # any comment
//! rtkvm-tune capture 1
//! /sys/devices/system/cpu/online [0444]: 0-15
//! /proc/cpuinfo [0444]|
//!   | processor : 0
//!   | vendor_id : GenuineIntel
//! /sys/devices/system/node/: has_cpu node0 node1
//! /etc/localtime -> /usr/share/zoneinfo/UTC
//! /boot/grub/grub.cfg !EACCES
//! ```
//! `\xNN` stands for a byte that is not printable ASCII (or UTF-8), `\\` for a backslash. A block whose last
//! line is not ended by a newline is closed with `  \`.

use super::{Entry, File, ReadError, Snapshot};
use crate::formats::HostPath;
use nix::errno::Errno;
use std::fmt::Write;
use std::rc::Rc;

/// The first line of a capture that is not a comment.
pub(super) const MAGIC: &str = "rtkvm-tune capture 1";

/// Errors that a read may end in and a capture can name.
const ERRORS: [(&str, Errno); 6] = [
    ("EACCES", Errno::EACCES),
    ("EPERM", Errno::EPERM),
    ("EIO", Errno::EIO),
    ("EINVAL", Errno::EINVAL),
    ("ELOOP", Errno::ELOOP),
    ("EBUSY", Errno::EBUSY),
];

/// What only `ethtool` tells, on a machine that has it not.
const NO_ETHTOOL: &str = "no-ethtool";

impl Snapshot {
    /// Everything that was read so far, as a capture.
    pub fn to_capture(&self) -> String {
        let mut out = format!("{MAGIC}\n");
        for (path, entry) in self.entries() {
            let path = escape(path.as_str().as_bytes(), true);
            let result = match entry {
                Entry::File(file) => write_file(&mut out, &path, &file),
                Entry::List(names) => {
                    let names: Vec<_> = names.iter().map(|name| escape(name.as_bytes(), true)).collect();
                    writeln!(out, "{}", format!("{path}/: {}", names.join(" ")).trim_end())
                }
                Entry::Link(target) => writeln!(out, "{path} -> {}", escape(target.as_bytes(), true)),
                Entry::Error(ReadError::Refused(errno)) => {
                    let name = ERRORS.iter().find(|(_, e)| *e == errno).map_or("EIO", |(name, _)| name);
                    writeln!(out, "{path} !{name}")
                }
                Entry::Error(ReadError::NoEthtool) => writeln!(out, "{path} !{NO_ETHTOOL}"),
                Entry::Error(_) => writeln!(out, "{path} !unsuitable"),
            };
            result.expect("writing to a String cannot fail");
        }
        out
    }

    /// Reads a capture.
    ///
    /// # Errors
    /// The line number and what is wrong with it.
    pub fn from_capture(text: &str) -> Result<Snapshot, String> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')).peekable();
        match lines.next() {
            Some((_, line)) if line == MAGIC => {}
            Some((_, line)) if line.starts_with("rtkvm-tune capture") => {
                let line = escape(line.as_bytes(), false);
                return Err(format!(
                    "`{line}`: only version 1 captures are known here; use a newer rtkvm-tune"
                ));
            }
            _ => return Err(format!("not a capture: the first line must be `{MAGIC}`")),
        }
        let mut entries = Vec::new();
        while let Some((number, line)) = lines.next() {
            let shown = || escape(line.as_bytes(), false);
            let fail = |what: &str| format!("line {}: {what}: `{}`", number + 1, shown());
            if line.is_empty() {
                continue;
            }
            let (path, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (name, entry) = if let Some(path) = path.strip_suffix("/:") {
                let names = rest.split_whitespace().map(text_of).collect::<Option<Vec<_>>>();
                let names = names.ok_or_else(|| fail("bad escape"))?;
                if !names.iter().all(|name| is_name(name)) {
                    return Err(fail("a directory has no such name"));
                }
                (path, Entry::List(Rc::new(names)))
            } else if let Some(target) = rest.strip_prefix("-> ") {
                (path, Entry::Link(text_of(target).ok_or_else(|| fail("bad escape"))?.into()))
            } else if let Some(name) = rest.strip_prefix('!') {
                let errno = ERRORS.iter().find(|(n, _)| *n == name).map(|(_, e)| ReadError::Refused(*e));
                let otherwise = if name == NO_ETHTOOL { ReadError::NoEthtool } else { ReadError::Unsuitable };
                (path, Entry::Error(errno.unwrap_or(otherwise)))
            } else {
                let (mode, value) = rest
                    .strip_prefix('[')
                    .and_then(|rest| rest.split_once(']'))
                    .and_then(|(mode, value)| Some((u32::from_str_radix(mode, 8).ok()?, value)))
                    .ok_or_else(|| fail("no value"))?;
                let mut bytes = Vec::new();
                if let Some(value) = value.strip_prefix(':') {
                    let value = value.strip_prefix(' ').unwrap_or(value);
                    bytes = unescape(value).ok_or_else(|| fail("bad escape"))?;
                    bytes.push(b'\n');
                } else if value == "|" {
                    while let Some((number, line)) = lines.next_if(|(_, l)| l.starts_with("  ")) {
                        if line == "  \\" {
                            bytes.pop();
                            break;
                        }
                        let line =
                            line.strip_prefix("  |").map(|line| line.strip_prefix(' ').unwrap_or(line));
                        let line = line.and_then(unescape);
                        bytes.extend(line.ok_or_else(|| format!("line {}: not a `  | ` line", number + 1))?);
                        bytes.push(b'\n');
                    }
                } else {
                    return Err(fail("neither `:` nor `|` after the mode"));
                }
                (path, Entry::File(Rc::new(File { bytes, mode })))
            };
            let name = text_of(name)
                .filter(|name| is_plain(name))
                .ok_or_else(|| fail("not a plain absolute path"))?;
            entries.push((HostPath::new(name), entry));
        }
        Ok(Snapshot::recorded(entries))
    }
}

/// Whether [`HostPath::new`] takes it.
fn is_plain(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_name))
}

/// Whether a directory can have an entry of this name beside `.` and `..`.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

fn write_file(out: &mut String, path: &str, file: &File) -> std::fmt::Result {
    let mode = file.mode;
    let body = file.bytes.strip_suffix(b"\n");
    match body {
        Some(line) if !line.contains(&b'\n') => {
            writeln!(out, "{}", format!("{path} [{mode:04o}]: {}", escape(line, false)).trim_end_matches(' '))
        }
        _ => {
            writeln!(out, "{path} [{mode:04o}]|")?;
            let lines = body.unwrap_or(&file.bytes);
            if !file.bytes.is_empty() {
                for line in lines.split(|b| *b == b'\n') {
                    writeln!(out, "{}", format!("  | {}", escape(line, false)).trim_end_matches(' '))?;
                }
                if body.is_none() {
                    out.push_str("  \\\n");
                }
            }
            Ok(())
        }
    }
}

/// Printable text as it is; a space at the end of a line, or any space in a name, as `\x20`.
fn escape(bytes: &[u8], name: bool) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                ' ' if name => out.push_str("\\x20"),
                '\t' if !name => out.push('\t'),
                c if c.is_control() || c == '\u{feff}' || ('\u{2028}'..='\u{202e}').contains(&c) => {
                    c.to_string().bytes().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
                }
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
    }
    if out.ends_with(' ') {
        out.pop();
        out.push_str("\\x20");
    }
    out
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        match rest {
            [b'\\', tail @ ..] => {
                bytes.push(b'\\');
                rest = tail;
            }
            [b'x', a, b, tail @ ..] => {
                let digit = |d: &u8| (*d as char).to_digit(16);
                bytes.push((digit(a)? * 16 + digit(b)?) as u8);
                rest = tail;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

fn text_of(text: &str) -> Option<String> {
    String::from_utf8(unescape(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(bytes: &[u8]) -> Entry {
        Entry::File(Rc::new(File { bytes: bytes.to_vec(), mode: 0o644 }))
    }

    proptest! {
        #[test]
        fn every_content_round_trips(contents in prop::collection::vec(
            prop_oneof![prop::collection::vec(any::<u8>(), 0..20), "[ -~\n\t]{0,30}".prop_map(String::into_bytes)], 1..5),
            names in prop::collection::vec("[a-z \\\\é#|:]{1,8}", 0..4)) {
            let mut entries: Vec<_> = contents.iter().enumerate()
                .map(|(i, bytes)| (HostPath::new(format!("/proc/with space/{i}")), file(bytes))).collect();
            entries.push((HostPath::new("/proc/dir"), Entry::List(Rc::new(names))));
            entries.push((HostPath::new("/proc/link"), Entry::Link("a b/../c".into())));
            entries.push((HostPath::new("/proc/no"), Entry::Error(ReadError::Refused(Errno::EPERM))));
            entries.push((HostPath::new("/proc/none"), Entry::Error(ReadError::NoEthtool)));
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            let text = Snapshot::recorded(entries.clone()).to_capture();
            prop_assert_eq!(Snapshot::from_capture(&text).unwrap().entries(), entries);
        }

        #[test]
        fn no_text_panics(text in "(.|\n){0,200}") {
            let _ = Snapshot::from_capture(&text);
            let _ = Snapshot::from_capture(&format!("{MAGIC}\n{text}"));
        }
    }

    #[test]
    fn errors_name_the_line() {
        let error = |body: &str| Snapshot::from_capture(&format!("{MAGIC}\n{body}")).err().unwrap();
        assert!(error("/a [0444]: 1\nnonsense\n").starts_with("line 3: no value"));
        assert!(error("/../etc/passwd [0444]: 1\n").contains("plain absolute path"));
        for name in ["../x.xml", "..", ".", "a/b", "/", "\\x00"] {
            let error = error(&format!("/a/: b {name}\n"));
            assert!(error.starts_with("line 2: a directory has no such name: `/a/: b "), "{error}");
        }
        assert!(error("/a [9]: 1\n").contains("no value"));
        assert!(Snapshot::from_capture("rtkvm-tune capture 2\n").err().unwrap().contains("newer"));
    }
}
