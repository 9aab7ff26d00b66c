//! Devices that guests get: where they are, and the guests near them.

use crate::machine::*;
use rtkvm_tune::facts::Facts;
use rtkvm_tune::formats::DeviceName;
use rtkvm_tune::placement::{Placement, place};
use rtkvm_tune::profile::Diagnostic;

/// What a machine with a network card on node 1, and one that the firmware puts on none, shows of them.
const CARDS: &str = "/sys/bus/pci/devices/: 0000:81:00.0 0000:81:10.1 0000:00:1f.2
/sys/bus/pci/devices/0000:81:00.0/numa_node [0644]: 1
/sys/bus/pci/devices/0000:81:10.1/numa_node [0644]: 1
/sys/bus/pci/devices/0000:00:1f.2/numa_node [0644]: -1
/sys/class/net/: br0 ens1f0 eth0 lo
/sys/class/net/ens1f0/device -> ../../../0000:81:00.0
/sys/bus/pci/devices/0000:81:00.0/: numa_node virtfn3 virtfn4
/sys/bus/pci/devices/0000:81:00.0/virtfn3 -> ../0000:81:10.1
/sys/bus/pci/devices/0000:81:00.0/virtfn4 -> ../0000:81:10.3
/sys/class/net/eth0/device -> ../../../virtio0
";

fn with_cards() -> Facts {
    from_capture(&(capture("reference") + CARDS))
}

#[test]
fn a_device_has_an_address_and_a_node() {
    let devices = with_cards().devices;
    let node = |text: &str| {
        let address = devices.address(&DeviceName::parse(text).unwrap())?;
        Ok((address.to_string(), devices.node(address)))
    };
    assert_eq!(node("81:10.1"), Ok(("0000:81:10.1".to_owned(), Some(1))));
    assert_eq!(node("00:1f.2"), Ok(("0000:00:1f.2".to_owned(), None)));
    assert_eq!(node("ens1f0"), Ok(("0000:81:00.0".to_owned(), Some(1))));
    assert_eq!(node("ens1f0/3"), Ok(("0000:81:10.1".to_owned(), Some(1))));
    for (text, word) in [
        ("82:00.0", "no PCI device 0000:82:00.0"),
        ("eth0", "no interface eth0 with a PCI device"),
        ("ens1f0/9", "has the virtual functions 3 to 4"),
        ("ens1f0/4", "no PCI device 0000:81:10.3"),
    ] {
        let error: String = node(text).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
    // A description that tells nothing of devices takes any address.
    let devices = reference().devices;
    assert!(devices.address(&DeviceName::parse("82:00.0").unwrap()).is_ok());
}

fn placed(guests: &str) -> (Placement, Vec<Diagnostic>) {
    let host = "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = \"6GiB\"\n";
    let parsed = parsed(&format!("{host}{guests}"));
    place(&parsed.profile, &with_cards()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn guest(name: &str, vcpus: u32, keys: &str) -> String {
    format!("[[guest]]\nname = '{name}'\nvcpus = {vcpus}\nmemory = '2GiB'\n{keys}\n")
}

#[test]
fn a_guest_is_near_its_device() {
    for device in [
        "[[guest.hostdev]]\ndevice = '81:00.0'",
        "[[guest.hostdev]]\ndevice = 'ens1f0'",
        "[[guest.network]]\nvirtual-function = 'ens1f0/3'",
        "[[guest.network]]\nvirtual-function = '0000:81:10.1'",
        "[[guest.network]]\nmacvtap = 'ens1f0'",
    ] {
        let (placement, warnings) = placed(&guest("a", 2, device));
        assert_eq!(placement.guests[0].node, 1, "{device}");
        let by_name = device.ends_with("device = 'ens1f0'");
        assert_eq!(warnings.len(), usize::from(by_name), "{warnings:?}");
        assert!(!by_name || warnings[0].help.as_ref().unwrap().contains("0000:81:00.0"));
    }
    // Without one, and with one that is on no node, as without.
    for device in ["", "[[guest.hostdev]]\ndevice = '00:1f.2'"] {
        assert_eq!(placed(&guest("a", 2, device)).0.guests[0].node, 0, "{device}");
    }
    // On both nodes the I/O threads are where the device is.
    let keys = "numa-nodes = [0, 1]\n[[guest.hostdev]]\ndevice = '81:00.0'";
    let place = &placed(&guest("a", 2, keys)).0.guests[0];
    assert_eq!((place.emulator.to_string(), place.io.to_string()), ("0-1,8-9".into(), "8-9".into()));
}

#[test]
fn the_node_of_a_device_is_left_to_its_guest() {
    let device = "[[guest.hostdev]]\ndevice = '81:00.0'";
    // Six CPUs of a node each: the larger one would come first, and to node 1 as well as to node 0.
    let (placement, warnings) = placed(&(guest("big", 6, "") + &guest("near", 2, device)));
    assert_eq!((placement.guests[0].node, placement.guests[1].node), (0, 1));
    assert!(warnings.is_empty(), "{warnings:?}");
    // Where it cannot be near it is elsewhere, and that is said.
    let (placement, warnings) = placed(&(guest("big", 6, "numa-node = 1") + &guest("far", 2, device)));
    assert_eq!(placement.guests[1].node, 0);
    assert!(warnings[0].message.contains("guest far is on node 0, its device on node 1"), "{warnings:?}");
}
