//! The table of events that are set aside with their keys.

use foldline_api::Result;
use foldline_api::parked::{
    Changes, Parked, Place, Request, Which, clean, read_keys, read_record, write_keys, write_record,
};
use foldline_api::record::Record;
use rusqlite::{OptionalExtension, Row, Transaction};

use crate::database::sql;
use crate::row::{FromRow, get, partition_of, select};

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
    let mut insert = tx.prepare_cached(include_str!("sql/park_event.sql")).map_err(sql)?;
    for event in &changes.park {
        let (partition, offset) = event.place();
        let reason = event.reason.as_deref().map(clean);
        let (topic, number) = (&*partition.topic, partition.partition);
        let (keys, record) = (write_keys(&event.keys), write_record(&event.record));
        insert
            .execute((target, generation, topic, number, offset, keys, reason, record))
            .map_err(sql)?;
    }
    let mut delete = tx.prepare_cached(include_str!("sql/free_event.sql")).map_err(sql)?;
    for (partition, offset) in &changes.free {
        let (topic, number) = (&*partition.topic, partition.partition);
        delete.execute((target, generation, topic, number, offset)).map_err(sql)?;
    }
    let mut keep = tx.prepare_cached(include_str!("sql/keep_event.sql")).map_err(sql)?;
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
    let asked = (target, generation.cast_signed(), which.asked);
    let mut all: Vec<Parked> = select(tx, include_str!("sql/parked_events.sql"), asked)?;
    all.retain(|parked| which.has(parked));
    Ok(all)
}

impl FromRow for Parked {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        let (keys, request): (String, Option<String>) = (get(row, "keys")?, get(row, "request")?);
        Ok(Parked {
            partition: partition_of(row)?,
            offset: get(row, "offset")?,
            keys: read_keys(&keys)?,
            reason: get(row, "reason")?,
            request: request.as_deref().and_then(Request::parse),
            refused: Vec::new(),
        })
    }
}

/// The records of parked events.
pub(crate) fn records(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    places: &[Place],
) -> Result<Vec<Record>> {
    let mut statement = tx.prepare_cached(include_str!("sql/parked_record.sql")).map_err(sql)?;
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
    let update = include_str!("sql/ask_for_event.sql");
    let (topic, number) = (&*partition.topic, partition.partition);
    tx.execute(update, (target, generation.cast_signed(), topic, number, offset, request.name()))
        .map(|changed| changed > 0)
        .map_err(sql)
}
