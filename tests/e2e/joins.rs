//! Books show their author's name, and follow it: two connectors on two workers that are killed, both topics written all
//! the while. The judge is what whoever writes the topics keeps of them, joined by hand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use foldline_testkit::Rng;
use serde_json::{Value, json};

use crate::support::kafka::{self, Raw};
use crate::support::log;
use crate::support::orders::Event;
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, file_source, kafka_source, postgres_sink, sqlite_sink,
};
use crate::support::stores::{Columns, Kind, elasticsearch, elasticsearch_rows, query};
use crate::support::{use_servers, wait};

const PARTITIONS: i32 = 6;

fn projections(authors: &str, books: &str) -> String {
    format!(
        r#"
[projections.authors]
topics = [{authors:?}]
key    = {{ author_id = "key" }}
[projections.authors.fields]
author_id = "bigint"
name      = "text"
[[projections.authors.on]]
set = {{ name = "event.name" }}

[projections.books]
topics = [{books:?}]
key    = {{ book_id = "key" }}
[projections.books.fields]
book_id     = "bigint"
author_id   = "bigint"
changes     = {{ type = "bigint", default = 0 }}
author_name = {{ type = "text", lookup = "authors.name", via = "author_id" }}
label       = {{ type = "text", computed = "string(state.book_id) + ' by ' + state.author_name" }}
[[projections.books.on]]
add = {{ changes = 1 }}
set = {{ author_id = "event.authorId" }}
"#
    )
}

/// Records of both topics, and what a plain reader makes of them.
struct Catalog {
    rng: Rng,
    authors: BTreeMap<u64, String>,
    /// Author and how often it was written since it was made.
    books: BTreeMap<u64, (Option<u64>, u64)>,
}

impl Catalog {
    fn new(seed: u64) -> Self {
        Catalog { rng: Rng::new(seed), authors: BTreeMap::new(), books: BTreeMap::new() }
    }

    fn partition(key: u64) -> i32 {
        i32::try_from(key % 6).unwrap()
    }

    fn tombstone(key: u64) -> Raw {
        let key_text = key.to_string().into_bytes();
        Raw { partition: Self::partition(key), key: Some(key_text), ..Raw::default() }
    }

    fn author(&mut self) -> Raw {
        let id = self.rng.below(40);
        if self.rng.chance(100) {
            self.authors.remove(&id);
            return Self::tombstone(id);
        }
        let name = format!("author {id}, {}", self.rng.below(1_000_000));
        self.authors.insert(id, name.clone());
        Raw::value(Self::partition(id), &id.to_string(), json!({ "name": name }).to_string())
    }

    fn book(&mut self) -> Raw {
        let id = self.rng.below(1_500);
        if self.rng.chance(50) {
            self.books.remove(&id);
            return Self::tombstone(id);
        }
        let author = (!self.rng.chance(30)).then(|| self.rng.below(40));
        let book = self.books.entry(id).or_default();
        *book = (author, book.1 + 1);
        let value = json!({ "authorId": author }).to_string();
        Raw::value(Self::partition(id), &id.to_string(), value)
    }

    fn produce(&mut self, authors: &str, books: &str, count: usize) {
        let some: Vec<Raw> = (0..count / 8).map(|_| self.author()).collect();
        let more: Vec<Raw> = (0..count).map(|_| self.book()).collect();
        kafka::produce_raw(authors, &some);
        kafka::produce_raw(books, &more);
    }

    /// The authors that there must be with their books: key, name, how many, and each book's key, author and changes.
    fn holders(&self) -> Vec<Value> {
        let author = |(id, name): (&u64, &String)| {
            let theirs = self.books.iter().filter(|(_, (author, _))| *author == Some(*id));
            let books: Vec<Value> = theirs
                .map(|(book, (_, changes))| json!({ "book_id": book, "author_id": id, "changes": changes }))
                .collect();
            json!([id, name, books.len(), books])
        };
        self.authors.iter().map(author).collect()
    }

    /// The rows that there must be: key, author, changes, name, label.
    fn rows(&self) -> Vec<Vec<Option<String>>> {
        let row = |(id, (author, changes)): (&u64, &(Option<u64>, u64))| {
            let name = author.and_then(|author| self.authors.get(&author)).cloned();
            let label = name.as_ref().map(|name| format!("{id} by {name}"));
            let author = author.map(|author| author.to_string());
            vec![Some(id.to_string()), author, Some(changes.to_string()), name, label]
        };
        self.books.iter().map(row).collect()
    }
}

/// Authors that hold their books.
fn authors_with_books(authors: &str) -> String {
    format!(
        r#"
[projections.author_docs]
topics = [{authors:?}]
key    = {{ author_id = "key" }}
[projections.author_docs.fields]
author_id = "bigint"
name      = "text"
books     = {{ type = "children", by = "book_id", lookup = "books", via = "author_id" }}
titles    = {{ type = "integer", computed = "size(state.books)" }}
[[projections.author_docs.on]]
set = {{ name = "event.name" }}
"#
    )
}

/// What rows of books are compared by; the first is the key.
const BOOKS: Columns = &[
    ("book_id", Kind::Plain),
    ("author_id", Kind::Plain),
    ("changes", Kind::Plain),
    ("author_name", Kind::Plain),
    ("label", Kind::Plain),
];

/// Where books are shown.
#[derive(Clone, Copy)]
enum Shelf {
    Table,
    Index,
}

impl Shelf {
    fn sink(self) -> (String, &'static str) {
        match self {
            Shelf::Table => (postgres_sink(), "warehouse"),
            Shelf::Index => (elasticsearch_sink(), "search"),
        }
    }

    /// In the order of their numbers.
    async fn books(self, name: &str) -> Vec<Vec<Option<String>>> {
        if matches!(self, Shelf::Table) {
            let columns = "book_id, author_id, changes, author_name, label";
            return query(&format!("SELECT {columns} FROM {name} ORDER BY book_id")).await;
        }
        let rows = elasticsearch_rows(name, BOOKS).await.into_values();
        let number =
            |row: &Vec<Option<String>>| row[0].as_ref().map(|id| id.parse::<u64>().unwrap());
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(number);
        rows
    }

    /// Authors with their books, in the order of their numbers.
    async fn holders(self, name: &str) -> Vec<Value> {
        if matches!(self, Shelf::Table) {
            let columns = "jsonb_build_array(author_id, name, titles, books)::text";
            let rows = query(&format!("SELECT {columns} FROM {name} ORDER BY author_id")).await;
            let row = |row: Vec<Option<String>>| serde_json::from_str(row[0].as_ref().unwrap());
            return rows.into_iter().map(|columns| row(columns).unwrap()).collect();
        }
        let all = json!({ "size": 1_000, "sort": ["author_id"] });
        elasticsearch("POST", &format!("{name}/_refresh"), None).await;
        let (_, found) = elasticsearch("POST", &format!("{name}/_search"), Some(all)).await;
        let hits = found["hits"]["hits"].as_array().cloned().unwrap_or_default();
        let row = |hit: &Value| {
            let of = |field: &str| hit["_source"][field].clone();
            json!([of("author_id"), of("name"), of("titles"), of("books")])
        };
        hits.iter().map(row).collect()
    }

    /// Shows another name for a book than its author has, by hand: which one.
    async fn spoil(self, name: &str) -> String {
        if matches!(self, Shelf::Table) {
            let some = format!("SELECT min(book_id) FROM {name} WHERE author_name IS NOT NULL");
            let id = query(&some).await[0][0].clone().unwrap();
            query(&format!("UPDATE {name} SET author_name = 'nobody' WHERE book_id = {id}")).await;
            return id;
        }
        let book = self.books(name).await.into_iter().find(|book| book[3].is_some()).unwrap();
        let id = book[0].clone().unwrap();
        // An alias of one index takes writes.
        let doc = json!({ "doc": { "author_name": "nobody" } });
        let path = format!("{name}/_update/{id}");
        let (status, answer) = elasticsearch("POST", &path, Some(doc)).await;
        assert_eq!(status, 200, "{answer}");
        id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn books_follow_their_authors_names_while_workers_are_killed_and_either_side_is_rebuilt() {
    followed_through_kills(Shelf::Table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_follow_their_authors_names_while_workers_are_killed_and_either_side_is_rebuilt()
{
    followed_through_kills(Shelf::Index).await;
}

async fn followed_through_kills(shelf: Shelf) {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (authors, books) = (setup.name("authors"), setup.name("books"));
    for topic in [&authors, &books] {
        kafka::create(topic, PARTITIONS).await;
    }
    let ((sink, name), docs) = (shelf.sink(), setup.name("docs"));
    setup.config(&[
        kafka_source(),
        projections(&authors, &books),
        authors_with_books(&authors),
        sink,
        connector("authors", "authors", name, &authors, "tasks_max = 2"),
        connector("books", "books", name, &books, "tasks_max = 2"),
        connector("author_docs", "author_docs", name, &docs, "tasks_max = 2"),
    ]);
    let seed = rand::random::<u32>().into();
    println!("seed {seed}");
    let mut catalog = Catalog::new(seed);
    catalog.produce(&authors, &books, 4_000);
    let mut workers = vec![setup.start().await, setup.start().await];
    for round in 0..6 {
        catalog.produce(&authors, &books, 1_500);
        tokio::time::sleep(Duration::from_millis(700)).await;
        // The moment of the kill is what is tried, not a wait for anything.
        workers.remove(0).kill9();
        workers.push(setup.start().await);
        match round {
            1 => drop(workers[0].request("POST", "/connectors/authors/rebuild").await),
            3 => drop(workers[0].request("POST", "/connectors/books/rebuild").await),
            4 => drop(workers[0].request("POST", "/connectors/author_docs/rebuild").await),
            _ => {}
        }
    }
    catalog.produce(&authors, &books, 500);
    followed(shelf, (&books, &docs), &catalog, seed).await;
    for worker in &workers {
        let lag = |scrape: &crate::support::scrape::Scrape| {
            scrape.find("lookup_lag_seconds", &[("connector", "books")])
        };
        let end = Instant::now() + wait::SOON;
        while lag(&worker.metrics().await) != Some(0.0) {
            assert!(Instant::now() < end, "all is shown");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    // A verdict is of one generation.
    for name in ["authors", "books", "author_docs"] {
        let end = Instant::now() + wait::SOON;
        while !workers[0].status(name).await["rebuild"].is_null() {
            assert!(Instant::now() < end, "{name} is still being rebuilt");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    judged_by_commands(&workers[0], (shelf, &books), seed).await;
    for worker in workers {
        worker.stop().await;
    }
    setup.clean().await;
}

/// Until both sides hold what the join by hand does.
async fn followed(shelf: Shelf, (books, docs): (&str, &str), catalog: &Catalog, seed: u64) {
    let (expected, holders) = (catalog.rows(), catalog.holders());
    let end = Instant::now() + wait::LATER;
    loop {
        let found = shelf.books(books).await;
        if found == expected && shelf.holders(docs).await == holders {
            break;
        }
        if Instant::now() > end {
            let held = shelf.holders(docs).await;
            let other = held.iter().zip(&holders).find(|(found, expected)| found != expected);
            let wrong = found.iter().zip(&expected).find(|(found, expected)| found != expected);
            panic!(
                "seed {seed}: {} rows of {}, first {wrong:?}, {other:?}",
                found.len(),
                expected.len()
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// `verify` and `explain` know what is shown.
async fn judged_by_commands(
    worker: &crate::support::daemon::Daemon,
    (shelf, books): (Shelf, &str),
    seed: u64,
) {
    let verified = worker.cli(&["verify", "books", "--json"]);
    let summary = |text: &str| -> Value {
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_default()
    };
    let found = summary(&verified.out);
    assert_eq!(found["summary"]["drift"], 0, "seed {seed}: {verified:?}");
    let held = summary(&worker.cli(&["verify", "author_docs", "--json"]).out);
    assert_eq!(held["summary"]["drift"], 0, "seed {seed}: {held}");
    let id = shelf.spoil(books).await;
    let verified = worker.cli(&["verify", "books"]);
    assert!(verified.out.contains("author_name"), "{verified:?}");
    let explained = worker.cli(&["explain", "books", &id]);
    assert!(explained.out.contains("nobody"), "{explained:?}");
    let repaired = worker.cli(&["verify", "books", "--repair"]);
    assert!(repaired.out.contains("1 repaired"), "{repaired:?}");
    let verified = worker.cli(&["verify", "books"]);
    assert!(verified.out.contains("0 differ"), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_shown_in_many_rows_is_followed_and_stalls_no_other_key() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (authors, books) = (setup.name("authors"), setup.name("books"));
    for topic in [&authors, &books] {
        kafka::create(topic, PARTITIONS).await;
    }
    setup.config(&[
        kafka_source(),
        projections(&authors, &books),
        postgres_sink(),
        connector("authors", "authors", "warehouse", &authors, ""),
        connector("books", "books", "warehouse", &books, ""),
    ]);
    let worker = setup.start().await;
    let value = |id: u64, text: &str| Raw::value(Catalog::partition(id), &id.to_string(), text);
    kafka::produce_raw(&authors, &[value(1, r#"{"name":"Jane"}"#)]);
    let many: Vec<Raw> = (0..20_000).map(|id| value(id, r#"{"authorId":1}"#)).collect();
    kafka::produce_raw(&books, &many);
    let counts = async |name: &str| {
        let sql = format!("SELECT count(*) FROM {books} WHERE author_name = '{name}'");
        query(&sql).await[0][0].clone().unwrap()
    };
    let until = async |name: &str, count: &str| {
        let end = Instant::now() + wait::LATER;
        while counts(name).await != count {
            assert!(Instant::now() < end, "{} of {count} show {name}", counts(name).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until("Jane", "20000").await;
    kafka::produce_raw(&authors, &[value(1, r#"{"name":"Jane Austen"}"#)]);
    // Another row, written while that is followed.
    kafka::produce_raw(&books, &[value(30_000, r#"{"authorId":2}"#)]);
    let end = Instant::now() + wait::SOON;
    let other = format!("SELECT count(*) FROM {books} WHERE book_id = 30000");
    while query(&other).await[0][0].as_deref() != Some("1") {
        assert!(Instant::now() < end, "another key waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until("Jane Austen", "20000").await;
    worker.stop().await;
    setup.clean().await;
}

/// What a file log holds of a record.
fn event(raw: Raw) -> Event {
    let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8(bytes).unwrap());
    Event {
        partition: raw.partition % crate::support::orders::PARTITIONS,
        key: text(raw.key).unwrap_or_default(),
        timestamp: 1_700_000_000_000,
        value: text(raw.value).unwrap_or_else(|| "null".to_owned()),
    }
}

fn books_in_file(path: &std::path::Path) -> Option<Vec<Vec<Option<String>>>> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(path, flags).ok()?;
    let columns =
        "cast(book_id as text), cast(author_id as text), cast(changes as text), author_name, label";
    let text = format!("SELECT {columns} FROM books ORDER BY book_id");
    let mut statement = database.prepare(&text).ok()?;
    let rows = statement.query_map([], |row| (0..5).map(|at| row.get(at)).collect()).ok()?;
    rows.collect::<rusqlite::Result<_>>().ok()
}

fn authors_in_file(path: &std::path::Path) -> Option<Vec<Value>> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(path, flags).ok()?;
    let text = "SELECT json_array(author_id, name, titles, json(books)) FROM author_docs ORDER BY author_id";
    let mut statement = database.prepare(text).ok()?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).ok()?;
    rows.map(|row| serde_json::from_str(&row.ok()?).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn books_in_a_file_follow_their_authors_while_the_worker_is_killed() {
    let setup = Setup::new();
    let (logs, database) = (setup.path("log"), setup.path("books.db"));
    setup.config(&[
        file_source(&logs),
        projections("authors", "books"),
        authors_with_books("authors"),
        sqlite_sink(&database),
        connector("authors", "authors", "file", "authors", "batch = { rows = 40 }"),
        connector("books", "books", "file", "books", "batch = { rows = 60 }"),
        connector("author_docs", "author_docs", "file", "author_docs", "batch = { rows = 30 }"),
    ]);
    let seed = rand::random::<u32>().into();
    println!("seed {seed}");
    let mut catalog = Catalog::new(seed);
    for kill in 0..20 {
        for _ in 0..10 {
            let some: Vec<Raw> = (0..5).map(|_| catalog.author()).collect();
            log::append(&logs, "authors", some.into_iter().map(event));
            let more: Vec<Raw> = (0..40).map(|_| catalog.book()).collect();
            log::append(&logs, "books", more.into_iter().map(event));
        }
        let worker = setup.spawn();
        // The moment of the kill is what is tried, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(60 + 40 * (kill % 8))).await;
        worker.kill9();
    }
    let worker = setup.start().await;
    let expected = Some(catalog.rows());
    let end = Instant::now() + wait::SOON;
    let holders = Some(catalog.holders());
    while books_in_file(&database) != expected || authors_in_file(&database) != holders {
        assert!(Instant::now() < end, "seed {seed}: rows differ from the join by hand");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for name in ["books", "author_docs"] {
        let verified = worker.cli(&["verify", name]);
        assert!(verified.out.contains("0 differ"), "{verified:?}");
    }
    worker.stop().await;
}
