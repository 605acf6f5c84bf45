//! Values on PostgreSQL's wire, in its binary format, without loss in either direction.
//!
//! A column of a flush travels as one array parameter. Types that an array cannot hold one per row
//! (arrays, `jsonb`, children) travel as text and are cast in the statement.

use std::error::Error as StdError;
use std::fmt;
use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use foldline_api::column::{ColumnType, scalar_text};
use foldline_api::json;
use foldline_api::time::{Date, Time, Timestamp};
use foldline_api::value::Value;
use postgres_types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::numeric;

/// Between 1970-01-01 and PostgreSQL's 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;

/// A value that does not go over the wire, or what came cannot be a value. Names types, never content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CodecError(pub(crate) String);

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for CodecError {}

fn error(reason: &str) -> CodecError {
    CodecError(reason.to_owned())
}

/// The column type in DDL.
pub(crate) fn sql_type(ty: &ColumnType) -> String {
    match ty {
        ColumnType::Children(_) => "jsonb".to_owned(),
        other => other.to_string(),
    }
}

/// The type of the elements that carry a column's values to the server.
pub(crate) fn wire_type(ty: &ColumnType) -> Type {
    match ty {
        ColumnType::BigInt => Type::INT8,
        ColumnType::Integer => Type::INT4,
        ColumnType::SmallInt => Type::INT2,
        ColumnType::DoublePrecision => Type::FLOAT8,
        ColumnType::Real => Type::FLOAT4,
        ColumnType::Numeric(_) => Type::NUMERIC,
        ColumnType::Boolean => Type::BOOL,
        ColumnType::TimestampTz => Type::TIMESTAMPTZ,
        ColumnType::Date => Type::DATE,
        ColumnType::Time => Type::TIME,
        ColumnType::Uuid => Type::UUID,
        ColumnType::Bytea => Type::BYTEA,
        ColumnType::Text
        | ColumnType::Varchar(_)
        | ColumnType::Jsonb
        | ColumnType::Array(_)
        | ColumnType::Children(_) => Type::TEXT,
    }
}

/// The array type of [`wire_type`].
pub(crate) fn wire_array_type(ty: &ColumnType) -> Type {
    match wire_type(ty) {
        Type::INT8 => Type::INT8_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::BOOL => Type::BOOL_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::UUID => Type::UUID_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        _ => Type::TEXT_ARRAY,
    }
}

/// The cast that makes the column's type of what was carried; empty where none is needed. A cast to
/// `varchar(n)` would cut silently, so that one is left to the assignment, which refuses.
pub(crate) fn cast(ty: &ColumnType) -> String {
    match ty {
        ColumnType::Jsonb | ColumnType::Children(_) => "::jsonb".to_owned(),
        ColumnType::Array(item) => match &**item {
            ColumnType::Varchar(_) => "::text[]".to_owned(),
            item => format!("::{}[]", sql_type(item)),
        },
        _ => String::new(),
    }
}

/// A parameter whose bytes are ready.
pub(crate) struct Encoded(BytesMut);

/// Only its size: parameters are payload.
impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes)", self.0.len())
    }
}

impl ToSql for Encoded {
    fn to_sql(
        &self,
        _ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_ty: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn array_head(out: &mut BytesMut, count: usize, element: &Type) -> Result<(), CodecError> {
    let count = i32::try_from(count).map_err(|_| error("too many rows in a statement"))?;
    out.put_i32(1);
    out.put_i32(1);
    out.put_u32(element.oid());
    out.put_i32(count);
    out.put_i32(1);
    Ok(())
}

/// One column of many rows, growing into one array parameter.
pub(crate) struct ColumnWriter<'t> {
    ty: &'t ColumnType,
    out: BytesMut,
}

impl<'t> ColumnWriter<'t> {
    /// For `count` values.
    pub(crate) fn new(ty: &'t ColumnType, count: usize) -> Result<Self, CodecError> {
        let mut out = BytesMut::with_capacity(24 + count * 12);
        array_head(&mut out, count, &wire_type(ty))?;
        Ok(ColumnWriter { ty, out })
    }

    pub(crate) fn push(&mut self, value: &Value) -> Result<(), CodecError> {
        let out = &mut self.out;
        if value.is_null() {
            out.put_i32(-1);
            return Ok(());
        }
        let at = out.len();
        out.put_i32(0);
        encode(self.ty, value, out)?;
        let length = i32::try_from(out.len() - at - 4).map_err(|_| error("a value above 2 GiB"))?;
        if let Some(head) = out.get_mut(at..at + 4) {
            head.copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }

    /// The parameter.
    pub(crate) fn finish(self) -> Encoded {
        Encoded(self.out)
    }
}

/// One column of many rows as one array parameter.
pub(crate) fn encode_column<'a>(
    ty: &ColumnType,
    values: impl ExactSizeIterator<Item = &'a Value>,
) -> Result<Encoded, CodecError> {
    let mut writer = ColumnWriter::new(ty, values.len())?;
    for value in values {
        writer.push(value)?;
    }
    Ok(writer.finish())
}

/// Row versions as one array of `xid`.
pub(crate) fn encode_xids(xids: impl ExactSizeIterator<Item = u32>) -> Result<Encoded, CodecError> {
    let mut out = BytesMut::with_capacity(24 + xids.len() * 8);
    array_head(&mut out, xids.len(), &Type::XID)?;
    for xid in xids {
        out.put_i32(4);
        out.put_u32(xid);
    }
    Ok(Encoded(out))
}

fn encode(ty: &ColumnType, value: &Value, out: &mut BytesMut) -> Result<(), CodecError> {
    match (ty, value) {
        (ColumnType::BigInt, Value::Int(v)) => out.put_i64(*v),
        (ColumnType::Integer, Value::Int(v)) => {
            out.put_i32(i32::try_from(*v).map_err(|_| misfit(ty, value))?);
        }
        (ColumnType::SmallInt, Value::Int(v)) => {
            out.put_i16(i16::try_from(*v).map_err(|_| misfit(ty, value))?);
        }
        (ColumnType::DoublePrecision, Value::Double(v)) => out.put_f64(*v),
        (ColumnType::Real, Value::Double(v)) => out.put_f32(*v as f32),
        (ColumnType::Numeric(_), Value::Decimal(v)) => numeric::encode(v, out)?,
        (ColumnType::Boolean, Value::Bool(v)) => out.put_u8(u8::from(*v)),
        (ColumnType::Text | ColumnType::Varchar(_), Value::Text(v)) => {
            out.extend_from_slice(v.as_bytes());
        }
        (ColumnType::TimestampTz, Value::Timestamp(v)) => out.put_i64(v.micros() - EPOCH_MICROS),
        (ColumnType::Date, Value::Date(v)) => out.put_i32(v.days() - EPOCH_DAYS),
        (ColumnType::Time, Value::Time(v)) => out.put_i64(v.micros()),
        (ColumnType::Uuid, Value::Uuid(v)) => out.extend_from_slice(v),
        (ColumnType::Bytea, Value::Bytes(v)) => out.extend_from_slice(v),
        (ColumnType::Jsonb | ColumnType::Children(_), _) => {
            out.extend_from_slice(json::to_string(value).as_bytes());
        }
        (ColumnType::Array(item), Value::List(items)) => {
            out.extend_from_slice(array_literal(item, items).as_bytes());
        }
        _ => return Err(misfit(ty, value)),
    }
    Ok(())
}

fn misfit(ty: &ColumnType, value: &Value) -> CodecError {
    CodecError(format!("{} does not fit {ty}", value.type_name()))
}

/// PostgreSQL's text of an array: every element quoted, so that nothing in it can mean anything.
fn array_literal(item: &ColumnType, items: &[Value]) -> String {
    let mut out = String::from("{");
    for (at, value) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        if value.is_null() {
            out.push_str("NULL");
            continue;
        }
        out.push('"');
        for c in literal_text(item, value).chars() {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push('}');
    out
}

/// The text that PostgreSQL reads as `value`, for array elements and defaults.
pub(crate) fn literal_text(ty: &ColumnType, value: &Value) -> String {
    match (ty, value) {
        (ColumnType::Jsonb | ColumnType::Children(_), _) => json::to_string(value),
        (ColumnType::Array(item), Value::List(items)) => array_literal(item, items),
        (ColumnType::Real, Value::Double(v)) => format!("{:e}", *v as f32),
        (ColumnType::DoublePrecision, Value::Double(v)) => format!("{v:e}"),
        (_, Value::Bytes(bytes)) => {
            let mut out = String::with_capacity(2 + bytes.len() * 2);
            out.push_str("\\x");
            for byte in bytes.iter() {
                // Writing to a String cannot fail.
                let _ = write!(out, "{byte:02x}");
            }
            out
        }
        _ => scalar_text(value),
    }
}

/// A column of a result, as its bytes.
pub(crate) struct Raw<'a>(pub(crate) Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(Some(raw)))
    }

    fn from_sql_null(_ty: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(None))
    }

    fn accepts(_ty: &Type) -> bool {
        true
    }
}

impl Raw<'_> {
    /// An unsigned 32-bit number: a transaction id, an OID.
    pub(crate) fn u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.0?.try_into().ok()?))
    }

    /// A signed 64-bit number.
    pub(crate) fn i64(&self) -> Option<i64> {
        Some(i64::from_be_bytes(self.0?.try_into().ok()?))
    }
}

/// Reads a column's value just as [`ColumnType::coerce`] made it before it was written.
pub(crate) fn decode(ty: &ColumnType, raw: &Raw<'_>) -> Result<Value, CodecError> {
    let Some(bytes) = raw.0 else {
        return Ok(Value::Null);
    };
    let value = match ty {
        ColumnType::BigInt => Value::Int(i64::from_be_bytes(fixed(bytes)?)),
        ColumnType::Integer => Value::Int(i32::from_be_bytes(fixed(bytes)?).into()),
        ColumnType::SmallInt => Value::Int(i16::from_be_bytes(fixed(bytes)?).into()),
        ColumnType::DoublePrecision => Value::Double(f64::from_be_bytes(fixed(bytes)?)),
        ColumnType::Real => Value::Double(f32::from_be_bytes(fixed(bytes)?).into()),
        ColumnType::Numeric(_) => Value::Decimal(numeric::decode(bytes)?),
        ColumnType::Boolean => return Ok(Value::Bool(fixed(bytes)? != [0u8])),
        ColumnType::Text | ColumnType::Varchar(_) => return Ok(Value::text(text(bytes)?)),
        ColumnType::TimestampTz => {
            let micros = i64::from_be_bytes(fixed(bytes)?).checked_add(EPOCH_MICROS);
            return micros
                .and_then(Timestamp::from_micros)
                .map(Value::Timestamp)
                .ok_or_else(|| error("a moment outside the years 1 to 9999"));
        }
        ColumnType::Date => {
            let days = i32::from_be_bytes(fixed(bytes)?).checked_add(EPOCH_DAYS);
            return days
                .and_then(Date::from_days)
                .map(Value::Date)
                .ok_or_else(|| error("a date outside the years 1 to 9999"));
        }
        ColumnType::Time => {
            return Time::from_micros(i64::from_be_bytes(fixed(bytes)?))
                .map(Value::Time)
                .ok_or_else(|| error("the time 24:00:00"));
        }
        ColumnType::Uuid => return Ok(Value::Uuid(fixed(bytes)?)),
        ColumnType::Bytea => return Ok(Value::Bytes(bytes.into())),
        ColumnType::Jsonb | ColumnType::Children(_) => {
            // The binary form is a version number, always 1, and the text.
            let [1, json @ ..] = bytes else { return Err(error("an unknown form of jsonb")) };
            json::parse(json).map_err(|cause| CodecError(cause.to_string()))?
        }
        ColumnType::Array(item) => decode_array(item, bytes)?,
    };
    // Brings infinities, -0 and what someone else wrote into jsonb to light.
    ty.from_json(value).map_err(|cause| CodecError(cause.to_string()))
}

fn decode_array(item: &ColumnType, bytes: &[u8]) -> Result<Value, CodecError> {
    let mut rest = bytes;
    let dimensions = i32::from_be_bytes(fixed(take(&mut rest, 4)?)?);
    take(&mut rest, 8)?;
    match dimensions {
        0 => return Ok(Value::list(vec![])),
        1 => {}
        _ => return Err(error("an array of more than one dimension")),
    }
    let count = i32::from_be_bytes(fixed(take(&mut rest, 4)?)?);
    take(&mut rest, 4)?;
    let mut items = Vec::new();
    for _ in 0..count {
        let length = i32::from_be_bytes(fixed(take(&mut rest, 4)?)?);
        let element = match usize::try_from(length) {
            Ok(length) => Some(take(&mut rest, length)?),
            Err(_) => None,
        };
        items.push(decode(item, &Raw(element))?);
    }
    Ok(Value::list(items))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], CodecError> {
    let (head, tail) = rest.split_at_checked(count).ok_or_else(|| error("a value cut short"))?;
    *rest = tail;
    Ok(head)
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], CodecError> {
    bytes.try_into().map_err(|_| error("a value of another type"))
}

fn text(bytes: &[u8]) -> Result<&str, CodecError> {
    std::str::from_utf8(bytes).map_err(|_| error("text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(ty: &str, json: &str) -> (ColumnType, Value) {
        let ty = ColumnType::parse(ty).unwrap();
        let value = ty.coerce(json::parse(json.as_bytes()).unwrap()).unwrap();
        (ty, value)
    }

    #[test]
    fn array_literals_hold_nasty_texts() {
        for (ty, json, expect) in [
            ("text[]", "[]", "{}"),
            ("text[]", r#"["",null,"NULL"]"#, r#"{"",NULL,"NULL"}"#),
            ("text[]", r#"["a\"b\\c,{d}"]"#, r#"{"a\"b\\c,{d}"}"#),
            ("bytea[]", r#"["AP8="]"#, r#"{"\\x00ff"}"#),
            ("jsonb[]", r#"[{"a":"\""}]"#, r#"{"{\"a\":\"\\\"\"}"}"#),
            ("real[]", "[0.1]", r#"{"1e-1"}"#),
            ("boolean[]", "[true]", r#"{"true"}"#),
        ] {
            let (ty, value) = value(ty, json);
            assert_eq!(literal_text(&ty, &value), expect);
        }
    }

    #[test]
    fn scalars_decode_what_was_encoded() {
        for (ty, json) in [
            ("bigint", "-9223372036854775808"),
            ("integer", "2147483647"),
            ("smallint", "-32768"),
            ("double precision", "5e-324"),
            ("real", "0.1"),
            ("numeric", "-123456789.000012345"),
            ("numeric(12,2)", "5"),
            ("boolean", "true"),
            ("text", "\"ä\""),
            ("timestamptz", "\"0001-01-01T00:00:00Z\""),
            ("timestamptz", "\"9999-12-30T21:59:59.999999Z\""),
            ("date", "\"1969-12-31\""),
            ("time", "\"23:59:59.999999\""),
            ("uuid", "\"6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01\""),
            ("bytea", "\"AP8=\""),
        ] {
            let (ty, value) = value(ty, json);
            let mut out = BytesMut::new();
            encode(&ty, &value, &mut out).unwrap();
            assert_eq!(decode(&ty, &Raw(Some(&out))), Ok(value), "{ty} {json}");
        }
    }

    #[test]
    fn what_a_store_may_hold_and_a_value_cannot_is_an_error() {
        for (ty, bytes) in [
            ("timestamptz", i64::MAX.to_be_bytes().to_vec()),
            ("date", i32::MIN.to_be_bytes().to_vec()),
            ("time", 86_400_000_000i64.to_be_bytes().to_vec()),
            ("double precision", f64::NAN.to_be_bytes().to_vec()),
            ("numeric", vec![0, 0, 0, 0, 0xC0, 0, 0, 0]),
            ("bigint", vec![1]),
            ("jsonb", b"{}".to_vec()),
            ("integer[]", vec![0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 23]),
            ("integer[]", vec![0, 0, 0, 1]),
        ] {
            let ty = ColumnType::parse(ty).unwrap();
            assert!(decode(&ty, &Raw(Some(&bytes))).is_err(), "{ty}");
        }
    }

    #[test]
    fn parameters_never_print() {
        let (ty, value) = value("text", "\"hunter2\"");
        let encoded = encode_column(&ty, [&value].into_iter()).unwrap();
        assert!(!format!("{encoded:?}").contains("hunter2"));
        assert_eq!(encoded.0.len(), 20 + 4 + 7);
    }
}
