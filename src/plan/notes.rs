//! What the operator should know beside the settings.

use super::Asked;
use crate::facts::{Facts, Loader};
use crate::formats::HostPath;
use crate::placement::Placement;
use crate::profile::{BootLoader, Profile};
use crate::resources::Resource;

/// Guests that find no pages because the profile leaves those as they are.
pub(super) fn kept_pages(left_alone: &[Asked], placement: &Placement, facts: &Facts) -> Vec<String> {
    let pools = facts.numa.nodes.iter().flat_map(|node| &node.pools);
    let paths: Vec<&HostPath> = pools.map(|pool| &pool.path).collect();
    let is_pool = |asked: &Asked| match &asked.setting.resource {
        Resource::Attribute(attribute) => paths.contains(&&attribute.path),
        _ => false,
    };
    if !left_alone.iter().any(is_pool) {
        return Vec::new();
    }
    let short = placement.nodes.iter().filter_map(|node| {
        let there = facts.numa.get(node.id)?.pool(placement.page).map_or(0, |pool| pool.pages);
        (there < node.pages.guests).then(|| {
            format!(
                "node {} keeps its {there} pages of {}; its guests need {}",
                node.id, placement.page, node.pages.guests
            )
        })
    });
    short.collect()
}

/// What guests that the profile does not have keep for themselves, and whose definitions could not be read.
pub(super) fn other_guests(placement: &Placement, facts: &Facts) -> Vec<String> {
    let kept = placement.others.iter().map(|other| {
        let cores = (!other.cores.is_empty()).then(|| format!("CPUs {}", other.cores));
        let pages = other.pages.iter().map(|(node, pages)| format!("{pages} pages of node {node}"));
        let has: Vec<String> = cores.into_iter().chain(pages).collect();
        format!("guest {} is not of this profile and has {}", other.name, has.join(", "))
    });
    let unread = facts.definitions.unread.iter();
    kept.chain(unread.map(|why| format!("what a guest of libvirt has is not known: {why}"))).collect()
}

/// What to know of the kernel, the boot loader and the program.
pub(super) fn of_the_machine(facts: &Facts, profile: &Profile) -> Vec<String> {
    let mut notes = Vec::new();
    if facts.owners.fwupd {
        notes.push(
            "fwupd-refresh.timer starts fwupd, which talks to the firmware, and that may stop every CPU: `systemctl disable \
             --now fwupd-refresh.timer`"
                .into(),
        );
    }
    for text in &profile.host.kernel_arguments {
        let name = text.split('=').next().unwrap_or_default();
        // It may be meant for user space, which the kernel hands it to.
        notes.extend(
            facts
                .kernel
                .log
                .against(name)
                .map(|line| format!("the kernel did not take {}: `{line}`", text.value)),
        );
    }
    let auto = profile.host.boot_loader.value == BootLoader::Auto;
    notes.extend(unwritten_loader(facts.boot.loader).filter(|_| auto));
    if !facts.installed {
        notes.push(format!(
            "{} is not there, which the boot unit starts: install the package",
            crate::facts::PROGRAM
        ));
    }
    notes
}

/// Why this program does not write the kernel arguments, and what to do; `None` if it does.
pub fn unwritten_loader(loader: Loader) -> Option<String> {
    let remedy = loader.by_hand()?;
    let what = match loader {
        Loader::Unknown => "the boot loader is not known here".to_owned(),
        loader => format!("the kernel arguments of {} are not written by this program", loader.name()),
    };
    Some(format!(
        "{what}: {remedy}. Put `boot-loader = \"manual\"` under [host] to apply everything else, and add the kernel \
         arguments by hand"
    ))
}
