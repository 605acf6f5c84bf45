//! Rows that show fields of another target's rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite of assertions")]

use std::sync::Arc;

use foldline_api::lookup::{Finish, Joins, Lookup};
use foldline_api::model::{Model, Row};
use foldline_api::rebuild::{By, Step, Stepped};
use foldline_api::record::Position;
use foldline_api::sink::{Flush, Loaded, Version, Writer, Written};
use foldline_api::value::Value;

use crate::contract::{
    Bench, Store, advance, claim, durable, key_of, model_of, partition, row, spec_of,
};

/// The last column says how long the name is.
#[derive(Debug)]
struct Length;

impl Finish for Length {
    fn finish(&self, row: &mut Row) {
        let length = match row.get(3) {
            Value::Text(name) => Value::Int(name.chars().count().try_into().unwrap()),
            _ => Value::Null,
        };
        row.values_mut()[3 + 1] = length;
    }
}

/// Two targets: books show their author's name.
struct Shelf {
    authors: Bench,
    books: Bench,
}

fn author_model() -> Model {
    model_of(&[("author_id", "bigint"), ("born", "date"), ("name", "text")], 1)
}

impl Shelf {
    async fn new(store: &dyn Store, case: &str) -> Option<Self> {
        if !store.looks_up() {
            return None;
        }
        let authors = Bench::new(store, &format!("{case}_a"), author_model()).await;
        let books = [
            ("book_id", "bigint"),
            ("author_id", "bigint"),
            ("title", "text"),
            ("author_name", "text"),
            ("length", "bigint"),
        ];
        let mut spec = spec_of(&store.name(&format!("{case}_b")), model_of(&books, 1));
        let lookup = Lookup {
            target: authors.spec.target.clone(),
            model: Arc::clone(&authors.model),
            via: 1,
            fields: vec![(3, 2)],
        };
        spec.joins = Some(Arc::new(Joins::new(vec![lookup], vec![3, 4], Arc::new(Length))));
        let books = Bench::of(store, case, spec).await;
        Some(Shelf { authors, books })
    }

    fn author(&self, id: i64, name: &str) -> Row {
        row(&self.authors.model, &[&id.to_string(), "null", &format!("{name:?}")])
    }

    fn book(&self, id: i64, author: i64) -> Row {
        let values = [&*id.to_string(), &*author.to_string(), "\"Emma\"", "null", "null"];
        row(&self.books.model, &values)
    }

    async fn name_author(&mut self, id: i64, name: Option<&str>, version: Version) -> Version {
        let row = name.map(|name| self.author(id, name));
        let write = self.authors.write(id, row, version);
        self.authors.durable(vec![write]).await[0]
    }

    async fn put_book(&mut self, id: i64, author: i64, version: Version) -> Version {
        let write = self.books.write(id, Some(self.book(id, author)), version);
        self.books.durable(vec![write]).await[0]
    }

    /// What readers see of a book: its author's name, and how long that is.
    async fn seen(&self, id: i64) -> (Value, Value) {
        let mut snapshot = self.books.target.snapshot().await.unwrap();
        let loaded = snapshot.load(&[key_of(id)]).await.unwrap().pop().unwrap();
        let row = loaded.row.unwrap();
        (row.get(3).clone(), row.get(4).clone())
    }

    async fn shows(&self, id: i64, name: Option<&str>) {
        let expected = match name {
            Some(name) => (Value::text(name), Value::Int(name.len().try_into().unwrap())),
            None => (Value::Null, Value::Null),
        };
        assert_eq!(self.seen(id).await, expected, "book {id}");
    }

    async fn version_of_author(&self, id: i64) -> Version {
        self.authors.writer.load(&[key_of(id)]).await.unwrap()[0].version
    }

    async fn version_of_book(&self, id: i64) -> Version {
        self.books.writer.load(&[key_of(id)]).await.unwrap()[0].version
    }
}

/// Until nothing waits.
#[track_caller]
pub(crate) fn refresh(writer: &dyn Writer) -> impl Future<Output = u64> {
    let caller = std::panic::Location::caller();
    async move {
        let mut rows = 0;
        for _ in 0..200 {
            let step = writer.refresh(1_000).await.unwrap();
            rows += step.rows;
            if step.waits.is_none() {
                return rows;
            }
        }
        panic!("rows wait for ever, {caller}");
    }
}

pub(crate) async fn a_row_shows_the_other_whichever_came_first_and_follows_it(store: &dyn Store) {
    let Some(mut shelf) = Shelf::new(store, "follows").await else { return };
    let _ = shelf.put_book(10, 1, Version::Absent).await;
    shelf.shows(10, None).await;
    let jane = shelf.name_author(1, Some("Jane"), Version::Absent).await;
    refresh(&*shelf.books.writer).await;
    shelf.shows(10, Some("Jane")).await;
    // The author is there: the book's own flush shows it.
    let second = shelf.put_book(11, 1, Version::Absent).await;
    shelf.shows(11, Some("Jane")).await;
    let jane = shelf.name_author(1, Some("Jane Austen"), jane).await;
    assert!(shelf.books.writer.refresh(1_000).await.unwrap().rows > 0);
    refresh(&*shelf.books.writer).await;
    shelf.shows(10, Some("Jane Austen")).await;
    shelf.shows(11, Some("Jane Austen")).await;
    // Its version moved with what it shows.
    let stale = shelf.books.write(11, Some(shelf.book(11, 2)), second);
    let flush = shelf.books.flush(vec![stale]);
    assert!(matches!(shelf.books.writer.write(&flush).await.unwrap(), Written::Conflict { .. }));
    // It moves to another author, who comes later, and back to one who is gone.
    let walter = shelf.name_author(2, Some("Walter"), Version::Absent).await;
    let moved = shelf.version_of_book(11).await;
    let moved = shelf.put_book(11, 2, moved).await;
    shelf.shows(11, Some("Walter")).await;
    let _ = shelf.name_author(1, None, jane).await;
    refresh(&*shelf.books.writer).await;
    shelf.shows(10, None).await;
    shelf.shows(11, Some("Walter")).await;
    let _ = shelf.put_book(11, 1, moved).await;
    shelf.shows(11, None).await;
    let _ = shelf.name_author(2, Some("W"), walter).await;
    // Where a deleted row leaves something, it comes back over that.
    let gone = shelf.version_of_author(1).await;
    let _ = shelf.name_author(1, Some("Jane again"), gone).await;
    refresh(&*shelf.books.writer).await;
    shelf.shows(10, Some("Jane again")).await;
    shelf.shows(11, Some("Jane again")).await;
    assert_eq!(shelf.books.writer.refresh(1_000).await.unwrap().waits, None, "all is shown");
}

pub(crate) async fn a_step_is_bounded_and_what_is_left_is_still_noted(store: &dyn Store) {
    let Some(mut shelf) = Shelf::new(store, "bounded").await else { return };
    let rows = (0..25).map(|id| shelf.books.write(id, Some(shelf.book(id, 1)), Version::Absent));
    let rows = rows.collect();
    shelf.books.durable(rows).await;
    refresh(&*shelf.books.writer).await;
    let _ = shelf.name_author(1, Some("Jane"), Version::Absent).await;
    let mut written = 0;
    loop {
        let step = shelf.books.writer.refresh(4).await.unwrap();
        assert!(step.rows <= 4, "{step:?}");
        written += step.rows;
        if step.waits.is_none() {
            break;
        }
        assert!(written < 25 || step.rows == 0 || step.more, "{step:?}");
    }
    assert_eq!(written, 25);
    for id in 0..25 {
        shelf.shows(id, Some("Jane")).await;
    }
}

pub(crate) async fn the_fold_never_sees_what_is_shown(store: &dyn Store) {
    let Some(mut shelf) = Shelf::new(store, "unseen").await else { return };
    let _ = shelf.name_author(1, Some("Jane"), Version::Absent).await;
    let _ = shelf.put_book(10, 1, Version::Absent).await;
    shelf.shows(10, Some("Jane")).await;
    let Loaded { row, .. } =
        shelf.books.writer.load(&[key_of(10)]).await.unwrap().into_iter().next().unwrap();
    assert_eq!(row, Some(shelf.book(10, 1)));
    // A snapshot tells what a row would show, and of one that waits that it does not know.
    let stored = |shelf: &Shelf, name: &str| {
        let length = name.len().to_string();
        let values = ["10", "1", "\"Emma\"", &format!("{name:?}"), &*length];
        row_of(&shelf.books.model, &values)
    };
    refresh(&*shelf.books.writer).await;
    let (right, wrong) = (stored(&shelf, "Jane"), stored(&shelf, "somebody"));
    let mut snapshot = shelf.books.target.snapshot().await.unwrap();
    let shown = snapshot.shown(&[right.clone(), wrong.clone()]).await.unwrap();
    assert_eq!(shown[0], Some(right.clone()));
    // Where there is no one moment, a row that is stored no more is not judged.
    assert!(shown[1].is_none() || shown[1] == Some(right), "{shown:?}");
    drop(snapshot);
    let version = shelf.authors.writer.load(&[key_of(1)]).await.unwrap()[0].version;
    let _ = shelf.name_author(1, Some("Jane Austen"), version).await;
    let mut snapshot = shelf.books.target.snapshot().await.unwrap();
    assert_eq!(snapshot.shown(&[wrong]).await.unwrap(), [None]);
}

fn row_of(model: &Model, values: &[&str]) -> Row {
    row(model, values)
}

pub(crate) async fn all_rows_are_looked_at_where_the_other_target_lives_another_life(
    store: &dyn Store,
) {
    let Some(mut shelf) = Shelf::new(store, "lives").await else { return };
    let _ = shelf.name_author(1, Some("Jane"), Version::Absent).await;
    let _ = shelf.put_book(10, 1, Version::Absent).await;
    refresh(&*shelf.books.writer).await;
    shelf.shows(10, Some("Jane")).await;
    // Emptied for a rebuild in place: nobody wrote a row, and nobody noted a key.
    let next = shelf.authors.target.rebuild(1, None).await.unwrap();
    refresh(&*shelf.books.writer).await;
    shelf.shows(10, None).await;
    let writer = shelf.authors.target.writer(next).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases.remove(0);
    let write = shelf.authors.write(1, Some(shelf.author(1, "J. Austen")), Version::Absent);
    let advances = vec![advance(&lease, 0, 1)];
    durable(&*writer, &Flush { advances, writes: vec![write], ..Flush::default() }).await;
    refresh(&*shelf.books.writer).await;
    shelf.shows(10, Some("J. Austen")).await;
    // Gone altogether.
    store.drop_target(&shelf.authors.spec.target).await;
    let opened = shelf.authors.target.open().await.unwrap();
    assert!(opened.generation > next);
    refresh(&*shelf.books.writer).await;
    shelf.shows(10, None).await;
}

pub(crate) async fn a_build_takes_no_place_while_its_rows_wait(store: &dyn Store) {
    let Some(mut shelf) = Shelf::new(store, "builds").await else { return };
    let jane = shelf.name_author(1, Some("Jane"), Version::Absent).await;
    let _ = shelf.put_book(10, 1, Version::Absent).await;
    let target = Arc::clone(&shelf.books.target);
    let rebuilds = target.rebuilds();
    let goals = [(partition(0), Position(1))];
    let next = rebuilds.begin(By::Operator, &[claim(0, 0)], &goals).await.unwrap();
    let builder = shelf.books.target.writer(next).await.unwrap();
    let lease = builder.acquire(&[claim(0, 0)]).await.unwrap().leases.remove(0);
    let write = shelf.books.write(10, Some(shelf.book(10, 1)), Version::Absent);
    let flush =
        Flush { advances: vec![advance(&lease, 0, 1)], writes: vec![write], ..Flush::default() };
    durable(&*builder, &flush).await;
    let step = async |step| rebuilds.step(next, step).await.unwrap();
    assert!(matches!(step(Step::Follow).await, Stepped::Done(_)));
    let held = step(Step::Hold { patient: false }).await;
    assert!(matches!(held, Stepped::NotYet(_)), "its rows were not looked at yet: {held:?}");
    let _ = shelf.authors.writer.load(&[key_of(1)]).await.unwrap();
    refresh(&*builder).await;
    let write = shelf.authors.write(1, Some(shelf.author(1, "Jane Austen")), jane);
    let flush = shelf.authors.flush(vec![write]);
    durable(&*shelf.authors.writer, &flush).await;
    refresh(&*builder).await;
    assert!(matches!(step(Step::Hold { patient: false }).await, Stepped::Done(_)));
    assert!(matches!(step(Step::Swap).await, Stepped::Done(_)));
    shelf.shows(10, Some("Jane Austen")).await;
    // The generation that was live is followed no longer; it is looked at whole when it comes back.
    let version = shelf.authors.writer.load(&[key_of(1)]).await.unwrap()[0].version;
    shelf.authors.lease.position.0 += 1;
    let _ = shelf.name_author(1, Some("J. A."), version).await;
    rebuilds.roll_back(None).await.unwrap();
    let back = shelf.books.target.writer(1).await.unwrap();
    back.acquire(&[claim(0, 0)]).await.unwrap();
    refresh(&*back).await;
    shelf.shows(10, Some("J. A.")).await;
}
