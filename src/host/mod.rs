//! Layer 1: the machine. The only place with effects; everything above is a pure function of what is read here.
//!
//! Reading and writing are separate capabilities: [`Read`] is all that planning, auditing and rendering ever
//! hold, and [`Writer`] is made in one place, by a real `apply`.

mod capabilities;
mod capture;
mod ethtool;
mod images;
mod kernel_log;
mod libvirt;
mod machine;
mod process;
mod programs;
mod room;
mod root;
mod signals;
mod snapshot;
mod store;
mod writer;

pub use images::Removal;
pub use machine::Machine;
pub use process::{
    Loaded, is_root, load, load_input, now, pause, print, print_error, replace_output, wants_color,
    wants_error_color, write_output,
};
pub use programs::{GuestName, Program, ProgramError};
pub use room::Room;
pub use root::Root;
pub use signals::Signals;
pub use snapshot::{Entry, Snapshot};
pub use store::{JOURNAL, STATE, STATE_DIR, StoreError, time_and_id};
pub use writer::{LockError, Writer};

use crate::formats::thread::kernel_thread;
use crate::formats::{HostPath, Image};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::rc::Rc;

/// A regular file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The content; a kernel attribute ends with its newline.
    pub bytes: Vec<u8>,
    /// The permission bits. The kernel shows what it will refuse: since 6.12 an interrupt whose affinity is
    /// not the user's to set has a read-only `smp_affinity`.
    pub mode: u32,
}

impl File {
    /// The content as text, invalid UTF-8 replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

/// What is at a path itself: a symbolic link is not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Node {
    /// A regular file.
    File {
        /// Its content.
        text: String,
        /// Whose it is.
        #[serde(flatten)]
        metadata: Metadata,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: String,
    },
}

/// Whose a file is, and who may do what with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The permission bits.
    pub mode: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The SELinux label; `None` where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label: Option<String>,
}

/// Why something could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// It does not exist: for a kernel attribute, the kernel does not have it.
    Absent,
    /// The description of the machine does not tell.
    Untold,
    /// It is not what was expected there: a directory for a file, a device, a file beyond [`MAX_FILE`].
    Unsuitable,
    /// The kernel refused, with this error.
    Refused(nix::errno::Errno),
    /// The libvirt that has it does not answer.
    NoAnswer,
    /// `ethtool`, which alone tells of it, cannot be run.
    NoEthtool,
}

impl ReadError {
    /// Whether there is nothing.
    pub fn is_absent(self) -> bool {
        self == ReadError::Absent
    }

    /// Who may not read it, and why, where that is it.
    pub fn forbidden(self) -> Option<&'static str> {
        match self {
            ReadError::Refused(nix::errno::Errno::EACCES) => Some("only root may read it"),
            ReadError::Refused(nix::errno::Errno::EPERM) => {
                Some("nobody but root may read it, and not even root where the kernel is locked down")
            }
            _ => None,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Absent => f.write_str("does not exist"),
            ReadError::Untold => f.write_str("is not part of this description of the machine"),
            ReadError::Unsuitable => f.write_str("is not a regular file of reasonable size"),
            ReadError::NoAnswer => f.write_str("is not known: libvirt does not answer"),
            ReadError::NoEthtool => {
                f.write_str("is not known: install the package ethtool, which tells and sets it")
            }
            ReadError::Refused(errno) => write!(f, "{}", errno.desc()),
        }
    }
}

/// The largest file that is read, in bytes. Kernel attributes are at most a page; the largest file of a host is
/// `grub.cfg`, some tens of KiB.
pub const MAX_FILE: usize = 4 << 20;

/// The directory with one entry for each process.
const PROCESSES: &str = "/proc";

/// The file that says what a process is and does, on one line.
fn stat(pid: u32) -> HostPath {
    HostPath::new(format!("{PROCESSES}/{pid}/stat"))
}

/// The file that says more of it, in lines.
fn status(pid: u32) -> HostPath {
    HostPath::new(format!("{PROCESSES}/{pid}/status"))
}

/// Whether a line of `/proc/PID/stat` is of a thread of the kernel that is not bound to its CPUs.
fn is_free(stat: &str) -> bool {
    kernel_thread(stat).is_some_and(|thread| !thread.bound)
}

/// The file with the name of a process.
fn comm(pid: u32) -> HostPath {
    HostPath::new(format!("{PROCESSES}/{pid}/comm"))
}

/// The device with the registers of a CPU.
fn registers(cpu: u32) -> HostPath {
    HostPath::new(format!("/dev/cpu/{cpu}/msr"))
}

/// The device with the bound on the time in which every CPU wakes (Linux admin-guide/pm/cpuidle.rst).
const WAKE_UP_BOUND: &str = "/dev/cpu_dma_latency";

/// Where the kernel's log is read (Documentation/ABI/testing/dev-kmsg).
const KERNEL_LOG: &str = "/dev/kmsg";

/// The most lines of the kernel's log that are kept.
pub const MOST_LOG_LINES: usize = 64;

/// Reading one machine: the live one, a directory tree or a capture.
pub trait Read {
    /// The content and mode of a file; symbolic links are followed inside the root.
    fn file(&self, path: &HostPath) -> Result<Rc<File>, ReadError>;

    /// The text of a file of the kernel's that one place asks for, once, of which a machine may have tens of thousands.
    /// Neither its mode, its size nor its kind is looked at: in a tree a pipe is as empty as it is. A snapshot keeps it for a
    /// capture alone.
    fn once(&self, path: &HostPath) -> Result<String, ReadError> {
        self.file(path).map(|file| file.text().into_owned())
    }

    /// At most the first `limit` bytes of a file that may be long (`/proc/cpuinfo` of 1,024 CPUs is 1.5 MB).
    fn head(&self, path: &HostPath, limit: usize) -> Result<Rc<File>, ReadError>;

    /// What `keep` makes of a file's text. Of a file that is read in no other way a capture has that alone: the rest is
    /// nobody's business.
    fn extract(&self, path: &HostPath, keep: fn(&str) -> String) -> Result<Rc<File>, ReadError> {
        let file = self.file(path)?;
        Ok(Rc::new(File { bytes: keep(&file.text()).into_bytes(), mode: file.mode }))
    }

    /// The names in a directory, sorted, without `.` and `..`.
    fn list(&self, path: &HostPath) -> Result<Rc<Vec<String>>, ReadError>;

    /// The target of a symbolic link.
    fn link(&self, path: &HostPath) -> Result<Rc<str>, ReadError>;

    /// The processes whose name (`/proc/PID/comm`) is wanted, by PID; none where they cannot be seen. The others
    /// are nobody's business and leave no trace in a capture.
    fn processes(&self, wanted: fn(&str) -> bool) -> Vec<(u32, String)>;

    /// The threads of the kernel's own whose CPUs can be chosen (`/proc/PID/stat`, without `PF_NO_SETAFFINITY`), by
    /// PID; none where they cannot be seen.
    fn free_threads(&self) -> Vec<u32>;

    /// The lines of the running kernel's log that are wanted, without time and level: at most [`MOST_LOG_LINES`], the
    /// first of this boot. Of a tree the regular file `/dev/kmsg`, so that it never tells of another kernel.
    fn kernel_log(&self, wanted: fn(&str) -> bool) -> Result<Rc<File>, ReadError>;

    /// The lines of a file that are wanted: the others, which may be many or secret, leave no trace in a capture.
    fn lines(&self, path: &HostPath, wanted: fn(&str) -> bool) -> Result<Rc<File>, ReadError>;

    /// A model-specific register of a CPU (msr(4)); of a tree none.
    fn register(&self, cpu: u32, number: u64) -> Result<u64, ReadError>;

    /// The bound on the time in which every CPU wakes, in us, that all who ask for one make together; of a tree none.
    fn wake_up_bound(&self) -> Result<i32, ReadError>;

    /// What an image of a disk is, a file or a block device: no more is read of it than its header.
    fn image(&self, path: &HostPath) -> Result<Image, ReadError>;

    /// What is at the path itself, with its owner; [`ReadError::Unsuitable`] for what is neither a text file nor
    /// a symbolic link.
    fn node(&self, path: &HostPath) -> Result<Node, ReadError>;
}
