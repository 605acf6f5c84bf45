//! The bad records of each generation, and the letters of a build that wait for its swap.
//!
//! Their documents are written before the place moves past them, and count once it has, since only the place is fenced.

use std::collections::{HashMap, HashSet};

use foldline_api::Result;
use foldline_api::letters::{BadRecord, read_letter};
use foldline_api::parked::Place;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::DeadLetter;

use crate::books::{BeginningDoc, Books, PositionDoc, VerdictDoc, Versioned};
use crate::hole::holes_of;

/// Letters of one read.
const READ_MAX: usize = 50;

/// Bytes of the letters of one request, but for one that is larger.
const BYTES_MAX: usize = 8 << 20;

/// What stands for a generation in the documents of its bad records.
pub(crate) fn of(generation: u64) -> String {
    format!("{generation}!bad")
}

/// A bad record whose letter was sent.
fn sent_letter(partition: &TopicPartition, offset: i64) -> BadRecord {
    BadRecord { partition: partition.clone(), offset, by_store: false, letter: None }
}

impl VerdictDoc {
    fn bad(record: &BadRecord) -> Self {
        VerdictDoc {
            offset: record.offset,
            reason: String::new(),
            definition: None,
            topic_id: None,
            by_store: record.by_store,
            open: record.letter.is_some(),
            letter: record.text(),
        }
    }
}

impl Books {
    /// Writes what is bad of a flush that is about to move its places.
    pub(crate) async fn put_bad(
        &self,
        generation: u64,
        partition: &TopicPartition,
        bad: &[BadRecord],
    ) -> Result<()> {
        let mine = bad.iter().filter(|record| record.partition == *partition);
        let docs: Vec<VerdictDoc> = mine.map(VerdictDoc::bad).collect();
        self.keep_bad(generation, partition, &docs).await
    }

    async fn keep_bad(
        &self,
        generation: u64,
        partition: &TopicPartition,
        docs: &[VerdictDoc],
    ) -> Result<()> {
        let mut rest = docs;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |doc: &&VerdictDoc| {
                bytes += doc.letter.as_ref().map_or(0, String::len);
                bytes <= BYTES_MAX
            };
            let count = rest.iter().take(READ_MAX).take_while(fits).count().max(1);
            let (docs, others) = rest.split_at(count);
            self.keep_under(&of(generation), partition, docs).await?;
            rest = others;
        }
        Ok(())
    }

    /// Some of a partition's bad records that its place has passed or whose letters were sent, at or after `from` and without
    /// their letters; and from where on there may be more.
    async fn bad(&self, place: &PositionDoc, from: i64) -> Result<(Vec<VerdictDoc>, Option<i64>)> {
        let target = format!("{}#{}", self.target, of(place.generation));
        let (mut docs, next) = self.search_some(&target, &place.topic_partition(), from).await?;
        docs.retain(|doc| doc.offset < place.position || !doc.open);
        Ok((docs, next))
    }

    /// Of these records, those that are bad at `place` too, and whether their letters wait there.
    async fn waits(&self, place: &PositionDoc, docs: &[VerdictDoc]) -> Result<HashMap<i64, bool>> {
        let asked: HashSet<i64> = docs.iter().map(|doc| doc.offset).collect();
        let last = docs.last().map_or(-1, |doc| doc.offset);
        let (mut waits, mut from) = (HashMap::new(), docs.first().map(|doc| doc.offset));
        while let Some(at) = from.filter(|from| *from <= last) {
            let (known, next) = self.bad(place, at).await?;
            let known = known.into_iter().filter(|doc| asked.contains(&doc.offset));
            waits.extend(known.map(|doc| (doc.offset, doc.open)));
            from = next;
        }
        Ok(waits)
    }

    async fn place(
        &self,
        generation: u64,
        partition: &TopicPartition,
    ) -> Result<Option<PositionDoc>> {
        let places = self.positions(generation, std::slice::from_ref(partition)).await?;
        Ok(places.into_iter().flatten().next().map(|place| place.value))
    }

    /// Of the letters of `next` only those stay that nobody sent while the other generation was live. One projection
    /// calls the same records bad each time, but for what only the store can tell; so where that one folded a record too,
    /// and has not kept what it called bad, as versions before did not, its letter was sent.
    pub(crate) async fn keep_new_letters(
        &self,
        (live, known): (u64, &[BeginningDoc]),
        (next, beginnings): (u64, &[BeginningDoc]),
        same_projection: bool,
    ) -> Result<()> {
        self.refresh().await?;
        for beginning in beginnings {
            let partition = beginning.topic_partition();
            let Some(old) = known.iter().find(|known| known.topic_partition() == partition) else {
                continue;
            };
            let mut ids = old.topic_id.iter().zip(&beginning.topic_id);
            let Some(place) = self.place(live, &partition).await? else { continue };
            let Some(built) = self.place(next, &partition).await? else { continue };
            if ids.any(|(old, new)| old != new) {
                continue;
            }
            let folded = |at: i64| {
                let left_out = holes_of(&place).any(|hole| hole.has(Position(at)));
                (old.position..place.position).contains(&at) && !left_out
            };
            let mut from = Some(0);
            while let Some(at) = from {
                let (mut docs, next_from) = self.bad(&built, at).await?;
                docs.retain(|doc| doc.open);
                let waits = self.waits(&place, &docs).await?;
                docs.retain(|doc| match waits.get(&doc.offset) {
                    Some(waits) => !waits,
                    None => same_projection && !doc.by_store && folded(doc.offset),
                });
                docs.iter_mut().for_each(|doc| doc.open = false);
                self.keep_bad(next, &partition, &docs).await?;
                from = next_from;
            }
        }
        Ok(())
    }

    /// What one generation knows of letters that were sent, the next knows too, for topics of the same id. Done twice is done
    /// once.
    pub(crate) async fn take_over_sent(
        &self,
        (from, known): (u64, &[BeginningDoc]),
        (to, beginnings): (u64, &[BeginningDoc]),
    ) -> Result<()> {
        self.refresh().await?;
        let target = format!("{}#{}", self.target, of(from));
        for beginning in beginnings {
            let partition = beginning.topic_partition();
            let Some(old) = known.iter().find(|known| known.topic_partition() == partition) else {
                continue;
            };
            if old.topic_id.iter().zip(&beginning.topic_id).any(|(old, new)| old != new) {
                continue;
            }
            let mut next = Some(0);
            while let Some(at) = next {
                let (mut docs, behind) = self.search_some(&target, &partition, at).await?;
                docs.retain(|doc| !doc.open);
                self.keep_bad(to, &partition, &docs).await?;
                next = behind;
            }
        }
        Ok(())
    }

    /// Of these records, those whose letters were sent.
    pub(crate) async fn were_sent(&self, generation: u64, places: &[Place]) -> Result<Vec<Place>> {
        let mut sent = Vec::new();
        for places in places.chunks(READ_MAX) {
            let id = |(partition, offset): &Place| {
                let doc = VerdictDoc::bad(&sent_letter(partition, *offset));
                self.kept_id(&of(generation), partition, &doc)
            };
            let known: Vec<Option<Versioned<VerdictDoc>>> =
                self.read(&places.iter().map(id).collect::<Vec<_>>()).await?;
            let known = known.iter().zip(places);
            let was_sent = known.filter(|(doc, _)| doc.as_ref().is_some_and(|it| !it.value.open));
            sent.extend(was_sent.map(|(_, place)| place.clone()));
        }
        Ok(sent)
    }

    /// Letters that wait in these partitions, at most `max`.
    pub(crate) async fn letters(
        &self,
        generation: u64,
        partitions: &[TopicPartition],
        max: usize,
    ) -> Result<Vec<(Place, DeadLetter)>> {
        self.refresh().await?;
        let mut found = Vec::new();
        for partition in partitions {
            let Some(place) = self.place(generation, partition).await? else { continue };
            let mut from = Some(0);
            while let Some(at) = from.filter(|_| found.len() < max) {
                let (mut docs, next) = self.bad(&place, at).await?;
                docs.retain(|doc| doc.open);
                docs.truncate(max.saturating_sub(found.len()));
                for docs in docs.chunks(READ_MAX) {
                    found.append(&mut self.whole(generation, partition, docs).await?);
                }
                from = next;
            }
        }
        Ok(found)
    }

    /// These records with their letters.
    async fn whole(
        &self,
        generation: u64,
        partition: &TopicPartition,
        docs: &[VerdictDoc],
    ) -> Result<Vec<(Place, DeadLetter)>> {
        let ids: Vec<String> =
            docs.iter().map(|doc| self.kept_id(&of(generation), partition, doc)).collect();
        let whole: Vec<Option<Versioned<VerdictDoc>>> = self.read(&ids).await?;
        let mut letters = Vec::with_capacity(docs.len());
        for doc in whole.into_iter().flatten() {
            let place: Place = (partition.clone(), doc.value.offset);
            if let Some(text) = &doc.value.letter {
                let letter = read_letter(&place, text)?;
                letters.push((place, letter));
            }
        }
        Ok(letters)
    }

    /// These letters are acknowledged.
    pub(crate) async fn letters_sent(&self, generation: u64, places: &[Place]) -> Result<()> {
        for (partition, offset) in places {
            let doc = VerdictDoc::bad(&sent_letter(partition, *offset));
            self.keep_bad(generation, partition, &[doc]).await?;
        }
        Ok(())
    }
}
