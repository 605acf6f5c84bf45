//! How a column is compared in the index that is there: by which field, and whether to its last digit.

use foldline_api::column::ColumnType;
use foldline_api::model::Column;
use foldline_api::{Error, Result};
use serde_json::Value as Json;

/// What a double keeps of every decimal.
const DIGITS_MAX: u16 = 15;
/// Elasticsearch's own, where a keyword has none.
const IGNORE_ABOVE: u64 = 2_147_483_647;
/// Parameters by which a field holds other values than the column, or is not found by them.
const CHANGED: [&str; 4] = ["null_value", "normalizer", "script", "split_queries_on_whitespace"];

/// A column, as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compared {
    /// The field whose values are compared.
    pub(super) field: String,
    pub(super) by: By,
}

/// What its values are in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Those of the column; texts that are longer than this are left out.
    Text(u64),
    /// Those of the column.
    Itself,
    /// Milliseconds: the microseconds are in the document.
    Moment,
    /// The day's first millisecond.
    Day,
}

impl Compared {
    /// Of a column that is compared or ordered, by the properties of the index's mapping.
    ///
    /// # Errors
    /// A config error that names the column, why not, and the way out.
    pub(super) fn of(column: &Column, properties: &Json) -> Result<Self> {
        let name = &*column.name;
        let mapped = properties.get(name).ok_or_else(|| {
            refused(name, "the index has no such field yet", "rebuild the connector")
        })?;
        match &column.ty {
            ColumnType::Text | ColumnType::Varchar(_) => text(name, mapped),
            ColumnType::Numeric(bounds) => {
                if bounds.is_none_or(|(precision, _)| precision > DIGITS_MAX) {
                    let why = format!(
                        "{} is a double in the index, which tells no two numbers of more than {DIGITS_MAX} digits apart",
                        column.ty
                    );
                    return Err(refused(name, &why, "give it numeric(15,2) or less"));
                }
                typed(name, mapped, "double", By::Itself)
            }
            ColumnType::BigInt => typed(name, mapped, "long", By::Itself),
            ColumnType::Integer => typed(name, mapped, "integer", By::Itself),
            ColumnType::SmallInt => typed(name, mapped, "short", By::Itself),
            ColumnType::DoublePrecision => typed(name, mapped, "double", By::Itself),
            ColumnType::Real => typed(name, mapped, "float", By::Itself),
            ColumnType::Boolean => typed(name, mapped, "boolean", By::Itself),
            ColumnType::TimestampTz => typed(name, mapped, "date", By::Moment),
            ColumnType::Date => typed(name, mapped, "date", By::Day),
            ColumnType::Time | ColumnType::Uuid => typed(name, mapped, "keyword", By::Itself),
            other => {
                let why = format!("{other} is not searched by in Elasticsearch");
                Err(refused(name, &why, "compare another field"))
            }
        }
    }

    /// That null can be told from a value.
    ///
    /// # Errors
    /// As of [`Compared::of`].
    pub(super) fn check_null(column: &Column, properties: &Json) -> Result<()> {
        let name = &*column.name;
        match &column.ty {
            ColumnType::Jsonb
            | ColumnType::Array(_)
            | ColumnType::Children(_)
            | ColumnType::Bytea => {
                let why = format!(
                    "{} is not searched by in Elasticsearch, nor whether it is null",
                    column.ty
                );
                Err(refused(name, &why, "compare another field"))
            }
            // A number beyond a double is told by what the index left out.
            ColumnType::Numeric(_) if properties.get(name).is_some() => Ok(()),
            _ => Compared::of(column, properties).map(drop),
        }
    }
}

pub(super) fn refused(name: &str, why: &str, way_out: &str) -> Error {
    Error::config(format!("{name}: {why}: {way_out}"))
}

/// Whether the values of a field are found and ordered as they are.
fn is_plain(mapped: &Json) -> bool {
    let off = |key: &str| mapped.get(key).is_some_and(|on| on == false || on == "false");
    !off("index") && !off("doc_values") && CHANGED.iter().all(|key| mapped.get(*key).is_none())
}

fn type_of(mapped: &Json) -> &str {
    // Of an object Elasticsearch tells no type.
    mapped.get("type").and_then(Json::as_str).unwrap_or("object")
}

fn typed(name: &str, mapped: &Json, wanted: &str, by: By) -> Result<Compared> {
    if type_of(mapped) == wanted && is_plain(mapped) {
        return Ok(Compared { field: name.to_owned(), by });
    }
    let why = format!(
        "your mapping makes it {} with other values than the column's, or not searched by",
        type_of(mapped)
    );
    Err(refused(name, &why, &format!("map it as {wanted} to compare it")))
}

/// A text is compared whole: by itself where it is a keyword, else by a subfield that is one.
fn text(name: &str, mapped: &Json) -> Result<Compared> {
    let keyword = |mapped: &Json| {
        let above = mapped.get("ignore_above").and_then(Json::as_u64).unwrap_or(IGNORE_ABOVE);
        (type_of(mapped) == "keyword" && is_plain(mapped)).then_some(By::Text(above))
    };
    if let Some(by) = keyword(mapped) {
        return Ok(Compared { field: name.to_owned(), by });
    }
    let fields = mapped.get("fields").and_then(Json::as_object);
    let found = fields.into_iter().flatten().find_map(|(sub, mapped)| {
        Some(Compared { field: format!("{name}.{sub}"), by: keyword(mapped)? })
    });
    found.ok_or_else(|| {
        let why = format!("your mapping makes it {}, which is no whole text", type_of(mapped));
        refused(name, &why, "give it a subfield of type keyword to compare it, or search it by q")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use foldline_api::value::Value;
    use serde_json::json;

    use super::*;

    fn column(ty: &str) -> Column {
        let ty = ColumnType::parse(ty).unwrap();
        Column { name: Arc::from("c"), ty, index: false, default: Value::Null }
    }

    fn of(ty: &str, mapped: Json) -> std::result::Result<Compared, String> {
        Compared::of(&column(ty), &json!({ "c": mapped })).map_err(|error| error.to_string())
    }

    #[test]
    fn a_text_is_compared_by_a_keyword() {
        let by = |field: &str, above| Ok(Compared { field: field.to_owned(), by: By::Text(above) });
        assert_eq!(of("text", json!({ "type": "keyword", "ignore_above": 8191 })), by("c", 8_191));
        let sub = json!({ "type": "text", "fields": {
            "english": { "type": "text", "analyzer": "english" },
            "raw": { "type": "keyword", "ignore_above": 256 },
        } });
        assert_eq!(of("text", sub), by("c.raw", 256));
        for mapped in [
            json!({ "type": "text" }),
            json!({ "type": "keyword", "normalizer": "lowercase" }),
            json!({ "type": "keyword", "index": false }),
            json!({ "type": "text", "fields": { "raw": { "type": "keyword", "doc_values": false } } }),
        ] {
            assert!(of("text", mapped).unwrap_err().contains("subfield of type keyword"));
        }
    }

    #[test]
    fn what_the_index_cannot_tell_apart_is_refused_by_name() {
        let double = json!({ "type": "double", "ignore_malformed": true });
        assert!(of("numeric(15,2)", double.clone()).is_ok());
        assert!(
            of("numeric(16,2)", double.clone())
                .unwrap_err()
                .starts_with("c: numeric(16,2) is a double")
        );
        assert!(of("numeric", double).unwrap_err().contains("more than 15 digits"));
        assert!(of("bigint", json!({ "type": "keyword" })).unwrap_err().contains("map it as long"));
        assert!(of("bigint", json!({ "type": "long", "null_value": 0 })).is_err());
        assert!(of("bytea", json!({ "type": "binary" })).unwrap_err().contains("not searched by"));
        assert!(
            Compared::of(&column("text"), &json!({}))
                .unwrap_err()
                .message()
                .contains("no such field yet")
        );
        let null =
            |ty: &str, mapped: Json| Compared::check_null(&column(ty), &json!({ "c": mapped }));
        assert!(null("numeric", json!({ "type": "double" })).is_ok());
        assert!(null("jsonb", json!({ "type": "object", "enabled": false })).is_err());
    }
}
