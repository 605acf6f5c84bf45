//! Elasticsearch as a sink: documents that carry their own markers.
//!
//! A target `orders` is a filtered alias; each generation is an index of its own, `orders-g1`,
//! `orders-g2`. Documents, positions and the target's own record cannot change together here, so each
//! change is guarded by the sequence number it was decided on, and the order makes the rest: documents
//! first, positions last, and a marker in each document tells a replay what it already holds.
//!
//! In reading order: [`config`], `mapping` (the index that a model becomes), `document` (a row as
//! JSON and back), `bulk`, `client`, `search`, `nodes` and `size` (requests), `books` (the metadata index), `error` (whose
//! problem an answer is), `survey` and `template` (what stands in the cluster), [`target`] and [`writer`],
//! `shape` and `drift` (what an index was made with, and whether it still is), `purge` (tombstones), `joins` (what documents show of others), `adopt` (what a snapshot brought back) and
//! [`mod@plan`].

mod adopt;
mod books;
mod bulk;
mod change;
mod client;
mod compare;
pub mod config;
mod document;
mod drift;
mod error;
mod expiry;
mod hole;
mod joins;
mod kept;
mod kind;
mod letters;
mod mapping;
mod nodes;
mod parking;
pub mod plan;
mod privileges;
mod purge;
mod query;
mod rebuild;
mod removal;
mod search;
mod shape;
mod size;
mod snapshot;
mod survey;
pub mod target;
mod template;
mod transport;
mod verdicts;
mod version;
pub mod writer;

pub use config::ElasticsearchConfig;
pub use kind::KIND;
pub use plan::check;
pub use target::ElasticsearchTarget;
pub use writer::ElasticsearchWriter;
