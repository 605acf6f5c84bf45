//! The bad records of each generation, and the letters of a build that wait for its swap.

use std::sync::Arc;

use foldline_api::Result;
use foldline_api::letters::{BadRecord, read_letter};
use foldline_api::parked::Place;
use foldline_api::record::TopicPartition;
use foldline_api::source::DeadLetter;
use rusqlite::{Row, Transaction};

use crate::database::sql;

/// Made at first open. A letter goes when it is acknowledged; the place stays.
pub(crate) const DDL: &str = "CREATE TABLE IF NOT EXISTS _foldline_bad_records (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  by_store INTEGER NOT NULL,
  letter TEXT,
  PRIMARY KEY (target, generation, topic, partition, offset)
) STRICT, WITHOUT ROWID";

/// Keeps bad records.
pub(crate) fn keep(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    bad: &[BadRecord],
) -> Result<()> {
    if bad.is_empty() {
        return Ok(());
    }
    let insert = "INSERT OR REPLACE INTO _foldline_bad_records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut statement = tx.prepare_cached(insert).map_err(sql)?;
    for record in bad {
        let (topic, number) = (&*record.partition.topic, record.partition.partition);
        let (generation, letter) = (generation.cast_signed(), record.text());
        statement
            .execute((target, generation, topic, number, record.offset, record.by_store, letter))
            .map_err(sql)?;
    }
    Ok(())
}

/// Of the letters of `next` only those stay that nobody sent while the other generation was live. One projection calls the
/// same records bad each time, but for what only the store can tell; so where that one folded a record too, and has not
/// kept what it called bad, as versions before did not, its letter was sent.
pub(crate) fn keep_new(
    tx: &Transaction<'_>,
    target: &str,
    (live, next): (u64, u64),
    same_projection: bool,
) -> Result<()> {
    let update = "UPDATE _foldline_bad_records AS n SET letter = NULL \
         WHERE target = ?1 AND generation = ?3 AND letter IS NOT NULL AND EXISTS \
         (SELECT 1 FROM _foldline_positions AS a JOIN _foldline_positions AS b \
         ON b.target = a.target AND b.generation = ?3 AND b.topic = a.topic AND b.partition = a.partition \
         AND (a.topic_id = b.topic_id OR a.topic_id = '' OR b.topic_id = '') \
         LEFT JOIN _foldline_bad_records AS l ON l.target = ?1 AND l.generation = ?2 \
         AND l.topic = n.topic AND l.partition = n.partition AND l.offset = n.offset \
         WHERE a.target = ?1 AND a.generation = ?2 AND a.topic = n.topic AND a.partition = n.partition \
         AND CASE WHEN l.offset IS NOT NULL THEN l.letter IS NULL \
         ELSE ?4 AND NOT n.by_store AND n.offset >= a.beginning AND n.offset < a.position AND NOT EXISTS \
         (SELECT 1 FROM _foldline_holes AS h WHERE h.target = ?1 AND h.generation = ?2 AND h.topic = n.topic \
         AND h.partition = n.partition AND n.offset >= h.from_offset AND n.offset < h.to_offset) END)";
    tx.execute(update, (target, live.cast_signed(), next.cast_signed(), same_projection))
        .map(drop)
        .map_err(sql)
}

/// Letters of a generation that wait.
pub(crate) fn waiting(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    max: usize,
) -> Result<Vec<(Place, DeadLetter)>> {
    let select = "SELECT topic, partition, offset, letter FROM _foldline_bad_records \
         WHERE target = ?1 AND generation = ?2 AND letter IS NOT NULL LIMIT ?3";
    let mut statement = tx.prepare_cached(select).map_err(sql)?;
    let read = |row: &Row<'_>| {
        let (topic, text): (String, String) = (row.get(0)?, row.get(3)?);
        let partition = TopicPartition::new(Arc::<str>::from(topic), row.get(1)?);
        let place: Place = (partition, row.get(2)?);
        Ok(read_letter(&place, &text).map(|letter| (place, letter)))
    };
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = statement.query_map((target, generation.cast_signed(), max), read).map_err(sql)?;
    rows.map(|row| row.map_err(sql)?).collect()
}

/// These letters are acknowledged.
pub(crate) fn sent(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    places: &[Place],
) -> Result<()> {
    let update = "UPDATE _foldline_bad_records SET letter = NULL WHERE target = ?1 AND generation = ?2 \
         AND topic = ?3 AND partition = ?4 AND offset = ?5";
    let mut statement = tx.prepare_cached(update).map_err(sql)?;
    for (partition, offset) in places {
        let (topic, number) = (&*partition.topic, partition.partition);
        statement
            .execute((target, generation.cast_signed(), topic, number, offset))
            .map_err(sql)?;
    }
    Ok(())
}
