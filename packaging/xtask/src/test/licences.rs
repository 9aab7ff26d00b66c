//! Every dependency's licence against the list of `deny.toml`.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, output, root, run};

/// Checks the licence of every package in `Cargo.lock`; cargo-deny checks more where it is installed.
pub(crate) fn check() -> Result<()> {
    let allowed = allowed(&fs::read_to_string(root().join("deny.toml")).context("cannot read deny.toml")?)?;
    let metadata = output(cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut refused = String::new();
    for package in packages {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let licence = text("license");
        if !permitted(licence, &allowed).with_context(|| format!("licence of {}", text("name")))? {
            refused.push_str(&format!("\n  {} {}: `{licence}`", text("name"), text("version")));
        }
    }
    if !refused.is_empty() {
        bail!("not among the licences that deny.toml allows:{refused}");
    }
    eprintln!("    {} packages under {}", packages.len(), allowed.join(", "));
    if output(cargo().args(["deny", "--version"])).is_err() {
        eprintln!("    cargo-deny is not installed: bans and sources are left to it");
        return Ok(());
    }
    run(cargo().args(["deny", "--workspace", "check", "licenses", "bans", "sources"]))
}

fn allowed(config: &str) -> Result<Vec<String>> {
    let config: toml::Table = config.parse().context("deny.toml")?;
    let list = config.get("licenses").and_then(|licences| licences.get("allow")?.as_array());
    let list = list.context("deny.toml has no `allow` under [licenses]")?;
    let name =
        |item: &toml::Value| item.as_str().map(str::to_owned).context("an allowed licence is not a string");
    list.iter().map(name).collect()
}

/// Evaluates an SPDX licence expression. No licence at all is permitted by nothing.
fn permitted(expression: &str, allowed: &[String]) -> Result<bool> {
    // Older crates write `MIT/Apache-2.0` for a choice.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    if words.is_empty() {
        return Ok(false);
    }
    let mut parser = Parser { words: &words, allowed };
    let verdict = parser.any()?;
    match parser.words {
        [] => Ok(verdict),
        [word, ..] => bail!("`{expression}` is not an SPDX expression: `{word}` is unexpected"),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl<'a> Parser<'a> {
    fn next_is(&mut self, word: &str) -> bool {
        let is = self.words.first() == Some(&word);
        if is {
            self.words = &self.words[1..];
        }
        is
    }

    fn next(&mut self) -> Result<&'a str> {
        let (word, rest) = self.words.split_first().context("the licence expression breaks off")?;
        self.words = rest;
        Ok(word)
    }

    /// Parts joined by OR, which binds weaker than AND.
    fn any(&mut self) -> Result<bool> {
        let mut verdict = self.all()?;
        while self.next_is("OR") {
            verdict |= self.all()?;
        }
        Ok(verdict)
    }

    fn all(&mut self) -> Result<bool> {
        let mut verdict = self.one()?;
        while self.next_is("AND") {
            verdict &= self.one()?;
        }
        Ok(verdict)
    }

    fn one(&mut self) -> Result<bool> {
        if self.next_is("(") {
            let verdict = self.any()?;
            return match self.next_is(")") {
                true => Ok(verdict),
                false => bail!("a parenthesis of the licence expression is not closed"),
            };
        }
        let word = self.next()?;
        if ["OR", "AND", "WITH", ")"].contains(&word) {
            bail!("`{word}` of the licence expression is in the wrong place");
        }
        let mut licence = word.to_owned();
        if self.next_is("WITH") {
            licence = format!("{licence} WITH {}", self.next()?);
        }
        Ok(self.allowed.contains(&licence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_evaluated() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned);
        let ok = |expression| permitted(expression, &allowed).unwrap();
        assert!(ok("MIT"));
        assert!(ok("MIT/GPL-2.0-only"));
        assert!(ok("MIT OR Apache-2.0 OR LGPL-2.1-or-later"));
        assert!(ok("(MIT OR GPL-2.0-only) AND Unicode-3.0"));
        assert!(ok("GPL-2.0-only AND Zlib OR MIT"));
        assert!(!ok("Apache-2.0 WITH LLVM-exception"));
        assert!(!ok("MIT AND GPL-3.0-only"));
        assert!(!ok("MIT AND (GPL-3.0-only OR Zlib)"));
        assert!(!ok(""));
        for wrong in ["MIT OR", "OR MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH"] {
            assert!(permitted(wrong, &allowed).is_err(), "{wrong}");
        }
    }
}
