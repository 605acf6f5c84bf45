//! One connector's table: created or checked, bound, rebuilt.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::binding::{Binding, check_owner};
use foldline_api::expiry::Horizons;
use foldline_api::hole::Holes;
use foldline_api::lifecycle::{
    Change, Command, Facts, LogNow, Outcome, Record as Lifecycle, transition,
};
use foldline_api::parked::{Parked, Parking, Place, Request, Which};
use foldline_api::query::Queries;
use foldline_api::rebuild::Rebuilds;
use foldline_api::record::Record;
use foldline_api::removal::{Keep, Owned, Removed};
use foldline_api::schemas::KeptSchemas;
use foldline_api::sink::{
    Adopted, Beginning, DesiredState, Opened, Snapshot, StoredPosition, Target, TargetSpec, Writer,
};
use foldline_api::{Error, ErrorClass, Result};
use rusqlite::Transaction;

use crate::adopt::take_over;
use crate::books;
use crate::change;
use crate::database::{Access, Database, End};
use crate::generations;
use crate::hole;
use crate::journal::{Journal, Journaled};
use crate::letters;
use crate::parking;
use crate::removal;
use crate::schema;
use crate::snapshot::SqliteSnapshot;
use crate::verdicts;
use crate::writer::{Hold, SqliteWriter, Statements, past_sql};

/// What is asked for by key answers sooner.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(60);

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
pub(crate) fn plan(spec: &TargetSpec) -> Vec<String> {
    let mut out: Vec<String> = books::ddl().map(str::to_owned).collect();
    out.extend(schema::create(&spec.target, &spec.model));
    out.push(books::ADVANCE.trim_end().to_owned());
    out.extend(Statements::new(&spec.target, &spec.model).into_texts());
    let rule = spec.expire.as_ref();
    out.extend(rule.and_then(|rule| past_sql(&spec.target, &spec.model, rule)));
    out
}

/// The targets of a connector that the database of `config` knows.
pub(crate) async fn owned(config: &SqliteConfig, connector: &str) -> Result<Vec<Owned>> {
    let database = Database::shared(&config.path);
    if !database.is_there() {
        return Ok(Vec::new());
    }
    let connector = connector.to_owned();
    let look = move |tx: &Transaction<'_>| removal::owned(tx, &connector).map(End::Commit);
    database.run(Access::Read, look).await
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

    /// The target of `spec` in a copy of what the log of `journal` has. What is in the file is thrown away.
    ///
    /// # Errors
    /// As [`SqliteTarget::new`].
    pub fn copy(path: &Path, spec: TargetSpec, journal: Arc<dyn Journal>) -> Result<Self> {
        schema::check(&spec)?;
        let spec = Arc::new(spec);
        let journaled = Journaled { journal, spec: Arc::clone(&spec) };
        Ok(SqliteTarget { database: Database::copy(path, journaled), spec })
    }

    /// Sees that a copy has all that its log has.
    ///
    /// # Errors
    /// Of the log.
    pub async fn catch_up(&self) -> Result<()> {
        self.run(Access::Whole, |_, _| Ok(())).await
    }

    /// Whose the target is.
    ///
    /// # Errors
    /// Where the books cannot be read.
    pub async fn binding(&self) -> Result<Option<Binding>> {
        self.run(Access::Read, |tx, spec| match books::exist(tx)? {
            true => books::binding(tx, &spec.target),
            false => Ok(None),
        })
        .await
    }

    /// Empties a copy whose log is gone, which learns nothing of it.
    ///
    /// # Errors
    /// Where SQLite refuses.
    pub async fn forget_copy(&self) -> Result<()> {
        let forget =
            |tx: &Transaction<'_>, spec: &TargetSpec| removal::remove(tx, spec, Keep::Nothing);
        self.run(Access::Beside, forget).await.map(drop)
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        access: Access,
        act: impl Fn(&Transaction<'_>, &TargetSpec) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let spec = Arc::clone(&self.spec);
        let done = self.database.run(access, move |tx| act(tx, &spec).map(End::Commit)).await;
        done.map_err(of_no_record)
    }

    /// Reads beside what is written, for so long at most.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        time: Duration,
        act: impl Fn(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !self.database.is_there() {
            // To look into it would make it.
            return Err(unopened(&self.spec));
        }
        self.database.read(time, act).await.map_err(of_no_record)
    }
}

/// No record is to blame for what the table refuses before one was read.
fn of_no_record(error: Error) -> Error {
    match error.class() {
        ErrorClass::Record => Error::config(error.message()).with_source(error),
        _ => error,
    }
}

pub(crate) fn unopened(spec: &TargetSpec) -> Error {
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
    let before = change::record(tx, spec)?;
    let facts = Facts { found: schema::find(tx, &spec.target)?, ..Facts::default() };
    let changes = match transition(before.as_ref(), spec, &facts, Command::Open)? {
        Outcome::Changes(changes) => changes,
        Outcome::Waits(waits) => {
            return Ok(Opened { waits: Some(waits), ..status(tx, spec, Vec::new())? });
        }
        Outcome::Stands(_) | Outcome::NotYet(_) => return status(tx, spec, Vec::new()),
    };
    let notices = match &before {
        Some(before) if before.binding.generation != changes.answer => {
            renew(tx, spec, (before, &changes), None)?;
            vec![format!(
                "table {:?} was dropped, which voids its positions: it is built anew from the fold's beginning",
                spec.target
            )]
        }
        _ => change::carry_out(tx, spec, (before.as_ref(), &changes), &[])?,
    };
    status(tx, spec, notices)
}

/// Takes a table that someone else made, which must be as empty as it is found.
pub(crate) fn adopt(tx: &Transaction<'_>, spec: &TargetSpec) -> Result<String> {
    schema::check_table(tx, spec)?;
    schema::extend(tx, spec)?;
    // A mark of another life is of no use: the books know it no more.
    schema::empty(tx, spec)
}

/// Makes the next generation in the place of the live one, at the fold's beginnings or at those given.
fn renew(
    tx: &Transaction<'_>,
    spec: &TargetSpec,
    (before, changes): (&Lifecycle, &Change),
    beginnings: Option<&[Beginning]>,
) -> Result<()> {
    let (target, old) = (&spec.target, &before.binding);
    let beginnings = match beginnings {
        Some(given) => given.to_vec(),
        None if old.log == spec.log => {
            let of = |stored: StoredPosition| Beginning {
                partition: stored.partition,
                topic_id: stored.topic_id,
                position: stored.beginning,
            };
            books::positions(tx, target, old.generation)?.into_iter().map(of).collect()
        }
        // Another log's offsets mean nothing here: the worker begins anew.
        None => Vec::new(),
    };
    change::carry_out(tx, spec, (Some(before), changes), &[])?;
    // Another generation decides anew what is bad.
    parking::forget_before(tx, target, changes.answer)?;
    books::begin(tx, target, changes.answer, &beginnings)?;
    if old.log == spec.log {
        verdicts::take_over(tx, target, (old.generation, changes.answer))?;
        hole::take_over(tx, target, (old.generation, changes.answer))?;
        letters::take_over_sent(tx, target, (old.generation, changes.answer))?;
    }
    Ok(())
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

    async fn check(&self) -> Result<()> {
        if !self.database.is_there() {
            // To look into it would make it.
            return self.database.check_folder();
        }
        let spec = Arc::clone(&self.spec);
        let opened = move |tx: &Transaction<'_>| open(tx, &spec).map(|_| End::RollBack(()));
        self.database.run(Access::Write, opened).await
    }

    async fn adopt(&self, log: &LogNow) -> Result<Adopted> {
        let log = log.clone();
        self.run(Access::Write, move |tx, spec| take_over(tx, spec, &log)).await
    }

    async fn remove(&self, keep: Keep) -> Result<Removed> {
        if !self.database.is_there() {
            return Ok(Removed::default());
        }
        self.run(Access::Write, move |tx, spec| removal::remove(tx, spec, keep)).await
    }

    async fn begin(&self, generation: u64, beginnings: &[Beginning]) -> Result<()> {
        let beginnings = beginnings.to_vec();
        self.run(Access::Write, move |tx, spec| {
            change::command(tx, spec, (&Facts::default(), Command::Begin(generation)), &[])?;
            books::begin(tx, &spec.target, generation, &beginnings)
        })
        .await
    }

    async fn rebuild(&self, generation: u64, beginnings: Option<&[Beginning]>) -> Result<u64> {
        let beginnings = beginnings.map(<[Beginning]>::to_vec);
        self.run(Access::Write, move |tx, spec| {
            bound(tx, spec)?;
            let before = change::record(tx, spec)?.ok_or_else(|| unopened(spec))?;
            let command = Command::Empty(generation);
            match transition(Some(&before), spec, &Facts::default(), command)? {
                Outcome::Changes(changes) => {
                    renew(tx, spec, (&before, &changes), beginnings.as_deref())?;
                    Ok(changes.answer)
                }
                _ => Ok(before.binding.generation),
            }
        })
        .await
    }

    async fn status(&self) -> Result<Opened> {
        self.run(Access::Read, |tx, spec| status(tx, spec, Vec::new())).await
    }

    async fn set_desired(&self, desired: DesiredState) -> Result<()> {
        self.run(Access::Write, move |tx, spec| {
            let command = Command::Desire(desired);
            change::command(tx, spec, (&Facts::default(), command), &[]).map(drop)
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

    fn horizons(&self) -> Option<&dyn Horizons> {
        Some(self)
    }

    async fn differences(&self) -> Result<Vec<String>> {
        self.run(Access::Read, schema::differences).await
    }

    fn queries(&self) -> Option<&dyn Queries> {
        Some(self)
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

    fn holes(&self) -> &dyn Holes {
        self
    }

    fn schemas(&self) -> &dyn KeptSchemas {
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
