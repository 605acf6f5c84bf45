//! A broker, and what is seen in its topics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use foldline_api::record::Record;
use foldline_api::source::{Log, Stretch};
use foldline_sink_kafka::{KafkaSink, KafkaSinkConfig, ValueFormat};
use foldline_source_kafka::{GroupProtocol, KafkaConfig, KafkaLog, Topics};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn servers() -> String {
    std::env::var("KAFKA").expect("set KAFKA to the address of a running broker, host:port")
}

pub(crate) fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", servers()).create().unwrap()
}

pub(crate) fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(30)))
        .operation_timeout(Some(Duration::from_secs(30)))
}

pub(crate) fn sink() -> KafkaSink {
    sink_with(&[])
}

pub(crate) fn sink_with(properties: &[(&str, &str)]) -> KafkaSink {
    let properties =
        properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    KafkaSink::new(KafkaSinkConfig {
        bootstrap_servers: servers(),
        properties,
        topics: Vec::new(),
        value: ValueFormat::Json,
        values: Vec::new(),
    })
}

/// Deletes a topic, and waits until it is gone.
pub(crate) async fn delete(topic: &str) {
    drop(admin().delete_topics(&[topic], &options()).await.unwrap());
    let deadline = Instant::now() + PATIENCE;
    while log(topic).survey().await.is_ok_and(|survey| survey.missing.is_empty()) {
        assert!(Instant::now() < deadline, "{topic} stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Makes a topic anew: it is another one by the same name.
pub(crate) async fn recreate(topic: &str) {
    let partitions = log(topic).survey().await.unwrap().partitions.len();
    delete(topic).await;
    create(topic, i32::try_from(partitions).unwrap(), "compact").await;
}

pub(crate) async fn create(topic: &str, partitions: i32, policy: &str) {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
        .set("cleanup.policy", policy)
        .set("max.message.bytes", "100000");
    let deadline = Instant::now() + PATIENCE;
    // One of this name may still be being deleted.
    while let Some(Err((_, code))) = admin().create_topics([&new], &options()).await.unwrap().pop()
    {
        assert_eq!(code, RDKafkaErrorCode::TopicAlreadyExists, "{topic}");
        assert!(Instant::now() < deadline, "{topic} is not deleted");
    }
    shows(topic, partitions).await;
}

pub(crate) async fn grow(topic: &str, partitions: i32) {
    let grown = NewPartitions::new(topic, usize::try_from(partitions).unwrap());
    admin().create_partitions([&grown], &options()).await.unwrap().remove(0).unwrap();
    shows(topic, partitions).await;
}

async fn shows(topic: &str, partitions: i32) {
    let deadline = Instant::now() + PATIENCE;
    let wanted = usize::try_from(partitions).unwrap();
    while log(topic).survey().await.map_or(0, |survey| survey.partitions.len()) != wanted {
        assert!(Instant::now() < deadline, "{topic} does not show");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn log(topic: &str) -> KafkaLog {
    KafkaLog::new(config(topic)).unwrap()
}

pub(crate) fn config(topic: &str) -> KafkaConfig {
    KafkaConfig {
        bootstrap_servers: servers(),
        properties: Vec::new(),
        group: "look".to_owned(),
        topics: Topics::List(vec![topic.to_owned()]),
        group_protocol: GroupProtocol::Classic,
        group_instance_id: None,
        client_id: "look".to_owned(),
        worker: None,
        declared: Vec::new(),
    }
}

/// What a reader of committed records sees, in the order of each partition.
pub(crate) async fn records(topic: &str) -> Vec<Record> {
    let log = log(topic);
    let mut wanted: Vec<Stretch> = (log.survey().await.unwrap().partitions.into_iter())
        .map(|info| Stretch { partition: info.partition, from: info.low, to: info.high })
        .filter(|stretch| stretch.from < stretch.to)
        .collect();
    let mut reader = log.reader().unwrap();
    let mut out = Vec::new();
    while !wanted.is_empty() {
        let chunk = reader.read(&wanted, 1 << 20).await.unwrap();
        out.extend(chunk.records);
        wanted[chunk.of].from = chunk.next;
        wanted.retain(|stretch| stretch.from < stretch.to);
    }
    out
}

/// The last value of each key that has one.
pub(crate) async fn states(topic: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    for record in records(topic).await {
        let key = text(&record.key.unwrap());
        match record.value {
            Some(value) => out.insert(key, text(&value)),
            None => out.remove(&key),
        };
    }
    out
}

/// Writes records with plain offsets, as anybody may.
pub(crate) async fn write(topic: &str, records: &[(i32, &str, Option<&str>)]) {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", servers())
        .create::<rdkafka::producer::FutureProducer>()
        .unwrap();
    for (partition, key, value) in records {
        let mut record = rdkafka::producer::FutureRecord::<str, str>::to(topic).key(*key);
        record.partition = Some(*partition);
        record.payload = *value;
        producer.send(record, PATIENCE).await.unwrap();
    }
}
