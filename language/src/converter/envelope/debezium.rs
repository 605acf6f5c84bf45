//! Debezium's change events, whole and unwrapped.

use std::sync::Arc;

use foldline_api::value::{Map, Value};

use super::{AFTER, BEFORE, Changes, Closed, Leaf, Opened, wrong};
use crate::converter::ConvertError;
use crate::event::Kind;

/// What a change does, and how handlers name it.
fn name_of(op: &str) -> Option<(Kind, &'static str)> {
    Some(match op {
        "c" => (Kind::Plain, "create"),
        "r" => (Kind::Plain, "read"),
        "u" => (Kind::Plain, "update"),
        "d" => (Kind::Delete, "delete"),
        "t" => (Kind::Aside, "truncate"),
        "m" => (Kind::Aside, "message"),
        _ => return None,
    })
}

const DEPTH: usize = 1;

impl Changes {
    /// `{ before, after, source, op, … }`.
    pub(super) fn open_change(
        &self,
        closed: &Closed<'_>,
        opened: &mut Opened,
    ) -> Result<(), ConvertError> {
        let (kind, name) = match self.text(closed, self.op) {
            Some(Value::Text(op)) => name_of(op).ok_or_else(|| unknown(op))?,
            Some(other) => return Err(wrong(format!("`op` is {}", other.type_name()))),
            None => (Kind::Aside, aside(closed)?),
        };
        (opened.kind, opened.name) = (kind, Some(Arc::from(name)));
        match kind {
            Kind::Aside | Kind::Tombstone => return Ok(()),
            Kind::Delete if !self.full => self.take_key(closed.key, opened),
            Kind::Delete => {
                if !self.take_row(closed, DEPTH, |leaf: &Leaf| leaf.before, opened) {
                    self.must_be_there(closed, BEFORE, name)?;
                }
            }
            Kind::Plain => {
                if !self.take_row(closed, DEPTH, |leaf: &Leaf| leaf.now, opened) {
                    self.must_be_there(closed, AFTER, name)?;
                }
            }
        }
        if self.reads_before && matches!(name, "update" | "delete") {
            self.check_before(closed, opened, name)?;
        }
        Ok(())
    }

    /// What a projection reads of `before` must be what was there.
    fn check_before(
        &self,
        closed: &Closed<'_>,
        opened: &Opened,
        name: &str,
    ) -> Result<(), ConvertError> {
        if !self.full {
            return Err(wrong(
                "`before` is not believed: its topic does not say replica_identity = \"full\"",
            ));
        }
        let before = |leaf: &&Leaf| leaf.path.first().is_some_and(|name| **name == *BEFORE);
        let mut leaves = self.around.iter().filter(before);
        if leaves.any(|leaf| opened.slots.get(leaf.slot).is_some_and(Option::is_some)) {
            return Ok(());
        }
        self.must_be_there(closed, BEFORE, name)
    }

    /// Nothing that is named was found in it: it may have no such columns, but it must be there.
    fn must_be_there(
        &self,
        closed: &Closed<'_>,
        side: &str,
        name: &str,
    ) -> Result<(), ConvertError> {
        match (closed.whole)()? {
            Value::Map(map) if matches!(map.get(side), Some(Value::Map(_))) => Ok(()),
            _ if side == BEFORE => Err(wrong(format!(
                "`before` of this {name} is null: its topic says replica_identity = \"full\", and its table has no REPLICA IDENTITY FULL"
            ))),
            _ => Err(wrong(format!("`{side}` of this {name} is null"))),
        }
    }

    /// The row alone, with what Debezium added to it in names that begin with `__`.
    pub(super) fn open_flat(
        &self,
        closed: &Closed<'_>,
        opened: &mut Opened,
    ) -> Result<(), ConvertError> {
        let deleted = match self.text(closed, self.deleted) {
            None => None,
            Some(Value::Bool(deleted)) => Some(*deleted),
            Some(Value::Text(text)) if matches!(&**text, "true" | "false") => {
                Some(**text == *"true")
            }
            Some(_) => return Err(wrong("`__deleted` is neither true nor false")),
        };
        let named = match self.text(closed, self.op) {
            None => None,
            Some(Value::Text(op)) => Some(name_of(op).ok_or_else(|| unknown(op))?),
            Some(other) => return Err(wrong(format!("`__op` is {}", other.type_name()))),
        };
        let heartbeat = || closed.topic.starts_with("__debezium-heartbeat");
        let (kind, name) = match (deleted, named) {
            (Some(true), _) => (Kind::Delete, Some("delete")),
            (_, Some((kind, name))) => (kind, Some(name)),
            (None, None) if heartbeat() => (Kind::Aside, Some("heartbeat")),
            (_, None) => (Kind::Plain, None),
        };
        (opened.kind, opened.name) = (kind, name.map(Arc::from));
        match kind {
            Kind::Aside | Kind::Tombstone => {}
            Kind::Delete if !self.full => self.take_key(closed.key, opened),
            Kind::Delete | Kind::Plain => {
                self.take_row(closed, 0, |leaf: &Leaf| leaf.now, opened);
            }
        }
        Ok(())
    }
}

fn unknown(op: &str) -> ConvertError {
    let shown: String = op.chars().take(8).collect();
    wrong(format!("Debezium has no op {shown:?}"))
}

/// What else Debezium writes to the topics of a prefix: no change of a row.
fn aside(closed: &Closed<'_>) -> Result<&'static str, ConvertError> {
    let Value::Map(map) = (closed.whole)()? else { return Err(wrong("no object")) };
    let has = |map: &Map, name: &str| map.get(name).is_some();
    let all = |names: &[&str]| names.iter().all(|name| has(&map, name));
    if all(&["status", "id", "event_count"]) {
        Ok("transaction")
    } else if all(&["source", "ddl"]) || all(&["source", "tableChanges"]) {
        Ok("schema_change")
    } else if has(&map, "ts_ms") && map.len() == 1 {
        Ok("heartbeat")
    } else if all(&["schema", "payload"]) {
        Err(wrong(
            "it has Connect's `schema` and `payload`: give the topic value = \"connect-json\"",
        ))
    } else if has(&map, "__deleted") || has(&map, "__op") {
        Err(wrong("it has no `op`, but `__deleted` or `__op`: the envelope is \"debezium-flat\""))
    } else {
        Err(wrong("it has no `op`, so it is no change event of Debezium's"))
    }
}
