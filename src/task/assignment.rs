//! Which partitions a task holds, and how far each is: received ≥ folded ≥ durable ≥ committed. Pure
//! bookkeeping; the only place where these positions are kept.

mod holes;

use std::sync::Arc;

use foldline_api::hole::Hole;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{Advance, Flush, Lease, StoredPosition};
use foldline_api::source::Commit;
use tokio::time::Instant;

use super::status::PartitionStatus;
use crate::maps::{HashMap, HashSet};
use crate::topic_ids::Known;

#[derive(Debug)]
struct Held {
    epoch: i64,
    topic_id: Option<String>,
    /// The next offset that the inbox has not seen.
    received: Position,
    folded: Position,
    durable: Position,
    committed: Option<Position>,
    committing: Option<Position>,
    end: Option<Position>,
    /// Nothing of it was folded in this generation, and the group does not know the generation's mark yet.
    unmarked: bool,
    /// What the generation leaves out of it.
    holes: Vec<Hole>,
}

/// What stands in the store after a write whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every partition stands where the flush ends, under this task's epochs.
    Durable,
    /// Every partition stands where the flush began.
    NotApplied,
    /// Another epoch or another position: the store moved under us, or someone else did.
    Moved,
}

impl Outcome {
    /// By where the partitions of the flush stand.
    pub(super) fn of(advances: &[Advance], stored: &[StoredPosition]) -> Self {
        let (mut at_end, mut at_start) = (true, true);
        for advance in advances {
            let Some(stored) = stored.iter().find(|s| s.partition == advance.partition) else {
                return Outcome::Moved;
            };
            if stored.epoch != advance.epoch {
                return Outcome::Moved;
            }
            at_end &= stored.position == advance.to;
            at_start &= stored.position == advance.from;
        }
        match (at_end, at_start) {
            // A step of length zero tells nothing; folding it again is safe, taking it as done is not.
            (_, true) => Outcome::NotApplied,
            (true, false) => Outcome::Durable,
            (false, false) => Outcome::Moved,
        }
    }
}

#[derive(Debug)]
pub(super) struct Assignment {
    held: HashMap<TopicPartition, Held>,
    /// To be acquired, for the first time or again.
    waiting: HashSet<TopicPartition>,
    /// Being acquired: what is delivered of them now is of the position before.
    acquiring: HashSet<TopicPartition>,
    acquire_at: Option<Instant>,
    revoking: Option<(Vec<TopicPartition>, Instant)>,
    commit_at: Instant,
    fresh: bool,
    /// Something of what was held is left out.
    has_holes: bool,
}

impl Assignment {
    pub(super) fn new(commit_at: Instant) -> Self {
        Assignment {
            held: HashMap::default(),
            waiting: HashSet::default(),
            acquiring: HashSet::default(),
            acquire_at: None,
            revoking: None,
            commit_at,
            fresh: true,
            has_holes: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        self.held.keys().cloned().collect()
    }

    /// Whether nothing was acquired before.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether what is held may be folded: nothing waits to be acquired again.
    pub(super) fn steady(&self) -> bool {
        self.acquire_at.is_none()
    }

    pub(super) fn assigned(&mut self, partitions: Vec<TopicPartition>) {
        self.waiting.extend(partitions);
    }

    /// Everything held is to be acquired again, not before `at`.
    pub(super) fn acquire_all(&mut self, at: Instant) {
        self.waiting.extend(self.held.keys().cloned());
        self.acquire_at = Some(at);
    }

    /// Partitions to acquire now.
    pub(super) fn take_waiting(&mut self, now: Instant) -> Option<Vec<TopicPartition>> {
        if self.waiting.is_empty() {
            self.acquire_at = None;
            return None;
        }
        if self.acquire_at.is_some_and(|at| at > now) {
            return None;
        }
        let mut partitions: Vec<TopicPartition> = self.waiting.drain().collect();
        partitions.sort();
        self.acquiring.extend(partitions.iter().cloned());
        Some(partitions)
    }

    /// Takes leases in; returns where to read on.
    pub(super) fn acquired(
        &mut self,
        leases: &[Lease],
        topic_ids: &[Option<String>],
        untouched: &[TopicPartition],
    ) -> Vec<(TopicPartition, Position)> {
        self.fresh = false;
        self.acquire_at = None;
        let mut starts = Vec::with_capacity(leases.len());
        for (at, Lease { partition, epoch, position }) in leases.iter().enumerate() {
            // Lost or revoked meanwhile: its new owner raises the epoch again.
            if !self.acquiring.remove(partition) {
                continue;
            }
            starts.push((partition.clone(), *position));
            let held = Held {
                epoch: *epoch,
                topic_id: topic_ids.get(at).cloned().flatten(),
                received: *position,
                folded: *position,
                durable: *position,
                // Committed at once, so that the group's offsets carry this generation's mark.
                committed: None,
                committing: None,
                end: self.held.get(partition).and_then(|held| held.end),
                unmarked: untouched.contains(partition),
                holes: Vec::new(),
            };
            self.held.insert(partition.clone(), held);
        }
        self.acquiring.clear();
        starts
    }

    /// Whether what is delivered of a partition is of no use now.
    fn in_transit(&self, partition: &TopicPartition) -> bool {
        self.waiting.contains(partition)
            || self.acquiring.contains(partition)
            || self.revoking.as_ref().is_some_and(|(gone, _)| gone.contains(partition))
    }

    /// Gives `accept` each record that is the next of a partition that is held, and notes it as received.
    /// Returns how many were not. Neighbours share their partition, which is looked up once for them.
    pub(super) fn take_in(&mut self, records: Vec<Record>, mut accept: impl FnMut(Record)) -> u64 {
        let mut strays = 0;
        let mut records = records.into_iter().peekable();
        while let Some(first) = records.peek() {
            let of = first.topic_partition();
            let in_transit = self.in_transit(&of);
            let mut held = self.held.get_mut(&of).filter(|_| !in_transit);
            while let Some(record) = records.next_if(|record| record.is_of(&of)) {
                match &mut held {
                    Some(held) if record.offset >= held.received.0 => {
                        if held.leaves_out(record.offset) {
                            strays += 1;
                            continue;
                        }
                        held.received = record.next();
                        accept(record);
                    }
                    _ => strays += 1,
                }
            }
        }
        strays
    }

    /// Notes the end of a partition; returns whether it lies behind the last record.
    pub(super) fn ended(&mut self, partition: &TopicPartition, position: Position) -> bool {
        let in_transit = self.in_transit(partition);
        let Some(held) = self.held.get_mut(partition) else { return false };
        held.end = held.end.max(Some(position));
        if in_transit || position <= held.received {
            return false;
        }
        held.received = position;
        true
    }

    /// The topic of a held partition with its id, where the log can tell it.
    pub(super) fn topic_of(&self, partition: &TopicPartition) -> Option<(Arc<str>, String)> {
        let id = self.held.get(partition)?.topic_id.clone()?;
        Some((Arc::clone(&partition.topic), id))
    }

    /// The same of all that is held.
    pub(super) fn topics(&self) -> Known {
        self.held.keys().filter_map(|partition| self.topic_of(partition)).collect()
    }

    /// The same of all that these records are of.
    pub(super) fn topics_of(&self, records: &[Record]) -> Known {
        let runs = records.chunk_by(|a, b| a.is_of(&b.topic_partition()));
        runs.filter_map(|run| self.topic_of(&run.first()?.topic_partition())).collect()
    }

    pub(super) fn epoch(&self, partition: &TopicPartition) -> i64 {
        self.held.get(partition).map_or(-1, |held| held.epoch)
    }

    pub(super) fn folded(&self, partition: &TopicPartition) -> Position {
        self.held.get(partition).map_or(Position(-1), |held| held.folded)
    }

    /// Where the store stands.
    pub(super) fn durable(&self, partition: &TopicPartition) -> Position {
        self.held.get(partition).map_or(Position(-1), |held| held.durable)
    }

    pub(super) fn set_folded(&mut self, partition: &TopicPartition, position: Position) {
        if let Some(held) = self.held.get_mut(partition) {
            held.folded = position;
        }
    }

    pub(super) fn set_durable(&mut self, partition: &TopicPartition, position: Position) {
        if let Some(held) = self.held.get_mut(partition) {
            held.durable = position;
        }
    }

    /// What is not durable is to be folded again, except what is being written.
    pub(super) fn fold_from_durable(
        &mut self,
        writing: Option<&HashMap<TopicPartition, (Position, Position)>>,
    ) {
        for (partition, held) in &mut self.held {
            let under_way = writing.and_then(|steps| steps.get(partition)).map(|(_, to)| *to);
            held.folded = under_way.unwrap_or(held.durable);
        }
    }

    /// What is held is received anew from where it is folded to; returns where that is.
    pub(super) fn restart(&mut self) -> Vec<(TopicPartition, Position)> {
        let held: Vec<TopicPartition> = self.held.keys().cloned().collect();
        let mut starts = Vec::with_capacity(held.len());
        for partition in held {
            if !self.in_transit(&partition)
                && let Some(held) = self.held.get_mut(&partition)
            {
                held.received = held.folded;
                starts.push((partition, held.folded));
            }
        }
        starts
    }

    pub(super) fn holds(&self, partition: &TopicPartition) -> bool {
        self.held.contains_key(partition) || self.acquiring.contains(partition)
    }

    /// What became of a flush of this task's, by the positions that the store shows now.
    pub(super) fn compare(&self, flush: &Flush, stored: &[StoredPosition]) -> Outcome {
        let held = |advance: &Advance| advance.epoch == self.epoch(&advance.partition);
        if flush.advances.iter().all(held) {
            Outcome::of(&flush.advances, stored)
        } else {
            Outcome::Moved
        }
    }

    /// Marks partitions as being given back; returns them all.
    pub(super) fn revoking(
        &mut self,
        partitions: Vec<TopicPartition>,
        deadline: Instant,
    ) -> HashSet<TopicPartition> {
        for partition in &partitions {
            self.waiting.remove(partition);
            self.acquiring.remove(partition);
        }
        let (all, _) = self.revoking.get_or_insert((Vec::new(), deadline));
        all.extend(partitions);
        all.iter().cloned().collect()
    }

    /// The partitions being given back, and until when.
    pub(super) fn revocation(&self) -> Option<(Vec<TopicPartition>, Instant)> {
        self.revoking.clone()
    }

    /// Whether partitions are being given back.
    pub(super) fn is_revoking(&self) -> bool {
        self.revoking.is_some()
    }

    pub(super) fn remove(&mut self, partition: &TopicPartition) {
        self.held.remove(partition);
        self.waiting.remove(partition);
        self.acquiring.remove(partition);
        if let Some((partitions, _)) = &mut self.revoking {
            partitions.retain(|other| other != partition);
            if partitions.is_empty() {
                self.revoking = None;
            }
        }
    }

    /// Whether the group must know of a partition before anything is written: an offset that still looks
    /// reset then tells that nothing was folded since.
    pub(super) fn unmarked(&self) -> bool {
        self.held.values().any(|held| held.unmarked)
    }

    /// Whether any of `partitions` has durable positions that the group does not know.
    pub(super) fn uncommitted(&self, partitions: &[TopicPartition]) -> bool {
        let behind = |held: &Held| held.committed != Some(held.durable);
        partitions.iter().filter_map(|partition| self.held.get(partition)).any(behind)
    }

    pub(super) fn next_commit(&mut self, at: Instant) {
        self.commit_at = at;
    }

    /// What to commit now, if it is time and there is anything.
    pub(super) fn take_commits(&mut self, now: Instant, generation: u64) -> Option<Vec<Commit>> {
        if now < self.commit_at {
            return None;
        }
        let mut commits = Vec::new();
        for (partition, held) in &mut self.held {
            if held.committed != Some(held.durable) {
                held.committing = Some(held.durable);
                commits.push(commit(partition, held, generation));
            }
        }
        (!commits.is_empty()).then_some(commits)
    }

    /// Everything durable, whether committed or not.
    pub(super) fn all_durable(&self, generation: u64) -> Option<Vec<Commit>> {
        let commits: Vec<Commit> = self
            .held
            .iter()
            .filter(|(_, held)| held.committed != Some(held.durable))
            .map(|(partition, held)| commit(partition, held, generation))
            .collect();
        (!commits.is_empty()).then_some(commits)
    }

    pub(super) fn committed(&mut self) {
        for held in self.held.values_mut() {
            if let Some(position) = held.committing.take() {
                held.committed = Some(position);
                held.unmarked = false;
            }
        }
    }

    pub(super) fn commit_failed(&mut self) {
        self.held.values_mut().for_each(|held| held.committing = None);
    }

    /// When something here is due.
    pub(super) fn timer(&self) -> Option<Instant> {
        let revoke = self.revoking.as_ref().map(|(_, deadline)| *deadline);
        [revoke, self.acquire_at].into_iter().flatten().min()
    }

    /// When to commit, if there is anything.
    pub(super) fn commit_due(&self) -> Option<Instant> {
        let open = self.held.values().any(|held| held.committed != Some(held.durable));
        open.then_some(self.commit_at)
    }

    pub(super) fn snapshot(&self, ends: &[(TopicPartition, Position)]) -> Vec<PartitionStatus> {
        let mut all: Vec<PartitionStatus> = self
            .held
            .iter()
            .map(|(partition, held)| {
                let seen = ends.iter().find(|(other, _)| other == partition).map(|(_, end)| *end);
                PartitionStatus {
                    partition: partition.clone(),
                    position: held.durable,
                    end: held.end.max(seen),
                }
            })
            .collect();
        all.sort_by(|a, b| a.partition.cmp(&b.partition));
        all
    }
}

fn commit(partition: &TopicPartition, held: &Held, generation: u64) -> Commit {
    Commit {
        partition: partition.clone(),
        position: held.durable,
        metadata: crate::reset::mark(held.topic_id.as_deref(), generation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    /// What becomes of a flush of two partitions from 5 to 9 under epoch 3, where the store has these epochs
    /// and positions.
    fn outcome(places: &[(i64, i64)]) -> Outcome {
        let mut held = Assignment::new(Instant::now());
        let parts = [part(0), part(1)];
        held.acquiring.extend(parts.clone());
        let lease = |partition| Lease { partition, epoch: 3, position: Position(5) };
        held.acquired(&parts.clone().map(lease), &[], &[]);
        let stored =
            |(partition, (epoch, position)): (TopicPartition, &(i64, i64))| StoredPosition {
                partition,
                topic_id: None,
                beginning: Position(0),
                position: Position(*position),
                epoch: *epoch,
            };
        let stored: Vec<StoredPosition> =
            parts.clone().into_iter().zip(places).map(stored).collect();
        let advance =
            |partition| Advance { partition, epoch: 3, from: Position(5), to: Position(9) };
        let advances = parts.map(advance).to_vec();
        held.compare(&Flush { advances, ..Flush::default() }, &stored)
    }

    #[test]
    fn a_write_whose_answer_was_lost_is_judged_by_all_of_its_positions() {
        assert_eq!(outcome(&[(3, 9), (3, 9)]), Outcome::Durable);
        assert_eq!(outcome(&[(3, 5), (3, 5)]), Outcome::NotApplied);
        for moved in [
            &[(3, 9), (3, 5)][..],
            &[(3, 5), (3, 9)],
            &[(3, 7), (3, 7)],
            &[(3, 9), (4, 9)],
            &[(4, 5), (3, 5)],
            &[(3, 9)],
        ] {
            assert_eq!(outcome(moved), Outcome::Moved, "{moved:?}");
        }
    }
}
