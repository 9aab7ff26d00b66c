//! What is wrong with a profile, where, and what to do: shown with the line it is about.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level as Title, Origin, Renderer, Snippet};

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The profile cannot be used.
    Error,
    /// The profile can be used, and probably does not say what was meant.
    Warning,
}

/// One thing to say about a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub level: Level,
    /// The name of the rule that found it, where there is one.
    pub id: Option<&'static str>,
    /// What is wrong, naming the value.
    pub message: String,
    /// The part of the profile it is about, as a byte range; `None` for the profile as a whole.
    pub span: Option<Range<usize>>,
    /// The text under the carets; may be empty.
    pub label: String,
    /// The remedy, when the message and the label do not say it already.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error about the part `span` of the profile.
    pub fn error(span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            level: Level::Error,
            id: None,
            message: message.into(),
            span: Some(span),
            label: String::new(),
            help: None,
        }
    }

    /// A warning about the part `span` of the profile.
    pub fn warning(span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic { level: Level::Warning, ..Diagnostic::error(span, message) }
    }

    /// An error about the profile as a whole.
    pub fn whole(message: impl Into<String>) -> Diagnostic {
        Diagnostic { span: None, ..Diagnostic::error(0..0, message) }
    }

    /// The same with a text under the carets.
    pub fn label(self, label: impl Into<String>) -> Diagnostic {
        Diagnostic { label: label.into(), ..self }
    }

    /// The same with a remedy.
    pub fn help(self, help: impl Into<String>) -> Diagnostic {
        Diagnostic { help: Some(help.into()), ..self }
    }
}

/// The profile that spans refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name to show, as it was given.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// The diagnostics for a person, each with its line of the profile, separated by empty lines.
///
/// Spans may have any value: they are cut to the text, to whole characters, and to their first line.
/// Characters that could act on a terminal are replaced by visible ones, in the profile and in messages.
pub fn render(diagnostics: &[Diagnostic], source: &Source, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let ends_of_lines: Vec<usize> = source.text.match_indices('\n').map(|(at, _)| at).collect();
    let name = printable(&source.name);
    let mut text = String::new();
    for diagnostic in diagnostics {
        let title = match diagnostic.level {
            Level::Error => Title::ERROR,
            Level::Warning => Title::WARNING,
        };
        let title = title.primary_title(printable(&diagnostic.message));
        let mut group = Group::with_title(match diagnostic.id {
            Some(id) => title.id(id),
            None => title,
        });
        group = match &diagnostic.span {
            None => group.element(Origin::path(name.as_str())),
            Some(span) => {
                let shown = Excerpt::new(&source.text, &ends_of_lines, span);
                let label = (!diagnostic.label.is_empty()).then(|| printable(&diagnostic.label));
                let annotation = AnnotationKind::Primary.span(shown.span).label(label);
                let snippet = Snippet::source(shown.text).line_start(shown.line).path(name.as_str());
                group.element(snippet.annotation(annotation))
            }
        };
        if let Some(help) = &diagnostic.help {
            group = group.element(Title::HELP.message(printable(help)));
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&renderer.render(&[group]));
        text.push('\n');
    }
    text
}

/// The line on which a span starts, fit for a terminal.
struct Excerpt {
    /// The number of the line, from 1.
    line: usize,
    text: String,
    /// The part of `text` to mark.
    span: Range<usize>,
}

impl Excerpt {
    /// `ends` are the offsets of all newlines in `text`. Only one line is rendered, so that the cost of a
    /// diagnostic does not grow with the profile.
    fn new(text: &str, ends: &[usize], span: &Range<usize>) -> Excerpt {
        let from = text.floor_char_boundary(span.start.min(text.len()));
        let index = ends.partition_point(|end| *end < from);
        let first = if index == 0 { 0 } else { ends[index - 1] + 1 };
        let last = ends.get(index).copied().unwrap_or(text.len());
        let last = if text[first..last].ends_with('\r') { last - 1 } else { last };
        let from = from.min(last);
        let to = text.ceil_char_boundary(span.end.clamp(from, last));
        let (before, marked) = (printable(&text[first..from]), printable(&text[from..to]));
        let span = before.len()..before.len() + marked.len();
        Excerpt { line: index + 1, text: before + &marked + &printable(&text[to..last]), span }
    }
}

/// The text with every character that could act on a terminal or reorder what it shows replaced by a visible
/// one. One character for one, so that columns stay.
fn printable(text: &str) -> String {
    let replace = |c: char| match c {
        '\t' => '\t',
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => '\u{fffd}',
        '\u{2060}'..='\u{206f}' | '\u{feff}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let source = Source { name: "p.toml".into(), text: text.into() };
        render(&[Diagnostic::error(span, "message").label("label")], &source, false)
    }

    #[test]
    fn has_the_style_of_the_compiler() {
        let source = Source {
            name: "profiles/kvm.toml".into(),
            text: "[host]\nhousekeeping-cpus = \"0-1,99\"\n".into(),
        };
        let error = Diagnostic::error(27..35, "CPU 99 does not exist on this machine");
        let error = error.label("online CPUs are 0-63");
        assert_eq!(
            render(std::slice::from_ref(&error), &source, false),
            "error: CPU 99 does not exist on this machine\n \
             --> profiles/kvm.toml:2:21\n  \
               |\n\
             2 | housekeeping-cpus = \"0-1,99\"\n  \
               |                     ^^^^^^^^ online CPUs are 0-63\n"
        );
        assert!(render(&[error], &source, true).contains("\u{1b}["));
    }

    #[test]
    fn shows_help_and_separates() {
        let source = Source { name: "p.toml".into(), text: "a = 1\n".into() };
        let both =
            [Diagnostic::whole("empty").help("write it"), Diagnostic::warning(0..1, "odd").help("say b")];
        assert_eq!(
            render(&both, &source, false),
            "error: empty\n--> p.toml\n = help: write it\n\n\
             warning: odd\n --> p.toml:1:1\n  |\n1 | a = 1\n  | ^\n  |\n  = help: say b\n"
        );
    }

    #[test]
    fn odd_spans_are_cut_to_the_text() {
        assert!(shown("", 0..0).contains("p.toml:1:1\n"));
        assert!(shown("ab", 9..12).contains("p.toml:1:3\n"));
        assert!(shown("a\n", 2..2).contains("p.toml:2:1\n"));
        // Inside of a character: the whole character.
        assert!(shown("äöü", 3..3).contains("| äöü\n  |  ^ label"), "{}", shown("äöü", 3..3));
        assert!(shown("äöü", 2..3).contains("| äöü\n  |  ^ label"), "{}", shown("äöü", 2..3));
        // Several lines: the first; the carriage return is no part of it.
        assert!(shown("ab\r\ncd", 1..6).contains("1 | ab\n  |  ^ label"), "{}", shown("ab\r\ncd", 1..6));
        // A tab is one column and four cells.
        assert!(
            shown("\tx", 1..2).contains("1:2\n  |\n1 |     x\n  |     ^ label"),
            "{}",
            shown("\tx", 1..2)
        );
    }

    #[test]
    fn nothing_acts_on_the_terminal() {
        let evil = "a\u{1b}[31m\u{9b}2J\u{202e}\u{7f}\u{0}\r b\u{2066}";
        let source = Source { name: format!("{evil}\n"), text: evil.into() };
        let error = Diagnostic::error(1..3, evil).label(evil).help(format!("{evil}\n"));
        let text = render(&[error, Diagnostic::whole(evil)], &source, false);
        for line in text.lines() {
            assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
            assert!(!line.contains(['\u{202e}', '\u{2066}']), "{line:?}");
        }
        assert_eq!(text.lines().count(), 10, "{text}");
    }

    proptest! {
        #[test]
        fn no_span_panics(text in "(?s)[ -~\t\r\n\u{0}-\u{a0}ä中\u{301}😀]{0,60}", start in 0usize..260, len in -5isize..80) {
            let end = start.saturating_add_signed(len);
            let text = shown(&text, start..end);
            prop_assert!(text.starts_with("error: message\n"));
            prop_assert!(text.contains("label"));
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
}
