//! Config to [`Projection`]: types, expressions and everything that can be wrong with them.

use std::sync::Arc;

use foldline_api::column::{Children, ColumnType, IDENTIFIER_BYTES_MAX};
use foldline_api::model::{Column, Model, Row};
use foldline_api::value::Value;
use indexmap::IndexMap;

use super::handler::{Dispatch, Handler, Operand as Typed};
use super::literal::literal;
use super::matcher::Matcher;
use super::{Problem, Projection, json};
use crate::config::diagnostic::closest;
use crate::config::projection::{Envelope, FieldConfig, Located, Names, Operand, ProjectionConfig};
use crate::config::topic_facts::TopicFacts;
use crate::converter::envelope::Opener;
use crate::event::{Layout, Mask, PathSet};
use crate::expr::{Expr, Scope};

/// What an expression may read besides literals.
#[derive(Clone, Copy, Default)]
pub(super) struct Reads<'a> {
    pub(super) event: bool,
    pub(super) state: bool,
    pub(super) item: bool,
    pub(super) child: Option<&'a [Arc<str>]>,
}

/// A compilation under way: it goes on after a problem, so that all are reported at once.
pub(super) struct Compiler<'a> {
    pub(super) config: &'a ProjectionConfig,
    pub(super) columns: Vec<(Arc<str>, ColumnType)>,
    /// Columns that are looked up, or computed from such.
    pub(super) hidden: Vec<usize>,
    /// Whether what is compiled now is of the fold, which does not see them.
    pub(super) folds: bool,
    paths: PathSet,
    pub(super) problems: Vec<Problem>,
}

impl Projection {
    /// Compiles a projection.
    ///
    /// # Errors
    /// All problems at once.
    pub fn compile(config: &ProjectionConfig) -> Result<Projection, Vec<Problem>> {
        let mut compiler = Compiler {
            config,
            columns: Vec::new(),
            hidden: Vec::new(),
            folds: false,
            paths: PathSet::default(),
            problems: vec![],
        };
        let columns = compiler.columns();
        let mut model = compiler.model(columns);
        let rule = compiler.expire(&model);
        if let Some(column) = rule.as_ref().and_then(|rule| model.columns.get_mut(rule.indexed()?))
        {
            column.index = true;
        }
        let shows = compiler.shows();
        let gathers = compiler.gathers();
        let (computed, later) = compiler.computed_first(&model);
        let [computed, computed_of_shown] = compiler.part(computed);
        let topics = compiler.matcher("topics", &config.topics);
        let event_type = config.event_type.as_ref().and_then(|at| compiler.expr(at, Reads::EVENT));
        let key = compiler.key(&config.key, &model, Reads::EVENT);
        let handlers: Vec<Option<Handler>> =
            (0..).zip(&config.on).map(|(at, on)| compiler.handler(at, on, &model)).collect();
        compiler.problems.extend(later);
        compiler.deletes(&key);
        let (Some(topics), true) = (topics, compiler.problems.is_empty()) else {
            return Err(compiler.problems);
        };
        let blank = Row::new(model.columns.iter().map(|c| c.default.clone()).collect());
        let json = json::projection(config, &model.columns);
        let handlers: Vec<Handler> = handlers.into_iter().flatten().collect();
        let mut projection = Projection {
            name: Arc::from(config.name.as_str()),
            topics,
            event_type,
            key,
            dispatch: Dispatch::new(&handlers),
            computed_is_read: reads_computed(&handlers, &computed),
            handlers,
            computed,
            computed_of_shown,
            shows,
            gathers,
            blank,
            fingerprint: json::fingerprint(&json),
            json,
            model: Arc::new(model),
            layout: Layout {
                event: Mask::Fields(Vec::new()),
                envelope: Mask::Fields(Vec::new()),
                slots: 0,
            },
            openers: None,
            sources: config.sources.clone(),
            reads_key: false,
            rule,
        };
        if let Some(handler) = projection.moments_of_one_event() {
            compiler.several_moments(&handler);
            return Err(compiler.problems);
        }
        projection.link(&compiler.paths);
        projection.openers = config.envelope.map(|envelope| {
            [false, true].map(|full| Arc::new(Opener::new(envelope, full, &projection.layout)))
        });
        projection.reads_key |=
            projection.openers.iter().flatten().any(|opener| opener.reads_key());
        Ok(projection)
    }

    /// Tells every expression in which slot it finds its paths.
    fn link(&mut self, paths: &PathSet) {
        let layout = paths.layout();
        for expr in self.key.iter_mut().chain(&mut self.event_type) {
            expr.link(&layout);
        }
        for handler in &mut self.handlers {
            handler.link(&layout);
        }
        for (_, expr) in self.computed.iter_mut().chain(&mut self.computed_of_shown) {
            expr.link(&layout);
        }
        self.layout = layout;
        self.reads_key = paths.reads_key();
    }
}

fn reads_computed(handlers: &[Handler], computed: &[(usize, Expr)]) -> bool {
    let is_computed = |column: &usize| computed.iter().any(|(at, _)| at == column);
    let mut expressions = handlers.iter().flat_map(Handler::expressions);
    expressions.any(|expr| expr.columns_read().iter().any(is_computed))
}

impl Reads<'_> {
    pub(super) const EVENT: Reads<'static> =
        Reads { event: true, state: false, item: false, child: None };
}

impl<'a> Compiler<'a> {
    pub(super) fn problem(&mut self, path: &str, message: impl Into<String>, help: Option<String>) {
        self.problems.push(Problem { path: path.to_owned(), message: message.into(), help });
    }

    /// A path below the projection.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("projections.{}.{rest}", self.config.name)
    }

    /// A path as messages about records shorten it: without the projection.
    pub(super) fn place(&self, path: &str) -> String {
        path.strip_prefix(&self.path("")).unwrap_or(path).to_owned()
    }

    pub(super) fn matcher(&mut self, rest: &str, names: &Names) -> Option<Matcher> {
        Matcher::compile(names).map_err(|m| self.problem(&self.path(rest), m, None)).ok()
    }

    fn columns(&mut self) -> Vec<Column> {
        let config = self.config;
        let mut columns = Vec::with_capacity(config.fields.len());
        for (name, field) in &config.fields {
            self.check_name(name, &field.path);
            // A stand-in keeps the column known, so that one wrong type is one problem.
            let ty = self.column_type(field).unwrap_or(ColumnType::Jsonb);
            let default = self.default(field, &ty);
            let name: Arc<str> = Arc::from(name.as_str());
            self.columns.push((Arc::clone(&name), ty.clone()));
            let index = field.value.index || self.is_via(&name);
            columns.push(Column { name, ty, index, default });
        }
        columns
    }

    fn check_name(&mut self, name: &str, path: &str) {
        if name.is_empty() || name.len() > IDENTIFIER_BYTES_MAX {
            let found = name.len();
            let message =
                format!("the name has {found} bytes; allowed are 1 to {IDENTIFIER_BYTES_MAX}");
            self.problem(path, message, None);
        }
        if name.starts_with("_foldline") {
            self.problem(path, "names that start with `_foldline` are Foldline's own", None);
        }
    }

    fn column_type(&mut self, field: &Located<FieldConfig>) -> Option<ColumnType> {
        if field.value.ty != "children" {
            return self.scalar_type(field);
        }
        let by = field.value.by.clone().unwrap_or_default();
        let mut fields = Vec::with_capacity(field.value.fields.len());
        for (name, child) in &field.value.fields {
            self.check_name(name, &child.path);
            if child.value.ty == "children" {
                let help = Some("a jsonb field holds any objects".to_owned());
                self.problem(&child.path, "children have no children of their own", help);
                continue;
            }
            let ty = self.scalar_type(child)?;
            if *name == by && !ty.can_be_key() {
                let message = format!("{ty} cannot be a child's key: its equality is not exact");
                self.problem(&child.path, message, None);
            }
            fields.push((Arc::from(name.as_str()), ty));
        }
        let known = fields.iter().any(|(name, _): &(Arc<str>, _)| **name == by);
        if !known && (field.value.lookup.is_none() || !fields.is_empty()) {
            let message = format!("`by` is {by:?}, which is none of the child's fields");
            self.problem(&format!("{}.by", field.path), message, None);
        }
        Some(ColumnType::Children(Arc::new(Children { by, fields })))
    }

    fn scalar_type(&mut self, field: &Located<FieldConfig>) -> Option<ColumnType> {
        const NAMES: [&str; 16] = [
            "bigint",
            "integer",
            "smallint",
            "double precision",
            "real",
            "numeric",
            "boolean",
            "text",
            "varchar",
            "timestamptz",
            "date",
            "time",
            "uuid",
            "bytea",
            "jsonb",
            "children",
        ];
        match ColumnType::parse(&field.value.ty) {
            Ok(ty) => Some(ty),
            Err(message) => {
                let near = closest(&field.value.ty, NAMES);
                let help = near.map(|near| format!("did you mean `{near}`?"));
                self.problem(&field.path, message, help);
                None
            }
        }
    }

    pub(super) fn default(&mut self, field: &Located<FieldConfig>, ty: &ColumnType) -> Value {
        let Some(default) = &field.value.default else { return Value::Null };
        let path = format!("{}.default", field.path);
        self.typed(&path, default, ty).unwrap_or_default()
    }

    /// A literal of a type.
    pub(super) fn typed(
        &mut self,
        path: &str,
        given: &toml::Value,
        ty: &ColumnType,
    ) -> Option<Value> {
        let typed = literal(given).and_then(|value| ty.coerce(value).map_err(|e| e.to_string()));
        typed.map_err(|message| self.problem(path, message, None)).ok()
    }

    fn model(&mut self, columns: Vec<Column>) -> Model {
        let config = self.config;
        let mut model = Model { columns, key: Vec::new(), indexes: Vec::new() };
        if config.key.is_empty() {
            let help = Some("key = { id = \"event.id\" }".to_owned());
            self.problem(&self.path("key"), "the key has no columns", help);
        }
        for (name, expression) in &config.key {
            let Some(at) = self.position(&expression.path, name) else { continue };
            let Some((_, ty)) = self.columns.get(at) else { continue };
            if !ty.can_be_key() {
                let message =
                    format!("{ty} cannot be a key: its equality is not the same in every store");
                let help = Some(
                    "use text, uuid, bigint, integer, numeric, timestamptz or date".to_owned(),
                );
                self.problem(&expression.path, message, help);
            }
            let field = config.fields.get(name).map(|field| &field.value);
            if field.is_some_and(|field| field.computed.is_some()) {
                self.problem(&expression.path, "a computed field cannot be a key", None);
            }
            if field.is_some_and(|field| field.lookup.is_some()) {
                self.problem(&expression.path, "a looked-up field cannot be a key", None);
            }
            model.key.push(at);
        }
        for (at, index) in config.indexes.iter().enumerate() {
            let path = self.path(&format!("indexes[{at}]"));
            let columns = index.iter().filter_map(|name| self.position(&path, name)).collect();
            model.indexes.push(columns);
        }
        model
    }

    /// A column by name, or a problem that says what there is.
    pub(super) fn position(&mut self, path: &str, name: &str) -> Option<usize> {
        let found = self.columns.iter().position(|(known, _)| **known == *name);
        if found.is_none() {
            let known: Vec<&str> = self.columns.iter().map(|(known, _)| &**known).collect();
            let help =
                closest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            let message = format!("{name:?} is no field; the fields are {}", known.join(", "));
            self.problem(path, message, help);
        }
        found
    }

    /// Key expressions in the model's order.
    pub(super) fn key(
        &mut self,
        key: &IndexMap<String, Located<Operand>>,
        model: &Model,
        reads: Reads<'_>,
    ) -> Vec<Expr> {
        let mut out = Vec::with_capacity(model.key.len());
        for column in model.key_columns() {
            let Some(at) = key.get(&*column.name) else {
                let path =
                    key.values().next().map_or_else(|| self.path("on"), |at| at.path.clone());
                let message = format!("the key column {:?} is missing here", &*column.name);
                self.problem(&path, message, None);
                continue;
            };
            let typed = self.operand(at, &column.ty, reads);
            out.extend(typed.map(|typed| typed.constant.map_or(typed.expr, Expr::constant)));
        }
        out
    }

    /// An expression or a literal as it stands.
    pub(super) fn expr(&mut self, at: &Located<Operand>, reads: Reads<'_>) -> Option<Expr> {
        match &at.value {
            Operand::Expression(source) => self.source(&at.path, source, reads),
            Operand::Literal(value) => match literal(value) {
                Ok(value) => Some(Expr::constant(value)),
                Err(message) => {
                    self.problem(&at.path, message, None);
                    None
                }
            },
        }
    }

    pub(super) fn source(&mut self, path: &str, source: &str, reads: Reads<'_>) -> Option<Expr> {
        let Reads { event, state, item, child } = reads;
        let (envelope, columns) = (self.config.envelope, &self.columns);
        let scope = Scope { columns, state, fields: false, item, child, event, envelope };
        match Expr::compile(source, &scope, &mut self.paths) {
            Ok(expr) if expr.reads_before() && envelope == Some(Envelope::Debezium) => {
                let kept = self.keeps_to_the_fold(path, &expr);
                (self.believed(path) && kept).then_some(expr)
            }
            Ok(expr) => self.keeps_to_the_fold(path, &expr).then_some(expr),
            Err(mut error) => {
                let help = error.help.take();
                self.problem(path, error.to_string(), help);
                None
            }
        }
    }

    /// A field of what an expression yields: the short form's `event` is `event.price` for price.
    pub(super) fn field_of(
        &mut self,
        at: &Located<Operand>,
        name: &str,
        reads: Reads<'_>,
    ) -> Option<Expr> {
        let Operand::Expression(source) = &at.value else {
            let help = Some("\"event\" stands for all fields, each by its own name".to_owned());
            self.problem(&at.path, "found a literal, expected an expression", help);
            return None;
        };
        match source.trim() {
            "event" => Some(Expr::path_of_event(name, &mut self.paths)),
            source => {
                let quoted = name.replace('\\', "\\\\").replace('\'', "\\'");
                self.source(&at.path, &format!("({source})['{quoted}']"), reads)
            }
        }
    }

    /// An operand of a column's type; what is known now is converted now.
    pub(super) fn operand(
        &mut self,
        at: &Located<Operand>,
        ty: &ColumnType,
        reads: Reads<'_>,
    ) -> Option<Typed> {
        let expr = self.expr(at, reads)?;
        let Some(value) = expr.constant_value() else {
            return Some(Typed { expr, constant: None });
        };
        match ty.coerce(value.clone()) {
            Ok(value) => Some(Typed { expr, constant: Some(value) }),
            Err(error) => {
                self.problem(&at.path, error.to_string(), None);
                None
            }
        }
    }

    pub(super) fn computed(&mut self, model: &Model) -> Vec<(usize, Expr)> {
        let config = self.config;
        let mut out: Vec<(usize, Expr)> = Vec::new();
        for (at, (name, field)) in config.fields.iter().enumerate() {
            let Some(source) = &field.value.computed else { continue };
            let path = format!("{}.computed", field.path);
            let reads = Reads { state: true, ..Reads::default() };
            let Some(expr) = self.source(&path, source, reads) else { continue };
            for read in expr.columns_read() {
                let later =
                    model.columns.get(read).and_then(|c| config.fields.get_key_value(&*c.name));
                if let Some((other, _)) =
                    later.filter(|(_, f)| read >= at && f.value.computed.is_some())
                {
                    let message = if other == name {
                        "a computed field cannot read itself".to_owned()
                    } else {
                        format!("reads the computed field {other:?}, which comes after it")
                    };
                    let help =
                        Some("a computed field sees the computed fields above it".to_owned());
                    self.problem(&path, message, help);
                }
            }
            out.push((at, expr));
        }
        out
    }

    /// The first topic of which `fault` holds, and where a source says so.
    fn topic_with(&self, fault: fn(TopicFacts) -> bool) -> Option<(String, &'a str)> {
        let (topics, sources) = (&self.config.topics, &self.config.sources);
        let found = sources.iter().find_map(|source| {
            source.first_of(topics, fault).map(|topic| (&*source.source, topic))
        });
        let unknown = || match topics {
            _ if !sources.is_empty() || !fault(TopicFacts::default()) => None,
            Names::List(list) => list.first().map(|topic| ("events", topic.as_str())),
            Names::Regex(regex) => Some(("events", regex.as_str())),
        };
        let (source, topic) = found.or_else(unknown)?;
        let bare = topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        let quoted = if bare { topic.to_owned() } else { format!("'{topic}'") };
        Some((format!("[sources.{source}.topics.{quoted}]"), topic))
    }

    /// What Debezium says of a row before a change is believed where the topic says that it is true.
    fn believed(&mut self, path: &str) -> bool {
        let Some((place, topic)) = self.topic_with(|facts| !facts.full) else { return true };
        let message = format!(
            "`envelope.before` is refused: {topic:?} does not say replica_identity = \"full\", and without it Debezium invents \
             what it does not know of the row before"
        );
        let help = format!(
            "{place}\nreplica_identity = \"full\"   # if its table has REPLICA IDENTITY FULL"
        );
        self.problem(path, message, Some(help));
        false
    }

    /// Of a delete only the record's key is believed, so it must be read as an object.
    fn deletes(&mut self, key: &[Expr]) {
        let debezium =
            matches!(self.config.envelope, Some(Envelope::Debezium | Envelope::DebeziumFlat));
        if !debezium || !key.iter().any(Expr::reads_event) {
            return;
        }
        let Some((place, topic)) = self.topic_with(|facts| facts.flat_key && !facts.full) else {
            return;
        };
        let message = format!(
            "reads `event`, of which a delete has the columns of the record's key: the keys of {topic:?} are no objects here"
        );
        let help =
            format!("{place}\nkey = \"json\"   # as Debezium writes them, or \"connect-json\"");
        self.problem(&self.path("key"), message, Some(help));
    }
}
