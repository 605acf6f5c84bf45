//! Tables that are built beside the live one.

use super::*;

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
