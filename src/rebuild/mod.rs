//! Rebuilds beside the live generation, as one worker takes part in them.
//!
//! Each worker looks at the books every so often. Where they name a build of this worker's projection, it
//! runs tasks of the group `<group>.rebuild` on it, and tries each step that is due: whichever worker is
//! first makes it, the others see it in the books. Nothing of a rebuild is kept anywhere else, so a worker
//! that crashed goes on from what it finds.

mod ends;
mod outbox;
mod progress;
mod shown;
#[cfg(test)]
mod simulation;
mod swept;

use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::lifecycle::others_build;
use foldline_api::parked::{Parked, Place, Which};
use foldline_api::rebuild::{Build, Generations, Phase, Rebuilds, Step, Stepped};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Beginning, DesiredState, Opened, Target};
use foldline_api::source::PartitionInfo;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::clock::now_millis;
use crate::connector_spec::ConnectorSpec;
use crate::dead_letter::Origin;
use crate::joins::{Joined, keep_shown};
use crate::log::task_span;
use crate::metrics::{ConnectorMetrics, Metrics};
use crate::pace::{Looks, Pace};
use crate::task::{Allowance, Ended, Load, TaskSpec, TaskStatus};
use ends::Ends;
pub use progress::Progress;
pub(crate) use shown::Watch;

/// How often the books are asked whether another worker began a build, but where the connector is idle; one that is begun
/// here is seen at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same while there is one.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// The same while the live generation waits for the swap.
const HOLD_EVERY: Duration = Duration::from_millis(50);
/// After a hold that did not lead to a swap, the live tasks go on for so long at least.
const HOLD_PAUSE: Duration = Duration::from_secs(5);
/// A reader that began before a swap may still be in the old generation: it is dropped so much later.
const DROP_AFTER: Duration = Duration::from_secs(30);
/// Readers that queued behind a swap that did not get its locks come first.
const SWAP_PAUSE: Duration = Duration::from_millis(500);
/// A build no further behind the live generation than so many offsets reaches it while that one is held. Half as many
/// after each hold that was too short for that, down to the least; then so many again.
const NEAR: i64 = 20_000;
const NEAR_LEAST: i64 = 500;
/// Tasks of a build that ended are started again after so long.
const AGAIN: Duration = Duration::from_secs(2);

/// Tasks of one build on this worker.
struct Running {
    generation: u64,
    stop: CancellationToken,
    tasks: JoinSet<Result<Ended>>,
    statuses: Vec<TaskStatus>,
    metrics: ConnectorMetrics,
    /// What keeps its rows up to what they look up.
    _joined: Option<Joined>,
    /// Kept so that the tasks never see it closed.
    _pause: watch::Sender<bool>,
}

impl Running {
    async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A worker's part in the rebuilds of one connector.
pub(crate) struct Driver<'a> {
    spec: &'a ConnectorSpec,
    watch: &'a Watch,
    pace: &'a Arc<Pace>,
    /// What the session opened last.
    target: &'a (dyn Fn() -> Option<Arc<dyn Target>> + Send + Sync),
    /// Starts a new session, on the generation that is live now.
    restart: &'a (dyn Fn() + Send + Sync),
    running: Option<Running>,
    again: Instant,
    /// Since when the build is held, as seen from here.
    held: Option<Instant>,
    ends: Ends,
    /// Since when the build would be held but for old snapshots.
    near: Option<Instant>,
    hold_again: Instant,
    /// So many offsets behind, the live generation is held.
    within: i64,
    swap_again: Instant,
    /// Since when there are more old generations than are kept, as seen from here.
    surplus: Option<Instant>,
    /// Letters of the live generation that still have to leave.
    outbox: outbox::Outbox,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(
        spec: &'a ConnectorSpec,
        (watch, pace): (&'a Watch, &'a Arc<Pace>),
        target: &'a (dyn Fn() -> Option<Arc<dyn Target>> + Send + Sync),
        restart: &'a (dyn Fn() + Send + Sync),
    ) -> Self {
        let now = Instant::now();
        Driver {
            spec,
            watch,
            pace,
            target,
            restart,
            running: None,
            again: now,
            held: None,
            ends: Ends::default(),
            near: None,
            hold_again: now,
            within: NEAR,
            swap_again: now,
            surplus: None,
            outbox: outbox::Outbox::default(),
        }
    }

    /// Takes part until `cancel`.
    pub(crate) async fn run(mut self, cancel: &CancellationToken) {
        let mut looks = Looks::new(self.pace);
        loop {
            let every = match (&self.held, &self.running) {
                (Some(_), _) => HOLD_EVERY,
                (None, Some(_)) => FOLLOW_EVERY,
                (None, None) => LOOK_EVERY,
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = self.watch.wake.notified() => {}
                () = looks.due(Instant::now() + every) => {}
            }
            let Some(target) = (self.target)() else { continue };
            let turned = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                turned = self.turn(&target) => turned,
            };
            if let Err(error) = turned {
                self.trouble(&error);
            }
        }
        if let Some(running) = self.running.take() {
            running.end().await;
        }
    }

    fn trouble(&mut self, error: &Error) {
        if let Some(progress) = &mut self.watch.lock().progress {
            if progress.trouble.as_deref() != Some(&error.to_string()) {
                tracing::warn!(%error, "the rebuild has trouble");
            }
            progress.trouble = Some(error.to_string());
        }
    }

    async fn turn(&mut self, target: &Arc<dyn Target>) -> Result<()> {
        let rebuilds = target.rebuilds();
        let generations = match rebuilds.generations().await {
            // Not opened yet.
            Err(error) if error.class() == ErrorClass::Fenced => return Ok(()),
            generations => generations?,
        };
        self.pace.saw(&generations);
        let Some(build) = &generations.build else {
            return self.no_build(rebuilds, &generations).await;
        };
        self.watch.lock().old.clone_from(&generations.old);
        if self.running.as_ref().is_some_and(|running| running.generation != build.generation)
            && let Some(running) = self.running.take()
        {
            running.end().await;
            self.watch.lock().progress = None;
        }
        let ours = build.fingerprint == self.spec.projection.fingerprint();
        let stands_by = target.turn().is_some_and(|turn| !turn.is_mine());
        if stands_by {
            // Whoever has the turn builds it; what was built here counts for nothing.
            if let Some(running) = self.running.take() {
                running.end().await;
            }
            self.show(build, &generations);
            return Ok(());
        }
        if ours {
            self.keep_running(target, build, &generations).await?;
        }
        self.show(build, &generations);
        if !ours && let Some(progress) = &mut self.watch.lock().progress {
            let mine = self.spec.projection.projection_json();
            let waiting = others_build(build.generation, &build.projection, mine, &self.spec.name);
            progress.waiting = Some(waiting);
        }
        self.coordinate(target, build, &generations, ours).await
    }

    async fn no_build(&mut self, rebuilds: &dyn Rebuilds, seen: &Generations) -> Result<()> {
        (self.held, self.near) = (None, None);
        if let Some(running) = self.running.take() {
            let generation = running.generation;
            if generation == seen.live {
                // First, so that the live tasks wait for nobody.
                (self.restart)();
                tracing::info!(generation, "the rebuilt generation is live");
            } else {
                tracing::info!(generation, live = seen.live, "{}", seen.what_became_of(generation));
            }
            running.end().await;
        }
        {
            let mut shown = self.watch.lock();
            shown.progress = None;
            shown.old.clone_from(&seen.old);
        }
        self.spec.metrics.rebuild_progress.set(1.0);
        self.spec.metrics.rebuild_eta.set(0.0);
        if seen.old.len() <= self.spec.keep_generations {
            self.surplus = None;
        } else if self.surplus.get_or_insert_with(Instant::now).elapsed() > DROP_AFTER {
            for generation in rebuilds.drop_old(self.spec.keep_generations).await? {
                tracing::info!(generation, "dropped an old generation");
            }
        }
        if let Err(error) = self.outbox.empty(self.spec, rebuilds, seen.live).await {
            tracing::warn!(%error, "dead letters of the rebuild have still to be sent");
        }
        if self.surplus.is_some() || self.outbox.has_some() {
            self.pace.touch();
        }
        Ok(())
    }

    /// Starts the tasks, and starts them again where they ended.
    async fn keep_running(
        &mut self,
        target: &Arc<dyn Target>,
        build: &Build,
        seen: &Generations,
    ) -> Result<()> {
        let stopped = seen.desired == DesiredState::Stopped;
        if let Some(running) = &mut self.running {
            let ended = running.tasks.try_join_next();
            if ended.is_none() && !stopped {
                return Ok(());
            }
            if let Some(running) = self.running.take() {
                running.end().await;
            }
            self.again = Instant::now() + AGAIN;
            return match ended {
                Some(Ok(Err(error))) => Err(error),
                Some(Err(panic)) => Err(Error::config(format!("a task broke off: {panic}"))),
                _ => Ok(()),
            };
        }
        if !stopped && Instant::now() >= self.again {
            self.again = Instant::now() + AGAIN;
            self.running = Some(self.start(target, build, seen.live).await?);
            if let Some(progress) = &mut self.watch.lock().progress {
                progress.trouble = None;
            }
        }
        Ok(())
    }

    async fn start(&self, target: &Arc<dyn Target>, build: &Build, live: u64) -> Result<Running> {
        let spec = self.spec;
        let tasks = spec.tasks(spec.rebuild_log.survey().await?.partitions.len());
        let share = spec.share(tasks);
        let stop = CancellationToken::new();
        let (pause, paused) = watch::channel(false);
        let metrics = Metrics::detached(&spec.name)?;
        // What the live generation parked over time, the build parks at once.
        let known = target.parking().parked(live, &Which::default()).await?;
        let allowance = Allowance::of_build(spec.parked_max.saturating_add(known.len() as u64));
        let asks: Arc<[Place]> =
            known.iter().filter(|it| it.is_refused()).map(Parked::place).collect();
        let (mut running, mut statuses) = (JoinSet::new(), Vec::new());
        for number in 0..tasks {
            let task = u32::try_from(number).unwrap_or(u32::MAX);
            let status = TaskStatus::default();
            statuses.push(status.clone());
            let load = Load::new(
                TaskSpec {
                    projection: Arc::clone(&spec.projection),
                    decoders: Arc::clone(&spec.decoders),
                    source: spec.rebuild_log.source(task, share.fetched)?,
                    log: Arc::clone(&spec.rebuild_log),
                    writer: target.writer(build.generation).await?,
                    target: Arc::clone(target),
                    dead_letters: Arc::clone(&spec.dead_letters),
                    outbox: true,
                    metrics: metrics.clone(),
                    status,
                    origin: Origin { connector: spec.name.clone(), task },
                    on_bad_record: spec.on_bad_record,
                    allowance: allowance.clone(),
                    asks: Arc::clone(&asks),
                    limits: share.limits,
                    cache_bytes: share.cache,
                    generation: build.generation,
                    paused: paused.clone(),
                    pace: Arc::clone(self.pace),
                    expiry: spec.expiry.clone(),
                    now: now_millis,
                },
                &build.goals,
                share.fetched,
            );
            running.spawn(load.run(stop.clone()).instrument(task_span(&spec.name, task)));
        }
        tracing::info!(generation = build.generation, tasks, "taking part in a rebuild");
        let generation = build.generation;
        let joined = if !spec.projection.looks_up() {
            None
        } else {
            let (writer, pace) = (target.writer(generation).await?, Arc::clone(self.pace));
            Some(keep_shown(&spec.name, writer, metrics.clone(), pace, None))
        };
        let (_joined, _pause) = (joined, pause);
        Ok(Running { generation, stop, tasks: running, statuses, metrics, _joined, _pause })
    }

    fn show(&self, build: &Build, generations: &Generations) {
        let (statuses, bad) = match &self.running {
            Some(running) => {
                let ConnectorMetrics { dead_lettered, skipped, parked, .. } = &running.metrics;
                let bad = dead_lettered.get() + skipped.get() + parked.get();
                (running.statuses.iter().map(TaskStatus::snapshot).collect(), bad)
            }
            None => (Vec::new(), 0),
        };
        let mut shown = self.watch.lock();
        let before = shown.progress.take().filter(|p| p.generation == build.generation);
        let progress = Progress::new(before, build, generations, &statuses, bad);
        self.spec.metrics.rebuild_progress.set(progress.ratio);
        self.spec.metrics.rebuild_eta.set(progress.eta_seconds.unwrap_or_default());
        shown.progress = Some(progress);
    }

    /// Tries the step that is due.
    async fn coordinate(
        &mut self,
        target: &Arc<dyn Target>,
        build: &Build,
        generations: &Generations,
        ours: bool,
    ) -> Result<()> {
        let rebuilds = target.rebuilds();
        if build.phase != Phase::Holding {
            self.ends = Ends::default();
            if self.held.take().is_some() {
                // Whoever let the live tasks go on, they do for a while.
                self.hold_again = Instant::now() + HOLD_PAUSE;
            }
        }
        let behind = build.behind(&generations.positions);
        let step = match build.phase {
            Phase::Loading if ours && build.is_loaded() => Step::Follow,
            Phase::Following
                if ours && behind <= self.within && Instant::now() >= self.hold_again =>
            {
                if Ends::behind(self.spec, rebuilds, build).await? > self.within
                    || !self.is_swept(target, build).await?
                {
                    return Ok(());
                }
                let since = *self.near.get_or_insert_with(Instant::now);
                Step::Hold { patient: since.elapsed() < self.spec.snapshot_wait }
            }
            Phase::Holding => {
                // Whoever held it may be gone: then any worker lets the live tasks go on.
                let since = *self.held.get_or_insert_with(Instant::now);
                if since.elapsed() > rebuilds.hold_max() {
                    Step::Release
                } else if ours && behind == 0 && Instant::now() >= self.swap_again {
                    if self.ends.missing(self.spec, rebuilds, build).await? > 0
                        || !self.is_swept(target, build).await?
                    {
                        return Ok(());
                    }
                    Step::Swap
                } else {
                    return Ok(());
                }
            }
            Phase::Loading | Phase::Following => return Ok(()),
        };
        let stepped = rebuilds.step(build.generation, step).await?;
        self.stepped(step, stepped, build.generation);
        Ok(())
    }

    fn stepped(&mut self, step: Step, stepped: Stepped, generation: u64) {
        match (step, stepped) {
            (step, Stepped::NotYet(reason)) => {
                tracing::debug!(generation, ?step, reason, "not yet");
                if step == Step::Swap {
                    self.swap_again = Instant::now() + SWAP_PAUSE;
                }
                if let Some(progress) = &mut self.watch.lock().progress {
                    progress.waiting = Some(reason);
                }
                return;
            }
            (Step::Follow, _) => {
                tracing::info!(generation, "loaded, with its indexes");
            }
            (Step::Hold { .. }, Stepped::Done(notices)) => {
                notices.iter().for_each(|notice| tracing::warn!("{notice}"));
                self.held = Some(Instant::now());
                tracing::info!(generation, "holding the live generation");
            }
            (Step::Release, _) => {
                self.within = if self.within > NEAR_LEAST { self.within / 2 } else { NEAR };
                tracing::info!(generation, "not reached in time, going on");
            }
            (Step::Swap, Stepped::Done(notices)) => {
                tracing::info!(generation, "swapped");
                notices.iter().for_each(|notice| tracing::warn!("{notice}"));
                self.held = None;
                self.outbox.swapped(generation);
            }
        }
        // The next step may be due already.
        self.watch.wake();
        self.near = None;
        if let Some(progress) = &mut self.watch.lock().progress {
            progress.waiting = None;
        }
    }
}

/// Where a rebuild begins: where the fold did; in partitions added since, at the log's start. With
/// `from_earliest`, everywhere at the log's start.
///
/// # Errors
/// A config error where the log has lost what the fold began with.
pub(crate) fn beginnings(
    name: &str,
    books: &Opened,
    infos: &[PartitionInfo],
    from_earliest: bool,
) -> Result<Vec<Beginning>> {
    let mut out = Vec::with_capacity(infos.len());
    for info in infos {
        let stored = books.positions.iter().find(|stored| stored.partition == info.partition);
        let recreated = |old: &Option<String>| {
            old.as_ref().zip(info.topic_id.as_ref()).is_some_and(|(old, new)| old != new)
        };
        let stored = stored.filter(|stored| !from_earliest && !recreated(&stored.topic_id));
        if let Some(stored) = stored
            && info.low > stored.beginning
        {
            return Err(Error::config(format!(
                "a rebuild would lose events: {} now begins at offset {}, and the fold began at {}. To fold \
                 what is left: `foldline rebuild {name} --from earliest`",
                info.partition, info.low, stored.beginning
            )));
        }
        out.push(Beginning {
            partition: info.partition.clone(),
            topic_id: info.topic_id.clone(),
            position: stored.map_or(info.low, |stored| stored.beginning),
        });
    }
    Ok(out)
}

/// Up to where a rebuild that begins now is loaded.
pub(crate) fn goals(infos: &[PartitionInfo]) -> Vec<(TopicPartition, Position)> {
    infos.iter().map(|info| (info.partition.clone(), info.high)).collect()
}
