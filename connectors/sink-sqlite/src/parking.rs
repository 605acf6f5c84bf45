//! The table of events that are set aside with their keys.

use std::sync::Arc;

use foldline_api::Result;
use foldline_api::parked::{
    Changes, Parked, Place, Request, Which, clean, read_keys, read_record, write_keys, write_record,
};
use foldline_api::record::{Record, TopicPartition};
use rusqlite::{OptionalExtension, Row, Transaction};

use crate::database::sql;

/// Under the topic's life that the partition's position names.
pub(crate) const DDL: &str = "CREATE TABLE IF NOT EXISTS _foldline_parked (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  topic_id TEXT NOT NULL,
  offset INTEGER NOT NULL,
  keys TEXT NOT NULL,
  reason TEXT,
  request TEXT,
  record TEXT NOT NULL,
  PRIMARY KEY (target, generation, topic, partition, offset)
) STRICT, WITHOUT ROWID";

/// Forgets what is parked in generations before this one.
pub(crate) fn forget_before(tx: &Transaction<'_>, target: &str, generation: u64) -> Result<()> {
    tx.execute(
        "DELETE FROM _foldline_parked WHERE target = ?1 AND generation < ?2",
        (target, generation.cast_signed()),
    )
    .map(|_| ())
    .map_err(sql)
}

/// What a flush changes, behind its fence.
pub(crate) fn change(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    changes: &Changes,
) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let generation = generation.cast_signed();
    let mut insert = tx
        .prepare_cached(
            "INSERT OR REPLACE INTO _foldline_parked \
             (target, generation, topic, partition, topic_id, offset, keys, reason, request, record) \
             SELECT target, generation, topic, partition, topic_id, ?5, ?6, ?7, NULL, ?8 \
             FROM _foldline_positions \
             WHERE target = ?1 AND generation = ?2 AND topic = ?3 AND partition = ?4",
        )
        .map_err(sql)?;
    for event in &changes.park {
        let (partition, offset) = event.place();
        let reason = event.reason.as_deref().map(clean);
        let (topic, number) = (&*partition.topic, partition.partition);
        let (keys, record) = (write_keys(&event.keys), write_record(&event.record));
        insert
            .execute((target, generation, topic, number, offset, keys, reason, record))
            .map_err(sql)?;
    }
    let mut delete = tx
        .prepare_cached(
            "DELETE FROM _foldline_parked WHERE target = ?1 AND generation = ?2 AND topic = ?3 \
             AND partition = ?4 AND offset = ?5",
        )
        .map_err(sql)?;
    for (partition, offset) in &changes.free {
        let (topic, number) = (&*partition.topic, partition.partition);
        delete.execute((target, generation, topic, number, offset)).map_err(sql)?;
    }
    let mut keep = tx
        .prepare_cached(
            "UPDATE _foldline_parked SET request = NULL, reason = coalesce(?6, reason) \
             WHERE target = ?1 AND generation = ?2 AND topic = ?3 AND partition = ?4 AND offset = ?5",
        )
        .map_err(sql)?;
    for ((partition, offset), reason) in &changes.keep {
        let (topic, number) = (&*partition.topic, partition.partition);
        let reason = reason.as_deref().map(clean);
        keep.execute((target, generation, topic, number, offset, reason)).map_err(sql)?;
    }
    Ok(())
}

/// What is parked, by partition and offset.
pub(crate) fn parked(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    which: &Which,
) -> Result<Vec<Parked>> {
    let mut statement = tx
        .prepare_cached(
            "SELECT topic, partition, offset, keys, reason, request FROM _foldline_parked \
             WHERE target = ?1 AND generation = ?2 AND (NOT ?3 OR request IS NOT NULL) \
             ORDER BY topic, partition, offset",
        )
        .map_err(sql)?;
    let read = |row: &Row<'_>| {
        let (topic, request): (String, Option<String>) = (row.get(0)?, row.get(5)?);
        let keys: String = row.get(3)?;
        Ok(read_keys(&keys).and_then(|keys| {
            Ok(Parked {
                partition: TopicPartition::new(Arc::<str>::from(topic), row.get(1).map_err(sql)?),
                offset: row.get(2).map_err(sql)?,
                keys,
                reason: row.get(4).map_err(sql)?,
                request: request.as_deref().and_then(Request::parse),
                refused: Vec::new(),
            })
        }))
    };
    let rows =
        statement.query_map((target, generation.cast_signed(), which.asked), read).map_err(sql)?;
    let mut all = Vec::new();
    for row in rows {
        let parked = row.map_err(sql)??;
        if which.has(&parked) {
            all.push(parked);
        }
    }
    Ok(all)
}

/// The records of parked events.
pub(crate) fn records(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    places: &[Place],
) -> Result<Vec<Record>> {
    let mut statement = tx
        .prepare_cached(
            "SELECT record FROM _foldline_parked WHERE target = ?1 AND generation = ?2 AND topic = ?3 \
             AND partition = ?4 AND offset = ?5",
        )
        .map_err(sql)?;
    let mut out = Vec::with_capacity(places.len());
    for place in places {
        let (partition, offset) = place;
        let (topic, number) = (&*partition.topic, partition.partition);
        let text: Option<String> = statement
            .query_row((target, generation.cast_signed(), topic, number, offset), |row| row.get(0))
            .optional()
            .map_err(sql)?;
        if let Some(text) = text {
            out.push(read_record(place, &text)?);
        }
    }
    Ok(out)
}

/// Notes a request; whether such an event is parked.
pub(crate) fn ask(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    (partition, offset): &Place,
    request: Request,
) -> Result<bool> {
    let update = "UPDATE _foldline_parked SET request = ?6 WHERE target = ?1 AND generation = ?2 \
                  AND topic = ?3 AND partition = ?4 AND offset = ?5";
    let (topic, number) = (&*partition.topic, partition.partition);
    tx.execute(update, (target, generation.cast_signed(), topic, number, offset, request.name()))
        .map(|changed| changed > 0)
        .map_err(sql)
}
