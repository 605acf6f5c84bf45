//! What this worker knows of the horizon of a connector's `expire`, and how it moves.
//!
//! The horizon is the store's. A worker reads it before it folds the first event of a session, and about once a minute: it would
//! move the horizon to where the lesser of its own clock and the store's says, and goes by what the store answers. What is known here may be
//! older than what the store has, never further on, so that no event is filtered that another worker would fold.
//!
//! A clock that jumps must not delete what nobody wanted to lose: a step of more than a day is not made until somebody says so.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use foldline_api::error::Result;
use foldline_api::expiry::{Horizon, Horizons, Look, Rule};
use foldline_api::model::Key;

use crate::metrics::ExpiryMetrics;

/// A longer step is not made unasked: milliseconds.
const STEP_MAX: i64 = 86_400_000;
/// No horizon is known.
const NONE: i64 = i64::MIN;

/// Where the horizon goes from where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nowhere: the clocks have not come further.
    Stay,
    /// Forward.
    To(Horizon),
    /// It would go forward by so many milliseconds, which is more than a day.
    Jump(i64),
}

/// The step to where the clocks say.
fn step(stored: Option<Horizon>, due: Horizon) -> Step {
    let Some(Horizon(stored)) = stored else { return Step::To(due) };
    match due.0.saturating_sub(stored) {
        ..=0 => Step::Stay,
        1..=STEP_MAX => Step::To(due),
        by => Step::Jump(by),
    }
}

/// See the module. Shared by all that folds for a connector on this worker.
#[derive(Debug)]
pub(crate) struct Expiry {
    connector: String,
    rule: Rule,
    /// This worker's clock, in milliseconds since the epoch.
    now: fn() -> i64,
    /// The latest horizon that was read, or [`NONE`].
    known: AtomicI64,
    /// Why it does not go forward, and since when.
    paused: Mutex<Option<(String, i64)>>,
    metrics: ExpiryMetrics,
}

/// What is shown of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryView {
    /// The rule.
    pub rule: Rule,
    /// The latest horizon that this worker has read.
    pub horizon: Option<Horizon>,
    /// Why it does not go forward, and since when, in milliseconds since the epoch.
    pub paused: Option<(String, i64)>,
}

impl Expiry {
    /// Of a connector, by its rule; nothing is known yet.
    pub(crate) fn new(
        connector: &str,
        rule: Rule,
        now: fn() -> i64,
        metrics: ExpiryMetrics,
    ) -> Self {
        metrics.after.set(rule.after as f64 / 1_000.0);
        Expiry {
            connector: connector.to_owned(),
            rule,
            now,
            known: AtomicI64::new(NONE),
            paused: Mutex::default(),
            metrics,
        }
    }

    /// The latest horizon that was read.
    pub(crate) fn horizon(&self) -> Option<Horizon> {
        Some(self.known.load(Ordering::Relaxed)).filter(|known| *known != NONE).map(Horizon)
    }

    /// Whether events of this row are left alone.
    pub(crate) fn has_passed(&self, key: &Key) -> bool {
        self.horizon().is_some_and(|horizon| self.rule.has_passed(horizon, key))
    }

    /// What is shown of it.
    pub(crate) fn view(&self) -> ExpiryView {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ExpiryView { rule: self.rule.clone(), horizon: self.horizon(), paused }
    }

    /// So many rows were deleted.
    pub(crate) fn deleted(&self, rows: u64) {
        self.metrics.rows.inc_by(rows);
    }

    /// Reads the horizon, and moves it to where the clocks say. Returns where it is.
    pub(crate) async fn look(&self, horizons: &dyn Horizons) -> Result<Option<Horizon>> {
        let look = horizons.look().await?;
        match step(look.horizon, self.due(look)) {
            Step::Stay => {
                self.learn(look.horizon);
                self.pause(None);
            }
            Step::To(to) => {
                self.learn(Some(horizons.advance(to).await?));
                self.pause(None);
            }
            Step::Jump(by) => {
                self.learn(look.horizon);
                self.pause(Some((look, by)));
            }
        }
        Ok(self.horizon())
    }

    /// Moves the horizon to where the clocks say, by however much. Returns from where to where.
    pub(crate) async fn go_on(
        &self,
        horizons: &dyn Horizons,
    ) -> Result<(Option<Horizon>, Horizon)> {
        let look = horizons.look().await?;
        let to = horizons.advance(self.due(look)).await?;
        self.learn(Some(to));
        self.pause(None);
        Ok((look.horizon, to))
    }

    /// Where the horizon is to be.
    fn due(&self, look: Look) -> Horizon {
        Horizon((self.now)().min(look.now).saturating_sub(self.rule.after))
    }

    fn learn(&self, horizon: Option<Horizon>) {
        let Some(Horizon(at)) = horizon else { return };
        let known = self.known.fetch_max(at, Ordering::Relaxed).max(at);
        self.metrics.horizon.set(known as f64 / 1_000.0);
    }

    /// Shows that the horizon stands still since it would jump, or that it goes on.
    fn pause(&self, jump: Option<(Look, i64)>) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((look, by)) = jump else {
            if paused.take().is_some() {
                tracing::info!(connector = %self.connector, "rows expire again");
            }
            return;
        };
        let from = look.horizon.map_or_else(String::new, |horizon| horizon.to_string());
        let message = format!(
            "no row expires: the horizon stands at {from} and would go forward by {} hours at once, to {}. If no clock is wrong, \
             as after a long stop: `foldline resume {} --expiry`",
            by / 3_600_000,
            self.due(look),
            self.connector
        );
        let since = match &*paused {
            Some((_, since)) => *since,
            None => {
                tracing::error!("{message}");
                (self.now)()
            }
        };
        *paused = Some((message, since));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_goes_forward_by_a_day_at_most() {
        let due = Horizon(10 * STEP_MAX);
        assert_eq!(step(None, due), Step::To(due), "there is nothing to be afraid for yet");
        assert_eq!(step(Some(due), due), Step::Stay);
        assert_eq!(step(Some(Horizon(due.0 + 1)), due), Step::Stay, "never back");
        assert_eq!(step(Some(Horizon(due.0 - STEP_MAX)), due), Step::To(due));
        let by = STEP_MAX + 1;
        assert_eq!(step(Some(Horizon(due.0 - by)), due), Step::Jump(by));
        assert_eq!(step(Some(Horizon(NONE)), Horizon(i64::MAX)), Step::Jump(i64::MAX));
    }
}
