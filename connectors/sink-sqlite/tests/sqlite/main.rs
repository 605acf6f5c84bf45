//! The SQLite sink on real database files.
#![expect(
    clippy::unwrap_used,
    reason = "clippy takes the helpers of an integration test for production code"
)]

mod copies;
mod rebuilds;
mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::ErrorClass;
use foldline_api::kind::Sink;
use foldline_api::model::{Key, Row};
use foldline_api::rebuild::{By, Step, Stepped};
use foldline_api::record::Position;
use foldline_api::sink::{
    Advance, Flush, Lease, Marks, OnChange, RowWrite, StoredVerdict, Target, TargetSpec, Version,
    Versions, Writer, Written,
};
use foldline_api::value::Value;
use foldline_sink_sqlite::{SqliteConfig, SqliteTarget};
use foldline_testkit::contract::{Meddling, claim, model, model_of, partition, row, spec_of};
use foldline_testkit::{Store, sink_contract};
use rusqlite::Connection;

struct Sqlite(PathBuf);

#[async_trait]
impl Store for Sqlite {
    async fn target(&self, spec: TargetSpec) -> Arc<dyn Target> {
        SqliteConfig { path: self.0.clone() }.target(spec).unwrap()
    }

    async fn drop_target(&self, target: &str) {
        outside(&self.0).execute_batch(&format!("DROP TABLE \"{target}\"")).unwrap();
    }

    async fn copy_target(&self, target: &str) {
        // What was made anew from its rows has no mark.
        let outside = outside(&self.0);
        let marks = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '!_foldline!_%' ESCAPE '!' \
                     AND (tbl_name = ?1 OR tbl_name LIKE ?1 || '!_!_g%' ESCAPE '!')";
        let mut statement = outside.prepare(marks).unwrap();
        let marks = statement.query_map([target], |row| row.get(0)).unwrap();
        let marks: Vec<String> = marks.collect::<rusqlite::Result<_>>().unwrap();
        assert!(!marks.is_empty(), "{target}");
        for mark in marks {
            outside.execute_batch(&format!("DROP TRIGGER {mark}")).unwrap();
        }
    }

    fn name(&self, case: &str) -> String {
        format!("sales.{case}")
    }

    fn gathers(&self) -> bool {
        true
    }

    fn looks_up(&self) -> bool {
        true
    }

    async fn meddle(&self, target: &str, what: Meddling) -> bool {
        let trigger = |name: &str, on: &str, when: &str| {
            format!(
                "CREATE TRIGGER \"{target} {name}\" BEFORE {on} ON \"{target}\" WHEN {when} BEGIN SELECT \
                 RAISE(IGNORE); END;"
            )
        };
        let sql = match what {
            Meddling::LoseColumn(column) => {
                // Its index goes first, as SQLite wants it.
                format!("DROP INDEX \"{target} i\"; ALTER TABLE \"{target}\" DROP COLUMN {column}")
            }
            Meddling::AddIndex(column) => {
                format!("CREATE INDEX \"{target} i\" ON \"{target}\" ({column})")
            }
            Meddling::KeepOut => {
                let insert = trigger("only_real", "INSERT", "NEW.name = 'test'");
                insert + &trigger("only_real too", "UPDATE", "NEW.name = 'test'")
            }
            Meddling::KeepEqual => {
                trigger("z_min", "UPDATE", "OLD.name IS NEW.name AND OLD.changes IS NEW.changes")
            }
        };
        outside(&self.0).execute_batch(&sql).unwrap();
        true
    }
}

/// A connection of somebody else's, as the shell has.
fn outside(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

#[tokio::test]
async fn the_sink_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/foldline.db");
    sink_contract(&Sqlite(path.clone())).await;
    let mode: String =
        outside(&path).query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn a_database_in_memory_lives_while_someone_holds_it() {
    let target = || {
        let config = SqliteConfig { path: PathBuf::from(":memory:") };
        SqliteTarget::new(config, spec_of("held", model())).unwrap()
    };
    let held = target();
    held.open().await.unwrap();
    assert_eq!(target().status().await.unwrap().generation, 1);
    drop(held);
    assert_eq!(target().status().await.unwrap_err().class(), ErrorClass::Config);
}

/// A database with an open table `t` of the contract's model, and a task that holds partition 0.
struct Bench {
    path: PathBuf,
    target: Arc<dyn Target>,
    writer: Arc<dyn Writer>,
    lease: Lease,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foldline.db");
        let target = Sqlite(path.clone()).target(spec_of("t", model())).await;
        target.open().await.unwrap();
        let writer = target.writer(1).await.unwrap();
        let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
        Bench { path, target, writer, lease, _folder: folder }
    }

    fn flush(&self, writes: Vec<RowWrite>) -> Flush {
        let (partition, epoch, from) =
            (self.lease.partition.clone(), self.lease.epoch, self.lease.position);
        let to = Position(from.0 + 1);
        Flush { advances: vec![Advance { partition, epoch, from, to }], writes, ..Flush::default() }
    }

    async fn write(&mut self, id: i64, row: Row, version: Version) -> Written {
        let flush = self.flush(vec![write(id, Some(row), version)]);
        let written = self.writer.write(&flush).await.unwrap();
        if matches!(written, Written::Durable(_)) {
            self.lease.position.0 += 1;
        }
        written
    }

    async fn load(&self, id: i64) -> (Option<Row>, Version) {
        let loaded = self.writer.load(&[key(id)]).await.unwrap().remove(0);
        (loaded.row, loaded.version)
    }

    async fn position(&self) -> Position {
        self.writer.positions(&[partition(0)]).await.unwrap()[0].position
    }
}

fn key(id: i64) -> Key {
    Key::new(vec![Value::Int(id)])
}

fn write(id: i64, row: Option<Row>, version: Version) -> RowWrite {
    RowWrite { key: key(id), row, version, marks: Marks::new() }
}

fn order(id: i64, name: &str, changes: i64) -> Row {
    let (id, name, changes) = (id.to_string(), format!("{name:?}"), changes.to_string());
    let at = "\"2026-01-01T00:00:00Z\"";
    row(&model(), &[&id, &name, "1.50", &changes, at, "[\"x\"]", "{\"a\":1}"])
}

#[tokio::test]
async fn what_a_shell_changes_is_seen_and_becomes_the_state() {
    let mut bench = Bench::new().await;
    let written = bench.write(1, order(1, "a", 1), Version::Absent).await;
    let Written::Durable(Versions::Each(versions)) = written else { panic!("{written:?}") };
    let shell = outside(&bench.path);
    shell.execute_batch("UPDATE t SET name = 'by hand' WHERE id = 1").unwrap();
    assert!(matches!(
        bench.write(1, order(1, "b", 2), versions[0]).await,
        Written::Conflict { .. }
    ));
    assert_eq!(bench.position().await, Position(1));
    let (found, version) = bench.load(1).await;
    assert_eq!(found, Some(order(1, "by hand", 1)));
    assert!(matches!(bench.write(1, order(1, "b", 2), version).await, Written::Durable(_)));
    // Back to the very values that a version was taken of: the same state, so the same version.
    shell
        .execute_batch("UPDATE t SET name = 'x' WHERE id = 1; UPDATE t SET name = 'b' WHERE id = 1")
        .unwrap();
    let (_, same) = bench.load(1).await;
    assert!(matches!(bench.write(1, order(1, "c", 3), same).await, Written::Durable(_)));
    shell.execute_batch("DELETE FROM t").unwrap();
    let (gone, absent) = bench.load(1).await;
    assert_eq!((gone, absent), (None, Version::Absent));
}

#[tokio::test]
async fn what_the_store_refuses_is_rejected_and_nothing_moves() {
    let mut bench = Bench::new().await;
    let shell = outside(&bench.path);
    shell
        .execute_batch(
            "CREATE TRIGGER small BEFORE INSERT ON t WHEN NEW.changes > 9 \
             BEGIN SELECT RAISE(ABORT, 'too many changes'); END",
        )
        .unwrap();
    let flush = bench.flush(vec![
        write(1, Some(order(1, "a", 1)), Version::Absent),
        write(2, Some(order(2, "b", 10)), Version::Absent),
    ]);
    let written = bench.writer.write(&flush).await.unwrap();
    let Written::Rejected(error) = written else { panic!("{written:?}") };
    assert_eq!(error.class(), ErrorClass::Record);
    assert!(error.message().contains("too many changes"), "{error}");
    assert_eq!((bench.load(1).await.0, bench.position().await), (None, Position(0)));
    // The user's trigger may change what is written, so nothing is known of the versions.
    let written = bench.write(1, order(1, "a", 1), Version::Absent).await;
    assert!(matches!(written, Written::Durable(Versions::Unknown)), "{written:?}");
    shell.execute_batch("DROP TRIGGER small; CREATE UNIQUE INDEX u ON t (name)").unwrap();
    let written = bench.write(2, order(2, "a", 1), Version::Absent).await;
    assert!(matches!(written, Written::Rejected(_)), "a unique index of the user's: {written:?}");
}

#[tokio::test]
async fn a_verdict_holds_while_the_tables_check_stands() {
    let mut bench = Bench::new().await;
    let shell = outside(&bench.path);
    shell
        .execute_batch("ALTER TABLE t ADD COLUMN own TEXT CONSTRAINT small CHECK (changes < 10)")
        .unwrap();
    let refused = |written| {
        let Written::Rejected(error) = written else { panic!("{written:?}") };
        error.definition().map(str::to_owned)
    };
    let check = refused(bench.write(1, order(1, "a", 10), Version::Absent).await);
    assert!(
        check.as_deref().is_some_and(|known| known.ends_with("CHECK (changes < 10)")),
        "{check:?}"
    );
    shell
        .execute_batch(
            "CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.name = 'b' BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    let trigger = refused(bench.write(1, order(1, "b", 1), Version::Absent).await);
    let through = refused(bench.write(1, order(1, "a", 10), Version::Absent).await);
    assert_eq!((trigger, through), (None, None), "a trigger may change a row before it is checked");
    shell.execute_batch("DROP TRIGGER no").unwrap();
    let mut flush = bench.flush(Vec::new());
    flush.verdicts = vec![
        StoredVerdict::new(partition(0), 0, "no", check),
        StoredVerdict::new(partition(0), 1, "no", None),
    ];
    assert!(matches!(bench.writer.write(&flush).await.unwrap(), Written::Durable(_)));
    let holds = async || -> Vec<bool> {
        let build = bench.target.rebuilds().begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
        let writer = bench.target.writer(build).await.unwrap();
        let verdicts = writer.acquire(&[claim(0, 0)]).await.unwrap().verdicts;
        bench.target.rebuilds().cancel(None).await.unwrap();
        verdicts.iter().map(|verdict| verdict.holds).collect()
    };
    assert_eq!(holds().await, [true, false]);
    shell.execute_batch("ALTER TABLE t DROP COLUMN own").unwrap();
    assert_eq!(holds().await, [false, false]);
    let told = bench.target.snapshot().await.unwrap().books().verdicts.clone();
    let told: Vec<_> = told.iter().map(|v| (v.holds, v.is_unknown())).collect();
    assert_eq!(told, [(false, false), (false, true)]);
}

#[tokio::test]
async fn verdicts_of_an_earlier_version_are_carried_on_as_unknown() {
    let mut bench = Bench::new().await;
    bench.write(1, order(1, "a", 1), Version::Absent).await;
    outside(&bench.path)
        .execute_batch(
            "CREATE TABLE _foldline_verdicts (target TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, \
             topic_id TEXT NOT NULL, offset INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (target, topic, \
             partition, topic_id, offset)) STRICT, WITHOUT ROWID; INSERT INTO _foldline_verdicts VALUES ('t', 'events', \
             0, 'topic-1', 0, 'no'), ('t', 'events', 0, 'topic-1', 1, 'no'), ('t', 'events', 0, 'topic-0', 2, 'no')",
        )
        .unwrap();
    for _ in 0..2 {
        bench.target.open().await.unwrap();
        let told = bench.target.snapshot().await.unwrap().books().verdicts.clone();
        let told: Vec<_> = told.iter().map(|v| (v.offset, v.is_unknown())).collect();
        assert_eq!(
            told,
            [(0, true)],
            "behind the position it was decided, at it it is to be asked"
        );
        let open = bench.writer.acquire(&[claim(0, 0)]).await.unwrap().verdicts;
        let open: Vec<_> = open.iter().map(|v| (v.offset, v.is_unknown())).collect();
        assert_eq!(open, [(1, true)]);
    }
}

#[tokio::test]
async fn a_lock_held_elsewhere_is_waited_for() {
    let mut bench = Bench::new().await;
    let shell = outside(&bench.path);
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (writer, flush) = (Arc::clone(&bench.writer), bench.flush(Vec::new()));
    let waiting = tokio::spawn(async move { writer.write(&flush).await });
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retriable, "{error}");
    shell.execute_batch("COMMIT").unwrap();
    let written = bench.write(1, order(1, "a", 1), Version::Absent).await;
    assert!(matches!(written, Written::Durable(_)), "{written:?}");
}

#[tokio::test]
async fn two_tasks_that_share_rows_make_progress() {
    let bench = Bench::new().await;
    let tasks: Vec<_> = (1..4)
        .map(|number| {
            let target = Arc::clone(&bench.target);
            tokio::spawn(async move {
                let writer = target.writer(1).await.unwrap();
                let mut lease = writer.acquire(&[claim(number, 0)]).await.unwrap().leases.remove(0);
                for _ in 0..50 {
                    loop {
                        let loaded = writer.load(&[key(1)]).await.unwrap().remove(0);
                        let count = loaded.row.map_or(0, |row| match row.get(3) {
                            Value::Int(count) => *count,
                            other => panic!("{other:?}"),
                        });
                        let (partition, epoch, from) =
                            (lease.partition.clone(), lease.epoch, lease.position);
                        let to = Position(from.0 + 1);
                        let flush = Flush {
                            advances: vec![Advance { partition, epoch, from, to }],
                            writes: vec![write(1, Some(order(1, "a", count + 1)), loaded.version)],
                            ..Flush::default()
                        };
                        match writer.write(&flush).await.unwrap() {
                            Written::Durable(_) => break lease.position = to,
                            Written::Conflict { .. } => {}
                            other => panic!("{other:?}"),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(bench.load(1).await.0, Some(order(1, "a", 150)), "each event counted once");
}
