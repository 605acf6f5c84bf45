//! What ids of schema registries stood for, in the store in memory.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::schemas::{KeptSchema, KeptSchemas};

use crate::store::{Entry, MemoryTarget};

impl Entry {
    fn kept(&self) -> Vec<KeptSchema> {
        let kept = |((registry, id), schema): (&(String, String), &String)| KeptSchema {
            registry: registry.clone(),
            id: id.clone(),
            schema: schema.clone(),
        };
        self.schemas.iter().map(kept).collect()
    }
}

#[async_trait]
impl KeptSchemas for MemoryTarget {
    async fn kept(&self) -> Result<Vec<KeptSchema>> {
        Ok(self.owned(&self.store.lock())?.kept())
    }

    async fn keep(&self, schemas: &[KeptSchema]) -> Result<Vec<KeptSchema>> {
        let mut state = self.store.lock();
        let entry = self.owned_mut(&mut state)?;
        for KeptSchema { registry, id, schema } in schemas {
            let place = (registry.clone(), id.clone());
            entry.schemas.entry(place).or_insert_with(|| schema.clone());
        }
        Ok(entry.kept())
    }
}
