//! What is said of registries that are topics, over the whole config.

use foldline_language::config::diagnostic::{Diagnostic, join};
use foldline_language::converter::Framing;

use super::load::Config;
use super::registry::RegistryKind;
use super::source::{ConverterKind, SourceConfig};

impl Config {
    /// The source of that name; the only one, where none is named.
    pub(crate) fn source_of(&self, name: Option<&str>) -> Option<&SourceConfig> {
        match name {
            Some(name) => self.sources.get(name),
            None if self.sources.len() == 1 => self.sources.values().next(),
            None => None,
        }
    }
}

/// What a registry is asked for must be what it knows.
pub(super) fn check(config: &Config, problems: &mut Vec<Diagnostic>) {
    for source in config.sources.values() {
        let path = join("sources", &source.name);
        let mut converters =
            vec![(join(&path, "key"), &source.key), (join(&path, "value"), &source.value)];
        for topic in source.topics.values() {
            let path = join(&join(&path, "topics"), &topic.name);
            let own = [("key", &topic.key), ("value", &topic.value)];
            converters
                .extend(own.into_iter().filter_map(|(name, kind)| {
                    kind.as_ref().map(|kind| (join(&path, name), kind))
                }));
        }
        for (path, converter) in converters {
            if let Some(problem) = problem(config, converter) {
                problems.push(config.places.problem(&path, problem));
            }
        }
    }
}

fn problem(config: &Config, converter: &ConverterKind) -> Option<String> {
    let kind = &config.registries.get(converter.registry()?)?.kind;
    match (kind, converter) {
        (RegistryKind::Topic { .. }, ConverterKind::Protobuf { registry, .. }) => {
            Some(format!("the registry `{registry}` is a topic, which has schemas of Avro only"))
        }
        (RegistryKind::Topic { .. }, ConverterKind::Avro { registry, framing })
            if !matches!(framing, Framing::Auto | Framing::SingleObject) =>
        {
            Some(format!(
                "the registry `{registry}` is a topic: what is read by it is single-object encoded, leave out `framing`"
            ))
        }
        (
            RegistryKind::Confluent { .. },
            ConverterKind::Avro { registry, framing: Framing::SingleObject }
            | ConverterKind::Protobuf { registry, framing: Framing::SingleObject },
        ) => Some(format!(
            "the registry `{registry}` knows no fingerprints: a registry of type `topic` does"
        )),
        _ => None,
    }
}
