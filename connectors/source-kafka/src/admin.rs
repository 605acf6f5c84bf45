//! A connector's view of the log: topics, ends, the group's offsets.
//!
//! The client that was asked last is kept for a moment, since a start asks several questions in a row and
//! each client has to connect first. Then it goes: an idle client would have to be polled for its logs.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::{
    Commit, FleetMember, Log, MissingTopic, PartitionInfo, Reader, Source, Start, Survey,
};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::metadata::MetadataTopic;
use tokio::sync::oneshot;

use crate::commit::{COMMIT_TIMEOUT, refused};
use crate::config::KafkaConfig;
use crate::context::{Context, Member};
use crate::declared;
use crate::error::{from_code, from_kafka};
use crate::group::describe;
use crate::heard::Heard;
use crate::native;
use crate::reader::KafkaReader;
use crate::source::KafkaSource;
use crate::teller::Teller;
use crate::topic_id::topic_ids;
use crate::topics::TopicFilter;

/// No question waits longer for the brokers.
const ASK: Duration = Duration::from_secs(10);
/// So long a client waits for the next question.
const KEPT: Duration = Duration::from_secs(3);

/// A Kafka cluster as one connector sees it.
#[derive(Clone, Debug)]
pub struct KafkaLog {
    config: KafkaConfig,
    topics: TopicFilter,
    spare: Spare,
    /// Tells topics' ids, for each flush.
    teller: Arc<Teller>,
}

/// The client that was asked last, while it waits for the next question, and which one it is.
#[derive(Clone, Default)]
struct Spare(Arc<Mutex<(u64, Option<Member>)>>);

impl Spare {
    fn take(&self) -> Option<Member> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.take()
    }

    /// Keeps the client, for a moment. One that waits already goes, which takes a tenth of a second.
    fn keep(&self, client: Member) {
        let (number, before) = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.0 += 1;
            (kept.0, kept.1.replace(client))
        };
        drop(before);
        let spare = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            let mut kept = spare.0.lock().unwrap_or_else(PoisonError::into_inner);
            let client = if kept.0 == number { kept.1.take() } else { None };
            drop(kept);
            tokio::task::spawn_blocking(move || drop(client));
        });
    }
}

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spare")
    }
}

impl KafkaLog {
    /// Checks the config, librdkafka's own part of it too, without waiting for the cluster.
    ///
    /// # Errors
    /// Class Config, with a sentence that names the property, never its value.
    pub fn new(config: KafkaConfig) -> Result<Self> {
        let topics = config.check()?;
        let (spare, client) = (Spare::default(), asking(&config)?);
        if tokio::runtime::Handle::try_current().is_ok() {
            // The first question takes it.
            spare.keep(client);
        }
        config
            .member(0, 1 << 20)
            .create_native_config()
            .map_err(|error| from_kafka("the Kafka consumer", &error))?;
        let teller = Teller::of(&config);
        Ok(KafkaLog { config, topics, spare, teller })
    }

    /// Asks off the async threads, with a client of its own.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Asker) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let log = self.clone();
        let (answer, answered) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let client = match log.spare.take().map_or_else(|| asking(&log.config), Ok) {
                Ok(client) => client,
                Err(error) => return drop(answer.send(Err(error))),
            };
            let asker = Asker { client, topics: log.topics };
            let said = question(&asker);
            let said = said.map_err(|error| Heard::explain_unpolled(&asker.client, error));
            let keeps = said.is_ok();
            // Nobody waits for the client's end.
            drop(answer.send(said));
            if keeps {
                log.spare.keep(asker.client);
            }
        });
        answered
            .await
            .map_err(|e| Error::retriable("a question to Kafka was abandoned").with_source(e))?
    }
}

/// A client that joins no group.
pub(crate) fn asking(config: &KafkaConfig) -> Result<Member> {
    config
        .asking()
        .create_with_context::<_, BaseConsumer<Context>>(Context::default())
        .map_err(|error| from_kafka("the Kafka client", &error))
}

/// A topic's name and the numbers of its partitions.
type Topic = (String, Vec<i32>);

struct Asker {
    client: Member,
    topics: TopicFilter,
}

impl Asker {
    /// The cluster's id.
    fn identity(&self) -> Result<String> {
        let topic = match &self.topics {
            TopicFilter::List(names) => names.first().map(String::as_str),
            TopicFilter::Regex(_) => None,
        };
        // It comes with any answer about topics; a client that nobody asks for one learns it a second later.
        let asked = self.client.fetch_metadata(topic, ASK);
        asked.map_err(|error| from_kafka("asking for the cluster's id", &error))?;
        let told = self.client.client().fetch_cluster_id(ASK);
        told.ok_or_else(|| Error::retriable("no broker told the cluster's id in time"))
    }

    /// The partitions of the topics, by topic, and the listed topics that are missing.
    fn topics(&self) -> Result<(Vec<Topic>, Vec<MissingTopic>)> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        match &self.topics {
            TopicFilter::List(names) => {
                for name in names {
                    let what = format!("asking for topic `{name}`");
                    match declared::find(&self.client, name, &what, partitions_of)? {
                        Some(partitions) => found.push((name.clone(), partitions?)),
                        None => missing.push(MissingTopic {
                            name: name.as_str().into(),
                            way_out: format!(
                                "kafka-topics.sh --bootstrap-server … --create --topic {name} --partitions 4"
                            ),
                        }),
                    }
                }
            }
            TopicFilter::Regex(regex) => {
                let metadata = self.client.fetch_metadata(None, ASK);
                let metadata = metadata.map_err(|e| from_kafka("listing the topics", &e))?;
                let taken = |topic: &&MetadataTopic| regex.takes(topic.name());
                for topic in metadata.topics().iter().filter(taken) {
                    found.push((topic.name().to_owned(), partitions_of(topic)?));
                }
                found.sort();
            }
        }
        Ok((found, missing))
    }

    fn all(&self) -> Result<(Vec<TopicPartition>, Vec<MissingTopic>)> {
        let (topics, missing) = self.topics()?;
        let each = topics.iter().flat_map(|(topic, partitions)| {
            let topic: Arc<str> = topic.as_str().into();
            partitions.iter().map(move |p| TopicPartition::new(topic.clone(), *p))
        });
        Ok((each.collect(), missing))
    }

    /// Resolves the beginning, the end or a time in each partition; one request to each broker.
    /// None where nothing is at or after the time.
    fn offsets(&self, of: &[TopicPartition], at: Offset) -> Result<Vec<Option<Position>>> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        // librdkafka takes the time, or Kafka's marks for both ends, in the place of the offset.
        let wanted = native::list(of.iter().map(|partition| (partition, at)));
        let found = self.client.offsets_for_times(wanted, ASK);
        let found = found.map_err(|e| from_kafka("asking for offsets", &e))?;
        of.iter()
            .map(|partition| {
                let what = || format!("asking for the offsets of `{partition}`");
                let element = found
                    .find_partition(&partition.topic, partition.partition)
                    .ok_or_else(|| Error::retriable(format!("{}: no answer", what())))?;
                element.error().map_err(|e| from_kafka(what(), &e))?;
                Ok(match element.offset() {
                    Offset::Offset(offset) => Some(Position(offset)),
                    _ => None,
                })
            })
            .collect()
    }

    fn survey(&self) -> Result<Survey> {
        let (partitions, missing) = self.all()?;
        let mut names: Vec<String> = partitions.iter().map(|p| p.topic.to_string()).collect();
        names.dedup();
        let ids = topic_ids(self.client.client().native_client(), &names, ASK)?;
        let low = self.offsets(&partitions, Offset::Beginning)?;
        let high = self.offsets(&partitions, Offset::End)?;
        let ends = low.into_iter().zip(high);
        let partitions: Result<_> = partitions
            .into_iter()
            .zip(ends)
            .map(|(partition, ends)| {
                let (Some(low), Some(high)) = ends else {
                    return Err(Error::retriable(format!("`{partition}` has no leader yet")));
                };
                let topic_id = ids.get(&*partition.topic).cloned();
                Ok(PartitionInfo { partition, topic_id, low, high })
            })
            .collect();
        Ok(Survey { partitions: partitions?, missing })
    }

    fn find(&self, partitions: &[TopicPartition], start: Start) -> Result<Vec<Position>> {
        let at = match start {
            Start::Earliest => Offset::Beginning,
            Start::Latest => Offset::End,
            Start::Timestamp(at) => Offset::Offset(at.max(0)),
        };
        let found = self.offsets(partitions, at)?;
        let ends = match found.iter().any(Option::is_none) {
            true => self.offsets(partitions, Offset::End)?,
            false => Vec::new(),
        };
        let mut positions = Vec::with_capacity(found.len());
        for (at, found) in found.into_iter().enumerate() {
            let position = found.or_else(|| ends.get(at).copied().flatten());
            positions.push(position.ok_or_else(|| {
                Error::retriable(format!("`{}` has no leader yet", partitions[at]))
            })?);
        }
        Ok(positions)
    }

    fn committed(&self, of: &[TopicPartition]) -> Result<Vec<Commit>> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        native::committed(self.client.client().native_client(), of, ASK).map_err(
            |(code, partition)| match partition {
                Some(p) => from_code(format!("reading the committed offset of `{p}`"), code),
                None => from_code("reading the committed offsets", code),
            },
        )
    }

    fn commit(&self, commits: &[Commit]) -> Result<()> {
        let client = self.client.client().native_client();
        native::commit(client, commits, COMMIT_TIMEOUT).map_err(refused)?;
        // Who resets a group must know that it is done, for every partition.
        let of: Vec<_> = commits.iter().map(|commit| commit.partition.clone()).collect();
        let now = self.committed(&of)?;
        match commits.iter().find(|commit| !now.contains(commit)) {
            Some(commit) => Err(Error::retriable(format!(
                "the group does not show the offset just committed for `{}`",
                commit.partition
            ))),
            None => Ok(()),
        }
    }
}

fn partitions_of(topic: &MetadataTopic) -> Result<Vec<i32>> {
    if let Some(code) = topic.error() {
        return Err(from_code(format!("asking for topic `{}`", topic.name()), Code::from(code)));
    }
    let mut partitions: Vec<i32> = topic.partitions().iter().map(|p| p.id()).collect();
    partitions.sort_unstable();
    if partitions.is_empty() {
        return Err(Error::retriable(format!("topic `{}` has no partition yet", topic.name())));
    }
    Ok(partitions)
}

#[async_trait]
impl Log for KafkaLog {
    async fn identity(&self) -> Result<String> {
        self.ask(Asker::identity).await
    }

    async fn survey(&self) -> Result<Survey> {
        self.ask(Asker::survey).await
    }

    fn describes_topics(&self) -> bool {
        !self.config.declared.is_empty()
    }

    async fn settle_topics(&self, held: &[Arc<str>]) -> Result<Vec<String>> {
        let declared = self.config.declared.clone();
        let (there, missing) =
            self.ask(move |asker| declared::look(&asker.client, &declared)).await?;
        let made = declared::make(&self.config, &missing, held).await?;
        let shows = || {
            let names = made.clone();
            self.ask(move |asker| declared::all_show(&asker.client, &names))
        };
        declared::wait(&made, shows).await?;
        declared::compare(&self.config, &there).await
    }

    async fn topic_ids(&self, topics: &[Arc<str>]) -> Result<Vec<Option<String>>> {
        let ids = Arc::clone(&self.teller).ids(topics.to_vec()).await;
        // A topic that is missing now may be about to be made anew.
        let ids = ids.map_err(|error| match error.class() {
            ErrorClass::Config => Error::retriable(error.to_string()),
            _ => error,
        })?;
        Ok(topics.iter().map(|topic| ids.get(&**topic).cloned()).collect())
    }

    async fn find(&self, partitions: &[TopicPartition], start: Start) -> Result<Vec<Position>> {
        let partitions = partitions.to_vec();
        self.ask(move |asker| asker.find(&partitions, start)).await
    }

    async fn committed(&self) -> Result<Vec<Commit>> {
        self.ask(|asker| asker.committed(&asker.all()?.0)).await
    }

    async fn commit(&self, commits: &[Commit]) -> Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let commits = commits.to_vec();
        self.ask(move |asker| asker.commit(&commits)).await
    }

    async fn members(&self) -> Result<usize> {
        let group = self.config.group.clone();
        let asked =
            self.ask(move |asker| describe(asker.client.client().native_client(), &group, ASK));
        asked.await.map(|group| group.members.len())
    }

    async fn delete_group(&self) -> Result<bool> {
        declared::delete_group(&self.config).await
    }

    async fn fleet(&self) -> Result<Vec<FleetMember>> {
        let group = self.config.group.clone();
        let asked =
            self.ask(move |asker| describe(asker.client.client().native_client(), &group, ASK));
        let members = asked.await?.members.into_iter();
        Ok(members.filter_map(|member| self.config.fleet_member(member)).collect())
    }

    fn source(&self, task: u32, memory: usize) -> Result<Box<dyn Source>> {
        let source = KafkaSource::start(&self.config, self.topics.clone(), task, memory)?;
        Ok(Box::new(source))
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(KafkaReader::new(&self.config)))
    }
}
