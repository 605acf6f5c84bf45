//! Events that are left out by hand.

use foldline_api::ErrorClass;
use foldline_api::hole::Hole;
use foldline_api::record::Position;
use foldline_api::sink::{Flush, Written};

use crate::contract::{Bench, Store, advance, claim, durable, model, partition};

fn hole(number: i32, from: i64, to: i64) -> Hole {
    Hole { partition: partition(number), from: Position(from), to: Position(to) }
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
    assert_eq!(beginnings, [0, 0], "a rebuild folds what was left out");
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    assert_eq!(other.holes().holes(2).await.unwrap(), []);
}
