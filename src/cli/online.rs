//! `foldline validate --online`: all that a config names, asked where it is. Nothing is changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::source::Log;
use foldline_language::config::diagnostic::Diagnostic;
use futures_util::future::join_all;

use super::offline::Projections;
use crate::config::{Config, ConnectorConfig, SinkConfig, SourceConfig};
use crate::connector_spec::ConnectorSpec;
use crate::metrics::Metrics;
use crate::registry::{self, Registries};

/// So long each question may take. librdkafka gives a cluster ten seconds.
const ANSWER: Duration = Duration::from_secs(20);

/// Asks the source, the registries and the store of each connector, all beside each other; what stands against its start.
pub(super) async fn check(config: &Config, projections: &Projections) -> Vec<Diagnostic> {
    let metrics = match Metrics::new() {
        Ok(metrics) => metrics,
        Err(error) => return vec![Diagnostic::new("foldline", "metrics", error.to_string())],
    };
    let registries = Registries::default();
    let each = config.connectors.values().map(async |connector| {
        let Some(projection) = projections.get(&connector.projection) else { return Vec::new() };
        match registry::connector(config, connector, projection, &metrics, &registries) {
            Ok(spec) => Online { config, connector, spec }.check(&registries).await,
            Err(error) => vec![problem(config, &format!("connectors.{}", connector.name), &error)],
        }
    });
    let mut told = BTreeSet::new();
    let mut found: Vec<Diagnostic> = join_all(each).await.into_iter().flatten().collect();
    // Connectors share sources and sinks.
    found.retain(|problem| told.insert((problem.path.clone(), problem.message.clone())));
    found
}

fn problem(config: &Config, path: &str, error: &Error) -> Diagnostic {
    config.places.problem(path, error.to_string())
}

/// Waits for an answer, but not for ever.
async fn ask<T>(question: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::retriable(format!("no answer within {} s", ANSWER.as_secs()));
    tokio::time::timeout(ANSWER, question).await.unwrap_or_else(|_| Err(late()))
}

/// One connector of a config.
struct Online<'a> {
    config: &'a Config,
    connector: &'a ConnectorConfig,
    spec: ConnectorSpec,
}

impl Online<'_> {
    async fn check(&self, registries: &Registries) -> Vec<Diagnostic> {
        let (log, schemas) = tokio::join!(self.source(), self.registries(registries));
        let (identity, mut found) = log;
        found.extend(self.sink(identity).await);
        found.extend(schemas);
        found
    }

    /// The log's identity where it is reached, and what is wrong with it.
    async fn source(&self) -> (Option<String>, Vec<Diagnostic>) {
        let log: &Arc<dyn Log> = &self.spec.log;
        let identity = match ask(log.identity()).await {
            Ok(identity) => identity,
            Err(error) => {
                let path = format!("sources.{}", self.connector.source);
                return (None, vec![problem(self.config, &path, &error)]);
            }
        };
        let (topics, group) = tokio::join!(ask(log.partitions()), ask(log.committed()));
        let path = format!("projections.{}.topics", self.connector.projection);
        let topics = match topics {
            Err(error) if error.class() == ErrorClass::Config && log.describes_topics() => Some(
                problem(self.config, &path, &error)
                    .warning()
                    .help("the source describes topics: a described one that is missing is made at the start"),
            ),
            Err(error) => Some(problem(self.config, &path, &error)),
            Ok(partitions) if partitions.is_empty() => Some(
                self.config
                    .places
                    .problem(&path, format!("no topic matches {}", self.spec.topics))
                    .warning()
                    .help("check the spelling, or make one: it is seen within a minute"),
            ),
            Ok(_) => None,
        };
        let path = format!("connectors.{}.group", self.connector.name);
        let group = group.err().map(|error| problem(self.config, &path, &error));
        (Some(identity), topics.into_iter().chain(group).collect())
    }

    /// What stands against opening the target, and writing to it.
    async fn sink(&self, log: Option<String>) -> Option<Diagnostic> {
        let reached = log.is_some();
        let checked = async { (self.spec.target)(log.unwrap_or_default())?.check().await };
        let error = ask(checked).await.err()?;
        // Where the log is unknown, what the books say of it tells nothing.
        let of_store = error.class() != ErrorClass::Config;
        let path = match of_store {
            true => format!("sinks.{}", self.connector.sink),
            false => format!("connectors.{}", self.connector.name),
        };
        (reached || of_store).then(|| problem(self.config, &path, &error))
    }

    async fn registries(&self, registries: &Registries) -> Vec<Diagnostic> {
        let source = self.config.sources.get(&self.connector.source);
        let sink = self.config.sinks.get(&self.connector.sink);
        let of_source = source.into_iter().flat_map(SourceConfig::registries);
        let of_sink = sink.into_iter().flat_map(SinkConfig::registries);
        let names: BTreeSet<&str> = of_source.chain(of_sink).collect();
        let each = names.into_iter().map(async |name| {
            let reached = async { registries.of(self.config, name)?.reach().await };
            let error = ask(reached).await.err()?;
            Some(problem(self.config, &format!("registries.{name}"), &error))
        });
        join_all(each).await.into_iter().flatten().collect()
    }
}
