//! `verify`: the machine against the profile.

use super::args::{Format, VerifyArgs};
use super::style::Style;
use super::{Outcome, load};
use crate::host::{print, wants_color};
use crate::plan::Scope;

pub(super) fn run(args: &VerifyArgs) -> Outcome {
    let (machine, plan) = args.plan.plan(Scope::Everything)?;
    let name = args.plan.name();
    print(&match args.plan.format.format {
        Format::Text => Style::new(wants_color()).plan(&plan.audit(&name, &machine.to_string())),
        Format::Json => load::pretty(&load::json(&plan, &name, &machine)),
    })?;
    Ok(plan.status())
}
