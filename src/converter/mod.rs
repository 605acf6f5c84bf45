//! Converters: a record's bytes to values, as Kafka Connect's `key.converter` and `value.converter`.
//! Only what the projection's mask names is built.

mod connect_json;
mod json;

use std::sync::Arc;

use foldline_api::json::JsonError;
use foldline_api::record::Record;
use foldline_api::value::Value;

use crate::event::{Event, Mask, Slots};

/// How a topic's keys or values are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Plain JSON.
    Json,
    /// JSON in Connect's envelope of schema and payload.
    ConnectJson,
    /// UTF-8 text.
    Text,
    /// Bytes as they are.
    Bytes,
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
    /// Decodes what the mask names.
    ///
    /// # Errors
    /// When the key or the value is not in its format.
    pub fn decode(&self, record: &Record) -> Result<Event, DecodeError> {
        let mut slots = self.empty();
        if let Some(bytes) = &record.value {
            fill(self.value, bytes, &self.mask, &mut slots)
                .map_err(|error| DecodeError { part: "value", error })?;
        }
        let key = self.decode_key(record)?;
        Ok(event(record, slots, key))
    }

    /// Decodes all but the value, which is not in its format.
    ///
    /// # Errors
    /// When the key is not in its format either.
    pub fn decode_without_value(&self, record: &Record) -> Result<Event, DecodeError> {
        Ok(event(record, self.empty(), self.decode_key(record)?))
    }

    fn empty(&self) -> Slots {
        std::iter::repeat_with(|| None).take(self.slots).collect()
    }

    /// The record's key; null where it has none or is not read.
    ///
    /// # Errors
    /// When the key is not in its format.
    pub fn decode_key(&self, record: &Record) -> Result<Value, DecodeError> {
        match (self.key, &record.key) {
            (Some(format), Some(bytes)) => {
                whole(format, bytes).map_err(|error| DecodeError { part: "key", error })
            }
            _ => Ok(Value::Null),
        }
    }
}

fn event(record: &Record, slots: Slots, key: Value) -> Event {
    Event {
        slots,
        name: None,
        tombstone: record.value.is_none(),
        key,
        headers: record.headers.clone(),
        topic: Arc::clone(&record.topic),
        partition: record.partition,
        offset: record.offset,
        timestamp: record.timestamp,
    }
}

impl Decoder {
    /// The bytes of a key that decodes to `value`, as producers mostly write it; none where that cannot
    /// be told.
    #[must_use]
    pub fn encode_key(&self, value: &Value) -> Option<Vec<u8>> {
        match (self.key?, value) {
            (Format::Text, Value::Text(text)) => Some(text.as_bytes().to_vec()),
            (Format::Text, Value::List(_) | Value::Map(_) | Value::Null) => None,
            (Format::Text, value) => {
                Some(foldline_api::column::scalar_text(value).as_bytes().to_vec())
            }
            (Format::Json, value) => Some(foldline_api::json::to_string(value).into_bytes()),
            (Format::Bytes, Value::Bytes(bytes)) => Some(bytes.to_vec()),
            (Format::Bytes | Format::ConnectJson, _) => None,
        }
    }
}

fn fill(
    format: Format,
    bytes: &[u8],
    mask: &Mask,
    slots: &mut [Option<Value>],
) -> Result<(), ConvertError> {
    match format {
        Format::Json => json::fill(bytes, mask, slots)?,
        Format::ConnectJson | Format::Text | Format::Bytes => {
            take(&whole(format, bytes)?, mask, slots);
        }
    }
    Ok(())
}

fn whole(format: Format, bytes: &[u8]) -> Result<Value, ConvertError> {
    match format {
        Format::Json => Ok(foldline_api::json::parse(bytes)?),
        Format::ConnectJson => connect_json::decode(bytes),
        Format::Text => std::str::from_utf8(bytes).map(Value::text).map_err(|_| ConvertError::Utf8),
        Format::Bytes => Ok(Value::Bytes(Arc::from(bytes))),
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
