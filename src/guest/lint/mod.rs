//! Any guest's domain XML, ours or not, held against a partition of the machine. Each rule is declared once, in the
//! file of its area; everything else walks [`rules`].
//!
//! Sources: <https://libvirt.org/formatdomain.html> and the behaviour of libvirt 9.0.

mod cpu;
mod devices;
mod document;
mod memory;
mod pins;
mod sched;
mod subject;

use std::ops::Range;

use super::reading::XmlError;
use crate::facts::Facts;
use crate::formats::CpuSet;
use crate::placement::Placement;
use crate::profile::{Diagnostic, Level};
use subject::Subject;

/// Something that a guest of real-time work should not have, or lack.
pub struct Rule {
    /// The name: `area.name`.
    pub id: &'static str,
    /// What is wrong, in one line.
    pub what: &'static str,
    /// What comes of it.
    pub why: &'static str,
    /// Where that is documented.
    pub source: &'static str,
    /// Whether the guest cannot be defined or started with it; else it runs, and is late.
    pub fatal: bool,
    /// What is found of it in a document.
    check: fn(&Subject) -> Vec<Found>,
}

/// One place in a document that a rule is about.
struct Found {
    span: Range<usize>,
    message: String,
    label: String,
    help: String,
}

impl Found {
    fn new(span: Range<usize>, message: impl Into<String>, help: impl Into<String>) -> Found {
        Found { span, message: message.into(), label: String::new(), help: help.into() }
    }

    /// The same with a text under the carets.
    fn label(self, label: impl Into<String>) -> Found {
        Found { label: label.into(), ..self }
    }
}

/// One finding in a document.
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// The line it is about, from 1.
    pub line: usize,
    /// The column in that line, in characters from 1.
    pub column: usize,
    /// The part of the document it is about, in bytes.
    pub span: Range<usize>,
    /// What is wrong, naming the value.
    pub message: String,
    /// The text under the carets; may be empty.
    pub label: String,
    /// The remedy.
    pub help: String,
}

impl Finding {
    /// For people, with the document's own line.
    pub fn diagnostic(&self) -> Diagnostic {
        let level = if self.rule.fatal { Level::Error } else { Level::Warning };
        let found = Diagnostic::error(self.span.clone(), self.message.clone());
        let found = found.label(self.label.clone()).help(self.help.clone());
        Diagnostic { level, id: Some(self.rule.id), ..found }
    }
}

/// The machine that documents are held against, and how it is divided.
pub struct Host<'a> {
    facts: &'a Facts,
    placement: Option<&'a Placement>,
}

impl<'a> Host<'a> {
    /// As its kernel divides it now.
    pub fn running(facts: &'a Facts) -> Host<'a> {
        Host { facts, placement: None }
    }

    /// As a profile divides it.
    pub fn planned(facts: &'a Facts, placement: &'a Placement) -> Host<'a> {
        Host { facts, placement: Some(placement) }
    }

    /// The isolated CPUs; `None` if the kernel does not tell.
    pub fn isolated(&self) -> Option<&CpuSet> {
        match self.placement {
            Some(placement) => Some(&placement.isolated),
            None => self.facts.cpus.isolated.as_ref(),
        }
    }

    fn housekeeping(&self) -> CpuSet {
        self.facts.cpus.online.difference(self.isolated().unwrap_or(&CpuSet::new()))
    }
}

/// Another document of the same run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The guest's name.
    pub name: String,
    /// The CPUs that its vCPUs are pinned to.
    pub cpus: CpuSet,
}

/// Every rule, by area.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let areas = [document::RULES, pins::RULES, sched::RULES, memory::RULES, cpu::RULES, devices::RULES];
    areas.into_iter().flatten()
}

/// What the rules find in a document, in its own order.
///
/// # Errors
/// If the text is not well-formed or not a domain.
pub fn lint(xml: &str, host: &Host, neighbours: &[Neighbour]) -> Result<Vec<Finding>, XmlError> {
    let tree = subject::parse(xml)?;
    let subject = Subject::of(&tree, host, neighbours);
    let mut findings = Vec::new();
    for rule in rules() {
        findings.extend((rule.check)(&subject).into_iter().map(|found| {
            let Found { span, message, label, help } = found;
            let at = tree.text_pos_at(span.start);
            Finding { rule, line: at.row as usize, column: at.col as usize, span, message, label, help }
        }));
    }
    findings.sort_by_key(|finding| (finding.span.start, finding.span.end));
    Ok(findings)
}

/// What a document is to the others.
///
/// # Errors
/// As [`lint`].
pub fn neighbour(xml: &str) -> Result<Neighbour, XmlError> {
    subject::neighbour(&subject::parse(xml)?)
}
