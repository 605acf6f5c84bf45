//! Rows that hold another target's rows as children.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite of assertions")]

use std::sync::Arc;

use foldline_api::column::{Children, ColumnType};
use foldline_api::lookup::{Finish, Gather, Joins};
use foldline_api::model::Row;
use foldline_api::rebuild::{By, Step, Stepped};
use foldline_api::record::Position;
use foldline_api::sink::{Flush, Version, Written};
use foldline_api::value::Value;

use super::joins::refresh;
use crate::contract::{
    Bench, Store, advance, claim, durable, key_of, model_of, partition, row, spec_of,
};

/// The last column says how many children there are.
#[derive(Debug)]
struct Count;

impl Finish for Count {
    fn finish(&self, row: &mut Row) {
        let count = match row.get(2) {
            Value::List(children) => Value::Int(children.len().try_into().unwrap()),
            _ => Value::Null,
        };
        row.values_mut()[3] = count;
    }
}

/// Two targets: authors hold their books, at most three.
struct Shelf {
    books: Bench,
    authors: Bench,
}

impl Shelf {
    async fn new(store: &dyn Store, case: &str) -> Option<Self> {
        if !store.gathers() {
            return None;
        }
        let books = [
            ("title", "text"),
            ("book_id", "bigint"),
            ("author_id", "bigint"),
            ("pages", "bigint"),
        ];
        let mut model = model_of(&books, 1);
        model.key = vec![1];
        model.columns[2].index = true;
        let books = Bench::new(store, &format!("{case}_b"), model).await;
        let columns =
            [("author_id", "bigint"), ("name", "text"), ("books", "children"), ("count", "bigint")];
        let mut model = model_of(&columns, 1);
        let fields = vec![1, 2, 0];
        let child = |at: &usize| {
            let column = &books.model.columns[*at];
            (Arc::clone(&column.name), column.ty.clone())
        };
        let children =
            Children { by: "book_id".to_owned(), fields: fields.iter().map(child).collect() };
        model.columns[2].ty = ColumnType::Children(Arc::new(children));
        let mut spec = spec_of(&store.name(&format!("{case}_a")), model);
        let (target, model) = (books.spec.target.clone(), Arc::clone(&books.model));
        let gather = Gather { target, model, via: 2, column: 2, fields, max: 3 };
        let joins = Joins::new(Vec::new(), vec![2, 3], Arc::new(Count)).gathering(vec![gather]);
        spec.joins = Some(Arc::new(joins));
        let authors = Bench::of(store, case, spec).await;
        Some(Shelf { books, authors })
    }

    fn author(&self, id: i64, name: &str) -> Row {
        row(&self.authors.model, &[&id.to_string(), &format!("{name:?}"), "null", "null"])
    }

    fn book(&self, id: i64, author: Option<i64>) -> Row {
        let author = author.map_or("null".to_owned(), |author| author.to_string());
        row(&self.books.model, &["\"Emma\"", &id.to_string(), &author, "100"])
    }

    async fn put_author(&mut self, id: i64, name: Option<&str>) {
        let version = self.authors.writer.load(&[key_of(id)]).await.unwrap()[0].version;
        let write = self.authors.write(id, name.map(|name| self.author(id, name)), version);
        self.authors.durable(vec![write]).await;
    }

    /// With the author that a book has; none deletes it.
    async fn put_books(&mut self, books: &[(i64, Option<Option<i64>>)]) {
        let mut writes = Vec::new();
        for (id, author) in books {
            let version = self.books.writer.load(&[key_of(*id)]).await.unwrap()[0].version;
            writes.push(self.books.write(
                *id,
                author.map(|author| self.book(*id, author)),
                version,
            ));
        }
        self.books.durable(writes).await;
    }

    async fn stored(&self, id: i64) -> Row {
        let mut snapshot = self.authors.target.snapshot().await.unwrap();
        snapshot.load(&[key_of(id)]).await.unwrap().pop().unwrap().row.unwrap()
    }

    /// Readers find these books with an author, and how many they are.
    async fn holds(&self, id: i64, name: &str, books: &[i64]) {
        let stored = self.stored(id).await;
        let child = |book: &i64| {
            Value::map(vec![
                (Arc::from("book_id"), Value::Int(*book)),
                (Arc::from("author_id"), Value::Int(id)),
                (Arc::from("title"), Value::text("Emma")),
            ])
        };
        let children = Value::list(books.iter().map(child).collect());
        let expected =
            [Value::Int(id), Value::text(name), children, Value::Int(books.len() as i64)];
        assert_eq!(stored.values(), expected, "author {id}");
    }

    async fn refreshed(&self) {
        refresh(&*self.authors.writer).await;
    }
}

pub(crate) async fn children_come_move_go_and_come_back(store: &dyn Store) {
    let Some(mut shelf) = Shelf::new(store, "move").await else { return };
    // Whichever came first.
    shelf.put_books(&[(10, Some(Some(1))), (12, Some(Some(2)))]).await;
    shelf.put_author(1, Some("Jane")).await;
    shelf.put_author(2, Some("Walter")).await;
    shelf.put_books(&[(11, Some(Some(1)))]).await;
    shelf.refreshed().await;
    shelf.holds(1, "Jane", &[10, 11]).await;
    shelf.holds(2, "Walter", &[12]).await;
    // One moves, one goes, and one has no author any more.
    shelf.put_books(&[(11, Some(Some(2))), (12, None)]).await;
    shelf.refreshed().await;
    shelf.holds(1, "Jane", &[10]).await;
    shelf.holds(2, "Walter", &[11]).await;
    shelf.put_books(&[(10, Some(None)), (12, Some(Some(2)))]).await;
    shelf.refreshed().await;
    shelf.holds(1, "Jane", &[]).await;
    shelf.holds(2, "Walter", &[11, 12]).await;
    // The fold writes its row, which holds what it held; a row that comes back holds what there is.
    shelf.put_author(2, Some("W. Scott")).await;
    shelf.holds(2, "W. Scott", &[11, 12]).await;
    shelf.put_author(2, None).await;
    shelf.put_books(&[(11, None)]).await;
    shelf.refreshed().await;
    shelf.put_author(2, Some("Sir Walter")).await;
    shelf.refreshed().await;
    shelf.holds(2, "Sir Walter", &[12]).await;
    // The fold never sees it.
    let loaded = shelf.authors.writer.load(&[key_of(2)]).await.unwrap().pop().unwrap();
    assert_eq!(loaded.row, Some(shelf.author(2, "Sir Walter")));
    // There and back between two looks.
    shelf.put_books(&[(12, Some(Some(1)))]).await;
    shelf.put_books(&[(12, Some(Some(2)))]).await;
    shelf.refreshed().await;
    shelf.holds(1, "Jane", &[]).await;
    shelf.holds(2, "Sir Walter", &[12]).await;
    // A snapshot tells what a row should hold, and of one that waits that it does not know.
    let right = shelf.stored(2).await;
    let mut snapshot = shelf.authors.target.snapshot().await.unwrap();
    assert_eq!(snapshot.shown(std::slice::from_ref(&right)).await.unwrap(), [Some(right.clone())]);
    drop(snapshot);
    shelf.put_books(&[(12, None)]).await;
    let mut snapshot = shelf.authors.target.snapshot().await.unwrap();
    assert_eq!(snapshot.shown(&[right]).await.unwrap(), [None]);
}

pub(crate) async fn the_first_children_are_held_where_there_are_more(store: &dyn Store) {
    let Some(mut shelf) = Shelf::new(store, "first").await else { return };
    shelf.put_author(1, Some("Jane")).await;
    let many: Vec<_> = (20..26).map(|id| (id, Some(Some(1)))).collect();
    shelf.put_books(&many).await;
    shelf.refreshed().await;
    shelf.holds(1, "Jane", &[20, 21, 22]).await;
    // One before them, and one of them goes: the next one is there.
    shelf.put_books(&[(10, Some(Some(1))), (21, None)]).await;
    shelf.refreshed().await;
    shelf.holds(1, "Jane", &[10, 20, 22]).await;
    shelf.put_books(&[(10, None), (25, None)]).await;
    shelf.refreshed().await;
    shelf.holds(1, "Jane", &[20, 22, 23]).await;
}

pub(crate) async fn all_children_are_looked_at_where_their_target_lives_another_life(
    store: &dyn Store,
) {
    let Some(mut shelf) = Shelf::new(store, "child lives").await else { return };
    shelf.put_author(1, Some("Jane")).await;
    shelf.put_books(&[(10, Some(Some(1)))]).await;
    shelf.refreshed().await;
    shelf.holds(1, "Jane", &[10]).await;
    let next = shelf.books.target.rebuild(1, None).await.unwrap();
    shelf.refreshed().await;
    shelf.holds(1, "Jane", &[]).await;
    let writer = shelf.books.target.writer(next).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases.remove(0);
    let write = shelf.books.write(11, Some(shelf.book(11, Some(1))), Version::Absent);
    let flush =
        Flush { advances: vec![advance(&lease, 0, 1)], writes: vec![write], ..Flush::default() };
    durable(&*writer, &flush).await;
    shelf.refreshed().await;
    shelf.holds(1, "Jane", &[11]).await;
}

pub(crate) async fn a_build_takes_no_place_before_its_rows_hold_their_children(store: &dyn Store) {
    let Some(mut shelf) = Shelf::new(store, "child builds").await else { return };
    shelf.put_author(1, Some("Jane")).await;
    shelf.put_books(&[(10, Some(Some(1)))]).await;
    let target = Arc::clone(&shelf.authors.target);
    let rebuilds = target.rebuilds();
    let goals = [(partition(0), Position(1))];
    let next = rebuilds.begin(By::Operator, &[claim(0, 0)], &goals).await.unwrap();
    let builder = shelf.authors.target.writer(next).await.unwrap();
    let lease = builder.acquire(&[claim(0, 0)]).await.unwrap().leases.remove(0);
    let write = shelf.authors.write(1, Some(shelf.author(1, "Jane")), Version::Absent);
    let flush =
        Flush { advances: vec![advance(&lease, 0, 1)], writes: vec![write], ..Flush::default() };
    assert!(matches!(builder.write(&flush).await.unwrap(), Written::Durable(_)));
    let step = async |step| rebuilds.step(next, step).await.unwrap();
    assert!(matches!(step(Step::Follow).await, Stepped::Done(_)));
    let held = step(Step::Hold { patient: false }).await;
    assert!(matches!(held, Stepped::NotYet(_)), "its rows were not looked at yet: {held:?}");
    refresh(&*builder).await;
    shelf.put_books(&[(11, Some(Some(1)))]).await;
    refresh(&*builder).await;
    assert!(matches!(step(Step::Hold { patient: false }).await, Stepped::Done(_)));
    assert!(matches!(step(Step::Swap).await, Stepped::Done(_)));
    shelf.holds(1, "Jane", &[10, 11]).await;
}
