//! States of keys, bounded in bytes. Owned by one task; valid only for the version they carry.

use foldline_api::model::{Key, Row};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Loaded, Mark, Marks, Version};
use hashbrown::hash_map::EntryRef;

use super::let_go::LetGo;
use super::needed::States;
use crate::maps::HashMap;

/// What a row has beyond this counts half as much again: on its way from the store and to it a large one is there in copies
/// that are as large.
const LARGE: usize = 256 << 10;

/// A key's state as this task believes it to be.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The row after every event folded so far; none where there is none.
    pub(crate) row: Option<Row>,
    /// The version in the store that `row`, less what is in flight, stands for.
    pub(crate) version: Version,
    /// The row's marks after every event folded so far. Apart, since rows of most stores have none.
    marks: Option<Box<Marks>>,
    /// The last batch that writes it.
    written: u64,
    /// The last batch that used it: it stays until that batch is durable.
    last_batch: u64,
    /// Bytes that are counted for it; of one so large that it does not fit, as many as do.
    bytes: u32,
    /// A write of ours to this row was acknowledged, so its marks are proven (rule 10).
    pub(crate) proven: bool,
    /// The store cannot even name its key, so nobody can make such a row.
    pub(crate) nowhere: bool,
    hot: bool,
}

impl Entry {
    fn new(key: &Key, loaded: Loaded, batch: u64) -> Self {
        let Loaded { row, version, marks } = loaded;
        let mut entry = Entry {
            row,
            version,
            marks: (!marks.is_empty()).then(|| Box::new(marks)),
            written: 0,
            last_batch: batch,
            bytes: 0,
            proven: false,
            nowhere: false,
            hot: true,
        };
        entry.bytes = entry.weigh(key);
        entry
    }

    /// The row's marks after every event folded so far.
    pub(crate) fn marks(&self) -> &[Mark] {
        self.marks.as_deref().map_or(&[], |marks| marks.as_slice())
    }

    /// Whether the event at `offset` of `partition` is already in this row.
    pub(crate) fn has(&self, partition: &TopicPartition, offset: i64) -> bool {
        self.marks().iter().any(|mark| mark.holds(partition, offset))
    }

    /// Notes that the event at `offset` of `partition` is in this row.
    pub(crate) fn mark(&mut self, partition: &TopicPartition, offset: i64) {
        let position = Position(offset + 1);
        let marks = self.marks.get_or_insert_default();
        match marks.iter_mut().find(|m| m.partition == *partition) {
            Some(mark) => mark.position = mark.position.max(position),
            None => marks.push(Mark { partition: partition.clone(), position }),
        }
    }

    /// Notes that `batch` writes this row; whether that is news.
    pub(crate) fn write_in(&mut self, batch: u64) -> bool {
        let news = self.written != batch;
        self.written = batch;
        news
    }

    /// Whether `batch` writes this row.
    pub(crate) fn is_written_in(&self, batch: u64) -> bool {
        self.written == batch
    }

    /// It was measured to be larger by so many bytes; the same.
    fn weigh_more(&mut self, by: isize) -> isize {
        let by = if self.bytes as usize > LARGE { by + by / 2 } else { by };
        self.bytes =
            u32::try_from((self.bytes as usize).saturating_add_signed(by)).unwrap_or(u32::MAX);
        by
    }

    /// Notes that `batch` has changed it, by so many bytes where that is known: whether that is news, and what it comes to.
    pub(crate) fn changed(&mut self, key: &Key, batch: u64, by: Option<isize>) -> (bool, Grown) {
        let (before, held) = (self.written, self.bytes as usize);
        let news = self.write_in(batch);
        let by = match by {
            // To measure a large row for each small event on it would cost more than the event.
            Some(by) if !news => self.weigh_more(by),
            _ => self.weigh_again(key),
        };
        (news, Grown { by, held: if news { (before, held) } else { (0, 0) } })
    }

    /// Counts its bytes anew; the difference.
    pub(crate) fn weigh_again(&mut self, key: &Key) -> isize {
        let before = self.bytes;
        self.bytes = self.weigh(key);
        self.bytes as isize - before as isize
    }

    /// By how many bytes `row` is larger than what is here; none where one of them is none.
    pub(crate) fn grown_to(&self, row: Option<&Row>) -> Option<isize> {
        Some(row?.grown_from(self.row.as_ref()?))
    }

    fn weigh(&self, key: &Key) -> u32 {
        // The table is some two thirds full, and the row's allocation has a head.
        const FIXED: usize = size_of::<(Key, Entry)>() * 3 / 2 + 16;
        let marks = self.marks.as_ref().map_or(0, |_| size_of::<Marks>() + 16);
        let row = self.row.as_ref().map_or(0, Row::heap_bytes);
        let bytes = FIXED + marks + key.heap_bytes() + row + row.saturating_sub(LARGE) / 2;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// How a change of a row counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grown {
    by: isize,
    /// The batch that wrote it before, and its bytes then: a write under way holds the row as it was.
    held: (u64, usize),
}

/// The states of one task's keys.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashMap<Key, Entry>,
    bytes: usize,
    bytes_max: usize,
    /// What batches up to this one used may be let go.
    durable: u64,
    /// The batch that is being written, and bytes of rows as it holds them that are others by now.
    writing: Option<u64>,
    held: usize,
    /// The last batch for which nothing more could be let go.
    tight: u64,
    /// The keys that were here and are not any more: one that is not among them is new. None where the
    /// store may have keys that never were here.
    let_go: Option<LetGo>,
}

impl Cache {
    /// A part of the memory is for the names of keys that were let go.
    const LET_GO: usize = 32;

    /// An empty cache that keeps at most about `bytes_max` between batches.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max - bytes_max / Self::LET_GO;
        Cache {
            entries: HashMap::default(),
            bytes: 0,
            bytes_max,
            durable: 0,
            writing: None,
            held: 0,
            tight: 0,
            let_go: None,
        }
    }

    /// An empty one of the same size.
    pub(crate) fn another(&self) -> Self {
        Cache::new(self.bytes_max + self.bytes_max / (Self::LET_GO - 1))
    }

    /// Takes in all that another one holds; this one is empty.
    pub(crate) fn adopt(&mut self, other: Cache) {
        (self.entries, self.bytes) = (other.entries, other.bytes);
    }

    /// Batch `number` is being written, or none any more.
    pub(crate) fn set_writing(&mut self, number: Option<u64>) {
        (self.writing, self.held) = (number, 0);
    }

    /// Bytes that are free.
    fn free(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes + self.held)
    }

    /// Makes room for so many bytes, as far as that can be had, and at most half of all; the bytes that are free then.
    pub(crate) fn make_room(&mut self, bytes: usize) -> usize {
        if self.free() < bytes {
            let wanted = bytes.clamp(self.bytes_max / 4, self.bytes_max / 2);
            self.shrink_to(self.bytes_max.saturating_sub(wanted + self.held));
        }
        self.free()
    }

    /// Whether batch `number` may take in more. Lets states go for it that no batch in flight uses, once.
    pub(crate) fn has_room(&mut self, number: u64) -> bool {
        if self.is_over() && self.tight != number {
            self.make_room(1);
            if self.is_over() {
                self.tight = number;
            }
        }
        !self.is_over()
    }

    /// Forgets everything: after a rollback, a reconnect, a revocation.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        // A write under way holds what it writes all the same.
        self.held = if self.writing.is_some() { self.bytes } else { 0 };
        self.bytes = 0;
        self.let_go = None;
    }

    /// Lets all states go, since they are durable: their keys are not new when they come again.
    pub(crate) fn let_all_go(&mut self) {
        if let Some(let_go) = &mut self.let_go {
            self.entries.keys().for_each(|key| let_go.insert(key));
        }
        self.let_go.take_if(|let_go| let_go.is_full());
        self.entries.clear();
        self.bytes = 0;
    }

    /// Forgets what batch `number` or a later one used: their rows may have moved on in the store. What was
    /// left alone is valid for its version as before.
    pub(crate) fn forget_since(&mut self, number: u64) {
        let mut bytes = 0;
        self.entries.retain(|_, entry| {
            let kept = entry.last_batch < number;
            bytes += if kept { entry.bytes as usize } else { 0 };
            kept
        });
        self.bytes = bytes;
        self.let_go = None;
    }

    /// The target was empty when its partitions were acquired: a key that is not here is new. Only a
    /// hint; the insert that follows does nothing where there is a row after all.
    pub(crate) fn set_complete(&mut self, complete: bool) {
        if complete {
            self.let_go.get_or_insert_with(|| LetGo::new(self.bytes_max / Self::LET_GO));
        } else {
            self.let_go = None;
        }
    }

    /// Whether a key that is not here may be known to be new.
    #[cfg(test)]
    pub(crate) fn is_complete(&self) -> bool {
        self.let_go.is_some()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The entry, to be used and changed by batch `batch`; a key that is known to be new gets one.
    pub(crate) fn touch(&mut self, key: &Key, batch: u64) -> Option<&mut Entry> {
        let entry = match self.entries.entry_ref(key) {
            EntryRef::Occupied(entry) => entry.into_mut(),
            EntryRef::Vacant(place) if self.let_go.as_ref().is_some_and(|l| !l.may_have(key)) => {
                let absent = Loaded { row: None, version: Version::Absent, marks: Marks::new() };
                let entry = Entry::new(key, absent, batch);
                self.bytes += entry.bytes as usize;
                place.insert(entry)
            }
            EntryRef::Vacant(_) => return None,
        };
        entry.last_batch = batch;
        entry.hot = true;
        Some(entry)
    }

    /// A write of this row became durable as `version`.
    pub(crate) fn written(&mut self, key: &Key, version: Version) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.version = version;
            entry.proven = true;
        }
    }

    /// Takes a state in as the store has it.
    pub(crate) fn insert(&mut self, key: Key, loaded: Loaded, batch: u64) {
        let entry = Entry::new(&key, loaded, batch);
        self.bytes += entry.bytes as usize;
        if let Some(before) = self.entries.insert(key, entry) {
            self.bytes = self.bytes.saturating_sub(before.bytes as usize);
        }
    }

    /// Takes in what was read of the store.
    pub(super) fn take(&mut self, states: States, batch: u64) {
        for (key, loaded) in states.loaded {
            self.insert(key, loaded, batch);
        }
        for key in states.nowhere {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.nowhere = true;
            }
        }
    }

    /// A row has grown, or shrunk.
    pub(crate) fn grow(&mut self, Grown { by, held: (batch, bytes) }: Grown) {
        self.bytes = self.bytes.saturating_add_signed(by);
        if self.writing == Some(batch) {
            self.held += bytes;
        }
    }

    /// Gives back what is over the bound. What a batch after `durable` uses stays.
    pub(crate) fn shrink(&mut self, durable: u64) {
        self.durable = durable;
        if self.bytes > self.bytes_max {
            self.shrink_to(self.bytes_max / 4 * 3);
        }
    }

    /// Lets entries go until so many bytes are left: those not used since the last time go first, and those of batches in
    /// flight stay.
    fn shrink_to(&mut self, goal: usize) {
        let durable = self.durable;
        for _ in 0..2 {
            if self.bytes <= goal {
                return;
            }
            let mut bytes = self.bytes;
            let let_go = &mut self.let_go;
            self.entries.retain(|key, entry| {
                if bytes <= goal || entry.last_batch > durable {
                    return true;
                }
                if entry.hot {
                    entry.hot = false;
                    return true;
                }
                bytes = bytes.saturating_sub(entry.bytes as usize);
                if let Some(let_go) = let_go {
                    let_go.insert(key);
                }
                false
            });
            self.let_go.take_if(|let_go| let_go.is_full());
            self.bytes = bytes;
        }
    }

    /// Whether more is held than should be, because batches in flight use it.
    pub(crate) fn is_over(&self) -> bool {
        self.bytes + self.held > self.bytes_max
    }

    /// Bytes held, roughly.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::value::Value;

    use super::*;

    fn key(n: i64) -> Key {
        Key::new(vec![Value::Int(n)])
    }

    fn loaded(n: i64) -> Loaded {
        let row = Row::new(vec![Value::Int(n), Value::text(&"x".repeat(100))]);
        Loaded { row: Some(row), version: Version::At(1, 0), marks: Marks::new() }
    }

    #[test]
    fn what_a_batch_in_flight_uses_stays() {
        let mut cache = Cache::new(10_000);
        cache.set_complete(true);
        for n in 0..100 {
            cache.insert(key(n), loaded(n), if n < 50 { 1 } else { 2 });
        }
        cache.shrink(1);
        assert!((50..100).all(|n| cache.get(&key(n)).is_some()));
        cache.shrink(2);
        assert!(cache.bytes() <= 10_000);
    }

    #[test]
    fn a_key_that_was_let_go_is_not_new_and_one_that_never_was_here_is() {
        let mut cache = Cache::new(100_000);
        cache.set_complete(true);
        for n in 0..1_000 {
            cache.insert(key(n), loaded(n), 1);
        }
        cache.shrink(1);
        let here = |cache: &Cache, n| cache.get(&key(n)).is_some();
        let gone: Vec<i64> = (0..1_000).filter(|n| !here(&cache, *n)).collect();
        assert!(gone.len() > 500);
        assert!(gone.iter().all(|n| cache.touch(&key(*n), 2).is_none()), "it is in the store");
        cache.let_all_go();
        assert_eq!(cache.bytes(), 0);
        assert!((0..1_000).all(|n| cache.touch(&key(n), 2).is_none()), "they are in the store");
        let new = (1_000..2_000).filter(|n| cache.touch(&key(*n), 2).is_some()).count();
        assert!(new > 800, "{new} of 1000");
        // Where too many were let go, and where another may have written, nothing is known to be new.
        for n in 2_000..20_000 {
            cache.insert(key(n), loaded(n), 2);
        }
        cache.let_all_go();
        assert!(!cache.is_complete());
        cache.set_complete(true);
        cache.clear();
        assert!(cache.touch(&key(0), 3).is_none());
    }

    #[test]
    fn a_conflict_forgets_what_the_batch_used() {
        let mut cache = Cache::new(1 << 20);
        cache.set_complete(true);
        for n in 0..4 {
            cache.insert(key(n), loaded(n), 1);
        }
        let before = cache.bytes();
        cache.touch(&key(0), 2);
        cache.touch(&key(1), 3);
        cache.forget_since(2);
        assert!((0..2).all(|n| cache.get(&key(n)).is_none()));
        assert!((2..4).all(|n| cache.get(&key(n)).is_some()));
        assert_eq!(cache.bytes(), before / 2);
        assert!(!cache.is_complete(), "a forgotten key is not new");
    }

    #[test]
    fn marks_tell_a_replay_by_partition() {
        let mut cache = Cache::new(1_000);
        cache.insert(key(1), loaded(1), 1);
        let (a, b) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let entry = cache.touch(&key(1), 1).unwrap();
        entry.mark(&a, 7);
        assert!(entry.has(&a, 7) && !entry.has(&a, 8) && !entry.has(&b, 0));
    }

    #[test]
    fn what_a_write_holds_counts_as_long_as_it_is_written() {
        let mut cache = Cache::new(100_000);
        cache.insert(key(1), loaded(1), 1);
        let entry = cache.touch(&key(1), 1).unwrap();
        let (news, grown) = entry.changed(&key(1), 1, Some(0));
        assert!(news);
        cache.grow(grown);
        let free = cache.free();
        cache.set_writing(Some(1));
        let entry = cache.touch(&key(1), 2).unwrap();
        let (_, grown) = entry.changed(&key(1), 2, Some(0));
        cache.grow(grown);
        assert_eq!(cache.free(), free - cache.bytes(), "there are two of it");
        let (news, again) = cache.touch(&key(1), 2).unwrap().changed(&key(1), 2, Some(7));
        cache.grow(again);
        assert!(!news);
        cache.set_writing(None);
        assert_eq!(cache.free(), free - 7);
    }

    #[test]
    fn room_is_made_of_what_no_batch_uses() {
        let mut cache = Cache::new(100_000);
        for n in 0..300 {
            cache.insert(key(n), loaded(n), if n < 150 { 1 } else { 2 });
        }
        let all = cache.bytes();
        cache.shrink(1);
        let used = all / 2;
        assert!(cache.make_room(60_000) >= 50_000 || cache.bytes() == used, "{}", cache.bytes());
        assert!((150..300).all(|n| cache.get(&key(n)).is_some()));
        assert!(cache.has_room(3));
        (300..1_000).for_each(|n| cache.insert(key(n), loaded(n), 3));
        assert!(!cache.has_room(3), "batches in flight use all of it");
        cache.shrink(3);
        assert!(cache.has_room(4));
    }
}
