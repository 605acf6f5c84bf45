//! CEL's math extension, over exact numbers too.

use std::borrow::Cow;
use std::cmp::Ordering;

use foldline_api::budget::Budget;
use foldline_api::decimal::Decimal;
use foldline_api::value::Value;

use super::lists::extreme;
use crate::expr::node::{Args, Fault, Form, Function, Out};
use crate::expr::ops;

const fn one(name: &'static str, run: fn(Args<'_, '_>, &Budget) -> Out) -> Function {
    Function::new(name, Form::Global, (1, 1), run)
}

const fn two(name: &'static str, run: fn(Args<'_, '_>, &Budget) -> Out) -> Function {
    Function::new(name, Form::Global, (2, 2), run)
}

pub(super) const TABLE: &[Function] = &[
    Function::new("math.greatest", Form::Global, (1, usize::MAX), greatest),
    Function::new("math.least", Form::Global, (1, usize::MAX), least),
    one("math.ceil", |args, budget| rounded(args, budget, f64::ceil, Way::Up)),
    one("math.floor", |args, budget| rounded(args, budget, f64::floor, Way::Down)),
    one("math.round", |args, budget| rounded(args, budget, f64::round, Way::Nearest)),
    one("math.trunc", |args, budget| rounded(args, budget, f64::trunc, Way::Zero)),
    one("math.abs", abs),
    one("math.sign", sign),
    one("math.sqrt", sqrt),
    one("math.isNaN", |args, _| asked(args, f64::is_nan)),
    one("math.isInf", |args, _| asked(args, f64::is_infinite)),
    one("math.isFinite", |args, _| asked(args, f64::is_finite)),
    two("math.bitAnd", |args, _| bits(args, |a, b| a & b)),
    two("math.bitOr", |args, _| bits(args, |a, b| a | b)),
    two("math.bitXor", |args, _| bits(args, |a, b| a ^ b)),
    one("math.bitNot", bit_not),
    two("math.bitShiftLeft", |args, _| shifted(args, u64::checked_shl)),
    two("math.bitShiftRight", |args, _| shifted(args, u64::checked_shr)),
];

fn number<'a>(args: Args<'a, '_>) -> Result<&'a Value, Fault> {
    match args.first().map(Cow::as_ref) {
        Some(value @ (Value::Int(_) | Value::Decimal(_) | Value::Double(_))) => Ok(value),
        _ => Err(Fault::Types),
    }
}

fn greatest(args: Args<'_, '_>, budget: &Budget) -> Out {
    pick(args, Ordering::Greater, budget)
}

fn least(args: Args<'_, '_>, budget: &Budget) -> Out {
    pick(args, Ordering::Less, budget)
}

fn pick(args: Args<'_, '_>, wanted: Ordering, budget: &Budget) -> Out {
    let values: Vec<Value>;
    let items: &[Value] = match args {
        [list] => match list.as_ref() {
            Value::List(items) => items,
            single => std::slice::from_ref(single),
        },
        _ => {
            values = args.iter().map(|arg| arg.as_ref().clone()).collect();
            &values
        }
    };
    if items.iter().any(|item| ops::double(item).is_none()) {
        return Err(if args.len() == 1 {
            "only numbers are compared".into()
        } else {
            Fault::Types
        });
    }
    extreme(items, wanted, budget)
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
    Nearest,
    Zero,
}

fn rounded(args: Args<'_, '_>, budget: &Budget, double: fn(f64) -> f64, way: Way) -> Out {
    let number = number(args)?;
    budget.work(number)?;
    match number {
        Value::Double(value) => Ok(Value::Double(double(*value))),
        Value::Decimal(decimal) => Ok(Value::Decimal(round(decimal, way)?)),
        int => Ok(int.clone()),
    }
}

fn round(decimal: &Decimal, way: Way) -> Result<Decimal, Fault> {
    let one = Decimal::from(1);
    let rest = decimal.remainder(&one).map_err(|_| Fault::Types)?;
    let toward_zero = decimal.minus(&rest).round(0);
    Ok(match way {
        Way::Nearest => decimal.round(0),
        Way::Up if !rest.is_zero() && !rest.is_negative() => toward_zero.plus(&one),
        Way::Down if rest.is_negative() => toward_zero.minus(&one),
        Way::Up | Way::Down | Way::Zero => toward_zero,
    })
}

fn abs(args: Args<'_, '_>, _: &Budget) -> Out {
    match number(args)? {
        Value::Int(int) => int
            .checked_abs()
            .map(Value::Int)
            .ok_or_else(|| "the integer result does not fit 64 bits".into()),
        Value::Decimal(decimal) if decimal.is_negative() => Ok(Value::Decimal(decimal.negated())),
        Value::Double(double) => Ok(Value::Double(double.abs())),
        other => Ok(other.clone()),
    }
}

fn sign(args: Args<'_, '_>, _: &Budget) -> Out {
    Ok(match number(args)? {
        Value::Double(double) if *double == 0.0 || double.is_nan() => Value::Double(*double),
        Value::Double(double) => Value::Double(double.signum()),
        Value::Decimal(decimal) if decimal.is_zero() => Value::Decimal(Decimal::ZERO),
        Value::Decimal(decimal) => {
            Value::Decimal(Decimal::from(if decimal.is_negative() { -1 } else { 1 }))
        }
        Value::Int(int) => Value::Int(int.signum()),
        _ => return Err(Fault::Types),
    })
}

fn sqrt(args: Args<'_, '_>, _: &Budget) -> Out {
    ops::double(number(args)?).map(|double| Value::Double(double.sqrt())).ok_or(Fault::Types)
}

/// Integers and decimals are finite, whatever their nearest double is.
fn asked(args: Args<'_, '_>, question: fn(f64) -> bool) -> Out {
    Ok(Value::Bool(match number(args)? {
        Value::Double(double) => question(*double),
        _ => question(0.0),
    }))
}

fn ints(args: Args<'_, '_>) -> Result<(i64, i64), Fault> {
    match args {
        [a, b] => match (a.as_ref(), b.as_ref()) {
            (Value::Int(a), Value::Int(b)) => Ok((*a, *b)),
            _ => Err(Fault::Types),
        },
        _ => Err(Fault::Types),
    }
}

fn bits(args: Args<'_, '_>, op: fn(i64, i64) -> i64) -> Out {
    ints(args).map(|(a, b)| Value::Int(op(a, b)))
}

fn bit_not(args: Args<'_, '_>, _: &Budget) -> Out {
    match number(args)? {
        Value::Int(int) => Ok(Value::Int(!int)),
        _ => Err(Fault::Types),
    }
}

/// Shifts in zeros from either side, as CEL does; by 64 or more nothing is left.
fn shifted(args: Args<'_, '_>, op: fn(u64, u32) -> Option<u64>) -> Out {
    let (value, by) = ints(args)?;
    if by < 0 {
        return Err("a shift by a negative number".into());
    }
    let shifted = u32::try_from(by).ok().and_then(|by| op(value.cast_unsigned(), by));
    Ok(Value::Int(shifted.unwrap_or(0).cast_signed()))
}
