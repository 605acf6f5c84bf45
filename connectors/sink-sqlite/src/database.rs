//! One connection per database file and process, and what its errors mean.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use foldline_api::sink::{Flush, RowWrite};
use foldline_api::{Error, ErrorClass, Result};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::journal::{self, Changes, Journaled, Rows};
use crate::reader::{BY_NUMBER, Readers, by_number};
use crate::replica::Replica;

/// How long a call waits for another process' transaction before the worker backs off.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// So often a command takes the charge of a copy's log from others, who may take it back meanwhile.
const TRIES: u32 = 12;
/// And waits so long at most before the second time, in milliseconds, and twice as long before each that follows.
const STAND_BACK_MS: u64 = 10;

/// A database file, shared by all targets and tasks of this process: they queue here, in turn, rather
/// than at SQLite's lock, which is not fair.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    open: Mutex<Option<Open>>,
    /// The log that it is a copy of.
    journaled: Option<Journaled>,
    pub(crate) readers: Readers,
}

/// A connection, and the file that it is to.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) connection: Connection,
    file: Option<(u64, u64)>,
}

/// What becomes of a transaction.
pub(crate) enum End<T> {
    Commit(T),
    RollBack(T),
}

/// Whether a transaction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// Reads rows for a fold, which is written behind a fence.
    Load,
    /// Reads rows and books as they are at one moment: of a copy, all that its log has.
    Whole,
    Write,
    /// Writes a build that is not live: of a copy, what is not in its log.
    Beside,
    /// Writes, and renames tables under the eyes of views and foreign keys that go on naming them.
    Rename,
}

impl Database {
    /// The process' own handle of the database at `path`. `:memory:` is one database per process, and
    /// lives as long as someone holds it.
    pub(crate) fn shared(path: &Path) -> Arc<Self> {
        type Registry = Mutex<HashMap<PathBuf, Weak<Database>>>;
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        let path = std::path::absolute(path)
            .ok()
            .filter(|_| !is_memory(path))
            .unwrap_or_else(|| path.to_owned());
        let mut registry =
            REGISTRY.get_or_init(Registry::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = registry.get(&path).and_then(Weak::upgrade) {
            return there;
        }
        registry.retain(|_, database| database.strong_count() > 0);
        let fresh = Arc::new(Database::at(&path, None));
        registry.insert(path, Arc::downgrade(&fresh));
        fresh
    }

    /// A copy of what a journal's log has. What is in the file counts for nothing.
    pub(crate) fn copy(path: &Path, journaled: Journaled) -> Arc<Self> {
        Arc::new(Database::at(path, Some(journaled)))
    }

    fn at(path: &Path, journaled: Option<Journaled>) -> Self {
        let (open, readers) = (Mutex::new(None), Readers::default());
        Database { path: path.to_owned(), open, journaled, readers }
    }

    /// Whether it lives with the process, and has no second connection.
    pub(crate) fn is_in_memory(&self) -> bool {
        is_memory(&self.path)
    }

    /// Whether a connection is to the file that is there now.
    pub(crate) fn is_current(&self, open: &Open) -> bool {
        open.file == file_id(&self.path)
    }

    /// Whether there is such a database already.
    pub(crate) fn is_there(&self) -> bool {
        is_memory(&self.path) || self.journaled.is_some() || self.path.exists()
    }

    /// Whether a database could be made there, with its folder.
    ///
    /// # Errors
    /// Where what is there of the way to it may not be written to.
    pub(crate) fn check_folder(&self) -> Result<()> {
        let folder = self.path.ancestors().skip(1).find(|folder| folder.exists());
        let folder = folder.unwrap_or(Path::new("/"));
        let here = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK);
        here.map_err(|error| {
            let error = std::io::Error::from(error);
            Error::retriable(format!(
                "cannot open {}: nothing can be made in {}: {error}",
                self.path.display(),
                folder.display()
            ))
        })
    }

    /// Runs `act` in one transaction, off the async threads. It may be asked again after it was rolled back.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        access: Access,
        act: impl Fn(&Transaction<'_>) -> Result<End<T>> + Send + 'static,
    ) -> Result<T> {
        self.run_with(access, None, act).await
    }

    /// The same of one that writes this flush.
    pub(crate) async fn run_with<T: Send + 'static>(
        self: &Arc<Self>,
        access: Access,
        flush: Option<&Arc<Flush>>,
        act: impl Fn(&Transaction<'_>) -> Result<End<T>> + Send + 'static,
    ) -> Result<T> {
        let (database, flush) = (Arc::clone(self), flush.map(Arc::clone));
        let run = move || match &database.journaled {
            Some(journaled) => {
                let rows = flush.as_ref().map(|flush| &*flush.writes);
                database.run_copied(journaled, access, rows, act)
            }
            None => database.run_now(access, act),
        };
        let done = tokio::task::spawn_blocking(run).await;
        done.map_err(|error| Error::retriable("a SQLite call was cut off").with_source(error))?
    }

    /// A connection beside the shared one, for a long read; none where the database is in memory.
    pub(crate) async fn another(self: &Arc<Self>) -> Result<Option<Connection>> {
        if is_memory(&self.path) {
            return Ok(None);
        }
        let database = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || database.connect());
        let made = made
            .await
            .map_err(|error| Error::retriable("a SQLite call was cut off").with_source(error))?;
        made.map(|open| Some(open.connection))
    }

    fn run_now<T>(
        &self,
        access: Access,
        act: impl Fn(&Transaction<'_>) -> Result<End<T>>,
    ) -> Result<T> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|open| open.file != file_id(&self.path)) {
            // The file was deleted or replaced: SQLite would go on writing to what nobody can find.
            *open = None;
        }
        let connection = match open.as_mut() {
            Some(open) => &mut open.connection,
            None => &mut open.insert(self.connect()?).connection,
        };
        let result = match access {
            Access::Rename => renaming(connection, |connection| transact(connection, access, act)),
            _ => transact(connection, access, act),
        };
        let broken = result.as_ref().is_err_and(|error| error.class() == ErrorClass::Retriable);
        if broken && !is_memory(&self.path) {
            // Whatever it was, a new connection starts clean.
            *open = None;
        }
        result
    }

    /// Runs `act` on the copy; what it changes is in the log before anybody here sees it. Where this process does not have the
    /// charge of the log, it takes it, and `act` is asked again of all that the log has.
    fn run_copied<T>(
        &self,
        journaled: &Journaled,
        access: Access,
        rows: Option<&[RowWrite]>,
        act: impl Fn(&Transaction<'_>) -> Result<End<T>>,
    ) -> Result<T> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|open| open.file != file_id(&self.path)) {
            *open = None;
        }
        let result = match open.as_mut() {
            Some(open) => copied(&mut open.connection, journaled, (access, rows), act),
            None => self.connect_copy(journaled).and_then(|fresh| {
                let connection = &mut open.insert(fresh).connection;
                copied(connection, journaled, (access, rows), act)
            }),
        };
        if result.as_ref().is_err_and(is_sqlite_trouble) {
            // Whatever it was, a new copy is one of the log again.
            *open = None;
        }
        result
    }

    fn connect_copy(&self, journaled: &Journaled) -> Result<Open> {
        for end in ["", "-wal", "-shm"] {
            let mut name = self.path.clone().into_os_string();
            name.push(end);
            if let Err(error) = std::fs::remove_file(&name)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                let message = format!("cannot remove {}: {error}", self.path.display());
                return Err(Error::retriable(message).with_source(error));
            }
        }
        journaled.journal.forget();
        let mut open = self.connect()?;
        journal::prepare(&mut open.connection)?;
        Ok(open)
    }

    pub(crate) fn connect(&self) -> Result<Open> {
        let cannot = |error: Error| {
            let message = format!("cannot open {}: {}", self.path.display(), error.message());
            Error::new(error.class(), message).with_source(error)
        };
        let folder = self.path.parent().filter(|_| !is_memory(&self.path));
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(|error| {
                let message = format!("cannot create {}: {error}", folder.display());
                Error::retriable(message).with_source(error)
            })?;
        }
        let connect = || {
            let connection = Connection::open(&self.path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // A copy that a power cut breaks is made anew.
            let synchronous = if self.journaled.is_some() { "OFF" } else { "FULL" };
            connection.pragma_update(None, "synchronous", synchronous)?;
            connection.set_prepared_statement_cache_capacity(128);
            connection.create_collation(BY_NUMBER, by_number)?;
            Ok(connection)
        };
        let connection = connect().map_err(|error| cannot(sql(error)))?;
        Ok(Open { connection, file: file_id(&self.path) })
    }
}

impl Access {
    fn behavior(self) -> TransactionBehavior {
        match self {
            Access::Read | Access::Load | Access::Whole => TransactionBehavior::Deferred,
            Access::Write | Access::Beside | Access::Rename => TransactionBehavior::Immediate,
        }
    }
}

fn transact<T>(
    connection: &mut Connection,
    access: Access,
    act: impl Fn(&Transaction<'_>) -> Result<End<T>>,
) -> Result<T> {
    let transaction = connection.transaction_with_behavior(access.behavior()).map_err(sql)?;
    match act(&transaction)? {
        End::Commit(done) => {
            transaction.commit().map_err(sql)?;
            Ok(done)
        }
        End::RollBack(done) => {
            transaction.rollback().map_err(sql)?;
            Ok(done)
        }
    }
}

/// See [`Database::run_copied`].
fn copied<T>(
    connection: &mut Connection,
    journaled: &Journaled,
    (access, rows): (Access, Option<&[RowWrite]>),
    act: impl Fn(&Transaction<'_>) -> Result<End<T>>,
) -> Result<T> {
    let journal = &journaled.journal;
    let read = |connection: &mut Connection, read: &dyn Fn(&Replica<'_>) -> Result<()>| {
        let tx =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        read(&Replica::new(&tx, &journaled.spec))?;
        journal::forget_noted(&tx)?;
        tx.commit().map_err(sql)
    };
    // A flush or a build is behind fences of its own; a command goes by what the books say now.
    if rows.is_none() && !matches!(access, Access::Load | Access::Beside) {
        read(connection, &|replica| journal.follow(replica))?;
    }
    let wants_rows = matches!(access, Access::Load | Access::Whole);
    if journal.has_charge() && (access != Access::Load || journal.is_current()?) {
        let looks = access == Access::Whole;
        read(connection, &|replica| journal.read_on(replica, looks))?;
    } else if wants_rows {
        read(connection, &|replica| journal.take_charge(replica))?;
    }
    for attempt in 0..TRIES {
        let act =
            |connection: &mut Connection| publish(connection, journaled, (access, rows), &act);
        let done = match access {
            Access::Rename => renaming(connection, act),
            _ => act(connection),
        };
        match done? {
            Some(done) => return Ok(done),
            None => {
                stand_back(attempt);
                read(connection, &|replica| journal.take_charge(replica))?;
            }
        }
    }
    Err(Error::retriable(format!("others write {:?} all the time", journaled.spec.target)))
}

/// Those that take the charge from each other wait differently long.
fn stand_back(attempt: u32) {
    if attempt > 0 {
        let chance = RandomState::new().hash_one(attempt);
        std::thread::sleep(Duration::from_millis(chance % (STAND_BACK_MS << attempt.min(6))));
    }
}

/// One try; none where the charge of the log is to be taken first. What lost the charge while it wrote is tried again, and finds
/// then what became of it: a flush that went through is behind the positions.
fn publish<T>(
    connection: &mut Connection,
    journaled: &Journaled,
    (access, rows): (Access, Option<&[RowWrite]>),
    act: impl Fn(&Transaction<'_>) -> Result<End<T>>,
) -> Result<Option<T>> {
    let Journaled { journal, spec } = journaled;
    let tx = connection.transaction_with_behavior(access.behavior()).map_err(sql)?;
    let done = match act(&tx)? {
        End::Commit(done) => done,
        End::RollBack(done) => return tx.rollback().map_err(sql).map(|()| Some(done)),
    };
    if matches!(access, Access::Write | Access::Rename) {
        let (entries, remade) = journal::noted(&tx, &spec.target)?;
        let written = rows.unwrap_or_default();
        let changed = if remade { Rows::Any } else { Rows::These(written) };
        if !entries.is_empty() || !matches!(changed, Rows::These([])) {
            if !journal.has_charge() {
                return tx.rollback().map_err(sql).map(|()| None);
            }
            let changes = Changes { entries, rows: changed };
            match journal.publish(&Replica::new(&tx, spec), &changes) {
                Err(error) if error.class() == ErrorClass::Fenced => {
                    return tx.rollback().map_err(sql).map(|()| None);
                }
                published => published?,
            }
        }
    }
    if matches!(access, Access::Read | Access::Load | Access::Whole) {
        return tx.commit().map_err(sql).map(|()| Some(done));
    }
    journal::forget_noted(&tx)?;
    tx.commit().map_err(sql)?;
    Ok(Some(done))
}

/// Whether the copy itself failed.
fn is_sqlite_trouble(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    error.class() == ErrorClass::Retriable
        && source.is_some_and(|source| source.is::<rusqlite::Error>())
}

/// Runs `act` where a rename leaves views and the foreign keys of other tables alone. Foreign keys can only
/// be switched outside of a transaction.
fn renaming<T>(
    connection: &mut Connection,
    act: impl FnOnce(&mut Connection) -> Result<T>,
) -> Result<T> {
    let enforced: bool =
        connection.pragma_query_value(None, "foreign_keys", |row| row.get(0)).map_err(sql)?;
    let set = |connection: &Connection, keys: bool, older: bool| {
        connection.pragma_update(None, "foreign_keys", keys)?;
        connection.pragma_update(None, "legacy_alter_table", older)
    };
    set(connection, false, true).map_err(sql)?;
    let result = act(connection);
    set(connection, enforced, false).map_err(sql)?;
    result
}

fn is_memory(path: &Path) -> bool {
    path == Path::new(":memory:")
}

fn file_id(path: &Path) -> Option<(u64, u64)> {
    if is_memory(path) {
        return None;
    }
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Classes by SQLite's primary code.
const CLASSES: &[(ErrorCode, ErrorClass)] = &[
    (ErrorCode::ConstraintViolation, ErrorClass::Record),
    (ErrorCode::TooBig, ErrorClass::Record),
    (ErrorCode::TypeMismatch, ErrorClass::Record),
    (ErrorCode::DatabaseBusy, ErrorClass::Retriable),
    (ErrorCode::DatabaseLocked, ErrorClass::Retriable),
    (ErrorCode::DiskFull, ErrorClass::Retriable),
    (ErrorCode::SystemIoFailure, ErrorClass::Retriable),
    (ErrorCode::OutOfMemory, ErrorClass::Retriable),
    (ErrorCode::CannotOpen, ErrorClass::Retriable),
    (ErrorCode::PermissionDenied, ErrorClass::Retriable),
    (ErrorCode::ReadOnly, ErrorClass::Retriable),
    (ErrorCode::FileLockingProtocolFailed, ErrorClass::Retriable),
    (ErrorCode::SchemaChanged, ErrorClass::Retriable),
    (ErrorCode::OperationInterrupted, ErrorClass::Retriable),
    (ErrorCode::OperationAborted, ErrorClass::Retriable),
];

/// What an error of SQLite's is to the worker.
pub(crate) fn sql(error: rusqlite::Error) -> Error {
    let known = |code| CLASSES.iter().find(|(known, _)| *known == code).map(|(_, class)| *class);
    // Not a database, corrupt, or a statement that does not fit the schema: waiting cures none.
    let class = error.sqlite_error_code().and_then(known).unwrap_or(ErrorClass::Config);
    let message = match &error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    };
    let code = error.sqlite_error().map(|failure| failure.extended_code.to_string());
    let out = Error::new(class, format!("SQLite: {message}"));
    let out = match code {
        Some(code) => out.with_code(code),
        None => out,
    };
    out.with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/errors.md`: name, number, what it is, class.
    #[test]
    fn the_page_of_errors_tells_every_codes_class() {
        let rows = foldline_testkit::page::table("docs/errors.md", "## SQLite");
        let mut told = Vec::new();
        for row in &rows {
            let [_, numbers, _, class] = row.as_slice() else { panic!("{row:?}") };
            for number in numbers {
                let failure = rusqlite::ffi::Error::new(number.parse().unwrap());
                told.push(failure.code);
                let error = sql(rusqlite::Error::SqliteFailure(failure, None));
                assert_eq!(error.class().label(), class[0], "{row:?}");
            }
        }
        for (code, _) in CLASSES {
            assert!(told.contains(code), "{code:?} is not on the page");
        }
    }
}
