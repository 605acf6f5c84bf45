//! Reads `[projections.NAME]` into its checked form.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::json;

use super::cases::{TEST, read_cases};
use super::checks::{check_projections, resolve_children};
use super::diagnostic::{Diagnostic, sort};
use super::env::Env;
use super::fields::read_fields;
use super::form::{Choice, Entries, Other, Period, SubTable, Text};
use super::handlers::{HANDLER, Model, read_handlers};
use super::interpolate::interpolate_node;
use super::key::{Key, Required, Section};
use super::names::{NAMES, check_name, read_names};
use super::operands::{OPERAND, OPERANDS, read_operand, read_operands};
use super::places::Places;
use super::projection::{Envelope, Expire, ProjectionConfig};
use super::reader::{Context, Field, Reader};
use super::schema::{list, of};
use super::tree::{At, parse};

/// The key of all projections.
pub const PROJECTIONS: Key<Entries> =
    Key::new("projections", Entries(|| of("projection")), "Pure folds, event by event");

/// The projections of one TOML text, and where their keys stand; what else the text holds is not looked at.
///
/// # Errors
/// All that is wrong with their form, at once.
pub fn of_text(
    file: &str,
    text: &str,
    env: &Env,
) -> Result<(IndexMap<String, ProjectionConfig>, Places), Vec<Diagnostic>> {
    let file = Arc::from(file);
    let mut tree = parse(&file, text)?;
    let mut problems = Vec::new();
    for (key, node) in &mut tree {
        interpolate_node(node, key, env, &mut problems);
    }
    let cx = Context::new(env);
    let mut root = Reader::new(&cx, "root", String::new(), At { file, line: None }, &tree);
    let mut all = IndexMap::new();
    for (name, field) in root.read(&PROJECTIONS).unwrap_or_default() {
        check_name(&field, name);
        all.extend(read(name, &field).map(|projection| (name.to_owned(), projection)));
    }
    let places = Places::of(&tree);
    problems.extend(cx.into_parts().0);
    resolve_children(&mut all);
    check_projections(&all, &places, &mut problems);
    sort(&mut problems);
    if problems.is_empty() { Ok((all, places)) } else { Err(problems) }
}

pub(super) static PROJECTION: Section = Section {
    name: "projection",
    doc: "A fold of topics into rows or documents.",
    keys: &[&TOPICS, &ENVELOPE, &EVENT_TYPE, &KEY, &FIELDS, &INDEXES, &EXPIRE, &ON, &TESTS],
};

const TOPICS: Key<Other, Required> =
    Key::new("topics", NAMES, "Source topics").required("[\"orders\"]");
const ENVELOPE: Key<Choice<Envelope>> = Key::new(
    "envelope",
    Choice(&[
        ("debezium", Envelope::Debezium),
        ("debezium-flat", Envelope::DebeziumFlat),
        ("cloudevents", Envelope::CloudEvents),
    ]),
    "What stands around the event",
);
const EVENT_TYPE: Key<Other> = Key::new(
    "event_type",
    OPERAND,
    "Names the event; where it is null, the converter's name stands",
);
const KEY: Key<Entries, Required> = Key::new("key", OPERANDS, "Key columns and their expressions")
    .required("{ id = \"event.id\" }");
const FIELDS: Key<Entries, Required> =
    Key::new("fields", Entries(|| of("field_or_type")), "The read model; order is column order")
        .required("{ id = \"bigint\", name = \"text\" }");
const INDEXES: Key<Other> = Key::new(
    "indexes",
    Other(|description| {
        let index = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 });
        list(description, &index)
    }),
    "Secondary indexes over several columns",
);
const EXPIRE: Key<SubTable> =
    Key::new("expire", SubTable(&EXPIRE_TABLE), "Deletes rows by the clock");
/// Whoever left it out is told how to begin with it here.
const ON: Key<Other, Required> = Key::new(
    "on",
    Other(|description| list(description, &of(HANDLER.name))),
    "Handlers; the first that matches applies",
)
.required("[{ set = \"event\" }]");
const TESTS: Key<Other> = Key::new(
    "tests",
    Other(|description| list(description, &of(TEST.name))),
    "Cases for `foldline test`",
);

pub(super) static EXPIRE_TABLE: Section =
    Section { name: "expire", doc: "Deletes rows by the clock.", keys: &[&FIELD, &AFTER] };

const FIELD: Key<Text, Required> =
    Key::new("field", Text, "A key column that holds a time").required("\"hour\"");
const AFTER: Key<Period, Required> =
    Key::new("after", Period, "Age at which the row goes").required("\"30d\"");

/// Reads one projection; its problems go to the field's context.
pub fn read(name: &str, field: &Field<'_>) -> Option<ProjectionConfig> {
    let mut reader = field.table(&PROJECTION)?;
    let topics = reader.read(&TOPICS).and_then(|field| read_names(&field));
    let envelope = reader.read(&ENVELOPE);
    let event_type = reader.read(&EVENT_TYPE).and_then(|field| read_operand(&field));
    let fields_given = reader.given(&FIELDS).is_some();
    let fields = read_fields(reader.read(&FIELDS).unwrap_or_default());
    let key_entries = reader.read(&KEY).unwrap_or_default();
    let key = read_operands(&key_entries);
    let model = Model { fields: &fields, key: &key, topics: topics.as_ref() };
    if fields_given {
        check_key(&key_entries, &model);
    }
    let indexes = read_indexes(reader.read(&INDEXES), &model);
    let expire = reader.read(&EXPIRE).and_then(|expire| read_expire(expire, &model));
    let on = reader.given(&ON);
    if on.is_none() {
        let help = format!("[[projections.{name}.on]]\nset = \"event\"");
        reader.problem_with_help("has no handler, so no event would be folded", help);
    }
    let on = on.map(|field| read_handlers(&field, &model)).unwrap_or_default();
    let tests = reader.read(&TESTS).map(|field| read_cases(&field, &model)).unwrap_or_default();
    reader.finish();
    Some(ProjectionConfig {
        name: name.to_owned(),
        file: field.file().to_owned(),
        topics: topics?,
        envelope,
        sources: Vec::new(),
        event_type,
        key,
        fields,
        indexes,
        expire,
        on,
        tests,
    })
}

fn check_key(entries: &[(&str, Field<'_>)], model: &Model<'_>) {
    for (name, field) in entries {
        let Some(config) = model.field(field, name) else { continue };
        let fault = if config.ty == "children" {
            "children cannot be a key"
        } else if config.computed.is_some() {
            "a computed field cannot be a key"
        } else if config.lookup.is_some() {
            "a looked-up field cannot be a key"
        } else if config.default.is_some() {
            "a key column is always filled by its expression, and takes no `default`"
        } else {
            continue;
        };
        field.problem(fault);
    }
}

fn read_indexes(field: Option<Field<'_>>, model: &Model<'_>) -> Vec<Vec<String>> {
    const FORM: &str = "a list of lists of fields, such as `[[\"user_id\", \"updated_at\"]]`";
    let mut indexes: Vec<Vec<String>> = Vec::new();
    for item in field.and_then(|field| field.list(FORM)).unwrap_or_default() {
        let Some(columns) = item.list("a list of fields, such as `[\"user_id\"]`") else {
            continue;
        };
        let mut index: Vec<String> = Vec::new();
        for column in &columns {
            let Some(name) = column.text() else { continue };
            if model.field(column, &name).is_some_and(|config| config.ty == "children") {
                column.problem("children cannot be indexed");
            }
            if index.contains(&name) {
                column.problem(format!("{name:?} is given twice"));
            }
            index.push(name);
        }
        if columns.is_empty() {
            item.problem("the list is empty");
        } else if indexes.contains(&index) {
            item.problem("the index is given twice");
        }
        indexes.push(index);
    }
    indexes
}

fn read_expire(mut reader: Reader<'_>, model: &Model<'_>) -> Option<Expire> {
    let column = reader.field(&FIELD).and_then(|field| {
        let name = field.text()?;
        if !model.key.contains_key(&name) {
            let keys = || model.key.keys().map(String::as_str);
            let wanted = format!("a key column: {}", super::diagnostic::listed(keys()));
            field.not_among(&wanted, &name, keys());
        }
        Some(name)
    });
    let after = reader.read(&AFTER);
    reader.finish();
    Some(Expire { field: column?, after: after? })
}
