//! Test doubles and the contract that every sink must pass.
//!
//! [`log`] is a log in memory whose groups are assigned on command, [`store`] a sink in memory that
//! behaves like PostgreSQL or like Elasticsearch, [`fault`] wraps any sink and makes it fail by a
//! seed, [`contract`] holds the cases that every sink must pass, [`mutate`] makes
//! inputs that nobody thought of, [`walk`] walks over them, [`page`] reads the docs' tables, and [`statements`] finds SQL that nobody sends. Nothing here draws chance
//! that a seed does not decide, and only a walk that is given a time reads a clock.

pub mod contract;
pub mod fault;
pub mod letters;
mod log;
pub mod mutate;
pub mod page;
pub mod rng;
pub mod statements;
pub mod store;
pub mod walk;

mod cases;
mod expiry;
mod hole;
mod joins;
mod kept;
mod query;
mod rebuild;
mod snapshot;
mod source;
mod writer;

pub use contract::{Store, sink_contract};
pub use fault::{Faults, FaultyTarget, Script};
pub use letters::MemoryDeadLetters;
pub use log::{MemoryGroup, MemoryLog};
pub use rng::Rng;
pub use source::{MemoryCommitter, MemorySource};
pub use store::{Constraint, MemoryStore, MemoryTarget};
