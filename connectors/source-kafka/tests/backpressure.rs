//! A slow task and a large topic. Alone in its process, since it measures that process's memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use std::time::Duration;

use common::{Reader, Topic, record};
use foldline_api::source::{Log, SourceEvent};
use foldline_source_kafka::KafkaProducer;

const RECORDS: usize = 200_000;

/// Resident memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_task_bounds_the_queue_and_loses_nothing() {
    let topic = Topic::new("slow", 4).await;
    let mut config = topic.config();
    // Random bytes would be slow to make; these are not compressed.
    config.properties.push(("compression.type".into(), "none".into()));
    // The least that the broker takes: a task that stalls longer is thrown out unless polling goes on.
    config.properties.push(("max.poll.interval.ms".into(), "6000".into()));
    let producer = KafkaProducer::new(&config).unwrap();
    let value = vec![b'x'; 1_000];
    for chunk in 0..RECORDS / 10_000 {
        let records: Vec<_> =
            (0..10_000).map(|_| record((chunk % 4) as i32, value.clone().into())).collect();
        producer.send(&topic.0, &records).await.unwrap();
    }
    drop(producer);

    let memory = 16 << 20;
    let log = foldline_source_kafka::KafkaLog::new(config).unwrap();
    let mut reader = Reader::join(&log, 7);
    reader.source.close().await;
    reader.source = log.source(0, memory).unwrap();
    reader.until_owned(4).await;
    let before = resident();
    reader.source.start(&[0, 1, 2, 3].map(|p| topic.at(p, 0))).unwrap();
    // Longer than `max.poll.interval.ms`: what is tested is that nothing happens for that long.
    tokio::time::sleep(Duration::from_secs(9)).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 3 * memory, "{grown} bytes for a memory of {memory}");

    let mut next = [0_i64; 4];
    let mut bursts = 0;
    while next.iter().sum::<i64>() < RECORDS as i64 {
        match reader.source.next().await.unwrap() {
            SourceEvent::Records(records) => {
                for record in records {
                    let next = &mut next[record.partition as usize];
                    assert_eq!(record.offset, *next, "in partition {}", record.partition);
                    assert_eq!(record.value.as_ref().map(|v| v.len()), Some(1_000));
                    *next += 1;
                }
                bursts += 1;
                if bursts % 16 == 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            SourceEvent::End(..) => {}
            other => panic!("{other:?}"),
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 3 * memory, "{grown} bytes for a memory of {memory}");
    reader.source.close().await;
}
