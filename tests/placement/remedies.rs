//! What a refusal says would help does help: each remedy is followed, and the profile that comes of it fits.

use crate::machine::parsed;
use crate::properties::written;
use crate::refusals::cases;
use crate::together::{crowded, defined, empty};
use proptest::prelude::*;
use rtkvm_tune::facts::Facts;
use rtkvm_tune::formats::Size;
use rtkvm_tune::placement::place;
use rtkvm_tune::profile::{Diagnostic, Guest, Level, Profile, Spanned};

/// The guest that is refused, and each remedy; `None` where several are, of which one remedy helps only one.
fn remedies(errors: &[Diagnostic]) -> Option<(&str, Vec<&str>)> {
    let errors: Vec<&Diagnostic> = errors.iter().filter(|error| error.level == Level::Error).collect();
    let [error] = errors.as_slice() else { return None };
    let (name, _) = error.message.strip_prefix("guest ")?.split_once(" needs ")?;
    let remedies = error.help.as_deref()?.strip_prefix("it fits ")?;
    Some((name, remedies.split("; or ").collect()))
}

/// The profile of somebody who does what a remedy says.
fn followed(profile: &Profile, refused: &str, remedy: &str) -> Profile {
    let mut profile = profile.clone();
    let mut of = |name: &str, change: &dyn Fn(&mut Guest)| {
        change(profile.guests.iter_mut().find(|guest| guest.name.value == name).expect("a guest"));
    };
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let on = |text: &str| {
        let (_, list) = text.trim_matches('`').split_once(" = ").expect("a key and its value");
        list.trim_matches(['[', ']']).split(", ").map(number).collect::<Vec<_>>()
    };
    let move_to = |guest: &mut Guest, nodes: Vec<u32>| {
        guest.numa_nodes = Some(Spanned { value: nodes, span: guest.name.span.clone() });
    };
    let remedy = remedy.strip_prefix("if ").or(remedy.strip_prefix("with ")).unwrap_or(remedy);
    for part in remedy.split(" and ") {
        if let Some((name, key)) = part.split_once(" moves by ") {
            of(name, &|guest| move_to(guest, on(key)));
        } else if let Some(key) = part.strip_prefix("on several nodes, by ").or(part.strip_prefix("`")) {
            of(refused, &|guest| move_to(guest, on(key)));
        } else if let Some(node) = part.strip_prefix("on node ") {
            of(refused, &|guest| move_to(guest, vec![number(node)]));
        } else if let Some(vcpus) = part.strip_suffix(" vCPUs") {
            of(refused, &|guest| guest.vcpus.value = number(vcpus));
        } else if let Some(size) = part.strip_suffix(" of memory") {
            of(refused, &|guest| guest.memory.value = Size::parse(size).expect("a size"));
        } else {
            panic!("a remedy that nobody understands: {remedy}");
        }
    }
    profile
}

/// The profile and the machine, where libvirt has some of the guests already.
fn tried() -> impl Strategy<Value = (Profile, Facts)> {
    (crowded(), prop::collection::vec(any::<bool>(), 5)).prop_map(|((mut facts, wish), applied)| {
        let profile = written(&wish, &facts).profile;
        let some = profile.guests.iter().zip(&applied).filter(|(_, applied)| **applied);
        let before = Profile { guests: some.map(|(guest, _)| guest.clone()).collect(), ..profile.clone() };
        if let Ok((before, _)) = place(&before, &facts) {
            facts.definitions.guests =
                before.guests.iter().map(|place| defined(place, before.page)).collect();
        }
        (profile, facts)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_a_refusal_says_helps_does((profile, facts) in tried()) {
        if empty(&profile, &facts).is_none() {
            return Ok(());
        }
        let Err(errors) = place(&profile, &facts) else { return Ok(()) };
        let Some((refused, remedies)) = remedies(&errors) else { return Ok(()) };
        for remedy in remedies {
            let result = place(&followed(&profile, refused, remedy), &facts);
            prop_assert!(result.is_ok(), "{remedy}\n{errors:?}\n{:?}", result.err());
        }
    }
}

/// The same of every refusal whose words are written down.
#[test]
fn what_the_written_refusals_say_helps_does() {
    let mut tried = 0;
    for (title, profile, facts) in cases() {
        let profile = parsed(&profile).profile;
        let errors = place(&profile, &facts).expect_err(title);
        let Some((refused, remedies)) = remedies(&errors) else { continue };
        for remedy in remedies {
            let result = place(&followed(&profile, refused, remedy), &facts);
            assert!(result.is_ok(), "{title}: {remedy}: {:?}", result.err());
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}

/// Each kind of remedy has to be common among random machines for the property to say something.
#[test]
fn every_kind_of_remedy_is_tried() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let kinds = ["moves by", "on node ", "on several nodes", " vCPUs", " of memory", " vCPUs and "];
    let mut seen = [0; 6];
    for _ in 0..1500 {
        let (profile, facts) = tried().new_tree(&mut runner).expect("a value").current();
        let Err(errors) = place(&profile, &facts) else { continue };
        for remedy in remedies(&errors).map(|(_, remedies)| remedies).unwrap_or_default() {
            for (count, _) in seen.iter_mut().zip(kinds).filter(|(_, kind)| remedy.contains(kind)) {
                *count += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count >= 3), "{kinds:?}: {seen:?}");
}
