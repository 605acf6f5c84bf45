//! Avro: whatever the schema and whatever the bytes, there is a value or a reason, and reading only what is named gives what
//! reading all of it gives.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_language::converter::avro::{Compiled, Schema};
use foldline_language::converter::take;
use foldline_language::event::Mask;
use foldline_testkit::Rng;
use foldline_testkit::walk::Walk;

use super::generate::{Generator, encode};

const DICTIONARY: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"type\"",
    "\"name\"",
    "\"namespace\"",
    "\"fields\"",
    "\"items\"",
    "\"values\"",
    "\"symbols\"",
    "\"size\"",
    "\"logicalType\"",
    "\"precision\"",
    "\"scale\"",
    "\"connect.name\"",
    "\"null\"",
    "\"boolean\"",
    "\"int\"",
    "\"long\"",
    "\"float\"",
    "\"double\"",
    "\"bytes\"",
    "\"string\"",
    "\"record\"",
    "\"enum\"",
    "\"array\"",
    "\"map\"",
    "\"fixed\"",
    "\"decimal\"",
    "\"big-decimal\"",
    "\"uuid\"",
    "\"duration\"",
    "\"date\"",
    "\"timestamp-nanos\"",
    "\"N0\"",
    "\"N1\"",
    "\"id\"",
    "00",
    "01",
    "02",
    "04",
    "7f",
    "80",
    "ff",
    "feffffffffffffffff01",
    "ffffffffffffffffff01",
    "808080808010",
];

/// A schema, and behind the last line's end the bytes in hexadecimal digits.
fn input(seed: u64) -> String {
    let mut generator = Generator::new(seed);
    let ty = generator.schema();
    let text = generator.json(&ty);
    let schema = apache_avro::Schema::parse_str(&text).unwrap();
    let (value, _) = generator.value(&ty, true, 0);
    let bytes = encode(&schema, value).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{text}\n{hex}")
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

fn answer(input: &str, rng: &mut Rng) -> String {
    let (text, hex) = input.rsplit_once('\n').unwrap_or((input, ""));
    let schema = match Schema::parse(text, &[]) {
        Ok(schema) => Arc::new(schema),
        Err(error) => return error.to_string(),
    };
    let bytes = bytes(hex);
    let (mask, slots) = Generator::new(rng.next_u64()).mask();
    let read = |mask: &Mask, slots: usize| {
        let mut found = vec![None; slots];
        let compiled = Compiled::new(Arc::clone(&schema), mask);
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
    format!("{}", schema.canonical_form().len())
}

#[test]
fn no_schema_and_no_bytes_panic_and_what_is_named_is_what_is_there() {
    let corpus = (1..120).map(input).collect();
    Walk::new("avro", corpus).go(20_000, DICTIONARY, answer);
}
