//! The records that a generation leaves out, since the database refused them or an operator dropped them, and
//! whether what refused them still stands.
//!
//! A generation takes those of the one before over as open; what its position has passed is answered. A refusal is
//! known again by the CHECKs of the table and the projection's fingerprint. Foreign keys, triggers and what else SQLite
//! refuses have nothing that they are known by.

use foldline_api::Result;
use foldline_api::parked::DROPPED;
use foldline_api::sink::{Lease, StoredVerdict, TargetSpec};
use rusqlite::{Row, Transaction};

use crate::carry;
use crate::database::sql;
use crate::row::{FromRow, get, partition_of, select};
use crate::schema;

/// SQLite's code of a CHECK that failed.
const CHECK_FAILED: &str = "275";

/// Moves in what an earlier version kept for all generations at once.
pub(crate) fn move_in(tx: &Transaction<'_>) -> Result<()> {
    let asked = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_foldline_verdicts')";
    if !tx.query_row(asked, [], |row| row.get(0)).map_err(sql)? {
        return Ok(());
    }
    tx.execute_batch(include_str!("sql/move_verdicts_in.sql")).map_err(sql)
}

/// Keeps verdicts.
pub(crate) fn keep(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    verdicts: &[StoredVerdict],
) -> Result<()> {
    if verdicts.is_empty() {
        return Ok(());
    }
    let mut statement = tx
        .prepare_cached(
            "INSERT OR REPLACE INTO _foldline_left_out VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)",
        )
        .map_err(sql)?;
    for StoredVerdict { partition, offset, reason, definition, .. } in verdicts {
        let (topic, number) = (&*partition.topic, partition.partition);
        statement
            .execute((target, generation.cast_signed(), topic, number, offset, reason, definition))
            .map_err(sql)?;
    }
    Ok(())
}

/// Takes what one generation leaves out, or has still to decide, over into another, for topics of the same id.
pub(crate) fn take_over(tx: &Transaction<'_>, target: &str, (from, to): (u64, u64)) -> Result<()> {
    tx.execute(
        include_str!("sql/take_verdicts_over.sql"),
        (target, from.cast_signed(), to.cast_signed()),
    )
    .map(drop)
    .map_err(sql)
}

/// What a generation has still to decide at or after its position, and what an operator dropped in any generation of
/// the same topic id.
pub(crate) fn open(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    lease: &Lease,
) -> Result<Vec<StoredVerdict>> {
    let Lease { partition, position, .. } = lease;
    let (topic, number) = (&*partition.topic, partition.partition);
    let place = (target, generation.cast_signed(), topic, number, position.0, DROPPED);
    let text = include_str!("sql/open_verdicts.sql");
    let mut found: Vec<StoredVerdict> = select(tx, text, place)?;
    // The first of a place is the operator's.
    found.dedup_by_key(|verdict| verdict.offset);
    Ok(found)
}

/// The records that a generation leaves out.
pub(crate) fn all(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
) -> Result<Vec<StoredVerdict>> {
    select(tx, include_str!("sql/left_out.sql"), (target, generation.cast_signed()))
}

/// Says of each verdict whether what refused stands on one of these tables.
pub(crate) fn judge(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    tables: &[&str],
    verdicts: Vec<StoredVerdict>,
) -> Result<Vec<StoredVerdict>> {
    if verdicts.is_empty() {
        return Ok(verdicts);
    }
    let mut now = Vec::with_capacity(tables.len());
    for table in tables {
        now.extend(definition(tx, spec, table, Some(CHECK_FAILED))?);
    }
    let stands = |known: &str| now.iter().any(|now| now == known);
    Ok(verdicts.into_iter().map(|verdict| verdict.judged(stands)).collect())
}

/// The definition that refused with `code`, if the table's own CHECKs alone decide.
pub(crate) fn definition(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    table: &str,
    code: Option<&str>,
) -> Result<Option<String>> {
    if code != Some(CHECK_FAILED) || !schema::triggers(tx, table)?.is_empty() {
        return Ok(None);
    }
    let ddl = carry::ddl(tx, table)?;
    let checks = checks(carry::behind_name(&ddl).unwrap_or_default());
    Ok(Some(format!("{} {}", spec.fingerprint, checks.join(", "))))
}

/// The CHECKs in a table's DDL, as they were written.
fn checks(ddl: &str) -> Vec<&str> {
    let mut found = Vec::new();
    // Where a CHECK began, and how deep in parentheses.
    let (mut begun, mut depth): (Option<(usize, u32)>, u32) = (None, 0);
    let mut at = 0;
    while let Some(rest) = ddl.get(at..).filter(|rest| !rest.is_empty()) {
        let step = token(rest);
        match rest.get(..step).unwrap_or_default() {
            "(" => depth += 1,
            ")" => {
                depth = depth.saturating_sub(1);
                if let Some((from, _)) = begun.take_if(|(_, outside)| *outside == depth) {
                    found.extend(ddl.get(from..at + step));
                }
            }
            word if begun.is_none() && word.eq_ignore_ascii_case("check") => {
                begun = Some((at, depth));
            }
            _ => {}
        }
        at += step;
    }
    found
}

/// How long the text's first token is: a word, a quoted text, a comment, or one other character.
fn token(text: &str) -> usize {
    let until = |close: &str, from: usize| {
        let end = text.get(from..).and_then(|rest| rest.find(close));
        end.map_or(text.len(), |end| from + end + close.len())
    };
    if text.starts_with("--") {
        return until("\n", 2);
    }
    if text.starts_with("/*") {
        return until("*/", 2);
    }
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    match text.chars().next() {
        Some(quote @ ('"' | '\'' | '`')) => until(quote.encode_utf8(&mut [0; 4]), 1),
        Some('[') => until("]", 1),
        Some(first) if word(first) => text.find(|c| !word(c)).unwrap_or(text.len()),
        Some(other) => other.len_utf8(),
        None => 0,
    }
}

impl FromRow for StoredVerdict {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        let (reason, definition): (String, _) = (get(row, "reason")?, get(row, "definition")?);
        Ok(StoredVerdict::new(partition_of(row)?, get(row, "offset")?, reason, definition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_found_as_they_were_written() {
        let ddl = "(id INTEGER CHECK(id > (0)), \"check\" TEXT DEFAULT 'check (', -- check (\n CONSTRAINT short \
                   CHECK (length(name) < 5 OR name = ')'), checked TEXT) STRICT";
        assert_eq!(checks(ddl), ["CHECK(id > (0))", "CHECK (length(name) < 5 OR name = ')')"]);
        assert!(checks("(id INTEGER PRIMARY KEY)").is_empty());
    }
}
