//! Pages of the docs that tests hold to the code.

use std::path::Path;

/// The text of `page`, a path in the repository.
///
/// # Panics
/// When there is no such page.
#[must_use]
pub fn text(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let text = std::fs::read_to_string(&path);
    assert!(text.is_ok(), "cannot read {}", path.display());
    text.unwrap_or_default()
}

/// The rows of the table below `heading` in `page` (a path in the repository), without its head. Each
/// cell's words in backticks, or the cell's text where it has none.
///
/// # Panics
/// When there is no such page, heading or table.
#[must_use]
pub fn table(page: &str, heading: &str) -> Vec<Vec<Vec<String>>> {
    let rows: Vec<Vec<Vec<String>>> = text(page)
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

/// A fenced block of the page.
#[derive(Debug)]
pub struct Block {
    /// What stands behind the fence: `toml`, `toml head`, `toml handlers`.
    pub kind: String,
    /// What it holds.
    pub text: String,
    /// Where it begins in the page, from 1.
    pub line: usize,
}

/// A row of a table of the page, its cells by the names of their columns.
#[derive(Debug)]
pub struct Row {
    columns: Vec<String>,
    cells: Vec<String>,
    /// Where it stands in the page, from 1.
    pub line: usize,
}

impl Row {
    /// The cell below `column`, without the backticks around it.
    #[must_use]
    pub fn cell(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name == column)?;
        let cell = self.cells.get(at)?.trim();
        let inner = |fence: &str| cell.strip_prefix(fence)?.strip_suffix(fence);
        Some(inner("``").or_else(|| inner("`")).unwrap_or(cell).trim_end())
    }
}

/// The fenced blocks of a page.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (at, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(kind), false) => {
                blocks.push(Block { kind: kind.to_owned(), text: String::new(), line: at + 1 });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                if let Some(block) = blocks.last_mut() {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
            (None, false) => {}
        }
    }
    blocks
}

/// The rows of all tables of a page.
#[must_use]
pub fn rows(page: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut columns: Option<Vec<String>> = None;
    for (at, line) in page.lines().enumerate() {
        let Some(inner) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            if !line.starts_with("|---") {
                columns = None;
            }
            continue;
        };
        // A bar inside a cell is written \|.
        let hidden = inner.replace("\\|", "\u{1}");
        let cells = hidden.split('|').map(|cell| cell.replace('\u{1}', "|").trim().to_owned());
        match &columns {
            None => columns = Some(cells.collect()),
            Some(columns) => {
                rows.push(Row { columns: columns.clone(), cells: cells.collect(), line: at + 1 });
            }
        }
    }
    rows
}
