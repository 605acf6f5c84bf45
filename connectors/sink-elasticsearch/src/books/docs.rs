//! The documents of the books.

use foldline_api::binding::Binding;
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Beginning, DesiredState, StoredDecision};
use serde::{Deserialize, Serialize};

use crate::adopt::SealDoc;

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
    /// The same that the next generation does not repeat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) forgotten: Vec<(i64, i64)>,
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
