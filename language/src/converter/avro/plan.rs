//! A schema and what a projection reads of it, compiled to steps: take this into that slot, pass over the next three.

use std::collections::HashMap;
use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::value::Value;

use super::fault::Fault;
use super::read::Reader;
use super::scalar::{FixedKind, Scalar, text};
use super::schema::{RECORD_NAME, Record, Schema, Type};
use crate::converter::fault::{Part, field_part};
use crate::converter::{Filled, Shape, take};
use crate::event::Mask;

type Read<T> = Result<T, Box<Fault>>;

/// How to read what one mask names by one schema.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    nodes: Vec<Node>,
    root: usize,
}

#[derive(Clone, Debug)]
enum Node {
    /// Nothing is read of it.
    Skip(usize),
    /// Neither of several fields, which take so many bytes.
    Bytes(usize),
    Take {
        ty: usize,
        slot: usize,
        tells: bool,
    },
    /// A value without parts of its own that is an object.
    Object {
        ty: usize,
        mask: Mask,
    },
    Record {
        steps: Vec<(Arc<str>, usize)>,
        name: Option<(usize, Arc<str>)>,
    },
    Union(Vec<usize>),
    Map {
        values: usize,
        named: Vec<(Arc<str>, usize, Mask)>,
    },
}

impl Plan {
    pub(super) fn new(schema: &Schema, mask: &Mask) -> Self {
        let mut compiler = Compiler { schema, nodes: Vec::new(), known: HashMap::new() };
        let root = compiler.node(schema.root, mask, true);
        Plan { nodes: compiler.nodes, root }
    }

    /// Fills the slots, from bytes that are one value.
    pub(super) fn fill(
        &self,
        bytes: &[u8],
        schema: &Schema,
        slots: &mut [Option<Value>],
        budget: &Budget,
    ) -> Read<Filled> {
        let mut run = Run { plan: self, reader: Reader::new(bytes, schema, budget), slots };
        let filled = run.root(schema)?;
        run.reader.finish()?;
        Ok(filled)
    }
}

/// Nodes by type, part of the mask, and whether a record there tells its name.
type Known = HashMap<(usize, *const Mask, bool), usize>;

struct Compiler<'a> {
    schema: &'a Schema,
    nodes: Vec<Node>,
    known: Known,
}

impl Compiler<'_> {
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn node(&mut self, ty: usize, mask: &Mask, tells: bool) -> usize {
        let known = (ty, std::ptr::from_ref(mask), tells);
        if let Some(node) = self.known.get(&known) {
            return *node;
        }
        let node = self.compile(ty, mask, tells);
        let node = self.add(node);
        self.known.insert(known, node);
        node
    }

    fn compile(&mut self, ty: usize, mask: &Mask, tells: bool) -> Node {
        let schema = self.schema;
        match (schema.ty(ty), mask) {
            // Each branch of its own: where it is null nothing is taken of the record's value.
            (Type::Union(union), _) => {
                let tells = tells || union.tells;
                let branch = |ty: &usize| self.node(*ty, mask, tells);
                Node::Union(union.branches.iter().map(branch).collect())
            }
            (_, Mask::Whole(slot)) => Node::Take { ty, slot: *slot, tells },
            // A number has no fields.
            (Type::Record(record), Mask::Fields(_)) if record.number => Node::Skip(ty),
            (Type::Record(record), Mask::Fields(named)) => self.record(record, named, tells),
            (Type::Map(values), Mask::Fields(named)) => {
                let entry = |(name, inner): &(Arc<str>, Mask)| {
                    (Arc::clone(name), self.node(*values, inner, false), inner.clone())
                };
                Node::Map { values: *values, named: named.iter().map(entry).collect() }
            }
            (Type::Fixed(fixed), Mask::Fields(_)) if fixed.kind == FixedKind::Duration => {
                Node::Object { ty, mask: mask.clone() }
            }
            (Type::Scalar(Scalar::Json), Mask::Fields(_)) => {
                Node::Object { ty, mask: mask.clone() }
            }
            _ => Node::Skip(ty),
        }
    }

    fn record(&mut self, record: &Record, named: &[(Arc<str>, Mask)], tells: bool) -> Node {
        let mut steps: Vec<(Arc<str>, usize)> = Vec::new();
        for field in &record.fields {
            let found = named.binary_search_by(|(name, _)| name.cmp(&field.name));
            if let Some((_, inner)) = found.ok().and_then(|at| named.get(at)) {
                let node = self.node(field.ty, inner, false);
                steps.push((Arc::clone(&field.name), node));
                continue;
            }
            let size = self.schema.size(field.ty);
            if !size.fixed {
                let node = self.add(Node::Skip(field.ty));
                steps.push((Arc::clone(&field.name), node));
            } else if size.least > 0 {
                match steps.last().and_then(|(_, last)| self.nodes.get_mut(*last)) {
                    Some(Node::Bytes(before)) => *before = before.saturating_add(size.least),
                    _ => {
                        let node = self.add(Node::Bytes(size.least));
                        steps.push((Arc::clone(&field.name), node));
                    }
                }
            }
        }
        let asked = named.iter().find(|(name, _)| **name == *RECORD_NAME);
        let name = match asked {
            Some((_, Mask::Whole(slot))) if tells && record.tag.is_some() => {
                Some((*slot, Arc::clone(&record.name)))
            }
            _ => None,
        };
        Node::Record { steps, name }
    }
}

/// A value under way.
struct Run<'p, 'a, 's> {
    plan: &'p Plan,
    reader: Reader<'a>,
    slots: &'s mut [Option<Value>],
}

impl Run<'_, '_, '_> {
    fn root(&mut self, schema: &Schema) -> Read<Filled> {
        let plan = self.plan;
        let (mut ty, mut node) = (schema.root, plan.root);
        let (of, by) = (schema.ty(ty), plan.nodes.get(node));
        if let (Type::Union(union), Some(Node::Union(nodes))) = (of, by) {
            let branch = self.reader.cursor.index("branch", union.branches.len())?;
            ty = union.branches.get(branch).copied().unwrap_or_default();
            node = nodes.get(branch).copied().unwrap_or_default();
        }
        let (shape, name) = match schema.ty(ty) {
            Type::Record(record) => (Shape::Object, Some(Arc::clone(&record.short))),
            other => (shape(other), None),
        };
        // Nothing is taken of what is nothing.
        if shape != Shape::Null {
            self.step(node, 0)?;
        }
        Ok(Filled { shape, name })
    }

    fn set(&mut self, slot: usize, value: Value) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(value);
        }
    }

    fn step(&mut self, node: usize, depth: usize) -> Read<()> {
        let plan = self.plan;
        match plan.nodes.get(node) {
            None => Ok(()),
            Some(Node::Skip(ty)) => self.reader.skip(*ty, depth),
            Some(Node::Bytes(bytes)) => self.reader.cursor.bytes(*bytes).map(drop),
            Some(Node::Take { ty, slot, tells }) => {
                let value = self.reader.take(*ty, *tells, depth)?;
                self.set(*slot, value);
                Ok(())
            }
            Some(Node::Object { ty, mask }) => {
                let value = self.reader.take(*ty, false, depth)?;
                take(&value, mask, self.slots);
                Ok(())
            }
            Some(Node::Record { steps, name }) => {
                for (field, step) in steps {
                    self.step(*step, depth + 1).map_err(|e| e.within(field_part(field)))?;
                }
                if let Some((slot, name)) = name {
                    self.set(*slot, Value::Text(Arc::clone(name)));
                }
                Ok(())
            }
            Some(Node::Union(nodes)) => {
                let branch = self.reader.cursor.index("branch", nodes.len())?;
                self.step(nodes.get(branch).copied().unwrap_or_default(), depth)
            }
            Some(Node::Map { values, named }) => self.map(*values, named, depth + 1),
        }
    }

    /// Of a name given twice the last wins, whole.
    fn map(&mut self, values: usize, named: &[(Arc<str>, usize, Mask)], depth: usize) -> Read<()> {
        let least = self.reader.schema.size(values).least.saturating_add(1);
        while let Some(block) = self.reader.cursor.block(least)? {
            for _ in 0..block.items {
                self.entry(values, named, depth).map_err(|e| e.within(Part::Entry))?;
            }
            self.reader.end(&block)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        values: usize,
        named: &[(Arc<str>, usize, Mask)],
        depth: usize,
    ) -> Read<()> {
        let key = text(&mut self.reader.cursor, self.reader.budget)?;
        match named.iter().find(|(name, ..)| **name == *key) {
            Some((_, node, inner)) => {
                clear(inner, self.slots);
                self.step(*node, depth)
            }
            None => self.reader.skip(values, depth),
        }
    }
}

/// What messages call a value of this type.
fn shape(ty: &Type) -> Shape {
    match ty {
        Type::Record(record) if record.number => Shape::Other("a decimal"),
        Type::Record(_) | Type::Map(_) => Shape::Object,
        Type::Array(_) => Shape::Other("a list"),
        Type::Enum { .. } => Shape::Other("a text"),
        Type::Fixed(fixed) => match fixed.kind {
            FixedKind::Bytes => Shape::Other("bytes"),
            FixedKind::Decimal(_) => Shape::Other("a decimal"),
            FixedKind::Uuid => Shape::Other("a uuid"),
            FixedKind::Duration => Shape::Object,
        },
        // A union directly in a union is refused.
        Type::Union(_) | Type::Scalar(Scalar::Null) => Shape::Null,
        Type::Scalar(scalar) => Shape::Other(match scalar {
            Scalar::Null => "null",
            Scalar::Boolean => "a boolean",
            Scalar::Int | Scalar::Long => "an integer",
            Scalar::Float | Scalar::Double => "a double",
            Scalar::Bytes => "bytes",
            Scalar::Text => "a text",
            Scalar::Date => "a date",
            Scalar::TimeMillis | Scalar::TimeMicros | Scalar::TimeNanos => "a time",
            Scalar::TimestampMillis
            | Scalar::TimestampMicros
            | Scalar::TimestampNanos
            | Scalar::ZonedTimestamp => "a timestamp",
            Scalar::Json => return Shape::Object,
            Scalar::Uuid => "a uuid",
            Scalar::Decimal(_) | Scalar::BigDecimal => "a decimal",
        }),
    }
}

fn clear(mask: &Mask, slots: &mut [Option<Value>]) {
    match mask {
        Mask::Whole(slot) => {
            if let Some(place) = slots.get_mut(*slot) {
                *place = None;
            }
        }
        Mask::Fields(fields) => fields.iter().for_each(|(_, inner)| clear(inner, slots)),
    }
}
