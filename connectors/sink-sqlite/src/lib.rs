//! SQLite as a sink: the embedded twin of the PostgreSQL sink, for one host.
//!
//! **Exactness.** A flush is one `BEGIN IMMEDIATE` transaction: positions, which are the fence, then
//! rows, then verdicts. SQLite lets one writer in at a time, whatever process it belongs to, so what
//! a flush reads inside its transaction is true until it commits.
//!
//! **Row versions.** SQLite has no `xmin`, the user's table holds the user's columns only, and
//! `PRAGMA data_version` says that something changed but not what. So a row's version is a keyed hash,
//! 128 bits, of its stored values: a flush reads each row that it writes or checks and compares. A row
//! that was changed and changed back passes, rightly, since a state is nothing but its values. That
//! also catches what a shell, another worker or a trigger of the user's did, and the row is on the
//! page that the update needs anyway. The hash's key is drawn per process: versions never leave it.
//!
//! **Durability.** Write-ahead log with `synchronous = FULL`: a commit survives a power cut. It costs
//! one sync per flush, not per row. The sink's positions win over the group's, so a database put back
//! from a backup goes on where the backup was.
//!
//! **Which table.** A table dropped and made again by hand has no events in it. SQLite has no OID
//! and reuses root pages, so Foldline leaves a trigger that does nothing, `_foldline_<id>`, on its
//! table: it dies with the table, and moves with it through `VACUUM`, `ALTER TABLE` and a copy of the
//! file.
//!
//! **Types.** Integers are INTEGER, boolean is INTEGER 0 or 1, real and double precision are REAL, and
//! bytea is BLOB. The rest is TEXT: `numeric` with its exact digits (arithmetic and `sum()` work but
//! give a REAL; to sort, `ORDER BY CAST(price AS REAL)`; Foldline's own queries order it by a collation, to the last digit), `timestamptz` as RFC 3339 in UTC with six
//! digits, which sorts as time does, `date`, `time`, `uuid`, and jsonb, arrays and children as JSON for
//! SQLite's JSON functions. A table's name is one name: a dot in it is a dot.
//!
//! **Rebuilds.** The next generation is a table `<table>__g<N>` beside the live one, made from the live
//! one's own DDL. The swap is one transaction: indexes and triggers, whose names are the database's,
//! are dropped from the old table and made on the new one, and both are renamed in SQLite's older
//! way, which leaves views and foreign keys of other tables naming the table. Readers keep their
//! snapshot, whatever happens meanwhile; other writers wait while the swap makes its indexes. What would
//! not survive (a view or an index over a column that is gone) is tried when the rebuild begins, and
//! refused by name.
//!
//! **Statements** that are longer than a line and have no columns of the user's in them are files of the folder `sql`, named for
//! what they do; `row` reads their rows.

mod adopt;
mod books;
mod carry;
mod change;
mod children;
mod codec;
mod database;
mod expiry;
mod generations;
mod hole;
mod joins;
mod journal;
mod kept;
mod kind;
mod letters;
mod parking;
mod query;
mod reader;
mod rebuild;
mod removal;
mod replica;
mod row;
mod schema;
mod snapshot;
mod target;
mod verdicts;
mod writer;

pub use journal::{Changes, Entry, Journal, Rows};
pub use kind::KIND;
pub use replica::{Replica, Scratch, Stands};
pub use target::{SqliteConfig, SqliteTarget};
