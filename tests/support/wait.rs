//! Waiting: polls with a deadline, and says at the end what was last seen.

use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(100);

/// Polls until `poll` has a value, and panics with its last reason after `limit`.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut poll: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        match poll().await {
            Ok(value) => return value,
            Err(reason) if Instant::now() > end => {
                panic!("{what}: not within {limit:?}; last seen: {reason}")
            }
            Err(_) => tokio::time::sleep(EVERY).await,
        }
    }
}

/// Enough for anything that is not a million events.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Enough for a million events on a busy machine.
pub(crate) const LATER: Duration = Duration::from_secs(400);
