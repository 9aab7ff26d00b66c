//! Whatever happens between the first apply and the revert, the revert finds the first day.

use super::support::*;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// One thing that happens to a machine.
#[derive(Debug, Clone)]
enum Event {
    /// An apply of a profile.
    Apply(Asked),
    /// What the boot unit does.
    Runtime(Asked),
    /// An apply in which this system call fails, the nth time.
    Fails(Asked, &'static str, usize),
    /// An apply that is killed there, and the recovery.
    Killed(Asked, &'static str, usize),
    /// Somebody else changes one of the things that are ours.
    Foreign(usize),
    /// Somebody else removes a file of ours.
    Removed(usize),
    /// A revert that leaves what somebody else changed.
    Revert,
}

/// What a profile asks for. Some of it cannot be had on the machine: then the apply is refused.
#[derive(Debug, Clone)]
struct Asked {
    /// CPUs for the system on each node.
    housekeeping: usize,
    /// Huge pages on each node: their size, and how many.
    pages: (&'static str, usize),
    /// Further arguments of the kernel.
    arguments: Vec<&'static str>,
    /// Names, vCPUs and memory in GiB.
    guests: Vec<(&'static str, usize, usize)>,
    /// Knobs that are left alone, by their numbers.
    kept: Vec<usize>,
}

impl Asked {
    fn text(&self) -> String {
        let Asked { housekeeping, pages: (size, count), arguments, .. } = self;
        let mut text = format!(
            "[host]\nhousekeeping-cpus-per-node = {housekeeping}\nkernel-arguments = {arguments:?}\n\n\
             [host.hugepages]\nsize = \"{size}\"\ncount = {count}\n"
        );
        for (name, vcpus, memory) in &self.guests {
            text += &format!("\n[[guest]]\nname = \"{name}\"\nvcpus = {vcpus}\nmemory = \"{memory}GiB\"\n");
        }
        let knobs: Vec<_> = rtkvm_tune::knobs::all().map(|knob| knob.id).collect();
        let kept: BTreeSet<_> = self.kept.iter().map(|number| knobs[number % knobs.len()]).collect();
        let kept: String = kept.iter().map(|knob| format!("\"{knob}\" = \"keep\"\n")).collect();
        text + "\n[knobs]\n" + &kept
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let pages = (prop::sample::select(vec!["1GiB", "1GiB", "2MiB"]), 1..26_usize);
    let some = ["crashkernel=512M", "processor.max_cstate=1", "panic=7", "nosmt"];
    let guest = |name| (Just(name), 2..8_usize, 1..12_usize);
    let guests = (prop::option::of(guest("rt0")), prop::option::of(guest("rt1")));
    let guests = guests.prop_map(|(one, other)| one.into_iter().chain(other).collect());
    let arguments = prop::sample::subsequence(some.to_vec(), 0..3);
    let kept = prop::collection::vec(any::<usize>(), 0..6);
    (1..7_usize, pages, arguments, guests, kept).prop_map(|(housekeeping, pages, arguments, guests, kept)| {
        Asked { housekeeping, pages, arguments, guests, kept }
    })
}

fn event() -> impl Strategy<Value = Event> {
    let calls = ["renameat", "ftruncate", "fchmod", "symlinkat", "unlinkat"];
    let fault = || (asked(), prop::sample::select(calls.to_vec()), 1..20_usize);
    prop_oneof![
        3 => asked().prop_map(Event::Apply),
        1 => asked().prop_map(Event::Runtime),
        2 => fault().prop_map(|(profile, call, at)| Event::Fails(profile, call, at)),
        2 => fault().prop_map(|(profile, call, at)| Event::Killed(profile, call, at)),
        2 => any::<usize>().prop_map(Event::Foreign),
        1 => any::<usize>().prop_map(Event::Removed),
        1 => Just(Event::Revert),
    ]
}

/// The paths of the things that are ours, as the state has them.
fn ours(tree: &Tree) -> Vec<(String, String)> {
    let Ok(text) = std::fs::read_to_string(tree.at(STATE)) else { return Vec::new() };
    let state: Value = serde_json::from_str(&text).expect("JSON");
    let entries = state["baseline"].as_array().expect("entries").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    entries.map(|entry| (text(&entry["path"]), text(&entry["kind"]))).collect()
}

fn happen(tree: &Tree, event: &Event) {
    let profile = |asked: &Asked| tree.note("profile.toml", asked.text());
    let with = |asked: &Asked, inject: String| {
        let words = ["apply", &profile(asked), "--root", tree.name()];
        strace(&["-e", "trace=flock,renameat,ftruncate,fchmod,symlinkat,unlinkat", "-e", &inject], &words).0
    };
    match event {
        Event::Apply(asked) => applies(tree.tune(&["apply", &profile(asked)])),
        Event::Runtime(asked) => applies(tree.tune(&["apply", "--runtime", &profile(asked)])),
        Event::Fails(asked, call, at) => {
            let before = tree.list();
            let ran = with(asked, format!("inject={call}:error=EIO:when={at}"));
            if ran.status == Some(2) && ran.err.contains("is taken back") {
                assert_eq!(changed(&before, &tree.list()), [""; 0], "{event:?}: {}{}", ran.out, ran.err);
            }
            // The journal of a run that is carried out, or not taken back whole.
            if tree.at(JOURNAL).exists() {
                assert!(ran.err.contains("recover") || ran.out.contains("recover"), "{event:?}: {ran:?}");
                tree.tune(&["recover"]).expect(0);
            }
        }
        Event::Killed(asked, call, at) => {
            let before = tree.list();
            let ran = with(asked, format!("inject={call}:signal=KILL:when={at}"));
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

/// Those that are carried out are counted: refused ones prove nothing.
fn applies(ran: Ran) {
    DONE.fetch_add(usize::from(matches!(ran.status, Some(0 | 1))), Relaxed);
}

/// How many applies were carried out.
static DONE: AtomicUsize = AtomicUsize::new(0);

/// What the state says was there before our first touch, as it was on the first day.
fn keeps_the_first_day(tree: &Tree, first: &Listing) {
    let Ok(text) = std::fs::read_to_string(tree.at(STATE)) else { return };
    let state: Value = serde_json::from_str(&text).expect("JSON");
    for entry in state["baseline"].as_array().expect("entries") {
        let path = entry["path"].as_str().expect("text").trim_start_matches('/');
        let before = &entry["before"];
        let kept = match (before["is"].as_str(), before.as_str()) {
            (Some("file"), _) => Some(Node::File {
                mode: before["mode"].as_u64().and_then(|mode| u32::try_from(mode).ok()).expect("a mode"),
                text: before["text"].as_str().expect("text").into(),
            }),
            (Some("link"), _) => Some(Node::Link { target: before["target"].as_str().expect("text").into() }),
            (_, Some(text)) => Some(Node::File { mode: 0, text: text.into() }),
            _ => None,
        };
        assert_eq!(kept.as_ref(), first.get(path), "{path}: its first value is lost");
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

/// How many sequences are tried.
const SEQUENCES: u32 = 40;

#[test]
fn the_first_day_comes_back() {
    let config = ProptestConfig { cases: SEQUENCES, failure_persistence: None, ..ProptestConfig::default() };
    let tried = TestRunner::new(config).run(&prop::collection::vec(event(), 1..9), |events| {
        let tree = Tree::reference();
        // Something of each kind was there before us.
        tree.write(UNIT, "[Unit]\nDescription=older\n");
        tree.chmod(UNIT, 0o640);
        tree.link(WANTS, "/dev/null");
        let first = without_modes(tree.list());
        for event in &events {
            happen(&tree, event);
            keeps_the_first_day(&tree, &first);
        }
        let ran = tree.tune(&["revert", "--force"]);
        prop_assert_eq!(ran.status, Some(0), "{:?}", ran);
        let now = without_modes(tree.list());
        let different = changed(&first, &now);
        let both: Vec<_> = different.iter().map(|path| (path, first.get(path), now.get(path))).collect();
        prop_assert!(different.is_empty(), "{:#?}", both);
        prop_assert!(ours(&tree).is_empty());
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
    report(&format!("{SEQUENCES} sequences, applies carried out"), DONE.load(Relaxed), 10);
}
