//! Opening, binding, extending and rebuilding.

use foldline_api::ErrorClass;
use foldline_api::column::ColumnType;
use foldline_api::kind::Sink;
use foldline_api::lifecycle::LogNow;
use foldline_api::model::{Column, Model};
use foldline_api::record::Position;
use foldline_api::sink::{Beginning, DesiredState, OnChange, Target, Version, Waits, Written};
use foldline_api::value::Value;
use foldline_sink_postgres::PostgresTarget;

use crate::support::{
    Fixture, Held, claim, column, dump, key, load, model, orders, part, put, row, url,
};

async fn refused(target: &PostgresTarget) -> String {
    let error = target.open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    error.to_string()
}

async fn refused_table(ddl: &str) -> String {
    let fixture = Fixture::new().await;
    fixture.run("CREATE SCHEMA {s}").await;
    fixture.run(ddl).await;
    refused(&fixture.target(fixture.spec(orders()))).await
}

#[tokio::test]
async fn open_creates_and_comes_back() {
    let fixture = Fixture::new().await;
    let mut model = orders();
    model.columns[1].index = true;
    model.columns[1].default = Value::Int(7);
    model.indexes = vec![vec![2, 1]];
    let target = fixture.target(fixture.spec(model));
    let opened = target.open().await.unwrap();
    assert_eq!((opened.generation, opened.positions.len()), (1, 0));
    assert!(opened.notices[0].starts_with("created"), "{:?}", opened.notices);
    let again = target.open().await.unwrap();
    assert_eq!((again.generation, again.notices.len()), (1, 0), "{:?}", again.notices);
    assert_eq!(
        fixture.text("SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = '{s}'").await,
        "orders_amount_idx orders_note_amount_idx orders_pkey"
    );
    fixture.run("INSERT INTO {s}.orders (id) VALUES (1)").await;
    assert_eq!(fixture.text("SELECT amount FROM {s}.orders").await, "7");
}

#[tokio::test]
async fn racing_opens_agree() {
    let fixture = Fixture::new().await;
    let targets: Vec<_> = (0..6).map(|_| fixture.target(fixture.spec(orders()))).collect();
    let opened = futures_util::future::join_all(targets.iter().map(|target| target.open())).await;
    let created = opened.iter().filter(|o| o.as_ref().unwrap().notices.len() == 1).count();
    assert_eq!(created, 1);
    assert!(opened.iter().all(|o| o.as_ref().unwrap().generation == 1));
}

#[tokio::test]
async fn two_spellings_of_one_table_meet_in_the_books() {
    let fixture = Fixture::new().await;
    let name = format!("{}_t", fixture.schema);
    let mut spec = fixture.spec(orders());
    spec.target.clone_from(&name);
    fixture.target(spec.clone()).open().await.unwrap();
    spec.target = format!("public.{name}");
    assert_eq!(fixture.target(spec.clone()).open().await.unwrap().notices.len(), 0);
    spec.connector = "another".into();
    let text = refused(&fixture.target(spec)).await;
    fixture.run(&format!("DROP TABLE public.{name}")).await;
    assert!(text.contains("belongs to connector"), "{text}");
}

#[tokio::test]
async fn an_empty_table_that_fits_is_adopted() {
    let fixture = Fixture::new().await;
    fixture
        .run(
            "CREATE SCHEMA {s}; CREATE TABLE {s}.orders (note varchar(9), mine text, id bigint NOT NULL, \
             amount bigint, made timestamptz NOT NULL DEFAULT now(), UNIQUE (id))",
        )
        .await;
    let mut held = fixture.writer(orders()).await;
    held.durable(vec![put(row(1, 2, "a"), Version::Absent)]).await;
    assert_eq!(held.load(1).await.0, Some(row(1, 2, "a")));
}

#[tokio::test]
async fn a_partitioned_table_is_adopted_and_checked_by_version() {
    let fixture = Fixture::new().await;
    fixture
        .run(
            "CREATE SCHEMA {s}; CREATE TABLE {s}.orders (id bigint PRIMARY KEY, amount bigint, note \
             varchar(9)) PARTITION BY HASH (id); CREATE TABLE {s}.p0 PARTITION OF {s}.orders FOR VALUES \
             WITH (MODULUS 2, REMAINDER 0); CREATE TABLE {s}.p1 PARTITION OF {s}.orders FOR VALUES WITH \
             (MODULUS 2, REMAINDER 1)",
        )
        .await;
    let mut held = fixture.writer(orders()).await;
    let rows =
        |amount, version| (0..20).map(|id| put(row(id, amount, "a"), version)).collect::<Vec<_>>();
    let version = held.durable(rows(1, Version::Absent)).await;
    assert_eq!(held.load(7).await, (Some(row(7, 1, "a")), version));
    let next = held.durable(rows(2, version)).await;
    assert!(matches!(held.write(rows(3, version)).await, Written::Conflict { .. }));
    assert_eq!(held.load(7).await, (Some(row(7, 2, "a")), next));
}

#[tokio::test]
async fn tables_that_do_not_fit_are_refused_with_the_reason() {
    for (ddl, part) in [
        ("CREATE VIEW {s}.orders AS SELECT 1 AS id", "is a view"),
        ("CREATE MATERIALIZED VIEW {s}.orders AS SELECT 1 AS id", "is a materialized view"),
        ("CREATE SEQUENCE {s}.orders", "is no table"),
        ("CREATE UNLOGGED TABLE {s}.orders (id bigint PRIMARY KEY)", "UNLOGGED"),
        (
            "CREATE TABLE {s}.orders (id bigint PRIMARY KEY, amount text)",
            "column \"amount\" is text and must be bigint; column \"note\" (varchar(9)) is missing",
        ),
        (
            "CREATE TABLE {s}.orders (id bigint, amount bigint, note varchar(9))",
            "there is no primary key or immediate unique constraint on exactly (\"id\")",
        ),
        (
            "CREATE TABLE {s}.orders (id bigint, amount bigint, note varchar(9), PRIMARY KEY (id, amount))",
            "there is no primary key",
        ),
        (
            "CREATE TABLE {s}.orders (id bigint UNIQUE DEFERRABLE, amount bigint, note varchar(9))",
            "there is no primary key",
        ),
        (
            "CREATE TABLE {s}.orders (id bigint PRIMARY KEY, amount bigint, note varchar(9), x int NOT NULL)",
            "column \"x\" is NOT NULL without a default",
        ),
        (
            "CREATE TABLE {s}.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount bigint, \
             note varchar(9))",
            "column \"id\" is generated by the server",
        ),
        (
            "CREATE TABLE {s}.orders (id bigint PRIMARY KEY, amount bigint, note varchar(9)); CREATE TABLE \
             {s}.child () INHERITS ({s}.orders)",
            "others inherit",
        ),
        (
            "CREATE TABLE {s}.orders (id bigint PRIMARY KEY, amount bigint, note varchar(9)); CREATE RULE r \
             AS ON INSERT TO {s}.orders DO ALSO NOTHING",
            "rewrite rules",
        ),
        (
            "CREATE TABLE {s}.orders (id bigint PRIMARY KEY, amount bigint, note varchar(9)); INSERT INTO \
             {s}.orders VALUES (1)",
            "already has rows",
        ),
    ] {
        let text = refused_table(ddl).await;
        assert!(text.contains(part), "{ddl}: {text}");
    }
}

#[tokio::test]
async fn a_nondeterministic_key_is_refused() {
    let fixture = Fixture::new().await;
    fixture
        .run(
            "CREATE SCHEMA {s}; CREATE COLLATION {s}.loose (provider = icu, locale = 'und-u-ks-level2', \
             deterministic = false); CREATE TABLE {s}.orders (id text COLLATE {s}.loose PRIMARY KEY)",
        )
        .await;
    let text = refused(&fixture.target(fixture.spec(model(&[("id", "text")])))).await;
    assert!(text.contains("nondeterministic collation"), "{text}");
}

#[tokio::test]
async fn a_missing_table_without_auto_create_is_refused() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.spec(orders());
    spec.auto_create = false;
    assert!(refused(&fixture.target(spec)).await.contains("auto_create"));
}

#[tokio::test]
async fn a_renamed_connector_is_refused() {
    let fixture = Fixture::new().await;
    fixture.target(fixture.spec(orders())).open().await.unwrap();
    for change in 0..3 {
        let mut spec = fixture.spec(orders());
        match change {
            0 => spec.connector = "another".into(),
            1 => spec.group = "another".into(),
            _ => spec.log = "another".into(),
        }
        let text = refused(&fixture.target(spec)).await;
        assert!(text.contains("another"), "{text}");
    }
}

#[tokio::test]
async fn a_dropped_table_is_built_anew_and_its_writer_is_fenced() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    target.begin(1, &[Beginning { position: Position(5), ..claim(0) }, claim(1)]).await.unwrap();
    let mut held = Held::new(&target, 1, orders()).await;
    assert_eq!(held.lease.position, Position(5));
    held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;

    fixture.run("DROP TABLE {s}.orders").await;
    assert!(matches!(
        held.write(vec![put(row(2, 1, "a"), Version::Absent)]).await,
        Written::Fenced
    ));
    assert_eq!(held.writer.load(&[key(1)]).await.unwrap_err().class(), ErrorClass::Fenced);
    // Another table of the same name is not the one that the positions belong to.
    fixture
        .run("CREATE TABLE {s}.orders (id bigint PRIMARY KEY, amount bigint, note varchar(9))")
        .await;
    assert!(matches!(
        held.write(vec![put(row(2, 1, "a"), Version::Absent)]).await,
        Written::Fenced
    ));
    assert_eq!(held.writer.acquire(&[claim(0)]).await.unwrap_err().class(), ErrorClass::Fenced);
    assert_eq!(fixture.text("SELECT count(*) FROM {s}.orders").await, "0");

    for generation in [2, 3] {
        let opened = target.open().await.unwrap();
        assert_eq!(opened.generation, generation, "{:?}", opened.notices);
        assert_eq!(opened.positions.len(), 2);
        assert_eq!(opened.positions[0].position, Position(5));
        assert_eq!(opened.positions[0].epoch, 0);
        fixture.run("DROP TABLE {s}.orders").await;
    }
}

#[tokio::test]
async fn a_replaced_table_with_rows_is_refused() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    fixture
        .run(
            "DROP TABLE {s}.orders; CREATE TABLE {s}.orders (id bigint PRIMARY KEY, amount bigint, note \
             varchar(9)); INSERT INTO {s}.orders VALUES (1)",
        )
        .await;
    assert!(refused(&target).await.contains("was replaced"));
}

#[tokio::test]
async fn a_table_that_was_restored_without_its_books_is_not_taken_over() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    held.durable(vec![put(row(1, 2, "a"), Version::Absent)]).await;
    let (table, books) =
        (format!("{}.orders", fixture.schema), format!("{}_books", fixture.schema));
    let old = dump(&url(), &["-t", &table]);
    held.durable(vec![put(row(2, 3, "b"), Version::Absent)]).await;
    fixture.run("DROP TABLE {s}.orders").await;
    load(&url(), &old);
    let target = fixture.target(fixture.spec(orders()));
    assert!(refused(&target).await.contains("was replaced"));
    let error = target.adopt(&LogNow::default()).await.unwrap_err();
    assert!(error.to_string().contains("its books were there before it"), "{error}");

    // Both, of one dump, in one transaction.
    let all = dump(&url(), &["-t", &table, "-t", &format!("{books}.*")]);
    let drop = format!("DROP TABLE {table}; DROP SCHEMA {books} CASCADE; CREATE SCHEMA {books};");
    load(&url(), &[b"BEGIN;".to_vec(), drop.into_bytes(), all, b"COMMIT;".to_vec()].concat());
    let adopted = target.adopt(&LogNow::default()).await.unwrap();
    assert!(adopted.copied && adopted.has_rows, "{adopted:?}");
    target.open().await.unwrap();
    // A grant and a trigger that come after the rows do not make the table younger.
    let all = dump(&url(), &["-t", &table, "-t", &format!("{books}.*")]);
    fixture
        .run(&format!("DROP TABLE {table}; DROP SCHEMA {books} CASCADE; CREATE SCHEMA {books}"))
        .await;
    load(&url(), &all);
    fixture
        .run(
            "GRANT SELECT ON {s}.orders TO PUBLIC; CREATE TRIGGER z BEFORE UPDATE ON {s}.orders FOR EACH ROW EXECUTE \
             FUNCTION suppress_redundant_updates_trigger(); ANALYZE {s}.orders",
        )
        .await;
    assert!(target.adopt(&LogNow::default()).await.unwrap().copied);
}

fn wider() -> Model {
    let mut model = orders();
    model.columns.push(Column { default: Value::Int(3), ..column("changes", "bigint") });
    model
}

#[tokio::test]
async fn a_changed_projection_is_refused_extended_or_rebuilt() {
    let fixture = Fixture::new().await;
    let old = fixture.target(fixture.spec(orders()));
    old.open().await.unwrap();
    let mut held = Held::new(&old, 1, orders()).await;
    held.durable(vec![put(row(1, 2, "a"), Version::Absent)]).await;

    let mut spec = fixture.spec(wider());
    assert!(refused(&fixture.target(spec.clone())).await.contains("column changes is new"));

    spec.on_change = OnChange::Continue;
    let new = fixture.target(spec.clone());
    let opened = new.open().await.unwrap();
    assert_eq!((opened.generation, opened.positions[0].position), (1, Position(1)));
    // The old projection's task is fenced, cannot come back, and its deploy is refused.
    assert!(matches!(held.write(vec![]).await, Written::Fenced));
    assert_eq!(held.writer.acquire(&[claim(0)]).await.unwrap_err().class(), ErrorClass::Fenced);
    assert!(refused(&old).await.contains("superseded"));
    // Rows that were there have what a new row holds.
    let held = Held::new(&new, 1, wider()).await;
    assert_eq!(held.load(1).await.0.unwrap().get(3), &Value::Int(3));
    assert_eq!(
        fixture.text("SELECT string_agg(topic || partition || '@' || position, ' ') FROM {s}_books.extensions").await,
        "es-orders0@1"
    );

    // A type that changes, a key that changes, a column that goes: only a rebuild.
    let mut other = model(&[("id", "text"), ("day", "date"), ("amount", "numeric(12,2)")]);
    other.key = vec![0, 1];
    let mut spec = fixture.spec(other.clone());
    spec.on_change = OnChange::Continue;
    assert!(refused(&fixture.target(spec.clone())).await.contains("key columns changed"));
    spec.on_change = OnChange::Rebuild;
    let newest = fixture.target(spec);
    let waiting = newest.open().await.unwrap();
    assert!(waiting.generation == 1 && waiting.waits.is_some(), "what stands there serves on");
    assert_eq!(newest.rebuild(1, None).await.unwrap(), 2);
    let opened = newest.open().await.unwrap();
    assert_eq!((opened.generation, opened.positions[0].position), (2, Position(0)));
    assert!(matches!(held.writer.write(&held.flush(vec![])).await.unwrap(), Written::Fenced));
    let held = Held::new(&newest, 2, other).await;
    assert!(held.writer.acquire(&[claim(0)]).await.unwrap().empty);
    assert_eq!(newest.open().await.unwrap().generation, 2);
    let waits = new.open().await.unwrap().waits;
    assert!(matches!(waits, Some(Waits::Replaced(why)) if why.contains("superseded")));
    // An explicit rebuild takes the table back.
    assert_eq!(new.rebuild(2, None).await.unwrap(), 3);
    assert_eq!(new.open().await.unwrap().generation, 3);
}

#[tokio::test]
async fn a_rebuild_fences_the_old_generation() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let mut held = Held::new(&target, 1, orders()).await;
    held.durable(vec![put(row(1, 2, "a"), Version::Absent)]).await;

    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    // Another worker that asked for the same rebuild gets its result.
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    let status = target.status().await.unwrap();
    assert_eq!((status.generation, status.positions[0].position), (2, Position(0)));
    assert_eq!(fixture.text("SELECT count(*) FROM {s}.orders").await, "0");

    assert!(matches!(
        held.write(vec![put(row(2, 2, "z"), Version::Absent)]).await,
        Written::Fenced
    ));
    assert_eq!(held.writer.acquire(&[claim(0)]).await.unwrap_err().class(), ErrorClass::Fenced);
    assert!(held.writer.positions(&[part(0)]).await.unwrap().is_empty());
    assert_eq!(target.begin(1, &[claim(3)]).await.unwrap_err().class(), ErrorClass::Fenced);
    assert_eq!(fixture.text("SELECT count(*) FROM {s}.orders").await, "0");

    // New beginnings where given, the fold's own where not.
    let given = [Beginning { position: Position(9), ..claim(1) }];
    assert_eq!(target.rebuild(2, Some(&given)).await.unwrap(), 3);
    let positions = target.status().await.unwrap().positions;
    let found: Vec<_> = positions.iter().map(|p| (p.partition.partition, p.position.0)).collect();
    assert_eq!(found, [(0, 0), (1, 9)]);
}

#[tokio::test]
async fn a_table_that_a_foreign_key_refers_to_is_emptied_too() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    fixture.run("CREATE TABLE {s}.lines (order_id bigint REFERENCES {s}.orders)").await;
    let mut held = Held::new(&target, 1, orders()).await;
    held.durable(vec![put(row(1, 2, "a"), Version::Absent)]).await;
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    assert_eq!(fixture.text("SELECT count(*) FROM {s}.orders").await, "0");
}

#[tokio::test]
async fn beginnings_and_desired_state_are_kept() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    assert_eq!(target.status().await.unwrap_err().class(), ErrorClass::Config);
    target.open().await.unwrap();
    target.begin(1, &[Beginning { position: Position(4), ..claim(0) }]).await.unwrap();
    target.begin(1, &[Beginning { position: Position(8), ..claim(0) }, claim(1)]).await.unwrap();
    target.set_desired(DesiredState::Paused).await.unwrap();
    let opened = fixture.target(fixture.spec(orders())).open().await.unwrap();
    assert_eq!(opened.desired, DesiredState::Paused);
    let found: Vec<_> = opened
        .positions
        .iter()
        .map(|p| (p.partition.partition, p.beginning.0, p.position.0))
        .collect();
    assert_eq!(found, [(0, 4, 4), (1, 0, 0)]);
    assert_eq!(opened.positions[0].topic_id.as_deref(), Some("topic-1"));
}

#[tokio::test]
async fn a_role_without_rights_is_told_so_and_needs_none_that_are_not_used() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let role = format!("{}_role", fixture.schema);
    fixture
        .run(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'secret-{role}'; GRANT USAGE ON SCHEMA {{s}}, {{s}}_books TO \
             {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {{s}}, {{s}}_books TO {role}"
        ))
        .await;
    let mut config = fixture.config();
    let (_, host) = config.url.rsplit_once('@').unwrap();
    config.url = format!("postgres://{role}:secret-{role}@{host}");
    let least = PostgresTarget::new(config.clone(), fixture.spec(orders())).unwrap();
    let opened = least.open().await;
    let mut held = Held::new(&least, 1, orders()).await;
    let version = held.durable(vec![put(row(1, 2, "a"), Version::Absent)]).await;
    let rebuilt = least.rebuild(1, None).await;
    let mut spec = fixture.spec(orders());
    spec.target = format!("{}.others", fixture.schema);
    let denied = PostgresTarget::new(config.clone(), spec).unwrap().open().await.unwrap_err();
    drop((held, least));
    fixture.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    assert_eq!(opened.unwrap().generation, 1);
    assert_ne!(version, Version::Absent);
    assert_eq!(rebuilt.unwrap(), 2, "a DELETE where TRUNCATE is not granted");
    assert_eq!((denied.class(), denied.code()), (ErrorClass::Retriable, Some("42501")));
    assert!(!denied.to_string().contains("secret"));
}

#[tokio::test]
async fn a_wrong_password_is_retried_and_not_printed() {
    let fixture = Fixture::new().await;
    let mut config = fixture.config();
    let (_, host) = config.url.rsplit_once('@').unwrap();
    config.url = format!("postgres://foldline:hunter2@{host}");
    let target = PostgresTarget::new(config.clone(), fixture.spec(orders())).unwrap();
    let error = target.open().await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Retriable, Some("28P01")));
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn the_plan_is_what_open_makes() {
    let fixture = Fixture::new().await;
    let mut model = wider();
    model.columns.push(column("tags", "text[]"));
    model.columns[4].default = Value::list(vec![Value::text("it's \\ \"x\"")]);
    assert!(matches!(model.columns[4].ty, ColumnType::Array(_)));
    let spec = fixture.spec(model);
    let plan = fixture.config().plan(&spec);
    let ddl: Vec<_> = plan.iter().filter(|sql| sql.starts_with("CREATE")).cloned().collect();
    fixture.run(&ddl.join(";\n")).await;
    // The plan's table is adopted: it fits.
    let opened = fixture.target(spec).open().await.unwrap();
    assert!(opened.notices[0].starts_with("adopted"), "{:?}", opened.notices);
    fixture.run("INSERT INTO {s}.orders (id) VALUES (1)").await;
    assert_eq!(fixture.text("SELECT tags[1] FROM {s}.orders").await, "it's \\ \"x\"");
}
