//! What a sink's crate exports of itself: how `[sinks.NAME]` is read, and what its keys are.

use std::sync::Arc;

use foldline_api::kind::Sink;

use super::key::Keys;
use super::reader::Reader;
use super::table_kind::TableKind;

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
    pub keys: Keys,
    /// Reads and checks them; what is wrong goes to the reader.
    pub read: fn(&mut Reader<'_>) -> Option<Arc<dyn Sink>>,
}

impl SinkKind {
    /// `[sinks.NAME]` of this kind.
    #[must_use]
    pub fn table(&self) -> TableKind {
        TableKind { of: "sink", name: self.name, doc: self.description, keys: self.keys }
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
    pub const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Index => "index",
            Self::Topic => "topic",
        }
    }
}
