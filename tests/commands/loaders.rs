//! Boot loaders other than GRUB of Debian: arguments on lines of others, in trees that their own tools made where such a
//! tool is to be had (kernel-install, bootctl, ostree, grub-editenv, grub-mkconfig), and in their format elsewhere.

use super::support::*;
use rtkvm_tune::formats::boot_entry;
use rtkvm_tune::formats::grub;
use rtkvm_tune::formats::kernel_args::KernelArgs;
use std::process::Command;

const ID: &str = "0123456789abcdef0123456789abcdef";
const CMDLINE: &str = "etc/kernel/cmdline";
const GRUBENV: &str = "boot/grub2/grubenv";
/// The first and the last argument that the reference profile asks for.
const OURS: [&str; 2] = ["isolcpus=managed_irq,domain,2-7,10-15", "hugepages=0:25,1:25"];

/// The reference machine without its boot loader.
fn bare() -> Tree {
    let tree = Tree::reference();
    for gone in ["etc/default/grub", "etc/debian_version", "boot/grub/grub.cfg"] {
        std::fs::remove_file(tree.at(gone)).expect("removed");
    }
    let _ = std::fs::remove_dir_all(tree.at("boot/grub"));
    tree.write("etc/machine-id", format!("{ID}\n"));
    tree
}

fn entry(name: &str) -> String {
    format!("boot/loader/entries/{ID}-{name}.conf")
}

fn add_entry(tree: &Tree, version: &str, options: &str) {
    let text = format!(
        "title Fedora Linux ({version}) 40 (Server Edition)\nversion {version}\nlinux /vmlinuz-{version}\n\
         initrd /initramfs-{version}.img $tuned_initrd\noptions {options}\ngrub_users $grub_users\n\
         grub_arg --unrestricted\ngrub_class fedora\n"
    );
    tree.write(&entry(version), text);
    tree.chmod(&entry(version), 0o644);
}

const OLD: &str = "6.8.5-301.fc40.x86_64";
const NEW: &str = "6.10.0-1.fc40.x86_64";
const RESCUE: &str = "0-rescue";
const LINE: &str = "root=UUID=1  ro rd.lvm.lv=a/b \"odd=x y\" rhgb quiet";

/// GRUB with boot loader entries, in Fedora's format.
fn fedora() -> Tree {
    let tree = bare();
    tree.write("etc/os-release", "ID=fedora\nPRETTY_NAME=\"Fedora Linux 40\"\n");
    tree.write("etc/default/grub", "GRUB_ENABLE_BLSCFG=true\nGRUB_CMDLINE_LINUX=\"rhgb quiet\"\n");
    tree.write("boot/grub2/grub.cfg", "insmod blscfg\nblscfg\n");
    add_entry(&tree, OLD, LINE);
    add_entry(&tree, NEW, LINE);
    add_entry(&tree, RESCUE, LINE);
    tree
}

fn options(tree: &Tree, path: &str) -> KernelArgs {
    boot_entry::options(&tree.read(path))
}

/// Whether a line has all of ours, once each and at its end, and before them exactly these words.
#[track_caller]
fn has_ours(line: &KernelArgs, foreign: &str) {
    let words: Vec<_> = line.tokens().collect();
    let theirs = KernelArgs::parse(foreign);
    let theirs: Vec<_> = theirs.tokens().collect();
    assert_eq!(words[..theirs.len()], theirs[..], "{line}");
    for ours in OURS {
        assert_eq!(words.iter().filter(|word| **word == ours).count(), 1, "{ours}: {line}");
    }
    let at = |word| words.iter().position(|other| *other == word).expect("there");
    assert_eq!(at("hugepagesz=1G") + 1, at(OURS[1]), "{line}");
}

fn has_none(line: &KernelArgs) -> bool {
    !line.tokens().any(|word| OURS.contains(&word) || word.starts_with("nohz") || word.starts_with("huge"))
}

/// The machine after a boot with this line.
fn boot(tree: &Tree, line: &KernelArgs) {
    tree.start(&format!("BOOT_IMAGE=(hd0,gpt2)/vmlinuz {line}\n"));
    tree.write("sys/devices/system/cpu/isolated", "2-7,10-15\n");
    tree.write("sys/devices/system/cpu/nohz_full", "2-7,10-15\n");
}

#[test]
fn entries_get_what_is_asked_and_rescue_entries_nothing() {
    let tree = fedora();
    let before = tree.list();
    let ran = tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(!ran.out.contains("grub"), "no program is needed: {}", ran.out);
    for version in [OLD, NEW] {
        has_ours(&options(&tree, &entry(version)), LINE);
    }
    let line = options(&tree, &entry(NEW)).to_string();
    assert_eq!(tree.read(&entry(NEW)).replace(&line, LINE), tree_text(&before, &entry(NEW)));
    assert_eq!(tree.read(&entry(RESCUE)), tree_text(&before, &entry(RESCUE)));
    // What new kernels get, made from the newest entry: no variable of GRUB's in it.
    has_ours(&KernelArgs::parse(&tree.read(CMDLINE)), &LINE.replace("  ", " "));

    let text = tree.tune(&["verify", REFERENCE]).expect(3).out;
    assert!(
        text.contains("GRUB (boot loader entries)") && text.contains("In line but for a reboot"),
        "{text}"
    );
    assert_eq!(tree.tune(&["apply", REFERENCE]).expect(0).out, "Nothing to do. A reboot is needed.\n");
    boot(&tree, &options(&tree, &entry(NEW)));
    tree.tune(&["verify", REFERENCE]).expect(0);
    boot(&tree, &KernelArgs::parse(tree_text(&before, "proc/cmdline").trim()));
    for path in ["proc/cmdline", "sys/devices/system/cpu/isolated", "sys/devices/system/cpu/nohz_full"] {
        tree.write(path, tree_text(&before, path));
    }
    tree.tune(&["revert"]).expect(0);
    let left: Vec<_> = changed(&before, &tree.list());
    assert_eq!(left, [""; 0]);
}

/// Others than root see neither /boot/grub2 nor the entries: what runs is judged by itself.
#[test]
fn an_ordinary_user_is_told_what_cannot_be_seen() {
    let tree = fedora();
    tree.tune(&["apply", REFERENCE]).expect(0);
    boot(&tree, &options(&tree, &entry(NEW)));
    for dir in ["boot/grub2", "boot/loader/entries"] {
        tree.chmod(dir, 0o700);
    }
    std::fs::set_permissions(tree.beside(""), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("mode");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PROGRAM]);
    command.args(["verify", REFERENCE, "--root", tree.name()]).current_dir(SOURCES);
    let text = tool(&mut command, "util-linux").expect(0).out;
    assert!(text.contains("GRUB (boot loader entries)"), "{text}");
    assert!(text.contains("/boot/loader/entries cannot be read: Permission denied"), "{text}");
    assert!(!text.contains("cpu.isolcpus"), "{text}");
}

fn tree_text(listing: &Listing, path: &str) -> String {
    match listing.get(path) {
        Some(Node::File { text, .. }) => text.clone(),
        other => panic!("{path}: {other:?}"),
    }
}

/// A kernel that came and one that went, and words of the operator: none of that is lost or keeps what is ours.
#[test]
fn a_revert_finds_ours_wherever_it_went() {
    let tree = fedora();
    tree.write(CMDLINE, format!("{LINE}\n"));
    tree.tune(&["apply", REFERENCE]).expect(0);
    add_entry(&tree, "6.11.0-1.fc40.x86_64", tree.read(CMDLINE).trim());
    std::fs::remove_file(tree.at(&entry(OLD))).expect("removed");
    let text = tree
        .read(&entry(NEW))
        .replace("rhgb quiet", "debug rhgb")
        .replace("grub_class", "# mine\ngrub_class");
    tree.write(&entry(NEW), text);
    // As it is, so that the next apply has nothing to do.
    assert_eq!(tree.tune(&["apply", REFERENCE]).expect(0).out, "Nothing to do. A reboot is needed.\n");
    let shown = tree.tune(&["revert", "--dry-run"]).expect(0).out;
    assert!(shown.contains("6.11.0"), "{shown}");
    tree.tune(&["revert"]).expect(0);
    assert_eq!(options(&tree, &entry(NEW)).to_string(), LINE.replace("rhgb quiet", "debug rhgb"));
    assert!(tree.read(&entry(NEW)).contains("# mine\n"));
    assert_eq!(options(&tree, &entry("6.11.0-1.fc40.x86_64")).to_string(), LINE);
    assert_eq!(tree.read(CMDLINE), format!("{LINE}\n"));
    assert!(!tree.at(&entry(OLD)).exists());
    assert_eq!(tree.tune(&["revert"]).expect(0).out, "Nothing to revert.\n");
}

#[test]
fn what_is_no_longer_asked_goes_and_what_was_replaced_comes_back() {
    let tree = fedora();
    add_entry(&tree, OLD, "root=UUID=1 isolcpus=3 skew_tick=1 quiet");
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    let said = format!("isolcpus=3 is set in /{} as well", entry(OLD));
    assert!(
        ran.err.contains(&said) && ran.err.contains("`apply --take-over` put ours in its place"),
        "{}",
        ran.err
    );
    tree.tune(&["apply", "--take-over", REFERENCE]).expect(0);
    let line = options(&tree, &entry(OLD));
    // The operator's skew_tick is as it is wanted: it stays where it is, and theirs.
    has_ours(&line, "root=UUID=1 skew_tick=1 quiet");
    let profile = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let kept = tree.note("kept.toml", format!("{profile}\n[knobs]\n\"cpu.isolcpus\" = \"keep\"\n"));
    tree.tune(&["apply", &kept]).expect(0);
    let line = options(&tree, &entry(OLD));
    assert_eq!(line.values("isolcpus"), [Some("3")], "{line}");
    assert_eq!(options(&tree, &entry(NEW)).values("isolcpus"), [], "nothing was replaced there");
    tree.tune(&["revert"]).expect(0);
    // Put back at once, byte for byte, after an apply alone.
    let tree = fedora();
    add_entry(&tree, OLD, "root=UUID=1 isolcpus=3 skew_tick=1 quiet");
    let before = tree.list();
    tree.tune(&["apply", "--take-over", REFERENCE]).expect(0);
    tree.tune(&["revert"]).expect(0);
    assert_eq!(changed(&before, &tree.list()), [""; 0]);
}

fn editenv(tree: &Tree, words: &[&str]) -> String {
    let mut command = Command::new("grub-editenv");
    tool(command.arg(tree.at(GRUBENV)).args(words), "grub-common").expect(0).out
}

/// RHEL 8: the entries name variables of the environment block, which grub-editenv writes and reads.
#[test]
fn kernelopts_are_edited_in_the_environment_block() {
    let tree = fedora();
    for version in [OLD, NEW, RESCUE] {
        add_entry(&tree, version, "$kernelopts $tuned_params");
    }
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    assert!(
        ran.err.contains("/boot/grub2/grubenv, where the entries' $kernelopts are: does not exist"),
        "{}",
        ran.err
    );
    editenv(&tree, &["create"]);
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    assert!(ran.err.contains("has no kernelopts, which the boot entries name"), "{}", ran.err);
    editenv(&tree, &["set", "saved_entry=x", &format!("kernelopts={LINE}"), "boot_success=0"]);
    let before = tree.list();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let value = |tree: &Tree| {
        let text = editenv(tree, &["list"]);
        let found = text.lines().find_map(|line| line.strip_prefix("kernelopts=")).expect("set");
        KernelArgs::parse(found)
    };
    has_ours(&value(&tree), LINE);
    assert_eq!(tree.read(GRUBENV).len(), 1024);
    assert_eq!(options(&tree, &entry(NEW)).to_string(), "$kernelopts $tuned_params");
    assert!(!tree.at(CMDLINE).exists(), "a variable of GRUB's is nothing for kernel-install");
    tree.tune(&["verify", REFERENCE]).expect(3);
    // GRUB writes to the block at each boot: what is ours goes all the same.
    editenv(&tree, &["set", "boot_success=1"]);
    tree.tune(&["revert"]).expect(0);
    assert_eq!(value(&tree).to_string(), LINE);
    assert_eq!(changed(&before, &tree.list()), [GRUBENV]);
    assert!(editenv(&tree, &["list"]).contains("boot_success=1"));

    // What does not fit is refused before anything is written.
    editenv(&tree, &["set", &format!("kernelopts={LINE} x={}", "y".repeat(720))]);
    let before = tree.list();
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    assert!(ran.err.contains("bytes with these arguments; GRUB takes 1024"), "{}", ran.err);
    assert_eq!(changed(&before, &tree.list()), [""; 0]);
}

/// What TuneD gives every entry by a variable is another owner's.
#[test]
fn tuned_params_are_somebody_elses() {
    let tree = fedora();
    add_entry(&tree, NEW, "root=UUID=1 $tuned_params");
    editenv(&tree, &["create"]);
    editenv(&tree, &["set", "tuned_params=isolcpus=5 skew_tick=1"]);
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    let file = entry(NEW);
    let said = format!("isolcpus=5 is set in what /{file} takes from elsewhere");
    assert!(ran.err.contains(&said), "{}", ran.err);
    editenv(&tree, &["set", "tuned_params="]);
    tree.tune(&["apply", REFERENCE]).expect(0);
    has_ours(&options(&tree, &file), "root=UUID=1 $tuned_params");
}

/// Entries that kernel-install makes and bootctl reads.
#[test]
fn systemd_boot_and_kernel_install() {
    let tree = bare();
    let install = |tree: &Tree, version: &str| {
        let script = format!("{SOURCES}/tests/loaders/kernel-install.sh");
        tool(Command::new("sh").arg(script).arg(&tree.root).arg(version), "systemd").expect(0);
    };
    let list = |tree: &Tree| {
        let script = format!("{SOURCES}/tests/loaders/bootctl.sh");
        let ran =
            tool(Command::new("sh").arg(script).arg(&tree.root), "systemd-boot and util-linux").expect(0);
        let entries: Vec<serde_json::Value> =
            ran.out.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        let entries = entries.into_iter().flat_map(|found| match found {
            serde_json::Value::Array(all) => all,
            one => vec![one],
        });
        entries
            .map(|entry| KernelArgs::parse(entry["options"].as_str().expect("options")))
            .collect::<Vec<_>>()
    };
    tree.write(CMDLINE, "root=UUID=1 ro quiet\n");
    install(&tree, "6.1.0-1-rt-amd64");
    let before = tree.list();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let machine = format!("systemd.machine_id={ID}");
    for line in list(&tree) {
        has_ours(&line, &format!("root=UUID=1 ro quiet {machine}"));
    }
    has_ours(&KernelArgs::parse(&tree.read(CMDLINE)), "root=UUID=1 ro quiet");
    // A new kernel has them by kernel-install, and nothing is left to do.
    install(&tree, "6.1.0-2-rt-amd64");
    let lines = list(&tree);
    assert_eq!(lines.len(), 2);
    for line in &lines {
        OURS.iter()
            .for_each(|ours| assert_eq!(line.tokens().filter(|word| word == ours).count(), 1, "{line}"));
    }
    let text = tree.tune(&["verify", REFERENCE]).expect(3).out;
    assert!(text.contains("systemd-boot"), "{text}");
    assert_eq!(tree.tune(&["apply", REFERENCE]).expect(0).out, "Nothing to do. A reboot is needed.\n");
    tree.tune(&["revert"]).expect(0);
    let lines = list(&tree);
    assert!(lines.iter().all(has_none), "{lines:?}");
    let new: Vec<_> =
        changed(&before, &tree.list()).into_iter().filter(|path| !path.contains("6.1.0-2")).collect();
    assert_eq!(new, [""; 0]);
    // Without /etc/kernel/cmdline one is made: no machine id in it, which copies of the machine would share.
    std::fs::remove_file(tree.at(CMDLINE)).expect("removed");
    tree.tune(&["apply", REFERENCE]).expect(0);
    has_ours(&KernelArgs::parse(&tree.read(CMDLINE)), "root=UUID=1 ro quiet");
    assert!(!tree.read(CMDLINE).contains("machine_id"));
    tree.tune(&["revert"]).expect(0);
    assert!(!tree.at(CMDLINE).exists());
}

/// The deployment that is booted by default gets them, an upgrade carries them on, and a rollback has none.
#[test]
fn ostree_carries_them_on() {
    let tree = bare();
    let ostree = |tree: &Tree, words: &[&str]| {
        let script = format!("{SOURCES}/tests/loaders/ostree.sh");
        let mut command = Command::new("sh");
        command.arg(script).arg(words[0]).arg(&tree.root).args(&words[1..]);
        tool(&mut command, "ostree").expect(0);
    };
    ostree(&tree, &["init", "root=UUID=1", "quiet", "rw"]);
    ostree(&tree, &["upgrade"]);
    let of = |number: u32| format!("boot/loader/entries/ostree-{number}-fixture.conf");
    let before = tree.list();
    tree.tune(&["apply", REFERENCE]).expect(0);
    let names = |tree: &Tree| {
        let names = std::fs::read_dir(tree.at("boot/loader/entries")).expect("readable");
        names
            .map(|name| name.expect("readable").file_name().into_string().expect("UTF-8"))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&tree).len(), 2);
    let line = options(&tree, &of(2));
    assert!(OURS.iter().all(|ours| line.tokens().any(|word| word == *ours)), "{line}");
    assert!(line.to_string().starts_with("root=UUID=1 quiet rw ostree="), "{line}");
    assert!(has_none(&options(&tree, &of(1))), "the way back stays as it is");
    let text = tree.tune(&["verify", REFERENCE]).expect(3).out;
    assert!(text.contains("; ostree"), "{text}");

    // Its own upgrade takes them from the entry.
    let made = tree.copy();
    ostree(&made, &["upgrade"]);
    let entry = names(&made).into_iter().max().expect("an entry");
    let line = options(&made, &format!("boot/loader/entries/{entry}"));
    assert!(OURS.iter().all(|ours| line.tokens().filter(|word| word == ours).count() == 1), "{line}");
    assert_eq!(made.tune(&["apply", REFERENCE]).expect(0).out, "Nothing to do. A reboot is needed.\n");
    made.tune(&["revert"]).expect(0);
    for entry in names(&made) {
        let line = options(&made, &format!("boot/loader/entries/{entry}"));
        assert!(has_none(&line), "{entry}: {line}");
    }

    tree.tune(&["revert"]).expect(0);
    assert_eq!(changed(&before, &tree.list()), [""; 0]);
    tree.write("run/ostree/staged-deployment", "x");
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    assert!(ran.err.contains("a deployment is staged"), "{}", ran.err);
}

/// SUSE has no directory of drop-ins: our words stand in its own file, which the real grub-mkconfig reads.
#[test]
fn suse_has_them_in_its_own_settings() {
    let tree = bare();
    tree.write("etc/os-release", "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n");
    let default = "# Comments stay.\nGRUB_DISTRIBUTOR=\nGRUB_CMDLINE_LINUX_DEFAULT=\"splash=silent quiet\"\n\
                   GRUB_CMDLINE_LINUX=\"\"\nGRUB_TERMINAL=\"gfxterm\"\n";
    tree.write("etc/default/grub", default);
    let before = tree.list();
    let generate = |tree: &Tree| {
        let script = format!("{SOURCES}/tests/grub/mkconfig.sh");
        tool(Command::new("sh").arg(script).arg(&tree.root), "grub-common, grub2-common and util-linux")
            .expect(0);
        std::fs::create_dir_all(tree.at("boot/grub2")).expect("made");
        std::fs::copy(tree.at("boot/grub/grub.cfg"), tree.at("boot/grub2/grub.cfg")).expect("copied");
    };
    let ran = tree.tune(&["apply", REFERENCE]).expect(0);
    assert!(ran.out.contains("grub2-mkconfig -o /boot/grub2/grub.cfg"), "{}", ran.out);
    let text = tree.read("etc/default/grub");
    let (head, rest) = text.split_once("splash=silent quiet ").expect("its own words first");
    let (_, tail) = rest.split_once("\"\n").expect("an end");
    assert_eq!(format!("{head}splash=silent quiet\"\n{tail}"), default);
    generate(&tree);
    let entries = grub::entries(&tree.read("boot/grub2/grub.cfg"));
    assert_eq!(entries.len(), 3);
    for entry in entries {
        match entry.recovery {
            true => assert!(has_none(&entry.args), "{}", entry.args),
            false => has_ours(&entry.args, "root=/dev/vda1 ro splash=silent quiet"),
        }
    }
    let text = tree.tune(&["verify", REFERENCE]).expect(3).out;
    assert!(text.contains("GRUB (SUSE)"), "{text}");
    assert_eq!(tree.tune(&["apply", REFERENCE]).expect(0).out, "Nothing to do. A reboot is needed.\n");
    let ran = tree.tune(&["revert"]).expect(0);
    assert!(ran.out.contains("grub2-mkconfig"), "{}", ran.out);
    assert_eq!(tree.read("etc/default/grub"), tree_text(&before, "etc/default/grub"));

    tree.write("etc/default/grub", default.replace("splash=silent quiet", "$EXTRA"));
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    assert!(ran.err.contains("only a shell can tell what GRUB_CMDLINE_LINUX_DEFAULT is"), "{}", ran.err);
}

/// Loaders that are known and not written: what to do is said, nothing is written, and the rest can be applied.
#[test]
fn others_are_named_with_what_to_do() {
    type Files = &'static [(&'static str, &'static str)];
    let cases: [(Files, &str, &str); 7] = [
        (&[("boot/extlinux/extlinux.conf", "LABEL a\n")], "extlinux", "U_BOOT_PARAMETERS"),
        (&[("boot/firmware/cmdline.txt", "a\n")], "Raspberry Pi firmware", "/boot/firmware/cmdline.txt"),
        (&[("efi/EFI/Linux/a.efi", "x")], "unified kernel images", "kernel-install add-all"),
        (&[("etc/os-release", "ID=ubuntu-core\n")], "Ubuntu Core", "snap set system"),
        (&[("etc/zipl.conf", "x")], "zipl", "grubby --update-kernel=ALL"),
        (
            &[("etc/os-release", "ID_LIKE=\"suse\"\n"), ("usr/sbin/transactional-update", "x")],
            "GRUB (SUSE, transactional)",
            "transactional-update grub.cfg",
        ),
        (&[("boot/other", "x")], "boot loader unknown", "is that mounted?"),
    ];
    for (files, name, remedy) in cases {
        let tree = bare();
        files.iter().for_each(|(path, text)| tree.write(path, text));
        let before = tree.list();
        let ran = tree.tune(&["apply", REFERENCE]).expect(2);
        assert!(
            ran.err.contains(remedy) && ran.err.contains("boot-loader = \"manual\""),
            "{name}: {}",
            ran.err
        );
        assert_eq!(changed(&before, &tree.list()), [""; 0], "{name}");
        let plan = tree.tune(&["apply", "--dry-run", REFERENCE]).expect(0).out;
        assert!(plan.contains(&format!("; {name}\n")) && plan.contains(OURS[0]), "{name}: {plan}");
        let ran = tree.tune(&["apply", "--trial", REFERENCE]).expect(2);
        assert!(ran.err.contains("no trial is possible"), "{name}: {}", ran.err);
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is() {
    type Break = fn(&Tree);
    let cases: [(&str, Break); 3] = [
        ("has no entry of a Linux kernel but rescue entries", |tree| {
            [OLD, NEW].iter().for_each(|name| std::fs::remove_file(tree.at(&entry(name))).expect("removed"));
        }),
        ("/etc/kernel/cmdline cannot be given kernel arguments: it has comments", |tree| {
            tree.write(CMDLINE, "# mine\nroot=x\n");
        }),
        ("/boot is mounted read-only", |tree| {
            let boot = "36 35 98:0 / /boot ro,relatime shared:1 - ext4 /dev/sda1 ro\n";
            tree.write("proc/self/mountinfo", boot);
        }),
    ];
    for (why, change) in cases {
        let tree = fedora();
        change(&tree);
        let before = tree.list();
        let ran = tree.tune(&["apply", REFERENCE]).expect(2);
        assert!(ran.err.contains(why), "{why}: {}", ran.err);
        assert_eq!(changed(&before, &tree.list()), [""; 0], "{why}");
    }
    let tree = fedora();
    let ran = tree.tune(&["apply", "--trial", REFERENCE]).expect(2);
    assert!(ran.err.contains("and this is GRUB (boot loader entries)"), "{}", ran.err);
    // As long as the kernel cuts off.
    let tree = fedora();
    add_entry(&tree, OLD, &format!("root=x y={}", "y".repeat(1800)));
    let ran = tree.tune(&["apply", REFERENCE]).expect(2);
    assert!(ran.err.contains("the kernel command line would have"), "{}", ran.err);
}

/// Killed or refused at every file that takes its name: the tree is the old one after `recover`.
#[test]
fn a_kill_between_two_entries_is_taken_back() {
    let words = ["apply", REFERENCE, "--root"];
    let count = {
        let tree = fedora();
        let (_, calls) = strace(&["-e", "trace=renameat"], &[&words[..], &[tree.name()]].concat());
        calls.iter().filter(|call| call.name == "renameat").count()
    };
    let untouched = fedora().list();
    let mut in_the_midst = 0;
    // The last one is that of the state, after which all is done.
    for at in 1..count {
        for fault in ["signal=KILL", "error=EIO"] {
            let tree = fedora();
            let inject = format!("inject=renameat:{fault}:when={at}");
            strace(&["-e", "trace=renameat", "-e", &inject], &[&words[..], &[tree.name()]].concat());
            let some = |path: &str| tree.at(path).exists() && tree.read(path).contains(OURS[0]);
            let edited = [entry(OLD), entry(NEW), CMDLINE.into()].iter().filter(|path| some(path)).count();
            in_the_midst += usize::from((1..3).contains(&edited));
            tree.tune(&["recover"]).expect(0);
            assert_eq!(changed(&untouched, &tree.list()), [""; 0], "{fault} {at}");
        }
    }
    assert!(in_the_midst >= 2, "never between two entries: {in_the_midst}");
}
