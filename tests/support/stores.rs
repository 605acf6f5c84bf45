//! The three stores, read back into one comparable form.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::oracle::Rows;
use super::registry::Registry;
use super::{servers, wait};

/// What a column's texts are brought to before they are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Decimal,
    /// To milliseconds since the epoch.
    Time,
    /// Lists and objects, to JSON with its keys in order.
    Json,
}

/// Columns in order; the first is the key.
pub(crate) type Columns = &'static [(&'static str, Kind)];

/// Of the orders' read model.
pub(crate) const ORDERS: Columns = &[
    ("id", Kind::Plain),
    ("user_id", Kind::Plain),
    ("product_id", Kind::Plain),
    ("amount", Kind::Plain),
    ("price", Kind::Decimal),
    ("changes", Kind::Plain),
    ("updated_at", Kind::Time),
];
/// Of the counters for each user.
pub(crate) const USERS: Columns =
    &[("user_id", Kind::Plain), ("events", Kind::Plain), ("spent", Kind::Plain)];

impl Kind {
    pub(crate) fn canonical(self, text: String) -> String {
        match self {
            Kind::Plain => text,
            Kind::Decimal => decimal(&text),
            Kind::Json => sorted(serde_json::from_str(&text).unwrap()).to_string(),
            Kind::Time => text.parse::<i64>().map(|_| text.clone()).unwrap_or_else(|_| {
                let time: jiff::Timestamp =
                    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
                time.as_millisecond().to_string()
            }),
        }
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, sorted(value)));
            fields.collect::<BTreeMap<_, _>>().into_iter().collect()
        }
        other => other,
    }
}

/// A decimal without the zeros that say nothing.
pub(crate) fn decimal(text: &str) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}

fn add(rows: &mut Rows, columns: Columns, values: Vec<Option<String>>) {
    let values: Vec<Option<String>> = values
        .into_iter()
        .zip(columns)
        .map(|(value, (_, kind))| value.map(|v| kind.canonical(v)))
        .collect();
    let key = values[0].clone().expect("a key is never null");
    let before = rows.insert(key.clone(), values);
    assert!(before.is_none(), "{key} is there twice");
}

/// A connection of its own.
pub(crate) async fn postgres() -> tokio_postgres::Client {
    postgres_at(&servers::postgres()).await
}

pub(crate) async fn postgres_at(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("set timezone = 'UTC'").await.unwrap();
    client
}

/// Runs a query; its rows as texts.
pub(crate) async fn query(sql: &str) -> Vec<Vec<Option<String>>> {
    query_at(&servers::postgres(), sql).await
}

async fn query_at(url: &str, sql: &str) -> Vec<Vec<Option<String>>> {
    query_with(&postgres_at(url).await, sql).await
}

/// The same over this connection.
pub(crate) async fn query_with(
    client: &tokio_postgres::Client,
    sql: &str,
) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let row = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect())
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// The states of a topic as a reader of committed records sees them: the last value of each key, which lies in one partition.
fn last_states(topic: &str) -> BTreeMap<String, Vec<u8>> {
    let mut states = BTreeMap::new();
    for record in super::kafka::read_back(topic) {
        let key = String::from_utf8(record.key.expect("a state has a key")).unwrap();
        match record.value {
            Some(value) => states.insert(key, value),
            None => states.remove(&key),
        };
    }
    states
}

/// The rows of a state topic in JSON.
pub(crate) fn topic_rows(topic: &str, columns: Columns) -> Rows {
    rows_of(last_states(topic), columns)
}

/// The rows of a state topic in Avro, as Confluent's own deserializer reads them.
pub(crate) fn avro_topic_rows(registry: &Registry, topic: &str, columns: Columns) -> Rows {
    let states = last_states(topic);
    let texts = registry.decode(states.values());
    let texts = texts.into_iter().map(String::into_bytes);
    rows_of(states.keys().cloned().zip(texts).collect(), columns)
}

fn rows_of(states: BTreeMap<String, Vec<u8>>, columns: Columns) -> Rows {
    let mut rows = Rows::new();
    for (key, state) in states {
        let state: BTreeMap<String, Box<serde_json::value::RawValue>> =
            serde_json::from_slice(&state).unwrap();
        assert_eq!(state.len(), columns.len(), "{key}: {state:?}");
        let value = |(name, _): &(&str, Kind)| {
            let text = state[*name].get();
            let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            (text != "null").then(|| inner.unwrap_or(text).to_owned())
        };
        let values: Vec<Option<String>> = columns.iter().map(value).collect();
        assert_eq!(values[0].as_deref(), Some(&*key), "the record's key is the state's");
        add(&mut rows, columns, values);
    }
    rows
}

/// All rows of a table in PostgreSQL.
pub(crate) async fn postgres_rows(table: &str, columns: Columns) -> Rows {
    postgres_rows_at(&servers::postgres(), table, columns).await
}

/// The same in another database.
pub(crate) async fn postgres_rows_at(url: &str, table: &str, columns: Columns) -> Rows {
    let text = |(name, kind): &(&str, Kind)| match kind {
        Kind::Json => format!("to_jsonb({name})"),
        _ => (*name).to_owned(),
    };
    let names: Vec<String> = columns.iter().map(text).collect();
    let mut rows = Rows::new();
    for row in query_at(url, &format!("select {} from {table}", names.join(", "))).await {
        add(&mut rows, columns, row);
    }
    rows
}

/// Each row's transaction and place: equal only where nobody wrote the row in between.
pub(crate) async fn postgres_versions(table: &str) -> Vec<Vec<Option<String>>> {
    query(&format!("select id, xmin, ctid from {table} order by id")).await
}

/// One request to Elasticsearch; a body makes it JSON.
pub(crate) async fn elasticsearch(method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let url = format!("{}/{path}", servers::elasticsearch());
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = crate::support::http(wait::SOON).request(method, &url);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

fn texts(columns: Columns, row: &Value) -> Vec<Option<String>> {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    columns.iter().map(|(name, _)| text(&row[name])).collect()
}

/// A row that is a JSON object, in the form of [`Rows`].
pub(crate) fn canonical_row(columns: Columns, row: &Value) -> Vec<Option<String>> {
    let values = texts(columns, row).into_iter().zip(columns);
    values.map(|(value, (_, kind))| value.map(|v| kind.canonical(v))).collect()
}

/// All documents behind an alias; each one's id must be its key.
pub(crate) async fn elasticsearch_rows(alias: &str, columns: Columns) -> Rows {
    let (status, answer) = elasticsearch("POST", &format!("{alias}/_refresh"), None).await;
    assert_eq!(status, 200, "{alias}: {answer}");
    let first = json!({ "size": 10_000, "query": { "match_all": {} }, "sort": ["_doc"] });
    let (status, mut page) =
        elasticsearch("POST", &format!("{alias}/_search?scroll=1m"), Some(first)).await;
    assert_eq!(status, 200, "{alias}: {page}");
    let mut rows = Rows::new();
    loop {
        let hits = page["hits"]["hits"].as_array().unwrap_or_else(|| panic!("{alias}: {page}"));
        if hits.is_empty() {
            break;
        }
        for hit in hits {
            let values = texts(columns, &hit["_source"]);
            assert_eq!(hit["_id"].as_str(), values[0].as_deref(), "the document's id is its key");
            add(&mut rows, columns, values);
        }
        let next = json!({ "scroll": "1m", "scroll_id": page["_scroll_id"] });
        page = elasticsearch("POST", "_search/scroll", Some(next)).await.1;
    }
    let done = json!({ "scroll_id": page["_scroll_id"] });
    elasticsearch("DELETE", "_search/scroll", Some(done)).await;
    rows
}

/// All rows of a table in SQLite.
pub(crate) fn sqlite_rows(file: &Path, table: &str, columns: Columns) -> Rows {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(file, flags).unwrap();
    let names: Vec<String> =
        columns.iter().map(|(name, _)| format!("cast({name} as text)")).collect();
    let mut statement =
        database.prepare(&format!("select {} from {table}", names.join(", "))).unwrap();
    let mut found = statement.query([]).unwrap();
    let mut rows = Rows::new();
    while let Some(row) = found.next().unwrap() {
        let values = (0..columns.len()).map(|index| row.get::<_, Option<String>>(index).unwrap());
        add(&mut rows, columns, values.collect());
    }
    rows
}

/// Removes every table, index and topic whose name holds `id`.
pub(crate) async fn remove_all(id: &str) {
    let tables = format!(
        "select format('%I.%I', schemaname, tablename) from pg_tables where tablename like '%{id}%'"
    );
    for row in query(&tables).await {
        query(&format!("drop table {}", row[0].as_deref().unwrap_or_default())).await;
    }
    let (_, indexes) = elasticsearch("GET", "_cat/indices?format=json&h=index", None).await;
    for index in indexes.as_array().into_iter().flatten() {
        let name = index["index"].as_str().unwrap_or_default();
        if name.contains(id) {
            elasticsearch("DELETE", name, None).await;
        }
    }
    let topics = super::kafka::topics();
    let ours: Vec<String> = topics.into_iter().filter(|topic| topic.contains(id)).collect();
    super::kafka::delete(&ours).await;
}
