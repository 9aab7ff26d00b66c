//! What is printed: expected texts, and in plain words what a real-time host must get.

use super::support::*;
use serde_json::{Value, json};

/// Expected output, command.
const GOLDEN: &[(&str, &[&str])] = &[
    ("plan-reference", &["apply", "--dry-run", REFERENCE, "--root", "tests/captures/reference.capture"]),
    ("plan-tuned", &["apply", "--dry-run", REFERENCE, "--root", "tests/captures/reference-tuned.capture"]),
    ("plan-interleaved", &["apply", "--dry-run", REFERENCE, "--root", "tests/captures/interleaved.capture"]),
    (
        "plan-smt",
        &[
            "apply",
            "--dry-run",
            "tests/commands/profiles/threads.toml",
            "--root",
            "tests/captures/smt.capture",
        ],
    ),
    ("plan-guide", &["apply", "--dry-run", REFERENCE, "--root", "tests/capabilities/guide.xml"]),
    ("audit-tuned", &["verify", REFERENCE, "--root", "tests/captures/reference-tuned.capture"]),
];

#[test]
fn prints_what_is_expected() {
    let mut differing = Vec::new();
    for (name, words) in GOLDEN {
        let text = tune(words).out;
        let path = format!("{SOURCES}/tests/commands/{name}.txt");
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

fn plan(machine: &str) -> Value {
    let words = ["apply", "--dry-run", REFERENCE, "--format", "json", "--root", machine];
    serde_json::from_str(&tune(&words).expect(0).out).expect("JSON")
}

/// What is wanted of one knob, in order.
fn wanted<'a>(plan: &'a Value, knob: &str) -> Vec<&'a str> {
    let items = plan["plan"]["items"].as_array().expect("items").iter();
    items.filter(|item| item["knob"] == knob).map(|item| item["wanted"].as_str().expect("text")).collect()
}

/// The added line of the drop-in in the patch.
fn arguments(plan: &Value) -> Vec<&str> {
    let patch = plan["patch"].as_str().expect("a patch");
    let line = patch.lines().find(|line| line.starts_with("+GRUB_CMDLINE_LINUX_DEFAULT=")).expect("a line");
    let value = line.split_once("${GRUB_CMDLINE_LINUX_DEFAULT} ").expect("what was there stays").1;
    value.strip_suffix('"').expect("quoted").split(' ').collect()
}

#[test]
fn the_reference_machine_is_divided_as_the_guide_divides_it() {
    for (machine, pages) in [
        ("tests/captures/reference.capture", 25),
        ("tests/captures/reference-tuned.capture", 25),
        ("tests/capabilities/guide.xml", 26),
    ] {
        let plan = plan(machine);
        let placement = &plan["plan"]["placement"];
        assert_eq!(placement["isolated"], "2-7,10-15", "{machine}");
        assert_eq!(placement["housekeeping"], "0-1,8-9", "{machine}");
        for (id, node) in placement["nodes"].as_array().expect("nodes").iter().enumerate() {
            assert_eq!((&node["id"], &node["pages"]["count"]), (&json!(id), &json!(pages)), "{machine}");
        }
        let guest = &placement["guests"][0];
        assert_eq!((&guest["name"], &guest["node"]), (&json!("rt0"), &json!(1)), "{machine}");
        assert_eq!(
            (&guest["cpus"], &guest["emulator"]),
            (&json!([12, 13, 14, 15]), &json!("8-9")),
            "{machine}"
        );
        assert_eq!(
            wanted(&plan, "cpu.isolcpus"),
            ["managed_irq,domain,2-7,10-15"].map(|v| format!("isolcpus={v}"))
        );
        let pages = format!("default_hugepagesz=1G hugepagesz=1G hugepages=0:{pages},1:{pages}");
        assert_eq!(wanted(&plan, "memory.hugepages-boot"), [pages]);
    }
}

#[test]
fn interleaved_cpu_numbers_follow_their_nodes() {
    let plan = plan("tests/captures/interleaved.capture");
    let placement = &plan["plan"]["placement"];
    assert_eq!((&placement["isolated"], &placement["housekeeping"]), (&json!("2-3,6-15"), &json!("0-1,4-5")));
    let guest = &placement["guests"][0];
    assert_eq!((&guest["cpus"], &guest["emulator"]), (&json!([12, 13, 14, 15]), &json!("4-5")));
    assert_eq!(placement["nodes"][1]["isolated"], "6-7,12-15");
}

#[test]
fn the_drop_in_has_every_kernel_argument_once() {
    assert_eq!(
        arguments(&plan("tests/captures/reference.capture")),
        [
            "isolcpus=managed_irq,domain,2-7,10-15",
            "nohz_full=2-7,10-15",
            "rcu_nocbs=2-7,10-15",
            "skew_tick=1",
            "nohz=on",
            "irqaffinity=0-1,8-9",
            "default_hugepagesz=1G",
            "hugepagesz=1G",
            "hugepages=0:25,1:25",
            "psi=0",
            "nosoftlockup",
            "nmi_watchdog=0"
        ]
    );
}

/// No interrupt that can be moved is left on an isolated CPU.
#[test]
fn movable_interrupts_are_wanted_on_housekeeping_cpus_only() {
    use rtkvm_tune::formats::CpuSet;
    let plan = plan("tests/captures/reference.capture");
    let isolated = CpuSet::parse_list("2-7,10-15").expect("a list");
    let wanted = wanted(&plan, "irq.affinity");
    assert!(wanted.len() > 20);
    for cpus in wanted {
        assert!(CpuSet::parse_list(cpus).expect("a list").intersection(&isolated).is_empty(), "{cpus}");
    }
}

#[test]
fn the_guest_is_the_corrected_guide() {
    let xml = tune(&["render", REFERENCE, "--root", "tests/captures/reference.capture"]).expect(0).out;
    let pins: Vec<_> = (0..4).map(|cpu| format!("<vcpupin vcpu='{cpu}' cpuset='{}'/>", cpu + 12)).collect();
    let parts = [
        "<emulatorpin cpuset='8-9'/>",
        "<iothreadpin iothread='1' cpuset='8-9'/>",
        "<vcpusched vcpus='0-3' scheduler='fifo' priority='1'/>",
        "<memory mode='strict' nodeset='1'/>",
        "<memory unit='KiB'>16777216</memory>",
        "<page size='1' unit='GiB'/>",
        "<locked/>",
        "<nosharepages/>",
        "<pmu state='off'/>",
        "<feature policy='require' name='tsc-deadline'/>",
        "<memballoon model='none'/>",
    ];
    for part in pins.iter().map(String::as_str).chain(parts) {
        assert_eq!(xml.matches(part).count(), 1, "{part}\n{xml}");
    }
}
