//! Keys set aside: per key and partition, with all their later events, in order (rule 18).
//!
//! The fold parks a bad event with the keys that it touches, and every later event of its partition that
//! touches one of them; the flush that moves the position past them keeps them. Only the partition's owner
//! decides: a retry or a drop is a note in the books, which it looks for while it holds parked keys. It lets
//! what is in flight end, reads what is parked anew, and carries the note out in a flush of its own that moves
//! no position and stands under its fence ([`super::requests`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldline_api::model::Key;
use foldline_api::parked::Parked;
use foldline_api::record::TopicPartition;
use foldline_api::sink::Acquired;

use super::Task;
use super::aside::ParkedKeys;
use super::batch::Batch;
use crate::maps::{HashMap, HashSet};

/// How many events a connector may still park before it pauses. Its tasks share it.
#[derive(Clone, Debug)]
pub(crate) struct Allowance(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: u64,
    left: AtomicU64,
    /// More was asked for than is left.
    overdrawn: AtomicBool,
    /// What is over it waits; else it ends the task.
    waits: bool,
}

impl Allowance {
    /// `max` events. What is over them waits for [`Allowance::refill`].
    pub(crate) fn new(max: u64) -> Self {
        Allowance::of(max, true)
    }

    /// `max` events. One more ends the task: nobody could let a build go on.
    pub(crate) fn of_build(max: u64) -> Self {
        Allowance::of(max, false)
    }

    fn of(max: u64, waits: bool) -> Self {
        let (left, overdrawn) = (AtomicU64::new(max), AtomicBool::new(false));
        Allowance(Arc::new(Shared { max, left, overdrawn, waits }))
    }

    /// How many events there were to begin with.
    pub(crate) fn max(&self) -> u64 {
        self.0.max
    }

    /// Whether some task waits for more.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.0.overdrawn.load(Ordering::Relaxed)
    }

    /// Begins anew.
    pub(crate) fn refill(&self) {
        self.0.left.store(self.0.max, Ordering::Relaxed);
        self.0.overdrawn.store(false, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        let taken = self.0.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        if taken.is_err() {
            self.0.overdrawn.store(true, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    fn give_back(&self, events: u64) {
        self.0.left.fetch_add(events, Ordering::Relaxed);
    }
}

/// Parked by one batch that is not durable yet.
#[derive(Debug)]
struct Pending {
    batch: u64,
    keys: ParkedKeys,
    events: u64,
}

/// What a task knows of parked keys.
#[derive(Debug)]
pub(crate) struct Parking {
    /// Durably parked.
    held: ParkedKeys,
    pending: Vec<Pending>,
    allowance: Allowance,
}

impl Parking {
    pub(super) fn new(allowance: Allowance) -> Self {
        Parking { held: HashMap::default(), pending: Vec::new(), allowance }
    }

    /// Whether an event of `partition` with one of `keys` has to wait behind parked ones, `here` those of
    /// the batch itself.
    pub(super) fn holds(
        &self,
        partition: &TopicPartition,
        keys: &[Key],
        here: &ParkedKeys,
    ) -> bool {
        if self.held.is_empty() && self.pending.is_empty() && here.is_empty() {
            return false;
        }
        let pending = self.pending.iter().map(|pending| &pending.keys);
        let all = [&self.held, here].into_iter().chain(pending);
        let parked: Vec<&HashSet<String>> = all.filter_map(|keys| keys.get(partition)).collect();
        let is_parked = |key: &Key| {
            let text = key.to_string();
            parked.iter().any(|keys| keys.contains(&text))
        };
        !parked.is_empty() && keys.iter().any(is_parked)
    }

    /// A batch was folded, or grew, and parks these.
    pub(super) fn folded(&mut self, batch: &mut Batch) {
        let keys = std::mem::take(&mut batch.aside.keys);
        let events = std::mem::take(&mut batch.aside.events);
        if !keys.is_empty() {
            self.pending.push(Pending { batch: batch.number, keys, events });
        }
    }

    /// What batches up to `durable` parked is durable.
    pub(super) fn durable(&mut self, durable: u64) {
        for pending in self.pending.extract_if(.., |pending| pending.batch <= durable) {
            for (partition, keys) in pending.keys {
                self.held.entry(partition).or_default().extend(keys);
            }
        }
    }

    /// What is folded, and not in batch `writing`, is folded again.
    pub(super) fn forget(&mut self, writing: Option<u64>) {
        let allowance = &self.allowance;
        self.pending.retain(|pending| {
            let kept = Some(pending.batch) == writing;
            if !kept {
                allowance.give_back(pending.events);
            }
            kept
        });
    }

    /// What the books say of partitions that were just acquired.
    pub(super) fn learn(&mut self, acquired: &Acquired) {
        for lease in &acquired.leases {
            self.held.remove(&lease.partition);
        }
        self.add(&acquired.parked);
    }

    /// What the books say of partitions of which nothing is in flight.
    pub(super) fn relearn(&mut self, partitions: &[TopicPartition], parked: &[Parked]) {
        partitions.iter().for_each(|partition| self.release(partition));
        self.add(parked);
    }

    fn add(&mut self, parked: &[Parked]) {
        for Parked { partition, keys, .. } in parked {
            self.held.entry(partition.clone()).or_default().extend(keys.iter().cloned());
        }
    }

    /// A partition is someone else's.
    pub(super) fn release(&mut self, partition: &TopicPartition) {
        self.held.remove(partition);
    }

    /// Partitions with parked keys.
    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        self.held.keys().cloned().collect()
    }

    fn count(&self) -> i64 {
        self.held.values().map(|keys| i64::try_from(keys.len()).unwrap_or(i64::MAX)).sum()
    }

    /// Takes room for one more parked event, if there is any.
    pub(super) fn take(&self) -> bool {
        self.allowance.take()
    }

    /// How many events may be parked.
    pub(super) fn max(&self) -> u64 {
        self.allowance.max()
    }

    /// Whether what is over them waits for a person; else it ends the task.
    fn waits(&self) -> bool {
        self.allowance.0.waits
    }

    /// Whether nothing more is folded, as it might have to be parked.
    pub(super) fn is_full(&self) -> bool {
        self.waits() && self.allowance.is_overdrawn()
    }
}

impl Task {
    /// Where a folded batch ends early.
    pub(super) fn set_aside(&mut self, batch: &mut Batch) {
        let rest = std::mem::take(&mut batch.aside.rest);
        if !rest.is_empty() {
            self.pipeline.inbox.put_back(rest, tokio::time::Instant::now());
        }
        if std::mem::take(&mut batch.aside.tight) {
            // As many as went in, so that not each batch decodes what the next one folds.
            self.pipeline.inbox.narrow(batch.records.saturating_mul(2));
        }
        if batch.aside.full {
            let full = self.folder.full();
            if self.folder.parking.waits() {
                // The connector pauses, and what is paused is resumed by a person.
                self.ops.status.trouble(&foldline_api::Error::record(full));
            } else {
                batch.stop = Some(full);
            }
        }
    }

    /// Shows how many keys are parked.
    pub(super) fn show_parked(&mut self) {
        self.gauges.parked(self.folder.parking.count());
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::value::Value;

    use super::*;

    fn keys(partition: &TopicPartition, key: i64) -> ParkedKeys {
        let texts = HashSet::from_iter([Key::new(vec![Value::Int(key)]).to_string()]);
        HashMap::from_iter([(partition.clone(), texts)])
    }

    #[test]
    fn an_allowance_ends_and_begins_anew() {
        let allowance = Allowance::new(2);
        let of_another_task = allowance.clone();
        assert!(allowance.take() && of_another_task.take());
        assert!(!allowance.is_overdrawn(), "so many are allowed");
        assert!(!allowance.take() && of_another_task.is_overdrawn());
        allowance.refill();
        assert!(!allowance.is_overdrawn() && allowance.take());
        let parking = Parking::new(Allowance::of_build(0));
        assert!(!parking.allowance.take() && !parking.is_full(), "it ends instead");
    }

    #[test]
    fn a_key_is_parked_for_its_partition_until_its_batch_is_forgotten() {
        let (a, b) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let (one, two) = (Key::new(vec![Value::Int(1)]), Key::new(vec![Value::Int(2)]));
        let nothing = HashMap::default();
        let mut parking = Parking::new(Allowance::new(5));
        assert!(parking.allowance.take());
        let mut batch = Batch::new(7);
        batch.aside.keys = keys(&a, 1);
        batch.aside.events = 1;
        assert!(parking.holds(&a, &[two.clone(), one.clone()], &batch.aside.keys));
        parking.folded(&mut batch);
        assert!(parking.holds(&a, std::slice::from_ref(&one), &nothing));
        assert!(!parking.holds(&b, std::slice::from_ref(&one), &nothing));
        assert!(!parking.holds(&a, std::slice::from_ref(&two), &nothing));
        parking.forget(Some(7));
        assert!(parking.holds(&a, std::slice::from_ref(&one), &nothing), "it is being written");
        parking.forget(None);
        assert!(!parking.holds(&a, std::slice::from_ref(&one), &nothing));
        assert_eq!(parking.allowance.0.left.load(Ordering::Relaxed), 5, "it is folded again");
        batch.aside.keys = keys(&a, 1);
        parking.folded(&mut batch);
        parking.durable(7);
        parking.forget(None);
        assert!(parking.holds(&a, std::slice::from_ref(&one), &nothing));
        assert_eq!((parking.count(), parking.partitions()), (1, vec![a.clone()]));
        parking.release(&a);
        assert!(!parking.holds(&a, &[one], &nothing));
    }
}
