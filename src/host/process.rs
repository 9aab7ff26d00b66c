//! The process's own side: files the user names, standard output, the program's own path.

use std::io::{ErrorKind, IsTerminal, Read as _, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file that the user named on the command line.
pub struct Loaded {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Why root should not act on it: somebody else can change it. `None` when only root or the caller can.
    pub untrusted: Option<String>,
}

/// Reads a file that the user named, at most `limit` bytes of it.
///
/// # Errors
/// A message that names the file and what is wrong.
pub fn load(path: &Path, limit: usize) -> Result<Loaded, String> {
    let fail = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if meta.is_dir() {
        return Err(format!("cannot read {}: it is a directory", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > limit {
        let (path, size) = (path.display(), meta.len().max(bytes.len() as u64));
        return Err(format!("{path} has {size} bytes or more; the limit is {limit}"));
    }
    let me = nix::unistd::geteuid().as_raw();
    let untrusted = if meta.mode() & 0o022 != 0 {
        Some(format!(
            "its mode is {:04o}, so that others can change it: take it away with `chmod go-w`",
            meta.mode() & 0o7777
        ))
    } else if meta.uid() != 0 && meta.uid() != me {
        Some(format!(
            "it belongs to user {}, who can change it: give it to root with `chown root`",
            meta.uid()
        ))
    } else {
        None
    };
    Ok(Loaded { bytes, untrusted })
}

/// Reads standard input to its end, at most `limit` bytes of it.
///
/// # Errors
/// A message that says what is wrong.
pub fn load_input(limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(limit as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read standard input: {error}"))?;
    match bytes.len() > limit {
        true => Err(format!("standard input has more than {limit} bytes, which is the limit")),
        false => Ok(bytes),
    }
}

/// Writes to standard output. A reader that went away early (`| head`) is not an error.
///
/// # Errors
/// A message when the output could not be written, for instance because the disk is full.
pub fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes to standard error; if that is gone there is nobody to tell.
pub fn print_error(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes a result to a file that the user named with `--output`.
///
/// # Errors
/// A message that names the file.
pub fn write_output(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Replaces a file that the user named: its readers see the old text or the new one, never a part.
///
/// # Errors
/// A message that names the file.
pub fn replace_output(path: &Path, text: &str) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    let name = path.file_name().ok_or_else(|| format!("cannot write {}: it is no file", path.display()))?;
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(new);
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    let written = write();
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written.map_err(fail)
}

/// Whether standard output is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
pub fn wants_color() -> bool {
    std::io::stdout().is_terminal() && color_is_welcome()
}

/// The same for standard error.
pub fn wants_error_color() -> bool {
    std::io::stderr().is_terminal() && color_is_welcome()
}

fn color_is_welcome() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The time, in seconds since the epoch; 0 for a clock before it.
pub fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs())
}

/// Waits this many seconds.
pub fn pause(seconds: u64) {
    std::thread::sleep(std::time::Duration::from_secs(seconds));
}

/// Whether the process has root's user id.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
