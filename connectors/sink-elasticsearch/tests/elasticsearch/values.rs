//! What documents hold, and what they are called.

use foldline_api::kind::Sink;
use foldline_api::model::{Key, Row};
use foldline_api::record::Position;
use foldline_api::sink::{RowWrite, StoredVerdict, Target, Version, Written};
use foldline_api::value::Value;
use foldline_api::{ErrorClass, json};
use serde_json::json;

use crate::support::{Bench, beginning, config, durable, flush, key, opened, partition, write};

#[tokio::test]
async fn every_type_reads_back_to_the_digit() {
    let bench = Bench::new("types");
    let values = [
        ("id", "bigint", "9223372036854775807"),
        ("i", "integer", "-2147483648"),
        ("s", "smallint", "-32768"),
        ("d", "double precision", "0.1"),
        ("r", "real", "0.1"),
        ("e", "numeric", "123456789012345678901234567890.123456789012345678901234567891"),
        ("p", "numeric(12,2)", "7.10"),
        ("huge", "numeric", "1e400"),
        ("b", "boolean", "true"),
        ("t", "text", "\"a \\\"quoted\\\" \\n ü 😀\""),
        ("v", "varchar(5)", "\"äöü\""),
        ("at", "timestamptz", "\"2026-01-02T03:04:05.123456Z\""),
        ("far", "timestamptz", "\"9999-12-30T00:00:00.999999Z\""),
        ("old", "timestamptz", "\"0001-01-01T00:00:00Z\""),
        ("day", "date", "\"2026-01-02\""),
        ("first", "date", "\"0001-01-01\""),
        ("last", "date", "\"9999-12-31\""),
        ("clock", "time", "\"10:11:12.5\""),
        ("u", "uuid", "\"6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01\""),
        ("raw", "bytea", "\"AP8QgA==\""),
        ("j", "jsonb", "{\"a\":[1.50,{\"b\":9223372036854775808}],\"c\":null}"),
        ("scalar", "jsonb", "5"),
        ("tags", "text[]", "[\"x\",null,\"y\"]"),
        ("prices", "numeric[]", "[1.10,12345678901234567890.5]"),
        ("lines", "children", "[{\"line\":2,\"price\":1.10},{\"line\":1,\"price\":null}]"),
        ("nothing", "text", "null"),
    ];
    let spec = bench.spec(&values.map(|(name, ty, _)| (name, ty)));
    let (_, writer) = opened(&bench, &spec).await;
    let row: Vec<Value> = spec
        .model
        .columns
        .iter()
        .zip(values)
        .map(|(column, (.., text))| {
            column.ty.coerce(json::parse(text.as_bytes()).unwrap()).unwrap()
        })
        .collect();
    let row = Row::new(row);
    let long = Row::new(
        row.values()
            .iter()
            .enumerate()
            .map(|(at, value)| match at {
                0 => Value::Int(1),
                9 => Value::text(&"ü".repeat(50_000)),
                _ => value.clone(),
            })
            .collect(),
    );
    let writes = vec![
        RowWrite { row: Some(long.clone()), ..write(1, None, Version::Absent, 1) },
        RowWrite { row: Some(row.clone()), ..write(i64::MAX, None, Version::Absent, 2) },
    ];
    let versions = durable(writer.write(&flush(1, 0, 2, writes)).await.unwrap());
    let loaded = writer.load(&[key(i64::MAX), key(2), key(1)]).await.unwrap();
    assert_eq!(loaded[0].row.as_ref(), Some(&row));
    assert_eq!(loaded[0].version, versions[1]);
    assert_eq!(loaded[0].marks[0].position, Position(2));
    assert_eq!((&loaded[1].row, loaded[1].version), (&None, Version::Absent));
    assert_eq!(loaded[2].row.as_ref(), Some(&long));
    assert_eq!(bench.search().await, 2);
    bench.clean().await;
}

#[tokio::test]
async fn composite_and_long_keys_are_documents_of_their_own() {
    let bench = Bench::new("keys");
    let mut spec = bench.spec(&[("id", "text"), ("n", "bigint")]);
    let (_, writer) = opened(&bench, &spec).await;
    let keys = ["x".repeat(2_000), "y".repeat(512), String::new(), "a/b ?#\"%:ü".to_owned()];
    let keys: Vec<Key> = keys.iter().map(|k| Key::new(vec![Value::text(k)])).collect();
    let writes = keys.iter().zip(1..).map(|(key, n)| RowWrite {
        key: key.clone(),
        row: Some(Row::new(vec![key.values()[0].clone(), Value::Int(n)])),
        ..write(0, None, Version::Absent, 4)
    });
    durable(writer.write(&flush(1, 0, 4, writes.collect())).await.unwrap());
    for (loaded, (key, n)) in writer.load(&keys).await.unwrap().iter().zip(keys.iter().zip(1..)) {
        let row = Row::new(vec![key.values()[0].clone(), Value::Int(n)]);
        assert_eq!(loaded.row.as_ref(), Some(&row));
    }
    spec.target = "Not An Index".to_owned();
    assert_eq!(bench.target(&spec).open().await.unwrap_err().class(), ErrorClass::Config);
    bench.clean().await;
}

#[tokio::test]
async fn what_the_users_mapping_cannot_hold_is_rejected_and_named_without_its_value() {
    let bench = Bench::new("rejected");
    let mut spec = bench.spec(&[("id", "bigint"), ("n", "text")]);
    spec.mapping = Some(json!({ "properties": { "n": { "type": "ip" } } }));
    let (_, writer) = opened(&bench, &spec).await;
    let row = |id: i64, text: &str| RowWrite {
        row: Some(Row::new(vec![Value::Int(id), Value::text(text)])),
        ..write(id, None, Version::Absent, 1)
    };
    let bad = flush(1, 0, 1, vec![row(1, "10.0.0.1"), row(2, "canary")]);
    let Written::Rejected(error) = writer.write(&bad).await.unwrap() else {
        panic!("not rejected")
    };
    assert_eq!(error.class(), ErrorClass::Record);
    assert!(error.message().contains("[n]") && !error.message().contains("canary"), "{error}");
    assert_eq!(writer.positions(&[partition()]).await.unwrap()[0].position, Position(0));

    // Its verdict stands before the position has passed it, and is gone from the lease after.
    let known = error.definition().map(str::to_owned);
    assert!(
        known.as_deref().is_some_and(|known| known.contains(r#"n {"type":"ip"}"#)),
        "{known:?}"
    );
    let verdict = StoredVerdict::new(partition(), 1, error.message(), known);
    let mut judged = flush(1, 0, 1, vec![]);
    judged.verdicts.push(verdict.clone());
    durable(writer.write(&judged).await.unwrap());
    assert_eq!(writer.acquire(&[beginning(0)]).await.unwrap().verdicts, [verdict]);
    durable(writer.write(&flush(2, 1, 2, vec![])).await.unwrap());
    assert!(writer.acquire(&[beginning(0)]).await.unwrap().verdicts.is_empty());
    bench.clean().await;
}

#[tokio::test]
async fn the_plans_index_is_one_that_elasticsearch_takes() {
    let bench = Bench::new("plan");
    let mut spec =
        bench.spec(&[("id", "bigint"), ("price", "numeric(12,2)"), ("lines", "children")]);
    spec.auto_create = false;
    let plan = config().plan(&spec);
    assert!(plan[3].contains("require_alias=true"), "{}", plan[3]);
    let (head, body) = plan[0].split_once('\n').unwrap();
    let path = head.strip_prefix("PUT ").unwrap();
    let (status, answer) = bench.call("PUT", path, Some(serde_json::from_str(body).unwrap())).await;
    assert_eq!(status, 200, "{answer}");
    let opened = bench.target(&spec).open().await.unwrap();
    assert!(opened.notices[0].contains("took the empty index"), "{:?}", opened.notices);
    bench.clean().await;
}
