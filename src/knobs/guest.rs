//! The guests' definitions.

use super::{Context, Disruption, Knob, Reach, Setting};
use crate::facts::Architecture;
use crate::guest::{Domain, Host, default_template};
use crate::placement::GuestPlace;
use crate::profile::{Diagnostic, Guest, Os};
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
                    settings.push(domain(ctx, name, Some(xml)));
                }
                Err(error) => found.push(error),
            }
        }
        settings.extend(ctx.profile.absent.iter().map(|name| domain(ctx, name.value.clone(), None)));
        if found.is_empty() { Ok(settings) } else { Err(found) }
    },
};

fn domain(ctx: &Context, name: String, xml: Option<String>) -> Setting {
    let path = ctx.profile.host.libvirt.definition(&name);
    Setting::new(format!("guest {name}"), Resource::Domain { name, path, xml })
}

/// The domain XML of one guest.
fn render(ctx: &Context, guest: &Guest, place: &GuestPlace) -> Result<String, Diagnostic> {
    let architecture = ctx.facts.kernel.architecture;
    let domain =
        Domain::new(guest, place, &Host { page: ctx.placement.page, numa: &ctx.facts.numa, architecture });
    let template = guest.template.as_ref();
    if template.is_none() && architecture == Architecture::Aarch64 && guest.os.value == Os::Windows {
        let message = format!("guest {} cannot be rendered for aarch64", place.name);
        let help = "there is no template of Windows for it: write one and name it by `template`";
        return Err(Diagnostic::error(guest.os.span.clone(), message).help(help));
    }
    let name = template.map_or(default_template(architecture), |template| &template.value);
    ctx.templates.render(name, &domain).map_err(|error| {
        let span = template.map_or(guest.name.span.clone(), |template| template.span.clone());
        Diagnostic::error(span, format!("guest {} cannot be rendered", place.name)).help(error.to_string())
    })
}
