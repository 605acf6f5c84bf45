//! A table that someone changes, and triggers of theirs, under a task that writes to it.

use std::time::Duration;

use foldline_api::ErrorClass;
use foldline_api::model::{Key, Row};
use foldline_api::parked::{Changes, ParkedEvent, Which};
use foldline_api::rebuild::By;
use foldline_api::record::Position;
use foldline_api::sink::{RowWrite, Target, Version, Versions, Written};
use foldline_api::value::Value;
use foldline_sink_postgres::{PostgresConfig, PostgresTarget};

use crate::support::{Fixture, Held, claim, key, model, orders, part, put, row, url};

async fn position(held: &Held) -> Position {
    held.writer.positions(&[part(0)]).await.unwrap()[0].position
}

#[tokio::test]
async fn a_change_of_the_columns_stops_the_writer_and_blames_no_record() {
    for (change, undo, named) in [
        (
            "ADD COLUMN region text NOT NULL",
            "DROP COLUMN region",
            "column \"region\" is NOT NULL without",
        ),
        (
            "ALTER COLUMN amount SET NOT NULL",
            "ALTER COLUMN amount DROP NOT NULL",
            "\"amount\" was made NOT NULL",
        ),
        (
            "ALTER COLUMN amount TYPE integer",
            "ALTER COLUMN amount TYPE bigint",
            "\"amount\" is integer",
        ),
        (
            "ALTER COLUMN amount TYPE text",
            "ALTER COLUMN amount TYPE bigint USING amount::bigint",
            "\"amount\" is text",
        ),
        ("ALTER COLUMN note TYPE varchar(3)", "ALTER COLUMN note TYPE varchar(9)", "varying(3)"),
        (
            "RENAME COLUMN note TO remark",
            "RENAME COLUMN remark TO note",
            "\"note\" (varchar(9)) is missing",
        ),
    ] {
        let fixture = Fixture::new().await;
        let mut held = fixture.writer(orders()).await;
        let alter =
            async |what: &str| fixture.run(&format!("ALTER TABLE {{s}}.orders {what}")).await;
        if change.contains("ADD COLUMN") {
            // It must be given from the second statement on only.
            alter("ADD COLUMN region text NOT NULL DEFAULT 'x'").await;
            held.durable(vec![put(row(7, 1, "z"), Version::Absent)]).await;
            alter("ALTER COLUMN region DROP DEFAULT").await;
        } else {
            held.durable(vec![put(row(7, 1, "z"), Version::Absent)]).await;
            alter(change).await;
        }
        let version = Version::At(0, 0);
        for write in [put(row(1, 1, "longer"), Version::Absent), put(row(7, 2, "y"), version)] {
            let error = held.writer.write(&held.flush(vec![write])).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Config, "{change}: {error}");
            assert!(error.message().contains(named), "{change}: {error}");
        }
        assert_eq!(position(&held).await, Position(1), "{change}");
        alter(undo).await;
        held.durable(vec![put(row(1, 1, "longer"), Version::Absent)]).await;
    }
}

#[tokio::test]
async fn a_check_or_an_index_or_a_column_of_its_own_default_is_no_change() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    for change in [
        "ALTER TABLE {s}.orders ADD CHECK (amount < 100)",
        "CREATE INDEX ON {s}.orders (note)",
        "ALTER TABLE {s}.orders ADD COLUMN mine text NOT NULL DEFAULT 'x'",
        "ALTER TABLE {s}.orders DROP COLUMN mine",
    ] {
        fixture.run(change).await;
        held.durable(vec![]).await;
    }
    let written = held.write(vec![put(row(1, 100, "a"), Version::Absent)]).await;
    assert!(matches!(written, Written::Rejected(_)), "{written:?}");
}

#[tokio::test]
async fn a_change_that_comes_between_fence_and_rows_waits_for_the_flush() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    // Whoever holds the row keeps the flush between its fence and its end.
    let version = held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    let other = crate::support::session().await;
    let sql = format!("BEGIN; SELECT 1 FROM {}.orders WHERE id = 1 FOR UPDATE", fixture.schema);
    other.batch_execute(&sql).await.unwrap();
    let flush = held.flush(vec![put(row(1, 2, "a"), version)]);
    let schema = fixture.schema.clone();
    let change = async {
        let ours = format!("application_name = 'foldline/{schema}' AND wait_event_type = 'Lock'");
        let waits = format!("SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE {ours})");
        crate::support::wait_for(&fixture.sql, &waits).await;
        let alter = tokio::spawn({
            let schema = schema.clone();
            async move {
                let alter = format!("ALTER TABLE {schema}.orders ALTER COLUMN note SET NOT NULL");
                crate::support::session().await.batch_execute(&alter).await.unwrap();
            }
        });
        let asked = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE query LIKE 'ALTER TABLE %' AND query LIKE \
                     '%{s}%' AND wait_event_type = 'Lock')";
        crate::support::wait_for(&fixture.sql, &asked.replace("{s}", &schema)).await;
        other.batch_execute("COMMIT").await.unwrap();
        // In a tuple: it is awaited only after the write.
        (alter,)
    };
    let (written, (alter,)) = tokio::join!(held.writer.write(&flush), change);
    assert!(matches!(written.unwrap(), Written::Durable(_)));
    held.lease.position = flush.advances[0].to;
    alter.await.unwrap();
    let error = held.writer.write(&held.flush(vec![])).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
}

#[tokio::test]
async fn a_trigger_that_gives_rows_another_key_is_named() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(model(&[("id", "text"), ("note", "text")])).await;
    fixture
        .run(
            "CREATE FUNCTION {s}.low() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.id := lower(NEW.id); RETURN \
             NEW; END'; CREATE TRIGGER low BEFORE INSERT OR UPDATE ON {s}.orders FOR EACH ROW EXECUTE FUNCTION \
             {s}.low()",
        )
        .await;
    let write = |id: &str| put(Row::new(vec![Value::text(id), Value::text("n")]), Version::Absent);
    let written = held.write(vec![write("bob")]).await;
    assert!(matches!(written, Written::Durable(Versions::Unknown)), "{written:?}");
    for id in ["Ann", "BOB"] {
        let written = held.write(vec![write(id)]).await;
        let Written::Rejected(error) = written else { panic!("{id}: {written:?}") };
        assert!(error.message().contains("(low)"), "{error}");
    }
    assert_eq!(fixture.text("SELECT string_agg(id, ',') FROM {s}.orders").await, "bob");
}

#[tokio::test]
async fn what_a_load_copies_goes_through_triggers_too() {
    let fixture = Fixture::new().await;
    fixture.writer(orders()).await;
    fixture
        .run(
            "CREATE FUNCTION {s}.out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.amount = 13 THEN RETURN \
             NULL; END IF; RETURN NEW; END'; CREATE TRIGGER only_real BEFORE INSERT ON {s}.orders FOR EACH ROW \
             EXECUTE FUNCTION {s}.out()",
        )
        .await;
    let target = fixture.target(fixture.spec(orders()));
    let generation = target.rebuilds().begin(By::Operator, &[claim(0)], &[]).await.unwrap();
    let mut held = Held::new(&target, generation, orders()).await;
    let rows = |range: std::ops::Range<i64>, amount: i64| -> Vec<RowWrite> {
        range.map(|id| put(row(id, amount, "n"), Version::Absent)).collect()
    };
    let mut writes = rows(0..1_500, 1);
    writes.extend(rows(1_500..1_501, 13));
    let written = held.write(writes).await;
    let Written::Rejected(error) = written else { panic!("{written:?}") };
    assert!(error.message().contains("(only_real)"), "{error}");
    let written = held.write(rows(0..1_500, 1)).await;
    assert!(matches!(written, Written::Durable(Versions::Unknown)), "{written:?}");
    let loaded = held.writer.load(&[Key::new(vec![Value::Int(3)]), key(1_500)]).await.unwrap();
    assert!(loaded[0].row.is_some() && loaded[1].row.is_none());
    target.rebuilds().cancel(None).await.unwrap();
}

/// A table whose index takes the server 30 ms a row.
async fn slow(fixture: &Fixture) {
    fixture
        .run(
            "CREATE FUNCTION {s}.slow(x bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM \
             pg_sleep(0.03); RETURN x; END'; CREATE UNIQUE INDEX slow ON {s}.orders ({s}.slow(id))",
        )
        .await;
}

fn hurried(fixture: &Fixture) -> PostgresTarget {
    let config = PostgresConfig { statement_timeout: Duration::from_secs(1), ..fixture.config() };
    PostgresTarget::new(config, fixture.spec(orders())).unwrap()
}

fn puts(rows: i64) -> Vec<RowWrite> {
    (0..rows).map(|id| put(row(id, 1, "n"), Version::Absent)).collect()
}

#[tokio::test]
async fn a_statement_that_takes_too_long_says_so_and_a_smaller_one_goes_through() {
    let fixture = Fixture::new().await;
    let target = hurried(&fixture);
    let generation = target.open().await.unwrap().generation;
    slow(&fixture).await;
    let mut held = Held::new(&target, generation, orders()).await;
    let error = held.writer.write(&held.flush(puts(60))).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Retriable, Some("57014")));
    assert!(error.is_too_much() && error.message().contains("statement_timeout"), "{error}");
    assert_eq!(position(&held).await, Position(0));
    held.durable(puts(15)).await;
}

#[tokio::test]
async fn the_statements_of_a_load_are_made_smaller_until_they_go_through() {
    let fixture = Fixture::new().await;
    let target = hurried(&fixture);
    target.open().await.unwrap();
    slow(&fixture).await;
    let generation = target.rebuilds().begin(By::Operator, &[claim(0)], &[]).await.unwrap();
    let mut held = Held::new(&target, generation, orders()).await;
    let flush = held.flush(puts(60));
    let mut failures = 0;
    let written = loop {
        match held.writer.write(&flush).await {
            Ok(written) => break written,
            Err(error) => {
                assert_eq!((error.is_too_much(), error.code()), (false, Some("57014")), "{error}");
                failures += 1;
            }
        }
        assert!(failures < 4, "it is halved each time");
    };
    assert!(failures > 0 && matches!(written, Written::Durable(_)), "{failures} {written:?}");
    held.lease.position = Position(1);
    target.rebuilds().cancel(None).await.unwrap();
}

#[tokio::test]
async fn a_database_that_lacks_letters_parks_them_all_the_same() {
    let fixture = Fixture::new().await;
    let database = format!("{}_latin1", fixture.schema);
    let create = format!(
        "CREATE DATABASE {database} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    );
    fixture.sql.batch_execute(&create).await.unwrap();
    let url = format!("{}/{database}", url().rsplit_once('/').unwrap().0);
    let config = PostgresConfig { url, ..fixture.config() };
    let columns = model(&[("id", "text"), ("note", "text")]);
    let mut spec = fixture.spec(columns.clone());
    spec.target = "orders".to_owned();
    {
        let target = PostgresTarget::new(config, spec).unwrap();
        let generation = target.open().await.unwrap().generation;
        let mut held = Held::new(&target, generation, columns).await;
        let text = |text: &str| Key::new(vec![Value::text(text)]);
        assert!(held.writer.load(&[text("\u{e9}")]).await.unwrap()[0].row.is_none());
        let error = held.writer.load(&[text("\u{e9}"), text("\u{2192}")]).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (ErrorClass::Record, Some("22P05")));
        // `explain` tells a key that is in no row from an outage by the same class.
        let mut snapshot = target.snapshot().await.unwrap();
        let error = snapshot.load(&[text("\u{2192}")]).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (ErrorClass::Record, Some("22P05")));
        drop(snapshot);
        let mut record = foldline_api::record::Record {
            topic: part(0).topic,
            partition: 0,
            offset: 0,
            timestamp: None,
            key: None,
            value: Some(bytes::Bytes::from_static("\u{2192}".as_bytes())),
            headers: vec![("\u{2192}".into(), None)],
        };
        record.headers.push(("\u{1f600}".into(), None));
        let event = ParkedEvent {
            record: record.clone(),
            keys: vec!["\u{2192}".to_owned(), "\u{e9}".to_owned()],
            reason: Some("no letter \u{2192}".to_owned()),
        };
        let mut flush = held.flush(Vec::new());
        flush.parking = Changes { park: vec![event.clone()], ..Changes::default() };
        assert!(matches!(held.send(flush).await, Written::Durable(_)));
        let parking = target.parking();
        let parked = parking.parked(generation, &Which::default()).await.unwrap();
        assert_eq!(parked[0].keys, event.keys);
        assert_eq!(parked[0].reason.as_deref(), Some("no letter \\u2192"));
        assert_eq!(parking.records(generation, &[event.place()]).await.unwrap(), [record]);
    }
    fixture.sql.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await.unwrap();
}
