//! The horizon in the books, and the rows that it has passed.

use async_trait::async_trait;
use foldline_api::expiry::{Horizon, Horizons, Look, Rule};
use foldline_api::sink::{Marks, RowWrite, TargetSpec};
use foldline_api::{Error, Result};
use rusqlite::Transaction;

use crate::books::horizon;
use crate::codec::{Fingerprint, decode_versioned, encode};
use crate::database::{Access, sql};
use crate::target::{SqliteTarget, bound};
use crate::writer::{Hold, past_sql};

/// The clock of this host, in milliseconds since the epoch, as SQLite reads it.
const NOW: &str = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)";

fn rule(spec: &TargetSpec) -> Result<&Rule> {
    spec.expire.as_ref().ok_or_else(|| Error::config("nothing expires here"))
}

#[async_trait]
impl Horizons for SqliteTarget {
    async fn look(&self) -> Result<Look> {
        self.run(Access::Read, |tx, spec| {
            bound(tx, spec)?;
            let horizon = horizon(tx, &spec.target, rule(spec)?)?;
            let now = tx.query_row(NOW, [], |row| row.get(0)).map_err(sql)?;
            Ok(Look { horizon, now })
        })
        .await
    }

    async fn advance(&self, to: Horizon) -> Result<Horizon> {
        self.run(Access::Write, move |tx, spec| {
            bound(tx, spec)?;
            let (advance, rule) = (include_str!("sql/advance_horizon.sql"), rule(spec)?);
            tx.execute(advance, (&spec.target, rule.to_string(), to.0)).map_err(sql)?;
            Ok(horizon(tx, &spec.target, rule)?.unwrap_or(to))
        })
        .await
    }
}

impl Hold {
    /// See [`foldline_api::sink::Writer::expired`].
    pub(crate) fn past(
        &self,
        tx: &Transaction<'_>,
        horizon: Horizon,
        max: usize,
    ) -> Result<Vec<RowWrite>> {
        self.check_live(tx)?;
        self.check_fit(tx)?;
        let model = &self.spec.model;
        let rule = self.spec.expire.as_ref();
        let column = rule.and_then(|rule| model.columns.get(rule.column));
        let Some((column, before)) = column.and_then(|c| Some((c, horizon.bound(&c.ty)?))) else {
            return Ok(Vec::new());
        };
        let Some(text) = rule.and_then(|rule| past_sql(self.table(), model, rule)) else {
            return Ok(Vec::new());
        };
        let mut past = tx.prepare_cached(&text).map_err(sql)?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let mut found = past.query((encode(&column.ty, &before), max)).map_err(sql)?;
        let (mut deletes, mut print) = (Vec::new(), Fingerprint::default());
        while let Some(stored) = found.next().map_err(sql)? {
            let (row, version) = decode_versioned(model, stored, &mut print)?;
            let key = model.key_of(&row);
            deletes.push(RowWrite { key, row: None, version, marks: Marks::new() });
        }
        deletes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(deletes)
    }
}
