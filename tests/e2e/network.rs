//! The network between the worker and its servers fails: nothing is lost, nothing is folded twice, nobody is called.

use std::time::Duration;

use crate::support::ledger::{BOTH, INDEXES, Ledger, TABLES};
use crate::support::proxy::{Fault, Protocol, Proxy};
use crate::support::setup::{
    elasticsearch_sink, elasticsearch_sink_at, kafka_source, kafka_source_at, postgres_sink,
    postgres_sink_at,
};
use crate::support::{faults, servers, use_servers};

async fn to_kafka() -> Proxy {
    Proxy::start(Protocol::Kafka, &servers::kafka()).await
}

async fn to_postgres() -> (Proxy, String) {
    let mut url: url::Url = servers::postgres().parse().unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
    let proxy = Proxy::start(Protocol::Postgres, &server).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    (proxy, url.to_string())
}

async fn to_elasticsearch() -> (Proxy, String) {
    let server = servers::elasticsearch();
    let proxy = Proxy::start(Protocol::Http, server.trim_start_matches("http://")).await;
    let url = format!("http://{}", proxy.address);
    (proxy, url)
}

/// Every fault that is over at once, some times each; the worker goes on after each by itself.
async fn suffer(ledger: &Ledger, daemon: &crate::support::daemon::Daemon, proxy: &Proxy) {
    for _ in 0..faults(1) {
        for fault in [Fault::LoseReply, Fault::Truncate] {
            proxy.strike(fault, 3).await;
            ledger.goes_on(daemon).await;
        }
        let made = proxy.connections();
        proxy.cut();
        ledger.goes_on(daemon).await;
        assert!(proxy.connections() > made, "new connections were made");
        proxy.delay(Duration::from_millis(30));
        ledger.goes_on(daemon).await;
        proxy.delay(Duration::ZERO);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_postgres_is_cut_slow_and_loses_replies() {
    let _servers = use_servers().await;
    let (proxy, url) = to_postgres().await;
    let ledger = Ledger::new(&TABLES, &[kafka_source(), postgres_sink_at(&url)]).await;
    let daemon = ledger.started().await;
    suffer(&ledger, &daemon, &proxy).await;
    let scrape = daemon.metrics().await;
    let retries: u64 = TABLES.iter().map(|name| scrape.of(name, "retries_total")).sum();
    assert!(retries > 0, "what went wrong is counted");
    ledger.end(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_elasticsearch_is_cut_slow_and_loses_replies() {
    let _servers = use_servers().await;
    let (proxy, url) = to_elasticsearch().await;
    let ledger = Ledger::new(&INDEXES, &[kafka_source(), elasticsearch_sink_at(&url)]).await;
    let daemon = ledger.started().await;
    suffer(&ledger, &daemon, &proxy).await;
    let scrape = daemon.metrics().await;
    let retries: u64 = INDEXES.iter().map(|name| scrape.of(name, "retries_total")).sum();
    assert!(retries > 0, "what went wrong is counted");
    ledger.end(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_kafka_is_cut_slow_and_loses_replies() {
    let _servers = use_servers().await;
    let proxy = to_kafka().await;
    let parts =
        [kafka_source_at(&proxy.address.to_string()), postgres_sink(), elasticsearch_sink()];
    let ledger = Ledger::new(&BOTH, &parts).await;
    let daemon = ledger.started().await;
    suffer(&ledger, &daemon, &proxy).await;
    ledger.end(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: `just faults` runs it"]
async fn connections_that_went_silent_are_given_up_for_new_ones() {
    let _servers = use_servers().await;
    let (kafka, (postgres, database), (search, url)) =
        (to_kafka().await, to_postgres().await, to_elasticsearch().await);
    let parts = [
        // Else a silent broker is given up after a minute.
        kafka_source_at(&kafka.address.to_string()) + "\"socket.timeout.ms\" = 10000\n",
        postgres_sink_at(&database),
        elasticsearch_sink_at(&url),
    ];
    let ledger = Ledger::new(&BOTH, &parts).await;
    let daemon = ledger.started().await;
    let made = [&kafka, &postgres, &search].map(Proxy::connections);
    for proxy in [&kafka, &postgres, &search] {
        proxy.silence();
    }
    ledger.goes_on(&daemon).await;
    for (proxy, made) in [&kafka, &postgres, &search].into_iter().zip(made) {
        assert!(proxy.connections() > made, "a new connection was made");
    }
    ledger.end(daemon).await;
}
