//! The directory that is `/` for everything: the live machine's, or the tree given with `--root`.

use super::{File, MAX_FILE, Metadata, Node, Read, ReadError, ethtool, kernel_log, libvirt};
use crate::formats::image::HEAD;
use crate::formats::{Connection, HostPath, Image, channels};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// An open root directory. Every path is resolved by the kernel inside it (openat2(2), `RESOLVE_IN_ROOT`), so
/// that neither `..` nor an absolute symbolic link in a tree reaches the machine outside. Needs Linux >= 5.6.
pub struct Root {
    dir: OwnedFd,
    live: bool,
    /// Where files are read to: one buffer, however many they are.
    buffer: RefCell<Vec<u8>>,
}

impl Root {
    /// The live machine.
    pub fn live() -> Result<Root, Errno> {
        Root::at("/".as_ref(), true)
    }

    /// A directory tree: a mounted image, a container's root, a test.
    pub fn tree(path: &std::path::Path) -> Result<Root, Errno> {
        Root::at(path, false)
    }

    fn at(path: &std::path::Path, live: bool) -> Result<Root, Errno> {
        let dir = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Root { dir, live, buffer: RefCell::default() })
    }

    /// Whether this is the running machine, where programs may be run and the kernel answers.
    pub fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn open(&self, path: &str, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
        let how = || {
            OpenHow::new()
                .flags(flags | OFlag::O_CLOEXEC)
                .mode(mode)
                .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
        };
        // EAGAIN: a rename elsewhere raced with the resolution (openat2(2)); the kernel asks to try again.
        for _ in 0..16 {
            match openat2(self.dir.as_fd(), path, how()) {
                Err(Errno::EAGAIN) => continue,
                other => return other,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// The directory that holds `path`, and the name in it.
    pub(super) fn parent<'p>(&self, path: &'p HostPath) -> Result<(OwnedFd, &'p str), Errno> {
        let (dir, name) = path.split();
        let dir = dir.as_ref().map_or(".", |dir| dir.relative());
        Ok((self.open(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?, name))
    }

    fn read(&self, path: &HostPath, limit: usize, whole: bool) -> Result<Rc<File>, ReadError> {
        let fd = self.open(path.relative(), READING, Mode::empty()).map_err(classify)?;
        let stat = fstat(&fd).map_err(classify)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG {
            return Err(ReadError::Unsuitable);
        }
        let size = usize::try_from(stat.st_size).unwrap_or(0);
        let mut buffer = self.buffer.borrow_mut();
        let mut len = fill(&mut buffer, &fd, size, limit)?;
        if len > limit {
            if whole {
                return Err(ReadError::Unsuitable);
            }
            len = limit;
        }
        Ok(Rc::new(File { bytes: buffer[..len].to_vec(), mode: stat.st_mode & 0o7777 }))
    }
}

/// Reads an open file of some size into a buffer. Returns how many bytes it has; `limit + 1` if more than `limit`.
fn fill(buffer: &mut Vec<u8>, fd: &OwnedFd, size: usize, limit: usize) -> Result<usize, ReadError> {
    let mut len = 0;
    loop {
        let room = (len * 2).max(size + 1).max(PAGE + 1).min(limit + 1);
        if len == room {
            return Ok(len);
        }
        if buffer.len() < room {
            buffer.resize(room, 0);
        }
        let n = match nix::unistd::read(fd, &mut buffer[len..room]) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(classify)?,
        };
        len += n;
        // A file with a size (on disk; a sysfs attribute shows a page) is complete with one read that
        // returns no more than it, unless that is whole pages: the kernel hands out long lists by the page.
        // procfs shows no size and is read to its end.
        if n == 0 || (size > 0 && len <= size && n % PAGE != 0) {
            return Ok(len);
        }
    }
}

/// How a file is opened that may be anything in a tree: nothing waits for a pipe, and no terminal is taken over.
const READING: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// The most that one read of a sysfs attribute returns, in bytes: the smallest page of any architecture.
const PAGE: usize = 4096;

/// What `name` is in an open directory; a link there is not followed.
pub(super) fn node_at(dir: &OwnedFd, name: &str, limit: usize) -> Result<Node, ReadError> {
    let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(classify)?;
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFLNK => {
            let target = readlinkat(dir, name).map_err(classify)?.into_string();
            Ok(Node::Link { target: target.map_err(|_| ReadError::Unsuitable)? })
        }
        SFlag::S_IFREG => {
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = std::fs::File::from(openat(dir, name, flags, Mode::empty()).map_err(classify)?);
            let metadata = metadata(&file).map_err(classify)?;
            let mut bytes = Vec::new();
            let read =
                std::io::Read::read_to_end(&mut std::io::Read::take(file, limit as u64 + 1), &mut bytes);
            read.map_err(|error| classify(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
            if bytes.len() > limit {
                return Err(ReadError::Unsuitable);
            }
            let text = String::from_utf8(bytes).map_err(|_| ReadError::Unsuitable)?;
            Ok(Node::File { text, metadata })
        }
        _ => Err(ReadError::Unsuitable),
    }
}

/// Where SELinux keeps the label of a file.
pub(super) const LABEL: &str = "security.selinux";

/// Whose an open file is.
pub(super) fn metadata(file: impl AsFd) -> Result<Metadata, Errno> {
    let stat = fstat(&file)?;
    let mut buffer = [0_u8; 1024];
    // Without SELinux, or on a file system that has no labels, there is none.
    let length = rustix::fs::fgetxattr(file.as_fd(), LABEL, &mut buffer[..]).ok();
    let label =
        length.map(|length| String::from_utf8_lossy(&buffer[..length]).trim_end_matches('\0').to_owned());
    Ok(Metadata { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, label })
}

/// What an open image is.
fn image_of(mut file: std::fs::File) -> Result<Image, ReadError> {
    let fail = |error: std::io::Error| classify(Errno::from_raw(error.raw_os_error().unwrap_or(0)));
    let stat = fstat(&file).map_err(classify)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFREG && kind != SFlag::S_IFBLK {
        return Err(ReadError::Unsuitable);
    }
    let mut head = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(&mut file, HEAD as u64), &mut head).map_err(fail)?;
    // The size of a device is where it ends.
    let length = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).map_err(fail)?;
    Ok(Image::of(&head, length, stat.st_mtime))
}

fn classify(errno: Errno) -> ReadError {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => ReadError::Absent,
        other => ReadError::Refused(other),
    }
}

impl Read for Root {
    fn file(&self, path: &HostPath) -> Result<Rc<File>, ReadError> {
        if self.live && Connection::is_asked(path) {
            return libvirt::definition(path);
        }
        if let Some(interface) = channels::interface(path).filter(|_| self.live) {
            return ethtool::channels(interface);
        }
        self.read(path, MAX_FILE, true)
    }

    /// As sysfs hands attributes out: a page at a time, so that less ends it. procfs gives all that there is room for.
    fn once(&self, path: &HostPath) -> Result<String, ReadError> {
        let fd = self.open(path.relative(), READING, Mode::empty()).map_err(classify)?;
        let mut buffer = self.buffer.borrow_mut();
        match fill(&mut buffer, &fd, PAGE, MAX_FILE)? {
            len if len > MAX_FILE => Err(ReadError::Unsuitable),
            len => Ok(String::from_utf8_lossy(&buffer[..len]).into_owned()),
        }
    }

    fn head(&self, path: &HostPath, limit: usize) -> Result<Rc<File>, ReadError> {
        self.read(path, limit, false)
    }

    fn list(&self, path: &HostPath) -> Result<Rc<Vec<String>>, ReadError> {
        if self.live && Connection::is_asked(path) {
            return libvirt::definitions(path);
        }
        let fd = self
            .open(path.relative(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
            .map_err(classify)?;
        let mut names = Vec::new();
        for entry in nix::dir::Dir::from_fd(fd).map_err(classify)?.into_iter() {
            let name = entry.map_err(classify)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(Rc::new(names))
    }

    fn node(&self, path: &HostPath) -> Result<Node, ReadError> {
        if self.live && Connection::is_asked(path) {
            return libvirt::node(path);
        }
        let (dir, name) = self.parent(path).map_err(classify)?;
        node_at(&dir, name, MAX_FILE)
    }

    fn image(&self, path: &HostPath) -> Result<Image, ReadError> {
        let file = std::fs::File::from(self.open(path.relative(), READING, Mode::empty()).map_err(classify)?);
        image_of(file)
    }

    fn link(&self, path: &HostPath) -> Result<Rc<str>, ReadError> {
        if self.live && Connection::is_asked(path) {
            return libvirt::autostart(path);
        }
        // The link itself, so that its directory is not opened once for each.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let fd = self.open(path.relative(), flags, Mode::empty()).map_err(classify)?;
        let stat = fstat(&fd).map_err(classify)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
            return Err(ReadError::Unsuitable);
        }
        Ok(readlinkat(&fd, "").map_err(classify)?.to_string_lossy().into())
    }

    fn processes(&self, wanted: fn(&str) -> bool) -> Vec<(u32, String)> {
        let names = self.list(&HostPath::new(super::PROCESSES)).unwrap_or_default();
        let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        pids.sort_unstable();
        let name = |pid: u32| {
            let name = self.once(&super::comm(pid)).ok()?;
            Some((pid, name.trim_end().to_owned())).filter(|(_, name)| wanted(name))
        };
        pids.into_iter().filter_map(name).collect()
    }

    fn free_threads(&self) -> Vec<u32> {
        let names = self.list(&HostPath::new(super::PROCESSES)).unwrap_or_default();
        let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        pids.sort_unstable();
        pids.retain(|pid| self.once(&super::stat(*pid)).is_ok_and(|stat| super::is_free(&stat)));
        pids
    }

    fn lines(&self, path: &HostPath, wanted: fn(&str) -> bool) -> Result<Rc<File>, ReadError> {
        let file = self.read(path, MAX_FILE, true)?;
        let text: String =
            file.text().lines().filter(|line| wanted(line)).map(|line| format!("{line}\n")).collect();
        Ok(Rc::new(File { bytes: text.into_bytes(), mode: file.mode }))
    }

    fn register(&self, cpu: u32, number: u64) -> Result<u64, ReadError> {
        if !self.live {
            return Err(ReadError::Absent);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let fd = self.open(super::registers(cpu).relative(), flags, Mode::empty()).map_err(classify)?;
        let mut value = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::from(fd), &mut value, number)
            .map_err(|error| classify(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
        Ok(u64::from_le_bytes(value))
    }

    fn wake_up_bound(&self) -> Result<i32, ReadError> {
        if !self.live {
            return Err(ReadError::Absent);
        }
        // Whoever has it open asks for a bound, of 2,000 s until he writes another: that changes nothing.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let path = HostPath::new(super::WAKE_UP_BOUND);
        let fd = self.open(path.relative(), flags, Mode::empty()).map_err(classify)?;
        let mut value = [0; 4];
        std::io::Read::read_exact(&mut std::fs::File::from(fd), &mut value)
            .map_err(|error| classify(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
        Ok(i32::from_ne_bytes(value))
    }

    fn kernel_log(&self, wanted: fn(&str) -> bool) -> Result<Rc<File>, ReadError> {
        let path = HostPath::new(super::KERNEL_LOG);
        if !self.live {
            let file = self.read(&path, MAX_FILE, true)?;
            return Ok(kernel_log::kept(file.text().lines(), wanted));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let fd = self.open(path.relative(), flags, Mode::empty()).map_err(classify)?;
        let records = kernel_log::records(&fd).map_err(classify)?;
        Ok(kernel_log::kept(records.iter().map(String::as_str), wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_attribute_is_read_to_its_end() {
        let tree = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            fs::write(tree.path().join("attribute"), text).unwrap();
            Root::tree(tree.path()).unwrap().once(&HostPath::new("/attribute"))
        };
        for length in [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 5 * PAGE + 7, MAX_FILE] {
            let text = "0123456789".chars().cycle().take(length).collect::<String>();
            assert_eq!(read(&text).as_ref(), Ok(&text), "{length}");
        }
        assert_eq!(read(&" ".repeat(MAX_FILE + 1)), Err(ReadError::Unsuitable));
        let root = Root::tree(tree.path()).unwrap();
        assert_eq!(root.once(&HostPath::new("/none")), Err(ReadError::Absent));
        fs::create_dir(tree.path().join("directory")).unwrap();
        assert_eq!(root.once(&HostPath::new("/directory")), Err(ReadError::Refused(Errno::EISDIR)));
    }
}
