//! JSON in and out, number by number exact.

use std::fmt::Write as _;
use std::sync::Arc;

use jiter::{Jiter, JiterError, Peek};

use crate::budget::{Budget, Exceeded};
use crate::decimal::Decimal;
use crate::value::{Map, Value};

/// How deep objects and lists may nest.
pub const DEPTH_MAX: usize = 128;

/// Why a text is not the JSON that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON; what and where.
    #[error("malformed JSON: {0}")]
    Syntax(String),
    /// A number beyond what is kept.
    #[error("a number in the JSON is out of range")]
    NumberRange,
    /// Nested too deep.
    #[error("JSON nested deeper than {DEPTH_MAX}")]
    Depth,
    /// Not UTF-8.
    #[error("malformed JSON: not UTF-8")]
    Utf8,
    /// Larger than a record may become.
    #[error(transparent)]
    Budget(#[from] Exceeded),
}

impl From<JiterError> for JsonError {
    fn from(error: JiterError) -> Self {
        JsonError::Syntax(error.to_string())
    }
}

/// Reads one JSON document whole.
///
/// # Errors
/// When it is not JSON, not UTF-8, too deep, or holds a number out of range.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_within(bytes, &Budget::unlimited())
}

/// As [`parse`], at the expense of a record.
///
/// # Errors
/// As [`parse`], and when it takes more than the record has left.
pub fn parse_within(bytes: &[u8], budget: &Budget) -> Result<Value, JsonError> {
    std::str::from_utf8(bytes).map_err(|_| JsonError::Utf8)?;
    let mut reader = Jiter::new(bytes);
    let value = read_value(&mut reader, 0, budget)?;
    reader.finish()?;
    Ok(value)
}

/// Reads the next value from `reader`, whose bytes the caller knows to be UTF-8.
///
/// # Errors
/// As [`parse_within`].
pub fn read_value(
    reader: &mut Jiter<'_>,
    depth: usize,
    budget: &Budget,
) -> Result<Value, JsonError> {
    let peek = reader.peek()?;
    read_known(reader, peek, depth, budget)
}

/// Like [`read_value`], the first byte already looked at.
///
/// # Errors
/// As [`parse_within`].
pub fn read_known(
    reader: &mut Jiter<'_>,
    peek: Peek,
    depth: usize,
    budget: &Budget,
) -> Result<Value, JsonError> {
    if depth > DEPTH_MAX {
        return Err(JsonError::Depth);
    }
    match peek {
        Peek::Null => {
            reader.known_null()?;
            Ok(Value::Null)
        }
        Peek::True | Peek::False => Ok(Value::Bool(reader.known_bool(peek)?)),
        Peek::String => {
            let text = reader.known_str()?;
            budget.bytes(text.len())?;
            Ok(Value::text(text))
        }
        Peek::Array => {
            let mut items = Vec::new();
            let mut next = reader.known_array()?;
            while let Some(peek) = next {
                budget.bytes(size_of::<Value>())?;
                items.push(read_known(reader, peek, depth + 1, budget)?);
                next = reader.array_step()?;
            }
            Ok(Value::list(items))
        }
        Peek::Object => {
            let mut entries: Vec<(Arc<str>, Value)> = Vec::new();
            let mut next = reader.known_object()?.map(Arc::<str>::from);
            while let Some(key) = next {
                budget.bytes(size_of::<(Arc<str>, Value)>() + key.len())?;
                let value = read_value(reader, depth + 1, budget)?;
                entries.push((key, value));
                next = reader.next_key()?.map(Arc::<str>::from);
            }
            Ok(Value::Map(Arc::new(Map::from_entries(entries))))
        }
        _ => {
            let number = number(reader.known_number_bytes(peek)?)?;
            // `1e16383` has seven bytes, and thousands once it is read.
            if let Value::Decimal(decimal) = &number
                && let Some(bytes) = decimal.long_bytes()
            {
                budget.bytes(bytes)?;
                budget.digits(bytes)?;
            }
            Ok(number)
        }
    }
}

/// A JSON number's bytes as an integer where it is written as one and fits, else as a decimal.
///
/// # Errors
/// When it has more digits than are kept.
pub fn number(bytes: &[u8]) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::Utf8)?;
    if let Ok(int) = text.parse::<i64>() {
        return Ok(Value::Int(int));
    }
    text.parse::<Decimal>().map(Value::Decimal).map_err(|_| JsonError::NumberRange)
}

/// Appends `value` as JSON. Moments, dates, times, durations and UUIDs become texts, bytes become
/// base64 as Connect's JSON converter writes them; a double that JSON cannot spell becomes null.
pub fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(bool) => out.push_str(if *bool { "true" } else { "false" }),
        Value::Int(int) => {
            let _ = write!(out, "{int}");
        }
        Value::Decimal(decimal) => {
            let _ = write!(out, "{decimal}");
        }
        Value::Double(double) => write_double(*double, out),
        Value::Text(text) => write_text(text, out),
        Value::Bytes(bytes) => {
            out.push('"');
            write_base64(bytes, out);
            out.push('"');
        }
        Value::Timestamp(timestamp) => {
            let _ = write!(out, "\"{timestamp}\"");
        }
        Value::Date(date) => {
            let _ = write!(out, "\"{date}\"");
        }
        Value::Time(time) => {
            let _ = write!(out, "\"{time}\"");
        }
        Value::Duration(duration) => {
            let _ = write!(out, "\"{duration}\"");
        }
        Value::Uuid(bytes) => {
            let _ = write!(out, "\"{}\"", uuid::Uuid::from_bytes(*bytes).hyphenated());
        }
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write(item, out);
            }
            out.push('}');
        }
    }
}

/// `value` as a JSON text.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write_double(double: f64, out: &mut String) {
    if !double.is_finite() {
        out.push_str("null");
    } else if double == double.trunc() && double.abs() < 1e15 {
        let _ = write!(out, "{double:.1}");
    } else {
        let _ = write!(out, "{double:e}");
    }
}

/// Appends a JSON string.
pub fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(text.get(plain..at).unwrap_or_default());
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        plain = at + 1;
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends standard base64 with padding.
pub fn write_base64(bytes: &[u8], out: &mut String) {
    let digit = |n: u32| char::from(BASE64[usize::try_from(n & 63).unwrap_or(0)]);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        out.push(digit(word >> 18));
        out.push(digit(word >> 12));
        out.push(if chunk.len() > 1 { digit(word >> 6) } else { '=' });
        out.push(if chunk.len() > 2 { digit(word) } else { '=' });
    }
}

/// Reads standard base64, padded or not; none if it is not.
#[must_use]
pub fn parse_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut word, mut bits) = (0u32, 0u32);
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        word = word << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    // Left-over bits must be padding: fewer than 6 and all zero.
    (bits < 6 && word & ((1 << bits) - 1) == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        let text =
            r#"{"a":9223372036854775807,"b":9223372036854775808,"c":12.10,"d":-0.5,"e":1e3}"#;
        let value = parse(text.as_bytes()).unwrap();
        assert_eq!(
            to_string(&value),
            r#"{"a":9223372036854775807,"b":9223372036854775808,"c":12.10,"d":-0.5,"e":1000}"#
        );
    }

    #[test]
    fn objects_are_sorted_and_the_last_of_a_key_wins() {
        let value = parse(br#"{"b":1,"a":[true,null,"x\u0000\n\"\u00e9"],"b":2}"#).unwrap();
        assert_eq!(to_string(&value), r#"{"a":[true,null,"x\u0000\n\"é"],"b":2}"#);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for wrong in ["", "{", "{\"a\":}", "[1,]", "01", "1 2", "nul", "{\"a\":1e99999999}", "NaN"]
        {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(parse(b"\"\xff\""), Err(JsonError::Utf8));
        assert_eq!(parse("[".repeat(400).as_bytes()), Err(JsonError::Depth));
    }

    #[test]
    fn base64_goes_both_ways() {
        for bytes in [&b""[..], b"a", b"ab", b"abc", b"\x00\xff\x10\x80"] {
            let mut text = String::new();
            write_base64(bytes, &mut text);
            assert_eq!(parse_base64(&text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(parse_base64("a"), None);
        assert_eq!(parse_base64("a-_="), None);
    }

    #[test]
    fn doubles_read_back_the_same() {
        for double in [0.1, -1.5, 1e300, 5e-324, 123_456_789.0, 1.0 / 3.0] {
            let mut text = String::new();
            write_double(double, &mut text);
            let Value::Decimal(back) = number(text.as_bytes()).unwrap() else { panic!("{text}") };
            assert_eq!(back.to_f64().to_bits(), double.to_bits(), "{text}");
        }
    }
}
