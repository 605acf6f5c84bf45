//! One flush: how it begins, and what each way that it may end leads to.

use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_api::record::TopicPartition;
use foldline_api::sink::{Loaded, RowWrite, Version, Versions, Written};
use tokio::time::Instant;

use super::aside::Purpose;
use super::assignment::Outcome;
use super::batch::Batch;
use super::inbox::Item;
use super::ops::WriteEnd;
use super::pipeline::Writing;
use super::requests::kept;
use super::{Task, spawn};
use crate::chance::fraction;
use crate::policy::backoff;

impl Task {
    pub(super) fn start_write(&mut self, mut batch: Batch) {
        let held = &self.held;
        let outbox = self.ops.outbox;
        let flush = batch.flush(&self.cache, &|partition| held.epoch(partition), outbox);
        let flush = Arc::new(flush);
        self.cache.set_writing(Some(batch.number));
        self.folder.decisions.keep(&batch.decisions);
        let letters = std::mem::take(&mut batch.letters);
        // Those of a build wait in its books for the swap.
        let letters = if outbox { Vec::new() } else { letters };
        let pause = backoff(self.write_errors.count);
        let handle = spawn(self.ops.clone().write(letters, Arc::clone(&flush), pause));
        let started = Instant::now();
        self.pipeline.write(Writing { batch, flush, started, forgotten: false, handle });
    }

    pub(super) fn on_written(&mut self, end: WriteEnd) -> Result<()> {
        let Some(mut writing) = self.pipeline.written() else { return Ok(()) };
        if matches!(writing.batch.side, Some(Purpose::Expired)) {
            return self.on_expired(writing, end);
        }
        self.cache.set_writing(None);
        if writing.batch.side.is_some() {
            self.side_work.flushed();
        }
        match end {
            WriteEnd::Known(Written::Durable(versions)) => self.durable(writing, &versions),
            WriteEnd::Known(Written::Conflict { written }) => self.conflict(writing, &written),
            WriteEnd::Known(Written::Rejected(error)) => match writing.batch.side.take() {
                Some(purpose) => self.side_work_refused(&purpose, &error),
                None => self.rejected(writing.batch, &error),
            },
            WriteEnd::Known(Written::Fenced) => return self.fenced(writing.batch),
            WriteEnd::Unknown(positions, trouble) => {
                if let Some(error) = trouble {
                    self.write_trouble(&error);
                    if error.is_too_much() {
                        match writing.batch.side {
                            Some(_) => self.side_work.too_much(&error, Instant::now()),
                            None => self.pipeline.inbox.limit(writing.batch.records),
                        }
                    }
                }
                match self.held.compare(&writing.flush, &positions) {
                    Outcome::Durable => self.durable(writing, &Versions::Unknown),
                    Outcome::NotApplied => self.fold_again(Some(writing.batch)),
                    Outcome::Moved => return self.fenced(writing.batch),
                }
            }
        }
        Ok(())
    }

    /// Another writer of the same rows came first. Only what this batch and the one behind it touched is
    /// read anew; a row of it that is durable all the same stays known, so that the next attempt has less
    /// to write, and each time some writer of each row has come further.
    fn conflict(&mut self, writing: Writing, written: &[Option<Version>]) {
        self.ops.metrics.conflicts.inc();
        let Writing { batch, flush, forgotten, .. } = writing;
        let (records, number) = (batch.records, batch.number);
        self.pipeline.inbox.stay_small();
        self.give_back(Some(batch));
        self.cache.forget_since(number);
        if !forgotten {
            for (write, version) in flush.writes.iter().zip(written) {
                let Some(version) = *version else { continue };
                let RowWrite { key, row, marks, .. } = write.clone();
                self.cache.insert(key, Loaded { row, version, marks }, number);
                self.cache.written(&write.key, version);
            }
        }
        self.contention.conflict(Instant::now(), fraction());
        if self.contention.repeats() {
            self.pipeline.inbox.narrow(records);
        }
    }

    pub(super) fn write_trouble(&mut self, error: &Error) {
        self.write_errors.count += 1;
        let failures = self.write_errors.count;
        self.ops.status.write_fails(error, failures);
        if self.write_errors.admit() {
            tracing::warn!(%error, failures, "a write failed; the sink was asked what became of it");
        }
    }

    fn durable(&mut self, writing: Writing, versions: &Versions) {
        let Writing { batch, flush, started, forgotten, .. } = writing;
        self.ops.status.written();
        if batch.side.is_some() {
            self.side_work.durable();
        }
        for (partition, (_, to)) in &batch.steps {
            self.held.set_durable(partition, *to);
            self.folder.decisions.settle(partition, *to);
            self.ops.sent.settle(partition, *to);
        }
        self.folder.parking.durable(batch.number);
        self.show_parked();
        match versions {
            // What is folded on top of unknown versions could not be written: fold it again.
            Versions::Unknown => self.fold_again(None),
            _ if forgotten => {}
            Versions::All(version) => {
                for write in &flush.writes {
                    let present = write.row.is_some();
                    self.cache
                        .written(&write.key, if present { *version } else { Version::Absent });
                }
            }
            Versions::Each(each) => {
                for (write, version) in flush.writes.iter().zip(each) {
                    self.cache.written(&write.key, *version);
                }
            }
        }
        if !self.folder.verdicts.is_empty() {
            let done = |of: &TopicPartition| batch.steps.get(of).map_or(0, |(_, to)| to.0);
            self.folder.verdicts.retain(|(partition, offset), _| *offset >= done(partition));
        }
        self.folder.asked.durable(&batch.steps);
        self.cache.shrink(batch.number);
        if self.cache.is_over() {
            // Rows are larger than their events: what batches in flight pin is all that is left.
            self.pipeline.inbox.narrow(batch.records);
        } else {
            self.pipeline.inbox.widen();
        }
        if *versions == Versions::Unknown {
            // As after every write into a table with triggers.
            self.pipeline.inbox.stay_small();
        }
        self.write_errors.count = 0;
        self.contention.durable(Instant::now(), started.elapsed(), fraction);
        self.gauges.flushed(&batch, &flush, started);
        self.show();
    }

    /// Everything that is folded and not durable, and `batch` before it, goes back to be folded anew
    /// from states that are read anew.
    pub(super) fn fold_again(&mut self, batch: Option<Batch>) {
        self.cache.clear();
        self.give_back(batch);
    }

    fn give_back(&mut self, batch: Option<Batch>) {
        self.gauges.abandoned(self.pipeline.give_back(batch, Instant::now()));
        self.folder.parking.forget(self.pipeline.writes());
        self.held.fold_from_durable(self.pipeline.write_steps());
    }

    /// The store refused the data: halve until the record to blame is alone.
    fn rejected(&mut self, batch: Batch, error: &Error) {
        self.ops.metrics.error("write", error.class().label()).inc();
        let records = batch.records;
        let only = batch.items.iter().find_map(|item| match item {
            Item::Record(record) if records == 1 => Some((record.topic_partition(), record.offset)),
            Item::Record(_) | Item::End(..) => None,
        });
        if let Some(alone) = batch.alone.clone().or(only) {
            self.folder.blame(alone, error);
        }
        self.fold_again(Some(batch));
        self.pipeline.inbox.narrow(records);
    }

    /// The store refused what side work wrote: what is written instead, from states that are read anew.
    fn side_work_refused(&mut self, purpose: &Purpose, error: &Error) {
        self.ops.metrics.error("write", error.class().label()).inc();
        self.fold_again(None);
        let number = self.pipeline.number();
        let Purpose::Parked(group) = purpose else { return };
        let Some(first) = group.first() else { return };
        let at = self.held.folded(&first.partition);
        let reason = format!("sink: {error}");
        self.flush_aside(kept((number, at), group, first, &reason, self.cache.another()));
    }

    /// Another writer holds what this task thought it held: let everything go and acquire again.
    pub(super) fn fenced(&mut self, batch: Batch) -> Result<()> {
        self.ops.metrics.fenced.inc();
        let wait = self.contention.fenced();
        tracing::warn!(
            fences = self.contention.fences(),
            "fenced: another writer moved this task's positions"
        );
        self.fold_again(Some(batch));
        self.abandon_inbox();
        let Some(wait) = wait else {
            return Err(Error::fenced("fenced again and again: leaving the group"));
        };
        self.held.acquire_all(Instant::now() + wait);
        Ok(())
    }
}
