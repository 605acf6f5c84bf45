//! Rows as Avro: the schema that a projection's columns make, and the bytes of a row by it.
//!
//! Whatever has the schema reads the rows: types are Avro's own with its logical types. What Avro has no type for is a text
//! with Kafka Connect's attribute `connect.name`, which says what the text holds and which others may ignore.

use foldline_api::column::{Children, ColumnType, scalar_text};
use foldline_api::model::{Model, Row};
use foldline_api::value::Value;
use foldline_api::{Error, Result, json};
use uuid::Uuid;

/// A number whose scale is its value's own.
const NUMERIC: &str = "io.foldline.Numeric";
/// Debezium's name for JSON as a text, which its readers know.
const JSON: &str = "io.debezium.data.Json";

/// The schema of the rows of a topic.
///
/// # Errors
/// A config error where a column has no name that Avro takes.
pub(crate) fn schema(topic: &str, model: &Model) -> Result<String> {
    let name = record_name(topic);
    let mut fields = Vec::with_capacity(model.columns.len());
    for (at, column) in model.columns.iter().enumerate() {
        check_name(&column.name, &column.name)?;
        let ty = type_of(&column.ty, &format!("{name}_{}", column.name), &column.name)?;
        fields.push(field(&column.name, &ty, model.key.contains(&at)));
    }
    Ok(record(&name, &fields))
}

/// Keys are never null; of all else null is the default, so that columns may come and go.
fn field(name: &str, ty: &str, required: bool) -> String {
    if required {
        format!(r#"{{"name":"{name}","type":{ty}}}"#)
    } else {
        format!(r#"{{"name":"{name}","type":["null",{ty}],"default":null}}"#)
    }
}

fn record(name: &str, fields: &[String]) -> String {
    format!(r#"{{"type":"record","name":"{name}","fields":[{}]}}"#, fields.join(","))
}

/// A topic's name as one of Avro's: its dots part namespaces, and what Avro does not take is `_`.
fn record_name(topic: &str) -> String {
    let part = |part: &str| {
        let plain: String =
            part.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let starts = plain.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if starts { plain } else { format!("_{plain}") }
    };
    topic.split('.').map(part).collect::<Vec<_>>().join(".")
}

fn check_name(name: &str, path: &str) -> Result<()> {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.starts_with(|c: char| inner(c) && !c.is_ascii_digit()) && name.chars().all(inner) {
        return Ok(());
    }
    Err(Error::config(format!(
        "the field {path:?} has a name that Avro does not take, which has letters, digits and `_` only and starts with no digit: \
         name it otherwise, or let the topic have value = \"json\""
    )))
}

fn type_of(ty: &ColumnType, name: &str, path: &str) -> Result<String> {
    let logical =
        |base: &str, logical: &str| Ok(format!(r#"{{"type":"{base}","logicalType":"{logical}"}}"#));
    let plain = |name: &str| Ok(format!("\"{name}\""));
    let named = |name: &str| Ok(format!(r#"{{"type":"string","connect.name":"{name}"}}"#));
    match ty {
        ColumnType::BigInt => plain("long"),
        ColumnType::Integer | ColumnType::SmallInt => plain("int"),
        ColumnType::DoublePrecision => plain("double"),
        ColumnType::Real => plain("float"),
        ColumnType::Numeric(Some((precision, scale))) => Ok(format!(
            r#"{{"type":"bytes","logicalType":"decimal","precision":{precision},"scale":{scale}}}"#
        )),
        ColumnType::Numeric(None) => named(NUMERIC),
        ColumnType::Boolean => plain("boolean"),
        ColumnType::Text | ColumnType::Varchar(_) => plain("string"),
        ColumnType::TimestampTz => logical("long", "timestamp-micros"),
        ColumnType::Date => logical("int", "date"),
        ColumnType::Time => logical("long", "time-micros"),
        ColumnType::Uuid => logical("string", "uuid"),
        ColumnType::Bytea => plain("bytes"),
        ColumnType::Jsonb => named(JSON),
        ColumnType::Array(item) => {
            let item = type_of(item, name, path)?;
            Ok(format!(r#"{{"type":"array","items":["null",{item}]}}"#))
        }
        ColumnType::Children(children) => children_of(children, name, path),
    }
}

fn children_of(children: &Children, name: &str, path: &str) -> Result<String> {
    let mut fields = Vec::with_capacity(children.fields.len());
    for (child, ty) in &children.fields {
        let path = format!("{path}.{child}");
        check_name(child, &path)?;
        let ty = type_of(ty, &format!("{name}_{child}"), &path)?;
        fields.push(field(child, &ty, **child == children.by));
    }
    Ok(format!(r#"{{"type":"array","items":{}}}"#, record(name, &fields)))
}

/// The bytes of a row by [`schema`].
///
/// # Errors
/// Where a value is not of its column's type.
pub(crate) fn encode(model: &Model, row: &Row, out: &mut Vec<u8>) -> Result<()> {
    for (at, (column, value)) in model.columns.iter().zip(row.values()).enumerate() {
        let written = if model.key.contains(&at) {
            write(&column.ty, value, out)
        } else {
            optional(&column.ty, value, out)
        };
        if written.is_none() {
            let found = value.type_name();
            return Err(Error::record(format!(
                "column {}: {found} is no {}",
                column.name, column.ty
            )));
        }
    }
    Ok(())
}

/// A union of null and the type.
fn optional(ty: &ColumnType, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    if value.is_null() {
        out.push(0);
        return Some(());
    }
    out.push(2);
    write(ty, value, out)
}

fn write(ty: &ColumnType, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match (ty, value) {
        (ColumnType::BigInt | ColumnType::Integer | ColumnType::SmallInt, Value::Int(int)) => {
            long(*int, out);
        }
        (ColumnType::DoublePrecision, Value::Double(double)) => out.extend(double.to_le_bytes()),
        (ColumnType::Real, Value::Double(double)) => out.extend((*double as f32).to_le_bytes()),
        (ColumnType::Numeric(Some((_, scale))), Value::Decimal(decimal)) => {
            bytes(&decimal.to_unscaled(*scale), out);
        }
        (ColumnType::Numeric(None), Value::Decimal(_)) => text(&scalar_text(value), out),
        (ColumnType::Boolean, Value::Bool(bool)) => out.push((*bool).into()),
        (ColumnType::Text | ColumnType::Varchar(_), Value::Text(value)) => text(value, out),
        (ColumnType::TimestampTz, Value::Timestamp(moment)) => long(moment.micros(), out),
        (ColumnType::Date, Value::Date(date)) => long(date.days().into(), out),
        (ColumnType::Time, Value::Time(time)) => long(time.micros(), out),
        (ColumnType::Uuid, Value::Uuid(uuid)) => {
            text(&Uuid::from_bytes(*uuid).hyphenated().to_string(), out);
        }
        (ColumnType::Bytea, Value::Bytes(value)) => bytes(value, out),
        (ColumnType::Jsonb, value) => text(&json::to_string(value), out),
        (ColumnType::Array(item), Value::List(list)) => {
            return block(list, out, |value, out| optional(item, value, out));
        }
        (ColumnType::Children(children), Value::List(list)) => {
            return block(list, out, |value, out| child(children, value, out));
        }
        _ => return None,
    }
    Some(())
}

fn child(children: &Children, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    let Value::Map(map) = value else { return None };
    for (name, ty) in &children.fields {
        let value = map.get(name).unwrap_or(&Value::Null);
        if **name == children.by { write(ty, value, out) } else { optional(ty, value, out) }?;
    }
    Some(())
}

/// An array as one block, and the end of it.
fn block(
    list: &[Value],
    out: &mut Vec<u8>,
    write: impl Fn(&Value, &mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    if !list.is_empty() {
        length(list.len(), out);
        list.iter().try_for_each(|value| write(value, out))?;
    }
    out.push(0);
    Some(())
}

fn text(text: &str, out: &mut Vec<u8>) {
    bytes(text.as_bytes(), out);
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn length(length: usize, out: &mut Vec<u8>) {
    long(i64::try_from(length).unwrap_or(i64::MAX), out);
}

/// Zigzag, seven bits a byte.
fn long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use foldline_language::converter::avro::Schema;
    use foldline_testkit::contract::model_of;

    use super::*;

    #[test]
    fn the_schema_says_what_the_columns_are() {
        let model = model_of(&[("id", "uuid"), ("at", "timestamptz"), ("sum", "numeric(9,2)")], 1);
        assert_eq!(
            schema("shop.users-state", &model).unwrap(),
            concat!(
                r#"{"type":"record","name":"shop.users_state","fields":["#,
                r#"{"name":"id","type":{"type":"string","logicalType":"uuid"}},"#,
                r#"{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-micros"}],"default":null},"#,
                r#"{"name":"sum","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}],"default":null}]}"#,
            )
        );
        let model = model_of(&[("id", "text"), ("lines", "children"), ("tags", "text[]")], 1);
        let text = schema("1..a", &model).unwrap();
        assert!(text.contains(r#""name":"_1._.a_lines""#), "{text}");
        Schema::parse(&text, &[]).unwrap();
    }

    #[test]
    fn a_name_that_avro_does_not_take_is_told_with_the_way_out() {
        for name in ["order-id", "größe", "1st", "a b"] {
            let error = schema("t", &model_of(&[("id", "text"), (name, "text")], 1)).unwrap_err();
            assert!(error.message().contains(&format!("the field {name:?}")), "{error}");
            assert!(error.message().contains("value = \"json\""), "{error}");
        }
    }
}
