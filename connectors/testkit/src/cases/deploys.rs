//! Which projection may build a target, as configs come and go.

use std::sync::Arc;

use foldline_api::ErrorClass;
use foldline_api::rebuild::{By, Phase, Step, Stepped};
use foldline_api::sink::{Beginning, OnChange, Target, TargetSpec, Version, Waits};

use crate::contract::{Bench, Store, advance, claim, durable, model, model_of, partition, spec_of};

fn columns(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&[("id", "bigint"), ("a", "text")][..], more].concat()
}

fn config(bench: &Bench, more: &[(&'static str, &'static str)]) -> TargetSpec {
    let spec = spec_of(&bench.spec.target, model_of(&columns(more), 1));
    TargetSpec { on_change: OnChange::Rebuild, ..spec }
}

/// A target that the first of three configs built, and one for each of them.
async fn three(store: &dyn Store, case: &str) -> (Bench, [Arc<dyn Target>; 3]) {
    let bench = Bench::new(store, case, model_of(&columns(&[]), 1)).await;
    let specs =
        [config(&bench, &[]), config(&bench, &[("b", "text")]), config(&bench, &[("c", "text")])];
    let [one, two, three] = specs;
    let targets = [store.target(one).await, store.target(two).await, store.target(three).await];
    (bench, targets)
}

async fn begin(target: &dyn Target, by: By) -> u64 {
    target.rebuilds().begin(by, &[claim(0, 0)], &[]).await.unwrap()
}

async fn waits(target: &dyn Target) -> Option<Waits> {
    target.open().await.unwrap().waits
}

fn replaced(waits: Option<Waits>) -> String {
    match waits {
        Some(Waits::Replaced(why)) => why,
        other => panic!("it does not wait to be replaced: {other:?}"),
    }
}

/// Brings a build to its swap: it reaches what the live generation folded.
async fn swap(target: &dyn Target, build: u64) {
    let live = target.status().await.unwrap().positions[0].position.0;
    let writer = target.writer(build).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    let flush = foldline_api::sink::Flush {
        advances: vec![advance(&lease, lease.position.0, live)],
        ..Default::default()
    };
    durable(&*writer, &flush).await;
    for step in [Step::Follow, Step::Hold { patient: false }, Step::Swap] {
        let stepped = target.rebuilds().step(build, step).await.unwrap();
        assert!(matches!(stepped, Stepped::Done(_)), "{step:?}: {stepped:?}");
    }
}

pub(crate) async fn a_build_that_was_never_live_is_not_superseded(store: &dyn Store) {
    let (_bench, [v1, v2, _]) = three(store, "never_live").await;
    assert!(matches!(waits(&*v2).await, Some(Waits::Rebuild(_))));
    assert_eq!(begin(&*v2, By::Deploy).await, 2);
    // Back to what is live: by an operator, who builds that one anew.
    assert_eq!(waits(&*v1).await, None);
    let back = begin(&*v1, By::Operator).await;
    assert!(back > 2, "another build: {back}");
    let build = v1.rebuilds().generations().await.unwrap().build.unwrap();
    assert_eq!((build.generation, build.phase), (back, Phase::Loading));
    assert!(!build.projection.is_null(), "it says whose it is");
    // A worker that is left of the second config waits, and does not take the place back.
    let why = replaced(waits(&*v2).await);
    assert!(why.contains(&format!("generation {back}")), "{why}");
    assert_eq!(begin(&*v2, By::Deploy).await, back);
    assert_eq!(v1.rebuilds().cancel(Some(back)).await.unwrap(), Some(back));
    assert!(matches!(waits(&*v2).await, Some(Waits::Rebuild(_))), "nothing was superseded");
    let again = begin(&*v2, By::Deploy).await;
    swap(&*v2, again).await;
    assert_eq!(waits(&*v2).await, None);
}

pub(crate) async fn what_a_newer_config_passed_over_comes_back_by_name_only(store: &dyn Store) {
    let (bench, [v1, v2, v3]) = three(store, "passed_over").await;
    assert_eq!(begin(&*v2, By::Deploy).await, 2);
    let newest = begin(&*v3, By::Deploy).await;
    swap(&*v3, newest).await;
    for passed in [&v1, &v2] {
        let why = replaced(waits(&**passed).await);
        assert!(why.contains("superseded"), "{why}");
        let error = passed.rebuilds().begin(By::Deploy, &[claim(0, 0)], &[]).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
    }
    if !store.keeps_generations() {
        return;
    }
    // The first one's generation is kept: the message names the way there.
    let refused = TargetSpec { on_change: OnChange::Refuse, ..bench.spec.clone() };
    let error = store.target(refused).await.open().await.unwrap_err();
    assert!(error.to_string().contains("--rollback"), "{error}");
    assert_eq!(v1.rebuilds().roll_back(Some(newest)).await.unwrap(), 1);
    assert_eq!(waits(&*v1).await, None);
    let why = replaced(waits(&*v3).await);
    assert!(why.contains("rolled back") && why.contains("older config"), "{why}");
    assert_eq!(v3.status().await.unwrap().generation, 1);
    // What an operator asks for by name is built, superseded or not.
    let asked = begin(&*v2, By::Operator).await;
    assert!(matches!(waits(&*v2).await, Some(Waits::Rebuild(_))));
    assert_eq!(v2.rebuilds().cancel(None).await.unwrap(), Some(asked));
}

pub(crate) async fn a_command_for_another_generation_does_nothing(store: &dyn Store) {
    let mut bench = Bench::new(store, "expected", model()).await;
    bench.durable(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent)]).await;
    let (target, rebuilds) = (&*bench.target, bench.target.rebuilds());
    let build = begin(target, By::Operator).await;
    let error = rebuilds.cancel(Some(build + 1)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    swap(target, build).await;
    if !store.keeps_generations() {
        assert!(rebuilds.roll_back(Some(build)).await.is_err());
        assert_eq!(target.rebuild(1, None).await.unwrap(), build, "not the live one: not emptied");
        return;
    }
    for _ in 0..2 {
        assert_eq!(rebuilds.roll_back(Some(build)).await.unwrap(), 1, "two do not toggle");
    }
    assert_eq!(target.status().await.unwrap().generation, 1);
    assert_eq!(rebuilds.roll_back(Some(1)).await.unwrap(), build, "and forth again by name");
    assert_eq!(target.rebuild(1, None).await.unwrap(), build, "not the live one: not emptied");
}

pub(crate) async fn what_continue_leaves_behind_is_told(store: &dyn Store) {
    let bench = Bench::new(store, "continued", model()).await;
    let mut spec = TargetSpec { on_change: OnChange::Continue, ..bench.spec.clone() };
    spec.projection["topics"] = serde_json::json!(["others"]);
    spec.fingerprint = spec.projection.to_string();
    let opened = store.target(spec).await.open().await.unwrap();
    let told = opened
        .notices
        .iter()
        .any(|notice| notice.contains("events stay") || notice.contains("stays in the rows"));
    assert!(told, "{:?}", opened.notices);
    // The worker of the config before is to be replaced, and did not fail.
    let before = TargetSpec { on_change: OnChange::Continue, ..bench.spec.clone() };
    let before = store.target(before).await;
    assert!(replaced(waits(&*before).await).contains("superseded"));
    let claim = Beginning { partition: partition(0), ..claim(0, 0) };
    let error = bench.writer.acquire(&[claim]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fenced, "it opens again, and learns of it: {error}");
}
