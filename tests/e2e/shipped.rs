//! What the repository ships: the config, the examples, the README's commands, the demo.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::support::daemon::{run_bare, run_in};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::servers::repository;
use crate::support::stores::{ORDERS, sqlite_rows};

fn examples() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join("config/examples")).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn the_config_and_every_example_are_valid_and_pass_their_tests() {
    let root = repository();
    let mut paths = vec![root.join("config")];
    paths.extend(examples());
    assert!(paths.len() > 1, "there are examples");
    for path in paths {
        for command in ["validate", "test"] {
            let printed = run_bare(&root, &[command, &shown(&path)]);
            assert_eq!(printed.code, Some(0), "foldline {command} {}: {printed:?}", path.display());
        }
    }
    for example in examples() {
        let readme = std::fs::read_to_string(example.join("README.md")).unwrap();
        assert!(readme.lines().count() <= 60, "{}: a README of one screen", example.display());
    }
}

#[test]
fn the_readme_has_its_two_commands() {
    let root = repository();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    for command in [
        "cargo run --profile demo -p foldline --no-default-features --features sqlite -- demo",
        "./test",
    ] {
        let line = readme.lines().any(|line| line.trim().starts_with(command));
        assert!(line, "the README has no line with {command}");
    }
    assert!(root.join("test").is_file());
}

/// A line of a file source's log.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
    timestamp: i64,
}

#[test]
fn the_demo_ends_by_itself_and_leaves_a_table_that_is_the_fold_of_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["demo", "--dir", "demo", "--seconds", "2", "--rate", "10000"];
    let printed = run_in(directory.path(), &arguments);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    for word in ["EVENTS/S", "ROWS", "Try next", "foldline plan"] {
        assert!(printed.out.contains(word), "no {word} in {}", printed.out);
    }
    let demo = directory.path().join("demo");
    let mut oracle = Oracle::default();
    for partition in std::fs::read_dir(demo.join("log/es-orders")).unwrap() {
        let path = partition.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "ndjson") {
            continue;
        }
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let line: Line<'_> = serde_json::from_str(line).unwrap();
            oracle.fold(line.value.get().as_bytes(), line.timestamp);
        }
    }
    assert!(oracle.events > 10_000, "only {} events", oracle.events);
    assert_same(
        "the demo's table",
        &oracle.orders(),
        &sqlite_rows(&demo.join("orders.db"), "orders", ORDERS),
    );

    let config = shown(&demo.join("config"));
    assert_eq!(run_in(directory.path(), &["test", &config]).code, Some(0));
    assert_eq!(run_in(directory.path(), &["plan", "orders", "-c", &config]).code, Some(0));
}
