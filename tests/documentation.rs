//! What the documentation says of the program, against the program. The generated part is checked by xtask.

use rtkvm_tune::host::Snapshot;
use rtkvm_tune::plan::table::{SIGNS, sign};
use rtkvm_tune::resources::State;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The JSON document of a dry run on a recorded machine.
fn dry_run() -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtkvm-tune"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["apply", "--dry-run", "--format", "json", "profiles/kvm-realtime.toml"]);
    let done = command.args(["--root", "tests/captures/reference.capture"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => entries.iter().for_each(|(key, value)| {
            found.insert(key.clone());
            keys(value, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn every_key_of_the_json_document_is_explained() {
    let text = read("docs/output.md");
    let document = dry_run();
    assert!(text.contains(&format!("`schema` is {}", document["schema"])));
    let mut found = BTreeSet::new();
    keys(&document, &mut found);
    assert!(found.len() > 40, "{found:?}");
    let explained = |key: &str| {
        ["`", "plan.", "placement."]
            .iter()
            .any(|before| ["`", "[]`"].iter().any(|after| text.contains(&format!("{before}{key}{after}"))))
    };
    let missing: Vec<_> = found.iter().filter(|key| *key != "plan" && !explained(key)).collect();
    assert!(missing.is_empty(), "docs/output.md does not explain {missing:?}");
}

#[test]
fn every_state_is_explained_with_its_sign() {
    let text = read("docs/output.md");
    let states = [
        State::Missing,
        State::Differs(None),
        State::InLine,
        State::RebootPending,
        State::Pending(String::new()),
        State::ByHand(String::new()),
        State::NotApplicable(String::new()),
        State::Obsolete,
        State::Waiting(String::new()),
        State::Rejected(String::new()),
        State::Foreign(String::new()),
        State::Unverifiable(String::new()),
    ];
    for state in &states {
        let name = serde_json::to_value(state).unwrap()["state"].clone();
        let row = format!("| `{}` | `{}` |", sign(state), name.as_str().unwrap());
        assert!(text.contains(&row), "{row}");
    }
    assert!(
        SIGNS.iter().map(|(sign, _)| *sign).collect::<BTreeSet<_>>() == states.iter().map(sign).collect()
    );
    assert_eq!(SIGNS.len(), states.len());
}

#[test]
fn the_capture_that_is_shown_is_one() {
    let text = read("docs/output.md");
    let (_, rest) = text.split_once("```text\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let snapshot = Snapshot::from_capture(example).unwrap();
    assert_eq!(snapshot.entries().len(), 5);
    assert_eq!(format!("# any comment\n{}", snapshot.to_capture()).lines().count(), example.lines().count());
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut links = 0;
    let roots = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"];
    for name in
        roots.into_iter().chain(["docs/knobs.md", "docs/lint.md", "docs/output.md", "docs/profile.md"])
    {
        let text = read(name);
        let anchors: Vec<String> = text.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            links += 1;
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            match link.strip_prefix('#') {
                Some(section) => assert!(anchors.iter().any(|anchor| anchor == section), "{name}: {link}"),
                None if link.starts_with("https://") => {}
                None => assert!(path.parent().unwrap().join(link).exists(), "{name}: {link}"),
            }
        }
    }
    assert!(links > 10, "{links} links");
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == ' ' || *c == '_');
    kept.collect::<String>().replace(' ', "-")
}
