//! One connector: its states, and what it runs session after session. A failing connector never
//! touches the others.
//!
//! In reading order: this file (the handle and its states), `opening` (how a session begins), `session` (its
//! tasks), `rebuilding` (rebuilds beside it), `flood` (too many bad records), `parked` (keys set aside), `letters` (dead letters), `commands`
//! (what the operator asks for), `idle` (the look of one that has nothing to do) and `lag` (how far behind it is where
//! nothing is fetched).

mod commands;
mod fleet;
mod flood;
mod idle;
mod lag;
mod letters;
mod opening;
mod parked;
mod rebuilding;
mod session;
#[cfg(test)]
mod tests;
mod turn;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use foldline_api::error::{Error, Result};
use foldline_api::hole::Hole;
use foldline_api::sink::{StoredPosition, Target};
use foldline_api::source::MissingTopic;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::clock::now_millis;
use crate::connector_spec::ConnectorSpec;
use crate::expiry::{Expiry, ExpiryView};
use crate::log::connector_span;
use crate::pace::Pace;
use crate::policy::{Reaction, backoff, reaction};
use crate::rebuild::{Driver, Progress, Watch};
use crate::retry::{Attempts, retry};
use crate::task::{
    Bad, BlockedBy, ErrorTimes, PartitionStatus, PastError, Snapshot, TaskStatus, newer,
};
use lag::not_there;
use session::SessionEnd;

/// Kafka Connect's states of a connector or task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not started yet, or no partition is assigned to its tasks here.
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
    /// Its own error, and its last one; those of its tasks are theirs.
    pub errors: ErrorTimes,
    /// Bad records since the worker started.
    pub bad: Bad,
    /// Of them per second, over the last seconds.
    pub bad_rate: f64,
    /// Which rows the clock deletes, if any.
    pub expiry: Option<ExpiryView>,
}

impl View {
    /// How long ago the oldest record was written that is not durable, in seconds, of those that were delivered; 0
    /// where there is no lag, none where it is unknown. `now` is in milliseconds since the epoch.
    #[must_use]
    pub fn behind(&self, now: i64) -> Option<f64> {
        if self.lag()? == 0 {
            return Some(0.0);
        }
        let oldest = self.tasks.iter().filter_map(|task| task.oldest).min()?;
        Some((now - oldest).max(0) as f64 / 1_000.0)
    }

    /// The state of one of its tasks.
    #[must_use]
    pub fn state_of(&self, task: &Snapshot) -> State {
        match self.state {
            State::Running if task.partitions.is_empty() => State::Unassigned,
            state => state,
        }
    }

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

    /// What fails now, of the connector or of a task, and since when, in milliseconds since the epoch.
    #[must_use]
    pub fn last_error(&self) -> Option<(&str, i64)> {
        let of_task = || self.tasks.iter().find_map(|task| task.errors.now.as_ref());
        let of_expiry = || self.expiry.as_ref()?.paused.as_ref();
        let error = self.errors.now.as_ref().or_else(of_task).or_else(of_expiry);
        error.map(|(message, since)| (message.as_str(), *since))
    }

    /// The last error that is over.
    #[must_use]
    pub fn past_error(&self) -> Option<PastError> {
        let of_tasks = self.tasks.iter().map(|task| task.errors.past.clone());
        of_tasks.fold(self.errors.past.clone(), newer)
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
    errors: ErrorTimes,
    /// A call is tried again: the trace is its error.
    retries: bool,
    /// Why it was paused, where no person did it.
    flood: Option<String>,
    /// Of tasks that have ended.
    bad: Bad,
    bad_seen: u64,
    bad_rate: f64,
    /// How many partitions its topics have in all, where it was asked since no task here has one.
    partitions: Option<usize>,
    /// The listed topics that there were not when the log was asked last.
    missing: Vec<MissingTopic>,
}

impl Shown {
    /// What its tasks show, and its state and the reason with it: who was given no partition folds nothing.
    fn tasks(&self, topics: &str) -> (Vec<Snapshot>, State, Option<String>) {
        let tasks: Vec<Snapshot> = self.tasks.iter().map(TaskStatus::snapshot).collect();
        let nothing = self.state == State::Running
            && self.folds
            && tasks.iter().all(|task| task.partitions.is_empty());
        let missing = self.missing.first().filter(|_| self.state == State::Running).map(not_there);
        if !nothing {
            let trace = self.trace.clone().or_else(|| self.flood.clone()).or(missing);
            return (tasks, self.state, trace);
        }
        let why = match (self.partitions, missing) {
            (Some(0), Some(missing)) => missing,
            (Some(0), None) => format!(
                "no topic matches {topics}: check the spelling, or make one; it is seen within a minute"
            ),
            (Some(_), _) => "the group has given this worker no partition: other workers hold them all, or the group \
                        still waits for a member that is gone (session.timeout.ms)"
                .to_owned(),
            (None, _) => "no partition is assigned to this worker yet".to_owned(),
        };
        (tasks, State::Unassigned, Some(why))
    }

    /// Shows an error, or that there is none.
    fn set_error(&mut self, message: Option<String>) {
        self.errors.set(message, now_millis());
    }

    /// The tasks are over; `error` is what ended them, which the connector is about to show.
    fn end_tasks(&mut self, error: Option<&str>) {
        let (now, of_all) = (now_millis(), self.bad_of_all());
        for task in std::mem::take(&mut self.tasks) {
            self.errors.absorb(task.snapshot().errors, error, now);
        }
        self.bad = of_all;
    }

    /// Bad records of tasks that have ended and of those that are here.
    fn bad_of_all(&self) -> Bad {
        let with = |all: Bad, task: &TaskStatus| {
            let Snapshot { bad, consumed, .. } = task.snapshot();
            all.with(&bad, consumed > bad.count && bad.in_a_row == 0)
        };
        self.tasks.iter().fold(self.bad.clone(), with)
    }
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
    /// Whether tasks of it have ever run here.
    began: watch::Sender<bool>,
    watch: Watch,
    pace: Arc<Pace>,
    /// One replay of dead letters at a time: it reads first what was given back.
    replaying: tokio::sync::Mutex<()>,
    fleet: fleet::Fleet,
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
            began: watch::Sender::new(false),
            watch: Watch::default(),
            replaying: tokio::sync::Mutex::default(),
            fleet: fleet::Fleet::default(),
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
        let (tasks, state, trace) = shown.tasks(&self.spec.topics);
        View {
            state,
            trace,
            generation: shown.generation,
            tasks,
            unfolded: shown.unfolded.clone(),
            rate: shown.rate,
            parked_keys: self.spec.metrics.parked_keys.get(),
            rebuild: self.watch.progress(),
            kept: self.watch.kept(),
            holes: shown.holes.clone(),
            errors: shown.errors.clone(),
            bad: shown.bad_of_all(),
            bad_rate: shown.bad_rate,
            expiry: self.spec.expiry.as_deref().map(Expiry::view),
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
        let idle = matches!(state, State::Running | State::Paused | State::Stopped);
        self.ready.send_replace(idle);
        let mut shown = self.shown();
        if state != State::Paused {
            shown.flood = None;
        }
        // What it waits for elsewhere is no error.
        let fails = matches!(state, State::Failed | State::Restarting | State::Stopped);
        let error = trace.clone().filter(|_| fails).or_else(|| shown.flood.clone());
        (shown.state, shown.trace, shown.retries) = (state, trace, false);
        shown.set_error(error);
        let (_, seen, _) = shown.tasks(&self.spec.topics);
        self.spec.metrics.set_state(seen.name());
    }

    /// An error that ended a connector before it folded anything names the place of its config.
    fn placed(&self, error: &Error) -> String {
        if *self.began.borrow() {
            return error.to_string();
        }
        format!("{error} [{}]", self.spec.place)
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
                    tracing::error!(
                        error = self.placed(&error),
                        "connector failed; mend what it names, then `foldline restart {}`",
                        self.spec.name
                    );
                    self.spec.metrics.error("connector", error.class().label()).inc();
                    self.set_state(State::Failed, Some(self.placed(&error)));
                    self.leave_turn().await;
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return,
                        () = self.restart.notified() => self.set_state(State::Restarting, None),
                    }
                }
            }
        }
        self.leave_turn().await;
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
        let per_second = |count: u64| count as f64 / seconds.max(0.001);
        let delta = per_second(consumed.saturating_sub(shown.consumed));
        shown.rate = if shown.consumed == 0 { delta } else { shown.rate * 0.6 + delta * 0.4 };
        shown.consumed = consumed;
        let bad = per_second(view.bad.count.saturating_sub(shown.bad_seen));
        shown.bad_rate = if shown.bad_seen == 0 { bad } else { shown.bad_rate * 0.6 + bad * 0.4 };
        shown.bad_seen = view.bad.count;
        drop(shown);
        self.spec.metrics.set_state(view.state.name());
        self.spec.metrics.lag_seconds.set(view.behind(now_millis()).unwrap_or(f64::NAN));
    }
}

impl Attempts for Connector {
    fn failed(&self, what: &'static str, error: &Error) {
        self.spec.metrics.retry(what).inc();
        let mut shown = self.shown();
        let message = Some(error.to_string());
        (shown.trace, shown.retries) = (message.clone(), true);
        shown.set_error(message);
    }

    fn worked(&self) {
        let mut shown = self.shown();
        if std::mem::take(&mut shown.retries) {
            shown.trace = None;
            shown.set_error(None);
        }
    }
}
