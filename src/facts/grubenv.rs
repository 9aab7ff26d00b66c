//! GRUB's environment block on this machine, and whether GRUB can write it while it boots.
//!
//! Source: GRUB manual, "The GRUB environment block": a plain disk, no LVM or RAID, a file system without
//! checksums; 00_header and grub-reboot of grub-common 2.06, which warn about the same.

use super::line;
use crate::formats::HostPath;
use crate::formats::grubenv::{Environment, SIZE};
use crate::host::{Read, ReadError};
use procfs::FromBufRead;
use procfs::process::{MountInfo, MountInfos};

/// The block.
pub const GRUBENV: &str = "/boot/grub/grubenv";

/// File systems on which GRUB overwrites a block of a file in place.
const WRITTEN: [&str; 5] = ["ext2", "ext3", "ext4", "xfs", "vfat"];
/// The first letters of disks that firmware shows to GRUB as they are.
const DISKS: [&str; 6] = ["sd", "vd", "hd", "xvd", "nvme", "mmcblk"];

/// Reads the block.
///
/// # Errors
/// Why GRUB would not take it, with the remedy.
pub fn environment(host: &dyn Read) -> Result<Environment, String> {
    let made = format!("`grub-editenv {GRUBENV} create` makes one");
    // One byte more tells a block that is too long.
    match host.head(&HostPath::new(GRUBENV), SIZE + 1) {
        Ok(file) => Environment::parse(&file.bytes)
            .map_err(|why| format!("{GRUBENV} is no environment block: {why}; {made}")),
        Err(ReadError::Absent) => Err(format!("{GRUBENV} does not exist; {made}")),
        Err(error) => Err(format!("{GRUBENV}: {error}")),
    }
}

/// Why GRUB cannot write the block, as far as this machine tells; `None` if it can.
pub fn not_writable(host: &dyn Read) -> Option<String> {
    let parts = ["/boot", "/boot/grub"];
    if let Some(part) = parts.iter().find(|part| host.link(&HostPath::new(**part)).is_ok()) {
        return Some(format!("{part} is a symbolic link"));
    }
    let table = HostPath::new("/proc/self/mountinfo");
    let file = match host.file(&table) {
        Ok(file) => file,
        Err(error) => return Some(format!("where {GRUBENV} is cannot be told: {table} {error}")),
    };
    let Ok(mounts) = MountInfos::from_buf_read(&file.bytes[..]) else {
        return Some(format!("where {GRUBENV} is cannot be told: {table} has an unknown form"));
    };
    // The longest holds it, and of several on one place the last.
    let holds = |mount: &&MountInfo| std::path::Path::new(GRUBENV).starts_with(&mount.mount_point);
    let Some(mount) = mounts.0.iter().filter(holds).max_by_key(|mount| mount.mount_point.as_os_str().len())
    else {
        return Some(format!("where {GRUBENV} is cannot be told: {table} does not have it"));
    };
    let at = mount.mount_point.display();
    if mount.mount_options.contains_key("ro") || mount.super_options.contains_key("ro") {
        return Some(format!("{at} is mounted read-only"));
    }
    if !WRITTEN.contains(&mount.fs_type.as_str()) {
        return Some(format!("{GRUBENV} is on {}, which GRUB does not write", mount.fs_type));
    }
    let Some(disk) = disk(host, &mount.majmin) else {
        return Some(format!(
            "which disk {GRUBENV} is on cannot be told: {} is none of this machine",
            mount.majmin
        ));
    };
    let below = HostPath::new("/sys/block").join(&disk);
    let kind = if let Some(uuid) = line(host, &below.join("dm/uuid")) {
        match uuid.split('-').next() {
            Some("LVM") => "LVM".into(),
            Some("CRYPT") => "an encrypted volume".into(),
            _ => "a device-mapper volume".into(),
        }
    } else if line(host, &below.join("md/level")).is_some() {
        "a RAID of the kernel (md)".into()
    } else if line(host, &below.join("loop/backing_file")).is_some() {
        "a loop device".into()
    } else if DISKS.iter().any(|prefix| disk.starts_with(prefix)) {
        return None;
    } else {
        format!("a device of an unknown kind, {disk}")
    };
    Some(format!("{GRUBENV} is on {kind}, which GRUB does not write"))
}

/// The name of the whole disk that a device number, `8:1`, is on.
fn disk(host: &dyn Read, number: &str) -> Option<String> {
    let plain = |text: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_!:".contains(c);
        !text.is_empty() && text.chars().all(plain)
    };
    let device = HostPath::new("/sys/dev/block").join(Some(number).filter(plain)?);
    let target = host.link(&device).ok()?;
    let (_, below) = target.rsplit_once("/block/")?;
    below.split('/').next().filter(plain).map(str::to_owned)
}
