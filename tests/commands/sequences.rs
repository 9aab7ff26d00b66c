//! Whatever happens between the first apply and the revert, the revert finds the first day.

use super::support::*;
use proptest::prelude::*;
use serde_json::Value;

/// One thing that happens to a machine.
#[derive(Debug, Clone)]
enum Event {
    /// An apply of one of the profiles.
    Apply(usize),
    /// What the boot unit does.
    Runtime(usize),
    /// An apply in which this system call fails, the nth time.
    Fails(usize, &'static str, usize),
    /// An apply that is killed there, and the recovery.
    Killed(usize, &'static str, usize),
    /// Somebody else changes one of the things that are ours.
    Foreign(usize),
    /// Somebody else removes a file of ours.
    Removed(usize),
    /// A revert that leaves what somebody else changed.
    Revert,
}

fn event() -> impl Strategy<Value = Event> {
    let call = prop::sample::select(vec!["renameat", "ftruncate", "fchmod", "symlinkat", "unlinkat"]);
    let fault = (0..4_usize, call, 1..20_usize);
    prop_oneof![
        3 => (0..4_usize).prop_map(Event::Apply),
        1 => (0..4_usize).prop_map(Event::Runtime),
        2 => fault.clone().prop_map(|(profile, call, at)| Event::Fails(profile, call, at)),
        2 => fault.prop_map(|(profile, call, at)| Event::Killed(profile, call, at)),
        2 => any::<usize>().prop_map(Event::Foreign),
        1 => any::<usize>().prop_map(Event::Removed),
        1 => Just(Event::Revert),
    ]
}

/// Profiles that ask for more, less and other things than each other.
fn profiles(tree: &Tree) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let keep = |ids: &[&str]| {
        let lines: String = ids.iter().map(|id| format!("\"{id}\" = \"keep\"\n")).collect();
        format!("{text}\n[knobs]\n{lines}")
    };
    let boot =
        ["cpu.isolcpus", "cpu.nohz-full", "cpu.rcu-nocbs", "irq.boot-affinity", "memory.hugepages-boot"];
    let other = text.replace("housekeeping-cpus-per-node = 2", "housekeeping-cpus-per-node = 3");
    assert_ne!(other, text);
    let texts =
        [text.clone(), keep(&["irq.affinity", "guest.domain", "services.boot-unit"]), keep(&boot), other];
    let names = texts.iter().enumerate().map(|(at, text)| tree.note(&format!("{at}.toml"), text));
    names.collect()
}

/// The paths of the things that are ours, as the state has them.
fn ours(tree: &Tree) -> Vec<(String, String)> {
    let Ok(text) = std::fs::read_to_string(tree.at(STATE)) else { return Vec::new() };
    let state: Value = serde_json::from_str(&text).expect("JSON");
    let entries = state["baseline"].as_array().expect("entries").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    entries.map(|entry| (text(&entry["path"]), text(&entry["kind"]))).collect()
}

fn happen(tree: &Tree, profiles: &[String], event: &Event) {
    let with = |profile: usize, inject: String| {
        let words = ["apply", &profiles[profile], "--root", tree.name()];
        strace(&["-e", "trace=flock,renameat,ftruncate,fchmod,symlinkat,unlinkat", "-e", &inject], &words).0
    };
    match event {
        Event::Apply(profile) => _ = tree.tune(&["apply", &profiles[*profile]]),
        Event::Runtime(profile) => _ = tree.tune(&["apply", "--runtime", &profiles[*profile]]),
        Event::Fails(profile, call, at) => {
            let before = tree.list();
            let ran = with(*profile, format!("inject={call}:error=EIO:when={at}"));
            if ran.status == Some(2) && ran.err.contains("is taken back") {
                assert_eq!(changed(&before, &tree.list()), [""; 0], "{event:?}: {}{}", ran.out, ran.err);
            }
            // The journal of a run that is carried out, or not taken back whole.
            if tree.at(JOURNAL).exists() {
                assert!(ran.err.contains("recover") || ran.out.contains("recover"), "{event:?}: {ran:?}");
                tree.tune(&["recover"]).expect(0);
            }
        }
        Event::Killed(profile, call, at) => {
            let before = tree.list();
            let ran = with(*profile, format!("inject={call}:signal=KILL:when={at}"));
            let recovered = tree.tune(&["recover"]).expect(0).out;
            if ran.status.is_none() && recovered.contains("is taken back") {
                assert_eq!(changed(&before, &tree.list()), [""; 0], "{event:?}: {recovered}");
            }
        }
        Event::Foreign(at) => {
            let ours = ours(tree);
            if let Some((path, kind)) = ours.get(at % ours.len().max(1)) {
                let text = if kind == "attribute" { "1\n" } else { "<domain><name>rt0</name></domain>" };
                let _ = std::fs::remove_file(tree.at(path));
                tree.write(path, text);
                tree.chmod(path, 0o644);
            }
        }
        Event::Removed(at) => {
            let files: Vec<_> = ours(tree).into_iter().filter(|(_, kind)| kind != "attribute").collect();
            if let Some((path, _)) = files.get(at % files.len().max(1)) {
                let _ = std::fs::remove_file(tree.at(path));
            }
        }
        Event::Revert => _ = tree.tune(&["revert"]),
    }
}

/// Modes of attributes are not ours to put back; a tree's attribute that was replaced has another.
fn without_modes(listing: Listing) -> Listing {
    let plain = |(path, node): (String, Node)| match node {
        Node::File { text, .. } if path.starts_with("proc/") || path.starts_with("sys/") => {
            (path, Node::File { mode: 0, text })
        }
        node => (path, node),
    };
    listing.into_iter().map(plain).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_first_day_comes_back(events in prop::collection::vec(event(), 1..9)) {
        let tree = Tree::reference();
        // Something of each kind was there before us.
        tree.write(UNIT, "[Unit]\nDescription=older\n");
        tree.chmod(UNIT, 0o640);
        tree.link(WANTS, "/dev/null");
        let profiles = profiles(&tree);
        let first = without_modes(tree.list());
        for event in &events {
            happen(&tree, &profiles, event);
        }
        let ran = tree.tune(&["revert", "--force"]);
        prop_assert_eq!(ran.status, Some(0), "{:?}", ran);
        let now = without_modes(tree.list());
        let different = changed(&first, &now);
        let both: Vec<_> = different.iter().map(|path| (path, first.get(path), now.get(path))).collect();
        prop_assert!(different.is_empty(), "{:#?}", both);
        prop_assert!(ours(&tree).is_empty());
    }
}
