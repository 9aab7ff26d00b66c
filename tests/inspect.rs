//! `rtkvm-tune inspect` on recorded machines.
//!
//! tests/inspect/NAME.txt holds what is printed, byte for byte. After a wanted change of the output write them
//! anew with `UPDATE_EXPECT=1 cargo test --test inspect`, and review the difference.

#[path = "inspect/machines.rs"]
mod machines;

use rtkvm_tune::formats::CpuSet;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROFILE: &str = "profiles/kvm-realtime.toml";
const REFERENCE_XML: &str = "tests/capabilities/reference.xml";

/// Expected output, machine, profile.
const GOLDEN: &[(&str, &str, Option<&str>)] = &[
    ("reference", "tests/captures/reference.capture", None),
    ("reference-profile", "tests/captures/reference.capture", Some(PROFILE)),
    ("reference-tuned", "tests/captures/reference-tuned.capture", None),
    ("interleaved", "tests/captures/interleaved.capture", None),
    ("interleaved-profile", "tests/captures/interleaved.capture", Some(PROFILE)),
    ("smt", "tests/captures/smt.capture", None),
    ("smt-guests", "tests/captures/smt.capture", Some("tests/inspect/smt-guests.toml")),
    ("sub-numa", "tests/captures/sub-numa.capture", None),
    ("memory-only", "tests/captures/memory-only.capture", None),
    ("offline", "tests/captures/offline.capture", None),
    ("no-numa", "tests/captures/no-numa.capture", None),
    ("dies", "tests/captures/dies.capture", None),
    ("capabilities-guide", "tests/capabilities/guide.xml", None),
    ("capabilities-profile", REFERENCE_XML, Some(PROFILE)),
];

fn inspect(machine: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rtkvm-tune"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["inspect", "--root"])
        .arg(machine)
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn printed(machine: &Path, arguments: &[&str]) -> String {
    let output = inspect(machine, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{}: {error}", machine.display());
    assert_eq!(error, "", "{}", machine.display());
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(machine: &Path, arguments: &[&str]) -> Value {
    let text = printed(machine, &[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&text).expect("JSON")
}

/// Every recorded machine in the tree, and those made here.
fn each_machine(mut check: impl FnMut(&Path)) {
    let mut paths = Vec::new();
    for (dir, extension) in [("tests/captures", "capture"), ("tests/capabilities", "xml")] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let found: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
        paths.extend(found.into_iter().filter(|path| path.extension().is_some_and(|e| e == extension)));
    }
    assert!(paths.len() > 9, "only {paths:?}");
    let made = tempfile::tempdir().expect("a directory");
    for (name, capture) in machines::all() {
        let path = made.path().join(name);
        std::fs::write(&path, capture).expect("written");
        paths.push(path);
    }
    paths.iter().for_each(|path| check(path));
}

/// One of the machines made here.
fn made(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(name);
    let (_, text) = machines::all().into_iter().find(|(n, _)| *n == name).expect("known");
    std::fs::write(&path, text).expect("written");
    (dir, path)
}

/// The letters of the CPU map, by CPU. Fails on a CPU that is there twice.
fn map(text: &str) -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    let in_map = |part: &&str| ["node ", "on no node", "offline "].iter().any(|head| part.starts_with(head));
    for word in text.split("\n\n").filter(in_map).flat_map(str::split_whitespace) {
        let word = word.trim_matches(['[', ']', '*']);
        let digits = word.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '.' || c == '-');
        let letter = &word[..word.len() - digits.len()];
        if let (false, Ok(cpu)) = (letter.is_empty(), digits.parse()) {
            assert_eq!(found.insert(cpu, letter.to_owned()), None, "CPU {cpu} is there twice:\n{text}");
        }
    }
    found
}

fn set(value: &Value) -> CpuSet {
    CpuSet::parse_kernel_list(value.as_str().expect("a CPU list")).expect("a CPU list")
}

fn with_letter(map: &BTreeMap<u32, String>, letter: &str) -> CpuSet {
    map.iter().filter(|(_, l)| *l == letter).map(|(cpu, _)| *cpu).collect()
}

#[test]
fn prints_what_is_expected() {
    let mut differing = Vec::new();
    for (name, machine, profile) in GOLDEN {
        let text = printed(Path::new(machine), &profile.iter().copied().collect::<Vec<_>>());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/inspect/{name}.txt"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &text).expect("written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if text != expected {
            differing.push(format!("{name}: expected\n{expected}\nfound\n{text}"));
        }
    }
    assert!(differing.is_empty(), "{}\nUPDATE_EXPECT=1 writes them anew", differing.join("\n"));
}

#[test]
fn every_cpu_is_in_the_map_once() {
    each_machine(|machine| {
        let name = machine.display();
        let text = printed(machine, &[]);
        let facts = &json(machine, &[])["facts"]["cpus"];
        let map = map(&text);
        assert_eq!(map.keys().copied().collect::<CpuSet>(), set(&facts["present"]), "{name}");
        assert_eq!(with_letter(&map, "-"), set(&facts["offline"]), "{name}");
        if facts["isolated"].is_string() {
            let isolated = set(&facts["isolated"]).intersection(&set(&facts["online"]));
            assert_eq!(with_letter(&map, "I"), isolated, "{name}");
        }
        let boot = format!("{}*", facts["boot"]);
        let marked: Vec<&str> = text.split([' ', '\n']).filter(|w| w.ends_with('*') && w.len() > 1).collect();
        assert!(marked.len() == 1 && marked[0].ends_with(&boot), "{name}: {marked:?}");
    });
}

#[test]
fn lines_are_narrow_and_plain() {
    each_machine(|machine| {
        for line in printed(machine, &[]).lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", machine.display());
            assert!(!line.chars().any(char::is_control), "{}: {line:?}", machine.display());
            assert_eq!(line.trim_end(), line, "{}", machine.display());
        }
    });
}

#[test]
fn json_is_the_facts() {
    each_machine(|machine| {
        let document = json(machine, &[]);
        assert_eq!(document["schema"], 1);
        assert_eq!(document["machine"], machine.display().to_string());
        assert_eq!(document["placement"], Value::Null);
        let snapshot = rtkvm_tune::host::Machine::named(Some(machine)).snapshot().expect("a machine");
        let facts = rtkvm_tune::facts::Facts::read(&snapshot).expect("facts");
        assert_eq!(document["facts"], serde_json::to_value(&facts).expect("JSON"), "{}", machine.display());
    });
}

#[test]
fn a_profile_gives_the_planned_roles() {
    let machine = Path::new(REFERENCE_XML);
    let (text, document) = (printed(machine, &[PROFILE]), json(machine, &[PROFILE]));
    let (map, placement) = (map(&text), &document["placement"]);
    assert_eq!(with_letter(&map, "H"), set(&placement["housekeeping"]));
    let guest = with_letter(&map, "a");
    assert_eq!(guest, set(&placement["guests"][0]["cores"]));
    assert_eq!(with_letter(&map, "I").union(&guest), set(&placement["isolated"]));
    assert!(text.contains(" a rt0: 4 vCPUs on 12-15 of node 1, one last-level cache; 16 x 1GiB;"), "{text}");
}

#[test]
fn idle_siblings_are_told_from_vcpus() {
    let (_dir, machine) = made("threads");
    let text = printed(&machine, &["tests/inspect/smt-guests.toml"]);
    let map = map(&text);
    let guests = json(&machine, &["tests/inspect/smt-guests.toml"])["placement"]["guests"].clone();
    for (at, letter) in ["a", "b"].into_iter().enumerate() {
        let cpus: Vec<u32> = serde_json::from_value(guests[at]["cpus"].clone()).expect("CPUs");
        assert_eq!(with_letter(&map, letter), cpus.into_iter().collect(), "{text}");
    }
    let first = with_letter(&map, "a");
    assert_eq!(with_letter(&map, "."), set(&guests[0]["cores"]).difference(&first), "{text}");
    assert!(!with_letter(&map, ".").is_empty());
    assert!(text.contains(". idle, in a guest's core"), "{text}");
}

#[test]
fn offline_cpus_and_missing_nodes_are_shown() {
    let (_dir, machine) = made("offline");
    let text = printed(&machine, &[]);
    assert!(text.contains("6 online of 8 present: 1-2,4-7\noffline        0,3\n"), "{text}");
    assert!(text.contains("H1*"), "{text}");
    let (_dir, machine) = made("no-nodes");
    let text = printed(&machine, &[]);
    assert!(text.contains("the kernel shows no memory nodes: everything is on node 0"), "{text}");
    assert!(text.contains("node 0") && text.contains("7.50 GiB   CPUs 0-3"), "{text}");
}

#[test]
fn a_bad_profile_is_shown_and_ends_in_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let bad = |text: &str| {
        let path = dir.path().join("bad.toml");
        std::fs::write(&path, text).expect("written");
        let output = inspect(Path::new(REFERENCE_XML), &[path.to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let error = bad("[host]\nhousekeeping-cpu-per-node = 2\n");
    assert!(error.contains("bad.toml:2:1") && error.contains("housekeeping-cpus-per-node"), "{error}");
    let error = bad("[host]\nhousekeeping-cpus = \"0-99\"\nhousekeeping-memory-per-node = \"6GiB\"\n");
    assert!(error.contains("CPUs 16-99 do not exist") && error.contains("bad.toml:2:"), "{error}");
    let output = inspect(Path::new(REFERENCE_XML), &["missing.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing.toml"));
}

/// `virsh capabilities` and `inspect` say the same of one machine.
#[test]
fn agrees_with_capabilities() {
    let text = std::fs::read_to_string(REFERENCE_XML).expect("readable");
    let document = roxmltree::Document::parse(&text).expect("XML");
    let facts = &json(Path::new(REFERENCE_XML), &[])["facts"];
    let cells: Vec<_> = document.descendants().filter(|node| node.has_tag_name("cell")).collect();
    let nodes = facts["numa"]["nodes"].as_array().expect("nodes");
    assert_eq!((cells.len(), nodes.len()), (2, 2));
    for (cell, node) in cells.iter().zip(nodes) {
        let number = |node: roxmltree::Node, name: &str| -> u64 {
            node.attribute(name).expect(name).parse().expect("a number")
        };
        let all = |name: &'static str| cell.descendants().filter(move |child| child.has_tag_name(name));
        let value = |node: roxmltree::Node| -> u64 { node.text().expect("text").parse().expect("a number") };
        assert_eq!(node["id"], number(*cell, "id"));
        assert_eq!(node["memory"], value(all("memory").next().expect("memory")) * 1024);
        let pools: Vec<(u64, u64)> = all("pages")
            .map(|p| (number(p, "size") * 1024, value(p)))
            .filter(|(size, _)| *size > 4096)
            .collect();
        let shown = node["pools"].as_array().expect("pools").iter();
        let shown: Vec<_> = shown.map(|pool| (pool["page"].as_u64(), pool["pages"].as_u64())).collect();
        assert_eq!(shown, pools.iter().map(|(size, count)| (Some(*size), Some(*count))).collect::<Vec<_>>());
        assert!(!pools.is_empty());
        let distances: Vec<[u64; 2]> =
            all("sibling").map(|s| [number(s, "id"), number(s, "value")]).collect();
        assert_eq!(node["distances"], serde_json::to_value(distances).expect("JSON"));
        let cpus: CpuSet = all("cpu").map(|cpu| number(cpu, "id") as u32).collect();
        assert_eq!(set(&node["cpus"]), cpus);
        for cpu in all("cpu") {
            let id = number(cpu, "id") as u32;
            let cores = facts["cpus"]["cores"].as_array().expect("cores");
            let core = cores.iter().find(|core| set(&core["cpus"]).contains(id)).expect("a core");
            assert_eq!(core["cpus"], cpu.attribute("siblings").expect("siblings"));
            assert_eq!(core["package"], number(cpu, "socket_id"));
            assert_eq!(core["die"], number(cpu, "die_id"));
            assert_eq!(core["id"], number(cpu, "core_id"));
            assert_eq!(core["node"], number(*cell, "id"));
        }
    }
    for bank in document.descendants().filter(|node| node.has_tag_name("bank")) {
        let cpus = bank.attribute("cpus").expect("cpus");
        let text = printed(Path::new(REFERENCE_XML), &[]);
        assert!(text.lines().any(|line| line.starts_with(&format!("  LLC {cpus} "))), "{cpus}\n{text}");
    }
}

/// What no machine has, and a capture may say.
#[test]
fn no_number_is_too_large() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("strange.capture");
    let (cpu, package) = ("/sys/devices/system/cpu", "topology/physical_package_id [0444]");
    let pages = "/sys/kernel/mm/hugepages";
    let text = format!(
        "rtkvm-tune capture 1\n{cpu}/online [0444]: 0-2\n{cpu}/cpu0/{package}: 4294967294\n\
         {cpu}/cpu1/{package}: 4294967295\n{cpu}/cpu2/{package}: 8192\n\
         /proc/meminfo [0444]: MemTotal: {0} kB\n{pages}/: hugepages-{0}kB\n\
         {pages}/hugepages-{0}kB/nr_hugepages [0644]: {0}\n",
        u64::MAX
    );
    std::fs::write(&path, text).expect("written");
    let text = printed(&path, &[]);
    for said in ["  sockets 8192,4294967294-4294967295  ", "17179869184.00 GiB"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let output = inspect(&path, &[PROFILE]);
    assert!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
}

/// As many CPUs as a kernel can have, each with nothing but its number: what is grouped is grouped once. The program's
/// own CPU time is what counts: how long it waits for others that run here says nothing.
#[test]
fn many_cpus_take_no_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("many.capture");
    std::fs::write(&path, "rtkvm-tune capture 1\n/sys/devices/system/cpu/online [0444]: 0-8191\n")
        .expect("written");
    let output = Command::new("sh")
        .args([
            "-c",
            "\"$@\" && times >&2",
            "sh",
            env!("CARGO_BIN_EXE_rtkvm-tune"),
            "inspect",
            "--format",
            "json",
        ])
        .arg("--root")
        .arg(&path)
        .output()
        .expect("sh starts");
    let facts = serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["facts"].take();
    let cores = facts["cpus"]["cores"].as_array().expect("cores");
    assert_eq!((cores.len(), cores[8191]["llc"].as_str()), (8192, Some("0-8191")));
    let times = String::from_utf8(output.stderr).expect("UTF-8");
    let seconds = cpu_seconds(&times);
    assert!(seconds < 5.0, "{seconds} s: {times}");
}

/// User and system time of the children, from the second line that a shell's `times` prints: `0m1.200000s 0m0.030000s`.
fn cpu_seconds(times: &str) -> f64 {
    let children = times.lines().nth(1).expect("two lines");
    let seconds = |word: &str| -> f64 {
        let (minutes, seconds) = word.trim_end_matches('s').split_once('m').expect("minutes and seconds");
        minutes.parse::<f64>().expect("minutes") * 60.0 + seconds.parse::<f64>().expect("seconds")
    };
    children.split_whitespace().map(seconds).sum()
}
