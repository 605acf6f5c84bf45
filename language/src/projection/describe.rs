//! What `plan` says of a projection: what each handler reads and writes, and where the result
//! depends on the order in which partitions are read.

use std::fmt;

use foldline_api::time::Duration;

use super::Projection;
use super::handler::{Action, Effect, Handler, Op};
use super::json::type_text;
use super::matcher::Matcher;
use crate::expr::Expr;

/// A projection in words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Description {
    /// Name and type of each column, with what else is known of it.
    pub columns: Vec<String>,
    /// Key columns and their expressions.
    pub key: Vec<String>,
    /// What the clock deletes.
    pub expire: Option<String>,
    /// One per handler, in config order: what it hears, reads and writes.
    pub handlers: Vec<String>,
    /// Where the result depends on the order of partitions; one sentence each.
    pub order_warnings: Vec<String>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key: {}", self.key.join(", "))?;
        writeln!(f, "columns:")?;
        for column in &self.columns {
            writeln!(f, "  {column}")?;
        }
        if let Some(expire) = &self.expire {
            writeln!(f, "expire: {expire}")?;
        }
        writeln!(f, "handlers, of which the first that matches applies:")?;
        for handler in &self.handlers {
            writeln!(f, "  {handler}")?;
        }
        for warning in &self.order_warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

impl Projection {
    /// The projection in words.
    #[must_use]
    pub fn describe(&self) -> Description {
        let columns = self.model.columns.iter().enumerate().map(|(at, column)| {
            let mut text = format!("{} {}", column.name, type_text(&column.ty));
            if self.model.key.contains(&at) {
                text.push_str(", key");
            }
            if !column.default.is_null() {
                text.push_str(", default ");
                text.push_str(&foldline_api::json::to_string(&column.default));
            }
            if let Some(show) = self.shows.iter().find(|show| show.column == at) {
                let via = self.model.columns.get(show.via).map_or("", |via| &via.name);
                text.push_str(&format!(", shows {}.{} via {via}", show.projection, show.field));
            }
            let mut computed = self.computed.iter().chain(&self.computed_of_shown);
            if let Some((_, expr)) = computed.find(|(column, _)| *column == at) {
                text.push_str(", computed ");
                text.push_str(expr.source());
            }
            text
        });
        let key = self.model.key_columns().zip(&self.key);
        Description {
            columns: columns.collect(),
            key: key.map(|(column, expr)| format!("{} = {}", column.name, expr.source())).collect(),
            expire: self.rule.as_ref().map(|rule| {
                format!(
                    "rows whose {} lies more than {} back are deleted by the clock, and their events filtered",
                    rule.field,
                    Duration(rule.after.saturating_mul(1_000))
                )
            }),
            handlers: self.handlers.iter().map(|handler| self.handler_text(handler)).collect(),
            order_warnings: self.order_warnings(),
        }
    }

    fn handler_text(&self, handler: &Handler) -> String {
        let mut text = handler.label.clone();
        if let Some(topic) = &handler.topic {
            text.push_str(&format!(" of {}", names(topic)));
        }
        if let Some(when) = &handler.when {
            text.push_str(&format!(" when {}", when.source()));
        }
        if let Some(list) = &handler.for_each {
            text.push_str(&format!(" for each of {}", list.source()));
        }
        text.push_str(": ");
        match &handler.effect {
            Effect::Delete => text.push_str("deletes the row"),
            Effect::Ignore => text.push_str("filters the event"),
            Effect::Write(actions) => {
                let written: Vec<String> =
                    actions.iter().map(|action| self.action_text(action)).collect();
                text.push_str(&written.join(", "));
            }
        }
        if let Some(key) = &handler.key {
            let parts = self.model.key_columns().zip(key);
            let parts = parts.map(|(column, expr)| format!("{} = {}", column.name, expr.source()));
            text.push_str(&format!("; key {}", parts.collect::<Vec<_>>().join(", ")));
        }
        let read = self.columns_read(handler);
        if !read.is_empty() {
            text.push_str(&format!("; reads {} of the state", read.join(", ")));
        }
        if handler.continues {
            text.push_str("; goes on to the next handlers");
        }
        text
    }

    fn column_name(&self, at: usize) -> &str {
        self.model.columns.get(at).map_or("", |column| &column.name)
    }

    fn action_text(&self, action: &Action) -> String {
        let name = self.column_name(action.column);
        let value = match &action.op {
            Op::Put(put) => {
                let by = (put.children.by.as_str(), &put.by);
                let fields = put.fields.iter().map(|(name, _, operand)| (&**name, operand));
                let fields = std::iter::once(by).chain(fields);
                let fields =
                    fields.map(|(name, field)| format!("{name} = {}", field.expr.source()));
                format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
            }
            op => op.operands().iter().map(|operand| operand.expr.source()).collect(),
        };
        format!("{} {name} = {value}", action.op.verb())
    }

    fn columns_read(&self, handler: &Handler) -> Vec<&str> {
        let mut columns: Vec<usize> =
            handler.expressions().flat_map(|expr| expr.columns_read()).collect();
        columns.sort_unstable();
        columns.dedup();
        let mut names: Vec<&str> = columns.into_iter().map(|at| self.column_name(at)).collect();
        if handler.expressions().any(Expr::reads_exists) {
            names.push("exists");
        }
        names
    }

    /// Whether every row goes by the record's key: its events are where the producer puts that key.
    #[must_use]
    pub fn is_keyed_by_record(&self) -> bool {
        let by_record_key = |key: &[Expr]| matches!(key, [only] if only.is_record_key());
        by_record_key(&self.key)
            && self.handlers.iter().filter_map(|h| h.key.as_deref()).all(by_record_key)
    }

    /// Whether no event ever touches more than one row, so that rows can be folded one without another.
    #[must_use]
    pub fn has_one_key(&self) -> bool {
        let own = |handler: &Handler| handler.key.is_some();
        let goes_on = |handler: &Handler| {
            handler.continues || handler.when.as_ref().is_some_and(Expr::reads_state)
        };
        let many = self.handlers.iter().any(|handler| handler.for_each.is_some());
        let passed_on = self.handlers.iter().any(own) && self.handlers.iter().any(goes_on);
        !(many || passed_on)
    }

    /// Whether all events of one key come from one partition.
    fn has_one_order(&self) -> bool {
        let one_topic = matches!(&self.topics, Matcher::List(list) if list.len() == 1);
        one_topic && self.is_keyed_by_record()
    }

    /// What writes a column, where the order of partitions decides what stands there.
    fn clashing(&self, at: usize) -> Option<Vec<(&Handler, &Action)>> {
        let writers: Vec<(&Handler, &Action)> = self
            .handlers
            .iter()
            .flat_map(|h| h.actions().iter().map(move |action| (h, action)))
            .filter(|(_, action)| action.column == at)
            .collect();
        let apart = !self.is_keyed_by_record()
            || !of_one_topic(writers.iter().map(|(handler, _)| *handler));
        (apart && !commute(&writers)).then_some(writers)
    }

    /// Handlers whose effect on the whole row depends on the order of partitions; whether it is by the
    /// state that they find, and not by deleting it.
    fn order_decides(&self) -> impl Iterator<Item = (&Handler, bool)> {
        let alone = self.is_keyed_by_record() && of_one_topic(self.handlers.iter());
        self.handlers.iter().filter_map(move |handler| {
            let decides = handler.when.as_ref().is_some_and(Expr::reads_state);
            let deletes = matches!(handler.effect, Effect::Delete);
            (!alone && (decides || deletes)).then_some((handler, decides))
        })
    }

    /// For each column, whether its value may be another where the same events of several partitions
    /// come in another order.
    #[must_use]
    pub fn order_dependent(&self) -> Vec<bool> {
        let count = self.model.columns.len();
        if self.has_one_order() {
            return vec![false; count];
        }
        if self.order_decides().next().is_some() {
            return vec![true; count];
        }
        let mut columns: Vec<bool> = (0..count).map(|at| self.clashing(at).is_some()).collect();
        if columns.contains(&true) {
            for (at, _) in &self.computed {
                if let Some(column) = columns.get_mut(*at) {
                    *column = true;
                }
            }
        }
        columns
    }

    /// Where events of one key may come from several partitions, and handlers do not commute: the
    /// result is that of some order, and a rebuild may come to another.
    fn order_warnings(&self) -> Vec<String> {
        let keyed = self.is_keyed_by_record();
        if self.has_one_order() {
            return Vec::new();
        }
        let cause = if keyed {
            "events of one key come from several topics"
        } else {
            "the key is not the record's `key`, so its events may come from several partitions"
        };
        let mut out = Vec::new();
        for (at, column) in self.model.columns.iter().enumerate() {
            let Some(writers) = self.clashing(at) else { continue };
            let labels: Vec<&str> = writers.iter().map(|(handler, _)| &*handler.label).collect();
            let name = &column.name;
            out.push(format!(
                "{name} depends on the order of partitions: {cause}, and {} {} it by `{}`",
                labels.join(", "),
                if labels.len() == 1 { "changes" } else { "change" },
                verbs(&writers)
            ));
        }
        for (handler, decides) in self.order_decides() {
            let what = if decides {
                "applies or not by the state it finds"
            } else {
                "deletes the row, which earlier or later events may make again"
            };
            out.push(format!(
                "{} depends on the order of partitions: {cause}, and it {what}",
                handler.label
            ));
        }
        out
    }
}

fn names(matcher: &Matcher) -> String {
    match matcher {
        Matcher::List(list) => list.join(", "),
        Matcher::Regex(regex) => regex.as_str().to_owned(),
    }
}

/// Whether all of these hear one topic, the same.
fn of_one_topic<'a>(handlers: impl Iterator<Item = &'a Handler>) -> bool {
    let mut topics = handlers.map(|handler| match &handler.topic {
        Some(Matcher::List(list)) if list.len() == 1 => list.first(),
        _ => None,
    });
    match topics.next() {
        None => true,
        Some(None) => false,
        Some(first) => topics.all(|topic| topic == first),
    }
}

/// Whether these give the same in any order: sums with sums, smallest with smallest, children
/// under their own key, one constant.
fn commute(writers: &[(&Handler, &Action)]) -> bool {
    let reads_state =
        |action: &Action| action.op.operands().iter().any(|operand| operand.expr.reads_state());
    if writers.iter().any(|(_, action)| reads_state(action)) {
        return false;
    }
    let all = |wanted: fn(&Op) -> bool| writers.iter().all(|(_, action)| wanted(&action.op));
    let constant = |op: &Op| match op {
        Op::Set(operand) | Op::Merge(operand) | Op::Patch(operand) => operand.constant.clone(),
        _ => None,
    };
    let mut constants = writers.iter().map(|(_, action)| constant(&action.op));
    let one_constant = match constants.next() {
        None => true,
        Some(None) => false,
        Some(first) => constants.all(|other| other == first),
    };
    one_constant
        || all(|op| matches!(op, Op::Add(_)))
        || all(|op| matches!(op, Op::Min(_)))
        || all(|op| matches!(op, Op::Max(_)))
        || all(|op| matches!(op, Op::Put(_)))
        || all(|op| matches!(op, Op::Remove(_)))
}

fn verbs(writers: &[(&Handler, &Action)]) -> String {
    let mut verbs: Vec<&str> = writers.iter().map(|(_, action)| action.op.verb()).collect();
    verbs.sort_unstable();
    verbs.dedup();
    verbs.join("`, `")
}
