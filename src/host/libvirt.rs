//! Definitions that only libvirt itself can read: asked through a read-only connection, which can change nothing.

use super::programs::asking;
use super::{File, Metadata, Node, ReadError};
use crate::formats::{Connection, HostPath};
use std::process::Stdio;
use std::rc::Rc;

/// How long libvirt may take to answer, in seconds. One that starts first asks every QEMU of the machine what it can do.
pub(super) const PATIENCE: &str = "90";

/// The definition that a path stands for (see [`Connection::definition`]).
pub(super) fn definition(path: &HostPath) -> Result<Rc<File>, ReadError> {
    let (connection, name) = Connection::of_definition(path).ok_or(ReadError::Absent)?;
    let xml = match virsh(&connection, &["dumpxml", "--inactive", "--domain", name]) {
        Ok(xml) => xml,
        // It says the same of a guest that is not there and of no answer.
        Err(error) => match guests(&connection)?.iter().any(|guest| guest == name) {
            true => return Err(error),
            false => return Err(ReadError::Absent),
        },
    };
    Ok(Rc::new(File { bytes: xml.trim_end().to_owned().into_bytes(), mode: 0o600 }))
}

/// The names of the definitions that a directory stands for (see [`Connection::definitions`]).
pub(super) fn definitions(path: &HostPath) -> Result<Rc<Vec<String>>, ReadError> {
    let connection = Connection::of_definitions(path).ok_or(ReadError::Absent)?;
    let mut files: Vec<String> = guests(&connection)?.iter().map(|name| format!("{name}.xml")).collect();
    files.sort_unstable();
    Ok(Rc::new(files))
}

/// The guests with a definition: one without is gone when it stops.
fn guests(connection: &Connection) -> Result<Vec<String>, ReadError> {
    let names = virsh(connection, &["list", "--all", "--persistent", "--name"])?;
    // A name that is no file's cannot be one of a profile either.
    let plain = |name: &&str| !name.is_empty() && !name.contains('/');
    Ok(names.lines().filter(plain).map(str::to_owned).collect())
}

/// The link to the definition of a guest that its libvirt starts by itself (see [`Connection::autostart`]).
pub(super) fn autostart(path: &HostPath) -> Result<Rc<str>, ReadError> {
    let (connection, name) = Connection::of_autostart(path).ok_or(ReadError::Absent)?;
    let names = virsh(&connection, &["list", "--all", "--autostart", "--name"])?;
    match names.lines().any(|line| line == name) {
        true => Ok(connection.definition(name).as_str().into()),
        false => Err(ReadError::Absent),
    }
}

/// The same as what is at a path.
pub(super) fn node(path: &HostPath) -> Result<Node, ReadError> {
    if Connection::of_autostart(path).is_some() {
        return autostart(path).map(|target| Node::Link { target: target.to_string() });
    }
    let text = definition(path)?.text().into_owned();
    Ok(Node::File { text, metadata: Metadata { mode: 0o600, ..Metadata::default() } })
}

/// What `virsh` prints. Nothing of it is an effect: the connection is read-only and starts no daemon.
fn virsh(connection: &Connection, words: &[&str]) -> Result<String, ReadError> {
    let virsh = ["virsh", "--readonly", "--quiet", "--connect", connection.uri()];
    let mut command = asking(PATIENCE, &[&virsh, words].concat());
    match command.env("LIBVIRT_AUTOSTART", "0").stderr(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8(output.stdout).map_err(|_| ReadError::Unsuitable)
        }
        _ => Err(ReadError::NoAnswer),
    }
}
