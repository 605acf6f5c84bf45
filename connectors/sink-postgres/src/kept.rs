//! What ids of schema registries stood for, in the books.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::schemas::{KeptSchema, KeptSchemas};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param};
use crate::row::{FromRow, get};
use crate::session::within;
use crate::target::{CALL_LIMIT, PostgresTarget};

impl Books {
    async fn kept_schemas(&self, client: &Client, target: &str) -> Result<Vec<KeptSchema>> {
        let sql = sql!("kept_schemas", schema = self.schema);
        self.select(client, &sql, &[(&target, Type::TEXT)]).await
    }

    async fn keep_schemas(
        &self,
        client: &Client,
        target: &str,
        schemas: &[KeptSchema],
    ) -> Result<()> {
        let sql = sql!("keep_schemas", schema = self.schema);
        let texts = |of: fn(&KeptSchema) -> &String| -> Vec<&str> {
            schemas.iter().map(|kept| of(kept).as_str()).collect()
        };
        let (registries, ids) = (texts(|kept| &kept.registry), texts(|kept| &kept.id));
        let schemas = texts(|kept| &kept.schema);
        let params: [Param<'_>; 4] = [
            (&target, Type::TEXT),
            (&registries, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&schemas, Type::TEXT_ARRAY),
        ];
        self.execute(client, &sql, &params).await.map(drop)
    }
}

impl FromRow for KeptSchema {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(KeptSchema {
            registry: get(row, "registry")?,
            id: get(row, "id")?,
            schema: get(row, "schema")?,
        })
    }
}

#[async_trait]
impl KeptSchemas for PostgresTarget {
    async fn kept(&self) -> Result<Vec<KeptSchema>> {
        within(CALL_LIMIT, "reading the books", async {
            let session = self.lane.snapshot().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                self.entry(&session.client, &label, "").await?;
                self.books.kept_schemas(&session.client, &label).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }

    async fn keep(&self, schemas: &[KeptSchema]) -> Result<Vec<KeptSchema>> {
        within(CALL_LIMIT, "keeping schemas", async {
            let session = self.lane.begin().await?;
            let result = async {
                let label = self.resolve(&session.client).await?.label();
                self.entry(&session.client, &label, "FOR SHARE").await?;
                self.books.keep_schemas(&session.client, &label, schemas).await?;
                self.books.kept_schemas(&session.client, &label).await
            }
            .await;
            session.finish(result).await
        })
        .await
    }
}
