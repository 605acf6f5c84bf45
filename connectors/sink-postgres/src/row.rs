//! Rows of statements as what they stand for: each record has one function that reads it, column by column by name.

use std::sync::Arc;

use foldline_api::record::TopicPartition;
use foldline_api::{Error, Result};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

/// What a row stands for.
pub(crate) trait FromRow: Sized {
    /// Reads it.
    fn from_row(row: &Row) -> Result<Self>;
}

/// A column of a row of the books.
pub(crate) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T> {
    row.try_get(column).map_err(strange)
}

/// The one column that rows of a statement have, of the first one.
pub(crate) fn only<'a, T: FromSql<'a>>(rows: &'a [Row]) -> Result<T> {
    let row = rows.first();
    let row = row.ok_or_else(|| Error::retriable("Foldline's books: PostgreSQL sent no row"))?;
    row.try_get(0).map_err(strange)
}

fn strange(error: tokio_postgres::Error) -> Error {
    Error::config("Foldline's books are not of this version of Foldline").with_source(error)
}

/// The partition that a row is of.
pub(crate) fn partition_of(row: &Row) -> Result<TopicPartition> {
    let topic: &str = get(row, "topic")?;
    Ok(TopicPartition::new(Arc::<str>::from(topic), get(row, "partition")?))
}
