//! Rows and books of one moment: a transaction that only reads, on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::model::{self, Key, Model};
use foldline_api::sink::{Books, Loaded, Marks, Snapshot, TargetSpec, Version};
use foldline_api::value::Value;
use foldline_api::{Error, Result};
use futures_util::TryStreamExt;
use tokio_postgres::{Client, Row};

use crate::books;
use crate::codec::{CodecError, Raw, decode, encode_column, wire_array_type};
use crate::error::classify;
use crate::identifier::{TableName, quote};
use crate::joins::{Shown, Waiting};
use crate::session::{Session, within};
use crate::statement::Statements;
use crate::writer::as_param;

/// A reader that folds the log between two pages may take its time: it holds no row's lock.
pub(crate) const BEGIN: &str = "\
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
SET LOCAL idle_in_transaction_session_timeout = '10min'; \
SET LOCAL statement_timeout = '60s'; \
SET LOCAL lock_timeout = '10s'; \
SET LOCAL jit = off";

const LIMIT: Duration = Duration::from_secs(60);
const CURSOR: &str = "foldline_rows";

/// See the module. The table is locked against DDL only from the first row that is read.
pub(crate) struct PostgresSnapshot {
    session: Session,
    model: Arc<Model>,
    table: TableName,
    load: String,
    books: Books,
    reading: bool,
    /// What the rows show of other tables.
    shown: Option<Shown>,
    /// Rows that have still to be looked at.
    waiting: Waiting,
}

impl PostgresSnapshot {
    /// In the transaction that `session` has begun with [`BEGIN`].
    pub(crate) async fn new(
        session: Session,
        books: &books::Books,
        spec: &TargetSpec,
        table: TableName,
        looked_up: &[TableName],
    ) -> Result<Self> {
        let (label, client) = (table.label(), &session.client);
        let entry = books.entry(client, &label, "").await?;
        let binding = books::built_here(entry, spec, &label, "its rows cannot be judged")?;
        let generation = binding.generation;
        let live = binding.physical.parse().unwrap_or(0);
        let verdicts = books.all_verdicts(client, &label, generation).await?;
        let verdicts = books.judge(client, &[live], &spec.fingerprint, verdicts).await?;
        let shown = spec.joins.as_ref().map(|joins| Shown::new(joins, looked_up, &spec.model));
        let mut waiting = Waiting::new(books, &label, generation);
        if let Some(shown) = &shown {
            shown.look(client, true).await?;
            waiting.all = waiting.is_all(client, shown, &spec.fingerprint).await?;
        }
        let books = Books {
            generation,
            positions: books.positions(client, &label, generation, "").await?,
            verdicts,
            continued: books.is_extended(client, &label, generation).await?,
            horizon: match &spec.expire {
                Some(rule) => books.horizon(client, &label, rule).await?,
                None => None,
            },
        };
        Ok(PostgresSnapshot {
            session,
            load: Statements::new(&table.sql(), &spec.model).load,
            model: Arc::clone(&spec.model),
            table,
            books,
            reading: false,
            shown,
            waiting,
        })
    }

    async fn begin_reading(&mut self) -> Result<()> {
        if self.reading {
            return Ok(());
        }
        let columns: Vec<String> =
            self.model.columns.iter().map(|column| format!("t.{}", quote(&column.name))).collect();
        let sql = format!(
            "DECLARE {CURSOR} NO SCROLL CURSOR FOR SELECT 1::int8, {}, t.xmin FROM {} AS t",
            columns.join(", "),
            self.table.sql()
        );
        let declared = self.session.client.batch_execute(&sql).await;
        declared.map_err(|error| classify(error, &self.doing()))?;
        self.reading = true;
        Ok(())
    }

    fn doing(&self) -> String {
        format!("reading {:?}", self.table.label())
    }
}

#[async_trait]
impl Snapshot for PostgresSnapshot {
    fn books(&self) -> &Books {
        &self.books
    }

    async fn next(&mut self, max: usize) -> Result<Vec<(Key, Loaded)>> {
        within(LIMIT, "reading rows", async {
            self.begin_reading().await?;
            let sql = format!("FETCH FORWARD {} FROM {CURSOR}", max.max(1));
            let rows = self.session.client.query_typed(&sql, &[]).await;
            let rows = rows.map_err(|error| classify(error, &self.doing()))?;
            let label = self.table.label();
            let mut out = Vec::with_capacity(rows.len());
            for row in &rows {
                let loaded = read_row(&self.model, &label, row)?;
                if let Some(row) = &loaded.row {
                    out.push((self.model.key_of(row), loaded));
                }
            }
            Ok(out)
        })
        .await
    }

    async fn load(&mut self, keys: &[Key]) -> Result<Vec<Loaded>> {
        let label = self.table.label();
        let place = (&*self.load, &*label);
        let loading = load(&self.session.client, place, &self.model, keys, usize::MAX);
        within(LIMIT, "reading rows", loading).await?.map_err(|e| classify(e, &self.doing()))
    }

    async fn shown(&mut self, rows: &[model::Row]) -> Result<Vec<Option<model::Row>>> {
        let Some(shown) = &self.shown else { return Ok(rows.iter().cloned().map(Some).collect()) };
        within(LIMIT, "reading what rows show", async {
            let client = &self.session.client;
            let waits = self.waiting.of(client, shown, &self.model, rows).await?;
            let completed = shown.completed(client, &self.model, rows).await?;
            Ok(completed
                .into_iter()
                .zip(waits)
                .map(|(row, waits)| (!waits).then_some(row))
                .collect())
        })
        .await
    }
}

/// The rows of `keys`, in their order, by [`Statements::load`]: of all, or of the first ones that come to `bytes_max`. The
/// rows come in any order, so those of the last keys are let go when they are too much. PostgreSQL's own refusal is left
/// to the caller.
pub(crate) async fn load(
    client: &Client,
    (sql, label): (&str, &str),
    model: &Model,
    keys: &[Key],
    bytes_max: usize,
) -> Result<std::result::Result<Vec<Loaded>, tokio_postgres::Error>> {
    let mut params = Vec::with_capacity(model.key.len());
    for (at, column) in model.key_columns().enumerate() {
        let values = keys.iter().map(|key| key.values().get(at).unwrap_or(&Value::Null));
        let encoded = encode_column(&column.ty, values)
            .map_err(|error| Error::record(format!("key column {:?}: {error}", column.name)))?;
        params.push((encoded, wire_array_type(&column.ty)));
    }
    let refs = params.iter().map(|(encoded, ty)| (as_param(encoded), ty.clone()));
    let rows = match client.query_typed_raw(sql, refs).await {
        Ok(rows) => rows,
        Err(error) => return Ok(Err(error)),
    };
    let mut rows = std::pin::pin!(rows);
    let mut out: Vec<Loaded> = keys.iter().map(|_| Loaded::absent()).collect();
    let mut bytes = 0_usize;
    loop {
        let row = match rows.try_next().await {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Ok(out)),
            Err(error) => return Ok(Err(error)),
        };
        let at = place(&row).filter(|at| *at < keys.len());
        let at = at.ok_or_else(|| Error::retriable("PostgreSQL sent a row nobody asked for"))?;
        // Behind those that are kept.
        let Some(slot) = out.get_mut(at) else { continue };
        *slot = read_row(model, label, &row)?;
        bytes = bytes.saturating_add(slot.heap_bytes());
        while bytes > bytes_max && out.len() > 1 {
            bytes -= out.pop().map_or(0, |last| last.heap_bytes());
        }
    }
}

/// A row's place among the keys.
fn place(row: &Row) -> Option<usize> {
    let ord = row.try_get::<_, Raw<'_>>(0).ok()?.i64()?;
    usize::try_from(ord - 1).ok()
}

/// The state in a row as [`Statements::load`] shows it.
pub(crate) fn read_row(model: &Model, label: &str, row: &Row) -> Result<Loaded> {
    let raw = |at| {
        row.try_get::<_, Raw<'_>>(at)
            .map_err(|error| classify(error, &format!("reading {label:?}")))
    };
    let count = model.columns.len();
    let mut values = Vec::with_capacity(count);
    for (at, column) in model.columns.iter().enumerate() {
        let value = decode(&column.ty, &raw(at + 1)?).map_err(|CodecError(reason)| {
            // Someone else wrote it, and no event can be folded onto it.
            Error::config(format!(
                "table {label:?}, column {:?} ({}) holds what Foldline cannot read back: {reason}; correct \
                 the row, or rebuild",
                column.name, column.ty
            ))
        })?;
        values.push(value);
    }
    let Some(xmin) = raw(count + 1)?.u32() else {
        return Err(Error::retriable("PostgreSQL sent a row without its version"));
    };
    let version = Version::At(u64::from(xmin), 0);
    let row = Some(model::Row::new(values));
    Ok(Loaded { row, version, marks: Marks::new() })
}
