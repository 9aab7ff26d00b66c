//! Boot loader entries of type #1: `loader/entries/*.conf`, one file for each entry of the menu.
//!
//! Source: the Boot Loader Specification (UAPI.1), "Type #1 Boot Loader Specification Entries".

use super::kernel_args::KernelArgs;
use std::cmp::Ordering;

/// The values of a key, in order.
pub fn values<'t>(text: &'t str, key: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| value(line, key))
}

fn value<'t>(line: &'t str, key: &str) -> Option<&'t str> {
    let rest = line.trim_end().trim_start().strip_prefix(key)?;
    let value = rest.trim_start_matches([' ', '\t']);
    (value.len() < rest.len() || rest.is_empty()).then_some(value)
}

/// The kernel arguments: `options`, of which there may be several, each going on where the one before it ends.
pub fn options(text: &str) -> KernelArgs {
    KernelArgs::parse(&values(text, "options").collect::<Vec<_>>().join(" "))
}

/// The entry with other arguments, in the place of its first `options`; further ones go, since the first has all.
pub fn with_options(text: &str, line: &KernelArgs) -> String {
    let mut out = String::with_capacity(text.len() + 256);
    let mut written = false;
    for one in text.split_inclusive('\n') {
        match value(one, "options") {
            None => out.push_str(one),
            Some(_) if written => {}
            Some(old) => {
                // The key as it is written, with the space behind it, and the end of the line.
                let key = one.trim_end().len() - old.len();
                let gap = if one[..key].ends_with([' ', '\t']) { "" } else { " " };
                out.push_str(&format!("{}{gap}{line}{}", &one[..key], &one[one.trim_end().len()..]));
                written = true;
            }
        }
    }
    if !written {
        let end = if out.is_empty() || out.ends_with('\n') { "" } else { "\n" };
        out.push_str(&format!("{end}options {line}\n"));
    }
    out
}

/// Whether it boots a Linux kernel of this system and is no rescue entry: those never get arguments of ours.
pub fn is_normal(name: &str, text: &str) -> bool {
    let kernel = values(text, "linux").next();
    let rescue = |word: &str| word.to_ascii_lowercase().contains("rescue");
    let named = rescue(name) || values(text, "title").any(rescue) || values(text, "version").any(rescue);
    kernel.is_some_and(|kernel| !kernel.contains("memtest") && !rescue(kernel)) && !named
}

/// The machine that an entry's name says it is of: the 32 hexadecimal digits in front of the kernel's version.
pub fn machine(name: &str) -> Option<&str> {
    let (id, _) = name.split_once('-')?;
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

/// The order of versions in names: numbers by their value, the rest by its bytes.
pub fn by_version(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let digits = |text: &[u8]| text.iter().take_while(|c| c.is_ascii_digit()).count();
        match (digits(a), digits(b)) {
            (0, 0) => match (a.split_first(), b.split_first()) {
                (Some((x, rest)), Some((y, others))) if x == y => (a, b) = (rest, others),
                (x, y) => return x.map(|(c, _)| c).cmp(&y.map(|(c, _)| c)),
            },
            (x, y) => {
                let number = |text: &[u8], count: usize| {
                    let text = &text[..count];
                    let zeros = text.iter().take_while(|c| **c == b'0').count();
                    (count - zeros, text[zeros..].to_vec())
                };
                if x == 0 || y == 0 {
                    return x.cmp(&y);
                }
                match number(a, x).cmp(&number(b, y)) {
                    Ordering::Equal => (a, b) = (&a[x..], &b[y..]),
                    other => return other,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEDORA: &str = "title Fedora Linux (6.8.5-301.fc40.x86_64) 40 (Server Edition)\nversion 6.8.5-301.fc40.x86_64\n\
                          linux /vmlinuz-6.8.5-301.fc40.x86_64\ninitrd /initramfs-6.8.5-301.fc40.x86_64.img\n\
                          options root=UUID=1 ro rhgb quiet \ngrub_users $grub_users\ngrub_class fedora\n";

    #[test]
    fn reads_and_writes_options() {
        assert_eq!(options(FEDORA).to_string(), "root=UUID=1 ro rhgb quiet");
        let written = with_options(FEDORA, &KernelArgs::parse("root=UUID=1 a=1"));
        assert_eq!(written, FEDORA.replace("root=UUID=1 ro rhgb quiet", "root=UUID=1 a=1"));
        let two = "title      a\noptions    b c\noptions\td\nlinux /l";
        assert_eq!(options(two).to_string(), "b c d");
        assert_eq!(with_options(two, &options(two)), "title      a\noptions    b c d\nlinux /l");
        assert_eq!(options("options\n").to_string(), "");
        assert_eq!(with_options("options\nlinux /l\n", &KernelArgs::parse("a")), "options a\nlinux /l\n");
        assert_eq!(with_options("linux /l", &KernelArgs::parse("a")), "linux /l\noptions a\n");
        assert_eq!(options("#options a\noptionsx b\nx-options c\n").to_string(), "");
    }

    #[test]
    fn rescue_entries_are_not_normal() {
        assert!(is_normal("m-6.8.conf", FEDORA));
        for (name, text) in [
            ("4b-0-rescue.conf", FEDORA.to_owned()),
            ("a.conf", FEDORA.replace("title Fedora", "title Fedora Rescue")),
            ("a.conf", FEDORA.replace("linux /vmlinuz", "linux /memtest86+")),
            ("a.conf", FEDORA.replace("linux /", "efi /")),
        ] {
            assert!(!is_normal(name, &text), "{name} {text}");
        }
        assert_eq!(machine(&format!("{}-6.8.conf", "0a".repeat(16))), Some(&*"0a".repeat(16)));
        assert_eq!(machine("ostree-1.conf"), None);
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let mut names = ["m-6.10.0-2", "m-6.9.0-10", "m-6.9.0-9", "m-6.9.0-rc", "l-7", "m-6.9.0-010a"];
        names.sort_by(|a, b| by_version(a, b));
        assert_eq!(names, ["l-7", "m-6.9.0-rc", "m-6.9.0-9", "m-6.9.0-10", "m-6.9.0-010a", "m-6.10.0-2"]);
    }
}
