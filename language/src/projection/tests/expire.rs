//! `expire`: which rules are taken, and which are refused by name.

use super::{config, one};
use crate::projection::Projection;

fn text(key: &str, expire: &str, on: &str) -> String {
    format!(
        "[projections.p]\ntopics = [\"t\"]\nkey = {{ {key} }}\nexpire = {{ {expire} }}\n\
         [projections.p.fields]\nid = \"text\"\nday = \"date\"\nat = \"timestamptz\"\nn = \"bigint\"\n{on}"
    )
}

const KEY: &str = "id = \"event.id\", day = \"event.day\"";
const DAYS: &str = "field = \"day\", after = \"30d\"";
const ADD: &str = "[[projections.p.on]]\nadd = { n = 1 }\n";

fn problem(key: &str, expire: &str, on: &str) -> String {
    let config = config(&text(key, expire, on)).unwrap().remove(0);
    let problems = Projection::compile(&config).map(drop).unwrap_err();
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn a_rule_is_of_a_key_column_that_has_moments() {
    let (_, projection) = one(&text(KEY, DAYS, ADD));
    let rule = projection.rule().unwrap();
    assert_eq!((rule.column, rule.at, rule.after), (1, 1, 30 * 86_400_000));
    assert!(projection.model().columns[1].index, "it is searched by");
    let first = "at = \"event.at\", id = \"event.id\"";
    let (_, projection) = one(&text(first, "field = \"at\", after = \"250ms\"", ADD));
    let rule = projection.rule().unwrap();
    assert_eq!((rule.column, rule.at, rule.after), (2, 0, 250));
    assert!(!projection.model().columns[2].index, "the key's index finds it");
    let said = problem(KEY, "field = \"id\", after = \"0s\"", ADD);
    for part in ["p.expire.field: \"id\" is text", "timestamptz or date", "p.expire.after: must"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn an_event_that_may_touch_rows_of_several_moments_is_refused() {
    let own = |day: &str| format!("key = {{ id = \"item\", day = \"{day}\" }}\n");
    let each = "[[projections.p.on]]\nfor_each = \"event.items\"\nadd = { n = 1 }\n";
    for same in [each.to_owned(), format!("{each}{}", own("event.day"))] {
        assert!(one(&text(KEY, DAYS, &same)).1.rule().is_some(), "{same}");
    }
    let said = problem(KEY, DAYS, &format!("{each}{}", own("event.until")));
    for part in ["projections.p.expire: on[0] may change rows of another moment", "help: give"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // One event, one row: each handler may have its own.
    let one_of_two = "[[projections.p.on]]\nwhen = \"event.moved\"\n\
                      key = { id = \"event.id\", day = \"event.until\" }\nadd = { n = 1 }\n";
    assert!(one(&text(KEY, DAYS, &format!("{one_of_two}{ADD}"))).1.rule().is_some());
    let both = format!("{one_of_two}continue = true\n{ADD}");
    assert!(problem(KEY, DAYS, &both).contains("another moment"));
}
