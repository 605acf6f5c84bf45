//! Rows of statements as what they stand for: each record has one function that reads it, column by column by name.

use std::sync::Arc;

use foldline_api::Result;
use foldline_api::record::TopicPartition;
use rusqlite::types::FromSql;
use rusqlite::{Params, Row, Transaction};

use crate::database::sql;

/// What a row stands for.
pub(crate) trait FromRow: Sized {
    /// Reads it.
    fn from_row(row: &Row<'_>) -> Result<Self>;
}

/// A column of a row.
pub(crate) fn get<T: FromSql>(row: &Row<'_>, column: &str) -> Result<T> {
    row.get(column).map_err(sql)
}

/// The partition that a row is of.
pub(crate) fn partition_of(row: &Row<'_>) -> Result<TopicPartition> {
    let topic: String = get(row, "topic")?;
    Ok(TopicPartition::new(Arc::<str>::from(topic), get(row, "partition")?))
}

/// The rows of a statement, which stays prepared.
pub(crate) fn select<T: FromRow>(
    tx: &Transaction<'_>,
    text: &str,
    params: impl Params,
) -> Result<Vec<T>> {
    let mut statement = tx.prepare_cached(text).map_err(sql)?;
    let mut rows = statement.query(params).map_err(sql)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        out.push(T::from_row(row)?);
    }
    Ok(out)
}
