//! The worker is killed, at random moments and at each failpoint, again and again: what it leaves is the plain fold.
//!
//! CI kills it a hundred times over a file log and SQLite, where that is cheap, and some times over the servers;
//! `just faults` goes on for as long as `FOLDLINE_KILLS` says.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use foldline_api::failpoint::{self, Failpoint};

use crate::support::daemon::{ABORTED, Daemon};
use crate::support::ledger::{BOTH, Ledger};
use crate::support::log;
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, file_source, kafka_source_at, orders_projection,
    postgres_sink, sqlite_sink, users_projection,
};
use crate::support::stores::{ORDERS, USERS, sqlite_rows};
use crate::support::{servers, use_servers, wait};

fn kills(fewest: u64) -> u64 {
    std::env::var("FOLDLINE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(fewest)
}

/// Some time below `limit`, for a kill at a moment that nobody chose.
async fn a_moment(limit: Duration) {
    tokio::time::sleep(limit.mul_f64(rand::random())).await;
}

/// A file log that is folded into SQLite by two connectors, in small batches.
struct Files {
    setup: Setup,
    orders: Orders,
    appended: u64,
}

impl Files {
    fn new() -> Self {
        let setup = Setup::new();
        let (logs, database) = (setup.path("log"), setup.path("orders.db"));
        setup.config(&[
            file_source(&logs),
            orders_projection("orders", "", ""),
            users_projection("orders"),
            sqlite_sink(&database),
            connector("orders", "orders", "file", "orders", "batch = { rows = 40 }"),
            connector("users", "users", "file", "users", "batch = { rows = 60 }"),
        ]);
        let mut files = Files { setup, orders: Orders::new(300), appended: 0 };
        files.grow();
        files
    }

    fn grow(&mut self) {
        let to = self.appended + 1_000;
        log::append(&self.setup.path("log"), "orders", self.orders.events(self.appended..to));
        self.appended = to;
    }

    /// How many events the rows hold by now.
    fn folded(&self) -> u64 {
        folded(&self.setup.path("orders.db")).unwrap_or(0)
    }

    /// Waits until a worker has folded more than before.
    async fn progress(&self, before: u64) {
        let end = Instant::now() + wait::SOON;
        while self.folded() <= before {
            assert!(Instant::now() < end, "no progress beyond {before}: {}", self.setup.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A worker that nobody disturbs folds the rest.
    async fn judge(self) {
        let worker = self.setup.start().await;
        for name in ["orders", "users"] {
            let scrape = worker.idle(name, PARTITIONS as u64).await;
            scrape.assert_balanced(name);
        }
        worker.stop().await;
        let mut oracle = Oracle::default();
        for event in self.orders.events(0..self.appended) {
            oracle.fold(event.value.as_bytes(), event.timestamp);
        }
        let database = self.setup.path("orders.db");
        assert_same("orders", &oracle.orders(), &sqlite_rows(&database, "orders", ORDERS));
        assert_same("users", &oracle.users(), &sqlite_rows(&database, "users", USERS));
    }
}

fn folded(database: &Path) -> Option<u64> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(database, flags).ok()?;
    let sum = database.query_row("select sum(changes) from orders", [], |row| row.get::<_, i64>(0));
    sum.ok()?.try_into().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_over_a_file_log_leave_the_plain_fold() {
    let mut files = Files::new();
    let mut halfway = 0;
    for kill in 0..kills(100) {
        let before = files.folded();
        let worker = files.setup.spawn();
        if kill % 2 == 0 {
            files.progress(before).await;
            a_moment(Duration::from_millis(20)).await;
        } else {
            a_moment(Duration::from_millis(200)).await;
        }
        worker.kill9();
        let now = files.folded();
        halfway += u64::from(now > before && now < files.appended);
        // Always some that is left to fold, so that the next kill can hit a write too.
        if now + 1_000 > files.appended {
            files.grow();
        }
    }
    assert!(halfway > 0, "no kill fell between two writes");
    files.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_each_failpoint_over_a_file_log_leaves_the_plain_fold() {
    let mut files = Files::new();
    for point in Failpoint::ALL {
        // A file log's partitions are never revoked.
        if matches!(point, Failpoint::Revoke | Failpoint::Release) {
            continue;
        }
        for turn in [1, 2, 5] {
            let armed = format!("{point}:{turn}");
            // Commits come once in a second, and only where something is new.
            let worker = files.setup.spawn_with(&[(failpoint::VARIABLE, &armed)]);
            let ended = die(&mut files, worker, &armed).await;
            assert_eq!(ended, Some(ABORTED), "at {armed}");
        }
    }
    files.judge().await;
}

/// Lets the log grow until the worker has died; the signal that it died of.
async fn die(files: &mut Files, mut worker: Daemon, armed: &str) -> Option<i32> {
    wait::until(&format!("the worker dies at {armed}"), wait::SOON, async || {
        files.grow();
        worker.ended().map(|status| status.signal()).ok_or("it lives".to_owned())
    })
    .await
}

/// The kills over the servers, with sessions that end soon after their member.
#[tokio::test(flavor = "multi_thread")]
async fn kills_and_deaths_at_each_failpoint_over_the_servers_leave_the_plain_fold() {
    let _servers = use_servers().await;
    let source = kafka_source_at(&servers::kafka())
        .replace("\"session.timeout.ms\" = 6000", "\"session.timeout.ms\" = 2000")
        .replace("\"heartbeat.interval.ms\" = 1000", "\"heartbeat.interval.ms\" = 300");
    let ledger = Ledger::new(&BOTH, &[source, postgres_sink(), elasticsearch_sink()]).await;
    for point in Failpoint::ALL {
        let armed = format!("{point}:{}", rand::random_range(1..4));
        let mut worker = ledger.setup.spawn_with(&[(failpoint::VARIABLE, &armed)]);
        let moves = matches!(point, Failpoint::Revoke | Failpoint::Release);
        let mut others = Vec::new();
        let what = format!("the worker dies at {armed}");
        let ended = wait::until(&what, wait::LATER, async || {
            if let Some(status) = worker.ended() {
                return Ok(status.signal());
            }
            // Partitions are taken from it by each that joins.
            if moves && others.len() < 3 && ledger.has_all(&worker).await {
                others.push(ledger.setup.start().await);
            }
            Err("it lives".to_owned())
        });
        assert_eq!(ended.await, Some(ABORTED), "at {armed}");
    }
    for kill in 0..kills(6) {
        let worker = ledger.setup.start().await;
        if kill % 2 == 0 {
            ledger.goes_on(&worker).await;
        }
        a_moment(Duration::from_secs(2)).await;
        worker.kill9();
    }
    let worker = ledger.started().await;
    ledger.end(worker).await;
}
