//! Schemas and bytes by hand: what encoders may write and seldom do, and what none writes.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::json;
use foldline_language::converter::protobuf::{Compiled, Reference, Schema};
use foldline_language::event::{Mask, PathSet};
use foldline_testkit::page;

const FILE: &str = r#"syntax = "proto3"; package shop;
import "google/protobuf/timestamp.proto";
message Order {
  int64 id = 1; string name = 2; Order parent = 3; repeated int32 lines = 4; google.protobuf.Timestamp at = 5;
  oneof what { int64 paid = 6; string gone = 7; } map<string, int64> tags = 8; optional int32 maybe = 9; bool gift = 10;
}
message Other { message Inner { int32 n = 1; } }"#;

fn schema(text: &str) -> Arc<Schema> {
    let schema = Schema::parse("order.proto", text, &[]);
    Arc::new(schema.unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// The message as JSON, or why there is none.
fn read(bytes: &[u8]) -> Result<String, String> {
    let mask = Mask::Fields(Vec::new());
    let compiled = Compiled::new(schema(FILE), "shop.Order", &mask).unwrap();
    let value = compiled.decode(bytes, &Budget::default(), || None);
    value.map(|value| json::to_string(&value)).map_err(|error| error.to_string())
}

/// What the paths find, or why there is nothing.
fn named(paths: &[&str], bytes: &[u8]) -> Result<Vec<Option<String>>, String> {
    let mut set = PathSet::default();
    for path in paths {
        set.insert(&path.split('.').map(Arc::from).collect::<Vec<_>>());
    }
    let (mask, slots) = set.mask();
    let mut found = vec![None; slots];
    let compiled = Compiled::new(schema(FILE), "shop.Order", &mask).unwrap();
    let filled = compiled.fill(bytes, &mut found, &Budget::default(), || None);
    let filled = filled.map_err(|error| error.to_string())?;
    assert_eq!(filled.name.as_deref(), Some("Order"));
    Ok(found.into_iter().map(|slot| slot.map(|value| json::to_string(&value))).collect())
}

const UNSET: &str = r#"{"gift":false,"id":0,"lines":[],"name":"","tags":{}}"#;

#[test]
fn what_was_not_set_is_its_default_or_absent() {
    assert_eq!(read(&[]), Ok(UNSET.to_owned()));
    let some = |text: &str| Some(text.to_owned());
    let paths = ["id", "maybe", "paid", "parent.id", "what"];
    assert_eq!(named(&paths, &[]), Ok(vec![some("0"), None, None, None, None]));
    // A message that is there has its own.
    assert_eq!(named(&["parent.id", "parent.maybe"], &[0x1a, 0]), Ok(vec![some("0"), None]));
    assert_eq!(
        named(&["maybe", "paid", "what"], &[0x48, 0, 0x30, 0]),
        Ok(vec![some("0"), some("0"), some("\"paid\"")])
    );
}

#[test]
fn the_last_of_a_oneof_is_set() {
    let bytes = [0x30, 5, 0x3a, 1, b'x'];
    let absent: Vec<Option<String>> =
        vec![Some("\"x\"".to_owned()), None, Some("\"gone\"".to_owned())];
    assert_eq!(named(&["gone", "paid", "what"], &bytes), Ok(absent));
    // Though only the first is read.
    assert_eq!(named(&["paid"], &bytes), Ok(vec![None]));
}

#[test]
fn unknown_fields_and_groups_are_passed_over() {
    // Field 20 of each wire type, a group in a group among them, then the id.
    let unknown = [
        &[0xa0, 1, 0x96, 1][..],
        &[0xa1, 1, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0xa2, 1, 2, 9, 9],
        &[0xa5, 1, 1, 2, 3, 4],
        &[0xa3, 1, 0x0b, 0x08, 1, 0x0c, 0xa4, 1],
        &[0x08, 7],
    ]
    .concat();
    assert_eq!(named(&["id"], &unknown), Ok(vec![Some("7".to_owned())]));
    assert_eq!(read(&unknown), Ok(UNSET.replace("\"id\":0", "\"id\":7")));
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    let long = [0xff; 10];
    let deep = |levels: usize| {
        (0..levels).fold(Vec::new(), |inner, _| {
            let mut bytes = vec![0x1a];
            let mut length = inner.len();
            while length > 0x7f {
                bytes.push((length & 0x7f) as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend(inner);
            bytes
        })
    };
    assert!(read(&deep(128)).is_ok());
    let groups = [0xa3, 1].repeat(100_000);
    for (bytes, says) in [
        (&[0x08][..], "at byte 1, id: 1 bytes are needed, 0 are left"),
        (&[&[0x08], &long[..]].concat(), "at byte 1, id: a number of more than 64 bits"),
        (&[0x12, 5, b'a'], "at byte 2, name: 5 bytes are needed, 1 are left"),
        (
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            "18446744073709551615 bytes",
        ),
        (&[0x12, 1, 0xff], "at byte 1, name: a string that is not UTF-8"),
        (&[0x1a, 2, 0x12, 4], "at byte 4, parent.name: 4 bytes are needed, 0 are left"),
        (&[0x22, 2, 1, 0x80], "at byte 3, lines[1]: 2 bytes are needed, 1 are left"),
        (&[0x42, 3, 0x0a, 2, b'a'], "tags[…].key: 2 bytes are needed, 1 are left"),
        (&[0x0a, 1, 7], "id: wire type 2, where a field of type int64 has 0"),
        (
            &[0x2a, 8, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            "at: a timestamp that is out of range",
        ),
        (&[0], "a field of number 0, which none has"),
        (&[0xa4, 1], "a group without a beginning or an end"),
        (&[0xa3, 1, 0xac, 1], "a group without a beginning or an end"),
        (&[0xa3, 1], "a group without a beginning or an end"),
        (&[0xa6, 1], "wire type 6, which there is not"),
        (&deep(129), "nested deeper than 128"),
        (&groups, "nested deeper than 128"),
    ] {
        let error = read(bytes).unwrap_err();
        assert!(error.contains(says), "{says:?} in {error:?}");
        assert!(error.starts_with("not what its Protobuf schema says: at byte "), "{error}");
    }
    // What nobody reads is not looked into.
    assert_eq!(named(&["id"], &[0x12, 1, 0xff]), Ok(vec![Some("0".to_owned())]));
}

#[test]
fn imports_are_found_and_what_is_no_schema_is_refused_with_its_place() {
    let importing = "syntax = \"proto3\"; package shop; import \"money/money.proto\"; message A { Money m = 1; }";
    let money = "syntax = \"proto3\"; package shop; message Money { int64 units = 1; }";
    let parse = |text: &str, references: &[(&str, &str)]| {
        let references: Vec<Reference<'_>> =
            references.iter().map(|(name, text)| Reference { name, text }).collect();
        Schema::parse("a.proto", text, &references).map_err(|error| error.to_string())
    };
    for name in ["money/money.proto", "schemas/money/money.proto"] {
        assert_eq!(parse(importing, &[(name, money)]).unwrap().names(), ["shop.A"]);
    }
    let twice = [("a/money/money.proto", money), ("b/money/money.proto", money)];
    for (text, references, says) in [
        (importing, &[][..], "money/money.proto"),
        (
            importing,
            &twice[..],
            "of several references: a/money/money.proto and b/money/money.proto",
        ),
        ("message A { B b = 1; }", &[], "a.proto:1:13: "),
        ("syntax = \"proto3\";\nmessage A {\n int32 = 1;\n}", &[], "a.proto:3:8: "),
        ("{\"type\":\"record\"}", &[], "a.proto:1:1: "),
    ] {
        let error = parse(text, references).unwrap_err();
        assert!(error.contains(says), "{says:?} in {error:?}");
    }
    // A set of descriptors, as protoc writes it.
    let set = super::oracle::pool(FILE).encode_to_vec();
    let schema = Schema::of_descriptors(&set).unwrap();
    assert!(schema.names().contains(&"shop.Other.Inner"), "{:?}", schema.names());
    assert!(Schema::of_descriptors(FILE.as_bytes()).is_err());
    assert!(Compiled::new(Arc::new(schema), "shop.Nothing", &Mask::Whole(0)).is_none());
}

#[test]
fn a_field_without_presence_is_told() {
    let schema = schema(FILE);
    let hides = |path: &str| {
        let path: Vec<Arc<str>> = path.split('.').map(Arc::from).collect();
        schema.hides_unset("shop.Order", &path)
    };
    for path in ["id", "name", "gift", "parent.id", "parent.parent.gift"] {
        assert!(hides(path), "{path}");
    }
    for path in
        ["maybe", "paid", "parent", "lines", "tags", "at", "nothing", "parent.maybe", "what"]
    {
        assert!(!hides(path), "{path}");
    }
}

/// The table of the page: what a field of each type is read as.
#[test]
fn a_field_is_read_as_the_page_says() {
    let mut types = 0;
    for row in page::table("docs/reference.md", "### Protobuf") {
        let [fields, wanted] = &row[..] else { panic!("{row:?}") };
        for field in fields {
            let imports: String = ["timestamp", "duration", "wrappers", "struct", "any"]
                .map(|name| format!("import \"google/protobuf/{name}.proto\";"))
                .concat();
            let text = format!(
                "syntax = \"proto3\"; package shop; {imports} enum Status {{ NEW = 0; }} message Line {{}} message A {{ {field} f = 1; }}"
            );
            let (mask, _) = {
                let mut set = PathSet::default();
                set.insert(&[Arc::from("f")]);
                set.mask()
            };
            let compiled = Compiled::new(schema(&text), "shop.A", &mask).unwrap();
            // A value of each wire type: one of them is the field's.
            let samples: [&[u8]; 4] =
                [&[0x0a, 0], &[0x08, 1], &[0x09, 1, 0, 0, 0, 0, 0, 0, 0], &[0x0d, 1, 0, 0, 0]];
            let read = |bytes: &&[u8]| {
                let mut found = [None];
                let filled = compiled.fill(bytes, &mut found, &Budget::default(), || None);
                let [found] = found;
                filled.ok().and(found)
            };
            let value =
                samples.iter().find_map(read).unwrap_or_else(|| panic!("no sample of {field}"));
            assert_eq!(value.type_name(), wanted[0], "{field}");
            types += 1;
        }
    }
    assert!(types > 25, "{types} types");
}
