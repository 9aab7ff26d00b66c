//! A plan for people.

use super::table::{Row, legend, rows};
use super::{Item, Plan, Step, guests};
use crate::formats::{CpuSet, Size};
use crate::knobs::{self, Disruption};
use crate::placement::{GuestPlace, NodePlace};
use crate::resources::State;
use std::collections::{BTreeMap, BTreeSet};

/// More knobs of one class of disruption are named by their areas.
const MOST_KNOBS: usize = 3;

/// Columns wider than this push the following ones aside instead of widening the table.
const WIDEST: usize = 30;

impl Plan {
    /// The whole plan: machine, partition, memory arithmetic, guests, settings, and the summary line. `profile`
    /// and `machine` are their names.
    pub fn text(&self, profile: &str, machine: &str) -> String {
        let mut out = format!("Plan for {profile} on {machine}\n{}\n", self.machine());
        out += &section("CPUs", self.placement.nodes.iter().filter_map(|node| self.cpus(node)));
        out += &section("Memory", self.placement.nodes.iter().map(|node| self.memory(node)));
        out += &section("Guests", self.placement.guests.iter().map(|guest| self.guest(guest)));
        out += "\nSettings\n";
        let rows = rows(&self.items, |_| true);
        out += &settings(&rows);
        out += &legend(&rows);
        out += &self.disruption();
        out += &self.by_hand();
        out += &self.notes_text();
        out += &format!("\n{}\n", self.summary());
        printable(&out)
    }

    /// What to know beside the settings.
    pub fn notes_text(&self) -> String {
        section("Notes", self.notes.iter().cloned())
            + &section("In the way of apply", self.obstacles.iter().cloned())
    }

    /// The running guests that these steps give another definition or none; nothing if there are none.
    pub fn redefined<'s>(&self, steps: impl Iterator<Item = &'s Step>) -> String {
        printable(&section("Guests that run", guests::redefined(&self.facts, steps).into_iter()))
    }

    /// The settings that `keep` keeps, under a title; nothing if there are none.
    pub fn settings_that(&self, title: &str, keep: impl Fn(&Item) -> bool) -> String {
        let rows = rows(&self.items, keep);
        let table = format!("\n{title}\n{}{}\n", settings(&rows), legend(&rows));
        if rows.is_empty() { String::new() } else { printable(&table) }
    }

    /// An audit: what is not in line, and the summary.
    pub fn audit(&self, profile: &str, machine: &str) -> String {
        let mut out = format!("Audit of {profile} on {machine}\n{}\n", self.machine());
        out += self
            .settings_that("Not in line", |item| item.observed.state != State::InLine)
            .trim_end_matches('\n');
        out += "\n";
        out += &self.reasons(profile);
        out += &self.by_hand();
        out += &self.notes_text();
        out += &format!("\n{}\n", self.verdict());
        printable(&out)
    }

    /// For each knob that is not in line where that was read, why it matters and what mends it.
    fn reasons(&self, profile: &str) -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut last = None;
        for finding in self.findings(profile) {
            // A knob's settings differ for one reason and are mended by one command.
            let this = (finding.item.knob, finding.remedy.clone());
            if last.as_ref() == Some(&this) {
                continue;
            }
            lines.push(format!("{}: {}", finding.item.knob, finding.why));
            lines.push(format!("    read from {}; mend by: {}", finding.read_from, finding.remedy));
            last = Some(this);
        }
        section("Why it matters, and what mends it", lines.into_iter())
    }

    fn machine(&self) -> String {
        let kernel = &self.facts.kernel;
        let unknown = || "unknown".to_owned();
        let realtime = match kernel.preempt_rt {
            Some(true) => "PREEMPT_RT",
            Some(false) => "not PREEMPT_RT",
            None => "PREEMPT_RT unknown",
        };
        let loader = self.facts.boot.loader.name();
        format!(
            "{}, {}; Linux {}, {realtime}; {}; {loader}",
            counted(self.facts.cpus.online.len(), "CPU"),
            counted(self.placement.nodes.len(), "node"),
            kernel.release.clone().unwrap_or_else(unknown),
            kernel.os.clone().unwrap_or_else(|| "operating system unknown".into()),
        )
    }

    fn cpus(&self, node: &NodePlace) -> Option<String> {
        let or_none = |set: &CpuSet| if set.is_empty() { "none".into() } else { set.to_string() };
        let (housekeeping, isolated) = (&node.housekeeping, &node.isolated);
        let has_cpus = !housekeeping.is_empty() || !isolated.is_empty();
        has_cpus.then(|| {
            format!(
                "node {}  housekeeping {}  isolated {}",
                node.id,
                or_none(housekeeping),
                or_none(isolated)
            )
        })
    }

    fn memory(&self, node: &NodePlace) -> String {
        let pages = &node.pages;
        let page = self.placement.page;
        let others =
            if pages.others.0 > 0 { format!(" - {} other pages", pages.others.gib()) } else { String::new() };
        let sum = match pages.kept {
            Some(kept) if pages.count > 0 => {
                let rest = Size(pages.memory.0.saturating_sub(kept.0).saturating_sub(pages.others.0));
                format!("{} - {} kept{others} = {}", pages.memory.gib(), kept.gib(), rest.gib())
            }
            _ => format!("{}{others}", pages.memory.gib()),
        };
        let taken = format!("{} pages of {page}", pages.count);
        let used = match (pages.guests, pages.others_guests) {
            (0, 0) => String::new(),
            (used, 0) => format!("; guests use {used} of {}", pages.count),
            (used, others) => format!("; guests use {used}, others {others} of {}", pages.count),
        };
        format!("node {}  {sum}: {taken}, {} left{used}", node.id, pages.left.gib())
    }

    fn guest(&self, guest: &GuestPlace) -> String {
        let set: CpuSet = guest.cpus.iter().copied().collect();
        // The order of the vCPUs matters only where it is not that of the CPUs.
        let cpus = match guest.cpus.is_sorted() {
            true => set.to_string(),
            false => guest.cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        };
        let idle = guest.cores.difference(&set);
        let idle = if idle.is_empty() { String::new() } else { format!(", siblings {idle} idle") };
        format!(
            "{}  {}, vCPUs on {cpus} ({}{idle}), emulator on {}, {} x {}",
            guest.name,
            guest.nodes(),
            guest.shared.name(),
            guest.emulator,
            guest.pages,
            self.placement.page
        )
    }

    /// What the planned changes do to what runs meanwhile, a line for each class; those that nothing notices are
    /// left out.
    fn disruption(&self) -> String {
        let changes = |item: &&Item| match item.disruption {
            Disruption::None => false,
            Disruption::Reboot => item.needs_reboot() && item.observed.state != State::RebootPending,
            _ => matches!(item.observed.state, State::Missing | State::Differs(None)),
        };
        let mut classes: BTreeMap<Disruption, BTreeSet<&str>> = BTreeMap::new();
        for item in self.items.iter().filter(changes) {
            classes.entry(item.disruption).or_default().insert(item.knob);
        }
        let line = |(class, knobs): (&Disruption, &BTreeSet<&str>)| {
            let mut names: Vec<&str> = knobs.iter().copied().collect();
            if names.len() > MOST_KNOBS {
                names = names.iter().map(|id| id.split('.').next().unwrap_or(id)).collect();
                names.dedup();
            }
            format!("{}: {}", class.name(), names.join(", "))
        };
        section("Disruption", classes.iter().map(line))
    }

    /// The last line of a plan.
    pub fn summary(&self) -> String {
        let c = self.counts();
        let mut text = format!(
            "Plan: {} to add, {} to change, {} to remove, {} in line",
            c.add, c.change, c.remove, c.in_line
        );
        for (count, what) in [
            (c.reboot_pending, "waiting for a boot"),
            (c.pending, "waiting for their interrupt"),
            (c.waiting, "waiting for guests"),
            (c.rejected, "rejected by the kernel"),
            (c.foreign, "set by somebody else"),
            (c.unverifiable, "cannot be told"),
            (c.by_hand, "by hand"),
            (c.not_applicable, "cannot be set"),
            (c.unmet, "unmet"),
        ] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        format!("{text}. {}", self.reboot())
    }

    /// Whether a reboot is needed, as a sentence.
    pub fn reboot(&self) -> &'static str {
        if self.needs_reboot() { "A reboot is needed." } else { "No reboot is needed." }
    }

    /// The kernel arguments that are left to the operator, on one line.
    pub fn by_hand(&self) -> String {
        let is_open = |item: &&Item| {
            matches!(item.observed.state, State::ByHand(_)) && item.reach == knobs::Reach::Reboot
        };
        let open = self.items.iter().filter(is_open);
        let arguments: Vec<_> = open.map(|item| item.wanted.as_str()).collect();
        let lines = (!arguments.is_empty()).then(|| arguments.join(" ")).into_iter();
        section("Kernel arguments to add to the boot loader by hand", lines)
    }

    fn verdict(&self) -> String {
        let c = self.counts();
        let open = c.add + c.change + c.remove + c.by_hand + c.waiting + c.rejected + c.foreign;
        let total = self.items.iter().filter(|item| !item.is_check()).count() - c.not_applicable;
        match self.status() {
            0 if c.unverifiable > 0 => format!(
                "In line as far as it can be told: {} of {total} settings are set, {} cannot be told{}.",
                total - c.unverifiable,
                c.unverifiable,
                match c.pending {
                    0 => String::new(),
                    pending => format!(", {pending} wait for their interrupt"),
                }
            ),
            0 if c.pending > 0 => format!(
                "In line: all {total} settings are set, and {} of them wait for their interrupt.",
                c.pending
            ),
            0 => format!("In line: all {total} settings are in force."),
            3 => format!(
                "In line but for a reboot: {} of {total} settings take effect at the next boot.",
                c.reboot_pending
            ),
            _ => format!("Differs: {open} of {total} settings; `rtkvm-tune apply` sets what can be set."),
        }
    }
}

/// What a revert would change on a machine.
pub fn revert(machine: &str, items: &[Item], notes: &[String]) -> String {
    let mut out = format!("Revert of {machine}\n");
    if !items.is_empty() {
        let rows = rows(items, |_| true);
        out += &format!("\nSettings\n{}{}", settings(&rows), legend(&rows));
    }
    out += &section("Notes", notes.iter().cloned());
    let summary = if items.is_empty() {
        "Nothing to revert.".into()
    } else {
        let waiting = items.iter().filter(|item| matches!(item.observed.state, State::Waiting(_))).count();
        let more = if waiting > 0 { format!(", {waiting} waiting for guests") } else { String::new() };
        format!("Revert: {} to take back{more}.", items.len() - waiting)
    };
    printable(&format!("{out}\n{summary}\n"))
}

/// Text for a terminal: what a machine calls its things cannot steer it.
pub fn printable(text: &str) -> String {
    let odd = |byte: u8| (byte < b' ' && byte != b'\n') || byte >= 0x7f;
    if !text.bytes().any(odd) {
        return text.to_owned();
    }
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn section(title: &str, lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<_> = lines.map(|line| format!("  {line}\n")).collect();
    if lines.is_empty() { String::new() } else { format!("\n{title}\n{}", lines.concat()) }
}

/// The rows as an aligned table.
fn settings(rows: &[Row]) -> String {
    let head = Row {
        sign: ' ',
        name: "SETTING".into(),
        reach: String::new(),
        values: ["RUNNING".into(), "NEXT BOOT".into(), "WANTED".into()],
        reason: String::new(),
    };
    let cells =
        |row: &Row| [row.name.clone(), row.reach.clone(), row.values[0].clone(), row.values[1].clone()];
    let mut widths = [0; 4];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(cells(row)) {
            *width = (*width).max(cell.chars().count().min(WIDEST));
        }
    }
    widths[0] = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).min(58);
    let line = |row: &Row| {
        let padded: Vec<_> =
            cells(row).iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let text = format!("{} {}  {}", row.sign, padded.join("  "), row.values[2]);
        let reason = if row.reason.is_empty() { String::new() } else { format!("\n    {}", row.reason) };
        format!("{}{reason}\n", text.trim_end())
    };
    [&head].into_iter().chain(rows).map(line).collect()
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
