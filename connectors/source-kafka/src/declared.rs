//! Topics that the config describes: made where they are missing, compared where they are there.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use foldline_api::error::{Error, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::metadata::MetadataTopic;
use regex::Regex;

use crate::config::KafkaConfig;
use crate::context::Member;
use crate::error::{from_code, from_kafka};

const ASK: Duration = Duration::from_secs(10);
/// A topic that was made shows in the metadata soon after.
const SHOWS: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// A topic as the config describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredTopic {
    /// Its name. A regex that starts with `^` describes topics that are there, and makes none.
    pub name: String,
    /// How many partitions; the broker's default where nothing is said.
    pub partitions: Option<i32>,
    /// How many replicas of each; the broker's default where nothing is said.
    pub replication_factor: Option<i32>,
    /// Its own properties, as `kafka-topics.sh --config` takes them.
    pub config: Vec<(String, String)>,
}

/// A topic that is there, and how it is described.
pub(crate) struct Present {
    declared: DeclaredTopic,
    name: String,
    partitions: usize,
    replicas: usize,
}

impl Present {
    fn of(declared: &DeclaredTopic, topic: &MetadataTopic) -> Self {
        let replicas = topic.partitions().iter().map(|partition| partition.replicas().len());
        Present {
            declared: declared.clone(),
            name: topic.name().to_owned(),
            partitions: topic.partitions().len(),
            replicas: replicas.max().unwrap_or(0),
        }
    }

    /// What is there and what the config says, where they differ; `stands` tells a property's value.
    fn differences(&self, stands: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let line = |what: &str, found: &dyn Display, wanted: &dyn Display| {
            let name = &self.name;
            format!(
                "topic `{name}` has {what} {found}, and the config says {wanted}: it stays as it is; change the one or the other"
            )
        };
        let mut out = Vec::new();
        let as_count = |wanted: i32| usize::try_from(wanted).unwrap_or_default();
        let DeclaredTopic { partitions, replication_factor, config, .. } = &self.declared;
        if let Some(wanted) = partitions.filter(|n| as_count(*n) != self.partitions) {
            out.push(line("partitions", &self.partitions, &wanted));
        }
        if let Some(wanted) = replication_factor.filter(|n| as_count(*n) != self.replicas) {
            out.push(line("replication factor", &self.replicas, &wanted));
        }
        for (property, wanted) in config {
            match stands(property) {
                Some(found) if same(&found, wanted) => {}
                Some(found) => {
                    let what = format!("`{property}`");
                    out.push(line(&what, &format!("{found:?}"), &format!("{wanted:?}")));
                }
                None => out.push(format!(
                    "topic `{}` has no property `{property}`, which the config sets",
                    self.name
                )),
            }
        }
        out
    }
}

/// Whether two values of a property are the same; lists (`compact,delete`) in any order.
fn same(found: &str, wanted: &str) -> bool {
    let items = |text: &str| {
        let mut items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
        items.sort_unstable();
        items
    };
    items(found) == items(wanted)
}

/// What `take` takes of a topic's metadata; none where there is no such topic. `what` is asked for.
pub(crate) fn find<T>(
    client: &Member,
    name: &str,
    what: &str,
    take: impl Fn(&MetadataTopic) -> T,
) -> Result<Option<T>> {
    let answer = client.fetch_metadata(Some(name), ASK);
    let answer = answer.map_err(|error| from_kafka(what, &error))?;
    let found = answer.topics().iter().find(|topic| topic.name() == name);
    match found.map(|topic| (topic, topic.error().map(Code::from))) {
        None | Some((_, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic))) => Ok(None),
        Some((_, Some(code))) => Err(from_code(what, code)),
        Some((topic, None)) => Ok(Some(take(topic))),
    }
}

/// Which of the described topics are there, and which are missing.
pub(crate) fn look(
    client: &Member,
    declared: &[DeclaredTopic],
) -> Result<(Vec<Present>, Vec<DeclaredTopic>)> {
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for one in declared {
        if one.name.starts_with('^') {
            let regex = Regex::new(&one.name);
            let regex = regex.map_err(|e| Error::config(format!("topic {:?}: {e}", one.name)))?;
            let all = client.fetch_metadata(None, ASK);
            let all = all.map_err(|error| from_kafka("listing the topics", &error))?;
            let fits = |topic: &&MetadataTopic| {
                !topic.name().starts_with("__") && regex.is_match(topic.name())
            };
            there.extend(all.topics().iter().filter(fits).map(|topic| Present::of(one, topic)));
            continue;
        }
        match find(client, &one.name, &format!("asking for topic `{}`", one.name), |topic| {
            Present::of(one, topic)
        })? {
            Some(present) => there.push(present),
            None => missing.push(one.clone()),
        }
    }
    Ok((there, missing))
}

/// Whether all these topics show, each partition with a leader.
pub(crate) fn all_show(client: &Member, names: &[String]) -> Result<bool> {
    for name in names {
        let answer = client.fetch_metadata(Some(name), ASK);
        let answer = answer.map_err(|e| from_kafka(format!("asking for topic `{name}`"), &e))?;
        let shows = answer.topics().iter().any(|topic| {
            topic.name() == name
                && topic.error().is_none()
                && !topic.partitions().is_empty()
                && topic.partitions().iter().all(|partition| partition.leader() >= 0)
        });
        if !shows {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes `missing`, but none of `held`, whose records were folded: what was lost with a topic does not come back with an empty
/// one. The names of those that it made, or that another worker made meanwhile.
pub(crate) async fn make(
    config: &KafkaConfig,
    missing: &[DeclaredTopic],
    held: &[Arc<str>],
) -> Result<Vec<String>> {
    let mut made = Vec::new();
    for one in missing.iter().filter(|one| !held.iter().any(|name| **name == *one.name)) {
        let what = format!("creating topic `{}`", one.name);
        let replicas = TopicReplication::Fixed(one.replication_factor.unwrap_or(-1));
        let mut new = NewTopic::new(&one.name, one.partitions.unwrap_or(-1), replicas);
        for (property, value) in &one.config {
            new = new.set(property, value);
        }
        if create(config, &new, &what).await? {
            tracing::info!(topic = one.name, "created the topic");
        }
        made.push(one.name.clone());
    }
    Ok(made)
}

/// Creates a topic; false where another worker was faster. `what` is done.
pub(crate) async fn create(config: &KafkaConfig, new: &NewTopic<'_>, what: &str) -> Result<bool> {
    let admin = admin(config).map_err(|error| from_kafka(what, &error))?;
    let created = admin.create_topics([new], &options()).await;
    let created = created.map_err(|error| from_kafka(what, &error))?;
    match created.into_iter().next() {
        Some(Err((_, Code::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => Err(from_code(what, code)),
        Some(Ok(_)) | None => Ok(true),
    }
}

/// Deletes the config's group with its offsets; false where there is none.
///
/// # Errors
/// Of class Fenced while it has members.
pub(crate) async fn delete_group(config: &KafkaConfig) -> Result<bool> {
    let what = format!("deleting group `{}`", config.group);
    let admin = admin(config).map_err(|error| from_kafka(&what, &error))?;
    let deleted = admin.delete_groups(&[&config.group], &options()).await;
    let deleted = deleted.map_err(|error| from_kafka(&what, &error))?;
    match deleted.into_iter().next() {
        Some(Err((_, Code::GroupIdNotFound))) => Ok(false),
        Some(Err((_, Code::NonEmptyGroup))) => Err(Error::fenced(format!(
            "{what}: a worker is in it: remove the connector there first"
        ))),
        Some(Err((_, code))) => Err(from_code(what, code)),
        Some(Ok(_)) | None => Ok(true),
    }
}

/// Deletes topics; those that are not there are gone already.
///
/// # Errors
/// Of the class of the broker's answer.
pub async fn delete_topics(config: &KafkaConfig, topics: &[&str]) -> Result<()> {
    let what = || format!("deleting {}", topics.join(", "));
    let admin = admin(config).map_err(|error| from_kafka(what(), &error))?;
    let deleted = admin.delete_topics(topics, &options()).await;
    for one in deleted.map_err(|error| from_kafka(what(), &error))? {
        match one {
            Ok(_) | Err((_, Code::UnknownTopicOrPartition)) => {}
            Err((topic, code)) => return Err(from_code(format!("deleting `{topic}`"), code)),
        }
    }
    Ok(())
}

/// Where the topics that are there differ from the config, a sentence each.
pub(crate) async fn compare(config: &KafkaConfig, there: &[Present]) -> Result<Vec<String>> {
    let what = "reading the properties of the topics";
    let asked: Vec<&Present> = there.iter().filter(|one| !one.declared.config.is_empty()).collect();
    let mut answers = Vec::new();
    if !asked.is_empty() {
        let resources: Vec<_> =
            asked.iter().map(|one| ResourceSpecifier::Topic(&one.name)).collect();
        let admin = admin(config).map_err(|error| from_kafka(what, &error))?;
        let told = admin.describe_configs(&resources, &options()).await;
        answers = told.map_err(|error| from_kafka(what, &error))?;
    }
    let mut answers = answers.into_iter();
    let mut out = Vec::new();
    for one in there {
        if one.declared.config.is_empty() {
            out.extend(one.differences(|_| None));
            continue;
        }
        match answers.next() {
            Some(Ok(told)) => {
                let stands = |name: &str| told.get(name).and_then(|entry| entry.value.clone());
                out.extend(one.differences(stands));
            }

            Some(Err(code)) => return Err(from_code(format!("{what}, of `{}`", one.name), code)),
            None => return Err(Error::retriable(format!("{what}: no answer of `{}`", one.name))),
        }
    }
    Ok(out)
}

/// What a property of a topic is; none where the broker does not know it.
///
/// # Errors
/// Of the class of the broker's answer.
pub async fn property(config: &KafkaConfig, topic: &str, name: &str) -> Result<Option<String>> {
    let what = format!("reading the properties of topic `{topic}`");
    let admin = admin(config).map_err(|error| from_kafka(&what, &error))?;
    let told = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options()).await;
    let told = told.map_err(|error| from_kafka(&what, &error))?;
    match told.into_iter().next() {
        Some(Ok(told)) => Ok(told.get(name).and_then(|entry| entry.value.clone())),
        Some(Err(code)) => Err(from_code(&what, code)),
        None => Err(Error::retriable(format!("{what}: no answer"))),
    }
}

/// Waits until what was made shows, asking by `shows`.
pub(crate) async fn wait<F: Future<Output = Result<bool>>>(
    names: &[String],
    shows: impl Fn() -> F,
) -> Result<()> {
    let end = tokio::time::Instant::now() + SHOWS;
    while !names.is_empty() && !shows().await? {
        if tokio::time::Instant::now() > end {
            return Err(Error::retriable(format!("{names:?} were created and do not show yet")));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn admin(
    config: &KafkaConfig,
) -> std::result::Result<AdminClient<DefaultClientContext>, rdkafka::error::KafkaError> {
    config.producer().create()
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_named() {
        let declared = DeclaredTopic {
            name: "t".to_owned(),
            partitions: Some(6),
            replication_factor: Some(3),
            config: [("cleanup.policy", "delete, compact"), ("retention.ms", "-1"), ("what", "1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        let present = Present { declared, name: "t".to_owned(), partitions: 4, replicas: 1 };
        let differences = present.differences(|property| match property {
            "cleanup.policy" => Some("compact,delete".to_owned()),
            "retention.ms" => Some("604800000".to_owned()),
            _ => None,
        });
        let says =
            |at: usize, text: &str| assert!(differences[at].contains(text), "{differences:?}");
        says(0, "partitions 4, and the config says 6");
        says(1, "replication factor 1, and the config says 3");
        says(2, "`retention.ms` \"604800000\", and the config says \"-1\"");
        says(3, "no property `what`");
        assert_eq!(differences.len(), 4);
    }
}
