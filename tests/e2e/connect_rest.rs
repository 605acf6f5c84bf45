//! Kafka Connect's REST: its codes, its bodies, and what its clients send.

use std::time::Duration;

use foldline_source_file::{FileProducer, NewRecord};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::setup::{
    Setup, connector, file_source, kafka_source, orders_projection, postgres_sink, sqlite_sink,
};
use crate::support::wait::{self, SOON};
use crate::support::{kafka, use_servers};

const TOKEN: &str = "a token of this test";

/// A worker that folds files into SQLite.
struct Case {
    setup: Setup,
    daemon: Daemon,
    http: reqwest::Client,
}

/// What came back.
struct Answered {
    status: u16,
    kind: String,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Case {
    /// `worker` are lines of the worker's table.
    async fn start(worker: &str) -> Self {
        let setup = Setup::new();
        let producer = FileProducer::new(&setup.path("log"));
        producer.create_topic("orders", 1).unwrap();
        let value = br#"{"id":1,"userId":2,"productId":3,"amount":4,"price":"1.50"}"#;
        let record = NewRecord {
            partition: Some(0),
            value: Some(value.to_vec().into()),
            ..NewRecord::default()
        };
        producer.append("orders", record).unwrap();
        setup.config(&[
            worker.to_owned(),
            file_source(&setup.path("log")),
            orders_projection("orders", "", ""),
            sqlite_sink(&setup.path("rows.db")),
            connector("orders", "orders", "file", "orders", ""),
        ]);
        let daemon = setup.start().await;
        let http = crate::support::http(Duration::from_secs(10));
        Case { setup, daemon, http }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, self.daemon.url(path))
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answered {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answered(request).await
    }

    /// Waits until the connector is in `state`, by what Kafka Connect's clients read.
    async fn state(&self, state: &str) {
        wait::until(&format!("orders is {state}"), SOON, async || {
            let told = self.ask("GET", "/connectors/orders/status", None).await.body;
            let found = told["connector"]["state"] == state;
            if found { Ok(()) } else { Err(told.to_string()) }
        })
        .await;
    }

    async fn stop(self) {
        self.daemon.stop().await;
    }
}

async fn answered(request: reqwest::RequestBuilder) -> Answered {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let kind = headers.get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
    let text = answer.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answered { status, kind, headers, body }
}

/// The answers of a real Kafka Connect 4.1 where it has the path.
#[tokio::test(flavor = "multi_thread")]
async fn codes_and_messages_are_kafka_connects() {
    let case = Case::start("").await;
    case.state("RUNNING").await;
    for (method, path, status, message) in [
        ("GET", "/connectors/nobody", 404, "Connector nobody not found"),
        ("GET", "/connectors/nobody/config", 404, "Connector nobody not found"),
        ("GET", "/connectors/nobody/tasks", 404, "Connector nobody not found"),
        ("GET", "/connectors/nobody/status", 404, "No status found for connector nobody"),
        ("GET", "/connectors/nobody/tasks/9/status", 404, "No status found for task nobody-9"),
        ("GET", "/connectors/orders/tasks/9/status", 404, "No status found for task orders-9"),
        ("GET", "/connectors/orders/tasks/x/status", 404, "No status found for task orders-x"),
        ("POST", "/connectors/orders/tasks/7/restart", 404, "Task orders-7 not found"),
        ("PUT", "/connectors/nobody/pause", 404, "Unknown connector nobody"),
        ("PUT", "/connectors/nobody/resume", 404, "Unknown connector nobody"),
        ("PUT", "/connectors/nobody/stop", 404, "Unknown connector nobody"),
        ("POST", "/connectors/nobody/restart", 404, "Unknown connector nobody"),
        ("GET", "/connector-plugins/nothing/config", 404, "Unknown plugin nothing."),
        ("GET", "/admin/loggers/nobody", 404, "Logger nobody not found."),
        ("DELETE", "/connectors/orders/offsets", 400, "Connectors must be in the STOPPED state"),
        ("GET", "/connectors/orders/tasks-config", 404, "no such path"),
        ("GET", "/nowhere/", 404, "no such path"),
        ("PATCH", "/connectors", 405, "Method Not Allowed"),
        ("POST", "/connectors/", 405, "the config lives in files"),
        ("PUT", "/connectors/orders/config", 405, "[connectors.orders]"),
        ("PATCH", "/connectors/orders/config", 405, "[connectors.orders]"),
        ("DELETE", "/connectors/orders", 405, "take [connectors.orders] out"),
        ("DELETE", "/admin/loggers/root", 405, "Method Not Allowed"),
        ("POST", "/connectors/orders/restart?includeTasks=perhaps", 400, "true and false"),
        ("GET", "/connectors/orders/offsets?when=now", 400, "when"),
    ] {
        let told = case.ask(method, path, None).await;
        let shown = format!("{method} {path}: {} {}", told.status, told.body);
        assert_eq!(told.status, status, "{shown}");
        assert_eq!(told.body["error_code"], status, "{shown}");
        assert!(told.body["message"].as_str().unwrap().contains(message), "{shown}");
        assert_eq!(told.kind, "application/json", "{shown}");
        if status == 405 {
            assert!(told.headers.contains_key("allow"), "{shown}");
        }
    }
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("GET", "/connectors/", 200),
        ("GET", "/connectors/orders/", 200),
        ("GET", "/connectors/orders/status/", 200),
        ("GET", "/connectors/orders/tasks/0/status", 200),
        ("PUT", "/connectors/orders/topics/reset", 202),
        ("PUT", "/connectors/orders/pause", 202),
        ("PUT", "/connectors/orders/pause", 202),
        ("PUT", "/connectors/orders/resume", 202),
        ("POST", "/connectors/orders/restart", 204),
        ("POST", "/connectors/orders/restart?includeTasks=True&onlyFailed=False", 202),
        ("GET", "/connector-plugins?connectorsOnly=false", 200),
        ("GET", "/admin/loggers", 200),
    ] {
        let told = case.ask(method, path, None).await;
        assert_eq!(told.status, status, "{method} {path}: {}", told.body);
    }
    let refused = answered(case.request("GET", "/connectors").header("accept", "text/csv")).await;
    assert_eq!((refused.status, &refused.body["error_code"]), (406, &json!(406)));
    let nobody = case.ask("GET", "/connectors/nobody/topics", None).await;
    assert_eq!((nobody.status, nobody.body), (200, json!({ "nobody": { "topics": [] } })));
    case.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_config_and_list_have_what_clients_read() {
    let case = Case::start("").await;
    case.state("RUNNING").await;
    let root = case.ask("GET", "/", None).await.body;
    let version: Vec<&str> = root["version"].as_str().unwrap().split('.').collect();
    let numbers: Vec<u32> = version[..2].iter().map(|part| part.parse().unwrap()).collect();
    assert!(numbers.as_slice() >= [3, 6].as_slice(), "clients ask for offsets from 3.6 on: {root}");
    assert_eq!(root["foldline_version"], env!("CARGO_PKG_VERSION"));

    let status = case.ask("GET", "/connectors/orders/status", None).await.body;
    assert_eq!(status["connector"]["version"], env!("CARGO_PKG_VERSION"), "{status}");
    let task = &status["tasks"][0];
    assert_eq!(task["version"], env!("CARGO_PKG_VERSION"), "{status}");
    let alone = case.ask("GET", "/connectors/orders/tasks/0/status", None).await.body;
    for key in ["id", "state", "worker_id", "version"] {
        assert_eq!(alone[key], task[key], "{alone}");
    }

    let config = case.ask("GET", "/connectors/orders/config", None).await.body;
    assert_eq!(config["connector.class"], "foldline.SqliteSinkConnector", "{config}");
    assert_eq!(config["topics"], "orders", "{config}");
    assert_eq!(config["name"], "orders", "{config}");
    assert!(config.as_object().unwrap().values().all(Value::is_string), "{config}");
    let all = case.ask("GET", "/connectors/?expand=status&expand=info", None).await.body;
    assert_eq!(all["orders"]["info"]["config"], config, "{all}");
    assert_eq!(all["orders"]["status"]["type"], "sink", "{all}");
    let other = case.ask("GET", "/connectors?expand=other", None).await.body;
    assert_eq!(other, json!({ "orders": {} }));

    let told = case.ask("POST", "/connectors/orders/restart?includeTasks=true", None).await;
    assert_eq!(told.status, 202, "{}", told.body);
    assert_eq!(told.body["connector"]["state"], "RESTARTING", "{}", told.body);
    // It was RUNNING until then: it has begun anew where it has tasks again.
    let restarted = async || {
        wait::until("its task is back", SOON, async || {
            case.state("RUNNING").await;
            let told = case.ask("GET", "/connectors/orders/tasks/0/status", None).await;
            if told.status == 200 { Ok(()) } else { Err(told.body.to_string()) }
        })
        .await;
    };
    restarted().await;
    let path = "/connectors/orders/restart?includeTasks=true&onlyFailed=true";
    wait::until("what has not failed is left alone", SOON, async || {
        let told = case.ask("POST", path, None).await;
        let runs = (told.status, &told.body["connector"]["state"]) == (202, &json!("RUNNING"));
        if runs { Ok(()) } else { Err(told.body.to_string()) }
    })
    .await;
    restarted().await;
    wait::until("its task is restarted", SOON, async || {
        let told = case.ask("POST", "/connectors/orders/tasks/0/restart", None).await;
        if told.status == 204 { Ok(()) } else { Err(told.body.to_string()) }
    })
    .await;
    case.state("RUNNING").await;
    case.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_a_stopped_connector_change_as_in_kafka_connect() {
    let case = Case::start("").await;
    case.state("RUNNING").await;
    let place = |partition: Value, offset: Value| {
        let partition = json!({ "kafka_topic": "orders", "kafka_partition": partition });
        json!({ "offsets": [{ "partition": partition, "offset": { "kafka_offset": offset } }] })
    };
    let path = "/connectors/orders/offsets";
    for body in [json!({}), json!({ "offsets": [] })] {
        let told = case.ask("PATCH", path, Some(body)).await;
        assert_eq!(told.status, 400);
        let message = told.body["message"].as_str().unwrap();
        assert!(message.starts_with("Partitions / offsets need to be provided"), "{message}");
    }
    let told = case.ask("PATCH", path, Some(place(json!(0), json!(1)))).await;
    assert_eq!(told.status, 400);
    let message = told.body["message"].as_str().unwrap();
    assert!(message.starts_with("Connectors must be in the STOPPED state"), "{message}");
    let told = answered(case.request("PATCH", path).body("{}")).await;
    assert_eq!((told.status, &told.body["error_code"]), (415, &json!(415)), "{}", told.body);
    let told =
        case.ask("PATCH", "/connectors/nobody/offsets", Some(place(json!(0), json!(1)))).await;
    assert_eq!(
        (told.status, told.body["message"].as_str()),
        (404, Some("Connector nobody not found"))
    );

    let told = case.ask("PUT", "/connectors/orders/stop", None).await;
    assert_eq!((told.status, told.body), (204, json!("")));
    case.state("STOPPED").await;
    let status = case.ask("GET", "/connectors/orders/status", None).await.body;
    assert_eq!(status["tasks"], json!([]), "{status}");
    // Numbers may be texts there.
    let told = case.ask("PATCH", path, Some(place(json!("0"), json!("1")))).await;
    assert_eq!(told.status, 200, "{}", told.body);
    assert!(told.body["message"].is_string(), "{}", told.body);
    for (partition, offset) in
        [(json!("x"), json!(1)), (json!(0), json!("1.5")), (json!(9e9), json!(1))]
    {
        let told = case.ask("PATCH", path, Some(place(partition, offset))).await;
        assert_eq!(told.status, 400, "{}", told.body);
    }
    let told = case.ask("GET", path, None).await;
    assert_eq!(told.body["offsets"][0]["offset"], json!({ "kafka_offset": 1 }), "{}", told.body);
    let told = case.ask("DELETE", path, None).await;
    assert_eq!(told.status, 200, "{}", told.body);
    case.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_listed_described_and_validate_a_connector() {
    let case = Case::start("").await;
    let plugins = case.ask("GET", "/connector-plugins", None).await.body;
    let classes: Vec<&str> =
        plugins.as_array().unwrap().iter().map(|one| one["class"].as_str().unwrap()).collect();
    assert!(classes.contains(&"foldline.PostgresSinkConnector"), "{plugins}");
    assert!(plugins.as_array().unwrap().iter().all(|one| one["type"] == "sink"), "{plugins}");
    for plugin in ["foldline.SqliteSinkConnector", "SqliteSinkConnector", "SqliteSink"] {
        let told = case.ask("GET", &format!("/connector-plugins/{plugin}/config"), None).await;
        assert_eq!(told.status, 200, "{plugin}");
        let keys = told.body;
        let find = |name: &str| {
            let found = keys.as_array().unwrap().iter().find(|key| key["name"] == name);
            found.unwrap_or_else(|| panic!("no {name} in {keys}")).clone()
        };
        assert_eq!(find("projection")["required"], true);
        assert_eq!(find("tasks.max")["default_value"], "1");
        assert_eq!(find("tasks.max")["type"], "LONG");
        assert_eq!(find("batch.age")["default_value"], "10ms");
        assert!(find("errors.limit")["documentation"].as_str().unwrap().contains("bad"));
    }

    // What the worker tells of a connector is valid where it came from.
    let path = "/connector-plugins/SqliteSink/config/validate";
    let config = case.ask("GET", "/connectors/orders/config", None).await.body;
    let told = case.ask("PUT", path, Some(config.clone())).await;
    assert_eq!(told.status, 200, "{}", told.body);
    assert_eq!(told.body["error_count"], 0, "{}", told.body);
    assert_eq!(told.body["name"], "foldline.SqliteSinkConnector");
    let problem = |body: &Value, key: &str| {
        let configs = body["configs"].as_array().unwrap();
        let found = configs.iter().find(|one| one["value"]["name"] == key);
        found.unwrap_or_else(|| panic!("no {key} in {body}"))["value"]["errors"].clone()
    };
    for (key, value, said) in [
        ("projection", "ordres", "orders"),
        ("sink", "nowhere", "file"),
        ("tasks.max", "many", "many"),
        ("batch.age", "soon", "duration"),
        ("errors.on_bad_record", "cry", "dead_letter"),
        ("no.such.key", "1", ""),
    ] {
        let mut wrong = config.clone();
        wrong[key] = json!(value);
        let told = case.ask("PUT", path, Some(wrong)).await;
        assert_eq!(told.status, 200, "{key}: {}", told.body);
        assert_eq!(told.body["error_count"], 1, "{key}: {}", told.body);
        let errors = problem(&told.body, key);
        assert!(errors[0].as_str().unwrap().contains(said), "{key}: {errors}");
    }
    let mut other = config.clone();
    other["connector.class"] = json!("foldline.PostgresSinkConnector");
    let told = case.ask("PUT", path, Some(other)).await;
    assert_eq!(told.status, 400, "{}", told.body);
    let mut nameless = config;
    nameless.as_object_mut().unwrap().remove("name");
    let told = case.ask("PUT", path, Some(nameless)).await;
    assert_eq!(problem(&told.body, "name").as_array().unwrap().len(), 1, "{}", told.body);
    case.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loggers_level_is_changed_while_the_worker_runs() {
    let case = Case::start("").await;
    case.state("RUNNING").await;
    let all = case.ask("GET", "/admin/loggers", None).await.body;
    assert_eq!(all["root"], json!({ "level": "INFO", "last_modified": null }), "{all}");
    assert_eq!(all["foldline"]["level"], "DEBUG", "{all}");
    for (path, body, status) in [
        ("/admin/loggers/foldline", json!({ "level": "LOUD" }), 404),
        ("/admin/loggers/foldline", json!({}), 400),
        ("/admin/loggers/foldline?scope=cluster", json!({ "level": "INFO" }), 400),
        ("/admin/loggers/a=b,c", json!({ "level": "INFO" }), 400),
    ] {
        let told = case.ask("PUT", path, Some(body)).await;
        assert_eq!(told.status, status, "{path}: {}", told.body);
    }
    let marks = |what: &str| case.setup.log().matches(what).count();
    let told = case.ask("PUT", "/admin/loggers/foldline", Some(json!({ "level": "off" }))).await;
    assert_eq!((told.status, told.body), (200, json!(["foldline"])));
    let one = case.ask("GET", "/admin/loggers/foldline", None).await.body;
    assert_eq!(one["level"], "OFF");
    assert!(one["last_modified"].as_i64().unwrap() > 1_700_000_000_000, "{one}");
    // Changing a level is said by the worker itself, so it is not heard now, and heard again afterwards.
    let set = async |logger: &str, level: &str| {
        let body = json!({ "level": level });
        let told = case.ask("PUT", &format!("/admin/loggers/{logger}"), Some(body)).await;
        assert_eq!(told.status, 200, "{}", told.body);
    };
    let before = marks("level was changed");
    set("elsewhere", "WARN").await;
    assert_eq!(marks("level was changed"), before, "{}", case.setup.log());
    set("foldline", "INFO").await;
    set("elsewhere", "ERROR").await;
    wait::until("the log speaks again", SOON, async || {
        if marks("level was changed") > before { Ok(()) } else { Err(case.setup.log()) }
    })
    .await;
    case.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_taken_as_bearer_and_as_the_password_of_basic() {
    let case = Case::start(&format!("token = {TOKEN:?}\n")).await;
    let open = case.ask("GET", "/health", None).await;
    assert_eq!(open.status, 200);
    let without = case.ask("GET", "/connectors", None).await;
    assert_eq!((without.status, &without.body["error_code"]), (401, &json!(401)));
    let ways = without.headers["www-authenticate"].to_str().unwrap();
    assert!(ways.contains("Bearer") && ways.contains("Basic"), "{ways}");
    let page = case.request("GET", "/connectors").header("sec-fetch-site", "same-origin");
    let told = answered(page).await;
    assert_eq!((told.status, told.headers["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
    for (request, status) in [
        (case.request("GET", "/connectors").bearer_auth(TOKEN), 200),
        (case.request("GET", "/connectors").basic_auth("anyone", Some(TOKEN)), 200),
        (case.request("GET", "/connectors").basic_auth(TOKEN, Some("anyone")), 401),
        (case.request("GET", "/connectors").bearer_auth("another"), 401),
    ] {
        assert_eq!(answered(request).await.status, status);
    }
    case.stop().await;
}

/// Its tasks as `(id, worker)`, once they hold all partitions between them.
async fn fleet(daemon: &Daemon, workers: &[&str]) -> Vec<(u64, String)> {
    wait::until("the tasks of all workers are told", SOON, async || {
        let status = daemon.status("orders").await;
        let tasks = status["tasks"].as_array().unwrap();
        let one = |task: &Value| {
            (task["id"].as_u64().unwrap(), task["worker_id"].as_str().unwrap().to_owned())
        };
        let told: Vec<(u64, String)> = tasks.iter().map(one).collect();
        let count = |task: &Value| task["partitions"].as_array().unwrap().len();
        let held: usize = tasks.iter().map(count).sum();
        let each = |worker: &&str| told.iter().filter(|(_, of)| of == worker).count() == 2;
        if held == 4 && told.len() == workers.len() * 2 && workers.iter().all(each) {
            return Ok(told);
        }
        Err(status.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_worker_tells_the_tasks_of_all_of_them() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, 4).await;
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        postgres_sink(),
        connector("orders", "orders", "warehouse", &table, "tasks_max = 2"),
    ]);
    let start = async |advertised: &str| {
        let daemon = setup.spawn_with(&[("FOLDLINE__WORKER__ADVERTISED", advertised)]);
        daemon.answers().await;
        daemon.state("orders", "RUNNING").await;
        daemon
    };
    let (a, b) = (start("a.example:1").await, start("b.example:1").await);
    let told = fleet(&a, &["a.example:1", "b.example:1"]).await;
    let ids: Vec<u64> = told.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [0, 1, 2, 3], "each has a number of its own");
    assert_eq!(fleet(&b, &["a.example:1", "b.example:1"]).await, told, "both tell the same");
    for (daemon, id, code) in [(&a, 0, 204), (&a, 3, 421), (&b, 0, 421), (&a, 4, 404)] {
        let path = format!("/connectors/orders/tasks/{id}/restart");
        let (status, body) = daemon.request("POST", &path).await.unwrap();
        assert_eq!(status, code, "{path}: {body}");
    }
    a.state("orders", "RUNNING").await;
    fleet(&a, &["a.example:1", "b.example:1"]).await;
    let (status, task) = a.get("/connectors/orders/tasks/3/status").await;
    assert_eq!((status, &task["worker_id"]), (200, &json!("b.example:1")), "{task}");
    let (_, tasks) = a.get("/connectors/orders/tasks").await;
    assert_eq!(tasks.as_array().unwrap().len(), 4, "{tasks}");
    let (_, topics) = a.get("/connectors/orders/topics").await;
    assert_eq!(topics["orders"]["topics"], json!([topic]));
    b.stop().await;
    fleet(&a, &["a.example:1"]).await;
    a.stop().await;
    setup.clean().await;
}
