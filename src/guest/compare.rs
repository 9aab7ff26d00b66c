//! Two domain documents compared by meaning: what libvirt holds against what the template asks.
//!
//! libvirt rewrites what it is given: sizes to KiB, one `<vcpusched>` for each vCPU, another order, `q35` to
//! `pc-q35-7.2`, and it adds addresses, controllers, inputs and more. None of that is a difference.

use super::reading::{Reading, Statement, XmlError};

/// One place where the two documents say different things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: `/domain/cputune/vcpupin[vcpu=0]/@cpuset`. An element of which there are several is told by its
    /// key, or from the second on by its number.
    pub path: String,
    /// What libvirt holds, with sizes in KiB and lists merged; `None` if it has no such thing.
    pub defined: Option<String>,
    /// What is wanted, likewise; `None` if libvirt holds something that must not be there.
    pub wanted: Option<String>,
}

/// Parts of a domain that libvirt never fills in by itself: whatever stands there and is not wanted is a
/// difference.
const OURS: [&str; 7] = [
    "/domain/cputune/",
    "/domain/numatune/",
    "/domain/memtune/",
    "/domain/memoryBacking/",
    "/domain/cpu/numa",
    "/domain/vcpu/@cpuset",
    "/domain/vcpu/@current",
];

/// Devices that are a difference where they are not wanted. libvirt adds the last two only for a reason.
const DEVICES: [&str; 9] =
    ["disk", "filesystem", "interface", "hostdev", "redirdev", "sound", "graphics", "video", "controller"];

/// The differences between the XML that libvirt holds (`virsh dumpxml --inactive`) and the XML that is wanted,
/// in the order of the wanted document; then what is defined and not wanted. Empty if a define would change
/// nothing that matters.
///
/// # Errors
/// If either text is not well-formed or not a domain.
pub fn differences(defined: &str, wanted: &str) -> Result<Vec<Difference>, XmlError> {
    let defined = Reading::of(defined, "defined")?;
    let wanted = Reading::of(wanted, "wanted")?;
    let mut found: Vec<Difference> = Vec::new();
    for want in &wanted.statements {
        match defined.get(&want.path) {
            Some(have) if same(have, want) => {}
            // The content of an element that is missing goes without saying.
            None if found.iter().any(|d| d.defined.is_none() && is_inside(&want.path, &d.path)) => {}
            have => found.push(Difference {
                path: want.path.clone(),
                defined: have.map(|have| have.shown.clone()),
                wanted: Some(want.shown.clone()),
            }),
        }
    }
    for have in &defined.statements {
        let known = wanted.get(&have.path).is_some()
            || found.iter().any(|d| d.wanted.is_none() && is_inside(&have.path, &d.path));
        if !known && matters(have, &wanted) {
            found.push(Difference {
                path: have.path.clone(),
                defined: Some(have.shown.clone()),
                wanted: None,
            });
        }
    }
    Ok(found)
}

/// Whether libvirt holds what is wanted: the same value, or the machine type that an alias stands for.
fn same(have: &Statement, want: &Statement) -> bool {
    if have.value == want.value {
        return true;
    }
    let prefix = match want.value.as_str() {
        "q35" => "pc-q35-",
        "pc" => "pc-i440fx-",
        "virt" => "virt-",
        _ => return false,
    };
    want.path == "/domain/os/type/@machine" && have.value.starts_with(prefix)
}

/// Whether something that nobody asked for changes what was asked for.
fn matters(have: &Statement, wanted: &Reading) -> bool {
    if OURS.iter().any(|ours| have.path.starts_with(ours)) {
        return true;
    }
    let Some(device) = have.path.strip_prefix("/domain/devices/") else { return false };
    let name = device.split(['[', '/']).next().unwrap_or_default();
    if device.contains('/') || !DEVICES.contains(&name) {
        return false;
    }
    match name {
        // Where the wanted document does not speak of USB or a screen, libvirt chooses.
        "controller" => {
            device.contains("type=usb")
                && wanted.get("/domain/devices/controller[type=usb,index=0]").is_some()
        }
        "video" => wanted.get("/domain/devices/graphics").is_none(),
        _ => true,
    }
}

fn is_inside(path: &str, element: &str) -> bool {
    path.strip_prefix(element).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "<domain type='kvm'><name>g</name><memory unit='GiB'>2</memory>
        <vcpu placement='static'>2</vcpu>
        <cputune><vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='3'/><emulatorpin cpuset='0,1'/>
        <vcpusched vcpus='0-1' scheduler='fifo' priority='1'/></cputune>
        <os><type arch='x86_64' machine='q35'>hvm</type></os>
        <devices><controller type='usb' model='none'/><memballoon model='none'/>
        <disk type='block'><source dev='/dev/a'/><target dev='vda'/></disk></devices></domain>";

    fn paths(defined: &str, wanted: &str) -> Vec<String> {
        differences(defined, wanted).unwrap().into_iter().map(|d| d.path).collect()
    }

    #[test]
    fn a_document_is_itself() {
        assert_eq!(differences(GUEST, GUEST).unwrap(), []);
    }

    #[test]
    fn libvirts_forms_are_the_same() {
        let defined = GUEST
            .replace("<memory unit='GiB'>2<", "<memory unit='KiB'>2097152<")
            .replace("0,1", "0-1")
            .replace("machine='q35'", "machine='pc-q35-7.2'")
            .replace("type='usb' model", "type='usb' index='0' model")
            .replace("<vcpusched vcpus='0-1' scheduler='fifo' priority='1'/>",
                "<vcpusched vcpus='1' priority='1' scheduler='fifo'/><vcpusched vcpus='0' scheduler='fifo' priority='1'/>")
            .replace("</devices>", "<controller type='sata' index='0'><address type='pci'/></controller>
                <input type='mouse' bus='ps2'/><watchdog model='itco' action='reset'/></devices>
                <seclabel type='none'/><resource><partition>/machine</partition></resource>");
        assert_eq!(differences(&defined, GUEST).unwrap(), []);
    }

    #[test]
    fn a_change_is_one_difference() {
        for (from, to, path, defined, wanted) in [
            ("cpuset='3'", "cpuset='7'", "/domain/cputune/vcpupin[vcpu=1]/@cpuset", Some("7"), Some("3")),
            ("'GiB'>2", "'GiB'>3", "/domain/memory", Some("3145728 KiB"), Some("2097152 KiB")),
            (
                "<memballoon model='none'/>",
                "<memballoon model='virtio'/>",
                "/domain/devices/memballoon/@model",
                Some("virtio"),
                Some("none"),
            ),
            (
                "<emulatorpin cpuset='0,1'/>",
                "",
                "/domain/cputune/emulatorpin",
                None,
                Some("<emulatorpin cpuset='0-1'>"),
            ),
            (
                "machine='q35'",
                "machine='pc-i440fx-7.2'",
                "/domain/os/type/@machine",
                Some("pc-i440fx-7.2"),
                Some("q35"),
            ),
            (
                "placement='static'>",
                "placement='static' cpuset='4'>",
                "/domain/vcpu/@cpuset",
                Some("4"),
                None,
            ),
            (
                "<emulatorpin",
                "<vcpupin vcpu='2' cpuset='5'/><emulatorpin",
                "/domain/cputune/vcpupin[vcpu=2]",
                Some("<vcpupin vcpu='2' cpuset='5'>"),
                None,
            ),
            (
                "vcpus='0-1'",
                "vcpus='0'",
                "/domain/cputune/vcpusched[vcpu=1]",
                None,
                Some("<vcpusched scheduler='fifo' priority='1'>"),
            ),
            (
                "<os>",
                "<memtune><hard_limit unit='MiB'>1</hard_limit></memtune><os>",
                "/domain/memtune/hard_limit",
                Some("1024 KiB"),
                None,
            ),
            (
                "<disk ",
                "<graphics type='vnc'/><disk ",
                "/domain/devices/graphics",
                Some("<graphics type='vnc'>"),
                None,
            ),
            ("<disk ", "<video/><disk ", "/domain/devices/video", Some("<video>"), None),
            (
                "<disk ",
                "<controller type='usb' index='1' model='qemu-xhci'/><disk ",
                "/domain/devices/controller[type=usb,index=1]",
                Some("<controller type='usb' index='1' model='qemu-xhci'>"),
                None,
            ),
            (
                "<disk ",
                "<disk type='file'><target dev='vdb'/></disk><disk ",
                "/domain/devices/disk[target=vdb]",
                Some("<disk type='file'>"),
                None,
            ),
            (
                "<disk ",
                "<interface type='bridge'><mac address='52:54:00:00:00:01'/></interface><disk ",
                "/domain/devices/interface",
                Some("<interface type='bridge'>"),
                None,
            ),
        ] {
            let changed = GUEST.replacen(from, to, 1);
            assert_ne!(changed, GUEST, "{from}");
            let text = |value: Option<&str>| value.map(str::to_owned);
            let want = Difference { path: path.into(), defined: text(defined), wanted: text(wanted) };
            assert_eq!(differences(&changed, GUEST).unwrap(), [want], "{from} -> {to}");
        }
    }

    #[test]
    fn what_was_left_to_libvirt_is_no_difference() {
        let free = GUEST.replace(
            "<controller type='usb' model='none'/><memballoon model='none'/>",
            "<graphics type='vnc'/>",
        );
        let filled = free.replace(
            "<graphics",
            "<controller type='usb' index='0' model='qemu-xhci'/>
            <memballoon model='virtio'/><video/><graphics",
        );
        assert_eq!(paths(&filled, &free), Vec::<String>::new());
    }

    #[test]
    fn the_error_names_the_document() {
        assert!(differences("<x/>", GUEST).unwrap_err().message.contains("defined"));
        assert!(differences(GUEST, "<domain>").unwrap_err().message.contains("wanted"));
    }
}
