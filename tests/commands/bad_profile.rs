//! Profiles that cannot be applied: each is refused before anything is written, in words that name the place.

use super::support::*;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

const PROFILE: &str = r#"[host]
housekeeping-cpus-per-node = 2
housekeeping-memory-per-node = "6GiB"
kernel-arguments = ["skew_tick=1"]
[[guest]]
name = "rt0"
vcpus = 4
memory = "16GiB"
numa-node = 1
"#;

const PER_NODE: &str = "housekeeping-cpus-per-node = 2";
const ARGUMENTS: &str = "\"skew_tick=1\"";
const NAME: &str = "\"rt0\"";

/// What is wrong: instead of the first text, which is in [`PROFILE`], the second; then the line and column, and
/// what must be said.
const BAD: &[(&str, &str, &str, &str)] = &[
    ("vcpus = 4", "vcpu = 4", ":7:1", "did you mean `vcpus`?"),
    ("[[guest]]", "[[guests]]", ":5:3", "unknown key `guests` in the profile"),
    ("vcpus = 4", "vcpus = \"4\"", ":7:9", "`vcpus` has the wrong type"),
    ("vcpus = 4", "vcpus = 4.0", ":7:9", "`vcpus` has the wrong type"),
    ("vcpus = 4", "vcpus = -1", ":7:9", "`-1` cannot be used as `vcpus`"),
    ("vcpus = 4", "vcpus = 0", ":7:9", "`0` cannot be used as `vcpus`"),
    ("vcpus = 4", "vcpus = 99999999999999999999", ":7:9", "error: "),
    ("16GiB", "16GB", ":8:10", "16GB"),
    ("16GiB", "-1GiB", ":8:10", "-1GiB"),
    ("16GiB", "99999999999TiB", ":8:10", "99999999999TiB"),
    ("16GiB", "1GiB\\u0000", ":8:10", "cannot be used as `memory`"),
    ("16GiB", "1.5GiB", ":8:10", "1.5GiB"),
    ("16GiB", "512MiB", ":8:10", "1GiB"),
    ("[[guest]]", "[[guest", ":5:8", "invalid TOML"),
    // CPU lists
    (PER_NODE, "housekeeping-cpus = \"4-N\"", ":2:22", "`4-N` cannot be used as `housekeeping-cpus`"),
    (PER_NODE, "housekeeping-cpus = \"0-7:3/2\"", ":2:22", "`:3/2` is not a stride"),
    (PER_NODE, "housekeeping-cpus = \"0-7:0/0\"", ":2:22", "`:0/0` is not a stride"),
    (PER_NODE, "housekeeping-cpus = \"3-1\"", ":2:22", "the range `3-1` is descending: write `1-3`"),
    (PER_NODE, "housekeeping-cpus = \"1,,2\"", ":2:23", "an empty element in the CPU list"),
    (PER_NODE, "housekeeping-cpus = \"\"", ":2:21", "`housekeeping-cpus` is empty"),
    (PER_NODE, "housekeeping-cpus = \"0-4294967295\"", ":2:22", "CPU 4294967295 is above 8191"),
    (PER_NODE, "housekeeping-cpus = \"0,99\"", ":2:21", "CPU 99 does not exist on this machine"),
    (PER_NODE, "housekeeping-cpus = \"0-15\"", ":2:21", "no CPU is left to be isolated"),
    (PER_NODE, "housekeeping-cpus = \"1,8\"", ":2:21", "CPU 0 is the boot CPU and would be isolated"),
    (PER_NODE, "housekeeping-cpus-per-node = 8", ":2:30", "no CPU is left to be isolated"),
    (PER_NODE, "housekeeping-cpus-per-node = 0", ":2:30", "cannot be used"),
    (
        PER_NODE,
        "housekeeping-cpus-per-node = 2\nisolated-cpus = \"0-15\"",
        ":3:17",
        "is left to be housekeeping",
    ),
    // Memory
    ("\"6GiB\"", "\"40GiB\"", ":3:32", "node 0 has 31.39 GiB; 40.00 GiB are to be kept"),
    ("[[guest]]", "hugepages.count = 32\n[[guest]]", ":5:19", "`count` asks for 32 pages of 1GiB"),
    ("[[guest]]", "hugepages.size = \"1MiB\"\n[[guest]]", ":5:18", "no 1MiB pages"),
    ("16GiB", "26GiB", ":9:13", "guest rt0 needs 26 pages of 1GiB on node 1, which gets 25"),
    ("vcpus = 4", "vcpus = 7", ":9:13", "guest rt0 needs 7 CPUs on node 1, which has 6 isolated"),
    ("numa-node = 1", "numa-node = 7", ":9:13", "node 7 does not exist on this machine"),
    // Names
    (NAME, "\"a/b\"", ":6:8", "has no `/`"),
    (NAME, "\"..\"", ":6:8", "a guest name"),
    (NAME, "\"a<b\"", ":6:8", "has no `<`"),
    (NAME, "'a\"b'", ":6:8", "has no `\"`"),
    (NAME, "\"a\\nb\"", ":6:8", "has no newline"),
    (NAME, "\"a\\u0000b\"", ":6:8", "has no U+0000"),
    (NAME, "\"\"", ":6:8", "1 to 64 characters, not 0"),
    ("numa-node = 1", "[[guest]]\nname = \"rt0\"\nvcpus = 2\nmemory = \"1GiB\"", ":10:8", "rt0"),
    // Kernel arguments
    (ARGUMENTS, "'a=\"b'", ":4:21", "cannot be used"),
    (ARGUMENTS, "\"a='b\"", ":4:21", "cannot be used"),
    (ARGUMENTS, "\"a=$b\"", ":4:21", "cannot be used"),
    (ARGUMENTS, "\"a=`b`\"", ":4:21", "cannot be used"),
    (ARGUMENTS, "\"a=b\\nc\"", ":4:21", "cannot be used"),
    (ARGUMENTS, "\"a=\\\\b\"", ":4:21", "cannot be used"),
    (ARGUMENTS, "\"a b\"", ":4:21", "cannot be used"),
    (ARGUMENTS, "\"--\"", ":4:21", "cannot be used"),
    (ARGUMENTS, "\"\"", ":4:21", "cannot be used"),
    (ARGUMENTS, "\"isolcpus=3\"", ":4:21", "`isolcpus` is set by this program"),
    (ARGUMENTS, "\"nohz-full=3\"", ":4:21", "is set by this program"),
    // Knobs
    ("[[guest]]", "[knobs]\n\"cpu.isolcpu\" = \"keep\"\n[[guest]]", ":6:1", "did you mean `cpu.isolcpus`?"),
    ("[[guest]]", "[knobs]\n\"zzz\" = \"keep\"\n[[guest]]", ":6:1", "`rtkvm-tune explain` lists all knobs"),
    ("[[guest]]", "[knobs]\n\"cpu.isolcpus\" = \"off\"\n[[guest]]", ":6:18", "it takes \"on\", or \"keep\""),
    ("[[guest]]", "[knobs]\n\"memory.stat-interval\" = 0\n[[guest]]", ":6:26", "from 1 to 3600"),
    ("[[guest]]", "[knobs]\n\"cpu.isolcpus\" = true\n[[guest]]", ":6:18", "wrong type"),
    // Templates
    ("numa-node = 1", "template = \"none.xml\"", ":9:12", "there is no such template"),
    ("numa-node = 1", "template = \"../../etc/passwd\"", ":9:12", "a template name"),
];

fn with(old: &str, new: &str) -> String {
    assert_eq!(PROFILE.matches(old).count(), 1, "{old}");
    PROFILE.replace(old, new)
}

/// Every verb that takes a profile refuses this one in the same words, and the tree stays as it is.
#[track_caller]
fn refused(tree: &Tree, before: &Listing, profile: &str, place: &str, said: &str) {
    let mut first = None;
    for verb in [&["apply"][..], &["apply", "--dry-run"], &["verify", "--format", "json"], &["render"]] {
        let ran = tree.tune(&[verb, &[profile]].concat());
        assert_eq!((ran.status, ran.out.as_str()), (Some(2), ""), "{verb:?} {said}: {}", ran.err);
        assert!(ran.err.starts_with("error: ") && !ran.err.contains("panicked"), "{verb:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{verb:?}: no `{said}` in\n{}", ran.err);
        assert!(place.is_empty() || ran.err.contains(&format!("{profile}{place}")), "{place}: {}", ran.err);
        assert!(ran.err.bytes().all(|b| b == b'\n' || b >= b' '), "{:?}", ran.err);
        assert_eq!(first.get_or_insert(ran.err.clone()), &ran.err, "{verb:?}");
    }
    let paths = changed(before, &tree.list());
    assert!(paths.is_empty(), "{said}: {paths:?}");
}

#[test]
fn every_fault_is_refused() {
    let tree = Tree::reference();
    let before = tree.list();
    tree.tune(&["apply", "--dry-run", &tree.note("good.toml", PROFILE)]).expect(0);
    for (old, new, place, said) in BAD {
        refused(&tree, &before, &tree.note("p.toml", with(old, new)), place, said);
    }
    let long = "a".repeat(300);
    let profile = tree.note("p.toml", with("rt0", &long));
    refused(&tree, &before, &profile, ":6:8", "a guest name has 1 to 64 characters, not 300");
    let many = (0..120).map(|n| format!("\"argument{n}=0123456789\"")).collect::<Vec<_>>().join(", ");
    let profile = tree.note("p.toml", with(ARGUMENTS, &many));
    refused(&tree, &before, &profile, ":4:21", "the kernel command line would have ");
}

#[test]
fn faults_of_the_machine_are_refused() {
    let offline = Tree::of("tests/captures/offline.capture");
    let profile = offline.note("p.toml", with(PER_NODE, "housekeeping-cpus = \"0-1,8\""));
    refused(&offline, &offline.list(), &profile, ":2:21", "offline");

    let smt = Tree::of("tests/captures/smt.capture");
    let cores = smt.tune(&["inspect", "--format", "json"]).expect(0).out;
    let cores: serde_json::Value = serde_json::from_str(&cores).expect("JSON");
    let pair = cores["facts"]["cpus"]["cores"][0]["cpus"].as_str().expect("CPUs").to_owned();
    let thread = pair.split([',', '-']).next_back().expect("two");
    let lists = format!("isolated-cpus = \"{thread}\"\n{PER_NODE}");
    let profile = smt.note("p.toml", with(PER_NODE, &lists));
    refused(&smt, &smt.list(), &profile, ":2:17", "share cores");

    let tree = Tree::reference();
    let info = tree.read("proc/cpuinfo");
    assert!(info.contains(" pdpe1gb"));
    tree.write("proc/cpuinfo", info.replace(" pdpe1gb", ""));
    let profile = tree.note("p.toml", PROFILE);
    refused(&tree, &tree.list(), &profile, "", "this processor has no 1 GiB pages");
}

#[test]
fn an_unreadable_profile_is_named() {
    let tree = Tree::reference();
    let before = tree.list();
    let refused = |profile: &str, said: &str| refused(&tree, &before, profile, "", said);
    refused("/nowhere/p.toml", "cannot read /nowhere/p.toml: No such file or directory");
    refused(SOURCES, &format!("cannot read {SOURCES}: it is a directory"));
    refused(
        &tree.note("huge.toml", vec![b'#'; 2 << 20]),
        "huge.toml has 2097152 bytes or more; the limit is 1048576",
    );
    refused("/dev/zero", "/dev/zero has 1048577 bytes or more; the limit is 1048576");
    refused(&tree.note("binary.toml", b"\x7fELF\x02\x01\x01\0\0\0\xff\xfe"), "binary.toml");
    refused(&tree.note("latin.toml", b"[host]\n# \xe4\n"), "UTF-8");
    refused(&tree.note("empty.toml", ""), "missing key `host`");
    let name = "a\u{1b}[31mb.toml";
    let ran = tree.tune(&["apply", "--dry-run", &tree.note(name, "x")]).expect(2);
    assert!(ran.err.contains("b.toml") && !ran.err.contains('\x1b'), "{:?}", ran.err);
}

/// The program as a user who is not root; needs root to become that user.
fn as_nobody(words: &[&str]) -> Ran {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PROGRAM]).args(words).current_dir("/");
    tool(&mut command, "util-linux")
}

#[test]
fn what_root_applies_is_roots_alone() {
    assert!(nix::unistd::geteuid().is_root(), "needs root, to give files away");
    let tree = Tree::reference();
    let before = tree.list();
    let profile = tree.note("p.toml", PROFILE);
    let path = tree.beside("p.toml");
    let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
    let apply = |said: &str| {
        let ran = tree.tune(&["apply", &profile]).expect(2);
        assert!(ran.err.contains(said) && ran.err.contains(&profile), "{}", ran.err);
        assert_eq!((ran.out.as_str(), changed(&before, &tree.list())), ("", vec![]));
        // To look at it is harmless.
        tree.tune(&["apply", "--dry-run", &profile]).expect(0);
        tree.tune(&["verify", &profile]).expect(1);
    };
    mode(0o664);
    apply("its mode is 0664, so that others can change it");
    mode(0o646);
    apply("its mode is 0646, so that others can change it");
    mode(0o644);
    chown(&path, Some(65534), None).expect("given");
    apply("it belongs to user 65534, who can change it");
    chown(&path, Some(0), None).expect("taken");
    tree.tune(&["apply", &profile]).expect(0);
}

#[test]
fn an_ordinary_user_may_look_and_not_touch() {
    assert!(nix::unistd::geteuid().is_root(), "needs root, to become another user");
    let tree = Tree::reference();
    std::fs::set_permissions(tree.beside(""), PermissionsExt::from_mode(0o755)).expect("mode");
    let profile = tree.note("p.toml", PROFILE);
    // The program must be where that user can start it.
    let program = std::fs::metadata(PROGRAM).expect("built").permissions().mode();
    assert_eq!(program & 0o001, 1, "{PROGRAM} is not for all");
    let before = (tree.list(), stamps(&tree.root));
    for words in [&["verify"][..], &["render"], &["apply", "--dry-run"]] {
        let ran = as_nobody(&[words, &[&profile, "--root", tree.name()]].concat());
        assert!(matches!(ran.status, Some(0 | 1)), "{ran:?}");
    }
    let ran = as_nobody(&["apply", &profile, "--root", tree.name()]).expect(2);
    assert!(ran.err.contains("nothing was written"), "{}", ran.err);
    assert!(
        ran.err.contains("/proc/irq/1/smp_affinity_list cannot be written: Permission denied"),
        "{}",
        ran.err
    );
    for live in [
        &["apply", &profile][..],
        &["apply", &profile, "--root", "/"],
        &["apply", &profile, "--root", "/tmp/.."],
    ] {
        let ran = as_nobody(live).expect(2);
        assert!(ran.err.contains("needs root; --dry-run shows the plan without"), "{}", ran.err);
    }
    std::fs::set_permissions(tree.beside("p.toml"), PermissionsExt::from_mode(0o000)).expect("mode");
    let ran = as_nobody(&["verify", &profile, "--root", tree.name()]).expect(2);
    assert!(ran.err.contains(&format!("cannot read {profile}: Permission denied")), "{}", ran.err);
    std::fs::set_permissions(tree.beside("p.toml"), PermissionsExt::from_mode(0o644)).expect("mode");
    assert_eq!((tree.list(), stamps(&tree.root)), before);
}
