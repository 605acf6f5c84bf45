//! Side work: what a task writes beside the records that come. It is a flush that moves no position and stands under the fence
//! of its partition all the same, so that only who owns the partition can have done it.
//!
//! Whatever its purpose, it goes the same way. The books are asked now and then, beside the loop, whether there is something to
//! do. Once there is, nothing more is folded, and when nothing is in flight it is prepared apart, from what the store holds then:
//! so what was read at the beginning is all there is to know. Its flush is the next, and when that has ended, whatever came of
//! it, the books are looked at again. A reply that is lost needs no rule of its own: the books say whether it was done.
//!
//! That is for what an operator wants of parked keys ([`super::requests`]). Another purpose of that kind is an arm of
//! [`Purpose`], what is asked for and prepared in [`Found`], and what follows from a refusal. Rows that the clock deletes need
//! none of this quiet, since no event touches them any more ([`super::expiry`]).

use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::parked::Parked;
use foldline_api::record::{Position, TopicPartition};
use tokio::time::Instant;

use super::aside::Purpose;
use super::batch::Batch;
use super::cache::Cache;
use super::folder::Folder;
use super::pipeline::Call;
use super::requests::kept;
use super::{Task, spawn};
use crate::maps::HashMap;
use crate::retry::Attempts;

/// How often the books are asked while there may be something to do, but where the connector is idle.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// So often the store is asked to write what it had no time for; then the books say why it was not done.
const TRIES: u32 = 5;

/// A flush that moves no position, and the rows that it writes.
#[derive(Debug)]
pub(super) struct SideFlush {
    batch: Batch,
    cache: Cache,
}

impl SideFlush {
    /// Of what `batch` holds, under the fence of `partition`, which stands at `at`.
    pub(super) fn new(
        mut batch: Batch,
        (partition, at): (TopicPartition, Position),
        purpose: Purpose,
        cache: Cache,
    ) -> Self {
        batch.steps = HashMap::from_iter([(partition, (at, at))]);
        batch.side = Some(purpose);
        SideFlush { batch, cache }
    }
}

/// A flush that the store had no time for. It cannot be made smaller, as all of a request is done or nothing.
#[derive(Debug)]
struct TooMuch {
    tries: u32,
    /// Until then the fold goes on.
    rests: Instant,
    reason: String,
}

/// What side work is prepared with, beside the task.
pub(super) struct Apart {
    /// It folds by the task's rules, and knows nothing of what is in flight.
    pub(super) folder: Folder,
    /// Empty.
    pub(super) cache: Cache,
    /// The batch's number.
    pub(super) number: u64,
    /// Where each partition stands.
    pub(super) at: HashMap<TopicPartition, Position>,
}

/// What a look into the books found.
#[derive(Debug)]
pub(super) enum Found {
    /// Whether there is something to do.
    Wanted(bool),
    /// All that is parked in these partitions, and the flush that does the first of what there is to do.
    Prepared(Vec<TopicPartition>, Vec<Parked>, Option<Box<SideFlush>>),
}

/// Where a task stands with its side work.
#[derive(Debug, Default)]
pub(super) struct SideWork {
    /// When the books are looked at next.
    due: Option<Instant>,
    /// There is something to do: folding waits until it is done.
    wanted: bool,
    looking: Option<Call<Found>>,
    too_much: Option<TooMuch>,
}

impl SideWork {
    /// Whether the fold has to wait.
    pub(super) fn block(&self) -> bool {
        self.wanted
    }

    /// When the books are looked at next.
    pub(super) fn timer(&self) -> Option<Instant> {
        self.due.filter(|_| !self.wanted && self.looking.is_none())
    }

    /// There may be something to do.
    pub(super) fn look_now(&mut self, now: Instant) {
        self.due = self.due.map(|_| now);
    }

    pub(super) fn call(&mut self) -> Option<&mut Call<Found>> {
        self.looking.as_mut()
    }

    /// Lets go of a call, as partitions are about to move; what is wanted is found again.
    pub(super) fn cancel(&mut self) {
        (self.looking, self.wanted) = (None, false);
    }

    /// Its flush is over, whatever came of it: the books say whether there is more to do.
    pub(super) fn flushed(&mut self) {
        self.wanted = true;
    }

    /// Its flush is durable.
    pub(super) fn durable(&mut self) {
        self.too_much = None;
    }

    /// The store had no time for its flush. What is live does not wait until it has.
    pub(super) fn too_much(&mut self, error: &Error, now: Instant) {
        let tries = self.too_much.as_ref().map_or(0, |before| before.tries) + 1;
        let rests = now + LOOK_EVERY * 2_u32.pow(tries.min(TRIES));
        self.too_much = Some(TooMuch { tries, rests, reason: format!("sink: {error}") });
    }
}

impl Task {
    /// Whether what is prepared apart now is of all that there is.
    fn is_quiet(&self) -> bool {
        self.idle() && self.held.steady() && !self.held.is_revoking()
    }

    /// Looks for side work now and then; once there is some, prepares it as soon as nothing is in flight.
    pub(super) fn advance_side_work(&mut self, now: Instant) {
        if self.side_work.looking.is_some() {
            return;
        }
        let partitions = self.folder.parking.partitions();
        let ending = self.exit.is_told() || self.exit.is_stopped();
        if ending || (partitions.is_empty() && !self.side_work.wanted) {
            (self.side_work.wanted, self.side_work.due) = (false, None);
            return;
        }
        if self.side_work.wanted {
            if self.is_quiet() && self.contention.until().is_none() {
                let partitions = self.held.partitions();
                let apart = self.apart(&partitions);
                let call = self.ops.clone().group(partitions, apart);
                self.side_work.looking = Some(spawn(call));
            }
        } else if *self.side_work.due.get_or_insert(now + LOOK_EVERY) <= now && !self.pace.is_idle()
        {
            self.side_work.due = Some(now + LOOK_EVERY);
            self.side_work.looking = Some(spawn(self.ops.clone().asked(partitions)));
        }
    }

    fn apart(&mut self, partitions: &[TopicPartition]) -> Apart {
        // All of it is durable; two caches at once would be more than there is room for.
        self.cache.let_all_go();
        let at = |of: &TopicPartition| (of.clone(), self.held.folded(of));
        Apart {
            folder: self.folder.apart(),
            // What is cached is as the store has it; what side work that fails leaves behind is not.
            cache: self.cache.another(),
            at: partitions.iter().map(at).collect(),
            number: self.pipeline.number(),
        }
    }

    /// The books were looked at.
    pub(super) fn on_found(&mut self, found: Result<Found>) -> Result<()> {
        self.side_work.looking = None;
        let (partitions, parked, flush) = match found {
            Ok(Found::Prepared(partitions, parked, flush)) => (partitions, parked, flush),
            Ok(Found::Wanted(wanted)) => {
                self.side_work.wanted = wanted;
                if wanted {
                    self.pace.touch();
                }
                return Ok(());
            }
            Err(error) if matches!(error.class(), ErrorClass::Retriable | ErrorClass::Record) => {
                self.side_work.wanted = false;
                self.ops.failed("parked", &error);
                tracing::warn!(%error, "a request on parked events cannot be followed yet");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // Partitions came or moved meanwhile: once more, when all is quiet.
        if !self.is_quiet() {
            return Ok(());
        }
        self.side_work.wanted = false;
        self.folder.parking.relearn(&partitions, &parked);
        self.show_parked();
        if let Some(flush) = flush {
            self.try_aside(*flush);
        }
        Ok(())
    }

    /// Writes it, but what the store had no time for: that rests for a while, and after some attempts stays as it is.
    fn try_aside(&mut self, flush: SideFlush) {
        let Some(before) = &self.side_work.too_much else { return self.flush_aside(flush) };
        if before.tries >= TRIES
            && let Some(Purpose::Parked(group)) = &flush.batch.side
            && let (Some(first), Some((_, (at, _)))) =
                (group.first(), flush.batch.steps.iter().next())
        {
            let tries = before.tries;
            tracing::warn!(
                tries,
                reason = before.reason,
                "parked events stay: the store has no time for them"
            );
            let place = (flush.batch.number, *at);
            let cache = self.cache.another();
            return self.flush_aside(kept(place, group, first, &before.reason, cache));
        }
        if before.rests > Instant::now() {
            self.side_work.due = Some(before.rests);
            self.pace.touch();
            return;
        }
        self.flush_aside(flush);
    }

    /// What is prepared is the next to be written.
    pub(super) fn flush_aside(&mut self, SideFlush { batch, cache }: SideFlush) {
        self.cache.clear();
        self.cache.adopt(cache);
        self.pipeline.fold(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_of_side_work_moves_no_position_and_stands_under_its_fence() {
        let partition = TopicPartition::new("t", 1);
        let place = (partition.clone(), Position(7));
        let purpose = Purpose::Parked(Vec::new());
        let flush = SideFlush::new(Batch::new(3), place, purpose, Cache::new(1 << 10));
        let SideFlush { mut batch, cache } = flush;
        let flush = batch.flush(&cache, &|_| 5, false);
        let advances: Vec<_> = flush.advances.iter().map(|a| (&a.partition, a.epoch)).collect();
        assert_eq!(advances, [(&partition, 5)]);
        assert!(flush.advances.iter().all(|a| a.from == Position(7) && a.to == a.from));
        assert!(flush.writes.is_empty() && flush.checks.is_empty());
    }
}
