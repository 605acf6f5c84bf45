//! How a task passes what its generation leaves out: nothing of it is taken in, and what is received ends behind it.

use foldline_api::hole::Hole;
use foldline_api::record::{Position, TopicPartition};

use super::{Assignment, Held};

impl Held {
    /// The end of the hole that `position` stands in.
    fn behind(&self, position: Position) -> Option<Position> {
        self.holes.iter().filter(|hole| hole.has(position)).map(|hole| hole.to).max()
    }

    /// Whether a record is left out. What is received then ends before it, within its hole.
    pub(super) fn leaves_out(&mut self, offset: i64) -> bool {
        let left_out = !self.holes.is_empty() && self.behind(Position(offset)).is_some();
        if left_out {
            self.received = Position(offset);
        }
        left_out
    }
}

impl Assignment {
    /// What is left out of the partitions that were just acquired.
    pub(in crate::task) fn leave_out(&mut self, holes: Vec<Hole>) {
        for hole in holes {
            if let Some(held) = self.held.get_mut(&hole.partition) {
                held.holes.push(hole);
                self.has_holes = true;
            }
        }
    }

    /// Whether what cannot be read at `at` is left out. What is received then ends within its hole.
    pub(in crate::task) fn is_left_out(
        &mut self,
        partition: &TopicPartition,
        at: Position,
    ) -> bool {
        let in_transit = self.in_transit(partition);
        let Some(held) = self.held.get_mut(partition).filter(|_| !in_transit) else { return false };
        // The batch may begin before what is read of it.
        let Position(at) = at.max(held.received);
        held.leaves_out(at)
    }

    /// Where each partition that stands in a hole is to be read on; what is received of it ends there now.
    pub(in crate::task) fn pass_holes(&mut self) -> Vec<(TopicPartition, Position)> {
        let mut passed = Vec::new();
        if !self.has_holes {
            return passed;
        }
        let stand: Vec<TopicPartition> = self
            .held
            .iter()
            .filter(|(_, held)| held.behind(held.received).is_some())
            .map(|(partition, _)| partition.clone())
            .collect();
        for partition in stand {
            if self.in_transit(&partition) {
                continue;
            }
            let Some(held) = self.held.get_mut(&partition) else { continue };
            // One may begin where the other ends.
            while let Some(to) = held.behind(held.received) {
                held.received = to;
            }
            passed.push((partition, held.received));
        }
        passed.sort();
        passed
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::record::Record;
    use foldline_api::sink::Lease;
    use tokio::time::Instant;

    use super::*;

    fn record(offset: i64) -> Record {
        let TopicPartition { topic, partition } = TopicPartition::new("t", 0);
        Record {
            topic,
            partition,
            offset,
            timestamp: None,
            key: None,
            value: None,
            headers: vec![],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_received_ends_behind_a_hole() {
        let partition = TopicPartition::new("t", 0);
        let hole = |from, to| Hole::new(partition.clone(), Position(from), Position(to));
        let mut held = Assignment::new(Instant::now());
        let acquire = |held: &mut Assignment, at: i64, holes: Vec<Hole>| {
            held.assigned(vec![partition.clone()]);
            let taken = held.take_waiting(Instant::now()).unwrap();
            let lease = Lease { partition: taken[0].clone(), epoch: 1, position: Position(at) };
            held.acquired(&[lease], &[None], &[]);
            held.leave_out(holes);
        };
        let place = |to: i64| vec![(partition.clone(), Position(to))];
        let take_in = |held: &mut Assignment, offsets: std::ops::Range<i64>| {
            let mut taken = Vec::new();
            held.take_in(offsets.map(record).collect(), |record| taken.push(record.offset));
            taken
        };
        acquire(&mut held, 0, vec![hole(0, 2), hole(2, 4), hole(6, 9), hole(12, 20)]);
        assert_eq!(held.pass_holes(), place(4), "it stands in the first");
        assert_eq!(held.pass_holes(), []);
        assert_eq!(take_in(&mut held, 4..8), [4, 5]);
        assert_eq!(held.pass_holes(), place(9));
        assert_eq!(take_in(&mut held, 4..15), [9, 10, 11]);
        assert_eq!(held.pass_holes(), place(20));
        // What lies behind the hole came with it: there is nothing to pass.
        acquire(&mut held, 4, vec![hole(6, 9)]);
        assert_eq!(take_in(&mut held, 4..11), [4, 5, 9, 10]);
        assert_eq!(held.pass_holes(), []);
        // A batch that cannot be read and begins before the hole, in it, behind it.
        acquire(&mut held, 6, vec![hole(6, 9)]);
        assert!(held.is_left_out(&partition, Position(3)));
        assert_eq!(held.pass_holes(), place(9));
        assert!(!held.is_left_out(&partition, Position(3)));
        acquire(&mut held, 4, vec![hole(6, 9)]);
        assert!(!held.is_left_out(&partition, Position(4)));
        assert!(held.is_left_out(&partition, Position(7)));
        assert_eq!(held.pass_holes(), place(9));
        // Acquired anew, it has what the books say then.
        acquire(&mut held, 4, Vec::new());
        assert_eq!(take_in(&mut held, 4..8), [4, 5, 6, 7]);
    }
}
