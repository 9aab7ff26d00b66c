//! `lint`: the domain XML of any guests against the partition of a machine.

use super::args::{Format, LintArgs};
use super::{Outcome, load};
use crate::guest::lint::{Finding, Host, Neighbour, lint, neighbour};
use crate::host::{load as load_file, load_input, print, wants_color};
use crate::profile::{self, Source};
use std::path::Path;

/// The most bytes of a document; libvirt itself takes 10 MiB.
const MAX_DOCUMENT: usize = 4 << 20;

/// A document that was read.
struct Document {
    source: Source,
    neighbour: Neighbour,
}

pub(super) fn run(args: &LintArgs) -> Outcome {
    let machine = load::machine(&args.root);
    let (facts, placement) = match &args.profile {
        None => (load::facts(&machine, &machine.snapshot()?)?, None),
        Some(path) => {
            let (facts, placement) = load::divide(&machine, &load::read_profile(path)?.parsed)?;
            (facts, Some(placement))
        }
    };
    let host = match &placement {
        None => Host::running(&facts),
        Some(placement) => Host::planned(&facts, placement),
    };
    let documents = documents(&args.files)?;
    let mut found = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        // The same guest twice, as rendered and as defined, is one guest.
        let others =
            documents.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, d)| &d.neighbour);
        let others: Vec<_> = others.filter(|other| other.name != document.neighbour.name).cloned().collect();
        let findings = lint(&document.source.text, &host, &others).map_err(|error| error.to_string())?;
        found.push(findings);
    }
    let note = host.isolated().is_none().then_some(UNTOLD);
    let all: usize = found.iter().map(Vec::len).sum();
    let status = u8::from(all > 0);
    print(&match args.format.format {
        Format::Text => text(&documents, &found, note),
        Format::Json => load::pretty(&serde_json::json!({
            "schema": 1,
            "machine": machine.to_string(),
            "profile": args.profile.as_ref().map(|path| path.display().to_string()),
            "isolated": host.isolated(),
            "status": status,
            "notes": note.into_iter().collect::<Vec<_>>(),
            "files": documents.iter().zip(&found).map(|(document, findings)| file(document, findings)).collect::<Vec<_>>(),
        })),
    })?;
    Ok(status)
}

/// What goes unchecked without the kernel's word.
const UNTOLD: &str = "which CPUs are isolated is not known here: what depends on it was not checked; --profile PROFILE says it";

/// Reads every document, or says of each that cannot be read why.
fn documents(files: &[std::path::PathBuf]) -> Result<Vec<Document>, String> {
    let (mut documents, mut wrong) = (Vec::new(), Vec::new());
    for path in files {
        match document(path) {
            Ok(document) => documents.push(document),
            Err(error) => wrong.push(error),
        }
    }
    if wrong.is_empty() { Ok(documents) } else { Err(wrong.join("\nerror: ")) }
}

fn document(path: &Path) -> Result<Document, String> {
    let (name, bytes) = match path.as_os_str() == "-" {
        true => ("standard input".to_owned(), load_input(MAX_DOCUMENT)?),
        false => (path.display().to_string(), load_file(path, MAX_DOCUMENT)?.bytes),
    };
    let text = String::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8 text"))?;
    let neighbour = neighbour(&text).map_err(|error| format!("{name}: {error}"))?;
    Ok(Document { source: Source { name, text }, neighbour })
}

fn text(documents: &[Document], found: &[Vec<Finding>], note: Option<&str>) -> String {
    let mut out = String::new();
    for (document, findings) in documents.iter().zip(found) {
        let diagnostics: Vec<_> = findings.iter().map(Finding::diagnostic).collect();
        if !diagnostics.is_empty() {
            out += &profile::render(&diagnostics, &document.source, wants_color());
            out += "\n";
        }
    }
    if let Some(note) = note {
        out += &format!("note: {note}\n");
    }
    let fatal = found.iter().flatten().filter(|finding| finding.rule.fatal).count();
    let late = found.iter().map(Vec::len).sum::<usize>() - fatal;
    let files = match documents.len() {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    out + &match (fatal, late) {
        (0, 0) => format!("{files}: nothing found.\n"),
        _ => format!("{files}: {fatal} of libvirt or QEMU refused, {late} against latency.\n"),
    }
}

fn file(document: &Document, findings: &[Finding]) -> serde_json::Value {
    let finding = |finding: &Finding| {
        serde_json::json!({
            "rule": finding.rule.id,
            "level": if finding.rule.fatal { "error" } else { "warning" },
            "line": finding.line,
            "column": finding.column,
            "message": finding.message,
            "label": finding.label,
            "help": finding.help,
        })
    };
    serde_json::json!({
        "file": document.source.name,
        "guest": document.neighbour.name,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
