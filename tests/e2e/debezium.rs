//! Debezium's change events, in JSON without schemas, with them and unwrapped: each mirrors its table.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Raw};
use crate::support::orders::PARTITIONS;
use crate::support::setup::{Setup, connector, kafka_source, postgres_sink};
use crate::support::stores::query;
use crate::support::use_servers;

const CHANGES: u64 = 1_200;
const KEYS: u64 = 40;
const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// As a topic's connector is configured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    /// `schemas.enable=false`, a table of the default replica identity.
    Plain,
    /// With schemas, and REPLICA IDENTITY FULL.
    Schemas,
    /// ExtractNewRecordState with `rewrite` and `add.fields=op`.
    Flat,
}

/// A row: what is small, and what is out of line.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: Option<String>,
    cents: i64,
    micros: i64,
    body: String,
    tags: Vec<String>,
}

impl Row {
    fn nth(nth: u64, before: Option<&Row>) -> Row {
        let kept = before.filter(|_| !nth.is_multiple_of(3));
        Row {
            name: (!nth.is_multiple_of(5)).then(|| format!("größer {nth}")),
            cents: i64::try_from(nth).unwrap() * 37 - 9_000,
            micros: 1_700_000_000_000_000 + i64::try_from(nth).unwrap() * 1_000_001,
            body: kept.map_or_else(|| format!("body {nth}"), |row| row.body.clone()),
            tags: kept
                .map_or_else(|| vec![format!("t{nth}"), "x".to_owned()], |row| row.tags.clone()),
        }
    }

    fn decimal(&self) -> String {
        let whole = self.cents.unsigned_abs();
        let sign = if self.cents < 0 { "-" } else { "" };
        format!("{sign}{}.{:02}", whole / 100, whole % 100)
    }

    /// As JSON has it; `untouched` says that what is out of line was not sent.
    fn json(&self, id: u64, as_written: Written, untouched: bool) -> Value {
        let (body, tags) = if untouched && as_written != Written::Schemas {
            (json!(PLACEHOLDER), json!([PLACEHOLDER]))
        } else {
            (json!(self.body), json!(self.tags))
        };
        let (price, at) = if as_written == Written::Schemas {
            let mut price = String::new();
            foldline_api::json::write_base64(&self.cents.to_be_bytes(), &mut price);
            (json!(price.trim_matches('"')), json!(self.micros))
        } else {
            let at = jiff::Timestamp::from_microsecond(self.micros).unwrap();
            (json!(self.decimal()), json!(at.to_string()))
        };
        json!({ "id": id, "name": self.name, "price": price, "at": at, "body": body, "tags": tags })
    }
}

fn row_schema(field: &str) -> Value {
    json!({ "type": "struct", "optional": true, "name": "p.public.t.Value", "field": field, "fields": [
        { "type": "int64", "optional": false, "field": "id" },
        { "type": "string", "optional": true, "field": "name", "default": "unnamed" },
        { "type": "bytes", "optional": false, "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
          "parameters": { "scale": "2", "connect.decimal.precision": "12" }, "field": "price" },
        { "type": "int64", "optional": false, "name": "io.debezium.time.MicroTimestamp", "version": 1, "field": "at" },
        { "type": "string", "optional": true, "field": "body" },
        { "type": "array", "items": { "type": "string", "optional": true }, "optional": true, "field": "tags" },
    ] })
}

/// A value in Connect's envelope of schema and payload.
fn with_schema(payload: Value) -> Value {
    let text = |field: &str| json!({ "type": "string", "optional": true, "field": field });
    let source = json!({ "type": "struct", "optional": false, "name": "io.debezium.connector.postgresql.Source",
        "field": "source", "fields": [{ "type": "int64", "optional": false, "field": "ts_ms" }, text("table")] });
    json!({ "schema": { "type": "struct", "optional": false, "name": "p.public.t.Envelope", "version": 2, "fields": [
        row_schema("before"), row_schema("after"), source,
        { "type": "string", "optional": false, "field": "op" },
        { "type": "int64", "optional": true, "field": "ts_ms" },
    ] }, "payload": payload })
}

fn key(id: u64, as_written: Written) -> Vec<u8> {
    let key = json!({ "id": id });
    let schema = json!({ "type": "struct", "optional": false, "name": "p.public.t.Key",
        "fields": [{ "type": "int64", "optional": false, "field": "id" }] });
    let key = if as_written == Written::Schemas {
        json!({ "schema": schema, "payload": key })
    } else {
        key
    };
    key.to_string().into_bytes()
}

/// One topic under way.
struct Topic {
    written: Written,
    records: Vec<Raw>,
}

impl Topic {
    fn send(&mut self, id: u64, value: Option<Value>) {
        let partition = i32::try_from(id).unwrap() % PARTITIONS;
        let value = value.map(|value| value.to_string().into_bytes());
        let key = Some(key(id, self.written));
        self.records.push(Raw { partition, key, value, headers: vec![] });
    }

    fn change(&mut self, id: u64, op: &str, before: Option<&Row>, after: Option<&Row>) {
        let written = self.written;
        let untouched =
            op == "u" && before.zip(after).is_some_and(|(before, after)| before.body == after.body);
        let after = after.map(|row| row.json(id, written, untouched));
        let invented = json!({ "id": id, "name": null, "price": "0.00", "at": "1970-01-01T00:00:00Z", "body": "", "tags": null });
        let before = match (written, op) {
            (_, "c" | "r") => None,
            (Written::Schemas, _) => before.map(|row| row.json(id, written, false)),
            (_, "d") => Some(invented),
            _ => None,
        };
        let value = match written {
            Written::Flat => {
                let mut row = if op == "d" { before } else { after }.unwrap();
                row["__deleted"] = json!((op == "d").to_string());
                row["__op"] = json!(op);
                row
            }
            Written::Plain | Written::Schemas => {
                let change = json!({ "before": before, "after": after, "source": { "ts_ms": 7, "table": "t" }, "op": op, "ts_ms": 8 });
                if written == Written::Schemas { with_schema(change) } else { change }
            }
        };
        self.send(id, Some(value));
    }
}

/// What the source does, and what is in its table then.
fn history(written: Written) -> (Vec<Raw>, BTreeMap<u64, Row>) {
    let mut topic = Topic { written, records: Vec::new() };
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    for nth in 0..CHANGES {
        let id = nth * 7_919 % KEYS;
        match (rows.get(&id).cloned(), nth % 13) {
            (None, _) => {
                let row = Row::nth(nth, None);
                topic.change(id, if nth < KEYS { "r" } else { "c" }, None, Some(&row));
                rows.insert(id, row);
            }
            (Some(row), 3 | 8) => {
                rows.remove(&id);
                topic.change(id, "d", Some(&row), None);
                topic.send(id, None);
                // Every other time it has another key from now on.
                let to = id + 1_000;
                if nth % 2 == 0 && !rows.contains_key(&to) {
                    topic.change(to, "c", None, Some(&row));
                    rows.insert(to, row);
                }
            }
            (Some(row), _) => {
                let after = Row::nth(nth, Some(&row));
                topic.change(id, "u", Some(&row), Some(&after));
                rows.insert(id, after);
            }
        }
        if nth % 100 == 50 && written == Written::Plain {
            let truncate = json!({ "before": null, "after": null, "source": { "ts_ms": 7, "table": "t" }, "op": "t", "ts_ms": 8 });
            let value = Some(truncate.to_string().into_bytes());
            topic.records.push(Raw { partition: 0, value, ..Raw::default() });
        }
    }
    (topic.records, rows)
}

fn projection(name: &str, topic: &str, envelope: &str) -> String {
    format!(
        r#"[projections.{name}]
topics = [{topic:?}]
envelope = {envelope:?}
key = {{ id = "event.id" }}
[projections.{name}.fields]
id = "bigint"
name = "text"
price = "numeric(12,2)"
at = "timestamptz"
body = "text"
tags = "text[]"
[[projections.{name}.on]]
set = "event"
"#
    )
}

fn shown(rows: &BTreeMap<u64, Row>) -> Vec<Vec<Option<String>>> {
    let texts = |(id, row): (&u64, &Row)| {
        vec![
            Some(id.to_string()),
            row.name.clone(),
            Some(row.decimal()),
            Some(row.micros.to_string()),
            Some(row.body.clone()),
            Some(format!("{{{}}}", row.tags.join(","))),
        ]
    };
    rows.iter().map(texts).collect()
}

async fn stored(table: &str) -> Vec<Vec<Option<String>>> {
    query(&format!(
        "select id::text as key, name, price::text, (extract(epoch from at) * 1000000)::bigint::text, body, tags::text from {table} order by id"
    ))
    .await
}

fn assert_answers(daemon: &Daemon, arguments: &[&str], says: &str) {
    let printed = daemon.cli(arguments);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.out.contains(says), "{says:?} in {printed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn change_events_mirror_their_table() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let kinds = [
        ("plain", Written::Plain, "debezium", "key = \"json\""),
        (
            "schemas",
            Written::Schemas,
            "debezium",
            "key = \"connect-json\"\nvalue = \"connect-json\"\nreplica_identity = \"full\"",
        ),
        ("flat", Written::Flat, "debezium-flat", "key = \"json\""),
    ];
    let mut parts = vec![kafka_source()];
    for (name, written, envelope, says) in kinds {
        let topic = setup.name(name);
        kafka::create(&topic, PARTITIONS).await;
        kafka::produce_raw(&topic, &history(written).0);
        parts.push(format!("[sources.events.topics.{topic}]\n{says}\n"));
        parts.push(projection(name, &topic, envelope));
        parts.push(connector(name, name, "warehouse", &topic, ""));
    }
    parts.push(postgres_sink());
    setup.config(&parts);
    let daemon = setup.start().await;
    for (name, written, ..) in kinds {
        let topic = setup.name(name);
        daemon.caught_up(name, &topic).await;
        daemon.idle(name, PARTITIONS as u64).await;
        let wanted = shown(&history(written).1);
        assert!(wanted.len() > 20, "{} rows", wanted.len());
        assert_eq!(stored(&topic).await, wanted, "{name}");
        assert_answers(&daemon, &["verify", name], "");
        assert_answers(&daemon, &["explain", name, &wanted[0][0].clone().unwrap()], "update");
        assert_answers(&daemon, &["rebuild", name, "--wait"], "");
        daemon.idle(name, PARTITIONS as u64).await;
        assert_eq!(stored(&topic).await, wanted, "{name} rebuilt");
        assert_answers(&daemon, &["verify", name], "");
        let letters = kafka::read_back(&format!("dlq-{}", setup.group(name)));
        assert_eq!(letters.len(), 0, "{name}");
    }
    let log = setup.log();
    // Each task tells it once.
    let told = log.matches("the table was truncated").count();
    assert!((1..=2 * PARTITIONS as usize).contains(&told), "told {told} times");
    daemon.stop().await;
    setup.clean().await;
}
