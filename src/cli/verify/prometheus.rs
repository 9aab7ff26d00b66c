//! An audit as metrics for node_exporter's textfile collector.
//!
//! Source: Prometheus, Exposition formats (text-based format). Without timestamps, which that collector refuses.

use crate::knobs;
use crate::plan::{Item, Plan};
use crate::resources::State;

/// The metrics; the same machine gives the same text.
pub(super) fn metrics(plan: &Plan, profile: &str, status: u8) -> String {
    let counts = plan.counts();
    let states = [
        ("in-line", counts.in_line),
        ("missing", counts.add),
        ("differs", counts.change),
        ("obsolete", counts.remove),
        ("reboot-pending", counts.reboot_pending),
        ("pending", counts.pending),
        ("waiting", counts.waiting),
        ("rejected", counts.rejected),
        ("foreign", counts.foreign),
        ("unverifiable", counts.unverifiable),
        ("by-hand", counts.by_hand),
        ("not-applicable", counts.not_applicable),
    ];
    let mut out = gauge("rtkvm_tune_settings", "Settings of the profile by how the machine stands to them.");
    for (state, count) in states {
        out += &format!("rtkvm_tune_settings{{state=\"{state}\"}} {count}\n");
    }
    out += &gauge("rtkvm_tune_knob_in_line", "Whether nothing of this knob is to be mended.");
    for knob in knobs::all() {
        let mut items = plan.items.iter().filter(|item| item.knob == knob.id).peekable();
        if items.peek().is_some() {
            let fine = u8::from(items.all(is_fine));
            out += &format!("rtkvm_tune_knob_in_line{{knob=\"{}\"}} {fine}\n", knob.id);
        }
    }
    out += &gauge("rtkvm_tune_needs_reboot", "Whether something wanted takes effect at the next boot only.");
    out += &format!("rtkvm_tune_needs_reboot {}\n", u8::from(plan.needs_reboot()));
    out += &gauge(
        "rtkvm_tune_status",
        "Exit status of verify: 0 in line, 1 differs, 3 nothing missing but a reboot.",
    );
    out += &format!("rtkvm_tune_status {status}\n");
    out += &gauge("rtkvm_tune_profile_info", "The profile that was audited.");
    out + &format!("rtkvm_tune_profile_info{{profile=\"{}\"}} 1\n", escaped(profile))
}

fn is_fine(item: &Item) -> bool {
    matches!(
        item.observed.state,
        State::InLine | State::Pending(_) | State::NotApplicable(_) | State::Unverifiable(_)
    )
}

fn gauge(name: &str, help: &str) -> String {
    format!("# HELP {name} {help}\n# TYPE {name} gauge\n")
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
