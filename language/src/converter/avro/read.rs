//! Values by their schema: taken whole, or passed over.

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::json::DEPTH_MAX;
use foldline_api::value::{Map, Value};

use super::cursor::{Block, Cursor};
use super::fault::{EMPTY_MAX, Fault, What};
use super::scalar::{VARIABLE_SCALE, decimal, text};
use super::schema::{RECORD_NAME, Record, Schema, Type};
use crate::converter::fault::{Part, field_part};

type Read<T> = Result<T, Box<Fault>>;

pub(super) struct Reader<'a> {
    pub(super) cursor: Cursor<'a>,
    pub(super) schema: &'a Schema,
    pub(super) budget: &'a Budget,
    /// Items that took no bytes.
    empty: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], schema: &'a Schema, budget: &'a Budget) -> Self {
        Reader { cursor: Cursor::new(bytes), schema, budget, empty: 0 }
    }

    /// The bytes end where the value does.
    pub(super) fn finish(&self) -> Read<()> {
        match self.cursor.left() {
            0 => Ok(()),
            left => Err(self.cursor.fault(What::LeftOver(left))),
        }
    }

    fn deeper(&self, depth: usize) -> Read<usize> {
        if depth >= DEPTH_MAX { Err(self.cursor.fault(What::Depth)) } else { Ok(depth + 1) }
    }

    /// Passes over a value. Allocates nothing, and looks at no text.
    pub(super) fn skip(&mut self, ty: usize, depth: usize) -> Read<()> {
        let schema = self.schema;
        match schema.ty(ty) {
            Type::Scalar(scalar) => scalar.skip(&mut self.cursor),
            Type::Fixed(fixed) => self.cursor.bytes(fixed.size).map(drop),
            Type::Enum { symbols, .. } => self.cursor.index("symbol", symbols.len()).map(drop),
            Type::Union(union) => {
                let branch = self.cursor.index("branch", union.branches.len())?;
                self.skip(branch_of(&union.branches, branch), depth)
            }
            Type::Record(record) => {
                if record.size.fixed {
                    return self.cursor.bytes(record.size.least).map(drop);
                }
                let depth = self.deeper(depth)?;
                for field in &record.fields {
                    self.skip(field.ty, depth).map_err(|e| e.within(field_part(&field.name)))?;
                }
                Ok(())
            }
            Type::Array(items) => self.skip_blocks(*items, false, depth),
            Type::Map(values) => self.skip_blocks(*values, true, depth),
        }
    }

    fn skip_blocks(&mut self, ty: usize, keys: bool, depth: usize) -> Read<()> {
        let depth = self.deeper(depth)?;
        let size = self.schema.size(ty);
        let least = size.least.saturating_add(usize::from(keys));
        while let Some(Block { items, end }) = self.cursor.block(least)? {
            if let Some(end) = end {
                self.cursor.bytes(end - self.cursor.at())?;
            } else if size.fixed && !keys {
                // There are so many bytes: the block's head was checked by them.
                self.cursor.bytes(items.saturating_mul(size.least))?;
            } else {
                for nth in 0..items {
                    if keys {
                        let length = self.cursor.length()?;
                        self.cursor.bytes(length)?;
                    }
                    let part = if keys { Part::Entry } else { Part::Item(nth) };
                    self.skip(ty, depth).map_err(|e| e.within(part))?;
                }
            }
        }
        Ok(())
    }

    /// A value, whole. `tells`: it is the record's own, so that a record's name is told.
    pub(super) fn take(&mut self, ty: usize, tells: bool, depth: usize) -> Read<Value> {
        let schema = self.schema;
        match schema.ty(ty) {
            Type::Scalar(scalar) => scalar.take(&mut self.cursor, self.budget),
            Type::Fixed(fixed) => fixed.kind.take(fixed.size, &mut self.cursor, self.budget),
            Type::Enum { symbols, .. } => {
                let at = self.cursor.index("symbol", symbols.len())?;
                Ok(symbols.get(at).map_or(Value::Null, |symbol| Value::Text(Arc::clone(symbol))))
            }
            Type::Union(union) => {
                let branch = self.cursor.index("branch", union.branches.len())?;
                let branch = branch_of(&union.branches, branch);
                self.take(branch, tells || union.tells, depth)
            }
            Type::Record(record) if record.number => self.take_number(),
            Type::Record(record) => self.take_record(record, tells, depth),
            Type::Array(items) => self.take_array(*items, depth),
            Type::Map(values) => self.take_map(*values, depth),
        }
    }

    fn take_record(&mut self, record: &Record, tells: bool, depth: usize) -> Read<Value> {
        let depth = self.deeper(depth)?;
        let tag = record.tag.filter(|_| tells);
        let len = record.names.len() + usize::from(tag.is_some());
        self.budget.bytes(len.saturating_mul(size_of::<(Arc<str>, Value)>()))?;
        let mut entries: Vec<(Arc<str>, Value)> = Vec::with_capacity(len);
        entries.extend(record.names.iter().map(|name| (Arc::clone(name), Value::Null)));
        for field in &record.fields {
            let value =
                self.take(field.ty, false, depth).map_err(|e| e.within(field_part(&field.name)))?;
            if let Some(entry) = entries.get_mut(field.sorted) {
                entry.1 = value;
            }
        }
        if let Some(tag) = tag {
            let name = Value::Text(Arc::clone(&record.name));
            entries.insert(tag.min(entries.len()), (Arc::from(RECORD_NAME), name));
        }
        Ok(Value::Map(Arc::new(Map::from_entries(entries))))
    }

    /// A number whose scale stands before its digits.
    fn take_number(&mut self) -> Read<Value> {
        let at = self.cursor.at();
        let scale = i64::from(self.cursor.int()?);
        let length = self.cursor.length()?;
        let number = decimal(self.cursor.bytes(length)?, scale, self.budget)?;
        number.ok_or_else(|| Fault::new(at, What::Logical(VARIABLE_SCALE)))
    }

    fn take_array(&mut self, ty: usize, depth: usize) -> Read<Value> {
        let depth = self.deeper(depth)?;
        let least = self.schema.size(ty).least;
        let mut list = Vec::new();
        while let Some(block) = self.cursor.block(least)? {
            self.room(&block, least, size_of::<Value>())?;
            list.reserve(block.items);
            for _ in 0..block.items {
                let value =
                    self.take(ty, false, depth).map_err(|e| e.within(Part::Item(list.len())))?;
                list.push(value);
            }
            self.end(&block)?;
        }
        Ok(Value::list(list))
    }

    fn take_map(&mut self, ty: usize, depth: usize) -> Read<Value> {
        let depth = self.deeper(depth)?;
        let least = self.schema.size(ty).least.saturating_add(1);
        let mut entries = Vec::new();
        while let Some(block) = self.cursor.block(least)? {
            self.room(&block, least, size_of::<(Arc<str>, Value)>())?;
            entries.reserve(block.items);
            for _ in 0..block.items {
                let key = text(&mut self.cursor, self.budget).map(Arc::from);
                let key = key.map_err(|e| e.within(Part::Entry))?;
                let value = self.take(ty, false, depth).map_err(|e| e.within(Part::Entry))?;
                entries.push((key, value));
            }
            self.end(&block)?;
        }
        Ok(Value::map(entries))
    }

    /// Before any room is made for a block's items: its bytes are there, but items that take none are made of nothing.
    fn room(&mut self, block: &Block, least: usize, each: usize) -> Read<()> {
        if least == 0 {
            self.empty = self.empty.saturating_add(block.items);
            if self.empty > EMPTY_MAX {
                return Err(self.cursor.fault(What::Empty));
            }
        }
        Ok(self.budget.bytes(block.items.saturating_mul(each))?)
    }

    /// A block that is passed over and one that is read must end at the same place.
    pub(super) fn end(&self, block: &Block) -> Read<()> {
        match block.end {
            Some(says) if says != self.cursor.at() => {
                Err(self.cursor.fault(What::Block { says, ends: self.cursor.at() }))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn branch_of(branches: &[usize], at: usize) -> usize {
    branches.get(at).copied().unwrap_or_default()
}
