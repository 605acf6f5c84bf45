//! What a task shows of itself. Written by the task, read by the worker's REST and metrics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldline_api::record::{Position, TopicPartition};
use tokio::time::Instant;

use super::blocked::BlockedBy;
use super::errors::{Bad, ErrorTimes};
use crate::clock::now_millis;

/// A batch on its way is no standstill: what nothing moves by is shown after so long.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);

/// One partition as its task sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset that is not durable yet.
    pub position: Position,
    /// The end of the partition, as far as known.
    pub end: Option<Position>,
}

impl PartitionStatus {
    /// Offsets between the durable position and the end; none where the end is unknown.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        self.end.map(|end| (end.0 - self.position.0).max(0))
    }
}

/// A task's state at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its partitions.
    pub partitions: Vec<PartitionStatus>,
    /// What it retries now, and why; none when all is well.
    pub trouble: Option<String>,
    /// The same with its time, and the last one that is over.
    pub errors: ErrorTimes,
    /// Bad records since the task began.
    pub bad: Bad,
    /// The timestamp of the oldest record that was delivered and is not durable, in milliseconds since the epoch.
    pub oldest: Option<i64>,
    /// Records with a durable outcome since the task began.
    pub consumed: u64,
    /// Ends that the log told while nothing was fetched.
    pub(crate) heard: Vec<(TopicPartition, Position)>,
    /// By what nothing moves, and since when.
    pub(crate) blocked: Option<(BlockedBy, Instant)>,
    /// The write that fails again and again: it stays in `trouble` while other calls work.
    pub(crate) writing: Option<String>,
}

impl Snapshot {
    fn show_trouble(&mut self, trouble: Option<String>) {
        self.errors.set(trouble.clone(), now_millis());
        self.trouble = trouble;
    }

    /// An end is where it was heard of last, or where records came from.
    fn count_heard(&mut self) {
        for shown in &mut self.partitions {
            let heard = self.heard.iter().find(|(heard, _)| *heard == shown.partition);
            shown.end = shown.end.max(heard.map(|(_, end)| *end));
        }
    }

    /// By what nothing has moved for a while.
    #[must_use]
    pub fn blocked_by(&self) -> Option<BlockedBy> {
        self.blocked.filter(|(_, since)| since.elapsed() >= BLOCKED_AFTER).map(|(by, _)| by)
    }
}

/// The shared cell.
#[derive(Clone, Debug, Default)]
pub struct TaskStatus(Arc<Mutex<Snapshot>>);

impl TaskStatus {
    /// What the task last showed.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Shows these partitions and no other. `each` is told of them before another may be shown.
    pub(crate) fn show(&self, partitions: Vec<PartitionStatus>, each: impl Fn(&PartitionStatus)) {
        self.update(|s| {
            s.partitions = partitions;
            s.count_heard();
            s.partitions.iter().for_each(each);
        });
    }

    /// The log told these ends, and none of others.
    pub(crate) fn heard(
        &self,
        ends: Vec<(TopicPartition, Position)>,
        each: impl Fn(&PartitionStatus),
    ) {
        self.update(|s| {
            s.heard = ends;
            s.count_heard();
            s.partitions.iter().for_each(each);
        });
    }

    /// Notes an attempt that failed and will be made again.
    pub(crate) fn trouble(&self, error: &foldline_api::Error) {
        self.update(|s| {
            // What fails now is the nearer cause: a closed index cannot be read, whatever a write said of it before.
            s.show_trouble(Some(error.to_string()));
        });
    }

    /// By what nothing moves from now on. One reason that comes after another tells of the same standstill.
    pub(crate) fn blocked(&self, by: Option<BlockedBy>, now: Instant) {
        self.update(|s| {
            let since = s.blocked.map_or(now, |(_, since)| since);
            s.blocked = by.map(|by| (by, since));
        });
    }

    /// All is well again, but for a write that fails.
    pub(crate) fn clear_trouble(&self) {
        self.update(|s| {
            let writing = s.writing.clone();
            s.show_trouble(writing);
        });
    }

    /// A write has failed so often in a row, and will be made again.
    pub(crate) fn write_fails(&self, error: &foldline_api::Error, attempts: u32) {
        self.update(|s| {
            let times =
                if attempts > 1 { format!("; {attempts} times in a row") } else { String::new() };
            s.writing = Some(format!("{error}{times}"));
            let writing = s.writing.clone();
            s.show_trouble(writing);
        });
    }

    /// A write came to its end.
    pub(crate) fn written(&self) {
        self.update(|s| {
            s.writing = None;
            s.show_trouble(None);
        });
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::Error;

    use super::*;

    #[test]
    fn what_fails_now_is_shown_and_a_failing_write_while_nothing_else_does() {
        let status = TaskStatus::default();
        let shown = || status.snapshot().trouble.unwrap_or_default();
        status.write_fails(&Error::retriable("blocked"), 2);
        status.trouble(&Error::retriable("closed"));
        assert_eq!(shown(), "closed");
        status.clear_trouble();
        assert_eq!(shown(), "blocked; 2 times in a row");
        status.written();
        assert_eq!(status.snapshot().trouble, None);
    }
}
