//! Compiles handlers: what each does, to which columns, with which operands.

use std::sync::Arc;

use foldline_api::column::{Children, ColumnType};
use foldline_api::model::Model;
use foldline_api::value::Value;
use indexmap::IndexMap;

use super::compile::{Compiler, Reads};
use super::handler::{Action, Effect, Handler, Op, Operand as Typed, Put};
use crate::config::projection::{Assignments, HandlerConfig, Located, Names, Operand};
use crate::expr::Expr;

type Operands = IndexMap<String, Located<Operand>>;

/// A verb that takes one operand.
type Verb = fn(Typed) -> Op;

/// The actions of one handler under way, and the columns that are taken.
struct Actions<'m> {
    model: &'m Model,
    reads: Reads<'static>,
    actions: Vec<Action>,
}

impl Compiler<'_> {
    pub(super) fn handler(
        &mut self,
        at: usize,
        on: &Located<HandlerConfig>,
        model: &Model,
    ) -> Option<Handler> {
        let config = &on.value;
        let base: Reads<'static> = Reads { item: config.for_each.is_some(), ..Reads::EVENT };
        let topic = config.topic.as_ref().and_then(|n| self.matcher(&format!("on[{at}].topic"), n));
        let event = config.event.as_ref().and_then(|n| self.matcher(&format!("on[{at}].event"), n));
        let reads = Reads { state: true, ..base };
        let when = config.when.as_ref().map(|when| self.condition(when, reads));
        let key = config.key.as_ref().map(|key| self.key(key, model, base));
        let for_each = config.for_each.as_ref().map(|list| self.expr(list, Reads::EVENT));
        let effect = self.effect(on, model, base)?;
        let reads_state = match &effect {
            Effect::Write(actions) => actions.iter().any(|action| {
                action.op.builds_on_state()
                    || action.op.operands().iter().any(|operand| operand.expr.reads_state())
            }),
            Effect::Delete => true,
            Effect::Ignore => false,
        };
        Some(Handler {
            label: label(at, config),
            topic,
            event,
            when: flatten(when)?,
            key,
            for_each: flatten(for_each)?,
            effect,
            continues: config.continues,
            reads_state,
        })
    }

    /// `when`: where its value is known, it is true or false, or every event would be bad.
    fn condition(&mut self, at: &Located<Operand>, reads: Reads<'static>) -> Option<Expr> {
        let expr = self.expr(at, reads)?;
        if let Some(Err(error)) = expr.constant_value().map(Expr::as_bool) {
            let help = "a condition reads the event or the row, as in event.type == 'Placed'";
            self.problem(&at.path, error.to_string(), Some(help.to_owned()));
            return None;
        }
        Some(expr)
    }

    fn effect(
        &mut self,
        on: &Located<HandlerConfig>,
        model: &Model,
        reads: Reads<'static>,
    ) -> Option<Effect> {
        let config = &on.value;
        let actions = self.actions(config, model, Reads { state: true, ..reads });
        let fault = match (actions.is_empty(), config.delete, config.ignore) {
            (false, true, _) => "`delete` goes with no other verb",
            (false, _, true) => "`ignore` goes with no other verb",
            (_, true, true) => "`delete` and `ignore` exclude each other",
            (true, true, false) => return Some(Effect::Delete),
            (true, false, true) if config.continues => "`ignore` and `continue` exclude each other",
            (true, false, true) => return Some(Effect::Ignore),
            (_, false, false) => return Some(Effect::Write(actions)),
        };
        self.problem(&on.path, fault, None);
        None
    }

    fn actions(
        &mut self,
        config: &HandlerConfig,
        model: &Model,
        reads: Reads<'static>,
    ) -> Vec<Action> {
        let mut out = Actions { model, reads, actions: Vec::new() };
        let assigning: [(&Option<Assignments>, Verb); 3] =
            [(&config.set, Op::Set), (&config.merge, Op::Merge), (&config.patch, Op::Patch)];
        let mut short: Option<(&Located<Operand>, Verb)> = None;
        for (assignments, verb) in assigning {
            match assignments {
                None => {}
                Some(Assignments::Fields(fields)) => self.plain(&mut out, fields, verb),
                Some(Assignments::All(all)) if short.is_none() => short = Some((all, verb)),
                Some(Assignments::All(all)) => {
                    let message = "only one of `set`, `merge` and `patch` can stand for all fields";
                    self.problem(&all.path, message, None);
                }
            }
        }
        self.numeric(&mut out, &config.add);
        self.ordered(&mut out, &config.min, ("min", Op::Min));
        self.ordered(&mut out, &config.max, ("max", Op::Max));
        self.listed(&mut out, &config.append, ("append", Op::Append));
        self.listed(&mut out, &config.remove, ("remove", Op::Remove));
        for (name, at) in &config.put {
            self.put(&mut out, name, at);
        }
        for (name, at) in &config.take {
            self.take(&mut out, name, at);
        }
        if let Some((all, verb)) = short {
            self.all(&mut out, all, verb);
        }
        out.actions
    }

    /// A column that handlers may change and that this one does not change yet.
    fn target(&mut self, out: &Actions<'_>, name: &str, path: &str) -> Option<(usize, ColumnType)> {
        let at = self.position(path, name)?;
        let field = self.config.fields.get(name).map(|field| &field.value);
        let fault = if out.model.key.contains(&at) {
            "is a key column, which `key` fills"
        } else if field.is_some_and(|field| field.computed.is_some()) {
            "is computed, and no handler sets it"
        } else if field.is_some_and(|field| field.lookup.is_some()) {
            "is looked up, and no handler sets it"
        } else if out.actions.iter().any(|action| action.column == at) {
            "is changed twice by this handler"
        } else {
            return self.columns.get(at).map(|(_, ty)| (at, ty.clone()));
        };
        let help = fault.starts_with("is changed twice").then(|| {
            "two handlers, the first with `continue = true`, run one after the other".to_owned()
        });
        self.problem(path, format!("{name:?} {fault}"), help);
        None
    }

    fn push(&self, out: &mut Actions<'_>, (column, ty): (usize, ColumnType), path: &str, op: Op) {
        out.actions.push(Action { column, ty, place: self.place(path), op });
    }

    fn plain(&mut self, out: &mut Actions<'_>, fields: &Operands, verb: Verb) {
        for (name, at) in fields {
            let Some(target) = self.target(out, name, &at.path) else { continue };
            let Some(operand) = self.operand(at, &target.1, out.reads) else { continue };
            self.push(out, target, &at.path, verb(operand));
        }
    }

    /// The short form: every folded field that the handler does not mention, by its own name.
    fn all(&mut self, out: &mut Actions<'_>, all: &Located<Operand>, verb: Verb) {
        let model = out.model;
        for (at, column) in model.columns.iter().enumerate() {
            let field = self.config.fields.get(&*column.name).map(|field| &field.value);
            let folded = field.is_some_and(|f| f.computed.is_none() && f.lookup.is_none());
            let mentioned = out.actions.iter().any(|action| action.column == at);
            if !folded || mentioned || model.key.contains(&at) {
                continue;
            }
            let Some(expr) = self.field_of(all, &column.name, out.reads) else { return };
            let path = format!("{}.{}", all.path, column.name);
            let operand = Typed { expr, constant: None };
            self.push(out, (at, column.ty.clone()), &path, verb(operand));
        }
    }

    fn numeric(&mut self, out: &mut Actions<'_>, fields: &Operands) {
        for (name, at) in fields {
            let Some(target) = self.target(out, name, &at.path) else { continue };
            if !is_number(&target.1) {
                self.misfit(&at.path, "add", "a number", name, &target.1);
                continue;
            }
            let Some(expr) = self.expr(at, out.reads) else { continue };
            // Not rounded to the column's scale: the sum is.
            let wanted = match &target.1 {
                ColumnType::BigInt | ColumnType::Integer | ColumnType::SmallInt => {
                    ColumnType::BigInt
                }
                _ => ColumnType::Numeric(None),
            };
            if let Some(Err(error)) = expr.constant_value().map(|v| wanted.coerce(v.clone())) {
                self.problem(&at.path, error.to_string(), None);
                continue;
            }
            self.push(out, target, &at.path, Op::Add(Typed { expr, constant: None }));
        }
    }

    fn ordered(&mut self, out: &mut Actions<'_>, fields: &Operands, verb: (&str, Verb)) {
        for (name, at) in fields {
            let Some(target) = self.target(out, name, &at.path) else { continue };
            if !is_ordered(&target.1) {
                self.misfit(&at.path, verb.0, "a number, a text or a time", name, &target.1);
                continue;
            }
            let Some(operand) = self.operand(at, &target.1, out.reads) else { continue };
            self.push(out, target, &at.path, (verb.1)(operand));
        }
    }

    fn listed(&mut self, out: &mut Actions<'_>, fields: &Operands, verb: (&str, Verb)) {
        for (name, at) in fields {
            let Some(target) = self.target(out, name, &at.path) else { continue };
            if !matches!(target.1, ColumnType::Array(_) | ColumnType::Jsonb) {
                let wanted = "an array such as text[], or a jsonb that holds a list";
                self.misfit(&at.path, verb.0, wanted, name, &target.1);
                continue;
            }
            let Some(expr) = self.expr(at, out.reads) else { continue };
            let constant = expr.constant_value().map(|value| {
                let list = match value {
                    list @ Value::List(_) => list.clone(),
                    item => Value::list(vec![item.clone()]),
                };
                target.1.coerce(list)
            });
            match constant.transpose() {
                Ok(constant) => {
                    self.push(out, target, &at.path, (verb.1)(Typed { expr, constant }));
                }
                Err(error) => self.problem(&at.path, error.to_string(), None),
            }
        }
    }

    fn misfit(&mut self, path: &str, verb: &str, wanted: &str, name: &str, ty: &ColumnType) {
        let message = format!("`{verb}` works on {wanted}; {name:?} is {ty}");
        self.problem(path, message, None);
    }

    fn children_of(
        &mut self,
        out: &Actions<'_>,
        name: &str,
        path: &str,
    ) -> Option<(usize, ColumnType, Arc<Children>)> {
        let (at, ty) = self.target(out, name, path)?;
        let ColumnType::Children(children) = &ty else {
            self.misfit(path, "put and take", "children", name, &ty);
            return None;
        };
        let children = Arc::clone(children);
        Some((at, ty, children))
    }

    fn take(&mut self, out: &mut Actions<'_>, name: &str, at: &Located<Operand>) {
        let Some((column, ty, children)) = self.children_of(out, name, &at.path) else { return };
        let Some(by_type) = children.by_type().cloned() else { return };
        let Some(operand) = self.operand(at, &by_type, out.reads) else { return };
        self.push(out, (column, ty), &at.path, Op::Take(operand, children));
    }

    fn put(&mut self, out: &mut Actions<'_>, name: &str, at: &Located<Assignments>) {
        let Some((column, ty, children)) = self.children_of(out, name, &at.path) else { return };
        let Some(by_type) = children.by_type().cloned() else { return };
        let names: Vec<Arc<str>> =
            children.fields.iter().map(|(name, _)| Arc::clone(name)).collect();
        let reads = Reads { child: Some(&names), ..out.reads };
        let (mut by, mut fields) = (None, Vec::new());
        for (field, ty) in &children.fields {
            // Which child it is cannot depend on the child.
            let is_by = **field == *children.by;
            let reads = if is_by { out.reads } else { reads };
            let operand = match &at.value {
                Assignments::All(all) => {
                    self.field_of(all, field, reads).map(|expr| Typed { expr, constant: None })
                }
                Assignments::Fields(given) => match given.get(&**field) {
                    Some(given) => self.operand(given, ty, reads),
                    None => continue,
                },
            };
            match operand {
                None => return,
                Some(operand) if is_by => by = Some(operand),
                Some(operand) => fields.push((Arc::clone(field), ty.clone(), operand)),
            }
        }
        self.unknown_child_fields(at, &names);
        let Some(by) = by else {
            let help = Some(format!("{0} = \"event.{0}\"", children.by));
            let message = format!("does not say which child: {:?} is missing", children.by);
            return self.problem(&at.path, message, help);
        };
        let blank = self.blank_child(name, &children);
        // Of the whole event it is known: it is an object, or bad.
        let whole = match &at.value {
            Assignments::All(all) if all.value != Operand::Expression("event".to_owned()) => {
                self.expr(all, reads)
            }
            _ => None,
        };
        let put = Put { children, whole, by, by_type, fields, blank };
        self.push(out, (column, ty), &at.path, Op::Put(Box::new(put)));
    }

    fn unknown_child_fields(&mut self, at: &Located<Assignments>, names: &[Arc<str>]) {
        let Assignments::Fields(given) = &at.value else { return };
        for (name, operand) in
            given.iter().filter(|(name, _)| !names.iter().any(|n| **n == ***name))
        {
            let help = crate::config::diagnostic::closest(name, names.iter().map(|name| &**name))
                .map(|near| format!("did you mean `{near}`?"));
            let message =
                format!("{name:?} is no field of the child; its fields are {}", names.join(", "));
            self.problem(&operand.path, message, help);
        }
    }

    fn blank_child(&mut self, name: &str, children: &Children) -> Value {
        let config = self.config.fields.get(name);
        let mut entries = Vec::with_capacity(children.fields.len());
        for (field, ty) in &children.fields {
            let given = config.and_then(|config| config.value.fields.get(&**field));
            let default = given.map(|given| self.default(given, ty)).unwrap_or_default();
            entries.push((Arc::clone(field), default));
        }
        Value::map(entries)
    }
}

/// None where compiling failed; Some(None) where nothing was asked for.
fn flatten<T>(compiled: Option<Option<T>>) -> Option<Option<T>> {
    match compiled {
        None => Some(None),
        Some(None) => None,
        Some(some) => Some(some),
    }
}

fn is_number(ty: &ColumnType) -> bool {
    matches!(
        ty,
        ColumnType::BigInt
            | ColumnType::Integer
            | ColumnType::SmallInt
            | ColumnType::DoublePrecision
            | ColumnType::Real
            | ColumnType::Numeric(_)
    )
}

fn is_ordered(ty: &ColumnType) -> bool {
    is_number(ty)
        || matches!(
            ty,
            ColumnType::Text
                | ColumnType::Varchar(_)
                | ColumnType::TimestampTz
                | ColumnType::Date
                | ColumnType::Time
        )
}

fn label(at: usize, config: &HandlerConfig) -> String {
    match &config.event {
        None => format!("on[{at}]"),
        Some(Names::List(names)) => format!("on[{at}] ({})", names.join(", ")),
        Some(Names::Regex(pattern)) => format!("on[{at}] ({pattern})"),
    }
}
