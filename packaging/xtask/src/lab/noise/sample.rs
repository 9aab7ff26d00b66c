//! What `count.sh` printed, as numbers.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use rtkvm_tune::formats::CpuSet;

use super::trace::{self, Causes, Counts};

/// A way to be interrupted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::lab) enum Kind {
    /// A line of /proc/interrupts.
    Interrupt(String),
    /// A line of /proc/softirqs.
    Softirq(String),
    /// The scheduler changed tasks.
    Switch,
    /// A busy loop had to give way.
    Preempted,
}

/// What happened on the isolated CPUs under one load. CPUs on which nothing happened are not named.
pub(super) struct Sample {
    /// Between both snapshots.
    pub(super) seconds: f64,
    /// How often each kind happened.
    pub(super) kinds: BTreeMap<Kind, Counts>,
    /// What ran, from the trace.
    pub(super) ran: Causes,
    /// Who made it run, from the trace.
    pub(super) sent: Causes,
    /// How many events the trace had no room for.
    pub(super) dropped: u64,
}

/// Reads the output of `count.sh`.
///
/// # Errors
/// A part is missing, or a number is none.
pub(super) fn parse(text: &str, isolated: &CpuSet) -> Result<Sample> {
    let parts = parts(text);
    let part = |name: &str| parts.get(name).copied().with_context(|| format!("no `{name}` was printed"));
    let seconds = |name| -> Result<f64> { Ok(part(name)?.trim().parse()?) };
    let mut kinds = kinds(part, isolated)?;
    let gone = since(&loops(part("loops before")?)?, &loops(part("loops after")?)?, isolated);
    kinds.extend(
        gone.into_values().filter(|counts| !counts.is_empty()).map(|counts| (Kind::Preempted, counts)),
    );
    Ok(Sample {
        seconds: seconds("uptime after")? - seconds("uptime before")?,
        kinds,
        ran: trace::ran(part("trace here")?),
        sent: trace::sent(part("trace senders")?, isolated),
        dropped: part("dropped")?.split_whitespace().map(str::parse::<u64>).sum::<Result<u64, _>>()?,
    })
}

/// What happened on these CPUs between two snapshots of the kernel's own counters: `part` gives the text of
/// `interrupts before`, `interrupts after`, and likewise of `softirqs` and `switches`.
///
/// # Errors
/// A part is missing, or a number is none.
pub(in crate::lab) fn kinds<'a>(
    part: impl Fn(&str) -> Result<&'a str>,
    cpus: &CpuSet,
) -> Result<BTreeMap<Kind, Counts>> {
    let difference = |name: &str, read: fn(&str) -> Result<Table>| -> Result<Table> {
        Ok(since(&read(part(&format!("{name} before"))?)?, &read(part(&format!("{name} after"))?)?, cpus))
    };
    let interrupts = difference("interrupts", columns)?.into_iter();
    let softirqs = difference("softirqs", columns)?.into_iter();
    let switches = difference("switches", switches)?.into_values();
    let all = interrupts.map(|(line, counts)| (Kind::Interrupt(line), counts));
    let all = all.chain(softirqs.map(|(line, counts)| (Kind::Softirq(line), counts)));
    let all = all.chain(switches.map(|counts| (Kind::Switch, counts)));
    Ok(all.filter(|(_, counts)| !counts.is_empty()).collect())
}

/// Numbers of each CPU, by line.
type Table = BTreeMap<String, Counts>;

/// What follows each `== NAME`.
pub(in crate::lab) fn parts(text: &str) -> BTreeMap<&str, &str> {
    let mut starts = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if let Some(name) = line.strip_prefix("== ") {
            starts.push((name.trim_end(), at, at + line.len()));
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).map(|(_, start, _)| *start).chain([text.len()]);
    starts.iter().zip(ends).map(|((name, _, from), to)| (*name, &text[*from..to])).collect()
}

/// /proc/interrupts and /proc/softirqs: a column for each CPU. Device lines go by the name of the device, since their
/// number depends on the boot.
fn columns(text: &str) -> Result<Table> {
    let mut lines = text.lines();
    let head = lines.next().context("the table is empty")?;
    let cpu = |word: &str| word.strip_prefix("CPU").and_then(|number| number.parse::<u32>().ok());
    let cpus: Vec<u32> = head.split_whitespace().filter_map(cpu).collect();
    ensure!(!cpus.is_empty(), "`{head}` names no CPUs");
    let mut table = Table::new();
    for line in lines {
        let (name, rest) = line.split_once(':').with_context(|| format!("no name in `{line}`"))?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let numbers: Vec<u64> = words.iter().map_while(|word| word.parse().ok()).take(cpus.len()).collect();
        // Errors are counted for all CPUs together.
        if numbers.len() < cpus.len() {
            continue;
        }
        let name = name.trim();
        let device = name.bytes().all(|byte| byte.is_ascii_digit());
        let tail = words[cpus.len()..].iter().skip(if device { 2 } else { 0 }).copied();
        let name = tail
            .fold(if device { "IRQ".to_owned() } else { name.to_owned() }, |name, word| name + " " + word);
        let counts = table.entry(name).or_default();
        for (cpu, number) in cpus.iter().zip(numbers) {
            *counts.entry(*cpu).or_default() += number;
        }
    }
    Ok(table)
}

/// `cpu#5` with `.nr_switches : 77` below it.
fn switches(text: &str) -> Result<Table> {
    let mut counts = Counts::new();
    let mut cpu = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("cpu#") {
            cpu = Some(rest.split(',').next().unwrap_or(rest).trim().parse()?);
        } else if let (Some(cpu), Some((_, number))) = (cpu, line.split_once(':')) {
            counts.insert(cpu, number.trim().parse()?);
        }
    }
    ensure!(!counts.is_empty(), "the kernel shows no context switches");
    Ok(Table::from([("switches".to_owned(), counts)]))
}

/// CPU, and the voluntary and involuntary switches of the busy loop there.
fn loops(text: &str) -> Result<Table> {
    let mut counts = Counts::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [cpu, _, involuntary] = words[..] else { anyhow::bail!("the busy loop of `{line}` has ended") };
        counts.insert(cpu.parse()?, involuntary.parse()?);
    }
    Ok(Table::from([("preempted".to_owned(), counts)]))
}

/// What was added between two tables, on these CPUs.
fn since(before: &Table, after: &Table, cpus: &CpuSet) -> Table {
    let zero = Counts::new();
    let added = |(name, counts): (&String, &Counts)| {
        let old = before.get(name).unwrap_or(&zero);
        let new = counts.iter().filter(|(cpu, _)| cpus.contains(**cpu));
        let new = new.map(|(cpu, count)| (*cpu, count.saturating_sub(old.get(cpu).copied().unwrap_or(0))));
        (name.clone(), new.filter(|(_, count)| *count > 0).collect())
    };
    after.iter().map(added).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host of four CPUs, as `count.sh` prints it.
    const TEXT: &str = "\
== uptime before
54.00
== uptime after
64.50
== interrupts before
           CPU0       CPU1       CPU2       CPU3       
  0:        167          0          0          0   IO-APIC   2-edge      timer
 29:          0          0          4          0   PCI-MSI 65540-edge      virtio0-req.3
LOC:       7530       7380       7298       7355   Local timer interrupts
RES:          1          2          3          4   Rescheduling interrupts
ERR:          0
== interrupts after
           CPU0       CPU1       CPU2       CPU3       
  0:        167          0          0          0   IO-APIC   2-edge      timer
 29:          0          0          4          9   PCI-MSI 65540-edge      virtio0-req.3
LOC:       9530       9380       7398       7357   Local timer interrupts
RES:         10         12          3          4   Rescheduling interrupts
ERR:          7
== softirqs before
                    CPU0       CPU1       CPU2       CPU3       
          HI:          1          0          0          0
       TIMER:       1000       1000       1000       1000
== softirqs after
                    CPU0       CPU1       CPU2       CPU3       
          HI:          1          0          0          0
       TIMER:       3000       1000       1001       1000
== switches before
cpu#0, 2495.998 MHz
  .nr_switches                   : 100
cpu#2, 2495.998 MHz
  .nr_switches                   : 200
== switches after
cpu#0, 2495.998 MHz
  .nr_switches                   : 100
cpu#2, 2495.998 MHz
  .nr_switches                   : 230
== loops before
3 1 5
== loops after
3 1 8
== trace here
# tracer: nop
          <idle>-0       [002] d..h1..    56.045093: hrtimer_expire_entry: hrtimer=00000000450012ad function=tick_sched_timer now=5
== trace senders
# tracer: nop
== dropped
0
12
";

    #[test]
    fn counts_are_differences_on_the_isolated_cpus() {
        let sample = parse(TEXT, &CpuSet::parse_list("2-3").unwrap()).unwrap();
        let kinds: Vec<String> =
            sample.kinds.iter().map(|(kind, counts)| format!("{kind:?} {counts:?}")).collect();
        assert_eq!(
            kinds,
            [
                "Interrupt(\"IRQ virtio0-req.3\") {3: 9}",
                "Interrupt(\"LOC Local timer interrupts\") {2: 100, 3: 2}",
                "Softirq(\"TIMER\") {2: 1}",
                "Switch {2: 30}",
                "Preempted {3: 3}",
            ]
        );
        assert_eq!((sample.seconds, sample.dropped, sample.ran.len(), sample.sent.len()), (10.5, 12, 1, 0));
    }

    #[test]
    fn a_missing_part_or_a_loop_that_ended_is_an_error() {
        let isolated = CpuSet::parse_list("2-3").unwrap();
        let error = |text: &str| format!("{:#}", parse(text, &isolated).err().unwrap());
        assert_eq!(error(&TEXT.replace("== dropped", "== lost")), "no `dropped` was printed");
        assert_eq!(error(&TEXT.replace("3 1 8", "3")), "the busy loop of `3` has ended");
    }
}
