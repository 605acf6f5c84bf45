//! Keeps a target's rows up to what they show of other targets' rows.
//!
//! It runs beside the tasks of each worker. What has still to be shown is noted in the store, by whoever changed the other
//! rows and in the same transaction, so nothing of it is kept here: each step asks the store, writes what is wrong, and
//! lets a note go once no row is wrong by it. It moves no position, so it needs no partition, and any number of workers
//! may do it at once.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::ErrorClass;
use foldline_api::sink::Writer;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::log::connector_span;
use crate::metrics::ConnectorMetrics;
use crate::pace::{Looks, Pace};
use crate::policy::{backoff, more};

/// How often the store is asked what has still to be shown, but where the connector is idle.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Rows that one step writes at most: while it holds them, their events wait.
const ROWS_MAX: usize = 1_000;
/// Of failures in a row the first is told, and then one in so many.
const TELL_EVERY: u32 = 20;

/// What keeps the rows of one generation fresh, for as long as the handle lives.
pub(crate) type Joined = AbortOnDropHandle<()>;

/// Begins to keep them fresh.
pub(crate) fn keep_shown(
    name: &str,
    writer: Arc<dyn Writer>,
    metrics: ConnectorMetrics,
    pace: Arc<Pace>,
    idle_every: Option<Duration>,
) -> Joined {
    let keeper = Keeper { writer, metrics, pace, idle_every, failures: 0, rows_max: ROWS_MAX };
    AbortOnDropHandle::new(tokio::spawn(keeper.run().instrument(connector_span(name))))
}

struct Keeper {
    writer: Arc<dyn Writer>,
    metrics: ConnectorMetrics,
    pace: Arc<Pace>,
    /// How often the store is asked where the connector is idle; none where it is not asked.
    idle_every: Option<Duration>,
    failures: u32,
    /// Rows of one step, at most: fewer while the store has no time for more.
    rows_max: usize,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            match self.writer.refresh(self.rows_max).await {
                Ok(step) => {
                    self.failures = 0;
                    self.rows_max = more(self.rows_max).min(ROWS_MAX);
                    self.metrics.lookup_lag.set(step.waits.unwrap_or(0.0));
                    self.metrics.shown.inc_by(step.rows);
                    if step.waits.is_some() {
                        self.pace.touch();
                    }
                    if step.more {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    self.rest().await;
                }
                Err(error) => {
                    // Of a generation that is over: its session is about to end.
                    if error.is_too_much() {
                        self.rows_max = (self.rows_max / 2).max(1);
                    }
                    let is_over = error.class() == ErrorClass::Fenced;
                    if !is_over {
                        self.metrics.retry("show").inc();
                    }
                    if !is_over && self.failures.is_multiple_of(TELL_EVERY) {
                        tracing::warn!(%error, "rows cannot be brought up to what they look up yet");
                    }
                    self.failures += 1;
                    tokio::time::sleep(backoff(self.failures)).await;
                }
            }
        }
    }

    /// Until the next look is due.
    async fn rest(&self) {
        let mut looks = Looks::new(&self.pace);
        let idle = async {
            match self.idle_every {
                Some(every) => tokio::time::sleep(every).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = looks.due(Instant::now() + LOOK_EVERY) => {}
            () = idle => {}
        }
    }
}

#[cfg(test)]
mod simulation;
