//! The notations of libvirt's domain XML. Source: <https://libvirt.org/formatdomain.html>.

use super::CpuSet;

/// An amount of memory in bytes; KiB where no unit is given. `None` if it is not one.
pub fn bytes(number: &str, unit: Option<&str>) -> Option<u128> {
    let unit = unit.unwrap_or("KiB").to_ascii_lowercase();
    let power = |letter: u8| b"kmgtpe".iter().position(|l| *l == letter).map(|i| i as u32 + 1);
    let bytes = match unit.as_bytes() {
        b"b" | b"byte" | b"bytes" => Some(1),
        [letter] | [letter, b'i', b'b'] => power(*letter).map(|p| 1024u128.pow(p)),
        [letter, b'b'] => power(*letter).map(|p| 1000u128.pow(p)),
        _ => None,
    }?;
    let number: u64 = number.trim().parse().ok()?;
    Some(u128::from(number) * bytes)
}

/// The same in whole KiB, rounded up as libvirt does.
pub fn kib(number: &str, unit: Option<&str>) -> Option<u128> {
    Some(bytes(number, unit)?.div_ceil(1024))
}

/// A list as libvirt reads it: like the kernel's, but `^8` takes a number out of what stands before it.
pub fn cpu_list(text: &str) -> Option<CpuSet> {
    text.split(',').try_fold(CpuSet::new(), |set, element| match element.trim().strip_prefix('^') {
        Some(out) => Some(set.difference(&CpuSet::parse_list(out).ok()?)),
        None => Some(set.union(&CpuSet::parse_list(element).ok()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_kib_whatever_the_unit() {
        for (number, unit, want) in [
            ("16", Some("GiB"), 16_777_216),
            ("16", Some("G"), 16_777_216),
            ("16", Some("GB"), 15_625_000),
            ("1", None, 1),
            ("1", Some("bytes"), 1),
            ("2049", Some("b"), 3),
        ] {
            assert_eq!(kib(number, unit), Some(want), "{number} {unit:?}");
        }
        assert_eq!(kib("1", Some("parsec")), None);
        assert_eq!(kib("x", None), None);
    }

    #[test]
    fn lists_are_sets_with_exclusions() {
        assert_eq!(cpu_list("0-3,^2").map(|s| s.to_string()).as_deref(), Some("0-1,3"));
        assert_eq!(cpu_list("8,9").map(|s| s.to_string()).as_deref(), Some("8-9"));
        assert_eq!(cpu_list("all"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}", number in ".{0,8}", unit in ".{0,4}") {
            let _ = kib(&number, Some(&unit));
            let _ = cpu_list(&text);
        }
    }
}
