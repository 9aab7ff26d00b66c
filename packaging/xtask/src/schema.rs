//! docs/verify.schema.json: what `verify --format json` prints, as JSON Schema.

use rtkvm_tune::knobs::Reach;
use rtkvm_tune::resources::State;
use serde_json::{Value, json};

/// The schema's text.
pub(crate) fn verify() -> String {
    let text = || json!({"type": "string"});
    let maybe = || json!({"type": ["string", "null"]});
    let count = || json!({"type": "integer", "minimum": 0});
    let item = json!({
        "knob": {"type": "string", "pattern": "^[a-z0-9-]+\\.[a-z0-9-]+$"},
        "label": text(),
        "detail": text(),
        "reach": {"enum": reaches()},
        "disruption": {"enum": ["none", "brief-stall", "irq-move", "guest-stop", "reboot"]},
        "running": maybe(),
        "next_boot": maybe(),
        "state": {"enum": states()},
        "reason": maybe(),
        "wanted": text(),
    });
    let needed = ["knob", "label", "reach", "disruption", "running", "next_boot", "state", "wanted"];
    let mut finding = item.clone();
    finding["read_from"] = text();
    finding["why"] = text();
    finding["remedy"] = text();
    let counts = [
        "add",
        "change",
        "remove",
        "in_line",
        "reboot_pending",
        "pending",
        "waiting",
        "rejected",
        "foreign",
        "unverifiable",
        "by_hand",
        "not_applicable",
        "unmet",
    ];
    let counted: serde_json::Map<String, Value> =
        counts.iter().map(|name| ((*name).into(), count())).collect();
    let placement = json!({
        "type": "object",
        "required": ["housekeeping", "isolated", "page", "nodes", "guests"],
        "properties": {
            "housekeeping": text(), "isolated": text(), "page": count(),
            "nodes": {"type": "array", "items": {"type": "object", "required": ["id", "housekeeping", "isolated", "pages"]}},
            "guests": {"type": "array", "items": {"type": "object", "required": ["name", "node", "cpus", "emulator"]}},
        },
    });
    let plan = object(
        json!({
            "placement": placement,
            "trial": {"type": "object"},
            "items": {"type": "array", "items": object(item, &needed)},
            "steps": {"type": "array", "items": {"type": "object", "required": ["kind"]}},
            "notes": {"type": "array", "items": text()},
            "obstacles": {"type": "array", "items": text()},
        }),
        &["placement", "items", "steps", "notes", "obstacles"],
    );
    let found = [&needed[..], &["read_from", "why", "remedy"]].concat();
    let mut schema = object(
        json!({
            "schema": {"const": 1},
            "profile": text(),
            "machine": text(),
            "status": {"enum": [0, 1, 3]},
            "needs_reboot": {"type": "boolean"},
            "counts": object(counted.into(), &counts),
            "patch": text(),
            "plan": plan,
            "findings": {"type": "array", "items": object(finding, &found)},
        }),
        &["schema", "profile", "machine", "status", "needs_reboot", "counts", "patch", "plan", "findings"],
    );
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "rtkvm-tune verify --format json".into();
    format!("{schema:#}\n")
}

/// An object with these properties and no others.
fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn reaches() -> Vec<Value> {
    [Reach::Live, Reach::Reboot, Reach::GuestRestart, Reach::Check].iter().map(|reach| json!(reach)).collect()
}

fn states() -> Vec<Value> {
    let none = String::new;
    let states = [
        State::InLine,
        State::Missing,
        State::Differs(None),
        State::RebootPending,
        State::Pending(none()),
        State::Rejected(none()),
        State::Waiting(none()),
        State::NotApplicable(none()),
        State::Foreign(none()),
        State::Unverifiable(none()),
        State::ByHand(none()),
        State::Obsolete,
    ];
    states.iter().map(|state| json!(state)["state"].clone()).collect()
}
