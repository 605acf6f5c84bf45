//! What the repository ships: the config, the examples, the README's commands, the demo.

use std::path::PathBuf;

use crate::support::daemon::run_in;
use crate::support::servers::repository;

fn examples() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join("config/examples")).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

fn shown(path: &std::path::Path) -> String {
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
            let printed = run_in(&root, &[command, &shown(&path)]);
            assert_eq!(printed.code, Some(0), "foldline {command} {}: {printed:?}", path.display());
        }
    }
    for example in examples() {
        let readme = std::fs::read_to_string(example.join("README.md")).unwrap();
        assert!(readme.lines().count() <= 60, "{}: a README of one screen", example.display());
    }
}

#[test]
fn the_readme_begins_with_two_commands_that_are_there() {
    let root = repository();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    for command in ["cargo run -- demo", "./test"] {
        let line = readme.lines().any(|line| line.trim().starts_with(command));
        assert!(line, "the README has no line with {command}");
    }
    assert!(root.join("test").is_file());
}
