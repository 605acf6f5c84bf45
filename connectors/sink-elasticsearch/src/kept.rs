//! What ids of schema registries stood for: one document of the books, which is read by its id and changed as it was read.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::schemas::{KeptSchema, KeptSchemas};
use foldline_api::sink::Version;
use serde::{Deserialize, Serialize};

use crate::books::{ATTEMPTS, Books, Versioned, text};
use crate::bulk;
use crate::target::{ElasticsearchTarget, contended};

/// The schemas of a target. Nothing of it is searched for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SchemasDoc {
    target: String,
    schemas: Vec<SchemaDoc>,
}

/// [`KeptSchema`] as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SchemaDoc {
    registry: String,
    id: String,
    schema: String,
}

impl From<&KeptSchema> for SchemaDoc {
    fn from(kept: &KeptSchema) -> Self {
        let KeptSchema { registry, id, schema } = kept.clone();
        SchemaDoc { registry, id, schema }
    }
}

impl SchemasDoc {
    /// Adds what there is nothing of yet; whether there was any.
    fn add(&mut self, schemas: &[KeptSchema]) -> bool {
        let before = self.schemas.len();
        for kept in schemas {
            let known = |doc: &SchemaDoc| doc.registry == kept.registry && doc.id == kept.id;
            if !self.schemas.iter().any(known) {
                self.schemas.push(kept.into());
            }
        }
        self.schemas.len() > before
    }

    fn into_kept(self) -> Vec<KeptSchema> {
        let kept = |SchemaDoc { registry, id, schema }| KeptSchema { registry, id, schema };
        let mut schemas: Vec<KeptSchema> = self.schemas.into_iter().map(kept).collect();
        schemas.sort();
        schemas
    }
}

impl Books {
    fn schemas_id(&self) -> String {
        format!("schemas:{}", self.target)
    }

    async fn kept_schemas(&self) -> Result<Versioned<SchemasDoc>> {
        let found = self.read(&[self.schemas_id()]).await?.pop().flatten();
        let none = || SchemasDoc { target: self.target.clone(), schemas: Vec::new() };
        Ok(found.unwrap_or_else(|| Versioned { value: none(), version: Version::Absent }))
    }
}

#[async_trait]
impl KeptSchemas for ElasticsearchTarget {
    async fn kept(&self) -> Result<Vec<KeptSchema>> {
        self.stored().await?;
        Ok(self.books.kept_schemas().await?.value.into_kept())
    }

    async fn keep(&self, schemas: &[KeptSchema]) -> Result<Vec<KeptSchema>> {
        self.stored().await?;
        for _ in 0..ATTEMPTS {
            let Versioned { mut value, version } = self.books.kept_schemas().await?;
            if !value.add(schemas) {
                return Ok(value.into_kept());
            }
            let item = bulk::write(&self.books.schemas_id(), version, &text(&value)?);
            if self.books.put(&[item]).await?.pop().flatten().is_some() {
                return Ok(value.into_kept());
            }
        }
        Err(contended())
    }
}
