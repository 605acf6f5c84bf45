//! One session: its tasks, and what is watched while they run.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::{Error, Result};
use foldline_api::sink::{DesiredState, Opened, Target, Waits};
use foldline_api::source::PartitionInfo;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::flood::Flood;
use super::{Connector, State, turn};
use crate::clock::now_millis;
use crate::dead_letter::Origin;
use crate::joins::{Joined, keep_shown};
use crate::log::task_span;
use crate::pace::Looks;
use crate::task::{Allowance, Ended, Task, TaskSpec, TaskStatus};

/// How often the books are asked what the operator wants and which generation is live.
pub(super) const FOLLOW_EVERY: Duration = Duration::from_secs(2);

/// How often the target clears away what only served a bounded time.
const MAINTAIN_EVERY: Duration = Duration::from_secs(3_600);

/// Which task of how many, on which generation.
struct Place {
    number: u32,
    of: usize,
    generation: u64,
    allowance: Allowance,
}

/// How a session ended without an error.
pub(super) enum SessionEnd {
    /// The worker stops.
    Cancelled,
    /// Another one shall follow.
    Again,
}

impl Connector {
    /// One session: from opening the target until its tasks have left.
    pub(super) async fn session(&self, cancel: &CancellationToken) -> Result<SessionEnd> {
        let opening = self.open();
        let (target, opened, infos) = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(SessionEnd::Cancelled),
            () = self.restart.notified() => return Ok(SessionEnd::Again),
            opened = opening => opened?,
        };
        if let Some(turn) = target.turn() {
            turn.join();
        }
        if opened.desired == DesiredState::Stopped {
            return self.wait_while_stopped(target.as_ref(), cancel).await;
        }
        match &opened.waits {
            Some(Waits::Rebuild(reason)) => {
                return self.wait_for_rebuild(target.as_ref(), (&opened, reason), cancel).await;
            }
            Some(Waits::Replaced(reason)) => {
                return self.wait_to_be_replaced(target.as_ref(), reason, cancel).await;
            }
            None => {}
        }
        if let Some(ended) = self.wait_for_turn(target.as_ref(), &opened, cancel).await? {
            return Ok(ended);
        }
        self.set_folds(true);
        let ended = self.run_tasks(&target, &opened, &infos, cancel).await;
        self.set_folds(false);
        ended
    }

    async fn run_tasks(
        &self,
        target: &Arc<dyn Target>,
        opened: &Opened,
        infos: &[PartitionInfo],
        cancel: &CancellationToken,
    ) -> Result<SessionEnd> {
        let tasks = self.spec.tasks(infos.len());
        let (pause, paused) = watch::channel(opened.desired == DesiredState::Paused);
        let stop = CancellationToken::new();
        let flood = Flood::new(&self.spec);
        let _stop_with_us = stop.clone().drop_guard();
        let mut running = JoinSet::new();
        let mut statuses = Vec::new();
        for number in (0..).take(tasks) {
            let status = TaskStatus::default();
            statuses.push(status.clone());
            let (generation, allowance) = (opened.generation, flood.allowance());
            let place = Place { number, of: tasks, generation, allowance };
            let span = task_span(&self.spec.name, number);
            let task = self.task(place, target, status, paused.clone());
            let task = task.instrument(span.clone()).await?;
            running.spawn(task.run(stop.clone()).instrument(span));
        }
        let joined = self.joined(target, opened.generation).await?;
        self.shown().tasks = statuses;
        self.began.send_replace(true);
        self.show_desired(opened.desired);
        let watched = (&pause, flood);
        let ended = self.follow(target.as_ref(), opened, watched, &mut running, cancel).await;
        stop.cancel();
        drop(joined);
        let mut failure = None;
        while let Some(task) = running.join_next().await {
            if let Ok(Err(error)) = task {
                failure.get_or_insert(error);
            }
        }
        let error = ended.as_ref().err().or(failure.as_ref()).map(ToString::to_string);
        self.shown().end_tasks(error.as_deref());
        match (ended, failure) {
            (Err(error), _) => Err(error),
            (Ok(SessionEnd::Again), Some(error)) => Err(error),
            (Ok(ended), _) => Ok(ended),
        }
    }

    /// Keeps rows up to what they look up, where they do.
    async fn joined(&self, target: &Arc<dyn Target>, generation: u64) -> Result<Option<Joined>> {
        if !self.spec.projection.looks_up() {
            return Ok(None);
        }
        let writer = self.retry("open", || target.writer(generation)).await?;
        let (metrics, pace) = (self.spec.metrics.clone(), Arc::clone(&self.pace));
        Ok(Some(keep_shown(&self.spec.name, writer, metrics, pace, self.spec.idle_poll_interval)))
    }

    fn show_desired(&self, desired: DesiredState) {
        let state = match desired {
            DesiredState::Running => State::Running,
            DesiredState::Paused => State::Paused,
            DesiredState::Stopped => State::Stopped,
        };
        self.pace.rest(desired != DesiredState::Running);
        self.set_state(state, None);
    }

    async fn task(
        &self,
        Place { number, of, generation, allowance }: Place,
        target: &Arc<dyn Target>,
        status: TaskStatus,
        paused: watch::Receiver<bool>,
    ) -> Result<Task> {
        let writer = self.retry("open", || target.writer(generation)).await?;
        let share = self.spec.share(of);
        Ok(Task::new(TaskSpec {
            projection: Arc::clone(&self.spec.projection),
            decoders: Arc::clone(&self.spec.decoders),
            source: self.spec.log.source(number, share.fetched)?,
            log: Arc::clone(&self.spec.log),
            writer,
            target: Arc::clone(target),
            dead_letters: Arc::clone(&self.spec.dead_letters),
            outbox: false,
            metrics: self.spec.metrics.clone(),
            status,
            origin: Origin { connector: self.spec.name.clone(), task: number },
            on_bad_record: self.spec.on_bad_record,
            allowance,
            asks: Arc::default(),
            limits: share.limits,
            cache_bytes: share.cache,
            generation,
            paused,
            pace: Arc::clone(&self.pace),
            expiry: self.spec.expiry.clone(),
            now: now_millis,
        }))
    }

    /// Watches tasks, books and commands until the session is over.
    async fn follow(
        &self,
        target: &dyn Target,
        opened: &Opened,
        (pause, mut flood): (&watch::Sender<bool>, Flood),
        running: &mut JoinSet<Result<Ended>>,
        cancel: &CancellationToken,
    ) -> Result<SessionEnd> {
        let (mut looks, mut next) = (Looks::new(&self.pace), Instant::now());
        let mut maintain = tokio::time::interval(MAINTAIN_EVERY);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(SessionEnd::Cancelled),
                () = self.restart.notified() => return Ok(SessionEnd::Again),
                () = turn::over(target) => return Ok(SessionEnd::Again),
                Some(ended) = running.join_next() => {
                    return match ended {
                        Ok(Ok(Ended::Stopped | Ended::Superseded)) => Ok(SessionEnd::Again),
                        Ok(Err(error)) => Err(error),
                        Err(panic) => Err(Error::config(format!("a task broke off: {panic}"))),
                    };
                }
                _ = maintain.tick() => {
                    let Some(done) = cancel.run_until_cancelled(target.maintain()).await else {
                        return Ok(SessionEnd::Cancelled);
                    };
                    if let Err(error) = done {
                        tracing::warn!(%error, "maintenance failed, later again");
                    }
                }
                () = looks.due(next) => {
                    next = Instant::now() + FOLLOW_EVERY;
                    let paused = *pause.borrow();
                    if !paused
                        && let Some(why) = flood.overflow(&self.spec)
                    {
                        self.pause_for_flood(target, why).await;
                    }
                    let live = tokio::select! {
                        biased;
                        // A silent server must not keep the worker from leaving in order.
                        () = cancel.cancelled() => return Ok(SessionEnd::Cancelled),
                        // Before what a command kept is seen: it is the next session's.
                        () = self.restart.notified() => return Ok(SessionEnd::Again),
                        live = target.live() => live,
                    };
                    // An outage of the books is the tasks' to report.
                    let Ok((generation, desired)) = live else { continue };
                    if generation != opened.generation || desired == DesiredState::Stopped {
                        return Ok(SessionEnd::Again);
                    }
                    let pauses = desired == DesiredState::Paused;
                    if pauses != paused {
                        // Tasks wake for a change only.
                        pause.send_replace(pauses);
                    }
                    if paused && !pauses {
                        flood.begin_anew(&self.spec);
                    }
                    if self.view().state != State::Failed {
                        self.show_desired(desired);
                    }
                }
            }
        }
    }

    async fn pause_for_flood(&self, target: &dyn Target, message: String) {
        tracing::error!("{message}");
        if target.set_desired(DesiredState::Paused).await.is_ok() {
            self.shown().flood = Some(message);
        }
    }

    async fn wait_while_stopped(
        &self,
        target: &dyn Target,
        cancel: &CancellationToken,
    ) -> Result<SessionEnd> {
        let mut looks = Looks::new(&self.pace);
        let mut noted = false;
        loop {
            if !noted {
                let Some(done) = cancel.run_until_cancelled(target.note_stopped()).await else {
                    return Ok(SessionEnd::Cancelled);
                };
                noted = done.is_ok();
                // Shown once it is noted: then a snapshot can be made.
                let why = done.err().map(|error| format!("what it left is not noted yet: {error}"));
                self.set_state(State::Stopped, why);
            }
            let next = Instant::now() + FOLLOW_EVERY;
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(SessionEnd::Cancelled),
                () = self.restart.notified() => return Ok(SessionEnd::Again),
                () = looks.due(next) => {
                    if target.live().await.is_ok_and(|(_, desired)| desired != DesiredState::Stopped) {
                        return Ok(SessionEnd::Again);
                    }
                }
            }
        }
    }
}
