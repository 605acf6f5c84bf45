//! A projection's stable JSON form and its fingerprint.

use std::collections::BTreeSet;

use foldline_api::budget::FOLD_VERSION;
use foldline_api::column::{Children, ColumnType};
use foldline_api::model::Column;
use indexmap::IndexMap;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use crate::config::projection::{
    Assignments, Envelope, HandlerConfig, Located, Names, Operand, ProjectionConfig,
};

/// All that decides what is stored. What only speeds reading (indexes) or checks (tests) is left out.
pub(super) fn projection(config: &ProjectionConfig, columns: &[Column]) -> Json {
    let mut out = Map::new();
    let columns = columns.iter().map(|column| self::column(config, column)).collect();
    out.insert("columns".to_owned(), Json::Array(columns));
    let key = config.key.iter().map(
        |(name, expression)| json!({ "name": name, "expression": operand(&expression.value) }),
    );
    out.insert("key".to_owned(), key.collect());
    out.insert("on".to_owned(), config.on.iter().map(|on| handler(&on.value)).collect());
    out.insert("topics".to_owned(), names(&config.topics));
    if let Some(event_type) = &config.event_type {
        out.insert("event_type".to_owned(), operand(&event_type.value));
    }
    if let Some(envelope) = config.envelope {
        let name = match envelope {
            Envelope::Debezium => "debezium",
            Envelope::DebeziumFlat => "debezium-flat",
            Envelope::CloudEvents => "cloudevents",
        };
        out.insert("envelope".to_owned(), name.into());
        let sources = config.sources.iter().flat_map(|source| &source.topics);
        let full: BTreeSet<&str> =
            sources.filter(|(_, facts)| facts.full).map(|(name, _)| name.as_str()).collect();
        if !full.is_empty() {
            out.insert("replica_identity".to_owned(), full.into_iter().collect());
        }
    }
    // Another version folds the same events to other rows. The first has no place here: what was built before there
    // were limits goes on with it.
    if FOLD_VERSION > 1 {
        out.insert("fold".to_owned(), FOLD_VERSION.into());
    }
    if let Some(expire) = &config.expire {
        let after = expire.after.as_secs();
        out.insert("expire".to_owned(), json!({ "field": expire.field, "after_seconds": after }));
    }
    Json::Object(out)
}

fn column(config: &ProjectionConfig, column: &Column) -> Json {
    let mut out = Map::new();
    out.insert("name".to_owned(), (&*column.name).into());
    out.insert("type".to_owned(), type_text(&column.ty).into());
    if !column.default.is_null() {
        let default = foldline_api::json::to_string(&column.default);
        out.insert("default".to_owned(), serde_json::from_str(&default).unwrap_or(Json::Null));
    }
    let Some(field) = config.fields.get(&*column.name).map(|field| &field.value) else {
        return Json::Object(out);
    };
    if let Some(computed) = &field.computed {
        out.insert("computed".to_owned(), computed.trim().into());
    }
    if let Some(lookup) = &field.lookup {
        out.insert("lookup".to_owned(), lookup.as_str().into());
        out.insert("via".to_owned(), field.via.as_deref().into());
    }
    for (name, child) in &field.fields {
        if let Some(default) = &child.value.default {
            out.insert(format!("default of {name}"), literal(default));
        }
    }
    Json::Object(out)
}

/// A type whole: a child's fields are part of it, so that a change of theirs is a change of type.
pub(super) fn type_text(ty: &ColumnType) -> String {
    let ColumnType::Children(children) = ty else { return ty.to_string() };
    let Children { by, fields } = &**children;
    let fields: Vec<String> = fields.iter().map(|(name, ty)| format!("{name} {ty}")).collect();
    format!("children by {by} ({})", fields.join(", "))
}

fn names(names: &Names) -> Json {
    match names {
        Names::List(list) => {
            let mut list: Vec<&str> = list.iter().map(String::as_str).collect();
            list.sort_unstable();
            list.dedup();
            list.into()
        }
        Names::Regex(pattern) => pattern.as_str().into(),
    }
}

/// An expression is its text, all else is marked so that it can be no expression.
fn operand(operand: &Operand) -> Json {
    match operand {
        Operand::Expression(source) => source.trim().into(),
        Operand::Literal(value) => json!({ "literal": literal(value) }),
    }
}

fn literal(value: &toml::Value) -> Json {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(int) => (*int).into(),
        toml::Value::Float(float) => (*float).into(),
        toml::Value::Boolean(bool) => (*bool).into(),
        toml::Value::Datetime(datetime) => datetime.to_string().into(),
        toml::Value::Array(items) => items.iter().map(literal).collect(),
        toml::Value::Table(table) => {
            Json::Object(table.iter().map(|(key, item)| (key.clone(), literal(item))).collect())
        }
    }
}

fn operands(operands: &IndexMap<String, Located<Operand>>) -> Json {
    let entries = operands.iter().map(|(name, at)| (name.clone(), operand(&at.value)));
    Json::Object(entries.collect())
}

fn assignments(assignments: &Assignments) -> Json {
    match assignments {
        Assignments::All(all) => operand(&all.value),
        Assignments::Fields(fields) => operands(fields),
    }
}

fn handler(on: &HandlerConfig) -> Json {
    let mut out = Map::new();
    let mut add = |name: &str, part: Option<Json>| {
        if let Some(part) = part {
            out.insert(name.to_owned(), part);
        }
    };
    add("topic", on.topic.as_ref().map(names));
    add("event", on.event.as_ref().map(names));
    add("when", on.when.as_ref().map(|at| operand(&at.value)));
    add("key", on.key.as_ref().map(operands));
    add("for_each", on.for_each.as_ref().map(|at| operand(&at.value)));
    add("set", on.set.as_ref().map(assignments));
    add("merge", on.merge.as_ref().map(assignments));
    add("patch", on.patch.as_ref().map(assignments));
    for (name, fields) in [
        ("add", &on.add),
        ("min", &on.min),
        ("max", &on.max),
        ("append", &on.append),
        ("remove", &on.remove),
        ("take", &on.take),
    ] {
        add(name, (!fields.is_empty()).then(|| operands(fields)));
    }
    let put = on.put.iter().map(|(name, at)| (name.clone(), assignments(&at.value)));
    add("put", (!on.put.is_empty()).then(|| Json::Object(put.collect())));
    for (name, flag) in [("delete", on.delete), ("ignore", on.ignore), ("continue", on.continues)] {
        add(name, flag.then_some(Json::Bool(true)));
    }
    Json::Object(out)
}

/// SHA-256 in hex, over a text that does not depend on how objects happen to be ordered.
pub(super) fn fingerprint(projection: &Json) -> String {
    let mut text = String::new();
    canonical(projection, &mut text);
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn canonical(json: &Json, out: &mut String) {
    match json {
        Json::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Json::Object(map) => {
            let mut entries: Vec<(&String, &Json)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, item) in entries {
                foldline_api::json::write_text(key, out);
                out.push(':');
                canonical(item, out);
                out.push(',');
            }
            out.push('}');
        }
        Json::String(text) => foldline_api::json::write_text(text, out),
        scalar => out.push_str(&scalar.to_string()),
    }
}
