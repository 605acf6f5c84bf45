//! Protobuf: whatever the schema and whatever the bytes, there is a value or a reason, and reading only what is named gives what
//! reading all of it gives.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_language::converter::protobuf::{Compiled, Schema};
use foldline_language::converter::take;
use foldline_language::event::Mask;
use foldline_testkit::Rng;
use foldline_testkit::walk::Walk;
use prost_reflect::DescriptorPool;
use prost_reflect::prost::Message as _;
use protox::file::{File, FileResolver, GoogleFileResolver};

use super::protobuf_generate::{Generator, expected};

const DICTIONARY: &[&str] = &[
    "syntax = \"proto3\";",
    "syntax = \"proto2\";",
    "package shop;",
    "message ",
    "M0",
    "M1",
    "{",
    "}",
    ";",
    "=",
    "1",
    "536870911",
    "enum ",
    "oneof ",
    "map<string, int32> ",
    "repeated ",
    "optional ",
    "group G ",
    "int32 ",
    "sint64 ",
    "fixed32 ",
    "double ",
    "string ",
    "bytes ",
    "bool ",
    "google.protobuf.Timestamp ",
    "google.protobuf.Any ",
    "google.protobuf.Value ",
    "google.protobuf.Struct ",
    "reserved 1;",
    "extensions 100 to 199;",
    "id",
    "00",
    "01",
    "08",
    "0a",
    "0b",
    "0c",
    "12",
    "1a",
    "7f",
    "80",
    "ff",
    "ffffffffffffffffff01",
    "808080808010",
    "a3010ba401",
];

struct One(File);

impl FileResolver for One {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "a.proto" {
            Ok(self.0.clone())
        } else {
            GoogleFileResolver::new().open_file(name)
        }
    }
}

fn pool(text: &str) -> DescriptorPool {
    let file = File::from_source("a.proto", text).unwrap();
    let mut compiler = protox::Compiler::with_file_resolver(One(file));
    compiler.open_file("a.proto").unwrap();
    compiler.descriptor_pool()
}

/// A schema, and behind the last line's end the bytes in hexadecimal digits.
fn input(seed: u64) -> String {
    let mut generator = Generator::new(seed);
    let text = generator.file(true);
    let of = pool(&text).get_message_by_name("shop.M0").unwrap();
    let message = generator.dynamic(&of, 0);
    assert!(!expected(&message).is_null());
    let hex: String = message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{text}\n{hex}")
}

fn answer(input: &str, rng: &mut Rng) -> String {
    let (text, hex) = input.rsplit_once('\n').unwrap_or((input, ""));
    let schema = match Schema::parse("a.proto", text, &[]) {
        Ok(schema) => Arc::new(schema),
        Err(error) => return error.to_string(),
    };
    let Some(name) = schema.names().first().map(|name| (*name).to_owned()) else {
        return "no message".to_owned();
    };
    let bytes = super::avro::bytes(hex);
    let (mask, slots) = Generator::new(rng.next_u64()).mask();
    let read = |mask: &Mask, slots: usize| {
        let mut found = vec![None; slots];
        let compiled = Compiled::new(Arc::clone(&schema), &name, mask).unwrap();
        compiled.fill(&bytes, &mut found, &Budget::default(), || None).map(|_| found)
    };
    let named = read(&mask, slots);
    let whole = match read(&Mask::Whole(0), 1) {
        Ok(whole) => whole,
        Err(error) => return format!("{error} {}", named.is_ok()),
    };
    let mut expected = vec![None; slots];
    if let Some(whole) = &whole[0] {
        take(whole, &mask, &mut expected);
    }
    assert_eq!(named, Ok(expected), "what is named differs from the same in the whole");
    format!("{}", schema.names().len())
}

#[test]
fn no_schema_and_no_message_panic_and_what_is_named_is_what_is_there() {
    let corpus = (1..120).map(input).collect();
    Walk::new("protobuf", corpus).go(10_000, DICTIONARY, answer);
}
