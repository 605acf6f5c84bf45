//! Values to SQLite's storage classes and back, and a row's version.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use foldline_api::column::ColumnType;
use foldline_api::json;
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::sink::Version;
use foldline_api::time::Timestamp;
use foldline_api::value::Value;
use foldline_api::{Error, Result};
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::database::sql;

/// The storage class of a type, as its column is declared.
pub(crate) fn storage(ty: &ColumnType) -> &'static str {
    match ty {
        ColumnType::BigInt | ColumnType::Integer | ColumnType::SmallInt | ColumnType::Boolean => {
            "INTEGER"
        }
        ColumnType::DoublePrecision | ColumnType::Real => "REAL",
        ColumnType::Bytea => "BLOB",
        ColumnType::Numeric(_)
        | ColumnType::Text
        | ColumnType::Varchar(_)
        | ColumnType::TimestampTz
        | ColumnType::Date
        | ColumnType::Time
        | ColumnType::Uuid
        | ColumnType::Jsonb
        | ColumnType::Array(_)
        | ColumnType::Children(_) => "TEXT",
    }
}

/// Whether a column's text is JSON.
fn is_json(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Jsonb | ColumnType::Array(_) | ColumnType::Children(_))
}

/// A value as SQLite keeps it.
#[derive(Clone, Debug)]
pub(crate) enum Cell<'v> {
    Null,
    Int(i64),
    Real(f64),
    Text(Cow<'v, str>),
    Blob(&'v [u8]),
}

impl Cell<'_> {
    fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Cell::Null => ValueRef::Null,
            Cell::Int(int) => ValueRef::Integer(*int),
            Cell::Real(real) => ValueRef::Real(*real),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
            Cell::Blob(blob) => ValueRef::Blob(blob),
        }
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.as_ref()))
    }
}

/// A value of a column's type as SQLite keeps it.
pub(crate) fn encode<'v>(ty: &ColumnType, value: &'v Value) -> Cell<'v> {
    if value.is_null() {
        return Cell::Null;
    }
    if is_json(ty) {
        return Cell::Text(Cow::Owned(json::to_string(value)));
    }
    match value {
        Value::Bool(bool) => Cell::Int(i64::from(*bool)),
        Value::Int(int) => Cell::Int(*int),
        Value::Double(double) => Cell::Real(*double),
        Value::Text(text) => Cell::Text(Cow::Borrowed(text)),
        Value::Bytes(bytes) => Cell::Blob(bytes),
        Value::Timestamp(moment) => Cell::Text(Cow::Owned(moment_text(*moment))),
        Value::Decimal(decimal) => Cell::Text(Cow::Owned(decimal.to_string())),
        other => Cell::Text(Cow::Owned(foldline_api::column::scalar_text(other))),
    }
}

/// Six digits always: as texts they sort as moments do.
fn moment_text(moment: Timestamp) -> String {
    let text = moment.to_string();
    let text = text.trim_end_matches('Z');
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{seconds}.{fraction:0<6}Z")
}

/// The cells of a whole row, in column order.
pub(crate) fn encode_row<'v>(model: &Model, row: &'v Row) -> Vec<Cell<'v>> {
    let columns = model.columns.iter().enumerate();
    columns.map(|(at, column)| encode(&column.ty, row.get(at))).collect()
}

/// The cells of a key, in key order.
pub(crate) fn encode_key<'v>(model: &Model, key: &'v Key) -> Vec<Cell<'v>> {
    let columns = model.key_columns().zip(key.values());
    columns.map(|(column, value)| encode(&column.ty, value)).collect()
}

/// Reads what a column holds, whoever wrote it.
///
/// # Errors
/// A config error where someone else wrote what is no value of the column's type.
pub(crate) fn decode(column: &Column, stored: ValueRef<'_>) -> Result<Value> {
    let ty = &column.ty;
    let unfit = |reason: String| {
        Error::config(format!(
            "column {} holds what Foldline did not write and is no {ty} ({reason}): mend the row, or \
             rebuild",
            column.name
        ))
    };
    let text =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| unfit("not UTF-8".to_owned()));
    let value = match stored {
        ValueRef::Null => return Ok(Value::Null),
        ValueRef::Integer(int) if *ty == ColumnType::Boolean => return Ok(Value::Bool(int != 0)),
        ValueRef::Integer(int) => Value::Int(int),
        ValueRef::Real(real) => Value::Double(real),
        ValueRef::Blob(blob) => Value::Bytes(Arc::from(blob)),
        ValueRef::Text(bytes) if is_json(ty) => {
            json::parse(bytes).map_err(|error| unfit(error.to_string()))?
        }
        ValueRef::Text(bytes) => Value::Text(Arc::from(text(bytes)?)),
    };
    ty.from_json(value).map_err(|error| unfit(error.to_string()))
}

/// A stored row of all columns, in their order; `seen` is shown each cell.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_row(
    model: &Model,
    stored: &rusqlite::Row<'_>,
    mut seen: impl FnMut(ValueRef<'_>),
) -> Result<Row> {
    let mut values = Vec::with_capacity(model.columns.len());
    for (at, column) in model.columns.iter().enumerate() {
        let cell = stored.get_ref(at).map_err(sql)?;
        seen(cell);
        values.push(decode(column, cell)?);
    }
    Ok(Row::new(values))
}

/// The same with its version. `print` is the caller's, to be used again.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_versioned(
    model: &Model,
    stored: &rusqlite::Row<'_>,
    print: &mut Fingerprint,
) -> Result<(Row, Version)> {
    print.clear();
    let row = decode_row(model, stored, |cell| print.add(cell))?;
    Ok((row, print.version()))
}

/// Gathers a row's stored values for its version.
#[derive(Debug, Default)]
pub(crate) struct Fingerprint(Vec<u8>);

impl Fingerprint {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn add(&mut self, stored: ValueRef<'_>) {
        let (tag, bytes): (u8, &[u8]) = match stored {
            ValueRef::Null => (0, &[]),
            ValueRef::Integer(int) => {
                self.0.push(1);
                return self.0.extend_from_slice(&int.to_le_bytes());
            }
            ValueRef::Real(real) => {
                self.0.push(2);
                return self.0.extend_from_slice(&real.to_bits().to_le_bytes());
            }
            ValueRef::Text(text) => (3, text),
            ValueRef::Blob(blob) => (4, blob),
        };
        self.0.push(tag);
        // The length keeps two neighbours from passing for two others.
        self.0.extend_from_slice(&bytes.len().to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    /// Two hashes under keys that the system drew for this process.
    pub(crate) fn version(&self) -> Version {
        static KEYS: OnceLock<(RandomState, RandomState)> = OnceLock::new();
        let (a, b) = KEYS.get_or_init(|| (RandomState::new(), RandomState::new()));
        Version::At(a.hash_one(&self.0), b.hash_one(&self.0))
    }

    /// The version of a row that is about to be written.
    pub(crate) fn of(&mut self, cells: &[Cell<'_>]) -> Version {
        self.clear();
        cells.iter().for_each(|cell| self.add(cell.as_ref()));
        self.version()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn column(ty: &str) -> Column {
        let ty = ColumnType::parse(ty).unwrap();
        Column { name: Arc::from("c"), ty, index: false, default: Value::Null }
    }

    /// Through a real STRICT table and back.
    fn round_trip(ty: &str, value: &Value) -> Value {
        let column = column(ty);
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let create = format!("CREATE TABLE t (c {}) STRICT", storage(&column.ty));
        connection.execute(&create, []).unwrap();
        let cell = encode(&column.ty, value);
        connection.execute("INSERT INTO t VALUES (?1)", [&cell]).unwrap();
        let (mut written, mut read) = (Fingerprint::default(), Fingerprint::default());
        let version = written.of(std::slice::from_ref(&cell));
        let decoded = |row: &rusqlite::Row<'_>| {
            read.add(row.get_ref(0)?);
            Ok(decode(&column, row.get_ref(0)?).unwrap())
        };
        let value = connection.query_row("SELECT c FROM t", [], decoded).unwrap();
        assert_eq!(read.version(), version, "a written row has the version that it is read with");
        value
    }

    fn value() -> impl Strategy<Value = (&'static str, Value)> {
        let int = any::<i64>().prop_map(|n| ("bigint", Value::Int(n)));
        let text = any::<String>().prop_map(|t| ("text", Value::text(&t.replace('\0', ""))));
        let double = any::<f64>().prop_map(|d| ("double precision", Value::Double(d)));
        let single = any::<f32>().prop_map(|d| ("real", Value::Double(d.into())));
        let bytes = any::<Vec<u8>>().prop_map(|b| ("bytea", Value::Bytes(Arc::from(b))));
        let uuid = any::<[u8; 16]>().prop_map(|u| ("uuid", Value::Uuid(u)));
        let scaled = |ty| {
            (any::<i64>(), 0..30u8).prop_map(move |(n, scale)| {
                (ty, Value::Decimal(foldline_api::decimal::Decimal::new(n.into(), scale)))
            })
        };
        let moment = (-62_135_596_800_000_000..=253_402_300_799_999_999i64).prop_map(|micros| {
            let moment = Timestamp::from_micros(micros);
            ("timestamptz", moment.map(Value::Timestamp).unwrap_or_default())
        });
        let time = (0..86_400_000_000i64).prop_map(|micros| {
            let time = foldline_api::time::Time::from_micros(micros);
            ("time", time.map(Value::Time).unwrap_or_default())
        });
        let date = (-719_162..2_932_896i32).prop_map(|days| {
            ("date", foldline_api::time::Date::from_days(days).map(Value::Date).unwrap_or_default())
        });
        let array = proptest::collection::vec(any::<Option<i64>>(), 0..4).prop_map(|list| {
            let item = |n: Option<i64>| n.map(Value::Int).unwrap_or_default();
            ("bigint[]", Value::list(list.into_iter().map(item).collect()))
        });
        let bool = any::<bool>().prop_map(|b| ("boolean", Value::Bool(b)));
        let scalars = prop_oneof![int, text, double, single, bytes, uuid, bool];
        prop_oneof![scalars, scaled("numeric"), scaled("numeric(40,4)"), moment, time, date, array]
    }

    proptest! {
        #[test]
        fn what_was_coerced_reads_back_the_same((ty, value) in value()) {
            // As the fold does before it hands a row over.
            let Ok(value) = column(ty).ty.coerce(value) else { return Ok(()) };
            let back = round_trip(ty, &value);
            prop_assert_eq!(&back, &value);
            prop_assert_eq!(json::to_string(&back), json::to_string(&value), "not a digit differs");
        }
    }

    #[test]
    fn moments_sort_as_texts() {
        let texts: Vec<String> = [
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00.25Z",
            "2026-01-01T00:00:01Z",
            "9999-12-31T23:59:59.999999Z",
        ]
        .iter()
        .map(|text| {
            match encode(&ColumnType::TimestampTz, &Value::Timestamp(text.parse().unwrap())) {
                Cell::Text(text) => text.into_owned(),
                other => panic!("{other:?}"),
            }
        })
        .collect();
        assert_eq!(texts[1], "2026-01-01T00:00:00.250000Z");
        assert_eq!(texts[3], "9999-12-31T23:59:59.999999Z");
        assert!(texts.is_sorted());
    }

    #[test]
    fn neighbours_do_not_pass_for_others() {
        let text = |t: &'static str| Cell::Text(Cow::Borrowed(t));
        let of = |cells: &[Cell<'_>]| Fingerprint::default().of(cells);
        assert_ne!(of(&[text("ab"), text("c")]), of(&[text("a"), text("bc")]));
        assert_ne!(of(&[text("1")]), of(&[Cell::Int(1)]));
        assert_ne!(of(&[Cell::Null, text("")]), of(&[text(""), Cell::Null]));
        assert_eq!(of(&[Cell::Real(0.5)]), of(&[Cell::Real(0.5)]));
    }

    #[test]
    fn what_someone_else_wrote_is_named_by_its_column_only() {
        let error = decode(&column("numeric(4,2)"), ValueRef::Text(b"secret")).unwrap_err();
        assert!(error.message().contains("column c"), "{error}");
        assert!(!error.message().contains("secret"), "{error}");
    }
}
