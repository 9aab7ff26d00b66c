//! Whether there is room and leave to write, asked before anything is written.

use super::{ReadError, Root};
use crate::formats::HostPath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{AccessFlags, faccessat};

/// The file system where something is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Which: its device number.
    pub device: u64,
    /// Free bytes for this user.
    pub bytes: u64,
    /// Whether a file can still be made: some file systems have a fixed number of them.
    pub files: bool,
}

impl Root {
    /// The room for a new file at this path, in the nearest directory that is there.
    ///
    /// # Errors
    /// `EROFS`, `EACCES` where this user may not write, or what looking at it ended in.
    pub fn room(&self, path: &HostPath) -> Result<Room, Errno> {
        let Some(dir) = path.split().0 else { return self.room_at(".") };
        match self.room_at(dir.relative()) {
            Err(Errno::ENOENT) => self.room(&dir),
            other => other,
        }
    }

    /// Whether this user may write to an existing file; one that is not there is no error.
    ///
    /// # Errors
    /// As [`Root::room`].
    pub fn writable(&self, path: &HostPath) -> Result<(), Errno> {
        match self.room_at(path.relative()) {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Whether one of these files is there.
    pub fn has_any(&self, mut paths: impl Iterator<Item = HostPath>) -> bool {
        use super::Read;
        paths.any(|path| !matches!(self.head(&path, 0), Err(ReadError::Absent)))
    }

    fn room_at(&self, path: &str) -> Result<Room, Errno> {
        let opened = self.open(path, OFlag::O_PATH, Mode::empty())?;
        let system = fstatvfs(&opened)?;
        if system.flags().contains(FsFlags::ST_RDONLY) {
            return Err(Errno::EROFS);
        }
        match faccessat(&opened, "", AccessFlags::W_OK, AtFlags::AT_EMPTY_PATH | AtFlags::AT_EACCESS) {
            // Before Linux 5.8 there is no such question.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOSYS) => {}
            Err(errno) => return Err(errno),
        }
        Ok(Room {
            device: fstat(&opened)?.st_dev,
            bytes: system.blocks_available().saturating_mul(system.fragment_size()),
            files: system.files() == 0 || system.files_available() > 0,
        })
    }
}
