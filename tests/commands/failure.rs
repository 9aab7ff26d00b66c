//! Writes that fail, and runs that are killed. strace makes the kernel say no at one system call.

use super::support::*;

const CALLS: &str =
    "trace=openat,openat2,write,fsync,rename,renameat,renameat2,fchmod,fchown,ftruncate,symlinkat,mkdirat";

/// An apply in the tree, with `fault` at the `at`th call of this name.
fn with_fault(tree: &Tree, name: &str, at: usize, fault: &str) -> Ran {
    with_words(tree, name, at, fault, &[])
}

fn with_words(tree: &Tree, name: &str, at: usize, fault: &str, words: &[&str]) -> Ran {
    let inject = format!("inject={name}:{fault}:when={at}");
    let words = [&["apply", REFERENCE, "--root", tree.name()], words].concat();
    let (ran, calls) = strace(&["-e", CALLS, "-e", &inject], &words);
    let hit = calls.iter().filter(|call| call.text.contains("(INJECTED)")).count();
    assert!(hit == 1 || fault.starts_with("signal"), "{name} {at}: {hit} calls were hit");
    ran
}

/// The calls of an apply on a fresh reference machine.
fn calls() -> Vec<Call> {
    let tree = Tree::reference();
    let (ran, calls) = strace(&["-e", CALLS], &["apply", REFERENCE, "--root", tree.name()]);
    ran.expect(0);
    calls
}

/// Which call of its name it is, counted from 1, that `is` finds first.
fn number(calls: &[Call], name: &str, is: impl Fn(&Call) -> bool) -> usize {
    let same = calls.iter().filter(|call| call.name == name);
    same.into_iter().position(is).unwrap_or_else(|| panic!("no such {name}: {calls:#?}")) + 1
}

/// The `openat2` that opens this attribute for writing.
fn opening(calls: &[Call], path: &str) -> usize {
    number(calls, "openat2", |call| call.path() == path && call.opens_to_write())
}

/// The `write` of this value to the attribute: the first write after it is opened.
fn writing(calls: &[Call], path: &str) -> usize {
    let opened = calls.iter().position(|call| call.path() == path && call.opens_to_write()).expect("opened");
    calls[..opened].iter().filter(|call| call.name == "write").count() + 1
}

const IRQ: &str = "proc/irq/4/smp_affinity_list";
const PAGES: &str = "sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages";

/// What apply makes besides attributes.
const OURS: [&str; 5] = [KEPT_PROFILE, UNIT, WANTS, GUEST, DROP_IN];

fn exists(tree: &Tree, path: &str) -> bool {
    tree.at(path).symlink_metadata().is_ok()
}

#[test]
fn an_interrupt_that_the_kernel_keeps_is_no_failure() {
    for (errno, fault) in [("EIO", "error=EIO"), ("EPERM", "error=EPERM")] {
        let tree = Tree::reference();
        let ran = with_fault(&tree, "write", writing(&calls(), IRQ), fault).expect(0);
        let line = format!("not set  set /{IRQ} to 0-1: the kernel keeps this interrupt to itself ({errno}");
        assert!(ran.out.contains(&line), "{}", ran.out);
        assert!(ran.out.contains(", 1 not set"), "{}", ran.out);
        assert!(OURS.iter().all(|path| exists(&tree, path)));
    }
}

#[test]
fn an_interrupt_that_went_away_is_no_failure() {
    let tree = Tree::reference();
    let ran = with_fault(&tree, "openat2", opening(&calls(), IRQ), "error=ENOENT").expect(0);
    assert!(
        ran.out.contains(&format!("gone     set /{IRQ} to 0-1: it went away meanwhile\n")),
        "{}",
        ran.out
    );
}

/// The other attributes are still set, and the attribute is named. Without its pages the host is not what was
/// asked, so no file is made; an interrupt that stays where it is keeps nothing else from being done.
#[test]
fn an_attribute_that_cannot_be_set_is_named() {
    let calls = calls();
    let cases = [
        (IRQ, "write", writing(&calls, IRQ), "ENOSPC", "no interrupt vector is left on these CPUs"),
        (IRQ, "openat2", opening(&calls, IRQ), "EROFS", "Read-only file system"),
        (PAGES, "write", writing(&calls, PAGES), "EIO", "I/O error"),
        (PAGES, "write", writing(&calls, PAGES), "ENOSPC", "No space left on device"),
        (PAGES, "openat2", opening(&calls, PAGES), "EACCES", "Permission denied"),
    ];
    for (path, call, at, errno, said) in cases {
        let tree = Tree::reference();
        let before = tree.list();
        let ran = with_fault(&tree, call, at, &format!("error={errno}")).expect(2);
        let line = ran.out.lines().find(|line| line.starts_with("FAILED")).unwrap_or_default();
        assert!(line.contains(path) && line.contains(said), "{}", ran.out);
        assert!(ran.err.contains(said) && ran.err.contains("is taken back"), "{}", ran.err);
        assert_eq!(changed(&before, &tree.list()), [""; 0], "{}", ran.out);

        let tree = Tree::reference();
        let ran = with_words(&tree, call, at, &format!("error={errno}"), &["--keep-going"]).expect(2);
        let line = ran.out.lines().find(|line| line.starts_with("FAILED")).unwrap_or_default();
        assert!(line.contains(path) && line.contains(said), "{}", ran.out);
        assert!(ran.err.contains("steps failed"), "{}", ran.err);
        assert!(OURS.iter().all(|ours| exists(&tree, ours) == (path == IRQ)), "{}", ran.out);
        assert_eq!(tree.read("proc/irq/45/smp_affinity_list"), "0-1\n", "the others are set");
        assert_eq!(tree.read(&PAGES.replace("node0", "node1")), "25\n");
        // The next run does the rest.
        tree.tune(&["apply", REFERENCE]).expect(0);
        assert!(OURS.iter().all(|path| exists(&tree, path)));
    }
}

/// Every way in which a file can fail, for every file: what was done is taken back, and with --keep-going what was to
/// follow is not touched.
#[test]
fn a_file_that_cannot_be_written_stops_the_rest() {
    let calls = calls();
    // Where each file's temporary is made, as an index into `calls`.
    let start = |path: &str| {
        let name = format!("\".{}.rtkvm-tune\"", path.rsplit('/').next().expect("a name"));
        let call = if path == WANTS { "symlinkat" } else { "openat" };
        calls.iter().position(|c| c.name == call && c.text.contains(&name)).expect("made")
    };
    for (at, path) in OURS.iter().enumerate() {
        let ways: &[(&str, &str, &str)] = match *path == WANTS {
            true => &[("symlinkat", "ENOSPC", "No space left"), ("renameat", "EIO", "I/O error")],
            false => &[
                ("openat", "EROFS", "Read-only file system"),
                ("write", "EIO", "I/O error"),
                ("fchmod", "EPERM", "Operation not permitted"),
                ("fsync", "EIO", "I/O error"),
                ("renameat", "EACCES", "Permission denied"),
            ],
        };
        for (call, errno, said) in ways {
            let before = calls[..start(path)].iter().filter(|c| c.name == *call).count();
            let tree = Tree::reference();
            let untouched = tree.list();
            let fault = format!("error={errno}");
            let ran = with_fault(&tree, call, before + 1, &fault).expect(2);
            let line = ran.out.lines().find(|line| line.starts_with("FAILED")).unwrap_or_default();
            assert!(line.contains(path) && line.contains(said), "{path} {call}: {}", ran.out);
            assert_eq!(changed(&untouched, &tree.list()), [""; 0], "{path} {call}: {}", ran.out);
            let tree = Tree::reference();
            let ran = with_words(&tree, call, before + 1, &fault, &["--keep-going"]).expect(2);
            let line = ran.out.lines().find(|line| line.starts_with("FAILED")).unwrap_or_default();
            assert!(line.contains(path) && line.contains(said), "{path} {call}: {}", ran.out);
            for later in &OURS[at..] {
                assert!(!exists(&tree, later), "{path} {call}: {later} is there\n{}", ran.out);
            }
            assert!(OURS[..at].iter().all(|earlier| exists(&tree, earlier)), "{path} {call}: {}", ran.out);
            no_leftovers(&tree);
        }
    }
}

#[track_caller]
fn no_leftovers(tree: &Tree) {
    let left: Vec<_> = tree.list().into_keys().filter(|path| path.contains(".rtkvm-tune")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Killed at any system call that writes: each file is as before or as planned, and recover takes it back or finishes it.
#[test]
fn a_killed_run_is_recovered() {
    let calls = calls();
    let plain = Tree::reference();
    let before = plain.list();
    plain.tune(&["apply", REFERENCE]).expect(0);
    let after = plain.list();
    for name in ["write", "ftruncate", "fsync", "renameat", "symlinkat", "mkdirat", "fchmod"] {
        let count = calls.iter().filter(|call| call.name == name).count();
        // The last write is the report; the interrupts, 2 to 12, are all alike.
        let last = count - usize::from(name == "write");
        let alike = |at: &usize| ["write", "ftruncate"].contains(&name) && (3..=12).contains(at);
        for at in (1..=last).filter(|at| !alike(at)) {
            let tree = Tree::reference();
            let ran = with_fault(&tree, name, at, "signal=KILL");
            assert_ne!(ran.status, Some(0), "{name} {at}");
            for (path, node) in tree.list() {
                let temporary = path.contains(".rtkvm-tune") || path.starts_with(STATE_DIR);
                let fresh = matches!(&node, Node::Dir { .. });
                let whole = [before.get(&path), after.get(&path)].contains(&Some(&node));
                assert!(
                    whole || temporary || fresh || written(&after, &path, &node),
                    "{name} {at}: {path}: {node:?}"
                );
            }
            let journal = exists(&tree, JOURNAL);
            let refused = tree.tune(&["apply", REFERENCE]);
            assert_eq!(
                refused.err.contains("was interrupted: run `rtkvm-tune recover`"),
                journal,
                "{refused:?}"
            );
            tree.tune(&["recover"]).expect(0);
            let now = tree.list();
            let (old, new) = (changed(&before, &now), changed(&after, &now));
            assert!(old.is_empty() || new.is_empty(), "{name} {at}: {old:?}");
            assert!(!exists(&tree, JOURNAL));
            let again = tree.tune(&["recover"]).expect(0).out;
            assert_eq!(again, "Nothing to recover: no run was interrupted.\n");
        }
    }
}

/// Whether it is an attribute with its new value, and in a tree not yet cut off behind it.
fn written(after: &Listing, path: &str, node: &Node) -> bool {
    let (Node::File { text, .. }, Some(Node::File { text: wanted, .. })) = (node, after.get(path)) else {
        return false;
    };
    (path.starts_with("proc/") || path.starts_with("sys/"))
        && (text.trim_end() == wanted.trim_end() || text.starts_with(wanted))
}

/// A tree that cannot be locked.
#[test]
fn without_the_lock_nothing_is_written() {
    let calls = calls();
    let tree = Tree::reference();
    let before = tree.list();
    let at = number(&calls, "openat2", |call| call.path() == ".");
    let ran = with_fault(&tree, "openat2", at, "error=EACCES").expect(2);
    assert!(ran.err.contains("cannot take the lock"), "{}", ran.err);
    assert!(ran.err.contains("Permission denied"), "{}", ran.err);
    assert_eq!(tree.list(), before);
}

/// As a kernel that grants fewer pages than asked, and one that ignores a write: both say that it was done.
#[test]
fn a_value_that_does_not_take_is_told() {
    let calls = calls();
    let tree = Tree::reference();
    let at = writing(&calls, PAGES);
    let inject = format!("inject=write:retval=3:when={at}");
    // What was not written is not cut off either.
    let cut = calls.iter().position(|call| call.path() == PAGES && call.opens_to_write()).expect("opened");
    let cut = calls[..cut].iter().filter(|call| call.name == "ftruncate").count() + 1;
    let cut = format!("inject=ftruncate:retval=0:when={cut}");
    let options = ["-e", CALLS, "-e", &inject, "-e", &cut];
    let ran = strace(&options, &["apply", REFERENCE, "--root", tree.name()]).0.expect(1);
    assert!(
        ran.out.contains(&format!("short    set /{PAGES} to 25: the kernel granted 0 of 25; ")),
        "{}",
        ran.out
    );
    assert!(ran.out.contains(", 1 short, "), "{}", ran.out);
    assert!(OURS.iter().all(|path| exists(&tree, path)), "the next boot reserves them: {}", ran.out);
    let audit = tree.tune(&["verify", REFERENCE]).expect(1).out;
    assert!(audit.contains("memory.hugepages: node 0, 1GiB pages"), "{audit}");

    let tree = Tree::reference();
    let at = writing(&calls, IRQ);
    let ran = with_words(&tree, "write", at, "retval=4", &["--keep-going"]).expect(2);
    assert!(ran.out.contains(&format!("FAILED   set /{IRQ} to 0-1: reads back as `0-7`\n")), "{}", ran.out);
    assert!(OURS.iter().all(|path| exists(&tree, path)), "{}", ran.out);
}
