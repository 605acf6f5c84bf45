//! A target that was restored from a backup with its books is taken over as it is.

use std::sync::Arc;

use foldline_api::lifecycle::LogNow;
use foldline_api::parked::{Changes, ParkedEvent, Which};
use foldline_api::rebuild::{By, Step, Stepped};
use foldline_api::record::{Position, Record};
use foldline_api::sink::{Adopted, DesiredState, Target, TargetSpec, Version, Written};
use foldline_api::{ErrorClass, Result};

use crate::contract::{Bench, Store, advance, claim, durable, key_of, model, partition, spec_of};

/// The log that the cases fold, which nobody folds now.
fn log() -> LogNow {
    let topic = (Arc::from("events"), Some("topic-1".to_owned()));
    LogNow { members: 0, topics: vec![topic] }
}

fn event(offset: i64) -> ParkedEvent {
    let record = Record {
        topic: partition(0).topic,
        partition: 0,
        offset,
        timestamp: None,
        key: None,
        value: Some(bytes::Bytes::from_static(b"{}")),
        headers: Vec::new(),
    };
    ParkedEvent { record, keys: vec!["9".to_owned()], reason: Some("bad".to_owned()) }
}

/// A target that has a kept generation, a row and a parked event in the live one, and is stopped.
async fn stopped(store: &dyn Store, case: &str) -> Bench {
    let mut bench = Bench::new(store, case, model()).await;
    bench.durable(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent)]).await;
    let rebuilds = bench.target.rebuilds();
    let build = rebuilds.begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    let writer = bench.target.writer(build).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    (bench.writer, bench.lease) = (writer, lease);
    bench.durable(vec![bench.write(1, Some(bench.row(1, "b", 2)), Version::Absent)]).await;
    for step in [Step::Follow, Step::Hold { patient: false }, Step::Swap] {
        let stepped = bench.target.rebuilds().step(build, step).await.unwrap();
        assert!(matches!(stepped, Stepped::Done(_)), "{step:?}: {stepped:?}");
    }
    bench.writer = bench.target.writer(build).await.unwrap();
    bench.lease = bench.writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    let mut flush = bench.flush(vec![bench.write(2, Some(bench.row(2, "c", 1)), Version::Absent)]);
    flush.parking = Changes { park: vec![event(1)], ..Changes::default() };
    durable(&*bench.writer, &flush).await;
    bench.lease.position.0 += 1;
    stop(&*bench.target).await;
    bench
}

async fn stop(target: &dyn Target) {
    target.set_desired(DesiredState::Stopped).await.unwrap();
    target.note_stopped().await.unwrap();
}

fn refused(done: Result<Adopted>, why: &str) {
    let error = done.expect_err(why);
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.to_string().contains(why), "{why:?}: {error}");
}

pub(crate) async fn a_copy_is_taken_over_with_its_books(store: &dyn Store) {
    let mut bench = stopped(store, "copied").await;
    store.copy_target(&bench.spec.target).await;
    let target = store.target(bench.spec.clone()).await;
    let error = target.open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.to_string().contains("was replaced"), "{error}");
    let way_out = format!("foldline adopt {}", bench.spec.connector);
    assert!(error.to_string().contains(&way_out), "{error}");

    let before = target.status().await.unwrap();
    let adopted = target.adopt(&log()).await.unwrap();
    let live = before.generation;
    assert_eq!((adopted.generation, adopted.copied, adopted.has_rows), (live, true, true));
    let kept = if store.keeps_generations() { vec![1] } else { Vec::new() };
    assert_eq!(adopted.beside, kept, "the kept generation came along");
    // Whoever held a partition before writes nothing.
    let late = bench.flush(vec![bench.write(3, Some(bench.row(3, "z", 1)), Version::Absent)]);
    let written = bench.writer.write(&late).await;
    assert!(!matches!(written, Ok(Written::Durable(_))), "a zombie wrote: {written:?}");
    let late = bench.writer.write(&bench.flush(Vec::new())).await;
    assert!(!matches!(late, Ok(Written::Durable(_))), "a zombie moved on: {late:?}");

    let opened = target.open().await.unwrap();
    assert_eq!(opened.generation, live);
    assert_eq!(opened.desired, DesiredState::Stopped, "as it was left");
    assert_eq!(opened.positions[0].position, before.positions[0].position);
    assert!(opened.positions[0].epoch > before.positions[0].epoch, "the epoch is raised");
    target.set_desired(DesiredState::Running).await.unwrap();
    bench.writer = target.writer(live).await.unwrap();
    let acquired = bench.writer.acquire(&[claim(0, 0)]).await.unwrap();
    assert_eq!(acquired.parked, [event(1).parked()], "parked events came along");
    assert!(!acquired.empty, "and so did rows");
    bench.lease = acquired.leases[0].clone();
    assert_eq!(bench.lease.position, Position(2));
    let loaded = bench.writer.load(&[key_of(1), key_of(2)]).await.unwrap();
    assert_eq!(loaded[0].row, Some(bench.row(1, "b", 2)));
    assert_eq!(loaded[1].row, Some(bench.row(2, "c", 1)));
    let changed = bench.write(1, Some(bench.row(1, "d", 3)), loaded[0].version);
    bench.durable(vec![changed]).await;
    if !store.keeps_generations() {
        return;
    }
    // What was kept for a rollback is the copy's own too.
    assert_eq!(target.rebuilds().roll_back(Some(live)).await.unwrap(), 1);
    let writer = target.writer(1).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    assert_eq!(lease.position, Position(1));
    let loaded = writer.load(&[key_of(1)]).await.unwrap();
    assert_eq!(loaded[0].row, Some(bench.row(1, "a", 1)));
}

pub(crate) async fn what_is_no_faithful_copy_is_refused_by_name(store: &dyn Store) {
    let unknown = store.target(spec_of(&store.name("unknown"), model())).await;
    refused(unknown.adopt(&log()).await, "hold nothing of");
    let bench = stopped(store, "unfaithful").await;
    store.copy_target(&bench.spec.target).await;
    let before = bench.target.status().await.unwrap();
    let renamed = TargetSpec { connector: "somebody-else".to_owned(), ..bench.spec.clone() };
    refused(store.target(renamed).await.adopt(&log()).await, "belongs to");
    let moved = TargetSpec { log: "log-2".to_owned(), ..bench.spec.clone() };
    refused(store.target(moved).await.adopt(&log()).await, "was folded from the log");
    refused(bench.target.adopt(&LogNow { members: 2, ..log() }).await, "has 2 members");
    let topic = (Arc::from("events"), Some("topic-2".to_owned()));
    let recreated = LogNow { members: 0, topics: vec![topic] };
    refused(bench.target.adopt(&recreated).await, "created again");
    assert_eq!(bench.target.status().await.unwrap().positions, before.positions);
    assert!(bench.target.open().await.is_err(), "nothing was taken over");
    store.drop_target(&bench.spec.target).await;
    refused(bench.target.adopt(&log()).await, "does not exist");

    let bench = Bench::new(store, "rows_alone", model()).await;
    let mut flush = bench.flush(Vec::new());
    flush.advances = vec![advance(&bench.lease, 0, 3)];
    durable(&*bench.writer, &flush).await;
    stop(&*bench.target).await;
    store.copy_target(&bench.spec.target).await;
    refused(bench.target.adopt(&log()).await, "it has no rows");
}

pub(crate) async fn a_copy_with_a_build_is_whole_or_the_build_is_ended_first(store: &dyn Store) {
    let mut bench = Bench::new(store, "half_built", model()).await;
    bench.durable(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent)]).await;
    let build = bench.target.rebuilds().begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    stop(&*bench.target).await;
    store.copy_target(&bench.spec.target).await;
    let adopted = match bench.target.adopt(&log()).await {
        Err(error) => {
            assert_eq!(error.class(), ErrorClass::Config, "{error}");
            assert!(error.to_string().contains("--cancel"), "{error}");
            assert_eq!(bench.target.rebuilds().cancel(None).await.unwrap(), Some(build));
            bench.target.adopt(&log()).await.unwrap()
        }
        Ok(adopted) => {
            assert_eq!(adopted.beside, [build]);
            // It goes on, or it ends, as it would have.
            let writer = bench.target.writer(build).await.unwrap();
            writer.acquire(&[claim(0, 0)]).await.unwrap();
            assert_eq!(bench.target.rebuilds().cancel(None).await.unwrap(), Some(build));
            adopted
        }
    };
    assert!(adopted.copied);
    bench.target.open().await.unwrap();
    let again = bench.target.rebuilds().begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    assert_eq!(bench.target.rebuilds().cancel(None).await.unwrap(), Some(again));
}

pub(crate) async fn what_is_no_copy_stays_as_it_is_and_fences(store: &dyn Store) {
    let mut bench = Bench::new(store, "no_copy", model()).await;
    bench.durable(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent)]).await;
    let adopted = bench.target.adopt(&log()).await.unwrap();
    assert!(!adopted.copied, "{adopted:?}");
    let late = bench.writer.write(&bench.flush(Vec::new())).await;
    assert!(!matches!(late, Ok(Written::Durable(_))), "a zombie moved on: {late:?}");
    assert_eq!(bench.target.open().await.unwrap().positions[0].position, Position(1));
    let which = Which::default();
    assert_eq!(bench.target.parking().parked(1, &which).await.unwrap(), []);
}
