//! A test's record as the event that a converter would make of it: text keys, JSON values.

use std::sync::Arc;

use bytes::Bytes;
use foldline_api::budget::Left;
use foldline_api::json;
use foldline_api::time::Timestamp;
use foldline_api::value::Value;

use super::super::Projection;
use super::super::literal::literal;
use super::super::matcher::Matcher;
use crate::config::projection::TestRecord;
use crate::converter::{Shape, open, take};
use crate::event::{Event, Kind, Slots};

/// The event.
///
/// # Errors
/// A sentence about what no record can be.
pub(super) fn event(projection: &Projection, record: &TestRecord) -> Result<Given, String> {
    let topic = topic(projection, record)?;
    let value = record.value.as_ref().map(through_json).transpose()?;
    let shape = value.as_ref().map_or(Shape::Null, Shape::of);
    let opener = projection.opener(&topic).map(Arc::clone);
    let key = match &record.key {
        None => Value::Null,
        // Debezium's keys are objects.
        Some(table) if opener.as_ref().is_some_and(|opener| opener.reads_key()) => as_json(table)?,
        Some(toml::Value::String(text)) => Value::text(text),
        Some(other) => Value::text(&json::to_string(&literal(other)?)),
    };
    let mut slots = Slots::new();
    slots.resize(projection.slots(), None);
    if let Some(value) = value.as_ref().filter(|_| shape != Shape::Null && opener.is_none()) {
        take(value, projection.mask(), &mut slots);
    }
    let headers = record.headers.iter().map(|(name, text)| {
        (Arc::from(name.as_str()), Some(Bytes::copy_from_slice(text.as_bytes())))
    });
    let event = Event {
        slots,
        name: record.event.as_deref().map(Arc::from),
        kind: if shape == Shape::Null { Kind::Tombstone } else { Kind::Plain },
        of_key: false,
        unavailable: Vec::new(),
        no_object: shape.no_object(),
        key,
        headers: headers.collect(),
        topic: Arc::clone(&topic),
        partition: 0,
        offset: 0,
        timestamp: Some(millis(record)?),
        left: Left::default(),
    };
    Ok(match opener {
        None => Given::Event(Box::new(event)),
        Some(opener) => match open(&opener, value.as_ref(), event) {
            Ok(event) => Given::Event(Box::new(event)),
            Err(error) => Given::Bad(topic, format!("value {error}")),
        },
    })
}

/// The key as JSON has it; a text that is none is itself.
fn as_json(key: &toml::Value) -> Result<Value, String> {
    match key {
        toml::Value::String(text) => {
            Ok(json::parse(text.as_bytes()).unwrap_or_else(|_| Value::text(text)))
        }
        other => through_json(other),
    }
}

/// What a converter makes of a record.
pub(super) enum Given {
    Event(Box<Event>),
    /// The record's topic, and what is wrong with it.
    Bad(Arc<str>, String),
}

/// An event of the projection's first topic, for other tests.
#[cfg(test)]
pub(in super::super) fn event_of_json(
    projection: &Projection,
    json: &str,
) -> Result<Event, String> {
    let value = Some(toml::Value::String(json.to_owned()));
    match event(projection, &TestRecord { value, ..TestRecord::default() })? {
        Given::Event(event) => Ok(*event),
        Given::Bad(_, reason) => Err(reason),
    }
}

fn topic(projection: &Projection, record: &TestRecord) -> Result<Arc<str>, String> {
    match (&record.topic, &projection.topics) {
        (Some(topic), _) if projection.topics_match(topic) => Ok(Arc::from(topic.as_str())),
        (Some(topic), _) => Err(format!("{topic:?} is none of the projection's topics")),
        (None, Matcher::List(list)) => {
            list.first().cloned().ok_or_else(|| "the projection has no topic".to_owned())
        }
        (None, Matcher::Regex(_)) => {
            Err("the projection's topics are a regex: say which topic this record is in".to_owned())
        }
    }
}

/// Through JSON and back, as a record goes: a date becomes a text.
fn through_json(value: &toml::Value) -> Result<Value, String> {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        other => json::to_string(&literal(other)?),
    };
    json::parse(text.as_bytes()).map_err(|error| error.to_string())
}

fn millis(record: &TestRecord) -> Result<i64, String> {
    let text = match &record.timestamp {
        None => return Ok(0),
        Some(toml::Value::Integer(millis)) => return Ok(*millis),
        Some(toml::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let parsed = text.parse::<Timestamp>().map(|timestamp| timestamp.micros().div_euclid(1_000));
    parsed.map_err(|_| format!("timestamp {text} is no time with an offset"))
}
