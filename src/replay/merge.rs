//! Stretches of partitions as one sequence of records, the earliest timestamp first.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_api::hole::{Hole, without};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::source::{Chunk, Reader, Stretch};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use crate::policy::{Reaction, backoff, reaction};

/// A read is tried so often before its error is told: about half a minute.
const ATTEMPTS: u32 = 8;
const CHUNK_MIN: usize = 64 << 10;
const CHUNK_MAX: usize = 4 << 20;
/// Of a lane's share of memory: what is here, what is read meanwhile, and what the reader fetches ahead.
const CHUNKS: usize = 4;

/// So many lanes are read for at a time.
const ASKED_MAX: usize = 32;

/// See the module. Each partition keeps its own order, whatever the timestamps say. Chunks are read beside
/// whoever takes the records, for the lanes that need them most.
pub(crate) struct Merge {
    /// Away while it reads.
    reader: Option<Box<dyn Reader>>,
    reading: Option<Reading>,
    memory: usize,
    /// What is not read.
    holes: Vec<Hole>,
    lanes: Vec<Lane>,
    /// The first record's timestamp of each lane that has records; where two are equal, the partition
    /// decides.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    /// Lanes that have room for a chunk and may have more, but for those that are read.
    thirsty: Vec<usize>,
    /// How many lanes have no record here and may have more: nothing can be taken while there is one.
    dry: usize,
}

struct Lane {
    partition: TopicPartition,
    /// Where it is read on.
    next: Position,
    to: Position,
    records: VecDeque<Record>,
    /// It is thirsty at so few records: what came at most at once.
    low: usize,
    /// It is thirsty, or read.
    asks: bool,
}

impl Lane {
    fn may_have_more(&self) -> bool {
        self.next < self.to
    }

    /// What is to be read next; none where only holes are left.
    fn piece(&self, holes: &[Hole]) -> Option<Stretch> {
        let (partition, from, to) = (self.partition.clone(), self.next, self.to);
        without(&Stretch { partition, from, to }, holes).into_iter().next()
    }

    /// Stands behind the hole that it stands in.
    fn pass_holes(&mut self, holes: &[Hole]) {
        if self.may_have_more() {
            self.next = self.piece(holes).map_or(self.to, |piece| piece.from);
        }
    }

    /// Whether it is thirsty now and was not before.
    fn begins_to_ask(&mut self) -> bool {
        let thirsty = self.may_have_more() && self.records.len() <= self.low && !self.asks;
        self.asks |= thirsty;
        thirsty
    }
}

struct Reading {
    lanes: Vec<usize>,
    read: AbortOnDropHandle<(Box<dyn Reader>, Result<Chunk>)>,
}

impl Merge {
    /// Of nothing yet; `memory` bounds, in bytes, what is read ahead.
    pub(crate) fn new(reader: Box<dyn Reader>, memory: usize) -> Self {
        Merge {
            reader: Some(reader),
            reading: None,
            memory,
            holes: Vec::new(),
            lanes: Vec::new(),
            heads: BinaryHeap::new(),
            thirsty: Vec::new(),
            dry: 0,
        }
    }

    /// Reads nothing of these from now on, and of no others any more.
    pub(crate) fn leave_out(&mut self, holes: &[Hole]) {
        self.holes = holes.to_vec();
    }

    /// Reads on to the ends of `stretches`; their beginnings count for partitions that are new here.
    pub(crate) fn extend(&mut self, stretches: &[Stretch]) {
        for stretch in stretches {
            let known = self.lanes.iter().position(|lane| lane.partition == stretch.partition);
            let at = known.unwrap_or_else(|| {
                let TopicPartition { topic, partition } = &stretch.partition;
                // One name for all of a topic's records: whoever takes them compares pointers.
                let same = self.lanes.iter().find(|lane| lane.partition.topic == *topic);
                let topic = Arc::clone(same.map_or(topic, |lane| &lane.partition.topic));
                self.lanes.push(Lane {
                    partition: TopicPartition { topic, partition: *partition },
                    next: stretch.from,
                    to: stretch.from,
                    records: VecDeque::new(),
                    low: 0,
                    asks: false,
                });
                self.lanes.len() - 1
            });
            let Some(lane) = self.lanes.get_mut(at) else { continue };
            let had_more = lane.may_have_more();
            lane.to = lane.to.max(stretch.to);
            if self.reading.as_ref().is_none_or(|reading| !reading.lanes.contains(&at)) {
                lane.pass_holes(&self.holes);
            }
            self.dry += usize::from(!had_more && lane.may_have_more() && lane.records.is_empty());
            if lane.begins_to_ask() {
                self.thirsty.push(at);
            }
        }
    }

    /// Offsets that are still to be read.
    pub(crate) fn remaining(&self) -> u64 {
        let left = |lane: &Lane| {
            let at = lane.records.front().map_or(lane.next.0, |record| record.offset);
            u64::try_from(lane.to.0 - at).unwrap_or(0)
        };
        self.lanes.iter().map(left).sum()
    }

    /// The next record; none at the end of all stretches. Cancel-safe.
    ///
    /// # Errors
    /// What the reader says, once waiting has not cured it. It may be asked again.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>> {
        self.until_ready().await?;
        Ok(self.take())
    }

    /// The next records: those that are here, but no more than `most`; none at the end of all stretches.
    /// Cancel-safe.
    ///
    /// # Errors
    /// As of [`Merge::next`].
    pub(crate) async fn some(&mut self, most: usize) -> Result<Vec<Record>> {
        self.until_ready().await?;
        let ready = std::iter::from_fn(|| if self.dry == 0 { self.take() } else { None });
        Ok(ready.take(most).collect())
    }

    /// Takes in what was read; waits where a lane is dry. A read is under way afterwards, where one is wanted.
    async fn until_ready(&mut self) -> Result<()> {
        loop {
            if self.read_on()? {
                // Else it would begin only when this task waits for something.
                tokio::task::yield_now().await;
            }
            let is_here = self.reading.as_ref().is_some_and(|reading| reading.read.is_finished());
            if self.dry == 0 && !is_here {
                return Ok(());
            }
            let Some(Reading { read, .. }) = &mut self.reading else { return Ok(()) };
            let read = read.await;
            self.has_read(read)?;
        }
    }

    fn has_read(
        &mut self,
        read: std::result::Result<(Box<dyn Reader>, Result<Chunk>), JoinError>,
    ) -> Result<()> {
        let Some(Reading { mut lanes, .. }) = self.reading.take() else { return Ok(()) };
        let (reader, chunk) = read.map_err(|e| Error::config(format!("reading the log: {e}")))?;
        self.reader = Some(reader);
        let chunk = match chunk {
            Ok(chunk) if chunk.of < lanes.len() => chunk,
            chunk => {
                self.thirsty.append(&mut lanes);
                return chunk.map(drop);
            }
        };
        let at = lanes.remove(chunk.of);
        self.thirsty.append(&mut lanes);
        self.fill(at, chunk);
        Ok(())
    }

    /// Takes the first record; `dry` must be zero.
    fn take(&mut self) -> Option<Record> {
        let mut head = self.heads.peek_mut()?;
        let Reverse((_, at)) = *head;
        let lane = self.lanes.get_mut(at)?;
        let record = lane.records.pop_front();
        if let Some(first) = lane.records.front() {
            *head = Reverse((time(first), at));
            drop(head);
        } else {
            PeekMut::pop(head);
            self.dry += usize::from(lane.may_have_more());
        }
        if lane.begins_to_ask() {
            self.thirsty.push(at);
        }
        record
    }

    /// Begins to read for those that need it most, unless it is done already; whether it began.
    fn read_on(&mut self) -> Result<bool> {
        if self.thirsty.is_empty() || self.reading.is_some() {
            return Ok(false);
        }
        let Some(mut reader) = self.reader.take() else {
            return Err(Error::config("reading the log broke off; begin again"));
        };
        let mut asked = std::mem::take(&mut self.thirsty);
        asked.sort_by_key(|at| self.lanes.get(*at).map_or(0, |lane| lane.records.len()));
        self.thirsty = asked.split_off(asked.len().min(ASKED_MAX));
        let stretch = |at: &usize| {
            let lane = self.lanes.get(*at)?;
            let (partition, from, to) = (lane.partition.clone(), lane.next, lane.to);
            Some(lane.piece(&self.holes).unwrap_or(Stretch { partition, from, to }))
        };
        let stretches: Vec<Stretch> = asked.iter().filter_map(stretch).collect();
        let bytes = (self.memory / CHUNKS / self.lanes.len().max(1)).clamp(CHUNK_MIN, CHUNK_MAX);
        let read = tokio::spawn(async move {
            let chunk = read(reader.as_mut(), &stretches, bytes).await;
            (reader, chunk)
        });
        self.reading = Some(Reading { lanes: asked, read: AbortOnDropHandle::new(read) });
        Ok(true)
    }

    fn fill(&mut self, at: usize, chunk: Chunk) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let was_dry = lane.records.is_empty();
        lane.next = chunk.next;
        lane.pass_holes(&self.holes);
        lane.low = lane.low.max(chunk.records.len());
        lane.records.extend(chunk.records);
        if let Some(first) = lane.records.front()
            && was_dry
        {
            self.heads.push(Reverse((time(first), at)));
        }
        let is_dry = lane.records.is_empty() && lane.may_have_more();
        self.dry = self.dry + usize::from(is_dry) - usize::from(was_dry);
        lane.asks = false;
        if lane.begins_to_ask() {
            self.thirsty.push(at);
        }
    }
}

fn time(record: &Record) -> i64 {
    record.timestamp.unwrap_or(i64::MIN)
}

/// Reads a chunk, again where waiting may help.
async fn read(reader: &mut dyn Reader, wanted: &[Stretch], bytes: usize) -> Result<Chunk> {
    let mut attempt = 0;
    loop {
        match reader.read(wanted, bytes).await {
            Err(error) if reaction(error.class()) == Reaction::Retry && attempt < ATTEMPTS => {
                tracing::warn!(%error, attempt, "reading the log again failed, trying again");
                tokio::time::sleep(backoff(attempt)).await;
                attempt += 1;
            }
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use foldline_api::source::Log;
    use foldline_testkit::{MemoryLog, Rng};

    use super::*;

    fn stretch(partition: i32, from: i64, to: i64) -> Stretch {
        let partition = TopicPartition::new("t", partition);
        Stretch { partition, from: Position(from), to: Position(to) }
    }

    async fn drain(merge: &mut Merge) -> Vec<(i32, i64)> {
        let mut out = Vec::new();
        while let Some(record) = merge.next().await.unwrap() {
            out.push((record.partition, record.offset));
        }
        out
    }

    #[tokio::test]
    async fn holes_are_not_read() {
        let log = MemoryLog::new("log");
        log.create_topic("t", 2);
        for time in 0..40 {
            let partition = i32::from(time % 2 == 1);
            log.append_record("t", partition, (None, None), Vec::new(), Some(time));
        }
        let hole = |partition, from, to| {
            let Stretch { partition, from, to } = stretch(partition, from, to);
            Hole::new(partition, from, to)
        };
        let holes = [hole(0, 0, 3), hole(0, 5, 6), hole(1, 4, 9), hole(1, 18, 20)];
        let mut merge = Merge::new(log.group("g", &["t"]).reader().unwrap(), 1);
        merge.leave_out(&holes[..2]);
        merge.extend(&[stretch(0, 0, 5), stretch(1, 0, 4)]);
        let mut found = drain(&mut merge).await;
        // What was left out since, when the books stand behind it.
        merge.leave_out(&holes);
        for to in [9, 20] {
            merge.extend(&[stretch(0, 0, to), stretch(1, 0, to)]);
            found.extend(drain(&mut merge).await);
        }
        found.sort_unstable();
        let is_read = |(partition, offset): &(i32, i64)| match partition {
            0 => *offset >= 3 && *offset != 5,
            _ => !(4..9).contains(offset) && *offset < 18,
        };
        let all = (0..2).flat_map(|partition| (0..20).map(move |offset| (partition, offset)));
        assert_eq!(found, all.filter(is_read).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn partitions_are_merged_by_time_and_keep_their_own_order() {
        let log = MemoryLog::new("log");
        log.create_topic("t", 2);
        for (partition, timestamp) in [(0, 10), (0, 5), (0, 40), (1, 7), (1, 30), (1, 50)] {
            log.append_record("t", partition, (None, None), Vec::new(), Some(timestamp));
        }
        log.append_marker("t", 1);
        let group = log.group("g", &["t"]);
        let mut merge = Merge::new(group.reader().unwrap(), 1);
        merge.extend(&[stretch(0, 0, 3), stretch(1, 0, 2)]);
        assert_eq!(merge.remaining(), 5);
        assert_eq!(drain(&mut merge).await, [(1, 0), (0, 0), (0, 1), (1, 1), (0, 2)]);
        // It goes on where it stood; an offset without a record is no reason to wait.
        merge.extend(&[stretch(1, 0, 4)]);
        assert_eq!(drain(&mut merge).await, [(1, 2)]);
        assert_eq!(merge.remaining(), 0);
    }

    /// Reads a few records at a time, sometimes none, and sometimes fails.
    struct Choppy(Box<dyn Reader>, Rng);

    #[async_trait]
    impl Reader for Choppy {
        async fn read(&mut self, wanted: &[Stretch], bytes: usize) -> Result<Chunk> {
            tokio::time::sleep(Duration::from_millis(self.1.below(3))).await;
            if self.1.chance(50) {
                return Err(Error::config("unreadable"));
            }
            let of = usize::try_from(self.1.below(wanted.len() as u64)).unwrap();
            let Stretch { partition, from, to } = wanted[of].clone();
            let until = from.0 + i64::try_from(self.1.below(9)).unwrap();
            let to = to.min(Position(until));
            let chunk = self.0.read(&[Stretch { partition, from, to }], bytes).await?;
            Ok(Chunk { of, ..chunk })
        }
    }

    #[test]
    fn any_chunks_errors_and_cuts_give_the_merged_log() {
        for seed in 0..300 {
            crate::task::simulation::one_seed(seed, async |seed| {
                let mut rng = Rng::new(seed);
                let log = MemoryLog::new("log");
                log.create_topic("t", 4);
                let mut now = [0; 4];
                for _ in 0..rng.below(200) {
                    let of = usize::try_from(rng.below(4)).unwrap();
                    now[of] += i64::try_from(rng.below(20)).unwrap();
                    let place = i32::try_from(of).unwrap();
                    log.append_record("t", place, (None, None), Vec::new(), Some(now[of]));
                    if rng.chance(100) {
                        log.append_marker("t", place);
                    }
                }
                let mut expect = log.records("t");
                expect.sort_by_key(|r| (r.timestamp, r.partition));
                let reader = log.group("g", &["t"]).reader().unwrap();
                let mut merge = Merge::new(Box::new(Choppy(reader, Rng::new(seed ^ 1))), 1);
                let infos = log.group("g", &["t"]).partitions().await.unwrap();
                let ends: Vec<_> =
                    infos.iter().map(|i| stretch(i.partition.partition, 0, i.high.0)).collect();
                merge.extend(&ends);
                let mut found = Vec::new();
                loop {
                    // Cut off now and then, as a rebalance does.
                    let patience = Duration::from_millis(1 + rng.below(4));
                    let most = 1 + usize::try_from(rng.below(5)).unwrap();
                    match tokio::time::timeout(patience, merge.some(most)).await {
                        Ok(Ok(records)) if records.is_empty() => break,
                        Ok(Ok(records)) => found.extend(records),
                        Ok(Err(_)) | Err(_) => {}
                    }
                }
                let places = |records: &[Record]| -> Vec<_> {
                    records.iter().map(|r| (r.partition, r.offset)).collect()
                };
                assert_eq!(places(&found), places(&expect), "seed {seed}");
                assert_eq!(merge.remaining(), 0);
            });
        }
    }
}
