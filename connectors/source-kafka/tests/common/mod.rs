//! What the tests against a real broker share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use foldline_api::error::{Error, Result};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::source::{Log, Source, SourceEvent};
use foldline_source_kafka::{GroupProtocol, KafkaConfig, KafkaLog, NewRecord, Topics, produce};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn servers() -> String {
    std::env::var("KAFKA").expect("set KAFKA to the address of a running broker, host:port")
}

pub(crate) fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", servers()).create().unwrap()
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(30)))
        .operation_timeout(Some(Duration::from_secs(30)))
}

/// A name that no other run has.
pub(crate) fn unique(name: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("fl-test-{name}-{}-{}", std::process::id(), now.as_nanos())
}

/// A topic of one test, deleted on drop.
pub(crate) struct Topic(pub(crate) String);

impl Topic {
    pub(crate) async fn new(name: &str, partitions: i32) -> Self {
        Self::with(name, partitions, &[]).await
    }

    pub(crate) async fn with(name: &str, partitions: i32, config: &[(&str, &str)]) -> Self {
        let topic = Topic(unique(name));
        topic.create(partitions, config).await;
        topic
    }

    pub(crate) async fn create(&self, partitions: i32, config: &[(&str, &str)]) {
        let mut new = NewTopic::new(&self.0, partitions, TopicReplication::Fixed(1));
        for (name, value) in config {
            new = new.set(name, value);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let created = admin().create_topics([&new], &options()).await.unwrap();
            match created.into_iter().next().unwrap() {
                Ok(_) => break,
                // A topic of this name is still being deleted.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) if Instant::now() < deadline => {}
                Err(error) => panic!("creating {}: {error:?}", self.0),
            }
        }
        self.wait_for(Some(partitions)).await;
    }

    pub(crate) async fn delete(&self) {
        admin().delete_topics(&[&self.0], &options()).await.unwrap();
        self.wait_for(None).await;
    }

    pub(crate) async fn grow(&self, partitions: usize) {
        let grown = NewPartitions::new(&self.0, partitions);
        admin().create_partitions([&grown], &options()).await.unwrap()[0].as_ref().unwrap();
        self.wait_for(Some(partitions as i32)).await;
    }

    /// Deletes the records before `offset` of partition 0.
    pub(crate) async fn truncate(&self, offset: i64) {
        let mut before = rdkafka::TopicPartitionList::new();
        before.add_partition_offset(&self.0, 0, rdkafka::Offset::Offset(offset)).unwrap();
        admin().delete_records(&before, &options()).await.unwrap();
    }

    /// Waits until the broker shows so many partitions, each with a leader.
    async fn wait_for(&self, partitions: Option<i32>) {
        let name = self.0.clone();
        let look = move || {
            let client: BaseConsumer =
                ClientConfig::new().set("bootstrap.servers", servers()).create().unwrap();
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline {
                let metadata = client.fetch_metadata(Some(&name), PATIENCE).unwrap();
                let topic = &metadata.topics()[0];
                let count = match topic.error() {
                    Some(_) => None,
                    None if topic.partitions().iter().any(|p| p.leader() < 0) => continue,
                    None => Some(topic.partitions().len() as i32),
                };
                if count == partitions {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            panic!("{name} did not come to have {partitions:?} partitions");
        };
        tokio::task::spawn_blocking(look).await.unwrap();
    }

    pub(crate) fn tp(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(self.0.as_str(), partition)
    }

    pub(crate) fn at(&self, partition: i32, position: i64) -> (TopicPartition, Position) {
        (self.tp(partition), Position(position))
    }

    pub(crate) fn config(&self) -> KafkaConfig {
        KafkaConfig {
            bootstrap_servers: servers(),
            // A member that was killed is not waited for long, and new partitions show soon.
            properties: vec![
                ("session.timeout.ms".into(), "6000".into()),
                ("heartbeat.interval.ms".into(), "500".into()),
                ("topic.metadata.refresh.interval.ms".into(), "1000".into()),
            ],
            group: format!("g-{}", self.0),
            topics: Topics::List(vec![self.0.clone()]),
            group_protocol: GroupProtocol::Classic,
            group_instance_id: None,
            client_id: "foldline-test".into(),
            worker: None,
            declared: Vec::new(),
        }
    }

    pub(crate) fn log(&self) -> KafkaLog {
        KafkaLog::new(self.config()).unwrap()
    }

    /// Writes `count` numbered records into one partition.
    pub(crate) async fn fill(&self, partition: i32, count: usize) {
        let records: Vec<NewRecord> =
            (0..count).map(|n| record(partition, n.to_string().into())).collect();
        produce(&self.config(), &self.0, &records).await.unwrap();
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let name = self.0.clone();
        let delete = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let admin = admin();
            let _ = runtime.unwrap().block_on(admin.delete_topics(&[&name], &options()));
        };
        let _ = std::thread::spawn(delete).join();
    }
}

pub(crate) fn record(partition: i32, value: bytes::Bytes) -> NewRecord {
    NewRecord { value: Some(value), partition: Some(partition), ..NewRecord::default() }
}

/// A source and everything that it has delivered.
pub(crate) struct Reader {
    pub(crate) source: Box<dyn Source>,
    pub(crate) records: Vec<Record>,
    pub(crate) ends: BTreeMap<TopicPartition, Position>,
    pub(crate) owned: Vec<TopicPartition>,
}

impl Reader {
    pub(crate) fn join(log: &KafkaLog, task: u32) -> Self {
        let source = log.source(task, 32 << 20).unwrap();
        Reader { source, records: Vec::new(), ends: BTreeMap::new(), owned: Vec::new() }
    }

    /// The next event, kept too. Errors of class Retriable are passed over, as the task does.
    pub(crate) async fn next(&mut self) -> Result<SourceEvent> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let event = tokio::time::timeout_at(
                deadline,
                self.source.next(foldline_api::source::Wanted::All),
            )
            .await
            .expect("something happens in time");
            return match event {
                Err(e) if e.class() == foldline_api::error::ErrorClass::Retriable => continue,
                Err(error) => Err(error),
                Ok(event) => {
                    self.keep(&event);
                    Ok(event)
                }
            };
        }
    }

    fn keep(&mut self, event: &SourceEvent) {
        match event {
            SourceEvent::Records(records) => {
                assert!(!records.is_empty(), "an empty burst");
                for record in records {
                    assert!(self.owned.contains(&record.topic_partition()), "not ours: {record:?}");
                }
                self.records.extend(records.iter().cloned());
            }
            SourceEvent::Assigned(partitions) => self.owned.extend(partitions.iter().cloned()),
            SourceEvent::Revoked(partitions) | SourceEvent::Lost(partitions) => {
                self.owned.retain(|p| !partitions.contains(p));
            }
            SourceEvent::End(partition, at) => {
                assert!(self.owned.contains(partition), "the end of {partition}: not ours");
                self.ends.insert(partition.clone(), *at);
            }
            SourceEvent::Broken(partition, _, error) => panic!("{partition} is broken: {error}"),
        }
    }

    /// Goes on until `done`.
    pub(crate) async fn until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            self.next().await.unwrap();
        }
    }

    /// Waits until this member owns so many partitions, giving back what is taken.
    pub(crate) async fn until_owned(&mut self, count: usize) {
        while self.owned.len() != count {
            if let SourceEvent::Revoked(partitions) = self.next().await.unwrap() {
                self.source.release(&partitions).unwrap();
            }
        }
    }

    /// The first error.
    pub(crate) async fn error(&mut self) -> Error {
        loop {
            if let Err(error) = self.next().await {
                return error;
            }
        }
    }

    pub(crate) fn offsets(&self, partition: i32) -> Vec<i64> {
        let of = self.records.iter().filter(|record| record.partition == partition);
        of.map(|record| record.offset).collect()
    }
}
