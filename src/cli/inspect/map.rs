//! The CPU map: nodes, what shares a last-level cache, cores, threads, and the role of each CPU as a letter.

use super::layout::{Item, LABEL, Page, WIDTH, words};
use crate::cli::style::Style;
use crate::facts::{Core, Facts, Node};
use crate::formats::CpuSet;
use crate::placement::{GuestPlace, Placement};
use std::collections::BTreeSet;

/// What a CPU does, or is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Housekeeping,
    Isolated,
    /// Runs a vCPU of the guest with this index.
    Guest(usize),
    /// In a guest's core, without a vCPU.
    Idle,
    Offline,
}

impl Role {
    fn of(cpu: u32, facts: &Facts, placement: Option<&Placement>) -> Role {
        if !facts.cpus.online.contains(cpu) {
            return Role::Offline;
        }
        let guests = placement.map_or(&[][..], |placement| &placement.guests);
        if let Some(at) = guests.iter().position(|guest| guest.cores.contains(cpu)) {
            return if guests[at].cpus.contains(&cpu) { Role::Guest(at) } else { Role::Idle };
        }
        match isolated(facts, placement).is_some_and(|isolated| isolated.contains(cpu)) {
            true => Role::Isolated,
            false => Role::Housekeeping,
        }
    }

    fn letter(self) -> String {
        match self {
            Role::Housekeeping => "H".into(),
            Role::Isolated => "I".into(),
            Role::Guest(at) => guest_letter(at),
            Role::Idle => ".".into(),
            Role::Offline => "-".into(),
        }
    }

    fn mark(self, text: &str, style: Style) -> Item {
        Item::styled(text, |text| match self {
            Role::Housekeeping => text.to_owned(),
            Role::Isolated => style.good(text),
            Role::Guest(_) => style.added(text),
            Role::Idle => style.dim(text),
            Role::Offline => style.removed(text),
        })
    }

    /// For the legend; a guest has a line of its own.
    fn meaning(self) -> Option<&'static str> {
        match self {
            Role::Housekeeping => Some("housekeeping"),
            Role::Isolated => Some("isolated"),
            Role::Guest(_) => None,
            Role::Idle => Some("idle, in a guest's core"),
            Role::Offline => Some("offline"),
        }
    }
}

/// The isolated CPUs: planned, or those of the running kernel if it tells.
pub(super) fn isolated<'a>(facts: &'a Facts, placement: Option<&'a Placement>) -> Option<&'a CpuSet> {
    placement.map(|placement| &placement.isolated).or(facts.cpus.isolated.as_ref())
}

/// a to z, then aa, ab, as in spreadsheets.
fn guest_letter(at: usize) -> String {
    let letter = char::from(b'a' + (at % 26) as u8);
    match at / 26 {
        0 => letter.to_string(),
        more => guest_letter(more - 1) + &letter.to_string(),
    }
}

/// How the CPUs of one machine are drawn.
struct Map<'a> {
    facts: &'a Facts,
    placement: Option<&'a Placement>,
    style: Style,
    /// The columns of the first, second ... thread of a core, in every row.
    thread_widths: Vec<usize>,
    /// The columns of a core.
    core_width: usize,
}

impl<'a> Map<'a> {
    fn new(facts: &'a Facts, placement: Option<&'a Placement>, style: Style) -> Map<'a> {
        let mut map = Map { facts, placement, style, thread_widths: Vec::new(), core_width: 0 };
        let widths = |at| facts.cpus.cores.iter().filter_map(move |core: &Core| core.cpus.iter().nth(at));
        let widest = |at| widths(at).map(|cpu| map.cpu(cpu).width()).max().unwrap_or(0);
        map.thread_widths = (0..facts.cpus.threads_per_core()).map(widest).collect();
        map.core_width = facts.cpus.cores.iter().map(|core| map.core(core).width()).max().unwrap_or(0);
        map
    }

    fn cpu(&self, cpu: u32) -> Item {
        let role = Role::of(cpu, self.facts, self.placement);
        let boot = if cpu == self.facts.cpus.boot { "*" } else { "" };
        role.mark(&format!("{}{cpu}{boot}", role.letter()), self.style)
    }

    /// Its threads, in brackets if there are several.
    fn core(&self, core: &Core) -> Item {
        if core.cpus.len() == 1 {
            return Item::joined(core.cpus.iter().map(|cpu| self.cpu(cpu)));
        }
        let last = core.cpus.len() - 1;
        let threads = core.cpus.iter().enumerate().map(|(at, cpu)| match at == last {
            true => self.cpu(cpu),
            false => self.cpu(cpu).padded(self.thread_widths[at]).gap(),
        });
        Item::joined([Item::plain("[")].into_iter().chain(threads).chain([Item::plain("]")]))
    }

    /// Rows of as many cores as fit beside `label`: a multiple of 8 if there is room for that, else of 4.
    fn draw(&self, page: &mut Page, label: usize, name: &str, cores: &[&Core]) {
        let fitting = (WIDTH + 1).saturating_sub(label) / (self.core_width + 1);
        let count = match fitting {
            0..4 => fitting.max(1),
            4..8 => 4,
            _ => fitting / 8 * 8,
        };
        for (at, cores) in cores.chunks(count).enumerate() {
            let name = Item::plain(if at == 0 { name } else { "" });
            page.items(name, label, cores.iter().map(|core| self.core(core).padded(self.core_width).gap()));
        }
    }
}

/// The memory nodes in the kernel's order, then CPUs on no node, then offline CPUs.
pub(super) fn nodes(page: &mut Page, facts: &Facts, placement: Option<&Placement>, style: Style) {
    let map = Map::new(facts, placement, style);
    let dies = has_dies(&facts.cpus.cores);
    let on = |node: Option<u32>| -> Vec<&Core> {
        facts.cpus.cores.iter().filter(|core| core.node == node).collect()
    };
    let nodes: Vec<(&Node, Vec<Row>)> =
        facts.numa.nodes.iter().map(|node| (node, rows(&on(Some(node.id)), dies))).collect();
    let nowhere = rows(&on(None), dies);
    let all = nodes.iter().flat_map(|(_, rows)| rows).chain(&nowhere);
    let cache = all.clone().map(|row| row.cache.len()).max().unwrap_or(0);
    let place = all.map(|row| row.place.len()).max().unwrap_or(0);
    let label = (cache + place + "    ".len()).max("  distances  ".len());
    let draw = |page: &mut Page, rows: &[Row]| {
        for row in rows {
            let name = format!("  {:cache$}{}", row.cache, row.place);
            map.draw(page, label, &name, &row.cores);
        }
    };
    for (node, rows) in &nodes {
        page.gap();
        node_head(page, node, placement, label, style);
        draw(page, rows);
    }
    if !nowhere.is_empty() {
        page.gap();
        page.line(Item::styled("on no node", |text| style.bold(text)));
        draw(page, &nowhere);
    }
    if !facts.cpus.offline.is_empty() {
        page.gap();
        let cpus = facts.cpus.offline.iter().map(|cpu| map.cpu(cpu).padded(map.core_width).gap());
        page.items(Item::styled("offline", |text| style.bold(text)), label, cpus);
    }
}

/// The cores of one last-level cache, or several cores that have one each.
struct Row<'a> {
    cache: String,
    /// Its sockets, and its dies if a socket has several.
    place: String,
    cores: Vec<&'a Core>,
}

/// One row for each last-level cache; neighbours with a cache of their own share a row.
fn rows<'a>(cores: &[&'a Core], dies: bool) -> Vec<Row<'a>> {
    let mut groups: Vec<Vec<&Core>> = Vec::new();
    for core in cores {
        match groups.iter_mut().find(|group| group[0].llc == core.llc) {
            Some(group) => group.push(core),
            None => groups.push(vec![core]),
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut alone: Vec<&Core> = Vec::new();
    for group in groups {
        if let [core] = group[..] {
            alone.push(core);
            continue;
        }
        rows.extend(row(std::mem::take(&mut alone), dies));
        rows.extend(row(group, dies));
    }
    rows.extend(row(alone, dies));
    rows
}

fn row(cores: Vec<&Core>, dies: bool) -> Option<Row<'_>> {
    let first = cores.first()?;
    let several = |what: &str, of: fn(&Core) -> Option<u32>| {
        let ids: BTreeSet<u32> = cores.iter().filter_map(|core| of(core)).collect();
        match ids.len() {
            0 => String::new(),
            1 => format!("  {what} {}", ranges(&ids)),
            _ => format!("  {what}s {}", shortened(ranges(&ids))),
        }
    };
    let cache = match cores.iter().all(|core| core.llc == first.llc) {
        true => format!("LLC {}", shortened(first.llc.to_string())),
        false => "an LLC each".into(),
    };
    let socket = several("socket", |core| core.package);
    let die = if dies { several("die", |core| core.die) } else { String::new() };
    Some(Row { cache, place: socket + &die, cores })
}

/// Whether a socket has several dies.
fn has_dies(cores: &[Core]) -> bool {
    let dies: BTreeSet<_> = cores.iter().map(|core| (core.package, core.die)).collect();
    let sockets: BTreeSet<_> = cores.iter().map(|core| core.package).collect();
    dies.len() > sockets.len()
}

/// Ids as `0-3,8`. Firmware may choose any number for a socket, so that they are no [`CpuSet`].
fn ranges(ids: &BTreeSet<u32>) -> String {
    let ids: Vec<u32> = ids.iter().copied().collect();
    let runs = ids.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let texts: Vec<_> = runs
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            run => run.iter().map(u32::to_string).collect(),
        })
        .collect();
    texts.join(",")
}

/// The list, or its beginning if it would push the map away.
fn shortened(list: String) -> String {
    let Some((end, _)) = list.match_indices(',').nth(2) else { return list };
    format!("{},..", &list[..end])
}

fn node_head(page: &mut Page, node: &Node, placement: Option<&Placement>, label: usize, style: Style) {
    let memory = if node.memory.0 == 0 { "no memory".into() } else { node.memory.gib() };
    let cpus = if node.cpus.is_empty() { "no CPUs".into() } else { format!("CPUs {}", node.cpus) };
    let head = Item::styled(&format!("node {}", node.id), |text| style.bold(text));
    let items = [Item::plain(memory).gap(), Item::plain("  ")];
    page.items(head, label, items.into_iter().chain(words(&cpus)));
    let row = |page: &mut Page, name: &str, items: Vec<String>| {
        let items = items.into_iter().map(|item| Item::plain(item + "  "));
        page.items(Item::plain(format!("  {name}")), label, items);
    };
    if !node.distances.is_empty() {
        row(page, "distances", node.distances.iter().map(|(to, value)| format!("{to}:{value}")).collect());
    }
    if !node.pools.is_empty() {
        let pool = |pool: &crate::facts::Pool| match pool.free.filter(|_| pool.pages > 0) {
            Some(free) => format!("{} x {}, {free} free", pool.pages, pool.page),
            None => format!("{} x {}", pool.pages, pool.page),
        };
        row(page, "pages", node.pools.iter().map(pool).collect());
    }
    if let Some((placement, place)) = placement.and_then(|p| Some((p, p.node(node.id)?))) {
        let pages = &place.pages;
        let kept = pages.kept.map_or(String::new(), |kept| format!(", {} to be kept", kept.gib()));
        let (count, size, guests) = (pages.count, placement.page, pages.guests);
        let numbers = format!("{count} x {size}, {guests} for guests; {} left{kept}", pages.left.gib());
        page.items(Item::plain("  planned"), label, words(&numbers));
    }
}

/// The letters that were used, and the guests.
pub(super) fn legend(page: &mut Page, facts: &Facts, placement: Option<&Placement>, style: Style) {
    page.gap();
    let roles: BTreeSet<Role> =
        facts.cpus.present.iter().map(|cpu| Role::of(cpu, facts, placement)).collect();
    let letters = roles.iter().filter_map(|role| {
        let letter = role.mark(&role.letter(), style);
        Some(Item::joined([letter, Item::plain(format!(" {}   ", role.meaning()?))]))
    });
    let mut marks = vec!["* boot CPU   "];
    if facts.cpus.threads_per_core() > 1 {
        marks.push("[ ] threads of one core   ");
    }
    marks.push("LLC: cores that share a last-level cache");
    let label = Item::styled("legend", |text| style.bold(text));
    page.items(label, LABEL, letters.chain(marks.into_iter().map(Item::plain)));
    let guests = placement.map_or(&[][..], |placement| &placement.guests);
    for (at, guest) in guests.iter().enumerate() {
        let role = Role::Guest(at);
        let name = Item::plain(format!(" {}: ", guest.name));
        let items = [role.mark(&role.letter(), style), name];
        let page_size = placement.map_or_else(String::new, |placement| placement.page.to_string());
        let label = if at == 0 { "guests" } else { "" };
        let label = Item::styled(label, |text| style.bold(text));
        let place = words(&describe(guest, &page_size));
        page.items(label, LABEL, items.into_iter().chain(place));
    }
}

fn describe(guest: &GuestPlace, page: &str) -> String {
    let vcpus = if guest.cpus.len() == 1 { "vCPU" } else { "vCPUs" };
    let cpus: CpuSet = guest.cpus.iter().copied().collect();
    format!(
        "{} {vcpus} on {cpus} of {}, {}; {} x {page}; emulator threads on {}",
        guest.cpus.len(),
        guest.nodes(),
        guest.shared.name(),
        guest.pages,
        guest.emulator
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_has_its_own_letter() {
        let letters: Vec<_> = (0..1000).map(guest_letter).collect();
        assert_eq!((&*letters[0], &*letters[25], &*letters[26], &*letters[702]), ("a", "z", "aa", "aaa"));
        assert_eq!(letters.iter().collect::<BTreeSet<_>>().len(), 1000);
    }

    #[test]
    fn long_lists_are_shortened() {
        let list = |text: &str| shortened(text.to_owned());
        assert_eq!(list("0-3,32-35"), "0-3,32-35");
        assert_eq!(list("0,2,4"), "0,2,4");
        assert_eq!(list("0,2,4,6"), "0,2,4,..");
    }
}
