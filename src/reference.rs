//! `docs/reference.md` is true and whole: its TOML loads, compiles and passes its tests, and it shows every word that the
//! JSON Schema knows. Its tables of expressions and types are held to the code by the language's own tests.

mod examples;
mod promises;
mod schema;
mod status;

use foldline_testkit::page::{self, Block, blocks};

fn page() -> String {
    page::text("docs/reference.md")
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
        // A file that a config names.
        kind if kind.starts_with("json ") => None,
        other => panic!("line {}: a block of kind {other:?}", block.line),
    };
    blocks.iter().filter_map(whole).collect()
}
