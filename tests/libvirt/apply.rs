//! The whole command on the live machine of the private libvirtd: what it defines, undefines and leaves alone.

use super::host::{self, Host};
use rtkvm_tune::formats::Connection;
use rtkvm_tune::guest::is_ours;
use rtkvm_tune::host::{Machine, Node, Read, ReadError};
use rtkvm_tune::knobs;
use std::collections::BTreeSet;
use std::process::{Command, Output};

/// A guest of the simulated machine, and every other knob as this machine has it.
fn profile(guest: &str) -> String {
    let areas: BTreeSet<&str> = knobs::all().map(knobs::Knob::area).filter(|area| *area != "guest").collect();
    let kept: String = areas.iter().map(|area| format!("{area} = \"keep\"\n")).collect();
    format!(
        "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = \"6GiB\"\n{guest}\n[knobs]\n{kept}"
    )
}

fn guest(name: &str, more: &str) -> String {
    format!("[[guest]]\nname = \"{name}\"\nvcpus = 2\nmemory = \"2GiB\"\nnuma-node = 1\n{more}\n")
}

/// The exit status, and all that was said.
fn ended(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[track_caller]
fn tune(host: &Host, words: &[&str], profile: &str, status: i32) -> String {
    let (ended, text) = ended(&host.tune(words, profile));
    assert_eq!(ended, Some(status), "{words:?}\n{profile}\n{text}");
    text
}

#[test]
fn a_guest_is_defined_changed_and_undefined() {
    let host = Host::start();
    let two = profile(&guest("life", ""));
    let said = tune(&host, &["apply", "PROFILE"], &two, 0);
    assert!(said.contains("define guest life"), "{said}");
    let held = host.virsh(&["dumpxml", "--inactive", "life"], "");
    assert!(is_ours(&held), "{held}");
    // What libvirt made of it is what was wanted.
    assert!(tune(&host, &["apply", "PROFILE"], &two, 0).contains("Nothing to do"));
    tune(&host, &["verify", "PROFILE"], &two, 0);
    let larger = two.replace("2GiB", "3GiB");
    tune(&host, &["verify", "PROFILE"], &larger, 1);
    tune(&host, &["apply", "PROFILE"], &larger, 0);
    assert!(host.virsh(&["dominfo", "life"], "").contains("3145728 KiB"));

    // Left out it stays; by its name it goes.
    let said = tune(&host, &["apply", "PROFILE"], &profile(""), 0);
    assert!(!said.contains("undefine"), "{said}");
    host.virsh(&["dominfo", "life"], "");
    tune(&host, &["apply", "PROFILE"], &profile("[[guest]]\nname = \"life\"\nstate = \"absent\"\n"), 0);
    assert!(!host.try_virsh(&["dominfo", "life"], "").status.success());

    tune(&host, &["apply", "PROFILE"], &two, 0);
    tune(&host, &["revert"], "", 0);
    assert!(!host.try_virsh(&["dominfo", "life"], "").status.success());
}

#[test]
fn a_guest_of_somebody_else_is_left_until_it_is_taken_over() {
    let host = Host::start();
    let foreign = "<domain type='kvm'><name>other</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
                   <os><type arch='x86_64' machine='q35'>hvm</type></os></domain>";
    host.virsh(&["define", "/dev/stdin"], foreign);
    let dump = || host.virsh(&["dumpxml", "--inactive", "other"], "");
    let first = dump();
    let mine = profile(&guest("other", ""));
    let said = tune(&host, &["apply", "PROFILE"], &mine, 2);
    assert!(said.contains("is not this program's") && said.contains("nothing was written"), "{said}");
    tune(&host, &["apply", "PROFILE"], &profile("[[guest]]\nname = \"other\"\nstate = \"absent\"\n"), 2);
    assert_eq!(dump(), first);

    tune(&host, &["apply", "--take-over", "PROFILE"], &mine, 0);
    assert!(is_ours(&dump()));
    assert_eq!(host.virsh(&["domuuid", "other"], "").trim(), rtkvm_tune::guest::uuid(&first).unwrap());
    tune(&host, &["verify", "PROFILE"], &mine, 0);
    tune(&host, &["revert"], "", 0);
    assert_eq!(dump(), first);
}

#[test]
fn without_an_answer_everything_else_is_done() {
    let host = Host::start();
    let wanted = profile(&guest("late", ""));
    let dead = "qemu+unix:///system?socket=/run/no-such-socket";
    let said = tune(&host, &["apply", "--connect", dead, "PROFILE"], &wanted, 4);
    assert!(said.contains("libvirt does not answer: the guests are as they were"), "{said}");
    assert!(said.contains("no-such-socket"), "{said}");
    let said = tune(&host, &["verify", "--connect", dead, "PROFILE"], &wanted, 1);
    assert!(said.contains("its definition: is not known: libvirt does not answer"), "{said}");
    // Where it answers, the same profile is carried out.
    tune(&host, &["apply", "PROFILE"], &wanted, 0);
    host.virsh(&["dominfo", "late"], "");
}

/// Another libvirt than the system's is asked, through a connection that can change nothing.
#[test]
fn definitions_are_read_from_another_libvirt() {
    let host = host::shared();
    let text = profile(&guest("asked", ""));
    let rendering = Host::start().tune(&["render", "PROFILE"], &text);
    let xml = String::from_utf8(rendering.stdout).unwrap();
    host.define("asked", &xml);
    let connection = Connection::parse(host.uri()).unwrap();
    let snapshot = Machine::Live.snapshot().unwrap();
    let Ok(Node::File { text, .. }) = snapshot.node(&connection.definition("asked")) else {
        panic!("there is no definition");
    };
    assert!(is_ours(&text), "{text}");
    assert_eq!(rtkvm_tune::guest::differences(&text, &xml).unwrap(), []);
    assert_eq!(snapshot.node(&connection.definition("no-such")), Err(ReadError::Absent));
    let dead = Connection::parse("qemu+unix:///system?socket=/run/no-such-socket").unwrap();
    assert_eq!(snapshot.node(&dead.definition("asked")), Err(ReadError::NoAnswer));

    // Planned, applied and taken back by asking alone.
    let host = Host::start();
    let wanted = profile(&guest("there", ""));
    let words = |verb| [verb, "--connect", "qemu+unix:///system?socket=/run/libvirt/libvirt-sock", "PROFILE"];
    tune(&host, &words("apply"), &wanted, 0);
    assert!(is_ours(&host.virsh(&["dumpxml", "--inactive", "there"], "")));
    tune(&host, &words("verify"), &wanted, 0);
    assert!(tune(&host, &words("apply"), &wanted, 0).contains("Nothing to do"));
    tune(&host, &["revert"], "", 0);
    assert!(!host.try_virsh(&["dominfo", "there"], "").status.success());
}

/// The seed is a disk of the guest, has what was planned in it, and goes with it.
#[test]
fn a_seed_is_made_and_attached() {
    let host = Host::start();
    let inside = "[guest.cloud-init]\ndistribution = \"debian\"\nkernel = \"keep\"\n";
    let wanted = profile(&guest("tuned", inside));
    tune(&host, &["apply", "PROFILE"], &wanted, 0);
    let path = "/var/lib/libvirt/images/rtkvm-tune-tuned-seed.iso";
    let held = host.virsh(&["dumpxml", "--inactive", "tuned"], "");
    assert!(held.contains(path) && held.contains("<readonly/>"), "{held}");
    let (image, files) = (host.at(path), tempfile::tempdir().unwrap());
    let label =
        Command::new("blkid").args(["-p", "-o", "value", "-s", "LABEL"]).arg(&image).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&label.stdout).trim(), "cidata");
    let extract = || {
        let mut xorriso = Command::new("xorriso");
        xorriso.args(["-osirrox", "on", "-indev"]).arg(&image).args(["-extract", "/"]).arg(files.path());
        assert!(xorriso.output().unwrap().status.success());
        let read = |name| std::fs::read_to_string(files.path().join(name)).unwrap();
        (read("meta-data"), read("user-data"))
    };
    let (meta, user) = extract();
    assert!(meta.contains("\"local-hostname\": \"tuned\""), "{meta}");
    assert!(user.starts_with("#cloud-config\n") && user.contains("nohz_full=1 "), "{user}");
    assert!(tune(&host, &["apply", "PROFILE"], &wanted, 0).contains("Nothing to do"));

    // An image that went away is made again, of the same texts.
    std::fs::remove_file(&image).unwrap();
    tune(&host, &["apply", "PROFILE"], &wanted, 0);
    assert!(image.exists());

    // Another text, another image; without the section neither disk nor image; and no image after a revert.
    tune(&host, &["apply", "PROFILE"], &wanted.replace("vcpus = 2", "vcpus = 3"), 0);
    std::fs::remove_file(files.path().join("user-data")).unwrap();
    assert!(extract().1.contains("nohz_full=1-2 "));
    let none = profile(&guest("tuned", ""));
    tune(&host, &["apply", "PROFILE"], &none, 0);
    assert!(!image.exists());
    assert!(!host.virsh(&["dumpxml", "--inactive", "tuned"], "").contains("seed.iso"));
    tune(&host, &["apply", "PROFILE"], &wanted, 0);
    assert!(image.exists());
    // A guest that is left out keeps what it boots with.
    tune(&host, &["apply", "PROFILE"], &profile(""), 0);
    assert!(image.exists());
    tune(&host, &["revert"], "", 0);
    assert!(!image.exists());
}
