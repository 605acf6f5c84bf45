//! Generated schemas and messages.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::value::Value;
use foldline_language::converter::protobuf::{Compiled, Schema};
use foldline_language::converter::{ConvertError, take};
use foldline_language::event::Mask;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::generate::{Generator, expected};

const SCHEMAS: u64 = 600;

/// The slots, and how many bytes were made.
fn filled(
    schema: &Arc<Schema>,
    mask: &Mask,
    slots: usize,
    bytes: &[u8],
) -> (Result<Vec<Option<Value>>, ConvertError>, usize) {
    let mut found = vec![None; slots];
    let budget = Budget::default();
    let compiled = Compiled::new(Arc::clone(schema), "shop.M0", mask).unwrap();
    let filled = compiled.fill(bytes, &mut found, &budget, || None);
    (filled.map(|_| found), budget.left().made())
}

pub(crate) fn pool(text: &str) -> DescriptorPool {
    let file = protox::file::File::from_source("order.proto", text).unwrap();
    struct One(protox::file::File);
    impl protox::file::FileResolver for One {
        fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
            match name {
                "order.proto" => Ok(self.0.clone()),
                name => protox::file::GoogleFileResolver::new().open_file(name),
            }
        }
    }
    let mut compiler = protox::Compiler::with_file_resolver(One(file));
    compiler.open_file("order.proto").unwrap_or_else(|error| panic!("{error:?}: {text}"));
    compiler.descriptor_pool()
}

struct Case {
    seed: u64,
    text: String,
    schema: Arc<Schema>,
    of: MessageDescriptor,
    generator: Generator,
}

fn cases() -> impl Iterator<Item = Case> {
    let first = std::env::var("FOLDLINE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(1..SCHEMAS + 1, |seed: u64| seed..seed + 1);
    seeds.map(|seed| {
        // What is written packed is read by a schema that says otherwise.
        let theirs = Generator::new(seed).file(seed.is_multiple_of(2));
        let mut generator = Generator::new(seed);
        let text = generator.file(seed.is_multiple_of(3));
        let schema = Schema::parse("order.proto", &text, &[]);
        let schema =
            Arc::new(schema.unwrap_or_else(|error| panic!("seed {seed}: {error}: {text}")));
        let of = pool(&theirs).get_message_by_name("shop.M0").unwrap();
        Case { seed, text, schema, of, generator }
    })
}

fn assert_read(case: &mut Case, bytes: &[u8], wanted: &Value) {
    let (seed, text) = (case.seed, &case.text);
    let whole = filled(&case.schema, &Mask::Whole(0), 1, bytes).0;
    let whole = whole.unwrap_or_else(|error| panic!("seed {seed}: {error}: {text}"));
    assert_eq!(whole, [Some(wanted.clone())], "seed {seed}: {bytes:?} of {text}");
    for _ in 0..6 {
        let (mask, slots) = case.generator.mask();
        let found = filled(&case.schema, &mask, slots, bytes).0.unwrap();
        let mut named = vec![None; slots];
        take(wanted, &mask, &mut named);
        assert_eq!(found, named, "seed {seed}: {mask:?} of {bytes:?} of {text}");
    }
}

#[test]
fn what_another_encoder_writes_is_read_as_it_was_meant() {
    for mut case in cases() {
        for _ in 0..4 {
            let message = case.generator.dynamic(&case.of, 0);
            assert_read(&mut case, &message.encode_to_vec(), &expected(&message));
        }
    }
}

/// The last of a number stays, lists go on, messages are merged, and of a oneof the last one is set.
#[test]
fn messages_one_behind_the_other_are_merged() {
    for mut case in cases() {
        for _ in 0..3 {
            let parts = [0; 3].map(|_| case.generator.dynamic(&case.of, 0).encode_to_vec());
            let bytes = parts.concat();
            let merged = DynamicMessage::decode(case.of.clone(), &bytes[..]).unwrap();
            assert_read(&mut case, &bytes, &expected(&merged));
        }
    }
}

/// Bytes that are wrong somewhere are refused, or are another value; then what is named is still what is there. No more is
/// made of them than of good ones.
#[test]
fn wrong_bytes_are_refused_or_another_value() {
    let (mut refused, mut read) = (0, 0);
    for mut case in cases() {
        let good = case.generator.dynamic(&case.of, 0).encode_to_vec();
        for _ in 0..24 {
            let mut bytes = good.clone();
            for _ in 0..=case.generator.below(3) {
                let at = case.generator.below(bytes.len() + 1);
                let byte = case.generator.rng.next_u64() as u8;
                match case.generator.below(4) {
                    0 => bytes.insert(at, byte),
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    2 => bytes.truncate(at),
                    _ if at < bytes.len() => bytes[at] = [byte, 0, 1, 0x7f, 0xff][at % 5],
                    _ => bytes.push(byte),
                }
            }
            let (mask, slots) = case.generator.mask();
            let (whole, made) = filled(&case.schema, &Mask::Whole(0), 1, &bytes);
            let (named, _) = filled(&case.schema, &mask, slots, &bytes);
            let most = 100_000 + 2_000 * bytes.len();
            let (seed, text) = (case.seed, &case.text);
            assert!(made < most, "seed {seed}: {made} made of {bytes:?} of {text}");
            let whole = match whole {
                Ok(whole) => whole,
                Err(error) => {
                    assert!(error.to_string().contains("at byte "), "seed {seed}: {error}");
                    refused += 1;
                    continue;
                }
            };
            read += 1;
            let mut wanted = vec![None; slots];
            if let Some(whole) = &whole[0] {
                take(whole, &mask, &mut wanted);
            }
            assert_eq!(named, Ok(wanted), "seed {seed}: {mask:?} of {bytes:?} of {text}");
        }
    }
    assert!(refused > 3_000 && read > 1_000, "{refused} refused, {read} read");
}
