//! The check of one extra kernel argument's characters.

/// Whether `text` can be put on a kernel command line through every boot loader's configuration unchanged.
///
/// # Errors
/// A message that names the first character that cannot.
pub(super) fn check_kernel_argument(text: &str) -> Result<(), String> {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-.,:=/+@%".contains(c);
    match text.chars().find(|c| !safe(*c)) {
        None => Ok(()),
        Some(' ') => Err("a kernel argument has no space: write one string per argument".into()),
        Some(c) => Err(format!(
            "a kernel argument has no {}: use letters, digits and _ - . , : = / + @ %",
            super::checks::character(c)
        )),
    }
}
