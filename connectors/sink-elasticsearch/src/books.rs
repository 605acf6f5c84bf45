//! The metadata index: whose target it is, which generation is live, and where each partition stands.
//!
//! Elasticsearch has no locks. Every change here is a compare-and-set on the sequence number that was
//! read; whoever loses reads again. Everything is read by id, so nothing waits for a refresh.

mod docs;

use std::collections::HashMap;
use std::sync::Arc;

use elasticsearch::http::Method;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::Version;
use foldline_api::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::bulk;
use crate::client::{Client, Document};
use crate::error::{Failure, Fault};
pub(crate) use docs::{
    BeforeDoc, BeginningDoc, DecisionDoc, DesiredDoc, NextDoc, OldDoc, PositionDoc, TargetDoc,
    VerdictDoc, add_beginnings,
};

/// The alias that everything here goes through: a write to it cannot create an index by mistake.
pub(crate) const ALIAS: &str = "foldline-books";
/// The index behind it.
const INDEX: &str = "foldline-books-1";
/// How often a partition's place is read again because another task changed it.
pub(crate) const ATTEMPTS: u32 = 20;
/// Documents of one read.
pub(crate) const READ_MAX: usize = 500;

/// A value as read, with the version that the next write of it must find.
#[derive(Clone, Debug)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) version: Version,
}

/// The books of one target.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    pub(crate) client: Arc<Client>,
    pub(crate) target: String,
}

impl Books {
    pub(crate) fn new(client: Arc<Client>, target: &str) -> Self {
        Books { client, target: target.to_owned() }
    }

    /// Whether the metadata index has been made.
    pub(crate) async fn exist(&self) -> Result<bool> {
        let reply = self.client.json(Method::Get, &format!("/_alias/{ALIAS}"), &[], None).await?;
        if reply.status == 404 {
            return Ok(false);
        }
        reply.read::<serde_json::Value>("looking for the metadata index").map(|_| true)
    }

    /// Creates the metadata index if it is missing.
    pub(crate) async fn ensure(&self) -> Result<()> {
        if self.exist().await? {
            return Ok(());
        }
        let body = json!({
            "settings": {
                "index.hidden": true,
                "index.number_of_shards": 1,
                "index.auto_expand_replicas": "0-1",
            },
            "mappings": { "dynamic": false, "properties": {
                "target": { "type": "keyword" },
                "topic": { "type": "keyword" },
                "partition": { "type": "integer" },
                "offset": { "type": "long" },
            } },
            "aliases": { ALIAS: { "is_hidden": true } },
        });
        let path = format!("/{INDEX}");
        match self.client.json(Method::Put, &path, &[], Some(&body)).await?.success() {
            Ok(_) => Ok(()),
            // Another worker was faster.
            Err(failure) if failure.cause.kind == "resource_already_exists_exception" => Ok(()),
            Err(failure) => Err(failure.error("creating the metadata index")),
        }
    }

    /// The target's record.
    pub(crate) async fn target(&self) -> Result<Option<Versioned<TargetDoc>>> {
        Ok(self.read(&[self.target_id()]).await?.pop().flatten())
    }

    /// Writes the target's record, if it is still at `version`; false where it is not.
    pub(crate) async fn put_target(&self, doc: &TargetDoc, version: Version) -> Result<bool> {
        let item = bulk::write(&self.target_id(), version, &text(doc)?);
        Ok(self.put(&[item]).await?.pop().flatten().is_some())
    }

    /// The places of `partitions` in a generation, in their order.
    pub(crate) async fn positions(
        &self,
        generation: u64,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Versioned<PositionDoc>>>> {
        let ids: Vec<String> = partitions.iter().map(|p| self.position_id(generation, p)).collect();
        self.read(&ids).await
    }

    /// Writes places, each if it is still at its version: the new versions, none where it was not.
    pub(crate) async fn put_positions(
        &self,
        docs: &[Versioned<PositionDoc>],
    ) -> Result<Vec<Option<Version>>> {
        let mut items = Vec::with_capacity(docs.len());
        for Versioned { value, version } in docs {
            let partition = TopicPartition::new(value.topic.as_str(), value.partition);
            let id = self.position_id(value.generation, &partition);
            items.push(bulk::write(&id, *version, &text(value)?));
        }
        self.put(&items).await
    }

    /// Raises the epochs of `partitions`; what stands afterwards.
    pub(crate) async fn raise(
        &self,
        target: &TargetDoc,
        generation: u64,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Versioned<PositionDoc>>> {
        let mut done = HashMap::new();
        let mut open = partitions.to_vec();
        for _ in 0..ATTEMPTS {
            let mut next = Vec::with_capacity(open.len());
            for (partition, place) in open.iter().zip(self.positions(generation, &open).await?) {
                let beginning = target.beginning(partition).map_or(0, |b| b.position);
                let mut place = place.unwrap_or_else(|| Versioned {
                    value: self.fresh(generation, partition, Position(beginning)),
                    version: Version::Absent,
                });
                place.value.epoch += 1;
                next.push(place);
            }
            let versions = self.put_positions(&next).await?;
            let mut lost = Vec::new();
            for ((partition, mut place), version) in open.into_iter().zip(next).zip(versions) {
                match version {
                    Some(version) => {
                        place.version = version;
                        done.insert(partition, place);
                    }
                    None => lost.push(partition),
                }
            }
            open = lost;
            if open.is_empty() {
                return Ok(done);
            }
        }
        Err(Error::retriable("other tasks keep taking the same partitions"))
    }

    /// Removes the places of a generation whose index is gone: who still holds one finds it at another version.
    pub(crate) async fn forget(
        &self,
        generation: u64,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        let places = self.positions(generation, partitions).await?;
        self.forget_parked_in(generation, &places).await?;
        self.forget_verdicts(generation, partitions).await?;
        let stands = partitions.iter().zip(places).filter_map(|(partition, place)| {
            let id = self.position_id(generation, partition);
            Some(bulk::delete(&id, place?.version))
        });
        self.put(&stands.collect::<Vec<_>>()).await.map(drop)
    }

    /// Creates the places of `beginnings` that do not exist yet.
    pub(crate) async fn seed(&self, generation: u64, beginnings: &[BeginningDoc]) -> Result<()> {
        let docs: Vec<_> = beginnings
            .iter()
            .map(|b| Versioned {
                value: self.fresh(generation, &b.topic_partition(), Position(b.position)),
                version: Version::Absent,
            })
            .collect();
        self.put_positions(&docs).await?;
        Ok(())
    }

    /// Removes the places of a generation that is gone.
    pub(crate) async fn drop_positions(
        &self,
        generation: u64,
        partitions: &[TopicPartition],
    ) -> Result<()> {
        let places = self.positions(generation, partitions).await?;
        self.forget_parked_in(generation, &places).await?;
        self.forget_verdicts(generation, partitions).await?;
        let stand = partitions.iter().zip(places).filter_map(|(p, place)| Some((p, place?)));
        let items: Vec<String> = stand
            .map(|(p, place)| bulk::delete(&self.position_id(generation, p), place.version))
            .collect();
        // One that moved meanwhile is a late task's: it stays, and nobody reads it.
        self.client.bulk_items(ALIAS, &items).await.map(drop)
    }

    /// A partition's place before any task took it.
    pub(crate) fn fresh(
        &self,
        generation: u64,
        partition: &TopicPartition,
        position: Position,
    ) -> PositionDoc {
        PositionDoc {
            target: self.target.clone(),
            generation,
            topic: partition.topic.to_string(),
            partition: partition.partition,
            position: position.0,
            epoch: 0,
            verdicts: Vec::new(),
            decisions: Vec::new(),
            parked: Vec::new(),
            holes: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    /// Makes what was kept visible to [`Books::verdicts`].
    pub(crate) async fn refresh(&self) -> Result<()> {
        self.client.refresh(ALIAS, "refreshing the metadata index").await
    }

    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        ids: &[String],
    ) -> Result<Vec<Option<Versioned<T>>>> {
        let docs = self.client.mget(ALIAS, ids, true, READ_MAX).await?;
        docs.into_iter().map(versioned).collect()
    }

    pub(crate) async fn put(&self, items: &[String]) -> Result<Vec<Option<Version>>> {
        let outcomes = self.client.bulk_items(ALIAS, items).await?;
        let version = |outcome: Result<Version, Failure>| match outcome {
            Ok(version) => Ok(Some(version)),
            Err(failure) if failure.fault() == Fault::Conflict => Ok(None),
            Err(failure) => Err(failure.error("writing the metadata index")),
        };
        outcomes.into_iter().map(version).collect()
    }

    pub(crate) fn target_id(&self) -> String {
        format!("target:{}", self.target)
    }

    // Unambiguous: neither a target nor the numbers can hold a colon.
    pub(crate) fn position_id(&self, generation: u64, partition: &TopicPartition) -> String {
        let TopicPartition { topic, partition } = partition;
        format!("position:{}:{generation}:{topic}:{partition}", self.target)
    }
}

pub(crate) fn text<T: Serialize>(doc: &T) -> Result<String> {
    serde_json::to_string(doc)
        .map_err(|error| Error::config("the books cannot be written").with_source(error))
}

fn versioned<T: DeserializeOwned>(doc: Document) -> Result<Option<Versioned<T>>> {
    let Some(source) = doc.source else { return Ok(None) };
    let value = serde_json::from_str(source.get()).map_err(|error| {
        Error::config(format!(
            "{ALIAS} holds what this version of Foldline cannot read: run the version that wrote it, or \
             a newer one"
        ))
        .with_source(error)
    })?;
    Ok(Some(Versioned { value, version: doc.version }))
}
