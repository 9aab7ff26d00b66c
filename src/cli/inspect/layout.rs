//! Rows of labelled items, wrapped and aligned.

/// The most columns a line has.
pub(super) const WIDTH: usize = 100;

/// The columns of the labels in a page's plain rows.
pub(super) const LABEL: usize = 15;

/// A piece of a row that is never broken.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// As printed, perhaps with escape codes.
    text: String,
    /// Without the codes.
    width: usize,
}

impl Item {
    /// Text in the ordinary style.
    pub(super) fn plain(text: impl Into<String>) -> Item {
        let text = printable(&text.into());
        Item { width: text.chars().count(), text }
    }

    /// Text marked by `style`.
    pub(super) fn styled(text: &str, style: impl Fn(&str) -> String) -> Item {
        let text = printable(text);
        Item { width: text.chars().count(), text: style(&text) }
    }

    /// The items in one piece.
    pub(super) fn joined(items: impl IntoIterator<Item = Item>) -> Item {
        let mut all = Item::plain("");
        for item in items {
            all.text.push_str(&item.text);
            all.width += item.width;
        }
        all
    }

    /// The same with spaces behind it up to `width` columns.
    pub(super) fn padded(mut self, width: usize) -> Item {
        while self.width < width {
            self.text.push(' ');
            self.width += 1;
        }
        self
    }

    /// The same with the gap to the next item behind it.
    pub(super) fn gap(self) -> Item {
        let width = self.width + 1;
        self.padded(width)
    }

    /// The columns it takes.
    pub(super) fn width(&self) -> usize {
        self.width
    }
}

/// A machine description is not trusted to leave the terminal alone.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The words of a sentence; a CPU list may be broken after a comma.
pub(super) fn words(sentence: &str) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for word in sentence.split_whitespace() {
        let parts: Vec<&str> = word.split_inclusive(',').collect();
        let count = parts.len();
        for (at, part) in parts.into_iter().enumerate() {
            items.push(Item::plain(if at + 1 == count { format!("{part} ") } else { part.to_owned() }));
        }
    }
    items
}

/// A text under construction.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// An empty line, unless at the top.
    pub(super) fn gap(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// A line of its own, not wrapped.
    pub(super) fn line(&mut self, item: Item) {
        self.text.push_str(&item.text);
        self.text.push('\n');
    }

    /// A label and a sentence.
    pub(super) fn row(&mut self, label: &str, sentence: &str) {
        self.headed(Item::plain(label), sentence);
    }

    /// A label and one value.
    pub(super) fn value(&mut self, label: &str, value: Item) {
        self.items(Item::plain(label), LABEL, [value]);
    }

    /// A marked label and a sentence.
    pub(super) fn headed(&mut self, label: Item, sentence: &str) {
        self.items(label, LABEL, words(sentence));
    }

    /// A label of `indent` columns and items that have their own gaps; further lines start below the first item.
    pub(super) fn items(&mut self, label: Item, indent: usize, items: impl IntoIterator<Item = Item>) {
        let mut column = label.padded(indent);
        let empty = Item::plain("").padded(column.width);
        let indent = column.width;
        for item in items {
            // A gap at the end of a line is cut.
            let visible = item.width - (item.text.len() - item.text.trim_end_matches(' ').len());
            if column.width > indent && column.width + visible > WIDTH {
                self.finish_line(column);
                column = empty.clone();
            }
            column = Item::joined([column, item]);
        }
        self.finish_line(column);
    }

    fn finish_line(&mut self, line: Item) {
        self.text.push_str(line.text.trim_end_matches(' '));
        self.text.push('\n');
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_are_not_too_wide(words_ in prop::collection::vec("[a-z0-9,-]{1,60}", 0..40)) {
            let mut page = Page::default();
            page.row("label", &words_.join(" "));
            let text = page.finish();
            for line in text.lines() {
                prop_assert!(line.chars().count() <= WIDTH, "{line}");
                prop_assert_eq!(line.trim_end(), line);
            }
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(squeezed(&text), format!("label{}", words_.concat()));
        }
    }

    #[test]
    fn further_lines_start_below_the_first_item() {
        let mut page = Page::default();
        page.items(Item::plain("x"), 4, (0..30).map(|n| Item::plain(format!("{n:04} "))));
        let text = page.finish();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("x   0000 0001") && lines[1].starts_with("    0019"), "{text}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(Item::plain("a\x1b[2Jb").text, "a\u{fffd}[2Jb");
    }
}
