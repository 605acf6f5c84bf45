use super::*;

#[test]
fn a_moment_is_a_time_or_a_place() {
    assert_eq!(At::parse("1970-01-01T00:00:01.5Z").unwrap(), At::Time(1_500));
    let place = At::Place(TopicPartition::new("a:b", 3), 42);
    assert_eq!(At::parse("a:b:3=42").unwrap(), place);
    for wrong in ["", "yesterday", "orders=4", "orders:x=4", "orders:1=-4", "orders:1"] {
        let error = At::parse(wrong).unwrap_err();
        assert!(error.message().contains("topic:partition=offset"), "{error}");
    }
}

use foldline_api::sink::StoredVerdict;
use foldline_api::value::Value;
use foldline_testkit::MemoryStore;

use crate::replay::testing::Bench;

async fn run(bench: &Bench, key: &str, at: Option<&str>) -> (Vec<Line>, Summary) {
    let (lines, mut told) = mpsc::channel(4);
    let at = at.map(|at| At::parse(at).unwrap());
    let running = tokio::spawn(explain(bench.parts.clone(), bench.key(key), at, lines));
    let mut all = Vec::new();
    while let Some(line) = told.recv().await {
        match line {
            Line::Summary(summary) => {
                running.await.unwrap();
                return (all, summary);
            }
            Line::Error { message } => panic!("{message}"),
            line => all.push(line),
        }
    }
    panic!("no end");
}

fn story(lines: &[Line]) -> Vec<String> {
    let text = |row: &Option<Box<RawValue>>| row.as_ref().map_or("-", |row| row.get()).to_owned();
    let one = |line: &Line| match line {
        Line::Event(event) => {
            Some(format!("{} {} {}", event.offset, event.outcome, text(&event.row)))
        }
        _ => None,
    };
    lines.iter().filter_map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_always_newer_is_compared_when_the_fold_meets_it() {
    let mut bench = Bench::new("single", MemoryStore::with_marks(), 1).await;
    let event = |bench: &Bench| bench.append(0, "a", r#"{"n":1,"v":"x"}"#, 0);
    event(&bench);
    bench.write(&[], true).await;
    event(&bench);
    bench.write(&[], false).await;
    let (lines, mut told) = mpsc::channel(100);
    let running = tokio::spawn(explain(bench.parts.clone(), bench.key("a"), None, lines));
    // It has seen the row of two events, and waits for the positions to come there.
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    event(&bench);
    bench.write(&[], true).await;
    event(&bench);
    bench.write(&[], false).await;
    running.await.unwrap();
    let mut last = None;
    while let Some(line) = told.recv().await {
        last = Some(line);
    }
    let Some(Line::Summary(summary)) = last else { panic!("{last:?}") };
    assert!(!summary.unsettled && summary.differences.is_empty(), "{summary:?}");
    assert_eq!(summary.events, 2);
}

#[tokio::test(start_paused = true)]
async fn it_tells_each_event_of_the_key_with_the_row_after_it() {
    for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
        let mut bench = Bench::new("single", store, 1).await;
        let values = [
            ("a", r#"{"n":1,"v":"x"}"#),
            ("b", r#"{"n":1,"v":"other"}"#),
            ("a", r#"{"n":1,"v":"skip"}"#),
            ("a", r#"{"n":"none","v":"y"}"#),
            ("a", "{"),
            ("a", r#"{"v":"drop"}"#),
            ("a", r#"{"n":5,"v":"z"}"#),
        ];
        for (at, (key, value)) in (0..).zip(values) {
            bench.append(0, key, value, 1_000 * at);
        }
        bench.write(&[], true).await;
        let (lines, summary) = run(&bench, "a", None).await;
        assert_eq!(
            story(&lines),
            [
                r#"0 applied {"id":"a","n":1,"last":"x"}"#,
                r#"2 filtered {"id":"a","n":1,"last":"x"}"#,
                r#"3 dead_lettered {"id":"a","n":1,"last":"x"}"#,
                r#"4 dead_lettered {"id":"a","n":1,"last":"x"}"#,
                "5 applied -",
                r#"6 applied {"id":"a","n":5,"last":"z"}"#,
            ]
        );
        assert_eq!((summary.events, summary.differences.len()), (6, 0));
        // What it was then, by a time and by a place.
        for (at, n) in [("1970-01-01T00:00:02Z", 1), ("events:0=4", 1), ("events:0=6", 5)] {
            let key = bench.key("a");
            let row = row_at(bench.parts.clone(), key, At::parse(at).unwrap()).await.unwrap();
            assert_eq!(row.map(|row| row.get(1).clone()), Some(Value::Int(n)), "{at}");
        }
        let gone = At::parse("events:0=5").unwrap();
        assert_eq!(row_at(bench.parts.clone(), bench.key("a"), gone).await.unwrap(), None);
        let beyond = At::parse("events:0=7").unwrap();
        let error = row_at(bench.parts.clone(), bench.key("a"), beyond).await.unwrap_err();
        assert!(error.message().contains("no offset 7"), "{error}");
        // Someone edits the row: the difference is named.
        let mut row = bench.store.rows("t")[&bench.key("a")].clone();
        row.values_mut()[1] = Value::Int(9);
        bench.store.edit("t", &bench.key("a"), Some(row));
        let (_, summary) = run(&bench, "a", None).await;
        let fields: Vec<_> = summary.differences.iter().map(|d| d.field.clone()).collect();
        assert_eq!(fields, ["n"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_store_cannot_name_is_told_in_words() {
    for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
        let mut bench = Bench::new("single", store, 1).await;
        bench.append(0, "a", r#"{"n":1,"v":"x"}"#, 0);
        bench.append(0, "b", r#"{"n":2,"v":"y"}"#, 1);
        let partition = TopicPartition::new("events", 0);
        let refused = StoredVerdict::new(partition, 0, "no such letter", None);
        bench.write(&[refused], true).await;
        let key = bench.key("a");
        let spelling = move |asked: &Key| (*asked == key).then(|| "no such letter".to_owned());
        bench.store.misspell("t", std::sync::Arc::new(spelling));
        let (lines, summary) = run(&bench, "a", None).await;
        assert_eq!(story(&lines), ["0 dead_lettered -"]);
        assert_eq!(summary.unnamed.as_deref(), Some("no such letter"));
        assert!(matches!(summary.stored, Some(None)) && !summary.unsettled, "{summary:?}");
        assert!(summary.differences.is_empty(), "{summary:?}");
        assert_eq!(run(&bench, "b", None).await.1.unnamed, None);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_partition_that_can_hold_the_key_is_read_where_that_is_known() {
    let mut bench = Bench::new("single", MemoryStore::transactional(), 4).await;
    let place = |key: &str| foldline_source_file::partition_of(key.as_bytes(), 4);
    for at in 0..200 {
        let key = format!("k{}", at % 50);
        bench.append(place(&key), &key, r#"{"n":1,"v":"x"}"#, at);
    }
    bench.write(&[], true).await;
    let (lines, summary) = run(&bench, "k7", None).await;
    let Some(Line::Reading { partitions, of, why, .. }) = lines.first() else { panic!() };
    assert_eq!(partitions, &[format!("events-{}", place("k7"))]);
    assert!(*of == 4 && why.contains("murmur2"), "{why}");
    assert_eq!(summary.events, 4);
    // One record that lies elsewhere, and nothing is known any more.
    let elsewhere = (place("k7") + 1) % 4;
    bench.append(elsewhere, "k7", r#"{"n":1,"v":"y"}"#, 500);
    bench.write(&[], true).await;
    let (lines, summary) = run(&bench, "k7", None).await;
    let Some(Line::Reading { partitions, why, .. }) = lines.first() else { panic!() };
    assert!(partitions.len() == 4 && why.contains("neither"), "{why}");
    assert_eq!((summary.events, summary.differences.len()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn of_a_topic_that_is_made_anew_meanwhile_no_row_is_said_to_differ() {
    for at in [None, Some("events:0=2")] {
        let mut bench = Bench::new("single", MemoryStore::transactional(), 1).await;
        for _ in 0..3 {
            bench.append(0, "a", r#"{"n":1,"v":"x"}"#, 0);
        }
        bench.write(&[], true).await;
        bench.log.before_read(|log| {
            log.delete_topic("events");
            log.create_topic("events", 1);
            for _ in 0..3 {
                log.append("events", 0, Some("a"), Some(r#"{"n":7,"v":"of the new one"}"#));
            }
        });
        let (lines, mut told) = mpsc::channel(100);
        let at = at.map(|at| At::parse(at).unwrap());
        explain(bench.parts.clone(), bench.key("a"), at, lines).await;
        let mut last = None;
        while let Some(line) = told.recv().await {
            assert!(!matches!(line, Line::Summary(_)), "{line:?}");
            last = Some(line);
        }
        let Some(Line::Error { message }) = last else { panic!("{last:?}") };
        assert!(message.contains("created again"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_only_while_what_refused_stands() {
    for store in [MemoryStore::transactional(), MemoryStore::with_marks()] {
        let mut bench = Bench::new("single", store, 1).await;
        for _ in 0..3 {
            bench.append(0, "a", r#"{"n":1,"v":"x"}"#, 0);
        }
        bench.store.define("t", "CHECK", std::sync::Arc::new(|_| None));
        let partition = TopicPartition::new("events", 0);
        let known = Some(format!("{} CHECK", bench.parts.projection.fingerprint()));
        let verdict = StoredVerdict::new(partition, 1, "a CHECK", known);
        bench.write(&[verdict], true).await;
        let told = |lines: &[Line]| -> Vec<(&'static str, Option<String>)> {
            let one = |line: &Line| match line {
                Line::Event(event) => Some((event.outcome, event.reason.clone())),
                _ => None,
            };
            lines.iter().filter_map(one).collect()
        };
        let (lines, summary) = run(&bench, "a", None).await;
        let second = &told(&lines)[1];
        assert!(
            second.0 == "dead_lettered" && second.1.as_deref() == Some("sink: a CHECK"),
            "{second:?}"
        );
        assert_eq!(summary.differences.len(), 0);
        bench.store.constrain("t", None);
        let (lines, summary) = run(&bench, "a", None).await;
        assert_eq!(told(&lines)[1], ("applied", None), "nobody cites what is gone");
        let fields: Vec<_> = summary.differences.iter().map(|d| d.field.clone()).collect();
        assert_eq!(fields, ["n"], "a rebuild or `verify --repair` brings it back");
    }
}
