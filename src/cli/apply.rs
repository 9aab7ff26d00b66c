//! `apply`: make the machine as the profile says, or show what that would change.

use super::args::{ApplyArgs, Format};
use super::style::Style;
use super::{Outcome, load};
use crate::engine::{self, Report};
use crate::host::{self, Machine, Root, Writer, print, print_error, wants_color};
use crate::plan::text::printable;
use crate::plan::{Item, Options, Plan, Scope};
use nix::errno::Errno;

pub(super) fn run(args: &ApplyArgs) -> Outcome {
    let scope = match (args.runtime, args.trial) {
        (true, _) => Scope::Runtime,
        (_, true) => Scope::Trial(host::now()),
        _ => Scope::Everything,
    };
    let options = Options { scope, live: args.live };
    if args.dry_run {
        return dry_run(args, options);
    }
    let machine = load::machine(&args.plan.root);
    let profile = load::read_profile(&args.plan.profile)?;
    if let (true, Some(reason)) = (host::is_root(), &profile.untrusted) {
        return Err(format!("{}: {reason}. What root applies must be root's alone", args.plan.name()));
    }
    if matches!(machine, Machine::Live) && !host::is_root() {
        return Err("apply changes this machine and needs root; --dry-run shows the plan without".into());
    }
    let root = machine.root()?;
    let writer = lock(&machine, &root)?;
    // Planned under the lock, so that nothing changes between plan and apply.
    let plan = load::make_plan(&machine, &profile.parsed, options)?;
    engine::check(&plan, &root).map_err(|found| format!("nothing was written:\n  {}", found.join("\n  ")))?;
    let reports = engine::apply(&plan, &root, &writer);
    match load::plan_again(&machine, &profile.parsed, options) {
        Ok((after, _)) => report(args, &machine, &reports, &plan, &after),
        // What was done must be told whatever the machine looks like now.
        Err(error) => Err(format!("{}what is set now cannot be planned for:\n{error}", lines(&reports))),
    }
}

/// The write capability of a machine, for the one run that may have it.
pub(super) fn lock<'r>(machine: &Machine, root: &'r Root) -> Result<Writer<'r>, String> {
    Writer::lock(root).map_err(|errno| match errno {
        Errno::EWOULDBLOCK => format!("another rtkvm-tune is at work on {machine}: wait until it is done"),
        errno => format!("cannot take the lock of {machine}: {}", errno.desc()),
    })
}

pub(super) fn lines(reports: &[Report]) -> String {
    let lines: String = reports.iter().map(|report| format!("{report}\n")).collect();
    printable(&lines)
}

/// Only ever holds what reads: the machine's root is not opened for writing on this path.
fn dry_run(args: &ApplyArgs, options: Options) -> Outcome {
    let (machine, plan) = args.plan.plan(options)?;
    let name = args.plan.name();
    print(&match args.plan.format.format {
        Format::Text => {
            let patch = plan.patch();
            let gap = if patch.is_empty() { "" } else { "\n" };
            let text = format!("{}{gap}{patch}", plan.text(&name, &machine.to_string()));
            Style::new(wants_color()).plan(&text)
        }
        Format::Json => load::pretty(&load::json(&plan, &name, &machine)),
    })?;
    Ok(u8::from(args.exit_code && !plan.steps.is_empty()))
}

fn report(args: &ApplyArgs, machine: &Machine, reports: &[Report], before: &Plan, after: &Plan) -> Outcome {
    let open = |item: &Item| engine::left_open(reports, item);
    let failed = reports.iter().filter(|report| report.is_failure()).count();
    print(&match args.plan.format.format {
        Format::Text => {
            let open = after.settings_that("Still not in line", open);
            let summary = engine::summary(reports, before, after);
            let trial = printable(&before.failed_trial());
            format!("{trial}{}{open}{}{summary}\n", lines(reports), after.by_hand())
        }
        Format::Json => {
            let mut document = load::json(after, &args.plan.name(), machine);
            document["reports"] = serde_json::json!(reports);
            load::pretty(&document)
        }
    })?;
    if failed > 0 {
        print_error(&format!("error: {failed} of {} steps failed or were skipped\n", reports.len()));
        return Ok(2);
    }
    Ok(u8::from(after.items.iter().any(open)))
}
