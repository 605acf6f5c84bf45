//! The table of events that were left out by hand.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::hole::{self, Hole, Holes};
use foldline_api::record::{Position, TopicPartition};
use rusqlite::{Row, Transaction};

use crate::books;
use crate::database::{Access, sql};
use crate::target::{SqliteTarget, bound};

/// Behind `from_offset`, before `to_offset`.
pub(crate) const DDL: &str = "CREATE TABLE IF NOT EXISTS _foldline_holes (
  target TEXT NOT NULL,
  generation INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  from_offset INTEGER NOT NULL,
  to_offset INTEGER NOT NULL,
  PRIMARY KEY (target, generation, topic, partition, from_offset)
) STRICT, WITHOUT ROWID";

fn holes(tx: &Transaction<'_>, target: &str, generation: u64) -> Result<Vec<Hole>> {
    let mut statement = tx
        .prepare_cached(
            "SELECT topic, partition, from_offset, to_offset FROM _foldline_holes \
             WHERE target = ?1 AND generation = ?2 ORDER BY topic, partition, from_offset",
        )
        .map_err(sql)?;
    let read = |row: &Row<'_>| {
        let topic: String = row.get(0)?;
        Ok(Hole {
            partition: TopicPartition::new(Arc::<str>::from(topic), row.get(1)?),
            from: Position(row.get(2)?),
            to: Position(row.get(3)?),
        })
    };
    let rows = statement.query_map((target, generation.cast_signed()), read).map_err(sql)?;
    rows.collect::<rusqlite::Result<_>>().map_err(sql)
}

/// Moves a position past a hole and keeps it; who holds the partition is fenced.
fn leave_out(tx: &Transaction<'_>, target: &str, generation: u64, hole: &Hole) -> Result<()> {
    let (topic, partition) = (&*hole.partition.topic, hole.partition.partition);
    let place = (target, generation.cast_signed(), topic, partition, hole.from.0, hole.to.0);
    for statement in [
        "UPDATE _foldline_positions SET position = ?6, epoch = epoch + 1 WHERE target = ?1 \
         AND generation = ?2 AND topic = ?3 AND partition = ?4 AND position = ?5",
        "INSERT INTO _foldline_holes (target, generation, topic, partition, from_offset, to_offset) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    ] {
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
