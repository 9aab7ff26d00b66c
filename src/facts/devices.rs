//! PCI devices and the network interfaces that belong to them. Source: Documentation/ABI/testing/sysfs-bus-pci,
//! sysfs-class-net.

use super::{number, numbered};
use crate::formats::{DeviceName, HostPath, PciAddress};
use crate::host::Read;
use serde::Serialize;

/// The devices that guests can be given.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Devices {
    /// The PCI devices by address; `None` if the machine's description does not tell.
    pub pci: Option<Vec<PciDevice>>,
    /// The network interfaces with a PCI device, by name.
    pub interfaces: Vec<Interface>,
}

/// One PCI function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PciDevice {
    /// Where it is.
    pub address: PciAddress,
    /// Its memory node; `None` if the firmware does not tell (-1).
    pub node: Option<u32>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its device.
    pub device: PciAddress,
    /// The virtual functions of its device, with their numbers.
    pub functions: Vec<(u32, PciAddress)>,
}

const PCI: &str = "/sys/bus/pci/devices";
const NET: &str = "/sys/class/net";

impl Devices {
    /// Reads the devices.
    pub fn read(host: &dyn Read) -> Devices {
        let dir = HostPath::new(PCI);
        let read = |name: &String| {
            let address = PciAddress::parse(name).ok()?;
            Some(PciDevice { address, node: number(host, &dir.join(name).join("numa_node")) })
        };
        let pci = host.list(&dir).ok().map(|names| {
            let mut devices: Vec<PciDevice> = names.iter().filter_map(read).collect();
            devices.sort_by_key(|device| device.address);
            devices
        });
        let names = host.list(&HostPath::new(NET)).unwrap_or_default();
        Devices { pci, interfaces: names.iter().filter_map(|name| interface(host, name)).collect() }
    }

    /// The address of a device.
    ///
    /// # Errors
    /// Why it has none, and how to name it instead.
    pub fn address(&self, name: &DeviceName) -> Result<PciAddress, String> {
        let interface = |name: &str| {
            self.interfaces.iter().find(|interface| interface.name == name).ok_or_else(|| {
                format!(
                    "there is no interface {name} with a PCI device: while a guest has the device the kernel shows none, so \
                     write its PCI address"
                )
            })
        };
        let address = match name {
            DeviceName::Pci(address) => *address,
            DeviceName::Interface(name) => interface(name)?.device,
            DeviceName::Virtual(name, number) => {
                let functions = &interface(name)?.functions;
                let found = functions.iter().find(|(n, _)| n == number);
                let (_, address) = found.ok_or_else(|| match functions.as_slice() {
                    [] => format!("{name} has no virtual functions: make some by its attribute sriov_numvfs"),
                    [(first, _), ..] => {
                        let last = functions.last().map_or(*first, |(last, _)| *last);
                        format!("{name} has the virtual functions {first} to {last}")
                    }
                })?;
                *address
            }
        };
        match &self.pci {
            Some(devices) if devices.iter().all(|device| device.address != address) => {
                Err(format!("there is no PCI device {address} on this machine: `lspci -D` lists them"))
            }
            _ => Ok(address),
        }
    }

    /// The memory node of a device; `None` if it is on none or that is not known.
    pub fn node(&self, address: PciAddress) -> Option<u32> {
        self.pci.iter().flatten().find(|device| device.address == address)?.node
    }

    /// The device of an interface.
    pub fn of_interface(&self, name: &str) -> Option<PciAddress> {
        self.interfaces.iter().find(|interface| interface.name == name).map(|interface| interface.device)
    }
}

/// `None` for an interface without a PCI device: a bridge, or one of a virtio device.
fn interface(host: &dyn Read, name: &str) -> Option<Interface> {
    let target = |path: &HostPath| {
        let link = host.link(path).ok()?;
        PciAddress::parse(link.rsplit('/').next()?).ok()
    };
    let address = target(&HostPath::new(NET).join(name).join("device"))?;
    let device = HostPath::new(PCI).join(address);
    let numbers = numbered(host, &device, "virtfn").unwrap_or_default();
    let functions =
        numbers.into_iter().filter_map(|n| Some((n, target(&device.join(format_args!("virtfn{n}")))?)));
    Some(Interface { name: name.to_owned(), device: address, functions: functions.collect() })
}
