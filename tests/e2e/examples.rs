//! `config/examples/`, each end to end as it stands: its topics and targets get the test's own names.

use serde_json::{Value, json};
use toml::Table;

use crate::support::kafka::{self, Raw};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::servers::repository;
use crate::support::setup::Setup;
use crate::support::stores::{ORDERS, elasticsearch, elasticsearch_rows, postgres_rows, query};
use crate::support::use_servers;
use crate::support::wait;

/// The example as the test's config: worker, topics, tables and indexes are renamed. The servers that are started without
/// Docker are Elasticsearch without its modules: there a text is stemmed by no analyzer.
async fn example(setup: &Setup, name: &str) -> String {
    let file = repository().join(format!("config/examples/{name}/{name}.toml"));
    let mut config: Table = std::fs::read_to_string(file).unwrap().parse().unwrap();
    let worker = config["worker"].as_table_mut().unwrap();
    worker.insert("name".to_owned(), setup.id.clone().into());
    let projection = config["projections"][name].as_table_mut().unwrap();
    let topic = setup.name(projection["topics"][0].as_str().unwrap());
    projection.insert("topics".to_owned(), vec![topic.clone()].into());
    let target = setup.name(name);
    let sinks = config["sinks"].clone();
    for (_, connector) in config["connectors"].as_table_mut().unwrap() {
        let connector = connector.as_table_mut().unwrap();
        let kind = &sinks[connector["sink"].as_str().unwrap()]["type"];
        let key = if kind.as_str() == Some("elasticsearch") { "index" } else { "table" };
        connector.insert(key.to_owned(), target.clone().into());
        if !stems().await {
            unstemmed(connector);
        }
    }
    std::fs::write(setup.path("config/example.toml"), toml::to_string(&config).unwrap()).unwrap();
    topic
}

/// Whether the server knows the analyzers that come with Elasticsearch.
async fn stems() -> bool {
    let text = json!({ "analyzer": "english", "text": "folding" });
    let (status, answer) = elasticsearch("POST", "_analyze", Some(text)).await;
    assert!(status == 200 || status == 400, "{answer}");
    status == 200
}

fn unstemmed(connector: &mut Table) {
    let mapping = connector.get_mut("mapping").and_then(|mapping| mapping.as_table_mut());
    for (_, field) in mapping.into_iter().flatten() {
        field.as_table_mut().unwrap().remove("analyzer");
    }
}

/// A document of the alias by its id; null where there is none to see.
async fn document(alias: &str, id: &str) -> Value {
    let by_id = json!({ "query": { "ids": { "values": [id] } } });
    refresh(alias).await;
    let (status, answer) = elasticsearch("POST", &format!("{alias}/_search"), Some(by_id)).await;
    assert_eq!(status, 200, "{answer}");
    answer["hits"]["hits"][0]["_source"].clone()
}

/// The ids of the documents whose `field` is `value`.
async fn search(alias: &str, field: &str, value: &str) -> Vec<String> {
    let term = json!({ "query": { "term": { field: value } } });
    refresh(alias).await;
    let (status, answer) = elasticsearch("POST", &format!("{alias}/_search"), Some(term)).await;
    assert_eq!(status, 200, "{answer}");
    let hits = answer["hits"]["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()).collect()
}

async fn refresh(alias: &str) {
    let (status, answer) = elasticsearch("POST", &format!("{alias}/_refresh"), None).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_folded_from_the_beginning_and_go_on() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, target) = (example(&setup, "orders").await, setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    let orders = Orders::new(500);
    // Before the worker starts, and while it runs.
    kafka::produce(&topic, orders.events(0..5_000));
    let daemon = setup.start().await;
    for name in ["orders", "orders-search"] {
        daemon.caught_up(name, &topic).await;
    }
    kafka::produce(&topic, orders.events(5_000..8_000));
    for name in ["orders", "orders-search"] {
        daemon.caught_up(name, &topic).await;
    }
    let expected = Oracle::of_topic(&topic).orders();
    assert_same("PostgreSQL", &expected, &postgres_rows(&target, ORDERS).await);
    assert_same("Elasticsearch", &expected, &elasticsearch_rows(&target, ORDERS).await);
    daemon.stop().await;
    setup.clean().await;
}

/// An event of a project: its name is a header, its id the record's key.
fn project(id: u32, event: &str, value: &Value) -> Raw {
    let headers = vec![("event-type".to_owned(), event.to_owned())];
    let key = Some(id.to_string().into_bytes());
    Raw { partition: 0, key, value: Some(value.to_string().into_bytes()), headers }
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_are_created_renamed_and_deleted() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, target) = (example(&setup, "projects").await, setup.name("projects"));
    kafka::create(&topic, 1).await;
    let created = |id, owner: &str| {
        let value = json!({ "name": format!("P{id}"), "description": "first", "owner": owner });
        project(id, "ProjectCreated", &value)
    };
    let mut events = vec![created(7, "ann"), created(8, "bob"), created(9, "ann")];
    // The load demo: a thousand PATCHes to one project.
    events.extend(
        (0..1_000).map(|n| project(7, "ProjectRenamed", &json!({ "name": format!("Name {n}") }))),
    );
    events.push(project(7, "ProjectRenamed", &json!({ "description": null })));
    events.push(project(8, "ProjectDeleted", &json!({})));
    events.push(project(8, "ProjectRenamed", &json!({ "name": "too late" })));
    events.push(created(9, "eve"));
    kafka::produce_raw(&topic, &events);
    let daemon = setup.start().await;
    for name in ["projects", "project-docs"] {
        daemon.caught_up(name, &topic).await;
        let scrape = daemon.idle(name, 1).await;
        scrape.assert_balanced(name);
        assert_eq!(
            scrape.of(name, "events_filtered_total"),
            2,
            "the late rename, the second create"
        );
    }
    let row = |row: &[&str]| row.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
    let listed = format!(
        "select id, name, owner, renames, description is null from {target} where owner = 'ann' \
         order by name"
    );
    let ann = query(&listed).await;
    assert_eq!(
        ann,
        [row(&["7", "Name 999", "ann", "1001", "t"]), row(&["9", "P9", "ann", "0", "f"])]
    );
    assert_eq!(query(&format!("select id from {target} where id = 8")).await.len(), 0);
    let one = document(&target, "7").await;
    assert_eq!((&one["name"], &one["renames"]), (&json!("Name 999"), &json!(1_001)), "{one}");
    assert_eq!(one["description"], Value::Null);
    assert_eq!(document(&target, "8").await, Value::Null);
    // The mapping's own words: text to search in, with a part that sorts.
    assert_eq!(search(&target, "name", "999").await, ["7"]);
    assert_eq!(search(&target, "name.raw", "Name 999").await, ["7"]);
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_found_by_their_new_email_only_and_go_with_their_tombstone() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, alias) = (example(&setup, "profiles").await, setup.name("profiles"));
    kafka::create(&topic, 3).await;
    let put = |partition, uid: &str, email: &str| {
        let value = json!({ "username": uid, "email": email }).to_string();
        Raw::value(partition, uid, value)
    };
    kafka::produce_raw(&topic, &[put(0, "bob", "bob@mail.com"), put(1, "ann", "ann@mail.com")]);
    let daemon = setup.start().await;
    daemon.caught_up("profiles", &topic).await;
    assert_eq!(search(&alias, "email", "bob@mail.com").await, ["bob"]);
    assert_eq!(document(&alias, "bob").await["username"], "bob", "fetched by its uid");
    kafka::produce_raw(&topic, &[put(0, "bob", "bob1@mail.com")]);
    wait::until("the new email is found", wait::SOON, async || {
        match search(&alias, "email", "bob1@mail.com").await.as_slice() {
            [uid] if uid == "bob" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(search(&alias, "email", "bob@mail.com").await, [""; 0], "the old one finds nothing");
    kafka::produce_raw(
        &topic,
        &[Raw { partition: 0, key: Some(b"bob".to_vec()), ..Raw::default() }],
    );
    daemon.caught_up("profiles", &topic).await;
    assert_eq!(document(&alias, "bob").await, Value::Null, "a tombstone deletes");
    assert_eq!(search(&alias, "email", "bob1@mail.com").await, [""; 0]);
    assert_eq!(search(&alias, "email", "ann@mail.com").await, ["ann"]);
    daemon.stop().await;
    setup.clean().await;
}
