//! `docs/reference.md`: the rows of its tables of expressions and types hold, and it shows every word that they know.

use foldline_api::column::ColumnType;
use foldline_api::json;
use foldline_api::value::Value;
use foldline_testkit::page::{self, rows};

use crate::expr::table;

fn page() -> String {
    page::text("docs/reference.md")
}

#[test]
fn every_expression_of_the_page_has_the_result_that_stands_beside_it() {
    let page = page();
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows(&page) {
        let (Some(source), Some(wanted)) = (row.cell("expression"), row.cell("result")) else {
            continue;
        };
        count += 1;
        let over = row.cell("over").filter(|over| !over.is_empty()).unwrap_or("{}");
        let wanted = wanted.replace('`', "");
        let got = table::outcome(source, over);
        if !table::agrees(&got.replace('`', ""), &wanted) {
            wrong.push(format!("line {}: {source}\n  wanted {wanted}\n  got    {got}", row.line));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "{count} expressions on the page");
}

#[test]
fn every_value_of_the_page_becomes_what_stands_beside_it() {
    let page = page();
    let mut wrong = Vec::new();
    for row in rows(&page) {
        let (Some(ty), Some(value), Some(wanted)) =
            (row.cell("type"), row.cell("value"), row.cell("becomes"))
        else {
            continue;
        };
        let value = json::parse(value.as_bytes()).unwrap();
        let got = match ColumnType::parse(ty).unwrap().coerce(value) {
            Ok(Value::Double(double)) => format!("{double:?}"),
            Ok(value) => json::to_string(&value),
            Err(error) => format!("refused: {error}"),
        };
        let met = match wanted.strip_prefix("refused: ") {
            Some(part) => got.starts_with("refused") && got.contains(part),
            None => got == wanted,
        };
        if !met {
            wrong.push(format!("line {}: {ty}: wanted {wanted}, got {got}", row.line));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first cells of all rows below `column`.
fn shown(column: &str) -> Vec<String> {
    rows(&page()).iter().filter_map(|row| row.cell(column)).map(str::to_owned).collect()
}

/// Whether `word` stands in one of the texts, no letter beside it.
fn stands(texts: &[String], word: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    texts.iter().any(|text| {
        text.match_indices(word).any(|(at, _)| {
            let word_like = word.starts_with(|c: char| c.is_alphabetic());
            let after = text[at + word.len()..].chars().next();
            !word_like || !(letter(text[..at].chars().next_back()) || letter(after))
        })
    })
}

#[test]
fn the_page_shows_every_function_variable_operator_and_macro() {
    let expressions = shown("expression");
    let operators =
        ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "!", "?", " in "];
    let missing: Vec<&str> =
        table::words().chain(operators).filter(|word| !stands(&expressions, word)).collect();
    assert!(missing.is_empty(), "docs/reference.md does not show {missing:?}");
}

#[test]
fn the_page_shows_every_type() {
    // What is allowed, as a wrong name is told.
    let told = ColumnType::parse("nothing").unwrap_err();
    let (_, names) = told.split_once("allowed are ").unwrap();
    let names: Vec<&str> = names.split(", ").map(|n| n.split('(').next().unwrap()).collect();
    assert!(names.len() > 12, "{names:?}");
    let page = page();
    let types = shown("type");
    for name in names {
        let shown = match name {
            "children and arrays such as text[]" => {
                types.iter().any(|ty| ty.ends_with("[]")) && page.contains("type = \"children\"")
            }
            // The rest of numeric(p,s).
            "s)" => true,
            name => types.iter().any(|ty| ty.split('(').next() == Some(name)),
        };
        assert!(shown, "docs/reference.md has no row for {name}");
    }
}
