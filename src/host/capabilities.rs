//! A `virsh capabilities` document as a machine: what it tells, put where the kernel shows it.
//!
//! Source: <https://libvirt.org/formatcaps.html>. The document has no interrupts, kernel, boot loader or
//! running command line; those are then absent, and whoever needs them says so.

use super::{Entry, File, Snapshot};
use crate::formats::{CpuSet, HostPath, Size};
use roxmltree::{Document, Node};
use std::rc::Rc;

impl Snapshot {
    /// Reads a whole capabilities document, or its `<topology>` alone.
    ///
    /// # Errors
    /// Not XML, no cells, or a value that is not what libvirt writes there, with the line.
    pub fn from_capabilities(text: &str) -> Result<Snapshot, String> {
        let document = Document::parse(text).map_err(|error| format!("not an XML document: {error}"))?;
        let cells = document.descendants().find(|node| node.has_tag_name("cells"));
        let cells = cells.ok_or("no <topology><cells> in it: is it the output of `virsh capabilities`?")?;
        let mut machine = Machine::default();
        for cell in cells.children().filter(|node| node.has_tag_name("cell")) {
            machine.add_cell(cell)?;
        }
        for bank in document.descendants().filter(|node| node.has_tag_name("bank")) {
            machine.add_cache(bank)?;
        }
        if machine.cpus.is_empty() {
            return Err("its cells have no CPUs: is it the output of `virsh capabilities`?".into());
        }
        let cpus = machine.cpus.to_string();
        for name in ["possible", "present", "online"] {
            machine.put(&format!("/sys/devices/system/cpu/{name}"), &cpus);
        }
        let nodes = machine.nodes.to_string();
        machine.put("/sys/devices/system/node/online", &nodes);
        Ok(Snapshot::partial(machine.entries))
    }
}

#[derive(Default)]
struct Machine {
    entries: Vec<(HostPath, Entry)>,
    cpus: CpuSet,
    nodes: CpuSet,
}

impl Machine {
    fn put(&mut self, path: &str, line: &str) {
        let file = File { bytes: format!("{line}\n").into_bytes(), mode: 0o444 };
        self.entries.push((HostPath::new(path), Entry::File(Rc::new(file))));
    }

    fn list(&mut self, path: &str, names: Vec<String>) {
        self.entries.push((HostPath::new(path), Entry::List(Rc::new(names))));
    }

    fn add_cell(&mut self, cell: Node) -> Result<(), String> {
        let id: u32 = number(cell, "id")?;
        let node = format!("/sys/devices/system/node/node{id}");
        insert(&mut self.nodes, id, cell)?;
        let mut sizes = Vec::new();
        for child in cell.children().filter(Node::is_element) {
            match child.tag_name().name() {
                "memory" => {
                    let kib = kib(child, text_number(child)?)?;
                    self.put(&format!("{node}/meminfo"), &format!("Node {id} MemTotal:       {kib} kB"));
                }
                "pages" => {
                    let size = kib(child, number(child, "size")?)?;
                    let count: u64 = text_number(child)?;
                    // The base page size has no pool.
                    if size > 64 {
                        let pool = format!("hugepages-{size}kB");
                        self.put(&format!("{node}/hugepages/{pool}/nr_hugepages"), &count.to_string());
                        sizes.push(pool);
                    }
                }
                "distances" => {
                    let siblings = child.children().filter(|n| n.has_tag_name("sibling"));
                    let values = siblings.map(|n| number::<u32>(n, "value").map(|v| v.to_string()));
                    let line = values.collect::<Result<Vec<_>, _>>()?.join(" ");
                    self.put(&format!("{node}/distance"), &line);
                }
                "cpus" => {
                    let mut cpus = CpuSet::new();
                    for cpu in child.children().filter(|n| n.has_tag_name("cpu")) {
                        insert(&mut cpus, self.add_cpu(cpu)?, cpu)?;
                    }
                    self.put(&format!("{node}/cpulist"), &cpus.to_string());
                    self.cpus = self.cpus.union(&cpus);
                }
                _ => {}
            }
        }
        sizes.sort();
        self.list(&format!("{node}/hugepages"), sizes);
        Ok(())
    }

    fn add_cpu(&mut self, cpu: Node) -> Result<u32, String> {
        let id: u32 = number(cpu, "id")?;
        let dir = format!("/sys/devices/system/cpu/cpu{id}/topology");
        for (attribute, file) in
            [("socket_id", "physical_package_id"), ("die_id", "die_id"), ("core_id", "core_id")]
        {
            if cpu.has_attribute(attribute) {
                let value: u32 = number(cpu, attribute)?;
                self.put(&format!("{dir}/{file}"), &value.to_string());
            }
        }
        if cpu.has_attribute("siblings") {
            let siblings = cpus(cpu, "siblings")?;
            self.put(&format!("{dir}/core_cpus_list"), &siblings.to_string());
        }
        Ok(id)
    }

    fn add_cache(&mut self, bank: Node) -> Result<(), String> {
        let level: u32 = number(bank, "level")?;
        let shared = cpus(bank, "cpus")?;
        for cpu in shared.iter() {
            let dir = format!("/sys/devices/system/cpu/cpu{cpu}/cache");
            self.list(&dir, vec![format!("index{level}")]);
            self.put(&format!("{dir}/index{level}/shared_cpu_list"), &shared.to_string());
        }
        Ok(())
    }
}

fn at(node: Node) -> String {
    format!("line {}: <{}>", node.document().text_pos_at(node.range().start).row, node.tag_name().name())
}

fn insert(set: &mut CpuSet, id: u32, node: Node) -> Result<(), String> {
    if id > crate::formats::cpuset::MAX_CPU {
        return Err(format!("{}: id {id} is not one a kernel can have", at(node)));
    }
    set.insert(id);
    Ok(())
}

fn number<T: std::str::FromStr>(node: Node, name: &str) -> Result<T, String> {
    let text = node.attribute(name).ok_or_else(|| format!("{}: no {name} attribute", at(node)))?;
    text.parse().map_err(|_| format!("{}: {name}='{text}' is not a whole number", at(node)))
}

fn text_number(node: Node) -> Result<u64, String> {
    let text = node.text().unwrap_or("").trim();
    text.parse().map_err(|_| format!("{}: `{text}` is not a whole number", at(node)))
}

/// `value` in the unit that the element names, in KiB (libvirt's default unit there).
fn kib(node: Node, value: u64) -> Result<u64, String> {
    match node.attribute("unit").unwrap_or("KiB") {
        unit @ ("KiB" | "MiB" | "GiB" | "TiB") => Size::parse(&format!("{value}{unit}")).map(Size::kib),
        unit => Err(format!("{}: unit='{unit}' is not one libvirt writes here", at(node))),
    }
}

fn cpus(node: Node, name: &str) -> Result<CpuSet, String> {
    let text = node.attribute(name).ok_or_else(|| format!("{}: no {name} attribute", at(node)))?;
    CpuSet::parse_kernel_list(text).map_err(|error| format!("{}: {name}='{text}': {error}", at(node)))
}
