//! Clients of Kafka Connect that others wrote, and what sends whatever the OpenAPI document allows, against a running worker.

use std::path::PathBuf;
use std::process::Command;

use foldline_source_file::{FileProducer, NewRecord};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::servers;
use crate::support::setup::{Setup, connector, file_source, orders_projection, sqlite_sink};
use crate::support::wait::{self, SOON};

const TOKEN: &str = "token-of-this-test";

/// A worker with a token that folds files into SQLite.
struct Case {
    setup: Setup,
    daemon: Daemon,
}

impl Case {
    async fn start() -> Self {
        let setup = Setup::new();
        let producer = FileProducer::new(&setup.path("log"));
        producer.create_topic("orders", 1).unwrap();
        for id in 0..20 {
            let event =
                json!({ "id": id, "userId": 2, "productId": 3, "amount": 4, "price": "1.50" });
            let value = Some(event.to_string().into_bytes().into());
            let record = NewRecord { partition: Some(0), value, ..NewRecord::default() };
            producer.append("orders", record).unwrap();
        }
        setup.config(&[
            format!("token = {TOKEN:?}\n"),
            file_source(&setup.path("log")),
            orders_projection("orders", "", ""),
            sqlite_sink(&setup.path("rows.db")),
            connector("orders", "orders", "file", "orders", ""),
        ]);
        let daemon = setup.start().await;
        let case = Case { setup, daemon };
        case.runs().await;
        case
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = crate::support::http(SOON).request(method, self.daemon.url(path));
        let request = request.basic_auth("ci", Some(TOKEN));
        let request = if let Some(body) = body { request.json(body) } else { request };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn runs(&self) {
        wait::until("orders runs", SOON, async || {
            let (_, text) = self.ask("GET", "/connectors/orders/status", None).await;
            let status: Value = serde_json::from_str(&text).unwrap();
            let folds = status["connector"]["state"] == "RUNNING"
                && status["lag"] == 0
                && status["tasks"][0]["partitions"][0].is_object();
            if folds { Ok(()) } else { Err(text) }
        })
        .await;
    }
}

/// `tests/services/clients` with the client's name and these arguments, run in the test's own directory: some leave files where they run.
fn client(case: &Case, arguments: &[&str]) -> String {
    let tool = PathBuf::from(servers::required("FOLDLINE_KAFKA_BIN")).join("clients");
    servers::run(Command::new(tool).args(arguments).current_dir(case.setup.path("")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_client_kc_works() {
    let case = Case::start().await;
    let (url, login) = (case.daemon.url(""), format!("ci:{TOKEN}"));
    let kc = |arguments: &[&str]| -> Value {
        let mut all = vec!["kc", "--url", &url, "--auth", &login, "--log-level", "CRITICAL"];
        all.extend(arguments);
        let said = client(&case, &all);
        let last = said.trim();
        serde_json::from_str(if last.is_empty() { "null" } else { last })
            .unwrap_or_else(|_| panic!("{arguments:?} said {said}"))
    };
    assert!(kc(&["info"])["version"].as_str().unwrap().starts_with("4."));
    assert_eq!(kc(&["list"]), json!(["orders"]));
    assert_eq!(kc(&["list", "--expand", "status"])["orders"]["status"]["type"], "sink");
    assert_eq!(kc(&["list", "--state", "RUNNING"]), json!(["orders"]));
    assert_eq!(kc(&["get", "orders"])["tasks"], json!([{ "connector": "orders", "task": 0 }]));
    let config = kc(&["config", "orders"]);
    assert_eq!(config["connector.class"], "foldline.SqliteSinkConnector");
    assert_eq!(kc(&["status", "orders"])["connector"]["state"], "RUNNING");
    assert_eq!(kc(&["list-tasks", "orders"])[0]["id"]["task"], 0);
    assert_eq!(kc(&["task-status", "orders", "0"])["state"], "RUNNING");
    assert_eq!(kc(&["list-topics", "orders"])["orders"]["topics"], json!(["orders"]));
    kc(&["reset-topics", "orders"]);
    let plugins = kc(&["list-plugins"]);
    assert!(plugins.to_string().contains("foldline.SqliteSinkConnector"), "{plugins}");
    // Its `validate-config` sends a text that holds the JSON, which Kafka Connect does not take either.
    kc(&["restart-task", "orders", "0"]);
    case.runs().await;
    assert!(kc(&["restart", "orders", "--include-tasks"])["connector"].is_object());
    kc(&["pause", "orders"]);
    kc(&["resume", "orders"]);
    case.runs().await;
    case.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_for_java_works() {
    let case = Case::start().await;
    let said = client(&case, &["java", &case.daemon.url(""), TOKEN, "orders"]);
    for word in ["version", "task status", "valid", "invalid", "create", "update", "delete"] {
        assert!(said.lines().any(|line| line == word), "no {word} in {said}");
    }
    case.daemon.stop().await;
}

/// One request of a client, the code that it takes for success, and what it reads of the answer.
type Recorded = (&'static str, &'static str, Option<&'static str>, u16, &'static [&'static str]);

/// What kafbat's UI (by its contract), AKHQ (by sourcelab's client) and kcctl (by its interface) send for what each shows and
/// offers. The JSON pointers are what they cannot do without.
const RECORDED: &[(&str, &[Recorded])] = &[
    (
        "kafbat",
        &[
            ("GET", "/connectors?search=", None, 200, &["/0"]),
            (
                "GET",
                "/connectors?expand=info&expand=status",
                None,
                200,
                &["/orders/info/name", "/orders/status/name"],
            ),
            (
                "GET",
                "/connectors/orders",
                None,
                200,
                &["/config/connector.class", "/tasks/0/task", "/type"],
            ),
            (
                "GET",
                "/connectors/orders/status",
                None,
                200,
                &["/connector/state", "/connector/worker_id", "/tasks/0/id"],
            ),
            ("GET", "/connectors/orders/config", None, 200, &["/name", "/topics"]),
            ("GET", "/connectors/orders/tasks", None, 200, &["/0/id/connector", "/0/config/name"]),
            ("GET", "/connectors/orders/tasks/0/status", None, 200, &["/state", "/worker_id"]),
            ("GET", "/connectors/orders/topics", None, 200, &["/orders/topics/0"]),
            ("GET", "/connector-plugins", None, 200, &["/0/class"]),
            (
                "PUT",
                "/connector-plugins/SqliteSink/config/validate",
                Some("{\"name\": \"a\"}"),
                200,
                &["/configs/0/definition/order"],
            ),
            ("PUT", "/connectors/orders/pause", None, 202, &[]),
            ("PUT", "/connectors/orders/resume", None, 202, &[]),
            (
                "POST",
                "/connectors/orders/restart?includeTasks=true&onlyFailed=false",
                None,
                202,
                &["/connector/state"],
            ),
            ("POST", "/connectors/orders/tasks/0/restart", None, 204, &[]),
        ],
    ),
    (
        "AKHQ",
        &[
            ("GET", "/", None, 200, &["/version", "/commit", "/kafka_cluster_id"]),
            (
                "GET",
                "/connectors?expand=info&expand=status",
                None,
                200,
                &["/orders/info/config/connector.class", "/orders/status/tasks/0/worker_id"],
            ),
            ("GET", "/connectors/orders", None, 200, &["/config/connector.class"]),
            ("GET", "/connectors/orders/status", None, 200, &["/name", "/type"]),
            ("GET", "/connectors/orders/config", None, 200, &["/connector.class"]),
            ("GET", "/connector-plugins", None, 200, &["/0/class", "/0/type", "/0/version"]),
            ("PUT", "/connectors/orders/pause", None, 202, &[]),
            ("PUT", "/connectors/orders/resume", None, 202, &[]),
            ("POST", "/connectors/orders/restart", None, 204, &[]),
            ("POST", "/connectors/orders/tasks/0/restart", None, 204, &[]),
        ],
    ),
    (
        "kcctl",
        &[
            ("GET", "/", None, 200, &["/version", "/commit", "/kafka_cluster_id"]),
            (
                "GET",
                "/connector-plugins?connectorsOnly=false",
                None,
                200,
                &["/0/class", "/0/version"],
            ),
            (
                "GET",
                "/connector-plugins/SqliteSink/config",
                None,
                200,
                &["/0/name", "/0/documentation"],
            ),
            ("GET", "/connectors/", None, 200, &["/0"]),
            (
                "GET",
                "/connectors?expand=info&expand=status",
                None,
                200,
                &["/orders/status/connector/state"],
            ),
            ("GET", "/connectors/orders/topics", None, 200, &["/orders/topics"]),
            ("GET", "/connectors/orders/tasks", None, 200, &["/0/id/task"]),
            ("GET", "/connectors/orders/offsets", None, 200, &["/offsets/0/offset/kafka_offset"]),
            ("GET", "/admin/loggers", None, 200, &["/root/level"]),
            ("PUT", "/admin/loggers/foldline", Some("{\"level\": \"INFO\"}"), 200, &["/0"]),
            ("GET", "/admin/loggers/foldline", None, 200, &["/level"]),
            (
                "POST",
                "/connectors/orders/restart?includeTasks=true&onlyFailed=true",
                None,
                202,
                &["/tasks"],
            ),
            ("POST", "/connectors/orders/restart", None, 204, &[]),
            ("PUT", "/connectors/orders/stop", None, 204, &[]),
            ("PUT", "/connectors/orders/resume", None, 202, &[]),
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_uis_and_kcctl_send_is_answered() {
    let case = Case::start().await;
    for (client, requests) in RECORDED {
        for (method, path, body, expected, reads) in *requests {
            let body: Option<Value> = body.map(|body| serde_json::from_str(body).unwrap());
            // What was just restarted has no task for a moment, which clients see too: they look again.
            wait::until(&format!("{client}: {method} {path}"), SOON, async || {
                let (status, text) = case.ask(method, path, body.as_ref()).await;
                if status != *expected {
                    return Err(format!("{status}, not {expected}: {text}"));
                }
                let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
                let missing = reads.iter().find(|pointer| answer.pointer(pointer).is_none());
                missing.map_or(Ok(()), |pointer| Err(format!("no {pointer} in {text}")))
            })
            .await;
            // What was restarted has tasks again; what is paused or stopped goes on by a later request.
            let rests = ["/pause", "/stop"].iter().any(|verb| path.ends_with(verb));
            if *method != "GET" && !rests {
                case.runs().await;
            }
        }
    }
    case.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_is_what_the_worker_does() {
    let case = Case::start().await;
    let settings = case.setup.path("schemathesis.toml");
    std::fs::write(&settings, SCHEMATHESIS).unwrap();
    let said = client(
        &case,
        &[
            "schemathesis",
            "--config-file",
            settings.to_str().unwrap(),
            "run",
            &case.daemon.url("/openapi.json"),
            "--header",
            &format!("Authorization: Bearer {TOKEN}"),
            // What is refused hangs on the connector too: offsets of one that folds, a rebuild that is none.
            "--exclude-checks",
            "positive_data_acceptance",
        ],
    );
    assert!(said.contains("Tested: ") && !said.contains("FAILURES"), "{said}");
    case.daemon.stop().await;
}

/// All that it sends comes from one seed, and names what is there.
const SCHEMATHESIS: &str = r#"
seed = 7
workers = 1
color = false
generation.max-examples = 20
phases.stateful.enabled = false

[parameters]
"path.name" = "orders"
"path.logger" = "foldline::task"
"path.plugin" = "SqliteSink"
"path.file" = "page.css"
"#;
