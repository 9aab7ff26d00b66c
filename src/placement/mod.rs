//! Layer 3: which CPU, node and page goes to whom. A pure function of profile and facts.

mod budget;
mod cpus;
mod guests;
mod memory;
mod refusals;
mod requests;
mod search;
mod taken;

pub use guests::{CellPlace, GuestPlace, Shared};
pub use memory::Pages;
pub use taken::OtherGuest;

use crate::facts::{Facts, Node};
use crate::formats::{CpuSet, Size};
use crate::profile::{Diagnostic, Level, Profile};
use serde::Serialize;

/// The division of one machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// The guests that libvirt defines beside those of the profile, and what they have.
    pub others: Vec<OtherGuest>,
}

/// The division of one memory node.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

/// Divides the machine as the profile asks. Warnings come beside the result, in source order.
///
/// # Errors
/// Everything that cannot be had, each with the numbers, in source order; never a partial placement.
pub fn place(profile: &Profile, facts: &Facts) -> Result<(Placement, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut found = Vec::new();
    let (housekeeping, isolated) = cpus::divide(&profile.host, facts, &mut found);
    let pages = memory::divide(&profile.host, facts, &mut found);
    let node = |(node, pages): (&Node, Pages)| NodePlace {
        id: node.id,
        housekeeping: node.cpus.intersection(&housekeeping),
        isolated: node.cpus.intersection(&isolated),
        pages,
    };
    let nodes = facts.numa.nodes.iter().zip(pages).map(node).collect();
    let page = profile.host.hugepages.size.value;
    let mut placement =
        Placement { housekeeping, isolated, nodes, page, guests: Vec::new(), others: Vec::new() };
    if has_errors(&found) {
        // Which guests would fit is not known, but some never will.
        found.extend(profile.guests.iter().flat_map(|guest| guests::impossible(guest, facts)));
    } else {
        guests::place(profile, facts, &mut placement, &mut found);
    }
    found.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| span.start));
    if has_errors(&found) { Err(found) } else { Ok((placement, found)) }
}

fn has_errors(found: &[Diagnostic]) -> bool {
    found.iter().any(|diagnostic| diagnostic.level == Level::Error)
}

/// `1 CPU`, `2 CPUs`.
fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
