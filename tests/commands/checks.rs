//! What no program can set.

use super::support::*;

/// The row of a check, with the line of its reason.
fn row(plan: &str, check: &str) -> String {
    let start = format!(" check.{check} ");
    let lines: Vec<&str> = plan.lines().collect();
    let at = lines.iter().position(|line| line.get(1..).is_some_and(|line| line.starts_with(&start)));
    let at = at.unwrap_or_else(|| panic!("{check}: {plan}"));
    lines[at..(at + 2).min(lines.len())].join("\n")
}

fn plan(tree: &Tree) -> String {
    tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out
}

#[test]
fn each_names_its_consequence() {
    let tree = Tree::reference();
    let before = plan(&tree);
    for check in ["rt-kernel", "tsc", "gigabyte-pages", "hybrid-cores", "memory-nodes"] {
        assert!(row(&before, check).starts_with('='), "{}", row(&before, check));
    }
    let release = tree.read("proc/sys/kernel/osrelease");
    tree.write(&format!("boot/config-{}", release.trim()), "CONFIG_PREEMPT_RT=y\nCONFIG_RT_GROUP_SCHED=y\n");
    tree.write("proc/sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC\n");
    tree.write("sys/kernel/realtime", "0\n");
    let cpuinfo = tree.read("proc/cpuinfo").replace(" nonstop_tsc", "");
    tree.write("proc/cpuinfo", cpuinfo);
    tree.write("sys/devices/cpu_atom/cpus", "8-15\n");
    tree.write(
        "sys/devices/system/cpu/vulnerabilities/mds",
        "Vulnerable: Clear CPU buffers attempted, no microcode\n",
    );
    tree.link("usr/lib/x86_64-linux-gnu/libvirt.so.0", "libvirt.so.0.8000.0");
    tree.write(
        "etc/libvirt/qemu.conf",
        "spice_password = \"x\"\ncgroup_controllers = [ \"cpu\",\n \"memory\" ]\n",
    );
    let after = plan(&tree);
    for (check, told) in [
        ("rt-kernel", "latency has no bound"),
        ("rt-group-sched", "guests with vcpusched do not start"),
        ("tsc", "without nonstop_tsc"),
        ("hybrid-cores", "vCPUs on 10-15 are slower"),
        ("microcode", "mds stays open"),
        ("libvirt", "it refuses the guests' definitions"),
        ("libvirt-cpuset", "disturbs the isolated CPUs of others"),
    ] {
        let row = row(&after, check);
        assert!(row.starts_with('!') && row.contains(told), "{row}");
    }
    assert!(after.contains(" unmet. "), "{after}");
    // A kernel argument that turns it off is as good.
    tree.write("proc/cmdline", "rt_group_sched=0 root=/dev/vda1\n");
    assert!(row(&plan(&tree), "rt-group-sched").starts_with('='));

    // They stop nothing and change no status, and can be left out.
    let ran = tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(!ran.out.contains("check."), "{}", ran.out);
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let profile = tree.note("keep.toml", format!("{text}\n[knobs]\n\"check\" = \"keep\"\n"));
    assert!(!tree.tune(&["verify", &profile]).out.contains("check."));
}

/// What would tell and cannot be seen is not the same as what the machine has not got.
#[test]
fn what_cannot_be_seen_is_no_answer() {
    let tree = Tree::reference();
    for path in ["proc/sys/kernel/version", "sys/kernel/realtime", "proc/cpuinfo"] {
        std::fs::remove_file(tree.at(path)).ok();
    }
    let told = |check: &str, sign: char| {
        let row = row(&plan(&tree), check);
        assert!(row.starts_with(sign), "{row}");
    };
    // Those files there are on every x86 machine.
    for check in ["rt-kernel", "rt-group-sched", "tsc", "gigabyte-pages", "microcode", "libvirt"] {
        told(check, '?');
    }
    // It changes no exit status, nor is it a failure to the strict.
    let strict = tree.tune(&["verify", "--strict", REFERENCE, "--format", "junit"]).out;
    assert!(
        strict.contains("<skipped message=\"cannot be told: whether the kernel is PREEMPT_RT"),
        "{strict}"
    );
    let text = tree.tune(&["verify", REFERENCE]).out;
    assert!(text.contains("mend by: as root, or by hand: rtkvm-tune explain check.rt-kernel"), "{text}");
    assert!(text.contains("read from PREEMPT_RT in /proc/sys/kernel/version"), "{text}");

    told("libvirt-cpuset", '.');
    tree.write("etc/libvirt/qemu.conf", "cgroup_controllers = [ \"cpuset\" ]\n");
    told("libvirt-cpuset", '=');
    tree.write("proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\n\n");
    for check in ["tsc", "gigabyte-pages", "microcode", "smi"] {
        told(check, '.');
    }
}

/// Interrupts for a guest that runs reach it, or stop it.
#[test]
fn posted_interrupts_are_looked_for() {
    let tree = Tree::reference();
    for module in ["kvm_amd", "kvm_intel"] {
        std::fs::remove_dir_all(tree.at(&format!("sys/module/{module}"))).ok();
    }
    let sign = |value: Option<&str>| {
        let write = |value| tree.write("sys/module/kvm_intel/parameters/enable_apicv", format!("{value}\n"));
        value.into_iter().for_each(write);
        row(&plan(&tree), "posted-interrupts").chars().next().expect("a sign")
    };
    assert_eq!([sign(None), sign(Some("Y")), sign(Some("N"))], ['.', '=', '!']);
}

/// What a capture keeps of files with more in them than a check asks for.
#[test]
fn nothing_else_is_kept_of_a_file() {
    let tree = Tree::reference();
    tree.write(
        "etc/libvirt/qemu.conf",
        "spice_password = \"hush\"\n# a comment\ncgroup_controllers = [ \"cpuset\" ]\n",
    );
    let capture = tree.tune(&["capture"]).expect(0).out;
    assert!(capture.contains("cgroup_controllers"), "{capture}");
    assert!(!capture.contains("hush") && !capture.contains("a comment"), "{capture}");
}
