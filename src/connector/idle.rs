//! The look of an idle connector into its books, which stands for all that its session, rebuilds and tasks ask otherwise.

use foldline_api::error::Result;
use foldline_api::parked::Which;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Connector;

impl Connector {
    /// While it is idle, looks now and then for what was asked for elsewhere.
    pub(super) async fn look_while_idle(&self, cancel: &CancellationToken) {
        let mut last = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = self.idle_look_due(last) => {}
            }
            last = Instant::now();
            match cancel.run_until_cancelled(self.look_at_books()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "an idle look failed, later again"),
            }
        }
    }

    async fn idle_look_due(&self, last: Instant) {
        loop {
            let Some(at) = self.pace.idle_look(last) else { return std::future::pending().await };
            tokio::time::sleep_until(at).await;
            if self.pace.is_idle() {
                return;
            }
        }
    }

    /// One request, and where keys are parked another one.
    async fn look_at_books(&self) -> Result<()> {
        let Ok(target) = self.opened_target() else { return Ok(()) };
        let books = target.rebuilds().generations().await?;
        self.pace.saw(&books);
        self.shown().stored = Some(books.positions);
        if self.spec.metrics.parked_keys.get() > 0 {
            let asked = Which { partitions: None, asked: true };
            if !target.parking().parked(books.live, &asked).await?.is_empty() {
                self.pace.touch();
            }
        }
        Ok(())
    }
}
