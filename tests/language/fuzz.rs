//! No config makes Foldline panic: load, compile, plan. What folds, the language's own tests walk over.

use std::fmt::Write as _;

use foldline::config::{Config, load, unsupported};
use foldline::registry;
use foldline_language::config::env::Env;
use foldline_language::projection;
use foldline_testkit::walk::{CONFIG_WORDS, Walk, files};

fn of_config(config: &Config) -> String {
    let mut shape = String::new();
    for diagnostic in unsupported(config) {
        let _ = write!(shape, "{}", diagnostic.message);
    }
    let compiled = match projection::compile(&config.projections, &config.places) {
        Ok(compiled) => compiled,
        Err(problems) => {
            problems.iter().for_each(|problem| shape.push_str(&problem.message));
            return shape;
        }
    };
    for connector in config.connectors.values() {
        let Some(projection) = compiled.get(&connector.projection) else { continue };
        match registry::plan(config, connector, projection) {
            Ok(statements) => shape.push(if statements.is_empty() { '0' } else { 'p' }),
            Err(error) => shape.push_str(&error.to_string()),
        }
    }
    shape
}

#[test]
fn no_config_panics() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let env = Env::new([
        ("DATABASE_URL", "postgres://foldline@localhost/app"),
        ("FOLDLINE__WORKER__MEMORY", "64MiB"),
        ("X", "1"),
    ])
    .with_placeholders();
    let mut corpus: Vec<String> = ["tests/fixtures", "config"]
        .iter()
        .flat_map(|below| files(below, "toml"))
        .map(|(_, text)| text)
        .collect();
    corpus.dedup();
    Walk::new("configs", corpus).go(1_500, CONFIG_WORDS, |text, _| {
        std::fs::write(&file, text).unwrap();
        match load(&file, &env) {
            Ok(config) => of_config(&config),
            Err(problems) => {
                problems.iter().map(|problem| format!("{}\n", problem.message)).collect()
            }
        }
    });
}
