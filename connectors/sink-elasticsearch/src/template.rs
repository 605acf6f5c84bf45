//! An index template that gives each new index the readers' alias, as is left by a move from plain indexes
//! behind an alias of that name.
//!
//! An index made from it is found by readers at once, beside the live one and without the filter. So its
//! name is given a template of Foldline's own for as long as it is made: all that the others give, without the
//! alias. Where Foldline may not look at templates, the alias is taken away right after the index was made.

use elasticsearch::http::Method;
use foldline_api::Result;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::survey::Cluster;

/// Beats every other template; two of the same priority that match an index are refused.
const PRIORITY: i64 = 1_000_000_007;

/// Where the template's own mapping says that it is Foldline's, left by a crash.
const OURS: &str = "/mappings/_meta/foldline/shield";

#[derive(Deserialize)]
struct Simulated {
    template: Map<String, Json>,
}

impl Cluster {
    /// Keeps the readers' alias from an index that is about to be made; whether [`Cluster::unshield`] must
    /// follow.
    pub(crate) async fn shield(&self, index: &str) -> Result<bool> {
        let path = format!("/_index_template/_simulate_index/{index}");
        // No right to look, or a version that cannot: the index is looked at once it is there.
        let reply = self.client.json(Method::Post, &path, &[], None).await?;
        let Ok(body) = reply.success() else { return Ok(false) };
        let Ok(Simulated { mut template }) = serde_json::from_slice(&body) else {
            return Ok(false);
        };
        if Json::Object(template.clone()).pointer(OURS).is_some() {
            return Ok(true);
        }
        let reader = self.names.alias();
        let aliases = template.get_mut("aliases").and_then(Json::as_object_mut);
        if aliases.and_then(|aliases| aliases.remove(reader)).is_none() {
            return Ok(false);
        }
        tracing::warn!(
            "an index template gives {index:?} the alias {reader:?}, which is Foldline's to give: left out. Take it \
             out of the template"
        );
        let mappings = template.entry("mappings").or_insert_with(|| json!({}));
        if let Some(mappings) = mappings.as_object_mut() {
            let meta = mappings.entry("_meta").or_insert_with(|| json!({}));
            if let Some(meta) = meta.as_object_mut() {
                meta.insert("foldline".to_owned(), json!({ "shield": true }));
            }
        }
        let body = json!({ "index_patterns": [index], "priority": PRIORITY, "template": template });
        let reply = self.client.json(Method::Put, &shield_of(index), &[], Some(&body)).await?;
        Ok(reply.success().is_ok())
    }

    /// Removes what [`Cluster::shield`] made.
    pub(crate) async fn unshield(&self, index: &str) -> Result<()> {
        match self.client.json(Method::Delete, &shield_of(index), &[], None).await?.success() {
            Ok(_) => Ok(()),
            // Another worker made the same index.
            Err(failure) if failure.status == 404 => Ok(()),
            Err(failure) => Err(failure.error(&format!("removing the template of {index:?}"))),
        }
    }
}

fn shield_of(index: &str) -> String {
    format!("/_index_template/foldline-{index}")
}
