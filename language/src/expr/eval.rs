//! Evaluates nodes. Values are borrowed from the event and the row as long as nothing new is made.

use std::borrow::Cow;
use std::sync::Arc;

use foldline_api::budget::Exceeded;
use foldline_api::value::Value;
use smallvec::SmallVec;

use super::Env;
use super::error::EvalError;
use super::node::{Args, Fault, Loop, LoopKind, Node, Op, PathRef, Pattern, select};
use super::ops;

static NULL: Value = Value::Null;

type Got<'c> = Result<Cow<'c, Value>, EvalError>;

/// Everything a node may look at.
#[derive(Clone, Copy)]
struct Context<'c> {
    env: &'c Env<'c>,
    paths: &'c [PathRef],
    frame: Option<&'c Frame<'c>>,
}

/// The variable of one loop, and those around it.
struct Frame<'c> {
    value: &'c Value,
    outer: Option<&'c Frame<'c>>,
}

/// The value of `node`.
pub(super) fn eval(node: &Node, env: &Env<'_>, paths: &[PathRef]) -> Result<Value, EvalError> {
    node.eval(&Context { env, paths, frame: None }).map(Cow::into_owned)
}

/// The value of `node`, none where it is a path that leads nowhere.
pub(super) fn presence(
    node: &Node,
    env: &Env<'_>,
    paths: &[PathRef],
) -> Result<Option<Value>, EvalError> {
    let found = node.find(&Context { env, paths, frame: None })?;
    Ok(found.map(Cow::into_owned))
}

/// Whether `node` is a plain path.
pub(super) fn is_path(node: &Node) -> bool {
    match node {
        Node::Path(_)
        | Node::State(_)
        | Node::Key
        | Node::Header(_)
        | Node::Topic
        | Node::Partition
        | Node::Offset
        | Node::Timestamp
        | Node::Item
        | Node::Child => true,
        Node::Select(inner, _) => is_path(inner),
        Node::Index(pair) => is_path(&pair.0) && matches!(pair.1, Node::Const(_)),
        _ => false,
    }
}

/// The fault of an operation on `args`, with its name and their types.
pub(super) fn fault(name: &str, args: Args<'_, '_>, fault: Fault) -> EvalError {
    match fault {
        Fault::Types => {
            let types: Vec<&str> = args.iter().map(|arg| arg.type_name()).collect();
            EvalError::new(format!("`{name}` does not take ({})", types.join(", ")))
        }
        fault => failed(name, fault),
    }
}

/// The fault of an operation, with its name.
pub(super) fn failed(name: &str, fault: Fault) -> EvalError {
    match fault {
        Fault::Types => EvalError::new(format!("`{name}` does not take a value of this type")),
        Fault::Says(message) => EvalError::new(format!("`{name}`: {message}")),
        Fault::Unavailable(column) => EvalError {
            message: format!(
                "the column {column} was not sent: Debezium leaves out a large value that a change left as it was"
            ),
            unavailable: true,
        },
        Fault::NotInKey(column) => EvalError {
            message: format!(
                "{column} is not in the record's key, and of a deleted row nothing else is believed where its topic does not say \
                 replica_identity = \"full\""
            ),
            unavailable: true,
        },
    }
}

/// What an operation takes of the record's budget, with its name where that is too much.
fn spend(name: &str, taken: Result<(), Exceeded>) -> Result<(), EvalError> {
    taken.map_err(|limit| failed(name, limit.into()))
}

/// Reads `x[index]`: a text names a field, a whole number an item; where there is none, nothing.
fn index<'v>(value: &'v Value, index: &Value) -> Result<Option<&'v Value>, Fault> {
    if let Value::Text(name) = index {
        return Ok(select(value, name));
    }
    let at = ops::whole(index).ok_or(Fault::Types)?;
    match value {
        Value::List(items) => Ok(usize::try_from(at).ok().and_then(|at| items.get(at))),
        _ => Ok(None),
    }
}

/// Goes from a value to one inside it, borrowing where the outer one is borrowed.
fn within<'c, E>(
    outer: Cow<'c, Value>,
    step: impl Fn(&Value) -> Result<Option<&Value>, E>,
) -> Result<Option<Cow<'c, Value>>, E> {
    match outer {
        Cow::Borrowed(value) => step(value).map(|found| found.map(Cow::Borrowed)),
        Cow::Owned(value) => step(&value).map(|found| found.map(|v| Cow::Owned(v.clone()))),
    }
}

fn owned<'c>(value: Value) -> Cow<'c, Value> {
    Cow::Owned(value)
}

impl Node {
    /// The value, or none where this is a path that leads nowhere.
    fn find<'c>(&'c self, cx: &Context<'c>) -> Result<Option<Cow<'c, Value>>, EvalError> {
        match self {
            Node::Path(path) => match cx.paths.get(*path) {
                Some(path) => path
                    .read(cx.env.event)
                    .map(|found| found.map(Cow::Borrowed))
                    .map_err(|fault| failed("event", fault)),
                None => Ok(None),
            },
            Node::Item => Ok(cx.env.item.map(Cow::Borrowed)),
            Node::Child => Ok(cx.env.child.map(Cow::Borrowed)),
            Node::Header(name) => Ok(header(cx.env, name)?.map(owned)),
            Node::Select(outer, name) => match outer.find(cx)? {
                Some(outer) => within(outer, |value| Ok(select(value, name))),
                None => Ok(None),
            },
            Node::Index(pair) => {
                let outer = pair.0.find(cx)?.unwrap_or(Cow::Borrowed(&NULL));
                let at = pair.1.eval(cx)?;
                within(outer.clone(), |value| index(value, &at))
                    .map_err(|error| fault("[]", &[outer, at], error))
            }
            _ => self.eval(cx).map(Some),
        }
    }

    fn eval<'c>(&'c self, cx: &Context<'c>) -> Got<'c> {
        match self {
            Node::Const(value) => Ok(Cow::Borrowed(value)),
            Node::Path(_)
            | Node::Item
            | Node::Child
            | Node::Header(_)
            | Node::Select(..)
            | Node::Index(_) => Ok(self.find(cx)?.unwrap_or(Cow::Borrowed(&NULL))),
            Node::State(column) => Ok(Cow::Borrowed(cx.env.state.get(*column).unwrap_or(&NULL))),
            Node::Exists => Ok(owned(Value::Bool(cx.env.exists))),
            Node::Key => Ok(Cow::Borrowed(&cx.env.event.key)),
            Node::Headers => headers(cx.env).map(owned),
            Node::Topic => Ok(owned(Value::Text(Arc::clone(&cx.env.event.topic)))),
            Node::Partition => Ok(owned(Value::Int(cx.env.event.partition.into()))),
            Node::Offset => Ok(owned(Value::Int(cx.env.event.offset))),
            Node::Timestamp => super::timestamp(cx.env.event).map(owned),
            Node::Local(depth) => Ok(Cow::Borrowed(local(cx, *depth))),
            Node::Has(path) => path.has(cx).map(|has| owned(Value::Bool(has))),
            Node::Not(operand) => operand.not(cx),
            Node::Negate(operand) => operand.negate(cx),
            Node::And(pair) => both(cx, "&&", pair, false),
            Node::Or(pair) => both(cx, "||", pair, true),
            Node::Ternary(parts) => match parts.0.eval(cx)?.as_ref() {
                Value::Bool(true) => parts.1.eval(cx),
                Value::Bool(false) => parts.2.eval(cx),
                other => Err(not_bool("? :", other)),
            },
            Node::Binary(op, pair) => binary(cx, *op, pair),
            Node::List(items) => list(cx, items),
            Node::Map(entries) => map(cx, entries),
            Node::Loop(each) => each.eval(cx).map(owned),
            Node::Coalesce(choices) => coalesce(cx, choices),
            Node::Matches(text, pattern) => matches(cx, text, pattern),
            Node::Call(function, nodes) => {
                let mut args: SmallVec<[Cow<'c, Value>; 3]> = SmallVec::new();
                for node in nodes {
                    args.push(node.eval(cx)?);
                }
                let result = (function.run)(&args, cx.env.budget);
                result.map(owned).map_err(|error| fault(function.name, &args, error))
            }
        }
    }

    /// Whether the path leads somewhere. A column and a child's field are always there, so for them it
    /// is whether they are filled.
    fn has(&self, cx: &Context<'_>) -> Result<bool, EvalError> {
        let filled = match self {
            Node::State(_) => true,
            Node::Select(outer, _) => matches!(**outer, Node::Child),
            Node::Header(name) => {
                return Ok(cx.env.event.headers.iter().any(|header| header.0 == *name));
            }
            _ => false,
        };
        let found = match self.find(cx) {
            Err(error) if error.unavailable => return Ok(false),
            found => found?,
        };
        Ok(found.is_some_and(|value| !filled || !value.is_null()))
    }

    fn not<'c>(&'c self, cx: &Context<'c>) -> Got<'c> {
        match self.eval(cx)?.as_ref() {
            Value::Bool(bool) => Ok(owned(Value::Bool(!bool))),
            other => Err(not_bool("!", other)),
        }
    }

    fn negate<'c>(&'c self, cx: &Context<'c>) -> Got<'c> {
        let operand = self.eval(cx)?;
        ops::negate(&operand).map(owned).map_err(|error| fault("-", &[operand], error))
    }
}

fn not_bool(name: &str, value: &Value) -> EvalError {
    EvalError::new(format!("`{name}` is for true and false, not {}", value.type_name()))
}

fn local<'c>(cx: &Context<'c>, depth: usize) -> &'c Value {
    let mut frame = cx.frame;
    for _ in 0..depth {
        frame = frame.and_then(|frame| frame.outer);
    }
    frame.map_or(&NULL, |frame| frame.value)
}

/// `&&` and `||`: the `decisive` side decides even where the other fails, whichever comes first.
fn both<'c>(cx: &Context<'c>, name: &str, pair: &'c (Node, Node), decisive: bool) -> Got<'c> {
    let side = |node: &'c Node| match node.eval(cx)?.as_ref() {
        Value::Bool(bool) => Ok(*bool),
        other => Err(not_bool(name, other)),
    };
    let left = side(&pair.0);
    if matches!(left, Ok(bool) if bool == decisive) {
        return Ok(owned(Value::Bool(decisive)));
    }
    let right = side(&pair.1);
    if matches!(right, Ok(bool) if bool == decisive) {
        return Ok(owned(Value::Bool(decisive)));
    }
    left.and(right).map(|_| owned(Value::Bool(!decisive)))
}

fn binary<'c>(cx: &Context<'c>, op: Op, pair: &'c (Node, Node)) -> Got<'c> {
    let left = pair.0.eval(cx)?;
    let right = pair.1.eval(cx)?;
    match ops::binary(op, &left, &right, cx.env.budget) {
        Ok(value) => Ok(owned(value)),
        Err(error) => Err(fault(op.symbol(), &[left, right], error)),
    }
}

fn list<'c>(cx: &Context<'c>, nodes: &'c [Node]) -> Got<'c> {
    spend("[]", cx.env.budget.list(nodes.len()))?;
    let items: Result<Vec<Value>, EvalError> =
        nodes.iter().map(|node| node.eval(cx).map(Cow::into_owned)).collect();
    items.map(|items| owned(Value::list(items)))
}

fn map<'c>(cx: &Context<'c>, nodes: &'c [(Node, Node)]) -> Got<'c> {
    spend("{}", cx.env.budget.list(nodes.len().saturating_mul(2)))?;
    let mut entries = Vec::with_capacity(nodes.len());
    for (key, value) in nodes {
        let key = match key.eval(cx)?.into_owned() {
            Value::Text(key) => key,
            other => {
                let found = other.type_name();
                return Err(EvalError::new(format!("`{{}}`: a key is a text, not {found}")));
            }
        };
        if entries.iter().any(|(known, _)| *known == key) {
            return Err(EvalError::new("`{}`: the same key twice"));
        }
        entries.push((key, value.eval(cx)?.into_owned()));
    }
    Ok(owned(Value::map(entries)))
}

fn coalesce<'c>(cx: &Context<'c>, choices: &'c [Node]) -> Got<'c> {
    for choice in choices {
        let value = choice.eval(cx)?;
        if !value.is_null() {
            return Ok(value);
        }
    }
    Ok(Cow::Borrowed(&NULL))
}

fn matches<'c>(cx: &Context<'c>, text: &'c Node, pattern: &Pattern) -> Got<'c> {
    match text.eval(cx)?.as_ref() {
        Value::Text(text) => {
            spend("matches", cx.env.budget.search(pattern.states, text.len()))?;
            Ok(owned(Value::Bool(pattern.regex.is_match(text))))
        }
        other => Err(EvalError::new(format!("`matches` is for texts, not {}", other.type_name()))),
    }
}

/// The last header of that name, as text; null where it is not UTF-8.
fn header(env: &Env<'_>, name: &str) -> Result<Option<Value>, EvalError> {
    spend("headers", env.budget.items(env.event.headers.len()))?;
    let found = env.event.headers.iter().rev().find(|header| &*header.0 == name);
    found.map(|(_, bytes)| header_text(env, bytes.as_deref())).transpose()
}

fn header_text(env: &Env<'_>, bytes: Option<&[u8]>) -> Result<Value, EvalError> {
    spend("headers", env.budget.bytes(bytes.map_or(0, <[u8]>::len)))?;
    let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    Ok(text.map_or(Value::Null, Value::text))
}

fn headers(env: &Env<'_>) -> Result<Value, EvalError> {
    spend("headers", env.budget.list(env.event.headers.len().saturating_mul(2)))?;
    let entry = |(name, bytes): &(Arc<str>, Option<bytes::Bytes>)| {
        Ok::<_, EvalError>((Arc::clone(name), header_text(env, bytes.as_deref())?))
    };
    // Of a name given twice the map keeps the last.
    let entries: Result<Vec<_>, EvalError> = env.event.headers.iter().map(entry).collect();
    entries.map(Value::map)
}

impl Loop {
    fn eval(&self, cx: &Context<'_>) -> Result<Value, EvalError> {
        let range = self.range.eval(cx)?;
        let keys: Vec<Value>;
        let items: &[Value] = match range.as_ref() {
            Value::List(items) => items,
            Value::Map(map) => {
                spend(self.kind.name(), cx.env.budget.list(map.len()))?;
                keys = map.iter().map(|(key, _)| Value::Text(Arc::clone(key))).collect();
                &keys
            }
            other => {
                let (name, found) = (self.kind.name(), other.type_name());
                return Err(EvalError::new(format!(
                    "`{name}` is for lists and objects, not {found}"
                )));
            }
        };
        match self.kind {
            LoopKind::All => self.decide(cx, items, false),
            LoopKind::Exists => self.decide(cx, items, true),
            LoopKind::ExistsOne => self.count(cx, items),
            LoopKind::Map | LoopKind::Filter => self.collect(cx, items),
            LoopKind::SortBy => self.sort(cx, items),
        }
    }

    fn failed(&self, fault: Fault) -> EvalError {
        failed(self.kind.name(), fault)
    }

    /// The value of `node` with `item` as the loop's variable.
    fn with(&self, cx: &Context<'_>, node: &Node, item: &Value) -> Result<Value, EvalError> {
        spend(self.kind.name(), cx.env.budget.steps(1))?;
        let frame = Frame { value: item, outer: cx.frame };
        let inner = Context { env: cx.env, paths: cx.paths, frame: Some(&frame) };
        node.eval(&inner).map(Cow::into_owned)
    }

    fn test(&self, cx: &Context<'_>, node: &Node, item: &Value) -> Result<bool, EvalError> {
        match self.with(cx, node, item)? {
            Value::Bool(bool) => Ok(bool),
            other => Err(not_bool(self.kind.name(), &other)),
        }
    }

    /// `all` and `exists`: one decisive item decides, whatever failed before it.
    fn decide(
        &self,
        cx: &Context<'_>,
        items: &[Value],
        decisive: bool,
    ) -> Result<Value, EvalError> {
        let mut first_error = None;
        for item in items {
            match self.test(cx, &self.body, item) {
                Ok(bool) if bool == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(error) => {
                    first_error.get_or_insert(error);
                    // Out of steps stays out of steps: the rest would fail the same way.
                    spend(self.kind.name(), cx.env.budget.kept())?;
                }
            }
        }
        first_error.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn count(&self, cx: &Context<'_>, items: &[Value]) -> Result<Value, EvalError> {
        let mut count = 0usize;
        for item in items {
            count += usize::from(self.test(cx, &self.body, item)?);
        }
        Ok(Value::Bool(count == 1))
    }

    fn collect(&self, cx: &Context<'_>, items: &[Value]) -> Result<Value, EvalError> {
        let mut out = Vec::new();
        for item in items {
            if let Some(when) = &self.when
                && !self.test(cx, when, item)?
            {
                continue;
            }
            let value = match self.kind {
                LoopKind::Filter if !self.test(cx, &self.body, item)? => continue,
                LoopKind::Filter => item.clone(),
                _ => self.with(cx, &self.body, item)?,
            };
            spend(self.kind.name(), cx.env.budget.list(1))?;
            out.push(value);
        }
        Ok(Value::list(out))
    }

    fn sort(&self, cx: &Context<'_>, items: &[Value]) -> Result<Value, EvalError> {
        spend(self.kind.name(), cx.env.budget.list(items.len()))?;
        let mut keyed = Vec::with_capacity(items.len());
        for item in items {
            let key = self.with(cx, &self.body, item)?;
            spend(self.kind.name(), ops::sorting(&key, items.len(), cx.env.budget))?;
            keyed.push((key, item.clone()));
        }
        let sorted = ops::sorted(keyed).map_err(|fault| self.failed(fault))?;
        Ok(Value::list(sorted))
    }
}
