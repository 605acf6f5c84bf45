//! A projection out of records that were sampled: pure, from events to TOML.
//!
//! In reading order: this file (the whole), `plan` (what the projection says), `kinds` (the types), `masks` (what stands in
//! its tests instead of what was sampled) and `write` (the TOML).

mod kinds;
mod masks;
mod plan;
mod write;

use foldline_api::value::Value;
use foldline_language::projection::{Projection, test};

use crate::config::load_text;
use plan::Plan;
use write::Expected;

/// A record of the topic, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Its key; null where it has none.
    pub(crate) key: Value,
    /// Its value; null is a tombstone.
    pub(crate) value: Value,
    /// Its headers that are texts.
    pub(crate) headers: Vec<(String, String)>,
    /// The event's name as its schema tells it.
    pub(crate) name: Option<String>,
}

/// Suggests a projection `name` of `topic`: TOML that loads, compiles and passes its own tests. `notes` become comments.
///
/// # Errors
/// Why these records give none.
pub(crate) fn suggest(
    name: &str,
    topic: &str,
    samples: &[Sample],
    notes: &[String],
) -> Result<String, String> {
    let plan = Plan::of(samples)?;
    let cases = plan.cases(samples);
    let draft = write::toml((name, topic), &plan, &cases, &[], notes);
    let expected: Vec<Expected> = folded(name, &draft)?;
    let text = write::toml((name, topic), &plan, &cases, &expected, notes);
    check(name, &text)?;
    Ok(text)
}

/// What the cases of a text come to.
fn folded(name: &str, text: &str) -> Result<Vec<Expected>, String> {
    let (projection, tests) = compiled(name, text)?;
    let of = |case: &Case| {
        let test::Folded { mut rows, bad, filtered } = test::folded(&projection, &case.value)?;
        rows.sort();
        Ok(Expected { rows, bad, filtered })
    };
    tests.iter().map(of).collect()
}

type Case = foldline_language::config::projection::Located<
    foldline_language::config::projection::TestConfig,
>;

fn compiled(name: &str, text: &str) -> Result<(Projection, Vec<Case>), String> {
    let own = |problem: &dyn std::fmt::Display| format!("what was suggested is wrong: {problem}");
    let config = load_text("suggested", text).map_err(|found| {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        own(&found.join("; "))
    })?;
    let projection = config.projections.get(name).ok_or_else(|| own(&"no projection"))?;
    let compiled = Projection::compile(projection).map_err(|found| own(&format!("{found:?}")))?;
    Ok((compiled, projection.tests.clone()))
}

fn check(name: &str, text: &str) -> Result<(), String> {
    let (projection, tests) = compiled(name, text)?;
    match test::run(&projection, &tests).iter().find(|outcome| !outcome.passed()) {
        None => Ok(()),
        Some(failed) => Err(format!("what was suggested does not pass: {failed}")),
    }
}

#[cfg(test)]
mod tests;
