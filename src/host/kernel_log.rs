//! The running kernel's log, record by record. Source: Documentation/ABI/testing/dev-kmsg.

use super::{File, MOST_LOG_LINES};
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// More than a record has, in bytes: the kernel keeps about 1,000 of a line and its properties.
const MAX_RECORD: usize = 8192;

/// What the kernel itself logged while it started, oldest first, as far as its buffer still has it. Each record is a call, and
/// a machine that runs for long has thousands.
pub(super) fn records(kmsg: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut buffer = vec![0; MAX_RECORD];
    let mut records = Vec::new();
    loop {
        match nix::unistd::read(kmsg, &mut buffer) {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(records),
            Ok(n) => {
                let text = message(&String::from_utf8_lossy(&buffer[..n]));
                if text.as_deref().is_some_and(starts_first_process) {
                    return Ok(records);
                }
                records.extend(text);
            }
            // Overwritten while it was read; the next read goes on with the oldest that is there.
            Err(Errno::EPIPE | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether the kernel says that it starts the first process (init/main.c): by then it has judged its arguments.
fn starts_first_process(text: &str) -> bool {
    text.starts_with("Run ") && text.ends_with(" as init process")
}

/// The text of a record, `PRIORITY,SEQUENCE,TIME,FLAGS;TEXT`; `None` for what a program wrote to the log, which is no
/// word of the kernel: the facility, above the three bits of the level, is not 0.
fn message(record: &str) -> Option<String> {
    let (head, rest) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    let text = rest.lines().next().unwrap_or_default();
    (priority < 8).then(|| text.replace("\\x09", " "))
}

/// The wanted lines as a file.
pub(super) fn kept<'l>(lines: impl Iterator<Item = &'l str>, wanted: fn(&str) -> bool) -> Rc<File> {
    let lines = lines.filter(|line| wanted(line)).take(MOST_LOG_LINES);
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    Rc::new(File { bytes: text.into_bytes(), mode: 0o644 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_words_count() {
        let text = |record: &str| message(record);
        assert_eq!(text("5,0,0,-;Linux version\n SUBSYSTEM=x\n").as_deref(), Some("Linux version"));
        assert_eq!(text("6,1,0,-;rcu: \\x09Offload\n").as_deref(), Some("rcu:  Offload"));
        assert_eq!(text("30,2,0,-;HugeTLB: by a daemon\n"), None);
        assert_eq!(text("no record"), None);
    }

    #[test]
    fn the_kernel_tells_when_it_has_started() {
        assert!(starts_first_process("Run /sbin/init as init process"));
        assert!(!starts_first_process("Running RCU self tests"));
        assert!(!starts_first_process("  with arguments: /init as init process"));
    }

    #[test]
    fn as_many_lines_as_are_kept() {
        let many = "HugeTLB: a\nother\n".repeat(100);
        let file = kept(many.lines(), |line| line.starts_with("HugeTLB"));
        assert_eq!(file.text(), "HugeTLB: a\n".repeat(MOST_LOG_LINES));
    }
}
