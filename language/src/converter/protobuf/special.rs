//! Google's own messages that are another value than an object of their fields.

use std::sync::Arc;

use foldline_api::time::{Duration, MICROS, Timestamp};
use foldline_api::value::Value;

use super::cursor::{Cursor, LEN, Span};
use super::fault::{Fault, Read, What};
use super::read::{Reader, Slots};
use super::schema::{Message, Special};

/// The field under which an Any has the name of its type.
const TYPE: &str = "@type";
/// And that of what is no object of fields, or of no message that is known.
const VALUE: &str = "value";
/// A whole number that a double holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Such a message's value.
pub(super) fn take(
    reader: &Reader<'_>,
    message: &Message,
    spans: &[Span],
    depth: usize,
) -> Read<Value> {
    let at = spans.first().map_or(0, |span| span.at);
    let mut slots = reader.slots(message, spans, depth)?;
    let mut part = |name: &str| named(message, &mut slots, name).unwrap_or_default();
    let number = |value: Value| match value {
        Value::Int(number) => number,
        _ => 0,
    };
    let out_of_range = |name| Fault::new(at, What::Range(name));
    Ok(match message.special {
        Special::Timestamp => {
            let micros = micros(number(part("seconds")), number(part("nanos")));
            let moment = micros.and_then(Timestamp::from_micros).map(Value::Timestamp);
            moment.ok_or_else(|| out_of_range("timestamp"))?
        }
        Special::Duration => {
            let micros = micros(number(part("seconds")), number(part("nanos")));
            micros.map(Duration).map(Value::Duration).ok_or_else(|| out_of_range("duration"))?
        }
        Special::Wrapper => part("value"),
        Special::Struct => part("fields"),
        Special::List => part("values"),
        Special::Value => json(&mut slots, message),
        Special::Any => any(reader, spans, slots, message, depth)?,
        Special::No => Value::Null,
    })
}

fn named(message: &Message, slots: &mut Slots, name: &str) -> Option<Value> {
    let at = message.names.binary_search_by(|known| (**known).cmp(name)).ok()?;
    slots.get_mut(at)?.take()
}

/// To the nearest microsecond.
fn micros(seconds: i64, nanos: i64) -> Option<i64> {
    let nanos = (nanos + 500).div_euclid(1_000);
    seconds.checked_mul(MICROS)?.checked_add(nanos)
}

/// `google.protobuf.Value`: the one that is set.
fn json(slots: &mut Slots, message: &Message) -> Value {
    let Some(Value::Text(set)) = named(message, slots, "kind") else { return Value::Null };
    match named(message, slots, &set) {
        Some(Value::Double(number)) if number.fract() == 0.0 && number.abs() <= EXACT => {
            Value::Int(number as i64)
        }
        found => found.unwrap_or_default(),
    }
}

/// What its type says that it is, where that is known here.
fn any(
    reader: &Reader<'_>,
    spans: &[Span],
    mut slots: Slots,
    message: &Message,
    depth: usize,
) -> Read<Value> {
    let Some(Value::Text(url)) = named(message, &mut slots, "type_url") else {
        return Ok(Value::Null);
    };
    let type_url = (Arc::from(TYPE), Value::Text(Arc::clone(&url)));
    let bytes = named(message, &mut slots, "value").unwrap_or_default();
    let name = url.rsplit('/').next().unwrap_or_default();
    let known = reader.schema.named(name).and_then(|ty| Some((ty, reader.schema.message(ty)?)));
    let Some((ty, inner)) = known else {
        return Ok(Value::map(vec![type_url, (Arc::from(VALUE), bytes)]));
    };
    // What the value is was read of these bytes: here they are found again, as a message's.
    let inside = value_span(reader, spans)?;
    let inside = inside.as_slice();
    if inner.special != Special::No {
        let value = reader.message(ty, inside, depth + 1)?;
        return Ok(Value::map(vec![type_url, (Arc::from(VALUE), value)]));
    }
    let mut entries = reader.entries(inner, inside, depth + 1)?;
    entries.push(type_url);
    Ok(Value::map(entries))
}

/// Where the last `value` of an Any stands.
fn value_span(reader: &Reader<'_>, spans: &[Span]) -> Read<Option<Span>> {
    let mut found = None;
    for span in spans {
        let mut cursor = Cursor::new(reader.bytes, *span);
        while !cursor.is_empty() {
            let tag = cursor.tag()?;
            if tag.number == 2 && tag.wire == LEN {
                found = Some(cursor.span()?);
            } else {
                cursor.skip(tag, 0)?;
            }
        }
    }
    Ok(found)
}
