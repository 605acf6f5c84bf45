//! Flushes of both sides that cross, step by step.

use std::sync::Arc;

use foldline_api::lookup::{Finish, Joins, Lookup};
use foldline_api::model::Row;
use foldline_api::record::Position;
use foldline_api::sink::{Beginning, RowWrite, Target, TargetSpec, Version, Writer};
use foldline_api::value::Value;

use crate::support::{Bench, Gate, beginning, durable, flush, key, opened, partition};

#[derive(Debug)]
struct Nothing;

impl Finish for Nothing {
    fn finish(&self, _row: &mut Row) {}
}

/// Books show their author's name.
struct Shelf {
    authors: (Bench, TargetSpec),
    books: (Bench, TargetSpec),
}

impl Shelf {
    fn new(what: &str) -> Self {
        let (authors, books) = (Bench::new(&format!("{what}-a")), Bench::new(&format!("{what}-b")));
        let of_authors = authors.spec(&[("id", "bigint"), ("name", "text")]);
        let mut of_books = books.spec(&[("id", "bigint"), ("author", "bigint"), ("name", "text")]);
        let (target, model) = (of_authors.target.clone(), Arc::clone(&of_authors.model));
        let lookup = Lookup { target, model, via: 1, fields: vec![(2, 1)] };
        of_books.joins = Some(Arc::new(Joins::new(vec![lookup], vec![2], Arc::new(Nothing))));
        Shelf { authors: (authors, of_authors), books: (books, of_books) }
    }

    async fn shown(&self, id: i64) -> Value {
        let mut snapshot = self.books.0.target(&self.books.1).snapshot().await.unwrap();
        let book = snapshot.load(&[key(id)]).await.unwrap().remove(0);
        book.row.unwrap().get(2).clone()
    }

    async fn clean(self) {
        self.books.0.clean().await;
        self.authors.0.clean().await;
    }
}

fn write(values: Vec<Value>, version: Version) -> RowWrite {
    let key = key(match values[0] {
        Value::Int(id) => id,
        _ => unreachable!(),
    });
    let marks = foldline_api::sink::Marks::new();
    RowWrite { key, row: Some(Row::new(values)), version, marks }
}

fn author(id: i64, name: &str, version: Version) -> RowWrite {
    write(vec![Value::Int(id), Value::text(name)], version)
}

fn book(id: i64, author: i64) -> RowWrite {
    write(vec![Value::Int(id), Value::Int(author), Value::Null], Version::Absent)
}

/// Until nothing waits: how many were written.
async fn refresh(writer: &dyn Writer) -> u64 {
    let mut rows = 0;
    // What is to be found is made visible about once a second.
    for _ in 0..1_200 {
        let step = writer.refresh(1_000).await.unwrap();
        rows += step.rows;
        if step.waits.is_none() {
            return rows;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("rows wait for ever");
}

#[tokio::test]
async fn a_rename_that_crosses_a_new_book_is_seen_by_one_of_them() {
    let shelf = Shelf::new("crossing");
    let (_, authors) = opened(&shelf.authors.0, &shelf.authors.1).await;
    let versions = durable(
        authors.write(&flush(1, 0, 1, vec![author(1, "Jane", Version::Absent)])).await.unwrap(),
    );
    let (_, books) = opened(&shelf.books.0, &shelf.books.1).await;
    refresh(&*books).await;
    // Another task's flush has read the author, and its document is on its way.
    let gate = Gate::new(&format!("{}-g1-w", shelf.books.1.target));
    let gated = shelf.books.0.target_behind(&shelf.books.1, &gate).await;
    let writer = gated.writer(1).await.unwrap();
    let epoch = writer.acquire(&[beginning(0)]).await.unwrap().leases[0].epoch;
    let late = tokio::spawn({
        let writer = Arc::clone(&writer);
        async move { writer.write(&flush(epoch, 0, 1, vec![book(10, 1)])).await }
    });
    gate.reached().await;
    durable(authors.write(&flush(1, 1, 2, vec![author(1, "Jane A.", versions[0])])).await.unwrap());
    // The note finds nothing yet, and goes.
    assert_eq!(refresh(&*books).await, 0);
    gate.open();
    durable(late.await.unwrap().unwrap());
    refresh(&*books).await;
    assert_eq!(shelf.shown(10).await, Value::text("Jane A."));
    shelf.clean().await;
}

#[tokio::test]
async fn a_change_that_moves_no_position_is_followed_though_its_flush_ends_in_the_middle() {
    let shelf = Shelf::new("unmoved");
    let (_, authors) = opened(&shelf.authors.0, &shelf.authors.1).await;
    let versions = durable(
        authors.write(&flush(1, 0, 1, vec![author(1, "Jane", Version::Absent)])).await.unwrap(),
    );
    let (_, books) = opened(&shelf.books.0, &shelf.books.1).await;
    durable(books.write(&flush(1, 0, 1, vec![book(10, 1)])).await.unwrap());
    refresh(&*books).await;
    // As the clock deletes an author, or an operator frees an event: there is no replay of it.
    let gate = Gate::new(&format!("{}-g1-w", shelf.authors.1.target));
    let gated = shelf.authors.0.target_behind(&shelf.authors.1, &gate).await;
    let writer = gated.writer(1).await.unwrap();
    let epoch = writer.acquire(&[beginning(0)]).await.unwrap().leases[0].epoch;
    let unmoved = flush(epoch, 1, 1, vec![author(1, "J. A.", versions[0])]);
    let ended = tokio::spawn(async move { writer.write(&unmoved).await });
    gate.reached().await;
    // The note is there and the change is not: it stays.
    for _ in 0..3 {
        books.refresh(1_000).await.unwrap();
    }
    // The document arrives, and whoever sent it is gone.
    ended.abort();
    gate.open();
    let reader = shelf.authors.0.target(&shelf.authors.1).writer(1).await.unwrap();
    while reader.load(&[key(1)]).await.unwrap()[0].version == versions[0] {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    reader.acquire(&[beginning(0)]).await.unwrap();
    refresh(&*books).await;
    assert_eq!(shelf.shown(10).await, Value::text("J. A."));
    shelf.clean().await;
}

#[tokio::test]
async fn too_many_notes_become_one_of_all_rows() {
    let shelf = Shelf::new("many");
    let (_, authors) = opened(&shelf.authors.0, &shelf.authors.1).await;
    let (_, books) = opened(&shelf.books.0, &shelf.books.1).await;
    let some = (0..50).map(|id| book(id, id * 400)).collect();
    durable(books.write(&flush(1, 0, 1, some)).await.unwrap());
    refresh(&*books).await;
    let many = (0..20_100).map(|id| author(id, &format!("author {id}"), Version::Absent)).collect();
    durable(authors.write(&flush(1, 0, 1, many)).await.unwrap());
    refresh(&*books).await;
    for id in [0, 1, 25, 49] {
        assert_eq!(shelf.shown(id).await, Value::text(&format!("author {}", id * 400)));
    }
    shelf.clean().await;
}

#[tokio::test]
async fn who_is_removed_is_followed_by_nobody() {
    let shelf = Shelf::new("removed");
    let (_, authors) = opened(&shelf.authors.0, &shelf.authors.1).await;
    let (target, books) = opened(&shelf.books.0, &shelf.books.1).await;
    refresh(&*books).await;
    target.remove(foldline_api::removal::Keep::Nothing).await.unwrap();
    let first = Beginning { position: Position(0), ..beginning(0) };
    assert_eq!(authors.positions(&[first.partition]).await.unwrap()[0].partition, partition());
    durable(
        authors.write(&flush(1, 0, 1, vec![author(1, "Jane", Version::Absent)])).await.unwrap(),
    );
    shelf.books.0.call("POST", "/foldline-books/_refresh", None).await;
    let query = serde_json::json!({ "query": { "prefix": { "target": shelf.books.1.target } } });
    let (_, found) = shelf.books.0.call("POST", "/foldline-books/_search", Some(query)).await;
    assert_eq!(found["hits"]["hits"], serde_json::json!([]));
    shelf.clean().await;
}
