//! The channels of network interfaces, for which the kernel has no file: `ethtool` asks it, and sets nothing here.

use super::programs::asking;
use super::{File, ReadError};
use crate::formats::Channels;
use nix::errno::Errno;
use std::os::unix::process::CommandExt;
use std::rc::Rc;

/// How long a driver may take to answer, in seconds: the kernel asks one at a time.
const PATIENCE: &str = "10";

/// The channels of an interface: absent where its driver tells of none.
pub(super) fn channels(interface: &str) -> Result<Rc<File>, ReadError> {
    // Not reached by the terminal's ^C: while a run is taken back its answer counts.
    let output = asking(PATIENCE, &["ethtool", "-l", interface]).process_group(0).output();
    let output =
        output.map_err(|error| ReadError::Refused(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => {
            let found = Channels::of_ethtool(&String::from_utf8_lossy(&output.stdout));
            let text = format!("{}\n", found.ok_or(ReadError::Unsuitable)?);
            Ok(Rc::new(File { bytes: text.into_bytes(), mode: 0o644 }))
        }
        // By timeout(1): there is no such program; it took too long.
        Some(127) => Err(ReadError::NoEthtool),
        Some(124) => Err(ReadError::Refused(Errno::ETIMEDOUT)),
        // One that went away, and a driver that has no such thing.
        _ if ["not supported", "No such device"].iter().any(|words| said.contains(words)) => {
            Err(ReadError::Absent)
        }
        _ => Err(ReadError::Refused(Errno::EIO)),
    }
}
