//! A run that dies or is refused at any of its writing system calls: afterwards, or after `recover`, the tree is the old
//! one or the new one, byte for byte. Every call is tried, none is chosen; each test says how many it tried.

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
        Change { words, start, old, new }
    }

    /// Tries every fault at every point; gives the number of runs.
    fn try_all(&self, faults: &[&str]) -> usize {
        let (mut tree, start) = (self.start.copy(), list(&self.start.root));
        let mut tried = 0;
        for (name, at) in numbers(&self.start, self.words) {
            for fault in faults {
                let ran = faulty(&tree, self.words, &name, at, fault);
                let what = format!("{name} {at} {fault}: {ran:#?}");
                self.judge(&tree, &ran, &what);
                tried += 1;
                if list(&tree.root) != start {
                    tree = self.start.copy();
                }
            }
        }
        tried
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
        assert!(
            is(&self.old) || is(&self.new),
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
    let tried = change.try_all(faults);
    println!("{what}: {tried} runs, {} calls, {}", tried / faults.len(), faults.join(" "));
    assert!(tried / faults.len() > 80, "only {tried} runs: were the calls found?");
}

#[test]
fn a_killed_apply_is_the_old_machine_or_the_new() {
    survives(&Change::apply(), "apply, killed", &["signal=KILL"]);
}

#[test]
fn a_killed_revert_is_the_old_machine_or_the_new() {
    survives(&Change::revert(), "revert, killed", &["signal=KILL"]);
}

#[test]
fn a_killed_recover_is_finished_by_the_next() {
    let change = Change::recover();
    assert!(changed(&Tree::reference().list(), &change.new).is_empty(), "recover goes back");
    survives(&change, "recover, killed", &["signal=KILL"]);
}

#[test]
fn a_refused_call_is_the_old_machine_or_the_new() {
    let faults = ["error=ENOSPC", "error=EIO", "error=EROFS", "error=EPERM", "error=EINTR"];
    survives(&Change::apply(), "apply, refused", &faults);
}

/// A file system that takes only so many bytes of a file: the write is short, the next one fails; and a process that
/// does not expect it is killed.
#[test]
fn a_short_write_is_the_old_machine_or_the_new() {
    let change = Change::apply();
    let mut tree = change.start.copy();
    let mut tried = 0;
    for limit in (0..10).chain((10..200).step_by(7)).chain((200..6000).step_by(331)) {
        for ignored in [true, false] {
            let trap = if ignored { "trap '' XFSZ; " } else { "" };
            let script = format!("{trap}exec prlimit --fsize={limit} -- \"$@\"");
            let mut command = Command::new("sh");
            command.args(["-c", &script, "sh", PROGRAM]).args(change.words).args(["--root", tree.name()]);
            let ran = tool(command.current_dir(SOURCES), "util-linux");
            change.judge(&tree, &ran, &format!("at most {limit} bytes: {ran:#?}"));
            tried += 1;
            if tree.list() != change.old {
                tree = change.start.copy();
            }
        }
    }
    println!("apply, short writes: {tried} runs");
}
