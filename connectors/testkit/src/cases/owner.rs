//! A target belongs to one connector: no command of another one does anything to it.

use std::fmt::Debug;

use foldline_api::lifecycle::LogNow;
use foldline_api::parked::{Changes, ParkedEvent, Request, Which};
use foldline_api::rebuild::{By, Phase, Step};
use foldline_api::record::{Position, Record};
use foldline_api::removal::Keep;
use foldline_api::sink::{DesiredState, Opened, Target, TargetSpec, Version};
use foldline_api::{ErrorClass, Result};

use crate::contract::{Bench, Store, claim, key_of, model, partition};

/// The command was refused by the owner's name.
fn refused<T: Debug>(command: &str, done: Result<T>) {
    let error =
        done.err().unwrap_or_else(|| panic!("{command}: carried out for another connector"));
    assert_eq!(error.class(), ErrorClass::Config, "{command}: {error}");
    assert!(error.to_string().contains("belongs to"), "{command}: {error}");
}

/// What the owner sees of its target.
async fn seen(bench: &Bench) -> String {
    let Opened { generation, positions, desired, .. } = bench.target.status().await.unwrap();
    let generations = bench.target.rebuilds().generations().await.unwrap();
    let parked = bench.target.parking().parked(generation, &Which::default()).await.unwrap();
    format!("{generation} {positions:?} {desired:?} {generations:?} {parked:?}")
}

/// Every command, each with the numbers that the owner would give.
async fn refuse_all(stranger: &dyn Target, live: u64, build: u64, event: &ParkedEvent) {
    let place = event.place();
    refused("open", stranger.open().await);
    refused("check", stranger.check().await);
    refused("begin", stranger.begin(live, &[claim(7, 0)]).await);
    refused("rebuild in place", stranger.rebuild(live, None).await);
    refused("rebuild in place from", stranger.rebuild(live, Some(&[claim(0, 0)])).await);
    refused("status", stranger.status().await);
    refused("live", stranger.live().await);
    for desired in [DesiredState::Paused, DesiredState::Stopped, DesiredState::Running] {
        refused("pause, stop and resume", stranger.set_desired(desired).await);
    }
    // A sink that has nothing to clear away may say that it did it.
    drop(stranger.maintain().await);
    drop(stranger.note_stopped().await);
    refused("remove", stranger.remove(Keep::Nothing).await);
    refused("adopt", stranger.adopt(&LogNow::default()).await);
    for generation in [live, build] {
        refused("a writer", stranger.writer(generation).await.map(drop));
    }
    refused("verify", stranger.snapshot().await.map(drop));
    let parking = stranger.parking();
    refused("parked", parking.parked(live, &Which::default()).await);
    refused("parked records", parking.records(live, std::slice::from_ref(&place)).await);
    for request in [Request::Retry, Request::Drop] {
        refused("retry and drop", parking.ask(live, &place, request).await);
    }
    refused("holes", stranger.holes().holes(live).await);
    refused("skip", stranger.holes().skip(live, &[(partition(0), Position(9))]).await);
    refused("forget holes", stranger.holes().forget(live).await);
    let rebuilds = stranger.rebuilds();
    refused("rebuild", rebuilds.begin(By::Operator, &[claim(0, 0)], &[]).await);
    refused("generations", rebuilds.generations().await.map(drop));
    for step in [Step::Follow, Step::Hold { patient: false }, Step::Release, Step::Swap] {
        refused("a step", rebuilds.step(build, step).await);
    }
    refused("cancel", rebuilds.cancel(None).await);
    refused("roll back", rebuilds.roll_back(None).await);
    refused("drop old", rebuilds.drop_old(0).await);
    refused("letters", rebuilds.letters(live, 1).await);
    refused("letters sent", rebuilds.sent(live, &[]).await);
}

/// A connector of another name, of another worker, and of another group.
fn strangers(owner: &TargetSpec) -> [TargetSpec; 3] {
    let other = || "somebody-else".to_owned();
    [
        TargetSpec { connector: other(), ..owner.clone() },
        TargetSpec { worker: other(), ..owner.clone() },
        TargetSpec { group: other(), ..owner.clone() },
    ]
}

pub(crate) async fn no_command_of_another_connector_does_anything(store: &dyn Store) {
    let mut bench = Bench::new(store, "stranger", model()).await;
    bench.durable(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent)]).await;
    // Made while there is a generation to hold: it must not be of use either.
    let event = ParkedEvent {
        record: Record {
            topic: partition(0).topic,
            partition: 0,
            offset: 1,
            timestamp: None,
            key: None,
            value: None,
            headers: Vec::new(),
        },
        keys: vec!["1".to_owned()],
        reason: Some("bad".to_owned()),
    };
    let mut flush = bench.flush(Vec::new());
    flush.parking = Changes { park: vec![event.clone()], ..Changes::default() };
    crate::contract::durable(&*bench.writer, &flush).await;
    bench.lease.position.0 += 1;

    let rebuilds = bench.target.rebuilds();
    let mut live = 1;
    // While a build is loading, following and holding, and with a generation that is kept.
    for phase in [Some(Phase::Loading), Some(Phase::Following), Some(Phase::Holding), None] {
        let build = rebuilds.begin(By::Operator, &[claim(0, 0)], &[]).await;
        let build = build.unwrap();
        match phase {
            Some(Phase::Loading) => {}
            Some(Phase::Following) => step(&bench, build, Step::Follow).await,
            Some(Phase::Holding) => step(&bench, build, Step::Hold { patient: false }).await,
            None => {
                let writer = bench.target.writer(build).await.unwrap();
                let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
                let flush = foldline_api::sink::Flush {
                    advances: vec![crate::contract::advance(&lease, 0, 2)],
                    ..Default::default()
                };
                crate::contract::durable(&*writer, &flush).await;
                step(&bench, build, Step::Swap).await;
                live = build;
            }
        }
        let before = seen(&bench).await;
        for spec in strangers(&bench.spec) {
            let stranger = store.target(spec).await;
            refuse_all(&*stranger, live, build, &event).await;
        }
        assert_eq!(seen(&bench).await, before, "{phase:?}");
        if phase.is_none() {
            break;
        }
        let loaded = bench.writer.load(&[key_of(1)]).await.unwrap();
        assert_eq!(loaded[0].row, Some(bench.row(1, "a", 1)), "{phase:?}");
    }
    let snapshot = bench.target.snapshot().await.unwrap();
    assert_eq!(snapshot.books().generation, live);
}

async fn step(bench: &Bench, build: u64, step: Step) {
    let stepped = bench.target.rebuilds().step(build, step).await.unwrap();
    assert!(matches!(stepped, foldline_api::rebuild::Stepped::Done(_)), "{step:?}: {stepped:?}");
}
