//! The file log from outside: files in, records out.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy takes the helpers of an integration test for production code"
)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldline_api::ErrorClass;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::source::{
    Commit, DeadLetter, DeadLetters, Log, Source, SourceEvent, Start, Wanted,
};
use foldline_source_file::{FileConfig, FileDeadLetters, FileLog, FileProducer, NewRecord};

fn log_of(path: &Path, topics: &[&str], tasks_max: u32) -> FileLog {
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    let (path, group) = (path.to_owned(), "g".to_owned());
    FileLog::new(FileConfig { path, topics, except: vec!["dlq-g".to_owned()], group, tasks_max })
        .unwrap()
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn append(path: &Path, partition: i32, text: &str) {
    fs::create_dir_all(path.join("t")).unwrap();
    let file = path.join(format!("t/{partition}.ndjson"));
    let mut file = OpenOptions::new().append(true).create(true).open(file).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

async fn next(source: &mut dyn Source) -> SourceEvent {
    try_next(source).await.unwrap()
}

async fn try_next(source: &mut dyn Source) -> foldline_api::Result<SourceEvent> {
    tokio::time::timeout(Duration::from_secs(30), source.next(Wanted::All))
        .await
        .expect("nothing happened")
}

async fn started(log: &FileLog, from: i64) -> Box<dyn Source> {
    let mut source = log.source(0, 1 << 20).unwrap();
    let SourceEvent::Assigned(partitions) = next(&mut *source).await else {
        panic!("not assigned")
    };
    let from: Vec<_> = partitions.into_iter().map(|p| (p, Position(from))).collect();
    source.start(&from).unwrap();
    source
}

/// Records until an end is told.
async fn until_end(source: &mut dyn Source) -> (Vec<Record>, Position) {
    let mut records = Vec::new();
    loop {
        match next(source).await {
            SourceEvent::Records(more) => records.extend(more),
            SourceEvent::End(_, position) => return (records, position),
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn values(records: &[Record]) -> Vec<(i64, String)> {
    let text =
        |r: &Record| String::from_utf8(r.value.clone().unwrap_or_default().to_vec()).unwrap();
    records.iter().map(|record| (record.offset, text(record))).collect()
}

#[tokio::test]
async fn lines_are_tailed_and_a_torn_one_waits() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), 0, "{\"value\":1}\n\n{\"value\":2}\r\nnot json\n{\"val");
    let log = log_of(folder.path(), &["t"], 1);
    let mut source = started(&log, 0).await;
    let (records, end) = until_end(&mut *source).await;
    let expect = [(0, "1"), (2, "2"), (3, "not json")].map(|(at, text)| (at, text.to_owned()));
    assert_eq!(values(&records), expect);
    assert_eq!(end, Position(4));
    append(folder.path(), 0, "ue\":3}\n");
    let (records, end) = until_end(&mut *source).await;
    assert_eq!((values(&records), end), (vec![(4, "3".to_owned())], Position(5)));
    assert_eq!(source.ends(), [(place(0), Position(5))]);
    assert_eq!(log.partitions().await.unwrap()[0].high, Position(5));
}

#[tokio::test]
async fn a_seek_delivers_nothing_of_the_old_position() {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..50_000).map(|n| format!("{{\"value\":{n}}}\n")).collect();
    append(folder.path(), 0, &lines);
    let log = log_of(folder.path(), &["t"], 1);
    let mut source = started(&log, 0).await;
    assert!(matches!(next(&mut *source).await, SourceEvent::Records(_)));
    source.start(&[(place(0), Position(49_000))]).unwrap();
    let (records, end) = until_end(&mut *source).await;
    let expect: Vec<_> = (49_000..50_000).map(|n| (n, n.to_string())).collect();
    assert_eq!((values(&records), end), (expect, Position(50_000)));
}

#[tokio::test]
async fn new_partitions_are_picked_up_and_tasks_share_them() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), 0, "{\"value\":0}\n");
    append(folder.path(), 1, "{\"value\":1}\n");
    // Dead letters are not read again, whatever a regex says.
    fs::create_dir(folder.path().join("dlq-g")).unwrap();
    fs::write(folder.path().join("dlq-g/0.ndjson"), "{\"value\":9}\n").unwrap();
    let log = log_of(folder.path(), &["^.*"], 2);
    let mut first = log.source(0, 1 << 20).unwrap();
    let mut second = log.source(1, 1 << 20).unwrap();
    let assigned = |event| match event {
        SourceEvent::Assigned(partitions) => partitions,
        other => panic!("unexpected {other:?}"),
    };
    assert_eq!(assigned(next(&mut *first).await), [place(0)]);
    assert_eq!(assigned(next(&mut *second).await), [place(1)]);
    append(folder.path(), 2, "{\"value\":2}\n");
    assert_eq!(assigned(next(&mut *first).await), [place(2)]);
    assert!(log.source(1, 1 << 20).is_err(), "a task runs once");
    drop(second);
    let mut again = log.source(1, 1 << 20).unwrap();
    assert_eq!(assigned(next(&mut *again).await), [place(1)]);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), 0, "");
    let log = log_of(folder.path(), &["t"], 1);
    let mut source = log.source(0, 1 << 20).unwrap();
    assert!(matches!(next(&mut *source).await, SourceEvent::Assigned(_)));
    fs::remove_file(folder.path().join("t/0.ndjson")).unwrap();
    source.start(&[(place(0), Position(0))]).unwrap();
    let error = try_next(&mut *source).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retriable, "{error}");
    append(folder.path(), 0, "{\"value\":1}\n");
    let records = loop {
        match try_next(&mut *source).await {
            Ok(SourceEvent::Records(records)) => break records,
            Ok(other) => panic!("unexpected {other:?}"),
            Err(error) => assert_eq!(error.class(), ErrorClass::Retriable, "{error}"),
        }
    };
    assert_eq!(values(&records), [(0, "1".to_owned())]);
}

#[tokio::test]
async fn a_paused_task_sees_new_partitions_and_no_records() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), 0, "{\"value\":0}\n");
    let log = log_of(folder.path(), &["t"], 1);
    let mut source = started(&log, 0).await;
    append(folder.path(), 1, "{\"value\":1}\n");
    let control = source.next(Wanted::Control);
    let event = tokio::time::timeout(Duration::from_secs(30), control).await.unwrap().unwrap();
    assert!(matches!(event, SourceEvent::Assigned(partitions) if partitions == [place(1)]));
    let SourceEvent::Records(records) = next(&mut *source).await else { panic!("lost") };
    assert_eq!(values(&records), [(0, "0".to_owned())], "what was not wanted stayed queued");
}

#[tokio::test]
async fn a_file_that_shrank_is_a_config_error() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), 0, "{\"value\":1}\n{\"value\":2}\n");
    let log = log_of(folder.path(), &["t"], 1);
    let mut source = started(&log, 0).await;
    until_end(&mut *source).await;
    fs::write(folder.path().join("t/0.ndjson"), "{\"value\":1}\n").unwrap();
    let error = try_next(&mut *source).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.message().contains("became shorter"), "{error}");
    drop(source);
    let log = log_of(folder.path(), &["t"], 1);
    let mut source = started(&log, 2).await;
    let error = try_next(&mut *source).await.unwrap_err();
    assert!(error.message().contains("has 1 lines"), "{error}");
}

#[tokio::test]
async fn a_file_that_was_replaced_is_a_config_error() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), 0, "{\"value\":1}\n");
    let log = log_of(folder.path(), &["t"], 1);
    let mut source = started(&log, 0).await;
    until_end(&mut *source).await;
    fs::remove_dir_all(folder.path().join("t")).unwrap();
    append(folder.path(), 0, "{\"value\":1}\n{\"value\":2}\n");
    let error = try_next(&mut *source).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
}

#[tokio::test]
async fn ids_tell_logs_and_lives_of_topics_apart() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_of(folder.path(), &["t"], 1);
    let error = log.partitions().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    append(folder.path(), 0, "");
    let id = |log: FileLog| async move { log.partitions().await.unwrap()[0].topic_id.clone() };
    let (identity, first) = (log.identity().await.unwrap(), id(log.clone()).await);
    assert_eq!(first, id(log_of(folder.path(), &["t"], 1)).await);
    fs::remove_dir_all(folder.path().join("t")).unwrap();
    append(folder.path(), 0, "");
    assert_ne!(first, id(log.clone()).await);
    assert_eq!(log.identity().await.unwrap(), identity);
}

#[tokio::test]
async fn commits_survive_and_a_second_worker_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), 0, "{\"value\":1}\n");
    let log = log_of(folder.path(), &["t"], 1);
    let commit = |offset, metadata: &str| Commit {
        partition: place(0),
        position: Position(offset),
        metadata: metadata.to_owned(),
    };
    assert!(log.committed().await.unwrap().is_empty());
    let source = started(&log, 0).await;
    source.committer().commit(&[commit(1, "foldline/1 x 1")]).await.unwrap();
    let other = log_of(folder.path(), &["t"], 1);
    assert_eq!(other.committed().await.unwrap(), [commit(1, "foldline/1 x 1")]);
    assert_eq!(other.commit(&[commit(0, "")]).await.unwrap_err().class(), ErrorClass::Fenced);
    let error = other.source(0, 1 << 20).map(|_| ()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.message().contains(&std::process::id().to_string()), "{error}");
    source.close().await;
    other.commit(&[commit(0, "")]).await.unwrap();
    assert_eq!(log.committed().await.unwrap(), [commit(0, "")]);
}

#[tokio::test]
async fn a_moment_is_found() {
    let folder = tempfile::tempdir().unwrap();
    append(folder.path(), 0, "{\"timestamp\":10}\n{\"value\":1}\n{\"timestamp\":30}\n");
    let log = log_of(folder.path(), &["t"], 1);
    for (start, expect) in [
        (Start::Earliest, 0),
        (Start::Latest, 3),
        (Start::Timestamp(10), 0),
        (Start::Timestamp(11), 2),
        (Start::Timestamp(31), 3),
    ] {
        assert_eq!(log.find(&[place(0)], start).await.unwrap(), [Position(expect)], "{start:?}");
    }
}

#[tokio::test]
async fn what_is_produced_is_read_by_key_and_in_turns() {
    let folder = tempfile::tempdir().unwrap();
    let producer = Arc::new(FileProducer::new(folder.path()));
    producer.create_topic("t", 3).unwrap();
    // Someone died while writing a line.
    append(folder.path(), 1, "{\"value\":\"to");
    let record = |key: Option<&'static str>, value: &'static str| NewRecord {
        key: key.map(|key| Bytes::from_static(key.as_bytes())),
        value: Some(Bytes::from_static(value.as_bytes())),
        timestamp: Some(5),
        ..NewRecord::default()
    };
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let producer = FileProducer::new(folder.path());
            std::thread::spawn(move || {
                for _ in 0..200 {
                    assert_eq!(
                        producer.append("t", record(Some("foobar"), "{\"n\":1}")).unwrap(),
                        0
                    );
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let turns: Vec<i32> =
        (0..3).map(|_| producer.append("t", record(None, "x")).unwrap()).collect();
    assert_eq!(turns, [0, 1, 2]);
    producer.sync().unwrap();
    let log = log_of(folder.path(), &["t"], 1);
    let highs: Vec<i64> = log.partitions().await.unwrap().iter().map(|info| info.high.0).collect();
    assert_eq!(highs, [801, 2, 1]);
    let mut source = started(&log, 0).await;
    let (mut all, mut ends) = (Vec::new(), 0);
    while ends < 3 {
        match next(&mut *source).await {
            SourceEvent::Records(records) => all.extend(records),
            SourceEvent::End(..) => ends += 1,
            other => panic!("unexpected {other:?}"),
        }
    }
    let keyed = all.iter().filter(|r| r.key.as_deref() == Some(b"foobar")).count();
    let plain = all.iter().filter(|r| r.value.as_deref() == Some(b"x")).count();
    let torn = all.iter().filter(|r| r.value.as_deref() == Some(b"{\"value\":\"to")).count();
    assert_eq!((keyed, plain, torn, all.len()), (800, 3, 1, 804));
}

#[tokio::test]
async fn dead_letters_read_back_as_records() {
    let folder = tempfile::tempdir().unwrap();
    let letters = FileDeadLetters::new(folder.path(), "t").unwrap();
    let letter = DeadLetter {
        partition: TopicPartition::new("orders", 0),
        offset: 3,
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::from_static(b"\xffnot json")),
        headers: vec![(Arc::from("__connect.errors.topic"), Some(Bytes::from_static(b"orders")))],
    };
    for sent in letters.send(&[letter.clone(), letter.clone()]).await {
        sent.unwrap();
    }
    let log = log_of(folder.path(), &["t"], 1);
    let mut source = started(&log, 0).await;
    let (records, _) = until_end(&mut *source).await;
    assert_eq!(records.len(), 2);
    let Record { key, value, headers, timestamp, .. } = records[1].clone();
    assert_eq!((key, value, headers), (letter.key, letter.value, letter.headers));
    assert!(
        timestamp.is_some_and(|at| at > 1_700_000_000_000),
        "a letter lives from now: {timestamp:?}"
    );
}

/// Run by hand: `cargo test --release --workspace --test file_log -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn lines_per_second() {
    let folder = tempfile::tempdir().unwrap();
    let count = 4_000_000;
    let line = |n: i32| {
        format!(
            "{{\"key\":\"{n}\",\"value\":{{\"type\":\"OrderChanged\",\"id\":{n},\"amount\":3}}}}\n"
        )
    };
    let lines: String = (0..count).map(line).collect();
    append(folder.path(), 0, &lines);
    let log = log_of(folder.path(), &["t"], 1);
    let begun = std::time::Instant::now();
    let mut source = started(&log, 0).await;
    let mut records = 0;
    loop {
        match next(&mut *source).await {
            SourceEvent::Records(more) => records += more.len(),
            SourceEvent::End(..) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{:.0} lines/s, {:.0} MB/s",
        records as f64 / seconds,
        lines.len() as f64 / seconds / 1e6
    );
}
