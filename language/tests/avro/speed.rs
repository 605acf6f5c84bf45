//! How long an event takes, beside the same event in JSON: `cargo test --release -p foldline-language --test avro -- --ignored --nocapture`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use apache_avro::types::Value as Theirs;
use bytes::Bytes;
use foldline_api::record::Record;
use foldline_language::converter::avro::{Avro, Schema};
use foldline_language::converter::{Decoder, Format, Framing};
use foldline_language::event::PathSet;

use super::generate::encode;

const SCHEMA: &str = r#"{"type":"record","name":"OrderPlaced","namespace":"shop","fields":[
 {"name":"id","type":"long"},{"name":"customer","type":"string"},{"name":"email","type":["null","string"]},
 {"name":"status","type":{"type":"enum","name":"Status","symbols":["NEW","PAID"]}},
 {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
 {"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
 {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
   {"name":"sku","type":"string"},{"name":"qty","type":"int"}]}}},
 {"name":"note","type":["null","string"]},{"name":"weight","type":"double"},{"name":"gift","type":"boolean"},
 {"name":"address","type":{"type":"record","name":"Address","fields":[
   {"name":"city","type":"string"},{"name":"zip","type":"string"}]}}]}"#;

const JSON: &str = r#"{"id":123456,"customer":"customer-000042","email":"someone@example.com","status":"PAID","at":"2026-03-01T10:15:00.123Z","total":1234.56,"lines":[{"sku":"sku-000001","qty":2},{"sku":"sku-000002","qty":1}],"note":null,"weight":1.25,"gift":false,"address":{"city":"Hamburg-Altona","zip":"22765"}}"#;

fn datum() -> Vec<u8> {
    let text = |text: &str| Theirs::String(text.to_owned());
    let record = |fields: Vec<(&str, Theirs)>| {
        Theirs::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let line = |sku: &str, qty: i32| record(vec![("sku", text(sku)), ("qty", Theirs::Int(qty))]);
    let order = record(vec![
        ("id", Theirs::Long(123_456)),
        ("customer", text("customer-000042")),
        ("email", Theirs::Union(1, Box::new(text("someone@example.com")))),
        ("status", Theirs::Enum(1, "PAID".to_owned())),
        ("at", Theirs::TimestampMillis(1_772_360_100_123)),
        ("total", Theirs::Decimal(vec![1, 0xe2, 0x40].into())),
        ("lines", Theirs::Array(vec![line("sku-000001", 2), line("sku-000002", 1)])),
        ("note", Theirs::Union(0, Box::new(Theirs::Null))),
        ("weight", Theirs::Double(1.25)),
        ("gift", Theirs::Boolean(false)),
        ("address", record(vec![("city", text("Hamburg-Altona")), ("zip", text("22765"))])),
    ]);
    let schema = apache_avro::Schema::parse_str(SCHEMA).unwrap();
    encode(&schema, order).unwrap()
}

fn record(value: Vec<u8>) -> Record {
    Record {
        topic: Arc::from("t"),
        partition: 0,
        offset: 0,
        timestamp: None,
        key: None,
        value: Some(Bytes::from(value)),
        headers: Vec::new(),
    }
}

#[test]
#[ignore = "a measurement"]
fn an_event_of_which_five_of_eleven_fields_are_read() {
    let mut paths = PathSet::default();
    for path in [&["id"][..], &["customer"], &["status"], &["total"], &["address", "city"]] {
        paths.insert(&path.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>());
    }
    let (mask, slots) = paths.mask();
    let schema = Arc::new(Schema::parse(SCHEMA, &[]).unwrap());
    let avro = Format::Avro(Arc::new(Avro::new(schema, Framing::Auto, &mask)));
    for (name, value, bytes) in
        [("json", Format::Json, JSON.as_bytes().to_vec()), ("avro", avro, datum())]
    {
        let decoder = Decoder { key: None, value, mask: mask.clone(), slots, opener: None };
        let record = record(bytes);
        let mut best = u128::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            for _ in 0..20_000 {
                black_box(decoder.decode(black_box(&record)).unwrap());
            }
            best = best.min(start.elapsed().as_nanos() / 20_000);
        }
        let len = record.value.as_ref().map_or(0, Bytes::len);
        println!("{name}: {len} bytes, {best} ns an event");
    }
}
