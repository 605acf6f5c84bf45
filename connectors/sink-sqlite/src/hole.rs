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

fn holes(tx: &Transaction<'_>, target: &str, generation: u64) -> Result<Vec<Hole>> {
    select(tx, include_str!("sql/holes.sql"), (target, generation.cast_signed()))
}

impl FromRow for Hole {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        Ok(Hole {
            partition: partition_of(row)?,
            from: Position(get(row, "from_offset")?),
            to: Position(get(row, "to_offset")?),
        })
    }
}

/// Moves a position past a hole and keeps it; who holds the partition is fenced.
fn leave_out(tx: &Transaction<'_>, target: &str, generation: u64, hole: &Hole) -> Result<()> {
    let (topic, partition) = (&*hole.partition.topic, hole.partition.partition);
    let place = (target, generation.cast_signed(), topic, partition, hole.from.0, hole.to.0);
    for statement in [include_str!("sql/pass_hole.sql"), include_str!("sql/keep_hole.sql")] {
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
