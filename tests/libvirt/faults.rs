//! An apply on the live machine of the private libvirtd that dies, or whose qemu-img fails: afterwards, or after
//! `recover`, the guest with its seed and its disk is all there or not at all.

use super::host::Host;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

/// The calls by which this program changes something, and those in which it waits for a program of its own.
const CALLS: [&str; 12] = [
    "openat",
    "openat2",
    "write",
    "ftruncate",
    "fchmod",
    "rename",
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdirat",
    "utimensat",
    "poll",
];

/// Where strace writes, in the namespaces.
const TRACE: &str = "/run/trace";

/// Where disks and seeds are.
const IMAGES: &str = "/var/lib/libvirt/images";

fn profile() -> String {
    super::apply::profile(&format!(
        "[[guest]]\nname = \"hit\"\nvcpus = 2\nmemory = \"2GiB\"\nnuma-node = 1\n\
         [guest.cloud-init]\ndistribution = \"debian\"\nkernel = \"keep\"\n\
         [[guest.disk]]\nsource = \"{IMAGES}/hit.img\"\nbase-image = \"{IMAGES}/base.img\"\ndisk-size = \"4MiB\"\n"
    ))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

struct Machine {
    host: Host,
    profile: String,
}

impl Machine {
    /// As it was before, but that a state is there.
    fn start() -> Machine {
        let machine = Machine { host: Host::start(), profile: profile() };
        fs::write(machine.host.at(&format!("{IMAGES}/base.img")), vec![7; 1 << 20]).unwrap();
        machine.expect(0, &["apply", "PROFILE"]);
        assert!(machine.is_new(), "{:?}", machine.there());
        machine.revert();
        assert!(machine.is_old(), "{:?}", machine.there());
        machine
    }

    #[track_caller]
    fn expect(&self, status: i32, words: &[&str]) -> String {
        let output = self.host.tune(words, &self.profile);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {}", text(&output));
        text(&output)
    }

    /// And without the disk, which a revert leaves.
    fn revert(&self) {
        self.expect(0, &["revert"]);
        let _ = fs::remove_file(self.host.at(&format!("{IMAGES}/hit.img")));
    }

    fn traced(&self, options: &[&str]) -> Output {
        let by = [&["strace", "-qq", "-s", "256", "-o", TRACE], options].concat();
        self.host.tune_under(&by, &["apply", "PROFILE"], &self.profile)
    }

    /// The calls that may change something or wait, by name and number from 1.
    fn points(&self) -> Vec<(String, usize)> {
        let output = self.traced(&["-e", &format!("trace={}", CALLS.join(","))]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let trace = fs::read_to_string(self.host.at(TRACE)).unwrap();
        self.revert();
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut points = Vec::new();
        for (name, line) in trace.lines().filter_map(|line| Some((line.split_once('(')?.0, line))) {
            let number = seen.entry(name).or_default();
            *number += 1;
            let writes = ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| line.contains(flag));
            // Of its output nothing depends.
            let told = line.starts_with("write(1,") || line.starts_with("write(2,");
            if !told && (writes || !name.starts_with("open")) {
                points.push((name.to_owned(), *number));
            }
        }
        points
    }

    /// What there is of the guest: its texts, images and definition, and a journal.
    fn there(&self) -> Vec<String> {
        let mut found = Vec::new();
        let upper = "/run/upper";
        for dir in
            [IMAGES, &format!("{upper}/etc/rtkvm-tune/guests/hit"), &format!("{upper}/var/lib/rtkvm-tune")]
        {
            let names = fs::read_dir(self.host.at(dir)).into_iter().flatten().map(|entry| entry.unwrap());
            // The overlay's sign of a file that is gone.
            let names = names
                .filter(|entry| !std::os::unix::fs::FileTypeExt::is_char_device(&entry.file_type().unwrap()));
            found.extend(names.map(|entry| entry.file_name().into_string().unwrap()));
        }
        found.extend(self.host.virsh(&["list", "--all", "--name"], "").split_whitespace().map(str::to_owned));
        found.retain(|name| name != "base.img" && name != "state.json");
        found.sort();
        found
    }

    /// The images of the guest, whole or not, with their modes.
    fn images(&self) -> Vec<(String, u32)> {
        let entries = fs::read_dir(self.host.at(IMAGES)).unwrap().map(|entry| entry.unwrap());
        let mode = |entry: &fs::DirEntry| entry.metadata().map_or(0, |it| it.permissions().mode());
        let entry = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), mode(&entry));
        entries.map(entry).filter(|(name, _)| name != "base.img").collect()
    }

    fn is_old(&self) -> bool {
        self.there().is_empty()
    }

    fn is_new(&self) -> bool {
        self.there() == ["hit", "hit.img", "meta-data", "rtkvm-tune-hit-seed.iso", "user-data"]
    }
}

#[test]
fn a_killed_apply_leaves_the_whole_guest_or_none() {
    let machine = Machine::start();
    let points = machine.points();
    let (mut old, mut new) = (0, 0);
    for (name, number) in &points {
        let inject = format!("inject={name}:signal=KILL:when={number}");
        let output = machine.traced(&["-e", &format!("trace={name}"), "-e", &inject]);
        let what = format!("{name} {number}: {}", text(&output));
        // Waiting is not the same each time.
        assert!(output.status.code().is_none() || name == "poll", "{what}");
        for (image, mode) in machine.images() {
            assert_eq!(mode & 0o077, 0, "{what}\n{image} is {mode:o}: others can read it");
        }
        // A program that it has started ends first.
        let recovered = machine.expect(0, &["recover", "--wait", "30"]);
        let there = machine.there();
        match (machine.is_old(), machine.is_new()) {
            (true, _) => old += 1,
            (_, true) => {
                machine.expect(0, &["verify", "PROFILE"]);
                machine.revert();
                assert!(machine.is_old(), "{what}: {:?}", machine.there());
                new += 1;
            }
            _ => panic!("{what}\nrecover: {recovered}\n{there:?}"),
        }
    }
    let _ = writeln!(
        std::io::stderr(),
        "  apply with a seed and a disk, killed: {} points tried, {old} old, {new} new",
        points.len()
    );
    assert!(points.len() >= 40 && old >= 30 && new >= 1, "{} points: {points:?}", points.len());
}

/// The file system is full when qemu-img reserves the room, when it copies, or when xorriso writes.
#[test]
fn a_copy_that_fails_is_taken_back() {
    let machine = Machine::start();
    for (program, calls) in
        [("qemu-img", "fallocate"), ("qemu-img", "pwrite64,pwritev"), ("xorriso", "write")]
    {
        // Found before the program's own place. strace gives the fault to it alone.
        let script = format!(
            "exec /usr/bin/strace -f -qq -o {TRACE} -e trace={calls} -e inject={calls}:error=ENOSPC /usr/bin/{program}"
        );
        let place = format!(
            "mount -t tmpfs tmpfs /usr/sbin; printf '#!/bin/sh\\n{script} \"$@\"\\n' > /usr/sbin/{program}; \
             chmod 755 /usr/sbin/{program}; exec \"$@\""
        );
        let output =
            machine.host.tune_under(&["sh", "-ec", &place, "sh"], &["apply", "PROFILE"], &machine.profile);
        let said = text(&output);
        assert!(output.status.code().is_some_and(|status| status != 0), "{said}");
        let trace = fs::read_to_string(machine.host.at(TRACE)).unwrap();
        assert!(trace.contains("(INJECTED)"), "{trace}\n{said}");
        assert!(said.contains(&format!("`{program} ")) && said.contains("failed"), "{said}");
        assert!(machine.is_old(), "{said}\n{:?}", machine.there());
        assert!(said.contains("taken back"), "{said}");
    }
    machine.expect(0, &["apply", "PROFILE"]);
    assert!(machine.is_new());
}
