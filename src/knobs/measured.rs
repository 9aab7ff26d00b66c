//! What each knob pays for, as `cargo xtask lab latency --knobs` measured it: the table in docs/latency.md.

/// The page with the table, which is the only place where the figures are.
const PAGE: &str = include_str!("../../docs/latency.md");

/// How the figures of that machine change without a knob; `None` where it changes nothing there that could be left out.
pub fn measured(id: &str) -> Option<String> {
    in_table(PAGE, id)
}

fn in_table(page: &str, id: &str) -> Option<String> {
    let mut rows = page.lines().skip_while(|line| !line.starts_with("| without |")).map(cells);
    let titles = rows.next()?;
    let rows: Vec<Vec<&str>> = rows.skip(1).take_while(|cells| cells.len() == titles.len()).collect();
    let whole = rows.iter().find(|row| row[0] == "nothing")?;
    let row = rows.iter().find(|row| row[0].split(", ").any(|knob| knob == id))?;
    let beside: Vec<&str> = row[0].split(", ").filter(|knob| *knob != id).collect();
    let without = match beside.is_empty() {
        true => "without it".to_owned(),
        false => format!("without it and {}", beside.join(", ")),
    };
    let changes: Vec<String> = titles
        .iter()
        .zip(row.iter().zip(whole))
        .skip(1)
        .filter(|(_, (cell, _))| **cell != "=")
        .map(|(title, (cell, whole))| format!("{title} {cell} instead of {whole}"))
        .collect();
    Some(match changes.is_empty() {
        true => format!("{without} no figure changes"),
        false => format!("{without} {}", changes.join(", ")),
    })
}

/// The cells of a row of Markdown; none of another line.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    inner.map_or(Vec::new(), |inner| inner.split('|').map(str::trim).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs;

    #[test]
    fn a_row_is_told() {
        let page = "text\n\n| without | a maximum | a switches |\n|---|---|---|\n| nothing | 14 | 3 |\n\
                    | x.one | = | = |\n| x.two, x.two-boot | 20 | = |\n\n| x.three | 1 | 1 |\n";
        let told = |id: &str| in_table(page, id);
        assert_eq!(told("x.one").as_deref(), Some("without it no figure changes"));
        assert_eq!(told("x.two").as_deref(), Some("without it and x.two-boot a maximum 20 instead of 14"));
        assert_eq!(told("x.three"), None);
        assert_eq!(in_table("no table", "x.one"), None);
    }

    #[test]
    fn the_table_is_there_and_has_knobs_alone() {
        let rows = PAGE.lines().skip_while(|line| !line.starts_with("| without |")).map(cells).skip(3);
        let names: Vec<&str> = rows.map_while(|cells| cells.first().copied()).collect();
        assert!(names.len() > 10, "{names:?}");
        for id in names.iter().flat_map(|name| name.split(", ")) {
            assert!(knobs::all().any(|knob| knob.id == id), "{id} is no knob");
        }
    }
}
