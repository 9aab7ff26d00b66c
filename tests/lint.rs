//! The rules for domain XML: each finds what it is about, and nothing in what this program renders.

use proptest::prelude::*;
use rtkvm_tune::facts::Facts;
use rtkvm_tune::guest::lint::{Finding, Host, Neighbour, lint, neighbour, rules};
use rtkvm_tune::host::Snapshot;
use rtkvm_tune::placement::{Placement, place};
use rtkvm_tune::profile;
use std::collections::BTreeSet;
use std::process::{Command, Output};

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");

fn facts(name: &str) -> Facts {
    let text = std::fs::read_to_string(format!("{CAPTURES}/{name}.capture")).expect("readable");
    Facts::read(&Snapshot::from_capture(&text).expect("a capture")).expect("a machine")
}

fn placement(facts: &Facts, profile: &str) -> Placement {
    let parsed = profile::parse("p", profile.as_bytes()).unwrap_or_else(|_| panic!("a profile: {profile}"));
    place(&parsed.profile, facts).expect("it fits").0
}

fn reference() -> (Facts, Placement) {
    let facts = facts("reference");
    let placement = placement(&facts, include_str!("../profiles/kvm-realtime.toml"));
    (facts, placement)
}

fn run(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtkvm-tune"));
    command.args(words).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("the program starts")
}

fn rendered() -> String {
    let out =
        run(&["render", "profiles/kvm-realtime.toml", "--root", "tests/captures/reference.capture"]).stdout;
    String::from_utf8(out).expect("UTF-8")
}

/// The rendered guest with these replacements, each of which must be there.
fn changed(xml: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(xml.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in\n{text}");
        text.replacen(from, to, 1)
    })
}

fn found(xml: &str, host: &Host, neighbours: &[Neighbour]) -> Vec<Finding> {
    lint(xml, host, neighbours).unwrap_or_else(|error| panic!("{error}\n{xml}"))
}

fn ids(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.rule.id).collect()
}

/// A text, and what it becomes.
type Change = (&'static str, &'static str);

const CELLS: &str = "<cpu mode='host-passthrough' check='none' migratable='off'><numa>\
    <cell id='0' cpus='0-1' memory='8' unit='GiB'/><cell id='1' cpus='2-3' memory='8' unit='GiB'/></numa>";
const CPU: &str = "<cpu mode='host-passthrough' check='none' migratable='off'>";
const NUMATUNE: &str = "<memory mode='strict' nodeset='1'/>";
const TWO: &str = "<memory mode='strict' nodeset='0-1'/>";
const MEMNODES: &str = "<memory mode='strict' nodeset='0-1'/><memnode cellid='0' mode='strict' nodeset='0'/>\
    <memnode cellid='1' mode='strict' nodeset='1'/>";
const ON_TWO_NODES: [Change; 2] =
    [("vcpu='0' cpuset='12'", "vcpu='0' cpuset='2'"), ("vcpu='1' cpuset='13'", "vcpu='1' cpuset='3'")];

/// What to change in the rendered guest of the reference machine, and the rules that find it, in the order of the
/// document.
#[rustfmt::skip]
const CASES: &[(&[Change], &[&str])] = &[
    (&[("<vcpu placement='static'>4<", "<vcpu placement='static'>four<")],
        &["document.value"]),
    (&[("cpuset='14'", "cpuset='14-'")], &["pins.missing", "document.value"]),
    (&[("cpuset='15'", "cpuset='x'"), ("<vcpupin vcpu='2'", "<vcpupin vcpu='two'")],
        &["pins.missing", "document.value", "document.value"]),
    (&[("<page size='1'", "<page size='0'")], &["document.value"]),
    (&[("<emulatorpin ", "<emulatorpins/><emulatorpin ")], &["document.unknown-element"]),
    (&[("<uuid>", "<!--"), ("</uuid>", "-->")], &["document.uuid"]),
    (&[("<vcpupin vcpu='3' cpuset='15'/>", "")], &["pins.missing"]),
    (&[("<emulatorpin ", "<vcpupin vcpu='4' cpuset='11'/><emulatorpin ")], &["pins.extra"]),
    (&[("<emulatorpin ", "<vcpupin vcpu='0' cpuset='11'/><emulatorpin ")], &["pins.twice"]),
    (&[("<emulatorpin ", "<emulatorpin cpuset='8'/><emulatorpin ")], &["pins.twice"]),
    (&[("cpuset='15'", "cpuset='11,15'")], &["pins.several"]),
    (&[("cpuset='15'", "cpuset='16'")], &["pins.absent-cpu"]),
    (&[("emulatorpin cpuset='8-9'", "emulatorpin cpuset='8-9,40'")], &["pins.absent-cpu"]),
    (&[("cpuset='15'", "cpuset='9'"), ("emulatorpin cpuset='8-9'", "emulatorpin cpuset='8'"),
        ("iothreadpin iothread='1' cpuset='8-9'", "iothreadpin iothread='1' cpuset='8'")], &["pins.outside-isolated"]),
    (&[("cpuset='15'", "cpuset='14'")], &["pins.shared-cpu"]),
    (&[("emulatorpin cpuset='8-9'", "emulatorpin cpuset='8-9,12'")], &["pins.shared-cpu", "pins.emulator-isolated"]),
    (&[("iothreadpin iothread='1' cpuset='8-9'", "iothreadpin iothread='1' cpuset='8-9,^8,12'")],
        &["pins.shared-cpu", "pins.iothread-isolated"]),
    (&[ON_TWO_NODES[0], ON_TWO_NODES[1], (NUMATUNE, TWO)], &["pins.nodes"]),
    (&[("<emulatorpin cpuset='8-9'/>", "")], &["pins.emulator-missing"]),
    (&[("<emulatorpin cpuset='8-9'/>", ""), ("<vcpu placement='static'>", "<vcpu placement='static' cpuset='12-15'>")],
        &["pins.emulator-missing"]),
    (&[("<iothreadpin iothread='1' cpuset='8-9'/>", "")], &["pins.iothread-missing"]),
    (&[("<vcpu placement='static'>", "<vcpu placement='auto'>")], &["pins.automatic"]),
    (&[("<vcpusched vcpus='0-3' scheduler='fifo' priority='1'/>", "")], &["sched.missing"]),
    (&[("<vcpusched vcpus='0-3' ", "<vcpusched ")], &["sched.no-vcpus"]),
    (&[("vcpus='0-3'", "vcpus='0-4'")], &["sched.beyond-vcpus"]),
    (&[("<vcpusched ", "<vcpusched vcpus='3' scheduler='rr' priority='1'/><vcpusched ")], &["sched.overlap"]),
    (&[("scheduler='fifo' priority='1'", "scheduler='batch'")], &["sched.policy"]),
    (&[("scheduler='fifo' priority='1'", "scheduler='fifo'")], &["sched.no-priority"]),
    (&[("priority='1'", "priority='0'")], &["sched.priority"]),
    (&[("priority='1'", "priority='100'")], &["sched.priority"]),
    (&[("<cputune>", "<cputune><quota>50000</quota><global_quota>-1</global_quota>")], &["sched.quota"]),
    (&[("</cputune>", "<emulatorsched scheduler='fifo' priority='1'/></cputune>")], &["sched.emulator"]),
    (&[("<memory mode='strict' nodeset='1'/>", "")], &["memory.unbound"]),
    (&[("mode='strict'", "mode='preferred'")], &["memory.mode"]),
    (&[("nodeset='1'", "nodeset='1-2'")], &["memory.absent-node", "memory.remote"]),
    (&[("nodeset='1'", "nodeset='0'")], &["memory.remote"]),
    (&[("nodeset='1'", "nodeset='0-1'")], &["memory.remote"]),
    (&[ON_TWO_NODES[0], ON_TWO_NODES[1], (NUMATUNE, TWO), (CPU, CELLS)],
        &["memory.cell-unbound", "memory.cell-unbound"]),
    (&[ON_TWO_NODES[0], ON_TWO_NODES[1], (NUMATUNE, MEMNODES), (CPU, CELLS)], &[]),
    (&[(NUMATUNE, "<memory mode='strict' nodeset='1'/><memnode cellid='0' mode='strict' nodeset='1'/>")],
        &["memory.cell-unknown"]),
    (&[("<hugepages>", "<!--"), ("</hugepages>", "-->")], &["memory.no-hugepages", "memory.locked-small"]),
    (&[("<page size='1' unit='GiB'/>", "")], &["memory.default-page"]),
    (&[("<page size='1' unit='GiB'/>", "<page size='1' unit='GiB' nodeset='1'/>")], &["memory.page-nodeset"]),
    (&[("<page size='1' unit='GiB'/>", "<page size='1' unit='GiB'/><page size='2' unit='M'/>")],
        &["memory.page-nodeset"]),
    (&[("<page size='1' unit='GiB'/>", "<page size='1' unit='GB'/>")], &["memory.partial-page", "memory.page-size"]),
    (&[(">16777216<", ">16777217<")], &["memory.partial-page", "memory.current"]),
    (&[(">16777216<", ">33554432<"), (">16777216<", ">33554432<")], &["memory.too-few-pages"]),
    (&[("<locked/>", "<locked/><allocation mode='ondemand'/>")], &["memory.allocation"]),
    (&[("<locked/>", "")], &["memory.not-locked"]),
    (&[("<cputune>", "<memtune><hard_limit unit='GiB'>17</hard_limit></memtune><cputune>")], &["memory.hard-limit"]),
    (&[("<nosharepages/>", "")], &["memory.merged"]),
    (&[("<currentMemory unit='KiB'>16777216<", "<currentMemory unit='GiB'>15<")], &["memory.current"]),
    (&[("<domain type='kvm'>", "<domain type='qemu'>")], &["cpu.emulated"]),
    (&[("mode='host-passthrough'", "mode='custom'")], &["cpu.mode"]),
    (&[("cores='4'", "cores='3'")], &["cpu.topology"]),
    (&[("name='tsc-deadline'", "name='tsc_deadline'")], &["cpu.feature-name"]),
    (&[("policy='require' name='tsc-deadline'", "policy='disable' name='tsc-deadline'")], &["cpu.tsc-deadline"]),
    (&[("<pmu state='off'/>", "")], &["cpu.pmu"]),
    (&[("<pmu state='off'/>", "<pmu state='on'/>")], &["cpu.pmu"]),
    (&[(CPU, CELLS), ("cpus='2-3'", "cpus='1-2'")], &["cpu.cells", "cpu.cells"]),
    (&[("<memballoon model='none'/>", "")], &["devices.balloon"]),
    (&[("<memballoon model='none'/>", "<memballoon model='virtio'/>")], &["devices.balloon"]),
    (&[("<controller type='usb' model='none'/>", "")], &["devices.usb"]),
    (&[("type='usb' model='none'", "type='usb' model='qemu-xhci'")], &["devices.usb"]),
    (&[("<timer name='hpet' present='no'/>", "")], &["devices.hpet"]),
    (&[("<timer name='hpet' present='no'/>", "<timer name='hpet' present='yes'/>")], &["devices.hpet"]),
    (&[("<memballoon", "<graphics type='vnc'/><input type='mouse' bus='ps2'/><input type='tablet' bus='usb'/><memballoon")],
        &["devices.screen", "devices.screen"]),
    (&[("cache='none'", "cache='writeback'")], &["devices.disk-cache"]),
    (&[("<iothreads>1</iothreads>", "")], &["devices.iothread"]),
];

#[test]
fn each_rule_finds_what_it_is_about() {
    let (facts, placement) = reference();
    let host = Host::planned(&facts, &placement);
    let xml = rendered();
    for (changes, wanted) in CASES {
        let findings = found(&changed(&xml, changes), &host, &[]);
        let shown: Vec<_> = findings.iter().map(|f| format!("{}: {}", f.rule.id, f.message)).collect();
        assert_eq!(ids(&findings), *wanted, "{changes:?}: {shown:#?}");
    }
}

#[test]
fn every_rule_has_a_case_and_says_what_it_is() {
    let listed: Vec<_> = rules().map(|rule| rule.id).collect();
    let unique: BTreeSet<_> = listed.iter().copied().collect();
    assert_eq!(unique.len(), listed.len());
    let cases = CASES.iter().flat_map(|(_, ids)| ids.iter().copied());
    // These two have machines of their own, below.
    let tested: BTreeSet<_> = cases.chain(["pins.split-core", "pins.other-guest"]).collect();
    assert_eq!(tested, unique);
    for rule in rules() {
        for text in [rule.what, rule.why, rule.source] {
            assert_eq!(
                text.split_whitespace().collect::<Vec<_>>().join(" "),
                text,
                "{}: stray space",
                rule.id
            );
            assert!(!text.is_empty(), "{}", rule.id);
        }
        assert!(rule.why.ends_with('.') && !rule.what.ends_with('.'), "{}", rule.id);
    }
}

#[test]
fn a_finding_has_its_place() {
    let (facts, placement) = reference();
    let xml = changed(&rendered(), &[("cpuset='15'", "cpuset='14'")]);
    let [finding] = &found(&xml, &Host::planned(&facts, &placement), &[])[..] else { panic!("one finding") };
    let line = xml.lines().position(|line| line.contains("vcpu='3'")).expect("a line");
    assert_eq!(finding.line, line + 1);
    assert_eq!(&xml[finding.span.clone()], "cpuset='14'");
    let column = xml.lines().nth(line).and_then(|line| line.find("cpuset")).expect("a column");
    assert_eq!(finding.column, column + 1);
}

/// Pins of the four vCPUs of a guest on the SMT machine, its cores having one thread or two.
fn on_smt(cpus: [u32; 4], threads: u32, profile: &str) -> Vec<Finding> {
    let facts = facts("smt");
    let placement = placement(&facts, profile);
    let xml = changed(
        &rendered(),
        &[
            ("vcpu='0' cpuset='12'", &format!("vcpu='0' cpuset='{}'", cpus[0])),
            ("vcpu='1' cpuset='13'", &format!("vcpu='1' cpuset='{}'", cpus[1])),
            ("vcpu='2' cpuset='14'", &format!("vcpu='2' cpuset='{}'", cpus[2])),
            ("vcpu='3' cpuset='15'", &format!("vcpu='3' cpuset='{}'", cpus[3])),
            ("cores='4' threads='1'", &format!("cores='{}' threads='{threads}'", 4 / threads)),
        ],
    );
    let of_cores = |finding: &Finding| finding.rule.id == "pins.split-core";
    found(&xml, &Host::planned(&facts, &placement), &[]).into_iter().filter(of_cores).collect()
}

#[test]
fn siblings_belong_together() {
    let profile = include_str!("commands/profiles/threads.toml");
    let cores: Vec<_> = facts("smt").cpus.cores.iter().map(|core| core.cpus.clone()).collect();
    let last = cores.len() - 1;
    let pair =
        |core: usize| -> [u32; 2] { cores[core].iter().collect::<Vec<_>>().try_into().expect("two threads") };
    let ([a, b], [c, d]) = (pair(last - 1), pair(last));
    assert_eq!(on_smt([a, b, c, d], 2, profile).len(), 0);
    // The guest takes siblings for cores.
    let findings = on_smt([a, b, c, d], 1, profile);
    assert_eq!(findings.len(), 2);
    assert!(findings[0].message.contains("the guest takes them for cores"), "{}", findings[0].message);
    // The threads of its cores are on two cores.
    let findings = on_smt([a, c, b, d], 2, profile);
    assert!(findings.iter().any(|finding| finding.message.contains("of two cores")));
}

#[test]
fn two_guests_share_neither_cpus_nor_cores() {
    let (facts, placement) = reference();
    let host = Host::planned(&facts, &placement);
    let xml = rendered();
    let other = changed(&xml, &[("<name>rt0<", "<name>other<"), ("cpuset='15'", "cpuset='11'")]);
    let other = neighbour(&other).expect("a guest");
    assert_eq!((other.name.as_str(), other.cpus.to_string().as_str()), ("other", "11-14"));
    let findings = found(&xml, &host, &[other]);
    assert_eq!(ids(&findings), ["pins.other-guest"; 3]);
    assert_eq!(findings[0].message, "vCPU 0 shares CPU 12 with guest other");
}

#[test]
fn what_runs_counts_without_a_profile() {
    let xml = rendered();
    let untuned = facts("reference");
    let findings = found(&xml, &Host::running(&untuned), &[]);
    assert_eq!(ids(&findings).iter().filter(|id| **id == "pins.outside-isolated").count(), 4);
    assert!(ids(&findings).contains(&"memory.too-few-pages"));
    assert!(findings.iter().any(|finding| finding.help.contains("this machine isolates no CPUs")));
    let tuned = facts("reference-tuned");
    assert_eq!(ids(&found(&xml, &Host::running(&tuned), &[])), [] as [&str; 0]);
}

#[test]
fn what_is_no_domain_is_refused() {
    let (facts, _) = reference();
    for (xml, word) in
        [("", "not well-formed"), ("<domain>", "not well-formed"), ("<network/>", "is a <network>")]
    {
        let error = lint(xml, &Host::running(&facts), &[]).err().expect("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

#[test]
fn the_command_shows_each_finding_with_its_line() {
    let words = ["lint", "tests/lint/broken.xml", "--root", "tests/captures/reference-tuned.capture"];
    let done = run(&words);
    assert_eq!((done.status.code(), &*done.stderr), (Some(1), &b""[..]));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lint/broken.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &done.stdout).expect("written");
    }
    assert_eq!(text(&done), std::fs::read_to_string(path).expect("readable"));
    let done = run(&[&words[..], &["--format", "json"]].concat());
    let document: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!((&document["schema"], &document["status"]), (&1.into(), &1.into()));
    let findings = document["files"][0]["findings"].as_array().expect("a list");
    let priority = findings.iter().find(|finding| finding["rule"] == "sched.priority").expect("found");
    assert_eq!((&priority["line"], &priority["level"]), (&17.into(), &"error".into()));
}

#[test]
fn the_command_takes_standard_input_and_refuses_what_it_cannot_read() {
    use std::io::Write;
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtkvm-tune"));
    command.args(["lint", "-", "--root", "tests/captures/reference-tuned.capture"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("started");
    child.stdin.take().expect("a pipe").write_all(rendered().as_bytes()).expect("written");
    let done = child.wait_with_output().expect("ended");
    assert_eq!((done.status.code(), text(&done)), (Some(0), "1 file: nothing found.\n"));
    let done = run(&["lint", "/nonexistent", "Cargo.toml", "--root", "tests/captures/reference.capture"]);
    let error = String::from_utf8_lossy(&done.stderr);
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0));
    assert!(
        error.contains("/nonexistent") && error.contains("Cargo.toml: the XML is not well-formed"),
        "{error}"
    );
    assert_eq!(run(&["lint"]).status.code(), Some(2));
}

proptest! {
    #[test]
    fn no_document_panics(from in 0usize..3000, length in 0usize..40, text in "[ -~]{0,12}", number in "[0-9,^-]{1,12}") {
        let (facts, placement) = reference();
        let host = Host::planned(&facts, &placement);
        let xml = format!(
            "<domain><vcpu>{number}</vcpu><memory unit='GiB'>{number}</memory><memoryBacking><hugepages>\
             <page size='{number}' nodeset='{number}'/></hugepages></memoryBacking><cputune><vcpupin vcpu='{number}' \
             cpuset='{number}'/><vcpusched vcpus='{number}' priority='{number}' scheduler='fifo'/></cputune><numatune>\
             <memory nodeset='{number}'/><memnode cellid='{number}' nodeset='{number}'/></numatune><cpu><topology \
             cores='{number}' threads='{number}'/><numa><cell id='{number}' cpus='{number}' memory='{number}'/></numa>\
             </cpu></domain>"
        );
        let findings = found(&xml, &host, &[]);
        prop_assert!(!findings.is_empty());
        let mut broken = xml;
        if let (true, true) = (broken.is_char_boundary(from.min(broken.len())), from + length < broken.len()) {
            broken.replace_range(from..from + length, &text);
        }
        if let Ok(findings) = lint(&broken, &host, &[]) {
            prop_assert!(findings.iter().all(|finding| broken.get(finding.span.clone()).is_some()));
        }
    }
}
