//! The channels of network interfaces, for which the kernel has no file: `ethtool` asks it, and sets nothing here.

use super::{File, ReadError};
use crate::formats::Channels;
use nix::errno::Errno;
use std::process::{Command, Stdio};
use std::rc::Rc;

/// The channels of an interface: absent where its driver tells of none.
pub(super) fn channels(interface: &str) -> Result<Rc<File>, ReadError> {
    let mut command = Command::new("ethtool");
    command.args(["-l", interface]).env_clear();
    command.env("PATH", super::programs::PATH.join(":")).env("LC_ALL", "C");
    let output = command.stdin(Stdio::null()).output().map_err(|_| ReadError::NoEthtool)?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => {
            let found = Channels::of_ethtool(&String::from_utf8_lossy(&output.stdout));
            let text = format!("{}\n", found.ok_or(ReadError::Unsuitable)?);
            Ok(Rc::new(File { bytes: text.into_bytes(), mode: 0o644 }))
        }
        // One that went away, and a driver that has no such thing.
        false if ["not supported", "No such device"].iter().any(|words| said.contains(words)) => {
            Err(ReadError::Absent)
        }
        false => Err(ReadError::Refused(Errno::EIO)),
    }
}
