//! Rows that are deleted by the clock.

use std::sync::Arc;

use foldline_api::ErrorClass;
use foldline_api::expiry::{Horizon, Rule};
use foldline_api::model::{Key, Row};
use foldline_api::sink::{RowWrite, TargetSpec, Version, Written};

use crate::contract::{Bench, Store, model_of, row, spec_of};

const HOUR: i64 = 3_600_000;

/// A target whose key is a text and a moment of this type, in either order.
fn spec(name: &str, ty: &str, moment_first: bool) -> TargetSpec {
    let mut columns = [("who", "text"), ("since", ty), ("count", "bigint")];
    if moment_first {
        columns.swap(0, 1);
    }
    let mut spec = spec_of(name, model_of(&columns, 2));
    let at = usize::from(!moment_first);
    let rule = Rule { field: Arc::from("since"), column: at, at, after: HOUR };
    spec.expire = Some(rule);
    spec
}

pub(crate) async fn a_horizon_only_goes_forward_for_all_generations(store: &dyn Store) {
    let bench = Bench::of(store, "horizon", spec(&store.name("horizon"), "date", true)).await;
    let Some(horizons) = bench.target.horizons() else { return };
    let look = horizons.look().await.unwrap();
    assert_eq!(look.horizon, None);
    assert!(look.now > 1_500_000_000_000, "the clock of a store: {}", look.now);
    assert_eq!(bench.target.snapshot().await.unwrap().books().horizon, None);
    let other = store.target(bench.spec.clone()).await;
    let others = other.horizons().unwrap();
    assert_eq!(horizons.advance(Horizon(100)).await.unwrap(), Horizon(100));
    assert_eq!(others.advance(Horizon(50)).await.unwrap(), Horizon(100), "never back");
    assert_eq!(others.look().await.unwrap().horizon, Some(Horizon(100)));
    // Another rule of the same target has its own.
    let mut longer = bench.spec.clone();
    longer.expire.as_mut().unwrap().after += 1;
    let longer = store.target(longer).await;
    assert_eq!(longer.horizons().unwrap().look().await.unwrap().horizon, None);
    // What many move at once ends at the greatest.
    let tasks = (0..8).map(async |nth| {
        let target = store.target(bench.spec.clone()).await;
        let to = Horizon(1_000 + nth);
        let horizons = target.horizons().unwrap();
        // A store may ask for another attempt, as the worker makes one.
        let mut left = 20;
        let at = loop {
            match horizons.advance(to).await {
                Err(error) if error.class() == ErrorClass::Retriable && left > 0 => left -= 1,
                at => break at.unwrap(),
            }
        };
        assert!(at >= to);
    });
    futures_util::future::join_all(tasks).await;
    let greatest = Some(Horizon(1_007));
    assert_eq!(horizons.look().await.unwrap().horizon, greatest);
    assert_eq!(bench.target.rebuild(1, None).await.unwrap(), 2);
    assert_eq!(others.look().await.unwrap().horizon, greatest, "the next generation has it too");
    let snapshot = bench.target.snapshot().await.unwrap();
    assert_eq!(snapshot.books().horizon, greatest);
    let mut stranger = bench.spec.clone();
    stranger.connector = "stranger".to_owned();
    let theirs = store.target(stranger).await;
    let theirs = theirs.horizons().unwrap();
    assert_eq!(theirs.look().await.unwrap_err().class(), ErrorClass::Config);
    assert_eq!(theirs.advance(Horizon(9_999)).await.unwrap_err().class(), ErrorClass::Config);
    assert_eq!(horizons.look().await.unwrap().horizon, greatest);
}

/// Rows of these days and hours, by text.
fn rows(bench: &Bench, moment_first: bool, moments: &[&str]) -> Vec<(Key, Row)> {
    let make = |(nth, moment): (usize, &&str)| {
        let (who, moment) = (format!("\"{}\"", 9 - nth), format!("{moment:?}"));
        let mut values = [&*who, &*moment, "1"];
        if moment_first {
            values.swap(0, 1);
        }
        let row = row(&bench.model, &values);
        (bench.model.key_of(&row), row)
    };
    moments.iter().enumerate().map(make).collect()
}

async fn passes(store: &dyn Store, case: &str, (ty, moment_first): (&str, bool)) {
    let mut bench = Bench::of(store, case, spec(&store.name(case), ty, moment_first)).await;
    let Some(horizons) = bench.target.horizons() else { return };
    let horizon = horizons.advance(Horizon(1_772_359_200_500)).await.unwrap();
    assert_eq!(horizon.to_string(), "2026-03-01T10:00:00.5Z");
    let moments = if ty == "date" {
        ["2026-03-01", "2026-03-02", "2026-02-28", "0001-01-01"]
    } else {
        [
            "2026-03-01T10:00:00.499999Z",
            "2026-03-01T10:00:00.5Z",
            "2026-02-28T23:00:00Z",
            "0001-01-01T00:00:00Z",
        ]
    };
    let made = rows(&bench, moment_first, &moments);
    let position = bench.lease.position.0 + 1;
    let marks = |bench: &Bench| bench.write(0, None, Version::Absent).marks;
    let insert = |(key, row): &(Key, Row)| RowWrite {
        key: key.clone(),
        row: Some(row.clone()),
        version: Version::Absent,
        marks: marks(&bench),
    };
    let mut writes: Vec<RowWrite> = made.iter().map(insert).collect();
    writes.sort_by(|a, b| a.key.cmp(&b.key));
    bench.durable(writes.clone()).await;
    assert_eq!(bench.lease.position.0, position);
    let rule = bench.spec.expire.clone().unwrap();
    writes.retain(|write| rule.has_passed(horizon, &write.key));
    let past: Vec<Key> = writes.iter().map(|write| write.key.clone()).collect();
    assert_eq!(past.len(), 3, "{case}");
    let found = bench.writer.expired(horizon, 10).await.unwrap();
    let keys: Vec<Key> = found.iter().map(|delete| delete.key.clone()).collect();
    assert_eq!(keys, past, "{case}: in the order of their keys");
    assert!(found.iter().all(|delete| delete.row.is_none()));
    let few = bench.writer.expired(horizon, 2).await.unwrap();
    assert_eq!(few.len(), 2, "{case}: no more than asked for");
    // One that was changed meanwhile is not deleted by what was found before.
    let mut stale = found.clone();
    stale.truncate(1);
    stale[0].version = Version::At(1, 1);
    let held = |bench: &Bench, writes| {
        let mut flush = bench.flush(writes);
        flush.advances[0].to = flush.advances[0].from;
        flush
    };
    let written = bench.writer.write(&held(&bench, stale)).await.unwrap();
    assert!(matches!(written, Written::Conflict { .. }), "{case}: {written:?}");
    // The flush of side work: it moves no position.
    let written = bench.writer.write(&held(&bench, found)).await.unwrap();
    assert!(matches!(written, Written::Durable(_)), "{case}: {written:?}");
    assert_eq!(bench.writer.expired(horizon, 10).await.unwrap(), [], "{case}");
    let keys: Vec<Key> = made.iter().map(|(key, _)| key.clone()).collect();
    let left = bench.writer.load(&keys).await.unwrap();
    let left: Vec<&Key> =
        keys.iter().zip(&left).filter(|(_, loaded)| loaded.row.is_some()).map(|(k, _)| k).collect();
    let stays: Vec<&Key> = keys.iter().filter(|key| !past.contains(key)).collect();
    assert_eq!(left, stays, "{case}");
}

pub(crate) async fn what_a_horizon_has_passed_is_found_and_deleted(store: &dyn Store) {
    passes(store, "expired-hours", ("timestamptz", false)).await;
    passes(store, "expired-days", ("date", true)).await;
}
