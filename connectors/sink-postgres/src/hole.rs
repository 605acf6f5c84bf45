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
    /// Whether the table of holes is of this version.
    pub(crate) async fn holes_are_repeated(&self, client: &Client) -> Result<bool> {
        self.has_column(client, "holes", "repeated").await
    }

    /// Brings the table of an earlier version up to this one: the generations to come repeat what it has.
    pub(crate) async fn repeat_holes(&self, client: &Client) -> Result<()> {
        if self.holes_are_repeated(client).await? {
            return Ok(());
        }
        let sql = sql!("repeated_column", schema = self.schema);
        self.execute(client, &sql, &[]).await.map(|_| ())
    }

    /// What a generation leaves out.
    pub(crate) async fn holes(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
    ) -> Result<Vec<Hole>> {
        let sql = sql!("holes", schema = self.schema);
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        self.select(client, &sql, &params).await
    }

    /// Leaves out of another generation what one leaves out of topics of the same id.
    pub(crate) async fn take_over_holes(
        &self,
        client: &Client,
        target: &str,
        (from, to): (u64, u64),
    ) -> Result<()> {
        let sql = sql!("take_holes_over", schema = self.schema);
        let (from, to) = (from.cast_signed(), to.cast_signed());
        let params: [Param<'_>; 3] =
            [(&target, Type::TEXT), (&from, Type::INT8), (&to, Type::INT8)];
        self.execute(client, &sql, &params).await.map(|_| ())
    }

    /// Moves positions past a hole, of all generations that have not folded it, and keeps it; who holds the partition is
    /// fenced.
    async fn leave_out(
        &self,
        client: &Client,
        (target, generation): (&str, u64),
        Hole { partition, from, to, .. }: &Hole,
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
        let place = [(&target as _, Type::TEXT), (&topic as _, Type::TEXT), params[3].clone()];
        self.query(client, &sql!("lock_places", schema = self.schema), &place).await?;
        for sql in
            [sql!("keep_hole", schema = self.schema), sql!("pass_hole", schema = self.schema)]
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
            repeated: get(row, "repeated")?,
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

    async fn forget(&self, generation: u64) -> Result<()> {
        within(CALL_LIMIT, "writing the books", async {
            let session = self.lane.begin().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                let entry = self.entry(&session.client, &label, "FOR SHARE").await?;
                hole::check(&entry.binding, generation)?;
                let sql = sql!("forget_holes", schema = self.books.schema);
                let params: [Param<'_>; 1] = [(&label, Type::TEXT)];
                self.books.execute(&session.client, &sql, &params).await.map(|_| ())
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
