//! Events that were left out by hand, in the books.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::hole::{self, Hole, Holes};
use foldline_api::record::{Position, TopicPartition};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param};
use crate::row::{FromRow, get, partition_of};
use crate::session::within;
use crate::target::{CALL_LIMIT, PostgresTarget};

impl Books {
    async fn holes(&self, client: &Client, target: &str, generation: u64) -> Result<Vec<Hole>> {
        let sql = sql!("holes", schema = self.schema);
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        self.select(client, &sql, &params).await
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
        for sql in
            [sql!("pass_hole", schema = self.schema), sql!("keep_hole", schema = self.schema)]
        {
            self.execute(client, &sql, &params).await?;
        }
        Ok(())
    }
}

impl FromRow for Hole {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Hole {
            partition: partition_of(row)?,
            from: Position(get(row, "from_offset")?),
            to: Position(get(row, "to_offset")?),
        })
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
