//! A connector as Kafka Connect writes one: a flat map of text to text. Its keys, and what is wrong with such a map.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::config::env::Env;
use foldline_language::config::key::{Declared, Keys};
use foldline_language::config::sink::TargetKey;
use foldline_language::config::tree::{At, Item, Node, Table};
use serde_json::Value;

use super::connector::keys::{BATCH_TABLE, CONNECTOR, ERRORS_TABLE};
use super::load::check_with;
use super::sink::{KAFKA, KINDS};

/// Kafka Connect's spelling of `tasks_max`.
const TASKS_MAX: (&str, &str) = ("tasks.max", "tasks_max");
/// What a connector writes to, whatever its store calls it.
const TARGET: &str = "target";
/// The tables of a connector whose keys are written behind a dot.
const TABLES: [(&str, Keys); 2] = [("batch", BATCH_TABLE.keys), ("errors", ERRORS_TABLE.keys)];
/// What stands there is a table of the store's own words, in JSON here.
const IN_JSON: [&str; 2] = ["mapping", "settings"];

/// A kind of store that connectors write to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Its `type`.
    pub(crate) name: &'static str,
    /// What a connector calls its target there.
    pub(crate) target: TargetKey,
}

/// The kinds of store of this build.
pub(crate) fn kinds() -> impl Iterator<Item = Kind> {
    let topics = Kind { name: KAFKA, target: TargetKey::Topic };
    let built = KINDS.iter().map(|kind| Kind { name: kind.name, target: kind.target });
    built.chain(cfg!(feature = "kafka").then_some(topics))
}

/// One key of the flat map.
#[derive(Debug)]
pub(crate) struct FlatKey {
    /// Its name.
    pub(crate) name: String,
    /// What the config declares of it.
    pub(crate) declared: &'static dyn Declared,
}

/// The keys of a connector that writes to such a store.
pub(crate) fn keys(kind: Kind) -> Vec<FlatKey> {
    let targets = [TargetKey::Table, TargetKey::Index, TargetKey::Topic].map(TargetKey::name);
    let mut found = Vec::new();
    for &declared in CONNECTOR.keys {
        let name = declared.name();
        if let Some((table, keys)) = TABLES.iter().find(|(table, _)| *table == name) {
            found.extend(keys.iter().map(|&declared| {
                let name = format!("{table}.{}", declared.name());
                FlatKey { name, declared }
            }));
            continue;
        }
        let others = targets.contains(&name) && name != kind.target.name();
        if others || (IN_JSON.contains(&name) && kind.target != TargetKey::Index) {
            continue;
        }
        let name = match name {
            name if name == kind.target.name() => TARGET,
            name if name == TASKS_MAX.1 => TASKS_MAX.0,
            name => name,
        };
        found.push(FlatKey { name: name.to_owned(), declared });
    }
    found
}

/// What would be wrong with the config at `path` if the connector `name` were this one: messages by key, those that
/// belong to none under an empty one.
///
/// # Errors
/// Where the files themselves cannot be read.
pub(crate) fn check(
    (path, env): (&Path, &Env),
    kind: Kind,
    name: &str,
    flat: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, Vec<Diagnostic>> {
    let table = table(kind, flat);
    let own = foldline_language::config::diagnostic::join("connectors", name);
    let problems = check_with(path, env, (name, table))?;
    let of = |problem: Diagnostic| {
        let key =
            problem.path.strip_prefix(&own)?.trim_start_matches('.').trim_matches('"').to_owned();
        let key = match key.as_str() {
            key if key == kind.target.name() => TARGET.to_owned(),
            key if key == TASKS_MAX.1 => TASKS_MAX.0.to_owned(),
            _ => key,
        };
        let help = problem.help.map(|help| format!("; {help}")).unwrap_or_default();
        Some((key, format!("{}{help}", problem.message)))
    };
    Ok(problems.into_iter().filter_map(of).collect())
}

/// The map as the table that a file would hold.
fn table(kind: Kind, flat: &BTreeMap<String, String>) -> Node {
    let mut table = Table::new();
    for (key, value) in flat {
        let path = match key.as_str() {
            TARGET => kind.target.name(),
            key if key == TASKS_MAX.0 => TASKS_MAX.1,
            key => key,
        };
        match path.split_once('.') {
            Some((outer, inner)) if TABLES.iter().any(|(table, _)| *table == outer) => {
                let entry = table.entry(outer.to_owned());
                let entry = entry.or_insert_with(|| node(Item::Table(Table::new())));
                if let Item::Table(below) = &mut entry.item {
                    below.insert(inner.to_owned(), text(value));
                }
            }
            _ => {
                let given = IN_JSON.contains(&path).then(|| serde_json::from_str(value).ok());
                let given: Option<Value> = given.flatten();
                let given = given.as_ref().and_then(|value| toml::Value::try_from(value).ok());
                table.insert(path.to_owned(), given.map_or_else(|| text(value), |v| of(&v)));
            }
        }
    }
    node(Item::Table(table))
}

fn at() -> At {
    At { file: Arc::from("the request"), line: None }
}

fn node(item: Item) -> Node {
    Node { at: at(), item, soft: false, missing: false }
}

/// A text that is read by the type that is wanted.
fn text(value: &str) -> Node {
    let item = Item::Scalar(toml::Value::String(value.to_owned()));
    Node { at: at(), item, soft: true, missing: false }
}

fn of(value: &toml::Value) -> Node {
    node(match value {
        toml::Value::Array(values) => Item::List(values.iter().map(of).collect()),
        toml::Value::Table(table) => {
            Item::Table(table.iter().map(|(key, value)| (key.clone(), of(value))).collect())
        }
        scalar => Item::Scalar(scalar.clone()),
    })
}
