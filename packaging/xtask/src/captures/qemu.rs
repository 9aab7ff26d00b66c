//! One boot under QEMU, with a deadline, that never leaves QEMU running.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A machine that did its work and powered off.
pub(crate) struct Boot {
    /// What it sent.
    text: String,
    /// From the start of QEMU to its end.
    pub(crate) time: Duration,
}

/// What the machine recorded.
pub(crate) struct Recording<'a> {
    /// The text of `rtkvm-tune capture`.
    pub(crate) capture: &'a str,
    /// Remarks of the machine's first process.
    pub(crate) notes: Vec<&'a str>,
}

/// QEMU, killed when this value goes away.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program that emulates machines.
pub(crate) struct Emulator {
    /// QEMU: a name that is looked for, or a path.
    pub(crate) program: PathBuf,
    /// What it gets beside our own environment.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    /// Arguments before those of any machine.
    pub(crate) arguments: Vec<String>,
}

impl Emulator {
    /// The one that is installed.
    pub(crate) fn installed() -> Emulator {
        Emulator { program: "qemu-system-x86_64".into(), environment: Vec::new(), arguments: Vec::new() }
    }
}

/// Boots the machine in `work` (where its kernel and initramfs are) until it powers off.
///
/// # Errors
/// QEMU or the machine failed, or the deadline passed; the last lines of both logs are part of the message.
pub(crate) fn boot(work: &Path, arguments: &[String], deadline: Duration) -> Result<Boot> {
    let start = Instant::now();
    let text = until_end(work, &Emulator::installed(), arguments, deadline, END)?;
    Ok(Boot { text, time: start.elapsed() })
}

/// Runs a machine in `work` until it powers off, and gives what it wrote to the file `record`, in which `end` must be.
///
/// # Errors
/// As for [`boot`].
pub(crate) fn until_end(
    work: &Path,
    emulator: &Emulator,
    arguments: &[String],
    deadline: Duration,
    end: &str,
) -> Result<String> {
    let start = Instant::now();
    // setpriv asks the kernel to kill QEMU should this process end in any way, then becomes QEMU.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(&emulator.program).args(&emulator.arguments);
    command
        .args(arguments)
        .current_dir(work)
        .envs(emulator.environment.iter().map(|(name, path)| (name, path)));
    // A record of an earlier boot must not pass for one of this boot.
    fs::write(work.join("record"), "")?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(work.join("qemu.log"))?);
    let child = command.spawn().context("cannot start `setpriv`: install the Debian package util-linux")?;
    let mut qemu = Running(child);
    while qemu.0.try_wait()?.is_none() {
        if start.elapsed() > deadline {
            bail!("not done after {} s{}", deadline.as_secs(), tails(work));
        }
        thread::sleep(Duration::from_millis(100));
    }
    let text = fs::read_to_string(work.join("record")).context("the machine sent no UTF-8")?;
    match text.contains(end) {
        true => Ok(text),
        false => bail!("the machine stopped early{}", tails(work)),
    }
}

/// The words of `guest-init.sh` around a record.
const BEGIN: &str = "capture begins\n";
const END: &str = "capture ends: ";

impl Boot {
    /// Takes the record out of what the machine sent.
    ///
    /// # Errors
    /// `rtkvm-tune capture` failed, or the record is not as long as the machine says.
    pub(crate) fn recording(&self) -> Result<Recording<'_>> {
        let (notes, rest) = self.text.split_once(BEGIN).context("the machine sent no record")?;
        let (capture, end) = rest.rsplit_once(END).context("the record breaks off")?;
        let expected = format!("status 0, {} bytes", capture.len());
        if end.trim_end() != expected || capture.is_empty() {
            bail!("received {} bytes, but the machine sent `{}`\n{notes}", capture.len(), end.trim_end());
        }
        Ok(Recording { capture, notes: notes.lines().collect() })
    }
}

/// The last lines of the console and of QEMU's own messages.
fn tails(work: &Path) -> String {
    let mut text = String::new();
    for name in ["qemu.log", "console.log"] {
        let log = fs::read(work.join(name)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("TCG doesn't support")).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(15));
        text.push_str(&format!("\n  {}:", work.join(name).display()));
        last.for_each(|line| text.push_str(&format!("\n    {}", line.trim_end())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_record_is_taken_and_a_broken_one_refused() {
        let boot = |text: &str| Boot { text: text.to_owned(), time: Duration::ZERO };
        let whole = boot("hello\ncapture begins\na\nb\ncapture ends: status 0, 4 bytes\n");
        let recording = whole.recording().unwrap();
        assert_eq!((recording.capture, recording.notes), ("a\nb\n", vec!["hello"]));
        for broken in [
            "",
            "capture begins\na\n",
            "capture begins\na\ncapture ends: status 0, 4 bytes\n",
            "capture begins\na\nb\ncapture ends: status 2, 4 bytes\n",
            "capture begins\ncapture ends: status 0, 0 bytes\n",
        ] {
            assert!(boot(broken).recording().is_err(), "{broken:?}");
        }
    }
}
