//! Targets: opening, taking over, rebuilding, and being someone else's.

use std::sync::Arc;

use foldline_api::ErrorClass;
use foldline_api::record::Position;
use foldline_api::sink::{
    DesiredState, OnChange, Opened, StoredVerdict, TargetSpec, Version, Written,
};

use crate::contract::{Bench, Store, claim, durable, key_of, model, model_of, partition, spec_of};

pub(crate) async fn first_open_is_empty_and_idempotent(store: &dyn Store) {
    let spec = spec_of(&store.name("first_open"), model());
    let target = store.target(spec.clone()).await;
    let again = store.target(spec).await;
    let (first, second) = tokio::join!(target.open(), again.open());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.generation, second.generation), (1, 1));
    assert!(first.positions.is_empty() && second.positions.is_empty());
    assert_eq!(target.status().await.unwrap().generation, 1);
}

pub(crate) async fn a_check_finds_what_open_would_and_changes_nothing(store: &dyn Store) {
    let spec = spec_of(&store.name("check"), model());
    let target = store.target(spec.clone()).await;
    for _ in 0..2 {
        target.check().await.unwrap();
        assert!(target.status().await.is_err(), "a check makes nothing");
    }
    let generation = target.open().await.unwrap().generation;
    target.begin(generation, &[claim(0, 7)]).await.unwrap();
    let stands = |opened: Opened| (opened.generation, opened.positions, opened.desired);
    let before = stands(target.status().await.unwrap());
    target.check().await.unwrap();
    let renamed = TargetSpec { connector: "somebody-else".to_owned(), ..spec.clone() };
    let moved = TargetSpec { log: "log-2".to_owned(), ..spec.clone() };
    let wider = spec_of(&spec.target, model_of(&[("id", "bigint"), ("b", "text")], 1));
    for other in [renamed, moved, wider] {
        let other = store.target(other).await;
        let (checked, opened) = (other.check().await, other.open().await);
        let (checked, opened) = (checked.unwrap_err(), opened.unwrap_err());
        assert_eq!(checked.to_string(), opened.to_string());
        assert_eq!(checked.class(), ErrorClass::Config);
    }
    assert_eq!(stands(target.status().await.unwrap()), before);
}

pub(crate) async fn begin_records_once(store: &dyn Store) {
    let spec = spec_of(&store.name("begin"), model());
    let target = store.target(spec).await;
    let generation = target.open().await.unwrap().generation;
    target.begin(generation, &[claim(0, 7), claim(1, 0)]).await.unwrap();
    // A second worker looked later, and found another end of the log.
    target.begin(generation, &[claim(0, 9), claim(2, 3)]).await.unwrap();
    let mut stored = target.open().await.unwrap().positions;
    stored.sort_by(|a, b| a.partition.cmp(&b.partition));
    let seen: Vec<_> =
        stored.iter().map(|s| (s.partition.partition, s.beginning.0, s.position.0)).collect();
    assert_eq!(seen, [(0, 7, 7), (1, 0, 0), (2, 3, 3)]);
    assert!(stored.iter().all(|s| s.topic_id.as_deref() == Some("topic-1")));
}

pub(crate) async fn epochs_rise_with_each_acquire(store: &dyn Store) {
    let bench = Bench::new(store, "epochs", model()).await;
    let other = bench.other_writer(store).await;
    let second = other.acquire(&[claim(0, 99), claim(5, 4)]).await.unwrap().leases;
    assert_eq!(second.len(), 2);
    assert_eq!(second[0].epoch, bench.lease.epoch + 1, "taking over raises the epoch");
    assert_eq!(second[0].position, Position(0), "the stored position stands");
    assert_eq!(second[1].position, Position(4), "a new partition begins where the claim says");
    let stored = other.positions(&[partition(0), partition(5), partition(9)]).await.unwrap();
    assert_eq!(stored.len(), 2, "an unknown partition has no position");
    assert_eq!(stored[0].epoch, second[0].epoch);
}

pub(crate) async fn positions_survive_a_new_connection(store: &dyn Store) {
    let mut bench = Bench::new(store, "reopen", model()).await;
    let row = bench.row(1, "a", 1);
    bench.durable(vec![bench.write(1, Some(row.clone()), Version::Absent)]).await;
    let target = store.target(bench.spec.clone()).await;
    let opened = target.open().await.unwrap();
    assert_eq!(opened.generation, 1);
    assert_eq!(opened.positions.len(), 1);
    assert_eq!(opened.positions[0].position, Position(1));
    assert_eq!(opened.positions[0].beginning, Position(0));
    let writer = target.writer(1).await.unwrap();
    let acquired = writer.acquire(&[claim(0, 0)]).await.unwrap();
    assert!(!acquired.empty, "there is a row");
    assert_eq!(acquired.leases[0].position, Position(1));
    assert_eq!(writer.load(&[key_of(1)]).await.unwrap()[0].row, Some(row));
}

pub(crate) async fn the_desired_state_is_kept(store: &dyn Store) {
    let bench = Bench::new(store, "desired", model()).await;
    assert_eq!(bench.target.status().await.unwrap().desired, DesiredState::Running);
    for desired in [DesiredState::Paused, DesiredState::Stopped, DesiredState::Running] {
        bench.target.set_desired(desired).await.unwrap();
        let other = store.target(bench.spec.clone()).await;
        assert_eq!(other.status().await.unwrap().desired, desired);
        assert_eq!(other.open().await.unwrap().desired, desired);
    }
}

pub(crate) async fn rebuild_empties_and_fences(store: &dyn Store) {
    let mut bench = Bench::new(store, "rebuild", model()).await;
    let row = bench.row(1, "a", 1);
    let versions = bench.durable(vec![bench.write(1, Some(row.clone()), Version::Absent)]).await;
    let mut flush = bench.flush(Vec::new());
    flush.verdicts = vec![StoredVerdict::new(partition(0), 1, "a constraint", None)];
    durable(&*bench.writer, &flush).await;
    bench.lease.position.0 += 1;

    let next = bench.target.rebuild(1, None).await.unwrap();
    assert_eq!(next, 2);
    assert_eq!(bench.target.rebuild(1, None).await.unwrap(), 2, "asked twice, done once");

    // The writer of the old generation is fenced, whatever it holds.
    let late = bench.flush(vec![bench.write(1, Some(row.clone()), versions[0])]);
    let written = bench.writer.write(&late).await;
    assert!(!matches!(written, Ok(Written::Durable(_))), "a zombie wrote: {written:?}");
    let fresh = bench.flush(vec![bench.write(2, Some(bench.row(2, "z", 1)), Version::Absent)]);
    let written = bench.writer.write(&fresh).await;
    assert!(!matches!(written, Ok(Written::Durable(_))), "a zombie wrote: {written:?}");
    let error = bench.writer.acquire(&[claim(0, 0)]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fenced);

    let opened = bench.target.open().await.unwrap();
    assert_eq!(opened.generation, 2);
    assert_eq!(opened.positions[0].position, Position(0), "back at the fold's beginning");
    let writer = bench.target.writer(2).await.unwrap();
    let acquired = writer.acquire(&[claim(0, 0)]).await.unwrap();
    assert!(acquired.empty);
    assert_eq!(acquired.verdicts.len(), 1, "a rebuild knows of verdicts");
    assert!(!acquired.verdicts[0].holds, "nobody knows what refused");
    let loaded = writer.load(&[key_of(1), key_of(2)]).await.unwrap();
    assert!(loaded.iter().all(|l| l.row.is_none() && l.version == Version::Absent));
    bench.lease = acquired.leases[0].clone();
    bench.writer = writer;
    bench.durable(vec![bench.write(1, Some(row), Version::Absent)]).await;
}

pub(crate) async fn rebuild_takes_new_beginnings(store: &dyn Store) {
    let mut bench = Bench::new(store, "rebuild_from", model()).await;
    let row = bench.row(1, "a", 1);
    bench.durable(vec![bench.write(1, Some(row), Version::Absent)]).await;
    let next = bench.target.rebuild(1, Some(&[claim(0, 5), claim(3, 1)])).await.unwrap();
    let opened = bench.target.status().await.unwrap();
    assert_eq!((next, opened.generation), (2, 2));
    let mut seen: Vec<_> =
        opened.positions.iter().map(|s| (s.partition.partition, s.position.0)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(0, 5), (3, 1)]);
}

pub(crate) async fn a_dropped_target_voids_its_positions(store: &dyn Store) {
    let mut bench = Bench::new(store, "dropped", model()).await;
    let row = bench.row(1, "a", 1);
    bench.durable(vec![bench.write(1, Some(row), Version::Absent)]).await;
    store.drop_target(&bench.spec.target).await;
    let flush = bench.flush(vec![bench.write(2, Some(bench.row(2, "b", 1)), Version::Absent)]);
    let written = bench.writer.write(&flush).await;
    assert!(!matches!(written, Ok(Written::Durable(_))), "the table is gone: {written:?}");

    let target = store.target(bench.spec.clone()).await;
    let opened = target.open().await.unwrap();
    assert_eq!(opened.generation, 2, "the positions are void");
    assert!(!opened.notices.is_empty(), "and it says so");
    assert_eq!(opened.positions[0].position, Position(0));
    let writer = target.writer(2).await.unwrap();
    assert!(writer.acquire(&[claim(0, 0)]).await.unwrap().empty);

    // The old writer would find a table of the right name.
    let written = bench.writer.write(&flush).await;
    assert!(!matches!(written, Ok(Written::Durable(_))), "a zombie wrote: {written:?}");
}

pub(crate) async fn another_owner_is_refused(store: &dyn Store) {
    let bench = Bench::new(store, "owner", model()).await;
    let mut renamed = bench.spec.clone();
    renamed.connector = "somebody-else".to_owned();
    let mut moved = bench.spec.clone();
    moved.log = "log-2".to_owned();
    for spec in [renamed, moved] {
        let error = store.target(spec).await.open().await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
    }
}

pub(crate) async fn another_model_is_refused_or_carried_over(store: &dyn Store) {
    let mut bench =
        Bench::new(store, "model", model_of(&[("id", "bigint"), ("a", "text")], 1)).await;
    let old = crate::contract::row(&bench.model, &["1", "\"a\""]);
    bench.durable(vec![bench.write(1, Some(old), Version::Absent)]).await;
    let wider = model_of(&[("id", "bigint"), ("a", "text"), ("b", "numeric(6,1)")], 1);
    let mut spec = spec_of(&bench.spec.target, wider.clone());
    let error = store.target(spec.clone()).await.open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");

    assert!(!bench.target.snapshot().await.unwrap().books().continued);
    spec.on_change = OnChange::Continue;
    let target = store.target(spec.clone()).await;
    let opened = target.open().await.unwrap();
    assert!(target.snapshot().await.unwrap().books().continued, "another model began the rows");
    assert_eq!((opened.generation, opened.positions[0].position), (1, Position(1)));
    // The task that folds by the old model may neither write nor come back.
    let flush = bench.flush(Vec::new());
    let written = bench.writer.write(&flush).await;
    assert!(!matches!(written, Ok(Written::Durable(_))), "the old model wrote: {written:?}");
    assert!(bench.writer.acquire(&[claim(0, 0)]).await.is_err());
    let back = store.target(bench.spec.clone()).await.open().await.unwrap_err();
    assert_eq!(back.class(), ErrorClass::Config, "a superseded model stays refused: {back}");

    let writer = target.writer(1).await.unwrap();
    bench.lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    bench.writer = writer;
    bench.model = Arc::new(wider);
    let loaded = bench.writer.load(&[key_of(1)]).await.unwrap();
    let row = crate::contract::row(&bench.model, &["1", "\"a\"", "2.5"]);
    assert_eq!(loaded[0].row.as_ref().unwrap().get(2), &foldline_api::value::Value::Null);
    bench.durable(vec![bench.write(1, Some(row.clone()), loaded[0].version)]).await;
    assert_eq!(bench.writer.load(&[key_of(1)]).await.unwrap()[0].row, Some(row));
}
