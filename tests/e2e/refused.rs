//! A server that is there and refuses: each refusal on the real server, none of them fills the dead letters, and when it is
//! over every row is right.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use foldline_testkit::page;
use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::kafka;
use crate::support::ledger::{INDEXES, Ledger, TABLES};
use crate::support::orders::Orders;
use crate::support::refusals::{Refusal, Refusals};
use crate::support::setup::{
    elasticsearch_sink, elasticsearch_sink_at, kafka_source, postgres_sink, postgres_sink_at,
};
use crate::support::stores::{elasticsearch, postgres, query};
use crate::support::wait::{self, LATER};
use crate::support::{faults, servers, use_servers};

/// Waits until the connector shows that it was refused so. Meanwhile `again` does it again, where it passes by itself.
pub(super) async fn refused(
    daemon: &Daemon,
    connector: &str,
    code: &str,
    mut again: impl AsyncFnMut(),
) -> String {
    wait::until(&format!("{connector} shows {code}"), LATER, async || {
        again().await;
        let status = daemon.status(connector).await;
        let shown = status["last_error"].as_str().unwrap_or_default();
        if shown.contains(code) { Ok(shown.to_owned()) } else { Err(status.to_string()) }
    })
    .await
}

pub(super) async fn nothing() {}

/// What the function of the trigger does from now on: raise this code, or nothing.
async fn raise(function: &str, code: Option<&str>) {
    let body = match code {
        Some(code) => format!("raise exception 'as the test asks' using errcode = '{code}';"),
        None => String::new(),
    };
    query(&format!(
        "create or replace function {function}() returns trigger language plpgsql as \
         $$ begin {body} return null; end $$"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_code_of_the_page_of_errors_that_postgres_raises_has_the_end_that_the_page_tells() {
    let _servers = use_servers().await;
    let ledger = Ledger::new(&TABLES, &[kafka_source(), postgres_sink()]).await;
    let daemon = ledger.started().await;
    let (table, function) = (&ledger.table, ledger.setup.name("refuse"));
    raise(&function, None).await;
    query(&format!(
        "create trigger refuse before insert or update on {table} for each statement execute function {function}()"
    ))
    .await;
    let rows = page::table("docs/errors.md", "## PostgreSQL");
    let of = |class: &str| -> Vec<String> {
        // One of each row, all of them where `just faults` runs.
        let some = if faults(1) > 1 { usize::MAX } else { 1 };
        let rows = rows.iter().filter(|row| row[3][0] == class);
        rows.flat_map(|row| row[1].iter().take(some).cloned()).collect()
    };
    for code in of("retriable") {
        raise(&function, Some(&code)).await;
        refused(&daemon, "orders", &format!("({code})"), nothing).await;
        assert_eq!(daemon.status("orders").await["connector"]["state"], "RUNNING", "{code}");
        raise(&function, None).await;
        ledger.goes_on(&daemon).await;
    }
    for code in of("config") {
        // As it would be with a table that is gone: the task asks whose the target is.
        if code == "42P01" {
            continue;
        }
        raise(&function, Some(&code)).await;
        let why = daemon.failure("orders").await;
        assert!(why.contains(&format!("({code})")), "{why}");
        raise(&function, None).await;
        let printed = daemon.cli(&["restart", "orders"]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        daemon.state("orders", "RUNNING").await;
        ledger.goes_on(&daemon).await;
    }
    query(&format!("drop trigger refuse on {table}")).await;
    query(&format!("drop function {function}()")).await;
    ledger.end(daemon).await;
}

/// A user of the test's own, whom PostgreSQL can be told to refuse.
struct User(String);

impl User {
    async fn new() -> Self {
        let name = format!("worker_{:08x}", rand::random::<u32>());
        query(&format!("create role {name} login password 'foldline' in role foldline")).await;
        // What the worker creates is everybody's: on a new server it is the schema of the books.
        query(&format!("alter role {name} set role to foldline")).await;
        User(name)
    }

    fn url(&self) -> String {
        let mut url: url::Url = servers::postgres().parse().unwrap();
        url.set_username(&self.0).unwrap();
        url.set_password(Some("foldline")).unwrap();
        url.to_string()
    }

    async fn alter(&self, how: &str) {
        query(&format!("alter role {} {how}", self.0)).await;
    }

    /// Runs a function of PostgreSQL's on each backend of the user's.
    async fn backends(&self, function: &str) {
        let user = &self.0;
        query(&format!("select {function}(pid) from pg_stat_activity where usename = '{user}'"))
            .await;
    }

    /// Settings and limits of a user count for new connections.
    async fn reconnect(&self) {
        self.backends("pg_terminate_backend").await;
    }

    async fn waits_for_a_lock(&self) -> bool {
        let user = &self.0;
        let waiting = format!(
            "select 1 from pg_stat_activity where usename = '{user}' and wait_event_type = 'Lock'"
        );
        !query(&waiting).await.is_empty()
    }

    async fn drop(self) {
        query(&format!("drop role {}", self.0)).await;
    }
}

/// `alter` refuses, `back` lets in again.
async fn turned_away(
    (ledger, daemon, user): (&Ledger, &Daemon, &User),
    alter: &str,
    back: &str,
    code: &str,
) {
    user.alter(alter).await;
    user.reconnect().await;
    refused(daemon, "orders", code, nothing).await;
    assert_eq!(daemon.status("orders").await["connector"]["state"], "RUNNING", "{alter}");
    user.alter(back).await;
    user.reconnect().await;
    ledger.goes_on(daemon).await;
}

/// Two transactions wait for each other; PostgreSQL ends the worker's.
async fn deadlock(ledger: &Ledger, daemon: &Daemon, user: &User) {
    user.alter("set deadlock_timeout = '2s'").await;
    user.reconnect().await;
    ledger.goes_on(daemon).await;
    let table = &ledger.table;
    let other = postgres().await;
    other.batch_execute("set deadlock_timeout = '1h'").await.unwrap();
    let mut last_first = false;
    refused(daemon, "orders", "(40P01)", async || {
        last_first = !last_first;
        let (first, then) = if last_first { ("desc", "asc") } else { ("asc", "desc") };
        let one = format!("begin; select 1 from {table} order by id {first} limit 1 for update");
        other.batch_execute(&one).await.unwrap();
        // It meets the row sooner or later.
        wait::until("the worker waits for the row", LATER, async || {
            if user.waits_for_a_lock().await { Ok(()) } else { Err("it does not".to_owned()) }
        })
        .await;
        let all = format!("select 1 from {table} order by id {then} for update; commit");
        // Where the worker's statement timed out instead there was no circle.
        other.batch_execute(&all).await.unwrap();
    })
    .await;
    user.alter("reset deadlock_timeout").await;
    ledger.goes_on(daemon).await;
}

/// The table's file cannot grow: by a limit on the size of files, which ends a write as a full disk does.
async fn disk_full(ledger: &Ledger, daemon: &Daemon, user: &User) {
    let lab = std::env::var("FOLDLINE_LAB").unwrap_or_default();
    if std::fs::read_to_string(format!("{lab}/mode")).is_ok_and(|mode| mode.trim() == "docker") {
        println!("the disk is not filled: PostgreSQL's processes are in a container");
        return;
    }
    let table = &ledger.table;
    // Few rows to a page, so that the file is soon larger than a segment of the write-ahead log.
    query(&format!("alter table {table} set (fillfactor = 10)")).await;
    let size = async || -> u64 {
        let size = query(&format!("select pg_relation_size('{table}')")).await;
        size[0][0].as_ref().unwrap().parse().unwrap()
    };
    let mut more = 0;
    let mut grow = async || {
        let orders = Orders { seed: 99, orders: 1_000_000, users: 50 };
        kafka::produce(&ledger.topic, orders.events(more..more + 10_000));
        more += 10_000;
    };
    wait::until("the table is large", LATER, async || {
        let size = size().await;
        if size > 20 << 20 {
            return Ok(());
        }
        grow().await;
        Err(size.to_string())
    })
    .await;
    // The soft limit only, set as the process's own user, who needs no right to do so.
    let limit = |pids: &BTreeSet<String>, to: &str| {
        for pid in pids {
            // It may have ended meanwhile.
            let Ok(process) = std::fs::metadata(format!("/proc/{pid}")) else { continue };
            let mut command = Command::new("prlimit");
            command.args(["--pid", pid, &format!("--fsize={to}:")]);
            drop(command.uid(process.uid()).gid(process.gid()).status());
        }
    };
    let full = size().await + 4096;
    let mut limited = BTreeSet::new();
    refused(daemon, "orders", "could not extend file", async || {
        let user = &user.0;
        let pids = format!("select pid from pg_stat_activity where usename = '{user}'");
        limited.extend(query(&pids).await.into_iter().filter_map(|row| row[0].clone()));
        limit(&limited, &full.to_string());
        grow().await;
    })
    .await;
    limit(&limited, "unlimited");
    ledger.goes_on(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_turns_the_worker_away_cancels_its_statements_and_lets_it_wait_for_a_lock() {
    let _servers = use_servers().await;
    let user = User::new().await;
    let ledger = Ledger::new(&TABLES, &[kafka_source(), postgres_sink_at(&user.url())]).await;
    let daemon = ledger.started().await;
    let all = (&ledger, &daemon, &user);
    turned_away(all, "connection limit 0", "connection limit -1", "(53300)").await;
    turned_away(all, "nologin", "login", "(28000)").await;
    turned_away(all, "password 'rotated'", "password 'foldline'", "(28P01)").await;
    refused(&daemon, "orders", "(57014)", async || user.backends("pg_cancel_backend").await).await;
    ledger.goes_on(&daemon).await;
    let other = postgres().await;
    let lock = format!("begin; lock table {} in access exclusive mode", ledger.table);
    other.batch_execute(&lock).await.unwrap();
    refused(&daemon, "orders", "(55P03)", nothing).await;
    other.batch_execute("commit").await.unwrap();
    ledger.goes_on(&daemon).await;
    ledger.end(daemon).await;
    user.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_ends_the_workers_transaction_and_it_writes_again() {
    let _servers = use_servers().await;
    let user = User::new().await;
    let ledger = Ledger::new(&TABLES, &[kafka_source(), postgres_sink_at(&user.url())]).await;
    let daemon = ledger.started().await;
    deadlock(&ledger, &daemon, &user).await;
    ledger.end(daemon).await;
    user.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_grow_is_waited_for_as_a_full_disk_is() {
    let _servers = use_servers().await;
    let user = User::new().await;
    let ledger = Ledger::new(&TABLES, &[kafka_source(), postgres_sink_at(&user.url())]).await;
    let daemon = ledger.started().await;
    disk_full(&ledger, &daemon, &user).await;
    ledger.end(daemon).await;
    user.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn elasticsearch_refuses_requests_and_items_and_does_what_it_says_it_did_not() {
    let _servers = use_servers().await;
    let layer = Refusals::start(&servers::elasticsearch()).await;
    let url = format!("http://{}", layer.address);
    let ledger = Ledger::new(&INDEXES, &[kafka_source(), elasticsearch_sink_at(&url)]).await;
    let daemon = ledger.started().await;
    for _ in 0..faults(1) {
        for refusal in [
            Refusal::Items(429),
            Refusal::Items(503),
            Refusal::Request(429),
            Refusal::Request(503),
            Refusal::Applied(504),
            Refusal::Applied(429),
        ] {
            layer.strike(refusal, 6).await;
            ledger.goes_on(&daemon).await;
        }
    }
    let scrape = daemon.metrics().await;
    let retries: u64 = INDEXES.iter().map(|name| scrape.of(name, "retries_total")).sum();
    assert!(retries > 0, "what was refused is counted");
    ledger.end(daemon).await;
}

async fn settings(index: &str, name: &str, value: serde_json::Value) {
    let body = json!({ name: value });
    let (status, answer) = elasticsearch("PUT", &format!("{index}/_settings"), Some(body)).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_closed_or_read_only_is_waited_for() {
    let _servers = use_servers().await;
    let ledger = Ledger::new(&INDEXES, &[kafka_source(), elasticsearch_sink()]).await;
    let daemon = ledger.started().await;
    let index = format!("{}-g1", ledger.table);
    for block in ["write", "read_only", "read_only_allow_delete"] {
        let name = format!("index.blocks.{block}");
        // Elasticsearch itself takes the last one away when it sees that the disk has room.
        let block = async || settings(&index, &name, json!(true)).await;
        refused(&daemon, "docs", "cluster_block_exception", block).await;
        assert_eq!(daemon.status("docs").await["connector"]["state"], "RUNNING");
        settings(&index, &name, json!(null)).await;
        ledger.goes_on(&daemon).await;
    }
    let (status, answer) = elasticsearch("POST", &format!("{index}/_close"), None).await;
    assert_eq!(status, 200, "{answer}");
    refused(&daemon, "docs", "index_closed_exception", nothing).await;
    let (status, answer) = elasticsearch("POST", &format!("{index}/_open"), None).await;
    assert_eq!(status, 200, "{answer}");
    ledger.goes_on(&daemon).await;
    ledger.end(daemon).await;
}
