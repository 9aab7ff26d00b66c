//! Values that a program sets or keeps on a running machine, and those that cannot be put back.

use super::live::{APPLY, Live, PROFILE};
use super::support::*;
use std::process::Command;

/// The reference machine with an interface of 6 channels, and a profile that wants 2.
fn with_channels() -> Live {
    let live = Live::new();
    live.tree.write("run/eth0", "6 8\n");
    for name in ["eth0", "eth1"] {
        std::fs::create_dir_all(live.tree.at(&format!("sys/devices/{name}"))).expect("made");
        live.tree.link(&format!("sys/class/net/{name}/device"), format!("../../../devices/{name}"));
    }
    let text = live.tree.read(PROFILE);
    live.tree.write(PROFILE, format!("{text}'irq.channels' = 2\n"));
    live
}

/// Which call it is that begins so.
fn position(calls: &[String], start: &str) -> usize {
    calls.iter().position(|call| call.starts_with(start)).unwrap_or_else(|| panic!("{start}: {calls:?}"))
}

const TIMER: &str = "systemctl --no-block restart rtkvm-tune-irq.timer";

/// They are told and set by a program, and put back.
#[test]
fn channels_of_a_network_interface_are_set_by_ethtool() {
    let live = with_channels();
    let now = |live: &Live| live.tree.read("run/eth0").trim().to_owned();
    live.run(APPLY).expect(0);
    let calls = live.calls();
    position(&calls, "ethtool -L eth0 combined 2");
    assert_eq!(now(&live), "2 8");
    live.run(APPLY).expect(0);
    assert_eq!(live.calls(), [""; 0]);
    let (refused, gone) = (live.copy(), live.copy());
    live.run(&["revert"]).expect(0);
    let put_back = position(&live.calls(), "ethtool -L eth0 combined 6");
    assert_eq!(now(&live), "6 8");

    // Nobody is told that all is as it was, and the next revert knows what was.
    refused.fault(put_back + 1, "fail");
    let ran = refused.run(&["revert"]).expect(1);
    assert!(ran.out.contains("not set  give eth0 6 channels, /sys/class/net/eth0/channels: "), "{}", ran.out);
    assert!(ran.out.contains("\nReverted, but for what is named as not set: revert again"), "{}", ran.out);
    assert!(!refused.tree.at(DROP_IN).exists());
    refused.calls();
    let ran = refused.run(&["revert"]).expect(0);
    assert!(ran.out.contains("\nReverted: as before the first apply. "), "{}", ran.out);
    assert_eq!(now(&refused), "6 8");

    // A boot has it as it was: nothing is left to do, and nothing is ours.
    gone.fault(put_back + 1, "fail");
    gone.run(&["revert"]).expect(1);
    gone.tree.write("run/eth0", "6 8\n");
    gone.calls();
    let ran = gone.run(&["revert"]).expect(0);
    assert_eq!((ran.out.as_str(), gone.calls().len()), ("Nothing to revert.\n", 0));
    assert!(gone.tree.read(STATE).contains("\"baseline\": []"), "{}", gone.tree.read(STATE));
}

/// The interrupts of an interface are other ones by then, and the same apply moves those. Where the driver refuses they are
/// what they were.
#[test]
fn interrupts_that_came_with_channels_are_moved() {
    let live = with_channels();
    let irq = "proc/irq/24/smp_affinity_list";
    live.tree.write(irq, "0-15\n");
    live.tree.write("sys/devices/eth0/msi_irqs/24", "msix\n");
    live.tree.write("run/anew/24", "");
    live.tree.write("sys/devices/eth0/msi_irqs/42", "msix\n");
    live.tree.write("run/gone/42", "");
    let text = live.tree.read(PROFILE);
    live.tree.write(PROFILE, text.replace("\"irq.affinity\" = \"keep\"\n", ""));
    let (refused, first) = (live.copy(), live.copy());
    let ran = live.run(APPLY).expect(0);
    let gone = "gone     set /proc/irq/24/smp_affinity_list to 0-1,8-9: it was made anew";
    let moved = "done     set /proc/irq/24/smp_affinity_list to 0-1,8-9\n";
    assert!(ran.out.contains(gone) && ran.out.contains(moved), "{}", ran.out);
    assert!(ran.out.find(gone) < ran.out.find(moved));
    assert_eq!(live.tree.read(irq), "0-1,8-9\n");
    // The number of one that is no more may be another's tomorrow.
    assert!(!live.tree.read(STATE).contains("/proc/irq/42/"), "{}", live.tree.read(STATE));
    // What the driver makes of the interrupt is not put back with the channels: it is another one.
    let ran = live.run(&["revert"]);
    assert!(ran.out.contains("gone     set /proc/irq/24/smp_affinity_list to 0-15"), "{}", ran.out);
    assert!(!live.tree.read(STATE).contains("/proc/irq/24/"), "{}", live.tree.read(STATE));

    first.run(APPLY).expect(0);
    refused.fault(position(&first.calls(), "ethtool ") + 1, "fail");
    let ran = refused.run(APPLY).expect(1);
    assert!(ran.out.contains("not set  give eth0 2 channels") && ran.out.contains(moved), "{}", ran.out);
}

/// What a driver makes of the number is not left so: nobody would know it for ours.
#[test]
fn a_driver_may_make_another_number_of_channels() {
    let live = with_channels();
    live.tree.write("run/grant", "");
    let ran = live.run(APPLY).expect(1);
    let why = "channels: reads back as `combined 4 of 8`; it is given 6 again\n";
    assert!(ran.out.contains(why), "{}", ran.out);
    assert!(ran.out.contains("Still not in line"), "{}", ran.out);
    let calls = live.calls();
    assert!(position(&calls, "ethtool -L eth0 combined 2") < position(&calls, "ethtool -L eth0 combined 6"));
    assert_eq!(live.tree.read("run/eth0"), "6 8\n");
    live.run(&["revert"]).expect(0);
}

/// Of a profile that stays in force the timer moves what came with the old channels.
#[test]
fn interrupts_that_came_with_the_old_channels_are_moved_too() {
    let live = with_channels();
    let text = live.tree.read(PROFILE);
    live.tree.write(PROFILE, text.replace("'irq.channels' = 2\n", ""));
    live.run(APPLY).expect(0);
    live.tree.write(PROFILE, format!("{text}'power.cpu-dma-latency' = 10\n"));
    let probe = live.copy();
    probe.calls();
    probe.run(APPLY).expect(0);
    let number = position(&probe.calls(), "systemctl restart rtkvm-tune-cpu-dma-latency.service") + 1;
    live.fault(number, "fail");
    live.run(APPLY).expect(2);
    let calls = live.calls();
    assert!(position(&calls, "ethtool -L eth0 combined 6") < position(&calls, TIMER));
    assert_eq!(calls.last().map(String::as_str), Some(TIMER));
}

/// A run that is taken back where the driver does not go back with it: what was before is known still.
#[test]
fn a_value_that_is_not_put_back_stays_known() {
    let live = with_channels();
    let first = live.copy();
    first.run(APPLY).expect(0);
    let number = first.calls().len();
    // Both the last step, update-grub, and the first of putting back.
    live.tree.write("run/fault", format!("{number} fail\n{} fail\n", number + 1));
    let ran = live.run(APPLY).expect(2);
    assert!(ran.err.contains("is taken back, but for what is named as not set"), "{}", ran.err);
    assert!(!live.tree.at(JOURNAL).exists());
    assert_eq!(live.tree.read("run/eth0"), "2 8\n");
    live.calls();
    let ran = live.run(&["revert"]).expect(0);
    assert!(ran.out.contains("done     give eth0 6 channels"), "{}", ran.out);
    assert_eq!(live.tree.read("run/eth0"), "6 8\n");

    // The same on top of an earlier run: what the second left is not taken for somebody else's.
    first.calls();
    let text = first.tree.read(PROFILE).replace("'irq.channels' = 2", "'irq.channels' = 4");
    first.tree.write(PROFILE, format!("{text}'power.cpu-dma-latency' = 10\n"));
    let probe = first.copy();
    probe.run(APPLY).expect(0);
    let number = position(&probe.calls(), "systemctl restart rtkvm-tune-cpu-dma-latency.service") + 1;
    first.tree.write("run/fault", format!("{number} fail\n{} fail\n", number + 1));
    first.run(APPLY).expect(2);
    assert_eq!(first.tree.read("run/eth0"), "4 8\n");
    first.calls();
    first.run(&["revert"]).expect(0);
    assert_eq!(first.tree.read("run/eth0"), "6 8\n");
}

/// The same where the run was killed.
#[test]
fn a_recovery_tells_of_a_value_that_is_not_put_back() {
    let live = with_channels();
    let first = live.copy();
    first.run(APPLY).expect(0);
    live.fault(position(&first.calls(), "ethtool ") + 1, "kill-after");
    assert_eq!(live.run(APPLY).status, None);
    live.fault(1, "fail");
    let ran = live.run(&["recover"]).expect(1);
    assert!(ran.out.contains("not set  give eth0 6 channels"), "{}", ran.out);
    assert!(ran.out.contains(" is taken back, but for what is named above.\n"), "{}", ran.out);
    assert_eq!(live.tree.read("run/eth0"), "2 8\n");
    live.calls();
    live.run(&["revert"]).expect(0);
    assert_eq!(live.tree.read("run/eth0"), "6 8\n");
}

/// At a boot everything else is set all the same.
#[test]
fn without_ethtool_channels_are_left_to_the_administrator() {
    let live = with_channels();
    std::fs::remove_file(live.tree.at("usr/sbin/ethtool")).expect("there");
    let ran = live.run(&["apply", "--dry-run", PROFILE]);
    assert!(
        ran.out.contains("is not known: install the package ethtool, which tells and sets it"),
        "{}",
        ran.out
    );
    let ran = live.run(APPLY);
    assert!(live.tree.at(DROP_IN).exists(), "{}{}", ran.out, ran.err);
    let audit = live.run(&["verify", PROFILE]).out;
    let remedy = "mend by: by hand: /sys/class/net/eth0/channels is not known: install the package ethtool";
    assert!(audit.contains(remedy), "{audit}");
    live.run(&["apply", "--runtime", "--keep-going", PROFILE]).expect(0);
}

/// timeout(1) ends what asks a driver that does not answer.
#[test]
fn a_driver_that_does_not_answer_is_told() {
    let live = with_channels();
    live.tree.write("run/eth0", "silent 8\n");
    let plan = live.run(&["apply", "--dry-run", PROFILE]).expect(0).out;
    assert!(plan.contains("/sys/class/net/eth0/channels: Connection timed out"), "{plan}");
    let ran = live.run(APPLY);
    assert!(ran.expect(1).out.contains("Connection timed out"));
    assert!(!live.calls().iter().any(|call| call.starts_with("ethtool")), "what is put back is not known");
}

/// A bound whose unit does not run, or whose revert was killed in between, goes as well.
#[test]
fn a_bound_is_dropped_whether_its_unit_runs_or_not() {
    let applied = Live::new();
    let text = applied.tree.read(PROFILE);
    applied.tree.write(PROFILE, format!("{text}'power.cpu-dma-latency' = 10\n"));
    let first = applied.list();
    applied.run(APPLY).expect(0);
    assert!(applied.tree.at("run/bound").exists());
    applied.calls();
    let stopped = applied.copy();
    std::fs::remove_file(stopped.tree.at("run/bound")).expect("there");
    stopped.run(&["revert"]).expect(0);
    assert_eq!(changed(&first, &stopped.list()), [""; 0]);
    let number = position(&stopped.calls(), "systemctl stop rtkvm-tune-cpu-dma-latency*");

    // Taken back after a kill before the process was ended: the file is there again, and it runs.
    let killed = applied.copy();
    killed.fault(number + 1, "kill-before");
    assert_eq!(killed.run(&["revert"]).status, None);
    std::fs::remove_file(killed.tree.at("run/bound")).expect("there");
    killed.calls();
    killed.run(&["recover"]).expect(0);
    assert!(killed.tree.at("run/bound").exists());

    // The same for an apply, killed again while it is taken back: the file is gone, and the process must go too.
    let fresh = Live::new();
    fresh.tree.write(PROFILE, applied.tree.read(PROFILE));
    let probe = fresh.copy();
    probe.run(APPLY).expect(0);
    let number = position(&probe.calls(), "systemctl restart rtkvm-tune-cpu-dma-latency.service") + 1;
    fresh.fault(number, "kill-after");
    assert_eq!(fresh.run(APPLY).status, None);
    fresh.calls();
    let probe = fresh.copy();
    probe.run(&["recover"]).expect(0);
    let number = position(&probe.calls(), "systemctl stop rtkvm-tune-cpu-dma-latency*") + 1;
    fresh.fault(number, "kill-before");
    assert_eq!(fresh.run(&["recover"]).status, None);
    assert!(fresh.tree.at("run/bound").exists());
    fresh.calls();
    fresh.run(&["recover"]).expect(0);
    assert!(!fresh.tree.at("run/bound").exists());
    assert_eq!(changed(&first, &fresh.list()), [""; 0]);
}

/// A kernel that was started with `nowatchdog` takes no other value, and its arguments go all the same.
#[test]
fn a_value_that_cannot_be_put_back_keeps_no_revert() {
    let live = Live::new();
    let path = "proc/sys/kernel/soft_watchdog";
    live.tree.write(path, "1\n");
    let text = live.tree.read(PROFILE);
    live.tree.write(PROFILE, text.replace("\"watchdog.soft\" = \"keep\"\n", ""));
    live.run(APPLY).expect(0);
    assert_eq!(live.tree.read(path), "0\n");
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=write",
        "-e",
        "inject=write:error=EINVAL",
        "-P",
    ]);
    strace.arg(live.tree.at(path)).arg("chroot").arg(&live.tree.root);
    let ran =
        tool(strace.args(["/usr/bin/rtkvm-tune", "revert"]).env("PATH", "/usr/sbin:/usr/bin"), "strace");
    let ran = ran.expect(1);
    assert!(ran.out.contains("not set  set /proc/sys/kernel/soft_watchdog to 1: "), "{}", ran.out);
    assert!(ran.out.contains("\nReverted, but for what is named as not set: "), "{}", ran.out);
    assert!(!live.tree.at(DROP_IN).exists());
}
