//! Converters: a record's bytes to values, as Kafka Connect's `key.converter` and `value.converter`.
//! Only what the projection's mask names is built. What a converter needs from outside is asked for before ([`schema`]).

pub mod avro;
mod connect_json;
pub mod envelope;
pub mod framing;
mod json;
mod registered;
pub mod schema;

use std::sync::Arc;

use bytes::Bytes;
use foldline_api::ErrorClass;
use foldline_api::budget::{Budget, Exceeded, Left};
use foldline_api::json::JsonError;
use foldline_api::record::Record;
use foldline_api::value::Value;

pub use framing::{Framing, Part, SchemaId};
pub use registered::RegistryAvro;
pub use schema::{Encoded, SchemaConverter};

use self::avro::Avro;
use self::envelope::{Closed, Opened, Opener};
use crate::event::{Event, Kind, Mask, Slots};

/// How a topic's keys or values are encoded.
#[derive(Clone, Debug)]
pub enum Format {
    /// Plain JSON.
    Json,
    /// JSON behind a frame, whose schema is not asked for.
    FramedJson(Framing),
    /// JSON in Connect's envelope of schema and payload.
    ConnectJson,
    /// UTF-8 text.
    Text,
    /// Bytes as they are.
    Bytes,
    /// Avro by one schema, made for the mask of its decoder.
    Avro(Arc<Avro>),
    /// By schemas that stand elsewhere.
    Schema(Arc<dyn SchemaConverter>),
}

impl Format {
    fn needs_schemas(&self) -> bool {
        matches!(self, Format::Schema(_))
    }
}

/// Why bytes are not what the converter expects. Holds no payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Not UTF-8.
    #[error("not UTF-8 text")]
    Utf8,
    /// Connect's envelope is not there or contradicts itself.
    #[error("not Connect's JSON with a schema: {0}")]
    ConnectSchema(String),
    /// Not in the envelope that the projection has.
    #[error("{0}")]
    Envelope(String),
    /// Larger than a record may become.
    #[error(transparent)]
    Budget(#[from] Exceeded),
    /// Not what its schema says, or it names a schema that does not exist.
    #[error("{0}")]
    Schema(String),
    /// Decoded before its schema was asked for.
    #[error("{0} was not asked for")]
    NotPrepared(String),
}

impl ConvertError {
    /// Whose problem it is: the record's, but for what was not prepared.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Json(_) | Self::Utf8 | Self::ConnectSchema(_) | Self::Budget(_) => {
                ErrorClass::Record
            }
            Self::Schema(_) | Self::Envelope(_) => ErrorClass::Record,
            Self::NotPrepared(_) => ErrorClass::Config,
        }
    }
}

/// What messages call a text that is JSON once more, as Debezium's outbox router and producers that encode twice write it.
pub(crate) const JSON_TEXT: &str = "a text that looks like JSON (it was encoded twice)";

/// Whether a text holds an object or a list in JSON, by how it begins.
pub(crate) fn looks_like_json(text: &str) -> bool {
    text.trim_ascii_start().starts_with(['{', '['])
}

/// What a record's value is as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// It has fields, which paths name.
    Object,
    /// Nothing: JSON's `null` and Connect's null payload are tombstones as no value is one.
    Null,
    /// A number, a text, a list: what messages call it.
    Other(&'static str),
}

impl Shape {
    /// What `value` is.
    #[must_use]
    pub fn of(value: &Value) -> Shape {
        match value {
            Value::Map(_) => Shape::Object,
            Value::Null => Shape::Null,
            Value::Text(text) if looks_like_json(text) => Shape::Other(JSON_TEXT),
            other => Shape::Other(other.type_name()),
        }
    }

    /// For [`Event::no_object`].
    #[must_use]
    pub fn no_object(self) -> Option<&'static str> {
        match self {
            Shape::Other(name) => Some(name),
            Shape::Object | Shape::Null => None,
        }
    }
}

/// What a value was, beside what was taken of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// What it is as a whole.
    pub shape: Shape,
    /// The event's name as its schema tells it.
    pub name: Option<Arc<str>>,
}

impl From<Shape> for Filled {
    fn from(shape: Shape) -> Self {
        Filled { shape, name: None }
    }
}

/// Decodes the records of one topic for one projection.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The key's format; none where no expression reads the key.
    pub key: Option<Format>,
    /// The value's format.
    pub value: Format,
    /// What to take from the value.
    pub mask: Mask,
    /// How many slots the mask has.
    pub slots: usize,
    /// Takes an envelope off what the mask takes.
    pub opener: Option<Arc<Opener>>,
}

/// A record that could not be decoded: which part, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} {error}")]
pub struct DecodeError {
    /// `key` or `value`.
    pub part: &'static str,
    /// Why.
    pub error: ConvertError,
}

impl Decoder {
    /// Whether [`Decoder::prepare`] has anything to ask for.
    #[must_use]
    pub fn needs_schemas(&self) -> bool {
        [self.key.as_ref(), Some(&self.value)].into_iter().flatten().any(Format::needs_schemas)
    }

    /// Gets what these records name, before they are decoded.
    ///
    /// # Errors
    /// As of [`SchemaConverter::prepare`].
    pub async fn prepare(&self, records: &[&Record]) -> foldline_api::Result<()> {
        if let Some(Format::Schema(converter)) = &self.key {
            let keys = records.iter().filter_map(|r| encoded(r, r.key.as_ref()));
            converter.prepare(&keys.collect::<Vec<_>>()).await?;
        }
        if let Format::Schema(converter) = &self.value {
            let values = records.iter().filter_map(|r| encoded(r, r.value.as_ref()));
            converter.prepare(&values.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Decodes what the mask names.
    ///
    /// # Errors
    /// When the key or the value is not in its format.
    pub fn decode(&self, record: &Record) -> Result<Event, DecodeError> {
        let mut slots = self.empty();
        let budget = Budget::default();
        let filled = match encoded(record, record.value.as_ref()) {
            Some(bytes) => fill(&self.value, bytes, &self.mask, &mut slots, &budget)
                .map_err(|error| DecodeError { part: "value", error })?,
            None => Shape::Null.into(),
        };
        let key = self.key(record, &budget)?;
        let Some(opener) = &self.opener else {
            return Ok(event(record, filled, slots, key, budget.left()));
        };
        let whole = || match encoded(record, record.value.as_ref()) {
            Some(bytes) => whole(&self.value, bytes, &budget),
            None => Ok(Value::Null),
        };
        let (topic, slots) = (&record.topic, &slots);
        let closed = Closed { filled: &filled, slots, key: &key, topic, whole: &whole };
        let opened = opener.open(&closed).map_err(|error| DecodeError { part: "value", error })?;
        Ok(opened.into_event(event(record, Shape::Object.into(), Slots::new(), key, budget.left())))
    }

    /// Decodes all but the value, which is not in its format.
    ///
    /// # Errors
    /// When the key is not in its format either.
    pub fn decode_without_value(&self, record: &Record) -> Result<Event, DecodeError> {
        let shape = if record.value.is_none() { Shape::Null } else { Shape::Object };
        let key = self.decode_key(record)?;
        Ok(event(record, shape.into(), self.empty(), key, Left::default()))
    }

    fn empty(&self) -> Slots {
        std::iter::repeat_with(|| None).take(self.slots).collect()
    }

    /// The record's key; null where it has none or is not read.
    ///
    /// # Errors
    /// When the key is not in its format.
    pub fn decode_key(&self, record: &Record) -> Result<Value, DecodeError> {
        self.key(record, &Budget::default())
    }

    fn key(&self, record: &Record, budget: &Budget) -> Result<Value, DecodeError> {
        match (&self.key, encoded(record, record.key.as_ref())) {
            (Some(format), Some(bytes)) => {
                whole(format, bytes, budget).map_err(|error| DecodeError { part: "key", error })
            }
            _ => Ok(Value::Null),
        }
    }
}

fn encoded<'a>(record: &'a Record, bytes: Option<&'a Bytes>) -> Option<Encoded<'a>> {
    bytes.map(|bytes| Encoded { bytes, headers: &record.headers })
}

fn event(record: &Record, filled: Filled, slots: Slots, key: Value, left: Left) -> Event {
    let Filled { shape, name } = filled;
    Event {
        slots,
        name,
        kind: if shape == Shape::Null { Kind::Tombstone } else { Kind::Plain },
        of_key: false,
        unavailable: Vec::new(),
        no_object: shape.no_object(),
        key,
        headers: record.headers.clone(),
        topic: Arc::clone(&record.topic),
        partition: record.partition,
        offset: record.offset,
        timestamp: record.timestamp,
        left,
    }
}

impl Decoder {
    /// The bytes of a key that decodes to `value`, as producers mostly write it; none where that cannot
    /// be told.
    #[must_use]
    pub fn encode_key(&self, value: &Value) -> Option<Vec<u8>> {
        match (self.key.as_ref()?, value) {
            (Format::Text, Value::Text(text)) => Some(text.as_bytes().to_vec()),
            (Format::Text, Value::List(_) | Value::Map(_) | Value::Null) => None,
            (Format::Text, value) => {
                Some(foldline_api::column::scalar_text(value).as_bytes().to_vec())
            }
            (Format::Json, value) => Some(foldline_api::json::to_string(value).into_bytes()),
            (Format::Bytes, Value::Bytes(bytes)) => Some(bytes.to_vec()),
            (
                Format::Bytes
                | Format::ConnectJson
                | Format::FramedJson(_)
                | Format::Avro(_)
                | Format::Schema(_),
                _,
            ) => None,
        }
    }
}

fn fill(
    format: &Format,
    encoded: Encoded<'_>,
    mask: &Mask,
    slots: &mut [Option<Value>],
    budget: &Budget,
) -> Result<Filled, ConvertError> {
    let bytes = encoded.bytes;
    match format {
        Format::Json => match json::fill(bytes, mask, slots, budget) {
            Ok(shape) => Ok(shape.into()),
            Err(error) => Err(framing::json_error(error, bytes)),
        },
        Format::FramedJson(framing) => {
            let text = framing::json(*framing, bytes)?;
            Ok(json::fill(text, mask, slots, budget)?.into())
        }
        Format::Avro(avro) => avro.fill(bytes, slots, budget),
        Format::Schema(converter) => converter.fill(encoded, mask, slots, budget),
        Format::ConnectJson | Format::Text | Format::Bytes => {
            let value = whole(format, encoded, budget)?;
            let shape = Shape::of(&value);
            if shape != Shape::Null {
                take(&value, mask, slots);
            }
            Ok(shape.into())
        }
    }
}

fn whole(format: &Format, encoded: Encoded<'_>, budget: &Budget) -> Result<Value, ConvertError> {
    let bytes = encoded.bytes;
    match format {
        Format::Json => foldline_api::json::parse_within(bytes, budget)
            .map_err(|error| framing::json_error(error, bytes)),
        Format::FramedJson(framing) => {
            Ok(foldline_api::json::parse_within(framing::json(*framing, bytes)?, budget)?)
        }
        Format::ConnectJson => connect_json::decode(bytes, budget),
        Format::Text => {
            budget.bytes(bytes.len())?;
            std::str::from_utf8(bytes).map(Value::text).map_err(|_| ConvertError::Utf8)
        }
        Format::Bytes => {
            budget.bytes(bytes.len())?;
            Ok(Value::Bytes(Arc::from(bytes)))
        }
        Format::Avro(avro) => avro.decode(bytes, budget),
        Format::Schema(converter) => converter.decode(encoded, budget),
    }
}

impl Opened {
    /// The event of a record, with what was found in its envelope.
    fn into_event(self, of: Event) -> Event {
        let Opened { slots, name, kind, of_key, unavailable } = self;
        Event { slots, name, kind, of_key, unavailable, ..of }
    }
}

/// Takes an envelope off a value that is already built: what there is of a record beside it comes with `of`.
///
/// # Errors
/// When it is none.
pub fn open(opener: &Opener, value: &Value, of: Event) -> Result<Event, ConvertError> {
    let mut slots: Slots = std::iter::repeat_with(|| None).take(opener.width()).collect();
    take(value, opener.mask(), &mut slots);
    let (whole, filled) = (|| Ok(value.clone()), Shape::of(value).into());
    let (key, topic) = (&of.key, &of.topic);
    let closed = Closed { filled: &filled, slots: &slots, key, topic, whole: &whole };
    opener.open(&closed).map(|opened| opened.into_event(of))
}

/// Takes what the mask names out of a value that is already built.
pub fn take(value: &Value, mask: &Mask, slots: &mut [Option<Value>]) {
    match mask {
        Mask::Whole(slot) => {
            if let Some(place) = slots.get_mut(*slot) {
                *place = Some(value.clone());
            }
        }
        Mask::Fields(fields) => {
            let Value::Map(map) = value else { return };
            for (name, inner) in fields {
                if let Some(found) = map.get(name) {
                    take(found, inner, slots);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PathSet;

    /// What `value` decodes to for a projection that reads `event.a`: whether it is a tombstone, what it is
    /// instead of an object, and what was found.
    fn decoded(value: Format, bytes: &'static [u8]) -> (bool, Option<&'static str>, Option<Value>) {
        let mut paths = PathSet::default();
        paths.insert(&[Arc::from("a")]);
        let (mask, slots) = paths.mask();
        let record = Record {
            topic: Arc::from("t"),
            partition: 0,
            offset: 0,
            timestamp: None,
            key: None,
            value: Some(Bytes::from_static(bytes)),
            headers: Vec::new(),
        };
        let event =
            Decoder { key: None, value, mask, slots, opener: None }.decode(&record).unwrap();
        (event.kind == Kind::Tombstone, event.no_object, event.slots.first().cloned().flatten())
    }

    #[test]
    fn a_null_of_any_converter_is_a_tombstone() {
        let null = (true, None, None);
        assert_eq!(decoded(Format::Json, b" null "), null);
        for both in [
            &br#"{"schema":null,"payload":null}"#[..],
            br#"{"schema":{"type":"struct","fields":[],"optional":true},"payload":null}"#,
        ] {
            assert_eq!(decoded(Format::ConnectJson, both), null);
        }
        // Texts and bytes have no null of their own.
        assert_eq!(decoded(Format::Text, b"null"), (false, Some("a text"), None));
    }

    #[test]
    fn what_is_no_object_is_told_from_an_object_without_the_field() {
        assert_eq!(decoded(Format::Json, b"{}"), (false, None, None));
        assert_eq!(decoded(Format::Json, br#"{"a":1}"#), (false, None, Some(Value::Int(1))));
        for (bytes, found) in [
            (&b"7"[..], "a number"),
            (b"-7", "a number"),
            (b"true", "a boolean"),
            (br#""{\"a\":1}""#, JSON_TEXT),
            (br#""a""#, "a text"),
            (br#"[{"a":1}]"#, "a list"),
        ] {
            assert_eq!(decoded(Format::Json, bytes), (false, Some(found), None));
        }
        let list = br#"{"schema":null,"payload":[1]}"#;
        assert_eq!(decoded(Format::ConnectJson, list), (false, Some("a list"), None));
        assert_eq!(decoded(Format::Bytes, b"{}"), (false, Some("bytes"), None));
    }

    /// A few bytes must not become gigabytes, in no converter, nor in a key.
    #[test]
    fn what_would_expand_without_end_is_refused() {
        let mut paths = PathSet::default();
        paths.insert(&[]);
        let (mask, slots) = paths.mask();
        let decode = |value: Format, text: &str| {
            let record = Record {
                topic: Arc::from("t"),
                partition: 0,
                offset: 0,
                timestamp: None,
                key: Some(Bytes::copy_from_slice(text.as_bytes())),
                value: Some(Bytes::copy_from_slice(text.as_bytes())),
                headers: Vec::new(),
            };
            let key = matches!(value, Format::Json).then_some(Format::Json);
            let decoder = Decoder { key, value, mask: mask.clone(), slots, opener: None };
            decoder.decode(&record).map(|event| event.slots.len())
        };
        let list = |item: &str, times: usize| format!("[{}]", vec![item; times].join(","));
        assert_eq!(decode(Format::Json, &list("1e16383", 100)), Ok(1));
        assert_eq!(decode(Format::Json, &list("1", 100_000)), Ok(1));
        for (item, times) in [("1e16383", 125_000), ("1", 1_500_000), ("{}", 1_500_000)] {
            let list = list(item, times);
            let error = decode(Format::Json, &list).unwrap_err();
            assert!(matches!(error.error, ConvertError::Json(JsonError::Budget(_))), "{error}");
            let connect = format!("{{\"schema\":null,\"payload\":{list}}}");
            assert!(decode(Format::ConnectJson, &connect).is_err());
        }
    }
}
