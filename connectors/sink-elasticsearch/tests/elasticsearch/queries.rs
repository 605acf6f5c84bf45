//! Queries where an index holds something else than the documents.

use std::time::Duration;

use foldline_api::json;
use foldline_api::model::{Model, Row};
use foldline_api::query::{Filter, Queries, RowQuery, Side, Sort, page};
use foldline_api::sink::{RowWrite, Target, TargetSpec, Version};
use foldline_api::value::Value;
use foldline_sink_elasticsearch::ElasticsearchTarget;
use serde_json::json;

use crate::support::{Bench, durable, flush, opened, write};

fn value(model: &Model, column: usize, text: &str) -> Value {
    model.columns[column].ty.coerce(json::parse(text.as_bytes()).unwrap()).unwrap()
}

fn row(model: &Model, texts: &[&str]) -> Row {
    Row::new(texts.iter().enumerate().map(|(at, text)| value(model, at, text)).collect())
}

async fn filled(bench: &Bench, spec: &TargetSpec, rows: Vec<Row>) -> ElasticsearchTarget {
    let (target, writer) = opened(bench, spec).await;
    let count = rows.len() as i64;
    let made = |(at, row): (usize, Row)| {
        let Value::Int(id) = row.get(0) else { panic!("an id") };
        let position = at as i64 + 1;
        RowWrite { row: Some(row.clone()), ..write(*id, None, Version::Absent, position) }
    };
    let writes = rows.into_iter().enumerate().map(made).collect();
    durable(writer.write(&flush(1, 0, count, writes)).await.unwrap());
    Queries::refresh(&target).await.unwrap();
    target
}

fn query(model: &Model, filter: Filter, asked: &[Sort]) -> RowQuery {
    RowQuery {
        filter,
        search: None,
        order: RowQuery::order(model, asked).unwrap(),
        max: 100,
        bytes_max: usize::MAX,
        time: Duration::from_secs(30),
    }
}

async fn ids(target: &ElasticsearchTarget, query: &RowQuery) -> Result<Vec<i64>, String> {
    let id = |row: &Row| match row.get(0) {
        Value::Int(id) => *id,
        other => panic!("{other:?}"),
    };
    let found = target.queries().unwrap().rows(query).await;
    found.map(|rows| rows.iter().map(id).collect()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_an_index_cannot_tell_is_refused_by_name_and_the_rest_is_found() {
    let bench = Bench::new("queries");
    let columns = [
        ("id", "bigint"),
        ("name", "text"),
        ("title", "text"),
        ("body", "text"),
        ("wide", "numeric"),
    ];
    let mut spec = bench.spec(&columns);
    spec.mapping = Some(json!({
        "title": { "type": "text", "fields": { "raw": { "type": "keyword" } } },
        "body": { "type": "text" },
    }));
    let long = format!("\"{}\"", "x".repeat(9_000));
    let model = spec.model.clone();
    let rows = vec![
        row(&model, &["1", "\"a\"", "\"The fox\"", "\"A quick fox\"", "1e400"]),
        row(&model, &["2", &long, "\"the dog\"", "\"A lazy dog\"", "null"]),
        row(&model, &["3", "null", "\"The ape\"", "\"An ape and a fox\"", "0.1"]),
    ];
    let target = filled(&bench, &spec, rows).await;
    let all = || Filter::all();
    let by = |column| [Sort { column, descending: false }];
    // An analysed text is compared whole by its keyword.
    assert_eq!(ids(&target, &query(&model, all(), &by(2))).await.unwrap(), [3, 1, 2]);
    let fox = Filter::In(2, vec![Value::text("The fox")]);
    assert_eq!(ids(&target, &query(&model, fox, &[])).await.unwrap(), [1]);
    let error = ids(&target, &query(&model, all(), &by(3))).await.unwrap_err();
    assert!(error.starts_with("body: ") && error.contains("subfield of type keyword"), "{error}");
    // Words are searched for.
    let mut search = query(&model, all(), &[Sort { column: 0, descending: true }]);
    search.search = Some("body:fox".to_owned());
    assert_eq!(ids(&target, &search).await.unwrap(), [3, 1]);
    search.filter = Filter::Compare(0, Side::Less, Value::Int(3));
    assert_eq!(ids(&target, &search).await.unwrap(), [1]);
    search.search = Some("body:(fox".to_owned());
    let error = target.queries().unwrap().rows(&search).await.unwrap_err();
    assert_eq!(error.class(), foldline_api::ErrorClass::Config, "{error}");
    assert!(error.message().starts_with("q is no query string"), "{error}");
    // What the index left out is there all the same, and has no order in it.
    assert_eq!(ids(&target, &query(&model, Filter::Filled(1), &[])).await.unwrap(), [1, 2]);
    assert_eq!(ids(&target, &query(&model, Filter::Null(1), &[])).await.unwrap(), [3]);
    let a = || vec![Value::text("a")];
    assert_eq!(ids(&target, &query(&model, Filter::NotIn(1, a()), &[])).await.unwrap(), [2, 3]);
    assert_eq!(ids(&target, &query(&model, Filter::In(1, a()), &[])).await.unwrap(), [1]);
    let less = Filter::Compare(1, Side::Less, Value::text("b"));
    for wrong in [query(&model, all(), &by(1)), query(&model, less, &[])] {
        let error = ids(&target, &wrong).await.unwrap_err();
        assert!(error.starts_with("name: some texts are longer"), "{error}");
    }
    assert_eq!(ids(&target, &query(&model, Filter::Filled(4), &[])).await.unwrap(), [1, 3]);
    let error = ids(&target, &query(&model, all(), &by(4))).await.unwrap_err();
    assert!(error.starts_with("wide: numeric is a double in the index"), "{error}");
    bench.clean().await;
}

#[tokio::test]
async fn a_null_is_behind_the_greatest_integer() {
    let bench = Bench::new("greatest");
    let spec = bench.spec(&[("id", "bigint"), ("n", "bigint"), ("small", "integer")]);
    let model = spec.model.clone();
    let (greatest, small) = (i64::MAX.to_string(), i32::MAX.to_string());
    let make = |id: i64| {
        let (n, small) = if id % 2 == 0 { ("null", &*small) } else { (&*greatest, "null") };
        row(&model, &[&id.to_string(), n, small])
    };
    let target = filled(&bench, &spec, (1..=6).map(make).collect()).await;
    for (column, descending, expected) in [
        (1, false, [1, 3, 5, 2, 4, 6]),
        (1, true, [2, 4, 6, 1, 3, 5]),
        (2, false, [2, 4, 6, 1, 3, 5]),
        (2, true, [1, 3, 5, 2, 4, 6]),
    ] {
        let asked = query(&model, Filter::all(), &[Sort { column, descending }]);
        assert_eq!(ids(&target, &asked).await.unwrap(), expected, "{column} {descending}");
    }
    bench.clean().await;
}

#[tokio::test]
async fn many_moments_of_one_millisecond_come_in_order() {
    let bench = Bench::new("microseconds");
    let spec = bench.spec(&[("id", "bigint"), ("at", "timestamptz"), ("name", "text")]);
    let model = spec.model.clone();
    let moment = |nth: i64| format!("\"1969-12-31T23:59:59.{:06}Z\"", 122_900 + nth * 7 % 1_300);
    let make = |nth: i64| {
        let text = if nth % 3 == 0 { "null".to_owned() } else { moment(nth) };
        row(&model, &[&nth.to_string(), &text, "\"x\""])
    };
    let rows: Vec<Row> = (0..1_300).map(make).collect();
    let target = filled(&bench, &spec, rows.clone()).await;
    for descending in [false, true] {
        let mut asked = query(&model, Filter::all(), &[Sort { column: 1, descending }]);
        asked.max = 170;
        let (mut found, mut after): (Vec<Row>, _) = (Vec::new(), None);
        loop {
            let queries = target.queries().unwrap();
            let next = page(queries, &model, &asked, after.as_deref()).await.unwrap();
            found.extend(next.rows);
            after = next.after;
            if after.is_none() {
                break;
            }
        }
        let mut wanted = rows.clone();
        wanted.sort_by_key(|row| match (row.get(0), row.get(1)) {
            (Value::Int(id), Value::Timestamp(at)) if descending => (-at.micros(), *id),
            (Value::Int(id), Value::Timestamp(at)) => (at.micros(), *id),
            (Value::Int(id), _) => (if descending { i64::MIN } else { i64::MAX }, *id),
            other => panic!("{other:?}"),
        });
        assert!(found == wanted, "descending: {descending}");
    }
    let at = value(&model, 1, "\"1969-12-31T23:59:59.123456Z\"");
    for (side, holds) in [
        (Side::Less, std::cmp::Ordering::is_lt as fn(std::cmp::Ordering) -> bool),
        (Side::LessOrEqual, std::cmp::Ordering::is_le),
        (Side::Greater, std::cmp::Ordering::is_gt),
        (Side::GreaterOrEqual, std::cmp::Ordering::is_ge),
    ] {
        let mut asked = query(&model, Filter::Compare(1, side, at.clone()), &[]);
        asked.max = 2_000;
        let found = ids(&target, &asked).await.unwrap().len();
        let fits = |row: &&Row| !row.get(1).is_null() && holds(row.get(1).cmp(&at));
        assert_eq!(found, rows.iter().filter(fits).count(), "{side:?}");
    }
    bench.clean().await;
}
