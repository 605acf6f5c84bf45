//! Values without parts.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::column::scalar_text;
use foldline_api::decimal::Decimal;
use foldline_api::value::Value;

use super::cursor::{Cursor, I32, I64, LEN, START, VARINT};
use super::fault::{Fault, Read, What};
use super::schema::{Kind, Scalar};

impl Kind {
    /// The wire type of its values.
    #[inline]
    pub(super) fn wire(self) -> u8 {
        match self {
            Kind::Enum(_) => VARINT,
            Kind::Message { group: true, .. } => START,
            Kind::Message { group: false, .. } => LEN,
            Kind::Scalar(scalar) => match scalar {
                Scalar::Fixed32 | Scalar::Sfixed32 | Scalar::Float => I32,
                Scalar::Fixed64 | Scalar::Sfixed64 | Scalar::Double => I64,
                Scalar::Text | Scalar::Bytes => LEN,
                _ => VARINT,
            },
        }
    }

    /// Whether many of them may stand together behind one length.
    pub(super) fn may_be_packed(self) -> bool {
        !matches!(
            self,
            Kind::Message { .. } | Kind::Scalar(Scalar::Text) | Kind::Scalar(Scalar::Bytes)
        )
    }

    /// What messages call it.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Kind::Enum(_) => "enum",
            Kind::Message { group: true, .. } => "group",
            Kind::Message { group: false, .. } => "message",
            Kind::Scalar(scalar) => scalar.name(),
        }
    }
}

impl Scalar {
    fn name(self) -> &'static str {
        match self {
            Scalar::Bool => "bool",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Uint32 => "uint32",
            Scalar::Uint64 => "uint64",
            Scalar::Sint32 => "sint32",
            Scalar::Sint64 => "sint64",
            Scalar::Fixed32 => "fixed32",
            Scalar::Fixed64 => "fixed64",
            Scalar::Sfixed32 => "sfixed32",
            Scalar::Sfixed64 => "sfixed64",
            Scalar::Float => "float",
            Scalar::Double => "double",
            Scalar::Text => "string",
            Scalar::Bytes => "bytes",
        }
    }

    /// What it is where it is not set and has no presence.
    pub(super) fn default(self) -> Value {
        match self {
            Scalar::Bool => Value::Bool(false),
            Scalar::Float | Scalar::Double => Value::Double(0.0),
            Scalar::Text => Value::text(""),
            Scalar::Bytes => Value::Bytes(Arc::from([])),
            _ => Value::Int(0),
        }
    }

    /// Of an int32 that has more bits than 32 the lower ones count, as to all who read it.
    #[inline]
    pub(super) fn take(self, cursor: &mut Cursor<'_>, budget: &Budget) -> Read<Value> {
        Ok(match self {
            Scalar::Bool => Value::Bool(cursor.varint()? != 0),
            Scalar::Int32 => Value::Int(i64::from(cursor.varint()? as i32)),
            Scalar::Int64 => Value::Int(cursor.varint()?.cast_signed()),
            Scalar::Uint32 => Value::Int(i64::from(cursor.varint()? as u32)),
            Scalar::Uint64 => unsigned(cursor.varint()?),
            Scalar::Sint32 => {
                let raw = cursor.varint()? as u32;
                Value::Int(i64::from((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed())))
            }
            Scalar::Sint64 => {
                let raw = cursor.varint()?;
                Value::Int((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
            }
            Scalar::Fixed32 => Value::Int(i64::from(u32::from_le_bytes(cursor.array()?))),
            Scalar::Fixed64 => unsigned(u64::from_le_bytes(cursor.array()?)),
            Scalar::Sfixed32 => Value::Int(i64::from(i32::from_le_bytes(cursor.array()?))),
            Scalar::Sfixed64 => Value::Int(i64::from_le_bytes(cursor.array()?)),
            Scalar::Float => Value::Double(f64::from(f32::from_le_bytes(cursor.array()?))),
            Scalar::Double => Value::Double(f64::from_le_bytes(cursor.array()?)),
            Scalar::Text => {
                let at = cursor.at();
                let bytes = cursor.bytes()?;
                budget.bytes(bytes.len())?;
                let text = std::str::from_utf8(bytes);
                Value::text(text.map_err(|_| Fault::new(at, What::Utf8))?)
            }
            Scalar::Bytes => {
                let bytes = cursor.bytes()?;
                budget.bytes(bytes.len())?;
                Value::Bytes(Arc::from(bytes))
            }
        })
    }
}

/// Beyond an integer of ours it is a decimal.
fn unsigned(number: u64) -> Value {
    match i64::try_from(number) {
        Ok(number) => Value::Int(number),
        Err(_) => Value::Decimal(Decimal::new(i128::from(number), 0)),
    }
}

/// A map's key as an object's.
pub(super) fn key(key: Value) -> Arc<str> {
    match key {
        Value::Text(text) => text,
        other => Arc::from(&*scalar_text(&other)),
    }
}
