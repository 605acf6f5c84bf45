//! Tombstones, removed for good once nothing can need them.
//!
//! A plain search and guarded deletes: `_delete_by_query` would neither look at the markers, which
//! are not indexed, nor exist in every build of Elasticsearch.

use std::time::Duration;

use foldline_api::Result;
use foldline_api::model::Model;
use foldline_api::sink::{Marks, StoredPosition};
use serde_json::json;
use serde_json::value::RawValue;

use crate::bulk;
use crate::client::Client;
use crate::document;
use crate::search::Page;
use crate::writer::now_millis;

/// Tombstones of one page.
const PURGE_PAGE: usize = 1_000;

/// Removes the tombstones of an index that are older than `retention` and that the positions have
/// passed, each if it is still what was read.
pub(crate) async fn purge(
    client: &Client,
    alias: &str,
    positions: &[StoredPosition],
    retention: Duration,
) -> Result<u64> {
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let before = now_millis().saturating_sub(retention);
    let meta = document::META;
    let mut after: Option<Vec<serde_json::Value>> = None;
    let no_columns = Model { columns: Vec::new(), key: Vec::new(), indexes: Vec::new() };
    let mut removed = 0;
    loop {
        let mut search = json!({
            "size": PURGE_PAGE,
            "seq_no_primary_term": true,
            "track_total_hits": false,
            "query": { "bool": { "filter": [
                { "term": { format!("{meta}.deleted"): true } },
                { "range": { format!("{meta}.at"): { "lte": before } } },
            ] } },
            "sort": [{ format!("{meta}.at"): "asc" }, { "_seq_no": "asc" }],
        });
        if let (Some(after), Some(search)) = (&after, search.as_object_mut()) {
            search.insert("search_after".to_owned(), json!(after));
        }
        let path = format!("/{alias}/_search");
        let page: Page<Box<RawValue>> =
            client.search(&path, &search, "looking for tombstones").await?;
        let hits = page.into_hits();
        let Some(last) = hits.last() else { return Ok(removed) };
        after = Some(last.sort.clone());
        let mut items = Vec::new();
        for hit in &hits {
            let (_, marks) = document::decode(&no_columns, hit.source.get().as_bytes())?;
            if is_passed(&marks, positions) {
                items.push(bulk::delete(&hit.id, hit.version()));
            }
        }
        let outcomes = client.bulk_items(alias, &items).await?;
        removed += outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
    }
}

/// Whether no event at or before the marks can be read again.
fn is_passed(marks: &Marks, positions: &[StoredPosition]) -> bool {
    marks.iter().all(|mark| {
        let stored = positions.iter().find(|stored| stored.partition == mark.partition);
        stored.is_some_and(|stored| stored.position >= mark.position)
    })
}

#[cfg(test)]
mod tests {
    use foldline_api::record::{Position, TopicPartition};
    use foldline_api::sink::Mark;

    use super::*;

    #[test]
    fn tombstones_wait_for_their_positions() {
        let mark = |p: i64| -> Marks {
            std::iter::once(Mark { partition: TopicPartition::new("t", 0), position: Position(p) })
                .collect()
        };
        let stored = |p: i64| StoredPosition {
            partition: TopicPartition::new("t", 0),
            topic_id: None,
            beginning: Position(0),
            position: Position(p),
            epoch: 1,
        };
        assert!(is_passed(&mark(5), &[stored(5)]));
        assert!(!is_passed(&mark(6), &[stored(5)]));
        assert!(!is_passed(&mark(5), &[]));
    }
}
