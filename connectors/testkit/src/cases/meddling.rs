//! Tables that others change, and triggers of theirs: what the store does to a row is not the record's doing.

use foldline_api::ErrorClass;
use foldline_api::sink::{Version, Written};

use crate::contract::{Bench, Meddling, Store, key_of, model, partition};

/// Where partition 0 stands in the store.
async fn position(bench: &Bench) -> i64 {
    bench.writer.positions(&[partition(0)]).await.unwrap()[0].position.0
}

pub(crate) async fn a_column_lost_under_a_writer_stops_it_by_name(store: &dyn Store) {
    let mut bench = Bench::new(store, "lost_column", model()).await;
    let target = bench.spec.target.clone();
    let version =
        bench.durable(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent)]).await[0];
    if !store.meddle(&target, Meddling::AddIndex("name")).await {
        return;
    }
    let version = bench.durable(vec![bench.write(1, Some(bench.row(1, "b", 2)), version)]).await[0];
    assert!(store.meddle(&target, Meddling::LoseColumn("name")).await);
    for writes in [
        vec![bench.write(1, Some(bench.row(1, "c", 3)), version)],
        vec![bench.write(2, Some(bench.row(2, "c", 3)), Version::Absent)],
        Vec::new(),
    ] {
        let error = bench.writer.write(&bench.flush(writes)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "no record is to blame: {error}");
        assert!(error.message().contains("name") && error.message().contains(&target), "{error}");
    }
    let error = bench.writer.load(&[key_of(1)]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert_eq!(position(&bench).await, 2, "nothing moved");
}

pub(crate) async fn a_row_that_a_trigger_keeps_out_is_refused_by_the_triggers_name(
    store: &dyn Store,
) {
    let mut bench = Bench::new(store, "kept_out", model()).await;
    let target = bench.spec.target.clone();
    if !store.meddle(&target, Meddling::KeepOut).await {
        return;
    }
    let version =
        bench.durable(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent)]).await[0];
    for writes in [
        vec![bench.write(2, Some(bench.row(2, "test", 1)), Version::Absent)],
        vec![bench.write(1, Some(bench.row(1, "test", 2)), version)],
        vec![
            bench.write(1, Some(bench.row(1, "b", 2)), version),
            bench.write(2, Some(bench.row(2, "test", 1)), Version::Absent),
        ],
    ] {
        let written = bench.writer.write(&bench.flush(writes)).await.unwrap();
        let Written::Rejected(error) = written else { panic!("a trigger refused it: {written:?}") };
        assert_eq!(error.class(), ErrorClass::Record);
        assert!(error.message().contains("only_real"), "{error}");
    }
    assert_eq!(position(&bench).await, 1, "nothing moved");
    // Another writer's doing is no refusal.
    let newer = bench.durable(vec![bench.write(1, Some(bench.row(1, "b", 2)), version)]).await[0];
    for write in [
        bench.write(1, Some(bench.row(1, "c", 2)), version),
        bench.write(1, None, version),
        bench.write(1, Some(bench.row(1, "b", 2)), Version::Absent),
    ] {
        let written = bench.writer.write(&bench.flush(vec![write])).await.unwrap();
        assert!(matches!(written, Written::Conflict { .. }), "{written:?}");
    }
    bench.durable(vec![bench.write(1, None, newer)]).await;
}

pub(crate) async fn a_write_that_changes_nothing_is_applied_where_a_trigger_leaves_it_out(
    store: &dyn Store,
) {
    let mut bench = Bench::new(store, "same_again", model()).await;
    let target = bench.spec.target.clone();
    if !store.meddle(&target, Meddling::KeepEqual).await {
        return;
    }
    let row = |name, changes| Some(bench.row(1, name, changes));
    let (first, second, third) = (row("a", 1), row("a", 1), row("b", 2));
    let version = bench.durable(vec![bench.write(1, first, Version::Absent)]).await[0];
    let same = bench.durable(vec![bench.write(1, second.clone(), version)]).await[0];
    bench.durable(vec![bench.write(1, third, same)]).await;
    // As another writer has it is not as it was to be: its events are not these.
    let written =
        bench.writer.write(&bench.flush(vec![bench.write(1, second, same)])).await.unwrap();
    assert!(matches!(written, Written::Conflict { .. }), "{written:?}");
    let loaded = bench.writer.load(&[key_of(1)]).await.unwrap().remove(0);
    assert_eq!(loaded.row, Some(bench.row(1, "b", 2)));
}
