//! Converters: whatever a record's bytes are, each format takes them or says why not, and reading only what is named
//! gives what reading all of it gives.

use std::sync::Arc;

use bytes::Bytes;
use foldline_api::record::Record;
use foldline_language::converter::{Decoder, Format, take};
use foldline_language::event::Mask;
use foldline_testkit::Rng;
use foldline_testkit::walk::{Walk, files};

use super::expressions::{json_value, record};

const DICTIONARY: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\u0000",
    "\\ud800",
    "\\",
    "null",
    "true",
    "false",
    "1",
    "-",
    ".",
    "e",
    "\"schema\"",
    "\"payload\"",
    "\"type\"",
    "\"struct\"",
    "\"fields\"",
    "\"field\"",
    "\"optional\"",
    "\"name\"",
    "\"parameters\"",
    "\"items\"",
    "\"keys\"",
    "\"values\"",
    "\"int8\"",
    "\"int64\"",
    "\"float64\"",
    "\"boolean\"",
    "\"string\"",
    "\"bytes\"",
    "\"array\"",
    "\"map\"",
    "\"org.apache.kafka.connect.data.Decimal\"",
    "\"org.apache.kafka.connect.data.Timestamp\"",
    "\"scale\"",
    "\"id\"",
    "\"a\"",
];

/// Connect's envelope around one value of each kind.
const ENVELOPES: &[&str] = &[
    r#"{"schema":{"type":"int64","optional":false},"payload":7}"#,
    r#"{"schema":{"type":"struct","fields":[{"field":"id","type":"int32"},{"field":"a","type":"string","optional":true}]},"payload":{"id":1,"a":null}}"#,
    r#"{"schema":{"type":"array","items":{"type":"double"}},"payload":[1.5,2]}"#,
    r#"{"schema":{"type":"map","keys":{"type":"string"},"values":{"type":"boolean"}},"payload":{"a":true}}"#,
    r#"{"schema":{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}},"payload":"MDk="}"#,
    r#"{"schema":{"type":"int64","name":"org.apache.kafka.connect.data.Timestamp"},"payload":1772360100123}"#,
    r#"{"schema":null,"payload":null}"#,
];

fn mask() -> (Mask, usize) {
    let field = |name: &str, inner: Mask| (Arc::from(name), inner);
    let inner = Mask::Fields(vec![field("a", Mask::Whole(0)), field("id", Mask::Whole(1))]);
    let outer = vec![
        field("a", inner),
        field("id", Mask::Whole(2)),
        field("payload", Mask::Whole(3)),
        field("price", Mask::Whole(4)),
    ];
    (Mask::Fields(outer), 5)
}

fn decoded(record: &Record, format: Format) -> String {
    let (mask, slots) = mask();
    let decoder = Decoder {
        key: Some(format.clone()),
        value: format,
        mask: mask.clone(),
        slots,
        opener: None,
    };
    let event = match decoder.decode(record) {
        Ok(event) => event,
        Err(error) => return error.to_string(),
    };
    // The key is the same bytes, read as a whole.
    let mut whole = vec![None; slots];
    take(&event.key, &mask, &mut whole);
    assert_eq!(event.slots.to_vec(), whole, "what is named differs from the same in the whole");
    format!("{}", whole.iter().flatten().count())
}

fn answer(text: &str, rng: &mut Rng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    // What is no text either.
    if rng.chance(200) && !bytes.is_empty() {
        let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
        bytes[at] = u8::try_from(rng.below(256)).unwrap();
    }
    let bytes = Bytes::from(bytes);
    let mut record = record("orders", "");
    (record.key, record.value) = (Some(bytes.clone()), Some(bytes));
    [Format::Json, Format::ConnectJson, Format::Text, Format::Bytes]
        .map(|format| decoded(&record, format))
        .join(" | ")
}

#[test]
fn no_record_panics_and_what_is_named_is_what_is_there() {
    let mut rng = Rng::new(3);
    let mut corpus: Vec<String> = ENVELOPES.iter().map(|text| (*text).to_owned()).collect();
    for _ in 0..60 {
        let mut text = String::new();
        json_value(&mut rng, 3, &mut text);
        corpus.push(text);
    }
    let scenarios = files("tests/fixtures", "ndjson");
    corpus.extend(scenarios.into_iter().map(|(_, text)| text));
    Walk::new("records", corpus).go(20_000, DICTIONARY, answer);
}
