//! Shell files that only assign variables: /etc/default/grub and its drop-ins, /etc/os-release.
//!
//! A value that takes a real shell to know is [`Value::Unknown`], never a guess.
//! Source: POSIX shell command language, os-release(5).

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// What a variable holds after the file was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Exactly this text.
    Known(String),
    /// Something that only the shell can tell, as with command substitution.
    Unknown,
}

/// The variables that a file leaves behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vars {
    values: BTreeMap<String, Value>,
    // The file has commands: they may set any variable.
    opaque: bool,
}

impl Vars {
    /// What a variable holds; `None` if it is not set.
    ///
    /// After a file with anything but assignments (`if`, `. FILE`, a command) every variable is unknown.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self.opaque {
            true => Some(&Value::Unknown),
            false => self.values.get(name),
        }
    }

    /// The text of a variable; `None` if it is not set or not known.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Known(text)) => Some(text),
            _ => None,
        }
    }
}

/// Reads a file of assignments: quotes, backslashes, comments, `$NAME` and `${NAME}`; the last assignment wins.
pub fn parse(text: &str) -> Vars {
    parse_with(Vars::default(), text)
}

/// Reads a file that is sourced where `vars` are already set.
pub fn parse_with(mut vars: Vars, text: &str) -> Vars {
    let mut reader = Reader { chars: text.chars().peekable(), vars: &mut vars };
    while !reader.vars.opaque && reader.statement() {}
    vars
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    vars: &'a mut Vars,
}

impl Reader<'_> {
    /// Reads to the end of one line or up to `;`. False at the end of the text.
    fn statement(&mut self) -> bool {
        let (mut exported, mut empty) = (false, true);
        loop {
            match self.chars.peek() {
                None => return false,
                // A `;` without a command is a syntax error.
                Some(';') if empty => {
                    self.vars.opaque = true;
                    return false;
                }
                Some('\n' | ';') => {
                    self.chars.next();
                    return true;
                }
                Some(' ' | '\t') => _ = self.chars.next(),
                Some('#') => while self.chars.next_if(|c| *c != '\n').is_some() {},
                Some('\\') => {
                    self.chars.next();
                    if self.chars.next() != Some('\n') {
                        self.vars.opaque = true;
                        return false;
                    }
                }
                Some(_) => {
                    empty = false;
                    let name = self.name();
                    let next = self.chars.peek();
                    if next == Some(&'=') && is_name(&name) {
                        self.chars.next();
                        let value = self.value();
                        self.vars.values.insert(name, value);
                    } else if next.is_none_or(|c| c.is_ascii_whitespace() || *c == ';')
                        && (name == "export" || exported && is_name(&name))
                    {
                        exported = true;
                    } else {
                        self.vars.opaque = true;
                        return false;
                    }
                }
            }
        }
    }

    fn name(&mut self) -> String {
        std::iter::from_fn(|| self.chars.next_if(|c| is_name_char(*c))).collect()
    }

    /// The value of an assignment, up to the blank, `;` or line end behind it.
    fn value(&mut self) -> Value {
        let mut text = Some(String::new());
        // An unquoted tilde stands for a home directory at the start and after a colon.
        let mut tilde = true;
        loop {
            let piece = match self.chars.peek() {
                None | Some(' ' | '\t' | '\n' | ';') => break,
                // Redirections and operators: what runs, and in which shell, is no longer plain.
                Some('&' | '|' | '<' | '>' | '(' | ')') => {
                    self.vars.opaque = true;
                    return Value::Unknown;
                }
                Some('\'') => self.single_quoted(),
                Some('"') => self.double_quoted(),
                Some('$') => self.dollar(false),
                Some('`') => self.backticks(),
                Some('~') if tilde => {
                    self.chars.next();
                    None
                }
                Some('\\') => {
                    self.chars.next();
                    match self.chars.next() {
                        Some('\n') => Some(String::new()),
                        other => Some(other.map_or("\\".into(), String::from)),
                    }
                }
                Some(_) => self.chars.next().map(String::from),
            };
            tilde = piece.as_deref() == Some(":");
            text = text.zip(piece).map(|(text, piece)| text + &piece);
        }
        text.map_or(Value::Unknown, Value::Known)
    }

    /// The rest of the file cannot be taken apart: an unclosed quote.
    fn unclosed(&mut self) -> Option<String> {
        self.vars.opaque = true;
        None
    }

    fn single_quoted(&mut self) -> Option<String> {
        self.chars.next();
        let mut text = String::new();
        loop {
            match self.chars.next() {
                None => return self.unclosed(),
                Some('\'') => return Some(text),
                Some(c) => text.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Option<String> {
        self.chars.next();
        let mut text = Some(String::new());
        loop {
            let piece = match self.chars.peek() {
                None => return self.unclosed(),
                Some('"') => {
                    self.chars.next();
                    return text;
                }
                Some('$') => self.dollar(true),
                Some('`') => self.backticks(),
                Some('\\') => {
                    self.chars.next();
                    match self.chars.next() {
                        Some('\n') => Some(String::new()),
                        Some(c @ ('$' | '`' | '"' | '\\')) => Some(c.into()),
                        other => Some(format!("\\{}", other.map_or(String::new(), String::from))),
                    }
                }
                Some(_) => self.chars.next().map(String::from),
            };
            text = text.zip(piece).map(|(text, piece)| text + &piece);
        }
    }

    /// A `$` and what belongs to it; `None` if its value is not known.
    fn dollar(&mut self, quoted: bool) -> Option<String> {
        self.chars.next();
        match self.chars.peek() {
            Some('{') => {
                self.chars.next();
                let name = self.name();
                if is_name(&name) && self.chars.next_if_eq(&'}').is_some() {
                    return self.lookup(&name);
                }
                // `${X:=y}` would also set X.
                match self.chars.peek() {
                    Some(':' | '-' | '+' | '%' | '#') if !name.is_empty() => self.skip_group('{', '}'),
                    _ => self.unclosed(),
                }
            }
            Some('(') => {
                self.chars.next();
                self.skip_group('(', ')')
            }
            Some(c) if is_name_char(*c) && !c.is_ascii_digit() => {
                let name = self.name();
                self.lookup(&name)
            }
            Some(c) if c.is_ascii_digit() || "?$#@*!-".contains(*c) => {
                self.chars.next();
                None
            }
            Some('\'' | '"') if !quoted => None,
            _ => Some("$".into()),
        }
    }

    fn lookup(&self, name: &str) -> Option<String> {
        match self.vars.values.get(name) {
            Some(Value::Known(text)) => Some(text.clone()),
            Some(Value::Unknown) => None,
            None => Some(String::new()),
        }
    }

    fn backticks(&mut self) -> Option<String> {
        self.chars.next();
        loop {
            match self.chars.next() {
                None => return self.unclosed(),
                Some('`') => return None,
                Some('\\') => _ = self.chars.next(),
                Some(_) => {}
            }
        }
    }

    /// Skips an expansion up to its closing sign. One with comments, or that may set a variable, ends the
    /// reading.
    fn skip_group(&mut self, open: char, close: char) -> Option<String> {
        let mut depth = 1;
        while depth > 0 && !self.vars.opaque {
            match self.chars.peek() {
                Some('\'') if open == '(' => {
                    self.single_quoted();
                    continue;
                }
                Some('"') if open == '(' => {
                    self.double_quoted();
                    continue;
                }
                _ => {}
            }
            match self.chars.next() {
                None | Some('\'' | '"' | '\\' | '`') => return self.unclosed(),
                Some('#') if open == '(' => return self.unclosed(),
                Some('=') if open == '{' => return self.unclosed(),
                Some(c) if c == open => depth += 1,
                Some(c) if c == close => depth -= 1,
                Some(_) => {}
            }
        }
        None
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| !c.is_ascii_digit()) && text.chars().all(is_name_char)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_os_release() {
        let vars = parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n# a comment\n\nID=debian\nVERSION_ID='12'\n\
             ODD=\"a \\\"b\\\" \\$c \\\\ \\` \\a\"",
        );
        assert_eq!(vars.text("PRETTY_NAME"), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!((vars.text("ID"), vars.text("VERSION_ID")), (Some("debian"), Some("12")));
        assert_eq!(vars.text("ODD"), Some("a \"b\" $c \\ ` \\a"));
        assert_eq!(vars.get("NAME"), None);
    }

    #[test]
    fn expands_earlier_variables() {
        let first = parse("A=quiet\nA=\"$A splash\"; B=${A}x");
        let vars = parse_with(first, "A=\"${A} b=1\"\nexport A C\nexport D='$A'\nE=$NONE\"$\"");
        assert_eq!(vars.text("A"), Some("quiet splash b=1"));
        assert_eq!((vars.text("B"), vars.text("D")), (Some("quiet splashx"), Some("$A")));
        assert_eq!(vars.text("E"), Some("$"));
    }

    #[test]
    fn what_is_not_plain_is_unknown() {
        let text =
            "D=`lsb_release -i -s 2> /dev/null || echo Debian`\nE=$(uname -r) F=${D:-x}\nG=\"$D\"\nH=1 I=~";
        let vars = parse(text);
        for name in ["D", "E", "F", "G", "I"] {
            assert_eq!(vars.get(name), Some(&Value::Unknown), "{name}");
        }
        assert_eq!(vars.text("H"), Some("1"));
        let vars = parse("D=\"$(sed 's, release .*$,,g' /etc/system-release)\"\nA=1");
        assert_eq!((vars.get("D"), vars.text("A")), (Some(&Value::Unknown), Some("1")));
        for text in [
            "if true; then A=2; fi",
            ". /etc/other",
            "unset A",
            "A=2 | cat",
            "A+=2",
            "A='",
            "A=(1 2)",
            "B=${A:=2}",
            "B=$(echo # )",
            "A=2 true",
        ] {
            assert_eq!(parse(&format!("A=1\n{text}\n")).get("A"), Some(&Value::Unknown), "{text}");
        }
    }

    proptest! {
        #[test]
        fn quoted_text_round_trips(text in "\\PC{0,30}") {
            let single = format!("A='{}'", text.replace('\'', "'\\''"));
            let vars = parse(&single);
            prop_assert_eq!(vars.text("A"), Some(text.as_str()));
            let escape = |c: char| if "$`\"\\".contains(c) { format!("\\{c}") } else { c.to_string() };
            let double = format!("A=\"{}\"\n", text.chars().map(escape).collect::<String>());
            let vars = parse(&double);
            prop_assert_eq!(vars.text("A"), Some(text.as_str()));
        }

        #[test]
        fn no_text_panics(text in "([A-C]=)?[ -~\n]{0,30}") {
            let _ = parse(&text);
        }
    }
}
