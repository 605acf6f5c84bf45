//! Rebuilds beside the live target: nobody who reads notices, whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::kafka::{self, Background};
use crate::support::oracle::{Oracle, assert_same};
use crate::support::orders::{Orders, PARTITIONS};
use crate::support::setup::{
    Setup, connector, elasticsearch_sink, kafka_source, orders_projection, postgres_sink,
};
use crate::support::stores::{
    ORDERS, elasticsearch, elasticsearch_rows, postgres, postgres_rows, query,
};
use crate::support::use_servers;
use crate::support::wait::{self, LATER};

const EVENTS: u64 = 30_000;
const BOTH: [&str; 2] = ["orders", "docs"];

struct Case {
    setup: Setup,
    topic: String,
    table: String,
    orders: Orders,
    /// Further lines of `[worker]`.
    worker: String,
}

/// A topic with events, to be folded into a table and an index.
async fn case(more: &str) -> Case {
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, PARTITIONS).await;
    let orders = Orders::new(2_000);
    kafka::produce(&topic, orders.events(0..EVENTS));
    let case = Case { setup, topic, table, orders, worker: String::new() };
    case.configure("", "", more);
    case
}

impl Case {
    fn configure(&self, fields: &str, set: &str, more: &str) {
        self.setup.config(&[
            self.worker.clone(),
            kafka_source(),
            orders_projection(&self.topic, fields, set),
            postgres_sink(),
            elasticsearch_sink(),
            connector("orders", "orders", "warehouse", &self.table, more),
            connector("docs", "orders", "search", &self.table, more),
        ]);
    }

    async fn assert_exact(&self, daemon: &Daemon) {
        for name in BOTH {
            daemon.caught_up(name, &self.topic).await;
        }
        let expected = Oracle::of_topic(&self.topic).orders();
        assert_same("PostgreSQL", &expected, &postgres_rows(&self.table, ORDERS).await);
        assert_same("Elasticsearch", &expected, &elasticsearch_rows(&self.table, ORDERS).await);
    }
}

fn rebuild(daemon: &Daemon, connector: &str, how: &[&str]) {
    let printed = daemon.cli(&[&["rebuild", connector], how].concat());
    assert_eq!(printed.code, Some(0), "{printed:?}");
}

/// Waits until no rebuild is under way and the generation fits.
async fn settled(daemon: &Daemon, connector: &str, fits: impl Fn(u64) -> bool) -> u64 {
    wait::until(&format!("{connector} is rebuilt"), LATER, async || {
        let path = format!("/connectors/{connector}/status");
        let (_, status) = daemon.request("GET", &path).await.map_err(|e| e.to_string())?;
        let generation = status["generation"].as_u64().unwrap_or(0);
        if status["rebuild"].is_null() && fits(generation) {
            Ok(generation)
        } else {
            Err(status.to_string())
        }
    })
    .await
}

/// Readers in a loop. Orders are never deleted and their counters only rise, so that each answer may
/// only grow: an empty, a mixed or an older state shows.
struct Readers {
    stop: Arc<AtomicBool>,
    table: tokio::task::JoinHandle<u64>,
    index: tokio::task::JoinHandle<u64>,
}

impl Readers {
    fn start(table: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (one, two) = (Arc::clone(&stop), Arc::clone(&stop));
        let (of_table, of_index) = (table.to_owned(), table.to_owned());
        Readers {
            stop,
            table: tokio::spawn(async move { read_table(&of_table, &one).await }),
            index: tokio::spawn(async move { read_index(&of_index, &two).await }),
        }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (table, index) = (self.table.await.unwrap(), self.index.await.unwrap());
        assert!(table > 20 && index > 20, "the readers read {table} and {index} times");
    }
}

async fn read_table(table: &str, stop: &AtomicBool) -> u64 {
    let client = postgres().await;
    let sql = format!("select count(*), coalesce(sum(changes), 0)::bigint from {table}");
    let prepared = client.prepare(&sql).await.unwrap();
    let (mut last, mut reads) = ((0, 0), 0);
    while !stop.load(Ordering::Relaxed) {
        // Prepared before and not.
        let row = if reads % 2 == 0 {
            client.query_one(&prepared, &[]).await
        } else {
            client.query_one(&sql, &[]).await
        };
        let row = row.unwrap_or_else(|error| panic!("a reader of {table} failed: {error:?}"));
        let now: (i64, i64) = (row.get(0), row.get(1));
        assert!(now.0 >= last.0 && now.1 >= last.1, "{table} went back from {last:?} to {now:?}");
        (last, reads) = (now, reads + 1);
    }
    reads
}

async fn read_index(index: &str, stop: &AtomicBool) -> u64 {
    let search = json!({ "size": 0, "track_total_hits": true,
                         "aggs": { "changes": { "sum": { "field": "changes" } } } });
    let (mut last, mut reads) = ((0.0, 0.0), 0);
    while !stop.load(Ordering::Relaxed) {
        let (status, answer) =
            elasticsearch("POST", &format!("{index}/_search"), Some(search.clone())).await;
        assert_eq!(status, 200, "a reader of {index} failed: {answer}");
        let number = |at: &Value| at.as_f64().unwrap_or_else(|| panic!("{answer}"));
        let now = (
            number(&answer["hits"]["total"]["value"]),
            number(&answer["aggregations"]["changes"]["value"]),
        );
        if now.0 < last.0 || now.1 < last.1 {
            let state = state_of(index, &search).await;
            panic!("{index} went back from {last:?} to {now:?}; {state}");
        }
        (last, reads) = (now, reads + 1);
    }
    reads
}

/// What tells a search that saw less from an index that has less.
async fn state_of(index: &str, search: &Value) -> String {
    let (_, pointed) = elasticsearch("GET", &format!("_alias/{index}"), None).await;
    let (_, again) = elasticsearch("POST", &format!("{index}/_search"), Some(search.clone())).await;
    let (_, refreshed) = elasticsearch("POST", &format!("{index}/_refresh"), None).await;
    let (_, all) = elasticsearch("POST", &format!("{index}/_search"), Some(search.clone())).await;
    format!(
        "it is {pointed}, at {:?}; again {}; refreshed {refreshed}: {}",
        std::time::SystemTime::now(),
        again["aggregations"],
        all["aggregations"]
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_notice_nothing_of_a_rebuild_under_live_events() {
    let _servers = use_servers().await;
    let case = case("").await;
    let daemon = case.setup.start().await;
    case.assert_exact(&daemon).await;
    // Edited by hand: only a rebuild brings it back.
    query(&format!("update {} set amount = -1 where id % 7 = 0", case.table)).await;
    let live = Background::start(&case.topic, case.orders, EVENTS);
    let readers = Readers::start(&case.table);
    for name in BOTH {
        rebuild(&daemon, name, &["--wait"]);
        assert_eq!(settled(&daemon, name, |generation| generation == 2).await, 2);
    }
    live.stop();
    case.assert_exact(&daemon).await;
    readers.stop().await;
    for name in BOTH {
        daemon.idle(name, PARTITIONS as u64).await.assert_balanced(name);
    }
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_users_put_on_a_table_survives_its_rebuild() {
    let _servers = use_servers().await;
    let case = case("").await;
    let daemon = case.setup.start().await;
    case.assert_exact(&daemon).await;
    let t = &case.table;
    let objects = format!(
        "create index {t}_by_user on {t} (user_id) where user_id is not null; create view {t}_view as select id, \
         changes from {t} where changes > 3; create view {t}_view2 as select count(*) as n from {t}_view; grant \
         select on {t} to public; grant select on {t}_view to public; comment on table {t} is 'the orders'; \
         comment on column {t}.amount is 'how many'; create table {t}_notes (id bigint references {t} (id)); insert \
         into {t}_notes select min(id) from {t}; alter table {t} add constraint {t}_positive check (changes > 0); \
         create function {t}_seen() returns trigger language plpgsql as 'begin return null; end'; create trigger \
         {t}_watch after insert on {t} for each row execute function {t}_seen(); alter table {t} add column total \
         numeric generated always as (amount * price) stored"
    );
    let client = postgres().await;
    client.batch_execute(&objects).await.unwrap();
    let seen = format!(
        "select (select string_agg(replace(indexdef, tablename, 't'), ';' order by indexname) from pg_indexes where \
         tablename = '{t}'), obj_description('{t}'::regclass), col_description('{t}'::regclass, 4), \
         has_table_privilege('public', '{t}', 'select')::text, (select string_agg(pg_get_constraintdef(oid) || \
         convalidated, ';' order by conname) from pg_constraint where '{t}'::regclass in (conrelid, confrelid)), \
         (select string_agg(pg_get_triggerdef(oid), ';' order by tgname) from pg_trigger where tgrelid = \
         '{t}'::regclass and not tgisinternal), (select relacl::text from pg_class where oid = '{t}_view'::regclass), \
         (select sum(total) is not null from {t})::text, (select n from {t}_view2)::text"
    );
    let before = query(&seen).await;
    rebuild(&daemon, "orders", &["--wait"]);
    settled(&daemon, "orders", |generation| generation == 2).await;
    assert_eq!(query(&seen).await, before);
    let reads = query(&format!(
        "select distinct c.relname from pg_depend d join pg_rewrite r on r.oid = d.objid join pg_class c on c.oid = \
         d.refobjid where r.ev_class = '{t}_view'::regclass and c.relkind = 'r'"
    ))
    .await;
    assert_eq!(reads, [[Some(t.clone())]], "the view reads the table that is live");
    case.assert_exact(&daemon).await;

    // What cannot be carried is refused by name, and nothing is begun.
    client
        .batch_execute(&format!("create materialized view {t}_mv as select * from {t}"))
        .await
        .unwrap();
    let printed = daemon.cli(&["rebuild", "orders"]);
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert!(format!("{printed:?}").contains(&format!("{t}_mv")), "{printed:?}");
    let drop = format!(
        "drop materialized view {t}_mv; drop view {t}_view2, {t}_view; drop table {t}_notes; drop table {t} \
         cascade; drop table {t}__g1; drop function {t}_seen"
    );
    daemon.stop().await;
    client.batch_execute(&drop).await.unwrap();
    case.setup.clean().await;
}

/// What is left of generations beside the live one, anywhere.
async fn leftovers(case: &Case) -> Vec<String> {
    let mut left = Vec::new();
    let like = format!("%{}%", case.setup.id);
    for sql in [
        format!("select relname from pg_class where relname like '{like}\\_\\_g%'"),
        format!("select role || generation from foldline.generations where target like '{like}'"),
        format!(
            "select 'position ' || positions.generation from foldline.positions join foldline.targets using (target) where \
             target like '{like}' and positions.generation <> targets.generation"
        ),
    ] {
        left.extend(query(&sql).await.into_iter().filter_map(|row| row[0].clone()));
    }
    let (_, found) =
        elasticsearch("GET", &format!("{}-g*?expand_wildcards=all", case.table), None).await;
    let indexes = found.as_object().map(|all| all.keys().cloned().collect::<Vec<_>>());
    left.extend(indexes.unwrap_or_default().into_iter().filter(|name| !name.ends_with("-g1")));
    for name in BOTH {
        let group = format!("{}.rebuild", case.setup.group(name));
        if !["none", "Dead", "Empty"].contains(&kafka::group_state(&group).as_str()) {
            left.push(group);
        }
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_rebuild_leaves_nothing_behind() {
    let _servers = use_servers().await;
    let case = case("").await;
    let daemon = case.setup.start().await;
    case.assert_exact(&daemon).await;
    let live = Background::start(&case.topic, case.orders, EVENTS);
    for name in BOTH {
        rebuild(&daemon, name, &[]);
        rebuild(&daemon, name, &["--cancel"]);
        assert_eq!(settled(&daemon, name, |_| true).await, 1, "cancelled before the swap");
    }
    // Not only at its first moment: a snapshot from before the load keeps the swap waiting.
    let reader = postgres().await;
    let snapshot =
        format!("begin isolation level repeatable read; select count(*) from {}", case.table);
    reader.batch_execute(&snapshot).await.unwrap();
    rebuild(&daemon, "orders", &[]);
    wait::until("the swap waits for the snapshot", LATER, async || {
        let status = daemon.status("orders").await;
        let waiting = status["rebuild"]["waiting"].as_str().unwrap_or_default();
        if waiting.contains("snapshot") { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    rebuild(&daemon, "orders", &["--cancel"]);
    assert_eq!(settled(&daemon, "orders", |_| true).await, 1, "cancelled before the swap");
    reader.batch_execute("commit").await.unwrap();
    live.stop();
    case.assert_exact(&daemon).await;
    wait::until("nothing is left", wait::SOON, async || {
        let left = leftovers(&case).await;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_brings_the_last_generation_back_and_it_catches_up() {
    let _servers = use_servers().await;
    let case = case("keep_generations = 2").await;
    let daemon = case.setup.start().await;
    case.assert_exact(&daemon).await;
    let refused = daemon.cli(&["rebuild", "orders", "--rollback"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for name in BOTH {
        rebuild(&daemon, name, &["--wait"]);
        settled(&daemon, name, |generation| generation == 2).await;
    }
    let flushes = query(&format!("select count(distinct xmin::text) from {}", case.table)).await;
    assert_eq!(flushes, [[Some("1".to_owned())]], "each key was written once, in one flush");
    kafka::produce(&case.topic, case.orders.events(EVENTS..EVENTS + 5_000));
    case.assert_exact(&daemon).await;
    for live in [1, 2] {
        for name in BOTH {
            rebuild(&daemon, name, &["--rollback"]);
            settled(&daemon, name, |generation| generation == live).await;
            daemon.idle(name, PARTITIONS as u64).await;
        }
        case.assert_exact(&daemon).await;
    }
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_outlives_ten_kills_at_random_moments() {
    let _servers = use_servers().await;
    let case = case("keep_generations = 0").await;
    let daemon = case.setup.start().await;
    case.assert_exact(&daemon).await;
    let live = Background::start(&case.topic, case.orders, EVENTS);
    let readers = Readers::start(&case.table);
    let (mut daemon, mut hits) = (daemon, [0, 0]);
    for _ in 0..60 {
        if hits.iter().all(|hits| *hits >= 10) {
            break;
        }
        for name in BOTH {
            let begun = wait::until("a rebuild is under way", LATER, async || {
                let path = format!("/connectors/{name}/rebuild");
                match daemon.request("POST", &path).await {
                    Ok((200, _)) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
            begun.await;
        }
        // The moment of the kill is what is tried, not a wait for anything.
        // Up to the session timeout of the member killed last, nobody folds.
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..9_000))).await;
        for (hits, name) in hits.iter_mut().zip(BOTH) {
            *hits += u32::from(!daemon.status(name).await["rebuild"].is_null());
        }
        daemon.kill9();
        daemon = case.setup.start().await;
    }
    assert!(hits.iter().all(|hits| *hits >= 10), "kills that met a rebuild: {hits:?}");
    for name in BOTH {
        settled(&daemon, name, |generation| generation > 1).await;
    }
    live.stop();
    case.assert_exact(&daemon).await;
    readers.stop().await;
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_of_a_table_that_is_larger_than_its_memory_writes_what_it_has_and_goes_on() {
    let _servers = use_servers().await;
    let mut case = case("").await;
    case.orders = Orders::new(40_000);
    kafka::produce(&case.topic, case.orders.events(EVENTS..EVENTS + 80_000));
    // Two connectors, half of each share for states: a quarter of it, where a row takes some 300 bytes.
    case.worker = "memory = \"16MiB\"".to_owned();
    case.configure("", "", "");
    let daemon = case.setup.start().await;
    case.assert_exact(&daemon).await;
    for name in BOTH {
        rebuild(&daemon, name, &["--wait"]);
        settled(&daemon, name, |generation| generation == 2).await;
    }
    let flushes = query(&format!("select count(distinct xmin::text) from {}", case.table)).await;
    let flushes: u32 = flushes[0][0].as_ref().unwrap().parse().unwrap();
    assert!(flushes > 1, "the states did not fit into the memory");
    case.assert_exact(&daemon).await;
    daemon.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_a_rebuild_and_agree_on_the_swap() {
    let _servers = use_servers().await;
    let case = case("tasks_max = 2").await;
    let one = case.setup.start().await;
    case.assert_exact(&one).await;
    let two = case.setup.start().await;
    let live = Background::start(&case.topic, case.orders, EVENTS);
    let readers = Readers::start(&case.table);
    for name in BOTH {
        rebuild(&one, name, &[]);
        for worker in [&one, &two] {
            settled(worker, name, |generation| generation == 2).await;
        }
    }
    live.stop();
    case.assert_exact(&one).await;
    readers.stop().await;
    two.stop().await;
    case.assert_exact(&one).await;
    one.stop().await;
    case.setup.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_projection_is_rebuilt_while_the_old_one_serves() {
    let _servers = use_servers().await;
    let case = case("").await;
    let daemon = case.setup.start().await;
    case.assert_exact(&daemon).await;
    daemon.stop().await;
    let field = "kept = \"bigint\"";
    case.configure(field, ", kept = \"event.id\"", "");
    let daemon = case.setup.start().await;
    for (name, store) in BOTH.iter().zip(["column \"kept\" (bigint) is missing", "no field kept"]) {
        let why = daemon.failure(name).await;
        assert!(why.contains("kept") && why.contains("foldline rebuild"), "{why}");
        let plan = daemon.offline(&["plan", name, "-c", "."]);
        for part in ["column kept is new", store] {
            assert!(plan.out.contains(part), "{part}: {plan:?}");
        }
    }
    daemon.stop().await;

    case.configure(field, ", kept = \"event.id\"", "on_change = \"rebuild\"");
    let readers = Readers::start(&case.table);
    let daemon = case.setup.start().await;
    for name in BOTH {
        settled(&daemon, name, |generation| generation == 2).await;
    }
    kafka::produce(&case.topic, case.orders.events(EVENTS..EVENTS + 2_000));
    case.assert_exact(&daemon).await;
    readers.stop().await;
    let wrong =
        query(&format!("select count(*) from {} where kept is distinct from id", case.table)).await;
    assert_eq!(wrong, [[Some("0".to_owned())]]);
    daemon.stop().await;

    // The superseded config does not come back by a deploy.
    case.configure("", "", "on_change = \"rebuild\"");
    let daemon = case.setup.start().await;
    for name in BOTH {
        let why = daemon.waits(name).await;
        assert!(why.contains("superseded") && why.contains("--rollback"), "{why}");
    }
    daemon.stop().await;
    case.setup.clean().await;
}
