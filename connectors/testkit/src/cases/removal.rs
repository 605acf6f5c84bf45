//! Targets that go for good.

use foldline_api::ErrorClass;
use foldline_api::parked::{Changes, ParkedEvent, Which};
use foldline_api::rebuild::{By, Step, Stepped};
use foldline_api::record::Record;
use foldline_api::removal::{Keep, Removed};
use foldline_api::schemas::KeptSchema;
use foldline_api::sink::{Flush, Version, Written};

use crate::contract::{Bench, Store, advance, claim, durable, key_of, model, partition, spec_of};

/// A bench with a row, a parked event and a schema in the books, a kept generation and a build.
async fn bench(store: &dyn Store, case: &str) -> Bench {
    let mut bench = Bench::new(store, case, model()).await;
    bench.durable(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent)]).await;
    let schema = ("main".to_owned(), "1".to_owned(), "{}".to_owned());
    let (registry, id, schema) = schema;
    bench.target.schemas().keep(&[KeptSchema { registry, id, schema }]).await.unwrap();
    let rebuilds = bench.target.rebuilds();
    let second = rebuilds.begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    for step in [Step::Follow, Step::Hold { patient: false }] {
        let stepped = rebuilds.step(second, step).await.unwrap();
        assert!(matches!(stepped, Stepped::Done(_)), "{step:?}: {stepped:?}");
    }
    let writer = bench.target.writer(second).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    let record = Record {
        topic: partition(0).topic,
        partition: 0,
        offset: 0,
        timestamp: None,
        key: None,
        value: None,
        headers: Vec::new(),
    };
    let park = ParkedEvent { record, keys: vec!["2".to_owned()], reason: Some("bad".to_owned()) };
    let flush = Flush {
        advances: vec![advance(&lease, 0, 1)],
        parking: Changes { park: vec![park], ..Changes::default() },
        ..Flush::default()
    };
    durable(&*writer, &flush).await;
    let stepped = rebuilds.step(second, Step::Swap).await.unwrap();
    assert!(matches!(stepped, Stepped::Done(_)), "{stepped:?}");
    rebuilds.begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    let writer = bench.target.writer(second).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    Bench { writer, lease, ..bench }
}

/// The kept generation and the build, where they are targets of the store's.
fn others(store: &dyn Store) -> usize {
    if store.keeps_generations() { 2 } else { 0 }
}

pub(crate) async fn what_is_removed_is_gone_with_its_books(store: &dyn Store) {
    let bench = bench(store, "removed").await;
    if !store.removes() {
        let error = bench.target.remove(Keep::Nothing).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
        assert_eq!(bench.target.status().await.unwrap().generation, 2, "and does nothing");
        return;
    }
    let kept = bench.target.rebuilds().generations().await.unwrap();
    let others = others(store);
    assert!(kept.build.is_some() && kept.old.len() == others / 2, "{kept:?}");

    let removed = bench.target.remove(Keep::Nothing).await.unwrap();
    assert_eq!(removed.dropped.len(), others + 1, "{removed:?}");
    assert!(removed.strangers.is_empty(), "{removed:?}");
    assert!(bench.target.status().await.is_err(), "the books know it no more");
    let late = bench.flush(vec![bench.write(3, Some(bench.row(3, "late", 1)), Version::Absent)]);
    let written = bench.writer.write(&late).await;
    assert!(!matches!(written, Ok(Written::Durable(_))), "{written:?}");
    assert_eq!(
        bench.target.remove(Keep::Nothing).await.unwrap(),
        Removed::default(),
        "nothing is left"
    );

    // Whoever takes the name, with whatever model, begins anew.
    let spec = foldline_api::sink::TargetSpec {
        connector: "somebody-else".to_owned(),
        group: "another".to_owned(),
        ..spec_of(&bench.spec.target, model())
    };
    let next = store.target(spec).await;
    let opened = next.open().await.unwrap();
    assert!(opened.positions.is_empty(), "{opened:?}");
    next.begin(opened.generation, &[claim(0, 0)]).await.unwrap();
    let writer = next.writer(opened.generation).await.unwrap();
    assert!(writer.acquire(&[claim(0, 0)]).await.unwrap().empty, "no row is left");
    assert_eq!(writer.load(&[key_of(1)]).await.unwrap()[0].row, None);
    let parked = next.parking().parked(opened.generation, &Which::default()).await.unwrap();
    assert!(parked.is_empty(), "{parked:?}");
    assert_eq!(next.schemas().kept().await.unwrap(), []);
    assert!(next.rebuilds().generations().await.unwrap().old.is_empty());
}

pub(crate) async fn what_is_someone_elses_is_not_removed(store: &dyn Store) {
    let mut bench = Bench::new(store, "removed_not", model()).await;
    bench.durable(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent)]).await;
    let mut stranger = bench.spec.clone();
    stranger.connector = "somebody-else".to_owned();
    let error = store.target(stranger).await.remove(Keep::Nothing).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.to_string().contains("belongs to"), "{error}");
    assert_eq!(bench.target.status().await.unwrap().generation, 1);
    if !store.removes() {
        return;
    }
    assert!(bench.writer.load(&[key_of(1)]).await.unwrap()[0].row.is_some());

    // The build that stands beside it goes, and the rows stay for whoever reads them.
    let kept = self::bench(store, "removed_but_rows").await;
    let removed = kept.target.remove(Keep::Live).await.unwrap();
    assert_eq!((removed.dropped.len(), removed.strangers.len()), (others(store), 0), "{removed:?}");
    assert!(kept.target.status().await.is_err(), "the books know it no more");

    // What a restore put in the place of the one that the books mean stays.
    store.copy_target(&bench.spec.target).await;
    let removed = bench.target.remove(Keep::Nothing).await.unwrap();
    assert_eq!((removed.dropped.len(), removed.strangers.len()), (0, 1), "{removed:?}");
    assert!(bench.target.status().await.is_err(), "the books know it no more");
    let error = bench.target.open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "it still stands, with its row: {error}");
}
