//! Rows in order to the microsecond, of an index that has milliseconds.

use foldline_api::model::Row;
use foldline_api::query::{Gathered, RowQuery, Sort};
use foldline_api::{Error, Result};
use serde_json::Value as Json;

/// Of one millisecond, they are put in order here.
const GROUP_MAX: usize = 20_000;

/// Rows as they come, in an order that has milliseconds only.
pub(super) struct Sorted<'q> {
    query: &'q RowQuery,
    /// The keys up to the first that is not exact; none where all are.
    coarse: Option<usize>,
    gathered: Gathered,
    /// Those keys of the rows that wait for the last one of their millisecond.
    group: Vec<Json>,
    waiting: Vec<Row>,
}

impl<'q> Sorted<'q> {
    pub(super) fn new(query: &'q RowQuery, coarse: Option<usize>) -> Self {
        let gathered = Gathered::new(query);
        Sorted { query, coarse, gathered, group: Vec::new(), waiting: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Row, keys: &[Json]) -> Result<()> {
        let Some(group) = self.coarse.and_then(|count| keys.get(..count)) else {
            if self.query.filter.holds(&row) {
                self.gathered.push(row);
            }
            return Ok(());
        };
        if group != self.group {
            self.end_group();
            self.group = group.to_vec();
        }
        if self.query.filter.holds(&row) {
            self.waiting.push(row);
        }
        if self.waiting.len() > GROUP_MAX {
            return Err(Error::config(format!(
                "more than {GROUP_MAX} documents have a moment of one millisecond, and Elasticsearch does not order them by the \
                 microsecond: sort by another field before it"
            )));
        }
        Ok(())
    }

    /// Whether no more rows belong to the answer.
    pub(super) fn is_full(&self) -> bool {
        self.gathered.is_full()
    }

    /// The rows of the answer, once all have come or it is full.
    pub(super) fn rows(mut self) -> Vec<Row> {
        self.end_group();
        self.gathered.rows()
    }

    fn end_group(&mut self) {
        let order = &self.query.order;
        self.waiting.sort_by(|one, other| Sort::compare(order, one, other));
        self.waiting.drain(..).for_each(|row| self.gathered.push(row));
    }
}
