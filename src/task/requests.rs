//! What the operator wants of parked keys, carried out by the owner of their partition as side work ([`super::side_work`]).
//!
//! Events that share keys stand and fall together: all of a retry applies, in order, or nothing of it, and
//! then the books say why. Where their rows are more than one flush should hold, the first of them are freed by a flush of
//! their own and what was asked is asked of the rest: they lie before it, so the order of each key stays.

use std::sync::Arc;

use foldline_api::budget::{TOGETHER_BYTES_MAX, row_bytes};
use foldline_api::error::{Error, Result};
use foldline_api::model::Key;
use foldline_api::parked::{DROPPED, Parked, Place, Request, Which, groups};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{StoredDecision, StoredVerdict};
use foldline_language::projection::{BadRecord, Prepared};

use super::aside::Purpose;
use super::batch::{Batch, Counts};
use super::cache::Cache;
use super::folder::Folder;
use super::needed::Needed;
use super::ops::Ops;
use super::side_work::{Apart, Found, SideFlush};
use crate::decoding::{Decoded, decode};
use crate::maps::{HashMap, HashSet};
use crate::offload::{Pace, busy};
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
    /// Does what is asked of an event of a group.
    fn carry_out(
        &self,
        request: Request,
        event: &Parked,
        decoded: Decoded,
        cache: &mut Cache,
        batch: &mut Batch,
    ) -> std::result::Result<(), BadRecord> {
        if leaves(request, event) {
            let (partition, offset) = event.place();
            batch.verdicts.push(StoredVerdict::new(partition, offset, DROPPED, None));
            return Ok(());
        }
        let (record, mut prepared) = decoded?;
        if self.has_expired(&prepared) {
            return Ok(());
        }
        self.apply(&event.partition, &record, &mut prepared, cache, batch)
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
    async fn carry_out(
        &self,
        mut group: Vec<Parked>,
        mut apart: Apart,
    ) -> Result<Option<SideFlush>> {
        let Some(partition) = group.first().map(|event| event.partition.clone()) else {
            return Ok(None);
        };
        let at = apart.at.get(&partition).copied().unwrap_or_default();
        apart.folder.recall_decisions(&group, at);
        let request = group.iter().find_map(|event| event.request).unwrap_or(Request::Retry);
        let mut batch = Batch::new(apart.number);
        let (mut done, mut few, mut pace) = (0, 1, Pace::new());
        let mut rows = Rows::default();
        while let Some(rest) = group.get(done..).filter(|rest| !rest.is_empty())
            && !rows.are_many()
        {
            let (some, _) = rest.split_at(rest.len().min(few));
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
            self.bring_some(some, &decoded, request, &mut apart).await?;
            for (event, mut decoded) in some.iter().zip(decoded) {
                if let (Ok((_, prepared)), false) = (&mut decoded, leaves(request, event)) {
                    self.bring(event, prepared, &mut apart).await?;
                }
                let Apart { folder, cache, .. } = &mut apart;
                let keys = decoded.as_ref().map_or(Vec::new(), |(_, it)| it.keys().to_vec());
                let carry_out = || folder.carry_out(request, event, decoded, cache, &mut batch);
                if let Err(bad) = pace.run(bytes, carry_out) {
                    let offset = event.offset;
                    tracing::info!(%partition, offset, "parked events stay: one of them is still bad");
                    // What the events before it did is undone with the states that it was done to.
                    cache.clear();
                    let reason = format!("{}: {}", bad.stage, bad.reason);
                    return Ok(Some(kept((apart.number, at), &group, event, &reason, apart.cache)));
                }
                done += 1;
                rows.became(&keys, &apart.cache);
                if rows.are_many() {
                    break;
                }
            }
        }
        let (freed, rest) = group.split_at_mut(done);
        self.ask_on(request, rest).await?;
        let (events, first) = (freed.len(), freed.first().map(|event| event.id()));
        tracing::info!(events, first, request = request.name(), "parked events freed");
        // They were counted when they were parked.
        batch.counts = Counts::default();
        batch.aside.changes.free = freed.iter().map(|event| event.place()).collect();
        Ok(Some(SideFlush::new(batch, (partition, at), Purpose::Parked(group), apart.cache)))
    }

    /// What is asked of a group that is freed in parts is asked of what is left of it, before its first part is free.
    async fn ask_on(&self, request: Request, rest: &mut [Parked]) -> Result<()> {
        for first in groups(rest.to_vec()).iter().filter_map(|group| group.first()) {
            let (parking, place) = (self.target.parking(), first.place());
            retry(self, "parked", || parking.ask(self.generation, &place, request)).await?;
            let asked = rest.iter_mut().filter(|event| event.offset == first.offset);
            asked.for_each(|event| event.request = Some(request));
        }
        Ok(())
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

    /// Reads the states of these events' keys that are not there yet, as far as there is room for them.
    async fn bring_some(
        &self,
        events: &[Parked],
        decoded: &[Decoded],
        request: Request,
        apart: &mut Apart,
    ) -> Result<()> {
        let events = events.iter().zip(decoded).filter(|(event, _)| !leaves(request, event));
        let prepared = events.filter_map(|(_, decoded)| Some(&decoded.as_ref().ok()?.1));
        let keys = prepared.flat_map(Prepared::keys).filter(|key| apart.cache.get(key).is_none());
        let mut known = HashSet::default();
        let keys: Vec<Key> = keys.filter(|key| known.insert(*key)).cloned().collect();
        let room = apart.cache.make_room(self.expected(keys.len()));
        let states = self.clone().load(keys, Needed::default(), room).await?;
        apart.cache.take(states, apart.number);
        Ok(())
    }

    /// Reads the states of an event's keys that are not there yet, up to what one record may touch.
    async fn bring(
        &self,
        event: &Parked,
        prepared: &mut Prepared,
        apart: &mut Apart,
    ) -> Result<()> {
        let lacks = prepared.keys().iter().filter(|key| apart.cache.get(key).is_none());
        let keys: Vec<Key> = lacks.cloned().collect();
        if !keys.is_empty() {
            let marks = apart.folder.keeps_marks;
            let needed = Needed::of(prepared, event.place(), &apart.cache, marks);
            let states = self.clone().load(keys, needed, 0).await?;
            if states.over {
                prepared.exceed();
            }
            apart.cache.take(states, apart.number);
        }
        Ok(())
    }
}

/// The rows that a group's events have written so far, as large as they are by now.
#[derive(Debug, Default)]
struct Rows {
    bytes: HashMap<Key, usize>,
    all: usize,
}

impl Rows {
    /// An event of these keys was applied.
    fn became(&mut self, keys: &[Key], cache: &Cache) {
        for key in keys {
            let row = cache.get(key).and_then(|entry| entry.row.as_ref());
            let bytes = row.map_or(0, |row| row_bytes(row.values().iter()));
            let before = self.bytes.insert(key.clone(), bytes).unwrap_or_default();
            self.all = self.all.saturating_add(bytes).saturating_sub(before);
        }
    }

    /// Whether one flush takes no more of them, as one record touches no more.
    fn are_many(&self) -> bool {
        self.all > TOGETHER_BYTES_MAX
    }
}
