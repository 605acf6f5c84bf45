//! What the docs promise has tests: every test that their tables name is there.

use std::path::Path;

use foldline_testkit::page;

/// The cells' words that are no files must be functions in one of the files before them.
fn assert_named(cell: &[String], row: &[Vec<String>]) {
    let mut texts: Vec<String> = Vec::new();
    let mut names = 0;
    for word in cell {
        if Path::new(word).extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(word);
            texts.push(text.unwrap_or_else(|error| panic!("{word} in {row:?}: {error}")));
        } else {
            let function = format!("fn {word}(");
            assert!(texts.iter().any(|text| text.contains(&function)), "{word} in {row:?}");
            names += 1;
        }
    }
    assert!(names > 0, "{row:?} names no test");
}

#[test]
fn every_failure_that_the_page_tells_of_has_its_test() {
    let rows = page::table("docs/guarantees.md", "## What happens when things go wrong");
    assert!(rows.len() > 10);
    for row in &rows {
        assert_eq!(row.len(), 4, "{row:?}");
        assert_named(&row[3], row);
    }
}

#[test]
fn every_rule_of_exactness_has_its_place_and_its_test() {
    let rows = page::table("docs/internals/exactness.md", "## How exactness is kept");
    let rules: Vec<&str> = rows.iter().map(|row| row[0][0].as_str()).collect();
    let expected: Vec<String> = (1..=18).map(|rule| rule.to_string()).collect();
    assert_eq!(rules, expected);
    for row in &rows {
        for file in &row[2] {
            assert!(Path::new(file).is_file(), "{file} in {row:?}");
        }
        assert_named(&row[3], row);
    }
}

/// What the page's table says of one server, from its lines of tests/services/versions: name, version, Java, outcome.
fn row_of_versions(name: &str, lines: &[Vec<&str>]) -> String {
    let of = |outcomes: &[&str]| {
        let fits = lines.iter().filter(|line| outcomes.contains(&line[3]));
        fits.map(|line| line[1]).collect::<Vec<_>>().join(", ")
    };
    let refused = match (of(&["refused"]), of(&["classic"])) {
        (refused, classic) if classic.is_empty() => refused,
        (_, classic) => format!("with `group_protocol = \"consumer\"`: {classic}"),
    };
    format!("| {name} | {} | {refused} |", of(&["works", "classic"])).replace("|  |", "| |")
}

#[test]
fn the_page_has_the_versions_that_the_matrix_runs() {
    let list = std::fs::read_to_string("tests/services/versions").unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    let names = [
        ("postgres", "PostgreSQL"),
        ("elasticsearch", "Elasticsearch"),
        ("opensearch", "OpenSearch"),
        ("kafka", "Kafka"),
    ];
    let mut table = String::from("|---|---|---|\n");
    let mut told = 0;
    for (server, name) in names {
        let of: Vec<Vec<&str>> = lines.iter().filter(|line| line[0] == server).cloned().collect();
        told += of.len();
        table += &row_of_versions(name, &of);
        table.push('\n');
    }
    assert_eq!(told, lines.len(), "each line is of a server that the page names");
    let page = page::text("README.md");
    assert!(page.contains(&table), "the page's table of versions must be\n{table}");
}
