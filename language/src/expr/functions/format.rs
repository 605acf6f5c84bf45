//! `format` of the strings extension: `%s %d %f %e %b %x %X %o %%`.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::column::scalar_text;
use foldline_api::value::Value;

use crate::expr::node::{Args, Fault, Out};
use crate::expr::ops;

const PRECISION_DEFAULT: u16 = 6;
/// Digits after the point that a clause may ask for.
const PRECISION_MAX: u16 = 100;
/// Lists within lists that `%s` writes out.
const DEPTH_MAX: usize = 130;

pub(super) fn format(args: Args<'_, '_>, budget: &Budget) -> Out {
    let [template, list] = args else { return Err(Fault::Types) };
    let (Value::Text(template), Value::List(values)) = (template.as_ref(), list.as_ref()) else {
        return Err(Fault::Types);
    };
    let mut values = values.iter();
    let mut out = String::new();
    let mut rest: &str = template;
    while let Some((before, clause)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = clause.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, clause) = precision(clause)?;
        let mut chars = clause.chars();
        let verb = chars.next().ok_or("the format ends within a clause")?;
        rest = chars.as_str();
        let value = values.next().ok_or("the format has more clauses than there are values")?;
        budget.work(value)?;
        let from = out.len();
        write(verb, precision, value, &mut out)?;
        budget.bytes(out.len() - from)?;
    }
    out.push_str(rest);
    budget.bytes(template.len())?;
    Ok(Value::Text(Arc::from(out)))
}

fn precision(clause: &str) -> Result<(u16, &str), Fault> {
    let Some(after) = clause.strip_prefix('.') else { return Ok((PRECISION_DEFAULT, clause)) };
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let (digits, rest) = after.split_at_checked(end).ok_or(Fault::Types)?;
    let precision = if digits.is_empty() { Ok(0) } else { digits.parse() };
    match precision {
        Ok(precision) if precision <= PRECISION_MAX => Ok((precision, rest)),
        _ => Err("a precision is at most 100".into()),
    }
}

fn write(verb: char, precision: u16, value: &Value, out: &mut String) -> Result<(), Fault> {
    match (verb, value) {
        ('s', value) => text(value, out, 0)?,
        ('d', Value::Int(_) | Value::Decimal(_) | Value::Double(_)) => text(value, out, 0)?,
        ('f', value) => fixed(value, precision, out)?,
        ('e', value) => scientific(value, precision, out)?,
        ('b', Value::Bool(bool)) => out.push(if *bool { '1' } else { '0' }),
        ('b', Value::Int(int)) => based(*int, format!("{:b}", int.unsigned_abs()), out),
        ('o', Value::Int(int)) => based(*int, format!("{:o}", int.unsigned_abs()), out),
        ('x', Value::Int(int)) => based(*int, format!("{:x}", int.unsigned_abs()), out),
        ('X', Value::Int(int)) => based(*int, format!("{:X}", int.unsigned_abs()), out),
        ('x' | 'X', Value::Text(text)) => hex(text.as_bytes(), verb == 'X', out),
        ('x' | 'X', Value::Bytes(bytes)) => hex(bytes, verb == 'X', out),
        ('d' | 'b' | 'o' | 'x' | 'X', other) => {
            let message = format!("%{verb} does not take {}", other.type_name());
            return Err(Fault::Says(Cow::Owned(message)));
        }
        _ => return Err("a clause is one of %s %d %f %e %b %x %X %o %%".into()),
    }
    Ok(())
}

fn based(int: i64, digits: String, out: &mut String) {
    if int < 0 {
        out.push('-');
    }
    out.push_str(&digits);
}

fn hex(bytes: &[u8], upper: bool, out: &mut String) {
    for byte in bytes {
        let _ = if upper { write!(out, "{byte:02X}") } else { write!(out, "{byte:02x}") };
    }
}

fn not_finite(double: f64) -> Option<&'static str> {
    match double {
        d if d.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

fn fixed(value: &Value, precision: u16, out: &mut String) -> Result<(), Fault> {
    if let Value::Double(double) = value {
        match not_finite(*double) {
            Some(name) => out.push_str(name),
            None => {
                let _ = write!(out, "{double:.*}", usize::from(precision));
            }
        }
        return Ok(());
    }
    let Some(decimal) = ops::exact(value) else {
        return Err(Fault::Says(format!("%f does not take {}", value.type_name()).into()));
    };
    let _ = write!(out, "{}", decimal.round(precision));
    Ok(())
}

fn scientific(value: &Value, precision: u16, out: &mut String) -> Result<(), Fault> {
    let Some(double) = ops::double(value) else {
        return Err(Fault::Says(format!("%e does not take {}", value.type_name()).into()));
    };
    if let Some(name) = not_finite(double) {
        out.push_str(name);
        return Ok(());
    }
    let plain = format!("{double:.*e}", usize::from(precision));
    // Rust writes 1.5e3 where C and Go write 1.5e+03.
    let (mantissa, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    let _ = write!(out, "{mantissa}e{sign}{digits:0>2}");
    Ok(())
}

fn text(value: &Value, out: &mut String, depth: usize) -> Result<(), Fault> {
    if depth > DEPTH_MAX {
        return Err("the value is nested too deep".into());
    }
    match value {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => out.push_str(text),
            Err(_) => return Err("the bytes are not UTF-8".into()),
        },
        Value::Double(double) => match not_finite(*double) {
            Some(name) => out.push_str(name),
            None => out.push_str(&scalar_text(value)),
        },
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                text(item, out, depth + 1)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (at, (key, item)) in map.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                out.push_str(key);
                out.push_str(": ");
                text(item, out, depth + 1)?;
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar_text(scalar)),
    }
    Ok(())
}
