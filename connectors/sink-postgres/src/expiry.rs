//! The horizon in the books, and the rows that it has passed.

use async_trait::async_trait;
use foldline_api::expiry::{Horizon, Horizons, Look, Rule};
use foldline_api::model::Key;
use foldline_api::sink::{Marks, RowWrite, Version};
use foldline_api::{Error, Result};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param};
use crate::codec::{Raw, decode, encode_column, wire_array_type};
use crate::row::{FromRow, get, only};
use crate::session::{SNAPSHOT, within};
use crate::statement::past_sql;
use crate::target::{CALL_LIMIT, PostgresTarget};
use crate::writer::{PostgresWriter, as_param};

/// The server's clock, in milliseconds since the epoch.
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

impl FromRow for Horizon {
    fn from_row(row: &Row) -> Result<Self> {
        get(row, "horizon").map(Horizon)
    }
}

impl Books {
    /// The horizon of a target's rule.
    pub(crate) async fn horizon(
        &self,
        client: &Client,
        target: &str,
        rule: &Rule,
    ) -> Result<Option<Horizon>> {
        let sql = sql!("horizon", schema = self.schema);
        let params: [Param<'_>; 2] = [(&target, Type::TEXT), (&rule.to_string(), Type::TEXT)];
        Ok(self.select(client, &sql, &params).await?.pop())
    }

    async fn advance_horizon(
        &self,
        client: &Client,
        (target, rule): (&str, &Rule),
        to: Horizon,
    ) -> Result<Horizon> {
        let sql = sql!("advance_horizon", schema = self.schema);
        let params: [Param<'_>; 3] =
            [(&target, Type::TEXT), (&rule.to_string(), Type::TEXT), (&to.0, Type::INT8)];
        only(&self.query(client, &sql, &params).await?).map(Horizon)
    }
}

impl PostgresTarget {
    fn rule(&self) -> Result<&Rule> {
        self.spec.expire.as_ref().ok_or_else(|| Error::config("nothing expires here"))
    }
}

#[async_trait]
impl Horizons for PostgresTarget {
    async fn look(&self) -> Result<Look> {
        within(CALL_LIMIT, "reading the books", async {
            let session = self.lane.snapshot().await?;
            let result = async {
                let client = &session.client;
                let label = self.resolve(client).await?.label();
                self.entry(client, &label, "").await?;
                let horizon = self.books.horizon(client, &label, self.rule()?).await?;
                Ok(Look { horizon, now: only(&self.books.query(client, NOW, &[]).await?)? })
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn advance(&self, to: Horizon) -> Result<Horizon> {
        within(CALL_LIMIT, "moving the horizon", async {
            let session = self.lane.begin().await?;
            let result = async {
                let client = &session.client;
                let label = self.resolve(client).await?.label();
                self.entry(client, &label, "FOR SHARE").await?;
                self.books.advance_horizon(client, (&label, self.rule()?), to).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }
}

impl PostgresWriter {
    /// See [`foldline_api::sink::Writer::expired`].
    pub(crate) async fn past(&self, horizon: Horizon, max: usize) -> Result<Vec<RowWrite>> {
        let Some(rule) = &self.spec.expire else { return Ok(Vec::new()) };
        let column = self.model.columns.get(rule.column);
        let Some((ty, bound)) = column.and_then(|c| Some((&c.ty, horizon.bound(&c.ty)?))) else {
            return Ok(Vec::new());
        };
        let Some(sql) = past_sql(&self.place.table, &self.model, rule) else {
            return Ok(Vec::new());
        };
        let before = encode_column(ty, std::iter::once(&bound));
        let before = before.map_err(|error| Error::config(error.to_string()))?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let params: [Param<'_>; 2] = [(as_param(&before), wire_array_type(ty)), (&max, Type::INT8)];
        let session = self.loading.begin_with(SNAPSHOT).await?;
        let rows = session.client.query_typed(&sql, &params).await;
        let rows = rows.map_err(|error| self.classify(error, "looking for what has expired in"));
        let rows = session.finish(rows).await?;
        let mut deletes: Vec<RowWrite> =
            rows.iter().map(|row| self.delete(row)).collect::<Result<_>>()?;
        deletes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(deletes)
    }

    fn delete(&self, row: &Row) -> Result<RowWrite> {
        let raw = |at: usize| {
            let read = row.try_get::<_, Raw<'_>>(at);
            read.map_err(|error| self.classify(error, "looking for what has expired in"))
        };
        let mut values = Vec::with_capacity(self.model.key.len());
        for (at, column) in self.model.key_columns().enumerate() {
            let value = decode(&column.ty, &raw(at)?);
            values.push(value.map_err(|error| Error::config(error.to_string()))?);
        }
        let xmin = raw(values.len())?.u32();
        let xmin =
            xmin.ok_or_else(|| Error::retriable("PostgreSQL sent a row without its version"))?;
        let version = Version::At(u64::from(xmin), 0);
        Ok(RowWrite { key: Key::new(values), row: None, version, marks: Marks::new() })
    }
}
