//! What a journal reads into its copy, and out of it.

use std::sync::Arc;

use foldline_api::binding::Binding;
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::schemas::KeptSchema;
use foldline_api::sink::TargetSpec;
use foldline_api::{Error, Result};
use rusqlite::{Transaction, params_from_iter};
use serde_json::Value as Json;

use crate::books;
use crate::codec::{decode_row, encode_key, encode_row};
use crate::database::sql;
use crate::generations::{self, Generation, name_in};
use crate::journal::{POSITIONS, Table};
use crate::kept::kept;
use crate::schema::{self, quote};

/// A copy within a transaction.
pub struct Replica<'t> {
    tx: &'t Transaction<'t>,
    spec: &'t TargetSpec,
}

/// What stands of the log's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// Those that the books are of.
    Same,
    /// Others: what was put in their place.
    Other,
    /// None.
    Nothing,
}

impl std::fmt::Debug for Replica<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("target", &self.spec.target).finish_non_exhaustive()
    }
}

impl<'t> Replica<'t> {
    pub(crate) fn new(tx: &'t Transaction<'t>, spec: &'t TargetSpec) -> Self {
        Replica { tx, spec }
    }

    /// The read model.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.spec.model
    }

    /// Whose the target is.
    ///
    /// # Errors
    /// Where the books cannot be read.
    pub fn binding(&self) -> Result<Option<Binding>> {
        books::binding(self.tx, &self.spec.target)
    }

    /// What the ids of schemas stood for.
    ///
    /// # Errors
    /// Where the books cannot be read.
    pub fn schemas(&self) -> Result<Vec<KeptSchema>> {
        kept(self.tx, &self.spec.target)
    }

    /// Takes an entry of the books over, or takes it away. A position of a build that stands here stays: it is where this
    /// copy's rows of it are, unless something else of the build comes from elsewhere, by which it begins anew.
    ///
    /// # Errors
    /// A config error where there is no such table.
    pub fn put_entry(&self, table: &str, key: &str, row: Option<&str>) -> Result<()> {
        let table = Table::of(table).ok_or_else(|| {
            Error::config(format!("the books of {:?} are not of this version", self.spec.target))
        })?;
        let name = table.name;
        if table.keys > 3 && self.is_build(key)? {
            self.begin_build_anew()?;
        }
        let Some(row) = row else {
            let text = format!("DELETE FROM {name} WHERE {}", table.has_key());
            return self.execute(&text, key);
        };
        let columns = table.columns.join(", ");
        let values = table.columns.iter().map(|column| format!("json_extract(?1, '$.{column}')"));
        let values = values.collect::<Vec<_>>().join(", ");
        let keep = name == POSITIONS && self.is_build(key)?;
        let or = if keep { "OR IGNORE" } else { "OR REPLACE" };
        self.execute(&format!("INSERT {or} INTO {name} ({columns}) VALUES ({values})"), row)
    }

    fn execute(&self, text: &str, param: &str) -> Result<()> {
        let mut statement = self.tx.prepare_cached(text).map_err(sql)?;
        statement.execute([param]).map(drop).map_err(sql)
    }

    /// Whether an entry's key is of the build that stands here.
    fn is_build(&self, key: &str) -> Result<bool> {
        let Some(build) = self.build()? else { return Ok(false) };
        let key: Json = serde_json::from_str(key).unwrap_or_default();
        let of = key.get(1).and_then(Json::as_u64);
        Ok(of == Some(build.number) && schema::find(self.tx, &build.relation)?.is_some())
    }

    fn build(&self) -> Result<Option<Generation>> {
        generations::build(self.tx, &self.spec.target)
    }

    fn begin_build_anew(&self) -> Result<()> {
        let Some(build) = self.build()? else { return Ok(()) };
        self.drop_table(&build.relation)?;
        let (target, number) = (&self.spec.target, build.number.cast_signed());
        for table in ["_foldline_parked", "_foldline_bad_records"] {
            let text = format!("DELETE FROM {table} WHERE target = ?1 AND generation = ?2");
            self.tx.execute(&text, (target, number)).map_err(sql)?;
        }
        let text = "UPDATE _foldline_positions SET position = beginning, epoch = epoch + 1 WHERE target = ?1 AND \
                    generation = ?2";
        self.tx.execute(text, (target, number)).map(drop).map_err(sql)
    }

    fn drop_table(&self, table: &str) -> Result<()> {
        let text = format!("DROP TABLE IF EXISTS {}", quote(table));
        self.tx.execute_batch(&text).map_err(sql)
    }

    /// Makes the tables that the books know; whether the live one is empty and to be read from the beginning.
    ///
    /// # Errors
    /// Where SQLite does not make them.
    pub fn settle(&self, stands: Stands) -> Result<bool> {
        self.settle_builds()?;
        let target = &self.spec.target;
        let Some(binding) = self.binding()? else {
            return self.drop_table(target).map(|()| false);
        };
        let found = schema::find(self.tx, target)?;
        let mark = match stands {
            Stands::Same => binding.physical.as_str(),
            Stands::Other => "",
            Stands::Nothing => return self.drop_table(target).map(|()| false),
        };
        let columns = self.stored_columns(&binding.projection);
        if found.is_some_and(|found| found.physical == mark)
            && columns.len() == self.there(target)?.len()
        {
            return Ok(false);
        }
        self.drop_table(target)?;
        self.make(target, columns, mark)?;
        Ok(true)
    }

    fn make(&self, table: &str, columns: Vec<Column>, mark: &str) -> Result<()> {
        let key = self
            .model()
            .key_columns()
            .filter_map(|key| columns.iter().position(|column| column.name == key.name));
        let model = Model { key: key.collect(), columns, indexes: Vec::new() };
        self.tx.execute_batch(&schema::create_table(table, &model)).map_err(sql)?;
        if mark.is_empty() { Ok(()) } else { schema::mark_as(self.tx, table, mark) }
    }

    /// The tables of the builds that the books know, and no others.
    fn settle_builds(&self) -> Result<()> {
        let target = &self.spec.target;
        let known = generations::beside(self.tx, target)?;
        let mut select = self
            .tx
            .prepare(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE ?1 ESCAPE '!'",
            )
            .map_err(sql)?;
        let like =
            format!("{}!_!_g%", target.replace('!', "!!").replace('_', "!_").replace('%', "!%"));
        let there = select.query_map([like], |row| row.get(0)).map_err(sql)?;
        let there: Vec<String> = there.collect::<rusqlite::Result<_>>().map_err(sql)?;
        for table in &there {
            let stays = |one: &Generation| {
                one.relation == *table
                    && schema::is_marked(self.tx, table, &one.physical).unwrap_or(false)
            };
            if !known.iter().any(stays) {
                self.drop_table(table)?;
            }
        }
        let Some(build) = self.build()? else { return Ok(()) };
        let relation = name_in(target, build.number);
        if build.fingerprint == self.spec.fingerprint && schema::find(self.tx, &relation)?.is_none()
        {
            // Its rows, where there were any, are not here.
            self.begin_build_anew()?;
            self.make(&relation, self.model().columns.clone(), &build.physical)?;
        }
        Ok(())
    }

    /// Of the model, what the projection that built the rows has too.
    fn stored_columns(&self, projection: &Json) -> Vec<Column> {
        let stored = projection.get("columns").and_then(Json::as_array);
        let name = |column: &Json| column.get("name").and_then(Json::as_str).map(str::to_owned);
        let names: Option<Vec<String>> = stored.map(|list| list.iter().filter_map(name).collect());
        let is_key =
            |column: &Column| self.model().key_columns().any(|key| key.name == column.name);
        let stays = |column: &&Column| {
            is_key(column)
                || names
                    .as_ref()
                    .is_none_or(|names| names.iter().any(|name| **name == *column.name))
        };
        self.model().columns.iter().filter(stays).cloned().collect()
    }

    /// The columns of a table.
    fn there(&self, table: &str) -> Result<Vec<String>> {
        let mut select = self.tx.prepare("SELECT name FROM pragma_table_info(?1)").map_err(sql)?;
        let names = select.query_map([table], |row| row.get(0)).map_err(sql)?;
        names.collect::<rusqlite::Result<_>>().map_err(sql)
    }

    /// Whether there is a table of the live generation.
    ///
    /// # Errors
    /// Where SQLite does not tell.
    pub fn has_table(&self) -> Result<bool> {
        Ok(schema::find(self.tx, &self.spec.target)?.is_some())
    }

    /// Takes rows of the live generation over, the last of a key wins; none takes its row away.
    ///
    /// # Errors
    /// Where SQLite refuses.
    pub fn put_rows(&self, rows: &[(Key, Option<Row>)]) -> Result<()> {
        let (target, model) = (&self.spec.target, self.model());
        let there = self.there(target)?;
        let kept: Vec<usize> = (0..model.columns.len())
            .filter(|at| there.iter().any(|name| **name == *model.columns[*at].name))
            .collect();
        let names: Vec<String> = kept.iter().map(|at| quote(&model.columns[*at].name)).collect();
        let slots: Vec<String> = (1..=kept.len()).map(|slot| format!("?{slot}")).collect();
        let put = format!(
            "INSERT OR REPLACE INTO {} ({}) VALUES ({})",
            quote(target),
            names.join(", "),
            slots.join(", ")
        );
        let key = model.key_columns().enumerate();
        let key = key.map(|(at, column)| format!("{} = ?{}", quote(&column.name), at + 1));
        let key = key.collect::<Vec<_>>().join(" AND ");
        let take = format!("DELETE FROM {} WHERE {key}", quote(target));
        let mut put = self.tx.prepare_cached(&put).map_err(sql)?;
        let mut take = self.tx.prepare_cached(&take).map_err(sql)?;
        for (key, row) in rows {
            match row {
                Some(row) => {
                    let cells = encode_row(model, row);
                    let cells = kept.iter().filter_map(|at| cells.get(*at));
                    put.execute(params_from_iter(cells)).map_err(sql)?;
                }
                None => {
                    take.execute(params_from_iter(encode_key(model, key))).map_err(sql)?;
                }
            }
        }
        Ok(())
    }

    /// Shows each row of the live generation.
    ///
    /// # Errors
    /// Those of `show`, and where a row cannot be read.
    pub fn each_row(&self, mut show: impl FnMut(Key, Row) -> Result<()>) -> Result<()> {
        let model = self.model();
        let names: Vec<String> = model.columns.iter().map(|c| quote(&c.name)).collect();
        let text = format!("SELECT {} FROM {}", names.join(", "), quote(&self.spec.target));
        let mut select = self.tx.prepare(&text).map_err(sql)?;
        let mut rows = select.query([]).map_err(sql)?;
        while let Some(stored) = rows.next().map_err(sql)? {
            let row = decode_row(model, stored, |_| ())?;
            show(model.key_of(&row), row)?;
        }
        Ok(())
    }

    /// A table of texts and what was found by them, which goes with the transaction's connection.
    ///
    /// # Errors
    /// Where SQLite does not make it.
    pub fn scratch(&self) -> Result<Scratch<'_>> {
        self.tx
            .execute_batch(
                "DROP TABLE IF EXISTS temp._foldline_scratch; CREATE TEMP TABLE _foldline_scratch (key BLOB PRIMARY \
                 KEY, value BLOB NOT NULL) WITHOUT ROWID",
            )
            .map_err(sql)?;
        Ok(Scratch { tx: self.tx })
    }
}

/// Values by key, on disk where they are many.
#[derive(Debug)]
pub struct Scratch<'t> {
    tx: &'t Transaction<'t>,
}

impl Scratch<'_> {
    /// Puts a value, or takes it away.
    ///
    /// # Errors
    /// Where SQLite refuses.
    pub fn put(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let text = match value {
            Some(_) => "INSERT OR REPLACE INTO _foldline_scratch VALUES (?1, ?2)",
            None => "DELETE FROM _foldline_scratch WHERE key = ?1 AND ?2 IS NULL",
        };
        let mut statement = self.tx.prepare_cached(text).map_err(sql)?;
        statement.execute((key, value)).map(drop).map_err(sql)
    }

    /// Takes a value out.
    ///
    /// # Errors
    /// Where SQLite refuses.
    pub fn take(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>> {
        let text = "DELETE FROM _foldline_scratch WHERE key = ?1 RETURNING value";
        let mut statement = self.tx.prepare_cached(text).map_err(sql)?;
        let mut rows = statement.query([key]).map_err(sql)?;
        let Some(row) = rows.next().map_err(sql)? else { return Ok(None) };
        let value: Vec<u8> = row.get(0).map_err(sql)?;
        Ok(Some(value.into()))
    }

    /// Shows each key that is left.
    ///
    /// # Errors
    /// Those of `show`.
    pub fn each_key(&self, mut show: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut select =
            self.tx.prepare("SELECT key FROM _foldline_scratch ORDER BY key").map_err(sql)?;
        let mut rows = select.query([]).map_err(sql)?;
        while let Some(row) = rows.next().map_err(sql)? {
            let key: Vec<u8> = row.get(0).map_err(sql)?;
            show(&key)?;
        }
        Ok(())
    }
}
