//! A schema's JSON to [`Schema`]: strict on structure, lenient on names, defaults and what else the bytes do not depend on.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::scalar::{FixedKind, Scalar, VARIABLE_SCALE, connect_name, whole};
use super::schema::{
    Field, Fixed, RECORD_NAME, Record, Reference, Schema, SchemaError, Size, Type, Union,
};

/// Types of one schema, so that a text cannot ask for any number of them.
const TYPES_MAX: usize = 100_000;

pub(super) fn schema(text: &str, references: &[Reference<'_>]) -> Result<Schema, SchemaError> {
    let mut parser = Parser::default();
    for reference in references {
        parser.document(reference.text, &format!("reference {:?}", reference.name))?;
    }
    let root = parser.document(text, "schema")?;
    let mut schema = Schema { types: parser.types, root };
    sizes(&mut schema)?;
    Ok(schema)
}

#[derive(Default)]
struct Parser {
    types: Vec<Type>,
    /// By full name.
    named: HashMap<String, usize>,
    /// By base and logical type: one each is enough.
    scalars: HashMap<Scalar, usize>,
}

/// Where a schema stands in the text, and in which namespace.
#[derive(Clone, Copy)]
struct Place<'a> {
    outer: Option<&'a Place<'a>>,
    part: &'a str,
    namespace: &'a str,
}

impl<'a> Place<'a> {
    fn inner<'b>(&'b self, part: &'b str) -> Place<'b>
    where
        'a: 'b,
    {
        Place { outer: Some(self), part, namespace: self.namespace }
    }

    fn path(&self) -> String {
        match self.outer {
            None => self.part.to_owned(),
            Some(outer) => format!("{}.{}", outer.path(), self.part),
        }
    }

    fn wrong(&self, what: impl Into<String>) -> SchemaError {
        SchemaError { place: self.path(), what: what.into() }
    }
}

/// A name with its namespace, and the namespace alone, which what stands inside has too.
struct Name {
    full: String,
    namespace: String,
}

impl Parser {
    fn document(&mut self, text: &str, what: &str) -> Result<usize, SchemaError> {
        let place = Place { outer: None, part: what, namespace: "" };
        let json: Json = serde_json::from_str(text)
            .map_err(|error| place.wrong(format!("not JSON: {error}")))?;
        self.ty(&json, &place)
    }

    fn add(&mut self, ty: Type, place: &Place<'_>) -> Result<usize, SchemaError> {
        if self.types.len() >= TYPES_MAX {
            return Err(place.wrong(format!("more than {TYPES_MAX} types")));
        }
        self.types.push(ty);
        Ok(self.types.len() - 1)
    }

    fn scalar(&mut self, scalar: Scalar, place: &Place<'_>) -> Result<usize, SchemaError> {
        if let Some(known) = self.scalars.get(&scalar) {
            return Ok(*known);
        }
        let at = self.add(Type::Scalar(scalar), place)?;
        self.scalars.insert(scalar, at);
        Ok(at)
    }

    fn ty(&mut self, json: &Json, place: &Place<'_>) -> Result<usize, SchemaError> {
        match json {
            Json::String(name) => self.by_name(name, place),
            Json::Array(branches) => self.union(branches, place),
            Json::Object(attributes) => self.object(attributes, place),
            _ => Err(place.wrong("neither a type's name nor an object nor a list (a union)")),
        }
    }

    fn by_name(&mut self, name: &str, place: &Place<'_>) -> Result<usize, SchemaError> {
        if let Some(scalar) = Scalar::primitive(name) {
            return self.scalar(scalar, place);
        }
        // Without a dot it is of the namespace around it; of none, as far as writers left that away.
        let full = full_name(name, place.namespace);
        let known = self.named.get(&full).or_else(|| self.named.get(name));
        known.copied().ok_or_else(|| {
            let known = if full == name { String::new() } else { format!(", nor {full:?}") };
            place.wrong(format!(
                "there is no type {name:?}{known}: it is defined neither before nor in a reference"
            ))
        })
    }

    fn object(
        &mut self,
        attributes: &Map<String, Json>,
        place: &Place<'_>,
    ) -> Result<usize, SchemaError> {
        match attributes.get("type") {
            None => Err(place.wrong("`type` is missing")),
            Some(Json::String(ty)) => match ty.as_str() {
                "record" | "error" => self.record(attributes, place),
                "enum" => self.enumeration(attributes, place),
                "fixed" => self.fixed(attributes, place),
                "array" => {
                    let items = required(attributes, "items", place)?;
                    let items = self.ty(items, &place.inner("items"))?;
                    self.add(Type::Array(items), place)
                }
                "map" => {
                    let values = required(attributes, "values", place)?;
                    let values = self.ty(values, &place.inner("values"))?;
                    self.add(Type::Map(values), place)
                }
                name => match Scalar::primitive(name) {
                    Some(scalar) => self.scalar(scalar.with(attributes), place),
                    None => self.by_name(name, place),
                },
            },
            // `{"type": {"type": …}}`, as some write it; the inner one's attributes count.
            Some(inner) => self.ty(inner, &place.inner("type")),
        }
    }

    fn union(&mut self, branches: &[Json], place: &Place<'_>) -> Result<usize, SchemaError> {
        if branches.is_empty() {
            return Err(place.wrong("a union of nothing"));
        }
        let mut found = Vec::with_capacity(branches.len());
        for (nth, branch) in branches.iter().enumerate() {
            let part = nth.to_string();
            let inner = place.inner(&part);
            let ty = self.ty(branch, &inner)?;
            // A record that is still being read is none of these.
            if matches!(self.types.get(ty), Some(Type::Union(_))) {
                return Err(inner.wrong("a union directly in a union"));
            }
            found.push(ty);
        }
        let is_record = |ty: &&usize| matches!(self.types.get(**ty), Some(Type::Record(_)));
        let tells = found.iter().filter(is_record).count() > 1;
        self.add(Type::Union(Union { branches: found, tells }), place)
    }

    /// Keeps the place of a named type, so that it may be named inside of itself.
    fn define(&mut self, name: &Name, ty: Type, place: &Place<'_>) -> Result<usize, SchemaError> {
        let at = self.add(ty, place)?;
        if self.named.insert(name.full.clone(), at).is_some() {
            return Err(place.wrong(format!("{:?} is defined twice", name.full)));
        }
        Ok(at)
    }

    fn record(
        &mut self,
        attributes: &Map<String, Json>,
        place: &Place<'_>,
    ) -> Result<usize, SchemaError> {
        let name = named(attributes, place)?;
        let empty = Record {
            name: Arc::from(name.full.as_str()),
            short: Arc::from(name.full.rsplit('.').next().unwrap_or_default()),
            fields: Vec::new(),
            names: Vec::new(),
            tag: None,
            number: false,
            size: Size::EMPTY,
        };
        let at = self.define(&name, Type::Record(empty.clone()), place)?;
        let Json::Array(list) = required(attributes, "fields", place)? else {
            return Err(place.wrong("`fields` is no list"));
        };
        let mut fields = Vec::with_capacity(list.len());
        for (nth, field) in list.iter().enumerate() {
            let within = Place { namespace: &name.namespace, ..*place };
            let (name, ty) = self.field(field, nth, &within)?;
            fields.push(Field { name, ty, sorted: 0 });
        }
        let number = connect_name(attributes) == Some(VARIABLE_SCALE) && self.is_number(&fields);
        let record = with_names(Record { fields, number, ..empty }, place)?;
        if let Some(slot) = self.types.get_mut(at) {
            *slot = Type::Record(record);
        }
        Ok(at)
    }

    /// Whether these are the digits of a number and their scale.
    fn is_number(&self, fields: &[Field]) -> bool {
        let is = |field: &Field, name: &str, scalar: Scalar| {
            let ty = self.types.get(field.ty);
            *field.name == *name && ty == Some(&Type::Scalar(scalar))
        };
        matches!(fields, [scale, value] if is(scale, "scale", Scalar::Int) && is(value, "value", Scalar::Bytes))
    }

    fn field(
        &mut self,
        field: &Json,
        nth: usize,
        place: &Place<'_>,
    ) -> Result<(Arc<str>, usize), SchemaError> {
        let nth = format!("fields[{nth}]");
        let inner = place.inner(&nth);
        let Json::Object(attributes) = field else { return Err(inner.wrong("no object")) };
        let name = text(attributes, "name", &inner)?;
        let inner = place.inner(name);
        let ty = self.ty(required(attributes, "type", &inner)?, &inner)?;
        Ok((Arc::from(name), ty))
    }

    fn enumeration(
        &mut self,
        attributes: &Map<String, Json>,
        place: &Place<'_>,
    ) -> Result<usize, SchemaError> {
        let name = named(attributes, place)?;
        let Json::Array(list) = required(attributes, "symbols", place)? else {
            return Err(place.wrong("`symbols` is no list"));
        };
        let symbols: Option<Vec<Arc<str>>> =
            list.iter().map(|symbol| symbol.as_str().map(Arc::from)).collect();
        let symbols = symbols.ok_or_else(|| place.wrong("`symbols` is no list of texts"))?;
        let ty = Type::Enum { name: Arc::from(name.full.as_str()), symbols };
        self.define(&name, ty, place)
    }

    fn fixed(
        &mut self,
        attributes: &Map<String, Json>,
        place: &Place<'_>,
    ) -> Result<usize, SchemaError> {
        let name = named(attributes, place)?;
        let size = whole(required(attributes, "size", place)?)
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(|| place.wrong("`size` is no number of bytes"))?;
        let kind = FixedKind::of(size, attributes);
        let ty = Type::Fixed(Fixed { name: Arc::from(name.full.as_str()), size, kind });
        self.define(&name, ty, place)
    }
}

fn with_names(mut record: Record, place: &Place<'_>) -> Result<Record, SchemaError> {
    let mut names: Vec<Arc<str>> = record.fields.iter().map(|f| Arc::clone(&f.name)).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(place.wrong(format!("two fields are named {:?}", twice.first())));
    }
    for field in &mut record.fields {
        field.sorted = names.binary_search(&field.name).unwrap_or_default();
    }
    record.tag = names.binary_search_by(|name| (**name).cmp(RECORD_NAME)).err();
    record.names = names;
    Ok(record)
}

fn required<'j>(
    attributes: &'j Map<String, Json>,
    name: &str,
    place: &Place<'_>,
) -> Result<&'j Json, SchemaError> {
    attributes.get(name).ok_or_else(|| place.wrong(format!("`{name}` is missing")))
}

fn text<'j>(
    attributes: &'j Map<String, Json>,
    name: &str,
    place: &Place<'_>,
) -> Result<&'j str, SchemaError> {
    let text = required(attributes, name, place)?.as_str().filter(|text| !text.is_empty());
    text.ok_or_else(|| place.wrong(format!("`{name}` is no name")))
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

fn named(attributes: &Map<String, Json>, place: &Place<'_>) -> Result<Name, SchemaError> {
    let name = text(attributes, "name", place)?;
    let own = attributes.get("namespace").and_then(Json::as_str);
    let full = full_name(name, own.unwrap_or(place.namespace));
    let namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
    // `.A` is A of no namespace.
    let full = full.strip_prefix('.').map(str::to_owned).unwrap_or(full);
    Ok(Name { full, namespace })
}

/// Sets how many bytes records take. One that holds itself with nothing between takes bytes without end.
fn sizes(schema: &mut Schema) -> Result<(), SchemaError> {
    // Nested no deeper than a chain of records that hold the next one, so by a stack of its own.
    let mut done = vec![false; schema.types.len()];
    let mut under_way = vec![false; schema.types.len()];
    for at in 0..schema.types.len() {
        let mut stack = vec![at];
        while let Some(&top) = stack.last() {
            let fields: Vec<usize> = match schema.ty(top) {
                Type::Record(record) if !is(&done, top) => {
                    record.fields.iter().map(|field| field.ty).collect()
                }
                _ => {
                    stack.pop();
                    continue;
                }
            };
            let inner = |ty: &usize| matches!(schema.ty(*ty), Type::Record(_)) && !is(&done, *ty);
            if let Some(next) = fields.iter().copied().find(inner) {
                set(&mut under_way, top);
                if is(&under_way, next) || next == top {
                    let what = "a record that holds itself, with no union, list or map between";
                    let Type::Record(record) = schema.ty(next) else { continue };
                    let place = record.name.to_string();
                    return Err(SchemaError { place, what: what.to_owned() });
                }
                stack.push(next);
                continue;
            }
            let size = fields.iter().fold(Size::EMPTY, |sum, ty| sum.plus(schema.size(*ty)));
            if let Some(Type::Record(record)) = schema.types.get_mut(top) {
                record.size = size;
            }
            set(&mut done, top);
            stack.pop();
        }
    }
    Ok(())
}

fn is(of: &[bool], at: usize) -> bool {
    of.get(at).copied().unwrap_or_default()
}

fn set(of: &mut [bool], at: usize) {
    if let Some(flag) = of.get_mut(at) {
        *flag = true;
    }
}
