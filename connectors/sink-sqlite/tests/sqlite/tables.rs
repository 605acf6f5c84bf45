//! Tables that do not fit, that are changed under a writer, and that are made.

use super::*;

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
