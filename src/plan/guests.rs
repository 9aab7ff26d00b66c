//! Guests that libvirt has already: whose they are, and what stays of those that the profile no longer has.

use super::{Asked, Item, Step};
use crate::facts::Facts;
use crate::guest;
use crate::host::Read;
use crate::journal::{Change, Entry, State as Past};
use crate::profile::Profile;
use crate::resources::{Resource, State};

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
pub(super) fn stays(host: &dyn Read, entry: &Entry) -> bool {
    matches!(entry.change, Change::Domain { .. }) && host.file(&entry.path).is_ok()
}

/// Guests of ours that the profile does not name.
pub(super) fn left(host: &dyn Read, profile: &Profile, past: &Past) -> Vec<String> {
    let known = |name: &str| {
        profile.guests.iter().any(|guest| guest.name.value == name)
            || profile.absent.iter().any(|absent| absent.value == name)
    };
    let one = |entry: &Entry| match &entry.change {
        Change::Domain { name, ours: Some(_), .. } if !known(name) && stays(host, entry) => Some(format!(
            "guest {name} is not in the profile and stays defined: name it there with state = \"absent\" to undefine it"
        )),
        _ => None,
    };
    past.baseline.iter().filter_map(one).collect()
}

/// Guests that run with another definition than they get, and what waits for their restart.
pub(super) fn redefined(facts: &Facts, steps: &[Step]) -> Vec<String> {
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
    steps.iter().filter_map(one).collect()
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
