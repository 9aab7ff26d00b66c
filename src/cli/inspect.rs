//! `inspect`: the machine as it is understood, and as a profile would divide it.

mod layout;
mod map;
mod sections;

use super::args::{Format, InspectArgs};
use super::style::Style;
use super::{Outcome, load};
use crate::facts::Facts;
use crate::host::{Machine, print, wants_color};
use crate::placement::Placement;
use serde::Serialize;

pub(super) fn run(args: &InspectArgs) -> Outcome {
    let machine = load::machine(&args.root);
    let (facts, placement) = match &args.profile {
        None => (load::facts(&machine, &machine.snapshot()?)?, None),
        Some(path) => {
            let (facts, placement) = load::divide(&machine, &load::read_profile(path)?.parsed)?;
            (facts, Some(placement))
        }
    };
    let placement = placement.as_ref();
    print(&match args.format.format {
        Format::Text => text(&facts, placement, Style::new(wants_color())),
        Format::Json => json(&machine, &facts, placement)?,
    })?;
    Ok(0)
}

/// For people: at most [`layout::WIDTH`] columns, the same for the same machine.
fn text(facts: &Facts, placement: Option<&Placement>, style: Style) -> String {
    let mut page = layout::Page::default();
    sections::kernel(&mut page, facts, style);
    sections::cpus(&mut page, facts, placement, style);
    map::nodes(&mut page, facts, placement, style);
    sections::interrupts(&mut page, facts, placement, style);
    map::legend(&mut page, facts, placement, style);
    page.finish()
}

/// Version of the JSON document; a new one when a key changes its meaning or goes away.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    /// What was asked for: a path, or `this machine`.
    machine: String,
    facts: &'a Facts,
    placement: Option<&'a Placement>,
}

fn json(machine: &Machine, facts: &Facts, placement: Option<&Placement>) -> Result<String, String> {
    let document = Document { schema: SCHEMA, machine: machine.to_string(), facts, placement };
    let text = serde_json::to_string_pretty(&document);
    text.map(|text| text + "\n").map_err(|error| format!("cannot write the machine as JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Snapshot;
    use crate::placement::place;
    use crate::profile::parse;

    const MACHINE: &str = include_str!("../../tests/capabilities/reference.xml");
    const PROFILE: &[u8] = include_bytes!("../../profiles/kvm-realtime.toml");

    #[test]
    fn colour_changes_no_character() {
        let facts = Facts::read(&Snapshot::from_capabilities(MACHINE).unwrap()).unwrap();
        let profile = parse("profile", PROFILE).unwrap().profile;
        let (placement, _) = place(&profile, &facts).unwrap();
        for placement in [None, Some(&placement)] {
            let plain = text(&facts, placement, Style::new(false));
            let colored = text(&facts, placement, Style::new(true));
            assert!(!plain.contains('\x1b'));
            assert!(colored.contains("\x1b["));
            assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
        }
    }
}
