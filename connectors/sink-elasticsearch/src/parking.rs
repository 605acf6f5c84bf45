//! Events that are set aside with their keys, in the metadata index.
//!
//! A partition's place names the offsets that are parked, and only the place is fenced. What an event is
//! stands in two documents of its own, so that a list reads no record: written before the place names them,
//! and removed after it does no more. One that no place names does not count.

use async_trait::async_trait;
use foldline_api::parked::{
    Changes, Parked, ParkedEvent, Parking, Place, Request, Which, clean, read_record, write_record,
};
use foldline_api::record::{Record, TopicPartition};
use foldline_api::sink::Version;
use foldline_api::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::books::{ALIAS, ATTEMPTS, BeginningDoc, Books, PositionDoc, READ_MAX, Versioned, text};
use crate::bulk;
use crate::target::ElasticsearchTarget;

/// Records of one read.
const RECORDS_MAX: usize = 50;

/// What a parked event is. None of its fields is one of a verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ParkedDoc {
    keys: Vec<String>,
    bad: Option<String>,
    request: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordDoc {
    record: String,
}

/// What a flush changes of the offsets that a place names.
pub(crate) fn change(place: &mut PositionDoc, changes: &Changes) {
    if changes.is_empty() {
        return;
    }
    let partition = place.topic_partition();
    let offset = |(of, offset): &Place| (*of == partition).then_some(*offset);
    let freed: Vec<i64> = changes.free.iter().filter_map(offset).collect();
    place.parked.retain(|offset| !freed.contains(offset));
    place.parked.extend(changes.park.iter().filter_map(|event| offset(&event.place())));
    place.parked.sort_unstable();
    place.parked.dedup();
}

impl Books {
    /// Writes what events are that are about to be parked.
    pub(crate) async fn put_parked(&self, generation: u64, events: &[ParkedEvent]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let mut docs = Vec::with_capacity(events.len() * 2);
        for event in events {
            let place = event.place();
            let doc = ParkedDoc {
                keys: event.keys.clone(),
                bad: event.reason.as_deref().map(clean),
                request: None,
            };
            docs.push((self.parked_id(generation, &place), text(&doc)?));
            let record = RecordDoc { record: write_record(&event.record) };
            docs.push((self.record_id(generation, &place), text(&record)?));
        }
        for _ in 0..ATTEMPTS {
            let ids: Vec<String> = docs.iter().map(|(id, _)| id.clone()).collect();
            let stand = self.client.mget(ALIAS, &ids, false, READ_MAX).await?;
            let items: Vec<String> = docs
                .iter()
                .zip(stand)
                .map(|((id, doc), stands)| bulk::write(id, stands.version, doc))
                .collect();
            // A request may come in between: then once more.
            if self.put(&items).await?.iter().all(Option::is_some) {
                return Ok(());
            }
        }
        Err(Error::retriable("parked events keep changing"))
    }

    /// What a place names as parked, by offset.
    pub(crate) async fn parked(&self, generation: u64, place: &PositionDoc) -> Result<Vec<Parked>> {
        let partition = place.topic_partition();
        let id = |offset: &i64| self.parked_id(generation, &(partition.clone(), *offset));
        let ids: Vec<String> = place.parked.iter().map(id).collect();
        let docs: Vec<Option<Versioned<ParkedDoc>>> = self.read(&ids).await?;
        let parked = |(offset, doc): (&i64, Option<Versioned<ParkedDoc>>)| {
            let ParkedDoc { keys, bad, request } = doc?.value;
            let decided = place.decisions.iter().find(|decision| decision.offset == *offset);
            Some(Parked {
                partition: partition.clone(),
                offset: *offset,
                keys,
                reason: bad,
                request: request.as_deref().and_then(Request::parse),
                refused: decided.map(|decision| decision.refused.clone()).unwrap_or_default(),
            })
        };
        Ok(place.parked.iter().zip(docs).filter_map(parked).collect())
    }

    /// What follows once the places have moved: freed events' documents go, requests that could not be
    /// followed are done with. What fails is in nobody's way: the request is followed once more.
    pub(crate) async fn settle_parked(&self, generation: u64, changes: &Changes) {
        let removed = self.remove_parked(generation, &changes.free).await;
        let mut done = removed.map(|()| true);
        for (place, reason) in &changes.keep {
            let kept = self.change_parked(generation, place, |doc| {
                doc.request = None;
                if let Some(reason) = reason {
                    doc.bad = Some(clean(reason));
                }
            });
            done = done.and(kept.await);
        }
        if let Err(error) = done {
            tracing::warn!(%error, "documents of parked events stay as they were");
        }
    }

    async fn change_parked(
        &self,
        generation: u64,
        place: &Place,
        change: impl Fn(&mut ParkedDoc),
    ) -> Result<bool> {
        let id = self.parked_id(generation, place);
        for _ in 0..ATTEMPTS {
            let mut found: Vec<Option<Versioned<ParkedDoc>>> =
                self.read(std::slice::from_ref(&id)).await?;
            let Some(mut doc) = found.pop().flatten() else { return Ok(false) };
            change(&mut doc.value);
            let item = bulk::write(&id, doc.version, &text(&doc.value)?);
            if self.put(&[item]).await?.iter().all(Option::is_some) {
                return Ok(true);
            }
        }
        Err(Error::retriable("a parked event keeps changing"))
    }

    async fn remove_parked(&self, generation: u64, places: &[Place]) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let both = |place| [self.parked_id(generation, place), self.record_id(generation, place)];
        let ids: Vec<String> = places.iter().flat_map(both).collect();
        let stand = self.client.mget(ALIAS, &ids, false, READ_MAX).await?;
        let there = ids.iter().zip(&stand).filter(|(_, doc)| doc.version != Version::Absent);
        let items: Vec<String> = there.map(|(id, doc)| bulk::delete(id, doc.version)).collect();
        self.put(&items).await.map(drop)
    }

    /// Removes what is parked in a generation that is dropped.
    pub(crate) async fn forget_parked_in(
        &self,
        generation: u64,
        places: &[Option<Versioned<PositionDoc>>],
    ) -> Result<()> {
        let of = |place: &PositionDoc| {
            let partition = place.topic_partition();
            place.parked.iter().map(move |offset| (partition.clone(), *offset)).collect::<Vec<_>>()
        };
        let parked = places.iter().flatten().flat_map(|place| of(&place.value));
        self.remove_parked(generation, &parked.collect::<Vec<_>>()).await
    }

    // Unambiguous, as a place's id is.
    fn parked_id(&self, generation: u64, (partition, offset): &Place) -> String {
        let TopicPartition { topic, partition } = partition;
        format!("parked:{}:{generation}:{topic}:{partition}:{offset}", self.target)
    }

    fn record_id(&self, generation: u64, (partition, offset): &Place) -> String {
        let TopicPartition { topic, partition } = partition;
        format!("parked-record:{}:{generation}:{topic}:{partition}:{offset}", self.target)
    }
}

impl ElasticsearchTarget {
    /// The places of a generation's partitions, of these or of all.
    pub(crate) async fn places(
        &self,
        generation: u64,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<Vec<PositionDoc>> {
        let all;
        let partitions = match partitions {
            Some(partitions) => partitions,
            None => {
                let doc = self.stored().await?.value;
                let next = doc.next.filter(|next| next.generation == generation);
                let beginnings = next.map_or(doc.beginnings, |next| next.beginnings);
                all = beginnings.iter().map(BeginningDoc::topic_partition).collect::<Vec<_>>();
                &all
            }
        };
        let places = self.books.positions(generation, partitions).await?;
        let mut places: Vec<PositionDoc> =
            places.into_iter().flatten().map(|place| place.value).collect();
        places.sort_by_key(PositionDoc::topic_partition);
        Ok(places)
    }
}

#[async_trait]
impl Parking for ElasticsearchTarget {
    async fn parked(&self, generation: u64, which: &Which) -> Result<Vec<Parked>> {
        self.stored().await?;
        let mut all = Vec::new();
        for place in self.places(generation, which.partitions.as_deref()).await? {
            all.extend(self.books.parked(generation, &place).await?);
        }
        all.retain(|parked| which.has(parked));
        Ok(all)
    }

    async fn records(&self, generation: u64, places: &[Place]) -> Result<Vec<Record>> {
        self.stored().await?;
        let ids: Vec<String> =
            places.iter().map(|place| self.books.record_id(generation, place)).collect();
        let mut out = Vec::with_capacity(places.len());
        // Records may be large: few of them in one answer.
        for (places, ids) in places.chunks(RECORDS_MAX).zip(ids.chunks(RECORDS_MAX)) {
            let docs: Vec<Option<Versioned<RecordDoc>>> = self.books.read(ids).await?;
            for (place, doc) in places.iter().zip(docs) {
                if let Some(doc) = doc {
                    out.push(read_record(place, &doc.value.record)?);
                }
            }
        }
        Ok(out)
    }

    async fn ask(&self, generation: u64, place: &Place, request: Request) -> Result<bool> {
        self.stored().await?;
        let partition = std::slice::from_ref(&place.0);
        let named = self.places(generation, Some(partition)).await?;
        if !named.iter().any(|known| known.parked.contains(&place.1)) {
            return Ok(false);
        }
        let name = request.name();
        let noted = |doc: &mut ParkedDoc| doc.request = Some(name.to_owned());
        self.books.change_parked(generation, place, noted).await
    }
}
