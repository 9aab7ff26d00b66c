//! Every verb over every recorded machine.

use super::support::*;
use serde_json::Value;
use std::path::Path;

/// Runs twice: the same bytes, no escape codes, nothing on standard error but warnings.
fn steady(words: &[&str], allowed: &[i32]) -> Ran {
    let ran = tune(words);
    assert!(allowed.contains(&ran.status.unwrap_or(-1)), "{words:?}: {ran:?}");
    assert_eq!(ran, tune(words), "{words:?}");
    assert!(!ran.out.is_empty(), "{words:?}");
    for text in [&ran.out, &ran.err] {
        assert!(!text.contains('\x1b') && !text.contains("panicked"), "{words:?}: {text}");
    }
    assert_eq!(ran.err, "", "{words:?}");
    ran
}

/// The same as JSON.
fn steady_json(words: &[&str], allowed: &[i32]) -> Value {
    let ran = steady(&[words, &["--format", "json"]].concat(), allowed);
    let document: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert_eq!(document["schema"], 1, "{words:?}");
    document
}

#[test]
fn every_capture_and_document_is_listed() {
    for (dir, extension) in [("tests/captures", "capture"), ("tests/capabilities", "xml")] {
        for entry in std::fs::read_dir(Path::new(SOURCES).join(dir)).expect("readable") {
            let path = entry.expect("readable").path();
            let name = path.strip_prefix(SOURCES).expect("below").to_str().expect("UTF-8").to_owned();
            let listed = MACHINES.iter().any(|(machine, _)| *machine == name);
            assert!(listed || path.extension().is_none_or(|e| e != extension), "{name} is not in MACHINES");
        }
    }
}

#[test]
fn apply_dry_run() {
    for (machine, profile) in MACHINES {
        let words = ["apply", "--dry-run", profile, "--root", machine];
        let text = steady(&words, &[0]).out;
        let document = steady_json(&words, &[0]);
        assert_eq!(document["machine"], *machine);
        let patch = document["patch"].as_str().expect("a patch");
        assert!(!patch.is_empty() && text.ends_with(&format!("\n\n{patch}")), "{machine}");
        assert!(text.starts_with(&format!("Plan for {profile} on {machine}\n")), "{text}");
        steady(&[&words[..], &["--exit-code"]].concat(), &[1]);
    }
}

#[test]
fn verify() {
    for (machine, profile) in MACHINES {
        let words = ["verify", profile, "--root", machine];
        let text = steady(&words, &[1]).out;
        assert!(text.starts_with(&format!("Audit of {profile} on {machine}\n")), "{text}");
        assert_eq!(steady_json(&words, &[1])["status"], 1, "{machine}");
    }
}

#[test]
fn render() {
    for (machine, profile) in MACHINES {
        let text = steady(&["render", profile, "--root", machine], &[0]).out;
        let document = roxmltree::Document::parse(&text).expect("XML");
        assert!(document.root_element().has_tag_name("domain"), "{machine}");
        assert_eq!(steady(&["render", profile, "--root", machine, "--guest", "rt0"], &[0]).out, text);
        let into = tempfile::tempdir().expect("a directory");
        let dir = into.path().to_str().expect("UTF-8");
        let ran = tune(&["render", profile, "--root", machine, "--output-dir", dir]).expect(0);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
        assert_eq!(std::fs::read_to_string(into.path().join("rt0.xml")).expect("written"), text);
        let xml = into.path().join("rt0.xml");
        let found = tune(&["lint", xml.to_str().expect("UTF-8"), "--profile", profile, "--root", machine]);
        assert_eq!((found.status, found.out.as_str()), (Some(0), "1 file: nothing found.\n"), "{machine}");
    }
}

#[test]
fn inspect() {
    for (machine, profile) in MACHINES {
        for words in [&["inspect", "--root", machine][..], &["inspect", profile, "--root", machine]] {
            steady(words, &[0]);
            assert_eq!(steady_json(words, &[0])["placement"].is_null(), words.len() == 3, "{words:?}");
        }
    }
}

/// A capture of a capture, and of a tree made from it, is that capture without its comments. So the trees of
/// the other tests are the machines of the captures.
#[test]
fn capture() {
    for (machine, profile) in MACHINES {
        let text = steady(&["capture", "--root", machine], &[0]).out;
        let again = tempfile::NamedTempFile::new().expect("a file");
        let path = again.path().to_str().expect("UTF-8");
        tune(&["capture", "--root", machine, "-o", path]).expect(0);
        assert_eq!(std::fs::read_to_string(path).expect("written"), text, "{machine}");
        assert_eq!(tune(&["capture", "--root", path]).expect(0).out, text, "{machine}");
        if machine.ends_with(".capture") {
            let tree = Tree::of(machine);
            let of_tree = tree.tune(&["capture"]).expect(0).out;
            // Only whether the program is there is read, not how it begins.
            let [text, of_tree] = [&text, &of_tree].map(|text| {
                let (before, after) = text.split_once("\n/usr/bin/rtkvm-tune [0755]|\n").expect("installed");
                assert!(after.lines().all(|line| line.starts_with("  ")), "{machine}: {after}");
                before
            });
            let different = text.lines().zip(of_tree.lines()).find(|(a, b)| a != b);
            assert!(of_tree == text, "{machine}: {different:?}");
            let plan = |root: &str| tune(&["apply", "--dry-run", profile, "--root", root]).expect(0).out;
            assert_eq!(plan(tree.name()).replace(tree.name(), machine), plan(machine), "{machine}");
        }
    }
}

#[test]
fn explain() {
    let list = steady(&["explain"], &[0]).out;
    assert!(list.lines().count() > 10, "{list}");
    for line in list.lines() {
        let id = line.split(' ').next().expect("an id");
        let text = steady(&["explain", id], &[0]).out;
        for part in [id, "Why", "Since", "Checked by", "Source", &format!("\"{id}\" = \"keep\"")] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let ran = tune(&["explain", "cpu.isolcpu"]).expect(2);
    assert_eq!((ran.out.as_str(), ran.err.contains("did you mean `cpu.isolcpus`?")), ("", true), "{ran:?}");
}

/// What a machine calls its things does not reach the terminal as escape codes.
#[test]
fn names_of_the_machine_are_printed_safely() {
    let tree = Tree::reference();
    tree.write("etc/os-release", "PRETTY_NAME=\"a\x1b[2Jb\"\n");
    tree.write("sys/kernel/irq/24/actions", "x\x1b[31m\x07y\n");
    tree.write("proc/cmdline", "isolcpus=\x1b[1m3 quiet\n");
    tree.write("sys/devices/system/cpu/isolated", "\x1b[1m\n");
    for words in [&["apply", "--dry-run", REFERENCE][..], &["verify", REFERENCE], &["apply", REFERENCE]] {
        let ran = tree.tune(words);
        assert!(matches!(ran.status, Some(0 | 1)), "{ran:?}");
        assert!(ran.out.bytes().all(|b| b == b'\n' || b >= b' '), "{words:?}: {}", ran.out.escape_debug());
    }
    let broken = tree.note("broken", "rtkvm-tune capture 1\n\x1b[2J\n");
    let ran = tune(&["verify", REFERENCE, "--root", &broken]).expect(2);
    assert!(ran.err.contains("line 2: ") && !ran.err.contains('\x1b'), "{ran:?}");
}

#[test]
fn apply_as_json() {
    let tree = Tree::reference();
    let apply = |status| {
        let ran = tree.tune(&["apply", REFERENCE, "--format", "json"]).expect(status);
        assert_eq!(ran.err, "");
        serde_json::from_str::<Value>(&ran.out).expect("JSON")
    };
    let outcomes = |document: &Value, outcome: &str| {
        let reports = document["reports"].as_array().expect("reports").iter();
        reports.filter(|report| report["outcome"] == outcome).count()
    };
    let document = apply(0);
    assert_eq!((&document["schema"], &document["status"]), (&1.into(), &1.into()));
    assert_eq!((outcomes(&document, "done"), outcomes(&document, "left-to-you")), (36, 4), "{document:#}");
    let document = apply(0);
    assert_eq!((outcomes(&document, "done"), outcomes(&document, "left-to-you")), (0, 1), "{document:#}");
}
