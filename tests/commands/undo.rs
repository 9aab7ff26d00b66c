//! `revert`, `recover`, and what an apply puts back by itself.

use super::support::*;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

fn state(tree: &Tree) -> Value {
    serde_json::from_str(&tree.read(STATE)).expect("JSON")
}

#[track_caller]
fn same(before: &Listing, tree: &Tree) {
    let now = tree.list();
    let different = changed(before, &now);
    let both: Vec<_> = different.iter().map(|path| (path, before.get(path), now.get(path))).collect();
    assert!(different.is_empty(), "{both:#?}");
}

#[test]
fn revert_is_the_first_day() {
    for (machine, profile) in MACHINES.iter().filter(|(machine, _)| machine.ends_with(".capture")) {
        let tree = Tree::of(machine);
        let first = tree.list();
        tree.tune(&["apply", profile]).expect(0);
        let ran = tree.tune(&["revert"]).expect(0);
        assert!(ran.out.contains("\nReverted: as before the first apply. "), "{machine}: {}", ran.out);
        assert!(ran.out.contains("to do    run `update-grub` in that system"), "{machine}: {}", ran.out);
        same(&first, &tree);
        let state = state(&tree);
        assert_eq!((&state["baseline"], &state["applied"]), (&Value::Array(Vec::new()), &Value::Null));
        let verbs: Vec<_> =
            state["history"].as_array().expect("runs").iter().map(|run| &run["verb"]).collect();
        assert_eq!(verbs, ["apply", "revert"], "{machine}");
        assert_eq!(tree.tune(&["revert"]).expect(0).out, "Nothing to revert.\n", "{machine}");
    }
}

/// Files, a link and modes that were there before us come back as they were.
#[test]
fn what_was_there_comes_back() {
    let tree = Tree::reference();
    for (path, text, mode) in [
        (KEPT_PROFILE, "# an older profile\n[host]", 0o600),
        (UNIT, "[Unit]\r\nDescription=older", 0o666),
        (DROP_IN, "", 0o644),
        (
            GUEST,
            "<domain type='kvm'><name>rt0</name><uuid>10d1330f-bad2-53bd-9aa5-3558a26ba857</uuid></domain>",
            0o400,
        ),
    ] {
        tree.write(path, text);
        tree.chmod(path, mode);
    }
    tree.link(WANTS, "/lib/systemd/system/rtkvm-tune.service");
    tree.write("proc/irq/1/smp_affinity_list", "0-7");
    tree.write("proc/irq/default_smp_affinity", "0000ffff");
    let first = tree.list();
    tree.tune(&["apply", "--take-over", REFERENCE]).expect(0);
    let kept = std::fs::metadata(tree.at(KEPT_PROFILE)).expect("there").permissions().mode();
    assert_eq!(kept & 0o7777, 0o600, "what was private stays private");
    tree.tune(&["revert"]).expect(0);
    same(&first, &tree);
}

/// The state directory is private, whatever the umask, and its files too.
#[test]
fn the_state_is_private() {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let mode = |path: &str| std::fs::metadata(tree.at(path)).expect("there").permissions().mode() & 0o7777;
    assert_eq!((mode(STATE_DIR), mode(STATE)), (0o700, 0o600));
    assert!(!tree.at(JOURNAL).exists());
}

/// What a later profile does not ask for goes back to the first day, not to the profile before.
#[test]
fn a_dropped_setting_goes_back() {
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let tree = Tree::reference();
    let first = tree.list();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let kept = format!("{text}\n[knobs]\n\"irq.affinity\" = \"keep\"\n\"guest.domain\" = \"keep\"\n");
    let profile = tree.note("keep.toml", kept);
    let audit = tree.tune(&["verify", &profile]).expect(1).out;
    assert!(audit.contains("\n- irq.affinity: IRQ 1,4,8-9,12,25,45"), "{audit}");
    // A guest goes by its name only.
    assert!(!audit.contains("guest.domain"), "{audit}");
    let defined = tree.read(GUEST);
    tree.tune(&["apply", &profile]).expect(0);
    let now = tree.list();
    assert_eq!(tree.read(GUEST), defined);
    let back = |path: &&String| path.ends_with("smp_affinity_list");
    for path in first.keys().chain(now.keys()).filter(back) {
        assert_eq!(first.get(path), now.get(path), "{path}");
    }
    tree.tune(&["verify", &profile]).expect(1);
    assert_eq!(tree.tune(&["apply", &profile]).expect(0).out.lines().count(), 2, "nothing but update-grub");
    tree.tune(&["revert"]).expect(0);
    same(&first, &tree);
}

/// What somebody else changed since is named and left; --force takes it back.
#[test]
fn foreign_changes_are_left() {
    let tree = Tree::reference();
    let first = tree.list();
    tree.tune(&["apply", REFERENCE]).expect(0);
    tree.write("proc/irq/4/smp_affinity_list", "0\n");
    tree.write(UNIT, "[Unit]\nDescription=mine\n");
    let plan = tree.tune(&["revert", "--dry-run"]).expect(0).out;
    for told in ["/proc/irq/4/smp_affinity_list was changed by somebody else since: 0;", "other content"] {
        assert!(plan.contains(told), "{told}: {plan}");
    }
    let ran = tree.tune(&["revert"]).expect(1);
    assert!(ran.out.contains("left     /proc/irq/4/smp_affinity_list was changed"), "{}", ran.out);
    assert_eq!(tree.read("proc/irq/4/smp_affinity_list"), "0\n");
    assert_eq!(tree.read(UNIT), "[Unit]\nDescription=mine\n");
    assert!(!tree.at(KEPT_PROFILE).exists());
    tree.tune(&["revert", "--force"]).expect(0);
    same(&first, &tree);
}

/// The printed revert, given to patch, makes what revert makes; and it writes nothing.
#[test]
fn the_dry_run_of_a_revert_is_the_revert() {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let before = stamps(&tree.root);
    let plan = tree.tune(&["revert", "--dry-run"]).expect(0).out;
    assert_eq!(stamps(&tree.root), before);
    let file = tree.note("plan.txt", &plan);
    let patched = tree.copy();
    let mut patch = std::process::Command::new("patch");
    patch.args(["-p1", "--no-backup-if-mismatch", "--fuzz=0", "-i", &file]).current_dir(&patched.root);
    tool(&mut patch, "patch").expect(0);
    tree.tune(&["revert"]).expect(0);
    let files = |tree: &Tree| {
        let mut list = tree.list();
        list.retain(|_, node| !matches!(node, Node::Dir { .. }));
        list
    };
    let different = changed(&files(&patched), &files(&tree));
    assert!(different.is_empty(), "{different:?}");
}
