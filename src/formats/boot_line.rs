//! Kernel arguments of ours on a line that is somebody else's: which of them are ours, and how the line is written
//! anew with others, every other argument being left as it is.
//!
//! Source: the Boot Loader Specification (UAPI.1), type #1 entries; kernel-install(8) for `/etc/kernel/cmdline`; the
//! GRUB manual for `/etc/default/grub`; the `$kernelopts` of RHEL 8's grubenv.

use super::grubenv::Environment;
use super::kernel_args::{KernelArg, KernelArgs, same_name};
use super::shell_vars;
use super::{HostPath, boot_entry};

/// What new kernels get by kernel-install.
pub const KERNEL_CMDLINE: &str = "/etc/kernel/cmdline";
/// The settings of grub-mkconfig.
pub const DEFAULT_GRUB: &str = "/etc/default/grub";
/// The variable of GRUB's environment block that RHEL 8's entries name.
pub const KERNELOPTS: &str = "kernelopts";
/// The variable of `/etc/default/grub` that recovery entries do not have.
const NORMAL: &str = "GRUB_CMDLINE_LINUX_DEFAULT";

/// How a file holds the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `options` of a boot loader entry.
    Entry,
    /// The whole file.
    Whole,
    /// `kernelopts` in an environment block of GRUB's.
    Environment,
    /// `GRUB_CMDLINE_LINUX_DEFAULT="..."` in a shell file.
    Assignment,
}

impl Form {
    /// By the file's name.
    pub fn of(path: &HostPath) -> Form {
        match path.as_str() {
            KERNEL_CMDLINE => Form::Whole,
            DEFAULT_GRUB => Form::Assignment,
            name if name.ends_with(".conf") => Form::Entry,
            _ => Form::Environment,
        }
    }

    /// The line.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn line(self, text: &str) -> Result<KernelArgs, String> {
        match self {
            Form::Entry => Ok(boot_entry::options(text)),
            Form::Whole if text.lines().any(|line| line.trim_start().starts_with('#')) => {
                Err("it has comments".into())
            }
            Form::Whole => Ok(KernelArgs::parse(text)),
            Form::Environment => {
                let block = Environment::parse(text.as_bytes())?;
                let value = block.get(KERNELOPTS).ok_or_else(|| format!("it has no {KERNELOPTS}"))?;
                Ok(KernelArgs::parse(value))
            }
            Form::Assignment => {
                assigned(text).map(|found| KernelArgs::parse(found.map_or("", |(_, raw)| raw)))
            }
        }
    }

    /// The text with another line.
    ///
    /// # Errors
    /// Why it cannot be written.
    fn with(self, text: &str, line: &KernelArgs) -> Result<String, String> {
        let written = match self {
            Form::Entry => boot_entry::with_options(text, line),
            Form::Whole => line.to_string(),
            Form::Environment => Environment::with(text.as_bytes(), KERNELOPTS, &line.to_string())?,
            Form::Assignment => match assigned(text)? {
                Some((at, raw)) => {
                    // With its quotes, where it has them.
                    let quoted = text[..at].ends_with(['"', '\'']);
                    let quote = if quoted { "" } else { "\"" };
                    format!("{}{quote}{line}{quote}{}", &text[..at], &text[at + raw.len()..])
                }
                None => {
                    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
                    format!("{text}{end}{NORMAL}=\"{line}\"\n")
                }
            },
        };
        match self.line(&written) {
            Ok(back) if back.tokens().eq(line.tokens()) => Ok(written),
            _ => Err("it does not read back as it was written".into()),
        }
    }
}

/// Where the assignment has its value, and the value as it is written; `None` if there is no assignment.
fn assigned(text: &str) -> Result<Option<(usize, &str)>, String> {
    let mut found = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let body = line.trim_end();
        if let Some(value) = body.strip_prefix(NORMAL).and_then(|rest| rest.strip_prefix('=')) {
            let at = start + NORMAL.len() + 1;
            let quote = value.chars().next().filter(|c| "\"'".contains(*c));
            let inner = match quote {
                Some(quote) => {
                    value[1..].split_once(quote).filter(|(_, rest)| rest.is_empty()).map(|(i, _)| i)
                }
                None => Some(value),
            };
            // An escaped quote, an expansion, a comment behind it: only a shell can tell.
            let plain =
                |inner: &&str| !inner.contains(['\\', '$', '`']) && (quote.is_some() || is_bare(inner));
            let Some(inner) = inner.filter(plain) else { return Err(by_hand()) };
            found = Some((at + usize::from(quote.is_some()), inner));
        }
        start += line.len();
    }
    let vars = shell_vars::parse(text);
    let same = match (&found, vars.get(NORMAL)) {
        (None, None) => true,
        (Some((_, inner)), Some(shell_vars::Value::Known(value))) => inner == value,
        _ => false,
    };
    if same { Ok(found) } else { Err(by_hand()) }
}

fn is_bare(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.,:=/+@%".contains(c))
}

fn by_hand() -> String {
    format!("only a shell can tell what {NORMAL} is: write it as one plain line in double quotes")
}

/// Arguments that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The arguments in order.
    pub arguments: Vec<KernelArg>,
    /// Whether the kernel takes one value only.
    pub unique: bool,
}

/// A line written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The whole file.
    pub text: String,
    /// The arguments on the line that are ours.
    pub ours: Vec<KernelArg>,
}

/// What was known of a line before.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// The arguments on it that are ours; they go, every time they are there.
    pub ours: &'a [KernelArg],
    /// The file before our first touch: what we replaced on it comes back.
    pub first: Option<&'a str>,
}

/// Writes the line of a file anew. What somebody else put there as it is wanted stays theirs, where it is; what is
/// wanted besides comes after the last argument and is ours.
///
/// # Errors
/// Why the line cannot be read or written.
pub fn rewrite(form: Form, text: &str, known: Known, wanted: &[Wanted]) -> Result<Rewritten, String> {
    let before = form.line(text)?;
    let mut line = before.clone();
    line.take_out(known.ours);
    let mut ours: Vec<KernelArg> = Vec::new();
    let mut beside: Vec<KernelArg> = Vec::new();
    for group in wanted.iter().filter(|group| !holds(&line, group)) {
        match group.unique {
            true => ours.extend_from_slice(&group.arguments),
            false => beside.extend_from_slice(&group.arguments),
        }
    }
    if let Some(first) = known.first {
        let first = form.line(first)?;
        let set_again = |arg: &&KernelArg| !ours.iter().any(|other| same_name(other.name(), arg.name()));
        let done: Vec<_> = known.ours.iter().filter(set_again).cloned().collect();
        // Somebody else's value of that name is the newer word.
        if line.named_like(&done).next().is_none() {
            let back: Vec<_> = first.named_like(&done).map(str::to_owned).collect();
            line.append(back.iter().map(String::as_str));
        }
    }
    line.set(&ours);
    ours.append(&mut beside);
    let new = ours.iter().filter(|arg| !line.values(arg.name()).contains(&arg.value()));
    let new: Vec<_> = new.map(ToString::to_string).collect();
    line.append(new.iter().map(String::as_str));
    let sorted = |line: &KernelArgs| {
        let mut words: Vec<_> = line.tokens().map(str::to_owned).collect();
        words.sort_unstable();
        words
    };
    // The same words, with somebody else's behind ours: that is in line.
    if sorted(&before) == sorted(&line) && wanted.iter().all(|group| before.contains_run(&group.arguments)) {
        return Ok(Rewritten { text: text.to_owned(), ours });
    }
    Ok(Rewritten { text: form.with(text, &line)?, ours })
}

/// Whether a line has what is wanted, and nothing against it.
fn holds(line: &KernelArgs, wanted: &Wanted) -> bool {
    let alone = match &wanted.arguments[..] {
        [one] if wanted.unique => line.values(one.name()).iter().all(|value| *value == one.value()),
        _ => true,
    };
    alone && line.contains_run(&wanted.arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn args(text: &str) -> Vec<KernelArg> {
        text.split_whitespace().map(|token| KernelArg::parse(token).unwrap()).collect()
    }

    fn wanted(groups: &[&str]) -> Vec<Wanted> {
        let unique = |group: &&&str| !group.starts_with("console=");
        groups.iter().map(|g| Wanted { arguments: args(g), unique: unique(&g) }).collect()
    }

    const PAGES: &str = "default_hugepagesz=1G hugepagesz=1G hugepages=0:4";

    /// The line, and what is ours on it.
    fn line(now: &str, ours: &str, first: Option<&str>, groups: &[&str]) -> (String, String) {
        let known = Known { ours: &args(ours), first };
        let made = rewrite(Form::Whole, now, known, &wanted(groups)).unwrap();
        let ours: Vec<_> = made.ours.iter().map(ToString::to_string).collect();
        (made.text, ours.join(" "))
    }

    #[test]
    fn what_is_ours_comes_last_and_the_rest_stays() {
        let same = |text: &str, ours: &str| (text.to_owned(), ours.to_owned());
        let both = ["isolcpus=2-7", PAGES];
        let ours = format!("isolcpus=2-7 {PAGES}");
        let made = format!("root=x  ro a=\"b c\" {ours}\n");
        assert_eq!(line("root=x  ro a=\"b c\"\n", "", None, &both), same(&made, &ours));
        // Again, from its own work, and with everything doubled by somebody.
        assert_eq!(line(&made, &ours, None, &both), same(&made, &ours));
        let doubled = made.replace('\n', &format!(" {ours}\n"));
        assert_eq!(line(&doubled, &ours, None, &both), same(&made, &ours));
        // Back to nothing, with what came meanwhile.
        assert_eq!(
            line(&made.replace('\n', " b=1\n"), &ours, None, &[]),
            same("root=x  ro a=\"b c\" b=1\n", "")
        );
        // What others put behind ours since is no reason to write.
        let behind = made.replace('\n', " b=1\n");
        assert_eq!(line(&behind, &ours, None, &both), same(&behind, &ours));
        // Arguments of init stay behind ours.
        assert_eq!(line("ro -- x", "", None, &["nosmt"]), same("ro nosmt -- x", "nosmt"));
    }

    #[test]
    fn what_others_set_alike_stays_theirs() {
        let (text, ours) = line("ro nosmt quiet", "", None, &["nosmt", "skew_tick=1"]);
        assert_eq!((text.as_str(), ours.as_str()), ("ro nosmt quiet skew_tick=1", "skew_tick=1"));
        assert_eq!(line(&text, &ours, Some("ro nosmt quiet"), &[]).0, "ro nosmt quiet");
        let (text, ours) = line("console=tty0", "", None, &["console=ttyS0", "console=tty0"]);
        assert_eq!((text.as_str(), ours.as_str()), ("console=tty0 console=ttyS0", "console=ttyS0"));
        // Pages of another size that others count alike.
        let two = "hugepagesz=2M hugepages=4 hugepagesz=1G hugepages=4";
        assert_eq!(line(two, "hugepagesz=1G hugepages=4", None, &[]).0, "hugepagesz=2M hugepages=4");
    }

    #[test]
    fn what_was_replaced_comes_back() {
        let first = "ro isolcpus=1 hugepagesz=1G hugepages=9 quiet";
        let (text, ours) = line(first, "", None, &["isolcpus=2-7", PAGES]);
        assert_eq!(text, format!("ro quiet isolcpus=2-7 {PAGES}"));
        assert_eq!(line(&text, &ours, Some(first), &[]).0, "ro quiet isolcpus=1 hugepagesz=1G hugepages=9");
        assert_eq!(
            line(&text, &ours, Some(first), &["isolcpus=2-7"]).0,
            "ro quiet hugepagesz=1G hugepages=9 isolcpus=2-7"
        );
        // Unless somebody gave it another value since.
        assert_eq!(line("ro isolcpus=3", "isolcpus=2-7", Some("isolcpus=1"), &[]).0, "ro isolcpus=3");
    }

    #[test]
    fn assignments_are_edited_in_place() {
        let rewrite = |text: &str| rewrite(Form::Assignment, text, Known::default(), &wanted(&["nosmt"]));
        for (text, made) in [
            (
                "A=1\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet splash\" \nB=2\n",
                "A=1\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet splash nosmt\" \nB=2\n",
            ),
            ("GRUB_CMDLINE_LINUX_DEFAULT='a=\"b c\"'\n", "GRUB_CMDLINE_LINUX_DEFAULT='a=\"b c\" nosmt'\n"),
            ("GRUB_CMDLINE_LINUX_DEFAULT=quiet", "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet nosmt\""),
            ("GRUB_CMDLINE_LINUX_DEFAULT=", "GRUB_CMDLINE_LINUX_DEFAULT=\"nosmt\""),
            ("A=1", "A=1\nGRUB_CMDLINE_LINUX_DEFAULT=\"nosmt\"\n"),
            (
                "GRUB_CMDLINE_LINUX_DEFAULT=x\nGRUB_CMDLINE_LINUX_DEFAULT=\"y\"\n",
                "GRUB_CMDLINE_LINUX_DEFAULT=x\nGRUB_CMDLINE_LINUX_DEFAULT=\"y nosmt\"\n",
            ),
        ] {
            assert_eq!(rewrite(text).map(|made| made.text).as_deref(), Ok(made));
        }
        for text in [
            "GRUB_CMDLINE_LINUX_DEFAULT=\"$X\"\n",
            "GRUB_CMDLINE_LINUX_DEFAULT=\"a\" # b\n",
            "GRUB_CMDLINE_LINUX_DEFAULT=\"a\nb\"\n",
            "GRUB_CMDLINE_LINUX_DEFAULT=\"a\"\nGRUB_CMDLINE_LINUX_DEFAULT+=b\n",
            "GRUB_CMDLINE_LINUX_DEFAULT=\"a\"\nif true; then GRUB_CMDLINE_LINUX_DEFAULT=b; fi\n",
            "  GRUB_CMDLINE_LINUX_DEFAULT=\"a\"\n",
        ] {
            assert_eq!(rewrite(text), Err(by_hand()), "{text}");
        }
    }

    proptest! {
        /// Whatever the line has: foreign words stay as they are and in order, and what is ours goes without a trace.
        #[test]
        fn foreign_words_stay(words in prop::collection::vec("[a-d]{1,2}(=[a-z0-9\"]{0,3})?", 0..6)) {
            let text = words.join(" ");
            let groups = ["isolcpus=2-7", PAGES, "nosmt"];
            let made = rewrite(Form::Whole, &text, Known::default(), &wanted(&groups)).unwrap();
            let again = rewrite(Form::Whole, &made.text, Known { ours: &made.ours, first: None }, &wanted(&groups));
            prop_assert_eq!(again.as_ref(), Ok(&made));
            let back = rewrite(Form::Whole, &made.text, Known { ours: &made.ours, first: None }, &[]).unwrap();
            prop_assert_eq!(back.text, text);
        }

        #[test]
        fn no_text_panics(text in "(options |GRUB_CMDLINE_LINUX_DEFAULT=|# GRUB Environment Block\n)?[ -~\n]{0,60}") {
            for form in [Form::Entry, Form::Whole, Form::Environment, Form::Assignment] {
                let _ = rewrite(form, &text, Known::default(), &wanted(&["nosmt"]));
            }
        }
    }
}
