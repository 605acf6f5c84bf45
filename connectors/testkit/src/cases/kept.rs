//! What ids of schema registries stood for.

use foldline_api::ErrorClass;
use foldline_api::schemas::KeptSchema;

use crate::contract::{Bench, Store, model};

fn kept(registry: &str, id: &str, schema: &str) -> KeptSchema {
    let (registry, id) = (registry.to_owned(), id.to_owned());
    KeptSchema { registry, id, schema: schema.to_owned() }
}

pub(crate) async fn what_an_id_stood_for_stays_for_all_generations(store: &dyn Store) {
    let bench = Bench::new(store, "kept", model()).await;
    let target = store.target(bench.spec.clone()).await;
    let schemas = target.schemas();
    assert_eq!(schemas.kept().await.unwrap(), []);
    let long = "größer \\u0000 \"".repeat(20_000);
    let (first, second) = (kept("main", "id:1", "\"long\""), kept("main", "id:2", &long));
    let elsewhere = kept("other", "id:1", "\"int\"");
    let all = [first.clone(), second.clone(), elsewhere.clone()];
    let now = schemas.keep(&[elsewhere, first.clone()]).await.unwrap();
    assert_eq!(now, [all[0].clone(), all[2].clone()]);
    // Another worker, which was told another schema: what was kept first stays, and it is told so.
    let other = store.target(bench.spec.clone()).await;
    let late = [kept("main", "id:1", "\"string\""), second];
    assert_eq!(other.schemas().keep(&late).await.unwrap(), all);
    assert_eq!(schemas.keep(&[]).await.unwrap(), all);
    // The next generation folds the same log.
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    assert_eq!(other.schemas().kept().await.unwrap(), all);
    // Each of many at once keeps its own.
    let tasks = (0..8).map(async |nth| {
        let target = store.target(bench.spec.clone()).await;
        target.schemas().keep(&[kept("main", &format!("guid:{nth}"), "{}")]).await.unwrap();
    });
    futures_util::future::join_all(tasks).await;
    assert_eq!(schemas.kept().await.unwrap().len(), all.len() + 8);
    // Nobody else's, and none of a target that is not there.
    let mut stranger = bench.spec.clone();
    stranger.connector = "stranger".to_owned();
    let theirs = store.target(stranger).await;
    for class in [theirs.schemas().kept().await, theirs.schemas().keep(&[first]).await] {
        assert_eq!(class.unwrap_err().class(), ErrorClass::Config);
    }
    let mut unopened = bench.spec.clone();
    unopened.target = store.name("kept-unopened");
    let nobody = store.target(unopened).await;
    assert!(nobody.schemas().kept().await.is_err());
}
