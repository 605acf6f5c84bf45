//! Rows that the clock deletes: a flush that moves no position and stands under the fence of one of the task's partitions.
//!
//! About once a minute the horizon is looked at ([`crate::expiry`]), and by the task that holds a first partition what it has passed is
//! read, a bounded number of rows at a time. Their deletes are written between two flushes of the fold, which goes
//! on beside them: no event that is folded touches such a row any more. Whatever comes of it, what is left is read
//! again; so a lost reply needs no rule of its own, and who finds that another was faster has nothing to undo.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::expiry::Horizons;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Advance, Flush, RowWrite, Written};
use tokio::time::Instant;

use super::Task;
use super::aside::Purpose;
use super::assignment::Outcome;
use super::batch::Batch;
use super::calls::spawn;
use super::ops::{Ops, WriteEnd};
use super::pipeline::{Call, Writing};
use crate::maps::HashMap;
use crate::policy::{backoff, more};
use crate::retry::retry;

/// How often the horizon is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Rows of one flush, at most.
const ROWS_MAX: usize = 5_000;
/// A first partition: one of the tasks that hold one looks for what has expired.
const FIRST: i32 = 0;

/// What was found that is to be deleted.
#[derive(Debug, Default)]
pub(super) struct Found {
    deletes: Vec<RowWrite>,
}

/// Where a task stands with it.
#[derive(Debug)]
pub(super) struct Sweep {
    due: Option<Instant>,
    looking: Option<Call<Found>>,
    /// To be written as soon as nothing else is.
    deletes: Vec<RowWrite>,
    /// So many at a time: fewer while the store refuses some, or has no time for more.
    rows_max: usize,
}

impl Default for Sweep {
    fn default() -> Self {
        Sweep { due: None, looking: None, deletes: Vec::new(), rows_max: ROWS_MAX }
    }
}

impl Sweep {
    /// When the horizon is looked at next.
    pub(super) fn timer(&self) -> Option<Instant> {
        self.due.filter(|_| self.looking.is_none() && self.deletes.is_empty())
    }

    pub(super) fn call(&mut self) -> Option<&mut Call<Found>> {
        self.looking.as_mut()
    }

    /// A command was given: it may be about the horizon.
    pub(super) fn look_now(&mut self, now: Instant) {
        self.due = self.due.map(|_| now);
    }

    /// Lets go of what is under way, as partitions are about to move; it is found again.
    pub(super) fn cancel(&mut self) {
        (self.looking, self.deletes) = (None, Vec::new());
    }
}

impl Ops {
    fn horizons(&self) -> Result<&dyn Horizons> {
        let horizons = self.target.horizons();
        horizons.ok_or_else(|| Error::config("this sink cannot delete rows by the clock"))
    }

    /// Learns the horizon before the first event is folded.
    pub(super) async fn learn_horizon(&self) -> Result<()> {
        let Some(expiry) = &self.expiry else { return Ok(()) };
        let horizons = self.horizons()?;
        retry(self, "expire", || expiry.look(horizons)).await.map(drop)
    }

    /// Looks at the horizon, and reads at most so many rows that it has passed, if any are asked for.
    async fn expire(self, rows_max: usize) -> Result<Found> {
        let Some(expiry) = &self.expiry else { return Ok(Found::default()) };
        let horizon = expiry.look(self.horizons()?).await?;
        let deletes = match horizon {
            Some(horizon) if rows_max > 0 => self.writer.expired(horizon, rows_max).await?,
            _ => Vec::new(),
        };
        Ok(Found { deletes })
    }
}

impl Task {
    /// Looks at the horizon now and then.
    pub(super) fn advance_sweep(&mut self, now: Instant) {
        if self.ops.expiry.is_none() || self.sweep.looking.is_some() {
            return;
        }
        let ending = self.exit.is_told() || self.exit.is_stopped();
        if ending || self.held.len() == 0 || *self.paused.borrow() {
            (self.sweep.due, self.sweep.deletes) = (None, Vec::new());
            return;
        }
        let due = *self.sweep.due.get_or_insert(now) <= now;
        if due && self.sweep.deletes.is_empty() && self.pace.looks() {
            self.sweep.due = Some(now + LOOK_EVERY);
            let sweeps = self.held.partitions().iter().any(|of| of.partition == FIRST);
            let rows_max = if sweeps { self.sweep.rows_max } else { 0 };
            self.sweep.looking = Some(spawn(self.ops.clone().expire(rows_max)));
        }
    }

    /// The horizon was looked at.
    pub(super) fn on_expired_found(&mut self, found: Result<Found>) -> Result<()> {
        self.sweep.looking = None;
        match found {
            Ok(Found { deletes }) => self.sweep.deletes = deletes,
            Err(error) if matches!(error.class(), ErrorClass::Retriable | ErrorClass::Record) => {
                self.ops.metrics.error("expire", error.class().label()).inc();
                if error.is_too_much() {
                    self.sweep.rows_max = (self.sweep.rows_max / 2).max(1);
                }
                tracing::warn!(%error, "what has expired could not be looked for, later again");
            }
            // The writes of the fold find it out in their own way.
            Err(error) if error.class() == ErrorClass::Fenced => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes the deletes that wait, where a flush may leave now.
    pub(super) fn write_expired(&mut self) {
        let facts = self.facts();
        let may = !(facts.ends || facts.lost || facts.revokes || facts.unmarked || facts.paused);
        if !may || self.sweep.deletes.is_empty() {
            return;
        }
        let Some(partition) = self.held.partitions().into_iter().min() else { return };
        let (epoch, at) = (self.held.epoch(&partition), self.held.durable(&partition));
        let flush = Arc::new(held_flush(&partition, (epoch, at), &mut self.sweep.deletes));
        // Of no number: what the fold has in flight is neither before nor behind it.
        let mut batch = Batch::new(0);
        batch.steps = HashMap::from_iter([(partition, (at, at))]);
        batch.side = Some(Purpose::Expired);
        let pause = backoff(self.write_errors.count);
        let handle = spawn(self.ops.clone().write(Vec::new(), Arc::clone(&flush), pause));
        let started = Instant::now();
        self.pipeline.write(Writing { batch, flush, started, forgotten: false, handle });
    }

    /// The deletes were written, or were not: what is left is read again.
    pub(super) fn on_expired(&mut self, writing: Writing, end: WriteEnd) -> Result<()> {
        let Writing { batch, flush, started, .. } = writing;
        let now = Instant::now();
        match end {
            WriteEnd::Known(Written::Durable(_)) => {
                if let Some(expiry) = &self.ops.expiry {
                    expiry.deleted(flush.writes.len() as u64);
                }
                self.write_errors.count = 0;
                self.sweep.rows_max = more(self.sweep.rows_max).min(ROWS_MAX);
                self.gauges.flushed(&batch, &flush, started);
                self.sweep.look_now(now);
            }
            // Another writer was faster.
            WriteEnd::Known(Written::Conflict { .. }) => self.sweep.look_now(now + LOOK_AGAIN),
            WriteEnd::Known(Written::Rejected(error)) => self.expired_refused(&flush, &error),
            WriteEnd::Known(Written::Fenced) => return self.fenced(batch),
            WriteEnd::Unknown(positions, trouble) => {
                if let Some(error) = trouble {
                    self.write_trouble(&error);
                    if error.is_too_much() {
                        self.sweep.rows_max = (flush.writes.len() / 2).max(1);
                    }
                }
                if self.held.compare(&flush, &positions) == Outcome::Moved {
                    return self.fenced(batch);
                }
                self.sweep.look_now(now + LOOK_AGAIN);
            }
        }
        Ok(())
    }

    /// The store does not let rows go, a foreign key perhaps: fewer of them at a time, so that those before it go.
    fn expired_refused(&mut self, flush: &Flush, error: &Error) {
        self.ops.metrics.error("expire", error.class().label()).inc();
        let rows = flush.writes.len();
        self.sweep.rows_max = (rows / 2).max(1);
        if rows > 1 {
            self.sweep.look_now(Instant::now());
            return;
        }
        self.sweep.rows_max = ROWS_MAX;
        let key = flush.writes.first().map(|write| write.key.to_string());
        tracing::warn!(%error, key, "the store does not let a row go that has expired");
        self.ops.status.trouble(error);
    }
}

/// Between a flush that another writer came before and the next look.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The flush of these deletes, under the fence of a partition that stands there.
fn held_flush(
    partition: &TopicPartition,
    (epoch, at): (i64, Position),
    deletes: &mut Vec<RowWrite>,
) -> Flush {
    let mut writes = std::mem::take(deletes);
    writes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let advance = Advance { partition: partition.clone(), epoch, from: at, to: at };
    Flush { advances: vec![advance], writes, ..Flush::default() }
}
