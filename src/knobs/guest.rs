//! The guests' definitions.

use super::{Context, Disruption, Knob, Reach, Setting};
use crate::guest::{DEFAULT_TEMPLATE, DiskFormat, DiskInput, Domain, DomainInput, NetworkInput};
use crate::placement::GuestPlace;
use crate::profile::{self, Diagnostic, Guest};
use crate::resources::Resource;

pub(super) const KNOBS: &[Knob] = &[DOMAIN];

const DOMAIN: Knob = Knob {
    id: "guest.domain",
    summary: "Define each guest of the profile in libvirt",
    why: "The domain XML carries what makes the guest real-time: one isolated CPU for each vCPU with a FIFO \
        policy, emulator and I/O threads on housekeeping CPUs, locked memory from huge pages of one node, and \
        none of the devices that interrupt it. A running guest keeps its old definition until it is started \
        again; guests are never stopped or started.",
    source: "libvirt, KVM Real Time Guest Config; libvirt formatdomain",
    since: "libvirt 8.7 for every element (maxphysaddr); a template of your own can leave it out",
    check: "the definition in libvirt is compared by meaning with the rendered document",
    reach: Reach::GuestRestart,
    disruption: Disruption::GuestStop,
    settings: |ctx| {
        let mut settings = Vec::new();
        let mut found = Vec::new();
        for (guest, place) in ctx.profile.guests.iter().zip(&ctx.placement.guests) {
            match render(ctx, guest, place) {
                Ok(xml) => {
                    let name = place.name.clone();
                    settings.push(Setting::new(format!("guest {name}"), Resource::Domain { name, xml }));
                }
                Err(error) => found.push(error),
            }
        }
        if found.is_empty() { Ok(settings) } else { Err(found) }
    },
};

/// The domain XML of one guest.
fn render(ctx: &Context, guest: &Guest, place: &GuestPlace) -> Result<String, Diagnostic> {
    let disks: Vec<DiskInput> = guest.disks.iter().map(disk).collect();
    let bridge =
        |network: &profile::Network| NetworkInput { bridge: network.bridge.value.clone(), mac: None };
    let networks: Vec<NetworkInput> = guest.networks.iter().map(bridge).collect();
    let domain = Domain::new(&DomainInput {
        name: &place.name,
        vcpu_cpus: &place.cpus,
        threads_per_core: guest.threads_per_core.value,
        fifo_vcpus: &guest.rt_vcpus.value,
        fifo_priority: guest.fifo_priority.value.into(),
        emulator_cpus: &place.emulator,
        memory: place.memory,
        page: ctx.placement.page,
        node: ctx.facts.numa.shown.then_some(place.node),
        disks: &disks,
        networks: &networks,
    });
    let template = guest.template.as_ref();
    let name = template.map_or(DEFAULT_TEMPLATE, |template| &template.value);
    ctx.templates.render(name, &domain).map_err(|error| {
        let span = template.map_or(guest.name.span.clone(), |template| template.span.clone());
        Diagnostic::error(span, format!("guest {} cannot be rendered", place.name)).help(error.to_string())
    })
}

fn disk(disk: &profile::Disk) -> DiskInput {
    DiskInput {
        source: disk.source.value.clone(),
        block: disk.is_block_device(),
        format: match disk.format.value {
            profile::DiskFormat::Raw => DiskFormat::Raw,
            profile::DiskFormat::Qcow2 => DiskFormat::Qcow2,
        },
    }
}
