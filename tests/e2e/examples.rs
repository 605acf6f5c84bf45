//! `config/examples/`, each end to end as it stands: its topics and targets get the test's own names.

use foldline_api::failpoint;
use serde_json::{Value, json};
use toml::Table;

use crate::support::kafka::{self, Raw};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::registry::{Registry, Schema};
use crate::support::servers::repository;
use crate::support::setup::Setup;
use crate::support::stores::{
    Columns, Kind, ORDERS, avro_topic_rows, elasticsearch, elasticsearch_rows, postgres_rows,
    query, topic_rows,
};
use crate::support::use_servers;
use crate::support::wait;

const PROFILES: Columns =
    &[("uid", Kind::Plain), ("username", Kind::Plain), ("email", Kind::Plain)];

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
        let (key, target) = match kind.as_str() {
            Some("elasticsearch") => ("index", target.clone()),
            // The other cluster is the same one here, so its topic has another name.
            Some("kafka") => ("topic", setup.name("copied")),
            _ => ("table", target.clone()),
        };
        connector.insert(key.to_owned(), target.into());
        if !stems().await {
            unstemmed(connector);
        }
    }
    if let Some(topics) = config["sources"]["events"].get_mut("topics") {
        rename(topics, name, &topic);
    }
    for (_, sink) in config["sinks"].as_table_mut().unwrap() {
        if let Some(topics) = sink.get_mut("topics") {
            rename(topics, name, &setup.name("copied"));
            let servers = crate::support::servers::kafka();
            sink.as_table_mut().unwrap().insert("bootstrap_servers".to_owned(), servers.into());
        }
    }
    std::fs::write(setup.path("config/example.toml"), toml::to_string(&config).unwrap()).unwrap();
    topic
}

/// What a topic has of its own goes by its name.
fn rename(topics: &mut toml::Value, from: &str, to: &str) {
    let topics = topics.as_table_mut().unwrap();
    let topic = topics.remove(from).unwrap();
    topics.insert(to.to_owned(), topic);
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

/// The example of users with the test's own names; its topics are those of two formats, and that of the states.
fn users(setup: &Setup) -> [String; 3] {
    let file = repository().join("config/examples/users/users.toml");
    let topic = setup.name("users");
    let states = format!("{topic}-state");
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.replace("user-events", &topic).replace("users-state", &states);
    let mut config: Table = text.parse().unwrap();
    config["worker"].as_table_mut().unwrap().insert("name".to_owned(), setup.id.clone().into());
    for (name, connector) in config["connectors"].as_table_mut().unwrap() {
        let connector = connector.as_table_mut().unwrap();
        if connector["sink"].as_str() == Some("warehouse") {
            connector.insert("table".to_owned(), setup.name(name).into());
        }
    }
    std::fs::write(setup.path("config/example.toml"), toml::to_string(&config).unwrap()).unwrap();
    [topic.clone(), format!("{topic}-avro"), states]
}

/// Of the users' read model.
const USERS: Columns = &[
    ("user_id", Kind::Plain),
    ("email", Kind::Plain),
    ("name", Kind::Plain),
    ("status", Kind::Plain),
    ("created_at", Kind::Time),
    ("updated_at", Kind::Time),
];

const EMAIL_CHANGED: &str = r#"{"type":"record","name":"UserEmailChanged","fields":[
    {"name":"userId","type":"string"},{"name":"email","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

fn user_id(nth: i32) -> String {
    format!("6f1c8a52-94a8-4c1d-9d3e-{nth:012}")
}

/// A user as it is in the end: the first 200 changed their email, the others are gone.
fn user(nth: i32) -> Vec<Option<String>> {
    let millis = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond().to_string();
    let (email, status, at) = match nth {
        0..200 => ("new.com", "active", (CHANGED_AT + i64::from(nth)).to_string()),
        _ => ("mail.com", "inactive", millis("2026-03-03T08:00:00Z")),
    };
    let email = format!("{nth}@{email}");
    let since = millis("2026-03-01T10:15:00Z");
    let wanted = [user_id(nth), email, format!("N{nth}"), status.to_owned(), since, at];
    wanted.map(Some).to_vec()
}

/// Of the first change, in milliseconds.
const CHANGED_AT: i64 = 1_772_500_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn users_of_both_topics_are_a_table_and_a_topic_of_states_while_workers_die() {
    let _servers = use_servers().await;
    let (setup, registry) = (Setup::new(), Registry::start());
    let [plain, avro, states] = users(&setup);
    let environment = ("SCHEMA_REGISTRY", registry.url());
    let first = setup.spawn_with(&[environment]);
    first.answers().await;
    for name in ["users", "users-snapshots"] {
        first.idle(name, 12).await;
    }
    let id = user_id;
    let in_json = |nth: i32, event: Value| Raw::value(nth % 6, &id(nth), event.to_string());
    let created = (0..250).map(|nth| {
        in_json(
            nth,
            json!({ "type": "UserCreated", "userId": id(nth), "email": format!("{nth}@mail.com"),
            "name": format!("N{nth}"), "at": "2026-03-01T10:15:00.000001Z" }),
        )
    });
    kafka::produce_raw(&plain, &created.collect::<Vec<_>>());
    for name in ["users", "users-snapshots"] {
        first.caught_up(name, &plain).await;
    }
    // Users of before on both topics, most of them on the other one and in other partitions, with a worker that dies in a flush.
    let mut dies = setup.spawn_with(&[environment, (failpoint::VARIABLE, "before_positions:1")]);
    wait::until("two workers share the users", wait::LATER, async || {
        match first.metrics().await.of("users", "assigned_partitions") {
            6 => Ok(()),
            held => Err(format!("{held} partitions")),
        }
    })
    .await;
    let text = EMAIL_CHANGED.to_owned();
    let schema = Schema { subject: "changes", text, references: Vec::new() };
    let changed = |nth: i32| json!({ "userId": id(nth), "email": format!("{nth}@new.com"), "at": CHANGED_AT + i64::from(nth) });
    let values: Vec<_> = (0..200).map(|nth| (0, changed(nth))).collect();
    let encoded = registry.encode(&[schema], &values).values;
    let records = (0..200).zip(encoded);
    let records = records.map(|(nth, value)| Raw::value((nth + 1) % 6, &id(nth), value));
    kafka::produce_raw(&avro, &records.collect::<Vec<_>>());
    let gone = (200..250).map(|nth| {
        in_json(
            nth,
            json!({ "type": "UserDeactivated", "userId": id(nth), "at": "2026-03-03T08:00:00Z" }),
        )
    });
    kafka::produce_raw(&plain, &gone.collect::<Vec<_>>());
    wait::until("the other worker dies", wait::LATER, async || {
        dies.ended().map(drop).ok_or("it lives".to_owned())
    })
    .await;
    // And the one that writes the states is killed.
    first.kill9();
    let last = setup.spawn_with(&[environment]);
    last.answers().await;
    for name in ["users", "users-snapshots"] {
        for topic in [&plain, &avro] {
            last.caught_up(name, topic).await;
        }
    }
    let rows = postgres_rows(&setup.name("users"), USERS).await;
    assert_eq!(rows, (0..250).map(|nth| (user_id(nth), user(nth))).collect());
    assert_same("the states", &rows, &avro_topic_rows(&registry, &states, USERS));
    let printed = last.cli(&["verify", "users-snapshots"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.out.contains("0 differ"), "{printed:?}");
    last.stop().await;
    setup.clean().await;
}

const USER_CREATED: &str = r#"{"type":"record","name":"UserCreated","fields":[
    {"name":"userId","type":"string"},{"name":"email","type":"string"},{"name":"name","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn users_sign_up_in_json_and_in_avro_and_are_counted_by_the_hour_for_400_days() {
    const HOUR: i64 = 3_600_000;
    let _servers = use_servers().await;
    let (setup, registry) = (Setup::new(), Registry::start());
    let [plain, avro, _] = users(&setup);
    let daemon = setup.spawn_with(&[("SCHEMA_REGISTRY", registry.url())]);
    daemon.answers().await;
    // The worker makes the topics.
    for name in ["users", "signups"] {
        daemon.idle(name, 12).await;
    }
    let hour = jiff::Timestamp::now().as_millisecond() / HOUR * HOUR - 24 * HOUR;
    let id = |nth: i64| format!("6f1c8a52-94a8-4c1d-9d3e-{nth:012}");
    let created = |nth: i64, at: i64| json!({ "userId": id(nth), "email": format!("{nth}@mail.com"), "name": "N", "at": at });
    let mut events = Vec::new();
    // Each hour of a day has as many as its number, and some are older than 400 days.
    for nth in (0..300).filter(|nth| nth / 24 <= nth % 24) {
        events.push((nth, hour + nth % 24 * HOUR + nth));
    }
    events.extend((300..310).map(|nth| (nth, hour - 401 * 24 * HOUR + (nth - 300) * HOUR)));
    let (odd, even): (Vec<_>, Vec<_>) = events.iter().partition(|(nth, _)| nth % 2 == 1);
    let partition = |nth: i64| i32::try_from(nth % 6).unwrap();
    let json = even.iter().map(|(nth, at)| {
        let mut event = created(*nth, *at);
        event["type"] = json!("UserCreated");
        event["at"] = json!(jiff::Timestamp::from_millisecond(*at).unwrap().to_string());
        Raw::value(partition(*nth), &id(*nth), event.to_string())
    });
    kafka::produce_raw(&plain, &json.collect::<Vec<_>>());
    let text = USER_CREATED.to_owned();
    let schema = Schema { subject: "users-value", text, references: Vec::new() };
    let values: Vec<_> = odd.iter().map(|(nth, at)| (0, created(*nth, *at))).collect();
    let encoded = registry.encode(&[schema], &values).values;
    let records = odd.iter().zip(encoded);
    let records = records.map(|((nth, _), value)| Raw::value(partition(*nth), &id(*nth), value));
    kafka::produce_raw(&avro, &records.collect::<Vec<_>>());
    for (name, topic) in [("users", &plain), ("users", &avro), ("signups", &plain)] {
        daemon.caught_up(name, topic).await;
    }
    daemon.caught_up("signups", &avro).await;
    let mut counts = std::collections::BTreeMap::<i64, u64>::new();
    for (nth, at) in &events {
        if *nth < 300 {
            *counts.entry(at / HOUR * HOUR / 1_000).or_default() += 1;
        }
    }
    let counted = format!(
        "select extract(epoch from hour)::bigint, signups from {} order by 1",
        setup.name("signups")
    );
    let expected: Vec<Vec<Option<String>>> = counts
        .iter()
        .map(|(hour, count)| vec![Some(hour.to_string()), Some(count.to_string())])
        .collect();
    assert_eq!(query(&counted).await, expected);
    let rows = query(&format!("select count(*) from {}", setup.name("users"))).await;
    assert_eq!(rows[0][0], Some(events.len().to_string()), "users do not expire");
    let filtered = daemon.metrics().await.of("signups", "events_filtered_total");
    assert_eq!(filtered, 10, "late by more than 400 days");
    let printed = daemon.cli(&["rebuild", "signups", "--wait"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert_eq!(query(&counted).await, expected);
    let printed = daemon.cli(&["verify", "signups"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_found_by_their_new_email_only_and_go_with_their_tombstone() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, alias) = (example(&setup, "profiles").await, setup.name("profiles"));
    kafka::create(&topic, 6).await;
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
    daemon.caught_up("profiles-copy", &topic).await;
    let copied: Vec<_> = topic_rows(&setup.name("copied"), PROFILES).into_values().collect();
    let ann = ["ann", "ann", "ann@mail.com"].map(|text| Some(text.to_owned()));
    assert_eq!(copied, [ann.to_vec()], "bob's tombstone is copied too");
    daemon.stop().await;
    setup.clean().await;
}
