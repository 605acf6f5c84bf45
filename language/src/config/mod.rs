//! What a config says of projections: TOML read into checked types.
//!
//! In reading order: [`tree`] holds the parsed text with the line of each value, [`interpolate`] replaces
//! `${VAR}`, [`key`] is how a key is declared, [`reader`] hands the tree out key by key, [`projections`] reads a projection into what
//! [`projection`] describes, [`checks`] looks at all of them together,
//! [`topic_facts`] is what a projection must know of its sources. Every problem is a
//! [`Diagnostic`](diagnostic::Diagnostic); all are collected before any is reported. Which files there are, and the
//! other sections, is the worker's own.

mod cases;
pub mod checks;
pub mod diagnostic;
pub mod env;
mod fields;
pub mod form;
mod handlers;
pub mod interpolate;
pub mod key;
pub mod names;
mod operands;
pub mod places;
pub mod projection;
pub mod projections;
pub mod reader;
pub mod scalar;
pub mod schema;
pub mod schema_projection;
pub mod secret;
pub mod sink;
pub mod table_kind;
pub mod topic_facts;
pub mod tree;
