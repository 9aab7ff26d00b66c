//! `recover`: finish or take back a run that was interrupted.

use super::args::{Format, RecoverArgs};
use super::{Outcome, change, load};
use crate::engine::{self, Recovered, Report};
use crate::host::print;
use crate::plan::text::printable;
use serde_json::json;

pub(super) fn run(args: &RecoverArgs) -> Outcome {
    let machine = load::machine(&args.root);
    let recovered =
        change::under_lock(&machine, "recover", &args.wait, |root, writer, _| engine::recover(root, writer))?;
    print(&match args.format.format {
        Format::Text => text(&recovered),
        Format::Json => load::pretty(&document(&recovered, &machine.to_string())),
    })?;
    match recovered {
        Recovered::RolledBack { whole: false, .. } => {
            Err("it could not be taken back whole: mend the cause, then run `rtkvm-tune recover` again"
                .into())
        }
        Recovered::RolledBack { reports, .. } => Ok(u8::from(reports.iter().any(Report::is_refusal))),
        Recovered::Nothing | Recovered::Finished(_) => Ok(0),
    }
}

fn text(recovered: &Recovered) -> String {
    match recovered {
        Recovered::Nothing => "Nothing to recover: no run was interrupted.\n".into(),
        Recovered::Finished(journal) => {
            let run = &journal.run;
            format!("The {} of {} was carried out before it was interrupted.\n", run.verb, run.began.time)
        }
        Recovered::RolledBack { journal, reports, notes, whole } => {
            let run = &journal.run;
            let notes: String = notes.iter().map(|note| format!("  {note}\n")).collect();
            let all = notes.is_empty() && !reports.iter().any(Report::is_refusal);
            let end = match (whole, all) {
                (false, _) => "is not yet taken back whole",
                (true, true) => "is taken back: everything is as it was before it",
                (true, false) => "is taken back, but for what is named above",
            };
            let lines = change::lines(reports);
            printable(&format!("{lines}{notes}The {} of {} {end}.\n", run.verb, run.began.time))
        }
    }
}

fn document(recovered: &Recovered, machine: &str) -> serde_json::Value {
    let mut document = json!({"schema": 1, "machine": machine});
    match recovered {
        Recovered::Nothing => document["outcome"] = json!("nothing"),
        Recovered::Finished(journal) => {
            document["outcome"] = json!("finished");
            document["run"] = json!(journal.run);
        }
        Recovered::RolledBack { journal, reports, notes, whole } => {
            document["outcome"] = json!(if *whole { "rolled-back" } else { "stuck" });
            document["run"] = json!(journal.run);
            document["reports"] = json!(reports);
            document["notes"] = json!(notes);
        }
    }
    document
}
