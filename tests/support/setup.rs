//! One test's own names and config.

use std::cell::Cell;
use std::path::PathBuf;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::oracle::{Oracle, assert_same};
use super::orders::{Orders, PARTITIONS};
use super::stores::{ORDERS, elasticsearch_rows, postgres_rows};
use super::{kafka, servers, stores};

/// A test's directory with its config, and an id that every name of the test holds.
pub(crate) struct Setup {
    pub(crate) id: String,
    directory: TempDir,
    started: Cell<u32>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let id = format!("e2e{:08x}", rand::random::<u32>());
        let directory = tempfile::Builder::new().prefix("foldline-").tempdir().unwrap();
        std::fs::create_dir(directory.path().join("config")).unwrap();
        Setup { id, directory, started: Cell::new(0) }
    }

    /// A name that no other test has; fit for a topic, a table and an index.
    pub(crate) fn name(&self, what: &str) -> String {
        format!("{what}_{}", self.id)
    }

    /// The group of a connector.
    pub(crate) fn group(&self, connector: &str) -> String {
        format!("{}-{connector}", self.id)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the config: the worker's name, then these parts.
    pub(crate) fn config(&self, parts: &[String]) {
        let text = format!("[worker]\nname = {:?}\n\n{}", self.id, parts.join("\n"));
        std::fs::write(self.path("config/foldline.toml"), text).unwrap();
    }

    /// Starts a worker, and waits until it answers.
    pub(crate) async fn start(&self) -> Daemon {
        let daemon = self.spawn();
        daemon.answers().await;
        daemon
    }

    /// Starts a worker.
    pub(crate) fn spawn(&self) -> Daemon {
        self.spawn_with(&[])
    }

    /// Starts a worker with this in its environment.
    pub(crate) fn spawn_with(&self, environment: &[(&str, &str)]) -> Daemon {
        self.started.set(self.started.get() + 1);
        let log = self.path(&format!("worker-{}.log", self.started.get()));
        Daemon::spawn(&self.id, &self.path("config"), &log, environment)
    }

    /// What the last started worker logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path(&format!("worker-{}.log", self.started.get()))).unwrap()
    }

    /// Removes what the test made on the servers. A failed test leaves it, to be looked at.
    pub(crate) async fn clean(self) {
        stores::remove_all(&self.id).await;
    }
}

/// An orders log and where it is folded: by connector `orders` into a table, by `docs` into an index.
pub(crate) struct Case {
    pub(crate) setup: Setup,
    pub(crate) topic: String,
    /// The table's name and the index's.
    pub(crate) table: String,
}

impl Case {
    /// A topic with the first `count` events.
    pub(crate) async fn new(orders: Orders, count: u64) -> Self {
        let setup = Setup::new();
        let (topic, table) = (setup.name("orders"), setup.name("orders"));
        kafka::create(&topic, PARTITIONS).await;
        kafka::produce(&topic, orders.events(0..count));
        Case { setup, topic, table }
    }

    pub(crate) fn projection(&self) -> String {
        orders_projection(&self.topic, "", "")
    }

    /// The config: into PostgreSQL, by a connector of this name; `more` is any other line of it.
    pub(crate) fn config(&self, projection: String, name: &str, more: &str) {
        let connector = connector(name, "orders", "warehouse", &self.table, more);
        self.setup.config(&[kafka_source(), projection, postgres_sink(), connector]);
    }

    /// The config: into PostgreSQL and Elasticsearch.
    pub(crate) fn config_of_both(&self) {
        self.setup.config(&[
            kafka_source(),
            self.projection(),
            postgres_sink(),
            elasticsearch_sink(),
            connector("orders", "orders", "warehouse", &self.table, ""),
            connector("docs", "orders", "search", &self.table, ""),
        ]);
    }

    /// All of the topic folded into PostgreSQL, and the worker stopped.
    pub(crate) async fn folded(orders: Orders, count: u64) -> Self {
        let case = Case::new(orders, count).await;
        case.config(case.projection(), "orders", "");
        let daemon = case.setup.start().await;
        daemon.caught_up("orders", &case.topic).await;
        assert_eq!(daemon.metric("orders", "generation", |g| g > 0).await, 1);
        daemon.stop().await;
        case
    }

    /// The table is the plain fold.
    pub(crate) async fn assert_exact(&self) {
        let expected = Oracle::of_topic(&self.topic).orders();
        assert_same("PostgreSQL", &expected, &postgres_rows(&self.table, ORDERS).await);
    }

    /// So are table and index.
    pub(crate) async fn assert_both_exact(&self) {
        let expected = Oracle::of_topic(&self.topic).orders();
        assert_same("PostgreSQL", &expected, &postgres_rows(&self.table, ORDERS).await);
        assert_same("Elasticsearch", &expected, &elasticsearch_rows(&self.table, ORDERS).await);
    }
}

/// Short timeouts, so that a member that was killed is missed soon.
pub(crate) fn kafka_source() -> String {
    kafka_source_at(&servers::kafka())
}

/// The same at another address.
pub(crate) fn kafka_source_at(servers: &str) -> String {
    format!(
        r#"[sources.events]
type = "kafka"
bootstrap_servers = {servers:?}
[sources.events.properties]
"session.timeout.ms" = 6000
"heartbeat.interval.ms" = 1000
"topic.metadata.refresh.interval.ms" = 5000
"#
    )
}

pub(crate) fn file_source(path: &std::path::Path) -> String {
    format!("[sources.events]\ntype = \"file\"\npath = {path:?}\n")
}

pub(crate) fn postgres_sink() -> String {
    "[sinks.warehouse]\ntype = \"postgres\"\nurl = { env = \"DATABASE_URL\" }\n".to_owned()
}

/// The tests' PostgreSQL, reached at another address or as another user.
pub(crate) fn postgres_sink_at(url: &str) -> String {
    format!("[sinks.warehouse]\ntype = \"postgres\"\nurl = {url:?}\n")
}

pub(crate) fn elasticsearch_sink() -> String {
    elasticsearch_sink_at(&servers::elasticsearch())
}

pub(crate) fn elasticsearch_sink_at(url: &str) -> String {
    format!("[sinks.search]\ntype = \"elasticsearch\"\nurls = [{url:?}]\n")
}

pub(crate) fn sqlite_sink(path: &std::path::Path) -> String {
    format!("[sinks.file]\ntype = \"sqlite\"\npath = {path:?}\n")
}

/// State topics on the tests' Kafka.
pub(crate) fn kafka_sink() -> String {
    format!("[sinks.states]\ntype = \"kafka\"\nbootstrap_servers = {:?}\n", servers::kafka())
}

/// The key of the target is that of the sink; `more` is any other line of the connector.
pub(crate) fn connector(
    name: &str,
    projection: &str,
    sink: &str,
    target: &str,
    more: &str,
) -> String {
    let key = match sink {
        "search" => "index",
        "states" => "topic",
        _ => "table",
    };
    format!(
        "[connectors.{name}]\nprojection = {projection:?}\nsink = {sink:?}\n{key} = {target:?}\n{more}\n"
    )
}

/// The orders' projection; `fields` and `handler` are further lines.
pub(crate) fn orders_projection(topic: &str, fields: &str, set: &str) -> String {
    format!(
        r#"[projections.orders]
topics = [{topic:?}]
key = {{ id = "event.id" }}
[projections.orders.fields]
id = "bigint"
user_id = "bigint"
product_id = "bigint"
amount = "bigint"
price = "numeric(12,2)"
changes = {{ type = "bigint", default = 0 }}
updated_at = "timestamptz"
{fields}
[[projections.orders.on]]
merge = {{ user_id = "event.userId", product_id = "event.productId", amount = "event.amount", price = "event.price" }}
set = {{ updated_at = "timestamp"{set} }}
add = {{ changes = 1 }}
"#
    )
}

/// A counter for each user: all partitions feed each key.
pub(crate) fn users_projection(topic: &str) -> String {
    format!(
        r#"[projections.users]
topics = [{topic:?}]
key = {{ user_id = "event.userId" }}
[projections.users.fields]
user_id = "bigint"
events = {{ type = "bigint", default = 0 }}
spent = {{ type = "bigint", default = 0 }}
[[projections.users.on]]
when = "event.userId != null"
add = {{ events = 1, spent = "event.amount" }}
"#
    )
}
