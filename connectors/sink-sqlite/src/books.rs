//! Foldline's own tables: whose a target is, where its partitions stand, and verdicts.

use foldline_api::binding::Binding;
use foldline_api::expiry::{Horizon, Rule};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Advance, Beginning, DesiredState, Lease, StoredPosition};
use foldline_api::{Error, Result};
use rusqlite::{OptionalExtension, Row, Transaction};

use crate::database::sql;
use crate::row::{FromRow, get, partition_of, select};

/// Made at first open.
const TABLES: &str = include_str!("sql/tables.sql");

/// The DDL of each table.
pub(crate) fn ddl() -> impl Iterator<Item = &'static str> {
    TABLES.split(';').filter_map(|part| part.get(part.find("CREATE ")?..))
}

/// The fence: it moves a position only where epoch and position are what the task expects.
pub(crate) const ADVANCE: &str = include_str!("sql/advance_position.sql");

/// What the books say of a target, in short: what each flush asks.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) generation: u64,
    pub(crate) physical: String,
    pub(crate) fingerprint: String,
}

impl FromRow for Live {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        let generation: i64 = get(row, "generation")?;
        Ok(Live {
            generation: generation.cast_unsigned(),
            physical: get(row, "physical")?,
            fingerprint: get(row, "fingerprint")?,
        })
    }
}

pub(crate) fn create(tx: &Transaction<'_>) -> Result<()> {
    tx.execute_batch(TABLES).map_err(sql)?;
    crate::hole::repeat(tx)?;
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
    let text = "SELECT generation, physical, fingerprint FROM _foldline_targets WHERE target = ?1";
    Ok(select(tx, text, [target])?.pop())
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

/// The names of all targets.
pub(crate) fn targets(tx: &Transaction<'_>) -> Result<Vec<String>> {
    let text = "SELECT target FROM _foldline_targets ORDER BY target";
    let mut statement = tx.prepare(text).map_err(sql)?;
    let names = statement.query_map([], |row| row.get(0)).map_err(sql)?;
    names.collect::<rusqlite::Result<_>>().map_err(sql)
}

/// Deletes all that is kept of a target, in each of the tables.
pub(crate) fn forget(tx: &Transaction<'_>, target: &str) -> Result<()> {
    let names = ddl().filter_map(|table| {
        table.strip_prefix("CREATE TABLE IF NOT EXISTS ")?.split_whitespace().next()
    });
    for name in names {
        tx.execute(&format!("DELETE FROM {name} WHERE target = ?1"), [target]).map_err(sql)?;
    }
    Ok(())
}

/// Writes a target's entry; what the operator wants stays.
pub(crate) fn put_binding(tx: &Transaction<'_>, target: &str, binding: &Binding) -> Result<()> {
    let text = serde_json::to_string(binding)
        .map_err(|error| Error::config("a binding cannot be written").with_source(error))?;
    tx.execute(
        include_str!("sql/put_binding.sql"),
        (target, binding.generation.cast_signed(), &binding.physical, &binding.fingerprint, text),
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
    let raise = include_str!("sql/raise_epochs.sql");
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
    let mut statement = tx.prepare_cached(include_str!("sql/begin_position.sql")).map_err(sql)?;
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
    select(tx, include_str!("sql/positions.sql"), (target, generation.cast_signed()))
}

impl FromRow for StoredPosition {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        let topic_id: String = get(row, "topic_id")?;
        Ok(StoredPosition {
            partition: partition_of(row)?,
            topic_id: Some(topic_id).filter(|id| !id.is_empty()),
            beginning: Position(get(row, "beginning")?),
            position: Position(get(row, "position")?),
            epoch: get(row, "epoch")?,
        })
    }
}

/// Takes a partition over. It has a position: [`begin`] was called for it.
pub(crate) fn take(
    tx: &Transaction<'_>,
    target: &str,
    generation: u64,
    partition: &TopicPartition,
) -> Result<Lease> {
    let mut statement = tx.prepare_cached(include_str!("sql/take_position.sql")).map_err(sql)?;
    let place = (target, generation.cast_signed(), &*partition.topic, partition.partition);
    let read = |row: &Row<'_>| {
        let position = Position(row.get("position")?);
        Ok(Lease { partition: partition.clone(), epoch: row.get("epoch")?, position })
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

impl FromRow for Horizon {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        get(row, "horizon").map(Horizon)
    }
}

/// The horizon of a target's rule.
pub(crate) fn horizon(tx: &Transaction<'_>, target: &str, rule: &Rule) -> Result<Option<Horizon>> {
    Ok(select(tx, include_str!("sql/horizon.sql"), (target, rule.to_string()))?.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_is_sent_by_someone() {
        let unused = foldline_testkit::statements::unused(env!("CARGO_MANIFEST_DIR"));
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn the_plan_shows_each_table_alone() {
        assert_eq!(ddl().count(), 12);
        for table in ddl() {
            assert!(table.starts_with("CREATE TABLE IF NOT EXISTS _foldline_"), "{table}");
            assert!(table.ends_with("STRICT, WITHOUT ROWID"), "{table}");
        }
    }
}
