//! Profiles as operators write them, good and bad: what is read, and what is said about the rest.

#[path = "profile/printed.rs"]
mod printed;

use proptest::prelude::*;
use rtkvm_tune::formats::{CpuSet, DeviceName, Size};
use rtkvm_tune::profile::keys::{KEYS, Key, Kind, Presence, header};
use rtkvm_tune::profile::{
    Attachment, BootLoader, DiskBus, DiskFormat, Failed, FeaturePolicy, Housekeeping, KnobValue, Level,
    MAX_PROFILE, MachineType, NicModel, Os, PageCount, Parsed, SocketMode, Watchdog, parse, render,
};

/// A profile with every key, each key once and on a line of its own.
const FULL: &str = r#"[host]
housekeeping-cpus = "0-1,8-9"
isolated-cpus = "2-7,10-15"
housekeeping-memory-per-node = "6GiB"
boot-loader = "manual"
libvirt-uri = "qemu:///session"
kernel-arguments = ["skew_tick=1", "nosmt"]
[host.hugepages]
size = "1GiB"
count = { "0" = 26, "1" = 25 }
[[guest]]
name = "rt0"
state = "present"
vcpus = 4
memory = "16GiB"
numa-node = 1
os = "linux"
machine = "pc"
cpu-features = ["invtsc=optional", "x2apic"]
poll-control = true
rng = true
watchdog = "reset"
autostart = true
threads-per-core = 2
fifo-priority = 3
rt-vcpus = "1"
template = "domain.xml"
[guest.cloud-init]
distribution = "debian"
kernel = "keep"
tuning = "tuned"
ssh-keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4y9bYx me"]
guest-arguments = ["console=ttyS0"]
user-data = "/etc/rtkvm-tune/own.yaml"
instance-id = "second"
[[guest.disk]]
source = "/dev/vg0/rt0"
format = "qcow2"
bus = "sata"
[[guest.disk]]
"source" = "/srv/rt0.img"
base-image = "/srv/base.qcow2"
base-format = "qcow2"
disk-size = "20GiB"
[[guest.network]]
bridge = "br0"
mac = "52:54:00:AA:bb:01"
model = "e1000e"
[[guest.network]]
macvtap = "eth1"
[[guest.network]]
virtual-function = "ens1f0/3"
[[guest.network]]
vf-pool = "vf"
[[guest.network]]
vhost-user = "/run/ovs/rt0.sock"
socket-mode = "client"
[[guest.hostdev]]
device = "81:00.0"
[knobs]
"cpu.mitigations" = "keep"
"#;

/// The least that is a profile.
const LEAST: &str = "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = \"6GiB\"\n";

fn good(text: &str) -> Parsed {
    parse("p.toml", text.as_bytes())
        .unwrap_or_else(|failed| panic!("{text}\n{}", render(&failed.diagnostics, &failed.source, false)))
}

fn bad(text: impl AsRef<[u8]>) -> Failed {
    match parse("p.toml", text.as_ref()) {
        Err(failed) => failed,
        Ok(parsed) => panic!("accepted: {}", parsed.source.text),
    }
}

/// What is printed about a bad profile.
fn printed(text: impl AsRef<[u8]>) -> String {
    let failed = bad(text);
    render(&failed.diagnostics, &failed.source, false)
}

/// [`FULL`] with `line` in place of the line with the same key.
fn full_with(line: &str) -> String {
    let key = line.split_inclusive('=').next().unwrap();
    assert_eq!(FULL.lines().filter(|old| old.starts_with(key)).count(), 1, "{key}");
    FULL.lines().map(|old| format!("{}\n", if old.starts_with(key) { line } else { old })).collect()
}

#[test]
fn reads_every_key() {
    let Parsed { profile, source, warnings } = good(FULL);
    assert!(warnings.is_empty());
    let host = &profile.host;
    assert_eq!(host.libvirt.uri(), "qemu:///session");
    assert!(profile.absent.is_empty());
    let set = |list: &str| CpuSet::parse_list(list).unwrap();
    assert!(matches!(&host.housekeeping, Housekeeping::Cpus(cpus) if cpus.value == set("0-1,8-9")));
    let isolated = host.isolated_cpus.as_ref().unwrap();
    assert_eq!((&isolated.value, &source.text[isolated.span.clone()]), (&set("2-7,10-15"), "\"2-7,10-15\""));
    assert_eq!(host.housekeeping_memory_per_node.as_ref().unwrap().value, Size(6 << 30));
    assert_eq!(host.boot_loader.value, BootLoader::Manual);
    let arguments: Vec<&str> = host.kernel_arguments.iter().map(|argument| argument.as_str()).collect();
    assert_eq!(arguments, ["skew_tick=1", "nosmt"]);
    assert_eq!(host.hugepages.size.value, Size::GIB);
    assert_eq!(&source.text[host.hugepages.span.clone()], "[host.hugepages]");
    let Some(PageCount::Nodes { pages, span }) = &host.hugepages.count else { panic!("no table") };
    assert_eq!(pages.iter().map(|(id, n)| (*id, n.value)).collect::<Vec<_>>(), [(0, 26), (1, 25)]);
    assert_eq!(&source.text[span.clone()], "{ \"0\" = 26, \"1\" = 25 }");

    let [guest] = &profile.guests[..] else { panic!("one guest") };
    assert_eq!((guest.name.as_str(), guest.vcpus.value, guest.memory.value), ("rt0", 4, Size(16 << 30)));
    assert_eq!(guest.numa_nodes.as_ref().unwrap().value, [1]);
    assert_eq!((guest.os.value, guest.threads_per_core.value, guest.fifo_priority.value), (Os::Linux, 2, 3));
    assert_eq!(guest.rt_vcpus.value, set("1"));
    assert_eq!(guest.template.as_ref().unwrap().as_str(), "domain.xml");
    let [disk, copied] = &guest.disks[..] else { panic!("two disks") };
    assert_eq!((disk.source.as_str(), disk.format.value), ("/dev/vg0/rt0", DiskFormat::Qcow2));
    assert!(disk.is_block_device());
    assert_eq!(disk.bus.as_ref().unwrap().value, DiskBus::Sata);
    assert!(disk.base.is_none() && guest.autostart.as_ref().unwrap().value);
    let base = copied.base.as_ref().unwrap();
    assert_eq!((copied.source.as_str(), base.image.as_str()), ("/srv/rt0.img", "/srv/base.qcow2"));
    assert_eq!(base.format.as_ref().unwrap().value, DiskFormat::Qcow2);
    assert_eq!(base.size.as_ref().unwrap().value, Size(20 << 30));
    assert_eq!(guest.machine.as_ref().unwrap().value, MachineType::Pc);
    let features: Vec<_> = guest.cpu_features.iter().map(|f| (f.name.as_str(), f.policy)).collect();
    assert_eq!(features, [("invtsc", FeaturePolicy::Optional), ("x2apic", FeaturePolicy::Require)]);
    assert_eq!(&source.text[guest.cpu_features[1].span.clone()], "\"x2apic\"");
    assert!(guest.poll_control.value && guest.rng.value);
    assert_eq!(guest.watchdog.value, Watchdog::Reset);
    let [bridge, macvtap, function, pool, socket] = &guest.networks[..] else { panic!("five networks") };
    assert!(matches!(&bridge.attachment, Attachment::Bridge(name) if name.as_str() == "br0"));
    assert_eq!(bridge.mac.as_ref().unwrap().as_str(), "52:54:00:aa:bb:01");
    assert_eq!(bridge.model.as_ref().unwrap().value, NicModel::E1000e);
    assert!(matches!(&macvtap.attachment, Attachment::Macvtap(name) if name.as_str() == "eth1"));
    assert!(matches!(&function.attachment, Attachment::VirtualFunction(name)
        if name.value == DeviceName::Virtual("ens1f0".into(), 3)));
    assert!(matches!(&pool.attachment, Attachment::Pool(name) if name.as_str() == "vf"));
    assert!(matches!(&socket.attachment, Attachment::VhostUser { socket, mode: SocketMode::Client }
        if socket.as_str() == "/run/ovs/rt0.sock"));
    assert_eq!(
        guest.devices().map(|name| name.to_string()).collect::<Vec<_>>(),
        ["ens1f0/3", "0000:81:00.0"]
    );
    let [knob] = &profile.knobs[..] else { panic!("one knob") };
    let keep = KnobValue::Text("keep".into());
    assert_eq!((knob.id.as_str(), &knob.value.value), ("cpu.mitigations", &keep));
    assert_eq!(&source.text[knob.id.span.clone()], "\"cpu.mitigations\"");
}

#[test]
fn fills_in_the_defaults() {
    let text =
        format!("{LEAST}[[guest]]\nname = 'a'\nvcpus = 2\nmemory = '2GiB'\n[[guest.disk]]\nsource = '/a'\n");
    let Parsed { profile, source, .. } = good(&text);
    let host = &profile.host;
    assert!(matches!(&host.housekeeping, Housekeeping::PerNode(number) if number.value == 2));
    assert_eq!((host.boot_loader.value, host.hugepages.size.value), (BootLoader::Auto, Size::GIB));
    assert_eq!((&host.isolated_cpus, &host.hugepages.count), (&None, &None));
    assert_eq!(&source.text[host.hugepages.size.span.clone()], "[host]");
    let guest = &profile.guests[0];
    assert_eq!((guest.os.value, guest.threads_per_core.value, guest.fifo_priority.value), (Os::Linux, 1, 1));
    assert_eq!(guest.rt_vcpus.to_string(), "0-1");
    assert_eq!(&source.text[guest.rt_vcpus.span.clone()], "[[guest]]");
    assert_eq!((&guest.numa_nodes, &guest.template, &guest.machine), (&None, &None, &None));
    assert!(!guest.poll_control.value && !guest.rng.value && guest.cpu_features.is_empty());
    assert_eq!((guest.watchdog.value, &guest.disks[0].bus), (Watchdog::None, &None));
    assert_eq!(guest.disks[0].format.value, DiskFormat::Raw);
    assert!(!guest.disks[0].is_block_device());
    assert!(good(LEAST).profile.guests.is_empty());
}

#[test]
fn takes_the_other_forms() {
    let count = "[host]\nhousekeeping-cpus-per-node = 1\nhugepages = { size = '2MiB', count = 0x10 }\n";
    let profile = good(count).profile;
    assert!(profile.host.housekeeping_memory_per_node.is_none());
    assert!(matches!(profile.host.hugepages.count, Some(PageCount::PerNode(pages)) if pages.value == 16));
    good(&FULL.replace('\n', "\r\n"));
    let (start, end) = (FULL.find("[guest.cloud-init]").unwrap(), FULL.find("[[guest.disk]]").unwrap());
    let single = full_with("vcpus = 1").replace(&FULL[start..end], "");
    let single = single.replace("linux", "other").replace("core = 2", "core = 1");
    assert_eq!(good(&single.replace("\"1\"\n", "\"all\"\n")).profile.guests[0].rt_vcpus.to_string(), "0");
    good(&format!("\u{feff}{FULL}"));
    let knobs = good(&format!("{LEAST}[knobs]\nz = 'keep'\na = -16\n")).profile.knobs;
    assert_eq!(knobs.iter().map(|knob| knob.id.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    assert_eq!(knobs[1].value.value, KnobValue::Number(-16));
}

#[test]
fn the_reference_profile_is_the_one_of_libvirts_guide() {
    let Parsed { profile, warnings, .. } = good(include_str!("../profiles/kvm-realtime.toml"));
    assert!(warnings.is_empty());
    assert!(matches!(&profile.host.housekeeping, Housekeeping::PerNode(number) if number.value == 2));
    assert_eq!(profile.host.housekeeping_memory_per_node.unwrap().value, Size(6 << 30));
    assert_eq!(profile.host.hugepages.size.value, Size::GIB);
    let guest = &profile.guests[0];
    assert_eq!((guest.name.as_str(), guest.vcpus.value, guest.memory.value), ("rt0", 4, Size(16 << 30)));
    assert_eq!(guest.numa_nodes.as_ref().unwrap().value, [1]);
    assert_eq!(guest.disks[0].source.as_str(), "/dev/vg0/rt0");
    assert!(matches!(&guest.networks[0].attachment, Attachment::Bridge(name) if name.as_str() == "br0"));
}

/// The commented lines of the reference profile are meant to be used.
#[test]
fn the_alternatives_in_the_reference_profile_hold() {
    let text = include_str!("../profiles/kvm-realtime.toml");
    let option = |line: &str| format!("# {line}");
    for line in text.lines().filter(|line| line.starts_with("# ") && line.contains(" = ")) {
        let edited = text.replace(line, &line[2..]);
        let edited = match line.contains("\"keep\"") {
            true => edited.replace(&option("[knobs]"), "[knobs]"),
            false => edited,
        };
        let edited = match line.contains("housekeeping-cpus =") {
            true => edited.replace("housekeeping-cpus-per-node = 2", ""),
            false => edited,
        };
        good(&edited);
    }
}

#[test]
fn every_key_is_read_and_documented() {
    for Key { section, name, kind, presence, doc } in KEYS.iter().copied() {
        assert!(doc.ends_with('.') && doc.len() > 10, "{section}.{name}");
        assert_eq!(KEYS.iter().filter(|key| key.name == name).count(), 1, "{name}");
        // A date is never right, so that a key that nobody reads would be found here.
        let text = match (kind, section) {
            (Kind::Table | Kind::Tables, "") => format!("{name} = 1979-05-27\n"),
            (Kind::Table | Kind::Tables, "host") => format!("{LEAST}{name} = 1979-05-27\n"),
            (Kind::Table | Kind::Tables, _) => format!("{LEAST}{}\n{name} = 1979-05-27\n", header(section)),
            // Exclude keys of FULL.
            _ if name == "numa-nodes" => FULL.replace("numa-node = 1", "numa-nodes = 1979-05-27"),
            _ if name == "housekeeping-cpus-per-node" => LEAST.replace("= 2", "= 1979-05-27"),
            _ => full_with(&format!("{name} = 1979-05-27")),
        };
        let messages: Vec<String> = bad(&text).diagnostics.into_iter().map(|d| d.message).collect();
        assert!(messages.contains(&format!("`{name}` has the wrong type")), "{name}: {messages:?}");
        if let (Presence::Default(value), Kind::Choice(names)) = (presence, kind) {
            assert!(names.contains(&value), "{name}");
        }
    }
}

/// A line of [`FULL`] changed, and the one error: its message, the text it marks and the label there.
#[rustfmt::skip]
const WRONG_VALUES: &[(&str, &str, &str, &str)] = &[
    // Types.
    (r#"vcpus = "4""#, "`vcpus` has the wrong type", r#""4""#, "expected a whole number, found a string"),
    ("vcpus = 4.5", "`vcpus` has the wrong type", "4.5", "expected a whole number, found a number with a fraction"),
    ("vcpus = true", "`vcpus` has the wrong type", "true", "expected a whole number, found a truth value"),
    ("vcpus = 1979-05-27", "`vcpus` has the wrong type", "1979-05-27", "expected a whole number, found a date or time"),
    ("name = 7", "`name` has the wrong type", "7", "expected a string, found a whole number"),
    ("memory = 16", "`memory` has the wrong type", "16", r#"expected a size in a string, as in "6GiB", found a whole number"#),
    ("housekeeping-cpus = [0, 1]", "`housekeeping-cpus` has the wrong type", "[0, 1]", r#"expected a CPU list in a string, as in "2-7,10-15", found an array"#),
    (r#"kernel-arguments = "a=1""#, "`kernel-arguments` has the wrong type", r#""a=1""#, "expected an array of strings, found a string"),
    (r#"kernel-arguments = [1, "a=1"]"#, "`kernel-arguments` has the wrong type", "1", "expected a string in the array, found a whole number"),
    (r#"count = "26""#, "`count` has the wrong type", r#""26""#, "expected a whole number or a table by node id, found a string"),
    // CPU lists.
    (r#"housekeeping-cpus = "0-1,4-N""#, "`0-1,4-N` cannot be used as `housekeeping-cpus`", "4-N", "`N` depends on the machine: write the CPU numbers, as in `2-7`"),
    (r#"housekeeping-cpus = "0-7:3/2""#, "`0-7:3/2` cannot be used as `housekeeping-cpus`", "0-7:3/2", "`:3/2` is not a stride: write `:USED/GROUP` with 1 <= USED <= GROUP, as in `0-7:1/2`"),
    (r#"housekeeping-cpus = "0,3-1""#, "`0,3-1` cannot be used as `housekeeping-cpus`", "3-1", "the range `3-1` is descending: write `1-3`"),
    (r#"housekeeping-cpus = "1,,2""#, "`1,,2` cannot be used as `housekeeping-cpus`", ",,", "an empty element in the CPU list: remove the extra comma"),
    (r#"housekeeping-cpus = "\u0031,x""#, "`1,x` cannot be used as `housekeeping-cpus`", r#""\u0031,x""#, "`x` is not a CPU number: write a list such as `0-3,8`"),
    ("housekeeping-cpus = '1,x'", "`1,x` cannot be used as `housekeeping-cpus`", "x", "`x` is not a CPU number: write a list such as `0-3,8`"),
    (r#"housekeeping-cpus = """1,x""""#, "`1,x` cannot be used as `housekeeping-cpus`", r#""""1,x""""#, "`x` is not a CPU number: write a list such as `0-3,8`"),
    (r#"housekeeping-cpus = "0-9999""#, "`0-9999` cannot be used as `housekeeping-cpus`", "0-9999", "CPU 9999 is above 8191, the highest number a Linux kernel can have"),
    (r#"housekeeping-cpus = """#, "`housekeeping-cpus` is empty", r#""""#, "expected at least one CPU"),
    (r#"isolated-cpus = " ""#, "`isolated-cpus` is empty", r#"" ""#, "expected at least one CPU"),
    (r#"isolated-cpus = "0-7,8-15""#, "`housekeeping-cpus` and `isolated-cpus` overlap", r#""0-7,8-15""#, "CPUs 0-1,8-9 are in both"),
    (r#"isolated-cpus = "1-7""#, "`housekeeping-cpus` and `isolated-cpus` overlap", r#""1-7""#, "CPU 1 is in both"),
    (r#"rt-vcpus = "1-4""#, "the guest has no vCPU 4", r#""1-4""#, "its vCPUs are 0-3"),
    (r#"rt-vcpus = """#, "`rt-vcpus` is empty", r#""""#, "expected at least one CPU"),
    (r#"rt-vcpus = "1,all""#, "`1,all` cannot be used as `rt-vcpus`", "all", "`all` depends on the machine: write the CPU numbers, as in `2-7`"),
    // Numbers.
    ("vcpus = 0", "`0` cannot be used as `vcpus`", "0", "expected 1 to 512"),
    ("vcpus = 513", "`513` cannot be used as `vcpus`", "513", "expected 1 to 512"),
    ("vcpus = -2", "`-2` cannot be used as `vcpus`", "-2", "expected 1 to 512"),
    ("vcpus = 99999999999999999999", "`99999999999999999999` cannot be used as `vcpus`", "99999999999999999999", "expected 1 to 512"),
    ("numa-node = 1024", "`1024` cannot be used as `numa-node`", "1024", "expected 0 to 1023"),
    ("fifo-priority = 0", "`0` cannot be used as `fifo-priority`", "0", "expected 1 to 99"),
    ("fifo-priority = 100", "`100` cannot be used as `fifo-priority`", "100", "expected 1 to 99"),
    ("threads-per-core = 3", "`3` cannot be used as `threads-per-core`", "3", "expected 1 to 2"),
    ("count = 0", "`0` cannot be used as `count`", "0", "expected 1 to 16777216"),
    (r#"count = { "01" = 25 }"#, "`01` is not a node id", r#""01""#, r#"expected "0" to "1023""#),
    (r#"count = { "0" = -1 }"#, "`-1` cannot be used as `count`", "-1", "expected 0 to 16777216"),
    // Sizes.
    (r#"housekeeping-memory-per-node = "6GB""#, "`6GB` cannot be used as `housekeeping-memory-per-node`", r#""6GB""#, "`GB` is not a binary unit: write `6GiB`"),
    (r#"memory = "0GiB""#, "`0GiB` cannot be used as `memory`", r#""0GiB""#, "expected more than nothing"),
    (r#"memory = "16""#, "`16` cannot be used as `memory`", r#""16""#, "`16` has no known unit: write a whole number with KiB, MiB, GiB or TiB, as in `6GiB`"),
    (r#"memory = "16385MiB""#, "`16385MiB` is not a multiple of the page size 1GiB", r#""16385MiB""#, "the nearest are 16GiB and 17GiB"),
    (r#"memory = "512MiB""#, "`512MiB` is not a multiple of the page size 1GiB", r#""512MiB""#, "the smallest is 1GiB"),
    (r#"size = "3GiB""#, "`3GiB` is no size of huge pages", r#""3GiB""#, "expected a power of two from 64KiB to 16GiB, as 2MiB or 1GiB"),
    (r#"size = "4KiB""#, "`4KiB` is no size of huge pages", r#""4KiB""#, "expected a power of two from 64KiB to 16GiB, as 2MiB or 1GiB"),
    // Names and paths.
    (r#"name = "a/b""#, "`a/b` cannot be used as `name`", r#""a/b""#, "a guest name has no `/`: use letters, digits and _ . + -"),
    (r#"name = "<a>""#, "`<a>` cannot be used as `name`", r#""<a>""#, "a guest name has no `<`: use letters, digits and _ . + -"),
    (r#"name = "a\"b""#, r#"`a"b` cannot be used as `name`"#, r#""a\"b""#, r#"a guest name has no `"`: use letters, digits and _ . + -"#),
    (r#"name = "a\nb""#, "`a\nb` cannot be used as `name`", r#""a\nb""#, "a guest name has no newline: use letters, digits and _ . + -"),
    (r#"name = "300""#, "`nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn...` cannot be used as `name`", r#""300""#, "a guest name has 1 to 64 characters, not 300"),
    (r#"name = ".""#, "`.` cannot be used as `name`", r#"".""#, "a guest name starts with a letter or a digit"),
    (r#"name = """#, "an empty string cannot be used as `name`", r#""""#, "a guest name has 1 to 64 characters, not 0"),
    (r#"name = "ä""#, "`ä` cannot be used as `name`", r#""ä""#, "a guest name has no `ä`: use letters, digits and _ . + -"),
    (r#"name = "\u001b[31m""#, "`\u{1b}[31m` cannot be used as `name`", r#""\u001b[31m""#, "a guest name has no U+001B: use letters, digits and _ . + -"),
    (r#"template = "../../etc/passwd""#, "`../../etc/passwd` cannot be used as `template`", r#""../../etc/passwd""#, "a template name has no `/`: use letters, digits and _ . + -"),
    (r#"template = "domain.xml.j2""#, "`domain.xml.j2` cannot be used as `template`", r#""domain.xml.j2""#, "a template name ends in .xml"),
    (r#"source = "vg0/rt0""#, "`vg0/rt0` cannot be used as `source`", r#""vg0/rt0""#, r#"a disk is named by its absolute path, as in "/dev/vg0/rt0""#),
    (r#"source = "/dev/../etc/shadow""#, "`/dev/../etc/shadow` cannot be used as `source`", r#""/dev/../etc/shadow""#, "write the path without `..`"),
    (r#"source = "/dev/a\u0007""#, "`/dev/a\u{7}` cannot be used as `source`", r#""/dev/a\u0007""#, "a path has no U+0007"),
    (r#"source = "/srv/""#, "`/srv/` cannot be used as `source`", r#""/srv/""#, "a disk is not a directory"),
    (r#"source = "/srv//a""#, "`/srv//a` cannot be used as `source`", r#""/srv//a""#, "write one `/` between two names"),
    (r#"base-image = "base.qcow2""#, "`base.qcow2` cannot be used as `base-image`", r#""base.qcow2""#, r#"a disk is named by its absolute path, as in "/dev/vg0/rt0""#),
    (r#"base-image = "/srv/rt0.img""#, "a disk is not made of itself", r#""/srv/rt0.img""#, "name the file to make as `source`, and another image here"),
    (r#"base-format = "vmdk""#, "`vmdk` cannot be used as `base-format`", r#""vmdk""#, r#"expected "raw" or "qcow2""#),
    (r#"disk-size = "0GiB""#, "`0GiB` cannot be used as `disk-size`", r#""0GiB""#, "expected more than nothing"),
    (r#"bridge = "br/0""#, "`br/0` cannot be used as `bridge`", r#""br/0""#, "an interface name has no `/`: use letters, digits and _ . -"),
    (r#"bridge = "br 0""#, "`br 0` cannot be used as `bridge`", r#""br 0""#, "an interface name has no ` `: use letters, digits and _ . -"),
    (r#"bridge = "br0123456789abcd""#, "`br0123456789abcd` cannot be used as `bridge`", r#""br0123456789abcd""#, "an interface name has 1 to 15 characters, not 16"),
    (r#"bridge = """#, "an empty string cannot be used as `bridge`", r#""""#, "an interface name has 1 to 15 characters, not 0"),
    (r#"bridge = "..""#, "`..` cannot be used as `bridge`", r#""..""#, "the kernel refuses `..` as an interface name"),
    // Choices.
    (r#"os = "dos""#, "`dos` cannot be used as `os`", r#""dos""#, r#"expected "linux" or "other" or "windows""#),
    // Devices.
    ("poll-control = 1", "`poll-control` has the wrong type", "1", "expected true or false, found a whole number"),
    (r#"cpu-features = ["tsc_deadline"]"#, "`tsc_deadline` cannot be used as `cpu-features`", r#""tsc_deadline""#, "libvirt calls it `tsc-deadline`, and starts no guest with this name"),
    (r#"cpu-features = ["a'/>"]"#, "`a'/>` cannot be used as `cpu-features`", r#""a'/>""#, "a CPU feature is named by small letters, digits and . _ -, as in \"invtsc\""),
    (r#"cpu-features = ["a=on"]"#, "`a=on` cannot be used as `cpu-features`", r#""a=on""#, "the policy of a CPU feature is require, optional, disable, force or forbid"),
    (r#"cpu-features = ["a", "a=force"]"#, "CPU feature `a` is there twice", r#""a=force""#, "remove one of the two"),
    (r#"mac = "52:54:00:aa:bb""#, "`52:54:00:aa:bb` cannot be used as `mac`", r#""52:54:00:aa:bb""#, "a MAC address is six pairs of hexadecimal digits, as in \"52:54:00:12:34:56\""),
    (r#"mac = "53:54:00:aa:bb:cc""#, "`53:54:00:aa:bb:cc` cannot be used as `mac`", r#""53:54:00:aa:bb:cc""#, "it is the address of a group: its first byte is odd"),
    (r#"mac = "00:00:00:00:00:00""#, "`00:00:00:00:00:00` cannot be used as `mac`", r#""00:00:00:00:00:00""#, "the address of all zeros is nobody's"),
    (r#"macvtap = "eth1'/>""#, "`eth1'/>` cannot be used as `macvtap`", r#""eth1'/>""#, "an interface name has no `'`: use letters, digits and _ . -"),
    (r#"virtual-function = "ens1f0/x""#, "`ens1f0/x` cannot be used as `virtual-function`", r#""ens1f0/x""#, "`x` is not the number of a virtual function, as in `ens1f0/3`"),
    (r#"vf-pool = "a b""#, "`a b` cannot be used as `vf-pool`", r#""a b""#, "a network name has no ` `: use letters, digits and _ . + -"),
    (r#"vhost-user = "rt0.sock""#, "`rt0.sock` cannot be used as `vhost-user`", r#""rt0.sock""#, r#"a socket is named by its absolute path, as in "/run/openvswitch/rt0.sock""#),
    (r#"device = "0000:81:00.9""#, "`0000:81:00.9` cannot be used as `device`", r#""0000:81:00.9""#, "`0000:81:00.9` is not a PCI address such as 0000:81:10.1"),
    (r#"device = "ens1f0/3""#, "device `ens1f0/3` is used twice", r#""ens1f0/3""#, "first used in line 52 by guest `rt0`"),
    // Kernel arguments.
    (r#"kernel-arguments = ["skew_tick=1", "isolcpus=2-7"]"#, "`isolcpus=2-7` cannot be used as `kernel-arguments`", r#""isolcpus=2-7""#, "`isolcpus` is set by this program: use `isolated-cpus` or a housekeeping key of [host]"),
    (r#"kernel-arguments = ["nohz_full=2-7"]"#, "`nohz_full=2-7` cannot be used as `kernel-arguments`", r#""nohz_full=2-7""#, "`nohz_full` is set by this program: use `isolated-cpus` or a housekeeping key of [host]"),
    (r#"kernel-arguments = ["nohz-full=2-7"]"#, "`nohz-full=2-7` cannot be used as `kernel-arguments`", r#""nohz-full=2-7""#, "`nohz_full` is set by this program: use `isolated-cpus` or a housekeeping key of [host]"),
    (r#"kernel-arguments = ["rcu_nocbs=2-7"]"#, "`rcu_nocbs=2-7` cannot be used as `kernel-arguments`", r#""rcu_nocbs=2-7""#, "`rcu_nocbs` is set by this program: use `isolated-cpus` or a housekeeping key of [host]"),
    (r#"kernel-arguments = ["irqaffinity=0"]"#, "`irqaffinity=0` cannot be used as `kernel-arguments`", r#""irqaffinity=0""#, "`irqaffinity` is set by this program: use `housekeeping-cpus` or `housekeeping-cpus-per-node` of [host]"),
    (r#"kernel-arguments = ["default_hugepagesz=1G"]"#, "`default_hugepagesz=1G` cannot be used as `kernel-arguments`", r#""default_hugepagesz=1G""#, "`default_hugepagesz` is set by this program: use `size` of [host.hugepages]"),
    (r#"kernel-arguments = ["hugepagesz=1G"]"#, "`hugepagesz=1G` cannot be used as `kernel-arguments`", r#""hugepagesz=1G""#, "`hugepagesz` is set by this program: use `size` of [host.hugepages]"),
    (r#"kernel-arguments = ["hugepages=4"]"#, "`hugepages=4` cannot be used as `kernel-arguments`", r#""hugepages=4""#, "`hugepages` is set by this program: use `count` of [host.hugepages]"),
    (r#"kernel-arguments = ["k=a b"]"#, r#"`k=a b` cannot be used as `kernel-arguments`"#, r#""k=a b""#, r#"the value of kernel argument `k` has a space: it would end the argument. Use letters, digits and `_-.,:=/+@%~[]()`"#),
    (r#"kernel-arguments = ["k=a$b"]"#, r#"`k=a$b` cannot be used as `kernel-arguments`"#, r#""k=a$b""#, r#"the value of kernel argument `k` has `$`: update-grub reads the boot settings as a shell script, as root, and would expand it. Use letters, digits and `_-.,:=/+@%~[]()`"#),
    (r#"kernel-arguments = ["k=a`b"]"#, r#"`k=a`b` cannot be used as `kernel-arguments`"#, r#""k=a`b""#, r#"the value of kernel argument `k` has a backtick: update-grub reads the boot settings as a shell script, as root, and would expand it. Use letters, digits and `_-.,:=/+@%~[]()`"#),
    (r#"kernel-arguments = ["k=a\\b"]"#, r#"`k=a\b` cannot be used as `kernel-arguments`"#, r#""k=a\\b""#, r#"the value of kernel argument `k` has `\\`: update-grub reads the boot settings as a shell script, as root, and would expand it. Use letters, digits and `_-.,:=/+@%~[]()`"#),
    (r#"kernel-arguments = ["k=a\nb"]"#, "`k=a\nb` cannot be used as `kernel-arguments`", r#""k=a\nb""#, r#"the value of kernel argument `k` has `\n`: it would end the argument. Use letters, digits and `_-.,:=/+@%~[]()`"#),
    (r#"kernel-arguments = ["k=a\"b"]"#, r#"`k=a"b` cannot be used as `kernel-arguments`"#, r#""k=a\"b""#, r#"the value of kernel argument `k` has `\"`: the shell, GRUB and the kernel each read quotes in their own way. Use letters, digits and `_-.,:=/+@%~[]()`"#),
    (r#"kernel-arguments = ["k=a'b"]"#, r#"`k=a'b` cannot be used as `kernel-arguments`"#, r#""k=a'b""#, r#"the value of kernel argument `k` has `\'`: the shell, GRUB and the kernel each read quotes in their own way. Use letters, digits and `_-.,:=/+@%~[]()`"#),
    (r#"kernel-arguments = ["a$b"]"#, "`a$b` cannot be used as `kernel-arguments`", r#""a$b""#, "`a$b` is not a kernel parameter name: use letters, digits, `_`, `-` and `.`, as in `kvm.nx`"),
    (r#"kernel-arguments = ["--"]"#, "`--` cannot be used as `kernel-arguments`", r#""--""#, "`--` is not a kernel argument: the kernel hands what follows to init"),
    (r#"kernel-arguments = [""]"#, "an empty string cannot be used as `kernel-arguments`", r#""""#, "a kernel argument is empty: write NAME or NAME=VALUE"),
    (r#"kernel-arguments = ["=1"]"#, "`=1` cannot be used as `kernel-arguments`", r#""=1""#, "a kernel argument is empty: write NAME or NAME=VALUE"),
    // Knobs.
    (r#""cpu.mitigations" = true"#, "the override of `cpu.mitigations` has the wrong type", "true", "expected a string or a whole number, found a truth value"),
];

#[test]
fn wrong_values_are_named() {
    let long = "n".repeat(300);
    for (line, message, marked, label) in WRONG_VALUES {
        let line = line.replace("300", &long);
        let text = full_with(&line);
        let Failed { diagnostics, source } = bad(&text);
        let printed = render(&diagnostics, &source, false);
        let [error] = &diagnostics[..] else { panic!("{line}: not one error\n{printed}") };
        let span = error.span.clone().unwrap();
        assert_eq!((&error.message[..], &error.label[..]), (*message, *label), "{line}");
        assert_eq!(source.text[span.clone()].replace(&long, "300"), *marked, "{line}");
        let start_of_line = text.find(&line).unwrap();
        assert!((start_of_line..=start_of_line + line.len()).contains(&span.start), "{line}");
    }
}

#[test]
fn what_goes_into_a_guest_is_checked() {
    for (line, told) in [
        ("ssh-keys = [\"ssh-ed25519 AAAA\"]", "expected one line of a .pub file"),
        (
            "ssh-keys = [\"command=x ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4y9bYx\"]",
            "expected one line of a .pub file",
        ),
        (
            "ssh-keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4y9bYx\\nroot\"]",
            "a public key has no newline",
        ),
        ("guest-arguments = [\"a\\\"$(id)\"]", "a guest's kernel argument has no `\"`"),
        ("guest-arguments = [\"a b\"]", "a guest's kernel argument has no ` `"),
        ("user-data = \"own.yaml\"", "absolute path"),
        ("instance-id = \"a\\nb\"", "instance id has no newline"),
        ("distribution = \"debain\"", "did you mean \"debian\"?"),
    ] {
        let printed = printed(full_with(line));
        assert!(printed.contains(told), "{line}: {printed}");
    }
    assert!(printed(FULL.replace("os = \"linux\"", "os = \"other\"")).contains("tunes a Linux guest only"));
}

#[test]
fn a_disk_is_made_of_an_image_or_is_there() {
    for (from, to, told) in [
        ("base-image = \"/srv/base.qcow2\"\n", "", "`base-format` goes with `base-image` alone"),
        ("base-image = \"/srv/base.qcow2\"\nbase-format = \"qcow2\"\n", "", "`disk-size` goes with"),
        ("\"/srv/rt0.img\"", "\"/dev/vg0/b\"", "a block device is not made of an image"),
    ] {
        let printed = printed(FULL.replace(from, to));
        assert!(printed.contains(told), "{told}: {printed}");
    }
}

#[test]
fn a_guest_to_undefine_needs_its_name_only() {
    let text = |name: &str| format!("{LEAST}[[guest]]\nname = \"{name}\"\nstate = \"absent\"\n");
    let profile = good(&text("rt0")).profile;
    assert_eq!((profile.guests.len(), profile.absent[0].value.as_str()), (0, "rt0"));
    // The name is checked all the same, and is one of a kind.
    assert!(printed(text("../x")).contains("a guest name has no `/`"));
    assert!(printed(format!("{FULL}[[guest]]\nname = \"rt0\"\nstate = \"absent\"\n")).contains("two guests"));
    assert!(
        printed(full_with("libvirt-uri = \"qemu+ssh://localhost/system?command=x\""))
            .contains("parameter `command`")
    );
}

#[test]
fn everything_wrong_is_printed_at_once() {
    for (text, expected) in printed::PRINTED {
        let text = text.strip_prefix("+\n").map_or(text.to_string(), |rest| format!("{LEAST}{rest}"));
        let printed = printed(&text);
        assert_eq!(printed, *expected, "\n{text}\n--- printed:\n{printed}");
    }
}

#[test]
fn what_is_no_text_is_said_so() {
    for (bytes, expected) in [
        (&b"a\0b"[..], "error: profile is not a text: byte 1 is NUL\n--> p.toml\n"),
        (b"\x7fELF\x02\x01\x01\0", "error: profile is not a text: byte 7 is NUL\n--> p.toml\n"),
        (b"\xff\xfe[\0h\0", "error: profile is UTF-16: save it as UTF-8\n--> p.toml\n"),
        (
            b"[host]\n# caf\xe9 \xff\n",
            "error: profile is not UTF-8: byte 12 is 0xe9\n \
             --> p.toml:2:6\n  |\n2 | # caf\u{fffd} \u{fffd}\n  |      ^ save the profile as UTF-8\n",
        ),
    ] {
        assert_eq!(printed(bytes), expected);
    }
    let filled = |size: usize| format!("{LEAST}#{}", "x".repeat(size - LEAST.len() - 1));
    good(&filled(MAX_PROFILE));
    let expected = "error: profile is 1048577 bytes; the limit is 1 MiB\n--> p.toml\n";
    assert_eq!(printed(filled(MAX_PROFILE + 1)), expected);
}

#[test]
fn a_flood_of_errors_is_cut() {
    let text = LEAST.to_owned() + &(0..20_000).map(|n| format!("k{n} = 1\n")).collect::<String>();
    let diagnostics = bad(&text).diagnostics;
    assert_eq!(diagnostics.len(), 51);
    assert_eq!(diagnostics[50].message, "19950 more of these are not shown");
}

#[test]
fn a_repeated_kernel_argument_is_a_warning() {
    let text = full_with("kernel-arguments = [\"a=1\", \"b\", \"a=1\"]");
    let [warning] = &good(&text).warnings[..] else { panic!("one warning") };
    assert_eq!((warning.level, &warning.message[..]), (Level::Warning, "kernel argument `a=1` is repeated"));
    assert_eq!(warning.span.clone().unwrap().start, text.rfind("\"a=1\"").unwrap());
}

/// What holds for whatever is parsed: a profile without errors, or errors in source order; always printable.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    match parse("p.toml", bytes) {
        Ok(parsed) => {
            prop_assert!(parsed.warnings.iter().all(|d| d.level == Level::Warning));
            let guests = &parsed.profile.guests;
            prop_assert!(guests.iter().all(|guest| guest.rt_vcpus.last() < Some(guest.vcpus.value)));
            prop_assert!(guests.iter().all(|guest| !guest.name.contains(['/', '<', '"', '\n'])));
        }
        Err(failed) => {
            prop_assert!(failed.diagnostics.iter().any(|d| d.level == Level::Error));
            let starts: Vec<usize> =
                failed.diagnostics.iter().filter_map(|d| Some(d.span.as_ref()?.start)).collect();
            prop_assert!(starts.is_sorted());
            let printed = render(&failed.diagnostics, &failed.source, false);
            prop_assert!(printed.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes)?;
    }

    #[test]
    fn no_toml_like_text_panics(
        tokens in prop::collection::vec(
            prop::sample::select(vec![
                "[", "]", "[[", "]]", "{", "}", "=", ",", ".", "\"", "'", "\"\"\"", "'''", "#", "\\", "\\u00", "\n",
                "\r\n", "\r", " ", "\t", "ä", "host", "guest", "hugepages", "knobs", "disk", "count", "name", "1",
                "0x", "1e", "1979-05-27", "true", "-", "\u{7f}", "\u{feff}",
            ]),
            0..60,
        )
    ) {
        check(tokens.concat().as_bytes())?;
    }

    #[test]
    fn no_change_of_a_profile_panics(
        changes in prop::collection::vec((0..FULL.len(), 0usize..12, "[\\[\\]{}=,.\"'#\\\\a0 \nä\u{1}-]{0,3}"), 1..6)
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        for (at, removed, added) in changes {
            let at = at.min(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, added.bytes());
        }
        check(&bytes)?;
    }
}
