//! Which partitions this member has, from where it reads them, and which it is giving back. Pure: the
//! polling thread carries out what is returned.

use std::time::Instant;

use foldline_api::record::{Position, TopicPartition};

#[derive(Debug)]
struct Part {
    partition: TopicPartition,
    /// The least offset that may come next; none before the first start.
    next: Option<i64>,
}

#[derive(Debug)]
struct Revoking {
    waiting: Vec<TopicPartition>,
    /// What librdkafka knows of them: a partition that was never started it was never told of.
    unassign: Vec<TopicPartition>,
    deadline: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    parts: Vec<Part>,
    /// Where the last record was found: records come in runs of one partition.
    last: usize,
    revoking: Option<Revoking>,
}

/// What a start asks of librdkafka, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    pub(crate) unassign: Vec<TopicPartition>,
    pub(crate) assign: Vec<(TopicPartition, Position)>,
}

impl Assignment {
    /// The group gave these.
    pub(crate) fn assigned(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if self.find(&partition.topic, partition.partition).is_none() {
                self.parts.push(Part { partition: partition.clone(), next: None });
            }
        }
    }

    fn find(&self, topic: &str, partition: i32) -> Option<usize> {
        let is =
            |part: &Part| part.partition.partition == partition && &*part.partition.topic == topic;
        match self.parts.get(self.last) {
            Some(part) if is(part) => Some(self.last),
            _ => self.parts.iter().position(is),
        }
    }

    /// The task says where to read. A partition that is read already is taken off first: a seek in
    /// librdkafka fails while a fetch is starting, or after an offset that the log does not have.
    pub(crate) fn start(&mut self, from: &[(TopicPartition, Position)]) -> Starts {
        let mut starts = Starts::default();
        for (partition, position) in from {
            let Some(at) = self.find(&partition.topic, partition.partition) else { continue };
            if self.parts[at].next.replace(position.0).is_some() {
                starts.unassign.push(partition.clone());
            }
            starts.assign.push((partition.clone(), *position));
        }
        starts
    }

    /// librdkafka did not take these after all.
    pub(crate) fn not_started(&mut self, partitions: &[(TopicPartition, Position)]) {
        for part in &mut self.parts {
            if partitions.iter().any(|(partition, _)| *partition == part.partition) {
                part.next = None;
            }
        }
    }

    /// Whether this record is to be delivered: its partition is being read and it did not come yet.
    /// Gives the topic's shared name.
    pub(crate) fn accept(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Option<&TopicPartition> {
        let at = self.find(topic, partition)?;
        self.last = at;
        let part = self.parts.get_mut(at)?;
        let next = part.next.as_mut().filter(|next| offset >= **next)?;
        *next = offset + 1;
        Some(&part.partition)
    }

    /// The position of a partition that is being read.
    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<Position> {
        let at = self.find(&partition.topic, partition.partition)?;
        self.parts[at].next.map(Position)
    }

    /// The partitions that are being read.
    pub(crate) fn started(&self) -> impl Iterator<Item = &TopicPartition> {
        self.parts.iter().filter(|part| part.next.is_some()).map(|part| &part.partition)
    }

    /// Takes these out; gives those that librdkafka knows.
    pub(crate) fn remove(&mut self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        let mut known = Vec::new();
        self.parts.retain(|part| {
            let stays = !partitions.contains(&part.partition);
            if !stays && part.next.is_some() {
                known.push(part.partition.clone());
            }
            stays
        });
        known
    }

    /// The group takes these back: they are not read any more, and given back when released, or at
    /// the deadline.
    pub(crate) fn revoke(&mut self, partitions: Vec<TopicPartition>, deadline: Instant) {
        let unassign = self.remove(&partitions);
        self.revoking = Some(Revoking { waiting: partitions, unassign, deadline });
    }

    /// The task has let go; what to unassign once it has let go of all.
    pub(crate) fn release(&mut self, partitions: &[TopicPartition]) -> Option<Vec<TopicPartition>> {
        let revoking = self.revoking.as_mut()?;
        revoking.waiting.retain(|waiting| !partitions.contains(waiting));
        if !revoking.waiting.is_empty() {
            return None;
        }
        self.revoking.take().map(|revoking| revoking.unassign)
    }

    /// What to unassign because the task did not let go in time, and what it still held.
    pub(crate) fn overdue(
        &mut self,
        now: Instant,
    ) -> Option<(Vec<TopicPartition>, Vec<TopicPartition>)> {
        let revoking = self.revoking.take_if(|revoking| revoking.deadline <= now)?;
        Some((revoking.unassign, revoking.waiting))
    }

    /// What to unassign because another rebalance is already here.
    pub(crate) fn hurry(&mut self) -> Option<Vec<TopicPartition>> {
        self.revoking.take().map(|revoking| revoking.unassign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn at(partition: i32, position: i64) -> (TopicPartition, Position) {
        (tp(partition), Position(position))
    }

    #[test]
    fn a_start_assigns_once_and_a_second_start_takes_off_first() {
        let mut assignment = Assignment::default();
        assignment.assigned(&[tp(0), tp(1)]);
        assert_eq!(
            assignment.start(&[at(0, 5), at(7, 0)]),
            Starts { unassign: vec![], assign: vec![at(0, 5)] }
        );
        assert_eq!(
            assignment.start(&[at(0, 2), at(1, 1)]),
            Starts { unassign: vec![tp(0)], assign: vec![at(0, 2), at(1, 1)] }
        );
    }

    #[test]
    fn a_record_is_delivered_once_and_only_from_a_started_partition() {
        let mut assignment = Assignment::default();
        assignment.assigned(&[tp(0), tp(1)]);
        assert!(assignment.accept("t", 0, 5).is_none(), "not started");
        assignment.start(&[at(0, 5)]);
        assert!(assignment.accept("t", 0, 4).is_none(), "before the position");
        assert!(assignment.accept("t", 0, 5).is_some());
        assert!(assignment.accept("t", 0, 5).is_none(), "twice");
        assert!(assignment.accept("t", 0, 9).is_some(), "gaps are normal");
        assert_eq!(assignment.position(&tp(0)), Some(Position(10)));
        assert!(assignment.accept("u", 0, 10).is_none(), "another topic");
    }

    #[test]
    fn revoked_partitions_are_unassigned_when_all_are_released() {
        let mut assignment = Assignment::default();
        assignment.assigned(&[tp(0), tp(1), tp(2)]);
        assignment.start(&[at(0, 0), at(1, 0)]);
        let deadline = Instant::now() + Duration::from_secs(20);
        assignment.revoke(vec![tp(1), tp(2)], deadline);
        assert!(assignment.accept("t", 1, 0).is_none(), "revoked");
        assert!(assignment.start(&[at(1, 0)]).assign.is_empty(), "not ours any more");
        assert_eq!(assignment.release(&[tp(1)]), None);
        assert_eq!(assignment.release(&[tp(2)]), Some(vec![tp(1)]), "2 was never started");
        assert_eq!(assignment.release(&[tp(2)]), None, "only once");
        assert_eq!(assignment.started().collect::<Vec<_>>(), [&tp(0)]);
    }

    #[test]
    fn a_task_that_does_not_let_go_is_not_waited_for_for_ever() {
        let mut assignment = Assignment::default();
        assignment.assigned(&[tp(0)]);
        assignment.start(&[at(0, 0)]);
        let deadline = Instant::now() + Duration::from_secs(20);
        assignment.revoke(vec![tp(0)], deadline);
        assert!(assignment.overdue(deadline - Duration::from_millis(1)).is_none());
        assert_eq!(assignment.overdue(deadline), Some((vec![tp(0)], vec![tp(0)])));
        assert!(assignment.hurry().is_none());
    }
}
