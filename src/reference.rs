//! `docs/reference.md` is true and whole: its TOML loads, compiles and passes its tests, the rows of its tables hold, and
//! it shows every word that the JSON Schema, the expressions and the column types know.

mod examples;
mod promises;
mod schema;
mod tables;

use std::path::Path;

/// A fenced block of the page.
struct Block {
    /// What stands behind the fence: `toml`, `toml head`, `toml handlers`.
    kind: String,
    text: String,
    line: usize,
}

/// A row of a table of the page, its cells by the names of their columns.
struct Row {
    columns: Vec<String>,
    cells: Vec<String>,
    line: usize,
}

impl Row {
    /// The cell below `column`, without the backticks around it.
    fn cell(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name == column)?;
        let cell = self.cells.get(at)?.trim();
        let inner = |fence: &str| cell.strip_prefix(fence)?.strip_suffix(fence);
        Some(inner("``").or_else(|| inner("`")).unwrap_or(cell).trim_end())
    }
}

fn page() -> String {
    std::fs::read_to_string(Path::new("docs/reference.md")).unwrap()
}

fn blocks(page: &str) -> Vec<Block> {
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
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    blocks
}

fn rows(page: &str) -> Vec<Row> {
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

/// The page's configs, each whole: its handlers below the projection that they share.
fn configs(page: &str) -> Vec<(usize, String)> {
    let blocks = blocks(page);
    let head = blocks.iter().find(|block| block.kind == "toml head").unwrap();
    let whole = |block: &Block| match block.kind.as_str() {
        "toml" => Some((block.line, block.text.clone())),
        "toml handlers" => Some((block.line, format!("{}{}", head.text, block.text))),
        // What an administrator runs; a test of the sink's has the same rights.
        "toml head" | "sql" => None,
        other => panic!("line {}: a block of kind {other:?}", block.line),
    };
    blocks.iter().filter_map(whole).collect()
}
