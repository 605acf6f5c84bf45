//! One task's hold on a table: acquires partitions, loads states, writes flushes.
//!
//! A flush is one transaction. Its statements are sent without waiting for each other's answers, the
//! fence first; then the answers are judged, and it is committed or rolled back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::binding::check_owner;
use foldline_api::error::ErrorClass;
use foldline_api::failpoint::Failpoint;
use foldline_api::model::{Key, Model};
use foldline_api::parked::Which;
use foldline_api::rebuild::{Phase, Role};
use foldline_api::record::TopicPartition;
use foldline_api::sink::{
    Acquired, Beginning, Flush, Lease, Loaded, StoredPosition, TargetSpec, Version, Versions,
    Writer, Written,
};
use foldline_api::{Error, Result};
use futures_util::future::{join_all, join3};
use tokio_postgres::Client;

use crate::books::{Books, Partitions};
use crate::codec::{Encoded, Raw};
use crate::error::{classify, is_deadlock, is_missing};
use crate::flush::{Bound, Expect, Part, Scope, cut};
use crate::pool::{Pool, Use};
use crate::session::{BEGIN, BEGIN_READ, Lane, Session, within};
use crate::snapshot;
use crate::statement::Statements;

const LOAD_LIMIT: Duration = Duration::from_secs(60);
const WRITE_LIMIT: Duration = Duration::from_secs(120);
/// A whole table in one transaction; its statements are bounded each.
const BULK_LIMIT: Duration = Duration::from_secs(3_600);
/// After two writers met on a row, so many flushes lock their rows in the order of the keys first.
const CAUTIOUS_FLUSHES: u32 = 64;

/// Where a writer writes.
pub(crate) struct Place {
    /// The table, quoted, with its schema.
    pub(crate) table: String,
    /// The table as the books and messages call it.
    pub(crate) label: String,
    /// Its OID when the writer was made.
    pub(crate) physical: u32,
    /// The generation that the writer builds.
    pub(crate) generation: u64,
    /// Whether it is built beside the live one.
    pub(crate) building: bool,
}

/// A writer on one generation of a table.
pub(crate) struct PostgresWriter {
    place: Place,
    model: Arc<Model>,
    spec: TargetSpec,
    books: Books,
    statements: Statements,
    fence: String,
    live: String,
    verdicts: String,
    /// Parks, frees and keeps events.
    parking: [String; 3],
    seal: String,
    /// How a flush begins.
    begin: String,
    writing: Lane,
    loading: Lane,
    /// When the server that the cached states come from was started; 0 before the first answer.
    server: AtomicI64,
    cautious: AtomicU32,
}

/// How a flush ended, before its connection is given back.
enum End {
    Committed(Versions),
    RolledBack(Written),
}

impl PostgresWriter {
    pub(crate) fn new(pool: &Arc<Pool>, books: &Books, spec: &TargetSpec, place: Place) -> Self {
        let known = Arc::new(AtomicU64::new(pool.servers()));
        let lane = || Lane::new(pool, Use::Brief, &spec.connector).of_server(&known);
        PostgresWriter {
            statements: Statements::new(&place.table, &spec.model),
            fence: books.fence_sql(),
            live: books.live_sql(),
            verdicts: books.verdict_sql(),
            parking: [books.park_sql(), books.free_sql(), books.keep_sql()],
            seal: Books::seal_sql(&place.table),
            begin: lane().begin_sql(BEGIN),
            writing: lane(),
            loading: lane(),
            model: Arc::clone(&spec.model),
            spec: spec.clone(),
            books: books.clone(),
            server: AtomicI64::new(0),
            cautious: AtomicU32::new(0),
            place,
        }
    }

    fn replaced(&self) -> Error {
        Error::fenced(format!(
            "table {:?} was dropped or replaced: open it again",
            self.place.label
        ))
    }

    fn classify(&self, error: tokio_postgres::Error, doing: &str) -> Error {
        if is_missing(&error) {
            return self.replaced();
        }
        classify(error, &format!("{doing} {:?}", self.place.label))
    }

    async fn acquire_in(&self, client: &Client, claims: &[Beginning]) -> Result<Acquired> {
        let Place { label, generation, physical, .. } = &self.place;
        self.check_generation(client).await?;
        let list = Partitions::new(claims.iter().map(|claim| &claim.partition));
        self.books.begin(client, label, *generation, claims).await?;
        let raised = self.books.raise_epochs(client, label, *generation, Some(&list)).await?;
        let leases = claims
            .iter()
            .map(|claim| {
                let row = raised.iter().find(|row| row.partition == claim.partition);
                row.map(|row| Lease {
                    partition: row.partition.clone(),
                    epoch: row.epoch,
                    position: row.position,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::retriable("a position disappeared while it was taken over"))?;
        let verdicts = self.books.verdicts(client, label, *generation, &list).await?;
        let partitions = claims.iter().map(|claim| claim.partition.clone()).collect();
        let which = Which { partitions: Some(partitions), asked: false };
        let parked = self.books.parked(client, (label, *generation), &which).await?;
        let rows = client
            .query_typed(&self.statements.empty, &[])
            .await
            .map_err(|error| self.classify(error, "looking into"))?;
        let empty = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(false);
        let seal = self.seal(client).await?;
        if seal.oid != Some(*physical) {
            return Err(self.replaced());
        }
        self.server.store(seal.started, Ordering::Relaxed);
        Ok(Acquired { leases, empty, verdicts, decisions: Vec::new(), parked })
    }

    /// Whether the writer's generation may be folded into by its projection now. Nobody swaps until the
    /// transaction ends.
    async fn check_generation(&self, client: &Client) -> Result<()> {
        let Place { label, generation, building, .. } = &self.place;
        let Some(entry) = self.books.entry(client, label, "FOR SHARE").await? else {
            return Err(self.replaced());
        };
        check_owner(&entry.binding, &self.spec)?;
        let live = entry.binding.generation;
        let beside = self.books.generations(client, label, "").await?;
        let fingerprint = if *building {
            let build = beside.iter().find(|g| g.number == *generation);
            build.filter(|g| matches!(g.role, Role::Build(_))).map(|g| &g.fingerprint)
        } else {
            Some(&entry.binding.fingerprint).filter(|_| live == *generation)
        };
        let Some(fingerprint) = fingerprint else {
            return Err(Error::fenced(format!(
                "generation {generation} of {label:?} is over: {live} is live"
            )));
        };
        if *fingerprint != self.spec.fingerprint {
            return Err(Error::fenced(format!(
                "{label:?} is now built by another version of projection and connector: this worker's config \
                 is not the one that the table was opened with last"
            )));
        }
        if !building && beside.iter().any(|g| g.role == Role::Build(Phase::Holding)) {
            return Err(Error::retriable(format!(
                "{label:?} is held: its next generation is about to take its place"
            )));
        }
        Ok(())
    }

    async fn seal(&self, client: &Client) -> Result<Seal> {
        let rows = client
            .query_typed(&self.seal, &[])
            .await
            .map_err(|error| self.classify(error, "writing into"))?;
        rows.first().and_then(Seal::read).ok_or_else(|| {
            Error::retriable("PostgreSQL did not say under which transaction it wrote")
        })
    }

    async fn write_in(&self, client: &Client, flush: &Flush) -> Result<End> {
        let cautious = self.cautious.load(Ordering::Relaxed);
        let windows = cut(flush, cautious > 0, self.place.building);
        self.cautious.store(cautious.saturating_sub(1), Ordering::Relaxed);
        let count = windows.len();
        let mut seal = None;
        for (at, window) in windows.iter().enumerate() {
            let (first, last) = (at == 0, at + 1 == count);
            match self.run_window(client, window, first, last).await? {
                Ok(sealed) => seal = sealed,
                Err(written) => return Ok(End::RolledBack(written)),
            }
        }
        let seal = seal.ok_or_else(|| Error::retriable("a flush without an end"))?;
        if seal.oid != Some(self.place.physical) {
            return Ok(End::RolledBack(Written::Fenced));
        }
        let known = self.server.swap(seal.started, Ordering::Relaxed);
        if known != 0 && known != seal.started {
            // A pooler may hide that another server took over, maybe one that lost what the caches saw.
            return Err(Error::retriable("PostgreSQL was restarted or another server took over"));
        }
        Failpoint::BeforePositions.reach();
        if let Err(error) = client.batch_execute("COMMIT").await {
            // Deferred constraints speak up only here; then nothing was committed.
            let error = self.classify(error, "committing into");
            return match error.class() {
                ErrorClass::Record => Ok(End::RolledBack(Written::Rejected(error))),
                _ => Err(error),
            };
        }
        Ok(End::Committed(if seal.triggers {
            Versions::Unknown
        } else {
            Versions::All(Version::At(u64::from(seal.xid), 0))
        }))
    }

    /// Sends a window's statements and judges the answers: the seal where it is the last, or how the
    /// flush ends.
    async fn run_window(
        &self,
        client: &Client,
        window: &[Part<'_>],
        first: bool,
        last: bool,
    ) -> Result<Result<Option<Seal>, Written>> {
        let scope = Scope {
            model: &self.model,
            label: &self.place.label,
            generation: self.place.generation,
        };
        let mut bound: Vec<Bound> = Vec::with_capacity(window.len());
        for part in window {
            match part.bind(&scope) {
                Ok(part) => bound.push(part),
                Err(error) => return Ok(Err(Written::Rejected(Error::record(error.to_string())))),
            }
        }
        let begin = async { if first { client.batch_execute(&self.begin).await } else { Ok(()) } };
        let statements = join_all(
            window.iter().zip(&bound).map(|(part, bound)| bound.execute(client, self.sql(part))),
        );
        let seal = async { if last { self.seal(client).await.map(Some) } else { Ok(None) } };
        // Polled in this order, and each sends when it is first polled.
        let (begun, answers, sealed) = join3(begin, statements, seal).await;
        begun.map_err(|error| self.classify(error, "writing into"))?;
        for (answer, bound) in answers.into_iter().zip(&bound) {
            match (answer, bound.expect) {
                (Ok(count), Expect::Fence(wanted)) if count != wanted => {
                    return Ok(Err(Written::Fenced));
                }
                (Ok(count), Expect::Rows(wanted)) if count != wanted => {
                    self.cautious.store(CAUTIOUS_FLUSHES, Ordering::Relaxed);
                    return Ok(Err(Written::Conflict { written: Vec::new() }));
                }
                (Ok(_), _) => {}
                (Err(error), _) if is_missing(&error) => return Ok(Err(Written::Fenced)),
                (Err(error), _) => {
                    if is_deadlock(&error) {
                        self.cautious.store(CAUTIOUS_FLUSHES, Ordering::Relaxed);
                    }
                    let error = self.classify(error, "writing into");
                    return match error.class() {
                        ErrorClass::Record => Ok(Err(Written::Rejected(error))),
                        _ => Err(error),
                    };
                }
            }
        }
        sealed.map(Ok)
    }

    fn sql(&self, part: &Part<'_>) -> &str {
        let [park, free, keep] = &self.parking;
        match part {
            Part::Fence(_) => &self.fence,
            Part::Live => &self.live,
            Part::Lock(_) => &self.statements.lock,
            Part::Present(_) => &self.statements.present,
            Part::Absent(_) => &self.statements.absent,
            Part::Update(_) => &self.statements.update,
            Part::Insert(_) => &self.statements.insert,
            Part::Copy(_) => &self.statements.copy,
            Part::Delete(_) => &self.statements.delete,
            Part::Verdicts(_) => &self.verdicts,
            Part::Park(_) => park,
            Part::Free(_) => free,
            Part::Keep(_) => keep,
        }
    }
}

pub(crate) fn as_param(encoded: &Encoded) -> &(dyn tokio_postgres::types::ToSql + Sync) {
    encoded
}

/// The last answer of a flush.
struct Seal {
    xid: u32,
    oid: Option<u32>,
    triggers: bool,
    started: i64,
}

impl Seal {
    fn read(row: &tokio_postgres::Row) -> Option<Self> {
        Some(Seal {
            xid: row.try_get::<_, Raw<'_>>(0).ok()?.u32()?,
            oid: row.try_get(1).ok()?,
            triggers: row.try_get(2).ok()?,
            started: row.try_get(3).ok()?,
        })
    }
}

async fn end(session: Session, result: Result<End>) -> Result<Written> {
    match result {
        Ok(End::Committed(versions)) => {
            session.keep();
            Ok(Written::Durable(versions))
        }
        Ok(End::RolledBack(written)) => {
            session.roll_back().await;
            Ok(written)
        }
        Err(error) => {
            session.roll_back().await;
            Err(error)
        }
    }
}

#[async_trait]
impl Writer for PostgresWriter {
    async fn acquire(&self, claims: &[Beginning]) -> Result<Acquired> {
        within(LOAD_LIMIT, "taking partitions over", async {
            let session = self.writing.begin().await?;
            let result = self.acquire_in(&session.client, claims).await;
            session.finish(result).await
        })
        .await
    }

    async fn load(&self, keys: &[Key]) -> Result<Vec<Loaded>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        within(LOAD_LIMIT, "reading states", async {
            let refused = |error| self.classify(error, "reading");
            let read = async |client: &Client| {
                let (load, label) = (&self.statements.load, &self.place.label);
                snapshot::load(client, load, &self.model, label, keys).await?.map_err(refused)
            };
            self.loading.take().await?.at_once(BEGIN_READ, read, refused).await
        })
        .await
    }

    async fn write(&self, flush: &Flush) -> Result<Written> {
        let limit = if self.place.building { BULK_LIMIT } else { WRITE_LIMIT };
        within(limit, "writing a flush", async {
            let session = self.writing.take().await?;
            let result = self.write_in(&session.client, flush).await;
            end(session, result).await
        })
        .await
    }

    async fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<StoredPosition>> {
        let Place { label, generation, .. } = &self.place;
        within(LOAD_LIMIT, "reading positions", async {
            let session = self.writing.snapshot().await?;
            let stored = self.books.positions(&session.client, label, *generation, "").await;
            let stored = session.finish(stored).await?;
            let mut by_partition: HashMap<TopicPartition, StoredPosition> =
                stored.into_iter().map(|row| (row.partition.clone(), row)).collect();
            Ok(partitions.iter().filter_map(|p| by_partition.remove(p)).collect())
        })
        .await
    }

    fn keeps_marks(&self) -> bool {
        false
    }
}
