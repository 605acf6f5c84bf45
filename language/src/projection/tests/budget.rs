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
    let each = "[[projections.p.on]]\nfor_each = \"event.ids\"\nkey = { id = \"item\" }\nadd = { n = 1 }\n";
    let projection = projection("n = \"bigint\"", each);
    let event = |rows: usize| format!("{{\"id\":1,\"ids\":[{}]}}", numbers(rows));
    let mut store = Store::default();
    assert_eq!(store.fold(&projection, &event(ROWS_MAX)), Ok(ROWS_MAX));
    let over = store.fold(&projection, &event(ROWS_MAX + 1)).unwrap_err();
    assert_eq!((over.stage, &*over.reason), ("budget", "the record touches more than 10,000 rows"));
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
