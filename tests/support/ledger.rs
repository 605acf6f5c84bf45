//! A connector for each kind of row, folded from a log that grows under whatever the test does, and judged at the end.

use super::daemon::Daemon;
use super::kafka::{self, Background};
use super::oracle::{Oracle, assert_same};
use super::orders::{Orders, PARTITIONS};
use super::setup::{Setup, connector, orders_projection, users_projection};
use super::stores::{ORDERS, USERS, elasticsearch_rows, postgres_rows};

/// Each order's row counts its events, each user's row sums amounts over all partitions: one event lost or folded twice
/// shows.
pub(crate) struct Ledger {
    pub(crate) setup: Setup,
    pub(crate) topic: String,
    /// The table's and the index's name, of the orders and of the users.
    pub(crate) table: String,
    pub(crate) users: String,
    names: &'static [&'static str],
    load: Option<Background>,
}

/// Orders and users in PostgreSQL.
pub(crate) const TABLES: [&str; 2] = ["orders", "users"];
/// Orders and users in Elasticsearch.
pub(crate) const INDEXES: [&str; 2] = ["docs", "user-docs"];
/// All of them.
pub(crate) const BOTH: [&str; 4] = ["orders", "users", "docs", "user-docs"];

impl Ledger {
    /// A log that grows, and these connectors; `parts` are the source and the sinks.
    pub(crate) async fn new(names: &'static [&'static str], parts: &[String]) -> Self {
        let setup = Setup::new();
        let (topic, table, users) =
            (setup.name("orders"), setup.name("orders"), setup.name("users"));
        kafka::create(&topic, PARTITIONS).await;
        let mut config = parts.to_vec();
        config.extend([orders_projection(&topic, "", ""), users_projection(&topic)]);
        let connectors = [
            connector("orders", "orders", "warehouse", &table, ""),
            connector("users", "users", "warehouse", &users, ""),
            connector("docs", "orders", "search", &table, ""),
            connector("user-docs", "users", "search", &users, ""),
        ];
        let wanted = BOTH.iter().zip(connectors).filter(|(name, _)| names.contains(name));
        config.extend(wanted.map(|(_, connector)| connector));
        setup.config(&config);
        let load = Some(Background::start(&topic, Orders::new(2_000), 0));
        Ledger { setup, topic, table, users, names, load }
    }

    /// A worker that has begun to fold.
    pub(crate) async fn started(&self) -> Daemon {
        let daemon = self.setup.start().await;
        self.goes_on(&daemon).await;
        daemon
    }

    /// Waits until each connector has folded more, without any help.
    pub(crate) async fn goes_on(&self, daemon: &Daemon) {
        let before = daemon.metrics().await;
        for name in self.names {
            let done = before.of(name, "records_consumed_total");
            daemon.metric(name, "records_consumed_total", |consumed| consumed > done + 300).await;
        }
    }

    /// Whether the worker answers and has every partition of each connector.
    pub(crate) async fn has_all(&self, daemon: &Daemon) -> bool {
        let Some(scrape) = daemon.metrics_if_up().await else { return false };
        self.names.iter().all(|name| scrape.of(name, "assigned_partitions") == PARTITIONS as u64)
    }

    /// Ends the log, waits until all of it is folded, and judges: every row is the plain fold's, nothing was set
    /// aside, every record is accounted for.
    pub(crate) async fn end(mut self, daemon: Daemon) {
        if let Some(load) = self.load.take() {
            load.stop();
        }
        for name in self.names {
            daemon.caught_up(name, &self.topic).await;
            let scrape = daemon.idle(name, PARTITIONS as u64).await;
            scrape.assert_balanced(name);
            assert_eq!(scrape.of(name, "events_dead_lettered_total"), 0, "{name}");
            assert_eq!(daemon.status(name).await["connector"]["state"], "RUNNING");
        }
        let oracle = Oracle::of_topic(&self.topic);
        for name in self.names {
            let (expected, found) = match *name {
                "orders" => (oracle.orders(), postgres_rows(&self.table, ORDERS).await),
                "users" => (oracle.users(), postgres_rows(&self.users, USERS).await),
                "docs" => (oracle.orders(), elasticsearch_rows(&self.table, ORDERS).await),
                _ => (oracle.users(), elasticsearch_rows(&self.users, USERS).await),
            };
            assert_same(name, &expected, &found);
        }
        daemon.stop().await;
        self.setup.clean().await;
    }
}
