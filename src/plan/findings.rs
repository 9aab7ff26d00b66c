//! What an audit says of each setting that is not in line: where that was read, why it matters, what mends it.

use super::{Item, Plan};
use crate::knobs::{self, Reach};
use crate::resources::State;
use serde::Serialize;

/// One setting that is not in line.
#[derive(Debug, Serialize)]
pub struct Finding<'p> {
    /// The setting, with its state, what runs, what the next boot has and what is wanted.
    #[serde(flatten)]
    pub item: &'p Item,
    /// Where the running value was read.
    pub read_from: String,
    /// Why it matters: the knob's reason, its first sentence.
    pub why: &'static str,
    /// What mends it: a command where there is one.
    pub remedy: String,
}

impl Plan {
    /// Every setting that is not in line, in the order of the knobs; what cannot be set here is none. `profile` is what
    /// the operator calls it.
    pub fn findings(&self, profile: &str) -> Vec<Finding<'_>> {
        let open = |item: &&Item| !matches!(item.observed.state, State::InLine | State::NotApplicable(_));
        let found = self.items.iter().filter(open).map(|item| {
            let why =
                knobs::all().find(|knob| knob.id == item.knob).map_or("", |knob| first_sentence(knob.why));
            Finding { item, read_from: self.read_from(item), why, remedy: remedy(item, profile) }
        });
        found.collect()
    }

    fn read_from(&self, item: &Item) -> String {
        match &item.path {
            Some(path) => path.to_string(),
            None if item.is_argument => {
                format!("/proc/cmdline; the next boot: {}", self.facts.boot.next_from)
            }
            None => knobs::all().find(|knob| knob.id == item.knob).map_or("", |knob| knob.check).to_owned(),
        }
    }
}

/// Up to the first full stop that ends a sentence.
fn first_sentence(text: &str) -> &str {
    text.split_once(". ").map_or(text, |(first, _)| &text[..=first.len()])
}

fn remedy(item: &Item, profile: &str) -> String {
    let keep = format!("`\"{}\" = \"keep\"` under [knobs]", item.knob);
    let then = match item.reach {
        Reach::Live => "",
        Reach::Reboot if item.needs_reboot() => ", then a reboot",
        Reach::Reboot | Reach::Check => "",
        Reach::GuestRestart => ", then a restart of the guest",
    };
    match &item.observed.state {
        State::InLine | State::NotApplicable(_) => String::new(),
        State::Missing | State::Differs(_) | State::Obsolete => format!("rtkvm-tune apply {profile}{then}"),
        State::RebootPending => "reboot".into(),
        State::Pending(_) => "nothing to do: the next interrupt takes it".into(),
        State::Waiting(_) => {
            format!(
                "stop the guests, then rtkvm-tune apply {profile}; or at once: rtkvm-tune apply --live {profile}"
            )
        }
        State::Rejected(_) => format!("another kernel, or {keep}: a reboot does not help"),
        State::Foreign(_) => format!("rtkvm-tune apply {profile} names the choices; or {keep}"),
        State::ByHand(_) if item.is_check() => "by hand: no setting changes it".into(),
        State::ByHand(reason) if item.reach != Reach::Reboot => format!("by hand: {reason}"),
        State::ByHand(_) => format!("add {} to the boot loader's kernel arguments{then}", item.wanted),
        State::Unverifiable(_) if item.is_check() => {
            format!("as root, or by hand: rtkvm-tune explain {}", item.knob)
        }
        State::Unverifiable(_) => format!("as root: rtkvm-tune verify {profile}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_ends_at_its_full_stop() {
        assert_eq!(first_sentence("One e.g. two. Three."), "One e.g.");
        assert_eq!(first_sentence("Linux 5.16 has it. Then."), "Linux 5.16 has it.");
        assert_eq!(first_sentence("Only one."), "Only one.");
    }
}
