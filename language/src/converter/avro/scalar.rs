//! Types without parts: what their attributes make of them, and their values.
//!
//! A logical type that is unknown, or not valid where it stands, is its base type, as the specification has it. Where none
//! stands, Kafka Connect's name for the type counts (`connect.name`), and Debezium's: both write what JSON with schemas says too, and
//! it is the same value here.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::decimal::{Decimal, EXPONENT_MAX};
use foldline_api::json::{JsonError, parse_within};
use foldline_api::time::{Date, Time, Timestamp};
use foldline_api::value::Value;
use serde_json::{Map, Value as Json};

use super::cursor::Cursor;
use super::fault::{Fault, What};
use crate::converter::envelope::unavailable::PLACEHOLDER;

/// A type that has no name and no parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scalar {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Date,
    TimeMillis,
    TimeMicros,
    TimeNanos,
    TimestampMillis,
    TimestampMicros,
    TimestampNanos,
    Uuid,
    Decimal(i64),
    BigDecimal,
    /// Debezium's moment as a text.
    ZonedTimestamp,
    /// Debezium's JSON as a text.
    Json,
}

/// Debezium's number whose scale stands beside its digits.
pub(super) const VARIABLE_SCALE: &str = "io.debezium.data.VariableScaleDecimal";
const JSON: &str = "io.debezium.data.Json";
const ZONED_TIMESTAMP: &str = "io.debezium.time.ZonedTimestamp";

/// What a fixed number of bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FixedKind {
    Bytes,
    Decimal(i64),
    Uuid,
    Duration,
}

impl Scalar {
    /// The type of that name.
    pub(super) fn primitive(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "int" => Self::Int,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            "string" => Self::Text,
            _ => return None,
        })
    }

    /// The name of what it is without attributes.
    pub(super) fn base(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int | Self::Date | Self::TimeMillis => "int",
            Self::Long
            | Self::TimeMicros
            | Self::TimeNanos
            | Self::TimestampMillis
            | Self::TimestampMicros
            | Self::TimestampNanos => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes | Self::Decimal(_) | Self::BigDecimal => "bytes",
            Self::Text | Self::Uuid | Self::ZonedTimestamp | Self::Json => "string",
        }
    }

    /// What the attributes of its schema make of it.
    pub(super) fn with(self, attributes: &Map<String, Json>) -> Self {
        let logical = attributes.get("logicalType").and_then(Json::as_str);
        let connect = connect_name(attributes);
        logical
            .and_then(|name| self.logical(name, attributes))
            .or_else(|| connect.and_then(|name| self.connect(name, attributes)))
            .unwrap_or(self)
    }

    fn logical(self, name: &str, attributes: &Map<String, Json>) -> Option<Self> {
        Some(match (self, name) {
            (Self::Int, "date") => Self::Date,
            (Self::Int, "time-millis") => Self::TimeMillis,
            (Self::Long, "time-micros") => Self::TimeMicros,
            (Self::Long, "time-nanos") => Self::TimeNanos,
            (Self::Long, "timestamp-millis" | "local-timestamp-millis") => Self::TimestampMillis,
            (Self::Long, "timestamp-micros" | "local-timestamp-micros") => Self::TimestampMicros,
            (Self::Long, "timestamp-nanos" | "local-timestamp-nanos") => Self::TimestampNanos,
            (Self::Text, "uuid") => Self::Uuid,
            (Self::Bytes, "decimal") => Self::Decimal(decimal_scale(attributes, None)?),
            (Self::Bytes, "big-decimal") => Self::BigDecimal,
            _ => return None,
        })
    }

    fn connect(self, name: &str, attributes: &Map<String, Json>) -> Option<Self> {
        Some(match (self, name) {
            (Self::Int, "org.apache.kafka.connect.data.Date" | "io.debezium.time.Date") => {
                Self::Date
            }
            (Self::Int, "org.apache.kafka.connect.data.Time" | "io.debezium.time.Time") => {
                Self::TimeMillis
            }
            (Self::Long, "io.debezium.time.MicroTime") => Self::TimeMicros,
            (Self::Long, "io.debezium.time.NanoTime") => Self::TimeNanos,
            (
                Self::Long,
                "org.apache.kafka.connect.data.Timestamp" | "io.debezium.time.Timestamp",
            ) => Self::TimestampMillis,
            (Self::Long, "io.debezium.time.MicroTimestamp") => Self::TimestampMicros,
            (Self::Long, "io.debezium.time.NanoTimestamp") => Self::TimestampNanos,
            (Self::Text, ZONED_TIMESTAMP) => Self::ZonedTimestamp,
            (Self::Text, JSON) => Self::Json,
            (Self::Bytes, "org.apache.kafka.connect.data.Decimal") => {
                Self::Decimal(connect_scale(attributes)?)
            }
            _ => return None,
        })
    }

    pub(super) fn skip(self, cursor: &mut Cursor<'_>) -> Result<(), Box<Fault>> {
        match self {
            Self::Null => {}
            Self::Boolean => drop(cursor.boolean()?),
            Self::Int | Self::Date | Self::TimeMillis => drop(cursor.int()?),
            Self::Long
            | Self::TimeMicros
            | Self::TimeNanos
            | Self::TimestampMillis
            | Self::TimestampMicros
            | Self::TimestampNanos => drop(cursor.long()?),
            Self::Float => drop(cursor.bytes(4)?),
            Self::Double => drop(cursor.bytes(8)?),
            Self::Bytes
            | Self::Text
            | Self::Uuid
            | Self::Decimal(_)
            | Self::BigDecimal
            | Self::ZonedTimestamp
            | Self::Json => {
                let length = cursor.length()?;
                cursor.bytes(length)?;
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn take(
        self,
        cursor: &mut Cursor<'_>,
        budget: &Budget,
    ) -> Result<Value, Box<Fault>> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Boolean => Value::Bool(cursor.boolean()?),
            Self::Int => Value::Int(i64::from(cursor.int()?)),
            Self::Long => Value::Int(cursor.long()?),
            Self::Float => Value::Double(f64::from(f32::from_le_bytes(cursor.array()?))),
            Self::Double => Value::Double(f64::from_le_bytes(cursor.array()?)),
            Self::Text => Value::text(text(cursor, budget)?),
            Self::Bytes => {
                let bytes = length_and_bytes(cursor)?;
                budget.bytes(bytes.len())?;
                Value::Bytes(Arc::from(bytes))
            }
            _ => return self.take_logical(cursor, budget),
        })
    }

    fn take_logical(self, cursor: &mut Cursor<'_>, budget: &Budget) -> Result<Value, Box<Fault>> {
        let at = cursor.at();
        let (name, value) = match self {
            Self::Date => ("date", Date::from_days(cursor.int()?).map(Value::Date)),
            Self::TimeMillis => {
                let micros = i64::from(cursor.int()?) * 1_000;
                ("time-millis", Time::from_micros(micros).map(Value::Time))
            }
            Self::TimeMicros => ("time-micros", Time::from_micros(cursor.long()?).map(Value::Time)),
            Self::TimeNanos => ("time-nanos", Time::from_nanos(cursor.long()?).map(Value::Time)),
            Self::TimestampMillis => {
                let moment = Timestamp::from_millis(cursor.long()?);
                ("timestamp-millis", moment.map(Value::Timestamp))
            }
            Self::TimestampMicros => {
                let moment = Timestamp::from_micros(cursor.long()?);
                ("timestamp-micros", moment.map(Value::Timestamp))
            }
            Self::TimestampNanos => {
                let moment = Timestamp::from_nanos(cursor.long()?);
                ("timestamp-nanos", moment.map(Value::Timestamp))
            }
            Self::Uuid => ("uuid", uuid(length_and_bytes(cursor)?)),
            Self::Decimal(scale) => ("decimal", decimal(length_and_bytes(cursor)?, scale, budget)?),
            Self::BigDecimal => ("big-decimal", big_decimal(length_and_bytes(cursor)?, budget)?),
            Self::ZonedTimestamp => {
                let moment = text(cursor, budget)?.parse().ok();
                (ZONED_TIMESTAMP, moment.map(Value::Timestamp))
            }
            Self::Json => (JSON, json(text(cursor, budget)?, budget)?),
            plain => return plain.take(cursor, budget),
        };
        value.ok_or_else(|| Fault::new(at, What::Logical(name)))
    }
}

impl FixedKind {
    pub(super) fn of(size: usize, attributes: &Map<String, Json>) -> Self {
        let logical = attributes.get("logicalType").and_then(Json::as_str);
        let connect = connect_name(attributes);
        let valid = match (logical, size) {
            (Some("uuid"), 16) => Some(Self::Uuid),
            (Some("duration"), 12) => Some(Self::Duration),
            (Some("decimal"), _) => decimal_scale(attributes, Some(size)).map(Self::Decimal),
            _ => None,
        };
        let by_connect = || match connect {
            Some("org.apache.kafka.connect.data.Decimal") if size > 0 => {
                connect_scale(attributes).map(Self::Decimal)
            }
            _ => None,
        };
        valid.or_else(by_connect).unwrap_or(Self::Bytes)
    }

    pub(super) fn take(
        self,
        size: usize,
        cursor: &mut Cursor<'_>,
        budget: &Budget,
    ) -> Result<Value, Box<Fault>> {
        let at = cursor.at();
        let bytes = cursor.bytes(size)?;
        let (name, value) = match self {
            Self::Bytes => {
                budget.bytes(bytes.len())?;
                return Ok(Value::Bytes(Arc::from(bytes)));
            }
            Self::Decimal(scale) => ("decimal", decimal(bytes, scale, budget)?),
            Self::Uuid => ("uuid", <[u8; 16]>::try_from(bytes).ok().map(Value::Uuid)),
            Self::Duration => ("duration", duration(bytes, budget)?),
        };
        value.ok_or_else(|| Fault::new(at, What::Logical(name)))
    }
}

#[inline]
fn length_and_bytes<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Box<Fault>> {
    let length = cursor.length()?;
    cursor.bytes(length)
}

/// A string, at the budget's expense.
#[inline]
pub(super) fn text<'a>(cursor: &mut Cursor<'a>, budget: &Budget) -> Result<&'a str, Box<Fault>> {
    let at = cursor.at();
    let bytes = length_and_bytes(cursor)?;
    budget.bytes(bytes.len())?;
    std::str::from_utf8(bytes).map_err(|_| Fault::new(at, What::Utf8))
}

/// Kafka Connect's name for a type.
pub(super) fn connect_name(attributes: &Map<String, Json>) -> Option<&str> {
    attributes.get("connect.name").and_then(Json::as_str)
}

/// The scale of a decimal that is valid: its precision is above zero and not below its scale, and fits into so many bytes.
fn decimal_scale(attributes: &Map<String, Json>, size: Option<usize>) -> Option<i64> {
    let precision = attributes.get("precision").and_then(whole)?;
    let scale = attributes.get("scale").map_or(Some(0), whole)?;
    // A number of n bytes has a sign and 8n - 1 bits: so many digits fit whatever they are.
    let fits = size.is_none_or(|size| {
        let bits = size.saturating_mul(8).saturating_sub(1);
        precision as f64 <= (bits as f64 * std::f64::consts::LOG10_2).floor()
    });
    let valid = precision > 0 && (0..=precision).contains(&scale) && scale <= EXPONENT_MAX && fits;
    valid.then_some(scale)
}

/// Connect's scale is a text among its parameters, and may be below zero.
fn connect_scale(attributes: &Map<String, Json>) -> Option<i64> {
    let scale = attributes.get("connect.parameters")?.get("scale")?;
    let scale = scale.as_str().and_then(|text| text.parse().ok()).or_else(|| whole(scale))?;
    (-EXPONENT_MAX..=EXPONENT_MAX).contains(&scale).then_some(scale)
}

/// Some schemas write integers as `1.0`.
pub(super) fn whole(number: &Json) -> Option<i64> {
    let exact =
        |double: f64| (double.fract() == 0.0 && double.abs() < 1e15).then_some(double as i64);
    number.as_i64().or_else(|| number.as_f64().and_then(exact))
}

/// What a text holds; what stands for a value that was not sent is no JSON and stays as it is.
fn json(text: &str, budget: &Budget) -> Result<Option<Value>, Box<Fault>> {
    if text == PLACEHOLDER {
        return Ok(Some(Value::text(text)));
    }
    match parse_within(text.as_bytes(), budget) {
        Ok(value) => Ok(Some(value)),
        Err(JsonError::Budget(exceeded)) => Err(exceeded.into()),
        Err(_) => Ok(None),
    }
}

pub(super) fn decimal(
    unscaled: &[u8],
    scale: i64,
    budget: &Budget,
) -> Result<Option<Value>, Box<Fault>> {
    let number = Decimal::from_unscaled(unscaled, scale);
    if let Some(decimal) = &number
        && decimal.small().is_none()
    {
        budget.bytes(decimal.heap_bytes())?;
        budget.number(decimal)?;
    }
    Ok(number.map(Value::Decimal))
}

/// Its scale stands behind its digits, in the bytes.
fn big_decimal(bytes: &[u8], budget: &Budget) -> Result<Option<Value>, Box<Fault>> {
    let mut inner = Cursor::new(bytes);
    let Ok(unscaled) = length_and_bytes(&mut inner) else { return Ok(None) };
    match inner.int() {
        Ok(scale) if inner.left() == 0 => decimal(unscaled, i64::from(scale), budget),
        _ => Ok(None),
    }
}

fn uuid(text: &[u8]) -> Option<Value> {
    std::str::from_utf8(text)
        .ok()?
        .parse()
        .ok()
        .map(|uuid: uuid::Uuid| Value::Uuid(uuid.into_bytes()))
}

/// Months, days and milliseconds, none of which is a number of another: an object of the three.
fn duration(bytes: &[u8], budget: &Budget) -> Result<Option<Value>, Box<Fault>> {
    let mut parts = Cursor::new(bytes);
    let mut entries = Vec::with_capacity(DURATION.len());
    budget.bytes(DURATION.len() * size_of::<(Arc<str>, Value)>())?;
    for name in DURATION {
        let part = u32::from_le_bytes(parts.array()?);
        entries.push((Arc::from(name), Value::Int(i64::from(part))));
    }
    Ok(Some(Value::map(entries)))
}

const DURATION: [&str; 3] = ["months", "days", "millis"];
