//! Reads a parsed TOML document by the list of [`KEYS`](super::keys::KEYS), and collects everything wrong with it.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::{DeInteger, DeTable, DeValue};

use super::checks::shown;
use super::diagnostic::{Diagnostic, Level};
use super::keys::{Key, Kind, Presence, header, keys_of};
use super::spanned::Spanned;
use super::syntax::Lines;
use crate::formats::{CpuSet, Size};

/// Proof that an error was recorded: nothing can be made from a part that returns it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported(());

pub(super) type Read<T> = Result<T, Reported>;

type Value<'a> = toml::Spanned<DeValue<'a>>;

/// The most diagnostics returned; what follows so many is noise.
const MAX_DIAGNOSTICS: usize = 50;

/// Strings that stand for values of an enum, by position.
pub trait Choice: Copy + 'static {
    /// The strings.
    const NAMES: &'static [&'static str];
    /// The values, in the same order.
    const VALUES: &'static [Self];

    /// The value that a string stands for.
    fn named(text: &str) -> Option<Self> {
        Some(Self::VALUES[Self::NAMES.iter().position(|name| *name == text)?])
    }
}

/// One table of the document.
#[derive(Clone)]
pub(super) struct Section<'a> {
    name: &'static str,
    table: &'a DeTable<'a>,
    /// Its header.
    pub(super) span: Range<usize>,
}

/// The text and what is wrong with it so far.
pub(super) struct Reader<'s> {
    text: &'s str,
    lines: Lines,
    diagnostics: Vec<Diagnostic>,
    /// The indices of the lines that are no TOML.
    broken: BTreeSet<usize>,
}

impl<'s> Reader<'s> {
    /// A reader of `text` that reports `errors` and nothing else about the lines `broken`.
    pub(super) fn new(
        text: &'s str,
        lines: Lines,
        errors: Vec<Diagnostic>,
        broken: BTreeSet<usize>,
    ) -> Reader<'s> {
        Reader { text, lines, diagnostics: errors, broken }
    }

    /// Everything recorded, in source order; cut when it is more than anybody reads.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|d| d.span.as_ref().map_or((0, 0), |span| (span.start, span.end)));
        if self.diagnostics.len() > MAX_DIAGNOSTICS {
            let rest = self.diagnostics.split_off(MAX_DIAGNOSTICS);
            let level = match rest.iter().all(|d| d.level == Level::Warning) {
                true => Level::Warning,
                false => Level::Error,
            };
            let more = Diagnostic::whole(format!("{} more of these are not shown", rest.len()));
            self.diagnostics.push(Diagnostic { level, ..more });
        }
        self.diagnostics
    }

    /// The number, from 1, of the line on which `span` starts.
    pub(super) fn line_number(&self, span: &Range<usize>) -> usize {
        self.lines.index(span.start) + 1
    }

    /// Records an error. One on a line that is not TOML is left out, because what was recovered from such a
    /// line is not what the line says.
    pub(super) fn error(&mut self, error: Diagnostic) -> Reported {
        let at = error.span.as_ref().map_or(0, |span| span.start);
        if !self.broken.contains(&self.lines.index(at)) {
            self.diagnostics.push(error);
        }
        Reported(())
    }

    /// Records the lack of something; left out when a syntax error may have hidden it.
    pub(super) fn missing(&mut self, error: Diagnostic) -> Reported {
        if self.broken.is_empty() {
            self.diagnostics.push(error);
        }
        Reported(())
    }

    /// Records a warning.
    pub(super) fn warn(&mut self, warning: Diagnostic) {
        self.diagnostics.push(warning);
    }

    /// A table as the section `name`; reports the keys that it may not have.
    pub(super) fn section<'a>(
        &mut self,
        name: &'static str,
        table: &'a DeTable<'a>,
        span: Range<usize>,
    ) -> Section<'a> {
        for (key, _) in table.iter() {
            if keys_of(name).all(|known| known.name != key.get_ref()) {
                self.unknown_key(name, key.get_ref(), key.span());
            }
        }
        Section { name, table, span }
    }

    /// A section that is not there, so that its keys have their defaults.
    pub(super) fn empty_section(&self, name: &'static str, span: Range<usize>) -> Section<'static> {
        static EMPTY: std::sync::LazyLock<DeTable<'static>> = std::sync::LazyLock::new(DeTable::new);
        Section { name, table: &EMPTY, span }
    }

    fn unknown_key(&mut self, section: &str, found: &str, span: Range<usize>) {
        let help = match closest(found, keys_of(section).map(|key| key.name)) {
            Some(name) => format!("did you mean `{name}`?"),
            None => match super::keys::KEYS.iter().find(|key| key.name == found) {
                Some(key) => format!("`{found}` is a key of {}", header(key.section)),
                None => {
                    let known: Vec<String> = keys_of(section).map(|key| format!("`{}`", key.name)).collect();
                    format!("the keys of {} are {}", header(section), known.join(", "))
                }
            },
        };
        let message = format!("unknown key {} in {}", shown(found), header(section));
        self.error(Diagnostic::error(span, message).help(help));
    }

    /// The definition and, when it is there, the value of a key.
    ///
    /// # Panics
    /// If the key is not in [`KEYS`](super::keys::KEYS): a defect, and a test reads every key.
    fn find<'a>(&self, section: &Section<'a>, name: &str) -> (&'static Key, Option<&'a Value<'a>>) {
        let key = keys_of(section.name).find(|key| key.name == name);
        (key.expect("the reader asks for keys of the list"), section.table.get(name))
    }

    /// Where the value of a key is written, if it is.
    pub(super) fn span_of(&self, section: &Section<'_>, name: &str) -> Option<Range<usize>> {
        self.find(section, name).1.map(Value::span)
    }

    fn missing_key(&mut self, section: &Section<'_>, key: &Key) -> Reported {
        let message = format!("missing key `{}` in {}", key.name, header(section.name));
        let error = Diagnostic::error(section.span.clone(), message);
        self.missing(error.help(format!("`{}` is {}", key.name, key.kind.expected())))
    }

    fn wrong_type(&mut self, name: &str, expected: &str, value: &Value<'_>) -> Reported {
        let message = format!("`{name}` has the wrong type");
        let label = format!("expected {expected}, found {}", found(value.get_ref()));
        self.error(Diagnostic::error(value.span(), message).label(label))
    }

    fn string_value(&mut self, key: &Key, value: &Value<'_>) -> Read<Spanned<String>> {
        match value.get_ref() {
            DeValue::String(text) => Ok(Spanned::new(text.to_string(), value.span())),
            _ => Err(self.wrong_type(key.name, key.kind.expected(), value)),
        }
    }

    /// The string of a key: as written, its default, or nothing when the key is optional.
    fn text_of(&mut self, section: &Section<'_>, name: &str) -> Read<Option<Spanned<String>>> {
        match self.find(section, name) {
            (key, Some(value)) => self.string_value(key, value).map(Some),
            (key, None) => match key.presence {
                Presence::Required => Err(self.missing_key(section, key)),
                Presence::Optional(_) => Ok(None),
                Presence::Default(text) => Ok(Some(Spanned::new(text.into(), section.span.clone()))),
            },
        }
    }

    /// What has to be there after all: the key is required or has a default.
    pub(super) fn need<T>(&mut self, section: &Section<'_>, name: &str, value: Read<Option<T>>) -> Read<T> {
        match value? {
            Some(value) => Ok(value),
            None => {
                let key = self.find(section, name).0;
                Err(self.missing_key(section, key))
            }
        }
    }

    /// A string that `check` accepts; an optional key may be absent.
    pub(super) fn optional_text(
        &mut self,
        section: &Section<'_>,
        name: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Read<Option<Spanned<String>>> {
        let Some(text) = self.text_of(section, name)? else { return Ok(None) };
        self.checked(name, text, check).map(Some)
    }

    /// A string that `check` accepts.
    pub(super) fn text(
        &mut self,
        section: &Section<'_>,
        name: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Read<Spanned<String>> {
        let text = self.optional_text(section, name, check);
        self.need(section, name, text)
    }

    fn checked(
        &mut self,
        name: &str,
        text: Spanned<String>,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Read<Spanned<String>> {
        match check(&text) {
            Ok(()) => Ok(text),
            Err(label) => {
                let message = format!("{} cannot be used as `{name}`", shown(&text));
                Err(self.error(Diagnostic::error(text.span, message).label(label)))
            }
        }
    }

    /// An array of strings that `check` accepts; empty when the key is absent.
    pub(super) fn texts(
        &mut self,
        section: &Section<'_>,
        name: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Read<Vec<Spanned<String>>> {
        let (key, value) = self.find(section, name);
        let Some(value) = value else { return Ok(Vec::new()) };
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.wrong_type(name, key.kind.expected(), value));
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            texts.push(match item.get_ref() {
                DeValue::String(text) => {
                    self.checked(name, Spanned::new(text.to_string(), item.span()), &check)
                }
                _ => Err(self.wrong_type(name, "a string in the array", item)),
            });
        }
        texts.into_iter().collect()
    }

    /// One of the strings of an enum.
    pub(super) fn choice<T: Choice>(&mut self, section: &Section<'_>, name: &str) -> Read<Spanned<T>> {
        let choice = self.optional_choice(section, name);
        self.need(section, name, choice)
    }

    /// One of the strings of an enum; the key may be absent.
    pub(super) fn optional_choice<T: Choice>(
        &mut self,
        section: &Section<'_>,
        name: &str,
    ) -> Read<Option<Spanned<T>>> {
        let Some(text) = self.text_of(section, name)? else { return Ok(None) };
        if let Some(value) = T::named(&text) {
            return Ok(Some(text.map(|_| value)));
        }
        let known: Vec<String> = T::NAMES.iter().map(|name| format!("\"{name}\"")).collect();
        let message = format!("{} cannot be used as `{name}`", shown(&text));
        let error = Diagnostic::error(text.span.clone(), message);
        let error = error.label(format!("expected {}", known.join(" or ")));
        Err(self.error(match closest(&text, T::NAMES.iter().copied()) {
            Some(name) => error.help(format!("did you mean \"{name}\"?")),
            None => error,
        }))
    }

    /// An amount of memory above zero.
    pub(super) fn size(&mut self, section: &Section<'_>, name: &str) -> Read<Option<Spanned<Size>>> {
        let Some(text) = self.text_of(section, name)? else { return Ok(None) };
        let error = match Size::parse(&text) {
            Ok(Size(0)) => "expected more than nothing".to_owned(),
            Ok(size) => return Ok(Some(text.map(|_| size))),
            Err(error) => error,
        };
        let message = format!("{} cannot be used as `{name}`", shown(&text));
        Err(self.error(Diagnostic::error(text.span, message).label(error)))
    }

    /// An amount of memory of a key that is required or has a default.
    pub(super) fn needed_size(&mut self, section: &Section<'_>, name: &str) -> Read<Spanned<Size>> {
        let size = self.size(section, name);
        self.need(section, name, size)
    }

    /// A CPU list that is not empty. `all` is what the word "all" stands for, if anything.
    pub(super) fn cpus(
        &mut self,
        section: &Section<'_>,
        name: &str,
        all: Option<&CpuSet>,
    ) -> Read<Option<Spanned<CpuSet>>> {
        let Some(text) = self.text_of(section, name)? else { return Ok(None) };
        if let (Some(all), "all") = (all, text.as_str()) {
            return Ok(Some(text.map(|_| all.clone())));
        }
        if text.trim().is_empty() {
            let error = Diagnostic::error(text.span, format!("`{name}` is empty"));
            return Err(self.error(error.label("expected at least one CPU")));
        }
        match CpuSet::parse_list(&text) {
            Ok(cpus) => Ok(Some(text.map(|_| cpus))),
            Err(error) => {
                let message = format!("{} cannot be used as `{name}`", shown(&text));
                let span = self.inside(&text, error.span);
                Err(self.error(Diagnostic::error(span, message).label(error.message)))
            }
        }
    }

    /// Where the part `part` of a string is written; the whole string if it is written with escapes.
    fn inside(&self, text: &Spanned<String>, part: Range<usize>) -> Range<usize> {
        let written = self.text.get(text.span.clone()).unwrap_or_default();
        let plain = ["\"", "'"].iter().any(|quote| {
            let body = written.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
            body == Some(text.as_str())
        });
        match plain {
            true => text.span.start + 1 + part.start..text.span.start + 1 + part.end,
            false => text.span.clone(),
        }
    }

    /// A whole number in the range of its key.
    pub(super) fn integer(&mut self, section: &Section<'_>, name: &str) -> Read<Option<Spanned<u64>>> {
        let (key, value) = self.find(section, name);
        let Kind::Integer(least, most) = key.kind else {
            unreachable!("`{name}` is read as the whole number that it is");
        };
        match (value, key.presence) {
            (Some(value), _) => self.integer_value(name, value, least, most).map(Some),
            (None, Presence::Required) => Err(self.missing_key(section, key)),
            (None, Presence::Optional(_)) => Ok(None),
            (None, Presence::Default(text)) => {
                let number = text.parse().expect("the default of a number is one");
                Ok(Some(Spanned::new(number, section.span.clone())))
            }
        }
    }

    /// An array of whole numbers in the range of their key; the key may be absent.
    pub(super) fn integers(&mut self, section: &Section<'_>, name: &str) -> Read<Option<Spanned<Vec<u64>>>> {
        let (key, value) = self.find(section, name);
        let Kind::IntegerList(least, most) = key.kind else {
            unreachable!("`{name}` is read as the whole numbers that it is");
        };
        let Some(value) = value else { return Ok(None) };
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.wrong_type(name, key.kind.expected(), value));
        };
        let numbers: Vec<_> = items.iter().map(|item| self.integer_value(name, item, least, most)).collect();
        let numbers = numbers.into_iter().map(|n| n.map(|n| n.value)).collect::<Read<Vec<u64>>>()?;
        Ok(Some(Spanned::new(numbers, value.span())))
    }

    /// `true` or `false`, of a key that has a default.
    pub(super) fn boolean(&mut self, section: &Section<'_>, name: &str) -> Read<Spanned<bool>> {
        let (key, value) = self.find(section, name);
        match value.map(|value| (value, value.get_ref())) {
            Some((value, DeValue::Boolean(is))) => Ok(Spanned::new(*is, value.span())),
            Some((value, _)) => Err(self.wrong_type(name, key.kind.expected(), value)),
            None => Ok(Spanned::new(key.presence == Presence::Default("true"), section.span.clone())),
        }
    }

    /// The same where the key says nothing by default.
    pub(super) fn optional_boolean(
        &mut self,
        section: &Section<'_>,
        name: &str,
    ) -> Read<Option<Spanned<bool>>> {
        match self.find(section, name).1 {
            Some(_) => self.boolean(section, name).map(Some),
            None => Ok(None),
        }
    }

    /// A whole number of a key that is required or has a default.
    pub(super) fn needed_integer(&mut self, section: &Section<'_>, name: &str) -> Read<Spanned<u64>> {
        let number = self.integer(section, name);
        self.need(section, name, number)
    }

    /// A whole number from `least` to `most`.
    pub(super) fn integer_value(
        &mut self,
        name: &str,
        value: &Value<'_>,
        least: u64,
        most: u64,
    ) -> Read<Spanned<u64>> {
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(self.wrong_type(name, "a whole number", value));
        };
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
        match parsed.filter(|n| (least..=most).contains(n)) {
            Some(number) => Ok(Spanned::new(number, value.span())),
            None => {
                let message = format!("{} cannot be used as `{name}`", shown(&number.to_string()));
                let label = format!("expected {least} to {most}");
                Err(self.error(Diagnostic::error(value.span(), message).label(label)))
            }
        }
    }

    /// The raw value of a key that has more than one form, for [`Reader::integer_value`] and the like.
    pub(super) fn raw<'a>(&self, section: &Section<'a>, name: &str) -> Option<&'a Value<'a>> {
        self.find(section, name).1
    }

    /// Reports a value of none of the forms its key has.
    pub(super) fn wrong_form(&mut self, section: &Section<'_>, name: &str, value: &Value<'_>) -> Reported {
        let key = self.find(section, name).0;
        self.wrong_type(name, key.kind.expected(), value)
    }

    /// The table of a key, not yet checked for unknown keys.
    pub(super) fn table<'a>(
        &mut self,
        section: &Section<'a>,
        name: &str,
    ) -> Read<Option<(&'a DeTable<'a>, Range<usize>)>> {
        let (key, value) = self.find(section, name);
        match value.map(|value| (value, value.get_ref())) {
            Some((value, DeValue::Table(table))) => Ok(Some((table, value.span()))),
            Some((value, _)) => Err(self.wrong_type(name, key.kind.expected(), value)),
            None if key.presence == Presence::Required => Err(self.missing_key(section, key)),
            None => Ok(None),
        }
    }

    /// The sections of a key that may be repeated, as sections called `full`.
    pub(super) fn tables<'a>(
        &mut self,
        section: &Section<'a>,
        name: &str,
        full: &'static str,
    ) -> Read<Vec<Section<'a>>> {
        let (key, value) = self.find(section, name);
        let Some(value) = value else { return Ok(Vec::new()) };
        let wrong = |reader: &mut Self, value: &Value<'_>| {
            let message = format!("`{name}` has the wrong type");
            let label = format!("expected {}, found {}", key.kind.expected(), found(value.get_ref()));
            let error = Diagnostic::error(value.span(), message).label(label);
            reader.error(error.help(format!("write the section as {}", header(full))))
        };
        let DeValue::Array(items) = value.get_ref() else { return Err(wrong(self, value)) };
        let mut sections = Vec::new();
        for item in items.iter() {
            sections.push(match item.get_ref() {
                DeValue::Table(table) => Ok(self.section(full, table, item.span())),
                _ => Err(wrong(self, item)),
            });
        }
        sections.into_iter().collect()
    }
}

/// The type of a value with its article.
pub(super) fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A whole number, `None` beyond 64 bits.
pub(super) fn whole(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The known word that was probably meant.
fn closest<'k>(found: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // Nobody misspells by that much, and the comparison costs the product of the lengths.
    if found.len() > 64 {
        return None;
    }
    let distance = |word: &str| strsim::damerau_levenshtein(found, word);
    known
        .map(|word| (distance(word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
