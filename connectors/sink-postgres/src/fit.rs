//! Whether the table still is what it was when its task took it. Each flush asks behind its fence, before it
//! writes a row: what a column that was lost, retyped or tightened would refuse, no record is to blame.

use std::sync::{Mutex, PoisonError};

use foldline_api::model::Model;
use foldline_api::{Error, Result};
use futures_util::future::join;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::schema;

/// What a table was when it was seen to fit.
#[derive(Debug)]
struct Seen {
    signature: i64,
    /// The columns that it did not let be null when it was seen first.
    filled: Vec<String>,
}

/// What a writer knows of its table's columns.
#[derive(Debug, Default)]
pub(crate) struct Fit(Mutex<Option<Seen>>);

/// Of a table's columns: names, types, what must be given. Checks and indexes are not in it.
const SIGNATURE: &str = sql!("catalog/signature");

/// Keeps DDL away from the table until the transaction ends, and nobody else: what changes columns needs more
/// than this lets in. Its partitions change with it.
pub(crate) fn lock_sql(table: &str) -> String {
    format!("LOCK TABLE ONLY {table} IN ACCESS SHARE MODE")
}

/// Locks the table with [`lock_sql`] and reads its signature: sent together when first polled.
pub(crate) async fn signature(
    client: &Client,
    lock: &str,
    oid: u32,
) -> Result<i64, tokio_postgres::Error> {
    let params: &[(&(dyn ToSql + Sync), Type)] = &[(&oid, Type::OID)];
    let (locked, rows) =
        join(client.execute_typed(lock, &[]), client.query_typed(SIGNATURE, params)).await;
    locked?;
    rows?.first().map_or(Ok(0), |row| row.try_get(0))
}

impl Fit {
    /// Whether the table was seen to fit as it is now.
    pub(crate) fn knows(&self, signature: i64) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().is_some_and(|seen| seen.signature == signature)
    }

    /// Looks at the columns of a table that may have changed.
    ///
    /// # Errors
    /// A config error that names what no longer fits.
    pub(crate) async fn check(
        &self,
        client: &Client,
        (oid, signature): (u32, i64),
        model: &Model,
        (label, connector): (&str, &str),
    ) -> Result<()> {
        let columns = schema::columns(client, oid).await?;
        let misfits = schema::misfits(&columns, model);
        if !misfits.is_empty() {
            return Err(Error::config(format!(
                "table {label:?} no longer fits connector {connector:?}: {}; take the change back, or make the \
                 table that `foldline plan {connector}` shows, then `foldline restart {connector}`",
                misfits.join("; ")
            )));
        }
        let filled = schema::filled(&columns, model);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = seen.as_mut() else {
            *seen = Some(Seen { signature, filled });
            return Ok(());
        };
        let tightened: Vec<String> = filled
            .iter()
            .filter(|name| !seen.filled.contains(name))
            .map(|n| format!("{n:?}"))
            .collect();
        if !tightened.is_empty() {
            return Err(Error::config(format!(
                "table {label:?}: {} was made NOT NULL under the running connector {connector:?}: take that back, or \
                 accept it with `foldline restart {connector}`",
                tightened.join(", ")
            )));
        }
        seen.signature = signature;
        Ok(())
    }
}
