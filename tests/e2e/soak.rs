//! Half an hour under load and faults: what the process holds does not grow. Not in CI: `just soak`.

use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, Held};
use crate::support::ledger::{BOTH, Ledger};
use crate::support::proxy::{Fault, Protocol, Proxy};
use crate::support::setup::{elasticsearch_sink, kafka_source, postgres_sink_at};
use crate::support::{servers, use_servers};

const EVERY: Duration = Duration::from_secs(5);

fn minutes() -> u64 {
    let minutes = std::env::var("FOLDLINE_SOAK_MINUTES").ok();
    minutes.and_then(|minutes| minutes.parse().ok()).unwrap_or(30)
}

/// The middle of what was held in a part of the run.
fn middle(part: &[Held], of: impl Fn(&Held) -> u64) -> u64 {
    let mut all: Vec<u64> = part.iter().map(of).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

/// The last third holds no more than the second: in the first, caches fill.
fn assert_flat(held: &[Held]) {
    let third = held.len() / 3;
    let (before, after) = (&held[third..third * 2], &held[third * 2..]);
    for (what, of, slack) in [
        ("memory", (|held| held.memory) as fn(&Held) -> u64, 16 << 20),
        ("threads", |held| held.threads, 4),
        ("open files", |held| held.files, 16),
    ] {
        let (before, after) = (middle(before, of), middle(after, of));
        println!("{what}: {before}, then {after}");
        assert!(after <= before + before / 20 + slack, "{what} grew from {before} to {after}");
    }
}

async fn disturb(turn: u64, proxy: &Proxy, ledger: &Ledger, daemon: &Daemon) {
    match turn % 4 {
        0 => proxy.cut(),
        1 => proxy.strike(Fault::LoseReply, 2).await,
        2 => proxy.strike(Fault::Truncate, 2).await,
        _ => {}
    }
    ledger.goes_on(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour: `just soak`"]
async fn half_an_hour_under_faults_holds_no_more_than_a_few_minutes() {
    let _servers = use_servers().await;
    let mut url: url::Url = servers::postgres().parse().unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    let proxy = Proxy::start(Protocol::Postgres, &server).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    let parts = [kafka_source(), postgres_sink_at(url.as_str()), elasticsearch_sink()];
    let ledger = Ledger::new(&BOTH, &parts).await;
    let daemon = ledger.started().await;
    let end = Instant::now() + Duration::from_secs(60 * minutes());
    let (mut held, mut turn) = (Vec::new(), 0);
    while Instant::now() < end {
        held.push(daemon.held());
        // The pace of the samples, not a wait for anything.
        tokio::time::sleep(EVERY).await;
        turn += 1;
        disturb(turn, &proxy, &ledger, &daemon).await;
    }
    assert_flat(&held);
    ledger.end(daemon).await;
}
