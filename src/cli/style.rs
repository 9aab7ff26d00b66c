//! Colours of the text output. Without colour every method returns the text as it is.

use anstyle::{AnsiColor, Effects};

/// How text is marked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    color: bool,
}

impl Style {
    /// Marks with escape codes if `color`; see [`crate::host::wants_color`].
    pub(super) fn new(color: bool) -> Style {
        Style { color }
    }

    /// What comes to be.
    pub(super) fn added(self, text: &str) -> String {
        self.mark(AnsiColor::Green.on_default(), text)
    }

    /// What becomes another, or deserves a look.
    pub(super) fn changed(self, text: &str) -> String {
        self.mark(AnsiColor::Yellow.on_default(), text)
    }

    /// What goes away, or is not there.
    pub(super) fn removed(self, text: &str) -> String {
        self.mark(AnsiColor::Red.on_default(), text)
    }

    /// What is as it should be.
    pub(super) fn good(self, text: &str) -> String {
        self.mark(AnsiColor::Cyan.on_default(), text)
    }

    /// What matters less.
    pub(super) fn dim(self, text: &str) -> String {
        self.mark(anstyle::Style::new().effects(Effects::DIMMED), text)
    }

    /// A heading.
    pub(super) fn bold(self, text: &str) -> String {
        self.mark(anstyle::Style::new().bold(), text)
    }

    /// A plan or patch, each line by the sign it begins with.
    pub(super) fn plan(self, text: &str) -> String {
        let line = |line: &str| match line.as_bytes() {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] | [b'd', b'i', b'f', b'f', b' ', ..] => {
                self.bold(line)
            }
            [b'+', ..] => self.added(line),
            [b'-', ..] => self.removed(line),
            [b'~' | b'!' | b'*' | b':' | b'?', b' ', ..] => self.changed(line),
            [b'x' | b'@', b' ', ..] => self.removed(line),
            [b'>', b' ', ..] => self.good(line),
            [b'=' | b'.', b' ', ..] | [b'@', b'@', ..] => self.dim(line),
            _ => line.to_owned(),
        };
        if !self.color {
            return text.to_owned();
        }
        // A patch may have carriage returns, which are part of its lines.
        text.split_inclusive('\n')
            .map(|text| match text.strip_suffix('\n') {
                Some(text) => format!("{}\n", line(text)),
                None => line(text),
            })
            .collect()
    }

    fn mark(self, style: anstyle::Style, text: &str) -> String {
        match self.color && !text.is_empty() {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_only_in_colour() {
        let methods = [Style::added, Style::changed, Style::removed, Style::good, Style::dim, Style::bold];
        for method in methods {
            assert_eq!(method(Style::new(false), "text"), "text");
            let marked = method(Style::new(true), "text");
            assert!(marked.starts_with("\x1b[") && marked.ends_with("text\x1b[0m"), "{marked:?}");
            assert_eq!(anstream::adapter::strip_str(&marked).to_string(), "text");
            assert_eq!(method(Style::new(true), ""), "");
        }
    }
}
