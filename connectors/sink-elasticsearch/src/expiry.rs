//! The horizon, a document of the books, and the documents that it has passed.

use std::time::Duration;

use async_trait::async_trait;
use elasticsearch::http::Method;
use foldline_api::column::scalar_text;
use foldline_api::expiry::{Horizon, Horizons, Look, Rule};
use foldline_api::model::{Column, Model};
use foldline_api::sink::{RowWrite, TargetSpec, Version};
use foldline_api::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::books::{ATTEMPTS, Books, Versioned, text};
use crate::bulk;
use crate::document::{self, META};
use crate::search::Page;
use crate::target::{ElasticsearchTarget, contended};
use crate::writer::ElasticsearchWriter;

/// Documents of one search, at most.
const PAST_MAX: usize = 5_000;
/// What is written to be found is made visible no more often.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// The horizons of a target. Nothing of it is searched for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct HorizonsDoc {
    target: String,
    horizons: Vec<HorizonDoc>,
}

/// The horizon of a rule, in milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct HorizonDoc {
    rule: String,
    horizon: i64,
}

impl HorizonsDoc {
    fn of(&self, rule: &Rule) -> Option<Horizon> {
        let rule = rule.to_string();
        self.horizons.iter().find(|doc| doc.rule == rule).map(|doc| Horizon(doc.horizon))
    }

    /// Where the rule's horizon is then; none where it is there already, or further.
    fn advance(&mut self, rule: &Rule, to: Horizon) -> Option<Horizon> {
        if self.of(rule).is_some_and(|horizon| horizon >= to) {
            return None;
        }
        let rule = rule.to_string();
        self.horizons.retain(|doc| doc.rule != rule);
        self.horizons.push(HorizonDoc { rule, horizon: to.0 });
        Some(to)
    }
}

impl Books {
    fn horizons_id(&self) -> String {
        format!("horizons:{}", self.target)
    }

    async fn horizons(&self) -> Result<Versioned<HorizonsDoc>> {
        let found = self.read(&[self.horizons_id()]).await?.pop().flatten();
        let none = || HorizonsDoc { target: self.target.clone(), horizons: Vec::new() };
        Ok(found.unwrap_or_else(|| Versioned { value: none(), version: Version::Absent }))
    }

    /// The horizon of the rule, where there is one.
    pub(crate) async fn horizon(&self, rule: Option<&Rule>) -> Result<Option<Horizon>> {
        match rule {
            Some(rule) => Ok(self.horizons().await?.value.of(rule)),
            None => Ok(None),
        }
    }
}

#[derive(Deserialize)]
struct Health {
    epoch: String,
}

fn rule(spec: &TargetSpec) -> Result<&Rule> {
    spec.expire.as_ref().ok_or_else(|| Error::config("nothing expires here"))
}

impl ElasticsearchTarget {
    /// The clock of the node that answers, in milliseconds since the epoch.
    async fn now(&self) -> Result<i64> {
        let doing = "asking for the time";
        let fields = [("format", "json"), ("h", "epoch")];
        let client = &self.books.client;
        let reply = client.json(Method::Get, "/_cat/health", &fields, None).await?;
        let health: Vec<Health> = reply.read(doing)?;
        let seconds = health.first().and_then(|health| health.epoch.parse::<i64>().ok());
        let seconds =
            seconds.ok_or_else(|| Error::retriable(format!("unreadable answer while {doing}")))?;
        Ok(seconds * 1_000)
    }
}

#[async_trait]
impl Horizons for ElasticsearchTarget {
    async fn look(&self) -> Result<Look> {
        self.stored().await?;
        let horizon = self.books.horizon(Some(rule(&self.spec)?)).await?;
        Ok(Look { horizon, now: self.now().await? })
    }

    async fn advance(&self, to: Horizon) -> Result<Horizon> {
        self.stored().await?;
        let rule = rule(&self.spec)?;
        for _ in 0..ATTEMPTS {
            let Versioned { mut value, version } = self.books.horizons().await?;
            let Some(moved) = value.advance(rule, to) else {
                return Ok(value.of(rule).unwrap_or(to));
            };
            let item = bulk::write(&self.books.horizons_id(), version, &text(&value)?);
            if self.books.put(&[item]).await?.pop().flatten().is_some() {
                return Ok(moved);
            }
        }
        Err(contended())
    }
}

impl ElasticsearchWriter {
    /// The horizon as it is now.
    pub(crate) async fn horizon(&self) -> Result<Option<Horizon>> {
        self.books.horizon(self.spec.expire.as_ref()).await
    }

    /// See [`foldline_api::sink::Writer::expired`]. A tombstone has no column, so it is never found again.
    pub(crate) async fn past(&self, horizon: Horizon, max: usize) -> Result<Vec<RowWrite>> {
        let columns = &self.model.columns;
        let column = self.spec.expire.as_ref().and_then(|rule| columns.get(rule.column));
        let Some((column, before)) = column.and_then(|c| Some((c, horizon.bound(&c.ty)?))) else {
            return Ok(Vec::new());
        };
        // What was deleted just now is found until the index is refreshed.
        let doing = "looking for what has expired";
        self.client.refresh(&self.alias, doing).await?;
        let keys: Vec<Column> = self.model.key_columns().cloned().collect();
        let names: Vec<&str> = keys.iter().map(|column| &*column.name).chain([META]).collect();
        let field = &*column.name;
        let search = json!({
            "size": max.min(PAST_MAX),
            "seq_no_primary_term": true,
            "track_total_hits": false,
            "_source": names,
            "query": { "range": { field: { "lt": scalar_text(&before) } } },
            "sort": [{ field: "asc" }],
        });
        let path = format!("/{}/_search", self.alias);
        let page: Page<Box<RawValue>> = self.client.search(&path, &search, doing).await?;
        let key: Vec<usize> = (0..keys.len()).collect();
        let model = Model { columns: keys, key, indexes: Vec::new() };
        let hits = page.into_hits();
        let mut deletes = Vec::with_capacity(hits.len());
        for hit in hits {
            let (row, marks) = document::decode(&model, hit.source.get().as_bytes())?;
            let Some(row) = row else { continue };
            let version = hit.version();
            deletes.push(RowWrite { key: model.key_of(&row), row: None, version, marks });
        }
        deletes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        if !deletes.is_empty() {
            // At most one forced refresh a second.
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
        Ok(deletes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_horizon_only_goes_forward_and_each_rule_has_its_own() {
        let rule = |after| Rule { field: Arc::from("day"), column: 0, at: 0, after };
        let mut doc = HorizonsDoc::default();
        assert_eq!(doc.of(&rule(1)), None);
        assert_eq!(doc.advance(&rule(1), Horizon(5)), Some(Horizon(5)));
        assert_eq!(doc.advance(&rule(1), Horizon(4)), None);
        assert_eq!(doc.advance(&rule(2), Horizon(4)), Some(Horizon(4)));
        assert_eq!(doc.advance(&rule(1), Horizon(7)), Some(Horizon(7)));
        assert_eq!((doc.of(&rule(1)), doc.of(&rule(2))), (Some(Horizon(7)), Some(Horizon(4))));
        assert_eq!(doc.horizons.len(), 2);
    }
}
