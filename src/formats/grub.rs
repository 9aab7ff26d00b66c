//! GRUB as Debian and Ubuntu set it up: the generated grub.cfg, and our drop-in in /etc/default/grub.d.
//!
//! Source: /etc/grub.d/10_linux and grub-mkconfig of grub-common 2.06, GRUB manual ("Writing full
//! configuration files directly").

use super::kernel_args::{KernelArg, KernelArgs};
use super::shell_vars::{self, Value, Vars};
use std::cell::Cell;

/// What update-grub generates, and GRUB reads.
pub const GRUB_CFG: &str = "/boot/grub/grub.cfg";

/// The same where GRUB's folder is grub2: on Red Hat and SUSE.
pub const GRUB2_CFG: &str = "/boot/grub2/grub.cfg";

/// One Linux kernel that the boot menu offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The menu title, without the titles of its submenus.
    pub title: String,
    /// Whether it is a recovery entry, which never gets our arguments.
    pub recovery: bool,
    /// What GRUB passes to the kernel, without `BOOT_IMAGE=`. Variables of GRUB stay as written (`$vt_handoff`).
    pub args: KernelArgs,
    /// The kernel's path as GRUB sees it: without `/boot` where that is a file system of its own.
    pub kernel: String,
}

/// The Linux entries of a grub.cfg, in menu order, submenus included: those that grub-mkconfig made for this
/// system (the sections of `10_linux` and its kin), or all where it has no such section. Other systems' entries
/// (`30_os-prober`), hand-made ones, memory testers and Xen are left out.
pub fn entries(grub_cfg: &str) -> Vec<Entry> {
    let own = sections(grub_cfg);
    let grub_cfg = if own.is_empty() { grub_cfg } else { &own };
    let mut entries = Vec::new();
    let mut blocks: Vec<Option<String>> = Vec::new();
    for item in items(grub_cfg) {
        match item {
            Item::Open(words, _) => {
                let is_entry = words.first().is_some_and(|word| word == "menuentry");
                blocks.push(words.into_iter().nth(1).filter(|_| is_entry));
            }
            Item::Close(_) => _ = blocks.pop(),
            Item::Command(words) => {
                if let (Some(Some(title)), Some((kernel, args))) = (blocks.last(), linux_command(&words)) {
                    let bare = |name: &str| args.values(name).contains(&None);
                    let recovery = title.contains("recovery mode") || bare("single") || bare("recovery");
                    entries.push(Entry { title: title.clone(), recovery, args, kernel });
                }
            }
        }
    }
    entries
}

/// The text between the marks that grub-mkconfig puts around the output of the `10_linux` scripts.
fn sections(grub_cfg: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in grub_cfg.lines() {
        if line.starts_with("### BEGIN ") {
            inside = line.starts_with("### BEGIN /etc/grub.d/10_linux");
        } else if line.starts_with("### END ") {
            inside = false;
        } else if inside {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

const VARIABLE: &str = "GRUB_CMDLINE_LINUX_DEFAULT";
const DROP_IN_HEAD: &str = "\
# Written by rtkvm-tune: changes made here are lost. To change the arguments, edit the profile and run
# `rtkvm-tune apply`; to take them out, remove this file and run `update-grub`.
#
# Recovery entries do not use this variable, so recovery mode starts without these arguments: the way in
# should the machine not boot with them.
";

/// The full text of our drop-in, `/etc/default/grub.d/99-rtkvm-tune.cfg`, that adds the arguments to every
/// entry but recovery. It comes after the cloud images' `50-cloudimg-settings.cfg`, which assigns the variable.
///
/// With no arguments the text adds nothing; the caller then removes the file instead.
pub fn drop_in(args: &[KernelArg]) -> String {
    let args: String = args.iter().map(|arg| format!(" {arg}")).collect();
    format!("{DROP_IN_HEAD}{VARIABLE}=\"${{{VARIABLE}}}{args}\"\n")
}

/// The arguments of a text that [`drop_in`] wrote, whatever its comments; `None` if it holds anything else.
pub fn drop_in_args(text: &str) -> Option<Vec<KernelArg>> {
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let line = lines.next().filter(|_| lines.next().is_none())?;
    let rest =
        line.strip_prefix(VARIABLE)?.strip_prefix("=\"${")?.strip_prefix(VARIABLE)?.strip_prefix('}')?;
    let args = rest.strip_suffix('"')?;
    match args.strip_prefix(' ') {
        Some(args) => args.split(' ').map(|token| KernelArg::parse(token).ok()).collect(),
        None => args.is_empty().then(Vec::new),
    }
}

/// The arguments that grub-mkconfig will give every normal entry after `root=... ro`, from the text of
/// /etc/default/grub and the name and text of each file in /etc/default/grub.d.
///
/// `None` if only a shell, or only GRUB, can tell. Not predicted: `rootflags=` for btrfs, `$vt_handoff` of
/// Ubuntu.
pub fn predicted(default_grub: &str, drop_ins: &[(&str, &str)]) -> Option<KernelArgs> {
    // As the glob of grub-mkconfig: no hidden files, in byte order.
    let sourced = |name: &str| name.ends_with(".cfg") && !name.starts_with('.');
    let mut files: Vec<_> = drop_ins.iter().filter(|(name, _)| sourced(name)).collect();
    files.sort();
    let default = shell_vars::parse(default_grub);
    let vars = files.into_iter().fold(default, |vars, (_, text)| shell_vars::parse_with(vars, text));
    let line = format!("linux x {} {}", known(&vars, "GRUB_CMDLINE_LINUX")?, known(&vars, VARIABLE)?);
    match items(&line).as_slice() {
        [Item::Command(words)] => linux_command(words).map(|(_, args)| args),
        _ => None,
    }
}

/// The text of a variable, empty if it is not set.
fn known<'a>(vars: &'a Vars, name: &str) -> Option<&'a str> {
    match vars.get(name) {
        None => Some(""),
        Some(Value::Known(text)) => Some(text),
        Some(Value::Unknown) => None,
    }
}

/// Kernel and arguments of a `linux` command.
pub(super) fn linux_command(words: &[String]) -> Option<(String, KernelArgs)> {
    let (command, kernel, args) = match words {
        [command, kernel, args @ ..] => (command, kernel, args),
        _ => return None,
    };
    let is_linux = ["linux", "linuxefi", "linux16"].contains(&command.as_str());
    let line: Vec<String> = args.iter().map(|word| passed_on(word)).collect();
    (is_linux && !kernel.contains("memtest")).then(|| (kernel.clone(), KernelArgs::parse(&line.join(" "))))
}

/// One word as GRUB writes it into the kernel's command line.
fn passed_on(word: &str) -> String {
    let mut text = String::new();
    for (at, c) in word.char_indices() {
        let hex = |code: &str| code.len() >= 2 && code.bytes().take(2).all(|b| b.is_ascii_hexdigit());
        let is_code = word[at..].strip_prefix("\\x").is_some_and(hex);
        if matches!(c, '\\' | '\'' | '"') && !is_code {
            text.push('\\');
        }
        text.push(c);
    }
    if word.contains(' ') { format!("\"{text}\"") } else { text }
}

/// A piece of GRUB's language.
pub(super) enum Item {
    Command(Vec<String>),
    /// A block opens: the words in front of it, and the byte behind its brace.
    Open(Vec<String>, usize),
    /// A block closes: the byte of its brace.
    Close(usize),
}

/// Takes a script apart. Variables are not expanded.
pub(super) fn items(script: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    // The byte behind the character that `next` returned: what is peeked at is not yet counted by then.
    let at = Cell::new(0);
    let mut chars = script.chars().inspect(|c| at.set(at.get() + c.len_utf8())).peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' => words.extend(word.take()),
            '\n' | ';' | '&' | '|' | '<' | '>' => {
                words.extend(word.take());
                if !words.is_empty() {
                    items.push(Item::Command(std::mem::take(&mut words)));
                }
                // An operator is not part of the command in front of it: keep the two apart.
                if c != '\n' {
                    items.push(Item::Command(Vec::new()));
                }
            }
            '{' | '}' => {
                words.extend(word.take());
                let words = std::mem::take(&mut words);
                match c {
                    '{' => items.push(Item::Open(words, at.get())),
                    _ if words.is_empty() => items.push(Item::Close(at.get() - 1)),
                    _ => items.extend([Item::Command(words), Item::Close(at.get() - 1)]),
                }
            }
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '\'' => {
                let word = word.get_or_insert_default();
                word.extend(chars.by_ref().take_while(|c| *c != '\''));
            }
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(c) = chars.next_if(|c| *c != '"') {
                    let escaped = chars.next_if(|next| c == '\\' && "$\"\\\n".contains(*next));
                    word.extend(Some(escaped.unwrap_or(c)).filter(|c| escaped.is_none() || *c != '\n'));
                }
                chars.next();
            }
            '$' => {
                let word = word.get_or_insert_default();
                word.push(c);
                if let Some(open) = chars.next_if_eq(&'{') {
                    word.push(open);
                    word.extend(std::iter::from_fn(|| chars.next_if(|c| *c != '}' && *c != '\n')));
                    word.extend(chars.next_if_eq(&'}'));
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if !words.is_empty() {
        items.push(Item::Command(words));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn args(text: &str) -> Vec<KernelArg> {
        text.split_whitespace().map(|token| KernelArg::parse(token).unwrap()).collect()
    }

    const OURS: &str = "isolcpus=managed_irq,domain,2-7 default_hugepagesz=1G hugepagesz=1G hugepages=0:4";

    #[test]
    fn reads_a_generated_file() {
        let entries = entries(include_str!("../../tests/grub/debian12-grub.cfg"));
        let titles: Vec<_> = entries.iter().map(|entry| (entry.title.as_str(), entry.recovery)).collect();
        let expected = [
            ("Debian GNU/Linux", false),
            ("Debian GNU/Linux, with Linux 6.1.0-0-rt-amd64", false),
            ("Debian GNU/Linux, with Linux 6.1.0-0-rt-amd64 (recovery mode)", true),
        ];
        assert_eq!(titles, expected);
        for entry in entries {
            assert_eq!(entry.kernel, "/boot/vmlinuz-6.1.0-0-rt-amd64");
            assert_eq!(entry.args.values("root"), [Some("/dev/vda1")]);
            assert_eq!(entry.args.contains_run(&args(OURS)), !entry.recovery, "{}", entry.title);
        }
    }

    #[test]
    fn reads_grubs_language() {
        let text = "
            function f { set a=\"}\"; }
            linux /boot/outside a
            menuentry 'Memory test' { linux16 /boot/memtest86+.bin console=ttyS0 }
            menuentry 'Xen' { multiboot /boot/xen.gz; module /boot/vmlinuz a }
            submenu \"More\" { menuentry It\\'s\\ \"Li\\\"nux\" --id x {
                if [ x${p} = y ]; then insmod a; fi # linux /boot/comment a
                linuxefi /vmlinuz root=UUID=1 a=\"b c\" 'd=e f' \\
                    g=\\\\x2d $vt_handoff ${tuned_params} h#i
            } }
            menuentry 'Rettung' {
                linux /vmlinuz-2 single
            }";
        let entries = entries(text);
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].title.as_str(), entries[0].recovery), ("It's Li\"nux", false));
        let expected = "root=UUID=1 \"a=b c\" \"d=e f\" g=\\x2d $vt_handoff ${tuned_params} h#i";
        assert_eq!(entries[0].args.to_string(), expected);
        assert_eq!(entries[0].args.values("a"), [Some("b c")]);
        assert!(entries[1].recovery);
    }

    #[test]
    fn drop_in_reads_back() {
        let text = drop_in(&args(OURS));
        assert_eq!(drop_in_args(&text), Some(args(OURS)));
        assert_eq!(drop_in_args(&drop_in(&[])), Some(vec![]));
        assert!(text.ends_with("hugepages=0:4\"\n"), "{text}");
        for other in [
            "",
            "GRUB_TIMEOUT=1\n",
            &format!("{text}GRUB_TIMEOUT=1\n"),
            &text.replace("hugepages=0:4", "hugepages=$(id)"),
            &text.replace("hugepages=0:4\"", "hugepages=0:4\\n\"x"),
            &text.replace("LINUX_DEFAULT=", "LINUX="),
        ] {
            assert_eq!(drop_in_args(other), None, "{other}");
        }
    }

    #[test]
    fn predicts_the_command_line() {
        let default = "GRUB_DISTRIBUTOR=`lsb_release -i -s`\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n\
                       GRUB_CMDLINE_LINUX=\"net.ifnames=0\"\n";
        let ours = drop_in(&args("nosmt"));
        let cloud = "GRUB_CMDLINE_LINUX_DEFAULT=\"console=ttyS0\"";
        let line = |default: &str, files: &[(&str, &str)]| predicted(default, files).map(|a| a.to_string());
        let files = [("99-rtkvm-tune.cfg", ours.as_str()), ("50-cloudimg-settings.cfg", cloud)];
        assert_eq!(line(default, &files).as_deref(), Some("net.ifnames=0 console=ttyS0 nosmt"));
        let early = [("40-rtkvm-tune.cfg", ours.as_str()), ("50-cloudimg-settings.cfg", cloud)];
        assert_eq!(line(default, &early).as_deref(), Some("net.ifnames=0 console=ttyS0"));
        let not_read =
            [("99-rtkvm-tune.cfg.dpkg-old", "GRUB_CMDLINE_LINUX=x"), (".a.cfg", "GRUB_CMDLINE_LINUX=x")];
        assert_eq!(line(default, &not_read).as_deref(), Some("net.ifnames=0 quiet"));
        assert_eq!(line("", &[]).as_deref(), Some(""));
        let quoted = "GRUB_CMDLINE_LINUX='a=\"b c\" d'";
        assert_eq!(line(quoted, &[]).as_deref(), Some("\"a=b c\" d"));
        for unknown in ["GRUB_CMDLINE_LINUX=`x`", ". /etc/x", "GRUB_CMDLINE_LINUX='a; b'"] {
            assert_eq!(line(unknown, &[]), None, "{unknown}");
        }
        // Behind `--` the arguments would go to init.
        let init =
            predicted("GRUB_CMDLINE_LINUX_DEFAULT='quiet -- x'", &[("99-rtkvm-tune.cfg", &ours)]).unwrap();
        assert!(!init.contains_run(&args("nosmt")));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(menuentry 'a' \\{)?[ -~\n]{0,60}") {
            let _ = entries(&text);
            let _ = drop_in_args(&text);
            let _ = predicted(&text, &[("a.cfg", &text)]);
        }
    }

    #[test]
    fn other_systems_entries_are_not_ours() {
        let entry = |title: &str, line: &str| format!("menuentry '{title}' {{\n linux /vmlinuz {line}\n}}\n");
        let part = |script: &str, text: String| {
            format!("### BEGIN /etc/grub.d/{script} ###\n{text}### END /etc/grub.d/{script} ###\n")
        };
        let text = part("10_linux", entry("Debian", "quiet"))
            + &part("30_os-prober", entry("Other", "splash"))
            + &part("40_custom", entry("Mine", "single"));
        let titles: Vec<_> = entries(&text).into_iter().map(|entry| entry.title).collect();
        assert_eq!(titles, ["Debian"]);
        assert_eq!(entries(&entry("By hand", "quiet")).len(), 1, "where nothing is marked all count");
    }
}
