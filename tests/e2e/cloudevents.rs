//! CloudEvents that somebody else's encoder wrote, in binary and in structured mode in one topic: the rows are those of the events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::kafka::{self, Raw};
use crate::support::orders::PARTITIONS;
use crate::support::registry::encode;
use crate::support::setup::{Setup, connector, kafka_source, postgres_sink};
use crate::support::stores::query;
use crate::support::use_servers;

const KEYS: u64 = 40;
const EVENTS: u64 = 1_200;

/// One event, and what becomes of its row.
struct Event {
    nth: u64,
    id: u64,
}

/// name, note, changes, sequence, source, time.
type Row = (Option<String>, Option<String>, u64, u64, String, String);

impl Event {
    fn nth(nth: u64) -> Self {
        Event { nth, id: nth * 7_919 % KEYS }
    }

    fn kind(&self) -> &'static str {
        match self.nth % 9 {
            4 => "shop.touched",
            7 => "shop.gone",
            _ => "shop.named",
        }
    }

    fn time(&self) -> String {
        format!("2026-01-01T{:02}:{:02}:00Z", self.nth / 60 % 24, self.nth % 60)
    }

    fn source(&self) -> String {
        format!("/größer/{}", self.nth % 4)
    }

    fn data(&self) -> Option<Value> {
        let note = if self.nth.is_multiple_of(3) { Value::Null } else { json!({ "n": self.nth }) };
        (self.kind() == "shop.named")
            .then(|| json!({ "name": format!("näme \"{}\"", self.nth), "note": note, "rest": [1] }))
    }

    /// As the encoder takes it.
    fn given(&self) -> Value {
        let mode = if (self.nth / 2).is_multiple_of(2) { "binary" } else { "structured" };
        let mut given = json!({ "mode": mode, "bytes": self.nth.is_multiple_of(5), "attributes": {
            "specversion": "1.0", "id": self.nth.to_string(), "source": self.source(), "type": self.kind(),
            "time": self.time(), "subject": self.id.to_string(), "sequence": self.nth,
        } });
        match self.data() {
            Some(data) => {
                given["data"] = data;
                if !self.nth.is_multiple_of(7) {
                    given["attributes"]["datacontenttype"] = "application/json".into();
                }
            }
            None => given["bytes"] = false.into(),
        }
        given
    }

    fn apply(&self, rows: &mut BTreeMap<u64, Row>) {
        if self.kind() == "shop.gone" {
            rows.remove(&self.id);
            return;
        }
        let row = rows.entry(self.id).or_default();
        if let Some(data) = self.data() {
            row.0 = data["name"].as_str().map(str::to_owned);
            row.1 = data["note"]["n"].as_u64().map(|n| n.to_string());
        }
        row.2 += 1;
        (row.3, row.4, row.5) = (self.nth, self.source(), self.time());
    }
}

/// The events as records of the encoder's.
fn encoded(events: &[Event]) -> Vec<Raw> {
    let given: Vec<Value> = events.iter().map(Event::given).collect();
    let records = encode("encode_cloudevents.py", &given.into());
    let records = records.as_array().unwrap();
    assert_eq!(records.len(), events.len());
    let raw = |(event, record): (&Event, &Value)| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let headers = record["headers"].as_object().unwrap();
        Raw {
            headers: headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            ..Raw::value(
                i32::try_from(event.id).unwrap() % PARTITIONS,
                &event.id.to_string(),
                text(&record["value"]),
            )
        }
    };
    events.iter().zip(records).map(raw).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_modes_in_one_topic_are_the_rows_of_their_events() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let topic = setup.name("events");
    kafka::create(&topic, PARTITIONS).await;
    let events: Vec<Event> = (0..EVENTS).map(Event::nth).collect();
    let mut rows = BTreeMap::new();
    events.iter().for_each(|event| event.apply(&mut rows));
    let mut records = encoded(&events);
    for mode in ["ce_specversion", "content-type"] {
        let such = records.iter().filter(|raw| raw.headers.iter().any(|(name, _)| name == mode));
        assert!(such.count() > 400, "{mode}");
    }
    // Two of the rows end by a tombstone, and what is no CloudEvent is left out.
    let ended: Vec<u64> = rows.keys().copied().take(2).collect();
    for id in ended {
        let row = Raw::value(i32::try_from(id).unwrap() % PARTITIONS, &id.to_string(), "");
        records.push(Raw { value: None, ..row });
        rows.remove(&id);
    }
    records.push(Raw::value(0, "6", r#"{"name":"no headers"}"#));
    kafka::produce_raw(&topic, &records);
    let projection = format!(
        r#"[projections.events]
topics = [{topic:?}]
envelope = "cloudevents"
key = {{ id = "key" }}
fields = {{ id = "bigint", name = "text", note = "bigint", changes = {{ type = "bigint", default = 0 }}, sequence = "bigint", source = "text", told = "timestamptz" }}
[[projections.events.on]]
event = "shop.gone"
delete = true
[[projections.events.on]]
event = "shop.named"
set = {{ name = "event.name", note = "event.note.n" }}
continue = true
[[projections.events.on]]
set = {{ sequence = "envelope.sequence", source = "envelope.source", told = "envelope.time" }}
add = {{ changes = 1 }}
"#
    );
    let skip = "errors = { on_bad_record = \"skip\" }";
    setup.config(&[
        kafka_source(),
        projection,
        postgres_sink(),
        connector("events", "events", "warehouse", &topic, skip),
    ]);
    let daemon = setup.start().await;
    daemon.caught_up("events", &topic).await;
    daemon.idle("events", PARTITIONS as u64).await;
    let found = query(&format!(
        "select id, name, note, changes, sequence, source, to_char(told at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
         from {topic} order by id"
    ))
    .await;
    let wanted: Vec<Vec<Option<String>>> = rows
        .into_iter()
        .map(|(id, (name, note, changes, sequence, source, told))| {
            let text = |value: u64| Some(value.to_string());
            vec![text(id), name, note, text(changes), text(sequence), Some(source), Some(told)]
        })
        .collect();
    assert!(wanted.len() > 25, "{} rows", wanted.len());
    assert_eq!(found, wanted);
    daemon.stop().await;
    setup.clean().await;
}
