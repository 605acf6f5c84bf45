//! Kafka Connect's JsonConverter with `schemas.enable`: `{"schema": …, "payload": …}`, the schema's
//! logical types carried out.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::decimal::Decimal;
use foldline_api::json::{parse_base64, parse_within};
use foldline_api::time::{Date, Time, Timestamp};
use foldline_api::value::{Map, Value};

use super::ConvertError;
use super::envelope::unavailable::PLACEHOLDER;

/// Decodes one enveloped document; a null payload is null.
pub(super) fn decode(bytes: &[u8], budget: &Budget) -> Result<Value, ConvertError> {
    let Value::Map(envelope) = parse_within(bytes, budget)? else {
        return Err(wrong("the value is not an object"));
    };
    let payload = envelope.get("payload").ok_or_else(|| wrong("payload is missing"))?;
    match envelope.get("schema") {
        Some(Value::Map(schema)) => typed(payload, schema, budget),
        Some(Value::Null) => Ok(payload.clone()),
        _ => Err(wrong("schema is missing")),
    }
}

fn wrong(what: &str) -> ConvertError {
    ConvertError::ConnectSchema(what.to_owned())
}

fn text<'a>(map: &'a Map, key: &str) -> Option<&'a str> {
    match map.get(key) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

fn typed(value: &Value, schema: &Map, budget: &Budget) -> Result<Value, ConvertError> {
    // Who replaces nulls by a default writes the default, so a null that stands there is one.
    if value.is_null() {
        return Ok(Value::Null);
    }
    if let Some(name) = text(schema, "name")
        && let Some(logical) = logical(name, value, schema, budget)?
    {
        return Ok(logical);
    }
    match (text(schema, "type"), value) {
        (Some("struct"), Value::Map(map)) => typed_struct(map, schema, budget),
        (Some("array"), Value::List(items)) => {
            let Some(Value::Map(inner)) = schema.get("items") else {
                return Err(wrong("an array without items"));
            };
            let items: Result<Vec<_>, _> =
                items.iter().map(|item| typed(item, inner, budget)).collect();
            Ok(Value::list(items?))
        }
        (Some("map"), Value::Map(map)) => {
            let Some(Value::Map(inner)) = schema.get("values") else {
                return Err(wrong("a map without values"));
            };
            let entry = |(key, item): (&Arc<str>, &Value)| {
                Ok::<_, ConvertError>((Arc::clone(key), typed(item, inner, budget)?))
            };
            let entries: Result<Vec<_>, ConvertError> = map.iter().map(entry).collect();
            Ok(Value::map(entries?))
        }
        (Some("bytes"), Value::Text(text)) => {
            let bytes = parse_base64(text).ok_or_else(|| wrong("bytes that are not base64"))?;
            Ok(Value::Bytes(Arc::from(bytes)))
        }
        (Some("float" | "double"), Value::Int(int)) => Ok(Value::Double(*int as f64)),
        (Some("float" | "double"), Value::Decimal(decimal)) => Ok(Value::Double(decimal.to_f64())),
        (Some("int8" | "int16" | "int32" | "int64"), Value::Int(_))
        | (Some("boolean"), Value::Bool(_))
        | (Some("string"), Value::Text(_)) => Ok(value.clone()),
        (Some(ty), _) => Err(wrong(&format!("schema says {ty}, payload is {}", value.type_name()))),
        (None, _) => Err(wrong("a schema without a type")),
    }
}

fn typed_struct(map: &Map, schema: &Map, budget: &Budget) -> Result<Value, ConvertError> {
    let Some(Value::List(fields)) = schema.get("fields") else {
        return Err(wrong("a struct without fields"));
    };
    let mut entries = Vec::with_capacity(fields.len());
    for field in fields.iter() {
        let Value::Map(field) = field else { return Err(wrong("a field that is no object")) };
        let name = text(field, "field").ok_or_else(|| wrong("a field without a name"))?;
        if let Some(value) = map.get(name) {
            entries.push((Arc::from(name), typed(value, field, budget)?));
        }
    }
    Ok(Value::map(entries))
}

fn logical(
    name: &str,
    value: &Value,
    schema: &Map,
    budget: &Budget,
) -> Result<Option<Value>, ConvertError> {
    let int = match value {
        Value::Int(int) => Some(*int),
        _ => None,
    };
    let logical = match name {
        "org.apache.kafka.connect.data.Decimal" => decimal(value, schema, budget)?,
        "org.apache.kafka.connect.data.Timestamp" | "io.debezium.time.Timestamp" => {
            int.and_then(Timestamp::from_millis).map(Value::Timestamp)
        }
        "io.debezium.time.MicroTimestamp" => {
            int.and_then(Timestamp::from_micros).map(Value::Timestamp)
        }
        "io.debezium.time.ZonedTimestamp" => match value {
            Value::Text(text) => text.parse().ok().map(Value::Timestamp),
            _ => None,
        },
        "org.apache.kafka.connect.data.Date" | "io.debezium.time.Date" => {
            int.and_then(|days| i32::try_from(days).ok()).and_then(Date::from_days).map(Value::Date)
        }
        "org.apache.kafka.connect.data.Time" | "io.debezium.time.Time" => {
            int.and_then(|ms| ms.checked_mul(1_000)).and_then(Time::from_micros).map(Value::Time)
        }
        "io.debezium.time.NanoTimestamp" => {
            int.and_then(Timestamp::from_nanos).map(Value::Timestamp)
        }
        "io.debezium.time.NanoTime" => int.and_then(Time::from_nanos).map(Value::Time),
        "io.debezium.data.VariableScaleDecimal" => variable_scale(value, budget)?,
        "io.debezium.time.MicroTime" => int.and_then(Time::from_micros).map(Value::Time),
        "io.debezium.data.Json" => match value {
            // It stands for a value that was not sent, and is no JSON.
            Value::Text(text) if **text == *PLACEHOLDER => Some(value.clone()),
            Value::Text(text) => Some(parse_within(text.as_bytes(), budget)?),
            _ => None,
        },
        _ => return Ok(None),
    };
    logical.map(Some).ok_or_else(|| wrong(&format!("a payload that is no {name}")))
}

/// Connect's decimal: the unscaled value as big-endian two's complement of any length, the scale in the schema. Below
/// zero, as Oracle's NUMBER(10,-2) has it, the scale stands for zeros before the point.
fn decimal(value: &Value, schema: &Map, budget: &Budget) -> Result<Option<Value>, ConvertError> {
    let Value::Text(text) = value else {
        // `decimal.format=NUMERIC` writes a plain number.
        let plain = matches!(value, Value::Int(_) | Value::Decimal(_));
        return Ok(plain.then(|| value.clone()));
    };
    let Some(Value::Map(parameters)) = schema.get("parameters") else { return Ok(None) };
    let scale = self::text(parameters, "scale").and_then(|scale| scale.parse().ok());
    unscaled(text, scale, budget)
}

/// Debezium's numeric without a scale of its own: `{ scale, value }`.
fn variable_scale(value: &Value, budget: &Budget) -> Result<Option<Value>, ConvertError> {
    let Value::Map(map) = value else { return Ok(None) };
    let (Some(Value::Int(scale)), Some(Value::Text(text))) = (map.get("scale"), map.get("value"))
    else {
        return Ok(None);
    };
    unscaled(text, Some(*scale), budget)
}

fn unscaled(
    text: &str,
    scale: Option<i64>,
    budget: &Budget,
) -> Result<Option<Value>, ConvertError> {
    let number = scale
        .zip(parse_base64(text))
        .and_then(|(scale, bytes)| Decimal::from_unscaled(&bytes, scale));
    if let Some(decimal) = &number {
        budget.bytes(decimal.heap_bytes())?;
        budget.number(decimal)?;
    }
    Ok(number.map(Value::Decimal))
}

#[cfg(test)]
mod tests {
    use foldline_api::json::to_string;

    use super::*;

    #[test]
    fn logical_types_are_carried_out() {
        let json = r#"{"schema":{"type":"struct","fields":[
            {"field":"id","type":"int64"},
            {"field":"price","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}},
            {"field":"at","type":"int64","name":"org.apache.kafka.connect.data.Timestamp"},
            {"field":"day","type":"int32","name":"org.apache.kafka.connect.data.Date"},
            {"field":"tags","type":"array","items":{"type":"string"}},
            {"field":"none","type":"string","optional":true}]},
            "payload":{"id":9007199254740993,"price":"/zg=","at":1700000000123,"day":20512,"tags":["a"],"none":null}}"#;
        let value = decode(json.as_bytes(), &Budget::default()).unwrap();
        assert_eq!(
            to_string(&value),
            r#"{"at":"2023-11-14T22:13:20.123Z","day":"2026-02-28","id":9007199254740993,"none":null,"price":-2.00,"tags":["a"]}"#
        );
    }

    #[test]
    fn what_contradicts_its_schema_is_refused() {
        for wrong in [
            r#"{"id":1}"#,
            r#"{"schema":{"type":"int64"},"payload":"x"}"#,
            r#"{"schema":{"type":"bytes"},"payload":"*"}"#,
            "1",
        ] {
            assert!(decode(wrong.as_bytes(), &Budget::default()).is_err(), "{wrong}");
        }
    }

    /// The decimal of `scale` whose unscaled value has these bytes.
    fn price(scale: &str, bytes: &[u8]) -> Result<String, ConvertError> {
        let mut text = String::new();
        foldline_api::json::write_base64(bytes, &mut text);
        let json = format!(
            r#"{{"schema":{{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{{"scale":"{scale}"}}}},"payload":"{text}"}}"#
        );
        decode(json.as_bytes(), &Budget::default()).map(|value| to_string(&value))
    }

    #[test]
    fn decimals_have_any_length_and_scale() {
        // 10^41, of 18 bytes, as numeric(50,0) and MySQL's decimal(65,30) have them.
        let wide = [
            1, 0x25, 0xdf, 0xa3, 0x71, 0xa1, 0x9e, 0x6f, 0x7c, 0xb5, 0x43, 0x95, 0xca, 0, 0, 0, 0,
            0,
        ];
        let number = price("0", &wide).unwrap();
        assert_eq!(number.len(), 42, "{number}");
        let small = price("30", &wide).unwrap();
        assert_eq!(
            small.split_once('.').map(|(whole, part)| (whole.len(), part.len())),
            Some((12, 30))
        );
        assert_eq!(price("-2", b"\x03\xe8").as_deref(), Ok("100000"));
        assert_eq!(price("2", b"\xff").as_deref(), Ok("-0.01"));
        assert_eq!(price("200", b"\x01").unwrap().len(), 202);
        for (scale, bytes) in
            [("0", &b""[..]), ("x", b"\x01"), ("-99999999", b"\x01"), ("99999999", b"\x01")]
        {
            assert!(price(scale, bytes).is_err(), "{scale}");
        }
    }

    #[test]
    fn what_debezium_writes_is_what_its_source_holds() {
        let of = |ty: &str, name: &str, payload: &str| {
            let json =
                format!(r#"{{"schema":{{"type":"{ty}","name":"{name}"}},"payload":{payload}}}"#);
            to_string(&decode(json.as_bytes(), &Budget::default()).unwrap())
        };
        let variable = r#"{"scale":4,"value":"A/016Q=="}"#;
        assert_eq!(of("struct", "io.debezium.data.VariableScaleDecimal", variable), "6692.6057");
        assert_eq!(of("int64", "io.debezium.time.NanoTime", "1600"), "\"00:00:00.000002\"");
        assert_eq!(
            of("int64", "io.debezium.time.NanoTimestamp", "1700000000123456789"),
            "\"2023-11-14T22:13:20.123457Z\""
        );
        assert_eq!(of("string", "io.debezium.data.Json", "\"{\\\"a\\\":1}\""), r#"{"a":1}"#);
        let gone = format!("\"{PLACEHOLDER}\"");
        assert_eq!(of("string", "io.debezium.data.Json", &gone), gone);
        // A null is a null, whatever the default.
        let null = r#"{"schema":{"type":"struct","fields":[{"field":"a","type":"string","optional":true,"default":"x"}]},"payload":{"a":null}}"#;
        assert_eq!(
            to_string(&decode(null.as_bytes(), &Budget::default()).unwrap()),
            r#"{"a":null}"#
        );
    }
}
