//! Events that are set aside with their keys, in the books.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::parked::{Parked, Parking, Place, Request, Which, read_keys, read_record};
use foldline_api::record::{Record, TopicPartition};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::books::{Books, Param, Partitions, partition_of, read};
use crate::session::within;
use crate::target::{CALL_LIMIT, PostgresTarget};

impl Books {
    /// The DDL of the parked events' table. Each stands under the topic's life that its position names.
    pub(crate) fn parked_ddl(table: &str) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n    target text NOT NULL,\n    generation bigint NOT NULL,\n    \
             topic text NOT NULL,\n    partition integer NOT NULL,\n    topic_id text,\n    record_offset bigint \
             NOT NULL,\n    keys text NOT NULL,\n    reason text,\n    request text,\n    record text NOT NULL,\n    \
             parked_at timestamptz NOT NULL DEFAULT now(),\n    PRIMARY KEY (target, generation, topic, \
             partition, record_offset)\n)"
        )
    }

    /// Sets events aside.
    pub(crate) fn park_sql(&self) -> String {
        format!(
            "INSERT INTO {} (target, generation, topic, partition, topic_id, record_offset, keys, reason, \
             record) SELECT $1, $2, u.topic, u.partition, p.topic_id, u.record_offset, u.keys, u.reason, \
             u.record FROM unnest($3::text[], $4::int4[], $5::int8[], $6::text[], $7::text[], $8::text[]) AS \
             u(topic, partition, record_offset, keys, reason, record) JOIN {} AS p ON p.target = $1 AND \
             p.generation = $2 AND p.topic = u.topic AND p.partition = u.partition ON CONFLICT (target, \
             generation, topic, partition, record_offset) DO UPDATE SET keys = excluded.keys, reason = \
             excluded.reason, record = excluded.record, request = NULL",
            self.parked, self.positions
        )
    }

    /// Takes events out of the parked ones.
    pub(crate) fn free_sql(&self) -> String {
        format!(
            "DELETE FROM {} AS k USING unnest($3::text[], $4::int4[], $5::int8[]) AS u(topic, partition, \
             record_offset) WHERE k.target = $1 AND k.generation = $2 AND k.topic = u.topic AND k.partition = \
             u.partition AND k.record_offset = u.record_offset",
            self.parked
        )
    }

    /// Is done with requests, and notes why they could not be followed.
    pub(crate) fn keep_sql(&self) -> String {
        format!(
            "UPDATE {} AS k SET request = NULL, reason = coalesce(u.reason, k.reason) FROM unnest($3::text[], \
             $4::int4[], $5::int8[], $6::text[]) AS u(topic, partition, record_offset, reason) WHERE \
             k.target = $1 AND k.generation = $2 AND k.topic = u.topic AND k.partition = u.partition AND \
             k.record_offset = u.record_offset",
            self.parked
        )
    }

    /// What is parked, by partition and offset.
    pub(crate) async fn parked(
        &self,
        client: &Client,
        (target, generation): (&str, u64),
        which: &Which,
    ) -> Result<Vec<Parked>> {
        let sql = format!(
            "SELECT topic, partition, record_offset, keys, reason, request FROM {} WHERE target = $1 AND \
             generation = $2 AND (NOT $3 OR request IS NOT NULL) ORDER BY topic COLLATE \"C\", partition, \
             record_offset",
            self.parked
        );
        let generation = generation.cast_signed();
        let params: [Param<'_>; 3] =
            [(&target, Type::TEXT), (&generation, Type::INT8), (&which.asked, Type::BOOL)];
        let mut all = Vec::new();
        for row in &self.query(client, &sql, &params).await? {
            let row = Some(row);
            let (keys, request): (&str, Option<&str>) = (read(row, 3)?, read(row, 5)?);
            let parked = Parked {
                partition: partition_of(row)?,
                offset: read(row, 2)?,
                keys: read_keys(keys)?,
                reason: read(row, 4)?,
                request: request.and_then(Request::parse),
                refused: Vec::new(),
            };
            if which.has(&parked) {
                all.push(parked);
            }
        }
        Ok(all)
    }

    async fn parked_records(
        &self,
        client: &Client,
        (target, generation): (&str, u64),
        places: &[Place],
    ) -> Result<Vec<Record>> {
        let sql = format!(
            "SELECT k.topic, k.partition, k.record_offset, k.record FROM unnest($3::text[], $4::int4[], \
             $5::int8[]) WITH ORDINALITY AS u(topic, partition, record_offset, n) JOIN {} AS k ON k.target = \
             $1 AND k.generation = $2 AND k.topic = u.topic AND k.partition = u.partition AND \
             k.record_offset = u.record_offset ORDER BY u.n",
            self.parked
        );
        let generation = generation.cast_signed();
        let list = Partitions::new(places.iter().map(|(partition, _)| partition));
        let offsets: Vec<i64> = places.iter().map(|(_, offset)| *offset).collect();
        let params: [Param<'_>; 5] = [
            (&target, Type::TEXT),
            (&generation, Type::INT8),
            (&list.topics, Type::TEXT_ARRAY),
            (&list.partitions, Type::INT4_ARRAY),
            (&offsets, Type::INT8_ARRAY),
        ];
        let rows = self.query(client, &sql, &params).await?;
        let record = |row| {
            let row = Some(row);
            let place: (TopicPartition, i64) = (partition_of(row)?, read(row, 2)?);
            read_record(&place, read(row, 3)?)
        };
        rows.iter().map(record).collect()
    }

    async fn ask_parked(
        &self,
        client: &Client,
        (target, generation): (&str, u64),
        (partition, offset): &Place,
        request: Request,
    ) -> Result<bool> {
        let sql = format!(
            "UPDATE {} SET request = $6 WHERE target = $1 AND generation = $2 AND topic = $3 AND partition = \
             $4 AND record_offset = $5",
            self.parked
        );
        let (generation, topic, name) =
            (generation.cast_signed(), &*partition.topic, request.name());
        let params: [Param<'_>; 6] = [
            (&target, Type::TEXT),
            (&generation, Type::INT8),
            (&topic, Type::TEXT),
            (&partition.partition, Type::INT4),
            (offset, Type::INT8),
            (&name, Type::TEXT),
        ];
        Ok(self.execute(client, &sql, &params).await? > 0)
    }
}

#[async_trait]
impl Parking for PostgresTarget {
    async fn parked(&self, generation: u64, which: &Which) -> Result<Vec<Parked>> {
        within(CALL_LIMIT, "reading parked events", async {
            let session = self.lane.snapshot().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                self.entry(&session.client, &label, "").await?;
                self.books.parked(&session.client, (&label, generation), which).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn records(&self, generation: u64, places: &[Place]) -> Result<Vec<Record>> {
        within(CALL_LIMIT, "reading parked events", async {
            let session = self.lane.snapshot().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                self.entry(&session.client, &label, "").await?;
                self.books.parked_records(&session.client, (&label, generation), places).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn ask(&self, generation: u64, place: &Place, request: Request) -> Result<bool> {
        within(CALL_LIMIT, "asking for parked events", async {
            let session = self.lane.begin().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                self.entry(&session.client, &label, "").await?;
                let of = (label.as_str(), generation);
                self.books.ask_parked(&session.client, of, place, request).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }
}
