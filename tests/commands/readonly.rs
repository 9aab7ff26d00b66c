//! What only looks writes nothing, and reads each thing once.

use super::support::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The system calls of a program that starts, reads files and prints. Anything else is looked at here before it
/// is allowed: none of these changes a file, another process or the network.
const HARMLESS: &str = "execve exit_group exit brk mmap mprotect munmap mremap madvise read pread64 readv write lseek \
    open openat openat2 close fstat newfstatat fstatat64 stat lstat statx readlink readlinkat access faccessat \
    faccessat2 getdents64 getcwd ioctl fcntl poll ppoll rt_sigaction rt_sigprocmask sigaltstack arch_prctl \
    set_tid_address set_robust_list rseq prlimit64 getrandom futex uname getuid geteuid getgid getegid gettid \
    getpid clock_gettime clock_getres sched_getaffinity sched_yield";

/// The verbs that only look, on one machine.
fn looking(root: &str) -> Vec<Vec<&str>> {
    let on = |words: &[&'static str]| [words, &["--root", root]].concat();
    vec![
        on(&["apply", "--dry-run", REFERENCE]),
        on(&["apply", "--dry-run", "--runtime", REFERENCE, "--format", "json"]),
        on(&["verify", REFERENCE]),
        on(&["verify", REFERENCE, "--format", "json"]),
        on(&["render", REFERENCE]),
        on(&["inspect"]),
        on(&["lint", "tests/lint/broken.xml"]),
        on(&["inspect", REFERENCE, "--format", "json"]),
        on(&["capture"]),
        vec!["explain"],
        vec!["explain", "cpu.isolcpus"],
        vec!["--help"],
    ]
}

#[test]
fn looking_issues_no_writing_system_call() {
    let tree = Tree::reference();
    let recorded = format!("{SOURCES}/tests/captures/reference.capture");
    for root in [tree.name(), &recorded] {
        for words in looking(root) {
            let before = (tree.list(), stamps(&tree.root));
            let (ran, calls) = strace(&[], &words);
            assert!(matches!(ran.status, Some(0 | 1)), "{words:?}: {ran:?}");
            assert!(calls.len() > 30, "{words:?}: {calls:#?}");
            for call in &calls {
                assert!(
                    HARMLESS.split_whitespace().any(|name| name == call.name),
                    "{words:?}: {}",
                    call.text
                );
                assert!(!call.opens_to_write(), "{words:?}: {}", call.text);
                let to_output = call.text.starts_with("write(1,") || call.text.starts_with("write(2,");
                assert!(call.name != "write" || to_output, "{words:?}: {}", call.text);
                // Of all requests only the question whether this is a terminal.
                assert!(
                    call.name != "ioctl" || call.text.contains("TCGETS") || call.text.contains("TIOCGWINSZ"),
                    "{}",
                    call.text
                );
                assert!(
                    call.name != "fcntl"
                        || call.text.contains("F_GETF")
                        || call.text.contains("F_SETFD, FD_CLOEXEC"),
                    "{}",
                    call.text
                );
            }
            assert_eq!(calls.iter().filter(|call| call.name == "execve").count(), 1, "{words:?}");
            assert_eq!((tree.list(), stamps(&tree.root)), before, "{words:?}");
        }
    }
}

/// The watch works: it sees what a real apply writes.
#[test]
fn an_apply_is_seen_writing() {
    let tree = Tree::reference();
    let (ran, calls) = strace(&[], &["apply", REFERENCE, "--root", tree.name()]);
    ran.expect(0);
    assert!(calls.iter().any(|call| call.opens_to_write() && call.path().ends_with("smp_affinity_list")));
    for name in ["rename", "symlink", "mkdir", "fsync", "flock"] {
        assert!(calls.iter().any(|call| call.name.contains(name)), "{name}");
        assert!(!HARMLESS.contains(name), "{name}");
    }
}

/// A tree that cannot be written, even by an ordinary user who owns nothing of it.
#[test]
fn looking_needs_no_write_permission() {
    let tree = Tree::reference();
    let listing = tree.list();
    for (path, node) in listing.iter().rev() {
        match node {
            Node::File { .. } => tree.chmod(path, 0o444),
            Node::Dir { .. } => tree.chmod(path, 0o555),
            Node::Link { .. } => {}
        }
    }
    std::fs::set_permissions(tree.beside(""), PermissionsExt::from_mode(0o755)).expect("mode");
    let before = (tree.list(), stamps(&tree.root));
    for words in looking(tree.name()) {
        let ran = tune(&words);
        assert!(matches!(ran.status, Some(0 | 1)), "{words:?}: {ran:?}");
        assert_eq!((tree.list(), stamps(&tree.root)), before, "{words:?}");
    }
}

#[test]
fn each_file_is_read_once() {
    for (machine, profile) in MACHINES {
        let tree = if machine.ends_with(".capture") { Tree::of(machine) } else { continue };
        tree.tune(&["apply", profile]).expect(0);
        for verb in
            [&["apply", "--dry-run", profile][..], &["verify", profile], &["render", profile], &["inspect"]]
        {
            let words = [verb, &["--root", tree.name()]].concat();
            let (_, calls) = strace(&["-e", "trace=open,openat,openat2"], &words);
            let mut opened: BTreeMap<&str, u32> = BTreeMap::new();
            // The loader's own looking for libraries is not ours.
            let own = calls.iter().filter(|call| call.name == "openat2" || call.path().ends_with(".toml"));
            own.for_each(|call| *opened.entry(call.path()).or_default() += 1);
            // A directory: state and journal are in it, one not without the other.
            opened.remove("var/lib");
            // Another: processes are looked for by name, the kernel's threads by its mark on them.
            opened.remove("proc");
            let twice: Vec<_> = opened.iter().filter(|(_, times)| **times > 1).collect();
            assert!(twice.is_empty(), "{machine} {verb:?}: {twice:?}");
            assert!(opened.len() > 20, "{machine} {verb:?}: {opened:?}");
        }
    }
}

/// A reader that goes away is no failure, a full disk is.
#[test]
fn output_that_cannot_be_written() {
    let tree = Tree::of("tests/captures/dies.capture");
    for words in looking(tree.name()).into_iter().filter(|words| words[0] != "--help") {
        let script = "\"$@\" 2>\"$0\" | head -c 10 >/dev/null; exec cat \"$0\"";
        let errors = tree.note("errors", "");
        let mut shell = Command::new("bash");
        let script = format!("set -o pipefail; {}", script.replace("; exec", "; echo status $?; exec"));
        shell.args(["-c", &script, &errors, PROGRAM]).args(&words).current_dir(SOURCES);
        let text = tool(&mut shell, "bash").expect(0).out;
        assert!(
            text == "status 0\n" || (text == "status 1\n" && ["lint", "verify"].contains(&words[0])),
            "{words:?}: {text}"
        );

        let mut full = command(&words);
        let output = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let ran = Ran::of(full.stdout(output).output().expect("starts")).expect(2);
        assert_eq!(
            ran.err, "error: cannot write to standard output: No space left on device (os error 28)\n",
            "{words:?}"
        );
    }
}

#[test]
fn a_closed_standard_error_is_no_crash() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" verify /nowhere.toml 2>&-", PROGRAM]).current_dir(SOURCES);
    assert_eq!(tool(&mut shell, "dash").expect(2).out, "");
}
