//! The user's table: its DDL, what stands under its name, and whether that fits.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use foldline_api::binding;
use foldline_api::model::{Column, Model};
use foldline_api::sink::TargetSpec;
use foldline_api::{Error, ErrorClass, Result};
use rusqlite::{OptionalExtension, Row, Transaction};

use crate::codec::storage;
use crate::database::sql;

/// The prefix of everything that is Foldline's own.
pub(crate) const PREFIX: &str = "_foldline_";

/// A name as SQL spells it.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether SQLite can keep the model under this name.
///
/// # Errors
/// A config error that names the table or the column.
pub(crate) fn check(spec: &TargetSpec) -> Result<()> {
    let target = &spec.target;
    let lower = target.to_ascii_lowercase();
    if target.is_empty()
        || target.contains('\0')
        || lower.starts_with("sqlite_")
        || lower.starts_with(PREFIX)
    {
        return Err(Error::config(format!(
            "connectors.{}.table: SQLite cannot have a table {target:?} of ours: give another name, not \
             empty and without sqlite_ or {PREFIX} in front",
            spec.connector
        )));
    }
    let mut names = HashSet::new();
    for column in &spec.model.columns {
        if !names.insert(column.name.to_ascii_lowercase()) {
            return Err(Error::config(format!(
                "column {} of {target:?} is there twice: SQLite does not tell upper from lower case",
                column.name
            )));
        }
    }
    match spec.model.key_columns().find(|column| !column.ty.can_be_key()) {
        Some(column) => Err(Error::config(format!(
            "column {} of {target:?} cannot be a key column: {} has no exact equality",
            column.name, column.ty
        ))),
        None => Ok(()),
    }
}

/// The statement that makes the table.
pub(crate) fn create_table(target: &str, model: &Model) -> String {
    let mut lines: Vec<String> = Vec::with_capacity(model.columns.len() + 1);
    for (at, column) in model.columns.iter().enumerate() {
        let not_null = if model.key.contains(&at) { " NOT NULL" } else { "" };
        lines.push(format!("  {} {}{not_null}", quote(&column.name), storage(&column.ty)));
    }
    let key: Vec<String> = model.key_columns().map(|column| quote(&column.name)).collect();
    lines.push(format!("  PRIMARY KEY ({})", key.join(", ")));
    format!("CREATE TABLE {} (\n{}\n) STRICT", quote(target), lines.join(",\n"))
}

/// The statements that make the table and its indexes.
pub(crate) fn create(target: &str, model: &Model) -> Vec<String> {
    std::iter::once(create_table(target, model)).chain(indexes(target, model)).collect()
}

/// Makes the indexes that are missing.
pub(crate) fn create_indexes(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<()> {
    let indexes = indexes(&spec.target, &spec.model);
    indexes.iter().try_for_each(|statement| tx.execute(statement, []).map(drop).map_err(sql))
}

/// The name of an index of the projection.
pub(crate) fn index_name(target: &str, columns: &[&str]) -> String {
    format!("{target}_{}_idx", columns.join("_"))
}

fn indexes(target: &str, model: &Model) -> Vec<String> {
    let single = model.columns.iter().filter(|column| column.index).map(|column| vec![column]);
    let several = model
        .indexes
        .iter()
        .map(|index| index.iter().filter_map(|&at| model.columns.get(at)).collect());
    let statement = |columns: Vec<&Column>| {
        let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
        let quoted: Vec<String> = names.iter().map(|name| quote(name)).collect();
        let index = quote(&index_name(target, &names));
        format!("CREATE INDEX IF NOT EXISTS {index} ON {} ({})", quote(target), quoted.join(", "))
    };
    single.chain(several).map(statement).collect()
}

/// Runs `create`, and marks the table as this life's.
pub(crate) fn create_now(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<String> {
    for statement in create(&spec.target, &spec.model) {
        tx.execute(&statement, []).map_err(sql)?;
    }
    mark(tx, &spec.target)
}

/// Leaves a trigger on the table that dies with it, and says its id.
pub(crate) fn mark(tx: &Transaction<'_>, target: &str) -> Result<String> {
    let word = || RandomState::new().hash_one(std::process::id());
    let id = format!("{:016x}{:016x}", word(), word());
    mark_as(tx, target, &id)?;
    Ok(id)
}

pub(crate) fn mark_as(tx: &Transaction<'_>, target: &str, id: &str) -> Result<()> {
    let statement = format!(
        "CREATE TRIGGER {PREFIX}{id} BEFORE DELETE ON {} WHEN 0 BEGIN SELECT 1; END",
        quote(target)
    );
    tx.execute(&statement, []).map(|_| ()).map_err(sql)
}

/// Whether the table of this life stands.
pub(crate) fn is_marked(tx: &Transaction<'_>, target: &str, id: &str) -> Result<bool> {
    let mut statement = tx.prepare_cached(include_str!("sql/is_marked.sql")).map_err(sql)?;
    statement.exists((format!("{PREFIX}{id}"), target)).map_err(sql)
}

/// Whether a table or a view of that name stands there, whoever's it is.
pub(crate) fn stands(tx: &Transaction<'_>, name: &str) -> Result<bool> {
    let mut statement = tx.prepare(include_str!("sql/table_or_view.sql")).map_err(sql)?;
    statement.exists([name]).map_err(sql)
}

/// The user's own triggers, which may change what is written, or leave it out.
pub(crate) fn triggers(tx: &Transaction<'_>, target: &str) -> Result<Vec<String>> {
    let mut statement = tx.prepare_cached(include_str!("sql/triggers.sql")).map_err(sql)?;
    let names = statement.query_map((target, PREFIX), |row| row.get(0)).map_err(sql)?;
    names.collect::<rusqlite::Result<_>>().map_err(sql)
}

/// Rises with every change of the database's schema, whoever makes it.
pub(crate) fn version(tx: &Transaction<'_>) -> Result<i64> {
    tx.pragma_query_value(None, "schema_version", |row| row.get(0)).map_err(sql)
}

/// What stands under the target's name; an unmarked table has an empty id.
pub(crate) fn find(tx: &Transaction<'_>, target: &str) -> Result<Option<binding::Found>> {
    let kind: Option<(String, Option<String>)> = tx
        .query_row(include_str!("sql/table_or_view.sql"), [target], |row| {
            Ok((row.get("type")?, row.get("sql")?))
        })
        .optional()
        .map_err(sql)?;
    let Some((kind, ddl)) = kind else { return Ok(None) };
    let is_virtual = ddl.is_some_and(|ddl| ddl.to_ascii_uppercase().starts_with("CREATE VIRTUAL"));
    if kind != "table" || is_virtual {
        return Err(Error::config(format!(
            "{target:?} is a view or a virtual table: Foldline writes to a plain table; give the \
             connector another name"
        )));
    }
    let physical: Option<String> = tx
        .query_row(include_str!("sql/mark.sql"), (target, PREFIX), |row| row.get(0))
        .optional()
        .map_err(sql)?;
    let exists = format!("SELECT EXISTS (SELECT 1 FROM {})", quote(target));
    let has_rows = tx.query_row(&exists, [], |row| row.get(0)).map_err(sql)?;
    Ok(Some(binding::Found { physical: physical.unwrap_or_default(), has_rows }))
}

/// The same of a table that is to be taken as it is: marked, if it was not.
pub(crate) fn find_marked(tx: &Transaction<'_>, target: &str) -> Result<Option<binding::Found>> {
    let Some(found) = find(tx, target)? else { return Ok(None) };
    let physical = match found.physical {
        unmarked if unmarked.is_empty() => mark(tx, target)?,
        marked => marked,
    };
    Ok(Some(binding::Found { physical, ..found }))
}

/// A column that stands there.
struct Found {
    name: String,
    ty: String,
    not_null: bool,
    no_default: bool,
    /// Its place in the primary key, from 1 on, or 0.
    key_place: i64,
}

impl Found {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Found {
            name: row.get("name")?,
            ty: row.get("type")?,
            not_null: row.get("not_null")?,
            no_default: row.get("no_default")?,
            key_place: row.get("key_place")?,
        })
    }

    fn is(&self, column: &Column) -> bool {
        self.name.eq_ignore_ascii_case(&column.name)
    }
}

fn columns(tx: &Transaction<'_>, table: &str) -> Result<Vec<Found>> {
    let mut statement = tx.prepare(include_str!("sql/columns.sql")).map_err(sql)?;
    let columns = statement.query_map([table], Found::read).map_err(sql)?;
    columns.collect::<rusqlite::Result<_>>().map_err(sql)
}

/// The model's columns that the table does not let be null, but for its key's.
pub(crate) fn filled<'m>(
    tx: &Transaction<'_>,
    table: &str,
    model: &'m Model,
) -> Result<Vec<&'m str>> {
    let there = columns(tx, table)?;
    let filled = |column: &&Column| there.iter().any(|found| found.not_null && found.is(column));
    let rest = model.columns.iter().enumerate().filter(|(at, _)| !model.key.contains(at));
    Ok(rest.map(|(_, column)| column).filter(filled).map(|column| &*column.name).collect())
}

/// A key column to which two keys can be one: its name, and the collation that says so.
fn merged(tx: &Transaction<'_>, table: &str, model: &Model) -> Result<Option<(String, String)>> {
    // The collation of the key's index is its own; that of the column decides what `=` finds.
    let mut statement = tx.prepare(include_str!("sql/merging_key_column.sql")).map_err(sql)?;
    let of_index =
        statement.query_row([table], |row| Ok((row.get("name")?, row.get("collation")?)));
    if let Some(found) = of_index.optional().map_err(sql)? {
        return Ok(Some(found));
    }
    for column in model.key_columns() {
        let metadata = tx.column_metadata(None, table, &*column.name).map_err(sql)?;
        let collation = metadata.1.map_or(Cow::Borrowed("BINARY"), |name| name.to_string_lossy());
        if !collation.eq_ignore_ascii_case("BINARY") {
            return Ok(Some((column.name.to_string(), collation.into_owned())));
        }
    }
    Ok(None)
}

/// What of the model the table does not have; an error where it has it otherwise.
fn missing<'m>(
    tx: &Transaction<'_>,
    spec: &'m TargetSpec,
    target: &str,
) -> Result<Vec<&'m Column>> {
    let model = &spec.model;
    let there = columns(tx, target)?;
    let wrong = |what: String| {
        Err(Error::config(format!(
            "table {target:?} does not fit projection of connector {:?}: {what}; `foldline plan {}` shows \
             the table that it needs",
            spec.connector, spec.connector
        )))
    };
    let mut key: Vec<&Found> = there.iter().filter(|found| found.key_place > 0).collect();
    key.sort_by_key(|found| found.key_place);
    let key: Vec<String> = key.iter().map(|found| found.name.to_lowercase()).collect();
    let wanted: Vec<String> =
        model.key_columns().map(|column| column.name.to_lowercase()).collect();
    if key != wanted {
        return wrong(format!(
            "its primary key is ({}), not ({})",
            key.join(", "),
            wanted.join(", ")
        ));
    }
    if let Some((column, collation)) = merged(tx, target, model)? {
        return wrong(format!(
            "key column {column} is COLLATE {collation}, by which two keys can be one row: make the table \
             anew with COLLATE BINARY, or let `foldline rebuild {} --in-place` do so",
            spec.connector
        ));
    }
    let mut missing = Vec::new();
    for column in &model.columns {
        let Some(found) = there.iter().find(|found| found.is(column)) else {
            missing.push(column);
            continue;
        };
        if !found.ty.eq_ignore_ascii_case(storage(&column.ty)) {
            return wrong(format!(
                "column {} is {}, and {} is kept as {}",
                found.name,
                found.ty,
                column.ty,
                storage(&column.ty)
            ));
        }
    }
    let mut others = there.iter().filter(|found| !model.columns.iter().any(|c| found.is(c)));
    match others.find(|found| found.not_null && found.no_default) {
        Some(found) => {
            wrong(format!("column {} must be filled, and the projection has none", found.name))
        }
        None => Ok(missing),
    }
}

/// Where the table differs from the plan: the first misfit, or the columns that it lacks.
pub(crate) fn differences(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<Vec<String>> {
    if find(tx, &spec.target)?.is_none() {
        return Ok(vec![format!("table {:?} does not exist", spec.target)]);
    }
    Ok(match missing(tx, spec, &spec.target) {
        Ok(columns) => {
            let sentence =
                |c: &&Column| format!("column {} ({}) is missing", c.name, storage(&c.ty));
            columns.iter().map(sentence).collect()
        }
        Err(error) if error.class() == ErrorClass::Config => vec![error.message().to_owned()],
        Err(error) => return Err(error),
    })
}

/// Checks a table that is there already. Columns of the user's own may be there too, if they may stay
/// empty.
pub(crate) fn check_table(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<()> {
    check_named(tx, spec, &spec.target)
}

/// The same of the table that a generation of it has.
pub(crate) fn check_named(tx: &Transaction<'_>, spec: &TargetSpec, table: &str) -> Result<()> {
    match missing(tx, spec, table)?.first() {
        Some(column) => Err(Error::config(format!(
            "table {table:?} has no column {} of type {}; `foldline plan {}` shows the table that it needs",
            column.name,
            storage(&column.ty),
            spec.connector
        ))),
        None => Ok(()),
    }
}

/// Adds the columns that the table has not, and the indexes; one sentence for each column.
pub(crate) fn extend(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<Vec<String>> {
    let notices = add_columns(tx, spec)?;
    create_indexes(tx, spec)?;
    Ok(notices)
}

/// Adds the columns that the table has not; one sentence for each.
pub(crate) fn add_columns(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    for column in missing(tx, spec, &spec.target)? {
        let statement = format!(
            "ALTER TABLE {} ADD COLUMN {} {}{}",
            quote(&spec.target),
            quote(&column.name),
            storage(&column.ty),
            default_of(column)
        );
        tx.execute(&statement, []).map_err(sql)?;
        notices.push(format!("added column {} to {:?}", column.name, spec.target));
    }
    Ok(notices)
}

/// A new column of old rows holds what a new row's would.
fn default_of(column: &Column) -> String {
    use crate::codec::{Cell, encode};
    match encode(&column.ty, &column.default) {
        Cell::Null => String::new(),
        Cell::Int(int) => format!(" DEFAULT {int}"),
        Cell::Real(real) => format!(" DEFAULT {real:e}"),
        Cell::Text(text) => format!(" DEFAULT '{}'", text.replace('\'', "''")),
        Cell::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!(" DEFAULT x'{hex}'")
        }
    }
}

/// Empties the table, or makes it anew where it does not fit the model; its id.
pub(crate) fn empty(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<String> {
    let target = quote(&spec.target);
    let Some(found) = find(tx, &spec.target)? else {
        return create_now(tx, spec);
    };
    if check_table(tx, spec).is_err() {
        tx.execute(&format!("DROP TABLE {target}"), []).map_err(sql)?;
        return create_now(tx, spec);
    }
    // Without a trigger on DELETE SQLite drops the pages whole and does not visit each row.
    if !found.physical.is_empty() {
        tx.execute(&format!("DROP TRIGGER {PREFIX}{}", found.physical), []).map_err(sql)?;
    }
    tx.execute(&format!("DELETE FROM {target}"), []).map_err(sql)?;
    create_indexes(tx, spec)?;
    match found.physical {
        id if id.is_empty() => mark(tx, &spec.target),
        id => mark_as(tx, &spec.target, &id).map(|()| id),
    }
}
