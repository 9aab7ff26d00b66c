//! Runs that are refused, stopped or interrupted, and state files that cannot be used.

use super::support::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TRACE: &str = "trace=openat2,write,renameat,fsync,flock";

/// A machine after an apply.
fn applied() -> Tree {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    tree
}

/// A machine on which an apply was killed right after its first attribute.
fn killed() -> Tree {
    let tree = Tree::reference();
    let inject = "inject=ftruncate:signal=KILL:when=1";
    strace(&["-e", "trace=ftruncate", "-e", inject], &["apply", REFERENCE, "--root", tree.name()]);
    assert!(tree.at(JOURNAL).exists());
    tree
}

/// Nothing is written, and the error has these words.
#[track_caller]
fn refused(tree: &Tree, words: &[&str], said: &[&str]) {
    let before = (list(&tree.root), stamps(&tree.root));
    let ran = tree.tune(words).expect(2);
    for said in said {
        assert!(ran.err.contains(said), "{words:?}: {said}: {}", ran.err);
    }
    assert_eq!((list(&tree.root), stamps(&tree.root)), before, "{words:?}");
}

const CHANGING: [&[&str]; 2] = [&["apply", REFERENCE], &["revert"]];

#[test]
fn an_interrupted_run_is_told_and_recovered() {
    let tree = killed();
    let remedy = ["the apply of 20", "was interrupted: run `rtkvm-tune recover`"];
    for words in CHANGING {
        refused(&tree, words, &remedy);
    }
    for words in [&["verify", REFERENCE][..], &["apply", "--dry-run", REFERENCE], &["revert", "--dry-run"]] {
        let text = tree.tune(words).out;
        assert!(text.contains(remedy[1]), "{words:?}: {text}");
    }
    let ran = tree.tune(&["recover"]).expect(0);
    assert!(ran.out.contains("is taken back: everything is as it was before it"), "{}", ran.out);
    assert_eq!(changed(&Tree::reference().list(), &tree.list()), [""; 0]);
    // To be killed while recovering is no different.
    let tree = killed();
    let inject = "inject=ftruncate:signal=KILL:when=1";
    strace(&["-e", "trace=ftruncate", "-e", inject], &["recover", "--root", tree.name()]);
    assert!(tree.at(JOURNAL).exists());
    tree.tune(&["recover"]).expect(0);
    assert_eq!(changed(&Tree::reference().list(), &tree.list()), [""; 0]);
}

/// What somebody else changed between the kill and the recovery is not ours to put back.
#[test]
fn recovery_leaves_foreign_changes() {
    let tree = killed();
    let path = "proc/irq/default_smp_affinity";
    assert_eq!(tree.read(path).trim(), "303");
    tree.write(path, "1\n");
    let ran = tree.tune(&["recover"]).expect(0);
    assert!(ran.out.contains(&format!("/{path} was changed by somebody else since: 1;")), "{}", ran.out);
    assert!(ran.out.contains("is taken back, but for what is named above"), "{}", ran.out);
    assert_eq!(tree.read(path), "1\n");
}

#[test]
fn state_that_cannot_be_used_is_refused() {
    for (tree, file) in [(applied(), STATE), (killed(), JOURNAL)] {
        let good = tree.read(file);
        let name = format!("/{file}");
        let both = |said: &[&str]| {
            let said = [said, &[&name[..]]].concat();
            CHANGING.iter().for_each(|words| refused(&tree, words, &said));
            refused(&tree, &["recover"], &said);
            // Those that only look say it and go on.
            let text = tree.tune(&["verify", REFERENCE]).expect(1).out;
            assert!(text.contains(&name), "{text}");
        };
        let write = |text: &str| {
            let _ = std::fs::remove_file(tree.at(file));
            tree.write(file, text);
            tree.chmod(file, 0o600);
        };
        for cut in [0, 1, good.len() / 2, good.len() - 3] {
            write(&good[..cut]);
            both(&["is damaged", "move it away"]);
        }
        write(&good.replace("\"/proc/irq/4/", "\"/proc/irq/../"));
        both(&["is damaged", "is not a plain absolute path"]);
        write(&good.replace("\"name\": \"rt0\"", "\"name\": \"--all\""));
        both(&["is damaged", "it has a guest \"--all\""]);
        write(&good.replacen("\"version\": 1", "\"version\": 2", 1));
        both(&["has version 2, and only version 1 is known here"]);
        write(&good);
        tree.chmod(file, 0o666);
        both(&["has mode 0666, so that others can change it"]);
        tree.chmod(file, 0o600);
        chown(tree.at(file), Some(1000), None).expect("given away");
        both(&["belongs to user 1000, who can change it"]);
        let elsewhere = tree.note("elsewhere", &good);
        std::fs::remove_file(tree.at(file)).expect("removed");
        symlink(&elsewhere, tree.at(file)).expect("linked");
        both(&["is a symbolic link to"]);
        std::fs::remove_file(tree.at(file)).expect("removed");
        std::fs::create_dir(tree.at(file)).expect("made");
        both(&["is not a text file"]);
        std::fs::remove_dir(tree.at(file)).expect("removed");
        write(&good);
        tree.tune(&["recover"]).expect(0);
    }
}

/// One that others may look into becomes private before anything is in it.
#[test]
fn a_state_directory_that_others_see_is_closed() {
    let tree = Tree::reference();
    std::fs::create_dir(tree.at(STATE_DIR)).expect("made");
    tree.chmod(STATE_DIR, 0o755);
    tree.tune(&["apply", REFERENCE]).expect(0);
    let mode = |path: &str| std::fs::metadata(tree.at(path)).expect("there").permissions().mode() & 0o7777;
    assert_eq!((mode(STATE_DIR), mode(STATE)), (0o700, 0o600));
}

/// Runs a command line in a mount namespace of its own, in which `prepare` has changed the tree's file systems.
fn mounted(tree: &Tree, prepare: &str, words: &[&str]) -> Ran {
    let script = format!("(cd \"$1\"; {prepare}); shift; exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", &script, "sh", tree.name(), PROGRAM]);
    tool(command.args(words).args(["--root", tree.name()]).current_dir(SOURCES), "util-linux")
}

/// Room and leave to write are asked for before anything is written, everywhere where something will be.
#[test]
fn what_cannot_be_written_is_told_before_anything_is() {
    let bound = "mount --bind etc/default etc/default && mount -o remount,bind,ro etc/default";
    let full = "mount -t tmpfs -o size=16k,mode=755 none var/lib";
    let files = "mount -t tmpfs -o nr_inodes=1,mode=755 none var/lib";
    for (prepare, said) in [
        (bound, "/etc/default/grub.d/99-rtkvm-tune.cfg cannot be written: Read-only file system"),
        (full, "no room for /var/lib/rtkvm-tune/state.json: 16 KiB are free, "),
        (files, "and no further file can be made"),
    ] {
        let tree = Tree::reference();
        std::fs::create_dir_all(tree.at("etc/default")).expect("made");
        let before = tree.list();
        let ran = mounted(&tree, prepare, &["apply", REFERENCE]).expect(2);
        assert!(ran.err.contains("nothing was written") && ran.err.contains(said), "{said}: {}", ran.err);
        assert_eq!(changed(&before, &tree.list()), [""; 0], "{said}");
        tree.tune(&["apply", REFERENCE]).expect(0);
        let applied = tree.list();
        let ran = mounted(&tree, bound, &["revert"]).expect(2);
        assert!(ran.err.contains("cannot be written: Read-only file system"), "{}", ran.err);
        assert_eq!(changed(&applied, &tree.list()), [""; 0]);
    }
}

#[test]
fn a_file_that_is_replaced_keeps_mode_owner_and_label() {
    let tree = Tree::reference();
    tree.write(UNIT, "older\n");
    let label = b"system_u:object_r:systemd_unit_file_t:s0";
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(tree.at(UNIT), "security.selinux", label, flags).expect("labelled");
    tree.chmod(UNIT, 0o640);
    chown(tree.at(UNIT), None, Some(4)).expect("given");
    let of = |path: &str| {
        let mut label = [0; 64];
        let length =
            rustix::fs::getxattr(tree.at(path), "security.selinux", &mut label[..]).expect("a label");
        let meta = std::fs::metadata(tree.at(path)).expect("there");
        (label[..length].to_vec(), meta.permissions().mode() & 0o7777, meta.gid())
    };
    let first = of(UNIT);
    tree.tune(&["apply", REFERENCE]).expect(0);
    assert_ne!(tree.read(UNIT), "older\n");
    assert_eq!(of(UNIT), first);
    assert_eq!((first.0.as_slice(), first.1, first.2), (&label[..], 0o640, 4));
    tree.tune(&["revert"]).expect(0);
    assert_eq!((tree.read(UNIT).as_str(), of(UNIT)), ("older\n", first));
}

#[test]
fn a_state_directory_that_is_not_ours_is_refused() {
    let outside = directory();
    for prepare in [
        &(|tree: &Tree| symlink(outside.path(), tree.at(STATE_DIR)).expect("linked")) as &dyn Fn(&Tree),
        &|tree: &Tree| tree.write(STATE_DIR, "a file"),
        &|tree: &Tree| {
            std::fs::create_dir(tree.at(STATE_DIR)).expect("made");
            tree.chmod(STATE_DIR, 0o777);
        },
        &|tree: &Tree| {
            std::fs::create_dir(tree.at(STATE_DIR)).expect("made");
            chown(tree.at(STATE_DIR), Some(1000), None).expect("given away");
        },
    ] {
        let tree = Tree::reference();
        prepare(&tree);
        CHANGING.iter().for_each(|words| refused(&tree, words, &["/var/lib/rtkvm-tune "]));
        assert_eq!(std::fs::read_dir(outside.path()).expect("readable").count(), 0);
    }
}

/// A signal at any write: the step is finished, and everything is taken back.
#[test]
fn a_signal_takes_the_run_back() {
    let untouched = Tree::reference().list();
    for (at, signal) in [(3, "TERM"), (9, "INT"), (15, "HUP"), (17, "TERM")] {
        let tree = Tree::reference();
        let inject = format!("inject=write:signal={signal}:when={at}");
        let (ran, _) = strace(&["-e", TRACE, "-e", &inject], &["apply", REFERENCE, "--root", tree.name()]);
        let ran = ran.expect(2);
        assert!(ran.err.contains(&format!("error: stopped by SIG{signal}\n")), "{}", ran.err);
        assert!(ran.out.contains("\nTaken back, because stopped by"), "{}", ran.out);
        assert_eq!(changed(&untouched, &tree.list()), [""; 0], "{at}");
        assert!(!tree.at(JOURNAL).exists());
        tree.tune(&["apply", REFERENCE]).expect(0);
    }
}

/// An apply that is held up for three seconds when it first waits for the disk.
fn slow(tree: &Tree) -> std::process::Child {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync"]);
    command.args(["-e", "inject=fsync:delay_enter=3000000:when=1", PROGRAM]);
    command.args(["apply", REFERENCE, "--root", tree.name()]).current_dir(SOURCES);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("strace starts");
    let start = Instant::now();
    // It writes only under its lock.
    while !tree.at(STATE_DIR).exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[test]
fn two_applies_at_once_are_one_after_the_other() {
    let tree = Tree::reference();
    let first = slow(&tree);
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    assert!(ran.err.contains("another rtkvm-tune is at work on"), "{}", ran.err);
    assert!(ran.err.contains("let --wait SECONDS do so"), "{}", ran.err);
    let ran = tree.tune(&["apply", REFERENCE, "--wait", "1"]).expect(2);
    assert!(ran.err.contains("is still at work on") && ran.err.contains("after 1 s"), "{}", ran.err);
    let ran = tree.tune(&["apply", REFERENCE, "--wait", "60"]).expect(0);
    assert!(ran.out.contains("Nothing to do but what is left to you"), "{}", ran.out);
    Ran::of(first.wait_with_output().expect("ended")).expect(0);
}

/// What is applied is the profile as it was read, once.
#[test]
fn a_profile_that_is_replaced_meanwhile_is_not_half_applied() {
    let (tree, plain) = (Tree::reference(), applied());
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let profile = tree.note("p.toml", &text);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync"]);
    command.args(["-e", "inject=fsync:delay_enter=1000000:when=1", PROGRAM]);
    command.args(["apply", &profile, "--root", tree.name()]).current_dir(SOURCES);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("strace starts");
    while !tree.at(STATE_DIR).exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::write(&profile, "[host]\nhousekeeping-cpus-per-node = 1\n").expect("written");
    Ran::of(child.wait_with_output().expect("ended")).expect(0);
    assert_eq!(changed(&plain.list(), &tree.list()), [""; 0]);
}

/// The machine is read twice before anything is written.
#[test]
fn a_machine_that_changes_while_it_is_planned_for_is_refused() {
    let online = "sys/devices/system/cpu/online";
    let words = ["apply", REFERENCE, "--root"];
    let (_, calls) = strace(&["-e", "trace=openat2"], &[&words[..], &[Tree::reference().name()]].concat());
    let opened = calls.iter().enumerate().filter(|(_, call)| call.path() == online);
    let second = opened.map(|(at, _)| at + 1).nth(1).expect("planned twice");
    let tree = Tree::reference();
    let before = tree.list();
    let log = tree.beside("log");
    let inject = format!("inject=openat2:delay_enter=3000000:when={second}");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=openat2", "-e", &inject, "-o"]).arg(&log).arg(PROGRAM);
    command.args(words).arg(tree.name()).current_dir(SOURCES);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("strace starts");
    // The last line is the call that is being held up.
    let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    let start = Instant::now();
    while lines() + 1 < second {
        assert!(start.elapsed() < Duration::from_secs(60), "{} of {second}", lines());
        std::thread::sleep(Duration::from_millis(10));
    }
    tree.write(online, "0-14\n");
    let ran = Ran::of(child.wait_with_output().expect("ended")).expect(2);
    assert!(!ran.out.contains("done"), "{}", ran.out);
    tree.write(online, "0-15\n");
    tree.chmod(online, 0o444);
    assert_eq!(changed(&before, &tree.list()), [""; 0], "{}", ran.err);
    assert!(!tree.at(STATE_DIR).exists());
}

/// An ordinary user sees that there is something that cannot be seen.
#[test]
fn others_are_told_that_they_cannot_see_the_state() {
    let tree = applied();
    std::fs::set_permissions(tree.beside(""), PermissionsExt::from_mode(0o755)).expect("mode");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PROGRAM]);
    command.args(["verify", REFERENCE, "--root", tree.name()]).current_dir(SOURCES);
    let text = tool(&mut command, "util-linux").expect(3).out;
    assert!(text.contains("/var/lib/rtkvm-tune can only be read by root: what earlier runs set"), "{text}");
}

/// A boot that did not bring the arguments is told once, and no boot is asked for again.
#[test]
fn a_boot_that_passed_by_is_no_reason_for_another() {
    let tree = Tree::reference();
    let id = "proc/sys/kernel/random/boot_id";
    tree.write(id, "first\n");
    tree.tune(&["apply", REFERENCE]).expect(0);
    // As update-grub, which no tree runs, and a note of when it did.
    let script = format!("{SOURCES}/tests/grub/mkconfig.sh");
    tool(Command::new("sh").arg(script).arg(&tree.root), "grub-common, grub2-common and util-linux")
        .expect(0);
    let stamp = "\"kernel_arguments\": {\"time\": \"2026-01-02 03:04:05 UTC\", \"boot_id\": \"first\"}";
    let state = tree.read(STATE).replace("\"kernel_arguments\": null", stamp);
    tree.write(STATE, state);
    tree.tune(&["verify", REFERENCE]).expect(3);
    tree.write(id, "second\n");
    let text = tree.tune(&["verify", REFERENCE]).expect(1).out;
    assert!(text.contains("a boot since 2026-01-02 03:04:05 UTC did not bring it: another entry"), "{text}");
    let ran = tree.tune(&["apply", REFERENCE]).expect(1);
    assert!(ran.out.contains("Nothing to do. No reboot is needed."), "{}", ran.out);
}
