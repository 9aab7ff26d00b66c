//! What single knobs make of a machine where the profile asks for them.

use super::in_use::run_guest;
use super::support::*;

const UNIT: &str = "etc/systemd/system/irqbalance.service";
const DROP_IN: &str = "etc/systemd/system/irqbalance.service.d/50-rtkvm-tune.conf";

/// The programs of a dry run with these lines under [knobs].
fn programs(tree: &Tree, lines: &str) -> Vec<String> {
    let profile = with_knobs(tree, lines);
    let out = tree.tune(&["apply", "--dry-run", &profile, "--format", "json"]).expect(0).out;
    let plan: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let steps = plan["plan"]["steps"].as_array().expect("steps").iter();
    steps.filter_map(|step| step["program"].as_str().map(str::to_owned)).collect()
}

fn is_link(tree: &Tree, path: &str, target: &str) -> bool {
    std::fs::read_link(tree.at(path)).is_ok_and(|found| found.to_str() == Some(target))
}

#[test]
fn irqbalance_is_masked_in_place_of_its_drop_in() {
    let tree = Tree::reference();
    tree.write("usr/lib/systemd/system/irqbalance.service", "[Service]\n");
    let mask = "'services.irqbalance' = 'mask'";
    tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(tree.at(DROP_IN).exists());
    let asked = programs(&tree, mask);
    assert!(asked.contains(&"systemctl stop irqbalance.service".into()), "{asked:?}");
    // A masked unit cannot be started again.
    assert!(!asked.iter().any(|program| program.contains("try-restart")), "{asked:?}");
    assert_eq!(states(&tree, mask, "services.irqbalance")[0], pair("missing", "-> /dev/null"));
    tree.tune(&["apply", &with_knobs(&tree, mask)]).expect(0);
    assert!(is_link(&tree, UNIT, "/dev/null") && !tree.at(DROP_IN).exists());
    assert_eq!(states(&tree, mask, "services.irqbalance"), [pair("in-line", "-> /dev/null")]);
    tree.tune(&["revert"]).expect(0);
    assert!(tree.at(UNIT).symlink_metadata().is_err());

    // Somebody's own unit stays.
    tree.write(UNIT, "[Service]\n");
    assert_eq!(states(&tree, mask, "services.irqbalance"), [pair("not-applicable", "-> /dev/null")]);
    tree.tune(&["apply", &with_knobs(&tree, mask)]).expect(0);
    assert_eq!(tree.read(UNIT), "[Service]\n");
}

#[test]
fn systemd_starts_everything_on_the_housekeeping_cpus() {
    let tree = Tree::reference();
    let (knob, on) = ("services.cpu-affinity", "'services.cpu-affinity' = 'on'");
    assert!(states(&tree, "", knob).is_empty());
    let status = |cpus: &str| format!("Name:\tsystemd\nCpus_allowed_list:\t{cpus}\n");
    std::fs::remove_dir_all(tree.at("proc/1")).ok();
    assert_eq!(states(&tree, on, knob)[1], pair("unverifiable", "0-1,8-9"));
    tree.write("proc/1/status", status("0-15"));
    assert_eq!(states(&tree, on, knob), [pair("missing", "as planned"), pair("reboot-pending", "0-1,8-9")]);
    tree.tune(&["apply", &with_knobs(&tree, on)]).expect(0);
    let text = tree.read("etc/systemd/system.conf.d/50-rtkvm-tune.conf");
    assert!(text.ends_with("\n[Manager]\nCPUAffinity=0 1 8 9\n"), "{text}");
    // What waits for the boot is no argument of the kernel: the audit says where it looked.
    let audit = tree.tune(&["verify", &with_knobs(&tree, on)]).out;
    assert!(
        audit.contains("read from the drop-in has the planned content, and Cpus_allowed_list"),
        "{audit}"
    );
    tree.write("proc/1/status", status("0-1,8-9"));
    assert_eq!(states(&tree, on, knob), [pair("in-line", "as planned"), pair("in-line", "0-1,8-9")]);
}

/// A boot after the apply that did not bring it: no other boot is asked for, and the reason is told.
#[test]
fn a_boot_without_the_new_affinity_is_told() {
    let tree = Tree::reference();
    let (knob, on) = ("services.cpu-affinity", "'services.cpu-affinity' = 'on'");
    tree.write("proc/1/status", "Name:\tsystemd\nCpus_allowed_list:\t0-15\n");
    let boot = "proc/sys/kernel/random/boot_id";
    tree.write(boot, "first\n");
    let profile = with_knobs(&tree, on);
    tree.tune(&["apply", &profile]).expect(0);
    assert_eq!(states(&tree, on, knob)[1], pair("reboot-pending", "0-1,8-9"));
    tree.write(boot, "second\n");
    tree.tune(&["apply", "--runtime", &profile]);
    assert_eq!(states(&tree, on, knob)[1], pair("differs", "0-1,8-9"));
    let audit = tree.tune(&["verify", &profile]).out;
    assert!(
        audit.contains("did not bring it: another file wins, or the initramfs has an older copy"),
        "{audit}"
    );
    // A file that was changed since is for the next boot again.
    tree.write("etc/systemd/system.conf.d/50-rtkvm-tune.conf", "");
    assert_eq!(states(&tree, on, knob)[1], pair("reboot-pending", "0-1,8-9"));
    tree.tune(&["apply", &profile]);
    assert_eq!(states(&tree, on, knob)[1], pair("reboot-pending", "0-1,8-9"));
}

#[test]
fn slices_are_confined_where_control_groups_can() {
    let tree = Tree::reference();
    let (knob, on) = ("services.allowed-cpus", "'services.allowed-cpus' = 'on'");
    std::fs::remove_file(tree.at("sys/fs/cgroup/cgroup.controllers")).ok();
    assert_eq!(states(&tree, on, knob), [pair("not-applicable", "0-1,8-9")]);
    tree.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io\n");
    tree.write("sys/fs/cgroup/system.slice/cpuset.cpus.effective", "0-15\n");
    tree.write("sys/fs/cgroup/user.slice/cpuset.cpus.effective", "0-1\n");
    let pending = pair("reboot-pending", "0-1,8-9");
    let (file, fine) = (pair("missing", "as planned"), pair("in-line", "0-1,8-9"));
    let all = [&file, &pending, &file, &pending, &file, &fine].map(Clone::clone);
    assert_eq!(states(&tree, on, knob), all);
    tree.tune(&["apply", &with_knobs(&tree, on)]).expect(0);
    for (unit, kind) in [("init.scope", "Scope"), ("system.slice", "Slice"), ("user.slice", "Slice")] {
        let text = tree.read(&format!("etc/systemd/system/{unit}.d/50-rtkvm-tune.conf"));
        assert!(text.ends_with(&format!("\n[{kind}]\nAllowedCPUs=0 1 8 9\n")), "{text}");
    }
    assert!(!tree.at("etc/systemd/system/machine.slice.d").exists());

    // Guests of a session's libvirt are below user.slice.
    let tree = Tree::reference();
    tree.write("sys/fs/cgroup/cgroup.controllers", "cpuset\n");
    let profile = with_knobs(&tree, on);
    let text = std::fs::read_to_string(&profile).expect("written");
    let session = text.replacen("[host]\n", "[host]\nlibvirt-uri = \"qemu:///session\"\n", 1);
    assert_ne!(text, session);
    let profile = tree.note("session.toml", session);
    let out = tree.tune(&["apply", "--dry-run", &profile]).expect(0).out;
    assert!(out.contains("the guests of the profile's libvirt-uri run in it"), "{out}");
    assert!(!out.contains("user.slice.d"), "{out}");
}

#[test]
fn masks_that_steer_queues_lose_the_isolated_cpus() {
    let tree = Tree::reference();
    let (knob, on) = ("sched.queue-steering", "'sched.queue-steering' = 'on'");
    std::fs::remove_dir_all(tree.at("sys/class/net")).ok();
    assert_eq!(states(&tree, on, knob), [pair("not-applicable", "no isolated CPU")]);
    let path = |name: &str| format!("sys/class/net/eth7/queues/{name}");
    for (name, mask) in [
        ("rx-0/rps_cpus", "ffff"),
        ("rx-1/rps_cpus", "0"),
        ("tx-0/xps_cpus", "0303"),
        ("tx-1/xps_cpus", "0004"),
    ] {
        tree.write(&path(name), format!("{mask}\n"));
    }
    assert_eq!(
        states(&tree, on, knob),
        [pair("differs", "0-1,8-9"), pair("in-line", ""), pair("in-line", "0-1,8-9"), pair("differs", "")]
    );
    tree.tune(&["apply", &with_knobs(&tree, on)]).expect(0);
    let now = |name: &str| tree.read(&path(name)).trim().to_owned();
    let all = ["rx-0/rps_cpus", "rx-1/rps_cpus", "tx-0/xps_cpus", "tx-1/xps_cpus"].map(now);
    assert_eq!(all, ["303", "0", "0303", "0"]);
    // One that is off by now stays so.
    let again = states(&tree, on, knob);
    assert!(again.len() == 4 && again.iter().all(|(state, _)| state == "in-line"), "{again:?}");
}

#[test]
fn watchdogs_look_at_the_housekeeping_cpus() {
    let tree = Tree::reference();
    let (knob, on) = ("watchdog.cpus", "'watchdog.cpus' = 'on'");
    let mask = "proc/sys/kernel/watchdog_cpumask";
    std::fs::remove_file(tree.at(mask)).ok();
    assert_eq!(states(&tree, on, knob), [pair("not-applicable", "0-1,8-9")]);
    tree.write(mask, "0-15\n");
    tree.tune(&["apply", &with_knobs(&tree, on)]).expect(0);
    assert_eq!(tree.read(mask), "0-1,8-9\n");
    assert!(states(&tree, "", knob).iter().all(|(state, _)| state == "obsolete"));
}

/// Since Linux 6.8 a cpuset partition may have a part of what was asked for.
#[test]
fn unbound_work_is_judged_by_what_was_asked_for() {
    let tree = Tree::reference();
    let dir = "sys/devices/virtual/workqueue";
    let found = |asked: &str, has: &str| {
        tree.write(&format!("{dir}/cpumask_requested"), format!("{asked}\n"));
        tree.write(&format!("{dir}/cpumask"), format!("{has}\n"));
        states(&tree, "", "sched.workqueues")[0].clone()
    };
    assert_eq!(found("303", "303"), pair("in-line", "0-1,8-9"));
    assert_eq!(found("303", "103"), pair("in-line", "0-1,8"));
    // Nobody asked for it: another boot or partition gives it back.
    assert_eq!(found("ffff", "103"), pair("differs", "0-1,8-9"));
    assert_eq!(found("303", "707"), pair("differs", "0-1,8-9"));
}

#[test]
fn frequencies_are_bounded_by_what_the_cpu_has() {
    let tree = Tree::reference();
    let dir = "sys/devices/system/cpu/cpufreq/policy2";
    for (name, text) in [
        ("related_cpus", "2"),
        ("cpuinfo_min_freq", "800000"),
        ("cpuinfo_max_freq", "3900000"),
        ("scaling_max_freq", "3900000"),
        ("scaling_min_freq", "800000"),
    ] {
        tree.write(&format!("{dir}/{name}"), format!("{text}\n"));
    }
    let found = |mhz: u32| {
        let line = format!("'power.max-frequency' = {mhz}");
        states(&tree, &line, "power.max-frequency")[0].0.clone()
    };
    assert_eq!([found(2400), found(700), found(4000)], ["differs", "not-applicable", "not-applicable"]);
    let profile = with_knobs(&tree, "'power.max-frequency' = 2400");
    tree.tune(&["apply", &profile]).expect(0);
    assert_eq!(tree.read(&format!("{dir}/scaling_max_freq")), "2400000\n");
    // The kernel lets the lowest be no higher.
    let both = with_knobs(&tree, "'power.max-frequency' = 2400\n'power.min-frequency' = 'max'");
    tree.tune(&["apply", &both]).expect(0);
    assert_eq!(tree.read(&format!("{dir}/scaling_min_freq")), "2400000\n");
}

/// The IOMMU is turned on for a guest with a device, and otherwise on demand.
#[test]
fn the_iommu_is_for_guests_with_a_device() {
    let tree = Tree::reference();
    let cpuinfo = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: pdpe1gb vmx\n\n";
    tree.write("proc/cpuinfo", cpuinfo);
    assert!(states(&tree, "", "device.iommu").is_empty());
    assert_eq!(
        states(&tree, "'device.iommu' = 'pt'", "device.iommu"),
        [pair("missing", "intel_iommu=on"), pair("missing", "iommu=pt")]
    );
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let pool = format!("{text}\n[[guest.network]]\nvf-pool = \"fast\"\n");
    let plan = tree.tune(&["apply", "--dry-run", &tree.note("pool.toml", pool)]).expect(0).out;
    assert!(plan.contains("\n+ device.iommu: intel_iommu"), "{plan}");
}

/// In a tree the answer of ethtool is a file.
fn channels(interface: &str) -> String {
    format!("sys/class/net/{interface}/channels")
}

/// Interfaces with a device on this node, and what ethtool tells of them.
fn add_interfaces(tree: &Tree, all: &[(&str, Option<u32>, &str)]) {
    for (name, node, found) in all {
        tree.write(&channels(name), format!("{found}\n"));
        let device = format!("sys/devices/{name}");
        std::fs::create_dir_all(tree.at(&device)).expect("made");
        if let Some(node) = node {
            tree.write(&format!("{device}/numa_node"), format!("{node}\n"));
        }
        tree.link(&format!("sys/class/net/{name}/device"), format!("../../../devices/{name}"));
    }
}

/// An interface keeps at most as many channels as the CPUs near its device, or has as many as asked for; a bridge has none.
#[test]
fn network_interfaces_have_no_more_channels_than_cpus() {
    let tree = Tree::reference();
    let (knob, on) = ("irq.channels", "'irq.channels' = 'on'");
    std::fs::remove_dir_all(tree.at("sys/class/net")).ok();
    assert_eq!(states(&tree, on, knob), [pair("not-applicable", "no more than CPUs")]);
    tree.write(&channels("br0"), "combined 16 of 16\n");
    let all = [
        ("eth0", Some(1), "combined 16 of 63"),
        ("eth1", Some(1), "combined 1 of 8"),
        ("eth2", None, "combined 6 of 6"),
        // Those for receiving and sending apart, and none at all.
        ("eth3", Some(1), "combined 0 of 8"),
        ("eth4", Some(1), "combined 0 of 0"),
    ];
    add_interfaces(&tree, &all);
    std::fs::remove_file(tree.at(&channels("eth4"))).expect("there");
    let (no_two, no_one) = (pair("not-applicable", "2"), pair("not-applicable", "1"));
    let wanted = [pair("differs", "2"), pair("in-line", "1"), pair("differs", "4"), no_two.clone(), no_two];
    assert_eq!(states(&tree, on, knob), wanted);
    let wanted = [pair("differs", "1"), pair("in-line", "1"), pair("differs", "1"), no_one.clone(), no_one];
    assert_eq!(states(&tree, "'irq.channels' = 1", knob), wanted);
    // A number says how many, as far as the driver can, whatever there are now.
    let eight = states(&tree, "'irq.channels' = 8", knob);
    assert_eq!(eight[..3], [pair("differs", "8"), pair("differs", "8"), pair("in-line", "6")]);
    tree.tune(&["apply", &with_knobs(&tree, on)]).expect(0);
    let found = |name: &str| tree.read(&channels(name)).trim().to_owned();
    let all = ["br0", "eth0", "eth1", "eth2", "eth3"].map(found);
    assert_eq!(
        all,
        ["combined 16 of 16", "combined 2 of 63", "combined 1 of 8", "combined 4 of 6", "combined 0 of 8"]
    );
    // What an administrator asked for since is not ours.
    tree.write(&channels("eth0"), "combined 8 of 63\n");
    let ran = tree.tune(&["revert"]).expect(1).out;
    assert!(
        ran.contains("sys/class/net/eth0/channels was changed by somebody else since: combined 8 of 63"),
        "{ran}"
    );
    assert_eq!(
        ["eth0", "eth1", "eth2"].map(found),
        ["combined 8 of 63", "combined 1 of 8", "combined 6 of 6"]
    );
}

/// Vectors are given back before they are asked for, and new interrupts go where the default says by then. In a tree nothing
/// is made anew.
#[test]
fn channels_change_before_interrupts_move() {
    let tree = Tree::reference();
    let profile = with_knobs(&tree, "'irq.channels' = 1");
    add_interfaces(&tree, &[("eth9", Some(1), "combined 4 of 4")]);
    tree.write("sys/devices/eth9/msi_irqs/24", "msix\n");
    let first = tree.list();
    let out = tree.tune(&["apply", "--dry-run", &profile, "--format", "json"]).expect(0).out;
    let plan: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let steps = plan["plan"]["steps"].as_array().expect("steps").iter();
    let paths: Vec<&str> = steps.filter_map(|step| step["path"].as_str()).collect();
    assert_eq!(paths[..2], ["/proc/irq/default_smp_affinity", "/sys/class/net/eth9/channels"]);
    assert!(paths.contains(&"/proc/irq/24/smp_affinity_list"), "{paths:?}");
    tree.tune(&["apply", &profile]).expect(0);
    let ran = tree.tune(&["revert"]).expect(0).out;
    let lines: Vec<&str> = ran.lines().take(2).collect();
    assert_eq!(
        lines,
        [
            "done     set /proc/irq/default_smp_affinity to 0-15",
            "done     give eth9 4 channels, /sys/class/net/eth9/channels"
        ]
    );
    assert_eq!(changed(&first, &tree.list()), [""; 0]);
}

/// Guests may use the interface.
#[test]
fn no_link_is_taken_while_guests_run() {
    let tree = Tree::reference();
    add_interfaces(&tree, &[("eth9", Some(1), "combined 4 of 4")]);
    let profile = with_knobs(&tree, "'irq.channels' = 1");
    run_guest(&tree, "db");
    let out = tree.tune(&["apply", "--dry-run", &profile]).expect(0).out;
    let why = "a network interface loses its link for a moment, and guest db (PID 812) runs: stop them, or do it all the \
               same by `apply --live`";
    assert!(out.contains(why) && !out.contains("+combined 1 of 4"), "{out}");
    let out = tree.tune(&["apply", "--dry-run", "--live", &profile]).expect(0).out;
    assert!(out.contains("+combined 1 of 4"), "{out}");
}

/// A process keeps the bound; what is in force is read from the kernel.
#[test]
fn the_bound_on_all_cpus_is_kept_by_a_unit() {
    const UNIT: &str = "etc/systemd/system/rtkvm-tune-cpu-dma-latency.service";
    let tree = Tree::reference();
    let (knob, most) = ("power.cpu-dma-latency", "'power.cpu-dma-latency' = 256");
    let restart = "systemctl restart rtkvm-tune-cpu-dma-latency.service".to_owned();
    assert!(states(&tree, "", knob).is_empty());
    // A tree has no kernel to ask.
    assert_eq!(states(&tree, most, knob)[2], pair("not-applicable", "256 us"));
    assert!(programs(&tree, most).contains(&restart));
    let profile = with_knobs(&tree, most);
    tree.tune(&["apply", &profile]).expect(0);
    // Four digits would be taken for a binary number.
    let unit = tree.read(UNIT);
    assert!(unit.contains("' 0x00000100\n") && unit.contains("echo \"$$0\" >&3"), "{unit}");
    // What reads the bound next must not be there before it.
    assert!(unit.contains("\nType=forking\n"), "{unit}");
    let wants = "etc/systemd/system/multi-user.target.wants/rtkvm-tune-cpu-dma-latency.service";
    assert!(is_link(&tree, wants, "../rtkvm-tune-cpu-dma-latency.service"));

    let captured = tree.tune(&["capture"]).expect(0).out;
    let planned = |bound: &str| {
        let file = tree.note("a.capture", format!("{captured}/dev/cpu_dma_latency {bound}\n"));
        let out = tune(&["apply", "--dry-run", &profile, "--format", "json", "--root", &file]).expect(0).out;
        let plan: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let items = plan["plan"]["items"].as_array().expect("items").iter();
        let item = items.filter(|item| item["knob"] == knob).nth(2).expect("the bound").clone();
        let starts = plan["plan"]["steps"].to_string().contains(&restart);
        (item["state"].as_str().expect("a state").to_owned(), item["running"].clone(), starts)
    };
    // Nobody asks for less: the unit does not run.
    assert_eq!(planned("[0600]: 2000000000"), ("differs".into(), "2000000000 us".into(), true));
    assert_eq!(planned("[0600]: 257"), ("differs".into(), "257 us".into(), true));
    assert_eq!(planned("[0600]: 256"), ("in-line".into(), "256 us".into(), false));
    // Another program asks for less.
    assert_eq!(planned("[0600]: 0"), ("in-line".into(), "0 us".into(), false));
    assert_eq!(planned("!EACCES"), ("unverifiable".into(), serde_json::Value::Null, false));

    tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(!tree.at(UNIT).exists() && tree.at(wants).symlink_metadata().is_err());
}
