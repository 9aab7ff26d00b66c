//! One boot under QEMU, with a deadline, that never leaves QEMU running.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a machine said before it powered off.
pub(crate) struct Recording {
    /// The text of `rtkvm-tune capture`.
    pub(crate) capture: String,
    /// Remarks of the machine's first process.
    pub(crate) notes: Vec<String>,
    /// From the start of QEMU to its end.
    pub(crate) time: Duration,
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

/// Boots the machine in `work` (where its kernel and initramfs are) and collects what it sends.
pub(crate) fn boot(work: &Path, arguments: &[String], deadline: Duration) -> Result<Recording> {
    let start = Instant::now();
    // setpriv asks the kernel to kill QEMU should this process end in any way, then becomes QEMU.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]).args(arguments).current_dir(work);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(fs::File::create(work.join("qemu.log"))?);
    let child = command.spawn().context("cannot start `setpriv`: install the Debian package util-linux")?;
    let mut qemu = Running(child);
    let mut stream = qemu.0.stdout.take().context("QEMU has no output")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let result = stream.read_to_end(&mut bytes).map(|_| bytes);
        // The receiver is gone when the deadline has passed.
        let _ = sender.send(result);
    });
    let bytes = match receiver.recv_timeout(deadline) {
        Ok(result) => result.context("cannot read from QEMU")?,
        Err(RecvTimeoutError::Timeout) => {
            bail!("not done after {} s{}", deadline.as_secs(), tails(work))
        }
        Err(RecvTimeoutError::Disconnected) => bail!("the reader of QEMU's output stopped"),
    };
    let text = String::from_utf8(bytes).context("the machine sent no UTF-8")?;
    let (capture, notes) =
        parse(&text).map_err(|error| error.context(format!("no record{}", tails(work))))?;
    Ok(Recording { capture, notes, time: start.elapsed() })
}

/// Takes the record out of what came over the second serial port.
fn parse(text: &str) -> Result<(String, Vec<String>)> {
    let notes: Vec<String> =
        text.lines().filter_map(|line| line.strip_prefix("note: ")).map(str::to_owned).collect();
    let said = || notes.iter().map(|note| format!("\n    {note}")).collect::<String>();
    let (_, rest) =
        text.split_once("capture begins\n").with_context(|| format!("the machine sent none{}", said()))?;
    let (capture, end) = rest.rsplit_once("capture ends: ").context("the record breaks off")?;
    let expected = format!("status 0, {} bytes", capture.len());
    match end.trim_end() == expected && !capture.is_empty() {
        true => Ok((capture.to_owned(), notes)),
        false => bail!("received {} bytes, the machine says `{}`{}", capture.len(), end.trim_end(), said()),
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
    use super::parse;

    #[test]
    fn a_whole_record_is_taken_and_a_broken_one_refused() {
        let whole = "note: hello\ncapture begins\na\nb\ncapture ends: status 0, 4 bytes\n";
        let (capture, notes) = parse(whole).unwrap();
        assert_eq!((capture.as_str(), notes), ("a\nb\n", vec!["hello".to_owned()]));
        for broken in [
            "",
            "capture begins\na\n",
            "capture begins\na\ncapture ends: status 0, 4 bytes\n",
            "capture begins\na\nb\ncapture ends: status 2, 4 bytes\n",
        ] {
            assert!(parse(broken).is_err(), "{broken:?}");
        }
    }
}
