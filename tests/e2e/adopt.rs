//! A store that was restored from a backup is taken over as it is: the connector runs on, exact, and nothing is folded
//! again, as a shortened log could not be.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::daemon::{Daemon, Printed, run_in};
use crate::support::oracle::{Oracle, Rows, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink_at,
    sqlite_sink,
};
use crate::support::stores::{
    ORDERS, elasticsearch, elasticsearch_rows, postgres_rows_at, query, sqlite_rows,
};
use crate::support::{kafka, servers, use_servers};

const BEFORE: u64 = 3_000;
const ALL: u64 = 5_000;

fn orders() -> Orders {
    Orders::new(300)
}

/// A topic with the first events, folded by `parts` and then stopped.
struct Case {
    setup: Setup,
    topic: String,
}

impl Case {
    fn new() -> Self {
        let setup = Setup::new();
        let topic = setup.name("orders");
        Case { setup, topic }
    }

    fn config(&self, sink: String, name: &str) {
        let kind = if name == "docs" {
            "search"
        } else if name == "lite" {
            "file"
        } else {
            "warehouse"
        };
        let connector = connector(name, "orders", kind, &self.setup.name("orders"), "");
        let projection = orders_projection(&self.topic, "", "");
        self.setup.config(&[kafka_source(), projection, sink, connector]);
    }

    /// Folds the first events, and stops the connector before the worker.
    async fn folded(&self, name: &str) {
        kafka::create(&self.topic, PARTITIONS).await;
        kafka::produce(&self.topic, orders().events(0..BEFORE));
        let daemon = self.setup.start().await;
        daemon.caught_up(name, &self.topic).await;
        let refused = self.adopt(name);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("member"), "{refused:?}");
        let stopped = daemon.cli(&["stop", name]);
        assert_eq!(stopped.code, Some(0), "{stopped:?}");
        daemon.state(name, "STOPPED").await;
        daemon.stop().await;
    }

    /// More comes, and retention takes all that was folded: only the copy has it.
    async fn go_on_without_what_was_folded(&self) {
        let ends = kafka::ends(&self.topic);
        kafka::produce(&self.topic, orders().events(BEFORE..ALL));
        kafka::forget(&self.topic, &ends).await;
    }

    fn adopt(&self, name: &str) -> Printed {
        run_in(&self.setup.path(""), &["adopt", name])
    }

    /// The restored copy is named as the one to adopt; it is taken, and the connector runs on.
    async fn taken_over(&self, name: &str) -> Daemon {
        let daemon = self.setup.start().await;
        let why = daemon.failure(name).await;
        assert!(why.contains("was replaced"), "{why}");
        assert!(why.contains(&format!("foldline adopt {name}")), "{why}");
        daemon.stop().await;
        let printed = self.adopt(name);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        assert!(printed.out.contains("took generation 1 over, with its rows"), "{printed:?}");
        self.resumed(name).await
    }

    async fn resumed(&self, name: &str) -> Daemon {
        let daemon = self.setup.start().await;
        daemon.state(name, "STOPPED").await;
        let resumed = daemon.cli(&["resume", name]);
        assert_eq!(resumed.code, Some(0), "{resumed:?}");
        daemon.caught_up(name, &self.topic).await;
        assert_eq!(daemon.metric(name, "generation", |generation| generation > 0).await, 1);
        daemon
    }

    /// The plain fold of all events, whatever the log still has.
    fn expected() -> Rows {
        let mut oracle = Oracle::default();
        for event in orders().events(0..ALL) {
            oracle.fold(event.value.as_bytes(), event.timestamp);
        }
        oracle.orders()
    }
}

fn piped(command: &mut Command, input: &[u8]) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    assert!(child.wait().unwrap().success(), "{command:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_dumped_and_restored_is_taken_over() {
    let _servers = use_servers().await;
    let case = Case::new();
    let id = &case.setup.id;
    let (one, two) = (format!("{id}_one"), format!("{id}_two"));
    let server = servers::postgres();
    let (server, _) = server.rsplit_once('/').unwrap();
    let url = |database: &str| format!("{server}/{database}");
    query(&format!("create database {one}")).await;
    query(&format!("create database {two}")).await;
    case.config(postgres_sink_at(&url(&one)), "orders");
    case.folded("orders").await;
    let dumped = Command::new("pg_dump").args(["-Fc", &url(&one)]).output().unwrap();
    assert!(dumped.status.success(), "{dumped:?}");
    query(&format!("drop database {one} with (force)")).await;
    // An object of its own, so that no table has the OID that it had.
    piped(Command::new("psql").args(["-qX", &url(&two)]), b"create table other (id int)");
    piped(Command::new("pg_restore").args(["-d", &url(&two)]), &dumped.stdout);
    case.go_on_without_what_was_folded().await;

    case.config(postgres_sink_at(&url(&two)), "orders");
    let daemon = case.taken_over("orders").await;
    let found = postgres_rows_at(&url(&two), &case.setup.name("orders"), ORDERS).await;
    assert_same("PostgreSQL", &Case::expected(), &found);
    daemon.stop().await;
    query(&format!("drop database {two} with (force)")).await;
    case.setup.clean().await;
}

/// What SQLite itself copies is known again: there is nothing to take over, and it goes on.
async fn copied_file(copy: fn(&Path, &Path)) {
    let case = Case::new();
    let (file, other) = (case.setup.path("one.db"), case.setup.path("two.db"));
    case.config(sqlite_sink(&file), "lite");
    case.folded("lite").await;
    copy(&file, &other);
    std::fs::remove_file(&file).unwrap();
    case.go_on_without_what_was_folded().await;

    case.config(sqlite_sink(&other), "lite");
    let printed = case.adopt("lite");
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.out.contains("there was nothing to take over"), "{printed:?}");
    let daemon = case.resumed("lite").await;
    let found = sqlite_rows(&other, &case.setup.name("orders"), ORDERS);
    assert_same("SQLite", &Case::expected(), &found);
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_file_that_was_copied_goes_on() {
    let _servers = use_servers().await;
    copied_file(|from, to| {
        for end in ["", "-wal"] {
            let (from, to) = (format!("{}{end}", from.display()), format!("{}{end}", to.display()));
            if Path::new(&from).exists() {
                std::fs::copy(from, to).unwrap();
            }
        }
    })
    .await;
    copied_file(|from, to| {
        let database = rusqlite::Connection::open(from).unwrap();
        database.execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
    })
    .await;
}

/// Puts a copy in the place of an index, as a snapshot does: with all but its UUID.
async fn copy_index(index: &str) {
    let (_, made) = elasticsearch("GET", &format!("{index}?flat_settings=true"), None).await;
    let copy = format!("{index}-copy");
    for (from, to) in [(index, copy.as_str()), (copy.as_str(), index)] {
        elasticsearch("PUT", &format!("{from}/_block/write"), None).await;
        let path = format!("{from}/_clone/{to}?wait_for_active_shards=1");
        let (status, answer) = elasticsearch("PUT", &path, None).await;
        assert_eq!(status, 200, "{answer}");
        elasticsearch("DELETE", from, None).await;
    }
    let unblock = json!({ "index.blocks.write": null });
    elasticsearch("PUT", &format!("{index}/_settings"), Some(unblock)).await;
    for (alias, options) in made[index]["aliases"].as_object().unwrap() {
        elasticsearch("PUT", &format!("{index}/_alias/{alias}"), Some(options.clone())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_a_stopped_connector_left_is_taken_over() {
    let _servers = use_servers().await;
    let case = Case::new();
    let index = format!("{}-g1", case.setup.name("orders"));
    case.config(elasticsearch_sink(), "docs");
    case.folded("docs").await;
    copy_index(&index).await;
    case.go_on_without_what_was_folded().await;
    let daemon = case.taken_over("docs").await;
    let found = elasticsearch_rows(&case.setup.name("orders"), ORDERS).await;
    assert_same("Elasticsearch", &Case::expected(), &found);

    // It is folding again: a copy made now is of no one moment.
    daemon.stop().await;
    copy_index(&index).await;
    let refused = case.adopt("docs");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("since the connector was stopped last"), "{refused:?}");
    case.setup.clean().await;
}
