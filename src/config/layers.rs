//! Lays the environment over the files, with the `config` crate.
//!
//! The crate's own TOML reader turns dates into texts and forgets lines, so the files enter it as
//! a layer made from the parsed tree, and each value that no variable replaced is taken from that
//! tree again.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::config::env::Env;
use foldline_language::config::tree::{At, Item, Node, Table};

use ::config::{Config, ConfigError, Environment, Map, Source, Value, ValueKind};

const PREFIX: &str = "FOLDLINE";
const SEPARATOR: &str = "__";
/// Both layers hang below one key, since the crate reads dots in top-level keys as paths.
const ROOT: &str = "root";

/// The files' tree with what `FOLDLINE__A__B` variables replace or add.
///
/// # Errors
/// Where the crate cannot read the environment.
pub(super) fn overlay(files: Table, env: &Env) -> Result<Table, Vec<Diagnostic>> {
    let broken = |error: ConfigError| {
        vec![Diagnostic::new("the environment", "", format!("cannot be read: {error}"))]
    };
    let overrides = EnvLayer::collect_from(&files, env).map_err(broken)?;
    let merged = Config::builder()
        .add_source(FileLayer::of(&files))
        .add_source(overrides)
        .build()
        .map_err(broken)?;
    let root = merged.cache.into_table().ok().and_then(|mut table| table.shift_remove(ROOT));
    match root.map(|value| value.kind) {
        Some(ValueKind::Table(table)) => Ok(rebuild_table(table, Some(&files))),
        _ => Ok(files),
    }
}

#[derive(Clone, Debug)]
struct FileLayer(Map<String, Value>);

impl FileLayer {
    fn of(files: &Table) -> Self {
        Self(Map::from([(ROOT.to_owned(), Value::new(None, layer_table(files)))]))
    }
}

impl Source for FileLayer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

fn layer_table(table: &Table) -> ValueKind {
    ValueKind::Table(table.iter().map(|(key, node)| (key.clone(), layer_value(node))).collect())
}

fn layer_value(node: &Node) -> Value {
    let kind = match &node.item {
        Item::Table(table) => layer_table(table),
        Item::List(nodes) => ValueKind::Array(nodes.iter().map(layer_value).collect()),
        Item::Scalar(toml::Value::Integer(number)) => ValueKind::I64(*number),
        Item::Scalar(toml::Value::Float(number)) => ValueKind::Float(*number),
        Item::Scalar(toml::Value::Boolean(value)) => ValueKind::Boolean(*value),
        Item::Scalar(toml::Value::String(text)) => ValueKind::String(text.clone()),
        Item::Scalar(other) => ValueKind::String(other.to_string()),
    };
    Value::new(Some(&node.at.file.to_string()), kind)
}

/// The environment with its names spelt as the files spell them.
#[derive(Clone, Debug)]
struct EnvLayer(Map<String, Value>);

impl EnvLayer {
    fn collect_from(files: &Table, env: &Env) -> Result<Self, ConfigError> {
        let variables = env.variables().map(|(name, value)| (name.clone(), value.clone()));
        let found = Environment::with_prefix(PREFIX)
            .separator(SEPARATOR)
            .source(Some(variables.collect()))
            .collect()?;
        let mut root = Map::new();
        // Sorted, so that a variable for a table comes before one for a key inside it.
        for (path, value) in found.into_iter().collect::<BTreeMap<_, _>>() {
            let variable = format!("{PREFIX}{SEPARATOR}{}", path.replace('.', SEPARATOR));
            let origin = format!("${}", variable.to_uppercase());
            let keys: Vec<&str> = path.split('.').collect();
            insert(&mut root, Some(files), &keys, Value::new(Some(&origin), value.kind));
        }
        Ok(Self(Map::from([(ROOT.to_owned(), Value::new(None, ValueKind::Table(root)))])))
    }
}

impl Source for EnvLayer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

fn insert(into: &mut Map<String, Value>, files: Option<&Table>, keys: &[&str], value: Value) {
    let Some((key, rest)) = keys.split_first() else { return };
    let name = spelling(files, key);
    if rest.is_empty() {
        into.insert(name, value);
        return;
    }
    let below = files.and_then(|table| match &table.get(&name)?.item {
        Item::Table(table) => Some(table),
        Item::Scalar(_) | Item::List(_) => None,
    });
    let entry = into.entry(name).or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
    if !matches!(entry.kind, ValueKind::Table(_)) {
        entry.kind = ValueKind::Table(Map::new());
    }
    if let ValueKind::Table(table) = &mut entry.kind {
        insert(table, below, rest, value);
    }
}

/// A variable writes `-` and `.` as `_`, and knows no case.
fn spelling(files: Option<&Table>, key: &str) -> String {
    let plain = |name: &str| name.to_lowercase().replace(['-', '.'], "_");
    let exact = files.and_then(|table| table.get_key_value(key));
    let near = || files.and_then(|table| table.iter().find(|(name, _)| plain(name) == key));
    exact.or_else(near).map_or_else(|| key.to_owned(), |(name, _)| name.clone())
}

fn rebuild_table(merged: Map<String, Value>, files: Option<&Table>) -> Table {
    merged
        .into_iter()
        .map(|(key, value)| {
            let node = rebuild(value, files.and_then(|table| table.get(&key)));
            (key, node)
        })
        .collect()
}

fn rebuild(merged: Value, original: Option<&Node>) -> Node {
    let origin = merged.origin().filter(|origin| origin.starts_with('$')).map(str::to_owned);
    match (merged.kind, original) {
        (ValueKind::Table(table), original) => {
            let below = original.and_then(|node| match &node.item {
                Item::Table(table) => Some(table),
                Item::Scalar(_) | Item::List(_) => None,
            });
            let table = rebuild_table(table, below);
            let first = table.values().next().map(|node| node.at.clone());
            let at = original.map(|node| node.at.clone()).or(first);
            let at = at.unwrap_or_else(|| At { file: Arc::from("the environment"), line: None });
            Node { at, item: Item::Table(table), soft: false, missing: false }
        }
        (_, Some(node)) if origin.is_none() => node.clone(),
        (kind, _) => {
            let file = Arc::from(origin.as_deref().unwrap_or("the environment"));
            let text = Value::new(None, kind).into_string().unwrap_or_default();
            let item = Item::Scalar(toml::Value::String(text));
            Node { at: At { file, line: None }, item, soft: true, missing: false }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldline_language::config::tree::parse;

    fn overlaid(text: &str, env: &[(&str, &str)]) -> toml::Value {
        let files = parse(&Arc::from("a.toml"), text).unwrap();
        let table = overlay(files, &Env::new(env.iter().copied())).unwrap();
        let at = At { file: Arc::from("a.toml"), line: None };
        Node { at, item: Item::Table(table), soft: false, missing: false }.to_value()
    }

    #[test]
    fn without_variables_the_files_stay_as_they_are() {
        let text = "b = 2026-01-01T00:00:00Z\na = 1\n\"x.y\" = [{ z = 1.5 }]\n[t.\"a.b\"]\n[t.c]\n";
        assert_eq!(overlaid(text, &[]), toml::from_str::<toml::Value>(text).unwrap());
    }

    #[test]
    fn variables_replace_and_add() {
        let text = "[sinks.ware-house]\nurl = { env = 'X' }\nca = 'a'\n[sources.s.properties]\n'security.protocol' = 'ssl'\n";
        let env = [
            ("FOLDLINE__SINKS__WARE_HOUSE__URL", "postgres://x"),
            ("FOLDLINE__SOURCES__S__PROPERTIES__SECURITY_PROTOCOL", "plaintext"),
            ("FOLDLINE__WORKER__NAME", "w"),
            ("FOLDLINE_CONFIG", "/etc/foldline"),
        ];
        let value = overlaid(text, &env);
        assert_eq!(value["sinks"]["ware-house"]["url"].as_str(), Some("postgres://x"));
        assert_eq!(value["sinks"]["ware-house"]["ca"].as_str(), Some("a"));
        assert_eq!(
            value["sources"]["s"]["properties"]["security.protocol"].as_str(),
            Some("plaintext")
        );
        assert_eq!(value["worker"]["name"].as_str(), Some("w"));
        assert_eq!(value.as_table().unwrap().len(), 3);
    }
}
