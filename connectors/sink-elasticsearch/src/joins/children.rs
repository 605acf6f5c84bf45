//! Other targets' documents that one holds as children.
//!
//! They are found by a search, which sees what was durable at the last refresh. A flush does not wait for one: a document keeps
//! the children that it holds, a new one has those that a search finds as it is, and each is noted under its own key, so that it
//! is looked at after a refresh. A note of a child is about the document that holds it and about the one that it names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldline_api::column::scalar_text;
use foldline_api::lookup::{Gather, Joins};
use foldline_api::model::{Key, Row};
use foldline_api::sink::{Flush, Loaded, Version};
use foldline_api::value::Value;
use foldline_api::{Error, Result};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::{Others, READ_BYTES, READ_MAX};
use crate::books::TargetDoc;
use crate::document::{self, META};
use crate::mapping::Names;
use crate::search::{Hit, Page};
use crate::writer::ElasticsearchWriter;

/// Documents of one search, which Elasticsearch takes no more of.
const HITS_MAX: usize = 10_000;
/// Documents whose children are searched for together.
const TOGETHER: usize = 200;

/// For each column of children: the others' documents, by the key of who holds them.
pub(crate) type Children = Vec<HashMap<Key, Vec<Loaded>>>;

/// The children in the columns of a row, and whether there are more than it holds.
pub(super) fn values(joins: &Joins, children: &Children, own: &Key) -> Vec<(Value, bool)> {
    let each = joins.gathers().iter().zip(children);
    each.map(|(gather, by_owner)| {
        let loaded = by_owner.get(own).into_iter().flatten();
        gather.children(loaded.filter_map(|loaded| loaded.row.as_ref()).collect())
    })
    .collect()
}

impl ElasticsearchWriter {
    /// The children of documents, as a search finds them.
    pub(crate) async fn children(
        &self,
        joins: &Joins,
        records: &BTreeMap<String, Option<TargetDoc>>,
        owners: &[Key],
    ) -> Result<Children> {
        let mut out = Children::new();
        for gather in joins.gathers() {
            let mut found: HashMap<Key, Vec<Loaded>> = HashMap::new();
            if let Some(Some(record)) = records.get(&gather.target) {
                for owners in owners.chunks(TOGETHER) {
                    self.gather(gather, record, owners, &mut found).await?;
                }
            }
            out.push(found);
        }
        Ok(out)
    }

    /// Those of a few documents at once; where they are more than one answer holds, of each by itself.
    async fn gather(
        &self,
        gather: &Gather,
        record: &TargetDoc,
        owners: &[Key],
        found: &mut HashMap<Key, Vec<Loaded>>,
    ) -> Result<()> {
        let hits = self.search_children(gather, record, owners).await?;
        let alone = owners.len() == 1;
        let hits = match hits {
            Some(hits) if hits.len() < HITS_MAX || alone => hits,
            Some(_) => {
                for owner in owners {
                    Box::pin(self.gather(gather, record, std::slice::from_ref(owner), found))
                        .await?;
                }
                return Ok(());
            }
            None => return Ok(()),
        };
        for hit in hits {
            let version = hit.version();
            let decoded = document::decode(&gather.model, hit.source.get().as_bytes());
            let (row, marks) = decoded.map_err(|error| unreadable(&error))?;
            let Some(owner) = row.as_ref().and_then(|row| gather.owner(row)) else { continue };
            found.entry(owner).or_default().push(Loaded { row, version, marks });
        }
        Ok(())
    }

    /// None where the index is not there.
    async fn search_children(
        &self,
        gather: &Gather,
        record: &TargetDoc,
        owners: &[Key],
    ) -> Result<Option<Vec<Hit<Box<RawValue>>>>> {
        let index = Names::new(&gather.target).index(record.binding.generation);
        let column = |at: usize| gather.model.columns.get(at).map_or("", |column| &*column.name);
        let keys = owners.iter().filter_map(|key| Some(scalar_text(key.values().first()?)));
        let names = gather.model.columns.iter().map(|column| &*column.name).chain([META]);
        let search = json!({
            "size": HITS_MAX,
            "seq_no_primary_term": true,
            "track_total_hits": false,
            "_source": names.collect::<Vec<_>>(),
            "query": { "bool": {
                "filter": [{ "terms": { column(gather.via): keys.collect::<Vec<_>>() } }],
                "must_not": [{ "term": { format!("{META}.deleted"): true } }],
            } },
            // Of more than fit the first by their keys are held.
            "sort": [{ gather.by(): "asc" }],
        });
        let path = format!("/{index}/_search");
        let doing = "reading children";
        match self.client.search::<Page<Box<RawValue>>>(&path, &search, doing).await {
            Err(error) if error.code() == Some("404 index_not_found_exception") => Ok(None),
            page => Ok(Some(page?.into_hits())),
        }
    }

    /// Makes visible to searches what others wrote that may be held as children.
    pub(crate) async fn refresh_others(
        &self,
        joins: &Joins,
        records: &BTreeMap<String, Option<TargetDoc>>,
    ) -> Result<()> {
        let targets: BTreeSet<&str> = joins.gathers().iter().map(|it| it.target.as_str()).collect();
        for target in targets {
            let Some(Some(record)) = records.get(target) else { continue };
            let index = Names::new(target).index(record.binding.generation);
            match self.client.refresh(&index, "looking for children").await {
                Err(error) if error.code() == Some("404 index_not_found_exception") => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Fills in the children of a flush: what its documents hold, and of new ones what a search finds.
    pub(super) async fn keep_children(
        &self,
        joins: &Joins,
        flush: &mut Flush,
        others: &Others,
    ) -> Result<()> {
        if joins.gathers().is_empty() {
            return Ok(());
        }
        let written = || flush.writes.iter().filter(|write| write.row.is_some());
        let there = written().filter(|write| write.version != Version::Absent);
        let there: Vec<Key> = there.map(|write| write.key.clone()).collect();
        let ids: Vec<String> = there.iter().map(document::id).collect();
        let stored = self.read_some(&ids, usize::MAX).await?;
        let stored: HashMap<Key, Row> =
            there.into_iter().zip(stored).filter_map(|(key, it)| Some((key, it.row?))).collect();
        let new = written().map(|write| &write.key).filter(|key| !stored.contains_key(*key));
        let new: Vec<Key> = new.cloned().collect();
        let found = self.children(joins, &others.records, &new).await?;
        for write in &mut flush.writes {
            let Some(row) = &mut write.row else { continue };
            let mut found = values(joins, &found, &write.key).into_iter();
            for gather in joins.gathers() {
                let held = stored.get(&write.key).map(|row| row.get(gather.column).clone());
                let value = held.or(found.next().map(|(value, _)| value));
                if let Some((place, value)) = row.values_mut().get_mut(gather.column).zip(value) {
                    *place = value;
                }
            }
        }
        Ok(())
    }

    /// The keys of documents here that children of these keys name now.
    pub(super) async fn owners(
        &self,
        gather: &Gather,
        record: Option<&TargetDoc>,
        keys: &[Key],
    ) -> Result<Vec<Key>> {
        let loaded = self.read_keys((&gather.target, &gather.model), record, keys).await?;
        let rows = loaded.into_iter().filter_map(|loaded| loaded.row);
        Ok(rows.filter_map(|row| gather.owner(&row)).collect())
    }

    /// Other targets' documents by their keys, as they are now.
    pub(super) async fn read_keys(
        &self,
        (target, model): (&str, &foldline_api::model::Model),
        record: Option<&TargetDoc>,
        keys: &[Key],
    ) -> Result<Vec<Loaded>> {
        let none = || keys.iter().map(|_| Loaded::absent()).collect();
        let Some(record) = record.filter(|_| !keys.is_empty()) else { return Ok(none()) };
        let index = Names::new(target).index(record.binding.generation);
        let ids: Vec<String> = keys.iter().map(document::id).collect();
        let found = self.client.mget_within(&index, &ids, READ_MAX, READ_BYTES, usize::MAX).await;
        match found {
            // Dropped by hand, or not made yet: it is looked at anew once there is another.
            Err(error) if error.code() == Some("404 index_not_found_exception") => Ok(none()),
            found => found?.iter().map(|found| super::loaded(model, found)).collect(),
        }
    }
}

/// What finds the documents that hold children of these keys.
pub(super) fn holding(
    own: &foldline_api::model::Model,
    gather: &Gather,
    keys: &[String],
) -> Option<Json> {
    let column = own.columns.get(gather.column)?;
    let by = format!("{}.{}", column.name, gather.by());
    Some(json!({ "nested": { "path": &*column.name, "query": { "terms": { by: keys } } } }))
}

pub(super) fn unreadable(error: &Error) -> Error {
    // No record of this target is to blame.
    Error::retriable(format!("a document that is looked up: {}", error.message()))
}
