//! Which letters the log has already, of records that are not durable. A batch may be folded again many times
//! (the store refused one of its records, another writer came first), and a record has one letter all the same,
//! unless its partition moves or the worker dies meanwhile.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldline_api::error::Result;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::{DeadLetter, DeadLetters};

use crate::maps::HashMap;

type Places = HashMap<TopicPartition, BTreeSet<i64>>;

/// Offsets of records whose letters were acknowledged, by partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(Arc<Mutex<Places>>);

impl Sent {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, letter: &DeadLetter) -> bool {
        let places = self.places();
        places.get(&letter.partition).is_some_and(|offsets| offsets.contains(&letter.offset))
    }

    fn note(&self, letter: &DeadLetter) {
        let mut places = self.places();
        places.entry(letter.partition.clone()).or_default().insert(letter.offset);
    }

    /// Sends those that the log does not have.
    ///
    /// # Errors
    /// The first of those that failed; the next call sends them again, and no other.
    pub(super) async fn send(&self, to: &dyn DeadLetters, letters: &[DeadLetter]) -> Result<()> {
        let left: Vec<DeadLetter> =
            letters.iter().filter(|letter| !self.has(letter)).cloned().collect();
        if left.is_empty() {
            return Ok(());
        }
        let mut all = Ok(());
        for (letter, end) in left.iter().zip(to.send(&left).await) {
            match end {
                Ok(()) => self.note(letter),
                Err(error) => all = all.and(Err(error)),
            }
        }
        all
    }

    /// All before `position` is durable: it is not folded again.
    pub(super) fn settle(&self, partition: &TopicPartition, position: Position) {
        let mut places = self.places();
        if let Some(offsets) = places.get_mut(partition) {
            *offsets = offsets.split_off(&position.0);
            if offsets.is_empty() {
                places.remove(partition);
            }
        }
    }

    /// The partition goes: whoever has it next sends what is not durable again.
    pub(super) fn forget(&self, partition: &TopicPartition) {
        self.places().remove(partition);
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use foldline_api::error::Error;

    use super::*;

    fn letter(offset: i64) -> DeadLetter {
        let partition = TopicPartition::new("t", 0);
        DeadLetter { partition, offset, key: None, value: None, headers: Vec::new() }
    }

    /// Takes half of what it is given.
    #[derive(Default)]
    struct Half(Mutex<Vec<i64>>);

    #[async_trait]
    impl DeadLetters for Half {
        async fn send(&self, letters: &[DeadLetter]) -> Vec<Result<()>> {
            let take = letters.len().div_ceil(2);
            self.0.lock().unwrap().extend(letters[..take].iter().map(|letter| letter.offset));
            let end = |at| if at < take { Ok(()) } else { Err(Error::retriable("away")) };
            (0..letters.len()).map(end).collect()
        }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_not_sent_again_until_it_is_durable() {
        let (sent, log) = (Sent::default(), Half::default());
        let letters: Vec<DeadLetter> = (0..10).map(letter).collect();
        let mut attempts = 0;
        while sent.send(&log, &letters).await.is_err() {
            attempts += 1;
        }
        sent.send(&log, &letters[3..]).await.unwrap();
        assert_eq!((attempts, log.0.lock().unwrap().clone()), (3, (0..10).collect::<Vec<_>>()));
        let partition = TopicPartition::new("t", 0);
        sent.settle(&partition, Position(9));
        assert_eq!(sent.places().get(&partition), Some(&BTreeSet::from([9])));
        sent.settle(&partition, Position(10));
        assert!(sent.places().is_empty(), "what is durable takes no room");
        sent.note(&letter(3));
        sent.forget(&partition);
        assert!(sent.places().is_empty());
    }
}
