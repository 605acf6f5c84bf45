//! Records that are posted: written once where the answer says so, and where it cannot, told apart from what was never sent.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, run_in_with};
use crate::support::kafka::{self, Owned};
use crate::support::proxy::{Protocol, Proxy};
use crate::support::setup::{Setup, connector, kafka_source_at, postgres_sink};
use crate::support::stores::query;
use crate::support::wait::{self, SOON};
use crate::support::{servers, use_servers};

const TOKEN: &str = "a token of this test";
const INGEST: &str = "a narrow token of this test";
/// Of a record that the broker does not answer; the worker's own is ten times as long.
const GIVEN_UP: &str = "\"message.timeout.ms\" = 3000\n";

const SCHEMA: &str =
    r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}}}"#;

/// A worker that takes records for one topic and folds them, its broker behind a proxy.
struct Case {
    setup: Setup,
    daemon: Daemon,
    proxy: Proxy,
    topic: String,
    http: reqwest::Client,
}

/// What came back.
struct Answered {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

impl Case {
    async fn start() -> Self {
        let setup = Setup::new();
        let topic = setup.name("projects");
        kafka::create(&topic, 2).await;
        let proxy = Proxy::start(Protocol::Kafka, &servers::kafka()).await;
        std::fs::write(setup.path("config/project.schema.json"), SCHEMA).unwrap();
        let opened = format!(
            "{GIVEN_UP}[sources.events.topics.{topic}]\ningest = {{ schema = \"project.schema.json\" }}\n"
        );
        let projection = format!(
            r#"[projections.projects]
topics = [{topic:?}]
event_type = "headers['event-type']"
key = {{ id = "key" }}
fields = {{ id = "bigint", name = "text", renames = {{ type = "bigint", default = 0 }} }}
[[projections.projects.on]]
event = "ProjectCreated"
set = {{ name = "event.name" }}
[[projections.projects.on]]
event = "ProjectRenamed"
set = {{ name = "event.name" }}
add = {{ renames = 1 }}
"#
        );
        setup.config(&[
            format!("token = {TOKEN:?}\ningest_token = {INGEST:?}\n"),
            kafka_source_at(&proxy.address.to_string()) + &opened,
            projection,
            postgres_sink(),
            connector("projects", "projects", "warehouse", &topic, ""),
        ]);
        let daemon = setup.start().await;
        let http = crate::support::http(Duration::from_secs(60));
        Case { setup, daemon, proxy, topic, http }
    }

    async fn post_as(&self, token: &str, topic: &str, body: &Value) -> Answered {
        let request = self.http.post(self.daemon.url(&format!("/topics/{topic}")));
        answered(request.bearer_auth(token).json(body)).await
    }

    async fn post(&self, body: &Value) -> Answered {
        self.post_as(INGEST, &self.topic, body).await
    }

    async fn count(&self, name: &str, reason: Option<&str>) -> u64 {
        let request = self.http.get(self.daemon.url("/metrics")).bearer_auth(TOKEN);
        let text = request.send().await.unwrap().text().await.unwrap();
        let reason = reason.map_or(String::new(), |reason| format!("reason=\"{reason}\","));
        let series = format!("foldline_{name}{{{reason}topic=\"{}\"}} ", self.topic);
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }

    /// The names that the topic's records of a key hold.
    fn names(&self, key: &str) -> Vec<String> {
        let of_key = |record: &Owned| record.key.as_deref() == Some(key.as_bytes());
        let records = kafka::read_back(&self.topic).into_iter().filter(of_key);
        let name = |record: Owned| {
            let value: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
            value["name"].as_str().unwrap().to_owned()
        };
        records.map(name).collect()
    }

    /// Waits until the table has this row.
    async fn row(&self, row: [&str; 3]) {
        let expected: Vec<Option<String>> =
            row.iter().map(|cell| Some((*cell).to_owned())).collect();
        wait::until(&format!("the row {row:?}"), SOON, async || {
            let there = query(&format!("select to_regclass('{}')::text", self.topic)).await;
            if there[0][0].is_none() {
                return Err("no table".to_owned());
            }
            let rows = query(&format!("select id, name, renames from {}", self.topic)).await;
            if rows.contains(&expected) { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
    }

    async fn end(self) {
        self.daemon.stop().await;
        self.setup.clean().await;
    }
}

async fn answered(request: reqwest::RequestBuilder) -> Answered {
    // A worker that refuses a large body does not read it: the client may meet a closed connection before the answer.
    let mut left = 20;
    let answer = loop {
        match request.try_clone().unwrap().send().await {
            Err(error) if error.is_request() && left > 0 => left -= 1,
            answer => break answer.unwrap(),
        }
    };
    let status = answer.status().as_u16();
    let header =
        answer.headers().get("retry-after").map(|after| after.to_str().unwrap().to_owned());
    let text = answer.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answered { status, retry_after: header, body }
}

fn named(key: &str, event: &str, name: &str) -> Value {
    json!({ "key": key, "event": event, "value": { "name": name } })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_is_folded_and_each_record_is_told_its_place() {
    let _servers = use_servers().await;
    let case = Case::start().await;
    let many = json!({ "records": [
        named("7", "ProjectCreated", "Alpha"),
        { "key": "7", "headers": { "event-type": "ProjectRenamed" }, "value": { "name": "Beta" } },
        { "key": "8", "partition": 1, "event": "ProjectCreated", "value": { "name": "Gamma" } },
    ] });
    let answer = case.post(&many).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let offsets = answer.body["offsets"].as_array().unwrap();
    let place = |at: usize| {
        (offsets[at]["partition"].as_i64().unwrap(), offsets[at]["offset"].as_i64().unwrap())
    };
    assert_eq!(place(0).0, place(1).0, "one key, one partition");
    assert_eq!(place(0).1 + 1, place(1).1, "in order");
    assert_eq!(place(2).0, 1);
    let one = case.post(&named("7", "ProjectRenamed", "Delta")).await;
    assert_eq!((one.status, &one.body["offsets"][0]["offset"]), (200, &json!(place(1).1 + 1)));
    case.row(["7", "Delta", "2"]).await;
    case.row(["8", "Gamma", "0"]).await;
    assert_eq!(case.names("7"), ["Alpha", "Beta", "Delta"]);
    assert_eq!(case.count("records_produced_total", None).await, 4);
    produced_by_the_command(&case);
    case.row(["9", "Epsilon", "0"]).await;
    case.end().await;
}

/// `foldline produce` checks and names as REST does.
fn produced_by_the_command(case: &Case) {
    let produce = |record: &Value| {
        let arguments = ["produce", &case.topic, "-c", "."];
        run_in_with(&case.setup.path("config"), &arguments, &record.to_string())
    };
    let wrong = produce(&json!({ "key": "7", "value": { "name": 4711 } }));
    assert!(wrong.code == Some(1) && wrong.err.contains("line 1: `value`: at /name"), "{wrong:?}");
    let right = produce(&named("9", "ProjectCreated", "Epsilon"));
    assert_eq!(right.code, Some(0), "{right:?}");
    assert_eq!(case.names("9"), ["Epsilon"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_is_named_and_nothing_is_sent() {
    let _servers = use_servers().await;
    let case = Case::start().await;
    let good = named("1", "ProjectCreated", "Alpha");
    for (body, status, message) in [
        (json!({ "records": [good, { "vlaue": 1 }] }), 422, "records[1]: `vlaue`: an unknown name"),
        (
            json!({ "records": [good, { "value": { "name": 4711 } }] }),
            422,
            "records[1]: `value`: at /name: ",
        ),
        (json!({ "key": "1", "headers": { "a": 1 }, "value": {} }), 422, "records[0]: `headers`: "),
        (json!({ "records": [] }), 400, "`records` is empty"),
        (json!([good]), 400, "no JSON object"),
    ] {
        let answer = case.post(&body).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        let said = answer.body["message"].as_str().unwrap();
        assert!(said.contains(message) && said.contains("nothing was sent"), "{said}");
        assert!(!said.contains("4711"), "{said}");
    }
    let answer = case.post_as(INGEST, "nobody", &good).await;
    let said = answer.body["message"].as_str().unwrap();
    assert!(
        answer.status == 404 && said.contains("\"nobody\"") && said.contains(&case.topic),
        "{said}"
    );
    let url = case.daemon.url(&format!("/topics/{}", case.topic));
    let long = "x".repeat(9 << 20);
    for (request, status) in [
        (case.http.post(&url).bearer_auth(INGEST).json(&json!({ "value": long })), 413),
        (case.http.post(&url).bearer_auth(INGEST).body(good.to_string()), 415),
        (case.http.post(&url).json(&good), 401),
        (case.http.get(&url).bearer_auth(TOKEN), 405),
        (case.http.get(case.daemon.url("/connectors")).bearer_auth(INGEST), 401),
        (case.http.put(case.daemon.url("/connectors/projects/stop")).bearer_auth(INGEST), 401),
    ] {
        let answer = answered(request).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(answer.body["error_code"], status, "{}", answer.body);
    }
    assert_eq!(
        case.post_as(TOKEN, &case.topic, &good).await.status,
        200,
        "the worker's own opens all"
    );
    // One that the topic has no partition for, beside one that it takes.
    let answer = case
        .post(&json!({ "records": [good, { "key": "1", "partition": 99, "value": {} }] }))
        .await;
    assert_eq!(answer.status, 207, "{}", answer.body);
    assert_eq!(answer.body["offsets"][0]["error_code"], Value::Null);
    assert_eq!(answer.body["offsets"][1]["error_code"], 400, "{}", answer.body);
    assert_eq!(case.names("1"), ["Alpha", "Alpha"], "nothing else was sent");
    case.end().await;
}

/// The broker is out of reach: 503, and nothing was written. It takes records and does not answer: 504, and they are written.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_sent_is_told_from_what_nobody_knows_of() {
    let _servers = use_servers().await;
    let case = Case::start().await;
    assert_eq!(case.post(&named("1", "ProjectCreated", "before")).await.status, 200);

    case.proxy.close(true);
    let answer = case.post(&named("1", "ProjectRenamed", "never")).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.retry_after.is_some(), "it may be sent again");
    assert_eq!(answer.body["offsets"][0]["error_code"], 503);
    case.proxy.close(false);
    wait::until("the way is open again", SOON, async || {
        let answer = case.post(&named("2", "ProjectCreated", "between")).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;

    case.proxy.mute(true);
    let answer = case.post(&named("1", "ProjectRenamed", "unknown")).await;
    assert_eq!(answer.status, 504, "{}", answer.body);
    assert_eq!(answer.retry_after, None, "to send it again might write it twice");
    assert_eq!(answer.body["offsets"][0]["error_code"], 504);
    case.proxy.mute(false);
    wait::until("the way speaks again", SOON, async || {
        let answer = case.post(&named("3", "ProjectCreated", "after")).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;

    assert_eq!(case.names("1"), ["before", "unknown"]);
    assert!(case.count("record_produce_failures_total", Some("not_written")).await > 0);
    assert_eq!(case.count("record_produce_failures_total", Some("unknown")).await, 1);
    case.row(["1", "unknown", "1"]).await;
    case.end().await;
}
