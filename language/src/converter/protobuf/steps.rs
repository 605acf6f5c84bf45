//! What is read of a message, compiled: which field goes into which slot. What no step is for is passed over.

use std::sync::Arc;

use foldline_api::value::Value;

use super::schema::{Field, Kind, Many, Message, Special, Unset};
use crate::event::Mask;

/// How to read what is named of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// By number.
    pub(super) steps: Vec<Step>,
    /// Fields that are not absent where they are not set.
    pub(super) defaults: Vec<(usize, Value)>,
    /// How many steps have values that are made at the message's end, of each sort.
    pub(super) gathered: Gathered,
    /// For each oneof that is read, or that a field is of that is: into which slot the name goes of the one that is set.
    pub(super) oneofs: Vec<Option<usize>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gathered {
    pub(super) messages: usize,
    pub(super) lists: usize,
    pub(super) maps: usize,
    pub(super) keys: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) number: u32,
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) act: Act,
    /// Which of [`Steps::oneofs`] it is of.
    pub(super) oneof: Option<usize>,
}

/// What is done with a field. `at`: which of the gathered of its sort it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing is read of it: it is here for what it does to the others of its oneof.
    Pass,
    /// One value that is at once what it is; the last one stays.
    Scalar(usize),
    List {
        at: usize,
        slot: usize,
    },
    Map {
        at: usize,
        slot: usize,
    },
    /// A map of which some keys are read: how to read a key, and for each name how to read an entry.
    Keys {
        at: usize,
        key: Box<Steps>,
        named: Vec<(Arc<str>, Steps)>,
    },
    Message {
        at: usize,
        take: Take,
        always: bool,
    },
}

/// What is taken of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Take {
    Whole(usize),
    /// These, while it is read.
    Steps(Box<Steps>),
    /// These, from what it is as a whole.
    Built(Mask),
}

impl Steps {
    /// Of this message what is `named`, sorted.
    pub(super) fn new(messages: &[Message], message: &Message, named: &[(Arc<str>, Mask)]) -> Self {
        let mut made = Steps::default();
        let mask = |name: &Arc<str>| {
            let at = named.binary_search_by(|(known, _)| known.cmp(name)).ok()?;
            named.get(at).map(|(_, mask)| mask)
        };
        let oneof_slots: Vec<Option<usize>> = message
            .oneofs
            .iter()
            .map(|name| match mask(name) {
                Some(Mask::Whole(slot)) => Some(*slot),
                _ => None,
            })
            .collect();
        let acts: Vec<Act> = message
            .fields
            .iter()
            .map(|field| {
                mask(&field.name).map_or(Act::Pass, |mask| made.act(messages, field, mask))
            })
            .collect();
        // Of a oneof of which nothing is read it does not matter which one is set.
        let is_read = |oneof: usize| {
            let of = message.fields.iter().zip(&acts);
            let mut read =
                of.filter(|(field, act)| field.oneof == Some(oneof) && **act != Act::Pass);
            oneof_slots.get(oneof).is_some_and(Option::is_some) || read.next().is_some()
        };
        let mut places = vec![None; oneof_slots.len()];
        for (oneof, (place, slot)) in places.iter_mut().zip(&oneof_slots).enumerate() {
            if is_read(oneof) {
                *place = Some(made.oneofs.len());
                made.oneofs.push(*slot);
            }
        }
        for (field, act) in message.fields.iter().zip(acts) {
            let oneof = field.oneof.and_then(|oneof| places.get(oneof).copied().flatten());
            if act != Act::Pass || oneof.is_some() {
                let name = Arc::clone(&field.name);
                made.steps.push(Step { number: field.number, name, kind: field.kind, act, oneof });
            }
        }
        made
    }

    fn act(&mut self, messages: &[Message], field: &Field, mask: &Mask) -> Act {
        if let (Unset::Default(default), Mask::Whole(slot)) = (&field.unset, mask) {
            self.defaults.push((*slot, default.clone()));
        }
        let entry = match field.kind {
            Kind::Message { ty, .. } => messages.get(ty),
            Kind::Scalar(_) | Kind::Enum(_) => None,
        };
        match (field.many, mask, entry) {
            (Many::List, Mask::Whole(slot), _) => {
                Act::List { at: next(&mut self.gathered.lists), slot: *slot }
            }
            (Many::Map, Mask::Whole(slot), _) => {
                Act::Map { at: next(&mut self.gathered.maps), slot: *slot }
            }
            (Many::Map, Mask::Fields(named), Some(entry)) => {
                let part = |name: &str, mask: &Mask| {
                    Steps::new(messages, entry, &[(Arc::from(name), mask.clone())])
                };
                let key = Box::new(part("key", &Mask::Whole(0)));
                let named = named.iter().map(|(n, mask)| (Arc::clone(n), part("value", mask)));
                let named = named.collect();
                Act::Keys { at: next(&mut self.gathered.keys), key, named }
            }
            (Many::One, Mask::Whole(slot), None) => Act::Scalar(*slot),
            (Many::One, mask, Some(message)) => {
                let take = match mask {
                    Mask::Whole(slot) => Take::Whole(*slot),
                    Mask::Fields(named) if message.special == Special::No => {
                        Take::Steps(Box::new(Steps::new(messages, message, named)))
                    }
                    Mask::Fields(_) if message.special.may_be_object() => Take::Built(mask.clone()),
                    Mask::Fields(_) => return Act::Pass,
                };
                let always = field.unset == Unset::EmptyMessage;
                Act::Message { at: next(&mut self.gathered.messages), take, always }
            }
            (Many::List | Many::One, Mask::Fields(_), _) | (Many::Map, _, None) => Act::Pass,
        }
    }

    /// The step of a field. Fields mostly come by their numbers: `next` is where the last one was.
    #[inline]
    pub(super) fn find(&self, number: u32, next: &mut usize) -> Option<usize> {
        for at in [*next, *next + 1] {
            if self.steps.get(at).is_some_and(|step| step.number == number) {
                *next = at;
                return Some(at);
            }
        }
        let at = self.steps.binary_search_by_key(&number, |step| step.number).ok()?;
        *next = at;
        Some(at)
    }
}

fn next(count: &mut usize) -> usize {
    *count += 1;
    *count - 1
}
