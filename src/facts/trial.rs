//! A trial boot: what is kept of it, what GRUB is told, and how it stands in this boot.

use super::boot::GRUB_CFG;
use super::{Kernel, grubenv, text};
use crate::formats::kernel_args::KernelArgs;
use crate::formats::trial::{self, Trial};
use crate::formats::{HostPath, grub_menu};
use crate::host::{Node, Read, ReadError};

/// Where a trial is kept until it is confirmed or ended.
pub const RECORD: &str = "/var/lib/rtkvm-tune/trial.json";
/// The script by which update-grub makes the entry. Its name sorts last, so that no other entry gets another number.
pub const SCRIPT: &str = "/etc/grub.d/99_rtkvm-tune-trial";
/// The entry's id, which grub-reboot is given.
pub const ENTRY: &str = "rtkvm-tune-trial";
/// The unit that confirms it. The boot unit wants it, so that nothing else need be there.
pub const TRIAL_UNIT: &str = "/etc/systemd/system/rtkvm-tune-trial.service";

/// What was found of a trial.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The record; the error says why it cannot be used.
    pub record: Option<Result<Trial, String>>,
    /// Whether the script is there.
    pub script: bool,
    /// The arguments of the entry, if grub.cfg has it.
    pub entry: Option<KernelArgs>,
    /// Whether GRUB is told to boot the entry once.
    pub once: bool,
}

/// How a trial stands in this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The next boot is its boot.
    Armed,
    /// It was asked for in this boot, and GRUB does not know: why.
    Disarmed(String),
    /// This boot is its boot.
    Running,
    /// It was not confirmed: why.
    Failed(String),
}

impl Found {
    /// Reads it. What cannot be read because others than root may not is as if it were not there.
    pub fn read(host: &dyn Read) -> Found {
        let script = host.file(&HostPath::new(SCRIPT)).is_ok();
        let path = HostPath::new(RECORD);
        let record = match host.file(&path) {
            Ok(_) if matches!(host.node(&path), Ok(Node::Link { .. })) => {
                Some(Err("it is a symbolic link".into()))
            }
            Ok(file) if file.mode & 0o077 != 0 => {
                Some(Err(format!("its mode is {:04o}: others than root can use it", file.mode)))
            }
            Ok(file) => Some(Trial::parse(&file.text())),
            Err(ReadError::Absent | ReadError::Untold) => None,
            Err(error) if script => Some(Err(error.to_string())),
            Err(_) => None,
        };
        let next = grubenv::environment(host).ok();
        let once = next.is_some_and(|block| block.get("next_entry") == Some(ENTRY));
        Found { record, script, entry: entry(host), once }
    }

    /// The trial and how it stands, if there is one.
    pub fn standing(&self, kernel: &Kernel) -> Option<(&Trial, Standing)> {
        let trial = self.record.as_ref()?.as_ref().ok()?;
        let this_boot = kernel.boot_id.as_deref().unwrap_or_default();
        let marked = |line: &KernelArgs| line.values(trial::MARKER).contains(&Some(&trial.run));
        let offered = self.entry.as_ref().is_some_and(marked);
        let other_boot = trial.booted.as_deref().filter(|booted| *booted != this_boot);
        let failed = |why: &str| Standing::Failed(why.to_owned());
        let standing = if kernel.command_line.as_ref().is_some_and(marked) {
            match other_boot {
                Some(_) => failed("its entry was booted a second time without having been confirmed"),
                None if self.once => failed("GRUB booted its entry and did not clear its one-shot flag"),
                None => Standing::Running,
            }
        } else if trial.asked_boot == this_boot {
            match (offered, self.once) {
                (true, true) => Standing::Armed,
                (true, false) => {
                    Standing::Disarmed(format!("GRUB is not told so: run `grub-reboot {ENTRY}`"))
                }
                (false, _) => {
                    Standing::Disarmed(format!("{GRUB_CFG} has no entry for it: run `update-grub`"))
                }
            }
        } else {
            match &trial.failed {
                Some(why) => failed(why),
                None if other_boot.is_some() => failed("its boot ended before it was confirmed"),
                None if !offered => failed("GRUB had no entry for it any more: was its kernel removed?"),
                None if self.once => failed(
                    "GRUB did not boot its entry, and its one-shot flag is still set: does the machine boot by kexec, \
                     another boot loader or another disk?",
                ),
                None => failed(
                    "its boot did not come up so far that it could be confirmed: it panicked, hung, or was switched off \
                     or reset",
                ),
            }
        };
        Some((trial, standing))
    }

    /// The arguments of the next boot, if that is a trial.
    pub fn next(&self, kernel: &Kernel) -> Option<&KernelArgs> {
        let (_, standing) = self.standing(kernel)?;
        self.entry.as_ref().filter(|_| standing == Standing::Armed)
    }
}

/// The arguments of the trial's entry in grub.cfg.
pub fn entry(host: &dyn Read) -> Option<KernelArgs> {
    let text = text(host, &HostPath::new(GRUB_CFG))?;
    // Most have none, and to take the whole file apart takes longer.
    let menu = if text.contains(ENTRY) { grub_menu::menu(&text) } else { Vec::new() };
    let ours = menu.iter().find(|node| node.id.as_deref() == Some(ENTRY))?;
    ours.linux().map(|(_, args)| args)
}
