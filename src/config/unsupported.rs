//! What the config can say and this version cannot do yet.

use foldline_api::Error;
use foldline_language::config::diagnostic::{Diagnostic, join};

use super::connector::{ConnectorConfig, Start};
use super::load::Config;
use super::registry::RegistryKind;
use super::sink::Store;
use super::source::{ConverterKind, SourceKind, TopicConfig};

/// What the config asks for and this version cannot do yet: errors where a fold would be wrong
/// without it, warnings where it is merely left out.
pub fn unsupported(config: &Config) -> Vec<Diagnostic> {
    let mut list = List { config, found: Vec::new() };
    for registry in config.registries.values() {
        let path = join("registries", &registry.name);
        match registry.kind {
            RegistryKind::Confluent { .. } if cfg!(feature = "registry") => {}
            RegistryKind::Confluent { .. } => list.lacks(&format!("{path}.type"), "registry"),
            RegistryKind::Topic { .. } => {}
        }
    }
    for source in config.sources.values() {
        let path = join("sources", &source.name);
        if matches!(source.kind, SourceKind::Kafka { .. }) && !cfg!(feature = "kafka") {
            list.lacks(&format!("{path}.type"), "kafka");
        }
        list.converter(&format!("{path}.key"), Some(&source.key));
        list.converter(&format!("{path}.value"), Some(&source.value));
        for topic in source.topics.values() {
            let path = join(&format!("{path}.topics"), &topic.name);
            list.topic(&path, topic);
            if topic.is_described() && !matches!(source.kind, SourceKind::Kafka { .. }) {
                list.warn(&path, "topics are made in Kafka only: these words say nothing here");
            }
        }
    }
    for sink in config.sinks.values() {
        let path = format!("{}.type", join("sinks", &sink.name));
        match sink.store {
            Store::Built { .. } => {}
            Store::Kafka(_) if !cfg!(feature = "kafka") => list.lacks(&path, "kafka"),
            Store::Kafka(ref kafka) => {
                for (key, what) in kafka.unsupported() {
                    list.error(&format!("{}.{key}", join("sinks", &sink.name)), what);
                }
            }
            Store::Lacking(kind) => list.lacks(&path, kind),
        }
    }
    for connector in config.connectors.values() {
        if let Start::StateOf(_) = connector.start {
            let path = format!("{}.start", join("connectors", &connector.name));
            list.error(&path, "`start = { state_of }` is");
        }
        list.looks_up(connector);
    }
    list.found
}

/// What one reads who asks for a connector that this build was made without.
pub(crate) fn lacks(feature: &str) -> Error {
    Error::config(format!(
        "this build lacks {feature:?}: build with `--features {feature}`, or without `--no-default-features`"
    ))
}

struct List<'a> {
    config: &'a Config,
    found: Vec<Diagnostic>,
}

impl List<'_> {
    fn error(&mut self, path: &str, what: &str) {
        let message = format!("{what} not available yet");
        self.found.push(self.config.places.problem(path, message));
    }

    fn lacks(&mut self, path: &str, feature: &str) {
        let problem = self.config.places.problem(path, lacks(feature).message());
        self.found.push(problem);
    }

    fn warn(&mut self, path: &str, message: &str) {
        self.found.push(self.config.places.problem(path, message).warning());
    }

    fn converter(&mut self, path: &str, converter: Option<&ConverterKind>) {
        let Some(converter) = converter else { return };
        if matches!(converter, ConverterKind::Protobuf { .. }) && !cfg!(feature = "protobuf") {
            self.lacks(path, "protobuf");
        }
    }

    fn topic(&mut self, path: &str, topic: &TopicConfig) {
        self.converter(&format!("{path}.key"), topic.key.as_ref());
        self.converter(&format!("{path}.value"), topic.value.as_ref());
    }

    /// Not every store shows fields of other rows yet.
    fn looks_up(&mut self, connector: &ConnectorConfig) {
        let Some(projection) = self.config.projections.get(&connector.projection) else { return };
        let mut fields = projection.fields.values();
        let Some(sink) = self.config.sinks.get(&connector.sink) else { return };
        let Ok(kind) = sink.store.sink() else { return };
        let path = format!("{}.sink", join("connectors", &connector.name));
        if kind.looks_up() || !fields.any(|field| field.value.lookup.is_some()) {
            return;
        }
        let message = format!(
            "`{}` looks up other rows: that is not available yet in sinks of type `{}`, and it is in `postgres`, `elasticsearch` and `sqlite`",
            projection.name,
            sink.store.name()
        );
        self.found.push(self.config.places.problem(&path, message));
    }
}
