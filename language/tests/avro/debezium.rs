//! What Debezium writes in Avro, by the names that Connect gives its types.

use crate::bytes::{named, read, some};

/// What JSON with Connect's schemas says by the same names is the same there.
#[test]
fn debeziums_names_count_too() {
    let of = |ty: &str, name: &str| {
        format!(r#"{{"type":"{ty}","connect.version":1,"connect.name":"io.debezium.{name}"}}"#)
    };
    let text = |text: &str| [&[u8::try_from(text.len() * 2).unwrap()], text.as_bytes()].concat();
    for (schema, bytes, expected) in [
        (of("int", "time.Date"), vec![2], "\"1970-01-02\""),
        (of("int", "time.Time"), vec![4], "\"00:00:00.002\""),
        (of("long", "time.MicroTime"), vec![4], "\"00:00:00.000002\""),
        (of("long", "time.NanoTime"), vec![0x80, 0x19], "\"00:00:00.000002\""),
        (of("long", "time.Timestamp"), vec![4], "\"1970-01-01T00:00:00.002Z\""),
        (of("long", "time.MicroTimestamp"), vec![4], "\"1970-01-01T00:00:00.000002Z\""),
        (of("long", "time.NanoTimestamp"), vec![0x80, 0x19], "\"1970-01-01T00:00:00.000002Z\""),
        (
            of("string", "time.ZonedTimestamp"),
            text("2026-02-28T01:02:03.000004Z"),
            "\"2026-02-28T01:02:03.000004Z\"",
        ),
        (of("string", "data.Json"), text(r#"{"b":1.50,"a":null}"#), r#"{"a":null,"b":1.50}"#),
        // It stands for what was not sent.
        (
            of("string", "data.Json"),
            text("__debezium_unavailable_value"),
            "\"__debezium_unavailable_value\"",
        ),
        (of("string", "time.ZonedTime"), text("01:02:03Z"), "\"01:02:03Z\""),
        (of("string", "data.Uuid"), text("a"), "\"a\""),
        (of("bytes", "data.Bits"), vec![2, 7], "\"Bw==\""),
        // Of another type than they are of.
        (of("long", "data.Json"), vec![4], "2"),
    ] {
        assert_eq!(read(&schema, &bytes).as_deref(), Ok(expected), "{schema}");
    }
    for (schema, bytes) in [
        (of("string", "time.ZonedTimestamp"), text("soon")),
        (of("string", "data.Json"), text("{")),
        (of("int", "time.Time"), vec![1]),
    ] {
        let error = read(&schema, &bytes).unwrap_err();
        assert!(error.contains("or one that is out of range"), "{error}");
    }
    assert_eq!(
        named(
            &format!(
                r#"{{"type":"record","name":"R","fields":[{{"name":"doc","type":["null",{}]}}]}}"#,
                of("string", "data.Json")
            ),
            &["doc.a"],
            &[&[2][..], &text(r#"{"a":[7]}"#)].concat()
        ),
        (vec![some("[7]")], some("R"))
    );
}

#[test]
fn debeziums_number_of_any_scale_is_a_number() {
    let schema = |name: &str, scale: &str| {
        format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":["null",{{
                "type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","connect.name":"{name}",
                "fields":[{{"name":"scale","type":"{scale}"}},{{"name":"value","type":"bytes"}}]}}]}},
                {{"name":"b","type":["null","io.debezium.data.VariableScaleDecimal"]}}]}}"#
        )
    };
    let number = schema("io.debezium.data.VariableScaleDecimal", "int");
    let bytes = [2, 8, 8, 3, 0xfd, 0x35, 0xe9, 2, 1, 2, 7];
    assert_eq!(read(&number, &bytes).as_deref(), Ok(r#"{"a":6692.6057,"b":70}"#));
    let (found, _) = named(&number, &["a", "b.scale"], &bytes);
    assert_eq!(found, [some("6692.6057"), None]);
    let error = read(&number, &[2, 8, 0, 0]).unwrap_err();
    assert!(error.contains("a: no io.debezium.data.VariableScaleDecimal"), "{error}");
    // Of another shape, or another name, it is a record.
    for other in [schema("io.debezium.data.VariableScaleDecimal", "long"), schema("own", "int")] {
        let expected = r#"{"a":{"scale":4,"value":"A/016Q=="},"b":{"scale":-1,"value":"Bw=="}}"#;
        assert_eq!(read(&other, &bytes).as_deref(), Ok(expected));
    }
}
