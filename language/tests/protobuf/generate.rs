//! Schemas of every kind, messages of theirs, what they should be read as, and paths into them.

use std::sync::Arc;

use foldline_api::decimal::Decimal;
use foldline_api::time::{Duration, Timestamp};
use foldline_api::value::Value;
use foldline_language::event::{Mask, PathSet};
use foldline_testkit::Rng;
use prost_reflect::bytes::Bytes;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value as Theirs,
};

const SCALARS: &[&str] = &[
    "bool", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64",
    "sfixed32", "sfixed64", "float", "double", "string", "bytes",
];
const KEYS: &[&str] = &["string", "int32", "uint64", "bool", "sint64", "fixed32"];
const GOOGLES: &[&str] = &[
    "Timestamp",
    "Duration",
    "Int64Value",
    "StringValue",
    "BoolValue",
    "DoubleValue",
    "BytesValue",
    "UInt64Value",
    "FloatValue",
    "Int32Value",
    "UInt32Value",
    "Struct",
    "Value",
    "ListValue",
    "Any",
];
const IMPORTS: &[&str] = &["timestamp", "duration", "wrappers", "struct", "any"];
const NAMES: &[&str] = &["id", "name", "z", "items", "b2", "owner", "tags", "value", "at"];

#[derive(Debug)]
pub(crate) struct Generator {
    pub(crate) rng: Rng,
    old: bool,
    messages: usize,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let (old, messages) = (rng.chance(300), 1 + usize::try_from(rng.below(4)).unwrap());
        Generator { rng, old, messages }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap()
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A file. Twice with the same seed it is the same, but that lists are `packed` or not.
    pub(crate) fn file(&mut self, packed: bool) -> String {
        let mut text =
            format!("syntax = \"proto{}\";\npackage shop;\n", if self.old { 2 } else { 3 });
        for import in IMPORTS {
            text.push_str(&format!("import \"google/protobuf/{import}.proto\";\n"));
        }
        text.push_str("enum E { E_NO = 0; E_ONE = 1; E_SEVEN = 7; E_BELOW = -1; }\n");
        for nth in 0..self.messages {
            text.push_str(&self.message(nth, packed));
        }
        text
    }

    fn message(&mut self, nth: usize, packed: bool) -> String {
        let mut text = format!("message M{nth} {{\n");
        let mut number = 0;
        for name in NAMES {
            if self.rng.chance(350) {
                continue;
            }
            number += 1 + self.below(30);
            let line = self.field(name, &mut number, packed);
            text.push_str(&line);
        }
        text.push_str("}\n");
        text
    }

    fn ty(&mut self) -> String {
        match self.below(10) {
            0..=4 => self.pick(SCALARS).to_owned(),
            5 => "E".to_owned(),
            6 | 7 => format!("M{}", self.below(self.messages)),
            _ => format!("google.protobuf.{}", self.pick(GOOGLES)),
        }
    }

    fn field(&mut self, name: &str, number: &mut usize, packed: bool) -> String {
        let optional = if self.old { "optional " } else { "" };
        let ty = self.ty();
        match self.below(10) {
            0 | 1 => {
                let numeric =
                    ty == "E" || SCALARS.contains(&&*ty) && ty != "string" && ty != "bytes";
                let how = if numeric { format!(" [packed = {packed}]") } else { String::new() };
                format!("  repeated {ty} {name} = {number}{how};\n")
            }
            2 => {
                let key = self.pick(KEYS);
                format!("  map<{key}, {ty}> {name} = {number};\n")
            }
            3 => {
                let mut text = format!("  oneof one_{name} {{\n");
                for part in 0..=self.below(3) {
                    let ty = self.ty();
                    text.push_str(&format!("    {ty} {name}_{part} = {number};\n"));
                    *number += 1;
                }
                text.push_str("  }\n");
                text
            }
            4 if self.old => {
                let many = self.pick(&["optional", "repeated"]);
                let (inner, upper) = (self.pick(SCALARS), name.to_uppercase());
                format!(
                    "  {many} group {upper} = {number} {{ optional {inner} id = 1; optional M0 z = 2; }}\n"
                )
            }
            5 => format!("  optional {ty} {name} = {number};\n"),
            _ => format!("  {optional}{ty} {name} = {number};\n"),
        }
    }

    /// A message of random fields.
    pub(crate) fn dynamic(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        let google = of.full_name().strip_prefix("google.protobuf.");
        match google {
            Some("Timestamp" | "Duration") => {
                let seconds = i64::try_from(self.rng.below(250_000_000_000)).unwrap();
                message.set_field_by_name("seconds", Theirs::I64(seconds - 60_000_000_000));
                let nanos = i32::try_from(self.rng.below(1_000_000_000)).unwrap();
                message.set_field_by_name("nanos", Theirs::I32(nanos));
                return message;
            }
            Some("Any") => {
                let inner = self.any(&of.parent_pool().clone(), depth);
                message.set_field_by_name("type_url", Theirs::String(inner.0));
                message.set_field_by_name("value", Theirs::Bytes(inner.1));
                return message;
            }
            _ => {}
        }
        let some = if depth > 5 { 0 } else { 600 };
        for field in of.fields() {
            if self.rng.chance(some) {
                let value = self.value(&field, depth);
                message.set_field(&field, value);
            }
        }
        message
    }

    fn any(&mut self, pool: &DescriptorPool, depth: usize) -> (String, Bytes) {
        let name = self.pick(&["shop.M0", "google.protobuf.Duration", "shop.Unheard"]);
        let known = pool.get_message_by_name(name);
        let bytes =
            known.map(|of| self.dynamic(&of, depth + 2).encode_to_vec()).unwrap_or_default();
        // An empty one is not written: one that is merged into it would be left with the other's type.
        let (name, bytes) =
            if bytes.is_empty() { ("shop.Unheard", vec![1, 2, 3]) } else { (name, bytes) };
        (format!("type.googleapis.com/{name}"), Bytes::from(bytes))
    }

    fn value(&mut self, field: &FieldDescriptor, depth: usize) -> Theirs {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { panic!("a map of {field:?}") };
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            let mut map = std::collections::HashMap::new();
            for _ in 0..self.below(3) {
                let key = self.one(&key.kind(), depth);
                map.insert(key.into_map_key().unwrap(), self.one(&value.kind(), depth + 1));
            }
            return Theirs::Map(map);
        }
        if field.is_list() {
            let count = self.below(4);
            return Theirs::List((0..count).map(|_| self.one(&field.kind(), depth + 1)).collect());
        }
        self.one(&field.kind(), depth + 1)
    }

    fn one(&mut self, kind: &Kind, depth: usize) -> Theirs {
        let bits = match self.below(4) {
            0 => 0,
            1 => self.rng.below(200),
            _ => self.rng.next_u64(),
        };
        match kind {
            Kind::Bool => Theirs::Bool(bits & 1 == 1),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Theirs::I32(bits as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Theirs::I64(bits as i64),
            Kind::Uint32 | Kind::Fixed32 => Theirs::U32(bits as u32),
            Kind::Uint64 | Kind::Fixed64 => Theirs::U64(bits),
            Kind::Float => Theirs::F32((bits % 1_000) as f32 / 8.0 - 50.0),
            Kind::Double => Theirs::F64((bits % 100_000) as f64 / 8.0 - 50.0),
            Kind::String => Theirs::String(self.pick(&["", "a", "größer", "ключ"]).to_owned()),
            Kind::Bytes => {
                Theirs::Bytes(Bytes::from(bits.to_le_bytes()[..bits as usize % 9 % 8].to_vec()))
            }
            Kind::Enum(_) => Theirs::EnumNumber(self.pick(&[0, 1, 7, -1, 3])),
            Kind::Message(of) => Theirs::Message(self.dynamic(of, depth)),
        }
    }

    /// A mask of some paths, and how many slots it has.
    pub(crate) fn mask(&mut self) -> (Mask, usize) {
        let mut paths = PathSet::default();
        for _ in 0..1 + self.below(5) {
            let mut path = Vec::new();
            for _ in 0..1 + self.below(4) {
                let mut name = self.pick(NAMES).to_owned();
                match self.below(6) {
                    0 => name = format!("one_{name}"),
                    1 => name = format!("{name}_{}", self.below(3)),
                    2 => {
                        name = self.pick(&["a", "0", "true", "@type", "kind", "values"]).to_owned();
                    }
                    _ => {}
                }
                path.push(Arc::from(name));
            }
            paths.insert(&path);
        }
        paths.mask()
    }
}

/// What a message should be read as.
pub(crate) fn expected(message: &DynamicMessage) -> Value {
    let of = message.descriptor();
    let number = |name: &str| message.get_field_by_name(name).unwrap().as_i64().unwrap_or_default();
    let micros = || {
        let nanos = i64::from(message.get_field_by_name("nanos").unwrap().as_i32().unwrap());
        number("seconds") * 1_000_000 + (nanos + 500).div_euclid(1_000)
    };
    match of.full_name().strip_prefix("google.protobuf.") {
        Some("Timestamp") => return Value::Timestamp(Timestamp::from_micros(micros()).unwrap()),
        Some("Duration") => return Value::Duration(Duration(micros())),
        Some(name) if name.ends_with("Value") && name.len() > 5 && name != "ListValue" => {
            return single(message, "value");
        }
        Some("Struct") => return single(message, "fields"),
        Some("ListValue") => return single(message, "values"),
        Some("Value") => {
            let set = of.fields().find(|field| message.has_field(field));
            let found = set.map(|field| single(message, field.name())).unwrap_or_default();
            return match found {
                Value::Double(double) if double.fract() == 0.0 => Value::Int(double as i64),
                found => found,
            };
        }
        Some("Any") => return any(message),
        _ => {}
    }
    Value::map(entries(message))
}

fn entries(message: &DynamicMessage) -> Vec<(Arc<str>, Value)> {
    let mut entries = Vec::new();
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        entries.push((Arc::from(field.name()), single(message, field.name())));
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            entries.push((Arc::from(oneof.name()), Value::text(field.name())));
        }
    }
    entries
}

fn any(message: &DynamicMessage) -> Value {
    let url = message.get_field_by_name("type_url").unwrap().as_str().unwrap().to_owned();
    let bytes = message.get_field_by_name("value").unwrap().as_bytes().unwrap().clone();
    let tag = (Arc::from("@type"), Value::text(&url));
    let name = url.rsplit('/').next().unwrap();
    let inner = message.descriptor().parent_pool().get_message_by_name(name);
    let Some(inner) = inner else {
        return Value::map(vec![tag, (Arc::from("value"), Value::Bytes(Arc::from(&bytes[..])))]);
    };
    let google = inner.full_name().starts_with("google");
    let inner = DynamicMessage::decode(inner, bytes).unwrap();
    if google {
        return Value::map(vec![tag, (Arc::from("value"), expected(&inner))]);
    }
    let mut found = entries(&inner);
    found.push(tag);
    Value::map(found)
}

fn single(message: &DynamicMessage, name: &str) -> Value {
    let field = message.descriptor().get_field_by_name(name).unwrap();
    let value = message.get_field(&field);
    match (&*value, field.kind()) {
        (Theirs::List(list), kind) => {
            Value::list(list.iter().map(|item| one(item, &kind)).collect())
        }
        (Theirs::Map(map), Kind::Message(entry)) => {
            let kind = entry.map_entry_value_field().kind();
            Value::map(map.iter().map(|(k, v)| (key(k), one(v, &kind))).collect())
        }
        (value, kind) => one(value, &kind),
    }
}

fn key(key: &MapKey) -> Arc<str> {
    Arc::from(match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    })
}

fn one(value: &Theirs, kind: &Kind) -> Value {
    match value {
        Theirs::Bool(value) => Value::Bool(*value),
        Theirs::I32(value) => Value::Int(i64::from(*value)),
        Theirs::I64(value) => Value::Int(*value),
        Theirs::U32(value) => Value::Int(i64::from(*value)),
        Theirs::U64(value) => match i64::try_from(*value) {
            Ok(value) => Value::Int(value),
            Err(_) => Value::Decimal(Decimal::new(i128::from(*value), 0)),
        },
        Theirs::F32(value) => Value::Double(f64::from(*value)),
        Theirs::F64(value) => Value::Double(*value),
        Theirs::String(value) => Value::text(value),
        Theirs::Bytes(value) => Value::Bytes(Arc::from(&value[..])),
        Theirs::EnumNumber(number) => match kind {
            Kind::Enum(of) if of.name() == "NullValue" => Value::Null,
            Kind::Enum(of) => match of.get_value(*number) {
                Some(known) => Value::text(known.name()),
                None => Value::text(&number.to_string()),
            },
            other => panic!("{number} of {other:?}"),
        },
        Theirs::Message(message) => expected(message),
        Theirs::List(_) | Theirs::Map(_) => panic!("{value:?} is not one value"),
    }
}
