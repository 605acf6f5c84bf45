//! Records that a generation leaves out, and what the next one does about them.

use foldline_api::parked::DROPPED;
use foldline_api::rebuild::{By, Rebuilds, Step, Stepped};
use foldline_api::record::Position;
use foldline_api::sink::{Acquired, Beginning, StoredVerdict, Target};

use crate::contract::{Bench, Store, advance, claim, durable, model, partition};

/// A bench at position 4 that leaves out these offsets.
async fn bench(store: &dyn Store, case: &str, verdicts: &[StoredVerdict]) -> Bench {
    let mut bench = Bench::new(store, case, model()).await;
    let mut flush = bench.flush(Vec::new());
    flush.advances = vec![advance(&bench.lease, 0, 4)];
    flush.verdicts = verdicts.to_vec();
    durable(&*bench.writer, &flush).await;
    bench.lease.position = Position(4);
    bench
}

fn refused(offset: i64) -> StoredVerdict {
    StoredVerdict::new(partition(0), offset, "refused", None).judged(|_| false)
}

fn dropped(offset: i64) -> StoredVerdict {
    StoredVerdict::new(partition(0), offset, DROPPED, None)
}

async fn left_out(target: &dyn Target) -> Vec<StoredVerdict> {
    let mut verdicts = target.snapshot().await.unwrap().books().verdicts.clone();
    verdicts.sort_by_key(|verdict| verdict.offset);
    verdicts
}

async fn acquire(bench: &Bench, generation: u64, claim: Beginning) -> Acquired {
    let writer = bench.target.writer(generation).await.unwrap();
    writer.acquire(&[claim]).await.unwrap()
}

fn rebuilds(bench: &Bench) -> &dyn Rebuilds {
    bench.target.rebuilds()
}

pub(crate) async fn a_build_decides_anew_what_the_live_generation_left_out(store: &dyn Store) {
    let left = [refused(0), refused(1), dropped(2)];
    let live = bench(store, "verdicts_build", &left).await;
    let number = rebuilds(&live).begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    let writer = live.target.writer(number).await.unwrap();
    let acquired = writer.acquire(&[claim(0, 0)]).await.unwrap();
    assert_eq!(acquired.verdicts, left);
    // The first is in now, the others are left out again.
    let lease = &acquired.leases[0];
    let mut flush = live.flush(Vec::new());
    flush.advances = vec![advance(lease, 0, 2)];
    flush.verdicts = vec![left[1].clone()];
    durable(&*writer, &flush).await;
    assert_eq!(left_out(&*live.target).await, left, "the live generation has not changed");
    let acquired = writer.acquire(&[claim(0, 0)]).await.unwrap();
    assert_eq!(acquired.verdicts, left[2..], "what is decided is decided");
    flush.advances = vec![advance(&acquired.leases[0], 2, 4)];
    flush.verdicts = vec![left[2].clone()];
    durable(&*writer, &flush).await;
    for step in [Step::Follow, Step::Hold { patient: false }, Step::Swap] {
        let stepped = rebuilds(&live).step(number, step).await.unwrap();
        assert!(matches!(stepped, Stepped::Done(_)), "{step:?}: {stepped:?}");
    }
    assert_eq!(left_out(&*live.target).await, left[1..], "an answered question counts for nothing");
    if store.keeps_generations() {
        assert_eq!(rebuilds(&live).roll_back(None).await.unwrap(), 1);
        assert_eq!(left_out(&*live.target).await, left, "each generation has its own");
    }
}

pub(crate) async fn a_verdict_is_of_one_life_of_its_topic(store: &dyn Store) {
    for in_place in [false, true] {
        let case = if in_place { "verdicts_anew" } else { "verdicts_anew_beside" };
        let live = bench(store, case, &[refused(0), dropped(1)]).await;
        let anew = Beginning { topic_id: Some("topic-2".to_owned()), ..claim(0, 0) };
        let next = if in_place {
            live.target.rebuild(1, Some(std::slice::from_ref(&anew))).await.unwrap()
        } else {
            rebuilds(&live).begin(By::Operator, std::slice::from_ref(&anew), &[]).await.unwrap()
        };
        let acquired = acquire(&live, next, anew).await;
        assert_eq!(acquired.verdicts, [], "another record stands at the same offset");
    }
}

pub(crate) async fn what_was_dropped_stays_dropped_in_every_generation(store: &dyn Store) {
    let mut live = bench(store, "verdicts_dropped", &[]).await;
    let number = rebuilds(&live).begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    let mut flush = live.flush(Vec::new());
    flush.advances = vec![advance(&live.lease, 4, 4)];
    flush.verdicts = vec![dropped(3)];
    durable(&*live.writer, &flush).await;
    live.durable(Vec::new()).await;
    let acquired = acquire(&live, number, claim(0, 0)).await;
    assert_eq!(acquired.verdicts, [dropped(3)], "a build that began before knows too");
}

pub(crate) async fn a_rebuild_in_place_that_is_not_done_hands_its_questions_on(store: &dyn Store) {
    let live = bench(store, "verdicts_twice", &[refused(0), refused(3)]).await;
    let next = live.target.rebuild(1, None).await.unwrap();
    let acquired = acquire(&live, next, claim(0, 0)).await;
    assert_eq!(acquired.verdicts, [refused(0), refused(3)]);
    let writer = live.target.writer(next).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    let mut flush = live.flush(Vec::new());
    flush.advances = vec![advance(&lease, 0, 2)];
    durable(&*writer, &flush).await;
    assert_eq!(left_out(&*live.target).await, [], "one is in, one is still to be asked");
    let next = live.target.rebuild(next, None).await.unwrap();
    assert_eq!(acquire(&live, next, claim(0, 0)).await.verdicts, [refused(3)]);
}
