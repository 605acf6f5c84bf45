//! An index that was restored from a snapshot together with the metadata index is taken over.
//!
//! A snapshot is of no single moment: each shard is copied at its own. Whether rows and positions belong together is
//! therefore told by a seal that a stopped connector leaves in its record: where the positions stood, and then the highest
//! sequence number of each shard. A flush writes its documents before it moves its positions, so an index with just these
//! numbers has every document of the sealed positions, and none that was written later. Restored shards keep the
//! numbers of their operations; what was copied too early, or written after the seal, has others.

use std::collections::BTreeMap;

use elasticsearch::http::Method;
use foldline_api::lifecycle::{Change, Command, Facts, LogNow, Outcome, transition};
use foldline_api::sink::{Adopted, DesiredState, StoredPosition};
use foldline_api::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::books::{TargetDoc, Versioned};
use crate::survey::Cluster;
use crate::target::{ATTEMPTS, ElasticsearchTarget, contended};

/// What a stopped connector left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealDoc {
    generation: u64,
    /// Topic, partition and position, in their order.
    positions: Vec<(String, i32, i64)>,
    /// The highest sequence number of each shard, by its number, read after the positions.
    shards: BTreeMap<String, i64>,
}

/// Positions as a seal has them.
fn sealed(positions: &[StoredPosition]) -> Vec<(String, i32, i64)> {
    let place = |stored: &StoredPosition| {
        let partition = &stored.partition;
        (partition.topic.to_string(), partition.partition, stored.position.0)
    };
    let mut all: Vec<_> = positions.iter().map(place).collect();
    all.sort();
    all
}

impl SealDoc {
    /// Why rows and positions need not belong together.
    fn broken(
        &self,
        generation: u64,
        positions: &[StoredPosition],
        shards: &BTreeMap<String, i64>,
    ) -> Option<&str> {
        if self.generation != generation || self.positions != sealed(positions) {
            return Some("its positions have moved since the connector was stopped last");
        }
        (self.shards != *shards).then_some(
            "its documents are not those that were there when the connector was stopped last: the snapshot was begun \
             before that, or someone wrote to the index since",
        )
    }
}

impl Cluster {
    /// The highest sequence number of each of an index's shards, by the shard's number.
    async fn sequence_numbers(&self, index: &str) -> Result<BTreeMap<String, i64>> {
        let doing = "asking for sequence numbers";
        let path = format!("/{index}/_stats/indexing");
        let query = [("level", "shards")];
        let stats: Json = self.client.json(Method::Get, &path, &query, None).await?.read(doing)?;
        let shards = stats.pointer(&format!("/indices/{index}/shards")).and_then(Json::as_object);
        let mut numbers = BTreeMap::new();
        for (shard, copies) in shards.into_iter().flatten() {
            let primary =
                |copy: &&Json| copy.pointer("/routing/primary") == Some(&Json::Bool(true));
            let primary = copies.as_array().into_iter().flatten().find(primary);
            let number = primary.and_then(|copy| copy.pointer("/seq_no/max_seq_no")?.as_i64());
            numbers.extend(number.map(|number| (shard.clone(), number)));
        }
        let all = stats.pointer("/_shards/failed").and_then(Json::as_u64) == Some(0);
        if !all || numbers.is_empty() || numbers.len() != shards.map_or(0, serde_json::Map::len) {
            return Err(Error::retriable(format!("not all shards of {index:?} answered")));
        }
        Ok(numbers)
    }
}

impl ElasticsearchTarget {
    /// Seals what the connector leaves, if it is stopped.
    pub(crate) async fn seal(&self) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let stored = self.stored().await?;
            let doc = &stored.value;
            if !doc.ready || DesiredState::from(doc.desired) != DesiredState::Stopped {
                return Ok(());
            }
            let generation = doc.binding.generation;
            let positions = sealed(&self.stored_positions(doc).await?);
            let stands = self.cluster.index(&self.index(generation)).await?;
            if stands.is_none_or(|index| index.uuid() != doc.binding.physical) {
                // Nothing was left of what the books mean.
                return Ok(());
            }
            let shards = self.cluster.sequence_numbers(&self.index(generation)).await?;
            let seal = Some(SealDoc { generation, positions, shards });
            if doc.seal == seal {
                return Ok(());
            }
            let next = TargetDoc { seal, ..doc.clone() };
            if self.books.put_target(&next, stored.version).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    pub(crate) async fn take_over(&self, log: &LogNow) -> Result<Adopted> {
        for _ in 0..ATTEMPTS {
            let mut facts = Facts { log: log.clone(), ..Facts::default() };
            // Books that are not there are not made: a restore would find its place taken.
            let stored = match self.books.exist().await? {
                true => self.books.target().await?,
                false => None,
            };
            let Some(stored) = stored else {
                transition(None, &self.spec, &facts, Command::Adopt)?;
                continue;
            };
            let copied = self.look_at_copy(&stored.value, &mut facts).await?;
            let Outcome::Changes(change) = self.decide(&stored.value, &facts, Command::Adopt)?
            else {
                continue;
            };
            let binding = &stored.value.binding;
            let adopted = Adopted::of(&change, facts.found.as_ref(), &binding.physical);
            if !copied {
                let partitions: Vec<_> =
                    facts.positions.iter().map(|stored| stored.partition.clone()).collect();
                self.books.raise(&stored.value, binding.generation, &partitions).await?;
                return Ok(adopted);
            }
            if self.books.put_target(&self.taken(&stored, &change).await?, stored.version).await? {
                self.settled().await?;
                return Ok(adopted);
            }
        }
        Err(contended())
    }

    /// Looks at what stands there: whether it is a copy.
    async fn look_at_copy(&self, doc: &TargetDoc, facts: &mut Facts) -> Result<bool> {
        let survey = self.cluster.survey().await?;
        self.cluster.check_name(&survey)?;
        let generation = doc.binding.generation;
        facts.found = self.find(Some(doc), &survey).await?;
        facts.positions = self.stored_positions(doc).await?;
        let physical = &doc.binding.physical;
        if facts.found.as_ref().is_none_or(|found| found.physical == *physical) {
            let beside = doc.record().beside;
            facts.copies = beside.into_iter().map(|it| (it.number, it.physical)).collect();
            return Ok(false);
        }
        // Blocked since it was live last, a kept one is of one moment. What was being built is not.
        let kept = doc.old.iter().map(|old| old.generation);
        let uuid = |of: u64| Some((of, survey.generations.get(&of)?.uuid().to_owned()));
        facts.copies = kept.filter_map(uuid).collect();
        let shards = self.cluster.sequence_numbers(&self.index(generation)).await?;
        let broken = match &doc.seal {
            Some(seal) => seal.broken(generation, &facts.positions, &shards),
            None => Some("its connector was not stopped when the snapshot was made"),
        };
        facts.torn = broken.map(str::to_owned);
        Ok(true)
    }

    /// The record with the copies in it; whoever reads it raises the epochs and sets the aliases.
    async fn taken(&self, stored: &Versioned<TargetDoc>, change: &Change) -> Result<TargetDoc> {
        let mut next = stored.value.after(change);
        for old in &mut next.old {
            let copy = change.record.beside.iter().find(|beside| beside.number == old.generation);
            old.physical = copy.map_or_else(String::new, |copy| copy.physical.clone());
        }
        let gone = |of: u64| next.old.iter().all(|old| old.generation != of);
        for old in stored.value.old.iter().filter(|old| gone(old.generation)) {
            let partitions: Vec<_> = old.beginnings.iter().map(|b| b.topic_partition()).collect();
            self.books.drop_positions(old.generation, &partitions).await?;
        }
        (next.ready, next.swapped) = (false, true);
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::record::{Position, TopicPartition};

    use super::*;

    fn stored(position: i64) -> StoredPosition {
        StoredPosition {
            partition: TopicPartition::new("t", 0),
            topic_id: None,
            beginning: Position(0),
            position: Position(position),
            epoch: 1,
        }
    }

    #[test]
    fn a_seal_holds_for_just_the_documents_and_positions_that_it_saw() {
        let shards = |number: i64| BTreeMap::from([("0".to_owned(), 4), ("1".to_owned(), number)]);
        let seal = SealDoc { generation: 2, positions: sealed(&[stored(7)]), shards: shards(9) };
        assert_eq!(seal.broken(2, &[stored(7)], &shards(9)), None);
        for (generation, position, number) in [(3, 7, 9), (2, 8, 9), (2, 7, 8), (2, 7, 10)] {
            let broken = seal.broken(generation, &[stored(position)], &shards(number));
            assert!(broken.is_some(), "{generation} {position} {number}");
        }
    }
}
