//! Rebuilds beside the live table in SQLite: readers of the file notice nothing, kills and a way back
//! included.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::Orders;
use crate::support::setup::{Case, connector, kafka_source, sqlite_sink};
use crate::support::stores::{ORDERS, sqlite_rows};
use crate::support::use_servers;
use crate::support::wait::{self, LATER};

const EVENTS: u64 = 10_000;
const KILLS: u32 = 3;

/// Reads in a loop. Orders are never deleted and their counters only rise, so that each answer may
/// only grow: an empty, a mixed or an older state shows.
fn read(path: &Path, stop: &AtomicBool) -> u64 {
    let shell = rusqlite::Connection::open(path).unwrap();
    shell.busy_timeout(Duration::from_secs(20)).unwrap();
    let (mut last, mut reads) = ((0, 0), 0);
    while !stop.load(Ordering::Relaxed) {
        let sql = "select count(*), coalesce(sum(changes), 0) from orders";
        let now: (i64, i64) =
            shell.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert!(now.0 >= last.0 && now.1 >= last.1, "went back from {last:?} to {now:?}");
        (last, reads) = (now, reads + 1);
    }
    reads
}

/// Waits until no rebuild is under way and the generation fits.
async fn settled(daemon: &Daemon, fits: impl Fn(u64) -> bool) {
    wait::until("the table is rebuilt", LATER, async || {
        let status = daemon.status("orders").await;
        let generation = status["generation"].as_u64().unwrap_or(0);
        let done = status["rebuild"].is_null() && fits(generation);
        if done { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

fn rebuild(daemon: &Daemon, how: &[&str]) {
    let printed = daemon.cli(&[&["rebuild", "orders"], how].concat());
    assert_eq!(printed.code, Some(0), "{printed:?}");
}

async fn assert_exact(case: &Case, daemon: &Daemon, path: &Path) {
    daemon.caught_up("orders", &case.topic).await;
    let expected = Oracle::of_topic(&case.topic).orders();
    assert_same("SQLite", &expected, &sqlite_rows(path, "orders", ORDERS));
}

fn tables(path: &Path) -> Vec<String> {
    let shell = rusqlite::Connection::open(path).unwrap();
    let mut select = shell
        .prepare("select name from sqlite_schema where name like 'orders\\_\\_g%' escape '\\'")
        .unwrap();
    let names = select.query_map([], |row| row.get(0)).unwrap();
    names.collect::<rusqlite::Result<_>>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_in_sqlite_outlives_kills_and_goes_back_and_no_reader_notices() {
    let _servers = use_servers().await;
    let orders = Orders::new(1_000);
    let case = Case::new(orders, EVENTS).await;
    let path: PathBuf = case.setup.path("orders.db");
    let keep = "keep_generations = 1";
    case.setup.config(&[
        kafka_source(),
        case.projection(),
        sqlite_sink(&path),
        connector("orders", "orders", "file", "orders", keep),
    ]);
    let mut daemon = case.setup.start().await;
    assert_exact(&case, &daemon, &path).await;
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (path, stop) = (path.clone(), Arc::clone(&stop));
        tokio::task::spawn_blocking(move || read(&path, &stop))
    };
    let live = Background::start(&case.topic, orders, EVENTS);
    for _ in 0..KILLS {
        rebuild(&daemon, &[]);
        // The moment of the kill is what is tried, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..8_000))).await;
        daemon.kill9();
        daemon = case.setup.start().await;
        daemon.state("orders", "RUNNING").await;
    }
    settled(&daemon, |_| true).await;
    rebuild(&daemon, &["--wait"]);
    live.stop();
    assert_exact(&case, &daemon, &path).await;
    stop.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 20);

    let generation = daemon.status("orders").await["generation"].as_u64().unwrap();
    kafka::produce(&case.topic, orders.events(0..500));
    rebuild(&daemon, &["--rollback"]);
    settled(&daemon, |live| live < generation).await;
    assert_exact(&case, &daemon, &path).await;
    rebuild(&daemon, &[]);
    rebuild(&daemon, &["--cancel"]);
    settled(&daemon, |live| live < generation).await;
    // Half a minute after a swap, what is kept no longer is dropped.
    wait::until("what was live before is kept, and no build", LATER, async || {
        let tables = tables(&path);
        if tables == [format!("orders__g{generation}")] {
            Ok(())
        } else {
            Err(format!("{tables:?}"))
        }
    })
    .await;
    assert_exact(&case, &daemon, &path).await;
    daemon.stop().await;
    case.setup.clean().await;
}
