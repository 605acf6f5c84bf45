//! `config/examples/books`, end to end as it stands, on two workers of which one is killed: authors with their books inside,
//! books with their author's name, from Avro by schemas in a topic. Topics and targets get the test's own names.

use std::collections::{BTreeMap, BTreeSet};

use foldline_testkit::Rng;
use serde_json::{Value, json};
use toml::Table;

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Raw};
use crate::support::registry::{SingleObjects, single_objects};
use crate::support::servers::repository;
use crate::support::setup::Setup;
use crate::support::stores::{elasticsearch, query};
use crate::support::{use_servers, wait};

const AUTHORS: u64 = 25;
const BOOKS: u64 = 300;
const SCHEMAS: [&str; 2] = [
    r#"{"type":"record","name":"Author","fields":[{"name":"name","type":"string"},
        {"name":"born","type":["null",{"type":"int","logicalType":"date"}]}]}"#,
    r#"{"type":"record","name":"Book","fields":[{"name":"authorId","type":["null","long"]},
        {"name":"title","type":"string"},{"name":"year","type":"int"}]}"#,
];

/// The example with the test's own names; its own tests name its topics, and are left out.
fn example(setup: &Setup) {
    let file = repository().join("config/examples/books/books.toml");
    let mut config: Table = std::fs::read_to_string(file).unwrap().parse().unwrap();
    config["worker"].as_table_mut().unwrap().insert("name".to_owned(), setup.id.clone().into());
    config["worker"].as_table_mut().unwrap().remove("listen");
    let topics = config["sources"]["events"]["topics"].as_table_mut().unwrap();
    for topic in ["authors", "books", "schemas-v1"] {
        let declared = topics.remove(topic).unwrap();
        topics.insert(setup.name(topic), declared);
    }
    let registry = config["registries"]["catalog"].as_table_mut().unwrap();
    registry.insert("topic".to_owned(), setup.name("schemas-v1").into());
    for (_, projection) in config["projections"].as_table_mut().unwrap() {
        let projection = projection.as_table_mut().unwrap();
        let topic = setup.name(projection["topics"][0].as_str().unwrap());
        projection.insert("topics".to_owned(), vec![topic].into());
        projection.remove("tests");
    }
    for (_, connector) in config["connectors"].as_table_mut().unwrap() {
        let connector = connector.as_table_mut().unwrap();
        let key = if connector["sink"].as_str() == Some("search") { "index" } else { "table" };
        let target = setup.name(connector["projection"].as_str().unwrap());
        connector.insert(key.to_owned(), target.into());
    }
    std::fs::write(setup.path("config/example.toml"), toml::to_string(&config).unwrap()).unwrap();
}

/// What a plain reader makes of both topics.
struct Catalog {
    rng: Rng,
    authors: BTreeMap<u64, String>,
    /// Author, title and year.
    books: BTreeMap<u64, (Option<u64>, String, u64)>,
}

impl Catalog {
    fn record(topic: usize, key: u64, value: Option<Value>) -> (usize, u64, Option<Value>) {
        (topic, key, value)
    }

    fn next(&mut self) -> (usize, u64, Option<Value>) {
        if self.rng.chance(200) {
            let id = self.rng.below(AUTHORS);
            if self.rng.chance(150) {
                self.authors.remove(&id);
                return Self::record(0, id, None);
            }
            let name = format!("author {id}, {}", self.rng.below(1_000_000));
            self.authors.insert(id, name.clone());
            return Self::record(0, id, Some(json!({ "name": name, "born": { "int": 1_000 } })));
        }
        let id = self.rng.below(BOOKS);
        if self.rng.chance(100) {
            self.books.remove(&id);
            return Self::record(1, id, None);
        }
        let author = (!self.rng.chance(50)).then(|| self.rng.below(AUTHORS));
        let (title, year) =
            (format!("title {}", self.rng.below(1_000)), 1_800 + self.rng.below(100));
        self.books.insert(id, (author, title.clone(), year));
        let of = author.map_or(Value::Null, |author| json!({ "long": author }));
        Self::record(1, id, Some(json!({ "authorId": of, "title": title, "year": year })))
    }

    fn produce(&mut self, setup: &Setup, count: usize) {
        let records: Vec<_> = (0..count).map(|_| self.next()).collect();
        let values = records.iter().filter_map(|(at, _, value)| Some((*at, value.clone()?)));
        let encoded = encoded(&values.collect::<Vec<_>>());
        let mut values = encoded.values.into_iter();
        let mut topics = [Vec::new(), Vec::new()];
        for (at, key, value) in records {
            let value = value.and_then(|_| values.next());
            let (partition, key) = (i32::try_from(key % 6).unwrap(), key.to_string().into_bytes());
            topics[at].push(Raw { partition, key: Some(key), value, ..Raw::default() });
        }
        for (topic, raws) in ["authors", "books"].into_iter().zip(topics) {
            kafka::produce_raw(&setup.name(topic), &raws);
        }
    }

    fn name_of(&self, author: Option<u64>) -> Option<&String> {
        self.authors.get(&author?)
    }

    /// Each book with its author's name, in the order of their numbers.
    fn shown_books(&self) -> Vec<Value> {
        let book = |(id, (author, title, year)): (&u64, &(Option<u64>, String, u64))| {
            json!([id, author, title, year, self.name_of(*author)])
        };
        self.books.iter().map(book).collect()
    }

    /// Each author with the books inside.
    fn shown_authors(&self) -> Vec<Value> {
        let author = |(id, name): (&u64, &String)| {
            let theirs = self.books.iter().filter(|(_, (author, ..))| *author == Some(*id));
            let books: Vec<Value> = theirs
                .map(|(book, (author, title, year))| {
                    json!({ "book_id": book, "author_id": author, "title": title, "year": year })
                })
                .collect();
            json!([id, name, books.len(), books])
        };
        self.authors.iter().map(author).collect()
    }
}

fn encoded(values: &[(usize, Value)]) -> SingleObjects {
    single_objects(&SCHEMAS.map(str::to_owned), values)
}

/// All documents behind an alias, of these fields, in the order of the first.
async fn documents(alias: &str, fields: &[&str]) -> Vec<Value> {
    elasticsearch("POST", &format!("{alias}/_refresh"), None).await;
    let all = json!({ "size": 10_000, "query": { "match_all": {} } });
    let (status, found) = elasticsearch("POST", &format!("{alias}/_search"), Some(all)).await;
    assert_eq!(status, 200, "{alias}: {found}");
    let hits = found["hits"]["hits"].as_array().unwrap();
    let row = |hit: &Value| -> Value {
        fields.iter().map(|field| hit["_source"][field].clone()).collect()
    };
    let mut rows: Vec<Value> = hits.iter().map(row).collect();
    rows.sort_by_key(|row| row[0].as_u64());
    rows
}

async fn books_in_table(setup: &Setup) -> Vec<Value> {
    let columns = "jsonb_build_array(book_id, author_id, title, year, author_name)::text";
    let sql = format!("SELECT {columns} FROM {} ORDER BY book_id", setup.name("books"));
    let rows = query(&sql).await.into_iter();
    rows.map(|row| serde_json::from_str(row[0].as_ref().unwrap()).unwrap()).collect()
}

const BOOK: [&str; 5] = ["book_id", "author_id", "title", "year", "author_name"];
const AUTHOR: [&str; 4] = ["author_id", "name", "titles", "books"];

async fn settled(setup: &Setup, catalog: &Catalog, seed: u64) {
    let same = |what: &str, found: Vec<Value>, expected: Vec<Value>| {
        let pair = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        match pair {
            None if found.len() == expected.len() => Ok(()),
            _ => Err(format!(
                "seed {seed}: {} {what} of {}, first {pair:?}",
                found.len(),
                expected.len()
            )),
        }
    };
    wait::until("all is shown", wait::LATER, async || {
        same("rows", books_in_table(setup).await, catalog.shown_books())?;
        same("books", documents(&setup.name("books"), &BOOK).await, catalog.shown_books())?;
        same(
            "authors",
            documents(&setup.name("author_docs"), &AUTHOR).await,
            catalog.shown_authors(),
        )
    })
    .await;
}

async fn start(setup: &Setup) -> Daemon {
    setup.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn authors_hold_their_books_and_books_show_their_author_while_workers_are_killed() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    example(&setup);
    let mut workers = vec![start(&setup).await];
    // The worker makes the topics, as the config declares them.
    for name in ["authors", "books", "author-docs"] {
        workers[0].idle(name, 6).await;
    }
    let keys = encoded(&[]).keys;
    let schemas = keys.into_iter().zip(SCHEMAS).map(|(key, schema)| Raw {
        key: Some(key),
        value: Some(schema.as_bytes().to_vec()),
        ..Raw::default()
    });
    kafka::produce_raw(&setup.name("schemas-v1"), &schemas.collect::<Vec<_>>());
    let seed = rand::random::<u32>().into();
    println!("seed {seed}");
    let mut catalog =
        Catalog { rng: Rng::new(seed), authors: BTreeMap::new(), books: BTreeMap::new() };
    catalog.produce(&setup, 1_500);
    workers.push(start(&setup).await);
    for round in 0..4 {
        catalog.produce(&setup, 600);
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        // The moment of the kill is what is tried, not a wait for anything.
        workers.remove(0).kill9();
        workers.push(start(&setup).await);
        match round {
            1 => drop(workers[0].request("POST", "/connectors/author-docs/rebuild").await),
            2 => drop(workers[0].request("POST", "/connectors/book-docs/rebuild").await),
            _ => {}
        }
    }
    catalog.produce(&setup, 200);
    settled(&setup, &catalog, seed).await;
    for name in ["author-docs", "book-docs"] {
        wait::until("its rebuild is over", wait::LATER, async || {
            let status = workers[0].status(name).await;
            if status["rebuild"].is_null() { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    settled(&setup, &catalog, seed).await;
    for name in ["books", "book-docs", "author-docs"] {
        let verified = workers[0].cli(&["verify", name]);
        assert!(verified.out.contains("0 differ"), "seed {seed}: {name}: {verified:?}");
    }
    let held: BTreeSet<u64> = catalog.books.values().filter_map(|(author, ..)| *author).collect();
    let id = catalog.authors.keys().find(|id| held.contains(id)).unwrap();
    let path = format!("{}/_update/{id}", setup.name("author_docs"));
    let spoilt = json!({ "doc": { "books": [], "titles": 0 } });
    let (status, answer) = elasticsearch("POST", &path, Some(spoilt)).await;
    assert_eq!(status, 200, "{answer}");
    let verified = workers[0].cli(&["verify", "author-docs"]);
    assert!(verified.out.contains("books"), "{verified:?}");
    let repaired = workers[0].cli(&["verify", "author-docs", "--repair"]);
    assert!(repaired.out.contains("1 repaired"), "{repaired:?}");
    settled(&setup, &catalog, seed).await;
    for worker in workers {
        worker.stop().await;
    }
    setup.clean().await;
}
