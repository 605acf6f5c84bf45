//! The fold against tables of cases, the scenarios' own tests, and against itself.

mod budget;
mod cases;
mod effects;
mod messages;
mod order;
mod properties;
mod runner;
mod scenarios;

use crate::config::projection::ProjectionConfig;
use crate::config::{Env, load};
use crate::projection::test::{TestOutcome, run};
use crate::projection::{Problem, Projection};

/// Loads a config that is given as text; what the loader itself refuses comes as problems too.
pub(super) fn config(text: &str) -> Result<Vec<ProjectionConfig>, Vec<Problem>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("projections.toml");
    std::fs::write(&file, text).unwrap();
    match load(&file, &Env::new([("OTHER_KAFKA", "localhost:9092")])) {
        Ok(config) => Ok(config.projections.into_values().collect()),
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
