//! What to say of an expression that does not compile.

use std::borrow::Cow;

use cel::parser::ParseErrors;
use foldline_api::value::Value;

use super::compile::Lower;
use super::error::{ExprError, member, nearest, quoted};
use super::names::VARIABLES;
use super::node::{Fault, Form};
use super::scan::{self, Kind, Token};
use super::{eval, functions};

/// Functions of other languages, and how they are written here.
const HABITS: &[(&[&str], &str)] = &[
    (&["len", "length", "count", "cardinality"], "size(x)"),
    (&["lower", "lowercase", "toLowerCase", "toLower"], "x.lowerAscii()"),
    (&["upper", "uppercase", "toUpperCase", "toUpper"], "x.upperAscii()"),
    (&["concat", "append", "push"], "a + b"),
    (&["if", "iff", "ifelse", "when"], "condition ? a : b"),
    (&["ifnull", "nvl", "isnull", "or", "orElse", "default"], "coalesce(a, b)"),
    (
        &["round", "toFixed"],
        "math.round(x); digits are rounded by the field's type, such as numeric(12,2)",
    ),
    (&["ceil", "ceiling"], "math.ceil(x)"),
    (&["floor"], "math.floor(x)"),
    (&["abs"], "math.abs(x)"),
    (&["sqrt"], "math.sqrt(x)"),
    (&["greatest"], "math.greatest(a, b)"),
    (&["least"], "math.least(a, b)"),
    (&["substr", "slice", "mid"], "x.substring(start, end)"),
    (&["strip"], "x.trim()"),
    (&["str", "text", "toString", "to_string", "to_char"], "string(x)"),
    (&["integer", "parseInt", "toInt", "to_int", "Number"], "int(x)"),
    (&["float", "number", "numeric", "parseFloat", "toFloat", "to_number"], "decimal(x)"),
    (&["any", "some"], "list.exists(item, condition)"),
    (&["every"], "list.all(item, condition)"),
    (&["includes", "has_key"], "x in list, or text.contains(part)"),
    (&["reduce", "fold", "avg", "average"], "list.map(item, item.qty).sum()"),
    (&["date_trunc", "hour", "truncate"], "window(t, duration('1h'))"),
    (&["toDate", "to_date", "parseDate"], "timestamp(x), or date(t, 'Europe/Berlin')"),
    (
        &["parseTimestamp", "to_timestamp", "datetime"],
        "timestamp(x) of an RFC 3339 text, or timestampMillis(x)",
    ),
    (&["timestamp_millis", "fromMillis", "from_unixtime"], "timestampMillis(x)"),
    (&["timestamp_micros"], "timestampMicros(x)"),
    (&["regexp_matches", "match", "test"], "x.matches(regex)"),
    (&["keys", "entries"], "object.map(key, key)"),
];

/// The parser's first complaint in fewer words.
pub(super) fn syntax(source: &str, tokens: &[Token<'_>], errors: &ParseErrors) -> ExprError {
    // What the grammar says comes before what the tree lacks because of it.
    let grammar = errors.errors.iter().find(|error| error.msg.contains("Syntax error"));
    let Some(first) = grammar.or(errors.errors.first()) else {
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
        let error = ExprError::new(source, span, message);
        let word = token.map_or("", |token| token.text);
        return match HABITS.iter().find(|(names, _)| names.contains(&word)) {
            Some((_, usage)) => error.help(format!("write {usage}")),
            None => error,
        };
    }
    let texty = scan::texty(source, tokens);
    let error = match token {
        Some(token) if token.text == "?" => ExprError::new(source, span, "`?` is unexpected here")
            .help("a choice between ? and : stands in parentheses, as in a ? (b ? 1 : 2) : 3"),
        Some(token) => ExprError::new(source, span, format!("`{}` is unexpected here", token.text)),
        None => ExprError::new(source, span, "the expression ends too early"),
    };
    let has = |text: &str| tokens.iter().any(|token| token.text == text);
    if error.help.is_some() {
        error
    } else if texty {
        error.help(scan::text_help(source))
    } else if has("?") && !has(":") {
        error.help("a choice has two outcomes: condition ? a : b")
    } else {
        error
    }
}

impl Lower<'_, '_> {
    /// The token where the parser saw the node.
    pub(super) fn token(&self, id: u64) -> Option<usize> {
        let (start, _) = self.info.offset_for(id)?;
        let start = usize::try_from(start).ok()?;
        self.tokens.iter().position(|token| token.end() > start)
    }

    pub(super) fn span(&self, at: Option<usize>) -> (usize, usize) {
        at.and_then(|at| self.tokens.get(at)).map_or((0, self.source.len()), Token::span)
    }

    pub(super) fn error(&self, id: u64, message: impl Into<String>) -> ExprError {
        ExprError::new(self.source, self.span(self.token(id)), message)
    }

    /// At the name behind the dot, or in the brackets, of a member.
    pub(super) fn member_error(&self, id: u64, message: String) -> ExprError {
        ExprError::new(self.source, self.span(self.token(id).map(|at| at + 1)), message)
    }

    /// At the function's name, which stands before the parenthesis.
    pub(super) fn call_error(&self, id: u64, message: impl Into<String>) -> ExprError {
        let at = self.token(id);
        let paren = at.and_then(|at| self.tokens.get(at)).is_some_and(|token| token.text == "(");
        let at = if paren { at.and_then(|at| at.checked_sub(1)) } else { at };
        ExprError::new(self.source, self.span(at), message)
    }

    pub(super) fn known(&self) -> String {
        let known: Vec<&str> =
            VARIABLES.into_iter().filter(|variable| self.can_read(variable)).collect();
        if known.is_empty() {
            return "nothing can be read here: only values and functions".to_owned();
        }
        format!("what can be read here: {}", known.join(", "))
    }

    pub(super) fn columns(&self) -> String {
        let names: Vec<&str> = self.scope.columns.iter().map(|column| &*column.0).collect();
        names.join(", ")
    }

    /// What the name may have been meant to be, and which names there are.
    pub(super) fn unknown_variable(&self, id: u64, name: &str) -> ExprError {
        let error = self.unknown_meaning(id, name);
        let known = self.known();
        match &error.help {
            Some(help) if *help != known => error.also(&known),
            _ => error,
        }
    }

    fn unknown_meaning(&self, id: u64, name: &str) -> ExprError {
        let error = self.error(id, format!("unknown variable `{name}`"));
        if let Some(error) = self.hyphenated(id) {
            return error;
        }
        if let "True" | "TRUE" | "False" | "FALSE" | "Null" | "NULL" = name {
            return error.corrected(&name.to_lowercase());
        }
        if matches!(name, "None" | "nil" | "undefined") {
            return error.corrected("null");
        }
        if self.scope.state && self.scope.columns.iter().any(|column| &*column.0 == name) {
            let event = if self.scope.event {
                format!(", of the event event.{name}")
            } else {
                String::new()
            };
            let said = if self.tokens.len() == 1 {
                format!("; the text itself is \"{}\"", quoted(name))
            } else {
                String::new()
            };
            return error.help(format!("of the row it is state.{name}{event}{said}"));
        }
        let variables = VARIABLES.into_iter().filter(|variable| self.can_read(variable));
        let locals = self.locals.iter().map(String::as_str);
        let follows = self.token(id).and_then(|at| self.tokens.get(at + 1)).map(|t| t.text);
        if let Some(known) = nearest(name, variables.chain(locals))
            && (follows.is_some() || name.len() > 3)
        {
            return error.corrected(known);
        }
        if self.compared(id) && name.len() > 1 {
            return error.help(format!("a text is written {}", quoted(name)));
        }
        // Only words and what joins words: a text whose quotes are missing.
        if scan::texty(self.source, self.tokens) {
            return error.help(scan::text_help(self.source));
        }
        error.help(self.known())
    }

    /// Whether the node is one side of `==` or `!=`, alone: there a name without quotes is meant as a text.
    fn compared(&self, id: u64) -> bool {
        let Some(at) = self.token(id) else { return false };
        let text =
            |at: Option<usize>| at.and_then(|at| self.tokens.get(at)).map(|token| token.text);
        let equality = |text: Option<&str>| matches!(text, Some("==" | "!="));
        let (before, after) = (text(at.checked_sub(1)), text(Some(at + 1)));
        let ends = |text: Option<&str>| {
            matches!(text, None | Some("&&" | "||" | ")" | "(" | "?" | ":" | ","))
        };
        equality(before) && ends(after) || equality(after) && ends(before)
    }

    /// A name with hyphens, which CEL reads as a subtraction: `event.order-id`.
    pub(super) fn hyphenated(&self, id: u64) -> Option<ExprError> {
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
        let message = format!("`{name}` is a subtraction to CEL (write one with spaces: a - b)");
        Some(ExprError::new(self.source, (dot.start, end), message).corrected(&member(name)))
    }

    pub(super) fn impossible(
        &self,
        id: u64,
        name: &str,
        args: &[Cow<'_, Value>],
        fault: Fault,
    ) -> ExprError {
        self.call_error(id, eval::fault(name, args, fault).message)
    }

    pub(super) fn unknown_function(
        &self,
        id: u64,
        name: &str,
        member: bool,
        args: usize,
    ) -> ExprError {
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
            if let Some((_, usage)) = HABITS.iter().find(|(names, _)| names.contains(&name)) {
                return error.help(format!("write {usage}"));
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
        let alone = functions::named(name).all(|function| function.takes.1 == 1);
        let usage = match (member, alone) {
            (true, _) => format!("{name}(x)"),
            (false, true) => format!("x.{name}()"),
            (false, false) => format!("x.{name}(...)"),
        };
        self.call_error(id, format!("{name} is called another way")).help(format!("write {usage}"))
    }
}
