//! Images of guests: disks that are copied, and seeds. Each is made under another name and takes its own when it is whole
//! and on disk.

use super::writer::{make_parents, remove_if_there, temporary};
use super::{Program, ProgramError, Writer};
use crate::formats::image::UNUSED;
use crate::formats::{HostPath, ImageCopy};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, openat, renameat};
use nix::libc::{F_UNLCK, F_WRLCK, SEEK_SET, flock};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, fchown, fsync, getegid, geteuid, linkat, unlinkat};
use rustix::fs::{RenameFlags, renameat_with};
use std::os::fd::OwnedFd;
use std::process::Stdio;

/// What became of a disk that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Done,
    /// Something has written to it.
    Used,
    /// A program has it locked, as QEMU locks the disks of a guest that runs.
    Locked,
}

/// QEMU locks bytes from 100 on (docs/system/images.rst, "Disk image file locking"); none beyond these.
const LOCKED: (i64, i64) = (100, 200);

impl Writer<'_> {
    /// Makes the disk of a guest, 0600: never over a file that is there. Its time of change is [`UNUSED`].
    ///
    /// # Errors
    /// A message: of the file system, of `qemu-img`, or that something is there by now. Nothing is left then.
    pub fn disk(&self, path: &HostPath, copy: &ImageCopy) -> Result<(), String> {
        let told = |errno: Errno| errno.desc().to_owned();
        make_parents(self.root, path).map_err(told)?;
        let (dir, name) = self.root.parent(path).map_err(told)?;
        let half = temporary(name);
        remove_if_there(&dir, &half).map_err(told)?;
        let made = make_disk(&dir, &half, copy).and_then(|()| take_name(&dir, &half, name).map_err(told));
        if made.is_err() {
            // The first error is the one to report.
            let _ = remove_if_there(&dir, &half);
        }
        made
    }

    /// Removes a disk that nothing has written to since it was made, and that no guest runs with.
    ///
    /// # Errors
    /// Of the file system.
    pub fn remove_disk(&self, path: &HostPath) -> Result<Removal, Errno> {
        let (dir, name) = self.root.parent(path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let disk = openat(&dir, name, flags, Mode::empty())?;
        let stat = fstat(&disk)?;
        let regular = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        if !regular || stat.st_mtime != UNUSED {
            return Ok(Removal::Used);
        }
        if is_locked(&disk)? {
            return Ok(Removal::Locked);
        }
        unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)?;
        fsync(&dir)?;
        Ok(Removal::Done)
    }

    /// Makes the image of a seed in place of the one that is there: user-data may hold a password, so it is 0600.
    pub(super) fn seed(&self, program: &Program, image: &HostPath) -> Result<(), ProgramError> {
        let fail = |errno: Errno| ProgramError::new(format!("{image} cannot be made: {}", errno.desc()));
        make_parents(self.root, image).map_err(fail)?;
        let (dir, name) = self.root.parent(image).map_err(fail)?;
        let half = temporary(name);
        remove_if_there(&dir, &half).map_err(fail)?;
        let path = image.split().0.map_or(format!("/{half}"), |dir| format!("{dir}/{half}"));
        // For nobody else from the start: xorriso writes into a file that is there, and leaves its mode alone.
        let made = private(&dir, &half)
            .map_err(fail)
            .and_then(|_| program.run(&["-o", &path]))
            .and_then(|()| finish_seed(&dir, &half, name).map_err(fail));
        if made.is_err() {
            let _ = remove_if_there(&dir, &half);
        }
        made
    }
}

fn make_disk(dir: &OwnedFd, half: &str, copy: &ImageCopy) -> Result<(), String> {
    let told = |errno: Errno| errno.desc().to_owned();
    let disk = private(dir, half).map_err(told)?;
    for program in [Program::CreateImage { copy: copy.clone() }, Program::CopyImage { copy: copy.clone() }] {
        let input = disk.try_clone().map_err(|error| error.to_string())?;
        program.run_on(&[], Stdio::from(input)).map_err(|error| error.to_string())?;
    }
    let time = TimeSpec::new(UNUSED, 0);
    futimens(&disk, &time, &time).map_err(told)?;
    fsync(&disk).map_err(told)
}

/// A new file that only its owner, who runs this, can read and write.
fn private(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o600);
    let file = openat(dir, name, flags, mode)?;
    // Whatever the umask and the directory say.
    fchown(&file, Some(geteuid()), Some(getegid()))?;
    fchmod(&file, mode)?;
    Ok(file)
}

/// Gives a file its name, unless something has it.
fn take_name(dir: &OwnedFd, half: &str, name: &str) -> Result<(), Errno> {
    match renameat_with(dir, half, dir, name, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        // A file system that cannot tell: NFS.
        Err(rustix::io::Errno::INVAL) => {
            linkat(dir, half, dir, name, AtFlags::empty())?;
            remove_if_there(dir, half)?;
        }
        Err(errno) => return Err(Errno::from_raw(errno.raw_os_error())),
    }
    fsync(dir)
}

fn finish_seed(dir: &OwnedFd, half: &str, name: &str) -> Result<(), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    fsync(&openat(dir, half, flags, Mode::empty())?)?;
    renameat(dir, half, dir, name)?;
    fsync(dir)
}

/// Whether another program has a lock on an open image.
fn is_locked(disk: &OwnedFd) -> Result<bool, Errno> {
    let (l_start, l_len) = LOCKED;
    // One to write conflicts with every other.
    let mut lock = flock { l_type: F_WRLCK as i16, l_whence: SEEK_SET as i16, l_start, l_len, l_pid: 0 };
    fcntl(disk, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != F_UNLCK as i16)
}
