//! That a task is to end, and what is to be done before.

use foldline_api::error::{Error, Result};
use foldline_api::record::TopicPartition;
use tokio::time::Instant;

use super::Ended;

/// Whether and how a task is to end. It takes no more records from when any of it is set.
#[derive(Debug, Default)]
pub(super) struct ExitIntent {
    /// A record allows no other to be folded behind it: the reason to end once all before it is durable.
    stop: Option<String>,
    /// What cannot be read: the reason to end once all before it is folded and durable.
    broken: Option<(TopicPartition, Error)>,
    /// It was told to end: what is in flight may take until then.
    told: Option<Instant>,
}

impl ExitIntent {
    /// A folded batch says that nothing behind it is to be folded.
    pub(super) fn stop(&mut self, reason: Option<String>) {
        self.stop = reason;
    }

    /// What comes next of a partition cannot be read.
    pub(super) fn broken(&mut self, partition: TopicPartition, error: Error) {
        self.broken = Some((partition, error));
    }

    /// What could not be read is to be read again, and told again where that is so still: all of it, or that of a partition.
    pub(super) fn forget_broken(&mut self, of: Option<&TopicPartition>) {
        self.broken.take_if(|(partition, _)| of.is_none_or(|of| of == partition));
    }

    /// Told to end; what is in flight may take until `deadline`.
    pub(super) fn tell(&mut self, deadline: Instant) {
        self.told = Some(deadline);
    }

    /// Whether it was told to end.
    pub(super) fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// Until when what is in flight may take.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.told
    }

    /// Whether nothing more may be folded.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether no more records are wanted.
    pub(super) fn is_set(&self) -> bool {
        self.stop.is_some() || self.broken.is_some() || self.told.is_some()
    }

    /// Whether the task ends now, and how. `idle` is that nothing is in flight and nothing is being acquired, `drained` that
    /// nothing is in flight, `empty` that nothing waits to be folded.
    pub(super) fn finish(
        &mut self,
        (idle, drained, empty): (bool, bool, bool),
        now: Instant,
    ) -> Result<Option<Ended>> {
        if let Some(reason) = &self.stop
            && idle
        {
            return Err(Error::record(reason.clone()));
        }
        if idle
            && empty
            && let Some((_, error)) = self.broken.take()
        {
            return Err(error);
        }
        let over = self.told.is_some_and(|deadline| drained || now >= deadline);
        Ok(over.then_some(Ended::Stopped))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_reason_to_end_waits_for_what_is_before_it() {
        let now = Instant::now();
        let (busy, folded, idle) = ((false, false, false), (true, true, false), (true, true, true));
        let mut exit = ExitIntent::default();
        assert!(!exit.is_set() && exit.finish(idle, now).unwrap().is_none());

        let partition = TopicPartition::new("t", 0);
        exit.broken(partition.clone(), Error::config("a hole"));
        assert!(exit.is_set() && !exit.is_stopped(), "what came before it is folded");
        assert!(exit.finish(folded, now).unwrap().is_none());
        exit.forget_broken(Some(&TopicPartition::new("t", 1)));
        assert!(exit.is_set());
        exit.forget_broken(Some(&partition));
        assert!(!exit.is_set() && exit.finish(idle, now).unwrap().is_none());
        exit.broken(partition, Error::config("a hole"));
        assert_eq!(exit.finish(idle, now).unwrap_err().message(), "a hole");

        let mut exit = ExitIntent::default();
        exit.stop(Some("bad".to_owned()));
        assert!(exit.is_stopped() && exit.finish(busy, now).unwrap().is_none());
        assert_eq!(exit.finish(folded, now).unwrap_err().message(), "bad");

        let mut exit = ExitIntent::default();
        let deadline = now + Duration::from_secs(1);
        exit.tell(deadline);
        assert_eq!((exit.is_told(), exit.deadline()), (true, Some(deadline)));
        assert_eq!(exit.finish(busy, now).unwrap(), None);
        assert_eq!(exit.finish((false, true, false), now).unwrap(), Some(Ended::Stopped));
        assert_eq!(exit.finish(busy, deadline).unwrap(), Some(Ended::Stopped));
    }
}
