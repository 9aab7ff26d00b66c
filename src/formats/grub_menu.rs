//! The boot menu of a generated grub.cfg: which entry boots by default, and the same entry once more with other
//! kernel arguments, to be booted once.
//!
//! Source: grub-mkconfig, grub-reboot and /etc/grub.d/00_header of grub-common 2.06; GRUB manual, "default".

use super::grub::{Item, items, linux_command};
use super::kernel_args::KernelArgs;

/// One entry or submenu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node<'t> {
    /// Its title.
    pub title: String,
    /// Its `--id`.
    pub id: Option<String>,
    /// Whether it boots without a password where the menu has one.
    unrestricted: bool,
    /// Whether GRUB offers it only under a condition, so that numbers do not count it for sure.
    conditional: bool,
    /// An entry's commands as they are written.
    body: &'t str,
    /// A submenu's entries; `None` for an entry.
    below: Option<Vec<Node<'t>>>,
}

/// The menu of a grub.cfg.
pub fn menu(grub_cfg: &str) -> Vec<Node<'_>> {
    // The innermost open block is the last; what is no part of the menu is `None`.
    let mut open: Vec<(Option<Node>, Vec<Node>, usize)> = vec![(None, Vec::new(), 0)];
    let mut conditions = 0_usize;
    for item in items(grub_cfg) {
        match item {
            Item::Open(words, start) => open.push((node(&words, conditions > 0), Vec::new(), start)),
            Item::Close(end) if open.len() > 1 => {
                let Some((node, below, start)) = open.pop() else { continue };
                let Some((_, around, _)) = open.last_mut() else { continue };
                match node {
                    Some(node) => {
                        let below = node.below.map(|_| below);
                        around.push(Node { body: &grub_cfg[start..end], below, ..node });
                    }
                    None => around.extend(below),
                }
            }
            Item::Close(_) => {}
            Item::Command(words) => {
                let keyword = |word: &&String| ["then", "else", "do"].contains(&word.as_str());
                match words.iter().find(|word| !keyword(word)).map(String::as_str) {
                    Some("if") => conditions += 1,
                    Some("fi") => conditions = conditions.saturating_sub(1),
                    _ => {}
                }
            }
        }
    }
    open.swap_remove(0).1
}

/// The node whose block these words open.
fn node(words: &[String], conditional: bool) -> Option<Node<'static>> {
    let [command, title, options @ ..] = words else { return None };
    let below = match command.as_str() {
        "menuentry" => None,
        "submenu" => Some(Vec::new()),
        _ => return None,
    };
    // grub-mkconfig writes the variable for the sake of ancient GRUBs.
    let is_id = |word: &String| ["--id", "$menuentry_id_option"].contains(&word.as_str());
    let split = options.iter().position(is_id).and_then(|at| options.get(at + 1)).cloned();
    let joined = options.iter().find_map(|word| word.strip_prefix("--id=")).map(str::to_owned);
    let unrestricted = options.iter().any(|word| word == "--unrestricted");
    Some(Node { title: title.clone(), id: split.or(joined), unrestricted, conditional, body: "", below })
}

impl Node<'_> {
    /// The kernel and its arguments, if it boots Linux in a way that is known here.
    pub fn linux(&self) -> Option<(String, KernelArgs)> {
        items(self.body).iter().find_map(|item| match item {
            Item::Command(words) => linux_command(words),
            _ => None,
        })
    }

    /// The same entry under another title and id. On the kernel's line `without` is taken out, and `with` put at
    /// the end; both are written as grub-mkconfig writes arguments. It is not remembered as the last one chosen.
    ///
    /// # Errors
    /// What about the entry is not known here.
    pub fn again(&self, title: &str, id: &str, without: &str, with: &str) -> Result<String, String> {
        let mut body = String::new();
        for line in self.body.trim_matches('\n').lines() {
            let command = line.split_whitespace().next().unwrap_or_default();
            match command {
                "savedefault" => continue,
                "linux" | "linuxefi" | "linux16" => {
                    let line = line.trim_end();
                    let line = match without {
                        "" => line.to_owned(),
                        _ => format!("{line} ").replace(&format!(" {without} "), " "),
                    };
                    body += &format!("{} {with}\n", line.trim_end());
                }
                _ => body += &format!("{}\n", line.trim_end()),
            }
            if line.trim_end().ends_with('\\') {
                return Err("one of its lines goes on in the next".into());
            }
        }
        let unrestricted = if self.unrestricted { " --unrestricted" } else { "" };
        let entry = format!("menuentry '{title}' --id {id}{unrestricted} {{\n{body}}}\n");
        let made = menu(&entry);
        let [made] = &made[..] else { return Err("its braces do not pair".into()) };
        match made.linux() {
            Some((_, args)) if args.to_string().ends_with(with) => Ok(entry),
            _ => Err("it does not boot Linux by a command of its own".into()),
        }
    }

    /// The files that GRUB loads, kernel first, by their names in /boot.
    ///
    /// # Errors
    /// A name that a shell would not take as it is.
    pub fn files(&self) -> Result<Vec<String>, String> {
        let mut files = Vec::new();
        for item in items(self.body) {
            let Item::Command(words) = item else { continue };
            let named = match words.first().map(String::as_str) {
                Some("linux" | "linuxefi" | "linux16") => words.get(1..2),
                Some("initrd" | "initrdefi" | "initrd16") => words.get(1..),
                _ => None,
            };
            files.extend(named.unwrap_or_default().iter().map(|path| base(path).to_owned()));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
        match files.iter().find(|name| name.is_empty() || !name.chars().all(plain)) {
            Some(name) => Err(format!("it loads a file of the name `{}`", name.escape_debug())),
            None => Ok(files),
        }
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether the configuration boots `next_entry` of the environment block, and clears it before it does.
pub fn boots_once(grub_cfg: &str) -> bool {
    let mut words = items(grub_cfg).into_iter().filter_map(|item| match item {
        Item::Command(words) => Some(words.join(" ")),
        _ => None,
    });
    // In this order: a flag that is saved before it is emptied stays.
    let steps = ["load_env", "set default=${next_entry}", "set next_entry=", "save_env next_entry"];
    steps.iter().all(|step| words.any(|command| command == *step || command == format!("then {step}")))
}

/// The value of `default` when no entry is asked for once; the variables of GRUB in it are those of the
/// environment block, by `saved`.
///
/// # Errors
/// Why it is not known.
pub fn default(grub_cfg: &str, saved: Option<&str>) -> Result<String, String> {
    let mut values = Vec::new();
    for item in items(grub_cfg) {
        let Item::Command(words) = item else { continue };
        let value = match &words[..] {
            [set, value] if set == "set" => value.strip_prefix("default="),
            [value] => value.strip_prefix("default="),
            _ => None,
        };
        values.extend(value.filter(|value| *value != "${next_entry}").map(str::to_owned));
    }
    values.dedup();
    match &values[..] {
        [] => Err("it sets no default".into()),
        [value] if value == "${saved_entry}" => Ok(saved.unwrap_or_default().to_owned()),
        [value] if value.contains('$') => Err(format!("its default is `{value}`")),
        [value] => Ok(value.clone()),
        [one, other, ..] => Err(format!("its default is `{one}` or `{other}`")),
    }
}

/// The entry that GRUB boots for a value of `default`: a number, a title or an id, or several with `>` between
/// them for submenus. What names none is the first.
///
/// # Errors
/// Why it is not known.
pub fn chosen<'m, 't>(menu: &'m [Node<'t>], default: &str) -> Result<&'m Node<'t>, String> {
    let (node, rest) = match number(default) {
        Some((number, rest)) => {
            let counted = menu.get(..=number).unwrap_or_default();
            if counted.iter().any(|node| node.conditional) {
                return Err(format!("number {number} of the menu depends on conditions"));
            }
            (menu.get(number), rest)
        }
        None => {
            let named = menu.iter().find_map(|node| {
                let names = [Some(&node.title), node.id.as_ref()].into_iter().flatten();
                names.filter_map(|name| after(default, name)).next().map(|rest| (node, rest))
            });
            named.map_or((None, ""), |(node, rest)| (Some(node), rest))
        }
    };
    let node = match (node, menu.first()) {
        (Some(node), _) => node,
        (None, Some(first)) if !first.conditional => first,
        (None, _) => return Err("it names no entry, and there is no first one for sure".into()),
    };
    match &node.below {
        Some(below) => chosen(below, rest),
        None => Ok(node),
    }
}

/// A leading number, and what is behind it and a `>`.
fn number(default: &str) -> Option<(usize, &str)> {
    let end = default.find(|c: char| !c.is_ascii_digit()).unwrap_or(default.len());
    let number = if default.is_empty() { 0 } else { default[..end].parse().ok()? };
    Some((number, default[end..].trim_start().trim_start_matches('>')))
}

/// What is behind `name` and a `>` in a path of titles and ids, where `>>` stands for the letter itself.
fn after<'d>(path: &'d str, name: &str) -> Option<&'d str> {
    let rest = path.strip_prefix(&name.replace('>', ">>"))?;
    match rest.strip_prefix('>') {
        Some(below) => Some(below).filter(|below| !below.starts_with('>')),
        None => rest.is_empty().then_some(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GENERATED: &str = include_str!("../../tests/grub/debian12-grub.cfg");
    const OURS: &str = "isolcpus=managed_irq,domain,2-7 default_hugepagesz=1G hugepagesz=1G hugepages=0:4";

    #[test]
    fn finds_the_default_entry() {
        let firmware = "if [ \"$grub_platform\" = efi ]; then\n menuentry 'Firmware' {\n fwsetup\n }\nfi\n";
        let text = format!("{GENERATED}{firmware}menuentry 'Last' {{\n}}\n");
        let menu = menu(&text);
        let titles: Vec<_> = menu.iter().map(|node| node.title.as_str()).collect();
        assert_eq!(titles, ["Debian GNU/Linux", "Advanced options for Debian GNU/Linux", "Firmware", "Last"]);
        assert_eq!(default(GENERATED, None).as_deref(), Ok("0"));
        let advanced = "gnulinux-advanced-0f2c1d2e-7a51-4c7d-9d0b-5a1f3e6b8c90";
        let normal = "Debian GNU/Linux, with Linux 6.1.0-0-rt-amd64";
        for (default, title) in [
            ("0", "Debian GNU/Linux"),
            ("", "Debian GNU/Linux"),
            ("7", "Debian GNU/Linux"),
            ("gone", "Debian GNU/Linux"),
            ("Last", "Last"),
            ("1", normal),
            ("1>0", normal),
            (advanced, normal),
            (&format!("{advanced}>{normal}"), normal),
            (&format!("Advanced options for Debian GNU/Linux>{normal}"), normal),
            (&format!("{advanced}>1"), &format!("{normal} (recovery mode)")),
        ] {
            assert_eq!(chosen(&menu, default).map(|node| node.title.as_str()), Ok(title), "{default}");
        }
        for default in ["2", "3"] {
            assert!(chosen(&menu, default).is_err(), "whether the firmware has its entry is not known");
        }
        assert!(chosen(&[], "0").is_err());
    }

    #[test]
    fn the_default_is_what_grub_would_take() {
        let saved = GENERATED.replace("set default=\"0\"", "set default=\"${saved_entry}\"");
        assert_eq!(default(&saved, Some("a>b")).as_deref(), Ok("a>b"));
        assert_eq!(default(&saved, None).as_deref(), Ok(""));
        assert!(default(&format!("{GENERATED}set default=5\n"), None).is_err());
        assert!(default(&GENERATED.replace("set default=\"0\"", "set default=\"${x}\""), None).is_err());
        assert!(default("", None).is_err());
    }

    #[test]
    fn the_flag_must_be_cleared() {
        assert!(boots_once(GENERATED));
        let line = |text: &str| GENERATED.replace(text, "");
        for broken in [line("   save_env next_entry\n"), line("  load_env\n"), line("   set next_entry=\n")] {
            assert!(broken.len() < GENERATED.len() && !boots_once(&broken));
        }
        assert!(!boots_once(&GENERATED.replace("set default=\"${next_entry}\"", "set default=\"0\"")));
    }

    #[test]
    fn the_entry_again_has_the_other_arguments() {
        let menu_ = menu(GENERATED);
        let normal = chosen(&menu_, "0").unwrap();
        let text = normal.again("Trial", "the-trial", OURS, "isolcpus=4 panic=30").unwrap();
        let made = menu(&text);
        assert_eq!((made[0].title.as_str(), made[0].id.as_deref()), ("Trial", Some("the-trial")));
        let (kernel, args) = made[0].linux().unwrap();
        let (same, before) = normal.linux().unwrap();
        assert_eq!(kernel, same);
        assert_eq!(args.to_string(), before.to_string().replace(OURS, "isolcpus=4 panic=30"));
        let initrd = |text: &str| text.lines().find(|line| line.contains("initrd")).map(str::to_owned);
        assert_eq!(initrd(&text), initrd(GENERATED));
        let added = normal.again("Trial", "the-trial", "", "panic=30").unwrap();
        assert!(menu(&added)[0].linux().unwrap().1.to_string().ends_with(&format!("{OURS} panic=30")));
        assert_eq!(normal.files().unwrap(), ["vmlinuz-6.1.0-0-rt-amd64", "initrd.img-6.1.0-0-rt-amd64"]);
    }

    #[test]
    fn entries_of_other_kinds_are_refused() {
        let only = |text: &str| menu(text)[0].again("T", "t", "", "panic=30");
        assert!(only("menuentry 'a' { chainloader +1\n }").is_err());
        assert!(only("menuentry 'a' {\n linux /vmlinuz a \\\n b\n}").is_err());
        assert!(only("menuentry 'a' {\n linux /vmlinuz a # b\n}").is_err());
        let text = only("menuentry 'a' --unrestricted {\n savedefault\n linux /vmlinuz a\n}").unwrap();
        assert_eq!(text, "menuentry 'T' --id t --unrestricted {\n linux /vmlinuz a panic=30\n}\n");
        let odd = menu("menuentry 'a' {\n linux '/vmlinuz $(id)' a\n}");
        assert!(odd[0].files().is_err());
    }

    #[test]
    fn names_may_hold_the_separator() {
        let menu = menu("menuentry 'a' {\n}\nsubmenu 'b>c' { menuentry 'd' --id=e {\n}\n}");
        assert_eq!(chosen(&menu, "b>>c>e").map(|node| node.title.as_str()), Ok("d"));
        assert_eq!(chosen(&menu, "b>c>e").map(|node| node.title.as_str()), Ok("a"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(menuentry 'a' \\{|submenu b \\{)?[ -~\n\u{e4}]{0,60}", value in "[ -~]{0,9}") {
            let menu = menu(&text);
            let _ = (boots_once(&text), default(&text, Some(&value)), chosen(&menu, &value));
            for node in &menu {
                let _ = (node.linux(), node.files(), node.again("t", "t", &value, "panic=30"));
            }
        }
    }
}
