//! Texts: CEL's own functions and its strings extension. Positions count characters.

use std::borrow::Cow;
use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::value::Value;
use regex::RegexBuilder;
use regex_automata::nfa::thompson::NFA;

use super::convert::count;
use super::format::format;
use crate::expr::node::{Args, Fault, Form, Function, Out, Pattern};
use crate::expr::ops;

pub(super) const TABLE: &[Function] = &[
    Function::new("contains", Form::Member, (2, 2), contains),
    Function::new("startsWith", Form::Member, (2, 2), starts_with),
    Function::new("endsWith", Form::Member, (2, 2), ends_with),
    Function::new("matches", Form::Either, (2, 2), matches),
    Function::new("charAt", Form::Member, (2, 2), char_at),
    Function::new("indexOf", Form::Member, (2, 3), index_of),
    Function::new("lastIndexOf", Form::Member, (2, 3), last_index_of),
    Function::new("lowerAscii", Form::Member, (1, 1), lower),
    Function::new("upperAscii", Form::Member, (1, 1), upper),
    Function::new("replace", Form::Member, (3, 4), replace),
    Function::new("split", Form::Member, (2, 3), split),
    Function::new("join", Form::Member, (1, 2), join),
    Function::new("substring", Form::Member, (2, 3), substring),
    Function::new("trim", Form::Member, (1, 1), trim),
    Function::new("format", Form::Member, (2, 2), format),
    Function::new("strings.quote", Form::Global, (1, 1), quote),
];

/// What a compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 1024 * 1024;
/// What compiling any regular expression costs, in steps, beside its length and its states.
const REGEX_STEPS: usize = 500;
/// Groups within groups.
const REGEX_DEPTH_MAX: u32 = 50;

/// Compiles a regular expression within bounds, at the expense of a record where it is one's.
pub(in crate::expr) fn pattern(source: &str, budget: Option<&Budget>) -> Result<Pattern, Fault> {
    if let Some(budget) = budget {
        budget.steps(REGEX_STEPS + source.len())?;
    }
    let faulty = || Fault::from("the text is no regular expression");
    // How many states a search may be in is what it may cost for each byte, whatever the engine makes of it.
    let syntax = regex_automata::util::syntax::Config::new().nest_limit(REGEX_DEPTH_MAX);
    let limit = NFA::config().nfa_size_limit(Some(REGEX_BYTES_MAX));
    let states = match NFA::compiler().syntax(syntax).configure(limit).build(source) {
        Ok(nfa) => nfa.states().len(),
        Err(error) if error.size_limit().is_some() => return Err(LARGE.into()),
        Err(_) => return Err(faulty()),
    };
    if let Some(budget) = budget {
        budget.steps(states)?;
    }
    let regex = RegexBuilder::new(source)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .nest_limit(REGEX_DEPTH_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => LARGE.into(),
            _ => faulty(),
        })?;
    Ok(Pattern { regex, states })
}

const LARGE: &str = "the regular expression is too large";

fn text<'a>(args: Args<'a, '_>, at: usize) -> Result<&'a Arc<str>, Fault> {
    match args.get(at).map(Cow::as_ref) {
        Some(Value::Text(text)) => Ok(text),
        _ => Err(Fault::Types),
    }
}

fn whole(args: Args<'_, '_>, at: usize) -> Result<Option<i64>, Fault> {
    args.get(at).map(|arg| ops::whole(arg).ok_or(Fault::Types)).transpose()
}

/// A position within `length`; what lies outside is an error, as in CEL.
fn position(at: i64, length: usize) -> Result<usize, Fault> {
    usize::try_from(at)
        .ok()
        .filter(|at| *at <= length)
        .ok_or_else(|| "the position is outside the text".into())
}

fn made(text: String, budget: &Budget) -> Out {
    budget.bytes(text.len())?;
    Ok(Value::Text(Arc::from(text)))
}

fn contains(args: Args<'_, '_>, budget: &Budget) -> Out {
    budget.pass(text(args, 0)?.len())?;
    Ok(Value::Bool(text(args, 0)?.contains(&**text(args, 1)?)))
}

fn starts_with(args: Args<'_, '_>, _: &Budget) -> Out {
    Ok(Value::Bool(text(args, 0)?.starts_with(&**text(args, 1)?)))
}

fn ends_with(args: Args<'_, '_>, _: &Budget) -> Out {
    Ok(Value::Bool(text(args, 0)?.ends_with(&**text(args, 1)?)))
}

fn matches(args: Args<'_, '_>, budget: &Budget) -> Out {
    let subject = text(args, 0)?;
    let pattern = pattern(text(args, 1)?, Some(budget))?;
    budget.search(pattern.states, subject.len())?;
    Ok(Value::Bool(pattern.regex.is_match(subject)))
}

fn char_at(args: Args<'_, '_>, budget: &Budget) -> Out {
    let (subject, at) = (text(args, 0)?, whole(args, 1)?.ok_or(Fault::Types)?);
    budget.pass(subject.len())?;
    let at = position(at, subject.chars().count())?;
    made(subject.chars().nth(at).map(String::from).unwrap_or_default(), budget)
}

/// The byte at which character `at` starts.
fn byte_of(text: &str, at: usize) -> usize {
    text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte)
}

fn found(subject: &str, byte: Option<usize>) -> Value {
    match byte.and_then(|byte| subject.get(..byte)) {
        Some(before) => count(before.chars().count()),
        None => Value::Int(-1),
    }
}

fn index_of(args: Args<'_, '_>, budget: &Budget) -> Out {
    let (subject, wanted) = (text(args, 0)?, text(args, 1)?);
    budget.pass(subject.len())?;
    let from = position(whole(args, 2)?.unwrap_or(0), subject.chars().count())?;
    let from = byte_of(subject, from);
    let at = subject.get(from..).and_then(|rest| rest.find(&**wanted));
    Ok(found(subject, at.map(|at| from + at)))
}

fn last_index_of(args: Args<'_, '_>, budget: &Budget) -> Out {
    let (subject, wanted) = (text(args, 0)?, text(args, 1)?);
    budget.pass(subject.len())?;
    let last = match whole(args, 2)? {
        Some(last) => byte_of(subject, position(last, subject.chars().count())?),
        None => subject.len(),
    };
    // A match that starts at or before `last` ends before this, on a character's boundary.
    let end = (last + wanted.len()).min(subject.len());
    let end = (0..=end).rev().find(|end| subject.is_char_boundary(*end)).unwrap_or(0);
    Ok(found(subject, subject.get(..end).and_then(|text| text.rfind(&**wanted))))
}

fn lower(args: Args<'_, '_>, budget: &Budget) -> Out {
    made(text(args, 0)?.to_ascii_lowercase(), budget)
}

fn upper(args: Args<'_, '_>, budget: &Budget) -> Out {
    made(text(args, 0)?.to_ascii_uppercase(), budget)
}

fn replace(args: Args<'_, '_>, budget: &Budget) -> Out {
    let (subject, old, new) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let most = whole(args, 3)?.unwrap_or(-1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    budget.pass(subject.len())?;
    let times = subject.matches(&**old).take(most).count();
    budget.bytes(subject.len().saturating_add(times.saturating_mul(new.len())))?;
    Ok(Value::Text(Arc::from(subject.replacen(&**old, new, most))))
}

fn split(args: Args<'_, '_>, budget: &Budget) -> Out {
    let (subject, separator) = (text(args, 0)?, text(args, 1)?);
    let most = match whole(args, 2)? {
        Some(0) => return Ok(Value::list(Vec::new())),
        Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    let mut parts: Vec<Value> = Vec::new();
    let mut rest: &str = subject;
    while parts.len() + 1 < most {
        // Without a separator every character is a part.
        let cut = if separator.is_empty() {
            rest.chars().next().map(|c| (c.len_utf8(), 0)).filter(|(at, _)| *at < rest.len())
        } else {
            rest.find(&**separator).map(|at| (at, separator.len()))
        };
        let Some((at, skip)) = cut else { break };
        let (Some(part), Some(tail)) = (rest.get(..at), rest.get(at + skip..)) else { break };
        budget.bytes(part.len() + size_of::<Value>() + 16)?;
        parts.push(Value::text(part));
        rest = tail;
    }
    if !(separator.is_empty() && rest.is_empty()) {
        budget.bytes(rest.len() + size_of::<Value>())?;
        parts.push(Value::text(rest));
    }
    Ok(Value::list(parts))
}

fn join(args: Args<'_, '_>, budget: &Budget) -> Out {
    let Some(Value::List(items)) = args.first().map(Cow::as_ref) else { return Err(Fault::Types) };
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut out = String::new();
    for (at, item) in items.iter().enumerate() {
        let Value::Text(part) = item else {
            return Err("only texts are joined: x.map(v, string(v)) makes them".into());
        };
        let between = if at > 0 { separator } else { "" };
        budget.bytes(between.len() + part.len())?;
        out.push_str(between);
        out.push_str(part);
    }
    Ok(Value::Text(Arc::from(out)))
}

fn substring(args: Args<'_, '_>, budget: &Budget) -> Out {
    let subject = text(args, 0)?;
    budget.pass(subject.len())?;
    let length = subject.chars().count();
    let start = position(whole(args, 1)?.ok_or(Fault::Types)?, length)?;
    let end = match whole(args, 2)? {
        Some(end) => position(end, length)?,
        None => length,
    };
    if start > end {
        return Err("the end is before the start".into());
    }
    made(subject.chars().skip(start).take(end - start).collect(), budget)
}

fn trim(args: Args<'_, '_>, budget: &Budget) -> Out {
    made(text(args, 0)?.trim().to_owned(), budget)
}

fn quote(args: Args<'_, '_>, budget: &Budget) -> Out {
    let mut out = String::from('"');
    for c in text(args, 0)?.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    made(out, budget)
}
