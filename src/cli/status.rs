//! `status`: what earlier runs left on a machine, and whether a boot brings what they set.

use super::args::{Format, StatusArgs};
use super::{Outcome, load};
use crate::engine;
use crate::facts::trial::Standing;
use crate::formats::time;
use crate::host::{Machine, print};
use crate::plan::text::printable;
use crate::plan::{Plan, Scope};
use crate::profile::{self, Parsed};
use crate::resources::State;

pub(super) fn run(args: &StatusArgs) -> Outcome {
    let machine = load::machine(&args.root);
    let past = load::past(&machine)?;
    let parsed = match (&args.profile, &past.state.applied) {
        (Some(path), _) => Some(load::read_profile(path)?.parsed),
        (None, Some(applied)) => Some(kept(&applied.name, &applied.text)?),
        (None, None) => None,
    };
    if args.needs_reboot {
        let parsed = parsed.ok_or_else(|| {
            let hidden: String = past.notes.iter().map(|note| format!("; {note}")).collect();
            format!("no profile is known to be applied to {machine}: name one{hidden}")
        })?;
        let plan = load::make_plan(&machine, &parsed, Scope::Everything, &past)?;
        return Ok(u8::from(!boot_helps(&plan)));
    }
    let facts = load::facts(&machine, &machine.snapshot()?)?;
    let trial = facts.trial.standing(&facts.kernel).map(|(trial, standing)| {
        let how = match standing {
            Standing::Armed => "the next boot tries it".to_owned(),
            Standing::Disarmed(why) => format!("it is not tried: {why}"),
            Standing::Running => "it runs, and is not confirmed yet".to_owned(),
            Standing::Failed(why) => format!("it failed: {why}"),
        };
        (time::utc(trial.asked), how)
    });
    let interrupted = interrupted(&machine);
    let reboot = parsed
        .map(|parsed| load::make_plan(&machine, &parsed, Scope::Everything, &past))
        .transpose()?
        .map(|plan| boot_helps(&plan));
    let last = past.state.history.last();
    let applied = past.state.applied.as_ref();
    print(&match args.format.format {
        Format::Json => load::pretty(&serde_json::json!({
            "schema": 1,
            "machine": machine.to_string(),
            "applied": applied.map(|applied| serde_json::json!({"profile": applied.name, "sha256": applied.sha256})),
            "last_run": last,
            "interrupted": interrupted,
            "trial": trial.as_ref().map(|(asked, how)| serde_json::json!({"asked": asked, "standing": how})),
            "needs_reboot": reboot,
            "notes": past.notes,
        })),
        Format::Text => {
            let line = |name: &str, text: &str| format!("{name:14}{text}\n");
            let mut out = line("Machine", &machine.to_string());
            out += &line("Applied", applied.map_or("nothing", |applied| &applied.name));
            if let Some(last) = last {
                out += &line("Last run", &format!("{} at {}", last.run.verb, last.run.began.time));
            }
            if let Some((asked, how)) = &trial {
                out += &line("Trial", &format!("of {asked}: {how}"));
            }
            out += &line("Interrupted", if interrupted { "a run: rtkvm-tune recover" } else { "none" });
            out += &line(
                "Reboot",
                match reboot {
                    Some(true) => "needed",
                    Some(false) => "not needed",
                    None => "not known: no profile is applied",
                },
            );
            out += &past.notes.iter().map(|note| line("Note", note)).collect::<String>();
            printable(&out)
        }
    })?;
    Ok(0)
}

/// Whether a boot brings something that was set for it.
fn boot_helps(plan: &Plan) -> bool {
    plan.items.iter().any(|item| item.observed.state == State::RebootPending)
}

fn interrupted(machine: &Machine) -> bool {
    let (Machine::Live | Machine::Tree(_)) = machine else { return false };
    machine.root().is_ok_and(|root| matches!(engine::interrupted(&root), Ok(Some(_))))
}

fn kept(name: &str, text: &str) -> Result<Parsed, String> {
    profile::parse(name, text.as_bytes()).map_err(|failed| load::shown(&failed.diagnostics, &failed.source))
}
