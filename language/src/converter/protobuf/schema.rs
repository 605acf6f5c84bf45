//! A schema to read by: the messages and enums of some files, and how each of them is read whole.

use std::sync::Arc;

use foldline_api::value::Value;

use super::steps::Steps;

/// Why a text is no schema that can be read by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub(super) String);

/// The messages of some files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// By name.
    pub(super) messages: Vec<Message>,
    pub(super) enums: Vec<Enum>,
    /// Of the file itself and not of those that it imports, by the indexes that lead to each.
    pub(super) own: Vec<(Vec<u32>, usize)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// With its package.
    pub(super) name: Arc<str>,
    /// Without.
    pub(super) short: Arc<str>,
    pub(super) special: Special,
    /// By number.
    pub(super) fields: Vec<Field>,
    pub(super) oneofs: Vec<Arc<str>>,
    /// What an object of it has: fields and oneofs, sorted.
    pub(super) names: Vec<Arc<str>>,
    /// How it is read whole, each name into the slot of its place.
    pub(super) whole: Steps,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) many: Many,
    pub(super) unset: Unset,
    pub(super) oneof: Option<usize>,
}

/// How often a field stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Many {
    One,
    List,
    Map,
}

/// What a field is that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unset {
    Absent,
    Default(Value),
    /// A map's entry has its message whether it is written or not.
    EmptyMessage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar(Scalar),
    Enum(usize),
    Message { ty: usize, group: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    Text,
    Bytes,
}

/// Messages that are another value than an object of their fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    No,
    Timestamp,
    Duration,
    /// Its only field.
    Wrapper,
    Struct,
    List,
    Value,
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Enum {
    /// By number; of several names of a number the first.
    pub(super) names: Vec<(i32, Value)>,
}

impl Special {
    /// What JSON may be below it.
    pub(super) fn may_be_object(self) -> bool {
        matches!(self, Special::No | Special::Struct | Special::Value | Special::Any)
    }
}

impl Enum {
    /// A number's name, or the number as a text.
    pub(super) fn text(&self, number: i32) -> Value {
        let known = self.names.binary_search_by_key(&number, |(known, _)| *known);
        match known.ok().and_then(|at| self.names.get(at)) {
            Some((_, name)) => name.clone(),
            // Of the enum that is JSON's null each number is.
            None if self.names.iter().all(|(_, name)| name.is_null()) => Value::Null,
            None => Value::text(&number.to_string()),
        }
    }
}

impl Schema {
    pub(super) fn message(&self, at: usize) -> Option<&Message> {
        self.messages.get(at)
    }

    /// The message of that name, with its package.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.messages.binary_search_by(|message| (*message.name).cmp(name)).ok()
    }

    /// The indexes that lead to a message of its own file.
    pub(super) fn indexes(&self, message: usize) -> Option<&[u32]> {
        let own = self.own.iter().find(|(_, own)| *own == message);
        own.map(|(indexes, _)| indexes.as_slice())
    }

    /// The names of the messages that stand in the file itself, those of all where it is a set of files.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let own = self.own.iter().filter_map(|(_, at)| self.message(*at));
        own.map(|message| &*message.name).collect()
    }

    /// Whether a message has, at the end of this path, a field that is its default where it was not set, so that one cannot
    /// be told from the other.
    #[must_use]
    pub fn hides_unset(&self, message: &str, path: &[Arc<str>]) -> bool {
        let Some((last, before)) = path.split_last() else { return false };
        let field = |at: usize, name: &Arc<str>| {
            let fields = &self.message(at)?.fields;
            fields.iter().find(|field| field.name == *name)
        };
        let step = |at: usize, name: &Arc<str>| match field(at, name)? {
            Field { kind: Kind::Message { ty, .. }, many: Many::One, .. } => Some(*ty),
            _ => None,
        };
        let end = self.named(message).and_then(|at| before.iter().try_fold(at, step));
        let found = end.and_then(|at| field(at, last));
        found.is_some_and(|field| {
            field.many == Many::One && matches!(field.unset, Unset::Default(_))
        })
    }
}
