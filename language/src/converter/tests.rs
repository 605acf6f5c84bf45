//! What a null, what is no object, and what would expand without end.

use super::*;
use crate::event::PathSet;

/// What `value` decodes to for a projection that reads `event.a`: whether it is a tombstone, what it is
/// instead of an object, and what was found.
fn decoded(value: Format, bytes: &'static [u8]) -> (bool, Option<&'static str>, Option<Value>) {
    let mut paths = PathSet::default();
    paths.insert(&[Arc::from("a")]);
    let (mask, slots) = paths.mask();
    let record = Record {
        topic: Arc::from("t"),
        partition: 0,
        offset: 0,
        timestamp: None,
        key: None,
        value: Some(Bytes::from_static(bytes)),
        headers: Vec::new(),
    };
    let event = Decoder { key: None, value, mask, slots, opener: None }.decode(&record).unwrap();
    (event.kind == Kind::Tombstone, event.no_object, event.slots.first().cloned().flatten())
}

#[test]
fn a_null_of_any_converter_is_a_tombstone() {
    let null = (true, None, None);
    assert_eq!(decoded(Format::Json, b" null "), null);
    for both in [
        &br#"{"schema":null,"payload":null}"#[..],
        br#"{"schema":{"type":"struct","fields":[],"optional":true},"payload":null}"#,
    ] {
        assert_eq!(decoded(Format::ConnectJson, both), null);
    }
    // Texts and bytes have no null of their own.
    assert_eq!(decoded(Format::Text, b"null"), (false, Some("a text"), None));
}

#[test]
fn what_is_no_object_is_told_from_an_object_without_the_field() {
    assert_eq!(decoded(Format::Json, b"{}"), (false, None, None));
    assert_eq!(decoded(Format::Json, br#"{"a":1}"#), (false, None, Some(Value::Int(1))));
    for (bytes, found) in [
        (&b"7"[..], "a number"),
        (b"-7", "a number"),
        (b"true", "a boolean"),
        (br#""{\"a\":1}""#, JSON_TEXT),
        (br#""a""#, "a text"),
        (br#"[{"a":1}]"#, "a list"),
    ] {
        assert_eq!(decoded(Format::Json, bytes), (false, Some(found), None));
    }
    let list = br#"{"schema":null,"payload":[1]}"#;
    assert_eq!(decoded(Format::ConnectJson, list), (false, Some("a list"), None));
    assert_eq!(decoded(Format::Bytes, b"{}"), (false, Some("bytes"), None));
}

/// A few bytes must not become gigabytes, in no converter, nor in a key.
#[test]
fn what_would_expand_without_end_is_refused() {
    let mut paths = PathSet::default();
    paths.insert(&[]);
    let (mask, slots) = paths.mask();
    let decode = |value: Format, text: &str| {
        let record = Record {
            topic: Arc::from("t"),
            partition: 0,
            offset: 0,
            timestamp: None,
            key: Some(Bytes::copy_from_slice(text.as_bytes())),
            value: Some(Bytes::copy_from_slice(text.as_bytes())),
            headers: Vec::new(),
        };
        let key = matches!(value, Format::Json).then_some(Format::Json);
        let decoder = Decoder { key, value, mask: mask.clone(), slots, opener: None };
        decoder.decode(&record).map(|event| event.slots.len())
    };
    let list = |item: &str, times: usize| format!("[{}]", vec![item; times].join(","));
    assert_eq!(decode(Format::Json, &list("1e16383", 100)), Ok(1));
    assert_eq!(decode(Format::Json, &list("1", 100_000)), Ok(1));
    for (item, times) in [("1e16383", 125_000), ("1", 1_500_000), ("{}", 1_500_000)] {
        let list = list(item, times);
        let error = decode(Format::Json, &list).unwrap_err();
        assert!(matches!(error.error, ConvertError::Json(JsonError::Budget(_))), "{error}");
        let connect = format!("{{\"schema\":null,\"payload\":{list}}}");
        assert!(decode(Format::ConnectJson, &connect).is_err());
    }
}
