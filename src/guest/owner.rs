//! Whose a domain is: our mark in its metadata, which libvirt keeps for whoever put it there
//! (<https://libvirt.org/formatdomain.html#general-metadata>).

use crate::formats::HostPath;
use roxmltree::{Document, Node};

/// The namespace of the mark. Never changes: guests of another one would be strangers.
const NAMESPACE: &str = "urn:rtkvm-tune:owner:1";

/// Whether a definition has our mark.
pub fn is_ours(xml: &str) -> bool {
    Document::parse(xml).is_ok_and(|tree| mark_of(&tree).is_some())
}

fn mark_of<'a>(tree: &'a Document<'_>) -> Option<Node<'a, 'a>> {
    let metadata = tree.root_element().children().filter(|node| node.has_tag_name("metadata"));
    metadata.flat_map(|node| node.children()).find(|node| node.has_tag_name((NAMESPACE, "owner")))
}

/// The document with our mark; one that has it stays as it is, as does one that is no XML.
pub fn marked(xml: &str) -> String {
    let Ok(tree) = Document::parse(xml) else { return xml.to_owned() };
    if mark_of(&tree).is_some() {
        return xml.to_owned();
    }
    let mark = format!("<rtkvm:owner xmlns:rtkvm='{NAMESPACE}'/>");
    let root = tree.root_element();
    let child = |name: &str| root.children().find(|node| node.has_tag_name(name));
    let (at, text) = match child("metadata") {
        Some(metadata) => {
            let range = metadata.range();
            match xml[range.clone()].rfind("</") {
                Some(end) => (range.start + end..range.start + end, mark),
                // An empty element.
                None => (range, format!("<metadata>{mark}</metadata>")),
            }
        }
        None => {
            let Some(before) = child("uuid").or_else(|| child("name")) else { return xml.to_owned() };
            let at = before.range().end;
            (at..at, format!("\n  <metadata>\n    {mark}\n  </metadata>"))
        }
    };
    let mut marked = xml.to_owned();
    marked.replace_range(at, &text);
    marked
}

/// The UUID of a definition.
pub fn uuid(xml: &str) -> Option<String> {
    let tree = Document::parse(xml).ok()?;
    let uuid = tree.root_element().children().find(|node| node.has_tag_name("uuid"))?;
    let text = uuid.text()?.trim().to_ascii_lowercase();
    let is_uuid = text.len() == 36 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    is_uuid.then_some(text)
}

/// The document with the UUID that libvirt knows the guest by: it takes no other for the same name.
pub fn with_uuid(xml: &str, known: &str) -> String {
    match uuid(xml) {
        Some(own) if own != known => xml.replacen(&own, known, 1),
        _ => xml.to_owned(),
    }
}

/// Where the system's libvirt keeps the state of a guest that runs.
///
/// # Panics
/// As [`HostPath::new`]: names are checked before.
pub fn status(name: &str) -> HostPath {
    HostPath::new(format!("/run/libvirt/qemu/{name}.xml"))
}

/// The definition that a guest runs with, out of its state (`<domstatus>`).
pub fn of_status(status: &str) -> Option<&str> {
    let tree = Document::parse(status).ok()?;
    let root = tree.root_element();
    let domain =
        root.has_tag_name("domstatus").then(|| root.children().find(|node| node.has_tag_name("domain")))?;
    Some(&status[domain?.range()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_put_once_and_found() {
        for xml in [
            "<domain><name>a</name><uuid>x</uuid><memory>1</memory></domain>",
            "<domain><name>a</name></domain>",
            "<domain><name>a</name><metadata/></domain>",
            "<domain><metadata></metadata><name>a</name></domain>",
            "<domain><metadata><o:owner xmlns:o='urn:other'/></metadata><name>a</name></domain>",
            "<domain><name>a</name><metadata><o:metadata xmlns:o='urn:o'><o:x/></o:metadata></metadata></domain>",
        ] {
            assert!(!is_ours(xml), "{xml}");
            let once = marked(xml);
            assert!(is_ours(&once), "{once}");
            assert_eq!(marked(&once), once);
            let tree = Document::parse(&once).unwrap();
            let metadata: Vec<_> =
                tree.root_element().children().filter(|node| node.has_tag_name("metadata")).collect();
            assert_eq!(metadata.len(), 1, "{once}");
            assert_eq!(xml.contains("urn:o"), once.contains("urn:o"));
        }
        assert_eq!(marked("<domain>"), "<domain>");
    }

    #[test]
    fn a_mark_elsewhere_is_none() {
        for xml in [
            "<domain><rtkvm:owner xmlns:rtkvm='urn:rtkvm-tune:owner:1'/></domain>",
            "<domain><devices><metadata><rtkvm:owner xmlns:rtkvm='urn:rtkvm-tune:owner:1'/></metadata></devices></domain>",
            "<domain><metadata><owner/></metadata></domain>",
            "<domain><metadata><!-- <rtkvm:owner xmlns:rtkvm='urn:rtkvm-tune:owner:1'/> --></metadata></domain>",
            "urn:rtkvm-tune:owner:1",
        ] {
            assert!(!is_ours(xml), "{xml}");
        }
    }

    #[test]
    fn a_known_guest_keeps_its_uuid() {
        let xml = "<domain><name>a</name><uuid>10d1330f-bad2-53bd-9aa5-3558a26ba857</uuid></domain>";
        let known = "00000000-1111-2222-3333-444444444444";
        assert_eq!(uuid(&with_uuid(xml, known)).as_deref(), Some(known));
        assert_eq!(with_uuid(xml, "10d1330f-bad2-53bd-9aa5-3558a26ba857"), xml);
        assert_eq!(uuid("<domain><uuid>'/><x></uuid></domain>"), None);
        assert_eq!(
            uuid("<domain><uuid> 10D1330F-bad2-53bd-9aa5-3558a26ba857 </uuid></domain>").unwrap(),
            uuid(xml).unwrap()
        );
    }
}
