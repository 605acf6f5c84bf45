//! The notes, as the books keep them.

use foldline_api::Result;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::books::{Books, Param};
use crate::row::get;
use crate::writer::Place;

/// So many notes of one generation become one that says: all rows.
const NOTES_MAX: i64 = 200_000;

impl Books {
    async fn note(&self, client: &Client, sql: &str, params: &[Param<'_>]) -> Result<()> {
        self.execute(client, sql, params).await.map(|_| ())
    }

    /// Notes keys of another target's rows for a generation that shows them.
    pub(crate) async fn note_keys(
        &self,
        client: &Client,
        own: &Place,
        other: &str,
        keys: &[String],
    ) -> Result<()> {
        let sql = sql!("joins/note_keys", schema = self.schema);
        let (label, generation) = (&own.label, own.generation.cast_signed());
        let params: [Param<'_>; 4] = [
            (label, Type::TEXT),
            (&generation, Type::INT8),
            (&other, Type::TEXT),
            (&keys, Type::TEXT_ARRAY),
        ];
        self.note(client, &sql, &params).await
    }

    /// Notes all rows of a generation.
    pub(crate) async fn note_all(&self, client: &Client, own: &Place, other: &str) -> Result<()> {
        let sql = sql!("joins/note_all", schema = self.schema);
        let (label, generation) = (&own.label, own.generation.cast_signed());
        let params: [Param<'_>; 3] =
            [(label, Type::TEXT), (&generation, Type::INT8), (&other, Type::TEXT)];
        self.note(client, &sql, &params).await
    }

    /// Notes keys for all generations that show this target's rows, where its own is the live one.
    pub(crate) async fn note_followers(
        &self,
        client: &Client,
        own: &Place,
        keys: &[String],
    ) -> Result<()> {
        let sql = sql!("joins/note_followers", schema = self.schema);
        let (label, generation) = (&own.label, own.generation.cast_signed());
        let params: [Param<'_>; 3] =
            [(label, Type::TEXT), (&generation, Type::INT8), (&keys, Type::TEXT_ARRAY)];
        self.note(client, &sql, &params).await
    }

    /// Makes one note of too many.
    pub(crate) async fn collapse(&self, client: &Client, other: &str) -> Result<()> {
        let sql = sql!("joins/collapse", schema = self.schema);
        let params: [Param<'_>; 2] = [(&other, Type::TEXT), (&NOTES_MAX, Type::INT8)];
        self.note(client, &sql, &params).await
    }

    /// The other targets whose flushes do not note their keys for this generation yet.
    pub(crate) async fn unregistered(
        &self,
        client: &Client,
        own: &Place,
        labels: &[String],
    ) -> Result<Vec<String>> {
        let sql = sql!("joins/unregistered", schema = self.schema);
        let (label, generation) = (&own.label, own.generation.cast_signed());
        let params: [Param<'_>; 3] =
            [(label, Type::TEXT), (&generation, Type::INT8), (&labels, Type::TEXT_ARRAY)];
        self.labels_of(client, &sql, &params).await
    }

    /// The other targets that live another life than the one that this generation's rows were looked at for.
    pub(crate) async fn changed(
        &self,
        client: &Client,
        own: &Place,
        fingerprint: &str,
    ) -> Result<Vec<String>> {
        let sql = sql!("joins/changed", schema = self.schema);
        let (label, generation) = (&own.label, own.generation.cast_signed());
        let params: [Param<'_>; 3] =
            [(label, Type::TEXT), (&generation, Type::INT8), (&fingerprint, Type::TEXT)];
        self.labels_of(client, &sql, &params).await
    }

    async fn labels_of(
        &self,
        client: &Client,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<String>> {
        let rows = self.query(client, sql, params).await?;
        rows.iter().map(|row| get(row, "looked_up")).collect()
    }

    pub(crate) async fn register(
        &self,
        client: &Client,
        own: &Place,
        other: &str,
        fingerprint: &str,
    ) -> Result<()> {
        let sql = sql!("joins/register", schema = self.schema);
        let (label, generation) = (&own.label, own.generation.cast_signed());
        let params: [Param<'_>; 4] = [
            (label, Type::TEXT),
            (&generation, Type::INT8),
            (&other, Type::TEXT),
            (&fingerprint, Type::TEXT),
        ];
        self.note(client, &sql, &params).await
    }

    /// Which of these keys are noted; one that is none stands for all rows.
    pub(crate) async fn noted(
        &self,
        client: &Client,
        own: &Place,
        other: &str,
        keys: &[String],
    ) -> Result<Vec<Option<String>>> {
        let sql = sql!("joins/noted", schema = self.schema);
        let (label, generation) = (&own.label, own.generation.cast_signed());
        let params: [Param<'_>; 4] = [
            (label, Type::TEXT),
            (&generation, Type::INT8),
            (&other, Type::TEXT),
            (&keys, Type::TEXT_ARRAY),
        ];
        let rows = self.query(client, &sql, &params).await?;
        rows.iter().map(|row| get(row, "key")).collect()
    }

    /// Nobody notes keys any more for a generation that is live no longer.
    pub(crate) async fn end_lookups(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
    ) -> Result<()> {
        let sql = sql!("joins/end_generation", schema = self.schema);
        let generation = generation.cast_signed();
        self.note(client, &sql, &[(&target, Type::TEXT), (&generation, Type::INT8)]).await
    }

    /// Whether rows of a generation are further behind what they show than is promised.
    pub(crate) async fn is_stale(
        &self,
        client: &Client,
        target: &str,
        generation: u64,
    ) -> Result<bool> {
        let sql = sql!("joins/stale", schema = self.schema);
        let generation = generation.cast_signed();
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&generation, Type::INT8)];
        Ok(!self.query(client, &sql, &params).await?.is_empty())
    }
}
