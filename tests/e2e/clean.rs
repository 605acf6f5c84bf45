//! What a connector left that the config has no more is shown, and removed for good.

use serde_json::json;

use crate::support::daemon::Printed;
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_sink, kafka_source, orders_projection,
    postgres_sink, sqlite_sink,
};
use crate::support::stores::{
    ORDERS, elasticsearch, postgres_rows, query, sqlite_rows, topic_rows,
};
use crate::support::{kafka, use_servers};

/// A connector and its sink, each of one store.
const STORES: [(&str, &str); 4] =
    [("tables", "warehouse"), ("lite", "file"), ("docs", "search"), ("copied", "states")];
/// Of the connectors, and of the one that stays.
const ALL: [&str; 5] = ["tables", "lite", "docs", "copied", "stays"];

struct Case {
    setup: Setup,
    topic: String,
}

impl Case {
    async fn new() -> Self {
        let setup = Setup::new();
        let topic = setup.name("orders");
        kafka::create(&topic, PARTITIONS).await;
        kafka::produce(&topic, Orders::new(100).events(0..500));
        Case { setup, topic }
    }

    /// A config of these connectors, and of one that stays.
    fn config(&self, connectors: &[(&str, &str)]) {
        let mut parts = vec![
            kafka_source(),
            orders_projection(&self.topic, "", ""),
            postgres_sink(),
            sqlite_sink(&self.setup.path("orders.db")),
            elasticsearch_sink(),
            kafka_sink(),
            connector("stays", "orders", "warehouse", &self.setup.name("stays"), ""),
        ];
        for (name, sink) in connectors {
            parts.push(connector(name, "orders", sink, &self.target(name), ""));
        }
        self.setup.config(&parts);
    }

    fn target(&self, name: &str) -> String {
        self.setup.name(name)
    }

    fn clean(&self, arguments: &[&str]) -> Printed {
        let arguments = [&["clean"], arguments].concat();
        crate::support::daemon::run_in(&self.setup.path(""), &arguments)
    }

    fn group_is_there(&self, name: &str) -> bool {
        let committed =
            kafka::committed(&self.setup.group(name), &self.topic, PARTITIONS as usize).unwrap();
        committed.iter().any(|offset| *offset > 0)
    }

    /// What is left in PostgreSQL and Elasticsearch: tables, indexes, and lines of the books.
    async fn left(&self, name: &str) -> usize {
        let target = self.target(name);
        let mut left = query(&format!(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE '{target}%'"
        ))
        .await
        .len();
        for table in query(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = 'foldline' AND column_name = 'target'",
        )
        .await
        {
            let table = table[0].clone().unwrap();
            let of = format!("SELECT 1 FROM foldline.{table} WHERE target LIKE '%{target}%'");
            left += query(&of).await.len();
        }
        let (_, indexes) = elasticsearch("GET", &format!("{target}*"), None).await;
        left += indexes.as_object().map_or(0, serde_json::Map::len);
        elasticsearch("POST", "foldline-books/_refresh", None).await;
        let search = json!({ "query": { "prefix": { "target": target } } });
        let (_, found) = elasticsearch("POST", "foldline-books/_search", Some(search)).await;
        let found = found["hits"]["total"]["value"].as_u64().unwrap_or(0);
        left += kafka::topics().iter().filter(|topic| topic.starts_with(&target)).count();
        left + usize::try_from(found).unwrap()
    }
}

fn refused(printed: &Printed, why: &str) {
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert!(printed.err.contains(why), "{why}: {printed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_connector_left_goes_for_good_and_nothing_else() {
    let _servers = use_servers().await;
    let case = Case::new().await;
    case.config(&STORES);
    let daemon = case.setup.start().await;
    for name in ALL {
        daemon.caught_up(name, &case.topic).await;
    }
    refused(&case.clean(&["tables", "--yes"]), "is in the config");
    // The worker has not read the new config yet.
    case.config(&[]);
    refused(&case.clean(&["tables", "--yes"]), "a worker still runs the connector");
    daemon.stop().await;

    for (name, _) in STORES {
        assert!(case.group_is_there(name), "{name}");
        let shown = case.clean(&[name]);
        refused(&shown, "`--yes`");
        assert!(shown.out.contains(&case.target(name)), "{shown:?}");
        assert!(shown.out.contains(&case.setup.group(name)), "{shown:?}");
        let cleaned = case.clean(&[name, "--yes"]);
        assert_eq!(cleaned.code, Some(0), "{cleaned:?}");
        assert!(cleaned.out.contains("dropped"), "{cleaned:?}");
        assert!(!case.group_is_there(name), "{name}");
        refused(&case.clean(&[name, "--yes"]), "no sink of the config holds anything");
        assert_eq!(case.left(name).await, 0, "{name}");
    }
    let lite = rusqlite::Connection::open(case.setup.path("orders.db")).unwrap();
    let count = |sql: &str| lite.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM _foldline_targets"), 0);
    assert_eq!(count("SELECT count(*) FROM _foldline_positions"), 0);
    let table = case.target("lite");
    assert_eq!(count(&format!("SELECT count(*) FROM sqlite_schema WHERE name = '{table}'")), 0);
    drop(lite);

    // The other one goes on, and who comes back folds from the beginning.
    case.config(&STORES);
    let daemon = case.setup.start().await;
    for name in ALL {
        daemon.caught_up(name, &case.topic).await;
        assert_eq!(daemon.metric(name, "generation", |number| number > 0).await, 1, "{name}");
    }
    let expected = Oracle::of_topic(&case.topic).orders();
    for name in ["tables", "stays"] {
        assert_same(name, &expected, &postgres_rows(&case.target(name), ORDERS).await);
    }
    let rows = sqlite_rows(&case.setup.path("orders.db"), &case.target("lite"), ORDERS);
    assert_same("lite", &expected, &rows);
    assert_same("copied", &expected, &topic_rows(&case.target("copied"), ORDERS));
    daemon.stop().await;
    case.setup.clean().await;
}
