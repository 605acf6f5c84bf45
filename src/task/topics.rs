//! Whether the topics are still those that the positions belong to (rule 2).
//!
//! A client reads a topic that was deleted and made again under its name on at the old offset. An id never comes
//! back, so a topic that has its id after its last record was fetched had it when that was fetched. Therefore
//! no flush leaves before the ids of its topics were read after its last record came. The request runs beside the
//! fold, one for all partitions, and only while there is something to write.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::ops::Ops;
use super::{Task, spawn_at_once};
use crate::retry::{Attempts, retry};
use crate::topic_ids::{Known, same_topics};

/// While a write is under way the batch behind it grows: no more often than this it is asked for it. When the
/// write ends, what is still open is asked at once.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// How long the log is asked why it does not have an offset.
const REASON: Duration = Duration::from_secs(5);

/// What was asked of the log, and what it is to be asked.
#[derive(Debug, Default)]
pub(super) struct Topics {
    /// How often something came of the log.
    came: u64,
    /// The topics of what came since the last request.
    open: Known,
    /// The request under way, and up to what it holds.
    asking: Option<(u64, AbortOnDropHandle<Result<()>>)>,
    asked_at: Option<Instant>,
    /// What came up to here is of the topics that it should be of.
    confirmed: u64,
}

impl Topics {
    /// Something of these topics came.
    pub(super) fn came(&mut self, of: Known) {
        self.came += 1;
        self.open.extend(of);
    }

    /// The number of what came last.
    pub(super) fn last(&self) -> u64 {
        self.came
    }

    /// Whether all that came up to `number` may be written.
    pub(super) fn confirmed(&self, number: u64) -> bool {
        self.confirmed >= number
    }

    pub(super) fn call(&mut self) -> Option<&mut AbortOnDropHandle<Result<()>>> {
        self.asking.as_mut().map(|(_, call)| call)
    }
}

impl Task {
    /// Asks for the topics' ids where something waits for them: a batch, one that was cut just now, or what came
    /// while nothing else is to do and is about to be one.
    pub(super) fn ask_topics(&mut self, cut: bool, now: Instant) {
        if self.topics.asking.is_some() || self.topics.confirmed(self.topics.came) {
            return;
        }
        let waits = self.pipeline.came().is_some_and(|number| !self.topics.confirmed(number));
        let comes = self.idle() && self.pipeline.inbox.due().is_some();
        let haste = (cut || waits) && !self.pipeline.is_writing();
        let soon = |at: Instant| now.saturating_duration_since(at) < ASK_EVERY;
        if !(cut || waits || comes) || (!haste && self.topics.asked_at.is_some_and(soon)) {
            return;
        }
        let topics = &mut self.topics;
        if topics.open.is_empty() {
            // All of it is of topics whose ids nobody can tell.
            topics.confirmed = topics.came;
            return;
        }
        let call = self.ops.clone().same_topics(std::mem::take(&mut topics.open));
        topics.asked_at = Some(now);
        topics.asking = Some((topics.came, spawn_at_once(call)));
    }

    /// Why the log does not have an offset: that of a topic made anew is no hole that may be left.
    // Not a borrow: a task cannot be shared between threads while this waits.
    pub(super) fn reason(&self, error: Error) -> impl Future<Output = Error> + Send + use<> {
        let (log, known) = (Arc::clone(&self.ops.log), self.held.topics());
        async move {
            if error.code() != Some("OffsetOutOfRange") {
                return error;
            }
            match tokio::time::timeout(REASON, same_topics(&*log, &known)).await {
                Ok(Err(other)) if other.class() == ErrorClass::Config => other,
                Ok(_) | Err(_) => error,
            }
        }
    }

    /// The topics are the same as before.
    pub(super) fn on_same_topics(&mut self) {
        if let Some((number, _)) = self.topics.asking.take() {
            self.topics.confirmed = number;
        }
    }
}

/// Shows what fails, and leaves it to the write to say that all is well.
struct Quiet<'a>(&'a Ops);

impl Attempts for Quiet<'_> {
    fn failed(&self, what: &'static str, error: &Error) {
        self.0.failed(what, error);
    }

    fn worked(&self) {}
}

impl Ops {
    /// Returns once the log has told that these topics have these ids.
    ///
    /// # Errors
    /// A config error where one was made anew.
    pub(super) async fn same_topics(self, known: Known) -> Result<()> {
        retry(&Quiet(&self), "topics", || same_topics(&*self.log, &known)).await
    }
}
