//! What guests cost the housekeeping CPUs and the memory that is not made into pages, and where their devices are.

use super::requests::Request;
use super::{GuestPlace, NodePlace, Placement, counted};
use crate::facts::Facts;
use crate::formats::{DeviceName, Size};
use crate::profile::{Diagnostic, Profile};

/// vCPUs whose emulator and I/O threads one housekeeping CPU can serve: the guide gives 2 CPUs to 6 isolated ones,
/// Red Hat's real-time guides as much.
const VCPUS_PER_CPU: u32 = 6;

/// What QEMU takes beside the guest's memory, locked, on the node of its emulator threads: 256 to 512 MiB were seen.
const OVERHEAD: Size = Size(512 << 20);

/// What to know of one place.
pub(super) fn warnings_of(
    request: &Request,
    place: &GuestPlace,
    facts: &Facts,
    placement: &Placement,
) -> Vec<Diagnostic> {
    let guest = request.guest;
    let name = &guest.name;
    let mut found = Vec::new();
    let warn = |message: String| Diagnostic::warning(name.span.clone(), message);
    let nodes = || place.cells.iter().map(|cell| cell.node);
    let listed = place.nodes();
    if nodes().all(|node| placement.node(node).is_some_and(|node| node.housekeeping.is_empty())) {
        let message =
            format!("{listed} has no housekeeping CPU for the emulator threads of guest {}", name.value);
        let help = "they share the housekeeping CPUs of other nodes; give this node one to keep them near";
        found.push(warn(message).help(help));
    }
    if let Some(local) = request.local.filter(|local| nodes().all(|node| node != *local)) {
        let message = format!("guest {} is on {listed}, its device on node {local}", name.value);
        found.push(warn(message).help("its interrupts and memory accesses cross nodes"));
    }
    if guest.numa_nodes.is_none() && place.cells.len() > 1 {
        let message = format!(
            "guest {} is spread over {listed}: no node alone has its {} and {} of {}",
            name.value,
            counted(guest.vcpus.value.into(), "vCPU"),
            counted(place.pages, "page"),
            placement.page
        );
        found.push(warn(message).help("`numa-nodes` says that this is meant"));
    }
    for device in guest.devices() {
        if let (DeviceName::Interface(name), Ok(address)) = (&device.value, facts.devices.address(device)) {
            let message = format!("{name} is no interface of the host any more once the guest has it");
            let help = format!("name it by its PCI address, {address}, for later runs to find it");
            found.push(Diagnostic::warning(device.span.clone(), message).help(help));
        }
    }
    found
}

/// What to know of the nodes.
pub(super) fn warnings(profile: &Profile, placement: &Placement) -> Vec<Diagnostic> {
    placement.nodes.iter().flat_map(|node| warnings_of_node(node, profile, placement)).collect()
}

fn warnings_of_node(node: &NodePlace, profile: &Profile, placement: &Placement) -> Vec<Diagnostic> {
    let cells = placement.guests.iter().flat_map(|guest| &guest.cells).filter(|cell| cell.node == node.id);
    let vcpus: u32 = cells.map(|cell| cell.vcpus).sum();
    let emulators = placement.guests.iter().filter(|guest| guest.node == node.id).count() as u64;
    let span = &profile.host.span;
    let mut found = Vec::new();
    let cpus = node.housekeeping.len() as u32;
    let enough = vcpus.div_ceil(VCPUS_PER_CPU);
    if cpus > 0 && cpus < enough {
        let message = format!(
            "node {} has {} for the emulator and I/O threads of {}",
            node.id,
            counted(cpus.into(), "housekeeping CPU"),
            counted(vcpus.into(), "vCPU")
        );
        let help = format!("{enough} would be one for every {VCPUS_PER_CPU} vCPUs");
        found.push(Diagnostic::warning(span.clone(), message).help(help));
    }
    let overhead = Size(OVERHEAD.0.saturating_mul(emulators));
    if overhead > node.pages.left {
        let message = format!(
            "node {} keeps {}, and the QEMU processes of its {} may lock {} beside their memory",
            node.id,
            node.pages.left.gib(),
            counted(emulators, "guest"),
            overhead.gib()
        );
        let help = "keep more memory for the system, or fewer guests on the node";
        found.push(Diagnostic::warning(span.clone(), message).help(help));
    }
    found
}
