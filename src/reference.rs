//! The pages are true. `docs/reference.md` is whole, too: its TOML loads, compiles and passes its tests, and it shows every
//! word that the JSON Schema knows. Its tables of expressions and types are held to the code by the language's own tests.

mod examples;
mod keys;
mod pages;
mod promises;
mod schema;
mod status;

use foldline_testkit::page::{self, Block, blocks};

/// The page of the language.
const LANGUAGE: &str = "docs/reference.md";

/// Other pages that have configs.
const GUIDES: [&str; 3] = ["README.md", "docs/getting-started.md", "docs/operating.md"];

fn page() -> String {
    page::text(LANGUAGE)
}

/// The page's configs, each whole: its handlers below the projection that they share.
fn configs(page: &str) -> Vec<(usize, String)> {
    let blocks = blocks(page);
    let head = blocks.iter().find(|block| block.kind == "toml head");
    let head = head.map(|block| block.text.as_str()).unwrap_or_default();
    let whole = |block: &Block| match block.kind.as_str() {
        "toml" => Some((block.line, block.text.clone())),
        "toml handlers" => Some((block.line, format!("{head}{}", block.text))),
        // What an administrator runs (a test of the sink has the same rights), and a line of the log.
        "toml head" | "sql" | "sh" | "json" => None,
        // A file that a config names.
        kind if kind.starts_with("json ") || kind.starts_with("proto ") => None,
        other => panic!("line {}: a block of kind {other:?}", block.line),
    };
    blocks.iter().filter_map(whole).collect()
}
