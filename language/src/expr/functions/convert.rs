//! Conversions, sizes and types.

use std::fmt::Write as _;
use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::column::scalar_text;
use foldline_api::decimal::Decimal;
use foldline_api::json::{JsonError, parse_base64, parse_within};
use foldline_api::time::Timestamp;
use foldline_api::value::Value;

use crate::expr::node::{Args, Fault, Form, Function, Out};
use crate::expr::ops;

pub(super) const TABLE: &[Function] = &[
    Function::new("size", Form::Either, (1, 1), size),
    Function::new("type", Form::Global, (1, 1), type_of),
    Function::new("dyn", Form::Global, (1, 1), same),
    Function::new("int", Form::Global, (1, 1), int),
    Function::new("uint", Form::Global, (1, 1), uint),
    Function::new("double", Form::Global, (1, 1), double),
    Function::new("decimal", Form::Global, (1, 1), decimal),
    Function::new("decimalBytes", Form::Global, (2, 2), decimal_bytes),
    Function::new("string", Form::Global, (1, 1), string),
    Function::new("bytes", Form::Global, (1, 1), bytes),
    Function::new("json", Form::Global, (1, 1), json),
    Function::new("bool", Form::Global, (1, 1), boolean),
    Function::new("timestamp", Form::Global, (1, 1), timestamp),
    Function::new("duration", Form::Global, (1, 1), duration),
];

/// The type that a name of CEL's denotes, as `type()` gives it: `type(x) == int`.
pub(in crate::expr) fn type_named(name: &str) -> Option<&'static str> {
    Some(match name {
        // An unsigned integer is an integer here.
        "int" | "uint" => "int",
        "decimal" => "decimal",
        "double" => "double",
        "string" => "string",
        "bytes" => "bytes",
        "bool" => "bool",
        "list" => "list",
        "map" => "map",
        "null_type" => "null_type",
        "date" => "date",
        "time" => "time",
        "uuid" => "uuid",
        "google.protobuf.Timestamp" => "google.protobuf.Timestamp",
        "google.protobuf.Duration" => "google.protobuf.Duration",
        _ => return None,
    })
}

fn type_of(args: Args<'_, '_>, _: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    Ok(Value::text(match value.as_ref() {
        Value::Null => "null_type",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Decimal(_) => "decimal",
        Value::Double(_) => "double",
        Value::Text(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::Timestamp(_) => "google.protobuf.Timestamp",
        Value::Duration(_) => "google.protobuf.Duration",
        Value::Date(_) => "date",
        Value::Time(_) => "time",
        Value::Uuid(_) => "uuid",
        Value::List(_) => "list",
        Value::Map(_) => "map",
    }))
}

fn same(args: Args<'_, '_>, _: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    Ok(value.clone().into_owned())
}

/// A length as an integer.
pub(super) fn count(length: usize) -> Value {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

fn size(args: Args<'_, '_>, budget: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    match value.as_ref() {
        Value::Text(text) => {
            budget.pass(text.len())?;
            Ok(count(text.chars().count()))
        }
        Value::Bytes(bytes) => Ok(count(bytes.len())),
        Value::List(items) => Ok(count(items.len())),
        Value::Map(map) => Ok(count(map.len())),
        _ => Err(Fault::Types),
    }
}

const INT_RANGE: &str = "the number does not fit a 64-bit integer";

/// A double cut to a whole number, if 64 bits hold it: its own value, not that of its shortest text.
fn whole(double: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    let whole = double.trunc();
    (-LIMIT..LIMIT).contains(&whole).then_some(whole as i64)
}

fn int(args: Args<'_, '_>, budget: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    budget.work(value)?;
    let int = match value.as_ref() {
        Value::Int(int) => Some(*int),
        Value::Decimal(decimal) => decimal.trunc_i64(),
        Value::Double(double) => whole(*double),
        Value::Text(text) => match text.parse() {
            Ok(int) => Some(int),
            Err(_) => return Err("the text is no 64-bit integer".into()),
        },
        Value::Timestamp(moment) => Some(moment.micros().div_euclid(1_000_000)),
        _ => return Err(Fault::Types),
    };
    int.map(Value::Int).ok_or_else(|| INT_RANGE.into())
}

fn uint(args: Args<'_, '_>, budget: &Budget) -> Out {
    match args {
        [value] if matches!(value.as_ref(), Value::Timestamp(_)) => Err(Fault::Types),
        _ => match int(args, budget)? {
            Value::Int(int) if int < 0 => Err("the number is negative".into()),
            value => Ok(value),
        },
    }
}

fn double(args: Args<'_, '_>, budget: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    budget.work(value)?;
    match value.as_ref() {
        Value::Text(text) => {
            text.parse().map(Value::Double).map_err(|_| "the text is no number".into())
        }
        number => ops::double(number).map(Value::Double).ok_or(Fault::Types),
    }
}

fn decimal(args: Args<'_, '_>, budget: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    match value.as_ref() {
        Value::Text(text) => {
            let decimal: Decimal =
                text.trim().parse().map_err(|_| Fault::from("the text is no number"))?;
            budget.bytes(decimal.heap_bytes())?;
            budget.number(&decimal)?;
            Ok(Value::Decimal(decimal))
        }
        Value::Double(double) => Decimal::from_f64(*double)
            .map(Value::Decimal)
            .ok_or_else(|| "the double is not finite".into()),
        // Debezium's numeric without a scale of its own.
        Value::Map(map) => match (map.get("scale"), map.get("value")) {
            (Some(Value::Int(scale)), Some(value)) => unscaled(value, *scale, budget),
            _ => Err("an object of a decimal has `scale` and `value`".into()),
        },
        number => ops::exact(number)
            .map(|decimal| Value::Decimal(decimal.into_owned()))
            .ok_or(Fault::Types),
    }
}

/// Connect's decimal without its schema: two's complement bytes, in JSON as base64, over ten to the scale.
fn decimal_bytes(args: Args<'_, '_>, budget: &Budget) -> Out {
    match args {
        [value, scale] => match scale.as_ref() {
            Value::Int(scale) => unscaled(value, *scale, budget),
            _ => Err(Fault::Types),
        },
        _ => Err(Fault::Types),
    }
}

fn unscaled(value: &Value, scale: i64, budget: &Budget) -> Out {
    let bytes: Arc<[u8]> = match value {
        Value::Bytes(bytes) => Arc::clone(bytes),
        Value::Text(text) => {
            budget.pass(text.len())?;
            budget.bytes(text.len())?;
            Arc::from(parse_base64(text).ok_or("the text is not base64")?)
        }
        _ => return Err(Fault::Types),
    };
    budget.digits(bytes.len())?;
    let decimal = Decimal::from_unscaled(&bytes, scale)
        .ok_or("there are no bytes, or the number has too many digits")?;
    budget.bytes(decimal.heap_bytes())?;
    budget.number(&decimal)?;
    Ok(Value::Decimal(decimal))
}

fn string(args: Args<'_, '_>, budget: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    let text = match value.as_ref() {
        Value::Text(text) => return Ok(Value::Text(Arc::clone(text))),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return Err("the bytes are not UTF-8".into()),
        },
        Value::Null | Value::List(_) | Value::Map(_) => return Err(Fault::Types),
        scalar => {
            budget.work(scalar)?;
            scalar_text(scalar)
        }
    };
    budget.bytes(text.len())?;
    Ok(Value::text(&text))
}

fn bytes(args: Args<'_, '_>, budget: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    match value.as_ref() {
        Value::Bytes(bytes) => Ok(Value::Bytes(Arc::clone(bytes))),
        Value::Text(text) => {
            budget.bytes(text.len())?;
            Ok(Value::Bytes(Arc::from(text.as_bytes())))
        }
        _ => Err(Fault::Types),
    }
}

/// What a text holds in JSON, as a `jsonb` comes where nothing tells its type.
fn json(args: Args<'_, '_>, budget: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    let Value::Text(text) = value.as_ref() else { return Err(Fault::Types) };
    budget.pass(text.len())?;
    parse_within(text.as_bytes(), budget).map_err(|error| match error {
        JsonError::Budget(limit) => limit.into(),
        _ => "the text is not JSON".into(),
    })
}

fn boolean(args: Args<'_, '_>, _: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    match value.as_ref() {
        Value::Bool(bool) => Ok(Value::Bool(*bool)),
        Value::Text(text) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            _ => Err("the text is neither true nor false".into()),
        },
        _ => Err(Fault::Types),
    }
}

fn timestamp(args: Args<'_, '_>, _: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    match value.as_ref() {
        Value::Timestamp(moment) => Ok(Value::Timestamp(*moment)),
        Value::Int(seconds) => seconds
            .checked_mul(1_000_000)
            .and_then(Timestamp::from_micros)
            .map(Value::Timestamp)
            .ok_or_else(|| {
                "so many seconds are outside the years 1 to 9999; timestampMillis() reads milliseconds"
                    .into()
            }),
        Value::Text(text) => text.parse().map(Value::Timestamp).map_err(|_| {
            "the text is not RFC 3339 with a zone, such as 2026-03-01T10:15:00Z".into()
        }),
        _ => Err(Fault::Types),
    }
}

fn duration(args: Args<'_, '_>, _: &Budget) -> Out {
    let [value] = args else { return Err(Fault::Types) };
    match value.as_ref() {
        Value::Duration(span) => Ok(Value::Duration(*span)),
        Value::Text(text) => match parse_duration(text) {
            Some(micros) => ops::span(Some(micros)),
            None => {
                let mut message = String::from("the text is no duration, such as 1h30m or 250ms");
                if text.ends_with(['d', 'w']) {
                    let _ = write!(message, "; a day is 24h");
                }
                Err(Fault::Says(message.into()))
            }
        },
        _ => Err(Fault::Types),
    }
}

/// Go's durations: `1h30m`, `-1.5s`, `250ms`, `0`; rounded to microseconds.
fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, tail) = rest.split_at_checked(number)?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, after) = tail.split_at_checked(unit_end)?;
        let unit: i128 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" | "μs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let read = |s: &str| if s.is_empty() { Some(0) } else { s.parse::<i128>().ok() };
        let fraction = fraction.get(..fraction.len().min(15))?;
        let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        nanos = nanos
            .checked_add(read(whole)?.checked_mul(unit)?)?
            .checked_add(read(fraction)?.checked_mul(unit)? / scale)?;
        rest = after;
    }
    let micros = i64::try_from((nanos + 500) / 1_000).ok()?;
    Some(if negative { -micros } else { micros })
}
