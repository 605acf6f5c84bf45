//! The table of events that were left out by hand.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::hole::{self, Hole, Holes};
use foldline_api::record::{Position, TopicPartition};
use rusqlite::{Row, Transaction};

use crate::books;
use crate::database::{Access, sql};
use crate::row::{FromRow, get, partition_of, select};
use crate::target::{SqliteTarget, bound};

/// Brings the table of an earlier version up to this one: the generations to come repeat what it has.
pub(crate) fn repeat(tx: &Transaction<'_>) -> Result<()> {
    let asked = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('_foldline_holes') WHERE name = 'repeated')";
    if tx.query_row(asked, [], |row| row.get(0)).map_err(sql)? {
        return Ok(());
    }
    let alter = "ALTER TABLE _foldline_holes ADD COLUMN repeated INTEGER NOT NULL DEFAULT 1";
    tx.execute_batch(alter).map_err(sql)
}

/// Leaves out of another generation what one leaves out of topics of the same id.
pub(crate) fn take_over(tx: &Transaction<'_>, target: &str, (from, to): (u64, u64)) -> Result<()> {
    let text = include_str!("sql/take_holes_over.sql");
    let place = (target, from.cast_signed(), to.cast_signed());
    tx.execute(text, place).map(drop).map_err(sql)
}

/// What a generation leaves out.
pub(crate) fn holes(tx: &Transaction<'_>, target: &str, generation: u64) -> Result<Vec<Hole>> {
    select(tx, include_str!("sql/holes.sql"), (target, generation.cast_signed()))
}

impl FromRow for Hole {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        Ok(Hole {
            partition: partition_of(row)?,
            from: Position(get(row, "from_offset")?),
            to: Position(get(row, "to_offset")?),
            repeated: get(row, "repeated")?,
        })
    }
}

/// Moves positions past a hole, of all generations that have not folded it, and keeps it; who holds the partition is
/// fenced.
fn leave_out(tx: &Transaction<'_>, target: &str, generation: u64, hole: &Hole) -> Result<()> {
    let (topic, partition) = (&*hole.partition.topic, hole.partition.partition);
    let place = (target, generation.cast_signed(), topic, partition, hole.from.0, hole.to.0);
    for statement in [include_str!("sql/keep_hole.sql"), include_str!("sql/pass_hole.sql")] {
        tx.execute(statement, place).map_err(sql)?;
    }
    Ok(())
}

#[async_trait]
impl Holes for SqliteTarget {
    async fn holes(&self, generation: u64) -> Result<Vec<Hole>> {
        self.run(Access::Read, move |tx, spec| {
            bound(tx, spec)?;
            holes(tx, &spec.target, generation)
        })
        .await
    }

    async fn forget(&self, generation: u64) -> Result<()> {
        self.run(Access::Write, move |tx, spec| {
            hole::check(&bound(tx, spec)?, generation)?;
            let text = "UPDATE _foldline_holes SET repeated = 0 WHERE target = ?1";
            tx.execute(text, [&spec.target]).map(drop).map_err(sql)
        })
        .await
    }

    async fn skip(&self, generation: u64, to: &[(TopicPartition, Position)]) -> Result<()> {
        let to = to.to_vec();
        self.run(Access::Write, move |tx, spec| {
            hole::check(&bound(tx, spec)?, generation)?;
            let stored = books::positions(tx, &spec.target, generation)?;
            for (partition, to) in &to {
                if let Some(hole) = hole::hole(&stored, partition, *to)? {
                    leave_out(tx, &spec.target, generation, &hole)?;
                }
            }
            Ok(())
        })
        .await
    }
}
