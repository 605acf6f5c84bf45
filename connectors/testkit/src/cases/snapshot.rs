//! Rows and books of one moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite of assertions")]

use std::collections::BTreeMap;

use foldline_api::model::Key;
use foldline_api::record::Position;
use foldline_api::sink::{Loaded, Snapshot, StoredVerdict, Version};

use crate::contract::{Bench, Store, durable, key_of, model, partition};

/// All rows, page by page; no key comes twice.
async fn rows(snapshot: &mut dyn Snapshot, page: usize) -> BTreeMap<Key, Loaded> {
    let mut all = BTreeMap::new();
    loop {
        let rows = snapshot.next(page).await.unwrap();
        if rows.is_empty() {
            return all;
        }
        for (key, loaded) in rows {
            if loaded.row.is_some() {
                assert!(all.insert(key.clone(), loaded).is_none(), "{key} came twice");
            }
        }
    }
}

pub(crate) async fn rows_and_books_are_of_one_moment(store: &dyn Store) {
    let mut bench = Bench::new(store, "moment", model()).await;
    let first = [1, 2].map(|id| bench.write(id, Some(bench.row(id, "a", 1)), Version::Absent));
    let versions = bench.durable(first.to_vec()).await;
    let mut snapshot = bench.target.snapshot().await.unwrap();
    // What is written later is not seen, or it is told by the row's own marks.
    let later = vec![
        bench.write(1, Some(bench.row(1, "b", 2)), versions[0]),
        bench.write(3, Some(bench.row(3, "b", 1)), Version::Absent),
    ];
    bench.durable(later).await;
    let books = snapshot.books().clone();
    assert_eq!((books.positions.len(), books.positions[0].position), (1, Position(1)));
    assert_eq!(books.positions[0].beginning, Position(0));
    let all = rows(&mut *snapshot, 10).await;
    assert_eq!(all[&key_of(2)].row, Some(bench.row(2, "a", 1)));
    for (key, loaded) in &all {
        let ahead = loaded.marks.iter().any(|mark| mark.position > Position(1));
        let old = key.values() != key_of(3).values()
            && (loaded.row == Some(bench.row(1, "a", 1))
                || loaded.row == Some(bench.row(2, "a", 1)));
        assert!(ahead || old, "{key}: {loaded:?}");
        assert!(!ahead || bench.writer.keeps_marks(), "{key}: {loaded:?}");
    }
    let loaded = snapshot.load(&[key_of(9), key_of(2)]).await.unwrap();
    assert_eq!((loaded[0].row.clone(), loaded[0].version), (None, Version::Absent));
    assert_eq!(loaded[1].row, Some(bench.row(2, "a", 1)));
    // A version that a snapshot saw is one that a write may name.
    let version =
        bench.target.snapshot().await.unwrap().load(&[key_of(2)]).await.unwrap()[0].version;
    let repaired = bench.write(2, Some(bench.row(2, "c", 5)), version);
    let flush = foldline_api::sink::Flush { writes: vec![repaired], ..Default::default() };
    durable(&*bench.writer, &flush).await;
    let read = bench.writer.load(&[key_of(2)]).await.unwrap();
    assert_eq!(read[0].row, Some(bench.row(2, "c", 5)));
}

pub(crate) async fn pages_show_each_row_once(store: &dyn Store) {
    let mut bench = Bench::new(store, "pages", model()).await;
    let count = 250;
    let write = |id| bench.write(id, Some(bench.row(id, "a", 1)), Version::Absent);
    let versions = bench.durable((0..count).map(write).collect()).await;
    let delete = vec![bench.write(7, None, versions[7])];
    bench.durable(delete).await;
    let mut snapshot = bench.target.snapshot().await.unwrap();
    let all = rows(&mut *snapshot, 33).await;
    let expected: Vec<Key> = (0..count).filter(|id| *id != 7).map(key_of).collect();
    assert!(all.keys().eq(expected.iter()), "{:?}", all.keys().collect::<Vec<_>>());
}

pub(crate) async fn all_verdicts_are_told(store: &dyn Store) {
    let mut bench = Bench::new(store, "all_verdicts", model()).await;
    let verdict = |offset: i64| {
        let verdict = StoredVerdict::new(partition(0), offset, format!("reason {offset}"), None);
        verdict.judged(|_| false)
    };
    let mut flush = bench.flush(Vec::new());
    flush.verdicts = vec![verdict(0), verdict(3)];
    durable(&*bench.writer, &flush).await;
    bench.lease.position.0 += 1;
    bench.durable(Vec::new()).await;
    let mut told = bench.target.snapshot().await.unwrap().books().verdicts.clone();
    told.sort_by_key(|verdict| verdict.offset);
    told.dedup();
    assert_eq!(told, [verdict(0), verdict(3)], "those behind the position too");
}
