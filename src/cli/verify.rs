//! `verify`: the machine against the profile.

mod junit;
mod prometheus;

use super::args::{AuditFormat, VerifyArgs};
use super::style::Style;
use super::{Outcome, load};
use crate::host::{print, replace_output, wants_color};
use crate::plan::{Plan, Scope};

pub(super) fn run(args: &VerifyArgs) -> Outcome {
    let profile = args.connect.read_profile(&args.profile)?;
    let machine = load::machine(&args.root);
    let plan = load::make_plan(&machine, &profile.parsed, Scope::Everything, &load::past(&machine)?)?;
    let name = args.profile.display().to_string();
    let status = status(&plan, args.strict);
    let text = match args.format {
        AuditFormat::Text => {
            let colored = args.output.is_none() && wants_color();
            Style::new(colored).plan(&plan.audit(&name, &machine.to_string()))
        }
        AuditFormat::Json => {
            let mut document = load::json(&plan, &name, &machine);
            document["status"] = status.into();
            document["findings"] = serde_json::json!(plan.findings(&name));
            load::pretty(&document)
        }
        AuditFormat::Junit => junit::document(&plan, &name, args.strict),
        AuditFormat::Prometheus => prometheus::metrics(&plan, &name, status),
    };
    match &args.output {
        Some(path) => replace_output(path, &text)?,
        None => print(&text)?,
    }
    Ok(status)
}

/// The exit status. What cannot be told is a difference to the strict alone.
fn status(plan: &Plan, strict: bool) -> u8 {
    match plan.status() {
        0 | 3 if strict && plan.counts().unverifiable > 0 => 1,
        status => status,
    }
}
