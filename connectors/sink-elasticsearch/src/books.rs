//! The metadata index: whose target it is, which generation is live, and where each partition stands.
//!
//! Elasticsearch has no locks. Every change here is a compare-and-set on the sequence number that was
//! read; whoever loses reads again. Everything is read by id, so nothing waits for a refresh.

use std::collections::HashMap;
use std::sync::Arc;

use elasticsearch::http::Method;
use foldline_api::binding::Binding;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, DesiredState, StoredDecision, Version};
use foldline_api::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::adopt::SealDoc;
use crate::bulk;
use crate::client::{Client, Document};
use crate::error::{Failure, Fault};

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

/// One target's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetDoc {
    pub(crate) target: String,
    /// Whose it is. `physical` is empty until the generation's index exists.
    pub(crate) binding: Binding,
    /// What the index's `_meta` must say to be the one that was meant; empty for an adopted index.
    pub(crate) build: String,
    /// Whether index and aliases are as this record says. Until then, any worker makes them so.
    pub(crate) ready: bool,
    /// Where the fold begins, for every partition known.
    pub(crate) beginnings: Vec<BeginningDoc>,
    /// Older generations whose indexes are still to be dropped.
    pub(crate) dropping: Vec<u64>,
    /// What the operator wants.
    pub(crate) desired: DesiredDoc,
    /// The generation that is being built.
    #[serde(default)]
    pub(crate) next: Option<NextDoc>,
    /// Those kept for a rollback, the newest last. Their indexes are blocked.
    #[serde(default)]
    pub(crate) old: Vec<OldDoc>,
    /// The generation whose verdicts the live one still has to take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<BeforeDoc>,
    /// Whether the live generation was made so by a swap: its index may be blocked, and the tasks that
    /// folded it before are still to be fenced.
    #[serde(default)]
    pub(crate) swapped: bool,
    /// What the connector left when it was stopped last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seal: Option<SealDoc>,
}

/// The generation that a rebuild in place comes after, as its topics were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BeforeDoc {
    pub(crate) generation: u64,
    pub(crate) beginnings: Vec<BeginningDoc>,
}

/// A generation that is being built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NextDoc {
    pub(crate) generation: u64,
    /// What the index's `_meta` must say.
    pub(crate) tag: String,
    /// The index's UUID; empty until it exists.
    pub(crate) physical: String,
    pub(crate) fingerprint: String,
    pub(crate) projection: serde_json::Value,
    /// A phase's name, or `cancelled`.
    pub(crate) phase: String,
    /// The settings that the load is spared, as they were.
    pub(crate) restore: serde_json::Value,
    pub(crate) beginnings: Vec<BeginningDoc>,
    /// Topic, partition and where it ended when the build began.
    pub(crate) goals: Vec<(String, i32, i64)>,
}

/// A generation that was live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OldDoc {
    pub(crate) generation: u64,
    pub(crate) tag: String,
    pub(crate) physical: String,
    pub(crate) fingerprint: String,
    pub(crate) projection: serde_json::Value,
    pub(crate) beginnings: Vec<BeginningDoc>,
}

impl OldDoc {
    /// The generation that is live in `doc`.
    pub(crate) fn of(doc: &TargetDoc) -> Self {
        OldDoc {
            generation: doc.binding.generation,
            tag: doc.build.clone(),
            physical: doc.binding.physical.clone(),
            fingerprint: doc.binding.fingerprint.clone(),
            projection: doc.binding.projection.clone(),
            beginnings: doc.beginnings.clone(),
        }
    }
}

/// [`Beginning`] as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BeginningDoc {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) topic_id: Option<String>,
    pub(crate) position: i64,
}

/// [`DesiredState`] as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DesiredDoc {
    #[default]
    Running,
    Paused,
    Stopped,
}

/// One partition's place in one generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PositionDoc {
    pub(crate) target: String,
    pub(crate) generation: u64,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) position: i64,
    pub(crate) epoch: i64,
    /// Verdicts that came with the last steps: they stand here first, since only this write is fenced.
    pub(crate) verdicts: Vec<VerdictDoc>,
    /// Decisions of a flush that is not finished, and of parked events that some of their rows may hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) decisions: Vec<DecisionDoc>,
    /// The offsets of the parked events. This decides that they are; their documents say what they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parked: Vec<i64>,
    /// Stretches that were left out by hand: the first offset, and the one behind the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) holes: Vec<(i64, i64)>,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct VerdictDoc {
    pub(crate) offset: i64,
    pub(crate) reason: String,
    /// See [`foldline_api::sink::StoredVerdict::definition`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) definition: Option<String>,
    /// The topic's id when it was refused; none from before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topic_id: Option<String>,
    /// Of a bad record: only the store could tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) by_store: bool,
    /// Of a bad record: its letter, while that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) letter: Option<String>,
    /// It is the generation's before, and still to be decided. Of a bad record: its letter waits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) open: bool,
}

/// [`StoredDecision`] as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DecisionDoc {
    pub(crate) offset: i64,
    pub(crate) refused: Vec<u32>,
    pub(crate) bad: Option<String>,
}

impl From<&StoredDecision> for DecisionDoc {
    fn from(decision: &StoredDecision) -> Self {
        let StoredDecision { offset, refused, bad, .. } = decision;
        DecisionDoc { offset: *offset, refused: refused.clone(), bad: bad.clone() }
    }
}

impl From<&Beginning> for BeginningDoc {
    fn from(beginning: &Beginning) -> Self {
        BeginningDoc {
            topic: beginning.partition.topic.to_string(),
            partition: beginning.partition.partition,
            topic_id: beginning.topic_id.clone(),
            position: beginning.position.0,
        }
    }
}

impl BeginningDoc {
    pub(crate) fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic.as_str(), self.partition)
    }
}

impl From<DesiredState> for DesiredDoc {
    fn from(desired: DesiredState) -> Self {
        match desired {
            DesiredState::Running => DesiredDoc::Running,
            DesiredState::Paused => DesiredDoc::Paused,
            DesiredState::Stopped => DesiredDoc::Stopped,
        }
    }
}

impl From<DesiredDoc> for DesiredState {
    fn from(desired: DesiredDoc) -> Self {
        match desired {
            DesiredDoc::Running => DesiredState::Running,
            DesiredDoc::Paused => DesiredState::Paused,
            DesiredDoc::Stopped => DesiredState::Stopped,
        }
    }
}

impl TargetDoc {
    /// Makes a generation the live one; index and aliases are still to follow.
    pub(crate) fn revive(&mut self, other: OldDoc) {
        let binding = &mut self.binding;
        binding.generation = other.generation;
        binding.physical = other.physical;
        binding.fingerprint = other.fingerprint;
        binding.projection = other.projection;
        (self.build, self.beginnings, self.ready) = (other.tag, other.beginnings, false);
    }

    /// The record as it reads for a generation that is being built: with its beginnings.
    pub(crate) fn of_next(mut self) -> Self {
        if let Some(next) = &self.next {
            self.beginnings.clone_from(&next.beginnings);
        }
        self
    }

    pub(crate) fn beginning(&self, partition: &TopicPartition) -> Option<&BeginningDoc> {
        let same =
            |b: &&BeginningDoc| b.partition == partition.partition && *b.topic == *partition.topic;
        self.beginnings.iter().find(same)
    }
}

/// Adds the beginnings of partitions that have none yet; whether there were any.
pub(crate) fn add_beginnings(to: &mut Vec<BeginningDoc>, beginnings: &[Beginning]) -> bool {
    let before = to.len();
    for beginning in beginnings {
        let partition = &beginning.partition;
        let known =
            to.iter().any(|b| b.partition == partition.partition && *b.topic == *partition.topic);
        if !known {
            to.push(BeginningDoc::from(beginning));
        }
    }
    to.len() > before
}

impl PositionDoc {
    pub(crate) fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic.as_str(), self.partition)
    }

    pub(crate) fn decisions(&self, partition: &TopicPartition) -> Vec<StoredDecision> {
        let decision = |d: &DecisionDoc| StoredDecision {
            partition: partition.clone(),
            offset: d.offset,
            refused: d.refused.clone(),
            bad: d.bad.clone(),
        };
        self.decisions.iter().map(decision).collect()
    }
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
        }
    }

    /// Makes what was kept visible to [`Books::verdicts`].
    pub(crate) async fn refresh(&self) -> Result<()> {
        let path = format!("/{ALIAS}/_refresh");
        let reply = self.client.json(Method::Post, &path, &[], None).await?;
        reply.read::<serde_json::Value>("refreshing the metadata index").map(drop)
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

    fn target_id(&self) -> String {
        format!("target:{}", self.target)
    }

    // Unambiguous: neither a target nor the numbers can hold a colon.
    fn position_id(&self, generation: u64, partition: &TopicPartition) -> String {
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
