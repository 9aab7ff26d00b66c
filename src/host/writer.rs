//! Writing to one machine. Made only by a real `apply`, `revert` or `recover`.

use super::root::{LABEL, metadata};
use super::{Metadata, Program, ProgramError, Read, Root, STATE_DIR};
use crate::formats::HostPath;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, OFlag, fcntl, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, fchown, fsync, ftruncate, getegid, geteuid, symlinkat, syncfs, unlinkat};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The write capability for one root, held under the lock that lets one run work at a time.
pub struct Writer<'r> {
    pub(super) root: &'r Root,
    _lock: Flock<OwnedFd>,
}

/// Why there is no lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockError {
    /// Another run has it.
    Held,
    /// It cannot be opened or taken.
    Failed(Errno),
}

/// The lock file of the live machine.
const LOCK: &str = "/run/rtkvm-tune.lock";

impl<'r> Writer<'r> {
    /// Takes the lock of `root`: of a tree its root directory, so that nothing is left in it. Waits up to `wait`
    /// seconds for a run that holds it.
    ///
    /// # Errors
    /// Another run holds it, or it cannot be opened.
    pub fn lock(root: &'r Root, wait: u64) -> Result<Writer<'r>, LockError> {
        let mut opened = match root.is_live() {
            true => lock_file(root),
            false => root.open(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()),
        }
        .map_err(LockError::Failed)?;
        let start = Instant::now();
        loop {
            opened = match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Writer { root, _lock: lock }),
                Err((opened, Errno::EWOULDBLOCK | Errno::EINTR)) => opened,
                Err((_, errno)) => return Err(LockError::Failed(errno)),
            };
            if start.elapsed() >= Duration::from_secs(wait) {
                return Err(LockError::Held);
            }
            // flock(2) has no time limit of its own.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Writes a line to an existing kernel attribute: one write, never created. In a tree it is an ordinary
    /// file, cut off behind the value: a write that fails leaves the old one.
    ///
    /// # Errors
    /// `EXDEV` for an attribute of the running kernel in a tree, as where its `/sys` is mounted in it.
    pub fn attribute(&self, path: &HostPath, line: &str) -> Result<(), Errno> {
        // O_NONBLOCK: a named pipe in a tree must not wait for a reader.
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
        let fd = self.root.open(path.relative(), flags, Mode::empty())?;
        if !self.root.is_live() && is_kernels(&fd)? {
            return Err(Errno::EXDEV);
        }
        if self.root.is_live() {
            return written(nix::unistd::write(&fd, line.as_bytes())?, line.len());
        }
        // Whoever dies before the file is cut off leaves the value with empty lines behind it, which is the same
        // value, and not the end of a longer one.
        let length = usize::try_from(fstat(&fd)?.st_size).unwrap_or_default();
        let padded = format!("{line:\n<length$}");
        written(nix::unistd::write(&fd, padded.as_bytes())?, padded.len())?;
        ftruncate(&fd, line.len() as i64)
    }

    /// Replaces or makes a whole file, so that at any moment the old or the new content is there, on disk. With
    /// `metadata` it becomes exactly that; else a file that was there and that only its owner, root or this user,
    /// can change keeps its mode, owner and label, and any other gets `mode` and this user. Missing directories
    /// are made, 0755.
    pub fn file(
        &self,
        path: &HostPath,
        content: &str,
        mode: u32,
        metadata: Option<&Metadata>,
    ) -> Result<(), Errno> {
        make_parents(self.root, path)?;
        let (dir, name) = self.root.parent(path)?;
        let kept = if metadata.is_none() { kept(&dir, name) } else { None };
        replace(&dir, name, content, mode, metadata.or(kept.as_ref()))
    }

    /// Makes a symbolic link, replacing what is there.
    pub fn link(&self, path: &HostPath, target: &str) -> Result<(), Errno> {
        make_parents(self.root, path)?;
        let (dir, name) = self.root.parent(path)?;
        let temporary = temporary(name);
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

    /// Removes a file or a symbolic link.
    pub fn remove(&self, path: &HostPath) -> Result<(), Errno> {
        let (dir, name) = self.root.parent(path)?;
        unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)?;
        fsync(&dir)
    }

    /// Removes a directory; one that has something in it stays, which is `false`, as is one that is not there.
    pub fn remove_directory(&self, path: &HostPath) -> Result<bool, Errno> {
        let (dir, name) = match self.root.parent(path) {
            Err(Errno::ENOENT) => return Ok(false),
            other => other?,
        };
        match unlinkat(&dir, name, UnlinkatFlags::RemoveDir) {
            Ok(()) => fsync(&dir).map(|()| true),
            Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Removes what a killed run left of a file or link that it was about to put there.
    pub fn remove_temporary(&self, path: &HostPath) -> Result<(), Errno> {
        match self.root.parent(path) {
            Ok((dir, name)) => remove_if_there(&dir, &temporary(name)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Replaces a file of the state, 0600 in a directory 0700; when this returns it is on disk.
    ///
    /// # Errors
    /// A message; also where the directory is not as this program makes it.
    pub fn store(&self, name: &str, content: &str) -> Result<(), String> {
        let failed = |errno: Errno| format!("{STATE_DIR}/{name} cannot be written: {}", errno.desc());
        let path = HostPath::new(STATE_DIR);
        make_directory(self.root, &path, 0o700).map_err(failed)?;
        let dir = self.root.state_dir().map_err(|error| error.to_string())?;
        let dir = dir.ok_or_else(|| failed(Errno::ENOENT))?;
        let private = Mode::from_bits_truncate(0o700);
        // Whoever made it meant it to be seen by others; what is in it now is not.
        if fstat(&dir).map_err(failed)?.st_mode & 0o7777 != private.bits() {
            fchmod(&dir, private).map_err(failed)?;
        }
        replace(&dir, name, content, 0o600, None).map_err(failed)
    }

    /// Removes a file of the state, and what a killed run left of it.
    ///
    /// # Errors
    /// As [`Writer::store`].
    pub fn unstore(&self, name: &str) -> Result<(), String> {
        let failed = |errno: Errno| format!("{STATE_DIR}/{name} cannot be removed: {}", errno.desc());
        let Some(dir) = self.root.state_dir().map_err(|error| error.to_string())? else { return Ok(()) };
        remove_if_there(&dir, &temporary(name)).map_err(failed)?;
        remove_if_there(&dir, name).map_err(failed)?;
        fsync(&dir).map_err(failed)
    }

    /// Has everything on the file system of this file or directory written to disk.
    pub fn sync(&self, path: &HostPath) -> Result<(), Errno> {
        syncfs(self.root.open(path.relative(), OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?)
    }

    /// Runs a program on the live machine; `None` in a tree, where no program is ever run.
    pub fn run(&self, program: &Program) -> Option<Result<(), ProgramError>> {
        // GRUB reads what a link points to, which may be on another file system: there it is written over.
        let in_use = program.generates().map(HostPath::new);
        let beside = in_use.filter(|in_use| Read::link(self.root, in_use).is_err());
        self.root.is_live().then(|| match (program, beside) {
            (Program::MakeSeed { image, .. }, _) => self.seed(program, image),
            (_, None) => program.run(&[]),
            (_, Some(in_use)) => {
                program.run(&["--output", &format!("{in_use}{GENERATED}")])?;
                self.take_generated(&in_use).map_err(|errno| {
                    ProgramError::new(format!("{in_use} cannot be replaced: {}", errno.desc()))
                })
            }
        })
    }

    /// Removes what a killed or failed `update-grub` left beside `path`, the file that it generates: its own half-written
    /// one too.
    pub fn remove_generated(&self, path: &HostPath) -> Result<(), Errno> {
        let (dir, name) = match self.root.parent(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other?,
        };
        ["", ".new"].iter().try_for_each(|end| remove_if_there(&dir, &format!("{name}{GENERATED}{end}")))
    }

    /// Has the file that was generated beside `path` take its place, with its mode, owner and label.
    fn take_generated(&self, path: &HostPath) -> Result<(), Errno> {
        let (dir, name) = self.root.parent(path)?;
        let generated = format!("{name}{GENERATED}");
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&dir, generated.as_str(), flags, Mode::empty())?;
        if let Some(old) = kept(&dir, name) {
            dress(&fd, &old)?;
        }
        fsync(&fd)?;
        renameat(&dir, generated.as_str(), &dir, name)?;
        fsync(&dir)
    }
}

/// What a boot configuration that is not yet in use has behind its name.
const GENERATED: &str = ".rtkvm-tune";

/// Gives an open file mode, owner and label.
fn dress(fd: &OwnedFd, metadata: &Metadata) -> Result<(), Errno> {
    fchown(fd, Some(metadata.uid.into()), Some(metadata.gid.into()))?;
    if let Some(label) = &metadata.label {
        let flags = rustix::fs::XattrFlags::empty();
        match rustix::fs::fsetxattr(fd, LABEL, label.as_bytes(), flags) {
            // An EFI system partition: all of it has the label of its mount.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(Errno::from_raw(errno.raw_os_error())),
        }
    }
    fchmod(fd, Mode::from_bits_truncate(metadata.mode))
}

/// The open lock file of the live machine. Programs that are started keep it open: whoever kills this one in the middle of
/// an update-grub finds the machine locked until that has ended too.
fn lock_file(root: &Root) -> Result<OwnedFd, Errno> {
    let path = HostPath::new(LOCK);
    make_parents(root, &path)?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW;
    let file = root.open(path.relative(), flags, Mode::from_bits_truncate(0o600))?;
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(file)
}

/// A value is written whole, or it is not the value.
fn written(bytes: usize, of: usize) -> Result<(), Errno> {
    if bytes == of { Ok(()) } else { Err(Errno::EIO) }
}

/// Whether an open file is the running kernel's: sysfs or procfs.
fn is_kernels(fd: &OwnedFd) -> Result<bool, Errno> {
    Ok([SYSFS_MAGIC, PROC_SUPER_MAGIC].contains(&fstatfs(fd)?.filesystem_type()))
}

pub(super) fn remove_if_there(dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// The name under which a file is written before it takes its own.
pub(super) fn temporary(name: &str) -> String {
    format!(".{name}.rtkvm-tune")
}

/// What a file that is replaced hands on; nothing if others can change it.
fn kept(dir: &OwnedFd, name: &str) -> Option<Metadata> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let old = openat(dir, name, flags, Mode::empty()).ok()?;
    let regular = SFlag::from_bits_truncate(fstat(&old).ok()?.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    let metadata = metadata(&old).ok().filter(|_| regular)?;
    let owner = metadata.uid == 0 || metadata.uid == geteuid().as_raw();
    (owner && metadata.mode & 0o022 == 0).then_some(metadata)
}

/// Writes a temporary file and has it take the name.
fn replace(
    dir: &OwnedFd,
    name: &str,
    content: &str,
    mode: u32,
    metadata: Option<&Metadata>,
) -> Result<(), Errno> {
    let temporary = temporary(name);
    remove_if_there(dir, &temporary)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(dir, temporary.as_str(), flags, Mode::from_bits_truncate(0o600))?;
    let written = (|| {
        let mut rest = content.as_bytes();
        while !rest.is_empty() {
            match nix::unistd::write(&fd, rest) {
                Err(Errno::EINTR) => {}
                // A file system that takes nothing and says nothing would be asked for ever.
                Ok(0) => return Err(Errno::EIO),
                other => rest = &rest[other?..],
            }
        }
        match metadata {
            Some(old) => dress(&fd, old)?,
            None => {
                // A directory with the set-group-ID bit gives its group.
                fchown(&fd, Some(geteuid()), Some(getegid()))?;
                fchmod(&fd, Mode::from_bits_truncate(mode))?;
            }
        }
        fsync(&fd)?;
        renameat(dir, temporary.as_str(), dir, name)?;
        fsync(dir)
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = remove_if_there(dir, &temporary);
    }
    written
}

/// Makes the missing directories above `path`, 0755 whatever the umask, for a system directory must be readable; that of
/// the state is private.
pub(super) fn make_parents(root: &Root, path: &HostPath) -> Result<(), Errno> {
    let mode = |dir: &HostPath| if dir.as_str() == STATE_DIR { 0o700 } else { 0o755 };
    path.split().0.map_or(Ok(()), |dir| make_directory(root, &dir, mode(&dir)))
}

/// Makes a directory with this mode if it is not there, and the directories above it.
fn make_directory(root: &Root, dir: &HostPath, mode: u32) -> Result<(), Errno> {
    let there = || root.open(dir.relative(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).map(drop);
    match there() {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    make_parents(root, dir)?;
    let (parent, name) = root.parent(dir)?;
    match mkdirat(&parent, name, Mode::from_bits_truncate(mode)) {
        Ok(()) => {}
        // Made by another program meanwhile, or a symbolic link to nowhere, which is an error.
        Err(Errno::EEXIST) => return there(),
        Err(other) => return Err(other),
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(&parent, name, flags, Mode::empty())?;
    fchmod(&made, Mode::from_bits_truncate(mode))?;
    fsync(&made)?;
    fsync(&parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::grub::GRUB_CFG;

    /// As where /proc is mounted in the tree: here it is the tree.
    #[test]
    fn a_tree_does_not_reach_the_running_kernel() {
        let own = HostPath::new(format!("/{}/comm", std::process::id()));
        let root = Root::tree("/proc".as_ref()).unwrap();
        let read = || std::fs::read_to_string(format!("/proc{own}")).unwrap();
        let before = read();
        // Of the whole process, to be written by any user.
        let written = Writer::lock(&root, 0).unwrap().attribute(&own, "changed");
        assert_eq!((written, read()), (Err(Errno::EXDEV), before));
        for (path, kernels) in [("/proc/cmdline", true), ("/sys/kernel/notes", true), ("/dev/null", false)] {
            let fd = std::fs::File::open(path).unwrap().into();
            assert_eq!(is_kernels(&fd), Ok(kernels), "{path}");
        }
    }

    #[test]
    fn what_was_generated_takes_the_place_of_what_is_in_use() {
        use std::os::unix::fs::PermissionsExt;
        let tree = tempfile::tempdir().unwrap();
        let root = Root::tree(tree.path()).unwrap();
        let path = HostPath::new(GRUB_CFG);
        let [in_use, generated] =
            ["", GENERATED].map(|end| tree.path().join(format!("{}{end}", path.relative())));
        std::fs::create_dir_all(in_use.parent().unwrap()).unwrap();
        std::fs::write(&in_use, "old").unwrap();
        std::fs::set_permissions(&in_use, PermissionsExt::from_mode(0o440)).unwrap();
        std::fs::write(&generated, "new").unwrap();
        Writer::lock(&root, 0).unwrap().take_generated(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&in_use).unwrap(), "new");
        assert_eq!(in_use.metadata().unwrap().permissions().mode() & 0o7777, 0o440);
        assert!(!generated.exists());
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
