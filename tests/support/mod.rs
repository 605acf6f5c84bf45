//! What the tests share: the worker as a process, the servers, the log's content and its plain fold.

pub(crate) mod browser;
pub(crate) mod daemon;
pub(crate) mod debezium;
pub(crate) mod kafka;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod oracle;
pub(crate) mod orders;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod refusals;
pub(crate) mod registry;
pub(crate) mod scrape;
pub(crate) mod servers;
pub(crate) mod setup;
pub(crate) mod stores;
pub(crate) mod twins;
pub(crate) mod typed;
pub(crate) mod wait;

use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Who holds it for writing may stop servers; all others only use them.
static SERVERS: RwLock<()> = RwLock::const_new(());

/// Uses the servers, while nobody stops them.
pub(crate) async fn use_servers() -> RwLockReadGuard<'static, ()> {
    SERVERS.read().await
}

/// Has the servers alone, to stop and start them.
pub(crate) async fn own_servers() -> RwLockWriteGuard<'static, ()> {
    SERVERS.write().await
}

/// How many rounds of faults: `fewest` in the ordinary suite, as often as `FOLDLINE_FAULTS` says where `just faults` runs.
pub(crate) fn faults(fewest: u64) -> u64 {
    std::env::var("FOLDLINE_FAULTS").ok().and_then(|times| times.parse().ok()).unwrap_or(fewest)
}

/// A client that connects for each request. A server closes a connection on which nothing comes for long, and a request that is sent
/// just then is lost with it, through no fault of either.
pub(crate) fn http(limit: Duration) -> reqwest::Client {
    reqwest::Client::builder().timeout(limit).pool_max_idle_per_host(0).build().unwrap()
}
