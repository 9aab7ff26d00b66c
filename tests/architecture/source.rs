//! Rust files as lists of the paths they name.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// Words before a path that are no part of it: `use ::std::fs`.
const KEYWORDS: [&str; 14] = [
    "as", "dyn", "else", "for", "if", "impl", "in", "let", "match", "mut", "return", "use", "where", "while",
];

/// A Rust file.
pub(crate) struct Source {
    /// Its name from the root of the repository.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
    /// Every path in it, in full: `use a::{b, c::d}` is `a::b` and `a::c::d`. One word is a path as well.
    pub(crate) paths: Vec<Named>,
}

/// A path as it is named somewhere.
pub(crate) struct Named {
    /// The line.
    pub(crate) line: usize,
    /// Its words, with `self` and `super` resolved to begin with `crate`.
    pub(crate) words: Vec<String>,
    /// Whether it is followed by `!`.
    pub(crate) is_macro: bool,
    /// Whether it is in an attribute, `#[...]`.
    pub(crate) in_attribute: bool,
}

impl Source {
    /// Reads a file. Comments, strings and everything else that is no code names nothing.
    pub(crate) fn new(name: &str, text: &str) -> Source {
        let tokens: TokenStream =
            text.parse().unwrap_or_else(|error| panic!("{name} is not read as Rust: {error}"));
        let mut walk = Walk { module: module(name), in_attribute: false, paths: Vec::new() };
        walk.tokens(tokens);
        Source { name: name.into(), text: text.into(), paths: walk.paths }
    }

    /// The layer it belongs to: the first word below `src/`; `None` outside it and for the roots of the crates.
    pub(crate) fn layer(&self) -> Option<String> {
        let inside = self.name.starts_with("src/");
        module(&self.name).into_iter().nth(1).filter(|_| inside)
    }

    /// The layer inside this crate that a path names, with the words below it.
    pub(crate) fn in_crate(named: &Named) -> Option<(&str, &[String])> {
        match &named.words[..] {
            [root, layer, below @ ..] if root == "crate" || root == "rtkvm_tune" => Some((layer, below)),
            _ => None,
        }
    }
}

/// `src/facts/cpus.rs` is `crate::facts::cpus`, `src/facts/mod.rs` is `crate::facts`.
fn module(name: &str) -> Vec<String> {
    let path = name.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let below = path.split('/').filter(|word| !["lib", "main"].contains(word));
    std::iter::once("crate").chain(below).map(str::to_owned).collect()
}

struct Walk {
    module: Vec<String>,
    in_attribute: bool,
    paths: Vec<Named>,
}

impl Walk {
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Ident(_) => self.path(&tokens, at, &[]),
                TokenTree::Group(group) => {
                    let before = |back: usize| word(tokens.get(at.checked_sub(back)?)?);
                    // `pub(crate)` names no path.
                    let visibility = group.delimiter() == Delimiter::Parenthesis
                        && before(1).as_deref() == Some("pub")
                        && group.stream().into_iter().count() == 1;
                    let module = before(1).filter(|_| before(2).as_deref() == Some("mod"));
                    let depth = self.module.len();
                    self.module.extend(module);
                    let inner = at.checked_sub(1).is_some_and(|at| is_punct(&tokens, at, '!'));
                    let mark = at.checked_sub(if inner { 2 } else { 1 });
                    let outside = self.in_attribute;
                    self.in_attribute |= mark.is_some_and(|mark| is_punct(&tokens, mark, '#'));
                    if !visibility {
                        self.tokens(group.stream());
                    }
                    self.in_attribute = outside;
                    self.module.truncate(depth);
                    at + 1
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => at + 1,
            };
        }
    }

    /// Reads the path that begins at `at`, below `prefix`; gives the place behind it.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize, prefix: &[String]) -> usize {
        let line = tokens[at].span().start().line;
        let mut words = prefix.to_vec();
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(word)) => words.push(word.to_string()),
                Some(TokenTree::Punct(star)) if star.as_char() == '*' => words.push("*".into()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.branches(group.stream(), &words);
                    return at + 1;
                }
                // `Vec::<u8>`: what follows is read on its own.
                _ => break,
            }
            at += 1;
            let keyword = words.len() == 1 && KEYWORDS.contains(&words[0].as_str());
            if keyword || !is_separator(tokens, at) {
                break;
            }
            at += 2;
        }
        let is_macro = is_punct(tokens, at, '!') && !is_punct(tokens, at + 1, '=');
        let words = self.resolved(words);
        self.paths.push(Named { line, words, is_macro, in_attribute: self.in_attribute });
        at
    }

    /// The branches of `use a::{b, c}`.
    fn branches(&mut self, tokens: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            if is_separator(&tokens, at) {
                at += 2;
            }
            at = self.path(&tokens, at, prefix).max(at + 1);
            // The new name of `a as b`, up to the next branch.
            while at < tokens.len() && !is_punct(&tokens, at - 1, ',') {
                at += 1;
            }
        }
    }

    fn resolved(&self, words: Vec<String>) -> Vec<String> {
        let ups = words.iter().take_while(|word| *word == "self" || *word == "super").count();
        // `self` alone is a value; at the end of a `use` it is what stands before it.
        if ups == 0 || words.len() == 1 {
            let end = words.len() - usize::from(words.len() > 1 && words[words.len() - 1] == "self");
            return words[..end].to_vec();
        }
        let supers = words[..ups].iter().filter(|word| *word == "super").count();
        let base = &self.module[..self.module.len().saturating_sub(supers)];
        [base, &words[ups..]].concat()
    }
}

fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    }
}

/// Whether `::` is there, and not a type after `:`, as in `x: ::std::fs::File`.
fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let joint = match tokens.get(at) {
        Some(TokenTree::Punct(punct)) => punct.spacing() == Spacing::Joint,
        _ => false,
    };
    joint && is_punct(tokens, at, ':') && is_punct(tokens, at + 1, ':')
}

fn is_punct(tokens: &[TokenTree], at: usize, c: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == c)
}
