//! Kafka as a client sees it: topics, producing, reading back, groups.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::orders::{Event, Orders};
use super::wait;

const TIMEOUT: Duration = Duration::from_secs(30);

fn client() -> ClientConfig {
    client_of(&super::servers::kafka())
}

fn client_of(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    client().create().unwrap()
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}

/// Makes a topic that keeps everything, and takes large events.
pub(crate) async fn create(topic: &str, partitions: i32) {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
        .set("retention.ms", "-1")
        .set("max.message.bytes", "16000000");
    make(&admin(), &new).await;
    lead(topic, partitions).await;
}

async fn make(admin: &AdminClient<DefaultClientContext>, new: &NewTopic<'_>) {
    for result in admin.create_topics([new], &options()).await.unwrap() {
        result.unwrap_or_else(|error| panic!("topic {} could not be made: {error:?}", new.name));
    }
}

/// Waits until each partition has its leader.
async fn lead(topic: &str, partitions: i32) {
    wait::until("the partitions have leaders", wait::SOON, async || {
        let metadata = consumer("").fetch_metadata(Some(topic), TIMEOUT);
        let metadata = metadata.map_err(|error| error.to_string())?;
        let found = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        let led = found.iter().filter(|partition| partition.leader() >= 0).count();
        if led == partitions as usize { Ok(()) } else { Err(format!("{led} leaders")) }
    })
    .await;
}

/// Deletes topics, and waits until they are gone.
pub(crate) async fn delete(topics: &[String]) {
    if topics.is_empty() {
        return;
    }
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    for result in admin().delete_topics(&names, &options()).await.unwrap() {
        result.unwrap();
    }
    wait::until("the topics are gone", wait::SOON, async || {
        let left: Vec<String> = self::topics().into_iter().filter(|t| topics.contains(t)).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    })
    .await;
}

/// Adds partitions until there are so many.
pub(crate) async fn grow(topic: &str, partitions: i32) {
    let new = NewPartitions::new(topic, partitions as usize);
    for result in admin().create_partitions([&new], &options()).await.unwrap() {
        result.unwrap();
    }
    lead(topic, partitions).await;
}

/// Deletes the records before these offsets, as retention does.
pub(crate) async fn forget(topic: &str, before: &[i64]) {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(before) {
        list.add_partition_offset(topic, partition, Offset::Offset(*offset)).unwrap();
    }
    admin().delete_records(&list, &options()).await.unwrap();
}

/// All topics.
pub(crate) fn topics() -> Vec<String> {
    let metadata = consumer("").fetch_metadata(None, TIMEOUT).unwrap();
    metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
}

fn consumer(group: &str) -> BaseConsumer {
    let mut config = client();
    config
        .set("group.id", if group.is_empty() { "foldline-e2e" } else { group })
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("fetch.message.max.bytes", "16000000")
        .set("fetch.queue.backoff.ms", "1");
    config.create().unwrap()
}

/// A producer that batches.
pub(crate) fn producer() -> BaseProducer {
    let mut config = client();
    config
        .set("linger.ms", "20")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "16000000")
        .set("queue.buffering.max.messages", "200000");
    config.create().unwrap()
}

/// A record to write, as raw as it gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Raw {
    pub(crate) fn value(partition: i32, key: &str, value: impl Into<Vec<u8>>) -> Self {
        Raw { partition, key: Some(key.into()), value: Some(value.into()), headers: vec![] }
    }
}

/// Writes raw records, and waits until Kafka has them.
pub(crate) fn produce_raw(topic: &str, records: &[Raw]) {
    send_raw(&producer(), topic, records);
}

/// The same to another cluster.
pub(crate) fn produce_raw_to(servers: &str, topic: &str, records: &[Raw]) {
    send_raw(&client_of(servers).create().unwrap(), topic, records);
}

/// Makes a topic of one partition in another cluster.
pub(crate) async fn create_in(servers: &str, topic: &str) {
    let admin = client_of(servers).create().unwrap();
    make(&admin, &NewTopic::new(topic, 1, TopicReplication::Fixed(1))).await;
}

/// Writes raw records as one packed batch for each partition.
pub(crate) fn produce_packed(topic: &str, records: &[Raw]) {
    let mut config = client();
    config
        .set("linger.ms", "500")
        .set("compression.type", "zstd")
        .set("batch.size", "100000000")
        .set("message.max.bytes", "100000000");
    send_raw(&config.create().unwrap(), topic, records);
}

fn send_raw(producer: &BaseProducer, topic: &str, records: &[Raw]) {
    for record in records {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut base =
            BaseRecord::<Vec<u8>, Vec<u8>>::to(topic).partition(record.partition).headers(headers);
        base.key = record.key.as_ref();
        base.payload = record.value.as_ref();
        producer.send(base).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

/// Writes events, and waits until Kafka has them.
pub(crate) fn produce(topic: &str, events: impl Iterator<Item = Event>) {
    let producer = producer();
    for event in events {
        send(&producer, topic, &event);
    }
    producer.flush(Duration::from_secs(120)).unwrap();
}

fn send(producer: &BaseProducer, topic: &str, event: &Event) {
    let mut record = BaseRecord::to(topic)
        .partition(event.partition)
        .key(&event.key)
        .payload(&event.value)
        .timestamp(event.timestamp);
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(20));
            }
            Err((error, _)) => panic!("cannot produce: {error}"),
        }
    }
}

/// A producer that goes on beside the test, a few thousand events per second.
pub(crate) struct Background {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Background {
    pub(crate) fn start(topic: &str, orders: Orders, from: u64) -> Self {
        Self::paced(topic, orders, from, (100, Duration::from_millis(20)))
    }

    /// So many events at a time, with a pause behind them.
    pub(crate) fn paced(
        topic: &str,
        orders: Orders,
        from: u64,
        (count, pause): (u64, Duration),
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (topic, stopped) = (topic.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let producer = producer();
            let mut next = from;
            while !stopped.load(Ordering::Relaxed) {
                for event in orders.events(next..next + count) {
                    send(&producer, &topic, &event);
                }
                next += count;
                // The pace of the load, not a wait for anything.
                producer.poll(Duration::from_millis(5));
                std::thread::sleep(pause);
            }
            producer.flush(Duration::from_secs(120)).unwrap();
            next
        });
        Background { stop, thread }
    }

    /// Stops it; the index of the event that would come next.
    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A record as it was read back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) timestamp: i64,
    pub(crate) value: Option<&'a [u8]>,
}

/// A record with all that it has.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Owned {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Calls `take` for each record that the topic has now.
pub(crate) fn each(topic: &str, mut take: impl FnMut(Record<'_>)) {
    read(topic, |message| {
        let timestamp = message.timestamp().to_millis().unwrap_or(0);
        take(Record { timestamp, value: message.payload() });
    });
}

/// All records that the topic has now; none where there is no such topic.
pub(crate) fn read_back(topic: &str) -> Vec<Owned> {
    let mut all = Vec::new();
    if !topics().iter().any(|known| known == topic) {
        return all;
    }
    read(topic, |message| {
        let text =
            |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or(b"")).into_owned();
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
        });
        all.push(Owned {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        });
    });
    all
}

fn read(topic: &str, mut take: impl FnMut(&rdkafka::message::BorrowedMessage<'_>)) {
    let consumer = consumer("");
    let mut list = TopicPartitionList::new();
    let mut open = 0;
    for partition in 0..ends(topic).len() {
        list.add_partition_offset(topic, partition as i32, Offset::Beginning).unwrap();
        open += 1;
    }
    consumer.assign(&list).unwrap();
    while open > 0 {
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) => take(&message),
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("{topic} cannot be read: {error}"),
            None => panic!("{topic} cannot be read within {TIMEOUT:?}"),
        }
    }
}

/// The end of each partition.
pub(crate) fn ends(topic: &str) -> Vec<i64> {
    let consumer = consumer("");
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let end = |partition| consumer.fetch_watermarks(topic, partition, TIMEOUT).unwrap().1;
    (0..count as i32).map(end).collect()
}

/// What a group has committed, for each partition of a topic; 0 where it has nothing.
pub(crate) fn committed(
    group: &str,
    topic: &str,
    partitions: usize,
) -> Result<Vec<i64>, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions as i32 - 1);
    let list = consumer(group).committed_offsets(list, TIMEOUT)?;
    let offset = |partition: i32| match list.find_partition(topic, partition).map(|p| p.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => 0,
    };
    Ok((0..partitions as i32).map(offset).collect())
}

/// The group's state, such as `Stable` or `Empty`.
pub(crate) fn group_state(group: &str) -> String {
    let list = consumer("").fetch_group_list(Some(group), TIMEOUT).unwrap();
    list.groups().first().map_or("none", |group| group.state()).to_owned()
}
