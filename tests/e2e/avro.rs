//! Avro by a schema from a file: the same events in Avro and in JSON are the same rows, and what is no such value is a bad record.

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Raw};
use crate::support::orders::PARTITIONS;
use crate::support::setup::{Setup, connector, kafka_source, postgres_sink};
use crate::support::stores::query;
use crate::support::use_servers;

const KEYS: u64 = 60;
const EVENTS: u64 = 1_500;

const MONEY: &str = r#"{"type":"record","name":"Money","namespace":"shop","fields":[
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":30,"scale":4}},
    {"name":"currency","type":{"type":"enum","name":"Currency","symbols":["EUR","USD"]}}]}"#;

/// `money`: the type, or where a reference defines it its name.
fn schema(money: &str) -> String {
    format!(
        r#"[{{"type":"record","name":"OrderPlaced","namespace":"shop","fields":[
            {{"name":"id","type":"long"}},{{"name":"padding","type":{{"type":"array","items":["null","string"]}}}},
            {{"name":"customer","type":["null","string"]}},{{"name":"total","type":{money}}},
            {{"name":"at","type":{{"type":"long","logicalType":"timestamp-micros"}}}},
            {{"name":"day","type":{{"type":"int","logicalType":"date"}}}},
            {{"name":"uid","type":{{"type":"string","logicalType":"uuid"}}}},
            {{"name":"tags","type":{{"type":"map","values":"string"}}}}]}},
          {{"type":"record","name":"OrderGone","namespace":"shop","fields":[{{"name":"id","type":"long"}}]}}]"#
    )
}

/// One event, as both topics have it.
struct Event {
    id: u64,
    gone: bool,
    nth: u64,
}

impl Event {
    fn nth(nth: u64) -> Self {
        Event { id: nth * 7_919 % KEYS, gone: nth % 11 == 3, nth }
    }

    fn amount(&self) -> i64 {
        i64::try_from(self.nth * 7_777_777).unwrap() - 500_000_000
    }

    fn micros(&self) -> i64 {
        1_700_000_000_000_000 + i64::try_from(self.nth).unwrap() * 1_000_001
    }

    fn uid(&self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.nth)
    }

    fn json(&self) -> String {
        if self.gone {
            return format!(r#"{{"type":"OrderGone","id":{}}}"#, self.id);
        }
        let amount = self.amount();
        let (sign, whole) = (if amount < 0 { "-" } else { "" }, amount.unsigned_abs());
        let customer = if self.nth.is_multiple_of(5) { "null" } else { "\"größer\"" };
        let at = jiff::Timestamp::from_microsecond(self.micros()).unwrap();
        format!(
            r#"{{"type":"OrderPlaced","id":{},"customer":{customer},"total":{{"amount":{sign}{}.{:04},"currency":"USD"}},
               "at":"{at}","day":"2026-02-{:02}","uid":"{}","tags":{{"kind":"k{}"}}}}"#,
            self.id,
            whole / 10_000,
            whole % 10_000,
            1 + self.nth % 28,
            self.uid(),
            self.nth
        )
    }

    fn avro(&self) -> Value {
        let text = |text: &str| Value::String(text.to_owned());
        let record = |fields: Vec<(&str, Value)>| {
            Value::Record(
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            )
        };
        let some = |at: u32, value: Value| Value::Union(at, Box::new(value));
        let id = Value::Long(i64::try_from(self.id).unwrap());
        if self.gone {
            return some(1, record(vec![("id", id)]));
        }
        let customer = if self.nth.is_multiple_of(5) {
            some(0, Value::Null)
        } else {
            some(1, text("größer"))
        };
        let money = record(vec![
            ("amount", Value::Decimal(self.amount().to_be_bytes().into())),
            ("currency", Value::Enum(1, "USD".to_owned())),
        ]);
        let padding = Value::Array(vec![some(0, Value::Null), some(1, text("passed over"))]);
        let day = 20_485 + i32::try_from(self.nth % 28).unwrap();
        let tags = [("kind".to_owned(), text(&format!("k{}", self.nth)))];
        some(
            0,
            record(vec![
                ("id", id),
                ("padding", padding),
                ("customer", customer),
                ("total", money),
                ("at", Value::TimestampMicros(self.micros())),
                ("day", Value::Date(day)),
                ("uid", Value::Uuid(self.uid().parse().unwrap())),
                ("tags", Value::Map(tags.into())),
            ]),
        )
    }

    fn raw(&self, value: Vec<u8>) -> Raw {
        let partition = i32::try_from(self.id).unwrap() % PARTITIONS;
        Raw::value(partition, &self.id.to_string(), value)
    }
}

/// The schema's fingerprint, by the other library: without logical types, which belong to no canonical form and stay in its.
fn fingerprint() -> Vec<u8> {
    let mut plain = schema(MONEY);
    for (logical, base) in [
        (r#"{"type":"bytes","logicalType":"decimal","precision":30,"scale":4}"#, "\"bytes\""),
        (r#"{"type":"long","logicalType":"timestamp-micros"}"#, "\"long\""),
        (r#"{"type":"int","logicalType":"date"}"#, "\"int\""),
        (r#"{"type":"string","logicalType":"uuid"}"#, "\"string\""),
    ] {
        plain = plain.replace(logical, base);
    }
    assert!(!plain.contains("logicalType"));
    Schema::parse_str(&plain).unwrap().fingerprint::<Rabin>().bytes
}

/// By the other library, every third one single-object encoded.
fn encoded() -> Vec<Raw> {
    let own = Schema::parse_str(&schema(MONEY)).unwrap();
    let writer = GenericDatumWriter::builder(&own).build().unwrap();
    let fingerprint = fingerprint();
    let encode = |nth: u64| {
        let event = Event::nth(nth);
        let mut bytes = Vec::new();
        if nth.is_multiple_of(3) {
            bytes.extend([0xc3, 0x01]);
            bytes.extend(&fingerprint);
        }
        writer.write_value(&mut bytes, event.avro()).unwrap();
        event.raw(bytes)
    };
    (0..EVENTS).map(encode).collect()
}

fn projection(name: &str, topic: &str) -> String {
    format!(
        r#"[projections.{name}]
topics = [{topic:?}]
event_type = "event.type"
key = {{ id = "event.id" }}
[projections.{name}.fields]
id = "bigint"
customer = "text"
total = "numeric(30,4)"
sum = {{ type = "numeric", default = 0 }}
currency = "text"
at = "timestamptz"
day = "date"
uid = "uuid"
kind = "text"
changes = {{ type = "bigint", default = 0 }}
[[projections.{name}.on]]
event = "OrderPlaced"
set = {{ customer = "event.customer", total = "event.total.amount", currency = "event.total.currency", at = "event.at", day = "event.day", uid = "event.uid", kind = "event.tags.kind" }}
add = {{ changes = 1, sum = "event.total.amount" }}
[[projections.{name}.on]]
event = "OrderGone"
delete = true
"#
    )
}

/// Of no key that an event has: what follows them is folded all the same.
fn bad() -> Vec<(Raw, &'static str)> {
    let good = encoded().swap_remove(1).value.unwrap();
    let cut = good[..good.len() - 1].to_vec();
    let longer = [&good[..], &[0, 0]].concat();
    let framed = [&[0, 0, 0, 0, 7][..], &good].concat();
    let other = [&[0xc3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8][..], &good].concat();
    [
        (cut, "tags: 1 bytes are needed, 0 are left"),
        (longer, "2 bytes are left over"),
        (framed, "00 and the number 7"),
        (other, "of fingerprint 0x0807060504030201"),
        (br#"{"id":1}"#.to_vec(), "it looks like JSON"),
    ]
    .into_iter()
    .zip(0..)
    .map(|((value, says), nth)| (Raw::value(nth % PARTITIONS, &format!("bad-{nth}"), value), says))
    .collect()
}

async fn rows(table: &str) -> Vec<Vec<Option<String>>> {
    query(&format!(
        "select id, customer, total, sum, currency, at, day, uid, kind, changes from {table} order by id"
    ))
    .await
}

async fn assert_same(avro: &str, json: &str) {
    let (found, wanted) = (rows(avro).await, rows(json).await);
    assert!(wanted.len() > 40, "{} rows", wanted.len());
    assert_eq!(found, wanted);
}

fn assert_answers(daemon: &Daemon, arguments: &[&str], says: &str) {
    let printed = daemon.cli(arguments);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.out.contains(says), "{says:?} in {printed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_avro_are_the_rows_that_they_are_in_json() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (in_avro, in_json) = (setup.name("avro"), setup.name("json"));
    for topic in [&in_avro, &in_json] {
        kafka::create(topic, PARTITIONS).await;
    }
    let bad = bad();
    let good = encoded();
    let (first, rest) = good.split_at(usize::try_from(EVENTS / 2).unwrap());
    kafka::produce_raw(&in_avro, first);
    kafka::produce_raw(&in_avro, &bad.iter().map(|(raw, _)| raw.clone()).collect::<Vec<_>>());
    kafka::produce_raw(&in_avro, rest);
    let events = (0..EVENTS).map(Event::nth);
    let plain: Vec<Raw> = events.map(|event| event.raw(event.json().into_bytes())).collect();
    kafka::produce_raw(&in_json, &plain);

    std::fs::write(setup.path("config/order.avsc"), schema("\"shop.Money\"")).unwrap();
    std::fs::write(setup.path("config/money.avsc"), MONEY).unwrap();
    let converter = format!(
        "[sources.events.topics.{in_avro}]\nvalue = {{ type = \"avro\", schema = \"order.avsc\", references = [\"money.avsc\"] }}\n"
    );
    setup.config(&[
        kafka_source(),
        converter,
        projection("avro", &in_avro),
        projection("json", &in_json),
        postgres_sink(),
        connector("avro", "avro", "warehouse", &in_avro, ""),
        connector("json", "json", "warehouse", &in_json, ""),
    ]);
    let daemon = setup.start().await;
    for (name, topic) in [("avro", &in_avro), ("json", &in_json)] {
        daemon.caught_up(name, topic).await;
        daemon.idle(name, PARTITIONS as u64).await;
    }
    assert_same(&in_avro, &in_json).await;
    let letters = kafka::read_back(&format!("dlq-{}", setup.group("avro")));
    assert_eq!(letters.len(), bad.len());
    for (raw, says) in &bad {
        let letter = letters.iter().find(|letter| letter.key == raw.key).unwrap();
        let message = letter.header("__connect.errors.exception.message").unwrap();
        assert!(message.contains(says), "{says:?} in {message:?}");
    }

    // What reads the log again reads it by the same schema.
    assert_answers(&daemon, &["verify", "avro"], "");
    let id = (0..EVENTS).map(Event::nth).rfind(|event| !event.gone).unwrap().id;
    assert_answers(&daemon, &["explain", "avro", &id.to_string()], "OrderPlaced");
    assert_answers(&daemon, &["rebuild", "avro", "--wait"], "");
    daemon.idle("avro", PARTITIONS as u64).await;
    assert_same(&in_avro, &in_json).await;
    assert_answers(&daemon, &["verify", "avro"], "");
    daemon.stop().await;
    setup.clean().await;
}
