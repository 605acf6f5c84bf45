//! Configs: load, compile, test, describe, plan, and fold random events.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use foldline::config::{Config, Env, load, unsupported};
use foldline::converter::{Decoder, Format};
use foldline::projection::{Effects, Projection, StateRef, States, test};
use foldline::registry;
use foldline_api::model::{Key, Row};
use foldline_testkit::Rng;

use super::expressions::{json_value, record};
use super::{Walk, files, repository};

/// Words of the config.
const DICTIONARY: &[&str] = &[
    "\n",
    " = ",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    ",",
    ".",
    "\"",
    "'",
    "\"\"\"",
    "#",
    "type",
    "topics",
    "event_type",
    "key",
    "fields",
    "on",
    "event",
    "topic",
    "when",
    "set",
    "merge",
    "patch",
    "add",
    "min",
    "max",
    "append",
    "remove",
    "put",
    "take",
    "delete",
    "ignore",
    "for_each",
    "continue",
    "tests",
    "name",
    "given",
    "expect",
    "bad",
    "filtered",
    "order",
    "index",
    "indexes",
    "default",
    "computed",
    "children",
    "by",
    "lookup",
    "via",
    "expire",
    "envelope",
    "true",
    "false",
    "\"bigint\"",
    "\"integer\"",
    "\"smallint\"",
    "\"numeric(12,2)\"",
    "\"numeric\"",
    "\"varchar(3)\"",
    "\"text\"",
    "\"text[]\"",
    "\"jsonb\"",
    "\"timestamptz\"",
    "\"date\"",
    "\"time\"",
    "\"uuid\"",
    "\"bytea\"",
    "\"boolean\"",
    "\"real\"",
    "\"double precision\"",
    "\"event\"",
    "\"event.id\"",
    "\"key\"",
    "\"exists\"",
    "\"state.n + 1\"",
    "\"item\"",
    "\"child.qty\"",
    "\"^a|b$\"",
    "\"^(\"",
    "\"${X}\"",
    "\"${X:-y}\"",
    "\"${X:?no}\"",
    "\"$${\"",
    "{ env = \"X\" }",
    "'{\"id\":1}'",
    "'{'",
    "2026-01-01",
    "2026-01-01T00:00:00Z",
    "07:32:00",
    "1.5",
    "nan",
    "0",
    "250ms",
    "\"250ms\"",
    "\"8MiB\"",
    "[projections.p]",
    "[[projections.p.on]]",
    "[projections.p.fields]",
    "[connectors.c]",
    "[sinks.s]",
    "[sources.s]",
    "postgres",
    "elasticsearch",
    "sqlite",
    "kafka",
    "file",
    "mapping",
    "settings",
    "batch",
];

#[derive(Default)]
struct Rows(HashMap<Key, Row>);

impl States for Rows {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        Some(StateRef { row: self.0.get(key) })
    }
}

fn fold(projection: &Projection, rng: &mut Rng, shape: &mut String) {
    let decoder = Decoder {
        key: projection.reads_key().then_some(Format::Text),
        value: Format::Json,
        mask: projection.mask().clone(),
        slots: projection.slots(),
    };
    let mut rows = Rows::default();
    for _ in 0..4 {
        let mut text = String::new();
        json_value(rng, 3, &mut text);
        let mut record = record("orders", &text);
        if rng.chance(100) {
            record.value = None;
        }
        let Ok(event) = decoder.decode(&record) else { continue };
        let effects = projection.prepare(&event).and_then(|p| projection.apply(&event, &p, &rows));
        match effects {
            Err(bad) => shape.push_str(bad.stage),
            Ok(Effects::Filtered { .. }) => shape.push('f'),
            Ok(Effects::Applied { writes, .. }) => {
                for (key, row) in writes {
                    match row {
                        Some(row) => rows.0.insert(key, row),
                        None => rows.0.remove(&key),
                    };
                }
            }
        }
    }
}

fn of_config(config: &Config, rng: &mut Rng) -> String {
    let mut shape = String::new();
    for diagnostic in unsupported(config) {
        let _ = write!(shape, "{}", diagnostic.message);
    }
    let mut compiled = HashMap::new();
    for (name, projection) in &config.projections {
        match Projection::compile(projection) {
            Err(problems) => {
                for problem in problems {
                    let _ = write!(shape, "{}", problem.message);
                }
            }
            Ok(projection) => {
                let tests = &config.projections[name].tests;
                for outcome in test::run(&projection, tests) {
                    let _ = outcome.to_string();
                    shape.push(if outcome.passed() { '+' } else { '-' });
                }
                let described = projection.describe();
                let _ = write!(shape, "{}", described.order_warnings.len());
                let _ = described.to_string();
                fold(&projection, rng, &mut shape);
                compiled.insert(name.clone(), Arc::new(projection));
            }
        }
    }
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
    let mut corpus: Vec<String> = ["tests/fixtures", "config", "src/projection/tests"]
        .iter()
        .flat_map(|below| files(&repository().join(below), "toml"))
        .map(|(_, text)| text)
        .collect();
    corpus.dedup();
    Walk::new("configs", corpus).go(1_500, DICTIONARY, |text, rng| {
        std::fs::write(&file, text).unwrap();
        match load(&file, &env) {
            Ok(config) => of_config(&config, rng),
            Err(problems) => {
                problems.iter().map(|problem| format!("{}\n", problem.message)).collect()
            }
        }
    });
}
