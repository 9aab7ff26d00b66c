//! The result as Markdown.

use std::collections::{BTreeMap, BTreeSet};

use rtkvm_tune::formats::CpuSet;

use super::sample::{Kind, Sample};
use super::trace::{Causes, Counts};
use super::{Load, Measured};

/// How many causes of each state are named for each load, the most frequent first.
const CAUSES: usize = 12;
/// Up to how many different counts are named one by one.
const GROUPS: usize = 3;

/// Everything that was measured: totals of each CPU, kinds, causes.
pub(super) fn report(measured: &[Measured], isolated: &CpuSet, busy: &CpuSet) -> String {
    let seconds = measured.iter().flat_map(|state| &state.samples).map(|(_, sample)| sample.seconds);
    let seconds = seconds.fold(0.0, f64::max);
    let mut out = String::new();
    for state in measured {
        out += &format!("- {}: {}; `{}`\n", state.label, state.versions, state.command_line);
    }
    out += &format!(
        "- Isolated CPUs {isolated}, busy loops on {busy}, load on the others; {seconds:.0} seconds for each load. \
         The machine is emulated (QEMU TCG): times mean nothing, counts do.\n\n"
    );
    out += &totals(measured, isolated);
    out += &kinds(measured, isolated, busy);
    out += &causes(measured);
    out
}

fn sample(state: &Measured, load: Load) -> Option<&Sample> {
    state.samples.iter().find(|(of, _)| *of == load).map(|(_, sample)| sample)
}

fn head(first: &str, columns: impl Iterator<Item = String>) -> String {
    let columns: Vec<String> = columns.collect();
    format!("| {first} | {} |\n|---|{}\n", columns.join(" | "), "---|".repeat(columns.len()))
}

/// Interrupts and context switches of each CPU.
fn totals(measured: &[Measured], isolated: &CpuSet) -> String {
    let mut out = "### Interrupts and context switches of each isolated CPU\n\n".to_owned();
    let column = |load: Load| measured.iter().map(move |state| format!("{}, {}", load.title(), state.label));
    out += &head("CPU", Load::ALL.into_iter().flat_map(column));
    for cpu in isolated.iter() {
        let cell = |load: Load, state: &Measured| {
            let Some(sample) = sample(state, load) else { return String::new() };
            let on = |counts: &Counts| counts.get(&cpu).copied().unwrap_or(0);
            let switches = sample.kinds.get(&Kind::Switch).map_or(0, on);
            format!("{} / {switches}", on(&interrupts(sample)))
        };
        let cells: Vec<String> = Load::ALL
            .into_iter()
            .flat_map(|load| measured.iter().map(move |state| cell(load, state)))
            .collect();
        out += &format!("| {cpu} | {} |\n", cells.join(" | "));
    }
    out
}

/// The sum over all lines of /proc/interrupts.
fn interrupts(sample: &Sample) -> Counts {
    let mut sum = Counts::new();
    for counts in
        sample.kinds.iter().filter(|(kind, _)| matches!(kind, Kind::Interrupt(_))).map(|(_, counts)| counts)
    {
        for (cpu, count) in counts {
            *sum.entry(*cpu).or_default() += count;
        }
    }
    sum
}

/// Every kind of interruption that any state had, the CPUs of the busy loops apart from the others.
fn kinds(measured: &[Measured], isolated: &CpuSet, busy: &CpuSet) -> String {
    let mut out = "\n### Each kind: how often, and on which CPUs\n\n".to_owned();
    out += &head("kind", measured.iter().map(|state| state.label.clone()));
    for load in Load::ALL {
        let rest = isolated.difference(busy);
        let groups = match load {
            Load::Idle => vec![(isolated.clone(), load.title().to_owned())],
            _ => vec![
                (busy.clone(), format!("{}, CPUs {busy}", load.title())),
                (rest, format!("{}, the others", load.title())),
            ],
        };
        for (cpus, title) in groups {
            let empty = vec![String::new(); measured.len()];
            out += &format!("| **{title}** | {} |\n", empty.join(" | "));
            let mut row = |name: &str, counts: &dyn Fn(&Sample) -> Counts| {
                let cells = measured.iter().map(|state| {
                    sample(state, load).map_or_else(String::new, |sample| spread(&on(&counts(sample), &cpus)))
                });
                out += &format!("| {name} | {} |\n", cells.collect::<Vec<_>>().join(" | "));
            };
            row("all interrupts", &interrupts);
            let samples = measured.iter().filter_map(|state| sample(state, load));
            let seen: BTreeSet<&Kind> = samples
                .flat_map(|sample| sample.kinds.iter())
                .filter(|(_, counts)| !on(counts, &cpus).is_empty())
                .map(|(kind, _)| kind)
                .collect();
            for kind in seen {
                let name = match kind {
                    Kind::Interrupt(line) => format!("interrupt {line}"),
                    Kind::Softirq(line) => format!("softirq {line}"),
                    Kind::Switch => "context switches".to_owned(),
                    Kind::Preempted => "loop preempted".to_owned(),
                };
                row(&name, &|sample| sample.kinds.get(kind).cloned().unwrap_or_default());
            }
        }
    }
    out
}

/// What the trace names.
fn causes(measured: &[Measured]) -> String {
    let mut out = "\n### What the trace names\n\n".to_owned();
    for state in measured {
        for (load, sample) in state.samples.iter().filter(|(_, sample)| sample.dropped > 0) {
            out += &format!(
                "- {}, {}: the trace had no room for {} further events; this is the beginning.\n",
                state.label,
                load.title(),
                sample.dropped
            );
        }
    }
    for (title, of) in [
        ("ran on an isolated CPU", (|sample| &sample.ran) as fn(&Sample) -> &Causes),
        ("made it run (function < its callers)", |sample| &sample.sent),
    ] {
        out.push('\n');
        out += &head(title, measured.iter().map(|state| state.label.clone()));
        for load in Load::ALL {
            let mut most: BTreeMap<&str, u64> = BTreeMap::new();
            for sample in measured.iter().filter_map(|state| sample(state, load)) {
                let total = |(what, counts): (_, &Counts)| (counts.values().sum::<u64>(), what);
                let mut frequent: Vec<(u64, &String)> = of(sample).iter().map(total).collect();
                frequent.sort_unstable_by(|a, b| b.cmp(a));
                for (count, what) in frequent.into_iter().take(CAUSES) {
                    let there = most.entry(what).or_default();
                    *there = count.max(*there);
                }
            }
            let mut rows: Vec<(&str, u64)> = most.into_iter().collect();
            rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let empty = vec![String::new(); measured.len()];
            out += &format!("| **{}** | {} |\n", load.title(), empty.join(" | "));
            for (what, _) in rows {
                let cell = |state| {
                    sample(state, load).map_or_else(String::new, |sample| {
                        of(sample).get(what).map_or_else(|| "0".to_owned(), spread)
                    })
                };
                let cells: Vec<String> = measured.iter().map(cell).collect();
                out += &format!("| {what} | {} |\n", cells.join(" | "));
            }
        }
    }
    out
}

fn on(counts: &Counts, cpus: &CpuSet) -> Counts {
    counts.iter().filter(|(cpu, _)| cpus.contains(**cpu)).map(|(cpu, count)| (*cpu, *count)).collect()
}

/// Counts and their CPUs: `120 on 2, 1 on 3-7`; with many different ones `96 to 665 on 2-7`.
fn spread(counts: &Counts) -> String {
    let mut groups: BTreeMap<u64, CpuSet> = BTreeMap::new();
    for (cpu, count) in counts.iter().filter(|(_, count)| **count > 0) {
        groups.entry(*count).or_default().insert(*cpu);
    }
    match (groups.first_key_value(), groups.last_key_value()) {
        (Some((least, _)), Some((most, _))) if groups.len() > GROUPS => {
            let cpus = groups.values().fold(CpuSet::new(), |all, cpus| all.union(cpus));
            format!("{least} to {most} on {cpus}")
        }
        (None, _) | (_, None) => "0".to_owned(),
        _ => {
            let group = |(count, cpus): (&u64, &CpuSet)| format!("{count} on {cpus}");
            groups.iter().rev().map(group).collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(u32, u64)]) -> Counts {
        pairs.iter().copied().collect()
    }

    #[test]
    fn counts_are_grouped_or_given_as_a_range() {
        assert_eq!(spread(&counts(&[])), "0");
        assert_eq!(spread(&counts(&[(2, 0)])), "0");
        assert_eq!(spread(&counts(&[(2, 120), (3, 1), (4, 1), (5, 1), (7, 1)])), "120 on 2, 1 on 3-5,7");
        assert_eq!(spread(&counts(&[(2, 96), (3, 97), (4, 98), (7, 665)])), "96 to 665 on 2-4,7");
    }

    fn measured(label: &str, counts: &[(Kind, Counts)], ran: &[(&str, Counts)], dropped: u64) -> Measured {
        let sample = |load| {
            let kinds = counts.iter().cloned().collect();
            let ran = ran.iter().map(|(what, counts)| (what.to_string(), counts.clone())).collect();
            (load, Sample { seconds: 60.4, kinds, ran, sent: Causes::new(), dropped })
        };
        Measured {
            label: label.to_owned(),
            versions: "Linux 6.1".to_owned(),
            command_line: "quiet".to_owned(),
            samples: Load::ALL.into_iter().map(sample).collect(),
        }
    }

    #[test]
    fn states_stand_side_by_side() {
        let line = |name: &str| Kind::Interrupt(name.to_owned());
        let untuned = [
            (line("LOC Local timer interrupts"), counts(&[(2, 100), (5, 900)])),
            (line("RES Rescheduling interrupts"), counts(&[(2, 7)])),
            (Kind::Switch, counts(&[(2, 55)])),
        ];
        let ran = [("hrtimer tick_sched_timer", counts(&[(2, 99)]))];
        let ours = [(Kind::Softirq("TIMER".to_owned()), counts(&[(5, 1)]))];
        let isolated = CpuSet::parse_list("2,5").unwrap();
        let busy = CpuSet::parse_list("5").unwrap();
        let text = report(
            &[measured("untuned", &untuned, &ran, 3), measured("ours", &ours, &[], 0)],
            &isolated,
            &busy,
        );
        for expected in [
            "60 seconds for each load",
            "| CPU | idle, untuned | idle, ours | SCHED_FIFO loop, untuned |",
            "| 2 | 107 / 55 | 0 / 0 | 107 / 55 |",
            "| kind | untuned | ours |\n|---|---|---|\n| **idle** |  |  |\n\
             | all interrupts | 900 on 5, 107 on 2 | 0 |\n\
             | interrupt LOC Local timer interrupts | 900 on 5, 100 on 2 | 0 |\n",
            "| **SCHED_FIFO loop, CPUs 5** |  |  |\n| all interrupts | 900 on 5 | 0 |\n\
             | interrupt LOC Local timer interrupts | 900 on 5 | 0 |\n| softirq TIMER | 0 | 1 on 5 |\n",
            "| hrtimer tick_sched_timer | 99 on 2 | 0 |",
            "- untuned, idle: the trace had no room for 3 further events",
        ] {
            assert!(text.contains(expected), "{expected}\nis not in\n{text}");
        }
    }
}
