//! Pages: each begins behind the last row of the one before.

use super::{Filter, Queries, RowQuery, Side, Sort};
use crate::error::Result;
use crate::model::{Model, Row};
use crate::value::Value;

/// A page of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// The last row's values that it is ordered by: what the next page begins behind. None where this is the last.
    pub after: Option<Vec<Value>>,
}

/// The page of at most `query.max` rows behind a row whose values in the query's order are `after`, or the first one.
///
/// # Errors
/// As of [`Queries::rows`].
pub async fn page(
    queries: &dyn Queries,
    model: &Model,
    query: &RowQuery,
    after: Option<&[Value]>,
) -> Result<Page> {
    let parts = match after {
        Some(after) => behind(model, &query.order, after),
        None => vec![Filter::all()],
    };
    // One more tells whether there is a next page.
    let max = query.max.saturating_add(1);
    let (mut rows, mut bytes) = (Vec::new(), 0_usize);
    for part in parts {
        let left = max - rows.len();
        if left == 0 || bytes > query.bytes_max {
            break;
        }
        let filter = Filter::All(vec![query.filter.clone(), part]);
        let bytes_max = query.bytes_max - bytes;
        let found =
            queries.rows(&RowQuery { filter, max: left, bytes_max, ..query.clone() }).await?;
        bytes = found.iter().fold(bytes, |sum, row| sum.saturating_add(row.heap_bytes()));
        rows.extend(found);
    }
    let more = rows.len() > query.max || bytes > query.bytes_max;
    rows.truncate(query.max);
    let values = |row: &Row| query.order.iter().map(|sort| row.get(sort.column).clone()).collect();
    let after = rows.last().filter(|_| more).map(values);
    Ok(Page { rows, after })
}

/// The rows behind one whose values in `order` are these: the filters of one part after the other. The part of a first column
/// that is null is one of its own, so that an index has where to begin in either.
fn behind(model: &Model, order: &[Sort], after: &[Value]) -> Vec<Filter> {
    let (Some((first, rest)), Some((value, others))) = (order.split_first(), after.split_first())
    else {
        return vec![Filter::Any(Vec::new())];
    };
    let Sort { column, descending } = *first;
    let tied = within(model, rest, others);
    if value.is_null() {
        let mut parts = vec![Filter::All(vec![Filter::Null(column), tied])];
        // Descending, null comes first.
        parts.extend(descending.then_some(Filter::Filled(column)));
        return parts;
    }
    let (at, past) = if descending {
        (Side::LessOrEqual, Side::Less)
    } else {
        (Side::GreaterOrEqual, Side::Greater)
    };
    let compare = |side| Filter::Compare(column, side, value.clone());
    let equal = Filter::In(column, vec![value.clone()]);
    let mut parts = vec![if rest.is_empty() {
        compare(past)
    } else {
        let place = Filter::Any(vec![compare(past), Filter::All(vec![equal, tied])]);
        Filter::All(vec![compare(at), place])
    }];
    parts.extend((!descending && is_nullable(model, column)).then_some(Filter::Null(column)));
    parts
}

/// The same in one filter.
fn within(model: &Model, order: &[Sort], after: &[Value]) -> Filter {
    let (Some((first, rest)), Some((value, others))) = (order.split_first(), after.split_first())
    else {
        return Filter::Any(Vec::new());
    };
    let Sort { column, descending } = *first;
    let equal = if value.is_null() {
        Filter::Null(column)
    } else {
        Filter::In(column, vec![value.clone()])
    };
    let mut any = match (value.is_null(), descending) {
        (true, true) => vec![Filter::Filled(column)],
        (true, false) => vec![],
        (false, true) => vec![Filter::Compare(column, Side::Less, value.clone())],
        (false, false) => vec![Filter::Compare(column, Side::Greater, value.clone())],
    };
    if !value.is_null() && !descending && is_nullable(model, column) {
        any.push(Filter::Null(column));
    }
    if !rest.is_empty() {
        any.push(Filter::All(vec![equal, within(model, rest, others)]));
    }
    Filter::Any(any)
}

fn is_nullable(model: &Model, column: usize) -> bool {
    !model.key.contains(&column)
}
