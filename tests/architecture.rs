//! The rules that hold the program together: its layers, where effects may be, the write capability, the
//! registry of knobs, and what must not be in any file. CONTRIBUTING.md says them in words.

#[path = "architecture/source.rs"]
mod source;

use rtkvm_tune::knobs;
use source::Source;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The layers from the lowest. Each uses only lower ones; those on one line do not know each other.
const LAYERS: &[&[&str]] = &[
    &["formats"],
    &["host"],
    &["facts", "profile"],
    &["placement"],
    &["guest"],
    &["resources"],
    &["knobs"],
    &["journal"],
    &["plan"],
    &["engine"],
    &["cli"],
];

/// What a layer between `host` and `engine` may use of `host`: reading only. The others: nothing.
const OF_HOST: &[(&str, &[&str])] = &[
    ("facts", &["Node", "Read", "ReadError"]),
    ("resources", &["Program", "Read", "ReadError"]),
    ("journal", &["GuestName", "Node", "Read", "ReadError"]),
    ("plan", &["GuestName", "Metadata", "Node", "Program", "Read", "ReadError"]),
];

/// What has effects, or an answer that is not in its arguments.
const EFFECTS: &[&str] =
    &["std::env", "std::fs", "std::io", "std::net", "std::os", "std::process", "std::thread", "std::time"];

/// What is named like an effect and has none by itself: writing to memory.
const IN_MEMORY: &[&str] = &["std::io::Write", "std::io::Result", "std::io::ErrorKind"];

/// Crates for effects, and the layers above `host` that may use a part of them all the same.
const EFFECT_CRATES: &[(&str, &[&str])] = &[("nix", &["cli", "engine"]), ("libc", &[]), ("rustix", &[])];

/// The files that may name the write capability.
const WRITERS: [&str; 6] = [
    "src/host/",
    "src/engine/",
    "src/cli/apply.rs",
    "src/cli/change.rs",
    "src/cli/confirm.rs",
    "src/cli/revert.rs",
];

/// The most lines of a Rust file.
const MOST_LINES: usize = 600;

/// A rule: what is wrong with a file, each with its line.
type Rule = fn(&Source) -> Vec<(usize, String)>;

/// The number of a layer.
fn number(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&layer))
}

fn layers(source: &Source) -> Vec<(usize, String)> {
    let Some(own) = source.layer() else { return only_cli(source) };
    let Some(at) = number(&own) else {
        return vec![(1, format!("`{own}` is no layer: name it in LAYERS of tests/architecture.rs"))];
    };
    let mut found = Vec::new();
    for named in &source.paths {
        let mut wrong = |what: String| found.push((named.line, what));
        match Source::in_crate(named) {
            None if named.words == ["crate"] => wrong("another name for the crate hides what is used".into()),
            Some((layer, _)) if layer == own => {}
            Some((layer, below)) => match number(layer) {
                None => wrong(format!("`crate::{layer}` is no layer")),
                Some(other) if other >= at => wrong(format!("{own} ({at}) uses {layer} ({other})")),
                Some(_) if layer == "host" && at < number("engine").unwrap_or(0) => {
                    let allowed = OF_HOST.iter().find(|(name, _)| *name == own).map_or(&[][..], |(_, of)| of);
                    if below.first().is_none_or(|name| !allowed.contains(&name.as_str())) {
                        wrong(format!("{own} may use only {allowed:?} of host, not `{}`", below.join("::")));
                    }
                }
                Some(_) => {}
            },
            None => {}
        }
    }
    found
}

/// The roots of the crates: main.rs starts the command line, and nothing else is used.
fn only_cli(source: &Source) -> Vec<(usize, String)> {
    let used = source.paths.iter().filter_map(|named| Some((named.line, Source::in_crate(named)?.0)));
    let wrong = used.filter(|(_, layer)| *layer != "cli" || source.name != "src/main.rs");
    wrong.map(|(line, layer)| (line, format!("{} uses {layer}", source.name))).collect()
}

fn layer_comments(source: &Source) -> Vec<(usize, String)> {
    let Some(own) = source.layer().filter(|own| source.name == format!("src/{own}/mod.rs")) else {
        return Vec::new();
    };
    let wanted = number(&own).map(|at| format!("//! Layer {at}: "));
    match wanted.filter(|wanted| !source.text.starts_with(wanted)) {
        Some(wanted) => vec![(1, format!("it does not begin with `{wanted}`"))],
        None => Vec::new(),
    }
}

fn effects(source: &Source) -> Vec<(usize, String)> {
    let layer = source.layer().unwrap_or_default();
    let main = source.name == "src/main.rs";
    let mut found = Vec::new();
    for named in source.paths.iter().filter(|_| layer != "host") {
        let path = named.words.join("::");
        let is_in = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}::"));
        let last = named.words.last().map_or("", String::as_str);
        let printed = ["print", "println", "eprint", "eprintln"].contains(&last) && named.is_macro;
        let foreign = EFFECT_CRATES.iter().any(|(name, layers)| {
            let errors = layers.contains(&layer.as_str()) && is_in(&format!("{name}::errno"));
            is_in(name) && !errors
        });
        let hidden = path == "std" || path == "std::*";
        let in_memory = layer == "guest" && IN_MEMORY.iter().any(|name| is_in(name));
        let status = main && path == "std::process::ExitCode";
        if (EFFECTS.iter().any(|effect| is_in(effect)) || printed || foreign || hidden)
            && !status
            && !in_memory
        {
            found.push((named.line, format!("`{path}` belongs in src/host")));
        }
    }
    found
}

fn writer(source: &Source) -> Vec<(usize, String)> {
    if WRITERS.iter().any(|place| source.name.starts_with(place)) {
        return Vec::new();
    }
    let named = source.paths.iter().filter(|named| named.words.iter().any(|word| word == "Writer"));
    named.map(|named| (named.line, "names the write capability".into())).collect()
}

fn length(source: &Source) -> Vec<(usize, String)> {
    match source.text.lines().count() {
        lines if lines > MOST_LINES => vec![(lines, format!("more than {MOST_LINES} lines: divide it"))],
        _ => Vec::new(),
    }
}

fn unfinished(source: &Source) -> Vec<(usize, String)> {
    let macros = ["todo", "unimplemented", "dbg"];
    let left = |words: &[String]| words.last().is_some_and(|word| macros.contains(&word.as_str()));
    let named = source.paths.iter().filter(|named| named.is_macro && left(&named.words));
    let named = named.map(|named| (named.line, format!("`{}!` is left in it", named.words.join("::"))));
    let ignored = source.paths.iter().filter(|named| named.in_attribute && named.words == ["ignore"]);
    let ignored = ignored.map(|named| (named.line, "a test is ignored: let it run or remove it".into()));
    named.chain(ignored).collect()
}

/// Strings that no file may have, put together so that this one has none of them.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "do it or leave it"),
    (concat!("FIX", "ME"), "do it or leave it"),
    (concat!("XX", "X"), "do it or leave it"),
    (concat!("/wo", "rk"), "a folder of one machine"),
    (concat!("/tmp", "/wt"), "a folder of one machine"),
    (concat!("/root", "/.cargo"), "a folder of one machine"),
    (concat!("../sha", "red"), "a folder of one machine"),
    (concat!("index.", "crates.io"), "a host of a registry"),
    (concat!("static.", "crates.io"), "a host of a registry"),
    (concat!("crates.io", "-index"), "a host of a registry"),
    (concat!("proxy.", "golang.org"), "a host of a registry"),
    (concat!("files.", "pythonhosted.org"), "a host of a registry"),
    (concat!("registry.", "npmjs.org"), "a host of a registry"),
];

/// Forbidden strings in a text, as words of their own.
fn forbidden(name: &str, text: &str) -> Vec<(usize, String)> {
    // Cargo writes the registry's name there.
    let may_name_registry = |word: &str| name == "Cargo.lock" && word.ends_with("-index");
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for (word, why) in FORBIDDEN.iter().filter(|(word, _)| !may_name_registry(word)) {
            let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
            let alone = |(start, _): (usize, &str)| {
                let (before, after) = (&line[..start], &line[start + word.len()..]);
                // This folder has further letters.
                let longer = after.starts_with(part_of_word) && !word.starts_with("/tmp");
                !before.ends_with(part_of_word) && !longer
            };
            if line.match_indices(word).any(alone) {
                found.push((at + 1, format!("`{word}`: {why}")));
            }
        }
    }
    found
}

/// The names of all files that belong to the repository.
fn tracked() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let done = git.output().expect("git must run: install the Debian package git");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "git ls-files lists the files of the repository, but failed: {said}");
    let names = String::from_utf8(done.stdout).expect("file names are UTF-8");
    let names: Vec<String> = names.split_terminator('\0').map(str::to_owned).collect();
    assert!(names.iter().any(|name| name == "Cargo.toml"), "git ls-files does not list this repository");
    names
}

fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{name} is in the repository, but: {error}"))
}

/// Every Rust file of the repository.
fn sources() -> Vec<Source> {
    let names = tracked().into_iter().filter(|name| name.ends_with(".rs"));
    let text = |name: &str| String::from_utf8(read(name)).expect("Rust is UTF-8");
    names.map(|name| Source::new(&name, &text(&name))).collect()
}

/// Holds every Rust file in a folder to one rule; "" is the whole repository.
fn hold(folder: &str, rule: Rule) {
    let inside = sources().into_iter().filter(|source| source.name.starts_with(folder));
    let found = inside.flat_map(|source| {
        let shown = |(line, what)| format!("{}:{line}: {what}\n", source.name);
        rule(&source).into_iter().map(shown).collect::<Vec<_>>()
    });
    let found: String = found.collect();
    assert!(found.is_empty(), "\n{found}");
}

/// Applies a rule to a file that does not exist.
fn breaks(rule: Rule, name: &str, text: &str) -> bool {
    !rule(&Source::new(name, text)).is_empty()
}

#[test]
fn each_layer_uses_only_lower_ones() {
    hold("src/", layers);
    let present: BTreeSet<String> = sources().iter().filter_map(Source::layer).collect();
    let listed: BTreeSet<String> = LAYERS.concat().into_iter().map(str::to_owned).collect();
    assert_eq!(present, listed, "LAYERS lists exactly the folders of src");
}

#[test]
fn the_rule_of_layers_sees_every_way_to_name_one() {
    let breaks = |text| breaks(layers, "src/placement/guests.rs", text);
    for wrong in [
        "use crate::plan::Plan;",
        "use crate::{facts::Facts, plan::{self as p, Plan}};",
        "fn f() { let x = crate::knobs::all(); }",
        "fn f(x: Vec<crate::engine::Report>) {}",
        "mod tests { use super::super::super::cli; }",
        "use super::super::guest::Domain;",
        "use crate::*;",
        "use crate as c;",
        "use crate::{self as c};",
        "use crate::host::Read;",
        "const X: &str = concat!(crate::resources::X);",
        "#[cfg(test)] mod tests { use crate::cli::run; }",
    ] {
        assert!(breaks(wrong), "{wrong}");
    }
    for right in [
        "use crate::facts::Facts; use crate::formats::{CpuSet, Size};",
        "use super::{counted, memory}; mod tests { use super::*; use super::super::NodePlace; }",
        "pub(crate) fn f() {} pub(super) struct S(pub(crate) u8);",
        "//! [`crate::plan`]\nconst X: &str = \"crate::plan\"; // crate::plan",
        "fn f(&self) -> bool { self.x != 0 }",
    ] {
        assert!(!breaks(right), "{right}");
    }
    let other = |name, text| self::breaks(layers, name, text);
    assert!(other("src/facts/cpus.rs", "use crate::profile::Profile;"), "the same height");
    assert!(other("src/facts/cpus.rs", "use crate::host::Root;"), "not for reading");
    assert!(other("src/plan/mod.rs", "use crate::host::{Read, Machine};"), "not for reading");
    assert!(!other("src/plan/mod.rs", "use crate::host::{Program, Read};"));
    assert!(!other("src/cli/load.rs", "use crate::host::Machine;"));
    assert!(other("src/tuning/mod.rs", ""), "no layer");
    assert!(other("src/main.rs", "fn main() { rtkvm_tune::engine::apply(); }"));
    assert!(!other("src/main.rs", "fn main() { rtkvm_tune::cli::run(); }"));
    assert!(other("src/lib.rs", "use crate::plan::Plan;"));
}

#[test]
fn each_layer_says_its_number() {
    hold("src/", layer_comments);
    assert!(breaks(layer_comments, "src/plan/mod.rs", "//! Layer 1: plans."));
    assert!(breaks(layer_comments, "src/plan/mod.rs", "mod diff;"));
    assert!(!breaks(layer_comments, "src/formats/mod.rs", "//! Layer 0: formats."));
}

#[test]
fn the_table_of_layers_in_the_documentation_is_this_one() {
    let text = String::from_utf8(read("ARCHITECTURE.md")).expect("UTF-8");
    let (_, section) = text.split_once("\n## Layers\n").expect("ARCHITECTURE.md has a section Layers");
    let rows =
        section.lines().take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| `"));
    let names = |row: &str| {
        let first = row.split('|').nth(1).unwrap_or_default();
        first.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rows.map(names).collect::<Vec<_>>(), LAYERS);
}

#[test]
fn effects_are_in_host_alone() {
    hold("src/", effects);
    for wrong in [
        "use std::fs;",
        "use std::{fmt, fs::File};",
        "use ::std::env::var;",
        "use {::std::env::var, std::fmt};",
        "struct S { file: ::std::fs::File }",
        "use std as s;",
        "extern crate std;",
        "fn f() { std::process::exit(1) }",
        "fn f() { std::time::Instant::now(); }",
        "fn f() { println!(\"\") }",
        "fn f() { std::eprint!(\"\") }",
        "fn f() { if true { nix::unistd::getuid(); } }",
        "use nix::errno::Errno;",
    ] {
        assert!(breaks(effects, "src/plan/mod.rs", wrong), "{wrong}");
        assert!(!breaks(effects, "src/host/root.rs", wrong), "{wrong}");
    }
    assert!(!breaks(effects, "src/engine/mod.rs", "use nix::errno::Errno;"));
    assert!(breaks(effects, "src/engine/mod.rs", "use nix::{errno::Errno, unistd::write};"));
    assert!(!breaks(effects, "src/plan/mod.rs", "use std::fmt::Write; fn println() {} // std::fs"));
    assert!(breaks(effects, "src/main.rs", "use std::process::Command;"));
}

#[test]
fn only_apply_can_write() {
    hold("src/", writer);
    assert!(breaks(writer, "src/cli/verify.rs", "use crate::host::{Machine, Writer};"));
    assert!(breaks(writer, "src/plan/mod.rs", "fn f(w: &crate::host::Writer) {}"));
    assert!(!breaks(writer, "src/cli/apply.rs", "use crate::host::Writer;"));
}

#[test]
fn files_are_short() {
    hold("", length);
    assert!(breaks(length, "src/x.rs", &"//\n".repeat(MOST_LINES + 1)));
    assert!(!breaks(length, "src/x.rs", &"//\n".repeat(MOST_LINES)));
}

#[test]
fn nothing_is_unfinished_and_no_test_ignored() {
    hold("", unfinished);
    for wrong in [
        "fn f() { todo!() }",
        "fn f() { std::unimplemented!(\"\") }",
        "fn f() { g(dbg!(1)) }",
        "#[test] #[ignore] fn f() {}",
        "#[ignore = \"slow\"] fn f() {}",
        "#[cfg_attr(windows, ignore)] fn f() {}",
    ] {
        assert!(breaks(unfinished, "tests/x.rs", wrong), "{wrong}");
    }
    assert!(!breaks(unfinished, "tests/x.rs", "fn ignore() { let todo = 1; ignore(); todo != 2; }"));
}

#[test]
fn no_file_says_what_is_forbidden() {
    let mut found = String::new();
    for name in tracked() {
        let text = read(&name);
        for (line, what) in forbidden(&name, &String::from_utf8_lossy(&text)) {
            found += &format!("{name}:{line}: {what}\n");
        }
    }
    assert!(found.is_empty(), "\n{found}");
    for (word, _) in FORBIDDEN {
        for text in [format!("// {word}: later"), format!("\n{word}/main"), format!("(`{word}`)")] {
            assert!(!forbidden("README.md", &text).is_empty(), "{text}");
        }
    }
    for text in ["/sys/bus/workqueue", "net/work", "mktemp /tmp/x.XXXXXX", "deny.toml knows crates.io"] {
        assert!(forbidden("README.md", text).is_empty(), "{text}");
    }
    let registry = format!("source = \"registry+https://github.com/rust-lang/{}\"", FORBIDDEN[9].0);
    assert!(forbidden("Cargo.lock", &registry).is_empty());
    assert!(!forbidden("Cargo.toml", &registry).is_empty());
}

/// The ids that the files of src/knobs declare, each as area and id.
fn declared() -> Vec<(String, String)> {
    let files = sources().into_iter().filter(|source| source.layer().as_deref() == Some("knobs"));
    let ids = files.flat_map(|source| {
        let area = Path::new(&source.name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let ids =
            source.text.lines().filter_map(|line| line.trim().strip_prefix("id: \"")?.strip_suffix("\","));
        ids.map(|id| (area.clone(), id.to_owned())).collect::<Vec<_>>()
    });
    ids.collect()
}

#[test]
fn knobs_are_named_after_their_file_and_explained() {
    let declared = declared();
    let registered: Vec<&str> = knobs::all().map(|knob| knob.id).collect();
    let unique: BTreeSet<&str> = registered.iter().copied().collect();
    assert_eq!(unique.len(), registered.len(), "an id is used twice: {registered:?}");
    let in_files: BTreeSet<&str> = declared.iter().map(|(_, id)| id.as_str()).collect();
    assert_eq!(in_files, unique, "the ids in src/knobs are those of the registry");
    for (area, id) in &declared {
        let name = id.strip_prefix(&format!("{area}."));
        let name = name.unwrap_or_else(|| panic!("{id} is in src/knobs/{area}.rs: its area is {area}"));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(!name.is_empty() && name.chars().all(plain), "{id}: lower case, digits and `-` only");
    }
    for knob in knobs::all() {
        let texts = [knob.summary, knob.why, knob.source, knob.since, knob.check];
        for text in texts {
            assert!(!text.trim().is_empty(), "{}: a text is empty", knob.id);
            assert_eq!(
                text.split_whitespace().collect::<Vec<_>>().join(" "),
                text,
                "{}: stray space",
                knob.id
            );
        }
        let length = knob.summary.chars().count();
        assert!(length <= 90, "{}: the summary has {length} characters; at most 90 fit a line", knob.id);
        assert!(!knob.summary.ends_with('.'), "{}: the summary is a title, without a full stop", knob.id);
        assert!(knob.why.ends_with('.'), "{}: the reason is whole sentences", knob.id);
    }
}

/// No verb of virsh that starts, stops or changes a guest that runs is in the files that have all of them.
#[test]
fn no_guest_is_started_or_stopped() {
    let of_virsh = ["define", "autostart", "undefine", "version", "list", "dumpxml"];
    let disturbing = [
        "blockjob",
        "create",
        "destroy",
        "detach",
        "migrate",
        "managedsave",
        "reboot",
        "reset",
        "resume",
        "save",
        "set",
        "shutdown",
        "start",
        "suspend",
        "update-device",
        "vcpupin",
        "emulatorpin",
    ];
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for file in ["src/host/programs.rs", "src/host/libvirt.rs"] {
        let text = String::from_utf8(read(file)).expect("UTF-8");
        let verbs = text.split('"').skip(1).step_by(2).filter_map(|literal| literal.split(' ').next());
        for verb in verbs {
            assert!(!disturbing.iter().any(|word| verb.starts_with(word)), "{file}: virsh {verb}");
            seen.extend(of_virsh.iter().find(|known| **known == verb).copied());
        }
    }
    assert_eq!(seen.len(), of_virsh.len(), "{seen:?}");
}
