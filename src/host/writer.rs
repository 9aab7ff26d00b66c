//! Writing to one machine. Made only by a real `apply`.

use super::{Program, ProgramError, Root};
use crate::formats::HostPath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, ftruncate, symlinkat, unlinkat};
use std::os::fd::OwnedFd;

/// The write capability for one root, held under the lock that lets one run work at a time.
pub struct Writer<'r> {
    root: &'r Root,
    _lock: Flock<OwnedFd>,
}

/// The lock file, below the root.
const LOCK: &str = "/run/rtkvm-tune.lock";

impl<'r> Writer<'r> {
    /// Takes the lock of `root`.
    ///
    /// # Errors
    /// `EWOULDBLOCK` when another run holds it; anything else when the lock file cannot be made.
    pub fn lock(root: &'r Root) -> Result<Writer<'r>, Errno> {
        let path = HostPath::new(LOCK);
        make_parents(root, &path)?;
        let file = root.open(
            path.relative(),
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW,
            Mode::from_bits_truncate(0o600),
        )?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Writer { root, _lock: lock }),
            Err((_, errno)) => Err(errno),
        }
    }

    /// Writes one value to an existing kernel attribute: one write, never created. In a tree it is an ordinary
    /// file, cut off behind the value: a write that fails leaves the old one.
    pub fn attribute(&self, path: &HostPath, value: &str) -> Result<(), Errno> {
        // O_NONBLOCK: a named pipe in a tree must not wait for a reader.
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
        let fd = self.root.open(path.relative(), flags, Mode::empty())?;
        let line = format!("{value}\n");
        match nix::unistd::write(&fd, line.as_bytes())? {
            n if n != line.len() => Err(Errno::EIO),
            _ if self.root.is_live() => Ok(()),
            n => ftruncate(&fd, n as i64),
        }
    }

    /// Replaces or makes a whole file, so that at any moment the old or the new content is there, on disk. An
    /// existing regular file keeps its mode and owner; a new one gets `mode`. Missing directories are made, 0755.
    pub fn file(&self, path: &HostPath, content: &str, mode: u32) -> Result<(), Errno> {
        make_parents(self.root, path)?;
        let (dir, name) = self.root.parent(path)?;
        // A symbolic link is replaced, and its own mode, 0777, is none for a file.
        let regular =
            |stat: &FileStat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        let old = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok().filter(regular);
        let temporary = format!(".{name}.rtkvm-tune");
        remove_if_there(&dir, &temporary)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&dir, temporary.as_str(), flags, Mode::from_bits_truncate(0o600))?;
        let written = (|| {
            let mut rest = content.as_bytes();
            while !rest.is_empty() {
                match nix::unistd::write(&fd, rest) {
                    Err(Errno::EINTR) => {}
                    other => rest = &rest[other?..],
                }
            }
            if let Some(old) = &old {
                fchown(&fd, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)))?;
            }
            fchmod(&fd, Mode::from_bits_truncate(old.map_or(mode, |old| old.st_mode & 0o7777)))?;
            fsync(&fd)?;
            renameat(&dir, temporary.as_str(), &dir, name)?;
            fsync(&dir)
        })();
        if written.is_err() {
            // The first error is the one to report.
            let _ = remove_if_there(&dir, &temporary);
        }
        written
    }

    /// Makes a symbolic link, replacing one that points elsewhere.
    pub fn link(&self, path: &HostPath, target: &str) -> Result<(), Errno> {
        make_parents(self.root, path)?;
        let (dir, name) = self.root.parent(path)?;
        let temporary = format!(".{name}.rtkvm-tune");
        remove_if_there(&dir, &temporary)?;
        symlinkat(target, &dir, temporary.as_str())?;
        let renamed = renameat(&dir, temporary.as_str(), &dir, name);
        if renamed.is_err() {
            // The first error is the one to report.
            let _ = remove_if_there(&dir, &temporary);
        }
        renamed?;
        fsync(&dir)
    }

    /// Removes a file that we own.
    pub fn remove(&self, path: &HostPath) -> Result<(), Errno> {
        let (dir, name) = self.root.parent(path)?;
        unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)?;
        fsync(&dir)
    }

    /// Runs a program on the live machine; `None` in a tree, where no program is ever run.
    pub fn run(&self, program: &Program) -> Option<Result<(), ProgramError>> {
        self.root.is_live().then(|| program.run())
    }
}

fn remove_if_there(dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Makes the missing directories above `path`, 0755 whatever the umask: a system directory must be readable.
fn make_parents(root: &Root, path: &HostPath) -> Result<(), Errno> {
    let (Some(dir), _) = path.split() else { return Ok(()) };
    let there = || root.open(dir.relative(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).map(drop);
    match there() {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    make_parents(root, &dir)?;
    let (parent, name) = root.parent(&dir)?;
    match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {}
        // Made by another program meanwhile, or a symbolic link to nowhere, which is an error.
        Err(Errno::EEXIST) => return there(),
        Err(other) => return Err(other),
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(&parent, name, flags, Mode::empty())?;
    fchmod(&made, Mode::from_bits_truncate(0o755))?;
    fsync(&made)?;
    fsync(&parent)
}
