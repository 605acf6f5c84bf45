//! Rows of a build that have expired: its readers are not to see again what the live generation has deleted.

use std::sync::Arc;

use foldline_api::error::Result;
use foldline_api::rebuild::{Build, Phase};
use foldline_api::sink::Target;
use tokio::time::Instant;

use super::{Driver, SWAP_PAUSE};

impl Driver<'_> {
    /// Whether the build has no row that the horizon has passed. Else its tasks are told to look at once.
    ///
    /// While the live generation is held nobody deletes rows of it: a horizon that is read now is no earlier than any by which one
    /// was deleted.
    pub(super) async fn is_swept(
        &mut self,
        target: &Arc<dyn Target>,
        build: &Build,
    ) -> Result<bool> {
        let Some(horizons) = target.horizons().filter(|_| self.spec.expiry.is_some()) else {
            return Ok(true);
        };
        let Some(horizon) = horizons.look().await?.horizon else { return Ok(true) };
        let writer = target.writer(build.generation).await?;
        if writer.expired(horizon, 1).await?.is_empty() {
            return Ok(true);
        }
        self.pace.wake();
        let again = Instant::now() + SWAP_PAUSE;
        if build.phase == Phase::Holding {
            self.swap_again = again;
        } else {
            self.hold_again = again;
        }
        if let Some(progress) = &mut self.watch.lock().progress {
            progress.waiting = Some("rows that have expired are deleted first".to_owned());
        }
        Ok(false)
    }
}
