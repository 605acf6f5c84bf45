//! State topics: what a reader of committed records sees is the plain fold, whatever happens to the workers.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::support::daemon::{ABORTED, Daemon};
use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, kafka_sink, kafka_source, orders_projection, users_projection,
};
use crate::support::stores::{ORDERS, USERS, topic_rows};
use crate::support::use_servers;
use crate::support::wait::{self, LATER};
use foldline_api::failpoint;

const NAMES: [&str; 2] = ["orders", "users"];
/// Moments of a flush, and which time they are passed. The transaction is open, and its records are with the brokers, when
/// `before_positions` is passed the second time.
const DEATHS: [&str; 7] = [
    "after_fold:2",
    "before_write:3",
    "before_positions:2",
    "before_positions:6",
    "after_write:2",
    "before_commit:1",
    "after_commit:1",
];

/// Orders, whose keys come from one partition each, and users, whose keys come from all of them.
struct States {
    setup: Setup,
    topic: String,
    orders: String,
    users: String,
}

impl States {
    /// With members of its groups that are missed after so many milliseconds.
    async fn new(session: u32) -> Self {
        let setup = Setup::new();
        let topic = setup.name("events");
        let (orders, users) = (setup.name("orders"), setup.name("users"));
        kafka::create(&topic, PARTITIONS).await;
        let session = format!("\"session.timeout.ms\" = {session}");
        let soon = format!("{session}\n\"heartbeat.interval.ms\" = 300\n");
        let source = kafka_source()
            .replace("\"session.timeout.ms\" = 6000", &session)
            .replace("\"heartbeat.interval.ms\" = 1000", "\"heartbeat.interval.ms\" = 300");
        setup.config(&[
            source,
            orders_projection(&topic, "", ""),
            users_projection(&topic),
            format!("{}[sinks.states.properties]\n{soon}", kafka_sink()),
            connector("orders", "orders", "states", &orders, "batch = { rows = 200 }"),
            connector("users", "users", "states", &users, "batch = { rows = 200 }"),
        ]);
        States { setup, topic, orders, users }
    }

    async fn goes_on(&self, daemon: &Daemon) {
        for name in NAMES {
            daemon.metric(name, "records_consumed_total", |consumed| consumed > 0).await;
        }
    }

    async fn assert_exact(&self, daemon: &Daemon) {
        for name in NAMES {
            daemon.caught_up(name, &self.topic).await;
        }
        let oracle = Oracle::of_topic(&self.topic);
        assert_same("orders", &oracle.orders(), &topic_rows(&self.orders, ORDERS));
        assert_same("users", &oracle.users(), &topic_rows(&self.users, USERS));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_deaths_in_a_transaction_leave_the_plain_fold_in_the_state_topics() {
    let _servers = use_servers().await;
    let states = States::new(2_000).await;
    let orders = Orders { seed: 5, orders: 400, users: 20 };
    kafka::produce(&states.topic, orders.events(0..2_000));
    let load = Background::start(&states.topic, orders, 2_000);
    for armed in DEATHS {
        let mut worker = states.setup.spawn_with(&[(failpoint::VARIABLE, armed)]);
        let what = format!("the worker dies at {armed}");
        let ended = wait::until(&what, LATER, async || {
            worker.ended().map(|status| status.signal()).ok_or("it lives".to_owned())
        });
        assert_eq!(ended.await, Some(ABORTED), "at {armed}");
    }
    for _ in 0..3 {
        let worker = states.setup.start().await;
        states.goes_on(&worker).await;
        tokio::time::sleep(Duration::from_millis(500).mul_f64(rand::random())).await;
        worker.kill9();
    }
    load.stop();
    let worker = states.setup.start().await;
    states.assert_exact(&worker).await;
    for name in NAMES {
        let printed = worker.cli(&["verify", name]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        assert!(printed.out.contains("0 differ"), "{printed:?}");
    }
    worker.stop().await;
    states.setup.clean().await;
}

/// The worker that runs a connector, and the one that stands by.
async fn runs<'a>(name: &str, workers: [&'a Daemon; 2]) -> (&'a Daemon, &'a Daemon) {
    wait::until(&format!("one of two workers runs {name}"), LATER, async || {
        let mut held = Vec::new();
        for worker in workers {
            held.push(worker.metrics().await.of(name, "assigned_partitions"));
        }
        match held[..] {
            [4, 0] => Ok((workers[0], workers[1])),
            [0, 4] => Ok((workers[1], workers[0])),
            _ => Err(format!("{held:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_writes_a_state_topic_and_another_takes_over() {
    let _servers = use_servers().await;
    let states = States::new(6_000).await;
    assert_eq!(PARTITIONS, 4);
    let orders = Orders { seed: 6, orders: 400, users: 20 };
    kafka::produce(&states.topic, orders.events(0..2_000));
    let load = Background::start(&states.topic, orders, 2_000);
    let first = states.setup.start().await;
    states.goes_on(&first).await;
    let second = states.setup.start().await;
    let (leader, other) = runs("orders", [&first, &second]).await;
    wait::until("the other stands by", LATER, async || {
        let status = other.status("orders").await;
        let shown = &status["connector"];
        let stands_by = shown["trace"].as_str().is_some_and(|trace| trace.contains("stands by"));
        if stands_by && shown["state"] == "UNASSIGNED" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    // A command reaches the one that runs, whoever takes it.
    let printed = other.cli(&["pause", "orders"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    leader.state("orders", "PAUSED").await;
    assert_eq!(other.cli(&["resume", "orders"]).code, Some(0));
    leader.state("orders", "RUNNING").await;
    first.kill9();
    runs_alone(&second).await;
    load.stop();
    states.assert_exact(&second).await;
    second.stop().await;
    states.setup.clean().await;
}

async fn runs_alone(worker: &Daemon) {
    for name in NAMES {
        worker.metric(name, "assigned_partitions", |held| held == 4).await;
    }
}
