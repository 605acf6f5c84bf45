//! Queries over the rows in memory, one by one.

use async_trait::async_trait;
use foldline_api::Result;
use foldline_api::column::ColumnType;
use foldline_api::error::Error;
use foldline_api::model::{Key, Row};
use foldline_api::query::{Gathered, Lookup, Queries, RowQuery, Sort};

use crate::store::{Entry, MemoryTarget};

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
        let mut rows: Vec<&Row> = rows.filter(|row| query.filter.holds(row)).collect();
        rows.sort_by(|one, other| Sort::compare(&query.order, one, other));
        let mut gathered = Gathered::new(query);
        rows.into_iter().for_each(|row| gathered.push(row.clone()));
        Ok(gathered.rows())
    }

    fn serves(&self, _ty: &ColumnType, _how: Lookup) -> bool {
        true
    }
}
