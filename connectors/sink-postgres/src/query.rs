//! Queries as SQL. Texts are compared and ordered by their bytes, whatever the database's collation; values travel as arrays of
//! one column, as everywhere in this crate.

use std::time::Duration;

use async_trait::async_trait;
use foldline_api::column::ColumnType;
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::query::{Filter, Gathered, Lookup, Queries, RowQuery, Sort, column_of};
use foldline_api::value::Value;
use foldline_api::{Error, Result};
use futures_util::TryStreamExt;
use futures_util::future::join3;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::books::{Entry, built_here};
use crate::codec::{Encoded, encode_column, wire_array_type};
use crate::error::classify;
use crate::identifier::{TableName, quote};
use crate::session::within;
use crate::snapshot::read_row;
use crate::target::{CALL_LIMIT, PostgresTarget};
use crate::writer::as_param;

/// PostgreSQL's code for a statement that took too long.
const TIMEOUT: &str = "57014";

/// A statement as it grows, with its parameters.
struct Select<'q> {
    model: &'q Model,
    text: String,
    params: Vec<(Encoded, Type)>,
}

impl<'q> Select<'q> {
    fn new(model: &'q Model, table: &TableName) -> Self {
        let names: Vec<String> =
            model.columns.iter().map(|column| format!("t.{}", quote(&column.name))).collect();
        let (names, table) = (names.join(", "), table.sql());
        // As a row is loaded: its place, its columns, its version.
        let text = format!("SELECT 1::int8, {names}, t.xmin FROM {table} AS t WHERE ");
        Select { model, text, params: Vec::new() }
    }

    fn column(&self, column: usize) -> Result<&'q Column> {
        column_of(self.model, column).map_err(Error::config)
    }

    /// The number of the parameter that holds these values.
    fn bind(&mut self, column: &Column, values: &[Value]) -> Result<usize> {
        let encoded = encode_column(&column.ty, values.iter())
            .map_err(|error| Error::config(format!("{}: {error}", column.name)))?;
        self.params.push((encoded, wire_array_type(&column.ty)));
        Ok(self.params.len())
    }

    fn filter(&mut self, filter: &Filter) -> Result<()> {
        match filter {
            Filter::All(list) => self.joined(list, " AND ", "true"),
            Filter::Any(list) => self.joined(list, " OR ", "false"),
            Filter::In(column, values) => {
                let (name, values) = self.sides(*column, values)?;
                self.text.push_str(&format!("{name} = ANY(${values})"));
                Ok(())
            }
            Filter::NotIn(column, values) => {
                let (name, values) = self.sides(*column, values)?;
                self.text.push_str(&format!("({name} <> ALL(${values}) OR {name} IS NULL)"));
                Ok(())
            }
            Filter::Compare(column, side, value) => {
                let name = by_order(self.column(*column)?);
                let (_, value) = self.sides(*column, std::slice::from_ref(value))?;
                self.text.push_str(&format!("{name} {} (${value})[1]", side.symbol()));
                Ok(())
            }
            Filter::Null(column) => self.null(*column, "IS NULL"),
            Filter::Filled(column) => self.null(*column, "IS NOT NULL"),
        }
    }

    fn sides(&mut self, column: usize, values: &[Value]) -> Result<(String, usize)> {
        let of = self.column(column)?;
        Ok((named(of), self.bind(of, values)?))
    }

    fn joined(&mut self, list: &[Filter], between: &str, none: &str) -> Result<()> {
        if list.is_empty() {
            self.text.push_str(none);
            return Ok(());
        }
        self.text.push('(');
        for (at, each) in list.iter().enumerate() {
            self.text.push_str(if at > 0 { between } else { "" });
            self.filter(each)?;
        }
        self.text.push(')');
        Ok(())
    }

    fn null(&mut self, column: usize, how: &str) -> Result<()> {
        let of = self.column(column)?;
        self.text.push_str(&format!("{} {how}", named(of)));
        Ok(())
    }

    /// PostgreSQL's own place of null is the one that queries promise.
    fn order(&mut self, order: &[Sort], max: usize) -> Result<()> {
        for (at, sort) in order.iter().enumerate() {
            self.text.push_str(if at > 0 { ", " } else { " ORDER BY " });
            let of = self.column(sort.column)?;
            self.text.push_str(&by_order(of));
            self.text.push_str(if sort.descending { " DESC" } else { "" });
        }
        self.text.push_str(&format!(" LIMIT {}", i64::try_from(max).unwrap_or(i64::MAX)));
        Ok(())
    }
}

fn named(column: &Column) -> String {
    format!("t.{}", quote(&column.name))
}

/// The column as it is ordered.
fn by_order(column: &Column) -> String {
    match column.ty {
        ColumnType::Text | ColumnType::Varchar(_) => format!("{} COLLATE \"C\"", named(column)),
        _ => named(column),
    }
}

/// What a query's transaction begins with.
fn begin(time: Duration) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; \
         SET LOCAL statement_timeout = '{}ms'; \
         SET LOCAL lock_timeout = '10s'; \
         SET LOCAL jit = off; \
         SET LOCAL quote_all_identifiers = off",
        time.as_millis().max(1)
    )
}

impl PostgresTarget {
    /// The table that readers name, looked up once.
    async fn read_table(&self) -> Result<&TableName> {
        let resolve = async || {
            let session = self.reading.snapshot().await?;
            let table = self.resolve(&session.client).await;
            session.finish(table).await
        };
        self.readable.get_or_try_init(resolve).await
    }

    /// The rows, in one round trip with what the books say before and behind them: a swap between leaves rows that this
    /// model may not read.
    async fn select(&self, query: &RowQuery) -> Result<Vec<Row>> {
        let table = self.read_table().await?;
        let label = table.label();
        let mut select = Select::new(&self.spec.model, table);
        select.filter(&query.filter)?;
        select.order(&query.order, query.max)?;
        let read = async |client: &Client| {
            let entry = || self.books.entry(client, &label, "");
            let (before, rows, after) =
                join3(entry(), self.fetch(client, &select, query), entry()).await;
            let live = |entry: Option<Entry>| -> Result<u64> {
                Ok(built_here(entry, &self.spec, &label, "its rows cannot be read")?.generation)
            };
            let before = live(before?)?;
            let rows = rows?;
            if live(after?)? != before {
                return Err(Error::retriable(format!("{label:?} was just swapped: ask again")));
            }
            Ok(rows)
        };
        let refused = |error| classify(error, &format!("reading {label:?}"));
        self.reading.take().await?.at_once(&begin(query.time), read, refused).await
    }

    async fn fetch(
        &self,
        client: &Client,
        select: &Select<'_>,
        query: &RowQuery,
    ) -> Result<Vec<Row>> {
        let doing = |error| classify(error, &format!("reading {:?}", self.spec.target));
        let params = select.params.iter().map(|(encoded, ty)| (as_param(encoded), ty.clone()));
        let rows = client.query_typed_raw(&select.text, params).await.map_err(doing)?;
        let mut rows = std::pin::pin!(rows);
        let mut gathered = Gathered::new(query);
        // What is more than its bounds is read and let go, so that the connection is free again.
        while let Some(row) = rows.try_next().await.map_err(doing)? {
            if !gathered.is_full()
                && let Some(row) = read_row(&self.spec.model, &self.spec.target, &row)?.row
            {
                gathered.push(row);
            }
        }
        Ok(gathered.rows())
    }
}

#[async_trait]
impl Queries for PostgresTarget {
    async fn row(&self, key: &Key) -> Result<Option<Row>> {
        Ok(self.rows(&RowQuery::of_key(&self.spec.model, key, CALL_LIMIT)).await?.pop())
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>> {
        // The server ends it first, and its connection is kept.
        let limit = query.time + Duration::from_secs(2);
        let rows = within(limit, "reading rows", self.select(query)).await;
        rows.map_err(|error| match error.code() {
            Some(TIMEOUT) => error.too_much(),
            _ => error,
        })
    }

    fn serves(&self, ty: &ColumnType, how: Lookup) -> bool {
        // An index has texts in the order of the database's collation.
        how == Lookup::Equal || !matches!(ty, ColumnType::Text | ColumnType::Varchar(_))
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::query::Side;
    use foldline_testkit::contract::model;

    use super::*;

    #[test]
    fn a_query_is_text_and_parameters() {
        let model = model();
        let any = vec![
            Filter::NotIn(1, vec![Value::text("a'b"), Value::text("c")]),
            Filter::Compare(1, Side::Less, Value::text("x")),
            Filter::In(2, vec![Value::Decimal("1.50".parse().unwrap())]),
            Filter::Any(vec![]),
        ];
        let filter = Filter::All(vec![Filter::Filled(4), Filter::Any(any), Filter::all()]);
        let sort = |column, descending| Sort { column, descending };
        let order = [sort(1, true), sort(4, false), sort(0, true)];
        let table = TableName { schema: Some("s".to_owned()), table: "o".to_owned() };
        let mut select = Select::new(&model, &table);
        select.filter(&filter).unwrap();
        select.order(&order, 5).unwrap();
        let (_, text) = select.text.split_once(" WHERE ").unwrap();
        assert_eq!(
            text,
            "(t.\"updated_at\" IS NOT NULL AND ((t.\"name\" <> ALL($1) OR t.\"name\" IS NULL) OR \
             t.\"name\" COLLATE \"C\" < ($2)[1] OR t.\"amount\" = ANY($3) OR false) AND true) ORDER BY \
             t.\"name\" COLLATE \"C\" DESC, t.\"updated_at\", t.\"id\" DESC LIMIT 5"
        );
        assert_eq!(select.params.len(), 3);
    }
}
