//! Reads `[[projections.NAME.tests]]`.

use indexmap::IndexMap;

use super::handlers::{Model, unknown_field};
use super::projection::{Located, TestConfig, TestRecord};
use super::reader::Field;
use super::tree::Item;

/// A table with one of these is a record, any other a record's value.
const RECORD_KEYS: [&str; 6] = ["topic", "key", "value", "headers", "timestamp", "event"];

pub(super) fn read_cases(field: &Field<'_>, model: &Model<'_>) -> Vec<Located<TestConfig>> {
    let mut cases: Vec<Located<TestConfig>> = Vec::new();
    for item in field.list("a list of tests, each `[[projections.NAME.tests]]`").unwrap_or_default()
    {
        let Some(case) = read_case(&item, model) else { continue };
        if cases.iter().any(|earlier| earlier.value.name == case.name) {
            item.problem(format!("the name {:?} is given twice", case.name));
        }
        cases.push(Located { path: item.path, value: case });
    }
    cases
}

fn read_case(field: &Field<'_>, model: &Model<'_>) -> Option<TestConfig> {
    let mut reader = field.table("test")?;
    let name = reader.required("name", "\"what must hold\"").and_then(|field| field.text());
    let given = reader
        .required("given", "['{\"id\":1}']")
        .and_then(|field| field.list("a list of records"))
        .unwrap_or_default();
    let given = given.iter().filter_map(read_record).collect();
    let expect = reader
        .required("expect", "[{ id = 1 }]")
        .and_then(|field| field.list("a list of rows"))
        .unwrap_or_default();
    let expect = expect.iter().filter_map(|row| read_row(row, model)).collect();
    let bad = reader.get("bad").and_then(|field| field.number(0, i64::MAX)).unwrap_or(0);
    let filtered = reader.get("filtered").and_then(|field| field.number(0, i64::MAX));
    let order = reader.get("order").and_then(|field| field.choice(&[("given", true)]));
    reader.finish();
    let order_given = order.unwrap_or(false);
    Some(TestConfig { name: name?, given, expect, bad, filtered, order_given })
}

fn read_record(field: &Field<'_>) -> Option<Located<TestRecord>> {
    let record = match &field.node.item {
        Item::Scalar(toml::Value::String(_)) => value_only(field)?,
        Item::Table(table) if !RECORD_KEYS.iter().any(|key| table.contains_key(*key)) => {
            value_only(field)?
        }
        Item::Table(_) => read_full_record(field)?,
        Item::Scalar(_) | Item::List(_) => {
            field.problem(format!(
                "found {}, expected a record: a table, or its value as JSON text",
                field.node.describe()
            ));
            return None;
        }
    };
    Some(Located { path: field.path.clone(), value: record })
}

fn value_only(field: &Field<'_>) -> Option<TestRecord> {
    Some(TestRecord { value: Some(read_value(field)?), ..TestRecord::default() })
}

fn read_full_record(field: &Field<'_>) -> Option<TestRecord> {
    let mut reader = field.table("record")?;
    let record = TestRecord {
        topic: reader.text("topic"),
        key: reader.get("key").map(|field| field.node.to_value()),
        value: reader.get("value").and_then(|field| read_value(&field)),
        headers: read_headers(reader.entries("headers")),
        timestamp: reader.get("timestamp").and_then(|field| read_timestamp(&field)),
        event: reader.text("event"),
    };
    if reader.has("value") {
        reader.finish();
    } else {
        reader.finish_with_help("if all of this is the value, write `{ value = { … } }`");
    }
    Some(record)
}

/// A text is JSON, since TOML has no null.
fn read_value(field: &Field<'_>) -> Option<toml::Value> {
    if let Some(text) = field.node.as_str()
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text)
    {
        field.problem(format!("a text here is JSON, and this is not: {error}"));
        return None;
    }
    Some(field.node.to_value())
}

fn read_headers(entries: Vec<(&str, Field<'_>)>) -> IndexMap<String, String> {
    let read = |(name, field): (&str, Field<'_>)| {
        let text = field.plain_text()?;
        Some((name.to_owned(), text))
    };
    entries.into_iter().filter_map(read).collect()
}

/// A date with an offset, its text, or milliseconds.
fn read_timestamp(field: &Field<'_>) -> Option<toml::Value> {
    let value = field.node.to_value();
    let valid = match &value {
        toml::Value::Integer(_) => true,
        toml::Value::Datetime(time) => time.to_string().parse::<jiff::Timestamp>().is_ok(),
        toml::Value::String(text) => text.parse::<jiff::Timestamp>().is_ok(),
        _ => false,
    };
    if !valid {
        field.problem(format!(
            "found {}, expected a time with an offset such as 2026-01-01T00:00:00Z, or milliseconds",
            field.node.describe()
        ));
        return None;
    }
    Some(value)
}

/// A table, or an object as JSON text; it names declared fields only.
fn read_row(field: &Field<'_>, model: &Model<'_>) -> Option<Located<toml::Value>> {
    let names: Vec<String> = match &field.node.item {
        Item::Table(table) => table.keys().cloned().collect(),
        Item::Scalar(toml::Value::String(text)) => {
            match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
                Ok(row) => row.into_iter().map(|(name, _)| name).collect(),
                Err(error) => {
                    field.problem(format!("a text here is a row as a JSON object: {error}"));
                    return None;
                }
            }
        }
        Item::Scalar(_) | Item::List(_) => {
            field.problem(format!(
                "found {}, expected a row: a table, or JSON text",
                field.node.describe()
            ));
            return None;
        }
    };
    for name in names.iter().filter(|name| !model.fields.contains_key(*name)) {
        unknown_field(field, name, model.fields.keys().map(String::as_str));
    }
    Some(Located { path: field.path.clone(), value: field.node.to_value() })
}
