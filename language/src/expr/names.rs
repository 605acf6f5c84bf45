//! Names: what they stand for, and whether they may be read here.

use std::sync::Arc;

use cel::common::ast::{Expr as Ast, IdedExpr, LiteralValue, operators};
use foldline_api::value::Value;

use super::compile::{Lower, Lowered};
use super::error::{ExprError, nearest};
use super::functions;
use super::node::{Node, PathRef};
use crate::config::projection::Envelope;
use crate::event::Root;

/// Names that stand for something at the top, where the scope allows it.
pub(super) const VARIABLES: [&str; 12] = [
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
impl Lower<'_, '_> {
    pub(super) fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|local| local == name)
    }

    pub(super) fn variable(&mut self, id: u64, name: &str) -> Lowered {
        if let Some(depth) = self.locals.iter().rev().position(|local| local == name) {
            return Ok(Node::Local(depth));
        }
        let name = name.strip_prefix('.').unwrap_or(name);
        if self.scope.fields {
            return self.field(id, name);
        }
        if VARIABLES.contains(&name) {
            self.allowed(id, name)?;
        }
        match name {
            "event" => Ok(self.path(Root::Event, Vec::new())),
            "envelope" => self.envelope(id, Vec::new()),
            "key" => {
                self.reads.key = true;
                Ok(self.record(Node::Key))
            }
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
                // Alone it is no type to compare with, but a text that lacks its quotes.
                Some(ty) if self.tokens.len() > 1 => Ok(Node::Const(Value::text(ty))),
                _ => Err(self.unknown_variable(id, name)),
            },
        }
    }

    pub(super) fn record(&mut self, node: Node) -> Node {
        self.reads.record = true;
        node
    }

    pub(super) fn path(&mut self, root: Root, names: Vec<Arc<str>>) -> Node {
        let same = |known: &PathRef| known.root == root && known.names == names;
        let at = self.paths.iter().position(same).unwrap_or_else(|| {
            self.paths.push(PathRef::new(root, names));
            self.paths.len() - 1
        });
        Node::Path(at)
    }

    /// A path below `envelope`. The row is no part of it, but for what it was before: as `event` it lacks what the
    /// source could not send.
    fn envelope(&mut self, id: u64, names: Vec<Arc<str>>) -> Lowered {
        let first = names.first().map(|name| &**name);
        let (fault, help) = match (self.scope.envelope, first) {
            (Some(Envelope::Debezium), None) => {
                ("`envelope` is read name by name", "as in envelope.op or envelope.source.ts_ms")
            }
            (Some(Envelope::Debezium), Some("after")) => {
                ("`envelope.after` is `event`", "a column of it is event.name")
            }
            (Some(Envelope::DebeziumFlat), first)
                if !first.is_some_and(|n| n.starts_with("__")) =>
            {
                (
                    "`envelope` holds what Debezium added to a flat row, whose names begin with `__`",
                    "as in envelope.__op or envelope.__source_ts_ms; a column is event.name",
                )
            }
            (Some(Envelope::CloudEvents), _) => match cloud_attribute(&names) {
                Some(wrong) => wrong,
                None => return Ok(self.path(Root::Envelope, names)),
            },
            _ => return Ok(self.path(Root::Envelope, names)),
        };
        Err(self.error(id, fault).help(help))
    }

    pub(super) fn can_read(&self, name: &str) -> bool {
        match name {
            "state" | "exists" => self.scope.state,
            "item" => self.scope.item,
            "child" => self.scope.child.is_some(),
            "envelope" => self.scope.envelope.is_some() && self.scope.event,
            _ => self.scope.event,
        }
    }

    pub(super) fn allowed(&self, id: u64, name: &str) -> Result<(), ExprError> {
        if self.can_read(name) {
            return Ok(());
        }
        if name == "envelope" && self.scope.event {
            return Err(self
                .error(id, "`envelope` is there only where the projection has one")
                .help("envelope = \"debezium\", \"debezium-flat\" or \"cloudevents\""));
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

    /// The names below `event` or `envelope` that `ast` spells, if it is such a path.
    pub(super) fn rooted_path(&self, ast: &IdedExpr) -> Option<(Root, Vec<Arc<str>>)> {
        let (outer, name): (&IdedExpr, &str) = match &ast.expr {
            Ast::Ident(name) => {
                let root = match name.trim_start_matches('.') {
                    "event" => Root::Event,
                    "envelope" => Root::Envelope,
                    _ => return None,
                };
                let may = !self.is_local(name) && self.can_read(name.trim_start_matches('.'));
                return may.then(|| (root, Vec::new()));
            }
            Ast::Select(select) if !select.test => (&select.operand, &select.field),
            Ast::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [outer, index] => (outer, text_literal(index)?),
                _ => return None,
            },
            _ => return None,
        };
        let (root, mut names) = self.rooted_path(outer)?;
        names.push(Arc::from(name));
        Some((root, names))
    }

    /// `operand.name` and `operand['name']`.
    pub(super) fn member(&mut self, id: u64, operand: &IdedExpr, name: &str) -> Lowered {
        if let Some((root, mut names)) = self.rooted_path(operand) {
            names.push(Arc::from(name));
            return match root {
                Root::Event => Ok(self.path(root, names)),
                Root::Envelope => self.envelope(id, names),
            };
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

    pub(super) fn column(&mut self, id: u64, name: &str) -> Lowered {
        if let Some(column) = self.scope.columns.iter().position(|column| &*column.0 == name) {
            self.reads.columns.push(column);
            return Ok(Node::State(column));
        }
        let error = self.member_error(id, format!("`state` has no column `{name}`"));
        Err(match nearest(name, self.scope.columns.iter().map(|column| &*column.0)) {
            Some(known) => error.corrected(known).also(&format!("columns are: {}", self.columns())),
            None => error.help(format!("columns are: {}", self.columns())),
        })
    }

    /// A column by its name alone.
    fn field(&mut self, id: u64, name: &str) -> Lowered {
        if let Some(column) = self.scope.columns.iter().position(|column| &*column.0 == name) {
            return Ok(Node::State(column));
        }
        let error = self.error(id, format!("there is no field `{name}`"));
        let known = format!("fields are: {}", self.columns());
        Err(match nearest(name, self.scope.columns.iter().map(|column| &*column.0)) {
            Some(nearest) => error.corrected(nearest).also(&known),
            None => error.help(known),
        })
    }

    pub(super) fn child_field(&self, id: u64, root: u64, name: &str) -> Result<(), ExprError> {
        self.allowed(root, "child")?;
        let fields = self.scope.child.unwrap_or_default();
        if fields.iter().any(|field| **field == *name) {
            return Ok(());
        }
        let error = self.member_error(id, format!("`child` has no field `{name}`"));
        let names: Vec<&str> = fields.iter().map(|field| &**field).collect();
        let help = format!("fields are: {}", names.join(", "));
        Err(match nearest(name, names.iter().copied()) {
            Some(known) => error.corrected(known).also(&help),
            None => error.help(help),
        })
    }
}

/// Why these names are no attribute of a CloudEvent, and what is one.
fn cloud_attribute(names: &[Arc<str>]) -> Option<(&'static str, &'static str)> {
    let letters =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    match names {
        [] => Some((
            "`envelope` is read name by name",
            "as in envelope.id, envelope.source or envelope.time",
        )),
        [name, ..] if matches!(&**name, "data" | "data_base64") => {
            Some(("the data of a CloudEvent is `event`", "a field of it is event.name"))
        }
        [name, ..] if !letters(name) => Some((
            "a CloudEvent's attributes have names of lower-case letters and digits",
            "as in envelope.type; an extension's name is written so too",
        )),
        [_] => None,
        [..] => Some((
            "a CloudEvent's attribute is a text, which has no fields",
            "as in envelope.id, envelope.source or envelope.time",
        )),
    }
}

pub(super) fn text_literal(ast: &IdedExpr) -> Option<&str> {
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
