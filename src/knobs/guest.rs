//! The guests' definitions.

use super::{Context, Disruption, Knob, Reach, Setting, Values};
use crate::facts::Architecture;
use crate::formats::HostPath;
use crate::guest::cloud_init::{self, Inside};
use crate::guest::{Domain, Host, default_template};
use crate::placement::GuestPlace;
use crate::profile::{Diagnostic, Disk, Guest, Os, Spanned};
use crate::resources::{OwnedFile, Resource};

pub(super) const KNOBS: &[Knob] = &[SEED, DISK, DOMAIN, AUTOSTART];

const SEED: Knob = Knob {
    id: "guest.seed",
    summary: "Give each guest of the profile with [guest.cloud-init] a seed that tunes it inside",
    why: "A guest is real-time only if its own kernel isolates its vCPUs as well: the first is for the guest's own work, \
        the others have neither tick nor interrupts, and pressure stalls are not accounted for. cloud-init in the guest's image reads the seed at the first boot, \
        installs the real-time kernel, gives it its arguments, and reboots once.",
    source: "cloud-init, NoCloud; TuneD realtime-virtual-guest profile",
    since: "cloud-init 22.4",
    check: "the texts of the seed have the planned content; its image is made of them by xorriso whenever they change",
    reach: Reach::GuestRestart,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let mut settings = Vec::new();
        for (at, guest) in ctx.profile.guests.iter().enumerate() {
            let Some(inside) = &guest.cloud_init else { continue };
            let words = |texts: &'_ [Spanned<String>]| texts.iter().map(|text| text.value.clone()).collect();
            let (keys, arguments): (Vec<String>, Vec<String>) =
                (words(&inside.ssh_keys), words(&inside.kernel_arguments));
            let seed = Inside {
                name: &guest.name.value,
                instance: &inside.instance_id.value,
                distribution: inside.distribution.value,
                architecture: ctx.facts.kernel.architecture,
                kernel: inside.kernel.value,
                tuning: inside.tuning.value,
                vcpus: guest.vcpus.value,
                rt_vcpus: &guest.rt_vcpus.value,
                ssh_keys: &keys,
                kernel_arguments: &arguments,
                own: ctx.user_data.get(at).and_then(Option::as_deref),
            };
            let contents = [seed.meta_data(), seed.user_data()];
            for (path, content) in cloud_init::texts(&guest.name.value).into_iter().zip(contents) {
                let label = format!("guest {}, {}", guest.name.value, path.split().1);
                // User-data may hold a password.
                let file = OwnedFile { path, content, mode: 0o600 };
                settings.push(Setting::new(label, Resource::File(file)));
            }
        }
        Ok(settings)
    },
};

const DISK: Knob = Knob {
    id: "guest.disk",
    summary: "Make each disk of the profile that has a base image and is not there",
    why: "A guest that works in real time has its disk whole and to itself: a full copy needs no look at a backing file, \
        and with all its room reserved no write has to wait for a block to be found, or fails on a full file system. A \
        file that is there already is the disk, whatever is in it: it is never written over, nor made larger.",
    source: "qemu-img(1), create with preallocation=falloc and convert; libvirt formatdomain, disks",
    since: "QEMU 5.0",
    check: "there is a file at the disk's path",
    reach: Reach::GuestRestart,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let disks =
            ctx.profile.guests.iter().flat_map(|guest| guest.disks.iter().map(move |disk| (guest, disk)));
        let based = disks.filter(|(_, disk)| disk.base.is_some());
        let setting = |(guest, disk): (&Guest, &Disk)| {
            let (name, path) = (guest.name.value.clone(), HostPath::new(&*disk.source.value));
            let copy = ctx.copies.get(&disk.source.value).cloned();
            Setting::new(format!("guest {name}, {path}"), Resource::Disk { guest: name, path, copy })
        };
        Ok(based.map(setting).collect())
    },
};

const AUTOSTART: Knob = Knob {
    id: "guest.autostart",
    summary: "Have libvirt start each guest with the host, or not, where `autostart` says so",
    why: "A host that comes back by itself after a power cut should bring its real-time guests with it; one that is still \
        being set up should not. Without the key it stays as it is in libvirt.",
    source: "virsh(1), autostart",
    since: "every libvirt",
    check: "libvirt has the guest among those that it starts",
    reach: Reach::Live,
    disruption: Disruption::None,
    values: Values::ON,
    settings: |ctx| {
        let setting = |guest: &Guest| {
            let (name, libvirt) = (&guest.name.value, &ctx.profile.host.libvirt);
            let on = guest.autostart.as_ref()?.value;
            let (path, definition) = (libvirt.autostart(name), libvirt.definition(name));
            Some(Setting::new(format!("guest {name}"), Resource::Autostart { path, definition, on }))
        };
        Ok(ctx.profile.guests.iter().filter_map(setting).collect())
    },
};

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
    values: Values::ON,
    settings: |ctx| {
        let mut settings = Vec::new();
        let mut found = Vec::new();
        for (guest, place) in ctx.profile.guests.iter().zip(&ctx.placement.guests) {
            match render(ctx, guest, place) {
                Ok(xml) => {
                    let xml = match guest.cloud_init {
                        Some(_) => cloud_init::attached(&xml, &place.name),
                        None => xml,
                    };
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
    let host = Host {
        page: ctx.placement.page,
        numa: &ctx.facts.numa,
        architecture,
        amd: ctx.facts.processor.is_amd(),
    };
    let domain = Domain::new(guest, place, &host);
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
