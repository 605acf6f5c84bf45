//! The stores: empty before each run, asked whether all has arrived, and compared with the plain fold.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures_util::SinkExt;
use rusqlite::OpenFlags;
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::report::Sample;
use crate::workload::{Expected, Row, TABLE};
use crate::{Result, required};

const DATABASE: &str = "foldline_bench";
/// Documents of one raw `_bulk`.
const BULK: usize = 5_000;

/// Where a run writes.
pub(crate) enum Store {
    Postgres { client: Client },
    Elasticsearch { http: reqwest::Client, url: String, index: String },
    Sqlite { path: PathBuf, connection: Option<rusqlite::Connection> },
}

/// The URL of the database that the runs have for themselves.
pub(crate) fn database_url() -> Result<String> {
    let url = required("DATABASE_URL")?;
    let (server, _) = url.rsplit_once('/').ok_or("DATABASE_URL names no database")?;
    Ok(format!("{server}/{DATABASE}"))
}

/// A connection.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

impl Store {
    /// An empty database of our own.
    pub(crate) async fn postgres() -> Result<Self> {
        let admin = connect(&required("DATABASE_URL")?).await?;
        let drop = format!("drop database if exists {DATABASE} with (force)");
        admin.batch_execute(&drop).await?;
        admin.batch_execute(&format!("create database {DATABASE}")).await?;
        // What earlier runs left to write must not be written during this one.
        admin.batch_execute("checkpoint").await?;
        Ok(Store::Postgres { client: connect(&database_url()?).await? })
    }

    /// An index that is not there yet.
    pub(crate) fn elasticsearch(index: &str) -> Result<Self> {
        let url = required("ELASTICSEARCH")?;
        Ok(Store::Elasticsearch { http: reqwest::Client::new(), url, index: index.to_owned() })
    }

    /// A database file that is not there yet.
    pub(crate) fn sqlite(path: PathBuf) -> Self {
        Store::Sqlite { path, connection: None }
    }

    /// Whether these rows have so many changes.
    pub(crate) async fn has(&mut self, last: &[(i64, i64)]) -> Result<bool> {
        match self {
            Store::Postgres { client } => {
                let pairs: Vec<String> = last.iter().map(|(id, n)| format!("({id},{n})")).collect();
                let pairs = pairs.join(",");
                let sql =
                    format!("select count(*) from orders where (id, changes) in (values {pairs})");
                let found = query(client, &sql).await?;
                let count = found.first().and_then(|row| row.first().cloned().flatten());
                Ok(count.is_some_and(|count| count == last.len().to_string()))
            }
            Store::Elasticsearch { http, url, index } => {
                let ids: Vec<String> = last.iter().map(|(id, _)| id.to_string()).collect();
                let url = format!("{url}/{index}/_mget");
                let answer = http.post(url).json(&json!({ "ids": ids })).send().await?;
                let answer: Value = answer.json().await?;
                let changes = |at: usize| answer["docs"][at]["_source"]["changes"].as_i64();
                Ok(last.iter().enumerate().all(|(at, (_, n))| changes(at) == Some(*n)))
            }
            Store::Sqlite { path, connection } => {
                if connection.is_none() && path.exists() {
                    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
                    *connection = rusqlite::Connection::open_with_flags(&*path, flags).ok();
                }
                let Some(open) = connection else { return Ok(false) };
                let sql = "select changes from orders where id = ?";
                let changes = |id: i64| open.query_row(sql, [id], |row| row.get::<_, i64>(0)).ok();
                Ok(last.iter().all(|(id, n)| changes(*id) == Some(*n)))
            }
        }
    }

    /// Whether there is any row.
    pub(crate) async fn has_any(&mut self) -> bool {
        match self {
            Store::Postgres { client } => {
                let found = query(client, "select 1 from orders limit 1").await;
                found.is_ok_and(|rows| !rows.is_empty())
            }
            // A search sees nothing before a refresh, and asking for the books costs as much as a document.
            Store::Elasticsearch { .. } | Store::Sqlite { .. } => true,
        }
    }

    /// What the rows are read from: another one after a swap.
    pub(crate) async fn live(&mut self) -> Result<String> {
        match self {
            Store::Postgres { client } => {
                let found = query(client, "select 'orders'::regclass::oid").await?;
                let oid = found.first().and_then(|row| row.first().cloned().flatten());
                oid.ok_or_else(|| "there is no table".into())
            }
            Store::Elasticsearch { http, url, index } => {
                let found = http.get(format!("{url}/_alias/{index}")).send().await?;
                let found: Value = found.error_for_status()?.json().await?;
                let names = found.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
                Ok(names.collect())
            }
            Store::Sqlite { .. } => Err("a SQLite file has no rows beside others here".into()),
        }
    }

    /// Whether the rows are those of the plain fold, all of them and no other.
    pub(crate) async fn is_right(&mut self, expected: &Expected) -> Result<bool> {
        let rows: HashMap<i64, Row> = match self {
            Store::Postgres { client } => {
                let sql = "select id, user_id, product_id, amount, (price * 100)::bigint, changes from orders";
                query(client, sql).await?.iter().map(|row| read_row(row)).collect()
            }
            Store::Elasticsearch { http, url, index } => {
                let docs = documents(http, url, index).await?;
                docs.iter().map(|(_, doc)| read_document(doc)).collect()
            }
            Store::Sqlite { path, .. } => read_sqlite(path)?,
        };
        Ok(rows == expected.rows)
    }
}

async fn query(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
    let messages = client.simple_query(sql).await?;
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    };
    Ok(messages.iter().filter_map(row).collect())
}

fn read_row(row: &[Option<String>]) -> (i64, Row) {
    let int = |at: usize| row.get(at).and_then(|text| text.as_deref()?.parse::<i64>().ok());
    let found = Row {
        user_id: int(1),
        product_id: int(2),
        amount: int(3),
        price: int(4),
        changes: int(5).unwrap_or_default(),
    };
    (int(0).unwrap_or_default(), found)
}

fn read_document(doc: &Value) -> (i64, Row) {
    let int = |name: &str| doc[name].as_i64();
    // A decimal is a text or a number; cents are compared.
    let price = match &doc["price"] {
        Value::String(text) => text.parse::<f64>().ok(),
        other => other.as_f64(),
    };
    let found = Row {
        user_id: int("user_id"),
        product_id: int("product_id"),
        amount: int("amount"),
        price: price.map(|price| (price * 100.0).round() as i64),
        changes: int("changes").unwrap_or_default(),
    };
    (int("id").unwrap_or_default(), found)
}

fn read_sqlite(path: &Path) -> Result<HashMap<i64, Row>> {
    let connection = rusqlite::Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "select id, user_id, product_id, amount, cast(round(price * 100) as integer), changes from orders";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let found = Row {
            user_id: row.get(1)?,
            product_id: row.get(2)?,
            amount: row.get(3)?,
            price: row.get(4)?,
            changes: row.get(5)?,
        };
        Ok((row.get(0)?, found))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// All documents of an index or alias, with their ids.
async fn documents(http: &reqwest::Client, url: &str, index: &str) -> Result<Vec<(String, Value)>> {
    http.post(format!("{url}/{index}/_refresh")).send().await?.error_for_status()?;
    let open = json!({ "size": 10_000, "sort": ["_doc"] });
    let first = http.post(format!("{url}/{index}/_search?scroll=1m")).json(&open);
    let mut page: Value = first.send().await?.error_for_status()?.json().await?;
    let mut all = Vec::new();
    while let Some(hits) = page["hits"]["hits"].as_array().filter(|hits| !hits.is_empty()) {
        for hit in hits {
            all.push((hit["_id"].as_str().unwrap_or_default().to_owned(), hit["_source"].clone()));
        }
        let next = json!({ "scroll": "1m", "scroll_id": page["_scroll_id"] });
        let next = http.post(format!("{url}/_search/scroll")).json(&next);
        page = next.send().await?.error_for_status()?.json().await?;
    }
    Ok(all)
}

/// Removes an alias's indexes, and all others that begin with its name.
pub(crate) async fn drop_indexes(name: &str) -> Result<()> {
    let (http, url) = (reqwest::Client::new(), required("ELASTICSEARCH")?);
    let list = http.get(format!("{url}/_cat/indices/{name}*?format=json&h=index"));
    let list: Value = list.send().await?.json().await?;
    for index in list.as_array().into_iter().flatten() {
        let index = index["index"].as_str().unwrap_or_default();
        http.delete(format!("{url}/{index}")).send().await?;
    }
    Ok(())
}

/// Writes the documents of `from` once more, as they are, into an index with the same mapping: what the store alone needs.
pub(crate) async fn raw_bulk(from: &str) -> Result<Sample> {
    let (http, url) = (reqwest::Client::new(), required("ELASTICSEARCH")?);
    let docs = documents(&http, &url, from).await?;
    let raw = format!("{from}-raw");
    let mapping: Value = http.get(format!("{url}/{from}/_mapping")).send().await?.json().await?;
    let mapping = mapping.as_object().and_then(|indexes| indexes.values().next());
    let mappings = mapping.map(|index| index["mappings"].clone()).unwrap_or_default();
    let settings = json!({ "number_of_shards": 1, "number_of_replicas": 0 });
    let body = json!({ "mappings": mappings, "settings": settings });
    http.put(format!("{url}/{raw}")).json(&body).send().await?.error_for_status()?;
    let bodies: Vec<String> = docs
        .chunks(BULK)
        .map(|chunk| {
            let line = |(id, doc): &(String, Value)| {
                format!("{{\"index\":{{\"_id\":{}}}}}\n{doc}\n", Value::from(id.as_str()))
            };
            chunk.iter().map(line).collect()
        })
        .collect();
    let began = Instant::now();
    let mut right = true;
    for body in bodies {
        let post = http.post(format!("{url}/{raw}/_bulk"));
        let post = post.header("content-type", "application/x-ndjson").body(body);
        let answer: Value = post.send().await?.error_for_status()?.json().await?;
        right &= answer["errors"] == json!(false);
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Sample { events: docs.len() as u64, seconds, right, ..Sample::default() })
}

/// Writes the final rows with COPY into an empty table with the same key: what the store alone needs.
pub(crate) async fn copy(expected: &Expected) -> Result<Sample> {
    let mut store = Store::postgres().await?;
    let Store::Postgres { client } = &mut store else { return Err("no PostgreSQL".into()) };
    client.batch_execute(TABLE).await?;
    let text = |value: Option<i64>| value.map_or("\\N".to_owned(), |value| value.to_string());
    let mut ids: Vec<&i64> = expected.rows.keys().collect();
    ids.sort_unstable();
    let mut lines = String::new();
    for id in ids {
        let Some(row) = expected.rows.get(id) else { continue };
        let price = row.price.map(|cents| format!("{}.{:02}", cents / 100, cents % 100));
        lines.push_str(&format!(
            "{id}\t{}\t{}\t{}\t{}\t{}\t2026-01-01\n",
            text(row.user_id),
            text(row.product_id),
            text(row.amount),
            price.as_deref().unwrap_or("\\N"),
            row.changes
        ));
    }
    let began = Instant::now();
    let sink = client.copy_in::<_, std::io::Cursor<String>>("copy orders from stdin").await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(std::io::Cursor::new(lines)).await?;
    let events = sink.finish().await?;
    let seconds = began.elapsed().as_secs_f64();
    let right = store.is_right(expected).await?;
    Ok(Sample { events, seconds, right, ..Sample::default() })
}
