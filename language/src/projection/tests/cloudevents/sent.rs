//! Random events, each written in a random mode, and the rows of a plain model.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use foldline_api::budget::Budget;
use foldline_api::json::{parse_within, write_base64};
use foldline_api::record::Headers;
use foldline_api::value::Value;
use proptest::prelude::*;

use super::log;
use crate::converter::{ConvertError, Encoded, Format, SchemaConverter};

/// A converter that must be asked for each value before it decodes it.
#[derive(Debug, Default)]
struct Asked(Mutex<HashSet<Vec<u8>>>);

#[async_trait]
impl SchemaConverter for Asked {
    async fn prepare(&self, encoded: &[Encoded<'_>]) -> foldline_api::Result<()> {
        self.0.lock().unwrap().extend(encoded.iter().map(|encoded| encoded.bytes.to_vec()));
        Ok(())
    }

    fn decode(&self, encoded: Encoded<'_>, budget: &Budget) -> Result<Value, ConvertError> {
        let asked = self.0.lock().unwrap().contains(encoded.bytes);
        assert!(asked, "not asked for: {:?}", String::from_utf8_lossy(encoded.bytes));
        Ok(parse_within(encoded.bytes, budget)?)
    }
}

#[derive(Clone, Debug)]
enum What {
    /// With data: all of it.
    Named {
        name: Option<String>,
        note: Option<i64>,
    },
    /// With data: what there is of it.
    Patched {
        name: Option<Option<String>>,
        note: Option<Option<i64>>,
    },
    /// Without data: an extension says how many.
    Counted {
        by: i64,
    },
    Gone,
}

#[derive(Clone, Debug)]
enum Step {
    Event { id: i64, what: What, how: How, at: u32 },
    Tombstone { id: i64, headers: bool },
    Bad(u8),
}

#[derive(Clone, Copy, Debug)]
enum How {
    Binary { shout: bool },
    Structured { base64: bool, attributes_last: bool, repeated: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let name = || proptest::option::of("[a-z\"\\\\é]{0,3}");
    let note = || proptest::option::of(-9..9i64);
    let what = prop_oneof![
        (name(), note()).prop_map(|(name, note)| What::Named { name, note }),
        (proptest::option::of(name()), proptest::option::of(note()))
            .prop_map(|(name, note)| What::Patched { name, note }),
        (-9..9i64).prop_map(|by| What::Counted { by }),
        Just(What::Gone),
    ];
    let how = prop_oneof![
        any::<bool>().prop_map(|shout| How::Binary { shout }),
        any::<[bool; 3]>().prop_map(|[base64, attributes_last, repeated]| How::Structured {
            base64,
            attributes_last,
            repeated
        }),
    ];
    prop_oneof![
        8 => (0..5i64, what, how, 0..1_000u32)
            .prop_map(|(id, what, how, at)| Step::Event { id, what, how, at }),
        1 => (0..5i64, any::<bool>()).prop_map(|(id, headers)| Step::Tombstone { id, headers }),
        1 => (0..3u8).prop_map(Step::Bad),
    ]
}

fn json(value: &serde_json::Value) -> String {
    value.to_string()
}

impl What {
    fn name(&self) -> &'static str {
        match self {
            What::Named { .. } => "shop.named",
            What::Patched { .. } => "shop.patched",
            What::Counted { .. } => "shop.counted",
            What::Gone => "shop.gone",
        }
    }

    fn data(&self) -> Option<String> {
        match self {
            What::Named { name, note } => {
                Some(json(&serde_json::json!({ "name": name, "note": note, "other": [1, {}] })))
            }
            What::Patched { name, note } => {
                let mut map = serde_json::Map::new();
                name.iter().for_each(|name| drop(map.insert("name".into(), name.clone().into())));
                note.iter().for_each(|note| drop(map.insert("note".into(), (*note).into())));
                Some(json(&map.into()))
            }
            What::Counted { .. } | What::Gone => None,
        }
    }

    /// With its value in JSON, as a structured event has it.
    fn attributes(&self, at: u32) -> Vec<(&'static str, serde_json::Value)> {
        let mut attributes = vec![
            ("specversion", "1.0".into()),
            ("id", format!("{at}").into()),
            ("source", "/shop".into()),
            ("type", self.name().into()),
            ("sequence", at.into()),
        ];
        if let What::Counted { by } = self {
            attributes.push(("by", (*by).into()));
        }
        attributes
    }
}

fn header(name: &str, text: &str) -> (Arc<str>, Option<Bytes>) {
    (Arc::from(name), Some(Bytes::copy_from_slice(text.as_bytes())))
}

/// The record's value and headers.
fn write(what: &What, how: How, at: u32) -> (Vec<u8>, Headers) {
    let (data, attributes) = (what.data(), what.attributes(at));
    let as_headers = || {
        attributes.iter().map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (format!("ce_{name}"), text)
        })
    };
    match how {
        How::Binary { shout } => {
            let mut headers: Headers = as_headers()
                .map(|(name, text)| header(&if shout { name.to_uppercase() } else { name }, &text))
                .collect();
            if data.is_some() {
                headers.push(header("content-type", "application/json"));
            }
            (data.unwrap_or_default().into_bytes(), headers)
        }
        How::Structured { base64, attributes_last, repeated } => {
            let mut before = String::new();
            for (name, value) in &attributes {
                let _ = write!(before, "\"{name}\":{value},");
            }
            let data = data.map(|data| {
                if !base64 {
                    return format!("\"data\":{data},");
                }
                let mut text = String::new();
                write_base64(data.as_bytes(), &mut text);
                format!("\"data_base64\":\"{text}\",")
            });
            let data = data.unwrap_or_default();
            let inner = if attributes_last { data + &before } else { before + &data };
            let value = format!("{{{}}}", inner.trim_end_matches(','));
            let media = "application/cloudevents+json; charset=UTF-8";
            let mut headers = vec![header("content-type", media)];
            if repeated {
                headers.extend(as_headers().map(|(name, text)| header(&name, &text)));
            }
            (value.into_bytes(), headers)
        }
    }
}

const PROJECTION: &str = r#"
[projections.p]
topics   = ["t"]
envelope = "cloudevents"
key      = { id = "key" }
[projections.p.fields]
id    = "bigint"
name  = "text"
note  = "bigint"
count = { type = "bigint", default = 0 }
last  = "bigint"
[[projections.p.on]]
event = "shop.named"
set   = { name = "event.name", note = "event.note", last = "envelope.sequence" }
[[projections.p.on]]
event = "shop.patched"
patch = { name = "event.name", note = "event.note", last = "envelope.sequence" }
[[projections.p.on]]
event = "shop.counted"
add   = { count = "int(envelope.by)" }
set   = { last = "envelope.sequence" }
[[projections.p.on]]
event  = "shop.gone"
delete = true
"#;

#[derive(Clone, Debug, Default)]
struct Row {
    name: Option<String>,
    note: Option<i64>,
    count: i64,
    last: u32,
}

fn apply(rows: &mut BTreeMap<i64, Row>, id: i64, what: What, at: u32) -> &'static str {
    if matches!(what, What::Gone) {
        return if rows.remove(&id).is_some() { "applied" } else { "filtered" };
    }
    let row = rows.entry(id).or_default();
    row.last = at;
    match what {
        What::Named { name, note } => (row.name, row.note) = (name, note),
        What::Patched { name, note } => {
            row.name = name.unwrap_or(row.name.take());
            row.note = note.unwrap_or(row.note);
        }
        What::Counted { by } => row.count += by,
        What::Gone => {}
    }
    "applied"
}

proptest! {
    #[test]
    fn the_mode_changes_nothing(steps in proptest::collection::vec(step(), 1..60), registry: bool) {
        let mut log = log(PROJECTION);
        if registry {
            log.decoder.value = Format::Schema(Arc::new(Asked::default()));
        }
        let mut rows = BTreeMap::new();
        for step in steps {
            match step {
                Step::Event { id, what, how, at } => {
                    let (value, headers) = write(&what, how, at);
                    let outcome = log.fold_with(Some(&id.to_string()), Some(&value), headers);
                    prop_assert_eq!(outcome, apply(&mut rows, id, what, at));
                }
                Step::Tombstone { id, headers } => {
                    let headers = if headers { vec![header("ce_type", "shop.named")] } else { vec![] };
                    let outcome = log.fold_with(Some(&id.to_string()), None, headers);
                    let there = rows.remove(&id).is_some();
                    prop_assert_eq!(outcome, if there { "applied" } else { "filtered" });
                }
                Step::Bad(which) => {
                    let headers = match which {
                        0 => vec![],
                        1 => vec![header("content-type", "application/cloudevents-batch+json")],
                        _ => vec![header("ce_specversion", "0.3"), header("ce_type", "shop.gone")],
                    };
                    let outcome = log.fold_with(Some("1"), Some(b"{\"name\":\"x\"}"), headers);
                    prop_assert!(outcome.contains("CloudEvent"), "{}", outcome);
                }
            }
            let wanted: Vec<String> = rows.iter().map(|(id, row): (&i64, &Row)| {
                let name = serde_json::json!(row.name);
                let note = serde_json::json!(row.note);
                format!("{id} {name} {note} {} {}", row.count, row.last)
            }).collect();
            prop_assert_eq!(log.rows(), wanted);
        }
    }
}
