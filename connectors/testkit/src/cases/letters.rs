//! Letters of a build: what the live generation did not have leaves at the swap.

use bytes::Bytes;
use foldline_api::letters::BadRecord;
use foldline_api::parked::Place;
use foldline_api::rebuild::{By, Rebuilds, Step, Stepped};
use foldline_api::sink::Beginning;
use foldline_api::source::DeadLetter;

use crate::contract::{Bench, Store, advance, claim, durable, model, partition};

fn letter(offset: i64) -> DeadLetter {
    DeadLetter {
        partition: partition(0),
        offset,
        key: None,
        value: Some(Bytes::from(vec![0, 0xff, u8::try_from(offset).unwrap()])),
        headers: vec![("why".into(), Some(Bytes::from_static(b"bad")))],
    }
}

fn bad(offset: i64, by_store: bool, waits: bool) -> BadRecord {
    let letter = waits.then(|| letter(offset));
    BadRecord { partition: partition(0), offset, by_store, letter }
}

fn rebuilds(bench: &Bench) -> &dyn Rebuilds {
    bench.target.rebuilds()
}

/// Begins a build that comes to position 6 with these bad records; its number.
async fn built(bench: &Bench, records: &[BadRecord]) -> u64 {
    let number = rebuilds(bench).begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    let writer = bench.target.writer(number).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    let mut flush = bench.flush(Vec::new());
    flush.advances = vec![advance(&lease, 0, 6)];
    flush.bad = records.to_vec();
    durable(&*writer, &flush).await;
    number
}

async fn swap(bench: &Bench, number: u64) {
    for step in [Step::Follow, Step::Hold { patient: false }, Step::Swap] {
        let stepped = rebuilds(bench).step(number, step).await.unwrap();
        assert!(matches!(stepped, Stepped::Done(_)), "{step:?}: {stepped:?}");
    }
}

pub(crate) async fn letters_of_what_is_bad_only_now_leave_at_the_swap(store: &dyn Store) {
    let live = Bench::new(store, "letters_swap", model()).await;
    let mut flush = live.flush(Vec::new());
    flush.advances = vec![advance(&live.lease, 0, 4)];
    flush.bad = vec![bad(0, true, false)];
    durable(&*live.writer, &flush).await;
    let records = [
        bad(0, true, true),
        bad(1, true, true),
        bad(2, false, true),
        bad(3, true, true),
        bad(5, false, true),
    ];
    let number = built(&live, &records).await;
    swap(&live, number).await;
    let mut waiting = rebuilds(&live).letters(number, 10).await.unwrap();
    waiting.sort_by_key(|((_, offset), _)| *offset);
    let expect: Vec<(Place, DeadLetter)> =
        [1, 3, 5].map(|offset| ((partition(0), offset), letter(offset))).to_vec();
    assert_eq!(
        waiting, expect,
        "the first was bad before, the third is by the projection, which is the same; the live one did not come to the last"
    );
    assert_eq!(rebuilds(&live).letters(number, 1).await.unwrap().len(), 1);
    rebuilds(&live).sent(number, &[(partition(0), 1)]).await.unwrap();
    assert_eq!(rebuilds(&live).letters(number, 10).await.unwrap(), expect[1..]);
    rebuilds(&live).sent(number, &[(partition(0), 3)]).await.unwrap();
    assert_eq!(rebuilds(&live).letters(number, 10).await.unwrap(), expect[2..]);
    // What has a letter once has none from the next generation; what still waits goes on waiting there.
    let next = built(&live, &records).await;
    swap(&live, next).await;
    assert_eq!(rebuilds(&live).letters(next, 10).await.unwrap(), expect[2..]);
    rebuilds(&live).sent(next, &[(partition(0), 5)]).await.unwrap();
    let last = built(&live, &records).await;
    swap(&live, last).await;
    assert_eq!(rebuilds(&live).letters(last, 10).await.unwrap(), []);
}

pub(crate) async fn a_cancelled_build_takes_its_letters_along(store: &dyn Store) {
    let mut live = Bench::new(store, "letters_cancel", model()).await;
    for _ in 0..4 {
        live.durable(Vec::new()).await;
    }
    let number = built(&live, &[bad(1, true, true)]).await;
    assert_eq!(rebuilds(&live).cancel(None).await.unwrap(), Some(number));
    assert_eq!(rebuilds(&live).letters(1, 10).await.unwrap(), []);
    let next = built(&live, &[]).await;
    swap(&live, next).await;
    assert_eq!(rebuilds(&live).letters(next, 10).await.unwrap(), []);
}

/// Whose letters were sent, as `generation` knows.
async fn sent(bench: &Bench, generation: u64) -> Vec<i64> {
    let places: Vec<Place> = (0..8).map(|offset| (partition(0), offset)).collect();
    let mut sent: Vec<i64> = rebuilds(bench)
        .were_sent(generation, &places)
        .await
        .unwrap()
        .into_iter()
        .map(|(_, offset)| offset)
        .collect();
    sent.sort_unstable();
    sent
}

pub(crate) async fn what_was_sent_is_known_to_whichever_becomes_live(store: &dyn Store) {
    let live = Bench::new(store, "letters_known", model()).await;
    let mut flush = live.flush(Vec::new());
    flush.advances = vec![advance(&live.lease, 0, 4)];
    flush.bad = vec![bad(1, false, false), bad(3, true, false)];
    durable(&*live.writer, &flush).await;
    assert_eq!(sent(&live, 1).await, [1, 3]);
    // In place, twice, though the one between comes to none of them.
    assert_eq!(live.target.rebuild(1, None).await.unwrap(), 2);
    live.target.open().await.unwrap();
    assert_eq!(sent(&live, 2).await, [1, 3]);
    assert_eq!(live.target.rebuild(2, None).await.unwrap(), 3);
    live.target.open().await.unwrap();
    assert_eq!(sent(&live, 3).await, [1, 3]);
    // By a swap: that it calls one of them good is no reason to forget, and of what it had kept only the rest waits.
    let writer = live.target.writer(3).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    let mut flush = live.flush(Vec::new());
    flush.advances = vec![advance(&lease, 0, 2)];
    flush.bad = vec![bad(1, false, false)];
    durable(&*writer, &flush).await;
    let build = built(&live, &[bad(3, true, true), bad(4, true, true), bad(5, true, true)]).await;
    swap(&live, build).await;
    assert_eq!(sent(&live, build).await, [1, 3]);
    let waiting = rebuilds(&live).letters(build, 10).await.unwrap();
    assert_eq!(
        waiting.len(),
        2,
        "the one that the live generation had not come to was sent before"
    );
    rebuilds(&live).sent(build, &[(partition(0), 5)]).await.unwrap();
    assert_eq!(sent(&live, build).await, [1, 3, 5]);
    if store.keeps_generations() {
        // By a rollback: it catches up, and sends but what nobody has sent.
        assert_eq!(rebuilds(&live).roll_back(Some(build)).await.unwrap(), 3);
        live.target.open().await.unwrap();
        assert_eq!(sent(&live, 3).await, [1, 3, 5]);
        return;
    }
    assert_eq!(live.target.rebuild(build, None).await.unwrap(), build + 1);
}

pub(crate) async fn what_was_sent_of_another_life_of_the_topic_counts_for_nothing(
    store: &dyn Store,
) {
    let live = Bench::new(store, "letters_life", model()).await;
    let mut flush = live.flush(Vec::new());
    flush.advances = vec![advance(&live.lease, 0, 4)];
    flush.bad = vec![bad(1, false, false)];
    durable(&*live.writer, &flush).await;
    let anew = Beginning { topic_id: Some("topic-2".to_owned()), ..claim(0, 0) };
    assert_eq!(live.target.rebuild(1, Some(&[anew])).await.unwrap(), 2);
    live.target.open().await.unwrap();
    assert_eq!(sent(&live, 2).await, [0_i64; 0]);
}
