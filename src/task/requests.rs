//! What the operator wants of parked keys, carried out by the owner of their partition as side work ([`super::side_work`]).
//!
//! Events that share keys stand and fall together: all of a retry applies, in order, or nothing of it, and
//! then the books say why.

use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_api::model::Key;
use foldline_api::parked::{DROPPED, Parked, Place, Request, Which, groups};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{StoredDecision, StoredVerdict};
use foldline_language::projection::BadRecord;

use super::aside::Purpose;
use super::batch::{Batch, Counts};
use super::cache::Cache;
use super::folder::Folder;
use super::ops::Ops;
use super::side_work::{Apart, Found, SideFlush};
use crate::decoding::{Decoded, decode};
use crate::maps::HashSet;
use crate::offload::busy;
use crate::prepared::prepare;
use crate::retry::retry;

/// Parked records are read by about so many bytes.
const READ_BYTES: usize = 1 << 20;

/// What a request does with an event of its group.
fn leaves(request: Request, event: &Parked) -> bool {
    match request {
        Request::Retry => false,
        Request::Drop => true,
        Request::Skip => event.reason.is_some(),
    }
}

impl Folder {
    /// Does what is asked of some of a group's events: the first that is still bad, and why.
    fn carry_out<'p>(
        &self,
        request: Request,
        events: Vec<(&'p Parked, Decoded)>,
        cache: &mut Cache,
        batch: &mut Batch,
    ) -> Result<(), (&'p Parked, BadRecord)> {
        for (event, decoded) in events {
            if leaves(request, event) {
                let (partition, offset) = event.place();
                batch.verdicts.push(StoredVerdict::new(partition, offset, DROPPED, None));
                continue;
            }
            let applied = decoded.and_then(|(record, mut prepared)| {
                if self.has_expired(&prepared) {
                    return Ok(());
                }
                self.apply(&event.partition, &record, &mut prepared, cache, batch)
            });
            applied.map_err(|bad| (event, bad))?;
        }
        Ok(())
    }

    /// What the rows decided that hold some of these events already binds; the rest is decided anew.
    fn recall_decisions(&mut self, parked: &[Parked], at: Position) {
        for event in parked {
            self.decisions.settle(&event.partition, at);
        }
        let decided = parked.iter().filter(|event| !event.refused.is_empty());
        let decided = decided.map(|event| StoredDecision {
            partition: event.partition.clone(),
            offset: event.offset,
            refused: event.refused.clone(),
            bad: None,
        });
        self.decisions.keep(&decided.collect::<Vec<_>>());
    }
}

/// Notes why a group stays, at the event that `failed`; its requests are done with. The flush has this number, and its
/// partition stands there.
pub(super) fn kept(
    (number, at): (u64, Position),
    group: &[Parked],
    failed: &Parked,
    reason: &str,
    cache: Cache,
) -> SideFlush {
    let mut batch = Batch::new(number);
    for event in group {
        let failed = event.offset == failed.offset;
        if failed || event.request.is_some() {
            let why = failed.then(|| reason.to_owned());
            batch.aside.changes.keep.push((event.place(), why));
        }
    }
    SideFlush::new(batch, (failed.partition.clone(), at), Purpose::Parked(group.to_vec()), cache)
}

impl Ops {
    /// Whether someone wants something of what is parked in these partitions.
    pub(super) async fn asked(self, partitions: Vec<TopicPartition>) -> Result<Found> {
        let which = Which { partitions: Some(partitions), asked: true };
        Ok(Found::Wanted(!self.parked(&which).await?.is_empty()))
    }

    async fn parked(&self, which: &Which) -> Result<Vec<Parked>> {
        let parking = self.target.parking();
        retry(self, "parked", || parking.parked(self.generation, which)).await
    }

    /// All that is parked in these partitions, and what comes of the first request.
    pub(super) async fn group(
        self,
        partitions: Vec<TopicPartition>,
        apart: Apart,
    ) -> Result<Found> {
        let which = Which { partitions: Some(partitions.clone()), asked: false };
        let parked = self.parked(&which).await?;
        let asked = |group: &Vec<Parked>| group.iter().any(|event| event.request.is_some());
        let Some(group) = groups(parked.clone()).into_iter().find(asked) else {
            return Ok(Found::Prepared(partitions, parked, None));
        };
        let done = self.carry_out(group, apart).await?;
        Ok(Found::Prepared(partitions, parked, done.map(Box::new)))
    }

    /// Does what is asked of a group of parked events, all of them or none. They lie before where their partition stands.
    async fn carry_out(&self, group: Vec<Parked>, mut apart: Apart) -> Result<Option<SideFlush>> {
        let Some(partition) = group.first().map(|event| event.partition.clone()) else {
            return Ok(None);
        };
        let at = apart.at.get(&partition).copied().unwrap_or_default();
        apart.folder.recall_decisions(&group, at);
        let request = group.iter().find_map(|event| event.request).unwrap_or(Request::Retry);
        let mut batch = Batch::new(apart.number);
        let (mut rest, mut few) = (&*group, 1);
        while !rest.is_empty() {
            let (some, behind) = rest.split_at(rest.len().min(few));
            let records = self.parked_records(some).await?;
            let bytes: usize = records.iter().map(Record::bytes).sum();
            few = (READ_BYTES / (bytes / some.len()).max(1)).clamp(1, few * 4);
            let (projection, decoders) =
                (Arc::clone(&apart.folder.projection), Arc::clone(&apart.folder.decoders));
            // No retry here: the live events go on meanwhile, and it is looked at again.
            prepare(&*decoders, &records).await?;
            let decoded: Vec<_> =
                busy(|| records.iter().map(|r| decode(&projection, &*decoders, r)).collect());
            drop(records);
            self.bring(&decoded, &mut apart).await?;
            let Apart { folder, cache, .. } = &mut apart;
            let events = some.iter().zip(decoded).collect();
            if let Err((failed, bad)) =
                busy(|| folder.carry_out(request, events, cache, &mut batch))
            {
                let offset = failed.offset;
                tracing::info!(%partition, offset, "parked events stay: one of them is still bad");
                // What the events before it did is undone with the states that it was done to.
                cache.clear();
                let reason = format!("{}: {}", bad.stage, bad.reason);
                return Ok(Some(kept((apart.number, at), &group, failed, &reason, apart.cache)));
            }
            rest = behind;
        }
        let (events, first) = (group.len(), group.first().map(Parked::id));
        tracing::info!(events, first, request = request.name(), "parked events freed");
        // They were counted when they were parked.
        batch.counts = Counts::default();
        batch.aside.changes.free = group.iter().map(Parked::place).collect();
        Ok(Some(SideFlush::new(batch, (partition, at), Purpose::Parked(group), apart.cache)))
    }

    async fn parked_records(&self, events: &[Parked]) -> Result<Vec<Record>> {
        let places: Vec<Place> = events.iter().map(Parked::place).collect();
        let parking = self.target.parking();
        let records: Vec<Record> =
            retry(self, "parked", || parking.records(self.generation, &places)).await?;
        let same = records.len() == places.len()
            && records
                .iter()
                .zip(&places)
                .all(|(record, place)| (record.topic_partition(), record.offset) == *place);
        if !same {
            return Err(Error::retriable("what is parked changed while it was read"));
        }
        Ok(records)
    }

    /// Reads the states of these events' keys that are not there yet.
    async fn bring(&self, events: &[Decoded], apart: &mut Apart) -> Result<()> {
        let keys = events.iter().flatten().flat_map(|(_, prepared)| prepared.keys());
        let keys: HashSet<&Key> = keys.filter(|key| apart.cache.get(key).is_none()).collect();
        let mut keys: Vec<Key> = keys.into_iter().cloned().collect();
        keys.sort_unstable();
        if !keys.is_empty() {
            let all = keys.len();
            let states = self.clone().load(keys, all, 0).await?;
            apart.cache.take(states, apart.number);
        }
        Ok(())
    }
}
