//! The fence, versions, verdicts and what goes wrong.

use std::time::Duration;

use foldline_api::ErrorClass;
use foldline_api::model::Key;
use foldline_api::record::Position;
use foldline_api::sink::{Advance, Check, Flush, Target, Version, Versions, Written};

use crate::support::{
    Fixture, Held, claim, delete, key, orders, part, put, row, session, wait_for,
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
