//! `apply` in a tree.

use super::support::*;
use rtkvm_tune::formats::grub;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

const NODES: &str = "sys/devices/system/node";

fn pages(node: u32) -> String {
    format!("{NODES}/node{node}/hugepages/hugepages-1048576kB/nr_hugepages")
}

/// The interrupts of the reference machine that apply moves, and where to.
fn moved() -> Vec<(String, &'static str)> {
    let at = |irq: &u32| format!("proc/irq/{irq}/smp_affinity_list");
    let near = [1, 4, 8, 9, 12, 25, 45].iter().map(|irq| (at(irq), "0-1\n"));
    let far = [24].iter().map(|irq| (at(irq), "8-9\n"));
    let free = [42, 43, 44].iter().map(|irq| (at(irq), "0-1,8-9\n"));
    near.chain(far).chain(free).collect()
}

/// The mount of the pages, and the link that enables it.
const MOUNT: &str = "etc/systemd/system/dev-hugepages1G.mount";
const MOUNT_WANTS: &str = "etc/systemd/system/sysinit.target.wants/dev-hugepages1G.mount";

/// The values under /proc/sys that the recorded kernel has otherwise.
const SYSCTLS: [(&str, &str); 6] = [
    ("proc/sys/kernel/hung_task_timeout_secs", "600\n"),
    ("proc/sys/kernel/sched_rt_runtime_us", "-1\n"),
    ("proc/sys/kernel/soft_watchdog", "0\n"),
    ("proc/sys/kernel/timer_migration", "0\n"),
    ("proc/sys/vm/compaction_proactiveness", "0\n"),
    ("proc/sys/vm/stat_interval", "10\n"),
];

/// The masks of the workqueues.
fn workqueues(listing: &Listing) -> Vec<String> {
    let is_mask = |path: &&String| path.contains("/workqueue/") && path.ends_with("/cpumask");
    listing.keys().filter(is_mask).cloned().collect()
}

/// Whether a file tells how a thread is scheduled; tests/commands/threads.rs is about those.
fn is_thread(path: &str) -> bool {
    path.starts_with("proc/") && path.ends_with("/stat")
}

#[test]
fn changes_what_is_planned_and_nothing_else() {
    let tree = Tree::reference();
    let before = tree.list();
    let ran = tree.tune(&["apply", REFERENCE]).expect(0);
    assert_eq!(ran.err, "");
    let after = tree.list();

    let mut expected: Vec<String> = moved().into_iter().map(|(path, _)| path).collect();
    expected.push("proc/irq/default_smp_affinity".into());
    expected.extend([pages(0), pages(1)]);
    expected.extend(SYSCTLS.map(|(path, _)| path.to_owned()));
    expected.extend(workqueues(&before));
    let threads: Vec<_> = changed(&before, &after).into_iter().filter(|path| is_thread(path)).collect();
    expected.extend(threads.iter().cloned());
    let made = [
        DROP_IN,
        "etc/libvirt",
        "etc/libvirt/qemu",
        GUEST,
        "etc/rtkvm-tune",
        KEPT_PROFILE,
        "etc/systemd",
        "etc/systemd/system",
        MOUNT,
        "etc/systemd/system/rtkvm-tune-irq.service",
        "etc/systemd/system/rtkvm-tune-irq.timer",
        "etc/udev",
        "etc/udev/rules.d",
        "etc/udev/rules.d/90-rtkvm-tune.rules",
        UNIT,
        "etc/systemd/system/multi-user.target.wants",
        WANTS,
        "etc/systemd/system/sysinit.target.wants",
        MOUNT_WANTS,
    ];
    expected.extend(made.map(str::to_owned));
    expected.sort();
    assert_eq!(changed(&before, &after), expected);

    // What was there keeps its mode and gets the value.
    let value = |path: &str, text: &str| {
        let Some(Node::File { mode, .. }) = before.get(path) else { panic!("{path} was not there") };
        assert_eq!(after[path], Node::File { mode: *mode, text: text.into() }, "{path}");
    };
    moved().iter().for_each(|(path, text)| value(path, text));
    value("proc/irq/default_smp_affinity", "303\n");
    (0..2).for_each(|node| value(&pages(node), "25\n"));
    SYSCTLS.iter().for_each(|(path, text)| value(path, text));
    workqueues(&before).iter().for_each(|path| value(path, "303\n"));

    // What is new has the planned mode, whatever the umask.
    for path in made {
        match &after[path] {
            Node::Dir { mode } => assert_eq!(*mode, 0o755, "{path}"),
            Node::Link { target } => {
                assert!([WANTS, MOUNT_WANTS].contains(&path), "{path}");
                assert_eq!(target, &format!("../{}", path.rsplit('/').next().expect("a name")));
            }
            Node::File { mode, .. } => {
                let private = path == GUEST;
                assert_eq!(*mode, if private { 0o600 } else { 0o644 }, "{path}");
            }
        }
    }
    let profile = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    assert_eq!(tree.read(KEPT_PROFILE), profile);
    assert_eq!(tree.read(GUEST), tune(&["render", REFERENCE, "--root", tree.name()]).expect(0).out);
    assert!(tree.read(UNIT).contains(
        "\nExecStart=/usr/bin/rtkvm-tune recover --wait 300\nExecStart=/usr/bin/rtkvm-tune apply --runtime --keep-going --wait 300 \
                /etc/rtkvm-tune/profile.toml\n"
    ));
    assert!(tree.read(DROP_IN).contains(" isolcpus=managed_irq,domain,2-7,10-15 "));
    assert_eq!(
        std::fs::read_dir(tree.beside("")).expect("readable").count(),
        1,
        "something is beside the root"
    );
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let of_umask = |umask: &str| {
        let tree = Tree::reference();
        let script = format!("umask {umask}; exec \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh", PROGRAM, "apply", REFERENCE, "--root", tree.name()]);
        tool(shell.current_dir(SOURCES), "dash").expect(0);
        tree.list()
    };
    assert_eq!(changed(&of_umask("0000"), &of_umask("0077")), [""; 0]);
}

#[test]
fn our_files_get_their_mode_and_owner() {
    use std::os::unix::fs::MetadataExt;
    let tree = Tree::reference();
    let owner = |path: &str| {
        let meta = std::fs::metadata(tree.at(path)).expect("there");
        (meta.uid(), meta.gid())
    };
    tree.write("mine", "");
    let mine = owner("mine");
    for (path, mode) in [(DROP_IN, 0o600), (KEPT_PROFILE, 0o666), (UNIT, 0o664), (GUEST, 0o400)] {
        tree.write(path, "<!-- old -->\n");
        tree.chmod(path, mode);
        // Only root can give a file away; for others it was theirs before.
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(tree.at(path), Some(1000), Some(1000)).expect("given away");
        }
    }
    tree.tune(&["apply", "--take-over", REFERENCE]).expect(0);
    for (path, mode) in [(DROP_IN, 0o644), (KEPT_PROFILE, 0o644), (UNIT, 0o644), (GUEST, 0o600)] {
        assert_ne!(tree.read(path), "<!-- old -->\n", "{path}");
        let meta = std::fs::metadata(tree.at(path)).expect("there");
        assert_eq!((meta.permissions().mode() & 0o7777, owner(path)), (mode, mine), "{path}");
    }
}

#[test]
fn runs_no_program() {
    let tree = Tree::reference();
    let words = ["apply", REFERENCE, "--root", tree.name()];
    let (ran, calls) = strace(&["-e", "trace=execve,execveat,fork,vfork,clone,clone3,%network"], &words);
    ran.expect(0);
    assert_eq!(calls.len(), 1, "{calls:#?}");
    assert_eq!(calls[0].name, "execve");
}

#[test]
fn a_second_apply_writes_nothing() {
    for (machine, profile) in MACHINES.iter().filter(|(machine, _)| machine.ends_with(".capture")) {
        let tree = Tree::of(machine);
        tree.tune(&["apply", profile]).expect(0);
        let before = (tree.list(), stamps(&tree.root));
        let options = ["-e", "trace=%file,%desc,%process,%network,fchmod,fchown"];
        let (ran, calls) = strace(&options, &["apply", profile, "--root", tree.name()]);
        let ran = ran.expect(0);
        assert!(ran.out.contains("update-grub"), "{machine}: {}", ran.out);
        let end = "\nNothing to do but what is left to you. A reboot is needed.\n";
        assert!(ran.out.contains(end), "{machine}: {}", ran.out);
        for call in &calls {
            assert!(!call.opens_to_write(), "{machine}: {}", call.text);
            for word in
                ["rename", "unlink", "mkdir", "symlink", "chmod", "chown", "truncate", "sync", "mknod"]
            {
                assert!(!call.name.contains(word), "{machine}: {}", call.text);
            }
        }
        assert!(calls.iter().any(|call| call.name == "flock"), "not even the lock?");
        assert_eq!((tree.list(), stamps(&tree.root)), before, "{machine}");
        let plan = tree.tune(&["apply", "--dry-run", profile]).expect(0).out;
        assert!(!plan.contains("\n--- "), "{machine}: {plan}");
    }
}

/// update-grub for the machine in a tree, by the real grub-mkconfig.
fn update_grub(tree: &Tree) {
    let script = format!("{SOURCES}/tests/grub/mkconfig.sh");
    tool(Command::new("sh").arg(script).arg(&tree.root), "grub-common, grub2-common and util-linux")
        .expect(0);
}

/// The machine as it is after a boot with its generated configuration: the kernel's own words.
fn boot(tree: &Tree, cpus: &str) {
    let entries = grub::entries(&tree.read("boot/grub/grub.cfg"));
    let normal = entries.iter().find(|entry| !entry.recovery).expect("an entry");
    tree.start(&format!("BOOT_IMAGE=/boot/vmlinuz {}\n", normal.args));
    tree.write("sys/devices/system/cpu/isolated", format!("{cpus}\n"));
    tree.write("sys/devices/system/cpu/nohz_full", format!("{cpus}\n"));
}

#[test]
fn verify_follows_the_machine_to_its_next_boot() {
    let tree = Tree::reference();
    let verify = |status| tree.tune(&["verify", REFERENCE]).expect(status).out;
    verify(1);
    tree.tune(&["apply", REFERENCE]).expect(0);
    let text = verify(1);
    assert!(text.contains("+ cpu.isolcpus"), "{text}");
    assert!(text.contains("Differs: 10 of "), "{text}");

    update_grub(&tree);
    let text = verify(3);
    assert!(text.contains("> cpu.isolcpus"), "{text}");
    assert!(text.contains("In line but for a reboot: 10 of "), "{text}");
    let again = tree.tune(&["apply", REFERENCE]).expect(0).out;
    assert_eq!(again, "Nothing to do. A reboot is needed.\n");

    boot(&tree, "2-7,10-15");
    let text = verify(0);
    assert!(text.contains("In line: all "), "{text}");
    assert_eq!(tree.tune(&["apply", REFERENCE]).expect(0).out, "Nothing to do. No reboot is needed.\n");
    tree.tune(&["apply", "--dry-run", "--exit-code", REFERENCE]).expect(0);

    // The argument is there, and the kernel did not take it: no further reboot helps.
    tree.write("sys/devices/system/cpu/isolated", "\n");
    let text = verify(1);
    assert!(
        text.contains("the kernel did not accept it: /sys/devices/system/cpu/isolated is empty"),
        "{text}"
    );
}

/// A capture holds all that an audit looks at, from the untouched machine to the tuned one.
#[test]
fn a_capture_is_audited_as_its_machine() {
    let tree = Tree::reference();
    let (file, quirk) = (tree.note("a.capture", ""), "etc/default/grub.d/50-other.cfg");
    let audit = |root: &str, status| {
        let text = tune(&["verify", REFERENCE, "--root", root]).expect(status).out;
        text.replace(root, "MACHINE")
    };
    let compare = |words: &[&str], status| {
        let words = [&["capture"], words, &["-o", &file]].concat();
        tree.tune(&words).expect(0);
        assert_eq!(audit(&file, status), audit(tree.name(), status), "{words:?}");
        std::fs::read_to_string(&file).expect("readable")
    };
    let both = |status| [compare(&[REFERENCE], status), compare(&[], status)];
    tree.write(quirk, "GRUB_TIMEOUT=1\n");
    tree.write(
        "etc/libvirt/qemu/other.xml",
        "<domain><name>other</name><secret/><memory>1</memory></domain>\n",
    );
    both(1);
    tree.tune(&["apply", REFERENCE]).expect(0);
    for text in both(1) {
        for path in [DROP_IN, KEPT_PROFILE, UNIT, GUEST, quirk] {
            assert!(text.contains(&format!("\n/{path} [0")), "{path}: {text}");
        }
        assert!(text.contains(&format!("\n/{WANTS} -> ../rtkvm-tune.service\n")), "{text}");
        // Of other guests what they take, and nothing more.
        assert!(text.contains("<name>other</name><memory>1</memory>") && !text.contains("secret"), "{text}");
    }
    update_grub(&tree);
    both(3);
    boot(&tree, "2-7,10-15");
    both(0);
    // Without a profile to plan for, of the guest there is what it takes; the rest is what it was.
    tree.write(KEPT_PROFILE, "none");
    let text = tree.tune(&["capture"]).expect(0).out;
    assert!(text.contains("<name>rt0</name>") && !text.contains("/dev/vg0/rt0"), "{text}");
    for path in [DROP_IN, KEPT_PROFILE, UNIT, WANTS] {
        assert!(text.contains(&format!("\n/{path} ")), "{path}: {text}");
    }
}

#[test]
fn a_boot_without_its_pages_waits_for_the_unit() {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    update_grub(&tree);
    boot(&tree, "2-7,10-15");
    // As the kernel starts: no pages, interrupts anywhere.
    for path in [pages(0), pages(1)] {
        tree.write(&path, "0\n");
    }
    tree.write("proc/irq/1/smp_affinity_list", "0-7\n");
    tree.tune(&["verify", REFERENCE]).expect(1);
    let before = tree.list();
    tree.tune(&["apply", "--runtime", KEPT_IN_TREE.replace("TREE", tree.name()).as_str()]).expect(0);
    let expected = [String::from("proc/irq/1/smp_affinity_list"), pages(0), pages(1)];
    assert_eq!(changed(&before, &tree.list()), expected);
    tree.tune(&["verify", REFERENCE]).expect(0);
}

/// The profile that apply keeps for the boot unit.
const KEPT_IN_TREE: &str = "TREE/etc/rtkvm-tune/profile.toml";

#[test]
fn runtime_only_sets_attributes() {
    let tree = Tree::reference();
    let before = tree.list();
    tree.tune(&["apply", "--runtime", REFERENCE]).expect(0);
    let paths = changed(&before, &tree.list());
    let attribute =
        |path: &String| ["proc/irq/", "proc/sys/", "sys/"].iter().any(|dir| path.starts_with(dir));
    assert!(paths.iter().all(attribute), "{paths:?}");
    assert_eq!(paths.iter().filter(|path| attribute(path)).count(), 26, "{paths:?}");
}

fn keep(ids: &[&str]) -> String {
    let profile = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let lines: String = ids.iter().map(|id| format!("\"{id}\" = \"keep\"\n")).collect();
    format!("{profile}\n[knobs]\n{lines}")
}

const BOOT_KNOBS: [&str; 10] = [
    "cpu.nohz",
    "watchdog.soft-boot",
    "watchdog.nmi-boot",
    "cpu.isolcpus",
    "cpu.nohz-full",
    "cpu.rcu-nocbs",
    "cpu.skew-tick",
    "irq.boot-affinity",
    "memory.hugepages-boot",
    "sched.psi",
];

#[test]
fn a_kept_knob_is_left_alone() {
    let tree = Tree::reference();
    let profile = tree.note("keep.toml", keep(&["irq.affinity"]));
    let before = tree.list();
    tree.tune(&["apply", &profile]).expect(0);
    let paths = changed(&before, &tree.list());
    assert!(!paths.iter().any(|path| path.ends_with("smp_affinity_list")), "{paths:?}");
    assert!(
        paths.contains(&DROP_IN.to_owned()) && paths.contains(&"proc/irq/default_smp_affinity".to_owned())
    );
    assert!(!tree.tune(&["verify", &profile]).expect(1).out.contains("irq.affinity:"));
}

/// What nothing asks for goes, a kept knob's too: the machine has it as before us. With the last the file goes, and the
/// directory that was made for it.
#[test]
fn the_drop_in_has_what_is_asked_for() {
    let tree = Tree::reference();
    std::fs::remove_dir(tree.at("etc/default/grub.d")).expect("empty");
    tree.tune(&["apply", REFERENCE]).expect(0);
    let profile = tree.note("keep.toml", keep(&BOOT_KNOBS));
    let before = tree.list();
    tree.tune(&["apply", &profile]).expect(0);
    assert_eq!(changed(&before, &tree.list()), ["etc/default/grub.d", DROP_IN, KEPT_PROFILE]);
    assert!(!tree.at("etc/default/grub.d").exists());

    tree.write(DROP_IN, "GRUB_CMDLINE_LINUX_DEFAULT=\"${GRUB_CMDLINE_LINUX_DEFAULT} nosmt\"\n");
    let plan = tree.tune(&["apply", "--dry-run", &profile]).expect(0).out;
    assert!(plan.contains("\n- boot.arguments: nosmt "), "{plan}");
    assert!(plan.contains(", 1 to remove, "), "{plan}");
    assert!(plan.contains(&format!("--- a/{DROP_IN}\n+++ /dev/null\n")), "{plan}");
    let audit = tree.tune(&["verify", &profile]).expect(1).out;
    assert!(audit.contains("\n- boot.arguments: nosmt "), "{audit}");
    let before = tree.list();
    let ran = tree.tune(&["apply", &profile]).expect(0);
    assert!(ran.out.contains(&format!("done     remove /{DROP_IN}\n")), "{}", ran.out);
    assert_eq!(changed(&before, &tree.list()), [DROP_IN], "the directory is another's");
    // What does not exist is not asked for again.
    assert!(!tree.tune(&["apply", "--dry-run", &profile]).expect(0).out.contains(DROP_IN));
    assert!(!tree.at(DROP_IN).exists());
}

#[test]
fn a_manual_boot_loader_gets_no_drop_in() {
    let tree = Tree::reference();
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let text = text.replace("boot-loader = \"auto\"", "boot-loader = \"manual\"");
    for loader in [true, false] {
        if !loader {
            std::fs::remove_file(tree.at("etc/default/grub")).expect("removed");
        }
        let profile = tree.note("manual.toml", &text);
        let ran = tree.tune(&["apply", &profile]).expect(0);
        assert!(!tree.at(DROP_IN).exists());
        assert!(ran.out.contains("\nKernel arguments to add to the boot loader by hand\n"), "{}", ran.out);
        for argument in
            ["isolcpus=managed_irq,domain,2-7,10-15", "hugepages=0:25,1:25", "irqaffinity=0-1,8-9"]
        {
            assert!(ran.out.contains(argument), "{argument}: {}", ran.out);
        }
        assert_eq!(tree.read(&pages(0)), "25\n");
    }
}

#[test]
fn one_run_at_a_time() {
    use nix::fcntl::{Flock, FlockArg};
    let tree = Tree::reference();
    let before = tree.list();
    let file = std::fs::File::open(&tree.root).expect("there");
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("free");
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    assert!(ran.err.contains(&format!("another rtkvm-tune is at work on {}", tree.name())), "{}", ran.err);
    assert_eq!((ran.out.as_str(), tree.list() == before), ("", true));
    tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0);
    tree.tune(&["verify", REFERENCE]).expect(1);
    drop(lock);
    tree.tune(&["apply", REFERENCE]).expect(0);
}

/// A run that waited for another goes by the profile that is there when its turn comes.
#[test]
fn the_profile_is_read_under_the_lock() {
    use nix::fcntl::{Flock, FlockArg};
    let tree = Tree::reference();
    let file = std::fs::File::open(&tree.root).expect("there");
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("free");
    let profile = tree.note("late.toml", "no profile yet\n");
    let mut waits = command(&["apply", "--wait", "60", &profile, "--root", tree.name()]);
    let mut waits = waits.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    // It asks for the lock 20 times a second.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(waits.try_wait().expect("a child").is_none(), "it did not wait");
    tree.note("late.toml", std::fs::read(format!("{SOURCES}/{REFERENCE}")).expect("readable"));
    drop(lock);
    assert_eq!(waits.wait().expect("a child").code(), Some(0));
    assert!(tree.at(DROP_IN).exists());
}

/// What would make our arguments void, or change their meaning, is refused before anything is written.
#[test]
fn foreign_settings_of_the_same_arguments_are_refused() {
    let assigns = "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n";
    let cases = [
        (
            "etc/default/grub.d/10-dpdk.cfg",
            "GRUB_CMDLINE_LINUX=\"hugepages=1024\"\n",
            "hugepages=1024 is set in",
        ),
        (
            "etc/default/grub.d/10-pages.cfg",
            "GRUB_CMDLINE_LINUX=\"hugepagesz=1G hugepages=8\"\n",
            "hugepagesz=1G is set in",
        ),
        ("etc/default/grub.d/10-cpus.cfg", "GRUB_CMDLINE_LINUX=\"isolcpus=4-5\"\n", "isolcpus=4-5 is set in"),
        ("etc/default/grub.d/zz-cloud.cfg", assigns, "would not reach the kernel"),
        (
            "etc/default/grub.d/10-init.cfg",
            "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet -- splash\"\n",
            "would not reach the kernel",
        ),
    ];
    for (path, text, said) in cases {
        let tree = Tree::reference();
        tree.write(path, text);
        let before = tree.list();
        let ran = tree.tune(&["apply", REFERENCE]).expect(2);
        assert!(ran.err.contains("nothing was written") && ran.err.contains(said), "{path}: {}", ran.err);
        let after = changed(&before, &tree.list());
        assert!(after.is_empty(), "{after:?}");
        let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
        assert!(plan.contains("\nIn the way of apply\n") && plan.contains(said), "{plan}");
    }
    // Others' pages of another size, and arguments that may be repeated, are no conflict.
    let tree = Tree::reference();
    tree.write(
        "etc/default/grub.d/10.cfg",
        "GRUB_CMDLINE_LINUX=\"hugepagesz=2M hugepages=512 console=ttyS0\"\n",
    );
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let text =
        text.replace("# kernel-arguments = [\"crashkernel=512M\"]", "kernel-arguments = [\"console=tty0\"]");
    let profile = tree.note("console.toml", &text);
    tree.tune(&["apply", &profile]).expect(0);
    let plan = tree.tune(&["apply", "--dry-run", &profile]).expect(0).out;
    assert!(!plan.contains("In the way"), "{plan}");
}

/// The operator's boot loader is judged by what it will do next, and never written.
#[test]
fn a_manual_boot_loader_keeps_its_drop_in() {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let profile =
        tree.note("manual.toml", text.replace("boot-loader = \"auto\"", "boot-loader = \"manual\""));
    let before = tree.list();
    tree.tune(&["apply", &profile]).expect(0);
    assert_eq!(changed(&before, &tree.list()), [KEPT_PROFILE]);
}

/// Before Linux 5.16 a count for each node reads as 0, so the boot unit reserves the pages alone.
#[test]
fn an_old_kernel_is_not_given_counts_for_each_node() {
    let tree = Tree::reference();
    tree.write("proc/sys/kernel/osrelease", "5.15.0-1032-realtime\n");
    let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
    assert!(
        plan.contains(" default_hugepagesz=1G hugepagesz=1G\n") && !plan.contains("hugepages=0:"),
        "{plan}"
    );
    tree.tune(&["apply", REFERENCE]).expect(0);
    assert_eq!(tree.read(&pages(1)), "25\n");
}

/// A kernel without CONFIG_NO_HZ_FULL is not asked for another boot, and not called different for ever.
#[test]
fn what_the_kernel_was_built_without_is_not_applicable() {
    let tree = Tree::reference();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let ours = tree.read(DROP_IN);
    let arguments = ours.lines().last().and_then(|line| line.split_once("} ")).expect("ours").1;
    let line = format!("quiet {}\n", arguments.trim_end_matches('"'));
    tree.start(&line);
    tree.write("boot/grub/grub.cfg", format!("menuentry 'Debian' {{\n linux /vmlinuz {line}}}\n"));
    tree.write("sys/devices/system/cpu/isolated", "2-7,10-15\n");
    std::fs::remove_file(tree.at("sys/devices/system/cpu/nohz_full")).expect("removed");
    let ran = tree.tune(&["verify", REFERENCE]).expect(0);
    assert!(ran.out.contains("the running kernel was built without it"), "{}", ran.out);
    // One that has it and did not take it is different, and no boot would mend that.
    tree.write("sys/devices/system/cpu/nohz_full", "\n");
    let ran = tree.tune(&["verify", REFERENCE]).expect(1);
    assert!(ran.out.contains("the kernel did not accept it"), "{}", ran.out);
    assert!(tree.tune(&["apply", REFERENCE]).expect(1).out.contains("No reboot is needed."));
}
