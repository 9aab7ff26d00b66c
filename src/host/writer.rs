//! Writing to one machine. Made only by a real `apply`.

use super::{Program, ProgramError, Root};
use crate::formats::HostPath;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, fchown, fsync, ftruncate, getegid, geteuid, symlinkat, unlinkat};
use std::os::fd::OwnedFd;

/// The write capability for one root, held under the lock that lets one run work at a time.
pub struct Writer<'r> {
    root: &'r Root,
    _lock: Flock<OwnedFd>,
}

/// The lock file of the live machine.
const LOCK: &str = "/run/rtkvm-tune.lock";

impl<'r> Writer<'r> {
    /// Takes the lock of `root`: of a tree its root directory, so that nothing is left in it.
    ///
    /// # Errors
    /// `EWOULDBLOCK` when another run holds it; anything else when it cannot be opened.
    pub fn lock(root: &'r Root) -> Result<Writer<'r>, Errno> {
        let opened = match root.is_live() {
            true => lock_file(root)?,
            false => root.open(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?,
        };
        match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Writer { root, _lock: lock }),
            Err((_, errno)) => Err(errno),
        }
    }

    /// Writes one value to an existing kernel attribute: one write, never created. In a tree it is an ordinary
    /// file, cut off behind the value: a write that fails leaves the old one.
    ///
    /// # Errors
    /// `EXDEV` for an attribute of the running kernel in a tree, as where its `/sys` is mounted in it.
    pub fn attribute(&self, path: &HostPath, value: &str) -> Result<(), Errno> {
        // O_NONBLOCK: a named pipe in a tree must not wait for a reader.
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
        let fd = self.root.open(path.relative(), flags, Mode::empty())?;
        if !self.root.is_live() && is_kernels(&fd)? {
            return Err(Errno::EXDEV);
        }
        let line = format!("{value}\n");
        match nix::unistd::write(&fd, line.as_bytes())? {
            n if n != line.len() => Err(Errno::EIO),
            _ if self.root.is_live() => Ok(()),
            n => ftruncate(&fd, n as i64),
        }
    }

    /// Replaces or makes a whole file that we own, so that at any moment the old or the new content is there, on
    /// disk. Whatever was there, it belongs to the user of this process and has `mode`. Missing directories are
    /// made, 0755.
    pub fn file(&self, path: &HostPath, content: &str, mode: u32) -> Result<(), Errno> {
        make_parents(self.root, path)?;
        let (dir, name) = self.root.parent(path)?;
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
            // A directory with the set-group-ID bit gives its group.
            fchown(&fd, Some(geteuid()), Some(getegid()))?;
            fchmod(&fd, Mode::from_bits_truncate(mode))?;
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

/// The open lock file of the live machine.
fn lock_file(root: &Root) -> Result<OwnedFd, Errno> {
    let path = HostPath::new(LOCK);
    make_parents(root, &path)?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW;
    root.open(path.relative(), flags, Mode::from_bits_truncate(0o600))
}

/// Whether an open file is the running kernel's: sysfs or procfs.
fn is_kernels(fd: &OwnedFd) -> Result<bool, Errno> {
    Ok([SYSFS_MAGIC, PROC_SUPER_MAGIC].contains(&fstatfs(fd)?.filesystem_type()))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As where /proc is mounted in the tree: here it is the tree.
    #[test]
    fn a_tree_does_not_reach_the_running_kernel() {
        let own = HostPath::new(format!("/{}/comm", std::process::id()));
        let root = Root::tree("/proc".as_ref()).unwrap();
        let read = || std::fs::read_to_string(format!("/proc{own}")).unwrap();
        let before = read();
        // Of the whole process, to be written by any user.
        let written = Writer::lock(&root).and_then(|writer| writer.attribute(&own, "changed"));
        assert_eq!((written, read()), (Err(Errno::EXDEV), before));
        for (path, kernels) in [("/proc/cmdline", true), ("/sys/kernel/notes", true), ("/dev/null", false)] {
            let fd = std::fs::File::open(path).unwrap().into();
            assert_eq!(is_kernels(&fd), Ok(kernels), "{path}");
        }
    }

    #[test]
    fn the_lock_file_is_no_link() {
        let (tree, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Root::tree(tree.path()).unwrap();
        lock_file(&root).unwrap();
        let lock = tree.path().join("run/rtkvm-tune.lock");
        std::fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(outside.path().join("file"), &lock).unwrap();
        assert_eq!(lock_file(&root).unwrap_err(), Errno::ELOOP);
    }
}
