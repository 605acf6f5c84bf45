//! A second table like the live one, and the exchange of the two: what users put on the live table
//! stays on whatever table has its name.
//!
//! Column defaults, constraints and own columns come with the table's own DDL. Names of indexes and
//! triggers are the database's, so these move at the exchange: they are dropped and made again from their
//! text, in the same transaction. Views and foreign keys of other tables name the table, and
//! are left alone by a rename in SQLite's older way.

use foldline_api::sink::TargetSpec;
use foldline_api::{Error, Result};
use rusqlite::{OptionalExtension, Row, Transaction};
use serde_json::Value as Json;

use crate::database::sql;
use crate::schema::{self, PREFIX, quote};

/// What users put on a table, as the text that makes it.
struct Carried {
    kind: String,
    name: String,
    text: String,
}

impl Carried {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Carried { kind: row.get("type")?, name: row.get("name")?, text: row.get("sql")? })
    }
}

/// Makes the empty table `relation` for the model of `spec`, as the live one is made; its mark. The live
/// table was built by `stored`.
pub(crate) fn make(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    stored: &Json,
    relation: &str,
) -> Result<String> {
    let next = TargetSpec { target: relation.to_owned(), ..spec.clone() };
    let live = ddl(tx, &spec.target)?;
    let rest = behind_name(&live).ok_or_else(|| strange(&spec.target))?;
    execute(tx, &format!("CREATE TABLE {}{rest}", quote(relation)))?;
    let changed = *stored != spec.projection;
    let fits = drop_columns(tx, relation, &gone(stored, spec))
        .and_then(|()| schema::add_columns(tx, &next).map(drop));
    if let Err(error) = fits {
        if !changed || is_own(tx, spec, stored, rest)? {
            return Err(Error::config(format!(
                "the next generation of {:?} does not fit ({}), and a table made anew would lose what you put \
                 on this one: take that off, or rebuild with `foldline rebuild {} --in-place`",
                spec.target,
                error.message(),
                spec.connector
            )));
        }
        execute(tx, &format!("DROP TABLE {}", quote(relation)))?;
        execute(tx, &schema::create_table(relation, &spec.model))?;
    }
    schema::mark(tx, relation)
}

fn execute(tx: &Transaction<'_>, statement: &str) -> Result<()> {
    tx.execute_batch(statement).map_err(sql)
}

fn strange(target: &str) -> Error {
    Error::config(format!("the DDL of table {target:?} is not what SQLite writes"))
}

fn drop_columns(tx: &Transaction<'_>, table: &str, columns: &[String]) -> Result<()> {
    columns.iter().try_for_each(|column| {
        execute(tx, &format!("ALTER TABLE {} DROP COLUMN {}", quote(table), quote(column)))
    })
}

pub(crate) fn ddl(tx: &Transaction<'_>, table: &str) -> Result<String> {
    let select = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    let text = tx.query_row(select, [table], |row| row.get(0)).optional().map_err(sql)?;
    text.ok_or_else(|| {
        Error::config(format!(
            "table {table:?} was dropped: restart its connector, which builds it anew"
        ))
    })
}

/// What follows the table's name in its DDL, which SQLite keeps as `CREATE TABLE` and the name as it
/// was written.
pub(crate) fn behind_name(ddl: &str) -> Option<&str> {
    let rest = ddl.strip_prefix("CREATE TABLE ")?;
    let close = match rest.chars().next()? {
        open @ ('"' | '`' | '\'') => open,
        '[' => ']',
        _ => {
            return rest
                .find(|c: char| c.is_whitespace() || c == '(')
                .and_then(|at| rest.get(at..));
        }
    };
    let mut from = 1;
    loop {
        let at = from + rest.get(from..)?.find(close)?;
        // A doubled quote stands for itself; brackets have no such thing.
        if close != ']' && rest.get(at + 1..)?.starts_with(close) {
            from = at + 2;
        } else {
            return rest.get(at + 1..);
        }
    }
}

fn names(projection: &Json) -> Vec<String> {
    let columns = projection.get("columns").and_then(Json::as_array);
    let name = |column: &Json| column.get("name")?.as_str().map(str::to_owned);
    columns.into_iter().flatten().filter_map(name).collect()
}

/// The stored projection's columns that this one does not have.
fn gone(stored: &Json, spec: &TargetSpec) -> Vec<String> {
    let mut names = names(stored);
    names.retain(|name| spec.model.position(name).is_none());
    names
}

/// Whether the live table has columns or constraints that its projection did not give it.
fn is_own(tx: &Transaction<'_>, spec: &TargetSpec, stored: &Json, rest: &str) -> Result<bool> {
    let ours = names(stored);
    let mut select = tx.prepare("SELECT name FROM pragma_table_xinfo(?1)").map_err(sql)?;
    let columns = select.query_map([&spec.target], |row| row.get::<_, String>(0)).map_err(sql)?;
    for column in columns {
        let column = column.map_err(sql)?;
        if !ours.iter().any(|name| name.eq_ignore_ascii_case(&column)) {
            return Ok(true);
        }
    }
    let unquoted: String = rest.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let mut words = unquoted.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let constraints = ["CHECK", "REFERENCES", "UNIQUE", "GENERATED", "COLLATE", "CONSTRAINT"];
    Ok(words.any(|word| constraints.iter().any(|other| word.eq_ignore_ascii_case(other))))
}

/// Refuses where a column of the user's own holds values that no fold brings back: any that is not its
/// default.
pub(crate) fn check_own(tx: &Transaction<'_>, spec: &TargetSpec, stored: &Json) -> Result<()> {
    let ours = names(stored);
    let mut select = tx
        .prepare("SELECT name, coalesce(dflt_value, 'NULL') AS value FROM pragma_table_xinfo(?1) WHERE hidden = 0")
        .map_err(sql)?;
    let read = |row: &Row<'_>| Ok((row.get("name")?, row.get("value")?));
    let columns = select.query_map([&spec.target], read).map_err(sql)?;
    for column in columns {
        let (name, default): (String, String) = column.map_err(sql)?;
        let is_ours = |other: &str| other.eq_ignore_ascii_case(&name);
        if ours.iter().any(|other| is_ours(other))
            || spec.model.columns.iter().any(|column| is_ours(&column.name))
        {
            continue;
        }
        let (table, column) = (quote(&spec.target), quote(&name));
        let any =
            format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {column} IS NOT ({default}))");
        if tx.query_row(&any, [], |row| row.get(0)).map_err(sql)? {
            return Err(Error::config(format!(
                "column {name} of {:?} is not the projection's and holds values: a rebuild would lose them, as no fold \
                 brings them back; keep them in a table of their own",
                spec.target
            )));
        }
    }
    Ok(())
}

/// What users put on a table, but for the columns and constraints in its own DDL.
fn carried(tx: &Transaction<'_>, table: &str) -> Result<Vec<Carried>> {
    let mut select = tx.prepare(include_str!("sql/indexes_and_triggers.sql")).map_err(sql)?;
    let rows = select.query_map((table, PREFIX), Carried::read).map_err(sql)?;
    rows.collect::<rusqlite::Result<_>>().map_err(sql)
}

/// Gives the live table the name `old` and the table `next` the live one's, with all that was on it. Wants
/// SQLite's older way of renaming, and foreign keys not enforced.
pub(crate) fn exchange(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    old: &str,
    next: &str,
) -> Result<()> {
    let (target, mut unfit) = (&spec.target, Vec::new());
    let mut carried = carried(tx, target)?;
    for Carried { kind, name, .. } in &carried {
        if kind == "index" && !fits(tx, target, name, next)? {
            unfit.push(name.clone());
        }
        execute(tx, &format!("DROP {kind} {}", quote(name)))?;
    }
    for (from, to) in [(target.as_str(), old), (next, target)] {
        execute(tx, &format!("ALTER TABLE {} RENAME TO {}", quote(from), quote(to)))?;
    }
    // An index of the projection that was: this one has no such column.
    carried.retain(|carried| !unfit.contains(&carried.name));
    for Carried { kind, name, text } in &carried {
        execute(tx, text).map_err(|error| {
            Error::config(format!(
                "{kind} {name:?} does not fit the other generation of {target:?} ({}): drop it first",
                error.message()
            ))
        })?;
    }
    schema::create_indexes(tx, spec)
}

/// Whether all columns of an index are in `next`; false for the projection's own one that are not.
///
/// # Errors
/// A config error for a user's own: SQLite would take the missing column's quoted name for a text.
fn fits(tx: &Transaction<'_>, target: &str, index: &str, next: &str) -> Result<bool> {
    let mut select = tx
        .prepare("SELECT name FROM pragma_index_info(?1) WHERE name IS NOT NULL ORDER BY seqno")
        .map_err(sql)?;
    let columns = select.query_map([index], |row| row.get(0)).map_err(sql)?;
    let columns: Vec<String> = columns.collect::<rusqlite::Result<_>>().map_err(sql)?;
    let there =
        "SELECT EXISTS (SELECT 1 FROM pragma_table_xinfo(?1) WHERE name = ?2 COLLATE NOCASE)";
    for column in &columns {
        if tx.query_row(there, (next, column), |row| row.get(0)).map_err(sql)? {
            continue;
        }
        if schema::index_name(target, &columns.iter().map(String::as_str).collect::<Vec<_>>())
            == index
        {
            return Ok(false);
        }
        return Err(Error::config(format!(
            "index {index:?} is over column {column}, which the other generation of {target:?} does not have: drop \
             it first"
        )));
    }
    Ok(true)
}

/// Tries [`exchange`] while both tables are cheap to exchange, and takes it back: what breaks is told now and not
/// when everything is built.
pub(crate) fn rehearse(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    old: &str,
    next: &str,
) -> Result<()> {
    let before = broken_views(tx)?;
    execute(tx, "SAVEPOINT rehearsal")?;
    let tried = exchange(tx, spec, old, next).and_then(|()| broken_views(tx));
    execute(tx, "ROLLBACK TO rehearsal; RELEASE rehearsal")?;
    match tried?.into_iter().find(|view| !before.contains(view)) {
        None => Ok(()),
        Some(view) => Err(Error::config(format!(
            "view {view:?} would be broken by the next generation of {:?}: change or drop it first",
            spec.target
        ))),
    }
}

/// Views that cannot be read.
fn broken_views(tx: &Transaction<'_>) -> Result<Vec<String>> {
    let mut select =
        tx.prepare("SELECT name FROM sqlite_schema WHERE type = 'view'").map_err(sql)?;
    let names = select.query_map([], |row| row.get::<_, String>(0)).map_err(sql)?;
    let mut broken = Vec::new();
    for name in names {
        let name = name.map_err(sql)?;
        if tx.prepare(&format!("SELECT * FROM {}", quote(&name))).is_err() {
            broken.push(name);
        }
    }
    Ok(broken)
}

/// Rows of other tables that refer to rows which the table does not have, a sentence for each table.
pub(crate) fn orphans(tx: &Transaction<'_>, target: &str) -> Result<Vec<String>> {
    let mut select = tx.prepare(include_str!("sql/tables_that_refer.sql")).map_err(sql)?;
    let tables = select.query_map([target], |row| row.get::<_, String>(0)).map_err(sql)?;
    let mut notices = Vec::new();
    for table in tables {
        let table = table.map_err(sql)?;
        let count =
            "SELECT count(*) FROM pragma_foreign_key_check(?1) WHERE parent = ?2 COLLATE NOCASE";
        let count: i64 = tx.query_row(count, (&table, target), |row| row.get(0)).map_err(sql)?;
        if count > 0 {
            notices.push(format!(
                "{count} rows of {table:?} refer to rows that {target:?} does not have"
            ));
        }
    }
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_a_tables_ddl_is_found_however_it_is_quoted() {
        for (name, rest) in [
            ("orders", "(id)"),
            ("orders", " (id)"),
            ("\"a \"\"b\"", " (id)"),
            ("`a``b`", "(id)"),
            ("[a b]", "(id)"),
            ("'a'", " (\"x\")"),
        ] {
            assert_eq!(behind_name(&format!("CREATE TABLE {name}{rest}")), Some(rest), "{name}");
        }
        assert_eq!(behind_name("CREATE VIRTUAL TABLE x"), None);
    }
}
