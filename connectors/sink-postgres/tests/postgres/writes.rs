//! The fence, versions, verdicts and what goes wrong.

use std::time::Duration;

use foldline_api::ErrorClass;
use foldline_api::model::Key;
use foldline_api::rebuild::By;
use foldline_api::record::Position;
use foldline_api::sink::{
    Advance, Check, Flush, StoredVerdict, Target, Version, Versions, Written,
};

use crate::support::{
    Fixture, Held, claim, delete, key, model, orders, part, put, row, session, wait_for,
};

#[tokio::test]
async fn a_flush_moves_rows_and_positions_together() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    let first = held
        .durable(vec![put(row(1, 1, "a"), Version::Absent), put(row(2, 1, "b"), Version::Absent)])
        .await;
    let second = held
        .durable(vec![
            put(row(1, 5, "c"), first),
            delete(2, first),
            put(row(3, 1, "d"), Version::Absent),
        ])
        .await;
    let loaded = held.writer.load(&[key(3), key(2), key(1)]).await.unwrap();
    let found: Vec<_> = loaded.into_iter().map(|l| (l.row, l.version)).collect();
    assert_eq!(
        found,
        [(Some(row(3, 1, "d")), second), (None, Version::Absent), (Some(row(1, 5, "c")), second)]
    );
    let stored = held.writer.positions(&[part(0), part(9)]).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(
        (stored[0].position, stored[0].epoch, stored[0].beginning),
        (Position(2), 1, Position(0))
    );
    assert!(!held.writer.keeps_marks());
    assert!(held.writer.load(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn acquire_raises_epochs_and_fences_the_holder_before() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let mut zombie = Held::new(&target, 1, orders()).await;
    zombie.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    let mut owner = Held::new(&target, 1, orders()).await;
    assert_eq!((owner.lease.epoch, owner.lease.position), (2, Position(1)));
    assert!(matches!(
        zombie.write(vec![put(row(2, 9, "z"), Version::Absent)]).await,
        Written::Fenced
    ));
    owner.durable(vec![put(row(2, 1, "b"), Version::Absent)]).await;
    assert_eq!(owner.load(2).await.0, Some(row(2, 1, "b")));

    let acquired = owner.writer.acquire(&[claim(1), claim(0)]).await.unwrap();
    let found: Vec<_> =
        acquired.leases.iter().map(|l| (l.partition.partition, l.epoch, l.position.0)).collect();
    assert_eq!(found, [(1, 1, 0), (0, 3, 2)]);
    assert!(!acquired.empty);
}

#[tokio::test]
async fn an_empty_table_says_so() {
    let fixture = Fixture::new().await;
    let held = fixture.writer(orders()).await;
    assert!(held.writer.acquire(&[claim(0)]).await.unwrap().empty);
}

#[tokio::test]
async fn a_stale_position_fences_and_leaves_nothing() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    let flush = held.flush(vec![put(row(1, 1, "a"), Version::Absent)]);
    held.send(flush.clone()).await;
    // The reply was lost: the same flush again.
    assert!(matches!(held.writer.write(&flush).await.unwrap(), Written::Fenced));
    let mut wrong = held.flush(vec![put(row(2, 1, "a"), Version::Absent)]);
    wrong.advances[0].from = Position(7);
    assert!(matches!(held.writer.write(&wrong).await.unwrap(), Written::Fenced));
    // One good and one bad partition: neither moves.
    let mut half = held.flush(vec![put(row(2, 1, "a"), Version::Absent)]);
    half.advances.push(Advance {
        partition: part(1),
        epoch: 1,
        from: Position(0),
        to: Position(1),
    });
    assert!(matches!(held.writer.write(&half).await.unwrap(), Written::Fenced));
    assert_eq!(held.writer.positions(&[part(0)]).await.unwrap()[0].position, Position(1));
    assert_eq!(held.load(2).await.0, None);
}

#[tokio::test]
async fn a_row_that_moved_is_a_conflict() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    let version = held
        .durable(vec![put(row(1, 1, "a"), Version::Absent), put(row(2, 1, "b"), Version::Absent)])
        .await;
    fixture.run("UPDATE {s}.orders SET amount = 40 WHERE id = 1").await;
    assert!(matches!(
        held.write(vec![put(row(1, 2, "a"), version), put(row(2, 2, "b"), version)]).await,
        Written::Conflict { .. }
    ));
    assert!(matches!(held.write(vec![delete(1, version)]).await, Written::Conflict { .. }));
    assert_eq!(held.load(2).await, (Some(row(2, 1, "b")), version));
    let (edited, now) = held.load(1).await;
    assert_eq!(edited, Some(row(1, 40, "a")));
    // Loaded and folded again it goes through, with the rows locked in order first.
    held.durable(vec![put(row(1, 41, "a"), now), put(row(2, 2, "b"), version)]).await;
    assert_eq!(held.load(1).await.0, Some(row(1, 41, "a")));
}

#[tokio::test]
async fn an_insert_race_is_a_conflict_not_a_duplicate() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    let other = session().await;
    other
        .batch_execute(&format!("BEGIN; INSERT INTO {}.orders VALUES (1, 99, 'x')", fixture.schema))
        .await
        .unwrap();
    let waiting = format!(
        "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name = 'foldline/{}' AND \
         wait_event_type = 'Lock')",
        fixture.schema
    );
    let commit = async {
        wait_for(&fixture.sql, &waiting).await;
        other.batch_execute("COMMIT").await.unwrap();
    };
    let flush = held.flush(vec![put(row(1, 1, "a"), Version::Absent)]);
    let (written, ()) = tokio::join!(held.writer.write(&flush), commit);
    assert!(matches!(written.unwrap(), Written::Conflict { .. }));
    let (found, version) = held.load(1).await;
    assert_eq!(found, Some(row(1, 99, "x")));
    held.durable(vec![put(row(1, 100, "x"), version)]).await;
}

#[tokio::test]
async fn rows_that_were_only_read_are_checked() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    let version = held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    let check = |id, version| Check { key: key(id), version };
    let good = Flush {
        checks: vec![check(1, version), check(2, Version::Absent)],
        ..held.flush(vec![put(row(3, 1, "c"), Version::Absent)])
    };
    assert!(matches!(held.send(good).await, Written::Durable(_)));
    for wrong in [check(1, Version::Absent), check(2, version), check(3, version)] {
        let flush = Flush { checks: vec![wrong], ..held.flush(vec![]) };
        assert!(matches!(held.send(flush).await, Written::Conflict { .. }));
    }
    // Made and deleted in one flush: only the absence is checked.
    assert!(matches!(held.write(vec![delete(1, Version::Absent)]).await, Written::Conflict { .. }));
    held.durable(vec![delete(9, Version::Absent)]).await;
}

#[tokio::test]
async fn a_flush_without_positions_needs_the_live_generation() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let held = Held::new(&target, 1, orders()).await;
    let flush = Flush { writes: vec![put(row(1, 1, "a"), Version::Absent)], ..Flush::default() };
    assert!(matches!(held.writer.write(&flush).await.unwrap(), Written::Durable(_)));
    target.rebuild(1, None).await.unwrap();
    assert!(matches!(held.writer.write(&flush).await.unwrap(), Written::Fenced));
}

#[tokio::test]
async fn what_the_store_refuses_is_named_without_its_content() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    fixture
        .run(
            "ALTER TABLE {s}.orders ADD CONSTRAINT small CHECK (amount < 100), ADD CONSTRAINT one_note \
             UNIQUE (note), ADD CONSTRAINT late UNIQUE (amount) DEFERRABLE INITIALLY DEFERRED",
        )
        .await;
    let version = held.durable(vec![put(row(1, 1, "hunter2"), Version::Absent)]).await;
    for (write, code, constraint) in [
        (put(row(1, 100, "hunter2"), version), "23514", "small"),
        (put(row(2, 100, "x"), Version::Absent), "23514", "small"),
        (put(row(2, 2, "hunter2"), Version::Absent), "23505", "one_note"),
        // Checked only by the commit.
        (put(row(2, 1, "x"), Version::Absent), "23505", "late"),
        (put(row(2, 2, "longer than nine"), Version::Absent), "22001", ""),
    ] {
        let Written::Rejected(error) = held.write(vec![write]).await else { panic!("{code}") };
        assert_eq!((error.class(), error.code()), (ErrorClass::Record, Some(code)), "{error}");
        let text = format!("{error:?}");
        assert!(text.contains(constraint) && !text.contains("hunter2"), "{text}");
    }
    assert_eq!(held.load(1).await, (Some(row(1, 1, "hunter2")), version));
    held.durable(vec![put(row(1, 2, "hunter2"), version)]).await;
}

/// The definition that an insert of `row` was refused by.
async fn refused_by(held: &mut Held, row: foldline_api::model::Row) -> Option<String> {
    let written = held.write(vec![put(row, Version::Absent)]).await;
    let Written::Rejected(error) = written else { panic!("{written:?}") };
    error.definition().map(str::to_owned)
}

#[tokio::test]
async fn a_verdict_holds_while_the_tables_own_rule_stands() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let mut held = Held::new(&target, 1, orders()).await;
    fixture
        .run(
            "ALTER TABLE {s}.orders ADD CONSTRAINT small CHECK (amount < 100); CREATE UNIQUE INDEX ON {s}.orders \
             (note) WHERE amount > 0",
        )
        .await;
    held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    let check = refused_by(&mut held, row(2, 100, "b")).await;
    assert!(
        check.as_deref().is_some_and(|known| known.ends_with("CHECK ((amount < 100))")),
        "{check:?}"
    );
    let unique = refused_by(&mut held, row(2, 1, "a")).await;
    assert!(
        unique.as_deref().is_some_and(|known| known.contains("UNIQUE USING btree (note)")),
        "{unique:?}"
    );
    let verdicts: Vec<_> = [&check, &unique, &None]
        .into_iter()
        .zip(0..)
        .map(|(known, offset)| StoredVerdict::new(part(0), offset, "no", known.clone()))
        .collect();
    let flush = Flush { verdicts, ..held.flush(vec![]) };
    assert!(matches!(held.send(flush).await, Written::Durable(_)));
    let holds = async |target: &dyn Target, generation| -> Vec<bool> {
        let writer = target.writer(generation).await.unwrap();
        let verdicts = writer.acquire(&[claim(0)]).await.unwrap().verdicts;
        verdicts.iter().map(|verdict| verdict.holds).collect()
    };
    // A build's table has no secondary index yet, and will have it.
    let build = target.rebuilds().begin(By::Operator, &[claim(0)], &[]).await.unwrap();
    assert_eq!(holds(&target, build).await, [true, true, false]);
    fixture.run("ALTER TABLE {s}.orders RENAME CONSTRAINT small TO little").await;
    target.rebuilds().cancel(None).await.unwrap();
    let build = target.rebuilds().begin(By::Operator, &[claim(0)], &[]).await.unwrap();
    assert_eq!(
        holds(&target, build).await,
        [true, true, false],
        "by another name it refuses the same"
    );
    target.rebuilds().cancel(None).await.unwrap();
    fixture.run("ALTER TABLE {s}.orders DROP CONSTRAINT little, ADD CHECK (amount < 200)").await;
    let mut told = target.snapshot().await.unwrap().books().verdicts.clone();
    told.sort_by_key(|verdict| verdict.offset);
    let told: Vec<_> = told.iter().map(|v| (v.holds, v.is_unknown())).collect();
    assert_eq!(told, [(false, false), (true, false), (false, true)]);
    let build = target.rebuilds().begin(By::Operator, &[claim(0)], &[]).await.unwrap();
    assert_eq!(holds(&target, build).await, [false, true, false]);
    let mut spec = fixture.spec(orders());
    spec.fingerprint = "another".into();
    let other = fixture.target(spec);
    let next = other.rebuild(1, None).await.unwrap();
    assert_eq!(holds(&other, next).await, [false; 3], "another model makes other rows");
}

#[tokio::test]
async fn what_more_than_the_row_decides_has_no_definition() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    fixture
        .run(
            "CREATE TABLE {s}.parents (id bigint PRIMARY KEY); ALTER TABLE {s}.orders ADD FOREIGN KEY (amount) \
             REFERENCES {s}.parents; CREATE FUNCTION {s}.small(bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS \
             'SELECT $1 < 100'; ALTER TABLE {s}.orders ADD CHECK ({s}.small(amount)), ADD CONSTRAINT note CHECK \
             (note <> 'no'); INSERT INTO {s}.parents VALUES (1), (500)",
        )
        .await;
    assert_eq!(refused_by(&mut held, row(1, 2, "a")).await, None, "a foreign key");
    assert_eq!(refused_by(&mut held, row(1, 500, "a")).await, None, "a function of the user's");
    assert!(refused_by(&mut held, row(1, 1, "no")).await.is_some());
    fixture
        .run(
            "CREATE FUNCTION {s}.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note = ''no''; RETURN NEW; \
             END'; CREATE TRIGGER no BEFORE INSERT ON {s}.orders FOR EACH ROW EXECUTE FUNCTION {s}.no()",
        )
        .await;
    assert_eq!(
        refused_by(&mut held, row(1, 1, "a")).await,
        None,
        "a trigger changes the row first"
    );
}

#[tokio::test]
async fn verdicts_of_an_earlier_version_are_carried_on_as_unknown() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let mut held = Held::new(&target, 1, orders()).await;
    let known = Some("known".to_owned());
    let verdicts = (0..2).map(|n| StoredVerdict::new(part(0), n, "no", known.clone())).collect();
    let flush = Flush { verdicts, ..held.flush(vec![]) };
    assert!(matches!(held.send(flush).await, Written::Durable(_)));
    fixture.run("ALTER TABLE {s}_books.verdicts DROP COLUMN definition, DROP COLUMN open").await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let told = target.snapshot().await.unwrap().books().verdicts.clone();
    let told: Vec<_> = told.iter().map(|v| (v.offset, v.is_unknown())).collect();
    assert_eq!(told, [(0, true)], "behind the position it was decided, at it it is to be asked");
    let open = target.writer(1).await.unwrap().acquire(&[claim(0)]).await.unwrap().verdicts;
    assert_eq!(open, [StoredVerdict::new(part(0), 1, "no", None).judged(|_| false)]);
}

#[tokio::test]
async fn a_key_too_long_for_its_index_is_refused() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(model(&[("id", "text")])).await;
    // Random enough not to be compressed below a third of a page.
    let mut state = 1u64;
    let long: String = (0..9_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
        })
        .collect();
    let row = foldline_api::model::Row::new(vec![foldline_api::value::Value::text(&long)]);
    let Written::Rejected(error) = held.write(vec![put(row, Version::Absent)]).await else {
        panic!("accepted")
    };
    assert_eq!((error.class(), error.code()), (ErrorClass::Record, Some("54000")));
}

#[tokio::test]
async fn a_number_longer_than_numeric_holds_is_refused() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(model(&[("id", "bigint"), ("n", "numeric")])).await;
    let number = |digits| foldline_api::value::Value::Decimal("7".repeat(digits).parse().unwrap());
    let row = |digits| foldline_api::model::Row::new(vec![1i64.into(), number(digits)]);
    let Written::Rejected(error) = held.write(vec![put(row(140_000), Version::Absent)]).await
    else {
        panic!("accepted")
    };
    assert_eq!(error.class(), ErrorClass::Record);
    assert!(error.message().contains("column \"n\": a number with too many digits"), "{error}");
    held.durable(vec![put(row(131_000), Version::Absent)]).await;
    assert_eq!(held.load(1).await.0, Some(row(131_000)));
}

#[tokio::test]
async fn verdicts_are_kept_as_long_as_they_hold() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let mut held = Held::new(&target, 1, orders()).await;
    let verdict =
        |offset, reason: &str| StoredVerdict::new(part(0), offset, reason, None).judged(|_| false);
    let flush = Flush {
        verdicts: vec![verdict(0, "behind"), verdict(1, "at\0"), verdict(5, "ahead")],
        ..held.flush(vec![])
    };
    assert!(matches!(held.send(flush).await, Written::Durable(_)));
    // The newest of a record counts.
    let flush = Flush { verdicts: vec![verdict(5, "again")], ..held.flush(vec![]) };
    let flush =
        Flush { advances: vec![Advance { to: Position(1), ..flush.advances[0].clone() }], ..flush };
    assert!(matches!(held.send(flush).await, Written::Durable(_)));
    let found = held.writer.acquire(&[claim(0), claim(1)]).await.unwrap().verdicts;
    assert_eq!(found, [verdict(1, "at\u{fffd}"), verdict(5, "again")]);
    // A rebuild knows of them, whatever its projection: it asks again.
    target.rebuild(1, None).await.unwrap();
    let held = Held::new(&target, 2, orders()).await;
    assert_eq!(held.writer.acquire(&[claim(0)]).await.unwrap().verdicts.len(), 3);
    let mut spec = fixture.spec(orders());
    spec.fingerprint = "another".into();
    let target = fixture.target(spec);
    target.rebuild(2, None).await.unwrap();
    let held = Held::new(&target, 3, orders()).await;
    assert_eq!(held.writer.acquire(&[claim(0)]).await.unwrap().verdicts.len(), 3);
}

#[tokio::test]
async fn triggers_make_the_versions_unknown() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    fixture
        .run(
            "CREATE FUNCTION {s}.twice() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.amount = NEW.amount \
             * 2; RETURN NEW; END'; CREATE TRIGGER twice BEFORE INSERT OR UPDATE ON {s}.orders FOR EACH ROW \
             EXECUTE FUNCTION {s}.twice()",
        )
        .await;
    let written = held.write(vec![put(row(2, 2, "b"), Version::Absent)]).await;
    assert!(matches!(written, Written::Durable(Versions::Unknown)), "{written:?}");
    assert_eq!(held.load(2).await.0, Some(row(2, 4, "b")));
    fixture.run("ALTER TABLE {s}.orders DISABLE TRIGGER twice").await;
    held.durable(vec![put(row(3, 2, "c"), Version::Absent)]).await;
}

#[tokio::test]
async fn a_version_outlives_vacuum() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    let version = held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    fixture.sql.batch_execute(&format!("VACUUM (FREEZE) {}.orders", fixture.schema)).await.unwrap();
    assert_eq!(held.load(1).await.1, version);
    held.durable(vec![put(row(1, 2, "a"), version)]).await;
}

#[tokio::test]
async fn a_lost_connection_is_retriable_once_and_then_works() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    let version = held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    held.load(1).await;
    let ours = format!("application_name = 'foldline/{}'", fixture.schema);

    // In the middle of a flush.
    let other = session().await;
    other
        .batch_execute(&format!("BEGIN; UPDATE {}.orders SET amount = 2", fixture.schema))
        .await
        .unwrap();
    let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}");
    let waiting = format!(
        "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE {ours} AND wait_event_type = 'Lock')"
    );
    let flush = held.flush(vec![put(row(1, 5, "a"), version)]);
    let interrupt = async {
        wait_for(&fixture.sql, &waiting).await;
        fixture.sql.execute(&kill, &[]).await.unwrap();
    };
    let (written, ()) = tokio::join!(held.writer.write(&flush), interrupt);
    assert_eq!(written.unwrap_err().class(), ErrorClass::Retriable);
    other.batch_execute("ROLLBACK").await.unwrap();
    // The loading connection was idle when it died: its loss is told once, as caches depend on it.
    let gone = format!("SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE {ours})");
    wait_for(&fixture.sql, &gone).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let mut errors = 0;
    loop {
        match held.writer.load(&[key(1)]).await {
            Ok(loaded) => {
                assert_eq!(loaded[0].version, version);
                break;
            }
            Err(error) => {
                assert_eq!(error.class(), ErrorClass::Retriable);
                errors += 1;
            }
        }
        assert!(std::time::Instant::now() < deadline);
    }
    assert!(errors <= 1, "{errors}");
    assert_eq!(held.writer.positions(&[part(0)]).await.unwrap()[0].position, Position(1));
    assert!(matches!(held.send(flush).await, Written::Durable(_)));
    assert_eq!(held.load(1).await.0, Some(row(1, 5, "a")));
}

#[tokio::test]
async fn a_dropped_write_leaves_nothing_behind() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    let version = held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    let other = session().await;
    other
        .batch_execute(&format!("BEGIN; UPDATE {}.orders SET amount = 2", fixture.schema))
        .await
        .unwrap();
    let ours = format!("application_name = 'foldline/{}'", fixture.schema);
    let waiting = format!(
        "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE {ours} AND wait_event_type = 'Lock')"
    );
    let flush = held.flush(vec![put(row(1, 5, "a"), version)]);
    tokio::select! {
        written = held.writer.write(&flush) => panic!("{written:?}"),
        () = wait_for(&fixture.sql, &waiting) => {}
    }
    other.batch_execute("ROLLBACK").await.unwrap();
    // Dropped half way, with a transaction open: the next call does not find itself inside it.
    let stored = held.writer.positions(&[part(0)]).await.unwrap();
    assert_eq!(stored[0].position, Position(1));
    assert!(matches!(held.send(flush).await, Written::Durable(_)));
}

#[tokio::test]
async fn a_read_behind_a_lock_ends_with_the_servers_word() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    let version = held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    let other = session().await;
    let lock = format!("BEGIN; LOCK TABLE {}.orders IN ACCESS EXCLUSIVE MODE", fixture.schema);
    other.batch_execute(&lock).await.unwrap();
    let error = held.writer.load(&[key(1)]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retriable);
    assert!(error.to_string().contains("(55P03)"), "{error}");
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(held.load(1).await, (Some(row(1, 1, "a")), version));
}

#[tokio::test]
async fn two_writers_of_one_table_do_not_deadlock_for_ever() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let count = 200;
    let mut tasks = Vec::new();
    for partition in 0..2 {
        let writer = target.writer(1).await.unwrap();
        let mut lease = writer.acquire(&[claim(partition)]).await.unwrap().leases.remove(0);
        tasks.push(tokio::spawn(async move {
            let keys: Vec<Key> = (0..count).map(key).collect();
            let mut done = 0;
            while done < 10 {
                let Ok(loaded) = writer.load(&keys).await else { continue };
                let writes = (0..count)
                    .zip(&loaded)
                    .map(|(id, loaded)| {
                        let amount = match loaded.row.as_ref().map(|row| row.get(1).clone()) {
                            Some(foldline_api::value::Value::Int(amount)) => amount,
                            _ => 0,
                        };
                        put(row(id, amount + 1, "a"), loaded.version)
                    })
                    .collect();
                let to = Position(lease.position.0 + 1);
                let advance = Advance {
                    partition: part(partition),
                    epoch: lease.epoch,
                    from: lease.position,
                    to,
                };
                let flush = Flush { advances: vec![advance], writes, ..Flush::default() };
                match writer.write(&flush).await {
                    Ok(Written::Durable(_)) => {
                        lease.position = to;
                        done += 1;
                    }
                    Ok(Written::Conflict { .. }) => {}
                    Err(error) => assert_eq!(error.class(), ErrorClass::Retriable, "{error}"),
                    Ok(other) => panic!("{other:?}"),
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        fixture.text("SELECT min(amount) || ' ' || max(amount) FROM {s}.orders").await,
        "20 20"
    );
}

#[tokio::test]
async fn a_large_flush_is_one_transaction() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    let count = 210_000;
    let version =
        held.durable((0..count).map(|id| put(row(id, 1, "a"), Version::Absent)).collect()).await;
    assert_eq!(fixture.text("SELECT count(DISTINCT xmin::text) FROM {s}.orders").await, "1");
    // The last row of the last statement is in conflict: nothing of it stays.
    let mut writes: Vec<_> = (0..count - 1).map(|id| put(row(id, 2, "a"), version)).collect();
    writes.push(put(row(count - 1, 2, "a"), Version::At(1, 0)));
    assert!(matches!(held.write(writes).await, Written::Conflict { .. }));
    assert_eq!(fixture.text("SELECT max(amount) FROM {s}.orders").await, "1");
    let keys: Vec<Key> = (0..count).map(key).collect();
    let loaded = held.writer.load(&keys).await.unwrap();
    assert!(loaded.iter().all(|loaded| loaded.version == version));
    held.durable((0..count).map(|id| delete(id, version)).collect()).await;
    assert_eq!(fixture.text("SELECT count(*) FROM {s}.orders").await, "0");
}
