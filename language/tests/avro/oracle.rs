//! Generated schemas and values.

use std::sync::Arc;

use apache_avro::rabin::Rabin;
use foldline_api::budget::Budget;
use foldline_api::json;
use foldline_api::value::Value;
use foldline_language::converter::avro::{Compiled, Schema};
use foldline_language::converter::{ConvertError, take};
use foldline_language::event::Mask;

use super::generate::{Generator, encode};

const SCHEMAS: u64 = 1_500;

fn no_hint() -> Option<String> {
    None
}

/// The slots, the event's name, and how many bytes were made.
fn filled(
    schema: &Arc<Schema>,
    mask: &Mask,
    slots: usize,
    bytes: &[u8],
) -> (Result<Vec<Option<Value>>, ConvertError>, usize) {
    let mut found = vec![None; slots];
    let budget = Budget::default();
    let compiled = Compiled::new(Arc::clone(schema), mask);
    let filled = compiled.fill(bytes, &mut found, &budget, no_hint);
    (filled.map(|_| found), budget.left().made())
}

/// With the digits behind a decimal's point, which equality leaves out.
fn told(value: &Value) -> String {
    json::to_string(value)
}

struct Case {
    seed: u64,
    text: String,
    schema: Arc<Schema>,
    bytes: Vec<u8>,
    /// As a record's value, and as its key.
    expected: (Value, Value),
    generator: Generator,
}

fn cases(per_schema: u64) -> impl Iterator<Item = Case> {
    let first = std::env::var("FOLDLINE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(1..SCHEMAS + 1, |seed: u64| seed..seed + 1);
    seeds.flat_map(move |seed| {
        let mut generator = Generator::new(seed);
        let ty = generator.schema();
        let text = generator.json(&ty);
        let fail = |what: &str| -> ! { panic!("seed {seed}: {what}: {text}") };
        let theirs =
            apache_avro::Schema::parse_str(&text).unwrap_or_else(|error| fail(&error.to_string()));
        let schema = Schema::parse(&text, &[]).unwrap_or_else(|error| fail(&error.to_string()));
        let schema = Arc::new(schema);
        let mut made = Vec::new();
        for nth in 0..per_schema {
            // The same value twice: with the name of the record that it is, and without.
            let (mut value, mut key) = (Generator::new(0), Generator::new(0));
            for of in [&mut value, &mut key] {
                *of = Generator::new(seed);
                of.schema();
                for _ in 0..nth * 1_000 {
                    of.rng.next_u64();
                }
            }
            let (datum, as_value) = value.value(&ty, true, 0);
            let (_, as_key) = key.value(&ty, false, 0);
            let bytes = encode(&theirs, datum).unwrap_or_else(|error| fail(&error));
            made.push(Case {
                seed,
                text: text.clone(),
                schema: Arc::clone(&schema),
                bytes,
                expected: (as_value, as_key),
                generator: value,
            });
        }
        made
    })
}

#[test]
fn what_another_encoder_writes_is_read_as_it_was_meant() {
    for mut case in cases(4) {
        let (text, seed) = (&case.text, case.seed);
        let (value, key) = &case.expected;
        let whole = filled(&case.schema, &Mask::Whole(0), 1, &case.bytes).0;
        let whole = whole.unwrap_or_else(|error| panic!("seed {seed}: {error}: {text}"));
        // Nothing is taken of a record whose value is null.
        let expected = Some(value.clone()).filter(|value| !value.is_null());
        assert_eq!(whole, [expected], "seed {seed}: {text}");
        assert_eq!(
            whole[0].as_ref().map_or_else(String::new, told),
            match value {
                Value::Null => String::new(),
                value => told(value),
            }
        );
        let compiled = Compiled::new(Arc::clone(&case.schema), &Mask::Whole(0));
        let decoded = compiled.decode(&case.bytes, &Budget::default(), no_hint).unwrap();
        assert_eq!(&decoded, key, "seed {seed}: {text}");
        for _ in 0..8 {
            let (mask, slots) = case.generator.mask();
            let found = filled(&case.schema, &mask, slots, &case.bytes).0.unwrap();
            let mut named = vec![None; slots];
            if !value.is_null() {
                take(value, &mask, &mut named);
            }
            assert_eq!(found, named, "seed {seed}: {mask:?} of {text}");
        }
    }
}

/// What is cut off is not null, and what is left over is not nothing, also where it is passed over.
#[test]
fn what_is_cut_off_or_left_over_is_refused() {
    for mut case in cases(1) {
        let longer = [&case.bytes[..], &[0]].concat();
        let cut = (0..case.bytes.len()).map(|len| &case.bytes[..len]);
        for wrong in cut.chain([&longer[..]]) {
            let whole = filled(&case.schema, &Mask::Whole(0), 1, wrong).0;
            let (mask, slots) = case.generator.mask();
            let named = filled(&case.schema, &mask, slots, wrong).0;
            let (seed, text) = (case.seed, &case.text);
            for refused in [whole, named] {
                let error = refused.expect_err("no value");
                assert!(error.to_string().contains("at byte "), "seed {seed}: {error} of {text}");
            }
        }
    }
}

/// Bytes that are wrong somewhere are refused, or are another value; then what is named is still what is there. No more is
/// made of them than of good ones.
#[test]
fn wrong_bytes_are_refused_or_another_value() {
    let (mut refused, mut read) = (0, 0);
    for mut case in cases(2) {
        for _ in 0..24 {
            let mut bytes = case.bytes.clone();
            for _ in 0..=case.generator.below(3) {
                let at = case.generator.below(bytes.len() + 1);
                let byte = case.generator.rng.next_u64() as u8;
                match case.generator.below(3) {
                    0 => bytes.insert(at, byte),
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    _ if at < bytes.len() => bytes[at] = [byte, 0, 1, 0x7f, 0xff][at % 5],
                    _ => bytes.push(byte),
                }
            }
            let (mask, slots) = case.generator.mask();
            let (whole, made) = filled(&case.schema, &Mask::Whole(0), 1, &bytes);
            let (named, _) = filled(&case.schema, &mask, slots, &bytes);
            let most = 1_000_000 + 500 * bytes.len();
            let (seed, text) = (case.seed, &case.text);
            assert!(made < most, "seed {seed}: {made} made of {bytes:?} of {text}");
            let Ok(whole) = whole else {
                refused += 1;
                continue;
            };
            read += 1;
            let mut expected = vec![None; slots];
            if let Some(whole) = &whole[0] {
                take(whole, &mask, &mut expected);
            }
            assert_eq!(named, Ok(expected), "seed {seed}: {mask:?} of {bytes:?} of {text}");
        }
    }
    assert!(refused > 10_000 && read > 1_000, "{refused} refused, {read} read");
}

/// Where nothing is of a logical type: there that library's canonical form is not the specification's (`{"type":"long"}`).
#[test]
fn fingerprints_are_those_of_another_library() {
    let mut compared = 0;
    for case in cases(1) {
        if case.text.contains("logicalType") {
            continue;
        }
        let theirs = apache_avro::Schema::parse_str(&case.text).unwrap();
        assert_eq!(case.schema.canonical_form(), theirs.canonical_form(), "{}", case.text);
        let fingerprint = theirs.fingerprint::<Rabin>().bytes;
        assert_eq!(case.schema.fingerprint().to_le_bytes()[..], fingerprint[..], "{}", case.text);
        compared += 1;
    }
    assert!(compared > 300, "{compared} compared");
}
