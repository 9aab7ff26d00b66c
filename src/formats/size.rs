//! Amounts of memory, in bytes.

use std::fmt;

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// An amount of memory in bytes. Written with the binary units KiB, MiB, GiB and TiB only: to libvirt `GB` is
/// 10^9 and to the kernel `G` is 2^30, so that neither says the same everywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    /// One gibibyte.
    pub const GIB: Size = Size(1 << 30);

    /// The size of `n` KiB, the unit of `/proc/meminfo` and of the page pools in sysfs; saturates.
    pub fn from_kib(n: u64) -> Size {
        Size(n.saturating_mul(1024))
    }

    /// The size in KiB, rounded down.
    pub fn kib(self) -> u64 {
        self.0 / 1024
    }

    /// Reads a whole number with one of KiB, MiB, GiB, TiB: `6GiB`, `512 MiB`.
    ///
    /// # Errors
    /// A message that says what to write instead: no unit, a decimal or ambiguous unit (`GB`, `G`), a
    /// fraction, or more than 2^63-1 bytes.
    pub fn parse(text: &str) -> Result<Size, String> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = (&text[..digits], text[digits..].trim_start());
        let example = "write a whole number with KiB, MiB, GiB or TiB, as in `6GiB`";
        if number.is_empty() || unit.starts_with('.') {
            return Err(format!("`{text}` is not a size: {example}"));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(match UNITS.iter().find(|(name, _)| !unit.is_empty() && is_like(unit, name)) {
                Some((name, _)) => format!("`{unit}` is not a binary unit: write `{number}{name}`"),
                None => format!("`{text}` has no known unit: {example}"),
            });
        };
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor));
        match bytes {
            Some(bytes) if bytes <= i64::MAX as u64 => Ok(Size(bytes)),
            _ => Err(format!("`{text}` is more than any machine's memory")),
        }
    }

    /// The size for people, in GiB with two decimals: `31.43 GiB`.
    pub fn gib(self) -> String {
        format!("{:.2} GiB", self.0 as f64 / (1u64 << 30) as f64)
    }
}

/// `G`, `GB`, `gib` and the like, for `GiB`.
fn is_like(unit: &str, name: &str) -> bool {
    let unit = unit.to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    unit == name || unit == name[..1] || unit == format!("{}b", &name[..1])
}

/// The exact size in the largest unit that divides it: `26GiB`, `1536MiB`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => f.pad(&format!("{}{name}", self.0 / factor)),
            None if self.0 == 0 => f.pad("0KiB"),
            None => f.pad(&format!("{}B", self.0)),
        }
    }
}

impl serde::Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_binary_units_only() {
        assert_eq!(Size::parse("6GiB"), Ok(Size(6 << 30)));
        assert_eq!(Size::parse(" 512 MiB "), Ok(Size(512 << 20)));
        for (text, word) in [
            ("6GB", "write `6GiB`"),
            ("6G", "write `6GiB`"),
            ("6gib", "write `6GiB`"),
            ("6", "no known unit"),
            ("6 parsecs", "no known unit"),
            ("1.5GiB", "not a size"),
            ("-1GiB", "not a size"),
            ("", "not a size"),
            ("99999999999TiB", "more than any machine"),
            ("8388608TiB", "more than any machine"),
        ] {
            let error = Size::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn prints_exactly_and_for_people() {
        assert_eq!(Size(26 << 30).to_string(), "26GiB");
        assert_eq!(Size(1536 << 20).to_string(), "1536MiB");
        assert_eq!(Size(0).to_string(), "0KiB");
        assert_eq!(Size::from_kib(32_961_224).gib(), "31.43 GiB");
    }

    proptest! {
        #[test]
        fn round_trips(kib in 0u64..1 << 40) {
            let size = Size::from_kib(kib);
            prop_assert_eq!(Size::parse(&size.to_string()), Ok(size));
        }

        #[test]
        fn no_text_panics(text in ".{0,30}") {
            let _ = Size::parse(&text);
        }
    }
}
