//! The contract between the worker and its connectors. No I/O here: values and their types, records
//! and positions, and the traits that sources and sinks implement.
//!
//! In reading order: [`value`], [`column`] and [`budget`] (what is folded, and what it may cost), [`model`] (rows and keys), [`record`]
//! (what is read), [`source`] and [`sink`] (who reads and who stores), [`kind`] (what a sink's crate exports), [`rebuild`] (the next generation
//! beside the live one), [`parked`] (events set aside), [`hole`] (events left out), [`expiry`] (rows that are deleted by the clock), [`query`] (rows asked for by what they hold), [`binding`]
//! (whose target it is), [`lifecycle`] (what may happen to it), [`removal`] (how it goes for good), [`error`] (what may go wrong, and whose problem it is), [`failpoint`]
//! (where a test can kill the process), [`mask`] (what may be shown of a text that may hold a login), [`secret`] (what is
//! never shown).

pub mod binding;
pub mod budget;
pub mod column;
pub mod decimal;
pub mod error;
pub mod expiry;
pub mod failpoint;
pub mod hole;
pub mod json;
pub mod kind;
pub mod letters;
pub mod lifecycle;
pub mod lookup;
pub mod mask;
pub mod model;
pub mod parked;
pub mod producer;
pub mod query;
pub mod rebuild;
pub mod record;
pub mod removal;
pub mod schemas;
pub mod secret;
pub mod sink;
pub mod source;
pub mod throttle;
pub mod time;
pub mod value;

pub use error::{Error, ErrorClass, Result};
