//! What a verdict depended on: the keys whose state a writer must check before the position moves.

use foldline_api::model::{Key, Row};
use foldline_api::value::Value;

use super::one;
use crate::projection::test::event_of_json;
use crate::projection::{BadRecord, Effects, Projection, StateRef, States};
use hashbrown::HashMap;

struct Store(HashMap<Key, Row>);

impl States for Store {
    fn get(&self, key: &Key) -> Option<StateRef<'_>> {
        Some(StateRef { row: self.0.get(key) })
    }
}

fn projection(handlers: &str) -> Projection {
    one(&format!(
        "[projections.p]\ntopics = [\"t\"]\nkey = {{ id = \"event.id\" }}\n\
         [projections.p.fields]\nid = \"bigint\"\nn = \"bigint\"\na = \"text\"\n{handlers}"
    ))
    .1
}

fn key(id: i64) -> Key {
    Key::new(vec![Value::Int(id)])
}

/// The event over one row, of id 1 with n 1.
fn apply(projection: &Projection, event: &str) -> Result<Effects, BadRecord> {
    let row = Row::new(vec![Value::Int(1), Value::Int(1), Value::Null]);
    let event = event_of_json(projection, event).unwrap();
    let prepared = projection.prepare(&event)?;
    projection.apply(&event, &prepared, &Store(HashMap::from_iter([(key(1), row)])))
}

fn filtered(reads: &[i64]) -> Result<Effects, BadRecord> {
    Ok(Effects::Filtered { read: reads.iter().copied().map(key).collect() })
}

#[test]
fn a_decision_by_the_state_names_the_key() {
    let when = projection("[[projections.p.on]]\nwhen = \"!exists\"\nset = { a = \"event.a\" }\n");
    assert_eq!(apply(&when, r#"{"id":1}"#), filtered(&[1]));
    let delete = projection("[[projections.p.on]]\ndelete = true\n");
    assert_eq!(apply(&delete, r#"{"id":2}"#), filtered(&[2]));
    let by_event =
        projection("[[projections.p.on]]\nwhen = \"event.ok\"\nset = { a = \"event.a\" }\n");
    assert_eq!(apply(&by_event, r#"{"id":1,"ok":false}"#), filtered(&[]));
}

#[test]
fn the_rows_that_a_bad_event_would_have_touched_are_told_where_they_can_be() {
    let keys = |handlers: &str, event: &str| {
        let projection = projection(handlers);
        let event = event_of_json(&projection, event).unwrap();
        assert!(projection.prepare(&event).is_err());
        projection.keys_of_bad(&event)
    };
    let when = "[[projections.p.on]]\nwhen = \"event.n > 1\"\nset = { a = \"event.a\" }\n";
    assert_eq!(keys(when, r#"{"id":1,"n":"x"}"#), [key(1)]);
    assert_eq!(keys(when, r#"{"id":"x","n":"x"}"#), [], "nobody can tell");
    let own = "[[projections.p.on]]\nkey = { id = \"event.other\" }\nwhen = \"event.n > 1\"\nset = { a = \"event.a\" }\n";
    assert_eq!(keys(own, r#"{"id":1,"other":2,"n":"x"}"#), [key(2)]);
    let not_this = "[[projections.p.on]]\nkey = { id = \"event.other\" }\nwhen = \"event.id > 5\"\nset = { a = \"event.a\" }\n";
    let both = format!("{not_this}{when}");
    assert_eq!(keys(&both, r#"{"id":1,"other":2,"n":"x"}"#), [key(1)]);
    let each = "[[projections.p.on]]\nfor_each = \"event.ids\"\nkey = { id = \"item\" }\nwhen = \"event.n > 1\"\nset = { a = \"event.a\" }\n";
    assert_eq!(keys(each, r#"{"id":1,"ids":[4,4,"x",5],"n":"x"}"#), [key(4), key(5)]);
}

#[test]
fn a_bad_record_names_the_keys_that_made_it_bad() {
    let add = projection("[[projections.p.on]]\nadd = { n = \"event.n\" }\n");
    let bad = apply(&add, r#"{"id":1,"n":9223372036854775807}"#).unwrap_err();
    assert_eq!((bad.stage, bad.read), ("field", vec![key(1)]));
    let set = projection("[[projections.p.on]]\nset = { n = \"event.n\" }\n");
    let bad = apply(&set, r#"{"id":1,"n":"x"}"#).unwrap_err();
    assert_eq!((bad.stage, bad.read), ("field", vec![]));
    let after = projection(
        "[[projections.p.on]]\nwhen = \"!exists\"\nset = { a = \"event.a\" }\n\
         [[projections.p.on]]\nset = { n = \"event.n\" }\n",
    );
    let bad = apply(&after, r#"{"id":1,"n":"x"}"#).unwrap_err();
    assert_eq!((bad.stage, bad.read), ("field", vec![key(1)]));
}

#[test]
fn what_is_read_for_one_key_and_written_to_another_is_told_apart() {
    let two = projection(
        "[[projections.p.on]]\nwhen = \"state.n > 5\"\nset = { a = \"event.a\" }\n\
         [[projections.p.on]]\nkey = { id = \"event.other\" }\nset = { n = 7 }\n",
    );
    let Ok(Effects::Applied { writes, reads }) = apply(&two, r#"{"id":1,"other":2}"#) else {
        panic!("not applied")
    };
    let row = Row::new(vec![Value::Int(2), Value::Int(7), Value::Null]);
    assert_eq!((writes.as_slice(), reads), (&[(key(2), Some(row))][..], vec![key(1)]));
}

#[test]
fn keys_are_all_that_an_event_may_touch_and_no_more() {
    let projection = projection(
        "[[projections.p.on]]\nwhen = \"event.skip\"\nkey = { id = \"event.never\" }\ndelete = true\n\
         [[projections.p.on]]\nwhen = \"exists\"\nset = { a = \"event.a\" }\n\
         [[projections.p.on]]\nwhen = \"state.n > 0\"\nkey = { id = \"event.other\" }\nset = { a = \"event.a\" }\n\
         [[projections.p.on]]\nset = { n = 1 }\n",
    );
    let event =
        event_of_json(&projection, r#"{"id":1,"other":"2.0","never":3,"skip":false}"#).unwrap();
    let prepared = projection.prepare(&event).unwrap();
    assert_eq!(prepared.keys(), [key(1), key(2)]);
}

#[test]
fn a_row_that_holds_the_event_already_is_left_alone() {
    let two = projection(
        "[[projections.p.on]]\ncontinue = true\nadd = { n = 1 }\n\
         [[projections.p.on]]\nkey = { id = \"event.other\" }\nadd = { n = 1 }\n",
    );
    let event = event_of_json(&two, r#"{"id":1,"other":2}"#).unwrap();
    let mut prepared = two.prepare(&event).unwrap();
    prepared.bind(&[key(1)], &[]);
    let Ok(Effects::Applied { writes, reads }) =
        two.apply(&event, &prepared, &Store(HashMap::default()))
    else {
        panic!("not applied")
    };
    let written: Vec<&Key> = writes.iter().map(|(key, _)| key).collect();
    assert_eq!((written, reads), (vec![&key(2)], vec![]));
}

#[test]
fn a_state_that_was_not_loaded_is_no_missing_row() {
    struct Nothing;
    impl States for Nothing {
        fn get(&self, _: &Key) -> Option<StateRef<'_>> {
            None
        }
    }
    let projection = projection("[[projections.p.on]]\nset = { n = 1 }\n");
    let event = event_of_json(&projection, r#"{"id":1}"#).unwrap();
    let prepared = projection.prepare(&event).unwrap();
    assert_eq!(projection.apply(&event, &prepared, &Nothing).unwrap_err().stage, "state");
}
