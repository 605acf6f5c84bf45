//! What `merge` and `patch` cannot know of a Protobuf field without presence: whether it was set.

use std::sync::Arc;

use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::config::projection::{
    Assignments, HandlerConfig, Located, Names, Operand, ProjectionConfig,
};
use indexmap::IndexMap;

use super::load::Config;
use super::protobuf::ProtobufFile;
use super::source::{ConverterKind, SourceConfig};

/// A warning for each assignment of `merge` or `patch` that reads a field whose default is written where the field was not
/// set, of the topics whose schema the config has.
#[must_use]
pub fn presence(config: &Config) -> Vec<Diagnostic> {
    let mut found: IndexMap<String, Diagnostic> = IndexMap::new();
    for connector in config.connectors.values() {
        let projection = config.projections.get(&connector.projection);
        let source = config.sources.get(&connector.source);
        let Some((projection, source)) = projection.zip(source) else { continue };
        // Behind an envelope stands another message than the record's.
        if projection.envelope.is_some() {
            continue;
        }
        for file in files(&projection.topics, source) {
            for handler in &projection.on {
                for (verb, read) in reads(&handler.value, projection) {
                    let Some(message) = file.hides_unset(&read.value) else { continue };
                    let path = read.value.join(".");
                    let told = format!(
                        "`{verb}` writes event.{path} where it was not set, too: in {message} the field has no presence, so it is then its type's default"
                    );
                    let problem = config.places.problem(&read.path, told).warning();
                    let help = "declare the field `optional` in the schema, or write it by `set`";
                    found.entry(read.path).or_insert(problem.help(help));
                }
            }
        }
    }
    found.into_values().collect()
}

/// The schemas of the topics that a projection may read.
fn files<'a>(topics: &Names, source: &'a SourceConfig) -> Vec<&'a ProtobufFile> {
    let kinds: Vec<&ConverterKind> = match topics {
        Names::List(topics) => topics.iter().map(|topic| source.converters(topic).1).collect(),
        Names::Regex(_) => {
            let own = source.topics.values().filter_map(|topic| topic.value.as_ref());
            own.chain([&source.value]).collect()
        }
    };
    let file = |kind: &&'a ConverterKind| match kind {
        ConverterKind::ProtobufFile(file) => Some(file),
        _ => None,
    };
    kinds.iter().filter_map(file).collect()
}

type Path = Vec<Arc<str>>;

/// The paths below `event` that are written as they are, and where that stands.
fn reads(
    handler: &HandlerConfig,
    projection: &ProjectionConfig,
) -> Vec<(&'static str, Located<Path>)> {
    let mut found = Vec::new();
    for (verb, assignments) in [("merge", &handler.merge), ("patch", &handler.patch)] {
        match assignments {
            None => {}
            Some(Assignments::Fields(fields)) => {
                let own = fields.values().filter_map(|operand| Some((operand, path(operand)?)));
                found.extend(
                    own.map(|(operand, value)| {
                        (verb, Located { path: operand.path.clone(), value })
                    }),
                );
            }
            // Each field by its own name.
            Some(Assignments::All(operand)) => {
                let Some(base) = path(operand) else { continue };
                found.extend(projection.fields.keys().map(|name| {
                    let value = base.iter().cloned().chain([Arc::from(name.as_str())]).collect();
                    (verb, Located { path: operand.path.clone(), value })
                }));
            }
        }
    }
    found
}

/// A path below `event`, where the operand is nothing else.
fn path(operand: &Located<Operand>) -> Option<Path> {
    let Operand::Expression(text) = &operand.value else { return None };
    let mut parts = text.trim().split('.');
    if parts.next() != Some("event") {
        return None;
    }
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
    parts.map(|part| plain(part).then(|| Arc::from(part))).collect()
}

#[cfg(all(test, feature = "protobuf"))]
mod tests {
    use foldline_language::config::env::Env;

    use super::*;
    use crate::config::load;

    const SCHEMA: &str = r#"syntax = "proto3"; package shop;
        message Order { int64 id = 1; string note = 2; optional string name = 3; Order parent = 4; repeated string tags = 5; }"#;

    fn config(handler: &str) -> String {
        format!(
            r#"[sources.events]
type = "file"
path = "log"
value = {{ type = "protobuf", schema = "order.proto" }}
[projections.orders]
topics = ["orders"]
key = {{ id = "event.id" }}
fields = {{ id = "bigint", note = "text", name = "text" }}
on = [{{ {handler} }}]
[sinks.file]
type = "sqlite"
path = "rows.db"
[connectors.orders]
projection = "orders"
sink = "file"
"#
        )
    }

    #[test]
    fn an_assignment_that_writes_what_was_not_set_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(directory.path().join("order.proto"), SCHEMA).unwrap();
        let told = |handler: &str| -> Vec<String> {
            std::fs::write(&file, config(handler)).unwrap();
            let found = presence(&load(&file, &Env::default()).unwrap());
            found.iter().map(|problem| problem.message.clone()).collect()
        };
        for handler in [
            r#"merge = { note = "event.note" }"#,
            r#"patch = { note = "event.note", name = "event.name" }"#,
            r#"patch = { name = "event.parent.note" }"#,
            r#"patch = "event""#,
        ] {
            let told = told(handler);
            assert!(told.len() == 1 && told[0].contains("has no presence"), "{handler}: {told:?}");
        }
        for handler in [
            r#"set = { note = "event.note" }"#,
            r#"merge = { name = "event.name", note = "event.parent.name" }"#,
            r#"patch = { note = "'x'" }"#,
        ] {
            assert_eq!(told(handler), Vec::<String>::new(), "{handler}");
        }
    }
}
