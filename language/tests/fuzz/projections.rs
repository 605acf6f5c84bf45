//! Projections: read, compile, test, describe, and fold random events.

use std::collections::HashMap;
use std::fmt::Write as _;

use foldline_api::model::{Key, Row};
use foldline_language::config::env::Env;
use foldline_language::config::projection::ProjectionConfig;
use foldline_language::config::projections;
use foldline_language::converter::{Decoder, Format};
use foldline_language::projection::{Effects, Projection, StateRef, States, test};
use foldline_testkit::Rng;
use foldline_testkit::walk::{CONFIG_WORDS, Walk, files};
use indexmap::IndexMap;

use super::expressions::{json_value, record};

type Projections = IndexMap<String, ProjectionConfig>;

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
        opener: None,
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

fn of_projections(all: &Projections, rng: &mut Rng) -> String {
    let mut shape = String::new();
    for config in all.values() {
        let projection = match Projection::compile(config) {
            Ok(projection) => projection,
            Err(problems) => {
                for problem in problems {
                    let _ = write!(shape, "{}", problem.message);
                }
                continue;
            }
        };
        for outcome in test::run(&projection, &config.tests) {
            let _ = outcome.to_string();
            shape.push(if outcome.passed() { '+' } else { '-' });
        }
        let described = projection.describe();
        let _ = write!(shape, "{}", described.order_warnings.len());
        let _ = described.to_string();
        fold(&projection, rng, &mut shape);
    }
    shape
}

#[test]
fn no_projection_panics() {
    let env = Env::new([("X", "1")]).with_placeholders();
    let mut corpus: Vec<String> =
        ["tests/fixtures", "config", "language/tests/fixtures", "language/src/projection/tests"]
            .iter()
            .flat_map(|below| files(below, "toml"))
            .map(|(_, text)| text)
            .collect();
    corpus.dedup();
    Walk::new("projections", corpus).go(
        1_500,
        CONFIG_WORDS,
        |text, rng| match projections::of_text("fuzz.toml", text, &env) {
            Ok((all, _)) => of_projections(&all, rng),
            Err(problems) => {
                problems.iter().map(|problem| format!("{}\n", problem.message)).collect()
            }
        },
    );
}
