//! What the kernel logged about its arguments, quoted where it did not take one.

use super::support::*;

/// The machine after a boot with our arguments.
fn booted() -> Tree {
    let tree = Tree::of("tests/captures/reference-tuned.capture");
    tree.tune(&["apply", REFERENCE]).expect(0);
    let script = format!("{SOURCES}/tests/grub/mkconfig.sh");
    tool(
        std::process::Command::new("sh").arg(script).arg(&tree.root),
        "grub-common, grub2-common and util-linux",
    )
    .expect(0);
    // The recorded machine was started with fewer.
    let line = tree.read("proc/cmdline");
    tree.write("proc/cmdline", format!("{} nohz=on nosoftlockup nmi_watchdog=0\n", line.trim_end()));
    tree.tune(&["apply", REFERENCE]).expect(0);
    tree.tune(&["verify", REFERENCE]).expect(0);
    tree
}

/// Verify with this log: rejected, with the line quoted, no reboot asked for, and nothing to write.
#[track_caller]
fn rejected(tree: &Tree, knob: &str, log: &str, quoted: &str) {
    tree.write("dev/kmsg", log);
    let text = tree.tune(&["verify", REFERENCE]).expect(1).out;
    let row =
        text.split(&format!("\nx {knob}")).nth(1).unwrap_or_else(|| panic!("{knob} is not rejected: {text}"));
    let reason = row.lines().nth(1).unwrap_or_default();
    assert!(reason.contains(&format!("logged `{quoted}`")), "{reason}");
    assert!(text.contains("   x rejected by the kernel"), "{text}");
    let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    assert!(
        plan.contains(", 1 rejected by the kernel, ")
            && plan.contains(" No reboot is needed.\n")
            && !plan.contains("\n--- "),
        "{plan}"
    );
    let ran = tree.tune(&["apply", REFERENCE]).expect(1).out;
    assert!(ran.contains("Still not in line") && ran.contains("No reboot is needed"), "{ran}");
    // As a capture, which keeps these lines and no others.
    let file = tree.note("a.capture", tree.tune(&["capture"]).expect(0).out);
    let recorded = tune(&["verify", REFERENCE, "--root", &file]).expect(1).out;
    assert_eq!(recorded.replace(&file, tree.name()), text);
}

#[test]
fn a_rejected_argument_is_quoted() {
    let tree = booted();
    let flag = "isolcpus: Skipped unknown flag managed_irq";
    rejected(&tree, "cpu.isolcpus", &format!("Linux version 6.1\n{flag}\n"), flag);
    let pages = "HugeTLB: Invalid hugepages parameter 1:25";
    rejected(
        &tree,
        "memory.hugepages-boot",
        &format!("HugeTLB: registered 1.00 GiB page size\n{pages}\n"),
        pages,
    );
    let unknown = "Unknown kernel command line parameters \"irqaffinity=0-1,8-9 splash\", will be passed to user space.";
    rejected(&tree, "irq.boot-affinity", unknown, unknown);
    let offloaded = "rcu:  Offload RCU callbacks from CPUs: 2-7.";
    rejected(&tree, "cpu.rcu-nocbs", offloaded, "rcu:  Offload RCU callbacks from CPUs: 2-7.");
    // The kernel's own file is heard first; the log says why.
    let range = "Housekeeping: nohz_full= or isolcpus= incorrect CPU range";
    let file = "sys/devices/system/cpu/nohz_full";
    let before = tree.read(file);
    tree.write(file, "\n");
    rejected(&tree, "cpu.nohz-full", range, range);
    tree.write(file, before);
    // A word for it is no word against it.
    tree.write(
        "dev/kmsg",
        "NO_HZ: Full dynticks CPUs: 2-7,10-15.\nrcu:  Offload RCU callbacks from CPUs: 2-7,10-15.\n",
    );
    tree.tune(&["verify", REFERENCE]).expect(0);
}

#[test]
fn only_lines_about_arguments_are_recorded() {
    let tree = Tree::reference();
    tree.write(
        "dev/kmsg",
        "usb 1-1: SerialNumber: 1234\nHugeTLB: registered 2.00 MiB page size\nCommand line: secret\n",
    );
    let text = tree.tune(&["capture"]).expect(0).out;
    assert!(text.contains("\n/dev/kmsg [0644]: HugeTLB: registered 2.00 MiB page size\n"), "{text}");
    assert!(!text.contains("SerialNumber") && !text.contains("secret"), "{text}");
}

#[test]
fn a_log_that_cannot_be_read_is_told() {
    let tree = booted();
    tree.write("sys/devices/system/cpu/isolated", "\n");
    let captured = tree.tune(&["capture"]).expect(0).out;
    let file = tree.note("a.capture", format!("{captured}/dev/kmsg !EPERM\n"));
    let text = tune(&["verify", REFERENCE, "--root", &file]).expect(1).out;
    assert!(text.contains("isolated is empty; its log could not be read: Operation not permitted"), "{text}");
}

/// An argument of the profile's own may be meant for user space: it is told, and in line.
#[test]
fn an_unknown_argument_of_the_profile_is_told() {
    let tree = Tree::reference();
    let profile = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let profile =
        profile.replace("# kernel-arguments = [\"crashkernel=512M\"]", "kernel-arguments = [\"skew_tik=1\"]");
    let profile = tree.note("p.toml", profile);
    let line = "Unknown kernel command line parameters \"skew_tik=1\", will be passed to user space.";
    tree.write("dev/kmsg", line);
    let text = tree.tune(&["verify", &profile]).expect(1).out;
    assert!(text.contains(&format!("\n  the kernel did not take skew_tik=1: `{line}`\n")), "{text}");
}
