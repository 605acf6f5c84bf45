//! What an expression compiles to.

use std::borrow::Cow;
use std::sync::Arc;

use foldline_api::budget::{Budget, Exceeded};
use foldline_api::value::Value;
use regex::Regex;

use crate::event::{Event, Layout, Root};

/// One operation. Names are resolved: an event path is a number into the expression's paths, a column
/// its index, a loop's variable how many loops lie between.
pub(super) enum Node {
    Const(Value),
    Path(usize),
    State(usize),
    Exists,
    Key,
    Header(Arc<str>),
    Headers,
    Topic,
    Partition,
    Offset,
    Timestamp,
    Item,
    Child,
    Local(usize),
    Select(Box<Node>, Arc<str>),
    Index(Box<(Node, Node)>),
    /// Whether the path within leads somewhere.
    Has(Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    Ternary(Box<(Node, Node, Node)>),
    Binary(Op, Box<(Node, Node)>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Loop(Box<Loop>),
    Coalesce(Vec<Node>),
    Matches(Box<Node>, Box<Pattern>),
    Call(&'static Function, Vec<Node>),
}

/// A regular expression, and how many states it may be in at once: what a search may cost for each byte.
pub(super) struct Pattern {
    pub(super) regex: Regex,
    pub(super) states: usize,
}

/// A macro that goes through a list, or through the keys of an object.
pub(super) struct Loop {
    pub(super) kind: LoopKind,
    pub(super) range: Node,
    /// What an item must meet first (`map` with three arguments).
    pub(super) when: Option<Node>,
    pub(super) body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    SortBy,
}

impl LoopKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            LoopKind::All => "all",
            LoopKind::Exists => "exists",
            LoopKind::ExistsOne => "exists_one",
            LoopKind::Map => "map",
            LoopKind::Filter => "filter",
            LoopKind::SortBy => "sortBy",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Op {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Op::Add => "+",
            Op::Subtract => "-",
            Op::Multiply => "*",
            Op::Divide => "/",
            Op::Remainder => "%",
            Op::Equal => "==",
            Op::NotEqual => "!=",
            Op::Less => "<",
            Op::LessOrEqual => "<=",
            Op::Greater => ">",
            Op::GreaterOrEqual => ">=",
            Op::In => "in",
        }
    }
}

/// Arguments of a function, the receiver first.
pub(super) type Args<'a, 'v> = &'a [Cow<'v, Value>];
/// What a function or an operator yields.
pub(super) type Out = Result<Value, Fault>;

/// Why there is no result; the caller adds the operation's name.
pub(super) enum Fault {
    /// Not for arguments of these types.
    Types,
    /// What else is wrong.
    Says(Cow<'static, str>),
    /// It reads this column, which the source could not send.
    Unavailable(Arc<str>),
    /// It reads this column of a deleted row, of which only the record's key is known.
    NotInKey(Arc<str>),
}

impl From<&'static str> for Fault {
    fn from(message: &'static str) -> Self {
        Fault::Says(Cow::Borrowed(message))
    }
}

impl From<Exceeded> for Fault {
    fn from(limit: Exceeded) -> Self {
        Fault::Says(Cow::Owned(limit.to_string()))
    }
}

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `f(x)`.
    Global,
    /// `x.f()`.
    Member,
    /// Both.
    Either,
}

/// Looks at arguments, of which only those are there that are known when compiling.
pub(super) type Check = fn(&[Option<&Value>]) -> Result<(), Fault>;

/// A function of the language.
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// How many arguments, the receiver counted: at least and at most.
    pub(super) takes: (usize, usize),
    pub(super) run: fn(Args<'_, '_>, &Budget) -> Out,
    pub(super) check: Option<Check>,
}

impl Function {
    pub(super) const fn new(
        name: &'static str,
        form: Form,
        takes: (usize, usize),
        run: fn(Args<'_, '_>, &Budget) -> Out,
    ) -> Self {
        Function { name, form, takes, run, check: None }
    }

    pub(super) const fn checked(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }
}

/// A path below `event` or `envelope`, and where the event's masks keep it.
#[derive(Clone, Debug)]
pub(super) struct PathRef {
    pub(super) root: Root,
    pub(super) names: Vec<Arc<str>>,
    at: Option<(usize, usize)>,
}

impl PathRef {
    pub(super) fn new(root: Root, names: Vec<Arc<str>>) -> Self {
        PathRef { root, names, at: None }
    }

    pub(super) fn link(&mut self, layout: &Layout) {
        self.at = layout.mask(self.root).locate(&self.names);
    }

    /// Whether it cannot be read of an event that lacks what the source could not send.
    pub(super) fn is_lacking(&self, event: &Event) -> bool {
        !self.names.is_empty()
            && matches!(self.read(event), Err(Fault::Unavailable(_) | Fault::NotInKey(_)))
    }

    /// The column that it needs and the source could not send. Who reads the whole event needs all.
    fn unavailable<'e>(&self, event: &'e Event) -> Option<&'e Arc<str>> {
        match (self.root, self.names.first()) {
            (Root::Envelope, _) => None,
            (Root::Event, None) => event.unavailable.first(),
            (Root::Event, Some(name)) => event.unavailable.iter().find(|column| *column == name),
        }
    }

    /// The value at the path; none where it leads nowhere.
    pub(super) fn read<'e>(&self, event: &'e Event) -> Result<Option<&'e Value>, Fault> {
        let (slot, depth) = self.at.ok_or("the event's paths are not linked")?;
        if !event.unavailable.is_empty()
            && let Some(column) = self.unavailable(event)
        {
            return Err(Fault::Unavailable(Arc::clone(column)));
        }
        let Some(mut value) = event.slots.get(slot).and_then(Option::as_ref) else {
            return self.nowhere(event);
        };
        for name in self.names.get(depth..).unwrap_or_default() {
            match select(value, name) {
                Some(inner) => value = inner,
                None => return self.nowhere(event),
            }
        }
        Ok(Some(value))
    }

    /// A path that leads nowhere is absent, unless there is nothing that could have paths: read as an
    /// object without fields, a text or a list would empty the row.
    fn nowhere<'e>(&self, event: &'e Event) -> Result<Option<&'e Value>, Fault> {
        if let (true, Root::Event, Some(column)) = (event.of_key, self.root, self.names.first()) {
            return Err(Fault::NotInKey(Arc::clone(column)));
        }
        match event.no_object {
            Some(found) if !self.names.is_empty() => {
                Err(Fault::Says(format!("the value is {found}, not an object").into()))
            }
            _ => Ok(None),
        }
    }
}

/// The field `name` of an object; nothing else has fields, so a path through it leads nowhere.
pub(super) fn select<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Map(map) => map.get(name),
        _ => None,
    }
}
