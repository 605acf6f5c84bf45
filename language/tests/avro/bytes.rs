//! Schemas and bytes by hand: what encoders may write and seldom do, what none writes, and what is met in registries.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::json;
use foldline_api::value::Value;
use foldline_language::converter::Shape;
use foldline_language::converter::avro::{Compiled, Reference, Schema};
use foldline_language::event::{Mask, PathSet};
use foldline_testkit::page;

fn schema(text: &str) -> Arc<Schema> {
    Arc::new(Schema::parse(text, &[]).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// The value as JSON, or why there is none. What is passed over is refused for the same reason.
pub(crate) fn read(text: &str, bytes: &[u8]) -> Result<String, String> {
    let schema = schema(text);
    let compiled = Compiled::new(schema, &Mask::Fields(Vec::new()));
    let value = compiled.decode(bytes, &Budget::default(), || None);
    let skipped = compiled.fill(bytes, &mut [], &Budget::default(), || None);
    if value.is_ok() {
        assert!(skipped.is_ok(), "{skipped:?}");
    }
    value.map(|value| json::to_string(&value)).map_err(|error| error.to_string())
}

/// What the paths find, and the event's name.
pub(crate) fn named(
    text: &str,
    paths: &[&str],
    bytes: &[u8],
) -> (Vec<Option<String>>, Option<String>) {
    let mut set = PathSet::default();
    for path in paths {
        set.insert(&path.split('.').filter(|s| !s.is_empty()).map(Arc::from).collect::<Vec<_>>());
    }
    let (mask, slots) = set.mask();
    let mut found = vec![None; slots];
    let compiled = Compiled::new(schema(text), &mask);
    let filled = compiled.fill(bytes, &mut found, &Budget::default(), || None).unwrap();
    let found = found.into_iter().map(|slot| slot.map(|value| json::to_string(&value))).collect();
    (found, filled.name.as_deref().map(str::to_owned))
}

pub(crate) fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

const LONGS: &str = r#"{"type":"array","items":"long"}"#;
const NULLS: &str = r#"{"type":"array","items":"null"}"#;
const MAP: &str = r#"{"type":"map","values":"long"}"#;
const CHAIN: &str =
    r#"{"type":"record","name":"Node","fields":[{"name":"next","type":["null","Node"]}]}"#;

#[test]
fn blocks_may_say_their_size_and_follow_each_other() {
    // Two items of four bytes, then one without a size.
    let bytes = [3, 6, 2, 0x80, 0x04, 2, 6, 0];
    assert_eq!(read(LONGS, &bytes), Ok("[1,256,3]".to_owned()));
    assert_eq!(read(MAP, &[1, 6, 2, b'a', 2, 2, 2, b'a', 4, 0]), Ok(r#"{"a":2}"#.to_owned()));
    // The block ends elsewhere than it says.
    let error = read(LONGS, &[3, 6, 2, 4, 2, 6, 0]).unwrap_err();
    assert!(
        error.contains("at byte 4: a block says that it ends at byte 5, its items end at 4"),
        "{error}"
    );
    assert!(read(LONGS, &[3, 200, 1, 2, 4, 0]).unwrap_err().contains("100 bytes are needed"));
    // Passed over by its size, whatever its items are.
    let fields = format!(
        r#"{{"type":"record","name":"A","fields":[{{"name":"x","type":{LONGS}}},{{"name":"n","type":"long"}}]}}"#
    );
    assert_eq!(named(&fields, &["n"], &[3, 4, 0xff, 0xff, 0, 14]).0, [some("7")]);
}

/// A few bytes that claim to be very many.
#[test]
fn counts_beyond_what_is_there_are_refused_at_once() {
    let most = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for text in [LONGS, MAP] {
        let error = read(text, &[&most[..], &[0]].concat()).unwrap_err();
        assert!(error.contains("at byte 0: 9223372036854775807 items in 1 bytes"), "{error}");
        let error = read(text, &[&least[..], &[2, 0, 0]].concat()).unwrap_err();
        assert!(error.contains("at byte 0: 9223372036854775808 items in 1 bytes"), "{error}");
    }
    // Items that take no bytes: passed over whatever their number, built no more of than a few.
    for (count, says) in
        [(&[0x80, 0x10][..], Ok(1_024)), (&[0x82, 0x10], Err(())), (&most, Err(()))]
    {
        let bytes = [count, &[0]].concat();
        match says {
            Ok(items) => assert_eq!(read(NULLS, &bytes).unwrap().matches("null").count(), items),
            Err(()) => {
                let error = read(NULLS, &bytes).unwrap_err();
                assert!(error.contains("more than 1024 items that take no bytes"), "{error}");
            }
        }
        let compiled = Compiled::new(schema(NULLS), &Mask::Fields(Vec::new()));
        let shape = compiled.fill(&bytes, &mut [], &Budget::default(), || None).unwrap().shape;
        assert_eq!(shape, Shape::Other("a list"));
    }
    // Records of nothing, in lists of lists: each list counts.
    let nested = r#"{"type":"array","items":{"type":"array","items":{"type":"record","name":"E","fields":[]}}}"#;
    let inner = [0x80, 0x10, 0];
    assert!(read(nested, &[&[2][..], &inner, &[0]].concat()).is_ok());
    assert!(read(nested, &[&[4][..], &inner, &inner, &[0]].concat()).is_err());
}

#[test]
fn numbers_lengths_and_choices_are_held_to_their_range() {
    let record = |ty: &str| {
        format!(r#"{{"type":"record","name":"A","fields":[{{"name":"f","type":{ty}}}]}}"#)
    };
    let symbols = r#"{"type":"enum","name":"E","symbols":["A","B"]}"#;
    let long_10 = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(read("\"long\"", &long_10), Ok(i64::MIN.to_string()));
    // Longer than it need be, as some encoders write.
    assert_eq!(read("\"long\"", &[0x82, 0x80, 0x00]), Ok("1".to_owned()));
    let too_long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
    for (ty, bytes, says) in [
        ("\"long\"", &too_long[..], "at byte 0, f: a number of more than 64 bits"),
        ("\"long\"", &[0x80; 30], "a number of more than 64 bits"),
        ("\"long\"", &[0x80; 3], "4 bytes are needed, 3 are left"),
        ("\"int\"", &[0x80, 0x80, 0x80, 0x80, 0x20], "at byte 0, f: an int of more than 32 bits"),
        ("\"boolean\"", &[2], "a boolean that is 2"),
        ("\"string\"", &[1], "a length of -1"),
        ("\"bytes\"", &[8, 1], "4 bytes are needed, 1 are left"),
        ("[\"null\",\"long\"]", &[4], "branch 2 of 2"),
        ("[\"null\",\"long\"]", &[1], "branch -1 of 2"),
        (symbols, &[4], "symbol 2 of 2"),
        (symbols, &[1], "symbol -1 of 2"),
        ("\"double\"", &[0; 7], "8 bytes are needed, 7 are left"),
    ] {
        let error = read(&record(ty), bytes).unwrap_err();
        assert!(error.contains(says), "{ty}: {error}");
        let compiled = Compiled::new(schema(&record(ty)), &Mask::Fields(Vec::new()));
        assert!(compiled.fill(bytes, &mut [], &Budget::default(), || None).is_err(), "{ty}");
    }
    let error = read(&record("\"string\""), &[4, 0xc3, 0x28]).unwrap_err();
    assert!(error.contains("at byte 0, f: a string that is not UTF-8"), "{error}");
    let error = read(MAP, &[2, 2, 0xff, 2, 0]).unwrap_err();
    assert!(error.contains("an entry: a string that is not UTF-8"), "{error}");
}

#[test]
fn deep_values_are_read_to_where_json_is() {
    let chain = |depth: usize| [vec![2; depth - 1], vec![0]].concat();
    assert!(read(CHAIN, &chain(128)).is_ok());
    for deep in [129, 1_000_000] {
        let error = read(CHAIN, &chain(deep)).unwrap_err();
        assert!(error.contains("nested deeper than 128"), "{error}");
        let compiled = Compiled::new(schema(CHAIN), &Mask::Fields(Vec::new()));
        assert!(compiled.fill(&chain(deep), &mut [], &Budget::default(), || None).is_err());
    }
    assert_eq!(named(CHAIN, &["next.next.next"], &[2, 2, 2, 0]).0, [some("{\"next\":null}")]);
    assert_eq!(named(CHAIN, &["next.next.next"], &[2, 0]).0, [None]);
}

#[test]
fn logical_types_that_hold_no_such_value_are_refused() {
    let of = |base: &str, logical: &str| {
        format!(r#"{{"type":"{base}","logicalType":"{logical}","precision":9,"scale":2}}"#)
    };
    let long = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for (base, logical, bytes) in [
        ("int", "date", &[0xfe, 0xff, 0xff, 0xff, 0x0f][..]),
        ("int", "time-millis", &[1]),
        ("long", "time-micros", &long),
        ("long", "timestamp-millis", &long),
        ("long", "timestamp-micros", &long),
        ("string", "uuid", &[4, b'a', b'b']),
        ("bytes", "decimal", &[0]),
        ("bytes", "big-decimal", &[0]),
        ("bytes", "big-decimal", &[4, 2, 1]),
        ("bytes", "big-decimal", &[8, 2, 1, 2, 9]),
    ] {
        let error = read(&of(base, logical), bytes).unwrap_err();
        assert!(error.contains(&format!("at byte 0: no {logical}")), "{error}");
    }
    assert_eq!(read(&of("bytes", "big-decimal"), &[6, 2, 0xff, 4]), Ok("-0.01".to_owned()));
    assert_eq!(read(&of("bytes", "big-decimal"), &[6, 2, 1, 3]), Ok("100".to_owned()));
    assert_eq!(
        read(&of("long", "timestamp-nanos"), &long),
        Ok("\"2262-04-11T23:47:16.854776Z\"".to_owned())
    );
    assert_eq!(
        read(&of("long", "time-nanos"), &[0xe8, 0x0f]),
        Ok("\"00:00:00.000001\"".to_owned())
    );
}

/// Of no valid logical type: the base type, or what Connect calls it.
#[test]
fn connects_names_count_where_no_logical_type_does() {
    let decimal = r#"{"type":"bytes","connect.name":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"2"}"#;
    for (text, bytes, expected) in [
        (format!("{decimal}}}"), &[4, 0xfe, 0x38][..], "-4.56"),
        (
            format!(r#"{decimal},"logicalType":"decimal","precision":64,"scale":1}}"#),
            &[2, 7],
            "0.7",
        ),
        (
            format!(r#"{decimal},"logicalType":"decimal","precision":0,"scale":1}}"#),
            &[2, 7],
            "0.07",
        ),
        (decimal.replace("\"2\"", "\"-2\"") + "}", &[2, 7], "700"),
        (decimal.replace("\"2\"", "\"x\"") + "}", &[2, 7], "\"Bw==\""),
        (
            r#"{"type":"int","connect.name":"org.apache.kafka.connect.data.Date"}"#.into(),
            &[2],
            "\"1970-01-02\"",
        ),
        (
            r#"{"type":"int","connect.name":"org.apache.kafka.connect.data.Time"}"#.into(),
            &[4],
            "\"00:00:00.002\"",
        ),
        (
            r#"{"type":"long","connect.name":"org.apache.kafka.connect.data.Timestamp"}"#.into(),
            &[4],
            "\"1970-01-01T00:00:00.002Z\"",
        ),
        (r#"{"type":"long","connect.name":"io.example.Own"}"#.into(), &[4], "2"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":4}"#.into(), &[2, 7], "7"),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":5}"#.into(),
            &[2, 7],
            "\"Bw==\"",
        ),
        (r#"{"type":"bytes","logicalType":"decimal"}"#.into(), &[2, 7], "\"Bw==\""),
        // Three digits do not fit into a byte.
        (
            r#"{"type":"fixed","name":"F","size":1,"logicalType":"decimal","precision":3}"#.into(),
            &[7],
            "\"Bw==\"",
        ),
        (
            r#"{"type":"fixed","name":"F","size":1,"logicalType":"decimal","precision":2}"#.into(),
            &[7],
            "7",
        ),
        (
            r#"{"type":"fixed","name":"F","size":8,"logicalType":"uuid"}"#.into(),
            &[0; 8],
            "\"AAAAAAAAAAA=\"",
        ),
        (r#"{"type":"long","logicalType":"date"}"#.into(), &[4], "2"),
    ] {
        assert_eq!(read(&text, bytes).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_record_names_the_event_and_in_a_union_itself() {
    let records = r#"[{"type":"record","name":"OrderPlaced","namespace":"com.shop","fields":[{"name":"id","type":"long"}]},
        {"type":"record","name":"com.shop.OrderGone","fields":[{"name":"why","type":"string"}]},"null"]"#;
    let paths = ["id", "why", "@record"];
    assert_eq!(
        named(records, &paths, &[0, 14]),
        (vec![some("\"com.shop.OrderPlaced\""), some("7"), None], some("OrderPlaced"))
    );
    assert_eq!(
        named(records, &paths, &[2, 2, b'x']),
        (vec![some("\"com.shop.OrderGone\""), None, some("\"x\"")], some("OrderGone"))
    );
    assert_eq!(named(records, &paths, &[4]), (vec![None, None, None], None));
    assert_eq!(
        named(records, &[""], &[0, 14]).0,
        [some(r#"{"@record":"com.shop.OrderPlaced","id":7}"#)]
    );
    // Inside of a record, where it is one of several.
    let nested = format!(
        r#"{{"type":"record","name":"Event","fields":[{{"name":"what","type":{records}}},
        {{"name":"one","type":["null",{{"type":"record","name":"One","fields":[]}}]}}]}}"#
    );
    let bytes = [2, 2, b'x', 2];
    assert_eq!(
        named(&nested, &["what.@record", "what.why", "one.@record", "@record"], &bytes),
        (
            vec![some("\"Event\""), None, some("\"com.shop.OrderGone\""), some("\"x\"")],
            some("Event")
        )
    );
    assert_eq!(
        named(&nested, &["what", "one"], &bytes).0,
        [some("{}"), some(r#"{"@record":"com.shop.OrderGone","why":"x"}"#)]
    );
}

/// The table of `docs/reference.md`.
#[test]
fn each_type_is_read_as_the_reference_says() {
    let uuid = [&[72][..], b"00000000-0000-0000-0000-000000000000"].concat();
    let zeros = [0; 16];
    let samples = [
        &zeros[..0],
        &zeros[..1],
        &zeros[..4],
        &zeros[..8],
        &zeros[..12],
        &zeros,
        &[2, 0],
        &[6, 2, 1, 4],
        &uuid,
    ];
    let mut types = 0;
    for row in page::table("docs/reference.md", "### Avro") {
        let [schemas, wanted] = &row[..] else { panic!("{row:?}") };
        for text in schemas {
            let compiled = Compiled::new(schema(text), &Mask::Whole(0));
            let read = |bytes: &&[u8]| compiled.decode(bytes, &Budget::default(), || None).ok();
            let value =
                samples.iter().find_map(read).unwrap_or_else(|| panic!("no sample of {text}"));
            assert_eq!(value.type_name(), wanted[0], "{text}");
            types += 1;
        }
    }
    assert!(types > 25, "{types} types");
}

/// Schemas that registries hold, though the specification or a library refuses them.
#[test]
fn schemas_are_read_as_they_are_met() {
    for text in [
        r#"{"type":"record","name":"Envelope","namespace":"survey-a.public.t","fields":[{"name":"order-id","type":"int","default":1.0}]}"#,
        r#"{"type":"enum","name":"E","symbols":["a-b","a b"]}"#,
        r#"["string",{"type":"string","logicalType":"uuid"}]"#,
        r#"{"type":{"type":{"type":"long","logicalType":"date"}}}"#,
        r#"{"type":"error","name":"E","fields":[{"name":"a","type":["null","string"],"default":"x"}]}"#,
        r#"{"type":"fixed","name":"F","size":4.0}"#,
        r#"{"type":"record","name":"x.A","namespace":"ignored","aliases":["B"],"fields":[{"name":"b","type":{"type":"record","name":"B","fields":[{"name":"a","type":["null","x.A","A"]}]}}]}"#,
    ] {
        schema(text);
    }
}

#[test]
fn what_is_no_schema_is_refused_with_its_place() {
    let record = |fields: &str| format!(r#"{{"type":"record","name":"a.R","fields":{fields}}}"#);
    let direct =
        r#"[{"name":"s","type":{"type":"record","name":"S","fields":[{"name":"r","type":"R"}]}}]"#;
    for (text, says) in [
        ("{".to_owned(), "schema: not JSON"),
        ("7".to_owned(), "schema: neither a type's name nor an object"),
        ("[]".to_owned(), "schema: a union of nothing"),
        (r#"["null",["int"]]"#.to_owned(), "schema.1: a union directly in a union"),
        (r#"{"name":"x"}"#.to_owned(), "schema: `type` is missing"),
        (r#"{"type":"array"}"#.to_owned(), "schema: `items` is missing"),
        (r#"{"type":"record","fields":[]}"#.to_owned(), "schema: `name` is missing"),
        (record("7"), "schema: `fields` is no list"),
        (record(r#"[{"name":"x"}]"#), "schema.x: `type` is missing"),
        (record(r#"[{"type":"int"}]"#), "schema.fields[0]: `name` is missing"),
        (
            record(r#"[{"name":"x","type":"Missing"}]"#),
            r#"schema.x: there is no type "Missing", nor "a.Missing""#,
        ),
        (
            record(r#"[{"name":"x","type":"int"},{"name":"x","type":"int"}]"#),
            "two fields are named",
        ),
        (
            record(r#"[{"name":"x","type":{"type":"enum","name":"R","symbols":[]}}]"#),
            r#"schema.x: "a.R" is defined twice"#,
        ),
        (
            record(
                r#"[{"name":"x","type":{"type":"map","values":{"type":"fixed","name":"F","size":-1}}}]"#,
            ),
            "schema.x.values: `size` is no number of bytes",
        ),
        (record(direct), "a record that holds itself"),
        (record(r#"[{"name":"r","type":"R"}]"#), "a.R: a record that holds itself"),
    ] {
        let error = Schema::parse(&text, &[]).unwrap_err().to_string();
        assert!(error.contains(says), "{error} of {text}");
    }
}

#[test]
fn names_are_found_in_references() {
    let money = r#"{"type":"record","name":"shop.Money","fields":[{"name":"n","type":"long"}]}"#;
    let line = r#"{"type":"record","name":"shop.Line","fields":[{"name":"price","type":"Money"}]}"#;
    let order = r#"{"type":"array","items":"shop.Line"}"#;
    let references =
        [Reference { name: "money", text: money }, Reference { name: "line", text: line }];
    let schema = Schema::parse(order, &references).unwrap();
    let compiled = Compiled::new(Arc::new(schema), &Mask::Whole(0));
    let value = compiled.decode(&[2, 14, 0], &Budget::default(), || None).unwrap();
    assert_eq!(json::to_string(&value), r#"[{"price":{"n":7}}]"#);
    let error = Schema::parse(order, &references[1..]).unwrap_err().to_string();
    assert!(
        error.contains(r#"reference "line".price: there is no type "Money", nor "shop.Money""#),
        "{error}"
    );
}

/// A union of records in each of which the path goes on, over and over: compiled in steps of types times paths.
#[test]
fn a_schema_that_branches_at_each_step_is_compiled_in_time() {
    let path = vec!["a"; 40].join(".");
    let node = |n: usize| {
        format!(
            r#"{{"type":"record","name":"B{n}","fields":[{{"name":"a","type":["null","Top"]}}]}}"#
        )
    };
    let nodes: Vec<String> = (0..30).map(node).collect();
    let text = format!(
        r#"{{"type":"record","name":"Top","fields":[{{"name":"a","type":["null",{}]}}]}}"#,
        nodes.join(",")
    );
    assert_eq!(named(&text, &[&path], &[2, 2, 0]).0, [None]);
    assert_eq!(named(&text, &["a.a.a"], &[2, 2, 0]).0, [some("null")]);
}

#[test]
fn whole_values_are_sorted_and_bytes_are_bytes() {
    let text = r#"{"type":"record","name":"A","fields":[{"name":"z","type":"bytes"},{"name":"B","type":"float"},{"name":"a","type":"boolean"}]}"#;
    let value = Compiled::new(schema(text), &Mask::Whole(0))
        .decode(&[4, 0, 255, 0, 0, 0xc0, 0x3f, 1], &Budget::default(), || None)
        .unwrap();
    let Value::Map(map) = &value else { panic!("{value:?}") };
    assert_eq!(map.get("z"), Some(&Value::Bytes(Arc::from(&[0, 255][..]))));
    assert_eq!(map.get("B"), Some(&Value::Double(1.5)));
    let names: Vec<&str> = map.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["B", "a", "z"]);
}
