//! The bad records of each generation, and the letters of a build that wait for its swap.

use foldline_api::Result;
use foldline_api::letters::{BadRecord, read_letter};
use foldline_api::parked::Place;
use foldline_api::source::DeadLetter;
use rusqlite::{Row, Transaction};

use crate::database::sql;
use crate::row::{FromRow, get, partition_of, select};

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
    let update = include_str!("sql/keep_new_letters.sql");
    tx.execute(update, (target, live.cast_signed(), next.cast_signed(), same_projection))
        .map(drop)
        .map_err(sql)
}

/// What one generation knows of letters that were sent, the next knows too, for topics of the same id.
pub(crate) fn take_over_sent(
    tx: &Transaction<'_>,
    target: &str,
    (from, to): (u64, u64),
) -> Result<()> {
    let insert = include_str!("sql/take_sent_over.sql");
    tx.execute(insert, (target, from.cast_signed(), to.cast_signed())).map(drop).map_err(sql)
}

/// Of these records, those whose letters were sent.
pub(crate) fn were_sent(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    places: &[Place],
) -> Result<Vec<Place>> {
    let mut statement = tx.prepare_cached(include_str!("sql/was_sent.sql")).map_err(sql)?;
    let mut sent = Vec::new();
    for (partition, offset) in places {
        let (topic, number) = (&*partition.topic, partition.partition);
        let place = (target, generation.cast_signed(), topic, number, offset);
        if statement.exists(place).map_err(sql)? {
            sent.push((partition.clone(), *offset));
        }
    }
    Ok(sent)
}

/// Letters of a generation that wait.
pub(crate) fn waiting(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    max: usize,
) -> Result<Vec<(Place, DeadLetter)>> {
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    select(tx, include_str!("sql/waiting_letters.sql"), (target, generation.cast_signed(), max))
}

impl FromRow for (Place, DeadLetter) {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        let place: Place = (partition_of(row)?, get(row, "offset")?);
        let letter = read_letter(&place, &get::<String>(row, "letter")?)?;
        Ok((place, letter))
    }
}

/// These letters are acknowledged.
pub(crate) fn sent(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    places: &[Place],
) -> Result<()> {
    let mut statement = tx.prepare_cached(include_str!("sql/letter_sent.sql")).map_err(sql)?;
    for (partition, offset) in places {
        let (topic, number) = (&*partition.topic, partition.partition);
        statement
            .execute((target, generation.cast_signed(), topic, number, offset))
            .map_err(sql)?;
    }
    Ok(())
}
