//! Foldline's own tables: whose a target is, where its partitions stand, and verdicts.

use std::sync::Arc;

use foldline_api::binding::Binding;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Advance, Beginning, DesiredState, Lease, StoredPosition};
use foldline_api::{Error, Result};
use rusqlite::{OptionalExtension, Row, Transaction};

use crate::database::sql;
use crate::generations;

/// Made at first open. `topic_id` is empty where the log cannot tell.
pub(crate) const DDL: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS _foldline_targets (
  target TEXT PRIMARY KEY,
  generation INTEGER NOT NULL,
  physical TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  binding TEXT NOT NULL,
  desired TEXT NOT NULL
) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _foldline_positions (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  topic_id TEXT NOT NULL,
  beginning INTEGER NOT NULL,
  position INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  PRIMARY KEY (target, generation, topic, partition)
) STRICT, WITHOUT ROWID",
    crate::verdicts::DDL,
    crate::letters::DDL,
    crate::parking::DDL,
    crate::hole::DDL,
];

/// The fence: it moves a position only where epoch and position are what the task expects.
pub(crate) const ADVANCE: &str = "UPDATE _foldline_positions SET position = ?1 \
     WHERE target = ?2 AND generation = ?3 AND topic = ?4 AND partition = ?5 \
     AND epoch = ?6 AND position = ?7";

/// What the books say of a target, in short: what each flush asks.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) generation: u64,
    pub(crate) physical: String,
    pub(crate) fingerprint: String,
}

pub(crate) fn create(tx: &Transaction<'_>) -> Result<()> {
    let all = DDL.iter().chain([&generations::DDL]);
    all.into_iter().try_for_each(|statement| tx.execute(statement, []).map(drop).map_err(sql))?;
    crate::verdicts::move_in(tx)
}

/// Whether the books have been made.
pub(crate) fn exist(tx: &Transaction<'_>) -> Result<bool> {
    let asked = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_foldline_targets')";
    tx.query_row(asked, [], |row| row.get(0)).map_err(sql)
}

pub(crate) fn live(tx: &Transaction<'_>, target: &str) -> Result<Option<Live>> {
    if !exist(tx)? {
        return Ok(None);
    }
    let mut statement = tx
        .prepare_cached(
            "SELECT generation, physical, fingerprint FROM _foldline_targets WHERE target = ?1",
        )
        .map_err(sql)?;
    let read = |row: &Row<'_>| {
        let generation: i64 = row.get(0)?;
        let generation = generation.cast_unsigned();
        Ok(Live { generation, physical: row.get(1)?, fingerprint: row.get(2)? })
    };
    statement.query_row([target], read).optional().map_err(sql)
}

pub(crate) fn binding(tx: &Transaction<'_>, target: &str) -> Result<Option<Binding>> {
    let text: Option<String> = tx
        .query_row("SELECT binding FROM _foldline_targets WHERE target = ?1", [target], |row| {
            row.get(0)
        })
        .optional()
        .map_err(sql)?;
    let Some(text) = text else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Error::config(format!("_foldline_targets holds no binding for {target:?}"))
            .with_source(error)
    })
}

/// Writes a target's entry; what the operator wants stays.
pub(crate) fn put_binding(tx: &Transaction<'_>, target: &str, binding: &Binding) -> Result<()> {
    let text = serde_json::to_string(binding)
        .map_err(|error| Error::config("a binding cannot be written").with_source(error))?;
    tx.execute(
        "INSERT INTO _foldline_targets (target, generation, physical, fingerprint, binding, desired) \
         VALUES (?1, ?2, ?3, ?4, ?5, 'running') ON CONFLICT (target) DO UPDATE SET \
         generation = excluded.generation, physical = excluded.physical, \
         fingerprint = excluded.fingerprint, binding = excluded.binding",
        (
            target,
            binding.generation.cast_signed(),
            &binding.physical,
            &binding.fingerprint,
            text,
        ),
    )
    .map(drop)
    .map_err(sql)
}

/// Fences whoever holds a partition of one generation of the target, or of any.
pub(crate) fn raise_epochs(
    tx: &Transaction<'_>,
    target: &str,
    generation: Option<u64>,
) -> Result<()> {
    let raise = "UPDATE _foldline_positions SET epoch = epoch + 1 \
                 WHERE target = ?1 AND generation = coalesce(?2, generation)";
    tx.execute(raise, (target, generation.map(u64::cast_signed))).map(drop).map_err(sql)
}

pub(crate) fn desired(tx: &Transaction<'_>, target: &str) -> Result<DesiredState> {
    let select = "SELECT desired FROM _foldline_targets WHERE target = ?1";
    let text: String = tx.query_row(select, [target], |row| row.get(0)).map_err(sql)?;
    Ok(match text.as_str() {
        "paused" => DesiredState::Paused,
        "stopped" => DesiredState::Stopped,
        _ => DesiredState::Running,
    })
}

/// Keeps what the operator wants; whether there is such a target.
pub(crate) fn set_desired(
    tx: &Transaction<'_>,
    target: &str,
    desired: DesiredState,
) -> Result<bool> {
    let text = match desired {
        DesiredState::Running => "running",
        DesiredState::Paused => "paused",
        DesiredState::Stopped => "stopped",
    };
    let update = "UPDATE _foldline_targets SET desired = ?1 WHERE target = ?2";
    tx.execute(update, (text, target)).map(|changed| changed > 0).map_err(sql)
}

/// Records where the fold begins, for partitions that have no position yet.
pub(crate) fn begin(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    beginnings: &[Beginning],
) -> Result<()> {
    let mut statement = tx
        .prepare_cached(
            "INSERT INTO _foldline_positions \
             (target, generation, topic, partition, topic_id, beginning, position, epoch) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 0) ON CONFLICT DO NOTHING",
        )
        .map_err(sql)?;
    for Beginning { partition, topic_id, position } in beginnings {
        let place = (&*partition.topic, partition.partition);
        let id = topic_id.as_deref().unwrap_or_default();
        statement
            .execute((target, generation.cast_signed(), place.0, place.1, id, position.0))
            .map_err(sql)?;
    }
    Ok(())
}

/// The stored positions of a generation, in partition order.
pub(crate) fn positions(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
) -> Result<Vec<StoredPosition>> {
    let mut statement = tx
        .prepare_cached(
            "SELECT topic, partition, topic_id, beginning, position, epoch FROM _foldline_positions \
             WHERE target = ?1 AND generation = ?2 ORDER BY topic, partition",
        )
        .map_err(sql)?;
    let read = |row: &Row<'_>| {
        let (topic, topic_id): (String, String) = (row.get(0)?, row.get(2)?);
        Ok(StoredPosition {
            partition: TopicPartition::new(Arc::<str>::from(topic), row.get(1)?),
            topic_id: Some(topic_id).filter(|id| !id.is_empty()),
            beginning: Position(row.get(3)?),
            position: Position(row.get(4)?),
            epoch: row.get(5)?,
        })
    };
    let rows = statement.query_map((target, generation.cast_signed()), read).map_err(sql)?;
    rows.collect::<rusqlite::Result<_>>().map_err(sql)
}

/// Takes a partition over. It has a position: [`begin`] was called for it.
pub(crate) fn take(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    partition: &TopicPartition,
) -> Result<Lease> {
    let mut statement = tx
        .prepare_cached(
            "UPDATE _foldline_positions SET epoch = epoch + 1 WHERE target = ?1 AND generation = ?2 \
             AND topic = ?3 AND partition = ?4 RETURNING epoch, position",
        )
        .map_err(sql)?;
    let place = (target, generation.cast_signed(), &*partition.topic, partition.partition);
    let read = |row: &Row<'_>| {
        let position = Position(row.get(1)?);
        Ok(Lease { partition: partition.clone(), epoch: row.get(0)?, position })
    };
    statement.query_row(place, read).map_err(sql)
}

/// Moves a position; whether it stood where the task expects it.
pub(crate) fn advance(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    step: &Advance,
) -> Result<bool> {
    let mut statement = tx.prepare_cached(ADVANCE).map_err(sql)?;
    let (topic, partition) = (&*step.partition.topic, step.partition.partition);
    let generation = generation.cast_signed();
    let place = (step.to.0, target, generation, topic, partition, step.epoch, step.from.0);
    statement.execute(place).map(|changed| changed == 1).map_err(sql)
}
