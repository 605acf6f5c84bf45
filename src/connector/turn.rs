//! A connector of a store that lets one worker write at a time: the others stand by.

use foldline_api::error::Result;
use foldline_api::sink::{DesiredState, Opened, Target};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::session::{FOLLOW_EVERY, SessionEnd};
use super::{Connector, State};
use crate::pace::Looks;

impl Connector {
    /// Waits until it is this worker's turn; how the session ended, where it did before that.
    pub(super) async fn wait_for_turn(
        &self,
        target: &dyn Target,
        opened: &Opened,
        cancel: &CancellationToken,
    ) -> Result<Option<SessionEnd>> {
        let Some(turn) = target.turn() else { return Ok(None) };
        if turn.is_mine() {
            return Ok(None);
        }
        let why = "another worker runs it: one at a time writes to a store of this kind, and this one stands by";
        self.set_state(State::Unassigned, Some(why.to_owned()));
        // It is meant to be idle.
        self.ready.send_replace(true);
        let mut looks = Looks::new(&self.pace);
        loop {
            let next = Instant::now() + FOLLOW_EVERY;
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(Some(SessionEnd::Cancelled)),
                () = self.restart.notified() => return Ok(Some(SessionEnd::Again)),
                () = turn.wait(true) => {
                    tracing::info!("it is this worker's turn");
                    // What the books said before counts for nothing.
                    return Ok(Some(SessionEnd::Again));
                }
                () = looks.due(next) => {}
            }
            let Ok((generation, desired)) = target.live().await else { continue };
            if generation != opened.generation || desired == DesiredState::Stopped {
                return Ok(Some(SessionEnd::Again));
            }
        }
    }

    /// Lets another worker have the turn: this one can do nothing with it.
    pub(super) async fn leave_turn(&self) {
        let turn = self.opened_target().ok().and_then(|target| target.turn());
        if let Some(turn) = turn {
            turn.leave().await;
        }
    }
}

/// Waits until the turn is over; for ever where there are none.
pub(super) async fn over(target: &dyn Target) {
    match target.turn() {
        Some(turn) => turn.wait(false).await,
        None => std::future::pending().await,
    }
}
