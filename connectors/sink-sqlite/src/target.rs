//! One connector's table: created or checked, bound, rebuilt.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use foldline_api::binding::{Binding, Decision, check_owner, decide};
use foldline_api::parked::{Parked, Parking, Place, Request, Which};
use foldline_api::rebuild::Rebuilds;
use foldline_api::record::Record;
use foldline_api::sink::{
    Beginning, DesiredState, OnChange, Opened, Snapshot, StoredPosition, Target, TargetSpec, Writer,
};
use foldline_api::{Error, ErrorClass, Result};
use rusqlite::Transaction;

use crate::books;
use crate::database::{Access, Database, End};
use crate::generations;
use crate::parking;
use crate::rebuild;
use crate::schema;
use crate::snapshot::SqliteSnapshot;
use crate::writer::{Hold, SqliteWriter, Statements};

/// Where a SQLite sink keeps its tables.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// The database file; its folder is made if it is missing. `:memory:` lives with the process.
    pub path: PathBuf,
}

/// A table with its books, in one database file.
#[derive(Debug)]
pub struct SqliteTarget {
    database: Arc<Database>,
    pub(crate) spec: Arc<TargetSpec>,
}

/// The DDL and the statements that a connector uses: what `foldline plan` shows.
#[must_use]
pub fn plan(spec: &TargetSpec) -> Vec<String> {
    let books = books::DDL.iter().chain([&generations::DDL]);
    let mut out: Vec<String> = books.map(|statement| (*statement).to_owned()).collect();
    out.extend(schema::create(&spec.target, &spec.model));
    out.push(books::ADVANCE.to_owned());
    out.extend(Statements::new(&spec.target, &spec.model).into_texts());
    out
}

impl SqliteTarget {
    /// The target of `spec` in the database of `config`. Nothing is opened yet.
    ///
    /// # Errors
    /// A config error where SQLite cannot keep the table's name, a column or the key.
    pub fn new(config: SqliteConfig, spec: TargetSpec) -> Result<Self> {
        schema::check(&spec)?;
        Ok(SqliteTarget { database: Database::shared(&config.path), spec: Arc::new(spec) })
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        access: Access,
        act: impl FnOnce(&Transaction<'_>, &TargetSpec) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let spec = Arc::clone(&self.spec);
        let done = self.database.run(access, move |tx| act(tx, &spec).map(End::Commit)).await;
        done.map_err(|error| match error.class() {
            // No record is to blame for what the table refuses before one was read.
            ErrorClass::Record => Error::config(error.message()).with_source(error),
            _ => error,
        })
    }
}

fn unopened(spec: &TargetSpec) -> Error {
    Error::config(format!(
        "{:?} has no books yet: connector {:?} has never been started",
        spec.target, spec.connector
    ))
}

/// Whose the target is: this connector's, or nothing is done.
pub(crate) fn bound(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<Binding> {
    if !books::exist(tx)? {
        return Err(unopened(spec));
    }
    let stored = books::binding(tx, &spec.target)?.ok_or_else(|| unopened(spec))?;
    check_owner(&stored, spec)?;
    Ok(stored)
}

fn open(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<Opened> {
    books::create(tx)?;
    let stored = books::binding(tx, &spec.target)?;
    let found = schema::find(tx, &spec.target)?;
    // Someone has asked for a rebuild with this projection already, whatever the config says of it.
    let asked = generations::build(tx, &spec.target)?
        .is_some_and(|build| build.fingerprint == spec.fingerprint);
    let on_change = if asked { OnChange::Rebuild } else { spec.on_change };
    let wanted = TargetSpec { on_change, ..spec.clone() };
    let decision = decide(stored.as_ref(), found.as_ref(), &wanted)?;
    let target = &spec.target;
    let (mut notices, mut waits) = (Vec::new(), None);
    match decision {
        Decision::Create => {
            let physical = schema::create_now(tx, spec)?;
            books::bind(tx, spec, None, &physical, 1)?;
            notices.push(format!("created table {target:?}"));
        }
        Decision::Adopt => {
            let physical = adopt(tx, spec)?;
            books::bind(tx, spec, None, &physical, 1)?;
            notices.push(format!("took the empty table {target:?}"));
        }
        Decision::Resume => schema::check_table(tx, spec)?,
        Decision::Renew { create } => {
            let physical = if create { schema::create_now(tx, spec)? } else { adopt(tx, spec)? };
            renew(tx, spec, stored, &physical, None)?;
            notices.push(format!(
                "table {target:?} was dropped, which voids its positions: it is built anew from the \
                 fold's beginning"
            ));
        }
        Decision::Extend => {
            notices.extend(schema::extend(tx, spec)?);
            let live = stored.as_ref().map_or(1, |binding| binding.generation);
            let physical = stored.as_ref().map(|binding| binding.physical.clone());
            books::bind(tx, spec, stored, &physical.unwrap_or_default(), live)?;
        }
        Decision::Rebuild => {
            waits = Some(format!(
                "the live generation of {target:?} was built by another projection: it serves its readers and \
                 folds nothing until a rebuild with this one takes its place"
            ));
        }
    }
    Ok(Opened { waits, ..status(tx, spec, notices)? })
}

/// Takes a table that someone else made, which must be as empty as it is found.
fn adopt(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<String> {
    schema::check_table(tx, spec)?;
    schema::extend(tx, spec)?;
    // A mark of another life is of no use: the books know it no more.
    schema::empty(tx, spec)
}

/// Makes the next generation, at the fold's beginnings or at those given.
fn renew(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    old: Option<Binding>,
    physical: &str,
    beginnings: Option<&[Beginning]>,
) -> Result<u64> {
    let (live, same_log) = old.as_ref().map_or((0, false), |b| (b.generation, b.log == spec.log));
    let beginnings = match beginnings {
        Some(given) => given.to_vec(),
        None if same_log => {
            let of = |stored: StoredPosition| Beginning {
                partition: stored.partition,
                topic_id: stored.topic_id,
                position: stored.beginning,
            };
            books::positions(tx, &spec.target, live)?.into_iter().map(of).collect()
        }
        // Another log's offsets mean nothing here: the worker begins anew.
        None => Vec::new(),
    };
    // What was being built was to follow another life of the table.
    let next = rebuild::next_number(tx, &spec.target, live)?;
    rebuild::drop_build(tx, &spec.target)?;
    books::bind(tx, spec, old, physical, next)?;
    books::begin(tx, &spec.target, next, &beginnings)?;
    Ok(next)
}

fn status(tx: &Transaction<'_>, spec: &TargetSpec, notices: Vec<String>) -> Result<Opened> {
    let generation = bound(tx, spec)?.generation;
    Ok(Opened {
        generation,
        positions: books::positions(tx, &spec.target, generation)?,
        desired: books::desired(tx, &spec.target)?,
        waits: None,
        notices,
    })
}

#[async_trait]
impl Target for SqliteTarget {
    async fn open(&self) -> Result<Opened> {
        self.run(Access::Write, open).await
    }

    async fn begin(&self, generation: u64, beginnings: &[Beginning]) -> Result<()> {
        let beginnings = beginnings.to_vec();
        self.run(Access::Write, move |tx, spec| {
            if bound(tx, spec)?.generation != generation {
                return Err(Error::fenced("another generation is live"));
            }
            books::begin(tx, &spec.target, generation, &beginnings)
        })
        .await
    }

    async fn rebuild(&self, generation: u64, beginnings: Option<&[Beginning]>) -> Result<u64> {
        let beginnings = beginnings.map(<[Beginning]>::to_vec);
        self.run(Access::Write, move |tx, spec| {
            let stored = bound(tx, spec)?;
            if stored.generation != generation {
                return Ok(stored.generation);
            }
            let physical = schema::empty(tx, spec)?;
            renew(tx, spec, Some(stored), &physical, beginnings.as_deref())
        })
        .await
    }

    async fn status(&self) -> Result<Opened> {
        self.run(Access::Read, |tx, spec| status(tx, spec, Vec::new())).await
    }

    async fn set_desired(&self, desired: DesiredState) -> Result<()> {
        self.run(Access::Write, move |tx, spec| {
            bound(tx, spec)?;
            let there = books::set_desired(tx, &spec.target, desired)?;
            if there { Ok(()) } else { Err(unopened(spec)) }
        })
        .await
    }

    async fn writer(&self, generation: u64) -> Result<Arc<dyn Writer>> {
        let build = self.run(Access::Read, |tx, spec| {
            bound(tx, spec)?;
            generations::build(tx, &spec.target)
        });
        let build = build.await?.filter(|build| build.number == generation);
        let relation = build.map(|build| build.relation);
        let hold = Hold::new(Arc::clone(&self.spec), generation, relation);
        Ok(Arc::new(SqliteWriter::new(Arc::clone(&self.database), hold)))
    }

    fn rebuilds(&self) -> &dyn Rebuilds {
        self
    }

    async fn differences(&self) -> Result<Vec<String>> {
        self.run(Access::Read, schema::differences).await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        let generation = self.status().await?.generation;
        let hold = Hold::new(Arc::clone(&self.spec), generation, None);
        let snapshot = match self.database.another().await? {
            Some(connection) => SqliteSnapshot::thread(connection, hold).await?,
            None => self.run(Access::Read, move |tx, _| SqliteSnapshot::copy(tx, &hold)).await?,
        };
        Ok(Box::new(snapshot))
    }

    fn parking(&self) -> &dyn Parking {
        self
    }
}

#[async_trait]
impl Parking for SqliteTarget {
    async fn parked(&self, generation: u64, which: &Which) -> Result<Vec<Parked>> {
        let which = which.clone();
        self.run(Access::Read, move |tx, spec| {
            bound(tx, spec)?;
            parking::parked(tx, &spec.target, generation, &which)
        })
        .await
    }

    async fn records(&self, generation: u64, places: &[Place]) -> Result<Vec<Record>> {
        let places = places.to_vec();
        self.run(Access::Read, move |tx, spec| {
            bound(tx, spec)?;
            parking::records(tx, &spec.target, generation, &places)
        })
        .await
    }

    async fn ask(&self, generation: u64, place: &Place, request: Request) -> Result<bool> {
        let place = place.clone();
        self.run(Access::Write, move |tx, spec| {
            bound(tx, spec)?;
            parking::ask(tx, &spec.target, generation, &place, request)
        })
        .await
    }
}
