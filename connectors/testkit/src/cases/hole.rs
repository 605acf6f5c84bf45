//! Events that are left out by hand.

use std::sync::Arc;

use foldline_api::ErrorClass;
use foldline_api::hole::Hole;
use foldline_api::rebuild::{By, Step, Stepped};
use foldline_api::record::Position;
use foldline_api::sink::{Beginning, Flush, Target, Writer, Written};

use crate::contract::{Bench, Store, advance, claim, durable, model, partition};

fn hole(number: i32, from: i64, to: i64) -> Hole {
    Hole::new(partition(number), Position(from), Position(to))
}

pub(crate) async fn a_hole_moves_the_position_fences_and_is_kept(store: &dyn Store) {
    let mut bench = Bench::new(store, "hole", model()).await;
    bench.writer.acquire(&[claim(1, 0)]).await.unwrap();
    let mut flush = bench.flush(Vec::new());
    flush.advances = vec![advance(&bench.lease, 0, 5)];
    durable(&*bench.writer, &flush).await;
    let target = store.target(bench.spec.clone()).await;
    let holes = target.holes();
    assert_eq!(holes.holes(1).await.unwrap(), []);
    let class = async |generation, number, to| {
        let to = [(partition(number), Position(to))];
        holes.skip(generation, &to).await.unwrap_err().class()
    };
    assert_eq!(class(1, 0, 4).await, ErrorClass::Config, "never back");
    assert_eq!(class(1, 7, 9).await, ErrorClass::Config, "not of the fold");
    assert_eq!(class(2, 0, 9).await, ErrorClass::Fenced, "not live");
    assert_eq!(holes.holes(1).await.unwrap(), [], "nothing was moved");
    holes.skip(1, &[(partition(0), Position(9)), (partition(1), Position(0))]).await.unwrap();
    holes.skip(1, &[(partition(0), Position(9)), (partition(1), Position(3))]).await.unwrap();
    // Another worker sees the same.
    let other = store.target(bench.spec.clone()).await;
    let kept = other.holes().holes(1).await.unwrap();
    assert_eq!(kept, [hole(0, 5, 9), hole(1, 0, 3)]);
    // Who held the partition is fenced; whoever takes it next reads on behind the hole.
    let late = Flush { advances: vec![advance(&bench.lease, 5, 6)], ..Flush::default() };
    let written = bench.writer.write(&late).await.unwrap();
    assert!(matches!(written, Written::Fenced), "{written:?}");
    let next = bench.other_writer(store).await;
    bench.lease = next.acquire(&[claim(0, 0)]).await.unwrap().leases.remove(0);
    assert_eq!(bench.lease.position, Position(9));
    let on = Flush { advances: vec![advance(&bench.lease, 9, 10)], ..Flush::default() };
    durable(&*next, &on).await;
    let stored = target.status().await.unwrap().positions;
    let beginnings: Vec<i64> = stored.iter().map(|stored| stored.beginning.0).collect();
    assert_eq!(beginnings, [0, 0], "a rebuild begins where the fold did");
    let fate = |holes: &[Hole]| holes.iter().all(|hole| hole.repeated);
    assert!(fate(&kept));
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    assert_eq!(other.holes().holes(2).await.unwrap(), [hole(0, 5, 9), hole(1, 0, 3)]);
    let last = target.writer(2).await.unwrap();
    let acquired = last.acquire(&[claim(0, 0)]).await.unwrap();
    assert_eq!(acquired.leases[0].position, Position(0));
    assert_eq!(acquired.holes, [hole(0, 5, 9)], "those of what it takes");
}

/// Takes the partition over in a build, and moves it there.
async fn build_up_to(target: &dyn Target, build: u64, to: i64) -> Arc<dyn Writer> {
    let writer = target.writer(build).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases.remove(0);
    let advances = vec![advance(&lease, lease.position.0, to)];
    durable(&*writer, &Flush { advances, ..Flush::default() }).await;
    writer
}

pub(crate) async fn a_hole_is_repeated_by_each_generation_of_its_topic(store: &dyn Store) {
    let mut bench = Bench::new(store, "repeated", model()).await;
    bench.lease.position = Position(5);
    let lease = advance(&bench.lease, 0, 5);
    durable(&*bench.writer, &Flush { advances: vec![lease], ..Flush::default() }).await;
    let target = store.target(bench.spec.clone()).await;
    let holes = target.holes();
    let skip = async |live, to| holes.skip(live, &[(partition(0), Position(to))]).await.unwrap();
    skip(1, 9).await;
    let build = target.rebuilds().begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    assert_eq!(holes.holes(build).await.unwrap(), [hole(0, 5, 9)]);
    let writer = target.writer(build).await.unwrap();
    let acquired = writer.acquire(&[claim(0, 0)]).await.unwrap();
    assert_eq!(
        (acquired.leases[0].position, &*acquired.holes),
        (Position(0), &[hole(0, 5, 9)][..])
    );
    // While it is built: behind where it stands,
    skip(1, 12).await;
    let ahead = [hole(0, 5, 9), hole(0, 9, 12)];
    assert_eq!(holes.holes(build).await.unwrap(), ahead);
    let advances = vec![advance(&acquired.leases[0], 0, 1)];
    let late = writer.write(&Flush { advances, ..Flush::default() }).await.unwrap();
    assert!(matches!(late, Written::Fenced), "who does not know of it: {late:?}");
    // before it, which is folded there,
    build_up_to(&*target, build, 14).await;
    skip(1, 13).await;
    assert_eq!(holes.holes(build).await.unwrap(), ahead);
    // and across.
    skip(1, 16).await;
    let all = [hole(0, 5, 9), hole(0, 9, 12), hole(0, 14, 16)];
    assert_eq!(holes.holes(build).await.unwrap(), all);
    let stands = target.rebuilds().generations().await.unwrap().build.unwrap().positions;
    assert_eq!(stands[0].position, Position(16));
    for step in [Step::Follow, Step::Hold { patient: false }, Step::Swap] {
        let stepped = target.rebuilds().step(build, step).await.unwrap();
        assert!(matches!(stepped, Stepped::Done(_)), "{step:?}: {stepped:?}");
    }
    let other = store.target(bench.spec.clone()).await;
    assert_eq!(other.holes().holes(build).await.unwrap(), all);
    let next = target.rebuild(build, None).await.unwrap();
    assert_eq!(holes.holes(next).await.unwrap(), all);
    // What an operator wants back is folded by the next one, and what is left out since is not.
    let class = holes.forget(next + 7).await.unwrap_err().class();
    assert_eq!(class, ErrorClass::Fenced);
    holes.forget(next).await.unwrap();
    holes.forget(next).await.unwrap();
    let forgotten = all.map(|hole| Hole { repeated: false, ..hole });
    assert_eq!(holes.holes(next).await.unwrap(), forgotten, "it does not hold them all the same");
    let writer = target.writer(next).await.unwrap();
    assert_eq!(writer.acquire(&[claim(0, 0)]).await.unwrap().holes, forgotten);
    skip(next, 2).await;
    let again = target.rebuild(next, None).await.unwrap();
    assert_eq!(holes.holes(again).await.unwrap(), [hole(0, 0, 2)]);
    // Offsets of another topic of this name say nothing.
    let anew = Beginning { topic_id: Some("topic-2".to_owned()), ..claim(0, 0) };
    let anew = target.rebuild(again, Some(&[anew])).await.unwrap();
    assert_eq!(holes.holes(anew).await.unwrap(), []);
}
