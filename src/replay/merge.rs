//! Stretches of partitions as one sequence of records, the earliest timestamp first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use foldline_api::error::Result;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::source::{Chunk, Reader};

use super::Stretch;
use crate::policy::{Reaction, backoff, reaction};

/// A read is tried so often before its error ends the replay: about half a minute.
const ATTEMPTS: u32 = 8;
const CHUNK_MIN: usize = 64 << 10;
const CHUNK_MAX: usize = 4 << 20;

/// See the module. Each partition keeps its own order, whatever the timestamps say.
pub(crate) struct Merge {
    reader: Box<dyn Reader>,
    memory: usize,
    lanes: Vec<Lane>,
    /// The first record's timestamp of each lane that has records; where two are equal, the partition
    /// decides.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    /// Lanes that may have more, and have no record here.
    hungry: Vec<usize>,
}

struct Lane {
    partition: TopicPartition,
    next: Position,
    to: Position,
    records: VecDeque<Record>,
}

impl Merge {
    pub(crate) fn new(reader: Box<dyn Reader>, memory: usize) -> Self {
        let (lanes, hungry) = (Vec::new(), Vec::new());
        Merge { reader, memory, lanes, heads: BinaryHeap::new(), hungry }
    }

    /// Reads on to the ends of `stretches`; their beginnings count for partitions that are new here.
    pub(crate) fn extend(&mut self, stretches: &[Stretch]) {
        for stretch in stretches {
            let known = self.lanes.iter().position(|lane| lane.partition == stretch.partition);
            let at = known.unwrap_or_else(|| {
                self.lanes.push(Lane {
                    partition: stretch.partition.clone(),
                    next: stretch.from,
                    to: stretch.from,
                    records: VecDeque::new(),
                });
                self.lanes.len() - 1
            });
            let Some(lane) = self.lanes.get_mut(at) else { continue };
            lane.to = lane.to.max(stretch.to);
            if lane.records.is_empty() && lane.next < lane.to && !self.hungry.contains(&at) {
                self.hungry.push(at);
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

    /// The next record; none at the end of all stretches.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>> {
        while let Some(at) = self.hungry.pop() {
            self.fill(at).await?;
        }
        let Some(Reverse((_, at))) = self.heads.pop() else { return Ok(None) };
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(None) };
        let record = lane.records.pop_front();
        if let Some(head) = lane.records.front() {
            self.heads.push(Reverse((head.timestamp.unwrap_or(i64::MIN), at)));
        } else if lane.next < lane.to {
            self.hungry.push(at);
        }
        Ok(record)
    }

    async fn fill(&mut self, at: usize) -> Result<()> {
        let bytes = (self.memory / self.lanes.len().max(1)).clamp(CHUNK_MIN, CHUNK_MAX);
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(()) };
        let mut attempt = 0;
        while lane.records.is_empty() && lane.next < lane.to {
            match self.reader.read(&lane.partition, lane.next, lane.to, bytes).await {
                Ok(Chunk { records, next }) => {
                    lane.records.extend(records);
                    lane.next = next;
                }
                Err(error) if reaction(error.class()) == Reaction::Retry && attempt < ATTEMPTS => {
                    tracing::warn!(%error, attempt, "reading the log again failed, trying again");
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(head) = lane.records.front() {
            self.heads.push(Reverse((head.timestamp.unwrap_or(i64::MIN), at)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::source::Log;
    use foldline_testkit::MemoryLog;

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
}
