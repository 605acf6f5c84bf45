//! Connections: one lane per use, each with at most one connection that is used by one caller at a time.

use std::sync::Arc;
use std::time::Duration;

use foldline_api::{Error, Result};
use futures_util::future::join3;
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::Client;

use crate::config::Endpoint;
use crate::error::classify;

/// Name resolution, TCP, TLS and login together.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const ROLLBACK_LIMIT: Duration = Duration::from_secs(5);

/// What a transaction of Foldline's begins with. All of it ends with the transaction, so that it works
/// behind a pooler; the times stay below Kafka's session timeout, so that a stopped worker holds no
/// lock when its successor comes. The catalog's texts are compared and put together, so names in them are quoted where
/// they must be, whatever the role likes. It does not say READ WRITE, which a standby refuses as a feature that it has
/// not (0A000): its first write ends with what it is (25006), and is waited for.
pub(crate) const BEGIN: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED; \
SET LOCAL idle_in_transaction_session_timeout = '15s'; \
SET LOCAL statement_timeout = '25s'; \
SET LOCAL lock_timeout = '10s'; \
SET LOCAL jit = off; \
SET LOCAL quote_all_identifiers = off; \
SELECT set_config('synchronous_commit', 'on', true) \
WHERE current_setting('synchronous_commit') = 'off'";

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

/// One connection, made when it is first needed and again when it was lost.
pub(crate) struct Lane {
    endpoint: Arc<Endpoint>,
    slot: Mutex<Option<Client>>,
    /// Whether a lost connection is reported once before another is made: caches filled through it
    /// must be emptied then, as the next server may be an older one.
    reports_loss: bool,
}

impl Lane {
    pub(crate) fn new(endpoint: Arc<Endpoint>, reports_loss: bool) -> Self {
        Lane { endpoint, slot: Mutex::new(None), reports_loss }
    }

    /// Takes the connection out of the lane. A caller that is dropped half way takes it down with it,
    /// so nobody goes on in the middle of its transaction.
    pub(crate) async fn take(&self) -> Result<Session<'_>> {
        let mut slot = self.slot.lock().await;
        let client = match slot.take() {
            Some(client) if !client.is_closed() => client,
            Some(_) if self.reports_loss => {
                return Err(Error::retriable(format!("{}: connection lost", self.endpoint.place)));
            }
            _ => connect(&self.endpoint).await?,
        };
        Ok(Session { client, slot })
    }

    /// Takes the connection and begins a transaction.
    pub(crate) async fn begin(&self) -> Result<Session<'_>> {
        self.begin_with(BEGIN).await
    }

    /// Takes the connection and begins a transaction that only reads, all at one moment.
    pub(crate) async fn snapshot(&self) -> Result<Session<'_>> {
        self.begin_with(SNAPSHOT).await
    }

    async fn begin_with(&self, sql: &str) -> Result<Session<'_>> {
        let session = self.take().await?;
        let begun = session.client.batch_execute(sql).await;
        begun.map_err(|error| classify(error, &self.endpoint.place))?;
        Ok(session)
    }
}

/// A connection in use.
pub(crate) struct Session<'a> {
    /// The client.
    pub(crate) client: Client,
    slot: MutexGuard<'a, Option<Client>>,
}

impl Session<'_> {
    /// Gives the connection back; there must be no transaction on it.
    pub(crate) fn keep(mut self) {
        *self.slot = Some(self.client);
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
        let (begin, commit) = (client.batch_execute(begin), client.batch_execute("COMMIT"));
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
        Err(_) => Err(Error::retriable(format!("{doing}: no answer within {} s", limit.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_holds_locks_for_longer_than_a_session_lasts() {
        for (name, seconds) in [
            ("idle_in_transaction_session_timeout", 15),
            ("statement_timeout", 25),
            ("lock_timeout", 10),
        ] {
            assert!(BEGIN.contains(&format!("SET LOCAL {name} = '{seconds}s'")), "{name}");
        }
        for begin in [BEGIN, BEGIN_READ, SNAPSHOT, crate::snapshot::BEGIN] {
            assert!(begin.contains("SET LOCAL lock_timeout = '10s'"), "{begin}");
            assert!(begin.contains("SET LOCAL statement_timeout"), "{begin}");
            // Nothing outlives the transaction.
            assert!(!begin.replace("SET LOCAL", "").contains("SET "), "{begin}");
        }
    }
}
