//! Values in sysfs and procfs.

use super::{Observed, State};
use crate::formats::thread::{kernel_thread, status, status_lines, with_cpus, with_policy};
use crate::formats::{Channels, CpuSet, HostPath, Policy};
use crate::host::{Read, ReadError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One attribute and the value it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The file.
    pub path: HostPath,
    /// The value.
    pub want: Value,
    /// Why it cannot be set, where that is known without trying.
    pub fixed: Option<String>,
    /// Whether it is taken from elsewhere, at the next boot alone.
    pub until_boot: bool,
}

/// A value that knows how it is printed for the kernel and how the kernel's answer is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// A whole number.
    Count(u64),
    /// A number that may be negative.
    Number(i64),
    /// Channels of a network interface, as many as serve both directions.
    Channels(u64),
    /// One of several words, which the kernel shows in brackets: `always madvise [never]`.
    Choice(String),
    /// CPUs in list notation.
    List(CpuSet),
    /// CPUs as a hexadecimal mask.
    Mask(CpuSet),
    /// How a thread of the kernel is scheduled: read in its `/proc/PID/stat`, set by a system call.
    Policy(Policy),
    /// The CPUs that a thread of the kernel may use: read in its `/proc/PID/status`, set by a system call.
    Affinity(CpuSet),
    /// Whatever the kernel had there, compared as it stands: only ever put back.
    Text(String),
}

impl Value {
    /// The text that the kernel takes.
    pub fn for_kernel(&self) -> String {
        match self {
            Value::Count(count) | Value::Channels(count) => count.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Choice(word) => word.clone(),
            Value::List(cpus) | Value::Affinity(cpus) => cpus.to_string(),
            Value::Mask(cpus) => cpus.to_mask(),
            Value::Policy(policy) => policy.to_string(),
            Value::Text(text) => text.clone(),
        }
    }

    /// The file's text with this value, where it has `before` now.
    pub fn written(&self, before: &str) -> String {
        match self {
            Value::Policy(policy) => with_policy(before, *policy),
            Value::Affinity(cpus) => with_cpus(before, cpus),
            Value::Channels(combined) => {
                let most = Channels::parse(before).map_or(*combined, |channels| channels.most);
                format!("{}\n", Channels { combined: *combined, most })
            }
            _ => format!("{}\n", self.for_kernel()),
        }
    }

    /// Whether it is of a thread, which may end while its number goes to another.
    pub fn is_of_a_thread(&self) -> bool {
        matches!(self, Value::Policy(_) | Value::Affinity(_))
    }

    /// Whether a program sets it on the running machine, since there is no file to write to.
    pub fn is_by_a_program(&self) -> bool {
        self.is_of_a_thread() || matches!(self, Value::Channels(_))
    }

    /// Whether both texts are of one thread of the kernel. `/proc/PID/status` does not say when it was started.
    pub fn is_same_thread(&self, before: &str, now: &str) -> bool {
        let started = |text| kernel_thread(text).map(|thread| (thread.name, thread.start));
        let named = |text| status(text).map(|thread| (thread.name.to_owned(), thread.pid.to_owned()));
        match self {
            Value::Policy(_) => started(before).is_some() && started(before) == started(now),
            Value::Affinity(_) => named(before).is_some() && named(before) == named(now),
            _ => false,
        }
    }

    /// Whether a text says the same as it did. What is said of a thread has times and counts too, which go on.
    pub fn is_unchanged(&self, before: &str, now: &str) -> bool {
        let same = || self.is_same_thread(before, now);
        match self {
            Value::Policy(_) if same() => kernel_thread(before) == kernel_thread(now),
            Value::Affinity(_) if same() => status(before) == status(now),
            _ => before == now,
        }
    }

    /// The kernel's text as a value of the same kind; `None` if it is none.
    pub fn parse_like(&self, text: &str) -> Option<Value> {
        match self {
            Value::Count(_) => text.trim().parse().ok().map(Value::Count),
            Value::Channels(_) => Channels::parse(text).map(|channels| Value::Channels(channels.combined)),
            // A run that was killed in a tree leaves the end of a longer value behind the first line.
            Value::Number(_) => text.lines().next()?.trim().parse().ok().map(Value::Number),
            Value::Choice(_) => chosen(text).map(Value::Choice),
            Value::List(_) => CpuSet::parse_kernel_list(text).ok().map(Value::List),
            Value::Mask(_) => CpuSet::parse_mask(text).ok().map(Value::Mask),
            Value::Policy(_) => kernel_thread(text)?.policy.map(Value::Policy),
            Value::Affinity(_) => status(text).map(|thread| Value::Affinity(thread.cpus)),
            Value::Text(_) => Some(Value::Text(text.trim_end_matches('\n').to_owned())),
        }
    }
}

/// The word in brackets, or the only one.
fn chosen(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let in_brackets = |word: &str| Some(word.strip_prefix('[')?.strip_suffix(']')?.to_owned());
    match (words.next(), words.clone().next()) {
        (Some(only), None) => Some(in_brackets(only).unwrap_or_else(|| only.to_owned())),
        (Some(first), Some(_)) => in_brackets(first).or_else(|| words.find_map(in_brackets)),
        _ => None,
    }
}

/// For people: CPUs always as a list.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Count(count) | Value::Channels(count) => count.fmt(f),
            Value::Number(number) => number.fmt(f),
            Value::Choice(word) => word.fmt(f),
            Value::List(cpus) | Value::Mask(cpus) | Value::Affinity(cpus) => cpus.fmt(f),
            Value::Policy(policy) => policy.fmt(f),
            Value::Text(text) => f.write_str(text),
        }
    }
}

impl Attribute {
    /// What it has now; of what is said of a thread no more than matters, which may be all that a capture has.
    pub fn read(&self, host: &dyn Read) -> Result<String, ReadError> {
        let file = match self.want {
            Value::Affinity(_) => host.extract(&self.path, status_lines),
            _ => host.file(&self.path),
        };
        file.map(|file| file.text().into_owned())
    }

    pub(super) fn observe(&self, host: &dyn Read) -> Observed {
        let (running, state) = match self.read(host) {
            Err(error) => (None, super::untold(&self.path, error)),
            Ok(text) => match self.want.parse_like(&text) {
                None => {
                    let text = text.trim().to_owned();
                    (Some(text), State::Differs(Some("not a value that is known here".into())))
                }
                Some(value) if value == self.want => (Some(value.to_string()), State::InLine),
                Some(value) => (Some(value.to_string()), State::Differs(None)),
            },
        };
        let state = match (&self.fixed, state) {
            (Some(reason), State::Differs(None)) => State::NotApplicable(reason.clone()),
            (None, State::Differs(None)) if self.until_boot => State::RebootPending,
            (_, state) => state,
        };
        Observed { running, next_boot: None, state }
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn the_kernels_answer_is_parsed() {
        let choice = Value::Choice(String::new());
        for (text, word) in [
            ("always madvise [never]\n", Some("never")),
            ("[always] madvise never\n", Some("always")),
            ("never\n", Some("never")),
            ("[never]\n", Some("never")),
            ("always madvise never\n", None),
            ("\n", None),
        ] {
            assert_eq!(choice.parse_like(text), word.map(|word| Value::Choice(word.into())), "{text}");
        }
        assert_eq!(Value::Number(0).parse_like("-1\n"), Some(Value::Number(-1)));
        assert_eq!(Value::Count(0).parse_like("-1\n"), None);
        assert_eq!(Value::Number(0).parse_like("1000 2000"), None);
    }
}
