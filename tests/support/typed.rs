//! The rows of each store as typed values, read without the sinks' own code.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use foldline_api::column::ColumnType;
use foldline_api::json;
use foldline_api::model::{Key, Model, Row};
use foldline_api::value::Value;
use serde_json::value::RawValue;

use super::{servers, stores};

/// Rows by key.
pub(crate) type Typed = BTreeMap<Key, Row>;

fn add(rows: &mut Typed, model: &Model, values: Vec<Value>) -> Key {
    let row = Row::new(values);
    let key = model.key_of(&row);
    let before = rows.insert(key.clone(), row);
    assert!(before.is_none(), "{key} is there twice");
    key
}

fn is_json(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Jsonb | ColumnType::Array(_) | ColumnType::Children(_))
}

/// A column's text as a value of its type.
fn typed(name: &str, ty: &ColumnType, text: Option<&str>) -> Value {
    let Some(text) = text else { return Value::Null };
    let value = match ty {
        _ if is_json(ty) => {
            json::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
        }
        _ => Value::text(text),
    };
    ty.from_json(value).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
}

/// All rows of a table in PostgreSQL.
pub(crate) async fn postgres(table: &str, model: &Model) -> Typed {
    let texts: Vec<String> = model
        .columns
        .iter()
        .map(|column| {
            // Quoted: a field may be named as a word of SQL.
            let name = format!("\"{}\"", column.name);
            match &column.ty {
                ColumnType::TimestampTz => format!(
                    "to_char({name} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
                ),
                ColumnType::Bytea => format!("replace(encode({name}, 'base64'), E'\\n', '')"),
                ColumnType::Array(_) => format!("to_jsonb({name})::text"),
                _ => format!("{name}::text"),
            }
        })
        .collect();
    let mut rows = Typed::new();
    for row in stores::query(&format!("select {} from {table}", texts.join(", "))).await {
        let values = model.columns.iter().zip(&row);
        let values = values.map(|(column, text)| typed(&column.name, &column.ty, text.as_deref()));
        add(&mut rows, model, values.collect());
    }
    rows
}

/// All documents behind an alias, fewer than 10,000.
pub(crate) async fn elasticsearch(alias: &str, model: &Model) -> Typed {
    #[derive(serde::Deserialize)]
    struct Hit<'a> {
        #[serde(rename = "_id")]
        id: String,
        #[serde(rename = "_source", borrow)]
        source: &'a RawValue,
    }
    #[derive(serde::Deserialize)]
    struct Hits<'a> {
        #[serde(borrow)]
        hits: Vec<Hit<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        hits: Hits<'a>,
    }
    let (status, answer) = stores::elasticsearch("POST", &format!("{alias}/_refresh"), None).await;
    assert_eq!(status, 200, "{alias}: {answer}");
    let url = format!("{}/{alias}/_search?size=10000", servers::elasticsearch());
    let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
    let answer: Answer<'_> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let mut rows = Typed::new();
    for hit in answer.hits.hits {
        let source = json::parse(hit.source.get().as_bytes()).unwrap();
        let Value::Map(fields) = source else { panic!("{}", hit.source) };
        let value = |column: &foldline_api::model::Column| {
            let found = fields.get(&column.name).cloned();
            let found = found.unwrap_or_else(|| panic!("no {} in {}", column.name, hit.source));
            column
                .ty
                .from_json(found)
                .unwrap_or_else(|e| panic!("{}: {e}: {}", column.name, hit.source))
        };
        let key = add(&mut rows, model, model.columns.iter().map(value).collect());
        let text = key.to_string();
        if (1..=512).contains(&text.len()) && !text.starts_with("sha256:") {
            assert_eq!(hit.id, text, "the document's id is its key");
        }
    }
    rows
}

/// All rows of a table in SQLite.
pub(crate) fn sqlite(file: &Path, table: &str, model: &Model) -> Typed {
    use rusqlite::types::ValueRef;
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(file, flags).unwrap();
    let names: Vec<String> = model.columns.iter().map(|c| format!("\"{}\"", c.name)).collect();
    let mut statement =
        database.prepare(&format!("select {} from {table}", names.join(", "))).unwrap();
    let mut found = statement.query([]).unwrap();
    let mut rows = Typed::new();
    while let Some(row) = found.next().unwrap() {
        let value = |(at, column): (usize, &foldline_api::model::Column)| {
            let (name, ty) = (&column.name, &column.ty);
            let value = match row.get_ref(at).unwrap() {
                ValueRef::Null => return Value::Null,
                ValueRef::Integer(int) if *ty == ColumnType::Boolean => Value::Bool(int == 1),
                ValueRef::Integer(int) => Value::Int(int),
                ValueRef::Real(real) => Value::Double(real),
                ValueRef::Blob(bytes) => Value::Bytes(Arc::from(bytes)),
                ValueRef::Text(text) => {
                    return typed(name, ty, Some(std::str::from_utf8(text).unwrap()));
                }
            };
            ty.from_json(value).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let values = model.columns.iter().enumerate().map(value);
        add(&mut rows, model, values.collect());
    }
    rows
}

/// Panics with the first differences, field by field.
pub(crate) fn assert_same(what: &str, model: &Model, expected: &Typed, found: &Typed) {
    let mut wrong = Vec::new();
    for (key, row) in expected {
        match found.get(key) {
            None => wrong.push(format!("{key}: missing")),
            Some(other) if other == row => {}
            Some(other) => {
                for (at, column) in model.columns.iter().enumerate() {
                    let (a, b) = (row.get(at), other.get(at));
                    if a != b {
                        let texts = (json::to_string(a), json::to_string(b));
                        wrong.push(format!(
                            "{key}: {} is {}, not {}",
                            column.name, texts.1, texts.0
                        ));
                    }
                }
            }
        }
    }
    wrong.extend(
        found.keys().filter(|key| !expected.contains_key(key)).map(|k| format!("{k}: too many")),
    );
    let shown: Vec<&String> = wrong.iter().take(8).collect();
    assert!(
        wrong.is_empty(),
        "{what}: {} differences in {} rows: {shown:#?}",
        wrong.len(),
        expected.len()
    );
}
