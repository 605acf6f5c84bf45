//! Rows expected and rows found: only named fields are compared, each as its column's type.

use std::sync::Arc;

use foldline_api::column::{Children, ColumnType};
use foldline_api::json;
use foldline_api::model::{Key, Row};
use foldline_api::value::{Map, Value};

use super::super::Projection;
use super::super::literal::literal;
use super::report::{Difference, row_json};
use super::{Done, TestConfig};
use hashbrown::{HashMap, HashSet};

/// One expected row: the fields that it names.
pub(super) struct ExpectedRow {
    fields: Vec<(usize, Expected)>,
    /// Where it names the whole key.
    key: Option<Key>,
    text: String,
}

enum Expected {
    Value(Value),
    /// Children in `by` order, only the fields that each names.
    Children(Vec<Map>),
}

/// Reads one expected row.
///
/// # Errors
/// A sentence about what does not fit the read model.
pub(super) fn expected(projection: &Projection, row: &toml::Value) -> Result<ExpectedRow, String> {
    let value = match row {
        toml::Value::String(text) => json::parse(text.as_bytes()).map_err(|e| e.to_string())?,
        other => literal(other)?,
    };
    let Value::Map(map) = &value else { return Err("a row is an object".to_owned()) };
    let model = projection.model();
    let mut fields = Vec::with_capacity(map.len());
    for (name, value) in map.iter() {
        let at = model.position(name).ok_or_else(|| format!("{name:?} is no field"))?;
        let Some(column) = model.columns.get(at) else { continue };
        let expected = match (&column.ty, value) {
            (ColumnType::Children(children), Value::List(items)) => {
                Expected::Children(partial(children, items).map_err(|e| format!("{name}: {e}"))?)
            }
            (ty, value) => {
                Expected::Value(ty.coerce(value.clone()).map_err(|e| format!("{name}: {e}"))?)
            }
        };
        fields.push((at, expected));
    }
    let part = |at: &usize| {
        let found = fields.iter().find(|(column, _)| column == at);
        match found {
            Some((_, Expected::Value(value))) if !value.is_null() => Some(value.clone()),
            _ => None,
        }
    };
    let key = model.key.iter().map(part).collect::<Option<Vec<Value>>>().map(Key::new);
    Ok(ExpectedRow { fields, key, text: json::to_string(&value) })
}

fn partial(children: &Children, items: &[Value]) -> Result<Vec<Map>, String> {
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        let Value::Map(map) = item else { return Err("a child is an object".to_owned()) };
        let mut typed: Vec<(Arc<str>, Value)> = Vec::with_capacity(map.len());
        for (name, value) in map.iter() {
            let field = children.fields.iter().find(|(known, _)| known == name);
            let (_, ty) = field.ok_or_else(|| format!("{name:?} is no field of the child"))?;
            let value = ty.coerce(value.clone()).map_err(|error| format!("{name}: {error}"))?;
            typed.push((Arc::clone(name), value));
        }
        out.push(Map::from_entries(typed));
    }
    // As the row holds them; those that do not name their key stay where they are.
    if out.iter().all(|child| child.get(&children.by).is_some()) {
        out.sort_by(|a, b| a.get(&children.by).cmp(&b.get(&children.by)));
    }
    Ok(out)
}

impl Expected {
    fn is_met(&self, found: &Value) -> bool {
        match (self, found) {
            (Expected::Value(value), found) => value == found,
            (Expected::Children(expected), Value::List(found)) => {
                let met = |(child, found): (&Map, &Value)| match found {
                    Value::Map(found) => {
                        child.iter().all(|(name, value)| found.get(name) == Some(value))
                    }
                    _ => false,
                };
                expected.len() == found.len() && expected.iter().zip(&**found).all(met)
            }
            // No child at all is an empty list, whether or not one was ever put.
            (Expected::Children(expected), Value::Null) => expected.is_empty(),
            (Expected::Children(_), _) => false,
        }
    }

    fn json(&self) -> String {
        match self {
            Expected::Value(value) => json::to_string(value),
            Expected::Children(children) => {
                let maps = children.iter().map(|child| Value::Map(Arc::new(child.clone())));
                json::to_string(&Value::list(maps.collect()))
            }
        }
    }
}

impl ExpectedRow {
    fn is_met(&self, row: &Row) -> bool {
        self.fields.iter().all(|(column, expected)| expected.is_met(row.get(*column)))
    }
}

/// Numbers of bad and filtered records.
pub(super) fn counts(case: &TestConfig, trace: &[Done]) -> Vec<Difference> {
    let count = |wanted: fn(&Done) -> bool| trace.iter().filter(|done| wanted(done)).count() as u64;
    let bad = count(|done| matches!(done, Done::Bad(_)));
    let filtered = count(|done| matches!(done, Done::Filtered));
    let mut out = Vec::new();
    if bad != case.bad {
        out.push(Difference::Count { what: "bad", expected: case.bad, found: bad });
    }
    if let Some(expected) = case.filtered.filter(|expected| *expected != filtered) {
        out.push(Difference::Count { what: "filtered", expected, found: filtered });
    }
    out
}

/// Rows missing, wrong or too many.
pub(super) fn rows(
    projection: &Projection,
    expected: &[ExpectedRow],
    rows: &HashMap<Key, Row>,
    order: &[usize],
    trace: &[Done],
) -> Vec<Difference> {
    let history = History { order, trace };
    let mut out = Vec::new();
    let mut claimed: HashSet<&Key> = HashSet::default();
    for row in expected {
        let Some((key, found)) = row.key.as_ref().and_then(|key| rows.get_key_value(key)) else {
            continue;
        };
        // A key expected twice is met once.
        if claimed.insert(key) {
            out.extend(fields(projection, row, key, found, history));
        } else {
            out.push(Difference::Missing { expected: row.text.clone(), record: None });
        }
    }
    for row in expected.iter().filter_map(|row| Some((row, row.key.as_ref()?))) {
        if !rows.contains_key(row.1) {
            let record = history.last(row.1, |row| row.is_some());
            out.push(Difference::Missing { expected: row.0.text.clone(), record });
        }
    }
    let mut left: Vec<(&Key, &Row)> =
        rows.iter().filter(|(key, _)| !claimed.contains(key)).collect();
    left.sort_by_key(|(key, _)| *key);
    let keyless: Vec<&ExpectedRow> = expected.iter().filter(|row| row.key.is_none()).collect();
    let matched = pair(&keyless, &left);
    for (row, _) in keyless.iter().zip(&matched.0).filter(|(_, met)| !**met) {
        out.push(Difference::Missing { expected: row.text.clone(), record: None });
    }
    for ((key, row), _) in left.iter().zip(&matched.1).filter(|(_, taken)| !**taken) {
        let record = history.last(key, |row| row.is_none());
        let found = row_json(projection, row);
        out.push(Difference::Unexpected { key: key.to_string(), found, record });
    }
    out
}

fn fields(
    projection: &Projection,
    expected: &ExpectedRow,
    key: &Key,
    found: &Row,
    history: History<'_>,
) -> Vec<Difference> {
    let wrong = expected.fields.iter().filter(|(at, expected)| !expected.is_met(found.get(*at)));
    let difference = |(at, expected): &(usize, Expected)| Difference::Field {
        key: key.to_string(),
        field: projection.model().columns.get(*at).map_or(String::new(), |c| c.name.to_string()),
        expected: expected.json(),
        found: json::to_string(found.get(*at)),
        // What another row lends, no event of this one changed.
        record: (!projection.hides(*at))
            .then(|| history.last(key, |row| row.is_some_and(|row| expected.is_met(row.get(*at)))))
            .flatten(),
    };
    wrong.map(difference).collect()
}

/// What each event did, in the order tried.
#[derive(Clone, Copy)]
struct History<'a> {
    order: &'a [usize],
    trace: &'a [Done],
}

impl History<'_> {
    /// The record, from 1, at which state and expectation part: the event that last led from a row
    /// that was as expected to one that is not; else the last that wrote the row.
    fn last(&self, key: &Key, fits: impl Fn(Option<&Row>) -> bool) -> Option<u64> {
        let (mut fitted, mut parted, mut wrote) = (fits(None), None, None);
        for (record, done) in self.order.iter().zip(self.trace) {
            let Done::Applied(writes) = done else { continue };
            let Some((_, row)) = writes.iter().find(|(written, _)| written == key) else {
                continue;
            };
            let fit = fits(row.as_ref());
            wrote = Some(record);
            if fitted && !fit {
                parted = Some(record);
            }
            fitted = fit;
        }
        parted.or(wrote).map(|at| *at as u64 + 1)
    }
}

/// Pairs expected rows without a key with rows that meet them, as many as can be: which expected
/// rows are met, and which rows are taken.
fn pair(expected: &[&ExpectedRow], rows: &[(&Key, &Row)]) -> (Vec<bool>, Vec<bool>) {
    fn augment(
        at: usize,
        expected: &[&ExpectedRow],
        rows: &[(&Key, &Row)],
        taken: &mut [Option<usize>],
        seen: &mut [bool],
    ) -> bool {
        let Some(wanted) = expected.get(at) else { return false };
        for (place, (_, row)) in rows.iter().enumerate() {
            if seen.get(place).copied().unwrap_or(true) || !wanted.is_met(row) {
                continue;
            }
            if let Some(seen) = seen.get_mut(place) {
                *seen = true;
            }
            let holder = taken.get(place).copied().flatten();
            if holder.is_none_or(|holder| augment(holder, expected, rows, taken, seen)) {
                if let Some(slot) = taken.get_mut(place) {
                    *slot = Some(at);
                }
                return true;
            }
        }
        false
    }
    let mut taken: Vec<Option<usize>> = vec![None; rows.len()];
    for at in 0..expected.len() {
        augment(at, expected, rows, &mut taken, &mut vec![false; rows.len()]);
    }
    let met = (0..expected.len()).map(|at| taken.contains(&Some(at))).collect();
    (met, taken.iter().map(Option::is_some).collect())
}
