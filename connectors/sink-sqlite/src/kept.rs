//! The table of what ids of schema registries stood for.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::schemas::{KeptSchema, KeptSchemas};
use rusqlite::{Row, Transaction};

use crate::database::{Access, sql};
use crate::row::{FromRow, get, select};
use crate::target::{SqliteTarget, bound};

pub(crate) fn kept(tx: &Transaction<'_>, target: &str) -> Result<Vec<KeptSchema>> {
    select(tx, include_str!("sql/kept_schemas.sql"), [target])
}

impl FromRow for KeptSchema {
    fn from_row(row: &Row<'_>) -> Result<Self> {
        Ok(KeptSchema {
            registry: get(row, "registry")?,
            id: get(row, "id")?,
            schema: get(row, "schema")?,
        })
    }
}

#[async_trait]
impl KeptSchemas for SqliteTarget {
    async fn kept(&self) -> Result<Vec<KeptSchema>> {
        self.run(Access::Read, |tx, spec| {
            bound(tx, spec)?;
            kept(tx, &spec.target)
        })
        .await
    }

    async fn keep(&self, schemas: &[KeptSchema]) -> Result<Vec<KeptSchema>> {
        let schemas = schemas.to_vec();
        self.run(Access::Write, move |tx, spec| {
            bound(tx, spec)?;
            let keep = include_str!("sql/keep_schema.sql");
            for KeptSchema { registry, id, schema } in &schemas {
                tx.execute(keep, (&spec.target, registry, id, schema)).map_err(sql)?;
            }
            kept(tx, &spec.target)
        })
        .await
    }
}
