//! What a sink's crate exports of itself: how `[sinks.NAME]` is read, and what its keys are.

use std::sync::Arc;

use foldline_api::kind::Sink;
use serde_json::Value;

use super::reader::Reader;

/// One kind of store, as `type` names it. A sink's crate exports one as `KIND`; the worker's list of them is all that
/// knows the crate.
#[derive(Debug)]
pub struct SinkKind {
    /// Its name: `type = "…"`.
    pub name: &'static str,
    /// What stores of this kind are, for the JSON Schema.
    pub description: &'static str,
    /// Which key of a connector names its target.
    pub target: TargetKey,
    /// The keys of `[sinks.NAME]` beside `type`.
    pub keys: fn() -> Vec<Key>,
    /// Reads and checks them; what is wrong goes to the reader.
    pub read: fn(&mut Reader<'_>) -> Option<Arc<dyn Sink>>,
}

/// One key, for the JSON Schema.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// What may stand there, as JSON Schema.
    pub schema: Value,
}

impl Key {
    /// A key that may be left out.
    pub fn optional(name: &'static str, schema: Value) -> Self {
        Key { name, required: false, schema }
    }

    /// A key that must be there.
    pub fn required(name: &'static str, schema: Value) -> Self {
        Key { name, required: true, schema }
    }
}

/// What a connector calls its target, and by whose rules it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKey {
    /// `table`: a name, or a schema's and a table's.
    Table,
    /// `index`: by Elasticsearch's rules.
    Index,
    /// `topic`: by Kafka's rules.
    Topic,
}

impl TargetKey {
    /// The key.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Index => "index",
            Self::Topic => "topic",
        }
    }
}
