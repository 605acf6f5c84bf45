//! One task's hold on a target: documents first, each guarded by the version it was folded from;
//! positions last, each guarded by epoch and place.

mod steps;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use foldline_api::binding::check_owner;
use foldline_api::expiry::Horizon;
use foldline_api::failpoint::Failpoint;
use foldline_api::lookup::Joins;
use foldline_api::model::{Key, Model};
use foldline_api::rebuild::Phase;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{
    Acquired, Advance, Beginning, Check, Flush, Lease, Loaded, Marks, Refreshed, RowWrite,
    StoredDecision, StoredPosition, TargetSpec, Version, Versions, Writer, Written,
};
use foldline_api::{Error, ErrorClass, Result};

use crate::books::{Books, NextDoc, PositionDoc, TargetDoc, Versioned, add_beginnings};
use crate::bulk;
use crate::client::{Client, Document, IN_FLIGHT};
use crate::document;
use crate::drift::DriftWatch;
use crate::error::{Failure, Fault};
use crate::hole::holes_of;
use crate::joins::Keeping;
use crate::mapping::Names;
use crate::survey::Cluster;
use crate::verdicts;
use steps::{Step, durable, judge, step, with_decisions};

/// Documents of one multi-get, at most.
const LOAD_MAX: usize = 2_000;
/// Bytes that one multi-get's answer should stay below; one of twice as many is asked for again in parts.
const LOAD_BYTES: usize = 1 << 20;
/// How often a partition's place is read again because another task changed it.
const ATTEMPTS: u32 = 20;

/// Writes one generation's index.
#[derive(Debug)]
pub struct ElasticsearchWriter {
    pub(crate) client: Arc<Client>,
    pub(crate) books: Books,
    cluster: Cluster,
    pub(crate) model: Arc<Model>,
    generation: u64,
    /// Whether the generation is built beside the live one.
    building: bool,
    pub(crate) spec: TargetSpec,
    /// Documents are read and written through this; it goes away with the generation or its model.
    pub(crate) alias: String,
    held: Mutex<HashMap<TopicPartition, Versioned<PositionDoc>>>,
    drift: DriftWatch,
    /// The ids of the topics whose partitions were acquired.
    topic_ids: Mutex<HashMap<TopicPartition, String>>,
    /// Bytes of a document, as the last loads had it.
    document_bytes: AtomicUsize,
    /// What documents show of other targets' documents.
    pub(crate) shown: Option<Joins>,
    /// How far they are brought up to that.
    pub(crate) keeping: tokio::sync::Mutex<Keeping>,
}

impl ElasticsearchWriter {
    pub(crate) fn new(
        client: Arc<Client>,
        books: Books,
        spec: &TargetSpec,
        (generation, building): (u64, bool),
    ) -> Self {
        let names = Names::new(&spec.target);
        ElasticsearchWriter {
            alias: names.write_alias(generation, &spec.fingerprint),
            cluster: Cluster { client: Arc::clone(&client), names },
            client,
            books,
            model: Arc::clone(&spec.model),
            generation,
            building,
            spec: spec.clone(),
            held: Mutex::new(HashMap::new()),
            drift: DriftWatch::new(spec.clone()),
            topic_ids: Mutex::new(HashMap::new()),
            document_bytes: AtomicUsize::new(512),
            shown: spec.joins.as_ref().map(|joins| joins.narrowed()),
            keeping: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn is_building(&self) -> bool {
        self.building
    }

    /// A partition's place among the documents of the books, and the version that this task left.
    pub(crate) fn place_of(&self, partition: &TopicPartition) -> Option<(String, Version)> {
        let version = self.held().get(partition)?.version;
        Some((self.books.position_id(self.generation, partition), version))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<TopicPartition, Versioned<PositionDoc>>> {
        // The map is only ever replaced entry by entry: a panic elsewhere leaves it whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn topic_ids(&self) -> MutexGuard<'_, HashMap<TopicPartition, String>> {
        self.topic_ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The target's record, if this writer's generation and model are the live ones, or those that are
    /// being built.
    pub(crate) async fn live(&self) -> Result<Option<Versioned<TargetDoc>>> {
        let Some(stored) = self.books.target().await? else { return Ok(None) };
        let TargetDoc { ready, binding, next, .. } = &stored.value;
        check_owner(binding, &self.spec)?;
        let (generation, fingerprint) = match next {
            Some(next) if self.building && next.phase().is_some() => {
                (next.generation, &next.fingerprint)
            }
            _ if self.building || !ready => return Ok(None),
            _ => (binding.generation, &binding.fingerprint),
        };
        let same = generation == self.generation && *fingerprint == self.spec.fingerprint;
        Ok(same.then_some(stored))
    }

    /// The same for a task that takes partitions: nobody may while the live generation is held.
    async fn free(&self) -> Result<Versioned<TargetDoc>> {
        let stored = self.live().await?.ok_or_else(|| self.not_live())?;
        let held = stored.value.next.as_ref().and_then(NextDoc::phase) == Some(Phase::Holding);
        if held && !self.building {
            return Err(Error::retriable(format!(
                "{:?} is held: its next generation is about to take its place",
                self.cluster.names.alias()
            )));
        }
        Ok(stored)
    }

    /// What a document holds, with what it shows.
    pub(crate) fn stored(&self, found: &Document) -> Result<Loaded> {
        let (row, marks) = match (&found.source, found.version) {
            (None, Version::Absent) => (None, Marks::new()),
            (None, Version::At(..)) => {
                return Err(Error::config(format!(
                    "a document of {:?} has no _source: enable _source and rebuild",
                    self.cluster.names.alias()
                )));
            }
            (Some(source), _) => document::decode(&self.model, source.get().as_bytes())?,
        };
        Ok(Loaded { row, version: found.version, marks })
    }

    /// Reads documents, of all ids or of the first ones that come to about `bytes_max`, but always of one.
    pub(crate) async fn read_some(&self, ids: &[String], bytes_max: usize) -> Result<Vec<Loaded>> {
        let mut loaded = Vec::with_capacity(ids.len());
        let mut room = bytes_max;
        while let Some(ids) = ids.get(loaded.len()..).filter(|ids| !ids.is_empty())
            && (room > 0 || loaded.is_empty())
        {
            let average = self.document_bytes.load(Ordering::Relaxed).max(1);
            let per_request = (LOAD_BYTES / average).clamp(1, LOAD_MAX);
            let at_once = room.min(LOAD_BYTES * IN_FLIGHT);
            let fit = (at_once / average).clamp(1, LOAD_MAX * IN_FLIGHT);
            let (ids, _) = ids.split_at(ids.len().min(fit));
            let (client, most) = (&self.client, LOAD_BYTES * 2);
            let found = client.mget_within(&self.alias, ids, per_request, most, at_once).await?;
            let bytes: usize = found.iter().map(Document::bytes).sum();
            let each = bytes / found.len().max(1);
            self.document_bytes.store((average + each) / 2, Ordering::Relaxed);
            for found in found {
                if room == 0 && !loaded.is_empty() {
                    break;
                }
                let state = self.stored(&found)?;
                room = room.saturating_sub(state.heap_bytes());
                loaded.push(state);
            }
        }
        Ok(loaded)
    }

    pub(crate) fn not_live(&self) -> Error {
        Error::fenced(format!(
            "generation {} of {:?} with this projection is no longer the live one",
            self.generation,
            self.cluster.names.alias()
        ))
    }

    /// Records the beginnings of claimed partitions that have none.
    async fn record_beginnings(&self, claims: &[Beginning]) -> Result<TargetDoc> {
        for _ in 0..ATTEMPTS {
            let stored = self.free().await?;
            let mut doc = stored.value;
            let added = match &mut doc.next {
                Some(next) if self.building => add_beginnings(&mut next.beginnings, claims),
                _ => add_beginnings(&mut doc.beginnings, claims),
            };
            if !added || self.books.put_target(&doc, stored.version).await? {
                return Ok(if self.building { doc.of_next() } else { doc });
            }
        }
        Err(Error::retriable("other workers keep changing the same target"))
    }

    /// The steps of a flush, if each partition stands where the flush says.
    fn steps(&self, flush: &Flush) -> Option<Vec<Step>> {
        let (held, ids) = (self.held(), self.topic_ids());
        flush
            .advances
            .iter()
            .map(|advance| {
                let topic_id = ids.get(&advance.partition);
                step(held.get(&advance.partition)?, advance, flush, topic_id)
            })
            .collect()
    }

    /// Keeps the decisions of a flush in the places that it starts from; false where the fence does not let
    /// it. They stand before any document is written, and go when the place moves past them.
    async fn decide(&self, decisions: &[StoredDecision]) -> Result<bool> {
        let places = with_decisions(&self.held(), decisions);
        let versions = self.books.put_positions(&places).await?;
        let mut fenced = false;
        let mut held = self.held();
        for (mut place, version) in places.into_iter().zip(versions) {
            match version {
                Some(version) => {
                    place.version = version;
                    held.insert(place.value.topic_partition(), place);
                }
                None => fenced = true,
            }
        }
        Ok(!fenced)
    }

    /// Moves the places of a flush; false where one was not at its version.
    async fn advance(
        &self,
        advances: &[Advance],
        places: Vec<Versioned<PositionDoc>>,
    ) -> Result<bool> {
        let moved = self.books.put_positions(&places).await?;
        let mut fenced = false;
        let mut held = self.held();
        for ((advance, mut place), version) in advances.iter().zip(places).zip(moved) {
            match version {
                Some(version) => {
                    place.version = version;
                    held.insert(advance.partition.clone(), place);
                }
                None => fenced = true,
            }
        }
        Ok(!fenced)
    }

    pub(crate) fn encode(&self, write: &RowWrite, now: i64, out: &mut String) {
        bulk::write_to(out, &document::id(&write.key), write.version, |out| match &write.row {
            Some(row) => document::encode(&self.model, row, &write.marks, out),
            // A delete leaves a document even where none was: without it, the late write of a paused task
            // that had not seen the delete would bring the row back.
            None => document::tombstone(&write.marks, now, out),
        });
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

    /// A record is to blame only where the index still is what it was made as.
    async fn refused(&self, error: Error) -> Result<Written> {
        self.drift.look(&self.cluster, self.generation, true).await?;
        Ok(Written::Rejected(error))
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

#[async_trait]
impl Writer for ElasticsearchWriter {
    async fn acquire(&self, claims: &[Beginning]) -> Result<Acquired> {
        let target = self.record_beginnings(claims).await?;
        let partitions: Vec<TopicPartition> = claims.iter().map(|c| c.partition.clone()).collect();
        let taken = self.books.raise(&target, self.generation, &partitions).await?;
        // Again, now that the epochs are raised: a model that took over before is seen here, and one
        // that takes over later takes the alias away.
        self.free().await?;
        self.observe(true).await?;
        let empty = !self.cluster.has_rows(&self.alias).await?;
        let mut acquired = Acquired { empty, ..Acquired::default() };
        self.books.refresh().await?;
        for partition in partitions {
            let Some(place) = taken.get(&partition) else { continue };
            let position = Position(place.value.position);
            let topic_id = target.beginning(&partition).and_then(|b| b.topic_id.clone());
            let open =
                self.books.still_open(self.generation, &place.value, topic_id.as_ref()).await?;
            acquired.verdicts.extend(open.into_iter().map(|doc| doc.stored(&partition)));
            if let Some(topic_id) = topic_id {
                self.topic_ids().insert(partition.clone(), topic_id);
            }
            let mut decisions = place.value.decisions(&partition);
            decisions.retain(|decision| decision.offset >= position.0);
            acquired.decisions.extend(decisions);
            acquired.holes.extend(holes_of(&place.value));
            acquired.parked.extend(self.books.parked(self.generation, &place.value).await?);
            acquired.leases.push(Lease {
                epoch: place.value.epoch,
                position: Position(place.value.position),
                partition,
            });
        }
        self.held().extend(taken);
        if !acquired.verdicts.is_empty() {
            let mapping = self.cluster.mapping(&self.alias).await?;
            let stands = |known: &str| verdicts::stands(&mapping, &self.spec.fingerprint, known);
            let judged = acquired.verdicts.into_iter().map(|verdict| verdict.judged(stands));
            acquired.verdicts = judged.collect();
        }
        Ok(acquired)
    }

    async fn load_some(&self, keys: &[Key], bytes_max: usize) -> Result<Vec<Loaded>> {
        let ids: Vec<String> = keys.iter().map(document::id).collect();
        let mut loaded = self.read_some(&ids, bytes_max).await?;
        if let Some(joins) = &self.shown {
            loaded.iter_mut().filter_map(|it| it.row.as_mut()).for_each(|row| joins.strip(row));
        }
        Ok(loaded)
    }

    async fn write(&self, flush: &Flush) -> Result<Written> {
        if self.steps(flush).is_none() {
            return Ok(Written::Fenced);
        }
        self.drift.look(&self.cluster, self.generation, false).await?;
        if !flush.writes.is_empty() && !self.decide(&flush.decisions).await? {
            return Ok(Written::Fenced);
        }
        let Some(steps) = self.steps(flush) else { return Ok(Written::Fenced) };
        self.note_before(flush).await?;
        let joined = self.join(flush).await?;
        let shown = joined.as_ref().map_or(flush, |joined| &joined.flush);
        let now = now_millis();
        let lines = |at: usize, out: &mut String| {
            if let Some(write) = shown.writes.get(at) {
                self.encode(write, now, out);
            }
        };
        let outcomes = match self.client.bulk(&self.alias, flush.writes.len(), &lines).await {
            // A whole request that is refused as a document would be: one of it is to blame.
            Err(error) if error.class() == ErrorClass::Record => return self.refused(error).await,
            outcomes => outcomes?,
        };
        let written = durable(&outcomes);
        self.note_after(flush, &written, joined.as_ref()).await?;
        let versions = match judge(outcomes) {
            Ok(versions) => versions,
            Err(failure) => {
                return match failure.fault() {
                    Fault::Conflict => Ok(Written::Conflict { written }),
                    Fault::Rejected => {
                        let mapping = self.cluster.mapping(&self.alias).await?;
                        let known =
                            verdicts::definition(&mapping, &self.spec.fingerprint, &failure);
                        self.refused(failure.refused_document().with_definition(known)).await
                    }
                    Fault::TooLarge => Ok(Written::Rejected(failure.refused_document())),
                    Fault::Gone | Fault::Blocked => self.stopped(&failure).await,
                    Fault::Retriable | Fault::Config => Err(failure.error("writing documents")),
                };
            }
        };
        if !self.checks_hold(&flush.checks).await? {
            return Ok(Written::Conflict { written });
        }
        let (places, settled): (Vec<_>, Vec<_>) =
            steps.into_iter().map(|step| (step.place, step.settled)).unzip();
        for (advance, settled) in flush.advances.iter().zip(&settled) {
            self.books.keep_verdicts(self.generation, &advance.partition, settled).await?;
        }
        // What they are, before that they are: only the places are fenced.
        self.books.put_parked(self.generation, &flush.parking.park).await?;
        for advance in &flush.advances {
            self.books.put_bad(self.generation, &advance.partition, &flush.bad).await?;
        }
        Failpoint::BeforePositions.reach();
        if !self.advance(&flush.advances, places).await? {
            return Ok(Written::Fenced);
        }
        self.books.settle_parked(self.generation, &flush.parking).await;
        Ok(Written::Durable(Versions::Each(versions)))
    }

    async fn expired(&self, horizon: Horizon, max: usize) -> Result<Vec<RowWrite>> {
        self.past(horizon, max).await
    }

    async fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<StoredPosition>> {
        let target = self.books.target().await?.ok_or_else(|| self.not_live())?.value;
        let target = if self.building { target.of_next() } else { target };
        let places = self.books.positions(self.generation, partitions).await?;
        let mut out = Vec::with_capacity(partitions.len());
        let mut held = self.held();
        for (partition, place) in partitions.iter().zip(places) {
            let Some(place) = place else { continue };
            let beginning = target.beginning(partition);
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

    async fn refresh(&self, rows_max: usize) -> Result<Refreshed> {
        self.bring_up(rows_max).await
    }
}

pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
