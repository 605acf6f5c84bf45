//! Dead letters.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_make_their_topic_and_are_acknowledged() {
    let letter = DeadLetter {
        partition: TopicPartition::new("orders", 0),
        offset: 7,
        key: Some("k".into()),
        value: Some("not json".into()),
        headers: vec![
            ("mine".into(), None),
            ("__connect.errors.topic".into(), Some("orders".into())),
        ],
    };
    let tombstone = DeadLetter { value: None, ..letter.clone() };
    // Larger than brokers take by default.
    let large = DeadLetter { value: Some(vec![7; 3 << 20].into()), ..letter.clone() };
    let all = [letter, tombstone, large];
    // The second one is somebody's own, and has the time that its records were sent with.
    let own = [("max.message.bytes", "8388608"), ("message.timestamp.type", "CreateTime")];
    for topic in [Topic(unique("dlq")), Topic::with("dlq-made", 1, &own).await] {
        let letters = KafkaDeadLetters::new(topic.config(), topic.0.clone()).unwrap();
        let began = now_millis();
        sent(letters.send(&all).await);
        let records = read_all(&topic, 3).await;
        for (record, letter) in records.iter().zip(&all) {
            assert_eq!((&record.key, &record.headers), (&letter.key, &letter.headers));
            assert!(record.value == letter.value);
            // Retention counts from when it was written.
            let at = record.timestamp.unwrap();
            assert!((began - 60_000..=now_millis() + 60_000).contains(&at), "{at} of {began}");
        }
    }
}

fn sent(ends: Vec<foldline_api::Result<()>>) {
    for end in ends {
        end.unwrap();
    }
}

fn now_millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

async fn read_all(topic: &Topic, count: usize) -> Vec<foldline_api::record::Record> {
    let log = topic.log();
    assert_eq!(log.partitions().await.unwrap().len(), 1);
    let mut reader = Reader::join(&log, 0);
    reader.until_owned(1).await;
    reader.source.start(&[topic.at(0, 0)]).unwrap();
    reader.until(|r| r.records.len() == count).await;
    reader.source.close().await;
    reader.records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_does_not_fit_says_where_its_record_is() {
    let place = ("__connect.errors.offset".into(), Some("7".into()));
    let letter = |key: usize, value: usize| DeadLetter {
        partition: TopicPartition::new("orders", 0),
        offset: 7,
        key: Some(vec![b'k'; key].into()),
        value: Some(vec![b'v'; value].into()),
        headers: vec![("mine".into(), Some("h".into())), place.clone()],
    };
    let fits = letter(1, 400);
    // The batch of all is too large for the topic, and so are some of them alone.
    let all = [fits.clone(), letter(2, 3_000), fits.clone(), letter(3_000, 1), fits.clone()];
    // Where the topic refuses it, and where the producer does.
    for (name, limits, property) in
        [("dlq-topic", &[("max.message.bytes", "1000")][..], None), ("dlq-own", &[], Some("1000"))]
    {
        let topic = Topic::with(name, 1, limits).await;
        let mut config = topic.config();
        config.properties.push(("compression.type".into(), "none".into()));
        config.properties.extend(property.map(|bytes| ("message.max.bytes".into(), bytes.into())));
        let letters = KafkaDeadLetters::new(config, topic.0.clone()).unwrap();
        sent(letters.send(&all).await);
        let mut records = read_all(&topic, 5).await;
        records.sort_by_key(|record| record.value.is_none());
        for record in &records[..3] {
            assert_eq!((&record.key, &record.value), (&fits.key, &fits.value));
            assert_eq!(record.headers, fits.headers, "as it was");
        }
        let omitted = |at: usize| {
            let headers = &records[at].headers;
            assert!(headers.contains(&place), "{headers:?}");
            let found = headers.iter().find(|(name, _)| **name == *LETTER_OMITS).unwrap();
            (String::from_utf8(found.1.clone().unwrap().to_vec()).unwrap(), headers.len())
        };
        let mut left = [omitted(3), omitted(4)];
        left.sort();
        let expect = [("key,value,headers".to_owned(), 2), ("value".to_owned(), 3)];
        assert_eq!(left, expect, "{name}");
    }
}
