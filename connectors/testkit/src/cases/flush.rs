//! Writers: rows, versions, checks and the fence.

use std::sync::Arc;

use foldline_api::model::Key;
use foldline_api::record::Position;
use foldline_api::sink::{Flush, RowWrite, StoredDecision, StoredVerdict, Version, Written};

use crate::contract::{
    Bench, Store, advance, check, claim, durable, key_of, model, model_of, partition, row,
};

pub(crate) async fn rows_round_trip(store: &dyn Store) {
    let mut bench = Bench::new(store, "round_trip", model()).await;
    let values = [
        [
            "1",
            "\"a\"",
            "1.5",
            "1",
            "\"2026-01-01T00:00:00Z\"",
            "[\"x\",null]",
            "{\"b\":1,\"a\":[1.5]}",
        ],
        ["2", "null", "null", "0", "null", "null", "null"],
        [
            "-3",
            "\"'\\\"\\\\ äöü\"",
            "-0.01",
            "9007199254740993",
            "\"1969-12-31T23:59:59.999999Z\"",
            "[]",
            "[]",
        ],
    ];
    let rows: Vec<_> = values.iter().map(|values| row(&bench.model, values)).collect();
    let keys: Vec<Key> = rows.iter().map(|row| bench.model.key_of(row)).collect();
    let mut writes: Vec<RowWrite> = rows
        .iter()
        .zip(&keys)
        .map(|(row, key)| RowWrite {
            key: key.clone(),
            ..bench.write(0, Some(row.clone()), Version::Absent)
        })
        .collect();
    writes.sort_by(|a, b| a.key.cmp(&b.key));
    let marks = writes[0].marks.clone();
    bench.durable(writes).await;
    let mut asked = keys.clone();
    asked.push(key_of(404));
    let loaded = bench.writer.load(&asked).await.unwrap();
    assert_eq!(loaded.len(), 4, "one per key, in order");
    for (row, loaded) in rows.iter().zip(&loaded) {
        assert_eq!(loaded.row.as_ref(), Some(row));
        assert_ne!(loaded.version, Version::Absent);
        assert_eq!(loaded.marks, marks);
    }
    assert_eq!((&loaded[3].row, loaded[3].version), (&None, Version::Absent));
    assert!(bench.writer.load(&[]).await.unwrap().is_empty());
}

/// Name, type, a value that needs care, and a plain one.
#[rustfmt::skip]
const TYPES: [(&str, &str, &str, &str); 25] = [
    ("id", "bigint", "1", "3"),
    ("int", "integer", "-2147483648", "0"),
    ("small", "smallint", "32767", "0"),
    ("double", "double precision", "1e-7", "100"),
    ("single", "real", "0.1", "16777216"),
    ("exact", "numeric", "123456789012345678901234567890.123456789", "0.00"),
    ("money", "numeric(30,4)", "99999999999999999999999999.9999", "0"),
    ("yes", "boolean", "true", "false"),
    ("words", "text", r#""\ud83d\ude00 {\"a\"}, \\N \t\n""#, r#""""#),
    ("short", "varchar(5)", r#""äöüßé""#, r#""""#),
    ("at", "timestamptz", r#""9999-12-30T21:59:59.999999Z""#, r#""0001-01-01T00:00:00Z""#),
    ("day", "date", r#""2024-02-29""#, r#""0001-01-01""#),
    ("hour", "time", r#""23:59:59.999999""#, r#""00:00:00""#),
    ("uid", "uuid", r#""6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01""#, r#""00000000-0000-0000-0000-000000000000""#),
    ("raw", "bytea", r#""AP8BAg==""#, r#""""#),
    ("doc", "jsonb", r#"{"z":[{"n":12345678901234567890.5,"t":"é"}],"a":null,"f":false}"#, r#""text""#),
    ("ints", "bigint[]", "[1,null,-9223372036854775808]", "[]"),
    ("sums", "numeric(6,2)[]", r#"["1.5",null]"#, "[]"),
    ("times", "timestamptz[]", r#"["2026-01-01T00:00:00Z",null]"#, "[]"),
    ("flags", "boolean[]", "[true,false,null]", "[]"),
    ("uids", "uuid[]", r#"["6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01"]"#, "[]"),
    ("raws", "bytea[]", r#"["AP8=",null,""]"#, "[]"),
    ("days", "date[]", r#"["2024-02-29"]"#, "[]"),
    ("reals", "double precision[]", "[0.1,null,1e300]", "[]"),
    ("lines", "children", r#"[{"line":2,"sku":"b"},{"line":1,"sku":"a","price":1.5,"since":"2026-01-01T00:00:00Z"}]"#, "[]"),
];

pub(crate) async fn every_type_round_trips(store: &dyn Store) {
    let columns: Vec<(&str, &str)> = TYPES.iter().map(|(name, ty, ..)| (*name, *ty)).collect();
    let mut bench = Bench::new(store, "types", model_of(&columns, 1)).await;
    let full: Vec<&str> = TYPES.iter().map(|(_, _, full, _)| *full).collect();
    let plain: Vec<&str> = TYPES.iter().map(|(_, _, _, plain)| *plain).collect();
    let nulls: Vec<&str> =
        std::iter::once("2").chain(std::iter::repeat_n("null", columns.len() - 1)).collect();
    let rows: Vec<_> =
        [full, nulls, plain].iter().map(|values| row(&bench.model, values)).collect();
    let write = |(id, row): (i64, &foldline_api::model::Row)| {
        bench.write(id, Some(row.clone()), Version::Absent)
    };
    let writes = (1..).zip(&rows).map(write).collect();
    let versions = bench.durable(writes).await;
    let keys = [key_of(1), key_of(2), key_of(3)];
    for (at, (loaded, row)) in bench.writer.load(&keys).await.unwrap().iter().zip(&rows).enumerate()
    {
        let loaded_row = loaded.row.as_ref().unwrap();
        for (column, (found, wanted)) in
            bench.model.columns.iter().zip(loaded_row.values().iter().zip(row.values()))
        {
            assert_eq!(found, wanted, "column {} of row {at}", column.name);
        }
        assert_eq!(loaded.version, versions[at], "a write's version is the one that a load finds");
    }
    // Written again, from what was read: an update takes the same path for each type.
    let again = (1..).zip(rows.iter().rev()).map(|(id, row)| {
        let mut values = row.values().to_vec();
        values[0] = foldline_api::value::Value::Int(id);
        foldline_api::model::Row::new(values)
    });
    let again: Vec<_> = again.collect();
    let writes = (1..)
        .zip(&again)
        .zip(&versions)
        .map(|((id, row), version)| bench.write(id, Some(row.clone()), *version));
    let writes = writes.collect();
    bench.durable(writes).await;
    let loaded = bench.writer.load(&keys).await.unwrap();
    assert!(loaded.iter().zip(&again).all(|(loaded, row)| loaded.row.as_ref() == Some(row)));
}

pub(crate) async fn a_load_stops_where_its_bytes_end(store: &dyn Store) {
    let mut bench = Bench::new(store, "bytes", model()).await;
    let text = "x".repeat(200_000);
    let write = |id| bench.write(id, Some(bench.row(id, &text, id)), Version::Absent);
    let writes = (1..=40).map(write).collect();
    bench.durable(writes).await;
    // Some that are not there among them.
    let keys: Vec<_> =
        (1..=50).map(|id| key_of(if id % 5 == 0 { 1_000 + id } else { id })).collect();
    let all = bench.writer.load(&keys).await.unwrap();
    assert_eq!(all.len(), keys.len());
    for bytes_max in [0, 1, 1_000_000, 3_000_000] {
        let some = bench.writer.load_some(&keys, bytes_max).await.unwrap();
        let rows = some.iter().filter(|loaded| loaded.row.is_some()).count();
        assert!(!some.is_empty() && rows <= bytes_max / 200_000 + 1, "{rows} rows of {bytes_max}");
        assert!(some.len() >= bytes_max / 400_000, "{} of {bytes_max}", some.len());
        assert_eq!(some, all[..some.len()], "the first ones");
    }
}

pub(crate) async fn a_stale_version_conflicts(store: &dyn Store) {
    let mut bench = Bench::new(store, "stale", model()).await;
    let row = bench.row(1, "a", 1);
    let first = bench.durable(vec![bench.write(1, Some(row), Version::Absent)]).await[0];
    let second = bench.durable(vec![bench.write(1, Some(bench.row(1, "b", 2)), first)]).await[0];
    let stale = bench.flush(vec![bench.write(1, Some(bench.row(1, "c", 2)), first)]);
    assert!(matches!(bench.writer.write(&stale).await.unwrap(), Written::Conflict { .. }));
    let stored = bench.writer.positions(&[partition(0)]).await.unwrap();
    assert_eq!(stored[0].position, Position(2), "the position did not move");
    let loaded = bench.writer.load(&[key_of(1)]).await.unwrap();
    assert_eq!(loaded[0].row, Some(bench.row(1, "b", 2)));
    assert_eq!(loaded[0].version, second);
    bench.durable(vec![bench.write(1, Some(bench.row(1, "c", 3)), loaded[0].version)]).await;
}

pub(crate) async fn two_inserts_of_one_key_conflict(store: &dyn Store) {
    let mut bench = Bench::new(store, "insert_race", model()).await;
    let other = bench.other_writer(store).await;
    let lease = other.acquire(&[claim(1, 0)]).await.unwrap().leases[0].clone();
    let row = bench.row(1, "mine", 1);
    bench.durable(vec![bench.write(1, Some(row.clone()), Version::Absent)]).await;
    let write = bench.write(1, Some(bench.row(1, "theirs", 1)), Version::Absent);
    let flush =
        Flush { advances: vec![advance(&lease, 0, 1)], writes: vec![write], ..Flush::default() };
    assert!(matches!(other.write(&flush).await.unwrap(), Written::Conflict { .. }));
    let loaded = other.load(&[key_of(1)]).await.unwrap();
    assert_eq!(loaded[0].row, Some(row));
    let retry = RowWrite { version: loaded[0].version, ..flush.writes[0].clone() };
    durable(&*other, &Flush { writes: vec![retry], ..flush }).await;
    let stale = bench.writer.load(&[key_of(1)]).await.unwrap();
    assert_eq!(stale[0].row, Some(bench.row(1, "theirs", 1)));
}

/// Only where rows move one by one: elsewhere there is nothing half written to decide about.
pub(crate) async fn decisions_come_back_until_the_position_is_past_them(store: &dyn Store) {
    let bench = Bench::new(store, "decisions", model()).await;
    if !bench.writer.keeps_marks() {
        return;
    }
    let decision = |offset, bad: Option<&str>| StoredDecision {
        partition: partition(0),
        offset,
        refused: vec![0, 2],
        bad: bad.map(str::to_owned),
    };
    let decisions = vec![decision(0, None), decision(1, Some("it overflows"))];
    // A stale row keeps the position back; the decisions are kept all the same.
    let mut flush =
        bench.flush(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::At(9, 9))]);
    flush.decisions.clone_from(&decisions);
    assert!(matches!(bench.writer.write(&flush).await.unwrap(), Written::Conflict { .. }));
    let other = bench.other_writer(store).await;
    let acquired = other.acquire(&[claim(0, 0)]).await.unwrap();
    assert_eq!(acquired.decisions, decisions);
    // Who was fenced since decides nothing.
    let late = Flush { decisions: vec![decision(0, Some("late"))], ..flush.clone() };
    assert!(matches!(bench.writer.write(&late).await.unwrap(), Written::Fenced));
    let moved = Flush { advances: vec![advance(&acquired.leases[0], 0, 1)], ..Flush::default() };
    durable(&*other, &moved).await;
    let acquired = other.acquire(&[claim(0, 0)]).await.unwrap();
    assert_eq!(acquired.decisions, decisions[1..], "those below the position are settled");
}

pub(crate) async fn a_conflict_tells_what_was_written_all_the_same(store: &dyn Store) {
    let mut bench = Bench::new(store, "partly", model()).await;
    let first =
        bench.durable(vec![bench.write(2, Some(bench.row(2, "a", 1)), Version::Absent)]).await;
    bench.durable(vec![bench.write(2, Some(bench.row(2, "b", 2)), first[0])]).await;
    let flush = bench.flush(vec![
        bench.write(1, Some(bench.row(1, "new", 1)), Version::Absent),
        bench.write(2, Some(bench.row(2, "stale", 3)), first[0]),
    ]);
    let Written::Conflict { written } = bench.writer.write(&flush).await.unwrap() else {
        panic!("a conflict");
    };
    let loaded = bench.writer.load(&[key_of(1), key_of(2)]).await.unwrap();
    if bench.writer.keeps_marks() {
        assert_eq!(written, [Some(loaded[0].version), None]);
        assert_eq!(loaded[0].row, Some(bench.row(1, "new", 1)));
    } else {
        assert!(written.is_empty() && loaded[0].row.is_none(), "all or nothing");
    }
}

pub(crate) async fn a_deleted_row_is_gone_and_can_come_back(store: &dyn Store) {
    let mut bench = Bench::new(store, "delete", model()).await;
    let row = bench.row(1, "a", 1);
    let version = bench.durable(vec![bench.write(1, Some(row.clone()), Version::Absent)]).await[0];
    let deleted = bench.durable(vec![bench.write(1, None, version)]).await[0];
    let loaded = bench.writer.load(&[key_of(1)]).await.unwrap();
    assert_eq!((&loaded[0].row, loaded[0].version), (&None, deleted));
    bench.durable(vec![bench.write(1, Some(row.clone()), deleted)]).await;
    assert_eq!(bench.writer.load(&[key_of(1)]).await.unwrap()[0].row, Some(row));
    // A row that came and went within one flush: a delete of what is not there.
    bench.durable(vec![bench.write(2, None, Version::Absent)]).await;
    assert_eq!(bench.writer.load(&[key_of(2)]).await.unwrap()[0].row, None);
}

pub(crate) async fn a_delete_of_a_changed_row_conflicts(store: &dyn Store) {
    let mut bench = Bench::new(store, "stale_delete", model()).await;
    let row = bench.row(1, "a", 1);
    let first = bench.durable(vec![bench.write(1, Some(row), Version::Absent)]).await[0];
    bench.durable(vec![bench.write(1, Some(bench.row(1, "b", 2)), first)]).await;
    let stale = bench.flush(vec![bench.write(1, None, first)]);
    assert!(matches!(bench.writer.write(&stale).await.unwrap(), Written::Conflict { .. }));
    let unseen = bench.flush(vec![bench.write(1, None, Version::Absent)]);
    assert!(matches!(bench.writer.write(&unseen).await.unwrap(), Written::Conflict { .. }));
    assert!(bench.writer.load(&[key_of(1)]).await.unwrap()[0].row.is_some());
}

pub(crate) async fn checks_hold_the_position_back(store: &dyn Store) {
    let mut bench = Bench::new(store, "checks", model()).await;
    let row = bench.row(1, "a", 1);
    let first = bench.durable(vec![bench.write(1, Some(row), Version::Absent)]).await[0];
    let mut flush = bench.flush(Vec::new());
    flush.checks = vec![check(1, first), check(2, Version::Absent)];
    durable(&*bench.writer, &flush).await;
    bench.lease.position.0 += 1;
    bench.durable(vec![bench.write(1, Some(bench.row(1, "b", 2)), first)]).await;
    for stale in [check(1, first), check(1, Version::Absent), check(2, first)] {
        let mut flush = bench.flush(Vec::new());
        flush.checks = vec![stale];
        assert!(matches!(bench.writer.write(&flush).await.unwrap(), Written::Conflict { .. }));
    }
    let stored = bench.writer.positions(&[partition(0)]).await.unwrap();
    assert_eq!(stored[0].position, bench.lease.position);
}

pub(crate) async fn a_stale_epoch_is_fenced(store: &dyn Store) {
    let mut bench = Bench::new(store, "stale_epoch", model()).await;
    let other = bench.other_writer(store).await;
    let lease = other.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    let zombie =
        bench.flush(vec![bench.write(1, Some(bench.row(1, "zombie", 1)), Version::Absent)]);
    let written = bench.writer.write(&zombie).await.unwrap();
    assert!(matches!(written, Written::Fenced), "{written:?}");
    let loaded = other.load(&[key_of(1)]).await.unwrap();
    assert!(other.keeps_marks() || loaded[0].row.is_none(), "rows and positions move together");
    (bench.writer, bench.lease) = (Arc::clone(&other), lease);
    let row = bench.row(1, "owner", 1);
    bench.durable(vec![bench.write(1, Some(row), loaded[0].version)]).await;
}

pub(crate) async fn a_stale_position_is_fenced(store: &dyn Store) {
    let mut bench = Bench::new(store, "stale_position", model()).await;
    let flush = bench.flush(vec![bench.write(1, Some(bench.row(1, "a", 1)), Version::Absent)]);
    durable(&*bench.writer, &flush).await;
    // The reply was lost, and the same flush comes again: it must not be applied twice.
    let again = bench.writer.write(&flush).await.unwrap();
    assert!(!matches!(again, Written::Durable(_)), "{again:?}");
    bench.lease.position.0 += 1;
    let mut ahead = bench.flush(Vec::new());
    ahead.advances = vec![advance(&bench.lease, 7, 8)];
    assert!(matches!(bench.writer.write(&ahead).await.unwrap(), Written::Fenced));
    ahead.advances = vec![advance(&bench.lease, 1, 1)];
    durable(&*bench.writer, &ahead).await;
}

pub(crate) async fn an_empty_flush_moves_positions(store: &dyn Store) {
    let mut bench = Bench::new(store, "filtered", model()).await;
    bench.durable(Vec::new()).await;
    bench.durable(Vec::new()).await;
    let stored = bench.writer.positions(&[partition(0)]).await.unwrap();
    assert_eq!((stored[0].position, stored[0].beginning), (Position(2), Position(0)));
}

pub(crate) async fn a_flush_of_two_partitions_moves_both_or_none(store: &dyn Store) {
    let bench = Bench::new(store, "two_partitions", model()).await;
    let second = bench.writer.acquire(&[claim(1, 10)]).await.unwrap().leases[0].clone();
    let other = bench.other_writer(store).await;
    other.acquire(&[claim(1, 10)]).await.unwrap();
    let mut flush = bench.flush(Vec::new());
    flush.advances.push(advance(&second, 10, 11));
    assert!(matches!(bench.writer.write(&flush).await.unwrap(), Written::Fenced));
    if !bench.writer.keeps_marks() {
        let stored = bench.writer.positions(&[partition(0)]).await.unwrap();
        assert_eq!(stored[0].position, Position(0), "the other partition's step was rolled back");
    }
    let second = bench.writer.acquire(&[claim(1, 10)]).await.unwrap().leases[0].clone();
    let first = bench.writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    let from = first.position.0;
    flush.advances = vec![advance(&first, from, from + 5), advance(&second, 10, 12)];
    durable(&*bench.writer, &flush).await;
    let stored = bench.writer.positions(&[partition(0), partition(1)]).await.unwrap();
    assert_eq!((stored[0].position.0, stored[1].position.0), (from + 5, 12));
}

pub(crate) async fn verdicts_come_back_with_the_lease(store: &dyn Store) {
    let bench = Bench::new(store, "verdicts", model()).await;
    let verdict = |offset: i64| {
        let known = Some("a definition of nothing".to_owned());
        let verdict = StoredVerdict::new(partition(0), offset, format!("reason {offset}"), known);
        verdict.judged(|_| false)
    };
    let mut flush = bench.flush(Vec::new());
    flush.verdicts = vec![verdict(0), verdict(3)];
    durable(&*bench.writer, &flush).await;
    let again = bench.other_writer(store).await.acquire(&[claim(0, 0), claim(1, 0)]).await.unwrap();
    assert_eq!(again.verdicts, [verdict(3)], "what lies behind the position is settled");
}

pub(crate) async fn many_rows_in_one_flush(store: &dyn Store) {
    let mut bench = Bench::new(store, "many", model()).await;
    let count = 5_000;
    let insert = |id| bench.write(id, Some(bench.row(id, "a", 1)), Version::Absent);
    let versions = bench.durable((0..count).map(insert).collect()).await;
    let update = |(id, version): (i64, &Version)| {
        let row = (id % 10 != 0).then(|| bench.row(id, "b", 2));
        bench.write(id, row, *version)
    };
    let writes = (0..).zip(&versions).map(update).collect();
    bench.durable(writes).await;
    let keys: Vec<Key> = (0..count).rev().map(key_of).collect();
    let loaded = bench.writer.load(&keys).await.unwrap();
    for (id, loaded) in (0..count).rev().zip(&loaded) {
        let wanted = (id % 10 != 0).then(|| bench.row(id, "b", 2));
        assert_eq!(loaded.row, wanted, "row {id}");
    }
}
