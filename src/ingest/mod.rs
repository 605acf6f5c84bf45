//! Ingest: records that someone posts are checked, written to Kafka, and each is told what became of it. REST and
//! `foldline produce` stand on it.

mod body;
mod ends;
mod rules;
#[cfg(feature = "kafka")]
mod schema;
#[cfg(not(feature = "kafka"))]
#[path = "without_schema.rs"]
mod schema;

use std::sync::Arc;

use foldline_api::producer::{NewRecord, Producer};
use foldline_language::config::diagnostic::{Diagnostic, join};
use indexmap::IndexMap;
use tokio::sync::Semaphore;

pub(crate) use self::body::{BODY_MAX, Wrong, records, wrong};
pub(crate) use self::ends::{End, Ends};
pub(crate) use self::rules::Rules;
use crate::config::{Config, SourceConfig, SourceKind};
use crate::metrics::{IngestMetrics, Metrics};
use crate::registry;

/// What all bodies under way may take together, in KiB.
const ROOM: usize = 64 << 10;

/// The topics that take records.
pub(crate) struct Ingest {
    topics: IndexMap<String, Open>,
    /// KiB that bodies under way have left.
    room: Arc<Semaphore>,
}

/// One topic that takes records.
pub(crate) struct Open {
    topic: String,
    /// What its records must fit.
    pub(crate) rules: Rules,
    producer: Arc<dyn Producer>,
    metrics: IngestMetrics,
}

impl Open {
    /// Writes the records, and tells what became of each, in their order.
    pub(crate) async fn write(&self, records: &[NewRecord]) -> Ends {
        let ends = Ends::of(self.producer.send_each(&self.topic, records).await);
        self.metrics.count(ends.iter().map(End::failure));
        ends
    }
}

impl Ingest {
    /// The topics that the config opens. No server is asked.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Result<Self, Vec<Diagnostic>> {
        let (mut topics, mut problems) = (IndexMap::new(), problems(config));
        for source in config.sources.values() {
            let open: Vec<&str> = names(source).collect();
            let Some(first) = open.first() else { continue };
            let producer = match registry::producer(source) {
                Ok(producer) => producer,
                Err(error) => {
                    problems.push(config.places.problem(&path(source, first), error.message()));
                    continue;
                }
            };
            for topic in open {
                // What is wrong with its rules is among the problems.
                let Ok(rules) = Rules::of(source, topic) else { continue };
                let open = Open {
                    topic: topic.to_owned(),
                    rules,
                    producer: Arc::clone(&producer),
                    metrics: metrics.ingest(topic),
                };
                topics.insert(topic.to_owned(), open);
            }
        }
        let room = Arc::new(Semaphore::new(ROOM));
        if problems.is_empty() { Ok(Ingest { topics, room }) } else { Err(problems) }
    }

    /// A topic that takes records.
    pub(crate) fn topic(&self, name: &str) -> Option<&Open> {
        self.topics.get(name)
    }

    /// All topics that take records.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    /// Room for a body of so many bytes, until the permit is dropped; none while there is not so much.
    pub(crate) fn room(&self, bytes: usize) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(kib).ok()
    }
}

fn names(source: &SourceConfig) -> impl Iterator<Item = &str> {
    source.topics.values().filter(|topic| topic.ingest.is_some()).map(|topic| topic.name.as_str())
}

fn path(source: &SourceConfig, topic: &str) -> String {
    format!("{}.ingest", join(&format!("{}.topics", join("sources", &source.name)), topic))
}

/// What is wrong with the topics that the config opens, without asking any server.
pub(crate) fn problems(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut opened: IndexMap<&str, &str> = IndexMap::new();
    for source in config.sources.values() {
        for topic in names(source) {
            let path = path(source, topic);
            let mut tell = |message: String| found.push(config.places.problem(&path, message));
            if !matches!(source.kind, SourceKind::Kafka { .. }) {
                tell(
                    "records are posted to Kafka: `foldline produce` appends to a log in files"
                        .to_owned(),
                );
                continue;
            }
            if let Some(other) = opened.insert(topic, &source.name) {
                tell(format!(
                    "POST /topics/{topic} is opened by the source `{other}` already: a path leads to one topic"
                ));
            }
            if let Err(error) = Rules::of(source, topic) {
                tell(error.message().to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
