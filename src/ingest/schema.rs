//! A JSON Schema that values must fit.

use std::path::Path;

use foldline_api::error::{Error, Result};
use jsonschema::Validator;
use serde_json::Value;

/// A schema from a file. What it refers to is in the file: nothing is fetched.
#[derive(Debug)]
pub(crate) struct Schema(Validator);

impl Schema {
    /// Reads it.
    ///
    /// # Errors
    /// Class Config, with the file and what is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = path.display();
        let wrong = |why: String| Error::config(format!("{file}: {why}"));
        let text = std::fs::read(path)
            .map_err(|error| Error::config(format!("{file} cannot be read: {error}")))?;
        let schema: Value =
            serde_json::from_slice(&text).map_err(|error| wrong(format!("not JSON: {error}")))?;
        jsonschema::meta::validate(&schema).map_err(|error| {
            wrong(format!("no JSON Schema: {}: {error}", error.instance_path()))
        })?;
        let made = jsonschema::validator_for(&schema);
        made.map(Schema).map_err(|error| wrong(format!("no JSON Schema: {error}")))
    }

    /// Whether a value fits.
    ///
    /// # Errors
    /// Where it does not and why, without what stands there.
    pub(crate) fn check(&self, value: &[u8]) -> Result<(), String> {
        let value: Value = serde_json::from_slice(value).map_err(|_| "no JSON".to_owned())?;
        self.0.validate(&value).map_err(|error| match error.instance_path().as_str() {
            "" => error.masked().to_string(),
            place => format!("at {place}: {}", error.masked()),
        })
    }
}
