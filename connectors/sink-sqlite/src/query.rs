//! Queries as SQL. Numbers are stored as texts and ordered by a collation; all else is ordered as it is stored.

use async_trait::async_trait;
use foldline_api::binding::check_projection;
use foldline_api::column::ColumnType;
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::query::{Filter, Gathered, Lookup, Queries, RowQuery, Sort, column_of};
use foldline_api::sink::TargetSpec;
use foldline_api::value::Value;
use foldline_api::{Error, Result};
use rusqlite::{Transaction, params_from_iter};

use crate::books;
use crate::codec::{Cell, decode_row, encode, storage};
use crate::database::sql;
use crate::reader::BY_NUMBER;
use crate::schema::{self, quote};
use crate::target::{CALL_LIMIT, SqliteTarget, bound, unopened};

/// A statement as it grows, with what it is bound to.
struct Select<'q> {
    model: &'q Model,
    text: String,
    cells: Vec<Cell<'q>>,
}

impl<'q> Select<'q> {
    fn new(spec: &'q TargetSpec) -> Self {
        let model = &*spec.model;
        let names: Vec<String> = model.columns.iter().map(|column| quote(&column.name)).collect();
        let text = format!("SELECT {} FROM {} WHERE ", names.join(", "), quote(&spec.target));
        Select { model, text, cells: Vec::new() }
    }

    fn column(&self, column: usize) -> Result<&'q Column> {
        column_of(self.model, column).map_err(Error::config)
    }

    fn bind(&mut self, ty: &ColumnType, value: &'q Value) {
        self.cells.push(encode(ty, value));
        self.text.push_str(&format!("?{}", self.cells.len()));
    }

    fn filter(&mut self, filter: &'q Filter) -> Result<()> {
        match filter {
            Filter::All(list) => self.joined(list, " AND ", "1"),
            Filter::Any(list) => self.joined(list, " OR ", "0"),
            Filter::In(column, values) => self.among(*column, values, "IN"),
            Filter::NotIn(column, values) => {
                self.text.push('(');
                self.among(*column, values, "NOT IN")?;
                self.text.push_str(" OR ");
                self.null(*column, "IS NULL")?;
                self.text.push(')');
                Ok(())
            }
            Filter::Compare(column, side, value) => {
                let of = self.column(*column)?;
                self.text.push_str(&by_order(of));
                self.text.push_str(&format!(" {} ", side.symbol()));
                self.bind(&of.ty, value);
                Ok(())
            }
            Filter::Null(column) => self.null(*column, "IS NULL"),
            Filter::Filled(column) => self.null(*column, "IS NOT NULL"),
        }
    }

    fn joined(&mut self, list: &'q [Filter], between: &str, none: &str) -> Result<()> {
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

    fn among(&mut self, column: usize, values: &'q [Value], how: &str) -> Result<()> {
        let of = self.column(column)?;
        self.text.push_str(&format!("{} {how} (", as_stored(of)));
        for (at, value) in values.iter().enumerate() {
            self.text.push_str(if at > 0 { ", " } else { "" });
            self.bind(&of.ty, value);
        }
        self.text.push(')');
        Ok(())
    }

    fn null(&mut self, column: usize, how: &str) -> Result<()> {
        let of = self.column(column)?;
        self.text.push_str(&format!("{} {how}", quote(&of.name)));
        Ok(())
    }

    fn order(&mut self, order: &[Sort], max: usize) -> Result<()> {
        for (at, sort) in order.iter().enumerate() {
            self.text.push_str(if at > 0 { ", " } else { " ORDER BY " });
            let of = self.column(sort.column)?;
            self.text.push_str(&by_order(of));
            // A key is never null, and its own order is that of its index.
            let nulls = match (self.model.key.contains(&sort.column), sort.descending) {
                (true, false) => "",
                (true, true) => " DESC",
                (false, false) => " NULLS LAST",
                (false, true) => " DESC NULLS FIRST",
            };
            self.text.push_str(nulls);
        }
        self.text.push_str(&format!(" LIMIT {}", i64::try_from(max).unwrap_or(i64::MAX)));
        Ok(())
    }
}

/// The column as it is ordered.
fn by_order(column: &Column) -> String {
    match column.ty {
        ColumnType::Numeric(_) => format!("{} COLLATE {BY_NUMBER}", quote(&column.name)),
        _ => as_stored(column),
    }
}

/// The column as it is found: who made the table may have given texts another collation.
fn as_stored(column: &Column) -> String {
    let name = quote(&column.name);
    if storage(&column.ty) == "TEXT" { format!("{name} COLLATE BINARY") } else { name }
}

fn run(tx: &Transaction<'_>, spec: &TargetSpec, query: &RowQuery) -> Result<Vec<Row>> {
    bound(tx, spec)?;
    let live = books::live(tx, &spec.target)?.ok_or_else(|| unopened(spec))?;
    check_projection(&live.fingerprint, spec, &spec.target, "its rows cannot be read")?;
    schema::check_named(tx, spec, &spec.target)?;
    let mut select = Select::new(spec);
    select.filter(&query.filter)?;
    select.order(&query.order, query.max)?;
    let mut prepared = tx.prepare(&select.text).map_err(sql)?;
    let mut found = prepared.query(params_from_iter(select.cells)).map_err(sql)?;
    let mut gathered = Gathered::new(query);
    while !gathered.is_full()
        && let Some(stored) = found.next().map_err(sql)?
    {
        gathered.push(decode_row(&spec.model, stored, |_| ())?);
    }
    Ok(gathered.rows())
}

#[async_trait]
impl Queries for SqliteTarget {
    async fn row(&self, key: &Key) -> Result<Option<Row>> {
        Ok(self.rows(&RowQuery::of_key(&self.spec.model, key, CALL_LIMIT)).await?.pop())
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>> {
        let (spec, asked) = (std::sync::Arc::clone(&self.spec), query.clone());
        self.read(query.time, move |tx| run(tx, &spec, &asked)).await
    }

    fn serves(&self, ty: &ColumnType, how: Lookup) -> bool {
        // An index has numbers in the order of their texts.
        how == Lookup::Equal || !matches!(ty, ColumnType::Numeric(_))
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::query::Side;
    use foldline_testkit::contract::{model, spec_of};

    use super::*;

    #[test]
    fn a_query_is_text_and_parameters() {
        let spec = spec_of("orders", model());
        let any = vec![
            Filter::NotIn(1, vec![Value::text("a'b"), Value::text("c")]),
            Filter::Compare(2, Side::Less, Value::Decimal("1.50".parse().unwrap())),
            Filter::Any(vec![]),
        ];
        let filter = Filter::All(vec![Filter::Filled(4), Filter::Any(any), Filter::all()]);
        let sort = |column, descending| Sort { column, descending };
        let order = [sort(2, true), sort(1, false), sort(0, true)];
        let mut select = Select::new(&spec);
        select.filter(&filter).unwrap();
        select.order(&order, 5).unwrap();
        let (_, text) = select.text.split_once(" WHERE ").unwrap();
        assert_eq!(
            text,
            "(\"updated_at\" IS NOT NULL AND ((\"name\" COLLATE BINARY NOT IN (?1, ?2) OR \"name\" IS NULL) OR \"amount\" COLLATE \
             foldline_numeric < ?3 OR 0) AND 1) ORDER BY \"amount\" COLLATE foldline_numeric DESC NULLS FIRST, \
             \"name\" COLLATE BINARY NULLS LAST, \"id\" DESC LIMIT 5"
        );
        assert_eq!(select.cells.len(), 3);
    }
}
