//! What the table's own triggers made of a flush. A row that is not written because a trigger left it out looks to
//! the count of a statement just like one that another writer changed: they are told apart under the rows' locks.

use foldline_api::model::{Key, Row};
use foldline_api::sink::{Flush, Loaded, RowWrite, Version, Written};
use foldline_api::{Error, Result};
use tokio_postgres::Client;

use crate::identifier::literal;
use crate::snapshot;
use crate::writer::PostgresWriter;

/// So many rows are looked at with one statement, of about so many bytes.
const ROWS_MAX: usize = 10_000;
const BYTES_MAX: usize = 4 << 20;

/// How many rows are looked at next: by the bytes that were to be written.
fn few(writes: &[RowWrite]) -> usize {
    let mut bytes = 0;
    let fits = |write: &&RowWrite| {
        bytes += write.row.as_ref().map_or(0, Row::heap_bytes);
        bytes <= BYTES_MAX
    };
    writes.iter().take(ROWS_MAX).take_while(fits).count().max(1)
}

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is as it was to be, or as a trigger has it.
    Applied,
    /// It is at the version it was folded from, and not as it was to be.
    Refused,
    /// Another writer changed it.
    Elsewhere,
}

/// The names of the triggers that may have left a row out: those before the row, else all.
pub(crate) fn names_sql(table: &str) -> String {
    sql!("catalog/trigger_names", table = literal(table))
}

/// `mine` is the version of what this transaction wrote; `short` says that some statement wrote fewer rows
/// than it was given.
fn end_of(write: &RowWrite, now: &Loaded, mine: Version, short: bool) -> End {
    match (&write.row, now.version) {
        (None, Version::Absent) => End::Applied,
        (Some(_), Version::Absent) if !short => End::Refused,
        (Some(_), version) if version == mine => End::Applied,
        // Every row was written, so this is what a trigger made of it, maybe in a subtransaction.
        (Some(_), _) if !short => End::Applied,
        (None, version) if version == mine || !short => End::Refused,
        (row, version) if version == write.version => {
            if row.is_some() && now.row == *row {
                End::Applied
            } else {
                End::Refused
            }
        }
        _ => End::Elsewhere,
    }
}

impl PostgresWriter {
    /// Looks at the rows of a flush whose statements are done, in its transaction; how the flush ends where not
    /// all of them are as they were to be.
    pub(crate) async fn judge(
        &self,
        client: &Client,
        flush: &Flush,
        mine: Version,
        short: bool,
    ) -> Result<Option<Written>> {
        let mut refused = false;
        let mut rest = &*flush.writes;
        while !rest.is_empty() {
            let (writes, behind) = rest.split_at(few(rest));
            rest = behind;
            let keys: Vec<Key> = writes.iter().map(|write| write.key.clone()).collect();
            let sql = format!("{} FOR NO KEY UPDATE OF t", self.statements.load);
            let place = (&*sql, &*self.place.label);
            let rows = snapshot::load(client, place, &self.model, &keys, usize::MAX).await?;
            let rows = rows.map_err(|error| self.classify(error, "looking at"))?;
            for (write, now) in writes.iter().zip(&rows) {
                match end_of(write, now, mine, short) {
                    End::Applied => {}
                    End::Refused => refused = true,
                    End::Elsewhere => return Ok(Some(Written::Conflict { written: Vec::new() })),
                }
            }
        }
        if !refused {
            return Ok(None);
        }
        let names = client.query_typed(&names_sql(&self.place.table), &[]).await;
        let names = names.map_err(|error| self.classify(error, "looking at"))?;
        let names: Option<String> = names.first().and_then(|row| row.try_get(0).ok().flatten());
        Ok(Some(Written::Rejected(Error::record(format!(
            "table {:?}: a trigger does not let the row be written ({})",
            self.place.label,
            names.unwrap_or_default()
        )))))
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::model::Row;
    use foldline_api::sink::Marks;
    use foldline_api::value::Value;

    use super::*;

    #[test]
    fn a_row_that_a_trigger_left_out_is_told_from_one_that_another_writer_changed() {
        let row = |n: i64| Some(Row::new(vec![Value::Int(1), Value::Int(n)]));
        let (before, mine, other) = (Version::At(7, 0), Version::At(9, 0), Version::At(8, 0));
        let gone = Version::Absent;
        for (row_then, folded_from, row_now, now, short, end) in [
            (row(2), before, row(2), mine, true, End::Applied),
            (row(2), before, row(4), mine, true, End::Applied),
            (row(2), before, row(2), before, true, End::Applied),
            (row(2), before, row(1), before, true, End::Refused),
            (row(2), before, row(2), other, true, End::Elsewhere),
            (row(2), before, None, gone, true, End::Elsewhere),
            (row(2), before, None, gone, false, End::Refused),
            (row(2), before, row(3), other, false, End::Applied),
            (row(2), gone, row(2), mine, true, End::Applied),
            (row(2), gone, None, gone, true, End::Refused),
            (row(2), gone, None, gone, false, End::Refused),
            (row(2), gone, row(2), other, true, End::Elsewhere),
            (None, before, None, gone, true, End::Applied),
            (None, before, row(1), before, true, End::Refused),
            (None, before, row(1), mine, true, End::Refused),
            (None, before, row(1), other, true, End::Elsewhere),
        ] {
            let write = RowWrite {
                key: Key::new(vec![Value::Int(1)]),
                row: row_then,
                version: folded_from,
                marks: Marks::new(),
            };
            let found = Loaded { row: row_now, version: now, marks: Marks::new() };
            assert_eq!(end_of(&write, &found, mine, short), end, "{write:?} {found:?} {short}");
        }
    }
}
