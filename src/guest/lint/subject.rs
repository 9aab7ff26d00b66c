//! A domain document with what several rules ask of it, read once.

use std::ops::Range;

use roxmltree::{Document, Node};

use super::{Host, Neighbour};
use crate::formats::{CpuSet, Size};
use crate::guest::reading::{XmlError, bytes, cpu_list};

/// An element.
pub(super) type Element<'t> = Node<'t, 't>;

/// libvirt's names of the policies that are real-time.
pub(super) const REAL_TIME: [&str; 2] = ["fifo", "rr"];

/// A document, the machine and the other documents.
pub(super) struct Subject<'t> {
    pub(super) root: Element<'t>,
    pub(super) host: &'t Host<'t>,
    pub(super) neighbours: &'t [Neighbour],
    /// How many vCPUs the guest can have.
    pub(super) vcpus: u32,
    /// `<vcpupin>`, in order.
    pub(super) pins: Vec<Pin<'t>>,
    /// `<emulatorpin>` and `<iothreadpin>`.
    pub(super) others: Vec<Pin<'t>>,
    /// `<vcpusched>`, in order.
    pub(super) scheds: Vec<Sched<'t>>,
    /// The guest's NUMA cells; one of everything where it has none.
    pub(super) cells: Vec<Cell<'t>>,
    /// `<page>`, in order.
    pub(super) pages: Vec<Page<'t>>,
    /// What cannot be read: where, and why.
    pub(super) unreadable: Vec<(Range<usize>, String)>,
}

/// Threads and the CPUs they may run on.
pub(super) struct Pin<'t> {
    pub(super) element: Element<'t>,
    /// The vCPU, the I/O thread, or 0 for the emulator.
    pub(super) number: u32,
    pub(super) cpus: CpuSet,
}

/// vCPUs and their scheduler.
pub(super) struct Sched<'t> {
    pub(super) element: Element<'t>,
    /// None where the attribute is missing.
    pub(super) vcpus: CpuSet,
    pub(super) scheduler: &'t str,
}

/// A NUMA cell of the guest.
pub(super) struct Cell<'t> {
    /// The element that says its memory.
    pub(super) element: Element<'t>,
    /// Whether it is a `<cell>`.
    pub(super) written: bool,
    pub(super) id: u32,
    pub(super) vcpus: CpuSet,
    /// In bytes; 0 if it is not said.
    pub(super) memory: Size,
}

/// A size of huge pages, and the cells that have it.
pub(super) struct Page<'t> {
    pub(super) element: Element<'t>,
    pub(super) size: Size,
    /// The cells it names; `None` for all.
    pub(super) cells: Option<CpuSet>,
}

/// Reads a domain.
pub(super) fn parse(xml: &str) -> Result<Document<'_>, XmlError> {
    let error = |message: String| XmlError { message };
    let tree = Document::parse(xml).map_err(|e| error(format!("the XML is not well-formed: {e}")))?;
    match tree.root_element().tag_name().name() {
        "domain" => Ok(tree),
        other => Err(error(format!("the XML is a <{other}>, not a <domain>"))),
    }
}

/// The guest's name and its vCPUs' CPUs.
pub(super) fn neighbour(tree: &Document) -> Result<Neighbour, XmlError> {
    let root = tree.root_element();
    let pins = all(root, "cputune/vcpupin").filter_map(|pin| cpu_list(pin.attribute("cpuset")?));
    let cpus = pins.fold(CpuSet::new(), |all, cpus| all.union(&cpus));
    Ok(Neighbour { name: one(root, "name").map_or("", text).to_owned(), cpus })
}

/// The first element at a path of names below another.
pub(super) fn one<'t>(from: Element<'t>, path: &str) -> Option<Element<'t>> {
    all(from, path).next()
}

/// All elements at a path of names below another.
pub(super) fn all<'t>(from: Element<'t>, path: &str) -> impl Iterator<Item = Element<'t>> + use<'t> {
    let mut found = vec![from];
    for name in path.split('/') {
        let below = found.iter().flat_map(|element| element.children());
        found = below.filter(|child| child.is_element() && child.tag_name().name() == name).collect();
    }
    found.into_iter()
}

/// An element's own text.
pub(super) fn text(element: Element<'_>) -> &str {
    element.text().unwrap_or_default().trim()
}

/// An element's start tag.
pub(super) fn tag(element: Element) -> Range<usize> {
    let whole = element.range();
    let source = element.document().input_text();
    // Values may have a `>` too.
    let from = element.attributes().map(|a| a.range().end).max().unwrap_or(whole.start);
    let end = source[from..whole.end].find('>').map_or(whole.end, |at| from + at + 1);
    whole.start..end
}

/// An attribute with its value; the start tag where it is not there.
pub(super) fn attribute(element: Element, name: &str) -> Range<usize> {
    element.attribute_node(name).map_or_else(|| tag(element), |attribute| attribute.range())
}

/// An element of some text from its start tag to its end tag.
pub(super) fn whole(element: Element) -> Range<usize> {
    element.range()
}

fn size(number: &str, unit: Option<&str>) -> Option<Size> {
    u64::try_from(bytes(number, unit)?).ok().map(Size)
}

impl<'t> Subject<'t> {
    pub(super) fn of(tree: &'t Document<'t>, host: &'t Host<'t>, neighbours: &'t [Neighbour]) -> Subject<'t> {
        let root = tree.root_element();
        let mut unreadable = Vec::new();
        let vcpu = one(root, "vcpu");
        let vcpus = vcpu.map_or(Some(1), |vcpu| text(vcpu).parse().ok());
        let vcpus = vcpus.filter(|count| (1..=8192).contains(count)).unwrap_or_else(|| {
            let at = vcpu.map_or(tag(root), whole);
            unreadable.push((at, "<vcpu> is not a number of vCPUs".to_owned()));
            // As many as have pins, so that this is the one finding.
            let numbers = all(root, "cputune/vcpupin").filter_map(|pin| pin.attribute("vcpu")?.parse().ok());
            numbers.max().map_or(1, |most: u32| most.min(8191) + 1)
        });
        let mut subject = Subject {
            root,
            host,
            neighbours,
            vcpus,
            pins: Vec::new(),
            others: Vec::new(),
            scheds: Vec::new(),
            cells: Vec::new(),
            pages: Vec::new(),
            unreadable,
        };
        subject.read();
        subject
    }

    fn read(&mut self) {
        let root = self.root;
        for (path, key) in
            [("cputune/vcpupin", "vcpu"), ("cputune/emulatorpin", ""), ("cputune/iothreadpin", "iothread")]
        {
            for element in all(root, path) {
                let number = if key.is_empty() { Some(0) } else { self.number(element, key) };
                let (Some(number), Some(cpus)) = (number, self.list(element, "cpuset", true)) else {
                    continue;
                };
                let pins = if key == "vcpu" { &mut self.pins } else { &mut self.others };
                pins.push(Pin { element, number, cpus });
            }
        }
        for element in all(root, "cputune/vcpusched") {
            let vcpus = self.list(element, "vcpus", false).unwrap_or_default();
            self.scheds.push(Sched {
                element,
                vcpus,
                scheduler: element.attribute("scheduler").unwrap_or_default(),
            });
        }
        self.read_memory();
    }

    fn read_memory(&mut self) {
        let root = self.root;
        let memory = one(root, "memory");
        for (at, element) in all(root, "cpu/numa/cell").enumerate() {
            let id = element.attribute("id").map_or(Some(at as u32), |id| id.parse().ok());
            let memory = element.attribute("memory").and_then(|n| size(n, element.attribute("unit")));
            let vcpus = self.list(element, "cpus", false).unwrap_or_default();
            let (Some(id), Some(memory)) = (id, memory) else {
                self.unreadable.push((tag(element), "this cell's id or memory is not a number".to_owned()));
                continue;
            };
            self.cells.push(Cell { element, written: true, id, vcpus, memory });
        }
        if all(root, "cpu/numa/cell").next().is_none() {
            let amount = memory.and_then(|memory| size(text(memory), memory.attribute("unit")));
            if let (Some(memory), None) = (memory, amount) {
                self.unreadable.push((whole(memory), "<memory> is not an amount of memory".to_owned()));
            }
            self.cells.push(Cell {
                element: memory.unwrap_or(root),
                written: false,
                id: 0,
                vcpus: (0..self.vcpus).collect(),
                memory: amount.unwrap_or(Size(0)),
            });
        }
        for element in all(root, "memoryBacking/hugepages/page") {
            let size = element.attribute("size").and_then(|n| size(n, element.attribute("unit")));
            let Some(size) = size.filter(|size| size.0 > 0) else {
                self.unreadable.push((tag(element), "this is not a size of pages".to_owned()));
                continue;
            };
            let cells = element.attribute("nodeset").and_then(|_| self.list(element, "nodeset", true));
            self.pages.push(Page { element, size, cells });
        }
    }

    /// A whole number in an attribute.
    fn number(&mut self, element: Element<'t>, name: &str) -> Option<u32> {
        let number = element.attribute(name).and_then(|value| value.parse().ok());
        if number.is_none() {
            self.unreadable.push((attribute(element, name), format!("`{name}` is not a number here")));
        }
        number
    }

    /// A list of CPUs, vCPUs or nodes in an attribute.
    fn list(&mut self, element: Element<'t>, name: &str, needed: bool) -> Option<CpuSet> {
        let value = element.attribute(name);
        let list = value.and_then(cpu_list);
        if list.is_none() && (needed || value.is_some()) {
            self.unreadable
                .push((attribute(element, name), format!("`{name}` is not a list of numbers here")));
        }
        list
    }

    /// The first element at a path of names.
    pub(super) fn one(&self, path: &str) -> Option<Element<'t>> {
        one(self.root, path)
    }

    /// Where to show that something is missing in an element: its start tag, or that of the next one around it.
    pub(super) fn place(&self, path: &str) -> Range<usize> {
        let mut path = Some(path);
        while let Some(inner) = path {
            if let Some(element) = self.one(inner) {
                return tag(element);
            }
            path = inner.rsplit_once('/').map(|(outer, _)| outer);
        }
        tag(self.root)
    }

    /// Whether the guest is an x86 one, as it is where it does not say.
    pub(super) fn is_x86(&self) -> bool {
        let arch = self.one("os/type").and_then(|kind| kind.attribute("arch"));
        arch.is_none_or(|arch| ["x86_64", "i686"].contains(&arch))
    }

    /// The vCPUs with a real-time policy.
    pub(super) fn real_time(&self) -> CpuSet {
        let scheds = self.scheds.iter().filter(|sched| REAL_TIME.contains(&sched.scheduler));
        scheds.fold(CpuSet::new(), |all, sched| all.union(&sched.vcpus))
    }

    /// The CPUs of these vCPUs.
    pub(super) fn cpus_of(&self, vcpus: &CpuSet) -> CpuSet {
        let pins = self.pins.iter().filter(|pin| vcpus.contains(pin.number));
        pins.fold(CpuSet::new(), |all, pin| all.union(&pin.cpus))
    }

    /// The nodes of these CPUs.
    pub(super) fn nodes_of(&self, cpus: &CpuSet) -> CpuSet {
        let nodes = self.host.facts.numa.nodes.iter();
        nodes.filter(|node| !node.cpus.is_disjoint(cpus)).map(|node| node.id).collect()
    }

    /// The page size of a cell; `None` if it has none of its own.
    pub(super) fn page_of(&self, cell: u32) -> Option<&Page<'t>> {
        let named = self.pages.iter().find(|page| page.cells.as_ref().is_some_and(|c| c.contains(cell)));
        named.or_else(|| self.pages.iter().find(|page| page.cells.is_none()))
    }

    /// Where the memory of a cell is bound: the element, its mode and its host nodes.
    pub(super) fn binding(&self, cell: &Cell) -> Option<(Element<'t>, &'t str, Option<CpuSet>)> {
        let own = all(self.root, "numatune/memnode").find(|memnode| {
            cell.written && memnode.attribute("cellid").and_then(|id| id.parse().ok()) == Some(cell.id)
        });
        let element = own.or_else(|| self.one("numatune/memory"))?;
        let mode = element.attribute("mode").unwrap_or("strict");
        Some((element, mode, element.attribute("nodeset").and_then(cpu_list)))
    }
}

/// `vCPU 3`, `vCPUs 1-3`.
pub(super) fn vcpus_named(vcpus: &CpuSet) -> String {
    format!("vCPU{} {vcpus}", if vcpus.len() == 1 { "" } else { "s" })
}
