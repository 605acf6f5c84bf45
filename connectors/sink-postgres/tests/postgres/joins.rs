//! Rows that show another table's rows, while both sides and those who bring them up to date write at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldline_api::lookup::{Finish, Joins, Lookup};
use foldline_api::model::Row;
use foldline_api::sink::{RowWrite, Target, TargetSpec, Version, Versions, Written};
use foldline_api::value::Value;
use foldline_testkit::Rng;

use crate::support::{Fixture, Held, key, model, wait_for};

#[derive(Debug)]
struct Nothing;

impl Finish for Nothing {
    fn finish(&self, _row: &mut Row) {}
}

fn authors(fixture: &Fixture) -> TargetSpec {
    let spec = fixture.spec(model(&[("author_id", "bigint"), ("name", "text")]));
    let connector = "authors".to_owned();
    TargetSpec { target: format!("{}.authors", fixture.schema), connector, ..spec }
}

fn books(fixture: &Fixture) -> TargetSpec {
    let mut books = model(&[("book_id", "bigint"), ("author_id", "bigint"), ("name", "text")]);
    books.columns[1].index = true;
    let authors = authors(fixture);
    let lookup =
        Lookup { target: authors.target, model: authors.model, via: 1, fields: vec![(2, 1)] };
    TargetSpec {
        target: format!("{}.books", fixture.schema),
        connector: "books".to_owned(),
        joins: Some(Arc::new(Joins::new(vec![lookup], vec![2], Arc::new(Nothing)))),
        ..fixture.spec(books)
    }
}

async fn held(fixture: &Fixture, spec: TargetSpec) -> Held {
    let model = (*spec.model).clone();
    let target = fixture.target(spec);
    let generation = target.open().await.unwrap().generation;
    Held::new(&target, generation, model).await
}

/// Writes random rows of ids below `ids`, some of them deleted, flush after flush. Each is folded from what it is now.
async fn write(held: &mut Held, rng: &mut Rng, ids: u64, row: impl Fn(&mut Rng, i64) -> Row) {
    let mut chosen: Vec<i64> =
        (0..1 + rng.below(6)).map(|_| rng.below(ids).cast_signed()).collect();
    chosen.sort_unstable();
    chosen.dedup();
    let keys: Vec<_> = chosen.iter().map(|id| key(*id)).collect();
    let loaded = held.writer.load(&keys).await.unwrap();
    let mut writes = Vec::new();
    for ((id, key), loaded) in chosen.into_iter().zip(keys).zip(loaded) {
        let gone = rng.chance(150) && loaded.row.is_some();
        let row = (!gone).then(|| row(rng, id));
        let marks = foldline_api::sink::Marks::new();
        writes.push(RowWrite { key, row, version: loaded.version, marks });
    }
    match held.write(writes).await {
        Written::Durable(Versions::All(Version::At(..))) | Written::Conflict { .. } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_both_sides_write_at_once_ends_as_the_plain_join() {
    let fixture = Arc::new(Fixture::new().await);
    let mut authors = held(&fixture, authors(&fixture)).await;
    let spec = books(&fixture);
    let mut books = held(&fixture, spec.clone()).await;
    let done = Arc::new(AtomicBool::new(false));
    let seed: u64 = rand_seed();
    println!("seed {seed}");
    let refreshers: Vec<_> = (0..2)
        .map(|_| {
            let (target, done) = (fixture.target(spec.clone()), Arc::clone(&done));
            tokio::spawn(async move {
                let writer = target.writer(1).await.unwrap();
                let mut rows = 0;
                while !done.load(Ordering::Relaxed) {
                    rows += writer.refresh(3).await.map_or(0, |step| step.rows);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                rows
            })
        })
        .collect();
    let authors_done = Arc::clone(&done);
    let of_authors = tokio::spawn(async move {
        let mut rng = Rng::new(seed);
        while !authors_done.load(Ordering::Relaxed) {
            let name = |rng: &mut Rng, id: i64| {
                Row::new(vec![Value::Int(id), Value::text(&format!("{id}-{}", rng.below(9_999)))])
            };
            write(&mut authors, &mut rng, 6, name).await;
        }
    });
    let mut rng = Rng::new(seed ^ 0xF00D);
    for _ in 0..400 {
        let book = |rng: &mut Rng, id: i64| {
            let author =
                if rng.chance(50) { Value::Null } else { Value::Int(rng.below(6).cast_signed()) };
            Row::new(vec![Value::Int(id), author, Value::Null])
        };
        write(&mut books, &mut rng, 40, book).await;
        // Never the name of another author, at any moment.
        let strange = "SELECT count(*) FROM {s}.books WHERE split_part(name, '-', 1) <> author_id::text \
                       OR (author_id IS NULL AND name IS NOT NULL)";
        assert_eq!(fixture.text(strange).await, "0", "seed {seed}");
    }
    done.store(true, Ordering::Relaxed);
    of_authors.await.unwrap();
    let mut rows = 0;
    for refresher in refreshers {
        rows += refresher.await.unwrap();
    }
    assert!(rows > 0, "seed {seed}: nothing was ever behind");
    while books.writer.refresh(100).await.unwrap().waits.is_some() {}
    let wrong = "SELECT count(*) FROM {s}.books b LEFT JOIN {s}.authors a USING (author_id) \
                 WHERE b.name IS DISTINCT FROM a.name";
    assert_eq!(fixture.text(wrong).await, "0", "seed {seed}: rows differ from the plain join");
    assert_eq!(fixture.text("SELECT count(*) FROM {s}_books.notes").await, "0");
}

fn rand_seed() -> u64 {
    let given = std::env::var("FOLDLINE_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        u64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() % 1_000_000)
            .unwrap()
    })
}

/// A flush that has read the author and not committed yet holds the author as it is: a rename waits for it, and is then
/// followed.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_crosses_a_new_book_is_followed() {
    let fixture = Fixture::new().await;
    let mut authors = held(&fixture, authors(&fixture)).await;
    let books = held(&fixture, books(&fixture)).await;
    let author = |name: &str| Row::new(vec![Value::Int(1), Value::text(name)]);
    let put = |row: Row, version| RowWrite {
        key: key(1),
        row: Some(row),
        version,
        marks: foldline_api::sink::Marks::new(),
    };
    let version = authors.durable(vec![put(author("Jane"), Version::Absent)]).await;
    while books.writer.refresh(10).await.unwrap().waits.is_some() {}
    // Someone keeps the flush of the book waiting behind what it has read.
    fixture.run("BEGIN; LOCK TABLE {s}.books IN EXCLUSIVE MODE").await;
    let book = Row::new(vec![Value::Int(1), Value::Int(1), Value::Null]);
    let flush = books.flush(vec![put(book, Version::Absent)]);
    let writer = Arc::clone(&books.writer);
    let new_book = tokio::spawn(async move { writer.write(&flush).await.unwrap() });
    let sql = crate::support::session().await;
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name = 'foldline/books' \
                 AND wait_event_type = 'Lock')";
    wait_for(&sql, waits).await;
    let rename = tokio::spawn(async move {
        authors.durable(vec![put(author("Jane Austen"), version)]).await;
    });
    let waits = waits.replace("foldline/books", "foldline/authors");
    wait_for(&sql, &waits).await;
    fixture.run("COMMIT").await;
    assert!(matches!(new_book.await.unwrap(), Written::Durable(_)));
    rename.await.unwrap();
    while books.writer.refresh(10).await.unwrap().waits.is_some() {}
    assert_eq!(fixture.text("SELECT name FROM {s}.books").await, "Jane Austen");
}

/// A flush that found no author, and is not committed yet, is in nobody's sight when the author comes and is followed.
#[tokio::test(flavor = "multi_thread")]
async fn an_author_that_crosses_a_new_book_is_shown() {
    let fixture = Fixture::new().await;
    let mut authors = held(&fixture, authors(&fixture)).await;
    let books = held(&fixture, books(&fixture)).await;
    let put = |row: Row| RowWrite {
        key: key(1),
        row: Some(row),
        version: Version::Absent,
        marks: foldline_api::sink::Marks::new(),
    };
    while books.writer.refresh(10).await.unwrap().waits.is_some() {}
    fixture.run("BEGIN; LOCK TABLE {s}.books IN EXCLUSIVE MODE").await;
    let book = Row::new(vec![Value::Int(1), Value::Int(1), Value::Null]);
    let flush = books.flush(vec![put(book)]);
    let writer = Arc::clone(&books.writer);
    let new_book = tokio::spawn(async move { writer.write(&flush).await.unwrap() });
    let sql = crate::support::session().await;
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name = 'foldline/books' \
                 AND wait_event_type = 'Lock')";
    wait_for(&sql, waits).await;
    let author = Row::new(vec![Value::Int(1), Value::text("Jane")]);
    authors.durable(vec![put(author)]).await;
    // Its note is followed, as far as anyone can see.
    let follow = format!("DELETE FROM {}_books.notes WHERE key = '1'", fixture.schema);
    assert_eq!(sql.execute(&follow, &[]).await.unwrap(), 1);
    fixture.run("COMMIT").await;
    assert!(matches!(new_book.await.unwrap(), Written::Durable(_)));
    while books.writer.refresh(10).await.unwrap().waits.is_some() {}
    assert_eq!(fixture.text("SELECT name FROM {s}.books").await, "Jane");
}

#[test]
fn the_plan_shows_how_rows_follow_and_the_view_that_would_do_the_same() {
    let fixture = |target: &str| format!("s.{target}");
    let lookup = Lookup {
        target: fixture("authors"),
        model: Arc::new(model(&[("author_id", "bigint"), ("born", "date"), ("name", "text")])),
        via: 1,
        fields: vec![(2, 2)],
    };
    let books = model(&[("book_id", "bigint"), ("author_id", "bigint"), ("author_name", "text")]);
    let joins = Joins::new(vec![lookup], vec![2], Arc::new(Nothing));
    let spec = TargetSpec {
        joins: Some(Arc::new(joins)),
        target: fixture("books"),
        ..foldline_testkit::contract::spec_of("books", books)
    };
    let config: Arc<dyn foldline_api::kind::Sink> = Arc::new(crate::support::config_of("s_books"));
    let plan = config.plan(&spec).join("\n");
    assert!(plan.contains("FOR SHARE OF t SKIP LOCKED"), "{plan}");
    assert!(plan.contains("t.\"author_name\" IS DISTINCT FROM s0.\"name\""), "{plan}");
    let view = "CREATE VIEW \"books_shown\" AS SELECT t.\"book_id\", t.\"author_id\", s0.\"name\" AS \
                \"author_name\" FROM \"s\".\"books\" AS t LEFT JOIN \"s\".\"authors\" AS s0 ON \
                s0.\"author_id\" = t.\"author_id\"";
    assert!(plan.contains(view), "{plan}");
}
