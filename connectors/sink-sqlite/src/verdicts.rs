//! The records that a generation leaves out, since the database refused them or an operator dropped them, and
//! whether what refused them still stands.
//!
//! A generation takes those of the one before over as open; what its position has passed is answered. A refusal is
//! known again by the CHECKs of the table and the projection's fingerprint. Foreign keys, triggers and what else SQLite
//! refuses have nothing that they are known by.

use std::sync::Arc;

use foldline_api::Result;
use foldline_api::parked::DROPPED;
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Lease, StoredVerdict, TargetSpec};
use rusqlite::{Row, Transaction};

use crate::carry;
use crate::database::sql;
use crate::schema;

/// Made at first open. The topic's id is that of the generation's position.
pub(crate) const DDL: &str = "CREATE TABLE IF NOT EXISTS _foldline_left_out (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  reason TEXT NOT NULL,
  definition TEXT,
  open INTEGER NOT NULL,
  PRIMARY KEY (target, generation, topic, partition, offset)
) STRICT, WITHOUT ROWID";

/// SQLite's code of a CHECK that failed.
const CHECK_FAILED: &str = "275";

/// Moves in what an earlier version kept for all generations at once.
pub(crate) fn move_in(tx: &Transaction<'_>) -> Result<()> {
    let asked = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_foldline_verdicts')";
    if !tx.query_row(asked, [], |row| row.get(0)).map_err(sql)? {
        return Ok(());
    }
    tx.execute_batch(
        "INSERT OR IGNORE INTO _foldline_left_out \
         SELECT v.target, p.generation, v.topic, v.partition, v.offset, v.reason, NULL, \
         v.offset >= p.position FROM _foldline_verdicts AS v JOIN _foldline_positions AS p \
         USING (target, topic, partition, topic_id); \
         DROP TABLE _foldline_verdicts",
    )
    .map_err(sql)
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
        "INSERT OR IGNORE INTO _foldline_left_out \
         SELECT v.target, b.generation, v.topic, v.partition, v.offset, v.reason, v.definition, 1 \
         FROM _foldline_left_out AS v JOIN _foldline_positions AS a \
         USING (target, generation, topic, partition) JOIN _foldline_positions AS b \
         ON b.target = v.target AND b.generation = ?3 AND b.topic = v.topic AND b.partition = v.partition \
         WHERE v.target = ?1 AND v.generation = ?2 AND (v.open = 0 OR v.offset >= a.position) \
         AND (a.topic_id = b.topic_id OR a.topic_id = '' OR b.topic_id = '')",
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
    let mut statement = tx
        .prepare_cached(
            "SELECT v.topic, v.partition, v.offset, v.reason, v.definition \
             FROM _foldline_left_out AS v JOIN _foldline_positions AS a \
             USING (target, generation, topic, partition) JOIN _foldline_positions AS p \
             ON p.target = v.target AND p.generation = ?2 AND p.topic = v.topic AND p.partition = v.partition \
             WHERE v.target = ?1 AND v.topic = ?3 AND v.partition = ?4 AND v.offset >= ?5 \
             AND (v.generation = ?2 OR v.reason = ?6 AND a.topic_id = p.topic_id) \
             ORDER BY v.offset, v.reason <> ?6",
        )
        .map_err(sql)?;
    let Lease { partition, position, .. } = lease;
    let (topic, number) = (&*partition.topic, partition.partition);
    let place = (target, generation.cast_signed(), topic, number, position.0, DROPPED);
    let rows = statement.query_map(place, stored).map_err(sql)?;
    let mut found: Vec<StoredVerdict> = rows.collect::<rusqlite::Result<_>>().map_err(sql)?;
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
    let mut statement = tx
        .prepare_cached(
            "SELECT topic, partition, offset, reason, definition FROM _foldline_left_out \
             WHERE target = ?1 AND generation = ?2 AND open = 0 ORDER BY topic, partition, offset",
        )
        .map_err(sql)?;
    let rows = statement.query_map((target, generation.cast_signed()), stored).map_err(sql)?;
    rows.collect::<rusqlite::Result<_>>().map_err(sql)
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

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredVerdict> {
    let topic: String = row.get(0)?;
    let partition = TopicPartition::new(Arc::<str>::from(topic), row.get(1)?);
    let reason: String = row.get(3)?;
    Ok(StoredVerdict::new(partition, row.get(2)?, reason, row.get(4)?))
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
