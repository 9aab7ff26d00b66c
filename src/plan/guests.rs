//! Guests that libvirt has already: whose they are, and what stays of those that the profile no longer has.

use super::{Asked, Item, Rendered, Step};
use crate::facts::Facts;
use crate::formats::{Connection, HostPath, ImageCopy, ImageFormat, Size};
use crate::guest::{self, lint};
use crate::host::{Program, Read, ReadError};
use crate::journal::{Change, Entry, State as Past};
use crate::placement::Placement;
use crate::profile::{BaseImage, Diagnostic, DiskFormat, Profile, Spanned};
use crate::resources::{Resource, State, follow_ups};
use std::collections::BTreeMap;

/// More places that differ are counted, not named.
const MOST_PLACES: usize = 4;

/// Gives each wanted document the UUID by which libvirt knows the guest, if it is ours or becomes ours.
pub(super) fn keep_uuids(host: &dyn Read, asked: &mut [Asked], take_over: bool) {
    for asked in asked {
        let Resource::Domain { path, xml: Some(xml), .. } = &mut asked.setting.resource else { continue };
        let Ok(file) = host.file(path) else { continue };
        let text = file.text();
        if let Some(known) = guest::uuid(&text).filter(|_| take_over || guest::is_ours(&text)) {
            *xml = guest::with_uuid(xml, &known);
        }
    }
}

/// Whether libvirt has a guest that is not ours where one is to be defined or undefined.
fn is_foreign(host: &dyn Read, asked: &Asked) -> bool {
    let Resource::Domain { path, .. } = &asked.setting.resource else { return false };
    host.file(path).is_ok_and(|file| !guest::is_ours(&file.text()))
}

/// Guests of others that are in the way, each with the choice there is.
pub(super) fn conflicts(host: &dyn Read, asked: &[Asked], take_over: bool) -> Vec<String> {
    let one = |asked: &Asked| match &asked.setting.resource {
        Resource::Domain { name, xml: Some(_), .. } if !take_over => Some(format!(
            "libvirt has a guest {name} that is not this program's (its metadata has no mark): rename one of the two, \
             or let `apply --take-over` replace its definition, which a revert puts back"
        )),
        Resource::Domain { name, xml: None, .. } => Some(format!(
            "guest {name} is to be absent, and libvirt has one of this name that is not this program's (its metadata \
             has no mark): undefine it by hand, or take it out of the profile"
        )),
        _ => None,
    };
    asked.iter().filter(|asked| is_foreign(host, asked)).filter_map(one).collect()
}

/// Whether a step may touch what libvirt has: never another's guest to undefine it.
pub(super) fn may_change(host: &dyn Read, asked: &Asked) -> bool {
    !matches!(asked.setting.resource, Resource::Domain { xml: None, .. }) || !is_foreign(host, asked)
}

/// Whether what we once set for a guest stays though nothing asks for it: guests are undefined by name only.
pub(super) fn stays(host: &dyn Read, profile: &Profile, entry: &Entry) -> bool {
    match &entry.change {
        Change::Domain { .. } => host.file(&entry.path).is_ok(),
        // Nothing but the end of its guest makes a disk superfluous.
        Change::Disk { guest, .. } => !profile.absent.iter().any(|absent| absent.value == *guest),
        _ => {
            let start = Connection::of_autostart(&entry.path).map(|(_, name)| name);
            let of = guest::cloud_init::guest_of(&entry.path).or(start);
            of.is_some_and(|name| !known(profile, name))
        }
    }
}

fn known(profile: &Profile, name: &str) -> bool {
    profile.guests.iter().any(|guest| guest.name.value == name)
        || profile.absent.iter().any(|absent| absent.value == name)
}

/// Guests of ours that the profile does not name.
pub(super) fn left(host: &dyn Read, profile: &Profile, past: &Past) -> Vec<String> {
    let one = |entry: &Entry| match &entry.change {
        Change::Domain { name, ours: Some(_), .. }
            if !known(profile, name) && stays(host, profile, entry) =>
        {
            Some(format!(
                "guest {name} is not in the profile and stays defined: name it there with state = \"absent\" to undefine it"
            ))
        }
        _ => None,
    };
    past.baseline.iter().filter_map(one).collect()
}

/// Guests that run with another definition than they get, and what waits for their restart.
pub(super) fn redefined<'s>(facts: &Facts, steps: impl Iterator<Item = &'s Step>) -> Vec<String> {
    let running = |name: &str| facts.guests.iter().any(|guest| guest.name == name);
    let one = |step: &Step| match step {
        Step::Domain { name, before: Some(before), after: Some(after), .. } if running(name) => {
            let places = places(before, after);
            Some(format!("guest {name} runs: its new definition takes effect at its next start ({places})"))
        }
        Step::Domain { name, after: None, .. } if running(name) => {
            Some(format!("guest {name} runs on without a definition, and is gone once it stops"))
        }
        _ => None,
    };
    steps.filter_map(one).collect()
}

/// Guests that run, and that were given another definition since they were started.
pub(super) fn waiting(host: &dyn Read, facts: &Facts, asked: &[Asked], items: &[Item]) -> Vec<String> {
    let one = |(asked, item): (&Asked, &Item)| {
        let Resource::Domain { name, xml: Some(xml), .. } = &asked.setting.resource else { return None };
        let runs = facts.guests.iter().any(|guest| guest.name == *name);
        if !runs || item.observed.state != State::InLine {
            return None;
        }
        let status = host.file(&guest::status(name)).ok()?;
        let places = places(guest::of_status(&status.text())?, xml);
        (!places.is_empty())
            .then(|| format!("guest {name} runs with an older definition until its next start ({places})"))
    };
    asked.iter().zip(items).filter_map(one).collect()
}

/// Where two documents differ, shortly.
fn places(before: &str, after: &str) -> String {
    let found = guest::differences(before, after).unwrap_or_default();
    let named: Vec<_> = found.iter().take(MOST_PLACES).map(|difference| difference.path.clone()).collect();
    let more = found.len().saturating_sub(MOST_PLACES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

/// The most bytes of an operator's own user-data.
const MOST_USER_DATA: usize = 64 << 10;

/// The operator's own user-data of each guest.
///
/// # Errors
/// A file that cannot be read, that others can change, or that cloud-init would not take.
pub(super) fn user_data(host: &dyn Read, profile: &Profile) -> Result<Vec<Option<String>>, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let mut one = |path: &Spanned<String>| {
        let read = read_user_data(host, &path.value);
        let fail = |why: String| {
            let message = format!("user-data {} cannot be used", path.value);
            found.push(Diagnostic::error(path.span.clone(), message).label(why));
        };
        read.map_err(fail).ok()
    };
    let of = |guest: &crate::profile::Guest| {
        let path = guest.cloud_init.as_ref().and_then(|inside| inside.user_data.as_ref());
        path.and_then(&mut one)
    };
    let all = profile.guests.iter().map(of).collect();
    if found.is_empty() { Ok(all) } else { Err(found) }
}

fn read_user_data(host: &dyn Read, path: &str) -> Result<String, String> {
    let file = host.file(&HostPath::new(path)).map_err(|error| format!("it {error}"))?;
    if file.mode & 0o022 != 0 {
        return Err(format!("its mode is {:04o}, so that others can change it: use `chmod go-w`", file.mode));
    }
    if file.bytes.len() > MOST_USER_DATA {
        return Err(format!("it has {} bytes; the limit is {MOST_USER_DATA}", file.bytes.len()));
    }
    let text = String::from_utf8(file.bytes.clone()).map_err(|_| "it is not UTF-8".to_owned())?;
    guest::cloud_init::check_own(&text).map(|()| text)
}

/// What makes each disk that has a base image and is not there, by its path.
///
/// # Errors
/// A base image that cannot be read or copied, or that is larger than the disk is to be.
pub(super) fn copies(
    host: &dyn Read,
    profile: &Profile,
) -> Result<BTreeMap<String, ImageCopy>, Vec<Diagnostic>> {
    let (mut copies, mut found) = (BTreeMap::new(), Vec::new());
    for disk in profile.guests.iter().flat_map(|guest| &guest.disks) {
        let Some(base) = &disk.base else { continue };
        if !matches!(host.image(&HostPath::new(&*disk.source.value)), Err(ReadError::Absent)) {
            continue;
        }
        // Who may not look, and a description of a machine that does not tell, say nothing against it.
        let unseen = host.image(&HostPath::new(&*base.image.value)).err();
        if unseen.is_some_and(|error| error == ReadError::Untold || error.forbidden().is_some()) {
            continue;
        }
        match copy_of(host, base, disk.format.value) {
            Ok(copy) => {
                copies.insert(disk.source.value.clone(), copy);
            }
            Err(error) => found.push(error),
        }
    }
    if found.is_empty() { Ok(copies) } else { Err(found) }
}

fn copy_of(host: &dyn Read, base: &BaseImage, format: DiskFormat) -> Result<ImageCopy, Diagnostic> {
    let known = |format| match format {
        DiskFormat::Raw => ImageFormat::Raw,
        DiskFormat::Qcow2 => ImageFormat::Qcow2,
    };
    let path = HostPath::new(&*base.image.value);
    let image = host.image(&path).map_err(|error| format!("it {error}"));
    let told = base.format.as_ref().map(|format| known(format.value));
    let (base_format, least) = image.and_then(|image| image.disk(told)).map_err(|why| {
        let message = format!("base image {path} cannot be used");
        Diagnostic::error(base.image.span.clone(), message).label(why)
    })?;
    let bytes = base.size.as_ref().map_or(least, |size| size.value.0);
    if let Some(size) = base.size.as_ref().filter(|size| size.value.0 < least) {
        let message = format!("a disk of {} has no room for its base image", size.value);
        let label = format!("the disk in {path} has {}: {least} bytes", Size(least).gib());
        return Err(Diagnostic::error(size.span.clone(), message).label(label));
    }
    Ok(ImageCopy { base: path, base_format, format: known(format), bytes })
}

/// What the rules of `lint` say of the rendered guests, whatever template made them: the warnings, for people.
///
/// # Errors
/// What libvirt or QEMU would refuse, with the guest, the rule and the line.
pub(super) fn lint(
    facts: &Facts,
    placement: &Placement,
    profile: &Profile,
    guests: &[Rendered],
) -> Result<Vec<String>, Vec<Diagnostic>> {
    let host = lint::Host::planned(facts, placement);
    let neighbours: Vec<_> = guests.iter().filter_map(|guest| lint::neighbour(&guest.xml).ok()).collect();
    let (mut notes, mut found) = (Vec::new(), Vec::new());
    for guest in guests {
        let of = profile.guests.iter().find(|of| of.name.value == guest.name);
        let Some(of) = of else { continue };
        let others: Vec<_> =
            neighbours.iter().filter(|neighbour| neighbour.name != guest.name).cloned().collect();
        // Its template made sure that it is a domain.
        let findings = lint::lint(&guest.xml, &host, &others).unwrap_or_default();
        for finding in findings {
            let (id, line, message) = (finding.rule.id, finding.line, &finding.message);
            let text = guest.xml.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
            let what = format!("guest {}: {message} ({id}, line {line} of its XML: {text})", guest.name);
            if finding.rule.fatal {
                let span = of.template.as_ref().unwrap_or(&of.name).span.clone();
                found.push(Diagnostic::error(span, what).help(finding.help));
            } else {
                notes.push(format!("{what}; {}", finding.help));
            }
        }
    }
    if found.is_empty() { Ok(notes) } else { Err(found) }
}

/// The programs that make images of seeds that are not there, though their texts are.
pub(super) fn missing_images(host: &dyn Read, asked: &[Asked], programs: &[Program]) -> Vec<Program> {
    let texts = asked.iter().filter_map(|asked| match &asked.setting.resource {
        Resource::File(file) => Some((&file.path, true)),
        _ => None,
    });
    let missing = |program: &Program| match program {
        Program::MakeSeed { image, .. } => host.head(image, 0).is_err(),
        _ => false,
    };
    follow_ups(texts).into_iter().filter(|program| missing(program) && !programs.contains(program)).collect()
}
