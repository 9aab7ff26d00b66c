//! `apply`: make the machine as the profile says, or show what that would change.

use super::args::{ApplyArgs, Format};
use super::change::{self, Applying, Carried};
use super::style::Style;
use super::{Outcome, load};
use crate::engine;
use crate::host::{self, Machine, print, print_error, wants_color};
use crate::plan::diff::patch;
use crate::plan::text::printable;
use crate::plan::{Item, Options, Plan, Scope};

pub(super) fn run(args: &ApplyArgs) -> Outcome {
    let scope = match (args.runtime, args.trial) {
        (true, _) => Scope::Runtime,
        (_, true) => Scope::Trial(host::now()),
        _ => Scope::Everything,
    };
    let options = Options { scope, live: args.live, take_over: args.take_over };
    if args.dry_run {
        return dry_run(args, options);
    }
    let machine = load::machine(&args.plan.root);
    change::under_lock(&machine, "apply", &args.wait, |root, writer, signals| {
        // Under the lock: a run that is taken back, which this one may have waited for, gives its profile back.
        let profile = args.plan.connect.read_profile(&args.plan.profile)?;
        if let (true, Some(reason)) = (host::is_root(), &profile.untrusted) {
            return Err(format!("{}: {reason}. What root applies must be root's alone", args.plan.name()));
        }
        let apply = Applying {
            verb: match scope {
                Scope::Runtime => "apply --runtime",
                Scope::Trial(_) => "apply --trial",
                Scope::Everything => "apply",
            },
            options,
            machine: &machine,
            name: args.plan.name(),
            parsed: &profile.parsed,
            keep_going: args.keep_going,
        };
        let mut done = apply.carry_out(root, writer, signals)?;
        if engine::needs_another(&done.plan, &done.reports) && change::not_done(&done.end).is_none() {
            let again = apply.carry_out(root, writer, signals);
            let again = again.map_err(|error| format!("{}{error}", change::lines(&done.reports)))?;
            done.reports.extend(again.reports);
            done.end = again.end;
            done.unanswered = again.unanswered;
        }
        // Nothing was done: the machine is as it was planned for.
        if done.plan.steps.is_empty() {
            return report(args, &machine, &done, &done.plan);
        }
        match load::plan_again(&machine, &profile.parsed, options, &change::past(root)?) {
            Ok((after, _)) => report(args, &machine, &done, &after),
            // What was done must be told whatever the machine looks like now.
            Err(error) => {
                let taken = change::not_done(&done.end).map_or(String::new(), |(text, _)| text);
                let lines = change::lines(&done.reports);
                Err(format!("{lines}{taken}what is set now cannot be planned for:\n{error}"))
            }
        }
    })
}

fn report(args: &ApplyArgs, machine: &Machine, done: &Carried, after: &Plan) -> Outcome {
    let Carried { plan: before, reports, end, unanswered } = done;
    let open = |item: &Item| engine::left_open(reports, item);
    let failed = reports.iter().filter(|report| report.is_failure()).count();
    let not_done = change::not_done(end);
    print(&match (args.plan.format.format, &not_done) {
        (Format::Text, Some((taken, _))) => {
            let summary = format!("Not applied: {failed} of {} steps failed or were skipped.", reports.len());
            format!("{}{taken}{summary}\n", change::lines(reports))
        }
        (Format::Text, None) => {
            let trial = printable(&before.failed_trial());
            let open = after.settings_that("Still not in line", open);
            let summary = engine::summary(reports, before, after);
            let moved = engine::moved_back(reports, after).unwrap_or_default();
            let carried_out = before.steps.iter().zip(reports).filter(|(_, report)| !report.is_failure());
            let guests = match before.redefined(carried_out.map(|(step, _)| step)) {
                guests if guests.is_empty() => guests,
                guests => guests + "\n",
            };
            let lines = change::lines(reports);
            format!("{trial}{lines}{open}{moved}{}{guests}{summary}\n", after.by_hand())
        }
        (Format::Json, _) => {
            let mut document = load::json(after, &args.plan.name(), machine);
            document["reports"] = serde_json::json!(reports);
            document["end"] = change::end_json(end);
            document["libvirt"] = serde_json::json!(unanswered);
            load::pretty(&document)
        }
    })?;
    if let Some((_, error)) = not_done {
        return Err(error);
    }
    if failed > 0 {
        print_error(&format!("error: {failed} of {} steps failed or were skipped\n", reports.len()));
        return Ok(2);
    }
    if let Some(why) = unanswered {
        let what = "libvirt does not answer: the guests are as they were, everything else is applied. Mend it and apply again";
        print_error(&printable(&format!("error: {what}\n  {}\n", why.replace('\n', "\n  "))));
        return Ok(change::UNANSWERED);
    }
    Ok(u8::from(after.items.iter().any(open)))
}

/// Only ever holds what reads: the machine's root is not opened for writing on this path.
fn dry_run(args: &ApplyArgs, options: Options) -> Outcome {
    let (machine, plan) = args.plan.plan(options)?;
    let name = args.plan.name();
    print(&match args.plan.format.format {
        Format::Text => {
            let patch = patch(&plan.steps);
            let gap = if patch.is_empty() { "" } else { "\n" };
            let text = format!("{}{gap}{patch}", plan.text(&name, &machine.to_string()));
            Style::new(wants_color()).plan(&text)
        }
        Format::Json => load::pretty(&load::json(&plan, &name, &machine)),
    })?;
    let status = u8::from(args.exit_code && !plan.steps.is_empty());
    // As with what was read: the end of the process takes it down in less time.
    std::mem::forget(plan);
    Ok(status)
}
