//! Reads `[[projections.NAME.on]]`, and checks what each handler assigns.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::diagnostic::{closest, listed};
use super::form::{Entries, Flag, Other};
use super::key::{Key, Or, Section};
use super::names::{NAMES, covers, read_names};
use super::operands::{OPERAND, OPERANDS, read_operand, read_operands};
use super::projection::{Assignments, FieldConfig, HandlerConfig, Located, Names, Operand};
use super::reader::{Field, Reader};
use super::schema::{of, refer};
use super::tree::Item;

/// What handlers and tests may name.
pub(super) struct Model<'a> {
    pub(super) fields: &'a IndexMap<String, Located<FieldConfig>>,
    pub(super) key: &'a IndexMap<String, Located<Operand>>,
    pub(super) topics: Option<&'a Names>,
}

impl Model<'_> {
    /// The field of that name, or a problem at `field`.
    pub(super) fn field(&self, field: &Field<'_>, name: &str) -> Option<&FieldConfig> {
        let found = self.fields.get(name).map(|located| &located.value);
        if found.is_none() {
            unknown_field(field, name, self.fields.keys().map(String::as_str));
        }
        found
    }
}

/// Says that no field has this name, with the nearest.
pub(super) fn unknown_field<'n>(
    field: &Field<'_>,
    name: &str,
    known: impl Iterator<Item = &'n str> + Clone,
) {
    let message = format!("{name:?} is no field; the fields are {}", listed(known.clone()));
    match closest(name, known) {
        Some(near) => field.problem_with_help(message, format!("did you mean `{near}`?")),
        None => field.problem(message),
    }
}

pub(super) static HANDLER: Section = Section {
    name: "handler",
    doc: "What events do to a row.",
    keys: &[
        &TOPIC, &EVENT, &WHEN, &KEY, &FOR_EACH, &SET, &MERGE, &PATCH, &ADD, &MIN, &MAX, &APPEND,
        &REMOVE, &PUT, &TAKE, &DELETE, &IGNORE, &CONTINUE,
    ],
};

const TOPIC: Key<Other> = Key::new("topic", NAMES, "Topics that it listens to; all unless given");
const EVENT: Key<Other> = Key::new("event", NAMES, "Events that it takes; all unless given");
const WHEN: Key<Other> = Key::new("when", OPERAND, "It applies only where this is true");
const KEY: Key<Entries> = Key::new("key", OPERANDS, "Another key for this handler, same columns");
const FOR_EACH: Key<Other> =
    Key::new("for_each", OPERAND, "It runs once for each item of this list");
const SET: Key<Other> = Key::new("set", ASSIGNMENTS, "Sets fields; what is absent becomes null");
const MERGE: Key<Other> = Key::new("merge", ASSIGNMENTS, "Sets fields; null and absent leave them");
const PATCH: Key<Other> =
    Key::new("patch", ASSIGNMENTS, "Sets fields; absent leaves them, null clears");
const ADD: Key<Entries> = Key::new("add", OPERANDS, "Adds; null adds nothing");
const MIN: Key<Entries> = Key::new("min", OPERANDS, "Keeps the smaller; null leaves it");
const MAX: Key<Entries> = Key::new("max", OPERANDS, "Keeps the larger; null leaves it");
const APPEND: Key<Entries> = Key::new("append", OPERANDS, "Adds to the end of a list");
const REMOVE: Key<Entries> = Key::new("remove", OPERANDS, "Takes equal elements out of a list");
const PUT: Key<Entries> =
    Key::new("put", Entries(|| of("assignments")), "Sets what it names of a child");
const TAKE: Key<Entries> = Key::new("take", OPERANDS, "Takes the child with that key out");
const DELETE: Key<Flag, Or<bool>> = Key::new("delete", Flag, "Deletes the row").or(false);
const IGNORE: Key<Flag, Or<bool>> = Key::new("ignore", Flag, "Filters the event").or(false);
const CONTINUE: Key<Flag, Or<bool>> =
    Key::new("continue", Flag, "Goes on to the next handlers").or(false);

const ASSIGNMENTS: Other = Other(|description| refer(description, "assignments"));

pub(super) fn read_handlers(field: &Field<'_>, model: &Model<'_>) -> Vec<Located<HandlerConfig>> {
    let mut handlers: Vec<Located<HandlerConfig>> = Vec::new();
    for item in field.list("a list of handlers, each `[[projections.NAME.on]]`").unwrap_or_default()
    {
        let Some(config) = read_handler(&item, model) else { continue };
        let shadow = handlers.iter().find(|earlier| takes_all(&earlier.value));
        if let Some(earlier) = shadow.filter(|_| !hears_tombstones(&config)) {
            item.problem_with_help(
                format!("never applies: {} before it takes every event", earlier.path),
                "put the more general handler last, or give it `continue = true`",
            );
        }
        handlers.push(Located { path: item.path, value: config });
    }
    handlers
}

fn takes_all(handler: &HandlerConfig) -> bool {
    let unconditional = handler.topic.is_none() && handler.event.is_none();
    unconditional && handler.when.is_none() && !handler.continues
}

/// Tombstones and Debezium's deletes go only to handlers that name them, so one that does may
/// stand after one that takes all else.
fn hears_tombstones(handler: &HandlerConfig) -> bool {
    let names = |names: &Names| covers(names, "tombstone") || covers(names, "delete");
    handler.event.as_ref().is_some_and(names)
}

fn read_handler(field: &Field<'_>, model: &Model<'_>) -> Option<HandlerConfig> {
    let mut reader = field.table(&HANDLER)?;
    let mut verbs = Verbs { model, used: BTreeMap::new() };
    let handler = HandlerConfig {
        topic: reader.read(&TOPIC).and_then(|field| read_topics(&field, model)),
        event: reader.read(&EVENT).and_then(|field| read_names(&field)),
        when: reader.read(&WHEN).and_then(|field| read_operand(&field)),
        key: reader.field(&KEY).and_then(|field| read_key(&field, model)),
        for_each: reader.read(&FOR_EACH).and_then(|field| read_operand(&field)),
        set: verbs.assignments(&mut reader, &SET),
        merge: verbs.assignments(&mut reader, &MERGE),
        patch: verbs.assignments(&mut reader, &PATCH),
        add: verbs.operands(&mut reader, &ADD),
        min: verbs.operands(&mut reader, &MIN),
        max: verbs.operands(&mut reader, &MAX),
        append: verbs.operands(&mut reader, &APPEND),
        remove: verbs.operands(&mut reader, &REMOVE),
        put: verbs.put(&mut reader),
        take: verbs.take(&mut reader),
        delete: reader.read(&DELETE),
        ignore: reader.read(&IGNORE),
        continues: reader.read(&CONTINUE),
    };
    check_deeds(&reader, &handler);
    reader.finish_hinting(verb_of);
    Some(handler)
}

/// The verb that other tools call so.
fn verb_of(word: &str) -> Option<&'static str> {
    Some(match word {
        "increment" | "increase" | "inc" | "incr" | "sum" | "plus" | "count" => {
            "`add = { n = 1 }` counts"
        }
        "decrement" | "decrease" | "dec" | "decr" | "minus" | "subtract" => {
            "`add = { n = -1 }` counts down"
        }
        "insert" | "upsert" | "update" | "replace" | "assign" | "copy" => {
            "`merge = \"event\"` writes the fields that the event has"
        }
        "push" | "concat" | "extend" => "`append = { list = \"event.item\" }` adds to a list",
        "drop" | "truncate" | "erase" => "`delete = true` deletes the row",
        "if" | "where" | "filter" | "condition" => "`when` is the condition",
        "skip" => "`ignore = true` filters the event",
        _ => return None,
    })
}

const VERBS: [&str; 10] = [
    SET.name,
    MERGE.name,
    PATCH.name,
    ADD.name,
    MIN.name,
    MAX.name,
    APPEND.name,
    REMOVE.name,
    PUT.name,
    TAKE.name,
];

/// A handler changes the row, deletes it, or filters the event: one of the three.
fn check_deeds(reader: &Reader<'_>, handler: &HandlerConfig) {
    let changes = VERBS.into_iter().find(|verb| reader.has(verb));
    match (changes, handler.delete, handler.ignore) {
        (None, false, false) => reader.problem_with_help(
            "does nothing",
            "set = \"event\" takes all fields from the event; delete = true deletes the row; \
             ignore = true filters the event",
        ),
        (Some(verb), true, _) => {
            reader.problem(format!("`delete` and `{verb}` exclude each other"));
        }
        (Some(verb), _, true) => {
            reader.problem(format!("`ignore` and `{verb}` exclude each other"));
        }
        (None, true, true) => reader.problem("`delete` and `ignore` exclude each other"),
        _ => {}
    }
    if handler.ignore && handler.continues {
        reader.problem("`ignore` and `continue` exclude each other");
    }
}

fn read_topics(field: &Field<'_>, model: &Model<'_>) -> Option<Names> {
    let names = read_names(field)?;
    if let (Names::List(wanted), Some(known)) = (&names, model.topics) {
        for name in wanted.iter().filter(|name| !covers(known, name)) {
            let message = format!("{name:?} is none of the projection's `topics`");
            let list: &[String] = if let Names::List(list) = known { list } else { &[] };
            match closest(name, list.iter().map(String::as_str)) {
                Some(near) => field.problem_with_help(message, format!("did you mean `{near}`?")),
                None => field.problem(message),
            }
        }
    }
    Some(names)
}

fn read_key(field: &Field<'_>, model: &Model<'_>) -> Option<IndexMap<String, Located<Operand>>> {
    let entries = field.entries()?;
    let given: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
    let same = given.len() == model.key.len() && given.iter().all(|n| model.key.contains_key(*n));
    if !same {
        field.problem(format!(
            "has the columns {}; a handler's key has the projection's: {}",
            listed(given),
            listed(model.key.keys().map(String::as_str))
        ));
    }
    Some(read_operands(&entries))
}

/// Reads what changes the row; a field is changed by one verb.
struct Verbs<'a> {
    model: &'a Model<'a>,
    used: BTreeMap<String, &'static str>,
}

impl Verbs<'_> {
    fn assignments(&mut self, reader: &mut Reader<'_>, key: &Key<Other>) -> Option<Assignments> {
        let verb = key.name;
        let field = reader.read(key)?;
        if let Item::Table(_) = field.node.item {
            let entries = field.entries()?;
            for (name, entry) in &entries {
                self.check(entry, name, verb);
            }
            return Some(Assignments::Fields(read_operands(&entries)));
        }
        self.all(&field, verb)
    }

    /// One expression for all fields that are not mentioned.
    fn all(&mut self, field: &Field<'_>, verb: &str) -> Option<Assignments> {
        if field.node.as_str().is_none() {
            field.problem_with_help(
                format!("found {}, expected a table or an expression", field.node.describe()),
                format!("{verb} = \"event\" takes all fields; {verb} = {{ a = \"event.a\" }}, one"),
            );
            return None;
        }
        read_operand(field).map(Assignments::All)
    }

    fn operands(
        &mut self,
        reader: &mut Reader<'_>,
        key: &Key<Entries>,
    ) -> IndexMap<String, Located<Operand>> {
        let verb = key.name;
        let entries = reader.read(key).unwrap_or_default();
        for (name, field) in &entries {
            let config = self.check(field, name, verb);
            if config.is_some_and(|config| config.ty == "children") {
                let message = format!("`{verb}` does not work on children");
                field.problem_with_help(message, "`put` sets a child, `take` takes one out");
            }
        }
        read_operands(&entries)
    }

    fn put(&mut self, reader: &mut Reader<'_>) -> IndexMap<String, Located<Assignments>> {
        let mut out = IndexMap::new();
        for (name, field) in reader.read(&PUT).unwrap_or_default() {
            let Some(children) = self.children(&field, name, PUT.name) else { continue };
            let assignments = if field.is_table() {
                check_child(&field, &children);
                let entries = field.entries().unwrap_or_default();
                Some(Assignments::Fields(read_operands(&entries)))
            } else {
                self.all(&field, name)
            };
            if let Some(value) = assignments {
                out.insert(name.to_owned(), Located { path: field.path, value });
            }
        }
        out
    }

    fn take(&mut self, reader: &mut Reader<'_>) -> IndexMap<String, Located<Operand>> {
        let entries = reader.read(&TAKE).unwrap_or_default();
        for (name, field) in &entries {
            self.children(field, name, TAKE.name);
        }
        read_operands(&entries)
    }

    fn children(
        &mut self,
        field: &Field<'_>,
        name: &str,
        verb: &'static str,
    ) -> Option<FieldConfig> {
        let config = self.check(field, name, verb)?;
        if config.ty != "children" {
            field.problem(format!("`{verb}` works on children; {name:?} is `{}`", config.ty));
            return None;
        }
        Some(config.clone())
    }

    /// A declared field that events may change, and no verb has changed yet.
    fn check(&mut self, field: &Field<'_>, name: &str, verb: &'static str) -> Option<&FieldConfig> {
        let config = self.model.field(field, name)?;
        let fault = if self.model.key.contains_key(name) {
            Some("is a key column, which `key` fills".to_owned())
        } else if config.computed.is_some() {
            let way_out = "set what it is computed from, or take its `computed` out";
            Some(format!("is computed: {way_out}"))
        } else if config.lookup.is_some() {
            Some("is looked up".to_owned())
        } else {
            let first = self.used.insert(name.to_owned(), verb);
            first.map(|first| format!("is already changed by `{first}` of this handler"))
        };
        match fault {
            Some(fault) => {
                field.problem(fault);
                None
            }
            None => Some(config),
        }
    }
}

fn check_child(field: &Field<'_>, children: &FieldConfig) {
    let entries = field.entries().unwrap_or_default();
    for (name, entry) in &entries {
        if !children.fields.contains_key(*name) {
            unknown_field(entry, name, children.fields.keys().map(String::as_str));
        }
    }
    if let Some(by) = &children.by
        && !entries.iter().any(|(name, _)| name == by)
    {
        let help = format!("{by} = \"event.{by}\"");
        field.problem_with_help(format!("does not say which child: {by:?} is missing"), help);
    }
}
