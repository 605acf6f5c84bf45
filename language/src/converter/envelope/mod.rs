//! Envelopes: what Debezium puts around a row and CloudEvents around an event, taken off before the fold.
//!
//! What a CloudEvent's bytes are stands in the record's headers, so its envelope is opened first and the converter reads the data alone
//! ([`cloudevents`]). Debezium's is opened after the converter, which takes the columns that expressions name whole, since what
//! stands for a value that was not sent is told by the column ([`unavailable`]). Of a delete, Debezium knows the record's key only and invents the rest, unless the table has REPLICA IDENTITY FULL and
//! its topic says so.

mod cloudevents;
mod debezium;
pub(crate) mod unavailable;

use std::sync::Arc;

use foldline_api::value::Value;

use super::{ConvertError, Filled, Shape};
use crate::config::projection::Envelope;
use crate::event::{Kind, Layout, Mask, PathSet, Slots};

pub use cloudevents::CloudEvents;
pub(super) use cloudevents::{Content, Payload};

/// Takes one kind of envelope off the records of one topic.
#[derive(Debug)]
pub enum Opener {
    /// Debezium's, off what the converter made.
    Changes(Changes),
    /// A CloudEvent's, off the record.
    CloudEvents(CloudEvents),
}

impl Opener {
    /// For what a projection reads of `event` and `envelope`; `full`: what Debezium says of the row before the change is true.
    #[must_use]
    pub fn new(envelope: Envelope, full: bool, layout: &Layout) -> Self {
        match envelope {
            Envelope::Debezium => Self::Changes(Changes::new(false, full, layout)),
            Envelope::DebeziumFlat => Self::Changes(Changes::new(true, full, layout)),
            Envelope::CloudEvents => Self::CloudEvents(CloudEvents::new(layout)),
        }
    }

    /// What the converter takes of the bytes that it is given.
    #[must_use]
    pub fn mask(&self) -> &Mask {
        match self {
            Self::Changes(changes) => &changes.mask,
            Self::CloudEvents(events) => events.mask(),
        }
    }

    /// How many slots it fills them into.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Self::Changes(changes) => changes.width,
            Self::CloudEvents(events) => events.slots(),
        }
    }

    /// Whether the keys of its topics are objects, whose columns are read where nothing else is there.
    #[must_use]
    pub fn reads_key(&self) -> bool {
        matches!(self, Self::Changes(_))
    }
}

/// Takes Debezium's envelope off.
#[derive(Debug)]
pub struct Changes {
    flat: bool,
    /// Whether what Debezium says of the row before the change is true.
    full: bool,
    reads_before: bool,
    mask: Mask,
    /// How many slots the mask has.
    width: usize,
    op: Option<Place>,
    deleted: Option<Place>,
    /// What is read of the row.
    row: Vec<Leaf>,
    /// What is read around it.
    around: Vec<Leaf>,
    /// How many slots an event has.
    slots: usize,
}

/// A slot of the mask, and how many names of a path lead to it.
type Place = (usize, usize);

/// A path, the event's slot that it fills, and where the mask keeps it.
#[derive(Debug)]
struct Leaf {
    slot: usize,
    path: Vec<Arc<str>>,
    /// In the row as it is, or around it.
    now: Option<Place>,
    /// In the row as it was.
    before: Option<Place>,
}

/// A record's value as its converter found it.
pub(super) struct Closed<'r> {
    pub(super) filled: &'r Filled,
    /// Those of [`Opener::mask`].
    pub(super) slots: &'r [Option<Value>],
    pub(super) key: &'r Value,
    pub(super) topic: &'r str,
    /// All of the value, for what is seldom asked.
    pub(super) whole: &'r dyn Fn() -> Result<Value, ConvertError>,
}

/// The event within.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) slots: Slots,
    pub(super) name: Option<Arc<str>>,
    pub(super) kind: Kind,
    pub(super) of_key: bool,
    pub(super) unavailable: Vec<Arc<str>>,
    pub(super) no_object: Option<&'static str>,
}

const AFTER: &str = "after";
const BEFORE: &str = "before";

impl Changes {
    fn new(flat: bool, full: bool, layout: &Layout) -> Self {
        let name = |name: &str| vec![Arc::from(name)];
        let (op, deleted) =
            if flat { (name("__op"), Some(name("__deleted"))) } else { (name("op"), None) };
        let in_row = |of: &str, path: &[Arc<str>]| -> Vec<Arc<str>> {
            let of = (!flat).then(|| Arc::from(of));
            of.into_iter().chain(path.iter().cloned()).collect()
        };
        let (row, around) = (layout.event.leaves(), layout.envelope.leaves());
        let mut paths = PathSet::default();
        paths.insert(&op);
        deleted.iter().for_each(|path| paths.insert(path));
        for (path, _) in &row {
            // A column whole: what stands for one that was not sent has no paths.
            let column = path.get(..path.len().min(1)).unwrap_or_default();
            paths.insert(&in_row(AFTER, column));
            if full && !flat {
                paths.insert(&in_row(BEFORE, column));
            }
        }
        around.iter().for_each(|(path, _)| paths.insert(path));
        let (mask, width) = paths.mask();
        let leaf = |path: &Vec<Arc<str>>, slot: &usize| Leaf {
            slot: *slot,
            path: path.clone(),
            now: mask.locate(&in_row(AFTER, path)),
            before: if flat { None } else { mask.locate(&in_row(BEFORE, path)) },
        };
        let outside = |(path, slot): &(Vec<Arc<str>>, usize)| Leaf {
            now: mask.locate(path),
            ..leaf(path, slot)
        };
        let reads_before =
            around.iter().any(|(path, _)| path.first().is_some_and(|name| **name == *BEFORE));
        Changes {
            flat,
            full,
            reads_before: reads_before && !flat,
            op: mask.locate(&op),
            deleted: deleted.and_then(|path| mask.locate(&path)),
            row: row.iter().map(|(path, slot)| leaf(path, slot)).collect(),
            around: around.iter().map(outside).collect(),
            slots: layout.slots,
            mask,
            width,
        }
    }

    pub(super) fn open(&self, closed: &Closed<'_>) -> Result<Opened, ConvertError> {
        let mut opened = Opened { slots: self.empty(), ..Opened::default() };
        match closed.filled.shape {
            Shape::Null => {
                opened.kind = Kind::Tombstone;
                self.take_key(closed.key, &mut opened);
                return Ok(opened);
            }
            Shape::Other(found) => {
                return Err(wrong(format!("{found} is no change event of Debezium's")));
            }
            Shape::Object => {}
        }
        self.take_around(closed, &mut opened);
        if self.flat {
            self.open_flat(closed, &mut opened)?;
        } else {
            self.open_change(closed, &mut opened)?;
        }
        Ok(opened)
    }

    fn empty(&self) -> Slots {
        std::iter::repeat_with(|| None).take(self.slots).collect()
    }

    fn take_around(&self, closed: &Closed<'_>, opened: &mut Opened) {
        for leaf in &self.around {
            let found = leaf.now.and_then(|place| at(closed.slots, place, &leaf.path));
            if let Some(slot) = opened.slots.get_mut(leaf.slot) {
                *slot = found.cloned();
            }
        }
    }

    /// The record's key for the row: of what was deleted, nothing else is believed.
    fn take_key(&self, key: &Value, opened: &mut Opened) {
        opened.of_key = true;
        for leaf in &self.row {
            let found = walk(key, &leaf.path).filter(|_| matches!(key, Value::Map(_)));
            if let Some(slot) = opened.slots.get_mut(leaf.slot) {
                *slot = found.cloned();
            }
        }
    }

    /// The row at these places; whether anything of it was found. `depth` names lead to the row.
    fn take_row(
        &self,
        closed: &Closed<'_>,
        depth: usize,
        place: fn(&Leaf) -> Option<Place>,
        opened: &mut Opened,
    ) -> bool {
        let mut any = false;
        for leaf in &self.row {
            let Some((from, known)) = place(leaf) else { continue };
            let Some(Some(found)) = closed.slots.get(from) else { continue };
            // The slot holds the row, or one column of it.
            let column = match leaf.path.split_first() {
                Some((name, _)) if known == depth => walk(found, std::slice::from_ref(name)),
                _ => Some(found),
            };
            let Some(column) = column else { continue };
            any |= !leaf.path.is_empty() || matches!(column, Value::Map(_));
            let value = match leaf.path.split_first() {
                None => Some(without_placeholders(column, &mut opened.unavailable)),
                Some((name, _)) if unavailable::is_placeholder(column) => {
                    note(name, &mut opened.unavailable);
                    None
                }
                Some((_, rest)) => walk(column, rest).cloned(),
            };
            if let Some(slot) = opened.slots.get_mut(leaf.slot) {
                *slot = value;
            }
        }
        any || self.row.is_empty()
    }

    fn text<'r>(&self, closed: &Closed<'r>, place: Option<Place>) -> Option<&'r Value> {
        place.and_then(|(slot, _)| closed.slots.get(slot)?.as_ref()).filter(|v| !v.is_null())
    }
}

/// What is wrong with an envelope.
pub(super) fn wrong(what: impl Into<String>) -> ConvertError {
    ConvertError::Envelope(what.into())
}

fn walk<'v>(value: &'v Value, path: &[Arc<str>]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Map(map) => map.get(name),
        _ => None,
    })
}

fn at<'v>(
    slots: &'v [Option<Value>],
    (slot, depth): Place,
    path: &[Arc<str>],
) -> Option<&'v Value> {
    walk(slots.get(slot)?.as_ref()?, path.get(depth..).unwrap_or_default())
}

fn note(name: &Arc<str>, unavailable: &mut Vec<Arc<str>>) {
    if !unavailable.contains(name) {
        unavailable.push(Arc::clone(name));
    }
}

/// The row without the columns that were not sent.
fn without_placeholders(row: &Value, unavailable: &mut Vec<Arc<str>>) -> Value {
    let Value::Map(map) = row else { return row.clone() };
    let before = unavailable.len();
    for (name, value) in map.iter() {
        if unavailable::is_placeholder(value) {
            note(name, unavailable);
        }
    }
    if unavailable.len() == before {
        return row.clone();
    }
    let sent = map.iter().filter(|(name, _)| !unavailable.contains(name));
    Value::map(sent.map(|(name, value)| (Arc::clone(name), value.clone())).collect())
}
