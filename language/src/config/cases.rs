//! Reads `[[projections.NAME.tests]]`.

use indexmap::IndexMap;
use serde_json::json;

use super::form::{Choice, Entries, Number, Other, Text};
use super::handlers::{Model, unknown_field};
use super::key::{Key, Or, Required, Section};
use super::projection::{Located, TestConfig, TestRecord};
use super::reader::Field;
use super::schema::list;
use super::tree::Item;

pub(super) static TEST: Section = Section {
    name: "test",
    doc: "A case for `foldline test`.",
    keys: &[&NAME, &GIVEN, &EXPECT, &BAD, &FILTERED, &ORDER],
};
/// A table with one of its keys is a record, any other a record's value.
pub(super) static RECORD: Section = Section {
    name: "record",
    doc: "A record of a test.",
    keys: &[&TOPIC, &KEY, &VALUE, &HEADERS, &TIMESTAMP, &EVENT],
};

const NAME: Key<Text, Required> =
    Key::new("name", Text, "Shown in the report").required("\"what must hold\"");
const GIVEN: Key<Other, Required> = Key::new(
    "given",
    // Both forms of a record are one to an editor.
    Other(|description| {
        let record = "A record, or its value.";
        list(description, &json!({ "type": ["object", "string"], "description": record }))
    }),
    "Records, in order",
)
.required("['{\"id\":1}']");
const EXPECT: Key<Other, Required> = Key::new(
    "expect",
    Other(|description| {
        let row = "A table, or JSON text.";
        list(description, &json!({ "type": ["object", "string"], "description": row }))
    }),
    "These rows and no others",
)
.required("[{ id = 1 }]");
const BAD: Key<Number<u64>, Or<u64>> =
    Key::new("bad", Number::from(0), "How many records are bad").or(0);
const FILTERED: Key<Number<u64>> =
    Key::new("filtered", Number::from(0), "How many are filtered; any unless given");
const ORDER: Key<Choice<bool>> =
    Key::new("order", Choice(&[("given", true)]), "Runs only the order that is written");

const TOPIC: Key<Text> = Key::new("topic", Text, "Its topic; else the projection's first");
const KEY: Key<Other> = Key::new("key", ANYTHING, "The record's key");
const VALUE: Key<Other> = Key::new("value", ANYTHING, "A text is JSON; none is a tombstone");
const HEADERS: Key<Entries> = Key::new(
    "headers",
    Entries(|| json!({ "type": ["string", "number", "boolean"] })),
    "Header texts",
);
const TIMESTAMP: Key<Other> = Key::new("timestamp", ANYTHING, "Its time; else the epoch");
const EVENT: Key<Text> = Key::new("event", Text, "The converter's name for the event");

const ANYTHING: Other = Other(|description| json!({ "description": description }));

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
    let mut reader = field.table(&TEST)?;
    let name = reader.read(&NAME);
    let given = reader.read(&GIVEN).and_then(|field| field.list("a list of records"));
    let given = given.iter().flatten().filter_map(read_record).collect();
    let expect = reader.read(&EXPECT).and_then(|field| field.list("a list of rows"));
    let expect = expect.iter().flatten().filter_map(|row| read_row(row, model)).collect();
    let bad = reader.read(&BAD);
    let filtered = reader.read(&FILTERED);
    let order_given = reader.read(&ORDER).unwrap_or(false);
    reader.finish();
    Some(TestConfig { name: name?, given, expect, bad, filtered, order_given })
}

fn read_record(field: &Field<'_>) -> Option<Located<TestRecord>> {
    let record = match &field.node.item {
        Item::Scalar(toml::Value::String(_)) => value_only(field)?,
        Item::Table(table) if !RECORD.keys.iter().any(|key| table.contains_key(key.name())) => {
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
    let mut reader = field.table(&RECORD)?;
    let record = TestRecord {
        topic: reader.read(&TOPIC),
        key: reader.read(&KEY).map(|field| field.node.to_value()),
        value: reader.read(&VALUE).and_then(|field| read_value(&field)),
        headers: read_headers(reader.read(&HEADERS).unwrap_or_default()),
        timestamp: reader.read(&TIMESTAMP).and_then(|field| read_timestamp(&field)),
        event: reader.read(&EVENT),
    };
    if reader.has(VALUE.name) {
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
