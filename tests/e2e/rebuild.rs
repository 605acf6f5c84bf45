//! `foldline rebuild --in-place` while events keep coming.

use crate::support::daemon::Daemon;
use crate::support::kafka::Background;
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::Case;
use crate::support::stores::query;
use crate::support::use_servers;

fn rebuild(daemon: &Daemon, connector: &str) {
    let printed = daemon.cli(&["rebuild", connector, "--in-place"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_in_place_under_live_events_ends_as_the_plain_fold() {
    let _servers = use_servers().await;
    let orders = Orders::new(2_000);
    let case = Case::new(orders, 30_000).await;
    case.config_of_both();
    let daemon = case.setup.start().await;
    let live = Background::start(&case.topic, orders, 30_000);
    for name in ["orders", "docs"] {
        daemon.metric(name, "events_applied_total", |applied| applied > 10_000).await;
    }
    // Edited by hand: only a rebuild brings it back.
    query(&format!("update {} set changes = changes + 1000 where id % 7 = 0", case.table)).await;
    for name in ["orders", "docs"] {
        rebuild(&daemon, name);
        daemon.metric(name, "generation", |generation| generation == 2).await;
    }
    let end = live.stop();
    assert!(end > 30_000);
    for name in ["orders", "docs"] {
        daemon.caught_up(name, &case.topic).await;
        daemon.idle(name, PARTITIONS as u64).await.assert_balanced(name);
    }
    case.assert_both_exact().await;
    daemon.stop().await;
    case.setup.clean().await;
}
