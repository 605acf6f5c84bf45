//! One task's hold on the table: flushes as single transactions.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use foldline_api::expiry::{Horizon, Rule};
use foldline_api::failpoint::Failpoint;
use foldline_api::model::{Key, Model};
use foldline_api::parked::Which;
use foldline_api::rebuild::{Phase, Role};
use foldline_api::record::TopicPartition;
use foldline_api::sink::{
    Acquired, Beginning, Flush, Loaded, Marks, Refreshed, RowWrite, StoredPosition, TargetSpec,
    Version, Versions, Writer, Written,
};
use foldline_api::{Error, ErrorClass, Result};
use rusqlite::{CachedStatement, Transaction, params_from_iter};

use crate::books;
use crate::codec::{Cell, Fingerprint, decode_versioned, encode_key, encode_row};
use crate::database::{Access, Database, End, sql};
use crate::generations;
use crate::hole;
use crate::letters;
use crate::parking;
use crate::schema::{self, quote};
use crate::target::bound;
use crate::verdicts;

/// The statements over the user's table.
#[derive(Debug)]
pub(crate) struct Statements {
    select: String,
    insert: String,
    /// None where all columns are key columns: there is nothing to update.
    update: Option<String>,
    delete: String,
    any: String,
}

impl Statements {
    pub(crate) fn new(table: &str, model: &Model) -> Self {
        let table = quote(table);
        let columns: Vec<String> = model.columns.iter().map(|c| quote(&c.name)).collect();
        let key: Vec<String> = model.key_columns().map(|c| quote(&c.name)).collect();
        let slots: Vec<String> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
        let by_key = |first: usize| {
            let equal =
                key.iter().enumerate().map(|(at, name)| format!("{name} = ?{}", first + at));
            equal.collect::<Vec<_>>().join(" AND ")
        };
        let rest = (0..columns.len()).filter(|at| !model.key.contains(at));
        let rest: Vec<&String> = rest.filter_map(|at| columns.get(at)).collect();
        let set: Vec<String> =
            rest.iter().enumerate().map(|(at, name)| format!("{name} = ?{}", at + 1)).collect();
        let all = columns.join(", ");
        Statements {
            select: format!("SELECT {all} FROM {table} WHERE {}", by_key(1)),
            insert: format!(
                "INSERT INTO {table} ({all}) VALUES ({}) ON CONFLICT ({}) DO NOTHING",
                slots.join(", "),
                key.join(", ")
            ),
            update: (!set.is_empty()).then(|| {
                format!("UPDATE {table} SET {} WHERE {}", set.join(", "), by_key(set.len() + 1))
            }),
            delete: format!("DELETE FROM {table} WHERE {}", by_key(1)),
            any: format!("SELECT 1 FROM {table} LIMIT 1"),
        }
    }

    pub(crate) fn into_texts(self) -> Vec<String> {
        [Some(self.select), Some(self.insert), self.update, Some(self.delete)]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Reads rows whose column lies before a moment.
pub(crate) fn past_sql(table: &str, model: &Model, rule: &Rule) -> Option<String> {
    let names: Vec<String> = model.columns.iter().map(|column| quote(&column.name)).collect();
    let (names, table) = (names.join(", "), quote(table));
    let field = quote(&model.columns.get(rule.column)?.name);
    Some(format!("SELECT {names} FROM {table} WHERE {field} < ?1 ORDER BY {field} LIMIT ?2"))
}

/// A writer on one generation of a table.
#[derive(Debug)]
pub(crate) struct SqliteWriter {
    database: Arc<Database>,
    pub(crate) hold: Arc<Hold>,
}

/// What a writer knows of its generation.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) spec: Arc<TargetSpec>,
    statements: Statements,
    pub(crate) generation: u64,
    /// The name of its table where it is being built, not live.
    relation: Option<String>,
    fit: Mutex<Option<Fit>>,
}

/// When the table was seen to fit.
#[derive(Debug)]
struct Fit {
    /// The version of the database's schema.
    version: i64,
    /// The columns that the table did not let be null when it was seen first.
    filled: Vec<String>,
}

impl SqliteWriter {
    pub(crate) fn new(database: Arc<Database>, hold: Hold) -> Self {
        SqliteWriter { database, hold: Arc::new(hold) }
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        access: Access,
        act: impl Fn(&Transaction<'_>, &Hold) -> Result<End<T>> + Send + 'static,
    ) -> Result<T> {
        self.run_with(access, None, act).await
    }

    async fn run_with<T: Send + 'static>(
        &self,
        access: Access,
        flush: Option<&Arc<Flush>>,
        act: impl Fn(&Transaction<'_>, &Hold) -> Result<End<T>> + Send + 'static,
    ) -> Result<T> {
        let hold = Arc::clone(&self.hold);
        let access = match access {
            Access::Write if hold.relation.is_some() => Access::Beside,
            access => access,
        };
        self.database.run_with(access, flush, move |tx| act(tx, &hold)).await
    }
}

impl Hold {
    /// A hold on the live generation, or on the one that is being built in table `relation`.
    pub(crate) fn new(spec: Arc<TargetSpec>, generation: u64, relation: Option<String>) -> Self {
        let table = relation.as_deref().unwrap_or(&spec.target);
        let statements = Statements::new(table, &spec.model);
        Hold { statements, spec, generation, relation, fit: Mutex::default() }
    }

    /// Whether it is of a generation that is not live yet.
    pub(crate) fn is_built(&self) -> bool {
        self.relation.is_some()
    }

    pub(crate) fn table(&self) -> &str {
        self.relation.as_deref().unwrap_or(&self.spec.target)
    }

    /// The generation is live, or still being built, and its table stands.
    ///
    /// # Errors
    /// Class Fenced otherwise: the worker opens the target anew.
    pub(crate) fn check_live(&self, tx: &Transaction<'_>) -> Result<books::Live> {
        let target = &self.spec.target;
        let live = match &self.relation {
            None => books::live(tx, target)?,
            Some(_) => generations::build(tx, target)?.map(|build| books::Live {
                generation: build.number,
                physical: build.physical,
                fingerprint: build.fingerprint,
            }),
        };
        let Some(live) = live.filter(|live| live.generation == self.generation) else {
            return Err(Error::fenced(format!("generation {} is over", self.generation)));
        };
        if !schema::is_marked(tx, self.table(), &live.physical)? {
            return Err(Error::fenced(format!("table {:?} was dropped or replaced", self.table())));
        }
        Ok(live)
    }

    /// The table still is what it was when this task took it: whatever a column that was lost or tightened
    /// would refuse, no record is to blame. Nobody changes it before the transaction ends.
    ///
    /// # Errors
    /// A config error that names the column.
    pub(crate) fn check_fit(&self, tx: &Transaction<'_>) -> Result<()> {
        let version = schema::version(tx)?;
        let mut known = self.fit.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_some_and(|fit| fit.version == version) {
            return Ok(());
        }
        let (table, spec) = (self.table(), &self.spec);
        schema::check_named(tx, spec, table)?;
        let filled = schema::filled(tx, table, &spec.model)?;
        let Some(fit) = known.as_mut() else {
            let filled = filled.into_iter().map(ToOwned::to_owned).collect();
            *known = Some(Fit { version, filled });
            return Ok(());
        };
        if let Some(column) = filled.iter().find(|column| !fit.filled.iter().any(|f| f == *column))
        {
            return Err(Error::config(format!(
                "column {column} of table {table:?} was made NOT NULL under the running connector {:?}: take that \
                 back, or accept it with `foldline restart {}`",
                spec.connector, spec.connector
            )));
        }
        fit.version = version;
        Ok(())
    }

    fn acquire(&self, tx: &Transaction<'_>, claims: &[Beginning]) -> Result<Acquired> {
        let target = &self.spec.target;
        if self.check_live(tx)?.fingerprint != self.spec.fingerprint {
            return Err(Error::fenced(format!("{target:?} is built by another projection now")));
        }
        bound(tx, &self.spec)?;
        let build = generations::build(tx, target)?;
        let held = build.is_some_and(|build| build.role == Role::Build(Phase::Holding));
        if held && self.relation.is_none() {
            return Err(Error::retriable(format!(
                "{target:?} is held: its next generation is about to take its place"
            )));
        }
        self.check_fit(tx)?;
        self.observe(tx, true)?;
        books::begin(tx, target, self.generation, claims)?;
        let mut acquired = Acquired::default();
        for claim in claims {
            let lease = books::take(tx, target, self.generation, &claim.partition)?;
            acquired.verdicts.extend(verdicts::open(tx, target, self.generation, &lease)?);
            acquired.leases.push(lease);
        }
        // What stands on the live table will stand on this one, once it takes its place.
        let tables = [self.table(), target];
        acquired.verdicts = verdicts::judge(tx, &self.spec, &tables, acquired.verdicts)?;
        let which = Which {
            partitions: Some(claims.iter().map(|claim| claim.partition.clone()).collect()),
            asked: false,
        };
        acquired.holes = hole::holes(tx, target, self.generation)?;
        acquired.holes.retain(|hole| claims.iter().any(|claim| claim.partition == hole.partition));
        acquired.parked = parking::parked(tx, target, self.generation, &which)?;
        acquired.empty = !tx.prepare(&self.statements.any).map_err(sql)?.exists([]).map_err(sql)?;
        Ok(acquired)
    }

    /// See [`Writer::load_some`].
    pub(crate) fn load(
        &self,
        tx: &Transaction<'_>,
        keys: &[Key],
        bytes_max: usize,
    ) -> Result<Vec<Loaded>> {
        self.check_live(tx)?;
        self.check_fit(tx)?;
        let model = &self.spec.model;
        let mut select = tx.prepare_cached(&self.statements.select).map_err(sql)?;
        let mut print = Fingerprint::default();
        let (mut out, mut bytes) = (Vec::with_capacity(keys.len()), 0_usize);
        for key in keys {
            if bytes >= bytes_max && !out.is_empty() {
                break;
            }
            let mut rows = select.query(params_from_iter(encode_key(model, key))).map_err(sql)?;
            let Some(stored) = rows.next().map_err(sql)? else {
                out.push(Loaded::absent());
                continue;
            };
            let (row, version) = decode_versioned(model, stored, &mut print)?;
            let loaded = Loaded { row: Some(row), version, marks: Marks::new() };
            bytes = bytes.saturating_add(loaded.heap_bytes());
            out.push(loaded);
        }
        Ok(out)
    }

    fn write(&self, tx: &Transaction<'_>, flush: &Flush) -> Result<End<Written>> {
        let target = &self.spec.target;
        self.check_live(tx)?;
        let joined = self.joined(tx, flush)?;
        let flush = joined.as_ref().unwrap_or(flush);
        let owners = self.owners_before(tx, flush)?;
        for step in &flush.advances {
            if !books::advance(tx, target, self.generation, step)? {
                return Ok(End::RollBack(Written::Fenced));
            }
        }
        self.check_fit(tx)?;
        let triggers = schema::triggers(tx, self.table())?;
        let mut rows = Rows::prepare(tx, self, !triggers.is_empty())?;
        let mut versions = Vec::with_capacity(flush.writes.len());
        for write in &flush.writes {
            match rows.write(write)? {
                Put::At(version) => versions.push(version),
                Put::Elsewhere => {
                    return Ok(End::RollBack(Written::Conflict { written: Vec::new() }));
                }
                Put::Refused => {
                    return Ok(End::RollBack(Written::Rejected(self.refused(&triggers))));
                }
            }
        }
        for check in &flush.checks {
            if rows.version(&encode_key(&self.spec.model, &check.key))? != check.version {
                return Ok(End::RollBack(Written::Conflict { written: Vec::new() }));
            }
        }
        drop(rows);
        verdicts::keep(tx, target, self.generation, &flush.verdicts)?;
        letters::keep(tx, target, self.generation, &flush.bad)?;
        parking::change(tx, target, self.generation, &flush.parking)?;
        self.note_followers(tx, flush)?;
        self.note_owners(tx, flush, owners)?;
        let versions =
            if triggers.is_empty() { Versions::Each(versions) } else { Versions::Unknown };
        Failpoint::BeforePositions.reach();
        Ok(End::Commit(Written::Durable(versions)))
    }

    /// A row was at its version and is not as it was written.
    fn refused(&self, triggers: &[String]) -> Error {
        Error::record(format!(
            "table {:?}: a trigger does not let the row be written ({})",
            self.table(),
            triggers.join(", ")
        ))
    }
}

/// What became of one row.
enum Put {
    /// It is as it was to be, at this version.
    At(Version),
    /// It is not at the version it was folded from.
    Elsewhere,
    /// It was, and a trigger left it as it was.
    Refused,
}

/// The statements of one flush, prepared.
struct Rows<'t> {
    hold: &'t Hold,
    /// The user's own triggers may leave rows out.
    triggers: bool,
    select: CachedStatement<'t>,
    insert: CachedStatement<'t>,
    update: Option<CachedStatement<'t>>,
    delete: CachedStatement<'t>,
    print: Fingerprint,
}

impl<'t> Rows<'t> {
    fn prepare(tx: &'t Transaction<'_>, hold: &'t Hold, triggers: bool) -> Result<Self> {
        let prepare = |text: &String| tx.prepare_cached(text).map_err(sql);
        Ok(Rows {
            hold,
            triggers,
            select: prepare(&hold.statements.select)?,
            insert: prepare(&hold.statements.insert)?,
            update: hold.statements.update.as_ref().map(prepare).transpose()?,
            delete: prepare(&hold.statements.delete)?,
            print: Fingerprint::default(),
        })
    }

    /// The version that a row has now.
    fn version(&mut self, key: &[Cell<'_>]) -> Result<Version> {
        let mut rows = self.select.query(params_from_iter(key)).map_err(sql)?;
        let Some(stored) = rows.next().map_err(sql)? else { return Ok(Version::Absent) };
        self.print.clear();
        for at in 0..self.hold.spec.model.columns.len() {
            self.print.add(stored.get_ref(at).map_err(sql)?);
        }
        Ok(self.print.version())
    }

    /// Writes a row if it is at the version it was folded from.
    fn write(&mut self, write: &RowWrite) -> Result<Put> {
        let model = &self.hold.spec.model;
        let key = encode_key(model, &write.key);
        if self.version_before(write, &key)? != write.version {
            return Ok(Put::Elsewhere);
        }
        let Some(row) = &write.row else {
            let gone = write.version == Version::Absent
                || self.delete.execute(params_from_iter(&key)).map_err(sql)? == 1
                    && (!self.triggers || self.version(&key)? == Version::Absent);
            return Ok(if gone { Put::At(Version::Absent) } else { Put::Refused });
        };
        let cells = encode_row(model, row);
        let wanted = self.print.of(&cells);
        let written = if write.version == Version::Absent {
            self.insert.execute(params_from_iter(&cells)).map_err(sql)?
        } else if let Some(update) = &mut self.update {
            let rest = cells.iter().enumerate().filter(|(at, _)| !model.key.contains(at));
            let rest = rest.map(|(_, cell)| cell);
            update.execute(params_from_iter(rest.chain(&key))).map_err(sql)?
        } else {
            // There is nothing but the key.
            1
        };
        if written == 1 && !self.triggers {
            return Ok(Put::At(wanted));
        }
        let now = self.version(&key)?;
        Ok(match (written, now) {
            // A trigger may do away with it, or leave it as it was: where that is as it should be, no harm is done.
            (1, now) if now != Version::Absent => Put::At(now),
            (0, now) if now == wanted && now == write.version => Put::At(now),
            (0, now) if now != write.version => Put::Elsewhere,
            _ => Put::Refused,
        })
    }

    /// The version that the row has before it is written. Of one that should not be there the insert itself
    /// tells, where no trigger could.
    fn version_before(&mut self, write: &RowWrite, key: &[Cell<'_>]) -> Result<Version> {
        if write.row.is_some() && write.version == Version::Absent && !self.triggers {
            return Ok(Version::Absent);
        }
        self.version(key)
    }
}

#[async_trait]
impl Writer for SqliteWriter {
    async fn acquire(&self, claims: &[Beginning]) -> Result<Acquired> {
        let claims = claims.to_vec();
        self.run(Access::Write, move |tx, hold| hold.acquire(tx, &claims).map(End::Commit)).await
    }

    async fn load_some(&self, keys: &[Key], bytes_max: usize) -> Result<Vec<Loaded>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        let load = move |tx: &Transaction<'_>, hold: &Hold| {
            let mut loaded = hold.load(tx, &keys, bytes_max)?;
            if let Some(joins) = &hold.spec.joins {
                loaded.iter_mut().filter_map(|it| it.row.as_mut()).for_each(|row| joins.strip(row));
            }
            Ok(End::Commit(loaded))
        };
        self.run(Access::Load, load).await
    }

    async fn write(&self, flush: &Flush) -> Result<Written> {
        let flush = Arc::new(flush.clone());
        let written = Arc::clone(&flush);
        let write = move |tx: &Transaction<'_>, hold: &Hold| hold.write(tx, &written);
        match self.run_with(Access::Write, Some(&flush), write).await {
            Err(error) if error.class() == ErrorClass::Record => {
                let code = error.code().map(str::to_owned);
                let defined = move |tx: &Transaction<'_>, hold: &Hold| {
                    let definition =
                        verdicts::definition(tx, &hold.spec, hold.table(), code.as_deref())?;
                    Ok(End::Commit(definition))
                };
                let definition = self.run(Access::Read, defined).await?;
                Ok(Written::Rejected(error.with_definition(definition)))
            }
            written => written,
        }
    }

    async fn expired(&self, horizon: Horizon, max: usize) -> Result<Vec<RowWrite>> {
        let past =
            move |tx: &Transaction<'_>, hold: &Hold| hold.past(tx, horizon, max).map(End::Commit);
        self.run(Access::Read, past).await
    }

    async fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<StoredPosition>> {
        let partitions = partitions.to_vec();
        self.run(Access::Read, move |tx, hold| {
            hold.check_live(tx)?;
            let stored = books::positions(tx, &hold.spec.target, hold.generation)?;
            let find = |p: &TopicPartition| stored.iter().find(|s| s.partition == *p).cloned();
            Ok(End::Commit(partitions.iter().filter_map(find).collect()))
        })
        .await
    }

    fn keeps_marks(&self) -> bool {
        false
    }

    async fn refresh(&self, rows_max: usize) -> Result<Refreshed> {
        self.bring_up(rows_max).await
    }
}
