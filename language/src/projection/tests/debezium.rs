//! Debezium's change events: rule by rule, and against a plain model of the table.

mod mirror;

use super::config;
use super::log::Log;
use crate::config::topic_facts::{SourceFacts, TopicFacts};
use crate::projection::Projection;

const PLACEHOLDER: &str = "\"__debezium_unavailable_value\"";

/// A projection of the topic `t`, whose table has REPLICA IDENTITY FULL or not.
fn compile(text: &str, full: bool) -> Projection {
    let mut config = config(text).unwrap_or_else(|problems| panic!("{problems:#?}")).remove(0);
    let facts = TopicFacts { full, flat_key: false };
    config.sources = vec![SourceFacts {
        source: "events".to_owned(),
        topics: vec![("t".to_owned(), facts)],
        other: TopicFacts::default(),
    }];
    Projection::compile(&config).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"))
}

fn change(op: &str, before: &str, after: &str) -> String {
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"ts_ms":7,"snapshot":"false"}},"transaction":null,"op":"{op}","ts_ms":8}}"#
    )
}

/// A projection with these handlers; `extra` fields stand beside `id` and `name`.
fn projection(extra: &str, on: &str) -> String {
    format!(
        "[projections.p]\ntopics = [\"t\"]\nenvelope = \"debezium\"\nkey = {{ id = \"event.id\" }}\n\
         fields = {{ id = \"bigint\", name = \"text\"{extra} }}\n{on}"
    )
}

const ONE: Option<&str> = Some("{\"id\":1}");
const INVENTED: &str = r#"{"id":1,"name":"","amount":0}"#;
const TRUE: &str = r#"{"id":1,"name":"ann","amount":5}"#;

#[test]
fn of_a_delete_only_the_key_is_believed() {
    let soft = projection(
        ", gone = \"boolean\"",
        "[[projections.p.on]]\nevent = \"delete\"\nset = { gone = true, name = \"event.name\" }\n\
         [[projections.p.on]]\nset = \"event\"",
    );
    for (full, wanted) in [(false, r#"1 "ann" true"#), (true, r#"1 "then" true"#)] {
        let mut log = Log::new(compile(&soft, full));
        assert_eq!(log.fold(ONE, Some(&change("c", "null", TRUE))), "applied");
        let before = if full { r#"{"id":1,"name":"then"}"# } else { INVENTED };
        assert_eq!(log.fold(ONE, Some(&change("d", before, "null"))), "applied");
        assert_eq!(log.rows(), [wanted]);
        // The tombstone behind it was decided by who decided the delete.
        assert_eq!(log.fold(ONE, None), "filtered");
        assert_eq!(log.rows(), [wanted]);
    }
    let mut log = Log::new(compile(&soft, false));
    let bad = log.fold(ONE, Some(&change("d", INVENTED, "null")));
    assert!(
        bad.contains("name is not in the record's key") && bad.contains("no row that has it"),
        "{bad}"
    );
}

#[test]
fn what_a_delete_does_not_tell_is_no_null() {
    let sums = "[projections.p]\ntopics = [\"t\"]\nenvelope = \"debezium\"\nkey = { name = \"event.name\" }\n\
                fields = { name = \"text\", sum = { type = \"bigint\", default = 0 } }\n\
                [[projections.p.on]]\nevent = \"delete\"\nadd = { sum = \"-event.amount\" }\n\
                [[projections.p.on]]\nadd = { sum = \"event.amount\" }";
    let mut log = Log::new(compile(sums, false));
    assert_eq!(log.fold(ONE, Some(&change("c", "null", TRUE))), "applied");
    let bad = log.fold(ONE, Some(&change("d", INVENTED, "null")));
    assert!(bad.contains("key name") && bad.contains("replica_identity"), "{bad}");
    assert_eq!(log.fold(ONE, None), "filtered");
    assert_eq!(log.rows(), [r#""ann" 5"#]);
    let mut log = Log::new(compile(sums, true));
    assert_eq!(log.fold(ONE, Some(&change("c", "null", TRUE))), "applied");
    assert_eq!(log.fold(ONE, Some(&change("d", TRUE, "null"))), "applied");
    assert_eq!(log.fold(ONE, None), "filtered");
    assert_eq!(log.rows(), [r#""ann" 0"#]);
    // A key that is no object, and none at all.
    let rows = projection("", "[[projections.p.on]]\nset = \"event\"");
    for key in [Some("7"), None] {
        let bad = Log::new(compile(&rows, false)).fold(key, Some(&change("d", INVENTED, "null")));
        assert!(bad.contains("id is not in the record's key"), "{bad}");
    }
}

#[test]
fn what_was_not_sent_is_kept_or_bad_and_never_null() {
    let one = projection(
        ", amount = \"bigint\", both = \"text\", lines = { type = \"children\", by = \"n\", fields = { n = \"bigint\", name = \"text\" } }",
        "[[projections.p.on]]\nset = { name = \"event.name\", amount = \"event.amount\" }\nput = { lines = { n = \"event.amount\", name = \"event.name\" } }",
    );
    let row = |name: &str, amount: i64| format!(r#"{{"id":1,"name":{name},"amount":{amount}}}"#);
    let mut log = Log::new(compile(&one, false));
    let bad = log.fold(ONE, Some(&change("u", "null", &row(PLACEHOLDER, 5))));
    assert!(bad.contains("name was not sent") && bad.contains("no row that has it"), "{bad}");
    assert_eq!(log.fold(ONE, Some(&change("r", "null", &row("\"ann\"", 5)))), "applied");
    assert_eq!(log.fold(ONE, Some(&change("u", "null", &row(PLACEHOLDER, 5)))), "applied");
    assert_eq!(log.rows(), [r#"1 "ann" 5 null [{"n":5,"name":"ann"}]"#]);
    // The child of another key has no name to keep.
    let bad = log.fold(ONE, Some(&change("u", "null", &row(PLACEHOLDER, 6))));
    assert!(bad.contains("lines") && bad.contains("no row that has it"), "{bad}");

    // What is made of it together with something else cannot be made, and the whole row is not there.
    for verb in ["both = \"event.name + string(event.amount)\"", "both = \"string(size(event))\""] {
        let on = format!("[[projections.p.on]]\nset = {{ name = \"event.name\", {verb} }}");
        let mut log = Log::new(compile(&projection(", both = \"text\"", &on), false));
        assert_eq!(log.fold(ONE, Some(&change("c", "null", &row("\"ann\"", 5)))), "applied");
        let bad = log.fold(ONE, Some(&change("u", "null", &row(PLACEHOLDER, 6))));
        assert!(bad.contains("both") && bad.contains("not sent"), "{bad}");
    }

    // A row that the same event deleted before has nothing to keep.
    let again = projection(
        "",
        "[[projections.p.on]]\nevent = \"update\"\ndelete = true\ncontinue = true\n[[projections.p.on]]\nset = \"event\"",
    );
    let mut log = Log::new(compile(&again, false));
    assert_eq!(log.fold(ONE, Some(&change("c", "null", &row("\"ann\"", 5)))), "applied");
    let bad = log.fold(ONE, Some(&change("u", "null", &row(PLACEHOLDER, 5))));
    assert!(bad.contains("no row that has it"), "{bad}");
    assert_eq!(log.rows(), [r#"1 "ann""#]);
}

#[test]
fn a_null_and_an_absent_column_are_what_they_are() {
    let on = "[[projections.p.on]]\nset = { name = \"event.name\", has = \"has(event.name)\" }";
    let mut log = Log::new(compile(&projection(", has = \"boolean\"", on), false));
    for (after, wanted) in [
        (r#"{"id":1,"name":"ann"}"#, r#"1 "ann" true"#),
        (r#"{"id":1,"name":"__debezium_unavailable_value"}"#, r#"1 "ann" false"#),
        (r#"{"id":1,"name":null}"#, r#"1 null true"#),
        (r#"{"id":1}"#, r#"1 null false"#),
    ] {
        assert_eq!(log.fold(ONE, Some(&change("u", "null", after))), "applied");
        assert_eq!(log.rows(), [wanted]);
    }
}

#[test]
fn before_is_refused_by_name_where_it_is_not_true() {
    let text = projection(
        ", was = \"text\"",
        "[[projections.p.on]]\nset = { name = \"event.name\", was = \"envelope.before.name\" }",
    );
    let config = config(&text).unwrap().remove(0);
    let problems = Projection::compile(&config).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].path, "projections.p.on[0].set.was");
    assert!(problems[0].message.contains("`envelope.before` is refused: \"t\""), "{problems:#?}");
    assert!(
        problems[0].help.as_ref().unwrap().contains("[sources.events.topics.t]\nreplica_identity")
    );
    let mut log = Log::new(compile(&text, true));
    assert_eq!(log.fold(ONE, Some(&change("c", "null", TRUE))), "applied");
    assert_eq!(log.fold(ONE, Some(&change("u", TRUE, r#"{"id":1,"name":"bob"}"#))), "applied");
    assert_eq!(log.rows(), [r#"1 "bob" "ann""#]);
    // The topic says so, and the table is not so.
    let bad = log.fold(ONE, Some(&change("u", "null", TRUE)));
    assert!(bad.contains("has no REPLICA IDENTITY FULL"), "{bad}");
    let bad = log.fold(ONE, Some(&change("d", "null", "null")));
    assert!(bad.contains("has no REPLICA IDENTITY FULL"), "{bad}");
    assert_eq!(log.rows(), [r#"1 "bob" "ann""#]);
    for (wrong, says) in [
        ("envelope.after.name", "`envelope.after` is `event`"),
        ("string(envelope)", "name by name"),
        ("envelope['after']['name']", "`envelope.after` is `event`"),
    ] {
        let on = format!("[[projections.p.on]]\nset = {{ name = \"{wrong}\" }}");
        let config = super::config(&projection("", &on)).unwrap().remove(0);
        let problems = Projection::compile(&config).unwrap_err();
        assert!(problems[0].message.contains(says), "{problems:#?}");
    }
}

#[test]
fn what_is_no_row_is_heard_by_its_name_only() {
    let on = |event: &str| {
        format!(
            "[[projections.p.on]]\nevent = {event}\nkey = {{ id = \"0\" }}\nset = {{ name = \"coalesce(envelope.op, 'none')\" }}"
        )
    };
    let side = [
        ("truncate", change("t", "null", "null")),
        ("message", r#"{"op":"m","ts_ms":1,"source":{},"message":{"prefix":"p","content":"eA=="}}"#.to_owned()),
        ("heartbeat", r#"{"ts_ms":1}"#.to_owned()),
        ("transaction", r#"{"status":"END","id":"1:2","event_count":2,"data_collections":[],"ts_ms":1}"#.to_owned()),
        ("schema_change", r#"{"source":{},"ts_ms":1,"databaseName":"d","schemaName":null,"ddl":"x","tableChanges":[]}"#.to_owned()),
    ];
    for (name, value) in side {
        for (event, wanted) in
            [("\"^.*\"".to_owned(), "filtered"), (format!("\"{name}\""), "applied")]
        {
            let mut log = Log::new(compile(&projection("", &on(&event)), false));
            assert_eq!(log.fold(None, Some(&value)), wanted, "{name} by {event}");
        }
    }
    let mut log =
        Log::new(compile(&projection("", "[[projections.p.on]]\nset = \"event\""), false));
    for (value, says) in [
        (r#"{"id":1,"name":"x"}"#, "it has no `op`"),
        (r#"{"id":1,"__deleted":"false"}"#, "\"debezium-flat\""),
        (r#"{"schema":{},"payload":{}}"#, "\"connect-json\""),
        (r#"{"op":"x","after":{}}"#, "no op \"x\""),
        (r#"{"op":7,"after":{}}"#, "`op` is an integer"),
        ("7", "a number is no change event"),
        (r#"{"op":"u","before":null,"after":null}"#, "`after` of this update is null"),
        (r#"{"op":"c"}"#, "`after` of this create is null"),
    ] {
        let bad = log.fold(ONE, Some(value));
        assert!(bad.contains(says), "{value}: {bad}");
    }
    assert_eq!(log.rows(), [""; 0]);
}

#[test]
fn a_key_without_columns_is_refused_where_deletes_need_one() {
    let text = projection("", "[[projections.p.on]]\nset = \"event\"");
    let mut config = config(&text).unwrap().remove(0);
    let facts = TopicFacts { full: false, flat_key: true };
    config.sources =
        vec![SourceFacts { source: "cdc".to_owned(), topics: Vec::new(), other: facts }];
    let problems = Projection::compile(&config).unwrap_err();
    assert!(problems[0].message.contains("the keys of \"t\" are no objects"), "{problems:#?}");
    assert!(problems[0].help.as_ref().unwrap().contains("[sources.cdc.topics.t]\nkey = \"json\""));
}
