//! One test's own names, and what the tests share.

use std::sync::Arc;

use foldline_api::column::{Children, ColumnType};
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{
    Advance, Beginning, Flush, Mark, OnChange, RowWrite, Target, TargetSpec, Version, Versions,
    Writer, Written,
};
use foldline_api::value::Value;
use foldline_sink_elasticsearch::{ElasticsearchConfig, ElasticsearchTarget};
use serde_json::{Value as Json, json};

pub(crate) fn url() -> String {
    std::env::var("ELASTICSEARCH")
        .expect("set ELASTICSEARCH to the address of a cluster, as http://localhost:9200")
}

/// One test's own names, and requests beside the sink's.
pub(crate) struct Bench {
    pub(crate) name: String,
    http: reqwest::Client,
}

impl Bench {
    pub(crate) fn new(what: &str) -> Self {
        let suffix: u64 = rand::random();
        Bench { name: format!("test-{what}-{suffix:x}"), http: reqwest::Client::new() }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Json>) -> (u16, Json) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", url()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("Elasticsearch answers");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    pub(crate) async fn search(&self) -> u64 {
        self.call("POST", &format!("/{}/_refresh", self.name), None).await;
        let (_, found) = self.call("GET", &format!("/{}/_count", self.name), None).await;
        found["count"].as_u64().unwrap_or_else(|| panic!("{found}"))
    }

    pub(crate) fn target(&self, spec: &TargetSpec) -> ElasticsearchTarget {
        let config = ElasticsearchConfig { urls: vec![url()], ..ElasticsearchConfig::default() };
        ElasticsearchTarget::new(&config, spec.clone()).unwrap()
    }

    pub(crate) fn spec(&self, columns: &[(&str, &str)]) -> TargetSpec {
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

    /// Deletes the indexes whose names start with `prefix`.
    pub(crate) async fn drop_indexes(&self, prefix: &str) {
        let path = format!("/{prefix}*?expand_wildcards=all&allow_no_indices=true");
        let (_, indexes) = self.call("GET", &path, None).await;
        for index in indexes.as_object().into_iter().flat_map(|indexes| indexes.keys()) {
            self.call("DELETE", &format!("/{index}"), None).await;
        }
    }

    /// Removes what the test made: its indexes and its records in the books.
    pub(crate) async fn clean(self) {
        self.drop_indexes(&self.name).await;
        self.call("POST", "/foldline-books/_refresh", None).await;
        let query = json!({ "size": 10_000, "query": { "prefix": { "target": self.name } } });
        let (_, found) = self.call("POST", "/foldline-books/_search", Some(query)).await;
        for hit in found["hits"]["hits"].as_array().into_iter().flatten() {
            let path = format!("/foldline-books/_doc/{}", hit["_id"].as_str().unwrap());
            self.call("DELETE", &path, None).await;
        }
    }
}

pub(crate) fn column_type(ty: &str) -> ColumnType {
    if ty != "children" {
        return ColumnType::parse(ty).unwrap();
    }
    let fields = vec![
        (Arc::from("line"), ColumnType::Integer),
        (Arc::from("price"), ColumnType::Numeric(None)),
    ];
    ColumnType::Children(Arc::new(Children { by: "line".to_owned(), fields }))
}

pub(crate) const SMALL: [(&str, &str); 2] = [("id", "bigint"), ("n", "bigint")];

pub(crate) fn partition() -> TopicPartition {
    TopicPartition::new("events", 0)
}

pub(crate) fn beginning(position: i64) -> Beginning {
    Beginning {
        partition: partition(),
        topic_id: Some("life-1".to_owned()),
        position: Position(position),
    }
}

pub(crate) fn key(id: i64) -> Key {
    Key::new(vec![Value::Int(id)])
}

pub(crate) fn write(id: i64, n: Option<i64>, version: Version, mark: i64) -> RowWrite {
    RowWrite {
        key: key(id),
        row: n.map(|n| Row::new(vec![Value::Int(id), Value::Int(n)])),
        version,
        marks: std::iter::once(Mark { partition: partition(), position: Position(mark) }).collect(),
    }
}

pub(crate) fn flush(epoch: i64, from: i64, to: i64, writes: Vec<RowWrite>) -> Flush {
    let advance = Advance { partition: partition(), epoch, from: Position(from), to: Position(to) };
    Flush { advances: vec![advance], writes, ..Flush::default() }
}

pub(crate) fn durable(written: Written) -> Vec<Version> {
    match written {
        Written::Durable(Versions::Each(versions)) => versions,
        other => panic!("not durable: {other:?}"),
    }
}

/// An open target, its partition begun at 0 and held by one writer.
pub(crate) async fn opened(
    bench: &Bench,
    spec: &TargetSpec,
) -> (ElasticsearchTarget, Arc<dyn Writer>) {
    let target = bench.target(spec);
    let opened = target.open().await.unwrap();
    target.begin(opened.generation, &[beginning(0)]).await.unwrap();
    let writer = target.writer(opened.generation).await.unwrap();
    let acquired = writer.acquire(&[beginning(0)]).await.unwrap();
    assert!(acquired.empty);
    assert_eq!((acquired.leases[0].epoch, acquired.leases[0].position), (1, Position(0)));
    (target, writer)
}
