//! From text to nodes: the `cel` crate parses and expands the macros, this resolves the names.

use std::borrow::Cow;
use std::sync::Arc;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr as Ast, IdedExpr, LiteralValue, MapExpr,
    SourceInfo, operators,
};
use cel::parser::Parser;
use foldline_api::budget::Budget;
use foldline_api::decimal::Decimal;
use foldline_api::value::Value;

use super::error::ExprError;
use super::explain::syntax;
use super::names::text_literal;
use super::node::{Function, Loop, LoopKind, Node, Op, PathRef};
use super::scan::{self, DEPTH_MAX, Token};
use super::{Reads, Scope, functions, ops};

/// Stack for the parser, which is generous with it.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Never reached: the scan bounds nesting below it.
const PARSER_DEPTH: u16 = 2 * DEPTH_MAX as u16;

/// An expression with its names resolved.
pub(super) struct Compiled {
    pub(super) node: Node,
    pub(super) paths: Vec<PathRef>,
    pub(super) reads: Reads,
}

/// Compiles `source`, on a stack of its own: a parser that runs out of stack, or panics on what it
/// should refuse, must not take the worker along.
pub(super) fn compile(source: &str, scope: &Scope<'_>) -> Result<Compiled, ExprError> {
    let tokens = scan::scan(source)?;
    let work = || parse_and_lower(source, &tokens, scope);
    let builder = std::thread::Builder::new().name("expression".to_owned()).stack_size(STACK_BYTES);
    let failed = |what: &str| ExprError::new(source, (0, source.len()), what);
    std::thread::scope(|threads| match builder.spawn_scoped(threads, work) {
        Ok(thread) => thread.join().unwrap_or_else(|_| Err(failed("this is no CEL expression"))),
        Err(error) => Err(failed(&format!("no thread to compile on: {error}"))),
    })
}

fn parse_and_lower(
    source: &str,
    tokens: &[Token<'_>],
    scope: &Scope<'_>,
) -> Result<Compiled, ExprError> {
    let (ast, info) = Parser::new()
        .max_recursion_depth(PARSER_DEPTH)
        .enable_ident_escape_syntax(true)
        .parse_with_source_info(source)
        .map_err(|errors| syntax(source, tokens, &errors))?;
    let mut lower = Lower {
        scope,
        source,
        tokens,
        info: &info,
        paths: Vec::new(),
        reads: Reads::default(),
        locals: Vec::new(),
        depth: 0,
    };
    let node = lower.lower(&ast)?;
    let Lower { paths, mut reads, .. } = lower;
    reads.columns.sort_unstable();
    reads.columns.dedup();
    Ok(Compiled { node, paths, reads })
}

/// Functions whose names have a space before them.
const SPACES: [&str; 3] = ["math", "lists", "strings"];

pub(super) struct Lower<'a, 's> {
    pub(super) scope: &'a Scope<'s>,
    pub(super) source: &'a str,
    pub(super) tokens: &'a [Token<'a>],
    pub(super) info: &'a SourceInfo,
    pub(super) paths: Vec<PathRef>,
    pub(super) reads: Reads,
    /// The variables of the loops around, innermost last.
    pub(super) locals: Vec<String>,
    pub(super) depth: usize,
}

pub(super) type Lowered = Result<Node, ExprError>;

impl<'a> Lower<'a, '_> {
    pub(super) fn lower(&mut self, ast: &IdedExpr) -> Lowered {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(ast.id, format!("nested deeper than {DEPTH_MAX}")));
        }
        let node = self.lower_inner(ast);
        self.depth -= 1;
        node
    }

    fn lower_inner(&mut self, ast: &IdedExpr) -> Lowered {
        match &ast.expr {
            Ast::Literal(literal) => self.literal(ast.id, literal).map(Node::Const),
            Ast::Ident(name) => self.variable(ast.id, name),
            Ast::Select(select) if select.test => {
                let path = self.member(ast.id, &select.operand, &select.field)?;
                Ok(Node::Has(Box::new(path)))
            }
            Ast::Select(select) => self.member(ast.id, &select.operand, &select.field),
            Ast::Call(call) => self.call(ast.id, call),
            Ast::Comprehension(each) => self.comprehension(ast.id, each),
            Ast::List(list) => {
                let items: Result<Vec<Node>, ExprError> =
                    list.elements.iter().map(|item| self.lower(item)).collect();
                Ok(folded_list(items?))
            }
            Ast::Map(map) => self.map(map),
            Ast::Struct(message) => Err(self
                .error(ast.id, format!("there is no message type {}", message.type_name))
                .help("an object is written {'name': value}")),
            Ast::Unspecified => Err(self.error(ast.id, "this is no CEL expression")),
        }
    }

    fn literal(&self, id: u64, literal: &LiteralValue) -> Result<Value, ExprError> {
        Ok(match literal {
            LiteralValue::Null => Value::Null,
            LiteralValue::Boolean(bool) => Value::Bool(*bool.inner()),
            LiteralValue::Int(int) => Value::Int(*int.inner()),
            LiteralValue::UInt(uint) => match i64::try_from(*uint.inner()) {
                Ok(int) => Value::Int(int),
                Err(_) => Value::Decimal(Decimal::new((*uint.inner()).into(), 0)),
            },
            LiteralValue::String(text) => Value::text(text.inner()),
            LiteralValue::Bytes(bytes) => Value::Bytes(Arc::from(bytes.inner())),
            LiteralValue::Double(double) => {
                // The parser has rounded it to a double: the digits as written are exact.
                let token = self.token(id).and_then(|at| self.tokens.get(at));
                let written = token.and_then(|token| token.text.parse::<Decimal>().ok());
                let Some(decimal) = written else {
                    return Err(self.error(id, "this number has too many digits"));
                };
                let negative = double.inner().is_sign_negative();
                Value::Decimal(if negative { decimal.negated() } else { decimal })
            }
        })
    }

    fn map(&mut self, map: &MapExpr) -> Lowered {
        let mut entries: Vec<(Node, Node)> = Vec::with_capacity(map.entries.len());
        for entry in &map.entries {
            let EntryExpr::MapEntry(pair) = &entry.expr else {
                return Err(self.error(entry.id, "this is no CEL expression"));
            };
            let key = self.lower(&pair.key)?;
            if let Node::Const(key) = &key {
                if !matches!(key, Value::Text(_)) {
                    let message = format!("an object's key is a text, not {}", key.type_name());
                    return Err(self.error(pair.key.id, message));
                }
                if entries.iter().any(|(known, _)| matches!(known, Node::Const(k) if k == key)) {
                    return Err(self.error(pair.key.id, "the same key twice"));
                }
            }
            entries.push((key, self.lower(&pair.value)?));
        }
        let all_text = entries.iter().all(|pair| matches!(pair, (Node::Const(_), Node::Const(_))));
        if !all_text {
            return Ok(Node::Map(entries));
        }
        let constant = entries.into_iter().filter_map(|pair| match pair {
            (Node::Const(Value::Text(key)), Node::Const(value)) => Some((key, value)),
            _ => None,
        });
        Ok(Node::Const(Value::map(constant.collect())))
    }

    fn pair(&mut self, id: u64, args: &[IdedExpr]) -> Result<Box<(Node, Node)>, ExprError> {
        match args {
            [left, right] => Ok(Box::new((self.lower(left)?, self.lower(right)?))),
            _ => Err(self.error(id, "this operator has two sides")),
        }
    }

    /// The sides of `&&` and `||`. `event.price || 0` is another language's way to say coalesce: it would
    /// be bad for every price.
    fn logical(
        &mut self,
        id: u64,
        name: &str,
        args: &[IdedExpr],
    ) -> Result<Box<(Node, Node)>, ExprError> {
        let pair = self.pair(id, args)?;
        let odd = match &*pair {
            (Node::Const(_), Node::Const(_)) => None,
            (Node::Const(value), _) | (_, Node::Const(value)) => Some(value),
            _ => None,
        };
        match odd.filter(|value| !matches!(value, Value::Bool(_))) {
            None => Ok(pair),
            Some(value) => Err(self
                .error(id, format!("`{name}` is for true and false, not {}", value.type_name()))
                .help("the first that is not null: coalesce(event.a, event.b)")),
        }
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Lowered {
        let args = call.args.as_slice();
        match (call.func_name.as_str(), args) {
            (operators::LOGICAL_AND, _) => Ok(Node::And(self.logical(id, "&&", args)?)),
            (operators::LOGICAL_OR, _) => Ok(Node::Or(self.logical(id, "||", args)?)),
            (operators::LOGICAL_NOT, [operand]) => Ok(Node::Not(Box::new(self.lower(operand)?))),
            (operators::NEGATE, [operand]) => match self.lower(operand)? {
                Node::Const(value) => Ok(match ops::negate(&value) {
                    Ok(negated) => Node::Const(negated),
                    Err(_) => Node::Negate(Box::new(Node::Const(value))),
                }),
                node => Ok(Node::Negate(Box::new(node))),
            },
            (operators::CONDITIONAL, [when, yes, no]) => {
                Ok(Node::Ternary(Box::new((self.lower(when)?, self.lower(yes)?, self.lower(no)?))))
            }
            (operators::INDEX, [operand, index]) => match text_literal(index) {
                Some(name) => self.member(id, operand, name),
                None => {
                    let outer = self.lower(operand)?;
                    Ok(Node::Index(Box::new((outer, self.lower(index)?))))
                }
            },
            (operators::IN, [item, container]) => self.within(id, item, container, args),
            (name, _) => match operator(name) {
                Some(op) => self.binary(id, op, args),
                None => self.function(id, call),
            },
        }
    }

    fn binary(&mut self, id: u64, op: Op, args: &[IdedExpr]) -> Lowered {
        if let (Op::Subtract, [_, IdedExpr { id: right, expr: Ast::Ident(name) }]) = (op, args)
            && !self.is_local(name)
            && let Some(error) = self.hyphenated(*right)
        {
            // `event.routing-key` would be a difference that fails on every event.
            return Err(error);
        }
        let pair = self.pair(id, args)?;
        if let (Node::Const(left), Node::Const(right)) = (&pair.0, &pair.1)
            && let Ok(value) = ops::binary(op, left, right, &Budget::default())
        {
            return Ok(Node::Const(value));
        }
        Ok(Node::Binary(op, pair))
    }

    /// `x in y`; asking the whole event, or the headers, for one name reads no more than that name.
    fn within(
        &mut self,
        id: u64,
        item: &IdedExpr,
        container: &IdedExpr,
        args: &[IdedExpr],
    ) -> Lowered {
        if let (Some(name), Ast::Ident(root)) = (text_literal(item), &container.expr)
            && matches!(root.as_str(), "event" | "envelope" | "headers")
            && !self.is_local(root)
        {
            self.allowed(container.id, root)?;
            let path = self.member(id, container, name)?;
            return Ok(Node::Has(Box::new(path)));
        }
        self.binary(id, Op::In, args)
    }

    fn function(&mut self, id: u64, call: &CallExpr) -> Lowered {
        let name = call.func_name.strip_prefix('.').unwrap_or(&call.func_name);
        let (name, receiver) = match call.target.as_deref() {
            Some(IdedExpr { expr: Ast::Ident(space), .. })
                if SPACES.contains(&space.as_str()) && !self.is_local(space) =>
            {
                (Cow::Owned(format!("{space}.{name}")), None)
            }
            target => (Cow::Borrowed(name), target),
        };
        if name == "coalesce" && receiver.is_none() && !call.args.is_empty() {
            let choices: Result<Vec<Node>, ExprError> =
                call.args.iter().map(|choice| self.lower(choice)).collect();
            return Ok(Node::Coalesce(choices?));
        }
        if let ("sortBy", Some(range), [variable, key]) = (&*name, receiver, call.args.as_slice()) {
            let Ast::Ident(variable) = &variable.expr else {
                return Err(self.error(variable.id, "sortBy's first argument names its variable"));
            };
            let range = self.lower(range)?;
            let body = self.with_local(variable, |lower| lower.lower(key))?;
            let kind = LoopKind::SortBy;
            return Ok(Node::Loop(Box::new(Loop { kind, range, when: None, body })));
        }
        let count = call.args.len() + usize::from(receiver.is_some());
        let Some(function) = functions::find(&name, receiver.is_some(), count) else {
            return Err(self.unknown_function(id, &name, receiver.is_some(), call.args.len()));
        };
        let mut args = Vec::with_capacity(count);
        for arg in receiver.into_iter().chain(&call.args) {
            args.push(self.lower(arg)?);
        }
        self.apply(id, function, args)
    }

    /// A call: checked, and worked out, as far as its arguments are known.
    fn apply(&mut self, id: u64, function: &'static Function, args: Vec<Node>) -> Lowered {
        let known: Vec<Option<&Value>> = args.iter().map(constant).collect();
        if let Some(check) = function.check {
            check(&known).map_err(|fault| self.impossible(id, function.name, &[], fault))?;
        }
        let values: Option<Vec<Cow<'_, Value>>> =
            known.iter().map(|value| value.map(Cow::Borrowed)).collect();
        if let Some(values) = values {
            return (function.run)(&values, &Budget::default())
                .map(Node::Const)
                .map_err(|fault| self.impossible(id, function.name, &values, fault));
        }
        if function.name == "matches"
            && let Some(Some(Value::Text(pattern))) = known.get(1)
        {
            let pattern = functions::pattern(pattern, None)
                .map_err(|fault| self.impossible(id, function.name, &[], fault))?;
            if let Some(text) = args.into_iter().next() {
                return Ok(Node::Matches(Box::new(text), Box::new(pattern)));
            }
            return Err(self.call_error(id, "matches takes a text"));
        }
        Ok(Node::Call(function, args))
    }

    fn with_local<T>(&mut self, name: &str, run: impl FnOnce(&mut Self) -> T) -> T {
        self.locals.push(name.to_owned());
        let result = run(self);
        self.locals.pop();
        result
    }

    /// What the parser made of a macro, back to the macro.
    fn comprehension(&mut self, id: u64, each: &ComprehensionExpr) -> Lowered {
        let range = self.lower(&each.iter_range)?;
        let Some((kind, when, body)) = macro_of(each) else {
            return Err(self.error(id, "this macro is not known"));
        };
        self.with_local(&each.iter_var, |lower| {
            let when = when.map(|when| lower.lower(when)).transpose()?;
            let body = lower.lower(body)?;
            Ok(Node::Loop(Box::new(Loop { kind, range, when, body })))
        })
    }
}

fn constant(node: &Node) -> Option<&Value> {
    match node {
        Node::Const(value) => Some(value),
        _ => None,
    }
}

fn folded_list(items: Vec<Node>) -> Node {
    if !items.iter().all(|item| matches!(item, Node::Const(_))) {
        return Node::List(items);
    }
    let values = items.into_iter().filter_map(|item| match item {
        Node::Const(value) => Some(value),
        _ => None,
    });
    Node::Const(Value::list(values.collect()))
}

fn operator(name: &str) -> Option<Op> {
    Some(match name {
        operators::ADD => Op::Add,
        operators::SUBSTRACT => Op::Subtract,
        operators::MULTIPLY => Op::Multiply,
        operators::DIVIDE => Op::Divide,
        operators::MODULO => Op::Remainder,
        operators::EQUALS => Op::Equal,
        operators::NOT_EQUALS => Op::NotEqual,
        operators::LESS => Op::Less,
        operators::LESS_EQUALS => Op::LessOrEqual,
        operators::GREATER => Op::Greater,
        operators::GREATER_EQUALS => Op::GreaterOrEqual,
        _ => return None,
    })
}

/// The macro that a comprehension was: its kind, its filter and its body. The parser builds no others.
fn macro_of(each: &ComprehensionExpr) -> Option<(LoopKind, Option<&IdedExpr>, &IdedExpr)> {
    let Ast::Call(step) = &each.loop_step.expr else { return None };
    match (&each.accu_init.expr, step.func_name.as_str(), step.args.as_slice()) {
        (Ast::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_OR, [_, body]) => {
            Some((LoopKind::Exists, None, body))
        }
        (Ast::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_AND, [_, body]) => {
            Some((LoopKind::All, None, body))
        }
        (Ast::Literal(LiteralValue::Int(_)), operators::CONDITIONAL, [body, ..]) => {
            Some((LoopKind::ExistsOne, None, body))
        }
        (Ast::List(_), operators::ADD, [_, body]) => Some((LoopKind::Map, None, element(body)?)),
        (Ast::List(_), operators::CONDITIONAL, [when, add, _]) => {
            let Ast::Call(add) = &add.expr else { return None };
            let body = element(add.args.get(1)?)?;
            match &body.expr {
                // The body is the variable itself: `filter`, or a `map` that amounts to it.
                Ast::Ident(name) if *name == each.iter_var => Some((LoopKind::Filter, None, when)),
                _ => Some((LoopKind::Map, Some(when), body)),
            }
        }
        _ => None,
    }
}

fn element(list: &IdedExpr) -> Option<&IdedExpr> {
    match &list.expr {
        Ast::List(list) => list.elements.first(),
        _ => None,
    }
}
