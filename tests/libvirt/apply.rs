//! The whole command on the live machine of the private libvirtd: what it defines, undefines and leaves alone.

use super::host::{self, Host};
use rtkvm_tune::formats::Connection;
use rtkvm_tune::guest::is_ours;
use rtkvm_tune::host::{Machine, Node, Read, ReadError};
use rtkvm_tune::knobs;
use std::collections::BTreeSet;
use std::process::{Command, Output};

/// A guest of the simulated machine, and every other knob as this machine has it.
pub(crate) fn profile(guest: &str) -> String {
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

/// Guests of another libvirt have what they have, and where it is the system's by another name they have it once.
#[test]
fn guests_of_another_libvirt_keep_what_they_have() {
    let host = Host::start();
    let other = ["--connect", "qemu+unix:///system?socket=/run/libvirt/libvirt-sock"];
    let full = |name: &str| {
        profile(&format!("[[guest]]\nname = '{name}'\nvcpus = 6\nmemory = '2GiB'\nnuma-node = 1\n"))
    };
    tune(&host, &["apply", "PROFILE"], &full("first"), 0);
    // The whole node is its own, also for whoever asks by the other name.
    let dry = |connect: &[&str], status| {
        tune(&host, &[&["apply", "--dry-run"], connect, &["PROFILE"]].concat(), &full("second"), status)
    };
    for connect in [&[][..], &other] {
        let said = dry(connect, 2);
        assert!(said.contains("first (not of this profile) has 10-15"), "{said}");
    }
    assert!(
        tune(&host, &["apply", other[0], other[1], "PROFILE"], &full("first"), 0).contains("Nothing to do")
    );
    // While it does not answer the system's files may be its own: the guest is no other, and the host is planned.
    let dead =
        ["apply", "--dry-run", "--connect", "qemu+unix:///system?socket=/run/no-such-socket", "PROFILE"];
    let said = tune(&host, &dead, &full("first"), 0);
    assert!(said.contains("are not known: ") && !said.contains("not of this profile"), "{said}");
    // Only libvirt can tell of these: as far as files say there are none.
    std::fs::remove_file(host.at("/etc/libvirt/qemu/first.xml")).unwrap();
    dry(&[], 0);
    let said = dry(&other, 2);
    assert!(said.contains("first (not of this profile) has 10-15"), "{said}");
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

/// A base image with something in it, in the namespaces.
fn base_image(host: &Host, name: &str, format: &str, size: &str) -> String {
    let path = format!("/var/lib/libvirt/images/{name}");
    let image = host.at(&path);
    qemu(Command::new("qemu-img").args(["create", "-q", "-f", format]).arg(&image).arg(size));
    qemu(Command::new("qemu-io").args(["-f", format, "-c", "write -q -P 7 1M 1M"]).arg(&image));
    path
}

#[track_caller]
fn qemu(command: &mut Command) -> String {
    let output = command.output().expect("it starts: install the Debian package qemu-utils");
    let (status, text) = ended(&output);
    assert_eq!(status, Some(0), "{command:?}: {text}");
    text
}

/// Disks are whole copies, are made once, and stay.
#[test]
fn a_disk_is_made_of_its_base_image() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let host = Host::start();
    let bases = [
        base_image(&host, "-o x,json:{} $(reboot);.qcow2", "qcow2", "4M"),
        base_image(&host, "base.raw", "raw", "3M"),
    ];
    let disks = ["/var/lib/libvirt/images/new dir/it's a disk.raw", "/var/lib/libvirt/images/b.qcow2"];
    let section = |at: usize, more: &str| {
        format!("[[guest.disk]]\nsource = \"{}\"\nbase-image = \"{}\"\n{more}", disks[at], bases[at])
    };
    let both = section(0, "disk-size = \"8MiB\"\n") + &section(1, "format = \"qcow2\"\n");
    let wanted = profile(&guest("copied", &both));
    let plan = tune(&host, &["apply", "--dry-run", "PROFILE"], &wanted, 0);
    let told = "raw of 0.01 GiB, copied from /var/lib/libvirt/images/-o x,json:{} $(reboot);.qcow2";
    assert!(plan.contains(told), "{plan}");
    assert!(!host.at(disks[0]).exists());
    let said = tune(&host, &["apply", "PROFILE"], &wanted, 0);
    assert!(said.contains(&format!("done     make disk {}, raw of", disks[0])), "{said}");
    for (at, format, base, size) in [(0, "raw", "qcow2", 8 << 20), (1, "qcow2", "raw", 3 << 20)] {
        let disk = host.at(disks[at]);
        let metadata = disk.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
        // All of it is there.
        assert!(metadata.blocks() * 512 >= size, "{} blocks", metadata.blocks());
        let info = qemu(Command::new("qemu-img").args(["info", "--output=json"]).arg(&disk));
        let told = |text: String| assert!(info.contains(&text), "{text}: {info}");
        told(format!("\"virtual-size\": {size}"));
        told(format!("\"format\": \"{format}\""));
        assert!(!info.contains("backing-filename"), "{info}");
        let same = ["compare", "-q", "-f", base, "-F", format];
        qemu(Command::new("qemu-img").args(same).arg(host.at(&bases[at])).arg(&disk));
    }
    let held = host.virsh(&["dumpxml", "--inactive", "copied"], "");
    assert!(held.contains("disk.raw") && held.contains("type='qcow2'"), "{held}");
    assert!(tune(&host, &["apply", "PROFILE"], &wanted, 0).contains("Nothing to do"));
    tune(&host, &["verify", "PROFILE"], &wanted, 0);
    // Nor does it have to have a base any more, nor is it made larger, nor does it go with its line.
    std::fs::remove_file(host.at(&bases[1])).unwrap();
    tune(&host, &["apply", "PROFILE"], &wanted.replace("8MiB", "16MiB"), 0);
    tune(&host, &["apply", "PROFILE"], &profile(&guest("copied", "")), 0);
    assert_eq!(host.at(disks[0]).metadata().unwrap().len(), 8 << 20);
    tune(&host, &["apply", "PROFILE"], &wanted, 0);

    // Written to or not, a disk stays, and is nobody's business any more.
    let said = tune(&host, &["revert"], "", 0);
    let told = r"`rm '/var/lib/libvirt/images/new dir/it'\''s a disk.raw'` removes it";
    assert!(said.contains(told) && said.contains("b.qcow2 stays"), "{said}");
    assert!(!host.try_virsh(&["dominfo", "copied"], "").status.success());
    assert!(host.at(disks[1]).exists() && host.at(disks[0]).exists());
    assert!(!tune(&host, &["revert"], "", 0).contains("stays"));

    // What is there is the disk: it is never written over.
    std::fs::write(host.at(disks[1]), "mine").unwrap();
    std::fs::remove_dir_all(host.at("/var/lib/libvirt/images/new dir")).unwrap();
    let one = profile(&guest("copied", &section(0, "")));
    tune(&host, &["apply", "PROFILE"], &one, 0);
    // As large as the disk in the image, which qemu-img made.
    assert_eq!(host.at(disks[0]).metadata().unwrap().len(), 4 << 20);
    tune(&host, &["revert"], "", 0);
    assert_eq!(std::fs::read_to_string(host.at(disks[1])).unwrap(), "mine");
}

/// Whatever is wrong with a base image is told before anything is written.
#[test]
fn a_base_image_that_is_none_is_refused() {
    let host = Host::start();
    let base = base_image(&host, "base.qcow2", "qcow2", "4M");
    let dir = "/var/lib/libvirt/images";
    let backed = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2"];
    qemu(Command::new("qemu-img").args(backed).arg(host.at(&format!("{dir}/backed.qcow2"))));
    let data = host.at(&format!("{dir}/data.qcow2"));
    let own = format!("data_file={}", host.at(&format!("{dir}/data")).display());
    qemu(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-o", &own]).arg(data).arg("4M"));
    qemu(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "vmdk"])
            .arg(host.at(&format!("{dir}/v")))
            .arg("4M"),
    );
    std::fs::write(host.at(&format!("{dir}/empty")), "").unwrap();
    let disk = |image: &str, more: &str| {
        profile(&guest(
            "no",
            &format!("[[guest.disk]]\nsource = \"{dir}/no.raw\"\nbase-image = \"{image}\"\n{more}"),
        ))
    };
    for (image, more, told) in [
        ("backed.qcow2", "", "it has a backing file"),
        ("data.qcow2", "", "its data is in another file"),
        ("v", "", "it is in format vmdk"),
        ("empty", "", "its disk has 0 bytes"),
        ("missing", "", "it does not exist"),
        ("base.qcow2", "disk-size = \"1MiB\"\n", "has no room for its base image"),
        ("v", "base-format = \"qcow2\"\n", "it is not in format qcow2"),
    ] {
        let said = tune(&host, &["apply", "PROFILE"], &disk(&format!("{dir}/{image}"), more), 2);
        assert!(said.contains(told), "{told}: {said}");
    }
    // More than there is.
    let said = tune(&host, &["apply", "PROFILE"], &disk(&base, "disk-size = \"500TiB\"\n"), 2);
    assert!(said.contains("no room for") && said.contains("512000.00 GiB are needed"), "{said}");
    assert!(said.contains("nothing was written"), "{said}");
    assert!(!host.at(&format!("{dir}/no.raw")).exists());
    assert!(!host.try_virsh(&["dominfo", "no"], "").status.success());
}

#[test]
fn a_guest_is_started_with_the_host_or_not() {
    let host = Host::start();
    let wanted = |value: &str| profile(&guest("early", value));
    let starts = || host.virsh(&["list", "--all", "--autostart", "--name"], "").contains("early");
    for connect in [&[][..], &["--connect", "qemu+unix:///system?socket=/run/libvirt/libvirt-sock"]] {
        let apply = |profile: &str| tune(&host, &[&["apply"], connect, &["PROFILE"]].concat(), profile, 0);
        let said = apply(&wanted("autostart = true"));
        assert!(said.contains("done     turn autostart of guest early on in qemu"), "{said}");
        assert!(starts());
        assert!(apply(&wanted("autostart = true")).contains("Nothing to do"));
        // Left out, the guest keeps it.
        apply(&profile(""));
        assert!(starts());
        apply(&wanted("autostart = false"));
        assert!(!starts());
        let verify = [&["verify"], connect, &["PROFILE"]].concat();
        let said = tune(&host, &verify, &wanted("autostart = true"), 1);
        assert!(said.contains("guest.autostart"), "{said}");
        // Without the key it goes back to what it was first: off.
        apply(&wanted("autostart = true"));
        apply(&wanted(""));
        assert!(!starts());
        apply(&wanted("autostart = true"));
        tune(&host, &["revert"], "", 0);
        assert!(!host.try_virsh(&["dominfo", "early"], "").status.success());
    }
}
