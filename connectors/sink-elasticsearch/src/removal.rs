//! A target that goes for good, step by step: who is cut off leaves the record, and the next one carries on.

use std::sync::Arc;

use foldline_api::binding::check_owner;
use foldline_api::record::TopicPartition;
use foldline_api::removal::{Keep, Owned, Removed, generations};
use foldline_api::{Error, Result};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use crate::books::{ALIAS, ATTEMPTS, BeginningDoc, Books, TargetDoc, Versioned};
use crate::bulk;
use crate::client::Client;
use crate::config::ElasticsearchConfig;
use crate::search::{Hit, Page};
use crate::survey::Index;
use crate::target::{ElasticsearchTarget, contended};

/// Documents of one page.
const PAGE: usize = 1_000;

impl ElasticsearchTarget {
    /// Fences the tasks, drops the indexes, then the documents of the books, the record last.
    pub(crate) async fn remove_all(&self, keep: Keep) -> Result<Removed> {
        let mut removed = Removed::default();
        if !self.books.exist().await? {
            return Ok(removed);
        }
        let Some(stored) = self.books.target().await? else { return Ok(removed) };
        check_owner(&stored.value.binding, &self.spec)?;
        self.fence(&stored.value).await?;
        self.drop_indexes(&stored.value, keep, &mut removed).await?;
        self.books.follow_none().await?;
        self.books.forget_all().await?;
        // A worker that opens it now makes it anew: its record is another one.
        self.books.drop_target(&stored).await?;
        Ok(removed)
    }

    /// No task that runs yet moves a position any more.
    async fn fence(&self, doc: &TargetDoc) -> Result<()> {
        let partitions: Vec<TopicPartition> =
            doc.beginnings.iter().map(BeginningDoc::topic_partition).collect();
        let beside = doc.next.iter().map(|next| next.generation);
        for generation in beside.chain([doc.binding.generation]) {
            self.books.raise(doc, generation, &partitions).await?;
        }
        Ok(())
    }

    async fn drop_indexes(&self, doc: &TargetDoc, keep: Keep, removed: &mut Removed) -> Result<()> {
        let survey = self.cluster.survey().await?;
        let mut known = generations(Some(&doc.record()), &self.spec, keep)?;
        // What is being dropped already, or was cancelled.
        let cancelled = doc.next.iter().filter(|next| next.phase().is_none());
        let going = doc.dropping.iter().map(|number| (*number, String::new()));
        known.extend(cancelled.map(|next| (next.generation, next.physical.clone())).chain(going));
        known.sort();
        known.dedup_by_key(|(number, _)| *number);
        for (number, physical) in known {
            let (Some(index), name) = (survey.generations.get(&number), self.index(number)) else {
                continue;
            };
            if is_ours(index, &physical) {
                self.cluster.drop_index(&name).await?;
                removed.dropped.push(name);
            } else {
                removed.strangers.push(name);
            }
        }
        Ok(())
    }
}

/// Whether an index is the one that the books mean; of one whose id they do not know yet its own mapping tells that Foldline
/// made it.
fn is_ours(index: &Index, physical: &str) -> bool {
    if physical.is_empty() { index.build().is_some() } else { index.uuid() == physical }
}

impl Books {
    /// Deletes all documents of the target but its record.
    async fn forget_all(&self) -> Result<()> {
        let search = json!({
            "size": PAGE,
            "seq_no_primary_term": true,
            "track_total_hits": false,
            "_source": false,
            "sort": [{ "_seq_no": "asc" }],
            "query": { "bool": {
                // Some are of a generation: no index has a `#` in its name.
                "should": [
                    { "term": { "target": self.target } },
                    { "prefix": { "target": format!("{}#", self.target) } },
                ],
                "minimum_should_match": 1,
                "must_not": [{ "ids": { "values": [self.target_id()] } }],
            } },
        });
        // What moved meanwhile is found again.
        let mut in_vain = 0;
        while in_vain < ATTEMPTS {
            self.refresh().await?;
            let hits = page(&self.client, &search).await?;
            if hits.is_empty() {
                return Ok(());
            }
            let delete = |hit: &Found| bulk::delete(&hit.id, hit.version());
            let items: Vec<String> = hits.iter().map(delete).collect();
            let deleted = self.put(&items).await?.iter().any(Option::is_some);
            in_vain = if deleted { 0 } else { in_vain + 1 };
        }
        Err(contended())
    }

    /// Deletes the target's record, if it still is what was read.
    async fn drop_target(&self, stored: &Versioned<TargetDoc>) -> Result<()> {
        let item = bulk::delete(&self.target_id(), stored.version);
        match self.put(&[item]).await?.pop().flatten() {
            Some(_) => Ok(()),
            None => Err(contended()),
        }
    }
}

/// A document whose source was asked for, or was not.
type Found = Hit<Option<Box<RawValue>>>;

async fn page(client: &Client, search: &Json) -> Result<Vec<Found>> {
    let path = format!("/{ALIAS}/_search");
    let page: Page<_> = client.search(&path, search, "reading the metadata index").await?;
    Ok(page.into_hits())
}

/// The targets of a connector that the metadata index of the cluster knows. Who owns one is not indexed: all records are read.
pub(crate) async fn owned(config: &ElasticsearchConfig, connector: &str) -> Result<Vec<Owned>> {
    let client = Arc::new(Client::new(config)?);
    let books = Books::new(Arc::clone(&client), "");
    if !books.exist().await? {
        return Ok(Vec::new());
    }
    books.refresh().await?;
    let mut search = json!({
        "size": PAGE,
        "seq_no_primary_term": true,
        "track_total_hits": false,
        "query": { "bool": { "must_not": [{ "exists": { "field": "topic" } }] } },
        "sort": [{ "_seq_no": "asc" }],
    });
    let mut owned = Vec::new();
    loop {
        let hits = page(&client, &search).await?;
        let Some(last) = hits.last().map(|hit| hit.seq_no) else { break };
        for hit in hits.iter().filter(|hit| hit.id.starts_with("target:")) {
            let source = hit.source.as_ref().map_or("null", |source| source.get());
            let doc: TargetDoc = serde_json::from_str(source).map_err(|error| {
                Error::config(format!("{ALIAS} holds no record under {:?}", hit.id))
                    .with_source(error)
            })?;
            if doc.binding.connector == connector {
                owned.push(Owned::new(doc.target, doc.binding));
            }
        }
        if let Some(search) = search.as_object_mut() {
            search.insert("search_after".to_owned(), json!([last]));
        }
    }
    owned.sort();
    Ok(owned)
}
