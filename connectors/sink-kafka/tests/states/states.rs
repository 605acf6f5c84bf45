//! What stands in the topics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldline_api::ErrorClass;
use foldline_api::kind::Sink;
use foldline_api::model::{Key, Row};
use foldline_api::rebuild::{By, Step, Stepped};
use foldline_api::record::Position;
use foldline_api::removal::{Keep, Removed};
use foldline_api::sink::{
    Advance, Flush, Lease, Marks, RowWrite, Target, TargetSpec, Version, Versions, Writer, Written,
};
use foldline_api::source::Log;
use foldline_api::value::Value;
use foldline_testkit::contract::{claim, model_of, row, spec_of};

use crate::support::{self, log, records, sink, sink_with, states};

fn spec(name: &str) -> TargetSpec {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let name = format!("fl-states-{}-{name}", now.as_nanos());
    spec_of(&name, model_of(&[("id", "bigint"), ("name", "text")], 1))
}

/// A target with a task that holds partition 0.
struct Bench {
    target: Arc<dyn Target>,
    writer: Arc<dyn Writer>,
    lease: Lease,
    spec: TargetSpec,
}

impl Bench {
    async fn new(name: &str) -> Self {
        Self::of(spec(name), &[]).await
    }

    async fn of(spec: TargetSpec, properties: &[(&str, &str)]) -> Self {
        let target = sink_with(properties).target(spec.clone()).unwrap();
        let opened = target.open().await.unwrap();
        let writer = target.writer(opened.generation).await.unwrap();
        let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases.remove(0);
        Bench { target, writer, lease, spec }
    }

    fn row(&self, id: i64, name: &str) -> Row {
        row(&self.spec.model, &[&id.to_string(), &format!("{name:?}")])
    }

    fn flush(&self, rows: &[(i64, Option<&str>)], from: Version) -> Flush {
        let write = |(id, name): &(i64, Option<&str>)| RowWrite {
            key: Key::of(Value::Int(*id)),
            row: name.map(|name| self.row(*id, name)),
            version: from,
            marks: Marks::new(),
        };
        let step = Advance {
            partition: self.lease.partition.clone(),
            epoch: self.lease.epoch,
            from: self.lease.position,
            to: Position(self.lease.position.0 + 1),
        };
        let writes = rows.iter().map(write).collect();
        Flush { advances: vec![step], writes, ..Flush::default() }
    }

    async fn durable(&mut self, rows: &[(i64, Option<&str>)], from: Version) -> Vec<Version> {
        let written = self.writer.write(&self.flush(rows, from)).await.unwrap();
        let Written::Durable(Versions::Each(versions)) = written else {
            unreachable!("{written:?}")
        };
        self.lease.position.0 += 1;
        versions
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_json_by_key_and_what_is_deleted_is_a_tombstone() {
    let mut bench = Bench::new("json").await;
    let versions = bench.durable(&[(1, Some("a")), (2, Some("b"))], Version::Absent).await;
    bench.durable(&[(1, None)], versions[0]).await;
    let found = states(&bench.spec.target).await;
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [("2".into(), r#"{"id":2,"name":"b"}"#.into())]
    );
    let last =
        records(&bench.spec.target).await.into_iter().filter(|it| it.key.as_deref() == Some(b"1"));
    assert_eq!(last.last().unwrap().value, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_reads_what_was_written() {
    let mut bench = Bench::new("restart").await;
    bench.durable(&[(1, Some("a")), (2, Some("b"))], Version::Absent).await;
    let again = Bench::of(bench.spec.clone(), &[]).await;
    assert_eq!(again.lease.position, Position(1));
    let loaded =
        again.writer.load(&[Key::of(Value::Int(2)), Key::of(Value::Int(3))]).await.unwrap();
    assert_eq!(loaded[0].row, Some(bench.row(2, "b")));
    assert_eq!(loaded[1].row, None);
    // The one before writes nothing any more.
    let late = bench.writer.write(&bench.flush(&[(9, Some("late"))], Version::Absent)).await;
    assert!(matches!(late, Ok(Written::Fenced)), "{late:?}");
    assert!(!states(&bench.spec.target).await.contains_key("9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_writes_what_differs_and_nothing_else() {
    let mut bench = Bench::new("differs").await;
    let rows = [(1, Some("same")), (2, Some("old")), (3, Some("gone"))];
    bench.durable(&rows, Version::Absent).await;
    let before = records(&bench.spec.target).await.len();
    let rebuilds = bench.target.rebuilds();
    let build = rebuilds.begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    let writer = bench.target.writer(build).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases.remove(0);
    let loading =
        Bench { writer, lease, target: Arc::clone(&bench.target), spec: bench.spec.clone() };
    let rows = [(1, Some("same")), (2, Some("new")), (4, Some("more"))];
    let written = loading.writer.write(&loading.flush(&rows, Version::Absent)).await.unwrap();
    assert!(matches!(written, Written::Durable(_)), "{written:?}");
    assert_eq!(records(&bench.spec.target).await.len(), before, "a build is the copy's own");
    for step in [Step::Follow, Step::Hold { patient: false }, Step::Swap] {
        let stepped = rebuilds.step(build, step).await.unwrap();
        assert!(matches!(stepped, Stepped::Done(_)), "{stepped:?}");
    }
    let all = records(&bench.spec.target).await;
    assert_eq!(all.len(), before + 3, "one changed, one is new, one is gone");
    let found = states(&bench.spec.target).await;
    let keys: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(keys, ["1", "2", "4"]);
    // Whoever comes next finds the new generation whole.
    let next = Bench::of(bench.spec.clone(), &[]).await;
    assert_eq!(next.lease.position, Position(1));
    let loaded = next.writer.load(&[Key::of(Value::Int(2))]).await.unwrap();
    assert_eq!(loaded[0].row, Some(bench.row(2, "new")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_worker_is_gone_begins_anew_with_the_next() {
    let mut bench = Bench::new("orphan").await;
    bench.durable(&[(1, Some("a"))], Version::Absent).await;
    let build = bench.target.rebuilds().begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    let writer = bench.target.writer(build).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases.remove(0);
    let first =
        Bench { writer, lease, target: Arc::clone(&bench.target), spec: bench.spec.clone() };
    let written = first.writer.write(&first.flush(&[(1, Some("b"))], Version::Absent)).await;
    assert!(matches!(written, Ok(Written::Durable(_))), "{written:?}");
    let next = sink().target(bench.spec.clone()).unwrap();
    next.open().await.unwrap();
    let writer = next.writer(build).await.unwrap();
    let acquired = writer.acquire(&[claim(0, 0)]).await.unwrap();
    assert!(acquired.empty, "its rows are not here");
    assert_eq!(acquired.leases[0].position, Position(0), "so it begins at the beginning");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_records_of_others_and_one_that_deletes_by_time_are_refused() {
    let spec = spec("foreign");
    let target = sink().target(spec.clone()).unwrap();
    support::create(&spec.target, 2, "compact").await;
    support::write(&spec.target, &[(0, "1", Some("{}"))]).await;
    let error = target.open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.message().contains("has records that Foldline's books"), "{error}");
    assert_eq!(states(&spec.target).await.len(), 1, "and it is left as it is");

    let spec = self::spec("deletes");
    support::create(&spec.target, 2, "delete").await;
    let error = sink().target(spec).unwrap().open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.message().contains("cleanup.policy=compact"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_added_are_refused() {
    let spec = spec("grown");
    support::create(&spec.target, 2, "compact").await;
    let mut bench = Bench::of(spec.clone(), &[]).await;
    bench.durable(&[(1, Some("a"))], Version::Absent).await;
    support::grow(&spec.target, 3).await;
    let error = sink().target(spec).unwrap().open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.message().contains("3 partitions now"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_topic_does_not_take_is_refused_alone() {
    let spec = spec("large");
    support::create(&spec.target, 1, "compact").await;
    let mut bench = Bench::of(spec, &[("compression.type", "none")]).await;
    let large = "x".repeat(200_000);
    let flush = bench.flush(&[(1, Some("a")), (2, Some(&large))], Version::Absent);
    let written = bench.writer.write(&flush).await.unwrap();
    assert!(matches!(written, Written::Rejected(_)), "{written:?}");
    assert!(states(&bench.spec.target).await.is_empty(), "none of it is there");
    bench.durable(&[(1, Some("a"))], Version::Absent).await;
    assert_eq!(states(&bench.spec.target).await.len(), 1);
}

/// The time of one flush of one row, from load to commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_of_one_row_is_soon_durable() {
    let mut bench = Bench::new("latency").await;
    let mut times = Vec::new();
    for id in 0..200 {
        let begun = Instant::now();
        let loaded = bench.writer.load(&[Key::of(Value::Int(id))]).await.unwrap();
        bench.durable(&[(id, Some("a"))], loaded[0].version).await;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100 - 1];
    eprintln!("load and flush of one row: p50 {:?}, p99 {:?}", at(50), at(99));
    // A broker that is asked again only after librdkafka's own 100 ms is told by it; no machine is this slow.
    assert!(at(50) < Duration::from_millis(90), "{:?}", at(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_somebody_stands_by_for_is_not_removed() {
    let mut bench = Bench::new("stands_by").await;
    bench.durable(&[(1, Some("a"))], Version::Absent).await;
    let standing = sink().target(bench.spec.clone()).unwrap();
    let turn = standing.turn().unwrap();
    turn.join();
    turn.wait(true).await;
    let error = bench.target.remove(Keep::Nothing).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.message().contains("stand by"), "{error}");
    assert_eq!(states(&bench.spec.target).await.len(), 1);
    turn.leave().await;
    let removed = bench.target.remove(Keep::Live).await.unwrap();
    assert_eq!(removed, Removed::default());
    assert_eq!(states(&bench.spec.target).await.len(), 1, "the states stay");
    let books = log(&format!("{}-foldline", bench.spec.target)).survey().await.unwrap();
    assert_eq!(books.missing.len(), 1);
}
