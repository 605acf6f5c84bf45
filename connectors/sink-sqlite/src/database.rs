//! One connection per database file and process, and what its errors mean.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use foldline_api::{Error, ErrorClass, Result};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

/// How long a call waits for another process' transaction before the worker backs off.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A database file, shared by all targets and tasks of this process: they queue here, in turn, rather
/// than at SQLite's lock, which is not fair.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
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
    Write,
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
        let fresh = Arc::new(Database { path: path.clone(), open: Mutex::new(None) });
        registry.insert(path, Arc::downgrade(&fresh));
        fresh
    }

    /// Runs `act` in one transaction, off the async threads.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        access: Access,
        act: impl FnOnce(&Transaction<'_>) -> Result<End<T>> + Send + 'static,
    ) -> Result<T> {
        let database = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || database.run_now(access, act)).await;
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
        act: impl FnOnce(&Transaction<'_>) -> Result<End<T>>,
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
        let behavior = match access {
            Access::Read => TransactionBehavior::Deferred,
            Access::Write | Access::Rename => TransactionBehavior::Immediate,
        };
        let result = match access {
            Access::Rename => {
                renaming(connection, |connection| transact(connection, behavior, act))
            }
            Access::Read | Access::Write => transact(connection, behavior, act),
        };
        let broken = result.as_ref().is_err_and(|error| error.class() == ErrorClass::Retriable);
        if broken && !is_memory(&self.path) {
            // Whatever it was, a new connection starts clean.
            *open = None;
        }
        result
    }

    fn connect(&self) -> Result<Open> {
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
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.set_prepared_statement_cache_capacity(128);
            Ok(connection)
        };
        let connection = connect().map_err(|error| cannot(sql(error)))?;
        Ok(Open { connection, file: file_id(&self.path) })
    }
}

fn transact<T>(
    connection: &mut Connection,
    behavior: TransactionBehavior,
    act: impl FnOnce(&Transaction<'_>) -> Result<End<T>>,
) -> Result<T> {
    let transaction = connection.transaction_with_behavior(behavior).map_err(sql)?;
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
