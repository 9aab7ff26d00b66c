//! Kernel arguments: what runs, what the next boot will have, and the drop-in that makes it so.

use super::{Observed, OwnedFile, State};
use crate::facts::Facts;
use crate::facts::boot::{DROP_IN, RT_CONF};
use crate::formats::kernel_args::{KernelArg, KernelArgs, last_wins};
use crate::formats::{HostPath, grub};
use std::fmt;

/// Kernel arguments that belong together and stay adjacent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The arguments in order.
    pub arguments: Vec<KernelArg>,
    /// Whether this program writes them; else the operator does.
    pub written: bool,
    /// What the kernel says against one that it was given.
    pub ignored: Option<Ignored>,
    /// Whether the kernel takes one value only.
    pub unique: bool,
    /// What else sets them, or changes their meaning, in the boot loader's settings.
    pub conflict: Option<Conflict>,
}

/// An argument of somebody else that is beside ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The argument.
    pub argument: String,
    /// The file that sets it.
    pub file: String,
    /// Whether ours would take its place there, where that is asked for.
    pub replaced: bool,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.file == RT_CONF { ", which rt-conf writes," } else { "" };
        write!(f, "{} is set in {}{whose} as well", self.argument, self.file)
    }
}

/// Why an argument is not in force although the running kernel was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ignored {
    /// The kernel took something else, or nothing.
    Rejected(String),
    /// The kernel was built without it.
    Unsupported(String),
    /// Only its log would tell, and that cannot be read.
    Untold(String),
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
        let written = self.written && facts.boot.loader.by_hand().is_none();
        let runs = running.is_some_and(|line| self.holds(line));
        // Where the next boot is not known only what runs can tell.
        let unknown = !written || !facts.boot.wrong.is_empty();
        let stays = if next.is_empty() { runs && unknown } else { next.iter().all(|line| self.holds(line)) };
        let state = match (runs, stays, &self.ignored) {
            _ if self.conflict.is_some() && !self.wins() => {
                State::Foreign(self.conflict.as_ref().map(Conflict::to_string).unwrap_or_default())
            }
            _ if next.iter().any(|line| self.contradicted_by(line).is_some()) => {
                let other = next.iter().find_map(|line| self.contradicted_by(line)).unwrap_or_default();
                State::Foreign(format!("the next boot has {other} too, not from this program"))
            }
            (true, true, Some(Ignored::Rejected(reason))) => State::Rejected(reason.clone()),
            (true, true, Some(Ignored::Unsupported(reason))) => State::NotApplicable(reason.clone()),
            (true, true, Some(Ignored::Untold(reason))) => State::Unverifiable(reason.clone()),
            (true, true, None) => State::InLine,
            (false, true, _) => State::RebootPending,
            _ if !written => State::ByHand("to be added to the boot loader's kernel arguments".into()),
            // It runs, or some entry has it: it is not there as it should be, yet is not new either.
            _ if runs || next.iter().any(|line| present(line, &self.arguments).is_some()) => {
                State::Differs(None)
            }
            _ => State::Missing,
        };
        let on = |line| present(line, &self.arguments);
        Observed {
            running: running.map_or_else(super::unknown, on),
            next_boot: next.first().map_or_else(super::unknown, on),
            state,
        }
    }

    /// Whether a command line has them, adjacent and in order.
    fn holds(&self, line: &KernelArgs) -> bool {
        line.contains_run(&self.arguments)
    }

    /// The same parameter with another value on a line that has ours too: the kernel takes one of the two.
    fn contradicted_by(&self, line: &KernelArgs) -> Option<String> {
        let [argument] = &self.arguments[..] else { return None };
        let values = line.values(argument.name());
        let mut others = values.iter().filter(|value| **value != argument.value());
        let other = match self.wins() {
            true => values.last().filter(|value| **value != argument.value()),
            false => others.next(),
        };
        other.filter(|_| self.unique && self.holds(line)).map(|value| token(argument.name(), *value))
    }

    /// Whether ours is in force where it comes last, as it does in our drop-in.
    pub fn wins(&self) -> bool {
        matches!(&self.arguments[..], [argument] if last_wins(argument.name()))
    }
}

/// What a command line has for these parameters; `None` if nothing.
pub fn present(line: &KernelArgs, arguments: &[KernelArg]) -> Option<String> {
    if line.contains_run(arguments) {
        let words: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        return Some(words.join(" "));
    }
    let names = arguments.iter().map(KernelArg::name);
    let words = names.flat_map(|name| line.values(name).into_iter().map(move |value| token(name, value)));
    let words: Vec<_> = words.collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn token(name: &str, value: Option<&str>) -> String {
    value.map_or(name.to_owned(), |value| format!("{name}={value}"))
}

/// The drop-in that gives every normal boot entry these arguments.
pub fn drop_in(arguments: &[KernelArg]) -> OwnedFile {
    let path = HostPath::new(DROP_IN);
    OwnedFile { path, content: grub::drop_in(arguments), mode: 0o644 }
}
