//! Connections in use: how they are taken out of the pool, begin and end transactions, and go back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldline_api::{Error, Result};
use futures_util::future::join3;
use tokio_postgres::Client;

use crate::config::Endpoint;
use crate::error::classify;
use crate::identifier::literal;
use crate::pool::{Permits, Pool, Use};

/// Name resolution, TCP, TLS and login together.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const ROLLBACK_LIMIT: Duration = Duration::from_secs(5);

/// What a transaction of Foldline's begins with. All of it ends with the transaction, so that it works
/// behind a pooler; the times stay below Kafka's session timeout, so that a stopped worker holds no
/// lock when its successor comes. The catalog's texts are compared and put together, so names in them are quoted where
/// they must be, whatever the role likes. It does not say READ WRITE, which a standby refuses as a feature that it has
/// not (0A000): its first write ends with what it is (25006), and is waited for.
pub(crate) fn begin(statement_timeout: Duration) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; \
         SET LOCAL idle_in_transaction_session_timeout = '15s'; \
         SET LOCAL statement_timeout = '{}ms'; \
         SET LOCAL lock_timeout = '10s'; \
         SET LOCAL jit = off; \
         SET LOCAL quote_all_identifiers = off; \
         SELECT set_config('synchronous_commit', 'on', true) \
         WHERE current_setting('synchronous_commit') = 'off'",
        statement_timeout.as_millis()
    )
}

/// What a single read is wrapped in, on the way with it: without a bound of its own it would wait
/// behind someone's table lock for as long as that lasts, and its backend after the caller has gone.
pub(crate) const BEGIN_READ: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; \
SET LOCAL statement_timeout = '55s'; \
SET LOCAL lock_timeout = '10s'; \
SET LOCAL jit = off";

/// Several reads of one moment, without a lock on a row and without a write.
pub(crate) const SNAPSHOT: &str = "\
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
SET LOCAL idle_in_transaction_session_timeout = '15s'; \
SET LOCAL statement_timeout = '25s'; \
SET LOCAL lock_timeout = '10s'; \
SET LOCAL quote_all_identifiers = off";

/// One use of the pool's connections, by one connector.
pub(crate) struct Lane {
    pool: Arc<Pool>,
    wanted: Use,
    /// Names the connector in `pg_stat_activity` for as long as a transaction lasts.
    name: Arc<str>,
    /// How many servers the user of this lane knows to have answered, where that matters to it: caches filled from
    /// another server than the one that answers now must be emptied, as that may be an older one.
    known: Option<Arc<AtomicU64>>,
}

impl Lane {
    pub(crate) fn new(pool: &Arc<Pool>, wanted: Use, connector: &str) -> Self {
        let name = literal(&format!("foldline/{connector}"));
        let name = format!("SET LOCAL application_name = {name}").into();
        Lane { pool: Arc::clone(pool), wanted, name, known: None }
    }

    /// The same for one whose caches are of the server that answers now; `known` is all of its lanes'.
    pub(crate) fn of_server(self, known: &Arc<AtomicU64>) -> Self {
        Lane { known: Some(Arc::clone(known)), ..self }
    }

    /// Whether another server answers than the one that was known, which is told once.
    fn is_another(&self) -> bool {
        let servers = self.pool.servers();
        self.known.as_ref().is_some_and(|known| known.swap(servers, Ordering::Relaxed) != servers)
    }

    /// How a transaction begins: `sql`, and whose it is.
    pub(crate) fn begin_sql(&self, sql: &str) -> String {
        format!("{sql}; {}", self.name)
    }

    /// Takes a connection out of the pool. A caller that is dropped half way takes it down with it, so nobody goes
    /// on in the middle of its transaction.
    pub(crate) async fn take(&self) -> Result<Session> {
        let (client, permits) = self.pool.take(self.wanted).await?;
        let (pool, name) = (Arc::clone(&self.pool), Arc::clone(&self.name));
        let session = Session { client, pool, name, permits };
        if self.is_another() {
            session.keep();
            let place = &self.pool.endpoint.place;
            return Err(Error::retriable(format!(
                "{place}: it was restarted, or another server took over"
            )));
        }
        Ok(session)
    }

    /// Takes the connection and begins a transaction.
    pub(crate) async fn begin(&self) -> Result<Session> {
        self.begin_with(&self.pool.endpoint.begin).await
    }

    /// Takes the connection and begins a transaction that only reads, all at one moment.
    pub(crate) async fn snapshot(&self) -> Result<Session> {
        self.begin_with(SNAPSHOT).await
    }

    /// Takes the connection and begins a transaction with `sql`.
    pub(crate) async fn begin_with(&self, sql: &str) -> Result<Session> {
        let session = self.take().await?;
        let begun = session.client.batch_execute(&self.begin_sql(sql)).await;
        begun.map_err(|error| classify(error, &self.pool.endpoint.place))?;
        Ok(session)
    }
}

/// A connection in use.
pub(crate) struct Session {
    /// The client.
    pub(crate) client: Client,
    pool: Arc<Pool>,
    name: Arc<str>,
    permits: Permits,
}

impl Session {
    /// Gives the connection back; there must be no transaction on it.
    pub(crate) fn keep(self) {
        self.pool.give_back(self.client);
        drop(self.permits);
    }

    /// Gives the connection back unless it was lost; as of [`Session::keep`].
    pub(crate) fn keep_if_open(self) {
        if !self.client.is_closed() {
            self.keep();
        }
    }

    /// Reads in a transaction of one round trip: `read` must send all its statements when it is first polled,
    /// and the end is sent behind them. `refused` tells what is wrong with a begin or an end.
    pub(crate) async fn at_once<T>(
        self,
        begin: &str,
        read: impl AsyncFnOnce(&Client) -> Result<T>,
        refused: impl Fn(tokio_postgres::Error) -> Error,
    ) -> Result<T> {
        let client = &self.client;
        let begin = format!("{begin}; {}", self.name);
        let (begin, commit) = (client.batch_execute(&begin), client.batch_execute("COMMIT"));
        let (begun, read, ended) = join3(begin, read(client), commit).await;
        // The transaction has ended by itself, so a refused statement leaves the connection as it was.
        self.keep_if_open();
        begun.map_err(&refused)?;
        let read = read?;
        ended.map_err(&refused)?;
        Ok(read)
    }

    /// Rolls back and gives the connection back, or drops it where that fails.
    pub(crate) async fn roll_back(self) {
        let done =
            tokio::time::timeout(ROLLBACK_LIMIT, self.client.batch_execute("ROLLBACK")).await;
        if matches!(done, Ok(Ok(()))) {
            self.keep();
        }
    }

    /// Commits where `result` is good, else rolls back.
    pub(crate) async fn finish<T>(self, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => {
                self.client
                    .batch_execute("COMMIT")
                    .await
                    .map_err(|error| classify(error, "commit"))?;
                self.keep();
                Ok(value)
            }
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }
}

/// The first whose `pg_current_xact_id` tells a transaction's id without wrapping around.
const POSTGRES: u32 = 13;

/// Refuses a server that is too old, by what it says of itself at each login, so before anything is made there. One that
/// does not tell its version is taken.
fn check_version(place: &str, version: Option<&str>) -> Result<()> {
    let Some(version) = version else { return Ok(()) };
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    if major.parse().is_ok_and(|major: u32| major < POSTGRES) {
        return Err(Error::config(format!(
            "{place}: PostgreSQL {version} is too old: Foldline needs PostgreSQL {POSTGRES} or a newer one, and made \
             nothing there"
        )));
    }
    Ok(())
}

/// A connection of its own.
pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Client> {
    let attempt = endpoint.client.connect(endpoint.tls.clone());
    let (client, connection) = match tokio::time::timeout(CONNECT_LIMIT, attempt).await {
        Ok(Ok(pair)) => pair,
        Ok(Err(error)) => {
            let tls = error.to_string().contains("TLS");
            if std::error::Error::source(&error)
                .is_some_and(|e| e.to_string() == "password missing")
            {
                return Err(Error::config(format!(
                    "{}: the server asks for a password: give the sink a `password`, or the url one; PGPASSWORD and \
                     files of libpq are not read",
                    endpoint.place
                )));
            }
            let error = classify(error, &endpoint.place);
            if !tls {
                return Err(error);
            }
            // A certificate may be mended on the other side too, so this is worth trying again.
            let hint =
                "give the sink the ca that signed the certificate, or choose another sslmode";
            return Err(Error::retriable(format!("{}; {hint}", error.message())));
        }
        Err(_) => return Err(Error::retriable(format!("{}: no answer", endpoint.place))),
    };
    check_version(&endpoint.place, connection.parameter("server_version"))?;
    // The task ends with the client; what ended it shows in the client's next call.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "PostgreSQL connection ended");
        }
    });
    Ok(client)
}

/// Bounds a call: a server that is gone without a word answers nothing.
pub(crate) async fn within<T>(
    limit: Duration,
    doing: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("{doing}: no answer within {} s", limit.as_secs());
            Err(Error::retriable(message).too_much())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PostgresConfig;

    #[test]
    fn another_server_is_told_once_to_each_whose_caches_are_of_the_one_before() {
        let url = "postgres://u@localhost/told".to_owned();
        let (schema, connections) = ("foldline".to_owned(), 4);
        let config = PostgresConfig {
            url,
            password: None,
            ca: None,
            cert: None,
            key: None,
            connections,
            schema,
            statement_timeout: Duration::from_secs(25),
        };
        let pool = Pool::shared(&config).unwrap();
        let known = Arc::new(AtomicU64::new(pool.servers()));
        let lane = || Lane::new(&pool, Use::Brief, "orders");
        let (writing, loading) = (lane().of_server(&known), lane().of_server(&known));
        pool.meet(7);
        pool.meet(7);
        assert!(!writing.is_another(), "the first is the one that answered before");
        pool.meet(8);
        assert!(loading.is_another() && !writing.is_another() && !loading.is_another());
        pool.meet(7);
        assert!(writing.is_another(), "back again");
        assert!(!lane().is_another());
        assert!(Arc::ptr_eq(&pool, &Pool::shared(&config).unwrap()), "one pool for one config");
    }

    #[test]
    fn what_is_too_old_is_refused_by_its_name() {
        for version in
            ["13.22", "18.0", "15.14 (Debian 15.14-0+deb12u1)", "19devel", "13beta1", "next"]
        {
            assert!(check_version("here", Some(version)).is_ok(), "{version}");
        }
        assert!(check_version("here", None).is_ok());
        for version in ["12.20", "9.6.24", "10.23 (Ubuntu 10.23-1)"] {
            let error = check_version("here", Some(version)).unwrap_err();
            assert_eq!(error.class(), foldline_api::ErrorClass::Config);
            let says =
                format!("here: PostgreSQL {version} is too old: Foldline needs PostgreSQL 13");
            assert!(error.message().starts_with(&says), "{error}");
        }
    }

    #[test]
    fn nobody_holds_locks_for_longer_than_a_session_lasts() {
        let begin = begin(Duration::from_secs(25));
        for (name, time) in [
            ("idle_in_transaction_session_timeout", "15s"),
            ("statement_timeout", "25000ms"),
            ("lock_timeout", "10s"),
        ] {
            assert!(begin.contains(&format!("SET LOCAL {name} = '{time}'")), "{name}");
        }
        for begin in [&*begin, BEGIN_READ, SNAPSHOT, crate::snapshot::BEGIN] {
            assert!(begin.contains("SET LOCAL lock_timeout = '10s'"), "{begin}");
            assert!(begin.contains("SET LOCAL statement_timeout"), "{begin}");
            // Nothing outlives the transaction.
            assert!(!begin.replace("SET LOCAL", "").contains("SET "), "{begin}");
        }
    }
}
