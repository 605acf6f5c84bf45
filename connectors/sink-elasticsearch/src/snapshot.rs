//! Documents and books: positions first, then a point in time that is opened after a refresh. A
//! document holds what lies before the positions, and may be newer by its own marks.

use std::sync::Arc;

use async_trait::async_trait;
use elasticsearch::http::Method;
use foldline_api::Result;
use foldline_api::model::{Key, Model};
use foldline_api::sink::{Books, Loaded, Snapshot, Version, Writer};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::client::Client;
use crate::document;
use crate::writer::ElasticsearchWriter;

/// How long the cluster keeps the point in time between two pages.
const KEEP: &str = "10m";
/// Documents of one page, at most.
const PAGE_MAX: usize = 2_000;

/// See the module.
pub(crate) struct ElasticsearchSnapshot {
    client: Arc<Client>,
    alias: String,
    model: Arc<Model>,
    books: Books,
    writer: Arc<ElasticsearchWriter>,
    point: Option<Point>,
}

struct Point {
    id: String,
    after: Option<Vec<serde_json::Value>>,
}

#[derive(Deserialize)]
struct Opened {
    id: String,
}

#[derive(Deserialize)]
struct Page {
    pit_id: Option<String>,
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_seq_no")]
    seq_no: u64,
    #[serde(rename = "_primary_term")]
    primary_term: u64,
    #[serde(rename = "_source")]
    source: Box<RawValue>,
    sort: Vec<serde_json::Value>,
}

impl ElasticsearchSnapshot {
    /// `books` were read before this; `alias` leads to their generation's index.
    pub(crate) fn new(
        client: Arc<Client>,
        alias: String,
        model: Arc<Model>,
        books: Books,
        writer: ElasticsearchWriter,
    ) -> Self {
        let writer = Arc::new(writer);
        ElasticsearchSnapshot { client, alias, model, books, writer, point: None }
    }

    async fn open(&self) -> Result<Point> {
        let refresh = format!("/{}/_refresh", self.alias);
        let reply = self.client.json(Method::Post, &refresh, &[], None).await?;
        reply.read::<serde_json::Value>("refreshing the index")?;
        let path = format!("/{}/_pit", self.alias);
        let reply = self.client.json(Method::Post, &path, &[("keep_alive", KEEP)], None).await?;
        let opened: Opened = reply.read("opening a point in time")?;
        Ok(Point { id: opened.id, after: None })
    }
}

impl Drop for ElasticsearchSnapshot {
    fn drop(&mut self) {
        // It would go away by itself, later.
        if let (Some(point), Ok(runtime)) =
            (self.point.take(), tokio::runtime::Handle::try_current())
        {
            let client = Arc::clone(&self.client);
            runtime.spawn(async move {
                let body = json!({ "id": point.id });
                if let Err(error) = client.json(Method::Delete, "/_pit", &[], Some(&body)).await {
                    tracing::debug!(%error, "closing a point in time");
                }
            });
        }
    }
}

#[async_trait]
impl Snapshot for ElasticsearchSnapshot {
    fn books(&self) -> &Books {
        &self.books
    }

    async fn next(&mut self, max: usize) -> Result<Vec<(Key, Loaded)>> {
        let mut point = match self.point.take() {
            Some(point) => point,
            None => self.open().await?,
        };
        let mut out = Vec::new();
        loop {
            let mut search = json!({
                "size": max.clamp(1, PAGE_MAX),
                "seq_no_primary_term": true,
                "track_total_hits": false,
                "query": { "match_all": {} },
                "pit": { "id": point.id, "keep_alive": KEEP },
                "sort": [{ "_shard_doc": "asc" }],
            });
            if let (Some(after), Some(search)) = (&point.after, search.as_object_mut()) {
                search.insert("search_after".to_owned(), json!(after));
            }
            let reply = self.client.json(Method::Post, "/_search", &[], Some(&search)).await?;
            let page: Page = reply.read("reading documents")?;
            point.id = page.pit_id.unwrap_or(point.id);
            let Some(last) = page.hits.hits.last() else { break };
            point.after = Some(last.sort.clone());
            for hit in &page.hits.hits {
                let (row, marks) = document::decode(&self.model, hit.source.get().as_bytes())?;
                let version = Version::At(hit.seq_no, hit.primary_term);
                if let Some(row) = row {
                    let key = self.model.key_of(&row);
                    out.push((key, Loaded { row: Some(row), version, marks }));
                }
            }
            // A page of nothing but tombstones is not the end.
            if !out.is_empty() {
                break;
            }
        }
        self.point = Some(point);
        Ok(out)
    }

    async fn load(&mut self, keys: &[Key]) -> Result<Vec<Loaded>> {
        self.writer.load(keys).await
    }
}
