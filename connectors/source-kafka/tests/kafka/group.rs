//! Members of a group.

use super::*;

/// Lets a second member join; each reads its share, nothing comes twice and nothing is missing.
async fn two_members_share(name: &str, group_protocol: GroupProtocol) {
    let topic = Topic::new(name, 4).await;
    for partition in 0..4 {
        topic.fill(partition, 500).await;
    }
    let mut config = KafkaConfig { group_protocol, ..topic.config() };
    if group_protocol == GroupProtocol::Consumer {
        config.properties.retain(|(name, _)| name.starts_with("topic."));
    }
    let log = KafkaLog::new(config).unwrap();
    let mut first = Reader::join(&log, 0);
    first.until_owned(4).await;
    first.source.start(&[0, 1, 2, 3].map(|p| topic.at(p, 0))).unwrap();
    first.until(|r| r.records.len() == 2_000).await;

    let mut second = Reader::join(&log, 1);
    let revoked = loop {
        if let SourceEvent::Revoked(partitions) = first.next().await.unwrap() {
            break partitions;
        }
    };
    assert_eq!(revoked.len(), 2);
    // What is written now belongs to the next owner.
    for partition in 0..4 {
        topic.fill(partition, 100).await;
    }
    let commits: Vec<_> =
        revoked.iter().map(|p| commit((p.clone(), Position(500)), "foldline/1 t 1")).collect();
    first.source.committer().commit(&commits).await.unwrap();
    // Until the task lets go, the partitions do not move.
    let early = tokio::time::timeout(Duration::from_secs(2), second.next()).await;
    assert!(early.is_err(), "{early:?}");
    first.source.release(&revoked).unwrap();

    second.until_owned(2).await;
    assert!(second.owned.iter().all(|p| revoked.contains(p)), "{:?}", second.owned);
    let committed = log.committed().await.unwrap();
    assert_eq!(committed.len(), 2);
    let from: Vec<_> = committed.into_iter().map(|c| (c.partition, c.position)).collect();
    second.source.start(&from).unwrap();
    second.until(|r| r.records.len() == 200).await;
    first.until(|r| r.records.len() == 2_200).await;
    for partition in 0..4 {
        let (one, two) = (first.offsets(partition), second.offsets(partition));
        let all: Vec<i64> = one.iter().chain(&two).copied().collect();
        assert_eq!(all, (0..600).collect::<Vec<_>>(), "partition {partition}");
    }

    // The old owner may not commit for them any more, and what it says of them is ignored.
    first.source.start(&[(revoked[0].clone(), Position(0))]).unwrap();
    second.source.close().await;
    first.until_owned(4).await;
    first.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_partitions() {
    two_members_share("share", GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_partitions_by_kip_848() {
    two_members_share("share848", GroupProtocol::Consumer).await;
}

/// A config whose members are missed only after a session of 45 s.
fn patient(topic: &Topic, group_protocol: GroupProtocol) -> KafkaConfig {
    let mut config = KafkaConfig { group_protocol, ..topic.config() };
    config.properties.retain(|(name, _)| name.starts_with("topic."));
    config
}

/// A member without partitions leaves, be it that there are none left for it or that it waits for another to let go:
/// nobody waits for it afterwards.
async fn who_has_nothing_leaves(name: &str, protocol: GroupProtocol) {
    let topic = Topic::new(name, 1).await;
    let log = KafkaLog::new(patient(&topic, protocol)).unwrap();
    let mut owner = Reader::join(&log, 0);
    owner.until_owned(1).await;
    let soon = Duration::from_secs(12);
    let within = async |what: &str, reader: &mut Reader, count| {
        let until = tokio::time::timeout(soon, reader.until_owned(count)).await;
        until.unwrap_or_else(|_| panic!("{what}: the group waits for it"));
    };
    let idle = Reader::join(&log, 1);
    // Long enough to have joined.
    tokio::time::sleep(Duration::from_secs(6)).await;
    idle.source.close().await;
    owner.source.close().await;
    let mut owner = Reader::join(&log, 0);
    within("after an idle one left", &mut owner, 1).await;

    // Another partition, and a member that waits for the first to give one up.
    topic.grow(2).await;
    within("the new partition", &mut owner, 2).await;
    let waiting = Reader::join(&log, 1);
    let revoked = loop {
        if let SourceEvent::Revoked(partitions) = owner.next().await.unwrap() {
            break partitions;
        }
    };
    waiting.source.close().await;
    owner.source.release(&revoked).unwrap();
    within("after one that waited left", &mut owner, 2).await;
    owner.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_partitions_leaves_its_group() {
    who_has_nothing_leaves("ghost", GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_partitions_leaves_its_group_by_kip_848() {
    who_has_nothing_leaves("ghost848", GroupProtocol::Consumer).await;
}

/// A cluster, in memory, whose brokers know the consumer group protocol as Kafka 3.9 does: version 0 alone.
#[expect(unsafe_code, reason = "the safe crate does not know this request")]
fn old_cluster() -> (BaseConsumer, String) {
    let mut config = ClientConfig::new();
    config.set("test.mock.num.brokers", "1").set("group.id", "owner-of-the-cluster");
    let owner: BaseConsumer = config.create().unwrap();
    // SAFETY: the client owns the cluster and is returned with its address, which is copied; the name is a C string.
    let servers = unsafe {
        let cluster = rd::rd_kafka_handle_mock_cluster(owner.client().native_ptr());
        rd::rd_kafka_mock_topic_create(cluster, c"t".as_ptr(), 1, 1);
        const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
        rd::rd_kafka_mock_set_apiversion(cluster, CONSUMER_GROUP_HEARTBEAT, 0, 0);
        let servers = rd::rd_kafka_mock_cluster_bootstraps(cluster);
        std::ffi::CStr::from_ptr(servers).to_str().unwrap().to_owned()
    };
    (owner, servers)
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_do_not_know_the_consumer_protocol_are_refused_by_name() {
    let (_owner, bootstrap_servers) = old_cluster();
    let config = KafkaConfig {
        declared: Vec::new(),
        bootstrap_servers,
        properties: Vec::new(),
        group: unique("old"),
        topics: Topics::List(vec!["t".into()]),
        group_protocol: GroupProtocol::Consumer,
        group_instance_id: None,
        client_id: "foldline-test".into(),
        worker: None,
    };
    let mut reader = Reader::join(&KafkaLog::new(config).unwrap(), 0);
    let error = reader.error().await;
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    for part in ["ConsumerGroupHeartbeat", "Kafka 4.0", "group_protocol = \"classic\""] {
        assert!(error.message().contains(part), "no {part} in {error}");
    }
    reader.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_task_is_long_in_finding_its_positions_keeps_its_partitions() {
    let topic = Topic::new("late", 2).await;
    topic.fill(0, 10).await;
    let log = topic.log();
    let mut reader = Reader::join(&log, 0);
    reader.until_owned(2).await;
    // The session timeout is 6 s: without heartbeats the broker would throw the member out. What is
    // tested is that nothing happens for that long.
    let quiet = tokio::time::timeout(
        Duration::from_secs(10),
        reader.source.next(foldline_api::source::Wanted::All),
    )
    .await;
    assert!(quiet.is_err(), "{quiet:?}");

    // Meanwhile the group is not held up either: a second member gets its share.
    let mut second = Reader::join(&log, 1);
    let Ok(SourceEvent::Revoked(revoked)) = reader.next().await else { panic!("a revocation") };
    // The answer to the first assignment comes too late for one of them.
    reader.source.start(&[topic.at(0, 0), topic.at(1, 0)]).unwrap();
    reader.source.release(&revoked).unwrap();
    second.until_owned(1).await;
    second.source.start(&[(revoked[0].clone(), Position(0))]).unwrap();
    let marks = [commit((reader.owned[0].clone(), Position(0)), "m")];
    reader.source.committer().commit(&marks).await.unwrap();
    reader.until(|r| r.ends.len() == 1).await;
    second.until(|r| r.ends.len() == 1).await;
    assert_eq!(reader.records.len() + second.records.len(), 10);
    reader.source.close().await;
    second.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_static_member_ends_the_first_with_a_config_error() {
    let topic = Topic::new("static", 1).await;
    let config = KafkaConfig { group_instance_id: Some("node".into()), ..topic.config() };
    let log = KafkaLog::new(config).unwrap();
    let mut first = Reader::join(&log, 0);
    first.until_owned(1).await;
    first.source.start(&[topic.at(0, 0)]).unwrap();
    let mut second = Reader::join(&log, 0);
    second.until_owned(1).await;
    let error = first.error().await;
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert_eq!(first.error().await.class(), ErrorClass::Config, "again, each time");
    first.source.close().await;
    second.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_thrown_out_loses_its_partitions_and_gets_them_again() {
    // A real broker throws out only who is silent, and this member never is.
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let topic = Topic(unique("lost"));
    let config = KafkaConfig {
        bootstrap_servers: cluster.bootstrap_servers(),
        topics: Topics::List(vec!["t".into()]),
        ..topic.config()
    };
    let records: Vec<_> = (0..10).map(|n| record(n % 2, n.to_string().into())).collect();
    produce(&config, "t", &records).await.unwrap();
    let log = KafkaLog::new(config).unwrap();
    let mut reader = Reader::join(&log, 0);
    reader.until_owned(2).await;
    let from = [0, 1].map(|p| (TopicPartition::new("t", p), Position(0)));
    reader.source.start(&from).unwrap();
    reader.until(|r| r.records.len() == 10).await;

    let thrown_out = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    cluster.request_errors(RDKafkaApiKey::Heartbeat, &[thrown_out]);
    let lost = loop {
        match reader.next().await.unwrap() {
            SourceEvent::Lost(partitions) => break partitions,
            SourceEvent::End(..) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(lost.len(), 2);
    reader.until_owned(2).await;
    reader.source.start(&from).unwrap();
    reader.until(|r| r.records.len() == 20).await;
    reader.source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_lost_while_paused_are_read_when_they_come_back() {
    const RECORDS: usize = 400;
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let topic = Topic(unique("paused"));
    let mut config = KafkaConfig {
        bootstrap_servers: cluster.bootstrap_servers(),
        topics: Topics::List(vec!["t".into()]),
        ..topic.config()
    };
    // A task that is behind is paused after a quarter of it.
    for name in ["max.poll.interval.ms", "session.timeout.ms"] {
        config.properties.push((name.into(), "6000".into()));
    }
    let value = vec![b'x'; 20_000];
    let records: Vec<_> =
        (0..RECORDS).map(|n| record((n % 2) as i32, value.clone().into())).collect();
    produce(&config, "t", &records).await.unwrap();
    let log = KafkaLog::new(config).unwrap();
    let mut reader = Reader::join(&log, 7);
    reader.source.close().await;
    reader.source = log.source(0, 1 << 20).unwrap();
    reader.until_owned(2).await;
    let from = [0, 1].map(|p| (TopicPartition::new("t", p), Position(0)));
    reader.source.start(&from).unwrap();
    // The fault itself: a task that takes nothing, for longer than it takes to be paused.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let thrown_out = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    cluster.request_errors(RDKafkaApiKey::Heartbeat, &[thrown_out]);
    let lost = async {
        loop {
            let event = reader.source.next(foldline_api::source::Wanted::Control).await;
            if let Ok(SourceEvent::Lost(partitions)) = event {
                return partitions;
            }
        }
    };
    assert_eq!(tokio::time::timeout(common::PATIENCE, lost).await.unwrap().len(), 2);
    reader.owned.clear();
    reader.until_owned(2).await;
    reader.source.start(&from).unwrap();
    reader.until(|r| r.records.len() == RECORDS).await;
    reader.source.close().await;
}
