//! The rules for names, paths and kernel arguments: what is safe in a path, in XML and on a command line.

use crate::formats::kernel_args::KernelArg;

/// A character for a message: quoted, or by number when it cannot be seen.
pub(super) fn character(c: char) -> String {
    match c {
        '\n' => "newline".into(),
        '`' => "backquote".into(),
        ' '..='~' => format!("`{c}`"),
        c if c.is_alphanumeric() => format!("`{c}`"),
        c => format!("U+{:04X}", u32::from(c)),
    }
}

/// A value for a message, cut when it is long.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 40;
    if text.is_empty() {
        return "an empty string".into();
    }
    match text.char_indices().nth(LONGEST) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}...`", &text[..end]),
    }
}

/// A name that goes into paths and XML: 1 to 64 characters.
fn name(text: &str, what: &str) -> Result<(), String> {
    let length = text.chars().count();
    if !(1..=64).contains(&length) {
        return Err(format!("a {what} has 1 to 64 characters, not {length}"));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.+-".contains(*c)) {
        return Err(format!("a {what} has no {}: use letters, digits and _ . + -", character(c)));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("a {what} starts with a letter or a digit"));
    }
    Ok(())
}

/// The name of a guest.
pub(super) fn guest_name(text: &str) -> Result<(), String> {
    name(text, "guest name")
}

/// The name of a template file.
pub(super) fn template(text: &str) -> Result<(), String> {
    name(text, "template name")?;
    match text.ends_with(".xml") {
        true => Ok(()),
        // The renderer escapes for XML by this ending.
        false => Err("a template name ends in .xml".into()),
    }
}

/// The name of a network interface: `IFNAMSIZ` is 16, with the terminating NUL.
pub(super) fn interface(text: &str) -> Result<(), String> {
    if !(1..=15).contains(&text.len()) {
        return Err(format!("an interface name has 1 to 15 characters, not {}", text.chars().count()));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.-".contains(*c)) {
        return Err(format!("an interface name has no {}: use letters, digits and _ . -", character(c)));
    }
    match text {
        "." | ".." => Err(format!("the kernel refuses `{text}` as an interface name")),
        _ => Ok(()),
    }
}

/// The path of a disk: plain and absolute, so that what is written is what is opened.
pub(super) fn disk_source(text: &str) -> Result<(), String> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err("a disk is named by its absolute path, as in \"/dev/vg0/rt0\"".into());
    };
    if let Some(c) = text.chars().find(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
        return Err(format!("a path has no {}", character(c)));
    }
    if text.len() > 4095 {
        return Err(format!("a path has at most 4095 bytes, not {}", text.len()));
    }
    match rest.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some("") if rest.ends_with('/') || rest.is_empty() => Err("a disk is not a directory".into()),
        Some("") => Err("write one `/` between two names".into()),
        Some(part) => Err(format!("write the path without `{part}`")),
        None => Ok(()),
    }
}

/// The key to use for a kernel argument that this program sets itself.
fn key_for(name: &str) -> Option<&'static str> {
    match name {
        "isolcpus" | "nohz_full" | "rcu_nocbs" => Some("`isolated-cpus` or a housekeeping key of [host]"),
        "irqaffinity" => Some("`housekeeping-cpus` or `housekeeping-cpus-per-node` of [host]"),
        "default_hugepagesz" | "hugepagesz" => Some("`size` of [host.hugepages]"),
        "hugepages" => Some("`count` of [host.hugepages]"),
        _ => None,
    }
}

/// One extra kernel argument: safe to write, and not one that follows from other keys.
pub(super) fn kernel_argument(text: &str) -> Result<(), String> {
    let name = KernelArg::parse(text)?.name().replace('-', "_");
    // The kernel takes `-` for `_` in names.
    match key_for(&name) {
        Some(key) => Err(format!("`{name}` is set by this program: use {key}")),
        None => Ok(()),
    }
}
