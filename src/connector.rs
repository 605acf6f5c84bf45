//! One connector: its states, and the session that opens the target, looks at the group and runs the
//! tasks. A failing connector never touches the others.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use foldline_api::error::{Error, Result};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, DesiredState, Opened, Target};
use foldline_api::source::{Commit, DeadLetters, Log, PartitionInfo, Start};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::dead_letter::Origin;
use crate::metrics::ConnectorMetrics;
use crate::policy::{OnBadRecord, Reaction, backoff, reaction};
use crate::projection::Projection;
use crate::reset::{self, Verdict};
use crate::task::{Decoders, Ended, Limits, Snapshot, Task, TaskSpec, TaskStatus, recreated};

/// How often the books are asked what the operator wants and which generation is live.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);

/// How often the target clears away what only served a bounded time.
const MAINTAIN_EVERY: Duration = Duration::from_secs(3_600);

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

/// What a connector is made of; made once from the config.
pub(crate) struct ConnectorSpec {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) tasks_max: usize,
    pub(crate) start: Start,
    pub(crate) limits: Limits,
    pub(crate) on_bad_record: OnBadRecord,
    /// More bad records than this in an hour pause the connector.
    pub(crate) errors_max: Option<u64>,
    pub(crate) projection: Arc<Projection>,
    pub(crate) decoders: Arc<dyn Decoders>,
    pub(crate) log: Arc<dyn Log>,
    /// Makes the target once the log's identity is known.
    pub(crate) target: Box<dyn Fn(String) -> Result<Arc<dyn Target>> + Send + Sync>,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) metrics: ConnectorMetrics,
    /// Bytes for the queues and the caches of all its tasks.
    pub(crate) memory: usize,
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
    /// Records with a durable outcome per second, over the last seconds.
    pub rate: f64,
}

impl View {
    /// The lag over all partitions held here, in offsets.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.tasks.iter().flat_map(|t| &t.partitions).map(|p| p.lag()).sum()
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
    consumed: u64,
    rate: f64,
}

/// The handle that REST and commands use.
pub struct Connector {
    spec: ConnectorSpec,
    shown: Mutex<Shown>,
    target: Mutex<Option<Arc<dyn Target>>>,
    identity: OnceLock<String>,
    restart: Notify,
    ready: watch::Sender<bool>,
}

/// Which task of how many, on which generation.
struct Place {
    number: usize,
    of: usize,
    generation: u64,
}

enum SessionEnd {
    Cancelled,
    Again,
}

impl Connector {
    pub(crate) fn new(spec: ConnectorSpec) -> Self {
        spec.metrics.set_state(State::Unassigned.name());
        Connector {
            spec,
            shown: Mutex::default(),
            target: Mutex::default(),
            identity: OnceLock::new(),
            restart: Notify::new(),
            ready: watch::Sender::new(false),
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
            rate: shown.rate,
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

    /// Runs sessions until `cancel`. Returns when the last task has left.
    pub(crate) async fn run(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            match self.session(&cancel).await {
                Ok(SessionEnd::Cancelled) => break,
                Ok(SessionEnd::Again) => self.set_state(State::Restarting, None),
                // Trouble of the machine, or another writer: neither needs a person.
                Err(error)
                    if matches!(reaction(error.class()), Reaction::Reacquire | Reaction::Retry) =>
                {
                    tracing::warn!(connector = %self.spec.name, %error, "starting over");
                    self.set_state(State::Restarting, Some(error.to_string()));
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(backoff(3)) => {}
                    }
                }
                Err(error) => {
                    tracing::error!(connector = %self.spec.name, %error, "connector failed");
                    self.spec.metrics.error("connector", error.class().label()).inc();
                    self.set_state(State::Failed, Some(error.to_string()));
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = self.restart.notified() => self.set_state(State::Restarting, None),
                    }
                }
            }
        }
        self.set_state(State::Unassigned, None);
    }

    async fn session(&self, cancel: &CancellationToken) -> Result<SessionEnd> {
        let opening = self.open();
        let (target, opened, infos) = tokio::select! {
            () = cancel.cancelled() => return Ok(SessionEnd::Cancelled),
            () = self.restart.notified() => return Ok(SessionEnd::Again),
            opened = opening => opened?,
        };
        if opened.desired == DesiredState::Stopped {
            self.set_state(State::Stopped, None);
            return self.wait_while_stopped(target.as_ref(), cancel).await;
        }
        self.run_tasks(&target, &opened, &infos, cancel).await
    }

    /// Opens the target and looks at the group; retries outages for ever.
    async fn open(&self) -> Result<(Arc<dyn Target>, Opened, Vec<PartitionInfo>)> {
        let log = &self.spec.log;
        let identity = self.retry(|| log.identity()).await?;
        self.identity.get_or_init(|| identity.clone());
        let target = (self.spec.target)(identity)?;
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&target));
        let mut opened = self.retry(|| target.open()).await?;
        for notice in &opened.notices {
            tracing::info!(connector = %self.spec.name, "{notice}");
        }
        let infos = self.retry(|| log.partitions()).await?;
        if opened.positions.is_empty() {
            self.begin(target.as_ref(), &opened, &infos).await?;
        } else {
            check_topics(&opened, &infos)?;
            self.look_at_group(target.as_ref(), &mut opened, &infos).await?;
        }
        self.spec.metrics.generation.set(i64::try_from(opened.generation).unwrap_or(i64::MAX));
        self.shown().generation = opened.generation;
        Ok((target, opened, infos))
    }

    /// The first start: where the fold begins in every partition, also in those of other workers.
    async fn begin(
        &self,
        target: &dyn Target,
        opened: &Opened,
        infos: &[PartitionInfo],
    ) -> Result<()> {
        let partitions: Vec<TopicPartition> = infos.iter().map(|i| i.partition.clone()).collect();
        let starts = self.retry(|| self.spec.log.find(&partitions, self.spec.start)).await?;
        let beginnings: Vec<Beginning> = infos
            .iter()
            .zip(starts)
            .map(|(info, position)| Beginning {
                partition: info.partition.clone(),
                topic_id: info.topic_id.clone(),
                position,
            })
            .collect();
        self.retry(|| target.begin(opened.generation, &beginnings)).await
    }

    /// Tells a reset from a missing group and from someone else's offsets (rule 12).
    async fn look_at_group(
        &self,
        target: &dyn Target,
        opened: &mut Opened,
        infos: &[PartitionInfo],
    ) -> Result<()> {
        let committed = self.retry(|| self.spec.log.committed()).await?;
        let name = &self.spec.name;
        match reset::judge(&committed, &opened.positions, infos) {
            Verdict::Ours => {}
            Verdict::Missing => tracing::warn!(
                connector = %name,
                group = %self.spec.group,
                "the group has no committed offsets (expired or deleted): resuming from the sink's positions"
            ),
            Verdict::Foreign => tracing::warn!(
                connector = %name,
                group = %self.spec.group,
                "someone else set offsets of this group to somewhere in the log: not obeyed, since a fold \
                 that starts there would be wrong. Going on from the sink's positions. To fold everything \
                 again: `foldline rebuild {name} --in-place`, or reset the whole group to the earliest offset"
            ),
            Verdict::Reset => {
                tracing::warn!(
                    connector = %name,
                    group = %self.spec.group,
                    "the group was reset to the beginning: emptying the target and folding everything again"
                );
                self.rebuild_on(target, opened.generation, infos, &opened.positions).await?;
                *opened = self.retry(|| target.status()).await?;
                self.mark_group(opened, infos).await;
            }
        }
        Ok(())
    }

    /// Commits marked positions for all partitions, so that no second start sees the reset again.
    async fn mark_group(&self, opened: &Opened, infos: &[PartitionInfo]) {
        let commits: Vec<Commit> = opened
            .positions
            .iter()
            .map(|stored| {
                let info = infos.iter().find(|info| info.partition == stored.partition);
                let topic_id = info.and_then(|info| info.topic_id.as_deref());
                Commit {
                    partition: stored.partition.clone(),
                    position: stored.position,
                    metadata: reset::mark(topic_id, opened.generation),
                }
            })
            .collect();
        // Refused while members live elsewhere; their commits carry the mark then.
        if let Err(error) = self.spec.log.commit(&commits).await {
            tracing::info!(connector = %self.spec.name, %error, "marking the group is left to its members");
        }
    }

    async fn rebuild_on(
        &self,
        target: &dyn Target,
        generation: u64,
        infos: &[PartitionInfo],
        stored: &[foldline_api::sink::StoredPosition],
    ) -> Result<u64> {
        for position in stored {
            let info = infos.iter().find(|info| info.partition == position.partition);
            if let Some(info) = info
                && info.low > position.beginning
                && info.topic_id == position.topic_id
            {
                return Err(Error::config(format!(
                    "a rebuild would lose events: {} now begins at offset {}, and the fold began at {}. To \
                     fold what is left: `foldline rebuild {} --in-place --from earliest`",
                    position.partition, info.low, position.beginning, self.spec.name
                )));
            }
        }
        self.retry(|| target.rebuild(generation, None)).await
    }

    async fn run_tasks(
        &self,
        target: &Arc<dyn Target>,
        opened: &Opened,
        infos: &[PartitionInfo],
        cancel: &CancellationToken,
    ) -> Result<SessionEnd> {
        let tasks = self.spec.tasks_max.min(infos.len()).max(1);
        let (pause, paused) = watch::channel(opened.desired == DesiredState::Paused);
        let stop = CancellationToken::new();
        let _stop_with_us = stop.clone().drop_guard();
        let mut running = JoinSet::new();
        let mut statuses = Vec::new();
        for number in 0..tasks {
            let status = TaskStatus::default();
            statuses.push(status.clone());
            let place = Place { number, of: tasks, generation: opened.generation };
            let task = self.task(place, target.as_ref(), status, paused.clone());
            running.spawn(task.await?.run(stop.clone()));
        }
        self.shown().tasks = statuses;
        self.show_desired(opened.desired);
        let ended = self.follow(target.as_ref(), opened, &pause, &mut running, cancel).await;
        stop.cancel();
        let mut failure = None;
        while let Some(task) = running.join_next().await {
            if let Ok(Err(error)) = task {
                failure.get_or_insert(error);
            }
        }
        self.shown().tasks.clear();
        match (ended, failure) {
            (Err(error), _) => Err(error),
            (Ok(SessionEnd::Again), Some(error)) => Err(error),
            (Ok(ended), _) => Ok(ended),
        }
    }

    fn show_desired(&self, desired: DesiredState) {
        let state = match desired {
            DesiredState::Running => State::Running,
            DesiredState::Paused => State::Paused,
            DesiredState::Stopped => State::Stopped,
        };
        self.set_state(state, None);
    }

    async fn task(
        &self,
        Place { number, of, generation }: Place,
        target: &dyn Target,
        status: TaskStatus,
        paused: watch::Receiver<bool>,
    ) -> Result<Task> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let writer = self.retry(|| target.writer(generation)).await?;
        // A quarter for what was read and not folded; half for states; the rest is in flight.
        let share = self.spec.memory / of;
        Ok(Task::new(TaskSpec {
            projection: Arc::clone(&self.spec.projection),
            decoders: Arc::clone(&self.spec.decoders),
            source: self.spec.log.source(number, share / 4)?,
            log: Arc::clone(&self.spec.log),
            writer,
            dead_letters: Arc::clone(&self.spec.dead_letters),
            metrics: self.spec.metrics.clone(),
            status,
            origin: Origin { connector: self.spec.name.clone(), task: number },
            on_bad_record: self.spec.on_bad_record,
            limits: self.spec.limits,
            cache_bytes: share / 2,
            generation,
            paused,
            now: now_millis,
        }))
    }

    /// Watches tasks, books and commands until the session is over.
    async fn follow(
        &self,
        target: &dyn Target,
        opened: &Opened,
        pause: &watch::Sender<bool>,
        running: &mut JoinSet<Result<Ended>>,
        cancel: &CancellationToken,
    ) -> Result<SessionEnd> {
        let mut tick = tokio::time::interval(FOLLOW_EVERY);
        let mut flood = Flood::new(&self.spec);
        let mut maintain = tokio::time::interval(MAINTAIN_EVERY);
        loop {
            tokio::select! {
                _ = maintain.tick() => {
                    if let Err(error) = target.maintain().await {
                        tracing::warn!(connector = %self.spec.name, %error, "maintenance failed, later again");
                    }
                }
                () = cancel.cancelled() => return Ok(SessionEnd::Cancelled),
                () = self.restart.notified() => return Ok(SessionEnd::Again),
                Some(ended) = running.join_next() => {
                    return match ended {
                        Ok(Ok(Ended::Stopped | Ended::Superseded)) => Ok(SessionEnd::Again),
                        Ok(Err(error)) => Err(error),
                        Err(panic) => Err(Error::config(format!("a task broke off: {panic}"))),
                    };
                }
                _ = tick.tick() => {
                    if flood.is_over(&self.spec) {
                        self.pause_for_flood(target).await;
                    }
                    // An outage of the books is the tasks' to report.
                    let Ok(books) = target.status().await else { continue };
                    if books.generation != opened.generation
                        || books.desired == DesiredState::Stopped
                    {
                        return Ok(SessionEnd::Again);
                    }
                    pause.send_replace(books.desired == DesiredState::Paused);
                    if self.view().state != State::Failed {
                        let trace = self.shown().trace.clone();
                        self.show_desired(books.desired);
                        self.shown().trace = trace.filter(|_| books.desired == DesiredState::Paused);
                    }
                }
            }
        }
    }

    async fn pause_for_flood(&self, target: &dyn Target) {
        let message = format!(
            "paused: more than {} bad records in an hour. Look at the dead letters, then `foldline resume {}`",
            self.spec.errors_max.unwrap_or_default(),
            self.spec.name
        );
        tracing::error!(connector = %self.spec.name, "{message}");
        if target.set_desired(DesiredState::Paused).await.is_ok() {
            self.shown().trace = Some(message);
        }
    }

    async fn wait_while_stopped(
        &self,
        target: &dyn Target,
        cancel: &CancellationToken,
    ) -> Result<SessionEnd> {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(SessionEnd::Cancelled),
                () = self.restart.notified() => return Ok(SessionEnd::Again),
                () = tokio::time::sleep(FOLLOW_EVERY) => {
                    if target.status().await.is_ok_and(|b| b.desired != DesiredState::Stopped) {
                        return Ok(SessionEnd::Again);
                    }
                }
            }
        }
    }

    async fn retry<T, F: Future<Output = Result<T>>>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<T> {
        let mut attempt = 0;
        loop {
            match call().await {
                Err(error) if reaction(error.class()) == Reaction::Retry => {
                    self.spec.metrics.retry("open").inc();
                    self.shown().trace = Some(error.to_string());
                    if attempt % 10 == 0 {
                        tracing::warn!(connector = %self.spec.name, %error, "not reachable, trying again");
                    }
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    // Commands.

    fn opened_target(&self) -> Result<Arc<dyn Target>> {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        target.clone().ok_or_else(|| Error::retriable("the connector has not reached its log yet"))
    }

    /// Keeps what the operator wants; every worker of the fleet follows.
    ///
    /// # Errors
    /// When the books cannot be reached.
    pub async fn set_desired(&self, desired: DesiredState) -> Result<()> {
        self.opened_target()?.set_desired(desired).await
    }

    /// Starts a new session.
    pub fn restart(&self) {
        self.restart.notify_one();
    }

    /// Empties the target and folds everything again; with `from_earliest`, from what the log still
    /// has. Returns the new generation.
    ///
    /// # Errors
    /// When the log has lost its beginning, or the books cannot be reached.
    pub async fn rebuild_in_place(&self, from_earliest: bool) -> Result<u64> {
        let target = self.opened_target()?;
        let infos = self.spec.log.partitions().await?;
        // The books are readable even where the projection changed and the session refused to run.
        let books = target.status().await?;
        let generation = if from_earliest || topics_recreated(&books, &infos) {
            let beginnings: Vec<Beginning> = infos
                .iter()
                .map(|info| Beginning {
                    partition: info.partition.clone(),
                    topic_id: info.topic_id.clone(),
                    position: info.low,
                })
                .collect();
            target.rebuild(books.generation, Some(&beginnings)).await?
        } else {
            self.rebuild_on(target.as_ref(), books.generation, &infos, &books.positions).await?
        };
        self.restart();
        Ok(generation)
    }

    /// The group's view and the sink's, partition by partition.
    ///
    /// # Errors
    /// When the books cannot be reached.
    pub async fn offsets(&self) -> Result<Vec<(TopicPartition, Position)>> {
        let books = self.opened_target()?.status().await?;
        Ok(books.positions.into_iter().map(|p| (p.partition, p.position)).collect())
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
        let behind = match newest {
            Some(newest) if view.lag() > 0 => (now_millis() - newest).max(0) as f64 / 1_000.0,
            _ => 0.0,
        };
        self.spec.metrics.lag_seconds.set(behind);
    }
}

fn topics_recreated(books: &Opened, infos: &[PartitionInfo]) -> bool {
    check_topics(books, infos).is_err()
}

/// Another topic id stops the connector: a position names its topic's life (rule 2).
fn check_topics(opened: &Opened, infos: &[PartitionInfo]) -> Result<()> {
    for stored in &opened.positions {
        let info = infos.iter().find(|info| info.partition == stored.partition);
        if let (Some(old), Some(new)) =
            (&stored.topic_id, info.and_then(|info| info.topic_id.as_ref()))
            && old != new
        {
            return Err(recreated(&stored.partition.topic));
        }
    }
    Ok(())
}

/// Counts bad records over a sliding hour.
struct Flood {
    since: tokio::time::Instant,
    base: u64,
}

impl Flood {
    fn new(spec: &ConnectorSpec) -> Self {
        Flood { since: tokio::time::Instant::now(), base: Self::bad(spec) }
    }

    fn bad(spec: &ConnectorSpec) -> u64 {
        spec.metrics.dead_lettered.get() + spec.metrics.skipped.get()
    }

    fn is_over(&mut self, spec: &ConnectorSpec) -> bool {
        let Some(max) = spec.errors_max else { return false };
        let bad = Self::bad(spec);
        let over = bad - self.base > max;
        if over || self.since.elapsed() > Duration::from_secs(3_600) {
            *self = Flood { since: tokio::time::Instant::now(), base: bad };
        }
        over
    }
}

/// Milliseconds since the epoch, now.
pub(crate) fn now_millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
