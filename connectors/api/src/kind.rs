//! What a sink's crate exports: its config, and by it all that is made of the store without asking which one it is.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::removal::Owned;
use crate::sink::{Target, TargetSpec};

/// A store as a config reaches it. A sink's config type implements this, and the worker knows nothing else of it. Its `Debug` shows
/// no secret.
#[async_trait]
pub trait Sink: Debug + Send + Sync {
    /// A target in this store, without a connection yet. Called again in each session of a connector.
    ///
    /// # Errors
    /// A config error where the store cannot keep what the spec asks for, or where its settings contradict each other.
    fn target(&self, spec: TargetSpec) -> Result<Arc<dyn Target>>;

    /// What it makes and asks for a target, without a connection: `foldline plan`. It means something only where
    /// [`Sink::target`] finds no fault.
    fn plan(&self, spec: &TargetSpec) -> Vec<String>;

    /// The targets of a connector that this store's books know, whatever its config says now.
    ///
    /// # Errors
    /// Where the store does not answer, or where its sink keeps no list.
    async fn owned(&self, _connector: &str) -> Result<Vec<Owned>> {
        Err(Error::config("a sink of this type keeps no list of its targets"))
    }

    /// Whether the plan is SQL, so that the whole of it is shown as a script.
    fn speaks_sql(&self) -> bool;

    /// Whether a target can show fields of another one's rows, and hold such rows as children, see [`crate::lookup`].
    fn looks_up(&self) -> bool {
        false
    }
}
