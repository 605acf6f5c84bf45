//! Who else of the fleet folds this connector, as its group tells.

use std::time::Duration;

use foldline_api::source::FleetMember;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Connector;

/// So long what the group told is told again.
const FRESH: Duration = Duration::from_secs(2);
/// A status waits no longer for the group: without it, it has this worker's tasks.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the group told last, and when it was asked.
#[derive(Debug, Default)]
pub(super) struct Fleet(Mutex<Option<(Instant, Vec<FleetMember>)>>);

impl Connector {
    /// The members of its group, as they were a moment ago; none while the log does not answer.
    pub(crate) async fn fleet(&self) -> Vec<FleetMember> {
        // Nobody waits for a log that was never reached.
        if self.identity.get().is_none() {
            return Vec::new();
        }
        let mut told = self.fleet.0.lock().await;
        if let Some((at, members)) = told.as_ref()
            && at.elapsed() < FRESH
        {
            return members.clone();
        }
        let members = match tokio::time::timeout(PATIENCE, self.spec.log.fleet()).await {
            Ok(Ok(members)) => members,
            Ok(Err(error)) => {
                tracing::debug!(connector = self.name(), %error, "the group does not tell its members");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        *told = Some((Instant::now(), members.clone()));
        members
    }
}
