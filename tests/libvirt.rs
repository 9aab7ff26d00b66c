//! The rendered guests given to a real libvirtd, and what it holds then compared with what was rendered.

#[path = "libvirt/apply.rs"]
mod apply;
#[path = "libvirt/faults.rs"]
mod faults;
#[path = "libvirt/host.rs"]
mod host;

use std::fs;
use std::time::{Duration, Instant};

use roxmltree::{Document, Node};
use rtkvm_tune::facts::Facts;
use rtkvm_tune::guest::{Difference, differences};
use rtkvm_tune::host::Snapshot;
use rtkvm_tune::plan::{self, Scope, restore::Past};
use rtkvm_tune::profile::{Choice, MachineType, Os, Watchdog, parse, render};

/// The guests of a profile on the recorded reference machine, as they would be defined.
fn guests(profile: &str) -> Vec<(String, String)> {
    guests_on("reference", profile)
}

/// The same on another recorded machine.
fn guests_on(machine: &str, profile: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("tests/captures/{machine}.capture")).unwrap();
    let snapshot = Snapshot::from_capture(&text).unwrap();
    let parsed = parse("p.toml", profile.as_bytes())
        .unwrap_or_else(|failed| panic!("{}", render(&failed.diagnostics, &failed.source, false)));
    let facts = Facts::read(&snapshot).unwrap();
    let plan = plan::make(&snapshot, facts, &parsed, Scope::Everything, &Past::default());
    let (plan, _) =
        plan.unwrap_or_else(|errors| panic!("{profile}\n{}", render(&errors, &parsed.source, false)));
    plan.guests.into_iter().map(|guest| (guest.name, guest.xml)).collect()
}

/// What is before the first guest.
const HOST: &str = "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = '6GiB'\n";

/// The guest with these keys.
fn rendered(keys: &str) -> String {
    guests(&format!("{HOST}[[guest]]\n{keys}")).remove(0).1
}

const DISK: &str = "[[guest.disk]]\nsource = '/dev/vg0/rt-guest'\n";
const BRIDGE: &str = "[[guest.network]]\nbridge = 'br0'\n";

/// The guest of the guide under a name of its own: 4 vCPUs and 16 GiB on node 1.
fn reference(name: &str) -> String {
    rendered(&format!("name = '{name}'\nvcpus = 4\nmemory = '16GiB'\nnuma-node = 1\n{DISK}{BRIDGE}"))
}

/// The value at a path of element names; the last part is an attribute where it starts with `@`.
fn value<'a>(tree: &'a Document<'_>, path: &str) -> Option<&'a str> {
    let mut node = tree.root_element();
    for part in path.split('/') {
        match part.strip_prefix('@') {
            Some(attribute) => return node.attribute(attribute),
            None => node = node.children().find(|n| n.has_tag_name(part))?,
        }
    }
    Some(node.text().unwrap_or_default())
}

/// The attributes of every element of a name, in order.
fn all<'a>(tree: &'a Document<'_>, element: &str, attributes: &[&str]) -> Vec<Vec<&'a str>> {
    let elements = tree.descendants().filter(|node| node.has_tag_name(element));
    let row = |node: Node<'a, '_>| attributes.iter().map(|a| node.attribute(*a).unwrap_or("-")).collect();
    elements.map(row).collect()
}

#[test]
fn libvirt_holds_every_value_of_the_guide() {
    let host = host::shared();
    let rendered = reference("guide");
    host::validate(&rendered);
    let defined = host.define("guide", &rendered);
    assert_eq!(differences(&defined, &rendered).unwrap(), [], "{defined}");

    let tree = Document::parse(&defined).unwrap();
    for (path, want) in [
        ("@type", "kvm"),
        ("memory", "16777216"),
        ("memory/@unit", "KiB"),
        ("currentMemory", "16777216"),
        ("memoryBacking/hugepages/page/@size", "1048576"),
        ("memoryBacking/hugepages/page/@unit", "KiB"),
        ("memoryBacking/nosharepages", ""),
        ("memoryBacking/locked", ""),
        ("vcpu", "4"),
        ("vcpu/@placement", "static"),
        ("cputune/emulatorpin/@cpuset", "8-9"),
        ("cputune/iothreadpin/@cpuset", "8-9"),
        ("numatune/memory/@mode", "strict"),
        ("numatune/memory/@nodeset", "1"),
        ("features/pmu/@state", "off"),
        ("features/kvm/hint-dedicated/@state", "on"),
        ("cpu/@mode", "host-passthrough"),
        ("cpu/@check", "none"),
        ("cpu/@migratable", "off"),
        ("cpu/topology/@sockets", "1"),
        ("cpu/topology/@dies", "1"),
        ("cpu/topology/@cores", "4"),
        ("cpu/topology/@threads", "1"),
        ("cpu/cache/@mode", "passthrough"),
        ("devices/memballoon/@model", "none"),
        ("devices/audio/@type", "none"),
        ("devices/serial/@type", "pty"),
        ("devices/console/@type", "pty"),
        ("devices/disk/driver/@cache", "none"),
        ("devices/disk/driver/@io", "native"),
        ("devices/disk/driver/@iothread", "1"),
        ("devices/disk/source/@dev", "/dev/vg0/rt-guest"),
        ("devices/interface/source/@bridge", "br0"),
    ] {
        assert_eq!(value(&tree, path), Some(want), "{path}\n{defined}");
    }
    for absent in [
        "memoryBacking/hugepages/page/@nodeset",
        "vcpu/@cpuset",
        "memtune",
        "features/kvm/poll-control",
        "devices/graphics",
        "devices/video",
    ] {
        assert_eq!(value(&tree, absent), None, "{absent}\n{defined}");
    }
    let pins = [["0", "12"], ["1", "13"], ["2", "14"], ["3", "15"]];
    assert_eq!(all(&tree, "vcpupin", &["vcpu", "cpuset"]), pins);
    let fifo = ["0", "1", "2", "3"].map(|vcpu| [vcpu, "fifo", "1"]);
    assert_eq!(all(&tree, "vcpusched", &["vcpus", "scheduler", "priority"]), fifo);
    assert_eq!(
        all(&tree, "feature", &["policy", "name"]),
        [["require", "tsc-deadline"], ["require", "invtsc"]]
    );
    let usb: Vec<_> =
        all(&tree, "controller", &["type", "model"]).into_iter().filter(|c| c[0] == "usb").collect();
    assert_eq!(usb, [["usb", "none"]]);
    let timers = [["rtc", "catchup", "-"], ["pit", "delay", "-"], ["hpet", "-", "no"]];
    assert_eq!(all(&tree, "timer", &["name", "tickpolicy", "present"]), timers);
}

#[test]
fn qemu_is_told_what_the_guide_asks() {
    let host = host::shared();
    host.define("native", &reference("native"));
    let argv = host.virsh(&["domxml-to-native", "qemu-argv", "--domain", "native"], "");
    for want in [
        r#""host-nodes":[1],"policy":"bind""#,
        "mem-lock=on",
        "mem-merge=off",
        "-cpu host,migratable=off,tsc-deadline=on,invtsc=on",
        "pmu=off",
        r#""mem-path":"/run/pages-1g/"#,
        "-smp 4,sockets=1,dies=1,cores=4,threads=1",
    ] {
        assert!(argv.contains(want), "{want} is not in {argv}");
    }
    assert!(argv.contains("-no-hpet") || argv.contains("hpet=off"), "{argv}");
    for absent in ["usb-", "xhci", "balloon", "VGA", "-vnc"] {
        assert!(!argv.contains(absent), "{absent} is in {argv}");
    }
}

#[test]
fn a_second_define_is_the_same_guest() {
    let host = host::shared();
    let rendered = reference("twice");
    let first = host.define("twice", &rendered);
    let second = host.define("twice", &rendered);
    assert_eq!(first, second);
    let tree = Document::parse(&rendered).unwrap();
    assert_eq!(Some(host.virsh(&["domuuid", "twice"], "").trim()), value(&tree, "uuid"));
    // What libvirt holds can itself be wanted: its own form has no difference either.
    assert_eq!(differences(&second, &first).unwrap(), []);
}

#[test]
fn a_change_is_exactly_one_difference() {
    let host = host::shared();
    let rendered = reference("changed");
    let defined = host.define("changed", &rendered);
    for (from, to, path, have, want) in [
        ("cpuset='13'", "cpuset='11'", "/domain/cputune/vcpupin[vcpu=1]/@cpuset", "13", "11"),
        (
            "emulatorpin cpuset='8-9'",
            "emulatorpin cpuset='9'",
            "/domain/cputune/emulatorpin/@cpuset",
            "8-9",
            "9",
        ),
        (
            "<memory unit='KiB'>16777216",
            "<memory unit='GiB'>8",
            "/domain/memory",
            "16777216 KiB",
            "8388608 KiB",
        ),
        (
            "size='1' unit='GiB'",
            "size='2' unit='MiB'",
            "/domain/memoryBacking/hugepages/page/@size",
            "1048576 KiB",
            "2048 KiB",
        ),
        ("nodeset='1'", "nodeset='0'", "/domain/numatune/memory/@nodeset", "1", "0"),
        ("placement='static'>4", "placement='static'>5", "/domain/vcpu", "4", "5"),
        ("pmu state='off'", "pmu state='on'", "/domain/features/pmu/@state", "off", "on"),
        ("machine='q35'", "machine='pc'", "/domain/os/type/@machine", "pc-q35-", "pc"),
    ] {
        let wanted = rendered.replacen(from, to, 1);
        assert_ne!(wanted, rendered, "{from}");
        let [Difference { path: at, defined: Some(defined), wanted: Some(wanted) }] =
            &differences(&defined, &wanted).unwrap()[..]
        else {
            panic!("{from} -> {to}: {:#?}", differences(&defined, &wanted));
        };
        assert!(at == path && defined.starts_with(have) && wanted == want, "{at} {defined} {wanted}");
    }
    let paths = |wanted: &str| -> Vec<String> {
        differences(&defined, wanted).unwrap().into_iter().map(|d| d.path).collect()
    };
    let rr = rendered.replace("scheduler='fifo'", "scheduler='rr'");
    assert_eq!(paths(&rr), [0, 1, 2, 3].map(|n| format!("/domain/cputune/vcpusched[vcpu={n}]/@scheduler")));
    let some = rendered.replace("vcpus='0-3'", "vcpus='1-3'");
    assert_eq!(paths(&some), ["/domain/cputune/vcpusched[vcpu=0]"]);
    let diskless = rendered_without(&rendered, "    <disk", "</disk>\n");
    assert_eq!(paths(&diskless), ["/domain/devices/disk[target=vda]"]);
}

/// A document without the first element of a kind.
fn rendered_without(xml: &str, from: &str, to: &str) -> String {
    let start = xml.find(from).unwrap();
    let end = start + xml[start..].find(to).unwrap() + to.len();
    format!("{}{}", &xml[..start], &xml[end..])
}

/// The corrected guests of the guide, with their names, disks and addresses, come out of profiles.
#[test]
fn the_reference_guests_come_out_of_profiles() {
    let host = host::shared();
    for name in ["guest-4vcpu-node1", "guest-12vcpu-2nodes"] {
        let read = |ending| fs::read_to_string(format!("tests/reference/{name}.{ending}")).unwrap();
        let reference = read("xml");
        let guests = guests(&read("toml"));
        let [(guest, rendered)] = &guests[..] else { panic!("one guest") };
        // The reference names the emulator, which libvirt fills in.
        let defined = host.define(guest, rendered);
        assert_eq!(differences(&defined, &reference).unwrap(), [], "{name}\n{defined}");
        // And nothing more than the reference has: libvirt makes the same of both.
        let other = format!("theirs-{guest}");
        let renamed = reference.replace(&format!("<name>{guest}<"), &format!("<name>{other}<"));
        let theirs = host.define(&other, &renamed);
        let without = |xml: &str| {
            let xml = match xml.contains("<metadata>") {
                true => rendered_without(xml, "  <metadata>", "</metadata>\n"),
                false => xml.to_owned(),
            };
            let own = |line: &&str| !line.contains("<uuid>") && !line.contains("<name>");
            xml.lines().filter(own).map(|line| format!("{line}\n")).collect::<String>()
        };
        assert_eq!(without(&defined), without(&theirs), "{name}");
    }
}

/// Every kind of system with every kind of disk and network on one node and on two.
#[test]
fn every_combination_is_accepted() {
    let host = host::shared();
    let disks = [
        "",
        "[[guest.disk]]\nsource = '/dev/vg0/a'\n[[guest.disk]]\nsource = '/srv/b.qcow2'\nformat = 'qcow2'\n",
        "[[guest.disk]]\nsource = '/srv/a.img'\nbus = 'virtio'\n[[guest.disk]]\nsource = '/dev/vg0/b'\nformat = 'qcow2'\nbus = 'sata'\n",
    ];
    let networks = [
        ("", ""),
        (
            "[[guest.network]]\nbridge = 'br0'\n[[guest.network]]\nbridge = 'br1'\nmodel = 'e1000e'\n",
            "bridge",
        ),
        ("[[guest.network]]\nmacvtap = 'eth1'\n", "direct"),
        ("[[guest.network]]\nvirtual-function = '0000:81:10.1'\n", "hostdev"),
        ("[[guest.network]]\nvf-pool = 'pool'\n", "network"),
        (
            "[[guest.network]]\nvhost-user = '/run/ovs/a.sock'\n[[guest.network]]\nvhost-user = '/run/ovs/b.sock'\nsocket-mode = 'client'\n",
            "vhostuser",
        ),
    ];
    let extras =
        ["", "rng = true\nwatchdog = 'reset'\npoll-control = true\n", "cpu-features = ['x2apic=optional']\n"];
    let mut wanted = Vec::new();
    for os in ["linux", "other", "windows"] {
        for disk in disks {
            for (network, kind) in networks {
                for nodes in [1, 2] {
                    let at = wanted.len();
                    let name = format!("shape-{at}");
                    let (vcpus, threads) = [(2, ""), (4, ""), (6, ""), (6, "rt-vcpus = '1-5'\n")][at % 4];
                    let place = if nodes == 1 { "numa-node = 1" } else { "numa-nodes = [0, 1]" };
                    let hostdev =
                        if at % 5 == 0 { "[[guest.hostdev]]\ndevice = '0000:82:00.0'\n" } else { "" };
                    let keys = format!(
                        "name = '{name}'\nos = '{os}'\nvcpus = {vcpus}\nmemory = '4GiB'\n{place}\n{threads}{}{disk}{network}{hostdev}",
                        extras[at % 3]
                    );
                    wanted.push((name, rendered(&keys), os, kind, nodes));
                }
            }
        }
    }
    assert_eq!(wanted.len(), 108);
    let documents: Vec<_> = wanted.iter().map(|(name, xml, ..)| (name.as_str(), xml.as_str())).collect();
    for ((_, rendered, os, kind, nodes), held) in wanted.iter().zip(host.define_all(&documents)) {
        assert_eq!(differences(&held, rendered).unwrap(), [], "{rendered}\n{held}");
        let ours = Document::parse(rendered).unwrap();
        let tree = Document::parse(&held).unwrap();
        for element in ["disk", "interface", "hostdev", "rng", "cell", "memnode"] {
            let count = |tree: &Document| all(tree, element, &["type"]).len();
            assert_eq!(count(&tree), count(&ours), "{element}: {held}");
        }
        assert_eq!(all(&tree, "memnode", &["nodeset"]).len(), if *nodes == 2 { 2 } else { 0 }, "{held}");
        let kinds = all(&tree, "interface", &["type"]).concat();
        assert!(kinds.iter().all(|found| found == kind) && kinds.is_empty() == kind.is_empty(), "{held}");
        let shared = value(&tree, "memoryBacking/access/@mode");
        assert_eq!(shared, (*kind == "vhostuser").then_some("shared"), "{held}");
        assert_eq!(value(&tree, "features/hyperv").is_some(), *os == "windows", "{held}");
        assert_eq!(value(&tree, "features/kvm").is_some(), *os == "linux", "{held}");
        // Only virtio disks can have the I/O thread.
        for disk in tree.descendants().filter(|node| node.has_tag_name("disk")) {
            let child = |name| disk.children().find(|child| child.has_tag_name(name)).unwrap();
            let thread = child("driver").attribute("iothread");
            assert_eq!(thread.is_some(), child("target").attribute("bus") == Some("virtio"), "{held}");
        }
    }
}

/// Every machine with every kind of system and every action of a watchdog, one vCPU where a system may have one, and
/// the ends of the priorities.
#[test]
fn every_machine_watchdog_and_priority_is_accepted() {
    let host = host::shared();
    let mut wanted = Vec::new();
    for os in Os::NAMES {
        for machine in MachineType::NAMES {
            for (at, watchdog) in Watchdog::NAMES.iter().enumerate() {
                let name = format!("{os}-{machine}-{watchdog}");
                let vcpus = if *os == "linux" { 2 } else { 1 };
                let priority = [1, 50, 98, 99][at];
                let keys = format!(
                    "name = '{name}'\nos = '{os}'\nmachine = '{machine}'\nwatchdog = '{watchdog}'\nvcpus = {vcpus}\n\
                     fifo-priority = {priority}\nmemory = '1GiB'\n{DISK}{BRIDGE}"
                );
                wanted.push((name, rendered(&keys), *machine, *watchdog, priority.to_string()));
            }
        }
    }
    assert_eq!(wanted.len(), 3 * 2 * 4);
    let documents: Vec<_> = wanted.iter().map(|(name, xml, ..)| (name.as_str(), xml.as_str())).collect();
    for ((_, rendered, machine, watchdog, priority), held) in wanted.iter().zip(host.define_all(&documents)) {
        assert_eq!(differences(&held, rendered).unwrap(), [], "{rendered}\n{held}");
        let tree = Document::parse(&held).unwrap();
        assert!(
            value(&tree, "os/type/@machine")
                .unwrap()
                .starts_with(&format!("pc-{machine}").replace("pc-pc", "pc-"))
        );
        let kept = (*watchdog != "none").then_some(*watchdog);
        assert_eq!(value(&tree, "devices/watchdog/@action"), kept, "{held}");
        assert_eq!(value(&tree, "cputune/vcpusched/@priority"), Some(priority.as_str()), "{held}");
    }
}

/// Pages of 2 MiB, and both threads of cores.
#[test]
fn other_hosts_are_accepted() {
    let host = host::shared();
    let small = HOST.to_owned()
        + "[host.hugepages]\nsize = '2MiB'\n[[guest]]\nname = 'small'\nvcpus = 2\nmemory = '512MiB'\n";
    let (name, xml) = guests(&small).remove(0);
    assert_eq!(differences(&host.define(&name, &xml), &xml).unwrap(), []);
    assert!(xml.contains("<page size='2' unit='MiB'/>"), "{xml}");

    let threads = |kind: &str, more: &str| {
        format!(
            "{HOST}[[guest]]\nname = 'threads-{kind}'\nos = '{kind}'\nvcpus = 4\nthreads-per-core = 2\nmemory = '2GiB'\n\
             {more}{DISK}{BRIDGE}"
        )
    };
    for (kind, more) in [("linux", ""), ("linux", "rt-vcpus = '2-3'\n"), ("other", ""), ("windows", "")] {
        let (name, xml) = guests_on("smt", &threads(kind, more)).remove(0);
        let held = host.define(&name, &xml);
        assert_eq!(differences(&held, &xml).unwrap(), [], "{xml}\n{held}");
        let tree = Document::parse(&held).unwrap();
        assert_eq!(value(&tree, "cpu/topology/@threads"), Some("2"), "{held}");
        // Its name is used again.
        host.virsh(&["undefine", &name], "");
    }
}

/// The template of aarch64 is held against libvirt's schema: a libvirtd of this machine has no emulator for it.
#[test]
fn the_guests_of_aarch64_are_valid() {
    let text = fs::read_to_string("tests/captures/reference.capture").unwrap();
    let start = text.find("/proc/cpuinfo [").unwrap();
    let length = text[start..].find("\n/").unwrap();
    let arm = "/proc/cpuinfo [0444]|\n  | processor\t: 0\n  | CPU implementer\t: 0x41\n";
    let capture = format!("{}{arm}{}", &text[..start], &text[start + length + 1..]);
    let snapshot = Snapshot::from_capture(&capture).unwrap();
    let keys = format!(
        "{HOST}[[guest]]\nname = 'arm'\nvcpus = 4\nmemory = '4GiB'\nnuma-nodes = [0, 1]\nrng = true\n\
         watchdog = 'reset'\n{DISK}{BRIDGE}[[guest.network]]\nvhost-user = '/run/a.sock'\n\
         [[guest]]\nname = 'rtos'\nos = 'other'\nvcpus = 1\nmemory = '1GiB'\nmachine = 'pc'\n"
    );
    let parsed = parse("p.toml", keys.as_bytes()).unwrap();
    let facts = Facts::read(&snapshot).unwrap();
    let (plan, _) = plan::make(&snapshot, facts, &parsed, Scope::Everything, &Past::default()).unwrap();
    for guest in &plan.guests {
        let tree = Document::parse(&guest.xml).unwrap();
        assert_eq!(value(&tree, "os/type/@arch"), Some("aarch64"));
        assert_eq!(value(&tree, "os/type/@machine"), Some("virt"));
        assert!(value(&tree, "features/apic").is_none() && value(&tree, "features/gic").is_some());
        host::validate(&guest.xml);
    }
    assert!(plan.guests[0].xml.contains("cellid='1'") && !plan.guests[0].xml.contains("tsc-deadline"));
    let windows = keys.replace("os = 'other'", "os = 'windows'");
    let parsed = parse("p.toml", windows.as_bytes()).unwrap();
    let facts = Facts::read(&snapshot).unwrap();
    let errors = plan::make(&snapshot, facts, &parsed, Scope::Everything, &Past::default()).err().unwrap();
    assert!(errors[0].message.contains("cannot be rendered for aarch64"), "{errors:?}");
}

#[test]
fn markup_in_values_stays_in_the_value() {
    let host = host::shared();
    let sources = ["/srv/a&b'c.img", "/srv/<x>\"&amp;].img", "/srv/'/><hostdev/>.img"];
    let disks: String =
        sources.iter().map(|source| format!("[[guest.disk]]\nsource = \"\"\"{source}\"\"\"\n")).collect();
    let rendered = rendered(&format!("name = 'markup'\nvcpus = 2\nmemory = '2GiB'\n{disks}"));
    let held = host.define("markup", &rendered);
    assert_eq!(differences(&held, &rendered).unwrap(), [], "{held}");
    let tree = Document::parse(&held).unwrap();
    let files: Vec<&str> =
        all(&tree, "source", &["file"]).concat().into_iter().filter(|f| *f != "-").collect();
    assert_eq!(files, sources);
    assert!(all(&tree, "hostdev", &[]).is_empty());
}

#[test]
fn libvirt_refuses_the_guides_own_mistakes() {
    // Without these the tests above could pass on a libvirt that takes anything.
    let host = host::shared();
    let rendered = reference("wrong");
    for (from, to, message) in [
        ("vcpus='0-3'", "vcpus='0-4'", "vCPU '4' is not present"),
        ("unit='GiB'/>", "unit='GiB' nodeset='1'/>", "hugepages: node 1 not found"),
        ("cores='4'", "cores='3'", "CPU topology doesn't match"),
        ("<locked/>", "<lokced/>", "Extra element memoryBacking"),
    ] {
        let output = host.try_virsh(&["define", "--validate", "/dev/stdin"], &rendered.replacen(from, to, 1));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(message), "{from} -> {to}: {error}");
    }
}

#[test]
fn the_recorded_capabilities_are_libvirts() {
    let host = host::shared();
    let topology = |xml: &str| {
        let tree = Document::parse(xml).unwrap();
        let node = tree
            .descendants()
            .find(|n| {
                n.has_tag_name("topology")
                    && n.first_element_child().is_some_and(|child| child.has_tag_name("cells"))
            })
            .unwrap();
        xml[node.range()].to_owned()
    };
    let recorded = fs::read_to_string("tests/capabilities/reference.xml").unwrap();
    assert_eq!(topology(&host.virsh(&["capabilities"], "")), topology(&recorded));
}

#[test]
fn nothing_is_left_running_or_mounted() {
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    let host = host::Host::start();
    let children = format!("/proc/{0}/task/{0}/children", host.pid());
    let first: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let namespace = fs::read_link(format!("/proc/{first}/ns/pid")).unwrap();
    let inside = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes.filter(|p| fs::read_link(p.path().join("ns/pid")).is_ok_and(|ns| ns == namespace)).count()
    };
    // The shell, libvirtd and what waits for the end.
    assert!(inside() >= 3);
    assert_eq!(mounts(), before);
    drop(host);
    let started = Instant::now();
    while inside() > 0 {
        assert!(started.elapsed() < Duration::from_secs(5), "{} processes are left", inside());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(mounts(), before);
}
