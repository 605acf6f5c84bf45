//! Wraps a sink and makes it fail, by a seed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::expiry::{Horizon, Horizons, Look};
use foldline_api::hole::Holes;
use foldline_api::lifecycle::LogNow;
use foldline_api::model::Key;
use foldline_api::parked::{Parked, Parking, Place, Request, Which};
use foldline_api::query::Queries;
use foldline_api::rebuild::{By, Generations, Rebuilds, Step, Stepped};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::schemas::{KeptSchema, KeptSchemas};
use foldline_api::sink::{
    Acquired, Adopted, Advance, Beginning, DesiredState, Flush, Loaded, Opened, Refreshed,
    RowWrite, Snapshot, StoredPosition, Target, Writer, Written,
};
use foldline_api::source::DeadLetter;
use foldline_api::{Error, Result};
use tokio::sync::watch;

use crate::rng::Rng;

/// How often each fault happens, in a thousand calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Any call fails before it does anything.
    pub reject: u32,
    /// A write or an acquire is done, and its reply is lost.
    pub fail_after: u32,
    /// A store that keeps marks fails between two rows, so that the positions do not move.
    pub partial: u32,
    /// Any call first takes up to `slow_max`, in Tokio's time.
    pub slow: u32,
    /// The longest delay of a slow call.
    pub slow_max: Duration,
    /// A command's answer is on its way for so long, and others see meanwhile what it did.
    pub command_late: Duration,
    /// Before a write, the outside writer is called with its flush.
    pub conflict: u32,
}

impl Faults {
    /// A bit of everything.
    #[must_use]
    pub fn some() -> Self {
        let slow_max = Duration::from_millis(200);
        Faults {
            reject: 60,
            fail_after: 60,
            partial: 60,
            slow: 100,
            slow_max,
            command_late: Duration::ZERO,
            conflict: 60,
        }
    }
}

/// What an outside writer does to the rows of a coming flush.
pub type Outside = Arc<dyn Fn(&Flush) + Send + Sync>;

/// The faults of any number of targets and writers, decided by one seed. Clones share it.
#[derive(Clone)]
pub struct Script {
    state: Arc<Mutex<State>>,
    held: Arc<watch::Sender<bool>>,
    outside: Option<Outside>,
}

struct State {
    rng: Rng,
    faults: Faults,
    counts: BTreeMap<&'static str, u64>,
    calls: u64,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Script {
    /// Faults in the order that `seed` decides.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        let state = State { rng: Rng::new(seed), faults, counts: BTreeMap::new(), calls: 0 };
        let held = Arc::new(watch::Sender::new(false));
        Script { state: Arc::new(Mutex::new(state)), held, outside: None }
    }

    /// With a writer from outside, which a `conflict` calls.
    #[must_use]
    pub fn with_outside(mut self, outside: Outside) -> Self {
        self.outside = Some(outside);
        self
    }

    /// Changes the rates; `Faults::default()` heals the sink.
    pub fn set(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// From now on writes wait, until [`Script::release`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Lets waiting writes go on.
    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// How often each fault has happened, by its name; a test asserts that it saw what it is about.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    /// How often the sink was asked for anything.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, name: &'static str, rate: impl Fn(&Faults) -> u32) -> bool {
        let mut state = self.lock();
        let rate = rate(&state.faults);
        let happens = state.rng.chance(rate);
        if happens {
            *state.counts.entry(name).or_default() += 1;
        }
        happens
    }

    fn below(&self, bound: u64) -> u64 {
        self.lock().rng.below(bound)
    }

    /// What may go wrong before a call.
    async fn before(&self) -> Result<()> {
        self.lock().calls += 1;
        if self.draw("slow", |faults| faults.slow) {
            let max = self.lock().faults.slow_max.as_millis();
            let delay = self.below(u64::try_from(max).unwrap_or(u64::MAX));
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if self.draw("reject", |faults| faults.reject) {
            return Err(Error::retriable("refused by the fault script"));
        }
        Ok(())
    }

    /// What may go wrong after a call that was carried out.
    fn after<T>(&self, done: T) -> Result<T> {
        if self.draw("fail_after", |faults| faults.fail_after) {
            return Err(Error::retriable("the reply was lost by the fault script"));
        }
        Ok(done)
    }

    async fn wait_while_held(&self) {
        let mut held = self.held.subscribe();
        // The sender lives as long as this script: an error cannot come.
        let _ = held.wait_for(|held| !held).await;
    }
}

/// A target that fails as its script says.
pub struct FaultyTarget {
    inner: Arc<dyn Target>,
    script: Script,
}

impl fmt::Debug for FaultyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyTarget").field("script", &self.script).finish_non_exhaustive()
    }
}

impl FaultyTarget {
    /// Wraps `inner`; its writers are wrapped too.
    #[must_use]
    pub fn new(inner: Arc<dyn Target>, script: Script) -> Self {
        FaultyTarget { inner, script }
    }

    fn expiring(&self) -> Result<&dyn Horizons> {
        self.inner.horizons().ok_or_else(|| Error::config("nothing expires here"))
    }
}

#[async_trait]
impl Target for FaultyTarget {
    async fn open(&self) -> Result<Opened> {
        self.script.before().await?;
        self.script.after(self.inner.open().await?)
    }

    async fn check(&self) -> Result<()> {
        self.script.before().await?;
        self.inner.check().await
    }

    async fn adopt(&self, log: &LogNow) -> Result<Adopted> {
        self.script.before().await?;
        self.script.after(self.inner.adopt(log).await?)
    }

    async fn note_stopped(&self) -> Result<()> {
        self.script.before().await?;
        self.inner.note_stopped().await
    }

    async fn begin(&self, generation: u64, beginnings: &[Beginning]) -> Result<()> {
        self.script.before().await?;
        self.inner.begin(generation, beginnings).await?;
        self.script.after(())
    }

    async fn rebuild(&self, generation: u64, beginnings: Option<&[Beginning]>) -> Result<u64> {
        self.script.before().await?;
        self.script.after(self.inner.rebuild(generation, beginnings).await?)
    }

    async fn status(&self) -> Result<Opened> {
        self.script.before().await?;
        self.inner.status().await
    }

    async fn set_desired(&self, desired: DesiredState) -> Result<()> {
        self.script.before().await?;
        self.inner.set_desired(desired).await?;
        let late = self.script.lock().faults.command_late;
        tokio::time::sleep(late).await;
        self.script.after(())
    }

    async fn writer(&self, generation: u64) -> Result<Arc<dyn Writer>> {
        self.script.before().await?;
        let inner = self.inner.writer(generation).await?;
        Ok(Arc::new(FaultyWriter { inner, script: self.script.clone() }))
    }

    fn parking(&self) -> &dyn Parking {
        self
    }

    fn holes(&self) -> &dyn Holes {
        self.inner.holes()
    }

    fn schemas(&self) -> &dyn KeptSchemas {
        self
    }

    fn rebuilds(&self) -> &dyn Rebuilds {
        self
    }

    fn queries(&self) -> Option<&dyn Queries> {
        self.inner.queries()
    }

    fn horizons(&self) -> Option<&dyn Horizons> {
        self.inner.horizons().map(|_| self as &dyn Horizons)
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        self.script.before().await?;
        self.inner.snapshot().await
    }
}

#[async_trait]
impl Horizons for FaultyTarget {
    async fn look(&self) -> Result<Look> {
        self.script.before().await?;
        self.expiring()?.look().await
    }

    async fn advance(&self, to: Horizon) -> Result<Horizon> {
        self.script.before().await?;
        self.script.after(self.expiring()?.advance(to).await?)
    }
}

#[async_trait]
impl KeptSchemas for FaultyTarget {
    async fn kept(&self) -> Result<Vec<KeptSchema>> {
        self.script.before().await?;
        self.inner.schemas().kept().await
    }

    async fn keep(&self, schemas: &[KeptSchema]) -> Result<Vec<KeptSchema>> {
        self.script.before().await?;
        self.script.after(self.inner.schemas().keep(schemas).await?)
    }
}

#[async_trait]
impl Rebuilds for FaultyTarget {
    async fn begin(
        &self,
        by: By,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        self.script.before().await?;
        self.script.after(self.inner.rebuilds().begin(by, beginnings, goals).await?)
    }

    async fn generations(&self) -> Result<Generations> {
        self.script.before().await?;
        self.inner.rebuilds().generations().await
    }

    fn hold_max(&self) -> Duration {
        self.inner.rebuilds().hold_max()
    }

    fn rows_precede_positions(&self) -> bool {
        self.inner.rebuilds().rows_precede_positions()
    }

    async fn fence(&self, generation: u64) -> Result<()> {
        self.script.before().await?;
        self.inner.rebuilds().fence(generation).await?;
        self.script.after(())
    }

    async fn step(&self, generation: u64, step: Step) -> Result<Stepped> {
        self.script.before().await?;
        self.script.after(self.inner.rebuilds().step(generation, step).await?)
    }

    async fn cancel(&self, expected: Option<u64>) -> Result<Option<u64>> {
        self.script.before().await?;
        self.script.after(self.inner.rebuilds().cancel(expected).await?)
    }

    async fn roll_back(&self, from: Option<u64>) -> Result<u64> {
        self.script.before().await?;
        self.script.after(self.inner.rebuilds().roll_back(from).await?)
    }

    async fn letters(&self, generation: u64, max: usize) -> Result<Vec<(Place, DeadLetter)>> {
        self.script.before().await?;
        self.inner.rebuilds().letters(generation, max).await
    }

    async fn sent(&self, generation: u64, places: &[Place]) -> Result<()> {
        self.script.before().await?;
        self.inner.rebuilds().sent(generation, places).await?;
        self.script.after(())
    }

    async fn were_sent(&self, generation: u64, places: &[Place]) -> Result<Vec<Place>> {
        self.script.before().await?;
        self.inner.rebuilds().were_sent(generation, places).await
    }

    async fn drop_old(&self, keep: usize) -> Result<Vec<u64>> {
        self.script.before().await?;
        self.script.after(self.inner.rebuilds().drop_old(keep).await?)
    }
}

#[async_trait]
impl Parking for FaultyTarget {
    async fn parked(&self, generation: u64, which: &Which) -> Result<Vec<Parked>> {
        self.script.before().await?;
        self.inner.parking().parked(generation, which).await
    }

    async fn records(&self, generation: u64, places: &[Place]) -> Result<Vec<Record>> {
        self.script.before().await?;
        self.inner.parking().records(generation, places).await
    }

    async fn ask(&self, generation: u64, place: &Place, request: Request) -> Result<bool> {
        self.script.before().await?;
        let noted = self.inner.parking().ask(generation, place, request).await?;
        self.script.after(noted)
    }
}

/// The same places, as the fence of a flush that moves none of them.
fn hold(mut advances: Vec<Advance>) -> Vec<Advance> {
    advances.iter_mut().for_each(|advance| advance.to = advance.from);
    advances
}

/// A writer that fails as its script says.
struct FaultyWriter {
    inner: Arc<dyn Writer>,
    script: Script,
}

#[async_trait]
impl Writer for FaultyWriter {
    async fn acquire(&self, claims: &[Beginning]) -> Result<Acquired> {
        self.script.before().await?;
        self.script.after(self.inner.acquire(claims).await?)
    }

    async fn load_some(&self, keys: &[Key], bytes_max: usize) -> Result<Vec<Loaded>> {
        self.script.before().await?;
        self.inner.load_some(keys, bytes_max).await
    }

    async fn write(&self, flush: &Flush) -> Result<Written> {
        self.script.wait_while_held().await;
        self.script.before().await?;
        if let Some(outside) = &self.script.outside
            && self.script.draw("conflict", |faults| faults.conflict)
        {
            outside(flush);
        }
        if self.inner.keeps_marks() && self.script.draw("partial", |faults| faults.partial) {
            let count = self.script.below(flush.writes.len() as u64 + 1);
            let writes = flush.writes.iter().take(usize::try_from(count).unwrap_or(0)).cloned();
            let part = Flush { writes: writes.collect(), ..Flush::default() };
            // Decisions are kept before any row, under the fence; rows alone are not fenced.
            let Flush { advances, decisions, .. } = flush.clone();
            let decided = decisions.is_empty() || {
                let first = Flush { advances: hold(advances), decisions, ..Flush::default() };
                matches!(self.inner.write(&first).await?, Written::Durable(_))
            };
            if decided {
                self.inner.write(&part).await?;
            }
            return Err(Error::retriable("cut off between two rows by the fault script"));
        }
        self.script.after(self.inner.write(flush).await?)
    }

    async fn expired(&self, horizon: Horizon, max: usize) -> Result<Vec<RowWrite>> {
        self.script.before().await?;
        self.inner.expired(horizon, max).await
    }

    async fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<StoredPosition>> {
        self.script.before().await?;
        self.inner.positions(partitions).await
    }

    fn keeps_marks(&self) -> bool {
        self.inner.keeps_marks()
    }

    async fn refresh(&self, rows_max: usize) -> Result<Refreshed> {
        self.script.before().await?;
        self.script.after(self.inner.refresh(rows_max).await?)
    }
}
