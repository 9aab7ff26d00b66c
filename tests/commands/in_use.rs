//! A machine in use: guests that run, and other programs that are at work on it.

use super::support::*;
use rtkvm_tune::engine::{Outcome, Report, left_open, moved_back};
use rtkvm_tune::facts::Facts;
use rtkvm_tune::host::Snapshot;
use rtkvm_tune::plan::restore::Past;
use rtkvm_tune::plan::{self, Scope};
use rtkvm_tune::profile;

const PAGES: &str = "sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages";
/// An interrupt of the reference machine that apply moves.
const IRQ: &str = "proc/irq/24/smp_affinity_list";

/// A process of the tree.
fn process(tree: &Tree, pid: u32, name: &str, words: &[&str]) {
    tree.write(&format!("proc/{pid}/comm"), format!("{name}\n"));
    tree.write(
        &format!("proc/{pid}/cmdline"),
        words.iter().map(|word| format!("{word}\0")).collect::<String>(),
    );
}

/// As libvirt starts it.
pub(crate) fn run_guest(tree: &Tree, name: &str) {
    let name = format!("guest={name},debug-threads=on");
    let words = ["/usr/bin/qemu-system-x86_64", "-name", &name, "-S", "-machine", "pc-q35-7.2,accel=kvm"];
    process(tree, 812, "qemu-system-x86", &words);
}

#[test]
fn what_disturbs_running_guests_waits() {
    let tree = Tree::reference();
    run_guest(&tree, "db");
    tree.write("sys/kernel/irq/24/actions", "vfio-msix[0](0000:3b:00.0)\n");
    let before = tree.list();
    let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    let reason = "guest db (PID 812) runs: stop them, or do it all the same by `apply --live`";
    for row in ["* memory.hugepages: node 1, 1GiB pages", "* irq.affinity: IRQ 24 "] {
        assert!(plan.contains(&format!("\n{row}")), "{row}: {plan}");
    }
    assert!(plan.contains(&format!("it stalls CPUs for a moment, and {reason}")), "{plan}");
    assert!(plan.contains(&format!("the interrupt is of a guest's device, and {reason}")), "{plan}");
    assert!(plan.contains(", 4 waiting for guests"), "{plan}");

    // The rest is done, and what waits is told.
    let ran = tree.tune(&["apply", REFERENCE]).expect(1);
    assert!(ran.out.contains("Still not in line") && ran.out.contains(reason), "{}", ran.out);
    let paths = changed(&before, &tree.list());
    for path in [PAGES, IRQ] {
        assert!(!paths.contains(&path.to_owned()), "{path}: {paths:?}");
    }
    for path in ["proc/irq/25/smp_affinity_list", DROP_IN, UNIT, GUEST] {
        assert!(paths.contains(&path.to_owned()), "{path}: {paths:?}");
    }
    assert!(tree.tune(&["verify", REFERENCE]).expect(1).out.contains(reason));
    // Nothing of a process is ever written.
    assert!(!paths.iter().any(|path| path.starts_with("proc/812")), "{paths:?}");

    tree.tune(&["apply", "--live", REFERENCE]).expect(0);
    assert_eq!((tree.read(PAGES).as_str(), tree.read(IRQ).as_str()), ("25\n", "8-9\n"));
    // What is right already waits for nobody.
    let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    assert!(!plan.contains("waiting for guests"), "{plan}");
}

/// What is put back disturbs as much as what is set.
#[test]
fn what_is_put_back_waits_for_running_guests_too() {
    let tree = Tree::reference();
    let first = tree.list();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let applied = tree.list();
    run_guest(&tree, "db");
    tree.write("sys/kernel/irq/24/actions", "vfio-msix[0](0000:3b:00.0)\n");
    let reason = "guest db (PID 812) runs: stop them, or do it all the same by";

    // A knob that is dropped.
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let kept = format!("{text}\n[knobs]\n\"memory.hugepages\" = \"keep\"\n\"irq.affinity\" = \"keep\"\n");
    let profile = tree.note("keep.toml", kept);
    let dropped = tree.copy();
    let ran = dropped.tune(&["apply", &profile]).expect(1).out;
    assert!(ran.contains(&format!("it stalls CPUs for a moment, and {reason} `apply --live`")), "{ran}");
    assert!(
        ran.contains(&format!("the interrupt is of a guest's device, and {reason} `apply --live`")),
        "{ran}"
    );
    let (was, is) = (|path| first.get(path), |path| applied.get(path));
    let now = dropped.list();
    assert_eq!((now.get(PAGES), now.get(IRQ)), (is(PAGES), is(IRQ)), "{ran}");
    let other = "proc/irq/25/smp_affinity_list";
    assert_eq!(now.get(other), was(other), "{ran}");
    dropped.tune(&["verify", &profile]).expect(1);
    dropped.tune(&["apply", "--live", &profile]).expect(0);
    let now = dropped.list();
    assert_eq!((now.get(PAGES), now.get(IRQ)), (was(PAGES), was(IRQ)));

    // A revert, and what it left it takes back later.
    let plan = tree.tune(&["revert", "--dry-run"]).expect(0).out;
    assert!(
        plan.contains(&format!("{reason} `revert --live`")) && plan.contains(" waiting for guests."),
        "{plan}"
    );
    let ran = tree.tune(&["revert"]).expect(1).out;
    assert!(
        ran.contains(&format!(
            "left     /{PAGES}: it stalls CPUs for a moment, and {reason} `revert --live`"
        )),
        "{ran}"
    );
    let now = tree.list();
    assert_eq!((now.get(PAGES), now.get(IRQ)), (is(PAGES), is(IRQ)), "{ran}");
    assert!(!tree.at(DROP_IN).exists() && !tree.at(UNIT).exists());
    let stopped = tree.copy();
    std::fs::remove_dir_all(stopped.at("proc/812")).expect("there");
    for (tree, words) in [(&tree, &["revert", "--live"][..]), (&stopped, &["revert"])] {
        let ran = tree.tune(words).expect(0).out;
        assert!(ran.contains("Reverted: as before the first apply."), "{ran}");
        let different = changed(&first, &tree.list());
        let ours = |path: &&String| !path.starts_with("proc/812") && !path.ends_with("irq/24/actions");
        assert_eq!(different.iter().filter(ours).collect::<Vec<_>>(), [""; 0]);
    }
}

#[test]
fn a_new_definition_waits_for_the_guests_next_start() {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    run_guest(&tree, "rt0");
    let note = "guest rt0 runs: its new definition takes effect at its next start";
    assert!(!tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out.contains(note));
    tree.write(
        GUEST,
        tree.read(GUEST).replace("<vcpu placement=", "<on_crash>preserve</on_crash><vcpu placement="),
    );
    assert!(tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out.contains(note));
}

#[test]
fn only_guests_are_taken_for_guests() {
    let waits = |name: &str, words: &[&str]| {
        let tree = Tree::reference();
        process(&tree, 7, name, words);
        let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
        let file = tree.note("a.capture", tree.tune(&["capture"]).expect(0).out);
        let recorded = tune(&["apply", "--dry-run", REFERENCE, "--root", &file]).expect(0).out;
        assert_eq!(recorded.replace(&file, tree.name()), plan, "{name}: a capture plans otherwise");
        let guest = "guest ";
        plan.split("and guest ")
            .nth(1)
            .map(|rest| format!("{guest}{}", rest.split(" (").next().unwrap_or_default()))
    };
    let some = |name: &str| Some(format!("guest {name}"));
    assert_eq!(waits("qemu-kvm", &["/usr/libexec/qemu-kvm", "-name", "a,process=b"]), some("a"));
    assert_eq!(waits("qemu:rt0", &["qemu-system-x86_64", "-name", "guest=rt0"]), some("rt0"));
    assert_eq!(waits("kvm", &["kvm", "-m", "1G"]), some("unnamed"));
    // libvirt asks an emulator what it can do.
    assert_eq!(
        waits("qemu-system-x86", &["qemu-system-x86_64", "-S", "-machine", "none,accel=kvm:tcg"]),
        None
    );
    for other in ["qemu-nbd", "qemu-ga", "kvm-nx-lpage-re", "virtqemud"] {
        assert_eq!(waits(other, &[other]), None, "{other}");
    }
}

/// What a capture tells of processes is only who concerns us.
#[test]
fn other_processes_are_not_recorded() {
    let tree = Tree::reference();
    run_guest(&tree, "db");
    process(&tree, 900, "secret-job", &["secret-job", "--password"]);
    let text = tree.tune(&["capture"]).expect(0).out;
    assert!(
        text.contains("\n/proc/: 812\n") && text.contains("\n/proc/812/comm [0644]: qemu-system-x86\n"),
        "{text}"
    );
    assert!(!text.contains("secret-job") && !text.contains("/proc/900"), "{text}");
}

#[test]
fn services_at_work_are_named() {
    let tree = Tree::reference();
    process(&tree, 41, "irqbalance", &["/usr/sbin/irqbalance", "--foreground"]);
    process(&tree, 40, "numad", &["numad"]);
    for words in [&["apply", "--dry-run", REFERENCE][..], &["verify", REFERENCE]] {
        let text = tree.tune(words).out;
        assert!(
            text.contains("\n  numad (PID 40) moves processes") && text.contains("irqbalance (PID 41) "),
            "{text}"
        );
    }
}

/// The name of an area keeps all of its knobs.
#[test]
fn an_area_is_kept_by_its_name() {
    let tree = Tree::reference();
    let profile = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let note = |knobs: &str| tree.note("keep.toml", format!("{profile}\n[knobs]\n{knobs}\n"));
    let plan = |knobs: &str| tree.tune(&["apply", "--dry-run", &note(knobs)]).expect(0).out;
    let text = plan("irq = \"keep\"\n\"memory.hugepages\" = \"keep\"");
    assert!(!text.contains(" irq.") && text.contains(" memory.hugepages-boot"), "{text}");
    assert!(!text.contains(" memory.hugepages:"), "{text}");
    assert!(plan("\"irq.affinity\" = \"keep\"").contains(" irq.default-affinity"));
    let refused = |knobs: &str| tree.tune(&["verify", &note(knobs)]).expect(2).err;
    assert!(refused("irqs = \"keep\"").contains("there is no area `irqs`"), "{}", refused("irqs = \"keep\""));
    assert!(refused("irqs = \"keep\"").contains("did you mean `irq`?"));
    assert!(refused("irq = \"off\"").contains("area `irq` has no value `off`"));
    let listed = tune(&["explain", "irq"]).expect(0).out;
    assert!(listed.lines().count() >= 3 && listed.lines().all(|line| line.starts_with("irq.")), "{listed}");
}

/// The plan after an apply finds interrupts elsewhere that it had set and read back a moment ago.
#[test]
fn interrupts_that_are_moved_back_are_told() {
    let tree = Tree::reference();
    process(&tree, 41, "irqbalance", &["irqbalance"]);
    let snapshot = Snapshot::from_capture(&tree.tune(&["capture"]).expect(0).out).expect("a capture");
    let text = std::fs::read(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let parsed = profile::parse("p.toml", &text).unwrap_or_else(|_| panic!("a profile"));
    let facts = Facts::read(&snapshot).expect("facts");
    let (after, _) = plan::make(&snapshot, facts, &parsed, Scope::Everything, &Past::default())
        .unwrap_or_else(|_| panic!("a plan"));
    let report = |irq: u32, outcome: Outcome| {
        let step = format!("set /proc/irq/{irq}/smp_affinity_list to 0-1");
        Report { step, outcome }
    };
    let reports =
        [report(24, Outcome::Done), report(2, Outcome::Done), report(25, Outcome::Impossible("no".into()))];
    let told = moved_back(&reports, &after).expect("told");
    assert_eq!(told, "Moved since they were set: IRQ 24; irqbalance (PID 41) moves interrupts\n\n");
    assert_eq!(moved_back(&reports[1..], &after), None);
    // One that was refused explains itself, and no other.
    let open = |label: &str| {
        left_open(&reports, after.items.iter().find(|item| item.label == label).expect("there"))
    };
    assert_eq!((open("IRQ 24"), open("IRQ 25"), open("IRQ 42")), (true, false, true));
}
