//! Another config under a running worker.

use std::path::Path;

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, kafka_source, orders_projection, postgres_sink, sqlite_sink,
};
use crate::support::stores::{ORDERS, postgres_rows, sqlite_rows};
use crate::support::{use_servers, wait};

struct Case {
    setup: Setup,
    topic: String,
}

impl Case {
    async fn new() -> Self {
        let setup = Setup::new();
        let topic = setup.name("orders");
        kafka::create(&topic, PARTITIONS).await;
        Case { setup, topic }
    }

    /// Writes a config of these connectors into PostgreSQL, and of one into SQLite.
    fn config(&self, worker: &str, connectors: &[(&str, &str)]) {
        let mut parts = vec![
            worker.to_owned(),
            kafka_source(),
            orders_projection(&self.topic, "", ""),
            postgres_sink(),
            sqlite_sink(&self.database()),
            connector("embedded", "orders", "file", "orders", ""),
        ];
        for (name, more) in connectors {
            parts.push(connector(name, "orders", "warehouse", &self.setup.name(name), more));
        }
        self.setup.config(&parts);
    }

    fn database(&self) -> std::path::PathBuf {
        self.setup.path("orders.db")
    }

    async fn assert_exact(&self, tables: &[&str]) {
        let expected = Oracle::of_topic(&self.topic).orders();
        assert_same("SQLite", &expected, &sqlite_rows(&self.database(), "orders", ORDERS));
        for name in tables {
            let table = self.setup.name(name);
            assert_same(name, &expected, &postgres_rows(&table, ORDERS).await);
        }
    }
}

/// What the worker says of its config, once it fits.
async fn config_of(daemon: &Daemon, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait::until(what, wait::SOON, async || {
        let (_, mut worker) = daemon.get("/").await;
        let config = worker["config"].take();
        if fits(&config) { Ok(config) } else { Err(config.to_string()) }
    })
    .await
}

/// Hangs up, and waits until the config was taken.
async fn taken(daemon: &Daemon) {
    let before = config_of(daemon, "the config", |_| true).await["loaded"].clone();
    daemon.hang_up();
    config_of(daemon, "the config is taken", |config| config["loaded"] != before).await;
}

async fn rebalances(daemon: &Daemon, connector: &str) -> u64 {
    daemon.metrics().await.of(connector, "rebalances_total")
}

async fn gone(daemon: &Daemon, connector: &str) {
    wait::until(&format!("{connector} is gone"), wait::SOON, async || {
        let (status, body) = daemon.get(&format!("/connectors/{connector}/status")).await;
        let series = daemon.metrics().await.find("connector_state", &[("connector", connector)]);
        if (status, series) == (404, None) { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_starts_anew_and_what_is_gone_leaves_its_rows() {
    let _servers = use_servers().await;
    let case = Case::new().await;
    case.config("", &[("a", ""), ("b", "")]);
    let daemon = case.setup.start().await;
    let load = Background::start(&case.topic, Orders::new(500), 0);
    for name in ["embedded", "a", "b"] {
        daemon.metric(name, "events_applied_total", |applied| applied > 0).await;
    }
    let settled = [rebalances(&daemon, "a").await, rebalances(&daemon, "embedded").await];
    let of_b = rebalances(&daemon, "b").await;
    // Nothing changed but a test of the projection.
    taken(&daemon).await;
    case.config("", &[("a", ""), ("b", "batch = { rows = 7 }"), ("c", "")]);
    taken(&daemon).await;
    daemon.metric("b", "rebalances_total", |found| found > of_b).await;
    daemon.metric("c", "events_applied_total", |applied| applied > 0).await;
    let expect = format!("{:?}", ["b", "c"]);
    assert!(case.setup.log().contains(&format!("\"started\":{expect:?}")), "{}", case.setup.log());
    // Without one of them.
    case.config("", &[("a", ""), ("c", "")]);
    taken(&daemon).await;
    gone(&daemon, "b").await;
    let end = load.stop();
    assert!(end > 0);
    for name in ["embedded", "a", "c"] {
        daemon.caught_up(name, &case.topic).await;
    }
    let now = [rebalances(&daemon, "a").await, rebalances(&daemon, "embedded").await];
    assert_eq!(now, settled, "who did not change kept its partitions");
    case.assert_exact(&["a", "c"]).await;
    assert!(!postgres_rows(&case.setup.name("b"), ORDERS).await.is_empty(), "its rows stay");
    // It comes back where it was.
    case.config("", &[("a", ""), ("b", ""), ("c", "")]);
    taken(&daemon).await;
    daemon.caught_up("b", &case.topic).await;
    case.assert_exact(&["a", "b", "c"]).await;
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_is_wrong_changes_nothing_and_is_told() {
    let _servers = use_servers().await;
    let case = Case::new().await;
    case.config("", &[("a", "")]);
    let daemon = case.setup.start().await;
    daemon.state("a", "RUNNING").await;
    let file = case.setup.path("config/foldline.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let broken = [
        ("tasks_max = 0\n", "connectors.a.tasks_max"),
        ("target_ = 1\n", "connectors.a.target_"),
        ("[", "foldline.toml"),
        ("[connectors.new]\nprojection = \"no\"\nsink = \"file\"\n", "connectors.new.projection"),
    ];
    for (more, place) in broken {
        std::fs::write(&file, format!("{good}\n{more}")).unwrap();
        daemon.hang_up();
        let told = |config: &Value| config["error"].as_str().is_some_and(|e| e.contains(place));
        config_of(&daemon, place, told).await;
        let metric = daemon.metrics().await.find("config_last_reload_successful", &[]);
        assert_eq!(metric, Some(0.0));
        let printed = daemon.cli(&["status"]);
        assert!(printed.out.contains("stays in use") && printed.out.contains(place), "{printed:?}");
        assert!(case.setup.log().contains(place), "{}", case.setup.log());
    }
    // What belongs to the process.
    std::fs::write(&file, good.replacen(&case.setup.id, "another", 1)).unwrap();
    daemon.hang_up();
    let told = |config: &Value| config["error"].as_str().is_some_and(|e| e.contains("worker.name"));
    config_of(&daemon, "another name", told).await;
    // One that could start anew beside one that cannot be made: what is shown stays what runs.
    let new = "[sinks.docs]\ntype = \"elasticsearch\"\nurls = [\"https://127.0.0.1:1\"]\nca = \"absent.pem\"\n\
               [connectors.new]\nprojection = \"orders\"\nsink = \"docs\"\nindex = \"docs\"\n";
    let runs = [("connector", "a"), ("state", "RUNNING")];
    wait::until("the series says that it runs", wait::SOON, async || {
        let state = daemon.metrics().await.find("connector_state", &runs);
        if state == Some(1.0) { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    case.config("", &[("a", "batch = { rows = 7 }")]);
    let both = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{both}\n{new}")).unwrap();
    daemon.hang_up();
    let told =
        |config: &Value| config["error"].as_str().is_some_and(|e| e.contains("connectors.new:"));
    config_of(&daemon, "what is not there yet", told).await;
    let shown = daemon.metrics().await;
    assert_eq!(shown.find("connector_state", &runs), Some(1.0));
    assert_eq!(shown.find("connector_state", &[("connector", "new")]), None);
    // All goes on by the one before, and the right one is taken.
    kafka::produce(&case.topic, Orders::new(50).events(0..500));
    for name in ["a", "embedded"] {
        daemon.caught_up(name, &case.topic).await;
    }
    case.assert_exact(&["a"]).await;
    std::fs::write(&file, good).unwrap();
    taken(&daemon).await;
    config_of(&daemon, "it is right again", |config| config["error"].is_null()).await;
    let metric = daemon.metrics().await.find("config_last_reload_successful", &[]);
    assert_eq!(metric, Some(1.0));
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_change_are_taken_and_half_of_them_removes_nothing() {
    let _servers = use_servers().await;
    let case = Case::new().await;
    let token = case.setup.path("token");
    std::fs::write(&token, "one").unwrap();
    let worker = "watch = true";
    case.config(worker, &[("a", ""), ("b", "")]);
    let daemon = case.setup.start().await;
    kafka::produce(&case.topic, Orders::new(50).events(0..500));
    for name in ["embedded", "a", "b"] {
        daemon.caught_up(name, &case.topic).await;
    }
    // Half of a directory that is copied: what is there is whole, and b is not there yet.
    case.config(worker, &[("a", "")]);
    config_of(&daemon, "b is missed", |config| config["missing"] == serde_json::json!(["b"])).await;
    let printed = daemon.cli(&["status"]);
    assert!(printed.out.contains("b: is missing"), "{printed:?}");
    daemon.state("b", "RUNNING").await;
    // The other half has one more.
    case.config(worker, &[("a", ""), ("b", ""), ("c", "")]);
    daemon.caught_up("c", &case.topic).await;
    config_of(&daemon, "nothing is missed", |config| config["missing"] == serde_json::json!([]))
        .await;
    // A directory that somebody empties.
    let file = case.setup.path("config/foldline.toml");
    let all = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    config_of(&daemon, "the config is away", |config| config["error"].is_string()).await;
    kafka::produce(&case.topic, Orders::new(50).events(500..1_000));
    for name in ["embedded", "a", "b", "c"] {
        daemon.caught_up(name, &case.topic).await;
    }
    case.assert_exact(&["a", "b", "c"]).await;
    std::fs::write(&file, all).unwrap();
    config_of(&daemon, "it is back", |config| config["error"].is_null()).await;
    a_secret_in_a_file(&case, &daemon, &token, worker).await;
    daemon.stop().await;
    case.setup.clean().await;
}

/// The token is taken from its file, and with what is written there next.
async fn a_secret_in_a_file(case: &Case, daemon: &Daemon, token: &Path, worker: &str) {
    let worker = format!("{worker}\ntoken = {{ file = {:?} }}", token.display().to_string());
    case.config(&worker, &[("a", ""), ("b", ""), ("c", "")]);
    for secret in ["one", "two"] {
        std::fs::write(token, secret).unwrap();
        let http = crate::support::http(wait::SOON);
        wait::until(&format!("the token is {secret}"), wait::SOON, async || {
            let mut answers = Vec::new();
            for given in [secret, "another"] {
                let asked = http.get(daemon.url("/connectors")).bearer_auth(given).send().await;
                answers.push(asked.map_err(|error| error.to_string())?.status().as_u16());
            }
            if answers == [200, 401] { Ok(()) } else { Err(format!("{answers:?}")) }
        })
        .await;
    }
}
