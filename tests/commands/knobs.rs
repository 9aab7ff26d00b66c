//! What single knobs make of a machine.

use super::support::*;
use serde_json::Value;

const IRQBALANCE: &str = "usr/lib/systemd/system/irqbalance.service";
const BANNED: &str = "etc/rtkvm-tune/irqbalance.env";
const DROP_IN: &str = "etc/systemd/system/irqbalance.service.d/50-rtkvm-tune.conf";

fn plan(tree: &Tree) -> Value {
    let out = tree.tune(&["apply", "--dry-run", REFERENCE, "--format", "json"]).expect(0).out;
    serde_json::from_str(&out).expect("JSON")
}

/// State, running and wanted of the items of one knob.
fn items(tree: &Tree, knob: &str) -> Vec<(String, Option<String>, String)> {
    let plan = plan(tree);
    let items = plan["plan"]["items"].as_array().expect("items").iter();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let row = |item: &Value| {
        (text(&item["state"]).expect("a state"), text(&item["running"]), text(&item["wanted"]).expect("text"))
    };
    items.filter(|item| item["knob"] == knob).map(row).collect()
}

fn item(tree: &Tree, knob: &str) -> (String, Option<String>, String) {
    let [item] = &items(tree, knob)[..] else { panic!("{knob} has not one item") };
    item.clone()
}

fn programs(tree: &Tree) -> Vec<String> {
    let plan = plan(tree);
    let steps = plan["plan"]["steps"].as_array().expect("steps").iter();
    steps.filter_map(|step| step["program"].as_str().map(str::to_owned)).collect()
}

/// What the kernel has not got is said, and never made.
#[test]
fn an_absent_attribute_is_not_made() {
    let tree = Tree::reference();
    let path = "proc/sys/vm/stat_interval";
    std::fs::remove_file(tree.at(path)).expect("recorded");
    assert_eq!(item(&tree, "memory.stat-interval"), ("not-applicable".into(), None, "10".into()));
    tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(!tree.at(path).exists());
}

/// The kernel's answer is parsed before it is compared.
#[test]
fn values_are_compared_by_meaning() {
    let tree = Tree::reference();
    for (knob, path, text, state, running) in [
        ("sched.rt-throttling", "proc/sys/kernel/sched_rt_runtime_us", "-1\n", "in-line", "-1"),
        ("sched.rt-throttling", "proc/sys/kernel/sched_rt_runtime_us", "950000\n", "differs", "950000"),
        ("sched.rt-throttling", "proc/sys/kernel/sched_rt_runtime_us", "one\n", "differs", "one"),
        (
            "memory.transparent-hugepages",
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always madvise [never]\n",
            "in-line",
            "never",
        ),
        (
            "memory.transparent-hugepages",
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never\n",
            "differs",
            "madvise",
        ),
    ] {
        tree.write(path, text);
        let (found, now, _) = item(&tree, knob);
        assert_eq!((found.as_str(), now.as_deref()), (state, Some(running)), "{knob} {text:?}");
    }
}

/// A workqueue with a mask of its own keeps it when the mask of all is set.
#[test]
fn every_workqueue_is_kept_off_the_isolated_cpus() {
    let tree = Tree::reference();
    tree.write("sys/devices/virtual/workqueue/own/cpumask", "fcfc\n");
    tree.write("sys/devices/virtual/workqueue/bound/per_cpu", "1\n");
    tree.tune(&["apply", REFERENCE]).expect(0);
    for queue in ["own/", "writeback/", ""] {
        assert_eq!(tree.read(&format!("sys/devices/virtual/workqueue/{queue}cpumask")), "303\n", "{queue}");
    }
    assert!(!tree.at("sys/devices/virtual/workqueue/bound/cpumask").exists());
}

#[test]
fn irqbalance_is_told_the_isolated_cpus() {
    let tree = Tree::reference();
    assert!(items(&tree, "services.irqbalance").is_empty(), "it is not installed");
    tree.write(IRQBALANCE, "[Service]\nEnvironmentFile=-/etc/default/irqbalance\n");
    let programs = programs(&tree);
    let at = |name: &str| programs.iter().position(|program| program.contains(name)).expect(name);
    assert!(at("daemon-reload") < at("try-restart irqbalance.service"), "{programs:?}");
    tree.tune(&["apply", REFERENCE]).expect(0);
    let banned = tree.read(BANNED);
    assert!(banned.contains("\nIRQBALANCE_BANNED_CPULIST=2-7,10-15\n"), "{banned}");
    assert!(banned.contains("\nIRQBALANCE_BANNED_CPUS=fcfc\n"), "{banned}");
    // A file that is named later wins, as systemd.exec(5) says of EnvironmentFile.
    assert!(tree.read(DROP_IN).ends_with("[Service]\nEnvironmentFile=/etc/rtkvm-tune/irqbalance.env\n"));
    assert_eq!(programs_after(&tree), [] as [&str; 0]);
}

/// The programs of irqbalance once all is in line.
fn programs_after(tree: &Tree) -> Vec<String> {
    programs(tree).into_iter().filter(|program| program.contains("irqbalance")).collect()
}

/// The mount is asked for where there are pages of 1 GiB, and what it means for libvirt is said once.
#[test]
fn huge_pages_get_their_mount() {
    let tree = Tree::reference();
    let noted = |tree: &Tree| plan(tree)["plan"]["notes"].to_string().contains("restart libvirtd");
    assert!(noted(&tree));
    assert!(programs(&tree).iter().any(|program| program == "systemctl start dev-hugepages1G.mount"));
    tree.tune(&["apply", REFERENCE]).expect(0);
    let unit = tree.read("etc/systemd/system/dev-hugepages1G.mount");
    assert!(unit.contains("\nWhere=/dev/hugepages1G\n") && unit.contains(",pagesize=1G\n"), "{unit}");
    assert!(tree.at("etc/systemd/system/sysinit.target.wants/dev-hugepages1G.mount").is_file());
    assert!(!noted(&tree));
}

/// The reference profile with these lines under [knobs].
fn with_knobs(tree: &Tree, lines: &str) -> String {
    let profile = std::fs::read_to_string(REFERENCE).expect("the reference profile");
    tree.note("knobs.toml", format!("{profile}\n[knobs]\n{lines}\n"))
}

/// What the profile chooses is what is wanted; what takes a protection away is said each time.
#[test]
fn the_profile_chooses_values() {
    let tree = Tree::reference();
    let plan = |lines: &str| {
        let profile = with_knobs(&tree, lines);
        let out = tree.tune(&["apply", "--dry-run", &profile, "--format", "json"]).expect(0).out;
        serde_json::from_str::<Value>(&out).expect("JSON")["plan"].clone()
    };
    let wanted = |plan: &Value, knob: &str| {
        let items = plan["items"].as_array().expect("items").iter();
        let of: Vec<_> =
            items.filter(|item| item["knob"] == knob).map(|item| item["wanted"].clone()).collect();
        of
    };
    let chosen = plan(
        "'memory.stat-interval' = 30\n'memory.ksm' = 'unmerge'\n'cpu.mitigations' = 'off'\n'sched.threadirqs' = 'on'",
    );
    assert_eq!(wanted(&chosen, "memory.stat-interval"), ["30"]);
    assert_eq!(wanted(&chosen, "memory.ksm"), ["2"]);
    assert_eq!(wanted(&chosen, "cpu.mitigations"), ["mitigations=off"]);
    let threads =
        chosen["items"].as_array().expect("items").iter().find(|item| item["knob"] == "sched.threadirqs");
    assert_eq!(threads.expect("asked for")["state"], "not-applicable", "PREEMPT_RT has it anyway");
    let warned = |plan: &Value| plan["notes"].to_string().contains("warning: \\\"cpu.mitigations\\\" = ");
    assert!(warned(&chosen), "{}", chosen["notes"]);

    let other = plan("'cpu.mitigations' = 'auto'");
    assert_eq!((wanted(&other, "cpu.mitigations").len(), warned(&other)), (1, false));
    let none = plan("cpu = 'keep'");
    assert_eq!((wanted(&none, "cpu.mitigations").len(), warned(&none)), (0, false));
    assert!(wanted(&none, "cpu.isolcpus").is_empty());

    // In line it is said as well.
    let profile = with_knobs(&tree, "'cpu.mitigations' = 'off'");
    tree.tune(&["apply", &profile]).expect(0);
    assert!(tree.read("etc/default/grub.d/99-rtkvm-tune.cfg").contains(" mitigations=off"));
    let said = tree.tune(&["verify", &profile]).out;
    assert!(said.contains("warning: \"cpu.mitigations\" = \"off\": programs and guests can read"), "{said}");
}
