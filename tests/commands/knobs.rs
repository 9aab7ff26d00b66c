//! What single knobs make of a machine.

use super::support::*;
use serde_json::Value;

const IRQBALANCE: &str = "usr/lib/systemd/system/irqbalance.service";
const BANNED: &str = "etc/rtkvm-tune/irqbalance.env";
const IRQBALANCE_DROP_IN: &str = "etc/systemd/system/irqbalance.service.d/50-rtkvm-tune.conf";

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
    assert!(
        tree.read(IRQBALANCE_DROP_IN)
            .ends_with("[Service]\nEnvironmentFile=/etc/rtkvm-tune/irqbalance.env\n")
    );
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

/// The reference machine after a boot with `psi=0`, as far as that matters here.
fn without_pressure() -> Tree {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    tree.write("boot/grub/grub.cfg", "menuentry 'Debian' {\n linux /vmlinuz quiet psi=0\n}\n");
    assert_eq!(state(&tree), "reboot-pending");
    tree.start("quiet psi=0\n");
    tree
}

fn state(tree: &Tree) -> String {
    item(tree, "sched.psi").0
}

/// Pressure stalls are accounted for where /proc/pressure/cpu can be read, whatever the kernel's line says.
#[test]
fn pressure_stalls_are_not_accounted_for() {
    assert_eq!(item(&Tree::reference(), "sched.psi"), ("missing".into(), None, "psi=0".into()));
    let tree = without_pressure();
    assert_eq!(state(&tree), "in-line");
    // Whoever cannot read the kernel's log can see it all the same.
    let captured = tree.tune(&["capture"]).expect(0).out;
    let file = tree.note("a.capture", format!("{captured}/dev/kmsg !EPERM\n"));
    let text = tune(&["verify", REFERENCE, "--root", &file]).expect(1).out;
    assert!(!text.contains("sched.psi"), "{text}");
    tree.write(PRESSURE, "");
    assert_eq!(state(&tree), "rejected", "it was given, and they are there");
}

/// A kernel that has none has nothing to be told.
#[test]
fn no_pressure_stalls_are_as_good_as_none_accounted_for() {
    let tree = Tree::reference();
    std::fs::remove_file(tree.at(PRESSURE)).expect("recorded");
    assert_eq!(state(&tree), "not-applicable");
    // Nor does it matter to it what somebody else asks for.
    tree.start("quiet psi=1\n");
    std::fs::remove_file(tree.at(PRESSURE)).expect("written");
    assert_eq!(state(&tree), "not-applicable");

    // As old kernels have it with psi=0.
    let captured = Tree::reference().tune(&["capture"]).expect(0).out;
    let refused = captured.replace("/proc/pressure/cpu [0666]|", "/proc/pressure/cpu !EOPNOTSUPP");
    let file = tree.note("a.capture", &refused);
    let plan = tune(&["apply", "--dry-run", REFERENCE, "--root", &file]).expect(0).out;
    let reason = "pressure stalls are not accounted for: /proc/pressure/cpu cannot be read";
    assert!(refused != captured && plan.contains(reason) && !plan.contains("psi=0"), "{plan}");

    let tree = without_pressure();
    tree.write(
        "dev/kmsg",
        "Unknown kernel command line parameters \"psi=0\", will be passed to user space.\n",
    );
    assert_eq!(state(&tree), "not-applicable", "it was given to a kernel without it");
}

/// systemd-oomd goes by them. What it needs is given back to it, and its mask means that nothing starts it.
#[test]
fn pressure_stalls_are_left_to_systemd_oomd() {
    let tree = without_pressure();
    let unit = "/lib/systemd/system/systemd-oomd.service";
    tree.link("etc/systemd/system/multi-user.target.wants/systemd-oomd.service", unit);
    let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    let remedy = "systemd-oomd needs pressure stalls: `systemctl disable --now systemd-oomd` first";
    assert!(plan.contains(remedy), "{plan}");
    tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(!tree.read(DROP_IN).contains("psi=0"));
    tree.link("etc/systemd/system/systemd-oomd.service", "/dev/null");
    tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(tree.read(DROP_IN).contains(" psi=0 "));
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
    assert!(tree.read(DROP_IN).contains(" mitigations=off"));
    let said = tree.tune(&["verify", &profile]).out;
    assert!(said.contains("warning: \"cpu.mitigations\" = \"off\": programs and guests can read"), "{said}");
}

/// Each knob takes each of its values on a machine that has little: none fails.
#[test]
fn every_value_of_every_knob_can_be_planned() {
    use rtkvm_tune::knobs::{Chosen, all};
    let tree = Tree::reference();
    let most = all().map(|knob| knob.values.words.len() + 2).max().expect("knobs");
    for at in 0..most {
        let line = |knob: &rtkvm_tune::knobs::Knob| {
            let words = knob.values.words.iter().map(|word| Chosen::Word(word.name).to_string());
            let ends = knob.values.numbers.iter().flat_map(|n| [*n.range.end(), *n.range.start()]);
            // The priorities of guests leave room above 1.
            let numbers = ends.filter(|n| knob.id != "cpu.rcu-priority" || *n > 1).map(|n| n.to_string());
            let values: Vec<String> = words.chain(numbers).collect();
            values.get(at % values.len()).map(|value| format!("'{}' = {value}\n", knob.id))
        };
        let lines: String = all().filter_map(line).collect();
        let profile = with_knobs(&tree, &lines);
        tree.tune(&["apply", "--dry-run", &profile]).expect(0);
    }
}

/// The clock is trusted only where the processor and the kernel vouch for it.
#[test]
fn the_clock_is_trusted_where_it_qualifies() {
    let tree = Tree::reference();
    let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    let found = |lines: &str| states(&tree, lines, "cpu.tsc");
    let cpuinfo = |flags: &str| {
        let text = format!("processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: pdpe1gb {flags}\n\n");
        tree.write("proc/cpuinfo", &text);
    };
    cpuinfo("constant_tsc nonstop_tsc");
    tree.write(clock, "hpet\n");
    assert_eq!(found(""), [pair("not-applicable", "reliable")]);
    tree.write(clock, "tsc\n");
    assert_eq!(found(""), [pair("missing", "tsc=reliable")]);
    assert_eq!(found("'cpu.tsc' = 'nowatchdog'"), [pair("missing", "tsc=nowatchdog")]);
    cpuinfo("constant_tsc");
    assert_eq!(found(""), [pair("not-applicable", "reliable")]);
}

/// Options of a module go to modprobe where it is loaded, to the kernel where it is built in, and the running value
/// waits for the boot.
#[test]
fn options_of_kvm_follow_how_it_is_there() {
    let tree = Tree::reference();
    let gap = "sys/module/kvm_intel/parameters/ple_gap";
    tree.write(gap, "128\n");
    tree.write("sys/module/kvm_intel/initstate", "live\n");
    std::fs::set_permissions(tree.at(gap), std::os::unix::fs::PermissionsExt::from_mode(0o444))
        .expect("mode");
    assert_eq!(
        states(&tree, "", "kvm.ple-gap"),
        [pair("missing", "as planned"), pair("reboot-pending", "0")]
    );
    assert!(states(&tree, "", "kvm.pause-filter").is_empty(), "the other vendor's module is there");
    let boot = "proc/sys/kernel/random/boot_id";
    tree.write(boot, "first\n");
    tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(tree.read("etc/modprobe.d/rtkvm-tune-ple-gap.conf").ends_with("\noptions kvm_intel ple_gap=0\n"));
    assert_eq!(tree.read(gap), "128\n");
    // A boot that did not bring it: nothing writes what the kernel lets nobody write.
    tree.write(boot, "second\n");
    assert_eq!(states(&tree, "", "kvm.ple-gap"), [pair("in-line", "as planned"), pair("differs", "0")]);
    assert!(!tree.tune(&["apply", "--dry-run", REFERENCE]).out.contains("+++ b/sys/module/kvm_intel"));
    tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(tree.tune(&["verify", REFERENCE]).expect(1).out.contains("did not bring it"));
    assert_eq!(tree.read(gap), "128\n");

    std::fs::remove_file(tree.at("sys/module/kvm_intel/initstate")).expect("written above");
    assert_eq!(states(&tree, "", "kvm.ple-gap")[0], pair("missing", "kvm_intel.ple_gap=0"));
}

/// Only policies with an isolated CPU, and what they have not got is said.
#[test]
fn frequencies_of_isolated_cpus_alone() {
    let tree = Tree::reference();
    for (number, cpus, governors) in
        [(0, "0 1", "performance powersave"), (2, "2 3", "performance powersave"), (4, "4", "powersave")]
    {
        let dir = format!("sys/devices/system/cpu/cpufreq/policy{number}");
        tree.write(&format!("{dir}/related_cpus"), format!("{cpus}\n"));
        tree.write(&format!("{dir}/scaling_available_governors"), format!("{governors}\n"));
        tree.write(&format!("{dir}/scaling_governor"), "powersave\n");
    }
    assert_eq!(
        states(&tree, "", "power.governor"),
        [pair("differs", "performance"), pair("not-applicable", "performance")]
    );
    tree.write("sys/devices/system/cpu/cpu0/power/pm_qos_resume_latency_us", "0\n");
    for cpu in (2..8).chain(10..16) {
        tree.write(&format!("sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us"), "0\n");
    }
    assert_eq!(states(&tree, "", "power.resume-latency"), vec![pair("differs", "n/a"); 12]);
    assert_eq!(states(&tree, "'power.resume-latency' = 2", "power.resume-latency")[0], pair("differs", "2"));
}

/// A kernel that takes no number of pages for each node has them written early in the boot.
#[test]
fn old_kernels_get_their_pages_early() {
    let tree = Tree::reference();
    let conf = "etc/tmpfiles.d/rtkvm-tune.conf";
    assert!(states(&tree, "", "memory.hugepages-early").is_empty());
    tree.write("proc/sys/kernel/osrelease", "5.10.0-28-rt-amd64\n");
    tree.tune(&["apply", REFERENCE]).expect(0);
    let node = |node| {
        format!(
            "w! /sys/devices/system/node/node{node}/hugepages/hugepages-1048576kB/nr_hugepages - - - - 25\n"
        )
    };
    assert!(tree.read(conf).ends_with(&format!("{}{}", node(0), node(1))), "{}", tree.read(conf));
}

/// RCU's own threads run before the vCPUs, or the profile is refused.
#[test]
fn rcu_is_not_below_the_guests() {
    let tree = Tree::reference();
    let out = tree.tune(&["apply", "--dry-run", &with_knobs(&tree, "'cpu.rcu-priority' = 1")]).expect(2);
    assert!(out.err.contains("is not above the guests' fifo-priority 1"), "{}", out.err);
    assert_eq!(
        states(&tree, "'cpu.rcu-priority' = 11", "cpu.rcu-priority"),
        [pair("missing", "rcutree.kthread_prio=11")]
    );
}

/// An option of a module that waits for its boot is no argument of the default entry: a trial is possible.
#[test]
fn a_module_option_does_not_stand_in_the_way_of_a_trial() {
    let tree = Tree::reference();
    let gap = "sys/module/kvm_intel/parameters/ple_gap";
    tree.write(gap, "128\n");
    tree.write("sys/module/kvm_intel/initstate", "live\n");
    std::fs::set_permissions(tree.at(gap), std::os::unix::fs::PermissionsExt::from_mode(0o444))
        .expect("mode");
    let out = tree.tune(&["apply", "--trial", "--dry-run", REFERENCE]).out;
    assert!(!out.contains("the default entry has"), "{out}");
}
