//! Schemas that are registered: found where they are there, handed over where they are not.

use async_trait::async_trait;
use foldline_api::error::{Error, Result};
use foldline_language::converter::schema::{Register, Registered};
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde_json::json;

use crate::Registry;
use crate::client::Took;
use crate::fetch::PLAIN;

#[derive(Deserialize)]
struct Id {
    id: u32,
}

impl Registry {
    /// Hands a schema over; none where the registry does not know it there.
    async fn hand(&self, path: &str, schema: &Registered) -> Result<Option<u32>> {
        let client = self.client();
        let body = json!({
            "schema": schema.text,
            "schemaType": schema.kind.as_deref().unwrap_or("AVRO"),
        });
        match client.post(path, &body).await? {
            Took::Missing => Ok(None),
            Took::Refused(why) => {
                let name = self.name();
                Err(Error::config(format!("the schema registry {name:?} refuses it: {why}")))
            }
            Took::Body(body) => match serde_json::from_slice(&body) {
                Ok(Id { id: 0 }) => Err(client.outage("its id of a schema is 0, which is none")),
                Ok(Id { id }) => Ok(Some(id)),
                Err(error) => {
                    Err(client.outage(&format!("its answer for /{path} is no registry's: {error}")))
                }
            },
        }
    }
}

/// A schema that is there is looked for first: so one who may not write, or a registry that takes nothing new, does for it.
#[async_trait]
impl Register for Registry {
    async fn register(&self, subject: &str, schema: &Registered) -> Result<u32> {
        let path = format!("subjects/{}", utf8_percent_encode(subject, PLAIN));
        if let Some(id) = self.hand(&path, schema).await? {
            return Ok(id);
        }
        let path = format!("{path}/versions");
        let id = self.hand(&path, schema).await?;
        id.ok_or_else(|| self.client().outage(&format!("it has no /{path}, as a registry has")))
    }
}
