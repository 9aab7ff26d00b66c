//! What an audit says to programs, what it says where it may not look, and what `status` says.
//!
//! Needs the packages prometheus (promtool), python3-jsonschema, libxml2-utils, systemd and util-linux.

use super::support::*;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

fn verify(profile: &str, machine: &str, more: &[&str]) -> Ran {
    tune(&[&["verify", profile, "--root", machine], more].concat())
}

/// Gives a program this text; its standard output and error as one.
fn given(command: &mut Command, package: &str, text: &str) -> (bool, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{error}: install package {package}"));
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
    let done = child.wait_with_output().expect("ended");
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Draft7Validator is what Debian 12's jsonschema and later ones know; the schema uses nothing newer.
const VALIDATE: &str = "import json, sys, jsonschema\nschema = json.load(open('docs/verify.schema.json'))\n\
    errors = [f'{list(e.path)}: {e.message}' for document in json.load(sys.stdin)\n\
    for e in jsonschema.Draft7Validator(schema).iter_errors(document)]\nprint('\\n'.join(errors))\n\
    sys.exit(bool(errors))";

fn validated(documents: &[Value]) -> (bool, String) {
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", VALIDATE]).current_dir(SOURCES);
    given(&mut python, "python3-jsonschema", &serde_json::to_string(documents).expect("JSON"))
}

#[test]
fn every_document_is_as_the_schema_says() {
    let document = |(machine, profile): &(&str, &str)| {
        let ran = verify(profile, machine, &["--format", "json"]).expect(1);
        serde_json::from_str::<Value>(&ran.out).expect("JSON")
    };
    let mut documents: Vec<Value> = MACHINES.iter().map(document).collect();
    assert_eq!(validated(&documents), (true, "\n".into()));
    for finding in documents.iter().flat_map(|document| document["findings"].as_array().expect("a list")) {
        for key in ["read_from", "why", "remedy"] {
            assert!(finding[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {finding:#}");
        }
        assert!(finding["state"] != "in-line" && finding["state"] != "not-applicable", "{finding:#}");
    }
    documents[0]["findings"][0]["state"] = "fine".into();
    documents[0]["more"] = 1.into();
    let (valid, said) = validated(&documents);
    assert!(
        !valid && said.contains("'fine' is not one of") && said.contains("'more' was unexpected"),
        "{said}"
    );
}

#[test]
fn junit_is_xml_with_the_same_counts() {
    for (machine, profile) in MACHINES {
        let text = verify(profile, machine, &["--format", "junit"]).expect(1).out;
        let tree = roxmltree::Document::parse(&text).expect("XML");
        let document = verify(profile, machine, &["--format", "json"]).expect(1).out;
        let document: Value = serde_json::from_str(&document).expect("JSON");
        let count = |name| tree.descendants().filter(|node| node.has_tag_name(name)).count() as u64;
        let total = |name| tree.root_element().attribute(name).and_then(|n| n.parse::<u64>().ok());
        // A check that is not met is no failure, nor is what waits for its interrupt.
        let findings = document["findings"].as_array().expect("a list").iter();
        let failures = findings.filter(|of| of["reach"] != "check" && of["state"] != "pending");
        let findings = failures.count() as u64;
        let items = document["plan"]["items"].as_array().expect("a list").len() as u64;
        assert_eq!((count("failure"), total("failures")), (findings, Some(findings)), "{machine}");
        assert_eq!((count("testcase"), total("tests")), (items, Some(items)), "{machine}");
        assert_eq!(Some(count("skipped")), total("skipped"), "{machine}");
        assert!(text.contains("why: ") && text.contains("remedy: rtkvm-tune apply "), "{text}");
    }
}

#[test]
fn metrics_are_what_prometheus_reads() {
    for (machine, profile) in MACHINES {
        let text = verify(profile, machine, &["--format", "prometheus"]).expect(1).out;
        let checked = given(Command::new("promtool").args(["check", "metrics"]), "prometheus", &text);
        assert_eq!(checked, (true, String::new()), "{machine}:\n{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert_eq!(line.split(' ').count(), 2, "a timestamp: {line}");
        }
        assert!(text.contains("rtkvm_tune_status 1\n") && text.contains("{state=\"foreign\"} "), "{text}");
    }
    let (valid, _) = given(Command::new("promtool").args(["check", "metrics"]), "prometheus", "a b c\n");
    assert!(!valid);
}

#[test]
fn an_output_file_is_replaced_whole() {
    let tree = Tree::reference();
    let file = tree.beside("out.prom");
    let name = file.to_str().expect("UTF-8");
    let words = ["verify", REFERENCE, "--format", "prometheus", "--output", name];
    std::fs::write(&file, "old").expect("written");
    let (ran, calls) = strace(&["-e", "trace=file"], &[&words[..], &["--root", tree.name()]].concat());
    let ran = ran.expect(1);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    let text = std::fs::read_to_string(&file).expect("readable");
    assert!(text.starts_with("# HELP "), "{text}");
    assert_eq!(tree.tune(&words[..4]).expect(1).out, text);
    // Never opened under its own name: what reads it meanwhile sees the old text or the new one.
    assert!(!calls.iter().any(|call| call.opens_to_write() && call.path() == name), "{calls:#?}");
    assert!(
        calls.iter().any(|call| call.name.starts_with("rename") && call.text.contains(name)),
        "{calls:#?}"
    );
    let left: Vec<_> = std::fs::read_dir(tree.beside("")).expect("readable").collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let ran = tree.tune(&["verify", REFERENCE, "--output", "/nonexistent/x"]).expect(2);
    assert!(ran.err.contains("cannot write /nonexistent/x: "), "{}", ran.err);
}

/// The machine after a boot with our arguments.
fn booted() -> Tree {
    let tree = Tree::of("tests/captures/reference-tuned.capture");
    // Recorded before these were defaults.
    let line = tree.read("proc/cmdline");
    tree.write("proc/cmdline", format!("{} nohz=on nosoftlockup nmi_watchdog=0\n", line.trim_end()));
    tree.tune(&["apply", REFERENCE]).expect(0);
    let script = format!("{SOURCES}/tests/grub/mkconfig.sh");
    let mut grub = Command::new("sh");
    tool(grub.arg(script).arg(&tree.root), "grub-common, grub2-common and util-linux").expect(0);
    tree.tune(&["apply", REFERENCE]).expect(0);
    tree.tune(&["verify", REFERENCE]).expect(0);
    tree
}

/// Runs the program as nobody. The test must be root's.
fn as_nobody(words: &[&str], tree: &Tree) -> Ran {
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    };
    open(&tree.beside(""));
    // Where the program was built nobody may be kept out.
    let program = tree.beside("rtkvm-tune");
    std::fs::copy(PROGRAM, &program).expect("copied");
    open(&program);
    let profile = tree.note("p.toml", std::fs::read(format!("{SOURCES}/{REFERENCE}")).expect("readable"));
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).current_dir("/");
    command.args(words).arg(profile).args(["--root", tree.name()]);
    tool(&mut command, "util-linux")
}

#[test]
fn what_others_than_root_cannot_see_is_named() {
    let tree = booted();
    tree.write("dev/kmsg", "Linux version 6.1\n");
    tree.chmod("dev/kmsg", 0o600);
    tree.chmod("etc/libvirt/qemu", 0o700);
    tree.chmod("proc/sys/kernel/sched_rt_runtime_us", 0o600);
    let ran = as_nobody(&["verify"], &tree).expect(0);
    for row in ["? guest.domain: guest rt0", "? sched.rt-throttling", "? cpu.rcu-nocbs", "? cpu.skew-tick"] {
        assert!(ran.out.contains(&format!("\n{row}")), "{row}:\n{}", ran.out);
    }
    assert!(!ran.out.contains("\n? cpu.isolcpus"), "{}", ran.out);
    assert!(
        ran.out.contains("only root may read it") && ran.out.contains("   ? cannot be told"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("In line as far as it can be told: "), "{}", ran.out);
    assert!(ran.out.contains("mend by: as root: rtkvm-tune verify"), "{}", ran.out);
    as_nobody(&["verify", "--strict"], &tree).expect(1);
    let junit = as_nobody(&["verify", "--format", "junit"], &tree).expect(0).out;
    assert!(junit.contains("<skipped message=\"cannot be told: ") && !junit.contains("<failure"), "{junit}");
    // Root sees that all is in line.
    assert!(tree.tune(&["verify", "--strict", REFERENCE]).expect(0).out.contains("In line: all "));
}

#[test]
fn what_somebody_else_sets_is_foreign() {
    let tree = booted();
    tree.write(
        "etc/default/grub.d/60-other.cfg",
        "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT isolcpus=3\"\n",
    );
    let text = tree.tune(&["verify", REFERENCE]).expect(1).out;
    let row = text.split("\n@ cpu.isolcpus").nth(1).unwrap_or_else(|| panic!("{text}"));
    assert!(row.lines().nth(1).is_some_and(|reason| reason.contains("60-other.cfg")), "{text}");
    assert!(text.contains("   @ set by somebody else"), "{text}");
}

#[test]
fn the_kernels_own_doings_are_told() {
    let tree = booted();
    let moved = "proc/irq/24/effective_affinity_list";
    assert!(!tree.read(moved).is_empty());
    tree.write(moved, "12\n");
    tree.write("sys/kernel/debug/sched/domains/cpu2/domain0/name", "MC\n");
    std::fs::create_dir_all(tree.at("sys/kernel/debug/sched/domains/cpu3")).expect("made");
    let text = tree.tune(&["verify", REFERENCE]).expect(0).out;
    let row = text.split("\n: irq.affinity: IRQ 24").nth(1).unwrap_or_else(|| panic!("{text}"));
    let reason = row.lines().nth(1).expect("a reason");
    assert!(reason.contains("until it next comes it is served by isolated CPU 12 "), "{text}");
    assert!(text.contains("settings are set, and 1 of them wait for their interrupt."), "{text}");
    assert!(text.contains("mend by: nothing to do: the next interrupt takes it"), "{text}");
    let format = |name| tree.tune(&["verify", "--strict", REFERENCE, "--format", name]).expect(0).out;
    let document: Value = serde_json::from_str(&format("json")).expect("JSON");
    assert_eq!(
        (&document["counts"]["pending"], &document["findings"][0]["state"]),
        (&1.into(), &"pending".into())
    );
    assert_eq!(validated(&[document]), (true, "\n".into()));
    assert!(format("junit").contains("<skipped message=\"pending: until it next comes"), "{text}");
    let metrics = format("prometheus");
    assert!(metrics.contains("{state=\"pending\"} 1\n"), "{metrics}");
    assert!(metrics.contains("rtkvm_tune_knob_in_line{knob=\"irq.affinity\"} 1\n"), "{metrics}");
    assert!(text.contains("CPUs 2 are isolated and yet in scheduling domains"), "{text}");
    tree.chmod("sys/kernel/debug", 0o700);
    let text = as_nobody(&["verify"], &tree).out;
    assert!(text.contains("whether isolated CPUs are in scheduling domains cannot be told: "), "{text}");
}

#[test]
fn status_says_whether_a_reboot_is_needed() {
    let tree = Tree::reference();
    let ran = tree.tune(&["status", "--needs-reboot"]).expect(2);
    assert!(ran.err.contains("no profile is known to be applied"), "{}", ran.err);
    assert!(tree.tune(&["status"]).expect(0).out.contains("Applied       nothing\n"));
    tree.tune(&["apply", REFERENCE]).expect(0);
    // Written, and not yet given to the boot entries.
    tree.tune(&["status", "--needs-reboot"]).expect(1);
    let script = format!("{SOURCES}/tests/grub/mkconfig.sh");
    let mut grub = Command::new("sh");
    tool(grub.arg(script).arg(&tree.root), "grub-common, grub2-common and util-linux").expect(0);
    let ran = tree.tune(&["status", "--needs-reboot"]).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    tree.tune(&["status", "--needs-reboot", REFERENCE]).expect(0);
    let text = tree.tune(&["status"]).expect(0).out;
    for line in [
        &format!("Applied       {REFERENCE}\n")[..],
        "Last run      apply at 20",
        "Interrupted   none\n",
        "Reboot        needed\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let document: Value =
        serde_json::from_str(&tree.tune(&["status", "--format", "json"]).expect(0).out).expect("JSON");
    assert_eq!((&document["needs_reboot"], &document["interrupted"]), (&true.into(), &false.into()));
    booted().tune(&["status", "--needs-reboot"]).expect(1);
    tree.tune(&["status", "--needs-reboot", "/nonexistent"]).expect(2);
}

#[test]
fn the_units_are_what_systemd_takes() {
    let tree = Tree::empty();
    // It asks whether the program is there.
    tree.write("usr/bin/rtkvm-tune", "");
    tree.chmod("usr/bin/rtkvm-tune", 0o755);
    let units = std::fs::read_dir(format!("{SOURCES}/packaging/systemd")).expect("readable");
    let mut names: Vec<String> =
        units.map(|unit| unit.expect("readable").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    assert_eq!(names, ["rtkvm-tune-metrics.service", "rtkvm-tune-verify.service", "rtkvm-tune-verify.timer"]);
    for name in &names {
        let text = std::fs::read_to_string(format!("{SOURCES}/packaging/systemd/{name}")).expect("readable");
        // What is started is a command that the program takes.
        for line in text.lines().filter_map(|line| line.strip_prefix("ExecStart=/usr/bin/rtkvm-tune ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let ran = tune(&[&words[..], &["--root", "/nonexistent"]].concat()).expect(2);
            assert!(!ran.err.contains("Usage:"), "{}", ran.err);
        }
        tree.write(&format!("etc/systemd/system/{name}"), text.replace("man:", "https://example.org/"));
    }
    let check = |tree: &Tree| {
        let mut analyze = Command::new("systemd-analyze");
        analyze
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .args(names.iter().map(|name| tree.at(&format!("etc/systemd/system/{name}"))));
        Ran::of(analyze.output().expect("systemd-analyze starts: install package systemd"))
    };
    let ours = |ran: &Ran| -> Vec<String> {
        let said =
            ran.err.lines().filter(|line| line.contains("rtkvm-tune") && !line.contains("is not executable"));
        said.map(str::to_owned).collect()
    };
    assert_eq!(ours(&check(&tree)), [] as [&str; 0]);
    tree.write("etc/systemd/system/rtkvm-tune-verify.timer", "[Timer]\nOnBootSec=soon\n[Nothing]\n");
    assert!(!ours(&check(&tree)).is_empty());
}
