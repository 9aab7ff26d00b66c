//! A run that dies or is refused at any of its writing system calls: afterwards, or after `recover`, the tree is the old
//! one or the new one, byte for byte. Every call is tried, none is chosen; each test says how many it tried, and fails if they are too few.

use super::support::*;
use std::collections::BTreeMap;
use std::process::Command;

/// The system calls by which a tree can change, or be made to last.
const WRITING: [&str; 19] = [
    "openat",
    "openat2",
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "syncfs",
    "rename",
    "renameat",
    "renameat2",
    "linkat",
    "symlinkat",
    "unlinkat",
    "mkdirat",
    "fchmod",
    "fchown",
    "fsetxattr",
    "flock",
];

/// The calls of this name that may change something: opening to read is left out. Numbers count from 1.
fn numbers(tree: &Tree, words: &[&str]) -> Vec<(String, usize)> {
    let copy = tree.copy();
    let trace = format!("trace={}", WRITING.join(","));
    let (ran, calls) = strace(&["-e", &trace], &[words, &["--root", copy.name()]].concat());
    ran.expect(0);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for call in &calls {
        let number = seen.entry(&call.name).or_default();
        *number += 1;
        if !call.name.starts_with("open") || call.opens_to_write() {
            found.push((call.name.clone(), *number));
        }
    }
    found
}

/// Runs the words on the tree with `fault` at the `at`th call of this name, which must be hit.
fn faulty(tree: &Tree, words: &[&str], name: &str, at: usize, fault: &str) -> Ran {
    let inject = format!("inject={name}:{fault}:when={at}");
    let trace = format!("trace={name}");
    let (ran, calls) = strace(&["-e", &trace, "-e", &inject], &[words, &["--root", tree.name()]].concat());
    let hit = calls.iter().filter(|call| call.text.contains("(INJECTED)")).count();
    let killed = ran.status.is_none();
    assert!(if fault == "signal=KILL" { killed } else { hit == 1 }, "{name} {at} {fault}: {hit} {ran:#?}");
    ran
}

/// A machine before and after the words.
struct Change {
    words: &'static [&'static str],
    start: Tree,
    old: Listing,
    new: Listing,
    /// Whether the state says that something is ours, before and after.
    ours: [bool; 2],
}

/// Whether the state of this machine says that something is ours.
fn has_ours(tree: &Tree) -> bool {
    let text = std::fs::read_to_string(tree.at(STATE)).unwrap_or_default();
    !text.is_empty() && !text.contains("\n  \"baseline\": [],\n")
}

impl Change {
    fn apply() -> Change {
        Change::of(Tree::reference(), &["apply", REFERENCE])
    }

    fn revert() -> Change {
        let tree = Tree::reference();
        tree.tune(&["apply", REFERENCE]).expect(0);
        Change::of(tree, &["revert"])
    }

    /// The end of an apply that was killed when it was nearly done.
    fn recover() -> Change {
        let tree = Tree::reference();
        let points = numbers(&tree, &["apply", REFERENCE]);
        let (name, at) = points.iter().rfind(|(name, _)| name == "renameat").expect("a file is replaced");
        let ran = faulty(&tree, &["apply", REFERENCE], name, at - 1, "signal=KILL");
        assert_eq!(ran.status, None, "{ran:?}");
        Change::of(tree, &["recover"])
    }

    fn of(start: Tree, words: &'static [&'static str]) -> Change {
        let done = start.copy();
        done.tune(words).expect(0);
        let (old, new) = (start.list(), done.list());
        assert_ne!(old, new);
        let ours = [has_ours(&start), has_ours(&done)];
        Change { words, start, old, new, ours }
    }

    /// Tries a fault at every point; gives the number of runs.
    fn try_all(&self, points: &[(String, usize)], fault: &str) -> usize {
        let (mut tree, start) = (self.start.copy(), list(&self.start.root));
        for (name, at) in points {
            let ran = faulty(&tree, self.words, name, *at, fault);
            self.judge(&tree, &ran, &format!("{name} {at} {fault}: {ran:#?}"));
            if list(&tree.root) != start {
                tree = self.start.copy();
            }
        }
        points.len()
    }

    fn judge(&self, tree: &Tree, ran: &Ran, what: &str) {
        if !matches!(ran.status, Some(0 | 1)) {
            let recovered = tree.tune(&["recover"]);
            assert_eq!(recovered.status, Some(0), "{what}\nrecover: {recovered:#?}");
        }
        // Nothing is left to recover, whatever happened.
        let again = tree.tune(&["recover"]);
        assert_eq!(again.status, Some(0), "{what}\nrecover: {again:#?}");
        let now = tree.list();
        // What the kernel says of an interrupt that is its own, and so no failure: that one stays where it is.
        let kept = |path: &String| ran.out.contains(&format!("not set  set /{path} to"));
        let is = |listing: &Listing| changed(listing, &now).iter().all(kept);
        // What the state says must be what is there.
        let [before, after] = self.ours.map(|ours| ours == has_ours(tree));
        assert!(
            is(&self.old) && before || is(&self.new) && after,
            "{what}\nnot as before: {:#?}\nnot as planned: {:#?}",
            changed(&self.old, &now),
            changed(&self.new, &now)
        );
        if ran.status == Some(0) {
            assert!(is(&self.new), "{what}: said to be done");
        }
    }
}

/// Every fault of a list at every writing call of a change.
fn survives(change: &Change, what: &str, faults: &[&str]) {
    let points = numbers(&change.start, change.words);
    for fault in faults {
        let (_, kind) = fault.split_once('=').expect("error= or signal=");
        report(&format!("{what}, {kind} at a writing call"), change.try_all(&points, fault), 80);
    }
}

#[test]
fn a_killed_apply_is_the_old_machine_or_the_new() {
    survives(&Change::apply(), "apply", &["signal=KILL"]);
}

#[test]
fn a_killed_revert_is_the_old_machine_or_the_new() {
    survives(&Change::revert(), "revert", &["signal=KILL"]);
}

#[test]
fn a_killed_recover_is_finished_by_the_next() {
    let change = Change::recover();
    assert!(changed(&Tree::reference().list(), &change.new).is_empty(), "recover goes back");
    survives(&change, "recover", &["signal=KILL"]);
}

#[test]
fn a_refused_call_is_the_old_machine_or_the_new() {
    let change = Change::apply();
    let points = numbers(&change.start, change.words);
    let others = ["error=EIO", "error=EROFS", "error=EPERM", "error=EINTR"];
    if std::env::var_os("EVERY_FAULT").is_some() {
        return survives(&change, "apply", &[&["error=ENOSPC"], &others[..]].concat());
    }
    report("apply, ENOSPC at a writing call", change.try_all(&points, "error=ENOSPC"), 80);
    // Each call gets one of the others, in turn.
    let tried = others.iter().enumerate().map(|(turn, fault)| {
        let mine = points.iter().skip(turn).step_by(others.len()).cloned();
        change.try_all(&mine.collect::<Vec<_>>(), fault)
    });
    report("apply, EIO, EROFS, EPERM or EINTR at a writing call", tried.sum(), 80);
}

/// Each write in turn is short: half of it is taken, or nothing, or half and then nothing more of anything, as by a disk
/// that is full.
#[test]
fn a_short_write_is_the_old_machine_or_the_new() {
    let change = Change::apply();
    let library = change.start.beside("short-write.so");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(format!("{SOURCES}/tests/commands/short_write.c"));
    tool(&mut compiler, "gcc").expect(0);
    for how in ["half", "nothing", "full"] {
        let mut tree = change.start.copy();
        let mut tried = 0;
        loop {
            let hit = tree.beside("hit");
            let mut command = command(&[change.words, &["--root", tree.name()]].concat());
            command.env("LD_PRELOAD", &library).env("SHORT_WRITE", format!("{} {how}", tried + 1));
            let ran = tool(command.env("SHORT_WRITE_HIT", &hit), "coreutils");
            if std::fs::remove_file(&hit).is_err() {
                ran.expect(0);
                break;
            }
            tried += 1;
            change.judge(&tree, &ran, &format!("write {tried}, {how}: {ran:#?}"));
            if tree.list() != change.old {
                tree = change.start.copy();
            }
        }
        report(&format!("apply, a short write, {how}"), tried, 20);
    }
}
