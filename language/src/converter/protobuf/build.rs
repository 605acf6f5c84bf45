//! From descriptors to a schema.

use std::collections::HashMap;
use std::sync::Arc;

use foldline_api::value::Value;
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind as Theirs, MessageDescriptor,
};

use super::schema::{Enum, Field, Kind, Many, Message, Scalar, Schema, Special, Unset};
use super::steps::Steps;
use crate::event::Mask;

/// Where each of them stands.
struct Places {
    messages: HashMap<String, usize>,
    enums: HashMap<String, usize>,
}

/// The schema of all that is in a pool; its own messages are those of `file`, or all.
pub(super) fn schema(pool: &DescriptorPool, file: Option<&str>) -> Schema {
    let mut messages: Vec<MessageDescriptor> = pool.all_messages().collect();
    messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    let enums: Vec<EnumDescriptor> = pool.all_enums().collect();
    let place = |(at, name): (usize, &str)| (name.to_owned(), at);
    let places = Places {
        messages: messages
            .iter()
            .map(MessageDescriptor::full_name)
            .enumerate()
            .map(place)
            .collect(),
        enums: enums.iter().map(EnumDescriptor::full_name).enumerate().map(place).collect(),
    };
    let enums: Vec<Enum> = enums.iter().map(names_of).collect();
    let mut made: Vec<Message> =
        messages.iter().map(|message| message_of(message, &places, &enums)).collect();
    let whole: Vec<Steps> = made.iter().map(|message| whole(&made, message)).collect();
    for (message, whole) in made.iter_mut().zip(whole) {
        message.whole = whole;
    }
    let mut own = Vec::new();
    for known in pool.files().filter(|known| file.is_none_or(|file| file == known.name())) {
        for (nth, message) in (0..).zip(known.messages()) {
            add_own(&message, &mut vec![nth], &places, &mut own);
        }
    }
    Schema { messages: made, enums, own }
}

fn add_own(
    message: &MessageDescriptor,
    path: &mut Vec<u32>,
    places: &Places,
    own: &mut Vec<(Vec<u32>, usize)>,
) {
    if message.is_map_entry() {
        return;
    }
    if let Some(at) = places.messages.get(message.full_name()) {
        own.push((path.clone(), *at));
    }
    for (nth, child) in (0..).zip(message.child_messages()) {
        path.push(nth);
        add_own(&child, path, places, own);
        path.pop();
    }
}

fn names_of(one: &EnumDescriptor) -> Enum {
    let null = one.full_name() == "google.protobuf.NullValue";
    let name = |name: &str| if null { Value::Null } else { Value::text(name) };
    let mut names: Vec<(i32, Value)> =
        one.values().map(|value| (value.number(), name(value.name()))).collect();
    names.sort_by_key(|(number, _)| *number);
    names.dedup_by_key(|(number, _)| *number);
    Enum { names }
}

fn message_of(message: &MessageDescriptor, places: &Places, enums: &[Enum]) -> Message {
    let oneofs: Vec<_> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
    let entry = message.is_map_entry();
    let field = |field: FieldDescriptor| {
        let oneof = field.containing_oneof().and_then(|one| oneofs.iter().position(|o| *o == one));
        let kind = kind(&field, places)?;
        let many = match (field.is_map(), field.is_list()) {
            (true, _) => Many::Map,
            (_, true) => Many::List,
            _ => Many::One,
        };
        Some(Field {
            number: field.number(),
            name: Arc::from(field.name()),
            kind,
            many,
            unset: unset(&field, kind, many, entry, enums),
            oneof,
        })
    };
    let mut fields: Vec<Field> = message.fields().filter_map(field).collect();
    fields.sort_by_key(|field| field.number);
    let oneofs: Vec<Arc<str>> = oneofs.iter().map(|oneof| Arc::from(oneof.name())).collect();
    let mut names: Vec<Arc<str>> =
        fields.iter().map(|field| &field.name).chain(&oneofs).map(Arc::clone).collect();
    names.sort();
    let special = special(message.full_name(), &fields);
    let (name, short) = (Arc::from(message.full_name()), Arc::from(message.name()));
    Message { name, short, special, fields, oneofs, names, whole: Steps::default() }
}

fn whole(messages: &[Message], message: &Message) -> Steps {
    let names = message.names.iter().enumerate();
    let named: Vec<(Arc<str>, Mask)> =
        names.map(|(at, name)| (Arc::clone(name), Mask::Whole(at))).collect();
    Steps::new(messages, message, &named)
}

fn kind(field: &FieldDescriptor, places: &Places) -> Option<Kind> {
    let scalar = match field.kind() {
        Theirs::Message(message) => {
            let ty = *places.messages.get(message.full_name())?;
            return Some(Kind::Message { ty, group: field.is_group() });
        }
        Theirs::Enum(one) => return places.enums.get(one.full_name()).copied().map(Kind::Enum),
        Theirs::Bool => Scalar::Bool,
        Theirs::Int32 => Scalar::Int32,
        Theirs::Int64 => Scalar::Int64,
        Theirs::Uint32 => Scalar::Uint32,
        Theirs::Uint64 => Scalar::Uint64,
        Theirs::Sint32 => Scalar::Sint32,
        Theirs::Sint64 => Scalar::Sint64,
        Theirs::Fixed32 => Scalar::Fixed32,
        Theirs::Fixed64 => Scalar::Fixed64,
        Theirs::Sfixed32 => Scalar::Sfixed32,
        Theirs::Sfixed64 => Scalar::Sfixed64,
        Theirs::Float => Scalar::Float,
        Theirs::Double => Scalar::Double,
        Theirs::String => Scalar::Text,
        Theirs::Bytes => Scalar::Bytes,
    };
    Some(Kind::Scalar(scalar))
}

fn unset(field: &FieldDescriptor, kind: Kind, many: Many, entry: bool, enums: &[Enum]) -> Unset {
    match (many, kind) {
        (Many::List, _) => Unset::Default(Value::list(Vec::new())),
        (Many::Map, _) => Unset::Default(Value::map(Vec::new())),
        (Many::One, Kind::Message { .. }) if entry => Unset::EmptyMessage,
        (Many::One, _) if field.supports_presence() && !entry => Unset::Absent,
        (Many::One, Kind::Scalar(scalar)) => Unset::Default(scalar.default()),
        (Many::One, Kind::Enum(at)) => {
            let first = match field.kind() {
                Theirs::Enum(one) => one.default_value().number(),
                _ => 0,
            };
            Unset::Default(enums.get(at).map(|one| one.text(first)).unwrap_or_default())
        }
        (Many::One, Kind::Message { .. }) => Unset::Absent,
    }
}

/// Google's own, where they are what Google has.
fn special(name: &str, fields: &[Field]) -> Special {
    let Some(name) = name.strip_prefix("google.protobuf.") else { return Special::No };
    let has = |wanted: &[(u32, &str, Many, Option<Scalar>)]| {
        fields.len() == wanted.len()
            && fields.iter().zip(wanted).all(|(field, (number, name, many, scalar))| {
                let fits = scalar.is_none_or(|scalar| field.kind == Kind::Scalar(scalar));
                (field.number, &*field.name, field.many) == (*number, *name, *many) && fits
            })
    };
    let one = Many::One;
    let since = [(1, "seconds", one, Some(Scalar::Int64)), (2, "nanos", one, Some(Scalar::Int32))];
    let value = |scalar| (Special::Wrapper, has(&[(1, "value", one, Some(scalar))]));
    let (special, fits) = match name {
        "Timestamp" => (Special::Timestamp, has(&since)),
        "Duration" => (Special::Duration, has(&since)),
        "DoubleValue" => value(Scalar::Double),
        "FloatValue" => value(Scalar::Float),
        "Int64Value" => value(Scalar::Int64),
        "UInt64Value" => value(Scalar::Uint64),
        "Int32Value" => value(Scalar::Int32),
        "UInt32Value" => value(Scalar::Uint32),
        "BoolValue" => value(Scalar::Bool),
        "StringValue" => value(Scalar::Text),
        "BytesValue" => value(Scalar::Bytes),
        "Struct" => (Special::Struct, has(&[(1, "fields", Many::Map, None)])),
        "ListValue" => (Special::List, has(&[(1, "values", Many::List, None)])),
        "Value" => (Special::Value, fields.iter().all(|field| field.oneof == Some(0))),
        "Any" => {
            let url = (1, "type_url", one, Some(Scalar::Text));
            (Special::Any, has(&[url, (2, "value", one, Some(Scalar::Bytes))]))
        }
        _ => return Special::No,
    };
    if fits { special } else { Special::No }
}
