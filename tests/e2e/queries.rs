//! Rows asked for over REST: what a user posts and then reads, in each store, and what is refused by name.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::kafka;
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, postgres_sink, sqlite_sink,
};
use crate::support::{use_servers, wait};

const CONNECTORS: [&str; 3] = ["tickets", "tickets-file", "tickets-search"];

struct Case {
    setup: Setup,
    daemon: Daemon,
    topic: String,
    http: reqwest::Client,
}

impl Case {
    async fn start() -> Self {
        let setup = Setup::new();
        let topic = setup.name("tickets");
        kafka::create(&topic, 2).await;
        let opened = format!("[sources.events.topics.{topic}]\ningest = true\n");
        let projection = format!(
            r#"[projections.tickets]
topics = [{topic:?}]
key = {{ id = "key" }}
indexes = [["owner", "since"]]
fields = {{ id = "bigint", owner = "text", since = "timestamptz", price = "numeric(12,2)", note = "text" }}
[[projections.tickets.on]]
set = "event"
"#
        );
        setup.config(&[
            "query_rows = 50\nquery_wait = \"2s\"\n".to_owned(),
            kafka_source() + &opened,
            projection,
            postgres_sink(),
            sqlite_sink(&setup.path("tickets.db")),
            connector("tickets", "tickets", "warehouse", &topic, ""),
            connector("tickets-file", "tickets", "file", &topic, ""),
            elasticsearch_sink(),
            connector("tickets-search", "tickets", "search", &topic, ""),
        ]);
        let daemon = setup.start().await;
        Case { setup, daemon, topic, http: crate::support::http(wait::SOON) }
    }

    /// Posts records; what a read waits for that is to see them.
    async fn post(&self, records: Value) -> String {
        let body = json!({ "records": records });
        let path = format!("/topics/{}", self.topic);
        let answer = self.http.post(self.daemon.url(&path)).json(&body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let place = |end: &Value| format!("{}:{}:{}", self.topic, end["partition"], end["offset"]);
        let places: Vec<String> = answer["offsets"].as_array().unwrap().iter().map(place).collect();
        places.join(",")
    }

    async fn rows(&self, connector: &str, query: &str) -> (u16, Value) {
        self.daemon.get(&format!("/connectors/{connector}/rows?{query}")).await
    }

    /// The keys of one page.
    async fn keys(&self, connector: &str, query: &str) -> Vec<String> {
        let (status, page) = self.rows(connector, query).await;
        assert_eq!(status, 200, "{connector} {query}: {page}");
        keys(&page)
    }

    async fn end(self) {
        self.daemon.stop().await;
        self.setup.clean().await;
    }
}

fn keys(page: &Value) -> Vec<String> {
    let rows = page["rows"].as_array().unwrap();
    rows.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
}

fn ticket(id: i64, owner: &str, since: &str, price: Value) -> Value {
    let value = json!({ "owner": owner, "since": since, "price": price });
    json!({ "key": id.to_string(), "value": value })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_posted_is_read_by_what_it_holds() {
    let _servers = use_servers().await;
    let case = Case::start().await;
    for connector in CONNECTORS {
        case.daemon.state(connector, "RUNNING").await;
    }
    let wait = case
        .post(json!([
            ticket(1, "ann", "1969-12-31T23:59:59.999999Z", json!(9.5)),
            ticket(2, "ann", "1970-01-01T00:00:00Z", json!(10)),
            ticket(3, "Ann", "2026-01-31T12:00:00.000001Z", json!(-1)),
            ticket(4, "änn", "2026-01-31T12:00:00.000002Z", Value::Null),
        ]))
        .await;
    for connector in CONNECTORS {
        let all = format!("wait={wait}");
        assert_eq!(case.keys(connector, &all).await, ["1", "2", "3", "4"], "{connector}");
        for (query, expected) in [
            ("owner=ann", &["1", "2"][..]),
            ("owner=ann&filter=price%20%3C%2010", &["1"]),
            ("filter=owner%20in%20%5B%27ann%27,%20%27Ann%27%5D&sort=-since", &["3", "2", "1"]),
            ("scan=true&sort=owner", &["3", "1", "2", "4"]),
            ("scan=true&sort=-price", &["4", "2", "1", "3"]),
            ("scan=true&filter=!(price%20%3E%200)", &["3", "4"]),
            ("scan=true&filter=since%20%3C%20%271970-01-01T00:00:00Z%27", &["1"]),
            ("filter=id%20%3E%202&sort=-id", &["4", "3"]),
        ] {
            assert_eq!(case.keys(connector, query).await, expected, "{connector} {query}");
        }
        let path = format!("/connectors/{connector}/rows/4");
        let (status, row) = case.daemon.get(&path).await;
        assert_eq!((status, &row["row"]["owner"]), (200, &json!("änn")), "{row}");
        // Page by page, and a cursor of another query.
        let (_, first) = case.rows(connector, "limit=3&sort=-id").await;
        assert_eq!(keys(&first), ["4", "3", "2"]);
        let cursor = first["cursor"].as_str().unwrap();
        let (_, last) = case.rows(connector, &format!("sort=-id&limit=50&cursor={cursor}")).await;
        assert_eq!((keys(&last), &last["cursor"]), (vec!["1".to_owned()], &Value::Null));
        let (status, refused) = case.rows(connector, &format!("cursor={cursor}")).await;
        assert!(
            status == 400 && refused["message"].as_str().unwrap().contains("none of this query")
        );
    }
    what_is_refused(&case).await;
    what_is_waited_for(&case).await;
    case.end().await;
}

async fn what_is_refused(case: &Case) {
    for (connector, query, says) in [
        ("tickets", "note=x", "no index leads to these rows: compare one of id, owner by =="),
        ("tickets", "filter=owner%20%3E%20%27a%27", "or one of id by <"),
        ("tickets", "sort=owner", "no index leads"),
        ("tickets", "q=ann", "q is Elasticsearch's query string"),
        ("tickets", "limit=51", "limit is a number from 1 to 50"),
        ("tickets", "at=2026-01-01T00:00:00Z", "at is for one row"),
        ("tickets", "wait=others:0:1", "does not read topic others"),
    ] {
        let (status, answer) = case.rows(connector, query).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.contains(says), "{query}: {status} {answer}");
    }
    assert_eq!(case.keys("tickets-search", "q=owner:ann&sort=-id").await, ["2", "1"]);
    assert_eq!(case.keys("tickets-search", "sort=owner&limit=1").await, ["3"], "all is indexed");
    // SQLite's index has texts in their order.
    assert_eq!(case.keys("tickets-file", "sort=owner&limit=1").await, ["3"]);
}

/// A read waits for the store, and says where that stands.
async fn what_is_waited_for(case: &Case) {
    for nth in 0..4 {
        let (since, price) = ("2026-02-01T00:00:00Z", json!(nth));
        let wait = case.post(json!([ticket(7, "eve", since, price.clone())])).await;
        for connector in CONNECTORS {
            let path = format!("/connectors/{connector}/rows/7?wait={wait}");
            let (status, row) = case.daemon.get(&path).await;
            assert_eq!(
                (status, row["row"]["price"].as_f64()),
                (200, Some(f64::from(nth))),
                "{row}"
            );
            let found = case.keys(connector, &format!("owner=eve&wait={wait}")).await;
            assert_eq!(
                found.into_iter().collect::<BTreeSet<_>>(),
                BTreeSet::from(["7".to_owned()])
            );
        }
    }
    let (status, _) = case.daemon.request("PUT", "/connectors/tickets/pause").await.unwrap();
    assert_eq!(status, 202);
    case.daemon.state("tickets", "PAUSED").await;
    let wait = case.post(json!([ticket(8, "eve", "2026-02-01T00:00:00Z", Value::Null)])).await;
    let (status, answer) = case.rows("tickets", &format!("wait={wait}")).await;
    let message = answer["message"].as_str().unwrap();
    assert!(status == 504 && message.contains("not durable within 2 s"), "{status} {answer}");
    assert!(message.contains("while tickets is PAUSED"), "{message}");
    // Whoever waits for nothing still reads.
    assert_eq!(case.keys("tickets", "owner=eve").await, ["7"]);
}
