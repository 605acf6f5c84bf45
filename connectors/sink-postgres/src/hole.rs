//! Events that were left out by hand, in the books.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::hole::{self, Hole, Holes};
use foldline_api::record::{Position, TopicPartition};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param, partition_of, read};
use crate::session::within;
use crate::target::{CALL_LIMIT, PostgresTarget};

impl Books {
    /// The DDL of the table of holes: of each, its first offset and the one behind its last.
    pub(crate) fn holes_ddl(table: &str) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n    target text NOT NULL,\n    generation bigint NOT NULL,\n    \
             topic text NOT NULL,\n    partition integer NOT NULL,\n    from_offset bigint NOT NULL,\n    to_offset \
             bigint NOT NULL,\n    skipped_at timestamptz NOT NULL DEFAULT now(),\n    PRIMARY KEY (target, \
             generation, topic, partition, from_offset)\n)"
        )
    }

    async fn holes(&self, client: &Client, target: &str, generation: u64) -> Result<Vec<Hole>> {
        let sql = format!(
            "SELECT topic, partition, from_offset, to_offset FROM {} WHERE target = $1 AND generation = $2 ORDER BY \
             topic COLLATE \"C\", partition, from_offset",
            self.holes
        );
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        let hole = |row: &Row| {
            let row = Some(row);
            let (from, to) = (Position(read(row, 2)?), Position(read(row, 3)?));
            Ok(Hole { partition: partition_of(row)?, from, to })
        };
        self.query(client, &sql, &params).await?.iter().map(hole).collect()
    }

    /// Moves a position past a hole and keeps it; who holds the partition is fenced.
    async fn leave_out(
        &self,
        client: &Client,
        (target, generation): (&str, u64),
        Hole { partition, from, to }: &Hole,
    ) -> Result<()> {
        let generation = generation.cast_signed();
        let topic = &*partition.topic;
        let params: [Param<'_>; 6] = [
            (&target, Type::TEXT),
            (&generation, Type::INT8),
            (&topic, Type::TEXT),
            (&partition.partition, Type::INT4),
            (&from.0, Type::INT8),
            (&to.0, Type::INT8),
        ];
        let moved = format!(
            "UPDATE {} SET position = $6, epoch = epoch + 1, updated_at = now() WHERE target = $1 AND generation = $2 \
             AND topic = $3 AND partition = $4 AND position = $5",
            self.positions
        );
        let kept = format!(
            "INSERT INTO {} (target, generation, topic, partition, from_offset, to_offset) VALUES ($1, $2, $3, $4, \
             $5, $6)",
            self.holes
        );
        for sql in [moved, kept] {
            self.execute(client, &sql, &params).await?;
        }
        Ok(())
    }
}

impl PostgresTarget {
    async fn skip_in(
        &self,
        client: &Client,
        generation: u64,
        to: &[(TopicPartition, Position)],
    ) -> Result<()> {
        let label = self.resolve(client).await?.label();
        let entry = self.entry(client, &label, "FOR SHARE").await?;
        hole::check(&entry.binding, generation)?;
        let stored = self.books.positions(client, &label, generation, "FOR UPDATE").await?;
        for (partition, to) in to {
            if let Some(hole) = hole::hole(&stored, partition, *to)? {
                self.books.leave_out(client, (&label, generation), &hole).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Holes for PostgresTarget {
    async fn holes(&self, generation: u64) -> Result<Vec<Hole>> {
        within(CALL_LIMIT, "reading the books", async {
            let session = self.lane.snapshot().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                self.entry(&session.client, &label, "").await?;
                self.books.holes(&session.client, &label, generation).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn skip(&self, generation: u64, to: &[(TopicPartition, Position)]) -> Result<()> {
        within(CALL_LIMIT, "moving positions", async {
            let session = self.lane.begin().await?;
            let result = self.skip_in(&session.client, generation, to).await;
            session.finish(result).await
        })
        .await
    }
}
