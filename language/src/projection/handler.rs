//! What a handler is made of, its expressions compiled.

use std::sync::Arc;

use foldline_api::column::{Children, ColumnType};
use foldline_api::value::Value;

use super::matcher::Matcher;
use crate::event::Layout;
use crate::expr::Expr;
use hashbrown::HashMap;

/// The event that a null value is.
pub(super) const TOMBSTONE: &str = "tombstone";
/// The event of a row that its source deleted.
pub(super) const DELETE: &str = "delete";

/// One compiled `[[projections.NAME.on]]`.
#[derive(Debug)]
pub(super) struct Handler {
    /// What messages call it: `on[0] (OrderPlaced, OrderChanged)`.
    pub(super) label: String,
    pub(super) topic: Option<Matcher>,
    pub(super) event: Option<Matcher>,
    pub(super) when: Option<Expr>,
    /// Its own key, in the order of the model's key.
    pub(super) key: Option<Vec<Expr>>,
    pub(super) for_each: Option<Expr>,
    pub(super) effect: Effect,
    pub(super) continues: bool,
    /// Whether what it writes depends on the row as it was.
    pub(super) reads_state: bool,
}

/// What a handler does where it applies.
#[derive(Debug)]
pub(super) enum Effect {
    /// Changes the row, and makes it if there is none.
    Write(Vec<Action>),
    /// Deletes the row.
    Delete,
    /// Filters the event.
    Ignore,
}

/// What a handler does to one column.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) column: usize,
    pub(super) ty: ColumnType,
    /// What messages call it: `on[0].set.price`.
    pub(super) place: String,
    pub(super) op: Op,
}

/// The verb, with its operand.
#[derive(Debug)]
pub(super) enum Op {
    Set(Operand),
    Merge(Operand),
    Patch(Operand),
    Add(Operand),
    Min(Operand),
    Max(Operand),
    Append(Operand),
    Remove(Operand),
    Put(Box<Put>),
    Take(Operand, Arc<Children>),
}

/// An operand; a constant is of its column's type already.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) expr: Expr,
    pub(super) constant: Option<Value>,
}

/// `put`: the child's key, and what is set of it.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) children: Arc<Children>,
    /// The one expression that stands for all fields, to tell what it is where it has no key.
    pub(super) whole: Option<Expr>,
    pub(super) by: Operand,
    pub(super) by_type: ColumnType,
    pub(super) fields: Vec<(Arc<str>, ColumnType, Operand)>,
    /// A child that was not there: all fields, null or default.
    pub(super) blank: Value,
}

impl Op {
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Op::Set(_) => "set",
            Op::Merge(_) => "merge",
            Op::Patch(_) => "patch",
            Op::Add(_) => "add",
            Op::Min(_) => "min",
            Op::Max(_) => "max",
            Op::Append(_) => "append",
            Op::Remove(_) => "remove",
            Op::Put(_) => "put",
            Op::Take(..) => "take",
        }
    }

    pub(super) fn operands(&self) -> Vec<&Operand> {
        match self {
            Op::Set(operand)
            | Op::Merge(operand)
            | Op::Patch(operand)
            | Op::Add(operand)
            | Op::Min(operand)
            | Op::Max(operand)
            | Op::Append(operand)
            | Op::Remove(operand)
            | Op::Take(operand, _) => vec![operand],
            Op::Put(put) => {
                std::iter::once(&put.by).chain(put.fields.iter().map(|(_, _, o)| o)).collect()
            }
        }
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        match self {
            Op::Set(operand)
            | Op::Merge(operand)
            | Op::Patch(operand)
            | Op::Add(operand)
            | Op::Min(operand)
            | Op::Max(operand)
            | Op::Append(operand)
            | Op::Remove(operand)
            | Op::Take(operand, _) => vec![operand],
            Op::Put(put) => std::iter::once(&mut put.by)
                .chain(put.fields.iter_mut().map(|(_, _, o)| o))
                .collect(),
        }
    }

    /// Whether the outcome depends on what the field held.
    pub(super) fn builds_on_state(&self) -> bool {
        !matches!(self, Op::Set(_) | Op::Merge(_) | Op::Patch(_))
    }
}

impl Handler {
    pub(super) fn actions(&self) -> &[Action] {
        match &self.effect {
            Effect::Write(actions) => actions,
            Effect::Delete | Effect::Ignore => &[],
        }
    }

    /// All its expressions: `when`, `for_each`, its own key, then what it does.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let own = self.key.iter().flatten();
        let operands = self.actions().iter().flat_map(|action| action.op.operands());
        self.when.iter().chain(&self.for_each).chain(own).chain(operands.map(|o| &o.expr))
    }

    pub(super) fn link(&mut self, layout: &Layout) {
        let own = self.key.iter_mut().flatten();
        for expr in self.when.iter_mut().chain(&mut self.for_each).chain(own) {
            expr.link(layout);
        }
        if let Effect::Write(actions) = &mut self.effect {
            for action in &mut *actions {
                if let Op::Put(put) = &mut action.op
                    && let Some(whole) = &mut put.whole
                {
                    whole.link(layout);
                }
            }
            for operand in actions.iter_mut().flat_map(|action| action.op.operands_mut()) {
                operand.expr.link(layout);
            }
        }
    }

    pub(super) fn hears_topic(&self, topic: &str) -> bool {
        self.topic.as_ref().is_none_or(|topics| topics.is_match(topic))
    }

    /// Whether it says `name` itself. A regex does not, whatever it matches: one that is
    /// meant for all events would swallow deletes.
    fn names(&self, name: &str) -> bool {
        let names = self.event.as_ref().map_or(&[][..], Matcher::names);
        names.iter().any(|known| **known == *name)
    }
}

/// Which handlers may hear an event of some name, as indexes in config order.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    /// For each name that some list has.
    by_name: HashMap<Arc<str>, Box<[u32]>>,
    /// For other names: handlers without `event`, and those with a regex, still to be matched.
    other: Box<[u32]>,
    /// For events without a name.
    nameless: Box<[u32]>,
    /// For each name that some list has: those whose list it is.
    by_list: HashMap<Arc<str>, Box<[u32]>>,
    /// Whether some handler names topics: then a tombstone may mean another row.
    pub(super) names_topics: bool,
}

impl Dispatch {
    pub(super) fn new(handlers: &[Handler]) -> Self {
        let pick = |wanted: &dyn Fn(&Handler) -> bool| -> Box<[u32]> {
            (0u32..).zip(handlers).filter(|(_, h)| wanted(h)).map(|(at, _)| at).collect()
        };
        let (mut by_name, mut by_list) = (HashMap::default(), HashMap::default());
        for name in handlers.iter().flat_map(|h| h.event.as_ref().map_or(&[][..], Matcher::names)) {
            by_name.entry(Arc::clone(name)).or_insert_with(|| {
                pick(&|handler| handler.event.as_ref().is_none_or(|event| event.is_match(name)))
            });
            by_list.entry(Arc::clone(name)).or_insert_with(|| pick(&|handler| handler.names(name)));
        }
        Dispatch {
            by_name,
            other: pick(&|handler| !matches!(handler.event, Some(Matcher::List(_)))),
            nameless: pick(&|handler| handler.event.is_none()),
            by_list,
            names_topics: handlers.iter().any(|handler| handler.topic.is_some()),
        }
    }

    /// The handlers that say this name themselves.
    pub(super) fn listing(&self, name: &str) -> &[u32] {
        self.by_list.get(name).map_or(&[], |handlers| handlers)
    }

    /// Candidates for an event's name, and whether their regexes are still to be asked.
    pub(super) fn candidates(&self, name: Option<&str>) -> (&[u32], bool) {
        match name {
            None => (&self.nameless, false),
            Some(name) => match self.by_name.get(name) {
                Some(known) => (known, false),
                None => (&self.other, true),
            },
        }
    }
}

impl Action {
    /// What messages call it: its place, and its expression where there is one.
    pub(super) fn named(&self) -> String {
        let sources: Vec<&str> =
            self.op.operands().iter().map(|operand| operand.expr.source()).collect();
        format!("{} ({}):", self.place, sources.join(", "))
    }
}
