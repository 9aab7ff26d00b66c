//! Domain XML as a list of statements, in the form that libvirt gives back after a define.
//!
//! Source: <https://libvirt.org/formatdomain.html>; the normal forms were seen from libvirt 9.0.

use std::collections::HashMap;
use std::fmt;

use roxmltree::{Document, Node};

pub(super) use crate::formats::domain_xml::{bytes, cpu_list};

/// Deeper than any domain; keeps a hostile document from exhausting the stack.
const MAX_DEPTH: usize = 64;

/// Attributes that hold a list of CPUs, vCPUs or nodes.
const LISTS: [&str; 4] = ["cpuset", "nodeset", "cpus", "vcpus"];

/// Elements whose text is an amount of memory, in KiB where no unit is given.
const SIZES: [&str; 8] = [
    "memory",
    "currentMemory",
    "maxMemory",
    "hard_limit",
    "soft_limit",
    "swap_hard_limit",
    "min_guarantee",
    "size",
];

/// Elements of which there may be several, and the attributes that tell them apart.
const KEYS: [(&str, &[&str]); 11] = [
    ("vcpupin", &["vcpu"]),
    ("iothreadpin", &["iothread"]),
    ("iothread", &["id"]),
    ("feature", &["name"]),
    ("timer", &["name"]),
    ("memnode", &["cellid"]),
    ("cell", &["id"]),
    ("controller", &["type", "index"]),
    ("audio", &["id"]),
    ("input", &["type", "bus"]),
    ("address", &["type"]),
];

/// Elements that name several subjects in one attribute, which libvirt splits into one element for each.
const SPLIT: [(&str, &str, &str); 2] =
    [("vcpusched", "vcpus", "vcpu"), ("iothreadsched", "iothreads", "iothread")];

/// Why a text is not a libvirt domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XmlError {
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for XmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for XmlError {}

/// One thing that a document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// `/domain/cputune/vcpupin[vcpu=0]` or, for an attribute, `/domain/cputune/vcpupin[vcpu=0]/@cpuset`.
    pub(super) path: String,
    /// An attribute's value, or an element's own text: the normal form.
    pub(super) value: String,
    /// The start tag for an element with attributes, otherwise the value: what a person is shown.
    pub(super) shown: String,
}

/// A document, statement by statement in its own order, each element before its content.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    pub(super) statements: Vec<Statement>,
    index: HashMap<String, usize>,
    /// How many elements had the same path before they were numbered.
    counts: HashMap<String, usize>,
}

impl Reading {
    /// Reads a whole document; `document` names it in errors.
    pub(super) fn of(xml: &str, document: &str) -> Result<Reading, XmlError> {
        let error = |what: &str| XmlError { message: format!("the {document} XML {what}") };
        let tree = Document::parse(xml).map_err(|e| error(&format!("is not well-formed: {e}")))?;
        let root = tree.root_element();
        if root.tag_name().name() != "domain" {
            return Err(error(&format!("is a <{}>, not a <domain>", root.tag_name().name())));
        }
        let mut reading = Reading::default();
        match reading.element(root, "", 0) {
            true => Ok(reading),
            false => Err(error(&format!("is nested deeper than {MAX_DEPTH} elements"))),
        }
    }

    /// The statement at a path.
    pub(super) fn get(&self, path: &str) -> Option<&Statement> {
        self.index.get(path).map(|i| &self.statements[*i])
    }

    /// Adds an element, its attributes and its content; false if it is nested too deep.
    fn element(&mut self, node: Node<'_, '_>, parent: &str, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            return false;
        }
        let name = node.tag_name().name();
        if let Some((_, list, one)) = SPLIT.iter().find(|(element, ..)| *element == name)
            && let Some(subjects) = node.attribute(*list).and_then(cpu_list)
        {
            for subject in subjects.iter() {
                self.add(node, &format!("{parent}/{name}[{one}={subject}]"), Some(list));
            }
            return true;
        }
        let path = self.add(node, &format!("{parent}/{name}{}", key(node)), None);
        node.children().filter(Node::is_element).all(|child| self.element(child, &path, depth + 1))
    }

    /// Adds one element with its attributes, but for `without`, and gives the path it got: a second one of the
    /// same path gets a number.
    fn add(&mut self, node: Node<'_, '_>, path: &str, without: Option<&str>) -> String {
        let count = self.counts.entry(path.to_owned()).or_default();
        *count += 1;
        let path = if *count == 1 { path.to_owned() } else { format!("{path}[{count}]") };
        let attributes: Vec<(&str, String)> =
            attributes(node).into_iter().filter(|(name, _)| Some(*name) != without).collect();
        let value = text(node);
        let tag: String = attributes.iter().map(|(name, value)| format!(" {name}='{value}'")).collect();
        let shown = match value.is_empty() {
            true => format!("<{}{tag}>", node.tag_name().name()),
            false => value.clone(),
        };
        self.push(Statement { path: path.clone(), value, shown });
        for (name, value) in attributes {
            self.push(Statement { path: format!("{path}/@{name}"), shown: value.clone(), value });
        }
        path
    }

    fn push(&mut self, statement: Statement) {
        self.index.insert(statement.path.clone(), self.statements.len());
        self.statements.push(statement);
    }
}

/// The part of a path that tells an element from its namesakes.
fn key(node: Node<'_, '_>) -> String {
    let name = node.tag_name().name();
    if name == "disk" {
        let target = node.children().find(|child| child.has_tag_name("target"));
        return target
            .and_then(|t| t.attribute("dev"))
            .map_or(String::new(), |dev| format!("[target={dev}]"));
    }
    let Some((_, names)) = KEYS.iter().find(|(element, _)| *element == name) else { return String::new() };
    let part = |name: &&str| match node.attribute(*name) {
        // libvirt numbers a controller that was given without one.
        None if *name == "index" => Some("index=0".to_owned()),
        value => value.map(|value| format!("{name}={value}")),
    };
    let parts: Vec<String> = names.iter().filter_map(part).collect();
    if parts.is_empty() { String::new() } else { format!("[{}]", parts.join(",")) }
}

/// The attributes in their normal form, a unit merged into the value it belongs to.
fn attributes<'a>(node: Node<'a, '_>) -> Vec<(&'a str, String)> {
    let unit = node.attribute("unit");
    let measured = |name: &str| match node.tag_name().name() {
        "page" => name == "size",
        "cell" => name == "memory",
        _ => false,
    };
    let sized = node.attributes().any(|a| measured(a.name())) || SIZES.contains(&node.tag_name().name());
    let normal = |name: &str, value: &str| match name {
        _ if measured(name) => kib(value, unit).unwrap_or_else(|| value.to_owned()),
        _ if LISTS.contains(&name) => cpu_list(value).map_or(value.to_owned(), |set| set.to_string()),
        "address" if node.has_tag_name("mac") => value.to_ascii_lowercase(),
        _ => value.to_owned(),
    };
    let used = node.attributes().filter(|a| !(sized && a.name() == "unit"));
    used.map(|a| (a.name(), normal(a.name(), a.value()))).collect()
}

/// The element's own text in its normal form.
fn text(node: Node<'_, '_>) -> String {
    let text = node.text().unwrap_or_default().trim();
    match node.tag_name().name() {
        name if SIZES.contains(&name) => kib(text, node.attribute("unit")).unwrap_or_else(|| text.to_owned()),
        "uuid" => text.to_ascii_lowercase(),
        _ => text.to_owned(),
    }
}

/// A size in its normal form: `16777216 KiB`. None if it is not one.
fn kib(number: &str, unit: Option<&str>) -> Option<String> {
    Some(format!("{} KiB", bytes(number, unit)?.div_ceil(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_domain_is_refused() {
        let deep = format!("<domain>{}{}</domain>", "<a>".repeat(5000), "</a>".repeat(5000));
        for (xml, word) in [
            ("", "not well-formed"),
            ("<domain>", "not well-formed"),
            ("<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>", "not well-formed"),
            ("<network/>", "is a <network>"),
            (&deep, "nested deeper"),
        ] {
            let error = Reading::of(xml, "defined").unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("defined"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}", number in ".{0,8}") {
            let _ = Reading::of(&text, "any");
            let _ = Reading::of(&format!("<domain><memory unit='GiB'>{number}</memory></domain>"), "any");
        }
    }
}
