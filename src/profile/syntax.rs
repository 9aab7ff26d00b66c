//! Finds every syntax error of a profile, not only those before the place where the parser gives up.

use std::borrow::Cow;
use std::collections::BTreeSet;

use toml::de::DeTable;

use super::diagnostic::Diagnostic;

/// How often the rest is parsed without the lines found broken; what is still wrong then is not shown.
const ROUNDS: usize = 8;

/// The lines of a text, by byte offset.
pub(super) struct Lines {
    /// The offsets of the newlines.
    ends: Vec<usize>,
    length: usize,
}

impl Lines {
    pub(super) fn new(text: &str) -> Lines {
        Lines { ends: text.match_indices('\n').map(|(at, _)| at).collect(), length: text.len() }
    }

    /// The index of the line that holds the byte `at`.
    pub(super) fn index(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end < at)
    }

    /// The bytes of a line without its newline.
    fn bytes(&self, index: usize) -> std::ops::Range<usize> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] + 1 };
        start..self.ends.get(index).copied().unwrap_or(self.length)
    }
}

/// A profile without the lines that are no TOML.
pub(super) struct Recovered<'t> {
    /// The text; in place of broken lines are spaces, so that offsets stay.
    pub(super) text: Cow<'t, str>,
    /// The syntax errors, the first of each line.
    pub(super) errors: Vec<Diagnostic>,
    /// The indices of the broken lines. With the header of a section, all of its lines and the sections below
    /// it are broken: nobody knows what they belong to.
    pub(super) broken: BTreeSet<usize>,
}

/// Parses `text`, again and again without the lines that are wrong.
pub(super) fn recover<'t>(text: &'t str, lines: &Lines) -> Recovered<'t> {
    let mut recovered = Recovered { text: text.into(), errors: Vec::new(), broken: BTreeSet::new() };
    for _ in 0..ROUNDS {
        let (_, errors) = DeTable::parse_recoverable(&recovered.text);
        let mut errors: Vec<_> = errors.iter().map(|e| (e.span().unwrap_or(0..0), e.message())).collect();
        errors.sort_by_key(|(span, _)| span.start);
        let mut broken = Vec::new();
        for (span, message) in errors {
            let mut line = lines.index(span.start);
            if !recovered.broken.insert(line) {
                continue;
            }
            broken.push(line);
            recovered.errors.push(Diagnostic::error(span, format!("invalid TOML: {message}")));
            let header = |line: usize| text[lines.bytes(line)].trim_start().starts_with('[');
            let below =
                |line: usize| text[lines.bytes(line)].split(['#', '"']).next().unwrap_or("").contains('.');
            if header(line) {
                line += 1;
                while line <= lines.ends.len() && (!header(line) || below(line)) {
                    recovered.broken.insert(line);
                    broken.push(line);
                    line += 1;
                }
            }
        }
        if broken.is_empty() {
            break;
        }
        let text = recovered.text.to_mut();
        for line in broken {
            let bytes = lines.bytes(line);
            text.replace_range(bytes.clone(), &" ".repeat(bytes.len()));
        }
    }
    recovered
}
