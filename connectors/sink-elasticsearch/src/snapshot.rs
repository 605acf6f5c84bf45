//! Documents and books: positions first, then a point in time that is opened after a refresh. A
//! document holds what lies before the positions, and may be newer by its own marks. The horizon is read again after each page:
//! what a document is gone by was durable before.

use std::sync::Arc;

use async_trait::async_trait;
use elasticsearch::http::Method;
use foldline_api::Result;
use foldline_api::model::{Key, Model, Row};
use foldline_api::sink::{Books, Loaded, Snapshot};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::client::Client;
use crate::document;
use crate::search::{Hit, Page};
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
    walk: Walk,
}

/// How documents are walked through, page by page.
enum Walk {
    /// Elasticsearch: by its own tiebreaker.
    Shards { after: Option<Vec<serde_json::Value>> },
    /// OpenSearch, whose 2.x knows no `_shard_doc`: by sequence numbers. Those are each shard's own, so a page
    /// begins with the last one's number again, without the documents that were `seen` under it.
    Sequence { last: i64, seen: Vec<String> },
}

#[derive(Deserialize)]
struct Opened {
    #[serde(alias = "pit_id")]
    id: String,
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
        self.client.refresh(&self.alias, "refreshing the index").await?;
        let keep = [("keep_alive", KEEP)];
        let path = format!("/{}/_pit", self.alias);
        let reply = self.client.json(Method::Post, &path, &keep, None).await?;
        if !reply.is_unknown_to_the_server() {
            let opened: Opened = reply.read("opening a point in time")?;
            return Ok(Point { id: opened.id, walk: Walk::Shards { after: None } });
        }
        let path = format!("/{}/_search/point_in_time", self.alias);
        let reply = self.client.json(Method::Post, &path, &keep, None).await?;
        let opened: Opened = reply.read("opening a point in time")?;
        Ok(Point { id: opened.id, walk: Walk::Sequence { last: -1, seen: Vec::new() } })
    }

    /// The next documents, about `max` of them; empty after the last.
    async fn page(&self, point: &mut Point, max: usize) -> Result<Vec<Hit<Box<RawValue>>>> {
        let mut search = json!({
            "seq_no_primary_term": true,
            "track_total_hits": false,
            "query": { "match_all": {} },
            "pit": { "id": point.id, "keep_alive": KEEP },
        });
        let (size, sort, after) = match &point.walk {
            Walk::Shards { after } => (max, "_shard_doc", after.as_ref().map(|after| json!(after))),
            Walk::Sequence { last, seen } => (max + seen.len(), "_seq_no", Some(json!([last - 1]))),
        };
        if let Some(search) = search.as_object_mut() {
            search.insert("size".to_owned(), json!(size));
            search.insert("sort".to_owned(), json!([{ sort: "asc" }]));
            search.extend(after.map(|after| ("search_after".to_owned(), after)));
        }
        let page: Page<Box<RawValue>> =
            self.client.search("/_search", &search, "reading documents").await?;
        if let Some(id) = page.pit_id.clone() {
            point.id = id;
        }
        let mut hits = page.into_hits();
        match &mut point.walk {
            Walk::Shards { after } => {
                *after = hits.last_mut().map(|hit| std::mem::take(&mut hit.sort));
            }
            Walk::Sequence { last, seen } => {
                hits.retain(|hit| !seen.contains(&hit.id));
                for hit in &hits {
                    let number = i64::try_from(hit.seq_no).unwrap_or(i64::MAX);
                    if *last < number {
                        (*last, *seen) = (number, Vec::new());
                    }
                    seen.push(hit.id.clone());
                }
            }
        }
        Ok(hits)
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
                let (path, body) = match point.walk {
                    Walk::Shards { .. } => ("/_pit", json!({ "id": point.id })),
                    Walk::Sequence { .. } => {
                        ("/_search/point_in_time", json!({ "pit_id": [point.id] }))
                    }
                };
                if let Err(error) = client.json(Method::Delete, path, &[], Some(&body)).await {
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
            let hits = self.page(&mut point, max.clamp(1, PAGE_MAX)).await?;
            if hits.is_empty() {
                break;
            }
            for hit in &hits {
                let (row, marks) = document::decode(&self.model, hit.source.get().as_bytes())?;
                let version = hit.version();
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
        self.books.horizon = self.writer.horizon().await?;
        Ok(out)
    }

    async fn load(&mut self, keys: &[Key]) -> Result<Vec<Loaded>> {
        let ids: Vec<String> = keys.iter().map(document::id).collect();
        let rows = self.writer.read_some(&ids, usize::MAX).await?;
        self.books.horizon = self.writer.horizon().await?;
        Ok(rows)
    }

    async fn shown(&mut self, rows: &[Row]) -> Result<Vec<Option<Row>>> {
        self.writer.shown(rows).await
    }
}
