//! Reading beside the shared connection, so that no flush waits for a query.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldline_api::decimal::Decimal;
use foldline_api::{Error, Result};
use rusqlite::{InterruptHandle, Transaction};

use crate::database::{Access, Database, End, Open, sql};

/// Idle connections that are kept.
const IDLE_MAX: usize = 4;

/// What orders the texts of numbers by their value.
pub(crate) const BY_NUMBER: &str = "foldline_numeric";

/// The idle connections.
#[derive(Debug, Default)]
pub(crate) struct Readers(Mutex<Vec<Open>>);

/// The order of two numbers, as they are stored; what someone else wrote and is none comes behind all that are.
pub(crate) fn by_number(one: &str, other: &str) -> Ordering {
    match (one.parse::<Decimal>(), other.parse::<Decimal>()) {
        (Ok(one), Ok(other)) => one.cmp(&other),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => one.cmp(other),
    }
}

/// Ends what a connection does, unless it has ended before.
struct Interrupt(Option<InterruptHandle>);

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.interrupt();
        }
    }
}

impl Database {
    /// Runs `act` in one transaction that only reads, for so long at most. A database in memory, which has no second connection, is
    /// read by the shared one.
    ///
    /// # Errors
    /// One that took too long is too much, and is ended.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        time: Duration,
        act: impl Fn(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let late = |_| {
            let message = format!("SQLite: no answer within {} s", time.as_secs_f64());
            Error::retriable(message).too_much()
        };
        if self.is_in_memory() {
            let all = self.run(Access::Read, move |tx| act(tx).map(End::Commit));
            return tokio::time::timeout(time, all).await.map_err(late)?;
        }
        let database = Arc::clone(self);
        let cut_off = |error| Error::retriable("a SQLite call was cut off").with_source(error);
        let open =
            tokio::task::spawn_blocking(move || database.reader()).await.map_err(cut_off)??;
        let mut interrupt = Interrupt(Some(open.connection.get_interrupt_handle()));
        let reading = tokio::task::spawn_blocking(move || {
            let mut open = open;
            let done = open.connection.transaction().map_err(sql).and_then(|tx| act(&tx));
            (open, done)
        });
        let (open, done) =
            tokio::time::timeout(time, reading).await.map_err(late)?.map_err(cut_off)?;
        interrupt.0 = None;
        self.readers.keep(open);
        done
    }

    /// An idle connection to the file that is there now, or a new one.
    fn reader(&self) -> Result<Open> {
        let mut idle = self.readers.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|open| self.is_current(open));
        match idle.pop() {
            Some(open) => Ok(open),
            None => self.connect(),
        }
    }
}

impl Readers {
    fn keep(&self, open: Open) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_their_value() {
        let texts = ["-10", "-9.50", "0.00", "2", "10.00", "123456789012345678901234567890.1", "x"];
        for pair in texts.windows(2) {
            let [one, other] = pair else { panic!("{pair:?}") };
            assert_eq!(by_number(one, other), Ordering::Less, "{one} {other}");
            assert_eq!(by_number(other, one), Ordering::Greater, "{one} {other}");
        }
        assert_eq!(by_number("1.50", "1.5"), Ordering::Equal);
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::shared(&folder.path().join("slow.db"));
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let read = |text: &'static str| {
            move |tx: &Transaction<'_>| {
                tx.query_row(text, [], |row| row.get::<_, i64>(0)).map_err(sql)
            }
        };
        let error = database.read(Duration::from_millis(50), read(endless)).await.unwrap_err();
        assert!(error.is_too_much(), "{error}");
        let found = database.read(Duration::from_secs(60), read("SELECT 7")).await;
        assert_eq!(found.unwrap(), 7);
    }
}
