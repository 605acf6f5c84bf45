//! What a config's author and an operator get to read.

use super::{config, one};
use crate::config::env::Env;
use crate::config::projection::{FieldConfig, Located};
use crate::config::projections;
use crate::projection::test::event_of_json;
use crate::projection::{Projection, compile};

const HEAD: &str = "[projections.p]\ntopics = [\"t\"]\nkey = { id = \"event.id\" }\n";

/// Problems of the loader and the compiler together, as text.
fn problems(text: &str) -> String {
    let problems = match config(text) {
        Err(problems) => problems,
        Ok(configs) => Projection::compile(&configs[0]).map(|_| vec![]).unwrap_or_else(|p| p),
    };
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// What stands below the head, and what is said of it.
const PROBLEMS: &[(&str, &[&str])] = &[
    (
        "[projections.p.fields]\nid = \"bigit\"\n[[projections.p.on]]\nset = \"event\"",
        &["projections.p.fields.id", "unknown type", "did you mean `bigint`?"],
    ),
    (
        "[projections.p.fields]\nid = \"jsonb\"\n[[projections.p.on]]\nset = \"event\"",
        &["projections.p.key.id", "jsonb cannot be a key"],
    ),
    (
        "[projections.p.fields]\nid = \"real\"\n[[projections.p.on]]\nset = \"event\"",
        &["real cannot be a key"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\namount = \"bigint\"\n[[projections.p.on]]\nset = { amuont = 1 }",
        &["projections.p.on[0].set.amuont", "no field", "did you mean"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nn = \"bigint\"\n[[projections.p.on]]\nset = { n = true }",
        &["projections.p.on[0].set.n", "a boolean does not fit bigint"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nn = \"bigint\"\n[[projections.p.on]]\nset = { n = \"'many'\" }",
        &["projections.p.on[0].set.n", "a text does not fit bigint"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nn = \"text\"\n[[projections.p.on]]\nadd = { n = 1 }",
        &["projections.p.on[0].add.n", "`add` works on a number; \"n\" is text"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nn = \"bigint\"\n[[projections.p.on]]\nadd = { n = 0.5 }",
        &["projections.p.on[0].add.n", "it has a fraction"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nn = \"jsonb\"\n[[projections.p.on]]\nmin = { n = 1 }",
        &["`min` works on a number, a text or a time"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nn = \"bigint\"\n[[projections.p.on]]\nappend = { n = 1 }",
        &["an array such as text[]"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nn = { type = \"integer\", default = \"x\" }\n[[projections.p.on]]\nset = \"event\"",
        &["projections.p.fields.n.default", "not a number"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nn = { type = \"integer\", computed = \"event.n\" }\n[[projections.p.on]]\nset = \"event\"",
        &["projections.p.fields.n.computed"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nn = { type = \"integer\", computed = \"state.m\" }\nm = { type = \"integer\", computed = \"state.id\" }\n[[projections.p.on]]\nset = { q = 1 }\n",
        &["projections.p.on[0].set.q"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\na = \"text\"\nn = { type = \"integer\", computed = \"state.m\" }\nm = { type = \"integer\", computed = \"state.id\" }\n[[projections.p.on]]\nset = { a = \"event.a\" }\n",
        &[
            "projections.p.fields.n.computed",
            "reads the computed field \"m\", which comes after it",
        ],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\na = \"text\"\n[[projections.p.on]]\nset = { a = \"paid\" }",
        &["projections.p.on[0].set.a", "paid"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\na = \"text\"\n[[projections.p.on]]\nset = { a = \"state.b\" }",
        &["projections.p.on[0].set.a"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\na = \"text\"\n[[projections.p.on]]\nkey = { id = \"state.id\" }\nset = { a = \"event.a\" }",
        &["projections.p.on[0].key.id"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\na = \"text\"\n[[projections.p.on]]\nset = { a = \"item.a\" }",
        &["projections.p.on[0].set.a"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\na = \"text\"\n[[projections.p.on]]\nset = \"event\"\nmerge = \"event\"",
        &["only one of `set`, `merge` and `patch`"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nat = \"timestamptz\"\n[[projections.p.on]]\nset = { at = 2026-01-01T00:00:00 }",
        &["projections.p.on[0].set.at", "a time without an offset"],
    ),
    (
        "[projections.p.fields]\nid = \"bigint\"\nl = { type = \"children\", by = \"x\", fields = { x = \"jsonb\" } }\n[[projections.p.on]]\nset = \"event\"",
        &["jsonb cannot be a child's key"],
    ),
    (
        "envelope = \"cloudevents\"\n[projections.p.fields]\nid = \"bigint\"\na = \"text\"\n[[projections.p.on]]\nset = { a = \"envelope.data.a\" }",
        &["projections.p.on[0].set.a", "the data of a CloudEvent is `event`"],
    ),
];

#[test]
fn problems_name_their_place_and_the_way_out() {
    for (rest, expected) in PROBLEMS {
        let found = problems(&format!("{HEAD}{rest}\n"));
        for part in *expected {
            assert!(found.contains(part), "{part:?} is not in {found:?} of\n{rest}");
        }
    }
}

#[test]
fn a_config_made_by_hand_is_checked_as_well() {
    let (mut config, _) = one(&format!(
        "{HEAD}[projections.p.fields]\nid = \"bigint\"\na = \"text\"\n[[projections.p.on]]\nset = {{ a = \"event.a\" }}\n"
    ));
    let field = config.fields["a"].clone();
    let long = "x".repeat(64);
    for name in ["_foldline", "_foldline_x", long.as_str(), ""] {
        config
            .fields
            .insert(name.to_owned(), Located { path: name.to_owned(), value: field.value.clone() });
    }
    config.on[0].value.delete = true;
    let computed = FieldConfig { computed: Some("1".to_owned()), ..field.value };
    config.fields.insert("id".to_owned(), Located { path: "id".to_owned(), value: computed });
    let problems = Projection::compile(&config).unwrap_err();
    assert_eq!(problems.len(), 6, "{problems:#?}");
}

#[test]
fn a_bad_record_names_handler_field_and_expression_and_no_payload() {
    let (_, projection) = one(&format!(
        "{HEAD}event_type = \"event.type\"\n[projections.p.fields]\nid = \"bigint\"\nn = \"bigint\"\nl = {{ type = \"children\", by = \"x\", fields = {{ x = \"integer\" }} }}\n\
         [[projections.p.on]]\nevent = \"A\"\nset = {{ n = \"event.n\" }}\n\
         [[projections.p.on]]\nevent = \"B\"\nset = {{ n = \"event.n + 1\" }}\n\
         [[projections.p.on]]\nevent = \"C\"\nwhen = \"event.n\"\nset = {{ n = 1 }}\n\
         [[projections.p.on]]\nevent = \"D\"\nput = {{ l = {{ x = \"event.n\" }} }}\n"
    ));
    struct Nothing;
    impl crate::projection::States for Nothing {
        fn get(&self, _: &foldline_api::model::Key) -> Option<crate::projection::StateRef<'_>> {
            Some(crate::projection::StateRef { row: None })
        }
    }
    for (event, stage, expected) in [
        (
            r#"{"type":"A","id":1,"n":"secret"}"#,
            "field",
            "on[0].set.n (event.n): a text does not fit bigint: not a number",
        ),
        (r#"{"type":"B","id":1,"n":"secret"}"#, "expression", "on[1].set.n (event.n + 1):"),
        (r#"{"type":"C","id":1,"n":"secret"}"#, "when", "on[2] (C) when (event.n):"),
        (
            r#"{"type":"A","id":"secret"}"#,
            "key",
            "on[0] (A) key id (event.id): a text does not fit bigint",
        ),
        (r#"{"type":"A"}"#, "key", "on[0] (A) key id (event.id): it is null"),
        (r#"{"type":"D","id":1}"#, "field", "on[3].put.l (event.n): the child's key is null"),
    ] {
        let event = event_of_json(&projection, event).unwrap();
        let bad = projection
            .prepare(&event)
            .and_then(|prepared| projection.apply(&event, &prepared, &Nothing))
            .unwrap_err();
        assert_eq!(bad.stage, stage, "{bad}");
        assert!(bad.reason.contains(expected) && !bad.reason.contains("secret"), "{bad}");
    }
}

#[test]
fn a_fingerprint_is_of_what_is_stored() {
    let base = format!(
        "{HEAD}[projections.p.fields]\nid = \"bigint\"\na = \"text\"\nn = \"bigint\"\n[[projections.p.on]]\nset = {{ a = \"event.a\", n = 1 }}\n"
    );
    let of = |text: &str| one(text).1.fingerprint().to_owned();
    let fingerprint = of(&base);
    assert_eq!(fingerprint.len(), 64);
    for same in [
        base.replace("a = \"text\"", "a = { type = \"text\", index = true }"),
        base.replace("key =", "indexes = [[\"a\", \"n\"]]\nkey ="),
        base.replace("a = \"event.a\", n = 1", "n = 1, a = \"event.a\""),
        base.replace("a = \"text\"", "a = \"varchar\""),
        format!("{base}[[projections.p.tests]]\nname = \"x\"\ngiven = []\nexpect = []\n"),
    ] {
        assert_eq!(of(&same), fingerprint, "{same}");
    }
    for other in [
        base.replace("n = 1", "n = 2"),
        base.replace("n = 1", "n = \"event.n\""),
        base.replace("n = \"bigint\"", "n = { type = \"bigint\", default = 1 }"),
        base.replace("a = \"text\"\n", "").replace("a = \"event.a\", ", ""),
        base.replace("[\"t\"]", "[\"t\", \"u\"]"),
        base.replace("event.id", "key"),
        base.replace("set =", "when = \"exists\"\nset ="),
        base.replace("a = \"text\"\nn = \"bigint\"", "n = \"bigint\"\na = \"text\""),
    ] {
        assert_ne!(of(&other), fingerprint, "{other}");
    }
}

#[test]
fn the_json_form_is_what_changes_are_told_from() {
    use foldline_api::binding::{breaking_changes, changes};
    let head = format!("{HEAD}[projections.p.fields]\nid = \"bigint\"\n");
    let of = |rest: &str| one(&format!("{head}{rest}")).1.projection_json().clone();
    let old = of(
        "n = \"bigint\"\nl = { type = \"children\", by = \"x\", fields = { x = \"integer\" } }\n[[projections.p.on]]\nadd = { n = 1 }\n",
    );
    let new = of(
        "n = \"numeric\"\nm = \"text\"\nl = { type = \"children\", by = \"x\", fields = { x = \"bigint\" } }\n[[projections.p.on]]\nadd = { n = 2 }\n",
    );
    assert_eq!(
        changes(&old, &new),
        [
            "column n was bigint and is numeric",
            "column m is new",
            "column l was children by x (x integer) and is children by x (x bigint)",
            "the handlers"
        ]
    );
    assert_eq!(
        breaking_changes(&old, &new),
        ["column n changed its type", "column l changed its type"]
    );
}

/// Each `NN-name.toml` holds what users write, wrongly; `NN-name.txt` is what they are told, with file, line and key
/// path. `BLESS=1` writes the texts.
#[test]
fn wrong_expressions_are_told_where_and_how_to_mend_them() {
    let mut differing = Vec::new();
    let mut count = 0;
    let entries = std::fs::read_dir("tests/fixtures/language-errors").unwrap();
    for file in entries.map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.display().to_string();
        let found = projections::of_text(&name, &text, &Env::default())
            .and_then(|(all, places)| compile(&all, &places))
            .err()
            .unwrap_or_default();
        count += found.len();
        let text: String = found.iter().map(|problem| format!("{problem}\n\n")).collect();
        let expected = file.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&expected, &text).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != text {
            differing.push(format!("{}:\n{text}", file.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert!(count >= 80, "{count} problems");
}
