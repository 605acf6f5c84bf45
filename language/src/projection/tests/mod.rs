//! The fold against tables of cases, the scenarios' own tests, and against itself.

mod budget;
mod cases;
mod cloudevents;
mod debezium;
mod effects;
mod expire;
mod lists;
mod log;
mod messages;
mod order;
mod properties;
mod runner;
mod scenarios;

use crate::config::env::Env;
use crate::config::projection::ProjectionConfig;
use crate::config::projections;
use crate::projection::test::{TestOutcome, run};
use crate::projection::{Problem, Projection};

/// Reads projections that are given as text; what the reader itself refuses comes as problems too.
pub(super) fn config(text: &str) -> Result<Vec<ProjectionConfig>, Vec<Problem>> {
    match projections::of_text("projections.toml", text, &Env::default()) {
        Ok((all, _)) => Ok(all.into_values().collect()),
        Err(found) => Err(found
            .into_iter()
            .map(|d| Problem { path: d.path, message: d.message, help: d.help })
            .collect()),
    }
}

/// The only projection of a config.
pub(super) fn one(text: &str) -> (ProjectionConfig, Projection) {
    let mut configs = config(text).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
    let config = configs.remove(0);
    let projection =
        Projection::compile(&config).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
    (config, projection)
}

/// Runs the tests of the only projection of a config.
pub(super) fn outcomes(text: &str) -> Vec<TestOutcome> {
    let (config, projection) = one(text);
    run(&projection, &config.tests)
}
