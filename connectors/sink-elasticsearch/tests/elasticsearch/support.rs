//! One test's own names, and what the tests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub(crate) fn url() -> String {
    std::env::var("ELASTICSEARCH")
        .expect("set ELASTICSEARCH to the address of a cluster, as http://localhost:9200")
}

/// One test's own names, and requests beside the sink's.
pub(crate) struct Bench {
    pub(crate) name: String,
    http: reqwest::Client,
}

pub(crate) fn config() -> ElasticsearchConfig {
    ElasticsearchConfig { urls: vec![url()], ..ElasticsearchConfig::default() }
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
        ElasticsearchTarget::new(&config(), spec.clone()).unwrap()
    }

    /// The same behind a relay that answers to no bulk of more than `items_max` items: it loses the first, does the
    /// next and says nothing, and so on.
    pub(crate) async fn target_of_few(
        &self,
        spec: &TargetSpec,
        items_max: usize,
        request_timeout: Duration,
    ) -> ElasticsearchTarget {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = ElasticsearchConfig {
            urls: vec![format!("http://{}", listener.local_addr().unwrap())],
            request_timeout: Some(request_timeout),
            ..ElasticsearchConfig::default()
        };
        let http = self.http.clone();
        tokio::spawn(async move {
            let done = Arc::new(AtomicBool::new(false));
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(relay(socket, http.clone(), items_max, Arc::clone(&done), None));
            }
        });
        ElasticsearchTarget::new(&config, spec.clone()).unwrap()
    }

    /// The same behind a relay with a gate.
    pub(crate) async fn target_behind(
        &self,
        spec: &TargetSpec,
        gate: &Gate,
    ) -> ElasticsearchTarget {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = ElasticsearchConfig {
            urls: vec![format!("http://{}", listener.local_addr().unwrap())],
            ..ElasticsearchConfig::default()
        };
        let (http, gate) = (self.http.clone(), gate.clone());
        tokio::spawn(async move {
            let done = Arc::new(AtomicBool::new(false));
            while let Ok((socket, _)) = listener.accept().await {
                let (http, done) = (http.clone(), Arc::clone(&done));
                tokio::spawn(relay(socket, http, usize::MAX, done, Some(gate.clone())));
            }
        });
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
            joins: None,
            on_change: OnChange::Refuse,
            auto_create: true,
            mapping: None,
            settings: None,
            expire: None,
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

    /// Puts copies in the place of the indexes whose names start with `prefix`: other indexes, by their UUIDs. By a
    /// snapshot, where the cluster has a place for one (`path.repo`), else by clones.
    pub(crate) async fn copy_indexes(&self, prefix: &str) {
        let path = format!("/{prefix}*?expand_wildcards=all&flat_settings=true");
        let (_, indexes) = self.call("GET", &path, None).await;
        let query = "/_nodes/settings?flat_settings=true&filter_path=**.path*";
        let (_, nodes) = self.call("GET", query, None).await;
        if nodes.to_string().contains("\"path.repo\"") {
            self.restore_indexes(prefix).await;
        } else {
            for (index, made) in indexes.as_object().unwrap() {
                self.clone_index(index, made).await;
            }
        }
        let (_, copies) = self.call("GET", &path, None).await;
        for (index, made) in indexes.as_object().unwrap() {
            let uuid = |of: &Json| of["settings"]["index.uuid"].clone();
            assert_ne!(uuid(&copies[index]), uuid(made), "{index} is the same");
        }
    }

    async fn restore_indexes(&self, prefix: &str) {
        let repository = format!("/_snapshot/{prefix}");
        let body = json!({ "type": "fs", "settings": { "location": prefix } });
        // A cluster on a busy machine gives up after half a minute, else.
        let patient = format!("{repository}?master_timeout=5m&timeout=5m");
        let (status, answer) = self.call("PUT", &patient, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        let body = json!({ "indices": format!("{prefix}*"), "include_global_state": false });
        let path = format!("{repository}/one?wait_for_completion=true&master_timeout=5m");
        let (status, answer) = self.call("PUT", &path, Some(body.clone())).await;
        assert_eq!((status, &answer["snapshot"]["state"]), (200, &json!("SUCCESS")), "{answer}");
        self.drop_indexes(prefix).await;
        let path = format!("{repository}/one/_restore?wait_for_completion=true&master_timeout=5m");
        let (status, answer) = self.call("POST", &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        self.call("DELETE", &format!("{repository}/one"), None).await;
        self.call("DELETE", &repository, None).await;
    }

    async fn clone_index(&self, index: &str, made: &Json) {
        let copy = format!("{index}-copy");
        for (from, to) in [(index, copy.as_str()), (copy.as_str(), index)] {
            self.call("PUT", &format!("/{from}/_block/write"), None).await;
            let path = format!("/{from}/_clone/{to}?wait_for_active_shards=1");
            let (status, answer) = self.call("PUT", &path, None).await;
            assert_eq!(status, 200, "{answer}");
            self.call("DELETE", &format!("/{from}"), None).await;
        }
        let blocked = made["settings"].get("index.blocks.write").cloned().unwrap_or_default();
        let body = json!({ "index.blocks.write": blocked });
        self.call("PUT", &format!("/{index}/_settings"), Some(body)).await;
        for (alias, options) in made["aliases"].as_object().unwrap() {
            let path = format!("/{index}/_alias/{alias}");
            self.call("PUT", &path, Some(options.clone())).await;
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

/// Where bulks to one place wait until they may go on.
#[derive(Clone)]
pub(crate) struct Gate(Arc<(String, Semaphore, Semaphore)>);

impl Gate {
    /// For bulks whose path holds `of`.
    pub(crate) fn new(of: &str) -> Self {
        Gate(Arc::new((of.to_owned(), Semaphore::new(0), Semaphore::new(0))))
    }

    /// Once one waits.
    pub(crate) async fn reached(&self) {
        self.0.1.acquire().await.unwrap().forget();
    }

    /// Lets all go on, those to come too.
    pub(crate) fn open(&self) {
        self.0.2.add_permits(1_000);
    }

    async fn pass(&self, path: &str) {
        if path.contains(&self.0.0) {
            self.0.1.add_permits(1);
            self.0.2.acquire().await.unwrap().forget();
        }
    }
}

/// Passes one request on, and its answer back.
async fn relay(
    mut socket: TcpStream,
    http: reqwest::Client,
    items_max: usize,
    done: Arc<AtomicBool>,
    gate: Option<Gate>,
) {
    let mut request = Vec::new();
    let (head, body) = loop {
        let text = String::from_utf8(request.clone()).unwrap_or_default();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        }
        if !socket.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
            return;
        }
    };
    let [method, path] = [0, 1].map(|at| head.split(' ').nth(at).unwrap());
    let bulk = path.contains("/_bulk");
    if let Some(gate) = gate.filter(|_| bulk) {
        gate.pass(path).await;
    }
    let silent = bulk && body.lines().count() > items_max.saturating_mul(2);
    if !silent || done.fetch_not(Ordering::Relaxed) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let kind = if bulk { "application/x-ndjson" } else { "application/json" };
        let request = http.request(method, format!("{}{path}", url())).body(body);
        let response = request.header("content-type", kind).send().await.unwrap();
        let (status, answer) = (response.status().as_u16(), response.bytes().await.unwrap());
        if !silent {
            let length = answer.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            );
            // Whoever asked may have gone away.
            let _ = socket.write_all(&[head.as_bytes(), &answer].concat()).await;
            return;
        }
    }
    let _ = socket.read_to_end(&mut Vec::new()).await;
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
