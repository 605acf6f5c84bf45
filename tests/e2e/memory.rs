//! What a worker takes at most where rows are larger than their events: live, in a rebuild, and for a retry of parked events.

use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Raw};
use crate::support::orders::PARTITIONS;
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, postgres_sink, sqlite_sink,
};
use crate::support::use_servers;

const MIB: u64 = 1 << 20;
/// Of the worker under test.
const MEMORY: u64 = 64 * MIB;
/// Beside it: the program, and what allocators keep.
const BESIDE: u64 = 40 * MIB;
/// A batch as librdkafka unpacks it: a record or two, uncompressed.
const BATCH: u64 = 2 * MIB;
/// Rows of about so many bytes, more than twice what the worker has.
const ROWS: u32 = 300;
const ROW: usize = 500_000;

fn projection(topic: &str) -> String {
    format!(
        "[projections.large]\ntopics = [{topic:?}]\nkey = {{ id = \"event.id\" }}\n\
         fields = {{ id = \"bigint\", s = \"text\", n = {{ type = \"bigint\", default = 0 }} }}\n\
         [[projections.large.on]]\nmerge = {{ s = \"event.s\" }}\nadd = {{ n = \"event.n\" }}\n"
    )
}

/// Has the worker hold no more than it may since it began: a debug build's program is larger than the released one, so
/// that it counts by what it took before there was anything to do.
#[track_caller]
fn assert_bounded(daemon: &Daemon, idle: u64, memory: u64, what: &str) {
    let beside = if cfg!(debug_assertions) { BESIDE.max(idle + 16 * MIB) } else { BESIDE };
    let (peak, most) = (daemon.peak_memory(), memory + beside + BATCH);
    println!("{what}: {} MiB of {} MiB, {} MiB when idle", peak / MIB, most / MIB, idle / MIB);
    assert!(peak <= most, "{what}: {peak} bytes, and {most} are allowed");
}

async fn start(setup: &Setup) -> (Daemon, u64) {
    let daemon = setup.spawn_with(&[("FOLDLINE__WORKER__MEMORY", "64MiB")]);
    daemon.answers().await;
    let idle = daemon.peak_memory();
    (daemon, idle)
}

async fn stays_within_its_memory(sink: &str, kind: String) {
    let setup = Setup::new();
    let (topic, table) = (setup.name("large"), setup.name("large"));
    kafka::create(&topic, PARTITIONS).await;
    let park = "errors = { on_bad_record = \"park\" }";
    setup.config(&[
        kafka_source(),
        projection(&topic),
        kind,
        connector("large", "large", sink, &table, park),
    ]);
    let text = "x".repeat(ROW);
    let event = |id: u32, more: &str| {
        let partition = i32::try_from(id).unwrap() % PARTITIONS;
        Raw::value(partition, &id.to_string(), format!("{{\"id\":{id},{more}}}"))
    };
    let large = |id: u32| event(id, &format!("\"n\":1,\"s\":\"{id}{text}\""));
    for first in (0..ROWS).step_by(50) {
        kafka::produce_raw(&topic, &(first..first + 50).map(large).collect::<Vec<_>>());
    }
    let (daemon, idle) = start(&setup).await;
    daemon.caught_up("large", &topic).await;
    assert_bounded(&daemon, idle, MEMORY, &format!("{sink}, large events"));
    daemon.stop().await;

    // Of a few bytes each, on rows that are to be read.
    let (daemon, idle) = start(&setup).await;
    daemon.caught_up("large", &topic).await;
    kafka::produce_raw(&topic, &(0..ROWS).map(|id| event(id, "\"n\":1")).collect::<Vec<_>>());
    daemon.caught_up("large", &topic).await;
    assert_bounded(&daemon, idle, MEMORY, &format!("{sink}, tiny events on large rows"));

    // A key is set aside with what comes behind, and let go at once.
    kafka::produce_raw(&topic, &[event(7, "\"n\":\"many\"")]);
    let waiting: Vec<Raw> = (0..100).map(|_| large(7)).collect();
    waiting.chunks(50).for_each(|events| kafka::produce_raw(&topic, events));
    daemon.caught_up("large", &topic).await;
    let listed = daemon.cli(&["parked", "list", "large", "--json"]);
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let (id, events) = (&listed["parked"][0]["id"], &listed["parked"][0]["events"]);
    assert_eq!(*events, 101, "{listed}");
    let freed = daemon.cli(&["parked", "drop", "large", id.as_str().unwrap(), "--bad"]);
    assert_eq!(freed.code, Some(0), "{freed:?}");
    assert_bounded(&daemon, idle, MEMORY, &format!("{sink}, a retry of parked events"));
    daemon.stop().await;

    // Twice: a rebuild has as much again.
    let (daemon, idle) = start(&setup).await;
    daemon.caught_up("large", &topic).await;
    let rebuilt = daemon.cli(&["rebuild", "large", "--wait"]);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    daemon.metric("large", "generation", |generation| generation == 2).await;
    assert_bounded(&daemon, idle, MEMORY * 2, &format!("{sink}, a rebuild"));
    let verified = daemon.cli(&["verify", "large"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert_bounded(&daemon, idle, MEMORY * 2, &format!("{sink}, a verification"));
    assert!(daemon.terminate(Duration::from_secs(60)).await.success());
    setup.clean().await;
}

/// More than three times what the worker has.
const MANY: u32 = 200;
const MEGABYTE: usize = 1_000_000;

/// One record of a few hundred bytes on rows of a megabyte: it is bad before they are all there, live, in a rebuild and in a
/// verification, and others go on.
async fn one_record_stays_within_its_memory(sink: &str, kind: String) {
    let setup = Setup::new();
    let (topic, table) = (setup.name("many"), setup.name("many"));
    kafka::create(&topic, 1).await;
    let projection = format!(
        "[projections.many]\ntopics = [{topic:?}]\nkey = {{ id = \"event.id\" }}\n\
         fields = {{ id = \"bigint\", s = \"text\", n = {{ type = \"bigint\", default = 0 }} }}\n\
         [[projections.many.on]]\nfor_each = \"event.ids\"\nkey = {{ id = \"item\" }}\n\
         merge = {{ s = \"event.s\" }}\nadd = {{ n = 1 }}\n"
    );
    setup.config(&[kafka_source(), projection, kind, connector("many", "many", sink, &table, "")]);
    let on = |ids: std::ops::Range<u32>, more: &str| {
        let ids = ids.map(|id| id.to_string()).collect::<Vec<_>>().join(",");
        Raw::value(0, "k", format!("{{\"ids\":[{ids}]{more}}}"))
    };
    let text = "x".repeat(MEGABYTE);
    for first in (0..MANY).step_by(25) {
        let one = |id: u32| on(id..id + 1, &format!(",\"s\":\"{id}{text}\""));
        kafka::produce_raw(&topic, &(first..first + 25).map(one).collect::<Vec<_>>());
    }
    let (daemon, _) = start(&setup).await;
    daemon.caught_up("many", &topic).await;
    daemon.stop().await;

    let (daemon, idle) = start(&setup).await;
    daemon.caught_up("many", &topic).await;
    kafka::produce_raw(&topic, &[on(0..MANY, ""), on(0..20, ""), on(7..8, "")]);
    daemon.caught_up("many", &topic).await;
    daemon.metric("many", "events_dead_lettered_total", |letters| letters == 1).await;
    assert_bounded(&daemon, idle, MEMORY, &format!("{sink}, one record on {MANY} rows"));
    let listed = daemon.cli(&["letters", "list", "many"]);
    let told = "the 200 rows that the record touches take more than 32 MiB";
    assert!(listed.out.contains(told), "{listed:?}");
    for (id, times) in [(7, 3), (8, 2), (100, 1)] {
        let (_, row) = daemon.get(&format!("/connectors/many/rows/{id}")).await;
        assert!(row.to_string().contains(&format!("\"n\":{times}")), "row {id}");
    }
    let verified = daemon.cli(&["verify", "many"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let rebuilt = daemon.cli(&["rebuild", "many", "--wait"]);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    daemon.metric("many", "generation", |generation| generation == 2).await;
    let verified = daemon.cli(&["verify", "many"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert_bounded(&daemon, idle, MEMORY * 2, &format!("{sink}, a rebuild with such a record"));
    assert!(daemon.terminate(Duration::from_secs(60)).await.success());
    setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_on_large_rows_in_postgres_stays_within_the_workers_memory() {
    let _servers = use_servers().await;
    one_record_stays_within_its_memory("warehouse", postgres_sink()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_on_large_rows_in_elasticsearch_stays_within_the_workers_memory() {
    let _servers = use_servers().await;
    one_record_stays_within_its_memory("search", elasticsearch_sink()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_on_large_rows_in_sqlite_stays_within_the_workers_memory() {
    let _servers = use_servers().await;
    let directory = tempfile::tempdir().unwrap();
    let sink = sqlite_sink(&directory.path().join("large.db"));
    one_record_stays_within_its_memory("file", sink).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_rows_in_postgres_stay_within_the_workers_memory() {
    let _servers = use_servers().await;
    stays_within_its_memory("warehouse", postgres_sink()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_rows_in_elasticsearch_stay_within_the_workers_memory() {
    let _servers = use_servers().await;
    stays_within_its_memory("search", elasticsearch_sink()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_rows_in_sqlite_stay_within_the_workers_memory() {
    let _servers = use_servers().await;
    let directory = tempfile::tempdir().unwrap();
    stays_within_its_memory("file", sqlite_sink(&directory.path().join("large.db"))).await;
}
