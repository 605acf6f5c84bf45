//! What one record may cost: over a limit it is bad, with the reason, and quickly so.

use std::time::{Duration, Instant};

use foldline_api::budget::{FOLD_VERSION, ROWS_MAX};
use foldline_api::model::{Key, Row};
use foldline_api::value::Value;

use super::one;
use crate::projection::test::event_of_json;
use crate::projection::{BadRecord, Effects, Projection, StateRef, States};
use hashbrown::HashMap;

#[derive(Default)]
struct Store(HashMap<Key, Row>);

impl States for Store {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        Some(StateRef { row: self.0.get(key) })
    }
}

fn projection(fields: &str, handlers: &str) -> Projection {
    one(&format!(
        "[projections.p]\ntopics = [\"t\"]\nkey = {{ id = \"event.id\" }}\n\
         fields = {{ id = \"bigint\", {fields} }}\n{handlers}"
    ))
    .1
}

impl Store {
    /// Folds an event; how many rows it wrote. Sooner than a minute, in a build that is not optimized.
    fn fold(&mut self, projection: &Projection, json: &str) -> Result<usize, BadRecord> {
        let event = event_of_json(projection, json).unwrap();
        let begun = Instant::now();
        let effects = projection
            .prepare(&event)
            .and_then(|prepared| projection.apply(&event, &prepared, &*self));
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        let Effects::Applied { writes, .. } = effects? else { return Ok(0) };
        let count = writes.len();
        for (key, row) in writes {
            match row {
                Some(row) => self.0.insert(key, row),
                None => self.0.remove(&key),
            };
        }
        Ok(count)
    }
}

fn reason(folded: Result<usize, BadRecord>) -> String {
    folded.unwrap_err().reason
}

fn numbers(count: usize) -> String {
    (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn the_rows_of_a_record_are_bounded() {
    let projection = projection("n = \"bigint\"", EACH);
    let event = |rows: usize| format!("{{\"id\":1,\"ids\":[{}]}}", numbers(rows));
    let mut store = Store::default();
    assert_eq!(store.fold(&projection, &event(ROWS_MAX)), Ok(ROWS_MAX));
    let over = store.fold(&projection, &event(ROWS_MAX + 1)).unwrap_err();
    assert_eq!((over.stage, &*over.reason), ("budget", "the record touches more than 10,000 rows"));
}

const EACH: &str =
    "[[projections.p.on]]\nfor_each = \"event.ids\"\nkey = { id = \"item\" }\nadd = { n = 1 }\n";

/// So many rows of so many bytes.
fn stored(rows: i64, bytes: usize) -> Store {
    let text = Value::text(&"x".repeat(bytes));
    let row = |id| Row::new(vec![Value::Int(id), Value::Null, text.clone()]);
    Store((0..rows).map(|id| (Key::of(Value::Int(id)), row(id))).collect())
}

/// As they are before the record: what it makes of them has limits of its own.
#[test]
fn the_rows_of_a_record_are_bounded_together() {
    let projection = projection("n = \"bigint\", s = \"text\"", EACH);
    let event = |rows: usize| format!("{{\"id\":1,\"ids\":[{}]}}", numbers(rows));
    let mut store = stored(40, 1_000_000);
    assert_eq!(
        store.fold(&projection, &event(33)),
        Ok(33),
        "and rows that are not there count nothing"
    );
    let over = store.fold(&projection, &event(34)).unwrap_err();
    let told =
        "the 34 rows that the record touches take more than 32 MiB (33,554,432 bytes) together";
    assert!(over.stage == "budget" && over.reason.starts_with(told), "{over:?}");
    assert_eq!(over.read.len(), 34, "what it was judged by");
    assert_eq!(stored(3, 1_000_000).fold(&projection, &event(2_000)), Ok(2_000));
    // A row alone has its own limit, and is not asked.
    assert_eq!(stored(1, 40_000_000).fold(&projection, &event(1)), Ok(1));
}

#[test]
fn a_record_is_judged_by_some_of_its_rows_and_once() {
    let projection = projection("n = \"bigint\", s = \"text\"", EACH);
    let json = format!("{{\"id\":1,\"ids\":[{}]}}", numbers(40));
    let event = event_of_json(&projection, &json).unwrap();
    let prepared = projection.prepare(&event).unwrap();
    let all = stored(40, 1_000_000);
    let whole = projection.apply(&event, &prepared, &all).unwrap_err();
    // Those of which it is known, whichever they are.
    let mut known = prepared.clone();
    known.exceed();
    struct Some_(Store);
    impl States for Some_ {
        fn get(&self, key: &Key) -> Option<StateRef<'_>> {
            Some(StateRef { row: Some(self.0.0.get(key)?) })
        }
    }
    let mut some = stored(40, 1_000_000);
    some.0.retain(|key, _| *key >= Key::of(Value::Int(5)));
    let part = projection.apply(&event, &known, &Some_(some)).unwrap_err();
    assert_eq!((part.stage, &part.reason, part.read.len()), (whole.stage, &whole.reason, 35));
    // What some row holds was within the limit, whatever others have made of the rows since.
    let mut held = prepared.clone();
    held.bind(&[Key::of(Value::Int(7))], &[]);
    let Ok(Effects::Applied { writes, .. }) = projection.apply(&event, &held, &all) else {
        panic!("it was applied before")
    };
    assert_eq!(writes.len(), 39);
}

#[test]
fn a_verb_takes_no_more_than_its_lists_and_a_little() {
    let handlers = "event_type = \"event.type\"\n\
        [[projections.p.on]]\nevent = \"Tagged\"\nappend = { tags = \"event.tags\" }\n\
        [[projections.p.on]]\nevent = \"Untagged\"\nremove = { tags = \"event.tags\" }\n";
    let text = format!(
        "[projections.p]\ntopics = [\"t\"]\nkey = {{ id = \"event.id\" }}\n\
         fields = {{ id = \"bigint\", tags = \"text[]\" }}\n{handlers}"
    );
    let (_, projection) = one(&text);
    let event = |name: &str, first: usize| {
        let tags: Vec<String> = (first..first + 100_000).map(|n| format!("\"{n:06}\"")).collect();
        format!("{{\"id\":1,\"type\":\"{name}\",\"tags\":[{}]}}", tags.join(","))
    };
    let mut store = Store::default();
    assert_eq!(store.fold(&projection, &event("Tagged", 0)), Ok(1));
    assert_eq!(store.fold(&projection, &event("Untagged", 50_000)), Ok(1));
    let tags = store.0.values().next().unwrap().get(1);
    assert!(matches!(tags, Value::List(tags) if tags.len() == 50_000));
}

#[test]
fn children_that_are_put_one_by_one_are_bounded() {
    let fields = "lines = { type = \"children\", by = \"line\", fields = { line = \"integer\" } }";
    let put =
        "[[projections.p.on]]\nfor_each = \"event.lines\"\nput = { lines = { line = \"item\" } }\n";
    let projection = projection(fields, put);
    let event = |lines: usize| format!("{{\"id\":1,\"lines\":[{}]}}", numbers(lines));
    assert_eq!(Store::default().fold(&projection, &event(2_000)), Ok(1));
    let over = reason(Store::default().fold(&projection, &event(30_000)));
    assert!(over.contains("more than 1,000,000 steps"), "{over}");
}

#[test]
fn patterns_of_all_items_count_together() {
    let handlers = "[[projections.p.on]]\nfor_each = \"event.items\"\n\
        key = { id = \"item.id\" }\nset = { ok = \"string(item.text).matches(string(item.re))\" }\n";
    let projection = projection("ok = \"boolean\"", handlers);
    let event = |items: usize, re: &str, text: &str| {
        let item = |id: usize| format!("{{\"id\":{id},\"re\":\"{re}\",\"text\":\"{text}\"}}");
        let items: Vec<String> = (0..items).map(item).collect();
        format!("{{\"id\":1,\"items\":[{}]}}", items.join(","))
    };
    let mut store = Store::default();
    assert_eq!(store.fold(&projection, &event(1_000, "a+", "aaa")), Ok(1_000));
    for (items, re, text) in
        [(3_000, "a+", "aaa".to_owned()), (1, "[ab]*a[ab]{5000}[0-9]", "ab".repeat(450_000))]
    {
        let over = reason(store.fold(&projection, &event(items, re, &text)));
        assert!(over.contains("more than 1,000,000 steps"), "{over}");
    }
}

#[test]
fn what_an_expression_makes_of_a_limit_does_not_hide_it() {
    let long = "event.ids.all(a, event.ids.all(b, event.ids.all(c, true))) || true";
    let event = |ids: usize| format!("{{\"id\":1,\"ids\":[{}]}}", numbers(ids));
    for handler in [
        format!("when = \"{long}\"\nset = {{ ok = true }}\n"),
        format!("when = \"!exists && ({long})\"\nset = {{ ok = true }}\n"),
        format!("set = {{ ok = \"{long}\" }}\n"),
    ] {
        let projection =
            projection("ok = \"boolean\"", &format!("[[projections.p.on]]\n{handler}"));
        assert_eq!(Store::default().fold(&projection, &event(10)), Ok(1), "{handler}");
        let over = Store::default().fold(&projection, &event(200)).unwrap_err();
        assert_eq!(over.stage, "budget", "{handler}");
    }
}

/// What was spent before any state was known is not given again.
#[test]
fn all_parts_of_a_record_have_one_budget() {
    let squared = "event.ids.all(a, event.ids.all(b, true))";
    let when = format!("[[projections.p.on]]\nwhen = \"{squared}\"\nset = {{ ok = true }}\n");
    let both =
        format!("[[projections.p.on]]\nwhen = \"{squared}\"\nset = {{ ok = \"{squared}\" }}\n");
    let event = format!("{{\"id\":1,\"ids\":[{}]}}", numbers(850));
    let alone = projection("ok = \"boolean\"", &when);
    assert_eq!(Store::default().fold(&alone, &event), Ok(1));
    let over = reason(Store::default().fold(&projection("ok = \"boolean\"", &both), &event));
    assert!(over.contains("more than 1,000,000 steps"), "{over}");
}

#[test]
fn a_row_grows_to_its_limit_and_no_further() {
    let handlers = "[[projections.p.on]]\npatch = \"event\"\n";
    let projection = projection("a = \"text\", b = \"text\", n = \"bigint\"", handlers);
    let mut store = Store::default();
    let event =
        |name: &str, bytes: usize| format!("{{\"id\":1,\"{name}\":\"{}\"}}", "x".repeat(bytes));
    assert_eq!(store.fold(&projection, &event("a", 9_000_000)), Ok(1));
    assert_eq!(store.fold(&projection, &event("b", 7_000_000)), Ok(1));
    let over = store.fold(&projection, &event("b", 9_000_000)).unwrap_err();
    assert_eq!((over.stage, &*over.reason), ("budget", "the row would be larger than 16 MiB"));
    // Small events go on, and so does what makes it smaller.
    assert_eq!(store.fold(&projection, "{\"id\":1,\"n\":7}"), Ok(1));
    assert_eq!(store.fold(&projection, &event("a", 100_000)), Ok(1));
    assert_eq!(store.fold(&projection, &event("b", 9_000_000)), Ok(1));
}

/// A computed field is no part of the record: where it costs too much, it is null, as where it fails.
#[test]
fn a_computed_field_that_costs_too_much_is_null() {
    let fields = "ids = \"bigint[]\", n = { type = \"bigint\", computed = \"state.ids.map(a, state.ids.map(b, state.ids.map(c, 1))).size()\" }";
    let projection = projection(fields, "[[projections.p.on]]\nset = { ids = \"event.ids\" }\n");
    let mut store = Store::default();
    for (ids, wanted) in [(10, Value::Int(10)), (200, Value::Null)] {
        let event = format!("{{\"id\":1,\"ids\":[{}]}}", numbers(ids));
        assert_eq!(store.fold(&projection, &event), Ok(1));
        assert_eq!(store.0.values().next().unwrap().get(2), &wanted);
    }
}

/// A store that was written before there were limits goes on with them: the first version is no part of what built it.
#[test]
fn the_first_version_of_the_limits_opens_what_was_built_before() {
    let projection = projection("n = \"bigint\"", "[[projections.p.on]]\nset = \"event\"\n");
    assert_eq!(FOLD_VERSION, 1, "then it is part of it");
    assert!(projection.projection_json().get("fold").is_none());
}
