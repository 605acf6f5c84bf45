//! The sink against a real cluster: `ELASTICSEARCH` is its address.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy takes the helpers of an integration test for production code"
)]

use std::sync::Arc;
use std::time::Duration;

use foldline_api::ErrorClass;
use foldline_api::column::{Children, ColumnType};
use foldline_api::json;
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{
    Advance, Beginning, Check, DesiredState, Flush, Mark, OnChange, RowWrite, StoredVerdict,
    Target, TargetSpec, Version, Versions, Writer, Written,
};
use foldline_api::value::Value;
use foldline_sink_elasticsearch::{ElasticsearchConfig, ElasticsearchTarget, plan};
use serde_json::{Value as Json, json};

fn url() -> String {
    std::env::var("ELASTICSEARCH")
        .expect("set ELASTICSEARCH to the address of a cluster, as http://localhost:9200")
}

/// One test's own names, and requests beside the sink's.
struct Bench {
    name: String,
    http: reqwest::Client,
}

impl Bench {
    fn new(what: &str) -> Self {
        let suffix: u64 = rand::random();
        Bench { name: format!("test-{what}-{suffix:x}"), http: reqwest::Client::new() }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Json>) -> (u16, Json) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", url()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("Elasticsearch answers");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    async fn search(&self) -> u64 {
        self.call("POST", &format!("/{}/_refresh", self.name), None).await;
        let (_, found) = self.call("GET", &format!("/{}/_count", self.name), None).await;
        found["count"].as_u64().unwrap_or_else(|| panic!("{found}"))
    }

    fn target(&self, spec: &TargetSpec) -> ElasticsearchTarget {
        let config = ElasticsearchConfig { urls: vec![url()], ..ElasticsearchConfig::default() };
        ElasticsearchTarget::new(&config, spec.clone()).unwrap()
    }

    fn spec(&self, columns: &[(&str, &str)]) -> TargetSpec {
        let columns: Vec<Column> = columns
            .iter()
            .map(|(name, ty)| Column {
                name: Arc::from(*name),
                ty: column_type(ty),
                index: false,
                default: Value::Null,
            })
            .collect();
        let list: Vec<Json> =
            columns.iter().map(|c| json!({ "name": &*c.name, "type": c.ty.to_string() })).collect();
        TargetSpec {
            worker: "w".to_owned(),
            connector: "c".to_owned(),
            group: "w-c".to_owned(),
            log: "log".to_owned(),
            target: self.name.clone(),
            fingerprint: format!("{list:?}"),
            projection: json!({ "columns": list, "key": [{ "name": "id" }] }),
            model: Arc::new(Model { columns, key: vec![0], indexes: vec![] }),
            on_change: OnChange::Refuse,
            auto_create: true,
            mapping: None,
            settings: None,
        }
    }

    /// Removes what the test made: its indexes and its records in the books.
    async fn clean(self) {
        let (_, indexes) = self
            .call(
                "GET",
                &format!("/{0}-g*,{0}?ignore_unavailable=true&expand_wildcards=all", self.name),
                None,
            )
            .await;
        for index in indexes.as_object().map(|all| all.keys().cloned().collect()).unwrap_or(vec![])
        {
            self.call("DELETE", &format!("/{index}"), None).await;
        }
        self.call("POST", "/foldline-books/_refresh", None).await;
        let query = json!({ "size": 1000, "query": { "term": { "target": self.name } } });
        let (_, found) = self.call("POST", "/foldline-books/_search", Some(query)).await;
        for hit in found["hits"]["hits"].as_array().into_iter().flatten() {
            let path = format!("/foldline-books/_doc/{}", hit["_id"].as_str().unwrap());
            self.call("DELETE", &path, None).await;
        }
    }
}

fn column_type(ty: &str) -> ColumnType {
    if ty != "children" {
        return ColumnType::parse(ty).unwrap();
    }
    let fields = vec![
        (Arc::from("line"), ColumnType::Integer),
        (Arc::from("price"), ColumnType::Numeric(None)),
    ];
    ColumnType::Children(Arc::new(Children { by: "line".to_owned(), fields }))
}

const SMALL: [(&str, &str); 2] = [("id", "bigint"), ("n", "bigint")];

fn partition() -> TopicPartition {
    TopicPartition::new("events", 0)
}

fn beginning(position: i64) -> Beginning {
    Beginning {
        partition: partition(),
        topic_id: Some("life-1".to_owned()),
        position: Position(position),
    }
}

fn key(id: i64) -> Key {
    Key::new(vec![Value::Int(id)])
}

fn write(id: i64, n: Option<i64>, version: Version, mark: i64) -> RowWrite {
    RowWrite {
        key: key(id),
        row: n.map(|n| Row::new(vec![Value::Int(id), Value::Int(n)])),
        version,
        marks: std::iter::once(Mark { partition: partition(), position: Position(mark) }).collect(),
    }
}

fn flush(epoch: i64, from: i64, to: i64, writes: Vec<RowWrite>) -> Flush {
    let advance = Advance { partition: partition(), epoch, from: Position(from), to: Position(to) };
    Flush { advances: vec![advance], writes, ..Flush::default() }
}

fn durable(written: Written) -> Vec<Version> {
    match written {
        Written::Durable(Versions::Each(versions)) => versions,
        other => panic!("not durable: {other:?}"),
    }
}

/// An open target, its partition begun at 0 and held by one writer.
async fn opened(bench: &Bench, spec: &TargetSpec) -> (ElasticsearchTarget, Arc<dyn Writer>) {
    let target = bench.target(spec);
    let opened = target.open().await.unwrap();
    target.begin(opened.generation, &[beginning(0)]).await.unwrap();
    let writer = target.writer(opened.generation).await.unwrap();
    let acquired = writer.acquire(&[beginning(0)]).await.unwrap();
    assert!(acquired.empty);
    assert_eq!((acquired.leases[0].epoch, acquired.leases[0].position), (1, Position(0)));
    (target, writer)
}

#[tokio::test]
async fn every_type_reads_back_to_the_digit() {
    let bench = Bench::new("types");
    let values = [
        ("id", "bigint", "9223372036854775807"),
        ("i", "integer", "-2147483648"),
        ("s", "smallint", "-32768"),
        ("d", "double precision", "0.1"),
        ("r", "real", "0.1"),
        ("e", "numeric", "123456789012345678901234567890.123456789012345678901234567891"),
        ("p", "numeric(12,2)", "7.10"),
        ("huge", "numeric", "1e400"),
        ("b", "boolean", "true"),
        ("t", "text", "\"a \\\"quoted\\\" \\n ü 😀\""),
        ("v", "varchar(5)", "\"äöü\""),
        ("at", "timestamptz", "\"2026-01-02T03:04:05.123456Z\""),
        ("far", "timestamptz", "\"9999-12-30T00:00:00.999999Z\""),
        ("old", "timestamptz", "\"0001-01-01T00:00:00Z\""),
        ("day", "date", "\"2026-01-02\""),
        ("first", "date", "\"0001-01-01\""),
        ("last", "date", "\"9999-12-31\""),
        ("clock", "time", "\"10:11:12.5\""),
        ("u", "uuid", "\"6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01\""),
        ("raw", "bytea", "\"AP8QgA==\""),
        ("j", "jsonb", "{\"a\":[1.50,{\"b\":9223372036854775808}],\"c\":null}"),
        ("scalar", "jsonb", "5"),
        ("tags", "text[]", "[\"x\",null,\"y\"]"),
        ("prices", "numeric[]", "[1.10,12345678901234567890.5]"),
        ("lines", "children", "[{\"line\":2,\"price\":1.10},{\"line\":1,\"price\":null}]"),
        ("nothing", "text", "null"),
    ];
    let spec = bench.spec(&values.map(|(name, ty, _)| (name, ty)));
    let (_, writer) = opened(&bench, &spec).await;
    let row: Vec<Value> = spec
        .model
        .columns
        .iter()
        .zip(values)
        .map(|(column, (.., text))| {
            column.ty.coerce(json::parse(text.as_bytes()).unwrap()).unwrap()
        })
        .collect();
    let row = Row::new(row);
    let long = Row::new(
        row.values()
            .iter()
            .enumerate()
            .map(|(at, value)| match at {
                0 => Value::Int(1),
                9 => Value::text(&"ü".repeat(50_000)),
                _ => value.clone(),
            })
            .collect(),
    );
    let writes = vec![
        RowWrite { row: Some(long.clone()), ..write(1, None, Version::Absent, 1) },
        RowWrite { row: Some(row.clone()), ..write(i64::MAX, None, Version::Absent, 2) },
    ];
    let versions = durable(writer.write(&flush(1, 0, 2, writes)).await.unwrap());
    let loaded = writer.load(&[key(i64::MAX), key(2), key(1)]).await.unwrap();
    assert_eq!(loaded[0].row.as_ref(), Some(&row));
    assert_eq!(loaded[0].version, versions[1]);
    assert_eq!(loaded[0].marks[0].position, Position(2));
    assert_eq!((&loaded[1].row, loaded[1].version), (&None, Version::Absent));
    assert_eq!(loaded[2].row.as_ref(), Some(&long));
    assert_eq!(bench.search().await, 2);
    bench.clean().await;
}

#[tokio::test]
async fn composite_and_long_keys_are_documents_of_their_own() {
    let bench = Bench::new("keys");
    let mut spec = bench.spec(&[("id", "text"), ("n", "bigint")]);
    let (_, writer) = opened(&bench, &spec).await;
    let keys = ["x".repeat(2_000), "y".repeat(512), String::new(), "a/b ?#\"%:ü".to_owned()];
    let keys: Vec<Key> = keys.iter().map(|k| Key::new(vec![Value::text(k)])).collect();
    let writes = keys.iter().zip(1..).map(|(key, n)| RowWrite {
        key: key.clone(),
        row: Some(Row::new(vec![key.values()[0].clone(), Value::Int(n)])),
        ..write(0, None, Version::Absent, 4)
    });
    durable(writer.write(&flush(1, 0, 4, writes.collect())).await.unwrap());
    for (loaded, (key, n)) in writer.load(&keys).await.unwrap().iter().zip(keys.iter().zip(1..)) {
        let row = Row::new(vec![key.values()[0].clone(), Value::Int(n)]);
        assert_eq!(loaded.row.as_ref(), Some(&row));
    }
    spec.target = "Not An Index".to_owned();
    assert_eq!(bench.target(&spec).open().await.unwrap_err().class(), ErrorClass::Config);
    bench.clean().await;
}

#[tokio::test]
async fn workers_that_open_at_once_end_with_one_index() {
    let bench = Bench::new("race");
    let spec = bench.spec(&SMALL);
    let targets: Vec<_> = (0..6).map(|_| bench.target(&spec)).collect();
    let opened = futures_util::future::join_all(targets.iter().map(|target| target.open())).await;
    for opened in opened {
        assert_eq!(opened.unwrap().generation, 1);
    }
    let (_, indexes) = bench.call("GET", &format!("/{}", bench.name), None).await;
    assert_eq!(
        indexes.as_object().unwrap().keys().collect::<Vec<_>>(),
        [&format!("{}-g1", bench.name)]
    );

    let generations =
        futures_util::future::join_all(targets.iter().map(|t| t.rebuild(1, None))).await;
    for generation in generations {
        assert_eq!(generation.unwrap(), 2);
    }
    let (_, indexes) =
        bench.call("GET", &format!("/{}-g*?expand_wildcards=all", bench.name), None).await;
    assert_eq!(
        indexes.as_object().unwrap().keys().collect::<Vec<_>>(),
        [&format!("{}-g2", bench.name)]
    );
    bench.clean().await;
}

#[tokio::test]
async fn an_index_where_the_alias_must_go_is_a_config_error() {
    let bench = Bench::new("taken");
    bench.call("PUT", &format!("/{}", bench.name), Some(json!({}))).await;
    let error = bench.target(&bench.spec(&SMALL)).open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(error.message().contains("alias of that name must go"), "{error}");
    bench.clean().await;

    let bench = Bench::new("alias");
    let body = json!({ "aliases": { bench.name.as_str(): {} } });
    let other = format!("/other-{}", bench.name);
    bench.call("PUT", &other, Some(body)).await;
    let error = bench.target(&bench.spec(&SMALL)).open().await.unwrap_err();
    assert!(error.message().contains("not Foldline's"), "{error}");
    bench.call("DELETE", &other, None).await;
    bench.clean().await;
}

#[tokio::test]
async fn only_its_own_connector_opens_a_target() {
    let bench = Bench::new("owner");
    let mut spec = bench.spec(&SMALL);
    let (target, _) = opened(&bench, &spec).await;
    target.set_desired(DesiredState::Paused).await.unwrap();
    let again = bench.target(&spec).open().await.unwrap();
    assert_eq!(again.desired, DesiredState::Paused);
    assert!(again.notices.is_empty());
    let stored = &again.positions[0];
    assert_eq!((stored.beginning, stored.epoch), (Position(0), 1));
    assert_eq!(stored.topic_id.as_deref(), Some("life-1"));

    spec.connector = "renamed".to_owned();
    let error = bench.target(&spec).open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(error.message().contains("belongs to connector \"c\""), "{error}");
    assert_eq!(bench.target(&spec).rebuild(1, None).await.unwrap_err().class(), ErrorClass::Config);
    bench.clean().await;
}

#[tokio::test]
async fn an_index_with_documents_of_others_is_refused_and_an_empty_one_taken() {
    let bench = Bench::new("adopt");
    let mut spec = bench.spec(&SMALL);
    let index = format!("/{}-g1", bench.name);
    bench.call("PUT", &index, Some(json!({}))).await;
    bench.call("PUT", &format!("{index}/_doc/1"), Some(json!({ "n": 1 }))).await;
    let error = bench.target(&spec).open().await.unwrap_err();
    assert!(error.message().contains("already has rows"), "{error}");
    bench.call("DELETE", &index, None).await;

    spec.auto_create = false;
    let error = bench.target(&spec).open().await.unwrap_err();
    assert!(error.message().contains("does not exist"), "{error}");
    bench.call("PUT", &index, Some(json!({}))).await;
    let (_, writer) = opened(&bench, &spec).await;
    durable(
        writer.write(&flush(1, 0, 1, vec![write(1, Some(1), Version::Absent, 1)])).await.unwrap(),
    );
    assert_eq!(bench.search().await, 1);
    bench.clean().await;
}

#[tokio::test]
async fn a_dropped_index_voids_its_positions() {
    let bench = Bench::new("dropped");
    let spec = bench.spec(&SMALL);
    let (target, writer) = opened(&bench, &spec).await;
    durable(
        writer.write(&flush(1, 0, 5, vec![write(1, Some(1), Version::Absent, 5)])).await.unwrap(),
    );
    let index = format!("/{}-g1", bench.name);
    bench.call("DELETE", &index, None).await;
    let late = writer.write(&flush(1, 5, 6, vec![write(2, Some(1), Version::Absent, 6)])).await;
    assert!(matches!(late, Ok(Written::Fenced)), "{late:?}");
    assert_eq!(bench.call("GET", &index, None).await.0, 404, "a late write made the index anew");
    assert_eq!(writer.load(&[key(1)]).await.unwrap_err().class(), ErrorClass::Fenced);
    assert_eq!(writer.acquire(&[beginning(0)]).await.unwrap_err().class(), ErrorClass::Fenced);

    let again = target.open().await.unwrap();
    assert_eq!((again.generation, again.positions[0].position), (2, Position(0)));
    assert!(again.notices[0].contains("dropped"), "{:?}", again.notices);
    bench.clean().await;
}

#[tokio::test]
async fn an_index_that_was_replaced_is_not_the_one_that_was_filled() {
    let bench = Bench::new("replaced");
    let spec = bench.spec(&SMALL);
    let (target, writer) = opened(&bench, &spec).await;
    let one = flush(1, 0, 5, vec![write(1, Some(1), Version::Absent, 5)]);
    durable(writer.write(&one).await.unwrap());
    let index = format!("/{}-g1", bench.name);
    bench.call("DELETE", &index, None).await;
    bench.call("PUT", &format!("{index}/_doc/1"), Some(json!({ "n": 1 }))).await;
    let error = target.open().await.unwrap_err();
    assert!(error.message().contains("replaced by another"), "{error}");
    bench.call("DELETE", &format!("{index}/_doc/1"), None).await;

    let again = target.open().await.unwrap();
    assert_eq!((again.generation, again.positions[0].position), (2, Position(0)));
    assert_eq!(bench.call("GET", &index, None).await.0, 404);
    bench.clean().await;
}

#[tokio::test]
async fn a_stale_write_conflicts_and_moves_no_position() {
    let bench = Bench::new("stale");
    let (_, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    let first = vec![write(1, Some(1), Version::Absent, 1), write(2, Some(1), Version::Absent, 2)];
    let versions = durable(writer.write(&flush(1, 0, 2, first)).await.unwrap());

    // A create where a document stands, and a write at an old version; the others of the flush land.
    let create = vec![write(1, Some(9), Version::Absent, 3), write(3, Some(3), Version::Absent, 3)];
    assert!(matches!(
        writer.write(&flush(1, 2, 3, create)).await.unwrap(),
        Written::Conflict { .. }
    ));
    let second = vec![write(2, Some(2), versions[1], 3)];
    let newer = durable(writer.write(&flush(1, 2, 3, second.clone())).await.unwrap());
    assert!(matches!(
        writer.write(&flush(1, 3, 4, second)).await.unwrap(),
        Written::Conflict { .. }
    ));

    let loaded = writer.load(&[key(1), key(2), key(3)]).await.unwrap();
    assert_eq!(loaded[0].row.as_ref().unwrap().get(1), &Value::Int(1));
    assert_eq!(loaded[1].version, newer[0]);
    // The mark tells the replay that this event is in already.
    assert_eq!(loaded[2].marks[0].position, Position(3));
    assert_eq!(writer.positions(&[partition()]).await.unwrap()[0].position, Position(3));

    // A decision on a row that changed meanwhile, and on one that was thought absent.
    for (id, version) in [(2, versions[1]), (1, Version::Absent)] {
        let mut looked = flush(1, 3, 4, vec![]);
        looked.checks.push(Check { key: key(id), version });
        assert!(matches!(writer.write(&looked).await.unwrap(), Written::Conflict { .. }));
    }
    let mut looked = flush(1, 3, 4, vec![]);
    looked.checks = vec![
        Check { key: key(2), version: newer[0] },
        Check { key: key(77), version: Version::Absent },
    ];
    durable(writer.write(&looked).await.unwrap());
    bench.clean().await;
}

#[tokio::test]
async fn a_delete_stands_against_a_late_create() {
    let bench = Bench::new("delete");
    let (target, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    let first = vec![write(1, Some(1), Version::Absent, 1)];
    let versions = durable(writer.write(&flush(1, 0, 1, first)).await.unwrap());
    // Key 2 was created and deleted within one batch: a writer that only knows the create must fail.
    let deletes = vec![write(1, None, versions[0], 2), write(2, None, Version::Absent, 4)];
    let tombstones = durable(writer.write(&flush(1, 1, 4, deletes)).await.unwrap());
    assert_eq!(bench.search().await, 0);
    let loaded = writer.load(&[key(1), key(2)]).await.unwrap();
    for (loaded, (version, mark)) in loaded.iter().zip([(tombstones[0], 2), (tombstones[1], 4)]) {
        assert_eq!((&loaded.row, loaded.version), (&None, version));
        assert_eq!(loaded.marks[0].position, Position(mark));
    }
    for id in [1, 2] {
        let late = flush(1, 4, 5, vec![write(id, Some(1), Version::Absent, 3)]);
        assert!(matches!(writer.write(&late).await.unwrap(), Written::Conflict { .. }));
    }
    // Over its tombstone a row comes back.
    let back = vec![write(2, Some(7), tombstones[1], 5)];
    durable(writer.write(&flush(1, 4, 5, back)).await.unwrap());
    assert_eq!(bench.search().await, 1);

    assert_eq!(target.purge_tombstones(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(target.purge_tombstones(Duration::ZERO).await.unwrap(), 1);
    let loaded = writer.load(&[key(1), key(2)]).await.unwrap();
    assert_eq!(loaded[0].version, Version::Absent);
    assert!(loaded[1].row.is_some());
    bench.clean().await;
}

#[tokio::test]
async fn a_tombstone_that_its_position_has_not_passed_is_not_purged() {
    let bench = Bench::new("keep");
    let (target, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    // As after a crash between documents and position: the marker is ahead.
    durable(writer.write(&flush(1, 0, 1, vec![write(1, None, Version::Absent, 9)])).await.unwrap());
    assert_eq!(bench.search().await, 0);
    assert_eq!(target.purge_tombstones(Duration::ZERO).await.unwrap(), 0);
    bench.clean().await;
}

#[tokio::test]
async fn a_higher_epoch_fences() {
    let bench = Bench::new("fence");
    let (target, zombie) = opened(&bench, &bench.spec(&SMALL)).await;
    let owner = target.writer(1).await.unwrap();
    let lease = owner.acquire(&[beginning(3)]).await.unwrap().leases.remove(0);
    assert_eq!((lease.epoch, lease.position), (2, Position(0)));
    let versions = durable(
        owner.write(&flush(2, 0, 2, vec![write(1, Some(1), Version::Absent, 2)])).await.unwrap(),
    );

    // What the zombie writes carries its marks; its position does not move.
    let late = flush(1, 0, 1, vec![write(2, Some(1), Version::Absent, 1)]);
    assert!(matches!(zombie.write(&late).await.unwrap(), Written::Fenced));
    let stored = owner.positions(&[partition()]).await.unwrap().remove(0);
    assert_eq!((stored.position, stored.epoch), (Position(2), 2));
    // It learns that it is fenced, and does not go on under the new epoch by accident.
    assert_eq!(zombie.positions(&[partition()]).await.unwrap()[0].epoch, 2);
    for epoch in [1, 2] {
        let late = flush(epoch, 2, 3, vec![]);
        assert!(matches!(zombie.write(&late).await.unwrap(), Written::Fenced));
    }
    // A wrong place is refused before anything is written.
    let wrong = flush(2, 1, 3, vec![write(5, Some(1), Version::Absent, 3)]);
    assert!(matches!(owner.write(&wrong).await.unwrap(), Written::Fenced));
    assert_eq!(owner.load(&[key(5)]).await.unwrap()[0].version, Version::Absent);
    durable(owner.write(&flush(2, 2, 3, vec![write(1, Some(2), versions[0], 3)])).await.unwrap());
    bench.clean().await;
}

#[tokio::test]
async fn two_tasks_that_take_a_partition_at_once_get_two_epochs() {
    let bench = Bench::new("epochs");
    let (target, _) = opened(&bench, &bench.spec(&SMALL)).await;
    let writers = [target.writer(1).await.unwrap(), target.writer(1).await.unwrap()];
    let claims =
        [beginning(0), Beginning { partition: TopicPartition::new("events", 1), ..beginning(4) }];
    let acquired =
        futures_util::future::join_all(writers.iter().map(|writer| writer.acquire(&claims))).await;
    for at in [0, 1] {
        let mut epochs: Vec<i64> =
            acquired.iter().map(|a| a.as_ref().unwrap().leases[at].epoch).collect();
        epochs.sort_unstable();
        assert_eq!(epochs, if at == 0 { [2, 3] } else { [1, 2] });
    }
    let status = target.status().await.unwrap();
    let second = status.positions.iter().find(|p| p.partition.partition == 1).unwrap();
    assert_eq!((second.beginning, second.position), (Position(4), Position(4)));
    bench.clean().await;
}

#[tokio::test]
async fn a_lost_reply_is_found_again() {
    let bench = Bench::new("reply");
    let (target, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    durable(
        writer.write(&flush(1, 0, 2, vec![write(1, Some(1), Version::Absent, 2)])).await.unwrap(),
    );
    // Another hand moved the document of the place without changing what it says, as a write does
    // whose reply was lost: the writer's version is stale, its epoch is not.
    let id = format!("position:{}:1:events:0", bench.name);
    let path = format!("/foldline-books/_doc/{id}");
    let (_, got) = bench.call("GET", &path, None).await;
    let mut moved = got["_source"].clone();
    moved["position"] = json!(3);
    bench.call("PUT", &path, Some(moved)).await;
    assert!(matches!(writer.write(&flush(1, 2, 3, vec![])).await.unwrap(), Written::Fenced));
    let stored = writer.positions(&[partition()]).await.unwrap().remove(0);
    assert_eq!((stored.position, stored.epoch), (Position(3), 1));
    durable(writer.write(&flush(1, 3, 4, vec![])).await.unwrap());
    assert_eq!(target.status().await.unwrap().positions[0].position, Position(4));
    bench.clean().await;
}

#[tokio::test]
async fn a_rebuild_moves_the_alias_and_leaves_nothing_to_zombies() {
    let bench = Bench::new("rebuild");
    let (target, zombie) = opened(&bench, &bench.spec(&SMALL)).await;
    durable(
        zombie.write(&flush(1, 0, 2, vec![write(1, Some(1), Version::Absent, 2)])).await.unwrap(),
    );
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2, "a rebuild asked for twice is one");
    let place =
        |generation| format!("/foldline-books/_doc/position:{}:{generation}:events:0", bench.name);
    assert_eq!(
        bench.call("GET", &place(1), None).await.0,
        404,
        "a generation takes its places along"
    );
    assert_eq!(bench.call("GET", &place(2), None).await.0, 200);
    assert_eq!(bench.search().await, 0);
    let (_, aliases) = bench.call("GET", &format!("/_alias/{}", bench.name), None).await;
    assert_eq!(
        aliases.as_object().unwrap().keys().collect::<Vec<_>>(),
        [&format!("{}-g2", bench.name)]
    );

    let late = zombie.write(&flush(1, 2, 3, vec![write(2, Some(1), Version::Absent, 3)])).await;
    assert!(matches!(late, Ok(Written::Fenced)), "{late:?}");
    let late = zombie.write(&flush(1, 2, 3, vec![])).await;
    assert!(matches!(late, Ok(Written::Fenced)), "{late:?}");
    assert_eq!(bench.call("GET", &format!("/{}-g1", bench.name), None).await.0, 404);
    assert_eq!(zombie.acquire(&[beginning(0)]).await.unwrap_err().class(), ErrorClass::Fenced);

    let status = target.status().await.unwrap();
    assert_eq!((status.generation, status.positions[0].position), (2, Position(0)));
    let beginnings = [beginning(7)];
    assert_eq!(target.rebuild(2, Some(&beginnings)).await.unwrap(), 3);
    let status = target.status().await.unwrap();
    assert_eq!(status.positions[0].beginning, Position(7));
    assert_eq!((status.positions[0].position, status.positions[0].epoch), (Position(7), 0));
    bench.clean().await;
}

#[tokio::test]
async fn a_rebuild_that_died_in_the_middle_is_finished_by_the_next_open() {
    let bench = Bench::new("resume");
    let spec = bench.spec(&SMALL);
    let (target, writer) = opened(&bench, &spec).await;
    durable(
        writer.write(&flush(1, 0, 2, vec![write(1, Some(1), Version::Absent, 2)])).await.unwrap(),
    );
    // The record as the rebuild's first step leaves it.
    let path = format!("/foldline-books/_doc/target:{}", bench.name);
    let (_, got) = bench.call("GET", &path, None).await;
    let mut doc = got["_source"].clone();
    doc["binding"]["generation"] = json!(2);
    doc["binding"]["physical"] = json!("");
    doc["build"] = json!("half");
    doc["ready"] = json!(false);
    doc["dropping"] = json!([1]);
    bench.call("PUT", &path, Some(doc)).await;
    // An empty leftover of another attempt stands in the way.
    let leftover = json!({ "mappings": { "_meta": { "foldline": { "build": "older" } } } });
    bench.call("PUT", &format!("/{}-g2", bench.name), Some(leftover)).await;
    assert_eq!(writer.acquire(&[beginning(0)]).await.unwrap_err().class(), ErrorClass::Fenced);

    let again = bench.target(&spec).open().await.unwrap();
    assert_eq!((again.generation, again.positions[0].position), (2, Position(0)));
    assert_eq!(bench.search().await, 0);
    assert_eq!(bench.call("GET", &format!("/{}-g1", bench.name), None).await.0, 404);
    let writer = target.writer(2).await.unwrap();
    writer.acquire(&[beginning(0)]).await.unwrap();
    durable(
        writer.write(&flush(1, 0, 2, vec![write(1, Some(1), Version::Absent, 2)])).await.unwrap(),
    );
    assert_eq!(bench.search().await, 1);
    bench.clean().await;
}

#[tokio::test]
async fn what_the_users_mapping_cannot_hold_is_rejected_and_named_without_its_value() {
    let bench = Bench::new("rejected");
    let mut spec = bench.spec(&[("id", "bigint"), ("n", "text")]);
    spec.mapping = Some(json!({ "properties": { "n": { "type": "ip" } } }));
    let (_, writer) = opened(&bench, &spec).await;
    let row = |id: i64, text: &str| RowWrite {
        row: Some(Row::new(vec![Value::Int(id), Value::text(text)])),
        ..write(id, None, Version::Absent, 1)
    };
    let bad = flush(1, 0, 1, vec![row(1, "10.0.0.1"), row(2, "canary")]);
    let Written::Rejected(error) = writer.write(&bad).await.unwrap() else {
        panic!("not rejected")
    };
    assert_eq!(error.class(), ErrorClass::Record);
    assert!(error.message().contains("[n]") && !error.message().contains("canary"), "{error}");
    assert_eq!(writer.positions(&[partition()]).await.unwrap()[0].position, Position(0));

    // Its verdict stands before the position has passed it, and is gone from the lease after.
    let verdict =
        StoredVerdict { partition: partition(), offset: 1, reason: error.message().to_owned() };
    let mut judged = flush(1, 0, 1, vec![]);
    judged.verdicts.push(verdict.clone());
    durable(writer.write(&judged).await.unwrap());
    assert_eq!(writer.acquire(&[beginning(0)]).await.unwrap().verdicts, [verdict]);
    durable(writer.write(&flush(2, 1, 2, vec![])).await.unwrap());
    assert!(writer.acquire(&[beginning(0)]).await.unwrap().verdicts.is_empty());
    bench.clean().await;
}

#[tokio::test]
async fn another_projection_is_refused_or_adds_its_columns() {
    let bench = Bench::new("change");
    let (_, old) = opened(&bench, &bench.spec(&SMALL)).await;
    let first = vec![write(1, Some(1), Version::Absent, 1)];
    let versions = durable(old.write(&flush(1, 0, 1, first)).await.unwrap());

    let mut spec = bench.spec(&[("id", "bigint"), ("n", "bigint"), ("name", "text")]);
    let error = bench.target(&spec).open().await.unwrap_err();
    assert!(error.message().contains("column name is new"), "{error}");

    spec.on_change = OnChange::Continue;
    let target = bench.target(&spec);
    let opened = target.open().await.unwrap();
    assert_eq!((opened.generation, opened.positions[0].position), (1, Position(1)));
    let (_, mapping) = bench.call("GET", &format!("/{}/_mapping", bench.name), None).await;
    let fields = &mapping[format!("{}-g1", bench.name)]["mappings"]["properties"];
    assert_eq!(fields["name"]["type"], "keyword");

    // The old model's writer can no longer reach the documents, which now have a column it lacks.
    let late = old.write(&flush(1, 1, 2, vec![write(1, Some(2), versions[0], 2)])).await;
    assert!(matches!(late, Ok(Written::Fenced)), "{late:?}");
    let writer = target.writer(1).await.unwrap();
    let epoch = writer.acquire(&[beginning(0)]).await.unwrap().leases[0].epoch;
    let loaded = writer.load(&[key(1)]).await.unwrap().remove(0);
    let row = Row::new(vec![Value::Int(1), Value::Int(1), Value::Null]);
    assert_eq!((loaded.row, loaded.version), (Some(row), versions[0]));
    let row = Row::new(vec![Value::Int(1), Value::Int(2), Value::text("ann")]);
    let next = RowWrite { row: Some(row), ..write(1, None, versions[0], 2) };
    durable(writer.write(&flush(epoch, 1, 2, vec![next])).await.unwrap());

    // The old projection does not come back, and a changed type is no new column.
    let mut back = bench.spec(&SMALL);
    back.on_change = OnChange::Rebuild;
    let error = bench.target(&back).open().await.unwrap_err();
    assert!(error.message().contains("superseded"), "{error}");
    let mut retyped = bench.spec(&[("id", "bigint"), ("n", "text"), ("name", "text")]);
    retyped.on_change = OnChange::Continue;
    assert!(bench.target(&retyped).open().await.is_err());
    retyped.on_change = OnChange::Rebuild;
    let target = bench.target(&retyped);
    let waiting = target.open().await.unwrap();
    assert!(waiting.generation == 1 && waiting.waits.is_some(), "what stands there serves on");
    assert_eq!(bench.search().await, 1);
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    assert_eq!(bench.search().await, 0);
    bench.clean().await;
}

#[tokio::test]
async fn an_index_template_that_would_change_documents_is_refused() {
    let bench = Bench::new("template");
    let template = format!("/_index_template/{}", bench.name);
    let body = json!({
        "index_patterns": [format!("{}-g*", bench.name)],
        "priority": 999,
        "template": { "settings": { "index.final_pipeline": "enrich" } },
    });
    let (status, answer) = bench.call("PUT", &template, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    let spec = bench.spec(&SMALL);
    let error = bench.target(&spec).open().await.unwrap_err();
    assert!(error.message().contains("final_pipeline"), "{error}");
    bench.call("DELETE", &template, None).await;
    // With the template gone the very same start works: nothing is left of the refused index.
    assert_eq!(bench.target(&spec).open().await.unwrap().generation, 1);
    let path = format!("/{}-g1/_settings", bench.name);
    bench.call("PUT", &path, Some(json!({ "index.translog.durability": "async" }))).await;
    let error = bench.target(&spec).open().await.unwrap_err();
    assert!(error.message().contains("durability"), "{error}");
    bench.clean().await;
}

#[tokio::test]
async fn a_write_block_of_an_operator_is_waited_for() {
    let bench = Bench::new("block");
    let (_, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    let path = format!("/{}-g1/_settings", bench.name);
    let one = flush(1, 0, 1, vec![write(1, Some(1), Version::Absent, 1)]);
    for block in ["index.blocks.write", "index.blocks.read_only_allow_delete"] {
        bench.call("PUT", &path, Some(json!({ block: true }))).await;
        assert_eq!(writer.write(&one).await.unwrap_err().class(), ErrorClass::Retriable, "{block}");
        bench.call("PUT", &path, Some(json!({ block: null }))).await;
    }
    durable(writer.write(&one).await.unwrap());
    bench.clean().await;
}

#[tokio::test]
async fn a_flush_of_many_documents_goes_in_several_requests() {
    let bench = Bench::new("many");
    let spec = bench.spec(&[("id", "bigint"), ("n", "text")]);
    let (_, writer) = opened(&bench, &spec).await;
    let padding = Value::text(&"x".repeat(2_000));
    let writes: Vec<RowWrite> = (0..12_000)
        .map(|id| RowWrite {
            row: Some(Row::new(vec![Value::Int(id), padding.clone()])),
            ..write(id, None, Version::Absent, 12_000)
        })
        .collect();
    let versions = durable(writer.write(&flush(1, 0, 12_000, writes)).await.unwrap());
    let keys: Vec<Key> = (0..12_000).map(key).collect();
    let loaded = writer.load(&keys).await.unwrap();
    assert_eq!(loaded.len(), keys.len());
    for (loaded, (version, key)) in loaded.iter().zip(versions.iter().zip(&keys)) {
        assert_eq!(loaded.version, *version);
        assert_eq!(loaded.row.as_ref().unwrap().get(0), &key.values()[0]);
    }
    bench.clean().await;
}

#[tokio::test]
async fn the_plans_index_is_one_that_elasticsearch_takes() {
    let bench = Bench::new("plan");
    let mut spec =
        bench.spec(&[("id", "bigint"), ("price", "numeric(12,2)"), ("lines", "children")]);
    spec.auto_create = false;
    let plan = plan(&spec);
    assert!(plan[3].contains("require_alias=true"), "{}", plan[3]);
    let (head, body) = plan[0].split_once('\n').unwrap();
    let path = head.strip_prefix("PUT ").unwrap();
    let (status, answer) = bench.call("PUT", path, Some(serde_json::from_str(body).unwrap())).await;
    assert_eq!(status, 200, "{answer}");
    let opened = bench.target(&spec).open().await.unwrap();
    assert!(opened.notices[0].contains("took the empty index"), "{:?}", opened.notices);
    bench.clean().await;
}
