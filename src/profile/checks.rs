//! The rules for names, paths and kernel arguments: what is safe in a path, in XML and on a command line.

use super::{Choice, FeaturePolicy};
use crate::formats::character;
use crate::formats::kernel_args::KernelArg;

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

/// A unicast MAC address: the lowest bit of the first byte makes a group of it.
pub(super) fn mac(text: &str) -> Result<(), String> {
    let pairs: Vec<Option<u8>> = text
        .split(':')
        .map(|pair| {
            let plain = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
        })
        .collect();
    match pairs.into_iter().collect::<Option<Vec<u8>>>().as_deref() {
        Some([0, 0, 0, 0, 0, 0]) => Err("the address of all zeros is nobody's".into()),
        Some([first, _, _, _, _, _]) if first & 1 == 0 => Ok(()),
        Some([_, _, _, _, _, _]) => Err("it is the address of a group: its first byte is odd".into()),
        _ => Err("a MAC address is six pairs of hexadecimal digits, as in \"52:54:00:12:34:56\"".into()),
    }
}

/// The name of a network of libvirt.
pub(super) fn network(text: &str) -> Result<(), String> {
    name(text, "network name")
}

/// One `name` or `name=policy` of `cpu-features`.
pub(super) fn cpu_feature(text: &str) -> Result<(), String> {
    let (name, policy) = text.split_once('=').unwrap_or((text, "require"));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if !(1..=64).contains(&name.len()) || !name.chars().all(plain) {
        return Err("a CPU feature is named by small letters, digits and . _ -, as in \"invtsc\"".into());
    }
    if name == "tsc_deadline" {
        return Err("libvirt calls it `tsc-deadline`, and starts no guest with this name".into());
    }
    match FeaturePolicy::NAMES.contains(&policy) {
        true => Ok(()),
        false => {
            let (last, most) = FeaturePolicy::NAMES.split_last().expect("policies");
            Err(format!("the policy of a CPU feature is {} or {last}", most.join(", ")))
        }
    }
}

/// The path of a socket: `sun_path` has 108 bytes with the terminating NUL (unix(7)).
pub(super) fn socket(text: &str) -> Result<(), String> {
    path(text, "a socket", "/run/openvswitch/rt0.sock")?;
    match text.len() {
        0..=107 => Ok(()),
        length => Err(format!("the path of a socket has at most 107 bytes, not {length}")),
    }
}

/// The path of a disk.
pub(super) fn disk_source(text: &str) -> Result<(), String> {
    path(text, "a disk", "/dev/vg0/rt0")
}

/// A path of `what`: plain and absolute, so that what is written is what is opened.
fn path(text: &str, what: &str, example: &str) -> Result<(), String> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(format!("{what} is named by its absolute path, as in \"{example}\""));
    };
    if let Some(c) = text.chars().find(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
        return Err(format!("a path has no {}", character(c)));
    }
    if text.len() > 4095 {
        return Err(format!("a path has at most 4095 bytes, not {}", text.len()));
    }
    match rest.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some("") if rest.ends_with('/') || rest.is_empty() => Err(format!("{what} is not a directory")),
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

/// The id of a guest's setup.
pub(super) fn instance_id(text: &str) -> Result<(), String> {
    name(text, "instance id")
}

/// A public key as `authorized_keys` has it, without options: type, key, comment.
pub(super) fn ssh_key(text: &str) -> Result<(), String> {
    if let Some(c) = text.chars().find(|c| c.is_control() || !c.is_ascii()) {
        return Err(format!("a public key has no {}", character(c)));
    }
    let mut words = text.split(' ');
    let kind = words.next().unwrap_or_default();
    let known =
        ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"].iter().any(|start| kind.starts_with(start));
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let key = words.next().unwrap_or_default();
    match known && key.len() >= 32 && key.chars().all(base64) && text.len() <= 8192 {
        true => Ok(()),
        false => Err("expected one line of a .pub file, as \"ssh-ed25519 AAAA... name\"".into()),
    }
}

/// A kernel argument of a guest: nothing that a shell takes for more than a word, in double quotes or out of them.
pub(super) fn guest_argument(text: &str) -> Result<(), String> {
    if !(1..=256).contains(&text.len()) {
        return Err(format!("a kernel argument has 1 to 256 characters here, not {}", text.len()));
    }
    match text.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.,:=/+@%-".contains(*c)) {
        Some(c) => Err(format!("a guest's kernel argument has no {}", character(c))),
        None => Ok(()),
    }
}
