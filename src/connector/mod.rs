//! One connector: its states, and what it runs session after session. A failing connector never
//! touches the others.
//!
//! In reading order: this file (the handle and its states), `opening` (how a session begins), `session` (its
//! tasks), `rebuilding` (rebuilds beside it), `flood` (too many bad records), `parked` (keys set aside), `commands`
//! (what the operator asks for), `idle` (the look of one that has nothing to do) and `lag` (how far behind it is where
//! nothing is fetched).

mod commands;
mod flood;
mod idle;
mod lag;
mod opening;
mod parked;
mod rebuilding;
mod session;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use foldline_api::error::{Error, Result};
use foldline_api::hole::Hole;
use foldline_api::sink::{StoredPosition, Target};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::clock::now_millis;
use crate::connector_spec::ConnectorSpec;
use crate::log::connector_span;
use crate::pace::Pace;
use crate::policy::{Reaction, backoff, reaction};
use crate::rebuild::{Driver, Progress, Watch};
use crate::retry::{Attempts, retry};
use crate::task::{BlockedBy, PartitionStatus, Snapshot, TaskStatus};
use session::SessionEnd;

/// Kafka Connect's states of a connector or task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not started yet, or waiting for partitions.
    #[default]
    Unassigned,
    /// Consuming.
    Running,
    /// Holds its partitions, consumes nothing.
    Paused,
    /// Left its group.
    Stopped,
    /// Ended by an error that waiting does not cure.
    Failed,
    /// Between two sessions.
    Restarting,
}

impl State {
    /// As REST and metrics spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Unassigned => "UNASSIGNED",
            State::Running => "RUNNING",
            State::Paused => "PAUSED",
            State::Stopped => "STOPPED",
            State::Failed => "FAILED",
            State::Restarting => "RESTARTING",
        }
    }
}

/// What is seen of a connector from outside.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Its state.
    pub state: State,
    /// Why it failed, or what it is waiting for.
    pub trace: Option<String>,
    /// The live generation.
    pub generation: u64,
    /// Its tasks on this worker.
    pub tasks: Vec<Snapshot>,
    /// The partitions where no task folds here: stopped, failed or waiting.
    pub unfolded: Vec<PartitionStatus>,
    /// Records with a durable outcome per second, over the last seconds.
    pub rate: f64,
    /// Keys set aside in the partitions that its tasks here hold.
    pub parked_keys: i64,
    /// The rebuild under way.
    pub rebuild: Option<Progress>,
    /// Generations kept for a rollback.
    pub kept: Vec<u64>,
    /// Events that the live generation leaves out, since an operator moved its positions past them.
    pub holes: Vec<Hole>,
}

impl View {
    /// The lag over all partitions held here, in offsets; over all of the log's where no task folds here. None while
    /// it is unknown: no partition is assigned yet, or the log or the store did not answer.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        let held = self.tasks.iter().flat_map(|t| &t.partitions);
        let mut lags = held.chain(&self.unfolded).map(PartitionStatus::lag).peekable();
        lags.peek()?;
        lags.sum()
    }

    /// By what the first of its tasks that does not move is kept from it.
    #[must_use]
    pub fn blocked_by(&self) -> Option<BlockedBy> {
        self.tasks.iter().find_map(Snapshot::blocked_by)
    }

    /// The last error, of the connector or of a task.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        let of_task =
            || self.tasks.iter().find_map(|t| t.trouble.as_ref().or(t.last_error.as_ref()));
        self.trace.as_ref().or_else(of_task).map(String::as_str)
    }
}

#[derive(Debug, Default)]
struct Shown {
    state: State,
    trace: Option<String>,
    generation: u64,
    tasks: Vec<TaskStatus>,
    /// Whether tasks run or are about to: they report the lag.
    folds: bool,
    unfolded: Vec<PartitionStatus>,
    /// The live generation's positions as they were read last, while no task moves them.
    stored: Option<Vec<StoredPosition>>,
    consumed: u64,
    rate: f64,
    holes: Vec<Hole>,
}

/// The handle that REST and commands use.
pub struct Connector {
    spec: ConnectorSpec,
    shown: Mutex<Shown>,
    target: Mutex<Option<Arc<dyn Target>>>,
    identity: OnceLock<String>,
    /// Whether the target was made what this worker's config says.
    configured: OnceLock<()>,
    restart: Notify,
    ready: watch::Sender<bool>,
    watch: Watch,
    pace: Arc<Pace>,
}

impl Connector {
    pub(crate) fn new(spec: ConnectorSpec) -> Self {
        spec.metrics.set_state(State::Unassigned.name());
        let pace = Arc::new(Pace::new(spec.idle_poll_interval, spec.metrics.inflight.clone()));
        Connector {
            pace,
            spec,
            shown: Mutex::default(),
            target: Mutex::default(),
            identity: OnceLock::new(),
            configured: OnceLock::new(),
            restart: Notify::new(),
            ready: watch::Sender::new(false),
            watch: Watch::default(),
        }
    }

    /// Its name in the config.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The identity of its log (Kafka's cluster id), once it was reached.
    #[must_use]
    pub fn log_identity(&self) -> Option<&str> {
        self.identity.get().map(String::as_str)
    }

    /// What is seen of it now.
    #[must_use]
    pub fn view(&self) -> View {
        let shown = self.shown();
        View {
            state: shown.state,
            trace: shown.trace.clone(),
            generation: shown.generation,
            tasks: shown.tasks.iter().map(TaskStatus::snapshot).collect(),
            unfolded: shown.unfolded.clone(),
            rate: shown.rate,
            parked_keys: self.spec.metrics.parked_keys.get(),
            rebuild: self.watch.progress(),
            kept: self.watch.kept(),
            holes: shown.holes.clone(),
        }
    }

    /// Whether its tasks hold their partitions and the sink answers, or it is meant to be idle.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: State, trace: Option<String>) {
        self.spec.metrics.set_state(state.name());
        let idle = matches!(state, State::Running | State::Paused | State::Stopped);
        self.ready.send_replace(idle);
        let mut shown = self.shown();
        shown.state = state;
        shown.trace = trace;
    }

    /// Runs sessions, and rebuilds beside them, until `cancel`. Returns when the last task has left.
    pub(crate) async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let target = || self.opened_target().ok();
        let restart = || self.restart();
        let driver = Driver::new(&self.spec, (&self.watch, &self.pace), &target, &restart);
        let all = async {
            tokio::join!(
                self.sessions(&cancel),
                driver.run(&cancel),
                self.look_while_idle(&cancel),
                self.watch_lag(&cancel)
            )
        };
        all.instrument(connector_span(&self.spec.name)).await;
    }

    async fn sessions(&self, cancel: &CancellationToken) {
        loop {
            match self.session(cancel).await {
                Ok(SessionEnd::Cancelled) => break,
                Ok(SessionEnd::Again) => self.set_state(State::Restarting, None),
                // Trouble of the machine, or another writer: neither needs a person.
                Err(error)
                    if matches!(reaction(error.class()), Reaction::Reacquire | Reaction::Retry) =>
                {
                    tracing::warn!(%error, "starting over");
                    self.set_state(State::Restarting, Some(error.to_string()));
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(backoff(3)) => {}
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "connector failed");
                    self.spec.metrics.error("connector", error.class().label()).inc();
                    self.set_state(State::Failed, Some(error.to_string()));
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return,
                        () = self.restart.notified() => self.set_state(State::Restarting, None),
                    }
                }
            }
        }
        self.set_state(State::Unassigned, None);
    }

    /// Calls the log or the books until they answer.
    async fn retry<T, F: Future<Output = Result<T>>>(
        &self,
        what: &'static str,
        call: impl FnMut() -> F,
    ) -> Result<T> {
        retry(self, what, call).await
    }

    /// Once a second: rate and lag in time.
    pub(crate) fn tick(&self, seconds: f64) {
        let view = self.view();
        let consumed: u64 = view.tasks.iter().map(|t| t.consumed).sum();
        let mut shown = self.shown();
        let delta = consumed.saturating_sub(shown.consumed) as f64 / seconds.max(0.001);
        shown.rate = if shown.consumed == 0 { delta } else { shown.rate * 0.6 + delta * 0.4 };
        shown.consumed = consumed;
        drop(shown);
        let newest = view.tasks.iter().filter_map(|t| t.newest).max();
        let behind = match (view.lag(), newest) {
            (Some(0), _) => 0.0,
            (Some(_), Some(newest)) => (now_millis() - newest).max(0) as f64 / 1_000.0,
            _ => f64::NAN,
        };
        self.spec.metrics.lag_seconds.set(behind);
    }
}

impl Attempts for Connector {
    fn failed(&self, what: &'static str, error: &Error) {
        self.spec.metrics.retry(what).inc();
        self.shown().trace = Some(error.to_string());
    }

    fn worked(&self) {}
}
