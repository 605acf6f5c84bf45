//! Events set aside with their keys.

use std::sync::Arc;

use bytes::Bytes;
use foldline_api::parked::{Changes, DROPPED, Parked, ParkedEvent, Request, Which};
use foldline_api::record::Record;
use foldline_api::sink::{Flush, StoredDecision, StoredVerdict, Target, Version, Written};

use crate::contract::{Bench, Store, advance, check, claim, durable, model, partition};

fn event(offset: i64, keys: &[&str], reason: Option<&str>) -> ParkedEvent {
    let record = Record {
        topic: Arc::from("events"),
        partition: 0,
        offset,
        timestamp: Some(1_700_000_000_000),
        key: Some(Bytes::from_static(b"\0\xffkey")),
        value: Some(Bytes::from(format!("{{\"at\":{offset}}}"))),
        headers: vec![(Arc::from("trace"), Some(Bytes::from_static(b"1")))],
    };
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    ParkedEvent { record, keys, reason: reason.map(str::to_owned) }
}

fn parks(park: &[ParkedEvent]) -> Changes {
    Changes { park: park.to_vec(), ..Changes::default() }
}

async fn all(target: &dyn Target, generation: u64) -> Vec<Parked> {
    target.parking().parked(generation, &Which::default()).await.unwrap()
}

fn told(events: &[ParkedEvent]) -> Vec<Parked> {
    events.iter().map(ParkedEvent::parked).collect()
}

/// Parks these in a fresh target; the positions move to 2 with them.
async fn parked_bench(store: &dyn Store, case: &str, events: &[ParkedEvent]) -> Bench {
    let mut bench = Bench::new(store, case, model()).await;
    let mut flush = bench.flush(Vec::new());
    flush.advances = vec![advance(&bench.lease, 0, 2)];
    flush.parking = parks(events);
    durable(&*bench.writer, &flush).await;
    bench.lease.position.0 = 2;
    bench
}

pub(crate) async fn parked_events_come_back_whole_until_they_are_freed(store: &dyn Store) {
    let events = [event(0, &["1"], Some("a\0reason")), event(1, &["1", "2:x"], None)];
    let bench = parked_bench(store, "parked", &events).await;
    let records: Vec<Record> = events.iter().map(|event| event.record.clone()).collect();
    let places: Vec<_> = events.iter().map(ParkedEvent::place).collect();
    // Another worker sees the same, and so does the next owner.
    let target = store.target(bench.spec.clone()).await;
    let parking = target.parking();
    assert_eq!(all(&*target, 1).await, told(&events));
    assert_eq!(parking.records(1, &places).await.unwrap(), records);
    assert_eq!(parking.records(1, &[(partition(0), 7)]).await.unwrap(), []);
    let elsewhere = Which { partitions: Some(vec![partition(1)]), asked: false };
    assert_eq!(parking.parked(1, &elsewhere).await.unwrap(), []);
    let other = bench.other_writer(store).await;
    let acquired = other.acquire(&[claim(0, 0)]).await.unwrap();
    assert_eq!(acquired.parked, told(&events));
    let lease = &acquired.leases[0];
    // Anyone may ask, and only for what is parked.
    let asked = Which { partitions: None, asked: true };
    assert_eq!(parking.parked(1, &asked).await.unwrap(), []);
    assert!(parking.ask(1, &(partition(0), 1), Request::Skip).await.unwrap());
    assert!(!parking.ask(1, &(partition(0), 7), Request::Drop).await.unwrap());
    assert!(!parking.ask(2, &(partition(0), 1), Request::Drop).await.unwrap());
    let found = parking.parked(1, &asked).await.unwrap();
    let requests: Vec<_> = found.iter().map(|parked| (parked.offset, parked.request)).collect();
    assert_eq!(requests, [(1, Some(Request::Skip))]);
    // The owner could not follow: the request is done with, and says why.
    let keep = vec![((partition(0), 1), Some("again".to_owned())), ((partition(0), 0), None)];
    let parking_changes = Changes { keep, ..Changes::default() };
    let flush = Flush {
        advances: vec![advance(lease, 2, 2)],
        parking: parking_changes,
        ..Flush::default()
    };
    durable(&*other, &flush).await;
    let kept = all(&*target, 1).await;
    assert_eq!(kept[0], events[0].parked());
    assert_eq!((kept[1].reason.as_deref(), kept[1].request), (Some("again"), None));
    // Freed together with the row that they give.
    let free = Changes { free: places.clone(), ..Changes::default() };
    let flush = Flush {
        advances: vec![advance(lease, 2, 2)],
        writes: vec![bench.write(1, Some(bench.row(1, "a", 2)), Version::Absent)],
        parking: free,
        ..Flush::default()
    };
    durable(&*other, &flush).await;
    assert_eq!(all(&*target, 1).await, []);
    assert_eq!(parking.records(1, &places).await.unwrap(), []);
}

pub(crate) async fn a_flush_that_does_not_go_through_parks_and_frees_nothing(store: &dyn Store) {
    let first = [event(0, &["1"], Some("a reason"))];
    let bench = parked_bench(store, "parked_fence", &first).await;
    let stale = Flush {
        advances: vec![advance(&bench.lease, 2, 3)],
        parking: Changes {
            park: vec![event(2, &["1"], None)],
            free: vec![(partition(0), 0)],
            keep: Vec::new(),
        },
        ..Flush::default()
    };
    // A check that does not hold.
    let conflict = Flush { checks: vec![check(9, Version::At(9, 9))], ..stale.clone() };
    let written = bench.writer.write(&conflict).await.unwrap();
    assert!(matches!(written, Written::Conflict { .. }), "{written:?}");
    assert_eq!(all(&*bench.target, 1).await, told(&first));
    // Whoever was fenced.
    let other = bench.other_writer(store).await;
    let lease = other.acquire(&[claim(0, 0)]).await.unwrap().leases.remove(0);
    let written = bench.writer.write(&stale).await.unwrap();
    assert!(matches!(written, Written::Fenced), "{written:?}");
    assert_eq!(all(&*bench.target, 1).await, told(&first));
    // Nor does a step that moves nothing from another place.
    let elsewhere = Flush { advances: vec![advance(&lease, 1, 1)], ..stale };
    assert!(matches!(other.write(&elsewhere).await.unwrap(), Written::Fenced));
    assert_eq!(all(&*bench.target, 1).await, told(&first));
}

pub(crate) async fn a_replay_does_not_park_twice(store: &dyn Store) {
    let events = [event(0, &["1"], Some("a reason")), event(1, &["1"], None)];
    let bench = parked_bench(store, "parked_again", &events).await;
    let mut again = bench.flush(Vec::new());
    again.advances = vec![advance(&bench.lease, 0, 2)];
    again.parking = parks(&events);
    assert!(matches!(bench.writer.write(&again).await.unwrap(), Written::Fenced));
    // Parked anew under its place, as after a lost attempt: still once.
    let mut flush = bench.flush(Vec::new());
    flush.advances = vec![advance(&bench.lease, 2, 2)];
    flush.parking = parks(&[event(1, &["1"], Some("bad itself"))]);
    durable(&*bench.writer, &flush).await;
    let found = all(&*bench.target, 1).await;
    let offsets: Vec<i64> = found.iter().map(|parked| parked.offset).collect();
    assert_eq!((offsets, found[1].reason.as_deref()), (vec![0, 1], Some("bad itself")));
}

/// Only where rows move one by one: elsewhere no row holds an event that is parked.
pub(crate) async fn what_some_rows_hold_keeps_its_decision_while_it_is_parked(store: &dyn Store) {
    let bench = Bench::new(store, "parked_half", model()).await;
    if !bench.writer.keeps_marks() {
        return;
    }
    let decision = |offset, bad: Option<&str>| StoredDecision {
        partition: partition(0),
        offset,
        refused: vec![1],
        bad: bad.map(str::to_owned),
    };
    // One row of the flush is written, the other is stale.
    let mut flush = bench.flush(vec![
        bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent),
        bench.write(2, Some(bench.row(2, "a", 1)), Version::At(9, 9)),
    ]);
    flush.decisions = vec![decision(0, None), decision(1, Some("it overflows"))];
    assert!(matches!(bench.writer.write(&flush).await.unwrap(), Written::Conflict { .. }));
    let mut flush = bench.flush(Vec::new());
    flush.advances = vec![advance(&bench.lease, 0, 2)];
    flush.parking = parks(&[event(0, &["1", "2"], None), event(1, &["2"], Some("bad"))]);
    durable(&*bench.writer, &flush).await;
    let other = bench.other_writer(store).await;
    let acquired = other.acquire(&[claim(0, 0)]).await.unwrap();
    let refused: Vec<&[u32]> = acquired.parked.iter().map(|parked| &*parked.refused).collect();
    assert_eq!(refused, [&[1][..], &[]], "a bad one is decided anew");
    let free = Changes { free: vec![(partition(0), 0)], ..Changes::default() };
    let lease = &acquired.leases[0];
    let flush = Flush { advances: vec![advance(lease, 2, 2)], parking: free, ..Flush::default() };
    durable(&*other, &flush).await;
    assert_eq!(other.acquire(&[claim(0, 0)]).await.unwrap().decisions, []);
}

pub(crate) async fn the_next_generation_decides_anew_but_for_what_was_dropped(store: &dyn Store) {
    let events = [event(0, &["1"], Some("a reason")), event(1, &["2"], Some("another"))];
    let mut bench = parked_bench(store, "parked_next", &events).await;
    let dropped = StoredVerdict::new(partition(0), 1, DROPPED, None);
    let mut flush = bench.flush(Vec::new());
    flush.advances = vec![advance(&bench.lease, 2, 2)];
    flush.parking = Changes { free: vec![(partition(0), 1)], ..Changes::default() };
    flush.verdicts = vec![dropped.clone()];
    durable(&*bench.writer, &flush).await;
    bench.durable(Vec::new()).await;
    let next = bench.target.rebuild(1, None).await.unwrap();
    assert_eq!((next, all(&*bench.target, next).await), (2, Vec::new()));
    assert_eq!(all(&*bench.target, 1).await, [], "nothing is left behind");
    let writer = bench.target.writer(next).await.unwrap();
    let acquired = writer.acquire(&[claim(0, 0)]).await.unwrap();
    assert_eq!(acquired.parked, []);
    let verdicts: Vec<_> = acquired.verdicts.iter().filter(|v| v.reason == DROPPED).collect();
    assert_eq!(verdicts, [&dropped]);
}
