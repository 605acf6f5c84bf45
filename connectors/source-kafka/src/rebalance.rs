//! Which partitions this member has, from where it reads them, and which it is giving back. Pure: the
//! polling thread carries out what is returned.

use std::time::Instant;

use foldline_api::record::{Position, TopicPartition};

#[derive(Debug)]
struct Part {
    partition: TopicPartition,
    /// librdkafka was told of it. It must be told once, and only then may it be taken off again.
    known: bool,
    /// The least offset that may come next; none while nothing is to be delivered.
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

/// Where to read partitions from.
pub(crate) type From = Vec<(TopicPartition, Position)>;

/// What a start asks of librdkafka.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    /// Partitions that it does not know yet.
    pub(crate) assign: From,
    /// Partitions that it reads already.
    pub(crate) seek: From,
}

impl Assignment {
    /// The group gave these.
    pub(crate) fn assigned(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if self.find(&partition.topic, partition.partition).is_none() {
                self.parts.push(Part { partition: partition.clone(), known: false, next: None });
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

    /// The task says where to read. Nothing of these is delivered until [`Assignment::reading`].
    pub(crate) fn start(&mut self, from: &[(TopicPartition, Position)]) -> Starts {
        let mut starts = Starts::default();
        for (partition, position) in from {
            let Some(at) = self.find(&partition.topic, partition.partition) else { continue };
            let part = &mut self.parts[at];
            part.next = None;
            let list = if part.known { &mut starts.seek } else { &mut starts.assign };
            list.push((partition.clone(), *position));
        }
        starts
    }

    /// librdkafka now reads these from here.
    pub(crate) fn reading(&mut self, from: &[(TopicPartition, Position)]) {
        for (partition, position) in from {
            if let Some(at) = self.find(&partition.topic, partition.partition) {
                let part = &mut self.parts[at];
                part.known = true;
                part.next = Some(position.0);
            }
        }
    }

    /// Whether this member has nothing, and gives nothing back.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.revoking.is_none()
    }

    /// Whether this partition is ours, started or not.
    pub(crate) fn has(&self, partition: &TopicPartition) -> bool {
        self.find(&partition.topic, partition.partition).is_some()
    }

    /// librdkafka knows of these no more.
    pub(crate) fn forgotten(&mut self, partitions: &[(TopicPartition, Position)]) {
        for (partition, _) in partitions {
            if let Some(at) = self.find(&partition.topic, partition.partition) {
                self.parts[at].known = false;
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

    /// The partitions that librdkafka knows.
    pub(crate) fn known(&self) -> impl Iterator<Item = &TopicPartition> {
        self.parts.iter().filter(|part| part.known).map(|part| &part.partition)
    }

    /// Takes these out; gives those that librdkafka knows.
    pub(crate) fn remove(&mut self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        let mut known = Vec::new();
        self.parts.retain(|part| {
            let stays = !partitions.contains(&part.partition);
            if !stays && part.known {
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

    /// Whether a revocation waits for the task.
    pub(crate) fn is_revoking(&self) -> bool {
        self.revoking.is_some()
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

    /// Starts, and librdkafka does as asked.
    fn start(assignment: &mut Assignment, from: &[(TopicPartition, Position)]) {
        let starts = assignment.start(from);
        assignment.reading(&starts.assign);
        assignment.reading(&starts.seek);
    }

    #[test]
    fn a_start_assigns_once_and_a_second_start_seeks() {
        let mut assignment = Assignment::default();
        assignment.assigned(&[tp(0), tp(1)]);
        let starts = assignment.start(&[at(0, 5), at(7, 0)]);
        assert_eq!(starts, Starts { assign: vec![at(0, 5)], seek: vec![] });
        assignment.reading(&starts.assign);
        let starts = assignment.start(&[at(0, 2), at(1, 1)]);
        assert_eq!(starts, Starts { assign: vec![at(1, 1)], seek: vec![at(0, 2)] });
        assert!(assignment.accept("t", 0, 9).is_none(), "until the seek is done");
        assignment.reading(&starts.seek);
        assert!(assignment.accept("t", 0, 2).is_some());
    }

    #[test]
    fn a_record_is_delivered_once_and_only_from_a_started_partition() {
        let mut assignment = Assignment::default();
        assignment.assigned(&[tp(0), tp(1)]);
        assert!(assignment.accept("t", 0, 5).is_none(), "not started");
        start(&mut assignment, &[at(0, 5)]);
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
        start(&mut assignment, &[at(0, 0), at(1, 0)]);
        let deadline = Instant::now() + Duration::from_secs(20);
        assignment.revoke(vec![tp(1), tp(2)], deadline);
        assert!(assignment.accept("t", 1, 0).is_none(), "revoked");
        assert_eq!(assignment.start(&[at(1, 0)]), Starts::default(), "not ours any more");
        assert_eq!(assignment.release(&[tp(1)]), None);
        assert_eq!(assignment.release(&[tp(2)]), Some(vec![tp(1)]), "2 was never started");
        assert_eq!(assignment.release(&[tp(2)]), None, "only once");
        assert_eq!(assignment.known().collect::<Vec<_>>(), [&tp(0)]);
    }

    #[test]
    fn a_task_that_does_not_let_go_is_not_waited_for_for_ever() {
        let mut assignment = Assignment::default();
        assignment.assigned(&[tp(0)]);
        start(&mut assignment, &[at(0, 0)]);
        let deadline = Instant::now() + Duration::from_secs(20);
        assignment.revoke(vec![tp(0)], deadline);
        assert!(assignment.overdue(deadline - Duration::from_millis(1)).is_none());
        assert_eq!(assignment.overdue(deadline), Some((vec![tp(0)], vec![tp(0)])));
        assert!(assignment.hurry().is_none());
    }
}
