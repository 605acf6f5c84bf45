//! The values that Debezium writes for a column that PostgreSQL did not send, since a change left it as it was.

use foldline_api::value::Value;

/// `unavailable.value.placeholder`, where it is not set.
pub(crate) const PLACEHOLDER: &str = "__debezium_unavailable_value";
/// Its bytes in base64, as JSON has a `bytea`.
const BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
/// The same in hex (`binary.handling.mode = hex`).
const HEX: &str = "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565";
/// The UUID made of its name, the one item of a `uuid[]`.
const UUID: &str = "b68a35a7-17ad-35b3-af2a-ae46edb4545a";
const UUID_BYTES: [u8; 16] = 0xb68a_35a7_17ad_35b3_af2a_ae46_edb4_545a_u128.to_be_bytes();
/// An `hstore` as a JSON text.
const HSTORE: &str = r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#;

/// Whether `value`, a column's, stands for one that was not sent.
pub(super) fn is_placeholder(value: &Value) -> bool {
    match value {
        Value::List(items) => match &**items {
            [only] => is_scalar(only),
            items => is_codes(items),
        },
        Value::Map(map) => {
            let mut entries = map.iter();
            match (entries.next(), entries.next()) {
                (Some((name, value)), None) => **name == *PLACEHOLDER && is_scalar(value),
                _ => false,
            }
        }
        scalar => is_scalar(scalar),
    }
}

fn is_scalar(value: &Value) -> bool {
    match value {
        // Nearly every text is told from all of them by its length.
        Value::Text(text) => match text.len() {
            28 => **text == *PLACEHOLDER,
            36 => **text == *UUID,
            40 => **text == *BASE64,
            56 => text.eq_ignore_ascii_case(HEX),
            63 => **text == *HSTORE,
            _ => false,
        },
        Value::Bytes(bytes) => **bytes == *PLACEHOLDER.as_bytes(),
        Value::Uuid(uuid) => *uuid == UUID_BYTES,
        _ => false,
    }
}

/// The characters' codes, as an array of integers or of dates has them.
fn is_codes(items: &[Value]) -> bool {
    let code = |value: &Value| match value {
        Value::Int(code) => Some(*code),
        Value::Date(date) => Some(i64::from(date.days())),
        _ => None,
    };
    items.len() == PLACEHOLDER.len()
        && items.iter().zip(PLACEHOLDER.bytes()).all(|(item, byte)| code(item) == Some(byte.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use foldline_api::json::parse;

    use super::*;

    #[test]
    fn each_spelling_is_known_and_nothing_else() {
        let codes: Vec<String> = PLACEHOLDER.bytes().map(|byte| byte.to_string()).collect();
        let codes = format!("[{}]", codes.join(","));
        for text in [
            r#""__debezium_unavailable_value""#,
            r#""X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==""#,
            r#""5f5f646562657a69756d5f756e617661696c61626c655f76616c7565""#,
            r#"["__debezium_unavailable_value"]"#,
            r#"["X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="]"#,
            r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#,
            r#""b68a35a7-17ad-35b3-af2a-ae46edb4545a""#,
            r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#,
            r#""{\"__debezium_unavailable_value\":\"__debezium_unavailable_value\"}""#,
            &codes,
        ] {
            assert!(is_placeholder(&parse(text.as_bytes()).unwrap()), "{text}");
        }
        assert!(is_placeholder(&Value::Bytes(Arc::from(PLACEHOLDER.as_bytes()))));
        let shorter = codes.replace("[95,", "[");
        for text in [
            "null",
            r#""""#,
            r#""__debezium_unavailable_valuE""#,
            r#"["__debezium_unavailable_value","a"]"#,
            r#"{"__debezium_unavailable_value":1}"#,
            "[]",
            "[95]",
            &shorter,
        ] {
            assert!(!is_placeholder(&parse(text.as_bytes()).unwrap()), "{text}");
        }
    }
}
