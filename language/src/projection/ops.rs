//! What each verb does to one field: from the value that was and the operand to the value that is,
//! already of the column's type.

use std::fmt;
use std::sync::Arc;

use foldline_api::budget::{Budget, Exceeded};
use foldline_api::column::{Children, CoerceError, ColumnType};
use foldline_api::decimal::Decimal;
use foldline_api::value::{Map, Value};

use super::handler::{Action, Op, Operand, Put};
use super::prepare::BUDGET;
use crate::expr::{Env, EvalError};

/// Why an action has no result. Names types, never payload.
#[derive(Debug)]
pub(super) enum Fault {
    /// The expression failed.
    Expression(EvalError),
    /// Its value does not fit the field.
    Field(CoerceError),
    /// The source could not send it, and there is no row that has it.
    NotThere(EvalError),
    /// What is put or taken has no key.
    NoChildKey,
    /// It is a list, each item of which may be a child.
    ListOfChildren,
    /// The field's JSON is no list.
    NoList(&'static str),
    /// The record's budget is used up.
    Budget(Exceeded),
}

impl Fault {
    /// The stage that a dead letter names.
    pub(super) fn stage(&self) -> &'static str {
        match self {
            Fault::Expression(_) | Fault::NotThere(_) => "expression",
            Fault::Field(_) | Fault::NoChildKey | Fault::ListOfChildren | Fault::NoList(_) => {
                "field"
            }
            Fault::Budget(_) => BUDGET,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Expression(error) => write!(f, "{error}"),
            Fault::Field(error) => write!(f, "{error}"),
            Fault::NotThere(error) => write!(f, "{error}; and there is no row that has it"),
            Fault::NoChildKey => f.write_str("the child's key is null"),
            Fault::ListOfChildren => f.write_str(
                "it is a list, and one child is put at a time: `for_each` runs the handler for each `item`",
            ),
            Fault::NoList(found) => write!(f, "the field holds {found}, not a list"),
            Fault::Budget(limit) => write!(f, "{limit}"),
        }
    }
}

impl From<EvalError> for Fault {
    fn from(error: EvalError) -> Self {
        Fault::Expression(error)
    }
}

impl From<CoerceError> for Fault {
    fn from(error: CoerceError) -> Self {
        Fault::Field(error)
    }
}

impl From<Exceeded> for Fault {
    fn from(limit: Exceeded) -> Self {
        Fault::Budget(limit)
    }
}

/// Brings `value` to the type, at the record's expense.
#[inline(always)]
pub(super) fn coerce(ty: &ColumnType, value: Value, budget: &Budget) -> Result<Value, Fault> {
    // Decided here, where it is called: most values are of these kinds, and a call for each would be a tenth of the fold.
    match &value {
        Value::Text(text) if text.len() < SMALL_TEXT && matches!(ty, ColumnType::Text) => {}
        Value::Text(_) | Value::Decimal(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => {
            charge(ty, &value, budget)?;
        }
        _ => {}
    }
    Ok(ty.coerce(value)?)
}

/// A pass over a text that is shorter takes no step.
const SMALL_TEXT: usize = 1_024;

/// What bringing `value` to the type takes: objects and lists are built anew, long numbers are read and written digit
/// by digit.
fn charge(ty: &ColumnType, value: &Value, budget: &Budget) -> Result<(), Exceeded> {
    match value {
        Value::List(_) | Value::Map(_) => {
            let bytes = value.heap_bytes();
            budget.bytes(bytes)?;
            budget.pass(bytes)
        }
        Value::Text(text) => {
            budget.pass(text.len())?;
            if matches!(ty, ColumnType::Bytea) {
                budget.bytes(text.len())?;
            } else if !matches!(ty, ColumnType::Text | ColumnType::Varchar(_) | ColumnType::Jsonb) {
                // It may be a number, of some 2.4 digits a byte.
                budget.digits(text.len() / 2)?;
                budget.bytes(text.len())?;
            }
            Ok(())
        }
        // As a text it takes some 2.4 times its bytes.
        Value::Decimal(decimal) => match decimal.long_bytes() {
            Some(bytes) => {
                budget.digits(bytes)?;
                budget.bytes(bytes.saturating_mul(3))
            }
            None => Ok(()),
        },
        Value::Bytes(bytes) => budget.bytes(bytes.len()),
        _ => Ok(()),
    }
}

impl Operand {
    /// The value, of type `ty`.
    fn typed(&self, ty: &ColumnType, env: &Env<'_>) -> Result<Value, Fault> {
        match &self.constant {
            Some(value) => Ok(value.clone()),
            None => coerce(ty, self.expr.eval(env)?, env.budget),
        }
    }

    /// As a list of items of an array: a list is its items, any other value is one item, null none.
    fn items(&self, ty: &ColumnType, env: &Env<'_>) -> Result<Option<Arc<[Value]>>, Fault> {
        let value = match &self.constant {
            Some(value) => value.clone(),
            None => self.expr.eval(env)?,
        };
        let list = match value {
            Value::Null => return Ok(None),
            list @ Value::List(_) => list,
            item => Value::List(Arc::from([item])),
        };
        // Coercing what a constant already is costs less than a second way.
        match coerce(ty, list, env.budget)? {
            Value::List(items) => Ok(Some(items)),
            _ => Ok(None),
        }
    }
}

impl Action {
    /// The field's next value; none leaves it.
    ///
    /// What the source could not send leaves it too, where `stands` says that the row is there.
    pub(super) fn next(
        &self,
        env: &Env<'_>,
        old: &Value,
        stands: bool,
    ) -> Result<Option<Value>, Fault> {
        match self.next_sent(env, old) {
            Err(Fault::Expression(error)) if error.unavailable => match &self.op {
                Op::Set(operand) | Op::Merge(operand) | Op::Patch(operand)
                    if operand.expr.is_unavailable(env.event) =>
                {
                    if stands {
                        Ok(None)
                    } else {
                        Err(Fault::NotThere(error))
                    }
                }
                _ => Err(Fault::Expression(error)),
            },
            next => next,
        }
    }

    fn next_sent(&self, env: &Env<'_>, old: &Value) -> Result<Option<Value>, Fault> {
        let ty = &self.ty;
        match &self.op {
            Op::Set(operand) => operand.typed(ty, env).map(Some),
            Op::Merge(operand) => {
                let value = operand.typed(ty, env)?;
                Ok((!value.is_null()).then_some(value))
            }
            Op::Patch(operand) => match &operand.constant {
                Some(value) => Ok(Some(value.clone())),
                None => match operand.expr.eval_presence(env)? {
                    None => Ok(None),
                    Some(value) => coerce(ty, value, env.budget).map(Some),
                },
            },
            Op::Add(operand) => add(ty, old, operand.expr.eval(env)?, env.budget),
            Op::Min(operand) => Ok(best(old, operand.typed(ty, env)?, |new, old| new < old)),
            Op::Max(operand) => Ok(best(old, operand.typed(ty, env)?, |new, old| new > old)),
            Op::Append(operand) => {
                let Some(items) = operand.items(ty, env)? else { return Ok(None) };
                let old = list_of(old)?;
                env.budget.items(old.len() + items.len())?;
                Ok(Some(Value::List(old.iter().chain(&*items).cloned().collect())))
            }
            Op::Remove(operand) => {
                let Some(gone) = operand.items(ty, env)? else { return Ok(None) };
                let old = list_of(old)?;
                if old.is_empty() {
                    return Ok(None);
                }
                let (all, each) = (old.len() + gone.len(), gone.len().max(2).ilog2());
                env.budget.items(all.saturating_mul(usize::try_from(each).unwrap_or(1)))?;
                Ok(Some(Value::List(without(old, &gone))))
            }
            Op::Put(put) => put.next(env, old).map(Some),
            Op::Take(operand, children) => take(operand, children, env, old),
        }
    }
}

fn best(old: &Value, new: Value, wins: fn(&Value, &Value) -> bool) -> Option<Value> {
    if new.is_null() || !(old.is_null() || wins(&new, old)) {
        return None;
    }
    Some(new)
}

/// The items of `old` that are none of `gone`; either list may be long.
fn without(old: &[Value], gone: &[Value]) -> Arc<[Value]> {
    let mut gone: Vec<&Value> = gone.iter().collect();
    gone.sort_unstable();
    old.iter().filter(|item| gone.binary_search(item).is_err()).cloned().collect()
}

fn add(
    ty: &ColumnType,
    old: &Value,
    operand: Value,
    budget: &Budget,
) -> Result<Option<Value>, Fault> {
    budget.work(old)?;
    budget.work(&operand)?;
    let sum = match (old, operand) {
        (_, Value::Null) => return Ok(None),
        (Value::Int(old), Value::Int(new)) if old.checked_add(new).is_some() => {
            Value::Int(old.wrapping_add(new))
        }
        (old, operand) => match ty {
            ColumnType::DoublePrecision | ColumnType::Real => {
                let operand = ColumnType::DoublePrecision.coerce(operand)?;
                match (old, &operand) {
                    (Value::Double(old), Value::Double(new)) => Value::Double(old + new),
                    _ => operand,
                }
            }
            _ => Value::Decimal(decimal(old.clone())?.plus(&decimal(operand)?)),
        },
    };
    Ok(Some(ty.coerce(sum)?))
}

/// A number as it stands, not rounded; null counts as 0.
fn decimal(value: Value) -> Result<Decimal, CoerceError> {
    match value {
        Value::Int(int) => Ok(Decimal::from(int)),
        Value::Decimal(decimal) => Ok(decimal),
        other => match ColumnType::Numeric(None).coerce(other)? {
            Value::Decimal(decimal) => Ok(decimal),
            _ => Ok(Decimal::ZERO),
        },
    }
}

/// Where the child with this key stands, or would stand, in a list sorted by it.
fn find(list: &[Value], by: &str, key: &Value) -> Result<usize, usize> {
    list.binary_search_by(|child| match child {
        Value::Map(map) => map.get(by).unwrap_or(&Value::Null).cmp(key),
        _ => std::cmp::Ordering::Less,
    })
}

/// The items of a field, which may be any JSON; null is a list without any.
fn list_of(old: &Value) -> Result<&[Value], Fault> {
    match old {
        Value::List(list) => Ok(list),
        Value::Null => Ok(&[]),
        other => Err(Fault::NoList(other.type_name())),
    }
}

fn children_of(old: &Value) -> &[Value] {
    match old {
        Value::List(list) => list,
        _ => &[],
    }
}

impl Put {
    fn next(&self, env: &Env<'_>, old: &Value) -> Result<Value, Fault> {
        let key = self.by.typed(&self.by_type, env)?;
        if key.is_null() {
            let whole = self.whole.as_ref().map(|whole| whole.eval(env));
            return Err(match whole {
                Some(Ok(Value::List(_))) => Fault::ListOfChildren,
                _ => Fault::NoChildKey,
            });
        }
        let list = children_of(old);
        env.budget.steps(1)?;
        env.budget.items(list.len())?;
        let place = find(list, &self.children.by, &key);
        let before = match place {
            Ok(at) => list.get(at).unwrap_or(&self.blank),
            Err(_) => &self.blank,
        };
        let env = Env { child: Some(before), ..*env };
        let mut child = match before {
            Value::Map(map) => Map::clone(map),
            _ => Map::default(),
        };
        child.insert(Arc::from(self.children.by.as_str()), key);
        for (name, ty, operand) in &self.fields {
            match operand.typed(ty, &env) {
                Err(Fault::Expression(error))
                    if error.unavailable && operand.expr.is_unavailable(env.event) =>
                {
                    // It keeps what the child has.
                    if place.is_err() {
                        return Err(Fault::NotThere(error));
                    }
                }
                value => {
                    child.insert(Arc::clone(name), value?);
                }
            }
        }
        let child = Value::Map(Arc::new(child));
        let (head, tail) = match place {
            Ok(at) => (list.get(..at), list.get(at + 1..)),
            Err(at) => (list.get(..at), list.get(at..)),
        };
        let (head, tail) = (head.unwrap_or_default(), tail.unwrap_or_default());
        Ok(Value::List(head.iter().cloned().chain([child]).chain(tail.iter().cloned()).collect()))
    }
}

fn take(
    operand: &Operand,
    children: &Children,
    env: &Env<'_>,
    old: &Value,
) -> Result<Option<Value>, Fault> {
    let Some(by_type) = children.by_type() else { return Ok(None) };
    let key = operand.typed(by_type, env)?;
    let list = children_of(old);
    env.budget.steps(1)?;
    env.budget.items(list.len())?;
    let Ok(at) = find(list, &children.by, &key) else { return Ok(None) };
    let stays = list.iter().enumerate().filter(|(other, _)| *other != at);
    Ok(Some(Value::List(stays.map(|(_, child)| child.clone()).collect())))
}
