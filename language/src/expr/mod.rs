//! Expressions: CEL over [`Value`], with exact numbers and with null where a path leads nowhere.
//!
//! The parser is the `cel` crate's; the evaluator is ours, since CEL's own refuses to mix kinds of
//! numbers and fails on a path that is absent. In reading order: `scan`, `compile`, `names` and
//! `explain` (text to nodes, or to an error), `node`, `eval`, `ops` (operators) and `functions`.

mod compile;
#[cfg(test)]
mod conformance;
mod error;
mod eval;
mod explain;
mod filter;
mod functions;
mod names;
mod node;
mod ops;
mod scan;
#[cfg(test)]
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::column::ColumnType;
use foldline_api::json;
use foldline_api::time::Timestamp;
use foldline_api::value::Value;

use crate::config::projection::Envelope;
use crate::event::{Event, Layout, PathSet, Root};

pub use error::{EvalError, ExprError};
pub use filter::filter;
use node::{Node, PathRef};

/// Which variables an expression may read where it stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// The columns of `state`, in the order of its values.
    pub columns: &'a [(Arc<str>, ColumnType)],
    /// Whether `state` and `exists` may be read.
    pub state: bool,
    /// Whether names are columns, and nothing else has one.
    pub fields: bool,
    /// Whether `item` may be read.
    pub item: bool,
    /// The fields of `child`, where it may be read.
    pub child: Option<&'a [Arc<str>]>,
    /// Whether `event` and the record's coordinates may be read.
    pub event: bool,
    /// What `envelope` is, where it may be read.
    pub envelope: Option<Envelope>,
}

/// What an expression is evaluated over.
#[derive(Clone, Copy, Debug)]
pub struct Env<'a> {
    /// The event, its slots filled by the mask that the expression was linked to.
    pub event: &'a Event,
    /// The row, a value per column.
    pub state: &'a [Value],
    /// Whether there was a row before this event.
    pub exists: bool,
    /// The item of `for_each`.
    pub item: Option<&'a Value>,
    /// The child that is put, an object; none where there is none yet.
    pub child: Option<&'a Value>,
    /// What the record may still cost.
    pub budget: &'a Budget,
}

/// A compiled expression. Cheap to clone.
#[derive(Clone)]
pub struct Expr {
    source: Arc<str>,
    form: Form,
    paths: Vec<PathRef>,
    reads: Reads,
}

/// The frequent expressions need no tree.
#[derive(Clone)]
enum Form {
    Constant(Value),
    /// The first of the expression's paths.
    Path,
    State(usize),
    Key,
    Timestamp,
    Tree(Arc<Node>),
}

/// What an expression looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reads {
    record: bool,
    key: bool,
    exists: bool,
    item: bool,
    child: bool,
    columns: Vec<usize>,
}

impl Expr {
    /// Compiles `source` and names the event paths it reads in `paths`. Before it is evaluated, the
    /// expression must be [linked](Expr::link) to the layout of the finished paths.
    ///
    /// # Errors
    /// When it is no CEL, names what is not there or may not be read here, or cannot ever work.
    pub fn compile(
        source: &str,
        scope: &Scope<'_>,
        paths: &mut PathSet,
    ) -> Result<Expr, ExprError> {
        let compiled = compile::compile(source, scope)?;
        for path in &compiled.paths {
            paths.insert_of(path.root, &path.names);
        }
        if compiled.reads.key {
            paths.note_key();
        }
        let form = match compiled.node {
            Node::Const(value) => Form::Constant(value),
            Node::Path(0) => Form::Path,
            Node::State(column) => Form::State(column),
            Node::Key => Form::Key,
            Node::Timestamp => Form::Timestamp,
            node => Form::Tree(Arc::new(node)),
        };
        let source = Arc::from(source);
        Ok(Expr { source, form, paths: compiled.paths, reads: compiled.reads })
    }

    /// The expression that is always `value`.
    #[must_use]
    pub fn constant(value: Value) -> Expr {
        let source = Arc::from(json::to_string(&value));
        Expr { source, form: Form::Constant(value), paths: Vec::new(), reads: Reads::default() }
    }

    /// The event's field `name`, however it is spelled.
    #[must_use]
    pub fn path_of_event(name: &str, paths: &mut PathSet) -> Expr {
        let names = vec![Arc::from(name)];
        paths.insert(&names);
        Expr {
            source: Arc::from(spelled(&names)),
            form: Form::Path,
            paths: vec![PathRef::new(Root::Event, names)],
            reads: Reads::default(),
        }
    }

    /// Fixes where in an event the expression's paths are found. Call it when every expression of the
    /// projection is compiled, and again if the layout changes.
    pub fn link(&mut self, layout: &Layout) {
        for path in &mut self.paths {
            path.link(layout);
        }
    }

    /// The expression's value.
    ///
    /// # Errors
    /// When an operation has no result; the record is bad then.
    pub fn eval(&self, env: &Env<'_>) -> Result<Value, EvalError> {
        match &self.form {
            Form::Constant(value) => Ok(value.clone()),
            Form::Path => self.path(env).map(Option::unwrap_or_default),
            Form::State(column) => Ok(env.state.get(*column).cloned().unwrap_or_default()),
            Form::Key => Ok(env.event.key.clone()),
            Form::Timestamp => timestamp(env.event),
            Form::Tree(node) => eval::eval(node, env, &self.paths),
        }
    }

    /// The expression's value, none where it is a plain path that is absent; for `patch`, which tells
    /// absent from null.
    ///
    /// # Errors
    /// As [`Expr::eval`].
    pub fn eval_presence(&self, env: &Env<'_>) -> Result<Option<Value>, EvalError> {
        match &self.form {
            Form::Path => self.path(env),
            Form::Tree(node) => eval::presence(node, env, &self.paths),
            _ => self.eval(env).map(Some),
        }
    }

    fn path(&self, env: &Env<'_>) -> Result<Option<Value>, EvalError> {
        let found = self.paths.first().map(|path| path.read(env.event)).transpose();
        found.map(|value| value.flatten().cloned()).map_err(|fault| eval::failed("event", fault))
    }

    /// What `when` says: true or false.
    ///
    /// # Errors
    /// Null, and what is no boolean: the record is bad then.
    pub fn as_bool(value: &Value) -> Result<bool, EvalError> {
        match value {
            Value::Bool(bool) => Ok(*bool),
            other => Err(EvalError::new(format!(
                "a condition must be true or false, not {}",
                other.type_name()
            ))),
        }
    }

    /// Whether it reads the row: a column or `exists`.
    #[must_use]
    pub fn reads_state(&self) -> bool {
        self.reads.exists || !self.reads.columns.is_empty()
    }

    /// Whether it reads `exists`.
    #[must_use]
    pub fn reads_exists(&self) -> bool {
        self.reads.exists
    }

    /// Whether it reads the record's value: `event` or `envelope`.
    #[must_use]
    pub fn reads_event(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether it reads the record beside its value: key, headers, topic, partition, offset or
    /// timestamp.
    #[must_use]
    pub fn reads_record(&self) -> bool {
        self.reads.record
    }

    /// Whether it reads `item`.
    #[must_use]
    pub fn reads_item(&self) -> bool {
        self.reads.item
    }

    /// Whether it reads `child`.
    #[must_use]
    pub fn reads_child(&self) -> bool {
        self.reads.child
    }

    /// The columns of `state` that it reads, by index, sorted.
    #[must_use]
    pub fn columns_read(&self) -> Vec<usize> {
        self.reads.columns.clone()
    }

    /// The event paths that it reads, as an expression spells them: `event.a.b`, `event['ship-to']`.
    #[must_use]
    pub fn event_paths(&self) -> Vec<String> {
        self.event_path_names().map(spelled).collect()
    }

    /// The event paths that it reads, name by name.
    pub fn event_path_names(&self) -> impl Iterator<Item = &[Arc<str>]> {
        let of_event = self.paths.iter().filter(|path| path.root == Root::Event);
        of_event.map(|path| path.names.as_slice())
    }

    /// Whether it reads what Debezium says of the row before the change.
    #[must_use]
    pub fn reads_before(&self) -> bool {
        let before = |path: &PathRef| path.names.first().is_some_and(|name| **name == *"before");
        self.paths.iter().any(|path| path.root == Root::Envelope && before(path))
    }

    /// Whether all that it reads are columns that the source could not send: what it made of them when they were
    /// sent still stands.
    #[must_use]
    pub fn is_unavailable(&self, event: &Event) -> bool {
        let Reads { record, key: _, exists, item, child, columns } = &self.reads;
        let alone = !(*record || *exists || *item || *child) && columns.is_empty();
        alone && !self.paths.is_empty() && self.paths.iter().all(|path| path.is_lacking(event))
    }

    /// Whether it is a plain path, which [`Expr::eval_presence`] can find absent or which names one
    /// value as it is: `event.a.b`, `item.a`, `state.total`, `key`.
    #[must_use]
    pub fn is_path(&self) -> bool {
        match &self.form {
            Form::Constant(_) => false,
            Form::Path | Form::State(_) | Form::Key | Form::Timestamp => true,
            Form::Tree(node) => eval::is_path(node),
        }
    }

    /// Whether it is `key` itself: what goes by it goes where the record's partition goes.
    #[must_use]
    pub fn is_record_key(&self) -> bool {
        matches!(self.form, Form::Key)
    }

    /// The expression as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its value, where it is always the same.
    #[must_use]
    pub fn constant_value(&self) -> Option<&Value> {
        match &self.form {
            Form::Constant(value) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expr").field(&self.source).finish()
    }
}

fn spelled(names: &[Arc<str>]) -> String {
    names.iter().fold("event".to_owned(), |path, name| path + &error::member(name))
}

/// The record's timestamp; null where the log has none. One that no moment has is no null: its producer wrote
/// it in another unit, microseconds mostly.
fn timestamp(event: &Event) -> Result<Value, EvalError> {
    let Some(millis) = event.timestamp else { return Ok(Value::Null) };
    Timestamp::from_millis(millis).map(Value::Timestamp).ok_or_else(|| {
        EvalError::new(
            "the record's timestamp is outside the years 1 to 9999: Kafka's are milliseconds, so its producer \
             may have written microseconds",
        )
    })
}
