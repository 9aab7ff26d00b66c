//! The settings of a plan as rows for people; equal interrupts, CPUs or workqueues share one.

use super::Item;
use crate::resources::State;

/// One row.
pub struct Row {
    /// `+` not there, `~` differs, `=` in line, `>` waits for a boot, `:` for its interrupt, `*` waits for guests, `x` rejected by the
    /// kernel, `@` set by somebody else, `?` cannot be told, `!` by hand, `.` cannot be set.
    pub sign: char,
    /// The knob and what it sets.
    pub name: String,
    /// When it takes effect: `[live]`.
    pub reach: String,
    /// Running, next boot, wanted.
    pub values: [String; 3],
    /// What the values alone do not say: which interrupts, and why.
    pub reason: String,
}

/// Longer lists of numbers or names go to a line of their own.
const LONGEST_LIST: usize = 24;

/// What the signs mean.
pub const SIGNS: [(char, &str); 12] = [
    ('+', "add"),
    ('~', "change"),
    ('-', "remove"),
    ('=', "in line"),
    ('>', "waits for a boot"),
    (':', "waits for its interrupt"),
    ('*', "waits for guests"),
    ('x', "rejected by the kernel"),
    ('@', "set by somebody else"),
    ('?', "cannot be told"),
    ('!', "by hand"),
    ('.', "cannot be set"),
];

/// Those that few plans have.
const RARE: [char; 5] = [':', '*', 'x', '@', '?'];

/// What the signs mean, on one line; the rare ones where a row has them.
pub fn legend(rows: &[Row]) -> String {
    let shown = |sign: char| !RARE.contains(&sign) || rows.iter().any(|row| row.sign == sign);
    let signs = SIGNS.iter().filter(|(sign, _)| shown(*sign));
    signs.map(|(sign, what)| format!("{sign} {what}")).collect::<Vec<_>>().join("   ") + "\n"
}

/// The sign of a state.
pub fn sign(state: &State) -> char {
    match state {
        State::InLine => '=',
        State::Missing => '+',
        State::Differs(_) => '~',
        State::RebootPending => '>',
        State::Pending(_) => ':',
        State::Waiting(_) => '*',
        State::Rejected(_) => 'x',
        State::Foreign(_) => '@',
        State::Unverifiable(_) => '?',
        State::NotApplicable(_) => '.',
        State::ByHand(_) => '!',
        State::Obsolete => '-',
    }
}

/// Rows for the items that `keep` keeps.
pub fn rows(items: &[Item], keep: impl Fn(&Item) -> bool) -> Vec<Row> {
    let mut groups: Vec<Vec<&Item>> = Vec::new();
    for item in items.iter().filter(|item| keep(item)) {
        let word = kind(&item.label);
        let same = |group: &&mut Vec<&Item>| {
            let first = group[0];
            let settled = matches!(item.observed.state, State::InLine | State::NotApplicable(_));
            let same_values = || {
                (&first.wanted, &first.observed.running, &first.observed.next_boot)
                    == (&item.wanted, &item.observed.running, &item.observed.next_boot)
            };
            first.knob == item.knob
                && first.observed.state == item.observed.state
                && word.is_some()
                && word == kind(&first.label)
                && (settled || same_values())
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(item),
            None => groups.push(vec![item]),
        }
    }
    groups.iter().map(|group| row(group)).collect()
}

fn row(group: &[&Item]) -> Row {
    let first = group[0];
    let names: Vec<&str> = group.iter().filter_map(|item| Some(member(&item.label)?.1)).collect();
    let list = list(&names);
    let (label, members) = match (member(&first.label), group.len()) {
        (Some((word, _)), 2..) if list.len() > LONGEST_LIST => {
            (format!("{} {word}s", group.len()), format!("{word} {list}"))
        }
        (Some((word, _)), 2..) => (format!("{word} {list}"), String::new()),
        (Some(_), _) => (first.label.clone(), first.detail.clone()),
        (None, _) => (first.label.clone(), String::new()),
    };
    let value = |of: fn(&Item) -> Option<&str>| match of(first) {
        found if group.iter().any(|item| of(item) != found) => "various".to_owned(),
        found => found.filter(|value| !value.is_empty()).unwrap_or("-").to_owned(),
    };
    // One argument is named by its row already.
    let bare =
        |text: String| text.strip_prefix(&format!("{}=", first.label)).map(str::to_owned).unwrap_or(text);
    let reason = match &first.observed.state {
        State::Differs(Some(reason))
        | State::NotApplicable(reason)
        | State::ByHand(reason)
        | State::Rejected(reason)
        | State::Foreign(reason)
        | State::Unverifiable(reason)
        | State::Pending(reason)
        | State::Waiting(reason) => reason.clone(),
        State::InLine | State::Missing | State::Differs(None) | State::RebootPending | State::Obsolete => {
            String::new()
        }
    };
    let parts: Vec<_> = [members, reason].into_iter().filter(|part| !part.is_empty()).collect();
    let own = first.knob.rsplit('.').next().unwrap_or_default();
    Row {
        sign: sign(&first.observed.state),
        name: match label.is_empty() || label.replace('_', "-") == own {
            true => first.knob.to_owned(),
            false => format!("{}: {label}", first.knob),
        },
        reach: format!("[{}]", first.reach.name()),
        values: [
            bare(value(|item| item.observed.running.as_deref())),
            bare(value(|item| item.observed.next_boot.as_deref())),
            bare(value(|item| Some(&item.wanted))),
        ],
        reason: parts.join(": "),
    }
}

/// `IRQ 24` and `workqueue writeback` are one of several: what it is, and which.
fn member(label: &str) -> Option<(&str, &str)> {
    label.split_once(' ').filter(|(_, name)| !name.contains(' '))
}

/// What it is one of.
fn kind(label: &str) -> Option<&str> {
    member(label).map(|(word, _)| word)
}

/// Numbers as ranges, names as they are.
fn list(names: &[&str]) -> String {
    let numbers: Option<Vec<u32>> = names.iter().map(|name| name.parse().ok()).collect();
    numbers.map_or_else(|| names.join(","), |numbers| ranges(&numbers))
}

/// Ascending numbers as `24,26-30`.
fn ranges(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let texts: Vec<_> = runs
        .map(|run| match run {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect();
    texts.join(",")
}
