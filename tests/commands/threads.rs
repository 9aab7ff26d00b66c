//! Threads of the kernel on isolated CPUs, which must run before the vCPUs.

use super::support::*;
use rtkvm_tune::formats::CpuSet;

/// Such threads of every CPU of the reference machine, rcub for all of them, and a process that took such a name.
fn with_threads() -> Tree {
    let tree = Tree::reference();
    for cpu in 0..16 {
        thread(&tree, 50_000 + cpu, &format!("ksoftirqd/{cpu}"), true, "0 0");
        thread(&tree, 50_100 + cpu, &format!("rcuc/{cpu}"), true, "1 1");
    }
    thread(&tree, 50_200, "rcub/0", true, "1 1");
    thread(&tree, 50_300, "ksoftirqd/5", false, "0 0");
    tree
}

/// `scheduled`: its priority and policy, as the kernel numbers them.
fn thread(tree: &Tree, pid: u32, name: &str, of_kernel: bool, scheduled: &str) {
    tree.write(&format!("proc/{pid}/comm"), format!("{name}\n"));
    tree.write(&stat(pid), line(pid, name, of_kernel, scheduled));
}

fn stat(pid: u32) -> String {
    format!("proc/{pid}/stat")
}

fn line(pid: u32, name: &str, of_kernel: bool, scheduled: &str) -> String {
    let flags = if of_kernel { 69_238_848 } else { 4_194_560 };
    let zeros = |count: usize| "0 ".repeat(count);
    let (a, b, c) = (zeros(10), zeros(12), zeros(11));
    format!(
        "{pid} ({name}) S 2 0 0 0 -1 {flags} {a}1 0 5 0 0 18446744073709551615 {b}17 0 {scheduled} {c}0\n"
    )
}

#[test]
fn are_scheduled_before_the_vcpus() {
    let tree = with_threads();
    let first = tree.list();
    let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    for (row, running, wanted) in [
        ("ksoftirqd 2-7,10-15", "OTHER", "FIFO 2"),
        ("rcuc 2-7,10-15", "FIFO 1", "FIFO 4"),
        ("rcub 0", "FIFO 1", "FIFO 4"),
    ] {
        let start = format!("~ sched.kernel-threads: {row} ");
        let line = plan.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{row}: {plan}"));
        assert!(line.contains(running) && line.ends_with(wanted), "{line}");
    }
    tree.tune(&["apply", REFERENCE]).expect(0);
    for cpu in 0..16 {
        let isolated = !matches!(cpu, 0 | 1 | 8 | 9);
        let [softirqs, rcu] = if isolated { ["2 1", "4 1"] } else { ["0 0", "1 1"] };
        let [one, other] = [50_000 + cpu, 50_100 + cpu];
        assert_eq!(tree.read(&stat(one)), line(one, &format!("ksoftirqd/{cpu}"), true, softirqs));
        assert_eq!(tree.read(&stat(other)), line(other, &format!("rcuc/{cpu}"), true, rcu));
    }
    assert_eq!(tree.read(&stat(50_200)), line(50_200, "rcub/0", true, "4 1"));
    assert_eq!(tree.read(&stat(50_300)), line(50_300, "ksoftirqd/5", false, "0 0"));
    let again = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    assert!(again.contains("\n= sched.kernel-threads: ksoftirqd 2-7,10-15 "), "{again}");

    // What took its time meanwhile is still the same thread; and it goes back.
    let ran = line(50_002, "ksoftirqd/2", true, "2 1").replacen("0 0 0 0", "0 7 0 9", 1);
    tree.write(&stat(50_002), &ran);
    tree.tune(&["revert"]).expect(0);
    let mut now = tree.list();
    assert!(tree.read(&stat(50_002)).ends_with(line(50_002, "ksoftirqd/2", true, "0 0").split_at(60).1));
    now.insert(stat(50_002), first[&stat(50_002)].clone());
    assert_eq!(changed(&first, &now), Vec::<String>::new());
}

#[test]
fn get_more_where_the_vcpus_have_more() {
    for (priority, softirqs, rcu) in [(50, 51, 53), (97, 98, 99), (98, 99, 99)] {
        let tree = with_threads();
        let profile = profile(&tree, priority);
        tree.tune(&["apply", &profile]).expect(0);
        let is = |pid, scheduled: String| tree.read(&stat(pid)).contains(&format!(" 17 0 {scheduled} "));
        assert!(is(50_002, format!("{softirqs} 1")) && is(50_102, format!("{rcu} 1")), "{priority}");
    }
    let tree = with_threads();
    let profile = profile(&tree, 99);
    let before = tree.list();
    let error = tree.tune(&["apply", &profile]).expect(2).err;
    assert!(error.contains("fifo-priority 99 leaves none") && error.contains("^^"), "{error}");
    assert_eq!(changed(&before, &tree.list()), Vec::<String>::new());
}

fn profile(tree: &Tree, priority: u32) -> String {
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let with = text.replacen("\nvcpus = 4", &format!("\nvcpus = 4\nfifo-priority = {priority}"), 1);
    assert_ne!(text, with);
    tree.note("priority.toml", with)
}

#[test]
fn are_not_for_other_kernels() {
    let tree = with_threads();
    tree.write("proc/sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.1\n");
    tree.write("sys/kernel/realtime", "0\n");
    let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    assert!(plan.contains("\n. sched.kernel-threads: ksoftirqd 2-7,10-15 "), "{plan}");
    assert!(plan.contains("threads with priorities on a PREEMPT_RT kernel only"), "{plan}");
    assert!(!plan.contains("b/proc/50002/stat"), "{plan}");
}

/// A thread that may be moved, with the CPUs that it may use.
fn free(tree: &Tree, pid: u32, name: &str, bound: bool, cpus: &str) {
    tree.write(&format!("proc/{pid}/comm"), format!("{name}\n"));
    // PF_KTHREAD, with PF_NO_SETAFFINITY or without.
    let flags = if bound { "69238848" } else { "2129984" };
    tree.write(&stat(pid), line(pid, name, true, "0 0").replace("69238848", flags));
    let mask = CpuSet::parse_kernel_list(cpus).expect("CPUs").to_mask();
    tree.write(
        &status(pid),
        format!(
            "Name:\t{name}\nUmask:\t0000\nPid:\t{pid}\nPPid:\t2\nCpus_allowed:\t{mask}\nCpus_allowed_list:\t{cpus}\n\
             voluntary_ctxt_switches:\t7\n"
        ),
    );
}

fn status(pid: u32) -> String {
    format!("proc/{pid}/status")
}

#[test]
fn that_can_be_moved_are_kept_off_the_isolated_cpus() {
    let tree = Tree::reference();
    let (knob, on) = ("sched.kernel-thread-affinity", "'sched.kernel-thread-affinity' = 'on'");
    assert!(states(&tree, "", knob).is_empty());
    assert_eq!(states(&tree, on, knob)[0].0, "not-applicable");
    free(&tree, 51_000, "rcu_preempt", false, "0-15");
    free(&tree, 51_001, "kswapd1", false, "8-15");
    free(&tree, 51_002, "far", false, "10-13");
    free(&tree, 51_003, "idle", false, "0-1");
    // Bound by the kernel, for one CPU on purpose, of a guest, of an interrupt.
    for (pid, name, bound, cpus) in [
        (51_004, "migration/4", true, "4"),
        (51_005, "own", false, "5"),
        (51_006, "vhost-812", false, "0-15"),
        (51_007, "irq/24-eth0", false, "0-15"),
    ] {
        free(&tree, pid, name, bound, cpus);
    }
    let before = tree.list();
    let profile = with_knobs(&tree, on);
    let plan = tree.tune(&["apply", "--dry-run", &profile]).expect(0).out;
    assert!(plan.contains("~ sched.kernel-thread-affinity: thread kswapd1 "), "{plan}");
    assert!(plan.contains("= sched.kernel-thread-affinity: thread idle "), "{plan}");
    tree.tune(&["apply", &profile]).expect(0);
    let cpus = |pid| {
        let text = tree.read(&status(pid));
        let line = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        line.expect("a list").to_owned()
    };
    let all: Vec<String> = (51_000..51_008).map(cpus).collect();
    assert_eq!(all, ["0-1,8-9", "8-9", "0-1,8-9", "0-1", "4", "5", "0-15", "0-15"]);
    assert!(tree.read(&status(51_000)).contains("Cpus_allowed:\t303\n"));

    // One that is started anew has the kernel's choice: that is drift.
    free(&tree, 51_000, "rcu_preempt", false, "0-15");
    assert!(states(&tree, on, knob).contains(&pair("differs", "0-1,8-9")));
    tree.tune(&["apply", "--runtime", &profile]).expect(0);
    assert_eq!(cpus(51_000), "0-1,8-9");

    // It counts its switches meanwhile, and goes back.
    let text = tree.read(&status(51_001)).replace("switches:\t7", "switches:\t9");
    tree.write(&status(51_001), &text);
    tree.tune(&["revert"]).expect(0);
    assert_eq!(cpus(51_001), "8-15");
    let changed = changed(&before, &tree.list());
    assert!(changed.iter().all(|path| path.contains("51001")), "{changed:?}");
}
