//! A row as a document and back.

use std::fmt::Write as _;
use std::sync::Arc;

use foldline_api::model::{Key, Model, Row};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Mark, Marks};
use foldline_api::value::{Map, Value};
use foldline_api::{Error, Result, json};
use sha2::{Digest, Sha256};

/// The one field that is Foldline's.
pub(crate) const META: &str = "_foldline";

/// Elasticsearch's limit on an id, in bytes.
const ID_BYTES_MAX: usize = 512;
/// What a hashed id starts with. A key that reads so is hashed too, so the two kinds never meet.
const HASHED: &str = "sha256:";

/// A key's `_id`: its text, or a hash where Elasticsearch would not take the text.
pub(crate) fn id(key: &Key) -> String {
    let text = key.to_string();
    if text.is_empty() || text.len() > ID_BYTES_MAX || text.starts_with(HASHED) {
        return format!("{HASHED}{}", hex(&Sha256::digest(text.as_bytes())));
    }
    text
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Appends a row with its marks. Every column is there, null ones too: a column that is absent was added
/// after the document was written.
pub(crate) fn encode(model: &Model, row: &Row, marks: &Marks, out: &mut String) {
    out.push('{');
    for (column, value) in model.columns.iter().zip(row.values()) {
        json::write(&Value::Text(Arc::clone(&column.name)), out);
        out.push(':');
        json::write(value, out);
        out.push(',');
    }
    let _ = write!(out, "\"{META}\":{{");
    write_marks(marks, out);
    out.push_str("}}");
}

/// Appends a deleted row: its marks and when, in milliseconds since the epoch.
pub(crate) fn tombstone(marks: &Marks, at: i64, out: &mut String) {
    let _ = write!(out, "{{\"{META}\":{{\"deleted\":true,\"at\":{at},");
    write_marks(marks, out);
    out.push_str("}}");
}

fn write_marks(marks: &Marks, out: &mut String) {
    out.push_str("\"marks\":{");
    for (at, mark) in marks.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        let TopicPartition { topic, partition } = &mark.partition;
        json::write(&Value::text(&format!("{topic}/{partition}")), out);
        let _ = write!(out, ":{}", mark.position);
    }
    out.push('}');
}

/// Reads a document: its row, unless it is a tombstone, and its marks.
///
/// # Errors
/// Of class Record, where someone else wrote what does not fit.
pub(crate) fn decode(model: &Model, source: &[u8]) -> Result<(Option<Row>, Marks)> {
    let value = json::parse(source).map_err(|error| {
        Error::record("a stored document cannot be read back").with_source(error)
    })?;
    let Value::Map(fields) = value else {
        return Err(Error::record("a stored document is not an object"));
    };
    let meta = match fields.get(META) {
        Some(Value::Map(meta)) => Arc::clone(meta),
        _ => Arc::default(),
    };
    let marks = decode_marks(&meta)?;
    if meta.get("deleted") == Some(&Value::Bool(true)) {
        return Ok((None, marks));
    }
    let mut row = Vec::with_capacity(model.columns.len());
    for column in &model.columns {
        row.push(match fields.get(&column.name) {
            None => column.default.clone(),
            Some(value) => column.ty.from_json(value.clone()).map_err(|error| {
                Error::record(format!(
                    "a stored document was changed by someone else: column {}: {error}",
                    column.name
                ))
            })?,
        });
    }
    Ok((Some(Row::new(row)), marks))
}

fn decode_marks(meta: &Map) -> Result<Marks> {
    let Some(Value::Map(marks)) = meta.get("marks") else { return Ok(Marks::new()) };
    let mut out = Marks::new();
    for (name, position) in marks.iter() {
        let parsed = match (name.rsplit_once('/'), position) {
            (Some((topic, partition)), Value::Int(position)) => {
                partition.parse().ok().map(|partition| Mark {
                    partition: TopicPartition::new(topic, partition),
                    position: Position(*position),
                })
            }
            _ => None,
        };
        // A marker that cannot be read must not count as "never applied".
        out.push(parsed.ok_or_else(|| {
            Error::record(format!("a stored document has {META}.marks that Foldline did not write"))
        })?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use foldline_api::column::ColumnType;
    use foldline_api::model::Column;
    use smallvec::smallvec;

    use super::*;

    fn model(types: &[(&str, &str)]) -> Model {
        let columns = types
            .iter()
            .map(|(name, ty)| Column {
                name: Arc::from(*name),
                ty: ColumnType::parse(ty).unwrap(),
                index: false,
                default: Value::Int(7),
            })
            .collect();
        Model { columns, key: vec![0], indexes: vec![] }
    }

    fn mark(position: i64) -> Marks {
        smallvec![Mark { partition: TopicPartition::new("a/b", 3), position: Position(position) }]
    }

    #[test]
    fn a_row_reads_back_to_the_digit() {
        let model = model(&[("id", "bigint"), ("price", "numeric"), ("note", "jsonb")]);
        let price = "123456789012345678901234567890.123456789".parse().unwrap();
        let row = Row::new(vec![Value::Int(i64::MAX), Value::Decimal(price), Value::Null]);
        let mut text = String::new();
        encode(&model, &row, &mark(5), &mut text);
        assert_eq!(
            text,
            "{\"id\":9223372036854775807,\"price\":123456789012345678901234567890.123456789,\
             \"note\":null,\"_foldline\":{\"marks\":{\"a/b/3\":5}}}"
        );
        assert_eq!(decode(&model, text.as_bytes()).unwrap(), (Some(row), mark(5)));
    }

    #[test]
    fn a_tombstone_has_marks_and_no_row() {
        let model = model(&[("id", "bigint")]);
        let mut text = String::new();
        tombstone(&mark(9), 1_000, &mut text);
        assert_eq!(decode(&model, text.as_bytes()).unwrap(), (None, mark(9)));
    }

    #[test]
    fn a_column_added_later_reads_as_its_default() {
        let model = model(&[("id", "bigint"), ("added", "bigint")]);
        let (row, _) = decode(&model, br#"{"id":1}"#).unwrap();
        assert_eq!(row, Some(Row::new(vec![Value::Int(1), Value::Int(7)])));
    }

    #[test]
    fn what_someone_else_wrote_is_refused_without_its_content() {
        let model = model(&[("id", "bigint")]);
        for wrong in [
            r#"{"id":"canary"}"#,
            "[]",
            r#"{"id":1,"_foldline":{"marks":{"canary":5}}}"#,
            r#"{"id":1,"_foldline":{"marks":{"t/0":"5"}}}"#,
        ] {
            let error = decode(&model, wrong.as_bytes()).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn ids_never_collide() {
        let key = |text: &str| Key::new(vec![Value::text(text)]);
        let long = "x".repeat(600);
        let hashed = id(&key(&long));
        assert!(hashed.starts_with(HASHED) && hashed.len() < 80);
        assert_ne!(id(&key(&hashed)), hashed);
        assert_eq!(id(&key(&"x".repeat(512))).len(), 512);
        assert!(id(&key("")).starts_with(HASHED));
        assert_eq!(id(&Key::new(vec![Value::text("a:b"), Value::Int(1)])), "a%3Ab:1");
    }
}
