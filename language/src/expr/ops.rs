//! Operators: numbers exact and mixing, equality across kinds of numbers, order within one kind.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use foldline_api::budget::{Budget, Exceeded};
use foldline_api::column::ColumnType;
use foldline_api::decimal::Decimal;
use foldline_api::time::{Duration, Timestamp};
use foldline_api::value::Value;

use super::node::{Fault, Op, Out};

/// Heap bytes of a decimal that an operator may yield, some 250,000 digits: products must not grow
/// without end.
const DECIMAL_BYTES_MAX: usize = 128 * 1024;
/// CEL's longest duration, in microseconds: some ten thousand years.
const DURATION_MAX: i64 = 315_576_000_000 * 1_000_000;

const OVERFLOW: &str = "the integer result does not fit 64 bits";
const TIME_RANGE: &str = "the result is outside the years 1 to 9999";

/// The value of `left op right`.
pub(super) fn binary(op: Op, left: &Value, right: &Value, budget: &Budget) -> Out {
    match op {
        Op::Add => add(left, right, budget),
        Op::Subtract => subtract(left, right, budget),
        Op::Multiply | Op::Divide | Op::Remainder => arithmetic(op, left, right, budget),
        Op::Equal => same(left, right, budget).map(Value::Bool),
        Op::NotEqual => same(left, right, budget).map(|same| Value::Bool(!same)),
        Op::Less => ordered(left, right, budget, Ordering::is_lt),
        Op::LessOrEqual => ordered(left, right, budget, Ordering::is_le),
        Op::Greater => ordered(left, right, budget, Ordering::is_gt),
        Op::GreaterOrEqual => ordered(left, right, budget, Ordering::is_ge),
        Op::In => contains(left, right, budget).map(Value::Bool),
    }
}

fn ordered(left: &Value, right: &Value, budget: &Budget, wanted: fn(Ordering) -> bool) -> Out {
    budget.work(left)?;
    budget.work(right)?;
    compare(left, right).map(|order| Value::Bool(order.is_some_and(wanted)))
}

fn same(left: &Value, right: &Value, budget: &Budget) -> Result<bool, Fault> {
    budget.work(left)?;
    budget.work(right)?;
    Ok(equal(left, right))
}

fn contains(item: &Value, container: &Value, budget: &Budget) -> Result<bool, Fault> {
    match container {
        Value::List(items) => {
            budget.items(items.len())?;
            for known in &**items {
                if same(item, known, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => Ok(matches!(item, Value::Text(key) if map.get(key).is_some())),
        _ => Err(Fault::Types),
    }
}

/// What it costs to sort by `key` among so many: it is compared with some of them, the more the more there are.
pub(super) fn sorting(key: &Value, among: usize, budget: &Budget) -> Result<(), Exceeded> {
    let compared = among.checked_ilog2().unwrap_or(0);
    budget.steps(usize::try_from(compared / 8).unwrap_or(0))?;
    (0..compared).try_for_each(|_| budget.work(key))
}

/// An integer or a decimal as a decimal.
pub(super) fn exact(value: &Value) -> Option<Cow<'_, Decimal>> {
    match value {
        Value::Int(int) => Some(Cow::Owned(Decimal::from(*int))),
        Value::Decimal(decimal) => Some(Cow::Borrowed(decimal)),
        _ => None,
    }
}

/// Any number as the nearest double.
pub(super) fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Double(double) => Some(*double),
        Value::Int(int) => Some(*int as f64),
        Value::Decimal(decimal) => Some(decimal.to_f64()),
        _ => None,
    }
}

/// A number without a fraction that fits 64 bits.
pub(super) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(int) => Some(*int),
        Value::Decimal(decimal) => decimal.to_i64(),
        Value::Double(double) => Decimal::from_f64(*double).and_then(|decimal| decimal.to_i64()),
        _ => None,
    }
}

/// A decimal that has not grown out of bounds.
fn bounded(decimal: Decimal, budget: &Budget) -> Out {
    if let Some(bytes) = decimal.long_bytes() {
        if bytes > DECIMAL_BYTES_MAX {
            return Err("the result has too many digits".into());
        }
        budget.bytes(bytes)?;
    }
    Ok(Value::Decimal(decimal))
}

fn int(result: Option<i64>) -> Out {
    result.map(Value::Int).ok_or_else(|| OVERFLOW.into())
}

fn arithmetic(op: Op, left: &Value, right: &Value, budget: &Budget) -> Out {
    if let (Value::Int(a), Value::Int(b)) = (left, right) {
        return match op {
            Op::Add => int(a.checked_add(*b)),
            Op::Subtract => int(a.checked_sub(*b)),
            Op::Multiply => int(a.checked_mul(*b)),
            Op::Divide | Op::Remainder if *b == 0 => Err("division by zero".into()),
            Op::Divide => int(a.checked_div(*b)),
            Op::Remainder => int(a.checked_rem(*b)),
            _ => Err(Fault::Types),
        };
    }
    if let (Some(a), Some(b)) = (exact(left), exact(right)) {
        budget.numbers(&a, &b)?;
        let bounded = |decimal: Decimal| bounded(decimal, budget);
        return match op {
            Op::Add => bounded(a.plus(&b)),
            Op::Subtract => bounded(a.minus(&b)),
            Op::Multiply => bounded(a.times(&b)),
            Op::Divide => a.divided_by(&b).map_err(|_| "division by zero".into()).and_then(bounded),
            Op::Remainder => {
                a.remainder(&b).map_err(|_| "division by zero".into()).and_then(bounded)
            }
            _ => Err(Fault::Types),
        };
    }
    let (Some(a), Some(b)) = (double(left), double(right)) else { return Err(Fault::Types) };
    match op {
        Op::Add => Ok(Value::Double(a + b)),
        Op::Subtract => Ok(Value::Double(a - b)),
        Op::Multiply => Ok(Value::Double(a * b)),
        Op::Divide => Ok(Value::Double(a / b)),
        // As in CEL: doubles have no remainder.
        _ => Err(Fault::Types),
    }
}

/// The sum; texts, bytes and lists are joined.
pub(super) fn add(left: &Value, right: &Value, budget: &Budget) -> Out {
    match (left, right) {
        (Value::Text(a), Value::Text(b)) => {
            budget.bytes(a.len() + b.len())?;
            Ok(Value::Text(Arc::from([&**a, &**b].concat())))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.bytes(a.len() + b.len())?;
            Ok(Value::Bytes(Arc::from([&**a, &**b].concat())))
        }
        (Value::List(a), Value::List(b)) => {
            budget.list(a.len() + b.len())?;
            Ok(Value::List(Arc::from([&**a, &**b].concat())))
        }
        (Value::Timestamp(moment), Value::Duration(span))
        | (Value::Duration(span), Value::Timestamp(moment)) => later(*moment, Some(*span)),
        (Value::Duration(a), Value::Duration(b)) => span(a.0.checked_add(b.0)),
        _ => arithmetic(Op::Add, left, right, budget),
    }
}

fn subtract(left: &Value, right: &Value, budget: &Budget) -> Out {
    match (left, right) {
        (Value::Timestamp(a), Value::Timestamp(b)) => span(a.micros().checked_sub(b.micros())),
        (Value::Timestamp(moment), Value::Duration(span)) => {
            later(*moment, span.0.checked_neg().map(Duration))
        }
        (Value::Duration(a), Value::Duration(b)) => span(a.0.checked_sub(b.0)),
        _ => arithmetic(Op::Subtract, left, right, budget),
    }
}

fn later(moment: Timestamp, span: Option<Duration>) -> Out {
    let moved = span.and_then(|span| moment.plus(span));
    moved.map(Value::Timestamp).ok_or_else(|| TIME_RANGE.into())
}

/// A duration within CEL's bounds.
pub(super) fn span(micros: Option<i64>) -> Out {
    match micros {
        Some(micros) if (-DURATION_MAX..=DURATION_MAX).contains(&micros) => {
            Ok(Value::Duration(Duration(micros)))
        }
        _ => Err("the duration is longer than ten thousand years".into()),
    }
}

/// The number with its sign turned.
pub(super) fn negate(value: &Value) -> Out {
    match value {
        Value::Int(a) => int(a.checked_neg()),
        Value::Decimal(decimal) => Ok(Value::Decimal(decimal.negated())),
        Value::Double(double) => Ok(Value::Double(-double)),
        _ => Err(Fault::Types),
    }
}

/// `text` read as what `like` is, for the kinds that events hold as texts.
fn read_as(like: &Value, text: &Value) -> Option<Value> {
    let ty = match like {
        Value::Uuid(_) => ColumnType::Uuid,
        Value::Date(_) => ColumnType::Date,
        Value::Time(_) => ColumnType::Time,
        Value::Timestamp(_) => ColumnType::TimestampTz,
        _ => return None,
    };
    ty.coerce(text.clone()).ok()
}

/// CEL's `==`: numbers by what they are worth, a moment, date, time or UUID also with its text, as
/// events hold it, and what is of different kinds is not equal.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (
            Value::Int(_) | Value::Decimal(_) | Value::Double(_),
            Value::Int(_) | Value::Decimal(_) | Value::Double(_),
        ) => compare_numbers(left, right) == Some(Ordering::Equal),
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equal(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && equal(a.1, b.1))
        }
        (
            Value::Uuid(_) | Value::Date(_) | Value::Time(_) | Value::Timestamp(_),
            Value::Text(_),
        ) => read_as(left, right).is_some_and(|right| *left == right),
        (
            Value::Text(_),
            Value::Uuid(_) | Value::Date(_) | Value::Time(_) | Value::Timestamp(_),
        ) => equal(right, left),
        _ => left == right,
    }
}

/// The order of two numbers; none where one is NaN.
pub(super) fn compare_numbers(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => compare_double(*a, b),
        (a, Value::Double(b)) => compare_double(*b, a).map(Ordering::reverse),
        (a, b) => Some(exact(a)?.cmp(&exact(b)?)),
    }
}

/// A double is worth the shortest decimal that reads back as it.
fn compare_double(double: f64, other: &Value) -> Option<Ordering> {
    match Decimal::from_f64(double) {
        Some(decimal) => Some(decimal.cmp(&*exact(other)?)),
        None => double.partial_cmp(&0.0),
    }
}

/// The order of two values of one kind; none where one is NaN.
///
/// # Errors
/// Values that have no order among each other, null among them.
pub(super) fn compare(left: &Value, right: &Value) -> Result<Option<Ordering>, Fault> {
    match (left, right) {
        (
            Value::Int(_) | Value::Decimal(_) | Value::Double(_),
            Value::Int(_) | Value::Decimal(_) | Value::Double(_),
        ) => Ok(compare_numbers(left, right)),
        (Value::Text(_), Value::Text(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Bytes(_), Value::Bytes(_))
        | (Value::Timestamp(_), Value::Timestamp(_))
        | (Value::Duration(_), Value::Duration(_))
        | (Value::Date(_), Value::Date(_))
        | (Value::Time(_), Value::Time(_))
        | (Value::Uuid(_), Value::Uuid(_)) => Ok(Some(left.cmp(right))),
        (
            Value::Uuid(_) | Value::Date(_) | Value::Time(_) | Value::Timestamp(_),
            Value::Text(_),
        ) => read_as(left, right).map(|right| Some(left.cmp(&right))).ok_or(Fault::Types),
        (
            Value::Text(_),
            Value::Uuid(_) | Value::Date(_) | Value::Time(_) | Value::Timestamp(_),
        ) => compare(right, left).map(|order| order.map(Ordering::reverse)),
        _ => Err(Fault::Types),
    }
}

/// Kinds that have a total order within; none for what has none, such as null, lists and NaN.
fn kind(value: &Value) -> Option<u8> {
    match value {
        Value::Int(_) | Value::Decimal(_) => Some(0),
        Value::Double(double) if !double.is_nan() => Some(0),
        Value::Text(_) => Some(1),
        Value::Bool(_) => Some(2),
        Value::Bytes(_) => Some(3),
        Value::Timestamp(_) => Some(4),
        Value::Duration(_) => Some(5),
        Value::Date(_) => Some(6),
        Value::Time(_) => Some(7),
        Value::Uuid(_) => Some(8),
        _ => None,
    }
}

/// The second of each pair, stably in the order of the first.
///
/// # Errors
/// When the keys are not all of one kind that has an order.
pub(super) fn sorted(mut keyed: Vec<(Value, Value)>) -> Result<Vec<Value>, Fault> {
    let first = keyed.first().map(|(key, _)| kind(key));
    if first == Some(None) || keyed.iter().any(|(key, _)| Some(kind(key)) != first) {
        return Err("what it sorts by must be of one kind, and not null".into());
    }
    // Within a kind the order is total, as a sort needs it.
    keyed.sort_by(|(a, _), (b, _)| match kind(a) {
        Some(0) => compare_numbers(a, b).unwrap_or(Ordering::Equal),
        _ => a.cmp(b),
    });
    Ok(keyed.into_iter().map(|(_, value)| value).collect())
}

/// A value that is structurally equal to another's where `==` holds, to find equals by hashing.
pub(super) fn canonical(value: &Value) -> Value {
    match value {
        Value::Int(int) => Value::Decimal(Decimal::from(*int)),
        Value::Double(double) => {
            Decimal::from_f64(*double).map_or(Value::Double(*double), Value::Decimal)
        }
        Value::Date(_) | Value::Time(_) | Value::Uuid(_) => {
            Value::text(&foldline_api::column::scalar_text(value))
        }
        Value::List(items) => Value::list(items.iter().map(canonical).collect()),
        Value::Map(map) => {
            Value::map(map.iter().map(|(key, item)| (Arc::clone(key), canonical(item))).collect())
        }
        other => other.clone(),
    }
}
