//! Queries where the database has habits of its own.

use std::time::Duration;

use foldline_api::kind::Sink;
use foldline_api::query::{Filter, RowQuery, Side, Sort};
use foldline_api::sink::{Target, Version};
use foldline_api::value::Value;

use crate::support::{Fixture, Held, key, orders, put, row, session};

fn query(filter: Filter, asked: &[Sort], time: Duration) -> RowQuery {
    let order = RowQuery::order(&orders(), asked).unwrap();
    RowQuery { filter, search: None, order, max: 100, bytes_max: usize::MAX, time }
}

const TIME: Duration = Duration::from_secs(30);

#[tokio::test]
async fn texts_are_in_the_order_of_code_points_whatever_the_collation_is() {
    let fixture = Fixture::new().await;
    fixture.run("CREATE SCHEMA {s}").await;
    let table = "CREATE TABLE {s}.orders (id bigint PRIMARY KEY, amount bigint, note varchar(9) COLLATE \"und-x-icu\")";
    fixture.run(table).await;
    let target = fixture.target(fixture.spec(orders()));
    let generation = target.open().await.unwrap().generation;
    let mut held = Held::new(&target, generation, orders()).await;
    let notes = ["ä", "Z", "a", "b", "A", "-a"];
    let rows = notes.iter().zip(1..).map(|(note, id)| put(row(id, 0, note), Version::Absent));
    held.durable(rows.collect()).await;
    let by = async |filter| {
        let asked = query(filter, &[Sort { column: 2, descending: false }], TIME);
        let rows = target.queries().unwrap().rows(&asked).await.unwrap();
        rows.iter().map(|row| row.get(2).clone()).collect::<Vec<Value>>()
    };
    let texts = |texts: &[&str]| texts.iter().map(|text| Value::text(text)).collect::<Vec<Value>>();
    assert_eq!(by(Filter::all()).await, texts(&["-a", "A", "Z", "a", "b", "ä"]));
    let less = Filter::Compare(2, Side::Less, Value::text("a"));
    assert_eq!(by(less).await, texts(&["-a", "A", "Z"]));
    let more = Filter::Compare(2, Side::Greater, Value::text("b"));
    assert_eq!(by(more).await, texts(&["ä"]));
}

#[tokio::test]
async fn what_takes_too_long_is_ended_and_the_next_is_answered() {
    let fixture = Fixture::new().await;
    let target = fixture.config().target(fixture.spec(orders())).unwrap();
    fixture.run("CREATE SCHEMA {s}").await;
    let generation = target.open().await.unwrap().generation;
    let mut held = Held::new(&*target, generation, orders()).await;
    held.durable(vec![put(row(1, 7, "x"), Version::Absent)]).await;
    let queries = target.queries().unwrap();
    let found = Some(row(1, 7, "x"));
    assert_eq!(queries.row(&key(1)).await.unwrap(), found);
    let holder = session().await;
    let lock = format!("BEGIN; LOCK TABLE {}.orders IN ACCESS EXCLUSIVE MODE", fixture.schema);
    holder.batch_execute(&lock).await.unwrap();
    let brief = query(Filter::all(), &[], Duration::from_millis(200));
    // More of them than there are connections.
    for _ in 0..10 {
        let error = queries.rows(&brief).await.unwrap_err();
        assert!(error.is_too_much(), "{error}");
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(queries.row(&key(1)).await.unwrap(), found);
}
