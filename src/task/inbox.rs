//! What was delivered and not folded yet, and when a batch is cut from it. Pure: the clock is an
//! argument.

use std::collections::VecDeque;
use std::time::Duration;

use foldline_api::record::{Position, Record, TopicPartition};
use tokio::time::Instant;

use crate::maps::HashSet;

/// One thing delivered.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A record.
    Record(Record),
    /// All of the partition so far was delivered; the position may lie behind transaction markers.
    End(TopicPartition, Position),
}

impl Item {
    /// The record, where it is one.
    pub(crate) fn record(&self) -> Option<&Record> {
        match self {
            Item::Record(record) => Some(record),
            Item::End(..) => None,
        }
    }

    /// The record's timestamp, in milliseconds since the epoch.
    pub(crate) fn timestamp(&self) -> Option<i64> {
        self.record()?.timestamp
    }
}

/// When a batch is cut.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most so many records.
    pub rows: usize,
    /// At most so many bytes of records.
    pub bytes: usize,
    /// As soon as the oldest record has waited so long and nothing is in its way.
    pub age: Duration,
}

/// The first batch has at most so many records; while states fit in the memory for them, the next has twice
/// as many. How large rows are shows only when they are loaded.
const FIRST_ROWS: usize = 2_000;

/// After a batch that took too long, so many go through before a larger one is tried.
const LIMITED_BATCHES: u32 = 64;

/// The queue before the fold.
#[derive(Debug)]
pub(crate) struct Inbox {
    items: VecDeque<Item>,
    records: usize,
    bytes: usize,
    since: Option<Instant>,
    limits: Limits,
    /// Below `limits.rows` while the record to blame is searched, or writers collide.
    rows: usize,
    /// Neither is so: a batch may grow while it waits for another's write.
    calm: bool,
    /// What the store has time for, and how many batches of it are to go through yet.
    limited: Option<(usize, u32)>,
}

impl Inbox {
    pub(crate) fn new(limits: Limits) -> Self {
        Inbox {
            items: VecDeque::new(),
            records: 0,
            bytes: 0,
            since: None,
            limits,
            rows: limits.rows.min(FIRST_ROWS),
            calm: limits.rows <= FIRST_ROWS,
            limited: None,
        }
    }

    pub(crate) fn push(&mut self, item: Item, now: Instant) {
        self.count(&item);
        self.since.get_or_insert(now);
        self.items.push_back(item);
    }

    fn count(&mut self, item: &Item) {
        if let Item::Record(record) = item {
            self.records += 1;
            self.bytes += record.bytes();
        }
    }

    /// Puts the items of a batch back before all others, to be folded again.
    pub(crate) fn put_back(&mut self, items: Vec<Item>, now: Instant) {
        for item in items.into_iter().rev() {
            self.count(&item);
            self.items.push_front(item);
        }
        // They have waited already.
        self.since = Some(now.checked_sub(self.limits.age).unwrap_or(now));
    }

    /// Drops the items of `partitions`, or of all; returns how many records that were.
    pub(crate) fn drop_partitions(&mut self, partitions: Option<&HashSet<TopicPartition>>) -> u64 {
        let before = self.records;
        let gone = |topic: &TopicPartition| partitions.is_none_or(|set| set.contains(topic));
        let (mut records, mut bytes) = (0, 0);
        self.items.retain(|item| {
            let partition = match item {
                Item::Record(record) => record.topic_partition(),
                Item::End(partition, _) => partition.clone(),
            };
            if gone(&partition) {
                return false;
            }
            if let Item::Record(record) = item {
                records += 1;
                bytes += record.bytes();
            }
            true
        });
        self.records = records;
        self.bytes = bytes;
        if self.items.is_empty() {
            self.since = None;
        }
        (before - records) as u64
    }

    /// The records' timestamps, in milliseconds since the epoch.
    pub(crate) fn timestamps(&self) -> impl Iterator<Item = i64> {
        self.items.iter().filter_map(Item::timestamp)
    }

    /// Records waiting.
    #[cfg(test)]
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Whether another delivery may be taken in: twice a batch is enough to overlap reading and folding.
    pub(crate) fn has_room(&self) -> bool {
        self.records < self.limits.rows.saturating_mul(2)
            && self.bytes < self.limits.bytes.saturating_mul(2)
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// When the oldest item has waited long enough; none where nothing waits.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.limits.age)
    }

    /// Cuts a batch if it is time. Never splits a record; takes at least one item.
    pub(crate) fn cut(&mut self, now: Instant) -> Option<Vec<Item>> {
        let due = self.due()? <= now;
        if !due && self.records < self.rows && self.bytes < self.limits.bytes {
            return None;
        }
        if self.records <= self.rows && self.bytes <= self.limits.bytes {
            (self.records, self.bytes, self.since) = (0, 0, None);
            return Some(self.items.drain(..).collect());
        }
        let (mut count, mut records, mut bytes) = (0, 0, 0);
        for item in &self.items {
            if records >= self.rows || bytes >= self.limits.bytes {
                break;
            }
            if let Item::Record(record) = item {
                records += 1;
                bytes += record.bytes();
            }
            count += 1;
        }
        self.records -= records;
        self.bytes = self.bytes.saturating_sub(bytes);
        let taken = self.items.drain(..count).collect();
        self.since = (!self.items.is_empty()).then_some(now);
        Some(taken)
    }

    /// The next batch is at most half of `records`: the record to blame is in there, or another writer
    /// is in the way.
    pub(crate) fn narrow(&mut self, records: usize) {
        self.rows = (records / 2).clamp(1, self.limits.rows.max(1));
        self.calm = false;
    }

    /// A batch of `records` took the store too long: the next ones are at most half of it, and for a while.
    pub(crate) fn limit(&mut self, records: usize) {
        self.narrow(records);
        self.limited = Some((self.rows, LIMITED_BATCHES));
    }

    /// A batch went through: the bound grows back.
    pub(crate) fn widen(&mut self) {
        self.limited = match self.limited.take() {
            Some((rows, 0)) => {
                let rows = rows.saturating_mul(2);
                (rows < self.limits.rows).then_some((rows, LIMITED_BATCHES))
            }
            limited => limited.map(|(rows, left)| (rows, left - 1)),
        };
        let rows_max = self.limited.map_or(self.limits.rows, |(rows, _)| rows);
        self.calm = self.rows >= self.limits.rows;
        self.rows = self.rows.saturating_mul(2).min(rows_max);
    }

    /// The next batch does not grow: what is folded meanwhile may be void.
    pub(crate) fn stay_small(&mut self) {
        self.calm = false;
    }

    /// Whether a batch of so many rows may grow while another is written: then each row is written once
    /// for all that comes meanwhile.
    pub(crate) fn lets_grow(&self, rows: usize) -> bool {
        self.calm && rows < self.limits.rows.saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn record(partition: i32, offset: i64) -> Item {
        Item::Record(Record {
            topic: Arc::from("t"),
            partition,
            offset,
            timestamp: None,
            key: None,
            value: Some(bytes::Bytes::from_static(b"0123456789")),
            headers: Vec::new(),
        })
    }

    fn offsets(items: &[Item]) -> Vec<i64> {
        items
            .iter()
            .filter_map(|item| match item {
                Item::Record(record) => Some(record.offset),
                Item::End(..) => None,
            })
            .collect()
    }

    fn inbox(rows: usize) -> Inbox {
        Inbox::new(Limits { rows, bytes: 1 << 20, age: Duration::from_millis(10) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_cut_by_rows_or_age() {
        let mut inbox = inbox(3);
        let start = Instant::now();
        inbox.push(record(0, 0), start);
        inbox.push(record(0, 1), start);
        assert!(inbox.cut(start).is_none(), "young and small");
        inbox.push(record(0, 2), start);
        inbox.push(record(0, 3), start);
        assert_eq!(offsets(&inbox.cut(start).unwrap()), [0, 1, 2]);
        assert!(inbox.cut(start).is_none());
        let later = start + Duration::from_millis(10);
        assert_eq!(offsets(&inbox.cut(later).unwrap()), [3]);
        assert!(inbox.cut(later).is_none(), "empty");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_back_comes_first_and_narrowed() {
        let mut inbox = inbox(8);
        let now = Instant::now();
        (0..8).for_each(|n| inbox.push(record(0, n), now));
        let batch = inbox.cut(now).unwrap();
        inbox.push(record(0, 8), now);
        inbox.narrow(batch.len());
        inbox.put_back(batch, now);
        assert_eq!(offsets(&inbox.cut(now).unwrap()), [0, 1, 2, 3]);
        inbox.narrow(1);
        assert_eq!(offsets(&inbox.cut(now).unwrap()), [4]);
        inbox.widen();
        let later = now + Duration::from_secs(1);
        assert_eq!(offsets(&inbox.cut(later).unwrap()), [5, 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_grows_up_to_twice_its_rows_and_not_while_records_are_searched() {
        let mut inbox = inbox(8);
        assert!(inbox.lets_grow(15) && !inbox.lets_grow(16));
        inbox.narrow(16);
        assert!(!inbox.lets_grow(0), "the record to blame is searched in at most 8");
        inbox.widen();
        assert!(inbox.lets_grow(0));
        inbox.stay_small();
        assert!(!inbox.lets_grow(0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_took_too_long_stays_small_for_a_while_and_is_tried_again() {
        let mut inbox = inbox(1_000);
        let now = Instant::now();
        (0..200_000).for_each(|n| inbox.push(record(0, n), now));
        inbox.limit(80);
        let mut largest = 0;
        for _ in 0..LIMITED_BATCHES {
            largest = largest.max(inbox.cut(now).unwrap().len());
            inbox.widen();
        }
        assert_eq!(largest, 40, "more took too long");
        for _ in 0..LIMITED_BATCHES * 5 {
            largest = largest.max(inbox.cut(now).unwrap().len());
            inbox.widen();
        }
        assert_eq!(largest, 1_000, "the store may have become faster");
        inbox.limit(1);
        assert_eq!(inbox.cut(now).unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn partitions_that_go_take_their_records_along() {
        let mut inbox = inbox(8);
        let now = Instant::now();
        for n in 0..6 {
            inbox.push(record(n % 2, i64::from(n)), now);
        }
        let gone = HashSet::from_iter([TopicPartition::new("t", 1)]);
        assert_eq!(inbox.drop_partitions(Some(&gone)), 3);
        assert_eq!(inbox.records(), 3);
        assert_eq!(inbox.drop_partitions(None), 3);
        assert!(inbox.due().is_none());
    }
}
