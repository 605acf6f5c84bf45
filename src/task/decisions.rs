//! What events of several keys did, while it is not durable that all their rows hold them. Only where rows
//! move one by one.
//!
//! A replay meets rows that hold an event already, and later ones too: what `when` would say of them now is
//! not what it said then. So what a batch decided is kept, by the store before the first row and here, and
//! binds until the position is past it.

use std::collections::BTreeMap;

use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::StoredDecision;

use crate::maps::HashMap;

/// Decisions by partition and offset.
#[derive(Debug, Default)]
pub(crate) struct Decisions(HashMap<TopicPartition, BTreeMap<i64, StoredDecision>>);

impl Decisions {
    /// What was decided of the event at `offset`.
    pub(crate) fn get(&self, partition: &TopicPartition, offset: i64) -> Option<&StoredDecision> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(partition)?.get(&offset)
    }

    /// From now on these bind.
    pub(crate) fn keep(&mut self, decisions: &[StoredDecision]) {
        for decision in decisions {
            let of_partition = self.0.entry(decision.partition.clone()).or_default();
            of_partition.insert(decision.offset, decision.clone());
        }
    }

    /// All before `position` is durable.
    pub(crate) fn settle(&mut self, partition: &TopicPartition, position: Position) {
        if let Some(of_partition) = self.0.get_mut(partition) {
            *of_partition = of_partition.split_off(&position.0);
            if of_partition.is_empty() {
                self.0.remove(partition);
            }
        }
    }

    /// The partition was taken over: only what the store kept binds.
    pub(crate) fn forget(&mut self, partition: &TopicPartition) {
        self.0.remove(partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_binds_until_its_event_is_durable_or_the_partition_is_taken_over() {
        let (a, b) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let decision = |partition: &TopicPartition, offset| StoredDecision {
            partition: partition.clone(),
            offset,
            refused: vec![1],
            bad: None,
        };
        let kept = [decision(&a, 3), decision(&a, 7), decision(&b, 3)];
        let mut decisions = Decisions::default();
        decisions.keep(&kept);
        assert_eq!(decisions.get(&a, 3), Some(&kept[0]));
        assert_eq!(decisions.get(&a, 4), None);
        decisions.settle(&a, Position(7));
        assert_eq!((decisions.get(&a, 3), decisions.get(&a, 7)), (None, Some(&kept[1])));
        assert_eq!(decisions.get(&b, 3), Some(&kept[2]), "another partition's");
        decisions.forget(&a);
        assert_eq!((decisions.get(&a, 7), decisions.get(&b, 3)), (None, Some(&kept[2])));
        decisions.settle(&b, Position(4));
        assert!(decisions.0.is_empty(), "what is settled takes no room");
    }
}
