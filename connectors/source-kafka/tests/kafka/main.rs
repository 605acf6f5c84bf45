//! The source and the dead letters against a real broker, whose address is in `KAFKA`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

#[path = "../common/mod.rs"]
mod common;
mod group;
mod letters;
mod topics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Reader, Topic, record, servers, unique};
use foldline_api::error::ErrorClass;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::source::{
    Commit, DeadLetter, DeadLetters, LETTER_OMITS, Log, SourceEvent, Start,
};
use foldline_source_kafka::{
    GroupProtocol, KafkaConfig, KafkaDeadLetters, KafkaLog, NewRecord, Topics, produce,
};
use rdkafka::ClientConfig;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

fn commit(of: (TopicPartition, Position), metadata: &str) -> Commit {
    Commit { partition: of.0, position: of.1, metadata: metadata.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_read_from_the_given_positions_on() {
    let topic = Topic::new("read", 4).await;
    for partition in 0..4 {
        topic.fill(partition, 1_000).await;
    }
    let full = NewRecord {
        key: Some("k".into()),
        value: None,
        headers: vec![("a".into(), Some("1".into())), ("a".into(), None), ("é".into(), None)],
        timestamp: Some(1_700_000_000_123),
        partition: Some(0),
    };
    produce(&topic.config(), &topic.0, std::slice::from_ref(&full)).await.unwrap();

    let log = topic.log();
    let mut reader = Reader::join(&log, 0);
    reader.until_owned(4).await;
    let from = [topic.at(0, 0), topic.at(1, 10), topic.at(2, 999), topic.at(3, 1_000)];
    reader.source.start(&from).unwrap();
    reader.until(|r| r.ends.len() == 4).await;

    assert_eq!(reader.offsets(0), (0..1_001).collect::<Vec<_>>());
    assert_eq!(reader.offsets(1), (10..1_000).collect::<Vec<_>>());
    assert_eq!(reader.offsets(2), [999]);
    assert!(reader.offsets(3).is_empty());
    let values = reader.records.iter().filter(|r| r.partition == 1);
    assert!(values.zip(10..).all(|(r, n)| r.value == Some(n.to_string().into())));
    let last = reader.records.iter().find(|r| r.partition == 0 && r.offset == 1_000).unwrap();
    assert_eq!((&last.key, &last.value), (&full.key, &full.value));
    assert_eq!((&last.headers, last.timestamp), (&full.headers, full.timestamp));
    let ends: Vec<i64> = reader.ends.values().map(|p| p.0).collect();
    assert_eq!(ends, [1_001, 1_000, 1_000, 1_000]);

    // What comes later is read on, and the ends follow.
    topic.fill(3, 5).await;
    reader.until(|r| r.ends[&topic.tp(3)] == Position(1_005)).await;
    assert_eq!(reader.offsets(3), (1_000..1_005).collect::<Vec<_>>());
    let deadline = Instant::now() + common::PATIENCE;
    while !reader.source.ends().contains(&topic.at(3, 1_005)) {
        assert!(Instant::now() < deadline, "{:?}", reader.source.ends());
        tokio::task::yield_now().await;
    }
    assert_eq!(reader.source.ends().len(), 4);
    reader.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_delivers_nothing_of_the_old_position() {
    let topic = Topic::new("seek", 2).await;
    topic.fill(0, 20_000).await;
    topic.fill(1, 3_000).await;
    let mut reader = Reader::join(&topic.log(), 0);
    reader.until_owned(2).await;
    reader.source.start(&[topic.at(0, 0), topic.at(1, 0)]).unwrap();
    reader.until(|r| r.offsets(0).len() > 100).await;
    for target in [7, 19_990, 3] {
        reader.source.start(&[topic.at(0, target)]).unwrap();
        reader.records.retain(|r| r.partition == 1);
        reader.until(|r| r.offsets(0).len() >= 5).await;
        let got = reader.offsets(0);
        assert_eq!(got, (target..target + got.len() as i64).collect::<Vec<_>>());
    }
    reader.until(|r| r.ends.len() == 2 && r.offsets(0).len() == 19_997).await;
    assert_eq!(reader.offsets(1), (0..3_000).collect::<Vec<_>>(), "the other one is undisturbed");
    reader.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_has_another_id_and_none_while_it_is_not_there() {
    let topic = Topic::new("anew", 1).await;
    let log = topic.log();
    let name: Arc<str> = topic.0.as_str().into();
    let first = log.topic_ids(&[Arc::clone(&name)]).await.unwrap();
    assert!(first[0].is_some());
    // The same beside a member, whose fetch is under way.
    let mut reader = Reader::join(&log, 0);
    reader.until_owned(1).await;
    assert_eq!(log.topic_ids(&[Arc::clone(&name)]).await.unwrap(), first);
    topic.delete().await;
    let gone = log.topic_ids(&[Arc::clone(&name)]).await.unwrap_err();
    assert_eq!(gone.class(), ErrorClass::Retriable, "{gone}");
    topic.create(1, &[]).await;
    let second = log.topic_ids(&[name]).await.unwrap();
    assert!(second[0].is_some() && second != first, "{first:?} {second:?}");
    reader.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_metadata_reads_back_and_a_reset_by_others_is_seen() {
    let topic = Topic::new("commit", 2).await;
    topic.fill(0, 10).await;
    let log = topic.log();
    assert!(log.committed().await.unwrap().is_empty(), "nothing committed yet");

    let mut reader = Reader::join(&log, 0);
    reader.until_owned(2).await;
    reader.source.start(&[topic.at(0, 0), topic.at(1, 0)]).unwrap();
    let marked = [commit(topic.at(0, 7), "foldline/1 id 3"), commit(topic.at(1, 0), "x é")];
    let committer = reader.source.committer();
    committer.commit(&marked).await.unwrap();
    assert_eq!(log.committed().await.unwrap(), marked);

    // A group with members refuses.
    let reset = [commit(topic.at(0, 0), ""), commit(topic.at(1, 0), "")];
    let refused = log.commit(&reset).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Fenced, "{refused}");
    assert_eq!(log.committed().await.unwrap(), marked);

    reader.source.close().await;
    let late = committer.commit(&marked).await.unwrap_err();
    assert_eq!(late.class(), ErrorClass::Fenced, "{late}");
    log.commit(&reset).await.unwrap();
    assert_eq!(log.committed().await.unwrap(), reset);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_and_new_topics_are_picked_up() {
    let topic = Topic::new("grow", 1).await;
    let pattern = format!("^{}", topic.0);
    let config =
        KafkaConfig { topics: Topics::Regex { pattern, except: Vec::new() }, ..topic.config() };
    let log = KafkaLog::new(config).unwrap();
    let mut reader = Reader::join(&log, 0);
    reader.until_owned(1).await;
    reader.source.start(&[topic.at(0, 0)]).unwrap();

    topic.grow(3).await;
    reader.until_owned(3).await;
    topic.fill(2, 4).await;
    reader.source.start(&[topic.at(1, 0), topic.at(2, 0)]).unwrap();
    reader.until(|r| r.offsets(2) == [0, 1, 2, 3]).await;

    let other = Topic(format!("{}-other", topic.0));
    other.create(2, &[]).await;
    reader.until_owned(5).await;
    let found = log.partitions().await.unwrap();
    assert_eq!(found.len(), 5);
    assert_eq!(found[2].high, Position(4));
    reader.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_has_another_id() {
    let topic = Topic::new("id", 1).await;
    let log = topic.log();
    let first = log.partitions().await.unwrap();
    assert!(first[0].topic_id.is_some());
    assert_eq!(log.partitions().await.unwrap(), first, "it does not change by itself");
    topic.delete().await;
    topic.create(1, &[]).await;
    let second = log.partitions().await.unwrap();
    assert!(second[0].topic_id.is_some());
    assert_ne!(first[0].topic_id, second[0].topic_id);
    assert_eq!(log.identity().await.unwrap(), log.identity().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_the_log_has_lost_is_a_loud_error() {
    let topic = Topic::new("range", 1).await;
    topic.fill(0, 100).await;
    topic.truncate(50).await;
    let log = topic.log();
    let found = &log.partitions().await.unwrap()[0];
    assert_eq!((found.low, found.high), (Position(50), Position(100)));

    let mut reader = Reader::join(&log, 0);
    reader.until_owned(1).await;
    for (position, has) in [(10, "begins at 50 and ends at 100"), (170, "only 50 to 100")] {
        reader.source.start(&[topic.at(0, position)]).unwrap();
        let error = reader.error().await;
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
        let name = format!("`{}-0`", topic.0);
        for part in [&name, &format!("position {position}:"), has, "rebuild"] {
            assert!(error.message().contains(part), "{part} in {error}");
        }
        // Positions go forward only.
        let skip = format!("--skip-to {}:0=50`", topic.0);
        assert_eq!(error.message().contains(&skip), position < 50, "{error}");
        assert!(reader.records.is_empty());
    }
    // The way out works without a new member.
    reader.source.start(&[topic.at(0, 50)]).unwrap();
    reader.until(|r| r.offsets(0) == (50..100).collect::<Vec<_>>()).await;
    reader.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_five_megabytes_comes_through() {
    let topic = Topic::with("large", 1, &[("max.message.bytes", "10000000")]).await;
    let value: Vec<u8> = (0..5_000_000_u32).map(|n| (n ^ (n >> 7)) as u8).collect();
    let sent =
        [record(0, "before".into()), record(0, value.clone().into()), record(0, "after".into())];
    produce(&topic.config(), &topic.0, &sent).await.unwrap();
    // Far less memory than the record has.
    let log = topic.log();
    let mut reader = Reader { source: log.source(0, 1 << 20).unwrap(), ..Reader::join(&log, 9) };
    reader.until_owned(1).await;
    reader.source.start(&[topic.at(0, 0)]).unwrap();
    reader.until(|r| r.records.len() == 3).await;
    assert!(reader.records[1].value == Some(value.into()));
    reader.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_are_not_read_and_the_end_lies_behind_the_markers() {
    let topic = Topic::new("txn", 1).await;
    let log = topic.log();
    let (name, id) = (topic.0.clone(), unique("txn-id"));
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers())
        .set("transactional.id", id)
        .create()
        .unwrap();
    let producer = Arc::new(producer);
    let patience = Duration::from_secs(60);
    let write = {
        let producer = Arc::clone(&producer);
        move |from: i32, to: i32| {
            producer.begin_transaction().unwrap();
            for n in from..to {
                let value = n.to_string();
                let record: BaseRecord<'_, (), str> = BaseRecord::to(&name).payload(&value);
                producer.send(record.partition(0)).map_err(|(e, _)| e).unwrap();
            }
            producer.flush(patience).unwrap();
        }
    };
    let write_and_end = write.clone();
    let ending = Arc::clone(&producer);
    tokio::task::spawn_blocking(move || {
        ending.init_transactions(patience).unwrap();
        write_and_end(0, 10);
        ending.commit_transaction(patience).unwrap();
        write_and_end(10, 20);
        ending.abort_transaction(patience).unwrap();
    })
    .await
    .unwrap();
    // Ten records, a marker, ten aborted ones, a marker. A transaction that ended is only prepared:
    // its coordinator writes the marker afterwards, and the end that readers see waits for it.
    let high = Position(22);
    let deadline = Instant::now() + common::PATIENCE;
    while log.partitions().await.unwrap()[0].high < high {
        assert!(Instant::now() < deadline, "the markers were not written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(log.partitions().await.unwrap()[0].high, high);
    let mut reader = Reader::join(&log, 0);
    reader.until_owned(1).await;
    reader.source.start(&[topic.at(0, 0)]).unwrap();
    reader.until(|r| r.ends.get(&topic.tp(0)) == Some(&high)).await;
    assert_eq!(reader.offsets(0), (0..10).collect::<Vec<_>>());

    // An open transaction holds the end back, until it is committed.
    let open = write.clone();
    tokio::task::spawn_blocking(move || open(20, 25)).await.unwrap();
    assert_eq!(log.partitions().await.unwrap()[0].high, high);
    let latest = log.find(&[topic.tp(0)], Start::Latest).await.unwrap();
    assert_eq!(latest, [high]);
    tokio::task::spawn_blocking(move || producer.commit_transaction(patience).unwrap())
        .await
        .unwrap();
    reader.until(|r| r.ends.get(&topic.tp(0)) == Some(&Position(28))).await;
    assert_eq!(reader.offsets(0)[10..], (22..27).collect::<Vec<_>>());
    reader.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_finds_both_ends_and_moments() {
    let topic = Topic::new("find", 2).await;
    let at = |n: i64| NewRecord { timestamp: Some(1_000_000 + n), ..record(0, Bytes::new()) };
    let records: Vec<_> = (0..10).map(at).collect();
    produce(&topic.config(), &topic.0, &records).await.unwrap();
    topic.truncate(2).await;
    let log = topic.log();
    let both = [topic.tp(0), topic.tp(1)];
    for (start, expected) in [
        (Start::Earliest, [2, 0]),
        (Start::Latest, [10, 0]),
        (Start::Timestamp(1_000_007), [7, 0]),
        (Start::Timestamp(2_000_000), [10, 0]),
        (Start::Timestamp(0), [2, 0]),
    ] {
        let found = log.find(&both, start).await.unwrap();
        assert_eq!(found, expected.map(Position), "{start:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_and_a_bad_property_are_config_errors() {
    let topic = Topic(unique("missing"));
    let began = Instant::now();
    let error = topic.log().partitions().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.message().contains(&topic.0) && error.message().contains("--create"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));

    for (name, value) in [("no.such.property", "s3cret"), ("session.timeout.ms", "s3cret")] {
        let mut config = topic.config();
        config.properties.push((name.into(), value.into()));
        let error = KafkaLog::new(config).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
        assert!(error.message().contains(name) && !error.message().contains(value), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_cluster_is_retriable_and_hangs_nothing() {
    let topic = Topic(unique("away"));
    // Nothing listens on port 1.
    let config = KafkaConfig { bootstrap_servers: "127.0.0.1:1".into(), ..topic.config() };
    let log = KafkaLog::new(config.clone()).unwrap();
    let error = log.partitions().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retriable, "{error}");

    let mut source = log.source(0, 1 << 20).unwrap();
    let error =
        tokio::time::timeout(common::PATIENCE, source.next(foldline_api::source::Wanted::All))
            .await
            .unwrap()
            .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retriable, "{error}");
    let committer = source.committer();
    let marks = [commit(topic.at(0, 1), "m")];
    let error = committer.commit(&marks).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retriable, "{error}");
    let began = Instant::now();
    source.close().await;
    assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
}
