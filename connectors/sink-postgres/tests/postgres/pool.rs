//! Few connections for many connectors.

use std::time::Duration;

use foldline_api::sink::{Target, Version};
use foldline_sink_postgres::{PostgresConfig, PostgresTarget};
use futures_util::future::join_all;

use crate::support::{Fixture, Held, orders, put, row, wait_for};

fn target(fixture: &Fixture, connections: usize, table: &str) -> PostgresTarget {
    let config = PostgresConfig { connections, ..fixture.config() };
    let mut spec = fixture.spec(orders());
    spec.target = format!("{}.{table}", fixture.schema);
    spec.connector = format!("{}_{table}", fixture.schema);
    PostgresTarget::new(config, spec).unwrap()
}

/// Backends of the fixture's connectors; what is idle has the name of none.
async fn backends(fixture: &Fixture, before: &str) -> i64 {
    let all = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'foldline%' AND query LIKE";
    let text = fixture.text(&format!("{all} '%{before}%'")).await;
    text.parse().unwrap()
}

#[tokio::test]
async fn everybody_progresses_under_the_bound() {
    let fixture = Fixture::new().await;
    let role = format!("{}_few", fixture.schema);
    // One more than the pool's: a backend lives on for a moment when its connection is closed.
    fixture
        .run(&format!(
            "CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'p'; ALTER ROLE {role} CONNECTION LIMIT 5; CREATE SCHEMA {{s}}"
        ))
        .await;
    fixture.run(&format!("ALTER ROLE {role} NOSUPERUSER; GRANT CREATE ON DATABASE foldline TO {role}; GRANT ALL ON SCHEMA {{s}} TO {role}")).await;
    let mut config = PostgresConfig { connections: 4, ..fixture.config() };
    let (_, host) = config.url.rsplit_once('@').unwrap();
    config.url = format!("postgres://{role}:p@{host}");
    let fixture = &fixture;
    let one = async |n: usize| {
        let mut spec = fixture.spec(orders());
        spec.target = format!("{}.t{n}", fixture.schema);
        spec.connector = format!("c{n}");
        let target = PostgresTarget::new(config.clone(), spec).unwrap();
        let generation = target.open().await.unwrap().generation;
        let mut held = Held::new(&target, generation, orders()).await;
        for id in 0..20 {
            held.durable(vec![put(row(id, 1, "a"), Version::Absent)]).await;
            let (loaded, live) = tokio::join!(held.load(id), target.live());
            assert_eq!(loaded.0, Some(row(id, 1, "a")));
            live.unwrap();
            // Held while its reader writes, as `verify --repair` does.
            let mut snapshot = target.snapshot().await.unwrap();
            held.durable(vec![put(row(100 + id, 1, "a"), Version::Absent)]).await;
            assert_eq!(
                snapshot.next(1_000).await.unwrap().len(),
                usize::try_from(id).unwrap() * 2 + 1
            );
        }
    };
    let all = join_all((0..8).map(one));
    tokio::time::timeout(Duration::from_secs(90), all).await.expect("somebody waits for ever");
    fixture.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn who_reads_long_leaves_connections_for_flushes() {
    let fixture = Fixture::new().await;
    let target = target(&fixture, 4, "orders");
    let generation = target.open().await.unwrap().generation;
    let mut held = Held::new(&target, generation, orders()).await;
    let first = target.snapshot().await.unwrap();
    let second = tokio::time::timeout(Duration::from_millis(500), target.snapshot()).await;
    assert!(second.is_err(), "four connections are for one snapshot");
    held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    drop(first);
    target.snapshot().await.unwrap();
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let fixture = Fixture::new().await;
    let target = target(&fixture, 8, "orders");
    target.open().await.unwrap();
    join_all((0..6).map(|_| async { target.live().await.unwrap() })).await;
    // The last statement of a connection is what tells them.
    let schema = &fixture.schema;
    assert!((1..=6).contains(&backends(&fixture, schema).await));
    let pass = async |seconds: u64| {
        tokio::time::pause();
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
        tokio::time::resume();
    };
    pass(19).await;
    assert!((1..=6).contains(&backends(&fixture, schema).await), "they are used again within 20 s");
    pass(11).await;
    let none = format!(
        "SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'foldline%' AND query LIKE \
         '%{schema}%')"
    );
    wait_for(&fixture.sql, &none).await;
    target.live().await.unwrap();
}
