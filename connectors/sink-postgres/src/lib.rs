//! PostgreSQL as a sink: rows and positions in one transaction.
//!
//! In reading order: [`target`] (a table, as the worker asks for it), [`open`] (creates, binds and empties it), `adopt` (takes a restored one over), [`site`] (what
//! stands in its place) and [`writer`] (loads states, writes flushes) are the sink. Below them: `flush` (a flush as statements), `statement` (the SQL of rows), `books` (the SQL of
//! positions), `verdicts` (what is left out), `generations` (of those that are not live), `rebuild` and `steps` (building one beside the live
//! one, swapping them), `carry` (what users put on a table), `joins`, `notes` and `refresh` (what rows show of other tables), `snapshot` (rows and books of one moment), `schema` (DDL, and whether a table fits), `codec` and `numeric` (values on the wire), `error` (SQLSTATE
//! to class), `url` and `config` (connection strings and TLS), `pool` and `session` (connections) and `identifier` (names in SQL).
//!
//! A statement that is longer than a line and has no columns of the user's in it is a file of the folder `sql`: those of the books,
//! `sql/joins` (what has still to be shown), `sql/catalog` (what stands in the database) and `sql/carry` (what users put on a table, as the statements that make it).
//! `row` reads their rows.
//!
//! Every statement is sent unnamed with its parameter types, so a session has no state that a pooler
//! between transactions could lose: nothing is prepared, nothing must be prepared again.

/// A statement of the folder `sql`; what is put into its braces is named.
macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!("sql/", $name, ".sql"))
    };
    ($name:literal, $($key:ident = $value:expr),+) => {
        format!(include_str!(concat!("sql/", $name, ".sql")), $($key = $value),+)
    };
}

mod adopt;
mod books;
mod carry;
mod change;
mod children;
mod codec;
mod config;
mod error;
mod expiry;
mod fit;
mod flush;
mod generations;
mod hole;
mod identifier;
mod joins;
mod kept;
mod kind;
mod letters;
mod look;
mod notes;
mod numeric;
mod open;
mod parking;
mod pool;
mod query;
mod rebuild;
mod refresh;
mod removal;
mod row;
mod schema;
mod session;
mod site;
mod snapshot;
mod statement;
mod steps;
mod target;
mod triggers;
mod url;
mod verdicts;
mod writer;

pub use config::PostgresConfig;
pub use flush::encoded_bytes;
pub use kind::KIND;
pub use target::{PostgresTarget, check};
