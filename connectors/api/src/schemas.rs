//! What the ids of schema registries stood for, as a target keeps it.
//!
//! A record names its schema by a number that only its registry can tell the meaning of. A registry that lost its schemas and was
//! filled anew may tell another one, and what is decoded by that is wrong without a sign of it. So what an id stood for is kept
//! beside the rows before the first record is decoded by it, and what was kept first stays: it needs no fence, since nobody can
//! take the place of it.

use async_trait::async_trait;

use crate::error::Result;

/// At most so many bytes of schemas are kept for a target. A registry with a thousand schemas of 10 KB has a third of it.
pub const KEPT_MAX: usize = 32 << 20;

/// What an id stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptSchema {
    /// The registry's name in the config.
    pub registry: String,
    /// The schema's id there, with what kind of id it is.
    pub id: String,
    /// The schema with all that it refers to, as JSON.
    pub schema: String,
}

impl KeptSchema {
    /// How many bytes it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.registry.len() + self.id.len() + self.schema.len()
    }
}

/// The schemas of a target, of all its generations: they fold one log.
#[async_trait]
pub trait KeptSchemas: Send + Sync {
    /// All that are kept, by registry and id.
    ///
    /// # Errors
    /// Where the target has not been opened; class Config where it is another connector's.
    async fn kept(&self) -> Result<Vec<KeptSchema>>;

    /// Keeps those whose id has nothing yet, all of them or none, durably; then as [`KeptSchemas::kept`].
    ///
    /// # Errors
    /// As of [`KeptSchemas::kept`].
    async fn keep(&self, schemas: &[KeptSchema]) -> Result<Vec<KeptSchema>>;
}
