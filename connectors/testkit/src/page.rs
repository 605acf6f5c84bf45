//! A page of the docs that tests hold to the code.

use std::path::Path;

/// The rows of the table below `heading` in `page` (a path in the repository), without its head. Each
/// cell's words in backticks, or the cell's text where it has none.
///
/// # Panics
/// When there is no such page, heading or table.
#[must_use]
pub fn table(page: &str, heading: &str) -> Vec<Vec<Vec<String>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let text = std::fs::read_to_string(&path);
    assert!(text.is_ok(), "cannot read {}", path.display());
    let rows: Vec<Vec<Vec<String>>> = text
        .unwrap_or_default()
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .skip_while(|line| !line.starts_with("| "))
        .map_while(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .filter(|row| !row.starts_with("---"))
        .map(str::trim)
        .skip(1)
        .map(|row| row.split(" | ").map(words).collect())
        .collect();
    assert!(!rows.is_empty(), "{page} has no table below {heading:?}");
    rows
}

fn words(cell: &str) -> Vec<String> {
    let quoted: Vec<String> = cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    if quoted.is_empty() { vec![cell.trim().to_owned()] } else { quoted }
}
