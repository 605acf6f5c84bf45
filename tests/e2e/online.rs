//! `foldline validate --online`: what a config names is asked, and nothing is made.

use serde_json::Value;

use crate::support::daemon::{Printed, run_in};
use crate::support::kafka;
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, elasticsearch_sink_at, kafka_source, kafka_source_at,
    orders_projection, postgres_sink, postgres_sink_at, sqlite_sink,
};
use crate::support::stores::{elasticsearch, query};
use crate::support::{servers, use_servers};

fn validate(setup: &Setup) -> Printed {
    run_in(&setup.path(""), &["validate", "config", "--online"])
}

/// The problems' paths and messages.
fn problems(setup: &Setup) -> Vec<(String, String)> {
    let printed = run_in(&setup.path(""), &["validate", "config", "--online", "--json"]);
    let mut said: Value = serde_json::from_str(&printed.out).unwrap();
    let said = said["problems"].take();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one = |problem: &Value| (text(&problem["path"]), text(&problem["message"]));
    let found = said.as_array().unwrap().iter().map(one);
    // What the projection is warned of without asking anybody.
    found.filter(|(path, _)| path != "projections.orders.key").collect()
}

fn assert_told(found: &[(String, String)], expect: &[(&str, &str)]) {
    for (path, words) in expect {
        let told = found.iter().any(|(at, message)| at == path && message.contains(words));
        assert!(told, "{path} does not say {words:?}: {found:#?}");
    }
    assert_eq!(found.len(), expect.len(), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reached_is_left_as_it_was_and_a_strangers_table_is_named() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table, database) =
        (setup.name("orders"), setup.name("orders"), setup.path("new/orders.db"));
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce(&topic, Orders::new(30).events(0..300));
    let config = |name: &str| {
        setup.config(&[
            kafka_source(),
            orders_projection(&topic, "", ""),
            postgres_sink(),
            elasticsearch_sink(),
            sqlite_sink(&database),
            connector(name, "orders", "warehouse", &table, ""),
            connector("docs", "orders", "search", &table, ""),
            connector("embedded", "orders", "file", "orders", ""),
        ]);
    };
    config("orders");
    let printed = validate(&setup);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.out.contains("all that they name was reached"), "{printed:?}");
    let tables = query(&format!("select to_regclass('public.{table}') is null")).await;
    assert_eq!(tables[0][0].as_deref(), Some("t"), "a check makes no table");
    let indexes = elasticsearch("GET", &format!("_cat/indices/{table}*?format=json"), None).await;
    assert_eq!(indexes, (200, serde_json::json!([])), "and no index");
    assert!(!database.parent().unwrap().exists(), "and no file");
    // The same beside a worker that runs it.
    let daemon = setup.start().await;
    for name in ["orders", "docs", "embedded"] {
        daemon.caught_up(name, &topic).await;
    }
    let printed = validate(&setup);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    daemon.stop().await;
    // Another connector would fill that table.
    config("thief");
    let found = problems(&setup);
    assert_told(&found, &[("connectors.thief", "belongs to")]);
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_named_where_the_config_has_it() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, 1).await;
    // A source that nobody answers for: the store is asked all the same.
    setup.config(&[
        kafka_source_at("127.0.0.1:1"),
        orders_projection(&topic, "", ""),
        postgres_sink_at("postgres://nobody:canary@127.0.0.1:2/no"),
        elasticsearch_sink_at("http://127.0.0.1:3"),
        connector("orders", "orders", "warehouse", &table, ""),
        connector("docs", "orders", "search", &table, ""),
    ]);
    let found = problems(&setup);
    let expect = [
        ("sources.events", "nothing listens at 127.0.0.1:1"),
        ("sinks.warehouse", "127.0.0.1:2"),
        ("sinks.search", "127.0.0.1:3"),
    ];
    assert_told(&found, &expect);
    assert!(found.iter().all(|(_, message)| !message.contains("canary")), "{found:?}");
    let printed = validate(&setup);
    assert_eq!(printed.code, Some(78), "{printed:?}");
    // TLS where there is none, and a host that nobody knows.
    let plain = servers::elasticsearch().replacen("http:", "https:", 1);
    for (url, words) in [
        (plain.as_str(), "speaks no TLS: write http://"),
        ("http://no.such.host.invalid:9200", "host is not known"),
        (&format!("http://{}", servers::kafka()), "or be no Elasticsearch"),
    ] {
        setup.config(&[
            kafka_source(),
            orders_projection(&topic, "", ""),
            elasticsearch_sink_at(url),
            connector("docs", "orders", "search", &table, ""),
        ]);
        assert_told(&problems(&setup), &[("sinks.search", words)]);
    }
    // A topic that nobody made.
    setup.config(&[
        kafka_source(),
        orders_projection(&setup.name("ordres"), "", ""),
        postgres_sink(),
        connector("orders", "orders", "warehouse", &table, ""),
    ]);
    assert_told(&problems(&setup), &[("projections.orders.topics", "does not exist")]);
    // A registry, and a regex that no topic matches.
    setup.config(&[
        format!(
            "[registries.schemas]\ntype = \"confluent\"\nurl = \"http://127.0.0.1:4\"\n{}\
             [sources.events.topics.\"^{topic}-.*\"]\nvalue = {{ type = \"avro\", registry = \"schemas\" }}\n",
            kafka_source()
        ),
        orders_projection(&topic, "", "").replace(
            &format!("topics = [{topic:?}]"),
            &format!("topics = \"^{topic}-.*\""),
        ),
        postgres_sink(),
        connector("orders", "orders", "warehouse", &table, ""),
    ]);
    let expect =
        [("registries.schemas", "127.0.0.1:4"), ("projections.orders.topics", "no topic matches")];
    assert_told(&problems(&setup), &expect);
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_privilege_that_is_missing_comes_with_the_statement_that_gives_it() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, role) = (setup.name("orders"), setup.name("role"));
    let (schema, books) = (setup.name("sales"), setup.name("books"));
    kafka::create(&topic, 1).await;
    query(&format!("create role {role} login password 'foldline'")).await;
    query(&format!("create schema {schema}")).await;
    query(&format!("create schema {books} authorization {role}")).await;
    let mut url: url::Url = servers::postgres().parse().unwrap();
    url.set_username(&role).unwrap();
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        format!("{}schema_name = {books:?}\n", postgres_sink_at(url.as_str())),
        connector("orders", "orders", "warehouse", &format!("{schema}.orders"), ""),
    ]);
    let grant = format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO");
    assert_told(&problems(&setup), &[("sinks.warehouse", &grant)]);
    query(&format!("grant usage, create on schema {schema} to {role}")).await;
    let printed = validate(&setup);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    // Its table is there, and somebody took a right away.
    let daemon = setup.start().await;
    daemon.state("orders", "RUNNING").await;
    daemon.stop().await;
    query(&format!("alter table {schema}.orders owner to foldline")).await;
    query(&format!("grant select, insert on {schema}.orders to {role}")).await;
    let lacks = "lacks DELETE, UPDATE on";
    assert_told(&problems(&setup), &[("sinks.warehouse", lacks)]);
    query(&format!("drop schema {schema}, {books} cascade")).await;
    query(&format!("drop role {role}")).await;
    setup.clean().await;
}
