//! Others that set the same: named before anything is written, and taken over on request.

use super::support::*;

const RT_CONF: &str = "etc/default/grub.d/60_rt-conf.cfg";
const MASK: &str = "etc/systemd/system/tuned.service";

/// Apply stops before it writes, in these words, and verify says them too.
#[track_caller]
fn stopped(tree: &Tree, words: &[&str], said: &[&str]) {
    let before = tree.list();
    let ran = tree.tune(&[&["apply"], words].concat()).expect(2);
    let audit = tree.tune(&["verify", words[0]]).expect(1).out;
    for said in said {
        assert!(ran.err.contains(said) && ran.err.contains("nothing was written"), "{said}: {}", ran.err);
        assert!(words.len() > 1 || audit.contains(said), "{said}: {audit}");
    }
    assert_eq!(changed(&before, &tree.list()), [""; 0]);
}

fn keep(tree: &Tree, name: &str) -> String {
    let profile = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    tree.note("keep.toml", format!("{profile}\n[knobs]\n\"{name}\" = \"keep\"\n"))
}

fn with_tuned() -> Tree {
    let tree = Tree::reference();
    tree.write("etc/tuned/active_profile", "realtime-virtual-host\n");
    tree.link(
        "etc/systemd/system/multi-user.target.wants/tuned.service",
        "/lib/systemd/system/tuned.service",
    );
    tree
}

#[test]
fn an_active_tuned_profile_is_a_choice() {
    let tree = with_tuned();
    let says = "TuneD starts at boot with profile realtime-virtual-host";
    let choice = ["`apply --take-over`", "`\"owners.tuned\" = \"keep\"` under [knobs]"];
    stopped(&tree, &[REFERENCE], &[says, choice[0], choice[1]]);
    for name in ["owners.tuned", "owners"] {
        let copy = tree.copy();
        copy.tune(&["apply", &keep(&copy, name)]).expect(0);
        assert!(!copy.at(MASK).exists());
    }
    let before = tree.list();
    let plan = tree.tune(&["apply", "--take-over", "--dry-run", REFERENCE]).expect(0).out;
    assert!(
        plan.contains("+ owners.tuned: mask of its unit") && !plan.contains("In the way of apply"),
        "{plan}"
    );
    assert!(plan.contains(&format!("+++ b/{MASK}\n@@ -0,0 +1 @@\n+/dev/null\n")), "{plan}");
    let ran = tree.tune(&["apply", "--take-over", REFERENCE]).expect(0).out;
    assert!(ran.starts_with("done     link /etc/systemd/system/tuned.service -> /dev/null\n"), "{ran}");
    let paths = changed(&before, &tree.list());
    assert!(
        paths.contains(&MASK.to_owned()) && !paths.iter().any(|path| path.contains("etc/tuned")),
        "{paths:?}"
    );
    // From now on it is a setting like any other.
    let before = tree.list();
    let again = tree.tune(&["apply", REFERENCE]).expect(0).out;
    assert!(!again.contains("tuned"), "{again}");
    assert_eq!(changed(&before, &tree.list()), [""; 0]);
    let ran = tree.tune(&["revert"]);
    assert!(
        matches!(ran.status, Some(0 | 1)) && std::fs::symlink_metadata(tree.at(MASK)).is_err(),
        "{ran:?}"
    );
}

#[test]
fn a_running_tuned_is_stopped_before_anything_is_set() {
    let tree = with_tuned();
    tree.write("proc/55/comm", "tuned\n");
    stopped(&tree, &[REFERENCE], &["TuneD is at work (PID 55) with profile realtime-virtual-host"]);
    let ran = tree.tune(&["apply", "--take-over", REFERENCE]).out;
    let first: Vec<_> = ran.lines().take(3).map(|line| &line[9..]).collect();
    let expected = [
        "link /etc/systemd/system/tuned.service",
        "run `systemctl daemon-reload`",
        "run `systemctl stop tuned.service`",
    ];
    assert!(first.iter().zip(expected).all(|(line, start)| line.starts_with(start)), "{ran}");
    // Off, or not to be started: nobody's business.
    for (path, text) in [("etc/tuned/active_profile", ""), ("proc/55/comm", "other\n")] {
        let tree = with_tuned();
        tree.write("proc/55/comm", "tuned\n");
        std::fs::remove_file(tree.at("etc/systemd/system/multi-user.target.wants/tuned.service"))
            .expect("there");
        tree.write(path, text);
        tree.tune(&["apply", REFERENCE]).expect(0);
    }
}

#[test]
fn what_stands_in_the_way_of_taking_over_is_told() {
    let tree = with_tuned();
    tree.write(MASK, "[Service]\n");
    stopped(&tree, &[REFERENCE, "--take-over"], &["is in the place of a mask: end TuneD by `tuned-adm off`"]);
    let tree = with_tuned();
    tree.write("proc/812/comm", "qemu-kvm\n");
    tree.write("proc/812/cmdline", "qemu-kvm\0-name\0guest=db\0");
    stopped(
        &tree,
        &[REFERENCE, "--take-over"],
        &["To stop it waits: it stalls CPUs", "guest db (PID 812) runs"],
    );
    tree.tune(&["apply", "--take-over", "--live", REFERENCE]).expect(0);
    for other in ["--runtime", "--trial"] {
        tree.tune(&["apply", "--take-over", other, REFERENCE]).expect(2);
    }
    let tree = Tree::reference();
    tree.write("etc/tuned/bootcmdline", "TUNED_BOOT_CMDLINE=\"skew_tick=1 isolcpus=3\"\n");
    stopped(
        &tree,
        &[REFERENCE],
        &["isolcpus=3 is given to every boot entry by /etc/tuned/bootcmdline", "empty its"],
    );
}

#[test]
fn rt_confs_drop_in_is_taken_over() {
    let tree = Tree::reference();
    // As it writes it: without a newline at its end.
    let text = "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet isolcpus=2-3 nohz_full=2-3\"";
    tree.write(RT_CONF, text);
    let says = "isolcpus=2-3 is set in /etc/default/grub.d/60_rt-conf.cfg, which rt-conf writes, as well";
    stopped(
        &tree,
        &[REFERENCE],
        &[says, "let `apply --take-over` remove that file", "\"cpu.isolcpus\" = \"keep\""],
    );
    tree.tune(&["apply", &keep(&tree, "cpu")]).expect(0);
    std::fs::remove_file(tree.at(DROP_IN)).expect("there");

    let plan = tree.tune(&["apply", "--take-over", "--dry-run", REFERENCE]).expect(0).out;
    assert!(plan.contains(&format!("--- a/{RT_CONF}\n+++ /dev/null\n")), "{plan}");
    let ran = tree.tune(&["apply", "--take-over", REFERENCE]).expect(0).out;
    assert!(
        ran.contains("done     remove /etc/default/grub.d/60_rt-conf.cfg\n") && ran.contains("`update-grub`"),
        "{ran}"
    );
    assert!(
        !tree.at(RT_CONF).exists() && tree.read(DROP_IN).contains("isolcpus=managed_irq,domain,2-7,10-15")
    );
    // A later apply has no say in it; a revert brings it back.
    tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(!tree.at(RT_CONF).exists());
    let ran = tree.tune(&["revert"]);
    assert!(matches!(ran.status, Some(0 | 1)), "{ran:?}");
    assert_eq!(tree.read(RT_CONF), text);
}

/// Which file it is, and whether ours would be in force beside it.
#[test]
fn a_foreign_argument_is_named_with_its_file() {
    let cloud = "etc/default/grub.d/50-cloudimg-settings.cfg";
    // It assigns the variable, and ours comes after it.
    let tree = Tree::reference();
    tree.write(cloud, "GRUB_CMDLINE_LINUX_DEFAULT=\"console=tty1 console=ttyS0\"\n");
    tree.tune(&["apply", REFERENCE]).expect(0);

    // The kernel takes the first isolcpus=: there is nothing to take over.
    let tree = Tree::reference();
    tree.write(cloud, "GRUB_CMDLINE_LINUX_DEFAULT=\"isolcpus=3\"\n");
    let says = "isolcpus=3 is set in /etc/default/grub.d/50-cloudimg-settings.cfg as well: take it out there, or leave it";
    stopped(&tree, &[REFERENCE], &[says]);
    stopped(&tree, &[REFERENCE, "--take-over"], &[says]);

    // The kernel takes the last irqaffinity=, which is ours.
    let tree = Tree::reference();
    tree.write(cloud, "GRUB_CMDLINE_LINUX_DEFAULT=\"irqaffinity=3\"\n");
    let says = "irqaffinity=3 is set in /etc/default/grub.d/50-cloudimg-settings.cfg as well";
    stopped(&tree, &[REFERENCE], &[says, "stand beside it by `apply --take-over`"]);
    tree.tune(&["apply", "--take-over", REFERENCE]).expect(0);
    let script = format!("{SOURCES}/tests/grub/mkconfig.sh");
    let mut mkconfig = std::process::Command::new("sh");
    tool(mkconfig.arg(script).arg(&tree.root), "grub-common, grub2-common and util-linux").expect(0);
    let text = tree.tune(&["verify", REFERENCE]).expect(3).out;
    assert!(text.contains("> irq.boot-affinity"), "{text}");
    tree.tune(&["apply", REFERENCE]).expect(0);
}

#[test]
fn a_smaller_ban_list_of_irqbalance_is_told() {
    let tree = Tree::reference();
    tree.write("proc/41/comm", "irqbalance\n");
    let plan = || tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    assert!(plan().contains("irqbalance (PID 41) moves interrupts as well; it leaves alone"));
    let told = |text: &str| {
        tree.write("etc/default/irqbalance", text);
        plan().contains(
            "irqbalance (PID 41) spares CPUs 2-7 only, by a variable in /etc/default/irqbalance, and moves \
                         interrupts to 10-15 again",
        )
    };
    assert!(told("IRQBALANCE_BANNED_CPULIST=2-7\n"));
    assert!(told("#x\nIRQBALANCE_BANNED_CPUS=000000fc\n"));
    assert!(!told("IRQBALANCE_BANNED_CPULIST=2-7,10-15\n") && !plan().contains("irqbalance"));
    tree.write("etc/default/irqbalance", "");
    tree.write("sys/devices/system/cpu/isolated", "2-7,10-15\n");
    assert!(!plan().contains("irqbalance"));
}
