//! The command as on a running machine: in a changed root, with programs that stand in for GRUB's, systemd's and libvirt's.
//! They do what matters of theirs, and fail, or kill whoever called them, when they are told to.

use super::support::*;
use rtkvm_tune::facts::Facts;
use rtkvm_tune::formats::HostPath;
use rtkvm_tune::host::Snapshot;
use rtkvm_tune::plan::restore::Past;
use rtkvm_tune::plan::{self, Scope};
use rtkvm_tune::profile;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Counts the calls, and does to this one what `/run/fault` says: `NUMBER WHAT`.
const BEFORE: &str = r#"#!/bin/busybox sh
set -e
[ "${0##*/} $2 $3" != 'timeout ethtool -l' ] || exec /bin/busybox sh /usr/lib/channels $4
number=$(($(cat /run/count 2>/dev/null || echo 0) + 1))
echo $number >/run/count
echo "${0##*/} $*" >>/run/calls
what=$(sed -n "s/^$number //p" /run/fault 2>/dev/null || true)
if [ "$what" = kill-before ]; then kill -9 $PPID; exit 1; fi
if [ "$what" = fail ]; then echo 'no luck today' >&2; exit 1; fi
if [ "$what" = hang ]; then touch /run/hangs; while [ -e /run/hangs ]; do sleep 0.1; done; fi
"#;
const AFTER: &str = r#"
if [ "$what" = kill-after ]; then kill -9 $PPID; fi
if [ "$what" = fail-after ]; then exit 1; fi
"#;
/// What stands in for each program.
const PROGRAMS: [(&str, &str); 8] = [
    // The generated menu has our arguments at the end of each line.
    (
        "usr/sbin/update-grub",
        r#"GRUB_CMDLINE_LINUX_DEFAULT=
[ ! -e /etc/default/grub.d/99-rtkvm-tune.cfg ] || . /etc/default/grub.d/99-rtkvm-tune.cfg
to=/boot/grub/grub.cfg
[ "$1" != --output ] || to=$2
umask 077
sed "s|^\([[:space:]]*linux[[:space:]].*\)\$|\1$GRUB_CMDLINE_LINUX_DEFAULT|" /boot/base.cfg >$to"#,
    ),
    ("usr/sbin/grub-reboot", ":"),
    ("usr/bin/grub-editenv", ":"),
    // It knows a unit by its file, or while it runs; a pattern may match none.
    (
        "usr/bin/systemctl",
        r#"case "$1 $2" in
'restart rtkvm-tune-cpu-dma-latency.service') touch /run/bound ;;
'stop rtkvm-tune-cpu-dma-latency*') rm -f /run/bound ;;
'stop rtkvm-tune-cpu-dma-latency.service')
    [ -e /run/bound ] || [ -e /etc/systemd/system/$2 ] || exit 5
    rm -f /run/bound ;;
esac"#,
    ),
    (
        "usr/sbin/ethtool",
        r#"read -r now most </run/$2
[ "$3" = combined ] && [ $4 -le $most ] || exit 75
count=$4
[ $4 != 2 ] || [ ! -e /run/grant ] || count=4
echo "$count $most" >/run/$2
for old in /run/gone/*; do [ ! -e $old ] || rm -rf /proc/irq/${old##*/}; done
for made in /run/anew/*; do [ ! -e $made ] || echo 0-15 >/proc/irq/${made##*/}/smp_affinity_list; done"#,
    ),
    ("usr/bin/udevadm", ":"),
    ("usr/bin/timeout", ":"),
    (
        "usr/bin/virsh",
        "umask 077
case $3 in define) cat >/etc/libvirt/qemu/rt0.xml ;; undefine) rm /etc/libvirt/qemu/rt0.xml ;; esac",
    ),
];
/// What `ethtool -l` prints, of an interface with as many channels as its file says.
const CHANNELS: &str = r#"
[ -e /usr/sbin/ethtool ] || exit 127
[ -e /run/$1 ] || { echo 'netlink error: Operation not supported' >&2; exit 75; }
read -r now most </run/$1
[ $now != silent ] || exit 124
printf 'Channel parameters for %s:\nPre-set maximums:\nRX:\t\tn/a\nCombined:\t%s\n' $1 $most
printf 'Current hardware settings:\nRX:\t\tn/a\nCombined:\t%s\n' $now
"#;
pub(super) const PROFILE: &str = "/profile.toml";
const CFG: &str = "boot/grub/grub.cfg";

/// The reference machine, running.
pub(super) struct Live {
    pub(super) tree: Tree,
}

impl Live {
    pub(super) fn new() -> Live {
        let tree = Tree::reference();
        let program = |path: &str, from: &str| {
            let at = tree.at(path);
            std::fs::create_dir_all(at.parent().expect("a parent")).expect("made");
            std::fs::copy(from, at).unwrap_or_else(|error| panic!("{from}: {error}; install busybox-static"));
            tree.chmod(path, 0o755);
        };
        std::fs::create_dir_all(tree.at("usr/bin")).expect("made");
        let mut strip = Command::new("strip");
        tool(strip.arg("-o").arg(tree.at("usr/bin/rtkvm-tune")).arg(PROGRAM), "binutils").expect(0);
        program("bin/busybox", "/bin/busybox");
        let libraries = tool(Command::new("ldd").arg(PROGRAM), "libc-bin").expect(0).out;
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            program(library, library);
        }
        for (path, text) in PROGRAMS {
            tree.write(path, format!("{BEFORE}{text}{AFTER}"));
            tree.chmod(path, 0o755);
        }
        tree.write("usr/lib/channels", CHANNELS);
        for applet in ["cat", "grep", "printf", "rm", "sed", "sleep", "touch"] {
            tree.link(&format!("bin/{applet}"), "busybox");
        }
        std::fs::create_dir_all(tree.at("run")).expect("made");
        tree.write("dev/null", "");
        // The kernel takes a value as a whole; in a file a shorter one leaves the end of the longer: none is set here.
        let keep: String = attributes(&tree).iter().map(|knob| format!("\"{knob}\" = \"keep\"\n")).collect();
        let text = std::fs::read_to_string(format!("{SOURCES}/{REFERENCE}")).expect("readable");
        tree.write(PROFILE, format!("{text}\n[knobs]\n{keep}"));
        tree.write("boot/base.cfg", tree.read(CFG));
        std::fs::create_dir_all(tree.at("etc/libvirt/qemu")).expect("made");
        Live { tree }
    }

    pub(super) fn copy(&self) -> Live {
        Live { tree: self.tree.copy() }
    }

    /// The program on this machine.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.tree.root).arg("/usr/bin/rtkvm-tune").args(words);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    pub(super) fn run(&self, words: &[&str]) -> Ran {
        tool(&mut self.command(words), "coreutils")
    }

    /// Has this happen at the call of a program with this number, counted from now.
    pub(super) fn fault(&self, number: usize, what: &str) {
        self.calls();
        self.tree.write("run/fault", format!("{number} {what}\n"));
    }

    /// The programs called since the last time this was asked.
    pub(super) fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.tree.at("run/calls")).unwrap_or_default();
        for file in ["run/calls", "run/count", "run/fault"] {
            let _ = std::fs::remove_file(self.tree.at(file));
        }
        text.lines().map(str::to_owned).collect()
    }

    /// The machine but for the lock, and what the stand-ins themselves write.
    pub(super) fn list(&self) -> Listing {
        self.tree
            .list()
            .into_iter()
            .filter(|(path, _)| !path.starts_with("run") && path != "dev/null")
            .collect()
    }
}

/// The knobs of the reference profile that set values of the running kernel.
fn attributes(tree: &Tree) -> BTreeSet<&'static str> {
    let snapshot = Snapshot::from_capture(&tree.tune(&["capture"]).expect(0).out).expect("a capture");
    let text = std::fs::read(format!("{SOURCES}/{REFERENCE}")).expect("readable");
    let parsed = profile::parse(REFERENCE, &text).unwrap_or_else(|_| panic!("a profile"));
    let facts = Facts::read(&snapshot).expect("facts");
    let made = plan::make(&snapshot, facts, &parsed, Scope::Everything, &Past::default());
    let (plan, _) = made.unwrap_or_else(|_| panic!("a plan"));
    let of_kernel =
        |path: &HostPath| ["/proc/", "/sys/"].iter().any(|start| path.as_str().starts_with(start));
    plan.items.iter().filter(|item| item.path.as_ref().is_some_and(of_kernel)).map(|item| item.knob).collect()
}

pub(super) const APPLY: &[&str] = &["apply", PROFILE];

/// Whether a call only asks libvirt whether it answers, before anything is written.
fn asks(call: &str) -> bool {
    call.ends_with(" version")
}

/// A machine after an apply, and the programs that were called for it.
fn applied() -> (Live, Vec<String>) {
    let live = Live::new();
    live.run(APPLY).expect(0);
    let calls = live.calls();
    (live, calls)
}

#[test]
fn an_apply_and_a_revert_call_what_they_must() {
    let live = Live::new();
    let first = live.list();
    live.run(APPLY).expect(0);
    let calls = live.calls();
    assert!(calls.contains(&"systemctl daemon-reload".to_owned()), "{calls:?}");
    assert_eq!(calls.last().map(String::as_str), Some("update-grub --output /boot/grub/grub.cfg.rtkvm-tune"));
    assert!(live.tree.read(CFG).contains(" isolcpus=managed_irq,domain,2-7,10-15 "));
    assert!(!live.tree.at("boot/grub/grub.cfg.rtkvm-tune").exists());
    // A second apply starts nothing and changes nothing.
    let mut before = stamps(&live.tree.root);
    before.retain(|path, _| !path.starts_with("run"));
    live.run(APPLY).expect(0);
    assert_eq!(live.calls(), [""; 0]);
    let mut now = stamps(&live.tree.root);
    now.retain(|path, _| !path.starts_with("run"));
    assert_eq!(before, now);

    live.run(&["revert"]).expect(0);
    let calls = live.calls();
    assert!(calls.iter().any(|call| call.ends_with(" undefine --keep-nvram --domain rt0")), "{calls:?}");
    assert!(calls.iter().any(|call| call.starts_with("update-grub ")), "{calls:?}");
    assert_eq!(changed(&first, &live.list()), [""; 0]);
}

/// Before its work is done or after it.
#[test]
fn a_program_that_fails_takes_the_run_back() {
    let (done, calls) = applied();
    let start = Live::new();
    let (old, new) = (start.list(), done.list());
    let mut tried = 0;
    for (number, call) in calls.iter().enumerate().filter(|(_, call)| !asks(call)) {
        for what in ["fail", "fail-after"] {
            let live = start.copy();
            live.fault(number + 1, what);
            let ran = live.run(APPLY).expect(2);
            assert!(ran.err.contains("failed (exit status: 1)"), "{call}: {}", ran.err);
            assert!(ran.err.contains("What was done before it is taken back."), "{call}: {}", ran.err);
            assert_eq!(changed(&old, &live.list()), [""; 0], "{call} {what}: {}", ran.out);
            assert!(!live.tree.at(JOURNAL).exists(), "{call}: {}", ran.out);
            live.calls();
            live.run(APPLY).expect(0);
            assert_eq!(changed(&new, &live.list()), [""; 0], "{call}");
            tried += 1;
        }
    }
    report("apply, a program fails", tried, 8);
}

/// The guests wait, and nothing else does.
#[test]
fn a_libvirt_that_does_not_answer_keeps_the_guests_only() {
    let (done, calls) = applied();
    let (live, new) = (Live::new(), done.list());
    let number = calls.iter().position(|call| asks(call)).expect("it is asked");
    live.fault(number + 1, "fail");
    let ran = live.run(APPLY).expect(4);
    assert!(ran.err.contains("libvirt does not answer: the guests are as they were"), "{}", ran.err);
    assert!(live.tree.at(DROP_IN).exists() && !live.tree.at("etc/libvirt/qemu/rt0.xml").exists());
    assert!(!live.tree.at(JOURNAL).exists());
    live.calls();
    live.run(APPLY).expect(0);
    assert_eq!(changed(&new, &live.list()), [""; 0]);
    live.calls();
    live.fault(1, "fail");
    let ran = live.run(&["revert"]).expect(4);
    assert!(ran.out.contains("left     the guests, for libvirt does not answer"), "{}", ran.out);
    assert!(!live.tree.at(DROP_IN).exists() && live.tree.at("etc/libvirt/qemu/rt0.xml").exists());
    live.calls();
    live.run(&["revert"]).expect(0);
    assert_eq!(changed(&Live::new().list(), &live.list()), [""; 0]);
}

/// With grub.cfg as it was before there is nothing to generate, which would fail again.
#[test]
fn a_broken_update_grub_leaves_nothing_to_recover() {
    let live = Live::new();
    let old = live.list();
    live.tree
        .write("usr/sbin/update-grub", "#!/bin/busybox sh\necho 'grub-probe: no such disk' >&2\nexit 1\n");
    let with_broken = live.list();
    let ran = live.run(APPLY).expect(2);
    assert!(ran.err.contains("grub-probe: no such disk") && ran.err.contains("is taken back"), "{}", ran.err);
    assert_eq!(changed(&with_broken, &live.list()), [""; 0]);
    assert_eq!(changed(&old, &with_broken), ["usr/sbin/update-grub"]);
    assert!(!live.tree.at(JOURNAL).exists());
    // What goes on in spite of it must not leave a drop-in to the next kernel update.
    let ran = live.run(&["apply", "--keep-going", PROFILE]).expect(2);
    assert!(
        ran.out.contains("put /etc/default/grub.d/99-rtkvm-tune.cfg back, since update-grub failed"),
        "{}",
        ran.out
    );
    assert!(!live.tree.at(DROP_IN).exists() && live.tree.at(UNIT).exists());
}

/// A revert whose update-grub fails leaves everything applied, and can be done again.
#[test]
fn a_program_that_fails_keeps_a_revert_from_being_half_done() {
    let (live, _) = applied();
    let applied = live.list();
    let probe = live.copy();
    probe.run(&["revert"]).expect(0);
    let (first, calls) = (probe.list(), probe.calls());
    for (number, call) in calls.iter().enumerate().filter(|(_, call)| !asks(call)) {
        let live = live.copy();
        live.fault(number + 1, "fail");
        let ran = live.run(&["revert"]).expect(2);
        assert_eq!(changed(&applied, &live.list()), [""; 0], "{call}: {}{}", ran.out, ran.err);
        assert!(!live.tree.at(JOURNAL).exists());
        live.calls();
        live.run(&["revert"]).expect(0);
        assert_eq!(changed(&first, &live.list()), [""; 0], "{call}");
    }
    report("revert, a program fails", calls.len(), 3);
}

#[test]
fn a_kill_around_any_program_is_recovered() {
    let (done, calls) = applied();
    let start = Live::new();
    let (old, new) = (start.list(), done.list());
    let mut tried = 0;
    for (number, call) in calls.iter().enumerate().filter(|(_, call)| !asks(call)) {
        for what in ["kill-before", "kill-after"] {
            let live = start.copy();
            live.fault(number + 1, what);
            assert_eq!(live.run(APPLY).status, None, "{call} {what}");
            live.calls();
            let refused = live.run(APPLY).expect(2).err;
            assert!(refused.contains("was interrupted: run `rtkvm-tune recover`"), "{refused}");
            let ran = live.run(&["recover"]).expect(0);
            let now = live.list();
            assert!(
                changed(&old, &now).is_empty() || changed(&new, &now).is_empty(),
                "{call} {what}: {:#?}\n{}",
                changed(&old, &now),
                ran.out
            );
            // What was not generated is not generated anew.
            let again = live.calls().iter().any(|call| call.starts_with("update-grub"));
            assert!(!again, "{call} {what}");
            tried += 1;
        }
    }
    report("apply, killed around a program", tried, 8);
}

/// Rolled back by itself after a failure, and killed in the middle of that: rolled back by the next.
#[test]
fn a_kill_while_a_run_is_taken_back_is_recovered() {
    let (_, calls) = applied();
    let start = Live::new();
    let old = start.list();
    let mut tried = 0;
    for number in calls.len() + 1..calls.len() + 5 {
        for what in ["kill-before", "kill-after", "fail"] {
            let live = start.copy();
            // The last, update-grub, fails after it did its work.
            live.fault(calls.len(), "fail-after");
            live.tree.write("run/fault", format!("{} fail-after\n{number} {what}\n", calls.len()));
            let ran = live.run(APPLY);
            if what == "fail" && ran.status == Some(2) && live.tree.at(JOURNAL).exists() {
                assert!(ran.err.contains("could not be taken back:"), "{}", ran.err);
                assert!(
                    ran.err.contains("no luck today") && ran.err.contains("update-grub"),
                    "both: {}",
                    ran.err
                );
            }
            live.calls();
            live.run(&["recover"]).expect(0);
            assert_eq!(changed(&old, &live.list()), [""; 0], "{number} {what}");
            tried += usize::from(ran.status.is_none() || ran.err.contains("could not be taken back:"));
        }
    }
    report("rollback, killed or failed at a program", tried, 3);
}

/// What it began goes on after a kill, and the machine stays locked until that is done.
#[test]
fn a_killed_run_leaves_the_lock_to_its_program() {
    let live = Live::new();
    let number = applied().1.len();
    live.fault(number, "hang");
    let mut child = started(&mut live.command(APPLY));
    let hangs = live.tree.at("run/hangs");
    let start = Instant::now();
    while !hangs.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "update-grub is not reached");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    let ran = live.run(&["recover"]).expect(2);
    assert!(ran.err.contains("another rtkvm-tune is at work"), "{}", ran.err);
    std::fs::remove_file(&hangs).expect("there");
    live.run(&["recover", "--wait", "60"]).expect(0);
    assert!(!live.tree.at(JOURNAL).exists() && !live.tree.at(DROP_IN).exists());
}

fn started(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

/// Whatever is missing is told before anything is written.
#[test]
fn missing_programs_are_told_before_anything_is_written() {
    let live = Live::new();
    for (path, package) in [
        ("usr/sbin/update-grub", "`update-grub` is not there: install the package grub2-common"),
        ("usr/bin/systemctl", "`systemctl` is not there: install the package systemd"),
        ("usr/bin/virsh", "`virsh` is not there: install the package libvirt-clients"),
        (
            "usr/bin/rtkvm-tune",
            "/usr/bin/rtkvm-tune is not there, which the boot unit starts: install the package",
        ),
    ] {
        let moved = live.tree.at("moved");
        std::fs::rename(live.tree.at(path), &moved).expect("moved");
        let before = live.list();
        let mut command = Command::new("chroot");
        let program = if path.ends_with("rtkvm-tune") { "/moved" } else { "/usr/bin/rtkvm-tune" };
        command.arg(&live.tree.root).arg(program).args(APPLY);
        let ran = tool(&mut command, "coreutils").expect(2);
        assert!(ran.err.contains("nothing was written") && ran.err.contains(package), "{path}: {}", ran.err);
        assert_eq!(changed(&before, &live.list()), [""; 0], "{path}");
        std::fs::rename(&moved, live.tree.at(path)).expect("moved back");
    }
}

/// The package's own script says how to revert, and changes nothing.
#[test]
fn to_remove_the_package_changes_nothing_and_says_how_to_revert() {
    let (live, _) = applied();
    let script = std::fs::read_to_string(format!("{SOURCES}/packaging/prerm.sh")).expect("readable");
    live.tree.write("prerm", script);
    let prerm = |live: &Live, word: &str| {
        let before = stamps(&live.tree.root);
        let mut command = Command::new("chroot");
        command.arg(&live.tree.root).args(["/bin/busybox", "sh", "/prerm", word]);
        let ran = tool(&mut command, "coreutils").expect(0);
        assert_eq!(before, stamps(&live.tree.root), "{word}");
        assert_eq!(ran.out, "");
        ran.err
    };
    let said = prerm(&live, "remove");
    assert!(said.contains("run `rtkvm-tune revert`") && said.contains("stays as it is"), "{said}");
    assert_eq!(prerm(&live, "upgrade"), "");
    // With nothing of ours left there is nothing to say.
    live.run(&["revert"]).expect(0);
    assert!(live.tree.at(STATE).exists());
    assert_eq!(prerm(&live, "remove"), "");
    // A run that was interrupted is to be ended first.
    let live = Live::new();
    live.tree.write("prerm", std::fs::read(format!("{SOURCES}/packaging/prerm.sh")).expect("readable"));
    let first = applied().1.iter().position(|call| !asks(call)).expect("programs");
    live.fault(first + 1, "kill-before");
    assert_eq!(live.run(APPLY).status, None);
    let said = prerm(&live, "remove");
    assert!(said.contains("was interrupted") && said.contains("`rtkvm-tune recover`"), "{said}");
    let mode = std::fs::metadata(live.tree.at("prerm")).expect("there").permissions().mode();
    assert_eq!(mode & 0o111, 0, "the shell reads it");
}
