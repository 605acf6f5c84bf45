//! What `plan` says, and where it warns of an order that nobody promises.

use super::one;
use crate::projection::test::event_of_json;
use crate::projection::{Coverage, EVENTS_WATCHED};

const FIELDS: &str = "
[projections.p.fields]
id = \"bigint\"
a  = \"text\"
n  = \"bigint\"
tags = \"text[]\"
lines = { type = \"children\", by = \"line\", fields = { line = \"integer\" } }
";

fn warnings(head: &str, handlers: &[&str]) -> Vec<String> {
    let mut text = format!("[projections.p]\n{head}\n{FIELDS}");
    for handler in handlers {
        text.push_str(&format!("[[projections.p.on]]\n{handler}\n"));
    }
    one(&text).1.describe().order_warnings
}

const KEYED: &str = "topics = [\"t\"]\nkey = { id = \"key\" }";
const BY_EVENT: &str = "topics = [\"t\"]\nkey = { id = \"event.id\" }";
const TWO_TOPICS: &str = "topics = [\"t\", \"u\"]\nkey = { id = \"key\" }";

#[test]
fn one_topic_keyed_by_the_record_has_an_order() {
    assert_eq!(warnings(KEYED, &["set = \"event\""]), Vec::<String>::new());
}

#[test]
fn what_commutes_is_not_warned_of() {
    for handler in [
        "add = { n = \"event.n\" }",
        "max = { n = \"event.n\" }",
        "min = { a = \"event.a\" }",
        "put = { lines = { line = \"event.line\" } }",
        "set = { a = \"'seen'\" }",
    ] {
        assert_eq!(warnings(BY_EVENT, &[handler]), Vec::<String>::new(), "{handler}");
    }
}

#[test]
fn what_does_not_commute_is() {
    for (handler, field) in [
        ("set = { a = \"event.a\" }", "a depends"),
        ("append = { tags = \"event.a\" }", "tags depends"),
        ("set = { n = \"coalesce(state.n, 0) + 1\" }", "n depends"),
        ("when = \"exists\"\nadd = { n = 1 }", "on[0] depends"),
        ("delete = true", "on[0] depends"),
    ] {
        let found = warnings(BY_EVENT, &[handler]);
        assert!(found.len() == 1 && found[0].starts_with(field), "{handler}: {found:?}");
    }
    let mixed = ["event = \"A\"\nadd = { n = 1 }", "event = \"B\"\nset = { n = 0 }"];
    assert!(warnings(BY_EVENT, &mixed)[0].contains("`add`, `set`"), "a reset among sums");
}

#[test]
fn columns_of_one_topic_each_are_apart() {
    let apart =
        ["topic = \"t\"\nset = { a = \"event.a\" }", "topic = \"u\"\nset = { n = \"event.n\" }"];
    assert_eq!(warnings(TWO_TOPICS, &apart), Vec::<String>::new());
    let shared =
        ["topic = \"t\"\nset = { a = \"event.a\" }", "topic = \"u\"\nset = { a = \"event.b\" }"];
    assert_eq!(warnings(TWO_TOPICS, &shared).len(), 1);
}

#[test]
fn a_plan_names_what_is_read_and_written() {
    let text = format!(
        "[projections.p]\n{BY_EVENT}\nevent_type = \"event.type\"\n{FIELDS}\
         [[projections.p.on]]\nevent = \"A\"\nwhen = \"exists && state.n > 1\"\nset = {{ a = \"event.a\" }}\nadd = {{ n = 1 }}\n"
    );
    let plan = one(&text).1.describe().to_string();
    for part in [
        "key: id = event.id",
        "id bigint, key",
        "lines children by line (line integer)",
        "on[0] (A) when exists && state.n > 1: set a = event.a, add n = 1; reads n, exists of the state",
    ] {
        assert!(plan.contains(part), "{part} is not in\n{plan}");
    }
}

#[test]
fn paths_never_seen_are_told_once_by_name() {
    let (_, projection) = one(&format!(
        "[projections.p]\n{BY_EVENT}\n{FIELDS}[[projections.p.on]]\nset = {{ a = \"event.o.nmae\", n = \"event['n-n']\" }}\n"
    ));
    let mut coverage = Coverage::new(&projection);
    let event = event_of_json(&projection, r#"{"id":1,"o":{"name":"x"},"n-n":null}"#).unwrap();
    let prepared = projection.prepare(&event).unwrap();
    let mut told = Vec::new();
    for _ in 0..EVENTS_WATCHED + 10 {
        told.extend(coverage.observe(&projection, &event, &prepared));
    }
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].paths, ["event.o.nmae"]);
    assert!(told[0].to_string().contains("first 10000 events of on[0] had event.o.nmae"));
}

#[test]
fn plan_says_what_each_handler_hears_reads_and_writes() {
    let text = format!(
        "[projections.p]\n{BY_EVENT}\nevent_type = \"event.type\"\n{FIELDS}{}",
        r#"[[projections.p.on]]
event = ["A", "B"]
topic = "t"
when  = "exists"
set   = { a = "'paid'" }
merge = { n = "coalesce(event.n, state.n)" }
[[projections.p.on]]
for_each = "event.items"
key      = { id = "item.id" }
patch    = "event"
append   = { tags = "item.tag" }
continue = true
[[projections.p.on]]
event  = "^C"
add    = { n = 1 }
min    = { a = "event.a" }
remove = { tags = "event.tag" }
put    = { lines = { line = "event.line" } }
[[projections.p.on]]
event = "D"
max   = { n = "event.n" }
take  = { lines = "event.line" }
[[projections.p.on]]
event  = "E"
delete = true
[[projections.p.on]]
ignore = true
"#
    );
    let described = one(&text).1.describe();
    let expected = [
        "on[0] (A, B) of t when exists: set a = 'paid', merge n = coalesce(event.n, state.n); reads n, exists of the state",
        "on[1] for each of event.items: append tags = item.tag, patch a = event.a, patch n = event.n, patch lines = event.lines; key id = item.id; goes on to the next handlers",
        "on[2] (^C): add n = 1, min a = event.a, remove tags = event.tag, put lines = { line = event.line }",
        "on[3] (D): max n = event.n, take lines = event.line",
        "on[4] (E): deletes the row",
        "on[5]: filters the event",
    ];
    assert_eq!(described.handlers, expected);
    assert_eq!(described.key, ["id = event.id"]);
    assert_eq!(described.columns[0], "id bigint, key");
}
