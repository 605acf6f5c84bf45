//! Queries over the rows in memory, one by one.

use std::cmp::Ordering;

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::column::ColumnType;
use foldline_api::error::Error;
use foldline_api::model::{Key, Row};
use foldline_api::query::{Filter, Gathered, Lookup, Queries, RowQuery, Side, Sort};

use crate::store::{Entry, MemoryTarget};

fn holds(filter: &Filter, row: &Row) -> bool {
    match filter {
        Filter::All(list) => list.iter().all(|each| holds(each, row)),
        Filter::Any(list) => list.iter().any(|each| holds(each, row)),
        Filter::In(column, values) => values.contains(row.get(*column)),
        Filter::NotIn(column, values) => !values.contains(row.get(*column)),
        Filter::Compare(column, side, value) => {
            let at = row.get(*column);
            !at.is_null()
                && match side {
                    Side::Less => at < value,
                    Side::LessOrEqual => at <= value,
                    Side::Greater => at > value,
                    Side::GreaterOrEqual => at >= value,
                }
        }
        Filter::Null(column) => row.get(*column).is_null(),
        Filter::Filled(column) => !row.get(*column).is_null(),
    }
}

fn ordered(order: &[Sort], one: &Row, other: &Row) -> Ordering {
    let by = |sort: &Sort| {
        let (one, other) = (one.get(sort.column), other.get(sort.column));
        let ascending = one.is_null().cmp(&other.is_null()).then_with(|| one.cmp(other));
        if sort.descending { ascending.reverse() } else { ascending }
    };
    order.iter().map(by).find(|by| by.is_ne()).unwrap_or(Ordering::Equal)
}

impl MemoryTarget {
    /// The live rows of an entry, where they are this projection's.
    fn readable<'e>(&self, entry: &'e Entry) -> Result<Vec<(&'e Key, &'e Row)>> {
        let built = entry.record.as_ref().map(|record| &*record.binding.fingerprint);
        if built != Some(&*self.spec.fingerprint) {
            return Err(Error::config("the rows were built by another version of the projection"));
        }
        let rows = entry.table.iter().flat_map(|table| table.rows.iter());
        Ok(rows.filter_map(|(key, kept)| Some((key, kept.row.as_ref()?))).collect())
    }
}

#[async_trait]
impl Queries for MemoryTarget {
    async fn row(&self, key: &Key) -> Result<Option<Row>> {
        let state = self.store.lock();
        let rows = self.readable(self.owned(&state)?)?;
        Ok(rows.into_iter().find(|(of, _)| *of == key).map(|(_, row)| row.clone()))
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>> {
        let state = self.store.lock();
        let rows = self.readable(self.owned(&state)?)?.into_iter().map(|(_, row)| row);
        let mut rows: Vec<&Row> = rows.filter(|row| holds(&query.filter, row)).collect();
        rows.sort_by(|one, other| ordered(&query.order, one, other));
        let mut gathered = Gathered::new(query);
        rows.into_iter().for_each(|row| gathered.push(row.clone()));
        Ok(gathered.rows())
    }

    fn serves(&self, _ty: &ColumnType, _how: Lookup) -> bool {
        true
    }
}
