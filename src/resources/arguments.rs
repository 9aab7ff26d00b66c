//! Kernel arguments: what runs, what the next boot will have, and the drop-in that makes it so.

use super::{Observed, OwnedFile, State};
use crate::facts::{Facts, Loader};
use crate::formats::kernel_args::{KernelArg, KernelArgs};
use crate::formats::{HostPath, grub};
use std::fmt;

/// Kernel arguments that belong together and stay adjacent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The arguments in order.
    pub arguments: Vec<KernelArg>,
    /// Whether this program writes them; else the operator does.
    pub written: bool,
    /// The kernel's own word on the running one: why it is not in force although it was given.
    pub ignored: Option<String>,
}

impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.arguments.iter().map(ToString::to_string).collect();
        f.write_str(&words.join(" "))
    }
}

impl Arguments {
    pub(super) fn observe(&self, facts: &Facts) -> Observed {
        let running = facts.kernel.command_line.as_ref();
        let next = &facts.boot.next;
        let written = self.written && facts.boot.loader != Loader::Unknown;
        let runs = running.is_some_and(|line| self.holds(line));
        // What this program does not write can only be judged by what runs.
        let stays = if written { !next.is_empty() && next.iter().all(|line| self.holds(line)) } else { runs };
        let other = next.iter().find_map(|line| self.contradicted_by(line));
        let state = match (runs, stays) {
            _ if other.is_some() => {
                let other = other.unwrap_or_default();
                State::Differs(Some(format!("the next boot has {other} too, not from this program")))
            }
            (true, true) => self.ignored.clone().map_or(State::InLine, |reason| State::Differs(Some(reason))),
            (false, true) => State::RebootPending,
            _ if !written => State::ByHand("to be added to the boot loader's kernel arguments".into()),
            _ if next.iter().any(|line| self.present(line).is_some()) => State::Differs(None),
            _ => State::Missing,
        };
        Observed {
            running: running.map_or_else(super::unknown, |line| self.present(line)),
            next_boot: next.first().map_or_else(super::unknown, |line| self.present(line)),
            state,
        }
    }

    /// Whether a command line has them, adjacent and in order.
    fn holds(&self, line: &KernelArgs) -> bool {
        line.contains_run(&self.arguments)
    }

    /// The same parameter with another value on a line that has ours too: the kernel takes one of the two.
    /// Huge pages are counted for each page size, so several there are no contradiction.
    fn contradicted_by(&self, line: &KernelArgs) -> Option<String> {
        let [argument] = &self.arguments[..] else { return None };
        let others = line.values(argument.name()).into_iter().find(|value| *value != argument.value());
        others.filter(|_| self.holds(line)).map(|value| token(argument.name(), value))
    }

    /// What a command line has for these parameters.
    fn present(&self, line: &KernelArgs) -> Option<String> {
        if self.holds(line) {
            return Some(self.to_string());
        }
        let names = self.arguments.iter().map(KernelArg::name);
        let words = names.flat_map(|name| line.values(name).into_iter().map(move |value| token(name, value)));
        let words: Vec<_> = words.collect();
        (!words.is_empty()).then(|| words.join(" "))
    }
}

fn token(name: &str, value: Option<&str>) -> String {
    value.map_or(name.to_owned(), |value| format!("{name}={value}"))
}

/// The drop-in that gives every normal boot entry these arguments.
pub fn drop_in(arguments: &[KernelArg]) -> OwnedFile {
    let path = HostPath::new("/etc/default/grub.d/99-rtkvm-tune.cfg");
    OwnedFile { path, content: grub::drop_in(arguments), mode: 0o644 }
}
