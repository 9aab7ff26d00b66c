//! A trial boot, with the real grub-mkconfig and grub-editenv; GRUB and the kernel are played.

use super::support::*;
use rtkvm_tune::formats::grubenv::Environment;
use rtkvm_tune::formats::{grub, grub_menu};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const SCRIPT: &str = "etc/grub.d/99_rtkvm-tune-trial";
pub(crate) const RECORD: &str = "var/lib/rtkvm-tune/trial.json";
const TRIAL_UNIT: &str = "etc/systemd/system/rtkvm-tune-trial.service";
const ENTRY: &str = "rtkvm-tune-trial";
const GRUBENV: &str = "boot/grub/grubenv";
const CFG: &str = "boot/grub/grub.cfg";
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
const CMDLINE: &str = "proc/cmdline";
const ROOT: &str = "22 1 254:1 / / rw,noatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n";

/// The reference machine with GRUB on a plain disk, as it runs after a boot.
pub(crate) fn machine() -> Tree {
    let tree = Tree::reference();
    tree.write("proc/self/mountinfo", ROOT);
    tree.link("sys/dev/block/254:1", "../../devices/pci0000:00/0000:00:04.0/virtio1/block/vda/vda1");
    update_grub(&tree);
    editenv(&tree, &["create"]);
    tree.write(BOOT_ID, "first\n");
    boot(&tree, "first");
    tree
}

fn update_grub(tree: &Tree) {
    let script = format!("{SOURCES}/tests/grub/mkconfig.sh");
    tool(Command::new("sh").arg(script).arg(&tree.root), "grub-common, grub2-common and util-linux")
        .expect(0);
}

fn editenv(tree: &Tree, words: &[&str]) {
    tool(Command::new("grub-editenv").arg(tree.at(GRUBENV)).args(words), "grub-common").expect(0);
}

fn once(tree: &Tree) -> Option<String> {
    let block = std::fs::read(tree.at(GRUBENV)).expect("readable");
    Environment::parse(&block).expect("a block").get("next_entry").map(str::to_owned)
}

/// What is left to the operator of a tree: update-grub and grub-reboot.
fn arm(tree: &Tree) {
    update_grub(tree);
    editenv(tree, &["set", &format!("next_entry={ENTRY}")]);
}

/// A boot as GRUB and the kernel do it: the entry asked for once, else the default; and the boot unit's work.
fn boot(tree: &Tree, id: &str) {
    let text = tree.read(CFG);
    assert!(grub_menu::boots_once(&text));
    let default = once(tree).unwrap_or(grub_menu::default(&text, None).expect("known"));
    if once(tree).is_some() {
        editenv(tree, &["set", "next_entry="]);
    }
    let menu = grub_menu::menu(&text);
    let (kernel, args) = grub_menu::chosen(&menu, &default).expect("an entry").linux().expect("Linux");
    tree.start(&format!("BOOT_IMAGE={kernel} {args}\n"));
    tree.write(BOOT_ID, format!("{id}\n"));
    for (file, name) in [("isolated", "isolcpus"), ("nohz_full", "nohz_full")] {
        let value = args.values(name).first().copied().flatten().unwrap_or_default();
        let cpus = value.trim_start_matches("managed_irq,domain,");
        tree.write(&format!("sys/devices/system/cpu/{file}"), format!("{cpus}\n"));
    }
}

fn command_line(tree: &Tree) -> String {
    tree.read(CMDLINE)
}

fn verify(tree: &Tree, status: i32) -> String {
    tree.tune(&["verify", REFERENCE]).expect(status).out
}

fn confirm(tree: &Tree, words: &[&str], status: i32) -> Ran {
    tree.tune(&[&["confirm"], words].concat()).expect(status)
}

const AUTOMATIC: &[&str] = &["--automatic", "--within", "0"];

/// A machine whose next boot is the trial of the reference profile.
fn armed() -> Tree {
    let tree = machine();
    tree.tune(&["apply", "--trial", REFERENCE]).expect(0);
    arm(&tree);
    tree
}

fn has_no_trial(tree: &Tree) {
    for path in [SCRIPT, RECORD, TRIAL_UNIT] {
        assert!(!tree.at(path).exists(), "{path} is left");
    }
}

#[test]
fn a_trial_leaves_the_default_entry() {
    let tree = machine();
    let before = grub::entries(&tree.read(CFG));
    let plan = tree.tune(&["apply", "--trial", "--dry-run", REFERENCE]).expect(0).out;
    assert!(
        plan.contains(&format!("+++ b/{SCRIPT}\n")) && plan.contains("trial: the next boot only has"),
        "{plan}"
    );
    assert!(!plan.contains(DROP_IN), "{plan}");
    assert!(!tree.at(SCRIPT).exists());

    let ran = tree.tune(&["apply", "--trial", REFERENCE]).expect(0);
    for told in
        ["to do    run `update-grub` in that system", "to do    run `grub-reboot rtkvm-tune-trial` in that"]
    {
        assert!(ran.out.contains(told), "{}", ran.out);
    }
    assert!(!tree.at(DROP_IN).exists());
    let mode = |path: &str| std::fs::metadata(tree.at(path)).expect("there").permissions().mode() & 0o7777;
    assert_eq!((mode(SCRIPT), mode(RECORD), mode(TRIAL_UNIT)), (0o755, 0o600, 0o644));

    let text = verify(&tree, 1);
    assert!(text.contains("has no entry for it: run `update-grub`"), "{text}");
    update_grub(&tree);
    assert_eq!(grub::entries(&tree.read(CFG)), before);
    let text = verify(&tree, 1);
    assert!(text.contains("run `grub-reboot rtkvm-tune-trial`"), "{text}");
    // As the real one writes it.
    let boot = format!("--boot-directory={}/boot", tree.name());
    let _ = tool(Command::new("grub-reboot").args([&boot, ENTRY]), "grub2-common");
    assert_eq!(once(&tree).as_deref(), Some(ENTRY));
    let text = verify(&tree, 3);
    assert!(text.contains("> cpu.isolcpus") && text.contains("the next boot is the trial of 20"), "{text}");
    let again = tree.tune(&["apply", "--trial", REFERENCE]).expect(0).out;
    assert_eq!(again, "Nothing to do. A reboot is needed.\n");
}

#[test]
fn a_good_trial_becomes_the_default() {
    let tree = armed();
    confirm(&tree, &[], 2);
    boot(&tree, "second");
    assert_eq!(once(&tree), None);
    assert!(command_line(&tree).contains(" panic=30 rtkvm_tune.trial="), "{}", command_line(&tree));
    let text = verify(&tree, 1);
    assert!(text.contains("this boot is the trial of 20"), "{text}");
    assert!(text.contains("~ cpu.isolcpus"), "{text}");
    let ran = confirm(&tree, AUTOMATIC, 0);
    assert!(ran.out.contains("\nConfirmed: the arguments of the trial of 20"), "{}", ran.out);
    has_no_trial(&tree);
    update_grub(&tree);
    let text = verify(&tree, 0);
    assert!(!text.contains("trial"), "{text}");
    assert!(!tree.read(CFG).contains(ENTRY));
    boot(&tree, "third");
    assert!(!command_line(&tree).contains("rtkvm_tune.trial"));
    verify(&tree, 0);
    confirm(&tree, &[], 2);
}

#[test]
fn a_trial_that_does_not_come_up_is_told() {
    let tree = armed();
    // It panics before anything of ours runs; the machine boots again.
    boot(&tree, "second");
    boot(&tree, "third");
    assert!(!command_line(&tree).contains("isolcpus"));
    let text = verify(&tree, 1);
    let why = "failed: its boot did not come up so far that it could be confirmed: it panicked, hung, or was";
    assert!(text.contains("the trial of 20") && text.contains(why), "{text}");
    let ran = confirm(&tree, &[], 2);
    assert!(ran.err.contains("it panicked, hung"), "{}", ran.err);
    // The next one is another trial.
    let old = tree.read(RECORD);
    let ran = tree.tune(&["apply", "--trial", REFERENCE]).expect(0);
    assert!(ran.out.contains(why), "{}", ran.out);
    assert_ne!(tree.read(RECORD), old);
    arm(&tree);
    boot(&tree, "fourth");
    confirm(&tree, AUTOMATIC, 0);
}

#[test]
fn a_failed_audit_leaves_the_default() {
    let tree = armed();
    boot(&tree, "second");
    tree.write("sys/devices/system/cpu/nohz_full", "\n");
    let ran = confirm(&tree, AUTOMATIC, 1);
    let why = "cpu.nohz-full, nohz_full: nohz_full=2-7,10-15, wanted nohz_full=2-7,10-15 (the kernel did not accept it";
    assert!(ran.err.contains(why), "{}", ran.err);
    assert!(!tree.at(DROP_IN).exists());
    let text = verify(&tree, 1);
    assert!(text.contains("It could not be confirmed: cpu.nohz-full"), "{text}");
    boot(&tree, "third");
    assert!(!command_line(&tree).contains("isolcpus"));
    let text = verify(&tree, 1);
    assert!(text.contains(&format!("failed: {why}")), "{text}");
}

#[test]
fn a_person_may_confirm_what_was_mended() {
    let tree = armed();
    boot(&tree, "second");
    tree.write("sys/devices/system/cpu/nohz_full", "\n");
    confirm(&tree, AUTOMATIC, 1);
    confirm(&tree, &[], 1);
    tree.write("sys/devices/system/cpu/nohz_full", "2-7,10-15\n");
    confirm(&tree, &[], 0);
    assert!(tree.at(DROP_IN).exists());
    has_no_trial(&tree);
}

#[test]
fn a_second_boot_of_the_entry_is_no_confirmation() {
    let tree = armed();
    boot(&tree, "second");
    tree.write("sys/devices/system/cpu/nohz_full", "\n");
    confirm(&tree, AUTOMATIC, 1);
    // GRUB could not clear the flag after all.
    editenv(&tree, &["set", &format!("next_entry={ENTRY}")]);
    boot(&tree, "third");
    let ran = confirm(&tree, AUTOMATIC, 2);
    assert!(ran.err.contains("booted a second time"), "{}", ran.err);
    assert!(verify(&tree, 1).contains("booted a second time"));
    boot(&tree, "fourth");
    assert!(verify(&tree, 1).contains("booted a second time"));

    let tree = armed();
    boot(&tree, "second");
    editenv(&tree, &["set", &format!("next_entry={ENTRY}")]);
    let ran = confirm(&tree, AUTOMATIC, 2);
    assert!(ran.err.contains("did not clear its one-shot flag"), "{}", ran.err);
}

#[test]
fn an_apply_without_trial_ends_it() {
    for boots in 0..3 {
        let tree = armed();
        ["second", "third"].iter().take(boots).for_each(|id| boot(&tree, id));
        let ran = tree.tune(&["apply", REFERENCE]).expect(0);
        let forgets = ran.out.contains("to do    run `grub-editenv /boot/grub/grubenv unset next_entry`");
        assert_eq!(forgets, boots == 0, "{}", ran.out);
        assert_eq!(ran.out.matches("run `update-grub`").count(), 1, "{}", ran.out);
        has_no_trial(&tree);
        assert!(tree.at(DROP_IN).exists());
    }
}

#[test]
fn kernels_may_come_and_go() {
    let tree = armed();
    tree.write("boot/vmlinuz-6.1.0-9-rt-amd64", "");
    tree.write("boot/initrd.img-6.1.0-9-rt-amd64", "");
    update_grub(&tree);
    boot(&tree, "second");
    assert!(
        command_line(&tree).contains("BOOT_IMAGE=/boot/vmlinuz-6.1.0-0-rt-amd64"),
        "{}",
        command_line(&tree)
    );
    let ran = confirm(&tree, AUTOMATIC, 1);
    let why = "the default entry boots /boot/vmlinuz-6.1.0-9-rt-amd64 by now, and /boot/vmlinuz-6.1.0-0-rt-amd64 was";
    assert!(ran.err.contains(why), "{}", ran.err);

    let tree = armed();
    tree.write("boot/vmlinuz-6.1.0-9-rt-amd64", "");
    tree.write("boot/initrd.img-6.1.0-9-rt-amd64", "");
    for file in ["vmlinuz", "initrd.img"] {
        std::fs::remove_file(tree.at(&format!("boot/{file}-6.1.0-0-rt-amd64"))).expect("removed");
    }
    update_grub(&tree);
    boot(&tree, "second");
    assert!(command_line(&tree).contains("vmlinuz-6.1.0-9"), "{}", command_line(&tree));
    assert!(verify(&tree, 1).contains("GRUB had no entry for it any more"));
}

/// The line of today has the arguments of the last apply; the trial's has the new ones in their place.
#[test]
fn a_trial_replaces_what_is_the_default() {
    let tree = machine();
    tree.tune(&["apply", REFERENCE]).expect(0);
    update_grub(&tree);
    boot(&tree, "second");
    verify(&tree, 0);
    let nothing = tree.tune(&["apply", "--trial", REFERENCE]).expect(0).out;
    assert_eq!(nothing, "Nothing to do. No reboot is needed.\n");
    let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let text = text.replace(
        "# kernel-arguments = [\"crashkernel=512M\"]",
        "kernel-arguments = [\"crashkernel=512M\", \"panic=7\"]",
    );
    let profile = tree.note("more.toml", text);
    let drop_in = tree.read(DROP_IN);
    tree.tune(&["apply", "--trial", &profile]).expect(0);
    assert_eq!(tree.read(DROP_IN), drop_in);
    arm(&tree);
    boot(&tree, "third");
    let line = command_line(&tree);
    for (argument, times) in
        [(" isolcpus=", 1), (" crashkernel=512M ", 1), (" panic=", 1), (" hugepagesz=1G ", 1)]
    {
        assert_eq!(line.matches(argument).count(), times, "{argument}: {line}");
    }
    confirm(&tree, AUTOMATIC, 0);
    assert!(tree.read(DROP_IN).contains("crashkernel=512M"));
    // Nothing to fall back to: the default has what was never booted.
    let tree = machine();
    tree.tune(&["apply", REFERENCE]).expect(0);
    update_grub(&tree);
    let ran = tree.tune(&["apply", "--trial", REFERENCE]).expect(2);
    assert!(ran.err.contains("no line to fall back to"), "{}", ran.err);
}

#[test]
fn other_defaults_are_followed() {
    for (default, saved) in [("saved", Some("1>0")), ("saved", None), ("\"1>0\"", None)] {
        let tree = machine();
        let text = tree.read("etc/default/grub");
        let text = text.replace("GRUB_DEFAULT=0", &format!("GRUB_DEFAULT={default}\nGRUB_SAVEDEFAULT=true"));
        assert!(text.contains("SAVEDEFAULT"), "{text}");
        tree.write("etc/default/grub", text);
        if let Some(saved) = saved {
            editenv(&tree, &["set", &format!("saved_entry={saved}")]);
        }
        update_grub(&tree);
        tree.tune(&["apply", "--trial", REFERENCE]).expect(0);
        assert!(!tree.read(SCRIPT).contains("savedefault"), "{}", tree.read(SCRIPT));
        // Entries of a submenu are written further to the right.
        let below = tree.read(SCRIPT).contains("\n\t\tlinux");
        assert_eq!(below, default != "saved" || saved.is_some(), "{}", tree.read(SCRIPT));
    }
}

/// Whatever keeps GRUB from clearing its flag, or us from knowing the default, is refused before anything is written.
#[test]
fn what_could_not_fall_back_is_refused() {
    type Change = fn(&Tree);
    let cases: &[(&str, Change)] = &[
        ("/boot/grub/grubenv does not exist; `grub-editenv", |tree| remove(tree, GRUBENV)),
        ("it has 1023 bytes", |tree| tree.write(GRUBENV, &std::fs::read(tree.at(GRUBENV)).unwrap()[..1023])),
        ("it has 1025 bytes", |tree| tree.write(GRUBENV, format!("{:#<1025}", "# GRUB Environment Block\n"))),
        ("does not begin with GRUB's signature", |tree| tree.write(GRUBENV, [b'#'; 1024])),
        ("/boot/grub is a symbolic link", |tree| {
            std::fs::rename(tree.at("boot/grub"), tree.at("boot/grub2")).unwrap();
            tree.link("boot/grub", "grub2");
        }),
        ("/boot is mounted read-only", |tree| {
            tree.write("proc/self/mountinfo", format!("{ROOT}30 22 254:1 / /boot ro - ext4 /dev/vda1 rw\n"));
        }),
        ("/ is mounted read-only", |tree| mounted(tree, "rw,errors", "ro,errors")),
        ("is on btrfs, which GRUB does not write", |tree| mounted(tree, "ext4", "btrfs")),
        ("is on zfs, which GRUB does not write", |tree| mounted(tree, "ext4", "zfs")),
        ("is on overlay, which GRUB does not write", |tree| mounted(tree, "ext4", "overlay")),
        ("/proc/self/mountinfo does not exist", |tree| remove(tree, "proc/self/mountinfo")),
        ("/proc/self/mountinfo has an unknown form", |tree| tree.write("proc/self/mountinfo", "x\n")),
        ("/proc/self/mountinfo does not have it", |tree| tree.write("proc/self/mountinfo", "")),
        ("254:1 is none of this machine", |tree| remove(tree, "sys/dev/block/254:1")),
        ("is on LVM", |tree| on(tree, "dm-0", "dm/uuid", "LVM-abc")),
        ("is on an encrypted volume", |tree| on(tree, "dm-1", "dm/uuid", "CRYPT-LUKS2-abc")),
        ("is on a device-mapper volume", |tree| on(tree, "dm-1", "dm/uuid", "mpath-abc")),
        ("is on a RAID of the kernel (md)", |tree| on(tree, "md0/md0p1", "md/level", "raid1")),
        ("is on a loop device", |tree| on(tree, "loop0", "loop/backing_file", "/x")),
        ("is on a device of an unknown kind, bcache0", |tree| on(tree, "bcache0", "x", "x")),
        ("does not boot and clear `next_entry`: run `update-grub`", |tree| {
            tree.write(CFG, tree.read(CFG).replace("save_env next_entry", "true"));
        }),
        ("its default is `0` or `5`", |tree| tree.write(CFG, format!("{}set default=5\n", tree.read(CFG)))),
        ("the next boot is `other` already", |tree| editenv(tree, &["set", "next_entry=other"])),
        ("it is a recovery entry", |tree| {
            tree.write(CFG, tree.read(CFG).replace("set default=\"0\"", "set default=\"1>1\""));
        }),
        ("does not boot Linux", |tree| {
            let text = tree.read(CFG).replace("set default=\"0\"", "set default=\"x\"");
            tree.write(CFG, format!("{text}menuentry 'x' {{\n chainloader +1\n}}\n"));
        }),
        ("99-rtkvm-tune.cfg is not as this program writes it", |tree| {
            tree.write(DROP_IN, "GRUB_TIMEOUT=1\n")
        }),
        ("tried with GRUB as Debian and Ubuntu set it up", |tree| remove(tree, "etc/debian_version")),
    ];
    for (why, change) in cases {
        let tree = machine();
        change(&tree);
        let before = tree.list();
        let ran = tree.tune(&["apply", "--trial", REFERENCE]);
        assert!(
            ran.status == Some(2) && ran.err.contains("nothing was written") && ran.err.contains(why),
            "{why}: {ran:?}"
        );
        assert!(changed(&before, &tree.list()).is_empty(), "{why}");
        let plan = tree.tune(&["apply", "--trial", "--dry-run", REFERENCE]).expect(0).out;
        assert!(plan.contains("\nIn the way of apply\n") && plan.contains(why), "{plan}");
    }
}

fn remove(tree: &Tree, path: &str) {
    std::fs::remove_file(tree.at(path)).expect("removed");
}

fn mounted(tree: &Tree, old: &str, new: &str) {
    tree.write("proc/self/mountinfo", ROOT.replace(old, new));
}

fn on(tree: &Tree, device: &str, file: &str, text: &str) {
    remove(tree, "sys/dev/block/254:1");
    tree.link("sys/dev/block/254:1", format!("../../devices/virtual/block/{device}"));
    let disk = device.split('/').next().expect("a name");
    tree.write(&format!("sys/block/{disk}/{file}"), format!("{text}\n"));
}

#[test]
fn a_record_that_is_not_ours_is_told() {
    for (old, new, why) in [
        ("\"version\": 1", "\"version\": 9", "it is of version 9; 1 is known here"),
        ("{", "", "cannot be used"),
    ] {
        let tree = armed();
        tree.write(RECORD, tree.read(RECORD).replace(old, new));
        let text = verify(&tree, 1);
        assert!(text.contains("cannot be used") && text.contains(why), "{text}");
        confirm(&tree, AUTOMATIC, 2);
        tree.tune(&["apply", REFERENCE]).expect(0);
        has_no_trial(&tree);
    }
    let tree = armed();
    tree.chmod(RECORD, 0o644);
    assert!(verify(&tree, 1).contains("its mode is 0644"));
    std::fs::rename(tree.at(RECORD), tree.at("trial.json")).expect("moved");
    tree.link(RECORD, "/trial.json");
    assert!(verify(&tree, 1).contains("it is a symbolic link"));
}

/// Wherever it stands, what confirming it has kept included.
#[test]
fn a_revert_ends_it() {
    for boots in 0..3 {
        let tree = machine();
        let first = tree.list();
        tree.tune(&["apply", "--trial", REFERENCE]).expect(0);
        arm(&tree);
        if boots > 0 {
            boot(&tree, "second");
            tree.write("sys/devices/system/cpu/nohz_full", "\n");
            confirm(&tree, AUTOMATIC, 1);
        }
        if boots > 1 {
            boot(&tree, "third");
        }
        let ran = tree.tune(&["revert"]).expect(0);
        assert!(
            ran.out.contains("to do    run `grub-editenv /boot/grub/grubenv unset next_entry`"),
            "{}",
            ran.out
        );
        has_no_trial(&tree);
        update_grub(&tree);
        let boot_and_state =
            |path: &String| [CFG, GRUBENV].contains(&path.as_str()) || path.starts_with("etc/");
        let different = changed(&first, &tree.list());
        let different: Vec<_> =
            different.iter().filter(|path| boot_and_state(path) && *path != GRUBENV).collect();
        assert!(different.is_empty(), "{different:?}");
    }
}

/// A trial that was begun and not finished is taken back whole.
#[test]
fn a_killed_apply_leaves_no_trial() {
    let tree = machine();
    let first = tree.list();
    let inject = "inject=renameat:signal=KILL:when=";
    let mut points = 0;
    for at in 1.. {
        let tree = tree.copy();
        let options = ["-e", "trace=renameat", "-e", &format!("{inject}{at}")];
        let (ran, calls) = strace(&options, &["apply", "--trial", REFERENCE, "--root", tree.name()]);
        if calls.len() < at {
            ran.expect(0);
            break;
        }
        points += 1;
        tree.tune(&["recover"]).expect(0);
        has_no_trial(&tree);
        let different = changed(&first, &tree.list());
        let different: Vec<_> = different.iter().filter(|path| path.starts_with("etc/")).collect();
        assert!(different.is_empty(), "{at}: {different:?}");
    }
    assert!(points > 5, "{points}");
}

/// What keeps it from being confirmed is kept, whatever it is.
#[test]
fn an_audit_that_cannot_be_made_is_a_failed_one() {
    let tree = armed();
    boot(&tree, "second");
    tree.write(KEPT_PROFILE, "[host]\nhousekeeping-cpus-per-node = 99\n");
    let ran = confirm(&tree, AUTOMATIC, 1);
    assert!(ran.err.contains("housekeeping"), "{}", ran.err);
    assert!(tree.read(RECORD).contains("housekeeping"), "{}", tree.read(RECORD));
    assert!(verify(&tree, 1).contains("It could not be confirmed: "));
}

/// A capture tells as much of a trial as its machine.
#[test]
fn a_capture_has_the_trial() {
    let tree = armed();
    let file = tree.note("a.capture", "");
    tree.tune(&["capture", REFERENCE, "-o", &file]).expect(0);
    let told = tune(&["verify", REFERENCE, "--root", &file]).expect(3).out;
    assert_eq!(told.replace(&file, tree.name()), verify(&tree, 3));
    let tree = machine();
    tree.tune(&["capture", REFERENCE, "-o", &file]).expect(0);
    let plan = tune(&["apply", "--trial", "--dry-run", REFERENCE, "--root", &file]).expect(0).out;
    assert!(!plan.contains("no trial is possible") && plan.contains(&format!("+++ b/{SCRIPT}")), "{plan}");
}
