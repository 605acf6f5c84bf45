//! What a task counts and shows. A record is counted once, when its outcome is durable (rule 17).

use foldline_api::parked::Place;
use foldline_api::record::TopicPartition;
use foldline_api::sink::Flush;
use foldline_api::throttle::Throttle;
use tokio::time::Instant;

use super::batch::Batch;
use super::blocked::BlockedBy;
use super::errors::{Bad, LastBad};
use super::status::{PartitionStatus, TaskStatus};
use crate::metrics::ConnectorMetrics;

/// Metrics and status as one task moves them. Some gauges belong to all tasks of the connector: each adds and takes away its
/// own part.
#[derive(Debug)]
pub(super) struct Gauges {
    metrics: ConnectorMetrics,
    status: TaskStatus,
    assigned: i64,
    parked: i64,
    blocked_by: Option<BlockedBy>,
    /// Lines about bad records, and how many none told of yet.
    bad_lines: Throttle,
    bad_untold: u64,
    told_of_all: bool,
    /// Milliseconds since the epoch; only for latency.
    now: fn() -> i64,
}

impl Gauges {
    pub(super) fn new(metrics: ConnectorMetrics, status: TaskStatus, now: fn() -> i64) -> Self {
        Gauges {
            metrics,
            status,
            assigned: 0,
            parked: 0,
            blocked_by: None,
            bad_lines: Throttle::default(),
            bad_untold: 0,
            told_of_all: false,
            now,
        }
    }

    /// What a flush made durable.
    pub(super) fn flushed(&mut self, batch: &Batch, flush: &Flush, started: Instant) {
        let metrics = &self.metrics;
        let counts = &batch.counts;
        counts.add_to(metrics);
        self.abandoned(batch.duplicates);
        metrics.inflight.sub(counts.consumed() as i64);
        let rows = flush.writes.len();
        let upserts = flush.writes.iter().filter(|write| write.row.is_some()).count();
        metrics.upserts.inc_by(upserts as u64);
        metrics.deletes.inc_by((rows - upserts) as u64);
        metrics.batch_rows.observe(rows as f64);
        metrics.flush_seconds.observe(started.elapsed().as_secs_f64());
        let now = (self.now)();
        let latency = metrics.latency_seconds.local();
        for timestamp in batch.timestamps() {
            latency.observe((now - timestamp).max(0) as f64 / 1_000.0);
        }
        latency.flush();
        let last_bad = |(place, reason): &(Place, String)| LastBad {
            place: place.clone(),
            reason: reason.clone(),
            at: now,
        };
        let last = batch.last_bad.as_ref().map(last_bad);
        let mut bad = Bad::default();
        self.status.update(|s| {
            s.consumed += counts.consumed();
            s.bad.add(batch.bad_records, counts.good(), last.clone());
            bad.clone_from(&s.bad);
            if let Some((_, since)) = &mut s.blocked {
                *since = Instant::now();
            }
        });
        if let Some(last) = last {
            self.tell_of_bad(batch.bad_records, &bad, &last);
        }
    }

    /// A line about bad records, one every half minute; louder where nothing else comes.
    fn tell_of_bad(&mut self, came: u64, all: &Bad, last: &LastBad) {
        self.bad_untold += came;
        // What was a few and is all of them now is worth a line at once.
        if all.is_all() && !self.told_of_all {
            self.bad_lines = Throttle::default();
        }
        if self.bad_lines.admit(Instant::now().into_std()).is_none() {
            return;
        }
        self.told_of_all = all.is_all();
        let count = std::mem::take(&mut self.bad_untold);
        let (TopicPartition { topic, partition }, offset) = &last.place;
        let (reason, in_a_row) = (&last.reason, all.in_a_row);
        if self.told_of_all {
            tracing::error!(
                %topic, partition, offset, count, in_a_row, %reason,
                "every record is bad: correct the projection or the source's converters, then rebuild; or the producer"
            );
        } else {
            tracing::warn!(
                %topic, partition, offset, count, %reason,
                "bad records were set aside as on_bad_record says; this is the last of them"
            );
        }
    }

    /// The timestamp of the oldest record in flight.
    pub(super) fn oldest(&self, oldest: Option<i64>) {
        self.status.update(|s| s.oldest = oldest);
    }

    /// So many records came.
    pub(super) fn fetched(&self, records: u64) {
        self.metrics.fetched.inc_by(records);
        self.metrics.inflight.add(records as i64);
    }

    /// So many records were let go that had come, since another task folds them or they are read again.
    pub(super) fn abandoned(&self, records: u64) {
        self.metrics.abandoned.inc_by(records);
        self.metrics.inflight.sub(records as i64);
    }

    /// Positions and lag of all partitions that are held.
    pub(super) fn positions(&self, partitions: Vec<PartitionStatus>) {
        self.status.show(partitions, |p| self.metrics.show_lag(&p.partition, p.lag()));
    }

    /// So many partitions are held.
    pub(super) fn assigned(&mut self, held: usize) {
        let held = i64::try_from(held).unwrap_or(i64::MAX);
        self.metrics.assigned.add(held - self.assigned);
        self.assigned = held;
    }

    /// So many keys are parked.
    pub(super) fn parked(&mut self, keys: i64) {
        self.metrics.parked_keys.add(keys - self.parked);
        self.parked = keys;
    }

    /// What nothing moves by. The status is told of changes only.
    pub(super) fn blocked_by(&mut self, by: Option<BlockedBy>, now: Instant) {
        if self.blocked_by != by {
            self.blocked_by = by;
            self.status.blocked(by, now);
        }
    }
}
