//! Layer 0: the text formats of the kernel, the boot loader and people. No I/O.

pub mod boot_entry;
pub mod boot_line;
pub mod channels;
pub mod cpuset;
pub mod domain_xml;
pub mod grub;
pub mod grub_menu;
pub mod grubenv;
pub mod image;
pub mod kernel_args;
pub mod libvirt;
pub mod path;
pub mod pci;
pub mod shell_vars;
pub mod size;
pub mod thread;
pub mod time;
pub mod trial;

pub use channels::Channels;
pub use cpuset::CpuSet;
pub use image::{Image, ImageCopy, ImageFormat};
pub use libvirt::Connection;
pub use path::HostPath;
pub use pci::{DeviceName, PciAddress};
pub use size::Size;
pub use thread::Policy;

/// A character for a message: quoted, or by number when it cannot be seen.
pub(crate) fn character(c: char) -> String {
    match c {
        '\n' => "newline".into(),
        '`' => "backquote".into(),
        ' '..='~' => format!("`{c}`"),
        c if c.is_alphanumeric() => format!("`{c}`"),
        c => format!("U+{:04X}", u32::from(c)),
    }
}
