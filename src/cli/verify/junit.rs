//! An audit as JUnit XML, which test systems show: a suite for each area, a case for each setting.
//!
//! Source: <https://github.com/testmoapp/junitxml>, the common part of what programs read.

use crate::knobs;
use crate::plan::Plan;
use crate::plan::findings::Finding;
use crate::resources::State;
use std::fmt::Write;

/// The document. A difference is a failure; what cannot be set or told is skipped, the latter a failure to the strict, and so
/// are a check that is not met, and what waits for its interrupt: they change no exit status either.
/// There are no times in it: the same machine gives the same text.
pub(super) fn document(plan: &Plan, profile: &str, strict: bool) -> String {
    let findings = plan.findings(profile);
    let mut areas: Vec<&str> = knobs::all().map(knobs::Knob::area).collect();
    areas.dedup();
    let mut suites = String::new();
    let mut totals = (0, 0, 0);
    for area in areas {
        let (mut tests, mut failures, mut skipped) = (0, 0, 0);
        let mut cases = String::new();
        for item in plan.items.iter().filter(|item| item.knob.split('.').next() == Some(area)) {
            tests += 1;
            let case = format!(
                "    <testcase classname=\"{}\" name=\"{}\"",
                escaped(item.knob),
                escaped(&item.label)
            );
            let finding = findings.iter().find(|finding| std::ptr::eq(finding.item, item));
            cases += &match (&item.observed.state, finding) {
                (State::NotApplicable(why), _) => {
                    skipped += 1;
                    format!("{case}><skipped message=\"{}\"/></testcase>\n", escaped(why))
                }
                (State::ByHand(why), _) if item.is_check() => {
                    skipped += 1;
                    format!("{case}><skipped message=\"unmet: {}\"/></testcase>\n", escaped(why))
                }
                (State::Pending(why), _) => {
                    skipped += 1;
                    format!("{case}><skipped message=\"pending: {}\"/></testcase>\n", escaped(why))
                }
                (State::Unverifiable(why), _) if !strict || item.is_check() => {
                    skipped += 1;
                    format!("{case}><skipped message=\"cannot be told: {}\"/></testcase>\n", escaped(why))
                }
                (_, None) => format!("{case}/>\n"),
                (_, Some(finding)) => {
                    failures += 1;
                    format!("{case}>{}</testcase>\n", failure(finding))
                }
            };
        }
        if tests > 0 {
            suites += &format!(
                "  <testsuite name=\"{area}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" \
                 skipped=\"{skipped}\">\n{cases}  </testsuite>\n"
            );
        }
        totals = (totals.0 + tests, totals.1 + failures, totals.2 + skipped);
    }
    let (tests, failures, skipped) = totals;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"rtkvm-tune verify {}\" tests=\"{tests}\" \
         failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">\n{suites}</testsuites>\n",
        escaped(profile)
    )
}

fn failure(finding: &Finding) -> String {
    let none = || "none".to_owned();
    let observed = &finding.item.observed;
    let state = serde_json::to_value(&observed.state).unwrap_or_default();
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "wanted: {}\nnext boot: {}\nrunning: {}\nread from: {}\n",
        finding.item.wanted,
        observed.next_boot.clone().unwrap_or_else(none),
        observed.running.clone().unwrap_or_else(none),
        finding.read_from
    );
    if let Some(reason) = state["reason"].as_str() {
        text += &format!("reason: {reason}\n");
    }
    text += &format!("why: {}\nremedy: {}\n", finding.why, finding.remedy);
    let kind = state["state"].as_str().unwrap_or_default();
    let message = format!("{kind}, wanted {}", finding.item.wanted);
    format!("<failure type=\"{kind}\" message=\"{}\">{}</failure>", escaped(&message), escaped(&text))
}

/// Text as XML takes it: what is no character of XML becomes one that says so.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' => out.push('\n'),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
