//! Kernel arguments: one (`isolcpus=2-7`), and a whole command line as in /proc/cmdline.
//!
//! Source: `next_arg` and `parse_args` of the kernel, admin-guide/kernel-parameters and
//! admin-guide/mm/hugetlbpage (which count belongs to which page size).

use std::fmt;

/// The longest kernel command line in bytes, the ending NUL included, on x86_64 and arm64.
///
/// GRUB puts `BOOT_IMAGE=...` in front of what its configuration says; that counts too.
pub const COMMAND_LINE_SIZE: usize = 2048;

/// One kernel argument that this program writes: `nosmt`, `isolcpus=managed_irq,domain,2-7`.
///
/// Its text is safe inside double quotes in a shell file, and bare in grub.cfg: see [`KernelArg::new`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelArg {
    name: String,
    value: Option<String>,
}

impl KernelArg {
    /// An argument from its name and value.
    ///
    /// # Errors
    /// The name is not a parameter name, or the value has a character that the shell, GRUB or the kernel
    /// would read as something else.
    pub fn new(name: &str, value: Option<&str>) -> Result<KernelArg, String> {
        if name.is_empty() {
            return Err("a kernel argument is empty: write NAME or NAME=VALUE".into());
        }
        if name.chars().all(|c| c == '-') {
            return Err(format!("`{name}` is not a kernel argument: the kernel hands what follows to init"));
        }
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if !starts_well || !name.chars().all(is_name) {
            return Err(format!(
                "`{}` is not a kernel parameter name: use letters, digits, `_`, `-` and `.`, as in `kvm.nx`",
                name.escape_debug()
            ));
        }
        let bad = value.and_then(|value| value.chars().find(|c| !is_safe(*c)));
        match bad {
            None => Ok(KernelArg { name: name.into(), value: value.map(str::to_owned) }),
            Some(c) => Err(format!(
                "the value of kernel argument `{name}` has {}: {}. Use letters, digits and `{SAFE}`",
                shown(c),
                reason(c)
            )),
        }
    }

    /// Reads one argument, `NAME` or `NAME=VALUE`.
    ///
    /// # Errors
    /// As [`KernelArg::new`].
    pub fn parse(token: &str) -> Result<KernelArg, String> {
        match token.split_once('=') {
            Some((name, value)) => KernelArg::new(name, Some(value)),
            None => KernelArg::new(token, None),
        }
    }

    /// The name, as written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value: `None` for a bare name, empty for `NAME=`.
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl fmt::Display for KernelArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => f.pad(&format!("{}={value}", self.name)),
            None => f.pad(&self.name),
        }
    }
}

/// As written.
impl serde::Serialize for KernelArg {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From a file of ours that somebody may have edited: what [`KernelArg::parse`] would not take is an error.
impl<'de> serde::Deserialize<'de> for KernelArg {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<KernelArg, D::Error> {
        let text = String::deserialize(deserializer)?;
        KernelArg::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The characters of a value beside ASCII letters and digits.
const SAFE: &str = "_-.,:=/+@%~[]()";

fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || SAFE.contains(c)
}

fn shown(c: char) -> String {
    match c {
        ' ' => "a space".into(),
        '`' => "a backtick".into(),
        _ => format!("`{}`", c.escape_debug()),
    }
}

fn reason(c: char) -> &'static str {
    match c {
        c if c.is_whitespace() => "it would end the argument",
        '"' | '\'' => "the shell, GRUB and the kernel each read quotes in their own way",
        '$' | '`' | '\\' => {
            "update-grub reads the boot settings as a shell script, as root, and would expand it"
        }
        ';' | '&' | '|' | '<' | '>' | '{' | '}' | '#' => "GRUB reads it as part of its own language",
        '*' | '?' | '!' => "a shell or GRUB may expand it",
        _ => "boot loaders do not pass it on reliably",
    }
}

/// Whether two parameter names mean the same parameter: the kernel takes `-` and `_` as equal.
pub fn same_name(a: &str, b: &str) -> bool {
    let plain = |c: u8| if c == b'-' { b'_' } else { c };
    a.len() == b.len() && a.bytes().map(plain).eq(b.bytes().map(plain))
}

/// Parameters of which the kernel takes the last of several, as far as its source was looked at (6.1 to 6.18). Of
/// `isolcpus=` and `nohz_full=` it takes the first, of huge pages it depends on the order.
const LAST_WINS: [&str; 4] = ["irqaffinity", "nohz", "rcu_nocbs", "skew_tick"];

/// Whether a value that comes after another of the same parameter is the one in force.
pub fn last_wins(name: &str) -> bool {
    LAST_WINS.iter().any(|known| same_name(known, name))
}

/// A kernel command line: its arguments in order, each byte-identical to the text it was read from.
///
/// What follows the word `--` belongs to init: it is kept, but is no kernel argument.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelArgs {
    tokens: Vec<Token>,
    // From the space before `--`, or else after the last token, to the end of the text.
    rest: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    lead: String, // the space in front
    text: String,
}

impl KernelArgs {
    /// Reads a command line. Every text is one; an unclosed quote reaches to the end.
    pub fn parse(text: &str) -> KernelArgs {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(|c| !is_space(c)) {
            let (lead, body) = rest.split_at(start);
            let mut quoted = false;
            let end = body.find(|c| {
                quoted ^= c == '"';
                !quoted && is_space(c)
            });
            let (token, after) = body.split_at(end.unwrap_or(body.len()));
            if split(token) == ("--", None) {
                break;
            }
            tokens.push(Token { lead: lead.into(), text: token.into() });
            rest = after;
        }
        KernelArgs { tokens, rest: rest.into() }
    }

    /// The kernel arguments as written, quotes included.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().map(|token| token.text.as_str())
    }

    /// The value of every occurrence of a parameter, in order; `None` for a bare name. Quotes are taken off.
    pub fn values(&self, name: &str) -> Vec<Option<&str>> {
        let named = self.pairs().filter(|(n, _)| same_name(n, name));
        named.map(|(_, value)| value).collect()
    }

    /// Whether the given arguments stand side by side in the given order. No argument is always contained.
    pub fn contains_run(&self, args: &[KernelArg]) -> bool {
        let pairs: Vec<_> = self.pairs().collect();
        let is = |((name, value), arg): (&(&str, Option<&str>), &KernelArg)| {
            same_name(name, arg.name()) && *value == arg.value()
        };
        args.is_empty() || pairs.windows(args.len()).any(|run| run.iter().zip(args).all(is))
    }

    /// The `hugepages=` value of a page size: `4`, or per node `0:25,1:25`. Sizes compare as numbers: `1G` is
    /// `1024M`. The kernel heeds the first of several.
    ///
    /// A count in front of any size belongs to the machine's default size, which the text may not tell.
    pub fn hugepages_of(&self, size: &str) -> Option<&str> {
        let wanted = Bound::Size(page_size(size));
        let bounds = bounds(self.pairs(), None);
        let mut counts = self.pairs().zip(bounds).filter(|((name, _), _)| *name == COUNT);
        counts.find(|(_, bound)| *bound == wanted).and_then(|((_, value), _)| value)
    }

    /// Makes the given arguments the only ones of their names. They are put side by side, in the given order,
    /// at the end of the kernel arguments; all others stay byte-identical and in order.
    ///
    /// Huge page arguments go by size: `hugepagesz=1G hugepages=4` replaces what was asked for 1 GiB pages
    /// only. A new `default_hugepagesz=` would change the meaning of counts that rest on the old one: those
    /// get their own `hugepagesz=`, or are dropped where the text does not tell what the old default was.
    pub fn set(&mut self, args: &[KernelArg]) {
        let new = Replaced::by(args, self.default_size());
        self.retain(|name, bound| !new.takes(name, bound, new.default.is_some()), new.default);
        // A count without size must come before any size.
        let at = match new.unbound {
            true => self.pairs().position(|(name, _)| is_huge(name)),
            false => None,
        };
        // Nothing can follow an unclosed quote.
        let open = self.tokens.last().is_some_and(|token| token.text.matches('"').count() % 2 == 1);
        self.insert(
            at.unwrap_or(self.tokens.len() - usize::from(open)),
            args.iter().map(ToString::to_string),
        );
    }

    /// Puts arguments as they are written at the end of the kernel arguments, and leaves all others as they are.
    pub fn append<'t>(&mut self, tokens: impl IntoIterator<Item = &'t str>) {
        let open = self.tokens.last().is_some_and(|token| token.text.matches('"').count() % 2 == 1);
        let at = self.tokens.len() - usize::from(open);
        self.insert(at, tokens.into_iter().map(str::to_owned));
    }

    fn insert(&mut self, at: usize, texts: impl Iterator<Item = String>) {
        for (i, text) in texts.enumerate() {
            let mut lead = if self.tokens.is_empty() { String::new() } else { " ".into() };
            if let (0, Some(first)) = (at + i, self.tokens.first_mut()) {
                std::mem::swap(&mut lead, &mut first.lead);
            }
            self.tokens.insert(at + i, Token { lead, text });
        }
    }

    /// Takes out every occurrence of exactly these arguments, name and value; a huge page count only where it is of
    /// the same page size. Other values of the same names stay.
    pub fn take_out(&mut self, args: &[KernelArg]) {
        let pairs = || args.iter().map(|arg| (arg.name(), arg.value()));
        let ours: Vec<_> = pairs().zip(bounds(pairs(), self.default_size())).collect();
        let is_ours = |name: &str, value: Option<&str>, bound: Bound| {
            let mut same = ours.iter();
            same.any(|((n, v), b)| same_name(n, name) && *v == value && *b == bound)
        };
        let first_lead = self.tokens.first().map(|token| token.lead.clone());
        let bounds = bounds(self.pairs(), None);
        let mut bounds = bounds.into_iter();
        self.tokens.retain(|token| {
            let (name, value) = split(&token.text);
            !is_ours(name, value, bounds.next().unwrap_or(Bound::No))
        });
        if let Some((first, lead)) = self.tokens.first_mut().zip(first_lead) {
            first.lead = lead;
        }
    }

    /// The arguments as written that are of the same names: of huge pages all, whatever their size.
    pub fn named_like<'s>(&'s self, args: &'s [KernelArg]) -> impl Iterator<Item = &'s str> {
        let huge = args.iter().any(|arg| is_huge(arg.name()));
        let like =
            move |name: &str| huge && is_huge(name) || args.iter().any(|arg| same_name(arg.name(), name));
        self.tokens().filter(move |token| like(split(token).0))
    }

    /// Removes what [`KernelArgs::set`] with the same arguments would replace: other values of the same names
    /// too, but huge page arguments of these sizes only.
    pub fn unset(&mut self, args: &[KernelArg]) {
        let old = Replaced::by(args, self.default_size());
        self.retain(|name, bound| !old.takes(name, bound, false), None);
    }

    /// Removes every occurrence of the named parameters. `hugepages` and `hugepagesz` go together, of every
    /// size, as a count without its size would mean another size.
    pub fn remove(&mut self, names: &[&str]) {
        let pair = names.iter().any(|n| *n == COUNT || *n == SIZE);
        let named = |name: &str| names.iter().any(|n| same_name(n, name));
        self.retain(|name, _| !named(name) && !(pair && (name == COUNT || name == SIZE)), None);
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.tokens().map(split)
    }

    /// An argument on this line that would change the meaning of huge page arguments of `size` put after it: a
    /// count for that size, which makes a second one void; another default size; a count without a size, which
    /// the default size after it claims.
    pub fn pages_in_the_way(&self, size: &str) -> Option<String> {
        let ours = page_size(size);
        let mut current = None;
        for (token, (name, value)) in self.tokens().zip(self.pairs()) {
            let size = page_size(value.unwrap_or_default());
            let in_the_way = match name {
                _ if is_default(name) => size != ours,
                "hugepagesz" => size == ours,
                "hugepages" => current.is_none_or(|current| current == ours),
                _ => continue,
            };
            if in_the_way {
                return Some(token.to_owned());
            }
            current = if name == "hugepages" { current } else { Some(size) };
        }
        None
    }

    fn default_size(&self) -> Option<u64> {
        default_size(self.pairs())
    }

    /// Keeps the tokens for which `keep` holds, and the page size of every count kept, if the default size is
    /// to be `default` from now on.
    fn retain(&mut self, keep: impl Fn(&str, Bound) -> bool, default: Option<u64>) {
        let first_lead = self.tokens.first().map(|token| token.lead.clone());
        let before = bounds(self.pairs(), None);
        let mut kept: Vec<(Token, Bound)> = self.tokens.drain(..).zip(before).collect();
        kept.retain(|(token, bound)| keep(split(&token.text).0, *bound));
        let pairs = || kept.iter().map(|(token, _)| split(&token.text));
        let default = default.or_else(|| default_size(pairs()));
        // What a size put in front of one count means for the next is part of it.
        let mut current = default.map_or(Bound::Unknown, Bound::Size);
        for (token, before) in kept {
            let first = self.tokens.is_empty();
            let lead = first_lead.clone().filter(|_| first).unwrap_or(token.lead);
            let (name, value) = split(&token.text);
            if name == SIZE || is_default(name) {
                current = Bound::Size(page_size(value.unwrap_or_default()));
            }
            match before {
                Bound::Size(size) if name == COUNT && current != before => {
                    current = before;
                    self.tokens.push(Token { lead, text: format!("{SIZE}={}", page_size_text(size)) });
                    self.tokens.push(Token { lead: " ".into(), text: token.text });
                }
                _ => self.tokens.push(Token { lead, text: token.text }),
            }
        }
    }
}

/// The text it was read from, or with the changes made.
impl fmt::Display for KernelArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        for token in &self.tokens {
            line.push_str(&token.lead);
            if !line.is_empty() && !line.ends_with(is_space) {
                line.push(' ');
            }
            line.push_str(&token.text);
        }
        if !line.is_empty() && self.rest.starts_with(|c| !is_space(c)) {
            line.push(' ');
        }
        f.pad(&(line + &self.rest))
    }
}

/// The kernel's `isspace` for ASCII.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// Name and value of a token, as the kernel takes them apart: `a="b c"` and `"a=b c"` are the same.
fn split(token: &str) -> (&str, Option<&str>) {
    let body = match token.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => token,
    };
    // The kernel takes a `=` at the very start as part of the name.
    let equals = body.char_indices().skip(1).find(|(_, c)| *c == '=');
    let Some((equals, _)) = equals else { return (body, None) };
    let value = &body[equals + 1..];
    let inner = value.strip_prefix('"').map(|inner| inner.strip_suffix('"').unwrap_or(inner));
    (&body[..equals], Some(inner.unwrap_or(value)))
}

const COUNT: &str = "hugepages";
const SIZE: &str = "hugepagesz";
const DEFAULT: &str = "default_hugepagesz";

fn is_default(name: &str) -> bool {
    same_name(name, DEFAULT)
}

fn is_huge(name: &str) -> bool {
    name == COUNT || name == SIZE || is_default(name)
}

/// Which page size a huge page argument is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Not a huge page argument.
    No,
    /// Bytes.
    Size(u64),
    /// The default size of the machine, which the text does not tell.
    Unknown,
}

fn default_size<'a>(mut pairs: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Option<u64> {
    pairs.find(|(name, _)| is_default(name)).map(|(_, value)| page_size(value.unwrap_or_default()))
}

/// The page size of each argument; `default` is the default size if it is not to be read from the arguments.
fn bounds<'a>(pairs: impl Iterator<Item = (&'a str, Option<&'a str>)>, default: Option<u64>) -> Vec<Bound> {
    let pairs: Vec<_> = pairs.collect();
    let default = default.or_else(|| default_size(pairs.iter().copied()));
    let mut current = default.map_or(Bound::Unknown, Bound::Size);
    let mut bound = |(name, value): (&str, Option<&str>)| {
        if name == SIZE || is_default(name) {
            current = Bound::Size(page_size(value.unwrap_or_default()));
        }
        if is_huge(name) { current } else { Bound::No }
    };
    pairs.into_iter().map(&mut bound).collect()
}

/// What a set of new arguments replaces.
struct Replaced<'a> {
    args: &'a [KernelArg],
    sizes: Vec<u64>,
    default: Option<u64>,
    unbound: bool,
}

impl<'a> Replaced<'a> {
    fn by(args: &'a [KernelArg], old_default: Option<u64>) -> Replaced<'a> {
        let pairs = || args.iter().map(|arg| (arg.name(), arg.value()));
        let default = default_size(pairs());
        let sized = |((name, _), bound): ((&str, _), Bound)| match bound {
            Bound::Size(size) if !is_default(name) => Some(size),
            _ => None,
        };
        let sizes = pairs().zip(bounds(pairs(), default.or(old_default))).filter_map(sized).collect();
        let first = pairs().map(|(name, _)| name).find(|name| is_huge(name));
        Replaced { args, sizes, default, unbound: first == Some(COUNT) }
    }

    /// `redefined`: the machine's default size is about to change.
    fn takes(&self, name: &str, bound: Bound, redefined: bool) -> bool {
        match bound {
            Bound::No => self.args.iter().any(|arg| same_name(arg.name(), name)),
            _ if is_default(name) => self.default.is_some(),
            Bound::Size(size) => self.sizes.contains(&size),
            Bound::Unknown => self.unbound || redefined,
        }
    }
}

/// A size as the kernel's `memparse` reads it: a number and K, M, G or T. 0 if there is no number.
fn page_size(text: &str) -> u64 {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().unwrap_or(0);
    let shift = match text[digits..].bytes().next().map(|c| c.to_ascii_uppercase()) {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        _ => 0,
    };
    number.saturating_mul(1 << shift)
}

fn page_size_text(bytes: u64) -> String {
    let units = [(1u64 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"), (1, "")];
    let fits = |(unit, _): &&(u64, &str)| bytes != 0 && bytes.is_multiple_of(*unit);
    let (unit, letter) = units.iter().find(fits).unwrap_or(&units[3]);
    format!("{}{letter}", bytes / unit)
}

#[cfg(test)]
mod tests;
