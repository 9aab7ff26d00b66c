//! Requests to stop: SIGTERM, SIGINT, SIGHUP, looked at only where a run may stop.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::cell::Cell;

/// The signals that ask a run to end, held back from now on.
pub struct Signals {
    waiting: SignalFd,
    seen: Cell<Option<&'static str>>,
}

impl Signals {
    /// Holds the signals back for the rest of the process. Programs that it starts are not affected: the standard
    /// library starts each with no signal held back.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn hold() -> Result<Signals, Errno> {
        let mut set = SigSet::empty();
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| set.add(signal));
        set.thread_block()?;
        let waiting = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { waiting, seen: Cell::new(None) })
    }

    /// The name of a signal that came since; it stays known.
    pub fn came(&self) -> Option<&'static str> {
        if let Ok(Some(info)) = self.waiting.read_signal() {
            let signal = Signal::try_from(info.ssi_signo as i32).map_or("a signal", Signal::as_str);
            self.seen.set(Some(signal));
        }
        self.seen.get()
    }
}
