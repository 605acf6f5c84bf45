//! Topics that are filled once, and the raw read of one: the floor.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::report::Sample;
use crate::workload::{Event, PARTITIONS, Workload};
use crate::{Result, process, required};

const TIMEOUT: Duration = Duration::from_secs(60);

fn client() -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", required("KAFKA")?);
    Ok(config)
}

/// A producer; `linger` in milliseconds.
pub(crate) fn producer(linger: u32) -> Result<BaseProducer> {
    let mut config = client()?;
    config.set("linger.ms", linger.to_string());
    config.set("queue.buffering.max.messages", "500000");
    Ok(config.create()?)
}

/// Sends, and waits while the producer's queue is full.
pub(crate) fn send(producer: &BaseProducer, topic: &str, event: &Event) -> Result<()> {
    let mut record =
        BaseRecord::to(topic).partition(event.partition).key(&event.key).payload(&event.value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

fn consumer() -> Result<BaseConsumer> {
    let mut config = client()?;
    config.set("group.id", "foldline-bench");
    config.set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true");
    // The default of one second is a brake: a consumer that has filled its queue sleeps.
    config.set("fetch.queue.backoff.ms", "1");
    Ok(config.create()?)
}

/// How many records a topic has; none where there is no such topic.
fn length(topic: &str) -> Result<Option<u64>> {
    let consumer = consumer()?;
    let metadata = consumer.fetch_metadata(None, TIMEOUT)?;
    if !metadata.topics().iter().any(|known| known.name() == topic) {
        return Ok(None);
    }
    let mut length = 0;
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        length += (high - low).unsigned_abs();
    }
    Ok(Some(length))
}

async fn create(topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client()?.create()?;
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let new =
        NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    for result in admin.create_topics([&new], &options).await? {
        result.map_err(|(topic, code)| format!("topic {topic}: {code}"))?;
    }
    Ok(())
}

/// Makes an empty topic, or a new one in its place.
pub(crate) async fn renew(topic: &str) -> Result<()> {
    if length(topic)?.is_some() {
        let admin: AdminClient<DefaultClientContext> = client()?.create()?;
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        admin.delete_topics(&[topic], &options).await?;
        while length(topic)?.is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    create(topic).await
}

/// Fills the workload's topic, if it is not filled already.
pub(crate) async fn fill(workload: Workload) -> Result<()> {
    let topic = workload.topic();
    if length(&topic)? == Some(workload.events) {
        return Ok(());
    }
    eprintln!("bench: filling {topic}");
    renew(&topic).await?;
    let producer = producer(20)?;
    for event in workload.events() {
        send(&producer, &topic, &event)?;
    }
    producer.flush(TIMEOUT)?;
    match length(&topic)? {
        Some(found) if found == workload.events => Ok(()),
        found => Err(format!("{topic} has {found:?} records after filling").into()),
    }
}

/// Reads a topic and does nothing with it. Counted from the first record.
pub(crate) fn raw_read(topic: &str) -> Result<Sample> {
    let pid = std::process::id();
    let before = process::usage(pid)?;
    let began = Instant::now();
    let consumer = consumer()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut open, mut records, mut bytes, mut first) = (PARTITIONS, 0, 0, None);
    while open > 0 {
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) => {
                first.get_or_insert_with(Instant::now);
                records += 1;
                bytes += message.payload().map_or(0, <[u8]>::len);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(error.into()),
            None => return Err(format!("{topic} cannot be read").into()),
        }
    }
    let first = first.ok_or("an empty topic")?;
    let seconds = first.elapsed().as_secs_f64();
    let after = process::usage(pid)?;
    Ok(Sample {
        events: records,
        seconds,
        first: (first - began).as_secs_f64(),
        cpu: after.cpu - before.cpu,
        // This process holds the expected rows, too.
        peak: None,
        right: bytes > 0,
    })
}
