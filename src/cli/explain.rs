//! `explain`: what a knob is and why.

use super::Outcome;
use super::args::ExplainArgs;
use crate::host::print;
use crate::knobs::{self, KEEP, Knob, Numbers};

pub(super) fn run(args: &ExplainArgs) -> Outcome {
    let text = match &args.knob {
        None => knobs::all().map(line).collect(),
        Some(id) => match knobs::all().find(|knob| knob.id == id) {
            Some(knob) => explanation(knob),
            None if knobs::all().any(|knob| knob.area() == id) => {
                knobs::all().filter(|knob| knob.area() == id).map(line).collect()
            }
            None => return Err(format!("there is no knob `{id}`: {}", knobs::nearest(id))),
        },
    };
    print(&text)?;
    Ok(0)
}

fn line(knob: &Knob) -> String {
    let off = if knob.values.default.is_none() { "off" } else { "" };
    format!("{:28} {off:4} {}\n", knob.id, knob.summary)
}

fn explanation(knob: &Knob) -> String {
    let measured = match knobs::measured(knob.id) {
        Some(text) => format!(
            "\n\nMeasured in the machine of docs/latency.md, which says what the figures mean\n  {}",
            wrapped(&text)
        ),
        None => String::new(),
    };
    format!(
        "{}\n  {}\n\nWhy\n  {}{measured}\n\nTakes effect  {}\nDisruption    {}\nSince         {}\nChecked by    {}\nSource        {}\n\nValues under \
         [knobs]; without one it is {}\n{}",
        knob.id,
        knob.summary,
        wrapped(knob.why),
        match knob.reach {
            knobs::Reach::Live => "at once",
            knobs::Reach::Reboot => "at the next boot",
            knobs::Reach::GuestRestart => "at the next start of the guest",
            knobs::Reach::Check => "a check: nothing is set",
        },
        knob.disruption.name(),
        knob.since,
        knob.check,
        knob.source,
        knob.values.default_text(),
        values(knob)
    )
}

/// Text in lines below a title.
fn wrapped(text: &str) -> String {
    let lines = text.split_whitespace().fold(vec![String::new()], |mut lines, word| {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 86 => {
                line.push_str(if line.is_empty() { "" } else { " " });
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
        lines
    });
    lines.join("\n  ")
}

/// A line for each value, as a profile has it.
fn values(knob: &Knob) -> String {
    let id = knob.id;
    let mut lines = Vec::new();
    for word in knob.values.words {
        lines.push((format!("\"{id}\" = \"{}\"", word.name), word.meaning.to_owned()));
        lines.extend(word.warning.map(|warning| (String::new(), format!("warning: {warning}"))));
    }
    if let Some(Numbers { range, unit }) = &knob.values.numbers {
        let text = format!("or another number from {} to {} {unit}", range.start(), range.end());
        lines.push((format!("\"{id}\" = {}", range.start()), text.trim_end().to_owned()));
    }
    lines.push((format!("\"{id}\" = \"{KEEP}\""), "as the machine has it".into()));
    let width = lines.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    lines.iter().map(|(left, right)| format!("  {left:width$}  {right}\n")).collect()
}
