//! The printed plan is a patch: fed to the real tools it gives what apply gives.

use super::support::*;
use super::trial::{self, RECORD};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Without what a patch cannot say: directories, and that a guest's definition and a trial's record are private.
fn comparable(listing: Listing) -> Listing {
    let plain = |(path, node): (String, Node)| match node {
        Node::Dir { .. } => None,
        Node::File { text, .. } if [GUEST, RECORD].contains(&path.as_str()) => {
            Some((path, Node::File { mode: 0, text }))
        }
        node => Some((path, node)),
    };
    listing.into_iter().filter_map(plain).collect()
}

fn git_apply(tree: &Tree, patch: &str) {
    let mut git = Command::new("git");
    // Not as part of a repository around the temporary directory.
    git.env_remove("GIT_DIR").env("GIT_CEILING_DIRECTORIES", tree.root.parent().expect("a parent"));
    git.args(["-c", "core.fileMode=true", "apply", "-p1", patch]).current_dir(&tree.root);
    let ran = tool(&mut git, "git").expect(0);
    assert_eq!(ran.err, "");
}

fn patch(tree: &Tree, patch: &str) {
    let mut command = Command::new("patch");
    command.args(["-p1", "--no-backup-if-mismatch", "--fuzz=0"]).current_dir(&tree.root);
    let ran = tool(command.stdin(File::open(patch).expect("there")), "patch").expect(0);
    assert!(!ran.out.contains("offset") && !ran.out.contains("fuzz"), "{}", ran.out);
}

/// Applies the printed plan to copies and compares them with what apply makes of the tree.
#[track_caller]
fn agrees(tree: &Tree, words: &[&str]) {
    let plan = tree.tune(&[words, &["--dry-run"]].concat()).expect(0).out;
    let file = tree.note("plan.txt", &plan);
    let (by_git, by_patch) = (tree.copy(), tree.copy());
    git_apply(&by_git, &file);
    patch(&by_patch, &file);
    tree.tune(words).expect(0);
    let applied = comparable(tree.list());
    for (other, name) in [(by_git, "git apply"), (by_patch, "patch")] {
        let other = comparable(other.list());
        let different = changed(&applied, &other);
        let both: Vec<_> = different.iter().map(|path| (applied.get(path), other.get(path))).collect();
        assert!(different.is_empty(), "{name}: {different:?}\n{both:?}");
    }
}

#[test]
fn the_dry_run_is_the_apply() {
    for (machine, profile) in MACHINES.iter().filter(|(machine, _)| machine.ends_with(".capture")) {
        agrees(&Tree::of(machine), &["apply", profile]);
    }
}

/// Files, a link and a drop-in that are there with other content, with and without newlines at their ends.
#[test]
fn what_is_there_is_changed() {
    let tree = Tree::reference();
    tree.write(KEPT_PROFILE, "# an older profile\n[host]");
    tree.write(UNIT, "[Unit]\nDescription=older\r\nAfter=a\rb\u{b}c\u{2028}d\n\n\n");
    tree.write(DROP_IN, "");
    tree.write(GUEST, "<domain type='kvm'>\n  <name>rt0</name>\n  <uuid>10d1330f-bad2-53bd-9aa5-3558a26ba857</uuid>\n</domain>");
    tree.link(WANTS, "/lib/systemd/system/rtkvm-tune.service");
    tree.write("proc/irq/1/smp_affinity_list", "0-7");
    for path in [KEPT_PROFILE, UNIT, DROP_IN, GUEST] {
        tree.chmod(path, 0o644);
    }
    agrees(&tree, &["apply", "--take-over", REFERENCE]);
}

/// A drop-in in which nothing is asked for any more is taken away.
#[test]
fn what_is_dropped_is_removed() {
    let tree = Tree::reference();
    let text = fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let ids = [
        "cpu.isolcpus",
        "cpu.nohz-full",
        "cpu.rcu-nocbs",
        "cpu.skew-tick",
        "cpu.nohz",
        "irq.boot-affinity",
        "memory.hugepages-boot",
        "sched.psi",
        "watchdog.soft-boot",
        "watchdog.nmi-boot",
    ];
    let kept: String = ids.iter().map(|id| format!("\"{id}\" = \"keep\"\n")).collect();
    let profile = tree.note("keep.toml", format!("{text}\n[knobs]\n{kept}"));
    tree.write(DROP_IN, "GRUB_CMDLINE_LINUX_DEFAULT=\"${GRUB_CMDLINE_LINUX_DEFAULT} nosmt\"\n");
    tree.chmod(DROP_IN, 0o644);
    agrees(&tree, &["apply", &profile]);
    assert!(!tree.at(DROP_IN).exists());
}

/// The beginning and the end of a trial, with its script that is to be run.
#[test]
fn a_trial_comes_and_goes() {
    let tree = trial::machine();
    // The record has the time to the second in it.
    tree.tune(&["apply", "--trial", REFERENCE]).expect(0);
    agrees(&tree, &["apply", REFERENCE]);
    let tree = trial::machine();
    let plan = tree.tune(&["apply", "--trial", "--dry-run", REFERENCE]).expect(0).out;
    git_apply(&tree, &tree.note("plan.txt", plan));
    let script = fs::metadata(tree.at("etc/grub.d/99_rtkvm-tune-trial")).expect("there");
    assert_eq!(script.permissions().mode() & 0o777, 0o755);
}

/// A plan without changes is no patch.
#[test]
fn nothing_to_do_is_no_patch() {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    assert!(!plan.lines().any(|line| line.starts_with("--- ") || line.starts_with("diff ")), "{plan}");
}
