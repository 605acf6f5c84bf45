//! What a task counts and shows. A record is counted once, when its outcome is durable (rule 17).

use tokio::time::Instant;

use foldline_api::sink::Flush;

use super::Task;
use super::batch::Batch;

impl Task {
    pub(super) fn account(&self, batch: &Batch, flush: &Flush, started: Instant) {
        let metrics = &self.ops.metrics;
        let counts = &batch.counts;
        metrics.applied.inc_by(counts.applied);
        metrics.filtered.inc_by(counts.filtered);
        metrics.replayed.inc_by(counts.replayed);
        metrics.dead_lettered.inc_by(counts.dead_lettered);
        metrics.skipped.inc_by(counts.skipped);
        metrics.parked.inc_by(counts.parked);
        metrics.consumed.inc_by(counts.consumed());
        self.count_abandoned(batch.duplicates);
        metrics.inflight.sub(counts.consumed() as i64);
        let rows = flush.writes.len();
        let upserts = flush.writes.iter().filter(|write| write.row.is_some()).count();
        metrics.upserts.inc_by(upserts as u64);
        metrics.deletes.inc_by((rows - upserts) as u64);
        metrics.batch_rows.observe(rows as f64);
        metrics.flush_seconds.observe(started.elapsed().as_secs_f64());
        let now = (self.now)();
        let latency = metrics.latency_seconds.local();
        let mut newest = None;
        for timestamp in batch.timestamps() {
            latency.observe((now - timestamp).max(0) as f64 / 1_000.0);
            newest = newest.max(Some(timestamp));
        }
        latency.flush();
        self.ops.status.update(|s| {
            s.consumed += counts.consumed();
            s.newest = s.newest.max(newest);
        });
        self.show();
    }

    /// Shows positions and lag.
    pub(super) fn show(&self) {
        let partitions = self.held.snapshot(&self.source.ends());
        for status in &partitions {
            let tp = &status.partition;
            self.ops.metrics.lag(&tp.topic, tp.partition).set(status.lag());
        }
        self.ops.status.update(|s| s.partitions = partitions);
    }

    /// The gauge belongs to all tasks of the connector: each adds and takes away its own part.
    pub(super) fn show_assigned(&mut self, held: usize) {
        let held = i64::try_from(held).unwrap_or(i64::MAX);
        self.ops.metrics.assigned.add(held - self.shown_assigned);
        self.shown_assigned = held;
    }

    pub(super) fn count_abandoned(&self, records: u64) {
        self.ops.metrics.abandoned.inc_by(records);
        self.ops.metrics.inflight.sub(records as i64);
    }
}
