//! PCI addresses as sysfs and libvirt write them, and the other names of a device.

use serde::{Serialize, Serializer};
use std::fmt;

/// The address of a PCI function, `0000:81:10.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// The domain; above 0xffff behind Intel VMD.
    pub domain: u32,
    /// The bus.
    pub bus: u8,
    /// The slot, below 32.
    pub slot: u8,
    /// The function, below 8.
    pub function: u8,
}

impl PciAddress {
    /// Reads `0000:81:10.1`, or `81:10.1` for domain 0; in hexadecimal.
    ///
    /// # Errors
    /// What an address looks like.
    pub fn parse(text: &str) -> Result<PciAddress, String> {
        Self::read(text).ok_or_else(|| format!("`{text}` is not a PCI address such as 0000:81:10.1"))
    }

    fn read(text: &str) -> Option<PciAddress> {
        let hex = |digits: &str, lengths: std::ops::RangeInclusive<usize>| {
            let plain = lengths.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        let (rest, function) = text.rsplit_once('.')?;
        let (rest, slot) = rest.rsplit_once(':')?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
        let address = PciAddress {
            domain: hex(domain, 4..=8)?,
            bus: hex(bus, 2..=2)? as u8,
            slot: hex(slot, 2..=2)? as u8,
            function: hex(function, 1..=1)? as u8,
        };
        (address.slot < 32 && address.function < 8).then_some(address)
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.slot, self.function)
    }
}

impl Serialize for PciAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a profile names a device of the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceName {
    /// By its PCI address.
    Pci(PciAddress),
    /// By its network interface, which the kernel shows while the host uses the device.
    Interface(String),
    /// A virtual function by the interface of its physical function, and its number: `ens1f0/3`.
    Virtual(String, u32),
}

/// The most virtual functions of a device: `TotalVFs` has 16 bits.
const MOST_VIRTUAL: u32 = 0xffff;

impl DeviceName {
    /// Reads `0000:81:10.1`, `ens1f0` or `ens1f0/3`.
    ///
    /// # Errors
    /// What is wrong with it, and the forms there are.
    pub fn parse(text: &str) -> Result<DeviceName, String> {
        // A colon is in no name that this accepts for an interface.
        if text.contains(':') {
            return PciAddress::parse(text).map(DeviceName::Pci);
        }
        let Some((interface, number)) = text.split_once('/') else {
            return interface_name(text).map(|()| DeviceName::Interface(text.to_owned()));
        };
        interface_name(interface)?;
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let plain = digits && (number == "0" || !number.starts_with('0'));
        match number.parse() {
            Ok(number) if plain && number <= MOST_VIRTUAL => {
                Ok(DeviceName::Virtual(interface.to_owned(), number))
            }
            _ => Err(format!("`{number}` is not the number of a virtual function, as in `{interface}/3`")),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Pci(address) => address.fmt(f),
            DeviceName::Interface(name) => f.write_str(name),
            DeviceName::Virtual(name, number) => write!(f, "{name}/{number}"),
        }
    }
}

/// The name of a network interface: `IFNAMSIZ` is 16, with the terminating NUL.
///
/// # Errors
/// What is wrong with it.
pub fn interface_name(text: &str) -> Result<(), String> {
    if !(1..=15).contains(&text.len()) {
        return Err(format!("an interface name has 1 to 15 characters, not {}", text.chars().count()));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.-".contains(*c)) {
        let c = super::character(c);
        return Err(format!("an interface name has no {c}: use letters, digits and _ . -"));
    }
    match text {
        "." | ".." => Err(format!("the kernel refuses `{text}` as an interface name")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn devices_have_three_forms() {
        let shown = |text: &str| DeviceName::parse(text).map(|name| name.to_string());
        for (text, want) in [
            ("0000:81:10.1", "0000:81:10.1"),
            ("81:1F.7", "0000:81:1f.7"),
            ("10000:e1:00.0", "10000:e1:00.0"),
            ("ens1f0", "ens1f0"),
            ("ens1f0/3", "ens1f0/3"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(want));
        }
        for (text, word) in [
            ("81:20.1", "not a PCI address"),
            ("81:1f.8", "not a PCI address"),
            ("+1:1f.0", "not a PCI address"),
            ("0000:81:10.1'/>", "not a PCI address"),
            ("a b", "has no ` `"),
            ("", "1 to 15 characters"),
            ("../3", "the kernel refuses"),
            ("ens1f0/", "not the number"),
            ("ens1f0/+3", "not the number"),
            ("ens1f0/03", "not the number"),
            ("ens1f0/65536", "not the number"),
        ] {
            let error = shown(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn addresses_come_back(domain in 0..0x2_0000u32, bus: u8, slot in 0..32u8, function in 0..8u8) {
            let address = PciAddress { domain, bus, slot, function };
            prop_assert_eq!(PciAddress::parse(&address.to_string()), Ok(address));
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f:./x]{0,14}|.{0,8}") {
            if let Ok(name) = DeviceName::parse(&text) {
                prop_assert_eq!(DeviceName::parse(&name.to_string()), Ok(name));
            }
        }
    }
}
