//! Batch boundaries change nothing: whatever the handlers and events are, a fold whose states go
//! through a store's JSON now and then comes to the same rows and the same verdicts.

use std::sync::Arc;

use foldline_api::json;
use foldline_api::model::{Key, Row};
use foldline_api::value::{Map, Value};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::one;
use crate::event::Event;
use crate::projection::test::event_of_json;
use crate::projection::{Effects, Projection, StateRef, States};
use hashbrown::HashMap;

const HEAD: &str = r#"
[projections.p]
topics     = ["t"]
event_type = "event.type"
key        = { id = "event.id", part = "event.part" }
[projections.p.fields]
id    = "bigint"
part  = "numeric(6,1)"
a     = "varchar(5)"
n     = { type = "bigint", default = 1 }
m     = "numeric(9,2)"
free  = "numeric"
d     = "double precision"
r     = "real"
s     = "smallint"
tags  = "text[]"
nums  = "numeric(5,1)[]"
at    = "timestamptz"
day   = "date"
clock = "time"
uid   = "uuid"
raw   = "bytea"
yes   = "boolean"
j     = "jsonb"
lines = { type = "children", by = "line", fields = { line = "numeric(4,1)", sku = "varchar(3)", qty = "real" } }
sum   = { type = "numeric(6,2)", computed = "state.lines.map(l, l.line).sum() + state.m" }
both  = { type = "text", computed = "state.a + string(state.sum)" }
"#;

const VERBS: &[&str] = &[
    r#"set = "event""#,
    r#"merge = "event""#,
    r#"patch = "event""#,
    r#"set = { j = "event", a = "state.a" }"#,
    r#"add = { n = "event.n", m = "event.m", free = "event.m", d = "event.d", r = "event.m", s = 1 }"#,
    r#"min = { m = "event.m", a = "event.a", at = "event.at" }
       max = { r = "event.m", d = "event.m", day = "event.day", clock = "event.clock" }"#,
    r#"append = { tags = "event.a", nums = "event.m" }"#,
    r#"remove = { tags = "event.a", nums = "event.m" }"#,
    r#"put = { lines = { line = "event.m", sku = "event.a", qty = "child.qty + 0.1" } }"#,
    r#"put = { lines = { line = "event.m", qty = "event.m" } }"#,
    r#"take = { lines = "event.m" }"#,
    r#"set = { m = "state.r * 1.005", d = "state.free / 3", free = "state.d", a = "state.both" }"#,
    "delete = true",
    "ignore = true",
];

const WHENS: &[&str] = &[
    "",
    "",
    "",
    "when = \"exists\"",
    "when = \"!exists\"",
    "when = \"state.n > 2\"",
    "when = \"event.n > 0\"",
    "when = \"state.sum == null\"",
];

fn handler() -> impl Strategy<Value = String> {
    let each = select(vec!["", "", "for_each = \"event.items\"\n"]);
    let event = select(vec!["event = \"A\"\n", "event = [\"A\", \"B\"]\n", "event = \"^[BC]\"\n"]);
    (select(VERBS), select(WHENS), each, event, any::<bool>()).prop_map(
        |(verb, when, each, event, goes_on)| {
            let goes_on = goes_on && verb != "ignore = true";
            let goes_on = if goes_on { "continue = true\n" } else { "" };
            format!("[[projections.p.on]]\n{event}{each}{when}\n{goes_on}{verb}\n")
        },
    )
}

/// A field's JSON: mostly what fits, sometimes what does not.
fn field() -> impl Strategy<Value = (&'static str, String)> {
    let number = prop_oneof![
        select(vec!["0", "1", "1.004", "-2.345", "0.005", "12.10", "1e2", "-0.0", "7"])
            .prop_map(str::to_owned),
        (-1_000i64..1_000, 0u32..4).prop_map(|(n, scale)| format!("{n}e-{scale}")),
        select(vec!["9223372036854775807", "1e20", "99999999", "\"3.5\"", "null", "\"x\"", "true"])
            .prop_map(str::to_owned),
    ];
    let whole = (-3i64..5).prop_map(|n| n.to_string());
    let text = select(vec!["\"\"", "\"a\"", "\"zz\"", "\"äöü\"", "\"toolong\"", "5", "null", "{}"])
        .prop_map(str::to_owned);
    let time =
        select(vec!["\"2026-01-01T00:00:00.5Z\"", "\"2025-06-01T12:00:00+02:00\"", "null", "1"])
            .prop_map(str::to_owned);
    let json = select(vec!["{\"b\":1.50,\"a\":[null,1e2,\"x\"]}", "[]", "1.0", "\"t\"", "null"])
        .prop_map(str::to_owned);
    let list = select(vec![
        "[]",
        "[1]",
        "[{\"line\":1}]",
        "null",
        "[{\"line\":2.04,\"qty\":0.1},{\"line\":1}]",
    ])
    .prop_map(str::to_owned);
    let fixed = |name: &'static str, values: Vec<&'static str>| {
        select(values).prop_map(move |v| (name, v.to_owned())).boxed()
    };
    prop_oneof![
        number.clone().prop_map(|v| ("m", v)),
        number.clone().prop_map(|v| ("d", v)),
        number.prop_map(|v| ("free", v)),
        whole.prop_map(|v| ("n", v)),
        text.prop_map(|v| ("a", v)),
        time.prop_map(|v| ("at", v)),
        json.prop_map(|v| ("j", v)),
        list.prop_map(|v| ("lines", v)),
        fixed("day", vec!["\"2026-01-01\"", "\"2024-02-29\"", "null"]),
        fixed("clock", vec!["\"10:00\"", "\"10:00:00.123456\"", "null"]),
        fixed("uid", vec!["\"6F1C8A52-94A8-4C1D-9D3E-0C8F0C7B1A01\"", "null"]),
        fixed("raw", vec!["\"AP8=\"", "\"\"", "null"]),
        fixed("yes", vec!["true", "\"f\"", "null"]),
        fixed("tags", vec!["[\"a\",null]", "[]", "null"]),
        fixed("items", vec!["[1,2]", "[]", "null"]),
    ]
}

fn event() -> impl Strategy<Value = String> {
    let name = select(vec!["A", "B", "C"]);
    let part = select(vec!["1", "1.0", "\"1.04\"", "2"]);
    (name, 0..2, part, vec(field(), 0..6)).prop_map(|(name, id, part, fields)| {
        let mut text = format!(r#"{{"type":"{name}","id":{id},"part":{part}"#);
        for (name, value) in fields {
            text.push_str(&format!(r#","{name}":{value}"#));
        }
        text + "}"
    })
}

#[derive(Default)]
struct Store(HashMap<Key, Row>);

impl States for Store {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        Some(StateRef { row: self.0.get(key) })
    }
}

impl Store {
    /// Every row as JSON text and back, as a sink writes and loads it; keys too.
    fn reload(&mut self, projection: &Projection) {
        let rows = std::mem::take(&mut self.0);
        for row in rows.into_values() {
            let entries = projection.model().columns.iter().zip(row.values());
            let map: Map = entries.map(|(c, v)| (Arc::clone(&c.name), v.clone())).collect();
            let text = json::to_string(&Value::Map(Arc::new(map)));
            let Value::Map(map) = json::parse(text.as_bytes()).unwrap() else { panic!("{text}") };
            let columns = projection.model().columns.iter();
            let values = columns
                .map(|c| c.ty.from_json(map.get(&c.name).cloned().unwrap_or_default()).unwrap());
            let row = Row::new(values.collect());
            self.0.insert(projection.model().key_of(&row), row);
        }
    }
}

fn fold(projection: &Projection, events: &[Event], batch: usize) -> (Store, Vec<String>) {
    let mut store = Store::default();
    let mut verdicts = Vec::new();
    for (at, event) in events.iter().enumerate() {
        if batch > 0 && at % batch == 0 {
            store.reload(projection);
        }
        let effects = projection.prepare(event).and_then(|prepared| {
            let effects = projection.apply(event, &prepared, &store)?;
            if let Effects::Applied { writes, reads } = &effects {
                let known = |key: &Key| prepared.keys().contains(key);
                assert!(writes.iter().all(|(key, _)| known(key)) && reads.iter().all(known));
            }
            Ok(effects)
        });
        verdicts.push(format!("{effects:?}"));
        if let Ok(Effects::Applied { writes, .. }) = effects {
            for (key, row) in writes {
                match row {
                    Some(row) => {
                        assert_eq!(projection.model().key_of(&row), key);
                        store.0.insert(key, row);
                    }
                    None => {
                        store.0.remove(&key);
                    }
                }
            }
        }
    }
    (store, verdicts)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batch_boundaries_change_nothing(
        handlers in vec(handler(), 1..5),
        events in vec(event(), 1..25),
    ) {
        let (_, projection) = one(&format!("{HEAD}{}", handlers.concat()));
        let events: Vec<Event> =
            events.iter().map(|text| event_of_json(&projection, text).unwrap()).collect();
        let (whole, verdicts) = fold(&projection, &events, 0);
        for batch in [1, 3] {
            let (mut cut, same) = fold(&projection, &events, batch);
            prop_assert_eq!(&verdicts, &same);
            prop_assert_eq!(&whole.0, &cut.0);
            cut.reload(&projection);
            prop_assert_eq!(&whole.0, &cut.0);
        }
    }
}
