//! What the machine printed, as numbers, and the tables of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use rtkvm_tune::formats::CpuSet;

use super::super::noise::sample::{self, Kind};

/// The isolated processor.
const CPU: u32 = 1;
/// The programs, in the order they run.
const PROGRAMS: [&str; 2] = ["cyclictest", "oslat"];
/// Upper ends of the histogram's rows, in microseconds.
const ROWS: [u64; 12] = [5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 1000, u64::MAX];

/// What one program measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Latency {
    /// Microseconds.
    pub(super) minimum: u64,
    /// Microseconds: of cyclictest from its histogram, which is finer than what it prints.
    pub(super) average: f64,
    /// Microseconds.
    pub(super) maximum: u64,
    /// How often each latency was measured, by microseconds.
    pub(super) histogram: BTreeMap<u64, u64>,
    /// What happened on the isolated processor meanwhile.
    pub(super) kinds: BTreeMap<Kind, u64>,
}

/// One boot.
#[derive(Debug, PartialEq)]
pub(super) struct Measured {
    /// The kernel's.
    pub(super) command_line: String,
    /// Of [`PROGRAMS`].
    pub(super) programs: Vec<Latency>,
}

impl Latency {
    fn count(&self, counts: impl Fn(&Kind) -> bool) -> u64 {
        self.kinds.iter().filter(|(kind, _)| counts(kind)).map(|(_, count)| count).sum()
    }

    /// What all but one of 10,000 measurements are at most, in microseconds: chance has less part in it than in the maximum.
    fn all_but_a_few(&self) -> u64 {
        let mut above = self.histogram.values().sum::<u64>() / 10_000;
        for (at, (latency, count)) in self.histogram.iter().rev().enumerate() {
            match above.checked_sub(*count) {
                Some(left) => above = left,
                // The last row has what is beyond it, too.
                None if at == 0 => return self.maximum,
                None => return *latency,
            }
        }
        0
    }

    fn interrupts(&self) -> u64 {
        self.count(|kind| matches!(kind, Kind::Interrupt(_)))
    }

    fn softirqs(&self) -> u64 {
        self.count(|kind| matches!(kind, Kind::Softirq(_)))
    }

    fn switches(&self) -> u64 {
        self.count(|kind| *kind == Kind::Switch)
    }
}

/// Reads what the machine printed.
///
/// # Errors
/// A part is missing, a program or `rtkvm-tune apply` failed, or a number is none.
pub(super) fn parse(text: &str) -> Result<Measured> {
    let parts = sample::parts(text);
    let part = |name: &str| parts.get(name).copied().with_context(|| format!("no `{name}` was printed"));
    if let Ok(apply) = part("apply") {
        ensure!(apply.ends_with("status 0\n"), "rtkvm-tune apply failed: {apply}");
    }
    let cpus = CpuSet::from_iter([CPU]);
    let mut programs = Vec::new();
    for name in PROGRAMS {
        let text = part(name)?;
        ensure!(text.ends_with("status 0\n"), "{name} failed: {text}");
        let mut latency = if name == "oslat" { oslat(text) } else { cyclictest(text) }.context(name)?;
        let kinds = sample::kinds(|table| part(&format!("{name} {table}")), &cpus)?;
        latency.kinds = kinds.into_iter().map(|(kind, counts)| (kind, counts.into_values().sum())).collect();
        programs.push(latency);
    }
    Ok(Measured { command_line: part("cmdline")?.trim().to_owned(), programs })
}

/// `000034 000479` for each microsecond, and `# Max Latencies: 00096`.
fn cyclictest(text: &str) -> Result<Latency> {
    let mut histogram = BTreeMap::new();
    for line in text.lines() {
        if let [latency, count] = line.split_whitespace().collect::<Vec<_>>()[..]
            && let (Ok(latency), Ok(count)) = (latency.parse(), count.parse::<u64>())
            && count > 0
        {
            histogram.insert(latency, count);
        }
    }
    let value = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(name));
        Ok(line.with_context(|| format!("no `{name}` was printed"))?.trim().parse()?)
    };
    ensure!(value("Histogram Overflows:")? == 0, "a latency is beyond the histogram");
    let samples: u64 = histogram.values().sum();
    ensure!(samples > 0, "nothing was measured");
    let sum: u64 = histogram.iter().map(|(latency, count)| latency * count).sum();
    Ok(Latency {
        minimum: value("Min Latencies:")?,
        average: sum as f64 / samples as f64,
        maximum: value("Max Latencies:")?,
        histogram,
        kinds: BTreeMap::new(),
    })
}

/// `034 (us): 9`, the last with all that is beyond, and `Maximum: 40045 (us)`.
fn oslat(text: &str) -> Result<Latency> {
    let mut histogram = BTreeMap::new();
    for line in text.lines() {
        if let Some((latency, rest)) = line.trim().split_once(" (us):")
            && let (Ok(latency), Some(count)) = (latency.parse(), rest.split_whitespace().next())
            && count != "0"
        {
            histogram.insert(latency, count.parse()?);
        }
    }
    let value = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        let line = line.with_context(|| format!("no `{name}` was printed"))?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    };
    Ok(Latency {
        minimum: value("Minimum:")? as u64,
        average: value("Average:")?,
        maximum: value("Maximum:")? as u64,
        histogram,
        kinds: BTreeMap::new(),
    })
}

/// What is not the same in both, for people.
pub(super) fn differences(one: &Measured, other: &Measured) -> Vec<String> {
    let mut found = Vec::new();
    for (name, (one, other)) in PROGRAMS.iter().zip(one.programs.iter().zip(&other.programs)) {
        let mut compare = |what: &str, one: String, other: String| {
            if one != other {
                found.push(format!("{name} {what} {one} and {other}"));
            }
        };
        compare("minimum", one.minimum.to_string(), other.minimum.to_string());
        compare("average", one.average.to_string(), other.average.to_string());
        compare("maximum", one.maximum.to_string(), other.maximum.to_string());
        compare("histogram", format!("{:?}", one.histogram), format!("{:?}", other.histogram));
        compare("counts", format!("{:?}", one.kinds), format!("{:?}", other.kinds));
    }
    found
}

/// Several boots of the same state as one measurement.
pub(super) fn together(phases: &[&Measured]) -> Measured {
    let [first, rest @ ..] = phases else { unreachable!("a state has a boot") };
    let mut all = Measured { command_line: first.command_line.clone(), programs: first.programs.clone() };
    for other in rest {
        for (one, other) in all.programs.iter_mut().zip(&other.programs) {
            let count = |latency: &Latency| latency.histogram.values().sum::<u64>() as f64;
            let (here, there) = (count(one), count(other));
            one.average = (one.average * here + other.average * there) / (here + there);
            one.minimum = one.minimum.min(other.minimum);
            one.maximum = one.maximum.max(other.maximum);
            for (latency, count) in &other.histogram {
                *one.histogram.entry(*latency).or_default() += count;
            }
            for (kind, count) in &other.kinds {
                *one.kinds.entry(kind.clone()).or_default() += count;
            }
        }
    }
    all
}

/// The maximum of each boot, in the order of the phases.
pub(super) fn maxima(states: &[(&str, Vec<&Measured>)]) -> String {
    let titles: Vec<&str> = states.iter().map(|(label, _)| *label).collect();
    let mut out = format!(
        "| maximum in each boot, us | {} |\n|---|{}\n",
        titles.join(" | "),
        "---|".repeat(titles.len())
    );
    for (at, program) in PROGRAMS.iter().enumerate() {
        let cell = |phases: &Vec<&Measured>| -> String {
            let each: Vec<String> = phases.iter().map(|one| one.programs[at].maximum.to_string()).collect();
            each.join(", ")
        };
        let cells: Vec<String> = states.iter().map(|(_, phases)| cell(phases)).collect();
        out += &format!("| {program} | {} |\n", cells.join(" | "));
    }
    out
}

/// The states side by side: a table of figures for both programs, and their histograms.
pub(super) fn states(states: &[(&str, &Measured)]) -> String {
    let mut out = String::new();
    let titles: Vec<&str> = states.iter().map(|(label, _)| *label).collect();
    let head = format!("| {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
    for (at, program) in PROGRAMS.iter().enumerate() {
        let row = |name: &str, cell: &dyn Fn(&Latency) -> String| {
            let cells: Vec<String> =
                states.iter().map(|(_, measured)| cell(&measured.programs[at])).collect();
            format!("| {name} | {} |\n", cells.join(" | "))
        };
        out += &format!("| {program}, us {head}");
        out += &row("minimum", &|latency| latency.minimum.to_string());
        out += &row("average", &|latency| format!("{:.3}", latency.average));
        out += &row("all but 1 in 10,000", &|latency| latency.all_but_a_few().to_string());
        out += &row("maximum", &|latency| latency.maximum.to_string());
        out += &row("context switches", &|latency| latency.switches().to_string());
        let kinds: BTreeSet<&Kind> =
            states.iter().flat_map(|(_, measured)| measured.programs[at].kinds.keys()).collect();
        for kind in kinds {
            let name = match kind {
                Kind::Interrupt(name) => format!("interrupt {name}"),
                Kind::Softirq(name) => format!("softirq {name}"),
                Kind::Switch | Kind::Preempted => continue,
            };
            out += &row(&name, &|latency| latency.kinds.get(kind).copied().unwrap_or(0).to_string());
        }
        out += &format!("\n| {program}, measurements {head}");
        let mut from = 0;
        for to in ROWS {
            let within =
                |latency: &Latency| -> u64 { latency.histogram.range(from..=to).map(|(_, n)| n).sum() };
            if states.iter().any(|(_, measured)| within(&measured.programs[at]) > 0) {
                let name = match to {
                    u64::MAX => format!("{from} us and more"),
                    _ => format!("{from} to {to} us"),
                };
                out += &row(&name, &|latency| within(latency).to_string());
            }
            from = to.saturating_add(1);
        }
        out.push('\n');
    }
    out.trim_end().to_owned() + "\n"
}

/// What each knob changes: the figures without it, beside those of the whole; the same is not repeated.
pub(super) fn knobs(whole: &Measured, without: &[(&str, &Measured)]) -> String {
    let mut out = "| without | ".to_owned();
    let columns = ["average", "maximum", "interrupts", "softirqs", "switches"];
    let titles =
        PROGRAMS.iter().flat_map(|program| columns.iter().map(move |column| format!("{program} {column}")));
    let titles: Vec<String> = titles.collect();
    out += &format!("{} |\n|---|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
    let cells = |measured: &Measured| -> Vec<String> {
        let cells = |latency: &Latency| {
            [
                format!("{:.3}", latency.average),
                latency.maximum.to_string(),
                latency.interrupts().to_string(),
                latency.softirqs().to_string(),
                latency.switches().to_string(),
            ]
        };
        measured.programs.iter().flat_map(cells).collect()
    };
    let all = cells(whole);
    out += &format!("| nothing | {} |\n", all.join(" | "));
    for (label, measured) in without {
        let same = |(cell, all): (String, &String)| if cell == *all { "=".to_owned() } else { cell };
        let cells: Vec<String> = cells(measured).into_iter().zip(&all).map(same).collect();
        out += &format!("| {label} | {} |\n", cells.join(" | "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
== apply
status 0
== cmdline
console=ttyS0 nohz=on 
== cyclictest
# Histogram
000007 000000
000008 000003
000010 000001
# Total: 000000004
# Min Latencies: 00008
# Avg Latencies: 00008
# Max Latencies: 00010
# Histogram Overflows: 00000
status 0
== cyclictest interrupts before
           CPU0       CPU1
LOC:         10         20   Local timer interrupts
== cyclictest interrupts after
           CPU0       CPU1
LOC:         15         24   Local timer interrupts
== cyclictest softirqs before
           CPU0       CPU1
 TIMER:      1          2
== cyclictest softirqs after
           CPU0       CPU1
 TIMER:      2          2
== cyclictest switches before
cpu#1, 1000.000 MHz
  .nr_switches                   : 7
== cyclictest switches after
cpu#1, 1000.000 MHz
  .nr_switches                   : 15
== oslat
oslat V 2.40
    001 (us):	 200
    002 (us):	 0
    032 (us):	 3 (including overflows)
     Minimum:	 1 (us)
     Average:	 1.234 (us)
     Maximum:	 40045 (us)
status 0
== oslat interrupts before
           CPU0       CPU1
LOC:         10         20   Local timer interrupts
== oslat interrupts after
           CPU0       CPU1
LOC:         15         20   Local timer interrupts
== oslat softirqs before
           CPU0       CPU1
 TIMER:      1          2
== oslat softirqs after
           CPU0       CPU1
 TIMER:      2          5
== oslat switches before
cpu#1, 1000.000 MHz
  .nr_switches                   : 7
== oslat switches after
cpu#1, 1000.000 MHz
  .nr_switches                   : 8
== end
";

    #[test]
    fn figures_are_read_and_stand_side_by_side() {
        let measured = parse(TEXT).unwrap();
        assert_eq!(measured.command_line, "console=ttyS0 nohz=on");
        let text = states(&[("untuned", &measured), ("ours", &measured)]);
        for expected in [
            "| cyclictest, us | untuned | ours |\n|---|---|---|\n| minimum | 8 | 8 |\n| average | 8.500 | 8.500 |\n\
             | all but 1 in 10,000 | 10 | 10 |\n| maximum | 10 | 10 |\n| context switches | 8 | 8 |\n\
             | interrupt LOC Local timer interrupts | 4 | 4 |\n",
            "| 6 to 10 us | 4 | 4 |",
            "| average | 1.234 | 1.234 |\n| all but 1 in 10,000 | 40045 | 40045 |\n| maximum | 40045 | 40045 |\n| context switches | 1 | 1 |\n\
             | softirq TIMER | 3 | 3 |\n",
            "| 0 to 5 us | 200 | 200 |\n| 31 to 40 us | 3 | 3 |",
        ] {
            assert!(text.contains(expected), "{expected}\nis not in\n{text}");
        }
    }

    #[test]
    fn one_in_ten_thousand_is_left_out() {
        let mut latency = parse(TEXT).unwrap().programs[0].clone();
        let mut of = |rows: &[(u64, u64)]| {
            latency.histogram = rows.iter().copied().collect();
            latency.maximum = 50;
            latency.all_but_a_few()
        };
        assert_eq!(of(&[(8, 9_998), (40, 1)]), 50);
        assert_eq!(of(&[(8, 9_999), (40, 1)]), 8);
        assert_eq!(of(&[(8, 9_998), (12, 1), (40, 1)]), 12);
        assert_eq!(of(&[(8, 20_000), (12, 1), (40, 1)]), 8);
    }

    #[test]
    fn what_differs_is_named_and_what_does_not_is_not_repeated() {
        let whole = parse(TEXT).unwrap();
        let other = parse(&TEXT.replace("40045", "40046")).unwrap();
        assert_eq!(differences(&whole, &whole), [""; 0]);
        assert_eq!(differences(&whole, &other), ["oslat maximum 40045 and 40046"]);
        let text = knobs(&whole, &[("cpu.nohz", &other)]);
        assert!(text.ends_with("| cpu.nohz | = | = | = | = | = | = | 40046 | = | = | = |\n"), "{text}");
    }

    #[test]
    fn boots_of_one_state_are_taken_together() {
        let one = parse(TEXT).unwrap();
        let later = TEXT.replace("40045", "30").replace("000010 000001", "000012 000005");
        let later = later.replace("Max Latencies: 00010", "Max Latencies: 00012");
        let other = parse(&later).unwrap();
        let all = together(&[&one, &other]);
        assert_eq!((all.programs[0].maximum, all.programs[1].maximum), (12, 40045));
        // Three of 8 us and one of 10, then three of 8 and five of 12.
        assert!((all.programs[0].average - (6.0 * 8.0 + 10.0 + 60.0) / 12.0).abs() < 1e-9);
        assert_eq!(all.programs[0].histogram.values().sum::<u64>(), 12);
        assert_eq!(all.programs[0].interrupts(), 8);
        let text = maxima(&[("ours", vec![&one, &other])]);
        assert!(text.contains("| cyclictest | 10, 12 |\n| oslat | 40045, 30 |\n"), "{text}");
    }

    #[test]
    fn what_failed_is_an_error() {
        let error = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert!(error(&TEXT.replacen("status 0", "status 1", 1)).starts_with("rtkvm-tune apply failed"));
        assert_eq!(error(&TEXT.replace("== cmdline", "== line")), "no `cmdline` was printed");
        let beyond = TEXT.replace("Overflows: 00000", "Overflows: 00001");
        assert_eq!(error(&beyond), "cyclictest: a latency is beyond the histogram");
    }
}
