//! The steps of a plan as a patch that `git apply` and `patch -p1` take.

use super::Step;
use similar::TextDiff;

/// Unified diffs of every file, attribute, link and definition that the steps would change, in their order.
pub fn patch(steps: &[Step]) -> String {
    steps.iter().map(one).collect()
}

fn one(step: &Step) -> String {
    match step {
        Step::Attribute { path, before, after, exact } => {
            let after = exact.clone().unwrap_or_else(|| after.written(before));
            one_line(path.as_str(), before, &after)
                .unwrap_or_else(|| unified(path.as_str(), Some(before), Some(&after)))
        }
        Step::File { path, before, after, mode, .. } => {
            let diff = unified(path.as_str(), before.as_deref(), after.as_deref());
            let what = match (before, after) {
                _ if mode & 0o111 == 0 => return diff,
                (None, _) => {
                    "new file mode 100755
"
                }
                (_, None) => {
                    "deleted file mode 100755
"
                }
                (Some(_), Some(_)) => "",
            };
            format!(
                "diff --git a{path} b{path}
{what}{diff}"
            )
        }
        Step::Domain { path, before, after, .. } => {
            unified(path.as_str(), before.as_deref(), after.as_deref())
        }
        Step::Link { path, before, after } => {
            let path = path.as_str();
            let kind = match (before, after) {
                (Some(before), Some(after)) => format!("index {}..{} 120000", blob(before), blob(after)),
                (None, _) => "new file mode 120000".into(),
                (Some(_), None) => "deleted file mode 120000".into(),
            };
            let text = unified(path, before.as_deref(), after.as_deref());
            format!("diff --git a{path} b{path}\n{kind}\n{text}")
        }
        // No patch speaks of directories, nor of images.
        Step::Disk { .. } | Step::Run { .. } | Step::Directory { .. } => String::new(),
    }
}

/// git's name of a content, which tells patch that something was there before.
fn blob(text: &str) -> String {
    let hash = sha1_smol::Sha1::from(format!("blob {}\0{text}", text.len())).digest().to_string();
    hash[..7].to_owned()
}

/// The same as [`unified`] where both texts are one line, as those of kernel attributes are, of which there are many.
fn one_line(path: &str, before: &str, after: &str) -> Option<String> {
    let line = |text: &str| text.find('\n').is_some_and(|end| end + 1 == text.len());
    (line(before) && line(after) && before != after)
        .then(|| format!("--- a{path}\n+++ b{path}\n@@ -1 +1 @@\n-{before}+{after}"))
}

fn unified(path: &str, before: Option<&str>, after: Option<&str>) -> String {
    let name = |text: Option<&str>, side| text.map_or("/dev/null".into(), |_| format!("{side}{path}"));
    let (old, new) = (name(before, "a"), name(after, "b"));
    let (before, after) = (lines(before), lines(after));
    let diff = TextDiff::configure().newline_terminated(true).diff_slices(&before, &after);
    diff.unified_diff().context_radius(3).header(&old, &new).to_string()
}

/// Lines as patch and git see them: a lone carriage return ends none.
fn lines(text: Option<&str>) -> Vec<&str> {
    text.unwrap_or_default().split_inclusive('\n').collect()
}

#[cfg(test)]
mod tests {
    use super::{one_line, unified};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_line_is_no_other_diff(before in "[ab]{0,3}\n{0,2}[ab]?", after in "[ab]{0,3}\n{0,2}[ab]?") {
            let short = one_line("/a", &before, &after);
            prop_assert_eq!(short.is_some(), before.lines().count() == 1 && after.lines().count() == 1
                && before.ends_with('\n') && after.ends_with('\n') && before != after);
            if let Some(short) = short {
                prop_assert_eq!(short, unified("/a", Some(&before), Some(&after)));
            }
        }
    }
}
