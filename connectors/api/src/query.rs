//! Rows asked for by what they hold: filter, order and pages, the same in every store.
//!
//! A filter is true or false of each row, never unknown. A comparison with null is false and its negation true, so
//! `amount != 3` holds where there is no amount. Null is behind all else in ascending order, and before it in descending
//! order. Texts are ordered by their code points, numbers by their value to the last digit, moments by the microsecond.
//!
//! A page begins behind the last row of the page before, told by the values that the rows are ordered by, with the key
//! last. So a row that does not change while pages are read is on exactly one of them, whatever others do.

mod page;

use std::cmp::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use crate::column::ColumnType;
use crate::error::Result;
use crate::model::{Column, Key, Model, Row};
use crate::value::Value;
pub use page::{Page, page};

/// Which side of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Side {
    /// The side of all other values.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Side::Less => Side::GreaterOrEqual,
            Side::LessOrEqual => Side::Greater,
            Side::Greater => Side::LessOrEqual,
            Side::GreaterOrEqual => Side::Less,
        }
    }

    fn has(self, order: Ordering) -> bool {
        match self {
            Side::Less => order.is_lt(),
            Side::LessOrEqual => order.is_le(),
            Side::Greater => order.is_gt(),
            Side::GreaterOrEqual => order.is_ge(),
        }
    }

    /// As SQL and CEL spell it.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Side::Less => "<",
            Side::LessOrEqual => "<=",
            Side::Greater => ">",
            Side::GreaterOrEqual => ">=",
        }
    }
}

/// Which rows. Columns are indexes into the model's, values are of the column's type and not null.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Those that all of these hold for; of none, all rows.
    All(Vec<Filter>),
    /// Those that one of these holds for; of none, no row.
    Any(Vec<Filter>),
    /// The column is one of these.
    In(usize, Vec<Value>),
    /// The column is null, or none of these.
    NotIn(usize, Vec<Value>),
    /// The column is on this side of a value.
    Compare(usize, Side, Value),
    /// The column is null.
    Null(usize),
    /// The column is not null.
    Filled(usize),
}

impl Filter {
    /// All rows.
    #[must_use]
    pub fn all() -> Self {
        Filter::All(Vec::new())
    }

    /// The rows that this one does not hold for.
    #[must_use]
    pub fn negated(self) -> Self {
        let each = |list: Vec<Filter>| list.into_iter().map(Filter::negated).collect();
        match self {
            Filter::All(list) => Filter::Any(each(list)),
            Filter::Any(list) => Filter::All(each(list)),
            Filter::In(column, values) => Filter::NotIn(column, values),
            Filter::NotIn(column, values) => Filter::In(column, values),
            Filter::Compare(column, side, value) => Filter::Any(vec![
                Filter::Compare(column, side.other(), value),
                Filter::Null(column),
            ]),
            Filter::Null(column) => Filter::Filled(column),
            Filter::Filled(column) => Filter::Null(column),
        }
    }

    /// Whether it holds for all rows, as far as its form tells.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(self, Filter::All(list) if list.iter().all(Filter::is_all))
    }

    /// The column is this value; null where the value is.
    ///
    /// # Errors
    /// A sentence, where the column cannot be compared or not with this value.
    pub fn equals(model: &Model, column: usize, value: Value) -> Result<Self, String> {
        Filter::one_of(model, column, vec![value])
    }

    /// The column is one of these values, of which null may be one.
    ///
    /// # Errors
    /// As of [`Filter::equals`].
    pub fn one_of(model: &Model, column: usize, values: Vec<Value>) -> Result<Self, String> {
        let of = column_of(model, column)?;
        let has_null = values.iter().any(Value::is_null);
        let mut given = Vec::with_capacity(values.len());
        for value in values.into_iter().filter(|value| !value.is_null()) {
            given.push(fit(of, value)?);
        }
        Ok(match (has_null, given.is_empty()) {
            (true, true) => Filter::Null(column),
            (true, false) => Filter::Any(vec![Filter::In(column, given), Filter::Null(column)]),
            (false, true) => Filter::Any(Vec::new()),
            (false, false) => Filter::In(column, given),
        })
    }

    /// The column is on this side of a value.
    ///
    /// # Errors
    /// As of [`Filter::equals`], and of null, which is on no side.
    pub fn side(model: &Model, column: usize, side: Side, value: Value) -> Result<Self, String> {
        let of = column_of(model, column)?;
        if value.is_null() {
            return Err(format!(
                "{} {} null holds for no row: what is null is found by {} == null",
                of.name,
                side.symbol(),
                of.name
            ));
        }
        Ok(Filter::Compare(column, side, fit(of, value)?))
    }

    /// Whether it holds for a row.
    #[must_use]
    pub fn holds(&self, row: &Row) -> bool {
        match self {
            Filter::All(list) => list.iter().all(|each| each.holds(row)),
            Filter::Any(list) => list.iter().any(|each| each.holds(row)),
            Filter::In(column, values) => values.contains(row.get(*column)),
            Filter::NotIn(column, values) => !values.contains(row.get(*column)),
            Filter::Compare(column, side, value) => {
                let at = row.get(*column);
                !at.is_null() && side.has(at.cmp(value))
            }
            Filter::Null(column) => row.get(*column).is_null(),
            Filter::Filled(column) => !row.get(*column).is_null(),
        }
    }

    /// The columns that it looks at, each with whether it compares it or only asks for null.
    pub fn columns(&self) -> Vec<(usize, bool)> {
        match self {
            Filter::All(list) | Filter::Any(list) => {
                list.iter().flat_map(Filter::columns).collect()
            }
            Filter::In(column, _) | Filter::NotIn(column, _) | Filter::Compare(column, _, _) => {
                vec![(*column, true)]
            }
            Filter::Null(column) | Filter::Filled(column) => vec![(*column, false)],
        }
    }
}

/// The column of this number.
///
/// # Errors
/// A sentence, where there is none.
pub fn column_of(model: &Model, column: usize) -> Result<&Column, String> {
    model.columns.get(column).ok_or_else(|| format!("there is no field {column}"))
}

/// Whether values of this type are compared and ordered.
#[must_use]
pub fn is_ordered(ty: &ColumnType) -> bool {
    !matches!(ty, ColumnType::Jsonb | ColumnType::Array(_) | ColumnType::Children(_))
}

/// A value as a column holds it, digit by digit: what the column would round is in no row.
fn fit(column: &Column, value: Value) -> Result<Value, String> {
    let Column { name, ty, .. } = column;
    if !is_ordered(ty) {
        return Err(format!("{name} is {ty}, which is compared with null only"));
    }
    let is_text = matches!(ty, ColumnType::Text | ColumnType::Varchar(_));
    if is_text && !matches!(value, Value::Text(_)) {
        return Err(format!(
            "{name} is {ty}, and {} is no text: give it quotes",
            value.type_name()
        ));
    }
    let given = value.clone();
    let fitted = ty.coerce(value).map_err(|error| format!("{name}: {error}"))?;
    let digits = |value: &Value| match value {
        Value::Decimal(decimal) => Some(decimal.clone()),
        Value::Int(int) => Some((*int).into()),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    let rounded = matches!(ty, ColumnType::Numeric(_))
        && digits(&given).is_some_and(|given| digits(&fitted) != Some(given));
    if rounded {
        return Err(format!("{name} is {ty}: the value has more digits than it keeps"));
    }
    Ok(fitted)
}

/// A column that rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sort {
    /// Index into the model's columns.
    pub column: usize,
    /// The greatest first, null before it.
    pub descending: bool,
}

impl Sort {
    /// The order of two rows by several columns.
    #[must_use]
    pub fn compare(order: &[Sort], one: &Row, other: &Row) -> Ordering {
        let by = |sort: &Sort| {
            let (one, other) = (one.get(sort.column), other.get(sort.column));
            let ascending = one.is_null().cmp(&other.is_null()).then_with(|| one.cmp(other));
            if sort.descending { ascending.reverse() } else { ascending }
        };
        order.iter().map(by).find(|by| by.is_ne()).unwrap_or(Ordering::Equal)
    }
}

/// What a store is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowQuery {
    /// Which rows.
    pub filter: Filter,
    /// Elasticsearch's query string, which the rows must match too.
    pub search: Option<String>,
    /// Their order, in which no two rows are equal: the key's columns are among it.
    pub order: Vec<Sort>,
    /// So many rows at most.
    pub max: usize,
    /// A row that begins behind so many bytes of others is left out; one is there always.
    pub bytes_max: usize,
    /// How long the store may work on it.
    pub time: Duration,
}

impl RowQuery {
    /// The row of one key.
    #[must_use]
    pub fn of_key(model: &Model, key: &Key, time: Duration) -> Self {
        let is = |(column, value): (&usize, &Value)| Filter::In(*column, vec![value.clone()]);
        let filter = Filter::All(model.key.iter().zip(key.values()).map(is).collect());
        RowQuery { filter, search: None, order: Vec::new(), max: 1, bytes_max: usize::MAX, time }
    }

    /// The order that a user asks for, with the key behind it, so that no two rows are equal.
    ///
    /// # Errors
    /// A sentence, where rows are not ordered by a column of its type, or one stands twice.
    pub fn order(model: &Model, asked: &[Sort]) -> Result<Vec<Sort>, String> {
        let mut order: Vec<Sort> = Vec::with_capacity(asked.len() + model.key.len());
        for sort in asked {
            let column = column_of(model, sort.column)?;
            if !is_ordered(&column.ty) {
                return Err(format!("{} is {}, which has no order", column.name, column.ty));
            }
            if order.iter().any(|known| known.column == sort.column) {
                return Err(format!("{} stands twice in the order", column.name));
            }
            order.push(*sort);
        }
        for &column in &model.key {
            if !order.iter().any(|known| known.column == column) {
                order.push(Sort { column, descending: false });
            }
        }
        Ok(order)
    }

    /// Whether an index that Foldline makes leads to the rows: one of the conditions that all must meet names its first
    /// column, or, where there is no condition, it has them in the order that is asked for.
    #[must_use]
    pub fn is_indexed(&self, model: &Model, queries: &dyn Queries) -> bool {
        let leads = |column: usize, how: Lookup| {
            let ty = model.columns.get(column).map(|column| &column.ty);
            queries.indexed(model).contains(&column) && ty.is_some_and(|ty| queries.serves(ty, how))
        };
        if self.filter.is_all() && self.search.is_none() {
            let first = self.order.first();
            return first.is_some_and(|sort| leads(sort.column, Lookup::Order));
        }
        is_led(&self.filter, &leads) || self.search.is_some()
    }
}

/// The first columns of the key and of the indexes.
#[must_use]
pub fn leading(model: &Model) -> Vec<usize> {
    let single = model.columns.iter().enumerate().filter(|(_, column)| column.index);
    let several = model.indexes.iter().filter_map(|index| index.first().copied());
    let mut leading: Vec<usize> = model
        .key
        .first()
        .copied()
        .into_iter()
        .chain(single.map(|(at, _)| at))
        .chain(several)
        .collect();
    leading.sort_unstable();
    leading.dedup();
    leading
}

fn is_led(filter: &Filter, leads: &dyn Fn(usize, Lookup) -> bool) -> bool {
    match filter {
        Filter::All(list) => list.iter().any(|each| is_led(each, leads)),
        Filter::Any(list) => list.iter().all(|each| is_led(each, leads)),
        Filter::In(column, _) => leads(*column, Lookup::Equal),
        Filter::Compare(column, _, _) => leads(*column, Lookup::Order),
        Filter::NotIn(..) | Filter::Null(_) | Filter::Filled(_) => false,
    }
}

/// What an index is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Finding a value.
    Equal,
    /// Finding what lies on one side of a value, and rows in order.
    Order,
}

/// The live generation's rows, for readers.
#[async_trait]
pub trait Queries: Send + Sync {
    /// The row of a key as it is stored now.
    ///
    /// # Errors
    /// Config errors where the target is another connector's, or its rows another projection's.
    async fn row(&self, key: &Key) -> Result<Option<Row>>;

    /// The first rows of the query, in its order. Fewer than its `max` are all, unless they come to its `bytes_max`.
    ///
    /// # Errors
    /// As of [`Queries::row`]. Config errors name what the store cannot compare. One that took too long is too much.
    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>>;

    /// Sees to it that rows which are durable now are found from now on.
    ///
    /// # Errors
    /// Where the store does not answer.
    async fn refresh(&self) -> Result<()> {
        Ok(())
    }

    /// The columns that an index begins with.
    fn indexed(&self, model: &Model) -> Vec<usize> {
        leading(model)
    }

    /// Whether an index on a column of this type is used so.
    fn serves(&self, ty: &ColumnType, how: Lookup) -> bool;

    /// Whether it takes a query string.
    fn searches(&self) -> bool {
        false
    }
}

/// Gathers the rows of an answer up to a query's bounds.
#[derive(Debug)]
pub struct Gathered {
    rows: Vec<Row>,
    bytes: usize,
    max: usize,
    bytes_max: usize,
}

impl Gathered {
    /// Of nothing yet.
    #[must_use]
    pub fn new(query: &RowQuery) -> Self {
        Gathered { rows: Vec::new(), bytes: 0, max: query.max, bytes_max: query.bytes_max }
    }

    /// Whether no more rows belong to it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rows.len() >= self.max || (self.bytes > self.bytes_max && !self.rows.is_empty())
    }

    /// Adds the next row, unless it is full.
    pub fn push(&mut self, row: Row) {
        if !self.is_full() {
            self.bytes = self.bytes.saturating_add(row.heap_bytes());
            self.rows.push(row);
        }
    }

    /// The rows.
    #[must_use]
    pub fn rows(self) -> Vec<Row> {
        self.rows
    }
}
