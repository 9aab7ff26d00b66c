//! `capture`: what the tool reads of a machine, as one reviewable text file.

use super::args::CaptureArgs;
use super::{Outcome, load};
use crate::facts::{Asked, Facts, Further};
use crate::formats::{CpuSet, HostPath};
use crate::host::{Read, Snapshot, print, write_output};
use crate::knobs::{self, PROFILE, UNIT, WANTED_BY};
use crate::plan::restore::Past;
use crate::plan::{self, Scope};
use crate::profile::{self, Parsed};

pub(super) fn run(args: &CaptureArgs) -> Outcome {
    let machine = load::machine(&args.root);
    let given = args.profile.as_deref().map(load::read_profile).transpose()?.map(|given| given.parsed);
    let snapshot = machine.snapshot()?.keeping_all();
    let facts = load::facts(&machine, &snapshot)?;
    read_ours(&snapshot);
    // Whatever the profile, and though no plan comes of it.
    Further::read(&snapshot, Asked { channels: true, free_threads: true });
    for parsed in given.or_else(|| kept(&snapshot)).into_iter().chain(everything(&facts)) {
        // Whatever comes of it: what planning reads is then in the snapshot, and nothing else, for the
        // definitions of other guests may hold passwords.
        let facts = load::with_guests(facts.clone(), &snapshot, &parsed);
        for scope in [Scope::Everything, Scope::Trial(0)] {
            let _ = plan::make(&snapshot, facts.clone(), &parsed, scope, &Past::default());
        }
    }
    let text = snapshot.to_capture();
    match &args.output {
        Some(path) => write_output(path, &text)?,
        None => print(&text)?,
    }
    Ok(0)
}

/// What an apply leaves on every machine. What is not there is not recorded.
fn read_ours(snapshot: &Snapshot) {
    let _ = snapshot.file(&HostPath::new(PROFILE));
    let _ = snapshot.file(&HostPath::new(UNIT));
    let _ = snapshot.link(&HostPath::new(WANTED_BY));
}

/// The profile that an apply kept, if it is one.
fn kept(snapshot: &Snapshot) -> Option<Parsed> {
    let file = snapshot.file(&HostPath::new(PROFILE)).ok()?;
    profile::parse(PROFILE, &file.bytes).ok()
}

/// A profile for which planning reads what any other could ask for: the boot CPU's core alone is kept. `None`
/// where there is no other core. Knobs that are off by default are on.
fn everything(facts: &Facts) -> Option<Parsed> {
    let boot: &CpuSet = &facts.cpus.core_of(facts.cpus.boot)?.cpus;
    let node = facts.numa.nodes.first()?;
    let page = node.pools.first().map_or("2MiB".into(), |pool| pool.page.to_string());
    let off = knobs::all().filter(|knob| knob.values.default.is_none());
    let lines = off.filter_map(|knob| Some(format!("\"{}\" = {}\n", knob.id, knob.values.example()?)));
    let text = format!(
        "[host]\nhousekeeping-cpus = \"{boot}\"\n\
         [host.hugepages]\nsize = \"{page}\"\ncount = {{ \"{}\" = 0 }}\n[knobs]\n{}",
        node.id,
        lines.collect::<String>()
    );
    profile::parse("everything", text.as_bytes()).ok()
}
