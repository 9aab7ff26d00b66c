//! Layer 3: which CPU, node and page goes to whom. A pure function of profile and facts.

mod cpus;
mod guests;
mod memory;

pub use guests::{GuestPlace, Shared};
pub use memory::Pages;

use crate::facts::Facts;
use crate::formats::{CpuSet, Size};
use crate::profile::{Diagnostic, Level, Profile};
use serde::Serialize;

/// The division of one machine.
#[derive(Debug, Clone, Serialize)]
pub struct Placement {
    /// CPUs for the system: services, interrupts, emulator threads. Whole cores, the boot CPU among them.
    pub housekeeping: CpuSet,
    /// Every other online CPU; each runs one vCPU or nothing.
    pub isolated: CpuSet,
    /// The nodes that have memory or CPUs, by id.
    pub nodes: Vec<NodePlace>,
    /// The page size of guest memory.
    pub page: Size,
    /// The guests, in the order of the profile.
    pub guests: Vec<GuestPlace>,
}

/// The division of one memory node.
#[derive(Debug, Clone, Serialize)]
pub struct NodePlace {
    /// The kernel's number.
    pub id: u32,
    /// Its housekeeping CPUs.
    pub housekeeping: CpuSet,
    /// Its isolated CPUs.
    pub isolated: CpuSet,
    /// Its huge pages and how their number came about.
    pub pages: Pages,
}

impl Placement {
    /// The node with this id.
    pub fn node(&self, id: u32) -> Option<&NodePlace> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// Divides the machine as the profile asks. Warnings come beside the result.
///
/// # Errors
/// Everything that cannot be had, each with the numbers; never a partial placement.
pub fn place(profile: &Profile, facts: &Facts) -> Result<(Placement, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut found = Vec::new();
    let partition = cpus::divide(&profile.host, facts, &mut found);
    let pages = memory::divide(&profile.host, facts, &mut found);
    let mut placement = None;
    if let (Some((housekeeping, isolated)), false) = (partition, has_errors(&found)) {
        let node = |(node, pages): (&crate::facts::Node, Pages)| NodePlace {
            id: node.id,
            housekeeping: node.cpus.intersection(&housekeeping),
            isolated: node.cpus.intersection(&isolated),
            pages,
        };
        let nodes: Vec<_> = facts.numa.nodes.iter().zip(pages).map(node).collect();
        let page = profile.host.hugepages.size.value;
        let mut whole = Placement { housekeeping, isolated, nodes, page, guests: Vec::new() };
        guests::place(profile, facts, &mut whole, &mut found);
        placement = Some(whole);
    }
    match placement {
        Some(placement) if !has_errors(&found) => Ok((placement, found)),
        _ => Err(found),
    }
}

fn has_errors(found: &[Diagnostic]) -> bool {
    found.iter().any(|diagnostic| diagnostic.level == Level::Error)
}
