//! What kinds of value a field was seen with, and the column type that takes them all.

use std::collections::BTreeSet;

use foldline_api::time::{Date, Timestamp};
use foldline_api::value::Value;

/// A kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Bool,
    Int,
    Decimal,
    Double,
    /// A text that reads as a number.
    NumberText,
    MomentText,
    DateText,
    UuidText,
    Text,
    Moment,
    Date,
    Time,
    Uuid,
    Bytes,
    /// A list, an object, and what no column holds by itself.
    Nested,
}

/// The kind of a value; none of null.
pub(super) fn kind(value: &Value) -> Option<Kind> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => Kind::Bool,
        Value::Int(_) => Kind::Int,
        Value::Decimal(_) => Kind::Decimal,
        Value::Double(_) => Kind::Double,
        Value::Text(text) => kind_of_text(text),
        Value::Bytes(_) => Kind::Bytes,
        Value::Timestamp(_) => Kind::Moment,
        Value::Date(_) => Kind::Date,
        Value::Time(_) => Kind::Time,
        Value::Uuid(_) => Kind::Uuid,
        Value::Duration(_) | Value::List(_) | Value::Map(_) => Kind::Nested,
    })
}

fn kind_of_text(text: &str) -> Kind {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let number = !digits.is_empty()
        && digits.len() <= 15
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
        && digits.matches('.').count() <= 1;
    if number {
        Kind::NumberText
    } else if is_uuid(text) {
        Kind::UuidText
    } else if text.len() == 10 && text.parse::<Date>().is_ok() {
        Kind::DateText
    } else if text.len() >= 20 && text.parse::<Timestamp>().is_ok() {
        Kind::MomentText
    } else {
        Kind::Text
    }
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

/// The column type for these kinds, and what was guessed about it.
pub(super) fn column_type(kinds: &BTreeSet<Kind>) -> (&'static str, Option<&'static str>) {
    let all: Vec<Kind> = kinds.iter().copied().collect();
    let only = |allowed: &[Kind]| all.iter().all(|kind| allowed.contains(kind));
    match all.as_slice() {
        [] => ("text", Some("a guess: only null was seen")),
        [Kind::Bool] => ("boolean", None),
        [Kind::Int] => ("bigint", None),
        [Kind::MomentText | Kind::Moment] => ("timestamptz", None),
        [Kind::DateText | Kind::Date] => ("date", None),
        [Kind::UuidText | Kind::Uuid] => ("uuid", None),
        [Kind::Time] => ("time", None),
        [Kind::Bytes] => ("bytea", None),
        [Kind::Double] => ("double precision", None),
        [Kind::NumberText] => ("text", Some("a guess: texts that read as numbers")),
        _ if only(&[Kind::Int, Kind::Decimal]) => {
            ("numeric", Some("a guess: give precision and scale, such as numeric(12,2)"))
        }
        _ if only(&[Kind::Int, Kind::Decimal, Kind::NumberText]) => {
            ("numeric", Some("a guess: numbers, some of them as texts"))
        }
        _ if only(&[
            Kind::Text,
            Kind::NumberText,
            Kind::MomentText,
            Kind::DateText,
            Kind::UuidText,
        ]) =>
        {
            ("text", None)
        }
        [Kind::Nested] => ("jsonb", None),
        _ => ("jsonb", Some("a guess: values of several types were seen")),
    }
}
