//! Converters: a record's bytes to values, as Kafka Connect's `key.converter` and `value.converter`.
//! Only what the projection's mask names is built. What a converter needs from outside is asked for before ([`schema`]).

pub mod avro;
mod connect_json;
pub mod envelope;
mod fault;
pub mod framing;
mod json;
mod payload;
#[cfg(feature = "protobuf")]
pub mod protobuf;
mod registered;
pub mod schema;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use foldline_api::ErrorClass;
use foldline_api::budget::{Budget, Exceeded, Left};
use foldline_api::json::JsonError;
use foldline_api::record::{Headers, Record};
use foldline_api::value::Value;

pub use framing::{Framing, Part, SchemaId};
pub use payload::open;
#[cfg(feature = "protobuf")]
pub use registered::RegistryProtobuf;
pub use registered::{ByRegistry, RegisteredFormat, RegistryAvro};
pub use schema::{Encoded, SchemaConverter};

use self::avro::Avro;
use self::envelope::{Closed, Opened, Opener};
use self::payload::InBytes;
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
    /// Protobuf by a message of one schema, made for the mask of its decoder.
    #[cfg(feature = "protobuf")]
    Protobuf(Arc<protobuf::Protobuf>),
    /// By schemas that stand elsewhere.
    Schema(Arc<dyn SchemaConverter>),
}

impl Format {
    fn needs_schemas(&self) -> bool {
        matches!(self, Format::Schema(_))
    }

    /// Whether no bytes are a value: a Protobuf message all of whose fields are unset.
    fn may_be_empty(&self) -> bool {
        #[cfg(feature = "protobuf")]
        return matches!(self, Format::Protobuf(_));
        #[cfg(not(feature = "protobuf"))]
        false
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
            let values: Vec<_> = records.iter().filter_map(|r| self.for_converter(r)).collect();
            let values = values.iter().map(|(bytes, headers)| Encoded { bytes, headers });
            converter.prepare(&values.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// The bytes that the value's converter will read of a record, beside its headers.
    fn for_converter<'r>(&self, record: &'r Record) -> Option<(Cow<'r, [u8]>, &'r Headers)> {
        let bytes = match self.opener.as_deref() {
            Some(Opener::CloudEvents(events)) => events.for_converter(record)?,
            _ => Cow::Borrowed(&**record.value.as_ref()?),
        };
        Some((bytes, &record.headers))
    }

    /// Decodes what the mask names.
    ///
    /// # Errors
    /// When the key or the value is not in its format.
    pub fn decode(&self, record: &Record) -> Result<Event, DecodeError> {
        let budget = Budget::default();
        let of_value = |error| DecodeError { part: "value", error };
        let (opened, key) = match self.opener.as_deref() {
            None => {
                let mut slots = self.empty();
                let filled = self.fill(record, &mut slots, &budget).map_err(of_value)?;
                let key = self.key(record, &budget)?;
                return Ok(event(record, filled, slots, key, budget.left()));
            }
            Some(Opener::CloudEvents(events)) => {
                let payload = InBytes { decoder: self, record, budget: &budget };
                let opened = events.open(&record.headers, &payload).map_err(of_value)?;
                (opened, self.key(record, &budget)?)
            }
            Some(Opener::Changes(changes)) => {
                let mut slots = self.empty();
                let filled = self.fill(record, &mut slots, &budget).map_err(of_value)?;
                let whole = || match encoded(record, record.value.as_ref()) {
                    Some(bytes) => whole(&self.value, bytes, &budget),
                    None => Ok(Value::Null),
                };
                let key = self.key(record, &budget)?;
                let (topic, slots) = (&record.topic, &slots);
                let closed = Closed { filled: &filled, slots, key: &key, topic, whole: &whole };
                (changes.open(&closed).map_err(of_value)?, key)
            }
        };
        let of = event(record, Shape::Object.into(), Slots::new(), key, budget.left());
        Ok(opened.into_event(of))
    }

    fn fill(
        &self,
        record: &Record,
        slots: &mut Slots,
        budget: &Budget,
    ) -> Result<Filled, ConvertError> {
        match encoded(record, record.value.as_ref()) {
            Some(bytes) => fill(&self.value, bytes, &self.mask, slots, budget),
            None => Ok(Shape::Null.into()),
        }
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
            _ => None,
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
        #[cfg(feature = "protobuf")]
        Format::Protobuf(protobuf) => protobuf.fill(bytes, slots, budget),
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
        #[cfg(feature = "protobuf")]
        Format::Protobuf(protobuf) => protobuf.decode(bytes, budget),
        Format::Schema(converter) => converter.decode(encoded, budget),
    }
}

impl Opened {
    /// The event of a record, with what was found in its envelope.
    fn into_event(self, of: Event) -> Event {
        let Opened { slots, name, kind, of_key, unavailable, no_object } = self;
        Event { slots, name, kind, of_key, unavailable, no_object, ..of }
    }
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
mod tests;
