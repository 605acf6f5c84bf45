//! One task's hold on a target: documents first, each guarded by the version it was folded from;
//! positions last, each guarded by epoch and place.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use foldline_api::model::{Key, Model};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{
    Acquired, Advance, Beginning, Check, Flush, Lease, Loaded, Marks, RowWrite, StoredPosition,
    StoredVerdict, TargetSpec, Version, Versions, Writer, Written,
};
use foldline_api::{Error, Result};

use crate::books::{Books, PositionDoc, TargetDoc, VerdictDoc, Versioned};
use crate::bulk::{self, Outcome};
use crate::client::Client;
use crate::document;
use crate::error::{Failure, Fault};
use crate::mapping::Names;
use crate::survey::Cluster;

/// Documents of one multi-get, at most and at least.
const LOAD_MAX: usize = 2_000;
const LOAD_MIN: usize = 20;
/// Bytes that one multi-get's answer should stay below.
const LOAD_BYTES: usize = 8 << 20;
/// How often a partition's place is read again because another task changed it.
const ATTEMPTS: u32 = 20;

/// Writes one generation's index.
#[derive(Debug)]
pub struct ElasticsearchWriter {
    client: Arc<Client>,
    books: Books,
    cluster: Cluster,
    model: Arc<Model>,
    generation: u64,
    fingerprint: String,
    /// Documents are read and written through this; it goes away with the generation or its model.
    alias: String,
    held: Mutex<HashMap<TopicPartition, Versioned<PositionDoc>>>,
    /// Bytes of a document, as the last loads had it.
    document_bytes: AtomicUsize,
}

impl ElasticsearchWriter {
    pub(crate) fn new(
        client: Arc<Client>,
        books: Books,
        spec: &TargetSpec,
        generation: u64,
    ) -> Self {
        let names = Names::new(&spec.target);
        ElasticsearchWriter {
            alias: names.write_alias(generation, &spec.fingerprint),
            cluster: Cluster { client: Arc::clone(&client), names },
            client,
            books,
            model: Arc::clone(&spec.model),
            generation,
            fingerprint: spec.fingerprint.clone(),
            held: Mutex::new(HashMap::new()),
            document_bytes: AtomicUsize::new(512),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<TopicPartition, Versioned<PositionDoc>>> {
        // The map is only ever replaced entry by entry: a panic elsewhere leaves it whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The target's record, if this writer's generation and model are the live ones.
    async fn live(&self) -> Result<Option<Versioned<TargetDoc>>> {
        Ok(self.books.target().await?.filter(|stored| {
            let TargetDoc { ready, binding, .. } = &stored.value;
            *ready
                && binding.generation == self.generation
                && binding.fingerprint == self.fingerprint
        }))
    }

    fn not_live(&self) -> Error {
        Error::fenced(format!(
            "generation {} of {:?} with this projection is no longer the live one",
            self.generation,
            self.cluster.names.alias()
        ))
    }

    /// Records the beginnings of claimed partitions that have none.
    async fn record_beginnings(&self, claims: &[Beginning]) -> Result<TargetDoc> {
        for _ in 0..ATTEMPTS {
            let stored = self.live().await?.ok_or_else(|| self.not_live())?;
            let mut doc = stored.value;
            if !doc.add_beginnings(claims) || self.books.put_target(&doc, stored.version).await? {
                return Ok(doc);
            }
        }
        Err(Error::retriable("other workers keep changing the same target"))
    }

    /// Raises the epochs of `partitions`; what stands afterwards.
    async fn raise(
        &self,
        target: &TargetDoc,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Versioned<PositionDoc>>> {
        let mut done = HashMap::new();
        let mut open = partitions.to_vec();
        for _ in 0..ATTEMPTS {
            let mut next = Vec::with_capacity(open.len());
            for (partition, place) in
                open.iter().zip(self.books.positions(self.generation, &open).await?)
            {
                let beginning = target.beginning(partition).map_or(0, |b| b.position);
                let mut place = place.unwrap_or_else(|| Versioned {
                    value: self.books.fresh(self.generation, partition, Position(beginning)),
                    version: Version::Absent,
                });
                place.value.epoch += 1;
                next.push(place);
            }
            let versions = self.books.put_positions(&next).await?;
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

    /// The places that a flush moves to, if each partition stands where the flush says.
    fn steps(&self, flush: &Flush) -> Option<Vec<Versioned<PositionDoc>>> {
        let held = self.held();
        flush
            .advances
            .iter()
            .map(|advance| step(held.get(&advance.partition)?, advance, flush))
            .collect()
    }

    fn encode(&self, write: &RowWrite, now: i64) -> String {
        // A delete leaves a document even where none was: without it, the late write of a paused task
        // that had not seen the delete would bring the row back.
        let source = match &write.row {
            Some(row) => document::encode(&self.model, row, &write.marks),
            None => document::tombstone(&write.marks, now),
        };
        bulk::write(&document::id(&write.key), write.version, &source)
    }

    /// Why a document's write found no index: the generation or the model is no longer live, or
    /// someone dropped or blocked the index.
    async fn stopped(&self, failure: &Failure) -> Result<Written> {
        if self.live().await?.is_none() || failure.fault() == Fault::Gone {
            return Ok(Written::Fenced);
        }
        Err(Error::retriable(format!(
            "an index of {:?} has index.blocks.write: writing goes on once that is removed",
            self.cluster.names.alias()
        ))
        .with_code("403 cluster_block_exception"))
    }

    async fn checks_hold(&self, checks: &[Check]) -> Result<bool> {
        if checks.is_empty() {
            return Ok(true);
        }
        let ids: Vec<String> = checks.iter().map(|check| document::id(&check.key)).collect();
        let found = self.client.mget(&self.alias, &ids, false, LOAD_MAX).await?;
        Ok(found.iter().zip(checks).all(|(found, check)| found.version == check.version))
    }
}

/// One partition's step, if it stands where `advance` says.
fn step(
    held: &Versioned<PositionDoc>,
    advance: &Advance,
    flush: &Flush,
) -> Option<Versioned<PositionDoc>> {
    if held.value.epoch != advance.epoch || held.value.position != advance.from.0 {
        return None;
    }
    let mut next = held.clone();
    next.value.position = advance.to.0;
    let new = flush.verdicts.iter().filter(|verdict| verdict.partition == advance.partition);
    next.value.verdicts.extend(
        new.map(|verdict| VerdictDoc { offset: verdict.offset, reason: verdict.reason.clone() }),
    );
    next.value.verdicts.sort_by_key(|verdict| verdict.offset);
    next.value.verdicts.dedup_by_key(|verdict| verdict.offset);
    Some(next)
}

/// Takes out of the steps the verdicts that their positions have passed.
fn passed(steps: &mut [Versioned<PositionDoc>]) -> Vec<StoredVerdict> {
    let mut out = Vec::new();
    for Versioned { value, .. } in steps {
        let partition = TopicPartition::new(value.topic.as_str(), value.partition);
        let position = value.position;
        let passed = value.verdicts.iter().filter(|verdict| verdict.offset < position);
        out.extend(passed.map(|verdict| StoredVerdict {
            partition: partition.clone(),
            offset: verdict.offset,
            reason: verdict.reason.clone(),
        }));
        value.verdicts.retain(|verdict| verdict.offset >= position);
    }
    out
}

/// What became of all documents of a flush: their versions, or the failure that decides.
fn judge(outcomes: Vec<Outcome>) -> Result<Vec<Version>, Failure> {
    // The gravest first: without an index nothing else matters, an outage leaves the rest undecided,
    // and a stale document must be folded again before anything about its content is believed.
    let rank = |fault: Fault| match fault {
        Fault::Gone | Fault::Blocked => 0,
        Fault::Retriable => 1,
        Fault::Config => 2,
        Fault::Conflict => 3,
        Fault::Rejected | Fault::TooLarge => 4,
    };
    let mut versions = Vec::with_capacity(outcomes.len());
    let mut worst: Option<Failure> = None;
    for outcome in outcomes {
        match outcome {
            Ok(version) => versions.push(version),
            Err(failure) => {
                let graver = |worst: &Failure| rank(failure.fault()) < rank(worst.fault());
                if worst.as_ref().is_none_or(graver) {
                    worst = Some(failure);
                }
            }
        }
    }
    worst.map_or(Ok(versions), Err)
}

#[async_trait]
impl Writer for ElasticsearchWriter {
    async fn acquire(&self, claims: &[Beginning]) -> Result<Acquired> {
        let target = self.record_beginnings(claims).await?;
        let partitions: Vec<TopicPartition> = claims.iter().map(|c| c.partition.clone()).collect();
        let taken = self.raise(&target, &partitions).await?;
        // Again, now that the epochs are raised: a model that took over before is seen here, and one
        // that takes over later takes the alias away.
        self.live().await?.ok_or_else(|| self.not_live())?;
        let empty = !self.cluster.has_rows(&self.alias).await?;
        let mut acquired = Acquired { empty, ..Acquired::default() };
        for partition in partitions {
            let Some(place) = taken.get(&partition) else { continue };
            acquired.verdicts.extend(place.value.verdicts(&partition));
            acquired.leases.push(Lease {
                epoch: place.value.epoch,
                position: Position(place.value.position),
                partition,
            });
        }
        self.held().extend(taken);
        Ok(acquired)
    }

    async fn load(&self, keys: &[Key]) -> Result<Vec<Loaded>> {
        let ids: Vec<String> = keys.iter().map(document::id).collect();
        let average = self.document_bytes.load(Ordering::Relaxed).max(1);
        let per_request = (LOAD_BYTES / average).clamp(LOAD_MIN, LOAD_MAX);
        let found = self.client.mget(&self.alias, &ids, true, per_request).await?;
        let mut loaded = Vec::with_capacity(found.len());
        let mut bytes = 0;
        for found in found {
            let (row, marks) = match (&found.source, found.version) {
                (None, Version::Absent) => (None, Marks::new()),
                (None, Version::At(..)) => {
                    return Err(Error::config(format!(
                        "a document of {:?} has no _source: enable _source and rebuild",
                        self.cluster.names.alias()
                    )));
                }
                (Some(source), _) => {
                    bytes += source.get().len();
                    document::decode(&self.model, source.get().as_bytes())?
                }
            };
            loaded.push(Loaded { row, version: found.version, marks });
        }
        if !loaded.is_empty() {
            self.document_bytes.store((average + bytes / loaded.len()) / 2, Ordering::Relaxed);
        }
        Ok(loaded)
    }

    async fn write(&self, flush: &Flush) -> Result<Written> {
        let Some(mut steps) = self.steps(flush) else { return Ok(Written::Fenced) };
        let now = now_millis();
        let items: Vec<String> = flush.writes.iter().map(|write| self.encode(write, now)).collect();
        let versions = match judge(self.client.bulk(&self.alias, &items).await?) {
            Ok(versions) => versions,
            Err(failure) => {
                return match failure.fault() {
                    Fault::Conflict => Ok(Written::Conflict),
                    Fault::Rejected | Fault::TooLarge => {
                        Ok(Written::Rejected(Error::record(failure.error("writing").message())))
                    }
                    Fault::Gone | Fault::Blocked => self.stopped(&failure).await,
                    Fault::Retriable | Fault::Config => Err(failure.error("writing documents")),
                };
            }
        };
        if !self.checks_hold(&flush.checks).await? {
            return Ok(Written::Conflict);
        }
        self.books.keep_verdicts(self.generation, &passed(&mut steps)).await?;
        let moved = self.books.put_positions(&steps).await?;
        let mut fenced = false;
        let mut held = self.held();
        for ((advance, mut step), version) in flush.advances.iter().zip(steps).zip(moved) {
            match version {
                Some(version) => {
                    step.version = version;
                    held.insert(advance.partition.clone(), step);
                }
                None => fenced = true,
            }
        }
        Ok(if fenced { Written::Fenced } else { Written::Durable(Versions::Each(versions)) })
    }

    async fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<StoredPosition>> {
        let target = self.books.target().await?.ok_or_else(|| self.not_live())?;
        let places = self.books.positions(self.generation, partitions).await?;
        let mut out = Vec::with_capacity(partitions.len());
        let mut held = self.held();
        for (partition, place) in partitions.iter().zip(places) {
            let Some(place) = place else { continue };
            let beginning = target.value.beginning(partition);
            out.push(StoredPosition {
                partition: partition.clone(),
                topic_id: beginning.and_then(|b| b.topic_id.clone()),
                beginning: Position(beginning.map_or(place.value.position, |b| b.position)),
                position: Position(place.value.position),
                epoch: place.value.epoch,
            });
            // Still this task's: what stands is its own write, whose reply may have been lost.
            if held.get(partition).is_some_and(|mine| mine.value.epoch == place.value.epoch) {
                held.insert(partition.clone(), place);
            }
        }
        Ok(out)
    }

    fn keeps_marks(&self) -> bool {
        true
    }
}

pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cause;

    fn partition() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn held(position: i64, verdicts: &[i64]) -> Versioned<PositionDoc> {
        let verdict = |&offset: &i64| VerdictDoc { offset, reason: "r".to_owned() };
        Versioned {
            value: PositionDoc {
                target: "orders".to_owned(),
                generation: 1,
                topic: "t".to_owned(),
                partition: 0,
                position,
                epoch: 3,
                verdicts: verdicts.iter().map(verdict).collect(),
            },
            version: Version::At(1, 1),
        }
    }

    fn advance(epoch: i64, from: i64, to: i64) -> Advance {
        Advance { partition: partition(), epoch, from: Position(from), to: Position(to) }
    }

    #[test]
    fn a_step_starts_from_its_epoch_and_place_only() {
        let flush = Flush::default();
        assert!(step(&held(5, &[]), &advance(3, 5, 9), &flush).is_some());
        assert!(step(&held(5, &[]), &advance(2, 5, 9), &flush).is_none());
        assert!(step(&held(5, &[]), &advance(3, 4, 9), &flush).is_none());
    }

    #[test]
    fn verdicts_wait_beside_the_position_until_it_has_passed_them() {
        let verdict =
            |offset| StoredVerdict { partition: partition(), offset, reason: "n".to_owned() };
        let flush = Flush { verdicts: vec![verdict(7), verdict(6)], ..Flush::default() };
        let mut steps = vec![step(&held(5, &[5, 7]), &advance(3, 5, 7), &flush).unwrap()];
        let offsets: Vec<i64> = passed(&mut steps).iter().map(|v| v.offset).collect();
        assert_eq!(offsets, [5, 6]);
        let kept: Vec<_> = steps[0].value.verdicts.iter().map(|v| (v.offset, &*v.reason)).collect();
        assert_eq!(kept, [(7, "r")]);
    }

    #[test]
    fn the_gravest_failure_decides() {
        let failed = |status, kind: &str| {
            Err(Failure { status, cause: Cause { kind: kind.to_owned(), reason: None } })
        };
        let rejected = || failed(400, "document_parsing_exception");
        let conflict = || failed(409, "version_conflict_engine_exception");
        let ok = || Ok(Version::At(1, 1));
        let fault = |outcomes: Vec<Outcome>| judge(outcomes).map_err(|failure| failure.fault());
        assert_eq!(fault(vec![ok(), ok()]), Ok(vec![Version::At(1, 1); 2]));
        assert_eq!(fault(vec![ok(), rejected()]), Err(Fault::Rejected));
        assert_eq!(fault(vec![rejected(), conflict()]), Err(Fault::Conflict));
        assert_eq!(fault(vec![conflict(), failed(503, ""), rejected()]), Err(Fault::Retriable));
        assert_eq!(
            fault(vec![failed(503, ""), failed(404, "index_not_found_exception")]),
            Err(Fault::Gone)
        );
    }
}
