//! `verify` over a log and a store in memory.

use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::StoredVerdict;
use foldline_testkit::MemoryStore;

use super::*;
use crate::replay::testing::Bench;

struct Found {
    drifts: Vec<(String, &'static str, bool, Vec<String>)>,
    repaired: Vec<String>,
    summary: Summary,
}

async fn run(bench: &Bench, request: Request) -> Found {
    let (lines, mut told) = mpsc::channel(4);
    let running = tokio::spawn(verify(bench.parts.clone(), request, lines));
    let (mut drifts, mut repaired, mut summary) = (Vec::new(), Vec::new(), None);
    while let Some(line) = told.recv().await {
        match line {
            Line::Progress { .. } => {}
            Line::Drift(d) => {
                let fields = d.fields.into_iter().map(|field| field.field).collect();
                drifts.push((d.key, d.kind, d.order_dependent, fields));
            }
            Line::Repaired { key } => repaired.push(key),
            Line::Summary(found) => summary = Some(found),
            Line::Error { message } => panic!("{message}"),
        }
    }
    running.await.unwrap();
    drifts.sort();
    repaired.sort();
    Found { drifts, repaired, summary: summary.expect("an end") }
}

fn stores() -> [MemoryStore; 2] {
    [MemoryStore::transactional(), MemoryStore::with_marks()]
}

async fn filled(store: MemoryStore) -> Bench {
    let mut bench = Bench::new("sums", store, 2).await;
    for n in 0..60 {
        let id = n % 20;
        bench.append((id % 2) as i32, "k", &format!(r#"{{"id":{id},"v":"v{n}"}}"#), n);
    }
    bench.append(0, "k", r#"{"id":50,"ids":[1,3,40]}"#, 70);
    bench.append(0, "k", r#"{"id":4,"v":"skip"}"#, 71);
    bench.append(0, "k", "{", 72);
    bench.write(&[], true).await;
    bench
}

fn plant(bench: &Bench) {
    let rows = bench.store.rows("t");
    let mut wrong = rows[&bench.key("3")].clone();
    wrong.values_mut()[1] = Value::Int(7_000);
    bench.store.edit("t", &bench.key("3"), Some(wrong.clone()));
    bench.store.edit("t", &bench.key("5"), None);
    wrong.values_mut()[0] = Value::Int(77);
    bench.store.edit("t", &bench.key("77"), Some(wrong));
}

fn spoil(bench: &Bench, keys: &[&str]) {
    for key in keys.iter().map(|key| bench.key(key)) {
        let mut row = bench.store.rows("t")[&key].clone();
        row.values_mut()[1] = Value::Int(7_000);
        bench.store.edit("t", &key, Some(row));
    }
}

#[tokio::test(start_paused = true)]
async fn it_finds_what_was_planted_and_nothing_else_and_repairs_exactly_that() {
    for store in stores() {
        for memory in [1 << 20, 0] {
            let mut bench = filled(store.clone()).await;
            bench.parts.memory = memory;
            let clean = run(&bench, Request::default()).await;
            assert!(clean.drifts.is_empty(), "memory {memory}: {:?}", clean.drifts);
            assert_eq!((clean.summary.rows, clean.summary.events), (21, 63));
            let before = bench.store.rows("t");
            plant(&bench);
            let expected = [
                ("3".to_owned(), "changed", false, vec!["n".to_owned()]),
                ("5".to_owned(), "missing", false, ["id", "n", "last"].map(str::to_owned).to_vec()),
                ("77".to_owned(), "extra", false, ["id", "n", "last"].map(str::to_owned).to_vec()),
            ];
            let found = run(&bench, Request::default()).await;
            assert_eq!(found.drifts, expected);
            assert_eq!((found.summary.drift, found.summary.repaired), (3, 0));
            let repaired = run(&bench, Request { repair: true, sample: None }).await;
            assert_eq!(repaired.repaired, ["3", "5", "77"]);
            assert_eq!(bench.store.rows("t"), before);
            assert_eq!(run(&bench, Request::default()).await.summary.drift, 0);
            bench.store.drop_table("t");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sample_is_the_same_each_time_and_samples_cover_all() {
    let bench = filled(MemoryStore::transactional()).await;
    let sample = Request { sample: Some(3), repair: false };
    let (first, second) = (run(&bench, sample).await, run(&bench, sample).await);
    assert_eq!(first.summary.rows, second.summary.rows);
    assert!((1..21).contains(&first.summary.rows), "{}", first.summary.rows);
    let all = run(&bench, Request { sample: Some(1), repair: false }).await;
    assert_eq!(all.summary.rows, 21);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_newer_than_its_positions_is_no_drift() {
    let mut bench = filled(MemoryStore::with_marks()).await;
    bench.append(1, "k", r#"{"id":7,"v":"newer"}"#, 90);
    bench.write(&[], false).await;
    let found = run(&bench, Request::default()).await;
    assert_eq!((found.summary.drift, found.summary.unsettled), (0, 1));
    // The flush ends, and the row is judged.
    bench.write(&[], true).await;
    let found = run(&bench, Request::default()).await;
    assert_eq!((found.summary.drift, found.summary.unsettled), (0, 0));
}

/// The row of key 7 is newer than its positions whenever it is looked at; `wrong` is planted in it at first.
async fn found_of_a_busy_row(wrong: bool) -> (u64, u64) {
    let mut bench = filled(MemoryStore::with_marks()).await;
    let event = r#"{"id":7,"v":"newer"}"#;
    bench.append(1, "k", event, 90);
    bench.write(&[], false).await;
    if wrong {
        spoil(&bench, &["7"]);
    }
    let (lines, _told) = mpsc::channel(4);
    let mut verify = Verify::start(bench.parts.clone(), Request::default(), lines).unwrap();
    verify.compare_all().await.unwrap();
    assert_eq!(verify.ahead.len(), 1);
    bench.append(1, "k", event, 91);
    bench.write(&[], true).await;
    bench.append(1, "k", event, 92);
    bench.write(&[], false).await;
    verify.settle().await.unwrap();
    let summary = verify.end();
    (summary.drift, summary.unsettled)
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_always_newer_is_judged_when_the_fold_meets_it() {
    assert_eq!(found_of_a_busy_row(false).await, (0, 0));
    assert_eq!(found_of_a_busy_row(true).await, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_newer_take_bounded_memory_and_are_all_judged() {
    let mut bench = filled(MemoryStore::with_marks()).await;
    let long = "x".repeat(1_000);
    for id in 0..40 {
        bench.append(id % 2, "k", &format!(r#"{{"id":{id},"v":"{long}"}}"#), 90);
    }
    bench.write(&[], false).await;
    spoil(&bench, &["3", "38"]);
    bench.parts.memory = 4_000 * AHEAD_SHARE;
    let (lines, told) = mpsc::channel(100);
    let mut verify = Verify::start(bench.parts.clone(), Request::default(), lines).unwrap();
    verify.compare_all().await.unwrap();
    assert!((1..=4_000).contains(&verify.ahead.bytes()), "{}", verify.ahead.bytes());
    assert_eq!(verify.ahead.len(), 40);
    // The flush ends: what was held is met, and the rest is read again.
    bench.write(&[], true).await;
    spoil(&bench, &["3", "38"]);
    verify.settle().await.unwrap();
    assert_eq!(verify.ahead.bytes(), 0);
    let summary = verify.end();
    assert_eq!((summary.drift, summary.unsettled), (2, 0));
    drop(told);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_of_the_store_is_repeated() {
    for store in stores() {
        let mut bench = Bench::new("sums", store, 1).await;
        for n in 0..5 {
            bench.append(0, "k", &format!(r#"{{"id":1,"v":"v{n}"}}"#), n);
        }
        let partition = TopicPartition::new("events", 0);
        let verdict = StoredVerdict::new(partition, 2, "a CHECK", None);
        bench.write(&[verdict], true).await;
        assert_eq!(bench.store.rows("t").values().next().unwrap().get(1), &Value::Int(4));
        let summary = run(&bench, Request::default()).await.summary;
        assert_eq!((summary.drift, summary.unasked), (0, 1), "nobody knows what refused it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_repeated_only_while_what_refused_stands() {
    for store in stores() {
        let mut bench = Bench::new("sums", store, 1).await;
        for n in 0..5 {
            bench.append(0, "k", &format!(r#"{{"id":1,"v":"v{n}"}}"#), n);
        }
        bench.store.define("t", "CHECK", std::sync::Arc::new(|_| None));
        let partition = TopicPartition::new("events", 0);
        let known = Some(format!("{} CHECK", bench.parts.projection.fingerprint()));
        bench.write(&[StoredVerdict::new(partition, 2, "a CHECK", known)], true).await;
        let summary = run(&bench, Request::default()).await.summary;
        assert_eq!((summary.drift, summary.unasked), (0, 0));
        bench.store.constrain("t", None);
        let summary = run(&bench, Request::default()).await.summary;
        assert_eq!((summary.drift, summary.unasked), (1, 0), "the row lacks a good event");
        let repair = Request { repair: true, ..Request::default() };
        assert_eq!(run(&bench, repair).await.summary.repaired, 1);
        assert_eq!(bench.store.rows("t").values().next().unwrap().get(1), &Value::Int(5));
        assert_eq!(run(&bench, Request::default()).await.summary.drift, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_is_in_no_row() {
    for store in stores() {
        let mut bench = Bench::new("sums", store, 1).await;
        for n in 0..5 {
            bench.append(0, "k", &format!(r#"{{"id":1,"v":"v{n}"}}"#), n);
        }
        bench.parks = vec![2, 4];
        bench.write(&[], true).await;
        assert_eq!(bench.store.rows("t").values().next().unwrap().get(1), &Value::Int(3));
        assert_eq!(run(&bench, Request::default()).await.summary.drift, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_order_explains_is_told_and_not_repaired() {
    let mut bench = Bench::new("sums", MemoryStore::transactional(), 2).await;
    bench.append(0, "k", r#"{"id":1,"v":"a"}"#, 10);
    bench.append(1, "k", r#"{"id":1,"v":"b"}"#, 20);
    bench.append(0, "k", r#"{"id":2,"v":"a"}"#, 30);
    bench.write(&[], true).await;
    let mut row = bench.store.rows("t")[&bench.key("1")].clone();
    row.values_mut()[2] = Value::text("a");
    bench.store.edit("t", &bench.key("1"), Some(row.clone()));
    let found = run(&bench, Request { repair: true, sample: None }).await;
    assert_eq!(found.drifts, [("1".to_owned(), "changed", true, vec!["last".to_owned()])]);
    assert_eq!((found.summary.drift, found.summary.order_dependent), (0, 1));
    assert_eq!(bench.store.rows("t")[&bench.key("1")], row);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_its_beginning_is_said() {
    let bench = filled(MemoryStore::transactional()).await;
    bench.log.forget_before(&TopicPartition::new("events", 0), 5);
    let (lines, mut told) = mpsc::channel(4);
    verify(bench.parts.clone(), Request::default(), lines).await;
    let Some(Line::Error { message }) = told.recv().await else { panic!("an error") };
    assert!(message.contains("offset 5"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn rows_that_another_projection_began_are_not_judged() {
    let mut bench = filled(MemoryStore::transactional()).await;
    bench.carry_on().await;
    let (lines, mut told) = mpsc::channel(4);
    verify(bench.parts.clone(), Request::default(), lines).await;
    let Some(Line::Error { message }) = told.recv().await else { panic!("an error") };
    assert!(message.contains("carried on") && message.contains("foldline rebuild"), "{message}");
}

#[tokio::test]
async fn what_an_operator_left_out_is_told_and_no_drift() {
    for store in stores() {
        let bench = filled(store).await;
        let partition = TopicPartition::new("events", 0);
        let from = bench.log.records("events").iter().filter(|r| r.partition == 0).count();
        let from = i64::try_from(from).unwrap();
        for n in 0..5 {
            bench.log.append("events", 0, None, Some(&format!(r#"{{"id":{n},"v":"hole"}}"#)));
        }
        // It cannot be read either.
        bench.log.break_at("events", 0, from + 2);
        let holes = bench.parts.target.holes();
        holes.skip(1, &[(partition, Position(from + 5))]).await.unwrap();
        let found = run(&bench, Request::default()).await;
        let [told] = &found.summary.left_out[..] else { panic!("{:?}", found.summary.left_out) };
        let hole = format!("offsets {from} to {} of `events-0`; every rebuild leaves", from + 4);
        assert!(told.starts_with(&hole), "{told}");
        assert_eq!((found.summary.drift, found.summary.unsettled), (0, 0));
    }
}

/// As long as the old topic, and with other rows.
fn made_anew(log: &foldline_testkit::MemoryLog) {
    let records = log.records("events");
    log.delete_topic("events");
    log.create_topic("events", 2);
    for record in records {
        let value = Some(bytes::Bytes::from_static(br#"{"id":900,"v":"of the new one"}"#));
        log.append_record("events", record.partition, (None, value), Vec::new(), Some(0));
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_topic_that_is_made_anew_meanwhile_nothing_is_told_and_nothing_repaired() {
    for store in stores() {
        let bench = filled(store).await;
        let rows = bench.store.rows("t");
        bench.log.before_read(made_anew);
        let (lines, mut told) = mpsc::channel(100);
        let request = Request { repair: true, ..Request::default() };
        verify(bench.parts.clone(), request, lines).await;
        let mut last = None;
        while let Some(line) = told.recv().await {
            let harmless = matches!(line, Line::Progress { .. } | Line::Error { .. });
            assert!(harmless, "{line:?}");
            last = Some(line);
        }
        let Some(Line::Error { message }) = last else { panic!("{last:?}") };
        assert!(message.contains("created again"), "{message}");
        assert_eq!(bench.store.rows("t"), rows);
    }
}
