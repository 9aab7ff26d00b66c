//! What a profile may make of a knob, and what this one makes of each.

use super::{Knob, all};
use crate::profile::{Diagnostic, KnobOverride, KnobValue, Profile};
use std::fmt;
use std::ops::RangeInclusive;

/// The value that a profile writes to leave what the machine has. Every knob and every area takes it.
pub const KEEP: &str = "keep";

/// The values that a knob takes beside [`KEEP`], and the one it has without a line in the profile.
#[derive(Debug, Clone)]
pub struct Values {
    /// The value where the profile says nothing; `None`: then the knob sets nothing.
    pub default: Option<Chosen>,
    /// The words it takes.
    pub words: &'static [Word],
    /// The whole numbers it takes.
    pub numbers: Option<Numbers>,
}

/// A word that a knob takes as its value.
#[derive(Debug, Clone)]
pub struct Word {
    /// The word.
    pub name: &'static str,
    /// What it does, in a few words.
    pub meaning: &'static str,
    /// What protection it takes away: said in every plan that has it.
    pub warning: Option<&'static str>,
}

/// Whole numbers that a knob takes as its value.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// From where to where.
    pub range: RangeInclusive<i64>,
    /// What they count, for people: `s`, `us`.
    pub unit: &'static str,
}

/// A value that a knob takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// One of its words.
    Word(&'static str),
    /// One of its numbers.
    Number(i64),
}

/// Quoted where a profile quotes it.
impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chosen::Word(word) => write!(f, "\"{word}\""),
            Chosen::Number(number) => number.fmt(f),
        }
    }
}

impl Chosen {
    /// The number; 0 for a word.
    pub fn number(self) -> i64 {
        match self {
            Chosen::Number(number) => number,
            Chosen::Word(_) => 0,
        }
    }

    /// The word; empty for a number.
    pub fn word(self) -> &'static str {
        match self {
            Chosen::Word(word) => word,
            Chosen::Number(_) => "",
        }
    }
}

/// The one word of a knob that is either on or left alone.
const ON: &[Word] = &[word("on", "as described")];

/// A word without a danger.
pub(super) const fn word(name: &'static str, meaning: &'static str) -> Word {
    Word { name, meaning, warning: None }
}

/// A word that takes a protection away.
pub(super) const fn risky(name: &'static str, meaning: &'static str, warning: &'static str) -> Word {
    Word { name, meaning, warning: Some(warning) }
}

impl Values {
    /// On by default; there is nothing to choose.
    pub(super) const ON: Values = Values { default: Some(Chosen::Word("on")), words: ON, numbers: None };

    /// Set only where the profile says "on".
    pub(super) const OPT_IN: Values = Values { default: None, words: ON, numbers: None };

    /// Set only where the profile has one of these words.
    pub(super) const fn opt_in(words: &'static [Word]) -> Values {
        Values { default: None, words, numbers: None }
    }

    /// One of these words, the first by default.
    pub(super) const fn words(words: &'static [Word]) -> Values {
        Values { default: Some(Chosen::Word(words[0].name)), words, numbers: None }
    }

    /// A number by default, and others in this range.
    pub(super) const fn number(default: i64, range: RangeInclusive<i64>, unit: &'static str) -> Values {
        Values { default: Some(Chosen::Number(default)), words: &[], numbers: Some(Numbers { range, unit }) }
    }

    /// Set only where the profile has a number in this range.
    pub(super) const fn opt_in_number(range: RangeInclusive<i64>, unit: &'static str) -> Values {
        Values { default: None, words: &[], numbers: Some(Numbers { range, unit }) }
    }

    /// The same, and whole numbers in this range.
    pub(super) const fn or_number(self, range: RangeInclusive<i64>, unit: &'static str) -> Values {
        Values { default: self.default, words: self.words, numbers: Some(Numbers { range, unit }) }
    }

    /// The words and numbers, for people.
    pub fn list(&self) -> String {
        let words = self.words.iter().map(|word| format!("\"{}\"", word.name));
        let numbers = self.numbers.iter().map(|numbers| {
            let (from, to) = (numbers.range.start(), numbers.range.end());
            let unit = if numbers.unit.is_empty() { String::new() } else { format!(" ({})", numbers.unit) };
            format!("a whole number from {from} to {to}{unit}")
        });
        let all: Vec<String> = words.chain(numbers).collect();
        match &all[..] {
            [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
            _ => all.concat(),
        }
    }

    /// What the value is without a line in the profile, for people.
    pub fn default_text(&self) -> String {
        match self.default {
            None => "off".into(),
            Some(Chosen::Word("on")) => "on".into(),
            Some(value) => value.to_string(),
        }
    }

    /// A value to show in an example: one that is not the default, if there is one.
    pub fn example(&self) -> Option<Chosen> {
        let words = self.words.iter().map(|word| Chosen::Word(word.name));
        let numbers = self.numbers.iter().map(|numbers| Chosen::Number(*numbers.range.start()));
        words.chain(numbers).find(|value| Some(*value) != self.default)
    }

    fn read(&self, value: &KnobValue) -> Option<Chosen> {
        match value {
            KnobValue::Text(text) => {
                self.words.iter().find(|word| word.name == text).map(|word| Chosen::Word(word.name))
            }
            KnobValue::Number(number) => {
                let numbers = self.numbers.as_ref()?;
                numbers.range.contains(number).then_some(Chosen::Number(*number))
            }
        }
    }

    /// What a value takes away.
    pub fn warning(&self, value: Chosen) -> Option<&'static str> {
        self.words.iter().find(|word| value == Chosen::Word(word.name))?.warning
    }
}

/// What a profile makes of one knob.
#[derive(Clone, Copy)]
pub struct Choice {
    /// The knob.
    pub knob: &'static Knob,
    /// The value it is to have; for one that is kept, the value it would have.
    pub value: Chosen,
    /// Whether the profile leaves it as the machine has it.
    pub kept: bool,
}

/// What the profile makes of every knob, in their order, without those that neither it nor a default asks for. A line
/// for a knob goes before one for its area.
///
/// # Errors
/// An id or area that is none, with the nearest one, and values that a knob does not take.
pub fn chosen(profile: &Profile) -> Result<Vec<Choice>, Vec<Diagnostic>> {
    let found: Vec<_> = profile.knobs.iter().filter_map(wrong).collect();
    if !found.is_empty() {
        return Err(found);
    }
    let line = |name: &str| profile.knobs.iter().find(|entry| entry.id.value == name);
    let choice = |knob: &'static Knob| {
        let written = line(knob.id).or_else(|| line(knob.area()));
        let value = written.and_then(|entry| knob.values.read(&entry.value.value));
        let kept = written.is_some() && value.is_none();
        Some(Choice { knob, value: value.or(knob.values.default)?, kept })
    };
    Ok(all().filter_map(choice).collect())
}

/// What is wrong with one line of `[knobs]`.
fn wrong(entry: &KnobOverride) -> Option<Diagnostic> {
    let name = entry.id.value.as_str();
    let value = &entry.value.value;
    let keeps = matches!(value, KnobValue::Text(text) if text == KEEP);
    let known = all().find(|knob| knob.id == name);
    match known {
        Some(knob) if keeps || knob.values.read(value).is_some() => None,
        Some(knob) => {
            let message = format!("knob `{name}` has no value {value}");
            let quoted = matches!(value, KnobValue::Text(text) if text.parse::<i64>().is_ok());
            let label = if quoted && knob.values.numbers.is_some() { "write it without quotes" } else { "" };
            let error = Diagnostic::error(entry.value.span.clone(), message).label(label);
            let values = knob.values.list();
            Some(error.help(format!("it takes {values}, or \"{KEEP}\" to leave what the machine has")))
        }
        None if all().any(|knob| knob.area() == name) && keeps => None,
        None if all().any(|knob| knob.area() == name) => {
            let message = format!("area `{name}` has no value {value}");
            let help =
                format!("write \"{KEEP}\" to leave what the machine has, or name the knob: `{name}.`...");
            Some(Diagnostic::error(entry.value.span.clone(), message).help(help))
        }
        None => {
            let what = if name.contains('.') { "knob" } else { "area" };
            let message = format!("there is no {what} `{name}`");
            Some(Diagnostic::error(entry.id.span.clone(), message).help(nearest(name)))
        }
    }
}

/// What to look at instead of an unknown knob or area.
pub fn nearest(id: &str) -> String {
    let names = all().flat_map(|knob| [knob.id, knob.area()]);
    let scores = names.map(|name| (strsim::jaro_winkler(id, name), name));
    match scores.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, id)) if score > 0.8 => format!("did you mean `{id}`?"),
        _ => "`rtkvm-tune explain` lists all knobs".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{self, render};
    use std::collections::BTreeSet;

    const LEAST: &str =
        "[host]\nhousekeeping-cpus-per-node = 2\nhousekeeping-memory-per-node = \"6GiB\"\n[knobs]\n";

    fn chosen_by(lines: &str) -> Result<Vec<Choice>, String> {
        let parsed = profile::parse("p.toml", format!("{LEAST}{lines}").as_bytes()).expect("a profile");
        let diagnostics = |found: Vec<Diagnostic>| render(&found, &parsed.source, false);
        chosen(&parsed.profile).map_err(diagnostics)
    }

    fn of(lines: &str, id: &str) -> Option<(Chosen, bool)> {
        let choices = chosen_by(lines).expect("good values");
        choices.iter().find(|choice| choice.knob.id == id).map(|choice| (choice.value, choice.kept))
    }

    #[test]
    fn the_line_for_a_knob_goes_before_that_for_its_area() {
        let stat = |lines: &str| of(lines, "memory.stat-interval");
        assert_eq!(stat(""), Some((Chosen::Number(10), false)));
        assert_eq!(stat("memory = 'keep'"), Some((Chosen::Number(10), true)));
        assert_eq!(stat("memory = 'keep'\n'memory.stat-interval' = 30"), Some((Chosen::Number(30), false)));
        assert_eq!(stat("'memory.stat-interval' = 'keep'"), Some((Chosen::Number(10), true)));
        assert_eq!(
            of("memory = 'keep'\n'memory.stat-interval' = 30", "memory.ksm").map(|(_, k)| k),
            Some(true)
        );
        assert_eq!(of("", "cpu.isolcpus"), of("'cpu.isolcpus' = 'on'", "cpu.isolcpus"));
    }

    #[test]
    fn what_is_off_is_set_by_the_profile_alone() {
        for lines in ["", "'cpu.mitigations' = 'keep'", "cpu = 'keep'"] {
            assert_eq!(of(lines, "cpu.mitigations"), None, "{lines}");
        }
        let off = of("'cpu.mitigations' = 'off'", "cpu.mitigations").expect("it is set");
        assert_eq!(off, (Chosen::Word("off"), false));
    }

    #[test]
    fn each_wrong_value_is_reported_with_those_there_are() {
        let lines = "'power.resume-latency' = '12'\n'cpu.mitigations' = 'of'\n'memory.stat-interval' = 0\nmemory = 'on'\n\
            'cpu.isolcpus' = 1\n'cpu.skewtick' = 'on'\n";
        let found = chosen_by(lines).err().expect("errors");
        for part in [
            "has no value `12`",
            "write it without quotes",
            "it takes \"n/a\" or a whole number from 1 to 10000 (us), or \"keep\"",
            "knob `cpu.mitigations` has no value `of`",
            "it takes \"off\", \"auto\" or \"auto,nosmt\", or \"keep\"",
            "p.toml:7:26",
            "it takes a whole number from 1 to 3600 (s), or \"keep\"",
            "area `memory` has no value `on`",
            "knob `cpu.isolcpus` has no value `1`",
            "did you mean `cpu.skew-tick`?",
        ] {
            assert!(found.contains(part), "{part} is not in\n{found}");
        }
        assert_eq!(found.matches("error:").count(), 6, "{found}");
    }

    /// What no test of a single knob would notice in a new one.
    #[test]
    fn every_knob_declares_values_that_it_takes() {
        for knob in all() {
            let Values { default, words, numbers } = &knob.values;
            assert!(!words.is_empty() || numbers.is_some(), "{} takes nothing", knob.id);
            let names: BTreeSet<_> = words.iter().map(|word| word.name).collect();
            assert_eq!(names.len(), words.len(), "{} has a word twice", knob.id);
            assert!(!names.contains(KEEP), "{} has a \"{KEEP}\" of its own", knob.id);
            let takes = |value: Chosen| match value {
                Chosen::Word(word) => knob.values.read(&KnobValue::Text(word.into())) == Some(value),
                Chosen::Number(number) => knob.values.read(&KnobValue::Number(number)) == Some(value),
            };
            for value in default.iter().copied().chain(knob.values.example()) {
                assert!(takes(value), "{} does not take {value}", knob.id);
            }
            let by_default = default.and_then(|value| knob.values.warning(value));
            assert_eq!(by_default, None, "{} takes a protection away by default", knob.id);
        }
    }
}
