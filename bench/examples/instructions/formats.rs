//! The same event in each format; in Avro and Protobuf framed, its schema looked up by the id before it.

use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::record::Record;
use foldline_language::converter::schema::{Answer, Registered, Schemas};
use foldline_language::converter::{
    Decoder, Format, Framing, Part, RegistryAvro, RegistryProtobuf, SchemaId,
};
use foldline_language::event::Mask;

use super::Result;

const AVRO: &str = r#"{"type":"record","name":"OrderChanged","namespace":"shop","fields":[
    {"name":"id","type":"long"},{"name":"event","type":"string"},{"name":"userId","type":["null","long"]},
    {"name":"shipping","type":{"type":"record","name":"Shipping","fields":[
        {"name":"lines","type":{"type":"array","items":"int"}},{"name":"to","type":"string"}]}},
    {"name":"amount","type":["null","long"]},
    {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}]},
    {"name":"note","type":["null","string"]}]}"#;

const PROTOBUF: &str = r#"syntax = "proto3"; package shop;
    message Shipping { repeated int32 lines = 1; string to = 2; }
    message OrderChanged {
        int64 id = 1; string event = 2; optional int64 userId = 3; Shipping shipping = 4;
        optional int64 amount = 5; optional string price = 6; optional string note = 7; }"#;

const ID: u32 = 7;

/// One schema.
#[derive(Debug)]
struct Only(Arc<Registered>);

#[async_trait]
impl Schemas for Only {
    async fn get(&self, ids: &[SchemaId]) -> foldline_api::Result<Vec<Answer>> {
        Ok(ids.iter().map(|_| Answer::Schema(Arc::clone(&self.0))).collect())
    }
}

fn only(kind: &str, text: &str) -> Arc<dyn Schemas> {
    let (kind, text) = (Some(kind.to_owned()), text.to_owned());
    Arc::new(Only(Arc::new(Registered { kind, text, references: Vec::new() })))
}

/// The value of the event at a place.
type Values = fn(i64) -> Vec<u8>;

/// What reads the format, and the values in it.
pub(super) fn of(name: Option<&str>, mask: &Mask) -> Result<(Format, Values)> {
    Ok(match name {
        None => (Format::Json, json),
        Some("avro") => {
            let schemas = only("AVRO", AVRO);
            let by = RegistryAvro::new(schemas, Framing::Auto, Part::Value, mask);
            (Format::Schema(Arc::new(by)), avro)
        }
        Some("protobuf") => {
            let schemas = only("PROTOBUF", PROTOBUF);
            let by = RegistryProtobuf::new(schemas, Framing::Auto, Part::Value, mask);
            (Format::Schema(Arc::new(by)), protobuf)
        }
        Some(other) => return Err(format!("{other} is no format").into()),
    })
}

/// Asks for the schema.
pub(super) fn prepare(decoder: &Decoder, records: &[Record]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(decoder.prepare(&records.iter().collect::<Vec<_>>()))?)
}

/// What an event says.
struct Order {
    id: i64,
    user: i64,
    amount: i64,
    cents: i64,
    note: String,
}

const EVENT: &str = "OrderChanged";
const LINES: [i64; 3] = [1, 2, 3];
const TO: &str = "a town";

fn order(at: i64) -> Order {
    let cents = at % 1_000 * 100 + at % 100;
    Order { id: at % 100, user: at * 7, amount: at % 13, cents, note: format!("number {at}") }
}

impl Order {
    fn price(&self) -> String {
        format!("{}.{:02}", self.cents / 100, self.cents % 100)
    }
}

fn json(at: i64) -> Vec<u8> {
    let order = order(at);
    let Order { id, user, amount, note, .. } = &order;
    let text = format!(
        "{{\"id\":{id},\"event\":\"{EVENT}\",\"userId\":{user},\"shipping\":{{\"lines\":[1,2,3],\"to\":\"{TO}\"}},\
         \"amount\":{amount},\"price\":{},\"note\":\"{note}\"}}",
        order.price()
    );
    text.into_bytes()
}

fn framed() -> Vec<u8> {
    [&[0][..], &ID.to_be_bytes()].concat()
}

fn varint(out: &mut Vec<u8>, mut rest: u64) {
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn avro(at: i64) -> Vec<u8> {
    fn long(out: &mut Vec<u8>, number: i64) {
        varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
    }
    fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
        long(out, bytes.len() as i64);
        out.extend(bytes);
    }
    let (order, mut out) = (order(at), framed());
    long(&mut out, order.id);
    bytes(&mut out, EVENT.as_bytes());
    for some in [1, order.user, LINES.len() as i64].into_iter().chain(LINES).chain([0]) {
        long(&mut out, some);
    }
    bytes(&mut out, TO.as_bytes());
    for some in [1, order.amount, 1] {
        long(&mut out, some);
    }
    bytes(&mut out, &(order.cents as i32).to_be_bytes());
    long(&mut out, 1);
    bytes(&mut out, order.note.as_bytes());
    out
}

fn protobuf(at: i64) -> Vec<u8> {
    fn int(out: &mut Vec<u8>, field: u64, number: i64) {
        varint(out, field << 3);
        varint(out, number.cast_unsigned());
    }
    fn bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
        varint(out, field << 3 | 2);
        varint(out, bytes.len() as u64);
        out.extend(bytes);
    }
    let (order, mut out, mut shipping) = (order(at), framed(), Vec::new());
    // Which message of the schema: the second.
    out.extend([2, 2]);
    bytes(&mut shipping, 1, &LINES.map(|line| line as u8));
    bytes(&mut shipping, 2, TO.as_bytes());
    int(&mut out, 1, order.id);
    bytes(&mut out, 2, EVENT.as_bytes());
    int(&mut out, 3, order.user);
    bytes(&mut out, 4, &shipping);
    int(&mut out, 5, order.amount);
    bytes(&mut out, 6, order.price().as_bytes());
    bytes(&mut out, 7, order.note.as_bytes());
    out
}
