//! Images of disks, as far as they have to be known before one is copied.
//!
//! Source: QEMU, docs/interop/qcow2.txt. That qemu-img says the same is tested.

use std::fmt;

/// How much of a file says what it is, in bytes.
pub const HEAD: usize = 104;

/// When a disk was last changed that this program made and nothing has written to since, in seconds since the epoch
/// (2000-01-01): no clock gives it to whatever writes to the disk later.
pub const UNUSED: i64 = 946_684_800;

/// The format of an image that can be copied, or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFormat {
    /// The bytes of the disk.
    Raw,
    /// QEMU's.
    Qcow2,
}

impl ImageFormat {
    /// QEMU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
        }
    }
}

/// A copy of an image that a guest gets as its disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImageCopy {
    /// The image.
    #[serde(serialize_with = "as_text")]
    pub base: super::HostPath,
    /// Its format.
    pub base_format: ImageFormat,
    /// The format of the copy.
    pub format: ImageFormat,
    /// The size of the disk, in bytes.
    pub bytes: u64,
}

fn as_text<S: serde::Serializer>(path: &super::HostPath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(path.as_str())
}

/// What an image begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// Like a disk: bytes that no format claims.
    Plain,
    /// A header of QEMU's format.
    Qcow2 {
        /// The size of the disk in it, in bytes.
        bytes: u64,
        /// Why its data cannot be taken from this file alone; 0 if they can.
        without: Without,
    },
    /// Something else, by name.
    Other(&'static str),
}

/// What keeps a file in QEMU's format from being a disk by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// Nothing.
    Nothing,
    /// The rest is in a backing file.
    Backing,
    /// The data is in another file.
    Data,
    /// It is encrypted.
    Key,
}

const WITHOUT: [(Without, &str); 4] = [
    (Without::Nothing, "whole"),
    (Without::Backing, "backed"),
    (Without::Data, "data-file"),
    (Without::Key, "encrypted"),
];

/// Formats that are no disk as they are, by their first bytes.
const OTHERS: [(&[u8], &str); 9] = [
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"QED\0", "qed"),
    (b"LUKS\xba\xbe", "luks"),
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];

/// The others that are compressed.
const COMPRESSED: [&str; 3] = ["gzip", "xz", "zstd"];

/// VirtualBox's images have their sign behind a text.
const VDI: (usize, [u8; 4]) = (0x40, [0x7f, 0x10, 0xda, 0xbe]);

/// An image as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// The length of the file, in bytes.
    pub length: u64,
    /// When it was last changed, in seconds since the epoch.
    pub changed: i64,
    /// What is in it.
    pub begins: Begins,
}

impl Image {
    /// Reads the first [`HEAD`] bytes of a file; fewer, where it has no more.
    pub fn of(head: &[u8], length: u64, changed: i64) -> Image {
        Image { length, changed, begins: begins(head) }
    }

    /// Its one line in a capture.
    ///
    /// # Errors
    /// None for what [`fmt::Display`] has written.
    pub fn parse(text: &str) -> Option<Image> {
        let mut words = text.split_whitespace();
        let length = words.next()?.strip_prefix("length=")?.parse().ok()?;
        let changed = words.next()?.strip_prefix("changed=")?.parse().ok()?;
        let begins = match (words.next()?.split_once('=')?, words.next()) {
            (("begins", "plain"), None) => Begins::Plain,
            (("begins", other), None) => {
                let known =
                    OTHERS.iter().map(|(_, name)| *name).chain(["vdi"]).find(|name| *name == other)?;
                Begins::Other(known)
            }
            (("qcow2", bytes), Some(word)) => {
                let without = WITHOUT.iter().find(|(_, name)| *name == word)?.0;
                Begins::Qcow2 { bytes: bytes.parse().ok()?, without }
            }
            _ => return None,
        };
        Some(Image { length, changed, begins })
    }

    /// The format and the size of the disk in it, in bytes: whole sectors of 512. `told` is the format that the operator
    /// says it has.
    ///
    /// # Errors
    /// Why no disk can be made of it, and the remedy.
    pub fn disk(&self, told: Option<ImageFormat>) -> Result<(ImageFormat, u64), String> {
        let (format, bytes) = match (told, self.begins) {
            (Some(ImageFormat::Raw), _) | (None, Begins::Plain) => (ImageFormat::Raw, self.length),
            (_, Begins::Qcow2 { bytes, without: Without::Nothing }) => (ImageFormat::Qcow2, bytes),
            (_, Begins::Qcow2 { without, .. }) => return Err(without.why()),
            (None, Begins::Other(name)) if COMPRESSED.contains(&name) => {
                return Err(format!("it is compressed by {name}: unpack it first"));
            }
            (None, Begins::Other(name)) => {
                return Err(format!("it is in format {name}: convert it with `qemu-img convert -O qcow2`"));
            }
            (Some(ImageFormat::Qcow2), _) => return Err("it is not in format qcow2".into()),
        };
        match bytes.checked_next_multiple_of(512) {
            Some(bytes) if (1..=i64::MAX as u64).contains(&bytes) => Ok((format, bytes)),
            _ => Err(format!("its disk has {bytes} bytes")),
        }
    }
}

impl Without {
    fn why(self) -> String {
        let what = match self {
            Without::Nothing | Without::Backing => "it has a backing file",
            Without::Data => "its data is in another file",
            Without::Key => "it is encrypted",
        };
        format!("{what}: make a whole image of it with `qemu-img convert -O qcow2`")
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "length={} changed={} ", self.length, self.changed)?;
        match self.begins {
            Begins::Plain => f.write_str("begins=plain"),
            Begins::Other(name) => write!(f, "begins={name}"),
            Begins::Qcow2 { bytes, without } => {
                let (_, word) = WITHOUT.iter().find(|(known, _)| *known == without).expect("all are there");
                write!(f, "qcow2={bytes} {word}")
            }
        }
    }
}

fn begins(head: &[u8]) -> Begins {
    let word = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_be_bytes(head.get(at..at + 8)?.try_into().ok()?));
    if let (true, Some(version), Some(backing), Some(bytes), Some(key)) =
        (head.starts_with(b"QFI\xfb"), word(4), long(8), long(24), word(32))
    {
        // Version 2 has no features.
        let features = if version >= 3 { long(72).unwrap_or(u64::MAX) } else { 0 };
        let without = match () {
            () if backing != 0 => Without::Backing,
            () if features & 4 != 0 => Without::Data,
            () if key != 0 => Without::Key,
            () => Without::Nothing,
        };
        return Begins::Qcow2 { bytes, without };
    }
    let vdi = head.get(VDI.0..VDI.0 + 4).is_some_and(|sign| sign == VDI.1);
    let known = OTHERS.iter().find(|(start, _)| head.starts_with(start)).map(|(_, name)| *name);
    known.or(vdi.then_some("vdi")).map_or(Begins::Plain, Begins::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn qcow2(version: u32, changes: &[(usize, u8)]) -> Image {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[4..8].copy_from_slice(&version.to_be_bytes());
        head[24..32].copy_from_slice(&(3_u64 << 30).to_be_bytes());
        changes.iter().for_each(|(at, byte)| head[*at] = *byte);
        Image::of(&head, 200_000, 1)
    }

    #[test]
    fn a_disk_is_what_one_file_has() {
        for version in [2, 3] {
            assert_eq!(qcow2(version, &[]).disk(None), Ok((ImageFormat::Qcow2, 3 << 30)));
            assert_eq!(qcow2(version, &[]).disk(Some(ImageFormat::Qcow2)), Ok((ImageFormat::Qcow2, 3 << 30)));
            // The operator's word: a disk that only looks like an image.
            assert_eq!(qcow2(version, &[]).disk(Some(ImageFormat::Raw)), Ok((ImageFormat::Raw, 200_192)));
            assert!(qcow2(version, &[(15, 1)]).disk(None).unwrap_err().contains("backing file"));
            assert!(qcow2(version, &[(35, 2)]).disk(None).unwrap_err().contains("encrypted"));
        }
        assert!(qcow2(3, &[(79, 4)]).disk(None).unwrap_err().contains("another file"));
        assert!(qcow2(2, &[(79, 4)]).disk(None).is_ok());
        assert!(qcow2(3, &[(24, 0xff)]).disk(None).unwrap_err().contains("bytes"));
        let plain = |head: &[u8], length| Image::of(head, length, 1);
        assert_eq!(plain(&[0; HEAD], 512).disk(None), Ok((ImageFormat::Raw, 512)));
        assert!(plain(&[], 0).disk(None).unwrap_err().contains("0 bytes"));
        assert!(plain(&[0; HEAD], 512).disk(Some(ImageFormat::Qcow2)).unwrap_err().contains("not in format"));
        for (start, name) in OTHERS {
            let error = plain(&[start, &[0; 100]].concat(), 512).disk(None).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
        let mut vdi = [0; HEAD];
        vdi[VDI.0..VDI.0 + 4].copy_from_slice(&VDI.1);
        assert!(plain(&vdi, 512).disk(None).unwrap_err().contains("vdi"));
    }

    proptest! {
        #[test]
        fn every_image_comes_back(
            mut head in prop::collection::vec(any::<u8>(), 0..=HEAD),
            length: u64,
            changed: i64,
            is: bool,
            zeros in 0..6_usize,
        ) {
            if is && head.len() >= 80 {
                head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
                head[8..8 + 8 * zeros.min(4)].fill(0);
                head[32..36].fill(0);
            }
            let image = Image::of(&head, length, changed);
            prop_assert_eq!(Image::parse(&image.to_string()), Some(image));
            let _ = image.disk(None);
        }

        #[test]
        fn no_text_panics(text in "(length=|changed=|begins=|qcow2=|[0-9a-z =-]){0,12}") {
            let _ = Image::parse(&text);
        }
    }
}
