//! Sets of logical CPUs, in the kernel's list (`0-3,8`) and mask (`0000000f`) notations.
//!
//! Source: Documentation/core-api/printk-formats and admin-guide/kernel-parameters (section "cpu lists").

use std::fmt::{self, Write};
use std::ops::Range;

/// The highest CPU id accepted: the largest `NR_CPUS` of x86_64 (`CONFIG_MAXSMP`) is 8192.
pub const MAX_CPU: u32 = 8191;

/// The most elements of a CPU list: twice as many as there can be CPUs.
const MOST_ELEMENTS: usize = 16_384;

/// A set of logical CPU numbers, 0 to [`MAX_CPU`].
///
/// Two sets are equal when they hold the same CPUs, however they were written.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CpuSet {
    // No trailing zero words, so that derived equality is set equality.
    words: Vec<u64>,
}

/// Why a CPU list could not be read, and which part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuListError {
    /// The byte range of the offending element inside the list.
    pub span: Range<usize>,
    /// What is wrong with it and what to write instead.
    pub message: String,
}

impl fmt::Display for CpuListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CpuListError {}

impl CpuSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one CPU.
    ///
    /// # Panics
    /// If `cpu` is above [`MAX_CPU`]; every parser refuses such a number first.
    pub fn insert(&mut self, cpu: u32) {
        assert!(cpu <= MAX_CPU, "CPU {cpu} is above {MAX_CPU}");
        let word = cpu as usize / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (cpu % 64);
    }

    /// Adds every CPU from `first` to `last`; a list may be long, so whole words at a time.
    fn insert_range(&mut self, first: u32, last: u32) {
        self.insert(last);
        for word in first / 64..=last / 64 {
            let low = first.saturating_sub(word * 64);
            let high = (last - word * 64).min(63);
            self.words[word as usize] |= (u64::MAX >> (63 - high)) & (u64::MAX << low);
        }
    }

    /// Whether the set holds `cpu`.
    pub fn contains(&self, cpu: u32) -> bool {
        self.words.get(cpu as usize / 64).is_some_and(|w| w >> (cpu % 64) & 1 == 1)
    }

    /// Whether the set holds no CPU.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// How many CPUs the set holds.
    pub fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    i as u32 * 64 + bit
                })
            })
        })
    }

    /// The lowest CPU.
    pub fn first(&self) -> Option<u32> {
        self.iter().next()
    }

    /// The highest CPU.
    pub fn last(&self) -> Option<u32> {
        self.words.last().map(|w| (self.words.len() as u32 - 1) * 64 + 63 - w.leading_zeros())
    }

    /// Whether every CPU of this set is in `other`.
    pub fn is_subset(&self, other: &CpuSet) -> bool {
        self.words.iter().enumerate().all(|(i, w)| w & !other.words.get(i).unwrap_or(&0) == 0)
    }

    /// Whether the two sets share no CPU.
    pub fn is_disjoint(&self, other: &CpuSet) -> bool {
        self.words.iter().zip(&other.words).all(|(a, b)| a & b == 0)
    }

    /// The CPUs in both sets.
    pub fn intersection(&self, other: &CpuSet) -> CpuSet {
        Self::from_words(self.words.iter().zip(&other.words).map(|(a, b)| a & b).collect())
    }

    /// The CPUs in either set.
    pub fn union(&self, other: &CpuSet) -> CpuSet {
        let n = self.words.len().max(other.words.len());
        let word = |s: &CpuSet, i| s.words.get(i).copied().unwrap_or(0);
        Self::from_words((0..n).map(|i| word(self, i) | word(other, i)).collect())
    }

    /// The CPUs of this set that are not in `other`.
    pub fn difference(&self, other: &CpuSet) -> CpuSet {
        let keep = |(i, w): (usize, &u64)| w & !other.words.get(i).unwrap_or(&0);
        Self::from_words(self.words.iter().enumerate().map(keep).collect())
    }

    fn from_words(mut words: Vec<u64>) -> Self {
        while words.last() == Some(&0) {
            words.pop();
        }
        Self { words }
    }

    /// Reads a CPU list as a person writes it: `0-3,8`, ranges ascending, strides as `0-7:1/2` (of every 2
    /// CPUs the first 1). An empty list, an empty element, a descending range, a bad stride and the kernel's
    /// symbolic `N` and `all` are errors, and so are more than 16,384 elements.
    pub fn parse_list(text: &str) -> Result<CpuSet, CpuListError> {
        let mut set = CpuSet::new();
        let mut at: usize = 0;
        let count = text.split(',').count();
        if count > MOST_ELEMENTS {
            let message = format!("the CPU list has {count} elements; the limit is {MOST_ELEMENTS}");
            return Err(CpuListError { span: 0..text.len(), message });
        }
        for element in text.split(',') {
            let body = element.trim();
            let lead = element.len() - element.trim_start().len();
            let span = match body.is_empty() {
                // An empty element is shown with the commas around it.
                true => at - usize::from(at > 0)..(at + element.len() + 1).min(text.len()),
                false => at + lead..at + lead + body.len(),
            };
            let (first, last, used, group) =
                parse_element(body).map_err(|message| CpuListError { span, message })?;
            for start in (first..=last).step_by(group as usize) {
                set.insert_range(start, last.min(start + used - 1));
            }
            at += element.len() + 1;
        }
        Ok(set)
    }

    /// Reads a CPU list as the kernel prints it: like [`CpuSet::parse_list`], but an empty file and the
    /// `(null)` that some kernels print for it are the empty set.
    pub fn parse_kernel_list(text: &str) -> Result<CpuSet, CpuListError> {
        match text.trim() {
            "" | "(null)" => Ok(CpuSet::new()),
            list => CpuSet::parse_list(list),
        }
    }

    /// Reads a hexadecimal mask as the kernel prints it: comma-separated groups of 32 bits, highest first.
    pub fn parse_mask(text: &str) -> Result<CpuSet, CpuListError> {
        let text = text.trim();
        let fail = |message: String| CpuListError { span: 0..text.len(), message };
        let groups: Vec<&str> = text.split(',').collect();
        if groups.len() > (MAX_CPU as usize + 1) / 32 {
            return Err(fail(format!("the mask has {} groups of 32 CPUs, too many", groups.len())));
        }
        let mut words = vec![0u64; groups.len().div_ceil(2)];
        for (i, group) in groups.iter().rev().enumerate() {
            let hex = !group.is_empty() && group.len() <= 8 && group.bytes().all(|b| b.is_ascii_hexdigit());
            let bits = hex.then(|| u32::from_str_radix(group, 16).ok()).flatten();
            let bits =
                bits.ok_or_else(|| fail(format!("`{group}` is not a hexadecimal group of 32 bits")))?;
            words[i / 2] |= u64::from(bits) << (32 * (i % 2));
        }
        Ok(Self::from_words(words))
    }

    /// The set as a kernel mask: hexadecimal, in groups of 32 bits, highest first, no leading zero groups.
    pub fn to_mask(&self) -> String {
        let groups: Vec<u32> = self.words.iter().flat_map(|w| [*w as u32, (*w >> 32) as u32]).collect();
        let top = groups.iter().rposition(|g| *g != 0).unwrap_or(0);
        let mut text = format!("{:x}", groups.first().map_or(0, |_| groups[top]));
        for group in groups.iter().take(top).rev() {
            write!(text, ",{group:08x}").expect("a String takes all");
        }
        text
    }
}

/// One element: first CPU, last CPU, and of every `group` CPUs the first `used`.
fn parse_element(text: &str) -> Result<(u32, u32, u32, u32), String> {
    if text.is_empty() {
        return Err("an empty element in the CPU list: remove the extra comma".into());
    }
    let (range, stride) = match text.split_once(':') {
        Some((range, stride)) => (range, Some(stride)),
        None => (text, None),
    };
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (cpu_number(first)?, cpu_number(last)?),
        None => (cpu_number(range)?, cpu_number(range)?),
    };
    if last < first {
        return Err(format!("the range `{range}` is descending: write `{last}-{first}`"));
    }
    let Some(stride) = stride else { return Ok((first, last, last - first + 1, last - first + 1)) };
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| (1..=MAX_CPU).contains(n));
    match stride.split_once('/').and_then(|(used, group)| Some((number(used)?, number(group)?))) {
        Some((used, group)) if used <= group => Ok((first, last, used, group)),
        _ => Err(format!(
            "`:{stride}` is not a stride: write `:USED/GROUP` with 1 <= USED <= GROUP, as in `0-7:1/2`"
        )),
    }
}

fn cpu_number(text: &str) -> Result<u32, String> {
    if text == "N" || text == "all" {
        return Err(format!("`{text}` depends on the machine: write the CPU numbers, as in `2-7`"));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{text}` is not a CPU number: write a list such as `0-3,8`"));
    }
    text.parse()
        .ok()
        .filter(|cpu| *cpu <= MAX_CPU)
        .ok_or_else(|| format!("CPU {text} is above {MAX_CPU}, the highest number a Linux kernel can have"))
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let mut set = CpuSet::new();
        for cpu in cpus {
            set.insert(cpu);
        }
        set
    }
}

/// The kernel's list notation, ascending and merged: `0-3,8`; nothing for the empty set.
impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let mut cpus = self.iter().peekable();
        while let Some(first) = cpus.next() {
            let mut last = first;
            while cpus.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            let comma = if text.is_empty() { "" } else { "," };
            match last - first {
                0 => write!(text, "{comma}{first}")?,
                _ => write!(text, "{comma}{first}-{last}")?,
            }
        }
        f.pad(&text)
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

impl serde::Serialize for CpuSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for CpuSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<CpuSet, D::Error> {
        let text = String::deserialize(deserializer)?;
        CpuSet::parse_kernel_list(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> CpuSet {
        CpuSet::parse_list(text).unwrap()
    }

    #[test]
    fn lists_are_sets() {
        assert_eq!(set("10-15,2-7"), set("2-7,10-15"));
        assert_eq!(set("10-15,2-7").to_string(), "2-7,10-15");
        assert_eq!(set("0-7:1/2").to_string(), "0,2,4,6");
        assert_eq!(set("0-8:2/4").to_string(), "0-1,4-5,8");
        assert_eq!(set("0, 2 ,3").to_string(), "0,2-3");
        assert_eq!(CpuSet::parse_kernel_list("\n").unwrap(), CpuSet::new());
        assert_eq!(CpuSet::parse_kernel_list("(null)\n").unwrap(), CpuSet::new());
    }

    #[test]
    fn errors_name_the_element() {
        for (text, span, word) in [
            ("4-N", 0..3, "depends on the machine"),
            ("0-7:3/2", 0..7, "stride"),
            ("0-7:0/2", 0..7, "stride"),
            ("0-7:1", 0..5, "stride"),
            ("0,3-1", 2..5, "write `1-3`"),
            ("1,,2", 1..3, "extra comma"),
            ("", 0..0, "empty"),
            ("1,2,", 3..4, "extra comma"),
            ("0-1,x", 4..5, "not a CPU number"),
            ("0-8192", 0..6, "above 8191"),
            ("0-99999999999", 0..13, "above 8191"),
            ("-1", 0..2, "not a CPU number"),
        ] {
            let error = CpuSet::parse_list(text).unwrap_err();
            assert_eq!(error.span, span, "{text}");
            assert!(error.message.contains(word), "{text}: {}", error.message);
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let list = |count| vec!["1"; count].join(",");
        assert_eq!(set(&list(MOST_ELEMENTS)), set("1"));
        let error = CpuSet::parse_list(&list(MOST_ELEMENTS + 1)).unwrap_err();
        assert!(error.message.contains("16385 elements"), "{error}");
    }

    #[test]
    fn masks_have_the_kernels_form() {
        assert_eq!(set("2-7,10-15").to_mask(), "fcfc");
        assert_eq!(set("0,32,64").to_mask(), "1,00000001,00000001");
        assert_eq!(CpuSet::new().to_mask(), "0");
        assert_eq!(CpuSet::parse_mask("00000000,0000ffff\n").unwrap(), set("0-15"));
        for bad in ["", "g", "123456789", "1,,2", "+1"] {
            assert!(CpuSet::parse_mask(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn list_and_mask_round_trip(cpus in prop::collection::btree_set(0u32..=MAX_CPU, 0..64)) {
            let set: CpuSet = cpus.iter().copied().collect();
            prop_assert_eq!(CpuSet::parse_kernel_list(&set.to_string()).unwrap(), set.clone());
            prop_assert_eq!(CpuSet::parse_mask(&set.to_mask()).unwrap(), set.clone());
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), cpus.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((set.len(), set.first(), set.last()),
                (cpus.len(), cpus.first().copied(), cpus.last().copied()));
        }

        #[test]
        fn algebra_agrees_with_std(a in prop::collection::btree_set(0u32..300, 0..80),
                                   b in prop::collection::btree_set(0u32..300, 0..80)) {
            let (x, y): (CpuSet, CpuSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(x.union(&y), a.union(&b).copied().collect());
            prop_assert_eq!(x.intersection(&y), a.intersection(&b).copied().collect());
            prop_assert_eq!(x.difference(&y), a.difference(&b).copied().collect());
            prop_assert_eq!((x.is_subset(&y), x.is_disjoint(&y)), (a.is_subset(&b), a.is_disjoint(&b)));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = CpuSet::parse_list(&text);
            let _ = CpuSet::parse_mask(&text);
        }
    }
}
