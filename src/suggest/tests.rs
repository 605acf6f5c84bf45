use std::sync::Arc;

use foldline_api::json;
use proptest::prelude::*;

use super::*;

/// A record whose value is this JSON.
fn sample(key: &str, value: &str) -> Sample {
    let key = if key.is_empty() { Value::Null } else { Value::text(key) };
    Sample { key, value: json::parse(value.as_bytes()).unwrap(), ..Sample::default() }
}

fn suggested(samples: &[Sample]) -> String {
    suggest("orders", "es-orders", samples, &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn partial_updates_are_merged_by_what_is_the_records_key_too() {
    let text = suggested(&[
        sample("4711", r#"{"id":4711,"userId":1,"price":12.5,"note":"Ann lives here"}"#),
        sample("4711", r#"{"id":4711,"price":"7.10","amount":null}"#),
        sample("9", r#"{"id":9,"userId":2,"ship-to":{"city":"Ulm"},"at":"2026-01-01T00:00:00Z"}"#),
    ]);
    assert_has(
        &text,
        &[
            "key = { id = \"event.id\" }    # it is each record's key too",
            "id = \"bigint\"\n",
            "user_id = \"bigint\"\n",
            "price = \"numeric\"    # a guess",
            "amount = \"text\"    # a guess: only null was seen",
            "ship_to = \"jsonb\"\n",
            "at = \"timestamptz\"\n",
            "ship_to = \"event['ship-to']\"",
            "merge = { ",
        ],
    );
    for private in ["4711", "Ann", "Ulm", "7.10"] {
        assert!(!text.contains(private), "{private} is in\n{text}");
    }
    assert!(!text.contains("bad ="), "{text}");
}

#[test]
fn events_have_names_and_handlers_of_their_own() {
    let placed = r#"{"type":"OrderPlaced","id":1,"amount":3}"#;
    let deleted = r#"{"type":"OrderDeleted","id":1}"#;
    let text = suggested(&[sample("", placed), sample("", deleted), sample("", placed)]);
    assert_has(
        &text,
        &[
            "event_type = \"event.type\"",
            "event = \"OrderPlaced\"\n",
            "set = { amount = \"event.amount\", updated_at = \"timestamp\" }",
            "event = \"OrderDeleted\"\ndelete = true",
            "one of each event",
        ],
    );
    let of_header = |name: &str| Sample {
        headers: vec![("event-type".to_owned(), name.to_owned())],
        ..sample("7", r#"{"name":"Alpha"}"#)
    };
    let text = suggested(&[of_header("Created"), of_header("Renamed")]);
    assert_has(
        &text,
        &[
            "event_type = \"headers['event-type']\"",
            "key = { record_key = \"key\" }",
            "record_key = \"bigint\"",
        ],
    );
    let of_schema =
        |name: &str| Sample { name: Some(name.to_owned()), ..sample("", r#"{"id":1}"#) };
    assert_has(
        &suggested(&[of_schema("shop.A"), of_schema("shop.B")]),
        &["event = \"shop.A\"\n", "event = \"shop.B\" }"],
    );
}

#[test]
fn what_is_no_event_needs_no_name() {
    let named =
        |name: &str, value: &str| Sample { name: Some(name.to_owned()), ..sample("1", value) };
    let text = suggested(&[named("shop.A", r#"{"id":1}"#), named("", "null")]);
    assert!(!text.contains("event = \"\""), "{text}");
}

#[test]
fn change_events_are_rows() {
    let change = |op: &str, before: &str, after: &str| {
        let value = format!(
            r#"{{"op":"{op}","before":{before},"after":{after},"source":{{"db":"secret"}}}}"#
        );
        Sample { key: json::parse(b"{\"id\":4711}").unwrap(), ..sample("", &value) }
    };
    let row = r#"{"id":4711,"first_name":"Ann"}"#;
    let gone = Sample { value: Value::Null, ..change("d", row, "null") };
    let samples =
        [change("c", "null", row), change("u", "null", row), change("d", row, "null"), gone];
    let text = suggested(&samples);
    assert_has(
        &text,
        &[
            "envelope = \"debezium\"",
            "key = { id = \"event.id\" }    # the record's key, which is the table's primary key",
            "first_name = \"text\"",
            "expect = [\n]",
        ],
    );
    assert!(!text.contains("Ann") && !text.contains("secret") && !text.contains("4711"), "{text}");
    assert!(!text.contains("bad ="), "{text}");
}

/// What Avro and Protobuf give.
fn typed() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("at", Value::Timestamp("2020-02-03T04:05:06Z".parse().unwrap()), "timestamptz"),
        ("day", Value::Date("2020-02-03".parse().unwrap()), "date"),
        ("hour", Value::Time("04:05:06".parse().unwrap()), "time"),
        ("uid", Value::Uuid([7; 16]), "uuid"),
        ("raw", Value::Bytes(Arc::from(&b"secret"[..])), "bytea"),
        ("rate", Value::Double(4711.25), "double precision"),
        ("paid", Value::Bool(true), "boolean"),
    ]
}

#[test]
fn typed_values_keep_their_types() {
    let fields = typed().into_iter().map(|(name, value, _)| (name.to_owned(), value));
    let value = object(fields.chain([("id".to_owned(), Value::Int(4711))]).collect());
    let text = suggested(&[Sample { value, name: Some("shop.A".to_owned()), ..Sample::default() }]);
    for (name, _, ty) in typed() {
        assert_has(&text, &[&format!("{name} = \"{ty}\"")]);
    }
    for private in ["4711", "2020-02-03", "04:05:06", "0707", "c2VjcmV0"] {
        assert!(!text.contains(private), "{private} is in\n{text}");
    }
    assert!(!text.contains("bad ="), "{text}");
}

#[test]
fn what_is_no_event_is_refused() {
    for (samples, why) in [
        (vec![], "no records"),
        (vec![sample("a", "3"), sample("a", "null")], "no record's value is an object"),
    ] {
        let error = suggest("orders", "t", &samples, &[]).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (any::<i32>(), 0..1_000_u32)
            .prop_map(|(a, b)| { json::parse(format!("{a}.{b:03}").as_bytes()).unwrap() }),
        Just(json::parse(b"123456789012345678901234567890").unwrap()),
        any::<f64>().prop_map(Value::Double),
        any::<String>().prop_map(|text| Value::text(&text)),
        proptest::sample::select(vec![
            "",
            "12",
            "12.50",
            "007",
            "2026-01-31",
            "2026-01-31T12:00:00Z",
            "0001-01-01T00:00:00.000001Z",
            "6f1b2c3d-0000-4000-8000-0123456789ab",
            "${HOME}",
            "$${",
            "it's",
            "\u{0}",
            "OrderPlaced",
            "^a",
            "tombstone",
        ])
        .prop_map(Value::text),
        proptest::collection::vec(any::<u8>(), 0..4)
            .prop_map(|bytes| Value::Bytes(Arc::from(bytes))),
        (0..typed().len()).prop_map(|at| typed().remove(at).1),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(|items| Value::List(items.into())),
            proptest::collection::vec((field(), inner), 0..4).prop_map(object),
        ]
    })
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "id",
            "ID",
            "type",
            "userId",
            "user_id",
            "ship-to",
            "updated_at",
            "record_key",
            "in",
            "null",
            "op",
            "before",
            "after",
            "it's",
            "a.b",
            "",
            "_",
            "9",
            "Größe",
            "${X}",
            "\\",
            "event",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

fn object(entries: Vec<(String, Value)>) -> Value {
    let entries = entries.into_iter().map(|(name, value)| (Arc::from(name.as_str()), value));
    Value::Map(Arc::new(entries.collect()))
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let event = proptest::collection::vec((field(), value()), 0..6).prop_map(object).boxed();
    let row = prop_oneof![Just(Value::Null), event.clone()].boxed();
    let change = (proptest::sample::select(vec!["c", "u", "d", "r", "t"]), row.clone(), row)
        .prop_map(|(op, before, after)| {
            object(vec![
                ("op".into(), Value::text(op)),
                ("before".into(), before),
                ("after".into(), after),
            ])
        });
    let value = prop_oneof![6 => event.clone(), 3 => change, 1 => value()];
    let key = prop_oneof![scalar(), event];
    let headers = proptest::option::of("[a-zA-Z^${}' ]{0,6}");
    let name = proptest::option::of(proptest::sample::select(vec!["shop.A", "^b", "", "Deleted"]));
    (key, value, headers, name).prop_map(|(key, value, header, name)| Sample {
        key,
        value,
        headers: header.into_iter().map(|text| ("event-type".to_owned(), text)).collect(),
        name: name.map(str::to_owned),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever is sampled: what is suggested loads, compiles and passes, which `suggest` looks at last.
    #[test]
    fn whatever_is_sampled_the_suggestion_passes_its_own_tests(
        samples in proptest::collection::vec(any_sample(), 1..8),
        topic in "[a-zA-Z0-9._-]{1,20}",
        note in any::<String>(),
    ) {
        match suggest("orders", &topic, &samples, &[note]) {
            Ok(text) => {
                // Again, from the text alone.
                prop_assert!(check("orders", &text).is_ok());
                prop_assert!(text.contains("tests]]"));
            }
            Err(why) => prop_assert!(why.contains("is an object"), "{}", why),
        }
    }
}
