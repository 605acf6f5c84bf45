//! What a suggested projection says, by what was sampled.

use std::collections::{BTreeMap, BTreeSet};

use foldline_api::column::scalar_text;
use foldline_api::value::{Map, Value};

use super::Sample;
use super::kinds::{Kind, column_type, kind};

/// A field that holds the event's name has no more than this many.
const NAMES_MAX: usize = 20;
/// Columns; what an event has beyond is left out, and said.
const COLUMNS_MAX: usize = 200;
/// Fields that often hold the event's name, and headers that do.
const NAME_FIELDS: [&str; 8] =
    ["type", "event_type", "eventType", "event", "eventName", "event_name", "kind", "@type"];
const NAME_HEADERS: [&str; 5] = ["event-type", "event_type", "eventType", "type", "event"];
/// How a name ends that removes.
const REMOVES: [&str; 4] = ["deleted", "removed", "delete", "remove"];
/// Debezium's operations.
const OPERATIONS: [&str; 4] = ["c", "r", "u", "d"];

/// One column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) ty: &'static str,
    /// The event's field, or an expression where it is none.
    pub(super) from: String,
    pub(super) guess: Option<&'static str>,
}

/// The key's columns, and why these.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) columns: Vec<Column>,
    pub(super) why: String,
}

/// What makes an event's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Nothing: all events are of one kind.
    No,
    ByField(String),
    ByHeader(String),
    /// Its schema.
    ByConverter,
}

/// One handler.
#[derive(Clone, Debug)]
pub(super) struct Handler {
    /// Of which event; none is any.
    pub(super) event: Option<String>,
    pub(super) delete: bool,
    /// Whether each of its events had all of its fields.
    pub(super) full: bool,
    /// Columns and where they come from.
    pub(super) fields: Vec<(String, String)>,
}

/// The whole.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) debezium: bool,
    pub(super) named: Named,
    pub(super) key: Key,
    pub(super) columns: Vec<Column>,
    /// The column of the last event's time.
    pub(super) updated: String,
    pub(super) handlers: Vec<Handler>,
    pub(super) samples: usize,
    pub(super) left_out: usize,
}

impl Plan {
    /// By these samples.
    ///
    /// # Errors
    /// Where they are no events.
    pub(super) fn of(samples: &[Sample]) -> Result<Self, String> {
        if samples.is_empty() {
            return Err("there are no records to sample".to_owned());
        }
        let debezium = is_debezium(samples);
        let events: Vec<(&Sample, &Map)> =
            samples.iter().filter_map(|sample| Some((sample, row(sample, debezium)?))).collect();
        if events.is_empty() {
            return Err("no record's value is an object: a projection reads its fields".to_owned());
        }
        let named = if debezium { Named::No } else { named(&events) };
        let mut names = Names::default();
        let seen = seen(&events);
        let key = key(&events, &seen, samples, debezium, &mut names);
        let is_key = |field: &str| key.columns.iter().any(|column| column.from == access(field));
        let fields: Vec<&String> = seen
            .keys()
            .filter(|field| !is_key(field) && Named::ByField((*field).clone()) != named)
            .collect();
        let left_out = fields.len().saturating_sub(COLUMNS_MAX);
        let columns: Vec<(&String, Column)> = fields
            .into_iter()
            .take(COLUMNS_MAX)
            .map(|field| (field, column(field, &seen, &mut names)))
            .collect();
        let updated = names.free("updated_at");
        let handlers = handlers(&events, &named, &columns);
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        Ok(Plan {
            debezium,
            named,
            key,
            columns,
            updated,
            handlers,
            samples: samples.len(),
            left_out,
        })
    }
}

/// The row of a change event, or the event itself; none of what is no object.
pub(super) fn row(sample: &Sample, debezium: bool) -> Option<&Map> {
    let Value::Map(map) = &sample.value else { return None };
    if !debezium {
        return Some(map);
    }
    ["after", "before"].iter().find_map(|side| match map.get(side) {
        Some(Value::Map(row)) => Some(&**row),
        _ => None,
    })
}

fn is_debezium(samples: &[Sample]) -> bool {
    let mut changes = samples.iter().filter(|sample| !sample.value.is_null()).peekable();
    changes.peek().is_some()
        && changes.all(|sample| {
            let Value::Map(map) = &sample.value else { return false };
            let op = matches!(map.get("op"), Some(Value::Text(op)) if OPERATIONS.contains(&&**op));
            let side = |side| matches!(map.get(side), Some(Value::Map(_)));
            op && (side("after") || side("before"))
        })
}

/// The fields of all events, with the kinds of their values.
type Seen = BTreeMap<String, BTreeSet<Kind>>;

fn seen(events: &[(&Sample, &Map)]) -> Seen {
    let mut seen = Seen::new();
    for (field, value) in events.iter().flat_map(|(_, event)| event.iter()) {
        let kinds = seen.entry(field.to_string()).or_default();
        kinds.extend(kind(value));
    }
    seen
}

/// What names the events: whatever names all of them, by few names.
fn named(events: &[(&Sample, &Map)]) -> Named {
    let few = |found: Vec<Option<&str>>| {
        let all: Option<BTreeSet<&str>> = found.iter().copied().collect();
        // A regex begins with ^, and a tombstone is named by its own.
        let plain =
            |name: &&str| !name.is_empty() && !name.starts_with('^') && *name != "tombstone";
        all.is_some_and(|all| all.len() <= NAMES_MAX && all.iter().all(plain))
    };
    if few(events.iter().map(|(sample, _)| sample.name.as_deref()).collect()) {
        return Named::ByConverter;
    }
    for header in NAME_HEADERS {
        if few(events.iter().map(|(sample, _)| header_of(sample, header)).collect()) {
            return Named::ByHeader(header.to_owned());
        }
    }
    let text = |event: &'_ Map, field| match event.get(field) {
        Some(Value::Text(text)) => Some(text.to_string()),
        _ => None,
    };
    for field in NAME_FIELDS {
        let found: Vec<Option<String>> =
            events.iter().map(|(_, event)| text(event, field)).collect();
        if few(found.iter().map(Option::as_deref).collect()) {
            return Named::ByField(field.to_owned());
        }
    }
    Named::No
}

fn header_of<'a>(sample: &'a Sample, name: &str) -> Option<&'a str> {
    sample.headers.iter().rev().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
}

impl Plan {
    /// The name of an event.
    pub(super) fn name_of(&self, sample: &Sample) -> Option<String> {
        name_of(&self.named, sample)
    }
}

fn name_of(named: &Named, sample: &Sample) -> Option<String> {
    match (named, &sample.value) {
        (Named::No, _) => None,
        // Of one that is no event, such as a tombstone, it may be empty.
        (Named::ByConverter, _) => sample.name.clone().filter(|name| !name.is_empty()),
        (Named::ByHeader(header), _) => header_of(sample, header).map(str::to_owned),
        (Named::ByField(field), Value::Map(event)) => match event.get(field) {
            Some(Value::Text(text)) => Some(text.to_string()),
            _ => None,
        },
        (Named::ByField(_), _) => None,
    }
}

fn column(field: &str, seen: &Seen, names: &mut Names) -> Column {
    let (ty, guess) = seen.get(field).map_or(("jsonb", None), column_type);
    Column { name: names.free(field), ty, from: access(field), guess }
}

/// A key, by what all records have.
fn key(
    events: &[(&Sample, &Map)],
    seen: &Seen,
    samples: &[Sample],
    debezium: bool,
    names: &mut Names,
) -> Key {
    let identifies = |field: &str| {
        let kinds = seen.get(field).map_or(Vec::new(), |kinds| kinds.iter().copied().collect());
        matches!(
            kinds.as_slice(),
            [Kind::Int | Kind::UuidText | Kind::Uuid | Kind::Text | Kind::NumberText]
        ) && events.iter().all(|(_, event)| event.get(field).is_some_and(|value| !value.is_null()))
    };
    let mut of_fields = |fields: &[String], why: &str| {
        let columns = fields.iter().map(|field| column(field, seen, names)).collect();
        Key { columns, why: why.to_owned() }
    };
    if debezium
        && let Some(fields) = fields_of_keys(samples)
        && fields.iter().all(|field| identifies(field))
    {
        return of_fields(&fields, "the record's key, which is the table's primary key");
    }
    let is_key = |field: &&String| {
        identifies(field)
            && events.iter().all(|(sample, event)| {
                event.get(field).is_some_and(|value| scalar_text(value) == key_text(&sample.key))
            })
    };
    if let Some(field) = seen.keys().find(is_key) {
        return of_fields(std::slice::from_ref(field), "it is each record's key too");
    }
    let ids = seen.keys().filter(|field| matches!(&*field.to_lowercase(), "id" | "uuid" | "_id"));
    if let Some(field) = ids.into_iter().find(|field| identifies(field)) {
        return of_fields(std::slice::from_ref(field), "a guess: each event has it");
    }
    let texts: Option<Vec<&str>> = samples
        .iter()
        .map(|sample| match &sample.key {
            Value::Text(text) if !text.is_empty() => Some(&**text),
            _ => None,
        })
        .collect();
    if let Some(texts) = texts.filter(|_| !debezium) {
        let is_number = |text: &&str| text.parse::<i64>().is_ok_and(|n| n.to_string() == **text);
        let ty = if texts.iter().all(is_number) { "bigint" } else { "text" };
        let (name, from) = (names.free("record_key"), "key".to_owned());
        let why = "a guess: the record's key, as no field of the events is one".to_owned();
        return Key { columns: vec![Column { name, ty, from, guess: None }], why };
    }
    let mut place = |name: &str, ty| Column {
        name: names.free(&format!("record_{name}")),
        ty,
        from: name.to_owned(),
        guess: None,
    };
    Key {
        columns: vec![place("partition", "integer"), place("offset", "bigint")],
        why: "a guess: nothing tells what an event is about, so each is a row of its own; write what does".to_owned(),
    }
}

/// What stands for a key where it is compared with a field.
fn key_text(key: &Value) -> String {
    match key {
        Value::List(_) | Value::Map(_) | Value::Null => String::new(),
        key => scalar_text(key).to_string(),
    }
}

/// The fields of keys that are objects, the same in all.
fn fields_of_keys(samples: &[Sample]) -> Option<Vec<String>> {
    let fields = |sample: &Sample| match &sample.key {
        Value::Map(map) if !map.is_empty() => {
            Some(map.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>())
        }
        _ => None,
    };
    let all: Option<BTreeSet<Vec<String>>> = samples.iter().map(fields).collect();
    let all = all?;
    if all.len() == 1 { all.into_iter().next() } else { None }
}

fn handlers(
    events: &[(&Sample, &Map)],
    named: &Named,
    columns: &[(&String, Column)],
) -> Vec<Handler> {
    let mut groups: BTreeMap<Option<String>, Vec<&Map>> = BTreeMap::new();
    for (sample, event) in events {
        groups.entry(name_of(named, sample)).or_default().push(event);
    }
    let handler = |(event, group): (Option<String>, Vec<&Map>)| {
        let has = |field: &str| group.iter().any(|event| event.get(field).is_some());
        let fields: Vec<&(&String, Column)> =
            columns.iter().filter(|(field, _)| has(field)).collect();
        let full =
            |(field, _): &&(&String, Column)| group.iter().all(|event| event.get(field).is_some());
        let lower = event.as_deref().unwrap_or_default().to_lowercase();
        Handler {
            delete: REMOVES.iter().any(|end| lower.ends_with(end)),
            full: fields.iter().all(full),
            fields: fields.iter().map(|(_, c)| (c.name.clone(), c.from.clone())).collect(),
            event,
        }
    };
    groups.into_iter().map(handler).collect()
}

/// Names of columns that are taken.
#[derive(Debug, Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// A name like `field` that is free: lower case, with `_`.
    fn free(&mut self, field: &str) -> String {
        let mut name = String::new();
        let mut low = false;
        for c in field.chars() {
            if c.is_ascii_uppercase() && low {
                name.push('_');
            }
            low = c.is_ascii_lowercase() || c.is_ascii_digit();
            name.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
        }
        let name: String = name.trim_matches('_').chars().take(50).collect();
        let name = match name.chars().next() {
            None => "field".to_owned(),
            Some(first) if first.is_ascii_digit() => format!("field_{name}"),
            Some(_) => name,
        };
        let mut free = name.clone();
        let mut n = 2;
        while !self.0.insert(free.clone()) {
            free = format!("{name}_{n}");
            n += 1;
        }
        free
    }
}

/// Words that no field behind a dot can be.
const WORDS: [&str; 22] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "has",
];

/// The expression that reads a field of the event.
pub(super) fn access(field: &str) -> String {
    let plain = field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && field.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !WORDS.contains(&field);
    if plain {
        return format!("event.{field}");
    }
    format!("event[{}]", text(field))
}

/// A text as CEL has it.
pub(super) fn text(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() || !c.is_ascii() => {
                out.push_str(&format!("\\U{:08x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}
