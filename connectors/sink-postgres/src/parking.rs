//! Events that are set aside with their keys, in the books.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::parked::{Parked, Parking, Place, Request, Which, read_keys, read_record};
use foldline_api::record::Record;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param, Partitions};
use crate::row::{FromRow, get, partition_of};
use crate::session::within;
use crate::target::{CALL_LIMIT, PostgresTarget};

impl Books {
    /// Sets events aside.
    pub(crate) fn park_sql(&self) -> String {
        sql!("park_events", schema = self.schema)
    }

    /// Takes events out of the parked ones.
    pub(crate) fn free_sql(&self) -> String {
        sql!("free_events", schema = self.schema)
    }

    /// Is done with requests, and notes why they could not be followed.
    pub(crate) fn keep_sql(&self) -> String {
        sql!("keep_events", schema = self.schema)
    }

    /// What is parked, by partition and offset.
    pub(crate) async fn parked(
        &self,
        client: &Client,
        (target, generation): (&str, u64),
        which: &Which,
    ) -> Result<Vec<Parked>> {
        let sql = sql!("parked_events", schema = self.schema);
        let generation = generation.cast_signed();
        let params: [Param<'_>; 3] =
            [(&target, Type::TEXT), (&generation, Type::INT8), (&which.asked, Type::BOOL)];
        let mut all: Vec<Parked> = self.select(client, &sql, &params).await?;
        all.retain(|parked| which.has(parked));
        Ok(all)
    }

    async fn parked_records(
        &self,
        client: &Client,
        (target, generation): (&str, u64),
        places: &[Place],
    ) -> Result<Vec<Record>> {
        let sql = sql!("parked_records", schema = self.schema);
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
        self.select(client, &sql, &params).await
    }

    async fn ask_parked(
        &self,
        client: &Client,
        (target, generation): (&str, u64),
        (partition, offset): &Place,
        request: Request,
    ) -> Result<bool> {
        let sql = sql!("ask_for_event", schema = self.schema);
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

impl FromRow for Parked {
    fn from_row(row: &Row) -> Result<Self> {
        let (keys, request): (&str, Option<&str>) = (get(row, "keys")?, get(row, "request")?);
        Ok(Parked {
            partition: partition_of(row)?,
            offset: get(row, "record_offset")?,
            keys: read_keys(keys)?,
            reason: get(row, "reason")?,
            request: request.and_then(Request::parse),
            refused: Vec::new(),
        })
    }
}

/// The record of a parked event.
impl FromRow for Record {
    fn from_row(row: &Row) -> Result<Self> {
        let place: Place = (partition_of(row)?, get(row, "record_offset")?);
        read_record(&place, get(row, "record")?)
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
