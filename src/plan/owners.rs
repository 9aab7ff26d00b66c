//! Others that set what this program sets: what stands in the way, and how it is taken over.

use super::{Asked, Item, Step};
use crate::facts::boot::RT_CONF;
use crate::facts::owners::{TUNED_ARGUMENTS, TUNED_UNIT};
use crate::facts::{Facts, Tuned};
use crate::formats::HostPath;
use crate::host::{Program, Read};
use crate::knobs::TUNED_KNOB;
use crate::resources::{Arguments, Resource, State};

/// The facts as they are once rt-conf's drop-in is taken over, and the step that removes it.
pub(super) fn without_rt_conf(host: &dyn Read, mut facts: Facts) -> (Facts, Vec<Step>) {
    let Some(before) = facts.boot.rt_conf().map(str::to_owned) else { return (facts, Vec::new()) };
    let path = HostPath::new(RT_CONF);
    let mode = host.file(&path).map_or(0o644, |file| file.mode);
    facts.boot = facts.boot.without_rt_conf();
    (facts, vec![Step::File { path, before: Some(before), after: None, mode, metadata: None }])
}

/// What apply refuses to work against, each with the choice there is.
pub(super) fn conflicts(facts: &Facts, asked: &[Asked], items: &[Item], take_over: bool) -> Vec<String> {
    let arguments = asked.iter().zip(items).filter_map(|(asked, item)| argument(asked, item, take_over));
    let tuned = facts.owners.tuned.as_ref();
    let active = tuned.and_then(|tuned| active(tuned, asked, items, take_over));
    let left = tuned.and_then(|tuned| left_behind(tuned, asked));
    arguments.chain(active).chain(left).collect()
}

/// An argument of ours that something else sets as well.
fn argument(asked: &Asked, item: &Item, take_over: bool) -> Option<String> {
    let arguments = written(asked)?;
    let conflict = arguments.conflict.as_ref()?;
    // Ours comes last: once it is there nothing is in its way.
    let settled = matches!(item.observed.state, State::InLine | State::RebootPending);
    if take_over && conflict.replaced || arguments.wins() && (take_over || settled) {
        return None;
    }
    let take_over = match (conflict.file == RT_CONF, arguments.wins()) {
        (true, _) => " let `apply --take-over` remove that file,",
        _ if conflict.replaced => " let `apply --take-over` put ours in its place until a revert,",
        (_, true) => {
            " let ours, which comes later and so is in force, stand beside it by `apply --take-over`,"
        }
        _ => "",
    };
    let knob = asked.knob;
    Some(format!(
        "{conflict}: take it out there,{take_over} or leave it as it is by `\"{}\" = \"keep\"` (or all of `\"{}\"`) under \
         [knobs]",
        knob.id,
        knob.area()
    ))
}

/// TuneD, at work.
fn active(tuned: &Tuned, asked: &[Asked], items: &[Item], take_over: bool) -> Option<String> {
    let (_, item) = asked.iter().zip(items).find(|(asked, _)| asked.knob.id == TUNED_KNOB)?;
    if !tuned.is_active() {
        return None;
    }
    let how = match tuned.pid {
        Some(pid) => format!("is at work (PID {pid})"),
        None => "starts at boot".into(),
    };
    let says = format!("TuneD {how} with profile {} and sets some of the same values", tuned.profile);
    let keep = format!("leave both as they are by `\"{TUNED_KNOB}\" = \"keep\"` under [knobs]");
    match &item.observed.state {
        _ if tuned.own_unit => Some(format!(
            "{says}; {TUNED_UNIT} is in the place of a mask: end TuneD by `tuned-adm off` and `systemctl disable --now \
             tuned`, or {keep}"
        )),
        State::Waiting(why) => Some(format!("{says}. To stop it waits: {why}; or {keep}")),
        _ if take_over => None,
        _ => Some(format!("{says}: let `apply --take-over` stop and mask it until a revert, or {keep}")),
    }
}

/// Arguments that TuneD left in the boot entries when it went.
fn left_behind(tuned: &Tuned, asked: &[Asked]) -> Option<String> {
    if tuned.is_active() {
        return None;
    }
    let ours = asked.iter().filter_map(written).flat_map(|arguments| &arguments.arguments);
    let other = ours.flat_map(|argument| {
        let values = tuned.arguments.values(argument.name()).into_iter();
        values.map(|value| {
            value.map_or(argument.name().to_owned(), |value| format!("{}={value}", argument.name()))
        })
    });
    let other = other.into_iter().next()?;
    Some(format!(
        "{other} is given to every boot entry by {TUNED_ARGUMENTS} (`$tuned_params`), which TuneD left behind: empty its \
         TUNED_BOOT_CMDLINE and run `update-grub`"
    ))
}

fn written(asked: &Asked) -> Option<&Arguments> {
    match &asked.setting.resource {
        Resource::Arguments(arguments) if arguments.written => Some(arguments),
        _ => None,
    }
}

/// TuneD goes before anything of ours is set: it takes back what it set when it ends.
pub(super) fn tuned_first(facts: &Facts, steps: Vec<Step>) -> Vec<Step> {
    let is_mask = |step: &Step| matches!(step, Step::Link { path, .. } if path.as_str() == TUNED_UNIT);
    let (mut first, mut rest): (Vec<_>, Vec<_>) = steps.into_iter().partition(is_mask);
    if first.is_empty() {
        return rest;
    }
    let reload = Step::Run { program: Program::DaemonReload };
    if !rest.iter().any(|step| matches!(step, Step::File { .. } | Step::Link { .. })) {
        rest.retain(|step| *step != reload);
    }
    first.push(reload);
    if facts.owners.tuned.as_ref().is_some_and(|tuned| tuned.pid.is_some()) {
        first.push(Step::Run { program: Program::StopTuned });
    }
    first.extend(rest);
    first
}
