//! Lists: CEL's lists extension, and Kubernetes' `sum`, `min` and `max`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::value::Value;

use crate::expr::node::{Args, Fault, Form, Function, Out};
use crate::expr::ops;

pub(super) const TABLE: &[Function] = &[
    Function::new("slice", Form::Member, (3, 3), slice),
    Function::new("flatten", Form::Member, (1, 2), flatten),
    Function::new("distinct", Form::Member, (1, 1), distinct),
    Function::new("reverse", Form::Member, (1, 1), reverse),
    Function::new("sort", Form::Member, (1, 1), sort),
    Function::new("first", Form::Member, (1, 1), first),
    Function::new("last", Form::Member, (1, 1), last),
    Function::new("sum", Form::Member, (1, 1), sum),
    Function::new("min", Form::Member, (1, 1), min),
    Function::new("max", Form::Member, (1, 1), max),
    Function::new("lists.range", Form::Global, (1, 1), range),
];

fn list<'a>(args: Args<'a, '_>) -> Result<&'a [Value], Fault> {
    match args.first().map(Cow::as_ref) {
        Some(Value::List(items)) => Ok(items),
        _ => Err(Fault::Types),
    }
}

fn slice(args: Args<'_, '_>, budget: &Budget) -> Out {
    let items = list(args)?;
    let at = |at: usize| args.get(at).and_then(|arg| ops::whole(arg)).ok_or(Fault::Types);
    let (start, end) = (at(1)?, at(2)?);
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    match range.and_then(|(start, end)| items.get(start..end)) {
        Some(part) => {
            budget.list(part.len())?;
            Ok(Value::List(Arc::from(part)))
        }
        None => Err("the positions are outside the list, or the end is before the start".into()),
    }
}

fn flatten(args: Args<'_, '_>, budget: &Budget) -> Out {
    let items = list(args)?;
    let depth = match args.get(1) {
        Some(depth) => ops::whole(depth).ok_or(Fault::Types)?,
        None => 1,
    };
    if depth < 0 {
        return Err("the depth is negative".into());
    }
    let mut out = Vec::new();
    spread(items, depth, &mut out, budget)?;
    Ok(Value::list(out))
}

fn spread(items: &[Value], depth: i64, out: &mut Vec<Value>, budget: &Budget) -> Result<(), Fault> {
    for item in items {
        match item {
            Value::List(inner) if depth > 0 => spread(inner, depth - 1, out, budget)?,
            other => {
                budget.list(1)?;
                out.push(other.clone());
            }
        }
    }
    Ok(())
}

fn distinct(args: Args<'_, '_>, budget: &Budget) -> Out {
    let items = list(args)?;
    budget.list(items.len())?;
    for item in items {
        budget.work(item)?;
    }
    let mut seen = HashSet::new();
    let kept = items.iter().filter(|item| seen.insert(ops::canonical(item)));
    Ok(Value::list(kept.cloned().collect()))
}

/// Of a list, and of a text by its characters.
fn reverse(args: Args<'_, '_>, budget: &Budget) -> Out {
    if let Some(Value::Text(text)) = args.first().map(Cow::as_ref) {
        budget.bytes(text.len())?;
        let reversed: String = text.chars().rev().collect();
        return Ok(Value::Text(Arc::from(reversed)));
    }
    let items = list(args)?;
    budget.list(items.len())?;
    Ok(Value::list(items.iter().rev().cloned().collect()))
}

fn sort(args: Args<'_, '_>, budget: &Budget) -> Out {
    let items = list(args)?;
    budget.list(items.len())?;
    for item in items {
        ops::sorting(item, items.len(), budget)?;
    }
    ops::sorted(items.iter().map(|item| (item.clone(), item.clone())).collect()).map(Value::list)
}

fn first(args: Args<'_, '_>, _: &Budget) -> Out {
    Ok(list(args)?.first().cloned().unwrap_or_default())
}

fn last(args: Args<'_, '_>, _: &Budget) -> Out {
    Ok(list(args)?.last().cloned().unwrap_or_default())
}

/// Of numbers or durations; nothing sums up to 0.
fn sum(args: Args<'_, '_>, budget: &Budget) -> Out {
    let summand = |value: &Value| {
        let fits = matches!(
            value,
            Value::Int(_) | Value::Decimal(_) | Value::Double(_) | Value::Duration(_)
        );
        if fits {
            return Ok(());
        }
        let message = format!("it holds {}: only numbers and durations sum up", value.type_name());
        Err(Fault::Says(message.into()))
    };
    let items = list(args)?;
    let Some((head, tail)) = items.split_first() else { return Ok(Value::Int(0)) };
    summand(head)?;
    budget.items(items.len())?;
    let mut total = head.clone();
    for item in tail {
        summand(item)?;
        total = ops::add(&total, item, budget).map_err(|fault| match fault {
            Fault::Types => "numbers and durations do not mix".into(),
            other => other,
        })?;
    }
    Ok(total)
}

fn min(args: Args<'_, '_>, budget: &Budget) -> Out {
    extreme(list(args)?, Ordering::Less, budget)
}

fn max(args: Args<'_, '_>, budget: &Budget) -> Out {
    extreme(list(args)?, Ordering::Greater, budget)
}

/// The item that stands `wanted` to all others; the first of equals.
pub(super) fn extreme(items: &[Value], wanted: Ordering, budget: &Budget) -> Out {
    budget.items(items.len())?;
    let Some((head, tail)) = items.split_first() else { return Err("the list is empty".into()) };
    let comparable = |fault| match fault {
        Fault::Types => "its items have no order among each other".into(),
        other => other,
    };
    ops::compare(head, head).map_err(comparable)?;
    let mut best = head;
    for item in tail {
        budget.work(item)?;
        if ops::compare(item, best).map_err(comparable)? == Some(wanted) {
            best = item;
        }
    }
    Ok(best.clone())
}

fn range(args: Args<'_, '_>, budget: &Budget) -> Out {
    let length = args.first().and_then(|length| ops::whole(length)).ok_or(Fault::Types)?;
    let length = usize::try_from(length.max(0)).unwrap_or(usize::MAX);
    budget.list(length)?;
    Ok(Value::list((0..length).filter_map(|at| i64::try_from(at).ok()).map(Value::Int).collect()))
}
