//! What is seen from outside: metrics, probes, Kafka Connect's REST, logs, the dashboard.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::json;

use crate::support::kafka::{self, Background, Raw};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::servers;
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
};
use crate::support::use_servers;
use crate::support::wait::{self, SOON};

/// The contract's list.
const METRICS: [&str; 34] = [
    "config_last_reload_success_timestamp_seconds",
    "config_last_reload_successful",
    "records_consumed_total",
    "events_applied_total",
    "events_filtered_total",
    "events_dead_lettered_total",
    "events_parked_total",
    "events_replayed_total",
    "events_skipped_total",
    "rows_written_total",
    "retries_total",
    "errors_total",
    "fenced_total",
    "rebalances_total",
    "offset_commits_total",
    "offset_commit_failures_total",
    "connector_state",
    "consumer_lag",
    "consumer_lag_seconds",
    "lookup_lag_seconds",
    "assigned_partitions",
    "parked_keys",
    "inflight_events",
    "rebuild_progress_ratio",
    "rebuild_eta_seconds",
    "generation",
    "expiry_horizon_timestamp_seconds",
    "expiry_after_seconds",
    "rows_expired_total",
    "flush_duration_seconds",
    "batch_rows",
    "end_to_end_latency_seconds",
    "records_fetched_total",
    "events_abandoned_total",
];

/// Found in no log, no status and no metric.
const CANARY: &str = "canary-0d9f3b";

async fn two_connectors() -> (Setup, String) {
    connectors(&[]).await
}

/// Two connectors, and what else there is beside them.
async fn connectors(more: &[String]) -> (Setup, String) {
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    kafka::produce(&topic, Orders::new(300).events(0..3_000));
    let mut config = vec![
        kafka_source(),
        orders_projection(&topic, "", ""),
        postgres_sink(),
        elasticsearch_sink(),
        connector("orders", "orders", "warehouse", &table, ""),
        connector("docs", "orders", "search", &table, ""),
    ];
    config.extend(more.iter().map(|part| part.replace("ORDERS", &topic)));
    setup.config(&config);
    (setup, topic)
}

/// Orders counted by the hour, whose rows expire.
fn by_the_hour() -> [String; 2] {
    let projection = r#"[projections.hours]
topics = ["ORDERS"]
key    = { hour = "window(timestamp, duration('1h'))" }
expire = { field = "hour", after = "400d" }
fields = { hour = "timestamptz", orders = { type = "bigint", default = 0 } }
on     = [{ add = { orders = 1 } }]
"#;
    [projection.to_owned(), connector("hours", "hours", "warehouse", "hours_ORDERS", "")]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_those_of_the_contract_and_the_dashboard_shows_them_all() {
    let _servers = use_servers().await;
    let (setup, topic) = connectors(&by_the_hour()).await;
    let daemon = setup.start().await;
    for name in ["orders", "docs", "hours"] {
        daemon.caught_up(name, &topic).await;
        daemon.idle(name, PARTITIONS as u64).await.assert_balanced(name);
    }
    let found = daemon.metrics().await.families();
    let wanted: BTreeSet<String> = METRICS.map(str::to_owned).into();
    let missing: Vec<_> = wanted.difference(&found).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    let known_beside = ["build_info"];
    let more: Vec<_> =
        found.difference(&wanted).filter(|n| !known_beside.contains(&n.as_str())).collect();
    assert!(more.is_empty(), "not in the contract: {more:?}");

    let load = Background::start(&topic, Orders::new(300), 3_000);
    let script = servers::repository().join("tests/dashboards");
    let output = Command::new(script).arg(daemon.url("/metrics")).output().unwrap();
    load.stop();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_answers_as_kafka_connect_does() {
    let _servers = use_servers().await;
    let (setup, topic) = two_connectors().await;
    let daemon = setup.start().await;
    for name in ["orders", "docs"] {
        daemon.caught_up(name, &topic).await;
    }
    assert_eq!(daemon.get("/livez").await.0, 200);
    assert_eq!(daemon.get("/readyz").await.0, 200);

    let (status, root) = daemon.get("/").await;
    assert_eq!(status, 200);
    for key in ["version", "commit", "kafka_cluster_id"] {
        assert!(root[key].is_string(), "{key} in {root}");
    }
    let (status, mut names) = daemon.get("/connectors").await;
    names.as_array_mut().unwrap().sort_by_key(ToString::to_string);
    assert_eq!((status, names), (200, json!(["docs", "orders"])));

    let status = daemon.status("orders").await;
    assert_eq!(status["name"], "orders");
    assert_eq!(status["type"], "sink");
    assert_eq!(status["connector"]["state"], "RUNNING");
    assert!(status["connector"]["worker_id"].is_string(), "{status}");
    let task = &status["tasks"][0];
    assert_eq!(task["id"], 0, "{status}");
    assert_eq!(task["state"], "RUNNING", "{status}");
    assert!(task["worker_id"].is_string(), "{status}");

    for path in ["/connectors/nobody/status", "/nowhere"] {
        let (status, error) = daemon.get(path).await;
        assert_eq!(status, 404);
        assert_eq!(error["error_code"], 404, "{error}");
        assert!(error["message"].is_string(), "{error}");
    }
    let (status, error) = daemon.request("POST", "/connectors").await.unwrap();
    assert_eq!((status, &error["error_code"]), (405, &json!(405)), "{error}");
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_payload_and_no_secret_is_in_logs_status_or_metrics() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    let bad = format!("{{\"id\":1,\"amount\":\"{CANARY}\"}}");
    let broken = format!("{{\"id\":1,\"{CANARY}");
    kafka::produce_raw(&topic, &[Raw::value(0, CANARY, bad), Raw::value(0, CANARY, broken)]);
    // Nothing listens there, so that each attempt fails with the URL at hand.
    let unreachable = format!(
        "[sinks.warehouse]\ntype = \"postgres\"\nurl = \"postgres://user:{CANARY}@127.0.0.1:1/db\"\n"
    );
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        unreachable,
        elasticsearch_sink(),
        connector("orders", "orders", "warehouse", &table, ""),
        connector("docs", "orders", "search", &table, ""),
    ]);
    let daemon = setup.start().await;
    daemon.metric("orders", "retries_total", |retries| retries > 1).await;
    daemon.metric("docs", "events_dead_lettered_total", |letters| letters == 2).await;
    for path in [
        "/connectors/orders/status",
        "/connectors/orders/config",
        "/connectors?expand=info&expand=status",
    ] {
        let (_, body) = daemon.get(path).await;
        assert!(!body.to_string().contains(CANARY), "{path}: {body}");
    }
    let shown = daemon.cli(&["status"]);
    assert!(!format!("{shown:?}").contains(CANARY), "{shown:?}");
    wait::until("the failed attempts are logged", SOON, async || {
        if setup.log().contains("WARN") { Ok(()) } else { Err(setup.log()) }
    })
    .await;
    daemon.stop().await;
    assert!(!setup.log().contains(CANARY), "{}", setup.log());
    setup.clean().await;
}

/// A key's path that no event has, as whoever writes a first config does.
#[tokio::test(flavor = "multi_thread")]
async fn where_every_record_is_bad_the_status_and_the_log_say_so() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, 1).await;
    let events: Vec<Raw> =
        (0..40).map(|n| Raw::value(0, "k", format!("{{\"shipmentId\":{n}}}"))).collect();
    kafka::produce_raw(&topic, &events);
    let projection = format!(
        "[projections.sums]\ntopics = [{topic:?}]\nkey = {{ id = \"event.shipmentID\" }}\n\
         fields = {{ id = \"bigint\" }}\non = [{{ merge = {{}} }}]\n"
    );
    let nowhere = format!(
        "[projections.nothing]\ntopics = \"^{topic}-nothing.*\"\nkey = {{ id = \"event.id\" }}\n\
         fields = {{ id = \"bigint\" }}\non = [{{ merge = {{}} }}]\n"
    );
    setup.config(&[
        kafka_source(),
        projection,
        nowhere,
        postgres_sink(),
        connector("sums", "sums", "warehouse", &table, ""),
        connector("nothing", "nothing", "warehouse", &setup.name("nothing"), ""),
    ]);
    let daemon = setup.start().await;
    daemon.metric("sums", "events_dead_lettered_total", |letters| letters == 40).await;
    let status = daemon.status("sums").await;
    let bad = &status["bad_records"];
    assert_eq!((&bad["count"], &bad["all"]), (&json!(40), &json!(true)), "{status}");
    assert_eq!((&bad["last"]["topic"], &bad["last"]["offset"]), (&json!(topic), &json!(39)));
    let reason = bad["last"]["reason"].as_str().unwrap();
    assert!(reason.contains("null"), "{reason}");
    let shown = daemon.cli(&["status"]);
    assert!(shown.out.contains("sums: 40 bad records") && shown.out.contains("ALL"), "{shown:?}");
    assert_eq!(shown.code, Some(0));
    let lines = setup.log();
    let loud: Vec<&str> =
        lines.lines().filter(|line| line.contains("every record is bad")).collect();
    assert!(loud.len() == 1 && loud[0].contains("ERROR"), "{loud:?}");
    for part in ["\"connector\":\"sums\"", &topic, "\"partition\":0", "\"offset\":"] {
        assert!(loud[0].contains(part), "{part} in {loud:?}");
    }
    wait::until("a regex that matches nothing says so", SOON, async || {
        let status = daemon.status("nothing").await;
        let why = status["connector"]["trace"].as_str().unwrap_or_default();
        let said = why.contains("no topic matches") && status["connector"]["state"] == "UNASSIGNED";
        if said && status["lag"].is_null() { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    daemon.stop().await;
    let last = setup.log().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("\"stopped\""), "{last}");
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_refused_a_connector_is_not_ready_and_says_where_it_stands() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let topic = setup.name("orders");
    kafka::create(&topic, 1).await;
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        // An authority that is not there: the connector cannot even be made.
        "[sinks.docs]\ntype = \"elasticsearch\"\nurls = [\"https://localhost:1\"]\nca = \"absent.pem\"\n"
            .to_owned(),
        "[connectors.orders]\nprojection = \"orders\"\nsink = \"docs\"\n".to_owned(),
    ]);
    let daemon = setup.start().await;
    let why = daemon.failure("orders").await;
    for part in ["absent.pem", ".toml:", ": connectors.orders"] {
        assert!(why.contains(part), "{part} in {why}");
    }
    let (status, said) = daemon.get("/readyz").await;
    assert_eq!((status, &said["message"]), (503, &json!("not running: orders")));
    assert_eq!(daemon.cli(&["status"]).code, Some(1));
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_reached_is_told_with_the_cause_and_a_way_out() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let kafka = servers::kafka();
    let login = "\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
                 \"sasl.username\" = \"u\"\n\"sasl.password\" = \"canary\"\n";
    let mistakes = [
        ("port", "127.0.0.1:1", "", "nothing listens at 127.0.0.1:1: correct host and port"),
        (
            "host",
            "no.such.host.invalid:9092",
            "",
            "the host of no.such.host.invalid:9092 is not known",
        ),
        ("tls", &kafka, "\"security.protocol\" = \"ssl\"\n", "speaks no TLS: use the port"),
        ("login", &kafka, login, "takes no login: use the port"),
    ];
    let mut parts = vec![orders_projection(&setup.name("orders"), "", ""), postgres_sink()];
    for (name, servers, properties, _) in mistakes {
        parts.push(format!(
            "[sources.{name}]\ntype = \"kafka\"\nbootstrap_servers = {servers:?}\n\
             [sources.{name}.properties]\n{properties}"
        ));
        let table = setup.name(name);
        parts.push(connector(name, "orders", "warehouse", &table, &format!("source = {name:?}")));
    }
    setup.config(&parts);
    let daemon = setup.start().await;
    for (name, _, _, words) in mistakes {
        wait::until(&format!("{name} says why"), wait::LATER, async || {
            let status = daemon.status(name).await;
            let error = status["last_error"].as_str().unwrap_or_default();
            let placed = status["last_error_since"].is_string() && !error.contains("canary");
            if error.contains(words) && placed { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    daemon.stop().await;
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_no_event_has_is_warned_of_by_name() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, 1).await;
    let events = (0..10_100).map(|n| Raw::value(0, "k", format!("{{\"id\":{},\"n\":1}}", n % 50)));
    kafka::produce_raw(&topic, &events.collect::<Vec<_>>());
    let projection = format!(
        "[projections.sums]\ntopics = [{topic:?}]\nkey = {{ id = \"event.id\" }}\n\
         fields = {{ id = \"bigint\", n = \"bigint\", a = \"text\" }}\n\
         on = [{{ add = {{ n = \"event.n\" }}, set = {{ a = \"event.ship.citty\" }} }}]\n"
    );
    setup.config(&[
        kafka_source(),
        projection,
        postgres_sink(),
        connector("sums", "sums", "warehouse", &table, ""),
    ]);
    let daemon = setup.start().await;
    daemon.caught_up("sums", &topic).await;
    daemon.stop().await;
    let log = setup.log();
    let warned: Vec<&str> =
        log.lines().filter(|line| line.contains("check the spelling")).collect();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("had event.ship.citty:"), "{warned:?}");
    setup.clean().await;
}
