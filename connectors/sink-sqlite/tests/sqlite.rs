//! The SQLite sink on real database files.
#![expect(
    clippy::unwrap_used,
    reason = "clippy takes the helpers of an integration test for production code"
)]

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
async fn a_table_made_again_by_hand_is_another_table() {
    let mut bench = Bench::new().await;
    bench.write(1, order(1, "a", 1), Version::Absent).await;
    let shell = outside(&bench.path);
    let ddl: String = shell
        .query_row("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 't'", [], |r| {
            r.get(0)
        })
        .unwrap();
    shell.execute_batch(&format!("DROP TABLE t; {ddl}")).unwrap();
    let error = bench.writer.write(&bench.flush(Vec::new())).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fenced, "{error}");
    assert_eq!(
        bench.writer.positions(&[partition(0)]).await.unwrap_err().class(),
        ErrorClass::Fenced
    );
    let opened = bench.target.open().await.unwrap();
    assert_eq!((opened.generation, opened.positions[0].position), (2, Position(0)));
    let error = bench.writer.write(&bench.flush(Vec::new())).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fenced, "{error}");
}

#[tokio::test]
async fn vacuum_and_new_columns_leave_the_table_the_same() {
    let mut bench = Bench::new().await;
    bench.write(1, order(1, "a", 1), Version::Absent).await;
    let version = bench.load(1).await.1;
    outside(&bench.path).execute_batch("ALTER TABLE t ADD COLUMN note TEXT; VACUUM").unwrap();
    assert_eq!(bench.target.open().await.unwrap().generation, 1);
    assert!(matches!(bench.write(1, order(1, "b", 2), version).await, Written::Durable(_)));
}

/// Builds the next generation of the bench's table with these rows, and swaps.
async fn rebuild(bench: &Bench, ids: &[i64]) {
    let rebuilds = bench.target.rebuilds();
    let generation = rebuilds.begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap();
    let writer = bench.target.writer(generation).await.unwrap();
    let lease = writer.acquire(&[claim(0, 0)]).await.unwrap().leases[0].clone();
    let live = bench.position().await;
    let advance =
        Advance { partition: lease.partition, epoch: lease.epoch, from: lease.position, to: live };
    let rows = ids.iter().map(|id| write(*id, Some(order(*id, "new", 1)), Version::Absent));
    let flush = Flush { advances: vec![advance], writes: rows.collect(), ..Flush::default() };
    assert!(matches!(writer.write(&flush).await.unwrap(), Written::Durable(_)));
    for step in [Step::Follow, Step::Hold { patient: true }, Step::Swap] {
        let stepped = rebuilds.step(generation, step).await.unwrap();
        assert!(matches!(stepped, Stepped::Done(_)), "{step:?}: {stepped:?}");
    }
}

#[tokio::test]
async fn what_users_put_on_a_table_survives_its_rebuild_and_a_rollback() {
    let mut bench = Bench::new().await;
    bench.write(1, order(1, "old", 1), Version::Absent).await;
    let shell = outside(&bench.path);
    shell
        .execute_batch(
            "ALTER TABLE t ADD COLUMN note TEXT DEFAULT 'mine' CHECK (note <> ''); \
             CREATE INDEX t_by_name ON t (name) WHERE name IS NOT NULL; \
             CREATE UNIQUE INDEX \"t only\" ON t (id, name); \
             CREATE VIEW t_view AS SELECT id, name, note FROM t; \
             CREATE TABLE seen (id INTEGER); \
             CREATE TRIGGER t_watch AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (new.id); END; \
             CREATE TABLE lines (order_id INTEGER REFERENCES t (id)); \
             INSERT INTO lines VALUES (1);",
        )
        .unwrap();
    let objects = || -> Vec<String> {
        let mut select = shell
            .prepare(
                "SELECT type || ' ' || name || ' on ' || tbl_name FROM sqlite_schema WHERE name NOT LIKE \
                 '\\_foldline%' ESCAPE '\\' AND name NOT LIKE 't\\_\\_g%' ESCAPE '\\' AND tbl_name NOT LIKE \
                 't\\_\\_g%' ESCAPE '\\' AND sql IS NOT NULL ORDER BY 1",
            )
            .unwrap();
        let names = select.query_map([], |row| row.get(0)).unwrap();
        names.collect::<rusqlite::Result<_>>().unwrap()
    };
    let text = |sql: &str| -> String { shell.query_row(sql, [], |row| row.get(0)).unwrap() };
    let view = "SELECT group_concat(id || name || note) FROM t_view";
    let before = objects();
    assert_eq!(text(view), "1oldmine");
    rebuild(&bench, &[1, 2]).await;
    assert_eq!(objects(), before);
    assert_eq!(text(view), "1newmine,2newmine", "the view reads the table that is live");
    assert_eq!(text("SELECT \"table\" FROM pragma_foreign_key_list('lines')"), "t");
    assert_eq!(text("SELECT count(*) || '' FROM pragma_foreign_key_check"), "0");
    shell.execute_batch("INSERT INTO t (id, name) VALUES (9, 'z')").unwrap();
    assert_eq!(text("SELECT group_concat(id) FROM seen"), "9", "the trigger is on the live table");
    assert!(shell.execute_batch("UPDATE t SET note = '' WHERE id = 9").is_err(), "so is the CHECK");

    shell.execute_batch("UPDATE t SET note = 'by hand' WHERE id = 9").unwrap();
    let error = bench.target.rebuilds().begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap_err();
    assert!(error.message().contains("column note"), "values that no fold brings back: {error}");

    assert_eq!(bench.target.rebuilds().roll_back(None).await.unwrap(), 1);
    assert_eq!(objects(), before);
    assert_eq!(text(view), "1oldmine");
    assert_eq!(bench.target.rebuilds().drop_old(0).await.unwrap(), [2]);
    assert_eq!(
        text("SELECT count(*) || '' FROM sqlite_schema WHERE name LIKE 't\\_\\_g%' ESCAPE '\\'"),
        "0"
    );
    assert_eq!(bench.position().await, Position(1), "its positions are its own");
}

#[tokio::test]
async fn what_a_rebuild_would_break_is_refused_by_name_and_nothing_is_begun() {
    let bench = Bench::new().await;
    let shell = outside(&bench.path);
    shell.execute_batch("CREATE VIEW changes_view AS SELECT changes FROM t").unwrap();
    let mut narrower = model();
    narrower.columns.retain(|column| &*column.name != "changes");
    let mut spec = spec_of("t", narrower);
    spec.on_change = OnChange::Rebuild;
    let target = Sqlite(bench.path.clone()).target(spec).await;
    assert!(target.open().await.unwrap().waits.is_some(), "the live one serves meanwhile");
    let begun = async || target.rebuilds().begin(By::Operator, &[claim(0, 0)], &[]).await;
    let error = begun().await.unwrap_err();
    assert!(error.message().contains("changes_view"), "{error}");
    assert!(target.rebuilds().generations().await.unwrap().build.is_none());
    shell.execute_batch("DROP VIEW changes_view; CREATE INDEX by_changes ON t (changes)").unwrap();
    let error = begun().await.unwrap_err();
    assert!(error.message().contains("by_changes"), "{error}");
    shell.execute_batch("DROP INDEX by_changes").unwrap();
    assert_eq!(begun().await.unwrap(), 2);
    let columns: i64 = shell
        .query_row("SELECT count(*) FROM pragma_table_info('t__g2')", [], |row| row.get(0))
        .unwrap();
    assert_eq!(usize::try_from(columns).unwrap(), model().columns.len() - 1);
    assert_eq!(target.rebuilds().cancel(None).await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_changed_key_is_built_anew_but_over_nothing_of_the_users() {
    let bench = Bench::new().await;
    let mut other = model();
    other.key = vec![0, 1];
    let mut spec = spec_of("t", other);
    spec.on_change = OnChange::Rebuild;
    let target = Sqlite(bench.path.clone()).target(spec).await;
    let shell = outside(&bench.path);
    shell.execute_batch("ALTER TABLE t ADD COLUMN note TEXT").unwrap();
    let error = target.rebuilds().begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap_err();
    assert!(error.message().contains("primary key"), "{error}");
    shell.execute_batch("ALTER TABLE t DROP COLUMN note").unwrap();
    assert_eq!(target.rebuilds().begin(By::Operator, &[claim(0, 0)], &[]).await.unwrap(), 2);
    let key: i64 = shell
        .query_row("SELECT sum(pk > 0) FROM pragma_table_info('t__g2')", [], |row| row.get(0))
        .unwrap();
    assert_eq!(key, 2);
}

#[tokio::test]
async fn a_deleted_file_is_noticed() {
    let mut bench = Bench::new().await;
    bench.write(1, order(1, "a", 1), Version::Absent).await;
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", bench.path.display()));
    }
    let error = bench.writer.write(&bench.flush(Vec::new())).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fenced, "{error}");
    let opened = bench.target.open().await.unwrap();
    assert_eq!((opened.generation, opened.positions.len()), (1, 0));
}

#[tokio::test]
async fn tables_that_do_not_fit_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foldline.db");
    let small = || spec_of("t", model_of(&[("id", "bigint"), ("name", "text")], 1));
    let open = |spec: TargetSpec| {
        let store = Sqlite(path.clone());
        async move { store.target(spec).await.open().await }
    };
    for (ddl, reason) in [
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, name INTEGER)", "column name is INTEGER"),
        ("CREATE TABLE t (id INTEGER, name TEXT PRIMARY KEY)", "its primary key is (name)"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY)", "has no column name"),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, must INTEGER NOT NULL)",
            "must be filled",
        ),
        ("CREATE VIEW t AS SELECT 1 AS id, 'a' AS name", "is a view"),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'a')",
            "already has rows",
        ),
    ] {
        let shell = outside(&path);
        shell.execute_batch(ddl).unwrap();
        let error = open(small()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
        assert!(error.message().contains(reason), "{reason}: {error}");
        let kind = if ddl.contains("VIEW") { "VIEW" } else { "TABLE" };
        shell.execute_batch(&format!("DROP {kind} t")).unwrap();
    }
    outside(&path)
        .execute_batch("CREATE TABLE t (name TEXT, id INTEGER PRIMARY KEY, mine TEXT)")
        .unwrap();
    assert_eq!(open(small()).await.unwrap().generation, 1);
    let mut absent = spec_of("elsewhere", model());
    absent.auto_create = false;
    assert_eq!(open(absent).await.unwrap_err().class(), ErrorClass::Config);
    for name in ["sqlite_x", "_foldline_targets", ""] {
        let config = SqliteConfig { path: path.clone() };
        assert!(SqliteTarget::new(config, spec_of(name, model())).is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_key_that_a_collation_merges_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foldline.db");
    let spec =
        || spec_of("t", model_of(&[("sku", "text"), ("line", "bigint"), ("qty", "bigint")], 2));
    for (column, key, refused) in [
        ("sku TEXT NOT NULL COLLATE NOCASE", "sku, line", true),
        ("sku TEXT NOT NULL COLLATE RTRIM", "sku, line", true),
        ("sku TEXT NOT NULL", "sku COLLATE NOCASE, line", true),
        ("sku TEXT NOT NULL COLLATE NOCASE", "sku COLLATE BINARY, line", true),
        ("sku TEXT NOT NULL COLLATE binary", "sku, line", false),
    ] {
        let shell = outside(&path);
        let rest = "line INTEGER NOT NULL, qty INTEGER";
        shell
            .execute_batch(&format!(
                "CREATE TABLE t ({column}, {rest}, PRIMARY KEY ({key})) STRICT"
            ))
            .unwrap();
        let opened = Sqlite(path.clone()).target(spec()).await.open().await;
        if refused {
            let error = opened.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Config, "{error}");
            assert!(error.message().contains("key column sku is COLLATE"), "{error}");
            shell.execute_batch("DROP TABLE t").unwrap();
        } else {
            assert_eq!(opened.unwrap().generation, 1);
        }
    }
}

#[tokio::test]
async fn a_column_made_not_null_under_a_writer_stops_it() {
    let mut bench = Bench::new().await;
    let written = bench.write(1, order(1, "a", 1), Version::Absent).await;
    assert!(matches!(written, Written::Durable(Versions::Each(_))), "{written:?}");
    let shell = outside(&bench.path);
    let edit = |from: &str, to: &str| {
        let version: i64 =
            shell.pragma_query_value(None, "schema_version", |row| row.get(0)).unwrap();
        shell
            .execute_batch(&format!(
                "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE \
                 name = 't'; PRAGMA schema_version = {}; PRAGMA writable_schema = OFF",
                version + 1
            ))
            .unwrap();
    };
    edit("\"name\" TEXT", "\"name\" TEXT NOT NULL");
    let error = bench.writer.write(&bench.flush(Vec::new())).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.message().contains("column name of table \"t\" was made NOT NULL"), "{error}");
    assert_eq!(bench.position().await, Position(1));
    edit("\"name\" TEXT NOT NULL", "\"name\" TEXT");
    // A constraint is no change of the columns.
    edit("\"name\" TEXT", "\"name\" TEXT CHECK (name <> \'\'b\'\')");
    bench.write(2, order(2, "c", 1), Version::Absent).await;
    assert_eq!(bench.position().await, Position(2));
    let written = bench.write(3, order(3, "b", 1), Version::Absent).await;
    assert!(matches!(written, Written::Rejected(_)), "{written:?}");
}

#[tokio::test]
async fn what_plan_shows_is_what_is_made() {
    let bench = Bench::new().await;
    let mut with_index = model();
    with_index.columns[1].index = true;
    with_index.indexes = vec![vec![3, 4]];
    let spec = spec_of("made \"here\"", with_index);
    let planned = SqliteConfig { path: bench.path.clone() }.plan(&spec);
    Sqlite(bench.path.clone()).target(spec).await.open().await.unwrap();
    let shell = outside(&bench.path);
    for statement in planned.iter().filter(|s| s.starts_with("CREATE") && !s.contains("_foldline_"))
    {
        let wanted = statement.replace(" IF NOT EXISTS", "");
        let made: bool = shell
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE sql = ?1)",
                [&wanted],
                |r| r.get(0),
            )
            .unwrap();
        assert!(made, "{wanted}");
    }
    for statement in planned.iter().filter(|s| !s.starts_with("CREATE")) {
        shell.prepare(statement).unwrap();
    }
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
