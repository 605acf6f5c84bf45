//! The runner itself: it fails what should fail, and says where.

use super::outcomes;
use crate::projection::test::Difference;

const HEAD: &str = r#"
[projections.p]
topics = ["t", "u"]
key    = { id = "event.id" }
[projections.p.fields]
id = "bigint"
a  = "text"
m  = "numeric(12,2)"
lines = { type = "children", by = "line", fields = { line = "integer", sku = "text" } }
[[projections.p.on]]
topic  = "t"
merge  = { a = "event.a", m = "event.m", lines = "event.lines" }
[[projections.p.on]]
when   = "exists"
set    = { a = "event.a" }
"#;

fn outcome(test: &str) -> crate::projection::test::TestOutcome {
    let text = format!("{HEAD}[[projections.p.tests]]\nname = \"case\"\n{test}\n");
    outcomes(&text).remove(0)
}

fn differences(test: &str) -> Vec<Difference> {
    outcome(test).failure.map(|failure| failure.differences).unwrap_or_default()
}

#[test]
fn a_wrong_field_names_the_record_at_which_they_part() {
    let outcome = outcome(
        r#"given = ['{"id":1,"a":"x"}', '{"id":1,"a":"y"}', '{"id":1,"m":3}']
           expect = [{ id = 1, a = "x", m = 3 }]"#,
    );
    let text = outcome.to_string();
    assert!(text.contains(r#"row 1: a is "y", expected "x" (since record 2)"#), "{text}");
    assert!(text.contains("> 2 t applied\n      1: {\"id\":1,\"a\":\"y\""), "{text}");
}

#[test]
fn only_named_fields_are_compared_each_as_its_type() {
    let given = r#"given = ['{"id":1,"a":"x","m":7.1,"lines":[{"line":2,"sku":"b"},{"line":1,"sku":"a"}]}']"#;
    for row in [
        "{ id = 1 }",
        "{ id = \"1\", m = 7.10 }",
        "{ a = \"x\" }",
        "'{\"id\":1,\"m\":\"7.1\"}'",
        "{ id = 1, lines = [{ line = 2 }, { line = 1, sku = \"a\" }] }",
        "{ id = 1, lines = [{ sku = \"a\" }, { sku = \"b\" }] }",
    ] {
        assert_eq!(differences(&format!("{given}\nexpect = [{row}]")), [], "{row}");
    }
    for row in [
        "{ id = 1, m = 7.11 }",
        "{ id = 1, lines = [{ line = 2 }] }",
        "{ id = 1, lines = [{ sku = \"b\" }, { sku = \"a\" }] }",
        "'{\"id\":1,\"a\":null}'",
    ] {
        assert_eq!(differences(&format!("{given}\nexpect = [{row}]")).len(), 1, "{row}");
    }
}

#[test]
fn rows_missing_and_rows_too_many_are_told() {
    let given = r#"given = ['{"id":1,"a":"x"}', '{"id":2,"a":"y"}']"#;
    let found = differences(&format!("{given}\nexpect = [{{ id = 1 }}, {{ id = 3 }}]"));
    assert!(matches!(&found[0], Difference::Missing { expected, .. } if expected.contains("3")));
    assert!(matches!(&found[1], Difference::Unexpected { key, record: Some(2), .. } if key == "2"));
    let keyless = differences(&format!("{given}\nexpect = [{{ a = \"y\" }}, {{ a = \"x\" }}]"));
    assert_eq!(keyless, []);
    let twice = differences(&format!("{given}\nexpect = [{{ a = \"y\" }}, {{ a = \"y\" }}]"));
    assert_eq!(twice.len(), 2, "one row does not meet two: {twice:?}");
}

#[test]
fn bad_and_filtered_are_counted() {
    let given = r#"given = ['{"id":"x"}', { topic = "u", value = { id = 1 } }]"#;
    assert_eq!(differences(&format!("{given}\nexpect = []\nbad = 1")), []);
    assert_eq!(differences(&format!("{given}\nexpect = []\nbad = 1\nfiltered = 1")), []);
    assert_eq!(
        differences(&format!("{given}\nexpect = []\nfiltered = 0")),
        [
            Difference::Count { what: "bad", expected: 0, found: 1 },
            Difference::Count { what: "filtered", expected: 0, found: 1 },
        ]
    );
}

#[test]
fn topics_have_no_order_among_each_other() {
    let test = r#"given = ['{"id":1,"a":"x"}', { topic = "u", value = { id = 1, a = "y" } }]
                  expect = [{ id = 1, a = "y" }]"#;
    let outcome = outcome(test);
    assert_eq!((outcome.tried, outcome.possible), (2, Some(2)));
    let failure = outcome.failure.clone().unwrap();
    assert_eq!(failure.order, [2, 1]);
    let text = outcome.to_string();
    assert!(text.contains("in the order 2, 1:") && text.contains("2 u filtered"), "{text}");
    assert_eq!(differences(&format!("{test}\norder = \"given\"")), []);
}

#[test]
fn a_bounded_test_says_so() {
    let record = |at: usize| {
        if at.is_multiple_of(2) { "'{\"id\":1}'" } else { "{ topic = \"u\", value = { id = 2 } }" }
    };
    let given: Vec<&str> = (0..40).map(record).collect();
    let outcome = outcome(&format!("given = [{}]\nexpect = [{{ id = 1 }}]", given.join(", ")));
    assert!(outcome.passed(), "{outcome}");
    assert!(outcome.to_string().contains("(2000 of 137846528820 orders tried)"), "{outcome}");
}
