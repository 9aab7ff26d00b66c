//! The rendered guests given to a real libvirtd, and what it holds then compared with what was rendered.

#[path = "libvirt/host.rs"]
mod host;

use std::fs;
use std::time::{Duration, Instant};

use roxmltree::{Document, Node};
use rtkvm_tune::formats::{CpuSet, Size};
use rtkvm_tune::guest::{
    DEFAULT_TEMPLATE, Difference, DiskFormat, DiskInput, Domain, DomainInput, NetworkInput, Templates,
    differences,
};

/// The guest of the guide under a name of its own: 4 vCPUs and 16 GiB on node 1.
struct Guest {
    name: String,
    cpus: Vec<u32>,
    threads: u32,
    fifo: CpuSet,
    memory: Size,
    page: Size,
    node: Option<u32>,
    disks: Vec<DiskInput>,
    networks: Vec<NetworkInput>,
}

impl Guest {
    fn reference(name: &str) -> Guest {
        Guest {
            name: name.to_owned(),
            cpus: vec![12, 13, 14, 15],
            threads: 1,
            fifo: list("0-3"),
            memory: Size(16 << 30),
            page: Size::GIB,
            node: Some(1),
            disks: vec![disk("/dev/vg0/rt-guest", true, DiskFormat::Raw)],
            networks: vec![network("br0")],
        }
    }

    fn domain(&self) -> Domain {
        Domain::new(&DomainInput {
            name: &self.name,
            vcpu_cpus: &self.cpus,
            threads_per_core: self.threads,
            fifo_vcpus: &self.fifo,
            fifo_priority: 1,
            emulator_cpus: &list("8-9"),
            memory: self.memory,
            page: self.page,
            node: self.node,
            disks: &self.disks,
            networks: &self.networks,
        })
    }

    fn render(&self) -> String {
        Templates::new(&[]).unwrap().render(DEFAULT_TEMPLATE, &self.domain()).unwrap()
    }
}

fn list(text: &str) -> CpuSet {
    CpuSet::parse_list(text).unwrap()
}

fn disk(source: &str, block: bool, format: DiskFormat) -> DiskInput {
    DiskInput { source: source.to_owned(), block, format }
}

fn network(bridge: &str) -> NetworkInput {
    NetworkInput { bridge: bridge.to_owned(), mac: None }
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
    let guest = Guest::reference("guide");
    let rendered = guest.render();
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
        ("features/kvm/poll-control/@state", "on"),
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
    let guest = Guest::reference("native");
    host.define("native", &guest.render());
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
    let guest = Guest::reference("twice");
    let first = host.define("twice", &guest.render());
    let second = host.define("twice", &guest.render());
    assert_eq!(first, second);
    assert_eq!(host.virsh(&["domuuid", "twice"], "").trim(), guest.domain().uuid);
    // What libvirt holds can itself be wanted: its own form has no difference either.
    assert_eq!(differences(&second, &first).unwrap(), []);
}

#[test]
fn a_change_is_exactly_one_difference() {
    let host = host::shared();
    let rendered = Guest::reference("changed").render();
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
    let diskless = Guest { disks: vec![], ..Guest::reference("changed") }.render();
    assert_eq!(paths(&diskless), ["/domain/devices/disk[target=vda]"]);
}

#[test]
fn every_shape_of_guest_is_accepted() {
    let host = host::shared();
    let disks = [
        vec![],
        vec![disk("/dev/vg0/a", true, DiskFormat::Raw), disk("/srv/b.qcow2", false, DiskFormat::Qcow2)],
        vec![disk("/srv/a.img", false, DiskFormat::Raw), disk("/dev/vg0/b", true, DiskFormat::Qcow2)],
    ];
    let networks = [vec![], vec![network("br0"), network("br-storage")]];
    let shapes = [(1, 1), (2, 1), (2, 2), (3, 1), (4, 1), (4, 2), (6, 1), (6, 2)];
    let mut defined = 0;
    for (vcpus, threads) in shapes {
        for node in [None, Some(0), Some(1)] {
            for page in [Size(2 << 20), Size::GIB] {
                let name = format!("shape-{defined}");
                let guest = Guest {
                    cpus: (10..10 + vcpus).collect(),
                    threads,
                    // None, all, or all but the first.
                    fifo: (defined % 3..vcpus).filter(|_| defined % 4 != 0).collect(),
                    memory: Size(u64::from(vcpus) << 30),
                    page,
                    node,
                    disks: disks[defined as usize % 3].clone(),
                    networks: networks[defined as usize / 3 % 2].clone(),
                    ..Guest::reference(&name)
                };
                let rendered = guest.render();
                let held = host.define(&name, &rendered);
                assert_eq!(differences(&held, &rendered).unwrap(), [], "{rendered}\n{held}");
                let tree = Document::parse(&held).unwrap();
                assert_eq!(all(&tree, "disk", &["device"]).len(), guest.disks.len(), "{held}");
                assert_eq!(all(&tree, "interface", &["type"]).len(), guest.networks.len(), "{held}");
                assert_eq!(all(&tree, "vcpusched", &["vcpus"]).len(), guest.fifo.len(), "{held}");
                assert_eq!(value(&tree, "numatune").is_some(), node.is_some(), "{held}");
                let want = threads.to_string();
                assert_eq!(value(&tree, "cpu/topology/@threads"), Some(&*want), "{held}");
                defined += 1;
            }
        }
    }
    assert_eq!(defined, 48);
}

#[test]
fn markup_in_values_stays_in_the_value() {
    let host = host::shared();
    let sources = ["/srv/a&b'c.img", "/srv/<x>\"&amp;].img", "/srv/'/><hostdev/>.img"];
    let guest = Guest {
        disks: sources.iter().map(|source| disk(source, false, DiskFormat::Raw)).collect(),
        ..Guest::reference("R&D's <guest>")
    };
    let rendered = guest.render();
    let held = host.define(&guest.name, &rendered);
    assert_eq!(differences(&held, &rendered).unwrap(), [], "{held}");
    let tree = Document::parse(&held).unwrap();
    assert_eq!(value(&tree, "name"), Some(&*guest.name));
    let files: Vec<&str> =
        all(&tree, "source", &["file"]).concat().into_iter().filter(|f| *f != "-").collect();
    assert_eq!(files, sources);
    assert!(all(&tree, "hostdev", &[]).is_empty());
}

#[test]
fn libvirt_refuses_the_guides_own_mistakes() {
    // Without these the tests above could pass on a libvirt that takes anything.
    let host = host::shared();
    let rendered = Guest::reference("wrong").render();
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
