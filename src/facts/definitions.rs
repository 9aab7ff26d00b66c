//! The guests that libvirt defines, and what they have of the machine. Source:
//! <https://libvirt.org/formatdomain.html>; the definitions of the system's guests are in /etc/libvirt/qemu
//! (<https://libvirt.org/drvqemu.html>), those of another libvirt only it can tell.

use crate::formats::domain_xml::{cpu_list, kib};
use crate::formats::{Connection, CpuSet, HostPath, Size};
use crate::host::{Read, ReadError};
use roxmltree::{Document, Node};
use serde::Serialize;

/// The guests that libvirt defines.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Definitions {
    /// By name.
    pub guests: Vec<Definition>,
    /// What cannot be read, and why: its CPUs and pages are not known.
    pub unread: Vec<String>,
    /// Whether the libvirt of the profile, another than the system's, did not answer.
    #[serde(skip)]
    pub silent: bool,
}

/// What one definition takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// The guest's name.
    pub name: String,
    /// What libvirt tells guests apart by, in whatever way it is asked.
    #[serde(skip)]
    pub uuid: Option<String>,
    /// The libvirt that has it.
    pub libvirt: Connection,
    /// The CPUs of each vCPU, in order; empty for one without a pin.
    pub pins: Vec<CpuSet>,
    /// Its memory by guest cell, or all of it.
    pub cells: Vec<DefinedCell>,
    /// The size of its huge pages; `None` without any.
    pub page: Option<Size>,
}

/// The memory of a guest cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DefinedCell {
    /// How much, in bytes.
    pub memory: Size,
    /// The host's nodes that it is bound to; empty without binding.
    pub nodes: CpuSet,
}

impl Definitions {
    /// Reads the definitions of the system's libvirt.
    pub fn read(host: &dyn Read) -> Definitions {
        let mut found = Definitions::default();
        found.add(host, &Connection::default());
        found
    }

    /// Adds those of another libvirt, the one of a profile. Where it is the system's by another URI, its guests are
    /// no second ones.
    pub fn ask(&mut self, host: &dyn Read, libvirt: &Connection) {
        if !libvirt.is_system() {
            self.add(host, libvirt);
            self.silent = host.list(&libvirt.definitions()) == Err(ReadError::NoAnswer);
        }
    }

    /// Whether a definition is one of this libvirt's. While that does not answer it may be the system's by another URI.
    pub fn is_of(&self, libvirt: &Connection, definition: &Definition) -> bool {
        definition.libvirt == *libvirt || self.silent && definition.libvirt.is_system()
    }

    fn add(&mut self, host: &dyn Read, libvirt: &Connection) {
        let dir = libvirt.definitions();
        let names = match host.list(&dir) {
            Ok(names) => names,
            Err(ReadError::Absent | ReadError::Untold) => return,
            Err(error) => return self.unread.push(unread(libvirt, &dir, error)),
        };
        for name in names.iter().filter(|name| name.ends_with(".xml")) {
            let path = dir.join(name);
            match host.extract(&path, essence).map(|file| Definition::parse(libvirt, &file.text())) {
                Ok(Ok(definition)) => {
                    self.guests.retain(|known| !known.is_same(&definition));
                    self.guests.push(definition);
                }
                Ok(Err(why)) => self.unread.push(format!("{path}: {why}")),
                Err(ReadError::Absent) => {}
                Err(error) => self.unread.push(unread(libvirt, &path, error)),
            }
        }
        self.guests.sort_by(|a, b| (&a.name, a.libvirt.uri()).cmp(&(&b.name, b.libvirt.uri())));
    }

    /// The definition of a guest of a libvirt.
    pub fn get(&self, libvirt: &Connection, name: &str) -> Option<&Definition> {
        self.guests.iter().find(|definition| definition.name == name && self.is_of(libvirt, definition))
    }
}

/// What could not be read, and why.
fn unread(libvirt: &Connection, path: &HostPath, error: ReadError) -> String {
    match libvirt.is_system() {
        true => format!("{path} cannot be read: {error}"),
        false => format!("the guests of {} are not known: {error}", libvirt.uri()),
    }
}

impl Definition {
    /// Reads a domain document of a libvirt.
    ///
    /// # Errors
    /// Not well-formed, not a domain, or without a name.
    pub fn parse(libvirt: &Connection, xml: &str) -> Result<Definition, String> {
        let tree = Document::parse(xml).map_err(|error| format!("not well-formed: {error}"))?;
        let domain = tree.root_element();
        let text = |path: &[&str]| at(domain, path).and_then(|node| node.text()).map(str::trim);
        if domain.tag_name().name() != "domain" {
            return Err("it is not a domain".into());
        }
        let name = text(&["name"]).filter(|name| !name.is_empty()).ok_or("it has no name")?.to_owned();
        let everywhere = at(domain, &["vcpu"]).and_then(|node| cpu_list(node.attribute("cpuset")?));
        let count = text(&["vcpu"]).and_then(|count| count.parse().ok()).unwrap_or(0).min(MOST_VCPUS);
        let mut pins = vec![everywhere.unwrap_or_default(); count];
        for pin in children(at(domain, &["cputune"]), "vcpupin") {
            let vcpu = pin.attribute("vcpu").and_then(|vcpu| vcpu.parse::<usize>().ok());
            let cpus = pin.attribute("cpuset").and_then(cpu_list);
            if let (Some(place), Some(cpus)) = (vcpu.and_then(|vcpu| pins.get_mut(vcpu)), cpus) {
                *place = cpus;
            }
        }
        let page = at(domain, &["memoryBacking", "hugepages", "page"]);
        let page = page.and_then(|page| amount(page, page.attribute("size")?));
        let uuid = text(&["uuid"]).map(str::to_owned);
        Ok(Definition { name, uuid, libvirt: libvirt.clone(), pins, cells: cells(domain), page })
    }

    /// Whether it is the same guest, told by another URI.
    fn is_same(&self, other: &Definition) -> bool {
        self.uuid.is_some() && self.uuid == other.uuid && self.name == other.name
    }

    /// All CPUs that its vCPUs are pinned to.
    pub fn cpus(&self) -> CpuSet {
        self.pins.iter().fold(CpuSet::new(), |all, pin| all.union(pin))
    }
}

/// The parts of a definition that say what it takes, and nothing else that it may have: a capture has no passwords
/// of guests that are not planned. What is no XML is left as nothing.
fn essence(xml: &str) -> String {
    let Ok(tree) = Document::parse(xml) else { return "\n".to_owned() };
    let mut kept = String::new();
    keep(tree.root_element(), &mut Vec::new(), &mut kept);
    kept + "\n"
}

/// The elements that are read, with the attributes; the text of the innermost belongs to them.
const READ: [(&str, &[&str]); 16] = [
    ("domain", &[]),
    ("domain/name", &[]),
    ("domain/uuid", &[]),
    ("domain/memory", &["unit"]),
    ("domain/vcpu", &["cpuset"]),
    ("domain/memoryBacking", &[]),
    ("domain/memoryBacking/hugepages", &[]),
    ("domain/memoryBacking/hugepages/page", &["size", "unit"]),
    ("domain/cputune", &[]),
    ("domain/cputune/vcpupin", &["vcpu", "cpuset"]),
    ("domain/numatune", &[]),
    ("domain/numatune/memory", &["mode", "nodeset"]),
    ("domain/numatune/memnode", &["cellid", "mode", "nodeset"]),
    ("domain/cpu", &[]),
    ("domain/cpu/numa", &[]),
    ("domain/cpu/numa/cell", &["id", "memory", "unit"]),
];

fn keep<'a>(node: Node<'a, '_>, path: &mut Vec<&'a str>, kept: &mut String) {
    path.push(node.tag_name().name());
    if let Some((_, attributes)) = READ.iter().find(|(read, _)| *read == path.join("/")) {
        let name = node.tag_name().name();
        let attributes = attributes.iter().filter_map(|name| Some((name, node.attribute(*name)?)));
        let attributes: String =
            attributes.map(|(name, value)| format!(" {name}='{}'", escaped(value))).collect();
        *kept += &format!("<{name}{attributes}>");
        let inner = node.children().any(|child| child.is_element());
        *kept += &escaped(node.text().filter(|_| !inner).unwrap_or_default());
        node.children().filter(Node::is_element).for_each(|child| keep(child, path, kept));
        *kept += &format!("</{name}>");
    }
    path.pop();
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;")
}

/// More vCPUs than QEMU gives a guest.
const MOST_VCPUS: usize = 8192;

/// The cells with the nodes that numatune gives them; without cells one that has everything.
fn cells(domain: Node) -> Vec<DefinedCell> {
    let numatune = at(domain, &["numatune"]);
    let strict = |node: Node| match node.attribute("mode") {
        None | Some("strict") => node.attribute("nodeset").and_then(cpu_list),
        _ => None,
    };
    let all = numatune.and_then(|tune| child(tune, "memory")).and_then(strict).unwrap_or_default();
    let own: Vec<(Option<&str>, CpuSet)> = children(numatune, "memnode")
        .filter_map(|node| Some((node.attribute("cellid"), strict(node)?)))
        .collect();
    let cell = |cell: Node| {
        let id = cell.attribute("id");
        let nodes = own.iter().find(|(cell, _)| *cell == id).map_or(&all, |(_, nodes)| nodes);
        Some(DefinedCell { memory: amount(cell, cell.attribute("memory")?)?, nodes: nodes.clone() })
    };
    let cells: Vec<_> = children(at(domain, &["cpu", "numa"]), "cell").filter_map(cell).collect();
    if !cells.is_empty() {
        return cells;
    }
    let memory = child(domain, "memory").and_then(|node| amount(node, node.text()?));
    memory.map(|memory| DefinedCell { memory, nodes: all }).into_iter().collect()
}

/// An amount in the unit that its element has.
fn amount(node: Node, number: &str) -> Option<Size> {
    kib(number, node.attribute("unit")).and_then(|kib| u64::try_from(kib).ok()).map(Size::from_kib)
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn at<'a, 'i>(node: Node<'a, 'i>, path: &[&str]) -> Option<Node<'a, 'i>> {
    path.iter().try_fold(node, |node, name| child(node, name))
}

fn children<'a, 'i>(node: Option<Node<'a, 'i>>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.into_iter().flat_map(|node| node.children()).filter(move |child| child.has_tag_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_pages_and_nodes_are_read() {
        let xml = "<domain type='kvm'><name>db</name><uuid>u-1</uuid><memory unit='KiB'>4194304</memory>
            <memoryBacking><hugepages><page size='1048576' unit='KiB'/></hugepages></memoryBacking>
            <vcpu placement='static' cpuset='8-9'>3</vcpu>
            <cputune><vcpupin vcpu='0' cpuset='4'/><vcpupin vcpu='2' cpuset='5,6'/><vcpupin vcpu='7' cpuset='1'/></cputune>
            <numatune><memory mode='strict' nodeset='0-1'/><memnode cellid='1' mode='strict' nodeset='1'/></numatune>
            <cpu><numa><cell id='0' cpus='0' memory='1' unit='GiB'/><cell id='1' cpus='1-2' memory='3145728'/></numa></cpu>
            </domain>";
        let parse = |xml: &str| Definition::parse(&Connection::default(), xml);
        let definition = parse(xml).unwrap();
        let shown: Vec<_> = definition.pins.iter().map(ToString::to_string).collect();
        assert_eq!((&*definition.name, definition.page), ("db", Some(Size::GIB)));
        assert_eq!(definition.uuid.as_deref(), Some("u-1"));
        assert_eq!(shown, ["4", "8-9", "5-6"]);
        let cells: Vec<_> =
            definition.cells.iter().map(|cell| (cell.memory.0 >> 30, cell.nodes.to_string())).collect();
        assert_eq!(cells, [(1, "0-1".to_owned()), (3, "1".to_owned())]);
        assert_eq!(parse(&essence(xml)), Ok(definition));
        let secret = "<domain a='s3'><name>a&amp;b</name><memory>1</memory><x>s3</x><vcpu x='s3'>1</vcpu><devices>s3</devices></domain>";
        assert!(!essence(secret).contains("s3"), "{}", essence(secret));
        assert_eq!(parse(&essence(secret)), parse(secret));
        let plain = "<domain><name>x</name><memory>2097152</memory><vcpu>1</vcpu>
            <numatune><memory mode='preferred' nodeset='1'/></numatune></domain>";
        let plain = parse(plain).unwrap();
        assert!(plain.cpus().is_empty() && plain.page.is_none());
        assert_eq!(plain.cells, [DefinedCell { memory: Size(2 << 30), nodes: CpuSet::new() }]);
        for (xml, word) in [("<a", "well-formed"), ("<network/>", "not a domain"), ("<domain/>", "no name")] {
            assert!(parse(xml).unwrap_err().contains(word), "{xml}");
        }
    }
}
