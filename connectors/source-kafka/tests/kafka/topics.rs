//! Topics that the config describes.

use foldline_source_kafka::DeclaredTopic;

use super::*;

fn declared(topic: &Topic, partitions: i32, config: &[(&str, &str)]) -> DeclaredTopic {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    DeclaredTopic {
        name: topic.0.clone(),
        partitions: Some(partitions),
        replication_factor: Some(1),
        config: config.iter().map(pair).collect(),
    }
}

fn log_of(topic: &Topic, declared: DeclaredTopic) -> KafkaLog {
    KafkaLog::new(KafkaConfig { declared: vec![declared], ..topic.config() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_is_made_as_described_also_by_two_at_once() {
    let topic = Topic(unique("made"));
    let config = [("cleanup.policy", "compact"), ("retention.ms", "-1")];
    let (one, other) = (
        log_of(&topic, declared(&topic, 3, &config)),
        log_of(&topic, declared(&topic, 3, &config)),
    );
    assert!(one.describes_topics());
    let (first, second) = tokio::join!(one.settle_topics(&[]), other.settle_topics(&[]));
    assert_eq!((first.unwrap(), second.unwrap()), (vec![], vec![]));
    assert_eq!(one.partitions().await.unwrap().len(), 3);
    // As it is there, and then as it is not.
    assert_eq!(one.settle_topics(&[topic.0.as_str().into()]).await.unwrap(), [""; 0]);
    let differs = declared(
        &topic,
        5,
        &[("cleanup.policy", "delete"), ("retention.ms", "-1"), ("no.such", "1")],
    );
    let differences = log_of(&topic, differs.clone()).settle_topics(&[]).await.unwrap();
    for says in [
        "partitions 3, and the config says 5",
        "`cleanup.policy` \"compact\"",
        "no property `no.such`",
    ] {
        assert!(differences.iter().any(|line| line.contains(says)), "{says}: {differences:?}");
    }
    assert_eq!(differences.len(), 3, "{differences:?}");
    let all = DeclaredTopic { name: format!("^{}$", topic.0), ..differs };
    assert_eq!(log_of(&topic, all).settle_topics(&[]).await.unwrap(), differences);
    assert_eq!(one.partitions().await.unwrap().len(), 3, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_folded_is_not_made_anew() {
    let topic = Topic(unique("lost"));
    let log = log_of(&topic, declared(&topic, 3, &[]));
    assert_eq!(log.settle_topics(&[topic.0.as_str().into()]).await.unwrap(), [""; 0]);
    let error = log.partitions().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(error.message().contains("does not exist"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_refuses_of_a_topic_is_told() {
    let topic = Topic(unique("refused"));
    let log = log_of(&topic, declared(&topic, 1, &[("retention.ms", "soon")]));
    let error = log.settle_topics(&[]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.message().contains(&topic.0), "{error}");
}
