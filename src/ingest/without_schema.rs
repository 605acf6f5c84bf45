//! The JSON Schema of posted values, in a build without Kafka, where nothing is posted.

use std::path::Path;

use foldline_api::error::Result;

use crate::config::unsupported::lacks;

/// There is none.
#[derive(Debug)]
pub(crate) enum Schema {}

impl Schema {
    /// Refuses.
    ///
    /// # Errors
    /// Always, of class Config.
    pub(crate) fn read(_: &Path) -> Result<Self> {
        Err(lacks("kafka"))
    }

    /// No value is asked about.
    ///
    /// # Errors
    /// None.
    pub(crate) fn check(&self, _: &[u8]) -> Result<(), String> {
        match *self {}
    }
}
