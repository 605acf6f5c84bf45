//! Lists in `jsonb`, and what is told of values that are lists or texts where others are meant.

use super::{one, outcomes};
use crate::projection::test::event_of_json;

const HISTORY: &str = r#"[projections.p]
topics = ["t"]
key = { id = "event.id" }
fields = { id = "bigint", history = "jsonb", other = "jsonb" }
[[projections.p.on]]
when = "has(event.gone)"
remove = { history = "event.gone" }
[[projections.p.on]]
when = "has(event.set)"
set = { other = "event.set" }
[[projections.p.on]]
append = { history = "event.add", other = 1 }
"#;

#[test]
fn a_jsonb_field_holds_a_list_of_objects() {
    let tests = r#"
[[projections.p.tests]]
name = "objects come and go"
given = [
  '{"id":1,"add":{"at":1,"to":"new"}}', '{"id":1,"add":[{"at":2},3,"x"]}', '{"id":1,"add":null}',
  '{"id":1,"gone":{"to":"new","at":1.0}}', '{"id":1,"gone":[3]}', '{"id":2,"gone":1}',
]
expect = ['{"id":1,"history":[{"at":2},"x"],"other":[1,1,1]}', '{"id":2,"history":null,"other":null}']
[[projections.p.tests]]
name = "what is no list is not made one"
given = ['{"id":1,"set":{"a":1}}', '{"id":1,"add":1}', '{"id":1,"set":null}', '{"id":1,"add":2}']
expect = ['{"id":1,"history":[2],"other":[1]}']
bad = 1
"#;
    for outcome in outcomes(&format!("{HISTORY}{tests}")) {
        assert!(outcome.passed(), "{outcome}");
    }
}

#[test]
fn a_list_for_put_is_pointed_to_for_each() {
    let (_, projection) = one("[projections.p]\ntopics = [\"t\"]\nkey = { id = \"event.id\" }\n\
         fields = { id = \"bigint\", lines = { type = \"children\", by = \"n\", fields = { n = \"bigint\" } } }\n\
         [[projections.p.on]]\nput = { lines = \"event.lines\" }");
    for (json, says) in [
        (r#"{"id":1,"lines":[{"n":1}]}"#, "`for_each` runs the handler for each `item`"),
        (r#"{"id":1,"lines":{"n":null}}"#, "the child's key is null"),
        (r#"{"id":1}"#, "the child's key is null"),
    ] {
        let event = event_of_json(&projection, json).unwrap();
        let prepared = projection.prepare(&event).unwrap();
        let bad = projection.apply_single(&event, &prepared, &mut None).unwrap_err();
        assert!(bad.reason.contains(says), "{}", bad.reason);
    }
}

#[test]
fn a_text_that_looks_like_json_is_told() {
    let (_, projection) = one(
        "[projections.p]\ntopics = [\"t\"]\nkey = { id = \"1\" }\nfields = { id = \"bigint\", a = \"text\" }\n\
         [[projections.p.on]]\nwhen = \"has(event.each)\"\nfor_each = \"event.each\"\nset = { a = \"item\" }\n\
         [[projections.p.on]]\nset = { a = \"event.payload.a\" }",
    );
    let event = event_of_json(&projection, r#"{"each":"[1]"}"#).unwrap();
    let bad = projection.prepare(&event).unwrap_err().reason;
    assert!(bad.contains("a text that looks like JSON"), "{bad}");
    let event = event_of_json(&projection, r#""{\"payload\":{\"a\":1}}""#).unwrap();
    let bad = projection.prepare(&event).unwrap_err().reason;
    assert!(bad.contains("a text that looks like JSON (it was encoded twice)"), "{bad}");
}
