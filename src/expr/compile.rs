//! From text to nodes: the `cel` crate parses and expands the macros, this resolves the names.

use std::borrow::Cow;
use std::sync::Arc;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr as Ast, IdedExpr, LiteralValue, MapExpr,
    SourceInfo, operators,
};
use cel::parser::{ParseErrors, Parser};
use foldline_api::decimal::Decimal;
use foldline_api::value::Value;

use super::error::{ExprError, member, nearest};
use super::node::{Fault, Form, Function, Loop, LoopKind, Node, Op, PathRef, Work};
use super::scan::{self, DEPTH_MAX, Kind, Token};
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

/// The parser's first complaint in fewer words.
fn syntax(source: &str, tokens: &[Token<'_>], errors: &ParseErrors) -> ExprError {
    let Some(first) = errors.errors.first() else {
        return ExprError::new(source, (0, source.len()), "this is no CEL expression");
    };
    let line = usize::try_from(first.pos.0 - 1).unwrap_or(0);
    let column = usize::try_from(first.pos.1 - 1).unwrap_or(0);
    let line_start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = source.get(line_start..).unwrap_or_default();
    let at = line_start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at);
    let token = tokens.iter().find(|token| token.end() > at);
    let span = token.map_or((source.len(), source.len()), Token::span);
    let message = &first.msg;
    if message.contains("has() macro") {
        return ExprError::new(source, span, "has() takes a path, such as has(event.a.b)")
            .help("a field that CEL cannot spell is asked for as 'ship-to' in event");
    }
    if message.contains("invalid int literal") || message.contains("invalid uint literal") {
        return ExprError::new(source, span, "this integer does not fit 64 bits")
            .corrected(&format!("decimal('{}')", token.map_or("", |token| token.text)));
    }
    if message.contains("simple name") {
        return ExprError::new(source, span, "the macro's first argument names its variable")
            .help("as in event.lines.map(line, line.qty)");
    }
    if !message.contains("Syntax error") {
        let message = message.replace("reserved identifier:", "a word that CEL reserves:");
        return ExprError::new(source, span, message);
    }
    match token {
        Some(token) => ExprError::new(source, span, format!("`{}` is unexpected here", token.text)),
        None => ExprError::new(source, span, "the expression ends too early"),
    }
}

/// Names that stand for something at the top, where the scope allows it.
const VARIABLES: [&str; 12] = [
    "event",
    "envelope",
    "key",
    "headers",
    "topic",
    "partition",
    "offset",
    "timestamp",
    "state",
    "exists",
    "item",
    "child",
];
/// Functions whose names have a space before them.
const SPACES: [&str; 3] = ["math", "lists", "strings"];

struct Lower<'a, 's> {
    scope: &'a Scope<'s>,
    source: &'a str,
    tokens: &'a [Token<'a>],
    info: &'a SourceInfo,
    paths: Vec<PathRef>,
    reads: Reads,
    /// The variables of the loops around, innermost last.
    locals: Vec<String>,
    depth: usize,
}

type Lowered = Result<Node, ExprError>;

impl<'a> Lower<'a, '_> {
    fn lower(&mut self, ast: &IdedExpr) -> Lowered {
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

    /// The token where the parser saw the node.
    fn token(&self, id: u64) -> Option<usize> {
        let (start, _) = self.info.offset_for(id)?;
        let start = usize::try_from(start).ok()?;
        self.tokens.iter().position(|token| token.end() > start)
    }

    fn span(&self, at: Option<usize>) -> (usize, usize) {
        at.and_then(|at| self.tokens.get(at)).map_or((0, self.source.len()), Token::span)
    }

    fn error(&self, id: u64, message: impl Into<String>) -> ExprError {
        ExprError::new(self.source, self.span(self.token(id)), message)
    }

    /// At the name behind the dot, or in the brackets, of a member.
    fn member_error(&self, id: u64, message: String) -> ExprError {
        ExprError::new(self.source, self.span(self.token(id).map(|at| at + 1)), message)
    }

    /// At the function's name, which stands before the parenthesis.
    fn call_error(&self, id: u64, message: impl Into<String>) -> ExprError {
        let at = self.token(id);
        let paren = at.and_then(|at| self.tokens.get(at)).is_some_and(|token| token.text == "(");
        let at = if paren { at.and_then(|at| at.checked_sub(1)) } else { at };
        ExprError::new(self.source, self.span(at), message)
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

    fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|local| local == name)
    }

    fn variable(&mut self, id: u64, name: &str) -> Lowered {
        if let Some(depth) = self.locals.iter().rev().position(|local| local == name) {
            return Ok(Node::Local(depth));
        }
        let name = name.strip_prefix('.').unwrap_or(name);
        if VARIABLES.contains(&name) {
            self.allowed(id, name)?;
        }
        match name {
            "event" => Ok(self.path(Vec::new())),
            "key" => Ok(self.record(Node::Key)),
            "headers" => Ok(self.record(Node::Headers)),
            "topic" => Ok(self.record(Node::Topic)),
            "partition" => Ok(self.record(Node::Partition)),
            "offset" => Ok(self.record(Node::Offset)),
            "timestamp" => Ok(self.record(Node::Timestamp)),
            "exists" => {
                self.reads.exists = true;
                Ok(Node::Exists)
            }
            "item" => {
                self.reads.item = true;
                Ok(Node::Item)
            }
            "child" => {
                self.reads.child = true;
                Ok(Node::Child)
            }
            "state" => Err(self
                .error(id, "`state` is read column by column")
                .help(format!("columns are: {}", self.columns()))),
            _ => match functions::type_named(name) {
                Some(ty) => Ok(Node::Const(Value::text(ty))),
                None => Err(self.unknown_variable(id, name)),
            },
        }
    }

    fn record(&mut self, node: Node) -> Node {
        self.reads.record = true;
        node
    }

    fn path(&mut self, names: Vec<Arc<str>>) -> Node {
        let at = self.paths.iter().position(|known| known.names == names).unwrap_or_else(|| {
            self.paths.push(PathRef::new(names));
            self.paths.len() - 1
        });
        Node::Path(at)
    }

    fn can_read(&self, name: &str) -> bool {
        match name {
            "state" | "exists" => self.scope.state,
            "item" => self.scope.item,
            "child" => self.scope.child.is_some(),
            "envelope" => false,
            _ => self.scope.event,
        }
    }

    fn allowed(&self, id: u64, name: &str) -> Result<(), ExprError> {
        if name == "envelope" {
            return Err(self.error(
                id,
                "`envelope` is not available yet: needs envelope = \"debezium\" or \"cloudevents\"",
            ));
        }
        if self.can_read(name) {
            return Ok(());
        }
        let why = match name {
            "item" => "`item` is there only beside for_each",
            "child" => "`child` is there only inside put",
            _ => {
                return Err(self
                    .error(id, format!("`{name}` cannot be read here"))
                    .help(self.known()));
            }
        };
        Err(self.error(id, why))
    }

    fn known(&self) -> String {
        let known: Vec<&str> =
            VARIABLES.into_iter().filter(|variable| self.can_read(variable)).collect();
        if known.is_empty() {
            return "nothing can be read here: only values and functions".to_owned();
        }
        format!("what can be read here: {}", known.join(", "))
    }

    fn columns(&self) -> String {
        let names: Vec<&str> = self.scope.columns.iter().map(|column| &*column.0).collect();
        names.join(", ")
    }

    fn unknown_variable(&self, id: u64, name: &str) -> ExprError {
        let error = self.error(id, format!("unknown variable `{name}`"));
        if let Some(error) = self.hyphenated(id) {
            return error;
        }
        let variables = VARIABLES.into_iter().filter(|variable| self.can_read(variable));
        let locals = self.locals.iter().map(String::as_str);
        let follows = self.token(id).and_then(|at| self.tokens.get(at + 1)).map(|t| t.text);
        if let Some(known) = nearest(name, variables.chain(locals))
            && (follows.is_some() || name.len() > 3)
        {
            return error.corrected(known);
        }
        // Only words and what joins words: a text whose quotes are missing.
        let texty = self.tokens.iter().all(|token| {
            matches!(token.kind, Kind::Name | Kind::Number)
                || matches!(token.text, "-" | "." | ":" | "/")
        });
        if follows.is_none() && self.tokens.len() == 1 || texty && !self.source.contains(' ') {
            return error.help(scan::text_help(self.source));
        }
        if self.scope.state && self.scope.columns.iter().any(|column| &*column.0 == name) {
            return error.corrected(&format!("state.{name}"));
        }
        error.help(self.known())
    }

    /// A name with hyphens, which CEL reads as a subtraction: `event.order-id`.
    fn hyphenated(&self, id: u64) -> Option<ExprError> {
        let at = self.token(id)?;
        let token = |at: usize| self.tokens.get(at);
        let joined = |at: usize| {
            token(at).is_some_and(|t| token(at + 1).is_some_and(|n| n.start == t.end()))
        };
        let mut first = at;
        while first >= 2 && token(first - 1)?.text == "-" && joined(first - 2) && joined(first - 1)
        {
            first -= 2;
        }
        let dot = first.checked_sub(1).and_then(token)?;
        let mut last = at;
        while token(last + 1).is_some_and(|t| t.text == "-")
            && token(last + 2).is_some_and(|t| t.kind == Kind::Name)
            && joined(last)
            && joined(last + 1)
        {
            last += 2;
        }
        if first == at || dot.text != "." {
            return None;
        }
        let (start, end) = (token(first)?.start, token(last)?.end());
        let name = self.source.get(start..end)?;
        let message = format!("`{name}` is a subtraction to CEL");
        Some(ExprError::new(self.source, (dot.start, end), message).corrected(&member(name)))
    }

    /// The names below `event` that `ast` spells, if it is such a path.
    fn event_path(&self, ast: &IdedExpr) -> Option<Vec<Arc<str>>> {
        let (outer, name): (&IdedExpr, &str) = match &ast.expr {
            Ast::Ident(name) if name.trim_start_matches('.') == "event" => {
                return (!self.is_local("event")).then(Vec::new);
            }
            Ast::Select(select) if !select.test => (&select.operand, &select.field),
            Ast::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [outer, index] => (outer, text_literal(index)?),
                _ => return None,
            },
            _ => return None,
        };
        let mut names = self.event_path(outer)?;
        names.push(Arc::from(name));
        Some(names)
    }

    /// `operand.name` and `operand['name']`.
    fn member(&mut self, id: u64, operand: &IdedExpr, name: &str) -> Lowered {
        if let Some(mut names) = self.event_path(operand)
            && self.scope.event
        {
            names.push(Arc::from(name));
            return Ok(self.path(names));
        }
        if let Ast::Ident(root) = &operand.expr
            && !self.is_local(root)
        {
            let root = root.strip_prefix('.').unwrap_or(root);
            match root {
                "state" => {
                    self.allowed(operand.id, root)?;
                    return self.column(id, name);
                }
                "headers" => {
                    self.allowed(operand.id, root)?;
                    return Ok(self.record(Node::Header(Arc::from(name))));
                }
                "child" => self.child_field(id, operand.id, name)?,
                _ => {}
            }
        }
        if let Some(ty) = qualified(operand).and_then(|outer| {
            functions::type_named(&format!("{outer}.{name}")).filter(|_| !self.is_local("google"))
        }) {
            return Ok(Node::Const(Value::text(ty)));
        }
        let outer = self.lower(operand)?;
        Ok(Node::Select(Box::new(outer), Arc::from(name)))
    }

    fn column(&mut self, id: u64, name: &str) -> Lowered {
        if let Some(column) = self.scope.columns.iter().position(|column| &*column.0 == name) {
            self.reads.columns.push(column);
            return Ok(Node::State(column));
        }
        let error = self.member_error(id, format!("`state` has no column `{name}`"));
        Err(match nearest(name, self.scope.columns.iter().map(|column| &*column.0)) {
            Some(known) => error.corrected(known),
            None => error.help(format!("columns are: {}", self.columns())),
        })
    }

    fn child_field(&self, id: u64, root: u64, name: &str) -> Result<(), ExprError> {
        self.allowed(root, "child")?;
        let fields = self.scope.child.unwrap_or_default();
        if fields.iter().any(|field| **field == *name) {
            return Ok(());
        }
        let error = self.member_error(id, format!("`child` has no field `{name}`"));
        Err(match nearest(name, fields.iter().map(|field| &**field)) {
            Some(known) => error.corrected(known),
            None => {
                let names: Vec<&str> = fields.iter().map(|field| &**field).collect();
                error.help(format!("fields are: {}", names.join(", ")))
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

    fn call(&mut self, id: u64, call: &CallExpr) -> Lowered {
        let args = call.args.as_slice();
        match (call.func_name.as_str(), args) {
            (operators::LOGICAL_AND, _) => Ok(Node::And(self.pair(id, args)?)),
            (operators::LOGICAL_OR, _) => Ok(Node::Or(self.pair(id, args)?)),
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
        let pair = self.pair(id, args)?;
        if let (Node::Const(left), Node::Const(right)) = (&pair.0, &pair.1)
            && let Ok(value) = ops::binary(op, left, right, &Work::default())
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
            && matches!(root.as_str(), "event" | "headers")
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
            return (function.run)(&values, &Work::default())
                .map(Node::Const)
                .map_err(|fault| self.impossible(id, function.name, &values, fault));
        }
        if function.name == "matches"
            && let Some(Some(Value::Text(pattern))) = known.get(1)
        {
            let regex = functions::regex(pattern)
                .map_err(|fault| self.impossible(id, function.name, &[], fault))?;
            if let Some(text) = args.into_iter().next() {
                return Ok(Node::Matches(Box::new(text), regex));
            }
            return Err(self.call_error(id, "matches takes a text"));
        }
        Ok(Node::Call(function, args))
    }

    fn impossible(&self, id: u64, name: &str, args: &[Cow<'_, Value>], fault: Fault) -> ExprError {
        self.call_error(id, super::eval::fault(name, args, fault).message)
    }

    fn unknown_function(&self, id: u64, name: &str, member: bool, args: usize) -> ExprError {
        let wanted = if member { Form::Member } else { Form::Global };
        let mut forms = functions::named(name).peekable();
        let macros = ["all", "exists", "exists_one", "existsOne", "map", "filter", "sortBy"];
        if macros.contains(&name) {
            return self
                .call_error(id, format!("{name} is a macro over a list"))
                .help(format!("as in event.lines.{name}(line, ...)"));
        }
        if name == "has" {
            return self.call_error(id, "has() takes one path, such as has(event.a.b)");
        }
        if forms.peek().is_none() {
            let error = self.call_error(id, format!("unknown function `{name}`"));
            if matches!(name, "now" | "today" | "random" | "rand" | "uuid" | "getDate") && !member {
                return error.help(
                    "there is no clock and no chance: a replay must give the same; `timestamp` is the record's",
                );
            }
            let others =
                ["coalesce", "has", "all", "exists", "exists_one", "map", "filter", "sortBy"];
            return match nearest(name, functions::names().chain(others)) {
                Some(known) => error.help(format!("did you mean {known}?")),
                None => error,
            };
        }
        let right_form = forms.any(|f| f.form == wanted || f.form == Form::Either);
        if right_form {
            let plural = if args == 1 { "" } else { "s" };
            return self.call_error(id, format!("{name} does not take {args} argument{plural}"));
        }
        let usage = if member { format!("{name}(x)") } else { format!("x.{name}(...)") };
        self.call_error(id, format!("{name} is called another way")).help(format!("write {usage}"))
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

fn text_literal(ast: &IdedExpr) -> Option<&str> {
    match &ast.expr {
        Ast::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// The name `a.b` that `ast` spells.
fn qualified(ast: &IdedExpr) -> Option<String> {
    match &ast.expr {
        Ast::Ident(name) => Some(name.clone()),
        Ast::Select(select) if !select.test => {
            Some(format!("{}.{}", qualified(&select.operand)?, select.field))
        }
        _ => None,
    }
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
