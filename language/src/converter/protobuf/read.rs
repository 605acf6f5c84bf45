//! Messages by their schema. What is one message may stand in several pieces, which are read as if they were one: so
//! fields that are messages are gathered, and read at the end of what holds them.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::json::DEPTH_MAX;
use foldline_api::value::{Map, Value};
use smallvec::{SmallVec, smallvec};

use super::cursor::{Cursor, LEN, Span, Tag};
use super::fault::{Fault, Read, What};
use super::schema::{Kind, Message, Schema, Special};
use super::steps::{Act, Gathered, Step, Steps, Take};
use super::{scalar, special};
use crate::converter::fault::{Part, field_part};
use crate::converter::take;

/// The pieces of a message.
type Spans = SmallVec<[Span; 1]>;
/// Where what is read goes.
pub(super) type Slots = SmallVec<[Option<Value>; 8]>;

pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) schema: &'a Schema,
    pub(super) budget: &'a Budget,
}

/// A message under way: for each oneof the step that is set, and what is made at its end.
struct Pending<'r, 'a> {
    reader: &'r Reader<'a>,
    steps: &'r Steps,
    depth: usize,
    set: SmallVec<[Option<usize>; 2]>,
    messages: SmallVec<[Spans; 2]>,
    lists: SmallVec<[Vec<Value>; 2]>,
    maps: SmallVec<[Vec<Entry>; 1]>,
    /// For each name the last entry of that key.
    keys: SmallVec<[SmallVec<[Option<Span>; 4]>; 1]>,
}

type Entry = (Arc<str>, Value);

impl<'a> Reader<'a> {
    pub(super) fn whole_span(&self) -> Span {
        Span { at: 0, end: self.bytes.len() }
    }

    /// Reads into slots what the steps name of a message.
    pub(super) fn fields(
        &self,
        steps: &Steps,
        spans: &[Span],
        slots: &mut [Option<Value>],
        depth: usize,
    ) -> Read<()> {
        if depth > DEPTH_MAX {
            let at = spans.first().map_or(0, |span| span.at);
            return Err(Fault::new(at, What::Depth));
        }
        for (slot, default) in &steps.defaults {
            put(slots, *slot, Some(default.clone()));
        }
        let mut message = Pending::new(self, steps, depth);
        let mut next = 0;
        for span in spans {
            let mut cursor = Cursor::new(self.bytes, *span);
            while !cursor.is_empty() {
                let tag = cursor.tag()?;
                let found = steps.find(tag.number, &mut next);
                match found.and_then(|at| Some((at, steps.steps.get(at)?))) {
                    Some((at, step)) => message
                        .field(at, step, tag, &mut cursor, slots)
                        .map_err(|fault| fault.within(field_part(&step.name)))?,
                    None => cursor.skip(tag, depth)?,
                }
            }
        }
        message.finish(slots)
    }

    /// A message, whole.
    pub(super) fn message(&self, ty: usize, spans: &[Span], depth: usize) -> Read<Value> {
        let Some(message) = self.schema.message(ty) else { return Ok(Value::Null) };
        if message.special != Special::No {
            return special::take(self, message, spans, depth);
        }
        Ok(Value::Map(Arc::new(Map::from_entries(self.entries(message, spans, depth)?))))
    }

    /// What an object of a message has.
    pub(super) fn entries(
        &self,
        message: &Message,
        spans: &[Span],
        depth: usize,
    ) -> Read<Vec<Entry>> {
        let size = message.names.len().saturating_mul(size_of::<(Arc<str>, Value)>());
        self.budget.bytes(size)?;
        let slots = self.slots(message, spans, depth)?;
        let named = message.names.iter().zip(slots);
        Ok(named.filter_map(|(name, value)| Some((Arc::clone(name), value?))).collect())
    }

    /// What stands in a message, each of its names in the slot of its place.
    pub(super) fn slots(&self, message: &Message, spans: &[Span], depth: usize) -> Read<Slots> {
        let mut slots: Slots = smallvec![None; message.names.len()];
        self.fields(&message.whole, spans, &mut slots, depth)?;
        Ok(slots)
    }

    /// A map's entry.
    fn entry(&self, kind: Kind, span: Span, depth: usize) -> Read<Entry> {
        let mut slots: [Option<Value>; 2] = [None, None];
        let Kind::Message { ty, .. } = kind else { return Ok(Default::default()) };
        if let Some(entry) = self.schema.message(ty) {
            self.fields(&entry.whole, &[span], &mut slots, depth)?;
        }
        let [key, value] = slots;
        Ok((scalar::key(key.unwrap_or_default()), value.unwrap_or_default()))
    }

    /// An item of a list, or several that are packed.
    fn item(
        &self,
        list: &mut Vec<Value>,
        kind: Kind,
        tag: Tag,
        cursor: &mut Cursor<'a>,
        depth: usize,
    ) -> Read<()> {
        let mut add = |item: Read<Value>| -> Read<()> {
            let item = item.map_err(|fault| fault.within(Part::Item(list.len())))?;
            self.budget.list(1)?;
            list.push(item);
            Ok(())
        };
        if let Kind::Message { ty, .. } = kind {
            let span = message_span(kind, tag, cursor, depth)?;
            return add(self.message(ty, &[span], depth + 1));
        }
        if tag.wire == kind.wire() {
            return add(self.scalar(kind, cursor));
        }
        let mut packed = Cursor::new(self.bytes, cursor.span()?);
        while !packed.is_empty() {
            add(self.scalar(kind, &mut packed))?;
        }
        Ok(())
    }

    #[inline]
    fn scalar(&self, kind: Kind, cursor: &mut Cursor<'a>) -> Read<Value> {
        match kind {
            Kind::Scalar(scalar) => scalar.take(cursor, self.budget),
            Kind::Enum(at) => {
                // Of more than 32 bits the lower ones count, as to all who read it.
                let number = cursor.varint()? as i32;
                Ok(self.schema.enums.get(at).map(|known| known.text(number)).unwrap_or_default())
            }
            Kind::Message { .. } => Ok(Value::Null),
        }
    }
}

impl<'r, 'a> Pending<'r, 'a> {
    fn new(reader: &'r Reader<'a>, steps: &'r Steps, depth: usize) -> Self {
        let count = &steps.gathered;
        Pending {
            reader,
            steps,
            depth,
            set: smallvec![None; steps.oneofs.len()],
            messages: smallvec![Spans::new(); count.messages],
            lists: smallvec![Vec::new(); count.lists],
            maps: smallvec![Vec::new(); count.maps],
            keys: smallvec![SmallVec::new(); count.keys],
        }
    }

    #[inline]
    fn field(
        &mut self,
        nth: usize,
        step: &Step,
        tag: Tag,
        cursor: &mut Cursor<'a>,
        slots: &mut [Option<Value>],
    ) -> Read<()> {
        let (reader, has) = (self.reader, step.kind.wire());
        // Numbers of a list stand one by one or all together, whatever the schema says.
        let packed = tag.wire == LEN && step.kind.may_be_packed();
        if tag.wire != has && !(packed && matches!(step.act, Act::List { .. })) {
            if step.act == Act::Pass {
                return cursor.skip(tag, self.depth);
            }
            let type_name = step.kind.type_name();
            return Err(cursor.fault(What::Wire { found: tag.wire, type_name, has }));
        }
        if let Some(oneof) = step.oneof {
            self.choose(oneof, nth, slots);
        }
        match &step.act {
            Act::Pass => cursor.skip(tag, self.depth),
            Act::Scalar(slot) => {
                let value = reader.scalar(step.kind, cursor)?;
                put(slots, *slot, Some(value));
                Ok(())
            }
            Act::List { at, .. } => match self.lists.get_mut(*at) {
                Some(list) => reader.item(list, step.kind, tag, cursor, self.depth),
                None => Ok(()),
            },
            Act::Map { at, .. } => {
                let entry = reader.entry(step.kind, cursor.span()?, self.depth);
                let entry = entry.map_err(|fault| fault.within(Part::Entry))?;
                reader.budget.bytes(size_of::<Entry>())?;
                if let Some(entries) = self.maps.get_mut(*at) {
                    entries.push(entry);
                }
                Ok(())
            }
            Act::Keys { at, key, named } => {
                let span = cursor.span()?;
                let mut found = [None];
                let read = reader.fields(key, &[span], &mut found, self.depth);
                read.map_err(|fault| fault.within(Part::Entry))?;
                let [found] = found;
                let found = scalar::key(found.unwrap_or_default());
                let which = named.iter().position(|(name, _)| **name == *found);
                if let (Some(which), Some(keys)) = (which, self.keys.get_mut(*at)) {
                    keys.resize(named.len(), None);
                    if let Some(place) = keys.get_mut(which) {
                        *place = Some(span);
                    }
                }
                Ok(())
            }
            Act::Message { at, .. } => {
                let span = message_span(step.kind, tag, cursor, self.depth)?;
                if let Some(spans) = self.messages.get_mut(*at) {
                    spans.push(span);
                }
                Ok(())
            }
        }
    }

    /// Another of its oneof is no longer set.
    fn choose(&mut self, oneof: usize, nth: usize, slots: &mut [Option<Value>]) {
        let Some(set) = self.set.get_mut(oneof) else { return };
        let before = set.replace(nth).filter(|before| *before != nth);
        let Some(before) = before.and_then(|before| self.steps.steps.get(before)) else { return };
        match before.act {
            Act::Scalar(slot) => put(slots, slot, None),
            Act::Message { at, .. } => {
                if let Some(spans) = self.messages.get_mut(at) {
                    spans.clear();
                }
            }
            Act::Pass | Act::List { .. } | Act::Map { .. } | Act::Keys { .. } => {}
        }
    }

    fn finish(mut self, slots: &mut [Option<Value>]) -> Read<()> {
        let steps = self.steps;
        for (slot, set) in steps.oneofs.iter().zip(&self.set) {
            let set = set.and_then(|set| steps.steps.get(set));
            if let (Some(slot), Some(step)) = (slot, set) {
                put(slots, *slot, Some(Value::Text(Arc::clone(&step.name))));
            }
        }
        if steps.gathered == Gathered::default() {
            return Ok(());
        }
        for step in &steps.steps {
            self.made(step, slots).map_err(|fault| fault.within(field_part(&step.name)))?;
        }
        Ok(())
    }

    /// What was gathered for a step, into its slots.
    fn made(&mut self, step: &Step, slots: &mut [Option<Value>]) -> Read<()> {
        let reader = self.reader;
        match &step.act {
            Act::Pass | Act::Scalar(_) => {}
            Act::List { at, slot } => {
                if let Some(list) = self.lists.get_mut(*at).filter(|list| !list.is_empty()) {
                    put(slots, *slot, Some(Value::list(std::mem::take(list))));
                }
            }
            Act::Map { at, slot } => {
                if let Some(map) = self.maps.get_mut(*at).filter(|map| !map.is_empty()) {
                    put(slots, *slot, Some(Value::map(std::mem::take(map))));
                }
            }
            Act::Keys { at, named, .. } => {
                let spans = self.keys.get(*at).map(SmallVec::as_slice).unwrap_or_default();
                for ((_, value), span) in named.iter().zip(spans) {
                    if let Some(span) = span {
                        let read = reader.fields(value, &[*span], slots, self.depth);
                        read.map_err(|fault| fault.within(Part::Entry))?;
                    }
                }
            }
            Act::Message { at, take: what, always } => {
                let spans = self.messages.get(*at).map(SmallVec::as_slice).unwrap_or_default();
                let Kind::Message { ty, .. } = step.kind else { return Ok(()) };
                if spans.is_empty() && !always {
                    return Ok(());
                }
                let depth = self.depth + 1;
                match what {
                    Take::Whole(slot) => put(slots, *slot, Some(reader.message(ty, spans, depth)?)),
                    Take::Steps(steps) => reader.fields(steps, spans, slots, depth)?,
                    Take::Built(mask) => take(&reader.message(ty, spans, depth)?, mask, slots),
                }
            }
        }
        Ok(())
    }
}

/// Where a message's bytes are, behind their length or in a group.
#[inline]
fn message_span(kind: Kind, tag: Tag, cursor: &mut Cursor<'_>, depth: usize) -> Read<Span> {
    match kind {
        Kind::Message { group: true, .. } => cursor.group(tag.number, depth),
        _ => cursor.span(),
    }
}

#[inline]
fn put(slots: &mut [Option<Value>], slot: usize, value: Option<Value>) {
    if let Some(place) = slots.get_mut(slot) {
        *place = value;
    }
}
