//! The directory where the state is kept, private to root: read only when nobody else can have written it.

use super::root::node_at;
use super::{Metadata, Node, ReadError, Root};
use crate::formats::HostPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::geteuid;
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

/// The directory of the state and the journal.
pub const STATE_DIR: &str = "/var/lib/rtkvm-tune";
/// What was there before our first touch, what was applied, and what was run.
pub const STATE: &str = "state.json";
/// What a run in progress is about to change.
pub const JOURNAL: &str = "journal.json";

/// The largest file that is read there, in bytes: 16,384 interrupts take about 6 MiB.
const MAX_STATE: usize = 64 << 20;

/// Why a file of the state cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// This user may not look.
    Hidden,
    /// It is not as this program makes it, or cannot be read: a sentence with the remedy.
    Unusable(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Hidden => write!(f, "{STATE_DIR} can only be read by root"),
            StoreError::Unusable(why) => f.write_str(why),
        }
    }
}

impl Root {
    /// The text of a file of the state; `None` where there is none.
    ///
    /// # Errors
    /// A symbolic link, another user's file, one that others can write, or one that cannot be read.
    pub fn stored(&self, name: &str) -> Result<Option<String>, StoreError> {
        let Some(dir) = self.state_dir()? else { return Ok(None) };
        let path = format!("{STATE_DIR}/{name}");
        let wrong = |why: String| Err(StoreError::Unusable(format!("{path} {why}")));
        match node_at(&dir, name, MAX_STATE) {
            Ok(Node::File { text, metadata }) => match untrusted(&metadata) {
                Some(why) => wrong(why),
                None => Ok(Some(text)),
            },
            Ok(Node::Link { target }) => wrong(format!(
                "is a symbolic link to {target}, which is not followed: put the file itself there"
            )),
            Err(ReadError::Absent) => Ok(None),
            Err(ReadError::Unsuitable) => wrong(format!(
                "is not a text file of at most {} MiB: move it away and look at it",
                MAX_STATE >> 20
            )),
            Err(error) => wrong(format!("cannot be read: {error}")),
        }
    }

    /// The open directory; `None` where there is none.
    pub(super) fn state_dir(&self) -> Result<Option<OwnedFd>, StoreError> {
        let wrong = |why: String| StoreError::Unusable(format!("{STATE_DIR} {why}"));
        let path = HostPath::new(STATE_DIR);
        let (dir, name) = match self.parent(&path) {
            Ok(found) => found,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(Errno::EACCES) => return Err(StoreError::Hidden),
            Err(errno) => return Err(wrong(format!("cannot be opened: {}", errno.desc()))),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = match openat(&dir, name, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::EACCES) => return Err(StoreError::Hidden),
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                let why =
                    "is a symbolic link or no directory: put the directory itself there, or move it away";
                return Err(wrong(why.into()));
            }
            Err(errno) => return Err(wrong(format!("cannot be opened: {}", errno.desc()))),
        };
        let stat = fstat(&opened).map_err(|errno| wrong(format!("cannot be looked at: {}", errno.desc())))?;
        let (mode, uid, gid) = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
        match untrusted(&Metadata { mode, uid, gid, label: None }) {
            Some(why) => Err(wrong(why)),
            None => Ok(Some(opened)),
        }
    }
}

/// Why this user should not go by it: somebody else can have written it.
fn untrusted(metadata: &Metadata) -> Option<String> {
    let Metadata { mode, uid, .. } = metadata;
    if *uid != 0 && *uid != geteuid().as_raw() {
        return Some(format!(
            "belongs to user {uid}, who can change it: look through it, then `chown root` it"
        ));
    }
    (mode & 0o022 != 0).then(|| {
        format!("has mode {mode:04o}, so that others can change it: look through it, then `chmod go-w` it")
    })
}

/// The time now, in seconds since the epoch, and a name for a run that no other has.
pub fn time_and_id() -> (u64, String) {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    (since.as_secs(), format!("{:x}-{:x}", since.as_nanos(), std::process::id()))
}
