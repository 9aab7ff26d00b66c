//! `cargo xtask docs`: the references that are written from the program itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rtkvm_tune::guest::lint::{self, Rule};
use rtkvm_tune::knobs::{self, Knob, Reach, Values};
use rtkvm_tune::profile::keys::{KEYS, Key, Kind, Presence, header, keys_of};
use similar::TextDiff;

use crate::shell::root;

/// The folder of manual pages. All of it is generated.
const MAN: &str = "docs/man";

/// The profile that the reference shows.
const EXAMPLE: &str = "profiles/kvm-realtime.toml";

/// Writes the references, or with `--check` compares those that are there.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => write(&root()),
        ["--check"] => check(&root()),
        _ => bail!("`{}` is not an option of `cargo xtask docs`: it takes --check alone", args.join(" ")),
    }
}

fn write(root: &Path) -> Result<()> {
    let pages = pages(root)?;
    for (name, text) in &pages {
        let path = root.join(name);
        let folder = path.parent().unwrap_or(root);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {name}"))?;
    }
    for name in man_pages(root)?.iter().filter(|name| !pages.contains_key(*name)) {
        fs::remove_file(root.join(name)).with_context(|| format!("cannot remove {name}"))?;
    }
    eprintln!("{} files written in docs", pages.len());
    Ok(())
}

fn check(root: &Path) -> Result<()> {
    let pages = pages(root)?;
    let mut found = String::new();
    for (name, text) in &pages {
        let there = fs::read_to_string(root.join(name)).unwrap_or_default();
        if there != *text {
            let diff = TextDiff::from_lines(&there, text);
            found += &diff.unified_diff().header(name, "from the program").to_string();
        }
    }
    for name in man_pages(root)?.iter().filter(|name| !pages.contains_key(*name)) {
        found += &format!("{name} is of no command\n");
    }
    match found.is_empty() {
        true => Ok(()),
        false => bail!("docs is out of date: run `cargo xtask docs`\n{found}"),
    }
}

/// The names of the manual pages that are there.
fn man_pages(root: &Path) -> Result<Vec<String>> {
    let folder = root.join(MAN);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let name = |entry: std::io::Result<fs::DirEntry>| {
        Ok(format!("{MAN}/{}", entry.context(MAN)?.file_name().to_string_lossy()))
    };
    fs::read_dir(&folder).context(MAN)?.map(name).collect()
}

/// Every generated file: its name from the root of the repository, and its text.
fn pages(root: &Path) -> Result<BTreeMap<String, String>> {
    let example = fs::read_to_string(root.join(EXAMPLE)).with_context(|| format!("cannot read {EXAMPLE}"))?;
    let mut pages = manual()?;
    pages.insert("docs/knobs.md".into(), knob_reference());
    pages.insert("docs/lint.md".into(), lint_reference());
    pages.insert("docs/verify.schema.json".into(), crate::schema::verify());
    pages.insert("docs/profile.md".into(), profile_reference(&example));
    Ok(pages)
}

const GENERATED: &str = "<!-- Written by `cargo xtask docs` from the program: change it there. -->\n";

/// docs/knobs.md.
fn knob_reference() -> String {
    let mut out = format!("# Knobs\n\n{GENERATED}\n");
    out += "What rtkvm-tune sets, and why. `rtkvm-tune explain KNOB` prints the same for one of them.\n\n\
        A profile names a knob to give it a value of its own, or to leave what the machine has; an area's name keeps\n\
        every knob of the area but those that are named themselves. Knobs that are off set nothing without a line\n\
        in the profile.\n\n\
        ```toml\n[knobs]\n\"irq.affinity\" = \"keep\"\n\"memory\" = \"keep\"\n\"memory.stat-interval\" = 30\n```\n\n\
        | Knob | Default | Takes effect | What it does |\n|---|---|---|---|\n";
    for knob in knobs::all() {
        let (id, anchor) = (knob.id, knob.id.replace('.', ""));
        let default = knob.values.default_text().replace('"', "");
        let reach = takes_effect(knob.reach);
        out += &format!("| [`{id}`](#{anchor}) | {default} | {reach} | {} |\n", cell(knob.summary));
    }
    let mut areas: Vec<&str> = knobs::all().map(Knob::area).collect();
    areas.dedup();
    for name in areas {
        out += &format!("\n## {name}\n");
        out.extend(knobs::all().filter(|knob| knob.area() == name).map(knob_section));
    }
    out
}

fn takes_effect(reach: Reach) -> &'static str {
    match reach {
        Reach::Live => "at once",
        Reach::Reboot => "at the next boot",
        Reach::GuestRestart => "at the next start of the guest",
        Reach::Check => "a check: nothing is set",
    }
}

fn knob_section(knob: &Knob) -> String {
    let Knob { id, summary, why, source, since, check, reach, disruption, values, .. } = knob;
    let facts = [
        ("Takes effect", takes_effect(*reach)),
        ("Disruption", disruption.name()),
        ("Since", since),
        ("Checked by", check),
        ("Documented in", source),
    ];
    let mut facts: String = facts.iter().map(|(name, text)| format!("- {name}: {}\n", plain(text))).collect();
    facts += &knobs::measured(id)
        .map_or(String::new(), |text| format!("- [Measured](latency.md): {}\n", plain(&text)));
    format!("\n### {id}\n\n{}.\n\n{}\n\n{facts}{}", plain(summary), plain(why), knob_values(values))
}

/// What a profile may write for a knob, beside "keep".
fn knob_values(values: &Values) -> String {
    let mut out =
        format!("- Values: {}; {} by default\n", plain(&code(&values.list())), values.default_text());
    for word in values.words.iter().filter(|_| values.words.len() > 1 || values.numbers.is_some()) {
        out += &format!("  - `\"{}\"`: {}\n", word.name, plain(word.meaning));
    }
    for word in values.words {
        out += &word.warning.map_or(String::new(), |warning| {
            format!("- **Warning** for `\"{}\"`: {}\n", word.name, plain(warning))
        });
    }
    out
}

/// Quoted words as code.
fn code(text: &str) -> String {
    let part =
        |(at, part): (usize, &str)| if at % 2 == 1 { format!("`\"{part}\"`") } else { part.to_owned() };
    text.split('"').enumerate().map(part).collect()
}

/// docs/lint.md.
fn lint_reference() -> String {
    let mut out = format!("# Rules for guests\n\n{GENERATED}\n");
    out += "`rtkvm-tune lint FILE...` checks the domain XML of any guests, rendered here or not, against the CPUs and memory\n\
        of this machine as its kernel divides them; with `--profile PROFILE` as the profile plans it, with `--root` those of\n\
        another machine. `-` is standard input: `virsh dumpxml --inactive GUEST | rtkvm-tune lint -`. It exits with 0 when it\n\
        finds nothing, 1 when it finds something, 2 when a file cannot be read or is no domain. Files of one call are also\n\
        checked against each other.\n\n\
        An **error** is what libvirt or QEMU refuse, or drop so that the guest is another one; with a **warning** the guest\n\
        runs, and is late.\n\n\
        | Rule | Level | Found is |\n|---|---|---|\n";
    for rule in lint::rules() {
        let (id, anchor) = (rule.id, rule.id.replace('.', ""));
        out += &format!("| [`{id}`](#{anchor}) | {} | {} |\n", level(rule), cell(&plain(rule.what)));
    }
    out.extend(lint::rules().map(|rule| {
        let Rule { id, what, why, source, .. } = rule;
        format!("\n## {id}\n\n{}. {}\n\nSource: {}.\n", plain(what), plain(why), plain(source))
    }));
    out
}

fn level(rule: &Rule) -> &'static str {
    if rule.fatal { "error" } else { "warning" }
}

/// docs/profile.md.
fn profile_reference(example: &str) -> String {
    let mut out = format!("# The profile\n\n{GENERATED}\n");
    out += "A profile is a TOML file that says how a machine is divided and which guests it runs. Unknown keys are\n\
        refused. Sizes are written with KiB, MiB, GiB or TiB, CPU lists as the kernel writes them. The ids for\n\
        `[knobs]` are in [knobs.md](knobs.md).\n";
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    for section in sections {
        let title = match section {
            "" => "Sections".to_owned(),
            section => format!("`{}`", header(section)),
        };
        out += &format!("\n## {title}\n\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
        out.extend(keys_of(section).map(key_row));
    }
    out += &format!("\n## Example\n\n`{EXAMPLE}`:\n\n```toml\n{}\n```\n", example.trim_end());
    out
}

fn key_row(key: &Key) -> String {
    let name = match key.kind {
        Kind::Table | Kind::Tables if key.section.is_empty() => header(key.name),
        Kind::Table | Kind::Tables => header(&format!("{}.{}", key.section, key.name)),
        _ => key.name.to_owned(),
    };
    let default = match key.presence {
        Presence::Required => "required".to_owned(),
        Presence::Default(value) if matches!(key.kind, Kind::Integer(..) | Kind::Bool) => {
            format!("`{value}`")
        }
        Presence::Default(value) => format!("`\"{value}\"`"),
        Presence::Optional(what) => plain(what),
    };
    format!("| `{name}` | {} | {} | {} |\n", cell(&kind(key.kind)), cell(&default), cell(&plain(key.doc)))
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Table => "section".into(),
        Kind::Tables => "any number of sections".into(),
        Kind::Integer(from, to) => format!("whole number, {from} to {to}"),
        Kind::IntegerList(from, to) => format!("array of whole numbers, {from} to {to}"),
        Kind::Bool => "`true` or `false`".into(),
        Kind::Text => "string".into(),
        Kind::TextList => "array of strings".into(),
        Kind::Choice(values) => {
            values.iter().map(|value| format!("`\"{value}\"`")).collect::<Vec<_>>().join(" or ")
        }
        Kind::Size => "size, as `\"6GiB\"`".into(),
        Kind::CpuList => "CPU list, as `\"2-7,10-15\"`".into(),
        Kind::PageCount => "whole number, or a table by node id".into(),
    }
}

/// Text in which Markdown would see emphasis or HTML outside code: `*kB`, `<name>`.
fn plain(text: &str) -> String {
    let escaped = |part: &str| part.replace('*', "\\*").replace('<', "\\<");
    let code = |(at, part): (usize, &str)| if at % 2 == 1 { part.to_owned() } else { escaped(part) };
    text.split('`').enumerate().map(code).collect::<Vec<_>>().join("`")
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// A manual page for the program and for each of its verbs.
fn manual() -> Result<BTreeMap<String, String>> {
    let mut command = rtkvm_tune::cli::command().disable_help_subcommand(true);
    command.build();
    let source = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
    let verbs: Vec<_> = command.get_subcommands().cloned().collect();
    let commands = [vec![command], verbs].concat();
    let names = commands.iter().map(|c| c.get_display_name().unwrap_or(c.get_name()).to_owned());
    let names: Vec<String> = names.collect();
    let mut pages = BTreeMap::new();
    for (command, name) in commands.into_iter().zip(&names) {
        let others: Vec<_> = names.iter().filter(|other| *other != name).map(|n| format!("{n}(8)")).collect();
        let mut page = Vec::new();
        let man = clap_mangen::Man::new(command).section("8").source(&source);
        man.render(&mut page)?;
        let page = String::from_utf8(page).context("a manual page is no UTF-8")?;
        // What follows the options of the program is its exit status.
        let page = page.replace(".SH EXTRA\nExit status: ", ".SH \"EXIT STATUS\"\n");
        let others = others.join(", ").replace('-', "\\-");
        let page = format!("{}\n.SH \"SEE ALSO\"\n{others}\n", page.trim_end());
        pages.insert(format!("{MAN}/{name}.8"), page);
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_are_up_to_date() {
        if let Err(error) = check(&root()) {
            panic!("{error:#}");
        }
    }

    #[test]
    fn nothing_but_code_is_taken_for_markup() {
        assert_eq!(plain("a_b `c*d` *e"), "a_b `c*d` \\*e");
        assert_eq!(cell("DIR|FILE"), "DIR\\|FILE");
    }
}
