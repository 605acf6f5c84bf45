//! Rebuilds beside the live generation.

use foldline_api::ErrorClass;
use foldline_api::rebuild::{By, Phase, Rebuilds, Step, Stepped};
use foldline_api::record::Position;
use foldline_api::sink::{Version, Written};

use crate::contract::{Bench, Store, claim, key_of, model, partition};

/// A bench with one row.
async fn bench(store: &dyn Store, case: &str) -> Bench {
    let mut bench = Bench::new(store, case, model()).await;
    let row = bench.row(1, "a", 1);
    bench.durable(vec![bench.write(1, Some(row), Version::Absent)]).await;
    bench
}

fn rebuilds(bench: &Bench) -> &dyn Rebuilds {
    bench.target.rebuilds()
}

/// The same bench with the lease and the writer of a build that begins now.
async fn begun(bench: &Bench) -> Bench {
    let generation = rebuilds(bench)
        .begin(By::Operator, &[claim(0, 0)], &[(partition(0), Position(1))])
        .await
        .unwrap();
    let writer = bench.target.writer(generation).await.unwrap();
    let acquired = writer.acquire(&[claim(0, 0)]).await.unwrap();
    assert!(acquired.empty, "a build begins empty");
    assert_eq!(acquired.leases[0].position, Position(0), "and at the fold's beginning");
    Bench { writer, lease: acquired.leases[0].clone(), ..again(bench) }
}

async fn done(bench: &Bench, generation: u64, step: Step) {
    let stepped = rebuilds(bench).step(generation, step).await.unwrap();
    assert!(matches!(stepped, Stepped::Done(_)), "{step:?}: {stepped:?}");
}

async fn not_yet(bench: &Bench, generation: u64, step: Step) {
    let stepped = rebuilds(bench).step(generation, step).await.unwrap();
    assert!(matches!(stepped, Stepped::NotYet(_)), "{step:?}: {stepped:?}");
}

async fn phase(bench: &Bench) -> Option<Phase> {
    rebuilds(bench).generations().await.unwrap().build.map(|build| build.phase)
}

const HOLD: Step = Step::Hold { patient: false };

pub(crate) async fn a_build_takes_the_place_of_the_live_generation(store: &dyn Store) {
    let mut live = bench(store, "build_swap").await;
    let mut build = begun(&live).await;
    let again = rebuilds(&live)
        .begin(By::Operator, &[claim(0, 0)], &[(partition(0), Position(9))])
        .await
        .unwrap();
    assert_eq!(again, 2, "asked twice, begun once");
    assert_eq!(phase(&live).await, Some(Phase::Loading));
    not_yet(&live, 2, Step::Swap).await;
    not_yet(&live, 2, HOLD).await;

    // Both generations take writes, each at its own positions.
    build.durable(vec![build.write(1, Some(build.row(1, "b", 1)), Version::Absent)]).await;
    live.durable(vec![live.write(2, Some(live.row(2, "a", 1)), Version::Absent)]).await;
    let found = live.writer.load(&[key_of(1), key_of(2)]).await.unwrap();
    assert_eq!(found[0].row, Some(live.row(1, "a", 1)), "the live rows are the live ones");
    done(&live, 2, Step::Follow).await;
    done(&live, 2, HOLD).await;

    let late = live.flush(vec![live.write(3, Some(live.row(3, "a", 1)), Version::Absent)]);
    let written = live.writer.write(&late).await;
    assert!(!matches!(written, Ok(Written::Durable(_))), "held, and written: {written:?}");
    let error = live.writer.acquire(&[claim(0, 0)]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retriable, "held, not over: {error}");
    not_yet(&live, 2, Step::Swap).await;
    build.durable(vec![build.write(2, Some(build.row(2, "b", 1)), Version::Absent)]).await;
    done(&live, 2, Step::Swap).await;

    let opened = live.target.open().await.unwrap();
    assert_eq!((opened.generation, opened.positions[0].position), (2, Position(2)));
    let seen = rebuilds(&live).generations().await.unwrap();
    assert!(seen.build.is_none());
    let kept = if store.keeps_generations() { vec![1] } else { Vec::new() };
    assert_eq!((seen.live, seen.old), (2, kept));
    for zombie in [&live.writer, &build.writer] {
        let error = zombie.acquire(&[claim(0, 0)]).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Fenced, "{error}");
    }
    let late = build.flush(vec![build.write(3, Some(build.row(3, "b", 1)), Version::Absent)]);
    let written = build.writer.write(&late).await;
    assert!(!matches!(written, Ok(Written::Durable(_))), "the build is over: {written:?}");
    let writer = live.target.writer(2).await.unwrap();
    let acquired = writer.acquire(&[claim(0, 0)]).await.unwrap();
    assert_eq!(acquired.leases[0].position, Position(2));
    let found = writer.load(&[key_of(1), key_of(2)]).await.unwrap();
    let rows: Vec<_> = found.iter().map(|loaded| loaded.row.clone()).collect();
    assert_eq!(rows, [Some(live.row(1, "b", 1)), Some(live.row(2, "b", 1))]);
}

pub(crate) async fn a_build_that_is_not_reached_lets_the_live_generation_go_on(store: &dyn Store) {
    let mut live = bench(store, "build_release").await;
    let _build = begun(&live).await;
    let precede = rebuilds(&live).rows_precede_positions();
    assert_eq!(precede, live.writer.keeps_marks(), "marks are for rows that precede the positions");
    done(&live, 2, Step::Follow).await;
    assert!(!precede || rebuilds(&live).fence(2).await.is_err(), "it is not held yet");
    done(&live, 2, HOLD).await;
    rebuilds(&live).fence(2).await.unwrap();
    let late = live.flush(vec![live.write(2, Some(live.row(2, "late", 1)), Version::Absent)]);
    assert!(!matches!(live.writer.write(&late).await, Ok(Written::Durable(_))));
    assert_eq!(
        live.writer.load(&[key_of(2)]).await.map_or(None, |mut found| found.remove(0).row),
        None
    );
    done(&live, 2, Step::Release).await;
    assert_eq!(phase(&live).await, Some(Phase::Following));
    let acquired = live.writer.acquire(&[claim(0, 0)]).await.unwrap();
    live.lease = acquired.leases[0].clone();
    assert_eq!(live.lease.position, Position(1));
    live.durable(vec![live.write(2, Some(live.row(2, "a", 1)), Version::Absent)]).await;
}

pub(crate) async fn a_cancelled_build_is_gone(store: &dyn Store) {
    let mut live = bench(store, "build_cancel").await;
    assert_eq!(rebuilds(&live).cancel(None).await.unwrap(), None);
    for hold in [false, true] {
        let mut build = begun(&live).await;
        let generation = rebuilds(&live).generations().await.unwrap().build.unwrap().generation;
        build.durable(vec![build.write(1, Some(build.row(1, "b", 1)), Version::Absent)]).await;
        if hold {
            done(&live, generation, Step::Follow).await;
            done(&live, generation, HOLD).await;
        }
        assert_eq!(rebuilds(&live).cancel(None).await.unwrap(), Some(generation));
        assert!(rebuilds(&live).generations().await.unwrap().build.is_none());
        let late = build.flush(vec![build.write(2, Some(build.row(2, "b", 1)), Version::Absent)]);
        let written = build.writer.write(&late).await;
        assert!(!matches!(written, Ok(Written::Durable(_))), "cancelled, and written: {written:?}");
        let error = build.writer.acquire(&[claim(0, 0)]).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Fenced, "{error}");
        not_yet(&live, generation, Step::Swap).await;
    }
    live.lease = live.writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    live.durable(vec![live.write(2, Some(live.row(2, "a", 1)), Version::Absent)]).await;
}

pub(crate) async fn a_rollback_swaps_back_and_old_generations_are_dropped(store: &dyn Store) {
    let live = bench(store, "build_rollback").await;
    assert_eq!(rebuilds(&live).roll_back(None).await.unwrap_err().class(), ErrorClass::Config);
    let mut build = begun(&live).await;
    build.durable(vec![build.write(1, Some(build.row(1, "b", 1)), Version::Absent)]).await;
    assert!(rebuilds(&live).roll_back(None).await.is_err(), "not while one is built");
    for step in [Step::Follow, HOLD, Step::Swap] {
        done(&live, 2, step).await;
    }
    let rounds = if store.keeps_generations() { 3 } else { 0 };
    for (generation, name, kept) in [(1, "a", 2), (2, "b", 1), (1, "a", 2)].into_iter().take(rounds)
    {
        assert_eq!(rebuilds(&live).roll_back(None).await.unwrap(), generation);
        assert_eq!(live.target.open().await.unwrap().generation, generation);
        let writer = live.target.writer(generation).await.unwrap();
        let acquired = writer.acquire(&[claim(0, 0)]).await.unwrap();
        let found = writer.load(&[key_of(1)]).await.unwrap();
        assert_eq!(found[0].row, Some(live.row(1, name, 1)));
        // It goes on from its own positions.
        let mut back = Bench { writer, lease: acquired.leases[0].clone(), ..again(&live) };
        back.durable(Vec::new()).await;
        assert_eq!(rebuilds(&live).drop_old(1).await.unwrap(), Vec::<u64>::new());
        assert_eq!(rebuilds(&live).generations().await.unwrap().old, [kept]);
    }
    let dropped = if store.keeps_generations() { vec![2] } else { Vec::new() };
    assert_eq!(rebuilds(&live).drop_old(0).await.unwrap(), dropped);
    assert_eq!(rebuilds(&live).roll_back(None).await.unwrap_err().class(), ErrorClass::Config);
    let next = rebuilds(&live).begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    assert!(next > 1, "numbers rise: {next}");
}

fn again(bench: &Bench) -> Bench {
    Bench {
        target: bench.target.clone(),
        writer: bench.writer.clone(),
        lease: bench.lease.clone(),
        model: bench.model.clone(),
        spec: bench.spec.clone(),
    }
}
