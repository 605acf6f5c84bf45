//! One task's hold on a table: acquires partitions, loads states, writes flushes.
//!
//! A flush is one transaction. Its statements are sent without waiting for each other's answers, the
//! fence first; then the answers are judged, and it is committed or rolled back.

mod acquire;
mod end;
mod seal;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::error::ErrorClass;
use foldline_api::expiry::Horizon;
use foldline_api::failpoint::Failpoint;
use foldline_api::model::{Key, Model};
use foldline_api::record::TopicPartition;
use foldline_api::sink::{
    Acquired, Beginning, Flush, Loaded, Refreshed, RowWrite, StoredPosition, TargetSpec, Version,
    Versions, Writer, Written,
};
use foldline_api::{Error, Result};
use futures_util::future::{OptionFuture, join_all, join5};
use tokio_postgres::Client;

use crate::books::Books;
use crate::codec::Encoded;
use crate::error::{classify, is_cut_off, is_deadlock, is_missing};
use crate::fit::{Fit, lock_sql, signature};
use crate::flush::{Bound, Expect, Part, ROWS_MAX, Scope, cut};
use crate::identifier::TableName;
use crate::joins::{Noted, Shown};
use crate::pool::{Pool, Use};
use crate::session::{BEGIN_READ, Lane, within};
use crate::snapshot;
use crate::statement::Statements;
use crate::verdicts::Blame;
use end::end;
pub(crate) use seal::Seal;
use seal::Triggers;

const LOAD_LIMIT: Duration = Duration::from_secs(60);
/// A whole table in one transaction; its statements are bounded each.
const BULK_LIMIT: Duration = Duration::from_secs(3_600);
/// After two writers met on a row, so many flushes lock their rows in the order of the keys first.
const CAUTIOUS_FLUSHES: u32 = 64;
/// A table that changes so often under one flush is not waited for in it.
const CHANGES_MAX: u32 = 3;

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
    pub(crate) place: Place,
    pub(crate) model: Arc<Model>,
    pub(crate) spec: TargetSpec,
    pub(crate) books: Books,
    /// What its rows show of other tables.
    pub(crate) shown: Option<Shown>,
    pub(crate) noted: Noted,
    /// The columns of it that name who holds its rows.
    pub(crate) vias: Mutex<Vec<String>>,
    pub(crate) statements: Statements,
    lock: String,
    fit: Fit,
    fence: String,
    live: String,
    verdicts: String,
    bad: String,
    /// Parks, frees and keeps events.
    parking: [String; 3],
    seal: String,
    /// How a flush begins.
    pub(crate) begin: String,
    pub(crate) writing: Lane,
    pub(crate) loading: Lane,
    /// When the server that the cached states come from was started; 0 before the first answer.
    server: AtomicI64,
    cautious: AtomicU32,
    /// How many rows a statement of a build may have: what is loaded cannot be parted otherwise.
    rows_max: AtomicUsize,
    /// The database's encoding lacks letters.
    ascii: AtomicBool,
    statement_timeout: Duration,
}

/// How a flush ended, before its connection is given back.
enum End {
    Committed(Versions),
    RolledBack(Written),
    /// The data was refused, and by what.
    Refused(Error, Blame),
    /// The table is not as it was seen last; nothing is to be believed of what became of the rows.
    Changed,
}

/// How a window's statements went.
enum Window {
    /// As they should, but that some may have written too few rows where triggers leave rows out.
    Through(Option<Seal>, bool),
    End(End),
}

impl PostgresWriter {
    pub(crate) fn new(
        pool: &Arc<Pool>,
        books: &Books,
        spec: &TargetSpec,
        place: Place,
        looked_up: &[TableName],
    ) -> Self {
        let shown = spec.joins.as_ref().map(|joins| Shown::new(joins, looked_up, &spec.model));
        let known = Arc::new(AtomicU64::new(pool.servers()));
        let lane = || Lane::new(pool, Use::Brief, &spec.connector).of_server(&known);
        PostgresWriter {
            statements: Statements::new(&place.table, &spec.model),
            fence: books.fence_sql(),
            live: books.live_sql(),
            verdicts: books.verdict_sql(),
            bad: books.bad_sql(),
            parking: [books.park_sql(), books.free_sql(), books.keep_sql()],
            seal: books.seal_sql(&place.table, &place.label),
            shown,
            noted: Noted::default(),
            vias: Mutex::default(),
            begin: lane().begin_sql(&pool.endpoint.begin),
            writing: lane(),
            loading: lane(),
            model: Arc::clone(&spec.model),
            spec: spec.clone(),
            lock: lock_sql(&place.table),
            fit: Fit::default(),
            books: books.clone(),
            server: AtomicI64::new(0),
            cautious: AtomicU32::new(0),
            rows_max: AtomicUsize::new(ROWS_MAX),
            ascii: AtomicBool::new(false),
            statement_timeout: pool.endpoint.statement_timeout,
            place,
        }
    }

    fn replaced(&self) -> Error {
        Error::fenced(format!(
            "table {:?} was dropped or replaced: open it again",
            self.place.label
        ))
    }

    pub(crate) fn classify(&self, error: tokio_postgres::Error, doing: &str) -> Error {
        if is_missing(&error) {
            return self.replaced();
        }
        let cut_off = is_cut_off(&error);
        let error = classify(error, &format!("{doing} {:?}", self.place.label));
        if !cut_off {
            return error;
        }
        let seconds = self.statement_timeout.as_secs_f64();
        let message = format!(
            "{}; a statement of a flush has {seconds} s (the sink's statement_timeout), what it takes at once is \
             halved",
            error.message()
        );
        Error::retriable(message).with_code(error.code().unwrap_or_default()).too_much()
    }

    /// Whether the statements of this flush can be made smaller yet, as they are from now on.
    fn halve(&self, flush: &Flush) -> bool {
        let rows = self.rows_max.load(Ordering::Relaxed).min(flush.writes.len());
        self.rows_max.store((rows / 2).max(1), Ordering::Relaxed);
        rows > 1
    }

    /// A refusal, with the definition that refused as it stands after it.
    async fn defined(&self, error: Error, blame: &Blame) -> Result<Error> {
        if blame.is_unknown() {
            return Ok(error);
        }
        let session = self.writing.snapshot().await?;
        let (table, fingerprint) = (self.place.physical, &self.spec.fingerprint);
        let found = self.books.definition(&session.client, table, fingerprint, blame).await;
        Ok(error.with_definition(session.finish(found).await?))
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
        let joined = self.join(client, flush).await?;
        let flush = joined.as_ref().map_or(flush, |joined| &joined.flush);
        let cautious = self.cautious.load(Ordering::Relaxed);
        let rows_max = self.rows_max.load(Ordering::Relaxed);
        let windows = cut(flush, cautious > 0, self.place.building, rows_max);
        self.cautious.store(cautious.saturating_sub(1), Ordering::Relaxed);
        let count = windows.len();
        let (mut seal, mut short) = (None, false);
        for (at, window) in windows.iter().enumerate() {
            let (first, last) = (at == 0, at + 1 == count);
            match self.run_window(client, window, (first, joined.is_some()), last).await? {
                Window::Through(sealed, too_few) => {
                    seal = sealed;
                    short |= too_few;
                }
                Window::End(end) => return Ok(end),
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
        let mine = Version::At(u64::from(seal.xid), 0);
        if (short || seal.triggers == Triggers::BeforeRow)
            && let Some(written) = self.judge(client, flush, mine, short).await?
        {
            return Ok(End::RolledBack(written));
        }
        if !self.leave_notes(client, flush, joined.as_ref(), &seal).await? {
            return Ok(End::Changed);
        }
        Failpoint::BeforePositions.reach();
        if let Err(error) = client.batch_execute("COMMIT").await {
            // Deferred constraints speak up only here; then nothing was committed.
            let blame = Blame::of(&error);
            let error = self.classify(error, "committing into");
            return match error.class() {
                ErrorClass::Record => Ok(End::Refused(error, blame)),
                _ => Err(error),
            };
        }
        Ok(End::Committed(if seal.triggers == Triggers::None {
            Versions::All(mine)
        } else {
            Versions::Unknown
        }))
    }

    /// Sends a window's statements and judges the answers: the seal where it is the last, or how the
    /// flush ends.
    async fn run_window(
        &self,
        client: &Client,
        window: &[Part<'_>],
        (first, begun): (bool, bool),
        last: bool,
    ) -> Result<Window> {
        let bound = match self.bind(window) {
            Ok(bound) => bound,
            Err(error) => return Ok(Window::End(End::RolledBack(Written::Rejected(error)))),
        };
        let begins = first && !begun;
        let begin = async { if begins { client.batch_execute(&self.begin).await } else { Ok(()) } };
        let mut statements =
            window.iter().zip(&bound).map(|(part, bound)| bound.execute(client, self.sql(part)));
        let fence = OptionFuture::from(statements.next());
        let seen = first.then(|| signature(client, &self.lock, self.place.physical));
        let seal = async { if last { self.seal(client).await.map(Some) } else { Ok(None) } };
        // Polled in this order, and each sends when it is first polled.
        let (begun, fence, seen, answers, sealed) =
            join5(begin, fence, OptionFuture::from(seen), join_all(statements), seal).await;
        begun.map_err(|error| self.classify(error, "writing into"))?;
        let mut short = false;
        let (fence, rest) =
            (fence.into_iter().zip(&bound), answers.into_iter().zip(bound.iter().skip(1)));
        for (answer, bound) in fence {
            if let Some(end) = self.ends(answer, bound.expect, &mut short)? {
                return Ok(Window::End(end));
            }
        }
        if let Some(seen) = seen
            && let Some(end) = self.sees(seen)?
        {
            return Ok(Window::End(end));
        }
        for (answer, bound) in rest {
            if let Some(end) = self.ends(answer, bound.expect, &mut short)? {
                return Ok(Window::End(end));
            }
        }
        let sealed = sealed?;
        if short {
            let seal = match &sealed {
                Some(seal) => seal.triggers,
                None => self.seal(client).await?.triggers,
            };
            // Else it was another writer's doing.
            if seal == Triggers::None {
                return Ok(Window::End(End::RolledBack(self.met())));
            }
        }
        Ok(Window::Through(sealed, short))
    }

    pub(crate) fn bind(&self, window: &[Part<'_>]) -> Result<Vec<Bound>> {
        let Place { label, generation, .. } = &self.place;
        let ascii = self.ascii.load(Ordering::Relaxed);
        let scope = Scope { model: &self.model, label, generation: *generation, ascii };
        let bound = window.iter().map(|part| part.bind(&scope));
        bound.collect::<Result<_, _>>().map_err(|error| Error::record(error.to_string()))
    }

    /// Another writer came first.
    fn met(&self) -> Written {
        self.cautious.store(CAUTIOUS_FLUSHES, Ordering::Relaxed);
        Written::Conflict { written: Vec::new() }
    }

    /// How a statement's answer ends the flush, if it does. Sets `short` where rows were not written.
    fn ends(
        &self,
        answer: Result<u64, tokio_postgres::Error>,
        expect: Expect,
        short: &mut bool,
    ) -> Result<Option<End>> {
        let end = match (answer, expect) {
            (Ok(count), Expect::Fence(wanted)) if count != wanted => Written::Fenced,
            (Ok(count), Expect::Rows(wanted)) if count != wanted => self.met(),
            (Ok(count), Expect::Written(wanted)) => {
                *short |= count != wanted;
                return Ok(None);
            }
            (Ok(_), _) => return Ok(None),
            (Err(error), _) if is_missing(&error) => Written::Fenced,
            (Err(error), _) => {
                if is_deadlock(&error) {
                    self.cautious.store(CAUTIOUS_FLUSHES, Ordering::Relaxed);
                }
                let blame = Blame::of(&error);
                let error = self.classify(error, "writing into");
                return match error.class() {
                    ErrorClass::Record => Ok(Some(End::Refused(error, blame))),
                    _ => Err(error),
                };
            }
        };
        Ok(Some(End::RolledBack(end)))
    }

    /// How what was seen of the table ends the flush, if it does.
    fn sees(&self, signature: Result<i64, tokio_postgres::Error>) -> Result<Option<End>> {
        match signature {
            Ok(signature) => Ok((!self.fit.knows(signature)).then_some(End::Changed)),
            Err(error) if is_missing(&error) => Ok(Some(End::RolledBack(Written::Fenced))),
            Err(error) => Err(self.classify(error, "looking at")),
        }
    }

    pub(crate) fn sql(&self, part: &Part<'_>) -> &str {
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
            Part::Bad(_) => &self.bad,
            Part::Park(_) => park,
            Part::Free(_) => free,
            Part::Keep(_) => keep,
        }
    }
}

pub(crate) fn as_param(encoded: &Encoded) -> &(dyn tokio_postgres::types::ToSql + Sync) {
    encoded
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

    async fn load_some(&self, keys: &[Key], bytes_max: usize) -> Result<Vec<Loaded>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        within(LOAD_LIMIT, "reading states", async {
            let refused = |error| self.classify(error, "reading");
            let read = async |client: &Client| {
                let place = (&*self.statements.load, &*self.place.label);
                let read = snapshot::load(client, place, &self.model, keys, bytes_max).await?;
                let mut read = read.map_err(refused)?;
                if let Some(joins) = &self.spec.joins {
                    read.iter_mut()
                        .filter_map(|it| it.row.as_mut())
                        .for_each(|row| joins.strip(row));
                }
                Ok(read)
            };
            let read = self.loading.take().await?.at_once(BEGIN_READ, read, refused).await;
            match read {
                // What cannot be read may be another table than it was.
                Err(error) if error.class() != ErrorClass::Retriable => {
                    self.look_again(&self.loading).await?;
                    Err(error)
                }
                read => read,
            }
        })
        .await
    }

    async fn write(&self, flush: &Flush) -> Result<Written> {
        let statements = self.statement_timeout * 4 + Duration::from_secs(20);
        let limit = if self.place.building { BULK_LIMIT.max(statements) } else { statements };
        let written = within(limit, "writing a flush", async {
            for _ in 0..CHANGES_MAX {
                let session = self.writing.take().await?;
                let result = self.write_in(&session.client, flush).await;
                match end(session, result).await? {
                    Some((Written::Rejected(error), blame)) => {
                        return Ok(Written::Rejected(self.defined(error, &blame).await?));
                    }
                    Some((written, _)) => return Ok(written),
                    None => match self.look_again(&self.writing).await {
                        Err(error) if error.class() == ErrorClass::Fenced => {
                            return Ok(Written::Fenced);
                        }
                        looked => looked?,
                    },
                }
            }
            Err(Error::retriable(format!("table {:?} is being changed", self.place.label)))
        })
        .await;
        match written {
            // What a load writes at once is one flush; its statements are made smaller.
            Err(error) if self.place.building && error.is_too_much() && error.code().is_some() => {
                let error_again = Error::retriable(error.message());
                let error_again = error_again.with_code(error.code().unwrap_or_default());
                Err(if self.halve(flush) { error_again } else { error })
            }
            written => written,
        }
    }

    async fn expired(&self, horizon: Horizon, max: usize) -> Result<Vec<RowWrite>> {
        within(LOAD_LIMIT, "looking for what has expired", self.past(horizon, max)).await
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

    async fn refresh(&self, rows_max: usize) -> Result<Refreshed> {
        within(self.statement_timeout * 4, "bringing rows up to date", self.refresh_step(rows_max))
            .await
    }
}
